"""One connection for the tools of the command line, where waiting harms nobody: statements, transactions, what tables there are.

Two kinds look the same to ``making.py``, ``dumping.py`` and ``subscribers.py``: ``Session`` is an SQL database, ``TextSession``
(``text_session.py``) a folder of text files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from sipgw.db.connections import Answer, Link
from sipgw.db.databases import scheme_of
from sipgw.db.errors import DatabaseError, Refused
from sipgw.db.schema import Table, create_statements
from sipgw.db.statements import Statements
from sipgw.interfaces import Value, Where

__all__ = ["Found", "Session", "Store", "engine_of", "open_store", "wanted"]

PATIENCE = 3600.0
"""Seconds that a statement may take: rows may be many."""
LARGEST = 2147483647
"""The last number of a sequence, after which it begins anew; rows of ``location`` may have larger ones of their own."""
_COLUMNS = {
    "sqlite": "SELECT name, type, \"notnull\" = 0 AND pk = 0, dflt_value FROM pragma_table_info(?) ORDER BY cid",
    "mysql": "SELECT column_name, column_type, is_nullable = 'YES', column_default FROM information_schema.columns"
    " WHERE table_schema = DATABASE() AND table_name = ? ORDER BY ordinal_position",
    "postgres": "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull, pg_get_expr(adbin, adrelid)"
    " FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
    " WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
}
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
    "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'",
    "postgres": "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND pg_table_is_visible(oid)"
    " AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)",
}


@dataclass(frozen=True)
class Found:
    """A column that a database has: its name in lower case, its type as the database writes it."""

    name: str
    type: str
    null: bool
    default: str | None


class Store(Protocol):
    """What the tools ask of a database of either kind; all raise ``DatabaseError``."""

    name: str
    dialect: str

    def tables(self) -> set[str]:
        """The names of its tables."""

    def columns(self, table: str) -> list[Found]:
        """The columns of a table, in order; none if there is no such table."""

    def create(self, table: Table) -> None:
        """Make a table that is not there."""

    def select(self, table: str, columns: Sequence[str] = (), where: Where = (), order: str = "", limit: int = 0) -> Answer:
        """Rows of a table."""

    def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""

    def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many."""

    def delete(self, table: str, where: Where) -> int:
        """Delete rows; how many."""

    def settle(self, table: Table) -> None:
        """Let numbers that the database gives go on after those that are there."""

    def transaction(self) -> Any:
        """A context: all that is done in it is done, or nothing."""

    def close(self) -> None:
        """Close it."""


def engine_of(url: str) -> Any:
    """The engine of an SQL database's URL; ``DatabaseError`` names what is wrong with it."""
    scheme = scheme_of(url)
    if scheme == "sqlite":
        from sipgw.db.sqlite import SqliteEngine

        return SqliteEngine(url)
    if scheme == "mysql":
        from sipgw.db.mysql import MySqlEngine

        _need("pymysql", "mysql")
        return MySqlEngine(url, read_time=PATIENCE)
    if scheme.startswith("postgres"):
        from sipgw.db.postgres import PostgresEngine

        _need("psycopg", "pgsql")
        return PostgresEngine(url)
    raise DatabaseError(f"{scheme}: is no database that sipgw db knows: write sqlite:, mysql:, postgres: or text:")


def _need(driver: str, extra: str) -> None:
    """Import an optional package, or say how to get it."""
    try:
        import_module(driver)
    except ImportError as error:
        raise DatabaseError(f"the package {driver} is not there: pip install 'sipgw[{extra}]' ({error})") from None


class Session:
    """An SQL database. ``create``: whether a SQLite file is made if it is not there, readable for its owner only."""

    def __init__(self, url: str, *, create: bool = False) -> None:
        self._engine = engine_of(url)
        self.name: str = self._engine.name
        self.dialect: str = self._engine.scheme
        self.say: Statements = self._engine.statements
        if create and self.dialect == "sqlite":
            _touch(url)
        self._link: Link = self._explained(self._engine.connect)
        if self.dialect == "mysql":
            # a row that has the number 0 keeps it: MySQL would give it another one
            self.run("SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO')")

    def _explained(self, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except DatabaseError:
            raise
        except Exception as error:
            raise self._engine.explain(error)[0] from error

    def run(self, text: str, values: Sequence[Value] = ()) -> Answer:
        """Run one statement, with ``?`` for each of ``values``."""
        statement, bound = self.say.raw(text, values)
        return self._execute(statement, bound)

    def _execute(self, text: str, bound: Sequence[Any]) -> Answer:
        found: Answer = self._explained(lambda: self._link.execute(text, bound, True))
        return found

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; but MySQL commits at each statement that makes or changes a table."""
        self._explained(self._link.begin)
        try:
            yield
            self._explained(self._link.commit)
        except BaseException:
            self._explained(self._link.rollback)
            raise

    def tables(self) -> set[str]:
        """The names of its tables."""
        return {str(row[0]) for row in self.run(_TABLES[self.dialect]).rows}

    def columns(self, table: str) -> list[Found]:
        """The columns of a table, in order; none if there is no such table."""
        rows = self.run(_COLUMNS[self.dialect], [table]).rows
        return [Found(str(name).lower(), _text(kind), bool(null), _text(default) or None) for name, kind, null, default in rows]

    def create(self, table: Table) -> None:
        """Make a table that is not there."""
        for statement in create_statements(table, self.dialect):
            self.run(statement)

    def select(self, table: str, columns: Sequence[str] = (), where: Where = (), order: str = "", limit: int = 0) -> Answer:
        """Rows of a table."""
        return self._execute(*self.say.select(table, columns, where, order, limit))

    def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""
        self._execute(*self.say.insert(table, values))

    def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many."""
        return self._execute(*self.say.update(table, values, where)).count

    def delete(self, table: str, where: Where) -> int:
        """Delete rows; how many."""
        return self._execute(*self.say.delete(table, where)).count

    def settle(self, table: Table) -> None:
        """Let a sequence of PostgreSQL go on after the rows that are there; the others do so themselves."""
        if self.dialect != "postgres":
            return
        for column in table.columns:
            if column.counts:
                sequence = f"pg_get_serial_sequence('{table.name}', '{column.name}')"
                most = f"MAX({column.name}) FILTER (WHERE {column.name} <= {LARGEST})"
                self.run(f"SELECT setval({sequence}, {most}) FROM {table.name}")

    def close(self) -> None:
        """Close it."""
        self._link.close()


def _touch(url: str) -> None:
    """Make a SQLite file that is not there, its owner's only: what is in it are secrets."""
    from sipgw.db.sqlite import file_of

    file = file_of(url)
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass
    except OSError as error:
        raise DatabaseError(f"{file} cannot be made: {error.strerror}") from error


def _text(value: object) -> str:
    """What the tables of the database's own say; some drivers give bytes."""
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def open_store(url: str, *, create: bool = False) -> Store:
    """The database of ``url``, of either kind; ``create``: what of it is only a file or folder is made if it is not there."""
    if scheme_of(url) == "text":
        from sipgw.db.text_session import TextSession

        return TextSession(url, create=create)
    return Session(url, create=create)


def wanted(known: Mapping[str, Table], names: Iterable[str]) -> list[Table]:
    """The tables that ``names`` say, each a table or a group such as auth_db; ``Refused`` for what is neither."""
    found: dict[str, Table] = {}
    for name in names:
        of_group = [table for table in known.values() if name in (table.name, table.group)]
        if not of_group:
            raise Refused(f"there is no table {name}: sipgw db list says which there are")
        found.update((table.name, table) for table in of_group)
    return [*found.values()]
