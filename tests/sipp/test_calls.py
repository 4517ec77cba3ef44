"""Registrations and calls through a server in its own process, with sipp as the phones."""

import os
from pathlib import Path
from xml.sax.saxutils import escape

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import HOST, wait_for
from tests.sipp.harness import CONFIG, SIPP, LossyLink, Phone, Server, Sipp

CALLS = 10_000 if os.environ.get("SIPGW_NIGHTLY") else 1000
"""Calls of the load test."""
OWN_CONFIG = CONFIG.endswith("household.cfg")


class SippTestCase(SynchronousTestCase):
    """A server, a directory and users for each test."""

    def setUp(self):
        if SIPP is None:
            raise SkipTest("sipp is not installed (Debian: sip-tester)")
        self.directory = Path(self.mktemp()).absolute()
        self.server = self.serve()
        self.addCleanup(self.server.child.kill)
        self.addCleanup(self.end)
        self.children = 0
        self.phone = Phone(self.server.port)
        self.addCleanup(self.phone.close)

    def serve(self):
        """The server of a test."""
        return Server(self.directory / "server")

    def end(self):
        """End the server: it leaves with status 0 and has logged neither a traceback nor a bug."""
        status = self.server.stop()
        text = self.server.child.text()
        if (status != 0 and self.server.ours) or "Traceback" in text or "CRITICAL" in text:
            raise AssertionError(f"the server ended with {status}:\n{text[-5000:]}")

    def sipp(self, scenario, **options):
        """Start sipp in a directory of its own."""
        self.children += 1
        values = {
            "reply_route": "true" if OWN_CONFIG else "false",
            "left": "left" if OWN_CONFIG else "",
            "branch_header": "X-Branch:" if OWN_CONFIG else "CSeq:",
        }
        child = Sipp(self.directory / f"{self.children}-{scenario}", scenario, **{**values, **options})
        self.addCleanup(child.kill)
        return child

    def calling(self, scenario, **options):
        """Start sipp as the caller."""
        return self.sipp(scenario, remote=self.server.port, **options)

    def answering(self, scenario, user="bob", **options):
        """Start sipp as a phone, and register it; any number of phones of one user, one after another."""
        phone = self.sipp(scenario, **options)
        self.phone.register(user, phone.port)
        return phone


class RegistrationTests(SippTestCase):
    """REGISTER (RFC 3261 10)."""

    def register(self, contact, expires, answer, cseq=1, status=200):
        """One REGISTER of this test's phone, whose answer must match ``answer``."""
        call = f"bob-{os.getpid()}@{HOST}"
        child = self.calling(
            "register",
            user="bob",
            contact=contact,
            expires=str(expires),
            answer=escape(answer),
            cseq=str(cseq),
            status=str(status),
            options=["-cid_str", call],
        )
        child.finish()

    def test_register(self):
        """A phone registers, and is told its contact and how long it stays; it is reachable; then it leaves."""
        contact = f"<sip:bob@{HOST}:9>"
        self.register(contact, 60, f"Contact: *<sip:bob@{HOST}:9>.*expires=60")
        self.register("*", 0, "CSeq: 2 REGISTER", cseq=2)
        uri = f"sip:bob@{HOST}:{self.server.port}"
        self.assertEqual(self.phone.request("MESSAGE", uri), 404)

    def test_again(self):
        """A phone that registers again has its contact once, with the new time."""
        contact = f"<sip:bob@{HOST}:9>"
        self.register(contact, 60, "expires=60")
        self.register(contact, 120, f"<sip:bob@{HOST}:9>;expires=120[^,<]*Content-Length", cseq=2)

    def test_expiry(self):
        """A registration that is not renewed ends after its time."""
        if not OWN_CONFIG:
            raise SkipTest("the configuration allows no short registrations")
        self.register(f"<sip:bob@{HOST}:9>;expires=1", 60, "expires=1")
        uri = f"sip:bob@{HOST}:{self.server.port}"
        self.assertNotEqual(self.phone.request("MESSAGE", uri, patience=0.2), 404)
        wait_for(lambda: self.phone.request("MESSAGE", uri, patience=0.2) == 404, "the registration ends")


class CallTests(SippTestCase):
    """INVITE (RFC 3261 13, 16, 17)."""

    def test_ringing(self):
        """A call rings, is answered, and the caller hangs up; nothing is sent twice."""
        callee = self.answering("callee-talks")
        caller = self.calling("caller-talks")
        self.assertRetransmissions(caller.finish(), 0)
        self.assertRetransmissions(callee.finish(), 0)

    def assertRetransmissions(self, counts, number):
        """So many messages were sent or received again."""
        self.assertEqual(sum(v for name, v in counts.items() if name.endswith("_Retrans")), number, counts)

    def test_unknown(self):
        """Nobody is registered under that name: 404."""
        self.calling("caller-is-refused", status="404").finish()

    def test_busy(self):
        """A busy phone's 486 reaches the caller; each hop has its ACK."""
        callee = self.answering("callee-busy")
        self.calling("caller-is-refused", status="486").finish()
        callee.finish()

    def test_cancel(self):
        """A caller who gives up while it rings: the phone is cancelled, the caller gets 487."""
        callee = self.answering("callee-cancelled")
        self.calling("caller-gives-up").finish()
        callee.finish()

    def test_early(self):
        """A caller who gives up before anything rings: the phone is cancelled once it answers provisionally (RFC 3261 9.1)."""
        callee = self.answering("callee-cancelled-early")
        self.calling("caller-gives-up-early").finish()
        callee.finish()

    def test_fork(self):
        """Two phones ring, one is answered, the other is cancelled."""
        slow = self.answering("callee-cancelled")
        quick = self.answering("callee-talks", ring="300")
        self.calling("caller-talks").finish()
        quick.finish()
        slow.finish()

    def test_serial(self):
        """The desk phone is busy: the failure route rings the mobile."""
        if not OWN_CONFIG:
            raise SkipTest("the configuration has no serial forking")
        desk = self.answering("callee-busy")
        mobile = self.answering("callee-talks", user="bob-mobile")
        self.calling("caller-talks").finish()
        desk.finish()
        mobile.finish()

    def test_hops(self):
        """A request that has gone too far is refused with 483 and relayed to nobody."""
        callee = self.answering("callee-talks")
        self.calling("caller-is-refused", hops="0", status="483").finish()
        self.assertEqual(callee.counts()["0_INVITE_Recv"], 0)


class LossTests(SippTestCase):
    """Retransmissions in both directions, and lost responses."""

    def test_caller(self):
        """An INVITE that comes three times is relayed once."""
        callee = self.answering("callee-talks", ring="400")
        self.calling("caller-repeats").finish()
        counts = callee.finish()
        self.assertEqual([v for name, v in counts.items() if name.endswith("INVITE_Retrans")], [0])

    def test_callee(self):
        """A phone that does not answer at once gets the INVITE again, by timer A (0.5 s and 1 s after)."""
        callee = self.answering("callee-slow")
        self.calling("caller-talks").finish()
        counts = callee.finish()
        self.assertIn([v for name, v in counts.items() if name.endswith("INVITE_Retrans")], ([1], [2]))

    def test_ack(self):
        """A 200 whose ACK is late comes to the caller again (RFC 3261 16.7 step 5)."""
        callee = self.answering("callee-talks")
        caller = self.calling("caller-late-ack")
        counts = caller.finish()
        callee.finish()
        self.assertGreaterEqual(sum(v for name, v in counts.items() if name.endswith("200_Retrans")), 1, counts)

    def test_lost(self):
        """The first copy of every response is lost between proxy and caller, and the call is made all the same."""
        link = LossyLink(self.server.port, lambda data: data.startswith(b"SIP/2.0"))
        self.addCleanup(link.close)
        callee = self.answering("callee-talks")
        self.sipp("caller-talks", remote=link.port, ringing_optional="true").finish()
        callee.finish()
        self.assertGreaterEqual(link.lost, 3)

    def test_refused(self):
        """The first copy of a refusal and of its ACK is lost: the refusal comes again, and is answered."""
        link = LossyLink(self.server.port, lambda data: data.startswith((b"SIP/2.0 4", b"ACK")))
        self.addCleanup(link.close)
        callee = self.answering("callee-busy")
        self.sipp("caller-is-refused", remote=link.port, status="486").finish()
        callee.finish()
        self.assertEqual(link.lost, 2)


class LoadTests(SippTestCase):
    """Many calls."""

    def test_thousand(self):
        """1000 calls (in ``make nightly`` 10000), 200 begun each second, none fails."""
        options = ["-r", "200"]
        callee = self.answering("callee-talks", calls=CALLS, ring="10")
        caller = self.calling("caller-talks", calls=CALLS, options=options, talk="10")
        caller.finish()
        callee.finish()
        self.assertEqual(caller.statistics(), (CALLS, 0))
        self.assertEqual(callee.statistics(), (CALLS, 0))
