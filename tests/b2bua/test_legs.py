"""Tests of sipgw.b2bua.legs: the table itself, and its picture."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.b2bua.legs import TABLE, Event, Leg, Role, State, page
from tests.b2bua.test_session import made

PAGE = Path(__file__).parent.parent.parent / "docs" / "states" / "b2bua.md"


class TableTests(SynchronousTestCase):
    """What can be said of it without a call."""

    def test_every_state_ends(self) -> None:
        """From every state that can be reached OVER can be, and from OVER nothing."""
        for role in Role:
            reached = {Leg("k", role, made("INVITE", "k", 1)).state}
            while True:
                more = reached | {after for (its, state, _), (after, _) in TABLE.items() if its is role and state in reached}
                if more == reached:
                    break
                reached = more
            self.assertEqual({state for its, state, _ in TABLE if its is role} | {State.OVER}, reached)
            ending = {State.OVER}
            while True:
                more = ending | {state for (its, state, _), (after, _) in TABLE.items() if its is role and after in ending}
                if more == ending:
                    break
                ending = more
            self.assertEqual(ending, reached)
            self.assertNotIn(State.OVER, {state for its, state, _ in TABLE if its is role})

    def test_can_always_leave(self) -> None:
        """In every state in which a leg has not begun to end, it can be told to."""
        ending = {State.OVER, State.LEAVING, State.PARTING, State.CANCELLING}
        for role, state in {(role, state) for role, state, _ in TABLE}:
            if state not in ending:
                self.assertIn(TABLE[role, state, Event.LEAVE][0], ending, (role, state))

    def test_nothing_else_happens(self) -> None:
        """What is not in the table changes nothing."""
        leg = Leg("k", Role.CLIENT, made("INVITE", "k", 1))
        self.assertIsNone(leg.step(Event.LEFT))
        self.assertIs(leg.state, State.PLANNED)

    def test_page(self) -> None:
        """docs/states/b2bua.md is what the table says."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page(), "python -m sipgw.b2bua.legs > docs/states/b2bua.md")
