"""What the transports of events share: reading ``host:port``."""

from __future__ import annotations

from typing import Any

from sipgw.core.surroundings import is_address
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint


async def find_address(user: Any, text: str, usage: str) -> tuple[str, str, int]:
    """The host as it is written, its address and the port of ``host:port``; ``ValueError`` says what is wrong with it.

    A name is looked up now, once. IPv6 addresses have brackets."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"write {usage}")
    try:
        number = parse_uint(port, 65535, "port")
    except MalformedMessage:
        number = 0
    if not number:
        raise ValueError(f"{port!r} is no port")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not is_address(plain):
        found = None if plain is not host else await user.resolve_host(host, "")
        if found is None:
            raise ValueError(f"there is no address of {host!r}")
        plain = found
    elif ":" in plain and plain is host:
        raise ValueError("an IPv6 address needs brackets")
    return host, plain, number
