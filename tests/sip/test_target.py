"""Tests of sipgw/sip/target.py: RFC 3263 with answers from a table."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.target import (
    MAX_QUESTIONS,
    MAX_TARGETS,
    Naptr,
    Question,
    Record,
    Srv,
    Target,
    Targets,
    default_port,
    literal,
    targets,
    targets_of,
)
from sipgw.sip.uri import Uri

ALL = ("udp", "tcp", "tls")

ZONE = """
    example.org         NAPTR  50 50 s SIPS+D2T _sips._tcp.example.org
    example.org         NAPTR  50 60 S SIP+D2U  _sip._udp.example.org
    example.org         NAPTR  90 50 s SIP+D2T  _sip._tcp.example.org
    _sips._tcp.example.org SRV 0 1 5061 a.example.org
    _sip._udp.example.org  SRV 0 1 5060 a.example.org
    _sip._udp.example.org  SRV 1 1 5070 b.example.org
    _sip._tcp.example.org  SRV 0 1 5060 a.example.org
    a.example.org       A      192.0.2.1
    a.example.org       AAAA   2001:db8::1
    b.example.org       A      192.0.2.2
    b.example.org       A      192.0.2.3
    srv.org             A      192.0.2.9
    _sip._udp.srv.org   SRV    0 0 5080 b.example.org
    _sip._tcp.srv.org   SRV    0 0 5081 b.example.org
    bare.org            A      192.0.2.4
    bare.org            AAAA   2001:db8::4
    closed.org          A      192.0.2.5
    _sip._udp.closed.org SRV   0 0 0 .
    alias.org           CNAME  Bare.ORG.
    l1.org              CNAME  l2.org
    l2.org              CNAME  l1.org
    c1.org              CNAME  c2.org
    c2.org              CNAME  c3.org
    c3.org              CNAME  c4.org
    c4.org              CNAME  c5.org
    c5.org              CNAME  c6.org
    c6.org              A      192.0.2.6
    c0.org              CNAME  c1.org
    bad.org             A      not-an-address
    _sip._udp.ip.org    SRV    0 0 5060 bad.org
"""


def read_zone(text: str) -> list[Record]:
    """The records of ``text``."""
    records = []
    for line in text.strip().splitlines():
        name, kind, *data = line.split()
        if kind == "SRV":
            records.append(Record(name, kind, Srv(int(data[0]), int(data[1]), int(data[2]), data[3])))
        elif kind == "NAPTR":
            records.append(Record(name, kind, Naptr(int(data[0]), int(data[1]), data[2], data[3], data[4])))
        else:
            records.append(Record(name, kind, data[0]))
    return records


def drive(steps: Targets, zone: Sequence[Record], whole: bool = False) -> tuple[list[Target], list[Question]]:
    """Answer each question from ``zone``; with ``whole`` a server that sends the end of an alias along."""
    asked = []
    try:
        question = next(steps)
        while True:
            asked.append(question)
            answer = [one for one in zone if one.name == question.name and one.kind in (question.kind, "CNAME")]
            if whole and answer:
                answer = [one for one in zone if one.kind in (question.kind, "CNAME")]
            question = steps.send(answer)
    except StopIteration as done:
        return done.value, asked


def choose(uri: str, *, families: Sequence[str] = ("A",), transports: Sequence[str] = ALL) -> str:
    """The targets of ``uri`` as text."""
    steps = targets_of(Uri.parse(uri), families=families, transports=transports, random=lambda: 0.0)
    return " ".join(f"{one.transport}:{one.host}:{one.port}" for one in drive(steps, read_zone(ZONE))[0])


class ChoiceTests(SynchronousTestCase):
    """Transport, address and port by the rules of RFC 3263 4."""

    def test_rules(self):
        """A table of URIs and where they lead."""
        rows = [
            # IP literals (4.1, 4.2)
            ("sip:192.0.2.7", "udp:192.0.2.7:5060"),
            ("sip:u@192.0.2.7:5090", "udp:192.0.2.7:5090"),
            ("sip:192.0.2.7;transport=TCP", "tcp:192.0.2.7:5060"),
            ("sip:192.0.2.7;transport=tls", "tls:192.0.2.7:5061"),
            ("sips:192.0.2.7", "tls:192.0.2.7:5061"),
            ("sips:192.0.2.7;transport=tcp", "tls:192.0.2.7:5061"),
            ("sips:192.0.2.7;transport=udp", ""),
            ("sip:[2001:db8::7]", "udp:2001:db8::7:5060"),
            ("sip:nobody.org;maddr=192.0.2.8", "udp:192.0.2.8:5060"),
            ("sip:192.0.2.7;transport=sctp", ""),
            # a port: addresses only
            ("sip:example.org:5099", ""),
            ("sip:bare.org:5099", "udp:192.0.2.4:5099"),
            ("sips:bare.org:5099", "tls:192.0.2.4:5099"),
            ("sip:bare.org:5099;transport=tcp", "tcp:192.0.2.4:5099"),
            # a transport: its SRV, or the addresses
            ("sip:example.org;transport=udp", "udp:192.0.2.1:5060 udp:192.0.2.2:5070 udp:192.0.2.3:5070"),
            ("sip:example.org;transport=tcp", "tcp:192.0.2.1:5060"),
            ("sips:example.org;transport=tcp", "tls:192.0.2.1:5061"),
            ("sip:bare.org;transport=tcp", "tcp:192.0.2.4:5060"),
            ("sip:bare.org;transport=tls", "tls:192.0.2.4:5061"),
            # neither: NAPTR, the lowest order, by preference
            ("sip:example.org", "tls:192.0.2.1:5061 udp:192.0.2.1:5060 udp:192.0.2.2:5070 udp:192.0.2.3:5070"),
            ("sips:example.org", "tls:192.0.2.1:5061"),
            # no NAPTR: SRV of each transport; no SRV: addresses
            ("sip:srv.org", "udp:192.0.2.2:5080 udp:192.0.2.3:5080 tcp:192.0.2.2:5081 tcp:192.0.2.3:5081"),
            ("sips:srv.org", "tls:192.0.2.9:5061"),
            ("sip:bare.org", "udp:192.0.2.4:5060"),
            ("sip:nowhere.org", ""),
            # a service that is not there (RFC 2782), aliases, nonsense
            ("sip:closed.org", ""),
            ("sip:alias.org", "udp:192.0.2.4:5060"),
            ("sip:l1.org", ""),
            ("sip:bad.org", ""),
        ]
        for uri, expected in rows:
            self.assertEqual(choose(uri), expected, uri)

    def test_transports(self):
        """Only transports that we have are chosen, of NAPTR and SRV too."""
        self.assertEqual(choose("sip:example.org", transports=("tcp",)), "tcp:192.0.2.1:5060")
        self.assertEqual(choose("sip:srv.org", transports=("tcp", "tls")), "tcp:192.0.2.2:5081 tcp:192.0.2.3:5081")
        self.assertEqual(choose("sips:example.org", transports=("udp", "tcp")), "")
        self.assertEqual(choose("sip:192.0.2.7", transports=("tcp",)), "")
        self.assertEqual(choose("sip:192.0.2.7;transport=ws", transports=("ws",)), "ws:192.0.2.7:80")
        self.assertEqual(choose("sips:bare.org;transport=ws", transports=("wss",)), "wss:192.0.2.4:443")

    def test_families(self):
        """Addresses come in the order of the families that we have."""
        self.assertEqual(choose("sip:bare.org", families=("AAAA", "A")), "udp:2001:db8::4:5060 udp:192.0.2.4:5060")
        self.assertEqual(choose("sip:bare.org", families=("AAAA",)), "udp:2001:db8::4:5060")

    def test_literal_asks_nothing(self):
        """An IP literal finishes at once."""
        self.assertRaises(StopIteration, next, targets("192.0.2.1", random=random.random))

    def test_questions(self):
        """What is asked, in which order."""
        steps = targets("bare.org", transports=("udp", "tcp"), random=random.random)
        self.assertEqual(drive(steps, read_zone(ZONE))[1], [
            ("NAPTR", "bare.org"), ("SRV", "_sip._udp.bare.org"), ("SRV", "_sip._tcp.bare.org"), ("A", "bare.org")])

    def test_literals(self):
        """What is an IP address and what is a name."""
        rows = [
            ("192.0.2.1", "192.0.2.1"), ("[::1]", "::1"), ("::1", "::1"), ("192.0.2.256", ""), ("192.0.2", ""),
            ("[192.0.2.1", ""), ("[:::1]", ""), ("example.org", ""), ("", ""), ("[]", ""),
        ]
        for host, expected in rows:
            self.assertEqual(literal(host), expected, host)

    def test_default_ports(self):
        """Ports where none is written."""
        ports = [default_port(transport) for transport in ("udp", "tcp", "tls", "sctp", "ws", "wss")]
        self.assertEqual(ports, [5060, 5060, 5061, 5060, 80, 443])


class AliasTests(SynchronousTestCase):
    """CNAMEs are followed, five of them."""

    def test_five(self):
        """Five aliases lead to the address, a sixth does not; the server may send them all along or one by one."""
        for whole in (False, True):
            for name, found in (("c1.org", 1), ("c0.org", 0)):
                steps = targets(name, 5060, random=random.random)
                self.assertEqual(len(drive(steps, read_zone(ZONE), whole)[0]), found, (name, whole))

    def test_sent_along(self):
        """What comes with the alias is not asked for again."""
        steps = targets("alias.org", 5060, random=random.random)
        self.assertEqual(len(drive(steps, read_zone(ZONE), whole=True)[1]), 1)

    def test_other_names(self):
        """Records of names that were not asked for are no answer."""
        steps = targets("bare.org", 5060, random=random.random)
        next(steps)
        done = self.assertRaises(StopIteration, steps.send, [Record("evil.org", "A", "192.0.2.66")])
        self.assertEqual(done.value, [])


class WeightTests(SynchronousTestCase):
    """SRV records are drawn by weight (RFC 2782)."""

    def first(self, zone: list[Record], chance: random.Random) -> str:
        """The host that comes first."""
        return drive(targets("w.org", transport="udp", random=chance.random), zone)[0][0].host

    def test_weights(self):
        """Of equals each comes first about as often as its weight says; weight 0 hardly ever."""
        zone = read_zone("""
            _sip._udp.w.org SRV 5 60 5060 a.w.org
            _sip._udp.w.org SRV 5 39 5060 b.w.org
            _sip._udp.w.org SRV 5 0  5060 c.w.org
            _sip._udp.w.org SRV 9 99 5060 d.w.org
            a.w.org A 192.0.2.1
            b.w.org A 192.0.2.2
            c.w.org A 192.0.2.3
            d.w.org A 192.0.2.4
        """)
        chance = random.Random(1)
        seen = Counter(self.first(zone, chance)[-1] for _ in range(1000))
        self.assertAlmostEqual(seen["1"] / 1000, 0.60, 1)
        self.assertAlmostEqual(seen["2"] / 1000, 0.39, 1)
        self.assertTrue(0 < seen["3"] < 40)
        self.assertEqual(seen["4"], 0)
        found = drive(targets("w.org", transport="udp", random=chance.random), zone)[0]
        self.assertEqual(len(found), 4)
        self.assertEqual(found[-1].host, "192.0.2.4")

    def test_all_zero(self):
        """Records without weights all come."""
        zone = read_zone("\n".join(
            f"_sip._udp.w.org SRV 0 0 5060 {name}.w.org\n{name}.w.org A 192.0.2.{number}" for number, name in enumerate("abc")))
        found = drive(targets("w.org", transport="udp", random=lambda: 0.999), zone)[0]
        self.assertEqual(len(set(found)), 3)


class LimitTests(SynchronousTestCase):
    """Answers from strangers cannot make it long."""

    def test_targets(self):
        """No more than eight targets, and no questions after the eighth."""
        zone = [Record("_sip._udp.w.org", "SRV", Srv(0, 0, 5060 + number, "a.w.org")) for number in range(60)]
        zone += [Record("a.w.org", "A", f"192.0.2.{number}") for number in range(3)]
        found, asked = drive(targets("w.org", transport="udp", random=lambda: 0.0), zone)
        self.assertEqual(len(found), MAX_TARGETS)
        self.assertEqual(len(asked), 4)

    def test_huge_set(self):
        """Thousands of SRV records of names that do not exist end after the allowed questions."""
        zone = [Record("_sip._udp.w.org", "SRV", Srv(0, 1, 5060, f"n{number}.w.org")) for number in range(2000)]
        found, asked = drive(targets("w.org", transport="udp", random=random.Random(1).random), zone)
        self.assertEqual((found, len(asked)), ([], MAX_QUESTIONS))

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(
        st.lists(st.sampled_from(read_zone(ZONE) + read_zone("""
            a.example.org  CNAME example.org
            bare.org       SRV   0 0 0 bare.org
            example.org    NAPTR 1 1 s SIP+D2U example.org
            example.org    A     example.org
        """))),
        st.sampled_from(["example.org", "srv.org", "l1.org", "c0.org", "alias.org"]),
        st.sampled_from([None, "udp", "tls", "x"]), st.sampled_from([None, 5060]), st.booleans(),
    )
    def test_anything(self, answer, host, transport, port, secure):
        """Whatever is answered, it ends within the limits, with IP addresses and transports that we have."""
        steps = targets(
            host, port, transport, secure=secure, transports=ALL, families=("A", "AAAA"), random=random.Random(1).random)
        asked = 0
        try:
            next(steps)
            while True:
                asked += 1
                steps.send(answer)
        except StopIteration as done:
            found = done.value
        self.assertLessEqual(asked, MAX_QUESTIONS)
        self.assertLessEqual(len(found), MAX_TARGETS)
        self.assertEqual(len(found), len(set(found)))
        for target in found:
            self.assertEqual(literal(target.host), target.host)
            self.assertIn(target.transport, ("tls",) if secure else ALL)
            self.assertTrue(0 < target.port < 65536)
