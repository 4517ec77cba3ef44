"""Limits on the calls of one user to one prefix, with counters (OpenSIPS's fraud_detection). Pure: time is passed in.

A rule belongs to a profile and holds for numbers that begin with its prefix, at its hours on its days; of those that fit, the one
with the longest prefix counts, then the one that stands first. What a user has called by a rule is counted by its prefix, and
anew each day, or each night where the hours go over midnight."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final, NamedTuple

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MEASURES: Final = ("calls-per-minute", "total-calls", "concurrent-calls", "sequential-calls")
"""What is looked at when a call begins, in this order."""
DURATION: Final = "call-duration"
"""What is looked at when it ends."""
MINUTE: Final = 60
MOST: Final = 100_000
"""How many pairs of user and prefix are counted: both come from messages."""

_time = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])").fullmatch


def read_time(text: str) -> int:
    """Minutes since midnight of ``HH:MM``; ``ValueError``."""
    found = _time(text.strip())
    if found is None:
        raise ValueError(f"bad time {text!r}: write it as 23:59")
    return int(found[1]) * 60 + int(found[2])


def read_days(text: str) -> frozenset[int]:
    """The days, from Monday, 0, in ``Fri-Mon, Wed``; ``ValueError``."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = (each.strip().lower()[:3] for each in part.partition("-"))
        if first not in DAYS or (dash and last not in DAYS):
            raise ValueError(f"bad days {text!r}: write them as Mon-Fri, Sun")
        begin = DAYS.index(first)
        count = (DAYS.index(last) - begin) % 7 if dash else 0
        found.update((begin + each) % 7 for each in range(count + 1))
    return frozenset(found)


class Limit(NamedTuple):
    """Thresholds; 0 is none."""

    warning: int
    critical: int


@dataclass(frozen=True)
class Rule:
    """One rule. ``start``, ``end``: minutes since midnight; the minute of ``end`` still belongs to it. ``limits`` by measure."""

    id: int
    profile: int
    prefix: str
    start: int
    end: int
    days: frozenset[int]
    limits: dict[str, Limit]

    def begun(self, now: datetime) -> date | None:
        """The day on which the hours that ``now`` is within have begun; None if it is within none."""
        minute = now.hour * 60 + now.minute
        day = now.date()
        if self.start > self.end and minute <= self.end:
            day -= timedelta(days=1)
        elif minute < self.start or (self.start <= self.end and minute > self.end):
            return None
        return day if day.weekday() in self.days else None


class Found(NamedTuple):
    """A threshold that is reached."""

    critical: bool
    measure: str
    value: int
    threshold: int


def worst(rule: Rule, values: Iterable[tuple[str, int]]) -> Found | None:
    """The first threshold that ``values`` have reached, critical ones before warnings."""
    warning = None
    for measure, value in values:
        limit = rule.limits.get(measure, Limit(0, 0))
        if limit.critical and value >= limit.critical:
            return Found(True, measure, value, limit.critical)
        if warning is None and limit.warning and value >= limit.warning:
            warning = Found(False, measure, value, limit.warning)
    return warning


class Rules:
    """The rules of all profiles."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._profiles: dict[int, dict[str, list[Rule]]] = {}
        self._longest = 0
        for rule in rules:
            self._profiles.setdefault(rule.profile, {}).setdefault(rule.prefix, []).append(rule)
            self._longest = max(self._longest, len(rule.prefix))

    def __iter__(self) -> Iterator[Rule]:
        return (rule for profile in self._profiles.values() for rules in profile.values() for rule in rules)

    def find(self, profile: int, number: str, now: datetime) -> tuple[Rule, date] | None:
        """The rule for ``number``, and the day on which its hours began; None if there is none."""
        prefixes = self._profiles.get(profile)
        if prefixes is None:
            return None
        for length in range(min(len(number), self._longest), -1, -1):
            for rule in prefixes.get(number[:length], ()):
                day = rule.begun(now)
                if day is not None:
                    return rule, day
        return None


Open = Callable[[], bool]
"""Whether a call that was counted goes on."""


@dataclass(slots=True)
class Counts:
    """What one user has called that begins with one prefix, on ``day``. ``last``: the number called last."""

    day: date
    total: int = 0
    sequential: int = 0
    last: str = ""
    minute: deque[list[int]] = field(default_factory=deque)
    """[second, calls] of the last minute: 61 entries at most."""
    calls: list[Open] = field(default_factory=list)

    def per_minute(self, now: float) -> int:
        """How many calls have begun in the last 60 seconds."""
        while self.minute and self.minute[0][0] <= now - MINUTE:
            self.minute.popleft()
        return sum(calls for _, calls in self.minute)

    def concurrent(self) -> int:
        """How many calls go on."""
        self.calls = [goes_on for goes_on in self.calls if goes_on()]
        return len(self.calls)

    def add(self, number: str, now: float, goes_on: Open) -> tuple[tuple[str, int], ...]:
        """Count a call to ``number``; the measures with it."""
        self.total += 1
        self.sequential = self.sequential + 1 if number == self.last else 1
        self.last = number
        second = int(now)
        if self.minute and self.minute[-1][0] == second:
            self.minute[-1][1] += 1
        else:
            self.minute.append([second, 1])
        self.calls.append(goes_on)
        return tuple(zip(MEASURES, (self.per_minute(now), self.total, self.concurrent(), self.sequential), strict=True))


class Ledger:
    """The counts of all users, by user and prefix; those that were used last are at the end."""

    def __init__(self, most: int = MOST) -> None:
        self._counts: dict[tuple[str, str], Counts] = {}
        self._most = most

    def __len__(self) -> int:
        return len(self._counts)

    def find(self, user: str, prefix: str) -> Counts | None:
        """What ``user`` has called that begins with ``prefix``."""
        return self._counts.get((user, prefix))

    def open(self, user: str, prefix: str, day: date) -> Counts:
        """The counts to write into: empty but for calls that go on, if it is another day."""
        counts = self._counts.pop((user, prefix), None)
        if counts is None:
            counts = Counts(day)
        elif counts.day != day:
            counts.day, counts.total, counts.sequential, counts.last = day, 0, 0, ""
        self._counts[user, prefix] = counts
        if len(self._counts) > self._most:
            del self._counts[next(iter(self._counts))]
        return counts

    def sweep(self, today: date) -> None:
        """Forget those that say nothing any more: of another day, and no call goes on."""
        old = today - timedelta(days=1)
        gone = [key for key, counts in self._counts.items() if counts.day < old and not counts.concurrent()]
        for key in gone:
            del self._counts[key]
