"""Changes that come while another one is being written are written together: one commit for all of them.

A commit waits for the disk, a few milliseconds; what each change itself costs is a hundredth of that. Each is still made or not
made by itself: what one is refused for undoes that one, not the others. A change that comes alone is written at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sipgw.db.connections import QUEUE, Answer, Connections, Link, Wire
from sipgw.db.errors import Unavailable

__all__ = ["GroupedWrites"]

LARGEST = 200
"""How many changes are written together at most."""

Ask = Callable[[Link], Any]


class _Member:
    """A connection within a transaction that is not its own: what it begins is a part of that."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.touched = self.aborted = False

    def execute(self, text: str, values: Sequence[Any], changes: bool = False) -> Answer:
        """Run one statement."""
        return self._link.execute(text, values, changes)

    def begin(self) -> None:
        """Begin a part."""
        self._link.execute("SAVEPOINT one", (), True)

    def commit(self) -> None:
        """End it."""
        self._link.execute("RELEASE one", (), True)

    def rollback(self) -> None:
        """Undo it."""
        self._link.execute("ROLLBACK TO one", (), True)
        self._link.execute("RELEASE one", (), True)

    def alive(self) -> bool:
        """Whether the connection is there."""
        return self._link.alive()

    def abort(self) -> None:
        """Break off."""
        self._link.abort()

    def close(self) -> None:
        """Leave it to its owner."""


class GroupedWrites:
    """What stands before the one connection that writes; ``done(seconds)`` hears of each change but the first of a group, which
    ``connections`` tell of themselves."""

    def __init__(self, wire: Wire, connections: Connections, done: Callable[[float], None]) -> None:
        self._wire = wire
        self._connections = connections
        self._done = done
        self._waiting: deque[tuple[Ask, Deferred[Any]]] = deque()
        self._busy = False

    def run(self, ask: Ask) -> Deferred[Any]:
        """Call ``ask`` with a connection, alone or in a group; its result once it is on disk, or a ``DatabaseError``."""
        done: Deferred[Any] = Deferred()
        if len(self._waiting) >= QUEUE:
            done.errback(Unavailable(f"{self._wire.name}: {QUEUE} changes wait already"))
            return done
        self._waiting.append((ask, done))
        if not self._busy:
            self._next()
        return done

    def _next(self) -> None:
        """Write what waits."""
        self._busy = True
        group = [self._waiting.popleft() for _ in range(min(len(self._waiting), LARGEST))]
        asks = [ask for ask, _ in group]
        written = self._connections.run(lambda link: self._together(link, asks), reads=False)
        written.addBoth(self._written, [done for _, done in group])

    def _written(self, results: Any, group: list[Deferred[Any]]) -> None:
        """Tell whoever waits, and go on with those that have come meanwhile."""
        for number, done in enumerate(group):
            if number:
                self._done(0.0)
            result = results if isinstance(results, Failure) else results[number]
            if isinstance(result, (Failure, Exception)):
                done.errback(result)
            else:
                done.callback(result)
        self._busy = False
        if self._waiting:
            self._next()

    # ---- in a thread ----

    def _together(self, link: Link, asks: Sequence[Ask]) -> list[Any]:
        """The result of each, or its fault."""
        if len(asks) == 1:
            return [asks[0](link)]
        results: list[Any] = []
        link.begin()
        try:
            for ask in asks:
                results.append(self._one(link, ask))
            link.commit()
        except BaseException:
            link.rollback()
            raise
        return results

    def _one(self, link: Link, ask: Ask) -> Any:
        try:
            return ask(_Member(link))
        except Exception as error:
            told = self._wire.explain(error)[0] if not isinstance(error, Unavailable) else error
            if isinstance(told, Unavailable):
                raise
            return told
