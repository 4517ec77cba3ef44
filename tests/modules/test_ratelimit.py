"""Tests of sipgw.modules.ratelimit: functions, variable, commands, and counting together with other machines."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.core.cachedb import CacheError
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.cachedb_redis import CachedbRedis
from sipgw.modules.ratelimit import Ratelimit, processor_times
from sipgw.testing import FakeServer, finished
from tests.doubles import FakeCache
from tests.modules.scripted import Scripted, request
from tests.modules.test_cachedb_redis import RealServer
from tests.servers import redis as servers

CHECK = """
if ($rm == "OPTIONS") { rl_check("$hdr(Subject)", 3, "$(hdr(User-Agent))"); }
else if ($rm == "INFO") { rl_dec_count("$hdr(Subject)"); }
else if ($rm == "UPDATE") { rl_reset_count("$hdr(Subject)"); }
xlog("L_ALERT", "$rc $rl_count($hdr(Subject))");
"""


class RatelimitTests(SynchronousTestCase):
    """Scripts on a wire; the interval is one second."""

    def setUp(self) -> None:
        self.number = 0

    def make(self, *modules: str, rest: str = "", body: str = CHECK) -> Scripted:
        """A server with the module."""
        return Scripted(body, *modules, "ratelimit", rest=f'modparam("ratelimit", "timer_interval", 1)\n{rest}')

    def send(self, made: Scripted, name: str = "a", algorithm: str = "TAILDROP", method: str = "OPTIONS") -> list[str]:
        """Send one request; what is logged."""
        self.number += 1
        more = f"Subject: {name}\r\nUser-Agent: {algorithm}\r\n"
        return made.send(request(method, more=more, call_id=f"c{self.number}", branch=f"b{self.number}"))

    def call(self, made: Scripted, method: str, **params: Any) -> Any:
        """What a management command answers."""
        answer: Deferred[Any] = ensureDeferred(made.server.commands.call(method, params))
        return self.successResultOf(answer)

    def refused(self, made: Scripted, method: str, **params: Any) -> tuple[int, str]:
        """How a management command fails."""
        asked: Deferred[Any] = ensureDeferred(made.server.commands.call(method, params))
        error = self.failureResultOf(asked, MIError).value
        return error.code, error.message

    def test_functions(self) -> None:
        """Checks count, whether they pass or not; counts are lowered and reset; pipes that are not there are told."""
        made = self.make()
        self.assertEqual([self.send(made) for _ in range(4)], [["1 1"], ["1 2"], ["1 3"], ["-1 4"]])
        self.assertEqual(self.send(made, method="INFO"), ["1 3"])
        self.assertEqual(self.send(made, method="UPDATE"), ["1 0"])
        self.assertEqual(self.send(made, "b", method="INFO"), ["rl_dec_count: there is no pipe 'b'", "-1 <null>"])
        self.assertEqual(self.send(made, "b", method="UPDATE"), ["rl_reset_count: there is no pipe 'b'", "-1 <null>"])
        self.assertEqual([self.send(made, "s", "SBT") for _ in range(4)][3], ["-1 4"])

    def test_odd(self) -> None:
        """What is no algorithm is the default one; a pipe keeps its own; without a store a shared pipe counts alone."""
        made = self.make()
        self.assertEqual(self.send(made, "a", "NOSUCH"), ["rl_check: unknown algorithm 'NOSUCH', TAILDROP counts", "1 1"])
        self.send(made, "a", "RED")
        self.assertEqual(self.call(made, "ratelimit:list", pipe="a")["Pipe"]["algorithm"], "TAILDROP")
        self.assertEqual(self.send(made, "b/r"), ["1 <null>"])
        self.assertEqual([self.send(made, "b") for _ in range(3)], [["1 2"], ["1 3"], ["-1 4"]])
        self.assertEqual(self.send(made, "c/s"), ["1 1"])
        self.assertEqual(self.send(made, "d/b", "red"), ["1 <null>"])
        self.assertEqual(self.send(made, "d"), ["1 2"])

    def test_feedback(self) -> None:
        """The first limit must be a percentage, and is that of all."""
        made = self.make(body='rl_check("$rU", $(hdr(Subject){s.int}), "FEEDBACK");\nxlog("L_ALERT", "$rc");')

        def check(limit: int) -> list[str]:
            self.number += 1
            return made.send(request(more=f"Subject: {limit}\r\n", call_id=f"c{self.number}", branch=f"b{self.number}"))

        self.assertEqual(check(300), ["rl_check: a limit of FEEDBACK is a percentage, not 300", "1"])
        self.assertEqual((check(50), check(60)), (["1"], ["1"]))
        self.assertEqual(self.call(made, "ratelimit:list", pipe="bob")["Pipe"]["limit"], 50)
        module: Any = made.server.modules["ratelimit"]
        module.feedback.rate = 100
        self.assertEqual(check(50), ["-1"])

    def test_values(self) -> None:
        """The names of the pipes come into an AVP, all or those that match."""
        body = CHECK + 'rl_values($avp(all)); rl_values($avp(some), "^A.$");\nxlog("L_ALERT", "$(avp(all)[*]) $(avp(some)[*])");'
        made = self.make(body=body)
        for name in ("a1", "b1"):
            self.send(made, name)
        self.assertEqual(self.send(made, "a2")[1], "a2, b1, a1 a2, a1")

    def test_commands(self) -> None:
        """Pipes are listed by name and pattern, dumped, reset; the controller's factors are set."""
        made = self.make()
        for name, algorithm in (("gw_1", "TAILDROP"), ("gw_2", "RED"), ("s", "SBT")):
            for _ in range(5):
                self.send(made, name, algorithm)
        made.clock.advance(1)
        one = {"id": "gw_1", "algorithm": "TAILDROP", "limit": 3, "counter": 5}
        two = {"id": "gw_2", "algorithm": "RED", "limit": 3, "counter": 5}
        slots = {"id": "s", "algorithm": "SBT", "limit": 3, "counter": 5}
        self.assertEqual(self.call(made, "ratelimit:list"), {"Pipes": [one, two, slots], "drop_rate": 0})
        self.assertEqual(self.call(made, "rl_list", filter="gw_*")["Pipes"], [one, two])
        self.assertEqual(self.call(made, "rl_list", filter_out="gw_[!2]")["Pipes"], [two, slots])
        self.assertEqual(self.call(made, "rl_list", pipe="gw_2"), {"Pipe": two, "drop_rate": 0})
        self.assertEqual(self.refused(made, "rl_list", pipe="none"), (404, "Pipe Not Found"))
        self.assertEqual(self.refused(made, "rl_list", pipe="s", filter="s")[0], -32602)
        dump = self.call(made, "rl_dump_pipe", pipe="s")
        self.assertEqual((dump["Total"], dump["Window"]["Bucket Total"], dump["Window"]["Window Size"]), (5, 5, 50))
        self.assertEqual([each for each in dump["Window"]["Buckets"] if each["Count"]], [{"Index": 44, "Count": 5}])
        self.assertNotIn("Window", self.call(made, "rl_dump_pipe", pipe="gw_1"))
        self.assertEqual(self.call(made, "rl_reset_pipe", pipe="s"), "OK")
        self.assertEqual(self.call(made, "rl_dump_pipe", pipe="s")["Total"], 0)
        for command in ("rl_dump_pipe", "rl_reset_pipe"):
            self.assertEqual(self.refused(made, command, pipe="none"), (404, "Pipe not found"))
        self.assertEqual(self.call(made, "rl_get_pid"), {"PID": {"ki": "-25.000", "kp": "0.000", "kd": "0.000"}})
        self.assertEqual(self.call(made, "rl_set_pid", ki="-5", kp=0.5, kd="1e1"), "OK")
        self.assertEqual(self.call(made, "rl_get_pid"), {"PID": {"ki": "-5.000", "kp": "0.500", "kd": "10.000"}})
        self.assertEqual(self.refused(made, "rl_set_pid", ki="x", kp=[], kd=1)[0], -32602)

    def test_forgotten(self) -> None:
        """A pipe that nobody uses is gone after its time."""
        made = self.make(rest='modparam("ratelimit", "expire_time", 2)')
        self.send(made)
        made.clock.pump([1, 1, 1])
        self.assertEqual(self.refused(made, "rl_list", pipe="a"), (404, "Pipe Not Found"))

    def test_refused(self) -> None:
        """Values that mean nothing, and a store that is not there, are told before anything starts."""
        for name in ("timer_interval", "expire_time", "window_size", "slot_period"):
            with self.assertRaisesRegex(ValueError, "at least 1"):
                Ratelimit(FakeServer(), **{name: 0})
        with self.assertRaisesRegex(ValueError, "unknown algorithm 'BLA'"):
            Ratelimit(FakeServer(), default_algorithm="BLA")
        for url, said in (("nosuch://", "no module has a store"), ("nonsense", "is no URL")):
            with self.assertRaisesRegex((CacheError, ValueError), said):
                finished(Ratelimit(FakeServer(), cachedb_url=url).start())

    def test_load(self) -> None:
        """The load of the machine is read where the kernel tells it."""
        busy, all_ = processor_times() or (0, 0)
        self.assertTrue(0 < busy < all_)
        self.assertIsNone(processor_times("/nonexistent"))
        self.assertIsNone(processor_times("/proc/version"))


class SharedTests(SynchronousTestCase):
    """Two machines that count in one store."""

    def setUp(self) -> None:
        self.cache = FakeCache()
        self.servers: list[FakeServer] = []

    def make(self) -> Ratelimit:
        """One machine."""
        server: Any = FakeServer()
        self.servers.append(server)
        server.user.caches.add("fakedb", "one", self.cache)
        made = Ratelimit(server, cachedb_url="fakedb:one://", timer_interval=1)
        finished(made.start())
        return made

    def check(self, made: Ratelimit, times: int = 1, algorithm: str | None = None) -> str:
        """What so many checks say."""
        run: Any = None
        return "".join("-+"[finished(made.rl_check(run, "gw/r", 4, algorithm))] for _ in range(times))

    def test_together(self) -> None:
        """Both count for both, and each takes its part off when its interval ends."""
        one, two = self.make(), self.make()
        self.assertEqual((self.check(one, 3), self.check(two, 3)), ("+++", "+--"))
        self.assertEqual(self.cache.values, {"rl_pipe_gw": 6})
        run: Any = None
        self.assertEqual((one.rl_count(run, "gw"), two.rl_count(run, "gw")), (3, 6))
        self.assertTrue(finished(one.rl_dec_count(run, "gw")))
        self.assertEqual(self.cache.values, {"rl_pipe_gw": 5})
        self.servers[0].reactor.advance(1)
        self.assertEqual(self.cache.values, {"rl_pipe_gw": 3})
        self.assertEqual(finished(one.rl_reset_count(run, "gw")), True)
        self.servers[1].reactor.advance(1)
        self.assertEqual(self.cache.values, {"rl_pipe_gw": 0})
        self.assertEqual(two.list_pipes(pipe="gw")["Pipe"]["counter"], 3)
        self.check(one)
        finished(one.stop())
        self.assertEqual(self.cache.values, {"rl_pipe_gw": 0})

    def test_red(self) -> None:
        """RED looks at the last interval of all machines together."""
        one, two = self.make(), self.make()
        self.check(one, 4, "RED")
        self.check(two, 5, "RED")
        self.servers[0].reactor.advance(1)
        self.assertEqual(self.check(one, 4), "+-+-")  # two has not taken its 5 off yet

    def test_down(self) -> None:
        """While the store cannot be asked each counts alone, and says so; then the common count goes on from where it was."""
        one = self.make()
        run: Any = None
        self.assertEqual(self.check(one, 2), "++")

        def broken() -> None:
            raise CacheError("it is gone")

        self.cache.before = broken
        self.assertEqual(self.check(one, 4), "++--")
        self.assertFalse(finished(one.rl_dec_count(run, "gw")))
        self.servers[0].reactor.advance(1)
        self.assertIn("fakedb:one does not count, each machine does for itself: it is gone", self.servers[0].lines[0][1])
        self.cache.before = lambda: None
        self.assertEqual(self.check(one), "+")
        self.assertEqual(self.cache.values, {"rl_pipe_gw": 3})
        self.servers[0].reactor.advance(1)
        self.assertEqual(self.cache.values, {"rl_pipe_gw": 0})

    def test_lost(self) -> None:
        """A store that has lost what was added is not left below 0."""
        one = self.make()
        self.check(one, 2)
        self.cache.values.clear()
        self.servers[0].reactor.advance(1)
        self.assertEqual(self.cache.values, {})


class RedisTests(TestCase):
    """Two machines that count in a real Redis."""

    timeout = 30

    def setUp(self) -> None:
        if servers.missing():
            raise SkipTest(servers.missing())
        self.redis = servers.redis()
        self.redis.restore()
        self.redis.ask("FLUSHALL")
        self.addCleanup(self.redis.restore)

    async def make(self) -> Ratelimit:
        """One machine; its intervals are longer than the test."""
        server = RealServer()
        cache = CachedbRedis(server, query_timeout=200)
        cache.set_parameter("cachedb_url", self.redis.url)
        await cache.start()
        self.addCleanup(lambda: ensureDeferred(cache.stop()).addCallback(lambda _: deferLater(server.reactor, 0.02, int)))
        made = Ratelimit(server, cachedb_url=self.redis.url, timer_interval=600, limit_per_interval=1)
        await made.start()
        return made

    def counted(self) -> int:
        """What Redis says."""
        return int(self.redis.ask("GET", "rl_pipe_gw").split(b"\r\n")[1])

    async def test_shared(self) -> None:
        """Both count for both; while Redis is frozen each counts alone; what each knows to have added it takes off when it stops.

        What Redis was asked for while it was frozen it does when it is thawed; that ends with the counter, in time."""
        one, two = await self.make(), await self.make()
        run: Any = None
        found = [await each.rl_check(run, "gw/r", 4) for each in (one, two, one, two, one)]
        self.assertEqual(found, [True, True, True, True, False])
        self.assertEqual(self.counted(), 5)
        self.assertGreater(int(self.redis.ask("TTL", "rl_pipe_gw")[1:]), 3590)
        self.redis.ask("EXPIRE", "rl_pipe_gw", "100")
        await one.stop()
        self.assertEqual(self.counted(), 2)
        self.redis.freeze()
        self.assertEqual([await two.rl_check(run, "gw/r", 4) for _ in range(3)], [True, True, False])
        self.redis.thaw()
        await two.stop()
        self.assertIn(self.counted(), range(4))
        self.assertLessEqual(int(self.redis.ask("TTL", "rl_pipe_gw")[1:]), 100)
