"""Tests of sipgw.core.folding: lines of the script that come in floods."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core import folding
from sipgw.testing import pass_time
from tests.modules.scripted import Scripted, request

SAYS = 'xlog("L_ERR", "flood of $rm\\n"); xlog("L_ERR", "$rm again"); if ($rm == "INFO") xlog("L_ERR", "from $ci");'


class FoldingTests(SynchronousTestCase):
    """A server whose script logs each request."""

    def setUp(self) -> None:
        self.scripted = Scripted(SAYS)
        self.scripted.server.user.folding.most = 3

    def send(self, count: int, method: str = "OPTIONS") -> list[str]:
        """Let requests come, each of a call of its own, and give what is logged."""
        return [
            line for number in range(count)
            for line in self.scripted.send(request(method, call_id=f"c{number}", branch=f"{method}{number}"))
        ]

    def test_folded(self) -> None:
        """What a line says more often is counted, and told when the second is over; other texts and lines are not touched."""
        self.assertEqual(self.send(3), ["flood of OPTIONS\n", "OPTIONS again"] * 3)
        self.assertEqual(self.send(7), [])
        self.assertEqual(self.send(1, "MESSAGE"), ["flood of MESSAGE\n", "MESSAGE again"])
        pass_time(self.scripted.clock, 1)
        self.assertEqual(self.scripted.logged(), ["flood of OPTIONS (7 more like this)", "OPTIONS again (7 more like this)"])
        self.assertEqual(self.send(1), ["flood of OPTIONS\n", "OPTIONS again"])
        pass_time(self.scripted.clock, 2)
        self.assertEqual(self.scripted.logged(), [])

    def test_different(self) -> None:
        """Lines that differ in anything are all written."""
        said = self.send(10, "INFO")
        self.assertEqual([line for line in said if line.startswith("from")], [f"from c{number}" for number in range(10)])

    def test_many_kinds(self) -> None:
        """So many kinds are counted; those beyond are written."""
        self.patch(folding, "MOST_KINDS", 2)
        self.send(1)
        self.assertEqual(len(self.send(10, "MESSAGE")), 20)
        self.assertEqual(len(self.send(10)), 4)

    def test_never(self) -> None:
        """With 0 nothing is folded."""
        self.scripted.server.user.folding.most = 0
        self.assertEqual(len(self.send(100)), 200)

    def test_own_lines(self) -> None:
        """The server's own lines are none of the script's."""
        for _ in range(10):
            self.scripted.server.user.log(-1, "own")
        self.assertEqual(self.scripted.logged(), ["own"] * 10)
