r"""Rules that translate one text into another (OpenSIPS's dialplan). Pure: time is passed in.

A rule matches a text that is equal to its own, or that its pattern matches (Perl's), and gives a text: a fixed one, or its
replacement with what ``substitute`` matches of the text in place of ``\1`` (a group) and ``\0`` (the whole match). Of the rules
that match the one with the smallest priority counts, then the one that stands first.

Equal ones are found by a dict, patterns are tried one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sipgw.core.perl_regex import PerlPattern
from sipgw.core.recurrence import Times, parse

EQUAL, PATTERN = 0, 1
IGNORE_CASE = 1

_ESCAPE = re.compile(r"\\(\d{1,2}|\\)")


class NoOutput(Exception):
    """A rule matches, and cannot make its text."""


class Answer(NamedTuple):
    """What a rule gives; ``output`` is None if it only matches."""

    output: str | None
    attributes: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``rank``: its priority, then where it stands."""

    rank: tuple[int, int]
    text: str
    ignore_case: bool
    pattern: PerlPattern | None
    substitute: PerlPattern | None
    replacement: str
    times: Times | None
    attributes: str

    def matches(self, text: str, now: float) -> bool:
        """Whether the rule is one for ``text``, at this time."""
        if self.pattern is not None:
            if self.pattern.search(text) is None:
                return False
        elif not (text == self.text or (self.ignore_case and text.lower() == self.text.lower())):
            return False
        return self.times is None or self.times.matches(now)

    def answer(self, text: str) -> Answer:
        """What it gives for ``text``; ``NoOutput`` if its substitution does not fit."""
        if not self.replacement:
            return Answer(None, self.attributes)
        if self.substitute is None:
            return Answer(self.replacement, self.attributes)
        groups = self.substitute.search(text)
        if groups is None:
            raise NoOutput(f"{text!r} matches {self.text!r} but not {self.substitute.text!r}")
        found = groups
        output = _ESCAPE.sub(lambda each: "\\" if each[1] == "\\" else found[int(each[1])], self.replacement)
        return Answer(output, self.attributes)


def read_rule(number: int, row: Sequence[Any]) -> Rule:
    """A row of the database: priority, operator, expression, flags, substitution, replacement, times, attributes.

    ``ValueError`` says why it means nothing. ``number``: where it stands."""
    priority, operator, expression, flags, substitution, replacement, times, attributes = row
    text = str(expression or "")
    if not text:
        raise ValueError("the expression is empty")
    ignore_case = bool(int(flags or 0) & IGNORE_CASE)
    if int(operator) not in (EQUAL, PATTERN):
        raise ValueError(f"unknown operator {operator}")
    pattern = PerlPattern(text, ignore_case) if int(operator) == PATTERN else None
    substitute = PerlPattern(str(substitution), ignore_case) if substitution else None
    written = str(replacement or "")
    if substitute is not None:
        for escape in _ESCAPE.finditer(written):
            if escape[1] != "\\" and int(escape[1]) > substitute.groups:
                raise ValueError(f"{substitution!r} has no group {escape[1]}")
    recurrence = parse(str(times)) if times else None
    return Rule(
        (int(priority or 0), number), text, ignore_case, pattern, substitute, written, recurrence, str(attributes or "")
    )


class Rules:
    """The rules of one number (OpenSIPS's dpid)."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._equal: dict[str, list[Rule]] = {}
        self._patterns: list[Rule] = []
        self._count = 0
        for rule in sorted(rules, key=lambda rule: rule.rank):
            self._count += 1
            if rule.pattern is None:
                self._equal.setdefault(rule.text.lower(), []).append(rule)
            else:
                self._patterns.append(rule)

    def __len__(self) -> int:
        return self._count

    def find(self, text: str, now: float) -> Rule | None:
        """The rule that counts for ``text``."""
        equal = next((rule for rule in self._equal.get(text.lower(), ()) if rule.matches(text, now)), None)
        for rule in self._patterns:
            if equal is not None and equal.rank < rule.rank:
                return equal
            if rule.matches(text, now):
                return rule
        return equal
