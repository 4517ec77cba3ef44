"""Reads HEP frames strictly: for tests of what is sent to capture servers. Whatever is not as the drafts say is an error."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

SIZES = {1: 1, 2: 1, 3: 4, 4: 4, 5: 16, 6: 16, 7: 2, 8: 2, 9: 4, 10: 4, 11: 1, 12: 4}


@dataclass
class Read:
    """One frame; addresses as text, ``seconds`` -1 where it has no time."""

    version: int
    protocol: int
    source: tuple[str, int]
    target: tuple[str, int]
    seconds: int = -1
    microseconds: int = -1
    kind: int = 1
    agent: int = -1
    payload: bytes | None = None
    correlation: bytes | None = None
    extra: bytes | None = None


def read(data: bytes) -> Read:
    """The frame that ``data`` is, all of it."""
    return _read_3(data) if data[:4] == b"HEP3" else _read_old(data)


def _read_3(data: bytes) -> Read:
    (total,) = struct.unpack("!H", data[4:6])
    assert total == len(data), (total, len(data))
    chunks: dict[int, bytes] = {}
    at = 6
    while at < total:
        vendor, number, length = struct.unpack("!HHH", data[at : at + 6])
        assert vendor == 0 and length >= 6 and at + length <= total, (vendor, number, length)
        assert number not in chunks, number
        chunks[number] = data[at + 6 : at + length]
        assert len(chunks[number]) == SIZES.get(number, len(chunks[number])), number
        at += length
    six = chunks[1] == b"\x0a"
    assert six or chunks[1] == b"\x02"
    assert set(chunks) >= {1, 2, 7, 8, 9, 10, 11, 12} | ({5, 6} if six else {3, 4})
    assert set(chunks) <= {1, 2, 7, 8, 9, 10, 11, 12, 15, 17, 101} | ({5, 6} if six else {3, 4})
    ports = [int.from_bytes(chunks[number], "big") for number in (7, 8)]
    hosts = [str(ip_address(chunks[number])) for number in ((5, 6) if six else (3, 4))]
    microseconds = int.from_bytes(chunks[10], "big")
    assert microseconds < 1_000_000
    return Read(
        3, chunks[2][0], (hosts[0], ports[0]), (hosts[1], ports[1]), int.from_bytes(chunks[9], "big"), microseconds,
        chunks[11][0], int.from_bytes(chunks[12], "big"), chunks.get(15), chunks.get(17), chunks.get(101),
    )


def _read_old(data: bytes) -> Read:
    version, length, family, protocol, source, target = struct.unpack("!BBBBHH", data[:8])
    size = {2: 4, 10: 16}[family]
    assert version in (1, 2) and length == 8 + 2 * size
    hosts = [str(ip_address(data[at : at + size])) for at in (8, 8 + size)]
    rest = data[length:]
    made = Read(version, protocol, (hosts[0], source), (hosts[1], target))
    if version == 2:
        made.seconds, made.microseconds, made.agent, padding = struct.unpack("<IIHH", rest[:12])
        assert padding == 0 and made.microseconds < 1_000_000
        rest = rest[12:]
    made.payload = rest
    return made
