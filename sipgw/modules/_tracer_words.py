"""The words of the tracer's parameters: scopes, legs, our own address."""

from __future__ import annotations

import re
from ipaddress import ip_address

from sipgw.modules._tracer_targets import End, facility_of

MESSAGE, TRANSACTION, DIALOG, SESSION = range(1, 5)
"""What is traced: one message, its transaction, its dialog, the session of a B2BUA."""
CALLER, CALLEE = "C", "c"
"""The legs of a call, as ``flags`` names them."""

_LOCAL = re.compile(
    r"(?:(udp|tcp|tls|sctp|ws|wss):)?(\[[0-9A-Fa-f:.]+\]|[^:\s]+)(?::([0-9]{1,5}))?", re.IGNORECASE
)


def scope_of(text: str) -> int:
    """What the letters of a scope ask for, the widest of them; ``ValueError`` for one that is none."""
    found = 0
    for letter in text.lower():
        if letter not in "mtdb ":
            raise ValueError(f"trace knows no scope {letter!r}; write m, t, d or b")
        if letter == "b":
            found = SESSION
        elif letter != " " and not (letter == "m" and found) and not (letter == "t" and found == DIALOG):
            found = {"m": MESSAGE, "t": TRANSACTION, "d": DIALOG}[letter]
    return found


def check_facility(text: str) -> None:
    """Refuse what is no syslog facility."""
    facility_of(text)


def check_local(text: str) -> None:
    """Refuse what is no ``[proto:]address[:port]``."""
    local_end(text)


def local_end(text: str) -> End:
    """``[proto:]address[:port]`` as an end of a message."""
    found = _LOCAL.fullmatch(text.strip())
    if found is None:
        raise ValueError("write [proto:]address[:port]")
    return (found[1] or "udp").lower(), str(ip_address(found[2].strip("[]"))), int(found[3] or 5060)
