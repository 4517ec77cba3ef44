"""Tests of sipgw.transport.hep_received: frames are read as they were written, and whatever comes is a frame or a ValueError."""

from __future__ import annotations

import gzip
import struct
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport import hep
from sipgw.transport.hep_received import AGENT, COMPRESSED, CORRELATION, KIND, PAYLOAD, PROTOCOL, SECONDS, Received, read, write
from tests.transport.test_hep import FOUR, SIX, TEXT, frame

QUICK = settings(max_examples=300, derandomize=True, deadline=None)


def chunk(number: int, data: bytes, vendor: int = 0) -> bytes:
    """One chunk of version 3."""
    return struct.pack("!HHH", vendor, number, len(data) + 6) + data


def whole(*chunks: bytes) -> bytes:
    """A frame of version 3."""
    body = b"".join(chunks)
    return b"HEP3" + struct.pack("!H", len(body) + 6) + body


class ReadTests(SynchronousTestCase):
    """What our tracer writes, and what others do."""

    def test_versions(self):
        """Each version gives back what was put into it, and writes the same octets again."""
        for ends in (FOUR, SIX, (FOUR[0], SIX[1])):
            for version in (1, 2, 3):
                data = hep.encode(frame(ends), version, hep.Style(agent=77))
                found = read(data)
                self.assertEqual((found.version, found.number(PROTOCOL), found.number(KIND)), (version, 17, 1))
                self.assertEqual((found.source[1], found.target[1], found.payload), (ends[0][1], ends[1][1], TEXT.encode()))
                if ends is not SIX and ends is not FOUR:
                    self.assertEqual((found.family, found.target[0]), (10, "2001:db8::2"))
                else:
                    self.assertEqual((found.source, found.target), ends)
                if version > 1:
                    self.assertEqual((found.number(SECONDS), found.number(AGENT)), (1_700_000_000, 77))
                again = read(write(found))
                self.assertEqual((again.known, again.others), (found.known, found.others))
                self.assertTrue(version == 3 or write(found) == data)

    def test_chunks(self):
        """Chunks of other vendors, and those that are not common, are kept; the last of two that are alike counts."""
        data = whole(chunk(7, b"\1\2"), chunk(7, b"\3\4"), chunk(7, b"abc", 5), chunk(CORRELATION, b"id"), chunk(15, b"x"))
        found = read(data + b"behind it")
        self.assertEqual((found.source, found.payload), (("0.0.0.0", 0x304), b"x"))
        self.assertEqual([(each.vendor, each.number, each.data) for each in found.others], [(5, 7, b"abc"), (0, 17, b"id")])
        self.assertEqual(read(write(found)).others, found.others)

    def test_compressed(self):
        """A payload by gzip or zlib is unpacked if that is asked for; ours, of which no more than allowed comes out."""
        ours = hep.encode(frame(), 3, hep.Style(compress=True))
        for data in (ours, whole(chunk(COMPRESSED, zlib.compress(TEXT.encode())))):
            self.assertEqual(read(data, unpack=True).payload, TEXT.encode())
            kept = read(data)
            self.assertEqual((kept.payload, kept.others[0].number), (b"", COMPRESSED))
            self.assertEqual(read(write(kept), unpack=True).payload, TEXT.encode())
        for packed in (b"", b"no", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"\0" * 10_000_000)):
            self.assertRaises(ValueError, read, whole(chunk(COMPRESSED, packed)), unpack=True)

    def test_wrong(self):
        """What is cut off, lies about its length or has nothing in it is refused."""
        good = hep.encode(frame(), 3, hep.Style())
        for data in (
            b"", b"HEP3", b"HEP3\0\5", b"HEP3\0\6", b"HEP4" + good[4:], good[:-1], whole(chunk(15, b"x") + b"\0"),
            whole(chunk(15, b"x"), b"\0\0\0\1\0\5"), whole(chunk(15, b"x"), b"\0\0\0\1\0\7"),
            whole(chunk(1, b"\2\2"), chunk(15, b"")),
            whole(chunk(3, b"abc"), chunk(15, b"x")), whole(chunk(15, b"x", 3)), b"\1\x10", b"\1\x10\2\x11" + bytes(11),
            b"\2\x10\2\x11" + bytes(20), b"\2\x10\3\x11" + bytes(40), b"\1\x11\2\x11" + bytes(40), b"\1\x28\x0a\x11" + bytes(30),
        ):
            self.assertRaises(ValueError, read, data)

    def test_too_long(self):
        """A frame that has become too long is not written."""
        found = Received(3, {PAYLOAD: b"x" * 65_530})
        self.assertRaises(ValueError, write, found)
        found.known[PAYLOAD] = b"x" * 65_000
        found.others = read(whole(chunk(17, b"y" * 600), chunk(15, b""))).others
        self.assertRaises(ValueError, write, found)

    @QUICK
    @given(st.binary(max_size=120), st.sampled_from([b"", b"HEP3", b"\1\x10\2", b"\2\x10\2", b"\2\x28\x0a"]), st.booleans())
    def test_anything(self, data, start, unpack):
        """Whatever comes is a frame that can be written again, or a ValueError."""
        try:
            found = read(start + data, unpack=unpack)
        except ValueError:
            return
        read(write(found))
        _ = found.source, found.target, found.payload

    @QUICK
    @given(st.data(), st.sampled_from([1, 2, 3]))
    def test_bent(self, data, version):
        """So are good frames with some octets changed, put in or left out."""
        good = bytearray(hep.encode(frame(), version, hep.Style()))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(good) - 1))
            good[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        try:
            found = read(bytes(good), unpack=True)
        except ValueError:
            return
        read(write(found))
