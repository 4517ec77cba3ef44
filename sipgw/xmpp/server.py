"""sipgw as an XMPP server of its own (RFC 6120; ``backend`` "server"): it speaks with the servers of Jabber users.

``Server`` listens and knows the streams. ``ServerLink`` is one of our domains, in the place of a component's ``Link``; it gives
each server elsewhere a ``Remote`` (``remote.py``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from twisted.internet.protocol import Factory

from sipgw.sip.target import Target
from sipgw.xmpp.address import Jid
from sipgw.xmpp.encryption import Encryption
from sipgw.xmpp.remote import Remote, RemoteSettings, Watcher
from sipgw.xmpp.server_streams import Inbound
from sipgw.xmpp.stanza import Element

__all__ = ["Server", "ServerLink", "ServerSettings"]

MOST_REMOTES: Final = 1000
MOST_INBOUND: Final = 500
MOST_OF_ADDRESS: Final = 50
"""Inbound streams of one address."""


@dataclass
class ServerSettings:
    """``tls``: "no", "optional", "required", or "verified" (certificates count, dialback does not). ``routes``: where servers are
    that the DNS does not know. ``peers``: the domains that we speak with; empty: all."""

    host: str = "127.0.0.1"
    port: int = 5269
    tls: str = "optional"
    routes: dict[str, tuple[str, int]] = field(default_factory=dict)
    peers: frozenset[str] = frozenset()
    response_time: float = 10.0
    idle_time: float = 600.0


class Server:
    """All of it. ``targets(domain)`` asks the DNS; ``secret`` makes the keys of dialback."""

    def __init__(
        self, settings: ServerSettings, reactor: Any, encryption: Encryption, secret: bytes,
        targets: Callable[[str], Awaitable[Sequence[Target]]], launch: Callable[[Any], None], random: Random | None = None,
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.encryption = encryption
        self.secret = secret
        self.launch = launch
        self.random = random or Random()
        self.links: dict[str, ServerLink] = {}
        self.inbound: set[Inbound] = set()
        self.remotes: OrderedDict[tuple[str, str], Remote] = OrderedDict()
        self._targets = targets
        self._port: Any = None

    # ---- the beginning and the end ----

    def listen(self) -> None:
        """Let servers come; ``OSError``, or Twisted's own, if that cannot be."""
        if self._port is None:
            factory: Any = _InboundFactory(self)
            self._port = self.reactor.listenTCP(self.settings.port, factory, interface=self.settings.host)

    @property
    def port(self) -> int:
        """The port where it listens; 0 if it does not."""
        return 0 if self._port is None else int(self._port.getHost().port)

    async def stop(self) -> None:
        """Close all."""
        if self._port is not None:
            port, self._port = self._port, None
            await port.stopListening()
        for remote in list(self.remotes.values()):
            remote.stop()
        for stream in list(self.inbound):
            stream.end("stopped")

    # ---- who is who ----

    def may_speak(self, domain: str) -> bool:
        """Whether we speak with a domain at all."""
        return domain not in self.links and (not self.settings.peers or domain in self.settings.peers)

    def remote(self, ours: str, theirs: str) -> Remote:
        """The server of ``theirs`` as ``ours`` sees it."""
        found = self.remotes.get((ours, theirs))
        if found is None:
            if len(self.remotes) >= MOST_REMOTES:
                key = next((key for key, each in self.remotes.items() if each.useless), None)
                if key is not None:
                    self.remotes.pop(key).stop()
            found = Remote(self, ours, theirs)
            if len(self.remotes) >= MOST_REMOTES:
                found.refuse("too many servers")
                return found
            self.remotes[ours, theirs] = found
        return found

    async def targets(self, domain: str) -> list[tuple[str, int]]:
        """Where a server is, best first."""
        route = self.settings.routes.get(domain)
        if route is not None:
            return [route]
        return [(each.host, each.port) for each in await self._targets(domain)]

    def admits(self, address: str) -> bool:
        """Whether one more stream may come from an address."""
        of_address = sum(each.address == address for each in self.inbound)
        return len(self.inbound) < MOST_INBOUND and of_address < MOST_OF_ADDRESS

    def left(self, stream: Inbound) -> None:
        """An inbound stream is over."""
        self.inbound.discard(stream)

    def received(self, element: Element, sender: Jid, receiver: Jid) -> None:
        """A stanza came from ``sender``, whose domain is proved, to one of ours."""
        remote = self.remotes.get((receiver.domain, sender.domain))
        if remote is None or not remote.received(element):
            link = self.links[receiver.domain]
            link.watcher.came(link, element)


class _InboundFactory(Factory):
    noisy = False

    def __init__(self, server: Server) -> None:
        self.server = server

    def buildProtocol(self, addr: Any) -> Any:
        """Take a connection, unless there are too many."""
        if not self.server.admits(addr.host):
            return None
        made = Inbound(self.server, addr.host)
        self.server.inbound.add(made)
        return made


class ServerLink:
    """One of our domains, as the gateway knows a component's link."""

    def __init__(self, server: Server, domain: str, watcher: Watcher) -> None:
        self.server = server
        self.watcher = watcher
        self.settings = RemoteSettings(domain, server.settings.host)
        self.stopped = True
        self.reactor = server.reactor
        self.since = 0.0
        server.links[domain] = self

    ready = True
    """Whether one server is there says nothing of others: ask ``towards``."""
    attempts = 0
    reason = ""
    peer = ""

    @property
    def key(self) -> str:
        """Its name."""
        return self.settings.domain

    @property
    def state(self) -> str:
        """In a word, for people."""
        return "stopped" if self.stopped else "listens"

    @property
    def pending(self) -> int:
        """Stanzas of which nobody has said yet that they were taken."""
        return sum(each.pending for each in self.others)

    @property
    def others(self) -> list[Remote]:
        """The servers that this domain has spoken with."""
        return [each for each in self.server.remotes.values() if each.settings.domain == self.settings.domain]

    def start(self) -> None:
        """Listen."""
        self.server.listen()
        self.stopped = False
        self.since = self.reactor.seconds()
        self.settings.port = self.server.port
        self.watcher.up(self)

    async def stop(self) -> None:
        """Close all."""
        self.stopped = True
        await self.server.stop()

    def towards(self, domain: str) -> Remote:
        """The way to a server."""
        return self.server.remote(self.settings.domain, domain)

    def send(self, element: Element) -> None:
        """Send a stanza of which nobody needs to hear; ``Down``."""
        self.towards(Jid.parse(element.get("to", "")).domain).send(element)

    async def deliver(self, element: Element) -> tuple[int, str]:
        """Send a stanza; see ``Deliveries``."""
        return await self.towards(Jid.parse(element.get("to", "")).domain).deliver(element)
