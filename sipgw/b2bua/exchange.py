"""Re-INVITEs of ours within a leg: one at a time on each, whoever wants it. Pure.

An ``Exchange`` lasts from the re-INVITE to its ACK, and stands on its ``target``; it passes on what ``source`` has sent, which
it stands on too then, or, without a source, is part of a bridge (``bridge.py``). While it lasts the next INVITE by one of the
two is answered 491, or 500 with Retry-After to who sent the first (RFC 3261 14.2). The 2xx is acknowledged only when it is
known what the ACK says: to what came to us late, too."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from sipgw.b2bua.legs import Leg, State
from sipgw.b2bua.port import ACK_PATIENCE, NOTHING, Content

if TYPE_CHECKING:
    from sipgw.b2bua.session import Session
    from sipgw.sip.message import Request, Response


@dataclass(slots=True, eq=False)
class Exchange:
    """A re-INVITE on its way: ``source`` sent it as ``token``, ``target`` got one of ours with the CSeq ``number``."""

    target: Leg
    source: Leg | None = None
    token: Any = None
    number: int = 0
    answered: Response | None = None
    acknowledged: Content | None = None
    timer: Any = None


def pass_on(session: Session, leg: Leg, other: Leg, request: Request, token: Any) -> None:
    """Pass a re-INVITE of ``leg`` on to ``other``."""
    port = session.port
    busy = leg.exchange or other.exchange
    if leg.state is not State.TALKING or other.state is not State.TALKING or busy is not None:
        if busy is not None and busy.source is leg and busy.answered is None:
            port.reply(leg, token, 500, "Server Internal Error", Content(f"Retry-After: {Random().randint(0, 10)}\r\n"))
        else:
            port.reply(leg, token, 491, "Request Pending", NOTHING)
        return
    exchange = Exchange(other, leg, token)
    leg.exchange = other.exchange = exchange
    exchange.number = port.send(
        other, "INVITE", port.content(request, other), lambda status, response: _heard(session, exchange, status, response)
    )


def _heard(session: Session, exchange: Exchange, status: int, response: Response | None) -> None:
    """Take a response to a re-INVITE that was passed on, a 2xx each time that it comes."""
    target = exchange.target
    if response is not None and 200 <= status < 300 and target.dialog is not None:
        if exchange.answered is not None or target.exchange is not exchange:
            if exchange.acknowledged is not None or exchange.answered is None:  # repeated; or nobody waits for it any more
                session.port.acknowledge(target, target.dialog, exchange.number, exchange.acknowledged or NOTHING)
            return
        target.dialog.refresh(response)
    elif exchange.answered is not None or target.exchange is not exchange:
        return
    session.decide(target, "INVITE", status, response, lambda: _pass_heard(session, exchange, status, response))


def _pass_heard(session: Session, exchange: Exchange, status: int, response: Response | None) -> None:
    source = exchange.source
    if source is None or exchange.token is None:
        return
    if status < 200 and response is not None:
        if status > 100:
            session.port.reply(source, exchange.token, status, response.reason, session.port.content(response, source))
        return
    token, exchange.token = exchange.token, None
    if 200 <= status < 300 and response is not None:
        exchange.answered = response
        exchange.timer = session.port.after(ACK_PATIENCE, lambda: session.lost(source))
        session.port.reply(source, token, status, response.reason, session.port.content(response, source))
        return
    finish(exchange)
    session.pass_failure(source, token, status, response)
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


def acknowledged(session: Session, leg: Leg, content: Content) -> bool:
    """Take the ACK of ``leg`` to the 2xx that answered its re-INVITE; false if there was none."""
    exchange = leg.exchange
    if exchange is None or exchange.source is not leg or exchange.answered is None:
        return False
    acknowledge(session, exchange, content)
    finish(exchange)
    return True
