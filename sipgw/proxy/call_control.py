"""The client of AG Projects' callcontrol, which lends calls the time that their callers can pay for.

It listens on a unix socket. A request is a line with its name, lines ``name: value`` and an empty line; the answer is one line.
As no answer says what it answers to, a connection has one request at a time; whoever asks while all are busy opens another one,
up to eight, then they wait in turn. A request that is not answered within ``limit`` ends its connection. After a failure nothing
is tried for ten seconds: calls are not to wait for somebody who is not there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

__all__ = ["CallControl", "Unavailable", "lines"]

RETRY: Final = 10.0
"""Seconds after a failure for which nothing is tried."""
MOST: Final = 8
"""Connections at most, as OpenSIPS has one for each of eight processes."""
LONGEST: Final = 8192
"""Octets of a request, and of an answer, at most."""


class Unavailable(Exception):
    """Callcontrol is not there, or says nothing."""


def lines(name: str, values: Sequence[tuple[str, str]]) -> str:
    """A request; what would end a line in a value is left out."""
    return f"{name}\r\n" + "".join(f"{key}: {_line(value)}\r\n" for key, value in values) + "\r\n"


def _line(text: str) -> str:
    return text.replace("\r", "").replace("\n", "")


class Link(LineReceiver):
    """One connection; ``ended(link)`` hears when it is over."""

    MAX_LENGTH = LONGEST
    transport: Any

    def __init__(self, ended: Callable[[Link], None]) -> None:
        self._ended = ended
        self.waiting: Deferred[str] | None = None
        self.open = True

    def ask(self, request: bytes) -> Deferred[str]:
        """Send a request; its answer."""
        self.waiting = Deferred()
        self.transport.write(request)
        return self.waiting

    def lineReceived(self, line: bytes) -> None:
        """Take an answer; one that nobody waits for ends the connection."""
        waiting, self.waiting = self.waiting, None
        if waiting is None:
            self.transport.abortConnection()
        else:
            waiting.callback(line.decode("utf-8", "surrogateescape"))

    def connectionLost(self, reason: Any = None) -> None:
        """Whoever waits waits in vain."""
        self.open = False
        waiting, self.waiting = self.waiting, None
        self._ended(self)
        if waiting is not None:
            waiting.errback(Unavailable("the connection has ended"))

    def give_up(self, why: str) -> None:
        """End it, and say why to whoever waits."""
        waiting, self.waiting = self.waiting, None
        self.transport.abortConnection()
        if waiting is not None:
            waiting.errback(Unavailable(why))


class CallControl:
    """Callcontrol at the socket ``path``; ``limit``: seconds."""

    def __init__(self, user: Any, reactor: Any, path: str, limit: float) -> None:
        self._user = user
        self._reactor = reactor
        self._path = path
        self._limit = limit
        self._idle: list[Link] = []
        self._links: set[Link] = set()
        self._opening = 0
        self._turns: deque[Deferred[None]] = deque()
        self._failed = float("-inf")

    def stop(self) -> None:
        """End all connections."""
        for link in tuple(self._links):
            link.give_up("the server stops")

    async def ask(self, request: str) -> str:
        """Send a request; its answer, without the end of the line. ``Unavailable``."""
        octets = request.encode("utf-8", "surrogateescape")
        if len(octets) >= LONGEST:
            raise Unavailable(f"a request has {len(octets)} octets, which are too many")
        link = await self._link()
        timer = self._user.after(self._limit, lambda _now: link.give_up("it does not answer"))
        try:
            return await link.ask(octets)
        except Unavailable:
            self._failed = self._user.clock()
            raise
        finally:
            timer.cancel()
            self._free(link)

    def _free(self, link: Link) -> None:
        if link.open and link in self._links and link.waiting is None:
            self._idle.append(link)
        if self._turns:
            self._turns.popleft().callback(None)

    async def _link(self) -> Link:
        """A connection with nothing to do."""
        while True:
            while self._idle:
                link = self._idle.pop()
                if link.open:
                    return link
            if self._user.clock() - self._failed < RETRY:
                raise Unavailable("it failed a moment ago")
            if len(self._links) + self._opening < MOST:
                return await self._open()
            turn: Deferred[None] = Deferred()
            self._turns.append(turn)
            await turn

    async def _open(self) -> Link:
        self._opening += 1
        try:
            patience = max(1, round(self._limit))
            endpoint: Any = UNIXClientEndpoint(self._reactor, self._path, timeout=patience)  # type: ignore[no-untyped-call]
            link: Link = await endpoint.connect(Factory.forProtocol(lambda: Link(self._over)))
        except Exception as error:
            self._failed = self._user.clock()
            if self._turns:
                self._turns.popleft().callback(None)
            raise Unavailable(f"cannot connect to {self._path}: {error}") from None
        finally:
            self._opening -= 1
        self._links.add(link)
        return link

    def _over(self, link: Link) -> None:
        self._links.discard(link)
        if link in self._idle:
            self._idle.remove(link)
