"""diversion: the Diversion header (RFC 5806), which tells from whom a call was diverted, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sipgw.exports import FAILURE, LOCAL, REQUEST, HeaderText, Module, function, param
from sipgw.script.run import Run
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri

_token = re.compile(r"[A-Za-z0-9\-.!%*_+`'~]+").fullmatch
_quoted = re.compile(r'"(?:[^"\\]|\\.)*"').fullmatch


@dataclass(frozen=True, slots=True)
class Diversion:
    """One more Diversion of the request."""

    line: str


def _written(edits: EditList, _way: Any) -> str:
    """All that were added, the last one on top (RFC 5806 4.2)."""
    return "\r\n".join(diversion.line for diversion in reversed(edits.notes(Diversion)))


def check_suffix(text: str) -> None:
    """Refuse what cannot stand behind a header's value."""
    if any(char in text for char in "\r\n\0") or (text and not text.lstrip().startswith(";")):
        raise ValueError(f"bad suffix {text!r}: write parameters, such as ;privacy=full")


class DiversionModule(Module):
    """Says from whom a call was diverted."""

    suffix: str = param("", "Parameters to put behind each Diversion, such as ;privacy=full", check=check_suffix)

    @function(REQUEST | FAILURE | LOCAL)
    def add_diversion(self, run: Run, reason: HeaderText, uri: HeaderText | None = None, counter: int | None = None) -> bool:
        """Put a Diversion on top of those that are there: from the received Request-URI or ``uri``, for ``reason``."""
        request = run.message
        assert isinstance(request, Request)
        text = uri or request.uri
        try:
            Uri.parse(text)
        except MalformedMessage as error:
            run.user.log(-1, f"add_diversion: {text!r}: {error.reason}")
            return False
        if not _token(reason) and not _quoted(reason):
            escaped = reason.replace("\\", "\\\\").replace('"', '\\"')
            reason = f'"{escaped}"'
        count = f";counter={counter}" if counter and counter > 0 else ""
        edits = run.edits
        if not edits.notes(Diversion):
            known = request.positions("diversion")
            edits = edits.later(known[0] if known else len(request.lines) - 1, _written)
        run.edits = edits.note(Diversion(f"Diversion: <{text}>;reason={reason}{count}{self.suffix}"))
        return True
