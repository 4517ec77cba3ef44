"""Tests of sipgw.transport.hep: frames as a strict reader reads them."""

from __future__ import annotations

import json
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport.hep import MI, SIP, Frame, Style, encode
from tests.transport.hep_reader import read

TEXT = "OPTIONS sip:bob@example.org SIP/2.0\r\nCall-ID: a\r\n\r\n"
FOUR = ("192.0.2.1", 5060), ("192.0.2.2", 5062)
SIX = ("2001:db8::1", 5060), ("2001:db8::2", 5061)
TIME = 1_700_000_000.25


def frame(ends=FOUR, **more):
    """A frame with a SIP message."""
    made = Frame(SIP, 17, ends[0], ends[1], TIME, {"payload": TEXT}, "a")
    return replace(made, **more)


class FrameTests(SynchronousTestCase):
    """What is written is read back."""

    def test_versions(self):
        """Each version has addresses, ports and payload; 2 and 3 the time and our number, 3 the rest."""
        for ends in (FOUR, SIX):
            for version in (1, 2, 3):
                found = read(encode(frame(ends), version, Style(agent=77)))
                self.assertEqual((found.version, found.protocol, found.source, found.target), (version, 17, *ends))
                self.assertEqual(found.payload, TEXT.encode())
                if version > 1:
                    self.assertEqual((found.seconds, found.microseconds, found.agent), (1_700_000_000, 250_000, 77))
                if version > 2:
                    self.assertEqual((found.kind, found.correlation, found.extra), (SIP, b"a", None))

    def test_homer(self):
        """For Homer 5 the parts are joined and a SIP correlation takes the place of the other; for Homer 6 all is JSON."""
        made = frame(kind=MI, parts={"command": "ps", "backend": "fifo"}, extra={"sip": "b", "net": "9"})
        found = read(encode(made, 3, Style(delimiter="##")))
        self.assertEqual((found.kind, found.payload, found.correlation, found.extra), (MI, b"ps##fifo", b"b", None))
        found = read(encode(made, 3, Style(homer5=False)))
        self.assertEqual(json.loads(found.payload or b""), {"command": "ps", "backend": "fifo"})
        self.assertEqual((found.correlation, json.loads(found.extra or b"")), (b"a", {"sip": "b", "net": "9"}))

    def test_edges(self):
        """Octets that are no UTF-8 go as they came, in JSON as U+FFFD; mixed families become IPv6; too much is refused."""
        strange = frame((FOUR[0], SIX[1]), parts={"payload": "\udcff\0"}, correlation="")
        found = read(encode(strange, 3, Style()))
        self.assertEqual((found.payload, found.correlation), (b"\xff\0", None))
        self.assertEqual((found.source[0], found.target[0]), ("::ffff:c000:201", "2001:db8::2"))
        found = read(encode(strange, 3, Style(homer5=False)))
        self.assertEqual(json.loads(found.payload or b""), {"payload": "\ufffd\0"})
        for length, version in ((65_535, 3), (65_500, 3), (65_535, 1)):
            self.assertRaises(ValueError, encode, frame(parts={"payload": "x" * length}), version, Style())
        self.assertRaises(ValueError, encode, frame((("nowhere", 1), FOUR[1])), 3, Style())
