"""Texts that only this server can make and read: what temporary GRUUs and PURRs are made of.

Octets are sealed in the manner of RFC 5297: a keyed digest of them, from which comes the stream that hides them. So a text
cannot be guessed, nor changed, nor does it show whether two of them say nearly the same; the same octets give the same text."""

from __future__ import annotations

from base64 import b32decode, b32encode, b64decode, urlsafe_b64encode
from hashlib import blake2b, shake_256
from hmac import compare_digest
from typing import Final

__all__ = ["Seal"]

_DIGEST: Final = 12
"""Octets of the digest."""


class Seal:
    """Seals with ``secret``; what is sealed for one ``purpose`` (9 octets at most) is nothing for another."""

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        self._seal_key = blake2b(secret, digest_size=32, person=purpose + b" seal").digest()
        self._hide_key = blake2b(secret, digest_size=32, person=purpose + b" hide").digest()

    def close(self, octets: bytes, base32: bool = False) -> str:
        """The text for ``octets``: letters, digits, "-" and "_", four for three octets; ``base32``: whose case means nothing."""
        digest = blake2b(octets, digest_size=_DIGEST, key=self._seal_key).digest()
        whole = digest + self._stream(digest, octets)
        return (b32encode(whole).lower() if base32 else urlsafe_b64encode(whole)).decode("ascii").rstrip("=")

    def open(self, text: str, base32: bool = False) -> bytes | None:
        """The octets in ``text``; None if it was not made with this secret for this purpose."""
        try:
            if base32:
                whole = b32decode(text.upper() + "=" * (-len(text) % 8))
            else:
                whole = b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except ValueError:
            return None
        digest, hidden = whole[:_DIGEST], whole[_DIGEST:]
        if not hidden:
            return None
        octets = self._stream(digest, hidden)
        if not compare_digest(digest, blake2b(octets, digest_size=_DIGEST, key=self._seal_key).digest()):
            return None
        return octets

    def _stream(self, digest: bytes, octets: bytes) -> bytes:
        """``octets`` hidden, or shown again, by the stream that belongs to ``digest``."""
        size = len(octets)
        stream = shake_256(self._hide_key + digest).digest(size)
        return (int.from_bytes(octets, "big") ^ int.from_bytes(stream, "big")).to_bytes(size, "big")
