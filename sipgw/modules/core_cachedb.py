"""The key-value interface in scripts and by management commands (``core/cachedb.py``), always there.

The stores come with modules, such as ``cachedb_local``. What a script gets back is as in OpenSIPS: 1 when it went well, -1 when
it did not, -2 where there is no value, -3 for a counter that is none."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from sipgw.core.cachedb import CacheError, NotCounter, result_columns
from sipgw.exports import Fixup, Module, PartedText, Writable, function, mi
from sipgw.mi.jsonrpc import INVALID_PARAMS, MIError
from sipgw.script.run import Run
from sipgw.script.symbols import Kind

T = TypeVar("T")

Columns = Annotated[str, Fixup(Kind.RAW), result_columns]
"""The AVPs that the rows of a query go into."""

MISSING = -2
NO_COUNTER = -3


class CoreCachedb(Module):
    """Keeps, reads and counts values in the stores that modules bring."""

    name = "core"

    # -- in scripts

    @function()
    async def cache_store(self, run: Run, storage_id: str, attribute: str, value: str, timeout: int | None = None) -> bool:
        """Keep a value in a store, for so many seconds or for good."""
        return await self._tried(run, "cache_store", run.user.caches.store(storage_id, attribute, value, timeout or 0))

    @function()
    async def cache_remove(self, run: Run, storage_id: str, attribute: str) -> bool:
        """Forget a value; true also if there was none."""
        return await self._tried(run, "cache_remove", run.user.caches.remove(storage_id, attribute))

    @function()
    async def cache_fetch(self, run: Run, storage_id: str, attribute: str, result: Writable) -> int:
        """Give ``result`` the value of a key; -2, and nothing changed, if there is none."""
        try:
            value = await run.user.caches.fetch(storage_id, attribute)
        except CacheError as error:
            return _failed(run, "cache_fetch", error)
        return _given(run, result, value)

    @function()
    async def cache_counter_fetch(self, run: Run, storage_id: str, counter_attribute: str, result: Writable) -> int:
        """Give ``result`` the number that a counter has; -2 if there is none, -3 if it is no number."""
        try:
            value = await run.user.caches.counter(storage_id, counter_attribute)
        except NotCounter as error:
            _failed(run, "cache_counter_fetch", error)
            return NO_COUNTER
        except CacheError as error:
            return _failed(run, "cache_counter_fetch", error)
        return _given(run, result, value)

    @function()
    async def cache_add(
        self, run: Run, storage_id: str, attribute: str, increment: int, expire: int, new_val: Writable | None = None
    ) -> bool:
        """Add to a counter, which begins with 0; it lives for ``expire`` more seconds, if that is not 0."""
        return await self._counted(run, "cache_add", storage_id, attribute, increment, expire, new_val)

    @function()
    async def cache_sub(
        self, run: Run, storage_id: str, attribute: str, decrement: int, expire: int, new_val: Writable | None = None
    ) -> bool:
        """Take off a counter, which begins with 0; it lives for ``expire`` more seconds, if that is not 0."""
        return await self._counted(run, "cache_sub", storage_id, attribute, -decrement, expire, new_val)

    @function()
    async def cache_raw_query(self, run: Run, storage_id: str, raw_query: PartedText, result: Columns | None = None) -> bool:
        """Ask a store in its own language; each row of the answer pushes its values to the AVPs of ``result``."""
        try:
            rows = await run.user.caches.query(storage_id, raw_query)
        except CacheError as error:
            _failed(run, "cache_raw_query", error)
            return False
        if result is not None:
            names = result_columns(result)
            for row in reversed(rows):
                for name, value in zip(names, row, strict=False):
                    if value is not None:
                        run.avps.setdefault(name, []).append(value)
        return True

    async def _tried(self, run: Run, function: str, done: Coroutine[Any, Any, None]) -> bool:
        try:
            await done
        except CacheError as error:
            _failed(run, function, error)
            return False
        return True

    async def _counted(
        self, run: Run, function: str, storage: str, key: str, number: int, seconds: int, result: Writable | None
    ) -> bool:
        try:
            value = await run.user.caches.increase(storage, key, number, seconds)
        except CacheError as error:
            _failed(run, function, error)
            return False
        if result is not None:
            result.set(run, value)
        return True

    # -- management commands

    @mi("store", module="cache", alias="cache_store")
    async def store(self, system: str, attr: str, value: str, expire: int = 0) -> None:
        """Keeps a value in a store, for so many seconds or for good."""
        _named(attr)
        if not value:
            raise MIError(INVALID_PARAMS, data="Empty value")
        if expire < 0:
            raise MIError(INVALID_PARAMS, data="Negative expire value")
        await self._asked("store", self.server.user.caches.store(system, attr, value, expire))

    @mi("fetch", module="cache", alias="cache_fetch")
    async def fetch(self, system: str, attr: str) -> dict[str, str]:
        """Gives the value of a key."""
        _named(attr)
        value = await self._asked("fetch", self.server.user.caches.fetch(system, attr))
        if value is None:
            raise MIError(400, "Value not found")
        return {"key": attr, "value": value}

    @mi("remove", module="cache", alias="cache_remove")
    async def remove(self, system: str, attr: str) -> None:
        """Forgets the value of a key."""
        _named(attr)
        await self._asked("remove", self.server.user.caches.remove(system, attr))

    async def _asked(self, what: str, done: Coroutine[Any, Any, T]) -> T:
        try:
            return await done
        except CacheError as error:
            self.server.user.log(-1, f"cache:{what}: {error}")
            raise MIError(500, f"Cache {what} command failed") from None


def _named(attr: str) -> None:
    if not attr:
        raise MIError(INVALID_PARAMS, data="Empty attribute name")


def _failed(run: Run, function: str, error: CacheError) -> int:
    run.user.log_rarely(function, -1, f"{function}: {error}")
    return -1


def _given(run: Run, result: Writable, value: int | str | None) -> int:
    if value is None:
        return MISSING
    result.set(run, value)
    return 1
