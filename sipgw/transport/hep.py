"""HEP, in which copies of messages go to a capture server (Homer, sipcapture): the frames of its versions 1, 2 and 3.

Version 3 (the EEP/HEP draft of the Homer project) is a list of chunks: vendor, type and length, each 16 bits in network order;
the length counts its own header. Versions 1 and 2 are a fixed head; their time is in the order of the sender's machine, which is
taken as little-endian, and padded to 12 octets as OpenSIPS and Wireshark have it."""

from __future__ import annotations

import gzip
import json
import socket
import struct
from dataclasses import dataclass, field
from ipaddress import ip_address

SIP, XLOG, MI, REST, NET, CONTROL = 0x01, 0x64, 0x57, 0x58, 0x59, 0x60
"""What is in a frame (chunk 11); the last four are OpenSIPS's own."""
PROTOCOLS = {"udp": 17, "tcp": 6, "tls": 22, "sctp": 132, "ws": 50, "wss": 50}
"""The IP protocol that stands for a transport. COMPAT: IDP and ESP stand for TLS and WebSockets, as in OpenSIPS."""
LONGEST = 65535
"""Octets of a frame."""

_FAMILY, _PROTOCOL, _SOURCE, _TARGET, _SOURCE_6, _TARGET_6, _SOURCE_PORT, _TARGET_PORT = range(1, 9)
_SECONDS, _MICROSECONDS, _KIND, _AGENT, _PAYLOAD, _COMPRESSED, _CORRELATION, _EXTRA = 9, 10, 11, 12, 15, 16, 17, 101
_AF_INET6 = 10


@dataclass(frozen=True, slots=True)
class Style:
    """How frames are written: ``agent`` is our number, ``homer5`` whether parts are joined by ``delimiter`` (else JSON),
    ``compress`` whether payloads are compressed by gzip (version 3)."""

    agent: int = 1
    homer5: bool = True
    delimiter: str = ":"
    compress: bool = False


@dataclass(slots=True)
class Frame:
    """One message to be shown, of ``kind``, between two places; ``time`` in seconds since 1970.

    ``parts`` is what it says, by name. ``correlation`` names the call it belongs to, ``extra`` what else it belongs to, by
    kind. Version 3 alone has all of them; the others have the payload, which is the first part, and none of the rest."""

    kind: int
    protocol: int
    source: tuple[str, int]
    target: tuple[str, int]
    time: float
    parts: dict[str, str] = field(default_factory=dict)
    correlation: str = ""
    extra: dict[str, str] = field(default_factory=dict)


def encode(frame: Frame, version: int, style: Style) -> bytes:
    """The octets of ``frame``; ``ValueError`` if it is too long, or its addresses are none."""
    data = _encode_3(frame, style) if version == 3 else _encode_old(frame, version, style)
    if len(data) > LONGEST:
        raise ValueError(f"{len(data)} octets, a frame has at most {LONGEST}")
    return data


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _json(values: dict[str, str]) -> bytes:
    """An object of texts; octets that are not UTF-8 become U+FFFD, which JSON can hold."""
    clean = {name: _bytes(value).decode("utf-8", "replace") for name, value in values.items()}
    return json.dumps(clean, ensure_ascii=False).encode()


def _addresses(frame: Frame) -> tuple[bytes, bytes]:
    """Both addresses packed, as IPv6 if one of them is."""
    found = [ip_address(host) for host in (frame.source[0], frame.target[0])]
    if found[0].version != found[1].version:
        return tuple(each.packed if each.version == 6 else b"\0" * 10 + b"\xff\xff" + each.packed for each in found)  # type: ignore[return-value]
    return found[0].packed, found[1].packed


def _chunk(number: int, data: bytes) -> bytes:
    if len(data) > LONGEST - 6:
        raise ValueError(f"{len(data)} octets do not fit in a frame")
    return struct.pack("!HHH", 0, number, len(data) + 6) + data


def _encode_3(frame: Frame, style: Style) -> bytes:
    source, target = _addresses(frame)
    six = len(source) == 16
    seconds = int(frame.time)
    chunks = [
        _chunk(_FAMILY, bytes([_AF_INET6 if six else socket.AF_INET])),
        _chunk(_PROTOCOL, bytes([frame.protocol])),
        _chunk(_SOURCE_PORT, struct.pack("!H", frame.source[1])),
        _chunk(_TARGET_PORT, struct.pack("!H", frame.target[1])),
        _chunk(_SECONDS, struct.pack("!I", seconds & 0xFFFFFFFF)),
        _chunk(_MICROSECONDS, struct.pack("!I", int((frame.time - seconds) * 1e6))),
        _chunk(_KIND, bytes([frame.kind])),
        _chunk(_AGENT, struct.pack("!I", style.agent)),
        _chunk(_SOURCE_6 if six else _SOURCE, source),
        _chunk(_TARGET_6 if six else _TARGET, target),
    ]
    correlation = frame.correlation
    if frame.parts:
        payload = _bytes(style.delimiter.join(frame.parts.values())) if style.homer5 else _json(frame.parts)
        chunks.append(_chunk(_COMPRESSED, gzip.compress(payload, 6)) if style.compress else _chunk(_PAYLOAD, payload))
    if style.homer5:
        correlation = frame.extra.get("sip", correlation)
    else:
        if frame.extra:
            chunks.append(_chunk(_EXTRA, _json(frame.extra)))
    if correlation:
        chunks.append(_chunk(_CORRELATION, _bytes(correlation)))
    body = b"".join(chunks)
    return b"HEP3" + struct.pack("!H", min(len(body) + 6, LONGEST)) + body


def _encode_old(frame: Frame, version: int, style: Style) -> bytes:
    source, target = _addresses(frame)
    family = _AF_INET6 if len(source) == 16 else int(socket.AF_INET)
    head = struct.pack(
        "!BBBBHH", version, 8 + 2 * len(source), family, frame.protocol, frame.source[1], frame.target[1]
    )
    seconds = int(frame.time)
    time = b""
    if version == 2:
        time = struct.pack("<IIHH", seconds & 0xFFFFFFFF, int((frame.time - seconds) * 1e6), style.agent, 0)
    return head + source + target + time + _bytes(next(iter(frame.parts.values()), ""))
