"""Cut the head of a message into lines and find the name of each: the hot path of everything that comes in.

The head is decoded once (utf-8 with surrogateescape, so every octet comes back as it came), split at CRLF, and the name
of each line found by its exact usual spelling in one dict: ``Via``, ``v``, ``VIA``. That serves nearly every message.

A head with anything unusual in it (folds, a name unknown or oddly written, bare LF) is cut again carefully. There each
fold is joined to its line, with the line end kept inside, so an untouched message is written as it came. Bare LF is
taken as a line end, since some send it, but leaves as CRLF: were it forwarded as it came, two servers could see
different headers in it. A bare CR, and any other control character in a name, is malformed for the same reason. White
space before the colon, compact forms and case are legal and name the same header (RFC 3261 7.3.1).
"""

from __future__ import annotations

import re
from typing import Final

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token, parse_uint
from sipgw.sip.headers import NAMES, canonical
from sipgw.sip.limits import Limits

__all__ = ["body_length", "cut_head", "find_end"]

_START: Final = "\n"  # stands in the names for the start line: no header name can be equal to it
_BAD: Final = "\r"  # and this for a line that is no header
_get_name = NAMES.get
_is_disjoint = NAMES.keys().isdisjoint
_USUAL_LENGTHS: Final = {f" {length}": length for length in range(2048)}
_end = re.compile(rb"\r?\n\r?\n").search
_line_end = re.compile(r"\n(?![ \t])").split


def find_end(data: bytes | bytearray, start: int = 0) -> int:
    """Return where the body begins, or -1 if the blank line after the head has not come yet."""
    found = _end(data, start)
    return -1 if found is None else found.end()


def cut_head(data: bytes, limits: Limits) -> tuple[list[str], list[str], int, str]:
    """Cut the head that ``data`` begins with, CRLFs before it passed over.

    Returns its lines, their names, where the body begins, and what is wrong first ("" if nothing). Raises
    ``MalformedMessage`` only for too many headers."""
    # Where the message ends with a blank line there is no body; if there is one all the same, its blank line is no header
    end = len(data) - 4 if data[-4:] == b"\r\n\r\n" else data.find(b"\r\n\r\n")
    if end <= 0:
        return _cut_carefully(data, limits)
    text = data[:end].decode("utf-8", "surrogateescape")
    lines = text.splitlines()  # at every kind of line end; if they were not all CRLF, the lines joined are another text
    names: list[str | None] = [_get_name(line.partition(":")[0]) for line in lines]
    names[0] = _START
    if (
        "\r\n".join(lines) != text or not _is_disjoint(lines) or len(lines) < 2
        or (None in names and not _name_rest(lines, names))
    ):
        return _cut_carefully(data, limits)
    return lines, names, end + 4, ""  # type: ignore[return-value]


def _name_rest(lines: list[str], names: list[str | None]) -> bool:
    """Fill in the names that are in no table; false if there is more to it: a fold, a blank, a line without colon."""
    for index, name in enumerate(names):
        if name is None:
            text, colon, _ = lines[index].partition(":")
            if not colon or not is_token(text):
                return False
            names[index] = canonical(text)
    return True


def body_length(lines: list[str], names: list[str], limits: Limits) -> int:
    """Return what Content-Length says, -1 if there is none (RFC 3261 20.14).

    Raises ``MalformedMessage`` for what is no number, or comes twice, even if equal: someone else may believe the
    other one (RFC 4475 3.3.9)."""
    count = names.count("content-length")
    if count != 1:
        if count:
            raise MalformedMessage("Repeated Content-Length")
        return -1
    digits = lines[-1 if names[-1] == "content-length" else names.index("content-length")].partition(":")[2]
    known = _USUAL_LENGTHS.get(digits)
    if known is not None:
        return known
    digits = digits.strip(" \t\r\n")
    if len(digits) < 6 and digits.isdigit() and digits.isascii():
        return int(digits)
    size = parse_uint(digits, 2**32 - 1, "Content-Length")
    if size > limits.message:
        raise MalformedMessage("Message Too Large", 513)
    return size


def _cut_carefully(data: bytes, limits: Limits) -> tuple[list[str], list[str], int, str]:
    """Cut a head with unusual things in it."""
    error = ""
    begin = len(data) - len(data.lstrip(b"\r\n"))
    found = _end(data, begin)
    if found is None:
        error = "Incomplete head"
        head, end = data[begin:], len(data)
    else:
        head, end = data[begin:found.start()], found.end()
    text = head.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    if found is None:
        text = text.rstrip("\n")
    if "\r" in text:
        error = error or "Bare CR"
        text = text.replace("\r", " ")
    lines = _line_end(text)
    if len(lines) > limits.headers + 1:
        raise MalformedMessage("Too many headers")
    names = [_START]
    for index in range(1, len(lines)):
        line = lines[index]
        if "\n" in line:
            lines[index] = line.replace("\n", "\r\n")
        name, colon, _ = line.partition(":")
        known = _get_name(name) if colon else None
        if known is None:
            name = name.strip(" \t\n")
            if not colon or not is_token(name):
                error = error or "Bad header line"
                known = _BAD
            else:
                known = canonical(name)
        names.append(known)
    return lines, names, end, error
