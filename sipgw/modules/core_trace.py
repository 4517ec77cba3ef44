"""The function that traces a script, always there.

A script that calls it is compiled with a step before each statement and call that asks whether it is to be logged; other scripts
do not have these steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from sipgw.exports import Constant, Fixup, Module, function
from sipgw.script.compiler import compile_format
from sipgw.script.errors import ScriptError
from sipgw.script.formats import parse_format
from sipgw.script.nodes import NOWHERE
from sipgw.script.run import Run
from sipgw.script.runtime import TRACE, Trace
from sipgw.script.symbols import Kind


def check_format(text: str) -> None:
    """Refuse what is no text with variables."""
    try:
        parse_format(text, NOWHERE)
    except ScriptError as error:
        raise ValueError(error.text) from None


TraceFormat = Annotated[str, Fixup(Kind.RAW), check_format]


class CoreTrace(Module):
    """Logs each step of a script."""

    name = "core"

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._formats: dict[str, Callable[[Run], str]] = {}

    @function()
    def script_trace(
        self, run: Run, log_level: int | None = None, pv_format_string: TraceFormat | None = None, info: Constant | None = None
    ) -> bool:
        """From here on log each step at ``log_level``, with what ``pv_format_string`` says; without parameters, no longer.

        It ends with the route that the message came to: its branch, failure and reply routes are not traced."""
        if log_level is None:
            run.keep().pop(TRACE, None)
            return True
        if pv_format_string is None:
            run.user.log(-1, "script_trace: what to log is missing: script_trace(1, \"$rm\")")
            return False
        found = self._formats.get(pv_format_string)
        if found is None:
            try:
                found = compile_format(pv_format_string, self.server.symbols)
            except ScriptError as error:
                run.user.log(-1, f"script_trace: {error.text}")
                return False
            self._formats[pv_format_string] = found
        run.keep()[TRACE] = Trace(run.kind, log_level, found, info or "")
        return True
