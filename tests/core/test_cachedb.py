"""Tests of sipgw.core.cachedb: URLs, names of stores, counting and measuring."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.cachedb import CacheError, Caches, CacheUrl, parse_url, result_columns
from sipgw.testing import FakeServer, finished
from tests.doubles import FakeCache
from tests.ears import Ears


class UrlTests(SynchronousTestCase):
    """What stands in cachedb_url and in cache_raw_query."""

    def test_urls(self) -> None:
        """A URL has a scheme, perhaps a group, an address and a database."""
        for text, url in [
            ("local://", CacheUrl("local", "", "", "")),
            ("local:///one", CacheUrl("local", "", "", "one")),
            ("local:g2:///two", CacheUrl("local", "g2", "", "two")),
            ("redis:cluster1://192.168.4.134:6379/", CacheUrl("redis", "cluster1", "192.168.4.134:6379", "")),
            ("redis://u:p@[::1]:6379/0?a=b", CacheUrl("redis", "", "u:p@[::1]:6379", "0?a=b")),
        ]:
            self.assertEqual(parse_url(text), url)
        for bad in ("", "local", "local:g", "://x", "local//x", "lo cal://"):
            self.assertRaises(ValueError, parse_url, bad)

    def test_columns(self) -> None:
        """The result of a raw query goes into AVPs alone."""
        self.assertEqual(result_columns("$avp(a); $avp(b.c)"), ["a", "b.c"])
        for bad in ("", "$var(a)", "a", "$avp(a);", "$avp()", "$avp(a)$avp(b)"):
            self.assertRaises(ValueError, result_columns, bad)


class CachesTests(SynchronousTestCase):
    """Stores by name."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.caches: Caches = self.server.user.caches
        self.plain, self.grouped = FakeCache(), FakeCache()
        self.caches.add("fake", "", self.plain)
        self.caches.add("fake", "g", self.grouped)

    def test_find(self) -> None:
        """A store has the name of its scheme, and of its group if it has one."""
        self.assertIs(self.caches.find("fake"), self.plain)
        self.assertIs(self.caches.find("fake:"), self.plain)
        self.assertIs(self.caches.find("fake:g"), self.grouped)
        for name, said in [
            ("redis", "no module has a store called 'redis'"),
            ("FAKE", "no module has a store called 'FAKE'"),
            ("fake:h", "there is no cachedb_url for 'fake:h'"),
        ]:
            refused = self.assertRaises(CacheError, self.caches.find, name)
            self.assertEqual(str(refused), said)
        self.caches.add("fake", "", self.grouped)
        self.assertIs(self.caches.find("fake"), self.grouped)

    def test_empty_key(self) -> None:
        """A key is never empty."""
        for ask in (
            self.caches.store("fake", "", "v"), self.caches.fetch("fake", ""), self.caches.remove("fake", ""),
            self.caches.counter("fake", ""), self.caches.increase("fake", "", 1),
        ):
            self.assertRaises(CacheError, finished, ask)
        self.assertEqual(self.caches.total.read(), 0)

    def test_slow(self) -> None:
        """Each query is counted; one that takes longer than its store allows is counted, logged and told, also if it fails."""
        ears = Ears()
        self.server.user.events.join(self.server.user.events.publish("E_CORE_THRESHOLD"), "ear:a", finished(ears.open("a")))
        self.plain.before = lambda: self.server.reactor.advance(0.5)
        finished(self.caches.store("fake", "k", "v"))
        self.assertEqual((self.caches.total.read(), self.caches.slow.read()), (1, 0))
        self.plain.threshold = 400_000
        self.assertEqual(finished(self.caches.fetch("fake", "k")), "v")
        self.assertEqual(finished(self.caches.increase("fake", "n", -2)), -2)
        self.assertRaises(CacheError, finished, self.caches.counter("fake", "k"))
        finished(self.caches.remove("fake", "k"))
        self.assertEqual(finished(self.caches.query("fake", "all")), [["n", -2]])
        self.plain.threshold = 500_000
        finished(self.caches.fetch("fake", "k"))
        self.assertEqual((self.caches.total.read(), self.caches.slow.read()), (7, 5))
        told = [(params["source"], params["time"], params["extra"]) for _, _, params in ears.told]
        names = [("fetch", "k"), ("sub", "n"), ("fetch_counter", "k"), ("remove", "k"), ("raw_query", "all")]
        self.assertEqual(told, [(f"fakedb {what}", 500000, key) for what, key in names])
        self.assertIn("fakedb fetch of k took 500000 us, more than 400000", self.server.lines[0][1])
