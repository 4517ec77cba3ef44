"""A database in memory for tests of what writes and reads: it can be down, slow, refuse, and break after it has written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.db.errors import Refused, Unavailable, Unsupported
from sipgw.interfaces import Change, Rows, Value, Where


class MemoryRows:
    """What a select gave."""

    def __init__(self, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        self.columns = columns
        self._rows = rows

    def __iter__(self) -> Any:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._rows[index]


_COMPARE = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b, ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}


class MemoryDatabase:
    """Tables as lists of dicts. ``down``: it cannot be asked. ``breaks``: it writes, and cannot be asked then. ``slow``: it
    answers when ``answer`` is called. ``longest``: texts longer than that are refused. ``atomic``: it knows transactions."""

    def __init__(self, dialect: str = "memory") -> None:
        self.name = f"{dialect}:"
        self.dialect = dialect
        self.tables: dict[str, list[dict[str, Value]]] = {}
        self.down = self.breaks = self.slow = False
        self.atomic = True
        self.longest = 1000
        self.batches: list[int] = []
        """How many changes each transaction had."""
        self._waiting: list[Deferred[None]] = []

    def answer(self) -> None:
        """Let go what waits."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def _asked(self) -> None:
        if self.slow:
            waiting: Deferred[None] = Deferred()
            self._waiting.append(waiting)
            await waiting
        if self.down:
            raise Unavailable("memory: is down")

    def _matches(self, row: Mapping[str, Value], where: Where) -> bool:
        terms = [(name, "=", value) for name, value in where.items()] if isinstance(where, Mapping) else where
        return all(_COMPARE[operator](row.get(name), value) for name, operator, value in terms)

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Rows:
        await self._asked()
        found = [row for row in self.tables.get(table, []) if self._matches(row, where)]
        if order:
            found.sort(key=lambda row: row[order])  # type: ignore[arg-type,return-value]
        names = list(columns) or sorted({name for row in found for name in row})
        return MemoryRows(names, [tuple(row.get(name) for name in names) for row in found[: limit or None]])

    def _change(self, tables: dict[str, list[dict[str, Value]]], change: Change) -> int:
        kind, table, values, where, keys = change
        for value in values.values():
            if isinstance(value, str | bytes) and len(value) > self.longest:
                raise Refused(f"{self.name} value too long for {table}")
        rows = tables.setdefault(table, [])
        if kind == "replace":
            where = {key: values[key] for key in keys}
        found = [row for row in rows if kind != "insert" and self._matches(row, where)]
        if kind == "delete":
            tables[table] = [row for row in rows if row not in found]
        elif kind == "insert" or (kind == "replace" and not found):
            rows.append(dict(values))
        else:
            for row in found:
                row.update(values)
        return len(found)

    async def _write(self, changes: Sequence[Change]) -> int:
        await self._asked()
        copy = {name: [dict(row) for row in rows] for name, rows in self.tables.items()}
        count = sum(self._change(copy, change) for change in changes)
        self.tables = copy
        if self.breaks:
            self.breaks, self.down = False, True
            raise Unavailable("memory: broke off")
        return count

    async def insert(self, table: str, values: Mapping[str, Value]) -> None:
        await self._write([Change("insert", table, values)])

    async def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        return await self._write([Change("update", table, values, where)])

    async def delete(self, table: str, where: Where) -> int:
        return await self._write([Change("delete", table, {}, where)])

    async def replace(self, table: str, values: Mapping[str, Value], keys: Sequence[str]) -> None:
        await self._write([Change("replace", table, values, (), keys)])

    async def batch(self, changes: Sequence[Change]) -> None:
        if not self.atomic:
            raise Unsupported("memory: knows no transactions")
        self.batches.append(len(changes))
        await self._write(changes)

    async def query(self, text: str, values: Sequence[Value] = ()) -> Rows:
        raise Unsupported("memory: speaks no language")

    def quote(self, text: str) -> str:
        return text.replace("'", "''")


class MemoryDatabases:
    """The databases of a server: one in memory, whose tables have any version."""

    def __init__(self) -> None:
        self.database = MemoryDatabase()
        self.checked: list[tuple[str, int]] = []

    def add(self, scheme: str, engine: Any) -> None:
        """Take no engine."""

    async def open(self, url: str) -> MemoryDatabase:
        """The one."""
        return self.database

    async def check(self, database: Any, table: str, version: int) -> None:
        """Note it."""
        self.checked.append((table, version))
