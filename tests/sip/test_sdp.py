"""Tests of session descriptions."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.sdp import Codec, SessionDescription

SDP = (
    "v=0\r\n"
    "o=alice 1 1 IN IP4 192.0.2.1\r\n"
    "s=-\r\n"
    "c=IN IP4 192.0.2.1\r\n"
    "t=0 0\r\n"
    "a=sendrecv\r\n"
    "m=audio 49170 RTP/AVP 8 0 96 101 3\r\n"
    "a=rtpmap:96 opus/48000/2\r\n"
    "a=fmtp:96 useinbandfec=1\r\n"
    "a=rtpmap:101 telephone-event/8000\r\n"
    "a=fmtp:101 0-15\r\n"
    "a=ptime:20\r\n"
    "m=video 51372/2 RTP/SAVP 97\r\n"
    "c=IN IP6 2001:db8::1\r\n"
    "a=rtpmap:97 H264/90000\r\n"
    "a=rtcp-fb:97 nack\r\n"
    "a=sendonly\r\n"
)


def sdp(text: str = SDP) -> SessionDescription:
    return SessionDescription.parse(text.encode())


class ReadTests(SynchronousTestCase):
    """Tests of what a description says."""

    def test_streams(self) -> None:
        """The m= lines are cut into their fields."""
        audio, video = sdp().streams
        self.assertEqual((audio.media, audio.port, audio.protocol), ("audio", 49170, "RTP/AVP"))
        self.assertEqual(audio.formats, ["8", "0", "96", "101", "3"])
        self.assertEqual((video.media, video.port, video.protocol, video.formats), ("video", 51372, "RTP/SAVP", ["97"]))

    def test_codecs(self) -> None:
        """Codecs are named by rtpmap, the static ones by RFC 3551, in order of preference."""
        audio, video = sdp().streams
        self.assertEqual(audio.codecs, [
            ("8", "PCMA", 8000), ("0", "PCMU", 8000), ("96", "opus", 48000), ("101", "telephone-event", 8000), ("3", "GSM", 8000),
        ])
        self.assertEqual(video.codecs, [("97", "H264", 90000)])
        self.assertTrue(Codec("96", "opus", 48000).is_named("OPUS"))
        self.assertTrue(Codec("96", "opus", 48000).is_named("opus", 48000))
        self.assertFalse(Codec("96", "opus", 48000).is_named("opus", 8000))
        (stream,) = sdp("m=audio 1 RTP/AVP 0 77 t38\r\na=rtpmap:0 mine/x\r\na=rtpmap:\r\n").streams
        self.assertEqual(stream.codecs, [("0", "mine", 0), ("77", "", 0), ("t38", "", 0)])

    def test_levels(self) -> None:
        """Address and direction of a stream are its own, else the session's."""
        audio, video = sdp().streams
        self.assertEqual((audio.address, audio.direction, audio.is_on_hold), ("192.0.2.1", "sendrecv", False))
        self.assertEqual((video.address, video.direction, video.is_on_hold), ("2001:db8::1", "sendonly", True))
        (stream,) = sdp("c=IN IP4 0.0.0.0\nm=audio 1 RTP/AVP 0\n").streams
        self.assertEqual((stream.direction, stream.is_on_hold), ("sendrecv", True))

    def test_lines(self) -> None:
        """Lines and attributes are found by their letter and name."""
        description = sdp()
        self.assertEqual(list(description.lines())[:2], ["v=0", "o=alice 1 1 IN IP4 192.0.2.1"])
        self.assertEqual(len(list(description.lines())), 17)
        self.assertEqual(description.session.value("s"), "-")
        self.assertIsNone(description.session.value("b"))
        audio = description.streams[0]
        self.assertEqual(audio.attributes("fmtp"), ["96 useinbandfec=1", "101 0-15"])
        self.assertEqual((audio.attribute("ptime"), audio.attribute("x")), ("20", None))
        self.assertEqual(description.session.attribute("sendrecv"), "")

    def test_poor(self) -> None:
        """Lines that lack their fields are no error."""
        (stream,) = sdp("m=").streams
        self.assertEqual((stream.media, stream.port, stream.protocol, stream.formats, stream.codecs), ("", 0, "", [], []))
        self.assertIsNone(stream.address)
        for port in ("x", "-1", "123456", "٣"):
            self.assertEqual(sdp(f"m=audio {port} RTP/AVP 0").streams[0].port, 0)


class EditTests(SynchronousTestCase):
    """Tests of edits; what is not edited is compared octet for octet."""

    def test_remove_codecs(self) -> None:
        """A codec goes from the m= line with its rtpmap, fmtp and rtcp-fb lines."""
        description = sdp()
        description.streams[0].remove_codecs({"96", "0"})
        description.streams[1].remove_codecs({"97"})
        expected = SDP.replace("8 0 96 101 3", "8 101 3").replace("a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n", "")
        expected = expected.replace("SAVP 97", "SAVP").replace("a=rtpmap:97 H264/90000\r\na=rtcp-fb:97 nack\r\n", "")
        self.assertEqual(description.write().decode(), expected)

    def test_move_codecs(self) -> None:
        """Codecs move to the front or to the back and keep their order."""
        for first, expected in ((True, "0 3 8 96 101"), (False, "8 96 101 0 3")):
            description = sdp()
            description.streams[0].move_codecs({"3", "0"}, first=first)
            self.assertEqual(description.write().decode(), SDP.replace("8 0 96 101 3", expected))

    def test_streams_and_lines(self) -> None:
        """Streams can be taken away or refused, lines changed and added."""
        description = sdp()
        del description.streams[1]
        self.assertEqual(description.write().decode(), SDP[:SDP.index("m=video")])
        description = sdp()
        description.streams[0].set_port(0)
        description.session.set_value("c", "IN IP4 192.0.2.9")
        description.add_line(description.streams[0], "a=rtcp-mux")
        description.add_line(description.streams[1], "a=mid:1")
        expected = SDP.replace("m=audio 49170", "m=audio 0").replace("c=IN IP4 192.0.2.1", "c=IN IP4 192.0.2.9")
        expected = expected.replace("a=ptime:20\r\n", "a=ptime:20\r\na=rtcp-mux\r\n") + "a=mid:1\r\n"
        self.assertEqual(description.write().decode(), expected)

    def test_line_ends(self) -> None:
        """New lines end as the others do, also behind a last line without its end."""
        description = sdp("v=0\nm=audio 1 RTP/AVP 0")
        description.add_line(description.streams[0], "a=x")
        self.assertEqual(description.write(), b"v=0\nm=audio 1 RTP/AVP 0\na=x")
        description = sdp("v=0\r\nm=audio 1 RTP/AVP 0")
        description.streams[0].set_formats(["8"])
        self.assertEqual(description.write(), b"v=0\r\nm=audio 1 RTP/AVP 8")

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.one_of(st.binary(max_size=30), st.text("vmac=:0 \r\n\x85\u2028", max_size=30).map(lambda text: text.encode())))
    def test_anything(self, body: bytes) -> None:
        """Any body is written as it came, and answers every question."""
        description = SessionDescription.parse(body)
        self.assertEqual(description.write(), body)
        for stream in description.streams:
            self.assertIn(stream.is_on_hold, (True, False))
            self.assertEqual(len(stream.codecs), len(stream.formats))
