"""benchmark: how long parts of a script take, in microseconds.

A run measures for itself: what others do while it waits is in its time, but their measurements are never mixed up with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sipgw.exports import BRANCH, EVENT, FAILURE, LOCAL, ONREPLY, REQUEST, STARTUP, TIMER, Module, function, mi, param, pvar
from sipgw.interfaces import Server
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run

EVERYWHERE = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL | STARTUP | TIMER | EVENT
MAX_TIMERS = 1000
"""How many names may be measured."""
_STARTED = "benchmark.started"
_DIFFERENCE = "benchmark.difference"


class Measures:
    """Some measurements: how many, their sum, the least and the greatest."""

    def __init__(self) -> None:
        self.count = self.total = self.least = self.greatest = 0

    def add(self, value: int) -> None:
        """Take one more."""
        self.least = min(self.least, value) if self.count else value
        self.greatest = max(self.greatest, value)
        self.count += 1
        self.total += value

    def __str__(self) -> str:
        average = self.total / self.count if self.count else 0.0
        return f"{self.count}/{self.total}/{self.least}/{self.greatest}/{average:.6f}"


@dataclass
class Timer:
    """One name: what was measured since the last report, and in all."""

    number: int
    enabled: bool = False
    last: Measures = field(default_factory=Measures)
    all: Measures = field(default_factory=Measures)


def check_enable(value: int) -> None:
    """Refuse what is not -1, 0 or 1."""
    if value not in (-1, 0, 1):
        raise ValueError(f"{value}: write -1 for off, 0 for the timers that are switched on by themselves, 1 for all")


def check_granularity(value: int) -> None:
    """Refuse a negative number."""
    if value < 0:
        raise ValueError(f"{value} is negative")


def check_level(value: int) -> None:
    """Refuse what is no log level."""
    if not -3 <= value <= 4:
        raise ValueError(f"{value} is no log level: write -3 to 4")


class Benchmark(Module):
    """Measures parts of a script."""

    enable: int = param(0, "-1: nothing is measured; 0: the timers that a command has enabled; 1: all", check=check_enable)
    granularity: int = param(100, "Measurements between two lines of the log; 0 for none at all", check=check_granularity)
    loglevel: int = param(3, "The level of these lines", check=check_level)

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._timers: dict[str, Timer] = {}

    def _timer(self, run: Run, name: str) -> Timer | None:
        """The timer of that name, if it is to measure now."""
        timer = self._timers.get(name)
        if timer is None:
            if len(self._timers) >= MAX_TIMERS:
                run.user.log_rarely("benchmark", -1, f"benchmark: no timer {name!r}, there are {MAX_TIMERS}")
                return None
            timer = self._timers[name] = Timer(len(self._timers))
        return timer if self.enable > 0 or (self.enable == 0 and timer.enabled) else None

    @function(EVERYWHERE)
    def bm_start_timer(self, run: Run, name: str) -> None:
        """Begin to measure ``name``."""
        if self._timer(run, name) is not None:
            run.keep().setdefault(_STARTED, {})[name] = run.user.clock()

    @function(EVERYWHERE)
    def bm_log_timer(self, run: Run, name: str) -> None:
        """End to measure ``name``, and now and then log what was measured."""
        timer = self._timer(run, name)
        kept = run.context or {}
        began = kept.get(_STARTED, {}).pop(name, None)
        if timer is None or began is None:
            return
        took = round((run.user.clock() - began) * 1_000_000)
        kept[_DIFFERENCE] = took
        timer.last.add(took)
        timer.all.add(took)
        if self.granularity and timer.last.count >= self.granularity:
            figures = f"LR: {timer.last} | GB: {timer.all}"
            run.user.log(
                self.loglevel, f"benchmark (timer {name} [{timer.number}]): {took} [ msgs/total/min/max/avg - {figures}]"
            )
            timer.last = Measures()

    @pvar("BM_time_diff")
    def time_diff(self, run: Run) -> int:
        """``$BM_time_diff``: what ``bm_log_timer`` has measured last for this message; 0 before."""
        found: int = (run.context or {}).get(_DIFFERENCE, 0)
        return found

    @mi(alias="bm_enable_global")
    def enable_global(self, enable: int) -> None:
        """Switches measuring off (-1), on for the timers that are enabled (0), or on (1)."""
        self._set("enable", enable, "Bad parameter value")

    @mi(alias="bm_enable_timer")
    def enable_timer(self, timer: str, enable: int) -> None:
        """Switches one timer on (1) or off (0)."""
        if enable not in (0, 1):
            raise MIError(400, "Bad parameter value")
        if timer not in self._timers:
            raise MIError(400, "Failed to register timer")
        self._timers[timer].enabled = bool(enable)

    @mi("granularity", alias="bm_granularity")
    def set_granularity(self, granularity: int) -> None:
        """Sets how many measurements there are between two lines of the log; 0: none is written."""
        self._set("granularity", granularity, "Bad value for parameter")

    @mi("loglevel", alias="bm_loglevel")
    def set_loglevel(self, log_level: int) -> None:
        """Sets the level of these lines."""
        self._set("loglevel", log_level, "Bad value for parameter")

    def _set(self, name: str, value: int, refusal: str) -> None:
        try:
            self.set_parameter(name, value)
        except ValueError:
            raise MIError(400, refusal) from None

    @mi(alias="bm_poll_results")
    def poll_results(self) -> dict[str, list[dict[str, str]]]:
        """Gives what was measured since the last time (local) and in all (global), if granularity is 0."""
        if self.granularity:
            raise MIError(400, "Call not valid for granularity!=0")
        found = []
        for name, timer in self._timers.items():
            found.append({"name": name, "local": str(timer.last), "global": str(timer.all)})
            timer.last = Measures()
        return {"Timers": found}
