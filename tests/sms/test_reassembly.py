"""Parts that wait for the others."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sms.reassembly import Reassembly
from sipgw.sms.udh import Concatenation


def part(number: int, total: int = 3, reference: int = 7) -> Concatenation:
    """One part's place."""
    return Concatenation(reference, total, number)


class ReassemblyTests(SynchronousTestCase):
    """``Reassembly``."""

    def setUp(self) -> None:
        """An empty one, with a patience of 10 seconds."""
        self.waiting: Reassembly[str] = Reassembly(10, capacity=5)

    def test_any_order(self) -> None:
        """The message comes out with its last part, in order; repetitions change nothing, also afterwards."""
        add = self.waiting.add
        self.assertEqual([add("a", part(n), f"p{n}", 0) for n in (3, 1, 3)], [[], [], []])
        (whole,) = add("a", part(2), "p2", 1)
        self.assertEqual((whole.parts, whole.missing), (["p1", "p2", "p3"], 0))
        self.assertEqual(add("a", part(2), "p2", 2), [])
        self.assertEqual((self.waiting.repeated, len(self.waiting), self.waiting.held), (2, 0, 0))

    def test_senders_and_references_apart(self) -> None:
        """The same reference of another sender, or another reference, is another message."""
        self.waiting.add("a", part(1, 2), "a1", 0)
        self.waiting.add("b", part(1, 2), "b1", 0)
        self.waiting.add("a", part(1, 2, 8), "c1", 0)
        self.waiting.add("a", Concatenation(7, 2, 1, True), "d1", 0)
        (whole,) = self.waiting.add("b", part(2, 2), "b2", 0)
        self.assertEqual((whole.parts, len(self.waiting)), (["b1", "b2"], 3))

    def test_reference_used_again(self) -> None:
        """Another text for a part that is there begins a new message, before and after the old one is whole."""
        self.waiting.add("a", part(1, 2), "old 1", 0)
        (old,) = self.waiting.add("a", part(1, 2), "new 1", 1)
        self.assertEqual(old.parts, ["old 1", None])
        (new,) = self.waiting.add("a", part(2, 2), "new 2", 2)
        self.assertEqual(new.parts, ["new 1", "new 2"])
        self.assertEqual(self.waiting.add("a", part(2, 2), "third 2", 3), [])
        (third,) = self.waiting.add("a", part(1, 2), "third 1", 4)
        self.assertEqual(third.parts, ["third 1", "third 2"])

    def test_patience(self) -> None:
        """What never becomes whole is given out with what came, counted from its last part."""
        self.assertIsNone(self.waiting.next())
        self.waiting.add("a", part(1), "p1", 0)
        self.waiting.add("a", part(3), "p3", 5)
        self.assertEqual((self.waiting.expire(14.9), self.waiting.next()), ([], 15))
        (whole,) = self.waiting.expire(15)
        self.assertEqual((whole.parts, whole.missing), (["p1", None, "p3"], 1))
        self.assertEqual(self.waiting.expire(99), [])

    def test_room(self) -> None:
        """At most so many parts wait: the message that has waited longest goes."""
        for sender in "abcde":
            self.assertEqual(self.waiting.add(sender, part(1), sender, 0), [])
        self.waiting.add("a", part(1), "a", 1)
        (whole,) = self.waiting.add("f", part(1), "f", 2)
        self.assertEqual((whole.parts, self.waiting.held), (["b", None, None], 5))
        self.assertEqual(sorted(str(each.parts[0]) for each in self.waiting.drain()), list("acdef"))

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.sampled_from("xy")), max_size=60))
    @settings(derandomize=True, deadline=None, max_examples=100)
    def test_nothing_lost(self, sent: list[tuple[str, int, str]]) -> None:
        """Each part that was no repetition comes out once, at the latest at the end."""
        waiting: Reassembly[tuple[int, str]] = Reassembly(10, capacity=4)
        out = 0
        for now, (sender, number, text) in enumerate(sent):
            for whole in waiting.add(sender, part(number), (number, text), now):
                out += len(whole.parts) - whole.missing
            self.assertLessEqual(waiting.held, 4)
        out += sum(len(whole.parts) - whole.missing for whole in waiting.drain())
        self.assertEqual(out + waiting.repeated, len(sent))
        self.assertEqual((waiting.held, len(waiting)), (0, 0))
