"""The domains that a server is responsible for, by a table: names, whether names below them count too, and attributes. Pure.

Names are compared without regard to case (RFC 1035 2.3.3). Of a name that is not there itself those above it are asked, the
nearest first, ``LEVELS`` of them: a domain further up is none of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

LEVELS = 10
"""How many names above a name are looked at."""


class LocalDomain(NamedTuple):
    """One row."""

    name: str
    attributes: str | None
    subdomains: bool


def read_domain(row: tuple[Any, ...]) -> LocalDomain:
    """A row of the database: name, attributes, whether names below count."""
    name, attributes, subdomains = row
    return LocalDomain(str(name), None if attributes is None else str(attributes), int(subdomains or 0) > 0)


def above(name: str) -> list[str]:
    """The names above ``name``, the nearest first."""
    labels = name.split(".")
    return [".".join(labels[number:]) for number in range(1, min(len(labels), LEVELS + 1))]


class LocalDomains:
    """All rows. Never changed: a reload makes others."""

    def __init__(self, domains: Iterable[LocalDomain] = ()) -> None:
        self.domains = list(domains)
        self._known = {domain.name.lower(): domain for domain in self.domains}

    def __len__(self) -> int:
        return len(self.domains)

    def named(self, name: str) -> LocalDomain | None:
        """The row of just that name."""
        return self._known.get(name.lower())

    def find(self, name: str) -> LocalDomain | None:
        """The row that makes ``name`` local, None if it is not."""
        name = name.lower()
        found = self._known.get(name)
        if found is not None or "." not in name:
            return found
        for higher in above(name):
            found = self._known.get(higher)
            if found is not None and found.subdomains:
                return found
        return None
