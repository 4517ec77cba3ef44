"""The statements of ``interfaces.Database`` as text with placeholders, and their values apart: none is ever written into a text.

Names of tables and columns cannot be bound: they must be plain identifiers and are quoted besides, so that a column may be called
``group`` or ``time``. Values mean the same to all engines; one that some engine cannot keep (a NUL character, half a character,
a number that is none) is refused for all (hardening P35)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sipgw.db.errors import Refused
from sipgw.interfaces import Value, Where

__all__ = ["Statement", "Statements", "checked", "checked_text", "number", "time_text"]

Statement = tuple[str, tuple[Any, ...]]
"""A text with placeholders and what stands for them."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,63}")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,63}(\.[A-Za-z_][A-Za-z0-9_$]{0,63})?")
_ORDER = re.compile(r"\s*(\S+?)(?:\s+(asc|desc))?\s*", re.IGNORECASE)
_OPERATORS = {"=", "!=", "<", ">", "<=", ">=", "LIKE", "NOT LIKE"}
_UNKEPT = re.compile("[\0\ud800-\udfff]")
_PARTS = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|--[^\n]*|/\*.*?\*/|\?|[^'\"`?/-]+|.", re.DOTALL)


def checked_text(text: str) -> str:
    """``text``, or ``Refused`` if a database cannot keep it: a NUL, or bytes that are no UTF-8."""
    if _UNKEPT.search(text):
        raise Refused("a text with a NUL or with bytes that are no UTF-8 cannot be kept in a database")
    return text


def checked(value: Value) -> Value:
    """``value`` as it may be bound: times naive and local, texts and numbers that all engines keep."""
    if value is None:
        return None
    if isinstance(value, str):
        return checked_text(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Refused(f"{value} is no number that a database keeps")
        return value
    if isinstance(value, datetime):
        return value if value.tzinfo is None else value.astimezone().replace(tzinfo=None)
    return bytes(value)


def number(text: str) -> int | float:
    """What a decimal number holds, whole if it is."""
    return float(text) if "." in text or not text.lstrip("-").isdigit() else int(text)


def time_text(value: datetime) -> str:
    """A time as it is written in statements, to the second unless it says more."""
    return value.isoformat(" ", "microseconds" if value.microsecond else "seconds")


@dataclass(frozen=True)
class Statements:
    """How one kind of database spells its statements.

    ``mark`` is its placeholder, ``quotes`` what stands around a name, ``lower`` whether unquoted names are lower case there,
    ``bind`` turns a value into what its driver takes; in statements of scripts, where a number may have to be one, it is
    ``checked``."""

    mark: str
    quotes: str = '"'
    lower: bool = False
    bind: Callable[[Value], Any] = checked
    upsert: str = "ON CONFLICT"

    def name(self, text: str) -> str:
        """The name of a column; ``Refused`` if it is no plain identifier."""
        if _NAME.fullmatch(text) is None:
            raise Refused(f"{text!r} cannot be the name of a column")
        return self._quoted(text)

    def table(self, text: str) -> str:
        """The name of a table, ``schema.table`` too."""
        if _TABLE.fullmatch(text) is None:
            raise Refused(f"{text!r} cannot be the name of a table")
        return ".".join(map(self._quoted, text.split(".")))

    def _quoted(self, text: str) -> str:
        return f"{self.quotes}{text.lower() if self.lower else text}{self.quotes}"

    def select(self, table: str, columns: Sequence[str], where: Where, order: str, limit: int) -> Statement:
        """``SELECT``."""
        names = ", ".join(map(self.name, columns)) if columns else "*"
        condition, values = self.where(where)
        text = f"SELECT {names} FROM {self.table(table)}{condition}"
        if order:
            text += f" ORDER BY {', '.join(map(self._order, order.split(',')))}"
        if limit:
            text += f" LIMIT {int(limit)}"
        return text, values

    def _order(self, text: str) -> str:
        found = _ORDER.fullmatch(text)
        if found is None:
            raise Refused(f"{text!r} is no column to order by")
        return self.name(found[1]) + (f" {found[2].upper()}" if found[2] else "")

    def where(self, where: Where) -> Statement:
        """The condition with its keyword, empty where all rows are meant."""
        terms: list[str] = []
        values: list[Any] = []
        for column, operator, value in _terms(where):
            name = self.name(column)
            if operator not in _OPERATORS:
                raise Refused(f"{operator!r} is no operator of a condition")
            if value is None:
                if operator not in ("=", "!="):
                    raise Refused(f"NULL cannot be compared with {operator}")
                terms.append(f"{name} IS NULL" if operator == "=" else f"{name} IS NOT NULL")
            else:
                terms.append(f"{name} {'<>' if operator == '!=' else operator} {self.mark}")
                values.append(self.bind(value))
        return (f" WHERE {' AND '.join(terms)}" if terms else ""), tuple(values)

    def insert(self, table: str, values: Mapping[str, Value]) -> Statement:
        """``INSERT`` of one row."""
        if not values:
            raise Refused(f"an insert into {table} without values")
        names = ", ".join(map(self.name, values))
        marks = ", ".join([self.mark] * len(values))
        return f"INSERT INTO {self.table(table)} ({names}) VALUES ({marks})", tuple(map(self.bind, values.values()))

    def update(self, table: str, values: Mapping[str, Value], where: Where) -> Statement:
        """``UPDATE``."""
        if not values:
            raise Refused(f"an update of {table} without values")
        changes = ", ".join(f"{self.name(column)} = {self.mark}" for column in values)
        condition, more = self.where(where)
        return f"UPDATE {self.table(table)} SET {changes}{condition}", tuple(map(self.bind, values.values())) + more

    def delete(self, table: str, where: Where) -> Statement:
        """``DELETE``."""
        condition, values = self.where(where)
        return f"DELETE FROM {self.table(table)}{condition}", values

    def replace(self, table: str, values: Mapping[str, Value], keys: Sequence[str]) -> Statement:
        """``INSERT`` that becomes an update where a row with the same ``keys`` is; they must be those of a unique index."""
        text, bound = self.insert(table, values)
        others = [column for column in values if column not in keys]
        if self.upsert == "ON CONFLICT":
            target = f" ON CONFLICT ({', '.join(map(self.name, keys))}) DO"
            changes = ", ".join(f"{self.name(each)} = excluded.{self.name(each)}" for each in others)
            return f"{text}{target} UPDATE SET {changes}" if others else f"{text}{target} NOTHING", bound
        changes = ", ".join(f"{self.name(each)} = VALUES({self.name(each)})" for each in others or keys[:1])
        return f"{text} ON DUPLICATE KEY UPDATE {changes}", bound

    def raw(self, text: str, values: Sequence[Value]) -> Statement:
        """A statement of the database's own language, whose ``?`` become placeholders; as it is where there are no values."""
        checked_text(text)
        if not values:
            return text, ()
        parts = _PARTS.findall(text)
        count = parts.count("?")
        if count != len(values):
            raise Refused(f"a statement with {count} places and {len(values)} values")
        if self.mark != "?":
            parts = [self.mark if part == "?" else part.replace("%", "%%") for part in parts]
        bind = checked if self.mark == "%s" else self.bind
        return "".join(parts), tuple(map(bind, values))


def _terms(where: Where) -> list[tuple[str, str, Value]]:
    if isinstance(where, Mapping):
        return [(column, "=", value) for column, value in where.items()]
    return [(column, operator, value) for column, operator, value in where]
