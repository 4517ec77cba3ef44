"""Tests of sipgw.core.perl_regex: what Perl's expressions match, and what they may cost."""

import time

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.perl_regex import FALLBACK_TEXT, PerlPattern
from sipgw.script.regex import BadPattern


class PerlTests(SynchronousTestCase):
    """Patterns and texts."""

    def test_search(self) -> None:
        """The leftmost match and its groups, as Perl finds them, whatever engine it takes."""
        for pattern, text, found in (
            (r"^(0040|\+40|0|40)(.+)", "0040211", ["0040211", "0040", "211"]), (r"(\d+)x\b", "a12x b", ["12x", "12"]),
            (r"(?:a|ab)(c)?", "abc", ["a", ""]), (r"a+?", "aaa", ["a"]), (r"(?P<n>b)", "abc", ["b", "b"]), ("x", "abc", None),
            (r"(?<=a)b", "ab", ["b"]), (r"(?<=a)b", "cb", None), (r"^(?!00)\d+$", "0049", None), (r"^(?!00)\d+$", "149", ["149"]),
            (r"^(.)\1", "aab", ["aa", "a"]), ("\u00fc.", "\u00fcx", ["\u00fcx"]), ("^.$", "\udcff", ["\udcff"]),
            (r"[[:digit:]]+", "a12", ["12"]), ("A", "a", None),
        ):  # fmt: skip
            self.assertEqual(PerlPattern(pattern).search(text), found, (pattern, text))
        self.assertEqual(PerlPattern("A", True).search("a"), ["a"])
        self.assertEqual(PerlPattern("(?=A)(.)", True).search("a"), ["a", "a"])
        self.assertEqual([PerlPattern(text).groups for text in ("a", "(a)(b)", "(?=a)(b)")], [0, 2, 1])

    def test_refused(self) -> None:
        """What is no pattern, and what could take for ever, is refused."""
        for pattern in ("((", "*", r"(?=a)(\d+)+$", r"(?=a)(\w+\s?)*$", r"(?=a).*.*.*b", r"(?=(x+x+)+y)", r"(?<=a+)b"):
            self.assertRaises(BadPattern, PerlPattern, pattern)

    def test_time(self) -> None:
        """Hostile texts are searched at once; a long one does not match what has to look around."""
        began = time.process_time()
        self.assertIsNone(PerlPattern(r"^(\d+)+$").search("1" * 50_000 + "x"))
        self.assertIsNone(PerlPattern(r"(?=.)\d*\d*$x").search("1" * FALLBACK_TEXT))
        self.assertLess(time.process_time() - began, 1)
        self.assertIsNone(PerlPattern(r"(?=a)a").search("a" * (FALLBACK_TEXT + 1)))
