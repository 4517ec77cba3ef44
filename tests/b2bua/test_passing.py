"""Tests of sipgw.b2bua.passing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.passing import Passing
from sipgw.b2bua.port import Origin
from sipgw.sip.message import parse

HEAD = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=f\r\nTo: <sip:b@x>\r\n"


class PassingTests(SynchronousTestCase):
    """Tables of headers."""

    def test_headers(self) -> None:
        """What passes, asked for by name, by a pattern, or not at all; never what each side has of its own."""
        for given, names, pattern, passed in (
            ("Allow: INVITE\r\nSubject: x\r\n", (), None, "Allow: INVITE\r\n"),
            ("Subject: x\r\n", ("subject",), None, "Subject: x\r\n"),
            ("s: x\r\n", ("subject",), None, "s: x\r\n"),
            ("X-A: 1\r\nY-A: 2\r\n", (), lambda name: name.startswith("X"), "X-A: 1\r\n"),
            ("Contact: <sip:a@h>\r\nRoute: <sip:r>\r\n", ("Contact", "Via"), lambda name: True, ""),
            ("k: 100rel\r\n", (), None, "k: 100rel\r\n"),
            ("RSeq: 1\r\nRAck: 1 1 INVITE\r\n", ("RSeq", "RAck"), None, ""),
            ("Refer-To: <sip:c@x>\r\nReferred-By: <sip:a@x>\r\n", (), None, "Refer-To: <sip:c@x>\r\nReferred-By: <sip:a@x>\r\n"),
        ):
            message = parse(f"{HEAD}{given}\r\n".encode())
            self.assertEqual(Passing(names, pattern).content(message).headers, passed, given)

    def test_body(self) -> None:
        """A body comes with its type; without one there is no type."""
        with_body = parse(f"{HEAD}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi".encode())
        found = Passing().content(with_body)
        self.assertEqual((found.body, found.content_type, found.headers), (b"hi", "text/plain", "Supported: 100rel\r\n"))
        self.assertEqual(Passing().content(parse(f"{HEAD}Content-Type: text/plain\r\n\r\n".encode())).content_type, "")

    def test_reliable(self) -> None:
        """An INVITE with an offer says that we know 100rel, one without what its sender says; a response never demands it."""
        body = "Content-Type: application/sdp\r\nContent-Length: 2\r\n\r\nhi"
        for header, passes, without, has in (
            ("Require: a,100rel", False, "Require: a,100rel\r\n", "Require: a\r\nSupported: 100rel\r\n"),
            ("Supported: 100REL", False, "Supported: 100REL\r\n", "Supported: 100REL\r\n"),
            ("Supported: timer", False, "Supported: timer\r\n", "Supported: timer\r\nSupported: 100rel\r\n"),
            ("Require: 100rel", True, "Require: 100rel\r\n", "Require: 100rel\r\n"),
            ("Supported: timer", True, "Supported: timer\r\n", "Supported: timer\r\n"),
        ):
            passing = Passing()
            passing.ends_pracks = not passes
            found = [
                passing.content(parse(f"{HEAD}CSeq: 1 INVITE\r\n{header}\r\n{rest}".encode())).headers for rest in ("\r\n", body)
            ]
            self.assertEqual(found, [without, has], header)
        response = "SIP/2.0 183 X\r\n" + HEAD.partition("\r\n")[2].replace("b@x>", "b@x>;tag=t")
        reliable = Passing().content(parse(f"{response}CSeq: 2 INVITE\r\nRequire: 100rel\r\nRSeq: 7\r\n\r\n".encode()))
        self.assertEqual((reliable.headers, reliable.provisional), ("", Origin("t", 7, 2)))
