"""Requests that come from inside: the script sees them, whoever brought them in hears the answer."""

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.inner import bring_in
from sipgw.proxy.originate import new_request
from sipgw.sip.message import Request, Response
from sipgw.sip.replies import respond_to
from sipgw.testing import Phone, WiredServer

SCRIPT = """
    socket = udp:127.0.0.1:5060
    loadmodule "proto_udp.so"
    loadmodule "tm.so"
    loadmodule "sl.so"
    loadmodule "signaling.so"
    route {
        xlog("L_NOTICE", "$rm from $si:$sp to $socket_in(proto)\\n");
        if ($rU == "answered") { send_reply(202, "Accepted"); exit; }
        if ($rU == "stateful") { t_newtran(); t_reply(480, "Away"); exit; }
        if ($rU == "dropped") exit;
        t_relay();
    }
"""


class InnerTests(SynchronousTestCase):
    """``bring_in``."""

    def setUp(self) -> None:
        """A server and a phone on a wire."""
        self.server = WiredServer(SCRIPT)
        self.phone = Phone(self.server.wire, "127.0.0.2")

    def bring(self, user: str, host: str = "127.0.0.1") -> Any:
        """A MESSAGE to that user of that host, and what becomes of it."""
        request = new_request(self.server.user, "MESSAGE", f"sip:{user}@{host}", "sip:+49@sms", f"sip:{user}@{host}", body=b"hi")
        deferred = ensureDeferred(bring_in(self.server.user, request, transport="smpp", host="192.0.2.1", port=2775))
        self.server.clock.advance(0.1)
        return deferred

    def test_answered(self) -> None:
        """Replies without and with a transaction come back; the script sees where it came from."""
        self.assertEqual(self.successResultOf(self.bring("answered")).status, 202)
        outcome = self.successResultOf(self.bring("stateful"))
        self.assertEqual((outcome.status, outcome.response.reason), (480, "Away"))
        self.assertIn((2, "MESSAGE from 192.0.2.1:2775 to udp\n"), self.server.lines)

    def test_relayed(self) -> None:
        """It is relayed like any request, and the answer of the phone comes back."""
        deferred = self.bring("phone", "127.0.0.2:5060")
        self.assertNoResult(deferred)
        request = self.phone.take()
        assert isinstance(request, Request)
        self.assertEqual((request.body, len(request.vias)), (b"hi", 2))
        self.phone.send(respond_to(request, 200, "OK", to_tag="x"), self.server.address)
        self.server.clock.advance(0.1)
        outcome = self.successResultOf(deferred)
        assert isinstance(outcome.response, Response)
        self.assertEqual((outcome.status, outcome.response.to_tag), (200, "x"))

    def test_not_answered(self) -> None:
        """A script that drops it, and a phone that is silent, are a timeout."""
        dropped, silent = self.bring("dropped"), self.bring("phone", "127.0.0.2:5060")
        self.server.clock.pump([1] * 41)
        self.assertEqual(self.successResultOf(dropped).status, 408)
        self.assertEqual(self.successResultOf(silent).status, 408)
        self.server.clock.pump([1] * 40)
        self.assertEqual(self.server.left(), [])
