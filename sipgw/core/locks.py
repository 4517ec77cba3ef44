"""Locks of the script: between two waits a run is alone anyway, so a lock matters only to runs that wait while they hold it.

Each key has a lock of its own, which is there only while somebody holds it; those who want it get it in the order they came.
Whoever holds it may end without giving it back, as in OpenSIPS, and another run may give it back then; but nobody waits for ever
(``PATIENCE``), and a run does not wait for itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

PATIENCE = 30.0
"""Seconds that a run waits for a lock."""


class Locks:
    """Locks by key; ``later(seconds, call)`` calls ``call`` in a while and gives something with ``cancel()``."""

    def __init__(self, later: Callable[[float, Callable[[], Any]], Any]) -> None:
        self._later = later
        self._holders: dict[str, object] = {}
        self._waiting: dict[str, deque[tuple[object, Deferred[bool]]]] = {}

    async def acquire(self, key: str, holder: object) -> bool:
        """Hold the lock of ``key``; False if ``holder`` holds it already, or nobody gave it back in time."""
        if key not in self._holders:
            self._holders[key] = holder
            return True
        if self._holders[key] is holder:
            return False
        fired: Deferred[bool] = Deferred()
        entry = (holder, fired)
        self._waiting.setdefault(key, deque()).append(entry)

        def too_late() -> None:
            queue = self._waiting[key]
            queue.remove(entry)
            if not queue:
                del self._waiting[key]
            fired.callback(False)

        timer = self._later(PATIENCE, too_late)
        got = await fired
        if got:
            timer.cancel()
        return got

    def release(self, key: str) -> None:
        """Give the lock of ``key`` to the next who waits for it; nothing happens if nobody holds it."""
        queue = self._waiting.get(key)
        if not queue:
            self._holders.pop(key, None)
            return
        holder, fired = queue.popleft()
        if not queue:
            del self._waiting[key]
        self._holders[key] = holder
        fired.callback(True)
