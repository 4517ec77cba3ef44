"""Where a request goes: the choice of transport, address and port of RFC 3263 4, as a pure function of DNS answers.

``targets`` is a generator: it yields each ``Question``, is sent the answer (the records of the answer section, an
empty sequence for a name that does not exist or a server that does not answer), and returns the ordered ``Target``
list. An IP literal asks nothing. Who drives it may wait for each answer, or take it from a cache:

    steps = targets_of(uri, random=random.random)
    try:
        question = next(steps)
        while True:
            question = steps.send(await look_up(question))
    except StopIteration as done:
        return done.value

The rule: DNS answers are input from strangers. Names are matched, only five aliases (CNAME) are followed for one
question, no more than eight targets come out, and not more than ``MAX_QUESTIONS`` are asked, whatever is answered.
Which addresses may be used at all (not loopback, not multicast) is for the one who opens the flow to say.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, NamedTuple

from sipgw.sip.grammar import ipv6_groups, is_ipv4
from sipgw.sip.uri import Uri

__all__ = [
    "MAX_CNAMES", "MAX_QUESTIONS", "MAX_TARGETS", "Naptr", "Question", "Record", "Srv", "Target", "Targets", "default_port",
    "literal", "service_targets", "targets", "targets_of", "transport_for",
]

MAX_TARGETS: Final = 8
MAX_CNAMES: Final = 5
MAX_QUESTIONS: Final = 32


class Question(NamedTuple):
    """Asks for the records of ``kind`` ("NAPTR", "SRV", "A", "AAAA") of ``name``."""

    kind: str
    name: str


class Srv(NamedTuple):
    """The data of an SRV record (RFC 2782); a ``target`` of "." says that there is no such service."""

    priority: int
    weight: int
    port: int
    target: str


class Naptr(NamedTuple):
    """The data of a NAPTR record (RFC 3403 4.1)."""

    order: int
    preference: int
    flags: str
    service: str
    replacement: str


class Record(NamedTuple):
    """One record of an answer: ``data`` is an address (A, AAAA), a name (CNAME), a ``Srv`` or a ``Naptr``."""

    name: str
    kind: str
    data: str | Srv | Naptr


class Target(NamedTuple):
    """One place to try: ``transport`` in lower case, ``host`` an IP address without brackets."""

    transport: str
    host: str
    port: int


Targets = Generator[Question, Sequence[Record], list[Target]]
_Asking = Generator[Question, Sequence[Record], None]

_SERVICES: Final = {"sip+d2u": "udp", "sip+d2t": "tcp", "sips+d2t": "tls", "sip+d2s": "sctp"}  # RFC 3263 4.1, 10
_PREFIXES: Final = {"udp": "_sip._udp.", "tcp": "_sip._tcp.", "tls": "_sips._tcp.", "sctp": "_sip._sctp."}
_SECURE: Final = {"tcp": "tls", "tls": "tls", "ws": "wss", "wss": "wss"}  # RFC 3261 26.2.2, RFC 7118 5.5
_PORTS: Final = {"tls": 5061, "ws": 80, "wss": 443}


def default_port(transport: str) -> int:
    """Return the port of ``transport`` where none is written (RFC 3261 19.1.2, RFC 7118 5.4)."""
    return _PORTS.get(transport, 5060)


def literal(host: str) -> str:
    """Return the IP address that ``host`` is, without brackets, or "" if it is a name."""
    if host[:1] == "[" and host[-1:] == "]":
        host = host[1:-1]
    if is_ipv4(host) or (":" in host and ipv6_groups(host) is not None):
        return host
    return ""


def transport_for(transport: str | None, secure: bool) -> str:
    """Return the transport that a transport parameter means, "" if it cannot be used with sips, ``None`` meaning default."""
    if transport is None:
        return "tls" if secure else "udp"
    transport = transport.lower()
    return _SECURE.get(transport, "") if secure else transport


def targets_of(
    uri: Uri, *, transports: Sequence[str] = ("udp",), families: Sequence[str] = ("A",), random: Callable[[], float]
) -> Targets:
    """Choose the targets of a SIP or SIPS URI; ``maddr`` stands for the host (RFC 3263 4)."""
    host = uri.param("maddr") or uri.host
    return targets(
        host, uri.port, uri.param("transport"), secure=uri.scheme == "sips", transports=transports, families=families,
        random=random,
    )


def targets(
    host: str,
    port: int | None = None,
    transport: str | None = None,
    *,
    secure: bool = False,
    transports: Sequence[str] = ("udp",),
    families: Sequence[str] = ("A",),
    random: Callable[[], float],
) -> Targets:
    """Choose where to send what is for ``host``: at most eight targets, best first; none if it cannot be reached.

    ``port``, ``transport``: as written in the URI or Via, or ``None``. ``secure``: a SIPS URI. ``transports``: those
    we have, the preferred first. ``families``: "A", "AAAA", the preferred first. ``random()``: 0 <= x < 1, for the
    weights of SRV. With ``transport`` given this is RFC 3263 5 as well, for a response whose connection is gone."""
    address = literal(host)
    choice = _Choice(families, random)
    if address or port is not None or transport is not None:
        wanted = transport_for(transport, secure)
        if wanted not in transports:
            return []
        if address:
            return [Target(wanted, address, default_port(wanted) if port is None else port)]
        if port is None:
            yield from choice.ask_service(wanted, host)
        if not choice.had_service:
            yield from choice.ask_addresses(wanted, host, default_port(wanted) if port is None else port)
        return choice.found
    # RFC 3263 4.1: a bare name: NAPTR, then SRV of each transport, then the name's own addresses
    usable = [one for one in transports if not secure or one in _SECURE.values()]
    for wanted, name in (yield from choice.ask_naptr(host, usable)):
        yield from choice.ask_srv(wanted, name)
    if not choice.had_service:
        for wanted in usable:
            yield from choice.ask_service(wanted, host)
    if not choice.had_service:
        wanted = transport_for(None, secure)
        if wanted in usable:
            yield from choice.ask_addresses(wanted, host, default_port(wanted))
    return choice.found


def service_targets(
    service: str, host: str, port: int, *, families: Sequence[str], random: Callable[[], float]
) -> Generator[Question, Sequence[Record], list[Target]]:
    """Give the targets of a service of another protocol over TCP, such as "_xmpp-server._tcp" at ``host``: what its SRV records
    lead to, and without any its addresses at ``port`` (RFC 6120 3.2). Driven as ``targets``."""
    if literal(host):
        return [Target("tcp", literal(host), port)]
    choice = _Choice(families, random)
    yield from choice.ask_srv("tcp", f"{service}.{host}")
    if not choice.had_service:
        yield from choice.ask_addresses("tcp", host, port)
    return choice.found


class _Choice:
    """One run of the procedure: what was found so far, how many questions it took, whether an SRV record exists."""

    __slots__ = ("asked", "families", "found", "had_service", "random")

    def __init__(self, families: Sequence[str], random: Callable[[], float]) -> None:
        self.families = families
        self.random = random
        self.found: list[Target] = []
        self.asked = 0
        self.had_service = False

    def ask(self, kind: str, name: str) -> Generator[Question, Sequence[Record], list[str | Srv | Naptr]]:
        """Ask one question and follow aliases; a record of another name or kind is no answer."""
        name = _plain(name)
        hops = 0
        while self.asked < MAX_QUESTIONS:
            self.asked += 1
            asked = name
            answer = yield Question(kind, name)
            while True:
                values = [record.data for record in answer if record.kind == kind and _plain(record.name) == name]
                if values:
                    return values
                alias = next((one.data for one in answer if one.kind == "CNAME" and _plain(one.name) == name), None)
                if not isinstance(alias, str):
                    break
                hops += 1
                if hops > MAX_CNAMES:
                    return []
                name = _plain(alias)
            if name == asked:
                break
        return []

    def ask_addresses(self, transport: str, name: str, port: int) -> _Asking:
        """Add the addresses of ``name`` (RFC 3263 4.2)."""
        for family in self.families:
            if len(self.found) >= MAX_TARGETS:
                break
            for address in (yield from self.ask(family, name)):
                if isinstance(address, str) and literal(address):
                    self._add(Target(transport, literal(address), port))

    def ask_service(self, transport: str, host: str) -> _Asking:
        """Add what the SRV records of ``transport`` at ``host`` lead to."""
        if transport in _PREFIXES:
            yield from self.ask_srv(transport, _PREFIXES[transport] + host)

    def ask_srv(self, transport: str, name: str) -> _Asking:
        """Add what the SRV records of ``name`` lead to, in their order."""
        if len(self.found) >= MAX_TARGETS:
            return
        records = [record for record in (yield from self.ask("SRV", name)) if isinstance(record, Srv)]
        if records:
            self.had_service = True  # a target of "." too says that there is no need to look elsewhere
        named = [record for record in records if _plain(record.target) and 0 < record.port < 65536]
        for record in _in_order(named, self.random):
            if len(self.found) >= MAX_TARGETS or self.asked >= MAX_QUESTIONS:
                break
            yield from self.ask_addresses(transport, record.target, record.port)

    def ask_naptr(
        self, name: str, transports: Sequence[str]
    ) -> Generator[Question, Sequence[Record], list[tuple[str, str]]]:
        """Return the services of ``name`` that we can use, as transport and name of its SRV records (RFC 3263 4.1).

        Of several orders the lowest that has one decides (RFC 3403 4.1)."""
        usable = []
        for record in (yield from self.ask("NAPTR", name)):
            if isinstance(record, Naptr) and record.flags.lower() == "s" and _plain(record.replacement):
                transport = _SERVICES.get(record.service.lower(), "")
                if transport in transports:
                    usable.append((record.order, record.preference, transport, record.replacement))
        usable.sort(key=lambda found: found[:2])
        return [(transport, replacement) for order, _, transport, replacement in usable if order == usable[0][0]]

    def _add(self, target: Target) -> None:
        if target not in self.found and len(self.found) < MAX_TARGETS:
            self.found.append(target)


def _in_order(records: list[Srv], random: Callable[[], float]) -> Iterator[Srv]:
    """Give SRV records by priority, and by weighted chance among equals (RFC 2782), each when it is needed."""
    waiting = sorted(records, key=lambda record: (record.priority, record.weight > 0))
    while waiting:
        equals = [record for record in waiting if record.priority == waiting[0].priority]
        mark = int(random() * (sum(record.weight for record in equals) + 1))
        for record in equals:
            mark -= record.weight
            if mark <= 0:
                break
        waiting.remove(record)
        yield record


def _plain(name: str) -> str:
    """Return a domain name in lower case and without the dot at its end."""
    return name.lower().rstrip(".")
