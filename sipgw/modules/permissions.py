"""permissions: who may do what, by files of rules (``core/rules.py``) and by tables of addresses (``core/addresses.py``).

Files are read when they are first asked for, and kept; a file that is not there has no rules. A table is read at the start and at
``permissions:address_reload``, whole: what cannot be read changes nothing. Rows that mean nothing are left out, and the log says
how many."""

from __future__ import annotations

import os
from typing import Annotated, Any

from twisted.internet.defer import Deferred

from sipgw.core.addresses import ANY_TRANSPORT, Address, AddressTable, packed, read_address
from sipgw.core.blacklists import TRANSPORTS
from sipgw.core.partitions import DEFAULT, read_partition
from sipgw.core.rules import Rules, allowed
from sipgw.db.errors import DatabaseError
from sipgw.exports import BRANCH, EVENT, FAILURE, LOCAL, REQUEST, STARTUP, TIMER, Module, Writable, function, mi, param
from sipgw.interfaces import Database
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

MESSAGE = REQUEST | FAILURE | BRANCH | LOCAL
ALWAYS = MESSAGE | STARTUP | TIMER | EVENT
VERSION = 5
SLICE = 5000
"""Rows of a table that are read in one turn of the reactor."""
MAX_FILES = 1000
"""How many pairs of files are kept: their names can come from messages."""


def check_transport(text: str) -> str:
    """Refuse what is no transport; "" for any."""
    lowered = text.lower()
    if lowered in ANY_TRANSPORT:
        return ""
    if lowered not in TRANSPORTS:
        raise ValueError(f"unknown transport {text!r}: write udp, tcp, tls, ... or any")
    return lowered


class Partition:
    """One table of addresses."""

    def __init__(self, name: str, url: str, table: str) -> None:
        self.name = name
        self.url = url
        self.table_name = table
        self.db: Any = None
        self.table = AddressTable()


class Permissions(Module):
    """Decides who may do what, by files and by tables of addresses."""

    default_allow_file: str = param("permissions.allow", "What allow_routing() allows; in the folder of the script, or a path")
    default_deny_file: str = param("permissions.deny", "What allow_routing() denies")
    check_all_branches: int = param(1, "Whether allow_routing looks at all branches, or at the Request-URI only")
    allow_suffix: str = param(".allow", "The end of the name of a file that allows")
    deny_suffix: str = param(".deny", "The end of the name of a file that denies")
    partition: str = param("", "One more table, name: db_url = URL; table_name = NAME", each="add_partition")
    db_url: str = param("", "The database of the partition default; db_default_url does not stand in for it")
    address_table: str = param("address", "The table of the partition default, and of those that name none")
    ip_col: str = param("ip", "The column of the address")
    proto_col: str = param("proto", "The column of the transport: any, none, or its name")
    pattern_col: str = param("pattern", "The column of the shell pattern that a text must fit")
    info_col: str = param("context_info", "The column of the text that the script gets")
    grp_col: str = param("grp", "The column of the group's number")
    mask_col: str = param("mask", "The column of the length of the prefix")
    port_col: str = param("port", "The column of the port; 0 is any")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.partitions: dict[str, Partition] = {}
        self._files: dict[str | None, tuple[Rules, Rules]] = {}
        super().__init__(server, **parameters)

    def add_partition(self, text: str) -> None:
        """Note one more partition."""
        name, settings = read_partition(text)
        self.partitions[name] = Partition(name, settings.get("db_url", ""), settings.get("table_name", ""))

    async def start(self) -> None:
        """Read the default files and the tables."""
        self._rules(None)
        if self.db_url and DEFAULT not in self.partitions:
            self.partitions[DEFAULT] = Partition(DEFAULT, self.db_url, self.address_table)
        databases = self.server.databases
        for each in self.partitions.values():
            each.table_name = each.table_name or self.address_table
            each.db = await databases.open(each.url or self.db_url)
            await databases.check(each.db, each.table_name, VERSION)
            await self._load(each)

    # -- addresses

    async def _load(self, partition: Partition) -> None:
        """Read a table anew, then take it in place of the old one."""
        db: Database = partition.db
        columns = [self.grp_col, self.ip_col, self.mask_col, self.port_col, self.proto_col, self.pattern_col, self.info_col]
        rows = await db.select(partition.table_name, columns)
        made, faults, first = AddressTable(), 0, ""
        for number, row in enumerate(rows, 1):
            try:
                made.add(read_address(*row))
            except ValueError as error:
                faults, first = faults + 1, first or str(error)
            if number % SLICE == 0:
                await self._turn()
        partition.table = made
        log = self.server.user.log
        if faults:
            log(1, f"permissions: {faults} rows of {partition.table_name} mean nothing and are left out; the first: {first}")
        log(3, f"permissions: partition {partition.name} has {len(made)} addresses")

    async def _turn(self) -> None:
        """Let others have their turn of the reactor."""
        turn: Deferred[None] = Deferred()
        self.server.later(0, lambda: turn.callback(None))
        await turn

    @function(ALWAYS)
    def check_address(
        self,
        run: Run,
        group_id: int,
        ip: str,
        port: int,
        proto: Annotated[str, check_transport],
        context_info: Writable | None = None,
        pattern: str | None = None,
        partition: str | None = None,
    ) -> int:
        """Whether an address is in a group (0: in any), by a row that its port, transport and ``pattern`` fit.

        1: it is, and ``context_info`` receives what stands with it; -1: it is not; -2: there is no such group."""
        table = self._table(run, "check_address", partition)
        try:
            octets, transport = packed(ip), check_transport(proto)
        except ValueError as error:
            run.user.log(-1, f"check_address: {error}")
            return -1
        return -1 if table is None else _answer(run, table, group_id, octets, port, transport, context_info, pattern)

    @function(MESSAGE)
    def check_source_address(
        self,
        run: Run,
        group_id: int,
        context_info: Writable | None = None,
        pattern: str | None = None,
        partition: str | None = None,
    ) -> int:
        """``check_address`` of the source of the message."""
        table, flow = self._table(run, "check_source_address", partition), run.flow
        if table is None or flow is None:
            return -1
        return _answer(run, table, group_id, packed(flow.host), flow.port, flow.transport, context_info, pattern)

    @function(MESSAGE)
    def get_source_group(self, run: Run, var: Writable, partition: str | None = None) -> bool:
        """``var`` receives the lowest group in which the source of the message is; false if it is in none."""
        table, flow = self._table(run, "get_source_group", partition), run.flow
        if table is None or flow is None:
            return False
        found = table.find(0, packed(flow.host), flow.port, flow.transport)
        return found is not None and var.set(run, found.group) is not False

    def _table(self, run: Run, what: str, partition: str | None) -> AddressTable | None:
        found = self.partitions.get(DEFAULT if partition is None else partition)
        if found is None:
            run.user.log(-1, f"{what}: there is no partition {partition or DEFAULT!r}" + ("" if partition else ": set db_url"))
            return None
        return found.table

    # -- files

    @function(REQUEST | FAILURE | LOCAL)
    def allow_routing(self, run: Run, basename: str | None = None) -> bool:
        """Whether the From may call each destination: all pairs stand in the file that allows, or none in that which denies."""
        uris = [run.uri, *(branch.uri for branch in run.branches)] if self.check_all_branches else [run.uri]
        try:
            who = run.message.from_.uri_text
            pairs = [(who, plain(Uri.parse(uri))) for uri in uris]
        except MalformedMessage as error:
            run.user.log(-1, f"allow_routing: {error}")
            return False
        return self._allows(basename, pairs)

    @function(REQUEST | FAILURE | LOCAL)
    def allow_register(self, run: Run, basename: str) -> bool:
        """Whether the To may register each of its contacts, likewise."""
        message = run.message
        try:
            who = message.to.uri_text
            pairs = [(who, plain(contact.uri)) for contact in message.contacts if not contact.star]
        except MalformedMessage as error:
            run.user.log(-1, f"allow_register: {error}")
            return False
        return self._allows(basename, pairs)

    @function(ALWAYS)
    def allow_uri(self, run: Run, basename: str, uri: str) -> bool:
        """Whether the From may use ``uri``, likewise."""
        try:
            who = run.message.from_.uri_text
        except MalformedMessage as error:
            run.user.log(-1, f"allow_uri: {error}")
            return False
        return self._allows(basename, [(who, uri)])

    def _allows(self, basename: str | None, pairs: list[tuple[str, str]]) -> bool:
        rules = self._rules(basename)
        return rules is not None and allowed(pairs, *rules)

    def _rules(self, basename: str | None) -> tuple[Rules, Rules] | None:
        """The rules of a pair of files; None if there are too many already."""
        found = self._files.get(basename)
        if found is None:
            if len(self._files) >= MAX_FILES:
                text = f"permissions: {MAX_FILES} files are known already, {basename!r} allows nothing"
                self.server.user.log_rarely("permissions", -1, text)
                return None
            allow, deny = self._names(basename)
            found = self._files[basename] = (self._read(allow), self._read(deny))
        return found

    def _names(self, basename: str | None) -> tuple[str, str]:
        names = (self.default_allow_file, self.default_deny_file)
        if basename is not None:
            names = (basename + self.allow_suffix, basename + self.deny_suffix)
        allow, deny = (os.path.join(self.server.user.directory, name) for name in names)
        return allow, deny

    def _read(self, file: str) -> Rules:
        log = self.server.user.log
        try:
            with open(file, encoding="utf-8", errors="surrogateescape") as lines:
                made = Rules(lines.read())
        except (FileNotFoundError, NotADirectoryError):
            log(3, f"permissions: {file} is not there: no rules")
            return Rules()
        except (OSError, ValueError) as error:
            log(-1, f"permissions: {file!r} cannot be read, it has no rules: {error}")
            return Rules()
        for number, fault in made.faults:
            log(-1, f"permissions: {file}:{number}: {fault}; the line does not count")
        return made

    # -- management

    @mi()
    async def address_reload(self, partition: str | None = None) -> None:
        """Reads the tables of all partitions anew, or of one; what cannot be read stays as it was."""
        if partition is not None and partition not in self.partitions:
            raise MIError(400, "Trusted table reload failed")
        for each in [self.partitions[partition]] if partition is not None else list(self.partitions.values()):
            try:
                await self._load(each)
            except DatabaseError as error:
                self.server.user.log(-1, f"permissions: partition {each.name} stays as it was: {error}")
                raise MIError(400, f"failed to reload partition {each.name}") from None

    @mi()
    def address_dump(self, partition: str | None = None) -> dict[str, Any]:
        """Lists the single addresses of all partitions, or of one."""
        return self._dump(partition, True)

    @mi()
    def subnet_dump(self, partition: str | None = None) -> dict[str, Any]:
        """Lists the networks of all partitions, or of one."""
        return self._dump(partition, False)

    def _dump(self, partition: str | None, whole: bool) -> dict[str, Any]:
        if partition is not None:
            found = self.partitions.get(partition)
            if found is None:
                raise MIError(404, "No such partition")
            return {"part": found.name, "Destinations": [listed(row) for row in found.table.rows(whole)]}
        return {
            "Partitions": [
                {"name": each.name, "Destinations": [listed(row) for row in each.table.rows(whole)]}
                for each in self.partitions.values()
            ]
        }

    @mi("allow_uri")
    def mi_allow_uri(self, basename: str, uri: str, contact: str) -> None:
        """Tells whether a pair of URIs is allowed; answers 403 if not, or if neither file is there."""
        if basename not in self._files and not any(map(os.path.exists, self._names(basename))):
            raise MIError(403, "Forbidden")
        if not self._allows(basename, [(uri, contact)]):
            raise MIError(403, "Forbidden")


def plain(uri: Uri) -> str:
    """A URI as rules see destinations: user and host, whatever the scheme (COMPAT)."""
    return f"sip:{uri.host}" if uri.user is None else f"sip:{uri.user}@{uri.host}"


def listed(row: Address) -> dict[str, int | str]:
    """A row as lists have it."""
    return {
        "grp": row.group,
        "ip": row.ip,
        "mask": row.mask,
        "port": row.port,
        "proto": row.transport or "any",
        "pattern": row.pattern,
        "context_info": row.info,
    }


def _answer(
    run: Run, table: AddressTable, group: int, octets: bytes, port: int, transport: str, info: Writable | None, text: str | None
) -> int:
    """What a check returns."""
    if group and not table.has(group):
        return -2
    found = table.find(group, octets, port, transport, text)
    if found is None:
        return -1
    if info is not None:
        info.set(run, found.info)
    return 1
