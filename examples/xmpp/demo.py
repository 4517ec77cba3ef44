"""A SIP phone and a Jabber client in one terminal: ``make demo-xmpp``.

A sipgw runs the script beside this file, next to a private Prosody; alice has a SIP phone, romeo a Jabber client. Write a line:

    alice Hello         alice's phone writes to romeo
    romeo Hello back    romeo writes to alice
    away    here        romeo goes away, and comes back: alice's phone shows it
    busy    free        alice is busy, and no more: romeo's client shows it
    stop    start       the XMPP server goes away, and comes back
    quit

With ``DEMO_ONCE=1`` a message and a change of presence go each way by themselves; the status is 0 if they arrived."""

from __future__ import annotations

from typing import Any

from examples.stage import TEXT, Demo, Phone, run, say
from sipgw.sip.dialog import Dialog
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.pidf import PIDF, Pidf, Tuple
from sipgw.sip.replies import respond_to
from tests.servers.prosody import DOMAIN, missing, prosody
from tests.xmpp.rig import Jabber

ROMEO = f"sip:romeo@{DOMAIN}"
NS = "{jabber:client}"


class Watching(Phone):
    """alice's phone: writes to romeo, shows whether he is there, and tells who subscribes whether she is busy."""

    shown = ""
    """What it shows of romeo."""
    be = ""
    """What it says of alice."""

    def __init__(self, name: str, domain: str, server: int) -> None:
        super().__init__(name, domain, server)
        self.watchers: dict[str, Dialog] = {}
        """Who has subscribed to alice, by Call-ID."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take a message; here, a subscription, its refresh or its end (RFC 6665 4.2)."""
        request = parse(datagram)
        if not isinstance(request, Request) or request.method != "SUBSCRIBE":
            super().datagramReceived(datagram, addr)
            return
        transport: Any = self.transport
        call_id, expires = request.call_id, min(600, 600 if request.expires is None else request.expires)
        dialog = self.watchers.setdefault(call_id, Dialog.as_uas(request, f"pa{call_id[:6]}"))
        headers = self.contact.replace("Expires: 3600", f"Expires: {expires}")
        transport.write(respond_to(request, 200, "OK", to_tag=dialog.id.local_tag, headers=headers, record_route=True), addr)
        self.tell(call_id, f"active;expires={expires}" if expires else "terminated;reason=timeout")
        if not expires:
            del self.watchers[call_id]

    def tell(self, call_id: str, state: str = "active;expires=600") -> None:
        """Send a NOTIFY."""
        transport: Any = self.transport
        self.number += 1
        body = Pidf("pres:alice@sip.test", [Tuple("phone", True, self.be)]).write()
        headers = f"{self.contact.partition('Expires')[0]}Event: presence\r\nSubscription-State: {state}\r\n"
        via = f"SIP/2.0/UDP 127.0.0.1:{transport.getHost().port};branch=z9hG4bKalice{self.number}"
        data = self.watchers[call_id].request("NOTIFY", via, headers=headers, body=body, content_type=PIDF)
        transport.write(data, ("127.0.0.1", self.server))

    def show_as(self, word: str) -> None:
        """alice does something else."""
        self.be = word
        for call_id in self.watchers:
            self.tell(call_id)

    def answered(self, response: Response) -> None:
        """Show what became of a text."""
        if response.method == "MESSAGE":
            say(f"  alice's phone: {response.status} {response.reason}")

    def show(self, message: Request) -> None:
        """Show a text, that somebody writes one, or whether somebody is there."""
        if message.method == "NOTIFY":
            if message.body:
                devices = Pidf.parse(message.body).tuples
                self.shown = next((each.show or "available" for each in devices if each.open), "offline")
                say(f"  alice's phone: romeo is {self.shown}")
        elif message.header("content-type") == "application/im-iscomposing+xml":
            say("  alice's phone: romeo is writing" if b"active" in message.body else "  alice's phone: romeo is not writing")
        else:
            super().show(message)

    def subscribe(self) -> int:
        """Ask whether romeo is there."""
        return self.request("SUBSCRIBE", ROMEO, f"{self.contact}Event: presence\r\nAccept: {PIDF}\r\n")

    def text(self, text: str) -> int:
        """Write to romeo."""
        return self.request("MESSAGE", ROMEO, TEXT, text.encode())


class Client(Jabber):
    """romeo's Jabber client (slixmpp's), which shows what comes."""

    def outReceived(self, data: bytes) -> None:
        """Take what it tells."""
        before = len(self.bodies())
        known = len(self.stanzas)
        super().outReceived(data)
        for each in self.stanzas[known:]:
            if each.tag == "{jabber:client}presence" and (each.get("from") or "").startswith("alice@sip.test/"):
                say(f"  romeo's client: alice is {each.get('type') or each.findtext(f'{NS}show') or 'available'}")
        for text in self.bodies()[before:]:
            say(f"  romeo's client: alice writes: {text}")

    def text(self, text: str) -> None:
        """Write to alice."""
        body = text.replace("&", "&amp;").replace("<", "&lt;")
        self.send(f"<message to='alice@sip.test' type='chat'><body>{body}</body></message>")


class JabberDemo(Demo):
    """All of it."""

    name = "xmpp"

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.phone = Watching("alice", "sip.test", self.port)
        self.phones = {"alice": self.phone}
        self.romeo = Client("romeo")

    def script(self, text: str) -> str:
        """Speak with the private Prosody."""
        return text.replace('"xmpp_port", 5347', f'"xmpp_port", {prosody().components}')

    def start(self) -> None:
        """Start Prosody and the client, too."""
        super().start()
        self.romeo.start(self.reactor)

    def explain(self) -> str:
        """What the client said."""
        return self.romeo.errors.decode(errors="replace")[-1000:]

    async def come_up(self) -> None:
        """Wait until all are there."""
        await self.until(lambda: b"connected to" in self.server.output, "sipgw connects to Prosody")
        await self.until(lambda: self.romeo.online, "romeo's client is online")
        await self.register()
        self.phone.subscribe()
        await self.until(lambda: self.phone.shown == "available", "alice's phone shows romeo as available")
        self.romeo.send("<presence to='alice@sip.test' type='subscribe'/>")
        say(f"alice@sip.test has a SIP phone (127.0.0.1:{self.port}); romeo@{DOMAIN} has a Jabber client")

    async def once(self) -> None:
        """Play a message and a change of presence each way."""
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
        await self.until(lambda: self.romeo.saying(".[@from='alice@sip.test/tphone']"), "romeo sees that alice is there")
        say("alice is busy")
        self.phone.show_as("dnd")
        await self.until(lambda: self.romeo.saying(f"./{NS}show[.='dnd']"), "romeo's client shows alice as busy")

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
        elif who in ("busy", "free"):
            self.phone.show_as("dnd" if who == "busy" else "")
        elif who == "stop":
            prosody().kill()
        elif who == "start":
            prosody().start()
        elif who:
            say("Write: alice Hello    or: romeo Hello back    or: away, here, busy, free    or: stop, start    or: quit")

    async def stop(self) -> None:
        """End the client, too."""
        await self.romeo.stop()
        await super().stop()


if __name__ == "__main__":
    if missing():
        raise SystemExit(missing())
    run(JabberDemo)
