"""Several databases that look like one: db_virtual."""

from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.db.database import Result
from sipgw.db.errors import DatabaseError, Refused, Unavailable, Unsupported
from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.interfaces import Change
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.db_postgres import DbPostgres
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.modules.db_virtual import DbVirtual
from sipgw.testing import FakeServer, finished, pass_time
from tests.servers import sql


class Fake:
    """A database that notes what it is asked, and does what it is told."""

    dialect = "fake"

    def __init__(self, url: str) -> None:
        self.name = url
        self.asked: list[str] = []
        self.fails: type[DatabaseError] | None = None
        self.ping: type[DatabaseError] | None = None

    async def start(self) -> None:
        """Connect."""
        if self.fails is not None:
            raise self.fails("cannot connect")

    def _do(self, what: str) -> None:
        self.asked.append(what)
        if self.fails is not None:
            raise self.fails(f"{self.name} fails")

    async def select(self, table: str, *_: Any, **__: Any) -> Result:
        """Rows that say who has answered."""
        self._do(f"select {table}")
        return Result(["name"], [(self.name,)])

    async def insert(self, table: str, values: Any) -> None:
        """Note it."""
        self._do(f"insert {values['a']}")

    async def update(self, table: str, values: Any, where: Any) -> int:
        """Note it."""
        self._do(f"update {values['a']}")
        return len(self.name)

    async def delete(self, table: str, where: Any) -> int:
        """Note it."""
        self._do("delete")
        return 1

    async def replace(self, table: str, values: Any, keys: Any) -> None:
        """Note it."""
        self._do(f"replace {values['a']}")

    async def batch(self, changes: Any) -> None:
        """Note it."""
        self._do(f"batch of {len(changes)}")

    async def query(self, text: str, values: Any = ()) -> Result:
        """Note it."""
        if self.ping is not None and text == "SELECT 1":
            raise self.ping("no SQL")
        self._do(text)
        return Result(["name"], [(self.name,)])

    def quote(self, text: str) -> str:
        """In its own way."""
        return f"{self.name} {text}"


class VirtualTests(SynchronousTestCase):
    """Sets of fakes."""

    def make(self, mode, names="abc", **parameters):
        """A set; its database."""
        self.server = FakeServer()
        self.fakes: dict[str, Fake] = {}
        self.down: set[str] = set()
        self.server.databases.add("fake", self.fake)
        self.module = DbVirtual(self.server, **parameters)
        self.module.add(f"define set1 {mode}")
        for name in names:
            self.module.add(f"fake:{name}")
        finished(self.module.start())
        self.server.commands.add(self.module)
        self.addCleanup(lambda: finished(self.module.stop()))
        return finished(self.server.databases.open("virtual://set1"))

    def fake(self, url):
        """One of its databases."""
        made = self.fakes.setdefault(url[-1], Fake(url))
        made.fails = Unavailable if url[-1] in self.down else None
        return made

    def who(self, db):
        """Who answers a select."""
        return finished(db.select("t"))[0][0][-1]

    def turn(self, name, error):
        """Let a database fail, or work again."""
        self.fakes[name].fails = error

    def states(self):
        """What db_virtual:get says of each."""
        found = finished(self.server.commands.call("db_get"))
        return [(each["name"], each["can"], each["may"], each["r_rec"]) for each in found["SETS"][0]["DBS"]]

    def test_failover(self):
        """The first one is asked until it is down; then the next, also when the first is back."""
        db = self.make("FAILOVER")
        self.assertEqual(self.who(db) + self.who(db), "aa")
        self.turn("a", Unavailable)
        self.assertEqual(self.who(db) + self.who(db), "bb")
        self.assertEqual(self.fakes["a"].asked, ["select t"] * 3)
        self.assertEqual([can for _, can, _, _ in self.states()], [0, 1, 1])
        self.turn("a", None)
        pass_time(self.server.reactor, 10)
        self.assertEqual([can for _, can, _, _ in self.states()], [1, 1, 1])
        self.assertEqual(self.who(db), "b")
        self.turn("b", Unavailable)
        self.turn("c", Unavailable)
        self.assertEqual(self.who(db), "a")
        self.turn("a", Unavailable)
        error = self.assertRaises(Unavailable, finished, db.select("t"))
        self.assertIn("fake:a", str(error))
        self.assertIn("all its databases are down", str(self.assertRaises(Unavailable, finished, db.select("t"))))

    def test_refused(self):
        """A statement that is refused takes nobody away."""
        db = self.make("FAILOVER")
        self.turn("a", Refused)
        self.assertRaises(Refused, finished, db.insert("t", {"a": 1}))
        self.turn("a", None)
        self.assertEqual(self.who(db), "a")

    def test_round(self):
        """Each time the next one that is there."""
        db = self.make("ROUND")
        self.assertEqual("".join(self.who(db) for _ in range(4)), "bcab")
        self.turn("c", Unavailable)
        self.assertEqual("".join(self.who(db) for _ in range(4)), "aaba")

    def test_parallel(self):
        """All are changed, one is read; it is enough if one could be changed."""
        db = self.make("PARALLEL")
        finished(db.insert("t", {"a": 1}))
        finished(db.update("t", {"a": 2}, {}))
        finished(db.delete("t", {}))
        finished(db.replace("t", {"a": 3}, ["a"]))
        finished(db.batch([Change("insert", "t", {"a": 4})] * 2))
        finished(db.query("SELECT 2"))
        changes = ["insert 1", "update 2", "delete", "replace 3", "batch of 2"]
        asked = [self.fakes[name].asked for name in "abc"]
        self.assertEqual(asked, [[*changes, "SELECT 2"], changes, changes])
        self.turn("a", Unavailable)
        self.turn("b", Refused)
        self.assertEqual(finished(db.update("t", {"a": 5}, {})), len("fake:c"))
        self.assertIn("in 1 of 3 databases", self.server.lines[-1][1])
        self.assertEqual([can for _, can, _, _ in self.states()], [0, 1, 1])
        self.turn("c", Refused)
        self.assertRaises(Refused, finished, db.insert("t", {"a": 6}))
        self.assertEqual(self.who(self.make("PARALLEL", "a")), "a")

    def test_down_at_start(self):
        """What is down when the server starts comes later; what has no module never does."""
        self.make("FAILOVER", "a")
        self.down.add("a")
        server, self.down = self.server, {"x"}
        module = DbVirtual(server)
        for text in ("define other FAILOVER", "fake:x", "fake:y", "", "# nothing"):
            module.add(text)
        finished(module.start())
        db = finished(server.databases.open("virtual://other"))
        self.assertEqual(self.who(db), "y")
        self.turn("x", None)
        self.down.clear()
        pass_time(server.reactor, 10)
        self.turn("y", Unavailable)
        self.assertEqual(self.who(db), "x")
        finished(module.stop())
        bad = DbVirtual(server)
        bad.add("define third FAILOVER")
        bad.add("oracle://x")
        self.assertRaises(DatabaseError, finished, server.databases.open("virtual://third"))

    def test_probe(self):
        """A probe is a statement that any database understands; one that knows no SQL answers all the same."""
        db = self.make("FAILOVER", "ab", db_probe_time=3)
        self.turn("a", Unavailable)
        self.assertEqual(self.who(db), "b")
        pass_time(self.server.reactor, 3)
        self.assertEqual(self.fakes["a"].asked[-1], "SELECT 1")
        self.assertEqual([can for _, can, _, _ in self.states()], [0, 1])
        for answers in (Unsupported, Refused):
            self.fakes["a"].ping = answers
            pass_time(self.server.reactor, 3)
            self.assertEqual([can for _, can, _, _ in self.states()], [1, 1])

    def test_left_alone(self):
        """What comes and fails too often is left alone until db_virtual:set says otherwise."""
        db = self.make("FAILOVER", "a", db_max_consec_retrys=2, db_probe_time=1)
        self.fakes["a"].ping = Unsupported
        self.turn("a", Unavailable)
        for _ in range(2):
            self.assertRaises(Unavailable, finished, db.select("t"))
            pass_time(self.server.reactor, 1)
        self.assertEqual(self.states(), [("fake:a", 0, 1, 0)])
        self.assertIn("not tried any more", self.server.lines[-1][1])
        finished(self.server.commands.call("db_virtual:set", [0, 0, 1, 1]))
        pass_time(self.server.reactor, 1)
        self.assertEqual(self.states(), [("fake:a", 1, 1, 1)])
        for _ in range(5):
            self.assertRaises(Unavailable, finished, db.select("t"))
            pass_time(self.server.reactor, 1)
        self.assertEqual(self.states(), [("fake:a", 1, 1, 1)])
        finished(self.server.commands.call("db_virtual:set", [0, 0, 1]))
        self.turn("a", None)
        self.assertEqual(self.who(db), "a")

    def test_set(self):
        """A database may be forbidden; what cannot be meant is refused."""
        db = self.make("FAILOVER", "ab")
        finished(self.server.commands.call("db_set", [0, 0, 0]))
        self.assertEqual(self.who(db), "b")
        self.assertEqual(self.states(), [("fake:a", 1, 0, 0), ("fake:b", 1, 1, 0)])
        finished(self.server.commands.call("db_virtual:set", {"set_index": 0, "db_url_index": 0, "may_use_db_flag": 1}))
        for params in ([1, 0, 1], [0, 2, 1], [-1, 0, 1], [0, -1, 1], [0, 0, 2], [0, 0, 1, 2]):
            self.assertEqual(self.assertRaises(MIError, finished, self.server.commands.call("db_set", params)).code, 400)

    def test_urls(self):
        """db_urls: sets and what is in them; passwords are not shown."""
        module = DbVirtual(None)
        for bad in ("fake:a", "define", "define x", "define x NONSENSE", "define x ROUND y"):
            self.assertRaises(ValueError, module.add, bad)
        module.add("define x ROUND")
        for bad in ("define x ROUND", "virtual://x", "nonsense"):
            self.assertRaises(ValueError, module.add, bad)
        server = FakeServer()
        self.assertRaises(ValueError, finished, DbVirtual(server).start())
        empty = DbVirtual(server, db_urls="define x ROUND")
        self.assertRaises(ValueError, finished, empty.start())
        empty.add("mysql://u:secret@h/d")
        finished(empty.start())
        self.assertEqual(empty.get()["SETS"][0]["DBS"][0]["name"], "mysql://u:***@h/d")
        finished(empty.stop())
        self.assertRaises(DatabaseError, finished, server.databases.open("virtual://unknown"))
        db = self.make("ROUND", "ab")
        self.assertEqual((db.quote("x"), db.dialect), ("fake:a x", "fake"))
        self.fakes["b"].dialect = "other"
        self.assertEqual(db.dialect, "virtual")


class RealTests(TestCase):
    """A PostgreSQL that stops, and a SQLite beside it."""

    skip = sql.missing("postgres")

    def test_failover(self):
        """Rows go to the other database while the first is down, and it is noticed when it is back."""
        from twisted.internet import reactor

        async def run():
            folder = Path(self.mktemp())
            folder.mkdir()
            urls = [sql.fresh("postgres"), sql.fresh("sqlite", str(folder))]
            for url in urls:
                store = open_store(url)
                create(store, ["subscriber"])
                store.close()
            server: Any = FakeServer()
            server.reactor = reactor
            for kind in (DbPostgres, DbSqlite):
                kind(server)
            module = DbVirtual(server)
            for text in ("define set1 FAILOVER", *urls):
                module.add(text)
            module.set_of("set1")
            db = await server.databases.open("virtual://set1")
            await server.databases.check(db, "subscriber", 8)
            await db.insert("subscriber", {"username": "before", "domain": "d"})
            postgres = sql.server("postgres")
            postgres.stop()
            try:
                await db.insert("subscriber", {"username": "while", "domain": "d"})
                self.assertEqual([row[0] for row in await db.select("subscriber", ["username"])], ["while"])
                self.assertEqual([each["can"] for each in module.get()["SETS"][0]["DBS"]], [0, 1])
            finally:
                postgres.restore()
            for _ in range(100):
                await module.open[0].probe()
                if module.open[0].members[0].can:
                    break
                await deferLater(reactor, 0.05)
            module.set(0, 1, 0)
            self.assertEqual([row[0] for row in await db.select("subscriber", ["username"])], ["before"])
            await server.databases.close()

        return ensureDeferred(run())
