"""Requests that go out otherwise than they came, or another time. Pure."""

from __future__ import annotations

from sipgw.b2bua.port import Content
from sipgw.sip.edits import NO_EDITS, EditList, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Message, Request, parse


def as_update(request: Request) -> Request:
    """A PRACK with an offer, to a response that is acknowledged already, as the UPDATE that it becomes (RFC 3311)."""
    _, _, rest = request.lines[0].partition(" ")
    place = request.positions("cseq")[0]
    return rewritten(request, NO_EDITS.first_line(f"UPDATE {rest}").replace(place, f"CSeq: {request.cseq.number} UPDATE"))


def contact_params(message: Message, names: frozenset[str]) -> str | None:
    """The parameters of the first Contact with these names, each with its semicolon; None if there is no Contact."""
    try:
        contacts = message.contacts
    except MalformedMessage:
        return None
    if not contacts or contacts[0].star:
        return None
    params = contacts[0].params
    return "".join(
        f";{name}" if value is None else f";{name}={value}" for name, value in params.items() if name.lower() in names
    )


def rewritten(request: Request, edits: EditList) -> Request:
    """``request`` with ``edits``."""
    made = parse(write(request, edits))
    assert isinstance(made, Request)
    return made


def with_line(request: Request, line: str) -> Request:
    """``request`` with one more header line, and the next CSeq number."""
    edits = NO_EDITS.replace(request.positions("cseq")[0], f"CSeq: {request.cseq.number + 1} {request.method}").append(line)
    made = parse(write(request, edits))
    assert isinstance(made, Request)
    return made


def with_content(request: Request, content: Content) -> Request:
    """``request`` with more header lines, and another body."""
    edits = NO_EDITS
    for place in request.positions("content-type"):
        edits = edits.delete(place)
    lines = [line for line in content.headers.split("\r\n") if line]
    if content.body and content.content_type:
        lines.append(f"Content-Type: {content.content_type}")
    for line in lines:
        edits = edits.append(line)
    made = parse(write(request, edits.body(content.body)))
    assert isinstance(made, Request)
    return made
