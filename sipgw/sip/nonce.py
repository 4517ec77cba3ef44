"""Nonces of digest authentication (RFC 7616 3.3, 5.4): signed, short-lived, and good for one answer.

A nonce says when it was given out, which one it is and what was offered with it, and a keyed digest (HMAC, RFC 2104) proves that
this server has said so. Nothing is kept of nonces that nobody uses, so a flood of requests without credentials costs no memory.
Of those that were used the highest nonce count is kept until they are too old: a count must grow (RFC 7616 3.4), and a nonce
without a count, or one that failed, is used up. Where too many were used, older ones become stale: a replay is never taken.

Times are seconds of whatever clock the owner has; a nonce of the future is stale as one of the past is."""

from __future__ import annotations

import hmac
import struct
from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from sipgw.sip.auth import ALGORITHMS

__all__ = ["CODES", "QOPS", "NonceTable"]

CODES: Final = {f"{name}{session}": code for code, (name, session) in enumerate(
    (name, session) for name in ALGORITHMS for session in ("", "-sess")
)}
"""What stands in a nonce for an algorithm in lower case."""
QOPS: Final = ("auth", "auth-int")

_PARTS: Final = struct.Struct(">IQB")
_MAC: Final = 14
_SIZE: Final = _PARTS.size + _MAC  # 27 octets, 36 characters without padding
_ONCE: Final = 1 << 32
"""Beyond each nonce count: nothing comes after it."""
MAX_LENGTH: Final = 64
"""Characters beyond which no text is a nonce of ours."""
EARLY: Final = 2
"""Seconds that a nonce may come from the future: clocks of servers that share a secret differ."""


class NonceTable:
    """The nonces of one server: which it gave out, and which of them were used.

    ``secret``: what they are signed with. ``lifetime``: seconds for which one is good. ``limit``: how many used ones are
    remembered at most; 0 where none is, so that each is good as often as one likes (``disable_nonce_check``)."""

    def __init__(self, secret: bytes, lifetime: int, limit: int) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._limit = limit
        self._next = 0
        self._floor = 0
        """Nonces below this one are stale, whatever their time: their counts are forgotten."""
        self._used: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """The highest count of each used nonce and when it was given out; first the one that was used first."""

    def __len__(self) -> int:
        return len(self._used)

    def make(self, now: float, algorithm: str = "", qop: Collection[str] = ()) -> str:
        """Return a new nonce for a challenge with this algorithm ("": none is named) and these qualities of protection."""
        flags = CODES[algorithm.lower() or "md5"] << 2
        for bit, name in enumerate(QOPS):
            if name in qop:
                flags |= 1 << bit
        parts = _PARTS.pack(int(now) & 0xFFFFFFFF, self._next, flags)
        self._next += 1
        return b64encode(parts + self._sign(parts)).decode("ascii")

    def is_good(self, nonce: str, now: float, algorithm: str, qop: str, count: int) -> bool:
        """Tell whether an answer to ``nonce`` may be looked at, and take that use of it down.

        The algorithm must be the one that was offered, so that nobody answers with a weaker one, and so must the ``qop``;
        without one an answer is as RFC 2069 has it. ``count``: the nonce count, 0 where there is none."""
        parts = self._open(nonce)
        if parts is None:
            return False
        time, index, flags = parts
        if not -EARLY <= int(now) - time <= self._lifetime:
            return False
        if flags >> 2 != CODES.get(algorithm.lower()):
            return False
        if qop and (qop not in QOPS or not flags & (1 << QOPS.index(qop))):
            return False
        return not self._limit or self._use(index, time, count if qop else _ONCE, int(now))

    def spoil(self, nonce: str) -> None:
        """Take no further answer to ``nonce``, since one was wrong: each guess costs a challenge."""
        parts = self._open(nonce)
        if parts is not None and parts[1] in self._used:
            self._used[parts[1]] = _ONCE, parts[0]

    def _use(self, index: int, time: int, count: int, now: int) -> bool:
        if index < self._floor or count < 1:
            return False
        used = self._used
        known = used.get(index)
        if known is not None:
            if count <= known[0]:
                return False
            used[index] = count, time
            return True
        while used:
            first = next(iter(used))
            if len(used) < self._limit and now - used[first][1] <= self._lifetime:
                break
            if now - used[first][1] <= self._lifetime:
                self._floor = max(self._floor, first + 1)
            del used[first]
        if index < self._floor:
            return False
        used[index] = count, time
        return True

    def _open(self, nonce: str) -> tuple[int, int, int] | None:
        """What stands in a nonce of ours."""
        if len(nonce) > MAX_LENGTH:
            return None
        try:
            octets = b64decode(nonce, validate=True)
        except ValueError:
            return None
        parts, mac = octets[: _PARTS.size], octets[_PARTS.size :]
        if len(octets) != _SIZE or not hmac.compare_digest(mac, self._sign(parts)):
            return None
        time, index, flags = _PARTS.unpack(parts)
        return time, index, flags

    def _sign(self, parts: bytes) -> bytes:
        return hmac.digest(self._secret, parts, "sha256")[:_MAC]

