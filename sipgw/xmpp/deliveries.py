"""What the server has not said yet that it has dealt with.

Neither XEP-0114 nor streams between servers acknowledge anything by themselves, so ``deliver`` asks: after its stanzas goes an
``iq`` (XEP-0199), which servers answer when they have dealt with all before it. What they refuse at once, such as a user that
there is not, they have said by then. One such question is under way at a time, and the next one stands for all stanzas since,
however many."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from secrets import token_hex
from typing import Any, Final

from twisted.internet.defer import Deferred

from sipgw.xmpp.stanza import PING, Element, SubElement, error_of, local_name, stanza

__all__ = ["Deliveries", "Down"]

MOST_PENDING: Final = 1000
"""Stanzas that may wait for the server's word."""


class Down(Exception):
    """The server is not there, or has not said that it took what it was sent. ``sent``: it may have."""

    def __init__(self, reason: str, sent: bool = False) -> None:
        super().__init__(reason)
        self.sent = sent


class _Pending:
    __slots__ = ("done", "id", "to")

    def __init__(self, element: Element) -> None:
        self.id = element.get("id", "")
        self.to = element.get("to", "")
        self.done: Deferred[tuple[int, str]] = Deferred()

    def end(self, status: int, reason: str) -> None:
        if not self.done.called:
            self.done.callback((status, reason))


class Deliveries:
    """The stanzas of one connection at a time. ``send(element)`` puts one on the wire, ``silent()`` is called when a question is
    not answered within ``limit`` seconds; questions go from ``us`` to ``them``."""

    def __init__(
        self, reactor: Any, us: str, them: str, limit: float, send: Callable[[Element], None], silent: Callable[[], None]
    ) -> None:
        self.reactor = reactor
        self.us = us
        self.them = them
        self.limit = limit
        self._send = send
        self._silent = silent
        self.count = 0
        """How many wait."""
        self._pending: dict[tuple[str, str], list[_Pending]] = {}
        """By ``id`` and receiver; phones may give several messages one name, and errors come in the order of the messages."""
        self._open: list[_Pending] = []
        """Sent since the last question."""
        self._asked: list[_Pending] = []
        """Sent before the question that is under way."""
        self._question = ""
        self._deadline: Any = None
        self._numbers = count(1)
        self._prefix = token_hex(4)

    async def deliver(self, element: Element) -> tuple[int, str]:
        """Send a stanza; 200 when the server has dealt with it, or the status of its error; ``Down``."""
        if self.count >= MOST_PENDING:
            raise Down(f"{self.count} stanzas wait for the server already")
        if not element.get("id"):
            element.set("id", self._name())
        pending = _Pending(element)
        self._send(element)
        self._pending.setdefault((pending.id, pending.to), []).append(pending)
        self.count += 1
        self._open.append(pending)
        if not self._question:
            self.ask()
        return await pending.done

    def _name(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def ask(self) -> None:
        """Ask the server whether it has dealt with all so far, unless it is asked already."""
        if self._question:
            return
        self._question = self._name()
        self._asked, self._open = self._open, []
        iq = stanza("iq", self.us, self.them, id=self._question, type="get")
        SubElement(iq, f"{{{PING}}}ping")
        self._send(iq)
        self._deadline = self.reactor.callLater(self.limit, self._silent)

    def received(self, element: Element) -> bool:
        """Whether a stanza is an answer to what was sent here; what waited for it is told."""
        id = element.get("id", "")
        ours = element.get("from", "") in ("", self.them)
        if id and id == self._question and local_name(element) == "iq" and ours:
            self._answered()
            return True
        if element.get("type") == "error":
            several = self._pending.get((id, element.get("from", "")))
            if several:
                pending = several[0]
                self._forget(pending)
                pending.end(*error_of(element))
                return True
        return False

    def _answered(self) -> None:
        self._stop_waiting()
        self._question = ""
        asked, self._asked = self._asked, []
        for each in asked:
            self._forget(each)
            each.end(200, "OK")
        if self._open and not self._question:
            self.ask()

    def _forget(self, pending: _Pending) -> None:
        """It is answered."""
        several = self._pending.get((pending.id, pending.to), [])
        if pending in several:
            several.remove(pending)
            self.count -= 1
            if not several:
                del self._pending[pending.id, pending.to]

    def lost(self, reason: str) -> None:
        """The connection is over: nobody knows of what waits."""
        self._stop_waiting()
        pending = [each for several in self._pending.values() for each in several]
        self._pending.clear()
        self.count = 0
        self._open, self._asked, self._question = [], [], ""
        for each in pending:
            if not each.done.called:
                each.done.errback(Down(reason, sent=True))

    def _stop_waiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
