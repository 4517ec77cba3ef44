"""PostgreSQL and MySQL: the cases of all engines, and servers that freeze, stop, come back and break connections off."""

import time
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from sipgw.db.database import SqlDatabase
from sipgw.db.errors import DatabaseError, Refused, Unavailable
from sipgw.exports import Module
from sipgw.interfaces import Change
from sipgw.modules.db_mysql import DbMysql
from sipgw.modules.db_postgres import DbPostgres
from tests.db.cases import Cases
from tests.servers import sql

LATE = 4.0
"""Seconds after which something is too late: two are promised, but other processes may want this machine too."""


class ServerCases(Cases):
    """What a server has to bear."""

    engine: str
    module: type[Module]
    sleep: str
    url: str
    hasty: dict[str, int]

    def setUp(self) -> Any:
        """Have a table, and nobody who holds its locks."""
        self.holding, self.free = Event(), Event()
        return super().setUp()

    async def make(self) -> SqlDatabase:
        """A database of this class's own, whose tables of the test before go."""
        if "url" not in type(self).__dict__:
            type(self).url = sql.fresh(self.engine)
        else:
            sql.server(self.engine).restore()
        found = await self.open(self.url)
        for table in ("phones", "old"):
            await found.query(f"DROP TABLE IF EXISTS {table}")
        return found

    async def open(self, url: str, **parameters: Any) -> SqlDatabase:
        """A database of a module with ``parameters``."""
        server = self.real_server()
        self.module(server, **parameters)
        return cast(SqlDatabase, await server.databases.open(url))

    def wait(self, seconds: float) -> Deferred[Any]:
        """Let time pass."""
        reactor: Any = self.server.reactor
        return deferLater(reactor, seconds, lambda: None)

    async def until(self: Any, awaited: Any, seconds: float) -> None:
        """Ask again until it works, which must not take longer than that."""
        began = time.monotonic()
        while True:
            try:
                await awaited()
                return
            except Unavailable:
                self.assertLess(time.monotonic() - began, seconds)
                await self.wait(0.05)

    async def test_password(self: Any) -> None:
        """The password of the URL is unescaped, and never said."""
        wrong = self.url.replace("p%40", "wrong")
        said = await self.fails(Unavailable, self.open(wrong))
        self.assertIn("sip:***@", said)
        self.assertNotIn("wrong", said)

    async def test_reactor_goes_on(self: Any) -> None:
        """While a query takes its time, others are answered and the reactor turns."""
        slow = ensureDeferred(self.db.query(f"SELECT {self.sleep}(1)"))
        began = time.monotonic()
        turns = 0
        while not slow.called:
            await self.db.select("phones")
            await self.wait(0.002)
            turns += 1
        self.assertGreater(time.monotonic() - began, 0.9)
        self.assertGreater(turns, 10)

    async def test_killed_backend(self: Any) -> None:
        """A connection that was broken off since its last use costs nothing: neither a question nor a change."""
        await self.db.insert("phones", {"name": "before"})
        for number in range(3):
            sql.server(self.engine).disconnect(self.url.rpartition("/")[2])
            if number == 0:
                self.assertEqual(await self.rows("name"), [("before",)])
            elif number == 1:
                await self.db.insert("phones", {"name": "after"})
            else:
                await self.db.batch([Change("insert", "phones", {"name": "more"})])
        self.assertEqual(await self.rows("name"), [("before",), ("after",), ("more",)])

    async def test_killed_while_it_works(self: Any) -> None:
        """What was under way: a question is asked again, a change is not done twice, and says that it is unknown."""
        await self.db.insert("phones", {"name": "x", "ports": 0})
        asked = ensureDeferred(self.db.query(f"SELECT {self.sleep}(0.5)"))
        await self._break_off()
        await asked
        sleeping = f"(SELECT 1 FROM (SELECT {self.sleep}(5)) AS s)"
        changed = ensureDeferred(self.db.query(f"UPDATE phones SET ports = ports + {sleeping}"))
        await self._break_off()
        await self.fails(Unavailable, changed)
        self.assertEqual(await self.rows(), [("x", 0)])

    async def _break_off(self: Any) -> None:
        """Break off a connection while its statement sleeps."""
        database = self.url.rpartition("/")[2]
        while not sql.server(self.engine).sleeps(database):
            await self.wait(0.02)
        sql.server(self.engine).disconnect(database)

    async def test_too_slow(self: Any) -> None:
        """A query that takes too long is given up, its connection too; the others go on, since the server is there."""
        self.db._readers._limit = 0.3
        began = time.monotonic()
        self.assertIn("within 0.3 s", await self.fails(Unavailable, self.db.query(f"SELECT {self.sleep}(20)")))
        self.assertLess(time.monotonic() - began, 5)
        self.db._readers._limit = 5.0
        await self.db.insert("phones", {"name": "after"})
        self.assertFalse([text for level, text in self.server.lines if "is down" in text])

    async def test_locked(self: Any) -> None:
        """A change that waits for a lock is given up by the server too: it is not made after whoever asked was told no."""
        await self.db.insert("phones", {"name": "x", "ports": 0})
        await self.db.insert("phones", {"name": "y", "ports": 0})
        hasty = await self.open(self.url, **self.hasty)
        self.addCleanup(lambda: ensureDeferred(hasty.close()))
        holds = self.db._readers.run(self._hold, reads=False)
        while not self.holding.is_set():
            await self.wait(0.01)
        await hasty.update("phones", {"ports": 2}, {"name": "y"})
        await self.fails(Unavailable, hasty.update("phones", {"ports": 1}, {"name": "x"}))
        self.free.set()
        await holds
        await self.wait(0.1)
        self.assertEqual(await self.rows(), [("x", 0), ("y", 2)])

    def _hold(self: Any, link: Any) -> None:
        """Hold a lock until somebody says so, in a thread."""
        link.begin()
        link.execute("UPDATE phones SET ports = 5 WHERE name = 'x'", (), True)
        self.holding.set()
        self.free.wait(10)
        link.rollback()

    async def test_options(self: Any) -> None:
        """Options of a URL that would mean something in OpenSIPS are refused, not left out."""
        self.assertIn("need tls_mgm", await self.fails(DatabaseError, self.open(self.url + "?tls_domain=dom")))

    async def test_frozen(self: Any) -> None:
        """A server that stands still: everybody has an answer in time, then at once; when it goes on it is found again."""
        server = sql.server(self.engine)
        self.addCleanup(server.restore)
        self.db._readers._limit = 0.5
        await self.db.insert("phones", {"name": "before"})
        server.freeze()
        began = time.monotonic()
        asked = [ensureDeferred(self.db.insert("phones", {"name": str(number)})) for number in range(50)]
        for each in asked:
            await self.fails(Unavailable, each)
        self.assertLess(time.monotonic() - began, LATE)
        await self.until(lambda: self.is_down(), LATE)
        began = time.monotonic()
        self.assertIn("it is down", await self.fails(Unavailable, self.db.select("phones")))
        self.assertLess(time.monotonic() - began, 0.3)
        server.thaw()
        await self.until(lambda: self.db.select("phones"), LATE)
        self.db._readers._limit = 5.0
        names = [name for name, _ in await self.rows()]
        self.assertEqual(len(set(names)), len(names))
        self.assertIn("before", names)

    async def is_down(self) -> None:
        """Wait for it to be known."""
        if self.db._readers._circuit is None or not self.db._readers._circuit.down:
            raise Unavailable("not yet")

    async def test_stopped_and_started(self: Any) -> None:
        """A server that is stopped is known to be down at once, told once, and found again after it has come up."""
        server = sql.server(self.engine)
        self.addCleanup(server.restore)
        await self.db.insert("phones", {"name": "before"})
        server.stop()
        began = time.monotonic()
        for _ in range(20):
            await self.fails(Unavailable, self.db.insert("phones", {"name": "lost"}))
        self.assertLess(time.monotonic() - began, LATE)
        server.restore()
        await self.until(lambda: self.db.insert("phones", {"name": "after"}), LATE)
        self.assertEqual(await self.rows("name"), [("before",), ("after",)])
        said = [text for _, text in self.server.lines if "is down" in text or "is back" in text]
        self.assertEqual([("is down" in text, "is back" in text) for text in said], [(True, False), (False, True)])
        self.assertNotIn("p@%", "".join(said))

    async def test_slow_queries(self: Any) -> None:
        """What takes longer than exec_query_threshold is counted and told."""
        found = await self.open(self.url, exec_query_threshold=20000)
        self.addCleanup(lambda: ensureDeferred(found.close()))
        slow = self.server.statistics.find("sql:sql_slow_queries")
        before = slow.read()  # on a busy machine the connection itself may have taken longer
        await found.query(f"SELECT {self.sleep}(0.05)")
        self.assertEqual(slow.read() - before, 1)
        self.assertTrue([text for _, text in self.server.lines if "more than 20000" in text])

    async def test_two_statements(self: Any) -> None:
        """Two statements in one text are refused, where they could be somebody else's."""
        await self.db.insert("phones", {"name": "witness"})
        await self.failure(self.db.query("SELECT 1; DELETE FROM phones"))
        self.assertEqual(await self.rows("name"), [("witness",)])
        self.assertEqual(list(await self.db.query("SELECT ';' ; ")), [(";",)])

    async def test_server_types(self: Any) -> None:
        """Types of their own are read as what Python has in common for all."""
        row = (await self.db.query("SELECT sum(ports), avg(ports), CAST('2026-11-22' AS DATE) FROM phones"))[0]
        self.assertEqual(row, (None, None, "2026-11-22"))
        await self.db.insert("phones", {"name": "x", "ports": 2})
        asked = "SELECT sum(ports), avg(ports), CAST('10:20:30' AS TIME), CAST(1.5 AS DECIMAL(9,2)) FROM phones"
        row = (await self.db.query(asked))[0]
        self.assertEqual(row, (2, 2.0, "10:20:30", 1.5))


class PostgresTests(ServerCases, TestCase):
    """PostgreSQL."""

    engine = "postgres"
    module = DbPostgres
    sleep = "pg_sleep"
    hasty = {"timeout": 2}
    skip = sql.missing("postgres")


class MySqlTests(ServerCases, TestCase):
    """MariaDB."""

    engine = "mysql"
    module = DbMysql
    sleep = "sleep"
    hasty = {"timeout_interval": 1}
    skip = sql.missing("mysql")

    async def test_latin1(self) -> None:
        """In a table of Latin-1, as OpenSIPS's may be, texts are what they are; what it cannot hold is refused, not cut."""
        await self.db.query("CREATE TABLE old (name CHAR(8) CHARACTER SET latin1, note VARCHAR(8) CHARACTER SET latin1)")
        await self.db.insert("old", {"name": "J\u00e4ger", "note": "\u20ac"})
        self.assertEqual(list(await self.db.select("old", (), {"name": "J\u00e4ger"})), [("J\u00e4ger", "\u20ac")])
        for values in ({"name": "\u0416"}, {"name": "too long a name"}):
            await self.fails(Refused, self.db.insert("old", values))
        self.assertEqual(len(await self.db.select("old")), 1)

    async def test_event(self) -> None:
        """E_MYSQL_CONNECTION says that the server went and came, without its password."""
        heard: list[Any] = []
        module = DbMysql(self.real_server())
        module.connection = SimpleNamespace(emit=lambda **values: heard.append(values))
        found: Any = await self.server.databases.open(self.url)
        self.addCleanup(lambda: ensureDeferred(found.close()))
        server = sql.mariadb()
        self.addCleanup(server.restore)
        server.stop()
        await self.fails(Unavailable, found.select("phones"))
        server.restore()
        await self.until(lambda: found.select("phones"), LATE)
        self.assertEqual([each["status"] for each in heard], ["disconnected", "connected"])
        self.assertIn("mysql://sip:***@127.0.0.1", heard[0]["url"])
