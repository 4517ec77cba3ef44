"""Tests of sipgw.modules.health, and of what systemd is told: pages as a probe asks for them, and a twistd child."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from sipgw.testing import Wire, WiredServer
from tests.children import HOST, ROOT, TWISTD, Child, free_port

SCRIPT = """
socket = udp:127.0.0.1:5060
log_level = -1
loadmodule "proto_udp.so"
loadmodule "httpd.so"
loadmodule "status_report.so"
modparam("status_report", "script_sr_group", "gateways")
loadmodule "health.so"
route { exit; }
"""
UNIT = """
socket = udp:127.0.0.1:5060
loadmodule "proto_udp.so"
route { exit; }
"""


class HealthTests(SynchronousTestCase):
    """The two pages."""

    def start(self, *required: str) -> None:
        reactor = MemoryReactorClock()
        more = "".join(f'modparam("health", "require", "{each}")\n' for each in required)
        self.wired = WiredServer(SCRIPT + more, wire=Wire(reactor))
        self.factory: Any = reactor.tcpServers[0][1]

    def ask(self, path: str, method: str = "GET") -> tuple[int, Any]:
        """The status and the body of an answer."""
        channel = self.factory.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.addCleanup(channel.connectionLost, None)
        head, _, body = transport.value().decode().partition("\r\n\r\n")
        status = int(head.split()[1])
        return status, json.loads(body) if status in (200, 503) and body else body

    def test_core(self) -> None:
        """The server is ready once it has started and until it ends; it lives all the time."""
        self.start()
        core = self.wired.user.status
        self.assertEqual(self.ask("/health/ready"), (200, {"ready": True, "missing": []}))
        status, answer = self.ask("/health/live")
        self.assertEqual((status, answer["live"]), (200, True))
        core.initializing()
        self.assertEqual(self.ask("/health/ready"), (503, {"ready": False, "missing": ["core: initializing"]}))
        core.running()
        core.terminating()
        self.assertEqual(self.ask("/health/ready"), (503, {"ready": False, "missing": ["core: shutting down"]}))
        self.assertEqual(self.ask("/health/live")[0], 200)

    def test_required(self) -> None:
        """What is required must be ready too: a group, one of its identifiers, or all; what is not there is not ready."""
        down = ["gateways/main: none answers"]
        cases: list[tuple[tuple[str, ...], list[str]]] = [
            ((), []), (("gateways",), down), (("gateways/main",), down), (("all",), down),
            (("nosuch core",), ["nosuch: there is none"]), (("gateways/x",), ["gateways/x: there is none"]),
        ]
        for required, missing in cases:
            self.start(*required)
            group = self.wired.user.status.find("gateways")
            assert group is not None
            group.identifier().set(-1, "none answers")
            status, answer = self.ask("/health/ready")
            self.assertEqual((status, answer["missing"]), (503 if missing else 200, missing), required)

    def test_refused(self) -> None:
        """Other pages and methods are refused."""
        self.start()
        self.assertEqual([self.ask("/health")[0], self.ask("/health/x")[0], self.ask("/health/live", "POST")[0]], [404, 404, 405])
        self.assertEqual(self.ask("/health/live", "HEAD"), (200, ""))


class SystemdTests(SynchronousTestCase):
    """A child whose NOTIFY_SOCKET is ours."""

    def start(self, text: str, **environment: str) -> Child:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        (directory / "opensips.cfg").write_text(text)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.listener.close)
        self.listener.settimeout(20)
        address = f"@sipgw-test-{os.getpid()}-{id(self)}"
        self.listener.bind("\0" + address[1:])
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        command = [*TWISTD, "-n", "--pidfile=", "sipgw", "-c", "opensips.cfg", "--socket", f"udp:{HOST}:{free_port()}"]
        child = Child(command, directory, {"PYTHONPATH": path, "NOTIFY_SOCKET": address, **environment})
        self.addCleanup(child.kill)
        return child

    def told(self, but: str = "WATCHDOG=1") -> str:
        """What comes next, without the signs of life."""
        while (text := self.listener.recv(4096).decode()) == but:
            pass
        return text

    def test_life(self) -> None:
        """It is ready, alive, reloads (also what has faults), stops."""
        child = self.start(UNIT, WATCHDOG_USEC="300000")
        ready = self.told()
        self.assertTrue(ready.startswith("READY=1\nSTATUS=listens on udp:127.0.0.1:"), ready)
        self.assertIn(f"MAINPID={child.process.pid}", ready)
        for _ in range(3):
            self.assertEqual(self.listener.recv(4096), b"WATCHDOG=1")
        for text in (UNIT, "nonsense"):
            (child.directory / "opensips.cfg").write_text(text)
            child.process.send_signal(signal.SIGHUP)
            self.assertTrue(self.told().startswith("RELOADING=1\nMONOTONIC_USEC="))
            self.assertTrue(self.told().startswith("READY=1\n"))
        child.process.send_signal(signal.SIGTERM)
        self.assertTrue(self.told().startswith("STOPPING=1"))
        self.assertEqual(child.wait(), 0)

    def test_failure(self) -> None:
        """A server that cannot start never says that it is ready, but why it cannot."""
        child = self.start(UNIT + 'loadmodule "mi_fifo.so"\nmodparam("mi_fifo", "fifo_name", "/nosuch/fifo")\n')
        self.assertIn("STATUS=module mi_fifo cannot start", self.told())
        self.assertTrue(self.told().startswith("STOPPING=1"))
        self.assertEqual(child.wait(), 1)
