"""Presence documents: written and read, those of others, and what is none."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.pidf import Pidf, Tuple

RFC_4480 = b"""<?xml version="1.0" encoding="UTF-8"?>
<presence xmlns="urn:ietf:params:xml:ns:pidf" xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model"
 xmlns:rpid="urn:ietf:params:xml:ns:pidf:rpid" entity="pres:someone@example.com">
 <tuple id="bs35r9"><status><basic>open</basic></status><contact priority="0.8">im:someone@mobile.example.net</contact>
  <note xml:lang="en">Don't disturb</note></tuple>
 <tuple id="eg92n8"><status><basic>closed</basic></status></tuple>
 <dm:person id="p1"><rpid:activities><rpid:on-the-phone/></rpid:activities><dm:note>Busy</dm:note></dm:person>
</presence>"""


class PidfTests(SynchronousTestCase):
    """RFC 3863, RFC 4480."""

    def test_read(self):
        """Tuples with what the person does."""
        self.assertEqual(
            Pidf.parse(RFC_4480),
            Pidf("pres:someone@example.com", [
                Tuple("bs35r9", True, "dnd", "Don't disturb", 800, "im:someone@mobile.example.net"),
                Tuple("eg92n8", False, "dnd", "Busy"),
            ]),
        )

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.text(max_size=20), st.booleans(), st.sampled_from(["", "away", "chat", "dnd", "xa"]), st.text(max_size=20))
    def test_round_trip(self, id, is_open, show, note):
        """What is written is read again, whatever people write into their notes."""
        data = Pidf("pres:a@b", [Tuple(id, is_open, show, note, 500, "sip:a@b")]).write()
        found = Pidf.parse(data).tuples[0]
        self.assertEqual((found.open, found.show, found.priority), (is_open, show if is_open else "", 500))
        self.assertTrue(found.id.isascii() and found.id)

    def test_refused(self):
        """What is no document."""
        for data in (b"", b"<x/>", b"<presence", b"<!DOCTYPE a><presence/>", b"\xff"):
            self.assertRaises(MalformedMessage, Pidf.parse, data)
        self.assertEqual(Pidf.parse(b"<presence/>"), Pidf("", []))
