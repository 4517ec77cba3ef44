"""Tests of sipgw.transport.packets: datagrams in packets, and the kernel's filter, run by a small machine here."""

from __future__ import annotations

import socket
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport.packets import Datagram, datagram_of, port_filter

DATA = b"OPTIONS sip:a SIP/2.0\r\n\r\n"
QUICK = settings(max_examples=200, derandomize=True, deadline=None)


def ip(
    content: bytes, protocol: int = 17, source: str = "192.0.2.1", target: str = "192.0.2.2", *, options: bytes = b"",
    fragment: int = 0,
) -> bytes:
    """An IPv4 packet."""
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(content), 0, fragment, 64, protocol, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(target) + options + content


def udp(data: bytes = DATA, source: int = 5060, target: int = 5062) -> bytes:
    """A UDP datagram."""
    return struct.pack("!HHHH", source, target, 8 + len(data), 0) + data


def passes(program: bytes, packet: bytes) -> bool:
    """Whether a filter lets a packet through: as the kernel runs it, as far as we use it."""
    lines = list(struct.iter_unpack("=HBBI", program))
    at = a = x = 0
    for _ in range(100):
        code, yes, no, k = lines[at]
        at += 1
        if code == 0x06:
            return bool(k)
        if code in (0x30, 0xB1):
            if k >= len(packet):
                return False
            a, x = (packet[k], x) if code == 0x30 else (a, 4 * (packet[k] & 15))
        elif code in (0x28, 0x48):
            start = k + (x if code == 0x48 else 0)
            if start + 2 > len(packet):
                return False
            (a,) = struct.unpack_from("!H", packet, start)
        else:
            at += yes if {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[code] else no
    raise AssertionError("it does not end")


class PacketTests(SynchronousTestCase):
    """Packets."""

    def test_read(self):
        """Who sent what to whom, with options of IP, with padding behind, and in another packet."""
        wanted = Datagram(("192.0.2.1", 5060), ("192.0.2.2", 5062), DATA)
        outer = ip(ip(udp()), 4, "198.51.100.1", "198.51.100.2")
        for packet, inside in ((ip(udp()), False), (ip(udp(), options=b"\1" * 8) + b"pad", False), (outer, True)):
            self.assertEqual(datagram_of(packet, inside=inside), wanted)

    def test_others(self):
        """What is no whole datagram is none."""
        good = ip(udp())
        for packet in (
            b"", good[:19], good[:-1], b"\x65" + good[1:], b"\x44" + good[1:], ip(udp(), 6), ip(udp(), fragment=0x2000),
            ip(udp(), fragment=100), ip(udp()[:7]), ip(udp()[:4] + b"\0\7\0\0"), ip(udp()[:4] + b"\xff\xff\0\0"), ip(good, 4),
        ):
            self.assertIsNone(datagram_of(packet), packet)
        self.assertIsNone(datagram_of(good, inside=True))

    @QUICK
    @given(st.binary(max_size=80), st.sampled_from([b"", b"\x45\0\0\x30", ip(udp())[:24]]), st.booleans())
    def test_anything(self, data, start, inside):
        """Whatever comes is a datagram or none."""
        datagram_of(start + data, inside=inside)

    def test_filter(self):
        """The filter takes what has one of the ports, and nothing else."""
        program = port_filter(5060, 5090)
        for source, target, taken in (
            (5060, 1, True), (1, 5060, True), (5090, 1, True), (1, 5090, True), (5059, 5091, False), (5091, 5059, False),
            (1, 2, False), (5070, 5071, True), (6000, 5075, True),
        ):
            for options in (b"", b"\1" * 12):
                packet = ip(udp(source=source, target=target), options=options)
                self.assertEqual(passes(program, packet), taken, (source, target))
        for packet in (ip(udp(), 6), ip(udp(), fragment=1), b"", ip(b"")):
            self.assertFalse(passes(program, packet))
