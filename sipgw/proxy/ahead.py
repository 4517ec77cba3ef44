"""By how much the CSeq numbers of requests within dialogs are ahead, where no module follows the dialogs (module uac).

A password that is asked for in the middle of a call makes a second request of one, so all that this side sends afterwards must
have numbers that are further on by one, and the ACK to a re-INVITE that of its INVITE. What the first request of a call was moved
on by stands in our Record-Route (``disguise.py``); what comes later can stand nowhere and is kept here, while the call lasts and
the server runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sipgw.sip.message import Message

LIFETIME: Final = 43200.0
"""Seconds without a request after which a side of a call is forgotten."""
AFTERLIFE: Final = 64.0
"""Seconds after its BYE."""
INVITES: Final = 32
"""How many INVITEs of one side are remembered, for their ACKs."""

Key = tuple[str, str, str]


class _Side:
    """One side of a call: by how much it is ahead, how much its INVITEs were, and until when that is kept."""

    __slots__ = ("by", "invites", "until")

    def __init__(self) -> None:
        self.by = 0
        self.invites: dict[int, int] = {}
        self.until = 0.0


class Ahead:
    """The sides of calls that are ahead; ``clock()`` is monotonic."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sides: dict[Key, _Side] = {}

    def __len__(self) -> int:
        return len(self._sides)

    def note(self, request: Message, by: int) -> None:
        """The request has been moved on by ``by``, and so is all that comes after it."""
        side = self._sides.setdefault(_key(request), _Side())
        side.by = by
        self._touch(side, request)

    def find(self, request: Message) -> int:
        """By how much a request is to be moved on."""
        side = self._sides.get(_key(request)) if self._sides else None
        if side is None:
            return 0
        if request.method == "ACK":
            return side.invites.get(request.cseq.number, side.by)
        self._touch(side, request)
        return side.by

    def _touch(self, side: _Side, request: Message) -> None:
        side.until = self._clock() + (AFTERLIFE if request.method == "BYE" else LIFETIME)
        if request.method == "INVITE":
            side.invites[request.cseq.number] = side.by
            while len(side.invites) > INVITES:
                del side.invites[next(iter(side.invites))]

    def over(self, request: Message) -> None:
        """A BYE has come: both sides are soon forgotten."""
        call_id, from_tag, to_tag = _key(request)
        for key in ((call_id, from_tag, to_tag), (call_id, to_tag, from_tag)):
            if key in self._sides:
                self._sides[key].until = self._clock() + AFTERLIFE

    def sweep(self) -> None:
        """Forget what is over."""
        now = self._clock()
        for key in [key for key, side in self._sides.items() if side.until <= now]:
            del self._sides[key]


def _key(request: Message) -> Key:
    return request.call_id, request.from_tag or "", request.to_tag or ""
