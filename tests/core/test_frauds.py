"""Tests of sipgw.core.frauds: which rule is for a number, what is counted, which threshold is reached."""

from __future__ import annotations

from datetime import date, datetime

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.frauds import Found, Ledger, Limit, Rule, Rules, read_days, read_time, worst

SUNDAY = date(2026, 11, 22)


def rule(
    number: int, prefix: str, *, profile: int = 1, hours: str = "00:00-23:59", days: str = "Mon-Sun", **limits: Limit
) -> Rule:
    """A rule."""
    start, _, end = hours.partition("-")
    made = {name.replace("_", "-"): limit for name, limit in limits.items()}
    return Rule(number, profile, prefix, read_time(start), read_time(end), read_days(days), made)


class RuleTests(SynchronousTestCase):
    """Which rule counts."""

    def test_reading(self) -> None:
        """Times of day and days as OpenSIPS's table has them."""
        self.assertEqual([read_time(text) for text in ("00:00", "9:05", " 23:59 ")], [0, 545, 1439])
        for text in ("24:00", "9", "", "12:60", "aa:bb"):
            self.assertRaises(ValueError, read_time, text)
        self.assertEqual(
            [sorted(read_days(text)) for text in ("Mon-Sun", "Fri-Mon, Wed", "mon,sun", "Tue", "Sunday-Monday")],
            [[0, 1, 2, 3, 4, 5, 6], [0, 2, 4, 5, 6], [0, 6], [1], [0, 6]],
        )
        for text in ("", "Xyz", "Mon-", "Mon,,Tue", "-Mon"):
            self.assertRaises(ValueError, read_days, text)

    def test_hours(self) -> None:
        """Hours may go over midnight, and belong to the day on which they begin; the last minute is within."""
        for hours, days, at, day in [
            ("00:00-23:59", "Sun", "22T23:59:59", SUNDAY), ("09:00-17:00", "Sun", "22T08:59:59", None),
            ("09:00-17:00", "Sun", "22T17:00:59", SUNDAY), ("09:00-17:00", "Sun", "22T17:01:00", None),
            ("09:00-17:00", "Mon", "22T12:00:00", None), ("22:00-06:00", "Sun", "22T22:00:00", SUNDAY),
            ("22:00-06:00", "Sun", "23T06:00:30", SUNDAY), ("22:00-06:00", "Sun", "23T06:01:00", None),
            ("22:00-06:00", "Mon", "23T05:00:00", None), ("22:00-06:00", "Sat", "22T05:00:00", date(2026, 11, 21)),
        ]:
            found = rule(1, "", hours=hours, days=days).begun(datetime.fromisoformat(f"2026-11-{at}"))
            self.assertEqual(found, day, (hours, days, at))

    def test_prefixes(self) -> None:
        """The longest prefix of the profile at these hours, then the rule that stands first."""
        rules = Rules([
            rule(1, "8"), rule(2, "80", hours="00:00-00:01"), rule(3, "80", days="Mon"), rule(4, "55"), rule(5, "55"),
            rule(6, "", profile=2), rule(7, "+49", profile=2), rule(8, "8012345678", days="Mon"),
        ])
        self.assertEqual(len(list(rules)), 8)
        noon = datetime(2026, 11, 22, 12)
        for profile, number, wanted in [
            (1, "803", 1), (1, "8", 1), (1, "7", None), (1, "", None), (1, "551", 4), (2, "7", 6), (2, "", 6), (2, "+4912", 7),
            (3, "8", None),
        ]:
            found = rules.find(profile, number, noon)
            self.assertEqual(found and found[0].id, wanted, (profile, number))
        monday = rules.find(1, "803", datetime(2026, 11, 23, 0, 1))
        self.assertEqual(monday and (monday[0].id, monday[1]), (2, date(2026, 11, 23)))

    def test_worst(self) -> None:
        """Critical before warning, then the first; 0 is no threshold (as OpenSIPS answered)."""
        made = rule(1, "", a=Limit(1, 5), b=Limit(1, 2), c=Limit(0, 3))
        for values, wanted in [
            ((1, 1, 1), (False, "a", 1, 1)), ((2, 2, 1), (True, "b", 2, 2)), ((0, 1, 2), (False, "b", 1, 1)),
            ((0, 0, 9), (True, "c", 9, 3)), ((0, 0, 2), None),
        ]:
            found = worst(made, zip("abc", values, strict=True))
            self.assertEqual(found, None if wanted is None else Found(*wanted), values)
        self.assertIsNone(worst(made, [("other", 100)]))


class CountTests(SynchronousTestCase):
    """What is counted."""

    def test_counts(self) -> None:
        """The last minute, all of the day, those that go on, those to one number in a row."""
        counts = Ledger().open("u", "1", SUNDAY)
        open_calls = set()

        def add(name: str, number: str, now: float) -> tuple[int, ...]:
            open_calls.add(name)
            return tuple(value for _, value in counts.add(number, now, lambda: name in open_calls))

        self.assertEqual(add("a", "11", 100.0), (1, 1, 1, 1))
        self.assertEqual(add("b", "11", 100.5), (2, 2, 2, 2))
        open_calls.discard("a")
        self.assertEqual(add("c", "12", 159.0), (3, 3, 2, 1))
        self.assertEqual(add("d", "11", 160.0), (2, 4, 3, 1))
        open_calls.clear()
        self.assertEqual((counts.per_minute(218.0), counts.concurrent(), counts.calls), (2, 0, []))
        self.assertEqual(counts.per_minute(300.0), 0)

    def test_another_day(self) -> None:
        """Begins anew, but for the calls that go on and those of the last minute."""
        ledger = Ledger()
        ledger.open("u", "1", SUNDAY).add("11", 100.0, lambda: True)
        self.assertIs(ledger.open("u", "1", SUNDAY), ledger.find("u", "1"))
        counts = ledger.open("u", "1", date(2026, 11, 23))
        self.assertEqual([value for _, value in counts.add("11", 110.0, lambda: True)], [2, 1, 2, 1])

    def test_bounds(self) -> None:
        """No more pairs than that, the oldest goes; what says nothing is forgotten after a day."""
        ledger = Ledger(3)
        for number in range(5):
            ledger.open("u", str(number), SUNDAY).add("1", 0.0, lambda: False)
            ledger.open("u", "0" if number < 3 else "2", SUNDAY)
        self.assertEqual((len(ledger), ledger.find("u", "1")), (3, None))
        ledger.open("u", "2", SUNDAY).add("1", 0.0, lambda: True)
        ledger.sweep(date(2026, 11, 23))
        self.assertEqual(len(ledger), 3)
        ledger.sweep(date(2026, 11, 24))
        self.assertEqual((len(ledger), ledger.find("u", "2") is None), (1, False))
        for second in range(1000):
            ledger.open("u", "2", SUNDAY).add("1", float(second), lambda: False)
        found = ledger.find("u", "2")
        assert found is not None
        self.assertEqual((len(found.minute) <= 61, len(found.calls) <= 2), (True, True))
