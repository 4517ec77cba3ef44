"""The table of connections, with connections that are only names."""

from dataclasses import dataclass
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.transport.connections import ConnectionTable


@dataclass(eq=False)
class Local:
    """A socket of ours, as much of it as the table knows."""

    transport: str = "tcp"


HERE, THERE = Local(), Local("tls")


@dataclass(eq=False)
class Named:
    """As much of a connection as the table knows."""

    local: Local
    host: str
    port: int
    accepted: bool = False
    aliases: tuple[int, ...] = ()
    number: int = 0


class TableTests(SynchronousTestCase):
    """What is found, and for how long."""

    def setUp(self):
        self.table: Any = ConnectionTable("07")

    def add(self, port, local=HERE, host="192.0.2.1", accepted=False):
        """One more connection."""
        made = Named(local, host, port, accepted)
        made.number = self.table.add(made)
        return made

    def test_found(self):
        """A connection is found by its number, and by its peer from its own socket only."""
        one, two = self.add(5060), self.add(5061)
        self.assertEqual([self.table.find(one.number), self.table.find(two.number)], [one, two])
        self.assertNotEqual(one.number, two.number)
        self.assertIs(self.table.at(HERE, "192.0.2.1", 5061), two)
        for place in ((THERE, "192.0.2.1", 5060), (HERE, "192.0.2.2", 5060), (HERE, "192.0.2.1", 5062)):
            self.assertIsNone(self.table.at(*place))
        self.assertEqual((list(self.table), len(self.table)), ([one, two], 2))

    def test_removed(self):
        """One that has ended is found no more; to remove it twice does no harm."""
        one = self.add(5060, accepted=True)
        self.table.alias(one, 7000)
        for _ in range(2):
            self.table.remove(one)
            self.assertIsNone(self.table.find(one.number))
            self.assertIsNone(self.table.at(HERE, "192.0.2.1", 5060))
            self.assertIsNone(self.table.at(HERE, "192.0.2.1", 7000))
            self.assertEqual((self.table.accepted, len(self.table)), (0, 0))
        self.assertFalse(self.table.alias(one, 7000))

    def test_retired(self):
        """One that is ending has its number still and its place in the count, but nobody finds it by address."""
        one = self.add(5060, accepted=True)
        self.table.alias(one, 7000)
        self.table.retire(one)
        self.assertIs(self.table.find(one.number), one)
        self.assertIsNone(self.table.at(HERE, "192.0.2.1", 5060))
        self.assertIsNone(self.table.at(HERE, "192.0.2.1", 7000))
        self.assertEqual(self.table.accepted, 1)
        successor = self.add(5060, accepted=True)
        self.table.remove(one)
        self.assertIs(self.table.at(HERE, "192.0.2.1", 5060), successor)
        self.assertEqual(self.table.accepted, 1)

    def test_same_peer(self):
        """Of two connections to one address the first is used, and ends alone."""
        one, two = self.add(5060), self.add(5060)
        self.assertIs(self.table.at(HERE, "192.0.2.1", 5060), one)
        self.table.remove(two)
        self.assertIs(self.table.at(HERE, "192.0.2.1", 5060), one)

    def test_alias(self):
        """An alias leads to its connection, for its own peer and socket."""
        one = self.add(40000)
        self.assertTrue(self.table.alias(one, 5060))
        self.assertTrue(self.table.alias(one, 5060))
        self.assertTrue(self.table.alias(one, 40000))
        self.assertEqual(one.aliases, (5060,))
        self.assertIs(self.table.at(HERE, "192.0.2.1", 5060), one)
        self.assertIsNone(self.table.at(HERE, "192.0.2.9", 5060))
        self.assertIsNone(self.table.at(THERE, "192.0.2.1", 5060))

    def test_alias_is_a_claim(self):
        """Who is at an address, or has claimed it first, keeps it until it ends."""
        first, thief = self.add(40000), self.add(40001)
        self.assertFalse(self.table.alias(thief, 40000))
        self.assertTrue(self.table.alias(first, 5060))
        self.assertFalse(self.table.alias(thief, 5060))
        self.assertIs(self.table.at(HERE, "192.0.2.1", 5060), first)
        owner = self.add(5060)
        self.assertIs(self.table.at(HERE, "192.0.2.1", 5060), owner)
        self.table.remove(first)
        self.table.remove(owner)
        self.assertTrue(self.table.alias(thief, 5060))

    def test_limits(self):
        """Accepted connections are counted together and for each host; those that we open are not."""
        self.add(1)
        gone = self.add(2, accepted=True)
        self.add(3, accepted=True)
        self.assertEqual((self.table.accepted, self.table.of_host("192.0.2.1"), self.table.of_host("192.0.2.2")), (2, 2, 0))
        self.assertEqual(self.table.refusal("192.0.2.1", 3, 3), "")
        self.assertEqual(self.table.refusal("192.0.2.1", 0, 0), "")
        self.assertIn("are 2 connections", self.table.refusal("192.0.2.2", 2, 0))
        self.assertIn("192.0.2.1 has 2", self.table.refusal("192.0.2.1", 0, 2))
        self.assertEqual(self.table.refusal("192.0.2.2", 0, 2), "")
        self.table.remove(gone)
        self.assertEqual(self.table.refusal("192.0.2.1", 2, 2), "")

    def test_named(self):
        """A person names connections by number, or by their peer with or without the transport; an alias counts as well."""
        one = self.add(5060)
        two = self.add(5060, THERE)
        three = self.add(40000, host="2001:db8::1")
        self.table.alias(three, 5060)
        for text, found in (
            (str(one.number), [one]),
            ("1", []),
            ("192.0.2.1:5060", [one, two]),
            ("tcp:192.0.2.1:5060", [one]),
            ("TLS:192.0.2.1:5060", [two]),
            ("ws:192.0.2.1:5060", []),
            ("192.0.2.1:5061", []),
            ("[2001:DB8::1]:5060", [three]),
            ("tcp:[2001:db8:0::1]:40000", [three]),
            ("2001:db8::1:40000", [three]),
        ):
            self.assertEqual(self.table.named(text), found, text)
        for text in ("", "x", "udp:192.0.2.1:5060", "192.0.2.1", "192.0.2.1:", "192.0.2.1:x", "a.example:5060", "1.2.3.4:123456"):
            self.assertRaises(ValueError, self.table.named, text)
