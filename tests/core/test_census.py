"""Tests of sipgw.core.census: objects counted by type, some at a time."""

from __future__ import annotations

import tracemalloc
from sys import getsizeof

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core import census as subject
from sipgw.core.census import census
from sipgw.testing import FakeServer


class Thing:
    """Something to be counted."""


class CensusTests(SynchronousTestCase):
    """Counts on a clock."""

    def setUp(self) -> None:
        self.server = FakeServer()

    def test_counts(self) -> None:
        """Types are listed with their numbers and octets, those first that take most."""
        things = [Thing() for _ in range(3)]
        lists = [[0] * 100, [0] * 50]
        lines = self.successResultOf(ensureDeferred(census(self.server.user.after, [*things, *lists])))
        self.assertRegex(lines[0], r"^memory: [0-9]+ octets resident, [0-9]+ at most$")
        self.assertRegex(lines[1], r"^memory: 5 objects that came after the start, [0-9]+ from before it$")
        self.assertEqual(
            lines[2:4],
            [
                f"memory: 2 of builtins.list: {sum(map(getsizeof, lists))} octets",
                f"memory: 3 of {Thing.__module__}.Thing: {3 * getsizeof(things[0])} octets",
            ],
        )

    def test_slices(self) -> None:
        """No more than so many objects are looked at in one turn."""
        self.patch(subject, "SLICE", 2)
        objects = [Thing() for _ in range(5)]
        done = ensureDeferred(census(self.server.user.after, [*objects]))
        for _ in range(2):
            self.assertNoResult(done)
            self.server.reactor.advance(subject.PAUSE)
        self.assertIn("memory: 5 of", self.successResultOf(done)[2])

    def test_all(self) -> None:
        """Without objects all of Python's are counted, and no list is longer than a screen."""
        self.patch(subject, "SLICE", 1 << 30)
        lines = self.successResultOf(ensureDeferred(census(self.server.user.after)))
        self.assertEqual(len(lines), 2 + subject.TYPES)

    def test_places(self) -> None:
        """Where Python traces allocations, their places are listed."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        kept = [bytes(100_000)]
        lines = self.successResultOf(ensureDeferred(census(self.server.user.after, [])))
        self.assertEqual(len(kept), 1)
        self.assertTrue(any(f"from {__file__}:" in line for line in lines), lines)
