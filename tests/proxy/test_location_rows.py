"""Tests of sipgw.proxy.location_rows; numbers and rows are those that OpenSIPS 4.1 has written."""

from __future__ import annotations

from datetime import datetime
from math import inf
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.location import MEMORY_ONLY, Binding, binding_key
from sipgw.proxy.location_rows import Columns, Rows, contact_id, core_hash, is_ours, kept_values, packed_values
from sipgw.sip.uri import Uri
from tests.proxy.rig import Rig

WALL = 1_700_000_000

OPENSIPS = {
    "contact_id": 278026908245959846,
    "username": "bob",
    "contact": "sip:bob@1.1.1.1:5061",
    "expires": WALL + 600,
    "q": 0.5,
    "callid": "call-bob",
    "cseq": 1,
    "flags": 0,
    "cflags": "OTHER NAT",
    "user_agent": "phone",
    "received": None,
    "path": "<sip:p@9.9.9.9;lr>",
    "socket": "udp:127.0.0.1:5060",
    "methods": 5,
    "last_modified": datetime.fromtimestamp(WALL - 30),
    "sip_instance": "<urn:uuid:1>",
    "kv_store": '{"_urec_kvs":"{\\"colour\\":\\"blue\\"}"}',
    "attr": "an attribute",
    "domain": "example.org",
}
"""A row of OpenSIPS, its times moved."""


class NumberTests(SynchronousTestCase):
    """Contact ids."""

    def test_hash(self) -> None:
        """The hash of an address-of-record is OpenSIPS's, which takes octets beyond 127 as negative."""
        for aor, bits in [("bob@example.org", 3951), ("a@example.org", 37899), ("b@c@example.org", 60538)]:
            self.assertEqual(core_hash(aor) & 0xFFFF, bits, aor)
        self.assertNotEqual(core_hash("\u00e9\u00e9\u00e9\u00e9"), core_hash("eeee"))
        self.assertTrue(is_ours(278026908245959846, "bob@example.org"))
        self.assertFalse(is_ours(278026908245959846, "ann@example.org"))
        self.assertFalse(is_ours(1, "bob@example.org"))

    def test_again(self) -> None:
        """The same contact gets the same number; another one of the user another, beside those that OpenSIPS gave too."""
        first = contact_id("bob@example.org", "sip:bob@1.1.1.1")
        self.assertEqual(first, contact_id("bob@example.org", "sip:bob@1.1.1.1", {5}))
        second = contact_id("bob@example.org", "sip:bob@1.1.1.1", {first})
        self.assertEqual(first >> 14, second >> 14)
        self.assertNotEqual(first, second)
        beside = contact_id("bob@example.org", "sip:x@h", {278026908245959846})
        self.assertEqual(beside >> 14, 278026908245959846 >> 14)

    @given(st.text(max_size=20), st.lists(st.text(max_size=20), max_size=20))
    @settings(max_examples=200, deadline=None, derandomize=True)
    def test_unique(self, aor: str, contacts: list[str]) -> None:
        """No two contacts of a user have the same number, all of them are OpenSIPS's, and none is too large for a BIGINT."""
        taken: set[int] = set()
        for contact in contacts:
            number = contact_id(aor, contact, taken)
            self.assertNotIn(number, taken)
            self.assertTrue(0 < number < 2**62 and is_ours(number, aor))
            taken.add(number)


class RowTests(SynchronousTestCase):
    """Rows on a server with a socket and two flags, at a known time."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.user = self.rig.user
        self.user.branch_flags.mask("NAT")
        self.user.branch_flags.mask("OTHER")
        self.rows = Rows(self.user)

    def load(self, rows: Rows | None = None, **other: Any) -> Binding:
        """What a row of OpenSIPS is with some other values."""
        rows = rows or self.rows
        loaded = rows.load([{**OPENSIPS, **other}[name] for name in rows.read])
        assert loaded.binding is not None, loaded.why
        return loaded.binding

    def test_of_opensips(self) -> None:
        """A row of OpenSIPS is a contact with the time that is left, and is written again as it was."""
        binding = self.load()
        found = {name: getattr(binding, name) for name in Binding.__slots__ if name not in ("bucket", "wake", "key")}
        self.assertEqual(
            found,
            {
                "aor": "bob@example.org", "attr": "an attribute", "call_id": "call-bob", "contact": "sip:bob@1.1.1.1:5061",
                "cseq": 1, "expires": 600.0, "flags": 3, "instance": "<urn:uuid:1>", "marks": 0, "methods": 5, "modified": -30.0,
                "path": "<sip:p@9.9.9.9;lr>", "q": 500, "received": None, "reg_id": None, "serial": 278026908245959846,
                "socket": self.rig.socket, "user_agent": "phone",
            },
        )
        change = self.rows.store("location", binding, {"colour": "blue"})
        self.assertEqual((change.kind, change.table, change.keys), ("replace", "location", ("contact_id",)))
        self.assertEqual({**change.values, "cflags": "OTHER NAT"}, OPENSIPS)

    def test_empty(self) -> None:
        """What a contact does not have is NULL, but for n/a as its User-Agent; a contact without end ends at 0."""
        binding = Binding("bob@example.org", "sip:b@h", binding_key(Uri.parse("sip:b@h")), inf, "c", 7, 0)
        binding.serial = 9
        binding.marks = 4 | MEMORY_ONLY
        values = self.rows.store("location", binding, {}).values
        nothing = {name for name, value in values.items() if value is None}
        self.assertEqual(nothing, {"received", "path", "socket", "methods", "sip_instance", "kv_store", "attr"})
        self.assertEqual([values[name] for name in ("expires", "q", "user_agent", "cflags", "flags")], [0, -1.0, "n/a", "", 4])
        again = self.load(None, **values)
        for name in Binding.__slots__:
            if name not in ("marks", "bucket", "wake"):
                self.assertEqual(getattr(again, name), getattr(binding, name), name)
        self.assertEqual(again.marks, 4)

    def test_bounds(self) -> None:
        """What is too much for a column is cut where that does no harm; a lifetime is never cut to less than was said."""
        binding = self.load()
        binding.user_agent = "x" * 300
        binding.expires = 10.2
        binding.cseq = 2**32
        values = self.rows.store("location", binding, {}).values
        self.assertEqual(values["user_agent"], "x" * 255)
        self.assertEqual((values["expires"], values["cseq"]), (WALL + 11, 2**31 - 1))
        binding.expires = 2.0**32
        self.assertEqual(self.rows.store("location", binding, {}).values["expires"], 2**31 - 1)

    def test_odd(self) -> None:
        """A socket that is not ours is left out, and flags beyond the 32nd; a row without contact, user or end is none."""
        self.assertIsNone(self.load(socket="udp:203.0.113.9:5060").socket)
        self.assertEqual(self.load(cflags="NAT NEW").flags, 5)
        for number in range(40):
            self.load(cflags=f"F{number}")
        self.assertEqual(self.load(cflags="F39 NAT").flags, 1)
        self.assertEqual(self.load(cflags=None, cseq=None, q=None, last_modified=None).q, -1)
        self.assertEqual(self.load(username="").aor, "example.org")
        cases: list[tuple[dict[str, Any], str]] = [
            ({"contact": None}, "contact"), ({"contact": "no uri"}, "no URI"), ({"username": "", "domain": None}, "user"),
            ({"expires": None}, "end"), ({"contact_id": None}, "end"),
        ]  # fmt: skip
        for other, why in cases:
            loaded = self.rows.load([{**OPENSIPS, **other}[name] for name in self.rows.read])
            self.assertIsNone(loaded.binding)
            self.assertIn(why, loaded.why)

    def test_without_domain(self) -> None:
        """Without ``use_domain`` the domain is neither read nor written; columns may have other names."""
        rows = Rows(self.user, Columns(user="who"), use_domain=False)
        self.assertNotIn("domain", rows.read)
        self.assertEqual(self.load(rows, who="bob").aor, "bob")
        self.assertEqual(rows.place("bob"), {"who": "bob"})
        self.assertEqual(self.rows.place("bob@c@d"), {"username": "bob", "domain": "c@d"})
        self.assertEqual(self.rows.place("example.org"), {"username": "", "domain": "example.org"})

    def test_values(self) -> None:
        """The values of a user come back; what cannot be read has none."""
        for values in ({"a": "1"}, {"\u00e4'\"": "\\ %s"}, {}):
            self.assertEqual(kept_values(packed_values(values)), values)
        for text in (None, "", "{", "[]", '{"_urec_kvs": 5}', '{"_urec_kvs": "[]"}', "7"):
            self.assertEqual(kept_values(text), {}, text)
        self.assertEqual(kept_values('{"_urec_kvs":"{\\"n\\":5}"}'), {"n": "5"})
