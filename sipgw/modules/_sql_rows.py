"""Rows of databases as values of scripts, and where scripts want them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sipgw.exports import Writable
from sipgw.modules._specs import variable
from sipgw.script.errors import ScriptError
from sipgw.script.formats import parse_variable
from sipgw.script.run import Run
from sipgw.script.values import c_int, decode

__all__ = ["NULL", "check_avps", "check_variables", "names_of", "push_rows", "script_value", "variables_of"]

NULL = "<null>"
"""What an AVP holds where a column holds nothing."""
_INT = range(-(1 << 31), 1 << 31)


def script_value(value: Any, bigint_to_str: bool = False) -> int | str | None:
    """The value of a column as a script's: times are seconds since 1970, numbers with fractions and octets are texts.

    Numbers beyond 32 bits lose their upper bits as in OpenSIPS, unless ``bigint_to_str``."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value) if bigint_to_str and value not in _INT else c_int(value)
    if isinstance(value, float):
        return f"{value:.8f}"
    if isinstance(value, datetime):
        return c_int(int(value.timestamp()))
    return decode(bytes(value))


def _pieces(text: str) -> list[str]:
    found = [piece.strip() for piece in text.split(";")]
    while found and not found[-1]:
        found.pop()
    return found


def check_variables(text: str) -> None:
    """Refuse what is no list ``$var(a);$avp(b)``."""
    for piece in _pieces(text):
        try:
            parse_variable(piece)
        except ScriptError as error:
            raise ValueError(str(error)) from None


def check_avps(text: str) -> None:
    """Refuse what is no list ``$avp(a);$avp(b)``."""
    for piece in _pieces(text):
        try:
            node = parse_variable(piece)
        except ScriptError as error:
            raise ValueError(str(error)) from None
        if node.name != "avp" or node.transformations or node.index is not None:
            raise ValueError(f"{piece} is no AVP: write $avp(name), several with ; between them")


def variables_of(text: str, symbols: Any) -> list[Writable]:
    """The variables of such a list."""
    return [variable(piece, symbols) for piece in _pieces(text)]


def names_of(text: str, symbols: Any) -> list[str | Writable]:
    """The names of the AVPs of such a list; a variable where a name is the value of one."""
    names: list[str | Writable] = []
    for piece in _pieces(text):
        subname = parse_variable(piece).subname
        if subname is None or isinstance(subname, str):
            names.append((subname or "").removeprefix("s:"))
        else:
            names.append(variable(piece[len("$avp(") : -1], symbols))
    return names


def push_rows(run: Run, rows: Sequence[Sequence[Any]], names: Sequence[str | Writable], bigint_to_str: bool) -> None:
    """Add the values of ``rows`` to AVPs, those of the first row on top; without names to ``$avp(1)``, ``$avp(2)`` ..."""
    wanted = [name if isinstance(name, str) else str(name.get(run)) for name in names]
    for row in reversed(rows):
        for number, value in enumerate(row):
            if wanted and number >= len(wanted):
                break
            name = wanted[number] if wanted else str(number + 1)
            found = script_value(value, bigint_to_str)
            run.avps.setdefault(name, []).append(NULL if found is None else found)
