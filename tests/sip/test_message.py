"""Tests of ``parse``, ``check``, the lazy values and the stamping of Via."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip import message as message_module
from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.limits import Limits
from sipgw.sip.message import MAX_KNOWN, Request, Response, is_keepalive, parse, stamp_via

HEAD = {
    "Via": "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa",
    "Max-Forwards": "70",
    "From": '"Alice" <sip:alice@a.example>;tag=1',
    "To": "<sip:bob@b.example>",
    "Call-ID": "c1@a.example",
    "CSeq": "1 INVITE",
    "Content-Length": "0",
}


def lines(*extra: str, drop: str = "", **changed: str) -> list[str]:
    """Return header lines: those of ``HEAD`` with some changed (``Call_ID=...``), one left out, some put behind."""
    values = {**HEAD, **{name.replace("_", "-"): value for name, value in changed.items()}}
    return [f"{name}: {value}" for name, value in values.items() if name != drop] + list(extra)


def data(
    *extra: str, start: str = "INVITE sip:bob@b.example SIP/2.0", body: bytes = b"", drop: str = "", **changed: str,
) -> bytes:
    text = "\r\n".join([start, *lines(*extra, drop=drop, **changed)]) + "\r\n\r\n"
    return text.encode("utf-8", "surrogateescape") + body


def request(*extra: str, drop: str = "", **changed: str) -> Request:
    message = parse(data(*extra, start="INVITE sip:bob@b.example SIP/2.0", body=b"", drop=drop, **changed))
    assert isinstance(message, Request)
    return message


class ParseTests(SynchronousTestCase):
    """Tests of what ``parse`` accepts and how it cuts."""

    def test_request(self) -> None:
        """A request has a method, a URI and lines; values are read when asked for."""
        message = parse(data("Route: <sip:p1;lr>, <sip:p2;lr>", "Contact: <sip:a@1>", "m: <sip:b@2>", Content_Type="a/b"))
        assert isinstance(message, Request)
        self.assertEqual((message.method, message.uri), ("INVITE", "sip:bob@b.example"))
        self.assertEqual(message.request_uri.user, "bob")
        self.assertEqual(message.via.branch, "z9hG4bKa")
        self.assertEqual((message.from_.name, message.from_tag, message.to_tag), ("Alice", "1", None))
        self.assertEqual(message.to.uri.host, "b.example")
        self.assertEqual((message.call_id, message.cseq, message.max_forwards), ("c1@a.example", (1, "INVITE"), 70))
        self.assertEqual([route.uri_text for route in message.routes], ["sip:p1;lr", "sip:p2;lr"])
        self.assertEqual([contact.uri_text for contact in message.contacts], ["sip:a@1", "sip:b@2"])
        self.assertEqual((message.expires, message.content_type, message.content_length), (None, "a/b", 0))
        self.assertEqual(message.record_routes, [])
        self.assertIs(message.via, message.via)

    def test_response(self) -> None:
        """A response has a status and a reason; its method is that of CSeq."""
        for start, status, reason in (
            ("SIP/2.0 200 OK", 200, "OK"), ("sip/2.0 486 Busy Here", 486, "Busy Here"), ("SIP/2.0 180 ", 180, ""),
            ("SIP/2.0 699", 699, ""),
        ):
            message = parse(data(start=start))
            assert isinstance(message, Response)
            message.check()
            self.assertEqual((message.status, message.reason, message.method), (status, reason, "INVITE"))

    def test_bad_status_line(self) -> None:
        """A response that cannot be read has nothing to be answered."""
        for start in (
            "SIP/2.0 99 x", "SIP/2.0 700 x", "SIP/2.0 20 x", "SIP/2.0  200 OK", "SIP/7.0 200 OK", "SIP/2.0 ٢٠٠ OK", "SIP/2.0",
            "SIP/2.0 ",
        ):
            error = self.assertRaises(MalformedMessage, parse, data(start=start))
            self.assertIsNone(error.message, start)

    def test_bad_request_line(self) -> None:
        """A request line that cannot be read is answered with the right status."""
        for start, status in (
            ("INVITE sip:b  SIP/2.0", 400), ("INVITE  sip:b SIP/2.0", 400), ("INVITE sip:b SIP/2.0 ", 400),
            (" INVITE sip:b SIP/2.0", 400),
            ("INVITE sip:b", 400), ("INVITE", 400), ("INVITE sip:b SIP/3.0", 505), ("INVITE sip:b HTTP/1.1", 400),
            ("INV(TE sip:b SIP/2.0", 400),
            ("INVITE\tsip:b\tSIP/2.0", 400), ("X" * 65 + " sip:b SIP/2.0", 400),
            ("INVITE sip:" + "b" * 1024 + " SIP/2.0", 414), ("INVITE sip:b\r\n SIP/2.0", 400),
        ):
            error = self.assertRaises(MalformedMessage, parse, data(start=start))
            self.assertEqual(error.status, status, start)

    def test_spellings(self) -> None:
        """Case, compact forms, blanks and folds around a name all name the same header."""
        for spelling in ("Subject", "s", "S", "SUBJECT", "sUbJeCt", "Subject ", "s\t", "s \r\n "):
            message = request(f"{spelling}: hello")
            self.assertEqual(message.header("subject"), "hello", repr(spelling))
            self.assertEqual(message.positions("s"), [8])

    def test_bad_names(self) -> None:
        """Anything else in a name is malformed, and can be answered (AST-2016-009, CVE-2020-28361)."""
        for line in (
            "Sub ject: x", "Subject\x00: x", "Subject\x0b: x", "Subject\x01: x", ": x", "Subject", "S\xfcbject: x", "(s): x",
            "\x0bSubject: x",
        ):
            error = self.assertRaises(MalformedMessage, parse, data(line))
            self.assertEqual(error.status, 400, repr(line))
            assert error.message is not None
            self.assertEqual(error.message.call_id, "c1@a.example")

    def test_values(self) -> None:
        """Values come unfolded and stripped; lists are split on demand."""
        message = request("X: a\r\n\t b  ", "x : c, \"d,e\"", "X:")
        self.assertEqual(message.headers("X"), ["a b", 'c, "d,e"', ""])
        self.assertEqual(message.values("X"), ["a b", "c", '"d,e"'])
        self.assertEqual(message.header("x"), "a b")
        self.assertIsNone(message.header("y"))
        self.assertEqual(message.headers("y"), [])

    def test_line_ends(self) -> None:
        """Bare LF ends a line as CRLF does, and leaves as CRLF; a bare CR is malformed."""
        whole = data("X: a\r\n b", body=b"ab\n\ncd", Content_Length="6")
        for mixed in (whole.replace(b"\r\n", b"\n"), whole.replace(b"\r\nFrom", b"\nFrom"), whole.replace(b"\r\n\r\n", b"\n\n")):
            message = parse(mixed)
            message.check()
            self.assertEqual(message.header("x"), "a b")
            self.assertEqual(write(message, NO_EDITS), whole)
        for bad in (data("X: a\rb"), data("X: a\r\r"), data().replace(b"\r\nFrom", b"\rFrom")):
            self.assertRaises(MalformedMessage, parse, bad)

    def test_hidden_end(self) -> None:
        """An empty line made of bare LF ends the head: nothing behind it is a header."""
        message = parse(data("X: a\n\nVia: SIP/2.0/UDP evil", drop="Content-Length"))
        self.assertEqual(len(message.vias), 1)
        self.assertEqual(message.body, b"Via: SIP/2.0/UDP evil\r\n\r\n")

    def test_octets_come_back(self) -> None:
        """Octets that are no UTF-8 leave as they came."""
        whole = data("Subject: \udcff\udc80 \xe4", body=b"\xff\x00\r\n", Content_Length="4")
        self.assertEqual(write(parse(whole), NO_EDITS), whole)

    def test_leading_crlf(self) -> None:
        """CRLFs before the start line are passed over (RFC 3261 7.5)."""
        self.assertEqual(write(parse(b"\r\n\r\n" + data()), NO_EDITS), data())

    def test_incomplete(self) -> None:
        """A head without its empty line is malformed, and can be answered."""
        for cut in (data()[:-2], data()[:-4], data()[:-6]):
            error = self.assertRaises(MalformedMessage, parse, cut)
            assert error.message is not None
            self.assertEqual(error.message.via.branch, "z9hG4bKa")

    def test_nothing(self) -> None:
        """Keep-alives are known as such; as messages they are malformed."""
        for octets in (b"", b"\r\n", b"\r\n\r\n", b"\x00" * 4, b" ", b"\t\r\n\x00"):
            self.assertTrue(is_keepalive(octets))
            self.assertRaises(MalformedMessage, parse, octets)
        self.assertFalse(is_keepalive(data()))


class LengthTests(SynchronousTestCase):
    """Tests of Content-Length (RFC 3261 18.3, 20.14)."""

    def test_length(self) -> None:
        """The body is cut to Content-Length; without it, it is the rest."""
        self.assertEqual(parse(data(body=b"abc", Content_Length="3")).body, b"abc")
        self.assertEqual(parse(data(body=b"abcdef", Content_Length="3")).body, b"abc")
        self.assertEqual(parse(data(body=b"abc", Content_Length="000000000003")).body, b"abc")
        self.assertEqual(parse(data(body=b"abc", drop="Content-Length")).body, b"abc")
        self.assertEqual(parse(data("l: 2", body=b"abc", drop="Content-Length")).body, b"ab")

    def test_bad_length(self) -> None:
        """Any other is malformed, and can be answered."""
        for text in ("4", "-1", "+3", "3x", "0x3", "3 3", "", "3, 3", "٣", "4294967299", "18446744073709551619", "9" * 500):
            error = self.assertRaises(MalformedMessage, parse, data(body=b"abc", Content_Length=text))
            self.assertIn(error.status, (400, 513), text)
            self.assertIsInstance(error.message, Request, text)

    def test_repeated_length(self) -> None:
        """Two of them are malformed even if equal: another server may believe the other one."""
        for line in ("Content-Length: 3", "l: 3", "content-length : 0", "L\r\n : 2"):
            self.assertRaises(MalformedMessage, parse, data(line, body=b"abc", Content_Length="3"))


class LimitTests(SynchronousTestCase):
    """Tests of the limits."""

    def test_limits(self) -> None:
        """What exceeds a limit is refused with its status."""
        for octets, limits, status in (
            (data(body=b"x" * 65536, Content_Length="65536"), Limits(), 513),
            (data(body=b"x" * 50000, Content_Length="50000"), Limits(), 513),
            (data(*["X: y"] * 94), Limits(), 400),
            (data(*["X-Odd : y"] * 94), Limits(), 400),
            (data("X: " + "y" * 8192), Limits(), 400),
            (data("X: y\r\n " + "y" * 8192), Limits(), 400),
        ):
            error = self.assertRaises(MalformedMessage, parse, octets, limits)
            self.assertEqual(error.status, status)
        parse(data(*["X: y"] * 93)).check()
        parse(data(body=b"x" * 49152, Content_Length="49152")).check()
        parse(data("X: " + "y" * 8100)).check()

    def test_vias_and_contacts(self) -> None:
        """More Vias than hops are malformed, and so are too many contacts when they are read."""
        request(*["Via: SIP/2.0/UDP a"] * 69).check()
        self.assertRaises(MalformedMessage, request(*["Via: SIP/2.0/UDP a"] * 70).check)
        many = request("Via: " + ", ".join(["SIP/2.0/UDP a"] * 70))
        self.assertRaises(MalformedMessage, lambda: many.vias)
        many = request("Contact: " + ", ".join(["<sip:a>"] * 51))
        self.assertRaises(MalformedMessage, lambda: many.contacts)


class CheckTests(SynchronousTestCase):
    """Tests of ``check``."""

    def test_good(self) -> None:
        """What any relay can route passes."""
        request().check()
        request(drop="Max-Forwards").check()
        request(drop="Content-Length").check()
        request("Supported: a", "Supported: b", "Via: SIP/2.0/TCP x", "Subject: a", "Subject: b").check()

    def test_missing(self) -> None:
        """Each header of RFC 3261 8.1.1 but Max-Forwards, which RFC 2543 lacks, must be there."""
        for name in ("Via", "From", "To", "Call-ID", "CSeq"):
            message = request(drop=name)
            error = self.assertRaises(MalformedMessage, message.check)
            self.assertEqual((error.status, error.reason), (400, f"Missing header ({name.lower()})"))
            self.assertIs(error.message, message)

    def test_repeated(self) -> None:
        """The headers that route, match or frame may come once (RFC 4475 3.3.8)."""
        for line in (
            "From: <sip:x>;tag=2", "t: <sip:x>", "i: other", "CSeq: 1 INVITE", "Max-Forwards: 1", "c: x/y", "Expires: 1",
            "Expires: 2",
        ):
            self.assertRaises(MalformedMessage, request(line, Content_Type="a/b", Expires="1").check)

    def test_bad_values(self) -> None:
        """A value that routing needs and that cannot be read is refused."""
        for changed in (
            {"CSeq": "INVITE"}, {"CSeq": "1"}, {"CSeq": "1INVITE"}, {"CSeq": "-1 INVITE"}, {"CSeq": "4294967296 INVITE"},
            {"CSeq": "1 INVITE x"},
            {"CSeq": "1 BYE"}, {"CSeq": "1 invite"}, {"CSeq": ""}, {"Max-Forwards": "256"}, {"Max-Forwards": "x"},
            {"Max-Forwards": ""},
            {"Via": "SIP/2.0/UDP"}, {"Via": "SIP/2.0/UDP a;branch=1;branch=2"}, {"Via": ""}, {"Via": ", SIP/2.0/UDP a"},
            {"From": "<sip:a"}, {"From": "<sip:a>;tag=1;tag=2"}, {"From": ""}, {"To": "x"}, {"To": "<sip:a>;tag=1;tag=1"},
            {"Call-ID": ""}, {"Call-ID": "a b"}, {"Expires": "x"}, {"Expires": "4294967296"},
        ):
            message = request(**{name.replace("-", "_"): value for name, value in changed.items()})
            error = self.assertRaises(MalformedMessage, message.check)
            self.assertEqual((error.status, error.message), (400, message), changed)

    def test_good_values(self) -> None:
        """Odd but legal values pass."""
        for changed in (
            {"CSeq": "0004294967295   INVITE"}, {"CSeq": "1\tINVITE"}, {"CSeq": "1 \r\n INVITE"}, {"Max-Forwards": "0"},
            {"Max-Forwards": "0255"},
            {"Via": "SIP/2.0/UDP a, SIP/2.0/UDP b"}, {"From": "sip:a"}, {"Expires": "4294967295"}, {"To": "isbn:123"},
        ):
            request(**{name.replace("-", "_"): value for name, value in changed.items()}).check()

    def test_request_uri(self) -> None:
        """A bad Request-URI, or one with headers, is refused; an unknown scheme is for the transaction user (416)."""
        for uri in ("b@c", "sip:", "sip:a@b@c", "<sip:a>", "sip:2001:db8::1", "sip:a@b?Route=%3Csip:x%3E"):
            self.assertRaises(MalformedMessage, parse(data(start=f"INVITE {uri} SIP/2.0")).check)
        parse(data(start="INVITE nobody:knows SIP/2.0")).check()

    def test_register(self) -> None:
        """The contacts of a REGISTER are checked, of other requests not: a relay does not read them."""
        bad = "Contact: sip:a@b?Route=%3Csip:x%3E"
        request(bad).check()
        for line in (bad, "Contact: *, <sip:a>", "Contact: <sip:a>;;"):
            message = parse(data(line, start="REGISTER sip:b SIP/2.0", CSeq="1 REGISTER"))
            self.assertRaises(MalformedMessage, message.check)

    def test_malformed_each_time(self) -> None:
        """A malformed value is so on each touch, names its header, and hands over the message."""
        message = request(CSeq="x INVITE")
        for _ in range(2):
            error = self.assertRaises(MalformedMessage, lambda: message.cseq)
            self.assertEqual((error.reason, error.status), ("Bad number (CSeq)", 400))
            self.assertIs(error.message, message)
        self.assertRaises(MalformedMessage, message.check)
        self.assertRaises(MalformedMessage, lambda: request(Expires="x").expires)
        self.assertRaises(MalformedMessage, lambda: request(Max_Forwards="x").max_forwards)


class StampTests(SynchronousTestCase):
    """Tests of ``stamp_via`` (RFC 3261 18.2.1, RFC 3581 4)."""

    def stamped(self, via: str, host: str = "192.0.2.9") -> str:
        message = request(f"Via: {via}", drop="Via")
        stamp_via(message, host, 4000)
        line = message.lines[message.names.index("via")]
        again = request(line, drop="Via")
        self.assertEqual((again.via.received, again.via.rport), (message.via.received, message.via.rport))
        self.assertEqual(len(again.vias), len(message.vias))
        return line.partition(": ")[2]

    def test_stamped(self) -> None:
        """Received tells the source where it differs or was asked for, rport its port."""
        for via, expected in (
            ("SIP/2.0/UDP 192.0.2.9;branch=b", "SIP/2.0/UDP 192.0.2.9;branch=b"),
            ("SIP/2.0/UDP a;branch=b", "SIP/2.0/UDP a;branch=b;received=192.0.2.9"),
            ("SIP/2.0/UDP a", "SIP/2.0/UDP a;received=192.0.2.9"),
            ("SIP/2.0/UDP a;branch=b;rport", "SIP/2.0/UDP a;branch=b;rport=4000;received=192.0.2.9"),
            ("SIP/2.0/UDP 192.0.2.9;rport;branch=b", "SIP/2.0/UDP 192.0.2.9;rport=4000;branch=b;received=192.0.2.9"),
            ("SIP/2.0/UDP a;rportx=1", "SIP/2.0/UDP a;rportx=1;received=192.0.2.9"),
            ("SIP/2.0/UDP a;rport=1;x", "SIP/2.0/UDP a;rport=4000;x;received=192.0.2.9"),
            ("SIP/2.0/UDP a;RPORT;B=c", "SIP/2.0/UDP a;rport=4000;b=c;received=192.0.2.9"),
            ("SIP/2.0/UDP a;branch=b, SIP/2.0/UDP a;branch=b",
            "SIP/2.0/UDP a;branch=b;received=192.0.2.9, SIP/2.0/UDP a;branch=b"),
            ("SIP/2.0/UDP a, SIP/2.0/UDP b", "SIP/2.0/UDP a;received=192.0.2.9, SIP/2.0/UDP b"),
        ):
            self.assertEqual(self.stamped(via), expected)

    def test_usual(self) -> None:
        """The usual Via is read and stamped by a short way, to the same end as the long one (which two blanks lead to)."""
        for text in (
            "SIP/2.0/UDP a;branch=b", "SIP/2.0/UDP 192.0.2.9;branch=b", "SIP/2.0/UDP a:5070;branch=b;rport",
            "SIP/2.0/TCP a:65535;branch=z9hG4bK.1;rport", "SIP/2.0/UDP a;branch=b;rport, SIP/2.0/UDP b;branch=c;rport",
        ):
            results = []
            for blanks in ("", " "):
                message = request(f"Via: {blanks}{text}", drop="Via")
                self.assertEqual(message.via.asks_rport is None, bool(blanks))
                stamp_via(message, "192.0.2.9", 4000)
                via = message.via
                stamped = message.lines[message.names.index("via")].partition(":")[2].strip()
                results.append((stamped, str(via), via.branch, via.port, via.params, via.rport, via.received, len(message.vias)))
            self.assertEqual(results[0], results[1])

    def test_port_too_high(self) -> None:
        """A port of five digits may be none."""
        with self.assertRaises(MalformedMessage):
            request("Via: SIP/2.0/UDP a:65536;branch=b;rport", drop="Via").check()

    def test_nothing_from_the_sender_is_believed(self) -> None:
        """A received or rport that the sender wrote is overwritten, however it is hidden."""
        for via in (
            "SIP/2.0/UDP 192.0.2.9;received=6.6.6.6", "SIP/2.0/UDP a;received=6.6.6.6;rport=1",
            "SIP/2.0/UDP a ; Received = 6.6.6.6",
            'SIP/2.0/UDP a;x=";received=6.6.6.6";rport', "SIP/2.0/UDP a;received=6.6.6.6\r\n ;rport",
            "SIP/2.0/UDP a;received=[::6]",
            "SIP/2.0/UDP a;rport (;received=6.6.6.6)", "SIP/2.0/UDP a;x\r\n ;rport, SIP/2.0/UDP b;x ;rport",
        ):
            message = request(f"Via: {via}", drop="Via")
            stamp_via(message, "192.0.2.9", 4000)
            written = parse(write(message, NO_EDITS)).via
            self.assertEqual(written.received, "192.0.2.9", via)
            if "rport" in via:
                self.assertEqual(written.rport, 4000, via)

    def test_ipv6(self) -> None:
        """An IPv6 source is written plain (RFC 5118 4.5) and is the same as a bracketed sent-by."""
        self.assertEqual(self.stamped("SIP/2.0/UDP [::1]", "::1"), "SIP/2.0/UDP [::1]")
        self.assertEqual(self.stamped("SIP/2.0/UDP [::2];rport", "::1"), "SIP/2.0/UDP [::2];rport=4000;received=::1")

    def test_forced_later(self) -> None:
        """Rport can be forced, once more, after the first stamp; the kept value follows."""
        message = request()
        stamp_via(message, "192.0.2.9", 4000)
        self.assertEqual((message.via.received, message.via.rport), ("192.0.2.9", None))
        stamp_via(message, "192.0.2.9", 4000, force_rport=True)
        stamp_via(message, "192.0.2.9", 4000, force_rport=True)
        self.assertEqual((message.via.received, message.via.rport), ("192.0.2.9", 4000))
        written = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa;received=192.0.2.9;rport=4000"
        self.assertEqual(message.lines[1], written)
        self.assertEqual(str(message.vias[0]), str(message.via))

    def test_bad_via(self) -> None:
        """A Via that cannot be read cannot be stamped."""
        self.assertRaises(MalformedMessage, stamp_via, request(Via="x"), "192.0.2.9", 1)


class KnownTests(SynchronousTestCase):
    """What is remembered of the values of From, To and CSeq."""

    def test_same(self) -> None:
        """A value seen again is the same object; it is that of its own text."""
        one, other = request(), request(CSeq="1 INVITE", To="<sip:bob@b.example>;tag=2")
        one.check()
        other.check()
        self.assertIs(one.from_, other.from_)
        self.assertIs(one.cseq, other.cseq)
        self.assertEqual((one.to_tag, other.to_tag), (None, "2"))

    def test_bounds(self) -> None:
        """Not more than ``MAX_KNOWN`` are remembered, none that is long, and none that is malformed."""
        message_module._known_addresses.clear()
        message_module._known_cseqs.clear()
        for number in range(MAX_KNOWN + 10):
            request(From=f"<sip:a@a.example>;tag={number}", CSeq=f"{number} INVITE").check()
        self.assertLessEqual(len(message_module._known_addresses), MAX_KNOWN + 1)
        self.assertLessEqual(len(message_module._known_cseqs), MAX_KNOWN)
        message_module._known_addresses.clear()
        request(From=f"<sip:{'a' * 300}@a.example>;tag=1", To=f"<sip:{'b' * 300}@a.example>").check()
        with self.assertRaises(MalformedMessage):
            request(From="<sip:a@a.example>;tag=1;tag=2").check()
        self.assertEqual([text for text in message_module._known_addresses if "tag" in text], [])
