"""Tests of edit lists and of writing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.edits import NO_EDITS, EditList, remove_first_value, write, write_popped
from sipgw.sip.errors import Misuse
from sipgw.sip.message import Request, parse

LINES = [
    "INVITE sip:b SIP/2.0",
    "Via: SIP/2.0/UDP a, SIP/2.0/UDP b",
    "Via: SIP/2.0/UDP c",
    "Route: <sip:r1;lr>",
    "X: one two",
    "Content-Length: 3",
]


def message(lines: list[str] = LINES, body: bytes = b"abc") -> Request:
    parsed = parse("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    assert isinstance(parsed, Request)
    return parsed


def written(edits: EditList, lines: list[str] = LINES) -> list[str]:
    """Return the head's lines after writing; the body is checked to be untouched."""
    head, _, body = write(message(lines), edits).decode().partition("\r\n\r\n")
    assert body == "abc"
    return head.split("\r\n")


class EditTests(SynchronousTestCase):
    """Tests of single edits."""

    def test_each(self) -> None:
        """Each edit changes what it names and nothing else."""
        new = "N: 1"
        for edits, expected in (
            (NO_EDITS, LINES),
            (NO_EDITS.delete(4), LINES[:4] + LINES[5:]),
            (NO_EDITS.replace(4, new), LINES[:4] + [new] + LINES[5:]),
            (NO_EDITS.insert_before(1, new), LINES[:1] + [new] + LINES[1:]),
            (NO_EDITS.insert_after(0, new), LINES[:1] + [new] + LINES[1:]),
            (NO_EDITS.insert_after(5, new), LINES + [new]),
            (NO_EDITS.append(new), LINES + [new]),
            (NO_EDITS.first_line("BYE sip:c SIP/2.0"), ["BYE sip:c SIP/2.0"] + LINES[1:]),
            (NO_EDITS.delete_span(4, 3, 7), LINES[:4] + ["X: two"] + LINES[5:]),
            (NO_EDITS.replace_span(4, 3, 6, "1"), LINES[:4] + ["X: 1 two"] + LINES[5:]),
            (NO_EDITS.replace_span(4, 6, 6, "!"), LINES[:4] + ["X: one! two"] + LINES[5:]),
            (NO_EDITS.replace_span(0, 7, 12, "sip:c"), ["INVITE sip:c SIP/2.0"] + LINES[1:]),
            (NO_EDITS.append("N: 1\r\nO: 2\r\n"), LINES + ["N: 1", "O: 2"]),
        ):
            self.assertEqual(written(edits), expected)

    def test_truth(self) -> None:
        """Only the empty list is false."""
        self.assertFalse(NO_EDITS)
        self.assertTrue(NO_EDITS.append("X: y"))

    def test_start_line(self) -> None:
        """The start line is no header: nothing can be put before it, nor can it be taken away."""
        for edit in (lambda: NO_EDITS.delete(0), lambda: NO_EDITS.replace(0, "x"), lambda: NO_EDITS.insert_before(0, "x")):
            self.assertRaises(Misuse, edit)


class MeetingTests(SynchronousTestCase):
    """Tests of edits that meet."""

    def test_order(self) -> None:
        """Insertions stand in the order they were given."""
        edits = NO_EDITS.insert_before(2, "A: 1").insert_after(2, "C: 1").insert_before(2, "A: 2").insert_after(2, "C: 2")
        edits = edits.append("Z: 1").append("Z: 2")
        self.assertEqual(written(edits)[2:7], ["A: 1", "A: 2", LINES[2], "C: 1", "C: 2"])
        self.assertEqual(written(edits)[-2:], ["Z: 1", "Z: 2"])

    def test_insertions_stay(self) -> None:
        """Insertions stay when the line they stand next to goes or changes."""
        around = NO_EDITS.insert_before(2, "A: 1").insert_after(2, "C: 1")
        self.assertEqual(written(around.delete(2))[2:4], ["A: 1", "C: 1"])
        self.assertEqual(written(NO_EDITS.delete(2).insert_before(2, "A: 1"))[2:4], ["A: 1", LINES[3]])
        self.assertEqual(written(around.replace(2, "B: 1"))[2:5], ["A: 1", "B: 1", "C: 1"])

    def test_last_wins(self) -> None:
        """Of whole-line edits the last decides, and spans then have no effect."""
        self.assertEqual(written(NO_EDITS.replace(4, "X: 1").replace(4, "X: 2"))[4], "X: 2")
        self.assertEqual(written(NO_EDITS.replace(4, "X: 1").delete(4))[4], LINES[5])
        self.assertEqual(written(NO_EDITS.delete(4).replace(4, "X: 1"))[4], "X: 1")
        self.assertEqual(written(NO_EDITS.replace_span(4, 3, 6, "1").replace(4, "X: 1").replace_span(4, 3, 6, "2"))[4], "X: 1")
        self.assertEqual(written(NO_EDITS.replace_span(4, 3, 6, "1").delete(4))[4], LINES[5])

    def test_spans(self) -> None:
        """Several spans of one line refer to the received line; overlapping ones go together."""
        one, two = (3, 6), (7, 10)
        self.assertEqual(written(NO_EDITS.replace_span(4, *two, "2").replace_span(4, *one, "1"))[4], "X: 1 2")
        self.assertEqual(written(NO_EDITS.replace_span(4, 3, 8, "1").replace_span(4, 5, 10, "2"))[4], "X: 12")
        self.assertEqual(written(NO_EDITS.replace_span(4, 3, 10, "1").delete_span(4, 4, 5))[4], "X: 1")
        self.assertEqual(written(NO_EDITS.replace_span(4, 10, 10, ";a").replace_span(4, 10, 10, ";b"))[4], "X: one two;a;b")

    def test_persistent(self) -> None:
        """A longer list leaves the shorter one as it was; two branches do not see each other."""
        base = NO_EDITS.append("A: 1")
        left = base.append("B: 1").delete(4)
        right = base.append("C: 1")
        self.assertEqual(written(base), LINES + ["A: 1"])
        self.assertEqual(written(left), LINES[:4] + LINES[5:] + ["A: 1", "B: 1"])
        self.assertEqual(written(right), LINES + ["A: 1", "C: 1"])
        self.assertEqual(written(NO_EDITS), LINES)


class LaterTests(SynchronousTestCase):
    """Tests of headers made when the message is written."""

    def test_later(self) -> None:
        """A header is made of the whole list and of the way that is taken; "" makes none."""
        def make(edits: EditList, way: object) -> str:
            return f"N: {','.join(edits.notes(str))} {way}" if way else ""

        edits = NO_EDITS.note("a").later(2, make).note(1).insert_before(2, "M: 1").note("b")
        head = write(message(), edits, way="udp").decode().partition("\r\n\r\n")[0].split("\r\n")
        self.assertEqual(head[2:5], ["N: a,b udp", "M: 1", LINES[2]])
        self.assertEqual(written(edits)[2:4], ["M: 1", LINES[2]])


class BodyTests(SynchronousTestCase):
    """Tests of bodies and Content-Length."""

    def check(self, edits: EditList, lines: list[str], expected: list[str], body: bytes) -> None:
        head, _, rest = write(message(lines), edits).partition(b"\r\n\r\n")
        self.assertEqual(head.decode().split("\r\n"), expected)
        self.assertEqual(rest, body)

    def test_length_follows(self) -> None:
        """Content-Length is put right where the body was replaced, and added where it was missing."""
        start, bare = LINES[:5], LINES[:5]
        new = NO_EDITS.body(b"hello")
        self.check(new, LINES, [*start, "Content-Length: 5"], b"hello")
        self.check(new, [*start, "l : 3"], [*start, "Content-Length: 5"], b"hello")
        self.check(new, bare, [*start, "Content-Length: 5"], b"hello")
        self.check(new.body(b""), LINES, [*start, "Content-Length: 0"], b"")
        self.check(new.delete(5), LINES, [*start, "Content-Length: 5"], b"hello")
        self.check(new.insert_after(5, "X: y"), LINES, [*start, "Content-Length: 5", "X: y"], b"hello")
        self.check(new.insert_before(5, "X: y"), LINES, [*start, "X: y", "Content-Length: 5"], b"hello")
        self.check(new.replace(5, "Content-Length: 99"), LINES, [*start, "Content-Length: 5"], b"hello")
        self.check(new.replace_span(5, 16, 17, "99"), LINES, [*start, "Content-Length: 5"], b"hello")
        self.check(new.append("X: y"), bare, [*start, "X: y", "Content-Length: 5"], b"hello")

    def test_untouched_length(self) -> None:
        """A received body keeps the header it came with, whatever else is edited."""
        self.check(NO_EDITS.append("X: y"), [*LINES[:5], "l : 003"], [*LINES[:5], "l : 003", "X: y"], b"abc")

    def test_ensured_length(self) -> None:
        """A stream can ask for a Content-Length where there is none."""
        bare = LINES[:5]
        for edits, lines in ((NO_EDITS, bare), (NO_EDITS.delete(5), LINES)):
            octets = write(message(lines), edits, ensure_length=True)
            self.assertEqual(octets.decode(), "\r\n".join([*bare, "Content-Length: 3"]) + "\r\n\r\nabc")
        self.assertEqual(write(message(), NO_EDITS, ensure_length=True), write(message(), NO_EDITS))

    def test_popped_length(self) -> None:
        """So it can of a response that loses its first Via, whether alone in its line or not."""
        one = [LINES[0], *LINES[2:5]]
        for lines, left in ((LINES[:5], [LINES[0], "Via: SIP/2.0/UDP b", *LINES[2:5]]), (one, [LINES[0], *LINES[3:5]])):
            for ensured, more in ((True, ["Content-Length: 3"]), (False, [])):
                octets = write_popped(message(lines), NO_EDITS, ensure_length=ensured)
                self.assertEqual(octets.decode(), "\r\n".join([*left, *more]) + "\r\n\r\nabc")

    def test_new_body(self) -> None:
        """The body given last is seen."""
        self.assertIsNone(NO_EDITS.append("X: y").new_body)
        self.assertEqual(NO_EDITS.body(b"1").body(b"2").append("X: y").new_body, b"2")


class FirstValueTests(SynchronousTestCase):
    """Tests of ``remove_first_value``."""

    def test_list_and_line(self) -> None:
        """Of a list the first value goes, of a single value the line."""
        self.assertEqual(written(remove_first_value(NO_EDITS, message(), "v"))[1], "Via: SIP/2.0/UDP b")
        self.assertEqual(written(remove_first_value(NO_EDITS, message(), "Route")), LINES[:3] + LINES[4:])
        self.assertIs(remove_first_value(NO_EDITS, message(), "Path"), NO_EDITS)
        lines = [*LINES[:3], 'Route: "a,b" <sip:r1;x=",">;y="," , <sip:r2>', *LINES[4:]]
        self.assertEqual(written(remove_first_value(NO_EDITS, message(lines), "Route"), lines)[3], "Route: <sip:r2>")


class AnyTests(SynchronousTestCase):
    """Tests of edits as they come."""

    STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5), st.integers(0, 12), st.integers(0, 12)), max_size=8)

    @staticmethod
    def edited(steps: list[tuple[int, int, int, int]]) -> tuple[EditList, int]:
        """The edits that ``steps`` stand for, and how many headers they insert."""
        edits = NO_EDITS
        for kind, line, start, end in steps:
            if kind == 0:
                edits = edits.delete(line)
            elif kind == 1:
                edits = edits.insert_before(line, "N: 1")
            elif kind == 2:
                edits = edits.insert_after(line - 1, "N: 1")
            elif kind == 3:
                edits = edits.append("N: 1")
            elif kind == 4:
                edits = edits.delete_span(4, 3 + min(start, end) % 8, 3 + max(start, end) % 8)
            elif kind == 5:
                edits = edits.body(b"x" * start)
            else:
                edits = edits.replace(line, "R: 1")
        return edits, sum(kind in (1, 2, 3) for kind, *_ in steps)

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(STEPS)
    def test_readable(self, steps: list[tuple[int, int, int, int]]) -> None:
        """Whatever is edited, what is written is a message with every inserted header in it."""
        edits, inserted = self.edited(steps)
        again = parse(write(message(), edits))
        self.assertEqual(len(again.positions("N")), inserted)
        if edits.new_body is not None:
            self.assertEqual(again.body, edits.new_body)

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(STEPS)
    def test_relayed(self, steps: list[tuple[int, int, int, int]]) -> None:
        """A Via and a start line given to ``write``, and ``write_popped``, are what the edits that they spare would do."""
        edits, _ = self.edited(steps)
        start, via = "INVITE sip:c SIP/2.0", "Via: SIP/2.0/UDP z\r\nRoute: <sip:z;lr>"
        by_edits = write(message(), edits.first_line(start).insert_before(1, via))
        self.assertEqual(write(message(), edits, start=start, via=via), by_edits)
        for lines in (LINES, [LINES[0], *LINES[2:]]):
            popped = write(message(lines), remove_first_value(NO_EDITS, message(lines), "via"))
            self.assertEqual(write_popped(message(lines), NO_EDITS), popped)
        self.assertEqual(write_popped(message(), edits), write(message(), remove_first_value(edits, message(), "via")))
