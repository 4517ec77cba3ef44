"""Bodies: media types and multipart (RFC 2046 5.1). Session descriptions are in ``sdp``.

Octets that nobody edits come back as they came: a part keeps its head and body, a ``Multipart`` what stood around
them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sipgw.sip.address import parse_params
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import TOKEN_CHARS, unquote
from sipgw.sip.head import find_end
from sipgw.sip.headers import canonical
from sipgw.sip.limits import LIMITS, Limits
from sipgw.sip.message import Message

__all__ = ["MediaType", "Multipart", "Part", "parts_of"]

_media_type = re.compile(rf"[ \t]*([{TOKEN_CHARS}]+)[ \t]*/[ \t]*([{TOKEN_CHARS}]+)[ \t]*(;.*)?", re.DOTALL).fullmatch
_fold = re.compile(r"\r?\n(?=[ \t])").sub


class MediaType(NamedTuple):
    """Holds a Content-Type (RFC 3261 20.15). ``name`` is in lower case: "application/sdp"."""

    name: str
    params: dict[str, str | None]

    @classmethod
    def parse(cls, text: str) -> MediaType:
        """Read a header value; raises ``MalformedMessage``."""
        match = _media_type(text)
        if match is None:
            raise MalformedMessage("Bad media type")
        return cls(f"{match[1]}/{match[2]}".lower(), parse_params(match[3] or ""))

    @property
    def boundary(self) -> str | None:
        """The boundary of a multipart type, ``None`` of any other."""
        value = self.params.get("boundary")
        return unquote(value) if value and self.name.startswith("multipart/") else None

    def matches(self, pattern: str) -> bool:
        """Tell whether this is the type ``pattern``, which may be ``text/*`` or ``*/*`` and may have parameters."""
        pattern = pattern.partition(";")[0].strip().lower()
        kind, _, subtype = pattern.partition("/")
        if subtype == "*":
            return kind == "*" or self.name.partition("/")[0] == kind
        return self.name == pattern


class Part:
    """Holds one part of a body. ``head`` is its header lines as they came, without the blank line."""

    __slots__ = ("body", "head")

    def __init__(self, body: bytes, content_type: str = "", head: str = "") -> None:
        self.body = body
        self.head = head or (f"Content-Type: {content_type}" if content_type else "")

    def header(self, name: str) -> str | None:
        """Return the first header of that name, unfolded and stripped, or ``None``."""
        name = canonical(name)
        for line in _fold("", self.head).replace("\r\n", "\n").split("\n"):
            key, colon, value = line.partition(":")
            if colon and canonical(key) == name:
                return value.strip(" \t\r")
        return None

    @property
    def media_type(self) -> MediaType:
        """The type; text/plain where none is said (RFC 2046 5.2). Raises ``MalformedMessage``."""
        return MediaType.parse(self.header("Content-Type") or "text/plain")

    def write(self) -> bytes:
        """Return the part as it stands between two boundaries."""
        head = self.head.encode("utf-8", "surrogateescape")
        return (head + b"\r\n" if head else b"") + b"\r\n" + self.body


class Multipart:
    """Holds the parts of a multipart body; ``parts`` is a list to edit freely."""

    __slots__ = ("boundary", "epilogue", "parts", "preamble")

    def __init__(self, boundary: str, parts: list[Part], preamble: bytes = b"", epilogue: bytes = b"\r\n") -> None:
        self.boundary = boundary
        self.parts = parts
        self.preamble = preamble
        self.epilogue = epilogue

    @classmethod
    def parse(cls, body: bytes, boundary: str, limits: Limits = LIMITS) -> Multipart:
        """Cut ``body`` at its boundary lines (RFC 2046 5.1.1); nothing inside a part is looked at but its head.

        Raises ``MalformedMessage`` if the first or the closing line is missing, or for too many parts."""
        if not 0 < len(boundary) <= 70:
            raise MalformedMessage("Bad boundary")
        mark = re.escape(b"--" + boundary.encode("utf-8", "surrogateescape"))
        lines = re.compile(rb"(?:\A|\r\n)" + mark + rb"(--)?[ \t]*(?=\r\n|\Z)")
        first = lines.search(body)
        if first is None or first[1]:
            raise MalformedMessage("Multipart body without parts")
        parts: list[Part] = []
        begin = first.end()
        while True:
            found = lines.search(body, begin)
            if found is None:
                raise MalformedMessage("Multipart body without its end")
            parts.append(_cut_part(body[begin + 2:found.start()]))
            if len(parts) > limits.parts:
                raise MalformedMessage("Too many body parts")
            begin = found.end()
            if found[1]:
                return cls(boundary, parts, body[:first.start()], body[begin:])

    def write(self) -> bytes:
        """Return the body, untouched parts octet for octet."""
        mark = b"--" + self.boundary.encode("utf-8", "surrogateescape")
        pieces = [self.preamble + b"\r\n" if self.preamble else b""]
        for part in self.parts:
            pieces.append(mark + b"\r\n" + part.write() + b"\r\n")
        pieces.append(mark + b"--" + self.epilogue)
        return b"".join(pieces)


def _cut_part(data: bytes) -> Part:
    if data.startswith(b"\r\n"):
        return Part(data[2:])
    begin = find_end(data)
    if begin < 0:
        raise MalformedMessage("Body part without its body")
    return Part(data[begin:], head=data[:begin].decode("utf-8", "surrogateescape").rstrip("\r\n"))


def parts_of(message: Message) -> list[Part]:
    """Return the parts of a message's body: those of a multipart, else the body itself, nothing if it is empty.

    Raises ``MalformedMessage`` for a multipart that cannot be cut or a Content-Type that cannot be read."""
    if not message.body:
        return []
    content_type = message.content_type
    if content_type is None:
        return [Part(message.body)]
    boundary = MediaType.parse(content_type).boundary
    if boundary is None:
        return [Part(message.body, content_type)]
    return Multipart.parse(message.body, boundary, message.limits).parts
