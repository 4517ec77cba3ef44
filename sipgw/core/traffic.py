"""What passes through a server, by method, status class and route: counts, and how long things took.

Nothing here costs anything until ``Traffic.start`` wraps what it measures; then a message costs some additions more. Labels have
few values: a method that no RFC names counts as "other" (whoever sends could make as many as they like otherwise)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from sipgw.script.routes import Route, RouteSet
from sipgw.script.symbols import ROUTE_KEYWORDS, RouteKind
from sipgw.sip.message import Request

METHODS = frozenset(
    "INVITE ACK BYE CANCEL OPTIONS REGISTER PRACK SUBSCRIBE NOTIFY PUBLISH INFO REFER MESSAGE UPDATE".split()
)
OTHER = "other"
ANSWER_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0)
"""Seconds until a final response; an INVITE has rung by then."""
ROUTE_BOUNDS = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
"""Seconds from the beginning of a route to its end."""


class Histogram:
    """How many values were no greater than each of ``bounds``, their number and their sum."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def buckets(self) -> Iterator[tuple[str, int]]:
        """Each bound as text, "+Inf" last, with how many values were no greater."""
        return zip([*map(repr, self.bounds), "+Inf"], accumulate(self._counts), strict=True)


class Traffic:
    """The counts of one server, whose transaction user is ``user``."""

    def __init__(self, user: Any) -> None:
        self.requests: dict[str, int] = {}
        """Requests that came, repetitions too, by method."""
        self.responses: dict[tuple[str, str], int] = {}
        """Responses that came, repetitions too, by method and status class."""
        self.answers: dict[tuple[str, str], Histogram] = {}
        """Seconds from a request to the final response that was sent, by method and status class."""
        self.routes: dict[str, Histogram] = {}
        """Seconds that each route took, its waiting too."""
        self._user = user
        self._followed: RouteSet | None = None
        self._wrapped: list[tuple[Route, Any, Any]] = []
        self._undo: list[Callable[[], None]] = []

    def start(self) -> None:
        """Count from now on."""
        user = self._user
        self._replace(user, "take", self._take(user.take))
        self._replace(user, "reply", self._reply(user.reply))
        before, user.layer.on_final = user.layer.on_final, self._final
        self._undo.append(lambda: setattr(user.layer, "on_final", before))
        self.follow()

    def stop(self) -> None:
        """Count no more."""
        while self._undo:
            self._undo.pop()()
        self._unwrap()

    def _replace(self, owner: Any, name: str, new: Any) -> None:
        old = vars(owner).get(name)
        setattr(owner, name, new)
        self._undo.append((lambda: delattr(owner, name)) if old is None else (lambda: setattr(owner, name, old)))

    # -- messages

    def _take(self, inner: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
        user, requests, responses = self._user, self.requests, self.responses

        def take(message: Any, flow: Any) -> None:
            if user.routes is not self._followed:
                self.follow()
            if isinstance(message, Request):
                method = message.method if message.method in METHODS else OTHER
                requests[method] = requests.get(method, 0) + 1
            else:
                key = _method_of(message), _class_of(message.status)
                responses[key] = responses.get(key, 0) + 1
            inner(message, flow)

        return take

    def _final(self, transaction: Any, status: int, now: float) -> None:
        self._answered(transaction.method, status, now - transaction.received_at)

    def _reply(self, inner: Callable[..., None]) -> Callable[..., None]:
        def reply(run: Any, status: int, reason: str, **options: Any) -> None:
            inner(run, status, reason, **options)
            if status >= 200 and isinstance(run.message, Request) and run.message.method != "ACK":
                self._answered(run.message.method, status, self._user.clock() - run.now)

        return reply

    def _answered(self, method: str, status: int, seconds: float) -> None:
        key = method if method in METHODS else OTHER, _class_of(status)
        found = self.answers.get(key)
        if found is None:
            found = self.answers[key] = Histogram(ANSWER_BOUNDS)
        found.observe(seconds)

    # -- routes

    def follow(self) -> None:
        """Measure the routes that are there now: others after a reload."""
        routes: RouteSet = self._user.routes
        if routes is self._followed:
            for route, inner, outer in self._wrapped:
                if route.function is inner:  # whoever measured it besides has put back what was there before us
                    route.function = outer
            return
        self._unwrap()
        self._followed = routes
        alone = (routes.request, routes.default_onreply, routes.local, routes.error, routes.startup)
        tables = (routes.named, routes.branch, routes.failure, routes.onreply, routes.events)
        every = [route for route in alone if route is not None] + [each for table in tables for each in table.values()]
        for route in [*every, *routes.timers]:
            self._wrap(route)

    def _wrap(self, route: Route) -> None:
        """Measure one route; one with a name is called by the code of others too, by its name in it."""
        inner: Any = route.function
        found = self.routes.setdefault(label_of(route), Histogram(ROUTE_BOUNDS))
        route.function = _timed(inner, route.waits, found, self._user.clock)
        names = inner.__globals__
        if route.kind is RouteKind.REQUEST and names.get(inner.__name__) is inner:
            names[inner.__name__] = route.function
        self._wrapped.append((route, inner, route.function))

    def _unwrap(self) -> None:
        for route, inner, outer in self._wrapped:
            if route.function is outer:
                route.function = inner
            if inner.__globals__.get(inner.__name__) is outer:
                inner.__globals__[inner.__name__] = inner
        self._wrapped.clear()
        self._followed = None


def _timed(inner: Any, waits: bool, histogram: Histogram, clock: Callable[[], float]) -> Any:
    observe = histogram.observe
    if waits:

        async def waiting(run: Any, *params: Any) -> Any:
            began = clock()
            try:
                return await inner(run, *params)
            finally:
                observe(clock() - began)

        return waiting

    def step(run: Any, *params: Any) -> Any:
        began = clock()
        try:
            return inner(run, *params)
        finally:
            observe(clock() - began)

    return step


def label_of(route: Route) -> str:
    """A route as the script writes it, such as ``failure_route[busy]``."""
    word = ROUTE_KEYWORDS[route.kind]
    return f"{word}[{route.name}]" if route.name not in ("", "0") else word


def _method_of(response: Any) -> str:
    try:
        method: str = response.method
    except Exception:  # a CSeq that cannot be read, which is refused later
        return OTHER
    return method if method in METHODS else OTHER


def _class_of(status: int) -> str:
    return f"{status // 100}xx" if 100 <= status < 700 else OTHER
