"""Publications on a clock of the test's own: each answer that there may be, each time."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.presence.publisher import Publisher, Target
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to
from tests.presence.fakes import User

TARGET = Target("sip:romeo@jabber.test", "sip:pa.test")


class PublisherTests(SynchronousTestCase):
    """RFC 3903 4."""

    def setUp(self) -> None:
        self.user = User()
        self.sent: list[tuple[Request, str]] = []
        self.answers: list[Any] = []
        self.fault: SipError | None = None
        self.publisher = Publisher(self.user, self.send, self.authenticate)

    async def send(self, request: Request, answer: Any, next_hop: str, first: bool) -> None:
        if self.fault is not None:
            raise self.fault
        self.sent.append((request, next_hop))
        self.answers.append(answer)

    def authenticate(self, response: Response, method: str, uri: str) -> tuple[str, str, str] | None:
        return "sip.test", "Authorization", f"Digest of {method} {uri}"

    def answer(self, status: int, headers: str = "") -> None:
        """Answer the last PUBLISH."""
        lines = list(self.sent[-1][0].lines)
        lines.insert(1, "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1")
        request = parse("\r\n".join([*lines, "", ""]).encode() + self.sent[-1][0].body)
        assert isinstance(request, Request)
        self.answers[-1](status, parse(respond_to(request, status, to_tag="p", headers=headers)))

    def said(self, number: int = -1) -> tuple[str, str, bytes]:
        """A PUBLISH: its Expires, what it matches, and its document."""
        request = self.sent[number][0]
        return request.header("expires") or "", request.header("sip-if-match") or "", request.body

    def test_life(self) -> None:
        """Made, changed, refreshed without its document, taken back; what is the same is not said twice."""
        self.publisher.publish("k", TARGET, b"one")
        request, next_hop = self.sent[0]
        self.assertEqual((request.method, request.uri, next_hop, request.header("event"), request.header("content-type")), (
            "PUBLISH", "sip:romeo@jabber.test", "sip:pa.test", "presence", "application/pidf+xml",
        ))
        self.assertEqual(self.said(), ("3600", "", b"one"))
        self.answer(200, "SIP-ETag: a\r\nExpires: 100\r\n")
        self.publisher.publish("k", TARGET, b"one")
        self.assertEqual(len(self.sent), 1)
        self.publisher.publish("k", TARGET, b"two")
        self.assertEqual(self.said(), ("3600", "a", b"two"))
        self.answer(200, "SIP-ETag: b\r\nExpires: 100\r\n")
        self.user.time.advance(91)
        self.assertEqual((self.said(), self.sent[-1][0].header("content-type")), (("3600", "b", b""), None))
        self.answer(200, "SIP-ETag: c\r\nExpires: 100\r\n")
        self.publisher.remove("k")
        self.assertEqual(self.said(), ("0", "c", b""))
        self.answer(200)
        self.assertEqual((self.publisher.published, self.user.time.getDelayedCalls()), ({}, []))
        numbers = [each.cseq.number for each, _ in self.sent]
        self.assertEqual(numbers, sorted(set(numbers)))

    def test_one_at_a_time(self) -> None:
        """What changes while a PUBLISH is under way goes with the next; so does the end."""
        self.publisher.publish("k", TARGET, b"one")
        self.publisher.publish("k", TARGET, b"two")
        self.publisher.publish("k", TARGET, b"three")
        self.assertEqual(len(self.sent), 1)
        self.answer(200, "SIP-ETag: a\r\n")
        self.assertEqual((len(self.sent), self.said()), (2, ("3600", "a", b"three")))
        self.publisher.remove_all()
        self.assertEqual(len(self.sent), 2)
        self.answer(200, "SIP-ETag: b\r\n")
        self.assertEqual(self.said(), ("0", "b", b""))
        self.answer(503)
        self.assertEqual(self.user.time.getDelayedCalls(), [])

    def test_forgotten(self) -> None:
        """412: published anew; a challenge is answered; 423 says how long it must be."""
        self.publisher.publish("k", TARGET, b"one")
        self.answer(401, 'WWW-Authenticate: Digest realm="sip.test", nonce="1"\r\n')
        self.assertEqual((self.sent[-1][0].header("authorization"), self.said()), (
            "Digest of PUBLISH sip:romeo@jabber.test", ("3600", "", b"one"),
        ))
        self.answer(423, "Min-Expires: 7200\r\n")
        self.assertEqual(self.said(), ("7200", "", b"one"))
        self.answer(200, "SIP-ETag: a\r\nExpires: 7200\r\n")
        self.user.time.advance(6500)
        self.assertEqual(self.said(), ("7200", "a", b""))
        self.answer(412)
        self.assertEqual(self.said(), ("7200", "", b"one"))

    def test_fails(self) -> None:
        """What fails is tried again after times that double; what never went needs no end."""
        self.publisher.publish("k", TARGET, b"one")
        for wait in (10, 20, 40):
            self.answer(503)
            before = len(self.sent)
            self.user.time.advance(wait - 1)
            self.assertEqual(len(self.sent), before)
            self.user.time.advance(1)
            self.assertEqual(len(self.sent), before + 1)
        self.answer(503)
        self.publisher.publish("k", TARGET, b"two")
        self.assertEqual(self.said(), ("3600", "", b"two"))
        self.fault = SipError("No Way", 503)
        self.answers[-1](408, None)
        self.user.time.advance(200)
        self.assertEqual(self.user.lines, ["no PUBLISH can be sent: No Way"])
        self.publisher.remove("k")
        self.assertEqual((self.publisher.published, self.user.time.getDelayedCalls()), ({}, []))
