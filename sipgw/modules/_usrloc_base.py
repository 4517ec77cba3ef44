"""What usrloc is made of, beneath its functions and commands: parameters, tables of the kind that its working mode asks for,
their databases, expiry and events. The machinery is in ``proxy/location*.py``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import Module, event, param, requires, statistic
from sipgw.proxy.location import Binding, LocationTable
from sipgw.proxy.location_drafts import NotStored
from sipgw.proxy.location_rows import VERSION, Columns, Rows, written_socket
from sipgw.proxy.location_shared import Federated, Shared
from sipgw.proxy.location_sql import Backing, SqlOnly, WriteBack, WriteThrough
from sipgw.proxy.location_writer import Writer
from sipgw.proxy.working_mode import (
    CLUSTERS,
    PERSISTENCIES,
    PRESETS,
    WRITES,
    Mode,
    check_cluster,
    check_persistency,
    check_preset,
    check_write,
    resolve,
)
from sipgw.statistics import Gauge

SWEEP = 1000
"""Expired contacts that are removed in one turn of the reactor."""

_CLUSTER = "machines meet in their database: contacts need no clusterer"
CONTACT_PARAMETERS = tuple(
    "domain aor uri received path qval user_agent socket bflags expires callid cseq attr latency shtag".split()
)
"""What an event about a contact says."""

REFRESH_PARAMETERS = tuple(
    "domain aor uri received user_agent socket bflags expires callid attr shtag reason req_callid".split()
)
"""What the event says that asks for a phone to be woken."""

_PINGS = "contacts are not pinged yet (nathelper comes in a later version of sipgw), so there is no latency"


def column(value: str) -> None:
    """Refuse what cannot be the name of a column."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", value) is None:
        raise ValueError(f"{value!r} cannot be the name of a column")


def pinging(value: str) -> None:
    """Refuse what is no mode of pinging."""
    if value.lower() not in ("ownership", "cooperation"):
        raise ValueError("write ownership or cooperation")


def matching(value: int) -> None:
    """Refuse what is no matching mode."""
    if value not in (0, 1):
        raise ValueError("write 0 (by contact) or 1 (by contact and Call-ID)")


def positive(value: int) -> None:
    """Refuse zero and less."""
    if value < 1:
        raise ValueError("write 1 or more")


def not_negative(value: int) -> None:
    """Refuse less than zero."""
    if value < 0:
        raise ValueError("write 0 or more")


class Expired(Gauge):
    """How many contacts of one table have expired since the last reset."""

    __slots__ = ("_before",)

    def __init__(self, name: str, read: Callable[[], int]) -> None:
        super().__init__("usrloc", name, read)
        self._before = 0

    def read(self) -> int:
        """The number now."""
        return self._read() - self._before

    def reset(self) -> None:
        """Start again at zero."""
        self._before = self._read()


class UsrlocBase(Module):
    """The tables of one server."""

    later = {
        **dict.fromkeys(
            "ha_cluster ha_shtag skip_replicated_db_ops".split(),
            "machines that stand in for one another need a cluster protocol, which sipgw does not speak (docs/decisions/0020)",
        ),
        **dict.fromkeys("latency_event_min_us latency_event_min_us_delta".split(), _PINGS),
    }

    cachedb_redis: Any = requires("cachedb_redis", optional=True)

    working_mode_preset: str = param(
        "",
        "Where contacts are kept: " + ", ".join(PRESETS) + "; unset, the next three parameters say it",
        check=check_preset,
    )
    cluster_mode: str = param("none", "How machines share contacts: " + ", ".join(CLUSTERS), check=check_cluster)
    restart_persistency: str = param(
        "none", "Where contacts come from at the start: " + ", ".join(PERSISTENCIES), check=check_persistency
    )
    sql_write_mode: str = param("none", "When contacts are written to a database: " + ", ".join(WRITES), check=check_write)
    pinging_mode: str = param(
        "ownership",
        "Which machine pings a contact",
        check=pinging,
        unused="contacts are not pinged yet (nathelper comes in a later version of sipgw)",
    )
    db_url: str = param("", "The SQL database with the tables of contacts; unset, db_default_url")
    cachedb_url: str = param("", "The key-value store by which machines share contacts, such as redis://127.0.0.1/")
    location_cluster: int = param(0, "The cluster of the machines that share contacts", unused=_CLUSTER)
    max_contact_delete: int = param(10, "Rows of expired contacts deleted at once", check=positive)
    regen_broken_contactid: int = param(
        0, "Whether contacts get new ids if OpenSIPS would not take the ones they have in the database"
    )
    contact_id_column: str = param("contact_id", "The column with the id of a contact", check=column)
    user_column: str = param("username", "The column with the user", check=column)
    domain_column: str = param("domain", "The column with the domain, if use_domain is set", check=column)
    contact_column: str = param("contact", "The column with the URI of the contact", check=column)
    expires_column: str = param("expires", "The column with the end of the contact, in seconds since 1970", check=column)
    q_column: str = param("q", "The column with the q", check=column)
    callid_column: str = param("callid", "The column with the Call-ID", check=column)
    cseq_column: str = param("cseq", "The column with the CSeq", check=column)
    methods_column: str = param("methods", "The column with the methods that the contact takes", check=column)
    flags_column: str = param("flags", "The column with usrloc's own flags", check=column)
    cflags_column: str = param("cflags", "The column with the branch flags", check=column)
    user_agent_column: str = param("user_agent", "The column with the User-Agent", check=column)
    received_column: str = param("received", "The column with the URI where the REGISTER came from", check=column)
    path_column: str = param("path", "The column with the Path", check=column)
    socket_column: str = param("socket", "The column with the socket by which the contact is reached", check=column)
    sip_instance_column: str = param("sip_instance", "The column with the +sip.instance", check=column)
    kv_store_column: str = param("kv_store", "The column with the values of ul_add_key", check=column)
    attr_column: str = param("attr", "The column with the text of attr_avp", check=column)
    mi_dump_kv_store: int = param(0, "Whether commands that show contacts show the values of ul_add_key too")
    contact_refresh_timer: int = param(
        0, "Whether E_UL_CONTACT_REFRESH is raised before a phone that sleeps expires (registrar's pn_trigger_interval)"
    )
    nat_bflag: str = param("", "The branch flag that marks a contact behind NAT", flag=True)
    use_domain: int = param(1, "Whether the domain is part of an address-of-record")
    desc_time_order: int = param(0, "Whether the newest contact comes first, rather than the one with the highest q")
    timer_interval: int = param(60, "Seconds between two searches for expired contacts", check=positive)
    matching_mode: int = param(0, "How a contact is recognised: 0 by its URI, 1 by URI and Call-ID", check=matching)
    cseq_delay: int = param(20, "Seconds for which the same CSeq again counts as a retransmission", check=not_negative)
    hash_size: int = param(9, "Logarithm of the size of the hash table", unused="a Python dict grows by itself")

    aor_inserted = event("E_UL_AOR_INSERT", "domain", "aor")
    aor_deleted = event("E_UL_AOR_DELETE", "domain", "aor")
    contact_inserted = event("E_UL_CONTACT_INSERT", *CONTACT_PARAMETERS)
    contact_updated = event("E_UL_CONTACT_UPDATE", *CONTACT_PARAMETERS)
    contact_deleted = event("E_UL_CONTACT_DELETE", *CONTACT_PARAMETERS)

    contact_refresh = event("E_UL_CONTACT_REFRESH", *REFRESH_PARAMETERS)

    registered_users = statistic("users that have a contact, in all tables", read="count_users")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.tables: dict[str, LocationTable] = {}
        self.on_registered: list[Callable[[LocationTable, Binding], None]] = []
        """Called with each contact that was bound or refreshed."""
        self.writer: Writer | None = None
        self._backing: Backing | None = None
        self._redis: Any = None
        self._home = ""
        self._started = False
        self._timer: Any = None
        self._waker: Any = None
        super().__init__(server, **parameters)

    async def start(self) -> None:
        """Open the databases, load what is there, and begin to remove what expires."""
        mode, warnings = self._resolved()
        for warning in warnings:
            self.server.user.log(1, f"usrloc: {warning}")
        if mode.cachedb:
            await self._open_cache(mode)
        if mode.sql:
            await self._open_sql()
        for name, table in list(self.tables.items()):
            if mode == Mode():
                self._adjust(table)
            else:
                self.tables[name] = self._make(name)
        self._started = True
        for table in self.tables.values():
            await self._load(table)
        self._set_timer(self.server.user.clock())
        if self.contact_refresh_timer:
            self._waker = self.server.user.after(1, self._wake)

    async def stop(self) -> None:
        """Leave the timers, and write what is to be written."""
        for timer in (self._timer, self._waker):
            if timer is not None:
                timer.cancel()
        self._timer = self._waker = None
        if self.writer is not None:
            await self.writer.drain()
            try:
                await self.write_back()
            except NotStored as error:
                self.server.user.log(-1, f"what has changed of contacts is lost: {error}")
            self.writer.stop()

    # -- for other modules

    def table(self, name: str | LocationTable) -> LocationTable:
        """The table of that name, made now if it is new; ``ValueError`` for a name that no statistic could bear."""
        if isinstance(name, LocationTable):
            return name
        table = self.tables.get(name)
        if table is None:
            if not name or any(char <= " " or char in ":/" for char in name):
                raise ValueError(f"{name!r} cannot be the name of a location table")
            table = self.tables[name] = self._make(name) if self._started else self._plain(name)
            if self.server is not None:
                self._count(name)
            if self._started and self.mode != Mode():
                self.server.user.launch(self._load(table))
        return table

    @property
    def mode(self) -> Mode:
        """Where contacts are; in memory alone, as long as what the parameters say cannot be."""
        try:
            return self._resolved()[0]
        except ValueError:
            return Mode()

    def _resolved(self) -> tuple[Mode, list[str]]:
        return resolve(self.working_mode_preset, self.cluster_mode, self.restart_persistency, self.sql_write_mode)

    @property
    def nat_flag(self) -> int:
        """The mask of ``nat_bflag``, 0 if it is not set."""
        return int(self.nat_bflag or 0)

    # -- tables and their databases

    async def _open_sql(self) -> None:
        """Open the database of the tables."""
        database = await self.server.databases.open(self.db_url)
        names = {
            name.removesuffix("_column"): getattr(self, name) for name in self.exports.parameters if name.endswith("_column")
        }
        rows = Rows(self.server.user, Columns(**names), bool(self.use_domain))
        for name in self.tables:
            await self.server.databases.check(database, name, VERSION)
        self.writer = Writer(database, self.server.user, (next(iter(self.tables), "location"), rows.key))
        self._backing = Backing(
            rows, self.writer, self.max_contact_delete, self.matching_mode == 1, bool(self.regen_broken_contactid)
        )

    async def _open_cache(self, mode: Mode) -> None:
        """Open the key-value store of the tables."""
        if not self.cachedb_url:
            raise ValueError(f'{mode.cluster} needs cachedb_url, such as "redis://127.0.0.1/"')
        self._redis = getattr(await self.server.user.caches.open(self.cachedb_url), "redis", None)
        if self._redis is None:
            raise ValueError("cachedb_url must name a Redis: the others know no scripts")
        if mode.cluster == "federation-cachedb":
            if not self.use_domain:
                raise ValueError("federation-cachedb needs use_domain")
            socket = self.server.user.default_socket()
            host = (socket.advertised_host or socket.host) if socket is not None else ""
            if host in ("", "0.0.0.0", "::"):
                raise ValueError("federation-cachedb needs an address that other servers reach: set advertised_address")
            host = f"[{host}]" if ":" in host else host
            self._home = f"{host}:{socket.advertised_port or socket.port}"

    def _plain(self, name: str) -> LocationTable:
        """A table in memory."""
        table = LocationTable(name)
        table.watcher = self
        self._adjust(table)
        return table

    def _make(self, name: str) -> LocationTable:
        """A table of the kind that the working mode asks for."""
        mode = self.mode
        options: dict[str, Any] = {}
        kind: Any = LocationTable
        if mode.sql:
            options["backing"] = self._backing
            kind = WriteBack
            if mode.write != "write-back":
                kind = WriteThrough if mode.write == "write-through" else SqlOnly
                options["broken"] = self.server.user.broken
        elif mode.cachedb:
            user = self.server.user
            rows = Rows(user, use_domain=bool(self.use_domain))
            options = {"redis": self._redis, "rows": rows, "launch": user.launch, "broken": user.broken}
            kind = Shared
            if mode.cluster == "federation-cachedb":
                kind = Federated
                options["home"] = self._home
        table: LocationTable = kind(name, **options)
        table.watcher = self
        self._adjust(table)
        return table

    def _adjust(self, table: LocationTable) -> None:
        if not table.count:
            table.tick = self.timer_interval
            table.by_time = bool(self.desc_time_order)
            table.wakes = bool(self.contact_refresh_timer)

    async def _load(self, table: LocationTable) -> None:
        """Fill a table from its database."""
        if isinstance(table, WriteThrough | WriteBack):
            user = self.server.user
            begin = user.clock()
            count = await table.load()
            user.log(2, f"{count} contacts of {table.name} loaded in {user.clock() - begin:.2f} s")
            user.launch(self._quietly(table.delete_leftovers()))

    async def _quietly(self, work: Awaitable[Any]) -> None:
        """Do ``work``; what a database that is away leaves undone is done another time."""
        try:
            await work
        except (NotStored, DatabaseError) as error:
            self.server.user.log_rarely("usrloc database", -1, f"usrloc: {error}")

    async def write_back(self) -> None:
        """Write what has changed since the last time; ``NotStored`` if that cannot be done now."""
        for table in self.tables.values():
            if isinstance(table, WriteBack):
                await table.flush()

    def _count(self, name: str) -> None:
        statistics = self.server.statistics
        statistics.gauge("usrloc", f"{name}-users", lambda: len(self.tables[name]))
        statistics.gauge("usrloc", f"{name}-contacts", lambda: self.tables[name].count)
        statistics.add(Expired(f"{name}-expires", lambda: self.tables[name].expired))

    def count_users(self) -> int:
        """The addresses-of-record of all tables."""
        return sum(map(len, self.tables.values()))

    # -- expiry

    def _set_timer(self, now: float) -> None:
        """Wake up when the next tick begins, since then its contacts have expired."""
        self._timer = self.server.user.after(self.timer_interval - now % self.timer_interval, self._sweep)

    def _sweep(self, now: float) -> None:
        for table in self.tables.values():
            if table.sweep(now, SWEEP) >= SWEEP:
                self._timer = self.server.user.after(0.01, self._sweep)
                return
        self._set_timer(now)
        if self.mode != Mode():
            self.server.user.launch(self._quietly(self._write()))

    async def _write(self) -> None:
        """Write what is to be written now and then, and delete the rows that have expired."""
        await self.write_back()
        for table in self.tables.values():
            if isinstance(table, WriteThrough | WriteBack | SqlOnly):
                await table.clean()

    # -- phones that sleep

    def _wake(self, now: float) -> None:
        """Ask for those to be woken whose contact is about to expire."""
        for table in self.tables.values():
            for binding in table.to_wake(now):
                self.ask_to_wake(table, binding, "reg-refresh")
        self._waker = self.server.user.after(1, self._wake)

    def ask_to_wake(self, table: LocationTable, binding: Binding, reason: str, call_id: str = "") -> None:
        """Tell the script to wake a phone; ``call_id``: of the request that wants it."""
        if self.contact_refresh.heard:
            known = self._described(table, binding)
            said = {name: known[name] for name in REFRESH_PARAMETERS if name in known}
            self.contact_refresh.emit(**said, reason=reason, req_callid=call_id)

    # -- events (``Watcher`` of each table)

    def inserted(self, table: LocationTable, binding: Binding, first: bool) -> None:
        """Tell of a new contact."""
        if first:
            self.aor_inserted.emit(domain=table.name, aor=binding.aor)
        if self.contact_inserted.heard:
            self.contact_inserted.emit(**self._described(table, binding))
        for call in self.on_registered:
            call(table, binding)

    def changed(self, table: LocationTable, binding: Binding) -> None:
        """Tell of a refresh."""
        if self.contact_updated.heard:
            self.contact_updated.emit(**self._described(table, binding))
        for call in self.on_registered:
            call(table, binding)

    def removed(self, table: LocationTable, binding: Binding, last: bool) -> None:
        """Tell of a contact that is gone."""
        if self.contact_deleted.heard:
            self.contact_deleted.emit(**self._described(table, binding))
        if last:
            self.aor_deleted.emit(domain=table.name, aor=binding.aor)

    def _described(self, table: LocationTable, binding: Binding) -> dict[str, int | str]:
        """What events say of a contact; ``expires`` in seconds since 1970, 0 for ever. COMPAT: q in thousandths."""
        user = self.server.user
        ends = 0 if binding.expires == inf else round(user.wall_clock() + binding.expires - user.clock())
        return {
            "domain": table.name,
            "aor": binding.aor,
            "uri": binding.contact,
            "received": binding.received or "",
            "path": binding.path or "",
            "qval": binding.q,
            "user_agent": binding.user_agent or "n/a",
            "socket": "" if binding.socket is None else written_socket(binding.socket),
            "bflags": binding.flags,
            "expires": ends,
            "callid": binding.call_id,
            "cseq": binding.cseq,
            "attr": binding.attr or "",
            "latency": 0,
            "shtag": "",
        }
