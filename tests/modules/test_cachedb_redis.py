"""Tests of sipgw.modules.cachedb_redis: a whole server whose script uses a real Redis."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.core.cachedb import CacheError, NotCounter, Unsupported
from sipgw.modules.cachedb_redis import CachedbRedis, RedisCache, rows
from sipgw.modules.core_cachedb import CoreCachedb
from sipgw.redis.errors import Refused
from sipgw.script.parts import Hole, Parts
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.message import parse
from sipgw.testing import FakeServer
from tests.children import HOST
from tests.modules.scripted import request
from tests.servers import redis as servers


class RealServer(FakeServer):
    """A double whose clock is the reactor's."""

    def __init__(self) -> None:
        from twisted.internet import reactor

        super().__init__()
        self.reactor: Any = reactor
        self.user.clock = self.reactor.seconds  # type: ignore[misc]


class StoreTests(TestCase):
    """One module with one or more URLs."""

    timeout = 30

    def setUp(self) -> None:
        if servers.missing():
            raise SkipTest(servers.missing())
        self.redis = servers.redis()
        self.redis.restore()
        self.redis.ask("FLUSHALL")
        self.addCleanup(self.redis.restore)
        self.server = RealServer()
        self.caches = self.server.user.caches

    async def module(self, *urls: str, **parameters: Any) -> CachedbRedis:
        made = CachedbRedis(self.server, **parameters)
        for url in urls or (self.redis.url,):
            made.set_parameter("cachedb_url", url)

        def stop() -> Any:
            self.assertIsNotNone(made)
            stopping = ensureDeferred(made.stop())
            return stopping.addCallback(lambda _: deferLater(self.server.reactor, 0.02, lambda: None))

        self.addCleanup(stop)
        await made.start()
        return made

    async def test_values(self) -> None:
        """Store, fetch, remove; values end; what is no UTF-8, NUL and long keys are kept; nothing in a key is a command."""
        await self.module()
        for key in ["k", "a b\r\nDEL k", "\udcff\0", "u" * 5000, "'\"\\"]:
            await self.caches.store("redis", key, f"v\udcff\0{key}")
            self.assertEqual(await self.caches.fetch("redis", key), f"v\udcff\0{key}")
        self.assertNotEqual(await self.caches.fetch("redis", "u" * 5000), await self.caches.fetch("redis", "u" * 5001))
        await self.caches.remove("redis", "k")
        self.assertIsNone(await self.caches.fetch("redis", "k"))
        await self.caches.store("redis", "short", "v", 100)
        self.assertEqual(self.redis.ask("TTL", "short"), b":100\r\n")
        self.assertEqual(await self.caches.fetch("redis", "u" * 5000), "v\udcff\0" + "u" * 5000)

    async def test_counters(self) -> None:
        """Counters begin with 0, live as long as they were last given, and are no texts."""
        await self.module()
        self.assertEqual(await self.caches.increase("redis", "c", 5, 50), 5)
        self.assertEqual(await self.caches.increase("redis", "c", -7), -2)
        self.assertEqual(self.redis.ask("TTL", "c"), b":50\r\n")
        self.assertEqual(await self.caches.counter("redis", "c"), -2)
        self.assertIsNone(await self.caches.counter("redis", "none"))
        await self.caches.store("redis", "t", "text")
        await self.assertFailure(ensureDeferred(self.caches.counter("redis", "t")), NotCounter)
        await self.assertFailure(ensureDeferred(self.caches.increase("redis", "t", 1)), NotCounter)
        await self.caches.query("redis", "HSET h a 1")
        await self.assertFailure(ensureDeferred(self.caches.increase("redis", "h", 1)), NotCounter)
        await self.assertFailure(ensureDeferred(self.caches.fetch("redis", "h")), CacheError)

    async def test_queries(self) -> None:
        """Each value of an answer is a row; a status has none; no such key, errors and SUBSCRIBE are failures."""
        await self.module()
        query = self.caches.query
        self.assertEqual(await query("redis", "SET k 'a b'"), [])
        self.assertEqual(await query("redis", "GET k"), [["a b"]])
        await query("redis", "RPUSH l 1 two 3")
        self.assertEqual(await query("redis", "LRANGE l 0 -1"), [["1"], ["two"], ["3"]])
        self.assertEqual(await query("redis", "LLEN l"), [[3]])
        self.assertEqual(await query("redis", "MGET k none"), [["a b"], [None]])
        for text, kind in [
            ("GET none", CacheError), ("LLEN k", CacheError), ("PING", CacheError), ("GET 'k", CacheError),
            ("SUBSCRIBE c", Unsupported), ("NOSUCH k", CacheError),
        ]:
            await self.assertFailure(ensureDeferred(query("redis", text)), kind)
        self.assertEqual(rows([b"a", [b"in"], Refused("ERR x"), None, 2**40]), [["a"], [None], [0]])

    async def test_in_scripts(self) -> None:
        """The rows of an answer are the values of an AVP, first one first."""
        await self.module()
        core = CoreCachedb(self.server)
        run: Any = Run(parse(request()), RouteKind.REQUEST, None, 0.0, self.server.user)
        self.assertTrue(await core.cache_raw_query(run, "redis", "RPUSH l a b c"))
        self.assertTrue(await core.cache_raw_query(run, "redis", "LRANGE l 0 -1", "$avp(r)"))
        self.assertEqual(run.avps["r"][::-1], ["a", "b", "c"])
        self.assertFalse(await core.cache_raw_query(run, "redis", "LLEN", "$avp(r)"))
        hostile = Parts(("SET k ", Hole("fU")), ('a EX 1" \'',))
        self.assertTrue(await core.cache_raw_query(run, "redis", hostile))
        self.assertEqual(await self.caches.fetch("redis", "k"), 'a EX 1" \'')

    async def test_groups(self) -> None:
        """Each URL is a store of its own, and another module has the same by its URL."""
        one, two = f"redis:one://{HOST}:{self.redis.port}/1", f"redis:two://{HOST}:{self.redis.port}/2"
        module = await self.module(one, two)
        await self.caches.store("redis:one", "k", "1")
        self.assertIsNone(await self.caches.fetch("redis:two", "k"))
        await self.assertFailure(ensureDeferred(self.caches.fetch("redis", "k")), CacheError)
        cache = await self.caches.open(one)
        assert isinstance(cache, RedisCache)
        self.assertEqual(await cache.redis.command("GET", "k"), "1")
        self.assertIs(cache.redis, self.caches.find("redis:one").redis)  # type: ignore[attr-defined]
        for url in ("mongodb://h/", "nothing", "redis://h/name"):
            await self.assertFailure(ensureDeferred(self.caches.open(url)), CacheError)
        info = await self.server_says(module.redis_cluster_info())
        self.assertEqual([each["group"] for each in info], ["one", "two"])

    async def server_says(self, answer: Any) -> Any:
        return await answer if hasattr(answer, "__await__") else answer

    async def test_commands(self) -> None:
        """What the management commands tell of a server that is there, and of one that is not."""
        module = await self.module(f"redis:a://u:geheim@{HOST}:1/", f"redis:b://{HOST}:{self.redis.port}/", query_timeout=500)
        await self.caches.store("redis:b", "k", "v")
        await self.assertFailure(ensureDeferred(self.caches.fetch("redis:a", "k")), CacheError)
        a, b = module.redis_cluster_info()
        self.assertEqual((a["mode"], a["nodes"][0]["status"], b["nodes"][0]["status"]), ("single", "disconnected", "connected"))
        self.assertEqual({**b["nodes"][0], "last_activity": 0}, {
            "ip": HOST, "port": self.redis.port, "status": "connected", "queries": 1, "errors": 0, "moved": 0, "last_activity": 0,
        })
        self.assertNotIn("geheim", str(a))
        self.assertEqual(module.redis_cluster_info("c"), [])
        self.assertEqual(await module.redis_cluster_refresh("b"), [{"group": "b", "status": "skipped (not cluster mode)"}])
        pinged = await module.redis_ping_nodes()
        self.assertEqual([each["nodes"][0]["status"] for each in pinged], ["disconnected", "reachable"])
        self.assertEqual(pinged[0]["nodes"][0]["latency_us"], -1)
        self.assertGreater(pinged[1]["nodes"][0]["latency_us"], 0)
        self.assertEqual((module.redis_queries.value, module.redis_queries_failed.value), (1, 1))
        self.assertEqual([text for _, text in self.server.lines if "geheim" in text], [])
        self.assertIn("is down", " ".join(text for _, text in self.server.lines))

    async def test_start(self) -> None:
        """A Redis that is down holds up nothing, unless it shall; lazy_connect makes no connection."""
        self.redis.stop()
        await self.module(query_timeout=500)
        self.server = RealServer()
        await self.assertFailure(ensureDeferred(self.module(shutdown_on_error=1)), ValueError)
        self.server = RealServer()
        self.caches = self.server.user.caches
        module = await self.module(shutdown_on_error=1, lazy_connect=1)
        self.redis.start()
        self.assertEqual(module.redis_cluster_info()[0]["nodes"][0]["status"], "disconnected")
        self.assertIsNone(await self.caches.fetch("redis", "k"))
        self.assertEqual(module.redis_cluster_info()[0]["nodes"][0]["status"], "connected")


class RefusedTests(SynchronousTestCase):
    """What is found out before anything starts, or when it does."""

    def test_urls(self) -> None:
        """TLS that is not switched on, TLS domains, and what is no URL; no message has the password."""
        for url, parameters in [
            ("redis://u:geheim@h/?tls=1", {}),
            ("redis://u:geheim@h/?tls_domain=d", {"use_tls": 1}),
            ("redis://u:geheim@h/?socket=/x&tls=1", {"use_tls": 1}),
        ]:
            module = CachedbRedis(FakeServer(), **parameters)
            module.set_parameter("cachedb_url", url)
            error = self.assertRaises(ValueError, module.start().send, None)
            self.assertNotIn("geheim", str(error))
        self.assertRaises(ValueError, CachedbRedis(FakeServer()).set_parameter, "cachedb_url", "mysql://h/")
