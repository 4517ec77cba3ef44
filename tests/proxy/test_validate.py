"""Tests of sipgw.proxy.validate, with OpenSIPS's codes for the same messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.sipmsgops import Sipmsgops
from sipgw.proxy.validate import check_flags
from sipgw.script.run import Run
from sipgw.sip.message import Request, Response
from tests.doubles import HEAD, FakeFlow, FakeVariable, request, response, run_of

CONTACT = "Contact: <sip:alice@192.0.2.1>\r\n"
SDP = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=x\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
SDP_TYPE = "Content-Type: application/sdp\r\n"


def judge(message: Request | Response, flags: str | None = None, run: Run | None = None) -> tuple[int, object]:
    """The code and the reason."""
    reason = FakeVariable()
    return Sipmsgops().sipmsg_validate(run or run_of(message), flags, reason), reason.get(None)


class ValidateTests(SynchronousTestCase):
    """sipmsg_validate."""

    def check(self, code: int, flags: str, message: Request | Response) -> None:
        """The message has that fault with these flags."""
        found, reason = judge(message, flags)
        self.assertEqual(found, code, (flags, message.lines, reason))
        self.assertEqual(reason is None, code == 1)

    def test_good(self) -> None:
        """A good message is good, however closely one looks."""
        self.check(1, "", request("INVITE", more=CONTACT))
        self.check(1, "shrftc", request("INVITE", more=CONTACT + SDP_TYPE, body=SDP))
        self.check(1, "shftc", response(more=CONTACT))

    def test_max_forwards(self) -> None:
        """It must be there, unless that does not matter."""
        bare = request(head=HEAD.replace("Max-Forwards: 70\r\n", ""))
        self.check(-13, "", bare)
        self.check(1, "m", bare)

    def test_uris(self) -> None:
        """Domains and users have their characters."""
        for flags, uri, code in [
            ("r", "sip:bob@a_b.c", -12), ("r", "sip:bob@-x.y", -12), ("r", "sip:bob@x-.y", -12), ("r", "tel:123", -12),
            ("r", "sip:bob@[::1]", 1),
            ("r", "sip:b{b@abc", -27), ("", "sip:b{b@a_b.c", 1), ("r", "sip:b%20b@x.y.", 1), ("r", "sip:192.0.2.1:5060", 1),
        ]:
            self.check(code, flags, request(uri=uri))
        for flags, old, new, code in [
            ("f", "alice@example.org", "alice@exa_mple.org", -25), ("f", "alice@example.org", "al{ice@example.org", -28),
            ("f", "sip:alice@example.org", "sip:@", -24),
            ("t", "bob@example.org", "bob@exa_mple.org", -23), ("t", "bob@example.org", "b{b@example.org", -29),
            ("t", "sip:bob@example.org", "sip:@", -22),
        ]:
            self.check(code, flags, request(head=HEAD.replace(old, new)))
            self.check(1, "", request(head=HEAD.replace(old, new)))

    def test_contact(self) -> None:
        """It must be there, readable, and * only in a REGISTER that unregisters."""
        for method, more, code in [
            ("INVITE", "", -14), ("REGISTER", "", -14), ("INVITE", "Contact: *\r\n", -30), ("REGISTER", "Contact: *\r\n", -30),
            ("REGISTER", "Contact: *\r\nExpires: 0\r\n", 1), ("INVITE", "Contact: junk\r\n", -26), ("INVITE", CONTACT, 1),
        ]:
            self.check(code, "c", request(method, more=more))
        self.check(1, "", request("INVITE"))

    def test_bodies(self) -> None:
        """A body has a type; a description its lines."""
        self.check(-21, "", request("INVITE", body=SDP))
        for old, new in [("v=0\r\n", ""), ("o=- 1 1 IN IP4 192.0.2.1\r\n", ""), ("c=IN IP4 192.0.2.1\r\n", ""),
                         (" 4000 RTP/AVP 0", "")]:
            broken = request("INVITE", more=SDP_TYPE, body=SDP.replace(old, new))
            self.check(-6, "s", broken)
            self.check(1, "", broken)
        self.check(-6, "s", request("INVITE", more="Content-Type: multipart/mixed;boundary=B\r\n", body="--C"))

    def test_length(self) -> None:
        """A stream needs Content-Length."""
        message = request()
        line = message.names.index("content-length")
        del message.lines[line], message.names[line]
        run = run_of(message)
        self.assertEqual(judge(message, run=run)[0], 1)
        run.flow = FakeFlow(reliable=True)
        self.assertEqual(judge(message, run=run)[0], -4)

    def test_headers(self) -> None:
        """With h every known header is read."""
        for more, code in [
            ("Route: junk\r\n", -2), ("Expires: x\r\n", -2), ("Allow: x y\r\n", -2), ("Contact: junk\r\n", -2),
            ("Min-SE: a\r\n", -2),
            ("Content-Type: x\r\n", -2), ("Require: \r\n", 1), ("Allow: A, B\r\nMin-SE: 90;x=y\r\n", 1),
            ("Route: <sip:a@b;lr>\r\n", 1),
        ]:
            self.check(code, "h", request(more=more))
            self.check(1, "", request(more=more))

    def test_path(self) -> None:
        """Path is for REGISTER."""
        self.check(-15, "", request("INVITE", more="Path: <sip:x>\r\n"))
        self.check(1, "", request("REGISTER", more="Path: <sip:x>\r\n"))

    def test_replies(self) -> None:
        """Some replies need a header."""
        for status, code, header in [
            (405, -16, "Allow: INVITE"), (423, -17, "Min-Expires: 60"), (407, -18, 'Proxy-Authenticate: Digest realm="x"'),
            (420, -19, "Unsupported: x"), (401, -20, 'WWW-Authenticate: Digest realm="x"'),
        ]:
            self.check(code, "", response(status))
            self.check(1, "", response(status, more=f"{header}\r\n"))

    def test_flags(self) -> None:
        """Unknown letters are refused when the configuration is read."""
        check_flags("shmrftc")
        self.assertRaises(ValueError, check_flags, "z")
