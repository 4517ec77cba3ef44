"""Tests of sipgw.modules.dns_cache: what the store has is not asked, what was asked gets there, without the store all goes on."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.cachedb import CacheError
from sipgw.modules.cachedb_local import CachedbLocal
from sipgw.modules.dns_cache import DnsCache, decode, encode
from sipgw.sip.target import Naptr, Record, Srv, Target
from sipgw.testing import FakeServer, finished
from tests.transport.test_resolver import UDP1, FakeInquiry, Resolving


class Broken:
    """A store that does what a test says."""

    system, threshold = "broken", 0

    def __init__(self) -> None:
        self.waiting: Deferred[Any] | None = None

    async def fetch(self, key: str) -> str | None:
        if self.waiting is not None:
            return await self.waiting  # type: ignore[no-any-return]
        raise CacheError("down")

    async def store(self, key: str, value: str, seconds: int) -> None:
        raise CacheError("down")


class DnsCacheTests(Resolving):
    """A resolver with a store before the name servers."""

    def setUp(self) -> None:
        super().setUp()
        self.server.resolver = self.resolver
        self.local = CachedbLocal(self.server)
        finished(self.local.start())
        self.module = DnsCache(self.server, cachedb_url="local://", blacklist_timeout=100, min_ttl=20)
        finished(self.module.start())

    def other(self) -> None:
        """Another server, which has asked nothing yet."""
        shared = self.resolver.shared
        self.resolver = self.make()
        self.resolver.shared = shared

    def test_shared(self) -> None:
        """What one server has asked another one knows, all kinds of records, as long as they hold."""
        found = self.start("sip.org")
        self.assertEqual(self.say(), ["NAPTR sip.org", "SRV _sip._udp.sip.org", "A host.org", "A other.org"])
        self.other()
        again = self.start("sip.org")
        self.assertEqual((FakeInquiry.made, again), ([], found))
        self.assertEqual(self.resolver.total_queries.read(), 0)
        self.clock.advance(61)
        self.other()
        self.start("host.org", 5060)
        self.assertEqual(self.say(), ["A host.org"])

    def test_times(self) -> None:
        """At least min_ttl; what is not there for blacklist_timeout; a question without any answer not at all."""
        self.start("host.org", 5060)
        self.say(ttl=1)
        self.start("no.org", 5060)
        self.say()
        self.clock.advance(19)
        self.other()
        self.assertEqual([self.start("host.org", 5060), self.start("no.org", 5060), self.say()], [[UDP1], [[]], []])
        self.clock.advance(2)
        self.other()
        self.assertEqual([self.start("no.org", 5060), self.start("host.org", 5060), self.open()], [[[]], [], ["A host.org 53"]])
        while FakeInquiry.made:
            FakeInquiry.made.pop(0).fail()
        self.clock.advance(80)
        self.other()
        self.start("no.org", 5060)
        self.start("host.org", 5060)
        self.assertEqual(self.say(), ["A no.org", "A host.org"])

    def test_loopback(self) -> None:
        """What is not permitted is not permitted from the store either."""
        for _ in range(2):
            done = self.start("here.org", 5060)
            self.say()
            self.assertEqual(done, [[Target("udp", "192.0.2.5", 5060)]])
            self.other()

    def test_without_store(self) -> None:
        """A store that fails, or is silent for a second, is done without."""
        store: Any = Broken()
        self.module._cache = store
        done = self.start("host.org", 5060)
        self.assertEqual((self.say(), done), (["A host.org"], [UDP1]))
        store.waiting = Deferred()
        self.other()
        done = self.start("host.org", 5060)
        self.assertEqual((self.open(), done), ([], []))
        self.clock.advance(1)
        self.assertEqual((self.say(), done), (["A host.org"], [UDP1]))

    def test_rubbish(self) -> None:
        """What is no answer in the store is asked anew."""
        for text in ["", "5", "[5]", '["x", []]', '[9e99, [["a", "A"]]]', '[5, [["a", "SRV", [1]]]]', '[5, [["a", "A", 5]]]']:
            self.assertIsNone(decode(text), text)
        records = [Record("a", "A", "x"), Record("b", "SRV", Srv(1, 2, 3, "t")), Record("c", "NAPTR", Naptr(1, 2, "s", "u", "r"))]
        self.assertEqual(decode(encode(records, 7.5)), (records, 7))

    def test_start(self) -> None:
        """No URL, no such store, no such collection."""
        for url in ("", "redis://h/", "local:///nothing"):
            self.assertRaises(ValueError, DnsCache(FakeServer(), cachedb_url=url).start().send, None)
