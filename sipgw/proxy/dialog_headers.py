"""What dialogs take from the headers of messages, and put there (``following.py``)."""

from __future__ import annotations

from sipgw.proxy.record_route import is_own
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.dialog import routes_of
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Message, Request, Response

__all__ = ["callee_routes", "contact_of", "number_back", "plain", "with_cseq"]


def plain(address: NameAddr) -> str:
    """A name-addr without its parameters."""
    space = " " if address.display else ""
    return f"{address.display}{space}<{address.uri_text}>"


def contact_of(message: Message) -> str:
    """The URI of the first Contact, or "" if there is none that can be read: neither is a reason to lose the message."""
    try:
        contacts = message.contacts
    except MalformedMessage:
        return ""
    return contacts[0].uri_text if contacts and not contacts[0].star else ""


def callee_routes(run: Run, response: Response, caller_side: int) -> list[str]:
    """The route set toward the callee (RFC 3261 12.1.2): what stands in Record-Route above our own values, from below.

    ``caller_side``: how many values the INVITE had when it came."""
    values = routes_of(response)
    if len(values) > caller_side:
        values = values[: len(values) - caller_side]
    ours = 0
    while ours < min(2, len(values)):
        try:
            if not is_own(run, values[-1 - ours].uri):
                break
        except MalformedMessage:
            break
        ours += 1
        if ours == 1 and values[-1].uri.param("r2") is None:
            break
    return [str(value) for value in values[: len(values) - ours]][::-1]


def with_cseq(message: Message, edits: EditList, number: int) -> EditList:
    """``edits`` and another CSeq number."""
    (line, *_) = message.positions("cseq")
    return edits.replace(line, f"CSeq: {number} {message.cseq.method}")


def number_back(request: Request, response: Response, edits: EditList) -> EditList:
    """Give ``response`` the CSeq number of its ``request`` as it came."""
    return with_cseq(response, edits, request.cseq.number)
