"""A transaction user with real sockets on a pumped reactor, for tests of streams from bytes to bytes."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.user import TransactionUser
from sipgw.modules.tm import Tm
from sipgw.script.routes import Route, RouteSet
from sipgw.script.symbols import RouteKind
from sipgw.statistics import Statistics
from sipgw.transport.stream import StreamSettings, StreamSocket
from sipgw.transport.udp import UdpSocket
from tests.proxy.rig import FakeServer
from tests.transport.pump import Listener, Peer, Pump


def request(
    method="OPTIONS", uri="sip:127.0.0.1", *, via="127.0.0.1:9", params="", branch="a", transport="TCP", extra="", body=""
):
    """A request as a peer writes it."""
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {via};branch=z9hG4bK{branch}{params}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:a@example.org>;tag=a{branch}\r\nTo: <sip:b@example.org>\r\nCall-ID: {branch}@test\r\nCSeq: 1 {method}\r\n"
        f"{extra}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def answer(text, status=200):
    """The answer of a peer to the request that it received as text."""
    wanted = ("via:", "from:", "to:", "call-id:", "cseq:")
    lines = [line for line in text.split("\r\n")[1:] if line.lower().startswith(wanted)]
    head = "\r\n".join([f"SIP/2.0 {status} Reason", *lines, "Content-Length: 0"])
    return f"{head}\r\n\r\n".encode()


class StreamCase(SynchronousTestCase):
    """A server with one TCP socket and one UDP socket; OPTIONS are answered statelessly, all else is relayed by tm."""

    host = "127.0.0.1"
    globals: dict[str, Any] = {}

    def setUp(self):
        self.pump = Pump()
        self.addCleanup(self.pump.close)
        self.lines: list[str] = []
        self.user = TransactionUser(
            self.pump.seconds,
            self.pump.seconds,
            lambda level, text: self.lines.append(text),
            {"server_signature": 0, **self.globals},
            Statistics(),
            self.pump.callLater,
        )
        self.tm = Tm(FakeServer(self.user), fr_timeout=30)  # type: ignore[arg-type]
        try:
            self.tm.start().send(None)
        except StopIteration:
            pass
        self.runs: list[Any] = []
        routes = RouteSet()
        routes.request = Route("route", RouteKind.REQUEST, self.route, True, "test.cfg", 1)
        self.user.routes = routes
        self.udp = UdpSocket(self.user, self.pump, self.host, 0)
        self.listen(self.udp)
        self.tcp = self.stream()

    def listen(self, made):
        """Open a socket of ours, until the end of the test."""
        made.open()
        self.addCleanup(made.stop)
        self.user.add_socket(made)
        made.start()
        return made

    def stream(self, host=None, **settings):
        """One more TCP socket of ours."""
        return self.listen(StreamSocket(self.user, self.pump, host or self.host, 0, settings=StreamSettings(**settings)))

    async def route(self, run):
        """What the server does with a request."""
        self.runs.append(run)
        if run.message.method == "OPTIONS":
            self.user.reply(run, 200, "OK")
        elif run.message.method == "ACK":
            await self.tm.t_relay(run)
        elif await self.tm.t_relay(run) < 0:
            self.user.reply(run, 477, "Send failed")

    def peer(self, port=None, **options):
        """A client, connected to our socket or to another port."""
        peer = Peer(self.pump, port or self.tcp.port, self.host, **options)
        self.addCleanup(peer.close)
        return peer

    def peers(self, count, **options):
        """Several clients."""
        made = []
        for number in range(count):
            made.append(self.peer(**options))
            if number % 64 == 63:
                self.pump.turn()
        return made

    def listener(self, **options):
        """A server of a peer."""
        listener = Listener(self.pump, self.host, **options)
        self.addCleanup(listener.close)
        return listener

    def count(self, wanted):
        """Wait until there are so many connections."""
        connections = self.user.connections
        self.pump.until(lambda: len(connections) == wanted, f"the number of connections is not {wanted}: that")
