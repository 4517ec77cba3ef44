"""Tests of sipgw.b2bua.stages: the table itself, and its picture."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.stages import TABLE, Stage, page

PAGE = Path(__file__).parent.parent.parent / "docs" / "states" / "bridge.md"


class TableTests(SynchronousTestCase):
    """What can be said of it without a call."""

    def test_every_stage_ends(self) -> None:
        """From every stage that can be reached OVER can be, otherwise than by the end of who is kept; from OVER nothing."""
        reached, ending = {Stage.BEGUN}, {Stage.OVER}
        rows = [(before, after) for (before, turn), (after, _) in TABLE.items() if turn.name != "KEPT_ENDS"]
        for _ in Stage:
            reached |= {after for before, after in rows if before in reached}
            ending |= {before for before, after in rows if after in ending}
        self.assertEqual((reached, ending), (set(Stage), set(Stage)))
        self.assertNotIn(Stage.OVER, {before for before, _ in TABLE})

    def test_page(self) -> None:
        """docs/states/bridge.md is what the table says."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page(), "python -m sipgw.b2bua.stages > docs/states/bridge.md")
