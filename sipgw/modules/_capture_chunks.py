"""What scripts see of HEP frames: the names of chunks, their values, and how they are set (``hep_get``, ``hep_set``)."""

from __future__ import annotations

from ipaddress import ip_address

from sipgw.transport.hep_received import (
    AGENT,
    COMPRESSED,
    FAMILY,
    INET,
    KIND,
    MICROSECONDS,
    PAYLOAD,
    PROTOCOL,
    SECONDS,
    SIZES,
    SOURCE,
    SOURCE_6,
    SOURCE_PORT,
    TARGET,
    TARGET_6,
    TARGET_PORT,
    Chunk,
    Received,
    address_chunks,
)
from sipgw.transport.hep_receiver import Way

NAMES = {
    "proto_family": FAMILY, "proto_id": PROTOCOL, "src_ip": SOURCE, "dst_ip": TARGET, "src_port": SOURCE_PORT,
    "dst_port": TARGET_PORT, "timestamp": SECONDS, "timestamp_us": MICROSECONDS, "proto_type": KIND, "captagent_id": AGENT,
    "payload": PAYLOAD,
}
FAMILIES = {2: "AF_INET", 10: "AF_INET6"}
TRANSPORTS = {17: "udp", 6: "tcp", 22: "tls", 132: "sctp", 50: "ws"}
"""The transports that IP protocols stand for."""
KINDS = (
    "reserved SIP XMPP SDP RTP RTCP MGCP MEGACO(H.248) M2UA(SS7/SIGTRAN) M3UA(SS7/SIGTRAN) IAX H322 H321".split()
)
"""What a payload is, by its number."""
TYPES = ("uint8", "uint16", "uint32", "inet4-addr", "inet6-addr", "utf8-string", "octet-string")
_SETTABLE_TRANSPORTS = {"udp": 17, "tcp": 6, "tls": 22, "sctp": 132, "ws": 50, "wss": 50}
_SETTABLE_KINDS = {
    name: number for number, name in enumerate("sip xmpp sdp rtp rtcp mgcp megaco m2ua m3ua iax h322 h321".split(), 1)
}
LONGEST_PAYLOAD = 32_767
"""Octets of a payload that a script sets."""


def chunk_number(text: str) -> int:
    """The number of a chunk: of its name, or as it is written, hexadecimal with 0x; ``ValueError`` if it is neither."""
    word = text.strip().lower()
    found = NAMES.get(word)
    if found is None and word[:1].isdigit():
        found = number_of(word)
    if not found or found > 0xFFFF:
        raise ValueError(f"{text!r} is no chunk: write its number, or one of {', '.join(NAMES)}")
    return found


def number_of(text: str) -> int:
    """A number as it is written, hexadecimal with 0x; ``ValueError`` if it is none."""
    word = text.strip().lower()
    digits, base = (word[2:], 16) if word.startswith("0x") else (word, 10)
    if not digits.isascii() or not digits.isalnum():
        raise ValueError(f"{text!r} is no number")
    return int(digits, base)


def vendor_number(text: str) -> int:
    """The number of a vendor; ``ValueError`` if it is none."""
    found = number_of(text)
    if found > 0xFFFF:
        raise ValueError(f"{text!r} is no vendor")
    return found


def chunk_type(text: str) -> str:
    """What a chunk holds; ``ValueError`` if there is no such type."""
    word = text.strip().lower()
    if word not in TYPES:
        raise ValueError(f"{text!r} is no type of a chunk: write one of {', '.join(TYPES)}")
    return word


def net_name(text: str) -> int:
    """The chunk that ``$hep_net(name)`` means: an address, a port, the family or the protocol."""
    found = chunk_number(text)
    if found > TARGET_PORT:
        raise ValueError(f"$hep_net knows no {text!r}")
    return found


def net_value(way: Way, name: str) -> int | str | None:
    """``$hep_net(name)`` of a frame that came by ``way``; None if there is no such name."""
    try:
        number = net_name(name)
    except ValueError:
        return None
    six = ":" in way.source[0]
    values: dict[int, int | str] = {
        FAMILY: "AF_INET6" if six else "AF_INET", PROTOCOL: way.transport, SOURCE: way.source[0], SOURCE_6: way.source[0],
        TARGET: way.target[0], TARGET_6: way.target[0], SOURCE_PORT: way.source[1], TARGET_PORT: way.target[1],
    }
    return values[number]


def is_common(number: int) -> bool:
    """Whether that chunk is one that every frame has."""
    return number in SIZES or number in (PAYLOAD, COMPRESSED)


def common(frame: Received, number: int) -> int | str | None:
    """The value of a chunk that every frame has; None if it is not there."""
    if number in (SOURCE, SOURCE_6):
        return frame.source[0] if SOURCE in frame.known or SOURCE_6 in frame.known else None
    if number in (TARGET, TARGET_6):
        return frame.target[0] if TARGET in frame.known or TARGET_6 in frame.known else None
    if number == COMPRESSED:
        packed = frame.other(COMPRESSED)
        if packed is not None:
            return packed.data.decode("utf-8", "surrogateescape")
        number = PAYLOAD
    if number not in frame.known:
        return None
    if number == PAYLOAD:
        return frame.payload.decode("utf-8", "surrogateescape")
    value = frame.number(number)
    if number == FAMILY:
        return FAMILIES.get(value, "AF_INET6")
    if number == PROTOCOL:
        return TRANSPORTS.get(value)
    if number == KIND and value < len(KINDS):
        return KINDS[value]
    return value


def value_of(chunk: Chunk, kind: str) -> int | str | None:
    """The value of any other chunk, read as ``kind``; None if it cannot be that."""
    data = chunk.data
    if kind.startswith("uint"):
        size = int(kind[4:]) // 8
        return int.from_bytes(data[:size], "big") if len(data) >= size else None
    if kind.startswith("inet"):
        size = 4 if kind == "inet4-addr" else 16
        return str(ip_address(data)) if len(data) == size else None
    return data.decode("utf-8", "surrogateescape")


def set_common(frame: Received, number: int, text: str) -> None:
    """Set a chunk that every frame has; ``ValueError`` says why that cannot be."""
    known = frame.known
    if number in (FAMILY, SECONDS, MICROSECONDS):
        raise ValueError("it cannot be set")
    if number in (PAYLOAD, COMPRESSED):
        data = text.encode("utf-8", "surrogateescape")
        if len(data) > LONGEST_PAYLOAD:
            raise ValueError(f"{len(data)} octets are too many for a payload")
        delete(frame, PAYLOAD)
        known[PAYLOAD] = data
    elif number in (SOURCE, SOURCE_6, TARGET, TARGET_6):
        family, packed = address_chunks(text)
        four, six = (SOURCE, SOURCE_6) if number in (SOURCE, SOURCE_6) else (TARGET, TARGET_6)
        known.pop(four, None)
        known.pop(six, None)
        known[four if family == INET else six] = packed
        known[FAMILY] = bytes([family])
    elif number == PROTOCOL:
        known[number] = bytes([_named(_SETTABLE_TRANSPORTS, text, "transport")])
    elif number == KIND:
        known[number] = bytes([_named(_SETTABLE_KINDS, text, "kind of payload")])
    else:
        size = SIZES[number]
        known[number] = _unsigned(text, size)


def set_other(frame: Received, number: int, text: str, kind: str, vendor: int) -> None:
    """Set any other chunk, or add it; ``ValueError`` says why that cannot be."""
    if kind.startswith("uint"):
        data = _unsigned(text, int(kind[4:]) // 8)
    elif kind.startswith("inet"):
        data = address_chunks(text)[1]
        if len(data) != (4 if kind == "inet4-addr" else 16):
            raise ValueError(f"{text!r} is no {kind}")
    else:
        data = text.encode("utf-8", "surrogateescape")
    found = frame.other(number)
    if found is None:
        frame.others.append(Chunk(vendor, number, data))
    else:
        found.vendor, found.data = vendor, data


def delete(frame: Received, number: int) -> bool:
    """Take a chunk out; False if an uncommon one is not there."""
    if number in (PAYLOAD, COMPRESSED):
        frame.known.pop(PAYLOAD, None)
        frame.others = [chunk for chunk in frame.others if chunk.vendor or chunk.number != COMPRESSED]
        return True
    if number in (SOURCE, SOURCE_6, TARGET, TARGET_6):
        for each in (SOURCE, SOURCE_6) if number in (SOURCE, SOURCE_6) else (TARGET, TARGET_6):
            frame.known.pop(each, None)
        return True
    if is_common(number):
        frame.known.pop(number, None)
        return True
    found = frame.other(number)
    if found is None:
        return False
    frame.others.remove(found)
    return True


def _named(names: dict[str, int], text: str, what: str) -> int:
    found = names.get(text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no {what}")
    return found


def _unsigned(text: str, size: int) -> bytes:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= 1 << 8 * size:
        raise ValueError(f"{text!r} is no number of {8 * size} bits")
    return int(text).to_bytes(size, "big")
