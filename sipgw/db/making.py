"""Making tables and looking at them: ``sipgw db create`` and ``sipgw db check``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sipgw.db.schema import VERSION_TABLE, Table, tables
from sipgw.db.session import Store, wanted

__all__ = ["Remark", "check", "create", "version_of"]


def create(store: Store, names: Sequence[str] = (), tell: Callable[[str], None] = lambda _line: None) -> int:
    """Make all tables, or those of ``names``, with their versions; how many were not there. What is there stays as it is."""
    known = tables()
    there = store.tables()
    chosen = [table for table in (wanted(known, names) if names else known.values()) if table.name != VERSION_TABLE]
    made = 0
    with store.transaction():
        if VERSION_TABLE not in there:
            store.create(known[VERSION_TABLE])
            tell(f"{VERSION_TABLE}: made")
        for table in chosen:
            if table.name in there:
                found = version_of(store, table.name)
                tell(f"{table.name}: is there already" + ("" if found is None else f", version {found}"))
                continue
            store.create(table)
            note_version(store, table.name, table.version)
            made += 1
            tell(f"{table.name}: made, version {table.version}")
    return made


def version_of(store: Store, table: str) -> int | None:
    """What the version table says of a table; None if nothing."""
    rows = store.select(VERSION_TABLE, ["table_version"], {"table_name": table}).rows
    return int(rows[0][0]) if rows else None


def note_version(store: Store, table: str, version: int) -> None:
    """Let the version table say that ``table`` has ``version``."""
    store.delete(VERSION_TABLE, {"table_name": table})
    store.insert(VERSION_TABLE, {"table_name": table, "table_version": version})


@dataclass(frozen=True)
class Remark:
    """What ``check`` says of a table; ``fault``: sipgw cannot work with it."""

    table: str
    text: str
    fault: bool = True

    def __str__(self) -> str:
        return f"{self.table}: {self.text}"


def check(store: Store, names: Sequence[str] = ()) -> Iterator[Remark]:
    """Compare the tables of ``names``, or all those that are there, with what sipgw needs."""
    known = tables()
    there = store.tables()
    if VERSION_TABLE not in there:
        yield Remark(VERSION_TABLE, f"is not there: sipgw db create {store.name} makes it")
        return
    if names:
        chosen = wanted(known, names)
    else:
        noted = {str(row[0]) for row in store.select(VERSION_TABLE, ["table_name"]).rows}
        chosen = [table for name, table in known.items() if name in there | noted]
        absent = len(known) - len(chosen)
        if absent:
            yield Remark(store.name, f"{absent} of {len(known)} tables are not there; sipgw db create makes them", False)
    for table in chosen:
        if table.name not in there:
            yield Remark(table.name, f"is not there: sipgw db create {store.name} {table.name} makes it")
        else:
            yield from _compare(store, table)


def _compare(store: Store, table: Table) -> Iterator[Remark]:
    """What is to be said of a table that is there."""
    faults = [] if table.name == VERSION_TABLE else _versions(store, table)
    found = {column.name: column for column in store.columns(table.name)}
    missing = [column.name for column in table.columns if column.name.lower() not in found]
    if missing and not faults:
        text = f"{', '.join(missing)} missing: sipgw db migrate {store.name} {table.name} adds them"
        faults.append(Remark(table.name, text))
    for column in found.values():
        if table.column(column.name) is not None:
            continue
        if column.null or column.default is not None:
            yield Remark(table.name, f"{column.name} is no column that sipgw knows; it stays as it is", False)
        elif not faults:
            text = f"{column.name} is no column that sipgw knows, and must have a value: give it a default, or let it be NULL"
            faults.append(Remark(table.name, text))
    yield from faults or [Remark(table.name, f"version {table.version}, as it should be", False)]


def _versions(store: Store, table: Table) -> list[Remark]:
    """The fault of a wrong version, and what is to be done."""
    version = version_of(store, table.name)
    if version == table.version:
        return []
    if version is None:
        return [Remark(table.name, f"the table {VERSION_TABLE} does not know it: sipgw needs version {table.version}")]
    text = f"version {version}, sipgw needs {table.version}: "
    if table.step(version) is not None:
        return [Remark(table.name, text + f"sipgw db migrate {store.name} {table.name} changes it")]
    if version > table.version:
        return [Remark(table.name, text + "it is of a newer OpenSIPS; use a database of its own for sipgw")]
    return [Remark(table.name, text + f"{UNKNOWN}")]


UNKNOWN = (
    "nobody knows how its rows become those of today. If they may go: drop the table and let sipgw db create make it anew;"
    " if not: rename it, create it anew, and insert what you need with SQL"
)
"""What to do with a table whose version is not in ``tables.txt``."""
