"""Files of rules that allow or deny pairs of URIs, written as ``hosts.allow`` is (OpenSIPS's permissions). Pure: text comes in.

::

    # who : what, each a list of patterns, with exceptions
    "^sip:3677[0-9]*@abc\\.com$" : "^sip:361[0-9]*@abc\\.com$" EXCEPT "^sip:3612", "^sip:3613"
    ALL : ALL

Patterns are those of scripts (POSIX, ignoring case) and match anywhere in a URI; quotes may be left out where none of ``, : #``
and no EXCEPT stands in a pattern. ALL fits anything. The first EXCEPT begins the exceptions; what stands behind it is a list."""

from __future__ import annotations

import re
from typing import NamedTuple

from sipgw.exports import Pattern
from sipgw.script.regex import BadPattern, compile_regex

EVERYTHING = "ALL"
_PIECES = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"?|[^"]', re.DOTALL)
_EXCEPT = re.compile(r"(?:^|\s|(?<=\"))EXCEPT(?=\s|\"|$)")


class Listed(NamedTuple):
    """A list of patterns: what fits one of ``patterns`` (None: anything) and none of ``exceptions``."""

    patterns: tuple[Pattern, ...] | None
    exceptions: Listed | None

    def fits(self, text: str) -> bool:
        """Whether ``text`` is in the list."""
        if self.patterns is not None and not any(pattern.search(text) for pattern in self.patterns):
            return False
        return self.exceptions is None or not self.exceptions.fits(text)


class Rule(NamedTuple):
    """One line."""

    who: Listed
    what: Listed


class Rules:
    """One file of rules; ``faults`` are the lines that mean nothing, each with why: they do not count."""

    def __init__(self, text: str = "") -> None:
        self.rules: list[Rule] = []
        self.faults: list[tuple[int, str]] = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                rule = parse_rule(line)
            except ValueError as error:
                self.faults.append((number, str(error)))
            else:
                if rule is not None:
                    self.rules.append(rule)

    def match(self, who: str, what: str) -> bool:
        """Whether a rule fits the pair."""
        return any(rule.who.fits(who) and rule.what.fits(what) for rule in self.rules)


def allowed(pairs: list[tuple[str, str]], allow: Rules, deny: Rules) -> bool:
    """Whether all pairs stand in ``allow``, or none stands in ``deny``."""
    if all(allow.match(*pair) for pair in pairs):
        return True
    return not any(deny.match(*pair) for pair in pairs)


def parse_rule(line: str) -> Rule | None:
    """Read one line; None if there is nothing on it, ``ValueError`` if it means nothing."""
    line = _cut(line, "#", 2)[0].strip()
    if not line:
        return None
    who, *what = _cut(line, ":", 2)
    if not what:
        raise ValueError("there is no : between who and what")
    return Rule(_listed(who), _listed(what[0]))


def _cut(text: str, delimiter: str, most: int = 0) -> list[str]:
    """``text`` cut at delimiters outside quotes, in ``most`` parts at most."""
    parts = [""]
    for piece in _PIECES.finditer(text):
        if piece[0] == delimiter and (not most or len(parts) < most):
            parts.append("")
        else:
            parts[-1] += piece[0]
    return parts


def _listed(text: str) -> Listed:
    """Read a list with its exceptions."""
    masked = _PIECES.sub(lambda piece: piece[0] if piece[1] is None else '"' * len(piece[0]), text)
    found = _EXCEPT.search(masked)
    exceptions = None
    if found is not None:
        exceptions = _plain(text[found.end() :])
        text = text[: found.start()]
    return _plain(text)._replace(exceptions=exceptions)


def _plain(text: str) -> Listed:
    patterns: list[Pattern] = []
    everything = False
    for part in _cut(text, ","):
        written = part.strip()
        if written == EVERYTHING:
            everything = True
            continue
        if written.startswith('"'):
            written = written[1:-1] if len(written) > 1 and written.endswith('"') else written[1:]
        if not written:
            raise ValueError("a pattern is empty")
        try:
            patterns.append(compile_regex(written))
        except BadPattern as error:
            raise ValueError(f"bad pattern {written!r}: {error}") from None
    return Listed(None if everything else tuple(patterns), None)
