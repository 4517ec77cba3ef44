"""Tests of sipgw.core.rules: files of rules, read as OpenSIPS reads them."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.rules import Rules, allowed

FILE = r"""# a comment
ALL : "^sip:361[0-9]*@abc\.com$" EXCEPT "^sip:361[0-9]*3@abc\.com$", "^sip:361[0-9]*4@abc\.com$"
"^sip:3677[0-9]*@abc\.com$" :  "^sip:362[0-9]*@abc\.com$"
"""


class RuleTests(SynchronousTestCase):
    """Lines and pairs."""

    def test_file(self) -> None:
        """Patterns on both sides, exceptions, any."""
        rules = Rules(FILE)
        self.assertEqual(rules.faults, [])
        for who, what, fits in (
            ("sip:x@y", "sip:3611@abc.com", True),
            ("sip:x@y", "SIP:3611@ABC.com", True),
            ("sip:x@y", "sip:3613@abc.com", False),
            ("sip:x@y", "sip:3614@abc.com", False),
            ("sip:x@y", "sip:3621@abc.com", False),
            ("sip:36771@abc.com", "sip:3621@abc.com", True),
            ("sip:36771@abc.com;a=b", "sip:3621@abc.com", False),
        ):
            self.assertEqual(rules.match(who, what), fits, (who, what))

    def test_lines(self) -> None:
        """Each way of writing a line means what it means to OpenSIPS, for a call from alice to bob."""
        for line, fits in (
            ("sip:alice : sip:bob", False), ("ALL : bob", True), ('ALL : "bob', True), ('  "ALICE"  :  "BOB"  ', True),
            ("all : all", False), ('ALL : ALL except "bob"', False), ('ALL EXCEPT "alice" : ALL', False),
            ('"carol", "alice" : "dave" , "bob"', True), ("ALL : ALL\r", True), ('ALL : "b#ob" # no', False),
            ('ALL : "bob" # yes', True), ('ALL : "b\\"ob"', False), ('ALL, "x" : ALL', True), ("ALL\t:\tALL", True),
            ('ALL : ALL EXCEPT "alice", "bob"', False), ('"sip:alice@" : "sip:bob@"', True),
            ('ALL : ALL EXCEPT ALL EXCEPT "bob"', True), ("ALL EXCEPT carol : bob", True), ('"EXCEPT" : ALL', False),
        ):  # fmt: skip
            rules = Rules(line)
            self.assertEqual((rules.match("sip:alice@example.org", "sip:bob@127.0.0.1"), rules.faults), (fits, []), line)

    def test_faults(self) -> None:
        """Lines that mean nothing are told and do not count; the others do."""
        lines = [
            *("ALL ALL", 'ALL : "(("', '"*" : ALL', '"" : ""', ' : "bob"', '"alice", : "bob"', "ALL : ALL EXCEPT", '"carol", \\'),
        ]
        for line in lines:
            rules = Rules(f"\n{line}\nALL : ALL")
            self.assertEqual([number for number, _ in rules.faults], [2], line)
            self.assertTrue(rules.match("a", "b"))
        self.assertEqual(Rules("ALL ALL").faults, [(1, "there is no : between who and what")])

    def test_allowed(self) -> None:
        """All pairs must be allowed, or none denied."""
        allow, deny = Rules('ALL : "3611"'), Rules('ALL : "3613"')
        for numbers, wanted in ((("3611", "3611"), True), (("3611", "3612"), True), (("3611", "3613"), False), ((), True)):
            self.assertEqual(allowed([("sip:x@y", f"sip:{number}@a") for number in numbers], allow, deny), wanted, numbers)
        self.assertTrue(allowed([("a", "b")], Rules(), Rules()))
