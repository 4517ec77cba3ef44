"""Tests of sipgw.core.floods: the tree of addresses."""

from socket import AF_INET6, inet_aton, inet_pton

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.floods import BEGINS, CALM, FLOODS, FloodTree

ONE, TWO, THREE = map(inet_aton, ("127.1.2.3", "127.1.2.4", "127.1.3.3"))
SIX = inet_pton(AF_INET6, "::1")


def until(tree: FloodTree, address: bytes, now: float = 0.0) -> int:
    """How many packets it takes until ``address`` floods."""
    for number in range(1, 1000):
        if tree.hit(address, now) == BEGINS:
            return number
    raise AssertionError("it never floods")


class FloodTests(SynchronousTestCase):
    """Packets at times that the test names."""

    def test_numbers(self) -> None:
        """Each takes as many packets as OpenSIPS's tree takes, which was asked in the same order."""
        for density, wanted in (
            (1, (5, 2, 3, 17)),
            (2, (6, 3, 4, 18)),
            (3, (7, 4, 5, 19)),
            (5, (9, 6, 7, 21)),
            (7, (11, 8, 9, 23)),
            (8, (12, 9, 10, 24)),
            (16, (22, 17, 18, 34)),
            (30, (39, 31, 32, 51)),
        ):
            tree = FloodTree(density, 100, 120)
            self.assertEqual(tuple(until(tree, address) for address in (ONE, TWO, THREE, SIX)), wanted, density)
            self.assertEqual(tree.hit(ONE, 0), FLOODS)
            self.assertEqual(tree.blocked(), [SIX, THREE, TWO, ONE])

    def test_calm_again(self) -> None:
        """A flood ends with the first period that has no flood in it nor before it, and the address begins anew."""
        tree = FloodTree(4, 2, 120)
        until(tree, ONE, 1)
        self.assertEqual((tree.sweep(2.5), tree.hit(ONE, 3)), ([], FLOODS))
        self.assertEqual(tree.sweep(3.9), [])
        self.assertEqual((tree.sweep(4), tree.blocked()), ([ONE], []))
        self.assertEqual([tree.hit(ONE, 4) for _ in range(5)], [CALM, CALM, CALM, BEGINS, FLOODS])

    def test_slow(self) -> None:
        """Who sends less than the density in each period never floods."""
        tree = FloodTree(4, 2, 120)
        for number in range(300):
            self.assertEqual(tree.hit(ONE, number * 2 / 3 + 0.01), CALM)

    def test_release(self) -> None:
        """What is released begins anew; what does not flood cannot be."""
        tree = FloodTree(4, 2, 120)
        self.assertFalse(tree.release(ONE))
        until(tree, ONE)
        self.assertTrue(tree.release(ONE))
        self.assertFalse(tree.release(ONE))
        self.assertEqual([tree.hit(ONE, 0) for _ in range(4)], [CALM, CALM, CALM, BEGINS])

    def test_forgotten(self) -> None:
        """What was silent for the latency is gone with all that only it needed; what others need stays."""
        tree = FloodTree(4, 2, 10)
        until(tree, ONE, 0)
        until(tree, THREE, 5)
        self.assertEqual(len(tree), 6)
        tree.sweep(10.5)
        self.assertEqual(len(tree), 4)
        tree.sweep(15.5)
        self.assertEqual((len(tree), tree.blocked()), (0, []))
        self.assertEqual(until(tree, ONE, 16), 8)

    def test_bound(self) -> None:
        """A tree that is full forgets what was hit longest ago, not who floods now."""
        tree = FloodTree(1, 2, 120, size=50)
        for number in range(5000):
            address = number.to_bytes(2, "big")
            for _ in range(4):
                tree.hit(b"\x0a\x0a" + address, number / 1000)
            tree.hit(ONE, number / 1000)
            self.assertLessEqual(len(tree), 50)
        self.assertIn(ONE, tree.blocked())
        self.assertLess(len(tree.blocked()), 50)
