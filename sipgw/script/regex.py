r"""Regular expressions as a script writes them: POSIX extended, leftmost-longest, in the C locale, case ignored.

OpenSIPS hands its patterns to glibc's ``regcomp``. Here a pattern is read once (``_Reader``), checked by glibc's rules (``+`` at
the beginning is an error, ``[\d]`` holds a backslash, ``\d`` is no digit) and rewritten for an engine:

- RE2 searches by default: linear in the text whatever the pattern, and its longest-match mode gives POSIX's match. Text goes in
  as bytes, since the C locale counts bytes.
- Python's ``re`` takes the patterns that it can only search in linear time too (anchored, one repetition; ``_Shape.linear``),
  when text and pattern are ASCII and nobody asks where the match ends: 0.2 us instead of 0.7, and these are most of the
  patterns of a real script.
- What RE2 cannot do (back-references, more than 1000 repetitions) goes to ``re`` within bounds: at most two open-ended
  repetitions, none inside another, texts of up to ``FALLBACK_TEXT`` bytes. Beyond them a pattern is refused when it is compiled,
  and a text does not match.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2  # type: ignore[import-untyped]

FALLBACK_TEXT: Final = 200
"""The longest text, in bytes, on which a pattern with back-references is tried."""
MAX_DEPTH: Final = 100
"""How deep parentheses may nest."""
END: Final = "\0"
"""Stands for the end of the text until the engine is known (``\\z`` of RE2, ``\\Z`` of re)."""

CLASSES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t-\\r ",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
ESCAPES: Final = {
    "w": "[0-9A-Za-z_]",
    "W": "[^0-9A-Za-z_]",
    "s": "[\\t-\\r ]",
    "S": "[^\\t-\\r ]",
    "b": "\\b",
    "B": "\\B",
    "<": "\\b",
    ">": "\\b",
    "`": "\\A",
    "'": END,
}
"""What glibc knows after a backslash, beside punctuation and back-references."""


class BadPattern(ValueError):
    """A pattern that cannot be compiled; the text says why."""


@dataclass(slots=True)
class _Shape:
    """What a piece of a pattern costs to search by backtracking."""

    anchored: bool = False
    single: bool = False
    """It matches exactly one character."""
    choices: int = 0
    """Repetitions whose number is open, and alternatives."""
    unbounded: int = 0
    nested: bool = False
    """A repetition repeats something that is itself a choice."""
    wide: bool = False
    """Something unbounded repeats more than one character."""
    references: bool = False

    def join(self, other: _Shape) -> None:
        """Add the cost of a neighbour."""
        self.choices += other.choices
        self.unbounded += other.unbounded
        self.nested |= other.nested
        self.wide |= other.wide
        self.references |= other.references

    @property
    def linear(self) -> bool:
        """Whether backtracking can only take time linear in the text."""
        if self.nested or self.wide or self.references or self.choices > 6:
            return False
        return self.unbounded == 0 or (self.unbounded == 1 and self.anchored)


class _Reader:
    """Reads a pattern, by glibc's grammar, into the syntax that RE2 and re share."""

    def __init__(self, pattern: str, ignore_case: bool, newline: bool) -> None:
        self.text = pattern.encode("utf-8", "surrogateescape").decode("latin-1")
        self.at = 0
        self.ignore_case = ignore_case
        self.newline = newline
        self.groups = 0
        self.open: list[int] = []

    def read(self) -> tuple[str, _Shape]:
        """The whole pattern."""
        body, shape = self._alternatives()
        return body, shape

    def _alternatives(self) -> tuple[str, _Shape]:
        body, shape = self._branch()
        if self._peek() != "|":
            return body, shape
        branches = [body]
        shape.single = False
        while self._peek() == "|":
            self.at += 1
            body, other = self._branch()
            branches.append(body)
            shape.anchored &= other.anchored
            shape.join(other)
        shape.choices += 1
        return "|".join(branches), shape

    def _branch(self) -> tuple[str, _Shape]:
        pieces: list[str] = []
        shape = _Shape()
        while self.at < len(self.text) and self._peek() != "|" and not (self._peek() == ")" and self.open):
            body, piece = self._piece(first=not pieces)
            if not pieces:
                shape.anchored = piece.anchored
            pieces.append(body)
            shape.join(piece)
            shape.single = piece.single and len(pieces) == 1
        return "".join(pieces), shape

    def _piece(self, first: bool) -> tuple[str, _Shape]:
        """One atom and the repetitions behind it."""
        if self._peek() in "*+?{" and self.text[self.at] != "\\":
            raise BadPattern(f"nothing to repeat before {self._peek()!r} in {self.text!r}")
        body, shape = self._atom()
        anchor = body in ("^", "$", END, "\\A", "\\b", "\\B")
        repeated = False
        while self._peek() and self._peek() in "*+?{":
            if anchor:
                raise BadPattern(f"nothing to repeat after an anchor in {self.text!r}")
            low, high, written = self._bounds()
            if repeated:
                body = f"(?:{body})"
            if low != high:
                shape.nested |= repeated or shape.choices > 0
                shape.choices += 1
                if high is None:
                    shape.wide |= not shape.single
                    shape.unbounded += 1
            elif shape.choices:
                shape.nested = True
            shape.anchored = shape.anchored and low > 0
            shape.single = False
            body += written
            repeated = True
        return body, shape

    def _bounds(self) -> tuple[int, int | None, str]:
        """One repetition: how often at least, at most (None: no end), and how it is written."""
        char = self._next()
        if char != "{":
            return {"*": (0, None, "*"), "+": (1, None, "+"), "?": (0, 1, "?")}[char]
        found = re.compile(r"(\d{0,5})(,?)(\d{0,5})\}").match(self.text, self.at)
        if found is None or not (found[1] or found[2]):
            raise BadPattern(f"a bad repetition in braces in {self.text!r}")
        self.at = found.end()
        low = int(found[1] or 0)
        high = (int(found[3]) if found[3] else None) if found[2] else low
        if high is not None and (high < low or high > 0x7FFF):
            raise BadPattern(f"a bad repetition in braces in {self.text!r}")
        return low, high, f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"

    def _atom(self) -> tuple[str, _Shape]:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._bracket(), _Shape(single=True)
        if char == "\\":
            return self._escape()
        if char == "^":
            return "^", _Shape(anchored=not self.newline)
        if char == "$":
            return ("$" if self.newline else END), _Shape()
        if char == ".":
            return ("[^\\n]" if self.newline else "."), _Shape(single=True)
        return _literal(char), _Shape(single=True)

    def _group(self) -> tuple[str, _Shape]:
        if len(self.open) >= MAX_DEPTH:
            raise BadPattern("too many parentheses inside each other")
        self.groups += 1
        self.open.append(self.groups)
        body, shape = self._alternatives()
        if self._peek() != ")":
            raise BadPattern(f"a parenthesis is not closed in {self.text!r}")
        self.at += 1
        self.open.pop()
        return f"({body})", shape

    def _escape(self) -> tuple[str, _Shape]:
        if self.at >= len(self.text):
            raise BadPattern(f"a backslash ends {self.text!r}")
        char = self._next()
        if char in "123456789":
            if int(char) > self.groups or int(char) in self.open:
                raise BadPattern(f"\\{char} refers to no group in {self.text!r}")
            return f"(?:\\{char})", _Shape(references=True)
        if char in ESCAPES:
            return ESCAPES[char], _Shape(single=char in "wWsS", wide=char == "B")
        if char.islower() and self.ignore_case:
            # COMPAT: glibc folds the text to capitals and compares an escaped letter as it stands, so it never matches.
            return f"(?:{END}.)", _Shape(single=True)
        return _literal(char), _Shape(single=True)

    def _bracket(self) -> str:
        inverted = self._peek() == "^"
        self.at += inverted
        items: list[str] = []
        begin = self.at
        while self.at == begin or self._peek() != "]":
            if self.at >= len(self.text):
                raise BadPattern(f"a bracket is not closed in {self.text!r}")
            if self.text.startswith("[:", self.at):
                name = self._until(":]")
                if name not in CLASSES:
                    raise BadPattern(f"there is no character class [:{name}:]")
                items.append(CLASSES[name])
                continue
            low = self._element()
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self._element()
                if high < low:
                    raise BadPattern(f"the range {low}-{high} runs backwards")
                items.append(f"{_member(low)}-{_member(high)}")
            else:
                items.append(_member(low))
        self.at += 1
        if inverted and self.newline:
            items.append("\\n")
        return f"[{'^' if inverted else ''}{''.join(items)}]"

    def _element(self) -> str:
        """One character inside brackets, ``[.x.]`` and ``[=x=]`` too."""
        for mark in ".=":
            if self.text.startswith("[" + mark, self.at):
                name = self._until(mark + "]")
                if len(name) != 1:
                    raise BadPattern(f"there is no collating element {name!r}")
                return name
        return self._next()

    def _until(self, mark: str) -> str:
        end = self.text.find(mark, self.at + 2)
        if end < 0:
            raise BadPattern(f"a bracket is not closed in {self.text!r}")
        name = self.text[self.at + 2 : end]
        self.at = end + 2
        return name

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        self.at += 1
        return self.text[self.at - 1]


def _literal(char: str) -> str:
    if char.isalnum() and char.isascii():
        return char
    return f"\\{char}" if "!" <= char <= "~" else f"\\x{ord(char):02x}"


def _member(char: str) -> str:
    """A character inside brackets."""
    return f"\\{char}" if char in "\\]^-[" else f"\\x{ord(char):02x}" if not " " <= char <= "~" else char


class Match:
    """Where a pattern was found: spans in bytes of the text, as POSIX gives them."""

    __slots__ = ("_data", "_spans")

    def __init__(self, data: bytes, spans: tuple[tuple[int, int], ...]) -> None:
        self._data = data
        self._spans = spans

    def start(self, group: int = 0) -> int:
        """The byte where a group begins; -1 when it took no part."""
        return self._spans[group][0]

    def end(self, group: int = 0) -> int:
        """The byte behind a group; -1 when it took no part."""
        return self._spans[group][1]

    def group(self, group: int = 0) -> str | None:
        """The text of a group; None when it took no part or there is none."""
        if group >= len(self._spans) or self._spans[group][0] < 0:
            return None
        begin, end = self._spans[group]
        return self._data[begin:end].decode("utf-8", "surrogateescape")


class Regex:
    """One compiled pattern."""

    __slots__ = ("_engine", "_quick", "_set", "groups", "pattern")

    def __init__(self, pattern: str, ignore_case: bool = True, newline: bool = False) -> None:
        self.pattern = pattern
        reader = _Reader(pattern, ignore_case, newline)
        body, shape = reader.read()
        self.groups = reader.groups
        flags = (re.IGNORECASE if ignore_case else 0) | re.DOTALL | (re.MULTILINE if newline else 0)
        self._set: Any = None
        self._quick: Callable[[str], Any] | None = None
        self._engine: Any = None
        if not shape.references:
            self._search_by_re2(body, ignore_case, newline)
        if self._engine is None:
            if shape.unbounded > 2 or shape.nested:
                raise BadPattern(f"too much to try in {pattern!r}: RE2 cannot search it, and backtracking would take too long")
            self._engine = re.compile(body.replace(END, r"\Z").encode("latin-1"), flags)
        elif shape.linear and body.isascii():
            self._quick = re.compile(body.replace(END, r"\Z"), flags | re.ASCII).search

    def _search_by_re2(self, body: str, ignore_case: bool, newline: bool) -> None:
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.longest_match = True
        options.case_sensitive = not ignore_case
        options.dot_nl = True
        options.log_errors = False
        data = (("(?m)" if newline else "") + body.replace(END, r"\z")).encode("latin-1")
        try:
            self._engine = re2.compile(data, options)
        except re2.error:
            return
        self._set = re2.Set.SearchSet(options)
        self._set.Add(data)
        self._set.Compile()

    def search(self, text: str, begin: int = 0) -> Match | None:
        """Find the leftmost match, of these the longest; from byte ``begin`` on, where ``^`` does not match unless it is 0."""
        data = text.encode("utf-8", "surrogateescape")
        return self.search_bytes(data, begin)

    def search_bytes(self, data: bytes, begin: int = 0) -> Match | None:
        """The same in bytes."""
        if self._set is None and len(data) > FALLBACK_TEXT:
            return None
        found = self._engine.search(data, begin)
        if found is None:
            return None
        return Match(data, tuple(found.span(group) for group in range(self.groups + 1)))

    def matches(self, value: int | str | None) -> bool:
        """Whether the text of a value matches somewhere; null matches nothing."""
        if value is None:
            return False
        text = value if isinstance(value, str) else str(value)
        if self._quick is not None and text.isascii():
            return self._quick(text) is not None
        data = text.encode("utf-8", "surrogateescape")
        if self._set is None:
            return len(data) <= FALLBACK_TEXT and self._engine.search(data) is not None
        return bool(self._set.Match(data))


@lru_cache(maxsize=512)
def compile_regex(pattern: str, ignore_case: bool = True, newline: bool = False) -> Regex:
    """The compiled form of ``pattern`` (``BadPattern`` if it has none); the last ones used are kept.

    ``newline``: glibc's REG_NEWLINE, ``^`` and ``$`` match at every line and ``.`` does not cross it."""
    return Regex(pattern, ignore_case, newline)
