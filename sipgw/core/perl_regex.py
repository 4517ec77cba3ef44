"""Regular expressions as Perl has them, for what OpenSIPS gives to PCRE (dialplan): octets, the leftmost match, its groups.

RE2 does the work, in time linear in the text. What it cannot do (looking around, back-references) goes to Python's ``re`` within
bounds: at most two open-ended repetitions, none inside another, and texts of up to ``FALLBACK_TEXT`` octets (hardening P25).
Beyond them a pattern is refused, and a text does not match."""

from __future__ import annotations

import re
from functools import lru_cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

import re2  # type: ignore[import-untyped]

from sipgw.script.regex import BadPattern

FALLBACK_TEXT: Final = 200
MAX_OPEN: Final = 2
"""Open-ended repetitions of a pattern that RE2 cannot do."""


class PerlPattern:
    """One pattern."""

    __slots__ = ("_limit", "_search", "groups", "text")

    def __init__(self, text: str, ignore_case: bool = False) -> None:
        self.text = text
        octets = text.encode("utf-8", "surrogateescape")
        try:
            compiled: Any = re2.compile(octets, _options(ignore_case))
            self._limit = 0
        except re2.error as error:
            compiled = _fallback(octets, ignore_case, error)
            self._limit = FALLBACK_TEXT
        self._search = compiled.search
        self.groups: int = compiled.groups
        """How many groups it has."""

    def search(self, text: str) -> list[str] | None:
        """The first match in ``text``: the whole of it, then its groups, "" for those that took no part; None: there is none."""
        octets = text.encode("utf-8", "surrogateescape")
        if self._limit and len(octets) > self._limit:
            return None
        found = self._search(octets)
        if found is None:
            return None
        return [(each or b"").decode("utf-8", "surrogateescape") for each in (found.group(), *found.groups())]


@lru_cache(maxsize=2)
def _options(ignore_case: bool) -> Any:
    made = re2.Options()
    made.encoding = re2.Options.Encoding.LATIN1
    made.case_sensitive = not ignore_case
    made.log_errors = False
    return made


def _fallback(octets: bytes, ignore_case: bool, error: Exception) -> re.Pattern[bytes]:
    """A pattern that RE2 cannot do, as ``re`` does it; ``BadPattern`` if nobody can, or if it could take too long."""
    try:
        made = re.compile(octets, re.IGNORECASE if ignore_case else 0)
        tree = parser.parse(octets)
    except (re.error, OverflowError, RecursionError) as fault:
        raise BadPattern(f"{fault} ({error})") from None
    if _open_ended(tree, False) > MAX_OPEN:
        raise BadPattern("it looks around or back, and has too many open-ended repetitions for that")
    return made


def _open_ended(tree: Any, inside: bool) -> int:
    """How many open-ended repetitions there are; one inside another counts as too many."""
    found = 0
    for code, argument in tree:
        if code in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            _, most, body = argument
            is_open = most is codes.MAXREPEAT or most > 100
            found += (MAX_OPEN + 1 if inside else 1) if is_open else 0
            found += _open_ended(body, inside or is_open)
        else:
            parts = argument if isinstance(argument, tuple | list) else (argument,)
            for part in parts:
                for body in part if isinstance(part, list) else (part,):
                    if isinstance(body, parser.SubPattern):
                        found += _open_ended(body, inside)
    return found
