"""The servers of one cluster, which meet in a Redis: who is there, and who of them has which sharing tag.

Each server writes a sign of life (``beat``) four times within ``life``; whoever's is older is gone. A *sharing tag* is had by
one server at most, the one for which it is active; it is taken, never given, and stays with a server that is gone until another
one takes it. Redis counts time, so the clocks of the servers do not matter.

While Redis is away nobody can be seen: then nobody is taken for gone, and a tag that is taken meanwhile is told later. A Redis
that comes back empty has another ``epoch``; whoever has a tag takes it again then, unless somebody else was quicker.

Keys: ``sipgw:{cluster:N}:nodes`` (number of the server: its start, the millisecond of its last sign, what it calls itself),
``:tags`` (tag: number of the server), ``:epoch``; channel ``sipgw:{cluster:N}:all``. A server that is gone is forgotten after an
hour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from os import urandom
from typing import Any, Final, Protocol

from sipgw.redis.errors import RedisFault

__all__ = ["Members"]

PATIENCE: Final = 2.0
"""Seconds that one command may take."""

BEAT: Final = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('SET', KEYS[3], ARGV[3] .. '-' .. string.format('%d', now), 'NX')
local before = redis.call('HGET', KEYS[1], ARGV[1]) or ''
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. string.format('%d', now) .. ' ' .. ARGV[4])
local told = string.match(before, '^(%S*)') ~= ARGV[2]
local taken = tonumber(ARGV[5])
for i = 6, 5 + taken do redis.call('HSET', KEYS[2], ARGV[i], ARGV[1]) told = true end
for i = 6 + taken, #ARGV do redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[1]) end
local nodes = redis.call('HGETALL', KEYS[1])
for i = 1, #nodes, 2 do
    local seen = tonumber(string.match(nodes[i + 1], '^%S+ (%d+)'))
    if not seen or seen < now - 3600000 then redis.call('HDEL', KEYS[1], nodes[i]) end
end
if told then redis.call('PUBLISH', KEYS[4], '{"beat":' .. ARGV[1] .. '}') end
return {string.format('%d', now), redis.call('GET', KEYS[3]), before, nodes, redis.call('HGETALL', KEYS[2])}
"""
"""A sign of life: the server's number, its start, an epoch if there is none, what it calls itself, how many tags it takes, those,
and the tags that it has. The others are told of a new start and of tags that are taken. The answer: the millisecond, the epoch,
what stood there of this server, all servers, all tags."""


class Store(Protocol):
    """A Redis (``sipgw.redis.client.Redis``)."""

    async def script(self, lua: str, keys: Any, arguments: Any = (), *, again: bool = False, limit: float = 0) -> Any:
        """Run a script."""

    async def publish(self, channel: str, message: str) -> int:
        """Tell all that listen."""

    def subscribe(
        self, channel: str, heard: Callable[[str], None], resumed: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Listen."""


class Members:
    """Cluster ``number``, of which this server is the member ``me``.

    ``active``: the tags that it is to have from the start. ``life``: seconds. ``user`` runs coroutines and timers and logs.
    ``on_tag(tag, active, why)`` hears when this server gets or loses a tag; ``on_member(number, up)`` when another one comes or
    goes; ``on_back()`` when Redis is there (again), after ``on_forgotten()`` if it has forgotten everything;
    ``on_message(dict)`` of what others say."""

    def __init__(
        self, user: Any, redis: Store, number: int, me: int, active: Iterable[str] = (), *, life: float = 4.0, name: str = ""
    ) -> None:
        self._user = user
        self.redis = redis
        self.number = number
        self.me = me
        self.life = life
        self._name = name
        self._start = urandom(6).hex()
        self.holders: dict[str, int] = dict.fromkeys(active, me)
        """Tags, each with the server that has it; 0: nobody has taken it yet."""
        self._taking = dict.fromkeys(active)
        self._mine = set(active)
        self.seen: dict[int, float] = {me: 0.0}
        """Every server that is known, with the monotonic second at which it was there for certain."""
        self.names: dict[int, str] = {me: name}
        self.alive: frozenset[int] = frozenset((me,))
        self.epoch = ""
        """Names this life of Redis: another one knows nothing of what was before."""
        self.born = 0.0
        """The monotonic second when it began."""
        self.away = "it has not been asked yet"
        """Why Redis cannot be asked; empty while it can."""
        self._back_since = 0.0
        self._busy = False
        self._again = False
        self._timer: Any = None
        self._unsubscribe: Callable[[], None] | None = None
        self.on_tag: list[Callable[[str, bool, str], None]] = []
        self.on_member: list[Callable[[int, bool], None]] = []
        self.on_back: list[Callable[[], None]] = []
        self.on_forgotten: list[Callable[[], None]] = []
        self.on_message: list[Callable[[dict[str, Any]], None]] = []

    def key(self, what: str) -> str:
        """The key of something that the servers of this cluster share; all are in one slot."""
        return f"sipgw:{{cluster:{self.number}}}:{what}"

    # -- what is known

    def has(self, tag: str) -> bool:
        """Whether ``tag`` is active here. COMPAT: one that nobody has heard of is known from now on."""
        return self.holders.setdefault(tag, 0) == self.me

    def holder(self, tag: str) -> int:
        """The server for which ``tag`` is active; 0 if it is for none that is known."""
        return self.holders.get(tag, 0)

    # -- what is done

    async def start(self) -> None:
        """Give the first sign of life, and go on; without Redis, too."""
        await self._beat()
        self._unsubscribe = self.redis.subscribe(self.key("all"), self._heard, self.beat)
        self._later()

    def stop(self) -> None:
        """Give no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._unsubscribe is not None:
            self._unsubscribe()

    def take(self, tag: str, why: str) -> None:
        """Let ``tag`` be active here and nowhere else."""
        self._taking[tag] = None
        self._turn(tag, self.me, why)
        self.beat()

    async def say(self, message: dict[str, Any]) -> int:
        """Tell the others; ``RedisFault`` if that cannot be. How many have heard it, this server among them."""
        return await self.redis.publish(self.key("all"), json.dumps({**message, "from": self.me}))

    def beat(self) -> None:
        """Give a sign of life now."""
        if self._busy:
            self._again = True
        else:
            self._user.launch(self._beat())

    def _later(self) -> None:
        def due(_now: float) -> None:
            self.beat()
            self._later()

        self._timer = self._user.after(self.life / 4, due)

    async def _beat(self) -> None:
        self._busy = True
        taking = [*self._taking]
        mine = [tag for tag, holder in self.holders.items() if holder == self.me and tag not in self._taking]
        keys = [self.key(what) for what in ("nodes", "tags", "epoch", "all")]
        arguments = [self.me, self._start, urandom(8).hex(), self._name or "-", len(taking), *taking, *mine]
        try:
            answer = await self.redis.script(BEAT, keys, arguments, again=True, limit=min(PATIENCE, self.life / 2))
        except RedisFault as error:
            if not self.away:
                self._user.log(-1, f"cluster {self.number}: Redis cannot be asked, everybody goes on alone: {error}")
            self.away = str(error) or "Redis does not answer"
        else:
            for tag in taking:
                del self._taking[tag]
            self._take(answer)
        finally:
            self._busy = False
            if self._again:
                self._again = False
                self.beat()

    def _take(self, answer: Any) -> None:
        """Learn from the answer to a sign of life."""
        now, epoch, before, nodes, tags = answer
        clock = self._user.clock()
        back = bool(self.away) or epoch != self.epoch
        forgotten = bool(self.epoch) and epoch != self.epoch
        if back:
            self._back_since = clock
            if self.epoch:
                self._user.log(2, f"cluster {self.number}: Redis can be asked again")
        self.away, self.epoch = "", str(epoch)
        self.born = clock - (int(now) - int(self.epoch.rpartition("-")[2])) / 1000
        self._warn_of_twin(str(before), int(now))
        for number, text in zip(nodes[::2], nodes[1::2], strict=True):
            _, seen, name = f"{text} 0 -".split(" ")[:3]
            if int(number) != self.me:
                self.seen[int(number)] = clock - (int(now) - int(seen)) / 1000
                self.names[int(number)] = name
        self._count_alive(clock)
        holders = {str(tag): int(holder) for tag, holder in zip(tags[::2], tags[1::2], strict=True)}
        for tag, holder in holders.items():
            if tag not in self._taking:
                why = f"cluster broadcast from {holder}" if holder != self.me else "what Redis has"
                self._turn(tag, holder, why)
        if forgotten:
            for told in tuple(self.on_forgotten):
                told()
        if back:
            for told in tuple(self.on_back):
                told()

    def _warn_of_twin(self, before: str, now: int) -> None:
        start, _, rest = before.partition(" ")
        seen = rest.partition(" ")[0]
        if start and start != self._start and self.seen[self.me] and seen and now - int(seen) < self.life * 1000:
            why = f"cluster {self.number}: another server says that it is member {self.me} too: give each its my_node_id"
            self._user.log_rarely(("twin", self.number), -1, why)
        self.seen[self.me] = self._user.clock()

    def _count_alive(self, clock: float) -> None:
        """See who is there; for a while after Redis was away, whoever was there before."""
        fresh = {number for number, seen in self.seen.items() if clock - seen < self.life}
        if clock - self._back_since < self.life:
            fresh |= self.alive
        fresh.add(self.me)
        before, self.alive = self.alive, frozenset(fresh)
        for number in sorted(self.alive ^ before):
            up = number in self.alive
            self._user.log(2, f"cluster {self.number}: member {number} is {'there' if up else 'gone'}")
            for told in tuple(self.on_member):
                told(number, up)

    def _turn(self, tag: str, holder: int, why: str) -> None:
        before = self.holders.get(tag, 0)
        self.holders[tag] = holder
        if (before == self.me) is not (holder == self.me):
            for told in tuple(self.on_tag):
                told(tag, holder == self.me, why)

    def _heard(self, text: str) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        if "beat" in message:
            if message["beat"] != self.me:
                self.beat()
        elif message.get("from") != self.me:
            for told in tuple(self.on_message):
                told(message)
