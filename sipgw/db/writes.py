"""Writes that nobody waits for: in order, together where they pile up, again when the database comes back.

What writes while calls go on - accounting, the dialog table - gives its changes to a ``WriteQueue`` and goes on at once. The
queue writes them one group after another: what came while a group was being written is the next one, so that a quick database
is written to at once and a slow one in large transactions. A database that is down is asked again, after 1 s, 2 s, 4 s, at most
every 10 s; what waits meanwhile is kept, ``limit`` entries at most. Changes that are refused are told apart from the group they
were in, tried in a shorter form if they have one, and else given to ``lost``, which logs them: nothing vanishes in silence.

Whether a group was written when the connection broke nobody knows. An entry may say by what its row is known (``known``): then
it is looked for before it is written again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from sipgw.db.errors import DatabaseError, Unavailable, Unsupported
from sipgw.interfaces import Change, Database, Where

FIRST_DELAY = 1.0
LONGEST_DELAY = 10.0
GROUP = 500
"""How many entries one transaction has at most."""


class Around(Protocol):
    """What is asked of the transaction user."""

    def log_rarely(self, key: object, level: int, text: str) -> None:
        """Log a line, not too often."""

    def after(self, seconds: float, call: Callable[[float], None]) -> Any:
        """Call later."""

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside everything else."""

    def broken(self, error: BaseException) -> None:
        """Log a bug of our own."""


@dataclass(slots=True, eq=False)
class Entry:
    """Changes that are made together or not at all.

    ``shorter``: what to write instead if they are refused. ``known``: the table and the rows that are there if the inserts among
    them have been made. ``doubtful``: that is looked up first. ``done``: called when they are made, or lost; ``lost``: told of
    that instead of the queue's. ``taken``: they are being written."""

    changes: Sequence[Change]
    shorter: Sequence[Change] = ()
    known: tuple[str, Where] | None = None
    doubtful: bool = False
    done: Callable[[], None] | None = None
    lost: Callable[[Sequence[Change], str], None] | None = None
    taken: bool = False


class WriteQueue:
    """The writes of one module into one database; ``lost(changes, reason)`` is told of those that will never be made."""

    def __init__(
        self,
        database: Database,
        user: Around,
        lost: Callable[[Sequence[Change], str], None],
        limit: int = 100_000,
        group: int = GROUP,
    ) -> None:
        self.database = database
        self.limit = limit
        self.group = group
        self._user = user
        self._lost = lost
        self._waiting: deque[Entry] = deque()
        self._group: list[Entry] = []
        """What is being written now."""
        self._busy = False
        self._closed = False
        self._idle: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._waiting) + len(self._group)

    def put(self, changes: Sequence[Change], shorter: Sequence[Change] = ()) -> None:
        """Make ``changes`` soon, in one transaction; ``shorter``: in that form if they are refused."""
        self.add(Entry(changes, shorter))

    def add(self, entry: Entry) -> None:
        """Take one entry."""
        if self._closed or len(self._waiting) >= self.limit:
            reason = "the server stops" if self._closed else f"{self.limit} writes are waiting for {self.database.name}"
            self._lose(entry, reason)
            return
        self._waiting.append(entry)
        if not self._busy:
            self._busy = True
            self._user.launch(self._drain())

    async def close(self, seconds: float = 5.0) -> None:
        """Take no more, and wait until all is written, but no longer than that; what is left then is lost."""
        self._closed = True
        if self._busy:
            idle = self._idle = Deferred()
            timer = self._user.after(seconds, lambda _now: self._rest())
            await idle
            timer.cancel()
        for entry in (*self._group, *self._waiting):
            self._lose(entry, "the server stops")
        self._group = []
        self._waiting.clear()

    def _rest(self) -> None:
        """Let ``close`` go on."""
        if self._idle is not None:
            idle, self._idle = self._idle, None
            idle.callback(None)

    async def _drain(self) -> None:
        delay = FIRST_DELAY
        while self._waiting:
            self._group = [self._waiting.popleft() for _ in range(min(self.group, len(self._waiting)))]
            for entry in self._group:
                entry.taken = True
            try:
                await self._write()
                delay = FIRST_DELAY
            except Unavailable as error:
                for entry in self._group:
                    entry.doubtful = True
                    entry.taken = False
                self._waiting.extendleft(reversed(self._group))
                self._group = []
                self._user.log_rarely(("writes", self.database.name), -1, f"{error}; {len(self)} writes wait for it")
                await self._wait(delay)
                delay = min(2 * delay, LONGEST_DELAY)
            except Exception as error:
                self._user.broken(error)  # and what comes later is written all the same
                group, self._group = self._group, []
                for entry in group:
                    self._lose(entry, f"a bug: {error}")
        self._busy = False
        self._rest()

    async def _wait(self, seconds: float) -> None:
        pause: Deferred[None] = Deferred()
        self._user.after(seconds, lambda _now: pause.callback(None))
        await pause

    async def _write(self) -> None:
        """Write the group, taking out of it what is done with; ``Unavailable`` if the database cannot be asked."""
        group = self._group
        if len(group) > 1:
            changes = [change for entry in group for change in await self._due(entry)]
            try:
                await self._make(changes)
            except Unavailable:
                raise
            except DatabaseError:
                pass  # one of them is refused: which one?
            else:
                for entry in group:
                    self._made(entry)
                group.clear()
        while group:
            await self._write_one(group[0])
            if group:
                del group[0]

    async def _write_one(self, entry: Entry) -> None:
        try:
            await self._make(await self._due(entry))
        except Unavailable:
            raise
        except DatabaseError as error:
            if entry.shorter:
                entry.changes, entry.shorter = entry.shorter, ()
                await self._write_one(entry)
            else:
                self._lose(entry, str(error))
        else:
            self._made(entry)

    async def _due(self, entry: Entry) -> Sequence[Change]:
        """What of ``entry`` is yet to be made."""
        if entry.doubtful and entry.known is not None:
            table, where = entry.known
            try:
                found = len(await self.database.select(table, (), where, limit=1))
            except Unavailable:
                raise
            except DatabaseError:
                found = 0  # it can be written, but not looked at
            if found:
                return [change for change in entry.changes if change.kind != "insert"]
        return entry.changes

    async def _make(self, changes: Sequence[Change]) -> None:
        """Make ``changes``; one after another where the database knows no transactions."""
        database = self.database
        if len(changes) > 1:
            try:
                await database.batch(changes)
                return
            except Unsupported:
                pass
        for kind, table, values, where, keys in changes:
            if kind == "insert":
                await database.insert(table, values)
            elif kind == "update":
                await database.update(table, values, where)
            elif kind == "delete":
                await database.delete(table, where)
            else:
                await database.replace(table, values, keys)

    def _made(self, entry: Entry) -> None:
        done, entry.done = entry.done, None  # which knows the entry
        if done is not None:
            done()

    def _lose(self, entry: Entry, reason: str) -> None:
        (entry.lost or self._lost)(entry.changes, reason)
        self._made(entry)
