"""A table of db_text: a file whose first line names the columns, ``id(int,auto) name(string) note(str,null)``, and whose other
lines are rows, fields between colons (OpenSIPS's modules/db_text). Pure: text in, rows out.

Types go by their first letter: int, long, double, str, string, blob, time (seconds since 1970). ``null``: the field may be
empty, which is NULL; ``auto``: one more than the largest there. In texts ``\\n \\r \\t \\\\ \\: \\0`` stand for what they
look like.

COMPAT: OpenSIPS forgets ``auto`` of a long when it writes; where its own table counts, so do we. The format cannot tell an empty
text from none: where NULL is not allowed OpenSIPS refuses the whole file, we read an empty text there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sipgw.db.errors import Duplicate, Refused
from sipgw.db.schema import Table
from sipgw.interfaces import Value, Where

__all__ = ["TextColumn", "TextTable", "definition", "read_table"]

Row = tuple[Any, ...]

_HEAD = re.compile(r" *([^ (]+) *\( *([silbdtSILBDT])([^),]*)(?:, *([nNaA])[^)]*)?\) *")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", ":": ":", "0": "\0"}
_ESCAPED = re.compile(r"\\(.?)", re.DOTALL)
_FIELD = re.compile(r"(?:[^:\\]|\\.)*")
_WRITTEN = str.maketrans({"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", ":": "\\:", "\0": "\\0"})
_KINDS = {"i": "int", "l": "long", "d": "double", "b": "blob", "t": "time"}
_NUMBER = re.compile(r"-?[0-9]+")
_REAL = re.compile(r"-?[0-9]+(\.[0-9]*)?")
_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


@dataclass(frozen=True)
class TextColumn:
    """One column; ``dated``: OpenSIPS's table has times there, whatever the file says. ``default``: for rows that have none."""

    name: str
    kind: str
    null: bool = False
    auto: bool = False
    dated: bool = False
    default: Any = None

    def fit(self, value: Value) -> Any:
        """``value`` as it is kept; ``Refused`` if it cannot be."""
        if value is None:
            return None
        if self.kind in ("str", "string", "blob"):
            return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
        if isinstance(value, datetime):
            return int(value.timestamp())
        try:
            if isinstance(value, str) and self.dated:
                return int(datetime.fromisoformat(value).timestamp())
            return float(value) if self.kind == "double" else int(value)
        except (ValueError, OverflowError):
            raise Refused(f"the column {self.name} takes no {value!r}") from None

    def show(self, value: Any) -> Any:
        """What is kept, as whoever asks wants it."""
        if value is None:
            return None
        if self.kind == "blob":
            return value.encode("utf-8", "surrogateescape")
        return datetime.fromtimestamp(value) if self.dated else value

    def parse(self, text: str) -> Any:
        """A field; ``ValueError`` says what is wrong."""
        if not text:
            if self.null or self.auto or self.kind not in ("str", "string", "blob"):
                return None
            return ""
        if self.kind in ("str", "string", "blob"):
            return _ESCAPED.sub(_unescape, text) if "\\" in text else text
        if (_REAL if self.kind == "double" else _NUMBER).fullmatch(text) is None:
            raise ValueError(f"{self.name} takes no {text!r}")
        return float(text) if self.kind == "double" else int(text)

    def write(self, value: Any) -> str:
        """The field of a value."""
        if value is None:
            return ""
        if self.kind in ("str", "string", "blob"):
            return str(value).translate(_WRITTEN)
        if self.kind == "double":
            whole, _, rest = f"{value:.6f}".partition(".")
            return f"{whole}.{rest.rstrip('0').ljust(2, '0')}"
        return str(value)

    def __str__(self) -> str:
        attribute = ",null" if self.null else ",auto" if self.auto else ""
        return f"{self.name}({self.kind}{attribute})"


def _unescape(found: re.Match[str]) -> str:
    character = _ESCAPES.get(found[1])
    if character is None:
        raise ValueError(f"\\{found[1]} means nothing")
    return character


class TextTable:
    """The columns and rows of one file. Rows are never changed in place: a copy of the list is a snapshot."""

    def __init__(self, name: str, columns: Sequence[TextColumn], uniques: Sequence[Sequence[str]] = ()) -> None:
        self.name = name
        self.columns = list(columns)
        self.rows: list[Row] = []
        self.version = 0
        """Grows with each change."""
        self._places = {column.name.lower(): place for place, column in enumerate(columns)}
        self._uniques = [
            [self._places[name.lower()] for name in names]
            for names in uniques
            if all(name.lower() in self._places for name in names)
        ]
        self._seen: list[set[Row]] | None = None
        self._last = 0

    def place(self, name: str) -> int:
        """Where a column stands; ``Refused`` if there is none of that name."""
        found = self._places.get(name.lower())
        if found is None:
            raise Refused(f"the table {self.name} has no column {name}")
        return found

    # ---- asking ----

    def matching(self, where: Where) -> Callable[[Row], bool]:
        """Whether a row is meant."""
        terms = [(name, "=", value) for name, value in where.items()] if isinstance(where, Mapping) else where
        tests: list[tuple[int, Callable[[Any, Any], bool], Any]] = []
        for name, operator, value in terms:
            compare = _COMPARISONS.get(operator)
            if compare is None or (value is None and operator not in ("=", "!=")):
                raise Refused(f"{operator!r} is no operator of a condition with {value!r}")
            place = self.place(name)
            tests.append((place, compare, self.columns[place].fit(value)))
        if not tests:
            return lambda _row: True

        def fits(row: Row) -> bool:
            for place, compare, value in tests:
                found = row[place]
                if value is None or found is None:
                    # as in SQL: only "is NULL" and "is not NULL" are true of NULL
                    if value is not None or not compare(found, value):
                        return False
                elif not compare(found, value):
                    return False
            return True

        return fits

    def select(self, columns: Sequence[str], where: Where, order: str, limit: int) -> tuple[list[str], list[Row]]:
        """The names of the columns, and rows of them."""
        fits = self.matching(where)
        found = [row for row in self.rows if fits(row)]
        for text in reversed(order.split(",") if order else []):
            name, _, direction = text.strip().partition(" ")
            place = self.place(name)
            nothing = [row for row in found if row[place] is None]
            rest = [row for row in found if row[place] is not None]
            down = direction.strip().lower() == "desc"
            rest.sort(key=lambda row: row[place], reverse=down)
            found = rest + nothing if down else nothing + rest
        places = [self.place(name) for name in columns] or range(len(self.columns))
        shows = [(place, self.columns[place].show) for place in places]
        rows = [tuple(show(row[place]) for place, show in shows) for row in found[: limit or None]]
        return [self.columns[place].name for place in places], rows

    # ---- changing ----

    def insert(self, values: Mapping[str, Value]) -> None:
        """Add one row."""
        given = {self.place(name): value for name, value in values.items()}
        row = tuple(
            column.fit(given[place]) if place in given else self._missing(column) for place, column in enumerate(self.columns)
        )
        self.append(row)

    def _missing(self, column: TextColumn) -> Any:
        return None if column.auto else column.default

    def append(self, row: Row) -> None:
        """Add a row that is complete but for its number."""
        last = self._last
        for place, column in enumerate(self.columns):
            if column.auto:
                if row[place] is None:
                    row = (*row[:place], last + 1, *row[place + 1 :])
                last = max(last, row[place])
            elif row[place] is None and not column.null:
                raise Refused(f"the column {column.name} of {self.name} must have a value")
        self._remember(row)
        self._last = last
        self.rows.append(row)
        self.version += 1

    def _remember(self, row: Row) -> None:
        """Note the keys of a new row; ``Duplicate`` if one is there."""
        if self._seen is None:
            self._seen = [{self._key(each, places) for each in self.rows} for places in self._uniques]
        keys = [self._key(row, places) for places in self._uniques]
        for key, seen in zip(keys, self._seen, strict=True):
            if key in seen and None not in key:
                raise Duplicate(f"{self.name} has a row with {', '.join(map(repr, key))} already")
        for key, seen in zip(keys, self._seen, strict=True):
            seen.add(key)

    @staticmethod
    def _key(row: Row, places: Sequence[int]) -> Row:
        return tuple(row[place] for place in places)

    def update(self, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many."""
        fits = self.matching(where)
        changes = {}
        for name, value in values.items():
            place = self.place(name)
            column = self.columns[place]
            changes[place] = column.fit(value)
            if changes[place] is None and not column.null:
                raise Refused(f"the column {column.name} of {self.name} must have a value")
        count = 0
        rows: list[Row] = []
        for row in self.rows:
            if fits(row):
                count += 1
                row = tuple(changes.get(place, value) for place, value in enumerate(row))
            rows.append(row)
        touched = {place for places in self._uniques for place in places} & changes.keys()
        if count and touched:
            self._distinct(rows)
        if count:
            self.restore(rows)
        return count

    def _distinct(self, rows: Sequence[Row]) -> None:
        for places in self._uniques:
            keys = [key for row in rows if None not in (key := self._key(row, places))]
            if len(keys) != len(set(keys)):
                raise Duplicate(f"two rows of {self.name} would have the same {', '.join(self.columns[p].name for p in places)}")

    def delete(self, where: Where) -> int:
        """Delete rows; how many."""
        fits = self.matching(where)
        rows = [row for row in self.rows if not fits(row)]
        count = len(self.rows) - len(rows)
        if count:
            self.restore(rows)
        return count

    def restore(self, rows: list[Row]) -> None:
        """Take other rows."""
        self.rows = rows
        self._seen = None
        self.version += 1

    def lines(self) -> Iterator[str]:
        """The lines of the file."""
        yield " ".join(map(str, self.columns)) + "\n"
        writers = [column.write for column in self.columns]
        for row in self.rows:
            yield ":".join(write(value) for write, value in zip(writers, row, strict=True)) + "\n"


def read_table(name: str, text: str, known: Table | None = None) -> TextTable:
    """Read a file; ``known`` is the table of OpenSIPS that it is. ``ValueError`` names the line that is wrong."""
    lines = text.split("\n")
    table = TextTable(name, list(_columns(lines[0].rstrip("\r"), known)), _uniques(known))
    for number, line in enumerate(lines[1:], 2):
        line = line.rstrip("\r")
        if not line:
            continue
        try:
            table.append(_row(table, line))
        except (ValueError, Refused) as error:
            raise ValueError(f"line {number}: {error}") from None
    return table


def _row(table: TextTable, line: str) -> Row:
    fields: list[str] = []
    at = -1
    while at < len(line):
        found = _FIELD.match(line, at + 1)
        assert found is not None
        fields.append(found[0])
        at = found.end()
        if at < len(line) and line[at] != ":":
            raise ValueError("a backslash at the end")
    if len(fields) != len(table.columns):
        raise ValueError(f"{len(fields)} fields for {len(table.columns)} columns")
    return tuple(column.parse(field) for column, field in zip(table.columns, fields, strict=True))


def _columns(line: str, known: Table | None) -> Iterator[TextColumn]:
    at = 0
    while at < len(line):
        found = _HEAD.match(line, at)
        if found is None:
            raise ValueError(f"line 1: {line[at : at + 40]!r} defines no column: write name(type) or name(type,null)")
        at = found.end()
        name, letter, rest, attribute = found[1], found[2].lower(), found[3], (found[4] or "").lower()
        kind = ("string" if "i" in rest.lower() else "str") if letter == "s" else _KINDS[letter]
        if attribute == "a" and kind not in ("int", "long"):
            raise ValueError(f"line 1: {name}: only numbers count by themselves")
        column = None if known is None else known.column(name)
        dated = kind == "time" or (column is not None and column.kind == "datetime")
        default = _default(column.default) if column is not None else None
        counts = attribute == "a" or (not attribute and column is not None and column.counts)
        yield TextColumn(name, kind, attribute == "n", counts, dated, default)
    if not line.strip():
        raise ValueError("line 1: no column is defined")


def _default(text: str | None) -> Any:
    """The Python value of a default as SQL writes it; times become what the column makes of them."""
    if text is None or text.startswith("'1900"):
        return None if text is None else 0
    return text.strip("'") if text.startswith("'") else float(text) if "." in text else int(text)


def _uniques(known: Table | None) -> list[Sequence[str]]:
    if known is None:
        return []
    keys: list[Sequence[str]] = [[column.name] for column in known.columns if column.key]
    return keys + [index.columns for index in known.indexes if index.unique]


_TEXT_KINDS = {
    "bigserial": "long",
    "bigint": "long",
    "float": "double",
    "double": "double",
    "char": "string",
    "text": "string",
    "blob": "blob",
    "mediumblob": "blob",
    "longblob": "blob",
}


def definition(table: Table) -> str:
    """The file of a table of OpenSIPS that has no rows yet."""
    columns = [
        TextColumn(column.name, _TEXT_KINDS.get(column.kind, "int"), column.null, column.counts) for column in table.columns
    ]
    return " ".join(map(str, columns)) + "\n"
