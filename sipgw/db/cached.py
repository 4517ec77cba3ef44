"""The tables of OpenSIPS in a store of hashes, ``cachedb://redis:group`` (db_cachedb): a hash for each table, a field for each
row.

The name of a field is the JSON list of what is unique about its row (``["alice", "example.org"]`` of a subscriber), or its
number; its value the JSON object of what is not NULL in it. Columns, defaults and kinds are those of ``tables.txt``; the versions
of tables, too, unless the table ``version`` has another one. Tables that are not there cannot be used.

What is asked by all that is unique is one read; anything else reads the whole table. Changes are computed here and made by one
script in the store, which compares each row with what was read: if somebody was faster they are computed anew, so that a batch
is done as a whole or not at all, on whatever machines others change the same rows. Of several unique keys of a table the first
one is kept."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sipgw.db.database import Result
from sipgw.db.errors import Duplicate, Refused, Unavailable, Unsupported
from sipgw.db.schema import VERSION_TABLE, Table, tables
from sipgw.db.text_table import Row, TextTable, definition, read_table
from sipgw.interfaces import Change, Value, Where

__all__ = ["CachedDatabase", "Hashes", "Swap"]

TRIES = 30
"""How often changes are computed while others change the same rows."""
COUNTER = "#"
"""The field that counts the rows of a table."""


@dataclass(frozen=True)
class Swap:
    """A change of one field: from the text it has, to another; None: it is not there."""

    table: str
    field: str
    old: str | None
    new: str | None


class Hashes(Protocol):
    """What is asked of the store; all raise ``Unavailable`` if it cannot be asked."""

    async def read(self, table: str, fields: Sequence[str] | None) -> Mapping[str, str]:
        """The fields of a hash that are there, of those asked for, or all."""

    async def swap(self, swaps: Sequence[Swap]) -> bool:
        """Make all changes, if each field is as it is said to be; whether they were made."""

    async def count(self, table: str) -> int:
        """The next number of a row."""


@dataclass
class _Part:
    """What is known of one table within a batch."""

    known: Table
    table: TextTable
    unique: tuple[str, ...]
    before: dict[str, str | None] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    whole: bool = False

    def field_of(self, row: Row) -> str:
        """The name of the field of a row."""
        return json.dumps([row[self.table.place(name)] for name in self.unique])

    def field_for(self, where: Where) -> str | None:
        """The one field that ``where`` can mean; None if it may mean others."""
        terms = [(name, "=", value) for name, value in where.items()] if isinstance(where, Mapping) else where
        equal = {name.lower(): value for name, operator, value in terms if operator == "=" and value is not None}
        if any(name.lower() not in equal for name in self.unique):
            return None
        return json.dumps([self.table.columns[self.table.place(name)].fit(equal[name.lower()]) for name in self.unique])

    def take(self, found: Mapping[str, str]) -> None:
        """Note fields that were read."""
        for name, text in found.items():
            if name != COUNTER and name not in self.before:
                self.before[name] = text
                values = json.loads(text)
                self.rows[name] = tuple(values.get(column.name.lower()) for column in self.table.columns)

    def text(self, row: Row) -> str:
        """The value of the field of a row."""
        pairs = zip(self.table.columns, row, strict=True)
        return json.dumps({column.name.lower(): value for column, value in pairs if value is not None})

    def of(self, rows: Sequence[Row]) -> TextTable:
        """A table with these rows."""
        made = TextTable(self.known.name, self.table.columns)
        made.restore([*rows])
        return made


class CachedDatabase:
    """The tables in one store (``interfaces.Database``)."""

    dialect = "cachedb"

    def __init__(self, name: str, open_store: Callable[[], Awaitable[Hashes]]) -> None:
        self.name = name
        self._open = open_store
        self._store: Hashes

    async def start(self) -> None:
        """Take the store."""
        self._store = await self._open()

    def _part(self, name: str) -> _Part:
        known = tables().get(name)
        if known is None:
            raise Refused(f"{self.name}: {name} is no table of OpenSIPS, so nobody knows its columns")
        unique = next((index.columns for index in known.indexes if index.unique), ())
        unique = unique or tuple(column.name for column in known.columns if column.key)
        return _Part(known, read_table(name, definition(known), known), unique)

    async def _need(self, part: _Part, name: str | None) -> None:
        """Have one field, or all of them."""
        if part.whole or name in part.before:
            return
        part.take(await self._store.read(part.known.name, None if name is None else [name]))
        if name is None:
            part.whole = True
        else:
            part.before.setdefault(name, None)

    # ---- interfaces.Database ----

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Result:
        """The rows of ``table``."""
        part = self._part(table)
        await self._need(part, part.field_for(where))
        names, rows = part.of([*part.rows.values()]).select(columns, where, order, limit)
        if table == VERSION_TABLE and not rows:
            versions = [(known.name, known.version) for known in tables().values()]
            names, rows = part.of(versions).select(columns, where, order, limit)
        return Result(names, rows)

    async def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""
        await self._do([Change("insert", table, values)])

    async def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many."""
        return (await self._do([Change("update", table, values, where)]))[0]

    async def delete(self, table: str, where: Where) -> int:
        """Delete rows; how many."""
        return (await self._do([Change("delete", table, where=where)]))[0]

    async def replace(self, table: str, values: Mapping[str, Value], keys: Sequence[str]) -> None:
        """Add one row, or change the one that has the same ``keys``."""
        await self._do([Change("replace", table, values, keys=keys)])

    async def batch(self, changes: Sequence[Change]) -> None:
        """Do all of ``changes``, or none."""
        await self._do(changes)

    async def query(self, text: str, values: Sequence[Value] = ()) -> Result:
        """Nothing: there is no language to ask in."""
        raise Unsupported(f"{self.name}: a key-value store knows no SQL")

    def quote(self, text: str) -> str:
        """Nothing needs to be quoted."""
        return text

    # ---- changes ----

    async def _do(self, changes: Sequence[Change]) -> list[int]:
        """Make changes, all or none; how many rows each has touched."""
        for _ in range(TRIES):
            parts: dict[str, _Part] = {}
            counts: list[int] = []
            for change in changes:
                part = parts.setdefault(change.table, self._part(change.table))
                counts.append(await self._change(part, change))
            swaps = [swap for part in parts.values() for swap in _swaps(part)]
            if not swaps or await self._store.swap(swaps):
                return counts
        raise Unavailable(f"{self.name}: others change the same rows all the time")

    async def _change(self, part: _Part, change: Change) -> int:
        if change.kind == "insert":
            await self._insert(part, change.values)
            return 1
        if change.kind == "update":
            return await self._update(part, change.values, change.where)
        if change.kind == "delete":
            return await self._delete(part, change.where)
        if change.kind != "replace":
            raise Refused(f"{change.kind!r} is no change")
        count = await self._update(part, change.values, {key: change.values[key] for key in change.keys})
        if not count:
            await self._insert(part, change.values)
        return count or 1

    async def _insert(self, part: _Part, values: Mapping[str, Value]) -> None:
        given = {name.lower() for name in values}
        for column in part.table.columns:
            if column.auto and column.name.lower() not in given:
                values = {**values, column.name: await self._store.count(part.known.name)}
        made = part.of([])
        made.insert(values)
        await self._put(part, made.rows[0])

    async def _put(self, part: _Part, row: Row) -> None:
        name = part.field_of(row)
        await self._need(part, name)
        if name in part.rows:
            raise Duplicate(f"{part.known.name} has a row {name} already")
        part.rows[name] = row

    async def _update(self, part: _Part, values: Mapping[str, Value], where: Where) -> int:
        await self._need(part, part.field_for(where))
        names = [*part.rows]
        made = part.of([*part.rows.values()])
        count = made.update(values, where)
        for name, row in zip(names, made.rows, strict=True):
            if row != part.rows[name]:
                if part.field_of(row) == name:
                    part.rows[name] = row
                else:
                    del part.rows[name]
                    await self._put(part, row)
        return count

    async def _delete(self, part: _Part, where: Where) -> int:
        await self._need(part, part.field_for(where))
        meant = part.table.matching(where)
        gone = [name for name, row in part.rows.items() if meant(row)]
        for name in gone:
            del part.rows[name]
        return len(gone)


def _swaps(part: _Part) -> list[Swap]:
    """What is to be changed in the store."""
    found: list[Swap] = []
    for name, old in part.before.items():
        new = part.text(part.rows[name]) if name in part.rows else None
        if new != old:
            found.append(Swap(part.known.name, name, old, new))
    for name, row in part.rows.items():
        if name not in part.before:
            found.append(Swap(part.known.name, name, None, part.text(row)))
    return found
