"""What instant messages carry: CPIM, disposition notifications, is-composing, and the XML of them."""

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.composing import Composing
from sipgw.sip.cpim import Cpim
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.imdn import NAMESPACE, Notification, asked
from sipgw.sip.trees import clean, parse_tree

MESSAGE = (
    b"From: MR SANDERS <im:piglet@100akerwood.com>\r\n"
    b"To: Depressed Donkey <im:eeyore@100akerwood.com>\r\n"
    b"DateTime: 2000-12-13T13:40:00-08:00\r\n"
    b"Subject: the weather will be fine today\r\n"
    b"Subject:;lang=fr beau temps prevu pour aujourd'hui\r\n"
    b"NS: MyFeatures <mid:MessageFeatures@id.foo.com>\r\n"
    b"Require: MyFeatures.VitalMessageOption\r\n"
    b"MyFeatures.VitalMessageOption: Confirmation-requested\r\n"
    b"MyFeatures.WackyMessageOption: Use-silly-font\r\n"
    b"\r\n"
    b"Content-type: text/xml; charset=utf-8\r\n"
    b"Content-ID: <1234567890@foo.com>\r\n"
    b"\r\n"
    b"<body>\r\nHere is the text of my message.\r\n</body>"
)
"""The example of RFC 3862 2.4 and 5.1."""


class CpimTests(SynchronousTestCase):
    """``Cpim``."""

    def test_example(self) -> None:
        """The RFC's own example: headers, namespaces, content; written again as it was."""
        message = Cpim.parse(MESSAGE)
        self.assertEqual(message.header("DateTime"), "2000-12-13T13:40:00-08:00")
        sender = message.address("From")
        assert sender is not None
        self.assertEqual((sender.display, sender.uri_text), ("MR SANDERS", "im:piglet@100akerwood.com"))
        self.assertEqual(message.subject, "the weather will be fine today")
        self.assertEqual(message.header("VitalMessageOption", "mid:MessageFeatures@id.foo.com"), "Confirmation-requested")
        self.assertIsNone(message.header("VitalMessageOption"))
        self.assertIsNone(message.header("VitalMessageOption", "other"))
        self.assertEqual((message.content_type.name, message.body[:6]), ("text/xml", b"<body>"))
        self.assertEqual(Cpim.parse(message.write()).write(), message.write())

    def test_forms(self) -> None:
        """Bare line feeds, its own Content-Type before it, no content headers, a language before the subject."""
        for data in (
            MESSAGE.replace(b"\r\n", b"\n"),
            b"Content-Type: Message/CPIM\r\n\r\n" + MESSAGE,
        ):
            self.assertEqual(Cpim.parse(data).header("Require"), "MyFeatures.VitalMessageOption")
        message = Cpim.parse(b"Subject:;lang=de Gru\xc3\x9f\r\n\r\n\r\nplain")
        self.assertEqual((message.subject, message.content_type.name, message.body), ("Gruß", "text/plain", b"plain"))

    def test_escapes(self) -> None:
        """A value cannot end its line, and comes back as it was."""
        message = Cpim([("Subject", "a\r\nTo: <sip:x>\\b\0")], (), b"x")
        again = Cpim.parse(message.write())
        self.assertEqual(len(again.headers), 1)
        self.assertEqual(again.header("Subject"), "a\r\nTo: <sip:x>\\b\0")
        self.assertEqual(Cpim([("Subject", "")]).header("Subject"), "")
        self.assertEqual(Cpim([("X", "\\u00e9")]).header("X"), "é")

    def test_broken(self) -> None:
        """What is no CPIM is refused."""
        for data in (b"", b"no colon\r\n\r\n\r\nx", b": nameless\r\n\r\n\r\nx", b"A: b\r\n" * 65 + b"\r\n\r\nx"):
            self.assertRaises(MalformedMessage, Cpim.parse, data)

    @given(st.binary(max_size=200))
    @settings(derandomize=True, deadline=None, max_examples=200)
    def test_any_octets(self, data: bytes) -> None:
        """Any octets are a message, or refused."""
        try:
            message = Cpim.parse(data)
        except MalformedMessage:
            return
        self.assertTrue(message.write().endswith(message.body))


class ImdnTests(SynchronousTestCase):
    """``imdn``."""

    def test_asked(self) -> None:
        """What a sender wants to hear, with whatever prefix."""
        text = f"NS: i <{NAMESPACE}>\r\ni.Message-ID: m1\r\ni.Disposition-Notification: positive-delivery, display\r\n\r\n\r\nx"
        self.assertEqual(asked(Cpim.parse(text.encode())), ("m1", True, False, True))
        self.assertEqual(asked(Cpim.parse(text.replace("positive", "negative").encode())), ("m1", False, True, True))
        self.assertIsNone(asked(Cpim.parse(MESSAGE)))

    def test_documents(self) -> None:
        """Each kind and state is written and read; the example of RFC 5438 9.1 is read."""
        when = datetime(2026, 11, 22, 15, 30, tzinfo=UTC)
        states = [("delivery", "delivered"), ("delivery", "failed"), ("display", "displayed"), ("processing", "stored")]
        for kind, status in states:
            notification = Notification("m<1>", kind, status, "sip:a@b?x&y", when)
            self.assertEqual(Notification.parse(notification.write()), notification)
            cpim = notification.wrap("sip:a@b", "sip:c@d", "n1")
            self.assertEqual(Cpim.parse(cpim.write()).header("Message-ID", NAMESPACE), "n1")
        example = b"""<?xml version="1.0" encoding="UTF-8"?>
            <imdn xmlns="urn:ietf:params:xml:ns:imdn"><message-id>34jk324j</message-id>
            <datetime>2008-04-04T12:16:49-05:00</datetime><recipient-uri>im:bob@example.com</recipient-uri>
            <original-recipient-uri>im:bob@example.com</original-recipient-uri>
            <delivery-notification><status><delivered/></status></delivery-notification></imdn>"""
        self.assertEqual(Notification.parse(example)[:4], ("34jk324j", "delivery", "delivered", "im:bob@example.com"))

    def test_broken(self) -> None:
        """Documents that say nothing are refused."""
        for data in (b"", b"<imdn/>", b"<x/>", b"<imdn><message-id>1</message-id><delivery-notification/></imdn>",
                     b"<imdn><delivery-notification><status><delivered/></status></delivery-notification></imdn>"):
            self.assertRaises(MalformedMessage, Notification.parse, data)


class ComposingTests(SynchronousTestCase):
    """``Composing``."""

    def test_documents(self) -> None:
        """Both states, and what others write."""
        for composing in (Composing(True, 60, "text/plain"), Composing(False)):
            self.assertEqual(Composing.parse(composing.write()), composing)
        self.assertEqual(Composing.parse(b"<isComposing><state>thinking</state></isComposing>"), (False, 120, ""))
        text = b"<isComposing><state>active</state><refresh>%s</refresh></isComposing>"
        for written, seconds in ((b"90", 90), (b"999999", 3600), (b"-1", 120), (b"9" * 5000, 120)):
            self.assertEqual(Composing.parse(text % written).refresh, seconds)
        self.assertRaises(MalformedMessage, Composing.parse, b"<isComposing/>")


class TreeTests(SynchronousTestCase):
    """``parse_tree``."""

    def test_dangers(self) -> None:
        """Declarations, entities, other encodings that hide them, depth and length are refused."""
        bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><x>&b;</x>'
        deep, long = b"<x>" * 40 + b"</x>" * 40, b"<x>" + b" " * 50000 + b"</x>"
        for data in (bomb, b"<x>&undefined;</x>", "<x/>".encode("utf-16"), deep, long,
                     b"<x>\x01</x>", b"<x", b"<?xml version='1.0' encoding='nonsense'?><x/>"):
            self.assertRaises(MalformedMessage, parse_tree, data)
        self.assertEqual(parse_tree(b"<x>&lt;&#233;</x>").text, "<é")

    def test_clean(self) -> None:
        """No character that XML cannot say gets through."""
        self.assertEqual(clean("a\x00\x08\x0b\x1f\ufffe\ud800é\t\n\U0001f600"), "a" + "\ufffd" * 6 + "é\t\n\U0001f600")
