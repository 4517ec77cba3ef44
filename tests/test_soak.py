"""Endurance (hardening F21, P27): after a household's traffic nothing of it is left, on a fake clock and in a real twistd.

``make nightly`` runs it long; ``SIPGW_SOAK_SECONDS`` says how long."""

import gc
import os
import statistics
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.load.network import Live, Wired
from tests.load.phone import Timing
from tests.load.server import LIMIT, LoadedServer, household
from tests.load.traffic import OVER_TCP, Traffic

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
SECONDS = float(os.environ.get("SIPGW_SOAK_SECONDS") or (900 if NIGHTLY else 3))
"""How long a real server is under load."""
HOUR = 3600 if NIGHTLY else 60
"""How long one on a fake clock is, in its own seconds, each time."""
SLOPE = 1.0
"""Megabytes an hour by which memory may grow, once the caches are full; asserted if that was watched for long enough."""
LONG_ENOUGH = 1800
KEPT = {"NameAddr", "Uri", "CSeq", "NextHop"}
"""What is kept on purpose, up to a bound: values seen lately (sip/message, sip/uri, core/surroundings)."""


def ours():
    """How many objects of sipgw's classes there are, but for those that are kept on purpose."""
    found = Counter(f"{type(each).__module__}.{type(each).__name__}" for each in gc.get_objects())
    return {name: n for name, n in found.items() if name.startswith("sipgw.") and name.rpartition(".")[2] not in KEPT}


class WiredTests(SynchronousTestCase):
    """A whole server in this process."""

    def setUp(self):
        self.network = Wired(household(fr=4, fr_inv=10))
        self.traffic = Traffic(self.network, "127.0.0.1:5060", rate=20)
        self.traffic.settle_in()

    def hour(self):
        """Traffic for a while, and then its afterlife."""
        self.traffic.start()
        self.network.run(HOUR)
        self.traffic.stop()
        self.network.run(100)
        self.assertEqual((self.traffic.wrong(), self.traffic.open, self.traffic.total("doubled")), ({}, 0, 0))
        self.assertEqual(self.network.wired.left(), [])
        gc.collect()
        return ours()

    def test_nothing_left(self):
        """Neither transactions nor timers nor any other object is left of an hour's traffic, nor lines that tell of a bug."""
        before = self.hour()
        after = self.hour()
        self.assertEqual(after, before)
        lines = [text for level, text in self.network.wired.lines if level < 0 or "bug" in text]
        self.assertEqual([text for text in lines if not text.startswith("loose_route: ")], [])  # that is what strangers sent
        contacts = self.network.wired.server.statistics.find("usrloc:location-contacts")
        self.assertEqual(contacts and contacts.read(), len(self.traffic.residents))

    def test_no_cycles(self):
        """What a message leaves behind is freed when it is let go of, not when the collector comes."""
        self.hour()
        gc.disable()
        self.addCleanup(gc.enable)
        self.addCleanup(gc.garbage.clear)
        self.traffic.start()
        self.network.run(HOUR / 2)
        self.traffic.stop()
        self.network.run(100)
        gc.set_debug(gc.DEBUG_SAVEALL)
        self.addCleanup(gc.set_debug, 0)
        gc.collect()
        found = Counter(type(each).__name__ for each in gc.garbage if str(type(each).__module__).startswith("sipgw."))
        del found["Timer"]  # the phones have such timers too, in cycles
        self.assertEqual(found, {})


class LiveTests(SynchronousTestCase):
    """A real twistd."""

    def test_soak(self):
        """Traffic over UDP and TCP, with calls that are abandoned and things that are not SIP: afterwards all is as before."""
        timing = Timing() if NIGHTLY else Timing(t1=0.05)
        times = {"fr": 5, "fr_inv": 20} if NIGHTLY else {"t1": timing.t1, "fr": 3, "fr_inv": 3, "wt": 2}
        server = LoadedServer(Path(self.mktemp()).absolute(), household(**times))
        self.addCleanup(server.child.kill)
        network = Live(server.port)
        self.addCleanup(network.close)
        traffic = Traffic(network, server.domain, rate=50 if NIGHTLY else 100, timing=timing, mix=OVER_TCP)
        traffic.settle_in()
        files = server.descriptors()
        log = len(server.child.text())
        samples = self.load(server, network, traffic)
        ended = network.until(lambda: not traffic.open and not server.count("tm:inuse_transactions"), 120)
        left = {name: server.count(name) for name in ("tm:inuse_transactions", "usrloc:location-contacts")}
        self.assertEqual((ended, traffic.open, traffic.wrong(), traffic.total("doubled")), (True, 0, {}, 0), left)
        network.run(1.5)  # the last guest's second, and the search for those that are over
        self.assertEqual(server.count("usrloc:location-contacts"), len(traffic.residents))
        self.assertEqual(server.descriptors(), files)
        self.report(samples, traffic)
        self.assertLess(len(server.stop()) - log, LIMIT * (SECONDS + 10))

    def load(self, server, network, traffic):
        """Let the traffic run; what memory was held when, in seconds and octets."""
        samples = []
        begin = network.now()
        traffic.start()
        while network.now() < begin + SECONDS:
            network.run(SECONDS / 60)
            samples.append((network.now() - begin, server.resident()))
        traffic.stop()
        return samples

    def report(self, samples, traffic):
        """Print what it was, and how memory grew in the second half; hold that to its bound if it was watched for long enough."""
        late = samples[len(samples) // 2 :]
        seconds = late[-1][0] - late[0][0]
        slope = statistics.linear_regression(*zip(*late, strict=True)).slope * 3600 / 1e6
        memory = f"{samples[0][1] / 1e6:.1f} MB at the begin, {samples[-1][1] / 1e6:.1f} MB at the end"
        if seconds > 60:
            memory += f", {slope:+.2f} MB/h over the last {seconds:.0f} s"
        print(f"soak: {traffic.outcomes.total()} things in {SECONDS:.0f} s, {traffic.total('repeated')} repeated; {memory}")
        if seconds >= LONG_ENOUGH:
            self.assertLess(slope, SLOPE)
