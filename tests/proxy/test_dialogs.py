"""Tests of sipgw.proxy.dialogs, deadlines and dialog_rows: what is pure of the dialogs of a proxy."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.deadlines import Deadlines
from sipgw.proxy.dialog_rows import COLUMNS, DialogRows, read_pairs, split_routes, write_pairs
from sipgw.proxy.dialogs import (
    LABELS,
    TABLE,
    Call,
    CallFlag,
    CallTable,
    Happening,
    Leg,
    Profile,
    Profiles,
    State,
    did_of,
    number_of,
    page,
)

PAGE = Path(__file__).parent.parent.parent / "docs" / "states" / "dialog.md"


def a_call(number: int = 5, call_id: str = "c1") -> Call:
    """A call from a to b, answered."""
    call = Call(number, call_id, Leg("a", "<sip:a@x>"), "<sip:b@x>", 100.0)
    call.answering("b")
    return call


class StateTests(SynchronousTestCase):
    """The state machine."""

    def test_table(self) -> None:
        """Every change that there is; every other happening changes nothing."""
        expected = {
            "GONE": "55345", "PROVISIONAL": "22345", "SUCCESS": "33343", "FAILURE": "55345", "PRACK": "12345", "ACK": "12445",
            "BYE": "12555", "REQUEST": "12345",
        }
        for state, happening in product(State, Happening):
            call = a_call()
            call.state = state
            self.assertEqual(call.step(happening)[1], int(expected[happening.name][state - 1]), (state, happening))
        self.assertEqual(len(TABLE), 12)

    def test_page(self) -> None:
        """docs/states/dialog.md is what the table says, and every happening has a name there."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), page(), "python -m sipgw.proxy.dialogs > docs/states/dialog.md")
        self.assertEqual(set(LABELS), set(Happening))

    def test_bye_of_another_leg(self) -> None:
        """In a forked call only the BYE to the leg that answered ends it; one from the callee always does."""
        for tag, ended in [("b", True), ("c", False), ("a", True)]:
            call = a_call()
            call.answering("c")
            call.state = State.CONFIRMED
            call.step(Happening.BYE, call.caller if tag == "a" else call.leg(tag))
            self.assertEqual(call.state is State.DELETED, ended)

    def test_success_after_bye(self) -> None:
        """A call that was hung up stays dead."""
        call = a_call()
        call.state = State.CONFIRMED
        call.step(Happening.BYE)
        self.assertEqual(call.step(Happening.SUCCESS), (State.DELETED, State.DELETED))

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.lists(st.sampled_from(list(Happening)), max_size=12))
    def test_any_order(self, happenings: list[Happening]) -> None:
        """Whatever happens, a state is only left as the table says, and a call that was hung up never comes back."""
        call = a_call()
        hung_up = False
        for happening in happenings:
            before, after = call.step(happening)
            self.assertIn(after, (before, TABLE.get((before, happening))))
            self.assertFalse(hung_up and after is not State.DELETED)
            hung_up = hung_up or (happening is Happening.BYE and after is State.DELETED)


class NumberTests(SynchronousTestCase):
    """CSeq numbers of a leg."""

    def test_renumber(self) -> None:
        """Until we have sent something all stays; then numbers grow, and the ACK has that of its INVITE."""
        leg = Leg("b", "")
        leg.cseq = 5
        self.assertEqual(leg.renumber(6, True), 6)
        leg.cseq = 6
        self.assertEqual(leg.next_number(), 7)
        self.assertEqual([leg.renumber(7, True), leg.renumber(8, False), leg.renumber(9, True)], [8, 9, 10])
        self.assertEqual(leg.numbers, {7: 8, 9: 10})
        for number in range(100):
            leg.renumber(number, True)
        assert leg.numbers is not None
        self.assertEqual(len(leg.numbers), 32)

    def test_names(self) -> None:
        """Names and numbers of dialogs; OpenSIPS's names, with their digits backwards; what is none."""
        table = CallTable("0a")
        for _ in range(50):
            number = table.new_number()
            self.assertEqual((number_of(did_of(number)), did_of(number)[:2]), (number, "0a"))
            self.assertLess(number, 1 << 63)
        self.assertEqual(number_of("6ae.310d83b4"), 0xEA6 << 32 | 0x4B38D013)
        for text in ("", ".", "x.y", "123456.1", "00000.123456789", "0000.", "a@b", "00zzz.1"):
            self.assertIsNone(number_of(text), text)


class CallTableTests(SynchronousTestCase):
    """Finding calls."""

    def test_find(self) -> None:
        """By number, name, Call-ID and tags; one that is over comes last."""
        table = CallTable()
        old, new = a_call(5), a_call(6)
        old.state = State.DELETED
        table.add(old)
        table.add(new)
        table.add(new)
        self.assertEqual((table.find("c1"), table.find(did_of(5)), table.find(did_of(6)), table.find("x")), (new, old, new, None))
        self.assertEqual(table.match("c1", "a", "b"), (new, new.caller, new.winner))
        self.assertEqual(table.match("c1", "b", "a"), (new, new.winner, new.caller))
        for ids in [("c1", "a", "x"), ("c1", "x", "a"), ("c2", "a", "b"), ("c1", "b", "b")]:
            self.assertIsNone(table.match(*ids))
        table.remove(new)
        table.remove(new)
        self.assertEqual((len(table), list(table), table.match("c1", "a", "b")), (1, [old], (old, old.caller, old.winner)))
        table.remove(old)
        self.assertEqual((table.by_call_id("c1"), table.by_number(None)), ([], None))


class ProfileTests(SynchronousTestCase):
    """Counting."""

    def test_counts(self) -> None:
        """A call counts as often as it enters; it leaves a value once, or all of them."""
        profiles = Profiles()
        profiles.declare(Profile("v", True, ""))
        profiles.declare(Profile("n", False, ""))
        self.assertRaises(ValueError, profiles.declare, Profile("v", False, ""))
        one, two = a_call(1), a_call(2)
        for call, name, value in [
            (one, "v", "x"), (one, "v", "x"), (one, "v", "y"), (two, "v", "x"), (one, "n", "z"), (one, "n", ""),
        ]:
            profiles.enter(call, name, value)
        sizes = [profiles.size("v"), profiles.size("v", "x"), profiles.size("v", "q"), profiles.size("n", "q")]
        self.assertEqual(sizes, [4, 3, 0, 2])
        self.assertTrue(profiles.leave(one, "v"))
        self.assertFalse(profiles.leave(one, "v", "x"))
        self.assertEqual(profiles.values("v"), {"x": 1})
        profiles.leave_all(one)
        profiles.leave_all(two)
        self.assertEqual((profiles.values("v"), profiles.values("n")), ({}, {}))


class DeadlineTests(SynchronousTestCase):
    """Deadlines to the second."""

    def test_times(self) -> None:
        """Each is told once, in time; what was put off or lifted is not."""
        clock = Clock()
        told: list[tuple[str, float]] = []
        deadlines: Deadlines[str] = Deadlines(
            clock.seconds, lambda seconds, call: clock.callLater(seconds, lambda: call(clock.seconds())),
            lambda subject: told.append((subject, clock.seconds())),
        )
        for name, at in [("a", 10.2), ("b", 5), ("c", 7.5), ("d", 7.6), ("e", 100)]:
            deadlines.set(name, at)
        deadlines.set("b", 20)
        self.assertTrue(deadlines.lift("c"))
        self.assertFalse(deadlines.lift("c"))
        self.assertEqual(len(deadlines), 4)
        clock.pump([1.0] * 120)
        self.assertEqual(told, [("d", 8), ("a", 11), ("b", 20), ("e", 100)])
        self.assertEqual((len(deadlines), deadlines._heap, deadlines._seconds), (0, [], {}))

    def test_set_while_told(self) -> None:
        """One that is told may set another, and lift one of the same second."""
        clock = Clock()
        told: list[str] = []

        def tell(subject: str) -> None:
            told.append(subject)
            if subject == "a":
                deadlines.lift("b")
                deadlines.set("c", 5)

        deadlines: Deadlines[str] = Deadlines(
            clock.seconds, lambda seconds, call: clock.callLater(seconds, lambda: call(clock.seconds())), tell
        )
        deadlines.set("a", 5)
        deadlines.set("b", 5)
        clock.pump([1.0] * 10)
        self.assertEqual(told, ["a", "c"])


class RowTests(SynchronousTestCase):
    """Rows of the table dialog."""

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(
        st.text(min_size=1, alphabet="a|#\\ x"), st.one_of(st.text(alphabet="a|#\\1\n"), st.integers(-9, 9))
    )))
    def test_pairs(self, pairs: list[tuple[str, int | str]]) -> None:
        """Values come back as they were."""
        self.assertEqual(list(read_pairs(write_pairs(pairs))), pairs)

    def test_of_opensips(self) -> None:
        """As OpenSIPS writes them; what cannot be read is passed over."""
        text = "n#2#-5|s#1#a\\|b\\#c\\\\|bad#3#x|k#2#x|e#1#|"
        self.assertEqual(list(read_pairs(text)), [("n", -5), ("s", "a|b#c\\"), ("e", "")])
        self.assertEqual(write_pairs([("n", -5), ("s", "a|b#c\\")]), "n#2#-5|s#1#a\\|b\\#c\\\\|")

    def test_routes(self) -> None:
        """Route sets are cut where they should be."""
        self.assertEqual(split_routes("<sip:a;lr>,\"x\" <sip:b;lr>;p=1"), ["<sip:a;lr>", '"x" <sip:b;lr>;p=1'])
        self.assertEqual(split_routes(""), [])

    def test_round_trip(self) -> None:
        """A call and its row; one that is not answered, or over, does not come back."""
        profiles = Profiles()
        profiles.declare(Profile("p", True, ""))
        socket: Any = SimpleNamespace(transport="udp", host="::1", port=5060)
        rows = DialogRows(
            "dialog", {name: f"c_{name}" for name in COLUMNS}, profiles, lambda: 1000.0, lambda: 50.0,
            lambda text: socket if text == "udp:[::1]:5060" else None,
        )
        call = a_call(77)
        call.state = State.CONFIRMED
        call.started, call.ends = 900.0, 150.0
        call.flags = CallFlag.BYE_ON_TIMEOUT | CallFlag.HAS_BYE
        call.caller.contact, call.winner.contact = "sip:a@1", "sip:b@2"
        call.caller.routes = ["<sip:r1;lr>", "<sip:r2;lr>"]
        call.caller.socket = call.winner.socket = socket
        call.caller.cseq, call.winner.cseq, call.winner.generated = 3, 4, 9
        call.values = {"n": 5, "s": "ä|"}
        call.tag_of_sharing = "vip"
        call.marks = {"F", "G"}
        call.routes = {"hangup": "bye"}
        profiles.enter(call, "p", "v")
        row = rows.row(call)
        self.assertEqual((row["c_timeout"], row["c_flags"]), (1100, 8))
        self.assertEqual(row["c_vars"], "n#2#5|s#1#ä\\||dlgX_shtag#1#vip|".encode())
        usual = {name: row[f"c_{name}"] for name in COLUMNS}
        back = rows.read(usual)
        assert back is not None
        for name in ("number", "call_id", "state", "started", "ends", "values", "marks", "routes", "profiles", "tag_of_sharing"):
            self.assertEqual(getattr(back, name), getattr(call, name), name)
        for ours, theirs in [(back.caller, call.caller), (back.winner, call.winner)]:
            for name in ("tag", "address", "contact", "routes", "socket", "cseq", "generated"):
                self.assertEqual(getattr(ours, name), getattr(theirs, name), name)
        self.assertEqual((back.flags, profiles.size("p")), (CallFlag.BYE_ON_TIMEOUT, 2))
        for state in (1, 2, 5):
            self.assertIsNone(rows.read(usual | {"state": state}))
