"""path: the Path header (RFC 3327) of an edge proxy, which a registrar keeps and later turns into Route.

The address in it is that of the socket from which the request leaves, and that is known only when the request is written. Where
the request came in by another socket there are two values, marked ``;r2=on`` as in Record-Route: the upper one is for the
registrar's side, the lower one for the client's. ``received`` tells where the client really is, past its NAT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from sipgw.core.surroundings import DEFAULT_PORTS
from sipgw.exports import REQUEST, HeaderText, Module, function, param, requires
from sipgw.modules.rr import Rr
from sipgw.proxy.record_route import routed
from sipgw.script.run import Run, Socket
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri


@dataclass(frozen=True, slots=True)
class PathHeader:
    """The Path to be: called when the request is written. ``user`` with its "@", ``received`` with its ";"."""

    user: str
    received: str
    double: bool

    def __call__(self, edits: EditList, way: Any) -> str:
        """The header, or two, for a request that leaves on ``way``."""
        if way is None:
            return ""
        run, flow = way
        goes = flow.socket
        came = None if run.flow is None else run.flow.socket
        if self.double and came is not None and came is not goes:
            return (
                f"Path: <sip:{self.user}{_address(goes, run)};r2=on;lr>\r\n"
                f"Path: <sip:{self.user}{_address(came)};r2=on;lr{self.received}>"
            )
        return f"Path: <sip:{self.user}{_address(goes, run)};lr{self.received}>"


def _address(socket: Socket, run: Run | None = None) -> str:
    """What a socket is known by, ``run``'s own wish first: its port if that is not the usual one, its transport unless UDP."""
    host = (run is not None and run.advertised_host) or socket.advertised_host or socket.host
    port = (run is not None and run.advertised_port) or socket.advertised_port or socket.port
    address = _bracketed(host)
    if port != DEFAULT_PORTS.get(socket.transport):
        address += f":{port}"
    return address if socket.transport == "udp" else f"{address};transport={socket.transport}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and host[0] != "[" else host


def _is_user(text: str) -> bool:
    """Whether ``text`` can stand before the "@" of a URI."""
    try:
        return Uri.parse(f"sip:{text}@host").user == text
    except MalformedMessage:
        return False


class Path(Module):
    """Puts this server into the way to a client that registers elsewhere, and finds the client behind its NAT again."""

    rr: Rr | None = requires("rr", optional=True)

    use_received: int = param(0, "Whether loose_route() sends to the ``received`` of our own Route value: 0 or 1")
    enable_double_path: int = param(1, "Whether a request that leaves by another socket gets two Path values: 0 or 1")

    async def start(self) -> None:
        """Look at each Route of ours, if the script wants it."""
        if self.use_received:
            if self.rr is None:
                raise ValueError('path: use_received needs loadmodule "rr.so"')
            self.rr.on_route.append(self._routed)

    @function(REQUEST)
    def add_path(self, run: Run, user: HeaderText | None = None) -> bool:
        """Put our address into the Path of the request, with ``user`` before it; above the values that are there."""
        return self._add(run, "add_path", user, "")

    @function(REQUEST)
    def add_path_received(self, run: Run, user: HeaderText | None = None) -> bool:
        """Put our address into the Path of the request, and say in it from where the request came."""
        flow = run.flow
        if flow is None:
            run.user.log(-1, "add_path_received: the request did not come from anywhere")
            return False
        transport = "" if flow.transport == "udp" else f"%3btransport%3d{flow.transport}"
        return self._add(run, "add_path_received", user, f";received=sip:{_bracketed(flow.host)}:{flow.port}{transport}")

    def _add(self, run: Run, what: str, user: str | None, received: str) -> bool:
        if user and not _is_user(user):
            run.user.log(-1, f"{what}: {user!r} cannot be the user of a URI")
            return False
        message = run.message
        known = message.positions("path")
        line = known[0] if known else len(message.lines) - 1
        header: Callable[[EditList, Any], str] = PathHeader(f"{user}@" if user else "", received, bool(self.enable_double_path))
        run.edits = run.edits.later(line, header)
        return True

    def _routed(self, run: Run, _params: str) -> None:
        """Make the ``received`` of our Route, nearest to the client if there are two, the next hop."""
        value = routed(run).last_param("received")
        if not value:
            return
        uri = unquote(value)
        try:
            if not Uri.parse(uri).is_sip:
                raise MalformedMessage("no SIP URI")
        except MalformedMessage as error:
            run.user.log_rarely(("received", run.flow and run.flow.host), -1, f"path: received={value!r}: {error.reason}")
            return
        run.dst_uri = uri
