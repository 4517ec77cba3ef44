"""Tests of sipgw.b2bua.description: what one side is told stays one session (RFC 3264 8)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.description import Told, description_of, held, is_sdp, on_hold, with_description
from sipgw.b2bua.port import Content
from sipgw.sip.sdp import SessionDescription

AUDIO = "m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
VIDEO = "m=video 4002 RTP/AVP 31\r\n"


def sdp(origin: str, *streams: str) -> bytes:
    """A description."""
    return f"v=0\r\no={origin}\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{''.join(streams)}".encode()


def origin(body: bytes) -> str:
    """Its o= line."""
    return SessionDescription.parse(body).session.value("o") or ""


class ToldTests(SynchronousTestCase):
    """Who describes changes; the other side does not notice."""

    def test_as_it_came(self) -> None:
        """As long as one and the same describes, nothing is touched."""
        told = Told()
        more = sdp("a 1 6 IN IP4 h", AUDIO, VIDEO)
        for body in (sdp("a 1 5 IN IP4 h", AUDIO), more, more, b"x"):
            self.assertEqual(told.fit(body, True), body)

    def test_another(self) -> None:
        """Another one describes, and the first again: one origin, and its version grows with each change by one."""
        told = Told()
        told.fit(sdp("a 1 5 IN IP4 h", AUDIO), True)
        told.own = True
        found = [
            origin(told.fit(body, True))
            for body in (
                sdp("b 9 700 IN IP4 k", AUDIO, VIDEO), sdp("b 9 700 IN IP4 k", AUDIO, VIDEO),
                sdp("b 9 701 IN IP4 k", VIDEO, AUDIO), sdp("a 1 5 IN IP4 h", AUDIO, VIDEO), sdp("nonsense", AUDIO),
            )
        ]
        self.assertEqual(found, [*(f"a 1 {version} IN IP4 h" for version in (6, 6, 7, 8)), "nonsense"])

    def test_streams(self) -> None:
        """An offer has as many streams as the last description; what answers those that were added is cut off."""
        told = Told()
        told.fit(sdp("a 1 5 IN IP4 h", AUDIO, VIDEO), True)
        told.own = True
        offer = told.fit(sdp("b 1 1 IN IP4 k", AUDIO), True)
        streams = SessionDescription.parse(offer).streams
        self.assertEqual([(one.media, one.port) for one in streams], [("audio", 4000), ("video", 0)])
        answer = sdp("c 1 1 IN IP4 l", AUDIO, "m=video 0 RTP/AVP 31\r\n")
        self.assertEqual(len(SessionDescription.parse(told.cut(answer)).streams), 1)
        self.assertEqual(told.cut(answer), answer)
        self.assertEqual(len(SessionDescription.parse(told.fit(sdp("b 1 2 IN IP4 k", AUDIO), False)).streams), 1)

    def test_hold(self) -> None:
        """All streams are made inactive; if they are so already there is nothing to say."""
        body = on_hold(sdp("a 1 5 IN IP4 h", AUDIO, VIDEO))
        self.assertEqual([one.direction for one in SessionDescription.parse(body).streams], ["inactive", "inactive"])
        self.assertNotIn(b"sendrecv", body)
        self.assertEqual((on_hold(body), on_hold(b"")), (b"", b""))

    def test_held(self) -> None:
        """An answer that accepts each stream, in which nothing flows; refused ones stay so."""
        content = held(sdp("a 1 5 IN IP4 h", AUDIO, "m=video 0 RTP/AVP 31\r\n"))
        streams = SessionDescription.parse(content.body).streams
        found = [(one.media, one.port, one.direction) for one in streams]
        self.assertEqual(found, [("audio", 9, "inactive"), ("video", 0, "inactive")])
        self.assertEqual((streams[0].formats, streams[0].attributes("rtpmap")), (["0", "101"], ["101 telephone-event/8000"]))
        self.assertTrue(is_sdp(content))
        self.assertFalse(is_sdp(held(b"")))

    def test_among_others(self) -> None:
        """A description may be one part of a body; the other parts stay. What cannot be read has none."""
        body = b"--x\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n--x\r\nContent-Type: text/plain\r\n\r\nhi\r\n--x--\r\n"
        content = Content("", body, "multipart/mixed;boundary=x")
        self.assertEqual(description_of(content), b"v=0")
        self.assertEqual(with_description(content, b"v=1").body, body.replace(b"v=0", b"v=1"))
        self.assertEqual(with_description(Content("A: b", b"v=0", "application/SDP; x=y"), b"v=1").body, b"v=1")
        for kind in ("multipart/mixed", "multipart/mixed;boundary=y", "text/plain", ""):
            self.assertEqual(description_of(Content("", body, kind)), b"", kind)
