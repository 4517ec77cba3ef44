"""TCP in a server of its own process: what a connection costs, and what happens when there are no descriptors left."""

import re
import signal
import socket
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.children import HOST, Child, free_port, twistd, wait_for
from tests.transport.pump import more_descriptors
from tests.transport.rig import request

CONNECTIONS = 1000
DEAREST = 20_000
"""Octets of memory that an idle connection may cost."""
LIMIT = 128
"""File descriptors of a server that has too few."""
RECOVERY = 5.0
"""Seconds within which it serves again, once there are descriptors."""

SCRIPT = """
log_level = 2
socket = udp:{host}:{port}
socket = tcp:{host}:{port}
tcp_connection_lifetime = 3600
loadmodule "proto_udp.so"
loadmodule "proto_tcp.so"
loadmodule "sl.so"
modparam("proto_tcp", "tcp_max_connections_per_ip", 0)
route {{
	sl_send_reply(200, "OK");
}}
"""


class ChildTests(SynchronousTestCase):
    """A server and its peers."""

    def setUp(self):
        self.sockets: list[socket.socket] = []
        self.addCleanup(self.close)

    def close(self):
        """Let all peers go."""
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def serve(self, extra="") -> Child:
        """Start a server that answers everything."""
        self.port = free_port()
        directory = Path(self.mktemp()).absolute()
        directory.mkdir(parents=True)
        script = directory / "opensips.cfg"
        script.write_text(extra + SCRIPT.format(host=HOST, port=self.port))
        server = twistd(["sipgw", "-c", str(script)], directory)
        self.addCleanup(server.kill)
        wait_for(self.answers_udp, "the server answers", server)
        return server

    def end(self, server):
        """End the server, which must be in order."""
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(), 0, server.text())
        self.assertNotIn("Traceback", server.text())

    def answers_udp(self) -> bool:
        """Whether an OPTIONS over UDP is answered."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as phone:
            phone.settimeout(0.2)
            try:
                phone.connect((HOST, self.port))
                phone.send(request(via=f"{HOST}:{phone.getsockname()[1]}", transport="UDP"))
                return phone.recv(65536).startswith(b"SIP/2.0 200")
            except OSError:
                return False

    def connect(self) -> socket.socket:
        """One more connection."""
        made = socket.create_connection((HOST, self.port), 5)
        self.sockets.append(made)
        return made

    def answers(self, peer, patience=RECOVERY) -> bool:
        """Whether an OPTIONS over a connection is answered in time."""
        peer.settimeout(patience)
        peer.sendall(request())
        try:
            return bool(peer.recv(65536).startswith(b"SIP/2.0 200"))
        except TimeoutError:
            return False

    def test_memory(self):
        """An idle connection costs no more than 20 kB of memory."""
        more_descriptors(self, 2 * CONNECTIONS)
        server = self.serve()

        def resident() -> int:
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            found = re.search(r"VmRSS:\s+(\d+) kB", status)
            assert found is not None
            return int(found[1]) * 1024

        for _ in range(50):
            self.assertTrue(self.answers(self.connect()))
        before = resident()
        for _ in range(CONNECTIONS):
            self.assertTrue(self.answers(self.connect()))
        cost = (resident() - before) / CONNECTIONS
        print(f"memory per idle TCP connection: {cost:.0f} octets")
        self.assertLess(cost, DEAREST)
        self.end(server)

    def test_descriptors(self):
        """Without descriptors UDP goes on and connections that are there too; who waits is served once others have gone (F11)."""
        server = self.serve(f"open_files_limit = {LIMIT}\n")
        first = self.connect()
        self.assertTrue(self.answers(first))
        for _ in range(LIMIT):
            self.connect()
        wait_for(lambda: "no file descriptors left" in server.text(), "the server says that it has none left", server)
        for _ in range(20):
            self.assertTrue(self.answers_udp())
        self.assertTrue(self.answers(first))
        late = self.connect()
        self.assertFalse(self.answers(late, 0.1))
        self.assertEqual(server.text().count("no file descriptors left"), 1)
        begin = time.monotonic()
        for each in self.sockets[1:-1]:
            each.close()
        late.settimeout(RECOVERY)
        self.assertTrue(late.recv(65536).startswith(b"SIP/2.0 200"))
        print(f"served again {time.monotonic() - begin:.1f} s after descriptors were free")
        self.end(server)
