"""Tests of sipgw.proxy.registrar_flags."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.registrar_flags import (
    LOOKUP_LETTERS,
    LOOKUP_WORDS,
    SAVE_LETTERS,
    SAVE_WORDS,
    LookupFlags,
    SaveFlags,
    extended_pattern,
    lookup_flags,
    save_flags,
)
from sipgw.script.regex import compile_regex


class SaveFlagsTests(SynchronousTestCase):
    """The flags of save()."""

    def test_forms(self) -> None:
        """Words and letters say the same."""
        table: list[tuple[str, str, dict[str, Any]]] = [
            ("", "", {}),
            ("memory-only", "m", {"memory_only": True}),
            ("memory-only, no-reply", "mr", {"memory_only": True, "no_reply": True}),
            ("max-contacts=5,force-registration", "c5f", {"max_contacts": 5, "force": True}),
            (" matching-mode=1 , path-lazy", "M1p1", {"match": "1", "path": "lazy"}),
            ("matching-mode=<rInstance>", "M<rInstance>", {"match": "rinstance"}),
            ("path-off", "p0", {"path": "off"}),
            ("path-strict,path-received", "p2v", {"path": "strict", "path_received": True}),
            ("only-request-contacts,socket-header", "os", {"only_request_contacts": True, "socket_header": True}),
            ("min-expires=60,max-expires=3600", "e60E3600", {"min_expires": 60, "max_expires": 3600}),
            ("min-expires = 0 , max-expires= 90", "e0,E90", {"min_expires": 0, "max_expires": 90}),
        ]
        for words, letters, fields in table:
            self.assertEqual(save_flags(words), SaveFlags(**fields), words)
            self.assertEqual(save_flags(letters), SaveFlags(**fields), letters)
        self.assertEqual(save_flags("reject-too-brief"), SaveFlags(reject_too_brief=True))

    def test_refused(self) -> None:
        """What is no flag is refused with a word about it."""
        for text, why in [
            ("max-contact=1", "did you mean 'max-contacts'"),
            ("force", "did you mean 'force-registration'"),
            ("Z", "cannot read"),
            ("no-reply,bogus", "no flag 'bogus'"),
            ("Memory-Only", "cannot read"),
            ("min-expires=x", "wants a number"),
            ("max-contacts", "wants a number"),
            ("c", "no flag 'c'"),
            ("no-reply=1", "takes no value"),
            ("matching-mode=7", "0, 1 or <name"),
            ("M7", "0, 1 or <name"),
        ]:
            with self.assertRaises(ValueError) as caught:
                save_flags(text)
            self.assertIn(why, str(caught.exception), text)

    def test_tables(self) -> None:
        """Each letter stands for a word, each word for a field."""
        fields = {*asdict(SaveFlags())}
        self.assertTrue(set(SAVE_LETTERS.values()) <= set(SAVE_WORDS))
        self.assertEqual({name for name, _ in SAVE_WORDS.values()}, fields)
        self.assertEqual(set(LOOKUP_LETTERS.values()), set(LOOKUP_WORDS))


class LookupFlagsTests(SynchronousTestCase):
    """The flags of lookup()."""

    def test_forms(self) -> None:
        """Words and letters say the same."""
        table: list[tuple[str, str, dict[str, Any]]] = [
            ("", "", {}),
            ("no-branches", "b", {"no_branches": True}),
            ("to-branches-only", "B", {"branches_only": True}),
            ("branch", "r", {"expand_branches": True}),
            ("branch,method-filtering", "rm", {"expand_branches": True, "method_filtering": True}),
        ]
        for words, letters, fields in table:
            self.assertEqual(lookup_flags(words), LookupFlags(**fields), words)
            self.assertEqual(lookup_flags(letters), LookupFlags(**fields), letters)

    def test_user_agent(self) -> None:
        """The pattern is a basic one that minds the case, unless other flags say so."""
        for text, agent, found in [
            ("ua-filtering=/^soft/", "soft/2", True),
            ("ua-filtering=/^soft/", "Soft/3", False),
            ("ua-filtering=/^soft/i", "Soft/3", False),
            ("ua-filtering=/^soft/,case-insensitive", "Soft/3", True),
            ("u/^soft/i", "Soft/3", True),
            ("ua-filtering=/^(soft|phone)/", "phone/1", False),
            ("ua-filtering=/^(soft|phone)/,extended-regexp", "phone/1", True),
            ("mu/^(soft|phone)/e", "phone/1", True),
            ("ua-filtering=/a,b/,branch", "xa,bx", True),
            ("ua-filtering=/a/b/", "a/b", True),
        ]:
            pattern = lookup_flags(text).user_agent
            assert pattern is not None
            self.assertEqual(pattern.search(agent) is not None, found, (text, agent))

    def test_refused(self) -> None:
        """What is not there is refused, and says in which way."""
        for text, why in [
            ("bogus", "no flag 'bogus'"),
            ("sort-by-latency", "pinging"),
            ("max-ping-latency=100", "pinging"),
            ("ua-filtering=phone", "/pattern/"),
            ("ua-filtering", "wants a value"),
            ("ua-filtering=/(/,extended-regexp", ""),
        ]:
            with self.assertRaises(ValueError) as caught:
                lookup_flags(text)
            self.assertIn(why, str(caught.exception), text)


class BasicPatternTests(SynchronousTestCase):
    """Basic regular expressions as extended ones."""

    def test_table(self) -> None:
        r"""In a basic expression ``(`` is itself and ``\(`` groups."""
        for basic, text, found in [
            ("a(b)", "a(b)", True),
            (r"a\(b\)c", "abc", True),
            (r"\(ab\)*c", "ababc", True),
            ("a+", "a+", True),
            ("a+", "aa", False),
            (r"a\+", "aa", True),
            (r"a\|b", "b", True),
            ("a|b", "a|b", True),
            (r"a\{2\}", "aa", True),
            ("a{2}", "a{2}", True),
            ("*a", "*a", True),
            ("a*b", "aaab", True),
            (r"\.", ".", True),
            (r"\.", "x", False),
            ("[()]x", ")x", True),
            ("[]|]x", "|x", True),
            ("[[:digit:]+]x", "+x", True),
        ]:
            pattern = compile_regex("^" + extended_pattern(basic) + "$" if basic[0] != "*" else extended_pattern(basic), False)
            self.assertEqual(pattern.search(text) is not None, found, (basic, text, extended_pattern(basic)))
