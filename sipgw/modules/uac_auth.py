"""uac_auth: the users and passwords with which this server answers the challenges of others.

A challenge is answered only for a realm that is configured, by ``credential`` or by the AVPs of the call, so no phone that is
called can ask for the password of a trunk by a challenge of its own making unless it knows the realm: give each trunk a realm
that is its own, and call ``uac_auth()`` only for calls that go there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from os import urandom
from typing import NamedTuple

from sipgw.exports import Module, param
from sipgw.modules._specs import avp_name, newest
from sipgw.proxy.authentication import parse_algorithms
from sipgw.script.run import Run
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


class UacAuth(Module):
    """Knows users and passwords for other servers."""

    name = "uac_auth"

    credential: str = param(
        "", "A user and his password for a realm: user:realm:password", each="add_credential", check=parse_credential
    )
    auth_realm_avp: str = param("", "The AVP with a realm for this call alone", check=avp_name)
    auth_username_avp: str = param("", "The AVP with the user for it", check=avp_name)
    auth_password_avp: str = param("", "The AVP with his password, or 0x and its HA1", check=avp_name)

    def __init__(self, server: object = None, **parameters: object) -> None:
        self._known: dict[str, Credential] = {}
        super().__init__(server, **parameters)  # type: ignore[arg-type]

    def add_credential(self, text: str) -> None:
        """Note one more user."""
        found = parse_credential(text)
        self._known.setdefault(found.realm, found)

    async def start(self) -> None:
        """See that the three AVPs are there, or none."""
        given = [bool(text) for text in (self.auth_realm_avp, self.auth_username_avp, self.auth_password_avp)]
        if any(given) and not all(given):
            raise ValueError("uac_auth: auth_realm_avp, auth_username_avp and auth_password_avp go together")

    def find(self, run: Run | None, realm: str) -> Credential | None:
        """The credential for ``realm``: of the AVPs of the call, else of the script."""
        if run is not None and self.auth_realm_avp:
            specs = (self.auth_username_avp, self.auth_realm_avp, self.auth_password_avp)
            user, its_realm, password = (newest(run, avp_name(spec)) for spec in specs)
            if user is not None and its_realm is not None and str(its_realm) == realm:
                return Credential(str(user), realm, "" if password is None else str(password))
        return self._known.get(realm)

    def answer(self, run: Run, response: Response, method: str, uri: str, body: bytes, algorithms: str = "") -> Answer | None:
        """Answer the challenges of ``response`` for the request of ``run``; None if there is no credential for any."""
        challenges = challenges_of(response)
        for realm in dict.fromkeys(challenge.realm for _, challenge in challenges):
            credential = self.find(run, realm)
            made = None if credential is None else respond(credential, challenges, method, uri, body, algorithms)
            if made is not None:
                return made
        return None
