"""Tests of sipgw.core.locks."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.locks import PATIENCE, Locks


class LockTests(SynchronousTestCase):
    """Who holds a lock, and who waits."""

    def setUp(self) -> None:
        """Locks on a clock."""
        self.clock = Clock()
        self.locks = Locks(self.clock.callLater)

    def acquire(self, key: str, holder: str) -> Deferred[bool]:
        """Try to get a lock."""
        return Deferred.fromCoroutine(self.locks.acquire(key, holder))

    def test_free(self) -> None:
        """A free lock is there at once; different keys are different locks."""
        self.assertTrue(self.successResultOf(self.acquire("a", "x")))
        self.assertTrue(self.successResultOf(self.acquire("b", "y")))
        self.locks.release("a")
        self.locks.release("a")
        self.assertTrue(self.successResultOf(self.acquire("a", "z")))

    def test_order(self) -> None:
        """Those who wait get it in their order; nothing is left in the end."""
        waiting = [self.acquire("a", holder) for holder in "xyz"]
        self.assertTrue(self.successResultOf(waiting[0]))
        self.assertNoResult(waiting[1])
        self.locks.release("a")
        self.assertTrue(self.successResultOf(waiting[1]))
        self.assertNoResult(waiting[2])
        self.locks.release("a")
        self.assertTrue(self.successResultOf(waiting[2]))
        self.locks.release("a")
        self.assertEqual((self.locks._holders, self.locks._waiting, self.clock.getDelayedCalls()), ({}, {}, []))

    def test_itself(self) -> None:
        """Nobody waits for himself."""
        self.acquire("a", "x")
        self.assertFalse(self.successResultOf(self.acquire("a", "x")))

    def test_too_late(self) -> None:
        """A lock that nobody gives back is not waited for without end; those who came later still wait their time."""
        self.acquire("a", "x")
        first = self.acquire("a", "y")
        self.clock.advance(1)
        second = self.acquire("a", "z")
        self.clock.advance(PATIENCE - 1)
        self.assertFalse(self.successResultOf(first))
        self.assertNoResult(second)
        self.locks.release("a")
        self.assertTrue(self.successResultOf(second))
        third = self.acquire("a", "w")
        self.clock.advance(PATIENCE)
        self.assertFalse(self.successResultOf(third))
        self.assertEqual(self.locks._waiting, {})
