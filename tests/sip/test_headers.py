"""Tests of the header table."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.headers import HEADERS, NAMES, SINGLE, canonical, usual


class HeaderTests(SynchronousTestCase):
    """Tests of names and spellings."""

    def test_spellings(self) -> None:
        """Compact forms, case and blanks around a name lead to one name."""
        for spelling, name in (
            ("Via", "via"), ("v", "via"), ("V", "via"), ("vIA", "via"), (" v ", "via"), ("i", "call-id"), ("CALL-ID", "call-id"),
            ("Call-Id", "call-id"), ("Cseq", "cseq"), ("X-Mine", "x-mine"), ("s", "subject"), ("o", "event"), ("r", "refer-to"),
        ):
            self.assertEqual(canonical(spelling), name)

    def test_usual(self) -> None:
        """A known name is given as RFCs write it, an unknown one as it is."""
        for spelling, name in (
            ("call-id", "Call-ID"), ("v", "Via"), ("www-authenticate", "WWW-Authenticate"), ("x-MINE", "x-MINE"),
        ):
            self.assertEqual(usual(spelling), name)

    def test_no_two_headers_share_a_spelling(self) -> None:
        """Each compact form belongs to one header."""
        compact = [header.compact for header in HEADERS.values() if header.compact]
        self.assertEqual(len(compact), len(set(compact)))
        self.assertEqual(len(compact), 20)
        for header in HEADERS.values():
            self.assertEqual(NAMES[header.name], header.name.lower())

    def test_single_headers_are_known(self) -> None:
        """What may not be repeated is in the table, as such."""
        for name in SINGLE:
            self.assertFalse(HEADERS[name].many, name)

    def test_unknown_names_are_not_kept(self) -> None:
        """No sender can make a table grow."""
        before = len(NAMES)
        for index in range(100):
            canonical(f"X-Unknown-{index}")
        self.assertEqual(len(NAMES), before)
