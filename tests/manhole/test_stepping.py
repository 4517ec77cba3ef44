"""Tests of step and breakpoint: lines are shown, one message stands while others pass."""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.manhole.stepping import PATIENCE, Stepper
from sipgw.manhole.trace import Conditions
from sipgw.manhole.views import all_routes
from sipgw.script.run import Run
from tests.modules.scripted import Scripted, request

BODY = """
    $var(x) = 1;
    route(second);
    xlog("L_ALERT", "$var(x) $ru $rm");
    sl_send_reply(200, "OK");
"""
REST = """
route[second] {
    if ($rU == "bob")
        $var(x) = $var(x) + 1;
    $avp(name) = "value";
    append_hf("X: y\\r\\n");
}
"""


class StepTests(SynchronousTestCase):
    """A server on a wire, and what is shown."""

    def setUp(self) -> None:
        self.make()

    def make(self, body: str = BODY, *modules: str) -> None:
        """A server with that script."""
        self.scripted = Scripted(body, "sipmsgops", *modules, rest=REST)
        server: Any = self.scripted.server
        self.user = server.user
        self.shown: list[str] = []
        self.stepper = Stepper(
            self.user, self.scripted.clock, lambda: server.symbols, lambda: {each.file for each in all_routes(self.user.routes)}
        )
        self.file = self.user.routes.request.file

    def watch(self, line: int | None = None, **conditions: Any) -> Any:
        """Step, or stop at a line."""
        chosen = Conditions(**conditions)

        def fits(run: Run) -> bool:
            return chosen.fit(run.message, "" if run.flow is None else run.flow.host)

        made = self.stepper.watch(fits, self.shown.append, None if line is None else (self.file, line), str(chosen))
        self.addCleanup(made.stop)
        return made

    def other(self, number: int) -> list[str]:
        """A request of somebody else."""
        data = request(call_id=f"other{number}", branch=f"other{number}").replace(b"sip:alice@", b"sip:carol@")
        return self.scripted.send(data)

    def test_step(self) -> None:
        """Each line is shown, in called routes too, with what it changed; others are not shown; afterwards nobody is."""
        watch = self.watch(caller="alice")
        self.assertEqual(self.scripted.send(), ["2 sip:bob@127.0.0.1 OPTIONS"])
        text = "\n".join(self.shown)
        for expected in ("$var(x) = 1", "$var(x) = 2   (was 1)", '$avp(name) = ["value"]', "the headers or the body are changed"):
            self.assertIn(expected, text)
        lines = [int(re.findall(r":(\d+):", each)[0]) for each in self.shown if not each.startswith(" ")]
        self.assertGreaterEqual(len(lines), 7)
        self.assertEqual(len(set(lines)), len(lines))
        self.shown.clear()
        self.other(1)
        self.assertEqual(self.shown, [])
        watch.stop()
        self.scripted.send(request(branch="two"))
        self.assertEqual(self.shown, [])
        self.assertNotIn("execute", vars(self.user))

    def test_breakpoint(self) -> None:
        """One message stands while 100 others pass; its variables are read and changed; then it goes on."""
        watch = self.watch(self.user.routes.named["second"].line + 1, caller="alice")
        self.assertEqual(self.scripted.send(), [])
        [stopped] = self.stepper.stopped
        for number in range(100):
            self.assertEqual(len(self.other(number)), 1)
        self.assertEqual(self.scripted.send(), [], "it is only once, and has a transaction by now")
        self.assertEqual(self.stepper.stopped, [stopped])
        self.assertEqual((stopped["$var(x)"], stopped["$ru"], stopped["$rm"]), (1, "sip:bob@127.0.0.1", "OPTIONS"))
        stopped["$var(x)"] = 40
        stopped["$ru"] = "sip:bob@192.0.2.7"
        with self.assertRaises(KeyError):
            stopped["$nosuch"]
        stopped.go()
        self.assertEqual(self.scripted.logged(), ["41 sip:bob@192.0.2.7 OPTIONS"])
        self.assertEqual(self.stepper.stopped, [])
        with self.assertRaises(ValueError):
            stopped.go()
        self.assertIn("1 so far", repr(watch))

    def test_next(self) -> None:
        """It goes line by line, if one wants."""
        first = self.user.routes.named["second"].line + 1
        self.watch(first)
        self.scripted.send()
        lines = []
        while self.stepper.stopped:
            lines.append(self.stepper.stopped[0].line)
            self.stepper.stopped[0].next()
        self.assertEqual(lines[:4], [first, first + 1, first + 2, first + 3])
        self.assertEqual(self.scripted.logged(), ["2 sip:bob@127.0.0.1 OPTIONS"])

    def test_patience(self) -> None:
        """What nobody looks at goes on by itself, and so does what is stopped when its watch ends."""
        watch = self.watch(self.user.routes.request.line + 2)
        self.scripted.send()
        self.assertEqual(len(self.stepper.stopped), 1)
        self.scripted.clock.advance(PATIENCE + 1)
        self.assertEqual(len(self.scripted.logged()), 1)
        self.scripted.send(request(branch="two", call_id="two"))
        self.assertEqual(len(self.stepper.stopped), 1)
        watch.stop()
        self.assertEqual((self.stepper.stopped, len(self.scripted.logged())), ([], 1))

    def test_fault(self) -> None:
        """A route that breaks while it is looked at breaks as ever; a condition that breaks is not asked again."""
        self.watch(where=lambda message: message.nosuch)
        self.assertEqual(self.scripted.send(), ["2 sip:bob@127.0.0.1 OPTIONS"])
        self.assertIn("AttributeError", self.shown[0])
        self.assertEqual(self.stepper.watches, [])
        self.watch()
        self.user.routes.request.function = lambda run: 1 // 0
        [line] = self.scripted.send(request(branch="two"))
        self.assertIn("ZeroDivisionError", line)

    def test_waiting(self) -> None:
        """A route that waits is looked at across its waiting."""
        self.make('$var(x) = 5; async(usleep(100000), after); } route[after] { xlog("L_ALERT", "after $var(x)");', "cfgutils")
        self.watch()
        self.assertEqual(self.scripted.send(), [])
        before = len(self.shown)
        self.scripted.clock.advance(1)
        self.assertEqual(self.scripted.logged(), ["after 5"])
        self.assertGreater(len(self.shown), before)

    def test_no_line(self) -> None:
        """A breakpoint where nothing is done is refused; what is said instead can be stopped at."""
        for line in (1000, -5):
            with self.assertRaisesRegex(ValueError, "nothing is done at line") as caught:
                self.watch(line)
            self.watch(int(str(caught.exception).rpartition(" ")[2]))

    def test_no_file(self) -> None:
        """A breakpoint in no file of the script is refused."""
        with self.assertRaisesRegex(ValueError, "is no file of the script"):
            self.stepper.watch(lambda run: True, self.shown.append, ("nosuch.cfg", 1), "")
        self.assertFalse(os.path.exists("nosuch.cfg"))
