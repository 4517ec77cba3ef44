"""The PROXY protocol: its headers, and sockets that take and send them."""

import socket
import struct
from typing import Any

from hypothesis import given, settings, strategies
from twisted.trial.unittest import SynchronousTestCase

from sipgw.configuration import reading_of
from sipgw.service import SipServer
from sipgw.transport.proxy_protocol import LONGEST, SIGNATURE, read, write
from sipgw.transport.stream import StreamSocket
from sipgw.transport.udp import UdpSocket
from tests.transport.pump import Pump
from tests.transport.rig import StreamCase, request

LINE = b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 2222\r\n"
FOUR = {"src_ip": "192.0.2.7", "src_port": 1111, "dst_ip": "192.0.2.8", "dst_port": 2222, "af": "INET"}
LINE6 = b"PROXY TCP6 2001:db8::7 2001:db8::8 1111 2222\r\n"
SIX = {"src_ip": "2001:db8::7", "src_port": 1111, "dst_ip": "2001:db8::8", "dst_port": 2222, "af": "INET6"}


def binary(command=0x21, kind=0x11, host="192.0.2.7", other="192.0.2.8", more=b"", size=None):
    """A header of version 2."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    body = socket.inet_pton(family, host) + socket.inet_pton(family, other) + struct.pack("!HH", 1111, 2222) + more
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body) if size is None else size) + body


HEADERS = [
    (LINE, FOUR),
    (LINE6, SIX),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 anything 1 2\r\n", None),
    (binary(), FOUR),
    (binary(kind=0x12), FOUR),
    (binary(kind=0x21, host="2001:db8::7", other="2001:db8::8"), SIX),
    (binary(kind=0x22, host="2001:db8::7", other="2001:db8::8"), SIX),
    (binary(more=b"\x04\x00\x03abc"), FOUR),
    (binary(command=0x20), None),
    (binary(kind=0x00), None),
    (binary(kind=0x31), None),
    (SIGNATURE + b"\x20\x00\x00\x00", None),
]
"""Headers, and what they say."""

MALFORMED = [
    b"PROXY TCP9 192.0.2.7 192.0.2.8 1111 2222\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1111\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 2222 3\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::8 1111 2222\r\n",
    b"PROXY TCP6 192.0.2.7 192.0.2.8 1111 2222\r\n",
    b"PROXY TCP4 192.0.2.7 nowhere 1111 2222\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 1111 65536\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.8 -1 2222\r\n",
    b"PROXY TCP4 192.0.2.\xff 192.0.2.8 1 2222\r\n",
    b"PROXY  TCP4 192.0.2.7 192.0.2.8 1111 2222\r\n",
    b"PROXY \r\n",
    b"PROXY " + b"x" * 120,
    binary(command=0x11),
    binary(command=0x22),
    binary(size=11),
    binary(size=LONGEST + 1),
]
"""What begins as a header and is none."""


class HeaderTests(SynchronousTestCase):
    """Bytes in, bytes out."""

    def test_read(self):
        """A header is read with its length, whatever follows; any part of it asks for more."""
        for data, said in HEADERS:
            self.assertEqual(read(data + b"OPTIONS"), (said, len(data)), data)
            for cut in range(1, len(data)):
                self.assertIsNone(read(data[:cut]), data[:cut])

    def test_none(self):
        """What begins otherwise has no header."""
        for data in (b"", b"OPTIONS sip:x", b"PROXIMITY sip:x", b"\r\n\r\nOPTIONS", b"PUBLISH"):
            self.assertEqual(read(data), (None, 0))

    def test_malformed(self):
        """What cannot be read is refused, and never guessed."""
        for data in MALFORMED:
            self.assertRaises(ValueError, read, data)

    def test_write(self):
        """What is written can be read."""
        self.assertEqual(write("192.0.2.7", 1111, "192.0.2.8", 2222), LINE)
        self.assertEqual(write("2001:db8::7", 1111, "2001:db8::8", 2222), LINE6)

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(strategies.binary(max_size=80), strategies.sampled_from([LINE[:6], LINE[:11], SIGNATURE, SIGNATURE + b"\x21\x11"]))
    def test_anything(self, data, front):
        """Whatever comes, it is a header, a part of one, none, or a ValueError."""
        try:
            found = read(front + data)
        except ValueError:
            return
        if found is not None:
            self.assertLessEqual(found[1], len(front + data))


class StreamTests(StreamCase):
    """Over TCP."""

    def setUp(self):
        super().setUp()
        self.open = self.listen(StreamSocket(self.user, self.pump, self.host, 0, allow_proxy=True))

    def test_taken(self):
        """A header at the front of a connection is taken off, in however many pieces it comes; it holds for all that follows."""
        for data, said in HEADERS:
            peer = self.peer(self.open.port)
            for piece in (data[:1], data[1:13], data[13:], request(), request(branch="b")):
                peer.send(piece)
            self.assertEqual(peer.statuses(2), ["200", "200"])
            for run in self.runs:
                self.assertEqual((run.flow.proxy_header, run.flow.host, run.flow.port), (said, self.host, peer.port))
            self.runs.clear()
            peer.close()

    def test_with_message(self):
        """A header may come in one piece with messages, or not at all."""
        for front in (LINE, b""):
            peer = self.peer(self.open.port)
            peer.send(front + request() + request(branch="b"))
            self.assertEqual(peer.statuses(2), ["200", "200"])
        self.assertIsNone(self.runs[-1].flow.proxy_header)

    def test_malformed(self):
        """A malformed header ends the connection at once."""
        peer = self.peer(self.open.port)
        peer.send(MALFORMED[0] + request())
        self.assertIn(peer.end(), ("FIN", "RST"))
        self.assertIn("is no PROXY line", self.lines[0])
        self.assertEqual(self.runs, [])

    def test_slow(self):
        """A header has as long as a message."""
        peer = self.peer(self.open.port)
        peer.send(LINE[:10])
        self.pump.until(lambda: any(each._begun for each in self.user.connections))
        self.pump.advance(4)
        self.assertEqual(peer.end(), "FIN")
        self.assertIn("did not end within 4 s", self.lines[0])

    def test_not_allowed(self):
        """Where none is expected a header makes the first message unreadable."""
        peer = self.peer()
        peer.send(LINE + request())
        self.pump.until(lambda: self.lines)
        self.assertIn("bad message", self.lines[0])
        self.assertEqual(self.runs, [])

    def test_sent(self):
        """A connection that we open begins with its own ends, before what waited for it."""
        server = self.listen(StreamSocket(self.user, self.pump, self.host, 0, send_proxy=True))
        listener = self.listener()
        server.send(request(), self.host, listener.port)
        server.send(request(branch="b"), self.host, listener.port)
        far = listener.accept()
        [first, second] = far.receive(2)
        line, _, rest = first.partition("\r\n")
        self.assertEqual(line, f"PROXY TCP4 127.0.0.1 127.0.0.1 {far.port} {listener.port}")
        self.assertTrue(rest.startswith("OPTIONS "))
        self.assertTrue(second.startswith("OPTIONS "))
        peer = self.peer(server.port)
        peer.send(request())
        self.assertTrue(peer.receive()[0].startswith("SIP/2.0 200"))


class UdpTests(StreamCase):
    """Over UDP."""

    def setUp(self):
        super().setUp()
        self.open = self.listen(UdpSocket(self.user, self.pump, self.host, 0, allow_proxy=True))
        self.phone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.phone.bind((self.host, 0))
        self.phone.settimeout(5)
        self.addCleanup(self.phone.close)
        self.via = f"127.0.0.1:{self.phone.getsockname()[1]}"

    def ask(self, front, server):
        """Send a request with something in front of it."""
        self.phone.sendto(front + request(via=self.via, transport="UDP"), (self.host, server.port))
        self.pump.turn(1)

    def test_taken(self):
        """A header at the front of a datagram is taken off, and holds for that one only."""
        for data, said in HEADERS:
            self.ask(data, self.open)
            self.assertTrue(self.phone.recv(65536).startswith(b"SIP/2.0 200"))
            self.assertEqual(self.runs[-1].flow.proxy_header, said)
        self.ask(b"", self.open)
        self.assertTrue(self.phone.recv(65536).startswith(b"SIP/2.0 200"))
        self.assertIsNone(self.runs[-1].flow.proxy_header)

    def test_malformed(self):
        """A datagram with a malformed header, or one that does not end, is dropped with a line in the log."""
        self.ask(MALFORMED[0], self.open)
        self.phone.sendto(binary()[:20], (self.host, self.open.port))
        self.pump.turn(1)
        self.assertEqual((self.runs, self.open.ignored), ([], 2))
        self.assertEqual(len(self.lines), 1)

    def test_sent(self):
        """Every datagram that we send begins with its own ends."""
        server = self.listen(UdpSocket(self.user, self.pump, self.host, 0, send_proxy=True))
        self.ask(b"", server)
        line, _, rest = self.phone.recv(65536).partition(b"\r\n")
        self.assertEqual(line.decode(), f"PROXY TCP4 127.0.0.1 127.0.0.1 {server.port} {self.phone.getsockname()[1]}")
        self.assertTrue(rest.startswith(b"SIP/2.0 200"))


class OptionTests(SynchronousTestCase):
    """Sockets in a script."""

    def test_options(self):
        """``allow_proxy_protocol``, ``send_proxy_protocol`` and ``proxy_protocol`` say what a socket does."""
        options = ("", "allow_proxy_protocol", "send_proxy_protocol", "proxy_protocol")
        lines = [f"socket = {kind}:127.0.0.1:0 {option}" for kind in ("udp", "tcp") for option in options]
        modules = 'loadmodule "proto_udp.so"\nloadmodule "proto_tcp.so"\nroute { xlog("$proxy_protocol(src_ip)"); }'
        server = SipServer(reading_of("\n".join(lines) + "\n" + modules), None)
        server.configure()
        server.bind()
        self.assertEqual([fault.render() for fault in server.configuration.faults], [])
        found = [(each.allow_proxy, each.send_proxy) for each in server.sockets]
        self.assertEqual(found, [(False, False), (True, False), (False, True), (True, True)] * 2)
        self.assertEqual(server.configuration.notes, [])
        pump: Any = Pump()
        self.addCleanup(pump.close)
        for each in server.sockets:
            each.reactor = pump
            each.stop()
