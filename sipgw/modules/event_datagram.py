"""event_datagram: events as datagrams to ``udp:address:port`` and ``unix:path``, each a JSON-RPC notification.

A datagram that cannot be sent at once is lost, and the log says so, not too often: no event ever waits."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from typing import Any

from sipgw.core.events import Params, Sink
from sipgw.exports import Module
from sipgw.mi.jsonrpc import notification
from sipgw.modules._event_sockets import find_address

LONGEST = 65457
"""Octets of a datagram at most, as in OpenSIPS."""
LONGEST_PATH = 107
"""Octets of a unix socket's path (``sun_path`` of <sys/un.h>)."""


class EventDatagram(Module):
    """Tells of events in datagrams."""

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._sockets: dict[int, socket.socket] = {}
        if server is not None:
            server.user.events.add_transport("udp", UdpTransport(self))
            server.user.events.add_transport("unix", UnixTransport(self))

    async def stop(self) -> None:
        """Close what was opened."""
        while self._sockets:
            self._sockets.popitem()[1].close()

    def send(self, family: int, address: Any, name: str, event: str, params: Params) -> bool:
        """Send one event to ``address``, which the log calls ``name``."""
        data = notification(event, params)
        log = self.server.user.log_rarely
        if len(data) > LONGEST:
            log(("event_datagram", name), 1, f"{event} is not told to {name}: {len(data)} octets are too many for a datagram")
            return False
        try:
            made = self._sockets.get(family)
            if made is None:
                made = self._sockets[family] = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            made.sendto(data, address)
        except OSError as error:
            log(("event_datagram", name), 1, f"{event} is not told to {name}: {error.strerror or error}")
            return False
        return True


@dataclass(frozen=True, slots=True)
class DatagramSink:
    """One address that datagrams are sent to."""

    module: EventDatagram
    family: int
    address: Any
    name: str = field(compare=False)

    def send(self, event: str, params: Params) -> bool:
        """Send one event."""
        return self.module.send(self.family, self.address, self.name, event, params)


class UdpTransport:
    """Sockets ``udp:address:port``; a name is looked up once, when it is subscribed. IPv6 addresses have brackets."""

    def __init__(self, module: EventDatagram) -> None:
        self._module = module

    async def open(self, address: str) -> Sink:
        """The sink at ``host:port``."""
        host, plain, number = await find_address(self._module.server.user, address, "udp:address:port")
        family = socket.AF_INET6 if ":" in plain else socket.AF_INET
        return DatagramSink(self._module, family, (plain, number), f"udp:{host}:{number}")


class UnixTransport:
    """Sockets ``unix:path``. Whoever reads there may come later."""

    def __init__(self, module: EventDatagram) -> None:
        self._module = module

    async def open(self, address: str) -> Sink:
        """The sink at that path."""
        if not address or "\0" in address:
            raise ValueError("write unix:path")
        if len(address.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
            raise ValueError(f"the path is longer than {LONGEST_PATH} octets")
        return DatagramSink(self._module, socket.AF_UNIX, address, f"unix:{address}")
