"""Hours of calls of all kinds, on a fake clock: nothing is left of them, with a good network and with a bad one."""

from __future__ import annotations

import gc
import os
from collections import Counter
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.load.disorder import KINDS, left, mixed
from tests.load.mixture import Mixture
from tests.load.network import BadLink, Wired
from tests.test_soak import ours

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
HOUR = 3600.0 if NIGHTLY else 60.0
"""How long each time is, in simulated seconds; there are two, and two more with a bad network."""
AFTERLIFE = 800.0
"""Seconds after which each call has ended by itself."""


class MixedCallsTests(SynchronousTestCase):
    """A whole server in this process."""

    def setUp(self) -> None:
        self.network = Wired(mixed("192.0.2.2", "192.0.2.3"))
        self.timers = self.network.wired.user.running_timers

    def hour(self, mixture: Mixture) -> Counter[str]:
        """Calls for a while, and their afterlife; how many objects of ours there are then."""
        mixture.start()
        self.network.run(HOUR)
        mixture.stop()
        self.network.run(AFTERLIFE)
        self.assertEqual(left(self.network.wired, self.timers), {})
        for party in mixture.parties:
            for side in list(party.sides.values()):
                side.end("forgotten")
        mixture.plans.clear()
        self.network.run(100)
        gc.collect()
        found = Counter(ours())
        del found["sipgw.sip.timers.Timer"], found["sipgw.proxy.dialogs.CallFlag"]  # the phones have timers, too; flags are kept
        user = self.network.wired.user
        found["timers that are over"] = user.timers.held + user.layer.delays.held
        return found

    def faults(self) -> list[str]:
        """Lines of the log that tell of a bug."""
        return [text for level, text in self.network.wired.lines if "bug" in text or "Traceback" in text or level <= -2]

    def check(self, network: Any) -> Mixture:
        """Two hours: after the second there is as much as after the first."""
        mixture = Mixture(network, rate=3.0)
        before = self.hour(mixture)
        after = self.hour(mixture)
        self.assertEqual(self.faults(), [])
        self.assertEqual({name: (before[name], n) for name, n in after.items() if n > before[name]}, {})
        return mixture

    def test_good_network(self) -> None:
        """Calls end as phones want them to."""
        mixture = self.check(self.network)
        for party in mixture.parties:
            self.assertEqual((party.unreadable, party.doubled, set(party.odd) - {"BYE 481", "BYE 408"}), ([], 0, set()))
        self.assertEqual([how for how in mixture.outcomes if how.endswith("silence")], [])
        ends = [f"{kind} {who}: {how}" for kind in KINDS for who in ("caller", "callee") for how in ("bye", "was hung up on")]
        self.assertEqual([how for how in [*ends, "third callee: was hung up on"] if not mixture.outcomes[how]], [])

    def test_bad_network(self) -> None:
        """One datagram of twenty is lost, some come twice or late."""
        link = BadLink(self.network, Random(7), loss=0.05, copies=1, late=0.1, delay=1.0)
        mixture = self.check(link)
        self.assertGreater(link.lost, 10)
        for party in mixture.parties:
            self.assertEqual(party.unreadable, [])
