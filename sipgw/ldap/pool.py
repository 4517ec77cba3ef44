"""Searches in threads: a bounded pool of its own, each thread with a connection of its own to each session.

The reactor never waits. A search ends within its limit even where a thread does not: ``Unreachable`` then. When a session's
servers do not answer it is *down*: for ``PAUSE`` seconds searches fail at once, then one of them tries again while the others
still fail. At most ``QUEUE`` searches for each thread wait for one; more fail at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from sipgw.ldap.config import Session
from sipgw.ldap.directory import Directory, Entry, LdapFault, Opener, Unreachable

T = TypeVar("T")

PAUSE = 0.5
"""Seconds between two attempts to reach servers that do not answer."""
QUEUE = 10
"""Searches that may wait for each thread."""


class _Health:
    """Whether a session's servers answer."""

    def __init__(self) -> None:
        self.fault = ""
        self.since = 0.0
        self.again_at = 0.0
        self.trying = False


class Pool:
    """Threads for searches; ``noticed(session, fault)`` is told when a session goes down and, without a fault, comes back."""

    def __init__(
        self, reactor: Any, size: int, open_directory: Opener, noticed: Callable[[str, str], None] = lambda session, fault: None
    ) -> None:
        self._reactor = reactor
        self._size = size
        self._open = open_directory
        self._noticed = noticed
        self._threads = ThreadPool(0, size, "ldap")
        # none holds up the end of the process
        self._threads.threadFactory = partial(threading.Thread, daemon=True)  # type: ignore[assignment]
        self._local = threading.local()
        self._connections: set[Directory] = set()
        self._lock = threading.Lock()
        self._health: dict[str, _Health] = {}
        self._running = False
        self.busy = 0
        """Searches that run or wait."""

    def start(self) -> None:
        """Begin."""
        self._running = True
        self._threads.start()

    def stop(self) -> None:
        """End: connections are closed, which frees threads that wait for an answer."""
        if self._running:
            self._running = False
            with self._lock:
                for connection in self._connections:
                    connection.close()
                self._connections.clear()
            threading.Thread(target=self._threads.stop, daemon=True).start()  # it waits for the others

    async def search(
        self, session: Session, base: str, scope: str, filter: str, attributes: Sequence[str] = ()
    ) -> list[Entry]:
        """The entries that fit; an ``LdapFault`` within the session's time limits."""
        health = self._health.setdefault(session.name, _Health())
        if health.fault and (health.trying or self._reactor.seconds() < health.again_at):
            raise Unreachable(health.fault)
        if self.busy >= self._size * (1 + QUEUE):
            raise Unreachable(f"{self.busy} searches are running or waiting already")
        health.trying = bool(health.fault)
        self.busy += 1
        began = self._reactor.seconds()
        try:
            found = await self._within(
                limit_of(session), self._in_thread(lambda: self._search(session, base, scope, filter, attributes))
            )
        except Unreachable as error:
            if not health.fault:
                self._noticed(session.name, str(error))
            health.fault = str(error)
            health.since = self._reactor.seconds()
            health.again_at = health.since + PAUSE
            raise
        except LdapFault:
            self._is_back(session, health, began)
            raise
        finally:
            health.trying = False
        self._is_back(session, health, began)
        return found

    def _is_back(self, session: Session, health: _Health, began: float) -> None:
        if health.fault and began >= health.since:
            health.fault = ""
            self._noticed(session.name, "")

    def _in_thread(self, call: Callable[[], T]) -> Deferred[T]:
        def done(result: Any) -> Any:
            self.busy -= 1
            return result

        return deferToThreadPool(self._reactor, self._threads, call).addBoth(done)

    async def _within(self, seconds: float, asked: Deferred[T]) -> T:
        """What ``asked`` brings; after ``seconds`` nobody waits for it any more."""
        first: Deferred[T] = Deferred()
        late: Callable[[], None] = lambda: first.errback(Unreachable("no answer in time"))  # noqa: E731
        timer = self._reactor.callLater(seconds, late)
        asked.addCallbacks(
            lambda result: None if first.called else first.callback(result),
            lambda failure: None if first.called else first.errback(failure),
        )
        try:
            return await first
        finally:
            if timer.active():
                timer.cancel()

    # -- in a thread

    def _search(self, session: Session, base: str, scope: str, filter: str, attributes: Sequence[str]) -> list[Entry]:
        known = self._local.__dict__.setdefault("directories", {})
        directory: Directory | None = known.get(session.name)
        if directory is not None:
            try:
                return directory.search(base, scope, filter, attributes)
            except Unreachable:  # it may have been dead for hours: a search may be done twice
                self._forget(session, directory)
        directory = self._keep(session, self._open(session))
        try:
            return directory.search(base, scope, filter, attributes)
        except Unreachable:
            self._forget(session, directory)
            raise

    def _keep(self, session: Session, directory: Directory) -> Directory:
        self._local.directories[session.name] = directory
        with self._lock:
            self._connections.add(directory)
            if not self._running:
                directory.close()
        return directory

    def _forget(self, session: Session, directory: Directory) -> None:
        self._local.directories.pop(session.name, None)
        with self._lock:
            self._connections.discard(directory)
        directory.close()


def limit_of(session: Session) -> float:
    """The seconds that a search of a session may take: connecting, binding, the answer."""
    return (session.ldap_network_timeout + session.ldap_client_bind_timeout + session.ldap_client_search_timeout) / 1000
