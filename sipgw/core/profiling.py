"""What the process does with its time, told step by step as events (OpenSIPS's ``E_PROFILING_PROC``), and what the routes of the
script do with it (``E_PROFILING_SCRIPT``).

A *session* is one thing that came from outside: a message, a management command, a timer. It has a ``start`` and an ``end``;
between them each step has an ``enter`` and an ``exit``, with the depth that it leaves. Level 1 tells of messages, 2 of management
commands too, 3 of timers too; at level 0 nothing is wrapped, and nothing costs anything. A route that waits exits when it has
ended, which may be after the end of its session."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from sipgw.core.events import Event
from sipgw.script.routes import Route, RouteSet
from sipgw.script.symbols import ROUTE_KEYWORDS, RouteKind

OFF, SIP, EXTRA, FULL = range(4)
"""The levels: nothing, messages, management commands too, timers too."""


class Session:
    """One session: ``depth`` is how deep it is now."""

    __slots__ = ("_event", "_wall_clock", "depth", "kind", "name", "number")

    def __init__(self, event: Event, wall_clock: Callable[[], float], number: int, name: str, kind: int) -> None:
        self._event = event
        self._wall_clock = wall_clock
        self.number = number
        self.name = name
        self.kind = kind
        self.depth = 0

    def tell(self, verb: str, name: str, depth: int, **more: int | str | None) -> None:
        """Tell of one step."""
        now = int(self._wall_clock() * 1_000_000)
        self._event.emit(
            sec=now // 1_000_000, usec=now % 1_000_000, session=self.number, verb=verb, name=name, type=self.kind, depth=depth,
            **more,
        )

    def enter(self, name: str, file: str, line: int) -> Callable[[int], None]:
        """Begin a step; whoever ends it calls what this returns, with its status."""
        self.depth += 1
        depth = self.depth
        self.tell("enter", name, depth, file=file, line=line)

        def leave(status: int) -> None:
            self.depth = depth - 1
            self.tell("exit", name, depth - 1, file=file, line=line, status=status)

        return leave


class Profiling:
    """The profile of one server. ``set`` wraps the methods of the transaction user and of the commands, or unwraps them."""

    def __init__(self, user: Any, commands: Any, event: Event) -> None:
        self.level = OFF
        self._user = user
        self._commands = commands
        self._event = event
        self._last = 0
        self._session: Session | None = None
        self._wrapped: list[tuple[Any, str, Any]] = []

    def set(self, level: int) -> None:
        """Tell of what ``level`` says from now on."""
        self.level = max(OFF, min(FULL, level))
        while self._wrapped:
            owner, name, before = self._wrapped.pop()
            if before is None:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        if self.level >= SIP:
            self._wrap(self._user, "take", self._take)
            self._wrap(self._user, "execute", self._execute)
        if self.level >= EXTRA:
            self._wrap(self._commands, "call", self._call)
        if self.level >= FULL:
            self._wrap(self._user, "_woken", self._woken)

    def _wrap(self, owner: Any, name: str, around: Callable[..., Any]) -> None:
        inner = getattr(owner, name)
        self._wrapped.append((owner, name, vars(owner).get(name)))
        setattr(owner, name, lambda *arguments, **options: around(inner, *arguments, **options))

    def _begin(self, name: str, kind: int) -> Session:
        self._last += 1
        session = Session(self._event, self._user.wall_clock, self._last, name, kind)
        session.tell("start", name, 0)
        return session

    def _whole(self, name: str, kind: int, step: str, inner: Callable[..., Any], *arguments: Any) -> Any:
        """One session around ``inner``, which is its first step."""
        outer, self._session = self._session, self._begin(name, kind)
        session = self._session
        leave = session.enter(step, "", 0)
        try:
            return inner(*arguments)
        finally:
            leave(0)
            session.tell("end", name, 0, status=0)
            self._session = outer

    def _take(self, inner: Callable[..., Any], message: Any, flow: Any) -> Any:
        return self._whole(f"SIP receiver {flow.socket}", SIP, "receive_msg", inner, message, flow)

    def _woken(self, inner: Callable[..., Any]) -> Any:
        return self._whole("timer", FULL, "timer", inner)

    def _execute(self, inner: Callable[..., Any], route: Route, run: Any, done: Callable[[Any], None] | None = None) -> Any:
        """A route is a step of the session in which it begins; one of its own if there is none (an event route)."""
        name = _label(route)
        outer = self._session
        session = self._session = outer or self._begin(name, SIP)
        leave = session.enter(name, route.file, route.line)

        def ended(result: Any) -> None:
            leave(result if isinstance(result, int) else 0)
            if outer is None:
                session.tell("end", name, 0, status=0)
            if done is not None:
                done(result)

        try:
            return inner(route, run, ended)
        finally:
            self._session = outer

    async def _call(self, inner: Callable[..., Any], method: str, params: Any = None) -> Any:
        name = f"MI {method}"
        session = self._begin(name, EXTRA)
        leave = session.enter(method, "", 0)
        try:
            return await inner(method, params)
        finally:
            leave(0)
            session.tell("end", name, 0, status=0)


def _label(route: Route) -> str:
    """A route as OpenSIPS's profile calls it, or by its keyword."""
    if route.kind is RouteKind.REQUEST and route.name == "0":
        return "request_script"
    word = ROUTE_KEYWORDS[route.kind]
    return f"{word}[{route.name}]" if route.name not in ("", "0") else word


class ScriptProfile:
    """What a script does with its time, told as OpenSIPS's ``E_PROFILING_SCRIPT``: each route that begins and ends, and each that
    it calls.

    While somebody hears the event (``follow`` looks), the functions of all routes are wrapped; else nothing is, and it costs
    nothing. The routes that hear of it are not told of."""

    def __init__(self, user: Any, event: Event) -> None:
        self._user = user
        self._event = event
        self._routes: RouteSet | None = None
        self._wrapped: list[Callable[[], None]] = []
        self._sessions = count(1)

    def follow(self) -> None:
        """Wrap the routes that are there now, or unwrap them."""
        wanted: RouteSet | None = self._user.routes if self._event.heard else None
        if wanted is self._routes:
            return
        while self._wrapped:
            self._wrapped.pop()()
        self._routes = wanted
        if wanted is not None:
            alone = (wanted.request, wanted.default_onreply, wanted.local, wanted.error, wanted.startup)
            tables = (wanted.branch, wanted.failure, wanted.onreply, wanted.events)
            tops = [route for route in alone if route is not None] + [each for table in tables for each in table.values()]
            for route in [*tops, *wanted.timers]:
                if route.name != self._event.name:
                    self._wrap(route, True)
            for route in wanted.named.values():
                self._wrap(route, False)

    def _wrap(self, route: Route, top: bool) -> None:
        """Wrap one route; those with names are called by the code of others too, by their names in it."""
        inner: Any = route.function
        outer = self._around(route, inner, top)
        route.function = outer
        names = inner.__globals__ if not top and inner.__globals__.get(inner.__name__) is inner else {}
        if names:
            names[inner.__name__] = outer

        def undo() -> None:
            route.function = inner
            if names:
                names[inner.__name__] = inner

        self._wrapped.append(undo)

    def _around(self, route: Route, inner: Any, top: bool) -> Any:
        name = "<root>" if route.name in ("", "0") else route.name
        if not route.waits:

            def step(run: Any, *params: Any) -> Any:
                leave = self._enter(route, name, run, top)
                result: Any = None
                try:
                    result = inner(run, *params)
                    return result
                finally:
                    leave(result)

            return step

        async def waiting(run: Any, *params: Any) -> Any:
            leave = self._enter(route, name, run, top)
            result: Any = None
            try:
                result = await inner(run, *params)
                return result
            finally:
                leave(result)

        return waiting

    def _enter(self, route: Route, name: str, run: Any, top: bool) -> Callable[[Any], None]:
        """Tell that a route begins; whoever ends it calls what this returns, with its result."""
        kept = run.keep()
        place = (_DEPTH, id(run))
        depth = kept[place] = kept.get(place, 0) + 1
        session = kept.get(_SESSION)
        if session is None:
            session = kept[_SESSION] = next(self._sessions)
        if top:
            self._tell("start", session, name, run.kind, depth)
        self._tell("enter", session, name, run.kind, depth, file=route.file, line=route.line)

        def leave(result: Any) -> None:
            kept[place] = depth - 1
            status = result if isinstance(result, int) else 0
            self._tell("exit", session, name, run.kind, depth, file=route.file, line=route.line, status=status)
            if top:
                kept.pop(place, None)
                self._tell("end", session, name, run.kind, depth, status=status)

        return leave

    def _tell(self, verb: str, session: int, name: str, kind: RouteKind, depth: int, **more: int | str | None) -> None:
        now = int(self._user.wall_clock() * 1_000_000)
        self._event.emit(
            sec=now // 1_000_000, usec=now % 1_000_000, session=session, verb=verb, name=name, type=kind.value, depth=depth,
            **more,
        )


_DEPTH, _SESSION = "profile depth", "profile session"
"""Where a run keeps how deep it is, and the number of what came from outside."""
