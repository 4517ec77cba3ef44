"""The module mi_script: management commands from the script.

``mi("usrloc:dump", $var(json))`` waits for the command, and nothing else does. What it answers is JSON; of a command that
fails the text of its error, and its code, below zero, is what the function returns."""

from __future__ import annotations

import re
from typing import Any

from sipgw.exports import Avp, Writable, function, listed, param
from sipgw.mi import jsonrpc
from sipgw.mi.jsonrpc import AMBIGUOUS, NOT_FOUND, SERVER_ERROR, MIError
from sipgw.modules._mi_trace import MiTrace
from sipgw.script.run import Run

_array = re.compile(r"__array\((.*)\)", re.DOTALL).fullmatch

NO_COMMAND = -1
"""No such command, or one that broke."""
NO_VALUE = -2
"""``vals_avp`` has fewer values than ``params_avp`` has names."""


class MiScript(MiTrace):
    """Runs management commands from the script."""

    name = "mi_script"
    backend = "script"

    pretty_printing: int = param(0, "1: answers are indented, over several lines")

    @function()
    async def mi(
        self, run: Run, command: str, ret_var: Writable | None = None, params_avp: Avp | None = None, vals_avp: Avp | None = None
    ) -> int:
        """Run a management command and give its result to ``ret_var``; below 0, and the error's text, if it fails.

        Its parameters follow in ``command``, or are the values of ``params_avp`` in the order they were added; with ``vals_avp``
        those are their names, and ``__array(a b)`` among the values is a list."""
        name, *words = command.split() or [""]
        params: list[Any] | dict[str, Any] = words
        if params_avp is not None:
            params = listed(params_avp, run)[::-1]
            if vals_avp is not None:
                values = listed(vals_avp, run)
                if len(values) < len(params):
                    return self._failed(run, ret_var, NO_VALUE, f"mi: {name}: a parameter has no value")
                params = {str(key): _value(value) for key, value in reversed(list(zip(params[::-1], values, strict=False)))}
        shown = self.show_command(name, params)
        try:
            result = await self.server.commands.call(name, params)
        except MIError as error:
            self.show_answer(shown, error.message)
            code = NO_COMMAND if error.code in (NOT_FOUND, AMBIGUOUS, SERVER_ERROR) else -abs(error.code)
            return self._failed(run, ret_var, code, error.message)
        try:
            text = jsonrpc.encode(result, bool(self.pretty_printing)).decode()
        except Exception as error:
            run.user.log(-1, f"management command {name} failed: {type(error).__name__}: {error}")
            return self._failed(run, ret_var, NO_COMMAND, "Server error")
        self.show_answer(shown, text)
        if ret_var is not None:
            ret_var.set(run, text)
        return 1

    def _failed(self, run: Run, ret_var: Writable | None, code: int, text: str) -> int:
        if ret_var is not None:
            ret_var.set(run, text)
        return code


def _value(value: int | str) -> Any:
    """A parameter's value; ``__array(a b)`` is a list."""
    match = _array(str(value))
    return match[1].split() if match else value
