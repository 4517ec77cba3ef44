"""Every connection of one process, by number, by peer and by the aliases of RFC 5923: one table, so that workers can share it.

A flow is named by (worker, number): ``find`` leads from that name to its connection, ``at`` from an address to the connection
that is to be used for it. The rule of ``at``: who really sits at an address comes first; an alias is only a claim, and the
first claim stands until its connection ends (a later one could be somebody who wants the calls of the first)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from secrets import randbelow
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sipgw.transport.connection import Connection

FIRST = 1 << 30
"""Numbers begin below this, at random, so that one from before a restart names nothing."""

TRANSPORTS = ("tcp", "tls", "ws", "wss")
"""The transports that have connections."""

EVENTS = ("ACCEPTED", "CONNECT_START", "CONNECTED", "CLOSED")
"""What becomes of connections, as OpenSIPS calls it where it traces them."""

Place = tuple[object, str, int]
"""A socket of ours, and the address and port of a peer."""


class ConnectionTable:
    """The connections of one worker. ``accepted`` counts those that peers opened."""

    def __init__(self, worker: str = "00") -> None:
        self.worker = worker
        self.watcher: Callable[[str, Connection, bool, str], None] | None = None
        """Told what becomes of connections: one of ``EVENTS``, whether it went well, and a text."""
        self.accepted = 0
        self._last = randbelow(FIRST)
        self._numbers: dict[int, Connection] = {}
        self._peers: dict[Place, Connection] = {}
        self._aliases: dict[Place, Connection] = {}
        self._hosts: dict[str, int] = {}

    def watch(self, event: str, connection: Connection, well: bool, text: str) -> None:
        """Tell the watcher, if there is one."""
        if self.watcher is not None:
            self.watcher(event, connection, well, text)

    def add(self, connection: Connection) -> int:
        """Take in a connection and give it its number."""
        self._last += 1
        self._numbers[self._last] = connection
        self._peers.setdefault((connection.local, connection.host, connection.port), connection)
        if connection.accepted:
            self.accepted += 1
            self._hosts[connection.host] = self._hosts.get(connection.host, 0) + 1
        return self._last

    def retire(self, connection: Connection) -> None:
        """Let nobody find ``connection`` by address any more; it still has its number."""
        local, host = connection.local, connection.host
        if self._peers.get((local, host, connection.port)) is connection:
            del self._peers[local, host, connection.port]
        for port in connection.aliases:
            del self._aliases[local, host, port]
        connection.aliases = ()

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended; twice is once."""
        if self._numbers.pop(connection.number, None) is None:
            return
        self.retire(connection)
        if connection.accepted:
            self.accepted -= 1
            left = self._hosts[connection.host] - 1
            if left:
                self._hosts[connection.host] = left
            else:
                del self._hosts[connection.host]

    def refusal(self, host: str, most: int, most_of_host: int) -> str:
        """Why no further connection of ``host`` is accepted, when ``most`` are (0: any number); empty if it is."""
        if most and self.accepted >= most:
            return f"there are {most} connections already"
        if most_of_host and self._hosts.get(host, 0) >= most_of_host:
            return f"{host} has {most_of_host} connections already"
        return ""

    def at(self, local: object, host: str, port: int) -> Connection | None:
        """The connection of the socket ``local`` on which requests to ``host`` and ``port`` go."""
        place = (local, host, port)
        return self._peers.get(place) or self._aliases.get(place)

    def alias(self, connection: Connection, port: int) -> bool:
        """Use ``connection`` for requests to ``port`` of its peer too (RFC 5923 8); False if another one has that port."""
        if port == connection.port or port in connection.aliases:
            return True
        place = (connection.local, connection.host, port)
        if self.find(connection.number) is None or place in self._peers or place in self._aliases:
            return False
        self._aliases[place] = connection
        connection.aliases += (port,)
        return True

    def find(self, number: int) -> Connection | None:
        """The connection of that number."""
        return self._numbers.get(number)

    def named(self, text: str) -> list[Connection]:
        """The connections that ``text`` names: a number, or ``[transport:]address:port`` of a peer (an alias counts too).

        ``ValueError`` if it is neither, or if that transport has no connections."""
        if text.isascii() and text.isdigit():
            found = self.find(int(text))
            return [] if found is None else [found]
        transport, colon, rest = text.partition(":")
        if transport.isalpha() and colon:
            if transport.lower() not in TRANSPORTS:
                raise ValueError(f"{transport} has no connections")
        else:
            transport, rest = "", text
        host, colon, digits = rest.rpartition(":")
        if not colon or not (digits.isascii() and digits.isdigit() and len(digits) < 6):
            raise ValueError(f"{text!r} is neither a number nor [protocol:]address:port")
        host = ip_address(host.strip("[]")).compressed
        port = int(digits)
        return [
            each
            for each in self
            if each.host == host
            and (port == each.port or port in each.aliases)
            and transport.lower() in ("", each.local.transport)
        ]

    def of_host(self, host: str) -> int:
        """How many connections ``host`` has opened."""
        return self._hosts.get(host, 0)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._numbers.values()))

    def __len__(self) -> int:
        return len(self._numbers)


def written(host: str, port: int) -> str:
    """``host:port``, with the brackets of an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
