"""Profiles of dialogs that the servers of a cluster count together, each its own calls: OpenSIPS's flag ``/b``.

Each server tells the others how many calls it has in each profile, by value, when that has changed, and at least three times
before it would be forgotten. A size is one's own count and what the others have told in the last seconds: nobody is asked for it,
so a Redis that is away holds up no call. The calls of a server that is gone are counted for ``expire`` seconds more.

Keys: ``profiles:NODE``, which say what a server has told last to those who begin later."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from sipgw.redis.errors import RedisFault

__all__ = ["ProfileCounts"]

Counts = Mapping[str, Mapping[str, int]]

PATIENCE: Final = 2.0
"""Seconds that one command may take."""

TELL: Final = """
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
redis.call('PUBLISH', KEYS[2], ARGV[2])
return 1
"""


class Meeting(Protocol):
    """The cluster (``redis.members.Members``)."""

    redis: Any
    me: int
    seen: dict[int, float]

    def key(self, what: str) -> str:
        """A key of this cluster."""


class ProfileCounts:
    """What the servers of ``meeting`` count; ``own()``: the counts of this one by profile and value.

    ``every``: seconds between two tellings at least; ``expire``: seconds for which what others have told counts."""

    def __init__(self, user: Any, meeting: Meeting, own: Callable[[], Counts], every: float, expire: float) -> None:
        self._user = user
        self._meeting = meeting
        self._own = own
        self._every = every
        self._expire = expire
        self._others: dict[int, tuple[float, Counts]] = {}
        self._told: str | None = None
        self._told_at = 0.0
        self._busy = False
        self._timer: Any = None
        self._stop: Callable[[], None] | None = None

    def others(self, name: str, value: str | None) -> int:
        """How many calls the others have in a profile, or in it with ``value``."""
        count = 0
        oldest = self._user.clock() - self._expire
        for told_at, counts in self._others.values():
            if told_at > oldest:
                values = counts.get(name, {})
                count += sum(values.values()) if value is None else values.get(value, 0)
        return count

    def values(self, name: str) -> dict[str, int]:
        """What the others have in a profile, by value."""
        found: dict[str, int] = {}
        oldest = self._user.clock() - self._expire
        for told_at, counts in self._others.values():
            if told_at > oldest:
                for value, count in counts.get(name, {}).items():
                    found[value] = found.get(value, 0) + count
        return found

    async def start(self) -> None:
        """Hear what the others count, and tell them."""
        self._stop = self._meeting.redis.subscribe(self._meeting.key("profiles"), self._heard, self._resumed)
        self._later()

    def stop(self) -> None:
        """Tell no more; the others forget."""
        if self._timer is not None:
            self._timer.cancel()
        if self._stop is not None:
            self._stop()

    def _later(self) -> None:
        self._timer = self._user.after(self._every, self._due)

    def _due(self, now: float) -> None:
        text = json.dumps({"from": self._meeting.me, "counts": self._own()}, separators=(",", ":"))
        if not self._busy and (text != self._told or now - self._told_at > self._expire / 3):
            self._busy = True
            self._user.launch(self._tell(text, now))
        self._later()

    async def _tell(self, text: str, now: float) -> None:
        keys = [self._meeting.key(f"profiles:{self._meeting.me}"), self._meeting.key("profiles")]
        try:
            await self._meeting.redis.script(TELL, keys, [int(self._expire * 1000), text], again=True, limit=PATIENCE)
        except RedisFault as error:
            self._user.log_rarely("profile counts", -1, f"dialog: the others are not told what profiles count: {error}")
        else:
            self._told, self._told_at = text, now
        finally:
            self._busy = False

    def _heard(self, text: str) -> None:
        try:
            said = json.loads(text)
            node = int(said["from"])
            counts = {str(name): {str(v): int(n) for v, n in values.items()} for name, values in said["counts"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        if node != self._meeting.me:
            self._others[node] = (self._user.clock(), counts)

    def _resumed(self) -> None:
        self._user.launch(self._read())

    async def _read(self) -> None:
        keys = [self._meeting.key(f"profiles:{node}") for node in self._meeting.seen if node != self._meeting.me]
        if not keys:
            return
        try:
            for text in await self._meeting.redis.command("MGET", *keys, again=True, limit=PATIENCE):
                if text is not None:
                    self._heard(str(text))
        except RedisFault:
            pass  # they tell it again
