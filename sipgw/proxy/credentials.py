"""Users and passwords of ours, and the answers they make to the challenges of others (RFC 3261 22.2, 22.3; RFC 8760)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from os import urandom
from typing import NamedTuple

from sipgw.proxy.authentication import parse_algorithms
from sipgw.sip.auth import Challenge, Credentials, answer, hash_a1
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.message import Response

_ha1 = re.compile(r"0x([0-9A-Fa-f]{32}|[0-9A-Fa-f]{64})").fullmatch

CHALLENGES = {401: ("WWW-Authenticate", "Authorization"), 407: ("Proxy-Authenticate", "Proxy-Authorization")}
"""Where the challenges of a status stand, and where their answers do (RFC 3261 22.2, 22.3)."""


class Credential(NamedTuple):
    """A user and password for one realm; a password of 0x and hexadecimal digits is the HA1 of one."""

    user: str
    realm: str
    password: str

    def __repr__(self) -> str:
        return f"<Credential {self.user!r} of {self.realm!r}>"

    def hash(self, algorithm: str) -> str | None:
        """The HA1 for ``algorithm``; None if there is only one of another."""
        found = _ha1(self.password)
        if found is None:
            return hash_a1(self.user, self.realm, self.password, algorithm)
        wanted = 32 if algorithm.lower().startswith("md5") else 64
        return found[1].lower() if len(found[1]) == wanted else None


class Answer(NamedTuple):
    """What answers a challenge: the name of the header, and its value."""

    name: str
    credentials: Credentials


def parse_credential(text: str) -> Credential:
    """The parts of ``user:realm:password``; ``ValueError`` if they are not there."""
    parts = text.split(":", 2)
    if len(parts) != 3 or not parts[0] or not parts[1]:
        raise ValueError("write user:realm:password")  # and never the text: it may have a password
    return Credential(*parts)


def challenges_of(response: Response) -> list[tuple[str, Challenge]]:
    """The challenges of a 401 or 407 with the name of the header that answers each; what cannot be read is left out."""
    asked, answered = CHALLENGES[response.status]
    found = []
    for text in response.headers(asked):
        try:
            found.append((answered, Challenge.parse(text)))
        except MalformedMessage:
            continue
    return found


def respond(
    credential: Credential, challenges: Iterable[tuple[str, Challenge]], method: str, uri: str, body: bytes, algorithms: str = ""
) -> Answer | None:
    """Answer the first of ``challenges`` that can be (RFC 8760 2.4); ``algorithms``: only these."""
    wanted = {name.lower() for name in parse_algorithms(algorithms)}
    for name, challenge in challenges:
        if challenge.realm != credential.realm or not challenge.is_supported:
            continue
        algorithm = challenge.algorithm
        if wanted and algorithm.lower() not in wanted:
            continue
        ha1 = credential.hash(algorithm)
        if ha1 is None:
            continue
        try:
            made = answer(challenge, credential.user, ha1, method, uri, cnonce=urandom(8).hex(), body=body)
        except SipError:
            continue
        return Answer(name, made)
    return None
