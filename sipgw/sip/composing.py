"""Whether somebody is writing (RFC 3994): application/im-iscomposing+xml."""

from __future__ import annotations

from typing import Final, NamedTuple
from xml.etree.ElementTree import SubElement

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.trees import Element, local_name, parse_tree, write_tree

__all__ = ["COMPOSING", "Composing"]

COMPOSING: Final = "application/im-iscomposing+xml"
_XML: Final = "urn:ietf:params:xml:ns:im-iscomposing"
LONGEST: Final = 3600
"""Seconds of refresh that are believed."""


class Composing(NamedTuple):
    """``active``: somebody writes; ``refresh``: for so many seconds, unless told again (3.2; 120 where it does not say)."""

    active: bool
    refresh: int = 120
    content_type: str = ""

    @classmethod
    def parse(cls, data: bytes) -> Composing:
        """Read the document; ``MalformedMessage`` if it is none. A state that nobody knows counts as idle (3.3)."""
        root = parse_tree(data)
        if local_name(root) != "isComposing":
            raise MalformedMessage("Bad is-composing document")
        values = {local_name(child): (child.text or "").strip() for child in root}
        if "state" not in values:
            raise MalformedMessage("Bad is-composing document")
        refresh = values.get("refresh", "")
        seconds = min(int(refresh), LONGEST) if refresh.isdecimal() and len(refresh) < 10 else 120
        return cls(values["state"] == "active", seconds, values.get("contenttype", ""))

    def write(self) -> bytes:
        """The document."""
        root = Element(f"{{{_XML}}}isComposing")
        SubElement(root, f"{{{_XML}}}state").text = "active" if self.active else "idle"
        if self.content_type:
            SubElement(root, f"{{{_XML}}}contenttype").text = self.content_type
        if self.active:
            SubElement(root, f"{{{_XML}}}refresh").text = str(self.refresh)
        return write_tree(root, composing=_XML)
