"""Tests of sipgw.b2bua.refer: what a REFER asks for, and which call a Replaces names."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.refer import Referral, named, read, renamed
from sipgw.sip.dialog import DialogId
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, parse

REPLACES = "c%40h%3Bto-tag%3Dt%3Bfrom-tag%3Df"


def refer(lines: str) -> Request:
    """A REFER."""
    found = parse(
        f"REFER sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=f\r\nTo: <sip:b@h>;tag=t\r\n"
        f"Call-ID: c\r\nCSeq: 1 REFER\r\n{lines}\r\n".encode()
    )
    assert isinstance(found, Request)
    return found


class ReadTests(SynchronousTestCase):
    """One REFER."""

    def test_read(self) -> None:
        """Whom to call, in whose place, and whether in silence."""
        for lines, found in (
            ("Refer-To: <sip:c@x>\r\n", Referral("sip:c@x", "", None, False)),
            ("r: sip:c@x\r\nRefer-Sub: false;x=1\r\n", Referral("sip:c@x", "", None, True)),
            ("Refer-To: C <sip:c@x;a=b;method=INVITE?Subject=x>\r\n", Referral("sip:c@x;a=b", "", None, False)),
            (f"Refer-To: <sip:c@x?Replaces={REPLACES}>\r\n", Referral(
                "sip:c@x", "c@h;to-tag=t;from-tag=f", DialogId("c@h", "t", "f"), False
            )),
        ):
            self.assertEqual(read(refer(lines)), found)

    def test_refused(self) -> None:
        """What cannot be read, or done."""
        for lines, status in (
            ("", 400), ("Refer-To: <sip:c@x>\r\nRefer-To: <sip:d@x>\r\n", 400), ("Refer-To: nonsense\r\n", 400),
            ("Refer-To: <http://x/>\r\n", 416), ("Refer-To: <sip:c@x;method=BYE>\r\n", 501),
            ("Refer-To: <sip:c@x?Replaces=c>\r\n", 400), (f"Refer-To: <sip:c@x?Replaces={REPLACES}%0D%0AX:1>\r\n", 400),
            (f"Refer-To: <sip:c@x?Replaces={REPLACES}&Replaces={REPLACES}>\r\n", 400),
        ):
            with self.assertRaises(SipError, msg=lines) as caught:
                read(refer(lines))
            self.assertEqual(caught.exception.status, status, lines)

    def test_named(self) -> None:
        """A Replaces with its parameters in any order, and what is none."""
        self.assertEqual(named("c;from-tag=f;early-only;to-tag=t"), DialogId("c", "t", "f"))
        for text in ("", "c", "c;to-tag=t", ";to-tag=t;from-tag=f", 'c;to-tag="'):
            self.assertIsNone(named(text), text)

    def test_renamed(self) -> None:
        """A call of ours is named as the other side knows it; all else stays."""

        def find(dialog: DialogId) -> DialogId | None:
            return DialogId("there@h", "ours", "theirs") if dialog == DialogId("c@h", "t", "f") else None

        self.assertEqual(
            renamed(f"C <sip:c@x;a=1?A=b&Replaces={REPLACES}>", find),
            "C <sip:c@x;a=1?A=b&Replaces=there%40h%3Bto-tag%3Dtheirs%3Bfrom-tag%3Dours>",
        )
        for text in (f"<sip:c@x?Replaces={REPLACES}x>", "<sip:c@x>", "nonsense", "<sip:c@x?Replaces=c>"):
            self.assertEqual(renamed(text, find), text)
