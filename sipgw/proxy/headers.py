"""Header edits that scripts ask for: texts that may become headers, headers to take away, lists of options to change.

All of it goes into ``run.edits`` and is seen only when the message is written; only the option lists remember what was done to
them before, so that several changes of one header add up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sipgw.script.run import Run
from sipgw.sip.grammar import TOKEN_CHARS
from sipgw.sip.headers import usual
from sipgw.sip.message import Message

_LINE = rf"[{TOKEN_CHARS}]+[ \t]*:[^\r\n\0]*+(?:\r\n[ \t][^\r\n\0]*+)*+"
_headers = re.compile(rf"{_LINE}(?:\r\n{_LINE})*(?:\r\n)?").fullmatch
_quick_header = re.compile(r"[A-Za-z0-9\-]+: [^\r\n\0]*(?:\r\n)?").fullmatch
_option = re.compile(r"[^\s,]+").finditer

PROTECTED = frozenset({"via"})
"""Headers that a script cannot take away: a message without its Vias cannot be answered. OpenSIPS leaves them too."""


def is_header_text(text: str) -> bool:
    """Whether ``text`` is one or more whole header lines (the last CRLF may be missing), so that the head stays whole."""
    return _quick_header(text) is not None or _headers(text) is not None


def header_text(run: Run, what: str, text: str) -> str:
    """``text`` if it can be put into a head, else "" with an error in the log."""
    if _quick_header(text) is None and _headers(text) is None:
        if text:
            run.user.log_rarely(("header", what), -1, f"{what}: refused, {text!r} is no header line")
        return ""
    return text


def written_name(message: Message, line: int) -> str:
    """The name of the header in ``lines[line]`` as it was written."""
    return message.lines[line].partition(":")[0].rstrip(" \t\r\n")


def delete_named(run: Run, name: str) -> bool:
    """Take away every header of that canonical name, however it was spelled; False if there is none."""
    names = run.message.names
    if name not in names:
        return False
    if name in PROTECTED:
        run.user.log_rarely(("protected", name), -1, f"remove_hf: {usual(name)} headers stay: the message needs them")
        return False
    edits = run.edits
    for line, known in enumerate(names):
        if known == name:
            edits = edits.delete(line)
    run.edits = edits
    return True


def delete_matching(run: Run, matches: Callable[[str], bool]) -> bool:
    """Take away every header whose name, as written or as RFCs spell it, ``matches``; False if none does."""
    edits = run.edits
    for line in matching(run.message, matches):
        if run.message.names[line] not in PROTECTED:
            edits = edits.delete(line)
    found = edits is not run.edits
    run.edits = edits
    return found


def matching(message: Message, matches: Callable[[str], bool]) -> Iterable[int]:
    """The lines of the headers whose name, as written or as RFCs spell it, ``matches``."""
    for line in range(1, len(message.lines)):
        name = written_name(message, line)
        if matches(name) or matches(usual(name)):
            yield line


def glob(pattern: str) -> Callable[[str], bool]:
    """A test for shell patterns (``*``, ``?``, ``[...]``) on header names, which have no case."""
    lowered = pattern.lower()
    return lambda name: fnmatchcase(name.lower(), lowered)


@dataclass(frozen=True, slots=True)
class _Changed:
    """A note: what the option list in ``lines[line]`` has become, name included; None when it is gone."""

    line: int
    text: str | None


def has_option(message: Message, name: str, option: str) -> bool:
    """Whether one of the headers ``name`` lists ``option``."""
    option = option.lower()
    return any(found[0].lower() == option for value in message.headers(name) for found in _option(value))


def add_option(run: Run, name: str, option: str) -> bool:
    """Put ``option`` at the end of the first list of that header which is still there; False if none is."""
    for line in run.message.positions(name):
        text = _now(run, line)
        if text is not None:
            kept = text.rstrip(" \t\r\n")
            comma = "" if kept.endswith((",", ":")) else ","
            _change(run, line, f"{kept}{comma}{option}")
            return True
    return False


def remove_option(run: Run, name: str, option: str) -> bool:
    """Take ``option`` out of each list of that header, the last one where it stands twice; a list left empty goes whole."""
    option = option.lower()
    removed = False
    for line in run.message.positions(name):
        text = _now(run, line)
        if text is None:
            continue
        start = text.index(":") + 1
        found = [match.span() for match in _option(text, start)]
        at = next((i for i in reversed(range(len(found))) if text[slice(*found[i])].lower() == option), None)
        if at is None:
            continue
        removed = True
        if len(found) == 1:
            _change(run, line, None)
        elif at == len(found) - 1:
            _change(run, line, text[: found[at - 1][1]])
        else:
            _change(run, line, text[: found[at][0]] + text[found[at + 1][0] :])
    return removed


def _now(run: Run, line: int) -> str | None:
    for note in reversed(run.edits.notes(_Changed)):
        if note.line == line:
            return note.text
    return run.message.lines[line]


def _change(run: Run, line: int, text: str | None) -> None:
    edits = run.edits.note(_Changed(line, text))
    run.edits = edits.delete(line) if text is None else edits.replace(line, text)
