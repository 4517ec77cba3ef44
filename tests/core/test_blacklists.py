"""Tests of sipgw.core.blacklists: rules, lists whose rules end, what is forbidden."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core import blacklists
from sipgw.core.blacklists import Blacklist, Blacklists, NoExpiry, ReadOnly, Rule, key_of, parse_network, parse_rule
from sipgw.script import nodes

RULES = [
    ("1.2.3.4", Rule(IPv4Network("1.2.3.4"))),
    ("1.2.3.4/24", Rule(IPv4Network("1.2.3.0/24"))),
    ("6.6.6.0/255.255.255.0", Rule(IPv4Network("6.6.6.0/24"))),
    ("!5.5.5.5", Rule(IPv4Network("5.5.5.5"), exception=True)),
    ("udp,5.5.5.6", Rule(IPv4Network("5.5.5.6"), "udp")),
    ("UDP , 5.5.5.6", Rule(IPv4Network("5.5.5.6"), "udp")),
    ("any,5.5.5.6", Rule(IPv4Network("5.5.5.6"))),
    ("5.5.5.7,5060", Rule(IPv4Network("5.5.5.7"), port=5060)),
    ("5.5.5.7,", Rule(IPv4Network("5.5.5.7"))),
    ("5.5.5.7,any", Rule(IPv4Network("5.5.5.7"))),
    ("tls,1.3.3.6,5060,a,b", Rule(IPv4Network("1.3.3.6"), "tls", 5060, "a,b")),
    ("2001:db8::/32", Rule(IPv6Network("2001:db8::/32"))),
    ("[2001:db8::1]", Rule(IPv6Network("2001:db8::1"))),
    ("2001:db8::/ffff:ffff::", Rule(IPv6Network("2001:db8::/32"))),
]

BAD = [
    "", "bogus", "!", "!!1.1.1.1", "udp,", "foo,1.2.3.4", "1.2.3.4/33", "1.2.3.4,x",
    "1.2.3.4,70000", "2001:db8::/ff00:00ff::", "1.2.3",
]

FORBIDDEN = [  # rule, host, transport, port, text, forbidden
    ("10.0.0.0/8", "10.1.2.3", "udp", 5060, "", True),
    ("10.0.0.0/8", "11.1.2.3", "udp", 5060, "", False),
    ("10.0.0.0/8", "::ffff:10.1.2.3", "udp", 5060, "", True),
    ("0.0.0.0/0", "::1", "udp", 5060, "", False),
    ("::/0", "127.0.0.1", "udp", 5060, "", False),
    ("2001:db8::/32", "2001:db8:5::1", "tcp", 5060, "", True),
    ("tcp,10.0.0.1", "10.0.0.1", "udp", 5060, "", False),
    ("tcp,10.0.0.1", "10.0.0.1", "tcp", 5060, "", True),
    ("tcp,10.0.0.1", "10.0.0.1", "", 5060, "", False),
    ("10.0.0.1,5060", "10.0.0.1", "udp", 5061, "", False),
    ("10.0.0.1,5060", "10.0.0.1", "udp", 0, "", False),
    ("10.0.0.1,5060", "10.0.0.1", "udp", 5060, "", True),
    ("10.0.0.1,0,*evil*", "10.0.0.1", "udp", 5060, "an evil\r\none", True),
    ("10.0.0.1,0,*evil*", "10.0.0.1", "udp", 5060, "an EVIL one", False),
    ("10.0.0.1,0,*evil*", "10.0.0.1", "udp", 5060, "", False),
    (r"10.0.0.1,0,a\*b\[c\d[^x]", "10.0.0.1", "udp", 5060, "a*b[cdy", True),
    (r"10.0.0.1,0,a\*b\[c\d[^x]", "10.0.0.1", "udp", 5060, "a*b[cdx", False),
    (r"10.0.0.1,0,a\*b\[c\d[^x]", "10.0.0.1", "udp", 5060, "aab[cdy", False),
    ("!10.1.0.0/16", "10.1.9.9", "udp", 5060, "", False),
    ("!10.1.0.0/16", "10.2.9.9", "udp", 5060, "", True),
    ("!udp,1.1.1.0/24,5060,x", "1.1.1.77", "udp", 5060, "x", False),
    ("!udp,1.1.1.0/24,5060,x", "1.1.1.77", "udp", 5060, "y", True),
    ("!udp,1.1.1.0/24,5060,x", "1.1.1.77", "tcp", 5060, "x", True),
    ("!1.1.1.1", "::1", "udp", 5060, "", True),
]


class RuleTests(SynchronousTestCase):
    """One rule."""

    def test_parse(self) -> None:
        """Rules are read as the management interface and scripts write them."""
        for text, rule in RULES:
            self.assertEqual(parse_rule(text), rule, text)

    def test_bad(self) -> None:
        """What is no rule is refused."""
        for text in BAD:
            self.assertRaises(ValueError, parse_rule, text)

    def test_forbids(self) -> None:
        """A rule forbids what fits it in every part; with ``!`` all else. A list gives the same answer as the rule."""
        for text, host, transport, port, message, forbidden in FORBIDDEN:
            rule = parse_rule(text)
            one = Blacklist("x", ("expire",))
            one.add(rule, 0.0)
            key = key_of(host)
            self.assertEqual(rule.forbids(key, transport, port, lambda m=message: m), forbidden, (text, host))  # type: ignore[misc]
            self.assertEqual(one.forbids(key, transport, port, lambda m=message: m, 0.0), forbidden, (text, host))  # type: ignore[misc]
            self.assertEqual(one.find(key, transport, port, message, 0.0), (rule, None) if forbidden else None)

    def test_equal(self) -> None:
        """Two rules are the same when all their parts are."""
        rules = [rule for _, rule in RULES]
        self.assertEqual(len(set(rules)), 11)
        self.assertNotEqual(rules[0], "1.2.3.4")


class ListTests(SynchronousTestCase):
    """One list."""

    def test_read_only(self) -> None:
        """A list without a flag is not changed at run time."""
        one = Blacklist("x")
        one.define(parse_rule("1.1.1.1"))
        self.assertRaises(ReadOnly, one.add, parse_rule("1.1.1.2"), 0.0)
        self.assertRaises(ReadOnly, one.remove, parse_rule("1.1.1.1"), 0.0)
        self.assertEqual([rule for rule, _ in one.rules(0.0)], [parse_rule("1.1.1.1")])

    def test_no_expiry(self) -> None:
        """Rules that end are for lists with the flag expire."""
        one = Blacklist("x", ("default",))
        one.add(parse_rule("1.1.1.1"), 0.0)
        one.add(parse_rule("1.1.1.2"), 0.0)
        self.assertRaises(NoExpiry, one.add, parse_rule("1.1.1.3"), 0.0, 5)
        self.assertEqual(self.shown(one, 0.0), [("1.1.1.1/32", None), ("1.1.1.2/32", None)])

    def shown(self, one: Blacklist, now: float) -> list[tuple[str, float | None]]:
        """The networks of a list and when they end."""
        return [(str(rule.network), until) for rule, until in one.rules(now)]

    def test_order(self) -> None:
        """Lasting rules come first, the newest of all; those that end follow in the order in which they do."""
        one = Blacklist("x", ("expire",))
        for text, seconds in (("1.0.0.1", 0), ("1.0.0.2", 50), ("1.0.0.3", 40), ("1.0.0.4", 0), ("1.0.0.5", 60)):
            one.add(parse_rule(text), 0.0, seconds)
        one.add(parse_rule("1.0.0.3"), 0.0, 99)
        one.add(parse_rule("1.0.0.4"), 0.0, 1)
        expected = [("1.0.0.4/32", None), ("1.0.0.1/32", None), ("1.0.0.3/32", 40), ("1.0.0.2/32", 50), ("1.0.0.5/32", 60)]
        self.assertEqual(self.shown(one, 1.0), expected)
        self.assertEqual(self.shown(one, 50.0), expected[:2] + expected[4:])

    def test_ends(self) -> None:
        """A rule forbids until it ends; then the same one can be added anew."""
        one = Blacklist("x", ("expire",))
        key = key_of("1.1.1.1")
        for start in (0.0, 10.0):
            one.add(parse_rule("1.1.1.1"), start, 10)
            self.assertEqual(
                [one.forbids(key, "udp", 5060, str, start + after) for after in (0.0, 9.9, 10.0)], [True, True, False]
            )

    def test_remove(self) -> None:
        """Only the very same rule is removed, wherever it stands."""
        one = Blacklist("x", ("expire",))
        one.add(parse_rule("1.1.1.1"), 0.0)
        one.add(parse_rule("udp,1.1.1.1"), 0.0, 10)
        one.add(parse_rule("!1.1.1.0/24"), 0.0)
        self.assertFalse(one.remove(parse_rule("1.1.1.1,5060"), 0.0))
        for text in ("udp,1.1.1.1", "!1.1.1.0/24", "1.1.1.1"):
            self.assertTrue(one.remove(parse_rule(text), 0.0))
            self.assertFalse(one.remove(parse_rule(text), 0.0))
        self.assertEqual((one.rules(0.0), one.forbids(key_of("1.1.1.1"), "udp", 1, str, 0.0)), ([], False))

    def test_full(self) -> None:
        """A full list forgets what would end first; one of lasting rules takes no more."""
        self.patch(blacklists, "MAX_RULES", 2)
        one = Blacklist("x", ("expire",))
        for text, seconds in (("1.0.0.1", 20), ("1.0.0.2", 10), ("1.0.0.3", 30), ("1.0.0.4", 0), ("1.0.0.5", 0)):
            one.add(parse_rule(text), 0.0, seconds)
        self.assertEqual(self.shown(one, 0.0), [("1.0.0.5/32", None), ("1.0.0.4/32", None)])
        self.assertRaises(ValueError, one.add, parse_rule("1.0.0.6"), 0.0)

    @settings(max_examples=60, derandomize=True, deadline=None)
    @given(st.data())
    def test_index(self, data: st.DataObject) -> None:
        """Whatever was added, removed and has ended, the quick answer is the one that the rules give one by one."""
        texts = ("10.0.0.1", "10.0.0.2", "udp,10.0.0.1", "10.0.0.1,5060", "10.0.0.0/30", "!10.0.0.0/24")
        one = Blacklist("x", ("expire",))
        now = 0.0
        for _ in range(data.draw(st.integers(1, 12))):
            rule = parse_rule(data.draw(st.sampled_from(texts)))
            now += data.draw(st.integers(0, 3))
            if data.draw(st.booleans()):
                one.add(rule, now, data.draw(st.integers(0, 5)))
            else:
                one.remove(rule, now)
            for host in ("10.0.0.1", "10.0.0.3", "10.0.1.1"):
                for port in (5060, 5061):
                    key = key_of(host)
                    slow = any(r.forbids(key, "udp", port, str) for r, _ in one.rules(now))
                    self.assertEqual(one.forbids(key, "udp", port, str, now), slow)


class ListsTests(SynchronousTestCase):
    """All lists of a server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lists = Blacklists(self.clock.seconds)

    def test_configure(self) -> None:
        """Definitions of a script become lists; a name is taken once."""
        rule = nodes.BlacklistRule(IPv4Network("10.0.0.0/8"), "tcp", 5060, "x", True)
        gateways = nodes.Blacklist("gw", frozenset(), (rule, rule))
        self.lists.configure([gateways, nodes.Blacklist("all", frozenset({"default", "expire"}))], True)
        self.assertEqual([one.name for one in self.lists.all()], ["gw", "all", "dns"])
        self.assertEqual([one.name for one in self.lists.default], ["all", "dns"])
        self.assertEqual(self.lists.all()[0].rules(0.0), [(Rule(rule.network, "tcp", 5060, "x", True), None)])
        self.assertRaises(ValueError, self.lists.configure, [gateways], False)

    def test_failed(self) -> None:
        """What failed is avoided for four minutes, at that port and transport, IPv6 as well."""
        self.lists.configure((), True)
        for host in ("10.0.0.1", "2001:db8::1", "::ffff:10.0.0.2"):
            self.lists.failed(host, "udp", 5060)
            asked = [("udp", 5060), ("tcp", 5060), ("udp", 5061)]
            found = [self.lists.forbid(self.lists.default, host, *where, str) for where in asked]
            self.assertEqual(found, ["dns", "", ""])
        self.clock.advance(blacklists.FAILED_FOR)
        self.assertEqual(self.lists.forbid(self.lists.default, "10.0.0.1", "udp", 5060, str), "")

    def test_not_automatic(self) -> None:
        """Without the automatic list nothing is noted, not even in a list of the script that bears its name."""
        self.lists.failed("10.0.0.1", "udp", 5060)
        mine = self.lists.create("dns", ("expire",))
        self.lists.failed("10.0.0.1", "udp", 5060)
        self.assertEqual(mine.rules(0.0), [])
        self.assertIs(self.lists.get("dns"), mine)
        self.assertIsNone(self.lists.get("other"))

    def test_network(self) -> None:
        """A network is read in each of its spellings."""
        for text in ("10.0.0.7/8", "10.0.0.0/255.0.0.0"):
            self.assertEqual(parse_network(text), IPv4Network("10.0.0.0/8"))
