"""What a back-to-back session needs of the world, and of whoever decides for it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from sipgw.b2bua.legs import Leg
    from sipgw.b2bua.session import Session
    from sipgw.sip.dialog import Dialog
    from sipgw.sip.message import Message, Request, Response

ACK_PATIENCE: Final = 32.0
"""Seconds for the ACK to a 2xx of ours: 64*T1."""


class Origin(NamedTuple):
    """A reliable provisional response that a client leg has heard (``reliable.py``): its dialog's remote tag, its RSeq, and the
    CSeq of the INVITE."""

    tag: str
    number: int
    cseq: int


@dataclass(frozen=True, slots=True)
class Content:
    """What of a message is passed on: whole header lines, and a body with its type.

    ``provisional``: it is of such a response, or of the PRACK to one. ``number``: of the phone that sent the response to an
    INVITE, counted from 1, where the caller is to know that (``pass-legs-upstream``)."""

    headers: str = ""
    body: bytes = b""
    content_type: str = ""
    provisional: Origin | None = None
    number: int = 0


NOTHING: Final = Content()


class Port(Protocol):
    """What a session has done for it. ``token``: the transaction of a request that came."""

    def reply(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> None:
        """Answer a request."""

    def call(self, session: Session, leg: Leg, content: Content) -> None:
        """Send the INVITE of a client leg, with ``content`` beside its own; what it brings goes to ``Session.heard`` and
        ``Session.success``."""

    def send(self, leg: Leg, method: str, content: Content, heard: Callable[[int, Response | None], None]) -> int:
        """Send a request in the dialog; its CSeq number. ``heard`` hears each response, at last a final one, whatever happens;
        of an INVITE each 2xx, as often as it comes."""

    def acknowledge(self, leg: Leg, dialog: Dialog, number: int, content: Content) -> None:
        """Send the ACK to the 2xx of the INVITE with that CSeq number, or send it again."""

    def cancel(self, leg: Leg, number: int) -> None:
        """Cancel the INVITE with that CSeq number, as soon as it can be (RFC 3261 9.1)."""

    def after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call ``call`` later; what is returned has ``cancel()``."""

    def content(self, message: Message, leg: Leg) -> Content:
        """What of ``message`` is passed on to ``leg``."""

    def ended(self, session: Session) -> None:
        """The session is over."""

    def forget(self, leg: Leg) -> None:
        """A leg that had left its session is over."""

    def move(self, leg: Leg, session: Session) -> None:
        """A leg belongs to another session now."""

    def where(self, leg: Leg, session: Any) -> Any:
        """The session that ``leg`` belongs to now, ``session`` if that is not known."""


class Logic(Protocol):
    """What decides about a session: a script, or nobody."""

    def request(self, session: Session, leg: Leg, request: Request, token: Any) -> None:
        """Do something about a request that came by ``leg``."""

    def reply(
        self, session: Session, leg: Leg, method: str, status: int, response: Response | None, usual: Callable[[], None]
    ) -> None:
        """Do something about a response that came by ``leg``; ``usual()`` does what is usual."""
