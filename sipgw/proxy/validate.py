"""What ``sipmsg_validate`` finds wrong with a message: a code and a text, in OpenSIPS's numbers.

Most of what RFC 3261 demands is checked before any script sees a message (``Message.check``); here is what a script may ask for
beyond it. Each check is one small function; ``CHECKS`` names those behind a letter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from sipgw.script.run import Run
from sipgw.sip.body import MediaType, parts_of
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Message, Request, Response
from sipgw.sip.sdp import SessionDescription
from sipgw.sip.uri import Uri

Fault = tuple[int, str]
GOOD: Fault = (1, "")

FLAGS = "shmrftc"

_label = r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?"
_domain = re.compile(rf"{_label}(?:\.{_label})*\.?|\[[0-9A-Fa-f:.]+\]").fullmatch
_user = re.compile(r"(?:[A-Za-z0-9\-_.!~*'()&=+$,;?/]|%[0-9A-Fa-f]{2})*").fullmatch

REQUIRED = {
    405: ("allow", -16, "Allow"),
    423: ("min-expires", -17, "Min-Expires"),
    407: ("proxy-authenticate", -18, "Proxy-Authenticate"),
    420: ("unsupported", -19, "Unsupported"),
    401: ("www-authenticate", -20, "WWW-Authenticate"),
}
"""The header that a reply of this status must have (RFC 3261 21.4), its code and its name."""

NEEDED = (
    ("call-id", -3, "message doesn't have callid"),
    ("cseq", -7, "message doesn't have a CSeq header"),
    ("from", -8, "message doesn't have a From header"),
    ("to", -9, "message doesn't have a To header"),
    ("via", -10, "message doesn't have a Via header"),
)


def check_flags(flags: str) -> None:
    """Refuse letters that stand for nothing."""
    for flag in flags:
        if flag not in FLAGS:
            raise ValueError(f"unknown flag {flag!r}: write some of {FLAGS}")


def validate(run: Run, flags: str) -> Fault:
    """The first fault of ``run``'s message, or ``GOOD``."""
    for fault in _faults(run, run.message, flags):
        return fault
    return GOOD


def _faults(run: Run, message: Message, flags: str) -> Iterator[Fault]:
    for name, code, text in NEEDED:
        if name not in message.names:
            yield code, text
    yield from _body(run, message)
    if "s" in flags:
        yield from _descriptions(message)
    if "h" in flags:
        yield from _headers(message)
    if isinstance(message, Request):
        yield from _request(run, message, flags)
    elif isinstance(message, Response) and message.status in REQUIRED:
        name, code, text = REQUIRED[message.status]
        if name not in message.names:
            yield code, f"no {text} header in a {message.status} reply"
    for flag, check in CHECKS.items():
        if flag in flags:
            yield from check(message)


def _body(run: Run, message: Message) -> Iterator[Fault]:
    length = message.content_length
    if length is None and run.flow is not None and run.flow.reliable:
        yield -4, "no Content-Length header, which this transport needs"
    if length is not None and length != len(message.body):
        yield -5, f"invalid body - content length {length} different than actual body {len(message.body)}"
    if message.body and "content-type" not in message.names:
        yield -21, "no Content-Type header for the body"


def _descriptions(message: Message) -> Iterator[Fault]:
    try:
        parts = [part for part in parts_of(message) if part.media_type.matches("application/sdp")]
    except MalformedMessage:
        yield -6, "failed to parse SDP message"
        return
    for part in parts:
        description = SessionDescription.parse(part.body)
        first = next(iter(description.lines()), "")
        whole = first.startswith("v=") and description.session.value("o") is not None
        if not whole or any(not stream.protocol or stream.address is None for stream in description.streams):
            yield -6, "failed to parse SDP message"


def _request(run: Run, message: Request, flags: str) -> Iterator[Fault]:
    try:
        uri = run.request_uri
    except MalformedMessage:
        yield -11, "failed to parse R-URI"
        return
    if "r" in flags:
        yield from _uri(uri, (-12, "invalid domain for R-URI"), (-27, "invalid username for R-URI"))
    if "m" not in flags and "max-forwards" not in message.names:
        yield -13, "request doesn't have a Max-Forwards header"
    if "path" in message.names and message.method != "REGISTER":
        yield -15, "PATH header supported only for REGISTERs"


def _uri(uri: Uri, bad_domain: Fault, bad_user: Fault) -> Iterator[Fault]:
    if not _domain(uri.host):
        yield bad_domain
    if uri.user is not None and not _user(uri.user):
        yield bad_user


def _from(message: Message) -> Iterator[Fault]:
    try:
        uri = message.from_.uri
    except MalformedMessage:
        yield -24, "failed to parse 'From' header"
        return
    yield from _uri(uri, (-25, "invalid domain for 'From' header"), (-28, "invalid username for 'From' header"))


def _to(message: Message) -> Iterator[Fault]:
    try:
        uri = message.to.uri
    except MalformedMessage:
        yield -22, "failed to parse 'To' header"
        return
    yield from _uri(uri, (-23, "invalid domain for 'To' header"), (-29, "invalid username for 'To' header"))


def _contact(message: Message) -> Iterator[Fault]:
    try:
        contacts = message.contacts
        if not any(contact.star for contact in contacts):
            for contact in contacts:
                contact.uri  # noqa: B018 - reading is the check
    except MalformedMessage:
        yield -26, "failed to parse 'Contact' header"
        return
    if not contacts:
        yield -14, "SIP message doesn't have 'Contact' header"
    elif contacts[0].star:
        if not isinstance(message, Request) or message.method != "REGISTER":
            yield -30, "'Contact' header for SIP message contains '*' only valid for REGISTER request"
        elif message.expires != 0:
            yield -30, "'Contact' header contains '*', but 'Expires' is not 0"


CHECKS: dict[str, Callable[[Message], Iterator[Fault]]] = {"f": _from, "t": _to, "c": _contact}
"""The checks behind a flag that look at one header."""

_TOKENS = ("allow", "supported", "require", "proxy-require", "unsupported", "content-encoding", "allow-events")
_NUMBERS = ("min-expires", "rseq", "min-se")


def _headers(message: Message) -> Iterator[Fault]:
    """Read every header that sipgw knows how to read."""
    try:
        message.vias, message.contacts, message.routes, message.record_routes  # noqa: B018 - reading is the check
        message.cseq, message.max_forwards, message.expires, message.content_length  # noqa: B018
        message.from_.uri, message.to.uri  # noqa: B018
        for contact in message.contacts:
            contact.star or contact.uri  # noqa: B018
        if "route" in message.names and any("<" not in value for value in message.values("route")):
            raise MalformedMessage("Bad Route")
        if message.content_type is not None:
            MediaType.parse(message.content_type)
        for name in _TOKENS:
            if not all(is_token(value) for value in message.values(name)):
                raise MalformedMessage(f"Bad {name}")
        for name in _NUMBERS:
            if not all(re.fullmatch(r"[0-9]+[ \t]*(?:;.*)?", value) for value in message.headers(name)):
                raise MalformedMessage(f"Bad {name}")
    except MalformedMessage:
        yield -2, "failed to parse headers"
