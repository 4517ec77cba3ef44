"""``--log-json``: each line of the log is one JSON object, for programs.

``time`` (RFC 3339, UTC), ``level``, ``text`` as it stands in a plain line, ``pid``, ``prefix`` if the script sets a log_prefix;
and where a message is being handled ``cfg``, the file and the line of the script that was running, and ``trace``, the Call-ID:
the correlation id under which Homer and sngrep know the same message (``proto_hep``). A bug has its ``traceback``.

The last two are not passed along: they are looked for, when a line is written, in the calls that led to it, where a compiled
route has its lines (house 2.4) and its run. So they cost nothing but where a line is written."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from sipgw.log import LEVELS, Consumer, LineObserver, one_line
from sipgw.script.run import Run
from sipgw.sip.message import Request, Response

DEEPEST = 60
"""How many calls are looked at."""
_MESSAGES = ("message", "request", "response")


class JsonObserver(LineObserver):
    """Writes events as JSON objects: ``write(syslog priority, object)``."""

    def __init__(
        self,
        write: Callable[[int, str], None],
        prefix: str = "",
        consumer: Consumer | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(write, "", consumer)
        self._prefix = prefix
        self._wall_clock = clock

    def emit(self, level: int, text: str, failure: Any) -> None:
        """Write one object."""
        name, _, priority = LEVELS[level]
        now = datetime.fromtimestamp(self._wall_clock(), UTC).isoformat(timespec="milliseconds")
        made: dict[str, Any] = {"time": now.replace("+00:00", "Z"), "level": name, "text": text, "pid": os.getpid()}
        if self._prefix:
            made["prefix"] = self._prefix
        made.update(context(sys._getframe(1)))
        if failure is not None:
            made["traceback"] = [one_line(line) for line in failure.getTraceback().rstrip("\n").split("\n")]
        self._write(priority, json.dumps(made, ensure_ascii=False))


def context(frame: FrameType | None) -> dict[str, str]:
    """What was being done when ``frame`` was called: ``cfg`` and ``trace``, as far as they are known."""
    found: dict[str, str] = {}
    message: Request | Response | None = None
    for _ in range(DEEPEST):
        if frame is None or (message is not None and "cfg" in found):
            break
        names = frame.f_code.co_varnames
        if "run" in names:
            run = frame.f_locals.get("run")
            if isinstance(run, Run):
                message = message or run.message
                file = frame.f_code.co_filename
                if not file.endswith(".py") and "cfg" not in found:  # a route, compiled: its lines are those of the script
                    found["cfg"] = one_line(f"{file}:{frame.f_lineno}")
        elif message is None:
            for name in _MESSAGES:
                if name in names and isinstance(value := frame.f_locals.get(name), Request | Response):
                    message = value
        frame = frame.f_back
    if message is not None:
        try:
            found["trace"] = one_line(message.header("Call-ID") or "")
        except Exception:  # nothing that a peer sends keeps a line from being written
            pass
    return found
