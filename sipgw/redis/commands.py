"""Commands as lists of byte strings: how texts become arguments, and which key says where a command of a cluster goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import sha256

from sipgw.script.parts import Parts
from sipgw.script.values import to_text

Argument = str | bytes | int | float
Reply = bytes | str | int | list["Reply"] | Exception | None
"""An answer as it came: ``bytes`` for data, ``str`` for a status such as OK, ``int``, None, or a list, in which errors may be."""
Plain = str | int | list["Plain"] | None
"""An answer as scripts and modules take it: all text is ``str``."""

SLOTS = 16384
LONGEST_KEY = 512
"""Octets of a key; a longer one is kept under its SHA-256 (hardening P35)."""


def octets(value: Argument) -> bytes:
    """An argument as it goes over the wire; the octets that were no UTF-8 when they came are what they were."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    return repr(value).encode() if isinstance(value, float) else b"%d" % value


def plain(reply: Reply) -> Plain:
    """An answer with its data as text; an error inside a list is its text."""
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "surrogateescape")
    if isinstance(reply, list):
        return [plain(each) for each in reply]
    return str(reply) if isinstance(reply, Exception) else reply


def short(key: Argument) -> bytes:
    """``key`` itself, or what stands for it if it is longer than ``LONGEST_KEY``; it stays in its slot of a cluster."""
    data = octets(key)
    if len(data) <= LONGEST_KEY:
        return data
    part = tag(data)
    kept = b"{%s}" % part if part != data and len(part) < LONGEST_KEY // 2 else b""
    return b"%ssha256:%s" % (kept, sha256(data).hexdigest().encode())


def tag(key: bytes) -> bytes:
    """The part of a key that says its slot: what the first pair of braces holds, if they hold anything."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start)
        if end > start + 1:
            return key[start + 1 : end]
    return key


def slot(key: bytes) -> int:
    """Which of the 16384 slots of a cluster has ``key``: CRC-16 (XMODEM) of its tag."""
    crc = 0
    for octet in tag(key):
        crc = (crc << 8 & 0xFF00) ^ _CRC[crc >> 8 ^ octet]
    return crc % SLOTS


def _crc(octet: int) -> int:
    crc = octet << 8
    for _ in range(8):
        crc = crc << 1 ^ (0x1021 if crc & 0x8000 else 0)
    return crc & 0xFFFF


_CRC = [_crc(octet) for octet in range(256)]

_KEYLESS = frozenset(
    "PING ECHO TIME INFO DBSIZE SCAN KEYS RANDOMKEY PUBLISH CLUSTER CONFIG CLIENT COMMAND SCRIPT FUNCTION ACL AUTH SELECT WAIT"
    " FLUSHDB FLUSHALL LASTSAVE ROLE LATENCY SLOWLOG MEMORY MODULE SWAPDB MULTI EXEC".split()
)
_COUNTED = frozenset("EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO".split())
_SECOND = frozenset("OBJECT XGROUP XINFO BITOP".split())
_OWN = frozenset(
    "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE MONITOR SYNC PSYNC QUIT RESET HELLO MULTI EXEC DISCARD WATCH UNWATCH AUTH SELECT".split()
)


def key_of(arguments: Sequence[bytes]) -> bytes | None:
    """The first key of a command, None if it has none and any server will do."""
    name = arguments[0].decode("ascii", "replace").upper()
    if name in _COUNTED:
        return arguments[3] if len(arguments) > 3 and arguments[2] != b"0" else None
    if name in ("XREAD", "XREADGROUP"):
        upper = [each.upper() for each in arguments]
        place = upper.index(b"STREAMS") + 1 if b"STREAMS" in upper else 0
    else:
        place = 2 if name in _SECOND else 0 if name in _KEYLESS else 1
    return arguments[place] if 0 < place < len(arguments) else None


def changes_connection(name: bytes) -> bool:
    """Whether a command would change the state of a connection that others use too, or end it."""
    return name.decode("ascii", "replace").upper() in _OWN


def split_query(text: str) -> list[str]:
    """The arguments of a query that a script wrote as one text; ``ValueError`` if it cannot be one.

    They are divided by white space; one in single or double quotes may have it inside. As OpenSIPS has it, but for this: within
    quotes a backslash makes a quote or a backslash that follows part of the argument, ``\\0`` is NUL (``{s.escape.common}``)."""
    words: list[str] = []
    place, end = 0, len(text)
    while place < end:
        if text[place].isspace():
            place += 1
        elif text[place] in "'\"":
            word, place = _quoted(text, place)
            words.append(word)
        else:
            start = place
            while place < end and not text[place].isspace():
                place += 1
            words.append(text[start:place])
    if len(words) < 2:
        raise ValueError("a query is a command and its arguments")
    return words


def split_parts(parts: Parts) -> list[str]:
    """The arguments of a query with variables: what one of them holds is in one argument, whatever it is (hardening P35)."""
    if len(parts.template) == 1:
        return split_query(str(parts))
    values: list[str] = []
    text = ""
    for piece, value in parts:
        if isinstance(piece, str):
            text += piece.replace(_MARK, " ")
        else:
            text += f"{_MARK}{len(values)}{_MARK}"
            values.append(to_text(value))
    return [re.sub(f"{_MARK}([0-9]+){_MARK}", lambda found: values[int(found[1])], word) for word in split_query(text)]


_MARK = "\ue000"
"""Stands around the number of a value, while a query is divided."""


def _quoted(text: str, start: int) -> tuple[str, int]:
    """The argument whose opening quote is at ``start``, and where it has ended."""
    quote, place, word = text[start], start + 1, []
    while place < len(text):
        letter = text[place]
        if letter == "\\" and text[place + 1 : place + 2] in ("'", '"', "\\", "0"):
            word.append("\0" if text[place + 1] == "0" else text[place + 1])
            place += 2
        elif letter == quote:
            if place + 1 < len(text) and not text[place + 1].isspace():
                raise ValueError("white space must follow a closing quote")
            return "".join(word), place + 1
        else:
            word.append(letter)
            place += 1
    raise ValueError("a quote is not closed")
