"""Microseconds of the path of a message in memory, without a socket: ``python -m bench.memory``.

Each figure is the best of several rounds: what else the machine does only ever adds to it."""

from __future__ import annotations

import timeit
from collections.abc import Callable

from sipgw.sip.edits import NO_EDITS, remove_first_value, write
from sipgw.sip.message import Message, Request, parse, stamp_via
from sipgw.sip.replies import respond_to

INVITE = (
    b"INVITE sip:bob@biloxi.example.com:5060;transport=udp SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 10.1.2.3:5060;branch=z9hG4bK776asdhds;rport\r\n"
    b"Max-Forwards: 70\r\n"
    b"Route: <sip:10.0.0.1:5060;lr>\r\n"
    b'From: "Alice" <sip:alice@atlanta.example.com>;tag=1928301774\r\n'
    b"To: <sip:bob@biloxi.example.com>\r\n"
    b"Call-ID: a84b4c76e66710@pc33.atlanta.example.com\r\n"
    b"CSeq: 314159 INVITE\r\n"
    b"Contact: <sip:alice@10.1.2.3:5060>\r\n"
    b"Allow: INVITE, ACK, CANCEL, OPTIONS, BYE\r\n"
    b"Supported: replaces, timer\r\n"
    b"User-Agent: bench\r\n"
    b"Content-Type: application/sdp\r\n"
    b"Content-Length: 142\r\n\r\n"
) + b"v=0\r\n" + b"x" * 137
"""An INVITE with 13 headers and a body."""


def best(call: Callable[[], object], number: int = 5000, rounds: int = 7) -> float:
    """Return the microseconds of one call: the best of the rounds."""
    return min(timeit.repeat(call, number=number, repeat=rounds)) / number * 1e6


def read_for_relay() -> Message:
    """Parse, check and read what a relay reads."""
    message = parse(INVITE)
    message.check()
    assert message.routes and message.max_forwards
    return message


def relay() -> bytes:
    """Do in memory what a relay does to a request: stamp, check, pop Route, count down, push Via and Record-Route."""
    message = parse(INVITE)
    stamp_via(message, "10.1.2.3", 5060)
    message.check()
    edits = remove_first_value(NO_EDITS, message, "route").replace(2, f"Max-Forwards: {(message.max_forwards or 70) - 1}")
    edits = edits.insert_before(1, "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK00c0ffee")
    edits = edits.first_line("INVITE sip:bob@10.9.9.9 SIP/2.0").insert_before(1, "Record-Route: <sip:10.0.0.1;lr>")
    return write(message, edits)


def bench_parse() -> None:
    """Print what parsing and what follows from it cost for one INVITE with 13 headers."""
    request = parse(INVITE)
    assert isinstance(request, Request)
    for name, call in (
        ("parse", lambda: parse(INVITE)),
        ("parse, check, read for a relay", read_for_relay),
        ("parse to octets relayed", relay),
        ("write untouched", lambda: write(request, NO_EDITS)),
        ("respond_to", lambda: respond_to(request, 200, to_tag="x")),
    ):
        print(f"{name:<32}{best(call):8.2f} us")


if __name__ == "__main__":
    bench_parse()
