"""Tests of sipgw.mi.framing: where a request on the FIFO begins and ends."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi.framing import FifoFraming
from sipgw.mi.jsonrpc import LIMIT

ONE = b'{"jsonrpc":"2.0","method":"pwd","id":1}'
ODD = b'{"a":"}]\\"{:\\\\","b":[{"c":"\xe9:x:{"},[]]}'
NO_COLON = "a request must begin with ':'"
NO_NAME = "the name of the reply FIFO is no plain file name"

# what arrives; the requests in it: reply name, body, fault
STREAMS: list[tuple[bytes, list[tuple[str, bytes, str]]]] = [
    (b":r:" + ONE, [("r", ONE, "")]),
    (b":r:" + ONE + b"\n", [("r", ONE, "")]),
    (b":r: " + ONE + b"\r\n\r\n", [("r", ONE, "")]),
    (b"::" + ONE + b"\n", [("", ONE, "")]),
    (b":r:[1]\n", [("r", b"[1]", "")]),
    (b":r:" + ODD, [("r", ODD, "")]),
    (b":r:{\n\"a\"\n:\n1}\n", [("r", b'{\n"a"\n:\n1}', "")]),
    (b":r:\n" + ONE, [("r", ONE, "")]),
    (b":a:" + ONE + b":b:" + ODD + b"\n:c:" + ONE, [("a", ONE, ""), ("b", ODD, ""), ("c", ONE, "")]),
    (b":r:nonsense\n:b:" + ONE, [("r", b"nonsense", ""), ("b", ONE, "")]),
    (b':r:{"a"\n:b:' + ONE, [("r", b'{"a"', ""), ("b", ONE, "")]),
    (b':r:{"a\n:b:' + ONE, [("r", b'{"a', ""), ("b", ONE, "")]),
    (b":r:}\n:b:" + ONE, [("r", b"}", ""), ("b", ONE, "")]),
    (b"garbage\n:b:" + ONE, [("", b"garbage\n", NO_COLON), ("b", ONE, "")]),
    (b":ps\n:b:" + ONE, [("", b":ps\n", NO_COLON), ("b", ONE, "")]),
    (b":../x:" + ONE + b":b:" + ONE, [("../x", ONE, NO_NAME), ("b", ONE, "")]),
    (b":a/b:" + ONE, [("a/b", ONE, NO_NAME)]),
    (b":/tmp/x:" + ONE, [("/tmp/x", ONE, NO_NAME)]),
    (b":..:" + ONE, [("..", ONE, NO_NAME)]),
    (b":.:" + ONE, [(".", ONE, NO_NAME)]),
    (b":a\0b:" + ONE, [("a\0b", ONE, NO_NAME)]),
    (b":" + b"n" * 256 + b":" + ONE, [("n" * 256, ONE, NO_NAME)]),
    (b":" + b"n" * 255 + b":" + ONE, [("n" * 255, ONE, "")]),
    (b":\xe9:" + ONE, [("\udce9", ONE, "")]),
]


def read(framing: FifoFraming, *chunks: bytes) -> list[tuple[str, bytes, str]]:
    return [(r.reply, r.body, r.fault) for chunk in chunks for r in framing.feed(chunk)]


class FramingTests(SynchronousTestCase):
    """What is read from the pipe becomes requests."""

    def test_streams(self) -> None:
        """Each stream gives its requests, and nothing is left over."""
        for data, expected in STREAMS:
            framing = FifoFraming()
            self.assertEqual(read(framing, data), expected, data)
            self.assertFalse(framing.pending, data)

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.sampled_from([s for s in STREAMS if not s[0].startswith(b"garbage")]), st.lists(st.integers(0, 200), max_size=6))
    def test_cut(self, stream: tuple[bytes, list[tuple[str, bytes, str]]], cuts: list[int]) -> None:
        """It makes no difference how the reads have cut the stream."""
        data, expected = stream
        places = [0, *sorted(cuts), len(data)]
        chunks = [data[start:end] for start, end in pairwise(places)]
        self.assertEqual(read(FifoFraming(), *chunks), expected)

    def test_each_octet(self) -> None:
        """Nor when every octet comes alone."""
        for data, expected in STREAMS:
            if not data.startswith(b"garbage"):
                self.assertEqual(read(FifoFraming(), *(data[i : i + 1] for i in range(len(data)))), expected, data)

    def test_quiet(self) -> None:
        """What has begun and does not go on is given out as it is, and the next request is read."""
        for begun, expected in ((b':r:{"a"', [("r", b'{"a"', "")]), (b":r", [("", b":r", NO_COLON)]), (b":r:", [("r", b"", "")])):
            framing = FifoFraming()
            self.assertEqual(read(framing, begun), [])
            self.assertTrue(framing.pending)
            self.assertEqual([(r.reply, r.body, r.fault) for r in framing.quiet()], expected)
            self.assertFalse(framing.pending)
            self.assertEqual(read(framing, b":b:" + ONE), [("b", ONE, "")])
        self.assertEqual(FifoFraming().quiet(), [])

    def test_too_long(self) -> None:
        """A request longer than the limit is given out once, too long still, and the rest of it is not kept."""
        framing = FifoFraming()
        chunk = b'"' + b"x" * 65534 + b'"'
        found = read(framing, b":r:[" + chunk, *[b"," + chunk] * 40)
        self.assertEqual([(name, len(body) > LIMIT) for name, body, _ in found], [("r", True)])
        self.assertLess(len(framing._buffer), 1000)
        self.assertEqual(read(framing, b"]\n:b:" + ONE), [("b", ONE, "")])
        self.assertFalse(framing.pending)

    def test_too_long_then_quiet(self) -> None:
        """After a request that was too long, quiet is a new beginning."""
        framing = FifoFraming()
        self.assertEqual(len(read(framing, b":r:{" + b" " * LIMIT * 2)), 1)
        self.assertEqual(framing.quiet(), [])
        self.assertEqual(read(framing, b":b:" + ONE), [("b", ONE, "")])
