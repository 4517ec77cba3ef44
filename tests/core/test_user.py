"""What the transaction user does before a script sees a message: what is refused, and where the refusal goes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.message import Response
from sipgw.testing import Phone, WiredServer

SCRIPT = """
socket = udp:192.0.2.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
route {
	if ($rU == "relay" || $ru =~ "^(urn|tel)")
		t_relay();
	else
		sl_send_reply(200, "OK");
}
"""

REQUEST = (
    "OPTIONS sip:bob@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKone\r\nMax-Forwards: 70\r\n"
    "From: <sip:a@192.0.2.7>;tag=a\r\nTo: <sip:bob@192.0.2.1>\r\nCall-ID: a\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
)

SCHEMES = {
    "sip:bob@192.0.2.1": 200,
    "SIPS:bob@192.0.2.1": 200,
    "tel:+1234": 476,
    "urn:service:sos": 476,
    "urn:nena:service:sos": 476,
    "urn:isbn:1": 416,
    "http://192.0.2.1/": 416,
}
"""What a Request-URI leads to: 200, or 476 where the script relays what leads nowhere, if the script sees it."""

UNREADABLE = (
    ("Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKone", "Via: SIP/2.0/UDP 192.0.2.7:5060;;,", 400, 5062),
    (";branch=z9hG4bKone", ";branch=z9hG4bKone;branch=b", 400, 5062),
    ("Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKone\r\n", "", None, 5062),
    ("CSeq: 1 OPTIONS", "CSeq: 99999999999 OPTIONS", 400, 5060),
    ("From: <sip:a@192.0.2.7>;tag=a", "From: a, b <sip:a@192.0.2.7>", 400, 5060),
    ("To: <sip:bob@192.0.2.1>\r\nCall-ID: a\r\n", "", 400, 5060),
    ("SIP/2.0\r\nVia", "SIP/3.0\r\nVia", 505, 5060),
)
"""A part of the request, what it is made, and the status that comes to a port of the sender (None: nothing does)."""


class RefusalTests(SynchronousTestCase):
    """Requests that no script sees."""

    def setUp(self) -> None:
        """A server, and a phone that sends from 5062 and has 5060 in its Via."""
        self.server = WiredServer(SCRIPT)
        self.ports = {port: Phone(self.server.wire, "192.0.2.7", port) for port in (5060, 5062)}

    def send(self, text: str) -> dict[int, int]:
        """Send a request from 5062; the status that comes, by port."""
        self.ports[5062].send(text.encode(), self.server.address)
        found = {}
        for port, phone in self.ports.items():
            while (message := phone.take()) is not None:
                assert isinstance(message, Response)
                found[port] = message.status
        return found

    def test_schemes(self) -> None:
        """A Request-URI of a scheme that OpenSIPS reads reaches the script, any other is answered 416."""
        for number, (uri, status) in enumerate(SCHEMES.items()):
            text = REQUEST.replace("sip:bob@192.0.2.1 ", f"{uri} ").replace("one", f"{number}")
            self.assertEqual(self.send(text), {5060: status}, uri)

    def test_unreadable(self) -> None:
        """What cannot be read is answered, with what can be, to the port of its Via, or without one where it came from."""
        for part, made, status, port in UNREADABLE:
            self.assertEqual(self.send(REQUEST.replace(part, made)), {port: status} if status else {}, made)
