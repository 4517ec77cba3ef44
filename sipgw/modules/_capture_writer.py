"""Rows of sipcapture on their way into a database: in order, together, and bounded in number and in octets.

A database that is away, slow or full costs rows, which are counted, never memory and never the time of a message."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sipgw.db.writes import Entry, WriteQueue
from sipgw.interfaces import Change, Database, Value

MOST_ROWS = 20_000
MOST_OCTETS = 64 << 20
"""What may wait for the database."""
ROW = 5000
"""What a row takes in memory beside its message, about."""
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,63}(\.[A-Za-z_][A-Za-z0-9_$]{0,63})?")


def table_at(pattern: str, now: float) -> str:
    """The name of a table at a time: what stands behind the first % is written as ``strftime`` does, in UTC. ``ValueError`` if
    that is no name of a table."""
    before, percent, rest = pattern.partition("%")
    name = before + time.strftime(percent + rest, time.gmtime(now)) if percent else pattern
    if not _TABLE.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a table")
    return name


def check_table(pattern: str) -> None:
    """Refuse what never is the name of a table."""
    table_at(pattern, 0.0)


class Writer:
    """Writes rows into ``database``; ``group``: how many in one transaction."""

    def __init__(self, database: Database, user: Any, group: int) -> None:
        self.lost = 0
        """Rows that were not written."""
        self._user = user
        self._octets = 0
        self._queue = WriteQueue(database, user, self._refused, MOST_ROWS, group)

    def write(self, table: str, row: Mapping[str, Value]) -> bool:
        """Let one row be written; False if too many wait."""
        size = ROW + sum(len(value) for value in row.values() if isinstance(value, str))
        if len(self._queue) >= MOST_ROWS or self._octets + size > MOST_OCTETS:
            self._refused((), f"{len(self._queue)} rows wait for the database")
            return False
        self._octets += size
        self._queue.add(Entry((Change("insert", table, row),), done=self._freed(size)))
        return True

    def _freed(self, size: int) -> Callable[[], None]:
        def freed() -> None:
            self._octets -= size

        return freed

    def _refused(self, changes: Sequence[Change], reason: str) -> None:
        self.lost += 1
        table = changes[0].table if changes else ""
        self._user.log_rarely(("sipcapture", table), 1, f"sipcapture: a row {f'of {table} ' * bool(table)}is lost: {reason}")

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._queue)

    async def close(self) -> None:
        """Write what waits, if the database takes it soon."""
        await self._queue.close(0.5)
