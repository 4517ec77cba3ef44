"""Calls over TCP, and between TCP and UDP, through a server in its own process, with sipp as the phones."""

import os
from pathlib import Path

from tests.sipp.harness import CONFIG, Server
from tests.sipp.test_calls import SippTestCase

CALLS = 5000 if os.environ.get("SIPGW_NIGHTLY") else 200
"""Calls of each direction."""


class TcpTests(SippTestCase):
    """A server that has TCP and UDP sockets."""

    def setUp(self):
        self.config = Path(self.mktemp()).absolute()
        self.config.parent.mkdir(parents=True, exist_ok=True)
        udp = 'loadmodule "proto_udp.so"\n'
        self.config.write_text(Path(CONFIG).read_text().replace(udp, f'{udp}loadmodule "proto_tcp.so"\n'))
        super().setUp()

    def serve(self):
        """A server with both sockets at the same port."""
        return Server(self.directory / "server", str(self.config), ("udp", "tcp"))

    def talk(self, near, far):
        """Many calls from a phone of one transport, all at once over its one connection, to a phone of another."""
        options = ["-r", "200"]
        transports = {"near": near.upper(), "far": far.upper()}
        callee = self.sipp("callee-talks", calls=CALLS, ring="10", transport=far, **transports)
        self.phone.register("bob", callee.port, params=f";transport={far}")
        caller = self.calling("caller-talks", calls=CALLS, options=options, talk="10", transport=near, **transports)
        caller.finish()
        callee.finish()
        self.assertEqual((caller.statistics(), callee.statistics()), ((CALLS, 0), (CALLS, 0)))

    def test_tcp(self):
        """From TCP to TCP."""
        self.talk("tcp", "tcp")

    def test_udp_to_tcp(self):
        """From UDP to TCP."""
        self.talk("udp", "tcp")

    def test_tcp_to_udp(self):
        """From TCP to UDP."""
        self.talk("tcp", "udp")
