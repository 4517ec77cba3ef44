"""Tests of media types and multipart bodies."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.body import MediaType, Multipart, Part, parts_of
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.limits import Limits
from sipgw.sip.message import parse

TORTURE = Path(__file__).resolve().parent.parent / "torture"

MIXED = (
    b"--b1\r\nContent-Type: application/sdp\r\nContent-Disposition:\r\n session\r\n\r\nv=0\r\n\r\n"
    b"--b1 \r\n\r\nno head\r\n--b2\r\n"
    b"--b1\r\nc: text/plain\r\n\r\n\x00\xff--b1\r\n--b1x\r\n--b1--\r\n"
)


class MediaTypeTests(SynchronousTestCase):
    """Tests of ``MediaType``."""

    def test_parts(self) -> None:
        """Type and parameters are cut; only a multipart has a boundary."""
        for text, name, boundary in (
            ("application/sdp", "application/sdp", None), ("Text / HTML ; Charset=utf-8", "text/html", None),
            ('multipart/mixed;boundary="a b"', "multipart/mixed", "a b"), ("multipart/x;boundary=c", "multipart/x", "c"),
            ("multipart/x", "multipart/x", None), ("text/plain;boundary=c", "text/plain", None),
        ):
            media_type = MediaType.parse(text)
            self.assertEqual((media_type.name, media_type.boundary), (name, boundary), text)

    def test_malformed(self) -> None:
        """What is no type is refused."""
        for text in ("", "text", "text/", "/plain", "text/plain x", "text/plain;", "text/plain, a/b"):
            self.assertRaises(MalformedMessage, MediaType.parse, text)

    def test_matches(self) -> None:
        """A pattern may leave the subtype, or all, open."""
        media_type = MediaType.parse("Application/SDP")
        for pattern, expected in (
            ("application/sdp", True), ("application/SDP;x=y", True), ("application/*", True), ("*/*", True),
            ("text/*", False), ("sdp", False),
        ):
            self.assertEqual(media_type.matches(pattern), expected, pattern)


class MultipartTests(SynchronousTestCase):
    """Tests of ``Multipart``."""

    def test_parts(self) -> None:
        """Parts are cut at whole boundary lines only; their octets are untouched."""
        parts = Multipart.parse(MIXED, "b1").parts
        self.assertEqual([part.body for part in parts], [b"v=0\r\n", b"no head\r\n--b2", b"\x00\xff--b1\r\n--b1x"])
        self.assertEqual([part.media_type.name for part in parts], ["application/sdp", "text/plain", "text/plain"])
        self.assertEqual(parts[0].header("content-disposition"), "session")
        self.assertIsNone(parts[1].header("x"))

    def test_around(self) -> None:
        """What stands before the first and behind the last boundary is kept."""
        whole = b"preamble\r\n--x\r\n\r\na\r\n--x--\r\nepilogue"
        self.assertEqual(Multipart.parse(whole, "x").write(), whole)
        self.assertEqual(Multipart.parse(b"--x\r\n\r\na\r\n--x--", "x").write(), b"--x\r\n\r\na\r\n--x--")

    def test_edited(self) -> None:
        """Parts can be added and taken away; the others stay octet for octet."""
        multipart = Multipart.parse(MIXED.replace(b"--b1 \r", b"--b1\r"), "b1")
        del multipart.parts[1]
        multipart.parts.append(Part(b"<x/>", "application/xml"))
        written = multipart.write()
        self.assertTrue(written.endswith(b"\r\n--b1\r\nContent-Type: application/xml\r\n\r\n<x/>\r\n--b1--\r\n"))
        bodies = [part.body for part in Multipart.parse(written, "b1").parts]
        self.assertEqual(bodies, [b"v=0\r\n", b"\x00\xff--b1\r\n--b1x", b"<x/>"])

    def test_malformed(self) -> None:
        """Without a first and a closing boundary, without the blank line of a part, with too many parts: refused."""
        for body in (b"", b"abc", b"--x--\r\n", b"--x\r\n\r\na", b"--x\r\n\r\na\r\n--xy--\r\n", b"--x\r\nA: b\r\n--x--\r\n"):
            self.assertRaises(MalformedMessage, Multipart.parse, body, "x")
        self.assertRaises(MalformedMessage, Multipart.parse, b"--\r\n", "")
        self.assertRaises(MalformedMessage, Multipart.parse, b"--x\r\n\r\na\r\n--x--\r\n", "x" * 71)
        many = b"--x\r\n\r\na\r\n" * 3 + b"--x--\r\n"
        self.assertEqual(len(Multipart.parse(many, "x").parts), 3)
        self.assertRaises(MalformedMessage, Multipart.parse, many, "x", Limits(parts=2))

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["", "a/b", "text/plain;x=y"]), st.binary(max_size=20)), min_size=1, max_size=4))
    def test_round_trip(self, contents: list[tuple[str, bytes]]) -> None:
        """What is written is read as the same."""
        parts = [Part(body, content_type) for content_type, body in contents]
        again = Multipart.parse(Multipart("b-o-u-n-d", parts).write(), "b-o-u-n-d").parts
        self.assertEqual([(part.head, part.body) for part in again], [(part.head, part.body) for part in parts])

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.lists(st.sampled_from([b"--x", b"--", b"\r\n", b"a: b", b"\n", b" ", b"c"]), max_size=14))
    def test_anything(self, pieces: list[bytes]) -> None:
        """Any body is parts or malformed."""
        try:
            multipart = Multipart.parse(b"".join(pieces), "x")
        except MalformedMessage:
            return
        self.assertEqual(len(Multipart.parse(multipart.write(), "x").parts), len(multipart.parts))


class PartsOfTests(SynchronousTestCase):
    """Tests of ``parts_of``."""

    def message(self, content_type: str | None, body: bytes) -> list[Part]:
        line = f"Content-Type: {content_type}\r\n" if content_type else ""
        return parts_of(parse(f"MESSAGE sip:b SIP/2.0\r\n{line}Content-Length: {len(body)}\r\n\r\n".encode() + body))

    def test_parts(self) -> None:
        """A plain body is one part, an empty one none, a multipart its parts."""
        self.assertEqual(self.message("text/plain", b""), [])
        self.assertEqual([part.body for part in self.message(None, b"hi")], [b"hi"])
        (part,) = self.message("application/sdp", b"v=0")
        self.assertEqual((part.media_type.name, part.body), ("application/sdp", b"v=0"))
        self.assertEqual(len(self.message("multipart/mixed;boundary=b1", MIXED)), 3)
        self.assertRaises(MalformedMessage, self.message, "multipart/mixed;boundary=b2", MIXED)
        self.assertRaises(MalformedMessage, self.message, "x", b"hi")

    def test_torture(self) -> None:
        """The binary part of RFC 4475 3.1.1.11 is cut and written octet for octet."""
        message = parse((TORTURE / "rfc4475/mpart01.dat").read_bytes())
        first, second = parts_of(message)
        self.assertEqual((first.media_type.name, first.body), ("text/plain", b"Hello"))
        self.assertEqual(second.media_type.name, "application/octet-stream")
        self.assertIn(b"\x00", second.body)
        boundary = MediaType.parse(message.content_type or "").boundary
        assert boundary is not None
        self.assertEqual(Multipart.parse(message.body, boundary).write(), message.body)
