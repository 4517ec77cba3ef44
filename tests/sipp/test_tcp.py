"""Calls over TCP, and between TCP and UDP, through a server in its own process, with sipp as the phones."""

import os
from pathlib import Path
from xml.sax.saxutils import escape

from tests.children import HOST
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

    def register(self, contact, expires, answer, cseq, call):
        """One REGISTER over TCP, on a connection of its own, whose answer must match ``answer``."""
        values = {"user": "bob", "contact": contact, "expires": str(expires), "answer": escape(answer), "cseq": str(cseq)}
        self.calling("register", transport="tcp", status="200", options=["-cid_str", call], **values).finish()

    def test_register(self):
        """A phone registers over TCP, again, is called there and rings, and leaves."""
        callee = self.sipp("callee-talks", transport="tcp", near="TCP", far="TCP")
        contact, call = f"<sip:bob@{HOST}:{callee.port};transport=tcp>", f"bob-{os.getpid()}"
        self.register(contact, 60, f"Contact: *{contact}.*expires=60", 1, call)
        self.register(contact, 120, f"{contact}[^,]*expires=120[^,<]*Content-Length", 2, call)
        caller = self.calling("caller-talks", transport="tcp", near="TCP", far="TCP")
        for counts in (caller.finish(), callee.finish()):
            self.assertEqual(sum(number for name, number in counts.items() if name.endswith("_Retrans")), 0, counts)
        self.register("*", 0, "CSeq: 3 REGISTER", 3, call)
        self.assertEqual(self.phone.request("MESSAGE", f"sip:bob@{HOST}:{self.server.port}"), 404)

    def test_tcp(self):
        """From TCP to TCP."""
        self.talk("tcp", "tcp")

    def test_udp_to_tcp(self):
        """From UDP to TCP."""
        self.talk("udp", "tcp")

    def test_tcp_to_udp(self):
        """From TCP to UDP."""
        self.talk("tcp", "udp")
