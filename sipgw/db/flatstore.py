"""Databases that only grow, ``flatstore:/folder``: each row is a line at the end of a file, fields between a delimiter.

A row is answered when it is on disk (``flush``); rows that come while others are written go together with the next ones. Without
``flush`` the kernel has them then, and they outlive sipgw but not the machine. What is no printable ASCII in a text, a backslash
and the delimiter are written ``\\xHH``, times in seconds since 1970, NULL as nothing (as OpenSIPS does)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred

from sipgw.db.database import Result
from sipgw.db.errors import DatabaseError, Refused, Unavailable, Unsupported
from sipgw.db.threads import at_once
from sipgw.interfaces import Change, Value, Where

__all__ = ["FlatDatabase", "line_of"]

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def line_of(values: Sequence[Value], delimiter: str) -> bytes:
    """The line of one row."""
    return (delimiter.join(_field(value, delimiter) for value in values) + "\n").encode("ascii")


def _field(value: Value, delimiter: str) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return str(int(value.timestamp()))
    if isinstance(value, float):
        return f"{value:f}"
    if isinstance(value, int):
        return str(int(value))
    octets = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    plain = octets.decode("latin-1")
    if plain.isascii() and plain.isprintable() and "\\" not in plain and delimiter not in plain:
        return plain
    return "".join(f"\\x{ord(each):02X}" if not " " <= each <= "~" or each in ("\\", delimiter) else each for each in plain)


class FlatDatabase:
    """The files of one folder (``interfaces.Database``, of which it knows only how to insert).

    ``name_of(table)`` is the name of a file, as it is now; ``delimiter``: one character. ``in_thread`` calls a function
    elsewhere and gives a Deferred."""

    dialect = "flatstore"

    def __init__(
        self,
        folder: str,
        name_of: Callable[[str], str],
        *,
        delimiter: str = "|",
        flush: bool = True,
        in_thread: Callable[..., Any] = at_once,
    ) -> None:
        self.name = f"flatstore:{folder}"
        self.folder = Path(folder)
        self._name_of = name_of
        self._delimiter = delimiter
        self._flush = flush
        self._in_thread = in_thread
        self._files: dict[str, int] = {}
        self._waiting: list[tuple[list[tuple[str, bytes]], Deferred[None]]] = []
        self._busy = False
        self._turn = False

    async def start(self) -> None:
        """See whether the folder is there."""
        if not self.folder.is_dir():
            raise Unavailable(f"{self.name}: there is no folder {self.folder}")

    def rotate(self) -> None:
        """Let each file be opened anew at its next row, after it was moved away."""
        if self._busy:
            self._turn = True
        else:
            self._leave()

    def _leave(self) -> None:
        self._turn = False
        while self._files:
            os.close(self._files.popitem()[1])

    async def close(self) -> None:
        """Wait for what is under way, and leave the files."""
        if self._busy:
            await self._append([])
        self._leave()

    # ---- interfaces.Database ----

    async def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""
        await self.batch([Change("insert", table, values)])

    async def batch(self, changes: Sequence[Change]) -> None:
        """Add rows; those of one table stand together."""
        lines: list[tuple[str, bytes]] = []
        for change in changes:
            if change.kind != "insert":
                self._only_inserts()
            if _TABLE.fullmatch(change.table) is None:
                raise Refused(f"{change.table!r} cannot be the name of a table")
            lines.append((change.table, line_of([*change.values.values()], self._delimiter)))
        if lines:
            await self._append(lines)

    def _only_inserts(self) -> NoReturn:
        raise Unsupported(f"{self.name}: rows are only added to it, by insert")

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Result:
        """Nothing: ``Unsupported``."""
        self._only_inserts()

    async def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Nothing: ``Unsupported``."""
        self._only_inserts()

    async def delete(self, table: str, where: Where) -> int:
        """Nothing: ``Unsupported``."""
        self._only_inserts()

    async def replace(self, table: str, values: Mapping[str, Value], keys: Sequence[str]) -> None:
        """Nothing: ``Unsupported``."""
        self._only_inserts()

    async def query(self, text: str, values: Sequence[Value] = ()) -> Result:
        """Nothing: ``Unsupported``."""
        self._only_inserts()

    def quote(self, text: str) -> str:
        """Nothing needs to be quoted."""
        return text

    # ---- files ----

    async def _append(self, lines: list[tuple[str, bytes]]) -> None:
        done: Deferred[None] = Deferred()
        self._waiting.append((lines, done))
        if not self._busy:
            self._busy = True
            ensureDeferred(self._work())
        await done

    async def _work(self) -> None:
        """Write what waits, until nothing does."""
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                if self._turn:
                    self._leave()
                error: DatabaseError | None = None
                try:
                    texts: dict[str, list[bytes]] = {}
                    for lines, _ in waiting:
                        for table, line in lines:
                            texts.setdefault(table, []).append(line)
                    writes = [(self._file(table), b"".join(found)) for table, found in texts.items()]
                    await maybeDeferred(self._in_thread, _write, writes, self._flush)
                except Exception as reason:
                    self._leave()
                    error = Unavailable(f"{self.name}: {reason}")
                for _, done in waiting:
                    if error is None:
                        done.callback(None)
                    else:
                        done.errback(error)
        finally:
            self._busy = False
        if self._turn:
            self._leave()

    def _file(self, table: str) -> int:
        found = self._files.get(table)
        if found is None:
            name = self.folder / self._name_of(table)
            found = self._files[table] = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return found


def _write(writes: Sequence[tuple[int, bytes]], flush: bool) -> None:
    """Append to files, each in one piece; in a thread. Where one cannot be written, what the others got is taken off again."""
    sizes = [(file, os.fstat(file).st_size) for file, _ in writes]
    try:
        for file, text in writes:
            if os.write(file, text) != len(text):
                raise OSError("the disk is full")
        for file, _ in writes if flush else ():
            os.fsync(file)
    except OSError:
        for file, size in sizes:
            os.ftruncate(file, size)
        raise
