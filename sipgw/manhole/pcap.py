"""Messages as a file that Wireshark and tshark read: pcap (draft-ietf-opsawg-pcap), each message in an IP packet of its own.

The packets are made anew around what was seen: UDP stays UDP, everything else becomes a TCP stream from one address to the other
(also what was TLS on the wire: here it is plain)."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from sipgw.manhole.tap import Seen

RAW_IP = 101
"""LINKTYPE_RAW: packets begin with their IP header."""
LONGEST = 65_535
_SEGMENT = 60_000


def pcap(messages: Iterable[Seen]) -> Iterator[bytes]:
    """The octets of the file."""
    yield struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, RAW_IP)
    sequences: dict[object, int] = {}
    for seen in messages:
        for packet in _packets(seen, sequences):
            microseconds = round(seen.time * 1_000_000)
            yield struct.pack("<IIII", microseconds // 1_000_000, microseconds % 1_000_000, len(packet), len(packet)) + packet


def _packets(seen: Seen, sequences: dict[object, int]) -> Iterator[bytes]:
    source, target = seen.source, seen.target
    if seen.transport == "udp":
        head = struct.pack("!HHHH", source[1], target[1], 8 + len(seen.data), 0)
        yield _packet(source[0], target[0], 17, head + seen.data, 6)
        return
    for start in range(0, len(seen.data), _SEGMENT):
        data = seen.data[start : start + _SEGMENT]
        sent = sequences.get((source, target), 1)
        heard = sequences.get((target, source), 1)
        sequences[source, target] = (sent + len(data)) & 0xFFFFFFFF
        head = struct.pack("!HHIIBBHHH", source[1], target[1], sent, heard, 5 << 4, 0x18, 65_535, 0, 0)
        yield _packet(source[0], target[0], 6, head + data, 16)


def _packet(source: str, target: str, protocol: int, segment: bytes, place: int) -> bytes:
    """An IP packet; the checksum of its segment stands at ``place``."""
    a, b = ip_address(source.strip("[]")), ip_address(target.strip("[]"))
    pseudo = a.packed + b.packed + struct.pack("!II", len(segment), protocol)
    checksum = _checksum(pseudo + segment) or 0xFFFF
    segment = segment[:place] + struct.pack("!H", checksum) + segment[place + 2 :]
    if a.version == 6:
        return struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64) + a.packed + b.packed + segment
    head = struct.pack("!BBHHHBBH", 0x45, 0, min(LONGEST, 20 + len(segment)), 0, 0, 64, protocol, 0) + a.packed + b.packed
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + segment


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
