"""Tests of sipgw.core.translation: the rule that counts and what it gives, as OpenSIPS's dialplan was asked."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.translation import Answer, NoOutput, Rules, read_rule

NOW = 1_795_386_099.0  # 2026-11-22


def row(
    operator: int, expression: str | None, *, pr: int = 0, flags: int = 0, subst: str | None = None, repl: str | None = None,
    times: str | None = None, attrs: str | None = None,
) -> list[Any]:  # fmt: skip
    """A row of the table."""
    return [pr, operator, expression, flags, subst, repl, times, attrs]


def rules(*rows: list[Any]) -> Rules:
    """Rules that stand in that order."""
    return Rules(read_rule(number, each) for number, each in enumerate(rows))


ROMANIAN = row(1, r"^(0040|\+40|0|40)21[0-9]+", subst=r"^(0040|\+40|0|40)(.+)", repl=r"40\2")
EQUAL, PATTERN = row(0, "123", repl="eq"), row(1, "^1", repl="rx")


class TranslationTests(SynchronousTestCase):
    """Small tables."""

    def test_answers(self) -> None:
        """Each kind of rule gives what it gives in OpenSIPS."""
        cases: list[tuple[list[list[Any]], str, Any]] = [
            ([ROMANIAN], "0040211234", ("40211234", "")), ([ROMANIAN], "+40211", ("40211", "")), ([ROMANIAN], "99", None),
            ([row(1, "^((Germany)|(DE))", repl="DE")], "Germany", ("DE", "")),
            ([row(1, "^0214", attrs="X")], "0214", (None, "X")),
            ([row(0, "SIP server", repl="o")], "SIP server", ("o", "")), ([row(0, "SIP server", repl="o")], "sip server", None),
            ([row(0, "Case", flags=1, repl="o")], "cASE", ("o", "")), ([row(1, "^a", repl="o")], "A", None),
            ([row(1, "^a", flags=1, repl="o")], "A", ("o", "")), ([row(1, "^1", flags=2, repl="o")], "1", ("o", "")),
            ([row(1, "^1", subst="^1(.*)$", repl=r"9\1"), EQUAL], "123", ("923", "")), ([EQUAL, PATTERN], "123", ("eq", "")),
            ([row(1, "^1", pr=1, repl="rx"), EQUAL], "123", ("eq", "")), ([PATTERN, row(0, "123", pr=1)], "123", ("rx", "")),
            ([row(1, "^1", pr=2, repl="b"), row(1, "^1", pr=1, repl="a")], "1", ("a", "")),
            ([row(1, "^1", repl="a"), row(1, "^1", repl="b")], "1", ("a", "")),
            ([row(1, "^1", subst="", repl="")], "1", (None, "")),
            ([row(1, "^1", subst="2(.)", repl=r"<\1\0>")], "1234", ("<323>", "")),
            ([row(1, "^1", subst="^(.)(.)(.)(.)$", repl=r"\4\3\2\1")], "1234", ("4321", "")),
            ([row(1, "^1", repl=r"$rU-\1")], "1", (r"$rU-\1", "")), ([row(1, "1", subst="1", repl=r"x\\y")], "a1b", (r"x\y", "")),
            ([row(0, "x", subst="^x(.*)$", repl=r"y\1")], "x", ("y", "")),
            ([row(1, "^1", repl="old", times="20200101T000000|20200102T000000"),
            row(1, "^1", pr=1, repl="new")], "1", ("new", "")),
            ([row(1, "^1", repl="now", times="20200101T000000|20900102T000000")], "1", ("now", "")), ([], "1", None),
        ]  # fmt: skip
        for rows, text, wanted in cases:
            rule = rules(*rows).find(text, NOW)
            answer = None if rule is None else rule.answer(text)
            self.assertEqual(answer, None if wanted is None else Answer(*wanted), (rows, text))

    def test_no_output(self) -> None:
        """A substitution that does not fit makes nothing."""
        rule = rules(row(1, "^1", subst="9(.*)", repl=r"\1")).find("12", NOW)
        assert rule is not None
        self.assertRaises(NoOutput, rule.answer, "12")

    def test_refused(self) -> None:
        """Rules that mean nothing say why."""
        for bad, said in (
            (row(1, "(("), "missing|paren"), (row(1, "^1", subst="((", repl="x"), "missing|paren"),
            (row(2, "^1"), "unknown operator 2"),
            (row(1, "^1", subst="^(.)", repl=r"\2"), "no group 2"), (row(1, "^1", times="garbage"), "garbage"),
            (row(1, ""), "is empty"), (row(0, None), "is empty"),
        ):  # fmt: skip
            with self.assertRaisesRegex(ValueError, said):
                read_rule(1, bad)
        self.assertEqual(len(rules(EQUAL, PATTERN)), 2)
