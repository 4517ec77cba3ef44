"""PostgreSQL behind ``postgres://``, through psycopg 3.

Numbers are bound without a type, so that a number may be compared with a text column, as in the other engines. What PostgreSQL
alone has (arrays, networks, JSON) is read as text."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sipgw.db.connections import Answer, Link, says
from sipgw.db.database import Index
from sipgw.db.databases import hide_password
from sipgw.db.errors import DatabaseError, Duplicate, Refused, Unavailable
from sipgw.db.statements import Statements, checked, number
from sipgw.db.url import parse_url

__all__ = ["PostgresEngine"]

_TEXTS = "date time timetz interval json jsonb uuid inet cidr".split()
"""Types that are read as the text PostgreSQL writes."""
_TRANSIENT = ("40", "53", "55", "57", "58", "25006", "3D", "28")
"""How SQLSTATEs begin that say something about the server now, not about the statement: postgresql.org, appendix A."""
_LOST = ("08", "57P")


@functools.cache
def _adapters() -> Any:
    """How values are bound and read."""
    import psycopg
    from psycopg.adapt import AdaptersMap, Dumper, Loader

    class Untyped(Dumper):
        """A number whose type PostgreSQL finds by itself."""

        def dump(self, obj: Any) -> bytes:
            return str(obj).encode()

    class Text(Loader):
        """What is read as it is written."""

        def load(self, data: Any) -> str:
            return bytes(data).decode()

    class Number(Loader):
        """NUMERIC."""

        def load(self, data: Any) -> int | float:
            return number(bytes(data).decode())

    class Flag(Loader):
        """BOOLEAN."""

        def load(self, data: Any) -> int:
            return int(bytes(data) == b"t")

    class Padded(Loader):
        """CHAR(n), which comes with blanks at its end."""

        def load(self, data: Any) -> str:
            return bytes(data).decode().rstrip(" ")

    class Moment(Loader):
        """TIMESTAMP WITH TIME ZONE, as local time."""

        def load(self, data: Any) -> datetime | str:
            text = bytes(data).decode()
            try:
                return datetime.fromisoformat(text).astimezone().replace(tzinfo=None)
            except ValueError:
                return text

    made = AdaptersMap(psycopg.adapters)
    for kind in (int, float):
        made.register_dumper(kind, Untyped)
    for name in _TEXTS:
        made.register_loader(name, Text)
    loaders: dict[str, Any] = {"numeric": Number, "bool": Flag, "bpchar": Padded, "timestamptz": Moment}
    for name, loader in loaders.items():
        made.register_loader(name, loader)
    return made


class PostgresLink:
    """One connection (``connections.Link``)."""

    def __init__(self, raw: Any) -> None:
        self.touched = self.aborted = False
        self._raw = raw

    def execute(self, text: str, values: Sequence[Any], changes: bool = False) -> Answer:
        """Run one statement; two in one text are refused, as by the other engines."""
        if changes:
            self.touched = True
        single = True if ";" in text.rstrip("; \t\r\n") and not values else None
        cursor = self._raw.execute(text.encode(), values or None, prepare=single)
        description = cursor.description
        if description is None:
            return Answer((), (), cursor.rowcount)
        return Answer([each.name for each in description], cursor.fetchall(), cursor.rowcount)

    def begin(self) -> None:
        """Begin a transaction."""
        self._raw.execute(b"BEGIN")

    def commit(self) -> None:
        """End it; a COMMIT of what has failed is a rollback, and says so only by its tag."""
        self._raw.execute(b"COMMIT")

    def rollback(self) -> None:
        """Undo it; the server does so itself where the connection is gone."""
        try:
            self._raw.execute(b"ROLLBACK")
        except Exception:
            self.close()

    def alive(self) -> bool:
        """Whether it is open and the server has said nothing: what it says unasked is good-bye, or not for us."""
        return not self._raw.closed and not self.aborted and not says(self._raw)

    def abort(self) -> None:
        """Shut the connection down under the thread that waits for it."""
        self.aborted = True
        try:
            with socket.socket(fileno=os.dup(self._raw.fileno())) as same:
                same.shutdown(socket.SHUT_RDWR)
        except Exception:
            pass  # it is closed already

    def close(self) -> None:
        """Close it."""
        self._raw.close()


@dataclass(frozen=True)
class PostgresEngine:
    """One PostgreSQL database (``connections.Wire`` and ``database.Engine``).

    ``connect_time``: seconds for a connection to be opened, at least 2. ``read_time``: seconds after which nobody waits for an
    answer; the server gives a statement up then, and one that waits for a lock before."""

    url: str
    connect_time: float = 5.0
    read_time: float = 5.0
    more: Mapping[str, Any] = field(default_factory=dict)
    """More for libpq, such as ``sslmode``."""
    driver: str = "psycopg"
    scheme: str = "postgres"
    statements: Statements = field(default=Statements("%s", lower=True, bind=checked))

    @property
    def name(self) -> str:
        """The URL without its password."""
        return hide_password(self.url)

    def connect(self) -> Link:
        """Open a connection."""
        import psycopg

        url = parse_url(self.url)
        given: dict[str, Any] = {"host": url.socket or url.host, "port": url.port, "user": url.user, "password": url.password}
        raw = psycopg.connect(
            autocommit=True,
            context=_Context(),
            dbname=url.database,
            connect_timeout=max(2, int(self.connect_time)),
            client_encoding="UTF8",
            application_name="sipgw",
            **{key: value for key, value in given.items() if value},
            **self.more,
        )
        times = {"statement_timeout": self.read_time, "lock_timeout": max(0.5, self.read_time - 1)}
        raw.execute("; ".join(f"SET {name} = {int(seconds * 1000)}" for name, seconds in times.items()).encode())
        return PostgresLink(raw)

    def quick(self) -> PostgresEngine:
        """The same with little patience."""
        return replace(self, connect_time=2.0)

    def explain(self, error: Exception) -> tuple[DatabaseError, bool]:
        """By SQLSTATE."""
        import psycopg

        state = getattr(error, "sqlstate", None) or ""
        text = f"{self.name}: {str(error).partition(chr(10))[0]}"
        if not isinstance(error, psycopg.Error):
            mistake = isinstance(error, (TypeError, ValueError, OverflowError))
            return (Refused(text), False) if mistake else (Unavailable(text), True)
        if state == "23505":
            return Duplicate(text), False
        if state.startswith(_LOST) or (not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))):
            return Unavailable(text), True
        if state.startswith(_TRANSIENT):
            return Unavailable(text), False
        return Refused(text), False

    def indexes(self, link: Link, table: str) -> list[Index]:
        """The unique indexes, the primary key too."""
        rows = link.execute(
            "SELECT i.indexrelid, a.attname FROM pg_index i"
            " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
            " WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL",
            (self.statements.table(table),),
        ).rows
        found: dict[int, set[str]] = {}
        for index, column in rows:
            found.setdefault(index, set()).add(column)
        return [Index(frozenset(columns)) for columns in found.values()]

    def quote(self, text: str) -> str:
        """With its quotes doubled (``standard_conforming_strings``)."""
        return text.replace("'", "''")


class _Context:
    """What psycopg takes its adapters from."""

    connection = None

    @property
    def adapters(self) -> Any:
        """Ours."""
        return _adapters()
