"""A folder of text files for the tools of the command line (``session.Store``)."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from sipgw.db.connections import Answer
from sipgw.db.errors import DatabaseError, Unavailable
from sipgw.db.schema import Table
from sipgw.db.session import Found
from sipgw.db.text import TextDatabase, folder_of
from sipgw.db.text_table import definition
from sipgw.interfaces import Change, Value, Where

__all__ = ["TextSession"]

T = TypeVar("T")


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that needs not wait: without threads a file is written at once."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("a text database waits")


class TextSession:
    """One folder."""

    dialect = "text"

    def __init__(self, url: str, *, create: bool = False) -> None:
        folder = folder_of(url)
        if create:
            try:
                os.makedirs(folder, 0o700, exist_ok=True)
            except OSError as error:
                raise DatabaseError(f"{folder} cannot be made: {error.strerror}") from error
        self._database = TextDatabase(folder)
        _at_once(self._database.start())
        self.name = self._database.name
        self._changes: list[Change] | None = None
        """What is to be done at the end of a transaction."""

    def tables(self) -> set[str]:
        """The files of the folder."""
        return {file.name for file in self._database.folder.iterdir() if file.is_file() and not file.name.startswith(".")}

    def columns(self, table: str) -> list[Found]:
        """The columns of a table."""
        if table not in self.tables():
            return []
        found = self._database.table(table).columns
        return [Found(column.name.lower(), column.kind, column.null or column.auto, None) for column in found]

    def create(self, table: Table) -> None:
        """Make a file that is not there."""
        file = self._database.folder / table.name
        try:
            with open(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as output:
                output.write(definition(table))
        except OSError as error:
            raise Unavailable(f"{file}: {error.strerror}") from error

    def select(self, table: str, columns: Sequence[str] = (), where: Where = (), order: str = "", limit: int = 0) -> Answer:
        """Rows of a table."""
        found = _at_once(self._database.select(table, columns, where, order=order, limit=limit))
        return Answer(found.columns, [*found], len(found))

    def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""
        self._change(Change("insert", table, values))

    def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many, unless a transaction is under way."""
        if self._changes is not None:
            return self._change(Change("update", table, values, where))
        return _at_once(self._database.update(table, values, where))

    def delete(self, table: str, where: Where) -> int:
        """Delete rows; how many, unless a transaction is under way."""
        if self._changes is not None:
            return self._change(Change("delete", table, where=where))
        return _at_once(self._database.delete(table, where))

    def _change(self, change: Change) -> int:
        if self._changes is None:
            _at_once(self._database.batch([change]))
        else:
            self._changes.append(change)
        return 0

    def settle(self, table: Table) -> None:
        """Nothing: numbers go on after the largest."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is changed in it is written at its end."""
        self._changes = []
        try:
            yield
            changes, self._changes = self._changes, None
            _at_once(self._database.batch(changes))
        finally:
            self._changes = None

    def close(self) -> None:
        """Nothing: files are closed."""
