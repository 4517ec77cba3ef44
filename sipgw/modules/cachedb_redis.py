"""cachedb_redis: a store that several machines share, in a Redis: one server, several in turn, behind sentinels, or a cluster.

Its URLs and what they may say are those of ``sipgw/redis/url.py``. While Redis is down the server goes on: commands fail at
once, and are served again when it is back. A value is kept under its key; a key of more than 512 octets under its SHA-256.
In a raw query what a variable holds stays in one argument; OpenSIPS lets it bring more of them, and quotes.

Other modules take a store by ``await server.user.caches.open(url)`` (a URL of their own) or ``caches.find("redis:group")``, both
a ``RedisCache``, whose ``redis`` is the client: ``command``, ``script``, ``keys``, ``publish``, ``subscribe``
(``sipgw/redis/client.py``, ``RedisFault`` when it fails)."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sipgw.core.cachedb import Cache, CacheError, NotCounter, Row, Unsupported
from sipgw.exports import Module, mi, param, statistic
from sipgw.redis.commands import Reply, changes_connection, octets, plain, short, split_parts, split_query
from sipgw.redis.errors import RedisFault, Refused
from sipgw.redis.url import RedisUrl, parse
from sipgw.script.parts import Parts
from sipgw.script.values import c_int

if TYPE_CHECKING:
    from sipgw.redis.client import Redis
    from sipgw.redis.node import Node

T = TypeVar("T")

COUNT = """
local value = redis.call('INCRBY', KEYS[1], ARGV[1])
if ARGV[2] ~= '0' then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return value
"""
"""Counting and the new end of the counter, as one."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}")
_JSON = (
    "it is for Redis' JSON and search modules, which sipgw does not use: user location is kept in plain hashes by scripts, on any"
    " Redis"
)


class RedisCache:
    """A Redis as scripts ask it (``core.cachedb.Cache``); ``redis`` is the client below."""

    system = "cachedb_redis"
    threshold = 0

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    async def store(self, key: str, value: str, seconds: int) -> None:
        """Keep ``value``."""
        more = ("EX", seconds) if seconds else ()
        await _tried(self.redis.command("SET", short(key), value, *more, again=True))

    async def fetch(self, key: str) -> str | None:
        """The value, None if there is none."""
        value = await _tried(self.redis.command("GET", short(key), again=True))
        return value if isinstance(value, str) or value is None else str(value)

    async def remove(self, key: str) -> None:
        """Forget the value."""
        await _tried(self.redis.command("DEL", short(key), again=True))

    async def add(self, key: str, number: int, seconds: int) -> int:
        """Add to a counter and set its end, as one; never done twice."""
        try:
            value = await self.redis.script(COUNT, [short(key)], [number, seconds])
        except Refused as error:
            if error.code == "WRONGTYPE" or "not an integer" in str(error):
                raise NotCounter(f"the value of {key} is no number") from None
            raise CacheError(str(error)) from None
        except RedisFault as error:
            raise CacheError(str(error)) from None
        return c_int(value) if isinstance(value, int) else 0

    async def counter(self, key: str) -> int | None:
        """The value of a counter."""
        value = await self.fetch(key)
        if value is None or value == "":
            return None
        if not _NUMBER.fullmatch(value):
            raise NotCounter(f"the value of {key} is no number")
        return c_int(int(value))

    async def query(self, text: str) -> list[Row]:
        """The rows of a raw query: each value of the answer is one of one column; a status such as OK has none."""
        return await self._query(text, split_query)

    async def query_parts(self, parts: Parts) -> list[Row]:
        """The rows of a raw query with variables, each of which stays in one argument."""
        return await self._query(parts, split_parts)

    async def _query(self, query: T, divide: Callable[[T], list[str]]) -> list[Row]:
        text = str(query)[:200]
        try:
            words = [octets(word) for word in divide(query)]
        except ValueError as error:
            raise CacheError(f"the query {text!r} cannot be read: {error}") from None
        if changes_connection(words[0]):
            raise Unsupported(f"{str(plain(words[0]))[:20]} would change connections that others use too")
        reply = await _tried(self.redis.ask(words))
        if reply is None:
            raise CacheError(f"no such key: {text}")
        return rows(reply)


def rows(reply: Reply) -> list[Row]:
    """The rows of an answer; lists inside a list, and errors, are left out."""
    if isinstance(reply, str):
        return []
    values = reply if isinstance(reply, list) else [reply]
    found: list[Row] = []
    for value in values:
        if value is None or isinstance(value, (bytes, int)):
            shown = plain(value)
            found.append([c_int(shown) if isinstance(shown, int) else shown])  # type: ignore[list-item]
    return found


async def _tried(asked: Awaitable[T]) -> T:
    try:
        return await asked
    except RedisFault as error:
        raise CacheError(str(error)) from None


class CachedbRedis(Module):
    """A key-value store in a Redis, alone or a cluster, or behind sentinels."""

    connect_timeout: int = param(5000, "Milliseconds that connecting to a server may take")
    query_timeout: int = param(5000, "Milliseconds that a command may take, whatever happens")
    shutdown_on_error: int = param(0, "Whether the server does not start while a Redis cannot be reached")
    lazy_connect: int = param(0, "Whether connections are made only when the first command needs them")
    cachedb_url: str = param(
        None,
        "A URL redis[:group]://[[user]:password@]host[:port][,host:port]/[database][?option=value&...] that scripts name"
        " redis:group; options are socket, pool, sentinel, sentinel_user, sentinel_password, tls, tls_ca, tls_cert, tls_key,"
        " tls_name (sipgw/redis/url.py)",
        each="add_url",
    )
    use_tls: int = param(0, "Whether URLs may ask for TLS; one that does is refused without this")
    ftsearch_index_name: str = param("idx:usrloc", "The name of a search index", unused=_JSON)
    ftsearch_json_prefix: str = param("usrloc:", "What names of JSON values begin with", unused=_JSON)
    ftsearch_max_results: int = param(10000, "How many results a search may give", unused=_JSON)
    ftsearch_json_mset_expire: int = param(3600, "Seconds that a JSON value lives", unused=_JSON)
    redis_keepalive: int = param(10, "Seconds between the kernel's probes of an idle connection; 0: none")

    redis_queries = statistic("commands that went well")
    redis_queries_failed = statistic("commands that failed, for whatever reason")
    redis_moved = statistic("commands that a node of a cluster sent on to another one for good")
    redis_topology_refreshes = statistic("readings of a cluster's table of slots")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._urls: dict[str, tuple[str, RedisUrl]] = {}
        self._open: dict[str, Redis] = {}
        super().__init__(server, **parameters)
        if server is not None:
            server.user.caches.serve("redis", self.open)

    def add_url(self, text: str) -> None:
        """Note a URL; the last one of a group counts."""
        url = parse(text)
        self._urls[url.group] = (text, url)

    async def start(self) -> None:
        """Make the stores known, and begin to connect."""
        for group, (text, url) in self._urls.items():
            redis = self._client(text, url)
            self.server.user.caches.add("redis", group, RedisCache(redis))
            if self.shutdown_on_error and not self.lazy_connect:
                try:
                    await redis.wait()
                except RedisFault as error:
                    raise ValueError(f"{url.shown}: {error}") from None

    async def stop(self) -> None:
        """Close all connections."""
        for redis in self._open.values():
            redis.stop()

    async def open(self, text: str) -> Cache:
        """The store of a URL that another module has; the same one for the same URL."""
        try:
            return RedisCache(self._client(text, parse(text)))
        except ValueError as error:
            raise CacheError(str(error)) from None

    def _client(self, text: str, url: RedisUrl) -> Redis:
        found = self._open.get(text)
        if found is not None:
            return found
        if url.tls and not self.use_tls:
            raise ValueError(f'{url.shown} asks for TLS: set modparam("cachedb_redis", "use_tls", 1)')
        if "tls_domain" in url.options:
            raise ValueError(
                f"{url.shown}: tls_domain needs tls_mgm, which comes in a later version of sipgw: write tls_ca=FILE and"
                " tls_cert=FILE, tls_key=FILE instead"
            )
        if url.tls and url.unix:
            raise ValueError(f"{url.shown}: a unix socket does not speak TLS")
        try:
            from sipgw.redis.client import Counts, Redis
        except ImportError as error:
            raise ValueError(f"cachedb_redis needs {error.name}: pip install sipgw[redis]") from None
        user = self.server.user
        counters: Any = (self.redis_queries, self.redis_queries_failed, self.redis_moved, self.redis_topology_refreshes)
        redis = self._open[text] = Redis(
            url,
            self.server.reactor,
            user.launch,
            connect_limit=self.connect_timeout / 1000,
            limit=self.query_timeout / 1000,
            keepalive=self.redis_keepalive,
            counts=Counts(*counters),
        )

        def noticed(fault: str) -> None:
            text = f"is down: {fault}" if fault else "serves"
            user.log_rarely(("redis", url.shown, bool(fault)), -1 if fault else 3, f"cachedb_redis: {url.shown} {text}")

        redis.noticed = noticed
        if not self.lazy_connect:
            redis.start()
        return redis

    # -- management commands

    @mi(named_only=True, recipes=((), ("group",)))
    def redis_cluster_info(self, group: str | None = None) -> Any:
        """Shows each Redis with its servers: whether they are connected, their slots, what they were asked."""
        return [self._info(redis) for redis in self._chosen(group)] or self._none()

    def _info(self, redis: Redis) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "group": redis.url.group,
            "url": redis.url.shown,
            "mode": "cluster" if redis.cluster else "single",
        }
        if redis.cluster:
            shown["cluster_command"] = "SLOTS"
        if redis.url.unix:
            shown["transport"] = "unix"
        if redis.url.sentinel:
            shown["sentinel"] = redis.url.sentinel
        user = self.server.user
        ago = user.clock() - redis.last_refresh
        shown["topology_refreshes"] = redis.refreshes
        shown["last_topology_refresh"] = int(user.wall_clock() - ago) if redis.last_refresh else 0
        shown["nodes"] = [self._node_info(redis, node) for node in redis.nodes]
        if redis.cluster:
            shown["total_slots_mapped"] = redis.slots_known
        return shown

    def _node_info(self, redis: Redis, node: Node) -> dict[str, Any]:
        shown = _place(redis, node)
        shown["status"] = "connected" if node.up else "disconnected"
        if redis.cluster:
            shown["slots_assigned"] = redis.slots_of(node)
        shown.update(queries=node.queries, errors=node.errors, moved=node.moved)
        last = node.last_activity
        shown["last_activity"] = -1 if last < 0 else int(self.server.user.clock() - last)
        return shown

    @mi(named_only=True, recipes=((), ("group",)))
    async def redis_cluster_refresh(self, group: str | None = None) -> Any:
        """Reads the table of slots of each cluster anew."""
        answer = []
        for redis in self._chosen(group):
            status = "skipped (not cluster mode)"
            if redis.cluster:
                try:
                    await redis.refresh()
                    status = "ok"
                except RedisFault:
                    status = "error"
            answer.append({"group": redis.url.group, "status": status})
        return answer or self._none()

    @mi(named_only=True, recipes=((), ("group",)))
    async def redis_ping_nodes(self, group: str | None = None) -> Any:
        """Asks each server whether it is there, and measures how long that takes."""
        answer = []
        for redis in self._chosen(group):
            nodes = []
            for node in redis.nodes:
                status, latency = await redis.ping(node)
                nodes.append({**_place(redis, node), "status": status, "latency_us": latency})
            answer.append({"group": redis.url.group, "nodes": nodes})
        return answer or self._none()

    def _chosen(self, group: str | None) -> list[Redis]:
        return [redis for redis in self._open.values() if group is None or redis.url.group == group]

    def _none(self) -> Any:
        return [] if self._open else "No redis connections"


def _place(redis: Redis, node: Node) -> dict[str, Any]:
    """Where a server is."""
    host, port = node.address or redis.url.addresses[0]
    return {"ip": host, "port": port} if port else {"socket_path": host}
