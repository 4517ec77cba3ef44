"""Messages of SIP as texts, and back; numbers."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import SipError
from sipgw.sip.imdn import NAMESPACE, Asked
from sipgw.sip.message import Request, parse
from sipgw.sip.texts import plain
from sipgw.sms.numbers import ALPHANUMERIC, Address, Numbers
from sipgw.sms.receipts import Receipt
from sipgw.sms.translate import Text, content, notification, read_text


def message(body: bytes, kind: str = "text/plain") -> Request:
    """A MESSAGE with that body."""
    head = (
        "MESSAGE sip:49170@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\n"
        f"To: <sip:c@d>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    request = parse(head.encode() + body)
    assert isinstance(request, Request)
    return request


CPIM = (
    f"From: <sip:a@b>\r\nTo: <sip:c@d>\r\nNS: imdn <{NAMESPACE}>\r\nimdn.Message-ID: m1\r\n"
    "imdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\nContent-Type: text/plain\r\n\r\nGrüße"
).encode()
ALTERNATIVE = b"--x\r\nContent-Type: image/png\r\n\r\n\x89\r\n--x\r\nContent-Type: text/plain\r\n\r\nplain\r\n--x--\r\n"


class ReadTests(SynchronousTestCase):
    """``read_text``."""

    def test_kinds(self) -> None:
        """Each kind of body that is understood."""
        wanted = Asked("m1", True, True, False)
        for body, kind, text in [
            ("Grüße".encode(), "text/plain", Text("Grüße")),
            ("Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1", Text("Grüße")),
            ("Grüße \U0001f600".encode("utf-16"), 'text/plain;charset="UTF-16"', Text("Grüße \U0001f600")),
            (b"a\r\nb\0", "text/plain", Text("a\nb")),
            (b"<p>Hello <b>you</b> &amp; me<br/>bye</p><script>x()</script>", "text/html", Text("Hello you & me\nbye")),
            (CPIM, "message/cpim", Text("Grüße", wanted)),
            (ALTERNATIVE, 'multipart/alternative;boundary="x"', Text("plain")),
            (b"<isComposing/>", "application/im-iscomposing+xml", Text(None)),
            (b"<imdn/>", "message/imdn+xml", Text(None)),
            (b"\x00\x01", "application/vnd.3gpp.sms", Text(None, None, b"\x00\x01")),
            (b"\xff", "text/plain", Text("\ufffd")),
        ]:
            self.assertEqual(read_text(message(body, kind)), text, kind)

    def test_refused(self) -> None:
        """What is no text, and what cannot be read."""
        nested = b"From: <sip:a@b>\r\n\r\nContent-Type: message/cpim\r\n\r\n" * 5 + b"x"
        for body, kind, status in [
            (b"x", "image/png", 415), (b"x", "text/plain;charset=nonsense", 415), (b"x" * 39_001, "text/plain", 513),
            (b"x", "nonsense", 400), (b"no colon", "message/cpim", 400),
            (b"--x\r\nContent-Type: image/png\r\n\r\nx\r\n--x--", "multipart/mixed;boundary=x", 415),
            (nested, "message/cpim", 415),
        ]:
            self.assertEqual(self.assertRaises(SipError, read_text, message(body, kind)).status, status, kind)

    @given(st.binary(max_size=100), st.sampled_from(["text/plain", "text/html", "message/cpim", "multipart/mixed;boundary=x"]))
    @settings(derandomize=True, deadline=None, max_examples=150)
    def test_any_body(self, body: bytes, kind: str) -> None:
        """Any octets are some text, or refused with a status."""
        try:
            found = read_text(message(body, kind))
        except SipError as error:
            self.assertIn(error.status, (400, 415, 513))
            return
        self.assertTrue(found.text is None or "\0" not in found.text)

    def test_html(self) -> None:
        """Spaces collapse, breaks stay, comments go."""
        self.assertEqual(plain("<div>a\n  b</div><!-- no -->c&lt;d"), "a b\nc<d")

    def test_back(self) -> None:
        """What a text is sent as."""
        self.assertEqual(content("a\nü"), ("text/plain;charset=utf-8", b"a\r\n\xc3\xbc"))

    def test_notifications(self) -> None:
        """Who asked hears of the end, and only of the end."""
        sent = datetime(2026, 11, 22, tzinfo=UTC)
        for state, wanted, status in [
            ("DELIVRD", Asked("m", True, False, False), "delivered"), ("DELIVRD", Asked("m", False, True, False), None),
            ("UNDELIV", Asked("m", True, True, False), "failed"), ("EXPIRED", Asked("m", True, False, False), None),
            ("ACCEPTD", Asked("m", True, True, False), None), ("UNKNOWN", Asked("m", True, True, False), None),
        ]:
            found = notification(Receipt("7", state), wanted, "sip:c@d", sent)
            self.assertEqual(found and found.status, status, state)


class NumbersTests(SynchronousTestCase):
    """``Numbers``."""

    def test_without_country(self) -> None:
        """Only what says itself what it is changes."""
        plain = Numbers(4, 8)
        for user, address in [
            ("+491701234567", (1, 1, "491701234567")), ("+49 170-123.45(67)", (1, 1, "491701234567")), ("110", (4, 8, "110")),
            ("*100#", (4, 8, "*100#")), ("Bank", (ALPHANUMERIC, 0, "Bank")), ("+49170;phone-context=x", (1, 1, "49170")),
        ]:
            self.assertEqual(plain.to_smpp(user), address, user)
        back = [((1, 1, "49170"), "+49170"), ((0, 1, "0170"), "0170"), ((2, 1, "170"), "170"), ((5, 0, "Bank"), "Bank")]
        for address, user in back:
            self.assertEqual(plain.to_sip(Address(*address)), user, address)

    def test_country(self) -> None:
        """Numbers as they are dialled in a country."""
        german = Numbers(country="de")
        for user in ("01701234567", "0170 1234567", "00491701234567", "+491701234567"):
            self.assertEqual(german.to_smpp(user), (1, 1, "491701234567"), user)
        self.assertEqual(german.to_smpp("110"), (0, 0, "110"))
        for ton, digits in [(1, "491701234567"), (0, "01701234567"), (2, "1701234567")]:
            self.assertEqual(german.to_sip(Address(ton, 1, digits)), "+491701234567", digits)

    def test_refused(self) -> None:
        """Users of whom no address can be made; countries that there are not."""
        for user in ("", "a-name-far-too-long", "жук", "+" + "1" * 21, "1" * 21):
            self.assertRaises(ValueError, Numbers().to_smpp, user)
        self.assertRaises(ValueError, Numbers, 0, 0, "Germany")
