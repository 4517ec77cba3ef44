"""Compiled scripts do what the real binary does: tables of small scripts and what they log."""

# ruff: noqa: E501 - a row of the table is one script and what it logs

from __future__ import annotations

import traceback
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.exports import listed
from sipgw.script.compiler import compile_format, compile_variable
from sipgw.script.errors import ScriptError, ScriptErrors
from sipgw.script.preprocess import flatten
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP, EXIT

from .rig import Script, finish, output, symbols

#: body, further blocks, what it logs
SCRIPTS: list[tuple[str, str, list[str]]] = [
    # conditions
    ('if ($var(x) == NULL) xlog("null"); else xlog("set");', "", ["null"]),
    ('$var(s) = "5"; if ($var(s) == 5) xlog("T"); else xlog("F");', "", ["F"]),
    ('$var(s) = "5"; if (!($var(s) == 5)) xlog("T"); else xlog("F");', "", ["F"]),
    ('$var(s) = "5"; if ($var(s) == 5 || 1) xlog("T"); else xlog("F");', "", ["F"]),
    ('$var(s) = "5"; if ($var(s) == 5 || good("asked")) xlog("T"); else xlog("F");', "", ["F"]),
    ('$var(s) = "5"; if ($var(s) == 5 || code(1)) xlog("T"); else xlog("F");', "", ["F"]),
    ('$var(s) = "5"; if (0 || !($var(s) == 5) && 1) xlog("T"); else xlog("F");', "", ["F"]),
    ('if (1 || good("not asked")) xlog("T");', "", ["T"]),
    ('if (0 && code(5)) xlog("T"); else xlog("F");', "", ["F"]),
    ('if (good("a") && code(5) && good("b")) xlog("T");', "", ["a", "b", "T"]),
    ('if (bad() || code(-1) || good("c")) xlog("T");', "", ["c", "T"]),
    ('if (1 || 0 && 0) xlog("T"); else xlog("F");', "", ["F"]),
    ('if ([ $var(x) + 1 ]) xlog("T"); if (![ 5 - 5 ]) xlog("T");', "", ["T"]),
    ('if ($var(x) = 0) xlog("T");', "", ["T"]),
    ('if ($var(x) = "a" + 1) xlog("T"); else xlog("F");', "", ["F"]),
    ('if ($rU = "") xlog("T $ru"); if ($ru = "junk") xlog("T"); else xlog("F");', "", ["T sip:example.com:5070;user=phone", "F"]),
    ('if ($rm == "invite" and not $var(y) or 0) xlog("T");', "", ["T"]),
    ('if ($si == 10.0.0.0/8 && $si != 11.0.0.0/8) xlog("T");', "", ["T"]),
    ('if ($rU =~ "^B" && $rU !~ "^c") xlog("T"); $var(p) = "o."; if ($rU =~ $var(p)) xlog("U");', "", ["T", "U"]),
    ('$var(a) = 5; $var(b) = "5"; if ($var(a) == $var(b) && $var(a) <= $var(b) && $var(b) >= $var(a)) xlog("T");', "", ["T"]),
    ('if (xlog("x") && log("y")) xlog("T");', "", ["x", "T"]),
    # values
    ("$var(x) = 2 + 3 * 4; xlog(\"$var(x)\");", "", ["20"]),
    ('$var(x) = ($rm == "INVITE"); $var(y) = ($var(x) == 2); xlog("$var(x)$var(y)");', "", ["10"]),
    ('$var(x) = "old"; $var(x) = "a" + 1; xlog("$var(x)");', "", ["old"]),
    ('$var(n) = 5; $var(x) = "a" + $var(n); xlog("$var(x)"); $var(x) = ~$var(n); xlog("$var(x)");', "", ["a5", "-6"]),
    ('$var(x) = good("y") + 1; $var(y) = bad() + code(7); xlog("$var(x) $var(y)");', "", ["y", "2 6"]),
    ('$var(x) = 1; $var(y) = $var(x) + route(up); xlog("$var(y)");', "route[up] { $var(x) = 50; return(4); }", ["5"]),
    ('$var(x) = "$ru"; xlog("$var(x)");', "", ["$ru"]),
    ('$var(x) = NULL; $var(y) = ""; xlog("[$var(x)][$var(y)] $$");', "", ["[<null>][] $"]),
    ('$var(x) += 1; xlog("$var(x)"); $var(x) = 5; $var(x) += 1; $var(x) *= 2; xlog("$var(x)");', "", ["<null>", "12"]),
    ('$var(x) = "a"; $var($var(x)) = 3; xlog("$var(a) $var($var(x))");', "", ["3 3"]),
    # transformations
    ('xlog("$(ru{uri.user}) $(ru{s.substr,4,3}{s.toupper}) $(var(none){s.len})");', "", ["bob BOB <null>"]),
    ('$var(n) = 4; xlog("$(ru{s.substr,$var(n),3}) $(ru{s.select,1,:})");', "", ["bob bob@example.com"]),
    ('$var(v) = "Z"; xlog("$(rU{re.subst,/b/$var(v)/g}) $(rU{re.subst,/(.)b$/\\\\1/})");', "", ["ZoZ bo"]),
    ('$var(e) = "/b/X/"; xlog("$(rU{re.subst,$var(e)})");', "", ["Xob"]),
    ('$var(t) = "ru is $ru"; xlog("$(var(t){s.eval})"); $var(t) = "$"; xlog("$(var(t){s.eval})");', "", ["ru is sip:bob@example.com:5070;user=phone", "$"]),
    ('xlog("$(hdr(Contact){nameaddr.1.uri}) $(hdr(Contact){nameaddr.uri})");', "", ["sip:c2@2.2.2.2 sip:c1@1.1.1.1:77"]),
    ('$var(h) = "host"; xlog("$(var(h){ip.resolve})");', "", ["127.0.0.1"]),
    # loops
    ('while ($var(i) < 3 || $var(i) == NULL) { $var(i) = $var(i) + 1; } xlog("$var(i)");', "", ["<null>"]),
    ('$var(i) = 0; while ($var(i) < 3) { $var(i) += 1; if ($var(i) == 2) break; xlog("$var(i)"); }', "", ["1"]),
    ('$var(i) = 0; while (1) { $var(i) += 1; } xlog("$var(i)");', "", ["10000"]),
    ('while (code(1)) { $var(i) = 1; break; } xlog("$var(i)");', "", ["1"]),
    ('for ($var(c) in $(hdr(X-A)[*])) { xlog("$var(c)"); }', "", ["1", "2"]),
    ('$avp(l) = 1; $avp(l) = "b"; for ($avp(i) in $(avp(l)[*])) { xlog("$avp(i)"); }', "", ["b", "1"]),
    ('for ($var(c) in $(ct.fields(uri)[*])) { if ($var(c) =~ "c2") break; xlog("$var(c)"); } xlog("$var(c)");', "", ["sip:c1@1.1.1.1:77", "sip:c2@2.2.2.2"]),
    ('$avp(l) = 1; for ($var(c) in $(avp(l)[*])) { $avp(l) = 1; $var(n) = $var(n) + 1; } xlog("ended");', "", ["ended"]),
    # switch
    ('$var(i) = 2; switch ($var(i)) { case 1: xlog("1"); case 2: xlog("2"); case 3: xlog("3"); break; default: xlog("d"); }', "", ["2", "3"]),
    ('$var(i) = 9; switch ($var(i)) { case 1: xlog("1"); case "9": xlog("nine"); default: xlog("d"); }', "", ["nine", "d"]),
    ('$var(i) = "2"; switch ($var(i)) { case 2: xlog("n"); break; case "2": xlog("s"); break; }', "", ["s"]),
    ('switch ($rm) { case "ACK": case "invite": xlog("both"); break; case "BYE": xlog("bye"); }', "", ["both"]),
    ('switch ($var(none)) { case 1: xlog("1"); break; case "": xlog("empty"); break; default: xlog("d"); }', "", ["d"]),
    ('$var(i) = 1; switch ($var(i)) { case 1: if (1) { break; xlog("a"); } xlog("b"); case 2: xlog("2"); } xlog("e");', "", ["e"]),
    ('$var(i) = 0; while ($var(i) < 3) { $var(i) += 1; switch ($var(i)) { case 2: break; } xlog("$var(i)"); }', "", ["1", "2", "3"]),
    ('switch ($rm) { case "INVITE": case "ACK": default: xlog("d"); }', "", ["d"]),
    # routes
    ('route(a); xlog("on");', "route[a] { xlog(\"a\"); }", ["a", "on"]),
    ('route(a); xlog("on");', "route[a] { route(b); } route[b] { exit; }", []),
    ('route(a); xlog("on");', "route[a] { if (good(\"y\")) drop; }", ["y"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { return(-1); }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { bad(); }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { if ($var(none)) { bad(); } }", ["T"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { if (1) { $var(x) = \"a\" + 1; } }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { switch ($rm) { case \"INVITE\": good(\"y\"); break; } }", ["y", "F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { while (1) { good(\"y\"); break; } }", ["y", "F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { switch ($rm) { case \"INVITE\": bad(); } }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { $ru = \"junk\"; }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { return $var(none); }", ["F"]),
    ('if (!route(a) && route(b)) xlog("T");', "route[a] { return(-5); } route[b] { route(c); } route[c] { return(7); }", ["T"]),
    ('if (route(a)) xlog("T"); xlog("not here");', "route[a] { $var(z) = 0; return $var(z); }", []),
    ('route(a, 1, "two", $rU, NULL); route(a);', 'route[a] { xlog("$param(1) $param(2) $param(3) $param(4) $param(5)"); }', ["1 two bob <null> <null>", "<null> <null> <null> <null> <null>"]),
    ('$var(n) = 2; route(a, "x", "y");', "route[a] { xlog(\"$param($var(n))\"); copy($param(2), $var(o)); xlog(\"$var(o)\"); }", ["y", "y"]),
    ('route(a); xlog("$return(0) $return(1) $return(2)"); route(b); xlog("$return(0)");', 'route[a] { return(1, "x", $rU); } route[b] { return(1); }', ["x bob <null>", "<null>"]),
    ('$var(r) = "a"; route($var(r)); route("$var(r)b"); route("x$var(r)"); xlog("on");', "route[a] { xlog(\"a\"); } route[ab] { xlog(\"ab\"); }", ["a", "ab", "on"]),
    ('$var(d) = 0; route(r); xlog("$var(d)");', "route[r] { $var(d) += 1; route(r); }", ["99"]),
    ('route(a); xlog("$route $(route[*])");', 'route[a] { xlog("$route | $(route[1]) | $(route[*]) | $route.name | $(route.type[1])"); }', ["route[a] | route | route > route[a] | a | route", "route route"]),
    # return codes
    ('bad(); xlog("$rc"); good("y"); xlog("$rc"); code(7); xlog("$retcode"); route(a); xlog("$rc");', "route[a] { return(-3); }", ["-1", "y", "1", "7", "-3"]),
    ('bad(); $var(x) = 1; xlog("$rc"); $var(x) = "a" + 1; xlog("$rc"); $ru = 5; xlog("$rc");', "", ["1", "-1", "-1"]),
    ('if (bad()) { ; } xlog("$rc"); if (1) { ; } xlog("$rc"); if (bad() && 1) { ; } else { xlog("$rc"); }', "", ["0", "1", "-1"]),
    ('if (!code(-9)) { xlog("$rc"); } bad(); if ($var(x) == 1) { ; } xlog("$rc");', "", ["-9", "0"]),
    ('switch ($rm) { case "INVITE": good("y"); break; } xlog("$rc"); bad(); switch ($rm) { case 1: ; } xlog("$rc");', "", ["y", "-5", "1"]),
    ('$var(i) = 0; while ($var(i) < 2) { $var(i) += 1; bad(); } xlog("$rc"); while (1) { break; } xlog("$rc");', "", ["1", "-5"]),
    ('$var(x) = 5; xlog("$rc"); $var(y) = $var(x) + $rc; xlog("$var(y)");', "", ["1", "6"]),
    # functions and their arguments
    ('note("a", 5, "b"); note("a", , "b $rU"); note("x", $ml);', "", ["('a', 5, 'b')", "('a', None, 'b bob')", "('x', 430)"]),
    ('note($var(none)); note("$var(none)"); note($rU, $var(none)); note("on");', "", ["('<null>',)", "('on',)"]),
    ('if (note($var(none))) xlog("T"); else xlog("F"); if (note("")) xlog("T");', "", ["F", "('',)", "T"]),
    ('$var(s) = "5"; code($var(s)); if (code($var(s))) xlog("T"); else xlog("F"); $var(i) = 5; if (code($var(i))) xlog("T");', "", ["F", "T"]),
    ('if (pattern("^AB") && !pattern("^b")) xlog("T"); $var(p) = "c$"; if (pattern($var(p))) xlog("T");', "", ["T", "T"]),
    ('copy($rU, $avp(x)); copy($(rU{s.len}), $var(y)); xlog("$avp(x) $var(y)"); copy($rU, $ru); xlog("$rc");', "", ["bob 3", "-1"]),
    ('$var(n) = "k"; copy($rU, $avp($var(n))); copy($avp(k), $(avp(z)[append])); xlog("$avp(k) $avp(z)");', "", ["bob bob"]),
    ('guarded("a\\r\\n"); $var(x) = "a\\r\\nb"; guarded("X: $var(x)"); guarded($var(x)); $var(x) = "X: 1\\r\\n"; guarded($var(x)); guarded("Y: $rU\\r\\n");', "", ["('a\\r\\n',)", "('X: 1\\r\\n',)", "('Y: bob\\r\\n',)"]),
    ('flagged("one"); flagged("two"); flagged("one"); setflag("two"); xlog("$mf");', "", ["(1,)", "(2,)", "(1,)", "two"]),
    ('slow_set($var(x), "later"); xlog("$var(x)"); if (slow(3)) xlog("T"); $var(y) = slow(4) + 1; xlog("$var(y)");', "", ["later", "T", "5"]),
    ('if (slow_test("x") && !slow_test("")) xlog("T"); code(0); xlog("not here");', "", ["T"]),
    ('if (code(0)) xlog("T"); xlog("not here");', "", []),
    ('$var(n) = "w"; route($var(n), 1); $var(n) = "p"; route($var(n), 2); $var(n) = "no"; if (!route($var(n))) xlog("on");', 'route[w] { slow(1); xlog("w $param(1)"); } route[p] { xlog("p $param(1)"); }', ["w 1", "p 2", "on"]),
    ('$var(d) = 0; route(r); xlog("$var(d)");', "route[r] { slow(1); $var(d) += 1; if ($var(d) < 3) route(r); }", ["3"]),
    ('$var(d) = 0; route(r); xlog("$var(d)");', "route[r] { slow(1); $var(d) += 1; route(r); }", ["99"]),
    ('note($var(none)); xlog("$rc"); note("x"); xlog("$rc"); route(a); xlog("not here");', "route[a] { if (bad()) return(1); exit; }", ["-1", "('x',)", "1"]),
    ('$var(p) = "("; if (pattern($var(p))) xlog("T"); else xlog("F"); if (pattern($var(none))) xlog("T"); else xlog("F");', "", ["F", "F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { note($var(none)); }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', 'route[a] { note("x"); }', ["('x',)", "T"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { code(-2); }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { $var(x) = 5; if (good(\"y\")) { ; } }", ["y", "T"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { for ($var(c) in $(hdr(X-A)[*])) { if ($var(c) == \"2\") break; } }", ["F"]),
    ('if (route(a)) xlog("T"); else xlog("F");', "route[a] { $var(i) = 1; switch ($var(i)) { case 1: good(\"1\"); case 2: good(\"2\"); } }", ["1", "2", "T"]),
    # contexts
    ('xlog("$(<request>rU) $(<request>hdr(X-A)[1]) $(<request>ru{uri.host}) $(<reply>rs)");', "", ["bob 2 example.com <null>"]),
    # logs
    ('xlog("L_DBG", "no"); xlog("L_ALERT", "yes"); xdbg("no"); log(2, "$ru"); log("no"); xlog("a" " b");', "", ["$ru", "a b"]),
    ('$xlog_level = 4; xlog("L_INFO", "i"); xlog("$xlog_level"); $xlog_level = NULL; xlog("L_INFO", "no"); xlog("$xlog_level");', "", ["4", "2"]),
    ('$var(l) = 2; xlog("$var(l)", "two"); $var(l) = 3; xlog("$var(l)", "no"); $var(l) = "L_ERR"; xlog("$var(l)", "no");', "", ["two"]),
    ('error("a", "b"); xlog("$cfg_line $cfg_file");', "", ["1 opensips.cfg"]),
]


class ScriptTests(SynchronousTestCase):
    """Scripts and their output."""

    def test_scripts(self) -> None:
        """Each script logs what the table says."""
        for body, more, expected in SCRIPTS:
            self.assertEqual(output(body, more), expected, body)

    def test_faults_are_located(self) -> None:
        """An error in an expression, a refused assignment, a bad argument and a missing route are logged once, with their line."""
        script = Script(
            'route {\n $var(s) = "a";\n if ($var(s) == 1)\n  exit;\n $var(s) = $var(s) - 1;\n $ru = 5;\n'
            ' code($var(s));\n route("no$var(s)");\n guarded("X: $(var(none))\n");\n}'
        )
        script.request()
        lines = [text.rpartition(":")[2] for text in script.server.faults]
        self.assertEqual(lines, ["3", "5", "6", "7", "8"])
        self.assertIn("opensips.cfg", script.server.faults[0])

    def test_results(self) -> None:
        """A top route gives a number, EXIT or DROP."""
        for body, expected in [
            ("$var(x) = 1;", 1),
            ("exit;", EXIT),
            ("drop;", DROP),
            ("return(0);", EXIT),
            ("return(5);", 5),
            ("return;", 1),
            ("route(a);", DROP),
            ("if (route(a)) exit;", DROP),
            ("$var(x) = route(a);", DROP),
            ("code(0);", EXIT),
            ("async(slow(1), a);", DROP),
            ("async(slow(1), b);", EXIT),
        ]:
            script = Script(f"route {{ {body} }} route[a] {{ drop; }} route[b] {{ return(3); }}")
            self.assertEqual(script.request(), expected, body)

    def test_colours(self) -> None:
        """Only routes that can reach what waits are coroutines, through any number of calls and names known at run time."""
        script = Script(
            'route { good("x"); route(plain); }'
            "route[plain] { bad(); } route[waits] { slow(1); } route[above] { if (route(waits)) exit; }"
            'route[dynamic] { route("$var(x)"); } route[launches] { launch(slow(1), waits); }'
            "route[resumes] { async(bad(), waits); } route[dns] { $var(x) = $(si{ip.resolve}); }"
            "failure_route[f] { route(above); } branch_route[b] { route(plain); }"
        )
        named = {name: route.waits for name, route in script.routes.named.items()}
        self.assertEqual(
            named,
            {"plain": False, "waits": True, "above": True, "dynamic": True, "launches": False, "resumes": True, "dns": True},
        )
        self.assertTrue(script.routes.failure["f"].waits)
        self.assertFalse(script.routes.branch["b"].waits)
        assert script.routes.request is not None
        self.assertFalse(script.routes.request.waits)

    def test_suspended(self) -> None:
        """A route that waits keeps its place, beside others that run meanwhile."""
        script = Script('route { xlog("before $ci"); slow(1); xlog("after $ci"); }')
        assert script.routes.request is not None
        one, other = (script.routes.request.function(script.run()) for _ in range(2))
        one.send(None)
        other.send(None)
        finish(other)
        finish(one)
        self.assertEqual(script.server.out, ["before cid@x"] * 2 + ["after cid@x"] * 2)

    def test_async(self) -> None:
        """``async`` goes on in the resume route with the code of the call, and the script ends there."""
        script = Script(
            'route { async(slow(7), r, 5); xlog("not here"); } route[r] { xlog("rc $rc $var(x)"); }'
        )
        script.request()
        self.assertEqual(script.server.out, ["rc 7 <null>"])

    def test_async_without_waiting(self) -> None:
        """A function that does not wait is called as it is."""
        script = Script('route { async(bad(), r); xlog("not here"); } route[r] { xlog("rc $rc"); return(5); }')
        self.assertIs(script.request(), EXIT)
        self.assertEqual(script.server.out, ["rc -1"])

    def test_launch(self) -> None:
        """``launch`` runs beside the script on a run of its own; its report route sees what it set, and a parameter."""
        script = Script(
            'route { $avp(a) = "old"; launch(slow_set($avp(a), "new"), report, "p $rU"); xlog("on"); launch(bad()); }'
            'route[report] { xlog("report $param(1) $avp(a) $rc"); }'
        )
        run = script.run()
        script.request(run)
        self.assertEqual(script.server.out, ["on"])
        for coroutine in script.server.launched:
            finish(coroutine)
        self.assertEqual(script.server.out, ["on", "report p bob new 1"])
        self.assertEqual(run.avps, {"a": ["old"]})

    def test_timeout(self) -> None:
        """A call that ``async`` does not wait for any longer leaves the code -2."""
        script = Script('route { async(slow(7), r, 1); } route[r] { xlog("rc $rc"); }')

        async def within(seconds: float, coroutine: Any) -> Any:
            coroutine.close()
            raise TimeoutError

        script.server.within = within  # type: ignore[method-assign]
        script.request()
        self.assertEqual(script.server.out, ["rc -2"])

    def test_assert(self) -> None:
        """A failed assert runs the error route and ends the script; without ``enable_asserts`` nothing is asked."""
        text = 'route { assert($rm == "BYE", "a BYE"); xlog("on"); } error_route { xlog("$err.class $err.level $err.info $err.rcode $err.rreason"); }'
        for setting, expected in [("enable_asserts = yes", ["4 1 assertion failed 500 server error"]), ("", ["on"])]:
            script = Script(f"{setting}\n{text}")
            script.request()
            self.assertEqual(script.server.out, expected)

    def test_settings(self) -> None:
        """``max_while_loops`` and ``xlog_print_level`` are taken from the configuration."""
        script = Script('max_while_loops = 3\nxlog_print_level = 1\nroute { while (1) { $var(i) = $var(i) + 1; $avp(n) = 1; } xlog("x"); }')
        run = script.run()
        script.request(run)
        self.assertEqual(run.avps["n"], [1, 1, 1])
        self.assertIn((1, "x"), script.server.lines)

    def test_levels_guard(self) -> None:
        """What is not logged is not even put together."""
        script = Script('route { xlog("L_INFO", "$hdr(X-A)"); }')
        run = script.run()
        run.message = None  # type: ignore[assignment]
        self.assertEqual(script.request(run), 1)

    def test_every_kind(self) -> None:
        """Each kind of route is found where the transaction user looks for it."""
        kinds = (
            "route { exit; } route[a] { exit; } branch_route[b] { exit; } failure_route[f] { exit; } onreply_route { exit; }"
            "onreply_route[r] { exit; } local_route { exit; } error_route { exit; } startup_route { exit; }"
            'timer_route[t, 30] { exit; } event_route[E_X] { xlog("$param(1) $param(name)"); }'
        )
        routes = Script(kinds).routes
        for route, kind in [
            (routes.request, RouteKind.REQUEST),
            (routes.named["a"], RouteKind.REQUEST),
            (routes.branch["b"], RouteKind.BRANCH),
            (routes.failure["f"], RouteKind.FAILURE),
            (routes.default_onreply, RouteKind.ONREPLY),
            (routes.onreply["r"], RouteKind.ONREPLY),
            (routes.local, RouteKind.LOCAL),
            (routes.error, RouteKind.ERROR),
            (routes.startup, RouteKind.STARTUP),
            (routes.timers[0], RouteKind.TIMER),
            (routes.events["E_X"], RouteKind.EVENT),
        ]:
            assert route is not None
            self.assertIs(route.kind, kind)
        self.assertEqual(routes.timers[0].interval, 30)

    def test_event_parameters(self) -> None:
        """An event route reads its parameters by name and by number."""
        script = Script('route { exit; } event_route[E_X] { xlog("$param(1) $param(name) $param(no) $param(3)"); }')
        run = script.run(kind=RouteKind.EVENT)
        run.params = {"first": 1, "name": "n"}  # type: ignore[assignment]
        script.routes.events["E_X"].function(run)
        self.assertEqual(script.server.out, ["1 n <null> <null>"])

    def test_tracebacks(self) -> None:
        """A bug of a module shows the line of the cfg it was called from."""
        script = Script('route {\n route(deep);\n}\nroute[deep] {\n if ($rm == "INVITE") {\n  boom();\n }\n}')
        try:
            script.request()
        except RuntimeError as error:
            frames = [(f.filename, f.lineno, f.name) for f in traceback.extract_tb(error.__traceback__)]
        self.assertEqual([f for f in frames if f[0] == "opensips.cfg"], [("opensips.cfg", 2, "request_route"), ("opensips.cfg", 6, "deep")])

    def test_refused(self) -> None:
        """What cannot be compiled is a ScriptError that says where; all faults come at once."""
        for body in [
            'if ($rU =~ "(") exit;',
            'pattern("*");',
            "$rm = 5;",
            "$(ru{s.len}) = 5;",
            "for ($var(x) in $(ru[*])) exit;",
            'xlog("$(ru{re.subst,/a/b})");',
            'xlog("$(ru{s.nothing})");',
            'xlog("$(ru{s.substr,1})");',
            'xlog("$nothing");',
            'xlog("$(ru[1])");',
            "route(nowhere);",
            "unknown();",
            "launch(bad(), nowhere);",
            *[" ".join(f'flagged("f{n}");' for n in range(40))],
        ]:
            self.assertRaises((ScriptErrors, ScriptError), Script, f"route {{ {body} }}")
        with self.assertRaises(ScriptErrors) as caught:
            Script("route {\n unknown();\n}\nroute[a] {\n\n unknown();\n}")
        self.assertEqual([error.line for error in caught.exception.errors], [2, 6])


    def test_deep(self) -> None:
        """Nesting that a configuration may have is compiled; what Python cannot take is a ScriptError."""
        for body in [
            "if ($rU) { " * 90 + "exit;" + "}" * 90,
            " else ".join(f'if ($rU == "{n}") {{ exit; }}' for n in range(300)),
            "if (" + " && ".join(f'$rU != "{n}"' for n in range(200)) + ") exit;",
            "if (" + "(" * 80 + "1" + ")" * 80 + ") exit;",
            "while (1) { " * 19 + "exit;" + "}" * 19,
        ]:
            self.assertIn(Script(f"route {{ {body} }}").request(), (1, EXIT))
        for body in ["$var(x) = " + " + ".join(["1"] * 2000) + ";", "while (1) { " * 25 + "exit;" + "}" * 25]:
            with self.assertRaises(ScriptErrors) as caught:
                Script(f"route {{\n\n{body} }}")
            self.assertIn("too deep", str(caught.exception))

    def test_included(self) -> None:
        """A route belongs to the file it stands in; what is included inside of it has the line before the include."""
        files = {
            "main.cfg": 'route {\n bad();\n include_file "part.cfg"\n boom();\n}\ninclude_file "more.cfg"\n',
            "part.cfg": "\n\n\n\n boom();\n",
            "more.cfg": "\n\nroute[more] {\n boom();\n}\n",
        }
        script = Script(flatten("main.cfg", lambda name: files[name]))
        self.assertEqual((script.routes.named["more"].file, script.routes.named["more"].line), ("more.cfg", 3))
        assert script.routes.request is not None
        for route, expected in [(script.routes.request, ("main.cfg", 2)), (script.routes.named["more"], ("more.cfg", 4))]:
            try:
                finish(route.function(script.run()))
            except RuntimeError as error:
                frame = traceback.extract_tb(error.__traceback__)[1]
            self.assertEqual((frame.filename, frame.lineno), expected)


class ExpressionTests(SynchronousTestCase):
    """What modules compile for themselves."""

    def test_format(self) -> None:
        """A text with variables becomes a function of the run."""
        script = Script("route { exit; }")
        run = script.run()
        run.vars["x"] = 5
        self.assertEqual(compile_format("$rU-$var(x)-$(ru{uri.host})", symbols())(run), "bob-5-example.com")
        self.assertRaises(ScriptError, compile_format, "$nothing", symbols())

    def test_variable(self) -> None:
        """A variable becomes an object that reads and sets it; one that cannot be set refuses."""
        script = Script("route { exit; }")
        run = script.run()
        reference = compile_variable("$avp(x)", symbols())
        reference.set(run, 5)
        self.assertEqual((reference.get(run), run.avps), (5, {"x": [5]}))
        self.assertIs(compile_variable("$rm", symbols()).set(run, "x"), False)
        self.assertEqual(len(script.server.faults), 1)

    def test_values(self) -> None:
        """A variable with many values gives them one by one, transformed; one that has an index has that value alone."""
        script = Script("route { exit; }")
        run = script.run()
        run.avps = {"x": ["a", "b", 3]}
        run.vars["n"] = "x"
        for text, expected in (
            ("$avp(x)", [3, "b", "a"]),
            ("$avp($var(n))", [3, "b", "a"]),
            ("$(avp(x){s.len})", [1, 1, 1]),
            ("$(avp(x)[1])", ["b"]),
            ("$avp(none)", []),
            ("$(hdr(Via){via.host})", ["10.0.0.1"]),
            ("$rU", ["bob"]),
            ("$var(n)", ["x"]),
        ):
            self.assertEqual(listed(compile_variable(text, symbols()), run), expected, text)
