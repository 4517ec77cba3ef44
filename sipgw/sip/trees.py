"""XML in bodies (IMDN, is-composing, PIDF and their like): read without danger, written without mistakes.

A document type declaration is refused, and with it entities that expand without end; so are documents that are too long or too
deep. Names are in ElementTree's form: ``{namespace}local``."""

from __future__ import annotations

import re
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError, XMLPullParser, register_namespace, tostring

from sipgw.sip.errors import MalformedMessage

__all__ = ["Element", "clean", "local_name", "parse_tree", "write_tree"]

LONGEST: Final = 49152
DEEPEST: Final = 32
_DECLARATION: Final = re.compile(rb"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""What XML 1.0 (2.2) has no way to write."""


def parse_tree(data: bytes, longest: int = LONGEST) -> Element:
    """The root of the document; ``MalformedMessage`` if it is none, or more than we read."""
    if len(data) > longest:
        raise MalformedMessage("XML document too long", 413)
    if _DECLARATION.search(data) or b"\0" in data:  # UTF-16 would hide a declaration
        raise MalformedMessage("Bad XML document")
    parser: Any = XMLPullParser(("start", "end"))
    depth = 0
    root: Element | None = None
    try:
        parser.feed(data)
        parser.close()
        for event, element in parser.read_events():
            depth += 1 if event == "start" else -1
            if depth > DEEPEST:
                raise MalformedMessage("XML document too deep")
            if root is None and isinstance(element, Element):
                root = element
    except (ParseError, ValueError, LookupError):
        raise MalformedMessage("Bad XML document") from None
    if root is None:
        raise MalformedMessage("Bad XML document")
    return root


def write_tree(root: Element, **prefixes: str) -> bytes:
    """The document with ``root``, declared as UTF-8. ``prefixes``: those by which namespaces are written."""
    for prefix, namespace in prefixes.items():
        register_namespace(prefix, namespace)
    return b'<?xml version="1.0" encoding="UTF-8"?>\r\n' + bytes(tostring(root, encoding="utf-8"))


def local_name(element: Element) -> str:
    """The name of ``element`` without its namespace."""
    return element.tag.rpartition("}")[2]


def clean(text: str) -> str:
    """``text`` with U+FFFD for each character that XML 1.0 cannot say."""
    return _FORBIDDEN.sub("\ufffd", text)
