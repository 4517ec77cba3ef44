"""The connection of one SIP user to his own account at a Jabber server, as a client of that (RFC 6120).

It is opened when it is needed, closed after a silence, and never opened again by itself: who is offline is offline, as in
OpenSIPS's module jabber. What the server has dealt with ``deliveries.py`` finds out."""

from __future__ import annotations

from dataclasses import dataclass, field
from secrets import token_urlsafe
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as TwistedProtocol

from sipgw.xmpp.address import Jid
from sipgw.xmpp.client_stream import ClientStream, Encrypt, Ended, Ready
from sipgw.xmpp.deliveries import Deliveries, Down
from sipgw.xmpp.encryption import Encryption
from sipgw.xmpp.stanza import COMPONENT, Element, SubElement, stanza, write

__all__ = ["Account", "AccountSettings", "Watcher"]

CONNECT_TIME: Final = 10.0
IDLE: Final = "nothing was said for long"


@dataclass
class AccountSettings:
    """Where accounts are. ``tls``: "no", "optional", "required" or "verified"; ``idle_time``: seconds."""

    host: str
    port: int
    tls: str = "optional"
    encryption: Encryption | None = None
    resource: str = "sip"
    priority: int = 9
    response_time: float = 10.0
    idle_time: float = 600.0


@dataclass
class Credentials:
    """An account; the password is never shown."""

    user: str
    domain: str
    password: str = field(repr=False)


class Watcher(Protocol):
    """Who is told."""

    def came(self, account: Account, element: Element) -> None:
        """A stanza came."""

    def gone(self, account: Account, reason: str) -> None:
        """The account is offline, after it was online."""


class _Client(TwistedProtocol):
    """One connection."""

    def __init__(self, account: Account) -> None:
        self.account = account
        given, tls = account.credentials, account.settings.tls
        resource = account.settings.resource
        wanted = "required" if tls == "verified" else tls
        nonce, proved = token_urlsafe(18), tls == "verified"  # then no octet is read before the certificate is
        self.stream = ClientStream(given.domain, given.user, given.password, resource, wanted, nonce, proved)
        self.server_name = given.domain
        self.reason = ""

    def connectionMade(self) -> None:
        """Begin."""
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.write(self.stream.open())

    def dataReceived(self, data: bytes) -> None:
        """Take octets."""
        transport: Any = self.transport
        if self.stream.secure and self.account.settings.tls == "verified" and not self._proved():
            self.drop("the server's certificate does not prove who it is")
            return
        out, events = self.stream.receive(data)
        if out:
            transport.write(out)
        for event in events:
            if self.reason:
                return
            if isinstance(event, Encrypt):
                transport.startTLS(self.account.settings.encryption)
                transport.write(self.stream.secured())
            elif isinstance(event, Ready):
                self.account.accepted(self, event.jid)
            elif isinstance(event, Ended):
                self.reason = event.reason
                transport.write(self.stream.close())
                transport.loseConnection()
            else:
                self.account.received(event)

    def _proved(self) -> bool:
        encryption = self.account.settings.encryption
        return encryption is not None and encryption.proves(self.transport, self.server_name)

    def drop(self, reason: str) -> None:
        """End it at once."""
        self.reason = self.reason or reason
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        """It is over."""
        self.account.lost(self, self.reason or (reason.getErrorMessage() if reason is not None else "closed"))


class Account:
    """The account of ``owner`` (a SIP address of record)."""

    def __init__(self, settings: AccountSettings, reactor: Any, owner: str, credentials: Credentials, watcher: Watcher) -> None:
        self.settings = settings
        self.reactor = reactor
        self.owner = owner
        self.credentials = credentials
        self.watcher = watcher
        self.jid = Jid(credentials.user, credentials.domain)
        self.ready = False
        self.since = 0.0
        self.rooms: dict[Jid, Any] = {}
        """What the module notes of each room that it has entered."""
        self._client: _Client | None = None
        self._waiting: list[Deferred[None]] | None = None
        self._deadline: Any = None
        self._idle: Any = None
        self._closed: Deferred[None] | None = None
        self._deliveries = Deliveries(
            reactor, "", credentials.domain, settings.response_time, self.send, lambda: self._drop("the server does not answer")
        )

    async def open(self) -> None:
        """Be online; ``Down`` if that cannot be."""
        if self.ready:
            return
        done: Deferred[None] = Deferred()
        if self._waiting is not None:
            self._waiting.append(done)
        else:
            self._waiting = [done]
            factory: Any = Factory.forProtocol(lambda: _Client(self))
            factory.noisy = False
            endpoint: Any = HostnameEndpoint(self.reactor, self.settings.host, self.settings.port, timeout=CONNECT_TIME)
            self._deadline = self.reactor.callLater(CONNECT_TIME, self._drop, "the server does not let us in in time")
            endpoint.connect(factory).addCallbacks(self._connected, lambda failure: self._failed(failure.getErrorMessage()))
        await done

    def _connected(self, client: _Client) -> None:
        self._client = client

    def accepted(self, client: _Client, jid: str) -> None:
        """The server has let us in: be seen."""
        self._client = client
        self.jid = Jid.parse(jid)
        self.ready = True
        self.since = self.reactor.seconds()
        self._stop_waiting()
        self._deliveries.us = jid
        presence = stanza("presence", "", "")
        SubElement(presence, f"{{{COMPONENT}}}status").text = "Online"
        SubElement(presence, f"{{{COMPONENT}}}priority").text = str(self.settings.priority)
        self.send(presence)
        waiting, self._waiting = self._waiting or [], None
        for each in waiting:
            each.callback(None)

    def _failed(self, reason: str) -> None:
        self._stop_waiting()
        waiting, self._waiting = self._waiting or [], None
        for each in waiting:
            each.errback(Down(reason))

    def lost(self, client: _Client, reason: str) -> None:
        """The connection is over."""
        if self._client is not None and self._client is not client:
            return
        was_ready, self.ready, self._client = self.ready, False, None
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        self._deliveries.lost(reason)
        self._failed(reason)
        if self._closed is not None:
            self._closed.callback(None)
            self._closed = None
        if was_ready:
            self.watcher.gone(self, reason)
        self.rooms.clear()

    def received(self, element: Element) -> None:
        """Take a stanza."""
        self._rest()
        if not self._deliveries.received(element):
            self.watcher.came(self, element)

    def send(self, element: Element) -> None:
        """Send a stanza of which nobody needs to hear; ``Down``."""
        if not self.ready or self._client is None:
            raise Down("not online")
        transport: Any = self._client.transport
        transport.write(write(element))
        self._rest()

    async def deliver(self, element: Element) -> tuple[int, str]:
        """Send a stanza; see ``Deliveries``."""
        return await self._deliveries.deliver(element)

    async def close(self, reason: str = "stopped") -> None:
        """Go offline."""
        client = self._client
        if client is None:
            self._failed(reason)
            return
        client.reason = client.reason or reason
        transport: Any = client.transport
        if self.ready:
            transport.write(write(stanza("presence", "", "", type="unavailable")))
        transport.write(client.stream.close())
        transport.loseConnection()
        self._closed = Deferred()
        abort = self.reactor.callLater(2.0, self._drop, reason)
        await self._closed
        if abort.active():
            abort.cancel()

    def _drop(self, reason: str) -> None:
        if self._client is not None:
            self._client.drop(reason)

    def _stop_waiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _rest(self) -> None:
        """Something was said: go offline only after a silence."""
        if self._idle is not None and self._idle.active():
            self._idle.reset(self.settings.idle_time)
        else:
            self._idle = self.reactor.callLater(self.settings.idle_time, self._is_idle)

    def _is_idle(self) -> None:
        if self.ready:
            Deferred.fromCoroutine(self.close(IDLE)).addErrback(lambda _failure: None)



