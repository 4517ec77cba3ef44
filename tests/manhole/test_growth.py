"""Tests of profile and leaks."""

from __future__ import annotations

import signal
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.manhole.growth import leak_finder, profiler


class Kept:
    """Something to leak."""


class GrowthTests(SynchronousTestCase):
    """Both tools."""

    def test_profile(self) -> None:
        """Time is found at the line of the script and the function that take it; afterwards nobody looks."""
        before = signal.getsignal(signal.SIGPROF)
        self.addCleanup(signal.signal, signal.SIGPROF, before)
        clock = Clock()
        names: dict[str, Any] = {"time": time}
        exec(compile("def busy(end):\n    while time.process_time() < end:\n        pass\n", "/etc/some.cfg", "exec"), names)
        profile = profiler(clock, lambda: ["/etc/some.cfg"])
        made: Deferred[Any] = profile(5)
        with self.assertRaises(ValueError):
            profile(5)
        names["busy"](time.process_time() + 0.1)
        clock.advance(5)
        found = self.successResultOf(made)
        self.assertGreater(found.samples, 3)
        self.assertEqual(signal.getitimer(signal.ITIMER_PROF), (0.0, 0.0))
        self.assertRegex(repr(found), r"(?s)\d/etc/some.cfg:2|[\d.]+  /etc/some.cfg:[23]\n.*busy \(some.cfg:1\)")

    def test_leaks(self) -> None:
        """What has become more is told."""
        leaks = leak_finder()
        self.assertIn("objects that came after the start", repr(leaks()))
        kept = [Kept() for _ in range(5000)]
        self.assertIn("+5000  tests.manhole.test_growth.Kept", repr(leaks()))
        self.assertNotIn("Kept", repr(leaks()))
        self.assertEqual(len(kept), 5000)
