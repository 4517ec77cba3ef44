"""What is being handled now: the message, and the line of the script, found in the calls that led to whoever asks.

Nothing is passed along for this, so it costs nothing but where somebody asks: a line of the log, an event with the Call-ID as its
key. A compiled route has the lines of the script (house 2.4) and its run as a variable."""

from __future__ import annotations

import re
from types import FrameType

from sipgw.script.run import Run
from sipgw.sip.message import Request, Response

DEEPEST = 60
"""How many calls are looked at."""
NEAR = 10
"""How many at first, for a route alone."""
_ODD = re.compile(r"[^!-Z^-~]")
SHORT = 24
"""Characters of the short id of a call."""
_MESSAGES = ("message", "request", "response")


def handled(frame: FrameType | None) -> tuple[Request | Response | None, str]:
    """The message that was being handled when ``frame`` was called, and ``file:line`` of the script; None and "" if none was."""
    message: Request | Response | None = None
    line = ""
    for _ in range(DEEPEST):
        if frame is None or (message is not None and line):
            break
        names = frame.f_code.co_varnames
        if "run" in names:
            run = frame.f_locals.get("run")
            if isinstance(run, Run):
                if message is None and not run.message.lines[0].startswith("DUMMY "):  # of routes that no message has begun
                    message = run.message
                file = frame.f_code.co_filename
                if not file.endswith(".py") and not line:  # a route, compiled: its lines are those of the script
                    line = f"{file}:{frame.f_lineno}"
        elif message is None:
            for name in _MESSAGES:
                if name in names and isinstance(value := frame.f_locals.get(name), Request | Response):
                    message = value
        frame = frame.f_back
    return message, line


def running(frame: FrameType | None) -> Request | Response | None:
    """The message of the route that was running when ``frame`` was called, a few calls away: what ``handled`` would find, sooner.

    A line of ``xlog`` is written so, and there may be many of them."""
    for _ in range(NEAR):
        if frame is None:
            break
        if not frame.f_code.co_filename.endswith(".py"):
            run = frame.f_locals.get("run")
            if isinstance(run, Run):
                message = run.message
                return None if message.lines[0].startswith("DUMMY ") else message
        frame = frame.f_back
    return None


def call_id_of(message: Request | Response | None) -> str:
    """The Call-ID of a message, however bad that is; empty if there is none."""
    try:
        return "" if message is None else message.header("Call-ID") or ""
    except Exception:  # nothing that a peer sends keeps a line from being written
        return ""


def short_id(call_id: str) -> str:
    """A Call-ID in short, as it stands in each line of the log: what is before its @, ``SHORT`` characters at most.

    So it is a part of what capture servers and ``--log-json`` have as the whole, and finds it there. Characters that could make
    the line look like another one are replaced."""
    return _ODD.sub("_", (call_id.partition("@")[0] or call_id)[:SHORT])
