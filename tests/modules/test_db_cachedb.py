"""db_cachedb: tables in a real Redis, and the same cases with a store in memory that others change meanwhile."""

from datetime import datetime
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.db.cached import TRIES, CachedDatabase, Swap
from sipgw.db.errors import DatabaseError, Duplicate, Refused, Unavailable, Unsupported
from sipgw.interfaces import Change
from sipgw.modules.cachedb_redis import CachedbRedis
from sipgw.modules.db_cachedb import DbCachedb
from sipgw.testing import FakeServer, finished
from tests.servers import redis as servers

ALICE = {"username": "alice", "domain": "d"}
BOB = {"username": "bob", "domain": "d"}


class Memory:
    """A store in memory; ``faster`` is done by somebody else before each swap."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, str]] = {}
        self.reads: list[Any] = []
        self.faster: list[Swap] = []
        self.counted = 0

    async def read(self, table, fields):
        """Fields that are there."""
        self.reads.append(fields)
        found = self.tables.get(table, {})
        return dict(found) if fields is None else {name: found[name] for name in fields if name in found}

    async def swap(self, swaps):
        """Compare, and change."""
        for each in self.faster:
            self.change(each)
        self.faster = []
        if any(self.tables.get(each.table, {}).get(each.field) != each.old for each in swaps):
            return False
        for each in swaps:
            self.change(each)
        return True

    def change(self, swap):
        """Change one field."""
        table = self.tables.setdefault(swap.table, {})
        if swap.new is None:
            table.pop(swap.field, None)
        else:
            table[swap.field] = swap.new

    async def count(self, _table):
        """The next number."""
        self.counted += 1
        return self.counted


class TableTests(SynchronousTestCase):
    """Tables in a store in memory."""

    def setUp(self):
        """An empty store."""
        self.store = Memory()

        async def opened():
            return self.store

        self.db = CachedDatabase("cachedb://memory", opened)
        finished(self.db.start())

    def rows(self, table, *columns, where=(), **more):
        """What a select gives."""
        return [*finished(self.db.select(table, columns, where, **more))]

    def test_rows(self):
        """Rows are added, changed, deleted; defaults, numbers and times are those of OpenSIPS's tables."""
        finished(self.db.insert("subscriber", {**BOB, "ha1": "x"}))
        finished(self.db.insert("subscriber", ALICE))
        columns = ["id", "username", "ha1", "password"]
        self.assertEqual(self.rows("subscriber", *columns, order="username"), [(2, "alice", "", ""), (1, "bob", "x", "")])
        self.assertRaises(Duplicate, finished, self.db.insert("subscriber", ALICE))
        self.assertEqual(finished(self.db.update("subscriber", {"ha1": "y"}, {"domain": "d"})), 2)
        self.assertEqual(finished(self.db.update("subscriber", {"username": "carol"}, ALICE)), 1)
        self.assertRaises(Duplicate, finished, self.db.update("subscriber", {"username": "bob"}, {"username": "carol"}))
        self.assertEqual(sorted(self.store.tables["subscriber"]), ['["bob", "d"]', '["carol", "d"]'])
        self.assertEqual(finished(self.db.delete("subscriber", [("id", ">", 1)])), 1)
        finished(self.db.replace("subscriber", {**BOB, "ha1": "z"}, ["username", "domain"]))
        finished(self.db.replace("subscriber", {**ALICE, "ha1": "a"}, ["username", "domain"]))
        self.assertEqual(self.rows("subscriber", "username", "ha1", order="username"), [("alice", "a"), ("bob", "z")])
        now = datetime(2026, 11, 22, 12)
        contact: dict[str, Any] = {"contact_id": 2**62, "username": "a", "contact": "c", "expires": 1, "last_modified": now}
        finished(self.db.insert("location", contact))
        found = self.rows("location", "contact_id", "last_modified", "q", "domain", where={"contact_id": 2**62})
        self.assertEqual(found, [(2**62, now, 1.0, None)])
        document: dict[str, Any] = {**ALICE, "doc": b"\0\xff", "doc_type": 1, "etag": "e", "source": 1, "doc_uri": "", "port": 1}
        finished(self.db.insert("xcap", document))
        self.assertEqual(self.rows("xcap", "doc"), [(b"\0\xff",)])

    def test_one_read(self):
        """What is asked by all that is unique is one field; anything else is the table."""
        finished(self.db.insert("subscriber", ALICE))
        for where, read in (
            (ALICE, ['["alice", "d"]']),
            ([("domain", "=", "d"), ("USERNAME", "=", "alice"), ("id", ">", 0)], ['["alice", "d"]']),
            ({"username": "alice"}, None),
            ([("username", "=", "alice"), ("domain", "!=", "d")], None),
            ({"username": "alice", "domain": None}, None),
            ((), None),
        ):
            del self.store.reads[:]
            self.rows("subscriber", where=where)
            self.assertEqual(self.store.reads, [read])

    def test_batch(self):
        """A batch is done as a whole; it sees what it has done."""
        changes = [
            Change("insert", "subscriber", ALICE),
            Change("update", "subscriber", {"ha1": "x"}, ALICE),
            Change("insert", "acc", {"time": datetime(2026, 1, 1), "method": "BYE"}),
            Change("insert", "subscriber", BOB),
            Change("delete", "subscriber", where=BOB),
        ]
        finished(self.db.batch(changes))
        self.assertEqual(self.rows("subscriber", "username", "ha1"), [("alice", "x")])
        before = {name: dict(table) for name, table in self.store.tables.items()}
        for bad, error in (
            (Change("insert", "subscriber", ALICE), Duplicate),
            (Change("insert", "mine", {"a": 1}), Refused),
            (Change("insert", "acc", {"nonsense": 1}), Refused),
            (Change("what", "acc"), Refused),
        ):
            self.assertRaises(error, finished, self.db.batch([Change("insert", "subscriber", BOB), bad]))
        self.assertEqual(self.store.tables, before)
        finished(self.db.batch([]))

    def test_conflict(self):
        """If somebody else was faster, what is to be done is computed anew."""
        finished(self.db.insert("subscriber", {**ALICE, "ha1": "x"}))
        [old] = self.store.tables["subscriber"].values()
        self.store.faster = [Swap("subscriber", '["alice", "d"]', old, old.replace('"x"', '"y"'))]
        finished(self.db.update("subscriber", {"password": "p"}, ALICE))
        self.assertEqual(self.rows("subscriber", "ha1", "password"), [("y", "p")])
        self.store.faster = [Swap("subscriber", '["bob", "d"]', None, '{"username": "bob", "domain": "d"}')]
        self.assertRaises(Duplicate, finished, self.db.insert("subscriber", BOB))
        tries = []

        async def always(swaps):
            tries.append(swaps)
            return False

        self.patch(self.store, "swap", always)
        self.assertRaises(Unavailable, finished, self.db.delete("subscriber", ALICE))
        self.assertEqual(len(tries), TRIES)

    def test_versions(self):
        """Tables have the versions that sipgw knows, unless somebody says otherwise."""
        server: Any = FakeServer()
        finished(server.databases.check(self.db, "subscriber", 8))
        self.assertRaises(DatabaseError, finished, server.databases.check(self.db, "subscriber", 7))
        finished(self.db.insert("version", {"table_name": "subscriber", "table_version": 7}))
        finished(server.databases.check(self.db, "subscriber", 7))
        finished(server.databases.check(self.db, "acc", 7))

    def test_refused(self):
        """SQL, and tables that nobody knows."""
        self.assertRaises(Unsupported, finished, self.db.query("SELECT 1"))
        self.assertRaises(Refused, finished, self.db.select("mine"))
        self.assertEqual(self.db.quote("a'b"), "a'b")

    def test_urls(self):
        """cachedb_url is a Redis; db_url is one of those."""
        for bad in ("mongodb:x://h/d", "local://", "nonsense"):
            self.assertRaises(ValueError, DbCachedb, None, cachedb_url=bad)
        server: Any = FakeServer()
        DbCachedb(server, cachedb_url="redis:one://127.0.0.1:1/")
        for url in ("cachedb://redis:two", "cachedb://redis", "cachedb://redis:one"):
            self.assertRaises(DatabaseError, finished, server.databases.open(url))


class RedisTests(TestCase):
    """Two servers and one Redis."""

    timeout = 30

    def setUp(self):
        """An empty Redis."""
        if servers.missing():
            raise SkipTest(servers.missing())
        self.redis = servers.redis()
        self.redis.restore()
        self.redis.ask("FLUSHALL")
        self.addCleanup(self.redis.restore)

    async def open(self):
        """One server's database."""
        from twisted.internet import reactor

        server: Any = FakeServer()
        server.reactor = reactor
        caches = CachedbRedis(server)
        DbCachedb(server, cachedb_url=self.redis.url)
        name = "redis" + (":" + self.redis.url.split(":")[1] if not self.redis.url.startswith("redis://") else "")

        def stop():
            return ensureDeferred(caches.stop()).addCallback(lambda _: deferLater(reactor, 0.02))

        self.addCleanup(stop)
        return await server.databases.open(f"cachedb://{name}")

    def test_shared(self):
        """What one writes the other reads; many changes of one row at once are all done."""

        async def run():
            one, other = await self.open(), await self.open()
            await one.batch([Change("insert", "subscriber", ALICE), Change("insert", "subscriber", {**BOB, "ha1": "\u00e4'\0"})])
            found = await other.select("subscriber", ["id", "username", "ha1"], order="id")
            self.assertEqual([*found], [(1, "alice", ""), (2, "bob", "\u00e4'\0")])
            self.assertEqual(len(await other.select("subscriber", [], ALICE)), 1)
            await self.assertFailure(ensureDeferred(other.insert("subscriber", ALICE)), Duplicate)
            begun = [
                ensureDeferred(db.replace("dispatcher", {"id": number, "setid": number, "destination": "sip:a"}, ["id"]))
                for number in range(1, 6)
                for db in (one, other)
            ]
            begun += [ensureDeferred(db.update("subscriber", {key: "v"}, ALICE))
                      for key, db in (("ha1", one), ("password", other), ("ha1_sha256", one))]  # fmt: skip
            for each in begun:
                await each
            self.assertEqual(len(await one.select("dispatcher")), 5)
            columns = ["ha1", "password", "ha1_sha256"]
            self.assertEqual((await one.select("subscriber", columns, ALICE))[0], ("v", "v", "v"))
            self.assertEqual(await other.delete("subscriber", ()), 2)
            self.assertEqual(len(await one.select("subscriber")), 0)

        return ensureDeferred(run())

    def test_down(self):
        """A Redis that is down is told."""

        async def run():
            db = await self.open()
            await db.insert("subscriber", ALICE)
            self.redis.stop()
            await self.assertFailure(ensureDeferred(db.select("subscriber", [], ALICE)), Unavailable)
            await self.assertFailure(ensureDeferred(db.insert("subscriber", BOB)), Unavailable)

        return ensureDeferred(run())
