"""Tests of responses, CANCEL and ACK made out of received messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import REASONS, ack_for, cancel_for, reason_for, respond_to

INVITE = (
    "INVITE sip:bob@b.example SIP/2.0\r\n"
    "v: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b\r\n"
    "Via : SIP/2.0/UDP c\r\n"
    "Max-Forwards: 12\r\n"
    "Route: <sip:r1;lr>, <sip:r2;lr>\r\n"
    "Record-Route: <sip:rr;lr>\r\n"
    "f: \"A\" <sip:a>;tag=1\r\n"
    "To: <sip:bob@b.example>\r\n"
    "Timestamp: 54\r\n"
    "Call-ID: c\r\n"
    "Route: <sip:r3>\r\n"
    "CSeq: 007 INVITE\r\n"
    "\r\n"
)


def invite(text: str = INVITE) -> Request:
    message = parse(text.encode())
    assert isinstance(message, Request)
    return message


def head(octets: bytes) -> list[str]:
    return octets.decode().partition("\r\n\r\n")[0].split("\r\n")


class RespondTests(SynchronousTestCase):
    """Tests of ``respond_to`` (RFC 3261 8.2.6)."""

    def test_copied(self) -> None:
        """The five headers come back as they came, every Via in order; To gets the tag."""
        self.assertEqual(head(respond_to(invite(), 404, to_tag="x")), [
            "SIP/2.0 404 Not Found",
            "v: SIP/2.0/UDP a;branch=z9hG4bK1, SIP/2.0/UDP b",
            "Via : SIP/2.0/UDP c",
            'f: "A" <sip:a>;tag=1',
            "To: <sip:bob@b.example>;tag=x",
            "Call-ID: c",
            "CSeq: 007 INVITE",
            "Content-Length: 0",
        ])

    def test_tag(self) -> None:
        """No tag is added to a 100, or where there is one already."""
        self.assertIn("To: <sip:bob@b.example>", head(respond_to(invite(), 100, to_tag="x")))
        tagged = invite(INVITE.replace("To: <sip:bob@b.example>", "To: <sip:bob@b.example>;TAG=y"))
        self.assertIn("To: <sip:bob@b.example>;TAG=y", head(respond_to(tagged, 200, to_tag="x")))
        self.assertIn("To: <sip:bob@b.example>", head(respond_to(invite(), 200)))

    def test_timestamp_and_record_route(self) -> None:
        """A 100 gets the Timestamp (8.2.6.1), a dialog its Record-Route when asked (12.1.1)."""
        self.assertIn("Timestamp: 54", head(respond_to(invite(), 100)))
        self.assertNotIn("Timestamp: 54", head(respond_to(invite(), 180)))
        self.assertIn("Record-Route: <sip:rr;lr>", head(respond_to(invite(), 200, record_route=True)))
        self.assertNotIn("Record-Route: <sip:rr;lr>", head(respond_to(invite(), 200)))

    def test_more(self) -> None:
        """Headers and a body of one's own come behind; a reason of one's own goes first."""
        octets = respond_to(
            invite(), 200, "Fine", headers="X: 1\r\nY: 2\r\n", body=b"hello", content_type="text/plain",
        )
        self.assertTrue(octets.startswith(b"SIP/2.0 200 Fine\r\n"))
        self.assertTrue(octets.endswith(b"\r\nX: 1\r\nY: 2\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"))
        response = parse(octets)
        response.check()
        assert isinstance(response, Response)
        self.assertEqual((response.status, response.body), (200, b"hello"))

    def test_malformed_requests_are_answered(self) -> None:
        """What could be read of a malformed request is enough to answer it."""
        for text in (
            INVITE.replace("To: <sip:bob@b.example>", 'To: "x <sip:bob@b.example>'),
            INVITE.replace("007", "x"),
            INVITE.replace("INVITE sip:bob@b.example SIP/2.0", "INVITE sip:bob@b.example  SIP/2.0"),
            INVITE.replace("Call-ID: c\r\n", ""),
        ):
            try:
                invite(text).check()
            except MalformedMessage as error:
                assert isinstance(error.message, Request)
                octets = respond_to(error.message, error.status, error.reason, to_tag="t")
                self.assertIn(b"SIP/2.0/UDP a;branch=z9hG4bK1", octets)
            else:
                self.fail("not malformed")

    def test_reasons(self) -> None:
        """An unknown status has the phrase of its class; the known ones are what RFC 3261 21 says."""
        for status, reason in (
            (200, "OK"), (486, "Busy Here"), (199, "Early Dialog Terminated"), (499, "Bad Request"), (188, "Session Progress"),
        ):
            self.assertEqual(reason_for(status), reason)
        self.assertTrue(all(100 <= status < 700 for status in REASONS))


class FollowUpTests(SynchronousTestCase):
    """Tests of ``cancel_for`` (RFC 3261 9.1) and ``ack_for`` (17.1.1.3)."""

    def test_cancel(self) -> None:
        """The CANCEL has the top Via only, the same Route, From, To, Call-ID and CSeq number."""
        self.assertEqual(head(cancel_for(invite())), [
            "CANCEL sip:bob@b.example SIP/2.0",
            "Via: SIP/2.0/UDP a;branch=z9hG4bK1",
            "Route: <sip:r1;lr>, <sip:r2;lr>",
            "Route: <sip:r3>",
            'f: "A" <sip:a>;tag=1',
            "To: <sip:bob@b.example>",
            "Call-ID: c",
            "CSeq: 7 CANCEL",
            "Max-Forwards: 70",
            "Content-Length: 0",
        ])

    def test_ack(self) -> None:
        """The ACK has the To of the response."""
        request = invite()
        response = parse(respond_to(request, 486, to_tag="x"))
        assert isinstance(response, Response)
        lines = head(ack_for(request, response, "X: y"))
        self.assertEqual(lines[0], "ACK sip:bob@b.example SIP/2.0")
        self.assertIn("To: <sip:bob@b.example>;tag=x", lines)
        self.assertIn("CSeq: 7 ACK", lines)
        self.assertIn("X: y", lines)
        parse(ack_for(request, response)).check()
