"""Statistics: plain integers that a message's path increments, read and formatted only when somebody asks.

Groups and names are OpenSIPS's (``core:rcv_requests``, ``tm:inuse_transactions``). A ``Counter`` is one attribute to increment;
a ``Gauge`` is computed when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class Counter:
    """A number that only grows, until it is reset; increment ``value`` directly on hot paths."""

    __slots__ = ("group", "name", "value")

    def __init__(self, group: str, name: str) -> None:
        self.group = group
        self.name = name
        self.value = 0

    def inc(self, by: int = 1) -> None:
        """Add ``by``."""
        self.value += by

    def read(self) -> int:
        """The number now."""
        return self.value

    def reset(self) -> None:
        """Start again at zero."""
        self.value = 0


class Gauge:
    """A number that is computed when it is read; a reset has no meaning for it and is refused as in OpenSIPS (no effect)."""

    __slots__ = ("_read", "group", "name")

    def __init__(self, group: str, name: str, read: Callable[[], int]) -> None:
        self.group = group
        self.name = name
        self._read = read

    def read(self) -> int:
        """The number now."""
        return self._read()

    def reset(self) -> None:
        """Do nothing: what is computed cannot be reset."""


Statistic = Counter | Gauge


class Statistics:
    """All statistics of one server, by group and name."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Statistic]] = {}

    def add(self, statistic: Statistic) -> None:
        """Register ``statistic``; a name taken in its group is our own mistake (``ValueError``)."""
        group = self._groups.setdefault(statistic.group, {})
        if statistic.name in group:
            raise ValueError(f"statistic {statistic.group}:{statistic.name} is registered twice")
        group[statistic.name] = statistic

    def counter(self, group: str, name: str) -> Counter:
        """Register and return a new counter."""
        counter = Counter(group, name)
        self.add(counter)
        return counter

    def gauge(self, group: str, name: str, read: Callable[[], int]) -> Gauge:
        """Register and return a new gauge."""
        gauge = Gauge(group, name, read)
        self.add(gauge)
        return gauge

    def group(self, name: str) -> list[Statistic]:
        """The statistics of one group; empty when there is no such group."""
        return list(self._groups.get(name, {}).values())

    def find(self, name: str) -> Statistic | None:
        """One statistic, by ``group:name`` or by its bare name (the first group that has it)."""
        group, colon, bare = name.partition(":")
        if colon:
            return self._groups.get(group, {}).get(bare)
        for members in self._groups.values():
            if name in members:
                return members[name]
        return None

    def __iter__(self) -> Iterator[Statistic]:
        for members in self._groups.values():
            yield from members.values()
