"""Tests of sipgw.modules.benchmark."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi.jsonrpc import MIError
from sipgw.modules import benchmark
from sipgw.modules.benchmark import Benchmark
from sipgw.script.run import Run
from sipgw.testing import pass_time
from tests.doubles import FakeUser, request, run_of
from tests.modules.scripted import Scripted
from tests.modules.scripted import request as message


class BenchmarkTests(SynchronousTestCase):
    """Timers and commands."""

    def setUp(self) -> None:
        """A transaction user with a clock."""
        self.user = FakeUser()

    def measure(self, module: Benchmark, *microseconds: int, name: str = "t") -> Run:
        """Let a timer run for so long, each time in a run of its own."""
        for took in microseconds:
            run = run_of(request(), self.user)
            module.bm_start_timer(run, name)
            self.user.seconds += took / 1_000_000
            module.bm_log_timer(run, name)
        return run

    def test_log(self) -> None:
        """After so many measurements a line tells about these and about all."""
        module = Benchmark(enable=1, granularity=2, loglevel=2)
        self.measure(module, 10, 30, 20)
        self.assertEqual(
            self.user.logged,
            [(2, "benchmark (timer t [0]): 30 [ msgs/total/min/max/avg - LR: 2/40/10/30/20.000000 | GB: 2/40/10/30/20.000000]")],
        )
        self.measure(module, 5)
        self.assertEqual(
            self.user.logged[1:],
            [(2, "benchmark (timer t [0]): 5 [ msgs/total/min/max/avg - LR: 2/25/5/20/12.500000 | GB: 4/65/5/30/16.250000]")],
        )

    def test_difference(self) -> None:
        """``$BM_time_diff`` is what this message measured last."""
        module = Benchmark(enable=1)
        run = run_of(request(), self.user)
        self.assertEqual(module.time_diff(run), 0)
        module.bm_log_timer(run, "never started")
        self.assertEqual(module.time_diff(run), 0)
        self.assertEqual(module.time_diff(self.measure(module, 1234)), 1234)

    def test_enable(self) -> None:
        """Timers measure where all do, or where a command has enabled them; -1 switches all off."""
        module = Benchmark(granularity=0)
        self.measure(module, 5)
        module.enable_timer("t", 1)
        self.measure(module, 6)
        self.measure(module, 7, name="other")
        module.enable_global(-1)
        self.measure(module, 8)
        module.enable_global(1)
        self.measure(module, 9, name="other")
        self.assertEqual(
            module.poll_results(),
            {"Timers": [
                {"name": "t", "local": "1/6/6/6/6.000000", "global": "1/6/6/6/6.000000"},
                {"name": "other", "local": "1/9/9/9/9.000000", "global": "1/9/9/9/9.000000"},
            ]},
        )

    def test_poll(self) -> None:
        """With granularity 0 nothing is logged; each time that they are asked for, the local figures begin anew."""
        module = Benchmark(enable=1, granularity=0)
        self.measure(module, 10, 20)
        module.poll_results()
        (found,) = module.poll_results()["Timers"]
        self.assertEqual((found["local"], found["global"]), ("0/0/0/0/0.000000", "2/30/10/20/15.000000"))
        self.assertEqual(self.user.logged, [])
        module.set_granularity(5)
        self.assertEqual(self.assertRaises(MIError, module.poll_results).code, 400)

    def test_commands(self) -> None:
        """The commands have their names in older releases, and refuse wrong values."""
        module = Benchmark()
        self.assertEqual(
            {command.full: command.aliases for command in module.commands()},
            {f"benchmark:{name}": (f"bm_{name}",) for name in
             ("enable_global", "enable_timer", "granularity", "loglevel", "poll_results")},
        )
        module.set_loglevel(-1)
        self.assertEqual(module.loglevel, -1)
        calls: list[tuple[Any, ...]] = [
            (module.enable_global, 7), (module.enable_timer, "t", 5), (module.enable_timer, "nope", 0),
            (module.set_granularity, -1), (module.set_loglevel, 99),
        ]
        for call, *arguments in calls:
            self.assertEqual(self.assertRaises(MIError, call, *arguments).code, 400)

    def test_bound(self) -> None:
        """Names that come from messages make no timers without end."""
        self.patch(benchmark, "MAX_TIMERS", 2)
        module = Benchmark(enable=1, granularity=0)
        for name in ("a", "b", "c"):
            self.measure(module, 1, name=name)
        self.assertEqual([timer["name"] for timer in module.poll_results()["Timers"]], ["a", "b"])

    def test_runs(self) -> None:
        """Messages that are served at the same time do not disturb one another."""
        script = Scripted(
            'bm_start_timer("x"); sleep(1); bm_log_timer("x"); xlog("L_ALERT", "$ci $BM_time_diff");',
            "benchmark", "cfgutils", rest='modparam("benchmark", "enable", 1)',
        )
        script.send(message(call_id="a", branch="a"))
        pass_time(script.clock, 0.5)
        script.send(message(call_id="b", branch="b"))
        pass_time(script.clock, 1)
        self.assertEqual(script.logged(), ["a 1000000", "b 1000000"])
