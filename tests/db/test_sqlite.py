"""SQLite: the cases of all engines, and what is its own."""

import os
import sqlite3
import time
from typing import Any, cast

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.db.database import SqlDatabase
from sipgw.db.errors import DatabaseError, Duplicate, Unavailable
from sipgw.db.sqlite import SqliteLink, file_of
from sipgw.interfaces import Change
from sipgw.modules import db_sqlite
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.testing import FakeServer, finished
from tests.db.cases import Cases
from tests.servers.sql import sqlite


class SqliteTests(Cases, TestCase):
    """The cases, and what SQLite has of its own."""

    async def make(self) -> SqlDatabase:
        """A file of our own."""
        os.makedirs(directory := self.mktemp())
        return await self.open(sqlite(directory))

    async def open(self, url: str, **parameters: Any) -> SqlDatabase:
        """A database of a module with ``parameters``."""
        server = self.real_server()
        DbSqlite(server, **parameters)
        return cast(SqlDatabase, await server.databases.open(url))

    async def test_on_disk(self) -> None:
        """A commit is on disk when it is answered: a journal that is written ahead, and synced."""
        run = self.db._writers.run
        self.assertEqual((await run(lambda link: link.execute("PRAGMA synchronous", ()), reads=True)).rows, [(2,)])
        self.assertEqual(list(await self.db.query("PRAGMA journal_mode")), [("wal",)])

    async def test_reactor_goes_on(self) -> None:
        """A query of a second holds up nobody else, and what takes too long is broken off in time."""
        self.patch(db_sqlite, "LIMIT", 0.3)
        slow = await self.open(f"sqlite://{file_of(self.db.name)}")
        self.addCleanup(lambda: ensureDeferred(slow.close()))
        reactor: Any = self.server.reactor
        turns = []
        ticking = reactor.callLater(0.01, lambda: None)
        began = last = time.monotonic()

        def tick() -> None:
            nonlocal ticking, last
            now = time.monotonic()
            turns.append(now - last)
            last = now
            ticking = reactor.callLater(0.005, tick)

        tick()
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
        said = await self.fails(Unavailable, slow.query(f"SELECT * FROM ({endless})"))
        self.assertIn("no answer within 0.3 s", said)
        said = await self.fails(Unavailable, slow.query(f"INSERT INTO phones (ports) {endless}"))
        ticking.cancel()
        self.assertLess(time.monotonic() - began, 5)
        self.assertGreater(len(turns), 10)
        await slow.insert("phones", {"name": "after"})
        self.assertEqual(await self.rows("name"), [("after",)])

    async def test_grouped(self) -> None:
        """Changes that come at once are written together, each for itself: a refusal undoes one, or one batch, and no other."""
        commits = []
        commit = SqliteLink.commit

        def counted(link: SqliteLink) -> None:
            commits.append(link)
            commit(link)

        self.patch(SqliteLink, "commit", counted)
        add = [ensureDeferred(self.db.insert("phones", {"name": name})) for name in "abca"]
        good = ensureDeferred(self.db.batch([Change("insert", "phones", {"name": name}) for name in "de"]))
        bad = ensureDeferred(self.db.batch([Change("insert", "phones", {"name": name}) for name in "fa"]))
        more = ensureDeferred(self.db.query("UPDATE phones SET ports = 1 WHERE name < ?", ["c"]))
        last = ensureDeferred(self.db.replace("phones", {"name": "d", "ports": 4}, ["name"]))
        asked: list[Any] = [*add[:3], good, more, last]
        await gatherResults(asked)
        await self.fails(Duplicate, add[3])
        await self.fails(Duplicate, bad)
        self.assertEqual(await self.rows(), [("a", 1), ("b", 1), ("c", None), ("d", 4), ("e", None)])
        self.assertLess(len(commits), 4)

    async def test_group_that_fails(self) -> None:
        """Where nothing can be written nothing of the group is, and each is told so."""
        other = sqlite3.connect(file_of(self.db.name), isolation_level=None)
        self.addCleanup(other.close)
        hasty = await self.open(f"sqlite:/{file_of(self.db.name)}", busy_timeout=20)
        self.addCleanup(lambda: ensureDeferred(hasty.close()))
        other.execute("BEGIN IMMEDIATE")
        for each in [ensureDeferred(hasty.insert("phones", {"name": str(number)})) for number in range(5)]:
            self.assertIn("locked", await self.fails(Unavailable, each))
        other.execute("ROLLBACK")
        await hasty.insert("phones", {"name": "after"})
        self.assertEqual(await self.rows("name"), [("after",)])
        other.execute("BEGIN IMMEDIATE")
        waiting = [ensureDeferred(hasty.insert("phones", {"name": str(number)})) for number in range(5)]
        await hasty.close()
        for each in waiting:
            await self.fails(Unavailable, each)
        self.assertIn("it is closed", await self.fails(Unavailable, hasty.insert("phones", {"name": "late"})))

    async def test_another_process_writes(self) -> None:
        """A lock of somebody else is waited for as long as busy_timeout says; then the database cannot be asked."""
        other = sqlite3.connect(file_of(self.db.name), isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        reactor: Any = self.server.reactor
        later = deferLater(reactor, 0.1, lambda: other.execute("COMMIT"))
        await self.db.insert("phones", {"name": "patient"})
        await later
        hasty = await self.open(f"sqlite:/{file_of(self.db.name)}", busy_timeout=20)
        self.addCleanup(lambda: ensureDeferred(hasty.close()))
        other.execute("BEGIN IMMEDIATE")
        self.assertIn("locked", await self.fails(Unavailable, hasty.batch([Change("insert", "phones", {"name": "hasty"})])))
        other.execute("ROLLBACK")
        self.assertEqual(await self.rows("name"), [("patient",)])

    async def test_parameters(self) -> None:
        """Pragmas are run on every connection; an extension that is not there is an error when the database is opened."""
        found = await self.open(f"sqlite:/{file_of(self.db.name)}", exec_pragma="cache_size=-77")
        self.addCleanup(lambda: ensureDeferred(found.close()))
        self.assertEqual(list(await found.query("SELECT cache_size FROM pragma_cache_size")), [(-77,)])
        self.assertEqual(list(await found.query("PRAGMA cache_size")), [(-77,)])
        said = await self.fails(DatabaseError, self.open(f"sqlite://{file_of(self.db.name)}", load_extension="/no/such.so;entry"))
        self.assertIn("/no/such.so" if hasattr(sqlite3.Connection, "enable_load_extension") else "cannot load", said)

    async def test_queue_is_bounded(self) -> None:
        """Beyond so many that wait nobody waits."""
        self.patch(__import__("sipgw.db.connections", fromlist=[""]), "QUEUE", 3)
        asked = [ensureDeferred(self.db.select("phones")) for _ in range(4)]
        self.assertIn("3 queries wait already", await self.fails(Unavailable, asked[3]))
        for each in asked[:3]:
            await each


class SmallTests(SynchronousTestCase):
    """What needs no threads."""

    def test_urls(self) -> None:
        """The path is from the root, as in OpenSIPS; no file, or one that is not there, is an error."""
        for url, file in [("sqlite:///a/b.db", "/a/b.db"), ("sqlite://a/b.db", "/a/b.db"), ("sqlite:b.db", "b.db")]:
            self.assertEqual(file_of(url), file)
        self.assertRaises(DatabaseError, file_of, "sqlite:///")
        server = FakeServer()
        DbSqlite(server)
        try:
            finished(server.databases.open("sqlite:///no/such/file"))
        except Unavailable as error:
            self.assertIn("sipgw db create", str(error))
        else:
            self.fail("opened")

    def test_on_a_clock(self) -> None:
        """With a clock in place of the reactor whoever asks waits, so that tests need no threads."""
        os.makedirs(directory := self.mktemp())
        server = FakeServer()
        DbSqlite(server)
        db = finished(server.databases.open(sqlite(directory)))
        finished(db.query("CREATE TABLE a (b INTEGER)"))
        finished(db.insert("a", {"b": 1}))
        self.assertEqual(list(finished(db.select("a"))), [(1,)])
        finished(server.databases.close())  # type: ignore[attr-defined]
