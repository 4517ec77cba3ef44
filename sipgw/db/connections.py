"""Threads with a connection each, on ``twisted.enterprise.adbapi``: the reactor goes on while they wait.

Whoever asks gets an answer within ``limit`` seconds, whatever the database does: what has not begun by then never begins, the
connection of what has is broken off, so that its thread comes back and nothing of it is committed. At most ``QUEUE`` may wait.
Once the database is known to be down (``circuit.py``) whoever waits and whoever asks is told so at once.

A connection that was lost since its last use is noticed before anything is sent. One that dies later loses what was under way:
it is done again only if it changes nothing, or had done nothing yet; never twice.

Where the reactor has no threads (a ``Clock``), whoever asks waits."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from twisted.enterprise import adbapi
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from sipgw.db.circuit import Circuit
from sipgw.db.errors import DatabaseError, Unavailable

__all__ = ["Answer", "Connections", "Link", "Wire", "says"]

T = TypeVar("T")

QUEUE = 10_000
"""How many may wait for an answer of one database."""


PROBE = 1.0
"""Seconds that a probe waits."""


class Unreachable(Unavailable):
    """No connection can be opened."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a statement gave: the names of its columns, its rows, how many it changed."""

    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]
    count: int


class Link(Protocol):
    """One connection, used by one thread at a time. Whatever it raises its engine can ``explain``.

    ``touched``: whether what is under way may have changed something. ``aborted``: nobody wants it any more."""

    touched: bool
    aborted: bool

    def execute(self, text: str, values: Sequence[Any], changes: bool = False) -> Answer:
        """Run one statement, in a transaction of its own if none has begun; ``changes``: it may change something."""

    def begin(self) -> None:
        """Begin a transaction."""

    def commit(self) -> None:
        """End it; when this returns it is on disk."""

    def rollback(self) -> None:
        """Undo it."""

    def alive(self) -> bool:
        """Whether the other end is still there, as far as can be seen without asking."""

    def abort(self) -> None:
        """Break off what is under way; called from another thread."""

    def close(self) -> None:
        """Close it, whatever its state."""


class Wire(Protocol):
    """How to reach a database."""

    @property
    def driver(self) -> str:
        """The name of its DB-API module."""

    @property
    def name(self) -> str:
        """Its URL without the password."""

    def connect(self) -> Link:
        """Open a connection; blocks, for a few seconds at most."""

    def quick(self) -> Wire:
        """The same, giving a connection up sooner: to see whether a database is there."""

    def explain(self, error: Exception) -> tuple[DatabaseError, bool]:
        """What ``error`` means, and whether the connection is gone with it."""


def says(sock: Any) -> bool:
    """Whether a socket has something to read, or its end."""
    if sock is None:
        return True
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


class _Work(Generic[T]):
    """One thing that is asked."""

    __slots__ = ("answer", "ask", "began", "link", "lock", "over", "reads", "timer", "took")

    def __init__(self, ask: Callable[[Link], T], reads: bool) -> None:
        self.ask = ask
        self.reads = reads
        self.answer: Deferred[T] = Deferred()
        self.timer: Any = None
        self.over = False
        """Whoever asked has his answer."""
        self.lock = Lock()
        self.link: Link | None = None
        self.began = 0.0
        self.took = 0.0

    def give_up(self) -> None:
        """Break off, from the reactor's thread."""
        with self.lock:
            self.over = True
            if self.link is not None:
                self.link.abort()

    def take(self, link: Link | None) -> bool:
        """Note who works on it, from the working thread; false if nobody wants it any more."""
        with self.lock:
            self.link = link
            return not self.over


class _Threads(adbapi.ConnectionPool):
    """adbapi's threads and their connections; when to connect and to commit is for the work itself to say."""

    def __init__(self, wire: Wire, reactor: Any, most: int) -> None:
        super().__init__(wire.driver, cp_reactor=reactor, cp_min=1, cp_max=most)  # type: ignore[no-untyped-call]
        self.dbapi: Any = wire
        self.connectionFactory: Any = _Unconnected

    def leave(self) -> None:
        """Let the reactor end without us: what ``close`` does before it waits for the threads."""
        reactor: Any = self._reactor
        for trigger in (self.shutdownID, self.startID):
            if trigger:
                reactor.removeSystemEventTrigger(trigger)
        self.shutdownID = self.startID = None


class _Unconnected:
    """What adbapi hands to the work: no connection yet, and nothing to commit."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool

    def commit(self) -> None:
        """Do nothing: the work has."""

    def rollback(self) -> None:
        """Do nothing: the work has."""


class _OneLink:
    """What stands for the threads where there are none: one connection, and whoever asks waits."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._link: Link | None = None

    def connect(self) -> Link:
        """The connection."""
        if self._link is None:
            self._link = self._wire.connect()
        return self._link

    def disconnect(self, link: Link) -> None:
        """Close it."""
        self._link = None
        link.close()

    def close(self) -> None:
        """Close it, if there is one."""
        if self._link is not None:
            self.disconnect(self._link)


def _failed(error: Exception | None) -> Failure:
    """``error``, or what has just been caught."""
    return Failure(error)  # type: ignore[no-untyped-call]


class Connections:
    """At most ``most`` connections to one database.

    ``limit``: seconds within which whoever asks has an answer. ``tries``: how often what changes nothing is asked when its
    connection breaks, ``connects``: how often a connection is tried. ``done(seconds)`` hears how long each thing took,
    ``told(up, why)`` that the database went down or came back; without that nobody looks whether it is there."""

    def __init__(
        self,
        wire: Wire,
        reactor: Any,
        most: int,
        *,
        limit: float,
        tries: int = 2,
        connects: int = 1,
        done: Callable[[float], None] | None = None,
        told: Callable[[bool, str], None] | None = None,
    ) -> None:
        self._wire = wire
        self._reactor = reactor
        self._limit = limit
        self._tries = max(1, tries)
        self._connects = max(1, connects)
        self._done = done
        self._told = told
        self._circuit = None if told is None else Circuit(reactor, wire.name, self._probe, self._turned)
        self._probing: Connections | None = None
        self._closed = False
        self._works: set[_Work[Any]] = set()
        """What is asked and not yet out of the threads' hands."""
        self._threads: Any
        self._inline = not IReactorFromThreads.providedBy(reactor)
        self._threads = _OneLink(wire) if self._inline else _Threads(wire, reactor, most)

    def run(self, ask: Callable[[Link], T], *, reads: bool) -> Deferred[T]:
        """Call ``ask`` with a connection, in a thread; its result or a ``DatabaseError``. ``reads``: it changes nothing."""
        work = _Work(ask, reads)
        why = self._refusal()
        if why:
            work.answer.errback(_failed(Unavailable(f"{self._wire.name}: {why}")))
            return work.answer
        self._works.add(work)
        if self._inline:
            try:
                result = self._perform(self._threads, work)
            except Exception:
                self._finish(work, _failed(None))
            else:
                self._finish(work, result)
            return work.answer
        work.timer = self._reactor.callLater(self._limit, self._too_late, work)
        called: Deferred[T] = self._threads.runWithConnection(lambda bare: self._perform(bare.pool, work))
        called.addBoth(lambda result: self._finish(work, result))
        return work.answer

    def _refusal(self) -> str:
        """Why nothing can be asked now; empty if it can."""
        if self._closed:
            return "it is closed"
        if self._circuit is not None and self._circuit.down:
            return f"it is down: {self._circuit.down}"
        return f"{QUEUE} queries wait already" if len(self._works) >= QUEUE else ""

    def _finish(self, work: _Work[T], result: T | Failure) -> None:
        """Take what a thread has done, in the reactor's thread."""
        self._works.discard(work)
        if work.over:
            return
        work.over = True
        if work.timer is not None:
            work.timer.cancel()
        if self._done is not None:
            self._done(work.took)
        if isinstance(result, Failure):
            if self._circuit is not None and isinstance(result.value, Unreachable):
                self._circuit.fail(str(result.value))
            work.answer.errback(result)
        else:
            work.answer.callback(result)

    def _too_late(self, work: _Work[Any]) -> None:
        """Answer in place of the database."""
        waited = "no answer" if work.began else "nothing could be asked"
        self._give_up(work, f"{waited} within {self._limit:g} s")
        if self._circuit is not None:
            self._circuit.doubt()

    def _give_up(self, work: _Work[Any], why: str) -> None:
        if not work.over:
            work.give_up()
            work.answer.errback(_failed(Unavailable(f"{self._wire.name}: {why}")))

    # ---- is it there? ----

    def _probe(self) -> Deferred[Answer]:
        if self._probing is None:
            self._probing = Connections(self._wire.quick(), self._reactor, 1, limit=PROBE, tries=1)
        return self._probing.run(lambda link: link.execute("SELECT 1", ()), reads=True)

    def _turned(self, up: bool, why: str) -> None:
        """Tell whoever waits that it would be in vain."""
        if not up:
            self._give_up_all(f"it is down: {why}")
        if self._told is not None:
            self._told(up, why)

    def _give_up_all(self, why: str) -> None:
        for work in [*self._works]:
            if work.timer is not None and work.timer.active():
                work.timer.cancel()
            self._give_up(work, why)

    # ---- in a thread ----

    def _perform(self, pool: Any, work: _Work[T]) -> T:
        """Do the work, again if that is safe."""
        work.began = time.monotonic()
        tried = 0
        while True:
            tried += 1
            link = self._connected(pool, work)
            began = time.monotonic()
            try:
                link.touched = link.aborted = False
                if not work.take(link):
                    raise Unavailable(f"{self._wire.name}: too late")
                return work.ask(link)
            except DatabaseError:
                raise
            except Exception as error:
                told, lost = self._wire.explain(error)
                if lost:
                    work.take(None)
                    pool.disconnect(link)
                    if tried < self._tries and not work.over and (work.reads or not link.touched):
                        continue
                raise told from error
            finally:
                work.take(None)
                work.took += time.monotonic() - began

    def _connected(self, pool: Any, work: _Work[T]) -> Link:
        """The thread's connection, a new one if it has none or the other end has left."""
        if work.over:
            raise Unavailable(f"{self._wire.name}: too late")
        tried = 0
        while True:
            tried += 1
            try:
                link: Link = pool.connect()
                if not link.alive():
                    pool.disconnect(link)
                    link = pool.connect()
            except DatabaseError:
                raise
            except Exception as error:
                told, lost = self._wire.explain(error)
                if lost and tried < self._connects and not work.over:
                    continue
                raise (Unreachable if lost else Unavailable)(str(told)) from error
            return link

    # ---- the end ----

    async def close(self) -> None:
        """Break off what is under way, and wait until the threads have ended and their connections are closed."""
        if self._closed:
            return
        self._closed = True
        if self._circuit is not None:
            self._circuit.close()
        self._give_up_all("it is closed")
        if self._probing is not None:
            await self._probing.close()
        if self._inline:
            self._threads.close()
        else:
            self._threads.leave()
            await deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._threads.finalClose)
