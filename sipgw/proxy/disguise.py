"""From and To that the callee sees otherwise than the caller wrote them, and a CSeq that is further on (module uac).

Who a dialog is between is told by its tags, but old phones compare the URIs of From and To as well (RFC 2543), so whoever changes
them in the first request changes them in all that follows: in requests of the caller as in the first one, in those of the callee
back, in every response to what its request had. The same holds for a CSeq that a second, authenticated try of the first request
has moved on. What must be known for that travels in our Record-Route: both URIs, sealed, and by how much the CSeq is ahead.

Only the URIs of later requests are changed, display names are left as the phones write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from sipgw.proxy.record_route import RouteParam
from sipgw.proxy.sealed import Seal
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint, quote
from sipgw.sip.message import Message, Request, Response
from sipgw.sip.uri import Uri

SHIFT: Final = "aci"
"""The parameter of our Record-Route that says by how much the CSeq is ahead; OpenSIPS calls it so too."""
MAX_SHIFT: Final = 1000
NAMES: Final = {"from": "From", "to": "To"}


class Uris(NamedTuple):
    """What a party is called before us and behind us."""

    before: str
    behind: str


@dataclass(frozen=True, slots=True)
class Disguised:
    """A note: the header of that name ("from", "to") has another value now."""

    name: str


@dataclass(frozen=True, slots=True)
class Shifted:
    """A note: the CSeq is so much further on."""

    by: int


class Disguise:
    """What hides and finds again the URIs, with ``password`` or for everybody to read if that is empty."""

    def __init__(self, password: str) -> None:
        self._seal = Seal(password.encode("utf-8", "surrogateescape") or b"sipgw", b"uac uris")

    def close(self, uris: Uris) -> str:
        """The text for a parameter of our Record-Route."""
        return self._seal.close("\n".join(uris).encode("utf-8", "surrogateescape"))

    def open(self, text: str) -> Uris | None:
        """What is hidden in that text; None if nothing of ours is, or no URI that a header can have."""
        octets = self._seal.open(text)
        if octets is None:
            return None
        before, line, behind = octets.decode("utf-8", "surrogateescape").partition("\n")
        return Uris(before, behind) if line and is_uri(before) and is_uri(behind) else None


def is_uri(text: str) -> bool:
    """Whether a name-addr may have ``text`` between its brackets."""
    try:
        Uri.parse(text)
    except MalformedMessage:
        return False
    return not any(char in text for char in "<>\r\n\0 \t")


def displayed(text: str) -> str:
    """A display name as it is written: quoted, unless it is so already; "" for none."""
    if not text or (len(text) > 1 and text[0] == text[-1] == '"' and _closed(text[1:-1])):
        return text
    return quote(text)


def _closed(inner: str) -> bool:
    """Whether quotation marks and backslashes inside a quoted string are escaped."""
    return '"' not in inner.replace("\\\\", "").replace('\\"', "") and not inner.replace("\\\\", "").endswith("\\")


def address_of(message: Message, name: str) -> NameAddr:
    """From or To; ``MalformedMessage``."""
    return message.from_ if name == "from" else message.to


def put(run: Run, name: str, display: str, uri: str) -> None:
    """Give From or To another display name and URI; parameters, the tag among them, stay."""
    address = address_of(run.message, name)
    changed = NameAddr(display, uri, address.params_text)
    line = run.message.positions(name)[0]
    run.edits = run.edits.replace(line, f"{NAMES[name]}: {changed}").note(Disguised(name))


def put_uri(run: Run, name: str, uri: str) -> None:
    """Give From or To another URI; the display name stays, the one of an earlier ``put`` too."""
    address = address_of(run.message, name)
    if address.uri_text != uri:
        put(run, name, address.display, uri)


def shift(run: Run, by: int) -> int:
    """Move the CSeq on by ``by``, together with what it was moved before; gives by how much in all."""
    request = run.message
    total = by + sum(note.by for note in run.edits.notes(Shifted))
    line = request.positions("cseq")[0]
    changed = f"CSeq: {request.cseq.number + total} {request.method}"
    run.edits = run.edits.replace(line, changed).note(Shifted(by))
    return total


def shift_in(params: str | None) -> int:
    """By how much the parameters of our Route say that the CSeq is ahead."""
    total = 0
    for part in (params or "").split(";"):
        name, _, value = part.partition("=")
        if name.lower() == SHIFT:
            try:
                total += parse_uint(value, MAX_SHIFT)
            except MalformedMessage:
                return 0
    return total


def remember_shift(run: Run, by: int) -> None:
    """Let our Record-Route say that the CSeq is ahead by ``by`` more."""
    run.edits = run.edits.note(RouteParam(f";{SHIFT}={by}"))


def undisguised(request: Request, response: Response, edits: EditList) -> EditList:
    """Give From, To and CSeq of a response the values that its request had when it came, but for the tag that To has got."""
    edits = edits.replace(response.positions("from")[0], request.lines[request.positions("from")[0]])
    edits = edits.replace(response.positions("cseq")[0], request.lines[request.positions("cseq")[0]])
    to = request.lines[request.positions("to")[0]]
    tag = response.to_tag
    if tag and request.to_tag is None:
        to = f"To: {request.to}" if "<" in to else f"To: <{request.to.uri_text}>{request.to.params_text}"
        to += f";tag={tag}"
    return edits.replace(response.positions("to")[0], to)
