"""What the tracer sees of back-to-back calls: all legs of a session, from the INVITE that ``trace("id", "b")`` was called for.

``b2b_entities`` asks at three places (``_b2b_port.Onlooker``): when a session begins, when a request comes by one of its legs,
and when we send one. Responses are found by the transaction that they belong to, as all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from sipgw.b2bua.legs import Leg, Role
from sipgw.script.run import WATCHER, Run, Watcher

Trails = Callable[[list[Any], str], Watcher]
"""Makes what sees the messages of one leg: of the wishes, and the letter of the leg."""


class TracedSessions:
    """The sessions that are traced, each with who wants to see it. ``wishes``: of a run, those that want its session."""

    def __init__(
        self, wishes: Callable[[Run], list[Any] | None], trails: Trails, show: Callable[[Run, Watcher], None]
    ) -> None:
        self._wishes = wishes
        self._trails = trails
        self._show = show
        self._sessions: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()

    def begun(self, run: Run, session: Any) -> None:
        """A session begins with the request of ``run``."""
        wishes = self._wishes(run)
        if wishes is not None:
            self._sessions[session] = wishes

    def trail(self, session: Any, leg: Leg) -> Watcher | None:
        """Who sees what goes out by ``leg``."""
        wishes = self._sessions.get(session)
        return None if wishes is None else self._trails(wishes, "C" if leg.role is Role.SERVER else "c")

    def came(self, run: Run, session: Any, leg: Leg, context: Any) -> None:
        """A request has come by ``leg``; ``context``: its transaction, if it has one."""
        trail = self.trail(session, leg)
        if trail is None:
            return
        run.keep()[WATCHER] = trail
        if context is not None:
            context.watch(trail)
        self._show(run, trail)
