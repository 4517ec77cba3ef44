r"""Tests of sipgw.ldap.url and config: what scripts and files say, and what variables cannot make of it."""

from twisted.trial.unittest import SynchronousTestCase

from sipgw.ldap.config import Server, read_sessions
from sipgw.ldap.url import Escaped, LdapUrl, escape_filter, escape_name, filter_url_encode, joined, parse
from sipgw.script.parts import Hole, Parts

HOSTILE = ["*", "a)(uid=*", "a\\", "a\0b", "x?sub?(uid=*)", "x?base?", "%2a", "\\2a", "a,dc=evil", "ü\udcff", "", " "]


class ParseTests(SynchronousTestCase):
    """URLs as they are written."""

    def test_parts(self):
        """The parts of RFC 4516, with a session for a host."""
        for text, expected in [
            ("ldap://s/ou=sip,dc=x??one?(cn=a)", LdapUrl("s", "ou=sip,dc=x", (), "one", "(cn=a)")),
            ("ldap://s/dc=x?cn, sn?SUB?(cn=a%3F)", LdapUrl("s", "dc=x", ("cn", "sn"), "sub", "(cn=a?)")),
            ("ldap://s/dc=x", LdapUrl("s", "dc=x", (), "base", "(objectClass=*)")),
            ("ldap://s", LdapUrl("s", "", (), "base", "(objectClass=*)")),
            ("ldap://s/dc=a%20b??subtree?cn=a", LdapUrl("s", "dc=a b", (), "sub", "(cn=a)")),
        ]:
            self.assertEqual(parse(text), expected, text)

    def test_refused(self):
        """What is no such URL."""
        long = "ldap://s/???(" + "a" * 5000
        for text in ["", "http://s/", "ldap:///dc=x", "ldap://s/dc=x??deep?(a=b)", "ldap://s/????x", long]:
            self.assertRaises(ValueError, parse, text)


class EscapeTests(SynchronousTestCase):
    """What variables put into URLs."""

    def search(self, *pieces):
        """A URL of texts and, in lists, variables."""
        template = tuple(piece if isinstance(piece, str) else Hole("var") for piece in pieces)
        return parse(joined(Parts(template, tuple(piece[0] for piece in pieces if isinstance(piece, list)))))

    def test_values(self):
        """A value in a filter is one value, whatever it holds, and the rest of the URL is what it was."""
        for value in HOSTILE:
            found = self.search("ldap://s/dc=x?cn?one?(&(cn=", [value], ")(sn=y))")
            self.assertEqual(found, LdapUrl("s", "dc=x", ("cn",), "one", f"(&(cn={escape_filter(value)})(sn=y))"), value)
            whole = self.search("ldap://s/dc=x?cn?one?(", [value], ")")
            self.assertEqual(whole.filter, f"({escape_filter(value)})")

    def test_encoded_before(self):
        """What ldap_filter_url_encode has made is not escaped again."""
        for value in HOSTILE:
            found = self.search("ldap://s/dc=x??one?(", [filter_url_encode(f"cn={value}")], ")")
            self.assertEqual(found.filter.replace("%", ""), f"(cn={escape_filter(value)})".replace("%2a", "*").replace("%", ""))
        self.assertEqual(filter_url_encode("a*(b)\\?\0"), "a\\2a\\28b\\29\\5c%3F\\00")
        self.assertEqual(self.search("ldap://s/??sub?(cn=", [Escaped("\\2a")], ")").filter, "(cn=\\2a)")

    def test_names(self):
        """A value in a name is one value too; a base in a variable is one."""
        for value in HOSTILE:
            found = self.search("ldap://s/uid=", [value], ",ou=people,dc=x??base")
            self.assertEqual((found.base, found.scope), (f"uid={escape_name(value)},ou=people,dc=x".strip(), "base"), value)
        self.assertEqual(self.search("ldap://s/", ["ou=a,dc=x"], "??one?(cn=a)").base, "ou=a,dc=x")
        self.assertEqual(self.search("ldap://s/ou=b,", ["ou=a,dc=x"], "??one?(cn=a)").base, "ou=b,ou=a,dc=x")

    def test_texts_of_the_script(self):
        """A variable that is the whole filter is one that the script has written."""
        self.assertEqual(self.search("ldap://s/dc=x??sub?", ["(|(cn=a?)(cn=b))"]).filter, "(|(cn=a?)(cn=b))")
        self.assertEqual(self.search(["ldap://s/dc=x??sub?(cn=a*)"]), LdapUrl("s", "dc=x", (), "sub", "(cn=a*)"))
        self.assertEqual(self.search("ldap://", ["s/dc=evil"], "/dc=x").session, "s/dc=evil")
        self.assertEqual(self.search("ldap://", ["s"], "/dc=x??", ["sub"], "?(cn=a)"), LdapUrl("s", "dc=x", (), "sub", "(cn=a)"))


FILE = """
# two sessions
[one]
ldap_server_url = "ldap://a.example, ldap://b.example:3890,
                   ldaps://[::1]"   ; three servers
ldap_bind_dn = "cn=x,dc=y"; comment
ldap_bind_password = "a;b#c"
ldap_network_timeout = 500 ; ms
ldap_client_search_timeout = 100
ldap_require_certificate = demand
calculate_ha1 = yes

[two]
ldap_server_url=ldap://c
ldap_version = 2
"""


class ConfigTests(SynchronousTestCase):
    """The file of sessions."""

    def test_sessions(self):
        """Every kind of line; times below the least are raised; passwords are not shown."""
        found = read_sessions(FILE)
        one, two = found["one"], found["two"]
        self.assertEqual(
            one.servers, (Server("a.example", 389, False), Server("b.example", 3890, False), Server("::1", 636, True))
        )
        self.assertEqual((one.ldap_bind_dn, one.ldap_bind_password, one.ldap_network_timeout), ("cn=x,dc=y", "a;b#c", 500))
        self.assertEqual((one.ldap_client_search_timeout, one.verifies, one.start_tls), (2000, True, False))
        self.assertEqual((two.servers, two.ldap_version, two.verifies), ((Server("c", 389, False),), 2, False))
        self.assertNotIn("a;b", repr(one))

    def test_refused(self):
        """Each fault is told with its place."""
        for text in [
            "", "x = 1", "[a]\n", "[a]\nldap_server_url = x", "[a]\nldap_server_url = ldap://h\nwhat = 1", "[a]\n[a]\n",
            "[a]\nldap_server_url = ldap://h\nldap_version = 4", "[a]\nldap_server_url = ldap://h\nldap_network_timeout = x",
            "[a]\nldap_server_url = ldap://h\nldap_require_certificate = maybe", "[a]\nldap_server_url = ldap://h:x", "[a\n",
        ]:
            self.assertRaises(ValueError, read_sessions, text)
