"""Dialogs that several servers share by a Redis: each has all of them in memory, and any can go on with a call (decision 0044).

A call that is answered becomes a record in Redis (``dialog_records.py``), and every change of it another *version* of that
record: a number that one counter gives, so that it says which came first. Whoever writes says which version he knows; if there is
a newer one he is given that, puts the two together, and writes again. All are told of each version by a channel; who has missed
some, because he or Redis was away, compares his versions with those in Redis (``sync``). A call that is over is noted for an
hour, so that nobody brings it back; then Redis has forgotten all of it.

All that is done once for a call - its end when its time is over, pings - is done by its *owner*: the server that has its sharing
tag, or else the one where it began. When that one is gone the others divide its calls among them, without asking each other, by
a hash; only the pings of a call with a tag wait for who has the tag. Before the owner ends a call he writes that it is over: the
one who did is told so, and nobody else does it.

While Redis is away each server goes on with the calls that it knows. What has changed is written when it is back, and if it has
forgotten everything, all of it is.

Keys: ``dialog:ID``, ``dialogs`` (ids by their versions), ``over`` (ids by the millisecond of their end), ``version``."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from sipgw.proxy.deadlines import Deadlines
from sipgw.proxy.dialog_records import Record, Records, merge
from sipgw.proxy.dialogs import Call, State
from sipgw.proxy.following import Follower
from sipgw.redis.errors import RedisFault

__all__ = ["Counted", "DialogSharing", "Meeting"]

KEPT: Final = "shared"
"""Where a call keeps its ``Version``."""
RETRY: Final = 1.0
"""Seconds after which a Redis that could not be asked is asked again."""
PATIENCE: Final = 3.0
"""Seconds that one command may take."""
TRIES: Final = 20
"""How often what two have changed is put together before it waits for its next turn."""
ALONE: Final = 30.0
"""Seconds after the end of a call's time when whoever is not its owner ends it, if nobody can be asked."""
LATE: Final = 2.0
"""Seconds after which whoever is not the owner of a call looks again whether that has ended it."""
AFTERWARDS: Final = 600
"""Seconds for which a record stays after the end of the call's time."""
REMEMBERED: Final = 60.0
"""Seconds for which it is remembered here that a call is over."""
CHUNK: Final = 200
"""Records that are read at a time."""

WRITE: Final = """
local id, known, over = ARGV[1], ARGV[2], ARGV[3]
if redis.call('ZSCORE', KEYS[3], id) then return 'over' end
local found = redis.call('GET', KEYS[1])
if found and over ~= 'now' and string.match(found, '^%d+') ~= known then return found end
local version = redis.call('INCR', KEYS[4])
local told = version .. ' ' .. ARGV[4] .. ' ' .. id .. ' '
if over == '' then
    redis.call('SET', KEYS[1], version .. ' ' .. ARGV[6], 'PX', ARGV[5])
    redis.call('ZADD', KEYS[2], version, id)
    redis.call('PUBLISH', KEYS[5], told .. ARGV[6])
else
    local t = redis.call('TIME')
    local now = t[1] * 1000 + math.floor(t[2] / 1000)
    redis.call('DEL', KEYS[1])
    redis.call('ZREM', KEYS[2], id)
    redis.call('ZADD', KEYS[3], string.format('%d', now), id)
    redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('(%d', now - 3600000))
    redis.call('PUBLISH', KEYS[5], told)
end
return version
"""
"""Writes a record: the id, the version that the writer knows, whether the call is over ("", "now", "if" nothing has changed), who
writes, for how many milliseconds it stays, the record. The new version; the record that is there, if that is another one; or
"over" if it was so already."""


class Counted(Protocol):
    """What is counted."""

    create_sent: Any
    update_sent: Any
    delete_sent: Any
    create_recv: Any
    update_recv: Any
    delete_recv: Any
    processed: Any


class Meeting(Protocol):
    """The cluster (``redis.members.Members``)."""

    redis: Any
    me: int
    alive: frozenset[int]
    away: str
    epoch: str
    on_back: list[Callable[[], None]]
    on_member: list[Callable[[int, bool], None]]

    def key(self, what: str) -> str:
        """A key of this cluster."""

    def has(self, tag: str) -> bool:
        """Whether this server has a tag, which is known from now on."""

    def holder(self, tag: str) -> int:
        """The server that has a tag."""


class Version:
    """What is known of the record of a call: its ``number``, in which life of Redis (``epoch``), what it said, and at which
    server (``home``) the call began."""

    __slots__ = ("base", "epoch", "home", "number")

    def __init__(self, home: int) -> None:
        self.home = home
        self.number = 0
        self.epoch = ""
        self.base: Record = {}


class DialogSharing:
    """Shares the calls of ``follower`` with the others of ``meeting``. ``auto``: what others have changed while Redis was away is
    read as soon as it is back."""

    def __init__(self, follower: Follower, meeting: Meeting, records: Records, counted: Counted, auto: bool = True) -> None:
        self._follower = follower
        self._user = follower.user
        self._meeting = meeting
        self._redis = meeting.redis
        self._records = records
        self._counted = counted
        self._auto = auto
        self._changed: dict[Call, None] = {}
        self._telling = False
        self._stop: Callable[[], None] | None = None
        self._stopped = False
        self._late: Deadlines[Call] = Deadlines(self._user.clock, self._user.after, self._look_again)
        self.syncing = False
        self._sync_again = False
        self._over: dict[int, float] = {}
        """Calls of which was heard that they are over, each with the monotonic second: what was read before comes too late."""
        self._ending: set[int] = set()
        """Calls that have ended here, of which the others are yet to be told."""

    # -- what the follower tells and asks (``following.Sharing``)

    def changed(self, call: Call) -> None:
        """Something of a call has changed that the others must know."""
        if call.state >= State.ANSWERED:
            if call.state is State.DELETED and KEPT in call.kept:
                self._ending.add(call.number)
            self._changed[call] = None
            self._wake()

    def tag(self, call: Call, tag: str) -> None:
        """Give ``call`` a sharing tag."""
        call.tag_of_sharing = tag
        self._meeting.has(tag)
        self._follower.tell_others(call)

    def owns(self, call: Call) -> bool:
        """Whether what is done once for a call is done here; one that nobody else knows is always ours."""
        return KEPT not in call.kept or self._owner(call) == self._meeting.me

    def pings(self, call: Call) -> bool:
        """Whether its two sides are pinged from here."""
        tag = call.tag_of_sharing
        if tag and self._meeting.holder(tag):
            return self._meeting.holder(tag) == self._meeting.me
        return self.owns(call)

    def _owner(self, call: Call) -> int:
        meeting = self._meeting
        owner = meeting.holder(call.tag_of_sharing) if call.tag_of_sharing else 0
        if not owner:
            version = call.kept.get(KEPT)
            owner = meeting.me if version is None else version.home
        if owner in meeting.alive:
            return owner
        return max(meeting.alive, key=lambda node: blake2b(f"{node} {call.number}".encode(), digest_size=8).digest())

    def due(self, call: Call) -> bool:
        """Whether it is ours to do what is to be done when the time of ``call`` is over; else it is asked again later."""
        late = self._user.clock() - call.ends
        if self.owns(call) or (self._meeting.away and late > ALONE):
            return True
        self._late.set(call, self._user.clock() + LATE)
        return False

    def _look_again(self, call: Call) -> None:
        if call.state is not State.DELETED and call.ends <= self._user.clock():
            self._follower.overdue(call)

    def expire(self, call: Call, go: Callable[[], None]) -> None:
        """Call ``go()`` if nobody else has ended ``call``, once Redis has said so."""
        if self._meeting.away:
            go()
        else:
            self._user.launch(self._claim(call, call.ends, go))

    async def _claim(self, call: Call, due: float, go: Callable[[], None]) -> None:
        """End a call if nobody else has, and nobody has given it more time."""
        version = self._version(call)
        try:
            answer = await self._script(call, version, "if", {})
        except RedisFault:
            answer = 0
        if call.state is State.DELETED or call.ends != due:
            return
        if isinstance(answer, int):
            if answer:
                self._counted.delete_sent.value += 1
                del call.kept[KEPT]
            go()
        elif answer == "over":
            self.gone(call)
        else:
            self._learn(call, version, str(answer))

    # -- writing

    def _version(self, call: Call) -> Version:
        version: Version | None = call.kept.get(KEPT)
        if version is None:
            version = call.kept[KEPT] = Version(self._meeting.me)
        if version.epoch != self._meeting.epoch:  # another life of Redis, which knows nothing of this call
            version.epoch, version.number = self._meeting.epoch, 0
        return version

    def _keys(self, number: int) -> list[str]:
        key = self._meeting.key
        return [key(f"dialog:{number}"), key("dialogs"), key("over"), key("version"), key("dialog")]

    async def _script(self, call: Call, version: Version, over: str, record: Record) -> Any:
        left = max(0.0, call.ends - self._user.clock()) + AFTERWARDS
        text = json.dumps({**record, "home": version.home}, separators=(",", ":")) if record else ""
        arguments = [call.number, version.number, over, self._meeting.me, int(left * 1000), text]
        return await self._redis.script(WRITE, self._keys(call.number), arguments, limit=PATIENCE)

    def _wake(self) -> None:
        if not self._telling and not self._stopped:
            self._telling = True
            self._user.launch(self._tell())

    async def _tell(self) -> None:
        while self._changed:
            call = next(iter(self._changed))
            del self._changed[call]
            try:
                await self._write(call)
            except RedisFault as error:
                self._changed.setdefault(call)
                self._user.log_rarely("shared dialogs", -1, f"dialog: the other servers are not told of calls: {error}")
                if self._stopped:
                    break
                await self._pause()
        self._telling = False

    async def _pause(self) -> None:
        pause: Deferred[None] = Deferred()
        self._user.after(RETRY, lambda _now: pause.callback(None))
        await pause

    async def _write(self, call: Call) -> None:
        """Write what has become of a call."""
        for _ in range(TRIES):
            over = call.state is State.DELETED
            if over and KEPT not in call.kept:
                return  # nobody knows of it
            version = self._version(call)
            record = {} if over else self._records.write(call, version.base)
            answer = await self._script(call, version, "now" if over else "", record)
            if answer == "over":
                if over:
                    self._note_over(call.number)
                else:
                    self.gone(call)
                return
            if isinstance(answer, int):
                counted = self._counted
                counter = counted.delete_sent if over else counted.update_sent if version.number else counted.create_sent
                counter.value += 1
                if over:
                    self._note_over(call.number)
                elif answer > version.number:  # else a newer one, made of it, has been heard of meanwhile
                    version.number, version.base = answer, record
                return
            if not over:
                self._learn(call, version, str(answer))
        self._changed.setdefault(call)

    def _learn(self, call: Call, version: Version, text: str) -> None:
        """Put together what others have made of a call and what we have."""
        number, _, rest = text.partition(" ")
        theirs = json.loads(rest)
        version.home = int(theirs.pop("home", version.home))
        mine = self._records.write(call, version.base)
        self._apply(call, merge(version.base or mine, mine, theirs))
        version.number, version.base = int(number), theirs

    # -- hearing

    async def start(self) -> None:
        """Read what is there, and listen."""
        if self._meeting.away:
            self._user.log(-1, "dialog: Redis cannot be asked: the calls of the other servers are not known yet")
        else:
            await self._sync_safely()
        self._stop = self._redis.subscribe(self._meeting.key("dialog"), self._heard, self._resumed)
        self._meeting.on_back.append(self._back)
        self._meeting.on_member.append(self._came)

    async def stop(self) -> None:
        """Tell what is left to be told, and listen no more."""
        self._stopped = True
        if self._stop is not None:
            self._stop()
        if self._changed and not self._meeting.away and not self._telling:
            await self._tell()

    def _resumed(self) -> None:
        """Messages may have been missed."""
        if self._auto and not self._stopped:
            self._user.launch(self._sync_safely())

    def _back(self) -> None:
        """Redis can be asked again: whatever is not there is written; what others have changed is read."""
        for call in self._follower.calls:
            version = call.kept.get(KEPT)
            if version is not None and version.epoch != self._meeting.epoch and call.state is not State.DELETED:
                self._changed[call] = None
        if self._changed:
            self._wake()
        self._resumed()

    def _came(self, number: int, up: bool) -> None:
        if up:
            self._resumed()

    def _heard(self, text: str) -> None:
        head, _, rest = text.partition(" ")
        node, _, rest = rest.partition(" ")
        number, _, record = rest.partition(" ")
        if int(node) == self._meeting.me:
            return
        if record:
            self._take(int(number), int(head), record)
            return
        self._note_over(int(number))
        call = self._follower.calls.by_number(int(number))
        if call is not None and call.state is not State.DELETED:
            self._counted.delete_recv.value += 1
            self.gone(call)

    def _note_over(self, number: int) -> None:
        now = self._user.clock()
        self._ending.discard(number)
        self._over.pop(number, None)
        self._over[number] = now
        while self._over[first := next(iter(self._over))] < now - REMEMBERED:
            del self._over[first]

    def _take(self, id_: int, number: int, text: str) -> None:
        """Learn of a version of a call."""
        if id_ in self._over or id_ in self._ending:
            return
        call = self._follower.calls.by_number(id_)
        version: Version | None = None if call is None else call.kept.get(KEPT)
        if version is not None and version.epoch == self._meeting.epoch and version.number >= number:
            return
        try:
            theirs = json.loads(text)
            home = int(theirs.pop("home"))
            if call is None:
                call = self._records.read(theirs)
                version = Version(home)
                call.kept[KEPT] = version
                self._counted.create_recv.value += 1
                self._counted.processed.value += 1
                self._follower.loaded(call, shared=True)
            elif call.state is State.DELETED:
                return
            else:
                version = self._version(call)
                version.home = home
                mine = self._records.write(call, version.base)  # it may have changed here, and be on its way
                self._counted.update_recv.value += 1
                self._apply(call, merge(version.base or mine, mine, theirs))
        except (ValueError, KeyError, TypeError) as error:
            self._user.log_rarely("shared dialog", -1, f"dialog: what another server tells of a call cannot be read: {error!r}")
            return
        version.epoch, version.number, version.base = self._meeting.epoch, number, theirs

    def _apply(self, call: Call, record: Record) -> None:
        if call.state is State.DELETED:
            return
        self._records.update(call, record)
        self._follower.updated(call, State(record["state"]))

    def gone(self, call: Call) -> None:
        """Another server has ended it."""
        self._note_over(call.number)
        self._changed.pop(call, None)
        self._follower.gone(call)

    # -- reading all

    async def _sync_safely(self) -> None:
        try:
            await self.sync()
        except RedisFault as error:
            self._user.log_rarely("shared dialogs", -1, f"dialog: the calls of other servers cannot be read: {error}")
            if not self._stopped:
                self._user.after(RETRY, lambda _now: self._resumed())

    async def sync(self, tag: str | None = None) -> int:
        """Read what others have changed that has not been heard of; how many calls. ``tag``: only those with that sharing tag."""
        self._sync_again = True
        if self.syncing:
            return 0  # whoever reads just now reads once more: what was missed may stand where he has read already
        self.syncing = True
        count = 0
        try:
            while self._sync_again:
                self._sync_again = False
                count += await self._sync(tag)
                tag = None
        finally:
            self.syncing = False
        return count

    async def _sync(self, tag: str | None) -> int:
        key, epoch = self._meeting.key, self._meeting.epoch
        known = {call.number: call for call in self._follower.calls if KEPT in call.kept}
        listed = await self._redis.command("ZRANGE", key("dialogs"), 0, -1, "WITHSCORES", again=True, limit=PATIENCE)
        over = await self._redis.command("ZRANGE", key("over"), 0, -1, again=True, limit=PATIENCE)
        there = dict(zip(map(int, listed[::2]), (int(float(each)) for each in listed[1::2]), strict=True))
        wanted = [
            number for number, version in there.items()
            if number not in known or known[number].kept[KEPT].epoch != epoch or known[number].kept[KEPT].number < version
        ]
        count = 0
        for begin in range(0, len(wanted), CHUNK):
            chunk = wanted[begin : begin + CHUNK]
            texts = await self._redis.command("MGET", *(key(f"dialog:{each}") for each in chunk), again=True, limit=PATIENCE)
            for number, text in zip(chunk, texts, strict=True):
                if text is None:
                    await self._redis.command("ZREM", key("dialogs"), number, again=True, limit=PATIENCE)
                    continue
                version, _, record = str(text).partition(" ")
                if tag is None or json.loads(record).get("tag") == tag:
                    self._take(number, int(version), record)
                    count += 1
        for number in map(int, over):
            call = self._follower.calls.by_number(number)
            if call is not None and call.state is not State.DELETED and (tag is None or call.tag_of_sharing == tag):
                self._counted.delete_recv.value += 1
                self.gone(call)
        self._bring_back(epoch, {*there, *map(int, over)})
        return count

    def _bring_back(self, epoch: str, there: set[int]) -> None:
        """Write the calls that Redis does not know, such as those from a database."""
        for call in self._follower.calls:
            if call.number not in there and State.ANSWERED <= call.state < State.DELETED:
                version = call.kept.get(KEPT)
                if version is None or version.epoch != epoch:
                    self._changed[call] = None
        if self._changed:
            self._wake()
