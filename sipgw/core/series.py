"""Statistics over a window of time that moves on: sums, averages, percentages of what was fed lately. Pure: ``now`` is passed in.

The window is a ring of slots. A slot that is older than the window is emptied when something is fed or asked, so that a series
which nobody feeds costs nothing, and a value is as exact as one slot is long."""

from __future__ import annotations

from dataclasses import dataclass

ALGORITHMS = ("accumulate", "average", "percentage")


@dataclass(frozen=True)
class Profile:
    """How series are kept: ``window`` in seconds, cut into ``slots``.

    "accumulate" gives the sum, "average" the sum by the number of values, "percentage" the part that the positive values have in
    the sum of all without their signs, times ``factor``."""

    name: str
    group: str
    algorithm: str = "accumulate"
    window: int = 60
    slots: int = 60
    factor: int = 100

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Read ``name: attribute=value ...``; ``ValueError`` says what is wrong with it."""
        name, colon, rest = text.partition(":")
        name = name.strip()
        if not name or not colon:
            raise ValueError(f"bad profile {text!r}: write name: algorithm=average window=60")
        words: dict[str, str] = {}
        for word in rest.split():
            key, equals, value = word.partition("=")
            if key not in ("algorithm", "hash_size", "group", "window", "slots", "percentage_factor") or not (equals and value):
                raise ValueError(f"profile {name}: bad attribute {word!r}")
            words[key] = value
        algorithm = words.get("algorithm", "accumulate")
        if algorithm not in ALGORITHMS:
            raise ValueError(f"profile {name}: unknown algorithm {algorithm!r}: write {', '.join(ALGORITHMS)}")
        _number(name, words, "hash_size", 8, 1 << 20)
        window = _number(name, words, "window", 60, 366 * 86400)
        slots = _number(name, words, "slots", min(window, 3600), 3600)
        factor = _number(name, words, "percentage_factor", 100, 1_000_000)
        return cls(name, words.get("group", name), algorithm, window, slots, factor)


def _number(name: str, words: dict[str, str], key: str, default: int, most: int) -> int:
    text = words.get(key, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise ValueError(f"profile {name}: {key} is {text!r}: write 1 to {most}")
    return int(text)


class Series:
    """The values of one statistic within its window."""

    __slots__ = ("_counts", "_last", "_length", "_profile", "_sums")

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._length = profile.window / profile.slots
        self._sums = [0] * profile.slots
        self._counts = [0] * profile.slots
        """Of "average" the number of values, of "percentage" the sum without signs."""
        self._last = 0
        """The number of the newest slot, counted from time 0."""

    def feed(self, value: int, now: float) -> None:
        """Add ``value``; a percentage knows no 0."""
        slot = self._move(now)
        if self._profile.algorithm == "percentage":
            self._sums[slot] += max(value, 0)
            self._counts[slot] += abs(value)
        else:
            self._sums[slot] += value
            self._counts[slot] += 1

    def read(self, now: float) -> int:
        """What the series is now; an average or a percentage of nothing is 0."""
        self._move(now)
        total = sum(self._sums)
        if self._profile.algorithm == "accumulate":
            return total
        count = sum(self._counts)
        if self._profile.algorithm == "percentage":
            total *= self._profile.factor
        return int(total / count) if count else 0

    def _move(self, now: float) -> int:
        """Empty the slots that time has gone over; the place of the newest."""
        number = int(now / self._length)
        slots = self._profile.slots
        for passed in range(min(number - self._last, slots)):
            place = (number - passed) % slots
            self._sums[place] = self._counts[place] = 0
        self._last = number
        return number % slots
