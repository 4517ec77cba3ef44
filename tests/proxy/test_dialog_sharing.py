"""Tests of sipgw.proxy.dialog_sharing: servers that change the same calls at once, through a real Redis that comes and goes."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from twisted.internet.tcp import Client

from sipgw.proxy.dialog_records import Records
from sipgw.proxy.dialog_sharing import DialogSharing
from sipgw.proxy.dialogs import Call, Leg, Profile, State
from sipgw.proxy.following import Follower, Settings
from sipgw.statistics import Counter
from tests.modules.test_clusterer import Peer, Together

COUNTED = ("active", "early", "processed", "expired", "failed", "create_sent", "update_sent", "delete_sent", "create_recv",
           "update_recv", "delete_recv")


class Keeper(Peer):
    """A server that keeps calls and shares them."""

    def __init__(self, url: str, node: int) -> None:
        super().__init__(url, node)
        user = self.server.user
        counters = SimpleNamespace(**{name: Counter("dialog", name) for name in COUNTED})
        tm: Any = SimpleNamespace(wt_timer=0.05)
        self.follower = Follower(user, tm, Settings(), counters, lambda call, before, after: None)
        for name in ("plain", "with"):
            self.follower.profiles.declare(Profile(name, name == "with", "b"))
        self.counters = counters

    async def share(self) -> None:
        """Begin to share."""
        await self.start()
        user = self.server.user
        records = Records(self.follower.profiles, user.wall_clock, user.clock, lambda name: None)
        self.sharing = self.follower.sharing = DialogSharing(self.follower, self.cluster, records, self.counters)
        await self.sharing.start()

    async def stop(self) -> None:
        """End."""
        await self.sharing.stop()
        self.server.user.timers = type(self.server.user.timers)()
        await super().stop()

    def begin(self, number: int) -> None:
        """A call is answered here."""
        clock = self.server.user.clock()
        call = Call(number, f"call{number}", Leg("a", "<sip:a@h>"), "<sip:b@h>", clock)
        call.answering("b")
        call.state, call.ends, call.started = State.ANSWERED, clock + 1000, self.server.user.wall_clock()
        self.follower.loaded(call, shared=True)
        self.follower.save(call)

    def calls(self) -> dict[int, tuple[Any, ...]]:
        """What is known of the calls that go on."""
        return {
            call.number: (dict(call.values), sorted(call.profiles), sorted(call.marks), call.caller.cseq, call.state)
            for call in self.follower.calls if call.state is not State.DELETED
        }


class SharingTests(Together):
    """Three servers."""

    async def keepers(self) -> list[Keeper]:
        """The servers."""
        made = [Keeper(self.redis.url, node) for node in (1, 2, 3)]
        self.addCleanup(self.until, self.closed)
        for each in made:
            self.addCleanup(each.stop)
            await each.share()
        await self.until(lambda: all(each.cluster.alive == {1, 2, 3} for each in made))
        return made

    @staticmethod
    def closed() -> bool:
        """Whether no connection is left."""
        from twisted.internet import reactor

        clients: Any = reactor
        return not any(isinstance(each, Client) for each in clients.getReaders())

    def act(self, random: Random, keeper: Keeper, step: int) -> None:
        """Something happens to a call."""
        living = [call for call in keeper.follower.calls if call.state is not State.DELETED]
        if not living or random.random() < 0.1:
            keeper.begin(step * 10 + keeper.cluster.me)
            return
        call = random.choice(living)
        match random.randrange(6):
            case 0:
                call.values[random.choice("xyz")] = step
            case 1:
                call.values.pop(random.choice("xyz"), None)
            case 2:
                keeper.follower.profiles.enter(call, "with", random.choice("pq"))
            case 3:
                keeper.follower.profiles.leave(call, "with", random.choice("pq"))
            case 4:
                call.caller.cseq = max(call.caller.cseq, step)
                call.marks ^= {random.choice("mn")}
            case 5 if random.random() < 0.3:
                keeper.follower.end(call, "test")
                return
        keeper.follower.save(call)

    async def agree(self, keepers: list[Keeper]) -> None:
        """Wait until all know the same, and count what they know."""

        def same() -> bool:
            first, *others = (keeper.calls() for keeper in keepers)
            return all(other == first for other in others) and not any(keeper.sharing._telling for keeper in keepers)

        await self.until(same)
        for keeper in keepers:
            living = [call for call in keeper.follower.calls if call.state is not State.DELETED]
            self.assertEqual(keeper.counters.active.value, len(living))
            self.assertEqual(keeper.follower.profiles.size("with"), sum(len(call.profiles) for call in living))
            self.assertEqual([text for level, text in keeper.server.lines if "cannot be read" in text or "bug" in text], [])

    async def test_all_at_once(self) -> None:
        """Whatever they do to the same calls at the same time, in the end all know the same; nothing that one has set is lost."""
        keepers = await self.keepers()
        random = Random(7)
        for step in range(150):
            for keeper in keepers:
                self.act(random, keeper, step)
            if step % 3 == 0:
                await self.pause(0.003)
        await self.agree(keepers)
        keepers[0].begin(5)
        await self.agree(keepers)
        for number, keeper in enumerate(keepers):
            call = keeper.follower.calls.by_number(5)
            assert call is not None
            call.values[f"of{number}"] = number
            keeper.follower.profiles.enter(call, "with", f"of{number}")
            keeper.follower.save(call)
        await self.agree(keepers)
        profiles = [("with", f"of{number}") for number in range(3)]
        self.assertEqual(keepers[0].calls()[5][:2], ({"of0": 0, "of1": 1, "of2": 2}, profiles))

    async def test_redis_comes_and_goes(self) -> None:
        """The same while Redis is killed and comes back with nothing: what goes on goes on, what is over stays so."""
        keepers = await self.keepers()
        random = Random(11)
        for outage in range(2):
            for step in range(40):
                for keeper in keepers:
                    self.act(random, keeper, outage * 100 + step)
            await self.agree(keepers)
            self.redis.kill()
            over = set()
            for step in range(20):
                for keeper in keepers:
                    before = {*keeper.calls()}
                    self.act(random, keeper, outage * 100 + 50 + step)
                    over |= before - {*keeper.calls()}
            await self.pause(0.3)
            self.redis.start()
            await self.agree(keepers)
            self.assertEqual(over & {*keepers[0].calls()}, set())
        for keeper in keepers:
            for call in tuple(keeper.follower.calls):
                keeper.follower.end(call, "test")
        await self.agree(keepers)
        self.assertEqual(keepers[0].calls(), {})
        self.assertEqual(self.redis.ask("ZCARD", keepers[0].cluster.key("dialogs")), b":0\r\n")
