"""Topology hiding of which nothing is kept: each side's place is sealed into the Contact that the other side is given.

*One way*: where our socket on one side has the tag ``trusted``, that side is inside, and is to see all of the network outside:
what goes in keeps its Vias, its Contact and its Record-Routes. Requests from inside then come by their Route, so we must be in
it: a Record-Route of ours goes in with them, and in it is sealed by which socket such a request leaves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sipgw.proxy.hiding import HideFlag, Passed, hide_request, hide_response, own_user, send_along
from sipgw.proxy.record_route import UNRECORDED, RecordRoute, is_own, own_address
from sipgw.proxy.sealed import Seal
from sipgw.script.run import Run
from sipgw.sip.dialog import routes_of
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Message, Request, Response

__all__ = ["DECODED", "HiddenContacts", "OneWay", "Side"]

DECODED: Final = "decoded"
"""Where a run keeps the ``Side`` that its Request-URI has named."""
_ROUTE, _ROUTE_WITH_USER = "-", "U"
"""What stands for the target in a Record-Route of ours; the second one: users of Contacts are shown."""


@dataclass(frozen=True)
class OneWay:
    """``trusted``: the tag of our sockets inside, "" for none. ``external``: that of a socket outside, for requests from inside
    that come by a Route of another server. ``route``: whether a Record-Route of ours goes in."""

    trusted: str = ""
    external: str = ""
    route: bool = True

    def inside(self, socket: Any) -> bool:
        """Whether ``socket`` is inside."""
        return bool(self.trusted) and socket is not None and socket.tag == self.trusted


@dataclass(frozen=True)
class Side:
    """What is sealed into a Contact: how to reach the side that it stands for.

    ``target``: its Contact. ``routes``: its route set, in the order of our requests. ``socket``: ours that faces it, as text.
    ``back``: the route set of whoever is given this Contact, for Contacts that this one gives later."""

    target: str
    routes: tuple[str, ...]
    socket: str
    back: tuple[str, ...] = ()

    def pack(self) -> bytes:
        """As octets."""
        lines = (self.target, self.socket, ",".join(self.routes), ",".join(self.back))
        return "\n".join(lines).encode("utf-8", "surrogateescape")

    @classmethod
    def unpack(cls, octets: bytes) -> Side | None:
        """From octets; None if they are none."""
        lines = octets.decode("utf-8", "surrogateescape").split("\n")
        if len(lines) != 4:
            return None
        return cls(lines[0], _routes(lines[2]), lines[1], _routes(lines[3]))


_route = re.compile(r"[^,<]*<[^>]*>[^,]*").findall


def _routes(text: str) -> tuple[str, ...]:
    return tuple(value.strip() for value in _route(text))


class HiddenContacts:
    """Hides dialogs of which nothing is kept.

    ``keys``: the parameters of our Contacts that are understood, each with its secret; ``name``: the one that new ones have."""

    def __init__(
        self, tm: Any, passed: Passed, keys: Iterable[tuple[str, bytes]], name: str, base32: bool, one_way: OneWay | None = None
    ) -> None:
        self._tm = tm
        self._passed = passed
        self._seals = {key.lower(): Seal(secret, b"thinfo") for key, secret in keys}
        self._name = name
        self._base32 = base32
        self._one_way = one_way or OneWay()

    def begin(self, run: Run, flags: HideFlag, users: tuple[str, str]) -> None:
        """Hide the dialog that the request of ``run`` begins; ``users`` as of ``HiddenCalls.begin``."""
        request = run.message
        own = tuple(map(str, request.record_routes))
        keep = bool(flags & HideFlag.KEEP_USER)
        socket = run.flow.socket  # type: ignore[union-attr]
        came = _socket_text(socket)
        inside = self._one_way.inside
        if inside(run.send_socket or socket):
            if self._one_way.route:
                lines = request.positions("record-route")
                line = partial(self._route_line, self._route(came, keep))
                run.edits = run.edits.later(lines[0] if lines else request.positions("via")[0], line)
            if not inside(socket):
                self._tm.rewrite_replies(run, partial(self._answered_inside, run, own, users[0], keep))
            return
        hide_request(run, partial(self._contact, own, came, (), users[1], keep))
        if inside(socket):
            self._tm.rewrite_replies(run, partial(self._answered_outside, run, own, keep))
        else:
            self._tm.rewrite_replies(run, partial(self._answered, run, own, users[0], keep))

    def _answered(
        self, run: Run, own: tuple[str, ...], user: str, keep: bool, request: Request, response: Response, edits: EditList
    ) -> EditList:
        """Hide who answers the first request."""
        theirs = tuple(map(str, routes_of(response)))[::-1]
        contact = partial(self._contact, theirs, self._left_by(run, response), own, user, keep)
        return hide_response(contact, run.flow.socket, request, response, edits)  # type: ignore[union-attr]

    def _answered_inside(
        self, run: Run, own: tuple[str, ...], user: str, keep: bool, request: Request, response: Response, edits: EditList
    ) -> EditList:
        """Hide who answers inside: the Vias of the request have come back with the response."""
        routes = routes_of(response)
        routes = routes[: max(0, len(routes) - len(own))]
        try:
            while routes and is_own(run, routes[-1].uri):
                del routes[-1]
        except MalformedMessage:
            pass  # one that cannot be read is not ours
        theirs = tuple(map(str, routes))[::-1]
        contact = partial(self._contact, theirs, self._left_by(run, response), own, user, keep)
        return hide_response(contact, run.flow.socket, request, response, edits, vias=False)  # type: ignore[union-attr]

    def _answered_outside(
        self, run: Run, own: tuple[str, ...], keep: bool, request: Request, response: Response, edits: EditList
    ) -> EditList:
        """Let who asks inside see who answers outside, with us between them."""
        edits = hide_response(None, run.flow.socket, request, response, edits, routes=())  # type: ignore[union-attr]
        if not 100 < response.status < 300:
            return edits
        lines = [f"Record-Route: {route}" for route in routes_of(response)]
        if self._one_way.route:
            way = run, run.flow
            lines.append(self._route_line(self._route(self._left_by(run, response), keep, own), edits, way))
        lines += [request.lines[line] for line in request.positions("record-route")]
        return edits.insert_before(response.positions("via")[0], "\r\n".join(lines)) if lines else edits

    def _left_by(self, run: Run, response: Response) -> str:
        """The socket by which the request left that ``response`` answers: our Via names it."""
        via = response.via
        text = f"{via.transport.lower()}:{via.host}:{via.port or 5060}"
        socket = run.user.find_socket(text)
        return text if socket is None else _socket_text(socket)

    def _seal(self, side: Side) -> str:
        return f";{self._name}={self._seals[self._name.lower()].close(side.pack(), self._base32)}"

    def _route(self, socket_text: str, keep: bool, back: tuple[str, ...] = ()) -> str:
        """The parameter of a Record-Route of ours: requests that come by it leave by the socket ``socket_text``; ``back``: the
        routes of who sends them."""
        return self._seal(Side(_ROUTE_WITH_USER if keep else _ROUTE, (), socket_text, back))

    @staticmethod
    def _route_line(param: str, _edits: EditList, way: Any) -> str:
        return "" if way is None else f"Record-Route: <sip:{own_address(way[1].socket)}{param};lr>"

    def _contact(
        self, routes: tuple[str, ...], socket_text: str, back: tuple[str, ...], user: str, keep: bool, socket: Any,
        message: Message,
    ) -> str:
        """A Contact at ``socket`` that stands for that of ``message``."""
        sealed = self._seal(Side(message.contacts[0].uri_text, routes, socket_text, back))
        return self._passed.write(socket, user or (own_user(message) if keep else ""), sealed, message)

    def _open(self, uri: Any) -> Side | None:
        """What is sealed in a URI."""
        for name, seal in self._seals.items():
            octets = seal.open(uri.param(name) or "", self._base32)
            if octets is not None:
                return Side.unpack(octets)
        return None

    def find(self, run: Run) -> Side | None:
        """What the Request-URI, one of ours, says of where the request is to go."""
        try:
            uri = run.request_uri
            side = self._open(uri) if is_own(run, uri) else None
        except MalformedMessage:
            return None
        return None if side is None or side.target in (_ROUTE, _ROUTE_WITH_USER) else side

    def match(self, run: Run) -> bool:
        """Send a request within a hidden dialog on; false if it is in none."""
        request = run.message
        if not isinstance(request, Request) or not request.to_tag:
            return False
        side = self.find(run)
        if side is None:
            return self._match_route(run, request)
        keep = bool(run.request_uri.user)
        trusted = self._one_way.trusted
        socket = run.user.find_socket(side.socket) or (run.user.find_socket(trusted) if trusted else None)
        try:
            send_along(run, side.target, list(side.routes), socket)
        except MalformedMessage as error:
            run.user.log_rarely("hidden contact", -1, f"topology_hiding_match: no way to go on: {error}")
            return False
        run.keep()[DECODED] = side
        own = tuple(map(str, request.record_routes)) or side.back
        came = _socket_text(run.flow.socket)  # type: ignore[union-attr]
        inside = self._one_way.inside(socket)
        if inside:
            run.edits = run.edits.without(RecordRoute).note(UNRECORDED)
        else:
            hide_request(run, partial(self._contact, own, came, side.routes, "", keep))
        if request.method != "ACK":
            contact = partial(self._contact, side.routes, side.socket, own, "", keep)
            self._tm.rewrite_replies(run, partial(hide_response, contact, run.flow.socket, vias=not inside))  # type: ignore[union-attr]
        return True

    def _match_route(self, run: Run, request: Request) -> bool:
        """Send a request from inside on, which has come by a Route of ours; false if it has none."""
        socket = run.flow.socket  # type: ignore[union-attr]
        routes = request.routes
        if not self._one_way.route or not routes or not self._one_way.inside(socket):
            return False
        try:
            mine = is_own(run, routes[0].uri)
            side = self._open(routes[0].uri)
        except MalformedMessage:
            return False
        if side is None or side.target not in (_ROUTE, _ROUTE_WITH_USER):
            return False
        name = side.socket if mine else self._one_way.external
        goes = run.user.find_socket(name) if name else None
        if goes is None:
            why = "that we do not have" if mine else "of another server, and none of ours has the tag th_external_socket_tag"
            run.user.log_rarely("hidden route", -1, f"topology_hiding_match: the request is to leave by a socket {why}")
            return False
        edits = run.edits
        for line in request.positions("route"):
            edits = edits.delete(line)
        if len(routes) > 1:
            edits = edits.insert_before(1, f"Route: {', '.join(map(str, routes[1:]))}")
        run.edits = edits
        run.dst_uri = routes[1].uri_text if len(routes) > 1 else None
        run.send_socket = goes
        own = tuple(map(str, request.record_routes)) or side.back
        keep = side.target == _ROUTE_WITH_USER
        hide_request(run, partial(self._contact, own, _socket_text(socket), (), "", keep))
        if request.method != "ACK":
            self._tm.rewrite_replies(run, partial(hide_response, None, socket))
        return True


def _socket_text(socket: Any) -> str:
    host = f"[{socket.host}]" if ":" in socket.host and socket.host[0] != "[" else socket.host
    return f"{socket.transport}:{host}:{socket.port}"
