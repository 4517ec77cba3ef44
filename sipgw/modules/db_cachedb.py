"""db_cachedb: the tables of OpenSIPS in a Redis, ``cachedb://redis:group``, for modules that want a database::

    modparam("db_cachedb", "cachedb_url", "redis:shared://127.0.0.1:6379/1")
    modparam("auth_db", "db_url", "cachedb://redis:shared")

COMPAT: in OpenSIPS this works with MongoDB alone, which sipgw has no module for; here it works with cachedb_redis
(``docs/decisions/0026-tables-in-redis.md``). No table needs to be made, and the table ``version`` need not be filled."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from sipgw.core.cachedb import CacheError, parse_url
from sipgw.db.cached import COUNTER, CachedDatabase, Swap
from sipgw.db.errors import DatabaseError, Unavailable
from sipgw.exports import Module, param
from sipgw.redis.errors import RedisFault

T = TypeVar("T")

PREFIX = "sipgw:{tables}:"
"""What the names of hashes begin with; the braces keep them together in a cluster."""
SWAP = """
for i = 1, #ARGV, 4 do
  if (redis.call('HGET', KEYS[tonumber(ARGV[i])], ARGV[i + 1]) or '') ~= ARGV[i + 2] then return 0 end
end
for i = 1, #ARGV, 4 do
  local key = KEYS[tonumber(ARGV[i])]
  if ARGV[i + 3] == '' then redis.call('HDEL', key, ARGV[i + 1]) else redis.call('HSET', key, ARGV[i + 1], ARGV[i + 3]) end
end
return 1
"""
"""Compare all, then change all. A field that is not there is an empty text, which no row is."""


class RedisHashes:
    """The hashes of one Redis (``db.cached.Hashes``)."""

    def __init__(self, name: str, redis: Any) -> None:
        self.name = name
        self._redis = redis

    async def _tried(self, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except RedisFault as error:
            raise Unavailable(f"{self.name}: {error}") from None

    async def read(self, table: str, fields: Sequence[str] | None) -> Mapping[str, str]:
        """The fields of a hash that are there, of those asked for, or all."""
        key = PREFIX + table
        if fields is not None:
            found = await self._tried(self._redis.command("HMGET", key, *fields, again=True))
            return {name: value for name, value in zip(fields, found, strict=True) if value is not None}
        flat = await self._tried(self._redis.command("HGETALL", key, again=True))
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def swap(self, swaps: Sequence[Swap]) -> bool:
        """Make all changes, if each field is as it is said to be."""
        keys = sorted({swap.table for swap in swaps})
        arguments: list[str | int] = []
        for swap in swaps:
            arguments += [keys.index(swap.table) + 1, swap.field, swap.old or "", swap.new or ""]
        return bool(await self._tried(self._redis.script(SWAP, [PREFIX + key for key in keys], arguments)))

    async def count(self, table: str) -> int:
        """The next number of a row."""
        return int(await self._tried(self._redis.command("HINCRBY", PREFIX + table, COUNTER, 1)))


class DbCachedb(Module):
    """Opens databases whose tables are hashes in a Redis that several machines may share."""

    name = "db_cachedb"

    cachedb_url: str = param(None, "A URL redis:group://..., which db_url calls cachedb://redis:group", each="add_url")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._urls: dict[str, str] = {}
        super().__init__(server, **parameters)
        if server is not None:
            server.databases.add("cachedb", self.make)

    def add_url(self, text: str) -> None:
        """Note one more store."""
        url = parse_url(text.partition("?")[0])
        if url.scheme != "redis":
            raise ValueError(f"tables can be kept in redis only, not in {url.scheme}")
        self._urls[f"{url.scheme}:{url.group}" if url.group else url.scheme] = text.strip()

    def make(self, url: str) -> CachedDatabase:
        """The database of ``cachedb://redis:group``."""
        name = url.partition(":")[2].strip("/")
        text = self._urls.get(name)
        if text is None:
            raise DatabaseError(f"{url} is none of db_cachedb's cachedb_url: {', '.join(self._urls) or 'none is set'}")

        async def opened() -> RedisHashes:
            try:
                store: Any = await self.server.user.caches.open(text)
            except CacheError as error:
                raise DatabaseError(f"cachedb://{name}: {error}") from None
            return RedisHashes(f"cachedb://{name}", store.redis)

        return CachedDatabase(f"cachedb://{name}", opened)
