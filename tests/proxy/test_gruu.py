"""Tests of sipgw.proxy.gruu."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.gruu import Device, Gruus, instance_of, is_temporary, newest, public_device
from sipgw.proxy.location import Binding
from sipgw.sip.uri import Uri

URN = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"


def binding(instance: str | None = f"<{URN}>", aor: str = "bob@example.org", **fields: Any) -> Binding:
    """One contact."""
    made = Binding(aor, "sip:a@1.1.1.1", 0, 4600.0, "call", 1, 1000.0)
    made.instance = instance
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class GruuTests(SynchronousTestCase):
    """GRUUs made and read."""

    def setUp(self) -> None:
        self.gruus = Gruus(b"secret")

    def token(self, made: Binding) -> str:
        """The user of a temporary GRUU."""
        return self.gruus.token(made, instance_of(made) or "")

    def test_params(self) -> None:
        """A contact with an instance gets both, in the scheme and domain of its address-of-record; one without gets none."""
        for made, uri, begin, domain in [
            (binding(), "sip:bob@Example.org:5070;x=1", f'sip:bob@example.org;gr={URN}"', "sip example.org"),
            (binding(), "sips:bob@example.org", f'sips:bob@example.org;gr={URN}"', "sips example.org"),
            (binding("<a b;c>", "a b@x"), "sip:a%20b@x", 'sip:a%20b@x;gr=a%20b%3Bc"', "sip x"),
            (binding(aor="bob"), "sip:bob@Here", f'sip:bob@here;gr={URN}"', "sip here"),
            (binding(aor="example.org"), "sip:example.org", f'sip:example.org;gr={URN}"', "sip example.org"),
        ]:
            text = self.gruus.params(made, Uri.parse(uri))
            public, temporary, instance = text[1:].split('";')
            self.assertEqual(public + '"', f'pub-gruu="{begin}')
            self.assertEqual(instance, f'+sip.instance="{made.instance}"')
            found = Uri.parse(temporary.partition('"')[2])
            self.assertTrue(is_temporary(found))
            self.assertEqual(f"{found.scheme} {found.host}", domain)
            read = self.gruus.read(found.user)
            assert read is not None
            self.assertEqual(read[0], made.aor)
            self.assertTrue(read[1].has(made))
            device = public_device(Uri.parse(public.partition('"')[2]))
            assert device is not None
            self.assertTrue(device.has(made))
        for none in (None, "", "foo", "<>", "<x", "x>"):
            self.assertEqual(self.gruus.params(binding(none), Uri.parse("sip:bob@example.org")), "", none)
        self.assertEqual(self.gruus.params(binding(aor="+1"), Uri.parse("tel:+1")), "")
        self.assertIn('+sip.instance="<a\\"\\\\b>"', self.gruus.params(binding('<a"\\b>'), Uri.parse("sip:bob@example.org")))

    def test_public(self) -> None:
        """A public GRUU is compared as a URN, case aside, escapes resolved."""
        for uri, right in [
            (f"sip:bob@example.org;gr={URN}", True),
            (f"sip:bob@example.org;x;GR={URN.upper()}", True),
            (f"sip:bob@example.org;gr={URN.replace(':', '%3a')}", True),
            ("sip:bob@example.org;gr=urn:uuid:2", False),
        ]:
            device = public_device(Uri.parse(uri))
            assert device is not None
            self.assertEqual(device.has(binding()), right, uri)
            self.assertFalse(device.has(binding(None)))
        for uri in ("sip:bob@example.org", "sip:bob@example.org;gr", "sip:bob@example.org;gr=", "tel:+1;gr=x"):
            self.assertIsNone(public_device(Uri.parse(uri)), uri)

    def test_temporary(self) -> None:
        """Each REGISTER gives another token, all good until another Call-ID; nothing in it can be seen."""
        tokens = [self.token(binding(cseq=cseq)) for cseq in (1, 2, 2**31)]
        self.assertEqual(len(set(tokens)), 3)
        self.assertEqual(tokens[0], self.token(binding(cseq=1, contact="sip:elsewhere", modified=5.0)))
        for token in tokens:
            self.assertNotIn("bob", token)
            aor, device = self.gruus.read(token) or ("", Device(""))
            self.assertEqual(aor, "bob@example.org")
            self.assertTrue(device.has(binding()))
            for other in (binding(call_id="other"), binding("<urn:uuid:2>"), binding(None)):
                self.assertFalse(device.has(other))

    def test_forged(self) -> None:
        """A token that was changed in any place, or made with another secret, is none."""
        token = self.token(binding())
        for place in range(6, len(token)):
            changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1:]
            read = self.gruus.read(changed)
            self.assertTrue(read is None or changed[:-1] == token[:-1], place)
        for user in ("tgruu.", "tgruu.abcdef", "tgruu.////", "tgruu.é", token[:-4], token + "AAAA", token + "!", None):
            self.assertIsNone(self.gruus.read(user), user)
        self.assertIsNone(Gruus(b"other").read(token))
        self.assertEqual(Gruus(b"secret").token(binding(), URN), token)

    def test_is_temporary(self) -> None:
        """``gr`` without a value and the right beginning."""
        for uri, temporary in [
            ("sip:tgruu.x@h;gr", True), ("sip:tgruu.x@h", False), ("sip:tgruu.x@h;gr=1", False), ("sip:x@h;gr", False),
            ("sip:h;gr", False), ("tel:1;gr", False),
        ]:
            self.assertEqual(is_temporary(Uri.parse(uri)), temporary, uri)

    def test_newest(self) -> None:
        """Of a device's contacts the one that it registered last counts."""
        first, second, third = binding(modified=5.0), binding(modified=7.0, serial=2), binding(modified=7.0, serial=3)
        self.assertEqual(newest([third, first, second]), [third])
        self.assertEqual(newest([first, second]), [second])
        self.assertEqual(newest([]), [])

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])), st.integers(0, 2**32 - 1))
    def test_any_user(self, user: str, cseq: int) -> None:
        """Whatever the user is called comes back."""
        gruus = Gruus(b"secret")
        made = binding(aor=f"u{user}@h", cseq=cseq)
        read = gruus.read(gruus.token(made, URN))
        assert read is not None
        self.assertEqual(read[0], made.aor)
