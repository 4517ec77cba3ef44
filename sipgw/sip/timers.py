"""Timers as one queue per length: SIP has a handful of lengths, so each queue is in order by itself.

A busy proxy starts and stops two or three timers for every message, and nearly all are stopped before they fire. A
heap costs a comparison chain for each; Twisted's ``callLater`` also keeps what was cancelled in the middle of it. But
the timers of SIP have few lengths (RFC 3261 17: T1 and its doublings, T2, T4, 64*T1; a script adds its own two or
three). All timers of one length, started one after another, also end one after another. So:

- There is one deque for each length. ``add`` appends at its right end: no comparison, nothing moves.
- To cancel is to take the subject out of the timer: one store. The empty timer (90 octets) stays where it is and
  leaves when its turn comes, so at most *rate times length* of them wait: 1000 timers a second of 30 s each leave
  30 000 empty ones, 2.7 MB. What the timer was about (a transaction, its message) is free at once.
- ``next`` is a remembered lower bound. ``add`` lowers it only when it starts an empty queue; ``cancel`` leaves it
  alone. So a wake-up can come too early, when all that was due has been cancelled, but never too late; each early
  one removes at least one empty timer.
- ``pop`` looks at the left ends only. Timers due at the same ``now`` come out in order of their own time.

Two things keep this true when others misuse it. A queue exists only while something is in it, and there are at most
``MAX_QUEUES``: odd lengths beyond that (say, one that a peer chose) share one heap, so nobody can make ``pop`` walk
over thousands of queues. And a subject that raises leaves the rest of what is due in place for the next call.

The one rule for callers: ``now`` is a monotonic clock. If it did step back, timers of one length would fire late
by that step, no more. If it jumps forward everything passed is due once, and what is started anew counts from the new
``now``: a stalled process does not repeat what it missed.

Cost (CPython 3.11, this file's benchmark in tests/sip/test_timers.py): about 0.35 us for ``add`` and ``cancel``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Final, Generic, TypeVar

__all__ = ["DelayQueues", "Delays", "Timer"]

Subject = TypeVar("Subject")

MAX_QUEUES: Final = 64
"""How many lengths get a queue of their own; timers of further lengths go into the heap."""


class Timer(Generic[Subject]):
    """One running timer: ``at`` is when it fires, ``subject`` what it is about (``None``: cancelled or fired).

    ``event``: a number that says to the subject's owner which of its timers this is."""

    __slots__ = ("at", "event", "subject")

    def __init__(self, at: float, subject: Subject, event: int = 0) -> None:
        self.at = at
        self.subject: Subject | None = subject
        self.event = event

    def cancel(self) -> None:
        """Stop the timer; harmless when it has fired or was cancelled before."""
        self.subject = None


class Delays(Generic[Subject]):
    """Holds timers that give back their subject when they are due: ``add`` to start one, ``pop`` to get what is due."""

    __slots__ = ("_due", "_earliest", "_heap", "_queues", "_serial", "soonest")

    def __init__(self) -> None:
        self._queues: dict[float, deque[Timer[Subject]]] = {}
        self._heap: list[tuple[float, int, Timer[Subject]]] = []
        self._due: deque[Timer[Subject]] = deque()
        self._earliest = inf
        self._serial = 0
        self.soonest = inf
        """As ``next()``, but ``inf`` if none waits; not to be changed by others."""

    def add(self, length: float, now: float, subject: Subject, event: int = 0) -> Timer[Subject]:
        """Start a timer of ``length`` seconds at ``now`` and return it; a length of 0 is due at once."""
        at = now + length
        timer = Timer(at, subject, event)
        queue = self._queues.get(length)
        if queue:
            queue.append(timer)
        else:
            if at < self._earliest:
                self._earliest = at
                if at < self.soonest:
                    self.soonest = at
            if len(self._queues) < MAX_QUEUES:
                self._queues[length] = deque((timer,))
            else:
                self._serial += 1
                heappush(self._heap, (at, self._serial, timer))
        return timer

    def next(self) -> float | None:
        """Return a time at which to call ``pop``: never later than the first timer, ``None`` if none waits.

        It may be too early, when what would have been due then was cancelled."""
        return None if self.soonest == inf else self.soonest

    def pop(self, now: float) -> tuple[Subject, int] | None:
        """Take out the earliest timer that is due at ``now``: its subject and event, or ``None`` if none is.

        Call it until it returns ``None``: only then is ``next`` the time of what still waits."""
        while True:
            while self._due:
                timer = self._due.popleft()
                subject = timer.subject
                if subject is not None:
                    timer.subject = None
                    return subject, timer.event
            if now < self._earliest:
                self.soonest = self._earliest
                return None
            self._collect(now)

    def _collect(self, now: float) -> None:
        """Move all that is due at ``now`` into ``_due`` in order of time, and find out what comes next."""
        due: list[Timer[Subject]] = []
        earliest = inf
        spent: list[float] = []
        for length, queue in self._queues.items():
            while queue:
                head = queue[0]
                if head.subject is not None:
                    if head.at > now:
                        break
                    due.append(head)
                queue.popleft()
            if not queue:
                spent.append(length)
            elif queue[0].at < earliest:
                earliest = queue[0].at
        for length in spent:
            del self._queues[length]
        heap = self._heap
        while heap and (heap[0][2].subject is None or heap[0][0] <= now):
            timer = heappop(heap)[2]
            if timer.subject is not None:
                due.append(timer)
        if heap and heap[0][0] < earliest:
            earliest = heap[0][0]
        due.sort(key=_time_of)
        self._due.extend(due)
        self._earliest = earliest
        self.soonest = self._due[0].at if self._due else earliest

    def __len__(self) -> int:
        """Count the timers that still run. Walks over all of them: for statistics and tests."""
        live = sum(timer.subject is not None for queue in self._queues.values() for timer in queue)
        live += sum(timer.subject is not None for _, _, timer in self._heap)
        return live + sum(timer.subject is not None for timer in self._due)

    @property
    def held(self) -> int:
        """How many timers are held in all, the cancelled ones too whose turn has not come."""
        return sum(map(len, self._queues.values())) + len(self._heap) + len(self._due)


def _time_of(timer: Timer[Subject]) -> float:
    return timer.at


class DelayQueues(Delays[Callable[[float], None]]):
    """Holds timers that call something: ``add(length, now, call)`` starts one, ``expire(now)`` calls what is due."""

    __slots__ = ()

    def expire(self, now: float) -> None:
        """Call what is due, each with ``now``, in order of time.

        What a call starts with a length of 0 is called too, after all that was due before it. When a call raises,
        the rest stays due."""
        while (due := self.pop(now)) is not None:
            due[0](now)
