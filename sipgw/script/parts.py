"""A text of a script in which what is written there and what its variables hold are still apart.

A function whose parameter is ``PartedText`` (``sipgw.exports``) receives one instead of the finished text, to put each value in
as the language of the text wants it: a value must never become SQL or JSON. A variable that the script escapes by hand
(``{s.escape.common}`` as its last transformation) comes without that, since whoever puts it in escapes it anyway."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from sipgw.script.values import to_text

if TYPE_CHECKING:
    from sipgw.script.run import Value

OWN: Final = frozenset("var avp shv param return rc retcode json json_pretty env dlg_val sql_cached_value time Ts TF".split())
"""Variables that hold what the script has put there, not what a message brings."""
_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,40})?", re.ASCII)


class NotSafe(ValueError):
    """A value stands where it could become a part of the text's language."""


class Parts:
    """``template`` has texts, and for each variable in between its name; ``values`` what they hold, in order."""

    __slots__ = ("template", "values")

    def __init__(self, template: tuple[str | Hole, ...], values: tuple[Value, ...]) -> None:
        self.template = template
        self.values = values

    def __iter__(self) -> Iterator[tuple[str | Hole, Value]]:
        values = iter(self.values)
        for piece in self.template:
            yield piece, next(values) if isinstance(piece, Hole) else None

    def __str__(self) -> str:
        """The text as any other function would receive it."""
        return "".join(to_text(value) if isinstance(piece, Hole) else piece for piece, value in self)


class Hole:
    """The place of a variable."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def bare(hole: Hole, value: Value) -> str:
    """What a variable may put outside of quotes: a number (a name could be that of a column); anything if the script itself has
    made it."""
    text = to_text(value)
    if hole.name in OWN or _NUMBER.fullmatch(text):
        return text
    raise NotSafe(f"${hole.name} outside of quotes holds no number")


def fill_sql(parts: Parts, quote: Callable[[str], str], backslashes: bool) -> str:
    """A statement with its values in place; ``NotSafe`` if one cannot be put there.

    ``quote`` is the database's, for texts in single quotes; ``backslashes``: whether it takes a backslash as an escape."""
    out: list[str] = []
    scan = _Sql(backslashes)
    for piece, value in parts:
        if not isinstance(piece, Hole):
            scan.read(piece)
            out.append(piece)
        elif scan.pending:
            raise NotSafe(f"${piece.name} stands behind a backslash")
        elif scan.quote in ("'", '"', "`"):
            out.append(scan.quoted(to_text(value), quote))
        elif scan.quote:
            raise NotSafe(f"${piece.name} stands in a comment")
        else:
            text = bare(piece, value)
            scan.read(text)
            out.append(text)
    return "".join(out)


class _Sql:
    """Where in a statement its reader is: in which quotes, or in a comment."""

    def __init__(self, backslashes: bool) -> None:
        self._always = backslashes
        self.quote = ""
        """The quote that is open, ``--`` or ``/*``; empty outside of all."""
        self.pending = False
        """Whether a backslash escapes what comes next."""
        self._escapes = False
        self._last = ""

    def read(self, text: str) -> None:
        """Go on through ``text``."""
        at = 0
        while at < len(text):
            at += self._step(text, at)

    def _step(self, text: str, at: int) -> int:
        letter, two = text[at], text[at : at + 2]
        before, self._last = self._last, letter
        if self.pending:
            self.pending = False
        elif self.quote in ("--", "/*"):
            if (self.quote == "--" and letter == "\n") or (self.quote == "/*" and two == "*/"):
                self.quote = ""
                return len(two) if two == "*/" else 1
        elif self.quote:
            if letter == "\\" and self._escapes:
                self.pending = True
            elif letter == self.quote:
                self.quote = ""
        elif two in ("--", "/*"):
            self.quote = two
            return 2
        elif letter in "'\"`":
            self.quote = letter
            self._escapes = letter != "`" and (self._always or (letter == "'" and before in ("e", "E")))
        return 1

    def quoted(self, text: str, quote: Callable[[str], str]) -> str:
        """``text`` for the quotes that are open."""
        self._last = ""
        if self.quote == "'":
            found = quote(text)
            return found.replace("\\", "\\\\") if self._escapes and not self._always else found
        quote(text)  # refuses what no text may have
        if self._escapes:
            text = text.replace("\\", "\\\\")
        return text.replace(self.quote, self.quote * 2)


def fill_json(parts: Parts, write: Callable[[str], str]) -> str:
    """A JSON text with its values in place; ``write`` writes a string of JSON, with its quotes. ``NotSafe`` as above."""
    out: list[str] = []
    inside = pending = False
    for piece, value in parts:
        if isinstance(piece, Hole):
            if pending:
                raise NotSafe(f"${piece.name} stands behind a backslash")
            if inside:
                out.append(write(to_text(value))[1:-1])
            else:
                out.append("null" if value is None else bare(piece, value))
            continue
        out.append(piece)
        for letter in piece:
            if pending:
                pending = False
            elif inside and letter == "\\":
                pending = True
            elif letter == '"':
                inside = not inside
    return "".join(out)
