"""Tests of sipgw.sip.nonce: what is taken, once, and what never."""

from __future__ import annotations

from base64 import b64decode, b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.nonce import CODES, NonceTable


def table(limit: int = 100, secret: bytes = b"s") -> NonceTable:
    """The nonces of a server, each good for half a minute."""
    return NonceTable(secret, 30, limit)


class NonceTests(SynchronousTestCase):
    """Tests of ``NonceTable``."""

    def test_once(self) -> None:
        """Without a nonce count a nonce is good once; nothing is kept of one that nobody uses."""
        nonces = table()
        nonce = nonces.make(100.0)
        self.assertEqual((len(nonce), len(nonces)), (36, 0))
        self.assertTrue(nonces.is_good(nonce, 101.0, "MD5", "", 0))
        self.assertFalse(nonces.is_good(nonce, 101.0, "MD5", "", 0))
        self.assertEqual(len(nonces), 1)

    def test_count_grows(self) -> None:
        """The nonce count must grow; 0, and a count without qop after one with it, are no use."""
        nonces = table()
        nonce = nonces.make(100.0, "MD5", ("auth",))
        for count, good in ((0, False), (1, True), (1, False), (2, True), (9, True), (3, False), (0xFFFFFFFF, True)):
            self.assertEqual(nonces.is_good(nonce, 100.0, "md5", "auth", count), good, count)
        nonce = nonces.make(100.0, "MD5", ("auth",))
        self.assertTrue(nonces.is_good(nonce, 100.0, "MD5", "", 7))
        self.assertFalse(nonces.is_good(nonce, 100.0, "MD5", "auth", 8))

    def test_time(self) -> None:
        """A nonce is good for its lifetime, and not long before it was made."""
        for now, good in ((97.0, False), (98.0, True), (100.0, True), (130.0, True), (131.0, False), (1e6, False)):
            nonces = table()
            self.assertEqual(nonces.is_good(nonces.make(100.9), now, "MD5", "", 0), good, now)

    def test_downgrade(self) -> None:
        """The answer must have the algorithm that was offered, and a qop that was; RFC 2069's none is always possible."""
        nonces = table()
        for algorithm in ("", *CODES):
            for other in CODES:
                nonce = nonces.make(0.0, algorithm)
                self.assertEqual(nonces.is_good(nonce, 0.0, other.upper(), "", 0), other == (algorithm or "md5"))
        for offered, given_qop, good in (
            (("auth",), "auth", True), (("auth",), "auth-int", False), (("auth-int",), "auth", False), ((), "auth", False),
            (("auth", "auth-int"), "auth-int", True), (("auth",), "other", False), (("auth",), "", True),
        ):
            self.assertEqual(nonces.is_good(nonces.make(0.0, "", offered), 0.0, "MD5", given_qop, 1), good, (offered, given_qop))

    def test_spoiled(self) -> None:
        """A nonce with which somebody failed is used up."""
        nonces = table()
        nonce = nonces.make(0.0, "", ("auth",))
        self.assertTrue(nonces.is_good(nonce, 0.0, "MD5", "auth", 1))
        nonces.spoil(nonce)
        self.assertFalse(nonces.is_good(nonce, 0.0, "MD5", "auth", 2))
        nonces.spoil("nonsense")

    def test_forged(self) -> None:
        """A nonce of another secret, and one with any octet changed, is none."""
        nonces = table()
        self.assertFalse(nonces.is_good(table(secret=b"t").make(0.0), 0.0, "MD5", "", 0))
        octets = b64decode(nonces.make(0.0))
        for place in range(len(octets)):
            forged = octets[:place] + bytes([octets[place] ^ 1]) + octets[place + 1 :]
            self.assertFalse(nonces.is_good(b64encode(forged).decode(), 0.0, "MD5", "", 0), place)
        for text in ("", "abc", "A" * 36, "=" * 36, "é" * 36, "A" * 10000, "\udcff"):
            self.assertFalse(nonces.is_good(text, 0.0, "MD5", "", 0), text)

    def test_bounded(self) -> None:
        """However many are used, so many are remembered; those that are forgotten early are stale, not new again."""
        nonces = table(limit=10)
        made = [nonces.make(0.0) for _ in range(50)]
        for nonce in made:
            self.assertTrue(nonces.is_good(nonce, 0.0, "MD5", "", 0))
        self.assertEqual(len(nonces), 10)
        self.assertEqual([nonces.is_good(nonce, 0.0, "MD5", "", 0) for nonce in made], [False] * 50)
        fresh = nonces.make(31.0)
        self.assertTrue(nonces.is_good(fresh, 31.0, "MD5", "", 0))
        self.assertEqual(len(nonces), 1)

    def test_unchecked(self) -> None:
        """With no limit each is good as often as one likes, in each server with that secret."""
        nonces, other = table(limit=0), table(limit=0)
        nonce = nonces.make(0.0)
        for each in (nonces, other, nonces):
            self.assertTrue(each.is_good(nonce, 1.0, "MD5", "", 0))
        self.assertEqual(len(nonces), 0)

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.sampled_from([0, 0, 0, 5, 40])), max_size=60))
    def test_never_twice(self, uses: list[tuple[int, int, int]]) -> None:
        """Whatever is used in whatever order, no count of a nonce is taken twice."""
        nonces = table(limit=3)
        now = 0.0
        made = [nonces.make(now, "", ("auth",)) for _ in range(10)]
        taken: set[tuple[str, int]] = set()
        for which, count, later in uses:
            now += later
            use = made[which], count
            if nonces.is_good(*use[:1], now, "MD5", "auth", count):
                self.assertNotIn(use, taken)
                taken.add(use)
            if later:
                made[which] = nonces.make(now, "", ("auth",))
        self.assertLessEqual(len(nonces), 3)
