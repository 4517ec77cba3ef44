"""The demonstrations of ``examples``: each plays by itself with ``DEMO_ONCE=1``, and says what it saw."""

import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.children import ROOT, Child
from tests.servers.prosody import missing


class DemoTests(SynchronousTestCase):
    """One test for each."""

    def plays(self, name: str, *wanted: str) -> None:
        """A demonstration says all that is ``wanted``, and ends with 0."""
        environment = {"DEMO_ONCE": "1", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        child = Child([sys.executable, str(ROOT / f"examples/{name}/demo.py")], Path(self.mktemp()), environment)
        self.addCleanup(child.kill)
        self.assertEqual(child.wait(), 0, child.text())
        for line in (*wanted, "All of it arrived."):
            self.assertIn(line, child.text())

    def test_sms(self) -> None:
        """A long text with emoji each way, and a receipt."""
        self.plays("sms", "alice writes: Hello from SIP", "your text was delivered", "writes: Hello back")

    def test_xmpp(self) -> None:
        """A message each way between a phone and a Jabber client, and a change of presence."""
        if missing():
            self.skipTest(missing())
        self.plays("xmpp", "alice writes: Hello from SIP", "writes: Hello from Jabber", "romeo is away", "alice is available")
