"""Tests for `sipgw.script.parser` and what it is made of (expressions, statements, definitions)."""

import time
from ipaddress import ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.script import nodes
from sipgw.script.errors import ScriptErrors
from sipgw.script.nodes import (
    Alias,
    And,
    Assign,
    AssignTest,
    Binary,
    Blacklist,
    BlacklistRule,
    Bond,
    Break,
    Call,
    CallTest,
    Case,
    Compare,
    Exit,
    Format,
    If,
    Int,
    Invert,
    IpNet,
    LoadModule,
    Log,
    ModParam,
    Not,
    Null,
    Or,
    Return,
    Route,
    RouteCall,
    ScalingProfile,
    ScalingRule,
    Setting,
    Socket,
    Str,
    Switch,
    Truth,
    Variable,
    Xlog,
)
from sipgw.script.parser import parse, read
from sipgw.script.symbols import RouteKind

A, B, C, X = (Variable("var", name) for name in "abcx")


def statements(text: str) -> tuple[nodes.Statement, ...]:
    """The statements of a route."""
    return parse(f"route {{\n{text}\n}}").routes[0].body


def statement(text: str) -> nodes.Statement:
    (found,) = statements(text)
    return found


def value(text: str) -> object:
    """The tree of a value."""
    found = statement(f"$var(x) = {text};")
    assert isinstance(found, Assign)
    return found.value


def condition(text: str) -> object:
    """The tree of a condition."""
    found = statement(f"if ({text}) exit;")
    assert isinstance(found, If)
    return found.condition


def faults(text: str) -> list[tuple[int, int, str]]:
    """Line, column and text of all that is wrong with a file."""
    return [(e.line, e.column, e.text) for e in read(text).errors]


class ValueTests(SynchronousTestCase):
    """The right side of an assignment."""

    def test_precedence(self):
        """Bits, then sums, then the rest; each level from the left."""
        one, two, three = Int(1), Int(2), Int(3)
        table = [
            ("2+3*1", Binary("*", Binary("+", two, three), one)),
            ("1 & 2 + 3", Binary("&", one, Binary("+", two, three))),
            ("1 + 2 & 3", Binary("&", Binary("+", one, two), three)),
            ("2 | 1 & 3", Binary("&", Binary("|", two, one), three)),
            ("1 << 2 + 3", Binary("<<", one, Binary("+", two, three))),
            ("3 - 2 - 1", Binary("-", Binary("-", three, two), one)),
            ("1+(2*3)", Binary("+", one, Binary("*", two, three))),
            ("~1 + 2", Binary("+", Invert(one), two)),
            ("~~1", Invert(Invert(one))),
            ("~(1+2)", Invert(Binary("+", one, two))),
            ("1--1", Binary("-", one, Int(-1))),
            ("1 -1", Binary("-", one, one)),
            ("-5 / 2", Binary("/", Int(-5), two)),
            ("$var(a)-$var(b)", Binary("-", A, B)),
            ('"a" + $var(b)', Binary("+", Str("a"), B)),
            ("$var(a) == 1 + 2", Binary("+", Compare("==", A, one), two)),
            ("1 + $var(a) == 2", Binary("+", one, Compare("==", A, two))),
            ("~$var(a) == 1", Invert(Compare("==", A, one))),
            ("($var(a) == 1)", Compare("==", A, one)),
            ("route(A) + 1", Binary("+", RouteCall("A"), one)),
            ('is_myself("x")', Call("is_myself", (Str("x"),))),
        ]
        for text, expected in table:
            self.assertEqual(value(text), expected, text)

    def test_no_interpolation(self):
        """A string in an assignment stays as it is."""
        self.assertEqual(value('"x $ru"'), Str("x $ru"))

    def test_assignments(self):
        """All the operators, and NULL with two of them."""
        for op in ("=", ":=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^="):
            self.assertEqual(statement(f"$var(x) {op} 1;"), Assign(X, op, Int(1)))
        self.assertEqual(statement("$var(x) = NULL;"), Assign(X, "=", Null()))
        self.assertEqual(statement("$var(x) := null;"), Assign(X, ":=", Null()))
        self.assertEqual(statement("$(avp(x)[*]) = 1;"), Assign(Variable("avp", "x", "*"), "=", Int(1)))

    def test_comparison_in_a_sum(self):
        """The precedence of a comparison surprises: that is worth a warning."""
        warnings = read("route { $var(x) = $var(a) == 1 + 2; }").warnings
        self.assertEqual([w.text for w in warnings], ["the comparison comes before the `+`"])


class ConditionTests(SynchronousTestCase):
    """What stands in the parentheses of an if."""

    def test_logic(self):
        """&& and || are one level, from the left; ! takes what a comparison has made."""
        a, b, c = Truth(A), Truth(B), Truth(C)
        one = Compare("==", A, Int(1))
        table = [
            ("$var(a) || $var(b) && $var(c)", And(Or(a, b), c)),
            ("$var(a) and $var(b) or $var(c)", Or(And(a, b), c)),
            ("$var(a) || ($var(b) && $var(c))", Or(a, And(b, c))),
            ("!$var(a) == 1", Not(one)),
            ("! ! $var(a)", Not(Not(a))),
            ("!$var(a) && $var(b)", And(Not(a), b)),
            ("not ($var(a) or $var(b))", Not(Or(a, b))),
            ("5", Truth(Int(5))),
            ("yes", Truth(Int(1))),
            ("-1", Truth(Int(-1))),
            ("[ $var(a) + 1 ]", nodes.Test(Binary("+", A, Int(1)))),
            ("[1] && [2]", And(nodes.Test(Int(1)), nodes.Test(Int(2)))),
            ("$var(a) = 1 && $var(b)", And(AssignTest(Assign(A, "=", Int(1))), b)),
            ("f() || route(X,1)", Or(CallTest(Call("f")), CallTest(RouteCall("X", (Int(1),))))),
            ('xlog("a")', CallTest(Xlog(Format(("a",))))),
        ]
        for text, expected in table:
            self.assertEqual(condition(text), expected, text)

    def test_comparisons(self):
        """A variable on the left, one of many things on the right."""
        table = [
            ('$var(a) == "x $ru"', Compare("==", A, Str("x $ru"))),
            ("$var(a) != -5", Compare("!=", A, Int(-5))),
            ("$var(a) <= $var(b)", Compare("<=", A, B)),
            ("$var(a) == NULL", Compare("==", A, Null())),
            ('$var(a) =~ "^x"', Compare("=~", A, Str("^x"))),
            ("$var(a) !~ $var(b)", Compare("!~", A, B)),
            ("$var(a) == 10.0.0.1", Compare("==", A, IpNet(ip_network("10.0.0.1/32")))),
            ("$var(a) == 10.1.2.3/8", Compare("==", A, IpNet(ip_network("10.0.0.0/8")))),
            ("$var(a) == 10.0.0.0/255.0.0.0", Compare("==", A, IpNet(ip_network("10.0.0.0/8")))),
            ("$var(a) != 2001:db8::/32", Compare("!=", A, IpNet(ip_network("2001:db8::/32")))),
            ("$var(a) == [::1]", Compare("==", A, IpNet(ip_network("::1/128")))),
            ("$var(a) == fe80::1/ffff::", Compare("==", A, IpNet(ip_network("fe80::/16")))),
        ]
        for text, expected in table:
            self.assertEqual(condition(text), expected, text)

    def test_old_conditions(self):
        """Conditions of old releases are refused with what to write instead."""
        table = [
            ('method=="INVITE"', "is_method"), ("uri==myself", "is_myself"), ("src_ip==1.2.3.4", "$si"),
            ("proto==UDP", "socket_in(proto)"), ("msg:len > 2000", "$ml"), ('status=="200"', "$rs"),
            ("$rm == INVITE", '"INVITE"'), ("$ru == myself", "is_myself"),
        ]
        for text, part in table:
            (error,) = read(f"route {{ if ({text}) exit; }}").errors
            self.assertIn(part, error.hint, text)


class StatementTests(SynchronousTestCase):
    """What stands in a route."""

    def test_calls(self):
        """An argument left empty is None, also the last."""
        table = [
            ("f();", Call("f")),
            ('f("a", , 3);', Call("f", (Str("a"), None, Int(3)))),
            ("f(,);", Call("f", (None, None))),
            ('f("a",);', Call("f", (Str("a"), None))),
            ("f($ru, -3, yes);", Call("f", (Variable("ru"), Int(-3), Int(1)))),
            ("route(a);", RouteCall("a")),
            ("route(on);", RouteCall("1")),
            ("route(0x10);", RouteCall("16")),
            ('route("a-b", "x $ru", NULL, 1);', RouteCall("a-b", (Str("x $ru"), Null(), Int(1)))),
            ("route($var(x));", RouteCall(X)),
            ('route("a_$var(x)");', RouteCall(Format(("a_", X)))),
            ('async(sleep(1), A, 5);', nodes.Async(Call("sleep", (Int(1),)), "A", 5)),
            ('launch(sleep(1));', nodes.Launch(Call("sleep", (Int(1),)))),
            ('launch(sleep(1), A, "x $var(x)");',
             nodes.Launch(Call("sleep", (Int(1),)), "A", Format(("x ", X)))),
            ('assert($var(x), "no");', nodes.Assert(Truth(X), "no")),
            ('error("a", "b");', nodes.Error("a", "b")),
        ]
        for text, expected in table:
            self.assertEqual(statement(text), expected, text)

    def test_logging(self):
        """xlog joins strings and knows levels by name or from a variable; log takes numbers."""
        table = [
            ('xlog("a $var(x)" "b");', Xlog(Format(("a ", X, "b")))),
            ('xlog("L_ERR", "a");', Xlog(Format(("a",)), -1)),
            ('xlog("L_ALERT", "a");', Xlog(Format(("a",)), -3)),
            ('xlog("L_DBG", "a");', Xlog(Format(("a",)), 4)),
            ('xlog("$var(x)", "a");', Xlog(Format(("a",)), X)),
            ('xdbg("a");', Xlog(Format(("a",)), 4)),
            ('log("a $ru");', Log("a $ru")),
            ('log(-1, "a");', Log("a", -1)),
        ]
        for text, expected in table:
            self.assertEqual(statement(text), expected, text)

    def test_blocks(self):
        """Bodies are blocks, single statements or nothing."""
        yes, done = Truth(X), (Exit(),)
        table = [
            ("if ($var(x)) exit;", If(yes, done)),
            ("if ($var(x)) { exit; } else { drop; }", If(yes, done, (nodes.Drop(),))),
            ("if ($var(x)) exit; else if ($var(a)) exit;", If(yes, done, (If(Truth(A), done),))),
            ("if ($var(x)) {};", If(yes, ())),
            ("if ($var(x)) ;", If(yes, ())),
            ("while ($var(x)) { break; }", nodes.While(yes, (Break(),))),
            ("while (1) if ($var(x)) break;", nodes.While(Truth(Int(1)), (If(yes, (Break(),)),))),
            ("for ($var(x) in $(avp(y)[*])) exit;", nodes.For(X, Variable("avp", "y", "*"), done)),
            ('switch ($var(x)) { case 1: case "a": exit; break; default: exit; }',
             Switch(X, (Case(Int(1), ()), Case(Str("a"), (Exit(), Break()))), done)),
            ("switch ($var(x)) { case -1: }", Switch(X, (Case(Int(-1), ()),))),
        ]
        for text, expected in table:
            self.assertEqual(statement(text), expected, text)

    def test_leaving(self):
        """return takes a code and values."""
        table = [
            ("return;", Return()), ("return();", Return()), ("return 2;", Return(Int(2))), ("return -1;", Return(Int(-1))),
            ("return $var(x);", Return(X)), ("return(-1);", Return(Int(-1))),
            ('return(1, "a $ru", NULL);', Return(Int(1), (Str("a $ru"), Null()))),
            ('return(,"a");', Return(None, (Str("a"),))), ("exit;", Exit()), ("exit();", Exit()), ("drop;", nodes.Drop()),
        ]
        for text, expected in table:
            self.assertEqual(statement(text), expected, text)

    def test_nothing(self):
        """Empty statements leave nothing."""
        self.assertEqual(statements(";; exit;; "), (Exit(),))


class DefinitionTests(SynchronousTestCase):
    """What stands outside of routes."""

    def item(self, text: str) -> nodes.Item:
        (found,) = parse(text).items
        return found

    def test_settings(self):
        """Globals take numbers, strings, words and hosts; second spellings become the first."""
        table = [
            ("log_level=-1", Setting("log_level", -1)), ("check_via=yes", Setting("check_via", 1)),
            ('db_default_url="x"', Setting("db_default_url", "x")), ("wdir=tmp", Setting("workdir", "tmp")),
            ("advertised_address=sip.a-b.org", Setting("advertised_address", "sip.a-b.org")),
            ("advertised_address=[::1]", Setting("advertised_address", "::1")),
            ("tos=IPTOS_LOWDELAY", Setting("tos", "IPTOS_LOWDELAY")),
            ("udp_workers=4 use_auto_scaling_profile P", Setting("udp_workers", 4, "P")),
            ('mem-group = "g": "a" "b"', nodes.MemGroup("g", ("a", "b"))),
        ]
        for text, expected in table:
            self.assertEqual(self.item(text), expected, text)
        self.assertEqual(parse('mpath="a":"b"').settings, (Setting("mpath", "a"), Setting("mpath", "b")))

    def test_sockets(self):
        """A socket has a protocol, a host, ports and options in any order."""
        table = [
            ("udp:127.0.0.1:5060", Socket("udp", "127.0.0.1", ((5060, 5060),))),
            ("udp:*", Socket("udp", "*")), ("UDP:eth0", Socket("udp", "eth0")),
            ('tcp:"a.b":5060', Socket("tcp", "a.b", ((5060, 5060),))),
            ("tls:[::1]:5061", Socket("tls", "::1", ((5061, 5061),))),
            ("udp:a:1-3,7", Socket("udp", "a", ((1, 3), (7, 7)))),
            ("udp:a as sip.b-c.org:5070 use_workers 3 tos 16 tag x_1 anycast frag",
             Socket("udp", "a", (), "sip.b-c.org", 5070, 3, 16, "x_1", "", frozenset(("anycast", "frag")))),
            ("hep_udp:a use_auto_scaling_profile P reuse_port as 1.2.3.4",
             Socket("hep_udp", "a", (), "1.2.3.4", 0, 0, None, "", "P", frozenset(("reuse_port",)))),
        ]
        for text, expected in table:
            self.assertEqual(self.item(f"socket = {text}"), expected, text)
        self.assertEqual(self.item('socket = bond:B {"udp:a:1", "udp:b:2"}'), Bond("B", ("udp:a:1", "udp:b:2")))

    def test_two_sockets(self):
        """A socket ends where the next global begins."""
        found = parse("socket=udp:a:1 socket=udp:b\ntag=1").items
        self.assertEqual(found, (Socket("udp", "a", ((1, 1),)), Socket("udp", "b"), Setting("tag", 1)))

    def test_listen(self):
        """listen, of old releases, is a socket with a hint."""
        parsed = read("listen=udp:[::1]:5060\nlisten=1.2.3.4:5062")
        self.assertEqual(
            parsed.config.sockets,
            (Socket("udp", "::1", ((5060, 5060),)), Socket("udp", "1.2.3.4", ((5062, 5062),))),
        )
        self.assertEqual(
            [w.hint for w in parsed.warnings],
            ["write socket = udp:[::1]:5060", "write socket = udp:1.2.3.4:5062"],
        )

    def test_aliases(self):
        """Aliases are a list; a string may hold a whole one."""
        found = parse(
            'alias=udp:a.b:5060 c.d accept_subdomain any:1.2.3.4 "e.f" "tcp:g.h:5061" [::1]\nauto_aliases=no'
        )
        expected = (
            Alias("udp", "a.b", 5060), Alias("", "c.d", 0, True), Alias("", "1.2.3.4"), Alias("", "e.f"),
            Alias("tcp", "g.h", 5061), Alias("", "::1"),
        )
        self.assertEqual(found.aliases, expected)
        self.assertEqual(found.settings, (Setting("auto_aliases", 0),))

    def test_blacklists(self):
        """Rules are networks, alone or with protocol, port and pattern."""
        net = ip_network("10.0.0.0/8")
        table = [
            ("a", Blacklist("a")),
            ("a/expire,default", Blacklist("a", frozenset(("expire", "default")))),
            ("a:{10.0.0.0/8, !10.0.0.0/8}", Blacklist("a", frozenset(), (
                BlacklistRule(net), BlacklistRule(net, exception=True)))),
            ('a/readonly:{!(tcp, 10.0.0.0/255.0.0.0, 5060, "x*")}', Blacklist("a", frozenset(("readonly",)), (
                BlacklistRule(net, "tcp", 5060, "x*", True),))),
            ("a:{(any, 10.0.0.0/8, any), (10.0.0.0/8)}", Blacklist("a", frozenset(), (
                BlacklistRule(net), BlacklistRule(net)))),
        ]
        for text, expected in table:
            self.assertEqual(self.item(f"dst_blacklist = {text}"), expected, text)

    def test_scaling(self):
        """A profile says when to scale up, and perhaps when to scale down."""
        up = ScalingRule(10, 80, 4, 5)
        down = ScalingRule(2, 20, 10, 10)
        text = "auto_scaling_profile = P scale up to 10 on 80% for 4 cycles within 5"
        self.assertEqual(self.item(text), ScalingProfile("P", up))
        self.assertEqual(self.item(text + "\nscale down to 2 on 20% for 10 cycles"), ScalingProfile("P", up, down))

    def test_modules(self):
        """Modules are named by their file; the value of a parameter may come in pieces."""
        table = [
            ('loadmodule "tm.so"', LoadModule("tm", "tm.so")),
            ("loadmodule '/usr/lib/rtp.io.so'", LoadModule("rtp.io", "/usr/lib/rtp.io.so")),
            ('loadmodule "tm"', LoadModule("tm", "tm")),
            ('modparam("a|b", "c", "d" "e")', ModParam("a|b", "c", Str("de"))),
            ('modparam("a", "c", -5)', ModParam("a", "c", Int(-5))),
        ]
        for text, expected in table:
            self.assertEqual(self.item(text), expected, text)

    def test_routes(self):
        """Each kind of block, with and without a name."""
        body = (Exit(),)
        table = [
            ("route", RouteKind.REQUEST, "0", 0), ("route[a]", RouteKind.REQUEST, "a", 0),
            ("route[on]", RouteKind.REQUEST, "1", 0), ('route["a-b"]', RouteKind.REQUEST, "a-b", 0),
            ("route[0x10]", RouteKind.REQUEST, "16", 0), ("branch_route[b]", RouteKind.BRANCH, "b", 0),
            ("failure_route[1]", RouteKind.FAILURE, "1", 0), ("onreply_route", RouteKind.ONREPLY, "0", 0),
            ("onreply_route[r]", RouteKind.ONREPLY, "r", 0), ("local_route", RouteKind.LOCAL, "", 0),
            ("error_route", RouteKind.ERROR, "", 0), ("startup_route", RouteKind.STARTUP, "", 0),
            ("timer_route[t, 60]", RouteKind.TIMER, "t", 60), ("event_route[E_X]", RouteKind.EVENT, "E_X", 0),
        ]
        for text, kind, name, interval in table:
            self.assertEqual(self.item(f"{text} {{ exit; }}"), Route(kind, name, body, interval), text)


class FaultTests(SynchronousTestCase):
    """All faults of a file come out of one reading, each at its place, with a guess."""

    def test_all_at_once(self):
        """A fault does not hide the next, in any construct."""
        text = """log_levl 3
route {
    exit
    if (method=="INVITE") { foo; }
    $var(x) = ;
    while ($rU {
        xlog(L_ERR, "a");
        break;
    }
    f("a" "b");
    switch ($rU) { case foo: exit; case 1: $var(x); }
    ok();
}
}
failure_route { exit; }
route[x] { break; }
"""
        self.assertEqual(
            [(line, column) for line, column, _ in faults(text)],
            [(1, 1), (3, 9), (4, 9), (4, 29), (5, 15), (6, 15), (7, 14), (10, 11), (11, 25), (11, 51), (14, 1),
             (15, 15), (16, 12)],
        )

    def test_missing_semicolon(self):
        """The place of a missing `;` is where it should stand, and reading goes on."""
        text = "route {\n  exit\n  f()\n  $var(x) = 1\n  g();\n}\n"
        expected = [
            (2, 7, "`;` is missing after `exit`"), (3, 6, "`;` is missing after `)`"),
            (4, 14, "`;` is missing after `1`"),
        ]
        self.assertEqual(faults(text), expected)

    def test_missing_brace(self):
        """A block without end is told at its `{`, and the next route is still read."""
        parsed = read("route {\n  if ($rU) {\n    exit;\n}\nroute[a] { exit; }\n")
        self.assertEqual([(e.line, e.column) for e in parsed.errors], [(1, 7)])
        self.assertEqual([r.name for r in parsed.config.routes], ["0", "a"])

    def test_missing_quote(self):
        """A string over several lines is suspected when what follows makes no sense."""
        (first, *_) = read('route {\n  xlog("a);\n  exit;\n  xlog("b");\n}\n').errors
        self.assertIn("line 2", first.hint)

    def test_hints(self):
        """Guesses at what was meant."""
        table = [
            ("exti;", "did you mean `exit`?"), ("t_relay;", "t_relay()"), ("foo = 1;", "$var(foo)"),
            ("if (1) exit; elseif ($rU) exit;", "else if"), ("$x = $avp(y)[0];", "$(avp(y)[...])"),
            ('$x = "a" . "b";', "`+`"), ('$x = "a" "b";', "`+`"), ("$x = $a && $b;", "conditions"),
            ("$x = 1.5;", "fraction"), ("$x = -$y;", "0 - $var(x)"), ("$x = !$y;", "compare"),
            ("f(a);", '"a"'), ("f(udp:1.2.3.4:5);", '"udp:1.2.3.4:5"'), ("f(g());", "$var first"),
            ("f(NULL);", "empty"), ("f(1+1);", "$var first"), ('f("a" "b");', "comma"),
            ('xlog("ERR", "a");', "L_ERR"), ("xlog($rU);", '"$rU'), ("if ($a + 1) exit;", "[ $var(x) + 1 ]"),
            ("if ($a == $b + 1) exit;", "$var first"), ('if ("a" == $b) exit;', "left"), ("if ($a & $b) exit;", "["),
            ("if $rU exit;", "if (...)"), ("switch (f()) { case 1: exit; }", "$var first"), ("else exit;", "`;`"),
            ("if ($rU) {exit;}; else exit;", "`;`"), ("{ exit; }", "block"), ("return a;", "$var"),
            ("for ($ru in $(avp(x)[*])) exit;", "$var(...)"), ("for ($var(x) in $avp(y)) exit;", "[*]"),
            ("route(A,,1);", "NULL"), ('async(xlog("a"), B);', ""), ("$x == 1;", "if (...)"),
        ]
        for text, part in table:
            errors = read(f"route {{ ; {text} }}").errors
            self.assertNotEqual(errors, [], text)
            self.assertIn(part, errors[0].hint, text)
        top = [
            ("loadmodule tm.so", '"tm.so"'), ("log_levl=1;", "no"), ("request_route { exit; }", "`route`"),
            ("failureroute[x] { exit; }", "failure_route"), ('socket="udp:a:1"', "udp:a:1"), ("socket=1.2.3.4", "udp:1.2.3.4"),
            ("socket=upd:1.2.3.4", "udp"), ("xlog(\"a\");", "inside a route"), ("route[a.b] { exit; }", "quotes"),
            ("server_header=x", '"x"'), ('syslog_facility="LOG_LOCAL0"', "quotes"), ('tos="16"', "quotes"),
            ("timer_route[a] { exit; }", "timer_route[a, 60]"), ("error_route[x] { exit; }", "error_route {"),
        ]
        for text, part in top:
            errors = read(f"{text}\n").errors
            self.assertNotEqual(errors, [], text)
            self.assertTrue(any(part in e.hint for e in errors), f"{text}: {[e.hint for e in errors]}")

    def test_picture(self):
        """An error shows its line, a caret and the guess."""
        error = self.assertRaises(ScriptErrors, parse, "route {\n\texti;\n}\n", "a.cfg").errors[0]
        expected = (
            "a.cfg:2:2: the bare word `exti` is no statement\n     exti;\n     ^\n    hint: did you mean `exit`?"
        )
        self.assertEqual(error.render(), expected)

    def test_places(self):
        """Nodes know where they begin."""
        (route,) = parse('route {\n  if ($rU == "a")\n    f($(ru{uri.user}));\n}\n').routes
        found = {type(n).__name__: (n.pos.line, n.pos.column) for n in nodes.walk(route)}
        self.assertEqual(found["If"], (2, 3))
        self.assertEqual(found["Compare"], (2, 7))
        self.assertEqual(found["Call"], (3, 5))
        self.assertEqual(found["Transformation"], (3, 11))
        self.assertEqual((route.end.line, route.end.column), (4, 1))

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.lists(st.sampled_from(
        'if else while for switch case default break return exit route async xlog ( ) { } [ ] ; , : = == && ! + - 1 '
        '"a" $ru $(avp(x)[*]) $var(x) NULL 10.0.0.1 in A socket udp loadmodule modparam failure_route'.split()
    ), max_size=30))
    def test_any_tokens(self, words):
        """Any heap of words gives a tree and errors, and nothing else."""
        for text in (" ".join(words), "route { " + " ".join(words), "route { if (" + " ".join(words) + "\n}"):
            read(text)

    def test_speed(self):
        """900 lines are read whole, in some 10 ms (printed, for the eye)."""
        block = 'if (is_method("INVITE|BYE") && $rU =~ "^[0-9]+$") {\n  xlog("L_INFO", "x $ru $(hdr(X)[0]{s.len})\\n");\n' \
                '  $var(a) = $var(b) + 1 * 2;\n  send_reply(404, "Not Found");\n  exit;\n}\n'
        text = "route {\n" + block * 150 + "}\n"
        start = time.process_time()
        config = parse(text)
        print(f"\n900 lines parsed in {(time.process_time() - start) * 1000:.1f} ms")
        self.assertEqual(len(config.routes[0].body), 150)
