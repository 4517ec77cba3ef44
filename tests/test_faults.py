"""Faults of the network and of people (hardening F7, F8, F9, F12, F15), in small form; ``make nightly`` has the full one."""

import os
import re
import signal
from collections import Counter
from pathlib import Path
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.children import HOST, wait_for
from tests.load import rubbish
from tests.load.network import BadLink, Live, Wired
from tests.load.phone import Timing
from tests.load.server import LIMIT, LoadedServer, household
from tests.load.traffic import Traffic
from tests.sip.test_fuzz import mutate
from tests.sipp.harness import Phone

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
CALLS = {"call": 1}
MIXED = {"call": 3, "message": 1, "cancelled": 1, "serial": 1, "busy": 1}
SECONDS = 100 if NIGHTLY else 10
"""How long calls are begun on a bad network, 40 each second."""
BAD_DATAGRAMS = 1_000_000 if NIGHTLY else 20_000
NEARLY_RIGHT = 200_000 if NIGHTLY else 3_000
RELOADS = 30


class NetworkTests(SynchronousTestCase):
    """A bad network between phones and server, on a fake clock: RFC 3261's timers at both ends, 40 calls a second."""

    def carry(self, mix=MIXED, wt=32, **faults):
        """Traffic over a link with these faults; and nothing is left of it."""
        network = Wired(household(fr=30, fr_inv=60, wt=wt))
        self.link = BadLink(network, Random(7), **faults)
        traffic = Traffic(self.link, "127.0.0.1:5060", rate=40, mix=mix)
        traffic.settle_in(60)
        traffic.start()
        network.run(SECONDS)
        traffic.stop()
        network.run(250)
        self.assertEqual(network.wired.left(), [])
        self.assertEqual([text for level, text in network.wired.lines if level < 0], [])
        return traffic

    def test_loss(self):
        """With 5, 20 and 30 % lost each way, each call ends as it should but for a few, and nothing is relayed twice (F8)."""
        for loss in (0.05, 0.2, 0.3):
            traffic = self.carry(loss=loss)
            self.assertGreater(self.link.lost, 500 * loss)
            self.assertEqual(traffic.total("doubled"), 0, f"{loss:.0%} lost")
            # a BYE or a 200 is sent eleven times and each way loses: some BYE is never answered, and who sent it gives up (status
            # 0, of a proxy in between 408); some caller hears no 200 although it rang, and waits
            wrong = traffic.wrong()
            given_up = 2 * (1 - (1 - loss) ** 2) ** 10 * sum(traffic.begun.values())
            self.assertLessEqual(traffic.open + sum(wrong.values()), round(3 * given_up), f"{loss:.0%} lost: {wrong}")
            self.assertEqual({abs(status) for _, status in wrong} - {0, 408}, set(), f"{loss:.0%} lost: {wrong}")

    def test_loss_afterlife(self):
        """With the usual short afterlife, 5 s, a lost answer may be too late: 99.5, 94, 84 % of the calls are made at least."""
        for loss, least in ((0.05, 0.995), (0.2, 0.94), (0.3, 0.84)):
            traffic = self.carry(CALLS, 5, loss=loss)
            made, begun = traffic.outcomes["call", 200], traffic.begun["call"]
            print(f"{loss:.0%} lost each way: {made} of {begun} calls made, {self.link.lost} datagrams lost")
            self.assertGreaterEqual(made / begun, least)

    def test_repeated(self):
        """Each datagram comes three times, a quarter of them late and out of order: nothing is relayed twice (F9)."""
        traffic = self.carry(copies=3, late=0.25, delay=0.3)
        self.assertGreater(self.link.delayed, 1000)
        self.assertEqual((traffic.wrong(), traffic.open, traffic.total("doubled")), ({}, 0, 0))
        self.assertEqual(traffic.total("answered"), traffic.outcomes["call", 200] + traffic.outcomes["serial", 200])

    def test_crossing(self):
        """The same with answers and CANCELs that cross: whoever is answered hangs up, the others have their 487 (F9)."""
        traffic = self.carry({"crossing": 1}, copies=3, late=0.25, delay=0.3)
        self.assertEqual((traffic.wrong(), traffic.open, traffic.total("doubled")), ({}, 0, 0))
        answered, cancelled = (traffic.outcomes["crossing", status] for status in (200, 487))
        self.assertEqual((traffic.total("answered"), traffic.total("cancelled")), (answered, cancelled))
        self.assertGreater(min(answered, cancelled), 10)
        self.assertEqual(traffic.total("unacknowledged"), 0)

    def test_silence(self):
        """Who never answers costs the caller fr_timeout: 408, half a second sooner or later (F7)."""
        for kind, seconds in (("silent message", 30.0), ("silent", 30.0), ("unanswered", 60.0)):
            network = Wired(household(fr=30, fr_inv=60))
            traffic = Traffic(network, "127.0.0.1:5060")
            traffic.settle_in()
            begin = network.now()
            traffic.begin(kind)
            network.until(lambda traffic=traffic: not traffic.open, 100)
            self.assertEqual(traffic.outcomes[kind, 408], 1)
            self.assertAlmostEqual(network.now() - begin, seconds, delta=0.5)
            self.assertEqual(traffic.total("cancelled"), kind == "unanswered")


class RubbishTests(SynchronousTestCase):
    """A script that takes and relays anything, and a next hop that answers anything."""

    def test_nearly_right(self):
        """Requests and responses with an accident or two: no route breaks, nothing meets a bug, nothing is left of them."""
        network = Wired((Path(__file__).parent / "configs" / "takes-all.cfg").read_text())
        random = Random(5)
        relayed = Counter[str]()

        def answer(data, flow):
            relayed[data.partition(b" ")[0].decode("latin-1")] += 1
            response = rubbish.answer(random, data)
            if response is not None:
                flow.send(response)

        network.wired.wire.socket("192.0.2.99", 5060, answer)
        phone = network.open(lambda data: None)
        for number in range(NEARLY_RIGHT):
            phone.send(rubbish.request(random))
            network.step(network.now() + 1)
            if number % 500 == 0:
                network.run(0.2)
        network.run(100)
        self.assertEqual(network.wired.left(), [])
        self.assertEqual([text for level, text in network.wired.lines if level < -1 or "opensips.cfg" in text], [])
        for method in ("INVITE", "MESSAGE", "BYE"):
            self.assertGreater(relayed[method], NEARLY_RIGHT // 100)


class LiveTests(SynchronousTestCase):
    """A real twistd."""

    def serve(self, text):
        """A server, and phones on a network to it."""
        server = LoadedServer(Path(self.mktemp()).absolute(), text)
        self.addCleanup(server.child.kill)
        return server

    def phones(self, server, **options):
        """Traffic to it."""
        network = Live(server.port)
        self.addCleanup(network.close)
        traffic = Traffic(network, server.domain, **options)
        traffic.settle_in()
        return traffic

    def test_bad_datagrams(self):
        """20 000 bad datagrams (in ``make nightly`` a million), and each good REGISTER in between is answered 200 (F12)."""
        server = self.serve(household(t1=0.05, fr=1, fr_inv=1, wt=1))
        network = Live(server.port)
        self.addCleanup(network.close)
        random = Random(20)
        answers: list[bytes] = []
        enemy = network.open(answers.append)
        phone = Phone(server.port)
        self.addCleanup(phone.close)
        phone.register("bob", 9)
        memory, log = server.resident(), len(server.child.text())
        begin = network.now()
        waits: list[float] = []
        for _ in range(BAD_DATAGRAMS // 100):
            for _ in range(100):
                enemy.send(mutate(random))
            asked = network.now()
            phone.register("bob", 9)
            waits.append(network.now() - asked)
            network.step(asked)
        seconds = network.now() - begin
        wait_for(lambda: not server.count("tm:inuse_transactions"), "all transactions end", server.child)
        waits.sort()
        half, nearly_all = (waits[int(len(waits) * share)] * 1e3 for share in (0.5, 0.99))
        grown = server.resident() - memory
        said = len(server.stop()) - log
        print(
            f"{BAD_DATAGRAMS} bad datagrams in {seconds:.1f} s, {len(answers)} answered; memory {grown / 1e6:+.1f} MB, "
            f"log {said} octets; a good REGISTER behind 100 of them: median {half:.1f} ms, p99 {nearly_all:.1f} ms"
        )
        self.assertLess(grown, 32e6)
        self.assertLess(said, LIMIT * (seconds + 10))

    def test_reload(self):
        """30 reloads under load, some of a file with faults: no call fails, and what is faulty changes nothing (F15)."""
        text = household(t1=0.05)
        server = self.serve(text)
        traffic = self.phones(server, rate=200, timing=Timing(t1=0.05), mix=MIXED)
        traffic.start()
        phone = Phone(server.port)
        self.addCleanup(phone.close)
        expected = 200
        for number in range(RELOADS):
            faulty = number % 3 == 1
            if not faulty:
                expected = 480 + number
            changed = text.replace('send_reply(200, "Alive")', f'send_reply({480 + number}, "Alive")')
            server.write(changed.replace("route(relay);", "rout(relay);", 1) if faulty else changed)
            before = server.child.text().count("reloaded")
            server.child.process.send_signal(signal.SIGHUP)
            told = traffic.network.until(lambda before=before: server.child.text().count("reloaded") > before, 20)
            self.assertTrue(told, server.child.text()[-2000:])
            self.assertEqual(phone.request("OPTIONS", f"sip:{HOST}:{server.port}"), expected)
            traffic.network.run(0.05)
        traffic.stop()
        self.assertTrue(traffic.network.until(lambda: not traffic.open, 20))
        self.assertEqual((traffic.wrong(), traffic.total("doubled")), ({}, 0))
        text = server.stop()
        faults = RELOADS // 3
        self.assertEqual(text.count("the routes are not reloaded: 1 fault"), faults)
        self.assertEqual(text.count("the routes are reloaded"), RELOADS - faults)
        told = [line for line in text.splitlines() if re.search(r"opensips\.cfg:\d+:\d+:.*\brout\b", line)]
        self.assertEqual(len(told), faults, text[-2000:])
        print(f"{RELOADS} reloads during {traffic.outcomes.total()} things, none of which failed")
