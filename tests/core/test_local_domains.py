"""Tests of sipgw.core.local_domains: names, those below them, and attributes, as OpenSIPS was asked."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.local_domains import LocalDomains, above, read_domain

ROWS = (
    ("example.com", "a=1", 0),
    ("Mixed.Org", None, 0),
    ("sub.net", "subs", 1),
    ("deep.sub.net", "deep", 0),
    ("192.0.2.5", "", None),
)


class LocalDomainTests(SynchronousTestCase):
    """One table."""

    def test_find(self) -> None:
        """Case does not matter; names below count where the row says so, from the nearest row that does."""
        domains = LocalDomains(map(read_domain, ROWS))
        self.assertEqual(len(domains), 5)
        for name, row in (
            ("example.com", 0), ("EXAMPLE.COM", 0), ("mixed.org", 1), ("x.example.com", None), ("sub.net", 2), ("a.sub.net", 2),
            ("A.B.Sub.Net", 2), ("deep.sub.net", 3), ("x.deep.sub.net", 2), ("asub.net", None), ("example.com.", None),
            ("", None),
            ("192.0.2.5", 4), ("x' or '1'='1", None), ("com", None), ("net", None), (".".join("abcdefghi") + ".sub.net", 2),
            (".".join("abcdefghijk") + ".sub.net", None),
        ):  # fmt: skip
            found = domains.find(name)
            self.assertEqual(found, None if row is None else domains.domains[row], name)
        named = domains.named("SUB.net")
        self.assertEqual(None if named is None else named.attributes, "subs")
        self.assertIsNone(domains.named("x.sub.net"))

    def test_above(self) -> None:
        """The names above one, not too many."""
        self.assertEqual(above("a.b.c"), ["b.c", "c"])
        self.assertEqual((above("a"), above("")), ([], []))
        self.assertEqual(len(above("x." * 1000)), 10)
