"""What generated code calls, beside the operators of ``values`` and the getters of variables.

Arguments that are not what a function takes make the call fail: the line is logged and the code is -1, as in OpenSIPS. The
functions that look at them give None then, and the generated code leaves the call out."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sipgw.script.regex import BadPattern, Regex, compile_regex
from sipgw.script.run import WATCHER, Run
from sipgw.script.values import DROP, EXIT, L_ERR, Ending, code_of, to_text, wrong
from sipgw.sip.message import Request, Response

if TYPE_CHECKING:
    from sipgw.script.routes import Route
    from sipgw.script.run import Value
    from sipgw.script.symbols import RouteKind

MAX_DEPTH: Final = 99
"""How deep routes may call routes below the top one."""
BROKEN: Final = -5
"""The code that ``break`` leaves behind."""
TIMED_OUT: Final = -2
"""The code of a call that ``async`` gave up waiting for."""
L_ALERT: Final = -3


# ---- arguments ----


def integer(run: Run, value: Value, number: int, function: str) -> int | None:
    """A variable where a function takes a number."""
    if isinstance(value, int):
        return value
    wrong(run, f"{function}: the variable in parameter {number} is not an integer", L_ERR)
    return None


def string(run: Run, value: Value, number: int, function: str) -> str | None:
    """A variable where a function takes a text; null is none."""
    if value is not None:
        return str(value)
    wrong(run, f"{function}: the variable in parameter {number} is not a string", L_ERR)
    return None


def joined(run: Run, number: int, function: str, template: tuple[str | None, ...], *values: Value) -> str | None:
    """A text with variables (None in ``template``) that goes into the head of a message.

    No variable may put a line end or NUL there; one that is the whole text may end with a line end."""
    if template == (None,):
        text = string(run, values[0], number, function)
        if text is None or not _breaks(text.removesuffix("\r\n")):
            return text
    elif not any(_breaks(value) for value in values if isinstance(value, str)):
        given = iter(values)
        return "".join(to_text(next(given)) if piece is None else piece for piece in template)
    wrong(run, f"{function}: a variable in parameter {number} would begin a new line", L_ERR)
    return None


def _breaks(text: str) -> bool:
    return "\n" in text or "\r" in text or "\0" in text


def pattern(run: Run, value: Value, number: int, function: str) -> Regex | None:
    """A variable where a function takes a pattern."""
    try:
        return None if value is None else compile_regex(str(value))
    except BadPattern as error:
        wrong(run, f"{function}: parameter {number}: {error}", L_ERR)
        return None


def position(value: Value) -> int:
    """A variable as index; one that is no number is out of every range."""
    return value if isinstance(value, int) else 1 << 30


def param(params: tuple[Value, ...], number: Value) -> Value:
    """``$param(1)``: from 1 on; null beyond those given."""
    place = int(number) if isinstance(number, str) and number.isdigit() else number
    return params[place - 1] if isinstance(place, int) and 1 <= place <= len(params) else None


def event_param(run: Run, key: Value) -> Value:
    """``$param(name)`` or ``$param(1)`` of an event: ``run.params`` is a mapping, or a tuple of values."""
    params: Any = run.params
    if isinstance(params, Mapping):
        if isinstance(key, str) and key in params:
            found: Value = params[key]
            return found
        params = tuple(params.values())
    return param(params, key)


TRACE = "script_trace"
"""Under this name ``run.context`` keeps what ``script_trace`` asked for."""


class Trace(NamedTuple):
    """A trace that is on: for routes of ``kind`` (of a message's other routes it is off), lines of ``level``."""

    kind: RouteKind
    level: int
    format: Callable[[Run], str]
    info: str


def traced(run: Run, file: str, line: int, what: str) -> None:
    """Log one step of the script, if it is traced."""
    trace: Trace | None = None if run.context is None else run.context.get(TRACE)
    if trace is not None and trace.kind is run.kind and run.user.log_level >= trace.level:
        info = f"[{trace.info}]" if trace.info else ""
        run.user.log(trace.level, f"[Script Trace][{file}:{line}]{info}[{what}] -> ({trace.format(run)})")


def returned(run: Run, number: Value) -> Value:
    """``$return(0)``: what the route called last gave back beside its code."""
    place = int(number) if isinstance(number, str) and number.isdigit() else number
    return run.returns[place] if isinstance(place, int) and 0 <= place < len(run.returns) else None


class Reference:
    """A variable as the argument of a function, made once for its place in the script: ``.get(run)``, ``.set(run, value)``.

    ``.at(run, index)``: one of its values where it has many, from 0 on, null beyond the last; others have one."""

    __slots__ = ("at", "get", "name", "set")

    def __init__(
        self,
        name: str,
        get: Callable[[Run], Value],
        set: Callable[[Run, Value], Any] | None = None,
        at: Callable[[Run, int], Value] | None = None,
    ) -> None:
        self.name = name
        self.get = get
        self.set: Callable[[Run, Value], Any] = set if set is not None else self._refuse
        self.at: Callable[[Run, int], Value] = at if at is not None else self._only

    def _only(self, run: Run, index: int) -> Value:
        return self.get(run) if index == 0 else None

    def _refuse(self, run: Run, value: Value) -> bool:
        wrong(run, f"{self.name} cannot be assigned", L_ERR)
        return False

    def __repr__(self) -> str:
        return f"<Reference {self.name}>"


# ---- return codes ----


def noted(run: Run, passed: bool) -> bool:
    """Keep the code of a call that was just a test, in a script that reads ``$rc``."""
    run.rc = 1 if passed else -1
    return passed


def code_or_exit(value: Value) -> int | Ending:
    """``return $v``: 0 ends the script."""
    return code_of(value) or EXIT


def ended(result: Any) -> Ending:
    """How a script ends whose last word had a route that ``async`` went on in."""
    return DROP if result is DROP else EXIT


# ---- calls of routes ----


def nested(run: Run, route: Callable[..., Any], label: str, *params: Value) -> Any:
    """Call a route that may come back to itself, or whose name ``$route`` shall show."""
    if not _enter(run, label):
        return -1
    try:
        return route(run, *params)
    finally:
        _leave(run)


async def nested_waiting(run: Run, route: Callable[..., Awaitable[Any]], label: str, *params: Value) -> Any:
    """The same for a route that may wait."""
    if not _enter(run, label):
        return -1
    try:
        return await route(run, *params)
    finally:
        _leave(run)


def _enter(run: Run, label: str) -> bool:
    if run.depth >= MAX_DEPTH:
        wrong(run, f"routes call each other too deep, {label} is not called", L_ERR)
        return False
    run.depth += 1
    if run.route_stack is not None:
        run.route_stack.append(label)
    return True


def _leave(run: Run) -> None:
    run.depth -= 1
    if run.route_stack is not None:
        run.route_stack.pop()


def _find(run: Run, routes: dict[str, Route], name: Value) -> Route | None:
    route = routes.get(to_text(name))
    if route is None:
        wrong(run, f"there is no route[{to_text(name)}]", L_ALERT)
    return route


def call_route(run: Run, routes: dict[str, Route], name: Value, *params: Value) -> Any:
    """``route($var(x))`` where no route waits; -1 if there is none of that name."""
    route = _find(run, routes, name)
    return -1 if route is None else nested(run, route.function, f"route[{route.name}]", *params)


async def call_route_waiting(run: Run, routes: dict[str, Route], name: Value, *params: Value) -> Any:
    """``route($var(x))`` where some route waits."""
    route = _find(run, routes, name)
    if route is None:
        return -1
    label = f"route[{route.name}]"
    if route.waits:
        return await nested_waiting(run, route.function, label, *params)
    return nested(run, route.function, label, *params)


async def within(run: Run, seconds: int, call: Awaitable[Any]) -> Any:
    """``async(call, resume, seconds)``: what the call answers in time, else a code."""
    try:
        return await run.user.within(seconds, call)
    except TimeoutError:
        wrong(run, f"async: no result after {seconds} s", L_ERR)
        return TIMED_OUT


def code_from(result: Any) -> int:
    """The return code of a function by what it returned: of a test, a number, or nothing."""
    if result is None:
        return 1
    if isinstance(result, bool):
        return 1 if result else -1
    return int(result)


def launch(
    run: Run, function: Callable[..., Any], arguments: tuple[Any, ...], report: Route | None = None, *params: Value
) -> None:
    """``launch(call, report, "param")``: run ``function``, then ``report``, beside the script, on a run of their own."""
    aside = copy.copy(run)
    aside.vars = dict(run.vars)
    aside.avps = {name: list(values) for name, values in run.avps.items()}
    aside.route_stack = None
    run.user.launch(_launched(aside, function, arguments, report, params))


async def _launched(
    run: Run, function: Callable[..., Any], arguments: tuple[Any, ...], report: Route | None, params: tuple[Value, ...]
) -> None:
    result = function(run, *arguments)
    run.rc = code_from(await result if isawaitable(result) else result)
    if report is not None:
        outcome = report.function(run, *params)
        if report.waits:
            await outcome


# ---- logs ----


def level_of(run: Run, value: Value) -> int | None:
    """The level that the variable of an ``xlog`` holds: a number; nothing is logged with any other."""
    if isinstance(value, int):
        return value
    wrong(run, f"xlog: {to_text(value)!r} is not a level", L_ERR)
    return None


def watched_xlog(run: Run, level: int, text: str) -> None:
    """Write a line of ``xlog``, and show it to who watches the run."""
    run.user.xlog(level, text)
    if run.context is not None and WATCHER in run.context:
        run.context[WATCHER].logged(run, level, text)


def xlog_level(run: Run) -> int:
    """The level in force for ``xlog``, in a script that sets ``$xlog_level``."""
    level: int = run.user.xlog_level if run.xlog_level is None else run.xlog_level
    return level


def log_level(run: Run) -> int:
    """The level in force for ``log``, in a script that sets ``$log_level``."""
    level: int = run.user.log_level if run.log_level is None else run.log_level
    return level


class Fault(NamedTuple):
    """What ``$err.*`` shows of an error that is not the peer's."""

    kind: int
    level: int
    info: str
    status: int
    reason: str


def too_many_loops(run: Run, limit: int) -> None:
    """A loop was stopped."""
    wrong(run, f"a loop did not end after {limit} times (max_while_loops)", L_ERR)


def assert_failed(run: Run, message: str) -> None:
    """An ``assert`` does not hold: the error route learns of it."""
    run.error = Fault(4, 1, "assertion failed", 500, "server error")
    wrong(run, f"assertion failed{': ' if message else ''}{message}", -2)


# ---- the other message ----


def in_request(run: Run) -> Run | None:
    """A run on the request, for ``$(<request>..)``: in a reply, that of the transaction as it was relayed."""
    if isinstance(run.message, Request):
        return run
    if run.request is None:
        return None
    made = _beside(run, run.request)
    if run.transaction is not None:
        made.uri = run.transaction.uri
        made.dst_uri = run.transaction.dst_uri
    return made


def in_reply(run: Run) -> Run | None:
    """A run on the reply, for ``$(<reply>..)``: in a failure route, the one that was picked."""
    if isinstance(run.message, Response):
        return run
    picked = getattr(run.transaction, "picked", None)
    response = getattr(picked, "response", None)
    return None if response is None else _beside(run, response)


def _beside(run: Run, message: Any) -> Run:
    made = copy.copy(run)
    made.message = message
    made.uri = getattr(message, "uri", "")
    return made
