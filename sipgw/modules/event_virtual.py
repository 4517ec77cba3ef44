"""event_virtual: several subscribers as one, ``virtual:POLICY socket socket ...``.

PARALLEL tells all of them of each event, ROUND-ROBIN each in its turn, FAILOVER the first that can be told: one that could not is
passed over for ``failover_timeout`` seconds. The sockets are those of any other transport; one that is none is refused when the
virtual one is subscribed (OpenSIPS finds out at the first event)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.events import Params, Sink
from sipgw.exports import Module, param

POLICIES = ("PARALLEL", "FAILOVER", "ROUND-ROBIN")
MOST = 32
"""How many sockets one virtual socket may have."""


def _not_negative(value: int) -> None:
    if value < 0:
        raise ValueError("write 0 or more")


class EventVirtual(Module):
    """Tells several subscribers of events as if they were one."""

    failover_timeout: int = param(30, "Seconds for which one that could not be told is passed over", check=_not_negative)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        if server is not None:
            server.user.events.add_transport("virtual", self)

    async def open(self, address: str) -> Sink:
        """The sink of ``POLICY socket socket ...``."""
        policy, *sockets = address.split()[: MOST + 2] or [""]
        if policy not in POLICIES:
            raise ValueError(f"write virtual:POLICY sockets, with one of {', '.join(POLICIES)}")
        if not 0 < len(sockets) <= MOST:
            raise ValueError(f"write 1 to {MOST} sockets after {policy}")
        if any(socket.startswith("virtual:") for socket in sockets):
            raise ValueError("a virtual socket cannot be part of another one")
        return VirtualSink(self, policy, [await self.server.user.events.open(socket) for socket in sockets])


class VirtualSink:
    """Several sinks, told by one policy."""

    def __init__(self, module: EventVirtual, policy: str, sinks: list[Sink]) -> None:
        self._module = module
        self.policy = policy
        self.sinks = sinks
        self._next = 0
        self._passed_over = [0.0] * len(sinks)
        """Until when each is passed over."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VirtualSink) and (self.policy, self.sinks) == (other.policy, other.sinks)

    __hash__ = None  # type: ignore[assignment]

    def send(self, event: str, params: Params) -> bool | Deferred[bool]:
        """Tell those whose turn it is."""
        if self.policy == "PARALLEL":
            told = [sink.send(event, params) for sink in self.sinks]
            return any(told)  # a Deferred counts as told
        if self.policy == "ROUND-ROBIN":
            sink = self.sinks[self._next]
            self._next = (self._next + 1) % len(self.sinks)
            return sink.send(event, params)
        now = self._module.server.user.clock()
        return self._try(iter([n for n, until in enumerate(self._passed_over) if until <= now]), event, params)

    def _try(self, places: Iterator[int], event: str, params: Params) -> bool | Deferred[bool]:
        """Tell the first of ``places`` that can be told."""
        for place in places:
            told = self.sinks[place].send(event, params)
            if isinstance(told, Deferred):
                return told.addCallback(self._tried, place, places, event, params)
            if told:
                return True
            self._failed(place)
        user = self._module.server.user
        user.log_rarely(("event_virtual", event), 1, f"{event} is told to nobody: no socket of its virtual one can be told")
        return False

    def _tried(
        self, told: bool, place: int, places: Iterator[int], event: str, params: Params
    ) -> bool | Deferred[bool]:
        if told:
            return True
        self._failed(place)
        return self._try(places, event, params)

    def _failed(self, place: int) -> None:
        module = self._module
        self._passed_over[place] = module.server.user.clock() + module.failover_timeout
