"""usrloc: where users can be reached. The tables that registrar fills and reads, their statistics and management commands.

Contacts live in memory, in a database, or in both (``working_mode_preset``); the machinery is in ``proxy/location*.py``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any, TypeVar

from sipgw.db.errors import DatabaseError
from sipgw.exports import Constant, Module, Writable, function, mi
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._usrloc_base import UsrlocBase
from sipgw.proxy.location import AOR_CONTACTS, MEMORY_ONLY, Binding, LocationTable, binding_key, find_contact
from sipgw.proxy.location_drafts import NotStored, Remote
from sipgw.proxy.location_rows import written_socket
from sipgw.proxy.location_sql import WriteBack, WriteThrough
from sipgw.proxy.register import Rejected, read_q, written_q
from sipgw.script.run import Run
from sipgw.script.symbols import ModuleSymbols, Parameter
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

T = TypeVar("T")


class Usrloc(UsrlocBase):
    """Keeps the contacts of users, in memory, in a database, or in both."""

    @classmethod
    def declared(cls, instance: Module | None = None) -> ModuleSymbols:
        """What the compiler sees: with ``instance``, a table is there as soon as a script names it."""
        symbols = super().declared(instance)
        return with_tables(instance.coloured(symbols, instance), instance) if isinstance(instance, Usrloc) else symbols

    # -- script functions

    writers = {"ul_add_key": "add_key_waiting", "ul_del_key": "add_key_waiting"}
    """The functions that wait where changes do, and what takes their place."""
    readers = {"ul_get_key": "get_key_waiting"}
    """The functions that wait where nothing is in memory."""

    def coloured(self, symbols: ModuleSymbols, module: Any) -> ModuleSymbols:
        """``symbols`` of ``module``, whose ``writers`` and ``readers`` wait if the working mode wants that."""
        mode = self.mode
        names = {**(module.writers if mode.waits else {}), **(module.readers if mode.remote else {})}
        if mode.cluster == "federation-cachedb" and "lookup" in module.readers:
            names["lookup"] = module.readers["lookup"]
        functions = tuple(
            replace(each, call=getattr(module, names[each.name]), waits=True) if each.name in names else each
            for each in symbols.functions
        )
        return replace(symbols, functions=functions)

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

    async def add_key_waiting(
        self, run: Run, domain: str, aor: str, key_name: str, key_value: str | None = None
    ) -> bool:
        """``ul_add_key`` and ``ul_del_key`` where the change must be safe first."""
        try:
            return await self.table(domain).work(aor, run.now, lambda there: there.keep(aor, key_name, key_value))
        except NotStored as error:
            run.user.log_rarely("ul_add_key", -1, f"a value of {aor} is not kept: {error}")
            return False

    async def get_key_waiting(self, run: Run, domain: str, aor: str, key_name: str, destination: Writable) -> bool:
        """``ul_get_key`` where nothing is in memory."""
        view = await self.view(run, domain, [aor])
        return view is not None and self.ul_get_key(run, view, aor, key_name, destination)  # type: ignore[arg-type]

    async def view(self, run: Run, domain: str, aors: Sequence[str]) -> LocationTable | None:
        """The table, or what is known of ``aors`` if nothing is in memory; None if that cannot be found out."""
        table = self.table(domain)
        if not isinstance(table, Remote):
            return table
        try:
            return await table.view(aors, run.now)
        except NotStored as error:
            run.user.log_rarely("usrloc view", -1, f"nobody can be looked up: {error}")
            return None

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

    async def _work(self, table: LocationTable, aor: str, call: Callable[[LocationTable], None]) -> None:
        """Change the contacts of one user."""
        try:
            await table.work(aor, self.server.user.clock(), call)
        except NotStored as error:
            raise MIError(500, f"Not saved: {error}") from None

    @mi(alias="ul_rm")
    async def rm(self, table_name: str, aor: str) -> None:
        """Forget a user with all contacts."""
        table = self._table(table_name)
        name = self._aor(aor)

        def forget(there: LocationTable) -> None:
            bindings = [*there.bindings(name)]
            if not bindings:
                raise MIError(404, "AOR not found")
            for binding in bindings:
                there.remove(binding)

        await self._work(table, name, forget)

    @mi(alias="ul_rm_contact")
    async def rm_contact(self, table_name: str, aor: str, contact: str) -> None:
        """Forget one contact of a user."""
        table = self._table(table_name)
        name = self._aor(aor)

        def forget(there: LocationTable) -> None:
            bindings = there.bindings(name)
            if not bindings:
                raise MIError(404, "AOR not found")
            for binding in bindings:
                if binding.contact == contact:
                    there.remove(binding)
                    return
            raise MIError(404, "Contact not found")

        await self._work(table, name, forget)

    @mi(alias="ul_dump")
    async def dump(self, brief: str = "") -> dict[str, Any]:
        """Show all contacts; with ``brief`` (1, or the word itself) the users alone."""
        whole = brief in ("", "0")
        now = self.server.user.clock()
        shown = []
        for table in self.tables.values():
            there: Iterable[tuple[str, Sequence[Binding]]] = table
            if isinstance(table, Remote):
                there = (await self._asked(table.records())).items()
            shown.append({"name": table.name, "hash_size": 1 << self.hash_size, "AORs": self._records(table, there, whole, now)})
        return {"Domains": shown}

    async def _asked(self, question: Awaitable[T]) -> T:
        """What a database answers."""
        try:
            return await question
        except (DatabaseError, NotStored) as error:
            raise MIError(500, f"Not known: {error}") from None

    def _records(
        self, table: LocationTable, there: Iterable[tuple[str, Sequence[Binding]]], whole: bool, now: float
    ) -> Iterator[dict[str, Any]]:
        for aor, bindings in there:
            yield self._record(table, aor, bindings, now, table.values(aor)) if whole else {"AOR": aor}

    def _record(
        self, table: LocationTable, aor: str, bindings: Sequence[Binding], now: float, values: Mapping[str, str]
    ) -> dict[str, Any]:
        shown: dict[str, Any] = {"AOR": aor, "Contacts": [self._shown(table, binding, now) for binding in bindings]}
        if self.mi_dump_kv_store and values:
            shown["KV-Store"] = json.dumps(dict(values), separators=(",", ":"), ensure_ascii=False)
        return shown

    def _shown(self, table: LocationTable, binding: Binding, now: float) -> dict[str, Any]:
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
        shown["State"] = table.state(binding)
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
    async def show_contact(self, table_name: str, aor: str) -> dict[str, Any]:
        """Show the contacts of one user."""
        table = self._table(table_name)
        aor = self._aor(aor)
        now = self.server.user.clock()
        there = await self._asked(table.view([aor], now)) if isinstance(table, Remote) else table
        bindings = there.bindings(aor)
        if not bindings:
            raise MIError(404, "AOR not found")
        return self._record(table, aor, bindings, now, there.values(aor))

    @mi(alias="ul_flush")
    async def flush(self) -> None:
        """Write what is not yet in the database."""
        try:
            await self.write_back()
        except NotStored as error:
            raise MIError(500, f"Not saved: {error}") from None

    @mi(alias="ul_sync")
    async def sync(self, table_name: str, aor: str = "") -> None:
        """Make the database like the memory, for all users or for one; refused, as by OpenSIPS, where not both are there."""
        table = self._table(table_name) if self.mode.write != "none" else None
        if not isinstance(table, WriteThrough | WriteBack):
            raise MIError(200, "Contacts already synced")
        name = self._aor(aor) if aor else None
        if name is not None and not table.bindings(name):
            raise MIError(404, "AOR not found")
        await self._asked(table.rewrite(name))

    @mi(alias="ul_cluster_sync")
    def cluster_sync(self) -> None:
        """Take over the contacts of another machine of the cluster; refused, there is none."""
        raise MIError(400, "Clustering not enabled")

    @mi(alias="ul_add")
    async def add(
        self, table_name: str, aor: str, contact: str, expires: int, q: str, flags: int, cflags: int, methods: int
    ) -> None:
        """Bind a contact to a user for so many seconds, 0 for ever; what is bound already gets the new values."""
        table = self._table(table_name)
        name = self._aor(aor)
        try:
            uri = Uri.parse(contact)
            thousandths = read_q(q) if q else -1
        except (MalformedMessage, Rejected):
            raise MIError(400, "Bad parameter value") from None
        if not (uri.is_sip or uri.scheme == "tel") or thousandths < 0 or min(expires, flags, cflags, methods) < 0:
            raise MIError(400, "Bad parameter value")
        now = self.server.user.clock()

        def bind(there: LocationTable) -> None:
            bindings = there.live(name, now)
            binding = find_contact(bindings, contact)
            old_q = None if binding is None else binding.q
            if binding is None:
                if len(bindings) >= AOR_CONTACTS or there.count >= there.capacity:
                    raise MIError(503, "Too many registered contacts")
                binding = Binding(name, contact, binding_key(uri), 0.0, "mi@sipgw", 0, now)
                binding.user_agent = "sipgw MI"
            binding.expires = now + expires if expires else inf
            binding.cseq += 1
            binding.modified = now
            binding.q = thousandths
            binding.marks = flags & ~MEMORY_ONLY if table.remote else flags
            binding.flags = cflags
            binding.methods = methods
            if old_q is None:
                there.insert(binding)
            else:
                there.changed(binding, old_q)

        await self._work(table, name, bind)


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
