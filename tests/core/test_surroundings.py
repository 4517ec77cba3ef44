"""Which names are ours, and which socket is meant (core/surroundings.py)."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.surroundings import MAX_HOPS, Surroundings


class Place:
    """A socket that only stands somewhere."""

    def __init__(self, transport: str, host: str, port: int, advertised: tuple[str, int] = ("", 0), tag: str = "") -> None:
        self.transport, self.host, self.port, self.tag = transport, host, port, tag
        self.advertised_host, self.advertised_port = advertised

    def flow(self, host: str, port: int) -> Any:
        """Lead nowhere."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{self.transport}:{self.host}:{self.port}"


def surroundings(*sockets: Place) -> Surroundings:
    """A server with these sockets."""
    made = Surroundings(lambda: 0.0, lambda: 0.0, lambda level, text: None, {})
    for socket in sockets:
        made.add_socket(socket)
    return made


MYSELF = [
    ("127.0.0.1", 0, True), ("127.0.0.1", 5999, True), ("127.0.0.1", 5060, False), ("127.0.0.2", 0, False), ("", 0, False),
    # what is advertised, also crosswise
    ("192.0.2.99", 0, True), ("192.0.2.99", 5070, True), ("192.0.2.99", 5999, True), ("192.0.2.99", 5060, False),
    ("127.0.0.1", 5070, True), ("SIP.example.org", 5062, True), ("sip.example.org", 5070, False),
    # IPv6, however it is written
    ("[::1]", 5999, True), ("::1", 0, True), ("[0:0:0:0:0:0:0:1]", 5999, True), ("[::1]", 5060, False), ("[::2]", 0, False),
    ("[::zz]", 0, False),
    # aliases
    ("port.test", 0, True), ("PORT.test", 5080, True), ("port.test", 5060, False), ("x.port.test", 5080, False),
    ("sub.test", 0, True), ("x.sub.test", 5061, True), ("X.y.SUB.test", 0, True), ("xsub.test", 0, False), ("test", 0, False),
]  # fmt: skip
"""Host and port (0: none), and whether OpenSIPS 4.1 takes them for its own with the same sockets and aliases."""


class MyselfTests(SynchronousTestCase):
    """Names and addresses that are ours."""

    def setUp(self) -> None:
        """Three sockets and two aliases."""
        self.server = surroundings(
            Place("udp", "127.0.0.1", 5999, ("192.0.2.99", 5070)),
            Place("udp", "::1", 5999),
            Place("udp", "192.0.2.7", 5062, ("sip.Example.org", 0)),
        )
        self.server.add_alias("port.test", 5080)
        self.server.add_alias("sub.test", subdomains=True)

    def test_table(self) -> None:
        """Each is ours or not as in OpenSIPS, the first time and from memory."""
        for _ in range(2):
            found = [(host, port, self.server.is_myself(host, port)) for host, port, _ in MYSELF]
            self.assertEqual(found, MYSELF)

    def test_bounds(self) -> None:
        """Any number of strange names is asked about in bounded memory."""
        for number in range(MAX_HOPS + 10):
            self.assertFalse(self.server.is_myself(f"{number}.example"))
        self.assertLessEqual(len(self.server._myself), MAX_HOPS)


class SocketTests(SynchronousTestCase):
    """Which socket is meant."""

    def test_default(self) -> None:
        """The first that others can reach is the default one; if all are on loopback, the first."""
        loopback, other = Place("udp", "127.0.0.1", 5060), Place("udp", "127.0.0.5", 5061)
        outside, later = Place("udp", "192.0.2.1", 5060), Place("udp", "192.0.2.2", 5060)
        self.assertIs(surroundings(loopback, other).default_socket(), loopback)
        self.assertIs(surroundings(loopback, other, outside, later).default_socket(), outside)
        six, tcp = Place("udp", "::1", 5060), Place("tcp", "192.0.2.1", 5060)
        server = surroundings(loopback, six, tcp)
        self.assertIs(server.default_socket("udp", True), six)
        self.assertIs(server.default_socket("tcp"), tcp)
        self.assertIsNone(server.default_socket("tcp", True))
        found = Place("udp", "2001:db8::1", 5060)
        self.assertIs(surroundings(six, found).default_socket("udp", True), found)

    def test_find(self) -> None:
        """A socket is named by its tag, or by as much of its own or advertised address as it needs."""
        first, second = Place("udp", "192.0.2.1", 5060, tag="first"), Place("tcp", "192.0.2.1", 5061, ("gw.example.org", 5071))
        six = Place("udp", "::1", 5060)
        server = surroundings(first, second, six)
        for text, expected in (
            ("first", first), ("udp:192.0.2.1", first), ("192.0.2.1:5061", second), ("TCP:192.0.2.1:5061", second),
            ("tcp:GW.example.org:5071", second), ("udp:gw.example.org", None), ("udp:192.0.2.1:5061", None),
            ("udp:[::1]:5060", six), ("[0:0:0:0:0:0:0:1]:5060", six), ("::1", six), ("nosuch", None), ("", None),
        ):  # fmt: skip
            self.assertIs(server.find_socket(text), expected, text)

    def test_toward(self) -> None:
        """With mhomed the socket is at the address that the kernel would use, the one where the message came in if it is one."""
        first, second, third = (Place("udp", "192.0.2.1", port) for port in (5060, 5062, 5064))
        other = Place("udp", "198.51.100.1", 5060)
        server = surroundings(other, first, second, Place("tcp", "192.0.2.1", 5060), third)
        self.assertIsNone(server.socket_toward("udp", "192.0.2.7", second))
        sources = {"192.0.2.7": "192.0.2.1", "198.51.100.7": "198.51.100.1", "203.0.113.7": "203.0.113.1", "::9": ""}
        server.source_of = sources.__getitem__
        for host, came, expected in (
            ("192.0.2.7", second, second), ("192.0.2.7", other, first), ("192.0.2.7", None, first),
            ("198.51.100.7", first, other), ("203.0.113.7", first, None), ("::9", first, None),
        ):  # fmt: skip
            self.assertIs(server.socket_toward("udp", host, came), expected, host)
