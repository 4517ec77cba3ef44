"""Variables, and texts with variables in them.

The lexer, module functions, modparams and the transformation {s.eval} all come here, so that a variable
is written in the same way everywhere. Positions count from the place given, as if the text stood there
in the file.
"""

from __future__ import annotations

import re

from sipgw.script.dialect import VARIABLES
from sipgw.script.errors import ScriptError
from sipgw.script.lexer import closing
from sipgw.script.nodes import NOWHERE, Format, Pos, Transformation, Variable

NAME = re.compile(r"[\w.]+", re.ASCII)
INDEX = re.compile(r"-?(?:0|[1-9]\d*)")
BLANKS = re.compile(r"[ \t\r\n]*")
BRACES = re.compile(r"[{}]")
BRACKETS = re.compile(r"[][]")
SUBSTITUTIONS = ("re.subst", "pcre.subst")
"""These take one argument, and commas in it mean nothing."""


def parse_variable(text: str, pos: Pos = NOWHERE) -> Variable:
    """Take a variable apart; ``text`` begins with the dollar and ends with the variable. Raises
    ScriptError."""
    variable, end = _outermost(text, 0, pos)
    if end != len(text):
        raise _error(text, end, pos, f"{text[end:]!r} does not belong to the variable {text[:end]}")
    return variable


def parse_format(text: str, pos: Pos = NOWHERE) -> Format:
    """Find the variables in a text. Raises ScriptError.

    ``$$`` is a dollar. A dollar before a blank or at the end stands for itself (OpenSIPS refuses such a
    text)."""
    if "$" not in text:
        return Format((text,) if text else (), pos=pos)
    pieces: list[str | Variable] = []
    literal: list[str] = []
    at = 0
    while True:
        dollar = text.find("$", at)
        if dollar < 0:
            literal.append(text[at:])
            break
        literal.append(text[at:dollar])
        following = text[dollar + 1 : dollar + 2]
        if following == "$" or not following.strip():
            literal.append("$")
            at = dollar + (2 if following == "$" else 1)
            continue
        variable, at = _outermost(text, dollar, pos)
        if joined := "".join(literal):
            pieces.append(joined)
        literal = []
        pieces.append(variable)
    if joined := "".join(literal):
        pieces.append(joined)
    return Format(tuple(pieces), pos=pos)


def place(text: str, offset: int, pos: Pos) -> Pos:
    """Tell the place of ``text[offset]`` when the text itself begins at ``pos``."""
    if pos is NOWHERE:
        return pos
    newline = text.rfind("\n", 0, offset)
    if newline < 0:
        return Pos(pos.file, pos.line, pos.column + offset)
    return Pos(pos.file, pos.line + text.count("\n", 0, offset), offset - newline)


def _error(text: str, offset: int, pos: Pos, problem: str, hint: str = "") -> ScriptError:
    return ScriptError(*place(text, offset, pos), problem, hint)


def _outermost(text: str, start: int, pos: Pos) -> tuple[Variable, int]:
    """Read a variable that stands in no other; refuse one that Python cannot follow into its depth."""
    try:
        return _variable(text, start, pos)
    except RecursionError:
        raise _error(text, start, pos, "variables inside each other, too deep to read") from None


def _variable(text: str, start: int, pos: Pos) -> tuple[Variable, int]:
    """Read the variable whose dollar is ``text[start]``; returns it and the offset past it."""
    here = place(text, start, pos)
    at = start + 1
    if text.startswith("(", at):
        return _enclosed(text, start, pos)
    if text.startswith("$", at):
        return Variable("$", pos=here), at + 1
    match = NAME.match(text, at)
    name = match[0].rstrip(".") if match else ""
    if not name:
        raise _error(text, start, pos, "a `$` without the name of a variable", "a dollar is written `$$`")
    at += len(name)
    subname: str | Variable | None = None
    if text.startswith("(", at):
        subname, at = _subname(text, at, pos, name)
    elif name in VARIABLES:
        return Variable(*VARIABLES[name], pos=here), at
    return Variable(name, subname, pos=here), at


def _enclosed(text: str, start: int, pos: Pos) -> tuple[Variable, int]:
    """Read ``$(<context>name(subname)[index]{transformation}...)``."""
    at, context = start + 2, None
    if text.startswith("<", at):
        end = text.find(">", at)
        if end < 0:
            raise _error(text, at, pos, "this context has no end", "write $(<request>ru)")
        context, at = text[at + 1 : end], end + 1
    match = NAME.match(text, at)
    if match is None:
        found = repr(text[at]) if at < len(text) else "the end"
        raise _error(text, at, pos, f"the name of a variable was expected, not {found}")
    name, at = match[0], match.end()
    subname: str | Variable | None = None
    if text.startswith("(", at):
        subname, at = _subname(text, at, pos, name)
    index: int | str | Variable | None = None
    if subname is None and name in VARIABLES:
        name, subname, index = VARIABLES[name]
    if text.startswith("[", at):
        index, at = _index(text, at, pos)
    transformations: list[Transformation] = []
    while True:
        blanks = BLANKS.match(text, at)
        after = blanks.end() if blanks else at
        if not text.startswith("{", after) or (after > at and not transformations):
            break
        end = _balanced(text, after, pos, BRACES, "{", "this transformation has no end", "a `}` is missing")
        transformations.append(_transformation(text[after + 1 : end - 1], place(text, after, pos)))
        at = end
    if transformations:
        at = after
    if not text.startswith(")", at):
        found = repr(text[at]) if at < len(text) else "the end"
        raise _error(text, at, pos, f"{found} inside $({name}...): a `)` was expected", _misplaced(text, at))
    variable = Variable(
        name, subname, index, context, tuple(transformations), pos=place(text, start, pos)
    )
    return variable, at + 1


def _misplaced(text: str, at: int) -> str:
    if text.startswith("[", at):
        return "the index comes once, before the transformations: $(avp(x)[0]{s.len})"
    if text[at : at + 1].isspace():
        return "no blank before the first transformation"
    return ""


def _subname(text: str, at: int, pos: Pos, name: str) -> tuple[str | Variable, int]:
    end = closing(text, at)
    if end < 0:
        raise _error(text, at, pos, f"the name in ${name}(...) has no end", "a `)` is missing")
    inner = text[at + 1 : end - 1]
    if not inner:
        raise _error(text, at, pos, f"the name in ${name}() is empty")
    found = _whole_variable(inner, place(text, at + 1, pos))
    return (inner if found is None else found), end


def _whole_variable(text: str, pos: Pos) -> Variable | None:
    """Read a variable that fills the whole text; None when the text is something else."""
    if not text.startswith("$"):
        return None
    variable, end = _variable(text, 0, pos)
    return variable if end == len(text) else None


def _index(text: str, at: int, pos: Pos) -> tuple[int | str | Variable, int]:
    end = _balanced(text, at, pos, BRACKETS, "[", "this index has no end", "a `]` is missing")
    inner = text[at + 1 : end - 1]
    if inner in ("*", "append"):
        return inner, end
    if INDEX.fullmatch(inner):
        return int(inner), end
    variable = _whole_variable(inner, place(text, at + 1, pos))
    if variable is None:
        hint = "an index is a number, `*`, `append` or a variable, without blanks"
        raise _error(text, at, pos, f"[{inner}] is no index", hint)
    return variable, end


def _balanced(
    text: str, at: int, pos: Pos, edges: re.Pattern[str], opening: str, problem: str, hint: str
) -> int:
    depth = 0
    for match in edges.finditer(text, at):
        depth += 1 if match[0] == opening else -1
        if depth == 0:
            return match.end()
    raise _error(text, at, pos, problem, hint)


def _transformation(text: str, pos: Pos) -> Transformation:
    """Read what stands between the braces, whose first is at ``pos``."""
    name, comma, rest = text.partition(",")
    kind, dot, op = name.rstrip().partition(".")
    if not dot or not kind or not op:
        raise ScriptError(*pos, f"{{{text}}} is no transformation", "write {class.operation,arguments}")
    kind, op = kind.lower(), op.lower()
    if not comma:
        return Transformation(kind, op, pos=pos)
    start = Pos(pos.file, pos.line, pos.column + 2 + len(name))
    full = f"{kind}.{op}"
    if full in SUBSTITUTIONS:
        arguments: list[str] = [rest]
    elif full == "s.select":
        index, _, separator = _split_at_comma(rest)
        arguments = [index, separator[:1]] if _ else [index]
    else:
        arguments = []
        more: str | None = rest
        while more is not None:
            argument, found, following = _split_at_comma(more)
            arguments.append(argument)
            more = following if found else None
    return Transformation(
        kind, op, tuple(_argument(a, start, full, n) for n, a in enumerate(arguments)), rest, pos=pos
    )


def _argument(text: str, pos: Pos, full: str, number: int) -> str | Variable:
    if full in SUBSTITUTIONS or (full == "s.select" and number == 1):
        return text
    stripped = text.strip(" \t\r\n")
    variable = _whole_variable(stripped, pos)
    return stripped if variable is None else variable


def _split_at_comma(text: str) -> tuple[str, str, str]:
    """Split at the first comma that no parentheses enclose."""
    depth = 0
    for at, letter in enumerate(text):
        if letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
        elif letter == "," and depth <= 0:
            return text[:at], ",", text[at + 1 :]
    return text, "", ""
