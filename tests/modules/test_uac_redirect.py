"""Tests of redirecting: what a redirect server answers through tm."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.script.run import Branch, Run
from sipgw.script.values import EXIT
from tests.proxy.rig import Rig, request

ALICE = 7001


class RedirectServerTests(SynchronousTestCase):
    """A 3xx through a transaction."""

    def test_t_reply(self) -> None:
        """``t_reply`` names the destinations in the Contact of a 3xx, and of no other reply."""
        rig = Rig()

        async def route(run: Run) -> Any:
            run.uri = "sip:carol@127.0.0.1"
            run.branches = [Branch("sip:dave@127.0.0.1", q=500)]
            rig.tm.t_reply(run, 180, "Ringing")
            rig.tm.t_reply(run, 302, "Moved")
            return EXIT

        rig.routes(route)
        rig.arrive(request("INVITE"), ALICE)
        self.assertEqual(
            [(answer.status, answer.header("Contact")) for answer in rig.sent(ALICE)],
            [(100, None), (180, None), (302, "<sip:carol@127.0.0.1>, <sip:dave@127.0.0.1>;q=0.5")],
        )
