"""The header with which a load balancer says who is behind it: HAProxy's PROXY protocol, versions 1 and 2, read and written.

It stands once at the front of a connection, or of each datagram. What it says is for the script to read
(``$proxy_protocol(src_ip)``); replies still go to who really sent. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""What a header of version 2 begins with (2.2)."""
LONGEST_LINE: Final = 107
"""Octets of a header of version 1, CRLF included (2.1)."""
LONGEST: Final = 2048
"""Octets that a header of version 2 may have after its fixed part: far more than the addresses need, for its extensions."""

_FIXED: Final = 16
_WORD: Final = b"PROXY "
_FAMILIES: Final = {b"TCP4": ("INET", IPv4Address), b"TCP6": ("INET6", IPv6Address)}
_KINDS: Final = {0x11: 4, 0x12: 4, 0x21: 16, 0x22: 16}
"""The families of version 2 whose addresses are read, each with the octets of one: TCP and UDP over IPv4 and IPv6."""

Header = dict[str, "int | str"]
"""``src_ip``, ``src_port``, ``dst_ip``, ``dst_port``, ``af`` (INET or INET6)."""


def read(data: bytes) -> tuple[Header | None, int] | None:
    """Read the header at the front of ``data``: what it says, and its length; ``None`` while it is not complete.

    It says nothing, and has no length, if there is none; it has a length only if the balancer speaks for itself (UNKNOWN,
    LOCAL). ``ValueError`` if it is malformed."""
    if data.startswith(SIGNATURE):
        return _read_binary(data)
    if data.startswith(_WORD):
        return _read_line(data)
    if data and (SIGNATURE.startswith(data) or _WORD.startswith(data)):
        return None
    return None, 0


def _read_line(data: bytes) -> tuple[Header | None, int] | None:
    end = data.find(b"\r\n", 0, LONGEST_LINE)
    if end < 0:
        if len(data) >= LONGEST_LINE:
            raise ValueError("a PROXY line without end")
        return None
    words = data[:end].split(b" ")
    if words[1] == b"UNKNOWN":
        return None, end + 2
    if words[1] not in _FAMILIES or len(words) != 6:
        raise ValueError(f"{data[:end]!r} is no PROXY line")
    family, address = _FAMILIES[words[1]]
    source, destination = (str(address(word.decode("ascii", "replace"))) for word in words[2:4])
    ports = []
    for word in words[4:]:
        if not (word.isdigit() and len(word) < 6 and int(word) < 65536):
            raise ValueError(f"{data[:end]!r} is no PROXY line")
        ports.append(int(word))
    return {"src_ip": source, "src_port": ports[0], "dst_ip": destination, "dst_port": ports[1], "af": family}, end + 2


def _read_binary(data: bytes) -> tuple[Header | None, int] | None:
    if len(data) < _FIXED:
        return None
    command, kind = data[12], data[13]
    size = int.from_bytes(data[14:16], "big")
    if command not in (0x20, 0x21) or size > LONGEST:
        raise ValueError(f"a PROXY header with command {command:#x} and {size} octets")
    if len(data) < _FIXED + size:
        return None
    width = _KINDS.get(kind)
    if command == 0x20 or width is None:
        return None, _FIXED + size
    if size < 2 * width + 4:
        raise ValueError(f"a PROXY header of family {kind:#x} with {size} octets")
    parts = data[_FIXED : _FIXED + 2 * width + 4]
    source, destination = (str(ip_address(part)) for part in (parts[:width], parts[width : 2 * width]))
    ports = parts[2 * width :]
    return {
        "src_ip": source,
        "src_port": int.from_bytes(ports[:2], "big"),
        "dst_ip": destination,
        "dst_port": int.from_bytes(ports[2:], "big"),
        "af": "INET" if width == 4 else "INET6",
    }, _FIXED + size


def write(source: str, source_port: int, destination: str, destination_port: int) -> bytes:
    """Write a header of version 1, as OpenSIPS does; over UDP too."""
    family = "TCP6" if ":" in source else "TCP4"
    return f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode()
