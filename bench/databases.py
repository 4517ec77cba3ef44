"""``python -m bench.databases``: selects and inserts a second on private SQLite, PostgreSQL and MariaDB, with the CPU of each."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, ensureDeferred, gatherResults
from twisted.internet.task import react

from sipgw.exports import Module
from sipgw.interfaces import Change
from sipgw.modules.db_mysql import DbMysql
from sipgw.modules.db_postgres import DbPostgres
from sipgw.modules.db_sqlite import DbSqlite
from sipgw.testing import FakeServer
from tests.servers import sql

ENGINES: dict[str, type[Module]] = {"sqlite": DbSqlite, "postgres": DbPostgres, "mysql": DbMysql}
USERS, SELECTS, INSERTS, AT_ONCE = 1000, 4000, 1000, 16


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _many(ask: Callable[[int], Any], count: int) -> str:
    """Ask so often, some at once; how fast that was."""
    limit = DeferredSemaphore(AT_ONCE)

    def one(number: int) -> Deferred[Any]:
        return ensureDeferred(ask(number))

    began, cpu = time.monotonic(), _cpu()
    asked: list[Deferred[Any]] = [limit.run(one, number) for number in range(count)]
    await gatherResults(asked)
    return f"{count / (time.monotonic() - began):7.0f}/s {(_cpu() - cpu) / count * 1e6:4.0f} us"


async def _measure(reactor: Any) -> None:
    for engine, module in ENGINES.items():
        if why := sql.missing(engine):
            print(f"{engine:9} {why}")
            continue
        server: Any = FakeServer()
        server.reactor = reactor
        module(server)
        db = await server.databases.open(sql.fresh(engine))
        await db.query("CREATE TABLE subscriber (username CHAR(64), domain CHAR(64), ha1 CHAR(64))")
        await db.query("CREATE UNIQUE INDEX account ON subscriber (username, domain)")
        rows = [{"username": str(number), "domain": "example.org", "ha1": "x" * 32} for number in range(USERS)]
        await db.batch([Change("insert", "subscriber", row) for row in rows])

        async def select(number: int, db: Any = db) -> None:
            await db.select("subscriber", ["ha1"], {"username": str(number % USERS), "domain": "example.org"})

        async def insert(number: int, db: Any = db) -> None:
            await db.insert("subscriber", {"username": f"new{number}", "domain": "example.org"})

        print(f"{engine:9} select {await _many(select, SELECTS)}   insert {await _many(insert, INSERTS)}", flush=True)
        await db.close()


if __name__ == "__main__":
    react(lambda reactor: ensureDeferred(_measure(reactor)))
