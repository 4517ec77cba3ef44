"""Tests of sipgw.core.notify: what arrives on a real datagram socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.notify import Notifier


class NotifierTests(SynchronousTestCase):
    """One listener."""

    def listen(self, address: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.bind("\0" + address[1:] if address.startswith("@") else address)
        made.settimeout(5)
        return made

    def test_messages(self) -> None:
        """Each thing is told in the words of sd_notify, at a path or at an abstract name."""
        path = Path(self.mktemp())
        for address in (os.path.relpath(path), f"@sipgw-{os.getpid()}"):
            listener = self.listen(address)
            notifier = Notifier(address)
            told = [
                (notifier.ready("two\nlines"), ["READY=1", "STATUS=two lines", f"MAINPID={os.getpid()}"]),
                (notifier.stopping(), ["STOPPING=1", "STATUS=shutting down"]),
                (notifier.alive(), ["WATCHDOG=1"]),
                (notifier.failed("why"), ["STATUS=why"]),
            ]
            for sent, lines in told:
                self.assertTrue(sent)
                self.assertEqual(listener.recv(4096).decode().split("\n"), lines)
            notifier.reloading()
            self.assertRegex(listener.recv(4096).decode(), "^RELOADING=1\nMONOTONIC_USEC=[0-9]+$")

    def test_nobody(self) -> None:
        """Where nobody listens nothing is told, and nothing fails."""
        self.assertFalse(Notifier().alive())
        self.assertFalse(Notifier("/nosuch/socket").alive())

    def test_environment(self) -> None:
        """The environment says whom to tell and how often; nothing of it is left for children."""
        own = str(os.getpid())
        cases = [
            ({}, 0.0), ({"WATCHDOG_USEC": "2000000"}, 0.0),
            ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000"}, 2.0),
            ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": own}, 2.0),
            ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, 0.0),
            ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, 0.0),
        ]
        for environment, watchdog in cases:
            kept = dict(environment)
            self.assertEqual(Notifier.of(kept).watchdog, watchdog, environment)
            self.assertEqual(kept, {})
