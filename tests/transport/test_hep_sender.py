"""Tests of sipgw.transport.hep_sender: capture servers that are there, slow, gone or nowhere."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.transport.hep_sender import Place, TcpSender, UdpSender

SETTINGS: dict[str, Any] = {"most": 3, "timeout": 0.1, "tries": 2, "cooldown": 60.0}


class Names:
    """Knows names."""

    def __init__(self) -> None:
        self.asked = 0
        self.known: dict[str, str] = {}

    async def look(self, name: str, wanted: str) -> str | None:
        """The address of a name."""
        self.asked += 1
        return self.known.get(name)


class SenderTests(SynchronousTestCase):
    """TCP on a fake reactor, UDP to nowhere."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.names = Names()
        self.said: list[str] = []
        self.nobody: Any = None

    def place(self, host: str) -> Place:
        """A place."""
        return Place(host, 9060, self.names.look, self.reactor.seconds)

    def tcp(self, host: str = "192.0.2.1") -> TcpSender:
        """A sender."""
        return TcpSender(self.reactor, self.place(host), self.said.append, **SETTINGS)

    def connect(self, number: int = -1) -> Any:
        """Let a connection be made."""
        factory = self.reactor.tcpClients[number][2]
        protocol: Any = factory.buildProtocol(None)
        transport: Any = StringTransport()
        transport.abortConnection = transport.loseConnection
        protocol.makeConnection(transport)
        self.protocol = protocol
        return transport

    def refuse(self) -> None:
        """Let one fail."""
        self.reactor.tcpClients[-1][2].clientConnectionFailed(self.nobody, Failure(ConnectionRefusedError()))

    def test_one_connection(self) -> None:
        """Frames wait for one connection, go out in order, and what is lost makes the next frame connect anew."""
        sender = self.tcp()
        sender.send(b"a")
        sender.send(b"b")
        self.assertEqual([(call[0], call[1], call[3]) for call in self.reactor.tcpClients], [("192.0.2.1", 9060, 0.1)])
        transport = self.connect()
        sender.send(b"c")
        self.assertEqual(transport.value(), b"abc")
        self.protocol.connectionLost()
        sender.send(b"d")
        self.assertEqual((len(self.reactor.tcpClients), self.connect().value(), sender.lost), (2, b"d", 0))

    def test_too_many(self) -> None:
        """While there is no connection, a few frames wait; a peer that does not read is given up."""
        sender = self.tcp()
        for _ in range(5):
            sender.send(b"x")
        self.assertEqual(sender.lost, 2)
        transport = self.connect()
        transport.producer.pauseProducing()
        for _ in range(4):
            sender.send(b"y")
        self.assertEqual((sender.lost, transport.disconnecting), (3, True))
        self.protocol.resumeProducing()
        self.assertIn("it does not read", self.said[-1])

    def test_cooldown(self) -> None:
        """After two tries that failed it is left alone for a minute."""
        sender = self.tcp()
        for tries in (1, 2, 2):
            sender.send(b"x")
            if len(self.reactor.tcpClients) == tries and not self.said[tries - 1 :]:
                self.refuse()
        self.assertEqual((len(self.reactor.tcpClients), sender.lost), (2, 3))
        self.assertIn("2 tries to connect have failed, the next is in 60 s", self.said[-1])
        self.reactor.advance(60)
        sender.send(b"x")
        self.assertEqual(self.connect(2).value(), b"x")

    def test_names(self) -> None:
        """A name is looked up at the first frame and again after a minute; one that has no address loses frames."""
        self.names.known["capture"] = "192.0.2.7"
        sender = self.tcp("capture")
        sender.send(b"x")
        self.assertEqual((self.reactor.tcpClients[0][0], self.names.asked), ("192.0.2.7", 1))
        self.connect()
        self.protocol.connectionLost()
        self.names.known.clear()
        self.reactor.advance(61)
        sender.send(b"y")
        self.assertEqual((self.reactor.tcpClients[1][0], self.names.asked), ("192.0.2.7", 2))
        nowhere = self.tcp("nowhere")
        nowhere.send(b"x")
        self.assertEqual((nowhere.lost, self.said[-1]), (1, "nothing goes to nowhere:9060: its name has no address"))

    def test_datagrams(self) -> None:
        """What cannot be sent as a datagram is counted, and said."""
        sender = UdpSender(Place("127.0.0.1", 9, self.names.look, self.reactor.seconds), {}, self.said.append)
        self.addCleanup(sender.close)
        sender.send(b"x" * 70_000)
        self.assertEqual(sender.lost, 1)
        self.assertIn("too long", self.said[-1])
        sender = UdpSender(self.place("nowhere"), {}, self.said.append)
        sender.send(b"x")
        self.assertEqual(sender.lost, 1)


class LiveTests(TestCase):
    """A real connection."""

    async def test_stream(self) -> None:
        """Frames arrive whole and in order, also those of before the connection; close lets them all go out."""
        from twisted.internet import defer
        from twisted.internet import reactor as installed

        reactor: Any = installed

        got: Any = defer.Deferred()
        sender: Any = None

        class Server(Protocol):
            data = b""

            def dataReceived(self, data: bytes) -> None:
                self.data += data

            def connectionLost(self, reason: Any = None) -> None:
                got.callback(self.data)

        port: Any = reactor.listenTCP(0, Factory.forProtocol(Server), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        names = Names()
        place = Place("127.0.0.1", port.getHost().port, names.look, reactor.seconds)
        sender = TcpSender(reactor, place, self.fail, most=2000, timeout=5, tries=2, cooldown=1)
        frames = [b"%05d" % number * 100 for number in range(1000)]
        for frame in frames:
            sender.send(frame)
        while sender._link is None:
            await pause(reactor)
        sender.close()
        self.assertEqual(await got, b"".join(frames))


def pause(reactor: Any) -> Any:
    """A turn of the reactor."""
    from twisted.internet.task import deferLater

    return deferLater(reactor, 0.001)
