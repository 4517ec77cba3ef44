"""A component's connection to its XMPP server, kept up (XEP-0114).

A connection that fails or ends is tried again after a time that doubles from ``FIRST_WAIT`` to ``LONGEST_WAIT`` seconds, with
chance in it. Nothing is queued here: what cannot be sent now fails now. What the server has dealt with ``deliveries.py`` finds
out: its questions go to ourselves, and the server brings them back."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from sipgw.xmpp.deliveries import Deliveries, Down
from sipgw.xmpp.stanza import Element, write
from sipgw.xmpp.stream import ComponentStream, Ended, Ready

__all__ = ["Down", "Link", "LinkSettings", "Watcher"]

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
LASTING: Final = 30.0
"""Seconds after which a connection counts as one that works, so that the waits begin anew."""
CONNECT_TIME: Final = 10.0


@dataclass
class LinkSettings:
    """Where a component connects to, as what."""

    domain: str
    host: str = "127.0.0.1"
    port: int = 5347
    secret: str = field(default="", repr=False)
    tls: Any = None
    """What ``wrapClientTLS`` wants; None for plain TCP."""
    response_time: float = 10.0
    """Seconds that the server may take to deal with what it was sent."""
    keepalive: float = 60.0
    """Seconds of silence after which it is asked whether it is there; 0: never."""


class Watcher(Protocol):
    """What a ``Link`` tells."""

    def up(self, link: Link) -> None:
        """The server has accepted us."""

    def down(self, link: Link, reason: str) -> None:
        """A connection has ended, or could not begin."""

    def came(self, link: Link, element: Element) -> None:
        """A stanza came that is no answer to ``deliver``."""


class _Connection(TwistedProtocol):
    """One connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.stream = ComponentStream(link.settings.domain, link.settings.secret)
        self.reason = ""

    def connectionMade(self) -> None:
        """Begin the stream."""
        transport: Any = self.transport
        transport.setTcpNoDelay(True) if hasattr(transport, "setTcpNoDelay") else None
        transport.setTcpKeepAlive(True) if hasattr(transport, "setTcpKeepAlive") else None
        self.link.connected(self)
        transport.write(self.stream.open())

    def dataReceived(self, data: bytes) -> None:
        """Take octets."""
        transport: Any = self.transport
        out, events = self.stream.receive(data)
        if out:
            transport.write(out)
        for event in events:
            if self.link.connection is not self:
                return
            if isinstance(event, Ready):
                self.link.accepted()
            elif isinstance(event, Ended):
                self.reason = self.reason or event.reason
                transport.write(self.stream.close())
                transport.loseConnection()
            else:
                self.link.received(event)

    def connectionLost(self, reason: Any = None) -> None:
        """It is over."""
        why = self.reason or (reason.getErrorMessage() if reason is not None else "closed")
        self.link.lost(self, why)

    def drop(self, reason: str) -> None:
        """End it at once."""
        self.reason = reason
        transport: Any = self.transport
        transport.abortConnection()


class Link:
    """One component. ``random`` gives the waits their jitter."""

    def __init__(self, settings: LinkSettings, reactor: Any, watcher: Watcher, random: Random | None = None) -> None:
        self.settings = settings
        self.reactor = reactor
        self.watcher = watcher
        self.random = random or Random()
        self.stopped = True
        self.ready = False
        self.connection: _Connection | None = None
        self.since = 0.0
        self.attempts = 0
        self.reason = "not tried yet"
        self._wait = 0.0
        self._timer: Any = None
        self._connecting: Deferred[Any] | None = None
        self._deadline: Any = None
        self._idle: Any = None
        self._deliveries = Deliveries(
            reactor, settings.domain, settings.domain, settings.response_time, self.send, self._silent
        )
        self._closed: Deferred[None] | None = None

    # ---- the beginning and the end ----

    def endpoint(self) -> Any:
        """Where to connect to."""
        settings = self.settings
        plain: Any = HostnameEndpoint(self.reactor, settings.host, settings.port, timeout=CONNECT_TIME)
        return plain if settings.tls is None else wrapClientTLS(settings.tls, plain)

    def start(self) -> None:
        """Connect, and stay connected."""
        if self.stopped:
            self.stopped = False
            self._wait = 0.0
            self._connect()

    async def stop(self) -> None:
        """Close the stream, and stay away."""
        self.stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._connecting is not None:
            self._connecting.cancel()
        if self.connection is not None:
            transport: Any = self.connection.transport
            self.connection.reason = "stopped"
            transport.write(self.connection.stream.close())
            transport.loseConnection()
            self._closed = Deferred()
            abort = self.reactor.callLater(2.0, self.connection.drop, "stopped")
            await self._closed
            if abort.active():
                abort.cancel()

    def _connect(self) -> None:
        self._timer = None
        self.attempts += 1
        factory: Any = Factory.forProtocol(lambda: _Connection(self))
        factory.noisy = False
        self._connecting = self.endpoint().connect(factory)
        self._connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._again(failure.getErrorMessage())

    def _again(self, reason: str) -> None:
        self.reason = reason
        self.watcher.down(self, reason)
        if self.stopped or self._timer is not None:
            return
        self._wait = min(LONGEST_WAIT, self._wait * 2 or FIRST_WAIT)
        self._timer = self.reactor.callLater(self._wait * self.random.uniform(0.75, 1.25), self._connect)

    peer = ""
    others: tuple[Link, ...] = ()

    @property
    def key(self) -> str:
        """Its name in the queue."""
        return self.settings.domain

    def towards(self, _domain: str) -> Link:
        """The way to a domain: one server leads to all."""
        return self

    @property
    def state(self) -> str:
        """In a word, for people."""
        if self.stopped:
            return "stopped"
        if self.ready:
            return "up"
        return "connecting" if self.connection is not None or self._connecting is not None else "down"

    @property
    def pending(self) -> int:
        """Stanzas of which the server has not said yet that it took them."""
        return self._deliveries.count

    # ---- what the connection tells ----

    def connected(self, connection: _Connection) -> None:
        """A connection is there, the stream not yet."""
        self._connecting = None
        self.connection = connection
        self._deadline = self.reactor.callLater(CONNECT_TIME, connection.drop, "the server does not accept us in time")
        if self.stopped:
            connection.drop("stopped")

    def accepted(self) -> None:
        """The stream is there."""
        self._stop_waiting()
        self.ready = True
        self.since = self.reactor.seconds()
        self.reason = ""
        self._rest()
        self.watcher.up(self)

    def lost(self, connection: _Connection, reason: str) -> None:
        """The connection is over: fail what waits, and begin again."""
        if self.connection is not connection:
            return
        self._stop_waiting()
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self.connection = None
        if self.ready and self.reactor.seconds() - self.since > LASTING:
            self._wait = 0.0
        self.ready = False
        self._deliveries.lost(reason)
        if self._closed is not None:
            self._closed.callback(None)
            self._closed = None
        self._again(reason)

    def received(self, element: Element) -> None:
        """Take a stanza."""
        self._rest()
        if self._deliveries.received(element):
            return
        self.watcher.came(self, element)

    # ---- sending ----

    def send(self, element: Element) -> None:
        """Send a stanza of which nobody needs to hear; ``Down``."""
        if not self.ready or self.connection is None:
            raise Down(self.reason or "not connected")
        transport: Any = self.connection.transport
        transport.write(write(element))

    async def deliver(self, element: Element) -> tuple[int, str]:
        """Send a stanza; 200 when the server has dealt with it, or the status of its error; ``Down``."""
        return await self._deliveries.deliver(element)

    def _ask(self) -> None:
        """Ask the server whether it is there."""
        if self.connection is not None and self.ready:
            self._deliveries.ask()

    def _silent(self) -> None:
        if self.connection is not None:
            self.connection.drop("the server does not answer")

    def _stop_waiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _rest(self) -> None:
        """Something was heard: ask again only after a silence."""
        if not self.settings.keepalive:
            return
        if self._idle is not None and self._idle.active():
            self._idle.reset(self.settings.keepalive)
        else:
            self._idle = self.reactor.callLater(self.settings.keepalive, self._ask)
