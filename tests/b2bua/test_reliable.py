"""Tests of sipgw.b2bua.reliable: any answers, PRACKs and silence, in any order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.legs import Leg, Role
from sipgw.b2bua.port import NOTHING, Content, Origin
from sipgw.b2bua.reliable import Reliability, Reply
from sipgw.sip.dialog import Dialog
from sipgw.sip.message import Request, Response, parse
from tests.b2bua.test_session import Timer, answer, made


class Asked:
    """An INVITE that came, and what it was answered."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.status = 0


class Saying:
    """The port: writes down what goes out."""

    t1 = 0.5

    def __init__(self) -> None:
        self.said: list[tuple[int, int]] = []
        """Statuses, each with its RSeq or 0."""
        self.repeated = 0
        self.pracks: list[str] = []
        self.timers: list[Timer] = []
        self.refused = False

    def say(self, leg: Leg, token: Asked, status: int, reason: str, content: Content) -> bytes:
        assert token.status < 200
        token.status = status
        number = content.headers.rpartition("RSeq: ")[2].strip()
        self.said.append((status, int(number or 0)))
        return b""

    def repeat(self, token: Asked, status: int, data: bytes) -> None:
        assert token.status < 200
        self.repeated += 1

    def send(
        self, leg: Leg, method: str, content: Content, heard: Callable[[int, Response | None], None], dialog: Dialog | None = None
    ) -> int:
        assert method == "PRACK" and dialog is not None
        self.pracks.append(content.headers.strip())
        return 3

    def unacknowledged(self, leg: Leg, token: Asked) -> None:
        self.refused = True
        self.say(leg, token, 504, "", NOTHING)

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(call))
        return self.timers[-1]


def head(message: Request | Response) -> str:
    """The lines of a message that do not speak of its body."""
    return "\r\n".join(line for line in message.lines if not line.startswith("Content-"))


def invite(more: str = "") -> Request:
    """An INVITE with more lines."""
    text = head(made("INVITE", "k1", 1))
    found = parse(f"{text}\r\n{more}\r\n".encode())
    assert isinstance(found, Request)
    return found


def prack(number: int, tag: str = "k1") -> Request:
    """A PRACK that names a response."""
    text = head(made("PRACK", "k1", 2)).replace("To: <sip:b@x>", f"To: <sip:b@x>;tag={tag}")
    found = parse(f"{text}\r\nRAck: {number} 1 INVITE\r\n\r\n".encode())
    assert isinstance(found, Request)
    return found


def note(heard: list[int], status: int, _response: Response | None) -> None:
    """Take note of a status."""
    heard.append(status)


class Ringing(RuleBasedStateMachine):
    """A caller who knows reliable responses, or demands them."""

    def __init__(self) -> None:
        super().__init__()
        self.port = Saying()
        self.reliability = Reliability(self.port)
        self.leg = Leg("k1", Role.SERVER, made("INVITE", "k1", 1))
        self.final = 0

    @initialize(demands=st.booleans())
    def begin(self, demands: bool) -> None:
        self.demands = demands
        self.token = Asked(invite("Require: 100rel\r\n" if demands else "Supported: 100rel\r\n"))

    @rule(status=st.sampled_from([180, 183, 200, 486]), reliable=st.booleans(), body=st.booleans())
    def replies(self, status: int, reliable: bool, body: bool) -> None:
        if self.final or self.token.status >= 200:
            return
        origin = Origin("t", len(self.port.said) + 1, 2) if reliable and status < 200 else None
        reply = Reply(status, "", Content("", b"x" if body else b"", "", origin))
        taken = self.reliability.takes(self.leg, self.token, reply)
        if status < 200:
            assert taken == (self.demands or reliable)
        else:
            self.final = status
            assert not (taken and status >= 300)
        if not taken:
            self.port.say(self.leg, self.token, *reply)

    @property
    def waiting(self) -> int | None:
        """The RSeq that waits for its PRACK."""
        up = self.leg.upstream.get(0)
        return None if up is None else up.said.current

    @rule(right=st.booleans())
    def pracks(self, right: bool) -> None:
        waiting = self.waiting
        request = prack((waiting or 7) if right else 3)
        taken = self.reliability.acknowledged(self.leg, request)
        assert taken == (waiting is not None and (right or waiting == 3))
        if taken:
            self.reliability.go_on(self.leg, request)

    @rule()
    @precondition(lambda self: any(not timer.over for timer in self.port.timers))
    def time_passes(self) -> None:
        (timer,) = [timer for timer in self.port.timers if not timer.over]  # never more than one
        timer.fire()

    def teardown(self) -> None:
        """Numbers went up one by one; in the end there is one final answer, if there was to be one."""
        for _ in range(20):
            for timer in list(self.port.timers):
                timer.fire()
        numbers = [number for _, number in self.port.said if number]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        finals = [status for status, _ in self.port.said if status >= 200]
        assert len(finals) == bool(self.final or self.port.refused)
        assert all(timer.over for timer in self.port.timers)


class ReliabilityTests(SynchronousTestCase):
    """Both directions."""

    def test_toward_callers(self) -> None:
        """No order of answers, PRACKs and silence leaves an INVITE without its answer, or gives it two."""
        run_state_machine_as_test(
            Ringing, settings=settings(max_examples=150, stateful_step_count=20, deadline=None, derandomize=True)
        )

    def test_toward_callees(self) -> None:
        """Who acknowledges: we at once, or the caller where he can and is to; what is not next is neither."""
        ours = made("INVITE", "k2", 2)
        knows, ignorant = invite("Supported: 100rel\r\n"), invite()
        for passes, asker, offered, has_body, by_us in (
            (False, knows, True, True, True), (False, None, False, True, True), (False, knows, False, True, False),
            (False, knows, False, False, True), (False, ignorant, False, True, True), (True, knows, True, True, False),
            (True, ignorant, True, True, True), (True, None, True, True, True),
        ):
            port = Saying()
            reliability = Reliability(port, passes)
            leg = Leg("k2", Role.CLIENT, ours)
            text = head(answer(ours, 183, "t"))
            body = "Content-Length: 1\r\n\r\nx" if has_body else "\r\n"
            response = parse(f"{text}\r\nRequire: 100rel\r\nRSeq: 9\r\n{body}".encode())
            assert isinstance(response, Response)
            leg.ring(response)
            self.assertTrue(reliability.heard(leg, response, asker, offered))
            self.assertFalse(reliability.heard(leg, response, asker, offered))
            self.assertEqual(port.pracks, ["RAck: 9 2 INVITE"] if by_us else [])
            self.assertEqual(list(leg.unpracked), [] if by_us else [Origin("t", 9, 2)])
            heard: list[int] = []
            reliability.pass_prack(leg, Content(provisional=Origin("t", 9, 2)), partial(note, heard))
            self.assertEqual((port.pracks, heard), (["RAck: 9 2 INVITE"], [481] if by_us else []))
