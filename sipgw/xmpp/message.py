"""A SIP MESSAGE as a message stanza, and back (RFC 7572). Pure.

Receipts need no memory: a phone that wants a notification (RFC 5438) gives its message a name, which becomes part of the
stanza's ``id``; the receipt of a Jabber client (XEP-0184) repeats that ``id``. The other way round the stanza's ``id`` is the
Message-ID that the phone is asked to notify of."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Final, NamedTuple

from sipgw.sip.body import MediaType, Multipart
from sipgw.sip.composing import COMPOSING, Composing
from sipgw.sip.cpim import CPIM, Cpim
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import unquote
from sipgw.sip.imdn import DELIVERED, DISPLAYED, FAILED, IMDN, NAMESPACE, Asked, Notification, asked
from sipgw.sip.message import Request
from sipgw.sip.texts import decode, plain
from sipgw.sip.trees import clean, parse_tree
from sipgw.xmpp.address import Jid
from sipgw.xmpp.html import to_html, to_xhtml
from sipgw.xmpp.stanza import COMPONENT, STANZAS, Element, SubElement, child, local_name, stanza, text_of

__all__ = [
    "ACCEPT", "LONGEST", "Page", "failure_note", "is_carbon", "receipt", "to_sip", "to_stanza", "wants_receipt",
]

RECEIPTS: Final = "urn:xmpp:receipts"
MARKERS: Final = "urn:xmpp:chat-markers:0"
STATES: Final = "http://jabber.org/protocol/chatstates"
DELAY: Final = "urn:xmpp:delay"
HINTS: Final = "urn:xmpp:hints"
CARBONS: Final = "urn:xmpp:carbons:2"
ORIGIN: Final = "urn:xmpp:sid:0"
OOB: Final = "jabber:x:oob"
_LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"
EXTERNAL: Final = "message/external-body"
FILE: Final = "application/vnd.gsma.rcs-ft-http+xml"
ACCEPT: Final = f"text/plain, text/html, {CPIM}, multipart/alternative, {IMDN}, {COMPOSING}, {EXTERNAL}, {FILE}"
"""The Accept header of a 415."""
LONGEST: Final = 32_000
"""Characters of a text."""
LATE: Final = 60.0
"""Seconds by which a message must be late to be stamped (XEP-0203)."""
_DEPTH: Final = 4
_WORD: Final = re.compile(r"[A-Za-z0-9\-.!%*_+`'~()<>:\"/\[\]?{}]+(?:@[A-Za-z0-9\-.!%*_+`'~()<>:\"/\[\]?{}]+)?")
_TAG: Final = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
_URL: Final = re.compile(r"https?://[^\s\"<>]{1,2000}", re.IGNORECASE)


class _Said(NamedTuple):
    """What a body says: a text, or one of the rest."""

    text: str = ""
    html: str = ""
    url: str = ""
    subject: str = ""
    asked: Asked | None = None
    when: str = ""
    composing: Composing | None = None
    notification: Notification | None = None


# ---- from SIP ----


def to_stanza(request: Request, sender: Jid, receiver: Jid, now: float = 0.0) -> Element | None:
    """The stanza that says what a MESSAGE does; None for what Jabber has no word for. ``SipError``: 415 for what is no text, 413
    for too much of it, 400 for what cannot be read. ``now``: seconds from 1970, to tell what comes late."""
    try:
        kind = MediaType.parse(request.header("content-type") or "text/plain")
        said = _read(kind, request.body, _DEPTH)
    except MalformedMessage as error:
        raise SipError(error.reason, 400) from None
    if said.notification is not None:
        return _of_notification(said.notification, sender, receiver)
    id = _stanza_id(request, said.asked)
    made = stanza("message", sender, receiver, id=id, type="chat")
    if said.composing is not None:
        SubElement(made, f"{{{STATES}}}{'composing' if said.composing.active else 'paused'}")
        SubElement(made, f"{{{HINTS}}}no-store")
        return made
    language = (request.header("content-language") or "").partition(",")[0].strip()
    if _TAG.fullmatch(language):
        made.set(_LANG, language)
    subject = said.subject or request.header("subject") or ""
    if subject:
        SubElement(made, f"{{{COMPONENT}}}subject").text = clean(subject)[:1000]
    SubElement(made, f"{{{COMPONENT}}}body").text = clean(said.text)
    SubElement(made, f"{{{COMPONENT}}}thread").text = clean(request.call_id)
    if said.html:
        made.append(to_xhtml(said.html))
    if said.url:
        SubElement(SubElement(made, f"{{{OOB}}}x"), f"{{{OOB}}}url").text = clean(said.url)
    SubElement(made, f"{{{STATES}}}active")
    SubElement(made, f"{{{ORIGIN}}}origin-id", {"id": id})
    if said.asked is not None and said.asked.positive:
        SubElement(made, f"{{{RECEIPTS}}}request")
    if said.asked is not None and said.asked.displayed:
        SubElement(made, f"{{{MARKERS}}}markable")
    sent = _when(said.when) or _when(request.header("date") or "")
    if sent is not None and now - sent.timestamp() > LATE:
        stamp_delay(made, sent, sender.domain)
    return made


def stamp_delay(made: Element, sent: datetime, who: str) -> None:
    """Say when a message was sent, unless it says so (XEP-0203)."""
    if child(made, "delay", DELAY) is None:
        SubElement(made, f"{{{DELAY}}}delay", {"from": who, "stamp": sent.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")})


def _when(text: str) -> datetime | None:
    """A time, as CPIM or as the header Date writes it."""
    try:
        found = datetime.fromisoformat(text) if "T" in text[:12] and text[:1].isdigit() else parsedate_to_datetime(text)
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _read(kind: MediaType, body: bytes, depth: int) -> _Said:
    name = kind.name
    if depth == 0:
        raise SipError("Unsupported Media Type", 415)
    if name == CPIM:
        cpim = Cpim.parse(body)
        said = _read(cpim.content_type, cpim.body, depth - 1)
        return said._replace(
            subject=said.subject or cpim.subject or "", asked=asked(cpim) or said.asked, when=cpim.header("DateTime") or said.when
        )
    if name == COMPOSING:
        return _Said(composing=Composing.parse(body))
    if name == IMDN:
        return _Said(notification=Notification.parse(body))
    if kind.boundary is not None:
        return _of_parts(kind, body, depth)
    if name == EXTERNAL:
        return _of_url(unquote(kind.params.get("url") or ""))
    if name == FILE:
        return _of_file(body)
    if name not in ("text/plain", "text/html"):
        raise SipError("Unsupported Media Type", 415)
    text = decode(body, unquote(kind.params.get("charset") or "utf-8"))
    if len(text) > LONGEST:
        raise SipError("Request Entity Too Large", 413)
    if name == "text/html":
        return _Said(text=plain(text), html=text)
    return _Said(text=text)


def _of_parts(kind: MediaType, body: bytes, depth: int) -> _Said:
    """What can be read of several parts: the first that says something, and its HTML if another has that."""
    found: _Said | None = None
    for part in Multipart.parse(body, kind.boundary or "").parts:
        try:
            said = _read(part.media_type, part.body, depth - 1)
        except SipError:
            continue
        if found is None or (found.text and found.html and not said.html and said.text):
            found = said if found is None else said._replace(html=found.html)
        elif said.html and not found.html:
            found = found._replace(html=said.html)
    if found is None:
        raise SipError("Unsupported Media Type", 415)
    return found


def _of_url(url: str) -> _Said:
    if not _URL.fullmatch(url):
        raise SipError("Unsupported Media Type", 415)
    return _Said(text=url, url=url)


def _of_file(body: bytes) -> _Said:
    """A file that waits somewhere, as RCS announces it."""
    for info in parse_tree(body).iter():
        if local_name(info) == "file-info" and info.get("type") == "file":
            for data in info.iter():
                if local_name(data) == "data":
                    return _of_url(data.get("url", ""))
    raise SipError("Unsupported Media Type", 415)


def _stanza_id(request: Request, wanted: Asked | None) -> str:
    if wanted is not None and (wanted.positive or wanted.negative or wanted.displayed) and len(wanted.message_id) <= 200:
        flags = "".join(flag for flag, on in zip("pnd", wanted[1:], strict=True) if on)
        text = f"{flags} {wanted.message_id}".encode("utf-8", "replace")
        return f"imdn-{urlsafe_b64encode(text).decode().rstrip('=')}"
    text = f"{request.call_id} {request.cseq.number} {request.from_tag}".encode("utf-8", "replace")
    return f"sip-{hashlib.sha256(text).hexdigest()[:24]}"


def _asked_by(id: str) -> Asked | None:
    """What the sender wanted who is behind a stanza's ``id``; None if it is not of that kind."""
    if not id.startswith("imdn-") or len(id) > 400:
        return None
    try:
        text = id[5:]
        flags, _, name = urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(" ")
    except ValueError:
        return None
    if not name or set(flags) - set("pnd") or not name.isprintable():
        return None
    return Asked(name, "p" in flags, "n" in flags, "d" in flags)


def _of_notification(note: Notification, sender: Jid, receiver: Jid) -> Element | None:
    """What a phone says of a message that came from Jabber, under the name that this had there."""
    if note.status in (DELIVERED, DISPLAYED):
        made = stanza("message", sender, receiver, id=f"{note.status}-{note.message_id}"[:200], type="chat")
        space, name = (RECEIPTS, "received") if note.status == DELIVERED else (MARKERS, "displayed")
        SubElement(made, f"{{{space}}}{name}", {"id": clean(note.message_id)})
        SubElement(made, f"{{{HINTS}}}store")
        return made
    if note.kind == "delivery" and note.status == FAILED:
        made = stanza("message", sender, receiver, id=note.message_id, type="error")
        error = SubElement(made, f"{{{COMPONENT}}}error", {"type": "wait"})
        SubElement(error, f"{{{STANZAS}}}recipient-unavailable")
        return made
    return None


# ---- to SIP ----


class Page(NamedTuple):
    """A MESSAGE to be. ``headers``: whole lines; ``quiet``: nobody is told if it does not arrive."""

    headers: str
    kind: str
    body: bytes
    call_id: str = ""
    quiet: bool = False


def is_carbon(element: Element) -> bool:
    """Whether a stanza is a copy of what was said to somebody else (XEP-0280)."""
    return any(each.tag.startswith(f"{{{CARBONS}}}") and local_name(each) in ("sent", "received") for each in element)


def wants_receipt(element: Element) -> bool:
    """Whether its sender wants to hear that it was received (XEP-0184 5.1); group chats and errors ask in vain."""
    return (
        child(element, "request", RECEIPTS) is not None and bool(element.get("id"))
        and element.get("type", "normal") in ("normal", "chat", "headline")
    )


def receipt(element: Element) -> Element:
    """The receipt of a message."""
    id = element.get("id", "")
    kind = element.get("type", "")
    made = stanza("message", element.get("to", ""), element.get("from", ""), id=f"received-{id}"[:200], type=kind)
    SubElement(made, f"{{{RECEIPTS}}}received", {"id": id})
    SubElement(made, f"{{{HINTS}}}store")
    return made


def to_sip(
    element: Element, sender: str, receiver: str, *, imdn: bool = False, composing: bool = True, html: bool = False
) -> Page | None:
    """What a message stanza says, to ``receiver`` from ``sender`` (URIs); None for nothing. ``imdn``: ask the phone for a
    notification where a receipt is wanted. ``composing``: say who is writing. ``html``: say what is marked up as HTML, too.
    ``SipError`` 413 for a text that is too long."""
    note = _notification(element)
    if note is not None:
        cpim = note.wrap(sender, receiver, f"{note.status}-{note.message_id}"[:200])
        return Page("", CPIM, cpim.write(), quiet=True)
    text = _text(element)
    if text is None:
        return _state(element) if composing else None
    if len(text) > LONGEST:
        raise SipError("Request Entity Too Large", 413)
    headers, subject = "", _line(text_of(element, "subject") or "")
    body = child(element, "body")
    language = (None if body is None else body.get(_LANG)) or element.get(_LANG) or ""
    if _TAG.fullmatch(language):
        headers += f"Content-Language: {language}\r\n"
    sent = _sent(element)
    if sent is not None:
        headers += f"Date: {format_datetime(sent.astimezone(UTC), usegmt=True)}\r\n"
    kind, data = "text/plain;charset=utf-8", text.replace("\n", "\r\n").encode("utf-8", "replace")
    shown = to_html(element) if html else ""
    if shown and len(shown) <= LONGEST:
        kind, data = _alternatives(kind, data, shown)
    id = element.get("id", "")
    markable = child(element, "markable", MARKERS) is not None
    if imdn and id and len(id) <= 200 and (wants_receipt(element) or markable):
        wanted = [word for word, on in (("positive-delivery", wants_receipt(element)), ("display", markable)) if on]
        lines = [("From", f"<{sender}>"), ("To", f"<{receiver}>")]
        if sent is not None:
            lines.append(("DateTime", sent.isoformat()))
        if subject:
            lines.append(("Subject", subject))
        lines += [("NS", f"imdn <{NAMESPACE}>"), ("imdn.Message-ID", id), ("imdn.Disposition-Notification", ", ".join(wanted))]
        kind, data = CPIM, Cpim(lines, (("Content-Type", kind), ("Content-Length", str(len(data)))), data).write()
    if subject:
        headers += f"Subject: {subject}\r\n"
    return Page(headers, kind, data, _call_id(text_of(element, "thread") or ""))


def _alternatives(kind: str, data: bytes, html: str) -> tuple[str, bytes]:
    """A text, and behind it the same as HTML, which who can read it takes (RFC 2046 5.1.4)."""
    page = html.encode("utf-8", "replace")
    boundary = f"alternative-{hashlib.sha256(data + page).hexdigest()[:24]}"
    parts = ((kind, data), ("text/html;charset=utf-8", page))
    said = b"".join(f"--{boundary}\r\nContent-Type: {name}\r\n\r\n".encode() + part + b"\r\n" for name, part in parts)
    return f"multipart/alternative;boundary={boundary}", said + f"--{boundary}--\r\n".encode()


def _text(element: Element) -> str | None:
    """The text of a message, with the links to files that it announces (XEP-0066)."""
    text = text_of(element, "body")
    for link in element.findall(f"{{{OOB}}}x"):
        url = (text_of(link, "url", OOB) or "").strip()
        if url and url not in (text or ""):
            what = (text_of(link, "desc", OOB) or "").strip()
            text = "\n".join(filter(None, (text, f"{what}: {url}" if what else url)))
    return text or None


def _state(element: Element) -> Page | None:
    """Whether somebody is writing (XEP-0085)."""
    for each in element:
        if each.tag.startswith(f"{{{STATES}}}"):
            active = local_name(each) == "composing"
            return Page("", COMPOSING, Composing(active, content_type="text/plain" if active else "").write(), quiet=True)
    return None


def _notification(element: Element) -> Notification | None:
    """The notification that a receipt or a marker becomes, if whoever hears it asked for one."""
    for space, name, kind, status in (
        (RECEIPTS, "received", "delivery", DELIVERED), (MARKERS, "received", "delivery", DELIVERED),
        (MARKERS, "displayed", "display", DISPLAYED),
    ):
        found = child(element, name, space)
        if found is not None:
            wanted = _asked_by(found.get("id", ""))
            if wanted is not None and (wanted.displayed if kind == "display" else wanted.positive):
                return Notification(wanted.message_id, kind, status)
    return None


def failure_note(element: Element, sender: str, receiver: str) -> Page | None:
    """What an error stanza tells the phone that asked to hear of failures; None if it did not."""
    wanted = _asked_by(element.get("id", ""))
    if wanted is None or not wanted.negative:
        return None
    note = Notification(wanted.message_id, "delivery", FAILED)
    return Page("", CPIM, note.wrap(sender, receiver, f"failed-{wanted.message_id}"[:200]).write(), quiet=True)


def _sent(element: Element) -> datetime | None:
    """When a message was sent that comes late."""
    found = child(element, "delay", DELAY)
    return None if found is None else _when(found.get("stamp", ""))


def _line(text: str) -> str:
    """A text as one line of a header."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text).strip()[:500]


def _call_id(thread: str) -> str:
    """The Call-ID for a thread (RFC 7572 5): the same, or what stands for one that cannot be a Call-ID."""
    if not thread or (len(thread) <= 128 and _WORD.fullmatch(thread)):
        return thread
    return f"thread-{hashlib.sha256(thread.encode('utf-8', 'replace')).hexdigest()[:32]}"
