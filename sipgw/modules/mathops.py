"""mathops: arithmetic with floating point numbers, which scripts have as texts.

Expressions are those of OpenSIPS: ``+ - * / % ^`` (all from left to right, a sign binds closer than ``^``), parentheses and the
functions of ``FUNCTIONS``. Numbers behave as in C: 1/0 is "inf"; where nothing sensible comes out, the function fails."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from sipgw.exports import Module, Writable, function, param
from sipgw.script.run import Run

MAX_TEXT = 1000
"""Characters of an expression."""
MAX_DEPTH = 50
"""Parentheses, signs and functions in one another; values on the stack of ``math_rpn`` are as many as fit into MAX_TEXT."""
MAX_INT = 0x7FFFFFFF

_lex = re.compile(r"\s*(?:(0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|([a-z]+[0-9]*)|([-+*/%^()]))")
_prefix = re.compile(r"\s*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


class BadExpression(Exception):
    """An expression cannot be read."""


def _guarded(function: Callable[..., float]) -> Callable[..., float]:
    """``function`` as in C: no number where it is not defined, infinity where its value is too big."""

    def call(*arguments: float) -> float:
        try:
            return function(*arguments)
        except OverflowError:
            return math.inf
        except ValueError:
            return math.nan

    return call


def _log(function: Callable[[float], float]) -> Callable[[float], float]:
    guarded = _guarded(function)
    return lambda x: -math.inf if x == 0 else guarded(x)


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return -math.inf if a < 0 and b % 2 == 1 else math.inf
    except ValueError:
        return math.inf if a == 0 else math.nan


def _round(x: float) -> float:
    """To the nearest whole number, halves away from zero."""
    whole = math.floor(abs(x))
    return math.copysign(whole + (abs(x) - whole >= 0.5), x)


def _whole(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda x: float(function(x)) if math.isfinite(x) else x


FUNCTIONS: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": _whole(math.ceil),
    "floor": _whole(math.floor),
    "exp": _guarded(math.exp),
    "ln": _log(math.log),
    "log": _log(math.log10),
    "sqrt": _guarded(math.sqrt),
    **{name: _guarded(getattr(math, name)) for name in "acos asin atan cos cosh sin sinh tan tanh".split()},
}
"""What expressions may call; ``log`` is to the base of 10."""

BINARY: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _guarded(math.fmod),
    "^": _power,
}

RPN_BINARY = {**{name: BINARY[name] for name in "+-*/"}, "mod": BINARY["%"], "pow": BINARY["^"]}
RPN_UNARY: dict[str, Callable[[float], float]] = {
    "neg": lambda x: -x,
    **{name: FUNCTIONS[name] for name in ("exp", "ln", "abs", "sqrt", "floor", "ceil")},
    "log10": FUNCTIONS["log"],
    "cbrt": math.cbrt,
    "round": _whole(_round),
    "nearbyint": _whole(round),
    "trunc": _whole(math.trunc),
}
CONSTANTS = {"e": math.e, "pi": math.pi}

_LEVELS = ("+-", "*/%", "^")


class _Reader:
    """Works an expression out while it reads it."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise BadExpression(f"more than {MAX_TEXT} characters")
        self._text = text.rstrip()
        self._at = 0
        self._depth = 0
        self._next()

    def _next(self) -> None:
        """Read one more token into ``kind`` (number, name, a sign, or "" at the end) and ``text``."""
        self.kind = self.text = ""
        if self._at >= len(self._text):
            return
        match = _lex.match(self._text, self._at)
        if match is None:
            raise BadExpression(f"cannot be read from {self._text[self._at:]!r} on")
        self._at = match.end()
        number, name, sign = match.groups()
        self.kind, self.text = ("number", number) if number else ("name", name) if name else (sign, sign)

    def whole(self) -> float:
        """The value of all of it."""
        value = self.level(0)
        if self.kind:
            raise BadExpression(f"{self.text!r} is not expected")
        return value

    def level(self, number: int) -> float:
        """Operands joined by the operators of one level, from left to right."""
        if number == len(_LEVELS):
            return self.operand()
        value = self.level(number + 1)
        while self.kind and self.kind in _LEVELS[number]:
            operator = self.kind
            self._next()
            value = BINARY[operator](value, self.level(number + 1))
        return value

    def operand(self) -> float:
        """A number, a sign or a function with its operand, or parentheses."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadExpression("too deep")
        kind, text = self.kind, self.text
        if not kind:
            raise BadExpression("it ends too early")
        self._next()
        if kind == "number":
            value = float(int(text, 16)) if text[:2] in ("0x", "0X") else float(text)
        elif kind in ("-", "+"):
            value = self.operand() if kind == "+" else -self.operand()
        elif kind == "(":
            value = self.level(0)
            if self.kind != ")":
                raise BadExpression("a ) is missing")
            self._next()
        elif kind == "name" and text in FUNCTIONS:
            value = FUNCTIONS[text](self.operand())
        else:
            raise BadExpression(f"{text!r} is not expected")
        self._depth -= 1
        return value


def evaluate(text: str) -> float:
    """The value of an expression; ``BadExpression`` if it has none."""
    value = _Reader(text).whole()
    if math.isnan(value):
        raise BadExpression("its value is no number")
    return value


def evaluate_rpn(text: str) -> float:
    """The value of an expression in reverse Polish notation; ``BadExpression`` if it has none, or several."""
    if len(text) > MAX_TEXT:
        raise BadExpression(f"more than {MAX_TEXT} characters")
    stack: list[float] = []
    for word in text.split():
        try:
            _rpn_step(stack, word)
        except IndexError:
            raise BadExpression(f"{word!r} has too few values before it") from None
    if len(stack) != 1 or math.isnan(stack[0]):
        raise BadExpression("its value is no number" if len(stack) == 1 else f"it leaves {len(stack)} values")
    return stack[0]


def _rpn_step(stack: list[float], word: str) -> None:
    if word in RPN_BINARY:
        second, first = stack.pop(), stack.pop()
        stack.append(RPN_BINARY[word](first, second))
    elif word in RPN_UNARY:
        stack.append(RPN_UNARY[word](stack.pop()))
    elif word in CONSTANTS:
        stack.append(CONSTANTS[word])
    elif word == "drop":
        stack.pop()
    elif word == "dup":
        stack.append(stack[-1])
    elif word == "swap":
        stack[-1], stack[-2] = stack[-2], stack[-1]
    else:
        match = _prefix.fullmatch(word)
        if match is None:
            raise BadExpression(f"{word!r} is not known")
        stack.append(float(word))


def number_of(text: str) -> float:
    """The number that ``text`` begins with, 0 if it begins with none."""
    match = _prefix.match(text)
    return 0.0 if match is None else float(match[0])


def round_figures(value: float, figures: int) -> float:
    """``value`` with so many significant figures."""
    if not value or not math.isfinite(value) or figures <= 0:
        return 0.0 if math.isfinite(value) else value
    places = min(figures, 400) - math.ceil(math.log10(abs(value)))
    try:
        factor = math.pow(10.0, places)
        return _round(value * factor) / factor if factor else value
    except (OverflowError, ValueError):
        return value


def check_digits(value: int) -> None:
    """Refuse what is no number of digits."""
    if not 0 <= value <= 50:
        raise ValueError(f"{value} is no number of decimal digits: write 0 to 50")


class Mathops(Module):
    """Works out expressions and rounds numbers."""

    decimal_digits: int = param(6, "Digits behind the point of all results", check=check_digits)

    @function()
    def math_eval(self, run: Run, expression: str, result_var: Writable) -> bool:
        """Give ``result_var`` the value of an expression, such as ``(1 + 2) * sqrt(3)``."""
        return self._work(run, "math_eval", evaluate, expression, result_var)

    @function()
    def math_rpn(self, run: Run, expression: str, result_var: Writable) -> bool:
        """Give ``result_var`` the value of an expression in reverse Polish notation, such as ``1 2 + 3 sqrt *``."""
        return self._work(run, "math_rpn", evaluate_rpn, expression, result_var)

    def _work(self, run: Run, what: str, work: Callable[[str], float], expression: str, result_var: Writable) -> bool:
        try:
            value = work(expression)
        except BadExpression as error:
            run.user.log(-1, f"{what}: {expression[:100]!r}: {error}")
            return False
        result_var.set(run, self._text(value))
        return True

    def _text(self, value: float, digits: int | None = None) -> str:
        return f"{value:.{self.decimal_digits if digits is None else digits}f}"

    @function()
    def math_floor(self, run: Run, number: str, result_var: Writable) -> bool:
        """Give ``result_var`` the next whole number below."""
        return self._integer(run, "math_floor", math.floor, number, result_var)

    @function()
    def math_ceil(self, run: Run, number: str, result_var: Writable) -> bool:
        """Give ``result_var`` the next whole number above."""
        return self._integer(run, "math_ceil", math.ceil, number, result_var)

    @function()
    def math_trunc(self, run: Run, number: str, result_var: Writable) -> bool:
        """Give ``result_var`` the number without what is behind its point."""
        return self._integer(run, "math_trunc", math.trunc, number, result_var)

    def _integer(self, run: Run, what: str, work: Callable[[float], float], number: str, result_var: Writable) -> bool:
        value = number_of(number)
        if abs(value) > MAX_INT:
            run.user.log(-1, f"{what}: {number[:50]!r} is too big for a whole number")
            return False
        result_var.set(run, int(work(value)))
        return True

    @function()
    def math_round(self, run: Run, number: str, result_var: Writable, decimals: int | None = None) -> bool:
        """Give ``result_var`` the nearest whole number, or the number with so many ``decimals`` as a text."""
        if not decimals:
            return self._integer(run, "math_round", _round, number, result_var)
        result_var.set(run, self._text(number_of(number), min(decimals, 300) if decimals > 0 else None))
        return True

    @function()
    def math_round_sf(self, run: Run, number: str, result_var: Writable, figures: int | None = None) -> bool:
        """Give ``result_var`` the number with so many significant ``figures``, or without them the nearest whole number."""
        if figures is None:
            return self._integer(run, "math_round_sf", _round, number, result_var)
        result_var.set(run, self._text(round_figures(number_of(number), figures)))
        return True

    @function()
    def math_compare(self, run: Run, exp1: str, exp2: str, result_var: Writable) -> bool:
        """Give ``result_var`` 1 if the first expression is greater, -1 if the second one is, else 0."""
        try:
            first, second = evaluate(exp1), evaluate(exp2)
        except BadExpression as error:
            run.user.log(-1, f"math_compare: {exp1[:100]!r}, {exp2[:100]!r}: {error}")
            return False
        result_var.set(run, (first > second) - (first < second))
        return True
