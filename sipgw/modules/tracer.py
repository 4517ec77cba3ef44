"""tracer: shows SIP messages, as they came and as they went out, to capture servers, databases, files or other servers.

A *trace id* names one or several places (``trace_id``). ``trace()`` shows them the message at hand, or all of its transaction:
the request and its repetitions, what is sent for it, the responses and our own. What comes in is recognised by its transaction
(``TransactionUser.on_received``); what goes out is seen on the flow it leaves by (``proxy/watched.py``): so the copies are what
was on the wire. ``tracer:start`` does the same to requests that fit its filters, without a script that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from sipgw.core.levels import NAMES, level_of
from sipgw.core.user import TransactionUser
from sipgw.exports import BRANCH, FAILURE, LOCAL, ONREPLY, REQUEST, Module, function, mi, param, requires, statistic
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._tracer_sessions import TracedSessions
from sipgw.modules._tracer_targets import (
    Columns,
    DatabaseTarget,
    End,
    FileTarget,
    HepTarget,
    Record,
    SipTarget,
    SyslogTarget,
    Target,
)
from sipgw.modules._tracer_words import (
    CALLEE,
    CALLER,
    DIALOG,
    MESSAGE,
    SESSION,
    TRANSACTION,
    check_facility,
    check_local,
    local_end,
    scope_of,
)
from sipgw.proxy.dialogs import Call, CallFlag
from sipgw.proxy.following import call_of
from sipgw.proxy.watched import watched
from sipgw.script.run import WATCHER, Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.actions import Flow
from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.uri import Uri
from sipgw.transport.hep import XLOG, Frame

RAW = "raw"
"""Under this name a run keeps its request as it came."""

_NAMED = re.compile(r"\[\s*([^\]\s]+)\s*\](.*)", re.DOTALL)
_COLUMNS = (
    "date callid trace_attrs msg method status fromproto fromip fromport toproto toip toport fromtag direction".split()
)
"""The columns; the parameter that names each has "_column" behind it."""


@dataclass(eq=False)
class Places:
    """All places of one trace id. ``filters`` and ``scope`` belong to those that ``tracer:start`` made."""

    name: str
    targets: list[Target] = field(default_factory=list)
    dynamic: bool = False
    scope: int = DIALOG
    kinds: frozenset[str] = frozenset()
    filters: list[tuple[str, str]] = field(default_factory=list)

    def fits(self, run: Run) -> bool:
        """Whether a request is what all filters ask for."""
        return all(_fits(run, name, wanted) for name, wanted in self.filters)


def _fits(run: Run, name: str, wanted: str) -> bool:
    request = run.message
    assert isinstance(request, Request)
    if name == "ip":
        return run.flow is not None and run.flow.host == wanted
    try:
        uri = Uri.parse(request.from_.uri_text) if name == "caller" else request.request_uri
    except MalformedMessage:
        return False
    return wanted in (uri.user or "", f"{uri.user or ''}@{uri.host}")


@dataclass(eq=False, slots=True)
class Wish:
    """One call of ``trace()``: what of the messages is shown (``kinds``: sip, xlog), of which legs, and where."""

    places: Places
    kinds: frozenset[str]
    attrs: str
    correlation: str
    legs: frozenset[str]


Legs = tuple[str, str]
"""On which legs of a call the sender and the receiver of a request are."""


class Trail:
    """All that is to be shown of one transaction (``script.run.Watcher``); ``left``: of how many messages more, None for all."""

    def __init__(self, module: Tracer, scope: int, wishes: list[Wish] | None = None, legs: Legs = (CALLER, CALLEE)) -> None:
        self._module = module
        self.scope = scope
        self.wishes: list[Wish] = [] if wishes is None else wishes
        self.left: int | None = None
        self.sender, self.receiver = legs
        """On which legs of the call who sends the request and who receives it are."""

    def upstream(self, flow: Flow) -> Flow:
        """The way back to who sent the request, watched."""
        return watched(flow, lambda data, beneath: self._out(data, beneath, self.sender))

    def downstream(self, flow: Flow) -> Flow:
        """The way on, watched."""
        return watched(flow, lambda data, beneath: self._out(data, beneath, self.receiver))

    def _out(self, data: bytes, flow: Any, leg: str) -> None:
        if self.left is not None:
            if self.left <= 0:
                return
            self.left -= 1
        self._module.show_out(data, flow, leg, self.wishes)

    def logged(self, run: Run, level: int, text: str) -> None:
        """A line of ``xlog``."""
        self._module.show_line(run, level, text, self.wishes)


class Tracer(Module):
    """Shows what passes to capture servers, databases, files and others."""

    proto_hep: Any = requires("proto_hep", optional=True)
    dialog: Any = requires("dialog", optional=True)
    b2b_entities: Any = requires("b2b_entities", optional=True)

    trace_id: str = param("", "Where to trace: [name]uri=hep:ID | sip:... | file:PATH | syslog[:FACILITY[:LEVEL]] | a database;"
                          " of that also table=NAME", each="add_place")
    trace_on: int = param(1, "Whether anything is traced")
    trace_local_ip: str = param("", "What stands for our own address: [proto:]address[:port]", check=check_local)
    file_mode: int = param(0o600, "The permissions of files that are made")
    syslog_default_facility: str = param("", "The facility of syslog (default: syslog_facility)", check=check_facility)
    syslog_default_level: int = param(0, "The level for syslog (default: log_level)")
    date_column: str = param("time_stamp", "Name of the column")
    callid_column: str = param("callid", "Name of the column")
    trace_attrs_column: str = param("trace_attrs", "Name of the column")
    msg_column: str = param("msg", "Name of the column")
    method_column: str = param("method", "Name of the column")
    status_column: str = param("status", "Name of the column")
    fromproto_column: str = param("from_proto", "Name of the column")
    fromip_column: str = param("from_ip", "Name of the column")
    fromport_column: str = param("from_port", "Name of the column")
    toproto_column: str = param("to_proto", "Name of the column")
    toip_column: str = param("to_ip", "Name of the column")
    toport_column: str = param("to_port", "Name of the column")
    fromtag_column: str = param("fromtag", "Name of the column")
    direction_column: str = param("direction", "Name of the column")

    traced_requests = statistic("requests that were shown")
    traced_replies = statistic("responses that were shown")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._texts: list[tuple[str, dict[str, str]]] = []
        self._places: dict[str, Places] = {}
        self._started: dict[str, Places] = {}
        self._latest: tuple[object, bytes] = (None, b"")
        self._local: End | None = None
        self._followed: WeakKeyDictionary[Call, list[Trail]] = WeakKeyDictionary()
        """The trails of each dialog that is traced."""
        super().__init__(server, **parameters)

    # -- places

    def add_place(self, value: str) -> None:
        """Take one ``trace_id``; what it names is opened at the start."""
        found = _NAMED.fullmatch(value.strip())
        if found is None:
            raise ValueError("write [name]uri=...;")
        settings: dict[str, str] = {}
        for part in found[2].split(";"):
            key, equals, text = (each.strip() for each in part.partition("="))
            if key and (key not in ("uri", "table") or not equals):
                raise ValueError(f"{part.strip()!r} is neither uri=... nor table=...")
            if key:
                settings[key] = text
        if not settings.get("uri"):
            raise ValueError("it has no uri=...")
        self._texts.append((found[1], settings))

    def _target(self, name: str, uri: str, table: str = "") -> Target:
        """The place that ``uri`` means; ``ValueError`` if it is none."""
        user: TransactionUser = self.server.user
        kind, _, rest = uri.partition(":")
        kind = kind.lower()
        if kind == "hep":
            if self.proto_hep is None:
                raise ValueError("hep: needs the module proto_hep")
            found = self.proto_hep.destination(rest)
            if found is None:
                raise ValueError(f"proto_hep has no hep_id {rest}")
            return HepTarget(found)
        if kind in ("sip", "sips"):
            return SipTarget(uri, user)
        if kind == "file":
            return FileTarget(rest, self.file_mode, user)
        if kind == "syslog":
            facility = self.syslog_default_facility or str(user.globals.get("syslog_facility") or "LOG_DAEMON")
            return SyslogTarget(rest, facility, self.syslog_default_level or user.log_level)
        columns = Columns({name: getattr(self, f"{name}_column") for name in _COLUMNS})
        return DatabaseTarget(uri, table or "sip_trace", columns, self.server)

    async def start(self) -> None:
        """Open all places, and look at what comes in from now on."""
        if self.trace_local_ip:
            self._local = local_end(self.trace_local_ip)
        for name, settings in self._texts:
            try:
                target = self._target(name, settings["uri"], settings.get("table", ""))
                await target.start()
            except (ValueError, OSError) as error:
                raise ValueError(f"trace_id [{name}]: {error}") from None
            self._places.setdefault(name, Places(name)).targets.append(target)
        user: TransactionUser = self.server.user
        user.on_received = self._received
        user.on_request.insert(0, self._begins)
        if self.b2b_entities is not None:
            self.b2b_entities.entities.onlooker = TracedSessions(self._of_session, self._trail, self._came)

    async def stop(self) -> None:
        """Close all places."""
        for places in (*self._places.values(), *self._started.values()):
            for target in places.targets:
                target.close()

    # -- the script's function

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def trace(
        self,
        run: Run,
        trace_id: str,
        scope: Annotated[str, scope_of] | None = None,
        type: str | None = None,
        trace_attrs: str | None = None,
        flags: str | None = None,
        correlation_id: str | None = None,
    ) -> int:
        """Show the message to the places of ``trace_id``: it alone ("m"), all of its transaction ("t") or dialog ("d").

        ``type``: "sip", "xlog" or both, joined by "|"; ``flags``: "C" for the caller's leg alone, "c" for the callee's."""
        user: TransactionUser = run.user
        places = self._places.get(trace_id)
        if places is None:
            user.log_rarely(("trace", trace_id), -1, f"trace: there is no trace_id {trace_id}")
            return -1
        kinds = frozenset({"sip"})
        if type is not None and self.proto_hep is not None:
            kinds = self._kinds(type)
            if not kinds:
                return -1
        try:
            wanted = scope_of(scope or "")
        except ValueError as error:
            user.log(-1, f"trace: {error}")
            return -1
        legs = frozenset(flags or "") & {CALLER, CALLEE}
        wish = Wish(places, kinds, trace_attrs or "", correlation_id or "", legs or frozenset({CALLER, CALLEE}))
        return self._follow(run, wish, wanted)

    def _kinds(self, text: str) -> frozenset[str]:
        found = set()
        for name in text.split("|"):
            if name.strip() in ("sip", "xlog"):
                found.add(name.strip())
            else:
                self.server.user.log_rarely(("trace type", name), 1, f"trace: there are no messages of type {name.strip()!r}")
        return frozenset(found)

    def _follow(self, run: Run, wish: Wish, scope: int) -> int:
        """Show the message at hand and, by ``scope``, what follows it."""
        user: TransactionUser = run.user
        request = isinstance(run.message, Request)
        if scope == SESSION and self.b2b_entities is None:
            user.log_rarely("trace b", -1, "trace: there are no B2B sessions to trace")
            return -1
        if not scope:
            scope = DIALOG if self.dialog is not None and run.message.method == "INVITE" else TRANSACTION
        if scope == DIALOG and not self._begins_dialog(run):
            user.log_rarely("trace d", 3, "trace: there is no dialog to trace, the transaction is")
            scope = TRANSACTION
        if scope == TRANSACTION and not request:
            scope = MESSAGE
        if scope != MESSAGE or run.kind is RouteKind.LOCAL:
            self._watch(run, wish, scope)
        if run.kind is not RouteKind.LOCAL and run.flow is not None:
            self._show_in(run.message, self._raw(run), run.flow, CALLER if request else CALLEE, [wish])
        return 1

    def _watch(self, run: Run, wish: Wish, scope: int) -> None:
        """See to it that what belongs to the message is seen."""
        context = run.transaction
        trail = run.keep().get(WATCHER) or (None if context is None else context.watcher)
        if trail is None:
            trail = Trail(self, scope)
            if scope == MESSAGE:
                trail.left = 1
        run.keep()[WATCHER] = trail
        trail.wishes.append(wish)
        if context is not None:
            context.watch(trail)
        call = call_of(run) if scope == DIALOG else None
        if call is not None and trail not in self._followed.get(call, ()):
            trail.scope = DIALOG
            self._followed.setdefault(call, []).append(trail)
            call.listeners.append(partial(self._within, trail))

    def _begins_dialog(self, run: Run) -> bool:
        """Make the dialog of a first INVITE, if the module dialog is there."""
        if self.dialog is None or run.kind is not RouteKind.REQUEST or run.message.method != "INVITE" or run.message.to_tag:
            return False
        return self.dialog.follower.create(run, CallFlag(0)) is not None

    def _within(self, trail: Trail, event: str, call: Call, run: Run | None, leg: Any) -> None:
        """See a request within a dialog that is traced, and what belongs to it."""
        if event not in ("within", "terminated") or run is None or run.flow is None or not isinstance(run.message, Request):
            return
        legs = (CALLEE, CALLER) if leg is call.caller else (CALLER, CALLEE)
        made = run.keep()[WATCHER] = Trail(self, DIALOG, trail.wishes, legs)
        if run.transaction is not None:
            run.transaction.watch(made)
        self._show_in(run.message, self._raw(run), run.flow, made.sender, made.wishes)

    @staticmethod
    def _of_session(run: Run) -> list[Wish] | None:
        trail = run.keep().get(WATCHER)
        return trail.wishes if isinstance(trail, Trail) and trail.scope == SESSION else None

    def _trail(self, wishes: list[Wish], leg: str) -> Trail:
        return Trail(self, SESSION, wishes, (leg, leg))

    def _came(self, run: Run, trail: Any) -> None:
        if run.flow is not None:
            self._show_in(run.message, self._raw(run), run.flow, trail.sender, trail.wishes)

    def _raw(self, run: Run) -> bytes:
        """The message at hand as it came."""
        raw: bytes | None = None if run.context is None else run.context.get(RAW)
        return raw if raw is not None and isinstance(run.message, Request) else write(run.message, NO_EDITS)

    # -- what comes in

    def _received(self, message: Request | Response, flow: Flow) -> None:
        """See each message before anybody else does; show it if it belongs to what is traced."""
        trail: Any = None
        layer = self.server.user.layer
        request = isinstance(message, Request)
        try:
            if isinstance(message, Request):
                self._latest = message, write(message, NO_EDITS)
                server = layer.find(message)
                trail = None if server is None else getattr(server.user, "watcher", None)
                if message.method == "CANCEL" and (trail is None or trail.scope not in (DIALOG, SESSION)):
                    return
            else:
                branch = message.via.branch or ""
                client = layer.find_client(branch, message.method)
                owner: Any = None if client is None else client.user
                if message.method == "CANCEL":
                    client = layer.find_client(branch, "INVITE")
                    owner = None if client is None else client.user
                if hasattr(owner, "owner"):
                    owner = owner.owner()
                trail = getattr(owner, "watcher", None)
        except MalformedMessage:
            return
        if isinstance(trail, Trail) and trail.scope != MESSAGE:
            self._show_in(message, write(message, NO_EDITS), flow, trail.sender if request else trail.receiver, trail.wishes)

    def _begins(self, run: Run) -> bool:
        """Look at a new request before its script does; never takes it."""
        if self._latest[0] is run.message:
            run.keep()[RAW] = self._latest[1]
        self._latest = None, b""
        if run.message.method == "CANCEL":
            server = run.user.layer.find(run.message)
            trail = None if server is None else getattr(server.user, "watcher", None)
            if isinstance(trail, Trail) and trail.scope in (DIALOG, SESSION):
                run.keep()[WATCHER] = trail
        for places in tuple(self._started.values()):
            initial = run.message.method == "INVITE" and not run.message.to_tag
            if (places.scope not in (DIALOG, SESSION) or initial) and places.fits(run):
                self._follow(run, Wish(places, places.kinds, "", "", frozenset({CALLER, CALLEE})), places.scope)
        return False

    # -- showing

    def _show_in(self, message: Request | Response, data: bytes, flow: Any, leg: str, wishes: list[Wish]) -> None:
        source: End = (flow.transport, flow.host, flow.port)
        header = getattr(flow, "proxy_header", None)
        if header is not None:
            source = (flow.transport, header["src_ip"], header["src_port"])
        response = isinstance(message, Response)
        target = self._local if response and self._local is not None else _ours(flow)
        self._show("in", message, data, (source, target), flow, leg, wishes)

    def show_out(self, data: bytes, flow: Any, leg: str, wishes: list[Wish]) -> None:
        """Show what has gone out on ``flow``."""
        try:
            message = parse(data)
        except MalformedMessage:
            return
        ends = (self._local or _ours(flow), (flow.transport, flow.host, flow.port))
        self._show("out", message, data, ends, flow, leg, wishes)

    def _show(
        self,
        direction: str,
        message: Request | Response,
        data: bytes,
        ends: tuple[End, End],
        flow: Any,
        leg: str,
        wishes: list[Wish],
    ) -> None:
        user: TransactionUser = self.server.user
        try:
            call_id, from_tag, method = message.call_id, message.from_tag or "", message.method
        except MalformedMessage:
            return
        status = str(message.status) if isinstance(message, Response) else ""
        connection = flow.id[1] if flow.reliable else 0
        shown = False
        for wish in wishes:
            if leg not in wish.legs or "sip" not in wish.kinds:
                continue
            for target in self._open_targets(wish):
                record = Record(
                    direction, data, call_id, method, status, from_tag, *ends, user.wall_clock(), connection, wish.attrs,
                    wish.correlation,
                )
                try:
                    target.show(record)
                except Exception as error:
                    user.broken(error)
                shown = True
        if shown:
            (self.traced_replies if status else self.traced_requests).inc()

    def _open_targets(self, wish: Wish) -> Iterator[Target]:
        places = wish.places
        if places.dynamic:
            if self._started.get(places.name) is places:
                yield from places.targets
        elif self.trace_on:
            yield from (target for target in places.targets if target.on)

    def show_line(self, run: Run, level: int, text: str, wishes: list[Wish]) -> None:
        """Show a line of ``xlog`` to the capture servers that want those."""
        end: tuple[str, int] = ("127.0.0.1", 0) if run.flow is None else _ours(run.flow)[1:]
        for wish in wishes:
            if "xlog" not in wish.kinds:
                continue
            for target in self._open_targets(wish):
                if isinstance(target, HepTarget):
                    call_id = run.message.call_id
                    parts = {"Event": NAMES[level_of(level)], "text": text}
                    target.destination.send(Frame(XLOG, 6, end, end, run.user.wall_clock(), parts, call_id, {"sip": call_id}))

    # -- management

    @mi("trace", named_only=True, recipes=((), ("id",), ("mode",), ("id", "mode")))
    def mi_trace(self, id: str | None = None, mode: str | None = None) -> Any:
        """Shows the places, of one trace id or all; with ``mode`` "on" or "off" switches tracing, of one trace id or at all."""
        if mode is not None and mode.lower() not in ("on", "off"):
            raise MIError(500, "Bad parameter value", "trace mode should be 'on' or 'off'")
        on = mode is not None and mode.lower() == "on"
        if id is None:
            if mode is not None:
                self.trace_on = int(on)
                return None
            everything = (*self._places.values(), *self._started.values())
            shown = [item for places in everything for item in _shown(places)]
            return {"global": "on" if self.trace_on else "off", "trace destinations": shown}
        if mode is not None:
            if id not in self._places:
                raise MIError(400, "Bad parameter value")
            for target in self._places[id].targets:
                target.on = on
            return None
        found = self._places.get(id) or self._started.get(id)
        if found is None:
            raise MIError(400, "Bad trace id value")
        return {"trace destinations": _shown(found)}

    @mi("start", alias="trace_start", recipes=(("id", "uri"), ("id", "uri", "filter"), ("id", "uri", "filter", "scope", "type")))
    def mi_start(
        self, id: str, uri: str, filter: list[str] | None = None, scope: str | None = None, type: str | None = None
    ) -> None:
        """Traces requests from now on: those that fit each ``filter`` (caller=, callee=, ip=), to ``uri``."""
        kind, _, rest = uri.partition(":")
        if kind.lower() not in ("hep", "sip", "sips", "file", "syslog"):
            raise MIError(406, "DB not acceptable", "dynamic DB tracing is not yet available")
        if id in self._places or id in self._started:
            raise MIError(500, "Bad parameter value", "trace id already used")
        try:
            wanted = scope_of(scope or "") or DIALOG
            filters = [_filter(text) for text in filter or ()]
            if kind.lower() == "hep":
                if self.proto_hep is None:
                    raise MIError(500, "No transport protocol", "HEP module was not loaded")
                if self.proto_hep.destination(id) is not None:
                    raise ValueError(f"proto_hep has a hep_id {id}")
                target: Target = HepTarget(self.proto_hep.new_destination(id, rest))
            else:
                target = self._target(id, uri)
                if isinstance(target, FileTarget):
                    target.open()
        except (ValueError, OSError) as error:
            raise MIError(500, "Bad parameter value", str(error)) from None
        kinds = (self._kinds(type) if type else None) or frozenset({"sip", "xlog"})
        self._started[id] = Places(id, [target], True, wanted, kinds, filters)

    @mi("stop", alias="trace_stop")
    def mi_stop(self, id: str) -> None:
        """Ends what ``tracer:start`` has begun."""
        found = self._started.pop(id, None)
        if found is None:
            raise MIError(400, "Bad parameter value")
        for target in found.targets:
            if isinstance(target, HepTarget):
                self.proto_hep.forget(target.destination)
            else:
                target.close()


def _ours(flow: Any) -> End:
    """Our end of ``flow``: what its socket advertises, if that is an address."""
    socket = flow.socket
    host, port = socket.host, socket.port
    if socket.advertised_host:
        try:
            host = str(ip_address(socket.advertised_host.strip("[]")))
        except ValueError:
            pass
        port = socket.advertised_port or port
    return flow.transport, host, port


def _filter(text: str) -> tuple[str, str]:
    """One filter of ``tracer:start``."""
    name, _, wanted = text.partition("=")
    if name.lower() not in ("caller", "callee", "ip") or not wanted:
        raise ValueError(f"{text!r} is no filter: write caller=, callee= or ip=")
    return name.lower(), str(ip_address(wanted.strip("[]"))) if name.lower() == "ip" else wanted


def _shown(places: Places) -> list[dict[str, Any]]:
    """The places of one trace id as the management interface shows them."""
    shown = []
    for target in places.targets:
        item: dict[str, Any] = {"name": places.name}
        if target.kind:
            item |= {"type": target.kind, "uri": target.uri}
        item["state"] = "dynamic" if places.dynamic else "on" if target.on else "off"
        if places.filters:
            item["filters"] = [{name: wanted} for name, wanted in places.filters]
        shown.append(item)
    return shown
