"""Max-Forwards: take one off, or put one in (RFC 3261 16.3 step 3, 16.6 step 3, 20.22).

The new value waits in ``run.edits`` as every edit does, but it is remembered with the message, so that a second call and
``is_maxfwd_lt`` see it. COMPAT: a value that gets shorter is padded with blanks to the old width, as OpenSIPS writes it."""

from __future__ import annotations

from typing import Any

from sipgw.exports import BRANCH, FAILURE, REQUEST, Module, function, param
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint

_KEY = "maxfwd"
_MAX_KNOWN = 300


def _check_limit(value: int) -> None:
    if not 1 <= value <= 256:
        raise ValueError("must be between 1 and 256")


def _with_value(line: str, value: int) -> str:
    """``line`` with another value, in the room that the old one had."""
    name, _, old = line.partition(":")
    digits = old.strip()
    return f"{name}:{old.replace(digits, str(value).rjust(len(digits)))}"


class Maxfwd(Module):
    """Counts a request's hops down in Max-Forwards, so that a loop ends."""

    max_limit: int = param(256, "The highest value that a request may leave with", check=_check_limit)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._lowered: dict[str, tuple[str, int]] = {}
        """What became of each line seen lately: nearly all messages have one of few."""

    @function(REQUEST)
    def mf_process_maxfwd_header(self, run: Run, max_value: int) -> int:
        """Lower Max-Forwards by one, or add it with ``max_value``.

        1: lowered. 2: it was missing and is added. -1: it was 0 and stays so (answer 483). -2: it cannot be read."""
        message = run.message
        kept = run.keep()
        names = message.names
        if "max-forwards" not in names:
            if _KEY not in kept:
                run.edits = run.edits.insert_after(0, f"Max-Forwards: {max_value}")
                kept[_KEY] = max_value
            return 2
        index = names.index("max-forwards")
        line = message.lines[index]
        if _KEY in kept:
            line = _with_value(line, kept[_KEY])
        known = self._lowered.get(line)
        if known is None:
            try:
                value = parse_uint(line.partition(":")[2].strip(), message.limits.max_forwards, "Max-Forwards")
            except MalformedMessage as error:
                run.user.log(-1, f"mf_process_maxfwd_header: {error}")
                return -2
            if value == 0:
                return -1
            value = min(value - 1, self.max_limit)
            if len(self._lowered) >= _MAX_KNOWN:
                self._lowered.clear()
            known = self._lowered[line] = (_with_value(line, value), value)
        text, kept[_KEY] = known
        run.edits = run.edits.replace(index, text)
        return 1

    @function(REQUEST | FAILURE | BRANCH)
    def is_maxfwd_lt(self, run: Run, max_value: int) -> int:
        """1 if Max-Forwards as it will leave is less than ``max_value``, -1 if not; -2: there is none, -3: unreadable."""
        value = None if run.context is None else run.context.get(_KEY)
        if value is None:
            try:
                value = run.message.max_forwards
            except MalformedMessage as error:
                run.user.log(-1, f"is_maxfwd_lt: {error}")
                return -3
            if value is None:
                return -2
        return 1 if value < max_value else -1
