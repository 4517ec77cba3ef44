"""Location tables that several servers share by a Redis: ``Shared`` (full-sharing-cachedb) and ``Federated``
(federation-cachedb), OpenSIPS's clusters without a clusterer.

*Shared*: all contacts are in Redis, servers have none. A user is a hash ``usrloc:TABLE:AOR``: for each contact its id and a JSON
object with the columns of the table ``location``, beside them ``values`` (of ul_add_key) and ``token``, which each write changes.
One script writes a user, and only if the token is still the one that was read; whoever comes too late reads again and decides
anew, so that no server overwrites what it has not seen. The key lasts as long as the contact that lasts longest.

*Federated*: contacts stay in the memory of the server that they registered with, its *home*. In Redis are only the homes of
each user, a hash ``usrloc-homes:TABLE:AOR`` with the address of each home and the second at which its last contact ends.
``lookup`` with the flag ``global`` sends calls to the other homes too, by way of ``sip:HOME``; a server that was asked by another
must look up without that flag.

Nothing is acknowledged before Redis has answered. OpenSIPS keeps such data in MongoDB, Cassandra or RediSearch by names of its
own, so it cannot share with sipgw."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import datetime
from itertools import count
from math import ceil, inf
from os import urandom
from typing import Any, Final, Protocol
from urllib.parse import quote

from twisted.internet.defer import Deferred

from sipgw.proxy.location import Binding, LocationTable, binding_key
from sipgw.proxy.location_drafts import Conflict, Draft, Drafted, Fetched, NotStored, Remote
from sipgw.proxy.location_rows import Rows, contact_id
from sipgw.redis.errors import RedisFault
from sipgw.sip.uri import Uri

__all__ = ["Federated", "Shared", "Store"]

PATIENCE: Final = 3.0
"""Seconds that one command may take."""
PAUSE: Final = 0.5
"""Seconds after a failure for which nothing is asked."""
USER: Final = "-_.!~*'()&=+$,/"
"""What may stand in the user of a URI as it is, beside letters and digits (RFC 3261 25.1)."""
MOST: Final = 100_000
"""Users that are shown at most."""

WRITE: Final = """
if (redis.call('HGET', KEYS[1], 'token') or '') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) return 1 end
local last = 4 + tonumber(ARGV[4])
for i = 5, last do redis.call('HDEL', KEYS[1], ARGV[i]) end
for i = last + 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], 'token', ARGV[2])
if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
return 1
"""
"""Writes a user: the token that was read, the new one (empty: nobody is left), the end in milliseconds since 1970 (0: never), how
many fields go and which, fields and values."""

PUBLISH: Final = """
local now, ends = tonumber(ARGV[3]), tonumber(ARGV[2])
if ends < 0 then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ends) end
local last = -1
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local at = tonumber(all[i + 1])
    if at == 0 then last = 0
    elseif at <= now then redis.call('HDEL', KEYS[1], all[i])
    elseif last ~= 0 and at > last then last = at end
end
if last == 0 then redis.call('PERSIST', KEYS[1]) elseif last > 0 then redis.call('EXPIREAT', KEYS[1], last) end
return 1
"""
"""Writes one home of a user: its address, the second at which it ends (0: never, -1: now), the second it is. Homes that have
ended are forgotten."""


class Store(Protocol):
    """A Redis (``sipgw.redis.client.Redis``)."""

    async def command(self, *arguments: Any, again: bool = False, limit: float = 0) -> Any:
        """Send one command."""

    async def script(
        self, lua: str, keys: Sequence[Any], arguments: Sequence[Any] = (), *, again: bool = False, limit: float = 0
    ) -> Any:
        """Run a script."""

    async def keys(self, pattern: str, count: int = 1000) -> list[str]:
        """All keys that fit a pattern."""


def _pairs(reply: Any) -> dict[str, str]:
    """The fields of a hash."""
    values = [] if reply is None else [str(each) for each in reply]
    return dict(zip(values[::2], values[1::2], strict=True))


class _OfRedis(Drafted):
    """What both kinds have in common. A Redis that falls may forget: while it is away nothing is promised."""

    lasts = False

    def __init__(self, name: str, redis: Store, rows: Rows, *, launch: Callable[[Any], None], **options: Any) -> None:
        super().__init__(name, **options)
        self._redis = redis
        self._rows = rows
        self._launch = launch
        self._away = ""
        self._until = 0.0

    def failing(self) -> str:
        """Why nothing can be asked now: for a moment after a failure nobody waits for another one."""
        return self._away if self._away and self._rows.user.clock() < self._until else ""

    def _failed(self, error: RedisFault) -> NotStored:
        self._away = str(error) or "Redis does not answer"
        self._until = self._rows.user.clock() + PAUSE
        return NotStored(self._away)

    def _store(self, draft: Draft, stored: Callable[[], None], lost: Callable[[], None]) -> Deferred[None]:
        answer: Deferred[None] = Deferred()
        self._launch(self._storing(draft, stored, lost, answer))
        return answer

    async def _storing(
        self, draft: Draft, stored: Callable[[], None], lost: Callable[[], None], answer: Deferred[None]
    ) -> None:
        try:
            await self._write(draft)
        except Conflict as error:
            answer.errback(error)
        except RedisFault as error:
            lost()
            answer.errback(self._failed(error))
        else:
            stored()
            answer.callback(None)

    async def _write(self, draft: Draft) -> None:
        """Write a draft; ``RedisFault`` or ``Conflict`` if that has not been done."""
        raise NotImplementedError

    async def _read(self, key: str) -> dict[str, str]:
        if self.failing():
            raise NotStored(self._away)
        try:
            return _pairs(await self._redis.command("HGETALL", key, again=True, limit=PATIENCE))
        except RedisFault as error:
            raise self._failed(error) from error

    def _since_1970(self, bindings: Sequence[Binding]) -> int:
        """The second by which all of ``bindings`` are over; 0 if one never is, -1 if there are none."""
        if not bindings:
            return -1
        last = max(binding.expires for binding in bindings)
        return 0 if last == inf else ceil(self._rows.user.wall_clock() + last - self._rows.user.clock())


class Shared(_OfRedis, Remote):
    """All contacts in Redis."""

    def __init__(self, name: str, redis: Store, rows: Rows, **options: Any) -> None:
        super().__init__(name, redis, rows, **options)
        self._tokens = count(1)
        self._self = urandom(6).hex()

    def number(self, binding: Binding) -> int:
        """Its contact id."""
        return contact_id(binding.aor, binding.contact)

    def number_beside(self, binding: Binding, others: Set[int]) -> int:
        """Its contact id beside others."""
        return contact_id(binding.aor, binding.contact, others)

    def state(self, binding: Binding) -> str:
        """Whatever was read is as it is there."""
        return "CS_SYNC"

    def _key(self, aor: str) -> str:
        return f"usrloc:{self.name}:{aor}"

    async def _fetch(self, aor: str, now: float) -> Fetched:
        fields = await self._read(self._key(aor))
        token = fields.pop("token", "")
        values = json.loads(fields.pop("values", "{}"))
        bindings = []
        over = []
        for field, text in fields.items():
            binding = self._binding(text)
            if binding is None or binding.expires <= now:
                over.append(field)
            else:
                bindings.append(binding)
        if self.by_time:
            bindings.sort(key=lambda each: -each.modified)
        else:
            bindings.sort(key=lambda each: (-each.q, each.modified))
        return Fetched(bindings, values if bindings else {}, (token, over))

    def _binding(self, text: str) -> Binding | None:
        """The contact that ``_text`` has written; None if somebody else wrote it."""
        try:
            row = json.loads(text)
            row[self._rows.columns.last_modified] = datetime.fromtimestamp(row[self._rows.columns.last_modified])
            return self._rows.load([row[name] for name in self._rows.read]).binding
        except (ValueError, KeyError, TypeError):
            return None

    def _text(self, binding: Binding) -> str:
        names, since = self._rows.columns, self._rows.user.wall_clock() - self._rows.user.clock()
        row: dict[str, Any] = dict(self._rows.store(self.name, binding, {}).values)
        row[names.last_modified] = round(since + binding.modified, 3)
        if binding.expires != inf:
            row[names.expires] = round(since + binding.expires, 3)
        return json.dumps(row, separators=(",", ":"))

    async def _write(self, draft: Draft) -> None:
        aor = draft.aor
        there = draft.bindings(aor)
        token, over = draft.mark
        gone = [*over, *map(str, draft.gone)]
        fields: list[str] = []
        for binding in (*draft.altered.values(), *draft.added.values()):
            fields += [str(binding.serial), self._text(binding)]
        if draft.kept:
            if draft.values(aor):
                fields += ["values", json.dumps(dict(draft.values(aor)), separators=(",", ":"))]
            else:
                gone.append("values")
        new = f"{self._self}.{next(self._tokens)}" if there else ""
        ends = max(0, self._since_1970(there)) * 1000
        written = await self._redis.script(
            WRITE, [self._key(aor)], [token, new, ends, len(gone), *gone, *fields], limit=PATIENCE
        )
        if not written:
            raise Conflict(f"another server has changed {aor} meanwhile")

    async def records(self) -> Mapping[str, Sequence[Binding]]:
        """All that is there."""
        found: dict[str, Sequence[Binding]] = {}
        prefix = self._key("")
        pattern = "".join(f"\\{char}" if char in "*?[]\\" else char for char in prefix)
        try:
            keys = await self._redis.keys(f"{pattern}*")
        except RedisFault as error:
            raise self._failed(error) from error
        now = self._rows.user.clock()
        for key in sorted(keys)[:MOST]:
            aor = key.removeprefix(prefix)
            bindings = (await self._fetch(aor, now)).bindings
            if bindings:
                found[aor] = bindings
        return found


class Federated(_OfRedis):
    """Contacts in memory, and in Redis who has any; ``home`` is the address by which other servers reach this one."""

    def __init__(self, name: str, redis: Store, rows: Rows, *, home: str, **options: Any) -> None:
        super().__init__(name, redis, rows, **options)
        self.home = home

    def _key(self, aor: str) -> str:
        return f"usrloc-homes:{self.name}:{aor}"

    async def _write(self, draft: Draft) -> None:
        ends = self._since_1970(draft.bindings(draft.aor))
        now = int(self._rows.user.wall_clock())
        await self._redis.script(PUBLISH, [self._key(draft.aor)], [self.home, ends, now], again=True, limit=PATIENCE)

    async def everywhere(self, aors: Sequence[str], now: float) -> LocationTable:
        """A table with the contacts of ``aors`` here, and one for each other home, to be read."""
        made = LocationTable(self.name, tick=self.tick, by_time=self.by_time)
        wall = self._rows.user.wall_clock()
        for aor in dict.fromkeys(aors):
            for binding in self.live(aor, now):
                made.insert(binding.copy())
            for home, text in (await self._read(self._key(aor))).items():
                ends = int(text)
                if home != self.home and (ends == 0 or ends > wall):
                    user, _, domain = aor.rpartition("@")
                    contact = f"sip:{quote(user, USER, errors='surrogateescape')}@{domain}" if user else f"sip:{domain}"
                    expires = now + ends - wall if ends else inf
                    other = Binding(aor, contact, binding_key(Uri.parse(contact)), expires, "", 0, now)
                    other.received = f"sip:{home}"
                    made.insert(other)
        return made
