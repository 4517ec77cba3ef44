"""Subscribers: who may register, and the hashes that say whether a password is right (``sipgw user``).

The table keeps HA1, the hash of ``user:realm:password`` that digest authentication needs (RFC 7616 3.4.2), by MD5, SHA-256 and
SHA-512/256; the realm is the domain. The password itself is nowhere: ``password`` stays empty. Whoever reads an HA1 can log in
with it all the same, so the table is a secret."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from sipgw.db.errors import DatabaseError, Duplicate, Refused
from sipgw.db.session import Store
from sipgw.sip.auth import hash_a1

__all__ = ["Subscribers", "hashes", "new_password"]

_USER = re.compile(r"[A-Za-z0-9\-_.!~*'()&=+$,;?/%]{1,64}")
"""RFC 3261 25.1: user, as it stands in a URI."""
_DOMAIN = re.compile(r"[A-Za-z0-9._:\[\]-]{1,64}")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
"""What can be read aloud: no l, o, 0, 1."""


def hashes(user: str, realm: str, password: str) -> dict[str, str]:
    """The three HA1 of a password, by the names of their columns."""
    return {
        "ha1": hash_a1(user, realm, password, "MD5"),
        "ha1_sha256": hash_a1(user, realm, password, "SHA-256"),
        "ha1_sha512t256": hash_a1(user, realm, password, "SHA-512-256"),
    }


def new_password(length: int = 16) -> str:
    """A password that nobody guesses: five bits a character."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


@dataclass(frozen=True)
class Subscribers:
    """The table of subscribers in a database; its columns may have other names (auth_db's parameters)."""

    store: Store
    table: str = "subscriber"
    user: str = "username"
    domain: str = "domain"
    hash: str = "ha1"
    hash_sha256: str = "ha1_sha256"
    hash_sha512t256: str = "ha1_sha512t256"

    def _hashes(self, user: str, domain: str, password: str) -> dict[str, str]:
        if not password:
            raise Refused("an empty password is none")
        if any(ord(character) < 32 for character in password):
            raise Refused("a password has no control characters in it")
        found = hashes(user, domain, password)
        named = {self.hash: found["ha1"], self.hash_sha256: found["ha1_sha256"]}
        named[self.hash_sha512t256] = found["ha1_sha512t256"]
        there = {column.name for column in self.store.columns(self.table)}
        if not there:
            raise Refused(f"{self.store.name} has no table {self.table}: sipgw db create {self.store.name} makes it")
        if self.hash.lower() not in there:
            raise Refused(f"the table {self.table} of {self.store.name} has no column {self.hash}")
        return {column: value for column, value in named.items() if column.lower() in there}

    def add(self, user: str, domain: str, password: str) -> None:
        """Add one; ``Duplicate`` if there is one of that name."""
        if not _USER.fullmatch(user):
            raise Refused(f"{user!r} cannot be the name of a user: write it as it stands in a SIP URI, up to 64 characters")
        if not _DOMAIN.fullmatch(domain):
            raise Refused(f"{domain!r} is no domain")
        values = self._hashes(user, domain, password)
        if self.store.select(self.table, [self.user], self._where(user, domain)).rows:
            raise Duplicate(f"{user}@{domain} is there already: sipgw user passwd changes the password")
        self.store.insert(self.table, {self.user: user, self.domain: domain, **values})

    def change(self, user: str, domain: str, password: str) -> None:
        """Give another password, and forget one that stands there in plain text."""
        values = self._hashes(user, domain, password)
        if "password" in {column.name for column in self.store.columns(self.table)} and "password" not in values:
            values["password"] = ""
        rows = len(self.store.select(self.table, [self.user], self._where(user, domain)).rows)
        if not rows:
            raise DatabaseError(f"there is no {user}@{domain}")
        self.store.update(self.table, values, self._where(user, domain))

    def remove(self, user: str, domain: str) -> None:
        """Remove one."""
        if not self.store.delete(self.table, self._where(user, domain)):
            raise DatabaseError(f"there is no {user}@{domain}")

    def all(self, domain: str = "") -> Sequence[tuple[str, str]]:
        """Names and domains, in order."""
        rows = self.store.select(self.table, [self.user, self.domain], {self.domain: domain} if domain else {}).rows
        return sorted((str(user), str(domain)) for user, domain in rows)

    def _where(self, user: str, domain: str) -> dict[str, str]:
        return {self.user: user, self.domain: domain}
