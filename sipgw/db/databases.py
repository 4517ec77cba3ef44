"""The databases of one server, by their URLs: opened once, shared by all modules that name the same one.

The modules ``db_*`` say which schemes there are (``add``). Whoever needs a database asks for it at its start: an URL that is
wrong, or whose module is not loaded, ends the start with what to write instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from sipgw.db.errors import DatabaseError, Unsupported
from sipgw.db.measures import queries
from sipgw.interfaces import Database
from sipgw.statistics import Statistics

__all__ = ["Engines", "hide_password", "scheme_of"]

_SCHEME = re.compile(r"([a-z][a-z0-9_+.-]*):", re.IGNORECASE)
_PASSWORD = re.compile(r"(//[^:@/]*):.*@")


def scheme_of(url: str) -> str:
    """What stands before the first colon; ``DatabaseError`` if nothing does."""
    found = _SCHEME.match(url)
    if found is None:
        raise DatabaseError(f"{hide_password(url)!r} is no URL: write scheme://user:password@host:port/database")
    return found.group(1).lower()


def hide_password(url: str) -> str:
    """``url`` as it may stand in a log."""
    return _PASSWORD.sub(r"\1:***@", url)


async def _close(database: Database) -> None:
    close = getattr(database, "close", None)
    if close is not None:
        await close()


class Engines:
    """What ``interfaces.Databases`` asks for.

    ``settings`` are the global parameters of the script (``db_default_url``, ``db_version_table``). A database may have two
    coroutine functions more than the interface says: ``start``, which connects, and ``close``."""

    def __init__(self, settings: Mapping[str, Any], statistics: Statistics | None = None) -> None:
        self._settings = settings
        if statistics is not None:
            queries(statistics)
        self._engines: dict[str, Callable[[str], Database]] = {}
        self._open: dict[str, Database] = {}

    def add(self, scheme: str, engine: Callable[[str], Database]) -> None:
        """Let ``engine(url)`` make the databases whose URLs begin with ``scheme:``."""
        self._engines[scheme] = engine

    async def open(self, url: str) -> Database:
        """The database of ``url``, of ``db_default_url`` if that is empty; ``DatabaseError`` says what is wrong with it."""
        url = url or str(self._settings.get("db_default_url") or "")
        if not url:
            raise DatabaseError("no database is named: set db_url, or db_default_url for all modules")
        found = self._open.get(url)
        if found is None:
            scheme = scheme_of(url)
            engine = self._engines.get(scheme)
            if engine is None:
                module = "db_postgres" if scheme.startswith("postgres") else f"db_{scheme}"
                raise DatabaseError(f'no module is loaded for {hide_password(url)}: loadmodule "{module}.so"')
            found = engine(url)
            start = getattr(found, "start", None)
            if start is not None:
                try:
                    await start()
                except BaseException:
                    await _close(found)
                    raise
            self._open[url] = found
        return found

    async def close(self) -> None:
        """Close all of them, those first that were opened last."""
        while self._open:
            await _close(self._open.popitem()[1])

    async def check(self, database: Database, table: str, version: int) -> None:
        """Compare the version of ``table`` with what the version table says; where nothing can be asked, nothing is compared."""
        versions = str(self._settings.get("db_version_table") or "version")
        try:
            rows = await database.select(versions, ["table_version"], {"table_name": table})
        except Unsupported:
            return
        if not len(rows):
            raise DatabaseError(f"{database.name} has no table {table}, says its table {versions}: sipgw db create makes it")
        found = rows[0][0]
        if int(found) != version:
            raise DatabaseError(
                f"the table {table} of {database.name} has version {found}, sipgw needs {version}: sipgw db migrate changes it"
            )
