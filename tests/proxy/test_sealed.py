"""Tests of sipgw.proxy.sealed."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.sealed import Seal


class SealTests(SynchronousTestCase):
    """Octets sealed and opened."""

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.binary(min_size=1, max_size=300))
    def test_any(self, octets: bytes) -> None:
        """Whatever is sealed comes back, as a text that can stand in a URI."""
        seal = Seal(b"secret", b"test")
        text = seal.close(octets)
        self.assertTrue(re.fullmatch(r"[A-Za-z0-9_-]+", text))
        self.assertEqual(seal.open(text), octets)
        self.assertEqual(seal.close(octets), text)

    def test_others(self) -> None:
        """Another secret and another purpose know nothing of it, and make other texts."""
        text = Seal(b"secret", b"test").close(b"octets")
        for secret, purpose in [(b"other", b"test"), (b"secret", b"rest")]:
            other = Seal(secret, purpose)
            self.assertIsNone(other.open(text))
            self.assertNotEqual(other.close(b"octets"), text)

    def test_changed(self) -> None:
        """A text that was changed, cut or made up is none."""
        seal = Seal(b"secret", b"test")
        text = seal.close(b"octets")  # 18 octets are 24 characters, each bit of which counts
        for place in range(len(text)):
            self.assertIsNone(seal.open(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1:]), place)
        for made_up in ("", "x", "AAAA", "A" * 16, "é", text[:-4], text + "AAAA", text + "!", text[:5] + "\n" + text[5:]):
            self.assertIsNone(seal.open(made_up), made_up)
