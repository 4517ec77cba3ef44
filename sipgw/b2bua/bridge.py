"""Putting another leg into the place of one, by the stages of ``stages.TABLE``. Pure.

``begin`` starts a ``Bridge``; what comes for its legs is told by the session: ``heard`` (a response to the INVITE of one),
``asked`` (the last response to a re-INVITE of ours), ``admitted`` (the ACK of a caller), ``ended`` (a leg has ended). Each is
one ``Turn``, and ``_ACTS`` says what an ``Act`` is. In the end the session has no bridge, and its pair are the two that talk.

A bridge may be watched by the leg whose REFER began it, with NOTIFYs (RFC 3515 2.4.4). ``old`` is hung up on when ``new`` and
``kept`` talk, and then only when it has answered the last NOTIFY, so that a phone learns first how its transfer went. In an
attended transfer ``new`` and who it talked with are lent by another session; if it fails they go back to that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sipgw.b2bua import exchange
from sipgw.b2bua.description import SDP, held, is_sdp, on_hold
from sipgw.b2bua.legs import Event, Leg, Role, State
from sipgw.b2bua.port import ACK_PATIENCE, NOTHING, Content
from sipgw.b2bua.stages import TABLE, Act, Stage, Turn
from sipgw.sip.replies import reason_for

if TYPE_CHECKING:
    from sipgw.b2bua.session import Session
    from sipgw.sip.message import Message, Response

PATIENCE: Final = 8.0
"""Seconds that somebody's offer waits for an answer by another one, before it is answered that nothing shall flow yet."""
_TIMED: Final = frozenset({Stage.FETCHING, Stage.EARLY_FETCHING, Stage.PAIRING})
_SUBSCRIBED: Final = 180
"""Seconds that the subscription by a REFER lasts at most: longer than any INVITE."""


@dataclass(slots=True, eq=False)
class Bridge:
    """``kept`` is to talk with ``new``. What is wanted: ``media``, a client leg, plays meanwhile; ``hold``; ``early_offer``: new
    is called with the last description of kept; ``rollback``: if that fails, old talks with kept again; ``wait``: old is
    hung up on only when it has not failed, so many seconds later (``delay``); ``update``: an UPDATE to who has not answered.
    ``watcher``: gets NOTIFYs for the REFER with CSeq ``refer``. ``lender``: the session that ``new`` and ``lent`` are from."""

    kept: Leg
    new: Leg
    media: Leg | None = None
    hold: bool = False
    early_offer: bool = False
    rollback: bool = False
    wait: bool = True
    delay: float = 0
    update: bool = False
    watcher: Leg | None = None
    refer: int = 0
    lender: Session | None = None
    lent: list[Leg] = field(default_factory=list)
    stage: Stage = Stage.BEGUN
    before: list[Leg] = field(default_factory=list)
    old: Leg | None = None
    offered: bool = False
    """Whether new was called with an offer."""
    playing: bool = False
    touched: bool = False
    """Whether kept has agreed to any re-INVITE of the bridge."""
    updated: Content | None = None
    failure: tuple[int, str] = (487, "Request Terminated")
    told: int = 0
    """The last status that the watcher was told."""
    reporting: bool = False
    """Whether the last NOTIFY is not answered yet."""
    timer: Any = None


def can_begin(session: Session, kept: Leg, *, caller: bool = False, early: bool = False) -> bool:
    """Whether ``kept`` may be joined with somebody else: it talks and no INVITE is under way on it, or it is a caller who has no
    answer yet. With a ``caller`` the latter cannot be, but, with ``early``, one who is called and has not answered."""
    if session.over or session.bridge is not None or session.lent_to is not None or kept not in session.pair:
        return False
    if kept.state is State.TALKING:
        return kept.exchange is None
    if caller:
        return early and kept.state in (State.CALLING, State.RINGING)
    return kept.state is State.INVITED


def begin(session: Session, bridge: Bridge) -> None:
    """Join two, of whom ``can_begin`` says that it may be. ``bridge.new`` is a client leg, planned or lent; or a caller."""
    kept, new = bridge.kept, bridge.new
    old = session.other(kept)
    bridge.before = list(session.pair)
    session.bridge = bridge
    session.pair = [kept, new]
    kept.told.own = old.told.own = True
    if bridge.lender is not None:
        new.told.own = True
    if new.role is Role.SERVER:
        session.take(new.invite, new)
    if bridge.lender is not None:
        _borrow(session, bridge)
    if bridge.media is not None:
        session.aside.append(bridge.media)
    if old.is_over:
        session.port.forget(old)
    else:
        session.aside.append(old)
        if old.state is State.TALKING and bridge.wait:
            bridge.old = old
        else:
            session.leave(old)
    if session.bridge is bridge:
        _begin_report(session, bridge)
        _go_on(session, bridge)


def connect(session: Session, watcher: Leg | None = None) -> None:
    """Call both of a pair of client legs, the first one first; ``watcher`` may be a leg of another session."""
    session.bridge = Bridge(session.pair[0], session.pair[1], before=list(session.pair), watcher=watcher)
    _begin_report(session, session.bridge)
    _go_on(session, session.bridge)
    session.call(session.pair[0])


def repair(session: Session) -> None:
    """Join a pair anew of whom one was told what is not true any more."""
    kept, new = session.pair if session.pair[1].role is Role.CLIENT else reversed(session.pair)
    if new.role is Role.CLIENT and new.state is State.TALKING and new.exchange is None and can_begin(session, kept):
        kept.told.own = new.told.own = True
        session.bridge = Bridge(kept, new, before=list(session.pair))
        _go_on(session, session.bridge)


def retry(session: Session, new: Leg) -> bool:
    """Call ``new`` in the place of the one who has just refused; false if nobody has."""
    bridge = session.bridge
    failed = session.callee
    if not failed.is_over or session.over or new.state is not State.PLANNED:
        return False
    if bridge is None:
        if not can_begin(session, session.caller):
            return False
        begin(session, Bridge(session.caller, new))
        return True
    if bridge.new is not failed or bridge.stage not in (Stage.CALLING, Stage.EARLY_CALLING) or bridge.lender is not None:
        return False
    session.port.forget(failed)
    bridge.new = session.pair[1] = new
    early = bridge.stage is Stage.EARLY_CALLING
    (_pair if early else _call)(session, bridge, new, None)
    return True


# -- what comes


def heard(session: Session, bridge: Bridge, leg: Leg, status: int, response: Response | None) -> None:
    """Take a response to the INVITE of ``leg``, one of the bridge's."""
    if status < 200:
        if response is not None and leg is bridge.new:
            _report(session, bridge, status, response.reason)
            if bridge.stage is Stage.EARLY_CALLING and not bridge.playing:
                content = session.convey(response, leg, bridge.kept)
                session.step(bridge.kept, Event.PROVISIONAL, reply=(status, response.reason, content))
        elif response is not None and bridge.stage is Stage.KNOCKING:
            session.step(bridge.new, Event.PROVISIONAL, reply=(status, response.reason, NOTHING))
    elif status < 300 and response is not None:
        if leg is bridge.kept:
            _turn(session, bridge, Turn.KEPT_AGREES if bridge.updated is None else Turn.KEPT_UPDATED, leg, response)
        elif leg is bridge.media:
            _turn(session, bridge, Turn.MEDIA_AGREES, leg, response)
        else:
            offers = bridge.stage is Stage.CALLING and not bridge.offered
            _turn(session, bridge, Turn.NEW_OFFERS if offers else Turn.NEW_AGREES, leg, response)
    else:
        _refused(session, bridge, leg, status, response)


def asked(session: Session, bridge: Bridge, leg: Leg, status: int, response: Response | None) -> None:
    """Take the last response to a re-INVITE to ``leg``, one of the bridge's."""
    if response is not None and 200 <= status < 300:
        if leg is bridge.kept:
            bridge.touched = True
            _turn(session, bridge, Turn.KEPT_AGREES, leg, response)
        else:
            _turn(session, bridge, Turn.NEW_AGREES if leg is bridge.new else Turn.OLD_AGREES, leg, response)
    elif status in (408, 481):  # its dialog is dead
        bridge.failure = status, _reason(status, response)
        session.leave(leg)
    else:
        _refused(session, bridge, leg, status, response)


def admitted(session: Session, bridge: Bridge, leg: Leg, ack: Message) -> None:
    """Take the ACK of a caller."""
    if leg is bridge.new:
        _turn(session, bridge, Turn.NEW_ACKNOWLEDGES, leg, ack)


def ended(session: Session, bridge: Bridge, leg: Leg) -> None:
    """Learn that a leg of the session has begun to end."""
    if leg is bridge.kept:
        _turn(session, bridge, Turn.KEPT_ENDS, leg, None)
    elif leg is bridge.media:
        bridge.media, bridge.playing = None, False
        _turn(session, bridge, Turn.MEDIA_REFUSES, leg, None)
    elif leg is bridge.old:
        bridge.old = None
        _turn(session, bridge, Turn.OLD_REFUSES, leg, None)
    elif leg is bridge.new:
        _turn(session, bridge, Turn.NEW_REFUSES, leg, None)


def abandon(session: Session, bridge: Bridge) -> None:
    """End it, and all legs: the session is to end."""
    bridge.failure = session.status
    _turn(session, bridge, Turn.KEPT_ENDS, bridge.kept, None)


def _refused(session: Session, bridge: Bridge, leg: Leg, status: int, response: Response | None) -> None:
    if leg is bridge.media:
        ended(session, bridge, leg)
        return
    bridge.failure = status, _reason(status, response)
    turn = Turn.KEPT_REFUSES if leg is bridge.kept else Turn.NEW_REFUSES if leg is bridge.new else Turn.OLD_REFUSES
    _turn(session, bridge, turn, leg, response)


def _reason(status: int, response: Response | None) -> str:
    return reason_for(status) if response is None else response.reason


# -- going on


def _turn(session: Session, bridge: Bridge, turn: Turn, leg: Leg, message: Message | None) -> None:
    """Let ``turn`` happen, by ``leg`` with ``message``."""
    row = TABLE.get((bridge.stage, turn))
    if row is None or session.bridge is not bridge:
        return
    if bridge.timer is not None:
        bridge.timer.cancel()
        bridge.timer = None
    bridge.stage = stage = row[0]
    for act in row[1]:
        _ACTS[act](session, bridge, leg, message)
    if bridge.stage is not stage:
        return  # what was done has had an answer at once
    if stage is Stage.OVER:
        if session.bridge is bridge:
            session.bridge = None
    elif stage in _TIMED:
        bridge.timer = session.port.after(PATIENCE, lambda: _turn(session, bridge, Turn.LATE, bridge.kept, None))
    else:
        _go_on(session, bridge)


def _go_on(session: Session, bridge: Bridge) -> None:
    """Where a stage lasts no time: say what the bridge is like."""
    if bridge.stage is Stage.BEGUN:
        _turn(session, bridge, _likeness(bridge), bridge.kept, None)
    elif bridge.stage is Stage.FAILED:
        waits = bridge.rollback and bridge.old is not None and bridge.old.state is State.TALKING
        waiting = Turn.TOUCHED if bridge.touched else Turn.UNTOUCHED
        _turn(session, bridge, waiting if waits and bridge.kept.state is State.TALKING else Turn.HOPELESS, bridge.kept, None)


def _likeness(bridge: Bridge) -> Turn:
    kept, new = bridge.kept, bridge.new
    if kept.state is State.PLANNED:
        return Turn.BOTH
    if new.role is Role.SERVER and bridge.lender is None:
        return Turn.CALLER if kept.state is State.TALKING else Turn.KNOCK
    if kept.state is State.INVITED:
        return Turn.EARLY if bridge.media is None or not kept.said.body else Turn.EARLY_MEDIA
    if new.state is State.TALKING:
        return Turn.TALKS
    if new.state is not State.PLANNED:
        bridge.offered = True
        return Turn.RINGS
    if bridge.hold and on_hold(kept.told.last):
        bridge.hold = False
        return Turn.HOLD
    return Turn.PLAIN if bridge.media is None else Turn.MEDIA


# -- what is done


def _close(session: Session, leg: Leg, content: Content) -> None:
    """Send the ACK that ``leg`` waits for, if it does."""
    its = leg.exchange
    if its is not None:
        if its.source is None and its.answered is not None:
            exchange.acknowledge(session, its, content)
            exchange.finish(its)
    elif leg.role is Role.CLIENT and leg.state is State.ANSWERED:
        session.step(leg, Event.ACK, reply=(0, "", content))


def _hold(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    kept = bridge.kept
    exchange.begin(session, kept, session.fit(kept, Content("", on_hold(kept.told.last), SDP)))


def _ask(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    bridge.kept.told.streams = 0
    exchange.begin(session, bridge.kept, NOTHING)


def _fetch(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    if bridge.media is not None:
        if message is not None:
            session.take(message, bridge.kept)
        session.call(bridge.media, session.fit(bridge.media, bridge.kept.said))
    else:
        _turn(session, bridge, Turn.MEDIA_REFUSES, bridge.kept, None)


def _play(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    bridge.playing = True
    _close(session, leg, NOTHING)
    if message is not None:
        content = session.convey(message, leg, bridge.kept)
        if bridge.kept.state is State.INVITED:
            session.step(bridge.kept, Event.PROVISIONAL, reply=(183, "Session Progress", content))
        else:
            _close(session, bridge.kept, content)


def _pause(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    kept = bridge.kept
    offer: Any = kept.exchange.answered if kept.exchange is not None else None
    if offer is not None:
        session.take(offer, kept)
    _close(session, kept, session.fit(kept, held(kept.said.body)))


def _stop(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    media, bridge.media, bridge.playing = bridge.media, None, False
    if media is not None:
        session.leave(media)


def _call(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    new = bridge.new
    bridge.offered = bridge.early_offer and bool(bridge.kept.said.body)
    session.call(new, session.fit(new, bridge.kept.said) if bridge.offered else NOTHING)


def _pair(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    if message is not None and leg is bridge.kept:
        session.take(message, bridge.kept)
    session.call(bridge.new, session.fit(bridge.new, bridge.kept.said))


def _offer(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    if message is not None:
        exchange.begin(session, bridge.kept, session.convey(message, bridge.new, bridge.kept, offer=True))


def _connect(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    if message is not None:
        content = session.convey(message, bridge.kept, bridge.new)
        _close(session, bridge.kept, NOTHING)
        _close(session, bridge.new, content)


def _take(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    _close(session, bridge.new, NOTHING)


def _match(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    target = bridge.old if bridge.stage is Stage.RETURNING else bridge.new
    if message is not None and target is not None:
        exchange.begin(session, target, session.convey(message, bridge.kept, target, offer=True))


def _cross(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    if message is not None:
        _close(session, bridge.kept, session.convey(message, leg, bridge.kept))
        _close(session, leg, NOTHING)


def _knock(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    kept, new = bridge.kept, bridge.new

    def updated(status: int, response: Response | None) -> None:
        if response is not None and 200 <= status < 300 and bridge.stage is Stage.KNOCKING:
            content = session.convey(response, kept, new)
            bridge.updated = content if is_sdp(content) else None

    if bridge.update and kept.dialog is not None and new.said.body:
        session.port.send(kept, "UPDATE", session.fit(kept, new.said, offer=True), updated)


def _join(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    offer = session.fit(bridge.kept, bridge.new.said, offer=True) if bridge.new.said.body else NOTHING
    exchange.begin(session, bridge.kept, offer)


def _admit(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    new = bridge.new
    content = bridge.updated or (NOTHING if message is None else session.convey(message, bridge.kept, new))
    session.is_answered = True
    session.step(new, Event.SUCCESS, reply=(200, "OK", content))
    new.timer = session.port.after(ACK_PATIENCE, lambda: session.lost(new))


def _thank(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    _close(session, bridge.kept, NOTHING)


def _close_kept(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    _close(session, bridge.kept, NOTHING if message is None else session.convey(message, leg, bridge.kept))


def _answer(session: Session, bridge: Bridge, leg: Leg, message: Response | None) -> None:
    session.bridge = None
    status = bridge.failure[0] if message is None else message.status
    session.pass_heard(leg, status, message)


def _succeed(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    session.bridge = None
    session.is_answered = True
    _report(session, bridge, 200, "OK")
    lender = bridge.lender
    if lender is not None:
        lender.pair = []
        lender.check()
    for left in (bridge.old, *bridge.lent):
        if left is not None:
            _dismiss(session, bridge, left)


def _return(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    new = bridge.new
    old = bridge.old
    assert old is not None
    _report(session, bridge, *bridge.failure)
    session.pair = bridge.before
    session.aside.remove(old)
    _stop(session, bridge, leg, message)
    if bridge.lender is not None:
        _give_back(session, bridge)
    elif new.is_over:
        session.port.forget(new)
    else:
        session.aside.append(new)
        session.status = bridge.failure
        session.leave(new)


def _hang_up(session: Session, bridge: Bridge, leg: Leg, message: Message | None) -> None:
    session.bridge = None
    _report(session, bridge, *bridge.failure)
    if bridge.lender is not None:
        session.pair = bridge.before
        session.aside = [other for other in session.aside if other not in session.pair]
        _give_back(session, bridge)
    session.status = bridge.failure
    for left in reversed(session.legs):
        if left is bridge.old and left in session.aside:
            _dismiss(session, bridge, left)
        else:
            session.leave(left)
    session.check()


_ACTS: Final[dict[Act, Callable[[Any, Bridge, Leg, Any], None]]] = {
    Act.HOLD: _hold, Act.THANK: _thank, Act.ASK: _ask, Act.FETCH: _fetch, Act.PLAY: _play, Act.PAUSE: _pause, Act.STOP: _stop,
    Act.CALL: _call, Act.PAIR: _pair, Act.OFFER: _offer, Act.CONNECT: _connect, Act.TAKE: _take, Act.MATCH: _match,
    Act.CROSS: _cross, Act.KNOCK: _knock, Act.JOIN: _join, Act.ADMIT: _admit, Act.CLOSE: _close_kept, Act.ANSWER: _answer,
    Act.SUCCEED: _succeed, Act.RETURN: _return, Act.GIVE_BACK: _match, Act.HANG_UP: _hang_up,
}


# -- who watches, who waits, who is lent


def _begin_report(session: Session, bridge: Bridge) -> None:
    """Tell the watcher that it has begun; when its REFER has been answered, which is done first."""
    if bridge.watcher is not None:
        session.port.after(0, lambda: _report(session, bridge, 100, "Trying"))


def _report(session: Session, bridge: Bridge, status: int, reason: str) -> None:
    """Tell the watcher how far it is (RFC 3515 2.4.4), each status once."""
    watcher = bridge.watcher
    if watcher is None or watcher.dialog is None or watcher.state is not State.TALKING or status <= bridge.told:
        return
    bridge.told = 999 if status >= 200 else status
    bridge.reporting = status >= 200
    state = "terminated;reason=noresource" if status >= 200 else f"active;expires={_SUBSCRIBED}"
    number = f";id={bridge.refer}" if bridge.refer else ""
    headers = f"Event: refer{number}\r\nSubscription-State: {state}\r\n"
    fragment = f"SIP/2.0 {status} {reason}\r\n".encode("utf-8", "surrogateescape")

    def answered(its: int, _response: Response | None) -> None:
        if status >= 200 and (its >= 200 or its == 0):
            bridge.reporting = False
            if watcher in session.hearing:
                session.hearing.remove(watcher)
                session.leave(watcher)

    session.port.send(watcher, "NOTIFY", Content(headers, fragment, "message/sipfrag;version=2.0"), answered)


def _dismiss(session: Session, bridge: Bridge, leg: Leg) -> None:
    """Hang up on who waited: at once, or later, or when it has heard how it went."""
    if bridge.delay:
        session.port.after(bridge.delay, lambda: session.leave(leg))
    elif bridge.reporting and leg is bridge.watcher:
        session.hearing.append(leg)
    else:
        session.leave(leg)


def _borrow(session: Session, bridge: Bridge) -> None:
    """Take the legs of another session."""
    lender = bridge.lender
    assert lender is not None
    bridge.lent = [leg for leg in lender.pair if leg is not bridge.new]
    session.aside += bridge.lent
    lender.lent_to = session
    for leg in lender.pair:
        session.port.move(leg, session)


def _give_back(session: Session, bridge: Bridge) -> None:
    """Give the legs back to their session; what has ended meanwhile ends there. One that is about to agree to what ``kept`` has
    offered is joined anew."""
    lender = bridge.lender
    assert lender is not None
    session.aside = [leg for leg in session.aside if leg not in bridge.lent]
    caller, callee = lender.pair
    for leg in (caller, callee):
        session.port.move(leg, lender)
        if leg.exchange is not None:
            leg.exchange.stale = True
    bridge.lent = []
    bridge.lender = lender.lent_to = None
    if caller.state is State.INVITED and callee.state is State.TALKING:  # it was answered to us meanwhile
        lender.is_answered = True
        lender.step(caller, Event.SUCCESS, reply=(200, "OK", lender.fit(caller, callee.said)))
        caller.timer = lender.port.after(ACK_PATIENCE, lambda: lender.lost(caller))
    lender.settle()


def can_lend(lender: Session, leg: Leg) -> bool:
    """Whether ``leg`` may be joined with somebody of another session: it talks, or is called; and nothing is under way."""
    if lender.over or lender.bridge is not None or lender.lent_to is not None:
        return False
    if leg not in lender.pair or leg.exchange is not None or lender.other(leg).state in (State.ANSWERED, State.OVER):
        return False
    return leg.state in (State.TALKING, State.CALLING, State.RINGING)
