"""What every SQL database has to do: the same cases for each engine, by subclassing ``Cases``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults

from sipgw.db.database import SqlDatabase
from sipgw.db.errors import DatabaseError, Duplicate, Refused
from sipgw.interfaces import Change
from sipgw.testing import FakeServer

NOW = datetime(2026, 11, 22, 21, 30, 5)
TYPES = {
    "sqlite": ("INTEGER PRIMARY KEY AUTOINCREMENT", "DATETIME", "BLOB", "FLOAT(10,2)"),
    "mysql": ("INT(10) UNSIGNED AUTO_INCREMENT PRIMARY KEY", "DATETIME", "BLOB", "FLOAT(10,2)"),
    "postgres": ("SERIAL PRIMARY KEY", "TIMESTAMP WITHOUT TIME ZONE", "BYTEA", "REAL"),
}
"""A key that counts, a time, octets and a small number, as OpenSIPS's tables have them."""

PAYLOADS = [
    "' OR '1'='1", "'; DROP TABLE phones; --", "' OR 1=1 --", "' OR 1=1 #", '" OR ""="', "') OR ('1'='1", "' UNION SELECT 1 --",
    "admin'--", "admin'/*", "\\' OR 1=1 --", "\\", "\\\\", "%", "_", "%s", "%(x)s", "?", "$1", ":a", "{0}", "';",
    "1; DELETE FROM phones", "x' AND SLEEP(3) --", "'||pg_sleep(3)||'", "' || (SELECT 1) || '", "/* x */", "--", "#", "`", "``",
    '"', '""', "'", "''", "\x1a", "\n", "\r\n", "\t", "\u2019 OR 1=1", "\uff07 OR 1=1 --", "0", "1e0", "NULL",
    "\U0001f4de", "a\u0301",
]  # fmt: skip
"""What people write where a name belongs."""


class Cases:
    """The cases; a subclass says how to ``make`` a database that is empty and of its own."""

    db: SqlDatabase
    server: FakeServer

    async def make(self) -> SqlDatabase:
        """Open a database."""
        raise NotImplementedError

    def real_server(self) -> FakeServer:
        """What modules see, with the reactor and its threads."""
        from twisted.internet import reactor

        self.server = FakeServer()
        self.server.reactor = reactor
        return self.server

    def setUp(self) -> Any:
        """Have a table."""
        return ensureDeferred(self._set_up())

    async def _set_up(self) -> None:
        self.db = await self.make()
        self.addCleanup(lambda: ensureDeferred(self.db.close()))  # type: ignore[attr-defined]
        key, time, octets, number = TYPES[self.db.dialect]
        await self.db.query(
            f"CREATE TABLE phones (id {key}, name CHAR(64) DEFAULT '' NOT NULL, ports INTEGER,"
            f" since {time} DEFAULT '1900-01-01 00:00:01' NOT NULL, body {octets}, q {number} DEFAULT 1.0 NOT NULL, note TEXT)"
        )
        await self.db.query("CREATE UNIQUE INDEX phones_name ON phones (name)")

    async def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """All rows."""
        return list(await self.db.select("phones", columns or ("name", "ports"), order="id"))

    async def fails(self, kind: type[DatabaseError], awaited: Any) -> str:
        """What the error says that comes."""
        try:
            await awaited
        except kind as error:
            return str(error)
        raise AssertionError(f"no {kind.__name__}")

    async def test_types(self: Any) -> None:
        """What comes back is what went in: numbers, texts, octets, times, nothing."""
        note = "\u00e4\U0001f4de 'x' \\ %s ?"
        values = {"name": "alice", "ports": -5, "since": NOW, "body": b"\0\xff'", "q": 0.5, "note": note}
        await self.db.insert("phones", values)
        await self.db.insert("phones", {"name": "bob"})
        rows = await self.db.select("phones", [*values], order="id")
        self.assertEqual(list(rows.columns), [*values])
        self.assertEqual(rows[0], tuple(values.values()))
        self.assertEqual(rows[1], ("bob", None, datetime(1900, 1, 1, 0, 0, 1), None, 1.0, None))
        self.assertEqual(list(map(type, rows[0])), [str, int, datetime, bytes, float, str])
        self.assertEqual(len(await self.db.select("phones")), 2)

    async def test_conditions(self: Any) -> None:
        """Operators, nothing, an order, a limit; a number is what its text is, in either kind of column."""
        for number, name in enumerate(["1000", "1001", "zoe"]):
            await self.db.insert("phones", {"name": name, "ports": number or None})
        for where, found in [
            ({"name": "1000"}, ["1000"]),
            ({"name": 1000}, ["1000"]),
            ({"name": 0}, []),
            ({"ports": "2"}, ["zoe"]),
            ({"ports": None}, ["1000"]),
            ([("ports", "!=", None), ("name", "!=", "zoe")], ["1001"]),
            ([("ports", ">=", 1), ("ports", "<", 2)], ["1001"]),
            ([("since", ">", datetime(2000, 1, 1))], []),
        ]:
            self.assertEqual([row[0] for row in await self.db.select("phones", ["name"], where, order="name")], found, where)
        rows = await self.db.select("phones", ["name"], order="name DESC", limit=2)
        self.assertEqual([row[0] for row in rows], ["zoe", "1001"])

    async def test_changes(self: Any) -> None:
        """An update says how many rows it is for, whether or not they had the value before; so does a delete."""
        for name in "abc":
            await self.db.insert("phones", {"name": name, "ports": 1})
        self.assertEqual(await self.db.update("phones", {"ports": 1}, [("name", "<", "c")]), 2)
        self.assertEqual(await self.db.update("phones", {"ports": 2}, {"name": "nobody"}), 0)
        self.assertEqual(await self.db.delete("phones", {"name": "a"}), 1)
        self.assertEqual(await self.db.delete("phones", ()), 2)

    async def test_replace(self: Any) -> None:
        """A replace adds or changes, whether or not its keys are those of an index."""
        await self.db.replace("phones", {"name": "a", "ports": 1}, ["name"])
        await self.db.replace("phones", {"name": "a", "ports": 2}, ["name"])
        await self.db.replace("phones", {"name": "b", "ports": 3}, ["ports"])
        await self.db.replace("phones", {"name": "c", "ports": 3}, ["ports"])
        self.assertEqual(await self.rows(), [("a", 2), ("c", 3)])
        await self.fails(Refused, self.db.replace("phones", {"name": "a"}, []))

    async def test_duplicates(self: Any) -> None:
        """A key that is there already is told apart from other refusals, which name the database and not its password."""
        await self.db.insert("phones", {"name": "a"})
        self.assertIn(self.db.name, await self.fails(Duplicate, self.db.insert("phones", {"name": "a"})))
        for wrong in [
            self.db.insert("nothing", {"name": "a"}),
            self.db.select("phones", ["nothing"]),
            self.db.query("SELEKT 1"),
            self.db.insert("phones", {"name": None}),
        ]:
            self.assertNotIsInstance(await self.failure(wrong), Duplicate)

    async def failure(self, awaited: Any) -> BaseException:
        """The refusal that comes."""
        try:
            await awaited
        except Refused as error:
            return error
        raise AssertionError("not refused")

    async def test_batch(self: Any) -> None:
        """All of a batch or none, in order."""
        add = Change("insert", "phones", {"name": "a", "ports": 1})
        change, bob = Change("update", "phones", {"ports": 2}, {"name": "a"}), Change("insert", "phones", {"name": "b"})
        remove, carol = Change("delete", "phones", where={"name": "b"}), Change("insert", "phones", {"name": "c"})
        await self.db.batch([add, change, bob])
        await self.db.batch([Change("replace", "phones", {"name": "b", "ports": 5}, keys=["name"])])
        await self.db.batch([])
        self.assertEqual(await self.rows(), [("a", 2), ("b", 5)])
        await self.fails(Duplicate, self.db.batch([remove, carol, add]))
        self.assertEqual(await self.rows(), [("a", 2), ("b", 5)])
        await self.db.batch([remove, carol])
        self.assertEqual(await self.rows(), [("a", 2), ("c", None)])

    async def test_values_stay_values(self: Any) -> None:
        """Whatever a value is made of, it is one value: as a key, in a condition, in a statement of a script, quoted."""
        await self.db.insert("phones", {"name": "witness", "ports": 7})
        for payload in PAYLOADS:
            await self.db.insert("phones", {"name": payload, "note": payload})
            self.assertEqual(list(await self.db.select("phones", ["note"], {"name": payload})), [(payload,)])
            asked = "SELECT note FROM phones WHERE name = ? AND 1 = ?"
            self.assertEqual(list(await self.db.query(asked, [payload, 1])), [(payload,)])
            asked = f"SELECT note FROM phones WHERE name = '{self.db.quote(payload)}'"
            self.assertEqual(list(await self.db.query(asked)), [(payload,)])
            self.assertEqual(await self.db.update("phones", {"note": payload * 2}, {"name": payload}), 1)
            self.assertEqual(len(await self.db.select("phones", ["id"])), 2)
            self.assertEqual(await self.db.delete("phones", {"name": payload}), 1)
        self.assertEqual(await self.rows(), [("witness", 7)])

    async def test_names_are_names(self: Any) -> None:
        """Nothing but a plain identifier is taken for a table or a column; one that is a word of SQL is."""
        await self.db.insert("phones", {"name": "witness", "ports": 7})
        for payload in [*PAYLOADS, "", "name, id", "name = name", "count(*)", "a.b.c", "9x"]:
            for wrong in [
                self.db.select(payload, ["name"]),
                self.db.select("phones", [payload]),
                self.db.select("phones", ["name"], {payload: 1}),
                self.db.insert("phones", {payload: "x"}),
                self.db.update("phones", {payload: 1}, {}),
                self.db.delete(payload, {}),
                self.db.replace("phones", {"name": "x", payload: 1}, ["name"]),
                self.db.select("phones", ["name"], [("name", payload, "x")]),
            ]:
                await self.fails(Refused, wrong)
        self.assertEqual(await self.rows(), [("witness", 7)])

    async def test_unkept(self: Any) -> None:
        """What not every engine can keep none does: NUL, bytes that are no UTF-8, numbers that are none."""
        for note in ["a\0b", "a\udcffb"]:
            await self.fails(Refused, self.db.insert("phones", {"name": "x", "note": note}))
        for number in [float("nan"), float("inf"), 1 << 70]:
            await self.fails(Refused, self.db.insert("phones", {"name": "x", "ports": number}))
        for text in ["a\0", "\udc80"]:
            await self.fails(Refused, self.db.select("phones", ["name"], {"name": text}))
            self.assertRaises(Refused, self.db.quote, text)
        self.assertEqual(await self.rows(), [])

    async def test_many_at_once(self: Any) -> None:
        """Changes and questions at once, all answered, none lost."""

        def add(number: int) -> Deferred[Any]:
            return ensureDeferred(self.db.insert("phones", {"name": str(number), "ports": number}))

        def ask(number: int) -> Deferred[Any]:
            return ensureDeferred(self.db.select("phones", ["ports"], {"name": str(number)}))

        await gatherResults([add(number) for number in range(100)])
        found = await gatherResults([ask(number) for number in range(100)])
        self.assertEqual([rows[0][0] for rows in found], list(range(100)))
        self.assertEqual(self.server.statistics.find("sql:sql_total_queries").read() > 200, True)
