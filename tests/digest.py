"""A client that answers challenges, for tests of whoever asks for a password."""

from __future__ import annotations

from typing import Any

from sipgw.sip.auth import Challenge, Credentials, answer, hash_a1
from sipgw.sip.message import Response


def challenges(response: Any) -> list[Challenge]:
    """The challenges in a 401 or 407."""
    assert isinstance(response, Response), response
    return [Challenge.parse(text) for name in ("WWW-Authenticate", "Proxy-Authenticate") for text in response.headers(name)]


def answered(
    challenge: Challenge,
    user: str = "alice",
    password: str = "secret",
    *,
    method: str = "REGISTER",
    uri: str = "sip:example.org",
    count: int = 1,
    proxy: bool = False,
    body: bytes = b"",
    **changed: str,
) -> str:
    """The header line that answers ``challenge``; ``changed`` are parameters that are not what they should be ("": left out)."""
    ha1 = hash_a1(user, challenge.realm, password, challenge.algorithm)
    made = answer(challenge, user, ha1, method, uri, cnonce="c1", nonce_count=count, body=body)
    params = {name: value for name, value in {**made.params, **changed}.items() if value}
    return f"{'Proxy-' if proxy else ''}Authorization: {Credentials('Digest', params)}\r\n"
