"""Microseconds of the path of a message in memory, without a socket: ``python -m bench.memory``.

Each figure is the best of several rounds: what else the machine does only ever adds to it."""

from __future__ import annotations

import gc
import time
import timeit
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from sipgw.modules.core import Core
from sipgw.proxy.location import LocationTable
from sipgw.proxy.lookup import lookup
from sipgw.proxy.registrar import Registrar
from sipgw.proxy.registrar_flags import LookupFlags, SaveFlags
from sipgw.script.compiler import compile_config
from sipgw.script.parser import parse as parse_config
from sipgw.script.run import Run
from sipgw.script.symbols import ModuleSymbols, RouteKind, Symbols
from sipgw.script.transformations import TRANSFORMATIONS
from sipgw.script.variables import VARIABLES
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


ROUTE = """
route {
    $var(a) = 1;
    $var(b) = "text";
    if ($rm == "INVITE") $var(c) = 3;
    if ($var(a) == 1) $var(d) = $var(a) + 1;
    if ($var(b) == "TEXT") $var(e) = "e";
    if ($var(none) == NULL) $var(f) = NULL;
    if ($var(d) > 1 && $var(d) < 5) $var(g) = 7;
    if (isflagset("F")) $var(h) = 8; else $var(h) = 9;
    if ($var(b) =~ "^te") $avp(x) := "y";
    $var(i) = $var(h);
    $var(j) = 10;
    $var(k) = 11;
    xlog("L_DBG", "$ru is not put together");
    return(1);
}
"""
"""8 conditions and 12 assignments (and a log line below the level)."""


def bench_route() -> None:
    """Print what a compiled route costs."""
    core = Core.declared(Core())
    symbols = Symbols.of([ModuleSymbols("core", core.functions, VARIABLES, TRANSFORMATIONS)])
    routes = compile_config(parse_config(ROUTE), symbols)
    assert routes.request is not None
    request = parse(INVITE)
    run = Run(request, RouteKind.REQUEST, None, 0.0, SimpleNamespace(xlog_level=2, log_level=2))
    function = routes.request.function
    print(f"{'route: 8 conditions, 12 assigned':<32}{best(lambda: function(run)):8.2f} us")


REGISTER = (
    "REGISTER sip:example.org SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 10.1.2.3:5060;branch=z9hG4bK776asdhds;rport\r\n"
    "Max-Forwards: 70\r\n"
    "From: <sip:user{0}@example.org>;tag=1928301774\r\n"
    "To: <sip:user{0}@example.org>\r\n"
    "Call-ID: {0}.a84b4c76e66710@10.1.2.3\r\n"
    "CSeq: 314159 REGISTER\r\n"
    "Contact: <sip:user{0}@10.1.2.3:5060;transport=udp>\r\n"
    "Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY, MESSAGE\r\n"
    "User-Agent: Bench Phone 1.2.3\r\n"
    "Expires: 3600\r\n"
    "Content-Length: 0\r\n\r\n"
)
"""A REGISTER as phones send it, of user ``{0}``."""


NO_FLAGS = SaveFlags()


def resident() -> int:
    """Return the octets of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class RegisterBench:
    """A registrar with so many contacts, and what is done to it."""

    def __init__(self, contacts: int) -> None:
        self.contacts = contacts
        self.registrar = Registrar()
        self.table = LocationTable()
        self.flow = SimpleNamespace(socket=None)
        self.now = 0.0
        self.user = 0

    def run(self, data: bytes) -> Run:
        """Parse and check what would have come in."""
        message = parse(data)
        stamp_via(message, "10.1.2.3", 5060)
        message.check()
        return Run(message, RouteKind.REQUEST, self.flow, self.now, None)

    def fill(self) -> None:
        """Register every user once, over the default hour."""
        for user in range(self.contacts):
            self.now = 3600.0 * user / self.contacts
            self.registrar.save(self.run(REGISTER.format(user).encode()), self.table, NO_FLAGS)

    def refresh(self) -> bytes:
        """Do all that a REGISTER of a known user needs, from its octets to those of the answer."""
        self.user = (self.user + 7919) % self.contacts
        run = self.run(REGISTER.format(self.user).encode())
        answer = self.registrar.save(run, self.table, NO_FLAGS)
        assert isinstance(run.message, Request)
        return respond_to(run.message, answer.status, answer.reason, to_tag="x", headers=answer.headers)

    def save(self) -> None:
        """Do the registrar's own part of the same REGISTER again."""
        self.registrar.save(self.same, self.table, NO_FLAGS)

    def find(self) -> None:
        """Look a user up."""
        self.user = (self.user + 7919) % self.contacts
        self.same.uri = f"sip:user{self.user}@example.org"
        assert lookup(self.registrar, self.same, self.table, LookupFlags()) == 1

    def measure(self) -> None:
        """Print time and memory."""
        gc.collect()
        before = resident()
        start = time.perf_counter()
        self.fill()
        seconds = time.perf_counter() - start
        gc.collect()
        size = (resident() - before) / self.contacts
        self.same = self.run(REGISTER.format(self.contacts // 2).encode())
        print(
            f"{self.contacts:>7} contacts: filled in {seconds:5.2f} s, {size:4.0f} octets each; "
            f"REGISTER {best(self.refresh, 2000):5.2f} us, of this save {best(self.save, 2000):5.2f} us; "
            f"lookup {best(self.find, 2000):5.2f} us; "
            f"sweep that finds nothing {best(lambda: self.table.sweep(self.now), 100):5.2f} us"
        )


def bench_registrar(most: int = 100_000) -> None:
    """Print what a REGISTER and a lookup cost, and that it does not grow with the contacts, ``most`` at last."""
    for contacts in (most // 100, most // 10, most):
        RegisterBench(contacts).measure()


if __name__ == "__main__":
    bench_parse()
    bench_route()
    bench_registrar()
