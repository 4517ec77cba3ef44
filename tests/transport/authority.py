"""A name server that a test runs itself, on loopback: ``twisted.names`` with a zone, or something worse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.names import authority, common, dns, server

from tests.children import free_port

HOST = "127.0.0.1"


class Zone(authority.FileAuthority):
    """A zone from a table: names and their records."""

    def __init__(self, name: str, records: dict[str, list[Any]]) -> None:
        common.ResolverBase.__init__(self)
        self._cache: dict[Any, Any] = {}
        soa = dns.Record_SOA(b"ns", b"root", 1, 60, 60, 60, 30, ttl=30)
        found = {key.encode(): values for key, values in records.items()}
        found[name.encode()] = [*found.get(name.encode(), ()), soa]
        self.__dict__.update(soa=(name.encode(), soa), records=found)


class Authority:
    """Serves a zone by UDP and TCP; ``port`` is the same for both."""

    def __init__(self, reactor: Any, zone: Zone) -> None:
        factory: Any = server.DNSServerFactory(authorities=[zone])
        factory.noisy = False
        self.port = free_port()
        while True:  # somebody else may be quicker to take it
            try:
                self.tcp = reactor.listenTCP(self.port, factory, interface=HOST)
                self.udp = reactor.listenUDP(self.port, dns.DNSDatagramProtocol(factory), interface=HOST)
                break
            except CannotListenError:
                self.port = free_port()

    @property
    def server(self) -> tuple[str, int]:
        """Its address."""
        return HOST, self.port

    def stop(self) -> Any:
        """Close both."""
        return defer.DeferredList([defer.maybeDeferred(self.udp.stopListening), defer.maybeDeferred(self.tcp.stopListening)])


class Impostor(DatagramProtocol):
    """Answers each question with the datagrams that ``reply(message)`` gives; without one it only listens."""

    def __init__(self, reactor: Any, reply: Callable[[dns.Message], list[bytes]] | None = None) -> None:
        self.reply = reply
        self.asked = 0
        self.udp: Any = reactor.listenUDP(0, self, interface=HOST)
        self.server = (HOST, self.udp.getHost().port)

    def datagramReceived(self, data: bytes, address: Any) -> None:
        """Answer, or not."""
        self.asked += 1
        if self.reply is not None:
            message = dns.Message()
            message.fromStr(data)
            for datagram in self.reply(message):
                transport: Any = self.transport
                transport.write(datagram, address)

    def stop(self) -> Any:
        """Close."""
        return defer.maybeDeferred(self.udp.stopListening)
