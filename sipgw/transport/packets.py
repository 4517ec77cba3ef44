"""UDP datagrams in IPv4 packets as an interface shows them (RFC 791, 768), in others too (IP in IP, RFC 2003). Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import NamedTuple

UDP, IPIP = 17, 4
_FRAGMENT = 0x3FFF
"""More fragments follow, or this is not the first."""


class Datagram(NamedTuple):
    """What one host sent to another."""

    source: tuple[str, int]
    target: tuple[str, int]
    data: bytes


def datagram_of(packet: bytes, *, inside: bool = False) -> Datagram | None:
    """The datagram in a packet, or with ``inside`` in the packet that it carries; None if there is none that is whole."""
    found = _content(packet, IPIP if inside else UDP)
    if inside and found is not None:
        packet = found
        found = _content(packet, UDP)
    if found is None or len(found) < 8:
        return None
    source, target, length = struct.unpack_from("!HHH", found)
    if not 8 <= length <= len(found):
        return None
    ends = [str(IPv4Address(packet[at : at + 4])) for at in (12, 16)]
    return Datagram((ends[0], source), (ends[1], target), found[8:length])


def _content(packet: bytes, protocol: int) -> bytes | None:
    """What a packet of that protocol carries."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != protocol:
        return None
    head, (length, _, fragment) = 4 * (packet[0] & 15), struct.unpack_from("!HHH", packet, 2)
    if head < 20 or not head <= length <= len(packet) or fragment & _FRAGMENT:
        return None
    return packet[head:length]


def port_filter(first: int, last: int) -> bytes:
    """A program for the kernel's packet filter (BPF) that lets IPv4 packets with UDP from or to these ports through.

    It sees packets from their IP header on (AF_PACKET with SOCK_DGRAM)."""
    program = (
        (0x30, 0, 0, 9),  # 0: A = protocol
        (0x15, 0, 10, UDP),  # 1: another than UDP: 12
        (0x28, 0, 0, 6),  # 2: A = flags and fragment offset
        (0x45, 8, 0, 0x1FFF),  # 3: not the first fragment: 12
        (0xB1, 0, 0, 0),  # 4: X = octets of the IP header
        (0x48, 0, 0, 0),  # 5: A = source port
        (0x35, 0, 1, first),  # 6: below the first: 8
        (0x25, 0, 3, last),  # 7: not above the last: 11
        (0x48, 0, 0, 2),  # 8: A = target port
        (0x35, 0, 2, first),  # 9: below the first: 12
        (0x25, 1, 0, last),  # 10: above the last: 12
        (0x06, 0, 0, 0xFFFF),  # 11: take all of it
        (0x06, 0, 0, 0),  # 12: refuse
    )
    return b"".join(struct.pack("=HBBI", *line) for line in program)
