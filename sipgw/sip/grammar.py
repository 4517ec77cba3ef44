"""Pieces of the grammar of RFC 3261 25.1 that several files share: numbers, tokens, quoted strings, IPv6.

The one rule: a number from a peer is read by ``parse_uint`` and nothing else, since ``int()`` takes signs, spaces,
underscores and the digits of every script.
"""

from __future__ import annotations

import re
from typing import Final

from sipgw.sip.errors import MalformedMessage

__all__ = [
    "TOKEN_CHARS", "ipv6_groups", "is_ipv4", "is_token", "parse_q", "parse_uint", "quote", "unescape", "unfold", "unquote",
]

TOKEN_CHARS: Final = r"A-Za-z0-9\-.!%*_+`'~"
"""The characters of ``token``, as the inside of a regular expression's brackets."""

_token = re.compile(f"[{TOKEN_CHARS}]+").fullmatch
_fold = re.compile(r"[ \t]*\r?\n[ \t]+").sub
_q_value = re.compile(r"0(?:\.([0-9]{0,3}))?|1(?:\.0{0,3})?").fullmatch
_pair = re.compile(r"\\(.)", re.DOTALL).sub
_to_quote = re.compile(r'["\\]').sub
_escape = re.compile(r"(?:%[0-9A-Fa-f]{2})+").sub
_group = re.compile(r"[0-9A-Fa-f]{1,4}").fullmatch
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_ipv4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}").fullmatch


def parse_uint(text: str, limit: int, what: str = "number") -> int:
    """Read the ASCII decimal digits of ``text``, at most ``limit``; anything else is malformed.

    Leading zeros are legal (RFC 4475 3.1.1.1: ``Max-Forwards: 0068``) and cost nothing, however many."""
    if len(text) > 10:
        text = text.lstrip("0") or text[:1]
    if len(text) <= 10 and text.isdigit() and text.isascii():
        value = int(text)
        if value <= limit:
            return value
    raise MalformedMessage(f"Bad {what}")


def parse_q(text: str) -> int:
    """Read a ``qvalue`` (RFC 3261 25.1) as thousandths: ``0.7`` is 700."""
    match = _q_value(text)
    if match is None:
        raise MalformedMessage("Bad q value")
    if text[0] == "1":
        return 1000
    return int((match[1] or "").ljust(3, "0"))


def is_token(text: str) -> bool:
    """Tell whether ``text`` is a ``token`` (RFC 3261 25.1)."""
    return _token(text) is not None


def unfold(text: str) -> str:
    """Replace each fold (line end and the white space around it) by one space (RFC 3261 7.3.1)."""
    return _fold(" ", text)


def unquote(text: str) -> str:
    """Return what a quoted string means; a text without quotes comes back as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    inner = text[1:-1]
    return _pair(r"\1", inner) if "\\" in inner else inner


def quote(text: str) -> str:
    """Return ``text`` as a quoted string; line ends, which it cannot hold, become spaces."""
    if '"' in text or "\\" in text:
        text = _to_quote(r"\\\g<0>", text)
    return '"' + text.replace("\r\n", " ").replace("\r", " ").replace("\n", " ") + '"'


def unescape(text: str) -> str:
    """Decode each ``%HH`` once (RFC 3261 19.1.2); what is no escape stays."""
    if "%" not in text:
        return text
    return _escape(lambda run: bytes.fromhex(run[0].replace("%", "")).decode("utf-8", "surrogateescape"), text)


def is_ipv4(text: str) -> bool:
    """Tell whether ``text`` is a dotted quad without leading zeros."""
    return _ipv4(text) is not None


def ipv6_groups(text: str) -> tuple[int, ...] | None:
    """Return the eight numbers of an IPv6 address (RFC 4291 2.2) without brackets, ``None`` if it is none."""
    if len(text) > 45:
        return None
    head, double, tail = text.partition("::")
    before = _groups(head, not double)
    after = _groups(tail, True)
    if before is None or after is None:
        return None
    if not double:
        return tuple(before) if len(before) == 8 else None
    missing = 8 - len(before) - len(after)
    return (*before, *[0] * missing, *after) if missing > 0 else None


def _groups(text: str, last: bool) -> list[int] | None:
    """Read groups between colons; ``last`` allows a dotted quad as the end."""
    if not text:
        return []
    groups: list[int] = []
    parts = text.split(":")
    if last and is_ipv4(parts[-1]):
        a, b, c, d = map(int, parts.pop().split("."))
        groups = [a << 8 | b, c << 8 | d]
    if any(_group(part) is None for part in parts):
        return None
    return [int(part, 16) for part in parts] + groups
