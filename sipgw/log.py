"""The log: OpenSIPS's levels on ``twisted.logger``, one line for each event.

OpenSIPS counts from -3 (alert) to 4 (debug); Twisted has five names. An event of ours carries its OpenSIPS level, so that the
line shows what the script wrote. A line that is written while a message is handled begins with the short id of its call, in
brackets (``core/context.py``). Whatever a peer sent stands escaped in the line: no message can begin a line of its own
(P26). A traceback, which only a bug of sipgw produces, is kept whole, each of its lines marked."""

from __future__ import annotations

import os
import re
import sys
import syslog
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import IO, Any

from twisted.logger import ILogObserver, Logger, LogLevel, formatEvent
from zope.interface import implementer

from sipgw.core.context import call_id_of, handled, running, short_id
from sipgw.core.levels import FACILITIES, NAMES, PRIORITIES, level_of

__all__ = [
    "FACILITIES", "LEVELS", "LONGEST", "Consumer", "LineObserver", "LogFile", "level_of", "log", "named", "one_line", "to_stream",
    "to_syslog",
]

_TWISTED: Mapping[int, LogLevel] = {
    -3: LogLevel.critical,
    -2: LogLevel.critical,
    -1: LogLevel.error,
    1: LogLevel.warn,
    2: LogLevel.info,
    3: LogLevel.info,
    4: LogLevel.debug,
}
LEVELS: Mapping[int, tuple[str, LogLevel, int]] = {
    level: (name, _TWISTED[level], PRIORITIES[level]) for level, name in NAMES.items()
}
"""OpenSIPS's level: its name in a line, Twisted's level, syslog's priority."""

_FOREIGN: Mapping[LogLevel, int] = {
    LogLevel.critical: -2,
    LogLevel.error: -1,
    LogLevel.warn: 1,
    LogLevel.info: 3,
    LogLevel.debug: 4,
}
"""The level of an event that Twisted or a library emits."""

LONGEST = 4096
"""Characters of one line at most (OpenSIPS's ``log_msg_buf_size``)."""

FOLDED = 1.0
"""Seconds in which a line of a library is written once."""
MAX_FOLDS = 1000
"""How many lines are remembered for that."""

_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_logger = Logger(namespace="sipgw")


def one_line(text: str) -> str:
    """Escape what would break the line or steer a terminal; bytes that are not UTF-8 (surrogates) are shown as they came."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + f"... ({len(text)} characters)"
    return _CONTROL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    known = {"\n": "\\n", "\r": "\\r"}.get(char)
    if known is not None:
        return known
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def log(level: int, text: str) -> None:
    """Write one line at an OpenSIPS level; whoever calls has compared it with the level in force."""
    number = level_of(level)
    _logger.emit(LEVELS[number][1], "{text}", text=one_line(text.rstrip("\n")), opensips=number)


class Consumer:
    """One of OpenSIPS's three places where log lines go: stderror, syslog, event.

    ``filter`` is the highest level that it takes (``stderror_level_filter``), 0 for all; ``muted`` (any number but 0): it takes
    none. ``absent``: why it can never be unmuted."""

    __slots__ = ("absent", "filter", "muted")

    def __init__(self, filter: int = 0, muted: int = 0, absent: str = "") -> None:
        self.filter = filter
        self.muted = muted
        self.absent = absent

    def takes(self, level: int) -> bool:
        """Whether a line of that level goes there."""
        return not self.muted and (not self.filter or level <= self.filter)


class Folds:
    """Lines of libraries that come again and again: the same text is written once a second, with a count of those left out.

    Our own lines are folded where they are made (``TransactionUser.log_rarely``), by what they are about."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, list[float]] = {}

    def fold(self, text: str) -> str:
        """The line to be written for ``text``; empty if it is only counted."""
        now = self._clock()
        seen = self._seen.get(text)
        if seen is None:
            if len(self._seen) >= MAX_FOLDS:
                self._seen.clear()
            self._seen[text] = [now, 0]
            return text
        if now - seen[0] < FOLDED:
            seen[1] += 1
            return ""
        left, seen[0], seen[1] = int(seen[1]), now, 0
        return f"{text} ({left} more like this)" if left else text


@implementer(ILogObserver)
class LineObserver:
    """Writes events as lines: ``write(syslog priority, line)``.

    Twisted's own chatter is shown when it warns of something. ``prefix``: the script's ``log_prefix``. ``consumer`` says which
    lines are written; ``ids``, whether calls are named in them."""

    def __init__(
        self, write: Callable[[int, str], None], prefix: str = "", consumer: Consumer | None = None, *, ids: bool = True
    ) -> None:
        self._write = write
        self.ids = ids
        self._folds = Folds()
        self.mark = f"{prefix}: " if prefix else ""
        self.consumer = consumer or Consumer()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event of ``twisted.logger``."""
        level = event.get("opensips")
        if level is None:
            level = _FOREIGN.get(event.get("log_level", LogLevel.info), 3)
            if level > 1:
                return
        if not self.consumer.takes(level):
            return
        text = one_line(formatEvent(dict(event)))
        if event.get("opensips") is None and not (text := self._folds.fold(text)):
            return
        self.emit(level, text, event.get("log_failure"))

    def emit(self, level: int, text: str, failure: Any) -> None:
        """Write one line, and what belongs to it."""
        name, _, priority = LEVELS[level]
        self._write(priority, f"{self.mark}{name}: {named(text, sys._getframe(1)) if self.ids else text}")
        if failure is not None:
            for line in failure.getTraceback().rstrip("\n").split("\n"):
                self._write(priority, f"{self.mark}{name}: | {one_line(line)}")


_latest: tuple[object, str] = (None, "")
"""The message that a line was written about last, and how it is named: mostly the next line is about it too."""


def named(text: str, frame: FrameType | None) -> str:
    """``text`` with the short id of the call that was being handled in ``frame`` before it, if there was one."""
    global _latest
    message = running(frame) or handled(frame)[0]
    if message is None:
        return text
    if _latest[0] is not message:
        _latest = (message, f"[{short_id(call_id_of(message))}] ")
    return _latest[1] + text


def stamp(now: float) -> str:
    """The local time of ``now``, with milliseconds and a blank, as it stands before a line."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(now))}.{int(now * 1000) % 1000:03d} "


def to_stream(
    stream: IO[str] | None = None, clock: Callable[[], float] = time.time, stamped: bool = True
) -> Callable[[int, str], None]:
    """Write lines to ``stream`` (stderr) at once, each with the date if ``stamped``; a stream that has gone is no error."""

    def write(_priority: int, line: str) -> None:
        out = stream or sys.__stderr__
        try:
            if out is not None:
                out.write(f"{stamp(clock()) if stamped else ''}{line}\n")
                out.flush()
        except (OSError, ValueError):
            pass

    return write


class LogFile:
    """A log in a file of its own, appended to. After a rotation (``mv``) ``reopen`` goes on in a new file of the old name.

    A disk that is full costs lines, which ``lost`` counts, never the server."""

    def __init__(self, name: str, clock: Callable[[], float] = time.time, stamped: bool = True) -> None:
        self.name = os.path.abspath(name)
        self.lost = 0
        self._clock = clock
        self._stamped = stamped
        self._file = open(self.name, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115

    def write(self, _priority: int, line: str) -> None:
        """Write one line, with the date unless it has its own, at once."""
        try:
            self._file.write(f"{stamp(self._clock()) if self._stamped else ''}{line}\n")
            self._file.flush()
        except (OSError, ValueError):
            self.lost += 1

    def reopen(self) -> None:
        """Open the file of that name anew; if that cannot be, go on with the old one."""
        try:
            fresh = open(self.name, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        except OSError:
            self.lost += 1
            return
        self._file, old = fresh, self._file
        old.close()


def to_syslog(name: str, facility: str) -> Callable[[int, str], None]:
    """Write lines to syslog as ``name`` (``syslog_name``) in ``facility`` (``LOG_DAEMON``); ``ValueError`` if it is none."""
    if facility not in FACILITIES:
        raise ValueError(f"there is no syslog facility {facility}; there are {', '.join(sorted(FACILITIES))}")
    syslog.openlog(name, syslog.LOG_PID, getattr(syslog, facility))

    def write(priority: int, line: str) -> None:
        syslog.syslog(priority, line)

    return write
