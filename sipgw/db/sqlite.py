"""SQLite behind ``sqlite:///path``: many connections that read, one that writes.

Each commit is on disk when it returns (WAL with ``synchronous = FULL``), readers and the writer do not hold one another up, and
since all changes go through one connection, none of ours ever meets "database is locked" by another of ours: OpenSIPS with two
workers lost most of what it had acknowledged that way."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sipgw.db.connections import Answer, Link
from sipgw.db.database import Index
from sipgw.db.databases import hide_password
from sipgw.db.errors import DatabaseError, Duplicate, Refused, Unavailable
from sipgw.db.statements import Statements, checked, time_text
from sipgw.interfaces import Value

__all__ = ["SqliteEngine", "SqliteSettings", "file_of"]

_BUSY = 5
_LOCKED = 6
_TRANSIENT = {_BUSY, _LOCKED, 7, 8, 9, 10, 11, 13, 14, 26}
"""Primary result codes that say something about the database, not about the statement: sqlite.org/rescode.html."""
_UNIQUE = {1555, 2067, 2579}
"""Extended codes of a key that is there already."""


def file_of(url: str) -> str:
    """The file of ``sqlite:///path``. As in OpenSIPS the path is from the root whether two slashes stand there or three, and
    nothing in it is escaped; without slashes it is from the working directory."""
    rest = url.partition(":")[2]
    if not rest.strip("/"):
        raise DatabaseError(f"{url!r} names no file: write sqlite:///path/to/file")
    return "/" + rest.lstrip("/") if rest.startswith("/") else rest


def _time(text: bytes) -> datetime | str:
    """What a column of times holds; the text itself if it is no time."""
    try:
        return datetime.fromisoformat(text.decode())
    except ValueError:
        return text.decode(errors="replace")


sqlite3.register_converter("datetime", _time)
sqlite3.register_converter("timestamp", _time)
sqlite3.register_converter("date", bytes.decode)
sqlite3.register_converter("blob", bytes)


def _bound(value: Value) -> Any:
    value = checked(value)
    return time_text(value) if isinstance(value, datetime) else value


@dataclass(frozen=True)
class SqliteSettings:
    """What db_sqlite's parameters say: milliseconds to wait for a lock, extensions (file, entry point), pragmas."""

    busy_timeout: int = 500
    extensions: Sequence[tuple[str, str]] = field(default=())
    pragmas: Sequence[str] = field(default=())


class SqliteLink:
    """One connection (``connections.Link``)."""

    def __init__(self, file: str, settings: SqliteSettings, writes: bool) -> None:
        self.touched = self.aborted = False
        if not os.path.exists(file):
            raise Unavailable(f"there is no file {file}: sipgw db create makes it")
        self._raw = sqlite3.connect(
            file,
            timeout=max(0, settings.busy_timeout) / 1000,
            detect_types=sqlite3.PARSE_DECLTYPES,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            self._prepare(settings, writes)
        except BaseException:
            self._raw.close()
            raise

    def _prepare(self, settings: SqliteSettings, writes: bool) -> None:
        run = self._raw.execute
        if run("PRAGMA journal_mode").fetchone()[0] != "wal":
            run("PRAGMA journal_mode = wal")
        run("PRAGMA synchronous = full")
        for pragma in settings.pragmas:
            run(f"PRAGMA {pragma}")
        if settings.extensions and not hasattr(self._raw, "enable_load_extension"):
            raise Refused("this Python's SQLite cannot load extensions")
        if settings.extensions:
            self._raw.enable_load_extension(True)
            for file, entry in settings.extensions:
                run("SELECT load_extension(?, ?)" if entry else "SELECT load_extension(?)", (file, entry) if entry else (file,))
            self._raw.enable_load_extension(False)
        if not writes:
            run("PRAGMA query_only = on")

    def execute(self, text: str, values: Sequence[Any], changes: bool = False) -> Answer:
        """Run one statement."""
        self._wanted()
        if changes:
            self.touched = True
        cursor = self._raw.execute(text, values)
        rows = cursor.fetchall()
        return Answer([each[0] for each in cursor.description or ()], rows, cursor.rowcount)

    def begin(self) -> None:
        """Begin a transaction, as the only one that writes."""
        self._raw.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """End it."""
        self._wanted()
        self._raw.execute("COMMIT")

    def _wanted(self) -> None:
        if self.aborted:
            raise Unavailable("too late")

    def rollback(self) -> None:
        """Undo it, if SQLite has not done so itself."""
        if self._raw.in_transaction:
            self._raw.execute("ROLLBACK")

    def alive(self) -> bool:
        """A file does not go away."""
        return True

    def abort(self) -> None:
        """Interrupt the statement that runs, if one does; no other follows."""
        self.aborted = True
        self._raw.interrupt()

    def close(self) -> None:
        """Close it."""
        self._raw.close()


@dataclass(frozen=True)
class SqliteEngine:
    """One SQLite database (``connections.Wire`` and ``database.Engine``); ``writes``: for the connection that does."""

    url: str
    settings: SqliteSettings = field(default_factory=SqliteSettings)
    writes: bool = True
    driver: str = "sqlite3"
    scheme: str = "sqlite"
    # in backticks, since SQLite takes a name in double quotes that is no column for a text
    statements: Statements = field(default=Statements("?", "`", bind=_bound))

    @property
    def name(self) -> str:
        """The URL."""
        return hide_password(self.url)

    def reading(self) -> SqliteEngine:
        """The same for connections that only read."""
        return replace(self, writes=False)

    def connect(self) -> Link:
        """Open a connection; the file must be there."""
        return SqliteLink(file_of(self.url), self.settings, self.writes)

    def quick(self) -> SqliteEngine:
        """The same: a file is there or not."""
        return self

    def explain(self, error: Exception) -> tuple[DatabaseError, bool]:
        """By the codes of SQLite; a connection is never lost."""
        text = f"{self.name}: {error}"
        code = getattr(error, "sqlite_errorcode", None)
        if code in _UNIQUE:
            return Duplicate(text), False
        if code is not None and code & 0xFF in _TRANSIENT:
            return Unavailable(text), False
        return Refused(text), False

    def indexes(self, link: Link, table: str) -> list[Index]:
        """The unique indexes, the primary key too."""
        found = [link.execute("SELECT name FROM pragma_table_info(?) WHERE pk > 0", (table,)).rows]
        for index in link.execute('SELECT name FROM pragma_index_list(?) WHERE "unique" AND NOT partial', (table,)).rows:
            found.append(link.execute("SELECT name FROM pragma_index_info(?)", index).rows)
        return [Index(frozenset(str(name).lower() for (name,) in names)) for names in found if names]

    def quote(self, text: str) -> str:
        """With its quotes doubled."""
        return text.replace("'", "''")
