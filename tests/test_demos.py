"""The demonstrations of ``examples``: each plays by itself with ``DEMO_ONCE=1``, and says what it saw."""

import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.children import ROOT, Child


class DemoTests(SynchronousTestCase):
    """One test for each."""

    def test_sms(self) -> None:
        """A long text with emoji each way, and a receipt."""
        environment = {"DEMO_ONCE": "1", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
        child = Child([sys.executable, str(ROOT / "examples/sms/demo.py")], Path(self.mktemp()), environment)
        self.addCleanup(child.kill)
        self.assertEqual(child.wait(), 0, child.text())
        said = child.text()
        wanted = ("alice writes: Hello from SIP", "your text was delivered", "writes: Hello back", "All of it arrived.")
        for line in wanted:
            self.assertIn(line, said)
