"""Tests of numbers, tokens, quotes, escapes and IPv6 addresses."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import (
    ipv6_groups,
    is_ipv4,
    is_token,
    parse_q,
    parse_uint,
    quote,
    unescape,
    unfold,
    unquote,
)


class NumberTests(SynchronousTestCase):
    """Tests of ``parse_uint`` and ``parse_q``."""

    def test_numbers(self) -> None:
        """Plain digits are read, with any number of leading zeros."""
        for text, value in (("0", 0), ("70", 70), ("0068", 68), ("4294967295", 2**32 - 1), ("0" * 500 + "7", 7)):
            self.assertEqual(parse_uint(text, 2**32 - 1), value)

    def test_no_numbers(self) -> None:
        """What ``int()`` would take or choke on is refused: signs, blanks, underscores, foreign digits, size."""
        for text in ("", "-1", "+1", " 1", "1 ", "1_0", "٣", "²", "0x1", "1e3", "five", "4294967296", "9" * 5000):
            with self.assertRaises(MalformedMessage, msg=text):
                parse_uint(text, 2**32 - 1)

    def test_limit(self) -> None:
        """A number above the limit is refused, and the error says which."""
        self.assertEqual(parse_uint("255", 255), 255)
        error = self.assertRaises(MalformedMessage, parse_uint, "256", 255, "Max-Forwards")
        self.assertEqual((error.status, error.reason), (400, "Bad Max-Forwards"))

    def test_q(self) -> None:
        """A q value is read as thousandths (RFC 3261 25.1)."""
        for text, value in (("0", 0), ("1", 1000), ("0.7", 700), ("0.05", 50), ("0.333", 333), ("1.000", 1000), ("0.", 0)):
            self.assertEqual(parse_q(text), value)
        for text in ("", "2", "1.1", "0.1234", ".5", "-0.1", "0,5", "0.5\n"):
            self.assertRaises(MalformedMessage, parse_q, text)


class TextTests(SynchronousTestCase):
    """Tests of tokens, folds, quotes and escapes."""

    def test_token(self) -> None:
        """A token holds the characters of RFC 3261 25.1 and no other."""
        self.assertTrue(is_token("!interesting-Method0123456789_*+`.%indeed'~"))
        for text in ("", "a b", "a:b", "a;b", "é", "a\x00", "a\n"):
            self.assertFalse(is_token(text), text)

    def test_unfold(self) -> None:
        """A fold with the white space around it is one space."""
        self.assertEqual(unfold("a \r\n\t b\r\n c\n d"), "a b c d")

    def test_quotes(self) -> None:
        """Quotes and escapes are taken off once, and only from a quoted string."""
        for text, meaning in (('"a"', "a"), ('"a\\"b\\\\"', 'a"b\\'), ("a", "a"), ('"', '"'), ('""', ""), ('"a', '"a')):
            self.assertEqual(unquote(text), meaning)

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.text(st.characters(blacklist_characters="\r\n")))
    def test_quote_round_trip(self, text: str) -> None:
        """What is quoted is unquoted to itself."""
        self.assertEqual(unquote(quote(text)), text)

    def test_quote_holds_no_line_end(self) -> None:
        """A quoted string cannot start a new header."""
        self.assertEqual(quote('a\r\nVia: "x"'), '"a Via: \\"x\\""')

    def test_unescape(self) -> None:
        """Escapes are decoded once, as UTF-8 where they are."""
        for text, meaning in (
            ("%61lice", "alice"), ("%2541", "%41"), ("100%", "100%"), ("%zz", "%zz"), ("%C3%A4", "ä"), ("%00", "\x00"),
            ("%FF", "\udcff"),
        ):
            self.assertEqual(unescape(text), meaning)


class AddressTests(SynchronousTestCase):
    """Tests of numeric addresses."""

    def test_ipv4(self) -> None:
        """Only a plain dotted quad is one."""
        self.assertTrue(is_ipv4("192.0.2.255"))
        for text in ("1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4.", "1.2.3.4\n", "a.b.c.d", ""):
            self.assertFalse(is_ipv4(text), text)

    def test_ipv6(self) -> None:
        """Each legal way to write an address gives its eight groups (RFC 4291 2.2)."""
        for text in (
            "::", "::1", "1::", "2001:db8::9:1", "1:2:3:4:5:6:7:8", "::ffff:192.0.2.1", "2001:DB8::0", "1:2:3:4:5:6:1.2.3.4",
            "1::8", "1:2:3:4:5:6:7::",
        ):
            packed = ipaddress.IPv6Address(text).packed
            groups = ipv6_groups(text)
            assert groups is not None
            self.assertEqual(b"".join(group.to_bytes(2, "big") for group in groups), packed, text)

    def test_no_ipv6(self) -> None:
        """Three colons, two gaps, too many groups and the like are refused (RFC 5118 4.10)."""
        for text in (
            "", ":", ":::", "2001:db8:::192.0.2.1", "1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", "g::",
            "1:2:3:4:5:6:7::8", "1.2.3.4", "1.2.3.4::", "::1.2.3", "1:", ":1", "::1%eth0", "[::1]",
        ):
            self.assertIsNone(ipv6_groups(text), text)

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.text("0123456789abcF:.", max_size=20))
    def test_ipv6_as_ipaddress_says(self, text: str) -> None:
        """Python's own library, ten times slower, agrees on every text."""
        try:
            expected = ipaddress.IPv6Address(text).packed
        except ValueError:
            self.assertIsNone(ipv6_groups(text))
        else:
            groups = ipv6_groups(text)
            assert groups is not None
            self.assertEqual(b"".join(group.to_bytes(2, "big") for group in groups), expected)
