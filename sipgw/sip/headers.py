"""The table of header fields: usual spelling, compact form, how often, where defined.

A new header is a new row here. ``NAMES`` is what makes parsing fast: each usual way to write a name points to the one
lower-case name under which the header is known inside sipgw. Spellings that are not in it are lowered each time and
never kept, so no sender can make a table grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

__all__ = ["HEADERS", "NAMES", "SINGLE", "Header", "canonical", "usual"]


class Header(NamedTuple):
    """Describes one header field.

    ``name``: as RFCs write it. ``compact``: its one-letter form or "". ``many``: whether it may come more than
    once or hold a comma-separated list (RFC 3261 7.3.1). ``where``: RFC and section.
    """

    name: str
    compact: str
    many: bool
    where: str


_TABLE = """
Accept                     - many RFC 3261 20.1
Accept-Contact             a many RFC 3841 9.2
Accept-Encoding            - many RFC 3261 20.2
Accept-Language            - many RFC 3261 20.3
Accept-Resource-Priority   - many RFC 4412 3.2
Alert-Info                 - many RFC 3261 20.4
Allow                      - many RFC 3261 20.5
Allow-Events               u many RFC 6665 8.2.2
Answer-Mode                - one  RFC 5373
Authentication-Info        - one  RFC 3261 20.6
Authorization              - many RFC 3261 20.7
Call-ID                    i one  RFC 3261 20.8
Call-Info                  - many RFC 3261 20.9
Contact                    m many RFC 3261 20.10
Content-Disposition        - one  RFC 3261 20.11
Content-Encoding           e many RFC 3261 20.12
Content-ID                 - one  RFC 8262
Content-Language           - many RFC 3261 20.13
Content-Length             l one  RFC 3261 20.14
Content-Type               c one  RFC 3261 20.15
CSeq                       - one  RFC 3261 20.16
Date                       - one  RFC 3261 20.17
Diversion                  - many RFC 5806
Error-Info                 - many RFC 3261 20.18
Event                      o one  RFC 6665 8.2.1
Expires                    - one  RFC 3261 20.19
Feature-Caps               - many RFC 6809
Flow-Timer                 - one  RFC 5626 11.1
From                       f one  RFC 3261 20.20
Geolocation                - many RFC 6442 4.1
Geolocation-Error          - one  RFC 6442 4.3
Geolocation-Routing        - one  RFC 6442 4.2
History-Info               - many RFC 7044
Identity                   y many RFC 8224
Identity-Info              n one  RFC 4474
In-Reply-To                - many RFC 3261 20.21
Info-Package               - one  RFC 6086
Join                       - one  RFC 3911
Max-Breadth                - one  RFC 5393 5.8
Max-Forwards               - one  RFC 3261 20.22
MIME-Version               - one  RFC 3261 20.24
Min-Expires                - one  RFC 3261 20.23
Min-SE                     - one  RFC 4028 5
Organization               - one  RFC 3261 20.25
P-Access-Network-Info      - many RFC 7315 4.4
P-Asserted-Identity        - many RFC 3325 9.1
P-Asserted-Service         - many RFC 6050
P-Associated-URI           - many RFC 7315 4.1
P-Called-Party-ID          - one  RFC 7315 4.2
P-Charging-Function-Addresses - many RFC 7315 4.5
P-Charging-Vector          - one  RFC 7315 4.6
P-Early-Media              - one  RFC 5009
P-Preferred-Identity       - many RFC 3325 9.2
P-Preferred-Service        - many RFC 6050
P-Visited-Network-ID       - many RFC 7315 4.3
Path                       - many RFC 3327
Permission-Missing         - many RFC 5360
Policy-Contact             - many RFC 6794
Priority                   - one  RFC 3261 20.26
Priv-Answer-Mode           - one  RFC 5373
Privacy                    - one  RFC 3323 4.2
Proxy-Authenticate         - many RFC 3261 20.27
Proxy-Authorization        - many RFC 3261 20.28
Proxy-Require              - many RFC 3261 20.29
RAck                       - one  RFC 3262 7.2
Reason                     - many RFC 3326
Record-Route               - many RFC 3261 20.30
Recv-Info                  - many RFC 6086
Refer-Sub                  - one  RFC 4488
Refer-To                   r one  RFC 3515 2.1
Referred-By                b one  RFC 3892
Reject-Contact             j many RFC 3841 9.3
Remote-Party-ID            - many draft-ietf-sip-privacy-04
Replaces                   - one  RFC 3891
Reply-To                   - one  RFC 3261 20.31
Request-Disposition        d many RFC 3841 9.1
Require                    - many RFC 3261 20.32
Resource-Priority          - many RFC 4412 3.1
Retry-After                - one  RFC 3261 20.33
Route                      - many RFC 3261 20.34
RSeq                       - one  RFC 3262 7.1
Security-Client            - many RFC 3329
Security-Server            - many RFC 3329
Security-Verify            - many RFC 3329
Server                     - one  RFC 3261 20.35
Service-Route              - many RFC 3608
Session-Expires            x one  RFC 4028 4
Session-ID                 - one  RFC 7989
SIP-ETag                   - one  RFC 3903 11.3.1
SIP-If-Match               - one  RFC 3903 11.3.2
Subject                    s one  RFC 3261 20.36
Subscription-State         - one  RFC 6665 8.2.3
Supported                  k many RFC 3261 20.37
Suppress-If-Match          - one  RFC 5839
Target-Dialog              - one  RFC 4538
Timestamp                  - one  RFC 3261 20.38
To                         t one  RFC 3261 20.39
Trigger-Consent            - many RFC 5360
Unsupported                - many RFC 3261 20.40
User-Agent                 - one  RFC 3261 20.41
User-to-User               - many RFC 7433
Via                        v many RFC 3261 20.42
Warning                    - many RFC 3261 20.43
WWW-Authenticate           - many RFC 3261 20.44
"""


def _read_table() -> Iterator[Header]:
    for line in _TABLE.strip().splitlines():
        name, compact, many, where = line.split(None, 3)
        yield Header(name, "" if compact == "-" else compact, many == "many", where)


HEADERS: Final[dict[str, Header]] = {header.name.lower(): header for header in _read_table()}
"""Every known header by its lower-case name."""

SINGLE: Final = frozenset({
    "call-id", "content-length", "content-type", "cseq", "expires", "from", "max-forwards", "min-expires",
    "retry-after", "to",
})
"""The headers whose repetition makes a message malformed (RFC 3261 7.3.1, RFC 4475 3.3.8).

Only those that decide how a message is routed, framed or matched: other repeated ones travel on as they came."""


def _spell(header: Header) -> Iterator[str]:
    name = header.name
    yield from (name, name.lower(), name.upper(), name.title(), name.capitalize())
    if header.compact:
        yield from (header.compact, header.compact.upper())


NAMES: Final[dict[str, str]] = {
    spelling: header.name.lower() for header in HEADERS.values() for spelling in _spell(header)
}
"""Usual spelling -> lower-case name, compact forms included."""


def canonical(name: str) -> str:
    """Return the lower-case name that stands for every spelling of ``name``: ``V`` -> ``via``."""
    known = NAMES.get(name)
    if known is not None:
        return known
    lowered = name.strip(" \t\r\n").lower()
    return NAMES.get(lowered, lowered)


def usual(name: str) -> str:
    """Return ``name`` as RFCs write it (``call-id`` -> ``Call-ID``); an unknown name comes back as it is."""
    header = HEADERS.get(canonical(name))
    return name if header is None else header.name
