"""cachedb_sql: keys and values in a table of an SQL database, ``sql:name-url``; scripts call the store ``sql:name-scheme``.

All machines that use the database share them, and a restart forgets nothing. A counter is kept as a number and as a text, so that
``cache_fetch`` reads it too; it is changed by comparing and swapping, so that between machines no addition is lost."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any, TypeVar

from sipgw.core.cachedb import CacheError, NotCounter, Row, Unsupported
from sipgw.db.errors import DatabaseError, Duplicate
from sipgw.exports import Module, param
from sipgw.interfaces import Database, Value
from sipgw.script.values import c_int

T = TypeVar("T")

VERSION = 2
"""Of the table."""
ATTEMPTS = 50
"""How often a counter is tried to be changed while others change it."""

_URL = re.compile(r"sql:(?:([A-Za-z0-9_.]*)-)?([A-Za-z][A-Za-z0-9_+.]*)(:.+)", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")


def _check_url(text: str) -> None:
    if _URL.fullmatch(text.strip()) is None:
        raise ValueError("write sql:name-url of the database, such as sql:1st-mysql://user:password@host/database")


def _positive(value: int) -> None:
    if value <= 0:
        raise ValueError("write a number of seconds, 1 or more")


class CachedbSql(Module):
    """Key-value stores in SQL databases."""

    name = "cachedb_sql"

    cachedb_url: str = param("", "A store: sql:name-url of the database", each="add_url", check=_check_url)
    db_table: str = param("cachedb", "The table")
    key_column: str = param("keyname", "The column of the key")
    value_column: str = param("value", "The column of the value")
    counter_column: str = param("counter", "The column of the value as a number")
    expires_column: str = param("expires", "The column of the time when it is forgotten")
    cache_clean_period: int = param(60, "How often expired keys are deleted, in seconds", check=_positive)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._urls: list[str] = []
        self._stores: list[SqlCache] = []
        self._timer: Any = None
        super().__init__(server, **parameters)
        if server is not None:
            server.user.caches.serve("sql", self.open)

    def add_url(self, value: str) -> None:
        """Note a store."""
        self._urls.append(value.strip())

    async def start(self) -> None:
        """Open the databases."""
        for url in self._urls:
            found = _URL.fullmatch(url)
            store = await self.open(url)
            if found is not None:
                name, scheme = found[1], found[2]
                self.server.user.caches.add("sql", f"{name}-{scheme}" if name else scheme, store)
        self._later()

    async def stop(self) -> None:
        """Clean no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def open(self, url: str) -> SqlCache:
        """The store of a URL; also for modules that have a ``cachedb_url`` of their own."""
        found = _URL.fullmatch(url.strip())
        if found is None:
            raise CacheError("this is no cachedb_url of an SQL database: write sql:name-url")
        database = await self.server.databases.open(found[2] + found[3])
        await self.server.databases.check(database, self.db_table, VERSION)
        store = SqlCache(self, database)
        self._stores.append(store)
        return store

    def _later(self) -> None:
        self._timer = self.server.later(self.cache_clean_period, self._clean)

    def _clean(self) -> None:
        self._later()
        for store in self._stores:
            self.server.user.launch(self._cleaned(store))

    async def _cleaned(self, store: SqlCache) -> None:
        try:
            await store.clean()
        except CacheError as error:
            self.server.user.log_rarely("cachedb_sql", -1, f"cachedb_sql: expired keys are still there: {error}")


class SqlCache:
    """One table (``core.cachedb.Cache``)."""

    system = "cachedb_sql"
    threshold = 0

    def __init__(self, module: CachedbSql, database: Database) -> None:
        self._module = module
        self._db = database
        self._now = module.server.user.wall_clock

    def _end(self, seconds: int) -> int:
        return int(self._now()) + seconds if seconds else 0

    async def _asked(self, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except DatabaseError as error:
            raise CacheError(str(error)) from None

    async def _row(self, key: str) -> tuple[str, int, int] | None:
        """The value as text and as number, and when it ends; None if it is not there, or has ended."""
        say = self._module
        columns = [say.value_column, say.counter_column, say.expires_column]
        rows = await self._asked(self._db.select(say.db_table, columns, {say.key_column: key}, limit=1))
        if not len(rows):
            return None
        value, counter, ends = rows[0]
        if ends and ends <= self._now():
            return None
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value), counter, ends

    async def store(self, key: str, value: str, seconds: int) -> None:
        """Keep ``value``."""
        say = self._module
        number = c_int(int(value)) if _NUMBER.fullmatch(value) else 0
        row: dict[str, Value] = {
            say.key_column: key,
            say.value_column: value,
            say.counter_column: number,
            say.expires_column: self._end(seconds),
        }
        await self._asked(self._db.replace(say.db_table, row, [say.key_column]))

    async def fetch(self, key: str) -> str | None:
        """The value, None if there is none."""
        row = await self._row(key)
        return None if row is None else row[0]

    async def remove(self, key: str) -> None:
        """Forget the value."""
        await self._asked(self._db.delete(self._module.db_table, {self._module.key_column: key}))

    async def counter(self, key: str) -> int | None:
        """The value of a counter."""
        row = await self._row(key)
        return None if row is None else _number(key, row[0])

    async def add(self, key: str, number: int, seconds: int) -> int:
        """Add to a counter; without ``seconds`` it ends when it did before."""
        say = self._module
        for _ in range(ATTEMPTS):
            row = await self._row(key)
            new = c_int((0 if row is None else _number(key, row[0])) + number)
            ends = self._end(seconds) if seconds or row is None else row[2]
            values: dict[str, Value] = {say.value_column: str(new), say.counter_column: new, say.expires_column: ends}
            if row is None:
                await self._asked(self._db.delete(say.db_table, self._ended(key)))
                try:
                    await self._asked(self._inserted({say.key_column: key, **values}))
                except _There:
                    continue
                return new
            if await self._asked(self._db.update(say.db_table, values, {say.key_column: key, say.counter_column: row[1]})):
                return new
        raise CacheError(f"the counter {key} is changed by too many at once")

    async def _inserted(self, values: dict[str, Value]) -> None:
        try:
            await self._db.insert(self._module.db_table, values)
        except Duplicate:
            raise _There from None

    def _ended(self, key: str) -> list[tuple[str, str, Value]]:
        return [(self._module.key_column, "=", key), *self._old()]

    def _old(self) -> list[tuple[str, str, Value]]:
        ends = self._module.expires_column
        return [(ends, "!=", 0), (ends, "<=", int(self._now()))]

    async def clean(self) -> None:
        """Delete what has ended."""
        await self._asked(self._db.delete(self._module.db_table, self._old()))

    async def query(self, text: str) -> list[Row]:
        """Nothing: sqlops asks in SQL."""
        raise Unsupported("cachedb_sql has no raw queries: use sql_query of sqlops")


class _There(Exception):
    """Somebody else has made the row meanwhile."""


def _number(key: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise NotCounter(f"the value of {key} is no number")
    return c_int(int(text))
