"""Whether a database is there: once it is known not to be, nobody waits for it, until a probe finds it again.

What makes one doubt is an answer that did not come in time, or a connection that could not be opened. The first is only a doubt:
the query may have been a long one, so a probe asks; the second is certain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.db.errors import DatabaseError

__all__ = ["Circuit"]

PAUSE = 0.5
"""Seconds between two probes of a database that is down."""


class Circuit:
    """The state of one database.

    ``probe()`` asks it something small, within a second or so, and gives a Deferred. ``told(up, why)`` hears of each change;
    ``name`` is what need not be said again in front of a reason."""

    def __init__(self, reactor: Any, name: str, probe: Callable[[], Any], told: Callable[[bool, str], None]) -> None:
        self._name = name
        self._reactor = reactor
        self._probe = probe
        self._told = told
        self.down = ""
        """Why it is down; empty while it is up."""
        self._asking = False
        self._later: Any = None
        self._closed = False

    def doubt(self) -> None:
        """Find out whether it is there."""
        if not self._asking and self._later is None and not self._closed:
            self._ask()

    def fail(self, why: str) -> None:
        """Note that it is not there."""
        if not self.down and not self._closed:
            self.down = why.removeprefix(f"{self._name}: ")
            self._told(False, self.down)
            if not self._asking:
                self._wait()

    def _ask(self) -> None:
        self._later = None
        self._asking = True
        self._probe().addCallbacks(self._there, self._gone)

    def _wait(self) -> None:
        if self._later is None and not self._closed:
            self._later = self._reactor.callLater(PAUSE, self._ask)

    def _there(self, _result: Any) -> None:
        self._asking = False
        if self.down and not self._closed:
            self.down = ""
            self._told(True, "")

    def _gone(self, failure: Any) -> None:
        self._asking = False
        if failure.check(DatabaseError) is None:
            self.fail(repr(failure.value))
        else:
            self.fail(str(failure.value))
        if self.down:
            self._wait()

    def close(self) -> None:
        """Ask no more."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
