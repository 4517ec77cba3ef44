r"""textops: patterns on the text of a message; the work is done in ``proxy/text_edits.py``.

Patterns ignore case and know lines; those of the ``subst`` functions say with their flags what they want: ``i`` any case, ``s``
the text is one line, ``g`` every match. In a replacement ``\0`` .. ``\9`` are groups, ``\u`` is the Request-URI, variables are
read when it is used and null is nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from sipgw.exports import BRANCH, FAILURE, LOCAL, ONREPLY, REQUEST, Fixup, HeaderText, Module, Regex, function
from sipgw.proxy.text_edits import MessageText, Span, find, replace_in_body, replace_in_message
from sipgw.script.compiler import compile_variable
from sipgw.script.errors import ScriptError
from sipgw.script.formats import parse_format
from sipgw.script.regex import Match, compile_regex
from sipgw.script.regex import Regex as Pattern
from sipgw.script.run import Run, Value
from sipgw.script.symbols import Kind
from sipgw.script.transform_text import Substitution
from sipgw.sip.errors import SipError
from sipgw.sip.uri import Uri

EVERYWHERE = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL
MAX_KNOWN = 500
"""How many substitutions are kept compiled; scripts have them as constants."""

_uri_reference = re.compile(r"(?<!\\)((?:\\\\)*)\\u").sub


def read_substitution(expression: str) -> Substitution:
    """Take ``/pattern/replacement/flags`` apart; ``ValueError`` says what is wrong with it."""
    try:
        return Substitution(_uri_reference(r"\1$(ru)", expression), lambda text: parse_format(text).pieces)
    except ScriptError as error:
        raise ValueError(str(error)) from None


Expression = Annotated[str, Fixup(Kind.RAW), read_substitution]


class _Compiled:
    """A substitution with its variables ready to be read."""

    __slots__ = ("every", "parts", "pattern")

    def __init__(self, expression: str, symbols: Any) -> None:
        found = read_substitution(expression)
        variables = iter(found.variables)
        self.pattern = found.regex
        self.every = found.every
        self.parts: list[str | int | Callable[[Run], Value]] = [
            compile_variable(next(variables), symbols).get if part is None else part for part in found.parts
        ]

    def texts(self, run: Run) -> list[str | int]:
        """The replacement with its variables read; groups are still numbers."""
        made: list[str | int] = []
        for part in self.parts:
            if callable(part):
                value = part(run)
                made.append("" if value is None else str(value))
            else:
                made.append(part)
        return made

    def breaks(self, texts: list[str | int]) -> bool:
        """Whether a variable brings a line end or NUL (hardening P5); what the script writes itself may."""
        return any(
            callable(part) and any(char in str(text) for char in "\r\n\0")
            for part, text in zip(self.parts, texts, strict=True)
        )


def _write(texts: list[str | int], match: Match) -> bytes:
    text = "".join(match.group(part) or "" if isinstance(part, int) else part for part in texts)
    return text.encode("utf-8", "surrogateescape")


def _lines(pattern: Any) -> Pattern:
    """The same pattern, with ``^`` and ``$`` at every line."""
    return compile_regex(pattern.pattern, True, True)


def _instead(text: str) -> Callable[[Match], Span]:
    data = text.encode("utf-8", "surrogateescape")
    return lambda match: (match.start(), match.end(), data)


def _behind(text: str) -> Callable[[Match], Span]:
    data = text.encode("utf-8", "surrogateescape")
    return lambda match: (match.end(), match.end(), data)


class Textops(Module):
    """Searches and replaces text in messages."""

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._substitutions: dict[str, _Compiled] = {}

    # -- searching

    @function(EVERYWHERE)
    def search(self, run: Run, re: Regex) -> bool:
        """Whether the pattern is found in the received message."""
        return _lines(re).search_bytes(MessageText(run.message).data) is not None

    @function(EVERYWHERE)
    def search_body(self, run: Run, re: Regex) -> bool:
        """Whether the pattern is found in the received body."""
        return _lines(re).search_bytes(run.message.body) is not None

    @function(EVERYWHERE)
    def search_append(self, run: Run, re: Regex, txt: HeaderText) -> bool:
        """Put ``txt`` behind the first match, which may be in any header or in the body."""
        return replace_in_message(run, "search_append", _lines(re), _behind(txt), False)

    @function(EVERYWHERE)
    def search_append_body(self, run: Run, re: Regex, txt: str) -> bool:
        """Put ``txt`` behind the first match in the body."""
        return replace_in_body(run, "search_append_body", _lines(re), _behind(txt), False)

    # -- replacing

    @function(EVERYWHERE)
    def replace(self, run: Run, re: Regex, txt: HeaderText) -> bool:
        """Put ``txt`` in the place of the first match, which may be in any header or in the body."""
        return replace_in_message(run, "replace", _lines(re), _instead(txt), False)

    @function(EVERYWHERE)
    def replace_all(self, run: Run, re: Regex, txt: HeaderText) -> bool:
        """Put ``txt`` in the place of every match, in headers and body."""
        return replace_in_message(run, "replace_all", _lines(re), _instead(txt), True)

    @function(EVERYWHERE)
    def replace_body(self, run: Run, re: Regex, txt: str) -> bool:
        """Put ``txt`` in the place of the first match in the body."""
        return replace_in_body(run, "replace_body", _lines(re), _instead(txt), False)

    @function(EVERYWHERE)
    def replace_body_all(self, run: Run, re: Regex, txt: str) -> bool:
        """Put ``txt`` in the place of every match in the body."""
        return replace_in_body(run, "replace_body_all", _lines(re), _instead(txt), True)

    @function(EVERYWHERE)
    def replace_body_atonce(self, run: Run, re: Regex, txt: str) -> bool:
        """Put ``txt`` in the place of every match in the body."""
        return replace_in_body(run, "replace_body_atonce", _lines(re), _instead(txt), True)

    # -- substitutions

    def _compiled(self, run: Run, what: str, expression: str) -> _Compiled | None:
        found = self._substitutions.get(expression)
        if found is None:
            try:
                found = _Compiled(expression, self.server.symbols)
            except (ValueError, ScriptError) as error:
                run.user.log_rarely((what, expression), -1, f"{what}: {error}")
                return None
            if len(self._substitutions) >= MAX_KNOWN:
                self._substitutions.clear()
            self._substitutions[expression] = found
        return found

    @function(EVERYWHERE)
    def subst(self, run: Run, expr: Expression) -> bool:
        """Substitute in all but the start line."""
        found = self._compiled(run, "subst", expr)
        if found is None:
            return False
        texts = found.texts(run)
        if found.breaks(texts):
            run.user.log_rarely("subst", -1, "subst: refused, a variable has a line end or NUL inside")
            return False
        return replace_in_message(run, "subst", found.pattern, lambda m: (m.start(), m.end(), _write(texts, m)), found.every)

    @function(EVERYWHERE)
    def subst_body(self, run: Run, expr: Expression) -> bool:
        """Substitute in the body."""
        found = self._compiled(run, "subst_body", expr)
        if found is None:
            return False
        texts = found.texts(run)
        return replace_in_body(run, "subst_body", found.pattern, lambda m: (m.start(), m.end(), _write(texts, m)), found.every)

    def _substitute(self, run: Run, what: str, expression: str, text: str) -> str | None:
        """``text`` after the substitution; None if there is nothing to substitute."""
        found = self._compiled(run, what, expression)
        if found is None:
            return None
        data = text.encode("utf-8", "surrogateescape")
        matches = find(found.pattern, data, 0, found.every)
        if not matches:
            if matches is None:
                run.user.log_rarely(("empty", what), -1, f"{what}: the pattern matches the empty text")
            return None
        texts = found.texts(run)
        pieces = []
        at = 0
        for match in matches:
            pieces += [data[at : match.start()], _write(texts, match)]
            at = match.end()
        return (b"".join(pieces) + data[at:]).decode("utf-8", "surrogateescape")

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def subst_uri(self, run: Run, expr: Expression) -> bool:
        """Substitute in the Request-URI; what comes of it must be a URI."""
        text = self._substitute(run, "subst_uri", expr, run.uri)
        return text is not None and _set_uri(run, "subst_uri", lambda: Uri.parse(text))

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def subst_user(self, run: Run, expr: Expression) -> bool:
        """Substitute in the user of the Request-URI."""
        try:
            uri = run.request_uri
        except SipError:
            return False
        text = self._substitute(run, "subst_user", expr, uri.user or "")
        return text is not None and _set_uri(run, "subst_user", lambda: uri.with_user(text or None))


def _set_uri(run: Run, what: str, make: Callable[[], Uri]) -> bool:
    try:
        run.uri = make().text
    except SipError as error:
        run.user.log_rarely(what, -1, f"{what}: {run.uri!r} stays: {error.reason}")
        return False
    return True
