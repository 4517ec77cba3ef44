"""db_sqlite: databases in files, ``sqlite:///path``."""

from __future__ import annotations

from typing import Any

from sipgw.db.connections import Connections
from sipgw.db.database import SqlDatabase
from sipgw.db.groups import GroupedWrites
from sipgw.db.measures import watch
from sipgw.db.sqlite import SqliteEngine, SqliteSettings
from sipgw.exports import Module, param

READERS = 4
"""Connections that read; one more writes."""
LIMIT = 5.0
"""Seconds until whoever asks has an answer."""


def _pragma(text: str) -> None:
    if not text.strip() or ";" in text:
        raise ValueError(f"{text!r} is no pragma: write name=value")


class DbSqlite(Module):
    """Opens SQLite databases. What is changed is on disk when the change is answered."""

    name = "db_sqlite"

    alloc_limit: int = param(10, "How many rows more to make room for", unused="rows need no room made for them")
    busy_timeout: int = param(500, "How long to wait for another process that has locked the file, in milliseconds")
    load_extension: str = param("", "An extension of SQLite, its file and perhaps ;entry_point", each="add_extension")
    exec_pragma: str = param("", "A PRAGMA for each connection, name=value", each="add_pragma", check=_pragma)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._extensions: list[tuple[str, str]] = []
        self._pragmas: list[str] = []
        super().__init__(server, **parameters)
        if server is not None:
            server.databases.add("sqlite", self.make)

    def add_extension(self, value: str) -> None:
        """Note one more extension."""
        file, _, entry = value.partition(";")
        self._extensions.append((file.strip(), entry.strip()))

    def add_pragma(self, value: str) -> None:
        """Note one more pragma."""
        self._pragmas.append(value)

    def make(self, url: str) -> SqlDatabase:
        """The database of ``url``."""
        server = self.server
        settings = SqliteSettings(self.busy_timeout, tuple(self._extensions), tuple(self._pragmas))
        engine = SqliteEngine(url, settings)
        done = watch(server.user, server.statistics, engine.name, 0)
        writers = Connections(engine, server.reactor, 1, limit=LIMIT, done=done)
        readers = Connections(engine.reading(), server.reactor, READERS, limit=LIMIT, done=done)
        return SqlDatabase(engine, readers, writers, GroupedWrites(engine, writers, done).run)
