"""Tests of sipgw.proxy.call_control: a real unix socket, and an application of the tests' own behind it."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from sipgw.proxy.call_control import CallControl, Unavailable, lines
from tests.modules.test_cachedb_redis import RealServer


class Application(LineReceiver):
    """Answers requests, each an empty line after others, as ``factory.answer(lines)`` says; nothing if that is None."""

    factory: Any
    transport: Any

    def __init__(self) -> None:
        self.lines: list[str] = []

    def connectionMade(self) -> None:
        self.factory.links.append(self)

    def lineReceived(self, line: bytes) -> None:
        if line:
            self.lines.append(line.decode())
            return
        request, self.lines = self.lines, []
        self.factory.requests.append(request)
        answer = self.factory.answer(request)
        if answer is not None:
            self.transport.write(answer)


class Applications(Factory):
    """All connections to one socket."""

    protocol = Application

    def __init__(self) -> None:
        self.links: list[Application] = []
        self.requests: list[list[str]] = []
        self.answer: Any = lambda request: b"Ok\r\n"


class ClientTests(TestCase):
    """One client."""

    timeout = 20

    def setUp(self) -> None:
        self.server = RealServer()
        self.reactor = self.server.reactor
        self.server.user._call_later = self.reactor.callLater
        self.path = os.path.join(tempfile.mkdtemp(dir="/tmp"), "socket")
        self.listen()
        self.client = CallControl(self.server.user, self.reactor, self.path, 0.3)
        self.addCleanup(self.end)

    def listen(self) -> None:
        """Let the application be there."""
        self.applications = Applications()
        self.port = self.reactor.listenUNIX(self.path, self.applications)

    async def end(self) -> None:
        self.client.stop()
        for link in self.applications.links:
            link.transport.abortConnection()
        await deferLater(self.reactor, 0.02, lambda: None)
        if self.port is not None:
            await self.port.stopListening()
        if self.server.user._wake is not None:
            self.server.user._wake.cancel()
        if os.path.exists(self.path):
            os.unlink(self.path)
        os.rmdir(os.path.dirname(self.path))

    def ask(self, text: str = "ping\r\n\r\n") -> Deferred[str]:
        """Ask."""
        return ensureDeferred(self.client.ask(text))

    async def test_answers(self) -> None:
        """A request and its answer; the connection stays; what would end a line in a value is left out."""
        self.applications.answer = lambda request: b"Limited\r\n"
        text = lines("init", [("ruri", "sip:b@h"), ("from", "a\r\nstop\r\n")])
        self.assertEqual(await self.ask(text), "Limited")
        self.assertEqual(await self.ask(text), "Limited")
        self.assertEqual(self.applications.requests, [["init", "ruri: sip:b@h", "from: astop"]] * 2)
        self.assertEqual(len(self.applications.links), 1)

    async def test_side_by_side(self) -> None:
        """Eight are asked at a time, each by a connection of its own; the others wait in turn, and all are answered."""
        self.applications.answer = lambda request: None
        asked = [self.ask(lines("n", [("n", str(number))])) for number in range(20)]
        while len(self.applications.requests) < 8:
            await deferLater(self.reactor, 0.01, lambda: None)
        self.applications.answer = lambda request: request[1].encode() + b"\r\n"
        for link, request in zip(self.applications.links, self.applications.requests[:8], strict=True):
            link.transport.write(request[1].encode() + b"\r\n")
        answers = await gatherResults(asked)
        self.assertEqual([*answers], [f"n: {number}" for number in range(20)])
        self.assertEqual(len(self.applications.links), 8)

    async def test_silence(self) -> None:
        """Who does not answer is given up: the others wait no longer, and for ten seconds nobody is asked."""
        self.applications.answer = lambda request: None
        asked = [self.ask() for _ in range(12)]
        begin = self.reactor.seconds()
        for each in asked:
            await self.assertFailure(each, Unavailable)
        self.assertLess(self.reactor.seconds() - begin, 2)
        await self.assertFailure(self.ask(), Unavailable)
        self.assertEqual(len(self.applications.requests), 8)
        self.client._failed -= 10
        self.applications.answer = lambda request: b"Ok\r\n"
        self.assertEqual(await self.ask(), "Ok")

    async def test_gone_and_back(self) -> None:
        """An idle connection that has ended costs nothing; one that ends without an answer does, or no socket."""
        self.assertEqual(await self.ask(), "Ok")
        self.applications.links[0].transport.loseConnection()
        await deferLater(self.reactor, 0.05, lambda: None)
        self.assertEqual(await self.ask(), "Ok")
        self.applications.answer = lambda request: self.applications.links[-1].transport.loseConnection()
        await self.assertFailure(self.ask(), Unavailable)
        self.client._failed -= 10
        await self.port.stopListening()
        self.port = None
        await self.assertFailure(self.ask(), Unavailable)
        await self.assertFailure(self.ask("x" * 9000), Unavailable)
        self.listen()
        await self.assertFailure(self.ask(), Unavailable)
        self.client._failed -= 10
        self.assertEqual(await self.ask(), "Ok")
