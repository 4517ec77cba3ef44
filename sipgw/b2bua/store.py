"""What outlives the server of back-to-back calls: ``Store`` keeps the rows of one table in step with the sessions that there are.

Nobody says what has changed, only that something has: the rows of a session are made anew and compared with those that were
written. ``KeyTable`` is such a table in a Redis, by the names and in the form in which OpenSIPS keeps it there."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from sipgw.db.errors import DatabaseError, Unavailable, Unsupported
from sipgw.db.writes import Entry, WriteQueue
from sipgw.interfaces import Change, Rows, Where
from sipgw.interfaces import Value as Stored
from sipgw.redis.errors import RedisFault, Refused

NEVER, AT_ONCE, LATER = range(3)
"""``db_mode``: nothing is stored; each change is written when it happens; every ``update_period`` seconds, and when the server
stops."""
Row = dict[str, Stored]


class Store:
    """The rows of one table. ``rows_of(session)``: those that a session should have, by their keys; ``keys``: the columns by
    which a row is known; ``soon``: calls something in the next turn of the reactor."""

    def __init__(
        self, table: str, keys: Sequence[str], queue: WriteQueue, rows_of: Callable[[Any], Mapping[str, Row]], *, mode: int,
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self.table = table
        self.queue = queue
        self._keys = tuple(keys)
        self._rows_of = rows_of
        self._at_once = mode == AT_ONCE
        self._soon = soon
        self._changed: dict[Any, None] = {}
        self._written: dict[Any, dict[str, Row]] = {}
        """What was given to the queue."""
        self._pending: dict[tuple[Stored, ...], Entry] = {}

    def loaded(self, session: Any, rows: Mapping[str, Row]) -> None:
        """A session that goes on has those rows already."""
        self._written[session] = dict(rows)

    def changed(self, session: Any) -> None:
        """Something of a session may have changed."""
        if self._at_once and not self._changed:
            self._soon(self.flush)
        self._changed[session] = None

    def ended(self, session: Any) -> None:
        """A session is over: its rows go."""
        self._changed.pop(session, None)
        for row in self._written.pop(session, {}).values():
            self.delete(row)

    def flush(self) -> None:
        """Write what has changed."""
        changed, self._changed = self._changed, {}
        news = [(session, self._written.get(session, {}), self._rows_of(session)) for session in changed]
        for _session, before, after in news:
            for key, row in before.items():
                if key not in after or self._name(after[key]) != self._name(row):
                    self.delete(row)
        for session, before, after in news:  # a row may have moved from one to another
            for key, row in after.items():
                if before.get(key) != row:
                    self._replace(row)
            if after:
                self._written[session] = dict(after)
            else:
                self._written.pop(session, None)

    def _name(self, row: Row) -> tuple[Stored, ...]:
        return tuple(row[name] for name in self._keys)

    def _replace(self, row: Row) -> None:
        self._put(row, Change("replace", self.table, row, (), self._keys))

    def delete(self, row: Row) -> None:
        """Take a row out."""
        self._put(row, Change("delete", self.table, {}, {name: row[name] for name in self._keys}))

    def _put(self, row: Row, change: Change) -> None:
        name = self._name(row)
        entry = self._pending.get(name)
        if entry is not None and not entry.taken:
            entry.changes = (change,)
            return
        entry = self._pending[name] = Entry((change,))
        made = entry
        entry.done = lambda: self._done(name, made)
        self.queue.add(entry)

    def _done(self, name: tuple[Stored, ...], entry: Entry) -> None:
        if self._pending.get(name) is entry:
            del self._pending[name]


class Redis(Protocol):
    """What is asked of a Redis (``sipgw.redis.client.Redis``)."""

    async def command(self, *arguments: Any, again: bool = False, limit: float = 0) -> Any:
        """Send one command."""

    async def keys(self, pattern: str, count: int = 1000) -> list[str]:
        """All keys that fit a pattern."""


class KeyTable:
    """A table in a Redis, as much of a ``Database`` as a ``WriteQueue`` needs.

    A row is a hash; before each value stands its kind: 0 null, 1 a text, 2 a number. The key of a row is ``prefix`` and the
    values of ``keys`` with ``$`` between them; ``group``: the column whose value names a set of the keys that have it."""

    dialect = "redis"

    def __init__(
        self, redis: Redis, name: str, prefix: str, keys: Sequence[str], columns: Sequence[str], group: str = ""
    ) -> None:
        self.name = name
        self._redis = redis
        self._prefix = prefix
        self._keys = tuple(keys)
        self._columns = tuple(columns)
        self._group = group

    def _key(self, values: Mapping[str, Any]) -> str:
        return self._prefix + "$".join(str(values[name]) for name in self._keys)

    async def _ask(self, *arguments: Any) -> Any:
        try:
            return await self._redis.command(*arguments, again=True)
        except Refused as error:
            raise DatabaseError(f"{self.name}: {error}") from None
        except RedisFault as error:
            raise Unavailable(f"{self.name}: {error}") from None

    async def replace(self, table: str, values: Mapping[str, Stored], keys: Sequence[str]) -> None:
        """Write a row."""
        fields = [part for name, value in values.items() for part in (name, _written(value))]
        key = self._key(values)
        await self._ask("HSET", key, *fields)
        if self._group:
            await self._ask("SADD", self._prefix + str(values[self._group]), key)

    async def delete(self, table: str, where: Where) -> int:
        """Take a row out."""
        assert isinstance(where, Mapping)
        key = self._key(where)
        if self._group:
            group = _read(await self._ask("HGET", key, self._group))
            if group is not None:
                await self._ask("SREM", self._prefix + str(group), key)
        return int(await self._ask("DEL", key))

    async def rows(self) -> list[Row]:
        """All rows."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix)
        try:
            keys = await self._redis.keys(f"{pattern}*")
        except RedisFault as error:
            raise Unavailable(f"{self.name}: {error}") from None
        rows = []
        for key in keys:
            try:
                reply = await self._ask("HGETALL", key)
            except Unavailable:
                raise
            except DatabaseError:
                continue  # a set of keys, or something of somebody else
            found = dict(zip(reply[::2], reply[1::2], strict=True))
            if all(name in found for name in self._keys):
                rows.append({name: _read(found.get(name)) for name in self._columns})
        return rows

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Rows:
        """All are read at once, by ``rows``."""
        raise Unsupported(f"{self.name} has no columns to be chosen")

    async def insert(self, table: str, values: Mapping[str, Stored]) -> None:
        """It is the same here."""
        await self.replace(table, values, ())

    async def update(self, table: str, values: Mapping[str, Stored], where: Where) -> int:
        """Nobody changes a part of a row."""
        raise Unsupported(f"{self.name} keeps whole rows")

    async def batch(self, changes: Sequence[Change]) -> None:
        """Rows are written one after another."""
        raise Unsupported(f"{self.name} knows no transactions")

    async def query(self, text: str, values: Sequence[Stored] = ()) -> Rows:
        """There is no such language."""
        raise Unsupported(f"{self.name} takes no statements")

    def quote(self, text: str) -> str:
        """There are no statements."""
        return text


NULL: Final = "0"
TEXT: Final = "1"
NUMBER: Final = "2"


def _written(value: Stored) -> bytes:
    if value is None:
        return NULL.encode()
    if isinstance(value, int):
        return f"{NUMBER}{value}".encode()
    return TEXT.encode() + (value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape"))


def _read(value: Any) -> Stored:
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if not text or not isinstance(text, str) or text[0] == NULL:
        return None
    if text[0] == NUMBER and re.fullmatch(r"-?[0-9]{1,18}", text[1:]):
        return int(text[1:])
    return text[1:]
