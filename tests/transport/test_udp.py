"""UDP sockets and flows, on the loopback interface and without a running reactor."""

import errno
import socket
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from sipgw.transport import udp
from sipgw.transport.udp import BACKLOG, DRAIN, UdpSocket

OPTIONS = b"OPTIONS sip:127.0.0.1 SIP/2.0\r\n\r\n"


class Reactor(Clock):
    """Notes who reads and writes."""

    def __init__(self):
        super().__init__()
        self.readers = []
        self.writers = []

    def addReader(self, reader):
        """Note a reader."""
        self.readers.append(reader)

    def removeReader(self, reader):
        """Forget a reader."""
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer):
        """Note a writer, once."""
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer):
        """Forget a writer."""
        if writer in self.writers:
            self.writers.remove(writer)


class User:
    """Keeps what it receives."""

    log_level = 1

    def __init__(self, reactor):
        self.clock = reactor.seconds
        self.received = []
        self.lines = []

    def receive(self, data, flow):
        """Keep one datagram; a bug on demand."""
        if b"BUG" in data:
            raise RuntimeError("a bug")
        self.received.append((data, flow))

    def log(self, level, text):
        """Keep one line."""
        self.lines.append((level, text))


class UdpTestCase(SynchronousTestCase):
    """A socket of ours and one of a peer."""

    host = "127.0.0.1"
    family = socket.AF_INET

    def setUp(self):
        self.reactor = Reactor()
        self.user: Any = User(self.reactor)
        self.udp: Any = UdpSocket(self.user, self.reactor, self.host, 0)
        self.udp.open()
        self.addCleanup(self.udp.stop)
        self.peer = socket.socket(self.family, socket.SOCK_DGRAM)
        self.addCleanup(self.peer.close)
        self.peer.bind((self.host, 0))
        self.peer.settimeout(5)
        self.peer_port = self.peer.getsockname()[1]

    def arrive(self, data=OPTIONS, count=1):
        """The peer sends."""
        for _ in range(count):
            self.peer.sendto(data, (self.host, self.udp.port))


class ReceiveTests(UdpTestCase):
    """Datagrams in."""

    def test_interface(self):
        """The socket is what a reactor wants, and reads from ``start`` to ``stop``."""
        verifyObject(IReadWriteDescriptor, self.udp)
        self.udp.start()
        self.assertEqual(self.reactor.readers, [self.udp])
        self.assertGreaterEqual(self.udp.fileno(), 0)
        self.udp.stop()
        self.udp.stop()
        self.assertEqual(self.reactor.readers, [])
        self.assertEqual(self.udp.fileno(), -1)

    def test_flow(self):
        """A datagram comes with a flow back to its sender."""
        self.arrive()
        self.udp.doRead()
        [(data, flow)] = self.user.received
        self.assertEqual(data, OPTIONS)
        self.assertEqual((flow.transport, flow.host, flow.port), ("udp", self.host, self.peer_port))
        self.assertFalse(flow.reliable)
        self.assertIs(flow.socket, self.udp)
        flow.send(b"answer")
        self.assertEqual(self.peer.recv(99), b"answer")
        self.assertEqual(self.user.lines, [])

    def test_flows_are_kept(self):
        """Datagrams of one peer come on one flow; not more than ``MAX_PEERS`` are kept, in either direction."""
        self.patch(udp, "MAX_PEERS", 2)
        self.arrive(count=2)
        self.udp.doRead()
        (_, first), (_, second) = self.user.received
        self.assertIs(first, second)
        self.udp._peers.update(dict.fromkeys(range(9), first))
        self.udp._peers.pop(first.address)
        self.arrive()
        self.udp.doRead()
        self.assertEqual(list(self.udp._peers), [first.address])
        self.assertIs(self.udp.flow(self.host, 5), self.udp.flow(self.host, 5))
        for port in range(6, 20):
            self.assertEqual(self.udp.flow(self.host, port).port, port)
        self.assertLessEqual(len(self.udp._routes), 2)

    def test_drain(self):
        """One wake-up takes no more than its share; the next one takes the rest, and an empty socket nothing."""
        self.arrive(count=DRAIN + 3)
        self.udp.doRead()
        self.assertEqual(len(self.user.received), DRAIN)
        self.udp.doRead()
        self.udp.doRead()
        self.assertEqual(len(self.user.received), DRAIN + 3)

    def test_keep_alives(self):
        """What is too short for SIP is dropped before anybody parses it."""
        for data in (b"", b"\r\n\r\n", b"\0\0\0\0", b"x" * 19):
            self.arrive(data)
        self.udp.doRead()
        self.assertEqual((self.user.received, self.udp.ignored), ([], 4))

    def test_largest(self):
        """The largest datagram of IPv4 arrives whole."""
        self.arrive(b"x" * 65507)
        self.udp.doRead()
        self.assertEqual(len(self.user.received[0][0]), 65507)

    def test_bug(self):
        """A bug met by one datagram is logged, and the next datagram is served."""
        self.arrive(b"BUG" + OPTIONS)
        self.arrive()
        self.udp.doRead()
        self.assertEqual(len(self.user.received), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_stopped_by_message(self):
        """A message that stops the socket ends the reading."""
        self.user.receive = lambda data, flow: self.udp.stop()
        self.arrive(count=2)
        self.udp.doRead()
        self.assertEqual(self.udp.fileno(), -1)

    def test_kernel_error(self):
        """An error of the kernel on reading is one line and no traceback."""

        def broken(size):
            raise OSError(errno.ENOMEM, "no memory")

        self.udp._recvfrom = broken
        self.udp.doRead()
        self.assertEqual(len(self.user.lines), 1)
        self.assertIn("no memory", self.user.lines[0][1])

    def test_connection_lost(self):
        """An error that the reactor saw on the descriptor does not end the socket."""
        self.udp.start()
        self.reactor.removeReader(self.udp)
        self.udp.connectionLost(None)
        self.reactor.advance(0)
        self.assertEqual(self.reactor.readers, [self.udp])
        self.assertIn(str(self.udp), self.user.lines[0][1])


class Ipv6Tests(ReceiveTests):
    """The same over IPv6."""

    host = "::1"
    family = socket.AF_INET6

    def test_largest(self):
        """The largest datagram that fits the loopback's IPv6 arrives whole."""
        self.arrive(b"x" * 65487)
        self.udp.doRead()
        self.assertEqual(len(self.user.received[0][0]), 65487)

    def test_text(self):
        """An IPv6 address is written in brackets before its port."""
        self.assertEqual(str(self.udp), f"udp:[::1]:{self.udp.port}")

    def test_family(self):
        """An IPv4 peer cannot be reached from an IPv6 socket."""
        self.assertIn("cannot be reached", self.udp.flow("127.0.0.1", 5060).refused)


class SendTests(UdpTestCase):
    """Datagrams out."""

    def failing(self, *numbers):
        """Make the next sends fail with these errors, later ones succeed."""
        left = list(numbers)
        real = self.udp.sendto
        sent = []

        def sendto(data, address):
            if left:
                number = left.pop(0)
                raise OSError(number, errno.errorcode[number])
            sent.append(data)
            return real(data, address)

        self.udp.sendto = sendto
        return sent

    def test_send(self):
        """``send`` and a flow of ``flow`` reach the peer."""
        self.udp.send(b"one", self.host, self.peer_port)
        flow = self.udp.flow(self.host, self.peer_port)
        flow.send(b"two")
        self.assertEqual((self.peer.recv(99), self.peer.recv(99)), (b"one", b"two"))
        self.assertEqual(flow.refused, "")

    def test_refused(self):
        """Nothing is sent to broadcast, multicast and nameless addresses, names and port 0; the log says so once a second."""
        sent = self.failing()
        for host, port in (
            ("255.255.255.255", 5060),
            ("224.0.1.75", 5060),
            ("0.0.0.0", 5060),
            ("localhost", 5060),
            ("::1", 5060),
            ("127.0.0.1", 0),
            ("127.0.0.1", 65536),
        ):
            flow = self.udp.flow(host, port)
            self.assertTrue(flow.refused)
            flow.send(OPTIONS)
        self.assertEqual(sent, [])
        self.assertEqual(len(self.user.lines), 1)
        self.reactor.advance(1)
        flow.send(OPTIONS)
        self.assertIn("(6 more like this)", self.user.lines[1][1])

    def test_unreachable(self):
        """What the kernel refuses is a lost datagram: counted, logged once a second for each kind, never raised."""
        self.failing(*[errno.ENETUNREACH] * 5, errno.EPERM, errno.ENETUNREACH)
        for _ in range(6):
            self.udp.send(OPTIONS, self.host, self.peer_port)
        self.assertEqual(self.udp.lost, 6)
        self.assertEqual(len(self.user.lines), 2)
        self.reactor.advance(1)
        self.udp.send(OPTIONS, self.host, self.peer_port)
        self.assertIn("ENETUNREACH (4 more like this)", self.user.lines[2][1])

    def test_told(self):
        """``send`` of a flow says what is known at once: lost, or sent or queued."""
        flow = self.udp.flow(self.host, self.peer_port)
        self.failing(errno.EINVAL, errno.ENETUNREACH, errno.EAGAIN)
        self.assertEqual([flow.send(OPTIONS) for _ in range(4)], [False, False, True, True])
        self.assertIs(self.udp.flow("224.0.1.75", 5060).send(OPTIONS), False)

    def test_silence(self):
        """A log level below that of warnings keeps them out of the log."""
        self.user.log_level = -1
        self.udp.send(OPTIONS, "224.0.1.75", 5060)
        self.assertEqual(self.user.lines, [])

    def test_too_long(self):
        """A message that no datagram holds is lost with a line in the log."""
        self.udp.send(b"x" * 65508, self.host, self.peer_port)
        self.assertEqual(self.udp.lost, 1)
        self.assertIn("65508 octets", self.user.lines[0][1])

    def test_full_buffer(self):
        """Datagrams wait for a full send buffer and leave in order when there is room, those that fail then excepted."""
        sent = self.failing(*[errno.EAGAIN] * 4, errno.EPERM)
        for data in (b"1", b"2", b"3"):
            self.udp.send(data, self.host, self.peer_port)
        self.assertEqual(self.reactor.writers, [self.udp])
        self.udp.doWrite()
        self.assertEqual(sent, [])
        self.udp.doWrite()
        self.assertEqual(sent, [b"2", b"3"])
        self.assertEqual(self.reactor.writers, [])
        self.assertEqual(self.udp.lost, 1)

    def test_backlog_is_bounded(self):
        """More than the backlog holds is lost."""
        self.failing(*[errno.EAGAIN] * (BACKLOG + 2))
        for _ in range(BACKLOG + 2):
            self.udp.send(OPTIONS, self.host, self.peer_port)
        self.assertEqual(self.udp.lost, 2)

    def test_stopped(self):
        """A send after ``stop`` is lost in silence."""
        flow = self.udp.flow(self.host, self.peer_port)
        self.udp.stop()
        flow.send(OPTIONS)
        self.assertEqual((self.udp.lost, self.user.lines), (1, []))


class OpenTests(SynchronousTestCase):
    """Binding."""

    def setUp(self):
        self.reactor = Reactor()
        self.user = User(self.reactor)

    def test_in_use(self):
        """A port that somebody has is refused by ``open``; ``reuse_port`` on both shares it."""
        first = UdpSocket(self.user, self.reactor, "127.0.0.1", 0, reuse_port=True)
        first.open()
        self.addCleanup(first.stop)
        second = UdpSocket(self.user, self.reactor, "127.0.0.1", first.port)
        error = self.assertRaises(OSError, second.open)
        self.assertEqual(error.errno, errno.EADDRINUSE)
        second.stop()
        third = UdpSocket(self.user, self.reactor, "127.0.0.1", first.port, reuse_port=True)
        third.open()
        third.stop()

    def test_options(self):
        """The type of service is set on either family, and the receive buffer grows."""
        for host, level, option in (
            ("127.0.0.1", socket.IPPROTO_IP, socket.IP_TOS),
            ("::1", socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        ):
            udp = UdpSocket(self.user, self.reactor, host, 0, tos=16, tag="t", advertised_host="a", advertised_port=7)
            udp.open()
            self.addCleanup(udp.stop)
            self.assertEqual(udp._socket.getsockopt(level, option), 16)
            self.assertGreater(udp._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF), 200_000)
            self.assertEqual((udp.tag, udp.advertised_host, udp.advertised_port), ("t", "a", 7))
