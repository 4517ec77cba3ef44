"""``Redis``: what a URL names, as one object that takes commands.

::

    redis = Redis(parse(url), reactor, launch)      # or Redis of a loaded store: server.modules["cachedb_redis"].redis(...)
    redis.start()
    await redis.command("HSET", "contacts:alice", "c1", "sip:alice@192.0.2.1")
    await redis.script(LUA, ["contacts:alice"], ["c1", 60])

Each command ends within its limit (``query_timeout``): with an answer, ``Refused`` (the server's own error), ``Unreachable`` (it
was not done; at once while the server is known to be down) or ``Lost`` (nobody knows). It is sent again only where that cannot
do it twice: when no server had taken it, when a server answered that it did not (MOVED, ASK, READONLY, LOADING, TRYAGAIN), or
when its caller says that twice is as good as once (``again=True``).

A cluster is followed by its own table of slots (CLUSTER SLOTS), by MOVED and by ASK; the table is read anew after a MOVED or
when a node is gone, at most once a second."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.redis.commands import SLOTS, Argument, Plain, Reply, key_of, octets, plain, slot
from sipgw.redis.connection import Connection, Greeting, connect, tls_options
from sipgw.redis.errors import Lost, NoAnswer, RedisFault, Refused, Unreachable
from sipgw.redis.listener import Listener
from sipgw.redis.node import Node
from sipgw.redis.url import Address, RedisUrl
from sipgw.statistics import Counter

QUICK = 0.7
"""Seconds for a greeting where another server may answer instead, and for a sentinel's answer."""
REFRESH = 1.0
"""Seconds between two readings of a cluster's table."""
MOST_TURNS = 8
"""How often a command may be sent to another place."""
PAUSE = 0.05
"""Seconds before a command that a cluster asks for later is sent again."""


@dataclass
class Counts:
    """What is counted; shared by all that one module opens."""

    queries: Counter
    failed: Counter
    moved: Counter
    refreshes: Counter

    @classmethod
    def new(cls) -> Counts:
        """Counters of nobody."""
        return cls(*(Counter("redis", name) for name in ("queries", "failed", "moved", "refreshes")))


class Redis:
    """One Redis. ``launch(coroutine)`` runs a coroutine beside everything else; times are in seconds."""

    def __init__(
        self,
        url: RedisUrl,
        reactor: Any,
        launch: Callable[[Any], None],
        *,
        connect_limit: float = 5.0,
        limit: float = 5.0,
        keepalive: int = 10,
        counts: Counts | None = None,
    ) -> None:
        self.url = url
        self.limit = limit
        self.counts = counts or Counts.new()
        self._reactor = reactor
        self._launch = launch
        self._connect_limit = connect_limit
        tls = None if url.unix else tls_options(url)
        self._greeting = Greeting(url.user, url.password, url.database, bool(url.sentinel), tls, keepalive)
        self._sentinel_greeting = Greeting(
            url.options.get("sentinel_user", ""), url.options.get("sentinel_password", ""), tls=tls, keepalive=keepalive
        )
        self._place = 0
        self.cluster = False
        """Whether it is a cluster."""
        self.last_refresh = 0.0
        """When the table of slots was last read."""
        self.refreshes = 0
        self._nodes: dict[Address, Node] = {}
        self._slots: list[Node | None] = [None] * SLOTS
        self._refreshing = False
        several = bool(url.sentinel) or len(url.addresses) > 1
        self._first = self._node(self._find, min(QUICK, connect_limit) if several else connect_limit)
        self._first.missed = self._next_place
        self._first.noticed = self._first_noticed
        if not url.unix and not url.sentinel:
            self._first.prepare = self._look
        self._listener: Listener | None = None
        self._asking: set[Connection] = set()
        self._stopped = False
        self.noticed: Callable[[str], None] = lambda fault: None
        """Is told when nothing serves, with why, and when it serves again, with nothing."""

    # -- life

    def start(self) -> None:
        """Begin to connect."""
        self._first.start()

    def stop(self) -> None:
        """Close everything; what waits fails."""
        self._stopped = True
        if self._listener is not None:
            self._listener.stop()
        for node in self.nodes:
            node.stop()
        for connection in [*self._asking]:
            connection.close()

    async def wait(self) -> None:
        """Wait until it serves; ``Unreachable`` if it does not within ``connect_limit``."""
        await self._first.connection(self._connect_limit)

    @property
    def nodes(self) -> list[Node]:
        """Its servers, as far as they are known."""
        others = [node for node in self._nodes.values() if node is not self._first]
        return [self._first, *others]

    def slots_of(self, node: Node) -> int:
        """How many slots of the cluster a node has."""
        return sum(each is node for each in self._slots)

    @property
    def slots_known(self) -> int:
        """How many slots have a node."""
        return SLOTS - sum(each is None for each in self._slots)

    # -- commands

    async def command(self, *arguments: Argument, key: Argument | None = None, again: bool = False, limit: float = 0) -> Plain:
        """Send one command, such as ``command("SET", key, value, "EX", 60)``; its answer, text as ``str``.

        ``key`` says which node of a cluster takes it, where the command's first key is not in the usual place. ``again``: it
        may be done twice, so it is sent again if its connection is lost. ``limit``: seconds, by default ``query_timeout``."""
        return plain(await self.ask([octets(each) for each in arguments], key, again, limit))

    async def script(
        self, lua: str, keys: Sequence[Argument], arguments: Sequence[Argument] = (), *, again: bool = False, limit: float = 0
    ) -> Plain:
        """Run a Lua script, by its digest where the server knows it (EVALSHA), else with its text (also after a restart).

        In a cluster all ``keys`` must be in one slot: give them a common ``{tag}``."""
        text = octets(lua)
        rest = [octets(each) for each in (len(keys), *keys, *arguments)]
        try:
            return plain(await self.ask([b"EVALSHA", sha1(text).hexdigest().encode(), *rest], None, again, limit))
        except Refused as error:
            if error.code != "NOSCRIPT":
                raise
        return plain(await self.ask([b"EVAL", text, *rest], None, again, limit))

    async def everywhere(self, *arguments: Argument, limit: float = 0) -> list[Plain]:
        """Send one command to each server that has keys (each master of a cluster): SCAN, DBSIZE and the like."""
        words = [octets(each) for each in arguments]
        end = self._reactor.seconds() + (limit or self.limit)
        return [plain(await self._asked(node, words, end, True)) for node in self._masters()]

    async def keys(self, pattern: str, count: int = 1000) -> list[str]:
        """All keys that fit a glob pattern, found with SCAN: what comes or goes meanwhile may be there or not."""
        found: dict[str, None] = {}
        for node in self._masters():
            cursor = b"0"
            while True:
                words = [b"SCAN", cursor, b"MATCH", octets(pattern), b"COUNT", octets(count)]
                reply = await self._asked(node, words, self._reactor.seconds() + self.limit, True)
                assert isinstance(reply, list) and isinstance(reply[0], bytes) and isinstance(reply[1], list)
                found.update((str(plain(each)), None) for each in reply[1])
                if (cursor := reply[0]) == b"0":
                    break
        return [*found]

    async def publish(self, channel: str, message: Argument) -> int:
        """Tell all that listen to ``channel``; how many this server has told."""
        told = await self.command("PUBLISH", channel, message)
        return told if isinstance(told, int) else 0

    def subscribe(
        self, channel: str, heard: Callable[[str], None], resumed: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Call ``heard(message)`` for what is published on ``channel``, from now until what this returns is called.

        ``resumed()`` is called each time that listening begins: at first, and after the connection was lost. Messages between
        are not brought again, so that is the moment to read what one keeps."""
        if self._listener is None:
            self._listener = Listener(self._reactor, self._listening, self._launch)
        return self._listener.add(channel, heard, resumed)

    async def _listening(self, kind: type[Connection]) -> Any:
        """A connection of its own for whoever listens."""
        patience = min(QUICK * 2, self._connect_limit)
        beside = await self._first.connection(patience)
        return await self._open(kind(self._reactor, beside.address), self._greeting, patience)

    async def _open(self, made: Connection, greeting: Greeting, limit: float) -> Connection:
        """Open a connection that no node has; it ends when all ends."""
        if self._stopped:
            raise Unreachable("the server stops")
        self._asking.add(made)
        try:
            return await connect(made, greeting, limit)
        finally:
            self._asking.discard(made)

    async def ping(self, node: Node) -> tuple[str, int]:
        """Whether a server is ``reachable``, ``unreachable`` or ``disconnected``, and the microseconds that its answer took."""
        if not node.up:
            return "disconnected", -1
        began = self._reactor.seconds()
        try:
            await self._asked(node, [b"PING"], began + self.limit, True)
        except RedisFault:
            return "unreachable", -1
        return "reachable", int((self._reactor.seconds() - began) * 1e6)

    # -- how a command goes

    async def ask(self, words: Sequence[bytes], key: Argument | None = None, again: bool = False, limit: float = 0) -> Reply:
        """Send one command of byte strings; the answer as it came. Counted as a query."""
        end = self._reactor.seconds() + (limit or self.limit)
        try:
            if not self.cluster and not self._first.up:
                await self._first.connection(end - self._reactor.seconds())  # it may turn out to be one
            place = None
            if self.cluster:
                first = key_of(words) if key is None else octets(key)
                place = None if first is None else slot(first)
            reply = await self._follow(words, place, end, again)
        except RedisFault:
            self.counts.failed.value += 1
            raise
        self.counts.queries.value += 1
        return reply

    async def _follow(self, words: Sequence[bytes], place: int | None, end: float, again: bool) -> Reply:
        """Send a command to where it belongs, and after it where it is sent on to."""
        node = self._owner(place)
        asking = False
        for turn in range(MOST_TURNS):
            try:
                return await self._asked(node, words, end, again, asking)
            except Refused as error:
                found = self._redirected(node, error, place)
                if found is None and error.code == "TRYAGAIN":
                    await self._pause(PAUSE)
                elif found is None and error.code == "READONLY" and not self.cluster and not turn:
                    self._place += 1
                    node.drop()  # it has become a replica
                    if self._listener is not None:
                        self._listener.again()
                elif found is None:
                    raise
                else:
                    node, asking = found, error.code == "ASK"
            except Unreachable:
                if not self.cluster or turn or not await self._changed(node, end):
                    raise
                node = self._owner(place)
        raise Unreachable("the nodes of the cluster send a command round and round")

    def _owner(self, place: int | None) -> Node:
        """The node that takes a command for a slot, or for none."""
        if not self.cluster:
            return self._first
        found = None if place is None else self._slots[place]
        return found or next((node for node in self._masters() if node.up), self._first)

    def _masters(self) -> list[Node]:
        return list(dict.fromkeys(node for node in self._slots if node is not None)) if self.cluster else [self._first]

    def _redirected(self, node: Node, error: Refused, place: int | None) -> Node | None:
        """The node that MOVED or ASK names."""
        if error.code not in ("MOVED", "ASK"):
            return None
        _, number, address = str(error).split(" ")[:3]
        host, _, port = address.rpartition(":")
        # an empty host is that of the node that says so
        target = self._member((host.strip("[]") or (node.address or self.url.addresses[0])[0], int(port)))
        if error.code == "MOVED":
            node.moved += 1
            self.counts.moved.value += 1
            self.cluster = True
            self._slots[int(number)] = target
            self._launch(self._refresh_rarely())
        return target

    async def _asked(
        self, node: Node, words: Sequence[bytes], end: float, again: bool, asking: bool = False
    ) -> Reply:
        """Send a command to a node; a second time if it was lost and may be done ``again``."""
        while True:
            sent = self._reactor.seconds()
            connection = await node.connection(end - sent)
            sent = self._reactor.seconds()
            try:
                if asking:
                    self._launch(self._say_asking(connection, end - sent))
                reply = await connection.ask(words, end - sent)
            except NoAnswer:
                node.errors += 1
                node.silent(sent)
                raise
            except Unreachable:
                node.forget(connection)  # it had ended before the command was written
                continue
            except Lost:
                node.errors += 1
                if not again:
                    raise
                again = False
                continue
            except Refused as error:
                if error.code in ("LOADING", "MASTERDOWN"):
                    node.drop()  # the next greeting tells when it has loaded its data
                    raise Unreachable(str(error)) from None
                if error.code not in ("MOVED", "ASK"):
                    node.errors += 1
                raise
            node.queries += 1
            node.last_activity = self._reactor.seconds()
            return reply

    async def _say_asking(self, connection: Connection, limit: float) -> None:
        try:
            await connection.ask([b"ASKING"], limit)
        except RedisFault:
            pass  # the command behind it tells

    async def _pause(self, seconds: float) -> None:
        paused: Deferred[None] = Deferred()
        self._reactor.callLater(seconds, paused.callback, None)
        await paused

    # -- where the servers are

    def _node(self, find: Callable[[], Awaitable[Address]], patience: float) -> Node:
        return Node(self._reactor, find, self._greeting, self.url.pool, patience, self._launch)

    async def _find(self) -> Address:
        """The server to try: the next one of the URL, or the one that a sentinel names."""
        if not self.url.sentinel:
            return self.url.addresses[self._place % len(self.url.addresses)]
        why: RedisFault | None = None
        for _ in self.url.addresses:
            sentinel = self.url.addresses[self._place % len(self.url.addresses)]
            try:
                connection = await self._open(Connection(self._reactor, sentinel), self._sentinel_greeting, QUICK)
                words = [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", octets(self.url.sentinel)]
                reply = await connection.ask(words, QUICK)
                connection.close()
                if isinstance(reply, list) and len(reply) == 2:
                    return str(plain(reply[0])), int(str(plain(reply[1])))
                why = Unreachable(f"the sentinel {sentinel[0]}:{sentinel[1]} knows no master {self.url.sentinel!r}")
            except RedisFault as error:
                why = error
            self._place += 1
        raise Unreachable(f"no sentinel helps: {why}")

    def _next_place(self, _address: Address) -> None:
        self._place += 1

    def _first_noticed(self, fault: str) -> None:
        if fault and self._listener is not None:
            self._listener.again()
        self.noticed(fault)

    async def _look(self, connection: Connection, limit: float) -> None:
        """Find out whether it is a cluster, each time that it is up."""
        try:
            self._take(self._first, await connection.ask([b"CLUSTER", b"SLOTS"], limit))
        except Refused:  # it is none; or we may not ask, and MOVED tells
            self.cluster = False

    def _member(self, address: Address) -> Node:
        """The node of a cluster at ``address``."""
        if address == self._first.address:
            self._nodes[address] = self._first
        found = self._nodes.get(address)
        if found is None or (found is self._first and address != self._first.address):

            async def there() -> Address:
                return address

            found = self._nodes[address] = self._node(there, min(QUICK, self._connect_limit))
            found.address = address
            found.start()
        return found

    async def _refresh_rarely(self) -> None:
        """Read the table of slots, unless that was done a moment ago."""
        if not self._refreshing and (not self.last_refresh or self._reactor.seconds() - self.last_refresh >= REFRESH):
            try:
                await self.refresh()
            except RedisFault:
                pass  # no cluster, or no node that answers: the next command tells

    async def refresh(self) -> None:
        """Read the table of slots of a cluster; a ``RedisFault`` if no node gives one."""
        self._refreshing = True
        try:
            why: RedisFault = Unreachable("no node is up")
            for node in self.nodes:
                end = self._reactor.seconds() + min(QUICK, self.limit)
                try:
                    if node is self._first or node.up:
                        self._take(node, await self._asked(node, [b"CLUSTER", b"SLOTS"], end, True))
                        return
                except RedisFault as error:
                    why = error
            raise why
        finally:
            self._refreshing = False

    def _take(self, source: Node, table: Reply) -> None:
        """Use a table of slots: from, to, the master, its replicas."""
        fresh: list[Node | None] = [None] * SLOTS
        for begin, end, host, port in shares(table):
            node = self._member((host or (source.address or self.url.addresses[0])[0], port))
            fresh[begin : end + 1] = [node] * (end + 1 - begin)
        self._slots = fresh
        self.cluster = True
        self.refreshes += 1
        self.counts.refreshes.value += 1
        self.last_refresh = self._reactor.seconds()
        used = {id(node) for node in fresh if node is not None}
        for address, node in [*self._nodes.items()]:
            if id(node) not in used and node is not self._first:
                del self._nodes[address]
                node.stop()

    async def _changed(self, node: Node, end: float) -> bool:
        """Whether a newer table is there to look at, now that ``node`` is gone."""
        before = self._slots
        if self._reactor.seconds() < end:
            await self._refresh_rarely()
        return self._slots is not before


def shares(table: Reply) -> list[tuple[int, int, str, int]]:
    """What CLUSTER SLOTS tells: from, to, and the host and port of the master; no host is that of the server asked."""
    found = []
    for row in table if isinstance(table, list) else [None]:
        match row:
            case [int(begin), int(end), [host, int(port), *_], *_] if 0 <= begin <= end < SLOTS:
                name = plain(host)
                found.append((begin, end, name if isinstance(name, str) and name != "?" else "", port))
            case _:
                raise Unreachable("no table of slots")
    return found
