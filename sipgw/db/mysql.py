"""MySQL and MariaDB behind ``mysql://``, through PyMySQL.

Texts are UTF-8 with all its characters (utf8mb4), whatever the tables hold: the server converts, and refuses what does not fit
(strict mode) instead of cutting it off. Numbers are sent as texts: MySQL takes ``username = 0`` for all names that do not begin
with a digit."""

from __future__ import annotations

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
from sipgw.db.statements import Statements, checked, number, time_text
from sipgw.db.url import parse_url
from sipgw.interfaces import Value

__all__ = ["MySqlEngine"]

SOCKETS = ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"]
"""Where MySQL's own library looks for a server of this machine, which is what it means by "localhost"."""
_QUICK = 2.0
_MODES = "CONCAT(REPLACE(@@SESSION.sql_mode, 'NO_BACKSLASH_ESCAPES', ''), ',STRICT_ALL_TABLES')"
_DUPLICATE = {1022, 1062, 1169, 1586}
_LOST = {0, 1053, 1077, 1079, 1152, *range(1156, 1162), 1927, 2000, 2002, 2003, 2006, 2012, 2013, 2014, 2055, 4031}
"""Codes of a connection that is gone, or never was: ER_SERVER_SHUTDOWN, ER_NET_*, CR_SERVER_LOST..."""
_TRANSIENT = {1021, 1037, 1040, 1041, 1044, 1045, 1049, 1203, 1205, 1213, 1226, 1290, 1317, 1836, 1969, 2027, 3024, 3159}
"""Codes that say something about the server now, not about the statement: too many connections, a deadlock, read only..."""


def _bound(value: Value) -> Any:
    value = checked(value)
    if isinstance(value, datetime):
        return time_text(value)
    return str(value) if isinstance(value, int) else value


class MySqlLink:
    """One connection (``connections.Link``)."""

    def __init__(self, raw: Any) -> None:
        self.touched = self.aborted = False
        self._raw = raw

    def execute(self, text: str, values: Sequence[Any], changes: bool = False) -> Answer:
        """Run one statement."""
        if changes:
            self.touched = True
        with self._raw.cursor() as cursor:
            count = cursor.execute(text, values or None)
            rows = cursor.fetchall()
            return Answer([each[0] for each in cursor.description or ()], rows, count)

    def begin(self) -> None:
        """Begin a transaction."""
        self._raw.begin()

    def commit(self) -> None:
        """End it."""
        self._raw.commit()

    def rollback(self) -> None:
        """Undo it; the server does so itself where the connection is gone."""
        try:
            self._raw.rollback()
        except Exception:
            self.close()

    def alive(self) -> bool:
        """Whether it is open and the server has said nothing: all that it says unasked is good-bye."""
        return bool(self._raw.open) and not self.aborted and not says(self._raw._sock)

    def abort(self) -> None:
        """Shut the connection down under the thread that waits for it."""
        self.aborted = True
        _shut(self._raw._sock)

    def close(self) -> None:
        """Close it, without a word to the server, which may not listen."""
        self._raw._force_close()


def _shut(sock: Any) -> None:
    if sock is not None:
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already


@dataclass(frozen=True)
class MySqlEngine:
    """One MySQL database (``connections.Wire`` and ``database.Engine``).

    ``connect_time``: seconds for a connection to be opened. ``read_time``: seconds after which a thread gives up by itself; the
    server gives a change that waits for a lock up before that, so that it is not made when nobody expects it any more."""

    url: str
    connect_time: float = 2.0
    read_time: float = 6.0
    more: Mapping[str, Any] = field(default_factory=dict)
    """More for PyMySQL's ``connect``, such as ``ssl``."""
    driver: str = "pymysql"
    scheme: str = "mysql"
    statements: Statements = field(default=Statements("%s", "`", bind=_bound, upsert="ON DUPLICATE KEY"))

    @property
    def name(self) -> str:
        """The URL without its password."""
        return hide_password(self.url)

    def connect(self) -> Link:
        """Open a connection."""
        import pymysql
        from pymysql.constants import CLIENT, FIELD_TYPE
        from pymysql.converters import conversions

        url = parse_url(self.url)
        converters: dict[Any, Any] = dict(conversions)
        converters.update({FIELD_TYPE.DECIMAL: number, FIELD_TYPE.NEWDECIMAL: number})
        for plain in (FIELD_TYPE.DATE, FIELD_TYPE.TIME, FIELD_TYPE.NEWDATE):
            converters.pop(plain, None)
        path = url.socket
        if not path and not url.port and url.host in ("", "localhost"):
            path = next(filter(os.path.exists, SOCKETS), "")
        raw = pymysql.connect(
            host=url.host or "localhost",
            port=url.port or 3306,
            unix_socket=path or None,
            user=url.user,
            password=url.password,
            database=url.database,
            charset="utf8mb4",
            autocommit=True,
            client_flag=CLIENT.FOUND_ROWS,
            conv=converters,
            connect_timeout=self.connect_time,
            read_timeout=self.connect_time,
            write_timeout=self.read_time,
            init_command=f"SET SESSION sql_mode = {_MODES}, innodb_lock_wait_timeout = {max(1, int(self.read_time) - 1)}",
            **self.more,
        )
        raw._read_timeout = self.read_time  # while it connected, the server had to be quicker
        return MySqlLink(raw)

    def quick(self) -> MySqlEngine:
        """The same with little patience."""
        return replace(self, connect_time=_QUICK, read_time=_QUICK)

    def explain(self, error: Exception) -> tuple[DatabaseError, bool]:
        """By MySQL's codes."""
        import pymysql

        code = error.args[0] if error.args and isinstance(error.args[0], int) else None
        text = f"{self.name}: {error.args[-1] if code and len(error.args) > 1 else error}"
        if not isinstance(error, pymysql.err.MySQLError):
            mistake = isinstance(error, (TypeError, ValueError, OverflowError))
            return (Refused(text), False) if mistake else (Unavailable(text), True)
        if code in _DUPLICATE:
            return Duplicate(text), False
        if code in _LOST or isinstance(error, pymysql.err.InterfaceError):
            return Unavailable(text), True
        if code in _TRANSIENT:
            return Unavailable(text), False
        if isinstance(error, pymysql.err.InternalError) and code is None:
            return Unavailable(text), True  # a packet out of its order
        return Refused(text), False

    def indexes(self, link: Link, table: str) -> list[Index]:
        """The unique indexes, the primary key too."""
        schema, _, bare = table.rpartition(".")
        rows = link.execute(
            "SELECT s.index_name, s.column_name, c.extra FROM information_schema.statistics s JOIN information_schema.columns c"
            " ON c.table_schema = s.table_schema AND c.table_name = s.table_name AND c.column_name = s.column_name"
            " WHERE s.table_schema = COALESCE(NULLIF(%s, ''), DATABASE()) AND s.table_name = %s AND s.non_unique = 0",
            (schema, bare),
        ).rows
        found: dict[str, set[str]] = {}
        counting = set()
        for index, column, extra in rows:
            found.setdefault(index, set()).add(column.lower())
            if "auto_increment" in extra:
                counting.add(column.lower())
        return [Index(frozenset(columns), columns == counting) for columns in found.values()]

    def quote(self, text: str) -> str:
        """With backslashes and quotes doubled."""
        return text.replace("\\", "\\\\").replace("'", "''")
