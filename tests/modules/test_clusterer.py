"""Tests of sipgw.modules.clusterer: servers that meet in a real Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.mi.commands import MIError
from sipgw.modules.cachedb_redis import CachedbRedis
from sipgw.modules.clusterer import Clusterer, read_state, read_tag
from sipgw.proxy.profile_counts import ProfileCounts
from sipgw.redis.members import Members
from tests.modules.test_cachedb_redis import RealServer
from tests.servers import redis as servers


class WrittenTests(SynchronousTestCase):
    """What stands in scripts."""

    def test_tags(self) -> None:
        """``tag/cluster=state`` with blanks as OpenSIPS takes it, and nothing else."""
        self.assertEqual(read_state("vip/1=active"), ("vip", 1, True))
        self.assertEqual(read_state(" vip 2 / 3 = backup".replace("p 2", "p2")), ("vip2", 3, False))
        for wrong in ("vip=active", "vip/x=active", "vip/0=active", "vip/1", "vip/1=on", "/1=active", "a b/1=active"):
            self.assertRaises(ValueError, read_state, wrong)
        self.assertEqual(read_tag("a/7"), ("a", 7))


class Peer:
    """A server with its own connection to Redis."""

    def __init__(self, url: str, node: int, *tags: str) -> None:
        self.server = RealServer()
        self.server.user._call_later = self.server.reactor.callLater
        self.store = CachedbRedis(self.server, query_timeout=1000)
        self.module = Clusterer(self.server, cachedb_url=url, my_node_id=node, ping_interval=1)
        for tag in tags:
            self.module.set_parameter("sharing_tag", tag)
        self.events: list[dict[str, Any]] = []

    async def start(self) -> Members:
        await self.store.start()
        await self.module.start()
        self.cluster = await self.module.join(1)
        self.cluster.on_tag.append(lambda tag, active, why: self.events.append({"tag": tag, "active": active, "why": why}))
        return self.cluster

    async def stop(self) -> None:
        await self.module.stop()
        await self.store.stop()
        if self.server.user._wake is not None:
            self.server.user._wake.cancel()


class Together(TestCase):
    """Servers and a Redis."""

    timeout = 40

    def setUp(self) -> None:
        if servers.missing():
            raise SkipTest(servers.missing())
        self.redis = servers.redis()
        self.redis.restore()
        self.redis.ask("FLUSHALL")
        self.addCleanup(self.redis.restore)

    async def until(self, true: Callable[[], bool], pause: float = 0.02) -> None:
        """Wait for it."""
        end = time.monotonic() + 20
        await self.pause(pause)
        while not true():
            self.assertLess(time.monotonic(), end)
            await self.pause(0.02)

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        from twisted.internet import reactor

        clock: Any = reactor
        await deferLater(clock, seconds, lambda: None)


class MeetingTests(Together):
    """Members of cluster 1."""

    async def peer(self, node: int, *tags: str) -> Peer:
        made = Peer(self.redis.url, node, *tags)
        self.addCleanup(lambda: self.until(lambda: True, pause=0.05))
        self.addCleanup(lambda: self.ended(made))
        await made.start()
        return made

    async def ended(self, peer: Peer) -> None:
        await peer.stop()

    async def test_tags(self) -> None:
        """A tag is active at one server, whoever took it last; the others hear at once, and say why."""
        one = await self.peer(1, "vip/1=active", "other/1=backup")
        two = await self.peer(2, "vip/1=backup")
        await self.until(lambda: one.cluster.alive == two.cluster.alive == {1, 2})
        self.assertEqual((one.cluster.has("vip"), two.cluster.has("vip"), two.cluster.holder("vip")), (True, False, 1))
        two.module.shtag_set_active("vip/1")
        self.assertTrue(two.cluster.has("vip"))
        await self.until(lambda: not one.cluster.has("vip"))
        self.assertEqual(one.events, [{"tag": "vip", "active": False, "why": "cluster broadcast from 2"}])
        self.assertEqual(two.events, [{"tag": "vip", "active": True, "why": "MI command"}])
        told = two.server.user.status.group("clusterer").identifier("sharing_tags").reports
        self.assertEqual([each.text for each in told], ["TAG <vip>, cluster 1, became active due to MI command"])
        self.assertEqual(one.module.list_shtags(), [
            {"Tag": "vip", "Cluster": 1, "State": "backup"}, {"Tag": "other", "Cluster": 1, "State": "backup"},
        ])
        self.assertEqual(one.module.list_nodes()["Clusters"][0]["Nodes"][0]["link_state"], "Up")
        for tag, status in (("vip", 400), ("vip/x", 400), ("vip/9", 404)):
            self.assertEqual(self.assertRaises(MIError, one.module.shtag_set_active, tag).code, status)

    async def test_gone(self) -> None:
        """Who gives no sign of life is gone after ``ping_interval``, its tags stay its own; who begins anew is back."""
        one = await self.peer(1, "vip/1=active")
        two = await self.peer(2)
        await self.until(lambda: one.cluster.alive == {1, 2})
        one.cluster.stop()
        await self.until(lambda: two.cluster.alive == {2})
        self.assertEqual((two.cluster.holder("vip"), two.module.count(), two.module.count_down()), (1, 2, 1))
        again = await self.peer(1)
        self.assertTrue(again.cluster.has("vip"))
        await self.until(lambda: two.cluster.alive == {1, 2})

    async def test_counts(self) -> None:
        """What the others count in profiles is added to one's own, for a while after the last word of them."""
        one, two = await self.peer(1), await self.peer(2)
        own: list[dict[str, dict[str, int]]] = [{"p": {"x": 1}}, {"p": {"x": 2, "y": 3}}]
        counts = [
            ProfileCounts(peer.server.user, peer.cluster, lambda number=number: own[number], 0.05, 0.6)  # type: ignore[misc]
            for number, peer in enumerate((one, two))
        ]
        for each in counts:
            self.addCleanup(each.stop)
            await each.start()
        await self.until(lambda: counts[0].others("p", "x") == 2 and counts[1].others("p", None) == 1)
        self.assertEqual((counts[0].others("p", None), counts[0].others("q", None)), (5, 0))
        self.assertEqual(counts[0].values("p"), {"x": 2, "y": 3})
        own[1] = {"p": {"y": 1}}
        await self.until(lambda: counts[0].others("p", None) == 1)
        await self.pause(1.0)
        self.assertEqual(counts[0].others("p", None), 1)
        late = ProfileCounts(one.server.user, one.cluster, dict, 9, 0.6)
        self.addCleanup(late.stop)
        await late.start()
        await self.until(lambda: late.others("p", "y") == 1)
        self.redis.freeze()
        await self.until(lambda: counts[0].others("p", None) == 0)
        self.redis.thaw()
        await self.until(lambda: counts[0].others("p", None) == 1)
        counts[1].stop()
        await self.until(lambda: counts[0].others("p", None) == 0)

    async def test_twin(self) -> None:
        """Two servers with the same number are told so."""
        one = await self.peer(1)
        await self.peer(1)
        await self.until(lambda: any("too: give each its my_node_id" in text for _, text in one.server.lines))

    async def test_without_redis(self) -> None:
        """Without Redis nobody is taken for gone; tags that are taken then are told when it is back, though it is empty."""
        one = await self.peer(1, "vip/1=active", "left/1=active")
        two = await self.peer(2)
        await self.until(lambda: one.cluster.alive == two.cluster.alive == {1, 2})
        epoch = one.cluster.epoch
        self.redis.stop()
        await self.until(lambda: bool(one.cluster.away and two.cluster.away))
        two.cluster.take("vip", "script variable")
        self.assertTrue(one.cluster.has("vip") and two.cluster.has("vip"))
        await self.until(lambda: True, pause=1.2)
        self.assertEqual(one.cluster.alive, {1, 2})
        self.redis.start()
        await self.until(lambda: not one.cluster.away and not two.cluster.away and one.cluster.epoch == two.cluster.epoch)
        await self.until(lambda: not one.cluster.has("vip"))
        await self.until(lambda: two.cluster.holder("left") == 1)
        self.assertNotEqual(one.cluster.epoch, epoch)
        self.assertEqual(one.cluster.alive, {1, 2})

    async def test_late_redis(self) -> None:
        """A server starts without Redis too."""
        self.redis.stop()
        one = await self.peer(1, "vip/1=active")
        self.assertTrue(one.cluster.has("vip") and one.cluster.away)
        self.redis.start()
        await self.until(lambda: not one.cluster.away)
        self.assertEqual(one.cluster.alive, {1})

    async def test_parameters(self) -> None:
        """What is missing is said."""
        for wanted, parameters in (
            ("my_node_id", {}), ("cachedb_url", {"my_node_id": 1}), ("at least 1", {"ping_interval": 0}),
        ):
            with self.assertRaisesRegex(ValueError, wanted):
                await Clusterer(RealServer(), **parameters).start()
