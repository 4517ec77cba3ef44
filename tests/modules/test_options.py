"""Tests of sipgw.modules.options."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from sipgw.modules.options import Options
from sipgw.modules.signaling import Signaling
from sipgw.modules.sl import Sl
from tests.doubles import fake_server, request, run_of


class OptionsTests(TestCase):
    """options_reply."""

    async def start(self, **parameters: Any) -> Options:
        """Start options, with what it needs, on a fake server."""
        server = fake_server()
        self.user = server.user
        sl = Sl(server)
        await sl.start()
        options = Options(server, signaling=Signaling(server, sl=sl), **parameters)
        await options.start()
        return options

    async def test_answer(self) -> None:
        """An OPTIONS for the server is answered 200 with Accept and Accept-Language."""
        options = await self.start()
        self.assertTrue(options.options_reply(run_of(request("OPTIONS", "sip:127.0.0.1"), self.user)))
        (reply,) = self.user.replies
        self.assertTrue(reply.startswith(b"SIP/2.0 200 OK\r\n"))
        self.assertIn(b"\r\nAccept: */*\r\nAccept-Language: en\r\n", reply)
        self.assertNotIn(b"Accept-Encoding", reply)

    async def test_headers(self) -> None:
        """Each header is what its parameter says; an empty one is left out."""
        options = await self.start(accept="", accept_encoding="gzip", accept_language="", support="path, 100rel")
        self.assertTrue(options.options_reply(run_of(request("OPTIONS", "sip:127.0.0.1:5060;lr"), self.user)))
        self.assertIn(b"\r\nAccept-Encoding: gzip\r\nSupported: path, 100rel\r\n", self.user.replies[0])
        self.assertNotIn(b"Accept:", self.user.replies[0])
        self.assertNotIn(b"Language", self.user.replies[0])

    async def test_wrong_request(self) -> None:
        """Another method, a Request-URI with a user or one that cannot be read is not answered but logged."""
        options = await self.start()
        self.assertFalse(options.options_reply(run_of(request("INVITE", "sip:127.0.0.1"), self.user)))
        self.assertFalse(options.options_reply(run_of(request("OPTIONS", "sip:bob@127.0.0.1"), self.user)))
        self.assertFalse(options.options_reply(run_of(request("OPTIONS", "sip:[::1"), self.user)))
        self.assertEqual((self.user.replies, len(self.user.logged)), ([], 3))

    async def test_parameters(self) -> None:
        """A line end in a parameter is refused when the configuration is read."""
        with self.assertRaises(ValueError):
            await self.start(accept="a\r\nX: y")
