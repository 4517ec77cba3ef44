"""Tests of sipgw.core.addresses: which row counts, as OpenSIPS was asked."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.addresses import Address, AddressTable, packed, read_address

ROWS: list[tuple[Any, ...]] = [
    (1, "127.0.0.1", 32, 0, "any", None, "one"),
    (1, "127.0.1.0", 24, 0, "any", None, "net24"),
    (2, "127.0.2.1", 32, 5070, "udp", None, "udp5070"),
    (2, "127.0.2.2", 32, 0, "tcp", None, "tcp only"),
    (3, "127.0.3.1", 32, 0, "any", "*.example.com", "pat"),
    (3, "127.0.3.1", 32, 0, "any", "exact", "pat2"),
    (3, "127.0.3.0", 24, 0, "any", "n[0-9]et", "pat3"),
    (4, "::1", 128, 0, "any", None, "v6"),
    (4, "[fd00::]", 8, 0, "any", None, "v6net"),
    (5, "127.0.5.77", 24, 0, "any", None, "hostbits"),
    (6, "127.0.6.1", 32, 0, "none", None, "none"),
    (6, "0.0.0.0", 0, 0, "any", None, "all"),
    (7, "127.0.7.1", 32, 0, "UDP", "", ""),
    (9, "127.0.7.0", 30, 0, "udp", None, "third"),
    (20, "127.1.0.0", 16, 0, "any", None, "wide"),
    (20, "127.1.1.0", 24, 0, "any", None, "narrow"),
    (22, "127.1.1.0", 24, 0, "any", None, "first"),
    (22, "127.1.1.0", 24, 0, "any", None, "second"),
    (23, "127.1.1.1", 32, 5, "any", None, "exactport"),
    (23, "127.1.1.0", 24, 0, "any", None, "net"),
    (24, "127.1.1.1", 32, 5, "any", None, "p5"),
    (24, "127.1.1.1", 32, 0, "any", None, "p0"),
    (26, "127.1.1.0", 24, 0, "any", "x*", "pat"),
    (26, "127.1.0.0", 16, 0, "any", None, "nopat"),
    (27, "127.1.1.0", 25, 0, "any", None, "25"),
    (27, "127.1.1.0", 24, 0, "any", None, "24"),
    (27, "127.1.1.0", 26, 0, "any", None, "26"),
]


class AddressTests(SynchronousTestCase):
    """One table, many questions."""

    def setUp(self) -> None:
        self.table = AddressTable(read_address(*row) for row in ROWS)

    def ask(self, group: int, ip: str, port: int = 1, transport: str = "udp", text: str | None = None) -> str | None:
        """What stands with the row that counts."""
        found = self.table.find(group, packed(ip), port, transport, text)
        return None if found is None else found.info

    def test_find(self) -> None:
        """Groups, networks, ports, transports, patterns, and the order among those that fit."""
        asked: list[tuple[tuple[Any, ...], str | None]] = [
            ((1, "127.0.0.1"), "one"), ((2, "127.0.0.1"), None), ((0, "127.0.0.1"), "one"), ((1, "127.0.1.9"), "net24"),
            ((1, "127.0.2.9"), None), ((99, "127.0.0.1"), None), ((2, "127.0.2.1", 5070), "udp5070"),
            ((2, "127.0.2.1", 5071), None), ((2, "127.0.2.1", 0), "udp5070"), ((2, "127.0.2.1", 5070, "tcp"), None),
            ((2, "127.0.2.1", 5070, ""), "udp5070"), ((2, "127.0.2.2", 1, "tcp"), "tcp only"), ((3, "127.0.3.1"), "pat2"),
            ((3, "127.0.3.1", 1, "udp", "a.example.com"), "pat"), ((3, "127.0.3.1", 1, "udp", "A.Example.com"), None),
            ((3, "127.0.3.1", 1, "udp", "exact"), "pat2"), ((3, "127.0.3.1", 1, "udp", "n5et"), "pat3"),
            ((3, "127.0.3.1", 1, "udp", "other"), None), ((3, "127.0.3.9", 1, "udp", "n5et"), "pat3"),
            ((1, "127.0.0.1", 1, "udp", "whatever"), "one"), ((4, "::1"), "v6"), ((4, "[0:0:0:0:0:0:0:1]"), "v6"),
            ((4, "fd12::9"), "v6net"), ((4, "fe00::9"), None), ((5, "127.0.5.1"), "hostbits"), ((6, "127.0.6.1"), "all"),
            ((6, "9.9.9.9"), "all"), ((0, "9.9.9.9"), "all"), ((6, "::2"), None),
            ((7, "127.0.7.1"), ""), ((0, "127.0.7.1"), "all"), ((9, "127.0.7.1"), "third"), ((20, "127.1.1.1"), "wide"),
            ((22, "127.1.1.1"), "second"), ((23, "127.1.1.1"), "net"), ((23, "127.1.1.1", 5), "exactport"),
            ((24, "127.1.1.1", 5), "p0"), ((26, "127.1.1.1", 1, "udp", "xx"), "nopat"), ((27, "127.1.1.1"), "24"),
            ((1, "::ffff:127.0.0.1"), "one"),
        ]  # fmt: skip
        for question, answer in asked:
            self.assertEqual(self.ask(*question), answer, question)

    def test_listed(self) -> None:
        """Single addresses and networks stand apart, in the order in which they count, each with its mask."""
        hosts = [(row.group, row.ip, row.mask) for row in self.table.rows(True)]
        wanted = [(1, "127.0.0.1"), (2, "127.0.2.2"), (2, "127.0.2.1"), (3, "127.0.3.1"), (3, "127.0.3.1")]
        self.assertEqual(hosts[:5], [(group, ip, "32") for group, ip in wanted])
        nets = {(row.group, row.ip, row.mask) for row in self.table.rows(False)}
        for net in ((1, "127.0.1.0", "255.255.255.0"), (5, "127.0.5.0", "255.255.255.0"), (6, "0.0.0.0", "0.0.0.0")):
            self.assertIn(net, nets)
        self.assertIn((4, "fd00::", "ff00::"), nets)
        self.assertEqual(len(hosts) + len(list(self.table.rows(False))), len(self.table))
        self.assertTrue(self.table.has(27))
        self.assertFalse(self.table.has(28))

    def test_refused(self) -> None:
        """Rows that mean nothing say why."""
        good = (1, "10.0.0.2", 32, 0, "any", None, None)
        self.assertEqual(read_address(*good), Address(1, b"\x0a\x00\x00\x02", 32, 0, "", "", ""))
        self.assertEqual(read_address("1", " 10.0.0.2 ", "32", "0", "", "", "").transport, "")
        for place, value, said in (
            (0, -3, "group -3 is negative"), (0, "x", "group 'x' is no number"), (1, "nonsense", "'nonsense' is no IP address"),
            (1, "", "'' is no IP address"), (1, "10.0.0.2/24", "is no IP address"), (1, "::g", "is no IP address"),
            (2, 33, "mask 33 is longer than the 32 bits"), (2, -1, "mask -1 is negative"), (3, -5, "port -5 is negative"),
            (4, "weird", "unknown transport 'weird'"),
        ):  # fmt: skip
            row = [*good]
            row[place] = value
            with self.assertRaisesRegex(ValueError, said):
                read_address(*row)
        with self.assertRaisesRegex(ValueError, "128 bits"):
            read_address(1, "::2", 129, 0, "", "", "")

    def test_packed(self) -> None:
        """An IPv4 address is the same in both ways of writing; zones do not count."""
        self.assertEqual(packed("::ffff:192.0.2.1"), packed("192.0.2.1"))
        self.assertEqual(packed("fe80::1%eth0"), packed("fe80::1"))
        self.assertEqual(len(packed("2001:db8::1")), 16)
