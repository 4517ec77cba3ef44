"""Deadlines to the second that are hours away and nearly always put off or lifted: the ends of calls.

A timer queue (``sip/timers.py``) keeps the empty shells of cancelled timers until their time has come: right for seconds, not for
the twelve hours that a call may last. Here each second has a dict of whose time is over then; to lift a deadline takes it out."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil
from typing import Any, Generic, TypeVar

Subject = TypeVar("Subject")


class Deadlines(Generic[Subject]):
    """When the time of each subject is over: ``call(subject)`` is called at the next full second.

    ``clock()`` is monotonic; ``after(seconds, call)`` sets a timer, of which there is one at most."""

    def __init__(
        self,
        clock: Callable[[], float],
        after: Callable[[float, Callable[[float], None]], Any],
        call: Callable[[Subject], None],
    ) -> None:
        self._clock = clock
        self._after = after
        self._call = call
        self._seconds: dict[int, dict[Subject, None]] = {}
        self._heap: list[int] = []
        self._at: dict[Subject, int] = {}
        self._armed = 0
        """The second for which the timer is set."""
        self._timer: Any = None

    def __len__(self) -> int:
        return len(self._at)

    def set(self, subject: Subject, at: float) -> None:
        """Let the time of ``subject`` be over at ``at``, whatever was said before."""
        self.lift(subject)
        second = ceil(at)
        bucket = self._seconds.get(second)
        if bucket is None:
            bucket = self._seconds[second] = {}
            heappush(self._heap, second)
        bucket[subject] = None
        self._at[subject] = second
        self._arm()

    def lift(self, subject: Subject) -> bool:
        """Let it never be over; False if it had none."""
        second = self._at.pop(subject, None)
        if second is None:
            return False
        bucket = self._seconds.get(second)
        if bucket is not None:  # else those of this second are being told just now
            del bucket[subject]
            if not self._at:
                self._arm()
        return True

    def _arm(self) -> None:
        heap = self._heap
        while heap and not self._seconds[heap[0]]:
            del self._seconds[heappop(heap)]
        if self._timer is not None and (not heap or heap[0] < self._armed):
            self._timer.cancel()
            self._timer = None
        if heap and self._timer is None:
            self._armed = heap[0]
            self._timer = self._after(max(0.0, heap[0] - self._clock()), self._due)

    def _due(self, now: float) -> None:
        self._timer = None
        heap = self._heap
        while heap and heap[0] <= now:
            second = heappop(heap)
            for subject in tuple(self._seconds.pop(second)):
                if self._at.get(subject) == second:
                    del self._at[subject]
                    self._call(subject)
        self._arm()
