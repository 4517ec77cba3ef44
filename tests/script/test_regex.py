"""Regular expressions as glibc's ``regcomp`` has them (extended, ICASE), on RE2 and re."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.regex import FALLBACK_TEXT, BadPattern, compile_regex

#: pattern, text, span of the match or None
FOUND = [
    ("abc", "xABCx", (1, 4)),
    ("a|ab|abc", "xabcx", (1, 4)),
    ("(a|ab)(c|bcd)", "xabcd", (1, 5)),
    ("^[0-9]+$", "0123456789", (0, 10)),
    ("^[0-9]+$", "12a", None),
    (r"^\+1", "+1555", (0, 2)),
    ("a+?", "aaa", (0, 3)),
    ("a{2}{2}", "aaaaa", (0, 4)),
    ("a{,2}", "aaa", (0, 2)),
    ("x{1,2000}", "xx", (0, 2)),
    ("(|a)b", "ab", (0, 2)),
    ("a)", "xa)", (1, 3)),
    (r"[\d]+", r"4\d5", (1, 3)),
    (r"\d", "5d", None),
    (r"\w+", "--ab_1-", (2, 6)),
    (r"\bfoo", "a foo", (2, 5)),
    (r"c\>", "abc d", (2, 3)),
    ("[]a]+", "x]a", (1, 3)),
    ("[^]]", "]x", (1, 2)),
    ("[[:alpha:]_]+", "12a_b", (2, 5)),
    ("[[.a.][=b=]]+", "xab", (1, 3)),
    ("a.c", "a\nc", (0, 3)),
    ("c$", "abc\n", None),
    (r"(a|b)\1", "abb", (1, 3)),
    ("^..$", "é", (0, 2)),
    ("", "abc", (0, 0)),
]

REFUSED = ["*a", "+1", "^+1", "(*a)", "a|*b", "$*", "a{", "{1}a", "a{x}", "a{2,1}", "[a-z", "(", "[[:foo:]]", "[z-a]", "a\\"]
REFUSED += [r"\1", r"(a\1)", "(" * 200 + ")" * 200, r"((a*)*)\1", r"(.*)(.*)(.*)\3"]


class RegexTests(SynchronousTestCase):
    """``compile_regex``."""

    def test_found(self) -> None:
        """The leftmost, and of these the longest match is found, by the engine that says where and by the one that does not."""
        for pattern, text, span in FOUND:
            regex = compile_regex(pattern)
            match = regex.search(text)
            self.assertEqual(None if match is None else (match.start(), match.end()), span, (pattern, text))
            self.assertEqual(regex.matches(text), span is not None, (pattern, text))

    def test_refused(self) -> None:
        """What glibc refuses, and what could not be searched in bounded time, is a BadPattern."""
        for pattern in REFUSED:
            self.assertRaises(BadPattern, compile_regex, pattern)

    def test_values(self) -> None:
        """A number is matched by its text, null by nothing."""
        self.assertTrue(compile_regex("^5$").matches(5))
        self.assertFalse(compile_regex(".*").matches(None))

    def test_groups(self) -> None:
        """Groups give their text, None when they took no part, bytes that are no UTF-8 as they came."""
        match = compile_regex("(x)?(b+)(\udcff)").search("abb\udcff")
        assert match is not None
        self.assertEqual([match.group(n) for n in range(5)], ["bb\udcff", None, "bb", "\udcff", None])

    def test_case(self) -> None:
        """Case counts when it is asked to."""
        self.assertFalse(compile_regex("abc", ignore_case=False).matches("ABC"))
        self.assertTrue(compile_regex(r"\d", ignore_case=False).matches("d"))

    def test_newline(self) -> None:
        """With ``newline``, anchors match at each line and neither a dot nor an inverted bracket crosses one."""
        regex = compile_regex("^b.[^x]*$", newline=True)
        match = regex.search("a\nbcd\nefg")
        assert match is not None
        self.assertEqual(match.group(), "bcd")

    def test_bounded(self) -> None:
        """A pattern with back-references is not tried on a long text."""
        regex = compile_regex(r"(a)\1")
        self.assertTrue(regex.matches("x" * (FALLBACK_TEXT - 2) + "aa"))
        self.assertFalse(regex.matches("x" * FALLBACK_TEXT + "aa"))

    def test_quick(self) -> None:
        """Only a pattern that backtracking searches in linear time is given to it."""
        for pattern, quick in [
            ("^[0-9]+$", True),
            (r"^\+?1[0-9]{10}$", True),
            ("friendly-scanner|sipvicious", True),
            ("[0-9]+$", False),
            ("^(a+)+$", False),
            ("^(a|b)*$", False),
            ("^a*b*$", False),
            ("^a?a?a?a?a?a?a?x", False),
        ]:
            self.assertEqual(compile_regex(pattern)._quick is not None, quick, pattern)
