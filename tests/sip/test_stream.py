"""Tests of framing: messages cut out of a stream, whatever the pieces (RFC 3261 18.3, hardening P3 and P16)."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage, Misuse
from sipgw.sip.limits import Limits
from sipgw.sip.message import Message, Request
from sipgw.sip.stream import PING, Framer, Item

TORTURE = Path(__file__).resolve().parent.parent / "torture"


def message(number: int = 1, body: bytes = b"", length: str | None = "Content-Length: {}", extra: str = "") -> bytes:
    line = "" if length is None else length.format(len(body)) + "\r\n"
    return (
        f"OPTIONS sip:b SIP/2.0\r\nVia: SIP/2.0/TCP a;branch=z9hG4bK{number}\r\nFrom: <sip:a>;tag=1\r\nTo: <sip:b>\r\n"
        f"{extra}Call-ID: c\r\nCSeq: {number} OPTIONS\r\n{line}\r\n"
    ).encode() + body


def numbers(items: list[Item]) -> list[object]:
    """Name the items: CSeq numbers, "ping", and the status of what is malformed."""
    named: list[object] = []
    for item in items:
        if isinstance(item, Message):
            named.append(item.cseq.number)
        else:
            named.append(item.status if isinstance(item, MalformedMessage) else "ping" if item is PING else item)
    return named


class FramingTests(SynchronousTestCase):
    """Tests of whole messages in any pieces."""

    stream = b"".join([
        message(1, b"hello"), b"\r\n\r\n", message(2), message(3, b"\r\n\r\n", "l : {}"), b"\r\n", message(4, b"x" * 300),
    ])

    def test_pipelined(self) -> None:
        """Fifty messages in one piece all come out, in order."""
        framer = Framer()
        items = framer.feed(b"".join(message(number, b"x" * number) for number in range(1, 51)))
        self.assertEqual(numbers(items), list(range(1, 51)))
        self.assertTrue(framer.empty)

    def test_octet_by_octet(self) -> None:
        """A peer that sends single octets is served like any other."""
        framer = Framer()
        items = [item for octet in self.stream for item in framer.feed(bytes([octet]))]
        self.assertEqual(numbers(items), [1, "ping", 2, 3, 4])
        assert isinstance(items[3], Request)
        self.assertEqual(items[3].body, b"\r\n\r\n")
        self.assertTrue(framer.empty)

    def test_cut_at_each_offset(self) -> None:
        """Wherever the stream is cut in two, the same comes out."""
        for offset in range(len(self.stream) + 1):
            framer = Framer()
            items = framer.feed(self.stream[:offset]) + framer.feed(self.stream[offset:])
            self.assertEqual(numbers(items), [1, "ping", 2, 3, 4], offset)

    def test_written_as_it_came(self) -> None:
        """What is framed is written as it came."""
        whole = message(7, b"\x00\xff", extra="X: y\r\n z\r\n")
        (item,) = Framer().feed(whole)
        assert isinstance(item, Request)
        self.assertEqual(write(item, NO_EDITS), whole)

    def test_bare_lf(self) -> None:
        """Heads with bare LF are framed where they are read to end."""
        framer = Framer()
        items = framer.feed(message(1, b"a\n\nb").replace(b"\r\n", b"\n") + message(2))
        self.assertEqual(numbers(items), [1, 2])


class KeepAliveTests(SynchronousTestCase):
    """Tests of RFC 5626 4.4.1."""

    def test_ping(self) -> None:
        """A double CRLF is a ping, a single one nothing; both leave the framer empty."""
        framer = Framer()
        self.assertEqual(framer.feed(b"\r\n\r\n"), [PING])
        self.assertTrue(framer.empty)
        self.assertEqual(framer.feed(b"\r\n"), [])
        self.assertEqual(numbers(framer.feed(b"\r\n" + message(1))), ["ping", 1])
        self.assertEqual(numbers(framer.feed(b"\r\n" + message(2))), [2])

    def test_flood(self) -> None:
        """Of a flood of pings in one piece only a few are answered, and none is kept."""
        framer = Framer()
        self.assertEqual(len(framer.feed(b"\r\n" * 10000)), Limits().pings)
        self.assertTrue(framer.empty)


class FaultTests(SynchronousTestCase):
    """Tests of what cannot be framed, and of what can but is malformed."""

    def check_broken(self, octets: bytes, status: int, limits: Limits | None = None) -> MalformedMessage:
        framer = Framer(limits or Limits())
        items = framer.feed(octets + message(9))
        self.assertEqual(len(items), 1, octets)
        error = items[0]
        assert isinstance(error, MalformedMessage)
        self.assertEqual(error.status, status, octets)
        self.assertTrue(framer.broken)
        self.assertRaises(Misuse, framer.feed, message(9))
        return error

    def test_unknown_length(self) -> None:
        """Without a Content-Length that can be believed, nothing behind the head is read."""
        for length in (
            None, "Content-Length: -1", "Content-Length: +5", "Content-Length: 0x5", "Content-Length: five", "Content-Length:",
            "Content-Length: 5, 5", "Content-Length: 5\r\nContent-Length: 5", "Content-Length: 5\r\nl: 6", "Content-Length: 5 5",
            "Content-Length\x00: 5", "Content-Length: ٥",
        ):
            error = self.check_broken(message(1, b"hello", length), 400)
            self.assertIsInstance(error.message, Request)

    def test_too_large(self) -> None:
        """What exceeds the limits is refused before its body has come."""
        for length in ("49153", "4294967296", "18446744073709551616"):
            error = self.check_broken(message(1, length=f"Content-Length: {length}"), 400 if len(length) > 9 else 513)
            self.assertIsInstance(error.message, Request)
        self.check_broken(b"x" * 65537, 513)
        self.check_broken(message(1, extra="X-Odd : y\r\n" * 100), 400)

    def test_torture(self) -> None:
        """The torture messages about Content-Length break the stream or wait, and never read on."""
        for name, status in (("ncl", 400), ("mcl01", 400)):
            self.check_broken((TORTURE / f"rfc4475/{name}.dat").read_bytes(), status)
        framer = Framer()
        self.assertEqual(framer.feed((TORTURE / "rfc4475/clerr.dat").read_bytes()), [])
        self.assertFalse(framer.empty)

    def test_malformed_but_framed(self) -> None:
        """A message that cannot be read, but whose end is known, is one item among others."""
        for wrong in (
            message(1).replace(b"OPTIONS sip:b SIP/2.0", b"OPTIONS sip:b  SIP/2.0"), message(1, extra="Bad line\r\n"),
            message(1).replace(b"SIP/2.0\r\n", b"SIP/3.0\r\n"), message(1, extra="X: a\rb\r\n"),
            message(1, extra="X: " + "y" * 9000 + "\r\n"),
            message(1).replace(b"OPTIONS sip:b SIP/2.0", b"SIP/2.0 999 x"),
        ):
            framer = Framer()
            items = framer.feed(message(5) + wrong + message(6, b"x"))
            self.assertEqual([number for number in numbers(items) if number not in (400, 505)], [5, 6])
            self.assertEqual(len(items), 3)
            self.assertFalse(framer.broken)
