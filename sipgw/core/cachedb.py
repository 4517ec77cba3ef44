"""The key-value interface (OpenSIPS's cachedb): the stores that modules bring, by the names that scripts give them.

A module such as ``cachedb_local`` or ``cachedb_redis`` registers a ``Cache`` for each of its URLs, ``scheme:group://...``; the
script names it ``scheme`` or ``scheme:group``. Whoever wants one asks ``caches`` here, which counts (``cdb_total_queries``),
measures (a store's ``exec_threshold``, ``E_CORE_THRESHOLD``), and turns what goes wrong into ``CacheError``. Values are text;
a counter is a text that is a 32-bit number."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from sipgw.script.parts import Parts
from sipgw.statistics import Statistics

T = TypeVar("T")

Row = Sequence[int | str | None]
"""One row of the answer to a raw query."""


class CacheError(Exception):
    """A store that does not exist, or did not do what it was asked to."""


class NotCounter(CacheError):
    """The value of that key is no number."""


class Unsupported(CacheError):
    """The store cannot do such a thing."""


class Cache(Protocol):
    """One store, or a part of one. Each method may wait; each raises ``CacheError`` if it cannot do its work."""

    @property
    def system(self) -> str:
        """The name of its module."""

    @property
    def threshold(self) -> int:
        """How many microseconds a query may take, 0 for any time."""

    async def store(self, key: str, value: str, seconds: int) -> None:
        """Keep ``value``, for so many seconds, 0 for good."""

    async def fetch(self, key: str) -> str | None:
        """The value, None if there is none."""

    async def remove(self, key: str) -> None:
        """Forget the value, if there is one."""

    async def add(self, key: str, number: int, seconds: int) -> int:
        """Add to a counter, which is 0 where there is none, and give its new value; it lives for ``seconds`` more if not 0."""

    async def counter(self, key: str) -> int | None:
        """The value of a counter, None if there is none."""

    async def query(self, text: str) -> Sequence[Row]:
        """The rows that a query in the store's own language gives."""


@runtime_checkable
class Dividing(Protocol):
    """A store that can tell the values in a query from its text."""

    async def query_parts(self, parts: Parts) -> Sequence[Row]:
        """The rows that a query gives; no value in it is more than a value."""


class CacheUrl(NamedTuple):
    """``scheme[:group]://address/database``."""

    scheme: str
    group: str
    address: str
    database: str


_URL = re.compile(r"([A-Za-z][A-Za-z0-9_+.-]*)(?::([A-Za-z0-9_.-]+))?:?//([^/]*)(?:/(.*))?", re.DOTALL)


def parse_url(text: str) -> CacheUrl:
    """Read the URL of a store; ``ValueError`` if it is none."""
    found = _URL.fullmatch(text.strip())
    if found is None or "://" not in text:
        raise ValueError(f"{text!r} is no URL: write scheme:group://address/database")
    scheme, group, address, database = found.groups(default="")
    return CacheUrl(scheme, group, address, database)


class Around(Protocol):
    """What is asked of the transaction user."""

    def clock(self) -> float:
        """Monotonic seconds."""

    def log_rarely(self, key: object, level: int, text: str) -> None:
        """Write a line, not too often."""

    def slow(self, source: str, microseconds: int, extra: str) -> None:
        """Tell that something took too long."""


class Caches:
    """All stores of one server."""

    def __init__(self, user: Around, statistics: Statistics) -> None:
        self._user = user
        self._caches: dict[tuple[str, str], Cache] = {}
        self._openers: dict[str, Callable[[str], Awaitable[Cache]]] = {}
        self.total = statistics.counter("cdb", "cdb_total_queries")
        self.slow = statistics.counter("cdb", "cdb_slow_queries")

    def add(self, scheme: str, group: str, cache: Cache) -> None:
        """Make a store known as ``scheme:group``, or as ``scheme`` where the group is empty; the last one of a name counts."""
        self._caches[scheme, group] = cache

    def serve(self, scheme: str, opener: Callable[[str], Awaitable[Cache]]) -> None:
        """Let ``opener(url)`` make the stores of URLs that other modules have (their ``cachedb_url``)."""
        self._openers[scheme] = opener

    async def open(self, url: str) -> Cache:
        """The store of a URL, for a module that has one of its own; ``CacheError`` if no module makes such, or it cannot be."""
        try:
            scheme = parse_url(url.partition("?")[0]).scheme
        except ValueError:
            raise CacheError("a cachedb_url is no URL: write scheme:group://address/database") from None
        opener = self._openers.get(scheme)
        if opener is None:
            raise CacheError(f'no module is loaded for a cachedb_url of {scheme}: loadmodule "cachedb_{scheme}.so"')
        return await opener(url)

    def find(self, storage: str) -> Cache:
        """The store that a script calls ``scheme`` or ``scheme:group``."""
        scheme, _, group = storage.partition(":")
        found = self._caches.get((scheme, group))
        if found is None:
            if not any(known == scheme for known, _ in self._caches):
                raise CacheError(f"no module has a store called {scheme!r}")
            raise CacheError(f"there is no cachedb_url for {storage!r}")
        return found

    async def store(self, storage: str, key: str, value: str, seconds: int = 0) -> None:
        """Keep ``value``, for so many seconds; for good if that is not more than 0."""
        cache = self._ready(storage, key)
        await self._timed(cache, "insert", key, lambda: cache.store(key, value, max(0, seconds)))

    async def fetch(self, storage: str, key: str) -> str | None:
        """The value, None if there is none."""
        cache = self._ready(storage, key)
        return await self._timed(cache, "fetch", key, lambda: cache.fetch(key))

    async def remove(self, storage: str, key: str) -> None:
        """Forget the value, if there is one."""
        cache = self._ready(storage, key)
        await self._timed(cache, "remove", key, lambda: cache.remove(key))

    async def counter(self, storage: str, key: str) -> int | None:
        """The value of a counter, None if there is none."""
        cache = self._ready(storage, key)
        return await self._timed(cache, "fetch_counter", key, lambda: cache.counter(key))

    async def increase(self, storage: str, key: str, number: int, seconds: int = 0) -> int:
        """Add to a counter (or take off, with a negative number) and give its new value."""
        cache = self._ready(storage, key)
        what = "add" if number >= 0 else "sub"
        return await self._timed(cache, what, key, lambda: cache.add(key, number, max(0, seconds)))

    async def query(self, storage: str, text: str | Parts) -> Sequence[Row]:
        """The rows that a query in the store's own language gives; a store that can keeps values in it apart."""
        cache = self.find(storage)
        whole = str(text)
        if isinstance(text, Parts) and isinstance(cache, Dividing):
            return await self._timed(cache, "raw_query", whole, lambda: cache.query_parts(text))
        return await self._timed(cache, "raw_query", whole, lambda: cache.query(whole))

    def _ready(self, storage: str, key: str) -> Cache:
        if not key:
            raise CacheError("the attribute is empty")
        return self.find(storage)

    async def _timed(self, cache: Cache, what: str, key: str, ask: Callable[[], Awaitable[T]]) -> T:
        self.total.value += 1
        began = self._user.clock()
        try:
            return await ask()
        finally:
            self.note(cache.system, cache.threshold, what, key, began)

    def note(self, system: str, threshold: int, what: str, key: str, began: float) -> None:
        """Count and tell a query that began at ``began`` and took more than ``threshold`` microseconds."""
        took = int((self._user.clock() - began) * 1e6)
        if threshold and took > threshold:
            self.slow.value += 1
            self._user.log_rarely(("slow cache", system), 1, f"{system} {what} of {key} took {took} us, more than {threshold}")
            self._user.slow(f"{system} {what}", took, key)


def result_columns(text: str) -> list[str]:
    """The AVP names in ``$avp(one);$avp(two)``, what ``cache_raw_query`` puts its rows into; ``ValueError`` for anything else."""
    names: list[str] = []
    for part in text.split(";"):
        found = re.fullmatch(r"\s*\$avp\(([A-Za-z0-9_.:-]+)\)\s*", part)
        if found is None:
            raise ValueError(f"{part!r} is no AVP: write $avp(name), several with ; between them")
        names.append(found.group(1))
    return names
