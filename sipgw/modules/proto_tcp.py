"""SIP over TCP (RFC 3261 18.3): the module whose loading permits ``socket = tcp:...``, and the commands about connections.

The sockets themselves are ``sipgw/transport/stream.py``, bound by ``sipgw/service.py`` with the settings that are made here of
the ``tcp_*`` globals and the module's parameters. Nothing that reads or writes a connection ever blocks, so OpenSIPS's
parameters for blocking have no meaning here."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from sipgw.core.events import run_alone
from sipgw.exports import Module, mi, param, requires
from sipgw.mi.jsonrpc import INVALID_PARAMS, MIError
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.transport.connection import Connection, State
from sipgw.transport.connections import written
from sipgw.transport.hep import NET, Frame
from sipgw.transport.stream import StreamSettings

PROTOCOLS = frozenset(
    "udp tcp tls sctp ws wss ipsec bin bins hep_udp hep_tcp hep_tls smpp msrp msrps".split()
)
"""What ``tcp:list`` can be asked for; most of them have no connections."""

_STATES = {State.OPEN: 0, State.CONNECTING: 3, State.CLOSING: 2}
"""What OpenSIPS writes for how far a connection has come: 0 is one in use."""


def _check_port(value: int) -> None:
    if not 1 <= value <= 65535:
        raise ValueError("must be between 1 and 65535")


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("must be at least 1")


def _not_negative(value: int) -> None:
    if value < 0:
        raise ValueError("must not be negative")


class ProtoTcp(Module):
    """Lets sipgw listen, connect and send over TCP."""

    name = "proto_tcp"

    tcp_port: int = param(5060, "The port of every TCP socket that is written without one", check=_check_port)
    tcp_send_timeout: int = param(
        100, "With tcp_async 0: milliseconds after which a peer that takes nothing is given up; else it has 10 s", check=_positive
    )
    tcp_max_msg_chunks: int = param(
        4, "In how many pieces a message may come", unused="only its time is limited (tcp_max_msg_time), however it is cut"
    )
    tcp_crlf_pingpong: int = param(1, "Whether a CRLFCRLF (ping) is answered with CRLF (pong)")
    tcp_crlf_drop: int = param(0, "Whether a CRLF that comes alone is dropped; else two of them make a ping")
    tcp_async: int = param(1, "Whether a peer that is slow to read has 10 s rather than tcp_send_timeout")
    tcp_async_max_postponed_chunks: int = param(
        32, "How many messages may wait for a peer to read before its connection is given up", check=_positive
    )
    tcp_async_local_write_timeout: int = param(
        10, "Milliseconds of trying to write before a message waits", unused="what cannot be written at once waits at once"
    )
    proto_hep: Any = requires("proto_hep", optional=True)
    trace_destination: str = param("", "The hep_id of a capture server that is told what becomes of connections")
    trace_on: int = param(0, "Whether it is told")
    trace_filter_route: str = param("", "A route that runs for each new connection; it is not told of those that this drops")
    tcp_max_connections_per_ip: int = param(
        64, "How many connections one address may have opened; 0: any number (not in OpenSIPS)", check=_not_negative
    )
    tcp_first_byte_timeout: int = param(
        10, "Seconds within which who has connected must have sent something (not in OpenSIPS)", check=_positive
    )

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._unseen: set[int] = set()
        """The numbers of the connections that the route has dropped."""

    async def start(self) -> None:
        """Watch the connections, if somebody is to be told of them."""
        if not self.trace_destination:
            return
        if self.proto_hep is None or self.proto_hep.destination(self.trace_destination) is None:
            raise ValueError(f"trace_destination: proto_hep has no hep_id {self.trace_destination}")
        user = self.server.user
        if self.trace_filter_route and self.trace_filter_route not in user.routes.named:
            raise ValueError(f"trace_filter_route: there is no route[{self.trace_filter_route}]")
        if user.connections is not None:
            user.connections.watcher = self._watch

    def _watch(self, event: str, connection: Connection, well: bool, text: str) -> None:
        """Tell the capture server what became of a connection."""
        number = connection.number
        new = event in ("ACCEPTED", "CONNECT_START")
        if self.trace_on and connection.local.transport == "tcp":
            if new and self.trace_filter_route and self._filtered(connection):
                self._unseen.add(number)
            if number not in self._unseen:
                self._tell(event, connection, well, text)
        if not new and (event == "CLOSED" or not well):
            self._unseen.discard(number)

    def _filtered(self, connection: Connection) -> bool:
        """Whether the route drops it; one that waits does not."""
        user = self.server.user
        route = user.routes.named.get(self.trace_filter_route)
        if route is None:
            return False
        run = run_alone(route, user)
        run.kind, run.flow = RouteKind.EVENT, connection.flow()
        ended: list[Any] = []
        user.execute(route, run, ended.append)
        return ended == [DROP]

    def _tell(self, event: str, connection: Connection, well: bool, text: str) -> None:
        parts = {"Protocol": "TCP", "Event": event, "Status": "SUCCESS" if well else "FAILURE"}
        if text:
            parts["Message"] = text
        peer = (connection.host, connection.port)
        own = connection.own_address() if connection.fileno() >= 0 else (connection.local.host, connection.local.port)
        ends = (peer, own) if connection.accepted else (own, peer)
        now = self.server.user.wall_clock()
        self.proto_hep.destination(self.trace_destination).send(Frame(NET, 6, *ends, now, parts, str(connection.number)))

    @mi("trace", alias="tcp_trace")
    def trace_connections(self, trace_mode: str | None = None) -> Any:
        """Shows whether a capture server is told of connections; "on" or "off" changes that."""
        if trace_mode is None:
            return {"TCP tracing": "on" if self.trace_on else "off"}
        if trace_mode.lower() not in ("on", "off"):
            raise MIError(INVALID_PARAMS, data="trace_mode should be 'on' or 'off'")
        self.trace_on = int(trace_mode.lower() == "on")
        return None

    def stream_settings(self, settings: Mapping[str, Any]) -> StreamSettings:
        """How connections are kept, by the globals ``settings`` and the parameters of this module."""
        get = settings.get
        return StreamSettings(
            connect_timeout=max(1, int(get("tcp_connect_timeout") or 100)) / 1000,
            first_byte=float(self.tcp_first_byte_timeout),
            message_time=float(max(1, _number(get("tcp_max_msg_time"), 4))),
            lifetime=float(max(1, _number(get("tcp_connection_lifetime"), 120))),
            send_timeout=10.0 if self.tcp_async else self.tcp_send_timeout / 1000,
            most=max(0, _number(get("tcp_max_connections"), 2048)),
            most_of_host=self.tcp_max_connections_per_ip,
            most_waiting=self.tcp_async_max_postponed_chunks,
            backlog=_number(get("tcp_socket_backlog"), 10),
            keepalive=bool(_number(get("tcp_keepalive"), 1)),
            keepalive_count=get("tcp_keepcount"),
            keepalive_idle=get("tcp_keepidle"),
            keepalive_interval=get("tcp_keepinterval"),
            accept_aliases=_number(get("tcp_accept_aliases"), 0),
            pong=bool(self.tcp_crlf_pingpong),
            drop_crlf=bool(self.tcp_crlf_drop),
        )

    # -- management

    @mi("list", alias="list_tcp_conns")
    def list_connections(self, proto: str | None = None) -> dict[str, Iterator[dict[str, Any]]]:
        """Lists the connections there are; with ``proto`` those of that protocol."""
        if proto is not None and proto.lower() not in PROTOCOLS:
            raise MIError(400, "Bad protocol")
        return {"Connections": self._records(proto and proto.lower())}

    def _records(self, transport: str | None) -> Iterator[dict[str, Any]]:
        user = self.server.user
        ahead = user.wall_clock() - user.clock()
        for connection in user.connections or ():
            if connection.state in _STATES and transport in (None, connection.local.transport):
                yield _record(connection, ahead)

    @mi("close")
    def close_connection(self, ipport: str) -> None:
        """Closes the connection of that ID, or those with that peer, written ``[proto:]address:port``."""
        connections = self.server.user.connections
        try:
            found = [] if connections is None else connections.named(ipport)
        except ValueError as error:
            raise MIError(400, "Bad tcp connection", data=str(error)) from None
        if not found:
            raise MIError(404, "No such connection")
        for connection in found:
            connection.close()


def _number(value: Any, default: int) -> int:
    return default if value is None else int(value)


def _record(connection: Connection, ahead: float) -> dict[str, Any]:
    """One connection as OpenSIPS lists it; ``Aliases`` are ours, there they are more members ``Alias port``."""
    ends = connection.ends_at + ahead
    record = {
        "ID": connection.number,
        "Type": connection.local.transport,
        "State": _STATES[connection.state],
        "Remote": written(connection.host, connection.port),
        "Local": written(*connection.own_address()),
        "Lifetime": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ends)),
        "Alias port": connection.port,
    }
    if connection.aliases:
        record["Aliases"] = list(connection.aliases)
    return record
