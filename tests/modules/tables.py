"""Cases of modules that read tables of OpenSIPS: run on a database in memory and on each real engine.

Write a class of cases on ``TableCases`` with coroutines ``test_...``, and below it ``globals().update(engines(ThoseCases))``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from sipgw.db.schema import VERSION_TABLE, create_statements, tables
from sipgw.interfaces import Value
from sipgw.modules.db_mysql import DbMysql
from sipgw.modules.db_postgres import DbPostgres
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.script.run import Run
from sipgw.testing import FakeServer
from tests.db.memory import MemoryDatabases
from tests.doubles import FakeSocket, request, run_of
from tests.servers import sql

MODULES = {"sqlite": DbSqlite, "postgres": DbPostgres, "mysql": DbMysql}

if TYPE_CHECKING:
    Base = TestCase
else:
    Base = object


class TableCases(Base):
    """A fake server with a database that has ``tables``, by OpenSIPS's names of them, and no rows."""

    engine = "memory"
    tables: tuple[str, ...] = ()

    def setUp(self) -> Any:
        """Have the database."""
        return ensureDeferred(self._set_up())

    async def _set_up(self) -> None:
        self.server: Any = FakeServer()
        self.server.user.add_socket(FakeSocket())
        self.url = "memory:"
        if self.engine == "memory":
            self.server.databases = MemoryDatabases()
        else:
            from twisted.internet import reactor

            self.server.reactor = reactor
            MODULES[self.engine](self.server)
            directory = self.mktemp()
            os.makedirs(directory)
            self.url = sql.fresh(self.engine, directory)
        self.db: Any = await self.server.databases.open(self.url)
        if self.engine != "memory":
            self.addCleanup(lambda: ensureDeferred(self.db.close()))
            for name in (VERSION_TABLE, *self.tables):
                table = tables()[name]
                for text in create_statements(table, self.db.dialect):
                    await self.db.query(text)
                if name != VERSION_TABLE:
                    await self.db.insert(VERSION_TABLE, {"table_name": name, "table_version": table.version})

    async def rows(self, table: str, *rows: dict[str, Value]) -> None:
        """Put rows into a table."""
        for row in rows:
            await self.db.insert(table, row)

    def run_(self, **changes: Any) -> Run:
        """A run of a request (``tests.doubles.request``), for this server."""
        return run_of(request(**changes), self.server.user)

    def logged(self) -> list[str]:
        """What was logged of level L_WARN and worse, since the last time."""
        lines = [text for level, text in self.server.lines if level <= 1]
        self.server.lines.clear()
        return lines


def engines(cases: type[TableCases]) -> dict[str, type[TestCase]]:
    """The cases as test classes, one for each engine; the class of cases itself is no test any more."""
    made: dict[str, type[TestCase]] = {}
    for engine in ("memory", *sql.ENGINES):
        name = f"{cases.__name__.removesuffix('Cases')}{engine.capitalize()}Tests"
        about = f"{(cases.__doc__ or '').rstrip('.')}: {engine}."
        attributes = {"engine": engine, "__doc__": about, "__module__": cases.__module__}
        if engine != "memory" and (reason := sql.missing(engine)):
            attributes["skip"] = reason
        made[name] = type(name, (cases, TestCase), attributes)
    return made
