"""Two SIP phones and a mobile in one terminal: ``make demo-sms``.

A sipgw runs the script beside this file; an SMSC made for tests plays the mobile network. Write a line and see what happens:

    alice +49170555 Hello       alice's phone sends a text to the mobile
    bob alice Hi                one phone writes to the other
    mobile alice Hello back     the mobile writes to a phone
    quit

With ``DEMO_ONCE=1`` a text goes each way by itself, and a receipt comes; the status is 0 if all of that arrived."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from twisted.internet import stdio
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.sip.cpim import Cpim
from sipgw.sip.imdn import NAMESPACE, Notification
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to
from sipgw.sms.inbound import content_of
from sipgw.sms.pdu import Pdu
from sipgw.sms.text import join
from sipgw.testing import FakeSmsc

HERE = Path(__file__).parent
MOBILE = "+49170555"
PATIENCE = 20.0


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
    """A SIP phone: registers, sends texts, shows those that come."""

    def __init__(self, name: str, server: int) -> None:
        self.name = name
        self.server = server
        self.texts: list[str] = []
        self.notes: list[str] = []
        self.statuses: dict[int, int] = {}
        self.number = 0
        self._known: set[str] = set()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take a message."""
        message = parse(datagram)
        if isinstance(message, Response):
            if message.status >= 200:
                self.statuses[message.cseq.number] = message.status
            return
        transport: Any = self.transport
        transport.write(respond_to(message, 200, "OK", to_tag=self.name), addr)
        if message.call_id not in self._known:
            self._known.add(message.call_id)
            self.show(message)

    def show(self, message: Request) -> None:
        """Show a text, or what became of one."""
        if message.header("content-type") == "message/cpim":
            note = Notification.parse(Cpim.parse(message.body).body)
            self.notes.append(note.status)
            say(f"  {self.name}'s phone: your text was {note.status}")
            return
        self.texts.append(message.body.decode())
        say(f"  {self.name}'s phone: {message.from_.uri.user} writes: {message.body.decode()}")

    def request(self, method: str, user: str, headers: str = "", body: bytes = b"") -> int:
        """Send a request; its number."""
        self.number += 1
        transport: Any = self.transport
        own = transport.getHost().port
        host = f"127.0.0.1:{self.server}"
        text = (
            f"{method} sip:{user}@{host} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{self.name}{self.number}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:{self.name}@{host}>;tag=1\r\nTo: <sip:{user}@{host}>\r\n"
            f"Call-ID: {self.name}{self.number}\r\nCSeq: {self.number} {method}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        transport.write(text.encode() + body, ("127.0.0.1", self.server))
        return self.number

    def register(self) -> int:
        """Say where we are."""
        transport: Any = self.transport
        contact = f"Contact: <sip:{self.name}@127.0.0.1:{transport.getHost().port}>\r\nExpires: 600\r\n"
        return self.request("REGISTER", self.name, contact)

    def text(self, user: str, text: str) -> int:
        """Send a text, and ask to be told when it has arrived."""
        if not user.startswith("+"):
            return self.request("MESSAGE", user, "Content-Type: text/plain;charset=utf-8\r\n", text.encode())
        head = (
            f"From: <sip:{self.name}@127.0.0.1>\r\nTo: <sip:{user}@127.0.0.1>\r\nNS: imdn <{NAMESPACE}>\r\nimdn.Message-ID: "
            f"{self.name}{self.number}\r\nimdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\n"
            "Content-Type: text/plain;charset=utf-8\r\n\r\n"
        )
        return self.request("MESSAGE", user, "Content-Type: message/cpim\r\n", (head + text).encode())


class Demo:
    """All of it."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.folder = tempfile.TemporaryDirectory(prefix="sipgw-demo-")
        self.smsc = FakeSmsc(reactor)
        self.smsc.answer = self.taken
        self.received: list[str] = []
        self.pieces: list[Any] = []
        probe = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        self.port = probe.getHost().port
        probe.stopListening()
        self.phones = {name: Phone(name, self.port) for name in ("alice", "bob")}
        self.server = Server()

    def start(self) -> None:
        """Make the spool, start sipgw and the phones."""
        url = f"sqlite://{self.folder.name}/sms.db"
        store = open_store(url, create=True)
        create(store, ["sms_messages", "sms_parts"])
        store.close()
        script = (HERE / "opensips.cfg").read_text(encoding="utf-8")
        script = script.replace("sqlite:///tmp/sipgw-sms.db", url).replace("127.0.0.1:5060", f"127.0.0.1:{self.port}")
        script = script.replace("port=2775", f"port={self.smsc.port}")
        script = script.replace('"domain", "127.0.0.1"', f'"domain", "127.0.0.1:{self.port}"')
        file = Path(self.folder.name) / "opensips.cfg"
        file.write_text(script, encoding="utf-8")
        twistd = "from twisted.scripts.twistd import run; run()"
        command = [sys.executable, "-c", twistd, "-n", "--pidfile=", "sipgw", "-c", str(file)]
        self.reactor.spawnProcess(self.server, sys.executable, command, os.environ, path=str(HERE.parent.parent))
        for phone in self.phones.values():
            self.reactor.listenUDP(0, phone, interface="127.0.0.1")

    def taken(self, pdu: Pdu) -> str:
        """The mobile network takes a part of a text, and delivers it."""
        chunk, which = content_of(pdu)
        self.pieces.append(chunk)
        if which is None or which.number == which.total:
            text = join(self.pieces)
            self.pieces.clear()
            self.received.append(text)
            say(f"  the mobile: {pdu['source_addr']} writes: {text}")
        id = str(len(self.smsc.taken) + 1)
        self.reactor.callLater(0.2, lambda: self.smsc.receipt(id))
        return "ESME_ROK"

    async def until(self, condition: Any, what: str) -> None:
        """Wait until ``condition`` holds."""
        end = self.reactor.seconds() + PATIENCE
        while not condition():
            if self.reactor.seconds() > end or self.server.ended.called:
                raise SystemExit(f"waited in vain: {what}\n{self.server.output.decode(errors='replace')[-2000:]}")
            tick: Deferred[None] = Deferred()
            self.reactor.callLater(0.02, tick.callback, None)
            await tick

    async def come_up(self) -> None:
        """Wait until both phones are registered and the link is bound."""
        await self.until(lambda: b"bound to provider" in self.server.output, "sipgw binds to the SMSC")
        for phone in self.phones.values():
            number = phone.register()
            await self.until(lambda phone=phone, number=number: phone.statuses.get(number) == 200, f"{phone.name} registers")
        say(f"alice and bob are registered at 127.0.0.1:{self.port}; the mobile is {MOBILE}")

    async def once(self) -> None:
        """Play a text each way and a receipt."""
        alice = self.phones["alice"]
        text = "Hello from SIP, with emoji \U0001f600 and so long that it goes in parts: " + "la " * 60
        say(f"alice -> {MOBILE}: {text}")
        number = alice.text(MOBILE, text)
        await self.until(lambda: alice.statuses.get(number) == 202, "202 for alice's text")
        await self.until(lambda: self.received == [text], "the mobile has the text, character by character")
        await self.until(lambda: alice.notes == ["delivered"], "alice's phone hears that it was delivered")
        answer = "Hello back \U0001f44b"
        say(f"mobile -> alice: {answer}")
        self.smsc.say(MOBILE[1:], "alice", answer, dest_addr_ton=5, dest_addr_npi=0)
        await self.until(lambda: alice.texts == [answer], "alice's phone has the answer")
        say("All of it arrived.")

    def line(self, line: str) -> None:
        """Do what a person wrote."""
        who, _, rest = line.strip().partition(" ")
        to, _, text = rest.partition(" ")
        if who in self.phones and to and text:
            self.phones[who].text(to, text)
        elif who == "mobile" and to and text:
            self.smsc.say(MOBILE[1:], to, text, dest_addr_ton=5, dest_addr_npi=0)
        elif who:
            say(f"Write: alice {MOBILE} Hello    or: bob alice Hi    or: mobile alice Hello back    or: quit")

    async def stop(self) -> None:
        """End sipgw, and leave nothing behind."""
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
    coroutine: Coroutine[Any, Any, None] = play(reactor)
    return ensureDeferred(coroutine)


if __name__ == "__main__":
    react(main)
