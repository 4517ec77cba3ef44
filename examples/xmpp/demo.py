"""A SIP phone and a Jabber client in one terminal: ``make demo-xmpp``.

A sipgw runs the script beside this file, next to a private Prosody; alice has a SIP phone, romeo a Jabber client. Write a line:

    alice Hello         alice's phone writes to romeo
    romeo Hello back    romeo writes to alice
    away    here        romeo goes away, and comes back: alice's phone shows it
    stop    start       the XMPP server goes away, and comes back
    quit

With ``DEMO_ONCE=1`` a message goes each way by itself, and a change of presence; the status is 0 if they arrived."""

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
from sipgw.sip.pidf import PIDF, Pidf
from sipgw.sip.replies import respond_to
from tests.servers.prosody import DOMAIN, missing, prosody
from tests.xmpp.rig import Jabber

HERE = Path(__file__).parent
PATIENCE = 30.0


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
    """alice's phone: registers, sends texts, shows those that come."""

    def __init__(self, server: int) -> None:
        self.server = server
        self.texts: list[str] = []
        self.shown = ""
        """What it shows of romeo."""
        self.statuses: dict[int, int] = {}
        self.number = 0
        self._known: set[str] = set()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take a message."""
        message = parse(datagram)
        if isinstance(message, Response):
            if message.status >= 200 and message.cseq.number not in self.statuses:
                self.statuses[message.cseq.number] = message.status
                if message.method == "MESSAGE":
                    say(f"  alice's phone: {message.status} {message.reason}")
            return
        transport: Any = self.transport
        if message.method == "SUBSCRIBE":  # it is a phone without presence of its own: sipgw tells that it is registered
            transport.write(respond_to(message, 489, "Bad Event", to_tag="alice"), addr)
            return
        transport.write(respond_to(message, 200, "OK", to_tag="alice"), addr)
        if message.via.branch not in self._known:
            self._known.add(message.via.branch or "")
            self.show(message)

    def show(self, message: Request) -> None:
        """Show a text, that somebody writes one, or whether somebody is there."""
        if message.method == "NOTIFY":
            if message.body:
                devices = Pidf.parse(message.body).tuples
                self.shown = next((each.show or "available" for each in devices if each.open), "offline")
                say(f"  alice's phone: romeo is {self.shown}")
            return
        if message.header("content-type") == "application/im-iscomposing+xml":
            say("  alice's phone: romeo is writing" if b"active" in message.body else "  alice's phone: romeo is not writing")
            return
        self.texts.append(message.body.decode())
        say(f"  alice's phone: {message.from_.uri_text} writes: {message.body.decode()}")

    def request(self, method: str, uri: str, headers: str = "", body: bytes = b"") -> int:
        """Send a request; its number."""
        self.number += 1
        transport: Any = self.transport
        own = transport.getHost().port
        text = (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bKalice{self.number}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:alice@sip.test>;tag={self.number}\r\nTo: <{uri}>\r\nCall-ID: alice{self.number}\r\n"
            f"CSeq: {self.number} {method}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        transport.write(text.encode() + body, ("127.0.0.1", self.server))
        return self.number

    def register(self) -> int:
        """Register."""
        transport: Any = self.transport
        contact = f"Contact: <sip:alice@127.0.0.1:{transport.getHost().port}>\r\nExpires: 3600\r\n"
        return self.request("REGISTER", "sip:alice@sip.test", contact)

    def subscribe(self) -> int:
        """Ask whether romeo is there."""
        transport: Any = self.transport
        contact = f"Contact: <sip:alice@127.0.0.1:{transport.getHost().port}>\r\nExpires: 3600\r\n"
        return self.request("SUBSCRIBE", f"sip:romeo@{DOMAIN}", f"{contact}Event: presence\r\nAccept: {PIDF}\r\n")

    def text(self, text: str) -> int:
        """Write to romeo."""
        return self.request("MESSAGE", f"sip:romeo@{DOMAIN}", "Content-Type: text/plain;charset=utf-8\r\n", text.encode())


class Client(Jabber):
    """romeo's Jabber client (slixmpp's), which shows what comes."""

    def outReceived(self, data: bytes) -> None:
        """Take what it tells."""
        before = len(self.bodies())
        known = len(self.stanzas)
        super().outReceived(data)
        for each in self.stanzas[known:]:
            if each.tag == "{jabber:client}presence" and (each.get("from") or "").startswith("alice@sip.test/"):
                say(f"  romeo's client: alice is {each.get('type', 'available')}")
        for text in self.bodies()[before:]:
            say(f"  romeo's client: alice writes: {text}")

    def text(self, text: str) -> None:
        """Write to alice."""
        body = text.replace("&", "&amp;").replace("<", "&lt;")
        self.send(f"<message to='alice@sip.test' type='chat'><body>{body}</body></message>")


class Demo:
    """All of it."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.folder = tempfile.TemporaryDirectory(prefix="sipgw-demo-")
        probe = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        self.port = probe.getHost().port
        probe.stopListening()
        self.phone = Phone(self.port)
        self.romeo = Client("romeo")
        self.server = Server()

    def start(self) -> None:
        """Start Prosody, sipgw, the phone and the client."""
        script = (HERE / "opensips.cfg").read_text(encoding="utf-8").replace("127.0.0.1:5060", f"127.0.0.1:{self.port}")
        script = script.replace('"xmpp_port", 5347', f'"xmpp_port", {prosody().components}')
        file = Path(self.folder.name) / "opensips.cfg"
        file.write_text(script, encoding="utf-8")
        twistd = "from twisted.scripts.twistd import run; run()"
        command = [sys.executable, "-c", twistd, "-n", "--pidfile=", "sipgw", "-c", str(file)]
        self.reactor.spawnProcess(self.server, sys.executable, command, os.environ, path=str(HERE.parent.parent))
        self.reactor.listenUDP(0, self.phone, interface="127.0.0.1")
        self.romeo.start(self.reactor)

    async def until(self, condition: Any, what: str) -> None:
        """Wait until ``condition`` holds."""
        end = self.reactor.seconds() + PATIENCE
        while not condition():
            if self.reactor.seconds() > end or self.server.ended.called:
                said = self.server.output.decode(errors="replace")[-2000:] + self.romeo.errors.decode(errors="replace")[-1000:]
                raise SystemExit(f"waited in vain: {what}\n{said}")
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.02, tick.callback, None)
            await tick

    async def come_up(self) -> None:
        """Wait until all are there."""
        await self.until(lambda: b"connected to" in self.server.output, "sipgw connects to Prosody")
        await self.until(lambda: self.romeo.online, "romeo's client is online")
        number = self.phone.register()
        await self.until(lambda: self.phone.statuses.get(number) == 200, "alice's phone registers")
        self.phone.subscribe()
        await self.until(lambda: self.phone.shown == "available", "alice's phone shows romeo as available")
        self.romeo.send("<presence to='alice@sip.test' type='subscribe'/>")
        say(f"alice@sip.test has a SIP phone (127.0.0.1:{self.port}); romeo@{DOMAIN} has a Jabber client")

    async def once(self) -> None:
        """Play a message each way."""
        text = "Hello from SIP \U0001f600 <&>"
        say(f"alice -> romeo: {text}")
        number = self.phone.text(text)
        await self.until(lambda: self.phone.statuses.get(number) == 202, "202 for alice's text")
        await self.until(lambda: self.romeo.bodies() == [text], "romeo has the text, character by character")
        answer = "Hello from Jabber \U0001f44b"
        say(f"romeo -> alice: {answer}")
        self.romeo.text(answer)
        await self.until(lambda: self.phone.texts == [answer], "alice has the answer")
        say("romeo goes away")
        self.romeo.send("<presence><show>away</show></presence>")
        await self.until(lambda: self.phone.shown == "away", "alice's phone shows romeo as away")
        await self.until(lambda: self.romeo.saying(".[@from='alice@sip.test/sip']"), "romeo sees that alice has a phone")
        say("All of it arrived.")

    def line(self, line: str) -> None:
        """Do what a person wrote."""
        who, _, text = line.strip().partition(" ")
        if who == "alice" and text:
            self.phone.text(text)
        elif who == "romeo" and text:
            self.romeo.text(text)
        elif who == "away":
            self.romeo.send("<presence><show>away</show></presence>")
        elif who == "here":
            self.romeo.send("<presence/>")
        elif who == "stop":
            prosody().kill()
        elif who == "start":
            prosody().start()
        elif who:
            say("Write: alice Hello    or: romeo Hello back    or: away, here    or: stop, start (the XMPP server)    or: quit")

    async def stop(self) -> None:
        """End all, and leave nothing behind."""
        await self.romeo.stop()
        transport: Any = self.server.transport
        if not self.server.ended.called:
            transport.signalProcess("TERM")
            await self.server.ended
        self.folder.cleanup()


class Keyboard(LineReceiver):
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


async def play(reactor: Any) -> None:
    """Run the demonstration."""
    demo = Demo(reactor)
    demo.start()
    try:
        await demo.come_up()
        if os.environ.get("DEMO_ONCE"):
            await demo.once()
        else:
            demo.line("?")
            keyboard = Keyboard(demo)
            stdio.StandardIO(keyboard)
            await keyboard.done
    finally:
        await demo.stop()


def main(reactor: Any) -> Deferred[None]:
    """What ``react`` runs."""
    return ensureDeferred(play(reactor))


if __name__ == "__main__":
    if missing():
        raise SystemExit(missing())
    react(main)
