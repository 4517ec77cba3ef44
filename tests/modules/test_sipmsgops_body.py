"""Tests of sipgw.modules.sipmsgops: bodies, their parts, session descriptions; and sipgw.proxy.bodies below it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.sipmsgops import Sipmsgops
from sipgw.script.regex import compile_regex
from sipgw.script.run import Run
from sipgw.sip.edits import write
from sipgw.sip.message import Message, parse
from tests.doubles import FakeVariable, request, run_of

ops = Sipmsgops()
SDP = (
    "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=x\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
    "m=audio 4000 RTP/AVP 0 8 97 101 18 98\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:97 speex/8000\r\na=fmtp:97 mode=3\r\n"
    "a=rtpmap:98 speex/16000\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=sendrecv\r\n"
    "m=video 5000 RTP/AVP 31 34\r\na=rtpmap:34 H263/90000\r\na=sendonly\r\n"
)
MULTI = (
    f"--B\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n--B\r\nContent-Type: text/plain\r\nX-P: q\r\n\r\nhey\r\n--B--\r\n"
)
MULTI_TYPE = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed;boundary=B\r\n"


def run_with(body: str = SDP, more: str = "Content-Type: application/sdp\r\n") -> Run:
    """A run of a request with that body."""
    return run_of(request("INVITE", more=more, body=body))


def multi() -> Run:
    """A run of a request with two parts."""
    return run_with(MULTI, MULTI_TYPE)


def left(run: Run) -> Message:
    """The message as it leaves."""
    made = parse(write(run.message, run.edits))
    assert made.content_length == len(made.body)
    return made


def body_lines(run: Run) -> tuple[list[str], list[str]]:
    """The lines of the body that went and those that came."""
    before = run.message.body.decode().split("\r\n")
    after = left(run).body.decode().split("\r\n")
    return [line for line in before if line not in after], [line for line in after if line not in before]


class HasTests(SynchronousTestCase):
    """has_body, has_body_part."""

    def test_has_body(self) -> None:
        """There is one, and it or a part of it is of that type."""
        for run, mime, expected in [
            (run_with(), None, True), (run_with(), "application/sdp", True), (run_with(), "Application/SDP", True),
            (run_with(), "text/plain", False), (run_with("", ""), None, False), (run_with("", ""), "application/sdp", False),
            (run_with(SDP, ""), None, True), (run_with(SDP, ""), "application/sdp", False), (multi(), None, True),
            (multi(), "multipart/mixed", True), (multi(), "application/sdp", True),
            (run_with(SDP, "Content-Type: junk\r\n"), None, False),
        ]:
            self.assertIs(ops.has_body(run, mime), expected, (run.message.content_type, mime))

    def test_has_part(self) -> None:
        """The whole, or a part of it, has the type."""
        for run, mime, expected in [
            (run_with(), None, True), (run_with(), "application/sdp", True), (run_with(), "text/plain", False),
            (run_with("", ""), None, False), (run_with("", ""), "text/plain", False),
            (run_with(SDP, ""), "application/sdp", False),
            (multi(), "text/plain", True), (multi(), "application/sdp", True), (multi(), "multipart/mixed", True),
            (multi(), "a/b", False),
        ]:
            self.assertIs(ops.has_body_part(run, mime), expected, (run.message.content_type, mime))


class PartTests(SynchronousTestCase):
    """Parts that come and go."""

    def test_remove(self) -> None:
        """All, those of a type, or all others; what is left decides the Content-Type."""
        text = "Content-Type: text/plain", "X-P: q"
        for run, arguments, head, body in [
            (run_with(), (), (), b""),
            (run_with(), ("application/sdp",), (), b""),
            (run_with(), ("text/plain", "revert"), (), b""),
            (multi(), ("text/plain",), ("Content-Type: application/sdp",), SDP.encode()),
            (multi(), ("application/sdp",), text, b"hey"),
            (multi(), ("text/plain", "revert"), text, b"hey"),
            (multi(), (), (), b""),
        ]:
            self.assertTrue(ops.remove_body_part(run, *arguments))
            message = left(run)
            self.assertEqual(message.body, body, arguments)
            found = tuple(line for line in message.lines if line.startswith(("Content-Type", "X-P")))
            self.assertEqual(found, head, arguments)

    def test_remove_nothing(self) -> None:
        """What is not there cannot go."""
        for run, arguments in [(run_with(), ("text/plain",)), (run_with(), ("application/sdp", "revert")),
                               (run_with("", ""), ()),
                               (run_with("", ""), ("a/b",)), (multi(), ("a/b",))]:
            before = run.edits
            self.assertFalse(ops.remove_body_part(run, *arguments))
            self.assertIs(run.edits, before)

    def test_add(self) -> None:
        """A first part is the body, a second one makes it a multipart."""
        run = run_with("", "")
        self.assertTrue(ops.add_body_part(run, "Hello!", "text/plain"))
        message = left(run)
        self.assertEqual((message.body, message.content_type), (b"Hello!", "text/plain"))
        run = run_with()
        self.assertTrue(ops.add_body_part(run, "Hello!", "text/plain", "X-A: b\r\n"))
        message = left(run)
        self.assertEqual(message.content_type, "multipart/mixed;boundary=sipgw-part-1")
        self.assertEqual(
            message.body.decode(),
            f"--sipgw-part-1\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n"
            "--sipgw-part-1\r\nContent-Type: text/plain\r\nX-A: b\r\n\r\nHello!\r\n--sipgw-part-1--\r\n",
        )

    def test_add_to_multipart(self) -> None:
        """A multipart gets one more part, the others stay as they came."""
        run = multi()
        ops.add_body_part(run, "Hello!", "text/html")
        message = left(run)
        self.assertEqual(message.content_type, "multipart/mixed;boundary=B")
        self.assertEqual(message.body.decode(),
            MULTI.removesuffix("--B--\r\n") + "--B\r\nContent-Type: text/html\r\n\r\nHello!\r\n--B--\r\n")

    def test_boundary_is_free(self) -> None:
        """A boundary that occurs in a part is not taken."""
        run = run_with("--sipgw-part-1", "Content-Type: text/plain\r\n")
        ops.add_body_part(run, "--sipgw-part-2", "text/plain")
        self.assertEqual(left(run).content_type, "multipart/mixed;boundary=sipgw-part-3")

    def test_one_after_the_other(self) -> None:
        """Each call goes on from the one before."""
        run = run_with()
        ops.remove_body_part(run, "application/sdp")
        ops.add_body_part(run, "Hello!", "text/plain")
        self.assertEqual((left(run).content_type, left(run).body), ("text/plain", b"Hello!"))
        ops.add_body_part(run, "A", "a/b")
        self.assertTrue(str(left(run).content_type).startswith("multipart/mixed"))
        ops.remove_body_part(run, "text/plain")
        self.assertEqual((left(run).content_type, left(run).body), ("a/b", b"A"))
        ops.remove_body_part(run)
        self.assertEqual((left(run).content_type, left(run).body), (None, b""))
        run = multi()
        ops.remove_body_part(run, "text/plain")
        ops.add_body_part(run, "Q", "a/b")
        self.assertEqual([part in left(run).body for part in (b"\r\n\r\nQ\r\n", b"hey", b"m=audio")], [True, False, True])

    def test_refused(self) -> None:
        """A part's head must be header lines too."""
        run = run_with()
        self.assertFalse(ops.add_body_part(run, "x", "text/plain\r\nX: y\r\n\r\n"))
        self.assertFalse(ops.add_body_part(run, "x", "text/plain", "junk"))
        self.assertFalse(run.edits)

    def test_updated(self) -> None:
        """A variable receives the body as it will leave."""
        variable = FakeVariable()
        run = run_with()
        ops.codec_delete_re(run, compile_regex("PCM"))
        self.assertTrue(ops.get_updated_body_part(run, "application/sdp", variable))
        self.assertEqual(variable.get(run), left(run).body.decode())
        self.assertIn("RTP/AVP 97 101 18 98", str(variable.get(run)))
        self.assertTrue(ops.get_updated_body_part(multi(), "text/plain", variable))
        self.assertEqual(variable.get(run), "hey")
        self.assertTrue(ops.get_updated_body_part(multi(), None, variable))
        self.assertEqual(variable.get(run), MULTI)
        self.assertFalse(ops.get_updated_body_part(run, "a/b", variable))

    def test_unreadable(self) -> None:
        """A multipart that cannot be cut is left alone."""
        run = run_with("--C\r\n", MULTI_TYPE)
        self.assertFalse(ops.remove_body_part(run, "text/plain"))
        self.assertFalse(ops.add_body_part(run, "x", "a/b"))
        self.assertFalse(ops.codec_delete(run, "speex"))
        self.assertFalse(ops.get_updated_body_part(run, None, FakeVariable()))
        self.assertEqual((bool(run.edits), len(run.user.logged)), (False, 4))


class CodecTests(SynchronousTestCase):
    """Codecs in session descriptions."""

    def test_exists(self) -> None:
        """By rtpmap or by static payload type, name without case, clock rate if given."""
        for arguments, expected in [
            (("speex",), True), (("SPEEX", "8000"), True), (("speex", "4000"), False), (("speex", "x"), False),
            (("pcma",), True),
            (("g729", "8000"), True), (("h263",), True), (("sp",), False),
        ]:
            self.assertIs(ops.codec_exists(run_with(), *arguments), expected, arguments)
        for pattern, expected in [("sp[a-z]*", True), ("^PCM", True), ("nope", False)]:
            self.assertIs(ops.codec_exists_re(run_with(), compile_regex(pattern)), expected, pattern)
        for run in (run_with("", ""), run_with(SDP, ""), run_with(SDP, "Content-Type: text/plain\r\n")):
            self.assertFalse(ops.codec_exists(run, "speex"))
        self.assertTrue(ops.codec_exists(multi(), "speex"))

    def deleted(self, call: Any, *arguments: Any) -> tuple[list[str], list[str]]:
        """What the call changed."""
        run = run_with()
        self.assertTrue(call(run, *arguments))
        return body_lines(run)

    def test_delete(self) -> None:
        """The m= line and the attributes of the codec."""
        audio = "m=audio 4000 RTP/AVP 0 8 97 101 18 98"
        for arguments, formats, attributes in [
            (("speex",), "0 8 101 18", ["a=rtpmap:97 speex/8000", "a=fmtp:97 mode=3", "a=rtpmap:98 speex/16000"]),
            (("speex", "16000"), "0 8 97 101 18", ["a=rtpmap:98 speex/16000"]),
            (("PCMA",), "0 97 101 18 98", []),
            (("telephone-event",), "0 8 97 18 98", ["a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15"]),
        ]:
            gone, came = self.deleted(ops.codec_delete, *arguments)
            self.assertEqual((gone, came), ([audio, *attributes], [f"m=audio 4000 RTP/AVP {formats}"]), arguments)
        self.assertFalse(ops.codec_delete(run_with(), "nope"))
        self.assertFalse(ops.codec_delete(run_with("", ""), "speex"))

    def test_delete_matching(self) -> None:
        """By pattern, or all but those that match."""
        _, came = self.deleted(ops.codec_delete_re, compile_regex("PCMA|PCMU"))
        self.assertEqual(came, ["m=audio 4000 RTP/AVP 97 101 18 98"])
        _, came = self.deleted(ops.codec_delete_except_re, compile_regex("PCMA|PCMU|H26."))
        self.assertEqual(came, ["m=audio 4000 RTP/AVP 0 8"])

    def test_stream_without_codecs(self) -> None:
        """A stream that loses its last codec is refused, and keeps a format as its grammar demands."""
        run = run_with()
        ops.codec_delete(run, "H263")
        ops.codec_delete(run, "H261")
        self.assertEqual(body_lines(run)[1], ["m=video 0 RTP/AVP 31"])
        self.assertNotIn("H263", left(run).body.decode())

    def test_seen_at_once(self) -> None:
        """A codec that was deleted is not there any more."""
        run = run_with()
        ops.codec_delete(run, "PCMU")
        self.assertFalse(ops.codec_exists(run, "PCMU"))

    def test_move(self) -> None:
        """To the front or to the back, keeping their order."""
        for call, argument, formats in [
            (ops.codec_move_up, "speex", "97 98 0 8 101 18"),
            (ops.codec_move_down, "PCMU", "8 97 101 18 98 0"),
            (ops.codec_move_down, "speex", "0 8 101 18 97 98"),
            (ops.codec_move_up_re, compile_regex("sp[a-z]*"), "97 98 0 8 101 18"),
            (ops.codec_move_down_re, compile_regex("PCM."), "97 101 18 98 0 8"),
        ]:
            self.assertEqual(self.deleted(call, argument)[1], [f"m=audio 4000 RTP/AVP {formats}"])
        self.assertEqual(self.deleted(ops.codec_move_up, "speex", "16000")[1], ["m=audio 4000 RTP/AVP 98 0 8 97 101 18"])
        run = run_with()
        self.assertTrue(ops.codec_move_up(run, "PCMU"))
        self.assertEqual(left(run).body.decode(), SDP)
        self.assertFalse(ops.codec_move_up(run, "nope"))

    def test_multipart(self) -> None:
        """Only the description changes."""
        run = multi()
        ops.codec_delete(run, "speex")
        message = left(run)
        self.assertEqual(message.content_type, "multipart/mixed;boundary=B")
        self.assertTrue(message.body.decode().endswith("X-P: q\r\n\r\nhey\r\n--B--\r\n"))
        self.assertNotIn(b"speex", message.body)


class StreamTests(SynchronousTestCase):
    """Streams of session descriptions."""

    def test_exists(self) -> None:
        """By media and transport."""
        for media, transport, expected in [("audio", None, True), ("AUD", None, True), ("image", None, False),
                                           ("audio", "SAVP", False),
                                           ("audio", "RTP/AVP", True)]:
            second = None if transport is None else compile_regex(transport)
            self.assertIs(ops.stream_exists(run_with(), compile_regex(media), second), expected, (media, transport))

    def test_delete(self) -> None:
        """The m= line and all that belongs to it."""
        run = run_with()
        self.assertTrue(ops.stream_delete(run, compile_regex("video")))
        self.assertEqual(left(run).body.decode(), SDP.partition("m=video")[0])
        run = run_with()
        self.assertTrue(ops.stream_delete(run, compile_regex("audio|video")))
        self.assertNotIn(b"m=", left(run).body)
        self.assertFalse(ops.stream_delete(run_with(), compile_regex("nope")))
        self.assertFalse(ops.stream_delete(run_with(), compile_regex("video"), compile_regex("SAVP")))

    def test_hold(self) -> None:
        """1 for the null address, 2 for the direction; streams that are not audio do not count."""
        for before, after, code in [
            ("", "", -1),
            ("a=sendrecv", "a=sendonly", 2),
            ("a=sendrecv", "a=inactive", 2),
            ("a=sendrecv", "a=recvonly", -1),
            ("c=IN IP4 192.0.2.1", "c=IN IP4 0.0.0.0", 1),
            ("a=sendrecv", "c=IN IP4 0.0.0.0\r\na=sendonly", 1),
        ]:
            self.assertEqual(ops.is_audio_on_hold(run_with(SDP.replace(before, after) if before else SDP)), code, after)
        self.assertEqual(ops.is_audio_on_hold(run_with("", "")), -1)
