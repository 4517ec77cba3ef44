"""The addresses of this machine, and the addresses to which nothing is ever sent.

``socket = udp:*`` and ``socket = udp:eth0`` stand for addresses; each gets a socket of its own, so that a Via names an address
that the peer can reach. Linux only: ``SIOCGIFCONF`` for IPv4, ``/proc/net/if_inet6`` for IPv6."""

from __future__ import annotations

import array
import fcntl
import ipaddress
import socket
import struct
from collections.abc import Callable
from functools import lru_cache

_SIOCGIFCONF = 0x8912
_IFREQ = 40
"""Octets of a ``struct ifreq`` on 64-bit Linux: 16 of name, then a ``sockaddr`` whose address stands at 20."""
_LINK_LOCAL = 0x20
"""The scope that ``/proc/net/if_inet6`` gives to fe80::/10."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def interface_addresses(name: str = "", inet6: str = "/proc/net/if_inet6") -> list[str]:
    """List the addresses of the interface ``name``, IPv4 first; of all interfaces when it is empty.

    An alias (``eth0:1``) is its own name and belongs to its interface too; link-local IPv6 addresses are left out, since a Via
    cannot name them."""
    found = [address for label, address in _ipv4() if name in ("", label, label.partition(":")[0])]
    try:
        with open(inet6, encoding="ascii") as table:
            rows = [line.split() for line in table]
    except OSError:
        rows = []
    for digits, _index, _length, scope, _flags, label in rows:
        if name in ("", label) and not int(scope, 16) & _LINK_LOCAL:
            found.append(str(ipaddress.IPv6Address(bytes.fromhex(digits))))
    return list(dict.fromkeys(found))


def _ipv4() -> list[tuple[str, str]]:
    """The IPv4 addresses, each with the label of its interface."""
    buffer = array.array("B", bytes(_IFREQ * 1024))
    start, size = buffer.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFCONF, struct.pack("iL", size, start))
    used = struct.unpack("iL", answer)[0]
    table = buffer.tobytes()
    return [
        (table[at : at + 16].split(b"\0", 1)[0].decode(), socket.inet_ntoa(table[at + 20 : at + 24]))
        for at in range(0, used, _IFREQ)
    ]


@lru_cache(maxsize=4096)
def refusal(host: str) -> str:
    """Say why nothing is sent to ``host``; empty when it may be (RFC 4475 3.3.9: never answer to a broadcast address).

    A name is refused too: the socket would resolve it and block the whole server."""
    try:
        address: Address = ipaddress.ip_address(host)
    except ValueError:
        return "is not an IP address"
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    if address.is_multicast:
        return "is a multicast address"
    if address.is_unspecified:
        return "is no address of any host"
    if isinstance(address, ipaddress.IPv4Address):
        if address.packed == b"\xff\xff\xff\xff":
            return "is the broadcast address"
        if address.packed[0] == 0:
            return "is in 0.0.0.0/8, this network"
    return ""


class Sources:
    """From which of our addresses the kernel would send, by destination (``mhomed``).

    To connect a UDP socket sends nothing, but makes the kernel choose. What it chose is remembered for ``KEPT`` seconds, since
    routes change, and for ``MOST`` destinations."""

    KEPT = 10.0
    MOST = 4096

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._known: dict[str, tuple[float, str]] = {}

    def toward(self, host: str) -> str:
        """Our address toward ``host``, an IP address without brackets; empty if there is no route."""
        now = self.clock()
        known = self._known.get(host)
        if known is not None and now < known[0]:
            return known[1]
        if len(self._known) >= self.MOST:
            self._known.clear()
        source = _source(host)
        self._known[host] = (now + self.KEPT, source)
        return source


def _source(host: str) -> str:
    """What the kernel chooses now."""
    if refusal(host):
        return ""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def names_of(host: str) -> list[str]:
    """The names that an address of ours has by reverse look-up (``auto_aliases``); this may take as long as the DNS does."""
    try:
        name, others, _ = socket.gethostbyaddr(host)
    except OSError:
        return []
    return [each for each in (name, *others) if refusal(each) == "is not an IP address"]
