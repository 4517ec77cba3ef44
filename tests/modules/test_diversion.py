"""Tests of sipgw.modules.diversion."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.diversion import DiversionModule
from sipgw.script.run import Run
from tests.doubles import request, run_of, written
from tests.modules.scripted import Scripted


def diversions(run: Run) -> list[str]:
    """The Diversion headers of the message as it leaves."""
    return [line.removeprefix("Diversion: ") for line in written(run).split("\r\n") if line.startswith("Diversion: ")]


class DiversionTests(SynchronousTestCase):
    """add_diversion."""

    def setUp(self) -> None:
        """A module."""
        self.module = DiversionModule()

    def run_of(self, more: str = "") -> Run:
        """An INVITE that the script has sent elsewhere."""
        run = run_of(request("INVITE", "sip:bob@sip.example.org", more=more))
        run.uri = "sip:alice@sip.example.org"
        return run

    def test_added(self) -> None:
        """The received Request-URI is the one diverted from; each new one stands above those before."""
        run = self.run_of()
        self.assertTrue(self.module.add_diversion(run, "user-busy"))
        self.assertEqual(diversions(run), ["<sip:bob@sip.example.org>;reason=user-busy"])
        self.assertTrue(self.module.add_diversion(run, "no-answer", "tel:+15551234", 5))
        self.assertTrue(self.module.add_diversion(run, "away", None, 0))
        self.assertEqual(
            diversions(run),
            [
                "<sip:bob@sip.example.org>;reason=away",
                "<tel:+15551234>;reason=no-answer;counter=5",
                "<sip:bob@sip.example.org>;reason=user-busy",
            ],
        )

    def test_on_top(self) -> None:
        """It stands above those that came with the request."""
        run = self.run_of("X: 1\r\nDiversion: <sip:a@b>, <sip:c@d>\r\nDiversion: <sip:e@f>\r\n")
        self.module.add_diversion(run, "one")
        self.module.add_diversion(run, "two")
        self.assertEqual([value[-3:] for value in diversions(run)[:2]], ["two", "one"])
        self.assertEqual(diversions(run)[2:], ["<sip:a@b>, <sip:c@d>", "<sip:e@f>"])

    def test_branches(self) -> None:
        """What a branch adds is seen in that branch alone."""
        run, branch = self.run_of(), self.run_of()
        self.module.add_diversion(run, "one")
        branch.edits = run.edits
        self.module.add_diversion(branch, "two")
        self.assertEqual((len(diversions(run)), len(diversions(branch))), (1, 2))

    def test_reason(self) -> None:
        """A reason that is no token is quoted."""
        for reason, expected in (("user-busy", "user-busy"), ("on leave", '"on leave"'), ('"a b"', '"a b"'), ('a"b', '"a\\"b"')):
            run = self.run_of()
            self.module.add_diversion(run, reason)
            self.assertEqual(diversions(run), [f"<sip:bob@sip.example.org>;reason={expected}"])

    def test_suffix(self) -> None:
        """The suffix stands behind each."""
        self.module.set_parameter("suffix", ";privacy=full")
        run = self.run_of()
        self.module.add_diversion(run, "user-busy", None, 2)
        self.assertEqual(diversions(run), ["<sip:bob@sip.example.org>;reason=user-busy;counter=2;privacy=full"])
        for value in ("privacy", ";a\r\nX: y"):
            self.assertRaises(ValueError, self.module.set_parameter, "suffix", value)

    def test_refused(self) -> None:
        """What is no URI is refused, so that it cannot end the header's brackets."""
        for uri in ("nonsense", "sip:a@b>;x", "sip:"):
            run = self.run_of()
            self.assertFalse(self.module.add_diversion(run, "x", uri), uri)
            self.assertFalse(run.edits)

    def test_script(self) -> None:
        """No variable can begin a new header."""
        lines = Scripted('$var(x) = "a\\r\\nX: y"; if (!add_diversion($var(x))) xlog("L_ALERT", "$rc");', "diversion").send()
        self.assertEqual((len(lines), lines[-1]), (2, "-1"))
