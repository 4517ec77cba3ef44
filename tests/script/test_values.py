"""Operators of the script: comparisons and arithmetic, as asked of the real binary."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.script import values
from sipgw.script.regex import compile_regex
from sipgw.script.values import ERROR, Result, Truth


class Log:
    """A run whose server notes what is logged."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.user = self

    def log(self, level: int, text: str) -> None:
        """Note it."""
        self.lines.append((level, text))


def compare(run: Any, left: Any, op: str, right: Any) -> Truth:
    """``$left op right``, right a constant, as the compiler would write it."""
    if isinstance(right, str):
        if op in ("==", "!="):
            return values.equal_text(left, right) == (op == "==")
        text = {"<": values.less_text, "<=": values.at_most_text, ">": values.more_text, ">=": values.at_least_text}
        return text[op](left, right)
    number = {
        "==": values.equal_number,
        "!=": values.differ_number,
        "<": values.less_number,
        "<=": values.at_most_number,
        ">": values.more_number,
        ">=": values.at_least_number,
    }
    return number[op](run, left, right)


def compare_values(left: Any, op: str, right: Any) -> Truth:
    """``$left op $right``."""
    if op in ("==", "!="):
        return values.equal(left, right) == (op == "==")
    if op in (">", ">="):
        left, right, op = right, left, op.replace(">", "<")
    return values.less(left, right) if op == "<" else values.at_most(left, right)


CONSTANTS: list[tuple[Any, str, Any, Truth]] = [
    (5, "==", 5, True),
    (5, "==", "5", True),
    ("5", "==", 5, ERROR),
    ("5", "!=", 5, ERROR),
    ("5", "<", 5, ERROR),
    ("5", "<=", 5, ERROR),
    ("5", ">", 5, ERROR),
    ("5", ">=", 5, ERROR),
    ("5", "==", "5", True),
    (None, "==", 5, False),
    (None, "!=", 5, True),
    (None, "<", 5, False),
    (None, "<=", 5, False),
    (None, ">", 5, False),
    (None, ">=", 5, False),
    (None, "==", "a", False),
    (None, "!=", "a", True),
    (None, "<", "a", False),
    (None, "<=", "a", False),
    (None, ">", "a", False),
    (None, ">=", "a", False),
    ("", "==", "", True),
    ("abc", "==", "ABC", True),
    ("abc", "!=", "ABC", False),
    ("É", "==", "é", False),
    ("abc", ">", "abb", True),
    ("abc", "<", "abcd", True),
    ("abc", ">", "ABB", True),
    ("abc", "<=", "ABC", True),
    ("abc", ">=", "abcd", False),
    (5, "<", 10, True),
    (5, ">", "10", True),
    (5, ">", -1, True),
    (5, ">=", 6, False),
    (5, "<=", 5, True),
]

VARIABLES: list[tuple[Any, str, Any, Truth]] = [
    (5, "==", "5", True),
    ("abc", "==", 5, False),
    (5, "!=", "abc", True),
    (None, "==", None, True),
    (None, "!=", None, False),
    (None, "<=", None, False),
    (None, ">=", None, False),
    (5, "==", None, False),
    (5, "!=", None, True),
    (5, "<", None, False),
    (None, "!=", "abc", True),
    ("abc", "<", "5", False),
    (5, "<", 10, True),
    (5, ">", "10", True),
    (5, "<=", "5", True),
    ("Abc", "==", "aBC", True),
    ("abc", "==", "", False),
]

SUMS: list[tuple[Any, str, Any, Any]] = [
    (1, "+", 2, 3),
    (5, "+", "5", ERROR),
    ("abc", "+", "x", "abcx"),
    (None, "+", "x", "x"),
    ("x", "+", None, "x"),
    (None, "+", None, ""),
    (5, "-", None, 5),
    (2, "*", None, 0),
    (1, "<<", None, 1),
    (1, "&", None, 0),
    (None, "-", 1, ERROR),
    (None, "*", 2, ERROR),
    (None, "-", None, ERROR),
    (2147483647, "+", 1, -2147483648),
    (2147483647, "*", 2, -2),
    (-2147483648, "/", -1, -2147483648),
    (-7, "/", 2, -3),
    (-7, "%", 3, -1),
    (7, "%", -3, 1),
    (7, "/", 0, 0),
    (7, "%", 0, 0),
    (5, "/", None, 0),
    ("5", "-", 1, ERROR),
    ("5", "*", "5", ERROR),
    ("abc", "-", None, ERROR),
    ("abc", "&", None, ERROR),
    (1, "&", "a", ERROR),
    ("abc", "&", "ABC", "ABC"),
    ("abc", "|", "   ", "abc"),
    ("abc", "^", "abc", "\0\0\0"),
    ("", "&", "", ""),
    ("abc", "&", "ab", ERROR),
    ("a", "<<", "b", ERROR),
    (6, "&", 3, 2),
    (6, "|", 1, 7),
    (6, "^", 3, 5),
    (1, "<<", 4, 16),
    (1, "<<", 33, 2),
    (1, "<<", 31, -2147483648),
    (1, "<<", -1, -2147483648),
    (-16, ">>", 2, -4),
    (-1, ">>", 31, -1),
    (ERROR, "+", 1, ERROR),
    (1, "+", ERROR, ERROR),
]

CHANGES: list[tuple[Any, str, Any, Any]] = [
    (5, "+", 1, 6),
    (5, "+", "x", ERROR),
    ("abc", "+", "x", "abcx"),
    ("abc", "+", 1, ERROR),
    ("5", "+", 5, ERROR),
    (5, "-", "5", ERROR),
    (5, "/", 2, 2),
    (None, "+", 1, ERROR),
    (None, "+", "x", ERROR),
    (5, "+", None, ERROR),
    ("abc", "+", None, ERROR),
    ("abc", "&", "ABC", ERROR),
    (5, "+", 2147483647, -2147483644),
    (5, "+", ERROR, ERROR),
]


SOME = st.none() | st.integers(-5, 5) | st.text("aB1", max_size=2)


class ComparisonTests(SynchronousTestCase):
    """``== != < > <= >= =~ !~``."""

    def test_constants(self) -> None:
        """A variable beside a constant: a number needs a number, a string takes both, null differs from all."""
        for left, op, right, expected in CONSTANTS:
            run: Any = Log()
            self.assertIs(compare(run, left, op, right), expected, (left, op, right))
            self.assertEqual(len(run.lines), expected is ERROR, (left, op, right))

    def test_variables(self) -> None:
        """Two variables: numbers if both are, else texts; never an error."""
        for left, op, right, expected in VARIABLES:
            self.assertIs(compare_values(left, op, right), expected, (left, op, right))

    def test_patterns(self) -> None:
        """A pattern in a variable: null beside null matches, a bad pattern is an error."""
        patterns: list[tuple[Any, Any, Truth]] = [
            ("abc", "B", True),
            (5, 5, True),
            ("abc", None, False),
            (None, "abc", False),
            (None, None, True),
            ("abc", "(", ERROR),
        ]
        for left, right, expected in patterns:
            run: Any = Log()
            self.assertIs(values.matches_value(run, left, right), expected, (left, right))
            self.assertEqual(len(run.lines), expected is ERROR)
        self.assertTrue(values.matches("ABC", compile_regex("b")))
        self.assertFalse(values.matches(None, compile_regex("")))

    def test_networks(self) -> None:
        """An address is in a network or not; text that is no address is an error, also beside ``!=``."""
        for value, network, expected in [
            ("10.0.0.5", "10.0.0.0/8", True),
            ("11.0.0.5", "10.0.0.0/8", False),
            ("[2001:db8::1]", "2001:db8::/32", True),
            ("10.0.0.5", "2001:db8::/32", False),
            (None, "10.0.0.0/8", False),
            ("abc", "10.0.0.0/8", ERROR),
            (5, "10.0.0.0/8", ERROR),
        ]:
            run: Any = Log()
            result = values.in_network(run, value, ip_network(network))
            self.assertIs(result, expected, (value, network))
            self.assertIs(values.negate(result), ERROR if expected is ERROR else not expected)

    def test_error(self) -> None:
        """ERROR is false, and stays itself when it is negated or used as a value."""
        self.assertFalse(ERROR)
        self.assertIs(values.negate(ERROR), ERROR)
        self.assertIs(values.as_value(ERROR), ERROR)
        self.assertEqual((values.as_value(True), values.as_value(False)), (1, 0))

    @given(SOME, SOME)
    @settings(max_examples=200, derandomize=True, deadline=None)
    def test_order(self, left: Any, right: Any) -> None:
        """Of two values that are not null exactly one of less, equal and more holds."""
        found = [values.less(left, right), values.equal(left, right), values.less(right, left)]
        if left is not None and right is not None:
            self.assertEqual(found.count(True), 1, (left, right))
        self.assertEqual(values.at_most(left, right), left is not None and right is not None and (found[0] or found[1]))


class ArithmeticTests(SynchronousTestCase):
    """``+ - * / % & | ^ << >> ~`` and the assignments that calculate."""

    def test_calculate(self) -> None:
        """The left operand decides between numbers and strings; numbers are C ints; division by 0 is logged and gives 0."""
        for left, op, right, expected in SUMS:
            run: Any = Log()
            result = values.calculate(run, op, left, right)
            self.assertEqual(result, expected, (left, op, right))
            self.assertIs(result is ERROR, expected is ERROR, (left, op, right))

    def test_errors_are_logged_once(self) -> None:
        """An error is logged where it is made, not where it is passed on."""
        run: Any = Log()
        values.calculate(run, "+", values.calculate(run, "-", "a", 1), 5)
        self.assertEqual([level for level, _ in run.lines], [values.L_ERR])

    def test_add(self) -> None:
        """A variable on the right of ``+`` has a text even when it is a number; a bare number has none."""
        run: Any = Log()
        cases: list[tuple[Result, Result, Result]] = [("a", 5, "a5"), (None, 5, "5"), (5, 5, 10), (2147483647, 1, -2147483648)]
        for left, right, expected in cases:
            self.assertEqual(values.add(run, left, right), expected)
        self.assertIs(values.calculate(run, "+", "a", 5), ERROR)

    def test_change(self) -> None:
        """``op=`` needs two numbers, or two strings for ``+=``; null is an error."""
        for left, op, right, expected in CHANGES:
            self.assertEqual(values.change(Log(), op, left, right), expected, (left, op, right))  # type: ignore[arg-type]

    def test_invert(self) -> None:
        """``~`` turns the bits of a number round and refuses all else."""
        run: Any = Log()
        self.assertEqual(values.invert(run, 5), -6)
        for value in ("abc", None, ERROR):
            self.assertIs(values.invert(run, value), ERROR)

    def test_text(self) -> None:
        """Null is printed as ``<null>``."""
        self.assertEqual([values.to_text(value) for value in (None, 5, "x", "")], ["<null>", "5", "x", ""])

    def test_codes(self) -> None:
        """A returned variable: null is -1, a string 1, a number itself."""
        self.assertEqual([values.code_of(value) for value in (None, "x", 5, 0)], [-1, 1, 5, 0])
