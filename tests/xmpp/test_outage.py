"""Prosody stopped, killed, frozen and started again; hostile bodies through the stream that all users share."""

from __future__ import annotations

import os
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.servers.prosody import DOMAIN, prosody
from tests.xmpp.rig import Gatewayed, Jabber

HOSTILE = 10_000 if os.environ.get("SIPGW_NIGHTLY") else 300
PIECES = [
    b"\0",
    b"\x08", b"\x0b", b"\x1b", b"\x7f", b"\xff\xfe", b"\xed\xa0\x80", b"\xef\xbf\xbf", b"\xf4\x90\x80\x80", b"</body></message>",
    b"<iq type='set'>", b"<!--",
    b"-->", b"<?x?>", b"]]>", b"<![CDATA[", b"&lol;", b"<!DOCTYPE a [<!ENTITY lol 'x'>]>", b"</stream:stream>",
    b"&#0;", b"'\"<>&", "\u202e\u2028\ufeff\U0001f600".encode(), b"\r\n\t", b"x" * 2000,
]
KINDS = ["text/plain", "text/html", "text/plain;charset=utf-16", "message/cpim", "application/im-iscomposing+xml"]


class HostileTests(Gatewayed):
    """The stream stays up, whatever phones send."""

    async def test_bodies(self):
        """Hundreds of bodies, subjects and names made to break XML: none ends the stream, and the last message arrives."""
        random = Random(5)
        statuses: set[int] = set()
        transport: Any = self.phone.transport
        for number in range(HOSTILE):
            transport.write(self.hostile(random, number), ("127.0.0.1", self.port))
            if number % 50 == 49:
                await self.until(lambda number=number: self.answered(number - 49) >= 45)
                statuses |= {each.status for each in self.phone.responses}
        response = await self.say("The last one")
        self.assertEqual(response.status, 202)
        await self.until(lambda: "The last one" in self.jabbers["romeo"].bodies())
        self.assertEqual(self.child.text().count("connected to"), 1, self.child.text()[-2000:])
        self.assertLessEqual(statuses - {100}, {200, 202, 400, 413, 415})
        self.assertIn(202, statuses)

    def answered(self, first: int) -> int:
        """How many of the requests from number ``first`` on are answered."""
        return len({each.cseq.number for each in self.phone.responses if each.cseq.number >= 1000 + first})

    def hostile(self, random: Random, number: int) -> bytes:
        """A MESSAGE that means no good."""
        body = b"".join(random.choice(PIECES) for _ in range(random.randrange(1, 8)))
        subject = b"".join(random.choice(PIECES) for _ in range(2)).translate(None, b"\r\n\0")
        kind = random.choice(KINDS).encode()
        if kind == b"message/cpim":
            head = b"Subject: %b\r\nNS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: %b\r\n" % (subject, subject)
            more = b"imdn.Disposition-Notification: positive-delivery\r\n\r\nContent-Type: text/plain\r\n\r\n"
            body = head + more + body
        if kind.startswith(b"application"):
            start = b"<isComposing xmlns='urn:ietf:params:xml:ns:im-iscomposing'><state>active</state></isComposing>"
            body = start + body[:4]
        own = self.listening.getHost().port
        head = (
            f"MESSAGE sip:romeo@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{own};branch=z9hG4bKh{number}\r\n"
            f"Max-Forwards: 70\r\nFrom: <sip:alice@sip.test>;tag=h{number}\r\nTo: <sip:romeo@{DOMAIN}>\r\n"
            f"Call-ID: h{number}\r\nCSeq: {1000 + number} MESSAGE\r\nContent-Length: {len(body)}\r\n"
        ).encode()
        return head + b"Subject: " + subject + b"\r\nContent-Type: " + kind + b"\r\n\r\n" + body

    async def test_stanzas(self):
        """What a Jabber client may send beside messages does no harm."""
        romeo = self.jabbers["romeo"]
        for text in (
            "<message to='alice@sip.test'><sent xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'/></sent>"
            "</message>",
            "<message to='alice@sip.test' type='error' id='imdn-x'><error type='cancel'/></message>",
            "<message to='alice@sip.test' id='a&#10;b&quot;'><body> </body><thread>a&#13;&#10;Via: x</thread>"
            "<subject>&#13;&#10;X: y</subject></message>",
            "<message to='sip.test'><body>Nobody</body></message>",
            "<presence to='alice@sip.test'/>",
            "<iq to='sip.test' type='get' id='q1'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
            "<iq to='alice@sip.test' type='set' id='q2'><query xmlns='jabber:iq:roster'/></iq>",
            "<message to='alice@sip.test'><body>At last</body></message>",
        ):
            romeo.send(text)
        await self.until(lambda: b"At last" in [each.body for each in self.phone.messages])
        self.assertEqual([each.body for each in self.phone.messages], [b" ", b"At last"])
        self.assertIsNone(self.phone.messages[0].header("x"))
        self.assertEqual(self.child.text().count("connected to"), 1)


class OutageTests(Gatewayed):
    """Without a queue: 480 while the server is away."""

    MORE = 'modparam("xmpp", "response_timeout", 1)'

    async def test_killed(self):
        """Killed: the next message is 480 at once; started again, messages go through again."""
        self.assertEqual((await self.say("one")).status, 202)
        prosody().kill()
        await self.until(lambda: "down: " in self.child.text())
        response = await self.say("two")
        self.assertEqual((response.status, response.reason), (480, "Temporarily Unavailable"))
        prosody().start()
        await self.until(lambda: self.child.text().count("connected to") == 2)
        self.assertEqual((await self.say("three", to="juliet")).status, 202)

    async def test_frozen(self):
        """Frozen: nobody knows whether it took the message; after response_timeout it is 480, and the connection is given up."""
        prosody().freeze()
        self.assertEqual((await self.say("one")).status, 480)
        await self.until(lambda: "the server does not answer" in self.child.text())
        prosody().thaw()
        await self.until(lambda: self.child.text().count("connected to") == 2)


class QueueTests(Gatewayed):
    """With a queue: 202 while the server is away, and nothing lost, doubled or out of order."""

    MORE = 'loadmodule "db_sqlite.so"\nmodparam("xmpp", "queue", 1)\nmodparam("xmpp", "queue_size", 30)'
    CLIENTS = ("romeo",)

    def script(self, text):
        """Have a database."""
        url = f"sqlite://{self.folder}/queue.db"
        store = open_store(url, create=True)
        create(store, ["xmpp_messages"])
        store.close()
        return f'db_default_url = "{url}"\n{text}'

    async def test_stopped_under_load(self):
        """Messages all the time while Prosody goes and comes, and sipgw with it: each that was answered 202 arrives once."""
        taken: list[str] = []

        async def one(number: int) -> None:
            text = f"number {number:03d}"
            if (await self.say(text, to="juliet")).status == 202:
                taken.append(text)

        async def some(first: int, count: int) -> None:
            for number in range(first, first + count):
                await one(number)

        await some(0, 10)
        await gatherResults([Deferred.fromCoroutine(some(10, 10)), deferToThread(prosody().stop)])
        await self.until(lambda: "down: " in self.child.text())
        await some(20, 10)
        self.leave()
        self.assertEqual(await deferToThread(self.child.wait), 0)
        self.start()
        await some(30, 5)
        prosody().start()
        await self.until(lambda: "connected to" in self.child.text())
        await some(35, 5)
        juliet = self.jabbers["juliet"] = Jabber("juliet")
        juliet.start(self.reactor)
        await self.until(lambda: juliet.online)
        await one(99)
        await self.until(lambda: "number 099" in juliet.bodies())
        self.assertEqual([text for text in juliet.bodies() if text in taken], taken)
        self.assertGreaterEqual(len(taken), 30)
        stamped = juliet.saying("{urn:xmpp:delay}delay[@from='sip.test']")
        self.assertGreaterEqual(len(stamped), 15)
