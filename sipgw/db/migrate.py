"""``sipgw db migrate``: tables of older OpenSIPS releases become those of today, and no row is lost.

The old table is kept beside the new one, as ``subscriber_v7``. SQLite and PostgreSQL do all of it in one transaction. MySQL
cannot: there the new table is filled beside the old one, and both are renamed in one step when it is complete, so that a failure
before leaves all as it was. The server should not run meanwhile: what it writes while rows are copied may be found in the kept
table only. Columns that are not of today's table are kept in it if any row has something there (many a ``subscriber`` has some
that ``load_credentials`` reads); they may be NULL then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sipgw.db.errors import DatabaseError, Refused, Unsupported
from sipgw.db.making import UNKNOWN, note_version, version_of
from sipgw.db.schema import VERSION_TABLE, Column, Step, Table, create_statements, tables
from sipgw.db.session import Found, Session, Store, wanted

__all__ = ["migrate"]

_EPOCH = {
    "sqlite": "CAST(strftime('%s', {0}, 'utc') AS INTEGER)",
    "mysql": "UNIX_TIMESTAMP({0})",
    "postgres": "CAST(LEAST(EXTRACT(EPOCH FROM CAST({0} AS TIMESTAMP WITH TIME ZONE)), 2147483647) AS INTEGER)",
}
"""A local time as seconds since 1970."""


def migrate(session: Store, names: Sequence[str] = (), tell: Callable[[str], None] = lambda _line: None) -> int:
    """Bring the tables of ``names``, or all that are there, to today's version; how many could not be."""
    if not isinstance(session, Session):
        raise Unsupported(f"{session.name}: text files are not migrated; what dump writes of a database that is, load reads")
    there = session.tables()
    if VERSION_TABLE not in there:
        raise Refused(f"{session.name} has no table {VERSION_TABLE}: it is no database of OpenSIPS; sipgw db create makes one")
    refused = 0
    for table in wanted(tables(), names) if names else [table for table in tables().values() if table.name in there]:
        if table.name == VERSION_TABLE:
            continue
        if table.name not in there:
            raise Refused(f"{session.name} has no table {table.name}: sipgw db create makes it")
        version = version_of(session, table.name)
        columns = session.columns(table.name)
        step = _step(table, version, columns)
        if step is None:
            refused += 1
            tell(f"{table.name}: version {version} stays: {UNKNOWN}")
        elif step.version == table.version and not step.expression and _complete(table, columns):
            tell(f"{table.name}: version {version}, as it should be")
        else:
            _Migration(session, table, step, columns).run(tell)
    return refused


def _complete(table: Table, columns: Sequence[Found]) -> bool:
    names = {column.name for column in columns}
    return all(column.name.lower() in names for column in table.columns)


def _step(table: Table, version: int | None, columns: Sequence[Found]) -> Step | None:
    """How rows of that version are carried over; releases have added columns without another version, too."""
    if version is None:
        return None
    return Step(version) if version == table.version else table.step(version)


class _Migration:
    """One table on its way."""

    def __init__(self, session: Session, table: Table, step: Step, columns: Sequence[Found]) -> None:
        self._session = session
        self._table = table
        self._old = {column.name: column for column in columns}
        self._step = step
        self._kept = f"{table.name}_v{step.version}"

    def run(self, tell: Callable[[str], None]) -> None:
        """Do it, and tell."""
        session, table = self._session, self._table
        if self._kept in session.tables():
            if self._was_renamed():
                note_version(session, table.name, table.version)
                tell(f"{table.name}: version {table.version} now: an earlier migration was broken off just before its end")
                return
            raise Refused(f"{table.name}: a table {self._kept} is there already; rename or drop it, then try again")
        own = [column for column in self._old.values() if self._is_own(column)]
        more = [f"{column.name} {column.type} NULL" for column in own]
        count = self._count(table.name)
        if session.dialect == "mysql":
            self._by_renaming(own, more, count)
        else:
            self._in_one(own, more, count)
        kept = f"; {', '.join(column.name for column in own)} kept" if own else ""
        tell(
            f"{table.name}: version {self._step.version} is {table.version} now, {_rows(count)}{kept}."
            f" The old one is {self._kept}: drop it once all is well"
        )

    def _was_renamed(self) -> bool:
        """Whether all is done but for the version, which MySQL cannot change in the same step: then it must not be done twice."""
        if self._session.dialect != "mysql" or not _complete(self._table, [*self._old.values()]):
            return False
        return self._count(self._kept) <= self._count(self._table.name)

    def _is_own(self, column: Found) -> bool:
        """Whether a column is none of ours, and some row has something in it."""
        if self._table.column(column.name) is not None or self._step.expression == column.name:
            return False
        name = self._session.say.name(column.name)
        values = self._session.run(f"SELECT DISTINCT {name} FROM {self._table.name} LIMIT 3").rows
        return any(value not in (None, "", 0, b"") for (value,) in values)

    def _count(self, table: str) -> int:
        return int(self._session.run(f"SELECT COUNT(*) FROM {table}").rows[0][0])

    def _in_one(self, own: Sequence[Found], more: Sequence[str], count: int) -> None:
        """In one transaction: the rows aside, the table anew, the rows back."""
        session, table = self._session, self._table
        with session.transaction():
            grants = self._grants()
            session.run(f"CREATE TABLE {self._kept} AS SELECT * FROM {table.name}")
            session.run(f"DROP TABLE {table.name}")
            for statement in create_statements(table, session.dialect, more=more):
                session.run(statement)
            self._copy(self._kept, table.name, own)
            self._compare(table.name, count)
            session.settle(table)
            for statement in grants:
                session.run(statement)
            note_version(session, table.name, table.version)

    def _by_renaming(self, own: Sequence[Found], more: Sequence[str], count: int) -> None:
        """Beside the old one, then both renamed at once."""
        session, table = self._session, self._table
        new = f"{table.name}_v{table.version}_new"
        session.run(f"DROP TABLE IF EXISTS {new}")
        try:
            for statement in create_statements(table, session.dialect, new, more):
                session.run(statement)
            with session.transaction():
                self._copy(table.name, new, own)
            self._compare(new, self._count(table.name))
            session.run(f"RENAME TABLE {table.name} TO {self._kept}, {new} TO {table.name}")
        except BaseException:
            session.run(f"DROP TABLE IF EXISTS {new}")
            raise
        with session.transaction():
            note_version(session, table.name, table.version)

    def _copy(self, source: str, target: str, own: Sequence[Found]) -> None:
        pairs = [(column.name, self._expression(column)) for column in self._table.columns]
        pairs += [(column.name, self._session.say.name(column.name)) for column in own]
        given = [(name, text) for name, text in pairs if text]
        names = ", ".join(name for name, _ in given)
        self._session.run(f"INSERT INTO {target} ({names}) SELECT {', '.join(text for _, text in given)} FROM {source}")

    def _expression(self, column: Column) -> str:
        """What of an old row becomes of ``column``; empty where its default does."""
        if self._step.column == column.name:
            text = self._step.expression
            if text.startswith("@epoch("):
                text = _EPOCH[self._session.dialect].format(text[len("@epoch(") : -1])
            return text
        old = self._old.get(column.name.lower())
        if old is not None:
            if old.null and not column.null and not column.key:
                return f"COALESCE({column.name}, {_zero(column)})"
            return column.name
        return "" if column.null or column.key or column.default is not None else _zero(column)

    def _compare(self, table: str, count: int) -> None:
        found = self._count(table)
        if found != count:
            text = f"{self._table.name} had {_rows(count)}, {found} came over: nothing is changed. Is a server running?"
            raise DatabaseError(text)

    def _grants(self) -> list[str]:
        """Statements that let others do with the new table what they may do with the old one; a table of PostgreSQL forgets."""
        session, table = self._session, self._table
        if session.dialect != "postgres":
            return []
        rows = session.run(
            "SELECT DISTINCT grantee, privilege_type FROM information_schema.role_table_grants"
            " WHERE table_schema = current_schema() AND table_name = ? AND grantee <> current_user",
            [table.name],
        ).rows
        grants: list[str] = []
        for grantee, privilege in rows:
            to = "PUBLIC" if grantee == "PUBLIC" else '"' + str(grantee).replace('"', '""') + '"'
            grants.append(f"GRANT {privilege} ON {table.name} TO {to}")
            if privilege == "INSERT":
                counted = [column.name for column in table.columns if column.counts]
                grants += [f"GRANT USAGE, SELECT ON SEQUENCE {table.name}_{name}_seq TO {to}" for name in counted]
        owner = session.run(
            "SELECT tableowner FROM pg_tables WHERE tablename = ? AND schemaname = current_schema()", [table.name]
        )
        return grants + [f'ALTER TABLE {table.name} OWNER TO "{row[0]}"' for row in owner.rows]


def _zero(column: Column) -> str:
    """What stands in a column that must have a value where there is none."""
    if column.default is not None:
        return column.default
    if column.is_number or column.kind in ("float", "double"):
        return "0"
    return "'1900-01-01 00:00:01'" if column.kind == "datetime" else "''"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
