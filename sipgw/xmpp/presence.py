"""Presence stanzas as what a presence document says, and back (RFC 8048 5). Pure."""

from __future__ import annotations

from typing import Final

from sipgw.sip.pidf import Tuple
from sipgw.xmpp.address import Jid
from sipgw.xmpp.stanza import COMPONENT, Element, SubElement, stanza, text_of

__all__ = ["to_presence", "to_tuple"]

_SHOWS: Final = frozenset(("away", "chat", "dnd", "xa"))


def to_tuple(element: Element, sender: Jid, contact: str = "") -> Tuple | None:
    """The device that a presence stanza speaks of; None if it speaks of none."""
    if element.get("type", "") not in ("", "unavailable"):
        return None
    show = (text_of(element, "show") or "").strip()
    note = (text_of(element, "status") or "").strip()[:1000]
    text = (text_of(element, "priority") or "0").strip()
    negative = text.startswith("-")
    value = int(text.lstrip("+-")) if text.lstrip("+-").isdecimal() and len(text) <= 4 else 0
    priority = 0 if negative else min(1000, value * 1000 // 127)
    return Tuple(sender.resource, not element.get("type"), show if show in _SHOWS else "", note, priority, contact)


def to_presence(device: Tuple, sender: Jid, receiver: Jid) -> Element:
    """The stanza that says of ``sender`` what a device is."""
    made = stanza("presence", sender, receiver, type="" if device.open else "unavailable")
    if device.open and device.show in _SHOWS:
        SubElement(made, f"{{{COMPONENT}}}show").text = device.show
    if device.note:
        SubElement(made, f"{{{COMPONENT}}}status").text = device.note
    if device.open and device.priority:
        SubElement(made, f"{{{COMPONENT}}}priority").text = str(device.priority * 127 // 1000)
    return made
