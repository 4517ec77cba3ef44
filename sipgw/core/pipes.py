"""Counters that say when enough is enough: OpenSIPS's ratelimit *pipes* and their algorithms. Pure: ``now`` is passed in.

Time goes in intervals of ``interval`` seconds. A pipe counts what comes in this one and remembers the one before:

- TAILDROP lets through until the limit is reached, then nothing until the next interval.
- RED lets through every n-th, n being how many times the last interval went over the limit.
- NETWORK asks for octets that wait in the sockets' buffers.
- FEEDBACK drops so many in a hundred that the load of the machine drifts to the limit, a percentage (``Feedback``).
- SBT counts over a window that moves on in slots.

No timer walks over the pipes: each knows of which interval its counts are. What nobody has used for ``expires`` seconds is
forgotten, and beyond ``MAX_PIPES`` that which was used longest ago: scripts name pipes by what messages say."""

from __future__ import annotations

import random
from collections import OrderedDict
from dataclasses import dataclass

ALGORITHMS = ("TAILDROP", "RED", "NETWORK", "FEEDBACK", "SBT")
MAX_PIPES = 100_000
"""How many pipes there may be (hardening P27)."""


@dataclass(frozen=True)
class Measure:
    """How all pipes of a server count: ``interval``, ``expires`` and ``window`` in seconds, ``slot`` in milliseconds.

    ``whole``: a limit is meant for an interval, not for a second."""

    interval: int = 10
    expires: int = 3600
    window: int = 10
    slot: int = 200
    whole: bool = False

    @property
    def slots(self) -> int:
        """Of how many slots a window is made."""
        return max(1, self.window * 1000 // self.slot)

    def allowed(self, limit: int) -> int:
        """What ``limit`` allows in one interval."""
        return limit if self.whole else limit * self.interval


class Window:
    """Counts of the last slots of time."""

    __slots__ = ("_last", "_slot", "counts")

    def __init__(self, measure: Measure) -> None:
        self.counts = [0] * measure.slots
        self._slot = measure.slot / 1000
        self._last = 0

    def place(self, now: float) -> int:
        """The place of the slot of ``now``, with those emptied that time has gone over."""
        number = int(now / self._slot)
        size = len(self.counts)
        for passed in range(min(number - self._last, size)):
            self.counts[(number - passed) % size] = 0
        self._last = number
        return number % size

    def take(self, now: float) -> None:
        """Take one off, of the newest slot that has any."""
        place = self.place(now)
        for back in range(len(self.counts)):
            if self.counts[place - back]:
                self.counts[place - back] -= 1
                return


class Pipe:
    """One counter. ``shared``: others count in it too (``own`` is our part of what stands in the common store)."""

    __slots__ = ("_measure", "_number", "algorithm", "count", "last", "limit", "name", "own", "shared", "total", "used", "window")

    def __init__(self, name: str, algorithm: str, limit: int, measure: Measure, shared: bool, now: float) -> None:
        self.name = name
        self.algorithm = algorithm
        self.limit = limit
        self.shared = shared
        self.used = now
        self.count = 0
        self.last = 0
        """The count of the interval before."""
        self.own = 0
        self.total = 0
        """What the common store last said."""
        self.window = Window(measure) if algorithm == "SBT" else None
        self._measure = measure
        self._number = int(now / measure.interval)

    def move(self, now: float) -> None:
        """Let time pass up to ``now``; a shared pipe's last count is set by whoever asks the store."""
        number = int(now / self._measure.interval)
        if number != self._number:
            if not self.shared:
                self.last = self.count if number == self._number + 1 else 0
            self.count = 0
            self._number = number

    def add(self, now: float) -> int:
        """Count one; the new count."""
        self.move(now)
        if self.window is not None:
            self.window.counts[self.window.place(now)] += 1
        else:
            self.count += 1
        return self.read(now)

    def take(self, now: float) -> None:
        """Take one off, if there is any."""
        self.move(now)
        if self.window is not None:
            self.window.take(now)
        elif self.count:
            self.count -= 1

    def reset(self, now: float) -> None:
        """Count anew."""
        self.move(now)
        self.count = 0
        if self.window is not None:
            self.window = Window(self._measure)

    def read(self, now: float) -> int:
        """The count."""
        self.move(now)
        if self.window is not None:
            self.window.place(now)
            return sum(self.window.counts)
        return self.count

    def passes(self, count: int, octets: int, feedback: Feedback) -> bool:
        """Whether the one that made it ``count`` passes; ``octets`` wait in buffers."""
        if self.algorithm == "TAILDROP":
            return count <= self._measure.allowed(self.limit)
        if self.algorithm == "RED":
            allowed = self._measure.allowed(self.limit)
            step = self.last // allowed if allowed > 0 else 0
            return step < 2 or count % step == 0
        if self.algorithm == "NETWORK":
            return octets <= self.limit
        if self.algorithm == "FEEDBACK":
            return feedback.passes(count)
        return count <= self.limit


class Feedback:
    """A PID controller that steers the load of the machine by what it drops.

    ``limit`` is the load that is wanted, in percent. Of each hundred ``rate`` are dropped, spread by chance."""

    def __init__(self) -> None:
        self.limit: int | None = None
        self.rate = 0
        self.ki, self.kp, self.kd = -25.0, 0.0, 0.0
        self._sum = 0.0
        self._before = 0.0
        self._order = list(range(100))
        random.shuffle(self._order)

    def note(self, load: float) -> None:
        """Take a new measurement of the load, 0.0 to 1.0.

        A load below the limit is summed up only against one above it: no rate can make up for idle time."""
        if self.limit is None:
            return
        error = self.limit / 100 - load
        if error < 0 or self._sum < 0:
            self._sum = min(0.0, self._sum + error)
        change, self._before = error - self._before, error
        self.rate = round(min(100.0, max(0.0, self.kp * error + self.ki * self._sum + self.kd * change)))

    def passes(self, count: int) -> bool:
        """Whether the ``count``-th passes."""
        return self._order[count % 100] >= self.rate


class Pipes:
    """All pipes, those first that were used longest ago."""

    def __init__(self, measure: Measure, size: int = MAX_PIPES) -> None:
        self.measure = measure
        self._size = size
        self._pipes: OrderedDict[str, Pipe] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pipes)

    def find(self, name: str) -> Pipe | None:
        """The pipe of that name."""
        return self._pipes.get(name)

    def use(self, name: str, now: float) -> Pipe | None:
        """The pipe of that name, which is kept longer now."""
        pipe = self._pipes.get(name)
        if pipe is not None:
            pipe.used = now
            self._pipes.move_to_end(name)
        return pipe

    def make(self, name: str, algorithm: str, limit: int, shared: bool, now: float) -> Pipe:
        """A new pipe."""
        if len(self._pipes) >= self._size:
            self._pipes.popitem(last=False)
        pipe = self._pipes[name] = Pipe(name, algorithm, limit, self.measure, shared, now)
        return pipe

    def all(self) -> list[Pipe]:
        """All of them."""
        return [*self._pipes.values()]

    def sweep(self, now: float) -> None:
        """Forget those that nobody has used for long."""
        while self._pipes:
            oldest = next(iter(self._pipes.values()))
            if oldest.used + self.measure.expires > now:
                return
            self._pipes.popitem(last=False)
