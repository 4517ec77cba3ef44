"""Tests of sipgw.core.waiting: coroutines that wait, and those that take turns."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.waiting import Drive, Turn


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

        turn = Turn(lambda error: seen.append(f"failed {error}"))
        for coroutine in (first(), then("second"), then("third")):
            turn.take(coroutine)
        self.assertEqual((seen, turn.busy), (["first begins"], True))
        gate.callback(None)
        self.assertEqual(seen, ["first begins", "first ends", "failed first", "second", "third"])
        self.assertFalse(turn.busy)
