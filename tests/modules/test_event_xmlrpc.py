"""Tests of sipgw.modules.event_xmlrpc: a real server, and Python's own way to read calls."""

from __future__ import annotations

import xmlrpc.client
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from sipgw.modules import event_xmlrpc
from sipgw.modules.event_xmlrpc import EventXmlrpc, write_call
from sipgw.testing import FakeServer


class Calls(Resource):
    """Keeps the bodies of calls; answers with ``code``, or never."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[bytes] = []
        self.code = 200

    def render_POST(self, request: Any) -> Any:
        assert request.path == b"/RPC2"
        assert request.getHeader("Content-Type") == "text/xml"
        self.bodies.append(request.content.read())
        if not self.code:
            return NOT_DONE_YET
        request.setResponseCode(self.code)
        return b"<methodResponse/>"


class XmlrpcTests(TestCase):
    """Events as calls."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    def start(self, **parameters: Any) -> None:
        self.server = FakeServer()
        self.server.reactor = self.reactor
        self.module = EventXmlrpc(self.server, **parameters)
        self.bus = self.server.user.events
        self.calls = Calls()
        self.port = self.reactor.listenTCP(0, Site(self.calls), interface="127.0.0.1")
        self.number = self.port.getHost().port
        self.addCleanup(self.stop)

    async def stop(self) -> None:
        await self.module.stop()
        if self.port.connected:
            await self.port.stopListening()

    async def tell(self, params: Any) -> bool:
        sink = await self.bus.open(f"xmlrpc:127.0.0.1:{self.number}:block")
        told = sink.send("E_A", params)
        return await told if isinstance(told, Deferred) else told

    async def test_call(self) -> None:
        """The event's name comes first, then its values, each behind its name."""
        self.start()
        self.assertTrue(await self.tell({"count": 5, "name": 'v<&"1'}))
        self.assertTrue(await self.tell(("é\x00", 1)))
        self.assertTrue(await self.tell({}))
        self.assertEqual(self.calls.bodies[0].decode(), (
            '<?xml version="1.0"?>\n<methodCall>\n<methodName>block</methodName>\n<params>\n'
            "<param>\n<value><string>E_A</string></value>\n</param>\n"
            "<param>\n<name>count</name>\n<value><int>5</int></value>\n</param>\n"
            '<param>\n<name>name</name>\n<value><string>v&lt;&amp;"1</string></value>\n</param>\n</params>\n</methodCall>'
        ))
        self.assertEqual([xmlrpc.client.loads(body) for body in self.calls.bodies[1:]], [
            (("E_A", "é\ufffd", 1), "block"), (("E_A",), "block"),
        ])

    def test_structs(self) -> None:
        """With use_struct_param each named one is a struct of one member."""
        read, method = xmlrpc.client.loads(write_call("m", "E", {"count": 5, "name": None}, True))
        self.assertEqual((read, method), (("E", {"count": 5}, {"name": ""}), "m"))

    async def test_failures(self) -> None:
        """A server that says no, that does not answer in time, or that is not there, is told in the log."""
        self.start()
        self.patch(event_xmlrpc, "TIME", 0.1)
        for code, said in ((500, "it answers 500"), (0, "no answer")):
            self.calls.code = code
            self.assertFalse(await self.tell({}))
            self.assertIn(said, self.server.lines[-1][1])
            self.server.user._quiet.clear()
        self.patch(event_xmlrpc, "MAX_CALLS", 0)
        self.assertFalse(await self.tell({}))
        self.assertIn("0 calls are under way", self.server.lines[-1][1])
        self.patch(event_xmlrpc, "MAX_CALLS", 1)
        await self.port.stopListening()
        self.assertFalse(await self.tell({}))
        self.assertEqual(self.module._calls, set())

    async def test_sockets(self) -> None:
        """What is no socket is refused."""
        self.start()
        for text in ("127.0.0.1:80", "127.0.0.1", "127.0.0.1:x:m", "127.0.0.1:80:", "nosuch.invalid:80:m"):
            with self.assertRaises(ValueError, msg=text):
                await self.bus.open(f"xmlrpc:{text}")
        self.assertEqual(await self.bus.open("xmlrpc:127.0.0.1:80:m"), await self.bus.open("xmlrpc:127.0.0.1:80:m"))
        self.assertEqual((await self.bus.open("xmlrpc:[::1]:80:m")).place, "[::1]:80")  # type: ignore[attr-defined]
