"""One SQL database (``interfaces.Database``): statements, the threads they run in, what is measured of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from sipgw.db.connections import Answer, Connections, Link
from sipgw.db.errors import Refused
from sipgw.db.statements import Statement, Statements, checked_text
from sipgw.interfaces import Change, Value, Where

__all__ = ["Engine", "Result", "SqlDatabase"]

_READS = re.compile(r"(?:\s|/\*.*?\*/|--[^\n]*\n|\()*(select|values|show|explain|describe)\b", re.IGNORECASE | re.DOTALL)
_CHANGES = re.compile(r"\s*(insert|update|delete|replace)\b", re.IGNORECASE)
_WRITES = re.compile(r"\b(into|update|nextval|setval|lock)\b", re.IGNORECASE)


class Result:
    """What a select gave (``interfaces.Rows``)."""

    __slots__ = ("_rows", "columns")

    def __init__(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
        self.columns = columns
        self._rows = rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        return self._rows[index]


class Index(NamedTuple):
    """A unique index: its columns in lower case, and whether the database itself counts them up."""

    columns: frozenset[str]
    counts: bool = False


class Engine(Protocol):
    """What one kind of database has of its own."""

    @property
    def scheme(self) -> str:
        """The scheme of its URLs."""

    @property
    def name(self) -> str:
        """Its URL without the password."""

    @property
    def statements(self) -> Statements:
        """How it spells statements."""

    def indexes(self, link: Link, table: str) -> list[Index]:
        """The unique indexes of a table; asked in a thread."""

    def quote(self, text: str) -> str:
        """``text`` as it may stand between quotes."""


class SqlDatabase:
    """A database behind ``readers`` and ``writers``: the same connections, unless its kind wants them apart.

    ``change`` runs what changes something, if not one by one in ``writers``."""

    def __init__(
        self,
        engine: Engine,
        readers: Connections,
        writers: Connections,
        change: Callable[[Callable[[Link], Any]], Deferred[Any]] | None = None,
    ) -> None:
        self.name = engine.name
        self.dialect = engine.scheme
        self._engine = engine
        self._statements = engine.statements
        self._readers = readers
        self._writers = writers
        self._write = change or (lambda ask: writers.run(ask, reads=False))
        self._indexes: dict[str, list[Index]] = {}

    async def start(self) -> None:
        """Connect once, so that what is wrong with the URL is said at once."""
        await self._readers.run(lambda link: link.execute("SELECT 1", ()), reads=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._readers.close()
        await self._writers.close()

    # ---- interfaces.Database ----

    async def select(
        self, table: str, columns: Sequence[str] = (), where: Where = (), *, order: str = "", limit: int = 0
    ) -> Result:
        """The rows of ``table`` (no columns: all), in the order of the column ``order``, ``limit`` at most if not 0."""
        text, values = self._statements.select(table, columns, where, order, limit)
        found = await self._readers.run(lambda link: link.execute(text, values), reads=True)
        return Result(found.columns, found.rows)

    async def insert(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row."""
        await self._change(self._statements.insert(table, values))

    async def update(self, table: str, values: Mapping[str, Value], where: Where) -> int:
        """Change rows; how many."""
        return await self._change(self._statements.update(table, values, where))

    async def delete(self, table: str, where: Where) -> int:
        """Delete rows; how many."""
        return await self._change(self._statements.delete(table, where))

    async def replace(self, table: str, values: Mapping[str, Value], keys: Sequence[str]) -> None:
        """Add one row, or change the one that has the same ``keys``."""
        await self.batch([Change("replace", table, values, keys=keys)])

    async def put(self, table: str, values: Mapping[str, Value]) -> None:
        """Add one row in place of those that have the same value in a unique index (MySQL's REPLACE, for scripts)."""
        say = self._statements
        insert = say.insert(table, values)
        columns = {name.lower(): name for name in values}

        def step(link: Link) -> None:
            for index in self._known(link, table):
                if index.columns <= columns.keys():
                    where = {columns[name]: values[columns[name]] for name in index.columns}
                    if None not in where.values():
                        link.execute(*say.delete(table, where), True)
            link.execute(*insert, True)

        await self._write(lambda link: _transaction(link, [step]))

    async def batch(self, changes: Sequence[Change]) -> None:
        """Do all of ``changes`` in order, in one transaction: when this returns they are on disk, when it raises none is."""
        steps = [self._step(change) for change in changes]
        if steps:
            await self._write(lambda link: _transaction(link, steps))

    async def query(self, text: str, values: Sequence[Value] = ()) -> Result:
        """Run a statement of the database's own language; ``?`` stands for each of ``values``."""
        text, bound = self._statements.raw(text, values)
        found: Answer
        if _CHANGES.match(text) is not None:
            found = await self._write(lambda link: link.execute(text, bound, True))
        else:
            reads = _READS.match(text) is not None and _WRITES.search(text) is None
            where = self._readers if reads else self._writers
            found = await where.run(lambda link: link.execute(text, bound, not reads), reads=reads)
        return Result(found.columns, found.rows)

    def quote(self, text: str) -> str:
        """``text`` as it may stand between quotes in a statement of a script."""
        return self._engine.quote(checked_text(text))

    # ---- changes ----

    async def _change(self, statement: Statement) -> int:
        text, values = statement
        answer: Answer = await self._write(lambda link: link.execute(text, values, True))
        return answer.count

    def _step(self, change: Change) -> Callable[[Link], Any]:
        """What does one change, in a thread."""
        say = self._statements
        kind, table = change.kind, change.table
        if kind == "replace":
            return self._replacement(change)
        if kind == "insert":
            text, values = say.insert(table, change.values)
        elif kind == "update":
            text, values = say.update(table, change.values, change.where)
        elif kind == "delete":
            text, values = say.delete(table, change.where)
        else:
            raise Refused(f"{kind!r} is no change")
        return lambda link: link.execute(text, values, True)

    def _replacement(self, change: Change) -> Callable[[Link], Any]:
        """A replace: one statement where the keys are those of a unique index, else an update and then an insert."""
        table, values, keys = change.table, change.values, change.keys
        missing = [key for key in keys if key not in values]
        if missing or not keys:
            raise Refused(f"a replace in {table} without its keys {missing}")
        say = self._statements
        upsert = say.replace(table, values, keys)
        insert = say.insert(table, values)
        update = say.update(table, values, {key: values[key] for key in keys})
        whole = all(values[key] is not None for key in keys)
        wanted = frozenset(key.lower() for key in keys)

        def step(link: Link) -> Any:
            if whole and self._upserts(link, table, wanted):
                link.execute(*upsert, True)
            elif not link.execute(*update, True).count:
                link.execute(*insert, True)

        return step


    def _known(self, link: Link, table: str) -> list[Index]:
        """The unique indexes of a table, asked for once; in a thread."""
        found = self._indexes.get(table)
        if found is None:
            found = self._indexes[table] = self._engine.indexes(link, table)
        return found

    def _upserts(self, link: Link, table: str, keys: frozenset[str]) -> bool:
        """Whether one statement can replace by ``keys``: they are an index, and (MySQL) a new row can meet no other."""
        indexes = self._known(link, table)
        if not any(index.columns == keys for index in indexes):
            return False
        return self._statements.upsert == "ON CONFLICT" or all(index.counts or index.columns == keys for index in indexes)


def _transaction(link: Link, steps: Sequence[Callable[[Link], Any]]) -> None:
    """All of ``steps`` or none, in a thread."""
    link.begin()
    try:
        for step in steps:
            step(link)
        link.commit()
    except BaseException:
        link.rollback()
        raise
