"""Tests of sipgw.core.series."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.series import Profile, Series


class ProfileTests(SynchronousTestCase):
    """How a profile is written."""

    def test_parse(self) -> None:
        """A name, then attributes in any order; what is left out has its default."""
        for text, expected in (
            ("avg: algorithm=average", Profile("avg", "avg", "average")),
            ("x:", Profile("x", "x")),
            ("y : window=600  slots=10 group=calls hash_size=4", Profile("y", "calls", "accumulate", 600, 10)),
            ("z: algorithm=percentage window=10 percentage_factor=1000", Profile("z", "z", "percentage", 10, 10, 1000)),
            ("long: window=86400", Profile("long", "long", "accumulate", 86400, 3600)),
        ):
            self.assertEqual(Profile.parse(text), expected)

    def test_wrong(self) -> None:
        """What is no profile is refused."""
        for text in (
            "", "x", ": window=1", "x: window", "x: window=", "x: size=5", "x: algorithm=median", "x: window=0", "x: slots=-1",
            "x: slots=9999", "x: percentage_factor=a", "x: hash_size=0",
        ):
            self.assertRaises(ValueError, Profile.parse, text)


class SeriesTests(SynchronousTestCase):
    """What a series makes of what it is fed."""

    def series(self, text: str, *values: int, now: float = 1000.0) -> Series:
        """A series of that profile, fed at one time."""
        made = Series(Profile.parse(f"p: {text}"))
        for value in values:
            made.feed(value, now)
        return made

    def test_algorithms(self) -> None:
        """Sum, average and percentage, cut to whole numbers."""
        for text, values, expected in (
            ("", (10, -3), 7),
            ("", (), 0),
            ("algorithm=average", (10, 21), 15),
            ("algorithm=average", (-10, -21), -15),
            ("algorithm=average", (), 0),
            ("algorithm=percentage percentage_factor=1000", (1, 1, -1, 0), 666),
            ("algorithm=percentage percentage_factor=1000", (5, -1), 833),
            ("algorithm=percentage", (-1,), 0),
            ("algorithm=percentage", (0,), 0),
        ):
            self.assertEqual(self.series(text, *values).read(1000.0), expected, (text, values))

    def test_window(self) -> None:
        """Values leave with the window, a slot at a time."""
        series = self.series("window=10 slots=5", 1)
        series.feed(2, 1004.0)
        self.assertEqual([series.read(now) for now in (1005.0, 1009.9, 1010.0, 1013.9, 1014.0, 9999.0)], [3, 3, 2, 2, 0, 0])

    @settings(max_examples=100, derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 40), st.integers(-5, 5)), max_size=30), st.integers(1, 7))
    def test_model(self, steps: list[tuple[int, int]], slots: int) -> None:
        """It is the sum of what was fed in this slot and those before it that fit into the window."""
        series = Series(Profile("p", "p", "accumulate", slots * 3, slots))
        now, fed = 100, []
        for wait, value in steps:
            now += wait
            series.feed(value, float(now))
            fed.append((now // 3, value))
            self.assertEqual(series.read(float(now)), sum(v for slot, v in fed if slot > now // 3 - slots))
