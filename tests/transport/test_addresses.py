"""Our own addresses, and those that are never answered."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport.addresses import interface_addresses, refusal

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
