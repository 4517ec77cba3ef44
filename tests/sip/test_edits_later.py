"""Tests of sipgw.sip.edits: what is made when the message is written, and notes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.edits import NO_EDITS, EditList, write
from tests.doubles import request


class Way:
    """Writes the way that a message takes, and the texts noted until then."""

    def __call__(self, edits: EditList, way: Any) -> str:
        """The header."""
        return f"X-Way: {way} {''.join(edits.notes(str))}" if way else ""


class LaterTests(SynchronousTestCase):
    """Edits that know where the message goes."""

    def test_made_when_written(self) -> None:
        """The text is made of the way and of notes that came after; each list has its own."""
        message = request()
        parent = NO_EDITS.note("a").later(1, Way()).insert_before(1, "X-B: 1")
        child = parent.note("b")
        for edits, way, lines in [
            (parent, "udp", ["X-Way: udp a", "X-B: 1"]),
            (child, "tcp", ["X-Way: tcp ab", "X-B: 1"]),
            (child, None, ["X-B: 1"]),
        ]:
            head = write(message, edits, way=way).decode().split("\r\n")
            self.assertEqual(head[1 : 1 + len(lines)], lines)
            self.assertEqual(head[1 + len(lines)], message.lines[1])

    def test_notes(self) -> None:
        """Notes are found by their class, in order, and do not touch the message."""
        message = request()
        edits = NO_EDITS.note("a").note(1).note("b")
        self.assertEqual((edits.notes(str), edits.notes(int), edits.notes(Way)), (["a", "b"], [1], []))
        self.assertEqual(len(edits.later(1, Way()).notes(Way)), 1)
        self.assertEqual(write(message, edits), write(message, NO_EDITS))
