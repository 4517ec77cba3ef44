"""From a file to something that can be started: read, load modules, set their parameters, check, compile; all faults at once.

``read_configuration`` may block (files, an external preprocessor) and knows no server. ``Configuration`` builds the modules of
one server and its routes, and starts nothing: ``sipgw check`` ends here. A fault never stops the search for the next."""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Any

from sipgw.catalogue import CORE, Catalogue, ModuleMissing, core_modules, find_module
from sipgw.core.blacklists import AUTOMATIC
from sipgw.core.surroundings import Bond as Sockets
from sipgw.exports import Module
from sipgw.interfaces import Server
from sipgw.script import parser
from sipgw.script.checker import check
from sipgw.script.compiler import compile_config
from sipgw.script.dialect import modernise
from sipgw.script.errors import ScriptError, ScriptErrors, ScriptWarning
from sipgw.script.globals import GLOBALS, INERT
from sipgw.script.nodes import Bond, Config, Item, ModParam, Node, Socket
from sipgw.script.preprocess import Source, flatten, unmark
from sipgw.script.regex import compile_regex
from sipgw.script.routes import RouteSet
from sipgw.script.symbols import ModuleSymbols, Symbols
from sipgw.script.transformations import TRANSFORMATIONS
from sipgw.script.variables import VARIABLES
from sipgw.transport.addresses import interface_addresses, refusal
from sipgw.transport.stream import LEAST_BACKLOG

PREPROCESSOR_TIME = 30
"""Seconds that an external preprocessor may take."""

TRANSPORTS = ("udp", "tcp")
"""The transports that sipgw has; the module ``proto_udp`` permits the first, and so on."""

ELSEWHERE = {
    "udp_workers": "one process serves all; it is not split into workers yet",
    "chroot": "twistd does it: twistd --chroot",
    "mpath": "modules are Python files, found by name",
    "maxbuffer": "4 MB are asked of the kernel for each socket",
    "tcpthreshold": "to send never takes time: what a peer does not take at once waits",
    "pi_framework": "the provisioning panel is not part of sipgw",
    "dns": "the top Via always says where a request came from (RFC 3261 18.2.1); no name is asked for that",
    "rev_dns": "no address is turned into a name to compare it with a Via (RFC 3261 18.2.1 asks for none)",
}
"""Globals without effect, beside the inert ones, where there is more to say than that."""

HONOURED = frozenset(
    """advertised_address advertised_port auto_aliases db_default_url db_version_table debug_mode disable_503_translation
    disable_core_dump disable_dns_blacklist disable_dns_failover dns_retr_no dns_retr_time dns_servers_no dns_try_ipv6
    dns_try_naptr
    dns_use_search_list enable_asserts event_pkg_threshold event_shm_threshold execdnsthreshold execmsgthreshold
    log_event_enabled log_event_level_filter log_level log_prefix max_while_loops memdump mhomed open_files_limit
    restart_persistency_cache_file server_header server_signature stderror_level_filter syslog_enabled syslog_facility
    syslog_level_filter syslog_name user_agent_header tcp_accept_aliases tcp_connect_timeout tcp_connection_lifetime tcp_keepalive
    tcp_keepcount tcp_keepidle tcp_keepinterval tcp_max_connections tcp_max_msg_time tcp_no_new_conn_bflag
    tcp_no_new_conn_rplflag tcp_socket_backlog tos workdir xlog_force_color xlog_level xlog_print_level""".split()
)
"""Globals that do here what they do in OpenSIPS."""

SOCKET_OPTIONS = frozenset("accept_subdomain allow_proxy_protocol proxy_protocol reuse_port send_proxy_protocol".split())
"""Words behind a socket that do here what they do in OpenSIPS."""

TOS = {"iptos_lowdelay": 0x10, "iptos_throughput": 0x08, "iptos_reliability": 0x04, "iptos_mincost": 0x02, "iptos_lowcost": 0x02}


@dataclass
class Reading:
    """A file as it was read: the tree of all that could be understood, and all that is wrong with the rest."""

    file: str
    config: Config
    source: Source
    errors: list[ScriptError] = field(default_factory=list)
    warnings: list[ScriptWarning] = field(default_factory=list)

    @property
    def module_names(self) -> list[str]:
        """The modules that it loads."""
        return [item.name for item in self.config.modules]


def read_configuration(file: str, preprocessor: str | None = None, sockets: Sequence[str] = ()) -> Reading:
    """Read ``file`` and what it includes, through ``preprocessor`` if there is one; ``sockets`` replace those of the file."""
    try:
        source = flatten(file, _read_file)
        if preprocessor:
            source = unmark(_preprocessed(source, preprocessor, file), source.included)
    except ScriptError as error:
        return Reading(file, Config(), Source.of("", file), [error])
    reading = reading_of(source, file)
    if sockets:
        kept: list[Item] = [item for item in reading.config.items if not isinstance(item, Socket | Bond)]
        for text in sockets:
            given = parser.read(f"socket = {text}", "--socket")
            kept.extend(given.config.items)
            reading.errors.extend(given.errors)
        reading.config = replace(reading.config, items=tuple(kept))
    return reading


def reading_of(source: Source | str, file: str = "opensips.cfg") -> Reading:
    """Read a text that is at hand."""
    if isinstance(source, str):
        source = Source.of(source, file)
    parsed = parser.read(source)
    return Reading(file, parsed.config, source, list(parsed.errors), list(parsed.warnings))


def _read_file(name: str) -> str:
    with open(name, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read().replace("\r\n", "\n")


def _preprocessed(source: Source, command: str, file: str) -> str:
    """What ``command`` makes of the text with its markers, as OpenSIPS runs it: no shell."""
    try:
        ran = subprocess.run(
            shlex.split(command),
            input=source.marked().encode("utf-8", "surrogateescape"),
            capture_output=True,
            timeout=PREPROCESSOR_TIME,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ScriptError(file, 0, 0, f"the preprocessor {command!r} cannot be run: {error}") from error
    if ran.returncode != 0:
        said = ran.stderr.decode(errors="replace").strip()
        raise ScriptError(file, 0, 0, f"the preprocessor {command!r} ends with {ran.returncode}: {said}")
    return ran.stdout.decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class SocketPlan:
    """One socket to bind: an address and a port of a definition in the script, ``node``."""

    transport: str
    host: str
    port: int
    node: Socket
    advertised_host: str
    advertised_port: int
    tos: int | None


class Configuration:
    """What one server is made of. ``faults`` must be empty before anything is started.

    ``notes`` are the INFO lines about what has no effect here; ``modules`` stand in the order of starting."""

    def __init__(self, reading: Reading, server: Server) -> None:
        self.reading = reading
        self.server = server
        self.config = reading.config
        """The tree, in today's language once it is built."""
        self.faults: list[ScriptError] = list(reading.errors)
        self.warnings: list[ScriptWarning] = list(reading.warnings)
        self.notes: list[str] = []
        self.modules: dict[str, Module] = server.modules
        self.settings: dict[str, Any] = server.user.globals
        self.sockets: list[SocketPlan] = []
        self.aliases: list[tuple[str, int, bool]] = []
        """Names that are ours: host, port (0: any), and whether every name below it is too."""
        self.symbols = Symbols()
        self.routes = RouteSet()

    def fault(self, node: Node, text: str, hint: str = "") -> None:
        """Note what is wrong at ``node``."""
        self._add(ScriptError(*node.pos, text, hint))

    def _add(self, error: ScriptError) -> None:
        self.reading.source.illustrate(error)
        self.faults.append(error)

    def in_order(self) -> list[ScriptError]:
        """The faults in the order of the file."""
        return sorted(self.faults, key=self.reading.source.order)

    def build(self) -> None:
        """Do all of it: modules, their parameters, sockets, routes."""
        core = core_modules()
        known = _symbols(core.values(), self._find(self.reading.config).values())
        self.config, hints = modernise(self.reading.config, known)
        self.warnings += hints
        found = self._find(self.config)
        self._make({**core, **found})
        self.symbols = _symbols(self.modules.values())
        findings = check(self.config, self.symbols, self.reading.source)
        self.faults += findings.errors
        self.warnings += findings.warnings
        told = {(error.file, error.line) for error in findings.errors}
        for item in self.config.modparams:
            if item.pos[:2] not in told:
                self._set_parameter(item)
        self.symbols = _symbols(self.modules.values())  # what waits may depend on parameters
        self._plan_sockets()
        self._make_blacklists()
        self._note_globals()
        if not self.faults:
            try:
                self.routes = compile_config(self.config, self.symbols, self.server.user)
            except ScriptErrors as error:
                for fault in error.errors:
                    self._add(fault)

    def recompile(self, reading: Reading) -> RouteSet:
        """Compile the routes of a new reading with the modules that are there; ``ScriptErrors`` with all that is wrong.

        Globals, modules and their parameters are checked like the rest, and stay as they are."""
        config, hints = modernise(reading.config, self.symbols)
        findings = check(config, self.symbols, reading.source)
        faults = [*reading.errors, *findings.errors]
        if not faults:
            try:
                return compile_config(config, self.symbols, self.server.user)
            except ScriptErrors as error:
                faults = error.errors
                for fault in faults:
                    reading.source.illustrate(fault)
        raise ScriptErrors(sorted(faults, key=reading.source.order), [*reading.warnings, *hints, *findings.warnings])

    # ---- modules ----

    def _find(self, config: Config) -> dict[str, type[Module]]:
        """The classes of the modules that the script loads; those that are not there are the checker's to tell."""
        found: dict[str, type[Module]] = {}
        for item in config.modules:
            try:
                found[item.name] = find_module(item.name)
            except ModuleMissing:
                continue
        return found

    def _make(self, classes: dict[str, type[Module]]) -> None:
        """Make the modules, each after those that it needs."""

        def visit(name: str, path: tuple[str, ...]) -> None:
            if name in self.modules or name not in classes:
                return
            cls = classes[name]
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                self.fault(self._load_of(name), f"modules need each other in a circle: {circle}")
                return
            needed = [*cls.depends, *(r.module for r in cls.exports.requirements.values())]
            for other in needed:
                visit(other, (*path, name))
            instances = {r.module: self.modules.get(r.module) for r in cls.exports.requirements.values()}
            try:
                self.modules[name] = cls(self.server, **instances)
            except ValueError as error:
                self.fault(self._load_of(name), f"module {name}: {error}")

        for name in classes:
            visit(name, ())

    def _load_of(self, name: str) -> Node:
        return next((item for item in self.config.modules if item.name == name), self.config)

    def _set_parameter(self, item: ModParam) -> None:
        """Give one ``modparam``, which the checker has passed, to all loaded modules that its pattern names."""
        pattern = compile_regex(f"^({item.modules})$")
        for name, module in self.modules.items():
            if name not in CORE and pattern.search(name):
                try:
                    module.set_parameter(item.name, item.value.value)
                except ValueError as error:
                    self.fault(item.value, f"the parameter {item.name} of {name}: {error}")

    # ---- sockets ----

    def _plan_sockets(self) -> None:
        """Find the addresses and ports of every socket, and the names that are ours beside them."""
        config = self.config
        seen: set[tuple[str, str, int]] = set()
        for node in config.sockets:
            for plan in self._plans(node):
                key = (plan.transport, plan.host, plan.port)
                if plan.port and key in seen:
                    self.notes.append(f"{node.pos}: {plan.transport}:{plan.host}:{plan.port} is listed already")
                    continue
                seen.add(key)
                self.sockets.append(plan)
            unknown = node.options - SOCKET_OPTIONS
            if unknown:
                self.notes.append(f"{node.pos}: {', '.join(sorted(unknown))} of a socket has no effect in sipgw")
        for name in self.modules:
            kind, _, transport = name.partition("_")
            if name in ("proto_hep", "proto_smpp"):  # they send without a socket of their own too
                continue
            if kind == "proto" and not self.reading.errors and not any(node.protocol == transport for node in config.sockets):
                where = next(item for item in config.modules if item.name == name)
                self.fault(where, f"there is no socket for {name}", f"add socket = {transport}:127.0.0.1:5060")
        for bond in config.bonds:
            self._plan_bond(bond)
        for alias in config.aliases:
            self.aliases.append((alias.host, alias.port, alias.accept_subdomain))

    def _plan_bond(self, bond: Bond) -> None:
        """Make a bond of sockets; each of its members must be one that is listed."""
        user = self.server.user
        for text in bond.members:
            transport, _, rest = text.partition(":")
            host, _, port = rest.rpartition(":")
            listed = [
                plan for plan in self.sockets
                if text == plan.node.tag
                or (plan.transport == transport.lower() and plan.host == host.strip("[]") and str(plan.port) == port)
            ]
            if not listed:
                self.fault(bond, f"{text!r} of bond:{bond.name} is not a socket that is listed", "write it as proto:address:port")
        if bond.name in user.bonds:
            self.fault(bond, f"there is a bond {bond.name} already")
        user.bonds[bond.name] = Sockets(user, bond.name, bond.members)

    def _plans(self, node: Socket) -> Iterator[SocketPlan]:
        transport = node.protocol
        if transport in ("hep_udp", "hep_tcp"):
            self._capture_socket(node, transport.removeprefix("hep_"))
        elif transport == "hep_tls":
            self.fault(node, "HEP over TLS needs tls_mgm, which comes in a later version of sipgw")
        protocol: Any = self.modules.get(f"proto_{transport}")
        if transport == "smpp" and protocol is not None:
            for host in self._addresses(node)[0]:
                for first, last in node.ports or ((protocol.smpp_port, protocol.smpp_port),):
                    for port in range(first, last + 1):
                        protocol.listens(transport, host, port)
            return
        if protocol is None or transport not in TRANSPORTS:
            return
        default = getattr(protocol, f"{transport}_port")
        hosts, name = self._addresses(node)
        subdomains = "accept_subdomain" in node.options
        settings = self.settings
        tos = node.tos if node.tos is not None else _tos(settings["tos"])
        for first, last in node.ports or ((default, default),):
            for port in range(first, last + 1):
                if name:
                    self.aliases.append((name, port, subdomains))
                if subdomains and node.advertised_host:
                    self.aliases.append((node.advertised_host, node.advertised_port or port, True))
                for host in hosts:
                    yield SocketPlan(
                        transport,
                        host,
                        port,
                        node,
                        node.advertised_host or settings["advertised_address"] or "",
                        node.advertised_port or settings["advertised_port"] or 0,
                        tos,
                    )

    def _capture_socket(self, node: Socket, transport: str) -> None:
        """Tell proto_hep of a socket for HEP: frames are sent from it, and received if sipcapture is to."""
        module: Any = self.modules.get("proto_hep")
        if module is None:
            return
        for host in self._addresses(node)[0]:
            for first, last in node.ports or ((module.hep_port, module.hep_port),):
                for port in range(first, last + 1):
                    module.listens(transport, host, port)
        capture: Any = self.modules.get("sipcapture")
        if capture is None or not capture.hep_capture_on:
            text = "HEP frames are sent from this socket; those that come are read by sipcapture, with hep_capture_on"
            self.notes.append(f"{node.pos}: {text}")

    def _addresses(self, node: Socket) -> tuple[list[str], str]:
        """The IP addresses that the host of a socket stands for, and the host itself if it is a name of this machine."""
        host = node.host
        if host == "*":
            return interface_addresses(), ""
        if host in ("0.0.0.0", "::"):
            return [a for a in interface_addresses() if (":" in a) is (host == "::")], ""
        refused = refusal(host)
        if not refused:
            return [ip_address(host).compressed], ""
        if refused != "is not an IP address":
            self.fault(node, f"sipgw cannot listen on {host}: it {refused}")
            return [], ""
        found = interface_addresses(host)
        if found:
            return found, ""
        try:
            info = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
        except OSError as error:
            self.fault(node, f"{host} is neither an address nor an interface, and has no address: {error.strerror or error}")
            return [], ""
        return [str(info[0][4][0])], host

    # ---- blacklists ----

    def _make_blacklists(self) -> None:
        """Make the blacklists of the script, and the automatic one."""
        blacklists = self.server.user.blacklists
        for node in self.config.blacklists:
            try:
                blacklists.configure([node], False)
            except ValueError as error:
                self.fault(node, str(error))
        if not self.settings["disable_dns_blacklist"]:
            try:
                blacklists.configure((), True)
            except ValueError:
                taken = next(node for node in self.config.blacklists if node.name == AUTOMATIC)
                self.fault(taken, f"the name {AUTOMATIC} is that of the automatic list", "set disable_dns_blacklist = yes")

    # ---- globals ----

    def _note_globals(self) -> None:
        """Say of each global that is set and has no effect here that it has none, once."""
        foreground = {"stderror_enabled": "twistd -n logs to stderr, a daemon where twistd or syslog_enabled says"}
        for item in {item.name: item for item in self.config.settings}.values():
            if item.name == "tcp_socket_backlog" and isinstance(item.value, int) and item.value < LEAST_BACKLOG:
                self.notes.append(f"{item.pos}: tcp_socket_backlog = {item.value}: {LEAST_BACKLOG} is used, for bursts")
            if item.name in HONOURED:
                continue
            why = {**ELSEWHERE, **foreground}.get(item.name)
            if why is None:
                why = "there is no such thing in sipgw" if item.name in INERT else "it is not honoured yet"
            self.notes.append(f"{item.pos}: {item.name} is accepted and has no effect: {why}")


def _symbols(*modules: Iterable[type[Module] | Module]) -> Symbols:
    """What a script may call and read: the core's, and those of modules, bound to their instances where there are."""
    core = ModuleSymbols("core", variables=VARIABLES, transformations=TRANSFORMATIONS)
    declared = (m.declared() if isinstance(m, type) else type(m).declared(m) for each in modules for m in each)
    return Symbols.of([core, *declared], Catalogue())


def _tos(value: int | str | None) -> int | None:
    return TOS.get(value.lower()) if isinstance(value, str) else value


def settings_of(config: Config) -> dict[str, int | str | None]:
    """The globals of a script, defaults filled in; the last of several counts."""
    settings: dict[str, int | str | None] = {name: entry.default for name, entry in GLOBALS.items()}
    settings.update((item.name, item.value) for item in config.settings)
    return settings
