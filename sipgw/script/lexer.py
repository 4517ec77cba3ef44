"""The words of the language: one compiled expression finds most of them, three short scans the rest.

What a regular expression cannot match is scanned by hand: nested comments, and variables, whose
parentheses nest (``$(hdr(X)[$var(i)]{s.select,0,$(var(a){s.len})})``). A variable keeps its text;
`formats.parse_variable` takes it apart. Words decide less than in OpenSIPS: only the numbers (yes, on),
NULL and the operators (and, or, not) are set apart here, all other keywords are names until the parser
looks at them.

Kinds of token: ID NUM STR VAR IP NET NULL BAD EOF, and each operator is its own kind.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from sipgw.script.errors import ScriptError, ScriptWarning
from sipgw.script.preprocess import Source

WORDS: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("yes", "true", "on", "enable"), ("NUM", 1)),
    **dict.fromkeys(("no", "false", "off", "disable"), ("NUM", 0)),
    **dict.fromkeys(("null", "NULL"), ("NULL", None)),
    "and": ("&&", "and"),
    "or": ("||", "or"),
    "not": ("!", "not"),
}

_H = "[0-9A-Fa-f]{1,4}"
_IP4 = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
_IP6 = rf"(?:(?:{_H}:){{7}}{_H}|(?:{_H}(?::{_H})*)?::(?:{_H}(?::{_H})*)?)"

TOKEN = re.compile(
    rf"""(?:[ \t\r\n\f\v]++|\#[^\n]*+)*+
    (?:(?P<VAR>\$(?:[\w.]*+\([^()$]*+\)|[\w.]++(?![({{[])))
    |(?P<DOLLAR>\$)
    |(?P<ID>[A-Za-z_]\w*+(?!:))
    |(?P<STR>"[^"\\]*+(?:\\.[^"\\]*+)*+"|'[^']*+')
    |(?P<NET>(?:{_IP4}/(?:{_IP4}|\d+)|(?<![\w.:]){_IP6}/(?:{_IP6}|\d+))(?![\w.]))
    |(?P<IP>(?:{_IP4}|(?<![\w.:]){_IP6}|\[{_IP6}\])(?<![.])(?![\w.]))
    |(?P<NUM>(?:0[xX][0-9A-Fa-f]+|\d+)(?![\w.]))
    |(?P<WORD>[A-Za-z_]\w*+)
    |(?P<COMMENT>/\*|//)
    |(?P<OP>:=|[=!][=~]|<[=<]|>[=>]|&&|\|\||[-+*/%&|^]=|[-+*/%&|^~!<>=(){{}}\[\];,:.])
    |(?P<BAD>\d[\w.]*)
    |(?P<OPEN>["'])
    |(?P<STRAY>.)
    |(?P<EOF>\Z))""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)

NAME = re.compile(r"[\w.]*", re.ASCII)
ESCAPE = re.compile(r"\\(?:\r?\n|x[0-9A-Fa-f]{1,2}|[0-7]{2,3}|[nrat\"\\])")
SIMPLE = {"n": "\n", "r": "\r", "a": "\a", "t": "\t", '"': '"', "\\": "\\"}
COMMENT_EDGE = re.compile(r"/\*|\*/")
PARENTHESIS = re.compile(r"[()]")
USELESS = re.compile(r"\{[\w.]+[^{}\n]*\}")
"""A transformation outside of ``$(...)``: OpenSIPS reads it and drops it."""


@dataclass(slots=True)
class Tokens:
    """The tokens of a source, in parallel lists: kind, value, offset of the first character and past the
    last."""

    source: Source
    kinds: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    errors: list[ScriptError] = field(default_factory=list)
    warnings: list[ScriptWarning] = field(default_factory=list)

    def text(self, index: int) -> str:
        """The token as it is written."""
        return self.source.text[self.starts[index] : self.ends[index]]

    def error(self, offset: int, text: str, hint: str = "") -> None:
        """Note an error at an offset; one for each place is enough."""
        pos = self.source.pos(offset)
        if not any(e.line == pos.line and e.column == pos.column and e.file == pos.file for e in self.errors):
            self.errors.append(ScriptError(*pos, text, hint))

    def warn(self, offset: int, text: str, hint: str = "") -> None:
        """Note a warning at an offset."""
        self.warnings.append(ScriptWarning(*self.source.pos(offset), text, hint))


def number(text: str) -> int:
    """Read a number as C's strtol into an int does: 0x hex, 0 octal, clamped to 64 bits, cut to 32."""
    lowered = text.lower()
    if lowered.startswith("0x"):
        value = int(lowered, 16)
    elif len(text) > 1 and text[0] == "0":
        value = int(text, 8)
    else:
        value = int(text)
    return wrap(min(value, 2**63 - 1))


def wrap(value: int) -> int:
    """Cut an integer to a C int of 32 bits."""
    return (value + 2**31) % 2**32 - 2**31


def unescape(text: str) -> str:
    r"""Resolve the escapes of a "..." string: \n \r \a \t \" \\ \xH[H] \NN[N], and a line that goes on
    after \.

    Any other backslash stays. Hexadecimal and octal numbers are bytes: two of them may make one UTF-8
    letter."""
    if "\\" not in text:
        return text

    def resolve(match: re.Match[str]) -> str:
        escape = match[0][1:]
        if escape[0] in "\r\n":
            return ""
        if escape in SIMPLE:
            return SIMPLE[escape]
        byte = int(escape[1:], 16) if escape[0] == "x" else int(escape, 8) & 0xFF
        return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)

    resolved = ESCAPE.sub(resolve, text)
    if any("\udc80" <= letter <= "\udcff" for letter in resolved):
        return resolved.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    return resolved


def closing(text: str, start: int) -> int:
    """Find the end of the parentheses that open at ``start``: the offset past the last, or -1."""
    depth = 0
    for match in PARENTHESIS.finditer(text, start):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.end()
    return -1


def tokenize(source: Source) -> Tokens:
    """Cut a source into tokens. Faults are noted in the result, not raised; the last token is EOF."""
    tokens = Tokens(source)
    text, match_at = source.text, TOKEN.match
    kinds, values, starts, ends = tokens.kinds, tokens.values, tokens.starts, tokens.ends
    at, stray = 0, -1
    while True:
        match = match_at(text, at)
        assert match is not None
        kind = match.lastgroup
        assert kind is not None
        start, at = match.span(kind)
        value: Any = match[kind]
        if kind == "OP":
            kind = value
        elif kind == "ID" or kind == "WORD":
            kind, value = WORDS.get(value, ("ID", value))
        elif kind == "STR":
            value = unescape(value[1:-1]) if value[0] == '"' else value[1:-1]
        elif kind == "NUM":
            kind, value = _number(tokens, value, start)
        elif kind == "IP" and value[0] == "[":
            value = value[1:-1]
        elif kind == "DOLLAR":
            kind = "VAR"
            end, at = _variable_end(tokens, start)
            value = text[start:end]
        elif kind == "COMMENT":
            at = _comment_end(tokens, start)
            continue
        elif kind == "OPEN":
            at = _line_end(text, start)
            tokens.error(start, "this string has no end", f"close it with {value}")
            kind, value = "STR", text[start + 1 : at]
        elif kind == "STRAY":
            if start != stray:  # one remark for a run of them
                tokens.warn(start, f"the character {value!r} means nothing here and is skipped")
            stray = at
            continue
        kinds.append(kind)
        values.append(value)
        starts.append(start)
        ends.append(at)
        if kind == "EOF":
            return tokens


def _number(tokens: Tokens, text: str, start: int) -> tuple[str, Any]:
    try:
        return "NUM", number(text)
    except ValueError:
        tokens.error(start, f"{text} is no octal number", "a number that begins with 0 is octal")
        return "NUM", int(text)


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return end if end >= 0 else len(text)


def _comment_end(tokens: Tokens, start: int) -> int:
    text = tokens.source.text
    if text.startswith("//", start):
        tokens.error(start, "`//` opens no comment", "write `#` for a comment to the end of the line")
        return _line_end(text, start)
    depth = 0
    for match in COMMENT_EDGE.finditer(text, start):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    tokens.error(start, "this comment has no end", "comments nest: each `/*` needs its `*/`")
    return len(text)


def _variable_end(tokens: Tokens, start: int) -> tuple[int, int]:
    """Find where the variable at ``start`` ends, one that the simple expression could not match.

    Returns the end of what counts and the end of what is written: they differ in ``$ru{uri.user}``."""
    text = tokens.source.text
    if text.startswith("$$", start):
        return start + 2, start + 2
    match = NAME.match(text, start + 1)
    assert match is not None
    end = match.end()
    if text.startswith("(", end):
        closed = closing(text, end)
        if closed < 0:
            tokens.error(start, "this variable has no end", "a `)` is missing")
            closed = _line_end(text, start)
            return closed, closed
        return closed, closed
    brace = USELESS.match(text, end) if end > start + 1 else None
    if brace:
        name = text[start + 1 : end]
        tokens.warn(start, f"{brace[0]} is ignored after ${name}", f"write $({name}{brace[0]})")
        return end, brace.end()
    return end, end
