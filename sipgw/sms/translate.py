"""A SIP MESSAGE as the text of a short message, and back (RFC 3428, 3862, 5438, 3994; 3GPP TS 24.341 for RP-DATA). Pure.

What phones send besides texts is known here: that somebody is writing is nothing a mobile can show, and a notification of a
message that came from there has nobody waiting for it, so both are taken and dropped; pictures and the like are refused, with
the types that are understood."""

from __future__ import annotations

from datetime import datetime
from typing import Final, NamedTuple

from sipgw.sip.body import MediaType, Multipart
from sipgw.sip.composing import COMPOSING
from sipgw.sip.cpim import CPIM, Cpim
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import unquote
from sipgw.sip.imdn import DELIVERED, FAILED, IMDN, Asked, Notification, asked
from sipgw.sip.message import Request
from sipgw.sip.texts import decode, plain
from sipgw.sms.receipts import Receipt

__all__ = ["ACCEPT", "NOTHING", "RP_DATA", "Text", "content", "notification", "read_text"]

RP_DATA: Final = "application/vnd.3gpp.sms"
ACCEPT: Final = f"text/plain, text/html, {CPIM}, multipart/alternative, {IMDN}, {COMPOSING}, {RP_DATA}"
"""The Accept header of a 415 (RFC 3261 21.4.13)."""
LONGEST: Final = 39_000
"""Characters of a text: 255 parts of 153."""
_DEPTH: Final = 3


class Text(NamedTuple):
    """What a MESSAGE says. ``text`` None: nothing that a mobile could show, and nothing to complain of. ``rp``: the octets of an
    RP-DATA instead of a text."""

    text: str | None
    asked: Asked | None = None
    rp: bytes = b""


NOTHING: Final = Text(None)


def read_text(request: Request) -> Text:
    """The text of a MESSAGE; ``SipError`` with 415 for what is no text, 400 for what cannot be read."""
    try:
        kind = MediaType.parse(request.header("content-type") or "text/plain")
        return _read(kind, request.body, None, _DEPTH)
    except MalformedMessage as error:
        raise SipError(error.reason, 400) from None


def _read(kind: MediaType, body: bytes, wanted: Asked | None, depth: int) -> Text:
    name = kind.name
    if depth == 0:
        raise SipError("Unsupported Media Type", 415)
    if name == CPIM:
        cpim = Cpim.parse(body)
        return _read(cpim.content_type, cpim.body, asked(cpim) or wanted, depth - 1)
    if name in (COMPOSING, IMDN):
        return NOTHING
    if name == RP_DATA:
        return Text(None, wanted, body)
    if kind.boundary is not None:
        return _of_parts(kind, body, wanted, depth)
    if name not in ("text/plain", "text/html"):
        raise SipError("Unsupported Media Type", 415)
    text = decode(body, unquote(kind.params.get("charset") or "utf-8"))
    if name == "text/html":
        text = plain(text)
    if len(text) > LONGEST:
        raise SipError("Message Too Large", 513)
    return Text(text, wanted)


def _of_parts(kind: MediaType, body: bytes, wanted: Asked | None, depth: int) -> Text:
    """The plainest part that can be read (RFC 2046 5.1.4 puts it first)."""
    for part in Multipart.parse(body, kind.boundary or "").parts:
        try:
            return _read(part.media_type, part.body, wanted, depth - 1)
        except SipError:
            continue
    raise SipError("Unsupported Media Type", 415)


def content(text: str) -> tuple[str, bytes]:
    """The Content-Type and the body of a MESSAGE that says ``text``."""
    return "text/plain;charset=utf-8", text.replace("\n", "\r\n").encode("utf-8", "replace")


def notification(receipt: Receipt, wanted: Asked, recipient: str, sent: datetime | None) -> Notification | None:
    """What to tell the sender of a message of which ``receipt`` has come; None for a state that it did not ask for, or that is
    not the last."""
    if receipt.state == "DELIVRD":
        return Notification(wanted.message_id, "delivery", DELIVERED, recipient, sent) if wanted.positive else None
    if not receipt.is_final:
        return None
    return Notification(wanted.message_id, "delivery", FAILED, recipient, sent) if wanted.negative else None
