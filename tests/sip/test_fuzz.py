"""Anything at all ends in a value or in ``MalformedMessage`` (hardening P1): mutants of the torture messages."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.auth import Challenge, Credentials
from sipgw.sip.body import MediaType, parts_of
from sipgw.sip.edits import NO_EDITS, remove_first_value, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.headers import NAMES
from sipgw.sip.message import Message, Request, Response, is_keepalive, parse, stamp_via
from sipgw.sip.replies import ack_for, cancel_for, respond_to
from sipgw.sip.sdp import SessionDescription
from sipgw.sip.stream import PING, Framer

TORTURE = Path(__file__).resolve().parent.parent / "torture"
CORPUS = [path.read_bytes() for path in sorted(TORTURE.glob("*/*.dat"))]
PIECES = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b";", b",", b'"', b"\\", b"<", b">", b"@", b"%", b"%00", b"[", b"]", b"::",
    b"=", b"?", b"/", b"-1", b"0", b"4294967296", b"9" * 40, b"SIP/2.0", b"sip:", b"Via: SIP/2.0/UDP a\r\n", b"v:", b"l: 5\r\n",
    b"Content-Length: 0\r\n", b"\r\n\r\n", b"\xff", b"\xc3\xa4", b"\xed\xa0\x80", b"*", b"tag=", b"branch=", b";rport",
    b"received=", b"INVITE", b"\r\n ", b"m: *\r\n",
)
ATTRIBUTES = (
    "via", "vias", "from_", "to", "from_tag", "to_tag", "call_id", "cseq", "method", "contacts", "routes", "record_routes",
    "max_forwards", "expires", "content_type", "content_length", "request_uri",
)


def mutate(rng: random.Random) -> bytes:
    """Return a torture message with a few accidents."""
    data = bytearray(rng.choice(CORPUS))
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(data) + 1)
        to = min(len(data), at + rng.choice((1, 1, 2, 8, 40)))
        accident = rng.randrange(6)
        if accident == 0:
            del data[at:to]
        elif accident == 1:
            data[at:at] = rng.choice(PIECES)
        elif accident == 2:
            data[at:to] = rng.choice(PIECES)
        elif accident == 3 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif accident == 4:
            other = rng.choice(CORPUS)
            begin = rng.randrange(len(other))
            data[at:to] = other[begin:begin + rng.choice((4, 20, 80))]
        else:
            data[at:at] = data[at:to]
    return bytes(data)


def touch_all(message: Message) -> int:
    """Read all that can be read; returns how many values were malformed."""
    malformed = 0
    for attribute in ATTRIBUTES:
        try:
            value = getattr(message, attribute, None)
            for part in value if isinstance(value, list) else [value]:
                for inner in ("uri", "params", "tag", "q", "expires", "branch", "received", "rport", "maddr", "name", "aor"):
                    try:
                        getattr(part, inner, None)
                    except MalformedMessage:
                        malformed += 1
        except MalformedMessage as error:
            assert error.message is None or error.message is message
            malformed += 1
    return malformed


def use(message: Request | Response) -> None:
    """Do with a message what a server does; each step may find it malformed."""
    steps: list[Callable[[], object]] = [
        lambda: write(message, remove_first_value(NO_EDITS, message, "Via")),
        lambda: [SessionDescription.parse(part.body) for part in parts_of(message)],
        lambda: MediaType.parse(message.content_type or ""),
        lambda: [Credentials.parse(value) for value in message.headers("Authorization")],
        lambda: [Challenge.parse(value) for value in message.headers("WWW-Authenticate")],
    ]
    if isinstance(message, Request):
        steps += [
            lambda: stamp_via(message, "192.0.2.9", 5060, force_rport=True),
            lambda: parse(respond_to(message, 404, to_tag="x")),
            lambda: cancel_for(message),
            lambda: ack_for(message, parse(respond_to(message, 404, to_tag="x"))),  # type: ignore[arg-type]
        ]
    for step in steps:
        try:
            step()
        except MalformedMessage:
            pass


class FuzzTests(SynchronousTestCase):
    """Tests with input that nobody wrote by hand."""

    def test_mutants(self) -> None:
        """Of thousands of mutants each is a message or malformed, and what passes is written to be read as the same."""
        rng = random.Random(3261)
        known = len(NAMES)
        passed = refused = 0
        for _ in range(10000):
            data = mutate(rng)
            is_keepalive(data)
            try:
                message = parse(data)
                message.check()
            except MalformedMessage as error:
                refused += 1
                if error.message is not None:
                    touch_all(error.message)
                    if isinstance(error.message, Request):
                        respond_to(error.message, error.status, error.reason, to_tag="x")
                continue
            passed += 1
            written = write(message, NO_EDITS)
            again = parse(written)
            again.check()
            self.assertEqual((again.lines, again.names, again.body), (message.lines, message.names, message.body))
            touch_all(message)
            use(message)
        self.assertGreater(passed, 1000)
        self.assertGreater(refused, 1000)
        self.assertEqual(len(NAMES), known)

    def test_streams_of_mutants(self) -> None:
        """A stream of mutants gives messages and errors until it breaks, and the same however it is cut."""
        rng = random.Random(5118)
        for _ in range(400):
            data = b"".join(mutate(rng) for _ in range(3))
            whole = Framer().feed(data)
            framer = Framer()
            pieces = []
            at = 0
            while at < len(data) and not framer.broken:
                step = rng.choice((1, 7, 100, 1500))
                pieces += framer.feed(data[at:at + step])
                at += step
            self.assertEqual(*([repr(item) for item in items if item is not PING] for items in (pieces, whole)))

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=30).map(b"".join))
    def test_soup(self, data: bytes) -> None:
        """Soup of what parsers trip over is a message or malformed, as a whole, as a head, and as each value."""
        text = data.decode("utf-8", "surrogateescape")
        for octets in (
            data, b"OPTIONS sip:b SIP/2.0\r\n" + data, b"OPTIONS sip:b SIP/2.0\r\nVia:" + data + b"\r\n\r\n",
            (
                f"INVITE {text} SIP/2.0\r\nVia: {text}\r\nFrom: {text}\r\nTo: {text}\r\nCall-ID: {text}\r\nCSeq: {text}\r\n"
                f"Contact: {text}\r\n\r\n"
            ).encode("utf-8", "surrogateescape"),
        ):
            try:
                message = parse(octets)
            except MalformedMessage as error:
                if error.message is not None:
                    touch_all(error.message)
                continue
            touch_all(message)
            use(message)
