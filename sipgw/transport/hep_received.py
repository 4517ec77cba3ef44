"""HEP frames as they come to a capture server, versions 1 to 3: taken apart, changed by scripts, and written again. Pure.

Whatever its version, a frame is a list of chunks (the EEP/HEP draft of the Homer project, ``transport/hep.py``): those of vendor
0 that every frame has are found by their number, all others keep their place. What cannot be read raises ``ValueError``, and
nothing else is ever raised. A compressed payload (gzip or zlib) is unpacked if that is asked for, to at most ``MOST_PAYLOAD``
octets."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

FAMILY, PROTOCOL, SOURCE, TARGET, SOURCE_6, TARGET_6, SOURCE_PORT, TARGET_PORT = range(1, 9)
SECONDS, MICROSECONDS, KIND, AGENT = 9, 10, 11, 12
PAYLOAD, COMPRESSED, CORRELATION, EXTRA = 15, 16, 17, 101
INET, INET6 = 2, 10
"""Families, as Linux counts them (and so HEP)."""
SIZES = {FAMILY: 1, PROTOCOL: 1, SOURCE: 4, TARGET: 4, SOURCE_6: 16, TARGET_6: 16, SOURCE_PORT: 2, TARGET_PORT: 2,
         SECONDS: 4, MICROSECONDS: 4, KIND: 1, AGENT: 4}
"""How long these chunks are."""
KNOWN = frozenset(SIZES) | {PAYLOAD}
MOST_PAYLOAD = 1 << 17
"""Octets of a payload that was compressed."""
MAGIC = b"HEP3"
_ORDER = (FAMILY, PROTOCOL, SOURCE_PORT, TARGET_PORT, SECONDS, MICROSECONDS, KIND, AGENT, SOURCE, TARGET, SOURCE_6, TARGET_6)
"""In which order they are written again."""


@dataclass(slots=True)
class Chunk:
    """A chunk of version 3 that not every frame has."""

    vendor: int
    number: int
    data: bytes


@dataclass(slots=True)
class Received:
    """One frame. ``known``: the chunks of ``KNOWN`` by their number, as octets; ``others``: all the rest, in their order."""

    version: int
    known: dict[int, bytes] = field(default_factory=dict)
    others: list[Chunk] = field(default_factory=list)

    def number(self, chunk: int) -> int:
        """The value of a chunk that is a number; 0 if it is not there."""
        return int.from_bytes(self.known.get(chunk, b""), "big")

    @property
    def family(self) -> int:
        """2 for IPv4, 10 for IPv6: as the frame says, or as its addresses are."""
        found = self.number(FAMILY)
        if found in (INET, INET6):
            return found
        return INET6 if SOURCE_6 in self.known or TARGET_6 in self.known else INET

    @property
    def source(self) -> tuple[str, int]:
        """Where the message came from."""
        return self._address(SOURCE, SOURCE_6), self.number(SOURCE_PORT)

    @property
    def target(self) -> tuple[str, int]:
        """Where it went."""
        return self._address(TARGET, TARGET_6), self.number(TARGET_PORT)

    def _address(self, four: int, six: int) -> str:
        if self.family == INET6:
            return str(IPv6Address(self.known.get(six, bytes(16))))
        return str(IPv4Address(self.known.get(four, bytes(4))))

    @property
    def payload(self) -> bytes:
        """The message."""
        return self.known.get(PAYLOAD, b"")

    def other(self, number: int) -> Chunk | None:
        """The first chunk of that number that is not one of ``KNOWN``."""
        return next((chunk for chunk in self.others if chunk.number == number), None)


def read(data: bytes, *, unpack: bool = False) -> Received:
    """The frame that ``data`` is; ``unpack`` its payload if that is compressed. ``ValueError`` says what is wrong."""
    if data[:4] == MAGIC:
        return _read_3(data, unpack)
    if data[:1] in (b"\1", b"\2"):
        return _read_old(data)
    raise ValueError("it is no HEP of version 1, 2 or 3")


def length(head: bytes) -> int:
    """The octets of the frame of version 3 that begins with ``head``, six octets."""
    if head[:4] != MAGIC:
        raise ValueError("it is no HEP of version 3")
    found = int.from_bytes(head[4:6], "big")
    if found < 6:
        raise ValueError(f"its length is {found}")
    return found


def _read_3(data: bytes, unpack: bool) -> Received:
    if len(data) < 6:
        raise ValueError("it is cut off")
    end = length(data)
    if end > len(data):
        raise ValueError(f"it has {len(data)} octets and says {end}")
    made = Received(3)
    at = 6
    while at < end:
        if end - at < 6:
            raise ValueError("its last chunk is cut off")
        vendor, number, size = struct.unpack_from("!HHH", data, at)
        if size < 6 or at + size > end:
            raise ValueError(f"its chunk {number} says that it has {size} octets")
        value = data[at + 6 : at + size]
        at += size
        if not vendor and number == COMPRESSED and unpack:
            number, value = PAYLOAD, unpacked(value)
        if vendor or number not in KNOWN:
            made.others.append(Chunk(vendor, number, value))
        elif len(value) != SIZES.get(number, len(value)):
            raise ValueError(f"its chunk {number} has {len(value)} octets")
        else:
            made.known[number] = value
    if PAYLOAD not in made.known and not any(not chunk.vendor and chunk.number == COMPRESSED for chunk in made.others):
        raise ValueError("it has no payload")
    return made


def _read_old(data: bytes) -> Received:
    if len(data) < 8:
        raise ValueError("it is cut off")
    version, said, family, protocol = data[:4]
    size = {INET: 4, INET6: 16}.get(family)
    if size is None:
        raise ValueError(f"its family is {family}")
    head = 8 + 2 * size
    if said != head:
        raise ValueError(f"it says that its head has {said} octets, not {head}")
    made = Received(version, {FAMILY: bytes([family]), PROTOCOL: bytes([protocol]), KIND: b"\1"})
    made.known[SOURCE_PORT], made.known[TARGET_PORT] = data[4:6], data[6:8]
    source, target = (SOURCE, TARGET) if size == 4 else (SOURCE_6, TARGET_6)
    made.known[source], made.known[target] = data[8 : 8 + size], data[8 + size : head]
    if version == 2:  # in the order of the sender's machine, which is taken as little-endian (transport/hep.py)
        if len(data) < head + 12:
            raise ValueError("it is cut off")
        seconds, microseconds, agent, _ = struct.unpack_from("<IIHH", data, head)
        made.known |= {SECONDS: struct.pack("!I", seconds), MICROSECONDS: struct.pack("!I", microseconds),
                       AGENT: struct.pack("!I", agent)}
        head += 12
    if len(data) < head:
        raise ValueError("it is cut off")
    made.known[PAYLOAD] = data[head:]
    return made


def write(frame: Received) -> bytes:
    """The frame as octets, in its own version; ``ValueError`` if it has become too long."""
    if frame.version < 3:
        return _write_old(frame)
    known = frame.known
    dropped = (SOURCE_6, TARGET_6) if frame.family == INET else (SOURCE, TARGET)
    chunks = [_chunk(0, number, known[number]) for number in _ORDER if number in known and number not in dropped]
    chunks += [_chunk(each.vendor, each.number, each.data) for each in frame.others]
    if PAYLOAD in known:
        chunks.append(_chunk(0, PAYLOAD, known[PAYLOAD]))
    body = b"".join(chunks)
    if len(body) + 6 > 0xFFFF:
        raise ValueError(f"{len(body) + 6} octets are too many for a frame")
    return MAGIC + struct.pack("!H", len(body) + 6) + body


def _chunk(vendor: int, number: int, data: bytes) -> bytes:
    if len(data) + 6 > 0xFFFF:
        raise ValueError(f"{len(data)} octets are too many for a chunk")
    return struct.pack("!HHH", vendor, number, len(data) + 6) + data


def _write_old(frame: Received) -> bytes:
    ends = [ip_address(host).packed for host, _port in (frame.source, frame.target)]
    head = bytes([frame.version, 8 + 2 * len(ends[0]), frame.family, frame.number(PROTOCOL)])
    time = b""
    if frame.version == 2:
        time = struct.pack(
            "<IIHH", frame.number(SECONDS), frame.number(MICROSECONDS), frame.number(AGENT) & 0xFFFF, 0
        )
    ports = struct.pack("!HH", frame.number(SOURCE_PORT), frame.number(TARGET_PORT))
    return head + ports + b"".join(ends) + time + frame.payload


def unpacked(data: bytes) -> bytes:
    """What was compressed, by gzip or zlib; ``ValueError`` if it cannot be read or is too long."""
    try:
        unpacking = zlib.decompressobj(zlib.MAX_WBITS | 32)
        found = unpacking.decompress(data, MOST_PAYLOAD)
    except zlib.error as error:
        raise ValueError(f"its payload cannot be unpacked: {error}") from None
    if not unpacking.eof:
        raise ValueError("its payload is cut off, or too long")
    return found


def address_chunks(host: str) -> tuple[int, bytes]:
    """The family and the octets of an address; ``ValueError`` if it is none."""
    found = ip_address(host.strip("[]"))
    return (INET if found.version == 4 else INET6), found.packed

