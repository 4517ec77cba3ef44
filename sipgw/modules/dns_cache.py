"""dns_cache: answers of name servers that several machines share, in a store such as a Redis.

sipgw keeps answers in its own memory with or without this module; it asks the store when it does not know one, and the name
servers only then. The store is never waited for longer than ``PATIENCE``, and without it all is as without the module.

COMPAT: the bounds of the resolver hold here too, so an answer comes from the store again after an hour at most, "there is no
such name" after five minutes. A question that no name server has answered is not kept; OpenSIPS keeps it for
``blacklist_timeout``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sipgw.core.cachedb import Cache, CacheError
from sipgw.exports import Module, param
from sipgw.sip.target import Naptr, Question, Record, Srv

PATIENCE = 1.0
"""Seconds that the store may take to say something."""
UNSAID = 60
"""Seconds for which an answer is kept that does not say for how long it holds."""


class DnsCache(Module):
    """Shares answers of name servers with other machines."""

    cachedb_url: str = param("", "The store: a URL of a loaded module cachedb_*, such as redis://host/")
    blacklist_timeout: int = param(3600, "Seconds for which the store knows that there is no such name")
    min_ttl: int = param(0, "Seconds for which the store keeps an answer at least")

    async def start(self) -> None:
        """Open the store, and put it between the resolver and the name servers."""
        if not self.cachedb_url:
            raise ValueError("cachedb_url is not set")
        try:
            self._cache: Cache = await self.server.user.caches.open(self.cachedb_url)
        except CacheError as error:
            raise ValueError(f"cachedb_url: {error}") from None
        resolver: Any = getattr(self.server, "resolver", None)
        if resolver is not None:
            resolver.shared = self

    async def fetch(self, question: Question) -> tuple[Sequence[Record], int] | None:
        """An answer of the store, and the seconds for which it still holds."""
        user = self.server.user
        try:
            text = await user.within(PATIENCE, self._cache.fetch(_key(question)))
        except (CacheError, TimeoutError) as error:
            user.log_rarely("dns_cache", -1, f"dns_cache: {error}")
            return None
        found = None if text is None else decode(text)
        if found is None:
            return None
        left = int(found[1] - user.wall_clock())
        return (found[0], left) if left > 0 else None

    async def keep(self, question: Question, records: Sequence[Record], ttl: int | None) -> None:
        """Keep an answer in the store."""
        user = self.server.user
        seconds = max(UNSAID if ttl is None else ttl, self.min_ttl, 1) if records else self.blacklist_timeout
        if seconds <= 0:
            return
        text = encode(records, user.wall_clock() + seconds)
        try:
            await user.within(PATIENCE, self._cache.store(_key(question), text, seconds))
        except (CacheError, TimeoutError) as error:
            user.log_rarely("dns_cache", -1, f"dns_cache: {error}")


def _key(question: Question) -> str:
    return f"dns:{question.kind}:{question.name.lower()}"


def encode(records: Sequence[Record], until: float) -> str:
    """An answer as it is kept: when it ends (seconds since 1970), and its records."""
    return json.dumps([int(until), records])


def decode(text: str) -> tuple[list[Record], int] | None:
    """The records and the end of a kept answer; None if it is none."""
    try:
        until, records = json.loads(text)
        found = [_record(*each) for each in records]
    except (ValueError, TypeError):
        return None
    return (found, until) if isinstance(until, int) else None


def _record(name: str, kind: str, data: Any) -> Record:
    if kind == "SRV":
        priority, weight, port, target = data
        data = Srv(int(priority), int(weight), int(port), str(target))
    elif kind == "NAPTR":
        order, preference, flags, service, replacement = data
        data = Naptr(int(order), int(preference), str(flags), str(service), str(replacement))
    elif not isinstance(data, str):
        raise ValueError("no data of a record")
    return Record(str(name), str(kind), data)
