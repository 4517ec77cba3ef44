"""Tests of sipgw.transport.hep_receiver: frames over connections, in pieces, and peers that misbehave."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport import hep
from sipgw.transport.hep_receiver import MOST_OF_HOST, Limits, TcpReceiver, UdpReceiver, Way
from tests.doubles import Reactor
from tests.transport.test_hep import frame

FRAME = hep.encode(frame(), 3, hep.Style())


class TcpTests(SynchronousTestCase):
    """A receiver on a reactor in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.taken: list[bytes] = []
        self.refused: list[str] = []
        self.receiver = TcpReceiver(
            self.reactor, "192.0.2.9", 9060, lambda data, _way: self.taken.append(data),
            lambda _way, why: self.refused.append(why), Limits(pieces=5),
        )
        self.receiver.listen()

    def connect(self, host: str = "192.0.2.1") -> Any:
        """A connection, None if it is refused."""
        link = self.receiver.buildProtocol(IPv4Address("TCP", host, 40_000))
        if link is not None:
            link.makeConnection(StringTransport())
        return link

    def test_pieces(self) -> None:
        """Frames are cut as their lengths say, however they come."""
        link = self.connect()
        self.assertEqual(link.way, Way("hep_tcp", ("192.0.2.1", 40_000), ("192.0.2.9", 9060)))
        link.dataReceived(FRAME + FRAME + FRAME[:3])
        link.dataReceived(FRAME[3:] + FRAME[:50])
        link.dataReceived(FRAME[50:])
        self.assertEqual((self.taken, self.refused), ([FRAME] * 4, []))

    def test_too_many_pieces(self) -> None:
        """A frame that comes in too many ends its connection; as many frames as that do not."""
        link = self.connect()
        link.dataReceived(FRAME[:-10])
        for _ in range(20):
            link.dataReceived(FRAME[-10:] + FRAME[:-10])
        self.assertEqual((len(self.taken), self.refused), (20, []))
        for octet in FRAME[-10:-6]:
            self.assertFalse(link.transport.disconnected)
            link.dataReceived(bytes([octet]))
        self.assertIn("5 pieces", self.refused[0])
        self.assertTrue(link.transport.disconnected)

    def test_garbage(self) -> None:
        """What is no frame ends the connection, after the frames before it were taken."""
        link = self.connect()
        link.dataReceived(FRAME + b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual((self.taken, len(self.refused), link.transport.disconnected), ([FRAME], 1, True))

    def test_time(self) -> None:
        """Silence ends a connection: soon at its beginning and within a frame, later after one."""
        for said, lasts in ((b"", 4), (FRAME[:9], 4), (FRAME, 120), (FRAME + FRAME[:9], 4)):
            link = self.connect()
            if said:
                link.dataReceived(said)
            self.reactor.advance(lasts - 1)
            self.assertFalse(link.transport.disconnected, said[:9])
            self.reactor.advance(1)
            self.assertTrue(link.transport.disconnected, said[:9])
            link.connectionLost()
        self.assertEqual((self.refused, self.receiver.links), (["a frame does not come to its end"] * 2, set()))

    def test_many(self) -> None:
        """One host has so many connections; when one of them ends there is room again."""
        links = [self.connect() for _ in range(MOST_OF_HOST + 1)]
        self.assertIsNone(links[-1])
        self.assertIsNotNone(self.connect("192.0.2.2"))
        links[0].connectionLost()
        self.assertIsNotNone(self.connect())
        self.receiver.stop()
        self.assertTrue(links[5].transport.disconnected)


class UdpTests(SynchronousTestCase):
    """A receiver of datagrams."""

    def test_datagrams(self) -> None:
        """Each is a frame, but what is too short to be one."""
        taken: list[Any] = []
        receiver = UdpReceiver("192.0.2.9", 9060, lambda data, way: taken.append((data, way)))
        receiver.listen(Reactor())
        receiver.datagramReceived(FRAME, ("192.0.2.1", 5000))
        receiver.datagramReceived(b"\r\n\r\n", ("192.0.2.1", 5000))
        self.assertEqual(taken, [(FRAME, Way("hep_udp", ("192.0.2.1", 5000), ("192.0.2.9", 9060)))])
