"""Tests of sipgw.db.writes."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.waiting import Drive
from sipgw.db.errors import Refused
from sipgw.db.writes import Entry, WriteQueue
from sipgw.interfaces import Change
from sipgw.testing import FakeServer, pass_time
from tests.db.memory import MemoryDatabase


def row(number: int, text: str = "x") -> Change:
    """A row."""
    return Change("insert", "t", {"n": number, "text": text})


class WriteQueueTests(SynchronousTestCase):
    """Changes that nobody waits for."""

    def setUp(self) -> None:
        """A queue into a database in memory."""
        self.server = FakeServer()
        self.database = MemoryDatabase()
        self.lost: list[tuple[int, str]] = []
        self.queue = WriteQueue(self.database, self.server.user, self.lose, limit=1000)

    def lose(self, changes: Sequence[Change], reason: str) -> None:
        """Note what is lost."""
        self.lost.extend((int(str(change.values.get("n"))), reason) for change in changes)

    def numbers(self) -> list[object]:
        """What has been written."""
        return [each["n"] for each in self.database.tables.get("t", [])]

    def test_at_once(self) -> None:
        """A quick database is written to at once, in order."""
        done: list[int] = []
        for number in range(3):
            self.queue.add(Entry([row(number)], done=lambda number=number: done.append(number)))  # type: ignore[misc]
            self.assertEqual(self.numbers()[-1], number)
        self.assertEqual((done, len(self.queue), self.lost), ([0, 1, 2], 0, []))

    def test_groups(self) -> None:
        """What comes while one group is written is the next, in one transaction."""
        self.database.slow = True
        for number in range(20):
            self.queue.put([row(number)])
        self.database.answer()
        self.database.answer()
        self.assertEqual((self.numbers(), self.database.batches), (list(range(20)), [19]))

    def test_down(self) -> None:
        """A database that is down is asked again, ever more slowly; everything is written in order once it is back."""
        self.database.down = True
        for number in range(5):
            self.queue.put([row(number)])
        pass_time(self.server.reactor, 100)
        self.assertEqual((self.numbers(), len(self.queue)), ([], 5))
        self.assertIn("5 writes wait", self.server.lines[-1][1])
        self.database.down = False
        self.queue.put([row(5)])
        pass_time(self.server.reactor, 10)
        self.assertEqual((self.numbers(), self.lost), (list(range(6)), []))

    def test_refused(self) -> None:
        """One that is refused does not take others with it; it is tried in a shorter form, or lost."""
        self.database.longest = 5
        self.database.slow = True
        self.queue.put([row(0)])
        self.queue.put([row(1, "much too long")])
        self.queue.put([row(2, "much too long")], [row(2, "short")])
        self.queue.put([row(3)])
        self.database.slow = False
        self.database.answer()
        self.assertEqual(self.numbers(), [0, 2, 3])
        self.assertEqual(self.lost, [(1, "memory: value too long for t")])

    def test_broken_off(self) -> None:
        """A row that was written when the connection broke is not written twice, if it is known by something."""
        self.database.breaks = True
        self.queue.add(Entry([row(1), Change("delete", "other")], known=("t", {"n": 1})))
        self.database.down = False
        pass_time(self.server.reactor, 2)
        self.assertEqual((self.numbers(), len(self.queue)), ([1], 0))

    def test_bug(self) -> None:
        """A bug costs what was being written, and is told; what comes later is written."""
        self.queue.put([row(1)])

        async def broken(*_arguments: object) -> None:
            raise ZeroDivisionError("oh")

        kept, self.database.insert = self.database.insert, broken  # type: ignore[method-assign,assignment]
        self.queue.put([row(2)])
        self.database.insert = kept  # type: ignore[method-assign]
        self.queue.put([row(3)])
        self.assertEqual((self.numbers(), self.lost), ([1, 3], [(2, "a bug: oh")]))
        self.assertIn("bug: ZeroDivisionError", self.server.lines[-1][1])

    def test_cannot_look(self) -> None:
        """Where a row cannot be looked for it is written."""

        async def refuse(*_arguments: object, **_more: object) -> None:
            raise Refused("no select")

        self.database.select = refuse  # type: ignore[method-assign,assignment]
        self.queue.add(Entry([row(1)], known=("t", {"n": 1}), doubtful=True))
        self.assertEqual(self.numbers(), [1])

    def test_full(self) -> None:
        """What is too much is lost, and told."""
        self.database.down = True
        self.queue = WriteQueue(self.database, self.server.user, self.lose, limit=2)
        for number in range(4):
            self.queue.put([row(number)])
        self.assertEqual(self.lost, [(2, "2 writes are waiting for memory:"), (3, "2 writes are waiting for memory:")])

    def test_without_transactions(self) -> None:
        """A database without transactions gets one change after another, of each kind."""
        self.database.atomic = False
        self.queue.put([
            row(1), row(2), row(3), Change("update", "t", {"n": 4}, {"n": 3}), Change("delete", "t", {}, {"n": 2}),
            Change("replace", "t", {"n": 1, "text": "y"}, keys=["n"]),
        ])
        self.assertEqual(self.database.tables["t"], [{"n": 1, "text": "y"}, {"n": 4, "text": "x"}])

    def close(self) -> list[object]:
        """Close the queue; what is in the list at the end."""
        ended: list[object] = []
        Drive(self.queue.close(), ended.append, ended.append).step()
        return ended

    def test_close(self) -> None:
        """The end waits for what is being written, but not for ever; what comes later is lost."""
        self.assertEqual(self.close(), [None])
        self.queue.put([row(0)])
        self.assertEqual(self.lost, [(0, "the server stops")])
        self.queue = WriteQueue(self.database, self.server.user, self.lose)
        self.database.slow = True
        self.queue.put([row(1)])
        ended = self.close()
        self.assertEqual(ended, [])
        self.database.answer()
        self.assertEqual((ended, self.numbers(), len(self.lost)), ([None], [1], 1))

    def test_close_down(self) -> None:
        """A database that stays down cannot hold up the end."""
        self.database.down = True
        self.queue.put([row(1)])
        ended = self.close()
        pass_time(self.server.reactor, 6)
        self.assertEqual((ended, self.lost), ([None], [(1, "the server stops")]))
