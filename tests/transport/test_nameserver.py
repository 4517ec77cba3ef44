"""Tests of sipgw.transport.nameserver and resolver against name servers on loopback: real datagrams, real connections."""

from __future__ import annotations

import random
import socket
from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.sip.target import Naptr, Record, Srv, Target
from sipgw.testing import FakeServer
from sipgw.transport.nameserver import MAX_RECORDS, Inquiry, NoAnswer, read_answer
from sipgw.transport.resolver import Resolver
from tests.doubles import FakeSocket
from tests.transport.authority import HOST, Authority, Impostor, Zone

ZONE: dict[str, list[Any]] = {
    "sip.test": [
        dns.Record_NAPTR(10, 50, b"s", b"SIPS+D2T", b"", b"_sips._tcp.sip.test", ttl=60),
        dns.Record_NAPTR(20, 50, b"s", b"SIP+D2U", b"", b"_sip._udp.sip.test", ttl=60),
    ],
    "_sip._udp.sip.test": [
        dns.Record_SRV(2, 0, 5064, b"a.sip.test", ttl=60),
        dns.Record_SRV(1, 90, 5060, b"a.sip.test", ttl=60),
        dns.Record_SRV(1, 10, 5062, b"b.sip.test", ttl=60),
    ],
    "a.sip.test": [dns.Record_A("127.0.0.1", ttl=60), dns.Record_AAAA("::1", ttl=60)],
    "b.sip.test": [dns.Record_A("127.0.0.2", ttl=60), dns.Record_A("127.0.0.3", ttl=60)],
    "c1.sip.test": [dns.Record_CNAME(b"c2.sip.test", ttl=60)],
    "c2.sip.test": [dns.Record_CNAME(b"c3.sip.test", ttl=60)],
    "c3.sip.test": [dns.Record_CNAME(b"b.sip.test", ttl=60)],
    "l1.sip.test": [dns.Record_CNAME(b"l2.sip.test", ttl=60)],
    "l2.sip.test": [dns.Record_CNAME(b"l1.sip.test", ttl=60)],
    "many.sip.test": [dns.Record_A(f"127.1.{n // 200}.{n % 200}", ttl=60) for n in range(300)],
}


class Served(TestCase):
    """An authority of sip.test."""

    timeout = 10

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.authority = Authority(reactor, Zone("sip.test", ZONE))
        self.addCleanup(self.authority.stop)

    def resolver(self, *servers: tuple[str, int], **settings: Any) -> Resolver:
        """A resolver that asks ``servers``, or the authority."""
        made: Any = FakeServer(**settings)
        made.user.clock = self.reactor.seconds
        made.user.add_socket(FakeSocket())
        self.lines = made.lines
        found = Resolver(
            made.user,
            self.reactor,
            servers=servers or [self.authority.server],
            hosts="/dev/null",
            resolv_conf="/dev/null",
            random=random.Random(1).random,
        )
        self.addCleanup(found.close)
        return found

    def ask(self, kind: str, name: str, server: tuple[str, int] | None = None, seconds: float = 3.0) -> Deferred[Any]:
        """One question."""
        return Inquiry(self.reactor, server or self.authority.server, kind, name, seconds).answer


class InquiryTests(Served):
    """One question to one server."""

    async def test_kinds(self) -> None:
        """Records of each kind are read."""
        for kind, name, expected in (
            ("A", "b.sip.test", ["127.0.0.2", "127.0.0.3"]),
            ("AAAA", "a.sip.test", ["::1"]),
            ("NAPTR", "sip.test", [
                Naptr(10, 50, "s", "SIPS+D2T", "_sips._tcp.sip.test"),
                Naptr(20, 50, "s", "SIP+D2U", "_sip._udp.sip.test"),
            ]),
            ("SRV", "_sip._udp.sip.test", [
                Srv(2, 0, 5064, "a.sip.test"), Srv(1, 90, 5060, "a.sip.test"), Srv(1, 10, 5062, "b.sip.test"),
            ]),
        ):
            answer = await self.ask(kind, name)
            self.assertEqual((answer.code, answer.ttl), (0, 60))
            self.assertEqual(answer.records, [Record(name, kind, data) for data in expected])

    async def test_alias(self) -> None:
        """An alias comes with what it stands for."""
        answer = await self.ask("A", "c3.sip.test")
        self.assertEqual(answer.records[0], Record("c3.sip.test", "CNAME", "b.sip.test"))

    async def test_nothing(self) -> None:
        """No such name, and no such record, are answers; how long they hold comes from the zone."""
        absent = await self.ask("A", "nx.sip.test")
        self.assertEqual((absent.code, absent.records), (3, []))
        empty = await self.ask("AAAA", "b.sip.test")
        self.assertEqual((empty.code, empty.records, empty.ttl), (0, [], 30))

    async def test_long(self) -> None:
        """An answer too long for a datagram comes by TCP; of a huge one a part is enough."""
        answer = await self.ask("A", "many.sip.test")
        self.assertEqual(len(answer.records), MAX_RECORDS)

    async def test_nobody(self) -> None:
        """A server that is not there is known at once, without waiting."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind((HOST, 0))
            nobody = taken.getsockname()
        with self.assertRaises(NoAnswer) as caught:
            await self.ask("A", "a.sip.test", nobody, 5.0)
        self.assertIn("refused", str(caught.exception))
        with self.assertRaises(NoAnswer):
            await self.ask("A", "a.sip.test", ("not an address", 53))

    async def test_silent(self) -> None:
        """A server that never answers costs the time that is given it, and nothing stays behind."""
        silent = Impostor(self.reactor)
        self.addCleanup(silent.stop)
        with self.assertRaises(NoAnswer) as caught:
            await self.ask("A", "a.sip.test", silent.server, 0.05)
        self.assertEqual((str(caught.exception), silent.asked), (f"name server {HOST} does not answer", 1))

    async def test_forged(self) -> None:
        """What is no answer to the question is not taken: another id, name or kind, a question, garbage."""

        def reply(message: dns.Message) -> list[bytes]:
            def answer(address: str, **changes: Any) -> bytes:
                made = dns.Message(changes.get("id", message.id), answer=changes.get("answer", 1))
                made.queries = changes.get("queries", message.queries)
                name = message.queries[0].name.name
                payload: Any = dns.Record_A(address)
                made.answers = [dns.RRHeader(name, dns.A, ttl=9, payload=payload)]
                return made.toStr()

            return [
                b"",
                b"\x00" * 11,
                answer("6.6.6.1", id=message.id ^ 1),
                answer("6.6.6.2", queries=[dns.Query(b"x.sip.test", dns.A)]),
                answer("6.6.6.3", queries=[dns.Query(b"a.sip.test", dns.AAAA)]),
                answer("6.6.6.4", queries=[]),
                answer("6.6.6.5", answer=0),
                answer("192.0.2.1", queries=[dns.Query(b"A.sip.TEST", dns.A)]),
                answer("6.6.6.6"),
            ]

        impostor = Impostor(self.reactor, reply)
        self.addCleanup(impostor.stop)
        answer = await self.ask("A", "a.sip.test", impostor.server)
        self.assertEqual((answer.records, answer.ttl), ([Record("a.sip.test", "A", "192.0.2.1")], 9))

    async def test_broken_tcp(self) -> None:
        """A server that promises an answer by TCP and does not listen there has no answer."""

        def reply(message: dns.Message) -> list[bytes]:
            made = dns.Message(message.id, answer=1, trunc=1)
            made.queries = message.queries
            return [made.toStr()]

        impostor = Impostor(self.reactor, reply)
        self.addCleanup(impostor.stop)
        with self.assertRaises(NoAnswer):
            await self.ask("A", "a.sip.test", impostor.server)


class ReadTests(SynchronousTestCase):
    """Octets from a stranger."""

    def test_nothing_else(self) -> None:
        """Whatever becomes of an answer on its way, it is an answer with records in bounds, or none."""
        made = dns.Message(7, answer=1)
        query = dns.Query(b"sip.test", dns.NAPTR)
        made.queries = [query]
        records: list[Any] = [each for values in ZONE.values() for each in values[:2]]
        made.answers = [dns.RRHeader(b"sip.test", each.TYPE, ttl=9, payload=each) for each in records]
        good = made.toStr()
        answer = read_answer(good, 7, query)
        assert answer is not None
        self.assertEqual(len(answer.records), len(records))
        chance = random.Random(7)
        read = 0
        for _ in range(1500):
            data = bytearray(good)
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(12, len(data))] = chance.choice((0, 1, 63, 192, 255, chance.randrange(256)))
            if chance.random() < 0.2:
                del data[chance.randrange(len(data)) :]
            answer = read_answer(bytes(data), 7, query)
            if answer is not None:
                read += 1
                self.assertTrue(all(isinstance(each.name, str) and each.name.isascii() for each in answer.records))
        self.assertTrue(300 < read < 1400, read)


    def test_cut(self) -> None:
        """An answer that did not fit is known as one, wherever it was cut; its records do not count."""
        made = dns.Message(7, answer=1, trunc=1)
        query = dns.Query(b"sip.test", dns.A)
        made.queries = [query]
        payload: Any = dns.Record_A("192.0.2.1")
        made.answers = [dns.RRHeader(b"sip.test", dns.A, ttl=9, payload=payload)]
        good = made.toStr()
        for end in range(12 + 14, len(good)):
            answer = read_answer(good[:end], 7, query)
            assert answer is not None
            self.assertEqual((answer.cut, answer.records), (True, []))
        self.assertIsNone(read_answer(good[:24], 7, query))


class ResolverTests(Served):
    """Whole resolutions against the authority."""

    async def test_service(self) -> None:
        """NAPTR leads to SRV and to addresses; the weights decide among equal priorities."""
        resolver = self.resolver()
        first: Counter[int] = Counter()
        for _ in range(200):
            found = await resolver.resolve("sip.test", None, None)
            first[found[0].port] += 1
            self.assertEqual(found[-1], Target("udp", "127.0.0.1", 5064))
            self.assertEqual(len(found), 4)
        self.assertEqual(sorted(first), [5060, 5062])
        self.assertTrue(160 <= first[5060] <= 198, first)
        self.assertEqual(resolver.total_queries.read(), 4)

    async def test_aliases(self) -> None:
        """Chains of aliases are followed, circles are left."""
        resolver = self.resolver()
        found = await resolver.resolve("c1.sip.test", 5060, None)
        self.assertEqual([target.host for target in found], ["127.0.0.2", "127.0.0.3"])
        self.assertEqual(await resolver.resolve("l1.sip.test", 5060, None), [])

    async def test_many(self) -> None:
        """Of many addresses eight are tried."""
        self.assertEqual(len(await self.resolver().resolve("many.sip.test", 5060, None)), 8)

    async def test_second_server(self) -> None:
        """A dead server costs nothing, a silent one its time; then the next one answers."""
        silent = Impostor(self.reactor)
        self.addCleanup(silent.stop)
        resolver = self.resolver((HOST, 9), silent.server, self.authority.server, dns_retr_time=0.05)
        found = await resolver.resolve("a.sip.test", 5060, None)
        self.assertEqual(found, [Target("udp", "127.0.0.1", 5060)])
        self.assertEqual((len(self.lines), silent.asked), (2, 1))
        await resolver.resolve("b.sip.test", 5060, None)
        self.assertEqual(silent.asked, 1)

    async def test_absent(self) -> None:
        """A name that does not exist leads nowhere."""
        self.assertEqual(await self.resolver().resolve("nx.sip.test", None, None), [])
