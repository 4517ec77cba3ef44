"""Tests of sipgw.core.status: groups, identifiers, their status and reports."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.status import REPORTS, StatusReports
from sipgw.testing import FakeServer, finished
from tests.ears import Ears


class StatusTests(SynchronousTestCase):
    """Status and reports on a clock."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.bus = self.server.user.events
        self.reports = StatusReports(self.bus, self.server.user.wall_clock)
        self.ears = Ears()
        self.bus.join(self.bus.publish("E_CORE_SR_STATUS_CHANGED"), "ear:a", finished(self.ears.open("a")))

    def test_core(self) -> None:
        """The core says what becomes of the server."""
        core = self.reports.core
        seen = [(core.status, core.details, core.ready)]
        for step in (self.reports.initializing, self.reports.running, self.reports.terminating):
            step()
            seen.append((core.status, core.details, core.ready))
        self.assertEqual(
            seen, [(-100, "", False), (-1, "initializing", False), (1, "running", True), (-2, "shutting down", False)]
        )
        said = ["initializing", "initialization completed, ready now", "shutting down"]
        self.assertEqual([report.text for report in core.reports], said)
        self.assertEqual([params["old_status"] for _, _, params in self.ears.told], [-100, -1, 1])

    def test_event(self) -> None:
        """A new status is told with the old one; new details alone are not. 0 counts as 1."""
        one = self.reports.group("drouting").identifier("pstn", -1, "loading")
        for status, details in ((7, "seven"), (7, "other"), (0, ""), (1, "")):
            one.set(status, details)
        self.assertEqual((one.status, one.details), (1, ""))
        self.assertEqual(
            [params for _, _, params in self.ears.told],
            [
                {"group": "drouting", "identifier": "pstn", "status": 7, "details": "seven", "old_status": -1},
                {"group": "drouting", "identifier": "pstn", "status": 1, "old_status": 7},
            ],
        )

    def test_groups(self) -> None:
        """A group is made once; the newest stands first; one is ready if all its identifiers are."""
        group = self.reports.group("dialplan")
        self.assertIs(self.reports.group("dialplan"), group)
        self.assertRaises(ValueError, self.reports.group, "dialplan", True)
        self.assertEqual((group.status("main"), group.status("all")), (None, 1))
        first = group.identifier("first")
        self.assertIs(group.identifier("first", -5), first)
        group.identifier("second", -3)
        self.assertEqual((group.status("first"), group.status("second"), group.status("all")), (1, -3, -1))
        self.assertEqual([each.name for each in group.all()], ["second", "first"])
        group.remove("second")
        group.remove("second")
        self.assertEqual((group.status("second"), group.status("all")), (None, 1))
        self.assertEqual([each.name for each in self.reports.all()], ["dialplan", "core"])

    def test_reports(self) -> None:
        """The last reports are kept, with their times."""
        for number in range(REPORTS + 2):
            self.reports.core.report(f"report {number}")
            self.server.reactor.advance(1)
        kept = self.reports.core.reports
        self.assertEqual((len(kept), kept[0].text, kept[-1].time - kept[0].time), (REPORTS, "report 2", REPORTS - 1))
