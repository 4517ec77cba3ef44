"""Receiving HEP frames, over UDP (versions 1 to 3) and TCP (version 3): octets in, whole frames to whoever takes them.

A frame that cannot be read is counted and dropped; on a connection nothing behind it can be found, so the connection ends. What
comes is never answered. A connection holds at most one frame in memory, a host has ``MOST_OF_HOST`` connections at most."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.python.failure import Failure

from sipgw.transport.hep_received import length

SHORTEST = 20
"""Octets below which a datagram is a keep-alive."""
RECEIVE_BUFFER = 4 << 20
"""Octets asked of the kernel for what waits to be read."""
MOST_OF_HOST = 64
"""Connections of one host."""


@dataclass(frozen=True, slots=True)
class Way:
    """By which way a frame came: the socket's transport (``hep_udp``, ``hep_tcp``), who sent it, and our address."""

    transport: str
    source: tuple[str, int]
    target: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a connection may do; times in seconds. ``pieces``: in how many a frame may come; ``frame_time``: from its first octet
    to its last; ``lifetime``: without any frame; ``most``: connections of all hosts."""

    pieces: int = 32
    frame_time: float = 4.0
    lifetime: float = 120.0
    most: int = 2048


Take = Callable[[bytes, Way], None]
"""Told of each frame."""
Refused = Callable[[Way, str], None]
"""Told why something was dropped."""


class UdpReceiver(DatagramProtocol):
    """One UDP address where frames come in; ``listen`` opens it."""

    noisy = False

    def __init__(self, host: str, port: int, take: Take) -> None:
        self.end = (host, port)
        self._take = take
        self._port: Any = None

    def listen(self, reactor: Any) -> None:
        """Begin; ``CannotListenError`` says why that cannot be."""
        self._port = reactor.listenUDP(self.end[1], self, self.end[0], 65_535)
        self._port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Hand one frame over."""
        if len(datagram) >= SHORTEST:
            self._take(datagram, Way("hep_udp", (addr[0], addr[1]), self.end))

    def sendto(self, data: bytes, address: tuple[str, int]) -> None:
        """Send a frame from here; ``OSError`` if that cannot be."""
        bound: socket.socket = self._port.socket
        bound.sendto(data, address)

    def stop(self) -> None:
        """End."""
        if self._port is not None:
            self._port.stopListening()


class TcpReceiver(Factory):
    """One TCP address where frames come in; ``listen`` opens it."""

    noisy = False

    def __init__(self, reactor: Any, host: str, port: int, take: Take, refused: Refused, limits: Limits) -> None:
        self.end = (host, port)
        self.limits = limits
        self.reactor = reactor
        self.take = take
        self.refused = refused
        self.links: set[Link] = set()
        self._hosts: Counter[str] = Counter()
        self._port: Any = None

    def listen(self) -> None:
        """Begin; ``CannotListenError`` says why that cannot be."""
        self._port = self.reactor.listenTCP(self.end[1], self, 512, self.end[0])

    def buildProtocol(self, addr: Any) -> Protocol | None:
        """A connection, unless there are too many."""
        if len(self.links) >= self.limits.most or self._hosts[addr.host] >= MOST_OF_HOST:
            self.refused(Way("hep_tcp", (addr.host, addr.port), self.end), "there are too many connections")
            return None
        made = Link(self, addr)
        self.links.add(made)
        self._hosts[addr.host] += 1
        return made

    def left(self, link: Link) -> None:
        """A connection has ended."""
        self.links.discard(link)
        host = link.way.source[0]
        self._hosts[host] -= 1
        if not self._hosts[host]:
            del self._hosts[host]

    def stop(self) -> None:
        """End, and all connections with it."""
        if self._port is not None:
            self._port.stopListening()
        for link in tuple(self.links):
            link.transport.abortConnection()


class Link(Protocol):
    """One connection on which frames come."""

    transport: Any

    def __init__(self, receiver: TcpReceiver, addr: Any) -> None:
        self.way = Way("hep_tcp", (addr.host, addr.port), receiver.end)
        self._receiver = receiver
        self._data = b""
        self._pieces = 0
        self._timer: Any = None

    def connectionMade(self) -> None:
        """Begin to wait for a frame."""
        self._timer = self._receiver.reactor.callLater(self._receiver.limits.frame_time, self._late)

    def dataReceived(self, data: bytes) -> None:
        """Cut frames."""
        limits = self._receiver.limits
        began = bool(self._data)
        data = self._data + data
        at = 0
        try:
            while len(data) - at >= 6:
                end = at + length(data[at : at + 6])
                if end > len(data):
                    break
                self._receiver.take(data[at:end], self.way)
                at = end
        except ValueError as error:
            self._end(str(error))
            return
        self._data = data[at:]
        if not self._data:
            self._pieces = 0
            self._timer.reset(limits.lifetime)
        elif at or not began:  # another frame has begun
            self._pieces = 1
            self._timer.reset(limits.frame_time)
        else:
            self._pieces += 1
        if self._data and self._pieces >= limits.pieces:
            self._end(f"a frame has come in {self._pieces} pieces and is not whole")

    def _late(self) -> None:
        if self._data:
            self._end("a frame does not come to its end")
        else:
            self.transport.abortConnection()

    def _end(self, why: str) -> None:
        self._data = b""
        self._receiver.refused(self.way, why)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = ...) -> None:  # type: ignore[assignment]
        """End."""
        if self._timer.active():
            self._timer.cancel()
        self._receiver.left(self)
