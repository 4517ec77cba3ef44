"""Tests of sipgw/sip/timers.py."""

from __future__ import annotations

import gc
import random
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.timers import MAX_QUEUES, DelayQueues, Delays, Timer

LENGTHS = [0.0, 0.5, 1.0, 2.0, 4.0, 5.0, 32.0]


class DelaysTests(SynchronousTestCase):
    """Timers fire once, in order of time, and never when cancelled."""

    def setUp(self):
        self.delays: Delays[str] = Delays()

    def popped(self, now: float) -> list[str]:
        """Everything due at ``now``, in the order in which it comes out."""
        found = []
        while (due := self.delays.pop(now)) is not None:
            found.append(due[0])
        return found

    def test_empty(self):
        """Without timers there is nothing to wake for and nothing due."""
        self.assertIsNone(self.delays.next())
        self.assertIsNone(self.delays.pop(1e9))
        self.assertEqual((len(self.delays), self.delays.held), (0, 0))

    def test_order_of_time(self):
        """Timers of different lengths come out in order of time, not of length or of start."""
        self.delays.add(4.0, 0.0, "late")
        self.delays.add(0.5, 0.0, "first")
        self.delays.add(0.5, 1.0, "second")
        self.delays.add(32.0, 0.0, "not yet")
        self.assertEqual(self.popped(5.0), ["first", "second", "late"])
        self.assertEqual(self.delays.next(), 32.0)
        self.assertEqual(len(self.delays), 1)

    def test_due_exactly(self):
        """A timer is due at its time, not a moment before."""
        self.delays.add(0.5, 1.0, "x")
        self.assertEqual(self.popped(1.4999), [])
        self.assertEqual(self.popped(1.5), ["x"])
        self.assertEqual(self.popped(1.5), [])

    def test_same_time(self):
        """Timers of one length due at one time come out in the order in which they were started."""
        for name in "abc":
            self.delays.add(1.0, 0.0, name)
        self.assertEqual(self.popped(1.0), ["a", "b", "c"])

    def test_event(self):
        """The event number travels with the subject."""
        self.delays.add(1.0, 0.0, "x", 7)
        self.assertEqual(self.delays.pop(1.0), ("x", 7))

    def test_cancel(self):
        """A cancelled timer does not fire, also when cancelled twice or after firing."""
        one, two = self.delays.add(1.0, 0.0, "one"), self.delays.add(1.0, 0.0, "two")
        one.cancel()
        one.cancel()
        self.assertEqual(self.popped(1.0), ["two"])
        two.cancel()
        self.assertEqual(self.popped(2.0), [])

    def test_cancelled_while_due(self):
        """A timer that is due at the same time as the one that cancels it does not fire."""
        self.delays.add(1.0, 0.0, "first")
        second = self.delays.add(1.0, 0.0, "second")
        self.assertEqual(self.delays.pop(1.0), ("first", 0))
        self.assertEqual(self.delays.next(), 1.0)
        second.cancel()
        self.assertIsNone(self.delays.pop(1.0))

    def test_cancel_frees(self):
        """What a cancelled timer was about is not kept until its turn comes."""
        subject: list[int] = []
        timer = Delays[list[int]]().add(32.0, 0.0, subject)
        before = len(gc.get_referrers(subject))
        timer.cancel()
        self.assertEqual(len(gc.get_referrers(subject)), before - 1)

    def test_firing_frees(self):
        """Nor does a timer that has fired keep it."""
        timer = self.delays.add(1.0, 0.0, "x")
        self.assertEqual(self.popped(1.0), ["x"])
        self.assertIsNone(timer.subject)

    def test_cancelled_leave(self):
        """Cancelled timers leave when their turn comes: their number is bounded by rate times length."""
        now = 0.0
        most = 0
        for _ in range(5000):
            self.delays.add(5.0, now, "x").cancel()
            now += 0.1
            self.delays.pop(now)
            most = max(most, self.delays.held)
        self.assertLessEqual(most, 52)
        self.assertIsNone(self.delays.pop(now + 5))
        self.assertEqual(self.delays.held, 0)
        self.assertIsNone(self.delays.next())

    def test_early_wake(self):
        """``next`` may be early when the first timer was cancelled, and is right after ``pop``."""
        self.delays.add(0.5, 0.0, "x").cancel()
        self.delays.add(2.0, 0.0, "y")
        self.assertEqual(self.delays.next(), 0.5)
        self.assertIsNone(self.delays.pop(0.5))
        self.assertEqual(self.delays.next(), 2.0)

    def test_many_lengths(self):
        """More lengths than there may be queues still come out in order of time, and leave nothing."""
        chosen = random.Random(3)
        lengths = [chosen.uniform(0, 100) for _ in range(5 * MAX_QUEUES)]
        timers = [self.delays.add(length, 0.0, str(length)) for length in lengths]
        for timer in timers[::3]:
            timer.cancel()
        kept = [length for index, length in enumerate(lengths) if index % 3]
        self.assertEqual(len(self.delays), len(kept))
        found = self.popped(50.0)
        self.assertEqual(self.delays.next(), min(length for length in kept if length > 50.0))
        found += self.popped(100.0)
        self.assertEqual(found, [str(length) for length in sorted(kept)])
        self.assertEqual(self.delays.held, 0)

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["add", "cancel", "pop"]), st.integers(0, 99), st.sampled_from(LENGTHS))))
    def test_model(self, steps):
        """Whatever is started and cancelled, the same comes out as from a plain sorted list."""
        delays: Delays[int] = Delays()
        model: dict[int, float] = {}
        timers: list[Timer[int]] = []
        now = 0.0
        for step, number, length in steps:
            if step == "add":
                model[len(timers)] = now + length
                timers.append(delays.add(length, now, len(timers)))
            elif step == "cancel" and timers:
                timers[number % len(timers)].cancel()
                model.pop(number % len(timers), None)
            elif step == "pop":
                now += number / 10
                found = []
                while (due := delays.pop(now)) is not None:
                    found.append(due[0])
                expected = sorted((at, key) for key, at in model.items() if at <= now)
                self.assertEqual([model[key] for key in found], [at for at, _ in expected])
                self.assertEqual(sorted(found), sorted(key for _, key in expected))
                for key in found:
                    del model[key]
            self.assertEqual(len(delays), len(model))
            wake = delays.next()
            if model:
                self.assertTrue(wake is not None and wake <= min(model.values()))
            elif step == "pop":
                self.assertTrue(wake is None or wake > now)


class DelayQueuesTests(SynchronousTestCase):
    """Timers that call something."""

    def test_expire(self):
        """``expire`` calls what is due with the present time, in order of time."""
        queues = DelayQueues()
        called: list[tuple[str, float]] = []
        queues.add(2.0, 0.0, lambda now: called.append(("two", now)))
        queues.add(1.0, 0.0, lambda now: called.append(("one", now)))
        queues.expire(0.9)
        self.assertEqual(called, [])
        queues.expire(7.0)
        self.assertEqual(called, [("one", 7.0), ("two", 7.0)])
        self.assertIsNone(queues.next())

    def test_jump(self):
        """A timer that starts itself again counts from now: a jump of the clock fires it once, not many times."""
        queues = DelayQueues()
        called: list[float] = []

        def again(now: float) -> None:
            called.append(now)
            queues.add(0.5, now, again)

        again(0.0)
        queues.expire(60.0)
        self.assertEqual(called, [0.0, 60.0])
        self.assertEqual(queues.next(), 60.5)

    def test_zero_length(self):
        """What a call starts with a length of 0 is called in the same ``expire``."""
        queues = DelayQueues()
        called: list[str] = []

        def outer(now: float) -> None:
            queues.add(0.0, now, lambda _: called.append("inner"))

        queues.add(1.0, 0.0, outer)
        queues.expire(1.0)
        self.assertEqual(called, ["inner"])

    def test_raising(self):
        """A call that raises does not take away what is due after it."""
        queues = DelayQueues()
        called: list[float] = []
        queues.add(1.0, 0.0, lambda now: [][0])
        queues.add(1.0, 0.0, called.append)
        self.assertRaises(IndexError, queues.expire, 1.0)
        self.assertEqual(queues.next(), 1.0)
        queues.expire(1.0)
        self.assertEqual(called, [1.0])

    def test_cost(self):
        """The cost of a timer is printed, never asserted."""
        queues = DelayQueues()
        count = 20000
        start = time.process_time()
        for turn in range(count):
            queues.add(0.5, turn / 1000, print).cancel()
            queues.add(32.0, turn / 1000, print).cancel()
        spent = time.process_time() - start
        print(f"timers: {spent / count / 2 * 1e6:.2f} us for add and cancel")
        self.assertEqual(len(queues), 0)
