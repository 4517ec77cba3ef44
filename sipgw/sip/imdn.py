"""Instant message disposition notifications (RFC 5438): who wants to hear what became of a message, and what did.

A sender asks in the headers of its message/cpim; a notification is an XML document, itself in a message/cpim that says
``Content-Disposition: notification``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from xml.etree.ElementTree import SubElement

from sipgw.sip.cpim import Cpim
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.trees import Element, clean, local_name, parse_tree, write_tree

__all__ = [
    "DELIVERED", "DISPLAYED", "ERROR", "FAILED", "FORBIDDEN", "IMDN", "NAMESPACE", "PROCESSED", "STORED", "Asked",
    "Notification", "asked",
]

IMDN: Final = "message/imdn+xml"
NAMESPACE: Final = "urn:ietf:params:imdn"
"""The namespace of the CPIM headers (6.1)."""
_XML: Final = "urn:ietf:params:xml:ns:imdn"

DELIVERED, DISPLAYED, PROCESSED, STORED = "delivered", "displayed", "processed", "stored"
FAILED, FORBIDDEN, ERROR = "failed", "forbidden", "error"
_KINDS: Final = {
    "delivery": (DELIVERED, FAILED, FORBIDDEN, ERROR),
    "display": (DISPLAYED, FORBIDDEN, ERROR),
    "processing": (PROCESSED, STORED, FORBIDDEN, ERROR),
}


class Asked(NamedTuple):
    """What the sender of a message wants to hear of it."""

    message_id: str
    positive: bool
    """That it was delivered."""
    negative: bool
    """That it was not."""
    displayed: bool
    """That it was shown to a person."""


def asked(message: Cpim) -> Asked | None:
    """What the sender of ``message`` wants to hear; None where it gives the message no name."""
    id = message.header("Message-ID", NAMESPACE)
    if not id:
        return None
    wanted = message.header("Disposition-Notification", NAMESPACE) or ""
    words = {word.strip().partition(";")[0] for word in wanted.split(",")}
    return Asked(id, "positive-delivery" in words, "negative-delivery" in words, "display" in words)


class Notification(NamedTuple):
    """What became of the message ``message_id``: ``kind`` "delivery", "display" or "processing", and one of its states."""

    message_id: str
    kind: str
    status: str
    recipient: str = ""
    """The URI that it was sent to, as the sender wrote it."""
    when: datetime | None = None
    """When the message was sent (7.2.1.2: the DateTime of the message, which senders compare)."""

    @classmethod
    def parse(cls, data: bytes) -> Notification:
        """Read the document; ``MalformedMessage`` if it is none."""
        root = parse_tree(data)
        if local_name(root) != "imdn":
            raise MalformedMessage("Bad IMDN")
        values = {local_name(child): (child.text or "").strip() for child in root}
        for child in root:
            kind = local_name(child).removesuffix("-notification")
            if kind not in _KINDS or kind == local_name(child):
                continue
            for status in child:
                for state in status:
                    if local_name(state) in _KINDS[kind] and values.get("message-id"):
                        recipient = values.get("recipient-uri", "")
                        return cls(values["message-id"], kind, local_name(state), recipient, _time(values.get("datetime", "")))
        raise MalformedMessage("Bad IMDN")

    def write(self) -> bytes:
        """The document."""
        root = Element(f"{{{_XML}}}imdn")
        values = [("message-id", self.message_id)]
        if self.when is not None:
            values.append(("datetime", self.when.isoformat()))
        if self.recipient:
            values += [("recipient-uri", self.recipient), ("original-recipient-uri", self.recipient)]
        for name, value in values:
            SubElement(root, f"{{{_XML}}}{name}").text = clean(value)
        status = SubElement(SubElement(root, f"{{{_XML}}}{self.kind}-notification"), f"{{{_XML}}}status")
        SubElement(status, f"{{{_XML}}}{self.status}")
        return write_tree(root, imdn=_XML)

    def wrap(self, sender: str, receiver: str, id: str) -> Cpim:
        """It as a message from ``sender`` to ``receiver`` (URIs), named ``id``."""
        headers: Sequence[tuple[str, str]] = (
            ("From", f"<{sender}>"),
            ("To", f"<{receiver}>"),
            ("NS", f"imdn <{NAMESPACE}>"),
            ("imdn.Message-ID", id),
        )
        body = self.write()
        mime = (("Content-Type", IMDN), ("Content-Disposition", "notification"), ("Content-Length", str(len(body))))
        return Cpim(headers, mime, body)


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
