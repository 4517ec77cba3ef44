"""What a client is told as it happens, and how much of it may wait for a client that is slow.

An outlet keeps a bounded queue; when that is full the oldest goes, and the next value that goes out says how many are lost. Only
``WINDOW`` values are on their way at a time, so neither the queue nor the buffer of the connection grows with a client that
does not read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.events import EventBus, Params
from sipgw.manhole.boxes import PIECE, Told
from sipgw.mi.jsonrpc import encode
from sipgw.statistics import Statistic

MAX_WAITING = 1000
"""Values that wait for one subscription at most."""
MAX_OCTETS = 1 << 20
"""Octets that wait for one subscription at most."""
WINDOW = 32
"""Values on their way that the client has not answered."""


class Outlet:
    """One subscription of one client: ``push`` values into it. ``send(Told, **fields)`` brings a box to the client."""

    def __init__(self, number: int, send: Callable[..., Deferred[Any]]) -> None:
        self.number = number
        self.lost = 0
        """Values that were left out and that the client has not been told of."""
        self.on_end: list[Callable[[], Any]] = []
        self._send = send
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._away = 0
        self._ended = False

    def push(self, value: Any) -> None:
        """Tell the client a value, now or when it has answered those before."""
        if self._ended:
            return
        data = encode(value)
        self._waiting.append(data)
        self._octets += len(data)
        while self._octets > MAX_OCTETS or len(self._waiting) > MAX_WAITING:
            self._octets -= len(self._waiting.popleft())
            self.lost += 1
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._away < WINDOW and not self._ended:
            data = self._waiting.popleft()
            self._octets -= len(data)
            self._away += 1
            lost, self.lost = self.lost, 0
            for start in range(0, len(data), PIECE):
                last = start + PIECE >= len(data)
                sent = self._send(
                    Told, subscription=self.number, data=data[start : start + PIECE], last=last, lost=lost if last else 0
                )
                if last:
                    sent.addCallbacks(self._answered, self._failed)
                else:
                    sent.addErrback(self._failed)

    def _answered(self, _answer: Any) -> None:
        self._away -= 1
        self._pump()

    def _failed(self, _failure: Any) -> None:
        """The connection is lost, or the client does not want to hear."""
        self.end()

    def end(self) -> None:
        """Tell nothing any more."""
        if not self._ended:
            self._ended = True
            self._waiting.clear()
            for each in self.on_end:
                each()


class EventTap:
    """Brings events to an outlet (``core.events.Sink``)."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def send(self, event: str, params: Params) -> bool:
        """Take one event."""
        self._outlet.push({"event": event, "params": dict(params) if isinstance(params, Mapping) else list(params)})
        return True


def subscribe_events(bus: EventBus, names: Sequence[str], outlet: Outlet, label: str) -> None:
    """Bring the events of those names to ``outlet`` until it ends; ``LookupError`` for a name that there is not."""
    chosen = []
    for name in names:
        if name.endswith("*"):
            chosen += [event for event in bus if event.name.startswith(name[:-1])]
        else:
            found = bus.find(name)
            if found is None:
                raise LookupError(f"there is no event {name}")
            chosen.append(found)
    tap = EventTap(outlet)
    for event in chosen:
        bus.join(event, label, tap)
        outlet.on_end.append(partial(bus.join, event, label, tap, 0))


class StatisticsTap:
    """Brings those statistics to an outlet that have changed, each so many seconds."""

    def __init__(self, statistics: Sequence[Statistic], outlet: Outlet, seconds: float, reactor: Any) -> None:
        self._statistics = {f"{each.group}:{each.name}": each for each in statistics}
        self._outlet = outlet
        self._seconds = seconds
        self._reactor = reactor
        self._known: dict[str, int] = {}
        self._call: Any = None
        outlet.on_end.append(self.end)
        self._look()

    def _look(self) -> None:
        values = {name: each.read() for name, each in self._statistics.items()}
        changed = {name: value for name, value in values.items() if self._known.get(name) != value}
        self._known = values
        self._call = self._reactor.callLater(self._seconds, self._look)
        if changed:
            self._outlet.push({"statistics": changed})

    def end(self) -> None:
        """Look no more."""
        if self._call is not None and self._call.active():
            self._call.cancel()
