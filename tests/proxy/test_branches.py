"""Tests of sipgw.proxy.branches, with the results that OpenSIPS gives for the same calls."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy import branches
from sipgw.script.run import Branch, Run
from tests.doubles import request, run_of


def run_with(*texts: str) -> Run:
    """A run for sip:a@x with branches written ``user`` or ``user q``."""
    run = run_of(request(uri="sip:a@x"))
    for text in texts:
        user, _, q = text.partition(" ")
        run.branches.append(Branch(f"sip:{user}@x", q=int(q or -1)))
    return run


def users(run: Run) -> str:
    """The users of all destinations in order."""
    return "".join(uri[4] for uri in [run.uri, *(branch.uri for branch in run.branches)])


class MoveTests(SynchronousTestCase):
    """Moving and exchanging."""

    def test_move(self) -> None:
        """The target is overwritten; the source leaves, unless it is kept or is the Request-URI."""
        for source, target, keep, after in [
            (1, 0, False, "acd"),
            (0, 1, False, "abd"),
            (1, 2, False, "abc"),
            (2, 1, False, "abd"),
            (1, -1, False, "cbd"),
            (-1, 1, False, "abad"),
            (-1, -1, False, "abcd"),
            (1, 1, False, "abcd"),
            (-5, 2, False, "abca"),
            (1, 0, True, "accd"),
            (0, 1, True, "abbd"),
        ]:
            run = run_with("b", "c", "d")
            self.assertTrue(branches.move(run, source, target, keep))
            self.assertEqual(users(run), after, (source, target, keep))

    def test_swap(self) -> None:
        """Two branches change places."""
        for one, other, after in [(0, 1, "acbd"), (1, 2, "abdc"), (-1, 0, "bacd"), (2, -1, "dbca"), (1, 1, "abcd")]:
            run = run_with("b", "c", "d")
            self.assertTrue(branches.swap(run, one, other))
            self.assertEqual(users(run), after, (one, other))

    def test_attributes(self) -> None:
        """The attributes of a branch go with it, to the Request-URI as well."""
        run = run_with("b")
        run.branches[0].attrs = {"attr": "of b"}
        self.assertTrue(branches.swap(run, 0, -1))
        self.assertEqual((run.attrs, run.branches[0].attrs), ({"attr": "of b"}, None))

    def test_no_such(self) -> None:
        """An index that no branch has changes nothing and is logged."""
        run = run_with("b", "c", "d")
        self.assertFalse(branches.move(run, 3, 1, False))
        self.assertFalse(branches.move(run, 1, 3, False))
        self.assertFalse(branches.swap(run, 2, 3))
        self.assertEqual((users(run), len(run.user.logged)), ("abcd", 3))

    def test_everything_moves(self) -> None:
        """All that belongs to a branch goes with it, and a copy is independent."""
        run = run_with("b")
        run.dst_uri, run.q, run.branch_flags, run.path, run.send_socket = "sip:d", 300, 5, "<sip:p>", run.user.sockets[0]
        branches.move(run, -1, 0, True)
        copy = run.branches[0]
        self.assertEqual(
            (copy.uri, copy.dst_uri, copy.q, copy.flags, copy.path, copy.socket),
            ("sip:a@x", "sip:d", 300, 5, "<sip:p>", run.user.sockets[0]),
        )


class AppendTests(SynchronousTestCase):
    """Adding."""

    def test_limit(self) -> None:
        """A request has at most 12 destinations."""
        run = run_with()
        added = [branches.append(run, Branch("sip:b@x")) for _ in range(12)]
        self.assertEqual((added.count(True), len(run.user.logged)), (11, 1))

    def test_bad_uri(self) -> None:
        """A branch nobody could send to is refused; so is one that would break a header."""
        run = run_with()
        for uri in ("junk", "", "sip:b@x\r\nX: y", "sip:b@x y"):
            self.assertFalse(branches.append(run, Branch(uri)), uri)
        self.assertEqual((users(run), len(run.user.logged)), ("a", 4))

    def test_q(self) -> None:
        """Digits beyond the third are left out; what is no q value is refused."""
        for text, q in [("0", 0), ("0.7", 700), ("0.12345", 123), ("1", 1000), ("1.000", 1000), ("0.", 0)]:
            self.assertEqual(branches.parse_q(text), q)
        for text in ("1.5", "abc", "", "0.5x", "-1", "0.٣"):
            self.assertRaises(ValueError, branches.parse_q, text)


class SerialTests(SynchronousTestCase):
    """One after another."""

    def walk(self, run: Run) -> list[tuple[int, str]]:
        """Take group after group, each time from a run without branches."""
        steps: list[tuple[int, str]] = []
        while True:
            run.branches = []
            code = branches.next_set(run)
            if code < 0:
                return steps
            steps.append((code, users(run)))

    def test_by_q(self) -> None:
        """The highest q first; equal ones together, without q last."""
        run = run_with("b 500", "c 500", "d 700", "e")
        run.q = 300
        branches.serialize(run, True, False)
        self.assertEqual(users(run), "a")
        self.assertEqual(self.walk(run), [(1, "d"), (1, "bc"), (1, "a"), (2, "e")])
        self.assertEqual(run.avps, {})

    def test_keep_order(self) -> None:
        """As they stand, one by one."""
        run = run_with("b", "c 500", "d 700")
        branches.serialize(run, True, True)
        self.assertEqual(self.walk(run), [(1, "a"), (1, "b"), (1, "c"), (2, "d")])

    def test_one_destination(self) -> None:
        """With nothing to choose from there is nothing to do."""
        run = run_with()
        branches.serialize(run, True, False)
        self.assertEqual((run.avps, branches.next_set(run)), ({}, -1))

    def test_again(self) -> None:
        """A second set is tried before what is left of the first, or instead of it."""
        for clear, steps in [(False, [(1, "c"), (1, "a"), (1, "b"), (2, "a")]), (True, [(1, "c"), (2, "a")])]:
            run = run_with("b 500")
            branches.serialize(run, True, False)
            run.branches = [Branch("sip:c@x", q=600)]
            branches.serialize(run, clear, False)
            self.assertEqual(self.walk(run), steps)

    def test_everything_kept(self) -> None:
        """What belongs to a branch comes back with it; an AVP value of the script's own is a bare URI."""
        run = run_with("b")
        run.dst_uri, run.q, run.branch_flags, run.send_socket = "sip:d;lr", 300, 5, run.user.sockets[0]
        run.path = "<sip:p;lr>, <sip:q>"
        branches.serialize(run, True, False)
        branches.set_main(run, Branch("sip:z@x"))
        branches.next_set(run)
        self.assertEqual(
            (run.uri, run.dst_uri, run.q, run.branch_flags, run.send_socket, run.path),
            ("sip:a@x", "sip:d;lr", 300, 5, run.user.sockets[0], "<sip:p;lr>,<sip:q>"),
        )
        run.avps[branches.SERIAL_AVP] = ["sip:own@x"]
        self.assertEqual((branches.next_set(run), run.uri, run.q, run.dst_uri), (2, "sip:own@x", -1, None))
