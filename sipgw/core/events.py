"""The event interface (OpenSIPS's EVI): what happens in the server, told to whoever has subscribed to hear of it.

A module declares its events (``sipgw.exports.event``) and emits them; a script raises events of its own. A subscription joins an
event to a *socket*, a text such as ``udp:127.0.0.1:8888``: what stands before the colon names the transport, an object that a
module has registered here, and the transport makes the ``Sink`` that the events are given to. The one transport that is always
there is ``route``: ``event_route[E_NAME]`` is subscribed to ``E_NAME`` from the start, and again after each reload.

Three rules. An event that nobody hears costs the test of a list. An ``event_route`` runs in a turn of the reactor of its own,
after what raised its event has ended (so the route may raise events, and no chain of them grows the stack). And lines that are
logged while a line of the log is being told are not told: ``E_CORE_LOG`` does not feed on itself."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from sipgw.script.routes import Route, RouteSet
from sipgw.script.run import Run, Value
from sipgw.sip.message import parse

Params = Mapping[str, Value] | Sequence[Value]
"""What an event says: values by name, in order, or values without names."""

MAX_SUBSCRIPTIONS = 1000
"""How many subscriptions one event may have."""
MAX_WAITING = 10_000
"""How many runs of event routes may wait for their turn; what comes then is dropped, and the log says so."""
MAX_EVENTS = 10_000
"""How many events there may be: scripts can make new ones."""
LOG_EVENT = "E_CORE_LOG"

DUMMY = (
    b"DUMMY sip:user@dummy.com SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKdummy\r\nMax-Forwards: 70\r\n"
    b"From: <sip:sipgw@dummy.com>;tag=dummy\r\nTo: <sip:user@dummy.com>\r\nCall-ID: dummy\r\nCSeq: 1 DUMMY\r\n"
    b"Content-Length: 0\r\n\r\n"
)
"""The message of routes that no message has begun (language 1.5)."""


class Sink(Protocol):
    """Where the events of a subscription go. Two that are equal are the same subscriber."""

    def send(self, event: str, params: Params) -> bool | Deferred[bool]:
        """Tell of an event; False, at once or later, if that is known to have failed."""


class Transport(Protocol):
    """A way to tell of events."""

    async def open(self, address: str) -> Sink:
        """The sink at ``address``, what stands behind the colon of a socket; ``ValueError`` if it is none."""


class Around(Protocol):
    """What is asked of the transaction user."""

    routes: RouteSet
    pid: int

    def clock(self) -> float:
        """Monotonic seconds."""

    def wall_clock(self) -> float:
        """Seconds since 1970."""

    def log_rarely(self, key: object, level: int, text: str) -> None:
        """Write a line, not too often."""

    def broken(self, error: BaseException) -> None:
        """Log a bug of our own."""

    def execute(self, route: Route, run: Run, done: Callable[[Any], None] | None = None) -> None:
        """Run a route."""


@dataclass(eq=False, slots=True)
class Subscription:
    """One subscriber of one event, until ``ends``; ``seconds`` is what was asked for, None for ever."""

    socket: str
    sink: Sink
    seconds: int | None
    ends: float


class Event:
    """One event; ``number`` is its place among all. ``parameters`` are those it was declared with."""

    __slots__ = ("_bus", "name", "number", "parameters", "subscriptions")

    def __init__(self, bus: EventBus, name: str, number: int, parameters: tuple[str, ...]) -> None:
        self._bus = bus
        self.name = name
        self.number = number
        self.parameters = parameters
        self.subscriptions: list[Subscription] = []
        """The newest first; some may be over."""

    @property
    def heard(self) -> bool:
        """Whether somebody has subscribed."""
        return bool(self.subscriptions)

    def emit(self, **values: Value) -> None:
        """Tell all subscribers, now; nobody's failure is the caller's."""
        if self.subscriptions:
            self._bus.tell(self, values)


class EventBus:
    """All events of one server, and who hears them.

    ``call_later(seconds, call)`` is the reactor's."""

    def __init__(self, user: Around, call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        self._user = user
        self._call_later = call_later
        self._events: dict[str, Event] = {}
        self._transports: dict[str, Transport] = {"route": _RouteTransport(self)}
        self._waiting: deque[tuple[str, Params]] = deque()
        self._due = False
        self._telling_of_log = 0

    # -- events

    def publish(self, name: str, parameters: Iterable[str] = ()) -> Event:
        """The event of that name, made now if it is new; ``ValueError`` for a name that is none, or when there are too many."""
        found = self._events.get(name)
        if found is None:
            if not name or any(char <= " " for char in name):
                raise ValueError(f"{name!r} cannot be the name of an event")
            if len(self._events) >= MAX_EVENTS:
                raise ValueError(f"there are {MAX_EVENTS} events already")
            found = self._events[name] = Event(self, name, len(self._events), tuple(parameters))
        elif parameters:
            found.parameters = tuple(parameters)
        return found

    def find(self, name: str) -> Event | None:
        """The event of that name, if there is one."""
        return self._events.get(name)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events.values())

    def tell(self, event: Event, params: Params) -> None:
        """Tell all subscribers of ``event``, now; nobody's failure is the caller's."""
        now = self._user.clock()
        for each in tuple(event.subscriptions):
            if each.ends <= now:
                event.subscriptions.remove(each)
                continue
            try:
                each.sink.send(event.name, params)
            except Exception as error:
                self._user.broken(error)

    # -- subscriptions

    def add_transport(self, prefix: str, transport: Transport) -> None:
        """Let sockets ``prefix:address`` be subscribed."""
        if prefix in self._transports:
            raise ValueError(f"there is an event transport {prefix!r} already")
        self._transports[prefix] = transport

    async def open(self, socket: str) -> Sink:
        """The sink that ``socket`` names; ``ValueError`` says why there is none."""
        prefix, colon, address = socket.partition(":")
        transport = self._transports.get(prefix)
        if not colon or transport is None:
            raise ValueError(f"no module tells of events to {socket!r}")
        return await transport.open(address)

    async def subscribe(self, event: Event, socket: str, seconds: int | None = None) -> None:
        """Tell ``socket`` of ``event`` for so many seconds (None: for ever, 0: no longer); ``ValueError`` if it is no socket."""
        self.join(event, socket, await self.open(socket), seconds)

    def join(self, event: Event, socket: str, sink: Sink, seconds: int | None = None) -> None:
        """Subscribe ``sink``; one that is equal is subscribed already, and only its time begins anew."""
        now = self._user.clock()
        kept = self.subscriptions(event)
        found = next((each for each in kept if each.sink == sink), None)
        if seconds == 0:
            event.subscriptions = [each for each in kept if each is not found]
        elif found is not None:
            found.seconds, found.ends = seconds, inf if seconds is None else now + seconds
        elif len(kept) >= MAX_SUBSCRIPTIONS:
            raise ValueError(f"{event.name} has {MAX_SUBSCRIPTIONS} subscribers already")
        else:
            kept.insert(0, Subscription(socket, sink, seconds, inf if seconds is None else now + seconds))

    def subscriptions(self, event: Event) -> list[Subscription]:
        """The subscriptions of ``event`` that are not over, the newest first; those that are, go."""
        now = self._user.clock()
        event.subscriptions = [each for each in event.subscriptions if each.ends > now]
        return event.subscriptions

    # -- event routes

    def follow(self, routes: RouteSet) -> None:
        """Subscribe the event routes of ``routes``, and those no longer there not any more."""
        for event in self:
            gone = [s for s in event.subscriptions if isinstance(s.sink, _RouteSink) and s.sink.name not in routes.events]
            if gone:
                event.subscriptions = [each for each in event.subscriptions if each not in gone]
        for name in routes.events:
            try:
                self.join(self.publish(name), f"route:{name}", _RouteSink(self, name))
            except ValueError as error:
                self._user.log_rarely(("event route", name), -1, f"event_route[{name}] never runs: {error}")

    def has_route(self, name: str) -> bool:
        """Whether there is ``event_route[name]``."""
        return name in self._user.routes.events

    def run_later(self, name: str, params: Params) -> bool:
        """Let ``event_route[name]`` run in the next turn of the reactor, after those that wait; False if too many do."""
        if len(self._waiting) >= MAX_WAITING:
            self._user.log_rarely("event routes", 1, f"event_route[{name}] is left out: {MAX_WAITING} runs are waiting")
            return False
        self._waiting.append((name, params))
        if not self._due:
            self._due = True
            self._call_later(0, self._run_waiting)
        return True

    def _run_waiting(self) -> None:
        """Run what waits by now; what these raise has its own turn."""
        self._due = False
        for _ in range(len(self._waiting)):
            name, params = self._waiting.popleft()
            route = self._user.routes.events.get(name)
            if route is not None:
                self._run(route, params)

    def _run(self, route: Route, params: Params) -> None:
        run = run_alone(route, self._user)
        run.params = params  # type: ignore[assignment]  # of an event: by name too (runtime.event_param)
        if route.name == LOG_EVENT:
            self._telling_of_log += 1
            self._user.execute(route, run, self._log_told)
        else:
            self._user.execute(route, run)

    def _log_told(self, _result: Any) -> None:
        self._telling_of_log -= 1

    # -- the log

    def log_line(self, level: str, text: str, prefix: str = "") -> None:
        """Raise ``E_CORE_LOG`` for a line of the log, if anybody hears it.

        Lines logged by whoever is told of one are not told, nor is any while an ``event_route[E_CORE_LOG]`` waits."""
        event = self._events.get(LOG_EVENT)
        if event is None or not event.subscriptions or self._telling_of_log:
            return
        self._telling_of_log += 1
        try:
            user = self._user
            params: dict[str, Value] = {
                "time": time.strftime("%b %d %H:%M:%S", time.localtime(user.wall_clock())),
                "pid": user.pid,
                "level": level,
            }
            if prefix:
                params["prefix"] = prefix
            params["message"] = text.rstrip("\n")
            self.tell(event, params)
        finally:
            self._telling_of_log -= 1


def run_alone(route: Route, user: Any) -> Run:
    """The run of a route that no message has begun."""
    return Run(parse(DUMMY), route.kind, None, user.clock(), user)


@dataclass(frozen=True, slots=True)
class _RouteSink:
    """``event_route[name]``."""

    bus: EventBus
    name: str

    def send(self, event: str, params: Params) -> bool:
        """Let the route run soon."""
        return self.bus.run_later(self.name, params)


class _RouteTransport:
    """Sockets ``route:E_NAME``."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus

    async def open(self, address: str) -> Sink:
        """The event route of that name."""
        if not self._bus.has_route(address):
            raise ValueError(f"there is no event_route[{address}]")
        return _RouteSink(self._bus, address)
