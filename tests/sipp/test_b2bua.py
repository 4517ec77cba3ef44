"""Calls through the script of ``examples/b2bua.cfg``; sipp plays both sides."""

from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.children import HOST, free_port
from tests.sipp.harness import Server
from tests.sipp.test_calls import OWN_CONFIG, SippTestCase

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "b2bua.cfg"
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

    def test_cancel(self):
        """A caller who gives up while it rings."""
        callee = self.sipp("callee-rings-in-vain", port=self.next_hop)
        caller = self.calling("caller-gives-up", reply_route="false")
        caller.finish()
        callee.finish()
        self.assertNotIn("bug", self.server.child.text())
