"""Tests of sipgw.modules.statistics."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules import statistics
from sipgw.modules.statistics import StatisticsModule
from sipgw.testing import finished, pass_time
from tests.doubles import FakeVariable, fake_server, request, run_of
from tests.modules.scripted import Scripted


class CounterTests(SynchronousTestCase):
    """Counters by name."""

    def setUp(self) -> None:
        """A server that counts requests, and the module with a group of its own."""
        self.server = fake_server()
        self.received = self.server.statistics.counter("core", "rcv_requests")
        self.load = self.server.statistics.gauge("load", "load", lambda: 7)
        self.run_ = run_of(request(), self.server.user)
        self.module = self.made(stat_groups="method, packet")

    def made(self, *declared: str, **parameters: Any) -> StatisticsModule:
        """The module, started."""
        module = StatisticsModule(self.server, **parameters)
        for text in declared:
            module.set_parameter("variable", text)
        finished(module.start())
        return module

    def values(self) -> dict[str, int]:
        """What the server counts."""
        return {f"{s.group}:{s.name}": s.read() for s in self.server.statistics}

    def test_update(self) -> None:
        """A counter is made when it is first used, in the group that its name begins with; any other one can be changed too."""
        steps = ("a", 3), ("a", -5), ("method:inv", 2), ("dynamic:b", 1), ("rcv_requests", 10), ("core:rcv_requests", 1)
        for name, value in steps:
            self.assertTrue(self.module.update_stat(self.run_, name, value))
        self.assertTrue(self.module.update_stat(self.run_, "load", 5))
        self.assertEqual(
            self.values(),
            {"core:rcv_requests": 11, "load:load": 7, "dynamic:a": -2, "method:inv": 2, "dynamic:b": 1},
        )

    def test_unknown_group(self) -> None:
        """None is made in a group that was not named, or without a name."""
        for name in ("nosuch:a", "core:new", "", "method:"):
            self.assertFalse(self.module.update_stat(self.run_, name, 1), name)
            self.assertIsNone(self.module.stat(self.run_, name))
        self.assertEqual(set(self.values()), {"core:rcv_requests", "load:load"})
        self.assertIn("the stat_groups have no 'nosuch'", self.server.user.logged[0][1])

    def test_declared(self) -> None:
        """``variable`` makes counters of the group "script", of which some are never reset."""
        module = self.made("calls", "total/no_reset")
        for name in ("calls", "total"):
            module.update_stat(self.run_, name, 3)
            self.assertTrue(module.reset_stat(self.run_, name))
        self.assertEqual((self.values()["script:calls"], self.values()["script:total"]), (0, 3))

    def test_declared_group(self) -> None:
        """A declared name may begin with a group, which must be named too."""
        self.made("packet:lost", stat_groups="packet")
        self.assertEqual(self.values()["packet:lost"], 0)
        self.assertRaises(ValueError, self.made, "packet:late")

    def test_read(self) -> None:
        """``$stat`` finds statistics by their bare names or with their group; what is not there is null and is not made."""
        self.received.value = 5
        for name, value in (("rcv_requests", 5), ("core:rcv_requests", 5), ("load", 7), ("a", None), ("method:inv", None)):
            self.assertEqual(self.module.stat(self.run_, name), value)
        self.assertEqual(len(self.values()), 2)

    def test_set(self) -> None:
        """``$stat`` can be set to zero, whatever number is given; nothing else is a number."""
        self.received.value = 5
        self.assertTrue(self.module.set_stat(self.run_, "rcv_requests", 0))
        self.assertEqual((self.received.value, self.server.user.logged), (0, []))
        self.received.value = 5
        self.assertTrue(self.module.set_stat(self.run_, "rcv_requests", 9))
        self.assertFalse(self.module.set_stat(self.run_, "rcv_requests", None))
        self.assertFalse(self.module.set_stat(self.run_, "rcv_requests", "0"))
        self.assertEqual((self.received.value, len(self.server.user.logged)), (0, 3))
        self.assertTrue(self.module.set_stat(self.run_, "load", 0))
        self.assertEqual(self.load.read(), 7)

    def test_bound(self) -> None:
        """Names that come from messages cannot make statistics without end."""
        self.patch(statistics, "MAX_MADE", 3)
        done = [self.module.update_stat(self.run_, f"ua{number}", 1) for number in range(5)]
        self.assertEqual(done, [True, True, True, False, False])
        self.assertTrue(self.module.update_stat(self.run_, "ua0", 1))

    def test_iterator(self) -> None:
        """The statistics of a group come one by one, with their bare names; several iterators do not disturb one another."""
        self.module.update_stat(self.run_, "method:a", 97)
        self.module.update_stat(self.run_, "method:b", 98)
        name, value = FakeVariable(), FakeVariable()
        self.assertFalse(self.module.stat_iter_next(self.run_, name, value, "it"))
        self.assertTrue(self.module.stat_iter_init(self.run_, "method", "it"))
        self.assertTrue(self.module.stat_iter_init(self.run_, "core", "other"))
        for iterator in ("it", "other", "it"):
            self.assertTrue(self.module.stat_iter_next(self.run_, name, value, iterator))
        self.assertFalse(self.module.stat_iter_next(self.run_, name, value, "it"))
        self.assertEqual((name.values, value.values), (["a", "rcv_requests", "b"], [97, 0, 98]))
        self.assertFalse(self.module.stat_iter_init(self.run_, "nosuch", "it"))
        self.assertTrue(self.module.stat_iter_init(self.run_, "packet", "it"))

    def test_parameters(self) -> None:
        """Wrong parameters are refused when the configuration is read."""
        for name, value in (
            ("variable", ""), ("variable", "x/reset"), ("stat_groups", "a,,b"), ("stat_groups", "a:b"),
            ("stat_series_profile", "x"),
        ):
            self.assertRaises(ValueError, StatisticsModule, None, **{name: value})


class SeriesTests(SynchronousTestCase):
    """update_stat_series."""

    def test_series(self) -> None:
        """A series is a statistic of its profile's group that follows the clock."""
        script = Scripted(
            """
            update_stat_series("avg", "pdd", 10); update_stat_series("avg", "pdd", 21);
            update_stat_series("sum", "pdd", 5);
            xlog("L_ALERT", "$stat(avg:pdd) $stat(pdd) $stat(calls:pdd) $(stat(avg:none))");
            """,
            "statistics",
            rest="""
            modparam("statistics", "stat_series_profile", "avg: algorithm=average window=10")
            modparam("statistics", "stat_series_profile", "sum: window=30 group=calls")
            """,
        )
        self.assertEqual(script.send(), ["15 15 5 <null>"])
        pass_time(script.clock, 11)
        found = {f"{s.group}:{s.name}": s.read() for s in script.server.statistics if s.name == "pdd"}
        self.assertEqual(found, {"avg:pdd": 0, "calls:pdd": 5})

    def test_wrong(self) -> None:
        """An unknown profile, a name that is a counter and too many names are refused."""
        server = fake_server()
        module = StatisticsModule(server, stat_series_profile="p: group=dynamic")
        finished(module.start())
        run = run_of(request(), server.user)
        self.patch(statistics, "MAX_MADE", 2)
        module.update_stat(run, "taken", 1)
        self.assertFalse(module.update_stat_series(run, "nosuch", "x", 1))
        self.assertFalse(module.update_stat_series(run, "p", "taken", 1))
        self.assertFalse(module.update_stat_series(run, "p", "", 1))
        self.assertTrue(module.update_stat_series(run, "p", "x", 1))
        self.assertFalse(module.update_stat_series(run, "p", "y", 1))
        self.assertEqual(len(server.user.logged), 4)
        self.assertTrue(module.update_stat(run, "x", 5))
        self.assertEqual(module.stat(run, "x"), 1)


class ScriptTests(SynchronousTestCase):
    """A whole script."""

    def test_script(self) -> None:
        """Counters are changed, read, gone through and reset."""
        script = Scripted(
            """
            update_stat("calls", 1); update_stat("method:$rm", 1); update_stat("method:other", 2);
            stat_iter_init("method", "it");
            while (stat_iter_next($var(name), $var(value), "it"))
                xlog("L_ALERT", "$var(name)=$var(value)");
            $stat(calls) = 0;
            xlog("L_ALERT", "$stat(calls) $stat(method:OPTIONS) $stat(rcv_requests)");
            """,
            "statistics",
            rest="""
            modparam("statistics", "variable", "calls")
            modparam("statistics", "stat_groups", "method")
            """,
        )
        self.assertEqual(script.send(), ["OPTIONS=1", "other=2", "0 1 1"])
