"""A reader of tokens that notes what is wrong and knows how to go on.

A fault is noted at once and then leaves the construct as the exception `Lost`; whoever repeats something
(statements, definitions) catches it and looks for a place to resume. So one reading finds all faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from sipgw.script.errors import ScriptError, ScriptWarning
from sipgw.script.formats import parse_format, parse_variable
from sipgw.script.lexer import Tokens, tokenize
from sipgw.script.nodes import Format, Int, Pos, Str, Variable
from sipgw.script.preprocess import Source

MAX_NESTING = 100
"""How deep parentheses and blocks may stand inside each other."""

NAMES = {"NUM": "a number", "STR": "a string", "VAR": "a variable", "ID": "a name", "IP": "an address"}

TOP_WORDS = frozenset(
    "failure_route onreply_route branch_route error_route local_route startup_route timer_route event_route "
    "loadmodule modparam".split()
)
"""Words that stand only outside of routes (``route`` itself is also a statement)."""


class Lost(Exception):
    """The construct that was being read cannot be made sense of; the fault is noted already."""


class Cursor:
    """The place reached in a list of tokens. ``kind`` and ``value`` are those of the token there."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens: Tokens = tokenize(source)
        self.errors: list[ScriptError] = self.tokens.errors
        self.warnings: list[ScriptWarning] = self.tokens.warnings
        self.at = 0
        self.nesting = 0
        self.kind: str = self.tokens.kinds[0]
        self.value: Any = self.tokens.values[0]

    @contextmanager
    def nested(self) -> Iterator[None]:
        """Read something that may contain itself."""
        if self.nesting >= MAX_NESTING:
            self.fail(f"parentheses or blocks inside each other, more than {MAX_NESTING} deep")
        self.nesting += 1
        try:
            yield
        finally:
            self.nesting -= 1

    # ---- moving ----

    def seek(self, at: int) -> None:
        """Go to the token of that number."""
        self.at = at
        self.kind = self.tokens.kinds[at]
        self.value = self.tokens.values[at]

    def advance(self) -> None:
        """Go to the next token; EOF is never passed."""
        if self.kind != "EOF":
            self.at = at = self.at + 1
            self.kind = self.tokens.kinds[at]
            self.value = self.tokens.values[at]

    def following(self) -> str:
        """Tell the kind of the token after this one."""
        return self.tokens.kinds[self.at + 1] if self.kind != "EOF" else "EOF"

    def accept(self, kind: str) -> bool:
        """Pass a token if it is of that kind."""
        if self.kind != kind:
            return False
        self.advance()
        return True

    def word(self, *words: str) -> bool:
        """Pass a name if it is one of these."""
        if self.kind == "ID" and self.value in words:
            self.advance()
            return True
        return False

    def expect(self, kind: str, what: str = "") -> Any:
        """Pass a token that must be of that kind, and return its value."""
        if self.kind != kind:
            self.expected(what or NAMES.get(kind, f"`{kind}`"))
        value = self.value
        self.advance()
        return value

    # ---- places ----

    @property
    def offset(self) -> int:
        """The offset of the token."""
        return self.tokens.starts[self.at]

    def pos(self) -> Pos:
        """The place of the token."""
        return self.source.pos(self.tokens.starts[self.at])

    def shown(self, at: int | None = None) -> str:
        """The token as it is written, short enough for a message."""
        at = self.at if at is None else at
        if self.tokens.kinds[at] == "EOF":
            return "the end of the file"
        text = " ".join(self.tokens.text(at).split())
        return f"`{text if len(text) <= 40 else text[:37] + '...'}`"

    def on_new_line(self) -> bool:
        """Tell whether this token stands on a later line than the one before it."""
        tokens = self.tokens
        return self.at > 0 and "\n" in self.source.text[tokens.ends[self.at - 1] : tokens.starts[self.at]]

    # ---- faults ----

    def error(self, text: str, hint: str = "", offset: int | None = None) -> None:
        """Note an error, at this token unless told otherwise."""
        self.tokens.error(self.offset if offset is None else offset, text, hint)

    def fail(self, text: str, hint: str = "", offset: int | None = None) -> NoReturn:
        """Note an error and give the construct up."""
        self.error(text, hint, offset)
        raise Lost

    def expected(self, what: str, hint: str = "") -> NoReturn:
        """Note that something else was expected, and give the construct up."""
        self.fail(f"{what} was expected, not {self.shown()}", hint or self.suspect_string())

    def suspect_string(self) -> str:
        """Guess that a quote is missing when one of the last tokens is a string over several lines."""
        for at in range(max(self.at - 3, 0), self.at + 1):
            if self.tokens.kinds[at] == "STR" and "\n" in self.tokens.text(at):
                line = self.source.pos(self.tokens.starts[at]).line
                return f"the string opened in line {line} goes over several lines: is a quote missing there?"
        return ""

    def end_statement(self) -> None:
        """Pass the `;` of a statement; if it is missing, note that and go on as if it were there."""
        if self.kind == ";":
            self.advance()
            return
        before = self.shown(self.at - 1)
        hint = self.suspect_string()
        if self.kind in ("}", "EOF") or self.on_new_line() or self.kind == "ID":
            self.error(f"`;` is missing after {before}", hint, self.tokens.ends[self.at - 1])
            return
        self.fail(f"`;` was expected after {before}, not {self.shown()}", hint or self.guess_operator())

    def guess_operator(self) -> str:
        """Guess what an operator that has no place here was meant to do."""
        previous = self.tokens.kinds[self.at - 1]
        if self.kind == "[" and previous == "VAR":
            return f"an index stands inside parentheses: $({self.tokens.text(self.at - 1)[1:]}[...])"
        if self.kind == "{" and previous == "VAR":
            name = self.tokens.text(self.at - 1)[1:]
            return f"a transformation stands inside parentheses: $({name}{{...}})"
        if self.kind == "." and previous in ("STR", "VAR"):
            return "strings are joined with `+`"
        if self.kind == "STR" and previous == "STR":
            return "only xlog and modparam join strings that stand side by side; elsewhere write `+`"
        if self.kind == "IP" and self.source.text[self.offset] == "[":
            return "an index stands inside parentheses"
        if self.kind in ("&&", "||"):
            return "a value is arithmetic; `&&` and `||` stand only in conditions"
        if self.kind in ("==", "!=", "<", ">", "<=", ">=", "=~", "!~"):
            return "the left side of a comparison is one variable; compute into a $var first"
        return ""

    def skip_statement(self) -> None:
        """Go past the rest of a statement that made no sense: its `;`, or a block it opens, or before a
        `}`."""
        depth = 0
        while self.kind != "EOF":
            if self.kind == "ID" and self.opens_route() and (depth == 0 or self.pos().column == 1):
                return
            if self.kind == "{":
                depth += 1
            elif self.kind == "}":
                if depth == 0:
                    return
                depth -= 1
                if depth == 0:
                    self.advance()
                    return
            elif depth == 0 and self.kind == ";":
                self.advance()
                return
            self.advance()

    def skip_parentheses(self, start: int) -> None:
        """Go past the `)` that closes the `(` of token ``start``, or stay before a `{`, `;` or `}`."""
        self.seek(start)
        depth = 0
        while self.kind not in ("EOF", "{", ";", "}"):
            if self.kind == "(":
                depth += 1
            elif self.kind == ")":
                depth -= 1
                if depth == 0:
                    self.advance()
                    return
            self.advance()

    def opens_route(self) -> bool:
        """Tell whether a route block (or a definition that stands only at the top) begins here."""
        if self.kind != "ID":
            return False
        if self.value == "route":
            return self.following() in ("{", "[")
        return self.value in TOP_WORDS

    # ---- small things that many constructs share ----

    def variable(self) -> Variable:
        """Read a variable."""
        if self.kind != "VAR":
            self.expected("a variable")
        try:
            variable = parse_variable(self.value, self.pos())
        except ScriptError as error:
            self.errors.append(error)
            raise Lost from None
        self.advance()
        return variable

    def string(self) -> Str:
        """Read one quoted string."""
        if self.kind != "STR":
            self.expected("a string")
        string = Str(self.value, pos=self.pos())
        self.advance()
        return string

    def strings(self) -> Str:
        """Read a string that may come in several pieces side by side."""
        string = self.string()
        if self.kind != "STR":
            return string
        pieces = [string.value]
        while self.kind == "STR":
            pieces.append(self.value)
            self.advance()
        return Str("".join(pieces), pos=string.pos)

    def integer(self) -> Int:
        """Read a number with an optional sign."""
        pos = self.pos()
        sign = -1 if self.kind == "-" else 1
        if self.kind in ("+", "-"):
            self.advance()
        return Int(sign * self.expect("NUM"), pos=pos)

    def at_integer(self) -> bool:
        """Tell whether a number, or a sign and a number, comes next."""
        return self.kind == "NUM" or (self.kind in ("+", "-") and self.following() == "NUM")

    def format(self, string: Str) -> Format:
        """Find the variables in a string; a fault is noted and gives the text without variables."""
        if "$" not in string.value:
            return Format((string.value,) if string.value else (), pos=string.pos)
        try:
            return parse_format(string.value, inside(string.pos))
        except ScriptError as error:
            self.errors.append(error)
            return Format((string.value,), pos=string.pos)


def inside(pos: Pos) -> Pos:
    """The place of the first character of a string whose opening quote is at ``pos``."""
    return Pos(pos.file, pos.line, pos.column + 1)
