"""What is to be written to a database, many REGISTERs in one transaction (group commit).

While one transaction is on its way, what comes is gathered for the next one. So nobody waits for others to come, and the more
come the more share one commit: a lone REGISTER costs one, a thousand a second cost as many as the disk can do. What was taken
from the sockets in one turn of the reactor goes together too.

A database that is away is asked every half second whether it is back; until then all that is to be written is refused at once.
Of a transaction that was lost nobody knows whether it was done; each of its entries knows how to put that right (``repair``),
which is the first thing that is written afterwards. If the database refuses a transaction, for one value that it does not take,
its halves are tried, so that one bad entry does not harm the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred

from sipgw.db.errors import DatabaseError, Unavailable
from sipgw.interfaces import Change, Database
from sipgw.proxy.location_drafts import NotStored

__all__ = ["Writer"]

MOST: Final = 256
"""Entries of one transaction."""
WAITING: Final = 5000
"""Entries that may wait for their transaction."""
PATIENCE: Final = 3.0
"""Seconds after which an answer is no longer waited for, though the transaction is."""
SOON: Final = 0.5
"""Seconds within which a failure is worth another try."""
PROBE: Final = 0.5
"""Seconds between two questions whether a database is back."""

Repair = Callable[[], Sequence[Change]]


class _Entry:
    """Changes that belong together."""

    __slots__ = ("answer", "changes", "lost", "repair", "since", "stored")

    def __init__(
        self, changes: Sequence[Change], stored: Callable[[], None], lost: Callable[[], None], repair: Repair, since: float
    ) -> None:
        self.since = since
        self.changes = changes
        self.stored = stored
        self.lost = lost
        self.repair = repair
        self.answer: Deferred[None] = Deferred()

    def done(self) -> None:
        """Say that it is safe."""
        self.stored()
        if not self.answer.called:
            self.answer.callback(None)

    def fail(self, error: NotStored) -> None:
        """Say that it is not."""
        self.lost()
        self.give_up(error)

    def give_up(self, error: NotStored) -> None:
        """Answer, though the outcome is not known."""
        if not self.answer.called:
            self.answer.errback(error)


class Writer:
    """Writes to ``database``; ``probe`` is a table and a column of it to ask for when it was away."""

    def __init__(self, database: Database, user: Any, probe: tuple[str, str]) -> None:
        self.database = database
        self.failing = ""
        """Why nothing is written now."""
        self.commits = 0
        """Transactions that were made."""
        self.on_back: list[Callable[[], None]] = []
        """Called when a database that was away is back."""
        self._user = user
        self._probe = probe
        self._waiting: list[_Entry] = []
        self._busy = False
        self._away = False
        self._doubtful: list[Repair] = []
        self._idle: list[Deferred[None]] = []
        self._timer: Any = None
        self._stopped = False

    def write(
        self,
        changes: Sequence[Change],
        stored: Callable[[], None],
        lost: Callable[[], None],
        repair: Repair = tuple,
    ) -> Deferred[None]:
        """Write ``changes``; what is returned fires when they are safe, or fails with ``NotStored``.

        ``stored`` or ``lost`` is called when the outcome is known, which may be later than the answer. ``repair`` gives what to
        write after a loss whose outcome cannot be known."""
        entry = _Entry(changes, stored, lost, repair, self._user.clock())
        if self.failing:
            entry.fail(NotStored(self.failing))
        elif len(self._waiting) >= WAITING:
            entry.fail(NotStored(f"{WAITING} changes wait already"))
        else:
            self._waiting.append(entry)
            if not self._busy:
                self._busy = True
                self._user.after(0, lambda _now: self._user.launch(self._work()))
        return entry.answer

    async def drain(self) -> None:
        """Wait until nothing is on its way."""
        while self._busy:
            waiting: Deferred[None] = Deferred()
            self._idle.append(waiting)
            await waiting

    def stop(self) -> None:
        """Ask no more whether a database is back."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    async def _work(self) -> None:
        """Write until nothing waits."""
        try:
            while self._waiting:
                taken = self._waiting[:MOST]
                del self._waiting[:MOST]
                taken = self._in_time(taken)
                patience = self._user.after(PATIENCE, lambda _now, taken=taken: self._too_slow(taken))
                try:
                    await self._store(taken)
                finally:
                    patience.cancel()
        finally:
            self._busy = False
            for each in self._idle:
                each.callback(None)
            self._idle.clear()

    def _in_time(self, entries: list[_Entry]) -> list[_Entry]:
        """Those that have not waited for too long; the others fail, so that a queue does not grow old."""
        latest = self._user.clock() - PATIENCE
        if entries[0].since >= latest:
            return entries
        for each in entries:
            if each.since < latest:
                each.fail(NotStored(f"{self.database.name} does not keep up"))
        return [each for each in entries if each.since >= latest]

    async def _store(self, entries: Sequence[_Entry]) -> None:
        """Write ``entries`` in one transaction, or in as many as it takes to keep a bad one from the others."""
        if self._away:
            for each in entries:
                each.fail(NotStored(self.failing))
            return
        try:
            await self._batch([change for each in entries for change in each.changes])
        except Unavailable as error:
            self._lose(entries, error)
        except DatabaseError as error:
            self._works()
            if len(entries) == 1:
                entries[0].fail(NotStored(str(error), refused=True))
                return
            half = len(entries) // 2
            await self._store(entries[:half])
            await self._store(entries[half:])
        else:
            self.commits += 1
            self._works()
            for each in entries:
                each.done()

    async def _batch(self, changes: Sequence[Change]) -> None:
        """Write in one transaction. One that fails at once is tried again, since the next may find a connection that lives, or
        meet no other one (a deadlock); rows are written whole, so that twice is as once."""
        begin = self._user.clock()
        try:
            await self.database.batch(changes)
        except Unavailable:
            if self._user.clock() - begin > SOON:
                raise
            await self.database.batch(changes)

    def _works(self) -> None:
        if self.failing:
            self._user.log(2, f"{self.database.name} answers again")
            self.failing = ""

    def _too_slow(self, taken: Sequence[_Entry]) -> None:
        """Keep nobody waiting any longer for a transaction that takes its time."""
        self.failing = f"{self.database.name} has not answered for {PATIENCE:g} s"
        self._user.log(-1, f"{self.failing}: no contact is saved until it does")
        error = NotStored(self.failing)
        for each in taken:
            each.give_up(error)
        self._drop()

    def _drop(self) -> None:
        """Fail what has not been sent."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.fail(NotStored(self.failing))

    def _lose(self, entries: Sequence[_Entry], error: Unavailable) -> None:
        """Note that a transaction is lost, and wait for the database."""
        if not self.failing:
            self._user.log(-1, f"no contact is saved until the database is back: {error}")
        self.failing = str(error)
        self._away = True
        self._doubtful.extend(each.repair for each in entries)
        for each in entries:
            each.fail(NotStored(self.failing))
        self._drop()
        self._later()

    # -- a database that is away

    def _later(self) -> None:
        if not self._stopped:
            self._timer = self._user.after(PROBE, lambda _now: self._user.launch(self._ask()))

    async def _ask(self) -> None:
        """Put right what is doubtful, or ask for anything: then the database is back."""
        doubtful = self._doubtful[:]
        changes = [change for repair in doubtful for change in repair()]
        try:
            if changes:
                await self.database.batch(changes)
            else:
                table, column = self._probe
                await self.database.select(table, [column], limit=1)
        except Unavailable:
            self._later()
            return
        except DatabaseError as error:
            self._user.log(-1, f"what was lost of contacts cannot be put right: {error}")
        del self._doubtful[: len(doubtful)]
        self._away = False
        self._works()
        for call in self.on_back:
            call()
