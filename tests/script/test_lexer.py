"""Tests for `sipgw.script.lexer`."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.lexer import number, tokenize, unescape
from sipgw.script.preprocess import Source


def tokens(text: str) -> list[tuple[str, object]]:
    found = tokenize(Source.of(text))
    return list(zip(found.kinds, found.values, strict=True))[:-1]


class LexerTests(SynchronousTestCase):
    """Text becomes tokens."""

    def test_variable_ends(self):
        """A variable ends at blanks, punctuation and operators; its parentheses nest."""
        table = [
            ("$ru;", ["$ru", ";"]),
            ("$rU==$tU", ["$rU", "==", "$tU"]),
            ("$rU!=1", ["$rU", "!=", 1]),
            ('$rU!~"a"', ["$rU", "!~", "a"]),
            ("$var(a)-$var(b)", ["$var(a)", "-", "$var(b)"]),
            ("$rU-$fU", ["$rU", "-", "$fU"]),
            ("$a.b.c)", ["$a.b.c", ")"]),
            ("$var(x)<<2", ["$var(x)", "<<", 2]),
            ("$(hdr(X)[$var(i)]{s.select,0,$(var(a){s.len})})+1",
             ["$(hdr(X)[$var(i)]{s.select,0,$(var(a){s.len})})", "+", 1]),
            ("$time(%H:%M (x)) ", ["$time(%H:%M (x))"]),
            ("$hdr(X-Y)", ["$hdr(X-Y)"]),
            ("$avp($var(n))", ["$avp($var(n))"]),
            ("$avp(x)[0]", ["$avp(x)", "[", 0, "]"]),
            ("$challenge.algorithm", ["$challenge.algorithm"]),
            ("$tls_peer_notBefore", ["$tls_peer_notBefore"]),
            ("$$", ["$$"]),
        ]
        for text, expected in table:
            self.assertEqual([value for _, value in tokens(text)], expected, text)

    def test_numbers(self):
        """Numbers are those of C: hexadecimal, octal, cut to 32 bits."""
        table = [("0", 0), ("42", 42), ("0x1F", 31), ("017", 15), ("4294967295", -1), ("2147483648", -(2**31)),
                 ("0xFFFFFFFF", -1), ("99999999999999999999", -1), ("0X10", 16), ("00", 0)]
        for text, expected in table:
            self.assertEqual(tokens(text), [("NUM", expected)], text)
            self.assertEqual(number(text), expected)

    def test_words(self):
        """Some words are numbers, some are operators, in this case only."""
        table = [("yes true on enable", [("NUM", 1)] * 4), ("no false off disable", [("NUM", 0)] * 4),
                 ("null NULL Null", [("NULL", None), ("NULL", None), ("ID", "Null")]),
                 ("and or not", [("&&", "and"), ("||", "or"), ("!", "not")]),
                 ("YES android", [("ID", "YES"), ("ID", "android")])]
        for text, expected in table:
            self.assertEqual(tokens(text), expected, text)

    def test_addresses(self):
        """Addresses and networks are tokens, with or without brackets."""
        table = [("10.0.0.1", [("IP", "10.0.0.1")]), ("10.0.0.0/8", [("NET", "10.0.0.0/8")]),
                 ("10.0.0.0/255.0.0.0", [("NET", "10.0.0.0/255.0.0.0")]), ("::1", [("IP", "::1")]),
                 ("[::1]", [("IP", "::1")]), ("2001:db8::/32", [("NET", "2001:db8::/32")]),
                 ("abcd:1:2:3:4:5:6:7", [("IP", "abcd:1:2:3:4:5:6:7")]),
                 ("udp:1.2.3.4:5", [("ID", "udp"), (":", ":"), ("IP", "1.2.3.4"), (":", ":"), ("NUM", 5)]),
                 ("case 1:", [("ID", "case"), ("NUM", 1), (":", ":")]),
                 ("default:", [("ID", "default"), (":", ":")])]
        for text, expected in table:
            self.assertEqual(tokens(text), expected, text)

    def test_strings(self):
        """Double quotes know escapes, single quotes know none."""
        table = [(r'"a\n\r\t\a\"\\"', 'a\n\r\t\a"\\'), (r"'a\n\"'", r"a\n\""), (r'"\x41\101\x4"', "AA\x04"),
                 (r'"\q\1\$"', r"\q\1\$"), ('"a\\\nb"', "ab"), ('"a\nb"', "a\nb"), (r'"\xc3\xa9"', "é"),
                 ("\"it's\"", "it's"), ("'say \"x\"'", 'say "x"'), ('""', "")]
        for text, expected in table:
            self.assertEqual(tokens(text), [("STR", expected)], text)

    def test_bytes(self):
        """A byte that is no UTF-8 is kept as a surrogate, as everywhere."""
        self.assertEqual(unescape(r"\xff").encode("utf-8", "surrogateescape"), b"\xff")

    def test_comments(self):
        """# ends with the line, /* */ nests."""
        self.assertEqual(tokens("1 # 2\n3 /* 4 /* 5 */ 6 */ 7"), [("NUM", 1), ("NUM", 3), ("NUM", 7)])
        self.assertEqual(tokens('"a # b" # c'), [("STR", "a # b")])

    def test_faults(self):
        """What has no end, and what means nothing, is told with its place."""
        table = [('x "abc', "this string has no end"), ("x /* /* */", "this comment has no end"),
                 ("x // y", "`//` opens no comment"), ("x $(ru", "this variable has no end"),
                 ("x 08", "08 is no octal number")]
        for text, expected in table:
            found = tokenize(Source.of(text))
            self.assertEqual([(e.text, e.column) for e in found.errors], [(expected, 3)], text)

    def test_warnings(self):
        """Characters that OpenSIPS skips, and transformations that it drops, give a warning."""
        table = [("a ` b", "the character '`' means nothing here and is skipped"),
                 ("a `?\x01` b", "the character '`' means nothing here and is skipped"),
                 ("a $ru{uri.user}", "{uri.user} is ignored after $ru")]
        for text, expected in table:
            self.assertEqual([w.text for w in tokenize(Source.of(text)).warnings], [expected], text)
        self.assertEqual(tokens("$ru{uri.user}+"), [("VAR", "$ru"), ("+", "+")])

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(st.text(alphabet="$(){}[]a1\"'/*#\\ \n;:.x=&|<>@é", max_size=40))
    def test_any_text(self, text):
        """Any text gives tokens up to EOF, in order and without overlap."""
        found = tokenize(Source.of(text))
        self.assertEqual(found.kinds[-1], "EOF")
        edges = [edge for pair in zip(found.starts, found.ends, strict=True) for edge in pair]
        self.assertEqual(edges, sorted(edges))
