"""The 69 torture messages of RFC 4475 and RFC 5118, one row each, through ``parse`` and ``check``."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import unescape
from sipgw.sip.message import Message, Request, Response, parse

TORTURE = Path(__file__).resolve().parent.parent / "torture"

# File -> None where the message passes (RFC 4475 3.1.1, 3.3; RFC 5118), else the status it is refused with.
# What passes and is refused later by a transaction user (416, 420, 483, 415, 406, 401) is None here.
OUTCOME: dict[str, int | None] = {
    "rfc4475/wsinv.dat": None,
    "rfc4475/intmeth.dat": None,
    "rfc4475/esc01.dat": None,
    "rfc4475/escnull.dat": None,
    "rfc4475/esc02.dat": None,
    "rfc4475/lwsdisp.dat": None,
    "rfc4475/longreq.dat": None,
    "rfc4475/dblreq.dat": None,
    "rfc4475/semiuri.dat": None,
    "rfc4475/transports.dat": None,
    "rfc4475/mpart01.dat": None,
    "rfc4475/unreason.dat": None,
    "rfc4475/noreason.dat": None,
    "rfc4475/badinv01.dat": 400,
    "rfc4475/clerr.dat": 400,
    "rfc4475/ncl.dat": 400,
    "rfc4475/scalar02.dat": 400,
    "rfc4475/scalarlg.dat": 400,
    "rfc4475/quotbal.dat": 400,
    "rfc4475/ltgtruri.dat": 400,
    "rfc4475/lwsruri.dat": 400,
    "rfc4475/lwsstart.dat": 400,
    "rfc4475/trws.dat": 400,
    "rfc4475/escruri.dat": 400,
    "rfc4475/baddate.dat": None,  # Date is nobody's business here
    "rfc4475/regbadct.dat": 400,
    "rfc4475/badaspec.dat": 400,
    "rfc4475/baddn.dat": 400,
    "rfc4475/badvers.dat": 505,
    "rfc4475/mismatch01.dat": 400,
    "rfc4475/mismatch02.dat": 400,
    "rfc4475/bigcode.dat": 400,
    "rfc4475/badbranch.dat": None,  # matched as RFC 2543 does
    "rfc4475/insuf.dat": 400,
    "rfc4475/unkscm.dat": None,
    "rfc4475/novelsc.dat": None,
    "rfc4475/unksm2.dat": None,
    "rfc4475/bext01.dat": None,
    "rfc4475/invut.dat": None,
    "rfc4475/regaut01.dat": None,
    "rfc4475/multi01.dat": 400,
    "rfc4475/mcl01.dat": 400,
    "rfc4475/bcast.dat": None,  # dropped where a response is sent on
    "rfc4475/zeromf.dat": None,
    "rfc4475/cparam01.dat": None,
    "rfc4475/cparam02.dat": None,
    "rfc4475/regescrt.dat": None,
    "rfc4475/sdp01.dat": None,
    "rfc4475/inv2543.dat": None,
    "rfc4475/test.dat": 400,
    "rfc5118/ipv6-good.dat": None,
    "rfc5118/ipv6-bad.dat": 400,
    "rfc5118/port-ambiguous.dat": None,
    "rfc5118/port-unambiguous.dat": None,
    "rfc5118/via-received-param-with-delim.dat": None,
    "rfc5118/via-received-param-no-delim.dat": None,
    "rfc5118/ipv6-in-sdp.dat": 400,  # Content-Length 268 of 251 octets
    "rfc5118/mult-ip-in-header.dat": None,
    "rfc5118/mult-ip-in-sdp.dat": None,
    "rfc5118/ipv4-mapped-ipv6.dat": None,
    "rfc5118/ipv6-bug-abnf-3-colons.dat": 400,
    "rfc5118/ipv6-correct-abnf-2-colons.dat": None,
    "variants/baddn-eoh.dat": 400,
    "variants/ncl-five.dat": 400,
    "variants/quotbal-two-uris.dat": 400,
    "variants/noreason-nosp.dat": None,
    "variants/ipv6-in-sdp-clfix.dat": None,
    "variants/mult-ip-in-sdp-clfix.dat": None,
    "variants/ipv4-mapped-ipv6-clfix.dat": None,
}

# The messages whose datagram is longer than Content-Length says: how many octets at the end count for nothing.
TRAILING = {"rfc4475/dblreq.dat": None, "rfc5118/mult-ip-in-sdp.dat": None, "rfc5118/ipv4-mapped-ipv6.dat": None}


def read(name: str) -> bytes:
    return (TORTURE / name).read_bytes()


def judge(data: bytes) -> int | None:
    try:
        parse(data).check()
    except MalformedMessage as error:
        return error.status
    return None


def request(name: str) -> Request:
    message = parse(read(name))
    assert isinstance(message, Request)
    return message


class TortureTests(SynchronousTestCase):
    """Tests of the outcome of each torture message."""

    def test_every_file_has_a_row(self) -> None:
        """The table has a row for each file of the index and for no other."""
        rows = (TORTURE / "index.tsv").read_text().splitlines()[1:]
        self.assertEqual({row.split("\t")[0] for row in rows}, set(OUTCOME))
        self.assertEqual(len(OUTCOME), 69)

    def test_outcome(self) -> None:
        """Each message passes or is refused with the status of its row."""
        seen = {name: judge(read(name)) for name in OUTCOME}
        self.assertEqual({name: status for name, status in seen.items() if status != OUTCOME[name]}, {})

    def test_refused_requests_can_be_answered(self) -> None:
        """A refused request comes with a message from which a response can be built, unless its first line is junk."""
        for name, status in OUTCOME.items():
            if status is None or read(name).startswith(b"SIP/"):
                continue
            with self.assertRaises(MalformedMessage) as caught:
                parse(read(name)).check()
            self.assertIsInstance(caught.exception.message, Message, name)

    def test_written_as_it_came(self) -> None:
        """A message that passes is written back octet for octet, up to its Content-Length."""
        for name, status in OUTCOME.items():
            if status is not None:
                continue
            data = read(name)
            message = parse(data)
            written = write(message, NO_EDITS)
            if name in TRAILING:
                self.assertTrue(data.startswith(written), name)
                self.assertEqual(len(message.body), message.content_length, name)
            else:
                self.assertEqual(written, data, name)

    def test_every_lazy_value(self) -> None:
        """Each value of each message is read or malformed, whether or not the message passes."""
        for name in OUTCOME:
            try:
                message = parse(read(name))
            except MalformedMessage:
                continue
            for attribute in ("via", "vias", "from_", "to", "contacts", "routes", "record_routes", "cseq", "expires"):
                try:
                    getattr(message, attribute)
                except MalformedMessage as error:
                    self.assertIs(error.message, message)


class MeaningTests(SynchronousTestCase):
    """Tests of what RFC 4475 and RFC 5118 say is in their messages."""

    def test_wsinv(self) -> None:
        """Folds, white space, compact forms and odd case are read as RFC 4475 3.1.1.1 says."""
        message = request("rfc4475/wsinv.dat")
        self.assertEqual(message.cseq, (9, "INVITE"))
        self.assertEqual(message.max_forwards, 68)
        self.assertEqual([via.address for via in message.vias], ["192.0.2.2", "spindle.example.com", "192.168.255.111"])
        self.assertEqual(
            [via.branch for via in message.vias], ["390skdjuw", "z9hG4bK9ikj8", "z9hG4bK30239"]
        )
        self.assertEqual([via.transport for via in message.vias], ["UDP", "TCP", "UDP"])
        self.assertEqual(message.header("Subject"), "")
        self.assertEqual(message.to_tag, "1918181833n")
        self.assertEqual(message.from_.name, 'J Rosenberg \\"')
        self.assertEqual(message.from_tag, "98asjd8")
        self.assertEqual(message.header("newfangledheader"), "newfangled value continued newfangled value")
        self.assertEqual(message.routes[0].uri.param("lr"), "")
        contact = message.contacts[0]
        self.assertEqual(contact.name, 'Quoted string ""')
        self.assertEqual(contact.params, {"newparam": "newvalue", "secondparam": None, "q": "0.33"})
        self.assertEqual(contact.q, 330)
        self.assertEqual(len(message.body), 150)

    def test_intmeth(self) -> None:
        """Every character that a token, a user part and a quoted string may hold is kept (3.1.1.2)."""
        message = request("rfc4475/intmeth.dat")
        self.assertEqual(message.method, "!interesting-Method0123456789_*+`.%indeed'~")
        self.assertEqual(message.cseq.method, message.method)
        self.assertEqual(message.to.name, "BEL:\x07 NUL:\x00 DEL:\x7f")
        self.assertEqual(message.from_tag, "_token~1'+`*%!-.")
        self.assertEqual(message.request_uri.host, "example.com")
        self.assertEqual(message.request_uri.password, "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)")
        self.assertEqual(message.header("extensionHeader-!.%*+_`'~"), "\ufeff大停電")

    def test_escapes(self) -> None:
        """Escapes are decoded once and only where they are escapes (3.1.1.3, 3.1.1.5)."""
        message = request("rfc4475/esc01.dat")
        self.assertEqual(message.from_.uri.user, "I%20have%20spaces")
        self.assertEqual(message.contacts[0].uri.param_list[1], ("n%61me", "v%61lue%25%34%31"))
        self.assertEqual(unescape("v%61lue%25%34%31"), "value%41")
        message = request("rfc4475/esc02.dat")
        self.assertEqual(message.method, "RE%47IST%45R")
        self.assertEqual(len(message.contacts), 2)
        self.assertEqual(len(message.positions("C%6Fntact")), 1)

    def test_escaped_nul(self) -> None:
        """An escaped NUL does not end a user part (3.1.1.4)."""
        contacts = request("rfc4475/escnull.dat").contacts
        self.assertEqual([contact.uri.user for contact in contacts], ["%00", "%00%00"])

    def test_longreq(self) -> None:
        """All 34 Via are read (3.1.1.7)."""
        message = request("rfc4475/longreq.dat")
        self.assertEqual(len(message.vias), 34)
        self.assertEqual(message.via.host, "sip33.example.com")
        self.assertIsNone(message.via.branch)

    def test_dblreq(self) -> None:
        """What follows Content-Length in a datagram is left out (3.1.1.8)."""
        message = request("rfc4475/dblreq.dat")
        self.assertEqual((message.method, message.body), ("REGISTER", b""))

    def test_semiuri(self) -> None:
        """Semicolons before @ belong to the user (3.1.1.9)."""
        uri = request("rfc4475/semiuri.dat").request_uri
        self.assertEqual((uri.user, uri.host, uri.params), ("user;par=u%40example.net", "example.com", ""))

    def test_transports(self) -> None:
        """Unknown transports in Via are read (3.1.1.10)."""
        vias = request("rfc4475/transports.dat").vias
        self.assertEqual([via.transport for via in vias], ["UDP", "SCTP", "TLS", "UNKNOWN", "TCP"])

    def test_responses(self) -> None:
        """Reasons may be UTF-8, empty, or lack even their space (3.1.1.12, 3.1.1.13)."""
        for name, status, reason in (
            ("rfc4475/unreason.dat", 200, "= 2**3 * 5**2 но сто девяносто девять - простое"),
            ("rfc4475/noreason.dat", 100, ""),
            ("variants/noreason-nosp.dat", 100, ""),
        ):
            message = parse(read(name))
            assert isinstance(message, Response)
            self.assertEqual((message.status, message.reason), (status, reason))

    def test_contact_parameters(self) -> None:
        """A parameter outside the brackets is the header's, inside the URI's (3.3.12, 3.3.13)."""
        outside = request("rfc4475/cparam01.dat").contacts[0]
        self.assertEqual((outside.uri.params, outside.params), ("", {"unknownparam": None}))
        inside = request("rfc4475/cparam02.dat").contacts[0]
        self.assertEqual((inside.uri.params, inside.params), ("unknownparam", {}))
        escaped = request("rfc4475/regescrt.dat").contacts[0]
        self.assertEqual(escaped.uri.headers, "Route=%3Csip:sip.example.com%3E")

    def test_ipv6(self) -> None:
        """IPv6 references are cut from their ports only at the bracket (RFC 5118 4.3, 4.4)."""
        uri = request("rfc5118/port-ambiguous.dat").request_uri
        self.assertEqual((uri.address, uri.port), ("2001:db8::10:5070", None))
        uri = request("rfc5118/port-unambiguous.dat").request_uri
        self.assertEqual((uri.address, uri.port), ("2001:db8::10", 5070))

    def test_received(self) -> None:
        """Received is read with and without brackets, and given plain (RFC 5118 4.5)."""
        for name in ("with", "no"):
            via = request(f"rfc5118/via-received-param-{name}-delim.dat").via
            self.assertEqual(via.received, "2001:db8::9:255")

    def test_unknown_schemes(self) -> None:
        """Unknown URI schemes are no fault of the message (3.3.2, 3.3.3, 3.3.4)."""
        self.assertEqual(request("rfc4475/unkscm.dat").request_uri.scheme, "nobodyknowsthisscheme")
        self.assertEqual(request("rfc4475/novelsc.dat").request_uri.scheme, "soap.beep")
        self.assertEqual(request("rfc4475/unksm2.dat").to.uri.scheme, "isbn")
