"""Whether a request proves who sent it: credentials found, judged and remembered (RFC 3261 22, RFC 7616, RFC 8760).

Judging has two halves, since the password may have to be fetched between them. ``examine`` finds the credentials for a realm and
decides all that needs no password: are they whole, is the nonce good, are they for this request. ``Attempt.proves`` compares
with a password's hash. What the script learns are OpenSIPS's codes, here ``Verdict``.

The digest-uri must be that of the request (RFC 7616 3.4.6), else somebody on the way could use credentials for another request.
Ports and parameters may differ, and the host too where the request has reached a host of ours: phones and edge proxies
write them in many ways (RFC 3261 22.4 leaves that to the server)."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from sipgw.script.run import Run
from sipgw.sip.auth import Challenge, Credentials, hash_a1, is_response
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.sip.nonce import CODES, QOPS, NonceTable
from sipgw.sip.uri import Uri

_count = re.compile("[0-9A-Fa-f]{1,8}").fullmatch

NEVER_ASKED = frozenset({"ACK", "CANCEL"})
"""Nobody can be asked for credentials by an answer to these (RFC 3261 22.1): they are taken as they are."""


class Verdict(IntEnum):
    """What functions that authorize give back, as in OpenSIPS; 0 ends the script, a reply has been sent."""

    AUTHORIZED = 1
    ANSWERED = 0
    NO_USER = -1
    WRONG_PASSWORD = -2
    STALE = -3
    NO_CREDENTIALS = -4
    ERROR = -5


@dataclass(frozen=True, slots=True)
class Attempt:
    """Credentials that are worth a look at the password; they stand in ``lines[line]`` of the request."""

    credentials: Credentials
    line: int

    def proves(self, request: Request, ha1: str) -> bool:
        """Whether they were made with the password behind ``ha1``, which must be of their algorithm."""
        return is_response(self.credentials, ha1, request.method, request.body)

    def hash_of(self, password: str) -> str:
        """The HA1 of a plain password as these credentials want it."""
        found = self.credentials
        return hash_a1(found.username, found.realm, password, found.algorithm)


@dataclass(slots=True)
class _Known:
    """What is known of the sender of one request."""

    stale: bool = False
    authorized: Attempt | None = None


def _known(run: Run) -> _Known:
    found: _Known = run.keep().setdefault("authentication", _Known())
    return found


def authorized(run: Run) -> Credentials | None:
    """The credentials that the sender of this request was authorized by, if he was."""
    return None if run.context is None else run.context.get("authorized")


def accept(run: Run, attempt: Attempt) -> None:
    """Remember by what the sender was authorized; ``$au`` and the others name these credentials from now on."""
    _known(run).authorized = attempt
    run.keep()["authorized"] = attempt.credentials


def consume(run: Run) -> bool:
    """Take the credentials that authorized the sender out of the request; False if there were none."""
    found = _known(run).authorized
    if found is None:
        return False
    run.edits = run.edits.delete(found.line)
    return True


def realm_of(run: Run, realm: str, proxy: bool, prefix: str) -> str:
    """``realm``, or if it is empty the domain of To in a REGISTER to a registrar, of From else, without ``prefix``."""
    if realm:
        return realm
    message = run.message
    who = message.to if message.method == "REGISTER" and not proxy else message.from_
    return who.uri.host.removeprefix(prefix)


def examine(run: Run, realm: str, proxy: bool, nonces: NonceTable, now: float) -> Attempt | Verdict:
    """Find the credentials for ``realm`` and judge all of them but the password; ``MalformedMessage`` if they are not whole."""
    request = run.message
    assert isinstance(request, Request)
    if request.method in NEVER_ASKED:
        return Verdict.AUTHORIZED
    attempt = _find(request, realm, "proxy-authorization" if proxy else "authorization")
    if attempt is None:
        return Verdict.NO_CREDENTIALS
    found = attempt.credentials
    params = found.params
    qop = found.qop
    if not (found.username and found.nonce and found.uri and found.response) or (
        qop and not (found.cnonce and "nc" in params)
    ):
        raise MalformedMessage("Bad credentials")
    digits = params.get("nc", "")
    count = int(digits, 16) if _count(digits) else 0
    if not nonces.is_good(found.nonce, now, found.algorithm, qop, count):
        _known(run).stale = True
        return Verdict.STALE
    if not _is_for(found.uri, request, run.user.is_myself):
        nonces.spoil(found.nonce)
        run.user.log_rarely("digest-uri", 1, f"credentials of {found.username!r} for {found.uri!r} came with {request.uri!r}")
        return Verdict.WRONG_PASSWORD
    return attempt


def _find(request: Request, realm: str, name: str) -> Attempt | None:
    """The first credentials for ``realm`` that can be computed; ``MalformedMessage`` if there are only unreadable ones."""
    lowered = realm.lower()
    broken: MalformedMessage | None = None
    for line, text in zip(request.positions(name), request.headers(name), strict=True):
        try:
            found = Credentials.parse(text)
        except MalformedMessage as error:
            broken = error
            continue
        if found.is_digest and found.realm.lower() == lowered and found.algorithm.lower() in CODES:
            found.params["realm"] = realm  # as we spell it, for the hash and for databases
            return Attempt(found, line)
    if broken is not None:
        raise broken
    return None


def _is_for(text: str, request: Request, is_myself: Callable[[str], bool]) -> bool:
    """Whether a digest-uri is that of the request."""
    if text == request.uri:
        return True
    try:
        uri, wanted = Uri.parse(text), request.request_uri
    except MalformedMessage:
        return False
    if uri.user != wanted.user:
        return False
    return uri.host.lower() == wanted.host.lower() or is_myself(wanted.host)


def challenges(
    run: Run, realm: str, qops: tuple[str, ...], algorithms: tuple[str, ...], nonces: NonceTable, now: float
) -> list[Challenge]:
    """The challenges of one answer, one for each of ``algorithms`` (none: MD5, not named), each with its own nonce.

    They say that only the nonce was too old where that is all that was wrong (RFC 7616 3.3)."""
    stale = _known(run).stale
    made = []
    for algorithm in algorithms or ("",):
        params = {"realm": realm, "nonce": nonces.make(now, algorithm, qops)}
        if qops:
            params["qop"] = ",".join(qops)
        if algorithm:
            params["algorithm"] = algorithm
        if stale:
            params["stale"] = "true"
        made.append(Challenge("Digest", params))
    return made


def parse_qops(text: str) -> tuple[str, ...]:
    """The qualities of protection in a list with commas; ``ValueError`` for others than auth and auth-int."""
    found = tuple(part.strip().lower() for part in text.split(","))
    if not all(name in QOPS for name in found):
        raise ValueError(f'{text!r} is no qop: write "auth", "auth-int" or "auth,auth-int"')
    return found


_STRONGEST_FIRST = ("SHA-512-256-sess", "SHA-512-256", "SHA-256-sess", "SHA-256", "MD5-sess", "MD5")


def parse_algorithms(text: str) -> tuple[str, ...]:
    """The algorithms in a list with commas, the strongest first (RFC 8760 2.4); ``ValueError`` for an unknown one."""
    wanted = {part.strip().lower() for part in text.split(",")} if text else set()
    if not wanted <= CODES.keys():
        raise ValueError(f"{text!r} is no list of algorithms: write some of {', '.join(reversed(_STRONGEST_FIRST))}")
    return tuple(name for name in _STRONGEST_FIRST if name.lower() in wanted)
