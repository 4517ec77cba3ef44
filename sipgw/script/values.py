"""The values of a running script and its operators, as OpenSIPS has them.

A value is an ``int`` (it counts as a number and as its text), a ``str`` (text only) or ``None`` (null); its Python truth is its
truth in the script: null, 0 and the empty string are false, "0" is true.

An operator that cannot work on its operands answers ``ERROR``, a third state beside true and false: it is falsy, so that ``if``
takes its else and ``and`` stops at it, but ``negate`` keeps it and ``||`` is compiled so that it stops there too. Whoever makes
an ``ERROR`` has logged it with the line of the cfg (``wrong``); whoever meets one only passes it on.

Null meets null as equal in ``==`` and ``=~``; null beside anything else is different (``!=`` and ``!~`` are true, all others
false). That is why the tests against a constant exist in their positive forms only: the compiler writes ``not equal_text(..)``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any, Final

from sipgw.script.regex import BadPattern, Regex, compile_regex

if TYPE_CHECKING:
    from sipgw.script.run import Run, Value

CFG_MARK: Final = "__opensips_cfg__"
"""The global name that marks a frame of generated code: its line numbers are those of the cfg."""

L_ERR: Final = -1
L_WARN: Final = 1


class Ending:
    """How a route tells its caller that the script ends: ``EXIT`` and ``DROP``, compared by ``is``."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


EXIT: Final = Ending("EXIT")
"""``exit``, ``return(0)``, or a function that answered 0: the top route ends, what it implies still happens."""
DROP: Final = Ending("DROP")
"""``drop``: as ``EXIT``, and the branch or the provisional response is dropped."""


class Failure:
    """The type of ``ERROR``."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "ERROR"


ERROR: Final = Failure()
"""The operator could not work on its operands (OpenSIPS: -1)."""

Truth = bool | Failure


def cfg_position() -> tuple[str, int]:
    """The file and the line of the cfg that is running now; ("", 0) when none is."""
    frame = sys._getframe(1)
    while frame is not None:
        if CFG_MARK in frame.f_globals:
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0


def wrong(run: Run, text: str, level: int = L_WARN) -> Failure:
    """Log what went wrong in the running line of the cfg; answers ``ERROR``."""
    file, line = cfg_position()
    run.user.log(level, f"{text} at {file}:{line}")
    return ERROR


class Flagged(int):
    """1 or 0 that reads as "true" or "false": what ``$msg.flag(x)`` and ``$msg.is_request`` give."""

    __slots__ = ()

    def __str__(self) -> str:
        return "true" if self else "false"


SET: Final = Flagged(1)
UNSET: Final = Flagged(0)


def c_int(number: int) -> int:
    """``number`` as a C int holds it: 32 bits, wrapped around."""
    return ((number + 0x80000000) & 0xFFFFFFFF) - 0x80000000


_NUMBER = re.compile(r"[+-]?[0-9]{1,1000}", re.ASCII).match
_UPPER_TO_LOWER: Final = {code: code + 32 for code in range(65, 91)}


def fold(text: str) -> str:
    """``text`` with the 26 letters in lower case: strings compare so."""
    return text.lower() if text.isascii() else text.translate(_UPPER_TO_LOWER)


def to_text(value: Value) -> str:
    """How a value is printed; null is ``<null>``."""
    if value.__class__ is str:
        return value
    return "<null>" if value is None else str(value)


def encode(text: str) -> bytes:
    """The octets of a text, as they came: lengths and positions in a script count these."""
    return text.encode("utf-8", "surrogateescape")


def decode(data: bytes) -> str:
    """The text that octets are in a script; any octets are one."""
    return data.decode("utf-8", "surrogateescape")


def to_number(text: str) -> int:
    """The number that ``text`` begins with, as C's atoi reads it, wrapped; 0 if it begins with none."""
    found = _NUMBER(text)
    return c_int(int(found[0])) if found is not None else 0


def _kind(value: Value) -> str:
    return "null" if value is None else "a number" if isinstance(value, int) else "a string"


# ---- comparisons with a constant string: every value but null has a text ----


def equal_text(value: Value, text: str) -> bool:
    """``$v == "text"``, ignoring case; ``!=`` is its opposite."""
    if value == text:
        return True
    if value.__class__ is str:
        if len(value) != len(text):
            return False
        return value.lower() == text.lower() if value.isascii() and text.isascii() else fold(value) == fold(text)
    return value is not None and str(value) == text


def less_text(value: Value, text: str) -> bool:
    """``$v < "text"``: by letters, case ignored; a shorter one is less than a longer one that begins with it."""
    return value is not None and fold(str(value)) < fold(text)


def at_most_text(value: Value, text: str) -> bool:
    """``$v <= "text"``."""
    return value is not None and fold(str(value)) <= fold(text)


def more_text(value: Value, text: str) -> bool:
    """``$v > "text"``."""
    return value is not None and fold(str(value)) > fold(text)


def at_least_text(value: Value, text: str) -> bool:
    """``$v >= "text"``."""
    return value is not None and fold(str(value)) >= fold(text)


# ---- comparisons with a constant number: a string is an error ----


def equal_number(run: Run, value: Value, number: int) -> Truth:
    """``$v == 5``."""
    if value.__class__ is str:
        return _mixed(run, "==", value, number)
    return value == number


def differ_number(run: Run, value: Value, number: int) -> Truth:
    """``$v != 5``; true for null."""
    if value.__class__ is str:
        return _mixed(run, "!=", value, number)
    return value != number


def less_number(run: Run, value: Value, number: int) -> Truth:
    """``$v < 5``."""
    if value.__class__ is str:
        return _mixed(run, "<", value, number)
    return value is not None and value < number  # type: ignore[operator]


def at_most_number(run: Run, value: Value, number: int) -> Truth:
    """``$v <= 5``."""
    if value.__class__ is str:
        return _mixed(run, "<=", value, number)
    return value is not None and value <= number  # type: ignore[operator]


def more_number(run: Run, value: Value, number: int) -> Truth:
    """``$v > 5``."""
    if value.__class__ is str:
        return _mixed(run, ">", value, number)
    return value is not None and value > number  # type: ignore[operator]


def at_least_number(run: Run, value: Value, number: int) -> Truth:
    """``$v >= 5``."""
    if value.__class__ is str:
        return _mixed(run, ">=", value, number)
    return value is not None and value >= number  # type: ignore[operator]


def _mixed(run: Run, op: str, left: Value, right: Value) -> Failure:
    return wrong(run, f"error in expression: {_kind(left)} {op} {_kind(right)}")


# ---- comparisons of two variables: two ints as numbers, else their texts ----


def equal(left: Value, right: Value) -> bool:
    """``$a == $b``; ``!=`` is its opposite."""
    if left == right:
        return True
    if left is None or right is None:
        return False
    return fold(str(left)) == fold(str(right))


def less(left: Value, right: Value) -> bool:
    """``$a < $b``; ``$b > $a``."""
    if left.__class__ is int and right.__class__ is int:
        return left < right
    return left is not None and right is not None and fold(str(left)) < fold(str(right))


def at_most(left: Value, right: Value) -> bool:
    """``$a <= $b``; ``$b >= $a``. Two nulls are equal and yet not this."""
    if left.__class__ is int and right.__class__ is int:
        return left <= right
    return left is not None and right is not None and fold(str(left)) <= fold(str(right))


# ---- regular expressions and networks ----


def matches(value: Value, regex: Regex) -> bool:
    """``$v =~ "pattern"``, the pattern compiled beforehand; ``!~`` is its opposite."""
    return value is not None and regex.search(str(value)) is not None


def matches_value(run: Run, value: Value, pattern: Value) -> Truth:
    """``$v =~ $pattern``; a pattern that cannot be compiled is an error."""
    if value is None or pattern is None:
        return value is pattern
    try:
        return compile_regex(str(pattern)).search(str(value)) is not None
    except BadPattern as error:
        return wrong(run, f"error in expression: {error}")


def in_network(run: Run, value: Value, network: IPv4Network | IPv6Network) -> Truth:
    """``$si == 10.0.0.0/8``; false for null and for the other family; what is no address is an error."""
    if value is None:
        return False
    address = parse_ip(str(value))
    if address is None:
        return wrong(run, f"error in expression: {value!r} is not an IP address")
    return address in network


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """The address that ``text`` is, brackets allowed around IPv6; None if it is none."""
    try:
        if ":" in text:
            return IPv6Address(text[1:-1] if text[0] == "[" and text[-1] == "]" else text)
        return IPv4Address(text)
    except AddressValueError:
        return None


def negate(test: Truth) -> Truth:
    """``!test``: an error stays an error."""
    return test if test is ERROR else not test


# ---- arithmetic: C ints, wrapped; errors answer ERROR ----

Result = int | str | None | Failure
"""What an operator gives; ``None`` too, when a lone variable is null."""


def _divide(left: int, right: int) -> int:
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _modulo(left: int, right: int) -> int:
    return left - right * _divide(left, right)


NUMERIC: Final[dict[str, Callable[[int, int], int]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": _modulo,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: a << (b & 31),
    ">>": lambda a, b: a >> (b & 31),
}
"""The operators on two ints, before the result is wrapped."""


def add(run: Run, left: Result, right: Result) -> Result:
    """``left + right`` where ``right`` is a variable or a string: an int has a text to append too.

    The left operand decides: a number adds (null counts as 0), a string or null appends (null counts as "")."""
    if left.__class__ is int and right.__class__ is int:
        total: int = left + right
        return total if -0x80000000 <= total <= 0x7FFFFFFF else c_int(total)
    if right.__class__ is int and left.__class__ is not int:
        right = str(right)
    return calculate(run, "+", left, right)


def add_number(run: Run, left: Result, right: Result) -> Result:
    """``left + right`` where ``right`` is no variable: a number there has no text to append."""
    if left.__class__ is int and right.__class__ is int:
        total: int = left + right
        return total if -0x80000000 <= total <= 0x7FFFFFFF else c_int(total)
    return calculate(run, "+", left, right)


def calculate(run: Run, op: str, left: Result, right: Result) -> Result:
    """``left op right`` for any operator; an int on the right of ``+`` is only a number here (see ``add``)."""
    if left.__class__ is int and right.__class__ is int and right:
        return c_int(NUMERIC[op](left, right))
    if left is ERROR or right is ERROR:
        return ERROR
    if isinstance(left, int):
        if isinstance(right, str):
            return wrong(run, f"a number {op} a string", L_ERR)
        number = right if isinstance(right, int) else 0
        if number == 0 and op in "/%":
            wrong(run, "division by 0", L_ERR)
            return 0
        return c_int(NUMERIC[op](left, number))
    if op == "+":
        if isinstance(right, int):
            return wrong(run, "a string + a number", L_ERR)
        return f"{left or ''}{right or ''}"
    if isinstance(left, str) and isinstance(right, str) and op in "&|^":
        return _bits(run, op, left, right)
    return wrong(run, f"{_kind(left)} {op} {_kind(right)}", L_ERR)  # type: ignore[arg-type]


def _bits(run: Run, op: str, left: str, right: str) -> Result:
    """A bit operator on the bytes of two strings of one length."""
    first, second = encode(left), encode(right)
    if len(first) != len(second):
        return wrong(run, f"two strings of different lengths: {op}", L_ERR)
    work = NUMERIC[op]
    return decode(bytes(work(a, b) for a, b in zip(first, second, strict=True)))


def invert(run: Run, value: Result) -> Result:
    """``~value``; only a number has bits to turn round."""
    if value is ERROR or isinstance(value, int):
        return value if value is ERROR else ~value  # type: ignore[operator]
    return wrong(run, f"~ {_kind(value)}", L_ERR)  # type: ignore[arg-type]


def change(run: Run, op: str, left: Value, right: Result) -> Result:
    """The new value for ``$left op= right``: two ints, or two strings for ``+=``; anything else is an error."""
    if right is ERROR:
        return ERROR
    if isinstance(left, int) and isinstance(right, int):
        return calculate(run, op, left, right)
    if op == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    return wrong(run, f"{_kind(left)} {op}= {_kind(right)}", L_ERR)  # type: ignore[arg-type]


def as_value(test: Truth) -> Result:
    """A comparison used as a value: 1, 0, or still the error."""
    return ERROR if test is ERROR else int(test)  # type: ignore[arg-type]


# ---- return codes ----


def code_of(value: Any) -> int:
    """The return code that ``return $v`` gives: null is -1, a string is 1, a number itself."""
    return -1 if value is None else value if isinstance(value, int) else 1
