"""Calls through the scripts of ``examples/b2bua*.cfg``; ``test_b2b_calls.py`` has all else that may happen."""

from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.children import HOST, free_port
from tests.sipp.harness import Server
from tests.sipp.test_calls import OWN_CONFIG, SippTestCase

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "b2bua.cfg"
TRANSFER = EXAMPLE.with_name("b2bua-transfer.cfg")
CALLS = 50


class BackToBackTests(SippTestCase):
    """A caller and a callee that both talk with us."""

    def serve(self):
        """A server whose next hop is at a port of ours."""
        if not OWN_CONFIG:
            raise SkipTest("another server has another configuration")
        self.next_hop = free_port()
        self.directory.mkdir(parents=True)
        config = self.directory / "b2bua.cfg"
        config.write_text(EXAMPLE.read_text().replace(f"{HOST}:5080", f"{HOST}:{self.next_hop}"))
        return Server(self.directory / "server", str(config))

    def play(self, callee, caller, **options):
        """Let the two play; all calls succeed."""
        answering = self.sipp(callee, port=self.next_hop, calls=CALLS, **options)
        rate = ["-r", "100"]
        calling = self.calling(caller, calls=CALLS, talk="10", ringing_optional="true", options=rate, **options)
        calling.finish()
        answering.finish()
        self.assertEqual((calling.statistics(), answering.statistics()), ((CALLS, 0), (CALLS, 0)))

    def test_calls(self):
        """Calls that the caller ends, and those that the callee ends."""
        port = str(self.server.port)
        self.play("callee-hidden-from", "caller-talks", server=port, contact=f"{HOST}:{port}", call_id="B2B")
        self.play("callee-hangs-up", "caller-hears-bye")


class TransferTests(SippTestCase):
    """Caller, callee and the one that the callee names, each a sipp of its own, through ``examples/b2bua-transfer.cfg``."""

    def serve(self):
        """A server whose next hops are at ports of ours."""
        if not OWN_CONFIG:
            raise SkipTest("another server has another configuration")
        self.first, self.third = free_port(), free_port()
        self.directory.mkdir(parents=True)
        config = self.directory / "b2bua-transfer.cfg"
        text = TRANSFER.read_text()
        text = text.replace("sip:$rU@127.0.0.1:5080", f"sip:$rU@{HOST}:{self.first}")
        config.write_text(text.replace(":5080", f":{self.third}"))
        return Server(self.directory / "server", str(config))

    def test_transfers(self):
        """The callee sends each caller on: the third phone's offer is answered by the caller, and all end well."""
        third = self.sipp("callee-offers-late", port=self.third, calls=CALLS)
        callee = self.sipp("callee-refers", port=self.first, calls=CALLS, third=f"sip:carol@{HOST}")
        rate = ["-r", "50"]
        caller = self.calling("caller-is-joined", calls=CALLS, talk="10", ringing_optional="true", options=rate)
        for child in (caller, third, callee):
            child.finish()
            self.assertEqual(child.statistics(), (CALLS, 0))
