"""What the demonstrations have in common: a sipgw of its own, SIP phones, a person who writes lines.

A demonstration is a ``Demo``: it says how its script is changed, what it waits for in the beginning, what it plays by itself with
``DEMO_ONCE=1``, and what a line of a person means. ``run`` runs it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import stdio
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver

from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to

HERE = Path(__file__).parent
PATIENCE = 30.0
TEXT = "Content-Type: text/plain;charset=utf-8\r\n"


def say(text: str) -> None:
    """Show a line."""
    print(text, flush=True)


class Server(ProcessProtocol):
    """sipgw itself, in a process of its own."""

    def __init__(self) -> None:
        self.output = b""
        self.ended: Deferred[int] = Deferred()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep what it logs."""
        self.output += data

    def processEnded(self, reason: Any) -> None:
        """Tell its status."""
        self.ended.callback(reason.value.exitCode if isinstance(reason.value, ProcessTerminated) else 0)


class Phone(DatagramProtocol):
    """A SIP phone of ``name`` at ``domain``: sends requests to the server's port, shows what comes."""

    KNOWN = ("MESSAGE", "NOTIFY")

    def __init__(self, name: str, domain: str, server: int) -> None:
        self.name = name
        self.domain = domain
        self.server = server
        self.texts: list[str] = []
        self.statuses: dict[int, int] = {}
        self.number = 0
        self._known: set[str] = set()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take a message."""
        message = parse(datagram)
        if isinstance(message, Response):
            if message.status >= 200 and message.cseq.number not in self.statuses:
                self.statuses[message.cseq.number] = message.status
                self.answered(message)
            return
        transport: Any = self.transport
        if message.method not in self.KNOWN:
            transport.write(respond_to(message, 405, "Method Not Allowed", to_tag=self.name), addr)
            return
        transport.write(respond_to(message, 200, "OK", to_tag=self.name), addr)
        if message.via.branch not in self._known:
            self._known.add(message.via.branch or "")
            self.show(message)

    def answered(self, response: Response) -> None:
        """A request of ours has its final response."""

    def show(self, message: Request) -> None:
        """Show a text."""
        self.texts.append(message.body.decode())
        say(f"  {self.name}'s phone: {self.caller(message)} writes: {message.body.decode()}")

    def caller(self, message: Request) -> str:
        """How it calls who has sent a message."""
        return message.from_.uri_text

    @property
    def contact(self) -> str:
        """Where it is, as a header."""
        transport: Any = self.transport
        return f"Contact: <sip:{self.name}@127.0.0.1:{transport.getHost().port}>\r\nExpires: 3600\r\n"

    def request(self, method: str, uri: str, headers: str = "", body: bytes = b"") -> int:
        """Send a request; its number."""
        self.number += 1
        transport: Any = self.transport
        own = transport.getHost().port
        text = (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{self.name}{self.number}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.name}@{self.domain}>;tag={self.number}\r\nTo: <{uri}>\r\n"
            f"Call-ID: {self.name}{self.number}\r\nCSeq: {self.number} {method}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        transport.write(text.encode() + body, ("127.0.0.1", self.server))
        return self.number

    def register(self) -> int:
        """Say where we are."""
        return self.request("REGISTER", f"sip:{self.name}@{self.domain}", self.contact)


class Demo:
    """One demonstration in the folder ``name`` beside this file."""

    name = ""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.folder = tempfile.TemporaryDirectory(prefix="sipgw-demo-")
        probe = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        self.port = probe.getHost().port
        probe.stopListening()
        self.server = Server()
        self.phones: dict[str, Phone] = {}

    def script(self, text: str) -> str:
        """Its script, with the ports of this run."""
        return text

    def start(self) -> None:
        """Start sipgw and the phones."""
        text = (HERE / self.name / "opensips.cfg").read_text(encoding="utf-8").replace("127.0.0.1:5060", f"127.0.0.1:{self.port}")
        file = Path(self.folder.name) / "opensips.cfg"
        file.write_text(self.script(text), encoding="utf-8")
        twistd = "from twisted.scripts.twistd import run; run()"
        command = [sys.executable, "-c", twistd, "-n", "--pidfile=", "sipgw", "-c", str(file)]
        self.reactor.spawnProcess(self.server, sys.executable, command, os.environ, path=str(HERE.parent))
        for phone in self.phones.values():
            self.reactor.listenUDP(0, phone, interface="127.0.0.1")

    def explain(self) -> str:
        """What else was said, where something was waited for in vain."""
        return ""

    async def until(self, condition: Any, what: str) -> None:
        """Wait until ``condition`` holds."""
        end = self.reactor.seconds() + PATIENCE
        while not condition():
            if self.reactor.seconds() > end or self.server.ended.called:
                said = self.server.output.decode(errors="replace")[-2000:]
                raise SystemExit(f"waited in vain: {what}\n{said}{self.explain()}")
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.02, tick.callback, None)
            await tick

    async def register(self) -> None:
        """Let each phone register, and wait for that."""
        for phone in self.phones.values():
            statuses, number = phone.statuses, phone.register()
            await self.until(lambda known=statuses, key=number: known.get(key) == 200, f"{phone.name}'s phone registers")

    async def come_up(self) -> None:
        """Wait until all are there."""
        raise NotImplementedError

    async def once(self) -> None:
        """Play by itself."""
        raise NotImplementedError

    def line(self, line: str) -> None:
        """Do what a person wrote."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End all, and leave nothing behind."""
        transport: Any = self.server.transport
        if not self.server.ended.called:
            transport.signalProcess("TERM")
            await self.server.ended
        self.folder.cleanup()


class _Keyboard(LineReceiver):
    """The person."""

    delimiter = b"\n"

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.done: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        """Take a line."""
        if line.strip() == b"quit":
            self.connectionLost()
        else:
            self.demo.line(line.decode(errors="replace"))

    def connectionLost(self, reason: Any = None) -> None:
        """The end."""
        if not self.done.called:
            self.done.callback(None)


async def _play(demo: Demo) -> None:
    """Run one to its end."""
    demo.start()
    try:
        await demo.come_up()
        if os.environ.get("DEMO_ONCE"):
            await demo.once()
            say("All of it arrived.")
        else:
            demo.line("?")
            keyboard = _Keyboard(demo)
            stdio.StandardIO(keyboard)
            await keyboard.done
    finally:
        await demo.stop()


def run(demo: type[Demo]) -> None:
    """Run a demonstration, and end with its status."""
    react(lambda reactor: ensureDeferred(_play(demo(reactor))))
