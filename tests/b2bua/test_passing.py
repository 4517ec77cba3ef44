"""Tests of sipgw.b2bua.passing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.passing import Passing, requires_reliable
from sipgw.sip.message import Request, parse

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
            ("k: 100rel\r\n", (), None, ""),
            ("Supported: timer, 100REL,path\r\n", (), None, "Supported: timer, path\r\n"),
            ("Refer-To: <sip:c@x>\r\nReferred-By: <sip:a@x>\r\n", (), None, "Refer-To: <sip:c@x>\r\nReferred-By: <sip:a@x>\r\n"),
        ):
            message = parse(f"{HEAD}{given}\r\n".encode())
            self.assertEqual(Passing(names, pattern).content(message).headers, passed, given)

    def test_body(self) -> None:
        """A body comes with its type; without one there is no type."""
        with_body = parse(f"{HEAD}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi".encode())
        found = Passing().content(with_body)
        self.assertEqual((found.body, found.content_type, found.headers), (b"hi", "text/plain", ""))
        self.assertEqual(Passing().content(parse(f"{HEAD}Content-Type: text/plain\r\n\r\n".encode())).content_type, "")

    def test_reliable(self) -> None:
        """Whether 100rel is demanded, and not only supported."""
        for header, wanted in (("Require: a,100rel", True), ("Supported: 100rel", False), ("Require: timer", False)):
            message = parse(f"{HEAD}{header}\r\n\r\n".encode())
            assert isinstance(message, Request)
            self.assertEqual(requires_reliable(message), wanted)
