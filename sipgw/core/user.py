"""The transaction user (RFC 3261 5): what sits on the transaction layer, runs routes and performs actions.

Bytes come in at ``receive``. A message is parsed, checked, shown to the layer, and what the layer delivers is given to a route
(requests) or to the owner of its client transaction (responses: ``proxy.responses``). Three rules hold everywhere:

- **No re-entrance** (house 2.6, 6). Actions go into one queue that ``perform`` drains; the layer is never entered from inside
  itself, however deep in a route somebody sends.
- **A run that waits, waits alone** (2.6, 1). ``execute`` drives the coroutine of a route that can wait; when a request first has
  to, ``on_wait`` gives it a server transaction, so that retransmissions find it.
- **A bug costs one run.** Whatever a route raises is logged with the cfg line, rarely enough not to flood, and answered 500.

Time is ``clock()``, monotonic seconds; ``call_later`` is the reactor's. Nothing here knows a socket but by its ``Flow``."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from hashlib import blake2b
from math import inf
from os import urandom
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from sipgw.aaa import AaaServers
from sipgw.core.cachedb import Caches
from sipgw.core.events import EventBus
from sipgw.core.folding import Folding
from sipgw.core.status import StatusReports
from sipgw.core.surroundings import Surroundings
from sipgw.core.waiting import Drive, within
from sipgw.script.routes import Route, RouteSet
from sipgw.script.run import WATCHER, Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Action, Deliver, Failed, Flow, Send
from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.layer import TransactionLayer
from sipgw.sip.message import Request, Response, is_keepalive, parse, stamp_via
from sipgw.sip.replies import lacks_tag, respond_to
from sipgw.sip.target import Target
from sipgw.sip.timers import DelayQueues
from sipgw.sip.transaction import ClientTransaction
from sipgw.statistics import Statistics

QUIET = 1.0
"""Seconds for which a log line of the same kind is only counted (hardening P26)."""
MAX_QUIET = 1000
"""How many kinds of log line are remembered for that."""

KNOWN_SCHEMES = ("sip:", "sips:", "tel:", "urn:service:", "urn:nena:service:")
"""What a Request-URI may be for a script to see it; anything else is answered 416 (RFC 3261 8.2.2.1)."""


class ClientOwner(Protocol):
    """Whoever started a client transaction: ``transaction.user``."""

    def receive(self, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take a response; ``run`` is what the global reply route left, if there is one."""

    def failed(self, reason: str) -> None:
        """Learn that no final response will come: "timeout" or "transport"."""


class TransactionUser(Surroundings):
    """One server's transaction user: messages in, routes run, messages out."""

    def __init__(
        self,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        log: Callable[[int, str], None],
        settings: dict[str, Any],
        statistics: Statistics,
        call_later: Callable[[float, Callable[[], None]], Any],
        layer: TransactionLayer | None = None,
    ) -> None:
        super().__init__(clock, wall_clock, log, settings)
        self.folding = Folding(clock, log, call_later)  # which folds nothing unless it is told to
        self.xlog = self.folding.xlog
        self.statistics = statistics
        self.layer = layer or TransactionLayer()
        self.timers = DelayQueues()
        self.routes = RouteSet()
        self.events = EventBus(self, call_later)
        self.status = StatusReports(self.events, wall_clock)
        self.caches = Caches(self, statistics)
        self.aaa = AaaServers()
        self.resolve: Callable[[str, int | None, str | None, bool], Awaitable[list[Target]]] = _no_names
        """Finds where a host name leads (RFC 3263): ``await resolve(host, port, transport, secure)`` gives targets, best first.

        ``port`` and ``transport`` are None where the URI has none."""
        self.resolve_host: Callable[[str, str], Awaitable[str | None]] = _no_address
        """Looks one address of a name up: ``await resolve_host(name, wanted)``; ``wanted``: "4", "6", "" for either."""
        self.on_wait: Callable[[Run], None] | None = None
        """Called when a request's run first waits; tm gives it a transaction here."""
        self.on_end: Callable[[Run], None] | None = None
        """Called when the run of a request that has a transaction has ended."""
        self.on_unmatched: Callable[[Response, Flow, Run | None], None] | None = None
        """Called with responses that belong to no transaction; unset, they are dropped (``disable_stateless_fwd``)."""
        self.on_request: list[Callable[[Run], bool]] = []
        """Called before the script with each new request's run; one that returns True has taken it."""
        self.on_received: Callable[[Request | Response, Flow], None] | None = None
        """Called with each message as it came, before anything is done with it."""
        self.kin: list[Callable[[Request | Response], Iterable[str]]] = []
        """Asked, by who looks at a message, for the Call-IDs of the other legs of its call."""
        self.server_line = _signature(settings, "server_header", "Server: sipgw")
        self.agent_line = _signature(settings, "user_agent_header", "User-Agent: sipgw")
        """The User-Agent header of our own requests, CANCELs and ACKs, with its end of line; empty without server_signature."""
        self.startup_vars: dict[str, Any] = {}
        """What modules and startup_route left in ``$var``: each request begins with it (language 1.10)."""
        self.worker = "00"
        """Two characters that name this process in branches and dialog ids (house 2.7)."""
        self._secret = urandom(16)
        self._call_later = call_later
        self._queue: deque[Action] = deque()
        self._performing = False
        self._wake_at = inf
        self._wake: Any = None
        self._quiet: dict[object, list[float]] = {}
        self._tag_prefix = self.layer.new_branch()[7:]
        self._transaction_tag_prefix = self.layer.new_branch()[7:]
        self.rcv_requests = statistics.counter("core", "rcv_requests")
        self.rcv_replies = statistics.counter("core", "rcv_replies")
        self.fwd_requests = statistics.counter("core", "fwd_requests")
        self.fwd_replies = statistics.counter("core", "fwd_replies")
        self.drop_requests = statistics.counter("core", "drop_requests")
        self.drop_replies = statistics.counter("core", "drop_replies")
        self.err_requests = statistics.counter("core", "err_requests")
        self.err_replies = statistics.counter("core", "err_replies")
        self.bad_uris = statistics.counter("core", "bad_URIs_rcvd")
        self.bad_headers = statistics.counter("core", "bad_msg_hdr")
        self.slow_messages = statistics.counter("core", "slow_messages")
        if settings.get("execmsgthreshold"):
            self.take = partial(self._take_timed, settings["execmsgthreshold"])  # type: ignore[method-assign]

    # -- bytes in

    def receive(self, data: bytes, flow: Flow) -> None:
        """Take one message as it came from ``flow``; whatever it is, this returns."""
        try:
            if data[:1] <= b" " and is_keepalive(data):
                return
            message = parse(data)
        except MalformedMessage as error:
            self.refuse(error, flow)
        except Exception as error:
            self.broken(error)
        else:
            self.take(message, flow)

    def take(self, message: Request | Response, flow: Flow) -> None:
        """Take a message that was parsed where it arrived, in a stream; whatever it is, this returns."""
        try:
            now = self.clock()
            if self.on_received is not None:
                self.on_received(message, flow)
            if isinstance(message, Request):
                self.rcv_requests.value += 1
                stamp_via(message, flow.host, flow.port)
                message.check()
                if self._performing or self.layer.knows(message):
                    self.perform(self.layer.receive(message, flow, now))
                else:
                    self._begin(message, flow, now)
            else:
                self.rcv_replies.value += 1
                message.check()
                self._response(message, flow, now)
        except MalformedMessage as error:
            self.refuse(error, flow)
        except Exception as error:
            self.broken(error)

    def _take_timed(self, limit: int, message: Request | Response, flow: Flow) -> None:
        """Take a message, and tell if nobody else was served for more than ``limit`` microseconds. A run that waits holds up
        nobody: its waiting does not count."""
        began = self.clock()
        TransactionUser.take(self, message, flow)
        took = int((self.clock() - began) * 1e6)
        if took > limit:
            self.slow_messages.value += 1
            self.log_rarely("slow", 1, f"{message.lines[0]} of {flow.host}:{flow.port} took {took} us, more than {limit}")
            self.slow("msg processing", took, write(message, NO_EDITS).decode("utf-8", "surrogateescape"))

    def refuse(self, error: MalformedMessage, flow: Flow) -> None:
        """Take what cannot be read: answer it if it can be answered."""
        try:
            self._malformed(error, flow)
        except Exception as bug:
            self.broken(bug)

    def flow_lost(self, flow_id: object) -> None:
        """Learn that a connection has ended (``Flow.id``): what it carried and nobody answered has failed (RFC 3261 17.1.4)."""
        try:
            self.perform(self.layer.flow_lost(flow_id, self.clock()))
        except Exception as error:
            self.broken(error)

    def disconnected(self, transport: str, host: str, port: int, own_host: str, own_port: int) -> None:
        """Tell that the connection of a peer has ended (``E_CORE_TCP_DISCONNECT``)."""
        event = self.events.find("E_CORE_TCP_DISCONNECT")
        if event is not None:
            event.emit(src_ip=host, src_port=port, dst_ip=own_host, dst_port=own_port, proto=transport)

    def slow(self, source: str, microseconds: int, extra: str) -> None:
        """Tell that something took longer than the script allows (``E_CORE_THRESHOLD``)."""
        event = self.events.find("E_CORE_THRESHOLD")
        if event is not None:
            event.emit(source=source, time=microseconds, extra=extra)

    def _begin(self, request: Request, flow: Flow, now: float) -> None:
        """Take a request that is new to the layer: what ``perform`` does with its delivery, by a shorter way."""
        self._performing = True
        try:
            self._request(request, flow, now)
        finally:
            self._performing = False
            self.perform(())

    def _response(self, response: Response, flow: Flow, now: float) -> None:
        route = self.routes.default_onreply
        if route is None:
            self.perform(self.layer.receive(response, flow, now))
            return
        run = Run(response, RouteKind.ONREPLY, flow, now, self)

        def done(result: Any) -> None:
            if result is DROP and response.status < 200:
                self.drop_replies.value += 1
                return
            for action in self.layer.receive(response, flow, self.clock()):
                if isinstance(action, Deliver):
                    self._deliver_response(action.message, action.flow, action.transaction, run)  # type: ignore[arg-type]
                else:
                    self.perform((action,))

        self.execute(route, run, done)

    def _malformed(self, error: MalformedMessage, flow: Flow) -> None:
        """Answer what can be answered; count and, not too often, log the rest."""
        message = error.message
        self.log_rarely(("malformed", flow.host), 1, f"bad message from {flow.host}:{flow.port}: {error}")
        if not isinstance(message, Request):
            self.err_replies.value += isinstance(message, Response)
            self.bad_headers.value += 1
            return
        self.err_requests.value += 1
        self.bad_headers.value += 1
        run = Run(message, RouteKind.ERROR, flow, self.clock(), self)
        run.error = error
        if "via" in message.names:
            try:
                stamp_via(message, flow.host, flow.port)
            except MalformedMessage:
                pass  # it goes back as it came
        if self.routes.error is not None:
            self.execute(self.routes.error, run)
        elif message.method == "ACK" or "via" not in message.names:
            self.drop_requests.value += 1
        else:
            self.reply(run, error.status, error.reason)

    # -- actions

    def perform(self, actions: Iterable[Action]) -> None:
        """Do ``actions`` after all that were asked for before; from inside another ``perform`` they wait for their turn."""
        queue = self._queue
        queue.extend(actions)
        if self._performing:
            return
        if queue:
            self._performing = True
            try:
                while queue:
                    action = queue.popleft()
                    if isinstance(action, Send):
                        action.flow.send(action.data)
                    elif isinstance(action, Deliver):
                        message = action.message
                        if isinstance(message, Request):
                            self._request(message, action.flow, self.clock())
                        else:
                            self._deliver_response(message, action.flow, action.transaction, None)
                    elif isinstance(action, Failed):
                        action.transaction.user.failed(action.reason)
            finally:
                self._performing = False
                if queue:  # something above raised: what was asked for is still done
                    self.perform(())
        if self.layer.delays.soonest < self._wake_at or self.timers.soonest < self._wake_at:
            self._set_wake()

    def _deliver_response(
        self, response: Response, flow: Flow, transaction: ClientTransaction | None, run: Run | None
    ) -> None:
        if transaction is not None:
            transaction.user.receive(response, flow, run)
        elif self.on_unmatched is not None:
            self.on_unmatched(response, flow, run)
        else:
            self.drop_replies.value += 1

    def _request(self, request: Request, flow: Flow, now: float) -> None:
        run = Run(request, RouteKind.REQUEST, flow, now, self)
        if not request.uri.startswith(KNOWN_SCHEMES) and not request.uri.lower().startswith(KNOWN_SCHEMES):
            self.bad_uris.value += 1
            self.reply(run, 416, "Unsupported URI Scheme")
            return
        for taken in self.on_request:
            if taken(run):
                return
        route = self.routes.request
        if route is not None:
            if self.startup_vars:
                run.vars = dict(self.startup_vars)
            self.execute(route, run)

    def _set_wake(self) -> None:
        """See to it that the reactor calls ``_woken`` no later than the first timer."""
        at = min(self.layer.delays.soonest, self.timers.soonest)
        if self._wake_at <= at:
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_at = at
        self._wake = self._call_later(max(0.0, at - self.clock()), self._woken)

    def _woken(self) -> None:
        self._wake_at, self._wake = inf, None
        now = self.clock()
        self.perform(self.layer.expire(now))
        try:
            self.timers.expire(now)
        except Exception as error:
            self.broken(error)
        self._set_wake()

    def after(self, seconds: float, call: Callable[[float], None]) -> Any:
        """Call ``call(now)`` after ``seconds``; what is returned has ``cancel()``."""
        timer = self.timers.add(seconds, self.clock(), call)
        self._set_wake()
        return timer

    @property
    def running_timers(self) -> int:
        """How many timers run, those of transactions too. Counts them one by one."""
        return len(self.timers) + self.layer.timers

    # -- routes

    def execute(self, route: Route, run: Run, done: Callable[[Any], None] | None = None) -> None:
        """Run ``route``; ``done(result)`` at its end, with 500 already sent and ``DROP`` as result if it broke.

        A run that has ended forgets its transaction: nothing may hold one but the layer (see ``proxy/responses.py``)."""
        try:
            result = route.function(run)
        except Exception as error:
            self.fault(route, run, error)
            result = DROP
        else:
            if route.waits:
                try:
                    awaited = result.send(None)
                except StopIteration as stop:
                    result = stop.value
                except Exception as error:
                    self.fault(route, run, error)
                    result = DROP
                else:
                    self._wait(route, run, result, awaited, done)
                    return
        if done is not None:
            done(result)
        self._ended(run)

    def _ended(self, run: Run) -> None:
        """Let ``run`` go."""
        if run.transaction is not None:
            if run.kind is RouteKind.REQUEST and self.on_end is not None:
                self.on_end(run)
            run.transaction = None

    def _wait(
        self,
        route: Route,
        run: Run,
        coroutine: Coroutine[Any, Any, Any],
        awaited: Deferred[Any],
        done: Callable[[Any], None] | None,
    ) -> None:
        """Let the run wait for ``awaited``, and go on when it fires."""
        request = run.kind is RouteKind.REQUEST and run.flow is not None
        if request and run.transaction is None and self.on_wait is not None:
            self.on_wait(run)

        def ended(result: Any) -> None:
            if done is not None:
                done(result)
            self._ended(run)

        def broke(error: BaseException) -> None:
            self.fault(route, run, error)
            ended(DROP)

        awaited.addBoth(Drive(coroutine, ended, broke).step)

    async def run_route(self, route: Route, run: Run) -> Any:
        """Run ``route`` inside another coroutine; what it raises is a fault of that route, the result ``DROP``."""
        try:
            result = route.function(run)
            if route.waits:
                result = await result
        except Exception as error:
            self.fault(route, run, error)
            return DROP
        return result

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run ``coroutine`` beside everything else; what it raises is logged."""
        Drive(coroutine, _ignore, self.broken).step()

    async def within(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of ``coroutine``, or ``TimeoutError`` if it has none in ``seconds`` (the timeout of ``async``)."""
        return await within(seconds, coroutine, self.after)

    def fault(self, route: Route, run: Run, error: BaseException) -> None:
        """Log what ``route`` raised with its cfg line; answer the request 500, or what is wrong with it, if nothing else did."""
        line = _cfg_line(error, route)
        self.log_rarely(
            (route.file, line, type(error)), -1, f"{route.file}:{line}: in {route.name}: {type(error).__name__}: {error}"
        )
        message = run.message
        if isinstance(message, Request) and message.method != "ACK" and run.kind in (RouteKind.REQUEST, RouteKind.FAILURE):
            theirs = isinstance(error, MalformedMessage) and error.message is message
            answer = (error.status, error.reason) if theirs else (500, "Server Internal Error")  # type: ignore[attr-defined]
            try:
                if run.transaction is not None:
                    run.transaction.reply(run, *answer)
                else:
                    self.reply(run, *answer)
            except Exception as second:
                self.broken(second)

    def broken(self, error: BaseException) -> None:
        """Log a bug of our own, with where it was raised; the next message is served."""
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames[-4:]))
        self.log_rarely((type(error), where), -2, f"bug: {type(error).__name__}: {error} at {where}")

    def log_rarely(self, key: object, level: int, text: str) -> None:
        """Log ``text``, but lines of the same ``key`` at most once a second, with a count of those left out."""
        now = self.clock()
        seen = self._quiet.get(key)
        if seen is None:
            if len(self._quiet) >= MAX_QUIET:
                self._quiet.clear()
            self._quiet[key] = [now, 0]
        elif now - seen[0] < QUIET:
            seen[1] += 1
            return
        else:
            if seen[1]:
                text += f" ({int(seen[1])} more like this)"
            seen[0], seen[1] = now, 0
        self.log(level, text)

    # -- stateless replies

    def reply(
        self,
        run: Run,
        status: int,
        reason: str,
        *,
        to_tag: str = "",
        headers: str = "",
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        """Answer ``run.message`` without a transaction (RFC 3261 8.2.7, 16.11); an ACK, or what has no Via, is never answered."""
        request = run.message
        if not isinstance(request, Request) or request.method == "ACK" or run.flow is None or "via" not in request.names:
            return
        data = self.make_reply(
            run, status, reason, to_tag=to_tag, headers=headers, body=body, content_type=content_type
        )
        flow = self.reply_flow(request, run.flow, run.force_rport, run.flags)
        if run.context is not None and WATCHER in run.context:
            flow = run.context[WATCHER].upstream(flow)
        flow.send(data)

    def make_reply(
        self,
        run: Run,
        status: int,
        reason: str,
        *,
        to_tag: str = "",
        headers: str = "",
        body: bytes = b"",
        content_type: str = "",
    ) -> bytes:
        """The bytes of a reply to ``run.message``, with what ``append_to_reply`` asked for and the Server header.

        A 1xx or 2xx has the Record-Route of the request, since it may make a dialog (RFC 3261 12.1.1)."""
        request = run.message
        assert isinstance(request, Request)
        if run.reply_edits:
            headers = "".join(run.reply_edits) + headers
        if not body and run.context is not None:
            body = run.context.get("reply_body", b"")
        return respond_to(
            request,
            status,
            reason,
            to_tag=to_tag or (self.new_tag(request) if lacks_tag(request) else ""),
            headers=headers + self.server_line,
            body=body,
            content_type=content_type,
            record_route=100 < status < 300,
        )

    def new_tag(self, request: Request, transaction: bool = False) -> str:
        """A To tag that is the same for each retransmission of ``request`` (RFC 3261 8.2.7).

        ``transaction``: it is for the replies of one. ``is_our_tag`` does not know those: their ACKs belong to somebody."""
        prefix = self._transaction_tag_prefix if transaction else self._tag_prefix
        known: tuple[object, ...]
        try:
            known = request.call_id, request.from_.params_text, request.cseq
        except MalformedMessage:
            known = request.header("call-id"), request.header("from"), request.header("cseq")
        # the hash of a str is keyed, by a secret of this process (PYTHONHASHSEED); the prefix is another one
        return f"{prefix}.{hash(known) & 0xFFFFFFFF:x}"

    def mark(self, text: str) -> str:
        """A short keyed digest of ``text``: 16 characters that only this server could have made."""
        return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8, key=self._secret).hexdigest()

    def is_our_tag(self, tag: str | None) -> bool:
        """Whether ``tag`` is that of a reply without a transaction that this server made."""
        return tag is not None and tag.startswith(self._tag_prefix)

    def reply_flow(self, request: Request, flow: Flow, force_rport: bool = False, flags: int = 0) -> Flow:
        """Where the replies to ``request`` go (RFC 3261 18.2.2, RFC 3581): back to its source, never to what its Via claims.

        ``maddr`` is not honoured: it lets a stranger aim our replies (hardening P13). ``flags``: of the message. Where the Via
        cannot be read, they go to the port that the request came from."""
        if flow.reliable:
            self.note_flags(flow, flags)
            return flow
        if force_rport:
            return flow
        try:
            via = request.via
            port = via.port or 5060
            if port == flow.port or "rport" in via.params:
                return flow
        except MalformedMessage:
            return flow
        back: Flow = flow.socket.flow(flow.host, port)
        return back

    def note_flags(self, flow: Flow, flags: int) -> None:
        """Open no connection for the replies on ``flow`` if the message has the flag ``tcp_no_new_conn_rplflag``."""
        if flow.reliable and flags & self.no_connect_reply:
            flow.reconnects = False  # type: ignore[attr-defined]  # every reliable flow has it: transport.flow


async def _no_names(host: str, port: int | None, transport: str | None, secure: bool) -> list[Target]:
    """Know no name: what a transaction user does that was given no resolver."""
    return []


async def _no_address(host: str, wanted: str) -> str | None:
    """Know no address, likewise."""
    return None


def _ignore(_result: Any) -> None:
    """Take a result that nobody wants."""


def _cfg_line(error: BaseException, route: Route) -> int:
    """The deepest line of ``route``'s file that ``error`` came through, or where the route begins."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == route.file and frame.lineno is not None:
            return frame.lineno
    return route.line


def _signature(settings: dict[str, Any], name: str, usual: str) -> str:
    """The header of ours that the global ``name`` is, with its end of line; empty when ``server_signature`` is off."""
    if not settings.get("server_signature", 1):
        return ""
    return (settings.get(name) or usual) + "\r\n"
