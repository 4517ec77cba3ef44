"""A BYE where challenges pass (``transparent-auth``): who sends it must answer what the other side asks. Pure.

It goes to the other side before it is agreed to. A challenge goes back, and the call goes on until a BYE comes that answers it;
whatever else comes of it ends both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sipgw.b2bua.legs import TRANSPARENT, Event, Leg, State
from sipgw.b2bua.port import NOTHING

if TYPE_CHECKING:
    from sipgw.b2bua.session import Session
    from sipgw.sip.message import Request, Response

_HANGS_UP: Final = "hangs up"
"""Of a leg: its BYE is on its way to the other side."""


def pass_bye(session: Session, leg: Leg, request: Request, token: Any) -> bool:
    """Pass a BYE of ``leg``; false if it is to be agreed to at once, as usual."""
    if leg not in session.pair or session.bridge is not None or not any(TRANSPARENT in one.flags for one in session.pair):
        return False
    other = session.other(leg)
    if _HANGS_UP in other.flags:
        return False
    if any(one.state is not State.TALKING or one.exchange is not None or one.dialog is None for one in (leg, other)):
        return False

    def heard(status: int, response: Response | None) -> None:
        if 0 < status < 200:
            return
        leg.flags.discard(_HANGS_UP)
        if status in (401, 407) and response is not None and leg.state is other.state is State.TALKING:
            session.port.reply(leg, token, status, response.reason, session.port.content(response, leg))
            return
        if session.bridge is None and other.state is State.TALKING and other.exchange is None and session.pair == [*both]:
            other.state = State.LEAVING  # our BYE has been sent already
        if not session.step(leg, Event.BYE, token):
            session.port.reply(leg, token, 200, "", NOTHING)
        session.step(other, Event.LEFT)

    both = tuple(session.pair)
    leg.flags.add(_HANGS_UP)
    session.port.send(other, "BYE", session.port.content(request, other), heard)
    return True
