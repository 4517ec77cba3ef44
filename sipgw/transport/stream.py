"""SIP over TCP (RFC 3261 18): a socket that listens, and the flows to peers over the connections that it has or makes.

``StreamSocket`` accepts connections and opens those that are wanted; each is a ``Connection``. All sockets of a server share
one ``ConnectionTable``. When descriptors run out, nothing more is accepted until some are free again: new peers wait in the
kernel's queue, and UDP, databases and the log go on with the ``RESERVE``."""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from sipgw.transport.addresses import refusal
from sipgw.transport.connection import Connection
from sipgw.transport.connections import ConnectionTable, written
from sipgw.transport.flow import RefusedFlow, StreamFlow

ACCEPTS = 64
"""Connections accepted at most for one wake-up, before other sockets have their turn."""
LEAST_BACKLOG = 512
"""What the kernel is asked at least to queue of connections not accepted yet (F13: with 10 the 12th of a burst waits)."""
RESERVE = 16
"""File descriptors that connections never take."""
PAUSE = 1.0
"""Seconds without accepting when there are no file descriptors; then it is tried again."""
QUIET = 1.0
"""Seconds between two log lines about the same fault."""
QUIET_DESCRIPTORS = 10.0
"""Seconds between two log lines about missing file descriptors."""

_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BIND_ADDRESS_NO_PORT = 24  # of <linux/in.h>: a port is chosen when we connect, so that ports can be shared between peers


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How connections are kept; times in seconds.

    ``first_byte``: until an accepted one must have said something; ``message_time``: from the first octet of a message to its
    last; ``lifetime``: without any traffic; ``send_timeout``: for a peer to take anything of what waits. ``most``: accepted
    ones of all sockets, ``most_of_host``: of one address (0: any number). ``most_waiting``: messages that wait for the peer to
    read. ``accept_aliases``: 0 never, 1 as RFC 5923 says, 2 always. ``pong``: answer to pings; ``drop_crlf``: a CRLF that
    comes alone is not half a ping."""

    connect_timeout: float = 0.1
    first_byte: float = 10.0
    message_time: float = 4.0
    lifetime: float = 120.0
    send_timeout: float = 10.0
    most: int = 2048
    most_of_host: int = 64
    most_waiting: int = 32
    backlog: int = LEAST_BACKLOG
    keepalive: bool = True
    keepalive_count: int | None = None
    keepalive_idle: int | None = None
    keepalive_interval: int | None = None
    accept_aliases: int = 0
    pong: bool = True
    drop_crlf: bool = False


@implementer(IReadDescriptor)
class StreamSocket:
    """One TCP address where sipgw listens and from which it connects; messages go to ``user.take(message, flow)``.

    ``open`` binds, ``start`` begins to accept, ``stop`` ends, and with it its connections. Port 0 takes a free one, and
    ``port`` says which."""

    transport = "tcp"
    reconnects = True
    """Whether a response may be brought over a connection that we open."""
    connection = Connection
    """What makes a connection: ``connection(socket, host, port, descriptor)``."""

    def __init__(
        self,
        user: Any,
        reactor: Any,
        host: str,
        port: int,
        *,
        advertised_host: str = "",
        advertised_port: int = 0,
        tag: str = "",
        tos: int | None = None,
        reuse_port: bool = False,
        allow_proxy: bool = False,
        send_proxy: bool = False,
        settings: StreamSettings | None = None,
    ) -> None:
        self.user = user
        self.reactor = reactor
        self.host = host
        self.port = port
        self.advertised_host = advertised_host
        self.advertised_port = advertised_port
        self.tag = tag
        self.tos = tos
        self.reuse_port = reuse_port
        self.allow_proxy = allow_proxy
        """Whether connections that are accepted may begin with a PROXY header."""
        self.send_proxy = send_proxy
        """Whether those that we open do."""
        self.settings = settings or StreamSettings()
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if user.connections is None:
            user.connections = ConnectionTable(user.worker)
        self.connections: ConnectionTable = user.connections
        self.turned_away = 0
        """Connections that were closed as soon as they came, because there were too many."""
        self._complaints: dict[str, tuple[float, int]] = {}
        self._open = False
        self._resume: Any = None

    # ---- open and close ----

    def open(self) -> None:
        """Bind and listen; ``OSError`` says why it cannot be."""
        bound = self._socket_of_ours()
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((self.host, self.port))
            bound.listen(max(self.settings.backlog, LEAST_BACKLOG))
        except OSError:
            bound.close()
            raise
        self.port = bound.getsockname()[1]
        self._socket = bound
        self._open = True

    def _socket_of_ours(self) -> socket.socket:
        """A socket with the options that an accepted connection inherits and one of our own needs."""
        settings = self.settings
        made = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.reuse_port:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if self.family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if self.tos is not None and self.family == socket.AF_INET:
                made.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self.tos)
            elif self.tos is not None:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self.tos)
            wanted = {
                socket.TCP_KEEPCNT: settings.keepalive_count,
                socket.TCP_KEEPIDLE: settings.keepalive_idle,
                socket.TCP_KEEPINTVL: settings.keepalive_interval,
            }
            for option, value in wanted.items():
                if value:
                    made.setsockopt(socket.IPPROTO_TCP, option, value)
            if settings.keepalive or any(wanted.values()):
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError:
            made.close()
            raise
        return made

    def start(self) -> None:
        """Begin to accept; who came since ``open`` has waited in the kernel."""
        self.reactor.addReader(self)

    def stop(self) -> None:
        """Leave the reactor, close, and end all connections; twice is once."""
        if not self._open:
            return
        self._open = False
        if self._resume is not None:
            self._resume.cancel()
            self._resume = None
        self.reactor.removeReader(self)
        self._socket.close()
        for connection in self.connections:
            if connection.local is self:
                connection.lost("")

    # ---- flows ----

    def flow(self, host: str, port: int) -> StreamFlow:
        """Make a flow to ``host``, an IP address without brackets: over the connection to it, else over one yet to be opened."""
        if ":" in host:
            host = _compressed(host)
        connection = self.connections.at(self, host, port)
        if connection is None:
            connection = self.connection(self, host, port)
            refused = self._refusal(host, port)
            if refused:
                return RefusedFlow(connection, refused)
            connection.begin()
        return StreamFlow(connection, host, port)

    def _refusal(self, host: str, port: int) -> str:
        refused = refusal(host)
        if not refused and (":" in host) is not (self.family == socket.AF_INET6):
            refused = f"cannot be reached from {self}"
        if not refused and not 0 < port < 65536:
            refused = f"has no port {port}"
        if not refused and not self._open:
            refused = f"cannot be reached: {self} is closed"
        return refused

    def send(self, data: bytes, host: str, port: int) -> None:
        """Send one message."""
        self.flow(host, port).send(data)

    def dial(self, host: str, port: int) -> socket.socket:
        """Begin to connect from our address: from our port too with ``reuse_port``, else from a free one."""
        made = self._socket_of_ours()
        try:
            if made.fileno() >= _most_descriptors() - RESERVE:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if not self.reuse_port:
                made.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
            made.bind((self.host, self.port if self.reuse_port else 0))
            error = made.connect_ex((host, port))
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
        except OSError:
            made.close()
            raise
        return made

    # ---- what the reactor calls ----

    def fileno(self) -> int:
        """The descriptor, -1 when closed."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """The name of this socket in Twisted's own log lines."""
        return str(self)

    def doRead(self) -> None:
        """Accept who has come, up to ``ACCEPTS`` connections."""
        settings, connections = self.settings, self.connections
        limit = _most_descriptors() - RESERVE
        for _ in range(ACCEPTS):
            try:
                opened, address = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTORS:
                    self._pause()
                    return
                continue
            refused = connections.refusal(address[0], settings.most, settings.most_of_host)
            if refused:
                opened.close()
                self.turned_away += 1
                self.complain("too many", f"{self} turns {address[0]}:{address[1]} away: {refused}")
                continue
            opened.setblocking(False)
            self.connection(self, address[0], address[1], opened).begin()
            if opened.fileno() >= limit:
                self._pause()
                return

    def connectionLost(self, reason: Any) -> None:
        """Go on accepting: an error that the reactor saw on the descriptor does not end a listening socket."""
        if self._open:
            self._pause()

    # ---- when descriptors run out ----

    def _pause(self) -> None:
        """Accept nobody for a while."""
        self.reactor.removeReader(self)
        self.complain("descriptors", f"{self} accepts no connection: there are no file descriptors left", QUIET_DESCRIPTORS)
        if self._resume is None:
            self._resume = self.reactor.callLater(PAUSE, self._try_again)

    def _try_again(self) -> None:
        self._resume = None
        if _descriptors_left() > 0:
            self.reactor.addReader(self)
        else:
            self._pause()

    # ---- faults ----

    def ended(self, connection: Connection, why: str, connecting: bool) -> None:
        """Hear of a connection that has ended."""
        if why:
            self.complain("connect" if connecting else "lost", f"{self} lost {connection}: {why}")

    def complain(self, kind: str, text: str, quiet: float = QUIET) -> None:
        """Log a fault at WARN, each ``kind`` once in ``quiet`` seconds, with the number of those in between."""
        now = self.user.clock()
        last, hidden = self._complaints.get(kind, (now - quiet, 0))
        if now - last < quiet:
            self._complaints[kind] = (last, hidden + 1)
            return
        self._complaints[kind] = (now, 0)
        self.user.log(1, f"{text} ({hidden} more like this)" if hidden else text)

    def __str__(self) -> str:
        return f"{self.transport}:{written(self.host, self.port)}"


@lru_cache(maxsize=4096)
def _compressed(host: str) -> str:
    """An IPv6 address as the kernel writes it."""
    try:
        return ipaddress.ip_address(host).compressed
    except ValueError:
        return host


def _most_descriptors() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit


def _descriptors_left() -> int:
    """How many descriptors connections may still take, counted from the next free one; at least 0."""
    try:
        probe = os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return 0
    os.close(probe)
    return max(0, _most_descriptors() - RESERVE - probe)
