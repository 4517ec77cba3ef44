"""Tests of sipgw.modules.mi_xmlrpc: a real server on a port of the kernel's choice, and Python's own way to write calls."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

from twisted.web.client import PartialDownloadError, ResponseFailed

from sipgw.modules.mi_xmlrpc import MiXmlrpc
from tests.modules.test_mi_http import ServerTests

CALL = b"<methodCall><methodName>say</methodName><params><param><value>x</value></param></params></methodCall>"


class MiXmlrpcTests(ServerTests):
    """Commands by XML-RPC."""

    async def begin(self, **parameters: Any) -> None:
        """Start the module beside httpd."""
        await self.start()
        self.module = self.server.add(MiXmlrpc(self.server, httpd=self.httpd, **parameters))
        await self.module.start()

    async def ask(self, method: str, *params: Any, path: str = "RPC2") -> Any:
        """What Python's client makes of the answer to the call that it writes."""
        body = xmlrpc.client.dumps(params, method, encoding="utf-8").encode()
        _status, _media, text = await self.post(body, path=path, media="text/xml")
        return xmlrpc.client.loads(text, use_builtin_types=True)[0][0]

    async def test_call(self) -> None:
        """A command is run, by any of its names, with positional or named parameters."""
        await self.begin()
        self.assertEqual(await self.ask("echo:say", "hé"), "hé")
        self.assertEqual(await self.ask("say", {"text": "named"}), "named")
        self.assertEqual(await self.ask("count", 3), [f"{n:0100}" for n in range(3)])
        self.assertEqual(self.server.user.lines, [])

    async def test_faults(self) -> None:
        """Errors are faults."""
        await self.begin()
        for method, params, code in (("nosuch", (), -32601), ("say", (), -32602), ("say", ("a", "b"), -32602)):
            with self.assertRaises(xmlrpc.client.Fault) as caught:
                await self.ask(method, *params)
            self.assertEqual(caught.exception.faultCode, code)
        status, media, text = await self.post(b"nonsense", path="RPC2", media="text/xml")
        self.assertEqual((status, media), (200, "text/xml; charset=utf-8"))
        self.assertIn("<int>-32700</int>", text)

    async def test_long(self) -> None:
        """A long answer arrives whole; one that cannot be made is a fault, one that breaks later no answer."""
        await self.begin()
        self.assertEqual(len(await self.ask("count", 5000)), 5000)
        self.echo.fail_at = 0
        with self.assertRaises(xmlrpc.client.Fault):
            await self.ask("count", 5)
        self.echo.fail_at = 4000
        with self.assertRaises((ResponseFailed, PartialDownloadError)):
            await self.ask("count", 5000)
        self.assertIn("an answer broke off", self.server.user.lines[-1][1])

    async def test_refused(self) -> None:
        """Other methods and types are refused."""
        await self.begin()
        self.assertEqual((await self.post(CALL, path="RPC2", media="text/xml"))[0], 200)
        self.assertEqual((await self.post(CALL, path="RPC2", media="text/plain"))[0], 415)
        self.assertEqual((await self.post(b"", path="RPC2", media="text/xml", method="GET"))[0], 405)

    async def test_root(self) -> None:
        """http_root gives the path; when the module stops there is nothing."""
        await self.begin(http_root="xml")
        self.assertEqual(await self.ask("say", "x", path="xml"), "x")
        await self.module.stop()
        self.assertEqual((await self.post(CALL, path="xml", media="text/xml"))[0], 404)
        self.assertRaises(ValueError, MiXmlrpc, None, http_root="a/b")


del ServerTests
