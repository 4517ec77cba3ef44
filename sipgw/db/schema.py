"""The tables of OpenSIPS: columns, keys, versions, and the statements that make them in each SQL database.

Pure: ``tables.txt`` is the data, which its head explains; here it is read, and written as SQL. A table made so is the one that
OpenSIPS's own scripts make: the same columns with the same types, the same constraints under the same names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

__all__ = ["DIALECTS", "VERSION_TABLE", "Column", "Index", "Step", "Table", "create_statements", "read_tables", "tables"]

DIALECTS = ("sqlite", "mysql", "postgres")
VERSION_TABLE = "version"
"""The table of versions; scripts may name another one (``db_version_table``)."""

_LINE = re.compile(r"(\w+)\s+([a-z]+(?:\([0-9,]+\))?)( key)?( null)?(?: = (.*))?")
_INDEX = re.compile(r"(unique|index) (\w+) \(([\w, ]+)\)")
_STEP = re.compile(r"from (\d+)(?:: (\w+) = (.*))?")


@dataclass(frozen=True)
class Column:
    """One column. ``kind``: int, smallint, tinyint, bigint, serial, bigserial, char, text, blob, mediumblob, longblob, float,
    double, datetime; ``size`` as it stands between parentheses; ``default`` as SQL writes it."""

    name: str
    kind: str
    size: str = ""
    unsigned: bool = False
    key: bool = False
    null: bool = False
    default: str | None = None

    @property
    def counts(self) -> bool:
        """Whether the database gives each new row a number here."""
        return self.kind.endswith("serial")

    @property
    def is_number(self) -> bool:
        """Whether it holds whole numbers."""
        return self.kind.endswith("int") or self.counts


@dataclass(frozen=True)
class Index:
    """An index; its name is prefixed with that of the table where names are common to all tables."""

    name: str
    columns: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True)
class Step:
    """How the rows of an older version of a table are carried over: by name, but for ``column``, which is ``expression``."""

    version: int
    column: str = ""
    expression: str = ""


@dataclass(frozen=True)
class Table:
    """One table in its present version. ``group``: the name under which OpenSIPS creates it, such as ``auth_db``."""

    name: str
    version: int
    group: str
    columns: tuple[Column, ...] = ()
    indexes: tuple[Index, ...] = ()
    steps: tuple[Step, ...] = field(default=(), compare=False)

    def column(self, name: str) -> Column | None:
        """The column of that name, in any case of its letters."""
        return next((column for column in self.columns if column.name.lower() == name.lower()), None)

    def step(self, version: int) -> Step | None:
        """How rows of ``version`` are carried over, None if nobody knows."""
        return next((step for step in self.steps if step.version == version), None)


def read_tables(text: str) -> dict[str, Table]:
    """Read the form of ``tables.txt``; ``ValueError`` with the line that is none."""
    found: dict[str, Table] = {}
    head: list[str] = []
    columns: list[Column] = []
    indexes: list[Index] = []
    steps: list[Step] = []

    def close() -> None:
        if head:
            name, version, group = head
            found[name] = Table(name, int(version), group, tuple(columns), tuple(indexes), tuple(steps))
        for each in (head, columns, indexes, steps):
            each.clear()

    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("table "):
            close()
            head = line.split()[1:]
        elif match := _INDEX.fullmatch(line):
            indexes.append(Index(match[2], tuple(match[3].split(", ")), match[1] == "unique"))
        elif match := _STEP.fullmatch(line):
            steps.append(Step(int(match[1]), match[2] or "", match[3] or ""))
        elif match := _LINE.fullmatch(line):
            columns.append(_column(*match.groups()))
        else:
            raise ValueError(f"no line of a table: {line}")
    close()
    return found


def _column(name: str, kind: str, key: str | None, null: str | None, default: str | None) -> Column:
    kind, _, size = kind.rstrip(")").partition("(")
    unsigned = kind.startswith("u")
    kind = kind.removeprefix("u")
    return Column(name, kind, size, unsigned, bool(key) or kind.endswith("serial"), bool(null), default)


@cache
def tables() -> Mapping[str, Table]:
    """All tables by name, ``version`` among them."""
    return read_tables((files("sipgw.db") / "tables.txt").read_text(encoding="utf-8"))


_POSTGRES = {
    "tinyint": "SMALLINT",
    "int": "INTEGER",
    "char": "VARCHAR",
    "blob": "BYTEA",
    "mediumblob": "BYTEA",
    "longblob": "BYTEA",
    "float": "REAL",
    "double": "DOUBLE PRECISION",
    "datetime": "TIMESTAMP WITHOUT TIME ZONE",
}
_SQLITE = {"int": "INTEGER", "mediumblob": "BLOB", "longblob": "BLOB"}
_MYSQL = {"serial": "INT", "bigserial": "BIGINT"}


def type_of(column: Column, dialect: str) -> str:
    """The type of ``column`` as ``dialect`` writes it."""
    size = f"({column.size})" if column.size else ""
    if dialect == "postgres":
        name = _POSTGRES.get(column.kind, column.kind.upper())
        return name + (size if column.kind == "char" else "")
    if dialect == "mysql":
        return _MYSQL.get(column.kind, column.kind.upper()) + size + (" UNSIGNED" if column.unsigned else "")
    if column.counts:
        return "INTEGER"
    return _SQLITE.get(column.kind, column.kind.upper()) + size


def define(column: Column, dialect: str) -> str:
    """The line of ``column`` in ``CREATE TABLE``."""
    text = f"{column.name} {type_of(column, dialect)}"
    if column.counts and dialect == "mysql":
        text += " AUTO_INCREMENT"
    if column.key:
        text += " PRIMARY KEY"
    if column.counts and dialect == "sqlite":
        text += " AUTOINCREMENT"
    if column.default is not None:
        text += f" DEFAULT {column.default}"
    return text if column.null else f"{text} NOT NULL"


def create_statements(table: Table, dialect: str, name: str = "", more: Sequence[str] = ()) -> list[str]:
    """The statements that make ``table``; as ``name``, if it shall have another one; ``more``: columns defined already."""
    name = name or table.name
    prefix = "" if dialect == "mysql" else f"{name}_"
    lines = [define(column, dialect) for column in table.columns] + list(more)
    lines += [
        f"CONSTRAINT {prefix}{index.name} UNIQUE ({', '.join(index.columns)})" for index in table.indexes if index.unique
    ]
    ending = " ENGINE=InnoDB" if dialect == "mysql" else ""
    made = [f"CREATE TABLE {name} (\n    " + ",\n    ".join(lines) + f"\n){ending}"]
    for column in table.columns:
        if column.counts and dialect == "postgres":
            made.append(f"ALTER SEQUENCE {name}_{column.name}_seq MAXVALUE 2147483647 CYCLE")
    made += [
        f"CREATE INDEX {prefix}{index.name} ON {name} ({', '.join(index.columns)})"
        for index in table.indexes
        if not index.unique
    ]
    return made
