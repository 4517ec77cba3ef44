"""Staying in the path of a dialog, and following one (RFC 3261 16.4, 16.6 steps 4 and 6, 16.12).

``record`` puts an edit into the run that becomes the Record-Route when the request is written, since only then is it known from
which socket it leaves. Where that is another than it came in by, there are two of them, marked ``;r2=on``: the upper one is for
the callee's side, the lower one for the caller's (RFC 5658 calls this double Record-Route).

``loose_route`` takes our own values off the Route of a request and finds the next hop: the next value of Route if that is a
loose router, else the Request-URI, which then changes places with it. A Request-URI that is our Record-Route (a strict router
sent the request) is put back first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sipgw.core.surroundings import DEFAULT_PORTS
from sipgw.script.run import Run, Socket
from sipgw.sip.address import NameAddr, parse_list
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Message
from sipgw.sip.uri import Uri

_ROUTED = "routed"
_one_own_route = re.compile(r'[ \t]*<sip:([A-Za-z0-9.\-]+):([0-9]{1,5});([^<>,"\s?@]*)>[ \t]*').fullmatch
_unfit = re.compile(r'[\x00-\x20\x7f<>",?]').search


@dataclass(frozen=True, slots=True)
class RouteParam:
    """A parameter that ``add_rr_param`` wants in the Record-Route of the request, with its leading ";"."""

    text: str


class Unrecorded:
    """A note: the request gets no Record-Route, whoever asks for one (its dialog is hidden: ``hiding.py``)."""


UNRECORDED = Unrecorded()


@dataclass(frozen=True, slots=True)
class RecordRoute:
    """The Record-Route to be: called when the request is written. ``params`` as they stand, ``user`` with its "@"."""

    user: str
    params: str
    double: bool

    def __call__(self, edits: EditList, way: Any) -> str:
        """The header, or two, for a request that leaves on ``way``."""
        if way is None:
            return ""
        run, flow = way
        tail = _params(self.params, edits)
        came = None if run.flow is None else run.flow.socket
        goes = flow.socket
        if self.double and came is not None and came is not goes:
            return (
                f"Record-Route: <sip:{self.user}{own_address(goes, run)};r2=on{tail}>\r\n"
                f"Record-Route: <sip:{self.user}{own_address(came)};r2=on{tail}>"
            )
        return f"Record-Route: <sip:{self.user}{own_address(goes, run)}{tail}>"


@dataclass(frozen=True, slots=True)
class PresetRecordRoute(RecordRoute):
    """A Record-Route whose address the script gives; with a ``second`` one, that is for the caller's side."""

    address: str
    second: str

    def __call__(self, edits: EditList, way: Any) -> str:
        """The header, or two."""
        tail = _params(self.params, edits)
        lines = [f"Record-Route: <sip:{self.user}{address}{tail}>" for address in (self.address, self.second) if address]
        return "\r\n".join(lines)


def _params(params: str, edits: EditList) -> str:
    added = edits.notes(RouteParam)
    return params if not added else params + "".join(param.text for param in added)


def own_address(socket: Socket, run: Run | None = None) -> str:
    """``host:port`` that a socket is known by, ``run``'s own wish first, and its transport unless it is UDP."""
    host = (run is not None and run.advertised_host) or socket.advertised_host or socket.host
    port = (run is not None and run.advertised_port) or socket.advertised_port or socket.port
    if ":" in host and host[0] != "[":
        host = f"[{host}]"
    return f"{host}:{port}" if socket.transport == "udp" else f"{host}:{port};transport={socket.transport}"


def record(run: Run, route: RecordRoute) -> bool:
    """Put ``route`` before the first header of the request; False if it has one already."""
    if run.edits.notes(Unrecorded):
        return True
    if run.edits.notes(RecordRoute):
        run.user.log(-1, "record_route: the request is record-routed already")
        return False
    run.edits = run.edits.later(1, route)
    return True


def record_params(run: Run, *, fromtag: bool, preset: bool, more: str) -> str:
    """The parameters of a Record-Route of ours: ``lr``, the caller's tag (``is_direction`` needs it), and ``more``."""
    tag = run.message.from_tag if fromtag else None
    ftag = f";ftag={tag}" if tag else ""
    return f"{ftag};lr{more}" if preset else f";lr{ftag}{more}"


def checked_params(text: str) -> str:
    """Parameters as they can stand in a URI, with a ";" before them; ``ValueError`` if they cannot."""
    if not text:
        return ""
    found = _unfit(text)
    if found:
        raise ValueError(f"{text!r} has a {found[0]!r}, which cannot stand in a URI's parameters")
    return text if text[0] == ";" else f";{text}"


@dataclass(frozen=True, slots=True)
class Routed:
    """What ``loose_route`` found: its result, and the parameters of our own Route value ("" if it had none).

    ``params`` is None where the request was not routed by a value of ours. ``twin``: those of the second of two values of ours
    (``;r2=on``), which names the side that the request goes to."""

    code: int
    params: str | None
    twin: str | None = None

    def param(self, name: str) -> str | None:
        """The value of one parameter, "" if it has no value; None if it is not there."""
        return _param(self.params, name)

    def last_param(self, name: str) -> str | None:
        """The same of the value of ours that stood last: the twin, or the only one."""
        return _param(self.params if self.twin is None else self.twin, name)


def _param(params: str | None, name: str) -> str | None:
    for part in (params or "").split(";"):
        key, _, value = part.partition("=")
        if key.lower() == name:
            return value
    return None


NOT_ROUTED = Routed(-1, None)


def routed(run: Run) -> Routed:
    """What ``loose_route`` found for this request."""
    found: Routed = NOT_ROUTED if run.context is None else run.context.get(_ROUTED, NOT_ROUTED)
    return found


def is_own(run: Run, uri: Uri) -> bool:
    """Whether ``uri`` names this server; ``maddr`` counts before the host (RFC 3261 16.4)."""
    port = uri.port
    if not uri.params:
        return uri.is_sip and bool(run.user.is_myself(uri.host, port or (5061 if uri.scheme == "sips" else 5060)))
    if port is None:
        port = DEFAULT_PORTS.get((uri.param("transport") or ("tls" if uri.scheme == "sips" else "udp")).lower(), 5060)
    own: bool = uri.is_sip and run.user.is_myself(uri.param("maddr") or uri.host, port)
    return own


def loose_route(run: Run, *, double: bool, warn: bool) -> Routed:
    """Follow the Route of the request, once; ``code`` is 1 if it has one that leads on, else -1.

    A dialog's request whose last Route was ours is routed by its Request-URI, which counts as success; a first request with
    nothing but our own Route (a preloaded one) is not. A Route that cannot be read changes nothing."""
    if run.context is not None and _ROUTED in run.context:
        return routed(run)
    if "route" not in run.message.names:
        return NOT_ROUTED
    try:
        found = _quick(run) or _Follower(run, double, warn).follow()
    except MalformedMessage as error:
        run.user.log_rarely(("loose_route", error.reason), -1, f"loose_route: {error.reason}")
        found = NOT_ROUTED
    run.keep()[_ROUTED] = found
    return found


def _quick(run: Run) -> Routed | None:
    """Do what nearly every request of a dialog needs: take away its one Route, ours; None if it is any other case."""
    message = run.message
    names = message.names
    index = names.index("route")
    match = _one_own_route(message.lines[index].partition(":")[2])
    if match is None or names.count("route") > 1:
        return None
    host, port, params = match.groups()
    if "maddr" in params or not run.user.is_myself(host, int(port)) or message.to_tag is None or is_own(run, run.request_uri):
        return None
    run.edits = run.edits.delete(index)
    return Routed(1, params)


class _Follower:
    """One following of one Route: decides everything first, then changes the run."""

    def __init__(self, run: Run, double: bool, warn: bool) -> None:
        self.run = run
        self.double = double
        self.warn = warn
        self.routes = _read_routes(run.message)
        self.first = 0
        """The first value that stays."""
        self.last = len(self.routes)
        """Behind the last value that stays."""
        self.params: str | None = None
        self.twin: str | None = None
        self.socket: Any = None

    def follow(self) -> Routed:
        """Find the next hop."""
        run = self.run
        uri = run.uri
        dst_uri = run.dst_uri
        request_uri = run.request_uri
        strict = _from_strict(run, request_uri)
        self._take_own(strict and request_uri.param("r2") is not None)
        if self.first == self.last and run.message.to_tag is None:
            self._edit("")
            return Routed(-1, self.params, self.twin)
        if strict:
            # RFC 3261 16.4: the true Request-URI is the last value of Route
            if self.first == self.last:
                self.first -= 1
            self.last -= 1
            self.params = request_uri.params
            uri = self.routes[self.last].uri.text
        pushed = ""
        if self.first < self.last:
            target = self.routes[self.first]
            if target.uri.param("lr") is not None:
                dst_uri = target.uri_text
            else:
                # RFC 3261 16.6 step 6: a strict router wants to find itself in the Request-URI
                pushed, uri, dst_uri = uri, target.uri_text, None
                self.first += 1
        self._edit(pushed)
        run.uri = uri
        run.dst_uri = dst_uri
        if self.socket is not None:
            run.send_socket = self.socket
        return Routed(1, self.params, self.twin)

    def _take_own(self, is_twin: bool) -> None:
        """Pass over the first value if it is ours, and its twin (``;r2=on``); ``is_twin``: it is one, of the Request-URI."""
        routes = self.routes
        own = routes[0].uri
        if not is_own(self.run, own):
            return
        self.first = 1
        self.params = own.params
        if self.double and is_twin:
            self._leave_by(own)
        elif self.double and own.param("r2") is not None and len(routes) > 1 and is_own(self.run, routes[1].uri):
            self.first = 2
            self._leave_by(routes[1].uri)

    def _leave_by(self, twin: Uri) -> None:
        """Send from the socket that ``twin``, the second of our two values, names."""
        self.twin = twin.params
        transport = (twin.param("transport") or "udp").lower()
        self.socket = self.run.user.find_socket(f"{transport}:{twin.host}:{twin.port or DEFAULT_PORTS.get(transport, 5060)}")
        if self.socket is None and self.warn:
            self.run.user.log_rarely(("r2", twin.host), 1, f"loose_route: no socket of ours is {twin.text}")

    def _edit(self, pushed: str) -> None:
        """Take the values that are done with out of the message; ``pushed`` becomes the last one."""
        run = self.run
        message = run.message
        edits = run.edits
        number = 0
        for line in message.positions("route"):
            texts = parse_list(message.value(line))
            stay = texts[max(self.first - number, 0) : max(self.last - number, 0)]
            number += len(texts)
            if not stay:
                edits = edits.delete(line)
            elif len(stay) < len(texts):
                edits = edits.replace(line, f"Route: {', '.join(stay)}")
        if pushed:
            edits = edits.insert_after(line, f"Route: <{pushed}>")
        run.edits = edits


def _read_routes(message: Message) -> list[NameAddr]:
    """The values of Route; ``MalformedMessage`` if one has no angle brackets (RFC 3261 20.34 demands them), or there is none."""
    routes = message.routes
    if not routes or any("<" not in value for value in message.values("route")):
        raise MalformedMessage("Bad Route")
    return routes


def _from_strict(run: Run, uri: Uri) -> bool:
    """Whether ``uri``, the Request-URI, is a Record-Route of ours that a strict router put there.

    COMPAT: OpenSIPS takes any URI of ours for that, also a Contact such as ``sip:user@our-address``; here one with a user
    must be marked ``lr`` (``add_username`` makes such ones)."""
    return is_own(run, uri) and (uri.user is None or uri.param("lr") is not None)
