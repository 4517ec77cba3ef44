"""Sending HEP frames to a capture server, over UDP or TCP. Nothing here holds up the reactor, and nobody waits for an answer.

What a capture server cannot take is lost, counted and logged once in a while: that it is slow, full or gone must never matter to
a call. Over TCP one connection is kept; while it is being made, some frames wait. When it could not be made too often, it is
left alone for a while."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from sipgw.sip.grammar import is_ipv4

FRESH = 60.0
"""Seconds for which the address of a name is used."""
Report = Callable[[str], None]
"""Told why something was not sent."""
Lookup = Callable[[str, str], Awaitable["str | None"]]


class Open(Protocol):
    """A socket that is open."""

    def sendto(self, data: bytes, address: tuple[str, int], /) -> object:
        """Send a datagram; ``OSError`` if that cannot be."""


class Place:
    """Where a capture server is: a host, which may be a name, and a port."""

    def __init__(self, host: str, port: int, lookup: Lookup, clock: Callable[[], float]) -> None:
        self.host = host
        self.port = port
        self._lookup = lookup
        self._clock = clock
        self.address = host if ":" in host or is_ipv4(host) else ""
        self._until = float("inf") if self.address else 0.0
        self._asking = False

    def find(self, then: Callable[[], None] | None = None) -> str:
        """Its address, "" if that is not known yet; then it is looked up, and ``then`` called when that has ended."""
        if self._clock() >= self._until and not self._asking:
            self._asking = True
            ensureDeferred(self._ask(then))
        return self.address

    async def _ask(self, then: Callable[[], None] | None) -> None:
        try:
            found = await self._lookup(self.host, "")
        except Exception:
            found = None
        self._asking = False
        self._until = self._clock() + FRESH
        if found:
            self.address = found
        if then is not None:
            then()

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UdpSender:
    """Sends each frame as a datagram, from ``source`` (an address and port of ours) if there is one of that family.

    ``open``: what listens there already, by family; then it sends through that."""

    def __init__(
        self, place: Place, sources: dict[int, tuple[str, int]], report: Report, open: dict[int, Open] | None = None
    ) -> None:
        self.place = place
        self.lost = 0
        self._sources = sources
        self._open = {} if open is None else open
        self._report = report
        self._sockets: dict[int, socket.socket] = {}

    def send(self, data: bytes) -> None:
        """Send one frame, or lose it."""
        address = self.place.find()
        if not address:
            self.lose("its name has no address yet")
            return
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            self._socket(family).sendto(data, (address, self.place.port))
        except OSError as error:
            self.lose(error.strerror or str(error))

    def _socket(self, family: int) -> Open:
        if family in self._open:
            return self._open[family]
        found = self._sockets.get(family)
        if found is None:
            found = socket.socket(family, socket.SOCK_DGRAM)
            try:
                found.setblocking(False)
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family in self._sources:
                    found.bind(self._sources[family])
            except OSError:
                found.close()
                raise
            self._sockets[family] = found
        return found

    def lose(self, why: str) -> None:
        """Count a frame that is lost."""
        self.lost += 1
        self._report(f"nothing goes to {self.place}: {why}")

    def close(self) -> None:
        """End."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()


class TcpSender:
    """Sends frames over one connection that is made at the first and made again when it is lost.

    ``most``: frames that wait at most, for the connection or for a peer that reads slowly; ``timeout``: for connecting, in
    seconds; after ``tries`` that failed, one after the other, it is left alone for ``cooldown`` seconds."""

    def __init__(
        self,
        reactor: Any,
        place: Place,
        report: Report,
        *,
        most: int,
        timeout: float,
        tries: int,
        cooldown: float,
        source: tuple[str, int] | None = None,
    ) -> None:
        self.place = place
        self.lost = 0
        self._reactor = reactor
        self._report = report
        self._most = most
        self._timeout = timeout
        self._tries = tries
        self._cooldown = cooldown
        self._source = source
        self._waiting: deque[bytes] = deque()
        self._link: _Link | None = None
        self._connecting = False
        self._failures = 0
        self._tried = -cooldown
        self._closed = False

    def send(self, data: bytes) -> None:
        """Send one frame, now or as soon as there is a connection, or lose it."""
        if self._link is not None:
            if self._link.waiting >= self._most:
                self.lose("it does not read")
                self._link.transport.abortConnection()
                return
            self._link.write(data)
            return
        now = self._reactor.seconds()
        if not self._connecting and self._failures >= self._tries and now - self._tried < self._cooldown:
            self.lose(f"{self._failures} tries to connect have failed, the next is in {self._cooldown - now + self._tried:.0f} s")
            return
        if len(self._waiting) >= self._most:
            self.lose("too many frames wait for the connection")
            return
        self._waiting.append(data)
        if not self._connecting:
            self._connect()

    def _connect(self) -> None:
        self._connecting = True
        self._tried = self._reactor.seconds()
        address = self.place.find(self._found)
        if address:
            self._open(address)

    def _found(self) -> None:
        """The name has been looked up."""
        if self._closed or not self._connecting or self._link is not None:
            return
        if self.place.address:
            self._open(self.place.address)
        else:
            self.failed("its name has no address")

    def _open(self, address: str) -> None:
        bind = None if self._source is None else (self._source[0], 0)
        self._reactor.connectTCP(address, self.place.port, _Links(self), self._timeout, bind)

    def connected(self, link: _Link) -> None:
        """There is a connection."""
        self._connecting = False
        if self._closed:
            link.transport.abortConnection()
            return
        self._failures = 0
        self._link = link
        while self._waiting:
            link.write(self._waiting.popleft())

    def ended(self, link: _Link) -> None:
        """The connection is gone; the next frame makes another one."""
        if self._link is link:
            self._link = None

    def failed(self, why: str) -> None:
        """There is no connection; what waited for it is lost."""
        self._connecting = False
        self._failures += 1
        if self._waiting and not self._closed:
            self.lost += len(self._waiting) - 1
            self.lose(why)
        self._waiting.clear()

    def lose(self, why: str) -> None:
        """Count a frame that is lost."""
        self.lost += 1
        self._report(f"nothing goes to {self.place}: {why}")

    def close(self) -> None:
        """End; what has been written still goes out."""
        self._closed = True
        self._waiting.clear()
        if self._link is not None:
            self._link.transport.unregisterProducer()
            self._link.transport.loseConnection()


class _Link(protocol.Protocol):
    """One connection to a capture server; what it sends back is ignored."""

    transport: Any

    def __init__(self, sender: TcpSender) -> None:
        self._sender = sender
        self._stopped = False
        self.waiting = 0
        """Frames written since the peer stopped to read."""

    def connectionMade(self) -> None:
        """Begin; the transport tells when it holds more than it wants."""
        self.transport.registerProducer(self, True)
        self._sender.connected(self)

    def write(self, data: bytes) -> None:
        """Write one frame."""
        if self._stopped:
            self.waiting += 1
        self.transport.write(data)

    def pauseProducing(self) -> None:
        """The peer does not read."""
        self._stopped = True

    def resumeProducing(self) -> None:
        """It does again."""
        self._stopped = False
        self.waiting = 0

    def stopProducing(self) -> None:
        """It is gone."""

    def connectionLost(self, reason: Failure = ...) -> None:  # type: ignore[assignment]
        """End."""
        self._sender.ended(self)


class _Links(ClientFactory):
    """Makes the protocol of a connection."""

    noisy = False

    def __init__(self, sender: TcpSender) -> None:
        self._sender = sender

    def buildProtocol(self, addr: Any) -> protocol.Protocol:
        """The protocol."""
        return _Link(self._sender)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """Tell the sender."""
        self._sender.failed(reason.getErrorMessage())
