"""Tests of sipgw.sip.session_expires (RFC 4028)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.message import parse
from sipgw.sip.session_expires import SessionExpires, knows_timers, session_expires

HEAD = "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=f\r\nTo: <sip:b@x>\r\n"


class SayingTests(SynchronousTestCase):
    """What a message says."""

    def test_values(self) -> None:
        """Seconds, and perhaps a refresher."""
        for text, found in (
            ("1800", (1800, "")), ("1800;refresher=uac", (1800, "uac")), (" 90 ; Refresher = UAS ; x=y", (90, "uas")),
            ("90;refresher=both", (90, "")), ("soon", None), ("", None), ("-1", None), ("4294967296", None),
        ):
            self.assertEqual(SessionExpires.parse(text), found, text)
            if found is not None:
                self.assertEqual(SessionExpires.parse(str(SessionExpires(*found))), found)
        self.assertEqual(session_expires(parse(f"{HEAD}x: 99\r\n\r\n".encode())), (99, ""))
        self.assertIsNone(session_expires(parse(f"{HEAD}\r\n".encode())))

    def test_known(self) -> None:
        """Supported or demanded."""
        for line, known in (
            ("Supported: a, Timer", True), ("k: timer", True), ("Require: timer", True), ("Supported: timers", False),
        ):
            self.assertEqual(knows_timers(parse(f"{HEAD}{line}\r\n\r\n".encode())), known, line)
