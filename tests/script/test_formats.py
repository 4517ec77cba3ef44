"""Tests for `sipgw.script.formats`."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.errors import ScriptError
from sipgw.script.formats import parse_format, parse_variable
from sipgw.script.nodes import Format, Pos, Transformation, Variable, walk

HERE = Pos("a.cfg", 3, 10)


class VariableTests(SynchronousTestCase):
    """A variable taken apart."""

    def test_parts(self):
        """Name, subname, index, context and transformations come out."""
        i = Variable("var", "i")
        table = [
            ("$ru", Variable("ru")),
            ("$(ru)", Variable("ru")),
            ("$msg.branch.uri", Variable("msg.branch.uri")),
            ("$hdr(X-Y)", Variable("hdr", "X-Y")),
            ("$avp($var(i))", Variable("avp", i)),
            ("$avp(a$var(i))", Variable("avp", "a$var(i)")),
            ("$json(a/$var(i))", Variable("json", "a/$var(i)")),
            ("$(avp(x)[0])", Variable("avp", "x", 0)),
            ("$(avp(x)[-2])", Variable("avp", "x", -2)),
            ("$(avp(x)[*])", Variable("avp", "x", "*")),
            ("$(avp(x)[append])", Variable("avp", "x", "append")),
            ("$(avp(x)[$var(i)])", Variable("avp", "x", i)),
            ("$(ct[1])", Variable("ct", None, 1)),
            ("$(<reply>hdr(X))", Variable("hdr", "X", None, "reply")),
            ("$(ru{uri.user} )", Variable("ru", None, None, None, (Transformation("uri", "user"),))),
            ("$$", Variable("$")),
        ]
        for text, expected in table:
            self.assertEqual(parse_variable(text), expected, text)

    def test_transformations(self):
        """Arguments are split at commas, except where the transformation says otherwise."""
        x = Variable("var", "x")
        table = [
            ("{s.len}", "s", "len", (), ""),
            ("{S.LEN}", "s", "len", (), ""),
            ("{s.escape.common}", "s", "escape.common", (), ""),
            ("{nameaddr.0.name}", "nameaddr", "0.name", (), ""),
            ("{s.substr, 0 ,2 }", "s", "substr", ("0", "2"), " 0 ,2 "),
            ("{s.substr,$var(x),1}", "s", "substr", (x, "1"), "$var(x),1"),
            ("{s.select,1,,}", "s", "select", ("1", ","), "1,,"),
            ("{s.select,1, }", "s", "select", ("1", " "), "1, "),
            ("{s.select, 0, ,}", "s", "select", ("0", " "), " 0, ,"),
            ("{s.select,$var(x),;}", "s", "select", (x, ";"), "$var(x),;"),
            ("{s.select,0}", "s", "select", ("0",), "0"),
            ("{re.subst,/a,(b){2}/c/g}", "re", "subst", ("/a,(b){2}/c/g",), "/a,(b){2}/c/g"),
            ("{uri.param, a}", "uri", "param", ("a",), " a"),
            ("{s.index,$(var(x){s.substr,0,1}),2}", "s", "index",
             (Variable("var", "x", None, None, (Transformation("s", "substr", ("0", "1"), "0,1"),)), "2"),
             "$(var(x){s.substr,0,1}),2"),
        ]
        for text, kind, op, arguments, raw in table:
            (found,) = parse_variable(f"$(var(x){text})").transformations
            self.assertEqual(found, Transformation(kind, op, arguments, raw), text)

    def test_several(self):
        """Transformations follow each other, with or without blanks."""
        found = parse_variable("$(ru{uri.host} {s.toupper}{s.len})").transformations
        self.assertEqual([f"{t.kind}.{t.op}" for t in found], ["uri.host", "s.toupper", "s.len"])

    def test_faults(self):
        """A fault is told with its place."""
        table = [
            ("$( ru)", 12), ("$(ru", 14), ("$(ru {s.len})", 14), ("$(avp(x)[0][1])", 21), ("$(avp(x){s.len}[0])", 25),
            ("$(avp(x)[ 0 ])", 18), ("$(avp(x)[a])", 18), ("$(avp(x)[])", 18), ("$(avp(x)[+0])", 18), ("$avp()", 14),
            ("$(ru{s})", 14), ("$(ru{.len})", 14), ("$(ru{s.})", 14), ("$(ru{})", 14), ("$(ru{s.len}x)", 21),
            ("$(hdr(a)b)", 18), ("$(<request)", 12), ("$()", 12), ("$", 10), ("$-", 10), ("$ru(", 13),
            ("$(hdr(a", 15), ("$(avp(x)[0", 18), ("$(ru{s.len", 14), ("$var(x)y", 17),
        ]
        for text, column in table:
            error = self.assertRaises(ScriptError, parse_variable, text, HERE)
            self.assertEqual((error.line, error.column), (3, column), f"{text} {error}")


class FormatTests(SynchronousTestCase):
    """Texts with variables in them."""

    def test_pieces(self):
        """Variables are found, the rest stays."""
        ru = Variable("ru")
        table: list[tuple[str, tuple[str | Variable, ...]]] = [
            ("", ()),
            ("abc", ("abc",)),
            ("$ru", (ru,)),
            ("a$ru b", ("a", ru, " b")),
            ("$ru$ru", (ru, ru)),
            ("call $ru, or $(ru).", ("call ", ru, ", or ", ru, ".")),
            ("to $ru.", ("to ", ru, ".")),
            ("$ru-x", (ru, "-x")),
            ("$ru{uri.user}", (ru, "{uri.user}")),
            ("$hdr(X)[0]", (Variable("hdr", "X"), "[0]")),
            ("a$$b $$ru", ("a$b $ru",)),
            ("100 $", ("100 $",)),
            ("a $ b", ("a $ b",)),
            ("$$$ru", ("$", ru)),
            ("%d $time(%H (x))", ("%d ", Variable("time", "%H (x)"))),
        ]
        for text, pieces in table:
            self.assertEqual(parse_format(text), Format(pieces), text)

    def test_places(self):
        """A variable knows its line and column, also after a line break."""
        places = [v.pos for v in walk(parse_format("a $ru\nb $fU", HERE)) if isinstance(v, Variable)]
        self.assertEqual(places, [Pos("a.cfg", 3, 12), Pos("a.cfg", 4, 3)])

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(st.text(alphabet="$(){}[]<>a1.,*- \n", max_size=30))
    def test_any_text(self, text):
        """Any text is a Format or a ScriptError, nothing else; without variables nothing but dollars
        changes."""
        try:
            found = parse_format(text, HERE)
        except ScriptError:
            return
        if found.constant is not None:
            self.assertEqual(found.constant.replace("$", ""), text.replace("$", ""))
