"""auth_db on real databases: the cases of ``test_auth_db`` on each engine, with OpenSIPS's tables; servers that freeze."""

from __future__ import annotations

import os
from typing import Any, ClassVar, cast

import jwt
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from sipgw.db.schema import create_statements, tables
from sipgw.exports import Module
from sipgw.interfaces import Database, Databases, Value
from sipgw.modules.auth_jwt import AuthJwt
from sipgw.modules.db_mysql import DbMysql
from sipgw.modules.db_postgres import DbPostgres
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.modules.tm import Tm
from sipgw.modules.uac_registrant import UacRegistrant
from sipgw.testing import FakeServer
from tests.digest import answered
from tests.doubles import FakeVariable, request, run_of
from tests.modules.test_auth_db import Cases, message
from tests.servers.sql import fresh, missing, server


class OneDatabase:
    """The databases of a server: one that is open already."""

    def __init__(self, databases: Databases, database: Database) -> None:
        self._databases = databases
        self.database = database

    def add(self, scheme: str, engine: Any) -> None:
        """Take no engine."""

    async def open(self, url: str) -> Database:
        """The one."""
        return self.database

    async def check(self, database: Database, table: str, version: int) -> None:
        """Compare."""
        await self._databases.check(database, table, version)


class EngineTests(Cases):
    """On a real database, in the threads of the real reactor."""

    engine: ClassVar[str]
    module: ClassVar[type[Module]]

    async def make(self) -> None:
        """An empty database with the tables that are needed, and a column of our own."""
        reason = missing(self.engine)
        if reason:
            raise SkipTest(reason)
        os.makedirs(directory := self.mktemp())
        self.url = fresh(self.engine, directory)
        database = await self.open()
        await self.add_tables(database, "version", "subscriber", "uri")
        await database.query("ALTER TABLE subscriber ADD rpid VARCHAR(64)")

    @staticmethod
    async def add_tables(database: Database, *names: str) -> None:
        """Make tables as ``sipgw db create`` does."""
        for name in names:
            for statement in create_statements(tables()[name], database.dialect):
                await database.query(statement)
            if name != "version":
                await database.insert("version", {"table_name": name, "table_version": tables()[name].version})

    async def open(self, **parameters: int) -> Database:
        """Open the database, with ``parameters`` of its module, for the server that is started next."""
        from twisted.internet import reactor

        fake = FakeServer()
        fake.reactor = reactor
        self.module(fake, **parameters)
        database: Any = await fake.databases.open(self.url)
        self.addCleanup(lambda: ensureDeferred(database.close()))
        made = OneDatabase(fake.databases, database)
        self.databases = made
        return made.database

    def settled(self) -> Deferred[None]:  # type: ignore[override]
        """Let the reactor turn."""
        from twisted.internet import reactor

        return deferLater(reactor, 0.001)

    async def test_version(self) -> None:
        """A table of another version is not used: 500, and the log says what to do."""
        await self.database.update("version", {"table_version": 7}, {"table_name": "subscriber"})
        self.assertEqual((await self.login()).status, 500)
        self.assertTrue(any("version 7" in text for _, text in self.wired.lines))


    async def test_tokens(self) -> None:
        """auth_jwt finds the secrets of a profile, and takes a claim for a value."""
        await self.add_tables(self.database, "jwt_profiles", "jwt_secrets")
        await self.database.insert("jwt_profiles", {"tag": "desk", "sip_username": "alice"})
        secret: dict[str, Value] = {"corresponding_tag": "desk", "secret": "s" * 64, "start_ts": 0, "end_ts": 2**31 - 1}
        await self.database.insert("jwt_secrets", secret)
        module = AuthJwt(self.wired.server, db_mode=1)
        module.server.databases = self.databases
        await module.start()
        run, out = run_of(request()), FakeVariable()
        for tag, expected in (("desk", 1), ("desk' OR '1'='1", -1), ("desk\\", -1), ("%", -1)):
            token = jwt.encode({"tag": tag}, "s" * 64, algorithm="HS256")
            self.assertEqual(await module.jwt_db_authorize(run, token, out, out), expected, tag)
        self.assertEqual(out.get(None), "alice")

    async def test_registrant(self) -> None:
        """uac_registrant reads its table, and writes down who is disabled."""
        await self.add_tables(self.database, "registrant")
        row: dict[str, Value] = {"registrar": "sip:192.0.2.7", "aor": "sip:a@b", "binding_URI": "sip:a@c", "state": 1}
        await self.database.insert("registrant", row)
        module = UacRegistrant(self.wired.server)
        module.tm = cast(Tm, self.wired.server.modules["tm"])
        module.server.databases = self.databases
        await module.start()
        await module.mi_enable("sip:a@b", "sip:a@c", "sip:192.0.2.7")
        self.assertEqual(list(await self.database.select("registrant", ["state"])), [(0,)])
        (record,) = module.mi_list()["Records"]
        self.assertEqual((record["expires"], record["enabled"]), (3600, "yes"))
        await module.stop()


class ServerTests(EngineTests):
    """A server that can freeze."""

    hasty: ClassVar[dict[str, int]]

    async def test_frozen(self) -> None:
        """While the server is frozen nobody gets in; when it goes on, the right one does."""
        await self.open(**self.hasty)
        self.start()
        challenge = await self.ask()
        there = server(self.engine)
        there.freeze()
        try:
            found = await self.send(message(answered(challenge)))
        finally:
            there.restore()
        self.assertEqual((found.status, found.header("X-Code")), (503, None))
        self.assertEqual((await self.login()).header("X-Code"), "1")


class SqliteTests(EngineTests, TestCase):
    """SQLite."""

    engine = "sqlite"
    module = DbSqlite


class PostgresTests(ServerTests, TestCase):
    """PostgreSQL."""

    engine = "postgres"
    module = DbPostgres
    hasty: ClassVar = {"timeout": 1}


class MysqlTests(ServerTests, TestCase):
    """MariaDB."""

    engine = "mysql"
    module = DbMysql
    hasty: ClassVar = {"timeout_interval": 1}
