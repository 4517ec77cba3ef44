"""Reliable provisional responses (RFC 3262), as both sides see them: what a message says of them, and the counting. Pure.

Who sends one (section 3) repeats it until a PRACK names it; ``Said`` counts those of one INVITE, one at a time. Who hears one
(section 4) acknowledges it if it is the next; ``Heard`` knows that, for each dialog that the INVITE has begun."""

from __future__ import annotations

from typing import Final, NamedTuple

from sipgw.sip.address import parse_list
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Message, Request, Response

RELIABLE: Final = "100rel"
"""The option tag."""
FIRST: Final = (1 << 31) - 1
"""The greatest number to begin with."""
LARGEST: Final = (1 << 32) - 1
MAX_DIALOGS: Final = 32
"""Of how many phones that ring for one INVITE the numbers are kept."""


def tags(message: Message, name: str) -> list[str]:
    """The option tags of the header ``name``, in lower case."""
    return [tag.strip().lower() for value in message.headers(name) for tag in parse_list(value)]


def demands(message: Message) -> bool:
    """Whether it says ``Require: 100rel``: a request wants all provisional responses but 100 so, a response is one."""
    return RELIABLE in tags(message, "Require")


def speaks(message: Message) -> bool:
    """Whether its sender knows them."""
    return RELIABLE in tags(message, "Supported") or demands(message)


def number_of(response: Response) -> int | None:
    """The RSeq of a reliable provisional response to an INVITE; None if it is none."""
    if not 100 < response.status < 200 or response.method != "INVITE" or not demands(response):
        return None
    try:
        return parse_uint(response.header("RSeq") or "", LARGEST) or None
    except MalformedMessage:
        return None


class RAck(NamedTuple):
    """What a PRACK acknowledges: a response by its number, to the request with that CSeq."""

    number: int
    cseq: int
    method: str = "INVITE"

    @classmethod
    def of(cls, request: Request) -> RAck | None:
        """What ``request`` names; None if that cannot be read."""
        parts = (request.header("RAck") or "").split()
        if len(parts) != 3:
            return None
        try:
            return cls(parse_uint(parts[0], LARGEST), parse_uint(parts[1], LARGEST), parts[2])
        except MalformedMessage:
            return None

    def __str__(self) -> str:
        return f"{self.number} {self.cseq} {self.method}"


class Heard:
    """The last number that came in order, for each dialog of one INVITE, by its remote tag."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: dict[str, int] = {}

    def take(self, tag: str, number: int) -> bool:
        """Whether the response is to be acknowledged: it is the first of its dialog, or the next (section 4)."""
        last = self.last.get(tag)
        if last is not None and number != last + 1:
            return False
        if last is None and len(self.last) >= MAX_DIALOGS:
            return False
        self.last[tag] = number
        return True


class Said:
    """Counts the reliable provisional responses to one INVITE. ``current``: the one whose PRACK has not come yet."""

    __slots__ = ("cseq", "current", "last")

    def __init__(self, cseq: int, first: int) -> None:
        self.cseq = cseq
        self.last = first - 1
        self.current: int | None = None

    def next(self) -> int:
        """The number of the next one, which only goes out when none is ``current`` (section 3)."""
        self.last += 1
        self.current = self.last
        return self.last

    def take(self, rack: RAck) -> bool:
        """Whether a PRACK names the one that waits; then none waits any more."""
        if self.current is None or rack != (self.current, self.cseq, "INVITE"):
            return False
        self.current = None
        return True
