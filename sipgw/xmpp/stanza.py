"""Stanzas as trees, and their octets (RFC 6120; hardening P19). Pure.

A stanza is an ``Element`` whose names are ``{namespace}local``. ``write`` is the only way from a tree to octets: whatever a SIP
message says, what it writes is well-formed XML 1.0, since a server ends the stream, for all users, at the first octet that is
not."""

from __future__ import annotations

import re
from typing import Final
from xml.etree.ElementTree import Element, SubElement

from sipgw.sip.trees import clean, local_name
from sipgw.xmpp.address import Jid
from sipgw.xmpp.errors import of_condition, of_status

__all__ = [
    "COMPONENT", "PING", "STANZAS", "Element", "SubElement", "child", "error_of", "error_to", "local_name", "stanza", "text_of",
    "write",
]

COMPONENT: Final = "jabber:component:accept"
PING: Final = "urn:xmpp:ping"
STANZAS: Final = "urn:ietf:params:xml:ns:xmpp-stanzas"
_XML: Final = "{http://www.w3.org/XML/1998/namespace}"
_TEXT: Final = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_VALUE: Final = str.maketrans({
    "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;",
})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def stanza(kind: str, sender: Jid | str, receiver: Jid | str, **values: str) -> Element:
    """A new ``message``, ``presence`` or ``iq``; empty ``values`` are left out."""
    given = {"from": str(sender), "to": str(receiver), **values}
    return Element(f"{{{COMPONENT}}}{kind}", {name: value for name, value in given.items() if value})


def child(parent: Element, name: str, namespace: str = COMPONENT) -> Element | None:
    """The first child of that name."""
    return parent.find(f"{{{namespace}}}{name}")


def text_of(parent: Element, name: str, namespace: str = COMPONENT) -> str | None:
    """The text of the first child of that name; None if there is none."""
    found = child(parent, name, namespace)
    return None if found is None else "".join(found.itertext())


def write(element: Element, namespace: str = COMPONENT) -> bytes:
    """The octets of ``element`` where ``namespace`` is the default one."""
    out: list[str] = []
    _write(element, namespace, out)
    return "".join(out).encode()


def _write(element: Element, namespace: str, out: list[str]) -> None:
    space, _, name = element.tag.rpartition("}")
    space = space[1:]
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name")
    out.append(f"<{name}")
    if space != namespace:
        out.append(f' xmlns="{clean(space).translate(_VALUE)}"')
    for key, value in element.attrib.items():
        key = f"xml:{key.removeprefix(_XML)}" if key.startswith(_XML) else key
        if not _NAME.fullmatch(key.removeprefix("xml:")):
            continue  # an attribute of a foreign namespace, which nobody here sets
        out.append(f' {key}="{clean(value).translate(_VALUE)}"')
    if element.text or len(element):
        out.append(">")
        out.append(clean(element.text or "").translate(_TEXT))
        for each in element:
            _write(each, space, out)
            if each.tail:
                out.append(clean(each.tail).translate(_TEXT))
        out.append(f"</{name}>")
    else:
        out.append("/>")


def error_to(original: Element, status: int, text: str = "") -> Element | None:
    """The error that answers ``original`` with the words of a final response; None for a stanza that must not be answered
    (RFC 6120 8.3.1: an error is never answered by another)."""
    if original.get("type") in ("error", "result") or not original.get("from"):
        return None
    answer = stanza(
        local_name(original), original.get("to", ""), original.get("from", ""), id=original.get("id", ""), type="error"
    )
    condition = of_status(status)
    error = SubElement(answer, f"{{{COMPONENT}}}error", {"type": condition.type})
    SubElement(error, f"{{{STANZAS}}}{condition.name}")
    if text:
        SubElement(error, f"{{{STANZAS}}}text").text = f"{status} {text}"
    return answer


def error_of(element: Element) -> tuple[int, str]:
    """The status and the reason that an error stanza says."""
    error = child(element, "error")
    if error is None:
        return 500, "Error"
    name = next((local_name(each) for each in error if each.tag.startswith(f"{{{STANZAS}}}") and local_name(each) != "text"), "")
    text = (text_of(error, "text", STANZAS) or name.replace("-", " ").capitalize() or "Error")[:200]
    return of_condition(name), re.sub(r"[^\x20-\x7e\xa0-\uffff]+", " ", text).strip() or "Error"
