"""Time recurrences, after those of iCalendar (RFC 2445 4.3.10): whether an instant is within one, as scripts and tables write it.

    [timezone|]dtstart|dtend|duration|freq|until|interval|byday|bymday|byyday|byweekno|bymonth

Fields may be left out at the end. Several recurrences are joined by ``&`` or ``/`` (or), with parentheses where both are used;
``!`` turns one round.

An instant is looked at as the clock on the wall of the time zone shows it. It is within the recurrence if an occurrence has begun
and not ended: occurrences begin at the time of day of ``dtstart``, on the days that ``freq``, ``interval`` and the ``by`` rules
allow. Where OpenSIPS does it otherwise we follow RFC 2445 (years are counted by date, weeks as in ISO 8601, a night belongs to
the day on which it begins), but for three things that its manual builds on. COMPAT: without end, an occurrence lasts to the end
of its day, week, month or year; one longer than a day, on days that are chosen by rules, is only looked at for the day of the
instant; ``duration`` counts before ``dtend``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DAY = timedelta(days=1)
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
MAX_INTERVAL = 1000
MAX_TEXT = 2000
"""Characters of a whole text; MAX_NESTING: parentheses and "!" in one another."""
MAX_NESTING = 20

_zone = re.compile(r"[A-Za-z][A-Za-z0-9_+\-/]*(?=\s*\|)")
_fields = re.compile(r"[^&/()!]*")
_instant = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})")
_duration = re.compile(
    r"P?(?:([0-9]{1,5})W)?(?:([0-9]{1,5})D)?T?(?:([0-9]{1,7})H)?(?:([0-9]{1,7})M)?(?:([0-9]{1,9})S)?", re.IGNORECASE
)
_by_day = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)", re.IGNORECASE)
_number = re.compile(r"[+-]?[0-9]{1,4}")


class Times(Protocol):
    """A recurrence, or several joined."""

    def matches(self, timestamp: float) -> bool:
        """Whether the instant, in seconds since 1970, is within it."""


@dataclass(frozen=True)
class Recurrence:
    """One recurrence; times are those of the clock on the wall of ``zone``, None for that of the system."""

    zone: ZoneInfo | None = None
    start: datetime | None = None
    end: datetime | None = None
    duration: timedelta | None = None
    freq: str = ""
    until: datetime | None = None
    interval: int = 1
    by_day: tuple[tuple[int, int], ...] = ()
    """(ordinal, weekday): the ordinal is 0 for each such day, the weekday counts from Monday, 0."""
    by_month_day: tuple[int, ...] = ()
    by_year_day: tuple[int, ...] = ()
    by_week: tuple[int, ...] = ()
    by_month: tuple[int, ...] = ()

    def matches(self, timestamp: float) -> bool:
        """Whether the instant, in seconds since 1970, is within it."""
        now = datetime.fromtimestamp(timestamp, self.zone).replace(tzinfo=None)
        if self.start is None:
            return self.end is None or now < self.end
        if now < self.start or (self.until is not None and now > self.until):
            return False
        length = self.duration if self.duration is not None else None if self.end is None else self.end - self.start
        if not self.freq:
            return length is None or now - self.start < length
        if not self._by_days:
            return any(self._lasts(day, length, now) for day in self._anchors(self.start, now.date()) if self._chosen(day))
        if length is not None and length > DAY:
            return self._chosen(now.date())
        return any(self._chosen(day) and self._lasts(day, length, now) for day in (now.date(), now.date() - DAY))

    @property
    def _by_days(self) -> bool:
        """Whether each day is looked at, rather than those a week, month or year apart."""
        rules = self.by_day or self.by_month_day or self.by_year_day or (self.by_week and self.freq == "YEARLY")
        return self.freq == "DAILY" or bool(rules)

    def _lasts(self, day: date, length: timedelta | None, now: datetime) -> bool:
        """Whether ``now`` is within the occurrence that begins on ``day``."""
        assert self.start is not None
        begin = datetime.combine(day, self.start.time())
        if begin < self.start or now < begin:
            return False
        if length is not None:
            return now - begin < length
        if self._by_days:
            return now.date() == day
        return self._unit(now.date()) == self._unit(day)

    def _unit(self, day: date) -> int:
        """The number of the day, week, month or year of ``day``, by ``freq``."""
        if self.freq == "DAILY":
            return day.toordinal()
        if self.freq == "WEEKLY":
            return (day.toordinal() - 1) // 7
        return day.year * 12 + day.month - 1 if self.freq == "MONTHLY" else day.year

    def _anchors(self, start: datetime, today: date) -> Iterator[date]:
        """The days, from the latest back, on which an occurrence that is under way today may have begun."""
        if self.freq == "WEEKLY":
            last = today - timedelta(days=(today.weekday() - start.weekday()) % 7)
            for weeks in range(self.interval + 1):
                yield last - timedelta(days=7 * weeks)
            return
        months = self.freq == "MONTHLY" or bool(self.by_month)
        step, count = (1, 12 * self.interval + 24) if months else (12, self.interval + 9)
        number = today.year * 12 + today.month - 1 if months else today.year * 12 + start.month - 1
        for back in range(count):
            year, month = divmod(number - back * step, 12)
            if year < start.year:
                return
            try:
                yield date(year, month + 1, start.day)
            except ValueError:
                continue  # there is no such day in that month

    def _chosen(self, day: date) -> bool:
        """Whether ``interval`` and the ``by`` rules allow ``day``."""
        assert self.start is not None
        if (self._unit(day) - self._unit(self.start.date())) % self.interval:
            return False
        if self.by_month and day.month not in self.by_month:
            return False
        if self.by_month_day and not _is_one(day.day, _days_of_month(day), self.by_month_day):
            return False
        days_of_year = date(day.year, 12, 31).timetuple().tm_yday
        if self.by_year_day and not _is_one(day.timetuple().tm_yday, days_of_year, self.by_year_day):
            return False
        if self.by_week and self.freq == "YEARLY":
            year, week, _ = day.isocalendar()
            if not _is_one(week, date(year, 12, 28).isocalendar()[1], self.by_week):
                return False
            if not (self.by_day or self.by_month_day or self.by_year_day) and day.weekday() != self.start.weekday():
                return False
        return not self.by_day or any(self._is_weekday(day, *rule) for rule in self.by_day)

    def _is_weekday(self, day: date, ordinal: int, weekday: int) -> bool:
        """Whether ``day`` is such a weekday; its ordinal is that in the month or year, and means nothing by day or week."""
        if day.weekday() != weekday:
            return False
        if not ordinal or self.freq in ("DAILY", "WEEKLY"):
            return True
        if self.freq == "MONTHLY" or self.by_month:
            place, count = day.day, _days_of_month(day)
        else:
            place, count = day.timetuple().tm_yday, date(day.year, 12, 31).timetuple().tm_yday
        return (place - 1) // 7 + 1 == ordinal if ordinal > 0 else (count - place) // 7 + 1 == -ordinal


def _days_of_month(day: date) -> int:
    return (date(day.year + day.month // 12, day.month % 12 + 1, 1) - date(day.year, day.month, 1)).days


def _is_one(value: int, count: int, wanted: tuple[int, ...]) -> bool:
    """Whether ``value`` of 1 to ``count`` is wanted; below zero they count from the end."""
    return value in wanted or value - count - 1 in wanted


@dataclass(frozen=True)
class Not:
    """All times that are not within another one."""

    times: Times

    def matches(self, timestamp: float) -> bool:
        """Whether the instant is not within it."""
        return not self.times.matches(timestamp)


@dataclass(frozen=True)
class Joined:
    """Times within all of several, or within any of them."""

    all_of: bool
    parts: tuple[Times, ...]

    def matches(self, timestamp: float) -> bool:
        """Whether the instant is within all, or any."""
        found = (part.matches(timestamp) for part in self.parts)
        return all(found) if self.all_of else any(found)


# ---- reading ----


def parse(text: str) -> Times:
    """Read one recurrence, or several joined; ``ValueError`` says what is wrong."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"a time recurrence of more than {MAX_TEXT} characters")
    times, at = _joined(text, 0, 0)
    if at < len(text):
        raise ValueError(f"bad time recurrence {text!r}: {text[at:]!r} is left over")
    return times


def _joined(text: str, at: int, depth: int) -> tuple[Times, int]:
    first, at = _term(text, at, depth)
    parts = [first]
    operator = text[at : at + 1]
    while operator in ("&", "/") and text[at : at + 1] == operator:
        part, at = _term(text, at + 1, depth)
        parts.append(part)
    if text[at : at + 1] in ("&", "/"):
        raise ValueError(f"bad time recurrence {text!r}: & and / are mixed without parentheses")
    return (first if len(parts) == 1 else Joined(operator == "&", tuple(parts))), at


def _term(text: str, at: int, depth: int) -> tuple[Times, int]:
    at = _skip(text, at)
    if depth > MAX_NESTING:
        raise ValueError(f"bad time recurrence {text!r}: too deep")
    if text[at : at + 1] == "!":
        times, at = _term(text, at + 1, depth + 1)
        return Not(times), at
    if text[at : at + 1] == "(":
        times, at = _joined(text, at + 1, depth + 1)
        if text[at : at + 1] != ")":
            raise ValueError(f"bad time recurrence {text!r}: a ) is missing")
        return times, _skip(text, at + 1)
    zone = _zone.match(text, at)
    name = ""
    if zone is not None:
        name = zone[0]
        at = text.index("|", zone.end()) + 1
    fields = _fields.match(text, at)
    assert fields is not None
    return _recurrence(name, fields[0]), fields.end()


def _skip(text: str, at: int) -> int:
    while text[at : at + 1].isspace():
        at += 1
    return at


def _recurrence(zone: str, text: str) -> Recurrence:
    """Read one recurrence, whose time zone has been cut off."""
    fields = [field.strip() for field in text.split("|")]
    if not zone and fields == [""]:
        raise ValueError("an empty time recurrence")
    if any(fields[11:]):
        raise ValueError(f"bad time recurrence {text!r}: there are 11 fields behind the time zone")
    fields += [""] * (11 - len(fields))
    start, end = _read_instant(fields[0]), _read_instant(fields[1])
    freq = fields[3].upper()
    if freq and freq not in FREQUENCIES:
        raise ValueError(f"unknown freq {fields[3]!r}: write {', '.join(FREQUENCIES)}")
    if start is None and (freq or fields[2]):
        raise ValueError(f"bad time recurrence {text!r}: it needs a dtstart")
    if start is not None and end is not None and end < start:
        raise ValueError(f"bad time recurrence {text!r}: it ends before it begins")
    (interval,) = _numbers(fields[5] or "1", 1, MAX_INTERVAL, "interval", signed=False) or (1,)
    return Recurrence(
        zone=_read_zone(zone),
        start=start,
        end=end,
        duration=_read_duration(fields[2]),
        freq=freq,
        until=_read_instant(fields[4]),
        interval=interval,
        by_day=_read_days(fields[6]),
        by_month_day=_numbers(fields[7], 1, 31, "bymday"),
        by_year_day=_numbers(fields[8], 1, 366, "byyday"),
        by_week=_numbers(fields[9], 1, 53, "byweekno"),
        by_month=_numbers(fields[10], 1, 12, "bymonth", signed=False),
    )


def _read_zone(name: str) -> ZoneInfo | None:
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None


def _read_instant(text: str) -> datetime | None:
    if not text:
        return None
    match = _instant.fullmatch(text)
    if match is None:
        raise ValueError(f"bad time {text!r}: write it as 20210131T235959")
    try:
        return datetime(*map(int, match.groups()))  # type: ignore[arg-type]
    except ValueError:
        raise ValueError(f"there is no time {text!r}") from None


def _read_duration(text: str) -> timedelta | None:
    if not text:
        return None
    match = _duration.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ValueError(f"bad duration {text!r}: write it as P1DT2H30M")
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


def _read_days(text: str) -> tuple[tuple[int, int], ...]:
    days = []
    for item in text.split(",") if text else ():
        if item.strip():
            match = _by_day.fullmatch(item.strip())
            ordinal = 0 if match is None or match[1] is None else int(match[1])
            if match is None or abs(ordinal) > 53:
                raise ValueError(f"bad byday {text!r}: write MO,TU or -1FR")
            days.append((ordinal, WEEKDAYS.index(match[2].upper())))
    return tuple(days)


def _numbers(text: str, least: int, most: int, name: str, *, signed: bool = True) -> tuple[int, ...]:
    found = []
    for item in text.split(",") if text else ():
        match = _number.fullmatch(item.strip())
        value = 0 if match is None else int(match[0])
        if not least <= (abs(value) if signed else value) <= most:
            raise ValueError(f"bad {name} {text!r}: write {least} to {most}")
        found.append(value)
    return tuple(found)
