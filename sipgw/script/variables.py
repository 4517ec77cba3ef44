"""The table of variables that every script has, and those of the script itself: ``$var $avp $rc $route $time`` and others.

A new one is a small function here or in ``variables_uri``, ``variables_message``, ``variables_branch``, ``variables_sdp`` and a
row in the table of that file. A getter takes the run, then the name in parentheses and the index if it has them; a setter the
value last, and answers False if it refuses it.

``$var``, ``$rc``, ``$param``, ``$return``, ``$cfg_line`` and ``$cfg_file`` stand here for the checker: the compiler writes them
itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sipgw.script import variables_branch, variables_message, variables_sdp, variables_uri
from sipgw.script.run import Run, Value
from sipgw.script.runtime import event_param, returned
from sipgw.script.symbols import Variable
from sipgw.script.variables_message import Index
from sipgw.script.variables_uri import refuse

# ---- $var, $avp ----


def get_var(run: Run, name: str) -> Value:
    """``$var(name)``: of this run and those that it calls."""
    return run.vars.get(name)


def set_var(run: Run, name: str, value: Value) -> None:
    """``$var(name) = ...``."""
    run.vars[name] = value


def get_avp(run: Run, name: str, index: Index = None) -> Value:
    """``$avp(name)``: the newest value; ``[1]`` the one before, ``[-1]`` the oldest, "*" all."""
    values = run.avps.get(name)
    if not values:
        return None
    if index is None:
        return values[-1]
    if index == "*":
        return ", ".join(str(value) for value in reversed(values))
    place = _place(values, index)
    return None if place is None else values[place]


def _place(values: list[int | str], index: Index) -> int | None:
    """Where an index leads in a list that has the newest last; None: nowhere."""
    if not isinstance(index, int) or not -len(values) <= index < len(values):
        return None
    return -1 - index


def set_avp(run: Run, name: str, index: Index, value: Value) -> bool:
    """``$avp(name) = ...``: one more value on top; null takes the top one away. With an index: that value; ``[append]``: one more
    below all; ``[*]``: in place of all."""
    values = run.avps.get(name, [])
    if index == "append":
        if value is not None:
            run.avps[name] = [value, *values]
        return True
    if index == "*":
        return replace_avp(run, name, None, value)
    if index is None:
        if value is not None:
            run.avps.setdefault(name, []).append(value)
            return True
        index = 0
    place = _place(values, index)
    if value is None:
        if place is not None:
            del values[place]
        if not values:
            run.avps.pop(name, None)
        return True
    if place is None:
        return refuse(run, f"$avp({name}) has no value at {index}")
    values[place] = value
    return True


def replace_avp(run: Run, name: str, index: Index, value: Value) -> bool:
    """``$avp(name) := ...``: in place of all values; null deletes them. With an index: as ``=``."""
    if index is not None and index != "*":
        return set_avp(run, name, index, value)
    if value is None:
        run.avps.pop(name, None)
    else:
        run.avps[name] = [value]
    return True


# ---- the run ----


def _route(part: Callable[[str], str | None]) -> Callable[[Run, Index], Value]:
    """A getter of the route being run ([0], or none), its caller ([1]) and so on; below 0 from the top."""

    def get(run: Run, index: Index) -> Value:
        stack = run.route_stack or []
        place = 0 if index is None else index
        if not isinstance(place, int) or not -len(stack) <= place < len(stack):
            return None
        return part(stack[-1 - place])

    return get


def get_route(run: Run, index: Index) -> Value:
    """``$route``: the route being run as it is written, ``[*]`` with those that called it."""
    if index == "*":
        return " > ".join(run.route_stack or []) or None
    return _whole_route(run, index)


def _route_name(label: str) -> str:
    return label.partition("[")[2].removesuffix("]")


def _route_type(label: str) -> str:
    return label.partition("[")[0]


_whole_route = _route(lambda label: label)

get_route_name = _route(_route_name)
get_route_type = _route(_route_type)


def get_argv(run: Run, name: str) -> Value:
    """``$argv(name)``: what ``-o name=value`` gave."""
    found: Value = run.user.arguments.get(name)
    return found


def _error(attribute: str) -> Callable[[Run], Value]:
    def get(run: Run) -> Value:
        found: Value = getattr(run.error, attribute, None)
        return found

    return get


def _error_number(attribute: str, malformed: int) -> Callable[[Run], Value]:
    """``$err.class``, ``$err.level``: 0 without an error; ``malformed`` for a message that cannot be parsed."""

    def get(run: Run) -> Value:
        if run.error is None:
            return 0
        found: Value = getattr(run.error, attribute, malformed)
        return found

    return get


def get_error_info(run: Run) -> Value:
    """``$err.info``: what happened."""
    found: Value = getattr(run.error, "info", getattr(run.error, "reason", ""))
    return found


def get_log_level(run: Run) -> Value:
    """``$log_level``: the one in force."""
    found: Value = run.user.log_level if run.log_level is None else run.log_level
    return found


def set_log_level(run: Run, value: Value) -> bool:
    """``$log_level = ...``: for this run; null goes back to that of the server."""
    if isinstance(value, str):
        return refuse(run, "$log_level can only be a number")
    run.log_level = value
    return True


def get_xlog_level(run: Run) -> Value:
    """``$xlog_level``: the one in force."""
    found: Value = run.user.xlog_level if run.xlog_level is None else run.xlog_level
    return found


def set_xlog_level(run: Run, value: Value) -> bool:
    """``$xlog_level = ...``: for this run; null goes back to that of the server."""
    if isinstance(value, str):
        return refuse(run, "$xlog_level can only be a number")
    run.xlog_level = value
    return True


# ---- where it came from ----


def get_si(run: Run) -> Value:
    """``$si``: the address that the message came from."""
    return None if run.flow is None else run.flow.host


def get_sp(run: Run) -> Value:
    """``$sp``: the port that it came from."""
    return None if run.flow is None else run.flow.port


def get_proxy_protocol(run: Run, name: str) -> Value:
    """``$proxy_protocol(src_ip)``: what a PROXY header said of the connection; null without one."""
    header: Any = getattr(run.flow, "proxy_header", None)
    found: Value = None if header is None else header.get(name)
    return found


def check_proxy_field(name: str) -> None:
    """Refuse what a PROXY header does not have."""
    if name not in ("src_ip", "src_port", "dst_ip", "dst_port", "af"):
        raise ValueError(f"a PROXY header has no {name!r}; it has src_ip, src_port, dst_ip, dst_port, af")


# ---- time and the rest ----


def get_unix_time(run: Run) -> Value:
    """``$Ts``: seconds since 1970."""
    return int(run.user.wall_clock())


def get_microseconds(run: Run) -> Value:
    """``$Tsm``: the microseconds of the second."""
    return int(run.user.wall_clock() * 1_000_000) % 1_000_000


def get_start_time(run: Run) -> Value:
    """``$TS``: when the server started."""
    return int(run.user.started)


def get_time_text(run: Run) -> Value:
    """``$Tf``: the local time, ``Sun Nov 22 19:03:52 2026``."""
    return datetime.fromtimestamp(int(run.user.wall_clock())).ctime()


def get_time(run: Run, format: str) -> Value:
    """``$time(format)``: the local time by C's strftime."""
    try:
        return datetime.fromtimestamp(int(run.user.wall_clock())).strftime(format) or None
    except ValueError:
        return None


COLOURS = "xsrgybpcw"
"""Letters of ``$C(xy)``: the terminal's default, black, red, green, yellow, blue, purple, cyan, white."""


def get_colour(run: Run, name: str) -> Value:
    """``$C(xy)``: what makes a terminal write in colour x on colour y; empty without ``xlog_force_color`` and for no colour."""
    letters = name.lower()
    if not run.user.globals.get("xlog_force_color") or len(letters) != 2 or set(letters) - set(COLOURS):
        return ""
    back, front = COLOURS.index(letters[1]), COLOURS.index(letters[0])
    if back == front == 0:
        return "\x1b[0m"
    codes = ["1" if name[0].isupper() else "0"]
    codes += [str(29 + front)] if front else []
    codes += [str(39 + back)] if back else []
    return f"\x1b[{';'.join(codes)}m"


def _rc(run: Run) -> Value:
    return run.rc


OWN = (
    Variable("var", get_var, set_var, takes_name=True),
    Variable("avp", get_avp, set_avp, takes_name=True, takes_index=True, replacer=replace_avp),
    Variable("rc", _rc),
    Variable("retcode", _rc),
    Variable("param", event_param, takes_name=True),
    Variable("return", returned, takes_name=True),
    Variable("route", get_route, takes_index=True),
    Variable("route.name", get_route_name, takes_index=True),
    Variable("route.type", get_route_type, takes_index=True),
    Variable("cfg_line", lambda run: run.line),
    Variable("cfg_file", lambda run: None),
    Variable("argv", get_argv, takes_name=True),
    Variable("err.class", _error_number("kind", 1)),
    Variable("err.level", _error_number("level", 3)),
    Variable("err.info", get_error_info),
    Variable("err.rcode", _error("status")),
    Variable("err.rreason", _error("reason")),
    Variable("log_level", get_log_level, set_log_level),
    Variable("xlog_level", get_xlog_level, set_xlog_level),
    Variable("si", get_si),
    Variable("src_ip", get_si),
    Variable("sp", get_sp),
    Variable("proxy_protocol", get_proxy_protocol, takes_name=True, check=check_proxy_field),
    Variable("Ts", get_unix_time),
    Variable("Tsm", get_microseconds),
    Variable("TS", get_start_time),
    Variable("Tf", get_time_text),
    Variable("time", get_time, takes_name=True),
    Variable("C", get_colour, takes_name=True),
    Variable("pp", lambda run: run.user.pid),
    Variable("$", lambda run: "$"),
)

VARIABLES = (
    *OWN,
    *variables_uri.VARIABLES,
    *variables_message.VARIABLES,
    *variables_branch.VARIABLES,
    *variables_sdp.VARIABLES,
)
"""All variables of the core, for ``ModuleSymbols.variables``."""
