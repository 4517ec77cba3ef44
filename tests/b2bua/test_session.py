"""Tests of sipgw.b2bua.session and bridge: every message at every state; one final answer to each request, all legs end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua import bridge
from sipgw.b2bua.bridge import Bridge
from sipgw.b2bua.legs import TRANSPARENT, Leg, Role, State
from sipgw.b2bua.port import Content
from sipgw.b2bua.session import ENDING, Session, begin
from sipgw.b2bua.stages import Stage
from sipgw.sip.dialog import Dialog
from sipgw.sip.message import Message, Request, Response, parse

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
STATUSES = [100, 180, 183, 200, 202, 302, 401, 408, 481, 486, 491, 500, 603]
SDP = "v=0\r\no={0} 1 {1} IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio {1} RTP/AVP 0\r\n"


def body(who: str, number: int) -> str:
    """The end of a head, and a description."""
    text = SDP.format(who, number)
    return f"Content-Type: application/sdp\r\nContent-Length: {len(text)}\r\n\r\n{text}"


def made(method: str, key: str, number: int, tag: str = "f") -> Request:
    """A request, of which little counts."""
    found = parse(
        f"{method} sip:b@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag={tag}\r\n"
        f"To: <sip:b@x>\r\nCall-ID: {key}\r\nCSeq: {number} {method}\r\nContact: <sip:a@192.0.2.1>\r\n"
        f"{body(key, number) if method in ('INVITE', 'UPDATE', 'ACK') and number % 3 else chr(13) + chr(10)}".encode()
    )
    assert isinstance(found, Request)
    return found


def answer(to: Request, status: int, tag: str) -> Response:
    """A response to it."""
    found = parse(
        f"SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=f\r\n"
        f"To: <sip:b@x>;tag={tag}\r\n"
        f"Call-ID: {to.call_id}\r\nCSeq: {to.header('CSeq')}\r\nContact: <sip:b@192.0.2.2>\r\n"
        f"{body(tag, to.cseq.number) if 180 < status < 300 else chr(13) + chr(10)}".encode()
    )
    assert isinstance(found, Response)
    return found


class Timer:
    """One that fires when a test wants."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.over = False

    def cancel(self) -> None:
        """Never fire."""
        self.over = True

    def fire(self) -> None:
        """Fire, once."""
        if not self.over:
            self.over = True
            self.call()


class Token:
    """A request that came, and its answers."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.statuses: list[int] = []


class Called:
    """An INVITE of a client leg, until its final response."""

    def __init__(self, port: FakePort, session: Session, leg: Leg) -> None:
        self.port = port
        self.session = session
        self.leg = leg
        self.final = False

    def answered(self, status: int, tag: str) -> None:
        """It is answered; a 2xx may be so again."""
        if self.final and not 200 <= status < 300:
            return
        session = self.port.where(self.leg, self.session)
        response = answer(self.leg.invite, status, tag)
        if 200 <= status < 300:
            self.port.owed.add((self.leg.key, tag, self.leg.invite.cseq.number))
            session.success(self.leg, response)
        if not self.final:
            self.final = status >= 200
            session.heard(self.leg, status, response)

    def silent(self, status: int) -> None:
        """It never is."""
        if not self.final:
            self.final = True
            self.port.where(self.leg, self.session).heard(self.leg, status, None)


class FakePort:
    """Writes down what a session asks for."""

    def __init__(self) -> None:
        self.called: list[Called] = []
        self.waiting: list[tuple[str, Callable[[int, Response | None], None], Request]] = []
        self.dialogs: dict[tuple[str, int], Dialog] = {}
        self.said: list[str] = []
        self.timers: list[Timer] = []
        self.ends = 0
        self.over: list[Session] = []
        self.number = 100
        self.moved: dict[Leg, Session] = {}
        self.owed: set[tuple[str, str, int]] = set()
        self.paid: set[tuple[str, str, int]] = set()

    def reply(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> None:
        if token is None:
            raise AssertionError("an answer to nothing")
        if any(given >= 200 for given in token.statuses):
            raise AssertionError(f"{status} to {token.method} after {token.statuses}")
        token.statuses.append(status)

    def call(self, session: Session, leg: Leg, content: Content) -> None:
        assert all(called.leg is not leg for called in self.called)
        self.called.append(Called(self, session, leg))

    def send(self, leg: Leg, method: str, content: Content, heard: Callable[[int, Response | None], None]) -> int:
        assert leg.dialog is not None
        self.number += 1
        self.said.append(f"{leg.role.value} {method}")
        if method == "INVITE":
            assert leg.state is State.TALKING, (leg.state, leg.role)
        self.dialogs[leg.key, self.number] = leg.dialog
        self.waiting.append((method, heard, made(method, leg.key, self.number)))
        return self.number

    def acknowledge(self, leg: Leg, dialog: Dialog, number: int, content: Content) -> None:
        self.said.append(f"{leg.role.value} ACK {number}")
        self.paid.add((leg.key, dialog.id.remote_tag, number))

    def cancel(self, leg: Leg, number: int) -> None:
        self.said.append(f"{leg.role.value} CANCEL")

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(call))
        return self.timers[-1]

    def content(self, message: Message, leg: Leg) -> Content:
        return Content("", message.body, message.header("Content-Type") or "")

    def forget(self, leg: Leg) -> None:
        assert leg.is_over

    def move(self, leg: Leg, session: Session) -> None:
        self.moved[leg] = session

    def where(self, leg: Leg, session: Session) -> Session:
        return self.moved.get(leg, session)

    def ended(self, session: Session) -> None:
        self.ends += 1
        self.over.append(session)


class Calling(RuleBasedStateMachine):
    """Two sessions at which anything is thrown; bridges take new legs, callers, and legs of the other session."""

    def __init__(self) -> None:
        super().__init__()
        self.port = FakePort()
        self.number = 10
        self.tokens: list[Token] = []
        self.sessions: list[Session] = []
        self.legs: list[Leg] = []

    def server(self) -> Leg:
        """A caller."""
        self.number += 1
        leg = Leg(f"s{self.number}", Role.SERVER, made("INVITE", f"s{self.number}", self.number))
        leg.token = Token("INVITE")
        self.tokens.append(leg.token)
        self.legs.append(leg)
        return leg

    def client(self) -> Leg:
        """Somebody to be called."""
        self.number += 1
        leg = Leg(f"c{self.number}", Role.CLIENT, made("INVITE", f"c{self.number}", self.number))
        self.legs.append(leg)
        return leg

    @property
    def session(self) -> Session:
        """The first."""
        return self.sessions[0]

    @initialize(
        steps=st.lists(st.sampled_from([3, 3, 3, 0, 1, 2, 4]), min_size=1, max_size=2), both=st.booleans(),
        first=st.sampled_from(["", "bridge", "bridge", "bridge", "enters", "knock", "transfer", "transfer"]),
        flags=st.lists(st.booleans(), min_size=6, max_size=6), who=st.integers(0, 1), whom=st.integers(0, 1),
        many=st.integers(0, 7),
    )
    def begins(
        self, steps: list[int], both: bool = False, first: str = "", flags: list[bool] | None = None, who: int = 0, whom: int = 0,
        many: int = 0,
    ) -> None:
        """A call, or two; they ring, are answered, acknowledged, have a re-INVITE on its way: or only some of that. Then a bridge
        begins, and gets so far as it does without trouble in ``many`` steps."""
        for index, its in enumerate(steps if first != "knock" else [min(its, 1) for its in steps]):
            if both and not index:
                session = Session(f"key{index}", [self.client(), self.client()], self.port)
                self.sessions.append(session)
                bridge.connect(session)
                self.progress(its)
                continue
            session = begin(f"key{index}", self.server(), self.client(), self.port)
            self.sessions.append(session)
            session.call(session.callee)
            for step in range(its):
                self.usual(index, step)
        if first == "bridge" and flags is not None:
            self.bridge(0, who, flags[0], flags[1:5], flags[5])
        elif first == "enters" and flags is not None:
            self.enters(0, who, flags[0], flags[1], 0)
        elif first == "knock" and flags is not None:
            self.enters(0, 1, flags[0], True, 0)
        elif first == "transfer":
            self.transfer(who, whom)
        self.progress(many)

    def usual(self, index: int, step: int) -> None:
        """One step of a call as most are."""
        if step == 0:
            self.callee_answers(180, "b1")
        elif step == 1:
            self.callee_answers(200, "b1")
        elif step == 2:
            self.ack(index, 0)
        else:
            self.request(index, 0, "INVITE", False)

    @rule(many=st.integers(1, 3))
    def progress(self, many: int) -> None:
        """Somebody agrees to what is asked of him, for so many steps."""
        for _ in range(many):
            invites = [place for place, one in enumerate(self.port.waiting) if one[0] == "INVITE"]
            ringing = [one for one in self.port.called if not one.final and one.leg.state is not State.CANCELLING]
            answered = [leg for leg in self.legs if leg.role is Role.SERVER and leg.state is State.ANSWERED]
            if invites:
                self.answered(invites[0], 200)
            elif answered:
                session = next(one for one in self.sessions if answered[0] in one.legs)
                self.port.where(answered[0], session).acknowledged(answered[0], made("ACK", answered[0].key, 1))
            elif ringing:
                ringing[0].answered(200, "b1")

    @rule(status=st.sampled_from([488, 491, 481, 0]), silent=st.booleans())
    def refuse(self, status: int, silent: bool) -> None:
        """The last re-INVITE of ours is refused, or the last call."""
        invites = [place for place, one in enumerate(self.port.waiting) if one[0] == "INVITE"]
        if invites:
            self.answered(invites[-1], status)
        else:
            self.port.called[-1].silent(408) if silent else self.port.called[-1].answered(486, "b1")

    def which(self, index: int) -> Session:
        """One of the sessions."""
        return self.sessions[index % len(self.sessions)]

    def where(self, index: int, who: int) -> tuple[Session, Leg]:
        """A leg, and where it is now."""
        session = self.which(index)
        if not session.pair:  # its legs belong to another one now
            session = self.session
        leg = session.legs[who % len(session.legs)]
        return self.port.where(leg, session), leg

    @rule(status=st.sampled_from(STATUSES), tag=st.sampled_from(["b1", "b2"]), which=st.integers(0, 5))
    def callee_answers(self, status: int, tag: str, which: int = 0) -> None:
        """The INVITE of a client leg is answered; a 2xx may be so again."""
        self.port.called[-1 - which % len(self.port.called)].answered(status, tag)

    @rule(which=st.integers(0, 2))
    def callee_picks_up(self, which: int) -> None:
        """More often than all other answers."""
        self.callee_answers(200, "b1", which)

    @rule(status=st.sampled_from([0, 408, 503]), which=st.integers(0, 5))
    def callee_is_silent(self, status: int, which: int = 0) -> None:
        """It never is."""
        self.port.called[-1 - which % len(self.port.called)].silent(status)

    @rule(
        index=st.integers(0, 1), who=st.integers(0, 4), method=st.sampled_from(["INVITE", "BYE", "INFO", "UPDATE", "REFER"]),
        old=st.booleans(),
    )
    def request(self, index: int, who: int, method: str, old: bool) -> None:
        """Somebody sends a request, now and then with an old number."""
        self.number += 1
        session, leg = self.where(index, who)
        token = Token(method)
        self.tokens.append(token)
        session.request(leg, made(method, leg.key, 1 if old and method == "INFO" else self.number), token)

    @rule(index=st.integers(0, 1), who=st.integers(0, 4))
    def ack(self, index: int, who: int) -> None:
        """Somebody acknowledges."""
        session, leg = self.where(index, who)
        session.acknowledged(leg, made("ACK", leg.key, 1))

    @rule(index=st.integers(0, 1), who=st.integers(0, 4))
    def cancel(self, index: int, who: int) -> None:
        """Somebody cancels."""
        session, leg = self.where(index, who)
        session.cancelled(leg)

    @precondition(lambda self: self.port.waiting)
    @rule(which=st.integers(0, 5), status=st.sampled_from([0, 200, 200, 200, *STATUSES]))
    def answered(self, which: int, status: int) -> None:
        """A request of ours is answered; a 2xx to an INVITE may come again."""
        place = which % len(self.port.waiting)
        method, heard, request = self.port.waiting[place]
        if status >= 200 or status == 0:
            del self.port.waiting[place]
        tag = self.port.dialogs[request.call_id, request.cseq.number].id.remote_tag
        response = answer(request, status or 408, tag)
        if method == "INVITE" and 200 <= status < 300:
            self.port.owed.add((request.call_id, tag, request.cseq.number))
            heard(status, response)
        heard(status, response if status else None)

    @precondition(lambda self: self.port.timers)
    @rule(which=st.integers(0, 5))
    def time_passes(self, which: int) -> None:
        """A timer fires."""
        self.port.timers[-1 - which % len(self.port.timers)].fire()

    @rule(
        index=st.integers(0, 1), who=st.integers(0, 1), media=st.booleans(), watched=st.booleans(),
        flags=st.lists(st.booleans(), min_size=4, max_size=4),
    )
    def bridge(self, index: int, who: int, media: bool, flags: list[bool], watched: bool) -> None:
        """Somebody is joined with somebody new, if that can be."""
        session = self.which(index)
        kept = session.pair[who] if session.pair else None
        if kept is not None and bridge.can_begin(session, kept):
            hold, early_offer, rollback, wait = flags
            bridge.begin(session, Bridge(
                kept, self.client(), media=self.client() if media else None, hold=hold, early_offer=early_offer,
                rollback=rollback, wait=wait, watcher=session.other(kept) if watched else None,
            ))

    @rule(index=st.integers(0, 1), who=st.integers(0, 1), late=st.booleans(), early=st.booleans(), delay=st.sampled_from([0, 2]))
    def enters(self, index: int, who: int, late: bool, early: bool, delay: int) -> None:
        """Somebody is joined with a caller."""
        session = self.which(index)
        kept = session.pair[who] if session.pair else None
        if kept is not None and bridge.can_begin(session, kept, caller=True, early=early):
            new = self.server()
            new.dialog = Dialog.as_uas(new.invite, new.key)
            bridge.begin(session, Bridge(kept, new, wait=late, rollback=late, delay=delay, update=early))

    @rule(who=st.integers(0, 1), whom=st.integers(0, 1))
    def transfer(self, who: int, whom: int) -> None:
        """Somebody is joined with one of the other session."""
        if len(self.sessions) < 2 or not all(session.pair for session in self.sessions):
            return
        session, lender = self.sessions
        kept, new = session.pair[who], lender.pair[whom]
        if bridge.can_begin(session, kept) and kept.state is State.TALKING and bridge.can_lend(lender, new):
            bridge.begin(session, Bridge(kept, new, rollback=True, lender=lender, watcher=session.other(kept)))

    @rule(index=st.integers(0, 1))
    def retry(self, index: int) -> None:
        """The script calls another one: in the place of one that is over, or not."""
        session = self.which(index)
        if session.pair:
            bridge.retry(session, self.client())

    @rule(index=st.integers(0, 1), who=st.integers(0, 4), drop=st.booleans(), then=st.booleans())
    def alone(self, index: int, who: int, drop: bool, then: bool) -> None:
        """A leg ends alone; the other one is joined with somebody else, or not."""
        session, leg = self.where(index, who)
        if leg not in session.legs:
            return
        other = session.other(leg) if leg in session.pair else None
        (session.drop if drop else session.part)(leg)
        if other is not None and then and bridge.can_begin(session, other):
            bridge.begin(session, Bridge(other, self.client()))
        session.settle()

    @rule(index=st.integers(0, 1))
    def end(self, index: int) -> None:
        """Somebody ends the session."""
        self.which(index).end()

    @rule(index=st.integers(0, 1), who=st.integers(0, 1))
    def refreshed(self, index: int, who: int) -> None:
        """The session timer of one side runs down."""
        session, leg = self.where(index, who)
        if leg.state is State.TALKING and session.pair:
            session.refresh(leg)

    @rule(index=st.integers(0, 1))
    def transparent(self, index: int) -> None:
        """Challenges pass from now on."""
        self.where(index, 0)[1].flags.add(TRANSPARENT)

    @invariant()
    def over_once(self) -> None:
        """A session is over when all its legs are, and says so once."""
        for session in self.sessions:
            lent = session.lent_to is not None and not session.over
            over = all(leg.state is State.OVER for leg in session.pair) and not session.aside
            assert session.over == over or lent, [leg.state for leg in session.legs]
            assert self.port.over.count(session) == int(session.over)

    @invariant()
    def together(self) -> None:
        """If one of a pair has begun to end, so has the other; or there is a bridge."""
        for session in self.sessions:
            if session.bridge is None and session.lent_to is None:
                assert len({leg.state in ENDING for leg in session.pair}) < 2, [leg.state for leg in session.legs]
            elif session.bridge is not None:
                assert session.bridge.stage not in (Stage.BEGUN, Stage.FAILED, Stage.OVER), session.bridge
                assert session.bridge.kept.state not in ENDING, session.bridge

    def teardown(self) -> None:
        """Everything is answered at last: nothing is left."""
        for session in self.sessions:
            session.end()
        for _ in range(8):
            for called in self.port.called:
                called.silent(408)
            for timer in self.port.timers:
                timer.fire()
            waiting, self.port.waiting = self.port.waiting, []
            for _method, heard, _request in waiting:
                heard(408, None)
        for session in self.sessions:
            assert session.over and self.port.over.count(session) == 1, [leg.state for leg in session.legs]
        for token in self.tokens:
            assert sum(status >= 200 for status in token.statuses) == 1, (token.method, token.statuses)
        assert all(leg.exchange is None for leg in self.legs)
        assert all(leg.state in (State.OVER, State.PLANNED) for leg in self.legs), [leg.state for leg in self.legs]
        assert not self.port.owed - self.port.paid, (self.port.owed - self.port.paid, self.port.said)


class SessionTests(SynchronousTestCase):
    """The machine above, and what it would find too seldom."""

    def test_everything(self) -> None:
        """Every message at every state."""
        size = 6000 if NIGHTLY else 150
        run_state_machine_as_test(
            Calling, settings=settings(max_examples=size, stateful_step_count=40, derandomize=not NIGHTLY, deadline=None)
        )

    def test_usual(self) -> None:
        """A whole call, word by word."""
        machine = Calling()
        machine.begins([2])
        self.assertEqual(machine.port.said, [])
        machine.ack(0, 0)
        machine.request(0, 1, "BYE", False)
        self.assertEqual(machine.port.said, ["client ACK 12", "server BYE"])
        self.assertEqual([token.statuses for token in machine.tokens], [[180, 200], [200]])
        machine.answered(0, 200)
        self.assertTrue(machine.session.over)
