"""Digest authentication: challenges, credentials and the sums (RFC 3261 22, RFC 7616, RFC 2617, RFC 8760).

Pure: nonces and cnonces are made, kept and judged elsewhere. Parameter values are unquoted in ``params``; names are in
lower case. ``str()`` writes a value for a header line, with quotes where the RFCs want them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import TOKEN_CHARS, quote, unquote

__all__ = [
    "ALGORITHMS", "Challenge", "Credentials", "answer", "choose", "digest_response", "hash_a1", "is_response",
]

_scheme = re.compile(rf"[ \t]*([{TOKEN_CHARS}]+)(?:[ \t]+|\Z)").match
_pair = re.compile(
    rf'[ \t]*+([{TOKEN_CHARS}]++)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"|[^\x00-\x20\x7f",]*+)[ \t]*+(?:,[ \t,]*+|\Z)', re.DOTALL,
).match

# What nearly everybody sends, at one go: names in lower case, no escapes.
_plain = re.compile(
    rf'([{TOKEN_CHARS}]++) ++(?:[a-z]++=(?:"[^"\\]*+"|[^\x00-\x20\x7f",]++)(?:, ?+(?=[a-z])|\Z))++'
).fullmatch
_plain_pairs = re.compile(r'([a-z]++)=(?:"([^"]*+)"|([^",]++))').findall

ALGORITHMS: Final[dict[str, str]] = {"md5": "md5", "sha-256": "sha256", "sha-512-256": "sha512_256"}
"""Algorithm of RFC 7616 and RFC 8760 in lower case, without "-sess" -> name of it in hashlib."""

# Written without quotes (RFC 3261 25.1); all else is quoted.
_BARE_IN_CHALLENGE: Final = frozenset({"algorithm", "stale", "userhash"})
_BARE_IN_CREDENTIALS: Final = frozenset({"algorithm", "qop", "nc", "userhash"})


def _parse(text: str) -> tuple[str, dict[str, str]]:
    """Read ``Scheme name=value, name="value"``; another scheme's data that is no such list gives no parameters."""
    plain = _plain(text)
    if plain is not None:
        pairs = _plain_pairs(text, plain.end(1))
        params = {name: quoted or bare for name, quoted, bare in pairs}
        if len(params) == len(pairs):
            return plain[1], params
    found = _scheme(text)
    if found is None:
        raise MalformedMessage("Bad authentication scheme")
    scheme = found[1]
    params = {}
    position = found.end()
    text = text.rstrip(" \t")
    while position < len(text):
        pair = _pair(text, position)
        if pair is None or pair[1].lower() in params:
            if scheme.lower() != "digest":
                return scheme, {}
            raise MalformedMessage("Bad authentication parameter")
        params[pair[1].lower()] = unquote(pair[2])
        position = pair.end()
    return scheme, params


class _Parameters:
    """Holds a scheme and its parameters: what a challenge and credentials have in common."""

    __slots__ = ("params", "scheme")

    _bare = _BARE_IN_CHALLENGE

    def __init__(self, scheme: str, params: dict[str, str]) -> None:
        self.scheme = scheme
        self.params = params

    def __str__(self) -> str:
        written = ", ".join(
            f"{name}={value if name in self._bare else quote(value)}" for name, value in self.params.items()
        )
        return f"{self.scheme} {written}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.scheme} {self.realm!r}>"

    @property
    def is_digest(self) -> bool:
        """True for the only scheme that sipgw computes."""
        return self.scheme.lower() == "digest"

    @property
    def realm(self) -> str:
        """The realm, "" if there is none."""
        return self.params.get("realm", "")

    @property
    def nonce(self) -> str:
        """The nonce, "" if there is none."""
        return self.params.get("nonce", "")

    @property
    def opaque(self) -> str | None:
        """What the server wants back unchanged, ``None`` if nothing."""
        return self.params.get("opaque")

    @property
    def algorithm(self) -> str:
        """The algorithm as written, "MD5" where none is (RFC 7616 3.3)."""
        return self.params.get("algorithm", "MD5")


class Challenge(_Parameters):
    """Holds one WWW-Authenticate or Proxy-Authenticate value (RFC 3261 20.44, 20.27)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Challenge:
        """Read a header value; raises ``MalformedMessage``."""
        return cls(*_parse(text))

    @property
    def qop(self) -> list[str]:
        """The qualities of protection that are offered, in lower case; empty if none (RFC 2069)."""
        return [word for part in self.params.get("qop", "").split(",") if (word := part.strip().lower())]

    @property
    def stale(self) -> bool:
        """True if only the nonce was too old (RFC 7616 3.3)."""
        return self.params.get("stale", "").lower() == "true"

    @property
    def is_supported(self) -> bool:
        """True for digest with an algorithm that can be computed here."""
        return self.is_digest and _hash(self.algorithm) is not None


class Credentials(_Parameters):
    """Holds one Authorization or Proxy-Authorization value (RFC 3261 20.7, 20.28)."""

    __slots__ = ()

    _bare = _BARE_IN_CREDENTIALS

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """Read a header value; raises ``MalformedMessage``."""
        return cls(*_parse(text))

    @property
    def username(self) -> str:
        """The user name as it was sent, domain part included, "" if there is none."""
        return self.params.get("username", "")

    @property
    def uri(self) -> str:
        """The digest-uri, which should be the Request-URI (RFC 3261 22.4 item 5)."""
        return self.params.get("uri", "")

    @property
    def response(self) -> str:
        """The digest, hexadecimal."""
        return self.params.get("response", "")

    @property
    def cnonce(self) -> str:
        """The client's nonce, "" without qop."""
        return self.params.get("cnonce", "")

    @property
    def qop(self) -> str:
        """The chosen quality of protection in lower case, "" if none."""
        return self.params.get("qop", "").lower()

    @property
    def nonce_count(self) -> int:
        """How often the nonce was used, this time included; 0 if it is not said, or not as 8 hexadecimal digits."""
        digits = self.params.get("nc", "")
        return int(digits, 16) if _is_hex8(digits) else 0


_is_hex8 = re.compile("[0-9A-Fa-f]{8}").fullmatch


_HASHES: Final[dict[str, Callable[[bytes], Any]]] = {
    algorithm: partial(getattr(hashlib, name, None) or partial(hashlib.new, name), usedforsecurity=False)
    for algorithm, name in ALGORITHMS.items()
    if name in hashlib.algorithms_available
}


def _hash(algorithm: str) -> Callable[[bytes], Any] | None:
    return _HASHES.get(algorithm.lower().removesuffix("-sess"))


def _digest(algorithm: str, text: str) -> str:
    found = _hash(algorithm)
    if found is None:
        raise SipError("Unsupported digest algorithm", 401)
    digest: str = found(text.encode("utf-8", "surrogateescape")).hexdigest()
    return digest


def hash_a1(username: str, realm: str, password: str, algorithm: str = "MD5") -> str:
    """Return the HA1 that a database keeps in place of the password (RFC 7616 3.4.2, without "-sess")."""
    return _digest(algorithm, f"{username}:{realm}:{password}")


def digest_response(
    ha1: str, method: str, uri: str, nonce: str, *, algorithm: str = "MD5", qop: str = "", cnonce: str = "",
    nc: str = "", body: bytes = b"",
) -> str:
    """Return the digest (RFC 7616 3.4.1; without ``qop`` RFC 2617 3.2.2.1), hexadecimal.

    ``ha1``: of ``hash_a1``; for a "-sess" algorithm nonce and cnonce are hashed in here. ``body`` counts for
    auth-int. ``nc``: 8 hexadecimal digits as sent."""
    if algorithm.lower().endswith("-sess"):
        ha1 = _digest(algorithm, f"{ha1}:{nonce}:{cnonce}")
    if qop.lower() == "auth-int":
        ha2 = _digest(algorithm, f"{method}:{uri}:{_digest(algorithm, body.decode('utf-8', 'surrogateescape'))}")
    else:
        ha2 = _digest(algorithm, f"{method}:{uri}")
    if qop:
        return _digest(algorithm, f"{ha1}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}")
    return _digest(algorithm, f"{ha1}:{nonce}:{ha2}")


def is_response(credentials: Credentials, ha1: str, method: str, body: bytes = b"") -> bool:
    """Tell in constant time whether the credentials were made with the password behind ``ha1``.

    Says nothing about the nonce, the realm or the URI. Raises ``SipError`` for an unknown algorithm."""
    params = credentials.params
    expected = digest_response(
        ha1, method, credentials.uri, credentials.nonce, algorithm=credentials.algorithm, qop=params.get("qop", ""),
        cnonce=credentials.cnonce, nc=params.get("nc", ""), body=body,
    )
    given = credentials.response.lower().encode("utf-8", "surrogateescape")
    return hmac.compare_digest(expected.encode(), given)


def choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """Return the first challenge that can be answered (RFC 8760 2.4), ``None`` if there is none."""
    return next((challenge for challenge in challenges if challenge.is_supported), None)


def answer(
    challenge: Challenge, username: str, ha1: str, method: str, uri: str, *, cnonce: str = "", nonce_count: int = 1,
    body: bytes = b"",
) -> Credentials:
    """Return the credentials that answer a challenge (RFC 3261 22.2, 22.3).

    ``ha1``: of ``hash_a1`` with the algorithm of the challenge. ``cnonce`` is needed where the challenge offers a
    qop or asks for a session. auth is preferred to auth-int. Raises ``SipError`` if neither is offered."""
    offered = challenge.qop
    qop = "auth" if "auth" in offered else "auth-int" if "auth-int" in offered else ""
    if offered and not qop:
        raise SipError("Unsupported quality of protection", 401)
    nc = f"{nonce_count:08x}" if qop else ""
    params = {"username": username, "realm": challenge.realm, "nonce": challenge.nonce, "uri": uri}
    params["response"] = digest_response(
        ha1, method, uri, challenge.nonce, algorithm=challenge.algorithm, qop=qop, cnonce=cnonce, nc=nc, body=body,
    )
    if "algorithm" in challenge.params:
        params["algorithm"] = challenge.algorithm
    if qop or challenge.algorithm.lower().endswith("-sess"):
        params["cnonce"] = cnonce
    if qop:
        params["qop"] = qop
        params["nc"] = nc
    if challenge.opaque is not None:
        params["opaque"] = challenge.opaque
    return Credentials("Digest", params)
