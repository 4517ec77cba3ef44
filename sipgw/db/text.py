"""Databases in folders of text files, ``text:///folder`` (db_text): in memory, and each change is on disk when it is answered.

Changes that come while a file is written are written together with the next ones (each writing replaces the file in one step:
whoever reads it sees the old rows or the new ones). OpenSIPS writes when it stops, or is told to; what happened since then is
gone with a crash. A batch over two tables is two files: after a crash between them one may have it and the other not."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred

from sipgw.db.database import Result
from sipgw.db.errors import DatabaseError, Refused, Unavailable, Unsupported
from sipgw.db.schema import tables
from sipgw.db.text_table import Row, TextTable, read_table
from sipgw.db.threads import at_once
from sipgw.interfaces import Change, Value, Where

__all__ = ["TextDatabase", "folder_of"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def folder_of(url: str, base: str = "") -> str:
    """The folder of ``text:///folder``; one without a slash before it is in ``base``."""
    path = url.partition(":")[2].removeprefix("//")
    if not path.strip("/"):
        raise DatabaseError(f"{url!r} names no folder: write text:///path/to/folder")
    return os.path.join(base, path)


class TextDatabase:
    """The tables of one folder (``interfaces.Database``).

    ``fresh``: whether a file is looked at before each use, and read again if it has changed (``db_mode`` 1). ``in_thread``
    calls a function elsewhere and gives a Deferred."""

    dialect = "text"

    def __init__(self, folder: str, *, fresh: bool = False, in_thread: Callable[..., Any] = at_once) -> None:
        self.name = f"text://{folder}"
        self.folder = Path(folder)
        self._fresh = fresh
        self._in_thread = in_thread
        self._tables: dict[str, tuple[TextTable, float]] = {}
        self._waiting: list[tuple[Sequence[Change], Deferred[list[int]]]] = []
        self._busy = False

    async def start(self) -> None:
        """See whether the folder is there."""
        if not self.folder.is_dir():
            raise Unavailable(f"{self.name}: there is no folder {self.folder}")

    async def close(self) -> None:
        """Wait until what was begun is written."""
        if self._busy:
            await self._do([])

    def loaded(self) -> list[str]:
        """The tables that have been read."""
        return [*self._tables]

    def reload(self, table: str = "") -> None:
        """Read tables again; one that cannot be read stays as it is, and a ``DatabaseError`` says so."""
        names = [table] if table else self.loaded()
        read = {name: self._read(name) for name in names}
        self._tables.update(read)

    def table(self, name: str) -> TextTable:
        """A table, from memory or its file."""
        found = self._tables.get(name)
        if found is None or (self._fresh and self._changed(name) != found[1]):
            found = self._tables[name] = self._read(name)
        return found[0]

    def _file(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise Refused(f"{name!r} cannot be the name of a table")
        return self.folder / name

    def _changed(self, name: str) -> float:
        """When the file was changed; what is being written has not changed for others."""
        try:
            return self._tables[name][1] if self._busy else self._file(name).stat().st_mtime
        except OSError:
            return 0.0

    def _read(self, name: str) -> tuple[TextTable, float]:
        file = self._file(name)
        try:
            changed = file.stat().st_mtime
            text = file.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise Refused(f"{self.name}: there is no table {name}: {error.strerror}") from None
        try:
            return read_table(name, text, tables().get(name)), changed
        except ValueError as error:
            raise Refused(f"{file}: {error}") from None

    # ---- interfaces.Database ----

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Result:
        """The rows of ``table``."""
        return Result(*self.table(table).select(columns, where, order, limit))

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
        if changes:
            await self._do(changes)

    async def query(self, text: str, values: Sequence[Value] = ()) -> Result:
        """Nothing: there is no language to ask in."""
        raise Unsupported(f"{self.name}: text files know no SQL")

    def quote(self, text: str) -> str:
        """Nothing needs to be quoted."""
        return text

    # ---- changes ----

    async def _do(self, changes: Sequence[Change]) -> list[int]:
        """Let changes be made, and wait until they are on disk; how many rows each has touched."""
        answer: Deferred[list[int]] = Deferred()
        self._waiting.append((changes, answer))
        if not self._busy:
            self._busy = True
            ensureDeferred(self._work())
        return await answer

    async def _work(self) -> None:
        """Make the changes that wait, write the files, answer; until none waits."""
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                self._refresh()
                before: dict[str, list[Row]] = {}
                done: list[tuple[Deferred[list[int]], list[int]]] = []
                for changes, answer in waiting:
                    try:
                        done.append((answer, self._apply(changes, before)))
                    except Exception as error:
                        answer.errback(error)
                await self._write(before, done)
        finally:
            self._busy = False

    def _refresh(self) -> None:
        """Read again what somebody else has changed, where that is wanted; nothing is being written now."""
        for name, (_, noted) in [*self._tables.items()] if self._fresh else ():
            if self._file(name).exists() and self._file(name).stat().st_mtime != noted:
                self._tables[name] = self._read(name)

    def _apply(self, changes: Sequence[Change], before: dict[str, list[Row]]) -> list[int]:
        """Make changes in memory, all or none; ``before`` receives the rows that were there."""
        mine: dict[str, list[Row]] = {}
        counts: list[int] = []
        try:
            for change in changes:
                table = self.table(change.table)
                mine.setdefault(change.table, [*table.rows])
                counts.append(_change(table, change))
        except BaseException:
            for name, rows in mine.items():
                self.table(name).restore(rows)
            raise
        for name, rows in mine.items():
            before.setdefault(name, rows)
        return counts

    async def _write(self, before: Mapping[str, list[Row]], done: Iterable[tuple[Deferred[list[int]], list[int]]]) -> None:
        """Write the tables of ``before``, answer all that are ``done``; where that fails, the files count."""
        try:
            for name in before:
                table = self._tables[name][0]
                changed = await maybeDeferred(self._in_thread, _save, self._file(name), "".join(table.lines()))
                self._tables[name] = (table, changed)
        except Exception as error:
            for name in before:
                del self._tables[name]
            for answer, _ in done:
                answer.errback(Unavailable(f"{self.name}: {error}"))
            return
        for answer, counts in done:
            answer.callback(counts)


def _change(table: TextTable, change: Change) -> int:
    """Make one change; how many rows it has touched."""
    if change.kind == "insert":
        table.insert(change.values)
        return 1
    if change.kind == "update":
        return table.update(change.values, change.where)
    if change.kind == "delete":
        return table.delete(change.where)
    if change.kind != "replace":
        raise Refused(f"{change.kind!r} is no change")
    where = {key: change.values[key] for key in change.keys}
    count = table.update(change.values, where)
    if not count:
        table.insert(change.values)
    return count or 1


def _save(file: Path, text: str) -> float:
    """Replace a file in one step, on disk when this returns; when it was changed."""
    new = file.with_name(f".{file.name}.new")
    mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
    with open(os.open(new, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, mode), "wb") as output:
        output.write(text.encode("utf-8", "surrogateescape"))
        output.flush()
        os.fsync(output.fileno())
    os.replace(new, file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return file.stat().st_mtime
