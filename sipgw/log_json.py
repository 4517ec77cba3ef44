"""``--log-json``: each line of the log is one JSON object, for programs.

``time`` (RFC 3339, UTC), ``level``, ``text`` as it stands in a plain line, ``pid``, ``prefix`` if the script sets a log_prefix;
and where a message is being handled ``cfg``, the file and the line of the script that was running; ``trace``, the Call-ID: the
correlation id under which Homer and sngrep know the same message (``proto_hep``); and ``call``, what plain lines have of it. A
bug has its ``traceback``.

These cost nothing but where a line is written: ``core/context.py``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sipgw.core.context import call_id_of, handled, short_id
from sipgw.log import LEVELS, Consumer, LineObserver, one_line


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
        message, line = handled(sys._getframe(1))
        if line:
            made["cfg"] = one_line(line)
        if message is not None:
            call_id = call_id_of(message)
            made["trace"] = one_line(call_id)
            made["call"] = one_line(short_id(call_id))
        if failure is not None:
            made["traceback"] = [one_line(line) for line in failure.getTraceback().rstrip("\n").split("\n")]
        self._write(priority, json.dumps(made, ensure_ascii=False))
