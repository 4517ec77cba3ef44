"""Tests of sipgw.sip.reliable (RFC 3262)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.message import Request, Response, parse
from sipgw.sip.reliable import MAX_DIALOGS, Heard, RAck, Said, demands, number_of, speaks

HEAD = "Via: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=f\r\nTo: <sip:b@x>;tag=t\r\nCall-ID: c\r\n"


def request(more: str) -> Request:
    """A PRACK with ``more``."""
    made = parse(f"PRACK sip:b@x SIP/2.0\r\n{HEAD}CSeq: 2 PRACK\r\n{more}\r\n".encode())
    assert isinstance(made, Request)
    return made


def response(status: int, more: str, method: str = "INVITE") -> Response:
    """A response with ``more``."""
    made = parse(f"SIP/2.0 {status} X\r\n{HEAD}CSeq: 1 {method}\r\n{more}\r\n".encode())
    assert isinstance(made, Response)
    return made


class SayingTests(SynchronousTestCase):
    """What a message says."""

    def test_tags(self) -> None:
        """Who demands them knows them."""
        for more, found in (
            ("Supported: timer, 100Rel\r\n", (False, True)), ("k: 100rel\r\n", (False, True)),
            ("Require: 100rel\r\n", (True, True)), ("Require: x\r\nRequire: y,100rel\r\n", (True, True)),
            ("Supported: timer\r\n", (False, False)), ("", (False, False)),
        ):
            message = request(more)
            self.assertEqual((demands(message), speaks(message)), found, more)

    def test_numbers(self) -> None:
        """A reliable response is a 101 to 199 to an INVITE that demands 100rel and has a number."""
        good = "Require: 100rel\r\nRSeq: 776656\r\n"
        self.assertEqual(number_of(response(183, good)), 776656)
        for one in (
            response(100, good), response(200, good), response(183, good, "INFO"), response(183, "RSeq: 1\r\n"),
            response(183, "Require: 100rel\r\n"), response(183, "Require: 100rel\r\nRSeq: x\r\n"),
            response(183, "Require: 100rel\r\nRSeq: 0\r\n"), response(183, "Require: 100rel\r\nRSeq: 4294967296\r\n"),
        ):
            self.assertIsNone(number_of(one))

    def test_rack(self) -> None:
        """Three words, two of them numbers."""
        self.assertEqual(RAck.of(request("RAck: 776656 1 INVITE\r\n")), (776656, 1, "INVITE"))
        self.assertEqual(str(RAck(5, 2)), "5 2 INVITE")
        for wrong in ("", "RAck: 1 INVITE\r\n", "RAck: a 1 INVITE\r\n", "RAck: 1 b INVITE\r\n", "RAck: 1 1 INVITE x\r\n"):
            self.assertIsNone(RAck.of(request(wrong)))


class CountingTests(SynchronousTestCase):
    """The numbers of either side."""

    def test_heard(self) -> None:
        """Only what is next in its dialog counts; any number may be the first."""
        heard = Heard()
        for tag, number, taken in (
            ("a", 7, True), ("a", 7, False), ("a", 9, False), ("a", 8, True), ("b", 3, True), ("a", 9, True),
        ):
            self.assertEqual(heard.take(tag, number), taken, (tag, number))
        for count in range(MAX_DIALOGS - 2):
            self.assertTrue(heard.take(f"x{count}", 1))
        self.assertFalse(heard.take("one more", 1))

    def test_said(self) -> None:
        """Numbers go up by one, and a PRACK names the one that waits."""
        said = Said(1, 100)
        self.assertEqual(said.next(), 100)
        for wrong in (RAck(99, 1), RAck(100, 2), RAck(100, 1, "INFO")):
            self.assertFalse(said.take(wrong))
        self.assertTrue(said.take(RAck(100, 1)))
        self.assertFalse(said.take(RAck(100, 1)))
        self.assertEqual(said.next(), 101)
