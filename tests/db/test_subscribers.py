"""Users and the hashes of their passwords."""

import os

from twisted.trial.unittest import SynchronousTestCase

from sipgw.db.errors import DatabaseError, Duplicate, Refused
from sipgw.db.making import create
from sipgw.db.session import Session
from sipgw.db.subscribers import Subscribers, hashes, new_password
from sipgw.sip.auth import Credentials, is_response


class SubscriberTests(SynchronousTestCase):
    """One table of users."""

    def setUp(self):
        """A database in a file."""
        self.store = Session(f"sqlite://{os.path.abspath(self.mktemp())}", create=True)
        self.addCleanup(self.store.close)
        create(self.store, ["subscriber"])
        self.users = Subscribers(self.store)

    def row(self, user, *columns):
        """What stands in the table."""
        return self.store.select("subscriber", columns, {"username": user}).rows[0]

    def test_hashes(self):
        """The examples of RFC 7616 3.9.1: their HA1 answers their challenges."""
        found = hashes("Mufasa", "http-auth@example.org", "Circle of Life")
        for algorithm, column, response in (
            ("MD5", "ha1", "8ca523f5e9506fed4657c9700eebdbec"),
            ("SHA-256", "ha1_sha256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ):
            credentials = Credentials.parse(
                'Digest username="Mufasa", realm="http-auth@example.org", uri="/dir/index.html", algorithm=' + algorithm
                + ', nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", nc=00000001, qop=auth,'
                ' cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", response="' + response + '"'
            )  # fmt: skip
            self.assertTrue(is_response(credentials, found[column], "GET"), algorithm)
        self.assertEqual(len(found["ha1_sha512t256"]), 64)

    def test_life(self):
        """Users are added, listed, given another password, removed; no password stands in the table."""
        self.users.add("1000", "example.org", "secret")
        self.users.add("a.b", "example.net", "secret")
        self.assertEqual(self.row("1000", "password", "ha1"), ("", hashes("1000", "example.org", "secret")["ha1"]))
        self.assertEqual([*self.users.all()], [("1000", "example.org"), ("a.b", "example.net")])
        self.assertEqual([*self.users.all("example.net")], [("a.b", "example.net")])
        self.assertRaises(Duplicate, self.users.add, "1000", "example.org", "other")
        self.store.update("subscriber", {"password": "plain"}, {"username": "1000"})
        self.users.change("1000", "example.org", "other")
        self.assertEqual(self.row("1000", "password", "ha1_sha256"), ("", hashes("1000", "example.org", "other")["ha1_sha256"]))
        self.users.remove("1000", "example.org")
        for call, arguments in ((self.users.change, ["x"]), (self.users.remove, [])):
            self.assertRaises(DatabaseError, call, "1000", "example.org", *arguments)

    def test_refused(self):
        """Names and passwords that cannot be."""
        for user, domain, password in (
            ("", "d", "p"), ("a b", "d", "p"), ("a@b", "d", "p"), ("a" * 65, "d", "p"), ("a", "", "p"), ("a", "d e", "p"),
            ("a", "d", ""), ("a", "d", "p\n"), ("'; --\"", "d", "p"),
        ):  # fmt: skip
            self.assertRaises(Refused, self.users.add, user, domain, password)
        self.assertEqual(len(self.users.all()), 0)

    def test_columns(self):
        """Columns may have other names; those of hashes that an older table lacks are left out."""
        self.store.run("CREATE TABLE people (name CHAR(64), realm CHAR(64), secret CHAR(64))")
        people = Subscribers(self.store, "people", user="name", domain="realm", hash="secret")
        people.add("a", "d", "p")
        self.assertEqual([*self.store.select("people").rows], [("a", "d", hashes("a", "d", "p")["ha1"])])
        people.change("a", "d", "q")
        self.assertEqual(self.store.select("people", ["secret"]).rows[0][0], hashes("a", "d", "q")["ha1"])
        for table, column in (("nowhere", "ha1"), ("people", "ha1")):
            self.assertRaises(Refused, Subscribers(self.store, table, "name", "realm", column).add, "b", "d", "p")

    def test_random(self):
        """No two passwords are the same, and they can be read aloud."""
        found = {new_password() for _ in range(100)}
        self.assertEqual(len(found), 100)
        self.assertTrue(all(each.isalnum() and len(each) == 16 and not set(each) & set("0o1l") for each in found))
