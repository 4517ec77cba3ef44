"""cachedb_sql: the same store on all engines."""

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.cachedb import CacheError, NotCounter
from sipgw.db.errors import DatabaseError
from sipgw.interfaces import Change
from sipgw.modules.cachedb_sql import CachedbSql
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.testing import FakeServer, finished, pass_time
from tests.db.cases import PAYLOADS
from tests.modules.scripted import Scripted
from tests.servers import sql


class CacheCases:
    """The cases; a subclass names its ``engine``."""

    engine: str

    def start(self: Any, body: str, rest: str = "") -> Scripted:
        """Run a script beside a store of our own."""
        if self.engine == "sqlite":
            os.makedirs(directory := self.mktemp())
            url = sql.sqlite(directory)
        else:
            url = sql.fresh(self.engine)
        module = f"db_{self.engine}"
        maker = Scripted("exit;", module)
        db: Any = finished(maker.server.databases.open(url))
        key = {"sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT", "postgres": "SERIAL PRIMARY KEY"}
        count = key.get(self.engine, "INT(10) UNSIGNED AUTO_INCREMENT PRIMARY KEY")
        finished(db.query("CREATE TABLE version (table_name CHAR(32) NOT NULL, table_version INTEGER DEFAULT 0 NOT NULL)"))
        finished(db.batch([Change("insert", "version", {"table_name": "cachedb", "table_version": 2})]))
        finished(db.query(
            f"CREATE TABLE cachedb (id {count}, keyname CHAR(255) NOT NULL UNIQUE, value TEXT NOT NULL,"
            " counter INTEGER DEFAULT 0 NOT NULL, expires INTEGER DEFAULT 0 NOT NULL)"
        ))  # fmt: skip
        self.db = db
        self.addCleanup(lambda: finished(db.close()))
        given = f'modparam("cachedb_sql", "cachedb_url", "sql:1st-{url}")\n'
        return Scripted(body, module, "cachedb_sql", rest=given + rest)

    @property
    def storage(self) -> str:
        """The name of the store in scripts."""
        return f"sql:1st-{self.engine}"

    def test_script(self: Any) -> None:
        """Values and counters from a script."""
        scripted = self.start(f"""
            cache_store("{self.storage}", "key", "it's $rU");
            cache_fetch("{self.storage}", "key", $var(a));
            cache_add("{self.storage}", "n", 5, 0, $var(b));
            cache_sub("{self.storage}", "n", 2, 0, $var(c));
            cache_counter_fetch("{self.storage}", "n", $var(d));
            cache_fetch("{self.storage}", "n", $var(e));
            cache_remove("{self.storage}", "key");
            cache_fetch("{self.storage}", "key", $var(f));
            xlog("L_ALERT", "$var(a) $var(b) $var(c) $var(d) $var(e) $rc");
        """)
        self.assertEqual(scripted.send(), ["it's bob 5 3 3 3 -2"])

    def test_expiry(self: Any) -> None:
        """A key is forgotten when its time is over, and its row is deleted a while later; a counter keeps its end."""
        scripted = self.start("exit;")
        caches = scripted.server.user.caches
        finished(caches.store(self.storage, "a", "1", 10))
        finished(caches.store(self.storage, "b", "2", 100))
        finished(caches.increase(self.storage, "c", 1, 10))
        self.assertEqual(finished(caches.increase(self.storage, "c", 1)), 2)
        pass_time(scripted.clock, 11)
        self.assertIsNone(finished(caches.fetch(self.storage, "a")))
        self.assertEqual(finished(caches.fetch(self.storage, "b")), "2")
        self.assertIsNone(finished(caches.counter(self.storage, "c")))
        self.assertEqual(finished(caches.increase(self.storage, "c", 7)), 7)
        self.assertEqual(len(finished(self.db.select("cachedb"))), 3)
        pass_time(scripted.clock, 60)
        self.assertEqual([row[0] for row in finished(self.db.select("cachedb", ["keyname"], order="keyname"))], ["b", "c"])
        pass_time(scripted.clock, 60)
        self.assertEqual([row[0] for row in finished(self.db.select("cachedb", ["keyname"]))], ["c"])

    def test_counters(self: Any) -> None:
        """A text that is a number is a counter, another one is not; between two machines no addition is lost."""
        scripted = self.start("exit;")
        caches = scripted.server.user.caches
        finished(caches.store(self.storage, "n", "10"))
        self.assertEqual(finished(caches.increase(self.storage, "n", -3)), 7)
        finished(caches.store(self.storage, "t", "text"))
        self.assertRaises(NotCounter, finished, caches.counter(self.storage, "t"))
        self.assertRaises(NotCounter, finished, caches.increase(self.storage, "t", 1))
        store: Any = caches.find(self.storage)
        row, between = store._row, [3, 4]

        async def slow(key: str) -> Any:
            """Let another machine add something after we have looked."""
            found = await row(key)
            if between:
                number = between.pop()
                values = {"counter": 100 + number, "value": str(100 + number)}
                await self.db.update("cachedb", values, {"keyname": key})
            return found

        store._row = slow
        self.assertEqual(finished(caches.increase(self.storage, "n", 1)), 104)

    def test_keys(self: Any) -> None:
        """Whatever a key is made of, it is one key."""
        scripted = self.start("exit;")
        caches = scripted.server.user.caches
        finished(caches.store(self.storage, "witness", "1"))
        for payload in PAYLOADS:
            finished(caches.store(self.storage, payload, payload))
            self.assertEqual(finished(caches.fetch(self.storage, payload)), payload)
            finished(caches.remove(self.storage, payload))
        self.assertEqual(len(finished(self.db.select("cachedb"))), 1)
        self.assertRaises(CacheError, finished, caches.store(self.storage, "a\0", "x"))


class SqliteTests(CacheCases, SynchronousTestCase):
    """On SQLite, and what needs no other."""

    engine = "sqlite"

    def test_wrong(self) -> None:
        """URLs that are none, and a table that is not there."""
        rest = 'modparam("cachedb_sql", "cachedb_url", "mysql://u:p@h/d")\n'
        self.assertIn("write sql:name-url", str(self.assertRaises(AssertionError, Scripted, "exit;", "cachedb_sql", rest=rest)))
        os.makedirs(directory := self.mktemp())
        server = FakeServer()
        DbSqlite(server)
        module = CachedbSql(server, cachedb_url=f"sql:{sql.sqlite(directory)}")
        self.assertIn("no such table: version", str(self.assertRaises(DatabaseError, finished, module.start())))
        databases: Any = server.databases
        finished(databases.close())


class PostgresTests(CacheCases, SynchronousTestCase):
    """On PostgreSQL."""

    engine = "postgres"
    skip = sql.missing("postgres")


class MySqlTests(CacheCases, SynchronousTestCase):
    """On MariaDB."""

    engine = "mysql"
    skip = sql.missing("mysql")
