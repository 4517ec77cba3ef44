"""Variables that modparams name: ``$avp(name)``, ``$var(name)`` and the like."""

from __future__ import annotations

import re
from typing import Any

from sipgw.exports import Writable
from sipgw.script.compiler import compile_variable
from sipgw.script.errors import ScriptError, ScriptErrors
from sipgw.script.formats import parse_variable
from sipgw.script.run import Run

_avp = re.compile(r"\$avp\(\s*(?:s:)?([^()\s]+)\s*\)").fullmatch


def avp_name(text: str) -> str:
    """The name in ``$avp(name)``; ``ValueError`` if it is nothing of the kind."""
    match = _avp(text)
    if match is None:
        raise ValueError(f"write $avp(name), not {text!r}")
    return match[1]


def variable(text: str, symbols: Any) -> Writable:
    """The variable that ``text`` names; ``ValueError`` if it names none."""
    try:
        found: Writable = compile_variable(parse_variable(text), symbols)
    except (ScriptError, ScriptErrors) as error:
        raise ValueError(f"{text!r} is no variable: {error}") from None
    return found


def check_variable(text: str) -> None:
    """Refuse what cannot be a variable at all."""
    try:
        parse_variable(text)
    except ScriptError as error:
        raise ValueError(str(error)) from None


def newest(run: Run, avp: str) -> int | str | None:
    """The value of an AVP as scripts see it."""
    values = run.avps.get(avp)
    return values[-1] if values else None
