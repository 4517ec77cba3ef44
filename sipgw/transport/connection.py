"""One connection of SIP over a stream (RFC 3261 18.3): what is read, what is written, and how long each may take.

A connection is a bare ``IReadWriteDescriptor`` like ``UdpSocket``: a message that the kernel takes at once costs one system
call, and one that idles costs 1.5 kB. It goes through these states, never back::

    NEW -> CONNECTING -> OPEN -> CLOSING -> CLOSED

NEW is one of ours on which nothing was sent yet; what is sent while it connects waits. An accepted one begins OPEN. CLOSING
sends what still waits and lets the peer read it: closed with unread octets, the kernel would answer RST and our last response
would be lost. A peer that has only ended its own direction (half close) is still answered.

Time is the only limit on how a peer cuts its messages: see ``StreamSettings``. Whoever overrides ``established``, ``received``
and ``write`` puts a layer between (TLS, WebSocket)."""

from __future__ import annotations

import enum
import errno
import os
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.logger import Logger
from zope.interface import implementer

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response
from sipgw.sip.stream import PING, PONG, Framer
from sipgw.transport import proxy_protocol
from sipgw.transport.connections import written
from sipgw.transport.flow import DEFAULT_PORT, StreamFlow

if TYPE_CHECKING:
    from sipgw.sip.timers import Timer
    from sipgw.transport.proxy_protocol import Header
    from sipgw.transport.stream import StreamSocket

READ = 16384
"""Octets read at most for one wake-up, before other connections have their turn."""
WAITING = 1024 * 1024
"""Octets that wait at most for a connection to be made, or for a peer that does not read."""
LINGER = 2.0
"""Seconds in which a peer may read our last words before the connection is cut."""
ANSWER_TIME = 32.0
"""Seconds for which a peer that has ended its direction waits for its answers: 64*T1, then nobody wants them."""

_log = Logger()


class State(enum.IntEnum):
    """How far a connection has come."""

    NEW = 0
    CONNECTING = 1
    OPEN = 2
    CLOSING = 3
    CLOSED = 4


NEW, CONNECTING, OPEN, CLOSING, CLOSED = State


@implementer(IReadWriteDescriptor)
class Connection:
    """One connection to ``host`` and ``port`` that belongs to the socket ``local``; ``opened`` is the accepted one's descriptor.

    ``unanswered``: requests that came and have no final response yet. ``active``: when the last octet came or went.
    ``proxy_header``: what a load balancer says of who is behind it."""

    __slots__ = (
        "_begun", "_front", "_idle", "_limit", "_out", "_recv", "_send", "_size", "_socket", "_stall", "accepted", "active",
        "aliases", "framer", "half_closed", "host", "id", "keep_until", "local", "number", "port", "proxy_header", "state",
        "unanswered",
    )

    def __init__(self, local: StreamSocket, host: str, port: int, opened: socket.socket | None = None) -> None:
        self.local = local
        self.host = host
        self.port = port
        self.accepted = opened is not None
        self.aliases: tuple[int, ...] = ()
        self.number = 0
        self.id: tuple[str, int] = ("", 0)
        self.state = NEW
        self.half_closed = False
        self.unanswered = 0
        self.proxy_header: Header | None = None
        self.keep_until = 0.0
        self.active = local.user.clock()
        self.framer = Framer()
        self._out: list[bytes] = []
        self._size = 0
        self._begun = False  # a message has, and _limit is its time
        self._limit: Timer[Any] | None = None
        self._stall: Timer[Any] | None = None
        self._idle: Timer[Any] | None = None
        self._socket: socket.socket | None = None
        self._front: bytes | None = b"" if self.accepted and local.allow_proxy else None  # what came of a PROXY header
        if opened is not None:
            self._use(opened)

    def begin(self) -> None:
        """Take its place in the table; an accepted one begins to read."""
        local = self.local
        self.number = local.connections.add(self)
        self.id = (local.connections.worker, self.number)
        self._idle = local.user.after(local.settings.lifetime, self._idled)
        if self.accepted:
            self.state = OPEN
            self._limit = local.user.after(local.settings.first_byte, self._too_slow)
            local.reactor.addReader(self)
            local.connections.watch("ACCEPTED", self, True, "Connection accepted...")
            self.established()

    def _use(self, opened: socket.socket) -> None:
        self._socket = opened
        self._recv = opened.recv
        self._send = opened.send

    def flow(self) -> StreamFlow:
        """A flow to the peer."""
        return StreamFlow(self, self.host, self.port)

    def own_address(self) -> tuple[str, int]:
        """Our end of it: of one that we made, the port that the kernel chose."""
        assert self._socket is not None
        address = self._socket.getsockname()
        return str(address[0]), int(address[1])

    @property
    def is_open(self) -> bool:
        """Whether what is sent goes out now."""
        return self.state is OPEN

    @property
    def ends_at(self) -> float:
        """When it will be closed if nobody uses it any more."""
        ends: float = self.active + self.local.settings.lifetime
        return max(ends, self.keep_until)

    # ---- out ----

    def send(self, data: bytes) -> bool:
        """Send one message; False if the connection is gone, and with it what still waits."""
        self.write(data)
        return self.state <= OPEN

    def write(self, data: bytes) -> None:
        """Put octets on the stream: at once, or behind those that wait."""
        state = self.state
        if state is OPEN and not self._out:
            try:
                sent = self._send(data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.lost(error.strerror or str(error))
                return
            self.active = self.local.user.clock()
            if sent == len(data):
                return
            data = data[sent:]
            self.local.reactor.addWriter(self)
            self._watch_stall()
        elif state >= CLOSING:
            return
        self._out.append(data)
        self._size += len(data)
        settings = self.local.settings
        if self._size > WAITING or (state is OPEN and len(self._out) > settings.most_waiting):
            self.lost(f"{len(self._out)} messages wait for the peer to take them")
        elif state is NEW:
            self._connect()

    def _watch_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        self._stall = self.local.user.after(self.local.settings.send_timeout, self._stalled)

    def _stalled(self, _now: float) -> None:
        self.lost(f"the peer took nothing for {self.local.settings.send_timeout:g} s")

    def _flush(self) -> None:
        """Send what waits, as far as the kernel takes it."""
        out = self._out
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            try:
                sent = self._send(data)
            except BlockingIOError:
                return
            except OSError as error:
                self.lost(error.strerror or str(error))
                return
            self.active = self.local.user.clock()
            self._size = len(data) - sent
            self._out = [data[sent:]] if self._size else []
            if self._size:
                self._watch_stall()
                return
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self.local.reactor.removeWriter(self)
        if self.state is CLOSING:
            self._shut()
        elif self.half_closed:
            self.end_if_answered()

    # ---- opening ----

    def _connect(self) -> None:
        """Begin to connect, from the address of our socket."""
        local = self.local
        try:
            opened = local.dial(self.host, self.port)
        except OSError as error:
            self.lost(f"cannot connect: {error.strerror or error}")
            return
        self._use(opened)
        self.state = CONNECTING
        local.reactor.addWriter(self)
        self._limit = local.user.after(local.settings.connect_timeout, self._too_slow)
        local.connections.watch("CONNECT_START", self, True, "Async connect in progress...")

    def _connected(self) -> None:
        assert self._socket is not None
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.lost(f"cannot connect: {os.strerror(error)}")
            return
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        self.state = OPEN
        self.active = self.local.user.clock()
        self.local.reactor.addReader(self)
        self.local.connections.watch("CONNECTED", self, True, "Successfully connected asynchronously...")
        if self.local.send_proxy:
            header = self._proxy_line()
            self._out.insert(0, header)
            self._size += len(header)
        self.established()
        if self.state is OPEN:
            self._flush()

    def _proxy_line(self) -> bytes:
        source, port = self.own_address()
        return proxy_protocol.write(source, port, self.host, self.port)

    def established(self) -> None:
        """Begin what must come before the first message: nothing on a plain connection."""

    # ---- in ----

    def _take_front(self, data: bytes) -> bytes:
        """Take a PROXY header off the front; nothing is left while it is not complete."""
        try:
            found = proxy_protocol.read(data)
        except ValueError as error:
            self.lost(str(error))
            return b""
        if found is None:
            self._front = data
            if not self._begun:
                self._set_limit(self.local.settings.message_time)
            return b""
        self._front = None
        self.proxy_header, length = found
        return data[length:]

    def received(self, data: bytes) -> None:
        """Take octets of the stream: cut messages out of them and hand these over."""
        local = self.local
        user, settings, framer = local.user, local.settings, self.framer
        if settings.drop_crlf and data == b"\r\n" and framer.empty:
            self._set_limit(0.0)
            return
        items = framer.feed(data)
        for item in items:
            if isinstance(item, Request):
                if settings.accept_aliases:
                    self._take_alias(item, settings.accept_aliases)
                if item.method != "ACK":
                    self.unanswered += 1
                user.take(item, self.flow())
            elif isinstance(item, Response):
                user.take(item, self.flow())
            elif item is PING:
                if settings.pong:
                    self.write(PONG)
            elif isinstance(item, MalformedMessage):
                if isinstance(item.message, Request) and item.message.method != "ACK":
                    self.unanswered += 1
                user.refuse(item, self.flow())
            if self.state is not OPEN:
                return
        if framer.broken:
            self.close()
        elif framer.empty:
            self._set_limit(0.0)
        elif items or not self._begun:
            self._set_limit(settings.message_time)

    def _set_limit(self, seconds: float) -> None:
        """Give the peer so long to end the message that has begun; 0: none has."""
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        self._begun = seconds > 0
        if seconds:
            self._limit = self.local.user.after(seconds, self._too_slow)

    def _take_alias(self, request: Request, mode: int) -> None:
        """Note the alias that the top Via asks for (RFC 5923 7.1), or, with ``mode`` 2, any."""
        try:
            via = request.via
        except MalformedMessage:
            return
        if mode == 2 or "alias" in via.params:
            self.local.connections.alias(self, via.port or DEFAULT_PORT[self.local.transport])

    def _too_slow(self, _now: float) -> None:
        """End what took too long: to connect, to say the first word, to end a message, to go."""
        settings = self.local.settings
        self._limit = None
        if self.state is CONNECTING:
            self.lost(f"cannot connect within {settings.connect_timeout:g} s")
        elif self.state is CLOSING or self.half_closed:
            self.lost("")
        elif self.framer.empty and not self._begun:
            self.lost(f"it said nothing for {settings.first_byte:g} s")
        else:
            self.lost(f"a message did not end within {settings.message_time:g} s")

    def _idled(self, now: float) -> None:
        """Close a connection that nobody has used for its lifetime and on which no answer is awaited; else look again later.

        Later is when it may be due, put off to the next eighth of a lifetime: few lengths of timers cost little."""
        local = self.local
        lifetime = local.settings.lifetime
        left = self.ends_at - now
        if left <= 0 and not local.user.layer.waits_on(self.id):
            self._idle = None
            self.lost("")
            return
        step = lifetime / 8
        self._idle = local.user.after(min(max(1, -(-left // step)) * step, lifetime), self._idled)

    def _half_close(self) -> None:
        """Note that the peer will send no more; end at once unless it waits for answers."""
        self.local.reactor.removeReader(self)
        if self.state is CLOSING:
            self.lost("")
            return
        self.half_closed = True
        self.local.connections.retire(self)
        self.tell_lost()
        if self._limit is not None:
            self._limit.cancel()
        self._limit = self.local.user.after(ANSWER_TIME, self._too_slow)
        self.end_if_answered()

    def end_if_answered(self) -> None:
        """End a half-closed connection once all that came on it has been answered."""
        if not self.unanswered and not self._out:
            self.lost("")

    # ---- what the reactor calls ----

    def fileno(self) -> int:
        """The descriptor, -1 when there is none."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """The name of this connection in Twisted's own log lines."""
        return str(self)

    def doRead(self) -> None:
        """Take what has arrived, up to ``READ`` octets."""
        try:
            data = self._recv(READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.lost(error.strerror or str(error))
            return
        if not data:
            self._half_close()
        elif self.state is OPEN:
            self.active = self.local.user.clock()
            try:
                if self._front is not None:
                    data = self._take_front(self._front + data)
                if data:
                    self.received(data)
            except Exception:
                _log.failure("{connection} met a bug of sipgw", connection=self)
                self.lost("a bug")

    def doWrite(self) -> None:
        """Go on with what waited for the kernel: to connect, or to send."""
        if self.state is CONNECTING:
            self._connected()
        else:
            self._flush()

    def connectionLost(self, reason: Any) -> None:
        """End: the reactor saw an error on the descriptor."""
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self.fileno() >= 0 else 0  # type: ignore[union-attr]
        text = os.strerror(error or errno.ECONNRESET)
        self.lost(f"cannot connect: {text}" if self.state is CONNECTING else text)

    # ---- the end ----

    def close(self) -> None:
        """End in order: what waits is sent, nothing more is read or taken."""
        if self.state < OPEN or self.half_closed:
            self.lost("")
        elif self.state is OPEN:
            self.state = CLOSING
            self.local.connections.retire(self)
            self.tell_lost()
            self._set_limit(LINGER)
            if not self._out:
                self._shut()

    def _shut(self) -> None:
        """Tell the peer that no more comes; what it still sends is read and thrown away until it ends too."""
        assert self._socket is not None
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.lost("")

    def lost(self, why: str) -> None:
        """End at once, with ``why`` in the log if it is not in order; what waited for answers on it fails."""
        if self.state is CLOSED:
            return
        connecting = self.state is CONNECTING
        self.state = CLOSED
        local = self.local
        local.connections.remove(self)
        if connecting:
            local.connections.watch("CONNECTED", self, False, why)
        elif self._socket is not None:
            local.connections.watch("CLOSED", self, True, why)
            local.user.disconnected(local.transport, self.host, self.port, *self.own_address())
        for timer in (self._limit, self._stall, self._idle):
            if timer is not None:
                timer.cancel()
        self._limit = self._stall = self._idle = None
        self._out = []
        self._size = 0
        if self._socket is not None:
            local.reactor.removeReader(self)
            local.reactor.removeWriter(self)
            self._socket.close()
        self.tell_lost()
        local.ended(self, why, connecting)

    def tell_lost(self) -> None:
        """Let the transactions that wait on this connection fail, in a turn of the reactor of their own."""
        local = self.local
        if local.user.layer.waits_on(self.id):
            local.reactor.callLater(0, local.user.flow_lost, self.id)

    def __str__(self) -> str:
        return f"{self.local.transport}:{written(self.host, self.port)}"
