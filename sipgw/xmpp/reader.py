"""Octets of an XMPP stream as a header and stanzas (RFC 6120 4), without a socket. Pure.

What peers have no business to send ends the stream at once: a document type (with it all entities), processing instructions,
comments, stanzas that are too long, too deep or have too many attributes (hardening P18)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate, errors

from sipgw.xmpp.stanza import Element, local_name

__all__ = ["CLOSE", "STREAMS", "Ended", "Header", "Reader"]

STREAMS: Final = "http://etherx.jabber.org/streams"
CLOSE: Final = b"</stream:stream>"
LONGEST: Final = 262_144
"""Octets of a stanza."""
DEEPEST: Final = 64
ATTRIBUTES: Final = 64
CLOSED: Final = "the server has closed the stream"


class Header(NamedTuple):
    """The stream has begun, with these attributes."""

    attributes: dict[str, str]


class Ended(NamedTuple):
    """The stream is over: close the connection."""

    reason: str


class _Refused(Exception):
    pass


class Reader:
    """One stream. ``longest``: octets of a stanza."""

    def __init__(self, longest: int = LONGEST) -> None:
        self.longest = longest
        self.ended = False
        self._events: list[Header | Ended | Element] = []
        self._path: list[Element] = []
        self._depth = 0
        self._fed = 0
        parser: Any = ParserCreate(namespace_separator="}")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        refuse: Callable[..., None] = self._refuse
        for name in (
            "StartDoctypeDeclHandler", "EntityDeclHandler", "ProcessingInstructionHandler", "CommentHandler",
            "UnparsedEntityDeclHandler", "NotationDeclHandler",
        ):
            setattr(parser, name, refuse)
        self._parser = parser

    def receive(self, data: bytes) -> list[Header | Ended | Element]:
        """Take octets; what has come. Nothing comes after ``Ended``."""
        if self.ended:
            return []
        for start in range(0, len(data), 65536):
            piece = data[start : start + 65536]
            self._fed += len(piece)
            try:
                self._parser.Parse(piece, False)
                if self._fed > self.longest:
                    raise _Refused("a stanza is too long")
            except ExpatError as error:
                ended = error.code == errors.codes[errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT]
                self._stop(CLOSED if ended else f"XML: {ErrorString(error.code)}")
            except _Refused as error:
                self._stop(str(error))
            if self.ended:
                break
        events, self._events = self._events, []
        return events

    def _stop(self, reason: str) -> None:
        if not self.ended:
            self.ended = True
            self._events.append(Ended(reason))

    # ---- what expat tells ----

    def _refuse(self, *_what: Any) -> None:
        raise _Refused("the server sends what is no part of XMPP")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if self.ended:
            return
        self._depth += 1
        if self._depth > DEEPEST or len(attributes) > ATTRIBUTES:
            raise _Refused("a stanza is too deep")
        name = f"{{{tag}" if "}" in tag else tag
        if self._depth == 1:
            if name != f"{{{STREAMS}}}stream":
                raise _Refused("this is no XMPP server")
            self._events.append(Header(dict(attributes)))
            return
        values = {f"{{{key}" if "}" in key else key: value for key, value in attributes.items()}
        element = Element(name, values)
        if self._path:
            self._path[-1].append(element)
        self._path.append(element)

    def _end(self, _tag: str) -> None:
        if self.ended:
            return
        self._depth -= 1
        if self._depth == 0:
            self._stop(CLOSED)
            return
        element = self._path.pop()
        if not self._path:
            self._fed = 0
            if element.tag == f"{{{STREAMS}}}error":
                self._stop(_why(element))
            else:
                self._events.append(element)

    def _text(self, text: str) -> None:
        if not self._path:
            return
        parent = self._path[-1]
        if len(parent):
            parent[-1].tail = (parent[-1].tail or "") + text
        else:
            parent.text = (parent.text or "") + text


def _why(error: Element) -> str:
    """What a stream error says (RFC 6120 4.9)."""
    words = [local_name(each) for each in error if local_name(each) != "text"]
    text = "".join("".join(each.itertext()) for each in error if local_name(each) == "text")
    said = f"{' '.join(words) or 'stream error'}{': ' if text else ''}{text}"
    return "".join(char if char.isprintable() else " " for char in said)[:200]
