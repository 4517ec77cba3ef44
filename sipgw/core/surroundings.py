"""What a script may ask of the server around its message: sockets, names that are ours, levels, flags, the time.

It is the lower half of the transaction user, apart so that it can be read alone (``script.run.Surroundings`` is its shape)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from os import getpid
from typing import Any, NamedTuple

from sipgw.core.blacklists import Blacklists
from sipgw.script.run import FlagNames, Socket
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_ipv4
from sipgw.sip.uri import Uri

DEFAULT_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}
"""The port of each transport where none is written (RFC 3261 19.1.2; RFC 7118 for WebSockets)."""

MAX_HOPS = 4096
"""How many next hops are remembered in parsed form; then the memory starts anew."""


class NextHop(NamedTuple):
    """Where a URI leads. ``literal``: the host is an IP address; ``written``: the port was given (no SRV look-up then).

    ``asked``: the transport parameter, None if there is none; ``secure``: a SIPS URI."""

    host: str
    port: int
    transport: str
    literal: bool
    written: bool
    asked: str | None
    secure: bool


class Bond:
    """Sockets that act as one where a script chooses from which to send: the first that can reach a place is used.

    ``names``: its members as the script names them."""

    transport = "bond"
    port = 0
    advertised_host = ""
    advertised_port = 0

    def __init__(self, surroundings: Surroundings, name: str, names: Sequence[str]) -> None:
        self.host = self.tag = name
        self._surroundings = surroundings
        self._names = names
        self._members: tuple[Socket, ...] | None = None

    @property
    def members(self) -> tuple[Socket, ...]:
        """Its sockets, which are looked for when they are first needed."""
        if self._members is None:
            found = (self._surroundings.find_socket(name) for name in self._names)
            self._members = tuple(socket for socket in found if socket is not None)
        return self._members

    def member(self, transport: str, ipv6: bool) -> Socket | None:
        """The first member that can send to such a place."""
        for socket in self.members:
            if socket.transport == transport and (":" in socket.host) == ipv6:
                return socket
        return None

    def flow(self, host: str, port: int) -> Any:
        """None: it is one of its members that sends."""
        raise ValueError(f"bond:{self.host} is no socket that sends")


class Surroundings:
    """The sockets, aliases, levels and flags of one server."""

    def __init__(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        log: Callable[[int, str], None],
        settings: dict[str, Any],
    ) -> None:
        self.clock = clock
        self.wall_clock = wall_clock
        self.xlog = log
        """Writes a line of the script's own (``xlog``), whose level has been looked at."""
        self._write_log = log
        self.globals = settings
        self.log_level: int = settings.get("log_level", 2)
        self.xlog_level: int = settings.get("xlog_level", 2)
        self.message_flags = FlagNames("message")
        self.branch_flags = FlagNames("branch")
        self.no_connect_branch = _mask(self.branch_flags, settings.get("tcp_no_new_conn_bflag"))
        """The branch flag with which no connection is opened for a request; 0: there is none."""
        self.no_connect_reply = _mask(self.message_flags, settings.get("tcp_no_new_conn_rplflag"))
        """The message flag with which none is opened for its responses."""
        self.sockets: list[Socket] = []
        self.bonds: dict[str, Bond] = {}
        self.connections: Any = None
        """The connections of all sockets that are not UDP (``transport.connections``); None where there is no such socket."""
        self.aliases: set[tuple[str, int]] = set()
        """Names that are ours too: (host in lower case, port or 0 for any); ".example.org" stands for all below it."""
        self.source_of: Callable[[str], str] | None = None
        """With ``mhomed``: from which address the kernel would send to another one, "" if it cannot be reached."""
        self.arguments: dict[str, str] = {}
        self.directory = ""
        """The folder of the script."""
        self.started = wall_clock()
        self.pid = getpid()
        self.blacklists = Blacklists(clock)
        self._names: list[Callable[[str], bool]] = []
        self._myself: dict[tuple[str, int], bool] = {}
        self._hops: dict[str, NextHop] = {}

    def log(self, level: int, text: str) -> None:
        """Write one line of the server's own, if ``log_level`` lets it through (-3 alert .. 4 debug)."""
        if level <= self.log_level:
            self._write_log(level, text)

    def add_socket(self, socket: Socket) -> None:
        """Listen on one more socket."""
        self.sockets.append(socket)
        self._myself.clear()

    def add_alias(self, host: str, port: int = 0, *, subdomains: bool = False) -> None:
        """Answer to ``host`` as well, at ``port`` or at any; with ``subdomains`` also to every name below it."""
        self.aliases.add((_plain(host), port))
        if subdomains:
            self.aliases.add((f".{_plain(host)}", port))
        self._myself.clear()

    def add_names(self, knows: Callable[[str], bool]) -> None:
        """Answer to each host, in lower case, that ``knows`` says is ours, at any port; ``forget_names`` when that changes."""
        self._names.append(knows)
        self._myself.clear()

    def forget_names(self) -> None:
        """Ask again which names are ours."""
        self._myself.clear()

    def is_myself(self, host: str, port: int = 0) -> bool:
        """Whether ``host`` (and ``port``, when not 0) is a socket of ours, what it advertises, an alias, or known otherwise."""
        key = (host, port)
        known = self._myself.get(key)
        if known is None:
            if len(self._myself) >= MAX_HOPS:
                self._myself.clear()
            known = self._myself[key] = self._is_myself(_plain(host), port)
        return known

    def _is_myself(self, host: str, port: int) -> bool:
        if any(_is_at(socket, host, port) for socket in self.sockets):
            return True
        for alias, at in self.aliases:
            if port in (0, at) or not at:
                if host == alias or (alias.startswith(".") and host.endswith(alias)):
                    return True
        return any(knows(host) for knows in self._names)

    def find_socket(self, text: str) -> Socket | None:
        """The socket that ``proto:host:port`` (or a part of it) names, by its address or its advertised one, or its tag; the
        bond that ``bond:name`` names."""
        if text[:5].lower() == "bond:":
            return self.bonds.get(text[5:])
        for socket in self.sockets:
            if socket.tag and socket.tag == text:
                return socket
        transport, colon, rest = text.partition(":")
        if transport.lower() not in DEFAULT_PORTS or not colon:
            transport, rest = "", text
        host, port = _host_port(rest)
        for socket in self.sockets:
            if transport and socket.transport != transport.lower():
                continue
            if _is_at(socket, host, port):
                return socket
        return None

    def default_socket(self, transport: str = "udp", ipv6: bool = False) -> Socket | None:
        """The first socket of ``transport`` and address family whose address others can reach; else the first on loopback."""
        found = None
        for socket in self.sockets:
            if socket.transport == transport and (":" in socket.host) == ipv6:
                if socket.host != "::1" and not socket.host.startswith("127."):
                    return socket
                found = found or socket
        return found

    def socket_toward(self, transport: str, host: str, came: Socket | None) -> Socket | None:
        """With ``mhomed``: a socket at the address from which the kernel would send to ``host``, ``came`` if it is one."""
        if self.source_of is None:
            return None
        source = self.source_of(host)
        if came is not None and (came.transport, came.host) == (transport, source):
            return came
        return next((socket for socket in self.sockets if (socket.transport, socket.host) == (transport, source)), None)

    def next_hop(self, text: str) -> NextHop:
        """Where the URI ``text`` leads; ``MalformedMessage`` if nowhere.

        ``maddr`` counts as the host (RFC 3261 16.6 step 7). Parsed once for each text, within bounds."""
        found = self._hops.get(text)
        if found is None:
            if len(self._hops) >= MAX_HOPS:
                self._hops.clear()
            found = self._hops[text] = _next_hop(text)
        return found


def _mask(flags: FlagNames, name: str | None) -> int:
    return flags.mask(name) if name else 0


def _plain(host: str) -> str:
    """``host`` in lower case, an IPv6 address without brackets and as short as it can be (RFC 5952)."""
    if host.startswith("["):
        host = host[1:-1]
    if ":" in host:
        try:
            return ip_address(host).compressed
        except ValueError:
            pass
    return host.lower()


def _is_at(socket: Socket, host: str, port: int) -> bool:
    """Whether ``socket`` is at ``host`` and ``port`` (0: any).

    COMPAT: its address may come with its advertised port and the other way round (is_myself, as OpenSIPS answers it)."""
    if port not in (0, socket.port, socket.advertised_port):
        return False
    return host == socket.host or (socket.advertised_host != "" and host == _plain(socket.advertised_host))


def _host_port(text: str) -> tuple[str, int]:
    """Cut ``host:port``, ``[v6]:port`` or a bare host or IPv6 address; port 0 when there is none."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.lstrip(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return _plain(host), int(port) if port.isascii() and port.isdigit() else 0


def _next_hop(text: str) -> NextHop:
    uri = Uri.parse(text)
    if not uri.is_sip or not uri.host:
        raise MalformedMessage(f"no way to {text}", 416)
    host = _plain(uri.param("maddr") or uri.host)
    asked = uri.param("transport") or None
    secure = uri.scheme == "sips"
    transport = (asked or ("tls" if secure else "udp")).lower()
    port = uri.port or DEFAULT_PORTS.get(transport, 5060)
    return NextHop(host, port, transport, is_address(host), bool(uri.port), asked, secure)


def is_address(host: str) -> bool:
    """Whether ``host`` is an IPv4 or IPv6 address rather than a name."""
    if ":" not in host:
        return is_ipv4(host)
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
