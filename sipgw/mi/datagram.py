"""A datagram socket of the management interface, UDP or unix: one request in each datagram, one answer back to its sender.

A unix socket appears under its name as a FIFO does (``mi/owner.py``). A peer whose own socket is full, or that is gone, may take
its answer later: sending is tried again for a while. Nothing here is ever longer than one datagram."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sipgw.mi.owner import Owner, is_there

RETRY = 0.02
"""Seconds between two tries to send an answer for which there is no room."""
MAX_ANSWERS = 64
"""Requests under way; with so many, no more are read: the kernel keeps some, and drops what is beyond."""
BURST = 16
"""Requests read in one turn of the reactor, so that SIP has its turn."""

_NO_ROOM = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)


def parse_address(name: str) -> tuple[str, int] | None:
    """The host and port of ``udp:host:port``, None for the path of a unix socket; ``ValueError`` if it is neither.

    ``host`` is an address, in brackets or not, or ``localhost``."""
    if not name:
        raise ValueError("no socket is named: write udp:host:port, or a path")
    if not name.startswith("udp:"):
        if "\0" in name or len(os.fsencode(name)) > 100:
            raise ValueError(f"{name!r} is no path of a unix socket")
        return None
    host, colon, port = name[4:].rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{name!r} has no port: write udp:host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    try:
        return str(ip_address("127.0.0.1" if host == "localhost" else host)), int(port)
    except ValueError:
        raise ValueError(f"{host!r} is no address: write udp:127.0.0.1:8080") from None


def open_udp(host: str, port: int) -> socket.socket:
    """A UDP socket at ``host`` and ``port``; port 0 is one that the kernel picks."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.bind((host, port))
    except OSError:
        made.close()
        raise
    return made


def open_unix(path: str, owner: Owner) -> tuple[socket.socket, os.stat_result]:
    """A unix socket at ``path``, in place of an older one, and how to know it again."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        return made, owner.place(path, stat.S_IFSOCK, made.bind)
    except OSError:
        made.close()
        raise


@implementer(IReadDescriptor)
class DatagramServer:
    """One socket: ``take(data, peer)`` is called with each request, ``data`` being None for one longer than ``limit`` octets.

    ``taken`` tells each time how many of them have not been answered: ``end()`` says that one has."""

    def __init__(
        self,
        reactor: Any,
        sock: socket.socket,
        limit: int,
        patience: float,
        take: Callable[[bytes | None, Any], None],
        made: os.stat_result | None = None,
    ) -> None:
        self._reactor = reactor
        self._socket = sock
        self._made = made
        self._limit = limit
        self._patience = patience
        self._take = take
        self._busy = 0
        self._waiting: set[Any] = set()
        self.address: Any = sock.getsockname()
        if made is not None:
            self.address = self.address.removesuffix(f".{os.getpid()}")
        sock.setblocking(False)
        reactor.addReader(self)

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """What Twisted calls this in its log."""
        return "mi_datagram"

    def doRead(self) -> None:
        """Read a few requests."""
        for _ in range(BURST):
            try:
                data, peer = self._socket.recvfrom(self._limit + 1)
            except OSError as error:
                if error.errno == errno.ECONNREFUSED:
                    continue  # a peer to whom we answered earlier is gone; nothing is wrong with this socket
                return
            self._busy += 1
            if self._busy >= MAX_ANSWERS:
                self._reactor.removeReader(self)
            self._take(data if len(data) <= self._limit else None, peer)
            if self._busy >= MAX_ANSWERS or self.fileno() < 0:
                return

    def end(self) -> None:
        """A request that was taken is done with."""
        self._busy -= 1
        if self._busy == MAX_ANSWERS - 1 and self.fileno() >= 0:
            self._reactor.addReader(self)

    def send(self, data: bytes, peer: Any, done: Callable[[str], None]) -> None:
        """Send one answer; ``done(fault)`` at the end, with an empty text if it went out."""
        self._send(data, peer, done, self._reactor.seconds() + self._patience)

    def _send(self, data: bytes, peer: Any, done: Callable[[str], None], until: float) -> None:
        if self.fileno() < 0:
            done("the server stops")
            return
        if not peer:
            done("the sender has no address: it must bind its socket")
            return
        try:
            self._socket.sendto(data, peer)
        except OSError as error:
            if error.errno in _NO_ROOM and self._reactor.seconds() < until:
                self._later(data, peer, done, until)
                return
            text = "its socket is full" if error.errno in _NO_ROOM else error.strerror
            done(f"{written(peer)}: {text}")
        else:
            done("")

    def _later(self, data: bytes, peer: Any, done: Callable[[str], None], until: float) -> None:
        def again() -> None:
            self._waiting.discard(entry)
            self._send(data, peer, done, until)

        entry = (self._reactor.callLater(RETRY, again), done)
        self._waiting.add(entry)

    def close(self) -> None:
        """Read no more, give up what could not be sent, and remove a unix socket that is still ours."""
        if self.fileno() < 0:
            return
        self._reactor.removeReader(self)
        self._socket.close()
        if self._made is not None and is_there(self.address, self._made):
            os.unlink(self.address)
        waiting, self._waiting = self._waiting, set()
        for call, done in waiting:
            call.cancel()
            done("the server stops")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives the socket up."""
        self.close()


def written(peer: Any) -> str:
    """The address of a peer, for a line of the log."""
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)
