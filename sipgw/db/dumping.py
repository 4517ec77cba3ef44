"""``sipgw db dump`` and ``load``: rows as lines of JSON, the same from each kind of database.

A line that is an object begins a table: ``{"table": "subscriber", "version": 8, "columns": ["id", ...]}``. Each line that is a
list is a row of it. What JSON cannot say is an object: ``{"time": "2026-11-22 21:30:00"}``, ``{"base64": "..."}``."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from sipgw.db.errors import DatabaseError, Refused
from sipgw.db.making import create, version_of
from sipgw.db.schema import VERSION_TABLE, Table, tables
from sipgw.db.session import Store, wanted
from sipgw.interfaces import Value

__all__ = ["dump", "load"]

PAGE = 5000
"""Rows that are asked for at once."""


def dump(store: Store, names: Sequence[str] = ()) -> Iterator[str]:
    """The lines of the tables of ``names``, or of all that are there and known."""
    there = store.tables()
    known = tables()
    chosen = wanted(known, names) if names else [table for table in known.values() if table.name in there]
    for table in chosen:
        if table.name == VERSION_TABLE:
            continue
        if table.name not in there:
            raise Refused(f"{store.name} has no table {table.name}")
        columns = [column.name for column in store.columns(table.name)]
        yield json.dumps({"table": table.name, "version": version_of(store, table.name), "columns": columns})
        for row in _rows(store, table, columns):
            yield json.dumps([_encode(value) for value in row])


def _rows(store: Store, table: Table, columns: Sequence[str]) -> Iterator[Sequence[Any]]:
    """All rows, by pages where a key numbers them."""
    key = next((column.name.lower() for column in table.columns if column.key), "")
    if key not in columns:
        yield from store.select(table.name, columns).rows
        return
    position = columns.index(key)
    last: Value = None
    while True:
        page = store.select(table.name, columns, [] if last is None else [(key, ">", last)], key, PAGE).rows
        yield from page
        if len(page) < PAGE:
            return
        last = page[-1][position]


def _encode(value: Value) -> Any:
    if isinstance(value, datetime):
        return {"time": value.isoformat(" ")}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"base64": base64.b64encode(bytes(value)).decode()}
    return value


def load(store: Store, lines: Iterable[str], tell: Callable[[str], None] = lambda _line: None) -> int:
    """Add the rows of a dump, each table in one transaction, to tables that are empty or not there yet; how many rows."""
    total = 0
    reading = _Reading(lines)
    while (head := reading.head()) is not None:
        name, version, columns = head
        table = tables().get(name)
        if table is None or name == VERSION_TABLE:
            raise Refused(f"{name} is no table that sipgw knows")
        if version != table.version:
            raise Refused(f"{name}: the dump is of version {version}, sipgw's is {table.version}: migrate, then dump")
        create(store, [name])
        _check(store, table, columns)
        count = 0
        with store.transaction():
            for row in reading.rows(len(columns)):
                store.insert(name, {column: _fitting(table, column, value) for column, value in zip(columns, row, strict=True)})
                count += 1
            if count:
                store.settle(table)
        tell(f"{name}: {count} rows")
        total += count
    return total


def _check(store: Store, table: Table, columns: Sequence[str]) -> None:
    there = version_of(store, table.name)
    if there != table.version:
        raise Refused(f"{table.name}: {store.name} has version {there}, sipgw's is {table.version}: sipgw db migrate changes it")
    names = {column.name for column in store.columns(table.name)}
    strange = [column for column in columns if column.lower() not in names]
    if strange:
        raise Refused(f"{table.name}: {store.name} has no column {', '.join(strange)}: add it, or take it out of the dump")
    if store.select(table.name, (), (), "", 1).rows:
        raise Refused(f"{table.name}: {store.name} has rows in it already; rows are loaded into an empty table only")


def _fitting(table: Table, name: str, value: Value) -> Value:
    """``value`` as a column wants it; what is text in one database may be bytes in another."""
    column = table.column(name)
    kind = "" if column is None else column.kind
    if kind.endswith("blob"):
        return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if kind == "datetime" and isinstance(value, str):
        return datetime.fromisoformat(value)
    return value


class _Reading:
    """The lines of a dump, with their numbers."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        self._head: dict[str, Any] | None = None
        self._next()

    def _next(self) -> Any:
        """The next row; None where a table begins, or nothing more comes."""
        number, line = next(self._lines, (0, ""))
        self._head = None
        if not line:
            return None
        try:
            found = json.loads(line, object_hook=_decode)
        except ValueError as error:
            raise DatabaseError(f"line {number} of the dump is no JSON: {error}") from None
        if isinstance(found, dict):
            self._head = found
            return None
        if not isinstance(found, list):
            raise DatabaseError(f"line {number} of the dump is neither a table nor a row")
        return found

    def head(self) -> tuple[str, int | None, list[str]] | None:
        """The table that begins now."""
        if self._head is None:
            return None
        try:
            return str(self._head["table"]), self._head["version"], [str(column) for column in self._head["columns"]]
        except (KeyError, TypeError):
            raise DatabaseError("a table of the dump must have its name, version and columns") from None

    def rows(self, width: int) -> Iterator[list[Any]]:
        """Its rows."""
        while (row := self._next()) is not None:
            if len(row) != width:
                raise DatabaseError(f"a row of the dump has {len(row)} values, its table {width} columns")
            yield row


def _decode(found: dict[str, Any]) -> Any:
    if found.keys() == {"time"}:
        return datetime.fromisoformat(found["time"])
    if found.keys() == {"base64"}:
        return base64.b64decode(found["base64"], validate=True)
    return found
