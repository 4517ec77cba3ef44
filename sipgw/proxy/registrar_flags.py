"""The flags of ``save()`` and ``lookup()`` as scripts write them: words with commas, or the letters of older releases.

``save("location", "max-contacts=5, path-lazy")`` is ``save("location", "c5p1")``. ``save_flags`` and ``lookup_flags`` read
either form and raise ``ValueError`` with what is wrong; what they return is kept, since a script writes few texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from sipgw.script.regex import Regex, compile_regex

__all__ = ["LookupFlags", "SaveFlags", "lookup_flags", "save_flags"]

MATCH_CONTACT: Final = "0"
MATCH_CALL_ID: Final = "1"


@dataclass(frozen=True, slots=True)
class SaveFlags:
    """What ``save()`` was asked to do. ``None`` leaves a bound to the module parameter of the same name."""

    no_reply: bool = False
    memory_only: bool = False
    """No database gets the contacts."""
    max_contacts: int | None = None
    force: bool = False
    """Older contacts make room for new ones."""
    match: str | None = None
    """"0": by the contact, "1": by contact and Call-ID, else the name of the URI parameter to compare."""
    path: str = ""
    """"off", "lazy", "strict", or empty: the Path header is not looked at."""
    path_received: bool = False
    only_request_contacts: bool = False
    socket_header: bool = False
    min_expires: int | None = None
    max_expires: int | None = None
    reject_too_brief: bool = False
    """Answer 423 to less than the minimum instead of granting the minimum (not in OpenSIPS)."""


@dataclass(frozen=True, slots=True)
class LookupFlags:
    """What ``lookup()`` was asked to do."""

    no_branches: bool = False
    branches_only: bool = False
    expand_branches: bool = False
    method_filtering: bool = False
    everywhere: bool = False
    """Other servers are asked too, where contacts are federated; nothing else is changed by it."""
    user_agent: Regex | None = field(default=None, compare=False)


SAVE_WORDS: Final[dict[str, tuple[str, Any]]] = {
    "memory-only": ("memory_only", True),
    "no-reply": ("no_reply", True),
    "max-contacts": ("max_contacts", int),
    "force-registration": ("force", True),
    "matching-mode": ("match", str),
    "path-off": ("path", "off"),
    "path-lazy": ("path", "lazy"),
    "path-strict": ("path", "strict"),
    "path-received": ("path_received", True),
    "only-request-contacts": ("only_request_contacts", True),
    "socket-header": ("socket_header", True),
    "min-expires": ("min_expires", int),
    "max-expires": ("max_expires", int),
    "reject-too-brief": ("reject_too_brief", True),
}
"""Each word with the field it sets and the value, or the type of what follows "="."""

SAVE_LETTERS: Final = {
    "m": "memory-only",
    "r": "no-reply",
    "c": "max-contacts",
    "f": "force-registration",
    "M": "matching-mode",
    "p0": "path-off",
    "p1": "path-lazy",
    "p2": "path-strict",
    "v": "path-received",
    "o": "only-request-contacts",
    "s": "socket-header",
    "e": "min-expires",
    "E": "max-expires",
}

LOOKUP_WORDS: Final[dict[str, tuple[str, Any]]] = {
    "no-branches": ("no_branches", True),
    "to-branches-only": ("branches_only", True),
    "branch": ("expand_branches", True),
    "method-filtering": ("method_filtering", True),
    "global": ("everywhere", True),
    "ua-filtering": ("pattern", str),
    "case-insensitive": ("ignore_case", True),
    "extended-regexp": ("extended", True),
}
LOOKUP_LETTERS: Final = {
    "b": "no-branches",
    "B": "to-branches-only",
    "r": "branch",
    "m": "method-filtering",
    "g": "global",
    "u": "ua-filtering",
    "i": "case-insensitive",
    "e": "extended-regexp",
}
LATER: Final = {
    "max-ping-latency": "pinging of contacts",
    "sort-by-latency": "pinging of contacts",
}
"""Words that OpenSIPS knows and that need what sipgw does not have yet."""

_item = re.compile(r"\s*([a-z][a-z-]*)\s*(?:=\s*(/.*/[a-z]*|[^,]*?))?\s*(?:,|\Z)").match
_letters = re.compile(r"(p[012]|[A-Za-z])(<[^<>]*>|/.*/|[0-9]+)?[\s,]*").match
_number = re.compile(r"[0-9]{1,9}").fullmatch
_match_mode = re.compile(r"[01]|<[^<>\s]+>").fullmatch


def _read(text: str, words: dict[str, tuple[str, Any]], letters: dict[str, str], what: str) -> dict[str, Any]:
    """The fields that ``text`` sets, words first, else letters."""
    try:
        return _read_words(text, words, what)
    except ValueError as error:
        try:
            return _read_letters(text, words, letters, what)
        except ValueError:
            raise error from None


def _read_words(text: str, words: dict[str, tuple[str, Any]], what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    position = 0
    while text[position:].strip(" \t,"):
        match = _item(text, position)
        if match is None:
            raise ValueError(f"{what}() cannot read the flags {text[position:]!r}")
        _set(found, words, match[1], match[2], what)
        position = match.end()
    return found


def _read_letters(text: str, words: dict[str, tuple[str, Any]], letters: dict[str, str], what: str) -> dict[str, Any]:
    """As ``_read_words``, for the letters of older releases."""
    found: dict[str, Any] = {}
    position = len(text) - len(text.lstrip())
    while position < len(text):
        match = _letters(text, position)
        if match is None or match[1] not in letters:
            raise ValueError("no letters")
        _set(found, words, letters[match[1]], match[2], what)
        position = match.end()
    return found


def _set(found: dict[str, Any], words: dict[str, tuple[str, Any]], word: str, value: str | None, what: str) -> None:
    """Note what ``word`` says."""
    if word in LATER and what == "lookup":
        raise ValueError(f"lookup() flag {word!r} needs {LATER[word]}, which comes in a later version of sipgw")
    if word not in words:
        near = get_close_matches(word, words, 1) or [known for known in words if known.startswith(word)]
        raise ValueError(f"{what}() knows no flag {word!r}" + (f", did you mean {near[0]!r}?" if near else ""))
    name, kind = words[word]
    if not isinstance(kind, type):
        if value:
            raise ValueError(f"{what}() flag {word!r} takes no value")
        found[name] = kind
    elif value is None or (kind is int and _number(value) is None):
        raise ValueError(f"{what}() flag {word!r} wants {'a number' if kind is int else 'a value'} after '='")
    else:
        found[name] = kind(value)


@lru_cache(maxsize=256)
def save_flags(text: str) -> SaveFlags:
    """Read the flags of ``save()``."""
    fields = _read(text, SAVE_WORDS, SAVE_LETTERS, "save")
    match = fields.get("match")
    if match is not None:
        if _match_mode(match) is None:
            raise ValueError(f"save() flag 'matching-mode' wants 0, 1 or <name of a URI parameter>, not {match!r}")
        fields["match"] = match.strip("<>").lower() if match[0] == "<" else match
    return replace(SaveFlags(), **fields)


@lru_cache(maxsize=256)
def lookup_flags(text: str) -> LookupFlags:
    """Read the flags of ``lookup()``."""
    fields = _read(text, LOOKUP_WORDS, LOOKUP_LETTERS, "lookup")
    pattern = fields.pop("pattern", None)
    ignore_case = fields.pop("ignore_case", False)
    extended = fields.pop("extended", False)
    if pattern is not None:
        # COMPAT: what follows the second slash is not looked at ("/x/i" minds the case in OpenSIPS 4.1)
        body = pattern[1:].rpartition("/")[0] if pattern[:1] == "/" else ""
        if not body:
            raise ValueError(f"lookup() flag 'ua-filtering' wants /pattern/, not {pattern!r}")
        fields["user_agent"] = compile_regex(body if extended else extended_pattern(body), ignore_case)
    return replace(LookupFlags(), **fields)


def extended_pattern(pattern: str) -> str:
    r"""A basic regular expression (POSIX 1003.2, 2.8.3.2) as an extended one: ``(`` is a character in it and ``\(`` a group."""
    out: list[str] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        if char == "[":
            end = _bracket_end(pattern, index)
            out.append(pattern[index:end])
            index = end
            continue
        if char == "\\" and index + 1 < len(pattern):
            index += 1
            char = pattern[index]
            out.append(char if char in "(){}|+?" else "\\" + char)
        elif char in "(){}|+?":
            out.append("\\" + char)
        elif char == "*" and (not out or out[-1] in ("(", "|", "^")):
            out.append("\\*")
        else:
            out.append(char)
        index += 1
    return "".join(out)


def _bracket_end(pattern: str, start: int) -> int:
    """Where the bracket expression that opens at ``start`` has ended; the end of the pattern if it never does."""
    index = start + 1
    if pattern[index:index + 1] == "^":
        index += 1
    if pattern[index:index + 1] == "]":
        index += 1
    while index < len(pattern) and pattern[index] != "]":
        if pattern[index] == "[" and pattern[index + 1:index + 2] in (":", ".", "="):
            close = pattern.find(pattern[index + 1] + "]", index + 2)
            index = close + 1 if close >= 0 else index
        index += 1
    return min(index + 1, len(pattern))
