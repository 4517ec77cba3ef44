"""Tests of sipgw.b2bua.own: every message at every state; one final answer to each request, and the call always ends."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.legs import Leg, Role
from sipgw.b2bua.own import Flags, OwnSession, parse_flags
from sipgw.b2bua.port import NOTHING
from sipgw.sip.message import Message
from tests.b2bua.test_session import STATUSES, FakePort, Timer, Token, answer, made

METHODS = ["INVITE", "UPDATE", "INFO", "BYE"]


class Speaking(RuleBasedStateMachine):
    """A call at which anything is thrown."""

    def __init__(self) -> None:
        super().__init__()
        self.port = FakePort()
        self.tokens: list[Token] = []
        self.told: list[str] = []
        self.number = 1

    @initialize(role=st.sampled_from(Role), letters=st.sampled_from(["", "ar", "ard"]))
    def begin(self, role: Role, letters: str) -> None:
        leg = Leg("k1", role, made("INVITE", "k1", 1))
        if role is Role.SERVER:
            leg.token = Token("INVITE")
            self.tokens.append(leg.token)
        self.session = OwnSession(leg, self.port, self.tell, letters)  # type: ignore[arg-type]
        self.session.call()

    def tell(self, session: OwnSession, kind: str, method: str, message: Message | None, status: int) -> None:
        assert session is self.session
        self.told.append(kind)

    @rule(status=st.sampled_from(STATUSES), tag=st.sampled_from("bc"))
    @precondition(lambda self: self.session.leg.role is Role.CLIENT)
    def hears(self, status: int, tag: str) -> None:
        response = answer(self.session.leg.invite, status, tag)
        self.session.heard(self.session.leg, status, response)
        if 200 <= status < 300:
            self.session.success(self.session.leg, response)

    @rule()
    @precondition(lambda self: self.session.leg.role is Role.CLIENT)
    def nobody(self) -> None:
        self.session.heard(self.session.leg, 408, None)

    @rule(method=st.sampled_from(METHODS))
    def asked(self, method: str) -> None:
        self.number += 1
        token = Token(method)
        self.tokens.append(token)
        self.session.request(self.session.leg, made(method, "k1", self.number), token)

    @rule()
    def acknowledged(self) -> None:
        self.session.acknowledged(self.session.leg, made("ACK", "k1", 1))

    @rule()
    def cancelled(self) -> None:
        self.session.cancelled(self.session.leg)

    @rule(method=st.sampled_from(METHODS[:3]), status=st.sampled_from(STATUSES))
    def replies(self, method: str, status: int) -> None:
        self.session.reply(method, status, "", NOTHING)

    @rule(method=st.sampled_from([*METHODS, "ACK", "CANCEL"]))
    def sends(self, method: str) -> None:
        self.session.update(method, NOTHING)

    @rule(data=st.data(), status=st.sampled_from(STATUSES))
    @precondition(lambda self: self.port.waiting)
    def is_answered(self, data: Any, status: int) -> None:
        method, heard, request = data.draw(st.sampled_from(self.port.waiting))
        if status >= 200 and (method != "INVITE" or status >= 300):
            self.port.waiting.remove((method, heard, request))
        heard(status, answer(request, status, "b"))

    @rule(data=st.data())
    @precondition(lambda self: self.port.timers)
    def time_passes(self, data: Any) -> None:
        data.draw(st.sampled_from(self.port.timers)).fire()

    def teardown(self) -> None:
        """It is ended by force; then all timers fire and all that waits is refused: nothing is left."""
        session = getattr(self, "session", None)
        if session is None:
            return
        session.expired()
        if session.leg.role is Role.CLIENT:
            session.heard(session.leg, 487, None)
        for _ in range(3):
            timers: list[Timer] = list(self.port.timers)
            for timer in timers:
                timer.fire()
            waiting, self.port.waiting = self.port.waiting, []
            for _, heard, _ in waiting:
                heard(408, None)
        assert session.over and self.port.ends == 1
        assert not self.port.waiting
        for token in self.tokens:
            assert sum(status >= 200 for status in token.statuses) == 1, (token.method, token.statuses)


class OwnSessionTests(SynchronousTestCase):
    """The machine, and the flags."""

    def test_everything_everywhere(self) -> None:
        """No order of events leaves a request unanswered, or the call open."""
        run_state_machine_as_test(
            Speaking, settings=settings(max_examples=150, stateful_step_count=25, deadline=None, derandomize=True)
        )

    def test_flags(self) -> None:
        """A limit and letters, in any order."""
        for text, found in (
            ("", Flags()), ("t3600", Flags(3600)), ("at60rb", Flags(60, "arb")), ("t", Flags()), ("hbn", Flags(0, "hbn")),
        ):
            self.assertEqual(parse_flags(text), found)
        for text in ("x", "a b", "t-1"):
            with self.assertRaises(ValueError):
                parse_flags(text)
