"""Presence documents (RFC 3863): who is there, on which device, with which note; what RPID (RFC 4480) says of away and busy.

The word that Jabber has for it (``show``) stands in the status, as RFC 8048 has it, besides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from xml.etree.ElementTree import SubElement

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.trees import Element, clean, local_name, parse_tree, write_tree

__all__ = ["PIDF", "Pidf", "Tuple"]

PIDF: Final = "application/pidf+xml"
_XML: Final = "urn:ietf:params:xml:ns:pidf"
_MODEL: Final = "urn:ietf:params:xml:ns:pidf:data-model"
_RPID: Final = "urn:ietf:params:xml:ns:pidf:rpid"
_JABBER: Final = "jabber:client"
MOST: Final = 50
"""Tuples that are read of a document."""
_SHOWS: Final = frozenset(("away", "chat", "dnd", "xa"))
_ACTIVITIES: Final = {"away": "away", "xa": "away", "dnd": "busy"}
_OF_ACTIVITY: Final = {
    "away": "away", "busy": "dnd", "on-the-phone": "dnd", "in-transit": "away", "meal": "away", "meeting": "dnd",
    "appointment": "dnd", "sleeping": "xa", "vacation": "xa", "permanent-absence": "xa", "steering": "away", "holiday": "xa",
}


class Tuple(NamedTuple):
    """One device. ``show``: away, chat, dnd, xa or nothing; ``priority`` in thousandths, None where it says none."""

    id: str
    open: bool
    show: str = ""
    note: str = ""
    priority: int | None = None
    contact: str = ""


class Pidf(NamedTuple):
    """One document about ``entity``, a URI."""

    entity: str
    tuples: Sequence[Tuple] = ()

    @classmethod
    def parse(cls, data: bytes) -> Pidf:
        """Read it; ``MalformedMessage`` if it is none."""
        root = parse_tree(data)
        if local_name(root) != "presence":
            raise MalformedMessage("Bad presence document")
        show, note = "", ""
        for child in root:
            if local_name(child) in ("person", "note"):
                show = show or _activity(child)
                note = note or (child.text if local_name(child) == "note" else _note(child)) or ""
        found = [child for child in root if local_name(child) == "tuple"]
        if any(each.tag == f"{{{_JABBER}}}show" for child in found for each in child.iter()):
            show = ""  # who says it of each device says nothing of the others by that
        tuples = [_tuple(child, show, note.strip()) for child in found]
        return cls(root.get("entity", ""), tuples[:MOST])

    def write(self) -> bytes:
        """The document."""
        root = Element(f"{{{_XML}}}presence", {"entity": clean(self.entity)})
        show = next((each.show for each in self.tuples if each.open and each.show in _ACTIVITIES), "")
        for each in self.tuples:
            made = SubElement(root, f"{{{_XML}}}tuple", {"id": _id(each.id)})
            status = SubElement(made, f"{{{_XML}}}status")
            SubElement(status, f"{{{_XML}}}basic").text = "open" if each.open else "closed"
            if each.open and each.show:
                SubElement(status, f"{{{_JABBER}}}show").text = each.show
            if each.contact:
                contact = SubElement(made, f"{{{_XML}}}contact")
                contact.text = clean(each.contact)
                if each.priority is not None:
                    contact.set("priority", f"{each.priority // 1000}.{each.priority % 1000:03d}")
            if each.note:
                SubElement(made, f"{{{_XML}}}note").text = clean(each.note)
        if show:
            person = SubElement(root, f"{{{_MODEL}}}person", {"id": "p1"})
            SubElement(SubElement(person, f"{{{_RPID}}}activities"), f"{{{_RPID}}}{_ACTIVITIES[show]}")
        return write_tree(root, **{"": _XML, "dm": _MODEL, "rpid": _RPID})  # phones look for <basic> without reading XML


def _id(text: str) -> str:
    """An xml:id that stands for ``text``."""
    return "t" + re.sub(r"[^A-Za-z0-9_.-]", lambda found: f"_{ord(found[0]):x}_", text)[:200]


def _activity(element: Element) -> str:
    for each in element.iter():
        if each.tag.startswith(f"{{{_RPID}}}") and local_name(each) in _OF_ACTIVITY:
            return _OF_ACTIVITY[local_name(each)]
    return ""


def _note(element: Element) -> str:
    for each in element.iter():
        if local_name(each) == "note" and each.text:
            return each.text
    return ""


def _tuple(element: Element, show: str, note: str) -> Tuple:
    is_open, contact, priority = False, "", None
    for each in element.iter():
        name, text = local_name(each), (each.text or "").strip()
        if name == "basic":
            is_open = text.lower() == "open"
        elif name == "show" and text in _SHOWS:
            show = text
        elif name == "contact":
            contact = text
            value = each.get("priority", "")
            if re.fullmatch(r"[01](?:\.[0-9]{0,3})?", value):
                priority = min(1000, round(float(value) * 1000))
    show = _activity(element) or show
    return Tuple(element.get("id", ""), is_open, show, _note(element).strip() or note, priority, contact)
