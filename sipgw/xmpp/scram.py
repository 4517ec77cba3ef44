"""SCRAM (RFC 5802, 7677): a password is shown to a server without being said, and the server shows that it knows it. Pure."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from typing import Final

__all__ = ["MECHANISMS", "BadServer", "Scram"]

MECHANISMS: Final = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-1": "sha1"}
"""The mechanisms, the better one first, with their hashes."""
ITERATIONS: Final = (1, 500_000)
"""How often a server may let us hash: more would stop the whole process for a second."""


class BadServer(Exception):
    """The server does not know the password, or says what makes no sense."""


class Scram:
    """One login. ``nonce``: printable, without commas, never the same."""

    def __init__(self, mechanism: str, user: str, password: str, nonce: str) -> None:
        self._hash = MECHANISMS[mechanism]
        self._password = password.encode()
        self._nonce = nonce
        self._bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={nonce}"
        self._signature = b""

    def first(self) -> bytes:
        """What is said first."""
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        """The answer to the server's challenge; ``BadServer``."""
        try:
            text = challenge.decode()
            values = dict(each.split("=", 1) for each in text.split(","))
            nonce, salt, rounds = values["r"], b64decode(values["s"], validate=True), int(values["i"])
        except (ValueError, KeyError):
            raise BadServer("its challenge cannot be read") from None
        if not nonce.startswith(self._nonce) or nonce == self._nonce or "m" in values:
            raise BadServer("its challenge is not for us")
        if not ITERATIONS[0] <= rounds <= ITERATIONS[1]:
            raise BadServer(f"it wants {rounds} rounds")
        salted = hashlib.pbkdf2_hmac(self._hash, self._password, salt, rounds)
        client_key = self._mac(salted, b"Client Key")
        said = f"c={b64encode(b'n,,').decode()},r={nonce}"
        words = f"{self._bare},{text},{said}".encode()
        signature = self._mac(hashlib.new(self._hash, client_key).digest(), words)
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._signature = self._mac(self._mac(salted, b"Server Key"), words)
        return f"{said},p={b64encode(proof).decode()}".encode()

    def check(self, data: bytes) -> None:
        """Take the server's last word; ``BadServer`` if it does not show that it knows the password."""
        wanted = b"v=" + b64encode(self._signature)
        if not self._signature or not hmac.compare_digest(data.split(b",")[0], wanted):
            raise BadServer("it does not know the password")

    def _mac(self, key: bytes, data: bytes) -> bytes:
        return hmac.new(key, data, self._hash).digest()
