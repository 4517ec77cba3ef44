"""error_route on a whole server: what it sees of a request that cannot be read, and which answers it can give."""

from __future__ import annotations

from tests.modules.calls import ALICE, Calls
from tests.proxy.rig import request

SCRIPT = """
error_route {
    xlog("L_ALERT", "$err.class $err.level $err.rcode $err.info");
    sl_send_reply($err.rcode, "Bad: $err.rreason");
}
route { sl_send_reply(200, "OK"); }
"""


class ErrorRouteTests(Calls):
    """``error_route``."""

    def test_answers(self) -> None:
        """The script answers in place of the server; the Via of its answer says where the request came from (RFC 3261 18.2.1)."""
        self.start(SCRIPT)
        bad = request("OPTIONS").replace(b"CSeq: 1 OPTIONS", b"CSeq: x OPTIONS")
        bad = bad.replace(b"SIP/2.0/UDP 127.0.0.1", b"SIP/2.0/UDP h.x", 1)
        self.arrive(bad)
        (answer,) = self.sent(ALICE)
        self.assertEqual((answer.status, answer.reason), (400, "Bad: Bad number (CSeq)"))
        self.assertEqual(answer.via.params["received"], "127.0.0.1")
        self.assertEqual(self.logged()[-1], "1 3 400 Bad number (CSeq)")
        self.arrive(request("OPTIONS"))
        self.assertEqual(self.said(ALICE), ["200 OPTIONS"])

    def test_no_via(self) -> None:
        """What has no Via can be logged, never answered (RFC 3261 8.2.6.2: a response has the request's Via)."""
        self.start(SCRIPT)
        self.arrive(b"OPTIONS \xff\xfe SIP/2.0\r\n\r\n")
        self.assertEqual(self.sent(ALICE), [])
        self.assertIn("1 3 400 Missing header (Via)", self.logged())
