"""What a library for LDAP must be able to do: one class, so that another one is a drop-in.

Everything here is called in a thread of the pool, and may wait there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sipgw.ldap.config import Session


class LdapFault(Exception):
    """A search that was not done."""


class Unreachable(LdapFault):
    """No server of the session answers."""


class Rejected(LdapFault):
    """A server answered with an error: a bad filter, no rights, no such base."""


@dataclass(frozen=True)
class Entry:
    """One entry: its name, and the values of its attributes by their names in lower case."""

    name: str
    attributes: Mapping[str, Sequence[bytes]]


class Directory(Protocol):
    """A connection to one server of a session, bound; it belongs to one thread."""

    def search(self, base: str, scope: str, filter: str, attributes: Sequence[str]) -> list[Entry]:
        """The entries that fit; ``Rejected``, or ``Unreachable`` if the connection is of no more use."""

    def close(self) -> None:
        """End it."""


Opener = Callable[[Session], Directory]
"""Connects and binds to the first server of a session that answers; ``Unreachable``, or ``Rejected`` for a refused bind."""
