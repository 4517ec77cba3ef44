"""sql_cacher: rows of SQL tables kept in a key-value store, read by ``$sql_cached_value(id:column:key)``.

A table is loaded whole when the server starts, and again a while before its rows expire; or row by row when somebody asks for
one (``on_demand``), and then a key that has no row is remembered too. A row is kept as JSON under its table's id and its key,
with the number of the reload it belongs to: when a reload is complete that number grows, and what is older counts no more. Where
it cannot wait (in a text of a modparam, as an argument that a function reads itself) the variable has what the store can say at
once."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sipgw.core.cachedb import Cache, CacheError, parse_url
from sipgw.core.status import Identifier
from sipgw.db.databases import hide_password
from sipgw.db.errors import DatabaseError
from sipgw.exports import Fixup, Module, function, mi, param, pvar
from sipgw.interfaces import Database, Value
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._sql_rows import check_avps, names_of, script_value
from sipgw.script.run import Run
from sipgw.script.symbols import Kind

Cached = int | str | None
NO_DATA, LOADING, READY, RELOADING = -2, -1, 1, 2
REQUIRED = ("id", "db_url", "cachedb_url", "table", "key")
KNOWN = {*REQUIRED, "key_type", "columns", "on_demand", "expire"}


def _check_avps(text: str) -> None:
    check_avps(text.replace(",", ";"))


def _one_character(text: str) -> None:
    if len(text) != 1:
        raise ValueError(f"{text!r} is not one character")


@dataclass
class Table:
    """One ``cache_table``."""

    id: str
    db_url: str
    cachedb_url: str
    table: str
    key: str
    integer_key: bool
    columns: list[str]
    on_demand: bool
    expire: int
    db: Database = field(init=False)
    store: Cache = field(init=False)
    status: Identifier | None = None
    keys: list[str] = field(default_factory=list)
    """Those that were loaded last, of a table that is loaded whole."""
    asked: dict[str, list[Deferred[None]]] = field(default_factory=dict)
    """Who waits for which key."""

    @property
    def counter(self) -> str:
        """The key of the number of the last reload."""
        return f"{self.id}_sql_cacher_reload_vers"


class SqlCacher(Module):
    """Keeps rows of SQL tables where they are found quickly."""

    cache_table: str = param("", "A table to be kept: id=, db_url=, cachedb_url=, table=, key= and more", each="add_table")
    spec_delimiter: str = param("\n", "What stands between the parts of cache_table", check=_one_character)
    pvar_delimiter: str = param(":", "What stands between the parts of $sql_cached_value", check=_one_character)
    columns_delimiter: str = param(" ", "What stands between the columns of cache_table", check=_one_character)
    sql_fetch_nr_rows: int = param(100, "How many rows are stored in one turn of the reactor")
    full_caching_expire: int = param(86400, "How long rows of tables that are loaded whole are kept, in seconds")
    reload_interval: int = param(60, "How long before that they are loaded again, in seconds")
    bigint_to_str: int = param(0, "Whether numbers of more than 32 bits become texts")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._tables: dict[str, Table] = {}
        self._avps: dict[str, Any] = {}
        self._timer: Any = None
        super().__init__(server, **parameters)

    def add_table(self, value: str) -> None:
        """Note a table; ``ValueError`` says what is wrong with it."""
        found: dict[str, str] = {}
        for piece in filter(None, map(str.strip, value.split(self.spec_delimiter))):
            name, equals, text = piece.partition("=")
            if not equals or name not in KNOWN or name in found or not text:
                raise ValueError(f"{piece!r} is no part of cache_table: write {', '.join(f'{each}=' for each in REQUIRED)} ...")
            found[name] = text
        missing = [name for name in REQUIRED if name not in found]
        if missing:
            raise ValueError(f"cache_table has no {', '.join(missing)}")
        if found.get("key_type", "string") not in ("string", "int"):
            raise ValueError(f"key_type is string or int, not {found['key_type']!r}")
        for name in ("on_demand", "expire"):
            if not found.get(name, "0").isdecimal():
                raise ValueError(f"{name} is a number, not {found[name]!r}")
        if found["id"] in self._tables:
            raise ValueError(f"there are two tables {found['id']!r}")
        self._tables[found["id"]] = Table(
            found["id"],
            found["db_url"],
            found["cachedb_url"],
            found["table"],
            found["key"],
            integer_key=found.get("key_type") == "int",
            columns=[name for name in found.get("columns", "").split(self.columns_delimiter) if name],
            on_demand=found.get("on_demand", "0") != "0",
            expire=int(found.get("expire", "3600")),
        )

    async def start(self) -> None:
        """Open databases and stores, find the columns, load what is to be loaded whole."""
        if self.full_caching_expire <= 0:
            self.full_caching_expire = 86400
        if not 0 < self.reload_interval < self.full_caching_expire:
            self.reload_interval = min(60, self.full_caching_expire // 2)
        for table in self._tables.values():
            table.db = await self.server.databases.open(table.db_url)
            table.store = await self._open_store(table.cachedb_url)
            probe: Value = 0 if table.integer_key else "sql_cacher"
            rows = await table.db.select(table.table, table.columns, {table.key: probe}, limit=1)
            table.columns = table.columns or list(rows.columns)
            if not table.on_demand:
                table.expire = self.full_caching_expire
                table.status = self.server.user.status.group("sql_cacher").identifier(table.id, NO_DATA, "no data loaded")
                await self._load(table, again=False)
        if any(not table.on_demand for table in self._tables.values()):
            self._later()

    async def stop(self) -> None:
        """Load no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def _open_store(self, url: str) -> Cache:
        caches = self.server.user.caches
        try:
            parts = parse_url(url)
            name = f"{parts.scheme}:{parts.group}" if parts.group else parts.scheme
            found: Cache = caches.find(name)
        except CacheError:
            found = await caches.open(url)
        return found

    # ---- loading ----

    def _later(self) -> None:
        self._timer = self.server.later(self.full_caching_expire - self.reload_interval, self._again)

    def _again(self) -> None:
        self._later()
        for table in self._tables.values():
            if not table.on_demand:
                self.server.user.launch(self._loaded(table))

    async def _loaded(self, table: Table) -> None:
        """Load a table again; a fault leaves what is there."""
        try:
            await self._load(table, again=True)
        except (DatabaseError, CacheError) as error:
            self.server.user.log(-1, f"sql_cacher: {table.id} is not loaded: {error}")

    async def _load(self, table: Table, *, again: bool) -> None:
        """Load a whole table: first all rows with the number to come, then that number, so that no row is missing meanwhile."""
        before = table.status.status if table.status is not None else READY
        self._say(table, "starting DB data loading", RELOADING if again else LOADING)
        try:
            rows = await table.db.select(table.table, [table.key, *table.columns])
            version = (await table.store.counter(table.counter) or 0) + again
            keys: list[str] = []
            for row in rows:
                if row[0] is None:
                    continue
                keys.append(str(row[0]))
                await self._put(table, keys[-1], row[1:], version)
                if not len(keys) % max(1, self.sql_fetch_nr_rows):
                    await deferLater(self.server.reactor, 0)
            if again:
                await table.store.add(table.counter, 1, 0)
            table.keys = keys
        except (DatabaseError, CacheError):
            self._say(table, "DB data loading failed, discarding", before if again else NO_DATA)
            raise
        self._say(table, f"{len(table.keys)} records loaded", READY)

    def _say(self, table: Table, text: str, status: int) -> None:
        if table.status is not None:
            table.status.report(text)
            table.status.set(status, text)

    async def _put(self, table: Table, key: str, row: tuple[Any, ...] | None, version: int) -> None:
        """Keep a row; None is a key without one."""
        values = None if row is None else [script_value(value, bool(self.bigint_to_str)) for value in row]
        await table.store.store(table.id + key, json.dumps([version, values]), table.expire)

    async def _load_key(self, table: Table, key: str) -> None:
        """Load one row; whoever asks for it meanwhile waits for the same answer."""
        waiting = table.asked.get(key)
        if waiting is not None:
            done: Deferred[None] = Deferred()
            waiting.append(done)
            await done
            return
        waiting = table.asked[key] = []
        try:
            if table.integer_key and not key.lstrip("-").isdecimal():
                rows: Any = []
            else:
                rows = await table.db.select(table.table, table.columns, {table.key: key}, limit=1)
            version = await table.store.counter(table.counter) or 0
            await self._put(table, key, rows[0] if len(rows) else None, version)
        finally:
            del table.asked[key]
            for each in waiting:
                each.callback(None)

    # ---- reading ----

    @pvar("sql_cached_value", named=True, waits="fetch", expands=True)
    def read(self, run: Run, name: str) -> Cached:
        """``$sql_cached_value(id:column:key)``: a column of the row with that key; null if there is none."""
        return _at_once(self.fetch(run, name))

    async def fetch(self, run: Run, name: str) -> Cached:
        """The same, waiting for the store or the database."""
        id_, _, rest = name.partition(self.pvar_delimiter)
        column, delimiter, key = rest.partition(self.pvar_delimiter)
        table = self._tables.get(id_)
        if table is None or not delimiter or column not in table.columns:
            wrong = f"there is no table {id_!r}" if table is None else f"{name!r} is not id:column:key of its columns"
            run.user.log_rarely(("sql_cacher", id_), 1, f"$sql_cached_value: {wrong}")
            return None
        try:
            found = await self._row(table, key)
        except (DatabaseError, CacheError) as error:
            run.user.log_rarely(("sql_cacher", type(error)), -1, f"$sql_cached_value: {table.id}: {error}")
            return None
        return None if found is None else found.get(column)

    async def _row(self, table: Table, key: str) -> Mapping[str, Cached] | None:
        """The row with that key, None if there is none."""
        for attempt in (0, 1):
            version = await table.store.counter(table.counter) or 0
            text = await table.store.fetch(table.id + key)
            if text is not None:
                kept, values = _unpacked(text)
                if kept >= version:
                    return None if values is None else dict(zip(table.columns, values, strict=False))
            if attempt or not table.on_demand:
                break
            await self._load_key(table, key)
        return None

    @function()
    async def sql_cache_dump(
        self, run: Run, caching_id: str, columns: str, result_avps: Annotated[str, Fixup(Kind.RAW), _check_avps]
    ) -> int:
        """Add all cached values of columns to AVPs; how many rows, -2 if there is none. Only of tables that are loaded whole."""
        table = self._tables.get(caching_id)
        names = [name.strip() for name in columns.split(",")]
        if result_avps not in self._avps:
            self._avps[result_avps] = names_of(result_avps.replace(",", ";"), self.server.symbols)
        avps = [name if isinstance(name, str) else str(name.get(run)) for name in self._avps[result_avps]]
        if table is None or table.on_demand or len(avps) != len(names) or not set(names) <= set(table.columns):
            run.user.log_rarely("sql_cache_dump", -1, f"sql_cache_dump: {caching_id!r} has no such columns to be dumped")
            return -1
        count = 0
        try:
            for key in table.keys:
                row = await self._row(table, key)
                if row is not None:
                    count += 1
                    for avp, name in zip(avps, names, strict=True):
                        value = row[name]
                        run.avps.setdefault(avp, []).append("<null>" if value is None else value)
        except CacheError as error:
            run.user.log_rarely("sql_cache_dump", -1, f"sql_cache_dump: {table.id}: {error}")
            return -1
        return count or -2

    @mi(alias="sql_cacher_reload", recipes=(("id",), ("id", "key")))
    async def reload(self, id: str, key: str = "") -> None:
        """Loads a table or a row again; of a table whose rows are loaded on demand, forgets them all."""
        table = self._tables.get(id)
        if table is None:
            raise MIError(500, "ERROR Cache entry not found")
        try:
            if key:
                await self._load_key(table, key)
            elif table.on_demand:
                await table.store.add(table.counter, 1, 0)
            else:
                await self._load(table, again=True)
        except (DatabaseError, CacheError) as error:
            self.server.user.log(-1, f"sql_cacher:reload: {hide_password(table.id)}: {error}")
            raise MIError(500, "ERROR Reloading the SQL table") from None


def _unpacked(text: str) -> tuple[int, list[Cached] | None]:
    """The number and the values of what is kept; of something else a number that no longer counts."""
    try:
        version, values = json.loads(text)
        return int(version), values
    except (ValueError, TypeError):
        return -1, None


def _at_once(coroutine: Coroutine[Any, Any, Cached]) -> Cached:
    """What a coroutine gives if it need not wait, else null."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        found: Cached = stop.value
        return found
    coroutine.close()
    return None
