"""Tables of IP addresses and networks, IPv4 and IPv6, in numbered groups (OpenSIPS's table ``address``).

A row may ask for a transport, a port and a text (a shell pattern), and brings a text back. Which row counts where several fit is
OpenSIPS's choice: the lowest group where any will do, in a group single addresses before networks, short prefixes before long
ones, and of the same network the last row first.

A look-up costs one dict access for each length of prefix that the table has, however many rows there are. A table is never
changed: a reload builds another and swaps them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from fnmatch import translate
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from sipgw.core.blacklists import TRANSPORTS, python_glob

ANY_TRANSPORT = ("", "any")
_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=4096)
def packed(host: str) -> bytes:
    """The octets of an address; an IPv4 address written as IPv6 has four. ``ValueError`` if it is none."""
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        octets = socket.inet_pton(socket.AF_INET6, host.partition("%")[0].strip("[]"))
    except OSError:
        raise ValueError(f"{host!r} is no IP address") from None
    return octets[12:] if octets.startswith(_MAPPED) else octets


class Address(NamedTuple):
    """One row. ``transport`` "" fits any and "none" none, ``port`` 0 any, ``pattern`` "" any text."""

    group: int
    octets: bytes
    length: int
    """Bits of the prefix."""
    port: int
    transport: str
    pattern: str
    info: str

    @property
    def whole(self) -> bool:
        """Whether it is a single address."""
        return self.length == 8 * len(self.octets)

    @property
    def ip(self) -> str:
        """The address, or the first one of the network."""
        return str(ip_address(self.octets))

    @property
    def mask(self) -> str:
        """The length of the prefix of a single address, else the mask as an address."""
        if self.whole:
            return str(self.length)
        bits = 8 * len(self.octets)
        return str(ip_address((((1 << self.length) - 1) << (bits - self.length)).to_bytes(bits // 8, "big")))


def read_address(group: Any, ip: Any, mask: Any, port: Any, proto: Any, pattern: Any, info: Any) -> Address:
    """A row of the database; ``ValueError`` says why it means nothing."""
    number = _number("group", group)
    octets = packed(str(ip).strip())
    bits = 8 * len(octets)
    length = _number("mask", mask)
    if length > bits:
        raise ValueError(f"mask {length} is longer than the {bits} bits of {ip}")
    transport = str(proto or "").strip().lower()
    if transport in ANY_TRANSPORT:
        transport = ""
    elif transport not in TRANSPORTS and transport != "none":
        raise ValueError(f"unknown transport {proto!r}")
    cut = int.from_bytes(octets, "big") >> (bits - length) << (bits - length)
    return Address(
        number, cut.to_bytes(bits // 8, "big"), length, _number("port", port), transport, str(pattern or ""), str(info or "")
    )


def _number(what: str, value: Any) -> int:
    try:
        number = int(value or 0)
    except (TypeError, ValueError):
        raise ValueError(f"{what} {value!r} is no number") from None
    if number < 0:
        raise ValueError(f"{what} {number} is negative")
    return number


@lru_cache(maxsize=10_000)
def _glob(pattern: str) -> re.Pattern[str]:
    """A shell pattern, compiled; its time is linear in the text for each asterisk (``translate`` makes atomic groups)."""
    return re.compile(translate(python_glob(pattern)))


class AddressTable:
    """Rows that are looked up by address."""

    def __init__(self, rows: Iterable[Address] = ()) -> None:
        self._networks: dict[tuple[int, int], dict[int, list[tuple[tuple[int, int, int], Address]]]] = {}
        """By number of octets and length of the prefix: those of each prefix, with their rank."""
        self._groups: set[int] = set()
        self._size = 0
        for row in rows:
            self.add(row)

    def __len__(self) -> int:
        return self._size

    def add(self, row: Address) -> None:
        """Put one row in, while the table is built."""
        self._size += 1
        self._groups.add(row.group)
        size = len(row.octets)
        prefix = int.from_bytes(row.octets, "big") >> (8 * size - row.length)
        rank = (row.group, -1 if row.whole else row.length, -self._size)
        self._networks.setdefault((size, row.length), {}).setdefault(prefix, []).append((rank, row))

    def has(self, group: int) -> bool:
        """Whether any row is in ``group``."""
        return group in self._groups

    def find(self, group: int, octets: bytes, port: int, transport: str, text: str | None = None) -> Address | None:
        """The row that counts for an address, of any group if that is 0; port 0 and transport "" ask for none."""
        best: tuple[tuple[int, int, int], Address] | None = None
        size, number = len(octets), int.from_bytes(octets, "big")
        for (other, length), prefixes in self._networks.items():
            if other != size:
                continue
            for candidate in prefixes.get(number >> (8 * size - length), ()):
                rank, row = candidate
                if (not group or row.group == group) and (best is None or rank < best[0]) and fits(row, port, transport, text):
                    best = candidate
        return None if best is None else best[1]

    def rows(self, whole: bool) -> Iterator[Address]:
        """The single addresses, or the networks, in the order in which they count."""
        found = (each for prefixes in self._networks.values() for rows in prefixes.values() for each in rows)
        for _, row in sorted((rank, row) for rank, row in found if row.whole is whole):
            yield row


def fits(row: Address, port: int, transport: str, text: str | None) -> bool:
    """Whether a row asks for no other port, transport and text. A text that is not given fits any pattern."""
    return (
        (not row.port or not port or row.port == port)
        and (not row.transport or row.transport == transport or (not transport and row.transport != "none"))
        and (not row.pattern or text is None or _glob(row.pattern).match(text) is not None)
    )
