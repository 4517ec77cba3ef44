"""The bounds of what sipgw reads from a peer, in one place: code, manual and tests read them here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Holds every size and count that the parser refuses to exceed.

    Sizes are octets of the received bytes (of one header: characters of its logical line).
    """

    message: int = 65536  # whole message, head and body; beyond: 513 (RFC 3261 21.5.7)
    headers: int = 100  # logical header lines; beyond: 400
    header: int = 8192  # one logical line, folds included; beyond: 400
    vias: int = 70  # Via values, one per hop: as many as Max-Forwards allows
    contacts: int = 50  # Contact values of one message
    uri: int = 1024  # Request-URI; beyond: 414 (RFC 3261 21.4.12)
    method: int = 64  # RFC 4475 3.1.1.2 (intmeth) needs 43
    body: int = 49152  # Content-Length; beyond: 513
    cseq: int = 2**32 - 1  # RFC 3261 8.1.1.5 says 2**31, RFC 4475 3.1.2.4 tolerates up to this
    max_forwards: int = 255  # RFC 3261 20.22
    expires: int = 2**32 - 1  # seconds, RFC 3261 20.19
    port: int = 65535
    ttl: int = 255  # RFC 3261 20.42
    pings: int = 8  # pings answered out of one piece of a stream (RFC 5626 4.4.1)
    parts: int = 32  # parts of a multipart body


LIMITS: Final = Limits()
