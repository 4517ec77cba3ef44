"""``step`` and ``breakpoint``: the lines of the script that chosen messages run, shown one by one, or stopped at.

A route is a Python function whose lines are those of the script, and it cannot stop in the middle. So the routes of a chosen
message run in a thread of their own, with Python's trace function on, while the reactor's thread waits for it: as long as one of
the two runs the other does not, and nothing is done twice at a time. Where the message is to stop, the thread stays behind and
the reactor goes on: to everybody else the run is one that waits (``TransactionUser.execute``), with a server transaction, so that
retransmissions find it. When it goes on, the reactor's thread waits for it again. Messages that nobody has chosen run as ever.

A message that is stopped for ``PATIENCE`` goes on by itself; when the one who stopped it leaves, all of his go on."""

from __future__ import annotations

import linecache
import os
import sys
import threading
from collections.abc import Callable, Mapping
from types import CodeType, FrameType
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.manhole.show import plain
from sipgw.manhole.views import all_routes
from sipgw.script.compiler import compile_variable
from sipgw.script.errors import ScriptError
from sipgw.script.routes import Route
from sipgw.script.run import Run
from sipgw.script.symbols import Symbols

PATIENCE = 60.0
"""Seconds that a message may be stopped."""
MAX_STOPPED = 20
"""Messages that are stopped at a time; others pass."""
_WATCHED = {"uri": "$ru", "dst_uri": "$du", "flags": "$mf", "branch_flags": "$bf", "rc": "$rc", "path": "$path"}


def snapshot(run: Run) -> dict[str, Any]:
    """What a line of the script may have changed, by the names that scripts use."""
    values: dict[str, Any] = {shown: getattr(run, name) for name, shown in _WATCHED.items()}
    values.update((f"$var({name})", value) for name, value in run.vars.items())
    values.update((f"$avp({name})", tuple(found)) for name, found in run.avps.items() if found)
    values["branches"] = tuple(branch.uri for branch in run.branches)
    values["headers changed"] = run.edits
    return values


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different, a line for each."""
    lines = []
    for name in dict.fromkeys((*now, *before)):
        old, new = before.get(name), now.get(name)
        if name == "headers changed":
            if old is not new:
                lines.append("the headers or the body are changed")
        elif old != new:
            lines.append(f"{name} = {shown(new)}" + ("" if old is None else f"   (was {shown(old)})"))
    return lines


def shown(value: Any) -> str:
    """A value as scripts write it."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return "NULL" if value is None else str(value) if isinstance(value, int) else f'"{plain(value)}"'


class Watch:
    """One ``step`` or ``breakpoint``: which runs (``fits``), and where they stop (no place: nowhere)."""

    def __init__(
        self, fits: Callable[[Run], Any], tell: Callable[[str], None], place: tuple[str, int] | None, what: str, end: Any
    ) -> None:
        self.fits = fits
        self.tell = tell
        self.place = place
        self.what = what
        self._end = end
        self.hits = 0

    def stop(self) -> None:
        """Watch no more; what is stopped goes on."""
        self._end(self)

    def __repr__(self) -> str:
        if self.place is None:
            return f"stepping {self.what}; .stop() ends it"
        return f"stopping {self.what} at {self.place[0]}:{self.place[1]}, {self.hits} so far; .stop() ends it"


class Stopped:
    """A run that stands at a line: ``s["$ru"]``, ``s["$var(x)"] = 5``, ``s.run``; ``s.next()`` one line, ``s.go()`` on."""

    def __init__(self, walk: Walk, watch: Watch, run: Run, file: str, line: int, symbols: Symbols) -> None:
        self.run = run
        self.watch = watch
        self.file = file
        self.line = line
        self._walk = walk
        self._symbols = symbols

    def go(self) -> None:
        """Let it run on."""
        self._walk.resume(self, False)

    def next(self) -> None:
        """Let it run to the next line."""
        self._walk.resume(self, True)

    def _variable(self, name: str) -> Any:
        try:
            return compile_variable(name, self._symbols)
        except ScriptError as error:
            raise KeyError(str(error)) from None

    def __getitem__(self, name: str) -> Any:
        return self._variable(name).get(self.run)

    def __setitem__(self, name: str, value: Any) -> None:
        if self._variable(name).set(self.run, value) is False:
            raise ValueError(f"{name} does not take {value!r}")

    def __repr__(self) -> str:
        message = self.run.message
        where = f"{self.file}:{self.line}: {source(self.file, self.line)}"
        return f"{plain(message.lines[0])}, {plain(message.header('call-id') or '')}\n  {where}"


def source(file: str, line: int) -> str:
    """One line of a script."""
    return plain(linecache.getline(file, line).strip())


class Walk:
    """One run of one route, in a thread."""

    def __init__(self, stepper: Stepper, watches: list[Watch], route: Route, run: Run) -> None:
        self._stepper = stepper
        self._watches = watches
        self._route = route
        self._run = run
        self._before = snapshot(run)
        self._files = stepper.files()
        self._stop_next = False
        self._mine = threading.Semaphore(0)
        self._theirs = threading.Semaphore(0)
        self._outcome: tuple[str, Any] = ("", None)
        self._wake: Deferred[None] | None = None
        self._timer: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"step {route.name}", daemon=True)

    # -- in the reactor's thread

    async def walk(self) -> Any:
        """Run the route; its result."""
        self._thread.start()
        while True:
            self._theirs.acquire()
            kind, value = self._outcome
            if kind == "done":
                return value
            if kind == "raised":
                raise value
            try:
                await value
            except Exception as error:
                self._error = error
            self._mine.release()

    def resume(self, stopped: Stopped, again: bool) -> None:
        """Let what is stopped go on."""
        wake, self._wake = self._wake, None
        if wake is None or stopped not in self._stepper.stopped:
            raise ValueError("it has gone on")
        self._stepper.stopped.remove(stopped)
        if self._timer is not None:
            self._timer.cancel()
        self._stop_next = again
        wake.callback(None)

    # -- in its own thread, while the reactor's waits

    def _work(self) -> None:
        sys.settrace(self._called)
        try:
            result = self._route.function(self._run)
            if self._route.waits:
                result = self._drive(result)
            self._changed()
            self._outcome = ("done", result)
        except BaseException as error:
            self._outcome = ("raised", error)
        finally:
            sys.settrace(None)
            self._theirs.release()

    def _drive(self, coroutine: Any) -> Any:
        try:
            while True:
                if self._error is None:
                    awaited = coroutine.send(None)
                else:
                    error, self._error = self._error, None
                    awaited = coroutine.throw(error)
                self._hand_over(awaited)
        except StopIteration as stop:
            return stop.value

    def _hand_over(self, awaited: Any) -> None:
        """Let the reactor's thread go on until what is awaited has fired."""
        self._outcome = ("waits", awaited)
        self._theirs.release()
        self._mine.acquire()

    def _called(self, frame: FrameType, event: str, _argument: Any) -> Any:
        """A function begins: those of the script are looked at, no other."""
        file = frame.f_code.co_filename
        if file not in self._files:
            return None
        last = 0

        def line(_frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line" and frame.f_lineno != last:  # a line of the script may be several statements of Python
                last = frame.f_lineno
                self._at(file, last)
            return line

        return line

    def _changed(self) -> None:
        """Tell what the last line has changed."""
        now = snapshot(self._run)
        told = changes(self._before, now)
        self._before = now
        for watch in self._watches if told else ():
            if watch.place is None:
                watch.tell("\n".join(f"      {line}" for line in told))

    def _at(self, file: str, line: int) -> None:
        self._changed()
        for watch in self._watches:
            if watch.place is None:
                watch.tell(f"{self._title()} {os.path.basename(file)}:{line}: {source(file, line)}")
        hit = next((w for w in self._watches if w.place is not None and w.place[1] == line and same(file, w.place[0])), None)
        if hit is None and self._stop_next:
            hit = next((w for w in self._watches if w.place is not None), None)
        if hit is not None and hit in self._stepper.watches:
            self._stop_next = False
            self._stop(hit, file, line)

    def _title(self) -> str:
        return plain(self._run.message.lines[0].partition(" SIP/2.0")[0])[:60]

    def _stop(self, watch: Watch, file: str, line: int) -> None:
        stepper = self._stepper
        if len(stepper.stopped) >= MAX_STOPPED:
            return
        watch.hits += 1
        stopped = Stopped(self, watch, self._run, file, line, stepper.symbols())
        stepper.stopped.append(stopped)
        wake = self._wake = Deferred()

        def enough() -> None:
            self._timer = None
            if stopped in stepper.stopped:
                watch.tell(f"{self._title()} has been stopped for {PATIENCE:g} s: it goes on")
                stopped.go()

        self._timer = stepper.reactor.callLater(PATIENCE, enough)
        watch.tell(f"stopped[{len(stepper.stopped) - 1}]: {stopped!r}")
        self._hand_over(wake)


def same(file: str, wanted: str) -> bool:
    """Whether ``wanted`` names the file: its path, or the end of it."""
    return file == wanted or file.endswith("/" + wanted)


def lines_of(function: Any, file: str) -> set[int]:
    """The lines of the script at which a route does something; none if it cannot be known.

    A route that is measured is wrapped: then it is in the closure."""
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType) and code.co_filename == file:
        return _code_lines(code)
    inside = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    return next((found for each in inside if callable(each) and (found := lines_of(each, file))), set())


def _code_lines(code: CodeType) -> set[int]:
    inner = [_code_lines(each) for each in code.co_consts if isinstance(each, CodeType)]
    return {line for _, _, line in code.co_lines() if line}.union(*inner)


class Stepper:
    """All watches of one server. While there are any, it looks at each run that begins (``execute``, ``run_route``)."""

    def __init__(self, user: Any, reactor: Any, symbols: Callable[[], Symbols], files: Callable[[], set[str]]) -> None:
        self.reactor = reactor
        self.symbols = symbols
        self.files = files
        self.watches: list[Watch] = []
        self.stopped: list[Stopped] = []
        self._user = user
        self._before: dict[str, Any] = {}

    def watch(self, fits: Callable[[Run], Any], tell: Callable[[str], None], place: tuple[str, int] | None, what: str) -> Watch:
        """Look at runs from now on."""
        if place is not None and not any(same(file, place[0]) for file in self.files()):
            raise ValueError(f"{place[0]} is no file of the script: {', '.join(sorted(self.files()))}")
        if place is not None:
            routes = [route for route in all_routes(self._user.routes) if same(route.file, place[0])]
            found = [lines_of(route.function, route.file) for route in routes]
            known = set().union(*found)
            if all(found) and place[1] not in known:
                near = min(known, key=lambda line: (abs(line - place[1]), -line))
                raise ValueError(f"nothing is done at line {place[1]} of {place[0]}; the next to it is {near}")
        made = Watch(fits, tell, place, what, self.end)
        self.watches.append(made)
        if not self._before:
            user = self._user
            self._before = {name: vars(user).get(name) for name in ("execute", "run_route")}
            execute, run_route = user.execute, user.run_route
            user.execute = lambda route, run, done=None: execute(self._chosen(route, run), run, done)
            user.run_route = lambda route, run: run_route(self._chosen(route, run), run)
        return made

    def end(self, watch: Watch) -> None:
        """End one watch."""
        if watch in self.watches:
            self.watches.remove(watch)
        for each in [each for each in self.stopped if each.watch is watch]:
            each.go()
        if not self.watches:
            for name, before in self._before.items():
                if before is None:
                    delattr(self._user, name)
                else:
                    setattr(self._user, name, before)
            self._before = {}

    def _chosen(self, route: Route, run: Run) -> Route:
        """The route, or one that walks through it."""
        watches = []
        for watch in tuple(self.watches):
            try:
                if watch.fits(run):
                    watches.append(watch)
            except Exception as error:
                self.end(watch)
                watch.tell(f"the condition fails, and is not asked any more: {type(error).__name__}: {error}")
        if not watches:
            return route
        walk = Walk(self, watches, route, run)
        return Route(route.name, route.kind, lambda _run: walk.walk(), True, route.file, route.line, route.interval)
