"""Tests of sipgw.modules.mathops: texts and what the real binary made of them."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.mathops import MAX_TEXT, BadExpression, Mathops, evaluate, evaluate_rpn
from tests.doubles import FakeVariable, request, run_of
from tests.modules.scripted import Scripted

EVAL = {
    "1+2*3": "7.000000", "2^3^2": "64.000000", "-2^2": "4.000000", "7%3": "1.000000", "-7%3": "-1.000000", "1/3": "0.333333",
    "1/0": "inf", "-1/0": "-inf", "sqrt(2)": "1.414214", "ln(10)": "2.302585", "log(100)": "2.000000", "abs(-3)": "3.000000",
    "1e3": "1000.000000", "1.5e-3": "0.001500", "123456789*1000": "123456789000.000000", "1e20": "100000000000000000000.000000",
    "3.14159265358979": "3.141593", "-0.0000001": "-0.000000", "exp(1)": "2.718282", "floor(-2.5)": "-3.000000",
    "ceil(2.1)": "3.000000", "1.": "1.000000", ".5": "0.500000", "0x10": "16.000000", "sqrt 4": "2.000000", "- - 2": "2.000000",
    "2*-3": "-6.000000", "+5": "5.000000", "2^-1": "0.500000", "2-3-4": "-5.000000", "8/2/2": "2.000000", "1e400": "inf",
    "-1e400": "-inf", "acos(1)": "0.000000", "atan(1)": "0.785398", "tan(1)": "1.557408", "sinh(1)": "1.175201",
    "cosh(1)": "1.543081", "tanh(1)": "0.761594", "exp(1000)": "inf", "5%2.5": "0.000000", "2 ^ 0.5": "1.414214",
    "\t1 + 2 ": "3.000000", "ln(0)": "-inf", "0^-1": "inf", "(-8)^3": "-512.000000", "(-10)^1001": "-inf", "sin(0)": "0.000000",
    "3.141592 * (123.45678 - (3.141592 - 2.71828)) / 123.45678": "3.130820",
}
NO_EVAL = (
    "0/0", "sqrt(-1)", "pi", "e", "pow(2,3)", "1,2", "(1+2", "1+2)", "1+", "", " ", "abc", "2 3", "max(1,2)", "5 > 3", "!1",
    "round(2.5)", "sqrt(4", "sin", "sin()", "1e400-1e400", "asin(2)", "7%0", "(1)(2)", "SQRT(4)",
    "1e", "1e+", "0x", "1..2", "(-8)^(1.0/3)",
    "ln(-1)", "1_0", "٣", "-" * 60 + "1", "(" * 60 + "1" + ")" * 60, "1+" * MAX_TEXT + "1", "sqrt" * 5 + "1", "sin(exp(1000))",
)
RPN = {
    "1 2 +": "3.000000", "1 3 /": "0.333333", "2 3 pow": "8.000000", "7 3 mod": "1.000000", "-7 3 mod": "-1.000000",
    "5 neg": "-5.000000", "1 exp": "2.718282", "10 ln": "2.302585", "100 log10": "2.000000", "-3 abs": "3.000000",
    "2 sqrt": "1.414214", "27 cbrt": "3.000000", "-27 cbrt": "-3.000000", "-2.5 floor": "-3.000000", "2.1 ceil": "3.000000",
    "2.5 round": "3.000000", "-2.5 round": "-3.000000", "2.5 nearbyint": "2.000000", "3.5 nearbyint": "4.000000",
    "-2.7 trunc": "-2.000000", "e": "2.718282", "pi": "3.141593", "1 2 drop": "1.000000", "1 dup +": "2.000000",
    "1 2 swap -": "1.000000", "1 0 /": "inf", "1   2  +": "3.000000", "1e3 1 *": "1000.000000", "1 3 / exp ln": "0.333333",
    "1 3 swap swap dup drop / exp ln 1 swap /": "3.000000", "1 0 / floor": "inf",
}
NO_RPN = ("1 2", "", "+", "1 +", "abc", "1 2 3", "drop", "1 2 max", "swap", "1 swap", "0 0 /", "0x10", "1_0", "1 " * MAX_TEXT)

ROUNDED: list[tuple[str, tuple[Any, ...], int | str]] = [
    ("math_floor", ("3.7",), 3), ("math_floor", ("-2.9",), -3), ("math_floor", ("abc",), 0), ("math_floor", ("",), 0),
    ("math_floor", ("1e3",), 1000), ("math_floor", ("3abc",), 3), ("math_floor", (" 4.5",), 4),
    ("math_ceil", ("3.2",), 4), ("math_ceil", ("-2.9",), -2), ("math_ceil", ("5",), 5),
    ("math_trunc", ("3.7",), 3), ("math_trunc", ("-2.9",), -2),
    ("math_round", ("1.2",), 1), ("math_round", ("0.5",), 1), ("math_round", ("-0.5",), -1), ("math_round", ("2.5",), 3),
    ("math_round", ("0.49999999999999994",), 0), ("math_round", ("3.14", 0), 3), ("math_round", ("3.141592", 4), "3.1416"),
    ("math_round", ("3.14", 10), "3.1400000000"), ("math_round", ("1234.5678", -2), "1234.567800"),
    ("math_round", ("2.675", 2), "2.67"), ("math_round", ("0.125", 2), "0.12"), ("math_round", ("-0.125", 2), "-0.12"),
    ("math_round", ("abc", 2), "0.00"), ("math_round", ("99999999999", 2), "99999999999.00"),
    ("math_round_sf", ("17892.987", 0), "0.000000"), ("math_round_sf", ("17892.987", 1), "20000.000000"),
    ("math_round_sf", ("17892.987", 3), "17900.000000"), ("math_round_sf", ("17892.987", 5), "17893.000000"),
    ("math_round_sf", ("17892.987", 7), "17892.990000"), ("math_round_sf", ("17892.987", 8), "17892.987000"),
    ("math_round_sf", ("0.00123456", 3), "0.001230"), ("math_round_sf", ("-17892.987", 3), "-17900.000000"),
    ("math_round_sf", ("9.99", 2), "10.000000"), ("math_round_sf", ("3.14",), 3),
    ("math_round_sf", ("99999", 2), "100000.000000"),
    ("math_round_sf", ("1e10", 3), "10000000000.000000"), ("math_round_sf", ("0", 3), "0.000000"),
    ("math_round_sf", ("1e400", 3), "inf"), ("math_round_sf", ("1e-300", 30), "0.000000"),
]


class MathopsTests(SynchronousTestCase):
    """Functions of a script."""

    def setUp(self) -> None:
        """A module and a run."""
        self.module = Mathops()
        self.run_ = run_of(request())

    def call(self, name: str, *arguments: Any) -> Any:
        """What a function gives its variable; None if it fails."""
        variable = FakeVariable()
        first, *rest = arguments
        done = getattr(self.module, name)(self.run_, first, variable, *rest)
        self.assertEqual(bool(variable.values), done)
        return variable.get(self.run_)

    def test_eval(self) -> None:
        """Expressions have their values."""
        self.assertEqual({text: self.call("math_eval", text) for text in EVAL}, EVAL)
        self.assertEqual({text: self.call("math_eval", text) for text in NO_EVAL}, dict.fromkeys(NO_EVAL))

    def test_rpn(self) -> None:
        """So have those in reverse Polish notation."""
        self.assertEqual({text: self.call("math_rpn", text) for text in RPN}, RPN)
        self.assertEqual({text: self.call("math_rpn", text) for text in NO_RPN}, dict.fromkeys(NO_RPN))

    def test_round(self) -> None:
        """Numbers are rounded; whole ones are numbers, others texts."""
        for name, arguments, expected in ROUNDED:
            self.assertEqual(self.call(name, *arguments), expected, (name, arguments))
            self.assertIs(type(self.call(name, *arguments)), type(expected))

    def test_too_big(self) -> None:
        """What is too big for a script's whole number is refused."""
        for name in ("math_floor", "math_ceil", "math_trunc", "math_round", "math_round_sf"):
            for number in ("99999999999", "-99999999999", "1e400"):
                self.assertIsNone(self.call(name, number))

    def test_compare(self) -> None:
        """Two expressions are compared."""
        variable = FakeVariable()
        for first, second in (("1 + 8", "7/2"), ("1", "2"), ("2", "2.0"), ("0.1+0.2", "0.3")):
            self.assertTrue(self.module.math_compare(self.run_, first, second, variable))
        self.assertFalse(self.module.math_compare(self.run_, "abc", "2", variable))
        self.assertFalse(self.module.math_compare(self.run_, "2", "", variable))
        self.assertEqual(variable.values, [1, -1, 0, 1])

    def test_digits(self) -> None:
        """decimal_digits says how many stand behind the point."""
        for digits, expected in ((3, "0.333"), (0, "0"), (15, "0.333333333333333")):
            self.module.set_parameter("decimal_digits", digits)
            self.assertEqual(self.call("math_eval", "1/3"), expected)
        self.assertEqual(self.call("math_round", "3.141592", 4), "3.1416")
        for value in (-1, 51):
            self.assertRaises(ValueError, self.module.set_parameter, "decimal_digits", value)

    def test_script(self) -> None:
        """A script puts its variables into an expression."""
        lines = Scripted(
            '$avp(1) = "3.5"; $var(n) = 2; math_eval("$avp(1) * $var(n)", $avp(r)); math_floor($avp(1), $var(f));'
            'xlog("L_ALERT", "$avp(r) $var(f)"); if (!math_eval("x", $avp(r))) xlog("L_ALERT", "$rc");',
            "mathops",
        ).send()
        self.assertEqual(lines, ["7.000000 3", "math_eval: 'x': 'x' is not expected", "-1"])

    @settings(max_examples=150, derandomize=True, deadline=None)
    @given(st.lists(st.sampled_from([*"+-*/%^().", "1", "2.5", "0", "1e99", "sqrt", "ln", "exp", "tan", " "]), max_size=14))
    def test_anything(self, parts: list[str]) -> None:
        """Whatever stands there, it is a number or no expression."""
        for work, text in ((evaluate, "".join(parts)), (evaluate_rpn, " ".join(parts))):
            try:
                self.assertFalse(math.isnan(work(text)))
            except BadExpression:
                pass
