"""Tests of name-addr, Contact, Via, lists and parameters."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.address import Contact, NameAddr, Via, parse_list, parse_params, split_first, write_params
from sipgw.sip.errors import MalformedMessage

# text -> display, meaning of the display, URI, parameters
NAME_ADDRS: dict[str, tuple[str, str, str, dict[str, str | None]]] = {
    "<sip:a@b>": ("", "", "sip:a@b", {}),
    ' "Alice" <sip:a@b>;tag=1': ('"Alice"', "Alice", "sip:a@b", {"tag": "1"}),
    "Alice Smith  <sip:a@b;x=y>;tag=1;Q=0.5": ("Alice Smith", "Alice Smith", "sip:a@b;x=y", {"tag": "1", "q": "0.5"}),
    "caller<sip:a@b>": ("caller", "caller", "sip:a@b", {}),
    "Łukasz <sip:a@b>": ("Łukasz", "Łukasz", "sip:a@b", {}),
    '"A \\"B\\" <x>, \\\\" <sip:a@b>': ('"A \\"B\\" <x>, \\\\"', 'A "B" <x>, \\', "sip:a@b", {}),
    '"a"<sip:a@b> ; tag = 1 ; x': ('"a"', "a", "sip:a@b", {"tag": "1", "x": None}),
    '"a" <sip:a@b>;x="q;u,o\\"t";y=': ('"a"', "a", "sip:a@b", {"x": '"q;u,o\\"t"', "y": ""}),
    "sip:a@b;tag=1": ("", "", "sip:a@b", {"tag": "1"}),
    "sip:a@b ; tag=1": ("", "", "sip:a@b", {"tag": "1"}),
    "tel:+1;tag=x": ("", "", "tel:+1", {"tag": "x"}),
    "<sip:a@b,c@d>": ("", "", "sip:a@b,c@d", {}),
    "<sip:a@[::1]>;received=[::1]:5060": ("", "", "sip:a@[::1]", {"received": "[::1]:5060"}),
}
BAD_NAME_ADDRS = (
    "", "a@b", "<sip:a@b", "sip:a@b>", '"a <sip:a@b>', '"a" b <sip:a@b>', "a, b <sip:a@b>", "<sip:a@b>x", "<sip:a@b>;",
    "<sip:a@b>;;x", "<sip:a@b>;=x", "<sip:a@b>,<sip:c@d>", "<sip:a b>", "< sip:a@b >", "sip:a@b?x=y", "sip:a,b@c", "<>",
    "<sip:a@b>;x=a b", '<sip:a@b>;x="a', "<<sip:a@b>>", "sip:a b;tag=x", "<sip:a@b>\x00", "<sip:a\x00@b>", '"\r\n" <sip:a@b>',
    "a:b <sip:a@b>", "<sip:a@b>;x=a<b>",
)

# text -> protocol, transport, host, port, parameters
VIAS: dict[str, tuple[str, str, str, int | None, dict[str, str | None]]] = {
    "SIP/2.0/UDP a.com": ("SIP/2.0", "UDP", "a.com", None, {}),
    " SIP/2.0/TCP 192.0.2.1:5061;branch=z9hG4bK1;rport":
        ("SIP/2.0", "TCP", "192.0.2.1", 5061, {"branch": "z9hG4bK1", "rport": None}),
    "SIP/2.0/UDP [2001:db8::1]:5060;Branch=X": ("SIP/2.0", "UDP", "[2001:db8::1]", 5060, {"branch": "X"}),
    "sip / 2.0 / udp  a.com : 5060 ; branch = x ; ttl=16": ("sip/2.0", "udp", "a.com", 5060, {"branch": "x", "ttl": "16"}),
    "SIP/2.0/UDP a.com;received=192.0.2.7;x=\"a,;b\"":
        ("SIP/2.0", "UDP", "a.com", None, {"received": "192.0.2.7", "x": '"a,;b"'}),
    "SIP/2.0/UDP a.com (my proxy)": ("SIP/2.0", "UDP", "a.com", None, {}),
    "SIP/2.0/UDP a.com;branch=1 (x)": ("SIP/2.0", "UDP", "a.com", None, {"branch": "1"}),
}
BAD_VIAS = (
    "", "SIP/2.0/UDP", "SIP/2.0 a.com", "SIP/2.0/UDP ", "SIP/2.0/UDP a.com:", "SIP/2.0/UDP a.com:x", "SIP/2.0/UDP a.com:99999",
    "SIP/2.0/UDP a.com;", "SIP/2.0/UDP a.com;;branch=1", "SIP/2.0/UDP a.com;branch=1;branch=2", "SIP/2.0/UDP a b",
    "SIP/2.0/UDP [::1",
    "SIP/2.0/UDP [::g]", "SIP/2.0/UDP ::1", "SIP/2.0/UDP a.com;x=\"y", "SIP/2.0/UDP a.com,", "SIP//UDP a", "SIP/2.0/UDP a.com (x",
    "SIP/2.0/UDP a.com)", "SIP/2.0/UDP ü.com", "SIP/2.0/UDP a.com;b=\x00",
)


class NameAddrTests(SynchronousTestCase):
    """Tests of ``NameAddr``."""

    def test_parts(self) -> None:
        """Each address is cut into its parts."""
        for text, (display, name, uri, params) in NAME_ADDRS.items():
            address = NameAddr.parse(text)
            self.assertEqual((address.display, address.name, address.uri_text), (display, name, uri), text)
            self.assertEqual(address.params, params, text)
            self.assertEqual(address.tag, params.get("tag"), text)

    def test_written(self) -> None:
        """What is written is read as the same."""
        for text in NAME_ADDRS:
            address = NameAddr.parse(text)
            again = NameAddr.parse(str(address))
            self.assertEqual(
                (again.display, again.uri_text, again.params), (address.display, address.uri_text, address.params), text
            )

    def test_malformed(self) -> None:
        """What is no address is refused, at once or when its parameters are read."""
        for text in BAD_NAME_ADDRS:
            with self.assertRaises(MalformedMessage, msg=repr(text)):
                NameAddr.parse(text).params  # noqa: B018

    def test_repeated_tag(self) -> None:
        """Two tags are malformed: two servers would believe different ones (RFC 3261 7.3.1)."""
        address = NameAddr.parse("<sip:a@b>;tag=1;tag=2")
        self.assertRaises(MalformedMessage, lambda: address.tag)

    def test_made(self) -> None:
        """Values made by our own code are written and read like received ones; junk in their parameters is malformed."""
        self.assertEqual(str(NameAddr('"A"', "sip:a", ";tag=1")), '"A" <sip:a>;tag=1')
        self.assertEqual(NameAddr("", "sip:a", ";lr;x=y").params, {"lr": None, "x": "y"})
        self.assertEqual(str(Via("SIP/2.0", "UDP", "[::1]", 5060, ";branch=b")), "SIP/2.0/UDP [::1]:5060;branch=b")
        for text in ("x", "lr;x=y", ";", ";a;;b", ";a=b;a=c"):
            self.assertRaises(MalformedMessage, lambda: NameAddr("", "sip:a", text).params)  # noqa: B023

    def test_uri_is_read_late(self) -> None:
        """A bad URI in an address is malformed only for whoever asks for it."""
        for text in ("<sip:a@b@c>;tag=1", "<a@b>;tag=1"):
            address = NameAddr.parse(text)
            self.assertEqual(address.tag, "1")
            self.assertRaises(MalformedMessage, lambda: address.uri)  # noqa: B023


class ContactTests(SynchronousTestCase):
    """Tests of ``Contact``."""

    def test_star(self) -> None:
        """The lone star is known as such."""
        self.assertTrue(Contact.parse("*").star)
        self.assertEqual(str(Contact.parse("*")), "*")
        self.assertFalse(Contact.parse("<sip:*@b>").star)

    def test_parameters(self) -> None:
        """q and expires are numbers, checked when they are read."""
        contact = Contact.parse("<sip:a@b>;q=0.7;expires=3600")
        self.assertEqual((contact.q, contact.expires), (700, 3600))
        contact = Contact.parse("<sip:a@b>")
        self.assertEqual((contact.q, contact.expires), (None, None))
        contact = Contact.parse("<sip:a@b>;q=2;expires=-1")
        self.assertRaises(MalformedMessage, lambda: contact.q)
        self.assertRaises(MalformedMessage, lambda: contact.expires)


class ViaTests(SynchronousTestCase):
    """Tests of ``Via``."""

    def test_parts(self) -> None:
        """Each Via is cut into its parts and written as the same."""
        for text, parts in VIAS.items():
            for via in (Via.parse(text), Via.parse(str(Via.parse(text)))):
                self.assertEqual((via.protocol, via.transport, via.host, via.port, via.params), parts, text)

    def test_malformed(self) -> None:
        """What is no Via is refused, at once or when its parameters are read."""
        for text in BAD_VIAS:
            with self.assertRaises(MalformedMessage, msg=repr(text)):
                Via.parse(text).params  # noqa: B018

    def test_parameters(self) -> None:
        """The parameters that routing needs have names of their own."""
        via = Via.parse("SIP/2.0/UDP [::1];branch=b;received=[2001:db8::1];rport=5070;maddr=[ff02::1]")
        self.assertEqual((via.branch, via.received, via.rport, via.maddr), ("b", "2001:db8::1", 5070, "ff02::1"))
        self.assertEqual(via.address, "::1")
        via = Via.parse("SIP/2.0/UDP a;rport")
        self.assertEqual((via.branch, via.received, via.rport, via.maddr), (None, None, None, None))
        via = Via.parse("SIP/2.0/UDP a;rport=x")
        self.assertRaises(MalformedMessage, lambda: via.rport)

    def test_comment(self) -> None:
        """RFC 2543's comment is kept apart."""
        self.assertEqual(Via.parse("SIP/2.0/UDP a.com;branch=1 (my proxy)").comment, "my proxy")


class ListTests(SynchronousTestCase):
    """Tests of lists and parameters."""

    def test_lists(self) -> None:
        """Commas split values, but not inside quotes and brackets."""
        for text, values in (
            ("", []), (" ", []), ("a", ["a"]), ("a,b , c", ["a", "b", "c"]), ("a,,b,", ["a", "b"]), (",", []),
            ('"a,b" <sip:a,b>;x="c,d", <sip:e>', ['"a,b" <sip:a,b>;x="c,d"', "<sip:e>"]),
            ('"a\\",b", c', ['"a\\",b"', "c"]), ("<a>,", ["<a>"]),
        ):
            self.assertEqual(parse_list(text), values, text)

    def test_bad_lists(self) -> None:
        """A quote or bracket that never closes is malformed."""
        for text in ('"a,b', "<a,b", 'a,"b\\",c', "<a<b>,c>"):
            self.assertRaises(MalformedMessage, parse_list, text)

    def test_split_first(self) -> None:
        """The end of the first value is found in place."""
        self.assertEqual(split_first("Via: a, b", 4), 6)
        self.assertEqual(split_first("Via: a", 4), 6)
        self.assertEqual(split_first('M: "a,b" <c>, d', 2), 12)
        self.assertRaises(MalformedMessage, split_first, '"a,b')

    def test_params(self) -> None:
        """Parameters are written as they were read, but for the case of names."""
        self.assertEqual(parse_params(""), {})
        params = parse_params(";A=b;c;d=\"e;f\"")
        self.assertEqual(params, {"a": "b", "c": None, "d": '"e;f"'})
        self.assertEqual(write_params(params), ";a=b;c;d=\"e;f\"")

    def test_bad_params(self) -> None:
        """Separators without names, repeated names and stray characters are malformed."""
        for text in ("a", ";", ";;", ";a;", ";a=b,c", ";a;A", ";a=\"b\";a", ";a b", ";a=\"b", ";a=\"b\"c"):
            self.assertRaises(MalformedMessage, parse_params, text)


class EffortTests(SynchronousTestCase):
    """Tests that no text makes reading slow."""

    def test_linear(self) -> None:
        """8 kB of whatever a regular expression might stumble over ends in a value or an error, and does end."""
        readers: tuple[Callable[[str], object], ...] = (NameAddr.parse, Via.parse, parse_list, parse_params)
        pieces = (" ", "a ", '"', "\\", '\\"', ";", ";a", ";a=", "<", ">", ",", "\t", "a", "(", ")", ";a ", '"a" ', ":", "=")
        refused = 0
        for piece in pieces:
            for start in ("", "<sip:a@b>", "SIP/2.0/UDP ", "SIP/2.0/UDP a", '"', ";a", "a <"):
                text = start + piece * (8000 // len(piece))
                for read in readers:
                    try:
                        read(text)
                    except MalformedMessage:
                        refused += 1
        self.assertGreater(refused, 300)

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.text('sip:<>"\\;,=@/ \t()[]ab1.é\x00\r\n', max_size=40))
    def test_anything(self, text: str) -> None:
        """Any text is a value or malformed, and a value that was written is read again."""
        for read in (NameAddr.parse, Contact.parse, Via.parse):
            for candidate in (text, f"<sip:a@b>{text}", f"SIP/2.0/UDP a{text}", f'"{text}" <sip:a@b>'):
                try:
                    value = read(candidate)
                    params = value.params
                except MalformedMessage:
                    continue
                self.assertEqual(read(str(value)).params, params)
