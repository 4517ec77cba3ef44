"""Tests of sipgw.proxy.location_shared on a real Redis: two tables of two servers."""

from __future__ import annotations

import time
from math import inf
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from sipgw.modules.cachedb_redis import CachedbRedis
from sipgw.proxy.location import Binding, LocationTable, binding_key, find_contact
from sipgw.proxy.location_drafts import Conflict
from sipgw.proxy.location_rows import Rows
from sipgw.proxy.location_shared import Federated, Shared
from sipgw.sip.uri import Uri
from sipgw.testing import FakeServer
from tests.servers import redis as servers

AOR = "bob@example.org"


def bind(table: LocationTable, contact: str, expires: float = inf, aor: str = AOR) -> Binding:
    """Put one binding into ``table``."""
    binding = Binding(aor, contact, binding_key(Uri.parse(contact)), expires, "call", 1, 0)
    table.insert(binding)
    return binding


def unbind(table: LocationTable, contact: str) -> None:
    """Take a binding out of ``table``."""
    found = find_contact(table.bindings(AOR), contact)
    assert found is not None
    table.remove(found)


class SharedTests(TestCase):
    """Tables of the name "location" on one Redis."""

    timeout = 30

    def setUp(self) -> Any:
        """Have a connection."""
        return ensureDeferred(self.connect())

    async def connect(self) -> None:
        """Open it."""
        from twisted.internet import reactor

        if servers.missing():
            raise SkipTest(servers.missing())
        self.redis = servers.redis()
        self.redis.restore()
        self.redis.ask("FLUSHALL")
        self.server = FakeServer()
        user: Any = self.server.user
        self.user = user
        self.server.reactor = reactor
        user.clock, user.wall_clock = time.monotonic, time.time
        module = CachedbRedis(self.server)
        await module.start()
        self.client: Any = (await user.caches.open(self.redis.url)).redis

        loop: Any = reactor

        def stop() -> Any:
            return ensureDeferred(module.stop()).addCallback(lambda _: deferLater(loop, 0.02, lambda: None))

        self.addCleanup(stop)

    def table(self, kind: Any = Shared, **options: Any) -> Any:
        """The table of one server."""
        return kind("location", self.client, Rows(self.user), launch=self.user.launch, broken=self.user.broken, **options)

    async def contacts(self, table: Any, aor: str = AOR) -> list[str]:
        """What is bound."""
        return sorted(each.contact for each in (await table.view([aor], self.user.clock())).bindings(aor))

    async def test_conflict(self) -> None:
        """Who has read before another has written does not overwrite that, but begins again with what is there."""
        one, other = self.table(), self.table()
        for first, second, left in [
            (lambda draft: bind(draft, "sip:a@h"), lambda draft: bind(draft, "sip:b@h"), ["sip:a@h", "sip:b@h"]),
            (lambda draft: unbind(draft, "sip:a@h"), lambda draft: bind(draft, "sip:c@h"), ["sip:b@h", "sip:c@h"]),
            (
                lambda draft: bind(draft, "sip:d@h"),
                lambda draft: [draft.remove(each) for each in list(draft.bindings(AOR))],
                [],
            ),
        ]:
            mine, theirs = await one.draft(AOR, 0), await other.draft(AOR, 0)
            first(mine)
            second(theirs)
            await one.commit(mine)
            await self.assertFailure(ensureDeferred(other.commit(theirs)), Conflict)
            waiting = ensureDeferred(other.draft(AOR, 0))
            theirs = await other.again(theirs, 0)
            second(theirs)
            self.assertFalse(waiting.called)
            await other.commit(theirs)
            other.leave(await waiting)
            self.assertEqual((await self.contacts(one), await self.contacts(other)), (left, left))
        self.assertEqual(self.redis.ask("KEYS", "*"), b"*0\r\n")

    async def test_work(self) -> None:
        """A change that meets another one is made again by itself; all who change at once are served."""
        tables = [self.table() for _ in range(3)]

        def add(number: int) -> Any:
            return lambda draft: bind(draft, f"sip:c{number}@h")

        working = [ensureDeferred(tables[number % 3].work(AOR, 0, add(number))) for number in range(12)]
        for each in working:
            await each
        self.assertEqual(await self.contacts(tables[0]), sorted(f"sip:c{number}@h" for number in range(12)))

    async def test_whole(self) -> None:
        """All of a contact comes back, and the values of its user; what somebody else wrote is left out, and goes."""
        table = self.table()
        now = self.user.clock()

        def make(draft: LocationTable) -> None:
            made = bind(draft, "sip:a@h", now + 60)
            made.path, made.attr, made.q, made.user_agent, made.cseq, made.modified = "<sip:p;lr>", "\udcff'", 500, "x", 9, now
            draft.keep(AOR, "k", "v\n")

        await table.work(AOR, now, make)
        self.redis.ask("HSET", f"usrloc:location:{AOR}", "77", "no JSON")
        view = await table.view([AOR, "nobody@h"], now)
        found = view.bindings(AOR)[0]
        self.assertEqual((found.path, found.attr, found.q, found.user_agent, found.cseq), ("<sip:p;lr>", "\udcff'", 500, "x", 9))
        self.assertEqual((found.seconds_left(now), view.values(AOR), len(view)), (60, {"k": "v\n"}, 1))
        self.assertEqual({aor: len(each) for aor, each in (await table.records()).items()}, {AOR: 1})
        self.assertEqual(await self.contacts(table), ["sip:a@h"])
        await table.work(AOR, now, lambda draft: bind(draft, "sip:b@h"))
        self.assertEqual(self.redis.ask("HEXISTS", f"usrloc:location:{AOR}", "77"), b":0\r\n")
        self.assertEqual(self.redis.ask("TTL", f"usrloc:location:{AOR}"), b":-1\r\n")
        self.assertEqual(await self.contacts(table), ["sip:a@h", "sip:b@h"])
        self.assertEqual([each.contact for each in (await table.view([AOR], now + 61)).live(AOR, now + 61)], ["sip:b@h"])

    async def test_homes(self) -> None:
        """Each server tells until when it has contacts; what has ended is forgotten."""
        one, other = (self.table(Federated, home=f"192.0.2.{number}:5060") for number in (1, 2))
        now = self.user.clock()
        aor = "a b@example.org"
        await one.work(aor, now, lambda draft: bind(draft, "sip:a@h", now + 60, aor))
        await other.work(aor, now, lambda draft: bind(draft, "sip:b@h", inf, aor))
        there = await one.everywhere([aor], now)
        self.assertEqual(
            [(each.contact, each.received) for each in there.bindings(aor)],
            [("sip:a@h", None), ("sip:a%20b@example.org", "sip:192.0.2.2:5060")],
        )
        self.assertEqual(self.redis.ask("TTL", f"usrloc-homes:location:{aor}"), b":-1\r\n")
        await other.work(aor, now, lambda draft: draft.remove(draft.bindings(aor)[0]))
        self.assertEqual([each.contact for each in (await one.everywhere([aor], now)).bindings(aor)], ["sip:a@h"])
        self.redis.ask("HSET", f"usrloc-homes:location:{aor}", "192.0.2.9:5060", "1000")
        self.assertEqual(len((await one.everywhere([aor], now)).bindings(aor)), 1)
        await one.work(aor, now, lambda draft: draft.remove(draft.bindings(aor)[0]))
        self.assertEqual(self.redis.ask("KEYS", "*"), b"*0\r\n")
