"""Two SIP phones and a mobile in one terminal: ``make demo-sms``.

A sipgw runs the script beside this file; an SMSC made for tests plays the mobile network. Write a line and see what happens:

    alice +49170555 Hello       alice's phone sends a text to the mobile
    bob alice Hi                one phone writes to the other
    mobile alice Hello back     the mobile writes to a phone
    quit

With ``DEMO_ONCE=1`` a text goes each way by itself, and a receipt comes; the status is 0 if all of that arrived."""

from __future__ import annotations

from typing import Any

from examples.stage import TEXT, Demo, Phone, run, say
from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.sip.cpim import Cpim
from sipgw.sip.imdn import NAMESPACE, Notification
from sipgw.sip.message import Request
from sipgw.sms.inbound import content_of
from sipgw.sms.pdu import Pdu
from sipgw.sms.text import join
from sipgw.testing import FakeSmsc

MOBILE = "+49170555"


class Texting(Phone):
    """A phone that writes to mobiles, and hears what became of that."""

    def __init__(self, name: str, server: int) -> None:
        super().__init__(name, f"127.0.0.1:{server}", server)
        self.notes: list[str] = []

    def show(self, message: Request) -> None:
        """Show a text, or what became of one."""
        if message.header("content-type") == "message/cpim":
            note = Notification.parse(Cpim.parse(message.body).body)
            self.notes.append(note.status)
            say(f"  {self.name}'s phone: your text was {note.status}")
        else:
            super().show(message)

    def caller(self, message: Request) -> str:
        """The number, or the name."""
        return str(message.from_.uri.user)

    def text(self, user: str, text: str) -> int:
        """Send a text, and ask to be told when it has arrived."""
        uri = f"sip:{user}@{self.domain}"
        if not user.startswith("+"):
            return self.request("MESSAGE", uri, TEXT, text.encode())
        head = (
            f"From: <sip:{self.name}@127.0.0.1>\r\nTo: <sip:{user}@127.0.0.1>\r\nNS: imdn <{NAMESPACE}>\r\nimdn.Message-ID: "
            f"{self.name}{self.number}\r\nimdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\n"
            "Content-Type: text/plain;charset=utf-8\r\n\r\n"
        )
        return self.request("MESSAGE", uri, "Content-Type: message/cpim\r\n", (head + text).encode())


class MobileDemo(Demo):
    """All of it."""

    name = "sms"

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self.smsc = FakeSmsc(reactor)
        self.smsc.answer = self.taken
        self.received: list[str] = []
        self.pieces: list[Any] = []
        self.alice = Texting("alice", self.port)
        self.people = {"alice": self.alice, "bob": Texting("bob", self.port)}
        self.phones.update(self.people)

    def script(self, text: str) -> str:
        """Make the spool, and speak with the SMSC of this run."""
        url = f"sqlite://{self.folder.name}/sms.db"
        store = open_store(url, create=True)
        create(store, ["sms_messages", "sms_parts"])
        store.close()
        text = text.replace("sqlite:///tmp/sipgw-sms.db", url).replace("port=2775", f"port={self.smsc.port}")
        return text.replace('"domain", "127.0.0.1"', f'"domain", "127.0.0.1:{self.port}"')

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

    async def come_up(self) -> None:
        """Wait until both phones are registered and the link is bound."""
        await self.until(lambda: b"bound to provider" in self.server.output, "sipgw binds to the SMSC")
        await self.register()
        say(f"alice and bob are registered at 127.0.0.1:{self.port}; the mobile is {MOBILE}")

    async def once(self) -> None:
        """Play a text each way and a receipt."""
        alice = self.alice
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

    def line(self, line: str) -> None:
        """Do what a person wrote."""
        who, _, rest = line.strip().partition(" ")
        to, _, text = rest.partition(" ")
        if who in self.people and to and text:
            self.people[who].text(to, text)
        elif who == "mobile" and to and text:
            self.smsc.say(MOBILE[1:], to, text, dest_addr_ton=5, dest_addr_npi=0)
        elif who:
            say(f"Write: alice {MOBILE} Hello    or: bob alice Hi    or: mobile alice Hello back    or: quit")


if __name__ == "__main__":
    run(MobileDemo)
