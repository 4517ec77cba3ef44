"""Prosody stopped, killed, frozen and started again; hostile bodies through the stream that all users share."""

from __future__ import annotations

import os
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread
from twisted.protocols.portforward import ProxyFactory

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.servers.prosody import DOMAIN, prosody
from tests.xmpp.rig import Gatewayed, Jabber

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
WAITING, KILLS, CUTS = (400, 20, 30) if NIGHTLY else (60, 1, 2)
ORIGIN = "{urn:xmpp:sid:0}origin-id"
HOSTILE = 10_000 if NIGHTLY else 300
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


class Queued(Gatewayed):
    """A gateway with a queue."""

    MORE = 'loadmodule "db_sqlite.so"\nmodparam("xmpp", "queue", 1)\nmodparam("xmpp", "queue_size", 30)'
    CLIENTS = ("romeo",)

    def script(self, text):
        """Have a database."""
        url = f"sqlite://{self.folder}/queue.db"
        store = open_store(url, create=True)
        create(store, ["xmpp_messages"])
        store.close()
        return f'db_default_url = "{url}"\n{text}'

    async def juliet(self) -> Jabber:
        """Another client comes online."""
        juliet = self.jabbers["juliet"] = Jabber("juliet")
        juliet.start(self.reactor)
        await self.until(lambda: juliet.online)
        return juliet


class QueueTests(Queued):
    """With a queue: 202 while the server is away, and nothing lost, doubled or out of order."""

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


class KilledTests(Queued):
    """sipgw is killed (-9) while it sends what waited."""

    MORE = Queued.MORE.replace('"queue_size", 30', '"queue_size", 1000')

    async def test_killed(self):
        """None is lost; for each time that we are killed one message at most arrives twice, and says that it is the same one."""
        prosody().kill()
        await self.until(lambda: "down: " in self.child.text())
        texts = [f"number {number:03d}" for number in range(WAITING)]
        for first in range(0, WAITING, 20):
            said = [Deferred.fromCoroutine(self.say(text, to="juliet")) for text in texts[first : first + 20]]
            self.assertEqual({(await each).status for each in said}, {202})
        prosody().start()
        juliet = await self.juliet()
        for kill in range(KILLS):
            await self.until(lambda: "connected to" in self.child.text())
            seen = len(juliet.bodies())
            await self.until(lambda seen=seen, kill=kill: len(juliet.bodies()) > min(seen + 3 + kill % 5, WAITING - 1))
            self.child.process.kill()
            await deferToThread(self.child.wait)
            self.start()
        await self.until(lambda: set(juliet.bodies()) == set(texts) and "connected to" in self.child.text())
        bodies = juliet.bodies()
        again = {text for text in texts if bodies.count(text) > 1}
        self.assertLessEqual(len(bodies) - len(texts), KILLS)
        for text in again:
            same = [each for each in juliet.stanzas if each.findtext("{jabber:client}body") == text]
            ids = {origin.get("id") for each in same for origin in each.findall(ORIGIN)}
            self.assertEqual(len(ids), 1)
        order = list(dict.fromkeys(bodies))
        self.assertEqual(order, sorted(order))


class CutTests(Queued):
    """The connection is cut, frozen and cut again while phones write."""

    MORE = Queued.MORE.replace('"queue_size", 30', '"queue_size", 1000') + '\nmodparam("xmpp", "response_timeout", 1)'

    async def setUp(self) -> None:  # type: ignore[override]
        """Put a wire between sipgw and Prosody that can be cut."""
        from twisted.internet import reactor

        prosody().restore()
        self.cables: list[Any] = []
        factory: Any = ProxyFactory("127.0.0.1", prosody().components)
        factory.noisy = False
        build = factory.buildProtocol

        def kept(address: Any) -> Any:
            made = build(address)
            self.cables.append(made)
            return made

        factory.buildProtocol = kept
        real: Any = reactor
        self.wire = real.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.wire.stopListening)
        await super().setUp()

    def script(self, text):
        """Go through the wire."""
        before = f'"xmpp_port", {prosody().components}'
        assert before in text
        return super().script(text.replace(before, f'"xmpp_port", {self.wire.getHost().port}'))

    def cut(self) -> None:
        """Cut the wire."""
        for each in self.cables:
            for end in (each, each.peer):
                if end is not None and end.transport is not None:
                    end.transport.abortConnection()
        self.cables.clear()

    async def test_cut(self):
        """Of hundreds each that was answered 202 arrives once; so with 480, at most."""
        juliet = await self.juliet()
        statuses: dict[str, int] = {}

        async def one(text: str) -> None:
            statuses[text] = (await self.say(text, to="juliet")).status

        async def load(first: int, count: int) -> None:
            for start in range(first, first + count, 5):
                said = [Deferred.fromCoroutine(one(f"number {number}")) for number in range(start, start + 5)]
                for each in said:
                    await each

        for number in range(CUTS):
            loading = Deferred.fromCoroutine(load(number * 40, 40))
            await self.turn()
            await self.until(lambda number=number: len(statuses) > number * 40 + 10)
            if number % 3 == 1:
                prosody().freeze()
                await self.until(lambda number=number: self.child.text().count("down: ") > 0 or len(statuses) >= number * 40 + 40)
                prosody().thaw()
            else:
                self.cut()
            await loading
        taken = {text for text, status in statuses.items() if status == 202}
        await self.until(lambda: taken <= set(juliet.bodies()))
        self.assertEqual((await self.say("The last one", to="juliet")).status, 202)
        await self.until(lambda: "The last one" in juliet.bodies())
        doubled = sorted(text for text in taken if juliet.bodies().count(text) != 1)
        self.assertEqual(doubled, [])
        self.assertLessEqual(set(statuses.values()), {202, 480})
        self.assertGreater(len(taken), CUTS * 20)


class CutWithoutQueueTests(CutTests):
    """The same without a queue."""

    MORE = 'loadmodule "db_sqlite.so"\nmodparam("xmpp", "response_timeout", 1)'
    if not NIGHTLY:
        skip = "each cut waits for the next connection: make nightly"

    async def test_cut(self):
        """What was answered 202 has arrived, once; the rest was answered 480. (More cuts would only wait longer each time.)"""
        juliet = await self.juliet()
        statuses: dict[str, int] = {}
        for number in range(2 * 30):
            if number % 30 == 15:
                self.cut()
            text = f"number {number}"
            statuses[text] = (await self.say(text, to="juliet")).status
            if statuses[text] == 480:
                await self.until(lambda: self.up())
        taken = {text for text, status in statuses.items() if status == 202}
        await self.until(lambda: taken <= set(juliet.bodies()))
        self.assertEqual([text for text in taken if juliet.bodies().count(text) != 1], [])
        self.assertLessEqual(set(statuses.values()), {202, 480})
        self.assertGreater(len(taken), 2 * 20)

    def up(self) -> bool:
        """Whether the gateway is connected, by what it says last."""
        text = self.child.text()
        return text.rfind("connected to") > text.rfind("down: ")
