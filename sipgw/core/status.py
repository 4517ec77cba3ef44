"""Status and reports (OpenSIPS's "status/report"): which parts of the server are ready, and what they have been through.

A *group* (the core, a module) has *identifiers*, at least ``main``. An identifier has a status, positive when it is ready and
negative when it is not, a text that explains it, and its last reports. Who asks for readiness (``sr_check_status``,
``status_report:get``) asks for one identifier, or for all of a group together. A status that changes raises
``E_CORE_SR_STATUS_CHANGED``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from sipgw.core.events import EventBus

MAIN = "main"
"""The identifier that is meant where none is named."""
ALL = "all"
"""All identifiers of a group together."""
REPORTS = 200
"""How many reports an identifier keeps, the last ones."""
CHANGED = "E_CORE_SR_STATUS_CHANGED"

NONE, TERMINATING, INITIALIZING, RUNNING = -100, -2, -1, 1
"""What the core says of itself, in OpenSIPS's numbers."""


class Report(NamedTuple):
    """One thing that happened, at a time in seconds since 1970."""

    time: float
    text: str


class Identifier:
    """One part of the server."""

    __slots__ = ("_bus", "_wall_clock", "details", "group", "name", "reports", "status")

    def __init__(self, bus: EventBus, wall_clock: Callable[[], float], group: str, name: str, status: int, details: str) -> None:
        self._bus = bus
        self._wall_clock = wall_clock
        self.group = group
        self.name = name
        self.status = status
        self.details = details
        self.reports: deque[Report] = deque(maxlen=REPORTS)

    @property
    def ready(self) -> bool:
        """Whether it can do its work."""
        return self.status > 0

    def set(self, status: int, details: str = "") -> None:
        """Have a new status; COMPAT: 0 counts as 1."""
        status = status or 1
        old, self.status, self.details = self.status, status, details
        if status == old:
            return
        event = self._bus.find(CHANGED)
        if event is not None and event.heard:
            told: dict[str, int | str | None] = {"group": self.group, "identifier": self.name, "status": status}
            if details:
                told["details"] = details
            self._bus.tell(event, {**told, "old_status": old})

    def report(self, text: str) -> None:
        """Keep a report."""
        self.reports.append(Report(self._wall_clock(), text))


class Group:
    """The identifiers of one part. ``public``: scripts may set their status and add reports."""

    def __init__(self, bus: EventBus, wall_clock: Callable[[], float], name: str, public: bool) -> None:
        self._bus = bus
        self._wall_clock = wall_clock
        self.name = name
        self.public = public
        self._identifiers: dict[str, Identifier] = {}

    def identifier(self, name: str = MAIN, status: int = RUNNING, details: str = "") -> Identifier:
        """The identifier of that name, made now with ``status`` if it is new."""
        found = self._identifiers.get(name)
        if found is None:
            found = self._identifiers[name] = Identifier(self._bus, self._wall_clock, self.name, name, status or 1, details)
        return found

    def find(self, name: str = MAIN) -> Identifier | None:
        """The identifier of that name, if there is one."""
        return self._identifiers.get(name)

    def remove(self, name: str) -> None:
        """Forget an identifier, such as that of a partition that is gone."""
        self._identifiers.pop(name, None)

    def all(self) -> list[Identifier]:
        """All identifiers, the newest first, as OpenSIPS lists them."""
        return [*self._identifiers.values()][::-1]

    def status(self, name: str = MAIN) -> int | None:
        """The status of an identifier, or of ``all``: 1 if each is ready, else -1; None if there is none of that name."""
        if name == ALL:
            return RUNNING if all(each.ready for each in self._identifiers.values()) else INITIALIZING
        found = self._identifiers.get(name)
        return None if found is None else found.status


class StatusReports:
    """All groups of one server; ``core`` is the first."""

    def __init__(self, bus: EventBus, wall_clock: Callable[[], float]) -> None:
        self._bus = bus
        self._wall_clock = wall_clock
        self._groups: dict[str, Group] = {}
        self.core = self.group("core").identifier(status=NONE)

    def group(self, name: str, public: bool = False) -> Group:
        """The group of that name, made now if it is new; ``ValueError`` if it is a script's and another's at once."""
        found = self._groups.get(name)
        if found is None:
            found = self._groups[name] = Group(self._bus, self._wall_clock, name, public)
        elif found.public != public:
            raise ValueError(f"there is a status group {name!r} already")
        return found

    def find(self, name: str) -> Group | None:
        """The group of that name, if there is one."""
        return self._groups.get(name)

    def all(self) -> list[Group]:
        """All groups, the newest first, as OpenSIPS lists them."""
        return [*self._groups.values()][::-1]

    # -- what becomes of the server

    def initializing(self) -> None:
        """The server begins."""
        self.core.set(INITIALIZING, "initializing")
        self.core.report("initializing")

    def running(self) -> None:
        """The server does its work."""
        self.core.set(RUNNING, "running")
        self.core.report("initialization completed, ready now")

    def terminating(self) -> None:
        """The server ends."""
        self.core.set(TERMINATING, "shutting down")
        self.core.report("shutting down")
