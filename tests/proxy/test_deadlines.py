"""Tests of sipgw.proxy.deadlines."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.deadlines import Deadlines
from sipgw.sip.timers import DelayQueues


class DeadlineTests(SynchronousTestCase):
    """Deadlines on a fake clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.timers = DelayQueues()
        self.told: list[object] = []
        self.deadlines = Deadlines(
            self.clock.seconds, lambda seconds, call: self.timers.add(seconds, self.clock.seconds(), call), self.told.append
        )

    def wait(self, seconds: int) -> None:
        """Let time pass, second by second."""
        for _ in range(seconds):
            self.clock.advance(1)
            self.timers.expire(self.clock.seconds())

    def test_order(self) -> None:
        """Each is told in its second, once, and not if it was lifted or put off."""
        for name, at in (("late", 5), ("soon", 2), ("never", 3), ("put off", 1)):
            self.deadlines.set(name, at)
        self.assertTrue(self.deadlines.lift("never"))
        self.assertFalse(self.deadlines.lift("never"))
        self.deadlines.set("put off", 4)
        self.wait(2)
        self.assertEqual(self.told, ["soon"])
        self.wait(10)
        self.assertEqual((self.told, len(self.deadlines)), (["soon", "put off", "late"], 0))

    def test_one_timer(self) -> None:
        """There is one timer however many deadlines come and go, and none when there is no deadline."""
        self.deadlines.set("a whole day", 86400)
        for number in range(100):
            self.deadlines.set(number, self.clock.seconds() + 1)
            self.assertEqual(len(self.timers), 1)
            self.wait(2)
        self.assertEqual(len(self.told), 100)
        self.assertLess(self.timers.held, 5)
        self.deadlines.lift("a whole day")
        self.assertEqual(len(self.timers), 0)
