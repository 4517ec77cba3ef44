"""cachedb_local: values kept in the memory of this process, in one or more *collections*.

A key is forgotten when its time is over; what nobody asks for is swept every ``cache_clean_period`` seconds, some at a time, so
that a million do not hold up the reactor. A collection holds ``CAPACITY`` keys at most (hardening P27): scripts make keys of
what messages say. With ``enable_restart_persistency`` the keys are written to a file when the server stops, and read when it
starts; after a crash they are those of the last stop (OpenSIPS's file is memory that outlives it)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from fnmatch import translate
from math import inf
from typing import Any

from sipgw.core.blacklists import python_glob
from sipgw.core.cachedb import Cache, CacheError, NotCounter, Row, Unsupported, parse_url
from sipgw.exports import Module, every, function, mi, param
from sipgw.mi.jsonrpc import SERVER_ERROR, MIError
from sipgw.script.run import Run
from sipgw.script.values import c_int

CAPACITY = 1_000_000
"""Keys of one collection."""
SLICE = 10_000
"""Keys that a sweep looks at in one turn of the reactor."""
PAUSE = 0.005
"""Seconds between two such turns."""
CACHE_FILE = ".restart_persistency.cache"
"""The name of ``restart_persistency_cache_file`` that is not set, as in OpenSIPS."""
DEFAULT = "default"
"""The collection that is always there."""

_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_CLUSTER = "replicated collections need a cluster protocol, which sipgw does not speak (docs/decisions/0020)"


class Collection:
    """One table of keys."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._values: dict[str, tuple[str, float]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str, now: float) -> str | None:
        """The value of ``key``, if its time is not over."""
        found = self._values.get(key)
        if found is None:
            return None
        if found[1] <= now:
            del self._values[key]
            return None
        return found[0]

    def ends(self, key: str) -> float:
        """When the time of ``key`` is over."""
        found = self._values.get(key)
        return inf if found is None else found[1]

    def set(self, key: str, value: str, ends: float) -> None:
        """Keep ``value`` until ``ends``; ``CacheError`` if the collection is full."""
        if key not in self._values and len(self._values) >= CAPACITY:
            raise CacheError(f"the collection {self.name} has {CAPACITY} keys already")
        self._values[key] = (value, ends)

    def drop(self, key: str) -> None:
        """Forget ``key``."""
        self._values.pop(key, None)

    def matching(self, glob: str, now: float) -> Iterator[tuple[str, str]]:
        """The keys that fit ``glob`` (``fnmatch(3)``), with their values; the collection may change meanwhile."""
        fits = re.compile(translate(python_glob(glob))).match
        for key in [*self._values]:
            if fits(key):
                value = self.get(key, now)
                if value is not None:
                    yield key, value

    def all(self, now: float) -> Iterator[tuple[str, str, float]]:
        """The keys, values and ends of what is not over."""
        for key, (value, ends) in self._values.items():
            if ends > now:
                yield key, value, ends

    def sweep(self, now: float) -> Iterator[None]:
        """Forget what is over, in slices."""
        for number, key in enumerate([*self._values], 1):
            self.get(key, now)
            if number % SLICE == 0:
                yield


class LocalCache:
    """A collection as scripts ask it (``core.cachedb.Cache``)."""

    system = "cachedb_local"

    def __init__(self, module: CachedbLocal, collection: Collection) -> None:
        self._module = module
        self._collection = collection
        self._clock = module.server.user.clock

    @property
    def threshold(self) -> int:
        """Microseconds that a query may take."""
        return self._module.exec_threshold

    def _end(self, seconds: int) -> float:
        return self._clock() + seconds if seconds else inf

    async def store(self, key: str, value: str, seconds: int) -> None:
        """Keep ``value``."""
        self._collection.set(key, value, self._end(seconds))

    async def fetch(self, key: str) -> str | None:
        """The value, None if there is none."""
        return self._collection.get(key, self._clock())

    async def remove(self, key: str) -> None:
        """Forget the value."""
        self._collection.drop(key)

    async def add(self, key: str, number: int, seconds: int) -> int:
        """Add to a counter; without ``seconds`` it ends when it did before."""
        value = await self.counter(key)
        new = c_int((value or 0) + number)
        ends = self._end(seconds) if seconds or value is None else self._collection.ends(key)
        self._collection.set(key, str(new), ends)
        return new

    async def counter(self, key: str) -> int | None:
        """The value of a counter."""
        value = await self.fetch(key)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            raise NotCounter(f"the value of {key} is no number")
        return c_int(int(value))

    async def query(self, text: str) -> list[Row]:
        """Nothing: there is no language to ask in."""
        raise Unsupported("cachedb_local has no raw queries")


class CachedbLocal(Module):
    """A key-value store in memory."""

    later = {
        "cluster_id": _CLUSTER,
        "cluster_persistency": _CLUSTER,
    }

    cache_clean_period: int = param(600, "Seconds between two searches for keys whose time is over")
    exec_threshold: int = param(0, "How many microseconds a query may take before the log tells of it; 0: any time")
    enable_restart_persistency: int = param(0, "Whether keys are kept over a restart, beside restart_persistency_cache_file")
    cache_collections: str = param(None, 'The collections, "one; two=9"; the size of a hash table has no effect', each="collect")
    cachedb_url: str = param(None, "A URL local:group:///collection that scripts can name local:group", each="add_url")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.collections = {DEFAULT: Collection(DEFAULT)}
        self._urls: dict[str, str] = {}
        self._swept = 0.0
        self._sweeping: list[Iterator[None]] = []
        super().__init__(server, **parameters)
        if server is not None:
            server.user.caches.serve("local", self.open)

    async def open(self, text: str) -> Cache:
        """The collection that the URL of another module names."""
        name = parse_url(text).database or DEFAULT
        if name not in self.collections:
            raise CacheError(f"there is no collection {name!r}: name it in cache_collections of cachedb_local")
        return LocalCache(self, self.collections[name])

    async def start(self) -> None:
        """Make the collections known; without any URL, the default one as ``local``."""
        user = self.server.user
        self._swept = user.clock()
        for group, name in (self._urls or {"": DEFAULT}).items():
            if name not in self.collections:
                raise ValueError(f"cachedb_url: there is no collection {name!r}: name it in cache_collections")
            user.caches.add("local", group, LocalCache(self, self.collections[name]))
        if self.enable_restart_persistency:
            self._load()

    async def stop(self) -> None:
        """Keep the keys, if they are to be kept."""
        if self.enable_restart_persistency:
            self._save()

    @property
    def _file(self) -> str:
        return (self.server.user.globals.get("restart_persistency_cache_file") or CACHE_FILE) + f".{self.name}"

    def _load(self) -> None:
        """Take the keys of the last run; those of a collection that is no more are left out."""
        user = self.server.user
        ahead = user.clock() - user.wall_clock()
        try:
            with open(self._file, encoding="ascii") as file:
                for name, key, value, ends in map(json.loads, file):
                    if name in self.collections:
                        self.collections[name].set(key, value, inf if ends is None else ends + ahead)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, CacheError) as error:
            user.log(-1, f"cachedb_local: not all of {self._file} could be read: {error}")

    def _save(self) -> None:
        """Write the keys, all or none: a record ``[collection, key, value, end]`` in each line, the end in seconds since 1970."""
        user = self.server.user
        now = user.clock()
        ahead = user.wall_clock() - now
        fresh = f"{self._file}.new"
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
                for collection in self.collections.values():
                    for key, value, ends in collection.all(now):
                        file.write(json.dumps([collection.name, key, value, None if ends == inf else ends + ahead]) + "\n")
            os.replace(fresh, self._file)
        except OSError as error:
            user.log(-1, f"cachedb_local: the keys could not be kept in {self._file}: {error}")

    def collect(self, text: str) -> None:
        """Make the collections of ``one; two=9``."""
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, _, size = (piece.strip() for piece in part.partition("="))
            if name.endswith("/r"):
                raise ValueError(_CLUSTER)
            if not name or (size and not size.isdigit()) or part.endswith("="):
                raise ValueError(f"bad collection {part!r}: write its name, or name=size")
            self.collections.setdefault(name, Collection(name))

    def add_url(self, text: str) -> None:
        """Note a URL; the last one of a group counts."""
        url = parse_url(text)
        if url.scheme != "local":
            raise ValueError(f"{text!r} is not for this module: write local:group:///collection")
        self._urls[url.group] = url.database or DEFAULT

    # -- expiry

    @every(1)
    def sweep(self) -> None:
        """Begin to look for keys whose time is over, when it is time."""
        now = self.server.user.clock()
        if self.cache_clean_period > 0 and now - self._swept >= self.cache_clean_period and not self._sweeping:
            self._swept = now
            self._sweeping = [collection.sweep(now) for collection in self.collections.values()]
            self._go_on(now)

    def _go_on(self, _now: float) -> None:
        while self._sweeping:
            if next(self._sweeping[0], True) is None:
                self.server.user.after(PAUSE, self._go_on)
                return
            del self._sweeping[0]

    # -- keys by pattern

    @function()
    def cache_remove_chunk(self, run: Run, collection: str | None, glob: str) -> bool:
        """Forget all keys of a collection that fit a pattern such as ``user_*``."""
        return self._remove(collection or DEFAULT, glob)

    @function(name="cache_remove_chunk")
    def remove_default_chunk(self, run: Run, glob: str) -> bool:
        """Forget all keys of the default collection that fit a pattern."""
        return self._remove(DEFAULT, glob)

    def _remove(self, name: str, glob: str) -> bool:
        found = self.collections.get(name)
        if found is None:
            self.server.user.log(-1, f"cachedb_local: there is no collection {name!r}")
            return False
        user = self.server.user
        began = user.clock()
        for key, _ in found.matching(glob, began):
            found.drop(key)
        user.caches.note(self.name, self.exec_threshold, "remove_chunk", glob, began)
        return True

    @mi(alias="cache_remove_chunk")
    def remove_chunk(self, glob: str, collection: str = DEFAULT) -> None:
        """Forgets all keys of a collection that fit a pattern."""
        if not self._remove(collection, glob):
            raise MIError(500, "Internal error")

    @mi(alias="cache_fetch_chunk")
    def fetch_chunk(self, glob: str, collection: str = DEFAULT) -> dict[str, Iterator[dict[str, str]]]:
        """Lists all keys of a collection that fit a pattern, with their values."""
        found = self.collections.get(collection)
        if found is None:
            raise MIError(SERVER_ERROR, data="Failed to handle parameter")
        return {"keys": ({"name": key, "value": value} for key, value in found.matching(glob, self.server.user.clock()))}
