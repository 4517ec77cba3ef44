"""Where time and memory go: ``profile`` looks at what the process does, some hundred times a second; ``leaks`` compares two
counts of its objects."""

from __future__ import annotations

import gc
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.measures import resident
from sipgw.manhole.show import plain, table

INTERVAL = 0.002
"""Seconds of processor time between two looks."""
SHOWN = 20


class Profile:
    """What ``samples`` looks found: lines of the script, and functions."""

    def __init__(self, seconds: float, files: Iterable[str]) -> None:
        self.seconds = seconds
        self.samples = 0
        self.lines: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        self._files = frozenset(files)

    def look(self, _signal: int, frame: FrameType | None) -> None:
        """Take note of what is being done."""
        if frame is None:
            return
        self.samples += 1
        code = frame.f_code
        self.functions[f"{code.co_qualname} ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"] += 1
        each: FrameType | None = frame
        while each is not None:
            if each.f_code.co_filename in self._files:
                self.lines[f"{each.f_code.co_filename}:{each.f_lineno}"] += 1
                return
            each = each.f_back

    def __repr__(self) -> str:
        if not self.samples:
            return f"{self.seconds} s: nothing was done that takes time"
        shown = [f"{self.seconds} s, {self.samples} looks, one each {INTERVAL * 1000:g} ms of processor time"]
        for title, counts in (("line of the script", self.lines), ("function", self.functions)):
            rows = [[f"{count * 100 / self.samples:.1f}", plain(name)] for name, count in counts.most_common(SHOWN)]
            shown += ["", *(table(["%", title], rows) if rows else [f"no {title}"])]
        return "\n".join(shown)


def profiler(reactor: Any, files: Callable[[], Iterable[str]]) -> Callable[[float], Deferred[Profile]]:
    """``profile``; ``files`` gives the names of the script's files."""
    running: list[Profile] = []

    def profile(seconds: float = 10) -> Deferred[Profile]:
        """Where the time of the next so many seconds goes, by line of the script and by function."""
        if running:
            raise ValueError("a profile is being made already")
        made = Profile(seconds, files())
        running.append(made)
        before = signal.signal(signal.SIGPROF, made.look)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
        ended: Deferred[Profile] = Deferred()

        def end() -> None:
            signal.setitimer(signal.ITIMER_PROF, 0)
            # one that is on its way must not end the process
            signal.signal(signal.SIGPROF, before if callable(before) else signal.SIG_IGN)
            running.clear()
            ended.callback(made)

        reactor.callLater(seconds, end)
        return ended

    return profile


class Growth:
    """How many objects of each type there are more than before."""

    def __init__(self, before: Counter[type] | None, now: Counter[type], octets: int) -> None:
        self.first = before is None
        self.octets = octets
        self.types = Counter(now)
        self.types.subtract(before or Counter())

    def __repr__(self) -> str:
        if self.first:
            return f"{sum(self.types.values())} objects that came after the start; leaks() tells later which have become more"
        rows = [
            [f"+{count}", plain(f"{kind.__module__}.{kind.__qualname__}")]
            for kind, count in self.types.most_common(SHOWN)
            if count > 0
        ]
        return "\n".join([f"memory: {self.octets:+} octets", *(table(["more", "type"], rows) if rows else ["no more objects"])])


def leak_finder() -> Callable[[], Growth]:
    """``leaks``; it remembers the last count."""
    last: list[tuple[Counter[type], int]] = []

    def leaks() -> Growth:
        """Which types have more objects than at the last call; the first call only counts. It takes a moment."""
        gc.collect()
        now, octets = Counter(map(type, gc.get_objects())), resident()
        before = last.pop() if last else None
        last.append((now, octets))
        return Growth(None, now, octets) if before is None else Growth(before[0], now, octets - before[1])

    return leaks
