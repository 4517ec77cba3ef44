"""Tests of sipgw.modules.core_trace; the steps of the large script are those that OpenSIPS 4.1 logs."""

from __future__ import annotations

from sipgw.testing import WiredServer
from tests.modules.test_core_events import HEAD, Served

STEPS = r"""
route {
    $avp(l) = 1; $avp(l) = 2;
    script_trace(1, "$rm");
    $var(a) := 1;
    $var(a) += 1; $var(a) -= 1; $var(a) *= 1; $var(a) /= 1; $var(a) %= 2; $var(a) |= 1; $var(a) &= 1; $var(a) ^= 1;
    $var(a) = 0;
    for ($var(i) in $(avp(l)[*])) { $var(c) = $var(i); }
    while ($var(a) < 2) { $var(a) += 1; if ($var(a) == 2) { xlog("x"); break; } else xlog("y"); }
    switch ($var(a)) { case 1: xlog("one"); break; case 2: xlog("two"); break; default: xlog("other"); }
    if (is_myself("x") || route(sub) || $var(a) = 3) { log("l"); }
    $var(z) = route(sub);
    $var(z) = NULL;
    $var(q) = is_myself("y");
    error("a", "b");
    setflag("A");
    script_trace();
    xlog("untraced");
    script_trace(4, "$rm");
    xlog("too much");
    exit;
}
route[sub] { script_trace(1, "$si", "inside"); return(-1); }
"""
WHAT = """assign colon-eq|assign plus-eq|assign minus-eq|assign mult-eq|assign div-eq|assign modulo-eq|assign b-or-eq|
assign b-and-eq|assign b-xor-eq|assign equal|core for-each|
assign equal|assign equal|core while|assign plus-eq|core if|core xlog|assign plus-eq|
core if|core xlog|core break|core switch|core xlog|core break|core if|module is_myself|route sub|module script_trace|
core return|assign equal|core log|route sub|module script_trace|core return|assign equal|assign equal|module is_myself|
assign equal|core error|module setflag|module script_trace""".replace("\n", "").split("|")


class TraceTests(Served):
    """Traced scripts."""

    def traced(self) -> list[str]:
        """The steps logged since the last time, without the mark."""
        mark = "[Script Trace]"
        return [text.removeprefix(mark) for text in self.texts() if text.startswith(mark)]

    def test_steps(self) -> None:
        """Each statement, and each call in a condition, is a line with its place, what it is, and the variables asked for."""
        self.serve(HEAD + STEPS)
        self.texts()
        self.request()
        lines = self.traced()
        self.assertEqual([line.split("[")[-1].partition("]")[0] for line in lines], WHAT)
        self.assertEqual(lines[0], "[opensips.cfg:11][assign colon-eq] -> (OPTIONS)")
        self.assertEqual(lines[28], "[opensips.cfg:29][inside][core return] -> (127.0.0.1)")
        self.assertEqual(lines[-1], "[opensips.cfg:23][inside][module script_trace] -> (127.0.0.1)")

    def test_not_traced(self) -> None:
        """The next message is not traced, nor the other routes of this one; what to log must be given."""
        script = """
        route { if ($rU == "on") { script_trace(1, "$rm"); } script_trace(1); xlog("code $rc"); raise_event("E_X"); exit; }
        event_route[E_X] { xlog("event"); }
        """
        self.serve(HEAD + script)
        self.texts()
        self.request()
        self.clock.advance(0)
        said = self.texts()
        self.assertEqual(said, ['script_trace: what to log is missing: script_trace(1, "$rm")', "code -1", "event"])

    def test_other_kind(self) -> None:
        """A trace that a request's route began is off in its failure route."""
        script = """
        loadmodule "tm.so"
        route { script_trace(1, "$rm"); t_on_failure("f"); $ru = "sip:127.0.0.1:1"; t_relay(); }
        failure_route[f] { xlog("failed"); t_reply(500, "Failed"); }
        """
        self.serve(HEAD + script)
        self.texts()
        self.request()
        self.clock.advance(40)
        lines = self.texts()
        self.assertIn("failed", lines)
        traced = [line.split("[")[-1].partition("]")[0] for line in lines if line.startswith("[Script")]
        self.assertEqual(traced, ["module t_on_failure", "assign equal", "module t_relay"])

    def test_refused(self) -> None:
        """A bad format is refused when the configuration is read; a variable that is none fails the call."""
        refused = self.assertRaises(AssertionError, WiredServer, HEAD + 'route { script_trace(1, "$(ru"); exit; }')
        self.assertIn("pv_format_string of script_trace()", str(refused))
        self.serve(HEAD + 'route { script_trace(1, "$nosuch"); xlog("code $rc"); exit; }')
        self.texts()
        self.request()
        said = self.texts()
        self.assertTrue(said[0].startswith("script_trace: "), said)
        self.assertEqual(said[1:], ["code -1"])

    def test_no_cost(self) -> None:
        """A script without script_trace is compiled without its steps."""
        self.serve(HEAD + "route { xlog(\"x\"); exit; }")
        route = self.user.routes.request
        assert route is not None
        self.assertNotIn("traced", route.function.__code__.co_names)
