"""Our own addresses, and those that are never answered."""

import itertools
import socket

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport import addresses
from sipgw.transport.addresses import Sources, interface_addresses, names_of, refusal

REFUSED = [
    ("224.0.1.75", "is a multicast address"),
    ("239.255.255.250", "is a multicast address"),
    ("ff02::1", "is a multicast address"),
    ("255.255.255.255", "is the broadcast address"),
    ("0.0.0.0", "is no address of any host"),
    ("0.1.2.3", "is in 0.0.0.0/8, this network"),
    ("::", "is no address of any host"),
    ("::ffff:224.0.0.1", "is a multicast address"),
    ("example.org", "is not an IP address"),
    ("[::1]", "is not an IP address"),
    ("", "is not an IP address"),
]


class RefusalTests(SynchronousTestCase):
    """``refusal``."""

    def test_refused(self):
        """Each address that cannot be one peer is refused with the reason."""
        for host, reason in REFUSED:
            self.assertEqual(refusal(host), reason, host)

    def test_allowed(self):
        """Hosts, also private, loopback and mapped ones, may be sent to."""
        for host in ("127.0.0.1", "10.0.0.255", "192.0.2.1", "::1", "2001:db8::1", "::ffff:192.0.2.1", "240.0.0.1"):
            self.assertEqual(refusal(host), "", host)


class InterfaceTests(SynchronousTestCase):
    """``interface_addresses``."""

    def test_loopback(self):
        """The loopback interface has 127.0.0.1, and so has the whole machine."""
        self.assertIn("127.0.0.1", interface_addresses("lo"))
        self.assertIn("127.0.0.1", interface_addresses())

    def test_none(self):
        """An interface that is not there has no address."""
        self.assertEqual(interface_addresses("nosuch0"), [])

    def test_ipv6(self):
        """IPv6 addresses come from the kernel's table, without the link-local ones."""
        table = self.mktemp()
        with open(table, "w", encoding="ascii") as file:
            file.write("20010db8000000000000000000000005 02 40 00 80 ppp9\nfe800000000000000000000000000001 02 40 20 80 ppp9\n")
        self.assertEqual(interface_addresses("ppp9", table), ["2001:db8::5"])

    def test_without_ipv6(self):
        """A kernel without IPv6 has no table, and IPv4 is found all the same."""
        self.assertEqual(interface_addresses("lo", "/nosuch"), ["127.0.0.1"])


class SourceTests(SynchronousTestCase):
    """``Sources``."""

    def setUp(self):
        self.clock = Clock()
        self.sources = Sources(self.clock.seconds)

    def test_kernel(self):
        """Toward this machine's own addresses the kernel uses these; there is no way to what is no host."""
        self.assertEqual(self.sources.toward("127.0.0.1"), "127.0.0.1")
        for host in interface_addresses():
            self.assertEqual(self.sources.toward(host), host)
        for host in ("255.255.255.255", "224.0.0.1", "0.0.0.0", "example.org", "::"):
            self.assertEqual(self.sources.toward(host), "", host)

    def test_memory(self):
        """An answer is remembered for a while, and the number of answers is bounded."""
        asked = itertools.count(1)
        self.patch(addresses, "_source", lambda host: f"from {next(asked)}")
        self.assertEqual([self.sources.toward("192.0.2.1") for _ in range(2)], ["from 1", "from 1"])
        self.clock.advance(Sources.KEPT + 1)
        self.assertEqual(self.sources.toward("192.0.2.1"), "from 2")
        for number in range(2 * Sources.MOST):
            self.sources.toward(f"{number}")
        self.assertLessEqual(len(self.sources._known), Sources.MOST)

    def test_no_route(self):
        """No route is no address."""

        class Unreachable:
            def __init__(self, *_args):
                pass

            def __enter__(self):
                return self

            def __exit__(self, *_args):
                return None

            def connect(self, _address):
                raise OSError("Network is unreachable")

        self.patch(socket, "socket", Unreachable)
        self.assertEqual(self.sources.toward("198.51.100.1"), "")


class NameTests(SynchronousTestCase):
    """``names_of``."""

    def test_names(self):
        """All names that the look-up gives are names of the address, addresses are not."""
        self.patch(socket, "gethostbyaddr", lambda host: ("gw.example.org", ["gw", "192.0.2.1"], [host]))
        self.assertEqual(names_of("192.0.2.1"), ["gw.example.org", "gw"])

    def test_none(self):
        """An address without a name has none."""

        def unknown(_host):
            raise socket.herror(1, "Unknown host")

        self.patch(socket, "gethostbyaddr", unknown)
        self.assertEqual(names_of("192.0.2.1"), [])
