"""auth_db on real databases: the cases of ``test_auth_db`` on each engine."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from sipgw.interfaces import Database
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.testing import FakeServer
from tests.modules.test_auth_db import Cases
from tests.servers.sql import sqlite

TABLES = (
    "CREATE TABLE subscriber (username CHAR(64) NOT NULL, domain CHAR(64) NOT NULL, password CHAR(25), ha1 CHAR(64),"
    " ha1_sha256 CHAR(64), ha1_sha512t256 CHAR(64), rpid CHAR(64))",
    "CREATE TABLE uri (username CHAR(64) NOT NULL, domain CHAR(64) NOT NULL, uri_user CHAR(64) NOT NULL)",
)


class OneDatabase:
    """The databases of a server: one that is open, whose tables have any version."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, scheme: str, engine: Any) -> None:
        """Take no engine."""

    async def open(self, url: str) -> Database:
        """The one."""
        return self.database

    async def check(self, database: Any, table: str, version: int) -> None:
        """Take any."""


class EngineTests(Cases):
    """On a real database, in the threads of the real reactor."""

    def real_server(self) -> FakeServer:
        """What the module of an engine sees."""
        from twisted.internet import reactor

        server = FakeServer()
        server.reactor = reactor
        return server

    async def use(self, database: Any) -> None:
        """Make the tables in ``database``."""
        self.addCleanup(lambda: ensureDeferred(database.close()))
        for text in TABLES:
            await database.query(text)
        self.databases = OneDatabase(database)

    def settled(self) -> Deferred[None]:  # type: ignore[override]
        """Let the reactor turn."""
        from twisted.internet import reactor

        return deferLater(reactor, 0.001)


class SqliteTests(EngineTests, TestCase):
    """SQLite."""

    async def make(self) -> None:
        """A new file."""
        os.makedirs(directory := self.mktemp())
        server = self.real_server()
        DbSqlite(server)
        await self.use(await server.databases.open(sqlite(directory)))
