"""A server in this process with the module mi_amp, and the client of Twisted's own AMP beside it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.trial.unittest import TestCase

from sipgw.exports import Module, event, mi, statistic
from sipgw.manhole import boxes
from sipgw.modules.core_mi import CoreCommands
from sipgw.modules.mi_amp import MiAmp
from sipgw.testing import FakeServer


class Echo(Module):
    """Commands to ask for."""

    name = "echo"
    said = statistic("how often something was said")
    rang = event("E_ECHO_RANG", "text")
    asked = 0
    waiting: Deferred[None]

    @mi()
    def say(self, text: str) -> str:
        """Say it again."""
        self.said.inc()
        return text

    @mi()
    def count(self, number: int) -> Any:
        """Count, without having all in memory."""
        return ({"number": each, "text": "x" * 50} for each in range(number))

    @mi()
    async def wait(self) -> None:
        """Wait."""
        self.asked += 1
        again: Deferred[None] = Deferred()
        self.waiting.addBoth(lambda _: again.callback(None))
        await again

    @mi()
    def joined(self, texts: list[str]) -> str:
        """Join them."""
        return ",".join(texts)

    @mi()
    def fail(self) -> None:
        """Break."""
        raise KeyError("secret")

    @mi()
    def breaks(self) -> Any:
        """Break off in the middle."""
        return (str(1000000 // (20000 - each)) for each in range(20001))


class Listener(amp.AMP):
    """Twisted's client; what it is told is in ``heard``. While ``held`` is a list, it answers nothing of it."""

    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Any, int]] = []
        self.held: list[Deferred[dict[str, Any]]] | None = None
        self._partial = b""

    @boxes.Told.responder
    def told(self, subscription: int, data: bytes, last: bool, lost: int) -> Any:
        """Take it."""
        self._partial += data
        if last:
            self.heard.append((json.loads(self._partial), lost))
            self._partial = b""
        if self.held is not None:
            answer: Deferred[dict[str, Any]] = Deferred()
            self.held.append(answer)
            return answer
        return {}

    async def call(self, command: str, *params: Any, **named: Any) -> Any:
        """The result of a command."""
        answer = await self.callRemote(boxes.Call, command=command, params=json.dumps(named or params).encode())
        data = answer["data"]
        while answer["rest"]:
            answer = await self.callRemote(boxes.More, rest=answer["rest"])
            data += answer["data"]
        return json.loads(data)


class DoorTests(TestCase):
    """A server, and a client that is connected to it."""

    timeout = 30

    def setUp(self) -> Any:
        """Start both."""
        return Deferred.fromCoroutine(self.begin())

    async def begin(self) -> None:
        """Start both."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = FakeServer()
        self.server.reactor = self.reactor
        self.echo = Echo(self.server)
        self.server.commands.add(self.echo)
        self.server.commands.add(CoreCommands(self.server))
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = str(Path(directory.name) / "mi.sock")
        self.module = await self.door(socket_name=self.path)
        self.client = await self.connect()

    async def door(self, **parameters: Any) -> MiAmp:
        """Start the module."""
        module = MiAmp(self.server, **parameters)
        await module.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(module.stop()))
        return module

    async def connect(self) -> Listener:
        """One more client."""
        client = Listener()
        await connectProtocol(UNIXClientEndpoint(self.reactor, self.path), client)
        self.addCleanup(self.part, client)
        return client

    def part(self, client: Listener) -> Any:
        """End the connection, and wait for that."""
        if client.transport is not None and client.transport.connected:
            gone: Deferred[None] = Deferred()
            lost = client.connectionLost

            def ended(reason: Any) -> None:
                lost(reason)
                gone.callback(None)

            client.connectionLost = ended  # type: ignore[method-assign]
            client.transport.loseConnection()
            return gone
        return None

    async def until(self, condition: Any) -> None:
        """Wait for a condition."""
        for _ in range(2000):
            if condition():
                return
            await deferLater(self.reactor, 0.005)
        self.fail("waited in vain")
