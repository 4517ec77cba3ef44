"""How long the routes of the script take, for whoever looks: it listens to ``E_PROFILING_SCRIPT`` and adds up.

While nobody does, no route is measured (``core/profiling.py``). A route that waits counts its waiting and what it calls."""

from __future__ import annotations

from typing import Any

from sipgw.core.events import EventBus, Params

EVENT = "E_PROFILING_SCRIPT"
MAX_RUNS = 10_000
"""Runs that have begun and not ended, at most; beyond that the oldest is not measured."""
MAX_ROUTES = 1000


class RouteTime:
    """One route: how often it ended, and the microseconds it took."""

    __slots__ = ("calls", "file", "line", "name", "total", "worst")

    def __init__(self, name: str, file: str, line: int) -> None:
        self.name = name
        self.file = file
        self.line = line
        self.calls = self.total = self.worst = 0

    def shown(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {each: getattr(self, each) for each in self.__slots__}


class RouteTimes:
    """The times of all routes since ``start`` (``core.events.Sink``)."""

    def __init__(self, bus: EventBus, label: str) -> None:
        self._bus = bus
        self._label = label
        self._began: dict[tuple[Any, Any], int] = {}
        self.routes: dict[tuple[str, int, str], RouteTime] = {}

    def start(self) -> None:
        """Measure from now on."""
        self._bus.join(self._bus.publish(EVENT), self._label, self)

    def stop(self) -> None:
        """Measure no more."""
        self._bus.join(self._bus.publish(EVENT), self._label, self, 0)

    def send(self, event: str, params: Params) -> bool:
        """A route begins or ends."""
        assert not isinstance(params, list | tuple)
        told: Any = params
        verb = told["verb"]
        if verb not in ("enter", "exit") or "file" not in told:
            return True
        key = (told["session"], told["depth"])
        now = told["sec"] * 1_000_000 + told["usec"]
        if verb == "enter":
            if len(self._began) >= MAX_RUNS:
                del self._began[next(iter(self._began))]
            self._began[key] = now
            return True
        began = self._began.pop(key, None)
        place = (told["file"], told["line"], told["name"])
        found = self.routes.get(place)
        if began is None or (found is None and len(self.routes) >= MAX_ROUTES):
            return True
        if found is None:
            found = self.routes[place] = RouteTime(told["name"], told["file"], told["line"])
        took = max(0, now - began)
        found.calls += 1
        found.total += took
        found.worst = max(found.worst, took)
        return True

    def slowest(self, count: int) -> list[dict[str, Any]]:
        """Those that took the most time in all."""
        ordered = sorted(self.routes.values(), key=lambda each: each.total, reverse=True)
        return [each.shown() for each in ordered[:count]]
