"""The module statistics: counters and series of the script's own, and all others by name.

``update_stat("calls", 1)`` makes a counter where there is none, in the group ``dynamic`` or, as ``method:invite``, in one of
those that ``stat_groups`` names. Names may come from messages: there is a bound to how many are made (hardening P27)."""

from __future__ import annotations

from typing import Any

from sipgw.core.series import Profile, Series
from sipgw.exports import BRANCH, EVENT, FAILURE, LOCAL, ONREPLY, REQUEST, STARTUP, TIMER, Module, Writable, function, param, pvar
from sipgw.interfaces import Server
from sipgw.script.run import Run
from sipgw.statistics import Counter, Gauge, Statistic

EVERYWHERE = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL | STARTUP | TIMER | EVENT
DYNAMIC = "dynamic"
"""The group of the counters that scripts make without naming one."""
DECLARED = "script"
"""The group of those that ``variable`` declares."""
MAX_MADE = 10_000
"""How many statistics one script may make."""
_ITERATORS = "statistics.iterators"


class KeptCounter(Counter):
    """A counter that cannot be reset."""

    __slots__ = ()

    def reset(self) -> None:
        """Do nothing."""


def check_variable(text: str) -> None:
    """Refuse what is no ``name`` or ``name/no_reset``."""
    name, slash, flag = text.partition("/")
    if not name.strip() or (slash and flag.strip() != "no_reset"):
        raise ValueError(f"bad statistic {text!r}: write its name, or name/no_reset")


def check_groups(text: str) -> None:
    """Refuse what is no list of names."""
    for name in text.split(","):
        if not name.strip() or ":" in name:
            raise ValueError(f"bad list of groups {text!r}: write names with commas between")


class StatisticsModule(Module):
    """Statistics that the script defines and uses."""

    variable: str = param(
        "", "A counter to make at the start; /no_reset behind it: one that is never reset", check=check_variable, each="_declare"
    )
    stat_groups: str = param(
        "", "The groups that names may begin with, with commas between", check=check_groups, each="_add_groups"
    )
    stat_series_profile: str = param(
        "", "A kind of series: name: algorithm=average window=60 slots=60 group=name", check=Profile.parse, each="_add_profile"
    )

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        self._declared: list[str] = []
        self._groups: set[str] = set()
        self._profiles: dict[str, Profile] = {}
        self._series: dict[tuple[str, str], Series] = {}
        self._made = 0
        super().__init__(server, **parameters)

    def _declare(self, text: str) -> None:
        self._declared.append(text)

    def _add_groups(self, text: str) -> None:
        self._groups.update(name.strip() for name in text.split(","))

    def _add_profile(self, text: str) -> None:
        profile = Profile.parse(text)
        self._profiles[profile.name] = profile

    async def start(self) -> None:
        """Make the counters that are declared."""
        for text in self._declared:
            name, _, flag = text.partition("/")
            group, bare = self._split(name.strip(), DECLARED)
            if not self._knows(group):
                raise ValueError(f"statistics: {name} needs {group} among the stat_groups")
            self.server.statistics.add((KeptCounter if flag else Counter)(group, bare))

    # -- names

    def _split(self, name: str, group: str = DYNAMIC) -> tuple[str, str]:
        """The group and the bare name; ``group`` where none is written."""
        written, colon, bare = name.partition(":")
        return (written, bare) if colon else (group, name)

    def _knows(self, group: str) -> bool:
        return group in self._groups or group in (DYNAMIC, DECLARED)

    def _find(self, run: Run, name: str, make: bool) -> Statistic | None:
        """The statistic of that name, made now if need be and ``make``; None, with an error logged, if it cannot be."""
        found = self.server.statistics.find(name)
        if found is not None:
            return found
        group, bare = self._split(name)
        if not self._knows(group) and not self.server.statistics.group(group):
            run.user.log_rarely(("stat", group), -1, f"statistic {name}: the stat_groups have no {group!r}")
            return None
        if not make or not self._may_make(run, name):
            return None
        if not bare or not self._knows(group):
            run.user.log_rarely(("stat", group), -1, f"statistic {name}: there is none, and none can be made in {group!r}")
            return None
        return self.server.statistics.counter(group, bare)

    def _may_make(self, run: Run, name: str) -> bool:
        if self._made >= MAX_MADE:
            run.user.log_rarely("stat", -1, f"statistic {name!r} is not made: the script has made {MAX_MADE}")
            return False
        self._made += 1
        return True

    # -- counters

    @function(EVERYWHERE)
    def update_stat(self, run: Run, variable: str, value: int) -> bool:
        """Add ``value``, which may be below zero, to a statistic; one that is computed stays as it is."""
        found = self._find(run, variable, True)
        if isinstance(found, Counter):
            found.value += value
        return found is not None

    @function(EVERYWHERE)
    def reset_stat(self, run: Run, variable: str) -> bool:
        """Set a statistic to zero."""
        found = self._find(run, variable, True)
        if found is not None:
            found.reset()
        return found is not None

    @pvar("stat", named=True, set="set_stat")
    def stat(self, run: Run, name: str) -> int | None:
        """``$stat(name)`` or ``$stat(group:name)``: a statistic; null if there is none."""
        found = self._find(run, name, False)
        return None if found is None else found.read()

    def set_stat(self, run: Run, name: str, value: int | str | None) -> bool:
        """``$stat(name) = 0``: set it to zero; there is no other value to give it."""
        if not isinstance(value, int):
            run.user.log(-1, f"$stat({name}) can only be set to 0")
            return False
        if value:
            run.user.log(1, f"$stat({name}) = {value}: it is set to 0, as only that can be")
        return self.reset_stat(run, name)

    # -- going through a group

    @function(EVERYWHERE)
    def stat_iter_init(self, run: Run, group: str, iter: str) -> bool:
        """Begin to go through the statistics of ``group``; false if there is no such group."""
        if not self._knows(group) and not self.server.statistics.group(group):
            run.user.log(-1, f"stat_iter_init: there is no group {group!r}")
            return False
        run.keep().setdefault(_ITERATORS, {})[iter] = self.server.statistics.group(group)[::-1]
        return True

    @function(EVERYWHERE)
    def stat_iter_next(self, run: Run, name: Writable, val: Writable, iter: str) -> bool:
        """Give the next one's name and value; false after the last, or without ``stat_iter_init``."""
        left: list[Statistic] = run.keep().get(_ITERATORS, {}).get(iter) or []
        if not left:
            return False
        statistic = left.pop()
        name.set(run, statistic.name)
        val.set(run, statistic.read())
        return True

    # -- series

    @function()
    def update_stat_series(self, run: Run, profile: str, variable: str, value: int) -> bool:
        """Feed ``value`` to a series of that profile; it is read as a statistic of the profile's group."""
        found = self._profiles.get(profile)
        if found is None:
            run.user.log_rarely(("series", profile), -1, f"update_stat_series: there is no stat_series_profile {profile!r}")
            return False
        series = self._series.get((profile, variable))
        if series is None:
            if self.server.statistics.find(f"{found.group}:{variable}") is not None or not variable:
                run.user.log_rarely(("series", variable), -1, f"update_stat_series: {found.group}:{variable} is no series")
                return False
            if not self._may_make(run, variable):
                return False
            series = self._series[profile, variable] = self._begin(found, variable)
        series.feed(value, run.user.clock())
        return True

    def _begin(self, profile: Profile, variable: str) -> Series:
        series = Series(profile)
        clock = self.server.user.clock
        self.server.statistics.add(Gauge(profile.group, variable, lambda: series.read(clock())))
        return series
