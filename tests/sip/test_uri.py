"""Tests of URIs and of RFC 3261 19.1.4, by its own examples."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.uri import Uri, same_host, same_uri

# text -> scheme, user, password, host, port, params, headers
PARSED = {
    "sip:alice@atlanta.com": ("sip", "alice", None, "atlanta.com", None, "", ""),
    "sip:alice:secretword@atlanta.com;transport=tcp": ("sip", "alice", "secretword", "atlanta.com", None, "transport=tcp", ""),
    "sips:alice@atlanta.com?subject=project%20x&priority=urgent":
        ("sips", "alice", None, "atlanta.com", None, "", "subject=project%20x&priority=urgent"),
    "sip:+1-212-555-1212:1234@gateway.com;user=phone":
        ("sip", "+1-212-555-1212", "1234", "gateway.com", None, "user=phone", ""),
    "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com":
        ("sip", None, None, "atlanta.com", None, "method=REGISTER", "to=alice%40atlanta.com"),
    "sip:alice;day=tuesday@atlanta.com": ("sip", "alice;day=tuesday", None, "atlanta.com", None, "", ""),
    "SIP:192.0.2.4:5070": ("sip", None, None, "192.0.2.4", 5070, "", ""),
    "sip:[2001:db8::1]:5070;lr": ("sip", None, None, "[2001:db8::1]", 5070, "lr", ""),
    "sip:a:@b": ("sip", "a", "", "b", None, "", ""),
    "sip:a@b:05060": ("sip", "a", None, "b", 5060, "", ""),
    "sip:a?b/c@h": ("sip", "a?b/c", None, "h", None, "", ""),
    "sip:ü@h_1": ("sip", "ü", None, "h_1", None, "", ""),
    "tel:+1-201-555-0123;phone-context=a.com": ("tel", "+1-201-555-0123", None, "", None, "phone-context=a.com", ""),
    "soap.beep://192.0.2.103:3002": ("soap.beep", None, None, "", None, "", ""),
    "urn:service:sos": ("urn", None, None, "", None, "", ""),
}

MALFORMED = (
    "", "sip:", "sip", "alice@atlanta.com", ":a@b", "sip:@b", "sip:a@", "sip:a@b@c", "sip:a b@c", "sip:a@b ", " sip:a@b",
    "sip:a@b:", "sip:a@b:65536", "sip:a@b:1x", "sip:a@b:-1", "sip:a%4@b", "sip:a%gg@b", "sip:a@b;x=%1", "<sip:a@b>",
    'sip:"a"@b', "sip:a@b\r\n", "sip:a@b\x00", "sip:a@[::1", "sip:a@::1", "sip:a@[::1::]", "sip:a@[1.2.3.4]",
    "sip:a@b;c d", "sip:a@b?c d", "sip:a@ü.com", "tel:", "tel:;a", "1a:b", "http: //x", "sip:2001:db8::10",
)

# RFC 3261 19.1.4
SAME = (
    ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com;security=on"),
    ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
    (
        "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
        "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
    ),
    (
        "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
    ),
    ("sip:a@[2001:db8::1]", "SIP:a@[2001:0DB8:0:0:0:0:0:1]"),
    ("sip:a%2fb@c", "sip:a%2Fb@c"),
    ("tel:+1-201-555-0123", "tel:+12015550123"),
    ("urn:service:sos", "URN:service:sos"),
)
DIFFERENT = (
    ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
    ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
    ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
    ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
    ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
    ("sip:a@b", "sips:a@b"),
    ("sip:a@b", "sip:a:pw@b"),
    ("sip:a@b", "sip:a@b;maddr=1.2.3.4"),
    ("sip:a@b", "sip:a@b;user=phone"),
    ("sip:a%2Fb@c", "sip:a/b@c"),
    ("sip:a@b", "sip:b"),
    ("tel:+12015550123", "tel:+12015550124"),
    ("tel:123;phone-context=a", "tel:123;phone-context=b"),
    ("urn:service:sos", "urn:service:SOS"),
)


class ParseTests(SynchronousTestCase):
    """Tests of ``Uri.parse``."""

    def test_parts(self) -> None:
        """Each URI is cut into its parts and keeps its text."""
        for text, parts in PARSED.items():
            uri = Uri.parse(text)
            found = (uri.scheme, uri.user, uri.password, uri.host, uri.port, uri.params, uri.headers)
            self.assertEqual(found, parts, text)
            self.assertEqual(str(uri), text)

    def test_malformed(self) -> None:
        """What is no URI is refused."""
        for text in MALFORMED:
            with self.assertRaises(MalformedMessage, msg=repr(text)):
                Uri.parse(text)

    def test_params(self) -> None:
        """Parameters are found without regard to case; one without value is "", an absent one ``None``."""
        uri = Uri.parse("sip:a@b;LR;Transport=TCP;x=;x=2")
        self.assertEqual(uri.param("lr"), "")
        self.assertEqual(uri.param("transport"), "TCP")
        self.assertEqual(uri.param("x"), "")
        self.assertIsNone(uri.param("y"))
        self.assertEqual(uri.param_list, [("LR", None), ("Transport", "TCP"), ("x", ""), ("x", "2")])
        self.assertEqual(Uri.parse("sip:b?a=1&c").header_list, [("a", "1"), ("c", "")])

    def test_derived(self) -> None:
        """The address-of-record has neither port nor parameters, the address no brackets."""
        self.assertEqual(Uri.parse("sip:Al:pw@B.com:5060;x?y=z").aor, "sip:Al@b.com")
        self.assertEqual(Uri.parse("sips:B.com").aor, "sips:b.com")
        self.assertEqual(Uri.parse("tel:+1;x=y").aor, "tel:+1")
        self.assertEqual(Uri.parse("urn:a").aor, "urn:a")
        self.assertEqual(Uri.parse("sip:[::1]:5060").address, "::1")
        self.assertTrue(Uri.parse("sips:b").is_sip)
        self.assertFalse(Uri.parse("tel:1").is_sip)


class ChangeTests(SynchronousTestCase):
    """Tests of the ``with_...`` methods."""

    def test_with(self) -> None:
        """Each method changes one part and leaves the rest, and the old URI, as they were."""
        text = "sip:alice:pw@atlanta.com:5070;transport=tcp;lr?a=b"
        uri = Uri.parse(text)
        for changed, expected in (
            (uri.with_user("bob"), "sip:bob:pw@atlanta.com:5070;transport=tcp;lr?a=b"),
            (uri.with_user(None), "sip:atlanta.com:5070;transport=tcp;lr?a=b"),
            (uri.with_password(None), "sip:alice@atlanta.com:5070;transport=tcp;lr?a=b"),
            (uri.with_host("b.org"), "sip:alice:pw@b.org:5070;transport=tcp;lr?a=b"),
            (uri.with_host("::1"), "sip:alice:pw@[::1]:5070;transport=tcp;lr?a=b"),
            (uri.with_port(None), "sip:alice:pw@atlanta.com;transport=tcp;lr?a=b"),
            (uri.with_port(5060), "sip:alice:pw@atlanta.com:5060;transport=tcp;lr?a=b"),
            (uri.with_scheme("sips"), "sips:alice:pw@atlanta.com:5070;transport=tcp;lr?a=b"),
            (uri.with_params(""), "sip:alice:pw@atlanta.com:5070?a=b"),
            (uri.with_param("Transport", "udp"), "sip:alice:pw@atlanta.com:5070;Transport=udp;lr?a=b"),
            (uri.with_param("ob"), "sip:alice:pw@atlanta.com:5070;transport=tcp;lr;ob?a=b"),
            (uri.without_param("transport"), "sip:alice:pw@atlanta.com:5070;lr?a=b"),
            (uri.without_headers(), "sip:alice:pw@atlanta.com:5070;transport=tcp;lr"),
            (Uri.parse("sip:a?b@h;lr?x=y").without_headers(), "sip:a?b@h;lr"),
        ):
            self.assertEqual(str(changed), expected)
        self.assertEqual(str(uri), text)

    def test_with_user_of_tel(self) -> None:
        """The user of a tel URI is its number, which it cannot do without."""
        self.assertEqual(str(Uri.parse("tel:1;a=b").with_user("2")), "tel:2;a=b")
        self.assertEqual(str(Uri.parse("tel:1;a=b").without_param("a")), "tel:1")
        self.assertRaises(SipError, Uri.parse("tel:1").with_user, None)
        self.assertRaises(SipError, Uri.parse("tel:1").with_host, "a")
        self.assertRaises(SipError, Uri.parse("urn:a").with_port, 5060)
        self.assertRaises(SipError, Uri.parse("sip:a").with_scheme, "tel")

    def test_no_injection(self) -> None:
        """A part that would make another URI, or another line, is refused."""
        uri = Uri.parse("sip:a@b")
        for change in (
            lambda: uri.with_user("x\r\nVia: y"), lambda: uri.with_user("x y"), lambda: uri.with_host("b>"),
            lambda: uri.with_host(""), lambda: uri.with_params("a b"), lambda: uri.with_port(70000), lambda: uri.with_user("x@y"),
        ):
            self.assertRaises(MalformedMessage, change)


class SameTests(SynchronousTestCase):
    """Tests of equivalence."""

    def test_same(self) -> None:
        """The examples that are equivalent are, both ways round."""
        for one, other in SAME:
            self.assertTrue(same_uri(one, other), (one, other))
            self.assertTrue(same_uri(Uri.parse(other), Uri.parse(one)), (other, one))

    def test_different(self) -> None:
        """The examples that are not equivalent are not, both ways round."""
        for one, other in DIFFERENT:
            self.assertFalse(same_uri(one, other), (one, other))
            self.assertFalse(same_uri(other, one), (other, one))

    def test_same_host(self) -> None:
        """Hosts are compared without case, IPv6 addresses as numbers."""
        self.assertTrue(same_host("A.com", "a.COM"))
        self.assertTrue(same_host("[::1]", "0:0:0:0:0:0:0:1"))
        self.assertFalse(same_host("[::1]", "::2"))
        self.assertFalse(same_host("a", "b"))

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.text("sip:@[]0123456789.;=?&%aZ<>\" \r\n\x00é-", max_size=30))
    def test_anything(self, text: str) -> None:
        """Any text is a URI equal to itself, or malformed."""
        for candidate in (text, f"sip:{text}"):
            try:
                uri = Uri.parse(candidate)
            except MalformedMessage:
                continue
            self.assertEqual(str(uri), candidate)
            self.assertTrue(same_uri(uri, Uri.parse(candidate)))
            if uri.is_sip:
                self.assertEqual(str(uri.with_params(uri.params)).rstrip("?"), candidate.rstrip("?"))
