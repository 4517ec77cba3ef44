"""``tests/install.sh``, with commands that only note that they were called."""

import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

SCRIPT = Path(__file__).parent / "install.sh"


class InstallTests(SynchronousTestCase):
    """What is missing is installed, or named."""

    def setUp(self):
        self.bin = Path(self.mktemp()).absolute()
        self.bin.mkdir(parents=True)
        self.notes = self.bin / "notes"
        self.policy = self.bin / "policy-rc.d"
        for name in ("sh", "tee", "chmod", "rm", "env", "cat"):
            (self.bin / name).symlink_to(shutil.which(name) or "")

    def command(self, name, body):
        """Put a command into the path."""
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def install(self, *pairs):
        """Run the script; its status and what it said."""
        environment = {"PATH": str(self.bin), "POLICY": str(self.policy)}
        ran = subprocess.run(["/bin/sh", str(SCRIPT), *pairs], env=environment, capture_output=True, text=True, timeout=20)
        return ran.returncode, ran.stdout + ran.stderr

    def test_there(self):
        """What is there is not installed."""
        self.command("sipp", "")
        self.assertEqual(self.install("sip-tester=sipp"), (0, ""))

    def test_no_apt(self):
        """Without apt-get it says what is missing."""
        said = "missing, and there is no apt-get to install it: sip-tester\n"
        self.assertEqual(self.install("sip-tester=sipp", "x=sh"), (1, said))

    def test_no_right(self):
        """Without root and without sudo it says what to do."""
        self.command("apt-get", f"echo called >{self.notes}")
        self.command("id", "echo 1000")
        status, said = self.install("sip-tester=sipp", "kamailio=")
        self.assertEqual((status, self.notes.exists()), (1, False))
        self.assertIn("apt-get install sip-tester kamailio", said)

    def test_root(self):
        """As root it installs without a question, and no daemon may start meanwhile."""
        self.command("id", "echo 0")
        self.command("apt-get", f'echo "$DEBIAN_FRONTEND $*" >>{self.notes}; cat {self.policy} >>{self.notes}')
        status, said = self.install("sip-tester=sipp")
        self.assertEqual((status, said), (0, "installing: sip-tester\n"))
        notes = self.notes.read_text()
        self.assertIn("noninteractive install -y", notes)
        self.assertIn("sip-tester", notes)
        self.assertEqual(notes.count("exit 101"), 2)
        self.assertFalse(self.policy.exists())

    def test_sudo(self):
        """By sudo it does the same; a policy that is there already stays."""
        self.command("id", "echo 1000")
        self.command("sudo", 'shift; exec "$@"')
        self.command("true", "")
        self.command("apt-get", f'echo "$*" >>{self.notes}')
        self.policy.write_text("mine")
        self.assertEqual(self.install("sip-tester=sipp")[0], 0)
        self.assertIn("install -y", self.notes.read_text())
        self.assertEqual(self.policy.read_text(), "mine")

    def test_failure(self):
        """An apt-get that fails is a failure, and the policy is taken away all the same."""
        self.command("id", "echo 0")
        self.command("apt-get", "exit 100")
        self.assertNotEqual(self.install("sip-tester=sipp")[0], 0)
        self.assertFalse(self.policy.exists())
