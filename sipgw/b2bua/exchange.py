"""Re-INVITEs of ours within a leg: one at a time on each, whoever wants it. Pure.

An ``Exchange`` lasts from the re-INVITE to its ACK, and stands on its ``target``; it passes on what ``source`` has sent, which
it stands on too then, or, without a source, is part of a bridge (``bridge.py``). While it lasts the next INVITE by one of the
two is answered 491, or 500 with Retry-After to who sent the first (RFC 3261 14.2). A 491 to what another has sent is passed to
who can try again; what is a bridge's we try again ourselves, after the time of RFC 3261 14.1. The 2xx is acknowledged only when
it is known what the ACK says: also one that came to us late."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from sipgw.b2bua.legs import Leg, Role, State
from sipgw.b2bua.port import ACK_PATIENCE, NOTHING, Content

if TYPE_CHECKING:
    from sipgw.b2bua.session import Session
    from sipgw.sip.message import Request, Response


TRIES: Final = 5
"""How often a re-INVITE of ours is sent that is answered 491."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A re-INVITE on its way: ``target`` gets ``content`` with CSeq ``number``; ``source``, or nobody, sent it as ``token``."""

    target: Leg
    content: Content
    source: Leg | None = None
    token: Any = None
    number: int = 0
    tries: int = 0
    answered: Response | None = None
    acknowledged: Content | None = None
    stale: bool = False
    """Whether what it has told the target is not true any more."""
    timer: Any = None


def begin(session: Session, target: Leg, content: Content, source: Leg | None = None, token: Any = None) -> Exchange:
    """Send a re-INVITE to ``target``, on which none is under way."""
    exchange = Exchange(target, content, source, token)
    target.exchange = exchange
    if source is not None:
        source.exchange = exchange
    _send(session, exchange)
    return exchange


def _send(session: Session, exchange: Exchange) -> None:
    exchange.tries += 1
    exchange.number = session.port.send(
        exchange.target, "INVITE", exchange.content, lambda status, response: _heard(session, exchange, status, response)
    )


def is_busy(leg: Leg, other: Leg) -> bool:
    """Whether an offer cannot be passed from ``leg`` to ``other`` now."""
    return leg.state is not State.TALKING or other.state is not State.TALKING or bool(leg.exchange or other.exchange)


def pass_on(session: Session, leg: Leg, other: Leg, request: Request, token: Any) -> None:
    """Pass a re-INVITE of ``leg`` on to ``other``."""
    if is_busy(leg, other):
        refuse(session, leg, token)
    else:
        begin(session, other, session.convey(request, leg, other, offer=True), leg, token)


def refuse(session: Session, leg: Leg, token: Any) -> None:
    """Answer a re-INVITE that crosses another one (RFC 3261 14.2)."""
    busy = leg.exchange
    if busy is not None and busy.source is leg and busy.answered is None:
        seconds = Content(f"Retry-After: {Random().randint(0, 10)}\r\n")
        session.port.reply(leg, token, 500, "Server Internal Error", seconds)
    else:
        session.port.reply(leg, token, 491, "Request Pending", NOTHING)


def _heard(session: Session, exchange: Exchange, status: int, response: Response | None) -> None:
    """Take a response to a re-INVITE of ours, a 2xx each time that it comes."""
    target = exchange.target
    session = session.port.where(target, session)  # it may have gone back to the session that had lent it
    if response is not None and 200 <= status < 300 and target.dialog is not None:
        if exchange.answered is not None or target.exchange is not exchange:
            if exchange.acknowledged is not None or exchange.answered is None:  # repeated; or nobody waits for it any more
                session.port.acknowledge(target, target.dialog, exchange.number, exchange.acknowledged or NOTHING)
            return
        target.dialog.refresh(response)
    elif exchange.answered is not None or target.exchange is not exchange:
        return
    if exchange.source is None:
        _own_heard(session, exchange, status, response)
    else:
        session.decide(target, "INVITE", status, response, lambda: _pass_heard(session, exchange, status, response))


def _own_heard(session: Session, exchange: Exchange, status: int, response: Response | None) -> None:
    """Take a response to the re-INVITE of a bridge: a 491 is tried again, all else is the bridge's."""
    target = exchange.target
    status = status or 403
    if status < 200:
        return
    if status == 491 and exchange.tries < TRIES:
        exchange.timer = session.port.after(glare_delay(target), lambda: _again(session, exchange))
        return
    if response is not None and 200 <= status < 300:
        exchange.answered = response
    else:
        finish(exchange)
    session.asked(target, status, response)


def _again(session: Session, exchange: Exchange) -> None:
    exchange.timer = None
    if exchange.target.exchange is exchange:
        _send(session.port.where(exchange.target, session), exchange)


def glare_delay(leg: Leg) -> float:
    """Seconds until a re-INVITE that was answered 491 is tried again: longer for who chose the Call-ID (RFC 3261 14.1)."""
    low, high = (210, 400) if leg.role is Role.CLIENT else (0, 200)
    return Random().randint(low, high) / 100


def _pass_heard(session: Session, exchange: Exchange, status: int, response: Response | None) -> None:
    source = exchange.source
    if source is None or exchange.token is None:
        return
    if status < 200 and response is not None:
        if status > 100:
            session.port.reply(source, exchange.token, status, response.reason, session.convey(response, exchange.target, source))
        return
    token = exchange.token
    if 200 <= status < 300 and response is not None:
        content = session.convey(response, exchange.target, source)
        exchange.token = None
        exchange.answered = response
        exchange.timer = session.port.after(ACK_PATIENCE, lambda: session.lost(source))
        session.port.reply(source, token, status, response.reason, content)
        return
    session.pass_failure(source, token, exchange.target, status, response)
    exchange.token = None
    finish(exchange)
    session.dead(exchange.target, status)


def acknowledge(session: Session, exchange: Exchange, content: Content) -> None:
    """Acknowledge the 2xx, with ``content``."""
    target = exchange.target
    exchange.acknowledged = content
    if target.dialog is not None:
        session.port.acknowledge(target, target.dialog, exchange.number, content)


def acknowledge_last(session: Session, leg: Leg) -> None:
    """Acknowledge the 2xx of ``leg`` that nobody will acknowledge any more: that is done, whatever comes next."""
    exchange = leg.exchange
    if exchange is not None and exchange.target is leg and exchange.answered is not None and exchange.acknowledged is None:
        acknowledge(session, exchange, NOTHING)


def give_up(session: Session, leg: Leg) -> None:
    """End what ``leg`` has under way, since it ends: whoever sent that learns it."""
    exchange = leg.exchange
    if exchange is None:
        return
    if exchange.answered is None and exchange.token is not None and exchange.source is not None:
        token, exchange.token = exchange.token, None
        session.port.reply(exchange.source, token, 487, "Request Terminated", NOTHING)
    elif exchange.answered is not None and exchange.acknowledged is None:
        acknowledge(session, exchange, NOTHING)
    finish(exchange)


def finish(exchange: Exchange) -> None:
    """Let others have their turn."""
    for leg in (exchange.source, exchange.target):
        if leg is not None and leg.exchange is exchange:
            leg.exchange = None
    if exchange.timer is not None:
        exchange.timer.cancel()
        exchange.timer = None


def cancelled(session: Session, leg: Leg) -> None:
    """Take a CANCEL of a re-INVITE by ``leg``."""
    exchange = leg.exchange
    if exchange is not None and exchange.source is leg and exchange.answered is None:
        session.port.cancel(exchange.target, exchange.number)
