"""Where the modules of back-to-back calls keep what outlives the server: a table of a database, or a Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sipgw.b2bua.store import AT_ONCE, LATER, NEVER, KeyTable, Row, Store
from sipgw.db.databases import hide_password
from sipgw.db.writes import WriteQueue
from sipgw.exports import Module, param
from sipgw.interfaces import Change

STOP_PATIENCE = 60.0
"""Seconds that a server that stops waits for the database."""
_MODES = (NEVER, AT_ONCE, LATER)


def _mode(value: int) -> None:
    if value not in _MODES:
        raise ValueError("write 0 (nothing is stored), 1 (at once) or 2 (every update_period)")


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("it must be at least 1")


class Storing(Module):
    """A module with a table of its own."""

    db_url: str = param("", "The database of calls that outlive the server; if empty db_default_url, if there is one")
    cachedb_url: str = param("", "Instead of a database a Redis: 'redis://127.0.0.1/'")
    db_mode: int = param(
        LATER, "When rows are written: 0 never, 1 at once, 2 every update_period and when the server stops", check=_mode
    )
    update_period: int = param(100, "Seconds between the writes of db_mode 2", check=_positive)
    db_table: str = param("", "The table")
    cachedb_key_prefix: str = param("", "What its keys in a Redis begin with")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.store: Store | None = None
        """None where nothing is stored."""
        self._queue: WriteQueue | None = None

    async def open_store(
        self, version: int, keys: Sequence[str], columns: Sequence[str], rows_of: Callable[[Any], Mapping[str, Row]],
        group: str = "",
    ) -> list[Row]:
        """Be ready to store; the rows that are there."""
        user = self.server.user
        if self.db_mode == NEVER:
            return []
        database: Any
        rows: list[Row]
        if self.cachedb_url:
            if self.db_url:
                raise ValueError(f"{self.name}: db_url and cachedb_url are both set: which one?")
            redis = getattr(await user.caches.open(self.cachedb_url), "redis", None)
            if redis is None:
                raise ValueError(f"{self.name}: cachedb_url must name a Redis: redis://127.0.0.1/")
            name = hide_password(self.cachedb_url)
            database = KeyTable(redis, name, self.cachedb_key_prefix, keys, columns, group)
            rows = await database.rows()
        elif self.db_url or user.globals.get("db_default_url"):
            database = await self.server.databases.open(self.db_url)
            await self.server.databases.check(database, self.db_table, version)
            found = await database.select(self.db_table, tuple(columns))
            rows = [dict(zip(found.columns, row, strict=True)) for row in found]
        else:
            return []
        self._queue = WriteQueue(database, user, self._lost)
        self.store = Store(
            self.db_table, keys, self._queue, rows_of, mode=self.db_mode, soon=lambda call: user.after(0, lambda _now: call())
        )
        if self.db_mode == LATER:
            self._later()
        return rows

    def _later(self) -> None:
        def due(_now: float) -> None:
            if self.store is not None:
                self.store.flush()
            self._later()

        self.server.user.after(self.update_period, due)

    def _lost(self, changes: Sequence[Change], reason: str) -> None:
        for change in changes:
            self.server.user.log_rarely((self.name, "rows"), -1, f"{self.name}: a row is not written ({change.kind}): {reason}")

    async def stop(self) -> None:
        """Write what is left to be written."""
        if self.store is not None and self._queue is not None:
            self.store.flush()
            await self._queue.close(STOP_PATIENCE)
