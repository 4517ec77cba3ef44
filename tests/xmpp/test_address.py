"""Jabber IDs and SIP URIs, one as the other: the tables of RFC 7247 and XEP-0106, and whatever hypothesis thinks of."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from slixmpp import JID
from slixmpp.jid import InvalidJID
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.errors import SipError
from sipgw.sip.uri import Uri
from sipgw.xmpp.address import BadJid, Domains, Jid, escape, unescape

ESCAPES = [  # XEP-0106 5
    ("space cadet", "space\\20cadet"), ('call me "ishmael"', "call\\20me\\20\\22ishmael\\22"), ("at&t guy", "at\\26t\\20guy"),
    ("d'artagnan", "d\\27artagnan"), ("/.fanboy", "\\2f.fanboy"), ("::foo::", "\\3a\\3afoo\\3a\\3a"), ("<foo>", "\\3cfoo\\3e"),
    ("user@host", "user\\40host"), ("c:\\net", "c\\3a\\net"), ("c:\\\\net", "c\\3a\\\\net"),
    ("c:\\cool stuff", "c\\3a\\cool\\20stuff"),
    ("c:\\5commas", "c\\3a\\5c5commas"),
]
DOMAINS = Domains({"example.org": "sip.example.org", "second.test": "second.test"}, lambda host: host == "192.0.2.1")
STARRED = Domains({"example.org": "sip.example.org"}, lambda host: host == "192.0.2.1", "*")


class EscapeTests(SynchronousTestCase):
    """XEP-0106."""

    def test_table(self):
        """The examples of the standard, both ways."""
        for plain, escaped in ESCAPES:
            self.assertEqual(escape(plain), escaped)
            self.assertEqual(unescape(escaped), plain)

    def test_refused(self):
        """Empty, white space at an end, what cannot be seen."""
        for text in ("", " a", "a ", "a\0b", "a\nb", "\u202ea", "\udc80", "\uffff"):
            self.assertRaises(BadJid, escape, text)

    @settings(max_examples=300, derandomize=True, deadline=None)
    @given(st.text(min_size=1, max_size=40))
    def test_round_trip(self, text):
        """What is escaped means the same, in lower case, and slixmpp takes it as a localpart."""
        try:
            local = escape(text)
        except BadJid:
            return
        self.assertEqual(escape(unescape(local)), local)
        try:
            self.assertEqual(JID(f"{local}@example.org").node, local)
        except InvalidJID:
            pass  # stricter than RFC 7622: unassigned characters, bidirectional rules
        self.assertEqual(Jid.parse(f"{local}@example.org").local, local)


class AddressTests(SynchronousTestCase):
    """The map of domains and users."""

    def test_users(self):
        """Our users, as Jabber knows them and back."""
        for uri, jid in (
            ("sip:alice@example.org", "alice@sip.example.org"),
            ("sips:Alice@EXAMPLE.org:5061;transport=tls", "alice@sip.example.org"),
            ("sip:a%20b@example.org", "a\\20b@sip.example.org"),
            ("sip:%C3%A9ric@second.test", "éric@second.test"),
            ("sip:alice@192.0.2.1", "alice@sip.example.org"),
            ("sip:+49301234@example.org;user=phone", "+49301234@sip.example.org"),
            ("tel:+49-30-1234;ext=5", "+49301234@sip.example.org"),
            ("sip:alice@example.org;gr=desk%20phone", "alice@sip.example.org/desk phone"),
        ):
            self.assertEqual(str(DOMAINS.user_to_jid(Uri.parse(uri))), jid)
        for uri, jid in (
            ("sip:alice@example.org", "alice@sip.example.org/r"), ("sip:a%20b@example.org", "a\\20b@sip.example.org"),
            ("sip:%C3%A9ric@second.test", "éric@second.test"), ("sip:%3Cx%3E%3B@example.org", "\\3cx\\3e;@sip.example.org"),
        ):
            self.assertEqual(DOMAINS.user_to_uri(Jid.parse(jid)), uri)

    def test_strangers(self):
        """Nobody speaks for domains that are not ours, in either direction."""
        for call in (
            lambda: DOMAINS.user_to_jid(Uri.parse("sip:alice@elsewhere.test")),
            lambda: DOMAINS.user_to_uri(Jid.parse("alice@elsewhere.test")),
            lambda: DOMAINS.jid_to_uri(Jid.parse("alice@sip.example.org")),
        ):
            self.assertEqual(self.assertRaises(SipError, call).status, 403)

    def test_jabber_users(self):
        """Jabber users as URIs and back, with a separator and without."""
        romeo = Jid.parse("Romeo@Montague.Lit/balcony")
        self.assertEqual(DOMAINS.jid_to_uri(romeo), "sip:romeo@montague.lit")
        self.assertEqual(Domains({"a.test": "a.test"}, resources=True).jid_to_uri(romeo), "sip:romeo@montague.lit;gr=balcony")
        self.assertEqual(STARRED.jid_to_uri(romeo), "sip:romeo*montague.lit@example.org")
        self.assertEqual(DOMAINS.jid_to_uri(Jid.parse("x@bücher.example")), "sip:x@xn--bcher-kva.example")
        for domains, uri, jid in (
            (DOMAINS, "sip:Romeo@montague.lit", "romeo@montague.lit"),
            (DOMAINS, "sip:x@xn--bcher-kva.example", "x@bücher.example"),
            (DOMAINS, "sip:romeo@montague.lit;gr=balcony", "romeo@montague.lit/balcony"),
            (DOMAINS, "sip:romeo*x@montague.lit", "romeo*x@montague.lit"),
            (STARRED, "sip:romeo*montague.lit@example.org", "romeo@montague.lit"),
            (STARRED, "sip:a%20*b*montague.lit@192.0.2.1", "a\\20*b@montague.lit"),
            (STARRED, "sip:romeo@montague.lit", "romeo@montague.lit"),
        ):
            self.assertEqual(str(domains.target_to_jid(Uri.parse(uri))), jid)

    def test_no_jabber_users(self):
        """Our own users are none, and what goes round in circles ends."""
        for domains, uri, status in (
            (DOMAINS, "sip:alice@example.org", 404), (STARRED, "sip:alice@example.org", 404), (DOMAINS, "tel:+49301234", 416),
            (STARRED, "sip:alice*sip.example.org@example.org", 482), (DOMAINS, "sip:a%00@montague.lit", 404),
            (STARRED, "sip:a*b%20c@example.org", 404), (STARRED, "sip:*montague.lit@example.org", 404),
        ):
            self.assertEqual(self.assertRaises(SipError, domains.target_to_jid, Uri.parse(uri)).status, status, uri)

    def test_bad(self):
        """What is no Jabber ID."""
        long = f"{'a' * 1024}@b"
        for text in ("", "@a", "a@", "a@b/", "a b@c", "a@b@c", "a@b c", "a<@b", "a\0@b", long, "a@b%00", "a@\u202eb", "/x"):
            self.assertRaises(BadJid, Jid.parse, text)

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.text(min_size=1, max_size=30))
    def test_no_uri_breaks(self, local):
        """Whatever a localpart is, the URI is one line that says the same again."""
        try:
            jid = Jid.parse(f"{escape(local)}@montague.lit")
        except BadJid:
            return
        for domains in (DOMAINS, STARRED):
            uri = domains.jid_to_uri(jid)
            self.assertTrue(uri.isascii() and uri.isprintable() and not set(uri) & set(' <>"'), uri)
            if domains is DOMAINS or "*" not in local:
                self.assertEqual(domains.target_to_jid(Uri.parse(uri)), jid)
