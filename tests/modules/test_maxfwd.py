"""Tests of sipgw.modules.maxfwd, with the values that OpenSIPS gives for the same messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.maxfwd import Maxfwd
from sipgw.script.run import Run
from tests.doubles import HEAD, changes, request, run_of


def run_with(line: str) -> Run:
    """A run of a request whose Max-Forwards line is ``line``."""
    return run_of(request(head=HEAD.replace("Max-Forwards: 70\r\n", line)))


class ProcessTests(SynchronousTestCase):
    """mf_process_maxfwd_header."""

    def test_lines(self) -> None:
        """A value goes down by one in the room that it had; 0 stays."""
        for line, code, after in [
            ("Max-Forwards: 70", 1, "Max-Forwards: 69"),
            ("Max-Forwards: 10", 1, "Max-Forwards:  9"),
            ("max-forwards : 10 ", 1, "max-forwards :  9 "),
            ("Max-Forwards: 0070", 1, "Max-Forwards:   69"),
            ("Max-Forwards:1", 1, "Max-Forwards:0"),
            ("Max-Forwards: 255", 1, "Max-Forwards: 254"),
            ("Max-Forwards: 0", -1, ""),
            ("Max-Forwards: 256", -2, ""),
            ("Max-Forwards: abc", -2, ""),
            ("Max-Forwards: -1", -2, ""),
        ]:
            run = run_with(line + "\r\n")
            self.assertEqual(Maxfwd().mf_process_maxfwd_header(run, 10), code, line)
            self.assertEqual(changes(run), ([line], [after]) if after else ([], []), line)

    def test_added(self) -> None:
        """Where there is none it is added, once, and the message as received has none."""
        run = run_with("")
        module = Maxfwd()
        self.assertEqual(module.mf_process_maxfwd_header(run, 10), 2)
        self.assertEqual(module.mf_process_maxfwd_header(run, 10), 2)
        self.assertEqual(changes(run), ([], ["Max-Forwards: 10"]))
        self.assertEqual(module.is_maxfwd_lt(run, 11), 1)
        self.assertEqual(module.is_maxfwd_lt(run, 10), -1)

    def test_twice(self) -> None:
        """A second call goes on from the first."""
        run = run_with("Max-Forwards: 2\r\n")
        module = Maxfwd()
        self.assertEqual([module.mf_process_maxfwd_header(run, 10) for _ in range(3)], [1, 1, -1])
        self.assertEqual(changes(run), (["Max-Forwards: 2"], ["Max-Forwards: 0"]))

    def test_limit(self) -> None:
        """``max_limit`` lowers what leaves."""
        run = run_with("Max-Forwards: 200\r\n")
        self.assertEqual(Maxfwd(max_limit=32).mf_process_maxfwd_header(run, 10), 1)
        self.assertEqual(changes(run)[1], ["Max-Forwards:  32"])
        self.assertRaises(ValueError, Maxfwd, max_limit=257)

    def test_unreadable_is_logged(self) -> None:
        """An unreadable value leaves an error in the log."""
        run = run_with("Max-Forwards: abc\r\n")
        Maxfwd().mf_process_maxfwd_header(run, 10)
        self.assertEqual([level for level, _ in run.user.logged], [-1])


class LessThanTests(SynchronousTestCase):
    """is_maxfwd_lt."""

    def test_values(self) -> None:
        """The value as it will leave is compared; each other case has its code."""
        for line, limit, code in [
            ("Max-Forwards: 70\r\n", 71, 1),
            ("Max-Forwards: 70\r\n", 70, -1),
            ("", 70, -2),
            ("Max-Forwards: abc\r\n", 70, -3),
        ]:
            self.assertEqual(Maxfwd().is_maxfwd_lt(run_with(line), limit), code, line)
        run = run_with("Max-Forwards: 70\r\n")
        module = Maxfwd()
        module.mf_process_maxfwd_header(run, 10)
        self.assertEqual(module.is_maxfwd_lt(run, 70), 1)
