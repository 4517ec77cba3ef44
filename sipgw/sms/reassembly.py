"""Parts of long messages that wait for the others (3GPP TS 23.040, 9.2.3.24.1). Pure: the caller brings the time.

Parts come in any order, more than once, or never. A message is given out when all its parts are there, or, with what came,
when ``patience`` seconds have passed since the last of them. A part that says otherwise than the one of that number is the
begin of another message with the same reference: there are only 256 of them. One that says the same is a repetition, also when
its message has been given out not long ago. So that no sender can fill the memory there are ``capacity`` parts at most; the
message that has waited longest is given out to make room."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

from sipgw.sms.udh import Concatenation

__all__ = ["Reassembly", "Whole"]

T = TypeVar("T")
CAPACITY: Final = 10_000
REMEMBERED: Final = 1000
"""Messages that were given out whose repetitions are known."""


class Whole(NamedTuple, Generic[T]):
    """A message given out: its parts in order, None for those that are missing."""

    key: Hashable
    parts: list[T | None]

    @property
    def missing(self) -> int:
        """How many parts never came."""
        return self.parts.count(None)


class _Waiting(Generic[T]):
    """The parts of one message so far."""

    __slots__ = ("key", "last", "parts")

    def __init__(self, key: Hashable, total: int, now: float) -> None:
        self.key = key
        self.parts: list[T | None] = [None] * total
        self.last = now


class Reassembly(Generic[T]):
    """All messages of which parts are missing. ``patience`` in seconds."""

    def __init__(self, patience: float = 300.0, capacity: int = CAPACITY) -> None:
        self.patience = patience
        self.capacity = capacity
        self.repeated = 0
        """Parts that came again."""
        self.held = 0
        """Parts that wait."""
        self._waiting: dict[Hashable, _Waiting[T]] = {}
        self._given: dict[Hashable, tuple[float, list[T | None]]] = {}

    def __len__(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def add(self, sender: Hashable, which: Concatenation, part: T, now: float) -> list[Whole[T]]:
        """Take one part; the messages that are to be given out now: that one if it is whole, and one that had to make room.

        ``sender`` is all that tells messages of the same reference apart: link, source and destination."""
        key = (sender, which.reference, which.total, which.wide)
        given: list[Whole[T]] = []
        before = self._given.get(key)
        if before is not None and before[0] + self.patience > now and before[1][which.number - 1] == part:
            self.repeated += 1
            return given
        waiting = self._waiting.pop(key, None)
        if waiting is not None and waiting.parts[which.number - 1] not in (None, part):
            given.append(self._give(waiting))
            waiting = None
        if waiting is None:
            while self.held >= self.capacity and self._waiting:
                given.append(self._give(next(iter(self._waiting.values()))))
            waiting = _Waiting(key, which.total, now)
        self._waiting[key] = waiting  # last: the dict keeps the one that has waited longest for a part first
        waiting.last = now
        if waiting.parts[which.number - 1] is not None:
            self.repeated += 1
            return given
        waiting.parts[which.number - 1] = part
        self.held += 1
        if None not in waiting.parts:
            given.append(self._give(waiting))
        return given

    def expire(self, now: float) -> list[Whole[T]]:
        """The messages that have waited too long."""
        given: list[Whole[T]] = []
        while self._waiting:
            oldest = next(iter(self._waiting.values()))
            if oldest.last + self.patience > now:
                break
            given.append(self._give(oldest))
        return given

    def next(self) -> float | None:
        """When ``expire`` has something to do next; None if nothing waits."""
        for oldest in self._waiting.values():
            return oldest.last + self.patience
        return None

    def drain(self) -> list[Whole[T]]:
        """All that waits, for the end."""
        return [self._give(waiting) for waiting in list(self._waiting.values())]

    def _give(self, waiting: _Waiting[T]) -> Whole[T]:
        self._waiting.pop(waiting.key, None)
        self.held -= sum(part is not None for part in waiting.parts)
        self._given.pop(waiting.key, None)
        self._given[waiting.key] = waiting.last, waiting.parts
        while len(self._given) > REMEMBERED:
            del self._given[next(iter(self._given))]
        return Whole(waiting.key, waiting.parts)
