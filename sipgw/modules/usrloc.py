"""usrloc: where users can be reached. The tables that registrar fills and reads, their statistics and management commands.

Contacts live in memory (``working_mode_preset`` "single-instance-no-db"); the machinery is in ``proxy/location.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf
from typing import Any

from sipgw.exports import Constant, Module, Writable, event, function, mi, param, statistic
from sipgw.mi.jsonrpc import MIError
from sipgw.proxy.location import AOR_CONTACTS, Binding, LocationTable, binding_key, find_contact
from sipgw.proxy.register import Rejected, read_q, written_q
from sipgw.script.run import Run
from sipgw.script.symbols import ModuleSymbols, Parameter
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri
from sipgw.statistics import Gauge

SWEEP = 1000
"""Expired contacts that are removed in one turn of the reactor."""
PRESET = "single-instance-no-db"

_DATABASE = "contacts in a database come in a later version of sipgw, this one keeps them in memory"
_CLUSTER = "contacts shared between machines come in a later version of sipgw, this one keeps them in its own memory"
CONTACT_PARAMETERS = tuple(
    "domain aor uri received path qval user_agent socket bflags expires callid cseq attr latency shtag".split()
)
"""What an event about a contact says."""

REFRESH_PARAMETERS = tuple(
    "domain aor uri received user_agent socket bflags expires callid attr shtag reason req_callid".split()
)
"""What the event says that asks for a phone to be woken."""

_PINGS = "contacts are not pinged yet (nathelper comes in a later version of sipgw), so there is no latency"


def only_memory(value: str) -> None:
    """Refuse each working mode but the one without a database."""
    if value != PRESET:
        raise ValueError(f"only {PRESET!r} is possible: {_CLUSTER if 'cluster' in value else _DATABASE}")


def only(word: str, why: str) -> Callable[[str], None]:
    """A check that refuses every value but ``word``."""

    def check(value: str) -> None:
        if value != word:
            raise ValueError(f"only {word!r} is possible: {why}")

    return check


def pinging(value: str) -> None:
    """Refuse what is no mode of pinging."""
    if value not in ("ownership", "cooperation"):
        raise ValueError("write 'ownership' or 'cooperation'")


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


class Usrloc(Module):
    """Keeps the contacts of users, in memory."""

    later = {
        **dict.fromkeys(
            """db_url contact_id_column user_column domain_column contact_column expires_column q_column callid_column cseq_column
            methods_column flags_column cflags_column user_agent_column received_column path_column socket_column
            sip_instance_column kv_store_column attr_column""".split(),
            _DATABASE,
        ),
        **dict.fromkeys("cachedb_url location_cluster ha_cluster ha_shtag skip_replicated_db_ops".split(), _CLUSTER),
        **dict.fromkeys("latency_event_min_us latency_event_min_us_delta".split(), _PINGS),
    }

    working_mode_preset: str = param(PRESET, "Where contacts are kept", check=only_memory)
    cluster_mode: str = param("none", "How machines share contacts: they do not", check=only("none", _CLUSTER))
    restart_persistency: str = param("none", "Where contacts come from at the start: nowhere", check=only("none", _DATABASE))
    sql_write_mode: str = param("none", "When contacts are written to a database: never", check=only("none", _DATABASE))
    pinging_mode: str = param(
        "ownership", "Which machine pings a contact", check=pinging, unused="there is one machine, and all contacts are its own"
    )
    max_contact_delete: int = param(10, "Contacts deleted from a database at once", unused="there is no database")
    regen_broken_contactid: int = param(
        0, "Whether wrong contact ids of a database are replaced", unused="there is no database, ids are counted from the start"
    )
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
        self._timer: Any = None
        self._waker: Any = None
        super().__init__(server, **parameters)

    @classmethod
    def declared(cls, instance: Module | None = None) -> ModuleSymbols:
        """What the compiler sees: with ``instance``, a table is there as soon as a script names it."""
        return with_tables(super().declared(instance), instance if isinstance(instance, Usrloc) else None)

    async def start(self) -> None:
        """Begin to remove what expires."""
        for table in self.tables.values():
            self._adjust(table)
        self._set_timer(self.server.user.clock())
        if self.contact_refresh_timer:
            self._waker = self.server.user.after(1, self._wake)

    async def stop(self) -> None:
        """Leave the timers."""
        for timer in (self._timer, self._waker):
            if timer is not None:
                timer.cancel()
        self._timer = self._waker = None

    # -- for other modules

    def table(self, name: str | LocationTable) -> LocationTable:
        """The table of that name, made now if it is new; ``ValueError`` for a name that no statistic could bear."""
        if isinstance(name, LocationTable):
            return name
        table = self.tables.get(name)
        if table is None:
            if not name or any(char <= " " or char in ":/" for char in name):
                raise ValueError(f"{name!r} cannot be the name of a location table")
            table = self.tables[name] = LocationTable(name)
            table.watcher = self
            self._adjust(table)
            if self.server is not None:
                self._count(table)
        return table

    @property
    def nat_flag(self) -> int:
        """The mask of ``nat_bflag``, 0 if it is not set."""
        return int(self.nat_bflag or 0)

    def _adjust(self, table: LocationTable) -> None:
        if not table.count:
            table.tick = self.timer_interval
            table.by_time = bool(self.desc_time_order)
            table.wakes = bool(self.contact_refresh_timer)

    def _count(self, table: LocationTable) -> None:
        statistics = self.server.statistics
        statistics.gauge("usrloc", f"{table.name}-users", lambda: len(table))
        statistics.gauge("usrloc", f"{table.name}-contacts", lambda: table.count)
        statistics.add(Expired(f"{table.name}-expires", lambda: table.expired))

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

    # -- script functions

    @function()
    def ul_add_key(self, run: Run, domain: Constant, aor: str, key_name: str, key_value: str | None = None) -> bool:
        """Keep a value with a registered user; without a value, forget it. False if the user has no contact."""
        return self.table(domain).keep(aor, key_name, key_value)

    @function()
    def ul_get_key(self, run: Run, domain: Constant, aor: str, key_name: str, destination: Writable) -> bool:
        """Read a value that is kept with a registered user. False if there is none."""
        value = self.table(domain).values(aor).get(key_name)
        if value is None:
            return False
        destination.set(run, value)
        return True

    @function()
    def ul_del_key(self, run: Run, domain: Constant, aor: str, key_name: str) -> bool:
        """Forget a value that is kept with a registered user. False if the user has no contact."""
        return self.ul_add_key(run, domain, aor, key_name)

    # -- management commands

    def _table(self, name: str) -> LocationTable:
        table = self.tables.get(name)
        if table is None:
            raise MIError(404, "Table not found")
        return table

    def _aor(self, text: str) -> str:
        """The address-of-record as tables have it."""
        user, at, _ = text.rpartition("@")
        if not self.use_domain:
            return user if at else text
        if not at:
            raise MIError(400, "Domain missing in AOR")
        return text

    @mi(alias="ul_rm")
    def rm(self, table_name: str, aor: str) -> None:
        """Forget a user with all contacts."""
        table = self._table(table_name)
        bindings = [*table.bindings(self._aor(aor))]
        if not bindings:
            raise MIError(404, "AOR not found")
        for binding in bindings:
            table.remove(binding)

    @mi(alias="ul_rm_contact")
    def rm_contact(self, table_name: str, aor: str, contact: str) -> None:
        """Forget one contact of a user."""
        table = self._table(table_name)
        bindings = table.bindings(self._aor(aor))
        if not bindings:
            raise MIError(404, "AOR not found")
        for binding in bindings:
            if binding.contact == contact:
                table.remove(binding)
                return
        raise MIError(404, "Contact not found")

    @mi(alias="ul_dump")
    def dump(self, brief: str = "") -> dict[str, Any]:
        """Show all contacts; with ``brief`` (1, or the word itself) the users alone."""
        whole = brief in ("", "0")
        now = self.server.user.clock()
        return {
            "Domains": [
                {"name": table.name, "hash_size": 1 << self.hash_size, "AORs": self._records(table, whole, now)}
                for table in self.tables.values()
            ]
        }

    def _records(self, table: LocationTable, whole: bool, now: float) -> Iterator[dict[str, Any]]:
        for aor, bindings in table:
            yield self._record(table, aor, bindings, now) if whole else {"AOR": aor}

    def _record(self, table: LocationTable, aor: str, bindings: tuple[Binding, ...], now: float) -> dict[str, Any]:
        shown: dict[str, Any] = {"AOR": aor, "Contacts": [self._shown(binding, now) for binding in bindings]}
        if self.mi_dump_kv_store and table.values(aor):
            shown["KV-Store"] = json.dumps(table.values(aor), separators=(",", ":"), ensure_ascii=False)
        return shown

    def _shown(self, binding: Binding, now: float) -> dict[str, Any]:
        """One contact as the management interface shows it."""
        expires: int | str = binding.seconds_left(now)
        if binding.expires == inf:
            expires = "permanent"
        elif binding.expires <= now:
            expires = "expired"
        shown: dict[str, Any] = {
            "Contact": binding.contact,
            "ContactID": str(binding.serial),
            "Expires": expires,
            "Q": written_q(binding.q) if binding.q >= 0 else "",
            "Callid": binding.call_id,
            "Cseq": binding.cseq,
            "User-agent": binding.user_agent or "n/a",
        }
        if binding.received:
            shown["Received"] = binding.received
        if binding.path:
            shown["Path"] = binding.path
        shown["State"] = "CS_NEW"
        shown["Flags"] = binding.marks
        shown["Cflags"] = " ".join(self.server.user.branch_flags.names(binding.flags))
        if binding.socket is not None:
            shown["Socket"] = written_socket(binding.socket)
        shown["Methods"] = binding.methods
        if binding.attr:
            shown["Attr"] = binding.attr
        if binding.instance:
            shown["SIP_instance"] = binding.instance
        return shown

    @mi(alias="ul_show_contact")
    def show_contact(self, table_name: str, aor: str) -> dict[str, Any]:
        """Show the contacts of one user."""
        table = self._table(table_name)
        aor = self._aor(aor)
        bindings = table.bindings(aor)
        if not bindings:
            raise MIError(404, "AOR not found")
        return self._record(table, aor, tuple(bindings), self.server.user.clock())

    @mi(alias="ul_flush")
    def flush(self) -> None:
        """Write what is not yet in the database: nothing, contacts are in memory alone."""

    @mi(alias="ul_sync")
    def sync(self, table_name: str, aor: str = "") -> None:
        """Make the database like the memory; refused, as by OpenSIPS without a database."""
        raise MIError(200, "Contacts already synced")

    @mi(alias="ul_cluster_sync")
    def cluster_sync(self) -> None:
        """Take over the contacts of another machine of the cluster; refused, there is none."""
        raise MIError(400, "Clustering not enabled")

    @mi(alias="ul_add")
    def add(
        self, table_name: str, aor: str, contact: str, expires: int, q: str, flags: int, cflags: int, methods: int
    ) -> None:
        """Bind a contact to a user for so many seconds, 0 for ever; what is bound already gets the new values."""
        table = self._table(table_name)
        aor = self._aor(aor)
        try:
            uri = Uri.parse(contact)
            thousandths = read_q(q) if q else -1
        except (MalformedMessage, Rejected):
            raise MIError(400, "Bad parameter value") from None
        if not (uri.is_sip or uri.scheme == "tel") or thousandths < 0 or min(expires, flags, cflags, methods) < 0:
            raise MIError(400, "Bad parameter value")
        now = self.server.user.clock()
        bindings = table.live(aor, now)
        binding = find_contact(bindings, contact)
        old_q = None if binding is None else binding.q
        if binding is None:
            if len(bindings) >= AOR_CONTACTS or table.count >= table.capacity:
                raise MIError(503, "Too many registered contacts")
            binding = Binding(aor, contact, binding_key(uri), 0.0, "mi@sipgw", 0, now)
            binding.user_agent = "sipgw MI"
        binding.expires = now + expires if expires else inf
        binding.cseq += 1
        binding.modified = now
        binding.q = thousandths
        binding.marks = flags
        binding.flags = cflags
        binding.methods = methods
        if old_q is None:
            table.insert(binding)
        else:
            table.changed(binding, old_q)


def written_socket(socket: Any) -> str:
    """A socket as ``udp:127.0.0.1:5060``."""
    host = f"[{socket.host}]" if ":" in socket.host else socket.host
    return f"{socket.transport}:{host}:{socket.port}"


def with_tables(symbols: ModuleSymbols, usrloc: Usrloc | None) -> ModuleSymbols:
    """``symbols`` with functions that make the table of their constant parameter ``domain`` when the script is compiled.

    So a table is in the statistics and in ``usrloc:dump`` before its first contact, as in OpenSIPS."""
    if usrloc is None:
        return symbols
    functions = tuple(
        replace(each, parameters=tuple(_making_table(parameter, usrloc) for parameter in each.parameters))
        for each in symbols.functions
    )
    return replace(symbols, functions=functions)


def _making_table(parameter: Parameter, usrloc: Usrloc) -> Parameter:
    return replace(parameter, check=usrloc.table) if parameter.name == "domain" else parameter
