"""Calls through the script of ``examples/trunk.cfg`` to a provider that asks for a password; sipp checks it."""

from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.children import HOST, free_port
from tests.sipp.harness import Server
from tests.sipp.test_calls import OWN_CONFIG, SippTestCase

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "trunk.cfg"
CALLS = 50


class TrunkTests(SippTestCase):
    """A caller who knows of nothing."""

    def serve(self):
        """A server whose provider is at a port of ours."""
        self.provider = free_port()
        config = self.directory / "trunk.cfg"
        self.directory.mkdir(parents=True)
        config.write_text(EXAMPLE.read_text().replace(f"{HOST}:5080", f"{HOST}:{self.provider}"))
        return Server(self.directory / "server", str(config))

    def test_calls(self):
        """Calls with the right password succeed, each CSeq and name in place; with another one they are refused."""
        if not OWN_CONFIG:
            raise SkipTest("another server has another configuration")
        user = {"user": "4930123456", "reply_route": "true"}
        callee = self.sipp("callee-challenges", port=self.provider, calls=CALLS, password="secret", **user)
        caller = self.calling("caller-talks", calls=CALLS, talk="10", ringing_optional="true", options=["-r", "100"])
        caller.finish()
        callee.finish()
        self.assertEqual((caller.statistics(), callee.statistics()), ((CALLS, 0), (CALLS, 0)))
        self.sipp("callee-challenges", port=self.provider, password="other", **user)
        self.calling("caller-is-refused", status="403").finish()
