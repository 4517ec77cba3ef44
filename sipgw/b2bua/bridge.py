"""Another leg in the place of one: the offer in the 2xx of the new one goes to the one that is kept. Pure.

The new one is called without an offer; that in its 2xx goes to who is kept in a re-INVITE, and the answer to that into the ACK
for the new one (RFC 3725 4.4). If either refuses, both end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sipgw.b2bua import exchange
from sipgw.b2bua.exchange import Exchange
from sipgw.b2bua.legs import Event, Leg, State
from sipgw.b2bua.port import NOTHING

if TYPE_CHECKING:
    from sipgw.b2bua.session import Session
    from sipgw.sip.message import Response


@dataclass(slots=True, eq=False)
class Bridge:
    """``kept`` is to talk with ``new``; ``offered``: the re-INVITE that joins them."""

    kept: Leg
    new: Leg
    offered: Exchange


def can_begin(session: Session, kept: Leg) -> bool:
    """Whether ``kept`` may be joined with somebody else: it talks, and no INVITE is under way on it."""
    return not session.over and kept in session.pair and kept.state is State.TALKING and kept.exchange is None


def begin(session: Session, kept: Leg, new: Leg) -> None:
    """Let ``kept``, which may, talk with ``new``, a client leg that is called now; the one that it talked with is hung up on."""
    old = session.other(kept)
    offered = Exchange(kept, new)
    kept.exchange = offered
    session.bridge = Bridge(kept, new, offered)
    session.pair = [kept, new]
    if old.is_over:
        session.port.forget(old)
    else:
        session.aside.append(old)
        session.leave(old)
    session.call(new)


def heard(session: Session, bridge: Bridge, status: int, response: Response | None) -> None:
    """Take a response to the INVITE of the new leg."""
    kept = bridge.kept
    if status < 200:
        return
    if status >= 300 or response is None:
        session.bridge = None
        exchange.finish(bridge.offered)
        session.leave(kept)
        session.check()
    elif kept.exchange is bridge.offered:
        content = session.port.content(response, kept)
        bridge.offered.number = session.port.send(
            kept, "INVITE", content, lambda its, found: _offered(session, bridge, its, found)
        )


def _offered(session: Session, bridge: Bridge, status: int, response: Response | None) -> None:
    """Take a response to the re-INVITE that joins the two, a 2xx each time that it comes."""
    kept, new, offered = bridge.kept, bridge.new, bridge.offered
    if 0 < status < 200:
        return
    if response is not None and status < 300 and status:
        if kept.dialog is not None:
            session.port.acknowledge(kept, kept.dialog, offered.number, NOTHING)
        if kept.exchange is offered:
            if kept.dialog is not None:
                kept.dialog.refresh(response)
            session.bridge = None
            exchange.finish(offered)
            session.step(new, Event.ACK, reply=(0, "", session.port.content(response, new)))
    elif kept.exchange is offered:
        session.bridge = None
        exchange.finish(offered)
        session.leave(kept)
