"""Tests of sipgw.core.waiting: coroutines that wait, and those that take turns."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.waiting import Drive, Turn, within


class DriveTests(SynchronousTestCase):
    """One coroutine on its way."""

    def setUp(self) -> None:
        self.seen: list[Any] = []

    def drive(self, coroutine: Any) -> None:
        Drive(
            coroutine,
            lambda result: self.seen.append(("done", result)),
            lambda error: self.seen.append(("failed", str(error))),
        ).step()

    def test_at_once(self) -> None:
        """What does not wait ends in one go."""

        async def quick() -> int:
            return 3

        self.drive(quick())
        self.assertEqual(self.seen, [("done", 3)])

    def test_waits(self) -> None:
        """What waits goes on with what its Deferreds bring."""
        first: Deferred[int] = Deferred()
        second: Deferred[int] = Deferred()

        async def slow() -> int:
            return await first + await second

        self.drive(slow())
        self.assertEqual(self.seen, [])
        first.callback(4)
        second.callback(5)
        self.assertEqual(self.seen, [("done", 9)])

    def test_fired(self) -> None:
        """A Deferred that has fired already is no reason to wait."""
        ready: Deferred[int] = Deferred()
        ready.callback(1)

        async def quick() -> int:
            return await ready

        self.drive(quick())
        self.assertEqual(self.seen, [("done", 1)])

    def test_failure(self) -> None:
        """An errback arrives as an exception that the coroutine may catch, or not."""
        caught: Deferred[int] = Deferred()
        loose: Deferred[int] = Deferred()

        async def slow() -> None:
            try:
                await caught
            except ValueError:
                await loose

        self.drive(slow())
        caught.errback(ValueError("first"))
        loose.errback(KeyError("second"))
        self.assertEqual(self.seen, [("failed", "'second'")])


class TurnTests(SynchronousTestCase):
    """Coroutines one after another."""

    def test_order(self) -> None:
        """While one waits the others stand in line, and go on in order even if one breaks."""
        seen: list[str] = []
        gate: Deferred[None] = Deferred()

        async def first() -> None:
            seen.append("first begins")
            await gate
            seen.append("first ends")
            raise ValueError("first")

        async def then(name: str) -> None:
            seen.append(name)

        turn = Turn(Heard(seen))
        for coroutine in (first(), then("second"), then("third")):
            turn.take(coroutine)
        self.assertEqual((seen, turn.busy), (["first begins"], True))
        gate.callback(None)
        self.assertEqual(seen, ["first begins", "first ends", "failed first", "second", "third"])
        self.assertFalse(turn.busy)

    def test_call(self) -> None:
        """What cannot wait is called in its turn; what it leads to stands in line, and goes on even if it breaks."""
        seen: list[str] = []

        async def then() -> None:
            seen.append("then")

        def first() -> None:
            turn.take(then())
            seen.append("first")
            raise ValueError("first")

        turn = Turn(Heard(seen))
        turn.call(first)
        self.assertEqual((seen, turn.busy), (["first", "failed first", "then"], False))


class Heard:
    """Is told of bugs."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def broken(self, error: BaseException) -> None:
        """Note one."""
        self.seen.append(f"failed {error}")


class WithinTests(SynchronousTestCase):
    """Waiting no longer than so many seconds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.seen: list[Any] = []

    def start(self, coroutine: Any) -> None:
        """Wait 5 s for it."""

        def after(seconds: float, call: Any) -> Any:
            return self.clock.callLater(seconds, call, 0.0)

        Drive(
            within(5, coroutine, lambda seconds, call: Timer(after(seconds, call))),
            lambda result: self.seen.append(("done", result)),
            lambda error: self.seen.append(("failed", type(error))),
        ).step()

    async def wait(self, deferred: Deferred[int]) -> int:
        """Wait for ``deferred``."""
        return await deferred

    def test_in_time(self) -> None:
        """A result in time is the result, and no timer is left."""
        slow: Deferred[int] = Deferred()
        self.start(self.wait(slow))
        self.clock.advance(4)
        slow.callback(7)
        self.assertEqual((self.seen, self.clock.getDelayedCalls()), ([("done", 7)], []))

    def test_at_once(self) -> None:
        """What does not wait leaves no timer either."""
        ready: Deferred[int] = Deferred()
        ready.callback(1)
        self.start(self.wait(ready))
        self.assertEqual((self.seen, self.clock.getDelayedCalls()), ([("done", 1)], []))

    def test_too_late(self) -> None:
        """Without a result in time it is a TimeoutError, and what comes later is not heard."""
        slow: Deferred[int] = Deferred()
        self.start(self.wait(slow))
        self.clock.advance(5)
        slow.callback(7)
        self.assertEqual(self.seen, [("failed", TimeoutError)])

    def test_failure(self) -> None:
        """What the coroutine raises is raised."""
        slow: Deferred[int] = Deferred()
        self.start(self.wait(slow))
        slow.errback(ValueError("no"))
        self.assertEqual((self.seen, self.clock.getDelayedCalls()), ([("failed", ValueError)], []))


class Timer:
    """A delayed call that may be cancelled after it was called, as the timers of sipgw may."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def cancel(self) -> None:
        """Cancel it if it waits."""
        if self.call.active():
            self.call.cancel()
