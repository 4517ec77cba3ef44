"""Profiles of dialogs that several machines count together, in a key-value store such as Redis.

Each machine adds what enters and takes off what leaves; nobody waits for that: what changes while the store is asked, or away,
is added up by key and told later. A size is asked of the store. The keys are OpenSIPS's, so both can count together: a prefix
and the name; for a value its prefix, the name, ``_`` and the value in base64."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.cachedb import Cache, CacheError

RETRY = 1.0
"""Seconds after which a store that failed is asked again."""


class SharedProfiles:
    """The counters of one store; ``seconds``: how long they live after the last change."""

    def __init__(self, user: Any, cache: Cache, value_prefix: str, plain_prefix: str, size_prefix: str, seconds: int) -> None:
        self._user = user
        self._cache = cache
        self.store = getattr(cache, "redis", None)
        """The Redis that it is, if it is one."""
        self._prefixes = value_prefix, plain_prefix, size_prefix
        self._seconds = seconds
        self._pending: dict[str, int] = {}
        self._busy = False
        self._anew = False

    def forgotten(self, own: Callable[[], Iterable[tuple[str, str | None]]], at: float) -> None:
        """The store has lost all counters: at ``at`` (monotonic seconds) count anew what is in a profile and is ours (``own()``).

        All servers that share the counters do that at the same moment; what changes before is part of what they count then."""
        self._pending.clear()
        if self._anew:
            return
        self._anew = True

        def count(_now: float) -> None:
            self._anew = False
            for name, value in own():
                self.count(name, value, 1)

        self._user.after(max(0.0, at - self._user.clock()), count)

    def keys(self, name: str, value: str | None) -> tuple[str, ...]:
        """The counters of a call that is in a profile with ``value`` (None: it has none); the first is that of the value."""
        with_value, plain, size = self._prefixes
        if value is None:
            return (f"{plain}{name}",)
        encoded = b64encode(value.encode("utf-8", "surrogateescape")).decode()
        return f"{with_value}{name}_{encoded}", f"{size}{name}"

    def count(self, name: str, value: str | None, by: int) -> None:
        """Add ``by`` to the counters."""
        if self._anew:
            return
        for key in self.keys(name, value):
            self._pending[key] = self._pending.get(key, 0) + by
        if not self._busy:
            self._busy = True
            self._user.launch(self._tell())

    async def _tell(self) -> None:
        while self._pending:
            key = next(iter(self._pending))
            by = self._pending.pop(key)
            if not by:
                continue
            try:
                await self._cache.add(key, by, self._seconds)
            except CacheError as error:
                self._pending[key] = self._pending.get(key, 0) + by
                self._user.log_rarely("shared profiles", -1, f"dialog: shared profiles are not counted: {error}")
                await self._pause()
        self._busy = False

    async def _pause(self) -> None:
        pause: Deferred[None] = Deferred()
        self._user.after(RETRY, lambda _now: pause.callback(None))
        await pause

    async def size(self, name: str, value: str | None, has_value: bool) -> int:
        """How many calls are in a profile, or in it with ``value``; ``CacheError`` if the store cannot be asked."""
        if has_value and value is None:
            key = f"{self._prefixes[2]}{name}"
        else:
            key = self.keys(name, value if has_value else None)[0]
        return max(0, (await self._cache.counter(key) or 0) + self._pending.get(key, 0))
