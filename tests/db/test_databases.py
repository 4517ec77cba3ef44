"""Databases by their URLs: which engine, what is said of a wrong one."""

from typing import Any

from twisted.trial.unittest import TestCase

from sipgw.db.databases import Engines, hide_password
from sipgw.db.errors import DatabaseError


class Rows(list[tuple[Any, ...]]):
    """Rows of a made-up table."""

    columns = ("table_version",)


class Versions:
    """A database that has nothing but versions."""

    def __init__(self, url: str) -> None:
        self.name = hide_password(url)
        self.asked: list[Any] = []

    async def select(self, table: str, columns: Any, where: Any, **_: Any) -> Rows:
        """The version 8 of "subscriber"."""
        self.asked.append((table, tuple(columns), where))
        return Rows([(8,)] if where == {"table_name": "subscriber"} else [])


class DatabasesTests(TestCase):
    """``Engines``."""

    def setUp(self) -> None:
        """Have one engine."""
        self.settings: dict[str, Any] = {"db_default_url": None, "db_version_table": "version"}
        self.engines = Engines(self.settings)
        self.engines.add("sqlite", Versions)  # type: ignore[arg-type]

    async def test_shared(self) -> None:
        """One database for each URL, and the default one where none is named."""
        self.settings["db_default_url"] = "sqlite:///a.db"
        first = await self.engines.open("sqlite:///a.db")
        self.assertIs(await self.engines.open(""), first)
        self.assertIsNot(await self.engines.open("sqlite:///b.db"), first)

    async def test_wrong_urls(self) -> None:
        """What is said names the thing to write, and never a password."""
        for url, said in [
            ("", "set db_url, or db_default_url"),
            ("nonsense", "'nonsense' is no URL"),
            ("mysql://sip:secret@host/opensips", 'mysql://sip:***@host/opensips: loadmodule "db_mysql.so"'),
            ("postgres://sip:se@cret@host/x", 'postgres://sip:***@host/x: loadmodule "db_postgres.so"'),
        ]:
            error = await self.assertFailure(_deferred(self.engines.open(url)), DatabaseError)
            self.assertIn(said, str(error))

    async def test_versions(self) -> None:
        """The version table is asked, under the name that the script gives it."""
        database: Any = await self.engines.open("sqlite:///a.db")
        await self.engines.check(database, "subscriber", 8)
        self.assertEqual(database.asked, [("version", ("table_version",), {"table_name": "subscriber"})])
        error = await self.assertFailure(_deferred(self.engines.check(database, "subscriber", 7)), DatabaseError)
        self.assertIn("has version 8, sipgw needs 7", str(error))
        error = await self.assertFailure(_deferred(self.engines.check(database, "location", 1013)), DatabaseError)
        self.assertIn("has no table location", str(error))


def _deferred(coroutine: Any) -> Any:
    from twisted.internet.defer import ensureDeferred

    return ensureDeferred(coroutine)
