"""Tests of sipgw.b2bua.session: every message at every state; one final answer to each request, both legs always end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua import bridge
from sipgw.b2bua.legs import Leg, Role, State
from sipgw.b2bua.port import NOTHING, Content
from sipgw.b2bua.session import Session, begin
from sipgw.sip.dialog import Dialog
from sipgw.sip.message import Message, Request, Response, parse

STATUSES = [100, 180, 183, 200, 202, 302, 401, 408, 481, 486, 491, 500, 603]


def made(method: str, key: str, number: int) -> Request:
    """A request, of which little counts."""
    found = parse(
        f"{method} sip:b@192.0.2.2 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=f\r\n"
        f"To: <sip:b@x>\r\nCall-ID: {key}\r\nCSeq: {number} {method}\r\nContact: <sip:a@192.0.2.1>\r\n\r\n".encode()
    )
    assert isinstance(found, Request)
    return found


def answer(to: Request, status: int, tag: str) -> Response:
    """A response to it."""
    found = parse(
        f"SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=f\r\n"
        f"To: <sip:b@x>;tag={tag}\r\n"
        f"Call-ID: {to.call_id}\r\nCSeq: {to.header('CSeq')}\r\nContact: <sip:b@192.0.2.2>\r\n\r\n".encode()
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

    def __init__(self, session: Session, leg: Leg) -> None:
        self.session = session
        self.leg = leg
        self.final = False

    def answered(self, status: int, tag: str) -> None:
        """It is answered; a 2xx may be so again."""
        if self.final and not 200 <= status < 300:
            return
        response = answer(self.leg.invite, status, tag)
        if 200 <= status < 300:
            self.session.success(self.leg, response)
        if not self.final:
            self.final = status >= 200
            self.session.heard(self.leg, status, response)

    def silent(self, status: int) -> None:
        """It never is."""
        if not self.final:
            self.final = True
            self.session.heard(self.leg, status, None)


class FakePort:
    """Writes down what a session asks for."""

    def __init__(self) -> None:
        self.called: list[Called] = []
        self.waiting: list[tuple[str, Callable[[int, Response | None], None], Request]] = []
        self.said: list[str] = []
        self.timers: list[Timer] = []
        self.ends = 0
        self.number = 100

    def reply(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> None:
        if token is None:
            raise AssertionError("an answer to nothing")
        if any(given >= 200 for given in token.statuses):
            raise AssertionError(f"{status} to {token.method} after {token.statuses}")
        token.statuses.append(status)

    def call(self, session: Session, leg: Leg, content: Content) -> None:
        assert all(called.leg is not leg for called in self.called)
        self.called.append(Called(session, leg))

    def send(self, leg: Leg, method: str, content: Content, heard: Callable[[int, Response | None], None]) -> int:
        assert leg.dialog is not None
        self.number += 1
        self.said.append(f"{leg.role.value} {method}")
        self.waiting.append((method, heard, made(method, leg.key, self.number)))
        return self.number

    def acknowledge(self, leg: Leg, dialog: Dialog, number: int, content: Content) -> None:
        self.said.append(f"{leg.role.value} ACK {number}")

    def cancel(self, leg: Leg, number: int) -> None:
        self.said.append(f"{leg.role.value} CANCEL")

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(call))
        return self.timers[-1]

    def content(self, message: Message, leg: Leg) -> Content:
        return NOTHING

    def forget(self, leg: Leg) -> None:
        assert leg.is_over

    def ended(self, session: Session) -> None:
        self.ends += 1


class Calling(RuleBasedStateMachine):
    """A session at which anything is thrown."""

    def __init__(self) -> None:
        super().__init__()
        self.port = FakePort()
        caller = Leg("k1", Role.SERVER, made("INVITE", "k1", 1))
        self.session = begin("key", caller, Leg("k2", Role.CLIENT, made("INVITE", "k2", 2)), self.port)
        self.tokens = [Token("INVITE")]
        caller.token = self.tokens[0]
        self.number = 10
        self.session.call(self.session.callee)

    @initialize(steps=st.integers(0, 4))
    def begins(self, steps: int) -> None:
        """It rings, is answered, acknowledged, and a re-INVITE is on its way: or only some of that."""
        for step in (
            lambda: self.callee_answers(180, "b1"), lambda: self.callee_answers(200, "b1"), lambda: self.ack(0),
            lambda: self.request(0, "INVITE", False),
        )[:steps]:
            step()

    @rule(status=st.sampled_from(STATUSES), tag=st.sampled_from(["b1", "b2"]), which=st.integers(0, 5))
    def callee_answers(self, status: int, tag: str, which: int = 0) -> None:
        """The INVITE of a client leg is answered; a 2xx may be so again."""
        self.port.called[-1 - which % len(self.port.called)].answered(status, tag)

    @rule(status=st.sampled_from([0, 408, 503]), which=st.integers(0, 5))
    def callee_is_silent(self, status: int, which: int = 0) -> None:
        """It never is."""
        self.port.called[-1 - which % len(self.port.called)].silent(status)

    @rule(who=st.sampled_from([0, 1]), method=st.sampled_from(["INVITE", "BYE", "INFO", "UPDATE"]), old=st.booleans())
    def request(self, who: int, method: str, old: bool) -> None:
        """Somebody sends a request, now and then with an old number."""
        self.number += 1
        token = Token(method)
        self.tokens.append(token)
        leg = self.session.pair[who]
        self.session.request(leg, made(method, leg.key, 1 if old and method == "INFO" else self.number), token)

    @rule(who=st.sampled_from([0, 1]))
    def ack(self, who: int) -> None:
        """Somebody acknowledges."""
        leg = self.session.pair[who]
        self.session.acknowledged(leg, made("ACK", leg.key, 1))

    @rule(who=st.sampled_from([0, 1]))
    def cancel(self, who: int) -> None:
        """Somebody cancels."""
        self.session.cancelled(self.session.pair[who])

    @precondition(lambda self: self.port.waiting)
    @rule(which=st.integers(0, 5), status=st.sampled_from([0, *STATUSES]))
    def answered(self, which: int, status: int) -> None:
        """A request of ours is answered; a 2xx to an INVITE may come again."""
        place = which % len(self.port.waiting)
        method, heard, request = self.port.waiting[place]
        if status >= 200 or status == 0:
            del self.port.waiting[place]
        heard(status, answer(request, status, "b1") if status else None)
        if method == "INVITE" and 200 <= status < 300:
            heard(status, answer(request, status, "b1"))

    @precondition(lambda self: self.port.timers)
    @rule(which=st.integers(0, 5))
    def time_passes(self, which: int) -> None:
        """A timer fires."""
        self.port.timers[which % len(self.port.timers)].fire()

    @rule(who=st.sampled_from([0, 1]))
    def bridge(self, who: int) -> None:
        """Somebody is joined with somebody else, if that can be."""
        kept = self.session.pair[who]
        if bridge.can_begin(self.session, kept):
            self.number += 1
            key = f"k{self.number}"
            bridge.begin(self.session, kept, Leg(key, Role.CLIENT, made("INVITE", key, self.number)))

    @rule(who=st.sampled_from([0, 1]))
    def drop(self, who: int) -> None:
        """A leg has ended by itself, and nobody joins the other one."""
        self.session.drop(self.session.pair[who]) if self.session.pair[who].state is State.TALKING else None
        self.session.settle()

    @rule()
    def end(self) -> None:
        """Somebody ends the session."""
        self.session.end()

    @invariant()
    def over_once(self) -> None:
        """It is over when both legs are, and says so once."""
        over = all(leg.state is State.OVER for leg in self.session.pair) and not self.session.aside
        assert (self.session.over, self.port.ends) == (over, int(over))

    @invariant()
    def together(self) -> None:
        """If a leg has begun to end, so has the other."""
        states = [leg.state for leg in self.session.pair]
        ending = {State.OVER, State.LEAVING, State.PARTING, State.CANCELLING}
        assert (states[0] in ending) == (states[1] in ending), states

    def teardown(self) -> None:
        """Everything is answered at last: nothing is left."""
        self.session.end()
        for called in self.port.called:
            called.silent(408)
        for _ in range(3):
            for timer in self.port.timers:
                timer.fire()
            waiting, self.port.waiting = self.port.waiting, []
            for _method, heard, _request in waiting:
                heard(408, None)
        assert self.session.over and self.port.ends == 1, [leg.state for leg in self.session.pair]
        for token in self.tokens:
            assert sum(status >= 200 for status in token.statuses) == 1, (token.method, token.statuses)
        assert all(leg.exchange is None for leg in self.session.pair)


class SessionTests(SynchronousTestCase):
    """The machine above, and what it would find too seldom."""

    def test_everything(self) -> None:
        """Every message at every state."""
        run_state_machine_as_test(
            Calling, settings=settings(max_examples=150, stateful_step_count=30, derandomize=True, deadline=None)
        )

    def test_usual(self) -> None:
        """A whole call, word by word."""
        machine = Calling()
        machine.callee_answers(180, "b1")
        machine.callee_answers(200, "b1")
        self.assertEqual(machine.port.said, [])
        machine.ack(0)
        machine.request(1, "BYE", False)
        self.assertEqual(machine.port.said, ["client ACK 2", "server BYE"])
        self.assertEqual([token.statuses for token in machine.tokens], [[180, 200], [200]])
        machine.answered(0, 200)
        self.assertTrue(machine.session.over)
