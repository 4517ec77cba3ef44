"""Tests of sipgw.proxy.ahead."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.ahead import AFTERLIFE, LIFETIME, Ahead
from sipgw.sip.message import Message, parse


def made(method: str, number: int, from_tag: str = "a", to_tag: str = "b") -> Message:
    """A request within a call."""
    return parse(
        f"{method} sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag={from_tag}\r\n"
        f"To: <sip:b@x>;tag={to_tag}\r\nCall-ID: c\r\nCSeq: {number} {method}\r\n\r\n".encode()
    )


class AheadTests(SynchronousTestCase):
    """Numbers that go on."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ahead = Ahead(self.clock.seconds)

    def test_numbers(self) -> None:
        """What comes after is as far ahead, an ACK as its INVITE was; the other side is not."""
        self.assertEqual(self.ahead.find(made("INFO", 1)), 0)
        self.ahead.note(made("INVITE", 2), 1)
        self.ahead.note(made("BYE", 3), 2)
        self.assertEqual(self.ahead.find(made("ACK", 2)), 1)
        self.assertEqual(self.ahead.find(made("INVITE", 4)), 2)
        self.assertEqual(self.ahead.find(made("ACK", 4)), 2)
        self.assertEqual(self.ahead.find(made("INVITE", 4, "b", "a")), 0)
        for number in range(5, 60):
            self.ahead.find(made("INVITE", number))
        self.assertEqual(self.ahead.find(made("ACK", 2)), 2)  # forgotten: there are many by now

    def test_end(self) -> None:
        """A side is forgotten soon after a BYE of either, or when nothing has come for long."""
        for call, over in (("a", "a"), ("a", "b"), ("b", "b")):
            other = "b" if call == "a" else "a"
            self.ahead.note(made("INFO", 2, call, other), 1)
            self.ahead.over(made("BYE", 3, over, "b" if over == "a" else "a"))
            self.clock.advance(AFTERLIFE)
            self.ahead.sweep()
            self.assertEqual(len(self.ahead), 0)
        self.ahead.note(made("INFO", 2), 1)
        self.clock.advance(LIFETIME - 1)
        self.ahead.sweep()
        self.assertEqual(len(self.ahead), 1)
        self.clock.advance(1)
        self.ahead.sweep()
        self.assertEqual(len(self.ahead), 0)
