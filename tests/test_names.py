"""A whole server and real name servers on loopback: a name leads to a phone, the next one when that is dead, and a name server
that never answers holds up nobody else."""

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns
from twisted.trial.unittest import TestCase

from sipgw.configuration import reading_of
from sipgw.service import SipServer
from sipgw.sip.message import Request, parse
from tests.transport.authority import HOST, Authority, Impostor, Zone

SCRIPT = """
socket = udp:127.0.0.1:0
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
modparam("tm", "fr_timeout", 1)
modparam("tm", "T1_timer", 100)
route {
    if ($rm == "OPTIONS") { sl_send_reply(200, "Here"); exit; }
    t_on_failure("gone");
    t_relay();
}
failure_route[gone] {
    t_reply(404, "All gone");
}
"""


class Phone(DatagramProtocol):
    """A phone that keeps what it receives and answers requests with ``status``, or not at all (0)."""

    transport: Any

    def __init__(self, reactor, status=0):
        self.status = status
        self.inbox = []
        self.waiting = None
        self.udp = reactor.listenUDP(0, self, interface=HOST)
        self.port = self.udp.getHost().port

    def datagramReceived(self, data, address):
        """Keep it, and answer."""
        message = parse(data)
        self.inbox.append(message)
        if isinstance(message, Request) and self.status:
            lines = "".join(f"Via: {via}\r\n" for via in message.headers("Via"))
            lines += "".join(f"{name}: {message.header(name)}\r\n" for name in ("From", "To", "Call-ID", "CSeq"))
            self.transport.write(f"SIP/2.0 {self.status} X\r\n{lines}Content-Length: 0\r\n\r\n".encode(), address)
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(None)

    async def receive(self):
        """The next message, waited for."""
        if not self.inbox:
            self.waiting = Deferred()
            await self.waiting
        return self.inbox.pop(0)

    def send(self, method, uri, number, port):
        """Send a request to the server."""
        self.transport.write(
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {HOST}:{self.port};branch=z9hG4bK{number}\r\nFrom: <sip:a@x>;tag=1\r\n"
            f"To: <sip:b@x>\r\nCall-ID: {number}\r\nCSeq: 1 {method}\r\nMax-Forwards: 9\r\nContent-Length: 0\r\n\r\n".encode(),
            (HOST, port),
        )


class NamesTests(TestCase):
    """Requests to names."""

    timeout = 10

    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        self.lines = []
        self.alice = self.phone()

    def phone(self, status=0):
        """A phone; it is closed in the end."""
        made = Phone(self.reactor, status)
        self.addCleanup(made.udp.stopListening)
        return made

    async def serve(self, *name_servers, script=SCRIPT):
        """A server that asks these name servers."""
        server = SipServer(reading_of(script), self.reactor, log=lambda level, text: self.lines.append(text))
        server.configure()
        server.name_servers = list(name_servers)
        server.bind()
        self.assertEqual(server.configuration.faults, [])
        self.addCleanup(self.end, server)
        await server.start()
        self.server = server
        self.port = server.sockets[0].port

    async def end(self, server):
        """Stop the server, and its last timer."""
        await server.stopService()
        if server.user._wake is not None:
            server.user._wake.cancel()

    def zone(self, *ports):
        """A name server where example.test leads to phones at ``ports``, one after another."""
        records = [dns.Record_SRV(n, 1, port, b"phone.example.test", ttl=60) for n, port in enumerate(ports)]
        made = Authority(
            self.reactor,
            Zone(
                "example.test",
                {
                    "example.test": [dns.Record_NAPTR(1, 1, b"s", b"SIP+D2U", b"", b"_sip._udp.example.test", ttl=60)],
                    "_sip._udp.example.test": records,
                    "phone.example.test": [dns.Record_A(HOST, ttl=60)],
                },
            ),
        )
        self.addCleanup(made.stop)
        return made.server

    async def test_answer(self):
        """A request to a name reaches the phone that its records lead to."""
        bob = self.phone(200)
        await self.serve(self.zone(bob.port))
        self.alice.send("MESSAGE", "sip:bob@example.test", 1, self.port)
        self.assertEqual((await self.alice.receive()).status, 200)
        self.assertEqual([message.uri for message in bob.inbox], ["sip:bob@example.test"])

    async def test_dead(self):
        """A phone that is dead is left for the next within fr_timeout; the failure route does not run."""
        dead, full, alive = self.phone(), self.phone(503), self.phone(200)
        await self.serve(self.zone(full.port, dead.port, alive.port))
        start = time.monotonic()
        self.alice.send("MESSAGE", "sip:bob@example.test", 1, self.port)
        self.assertEqual((await self.alice.receive()).status, 200)
        print(f"\nthe phone that lives answered after {time.monotonic() - start:.2f} s, two failures before it")
        branches = {message.via.branch for message in [*full.inbox, *dead.inbox, *alive.inbox]}
        self.assertEqual((len(branches), len(full.inbox), len(alive.inbox)), (3, 1, 1))

    async def test_all_dead(self):
        """When the last one has failed the failure route runs, once."""
        await self.serve(self.zone(self.phone(503).port, self.phone(503).port))
        self.alice.send("MESSAGE", "sip:bob@example.test", 1, self.port)
        answer = await self.alice.receive()
        self.assertEqual((answer.status, answer.reason), (404, "All gone"))

    async def test_unknown(self):
        """A name that does not exist is answered 476."""
        await self.serve(self.zone(9))
        self.alice.send("MESSAGE", "sip:bob@nobody.example.test", 1, self.port)
        answer = await self.alice.receive()
        self.assertEqual((answer.status, answer.reason), (476, "Unresolvable destination (476/TM)"))

    async def test_silent_name_server(self):
        """While requests wait for a name server that never answers, others are answered as fast as ever (hardening P30)."""
        silent = Impostor(self.reactor)
        self.addCleanup(silent.stop)
        await self.serve(silent.server)
        for number in range(20):
            self.alice.send("MESSAGE", f"sip:bob@example{number}.test", f"m{number}", self.port)
        carol = self.phone()
        times = []
        for number in range(100):
            start = time.monotonic()
            carol.send("OPTIONS", "sip:us", f"o{number}", self.port)
            self.assertEqual((await carol.receive()).status, 200)
            times.append(time.monotonic() - start)
        print(f"\nwith a silent name server the 99th of 100 answers took {sorted(times)[98] * 1000:.1f} ms")
        self.assertEqual((silent.asked, self.alice.inbox), (20, []))
        for number in range(20):
            self.alice.send("MESSAGE", f"sip:bob@example{number}.test", f"m{number}", self.port)
        carol.send("OPTIONS", "sip:us", "last", self.port)
        await carol.receive()
        self.assertEqual((silent.asked, self.server.user.layer.in_use), (20, 20))
