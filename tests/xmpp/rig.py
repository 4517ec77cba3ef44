"""A real sipgw between a real Prosody, slixmpp clients and a SIP phone."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, fromstring

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.protocol import DatagramProtocol, ProcessProtocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to
from tests.children import ROOT, free_port, twistd
from tests.servers.prosody import COMPONENT, DOMAIN, USERS, missing, prosody

EXAMPLE = ROOT / "examples" / "xmpp" / "opensips.cfg"
PATIENCE = 20.0


class Phone(DatagramProtocol):
    """A SIP phone that keeps what comes and answers it with ``status``."""

    def __init__(self, reason: str = "OK") -> None:
        self.status = 200
        self.messages: list[Request] = []
        self.responses: deque[Response] = deque(maxlen=2000)
        self._seen: set[tuple[str, str]] = set()

    def answer(self, request: Request, status: int) -> bytes:
        """The response to a request."""
        return respond_to(request, status, "OK" if status == 200 else "No", to_tag="phone")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take a message."""
        message = parse(datagram)
        if isinstance(message, Response):
            self.responses.append(message)
            return
        key = (message.call_id, str(message.via.branch))
        if key not in self._seen:
            self._seen.add(key)
            self.messages.append(message)
        transport: Any = self.transport
        status = 415 if self.status == 0 and message.header("content-type") == "message/cpim" else self.status or 200
        transport.write(self.answer(message, status), addr)


class Jabber(ProcessProtocol):
    """A slixmpp client, see ``slix.py``."""

    def __init__(self, name: str, resource: str = "r", domain: str = DOMAIN, port: int = 0) -> None:
        self.jid = f"{name}@{domain}"
        self.port = port or prosody().clients
        self.full = f"{self.jid}/{resource}"
        self.online = False
        self.stanzas: list[Element] = []
        self.ended: Deferred[int] = Deferred()
        self.errors = b""
        self._buffer = b""

    def start(self, reactor: Any) -> None:
        """Begin."""
        password = USERS[self.jid.partition("@")[0]]
        arguments = [sys.executable, "-m", "tests.xmpp.slix", self.full, password, str(self.port)]
        reactor.spawnProcess(self, sys.executable, arguments, {**os.environ, "PYTHONPATH": str(ROOT)}, path=str(ROOT))

    def send(self, stanza: str) -> None:
        """Send a stanza."""
        transport: Any = self.transport
        transport.write(stanza.replace("\n", " ").encode() + b"\n")

    def outReceived(self, data: bytes) -> None:
        """Take what it tells."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            text = json.loads(line)
            if text == "online":
                self.online = True
            else:
                self.stanzas.append(fromstring(text))

    def errReceived(self, data: bytes) -> None:
        """Keep its complaints."""
        self.errors += data

    def processEnded(self, reason: Any) -> None:
        """Tell that it is over."""
        value: ProcessDone | ProcessTerminated = reason.value
        self.ended.callback(int(value.exitCode or 0))

    async def stop(self) -> None:
        """End it."""
        transport: Any = self.transport
        if not self.ended.called:
            transport.signalProcess("KILL")
            await self.ended

    def saying(self, path: str) -> list[Element]:
        """The stanzas that came with such an element."""
        return [each for each in self.stanzas if each.find(path) is not None]

    def bodies(self) -> list[str]:
        """The texts that came."""
        found = (each.find("{jabber:client}body") for each in self.stanzas if each.tag == "{jabber:client}message")
        return [each.text or "" for each in found if each is not None]


class Gatewayed(TestCase):
    """A server with ``CONFIG`` beside Prosody, a phone that is registered as alice."""

    if missing():
        skip = missing()
    MORE = ""
    """Further lines of the script, before its routes."""
    PHONE: type[Phone] = Phone
    CLIENTS: tuple[str, ...] = ("romeo",)
    HOME = COMPONENT
    """The domain of the phone."""
    UP = "connected to"
    """What the log says when the gateway can be used."""

    async def setUp(self) -> None:  # type: ignore[override]
        """Start all."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.jabber_server().restore()
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.port = free_port()
        self.phone = self.PHONE()
        self.listening = self.reactor.listenUDP(0, self.phone, interface="127.0.0.1", maxPacketSize=65535)
        self.number = 0
        self.jabbers = {name: self.client(name) for name in self.CLIENTS}
        for each in self.jabbers.values():
            each.start(self.reactor)
        self.start()
        await self.until(lambda: all(each.online for each in self.jabbers.values()))
        await self.register()
        await self.until(lambda: self.UP in self.child.text())

    def jabber_server(self) -> Any:
        """The server of the Jabber users."""
        return prosody()

    def components(self) -> int:
        """The port that it has for components."""
        return int(self.jabber_server().components)

    def client(self, name: str) -> Jabber:
        """A Jabber user's client."""
        return Jabber(name)

    def start(self) -> None:
        """Start the server."""
        text = EXAMPLE.read_text(encoding="utf-8").replace("127.0.0.1:5060", f"127.0.0.1:{self.port}")
        text = text.replace('"xmpp_port", 5347', f'"xmpp_port", {self.components()}')
        text = text.replace("route {", f"{self.MORE}\nroute {{", 1)
        script = self.folder / "opensips.cfg"
        script.write_text(self.script(text), encoding="utf-8")
        self.leaving = False
        self.child = twistd(["sipgw", "-c", str(script)], self.folder)

    def script(self, text: str) -> str:
        """Change the example as a test needs it."""
        return text

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stop all."""
        for each in self.jabbers.values():
            await each.stop()
        self.leave()
        status = await deferToThread(self.child.wait)
        await self.listening.stopListening()
        self.assertEqual(status, 0, self.child.text())
        self.assertNotIn("Traceback", self.child.text())
        self.assertNotIn("bug: ", self.child.text())

    async def again(self, name: str) -> Jabber:
        """Start the client of a person anew."""
        await self.jabbers[name].stop()
        again = self.jabbers[name] = Jabber(name)
        again.start(self.reactor)
        return again

    def leave(self) -> None:
        """Tell the server to end, once."""
        if not self.leaving:
            self.leaving = True
            self.child.process.terminate()

    async def until(self, condition: Any) -> Any:
        """Wait until ``condition`` holds; its value."""
        end = self.reactor.seconds() + PATIENCE
        while not (value := condition()):
            if self.reactor.seconds() > end:
                said = b"".join(each.errors for each in self.jabbers.values()).decode(errors="replace")
                heard = [each.body for each in self.phone.messages[-5:]]
                log = self.jabber_server().says()[-1000:]
                self.fail(f"waited in vain\n{heard}\n{self.child.text()[-3000:]}\n{said[-2000:]}\n{log}")
            await self.turn()
        return value

    async def turn(self) -> None:
        """Let a moment pass."""
        tick: Deferred[None] = Deferred()
        self.reactor.callLater(0.01, tick.callback, None)
        await tick

    async def ask(
        self, method: str, uri: str, headers: str = "", body: bytes = b"", sender: str = "alice", to: str = "", call_id: str = "",
        tag: str = "",
    ) -> Response:
        """The final response to a request of the phone's; sent again while the server is not there yet."""
        self.number += 1
        number = self.number
        own = self.listening.getHost().port
        text = (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:{sender}@{self.HOME}>;tag={tag or f'a{number}'}\r\nTo: {to or f'<{uri}>'}\r\n"
            f"Call-ID: {call_id or f'c{number}'}\r\n"
            f"CSeq: {number} {method}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        end = self.reactor.seconds() + PATIENCE
        while self.reactor.seconds() < end:
            transport: Any = self.phone.transport
            transport.write(text.encode("utf-8", "surrogateescape") + body, ("127.0.0.1", self.port))
            wait = self.reactor.seconds() + 1.0
            while self.reactor.seconds() < wait:
                for response in list(self.phone.responses):
                    if (response.cseq.number, response.call_id) == (number, call_id or f"c{number}") and response.status >= 200:
                        return response
                await self.turn()
        self.fail(f"no answer to {method}\n{self.child.text()[-3000:]}")

    async def say(
        self, text: str | bytes, to: str = "romeo", kind: str = "text/plain;charset=utf-8", headers: str = ""
    ) -> Response:
        """Send a text to a Jabber user; the response."""
        body = text.encode() if isinstance(text, str) else text
        return await self.ask("MESSAGE", f"sip:{to}@{DOMAIN}", f"Content-Type: {kind}\r\n{headers}", body)

    async def register(self, name: str = "alice", expires: int = 600, domain: str = "") -> None:
        """Register the phone."""
        domain = domain or self.HOME
        own = self.listening.getHost().port
        contact = f"Contact: <sip:{name}@127.0.0.1:{own}>\r\nExpires: {expires}\r\n"
        response = await self.ask("REGISTER", f"sip:{name}@{domain}", contact, sender=name)
        self.assertEqual(response.status, 200)
