"""Blacklists of destinations (``dst_blacklist``, ``use_blacklist``): rules that forbid to send to an address.

A list is in force for a message when the script says so (``use_blacklist``), or always if it has the flag *default*. Without a
flag nobody changes it at run time (*read-only*); with *expire* its rules may end by themselves. The list *dns*, which
``disable_dns_blacklist = no`` makes, is filled by the proxy: a destination that answered 503 or nothing at all is avoided for
``FAILED_FOR`` seconds.

A rule names a network, and may name a transport, a port and a pattern (as of ``fnmatch(3)``) for the text of the whole message
as it would leave. Of a rule with ``!`` the opposite is meant: it forbids all that does not fit it.

Each message to be sent may be looked up here, so a list finds rules for single addresses, of which there may be thousands, in a
dict; only networks and exceptions are tried one by one."""

from __future__ import annotations

import re
from bisect import insort
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

from sipgw.script.nodes import Blacklist as Definition

FAILED_FOR: Final = 240.0
"""Seconds for which the list *dns* avoids a destination that failed."""

MAX_RULES: Final = 10_000
"""How many rules one list takes while the server runs; then those that would end first make room."""

AUTOMATIC: Final = "dns"
"""The name of the list that the proxy fills."""

TRANSPORTS: Final = frozenset("udp tcp tls sctp ws wss bin bins hep_udp hep_tcp hep_tls smpp msrp msrps ipsec".split())
"""What a rule may name as its transport."""

Network = IPv4Network | IPv6Network
Key = tuple[int, int]
"""An address as version and number."""


class ReadOnly(Exception):
    """A list is not to be changed at run time."""


class NoExpiry(Exception):
    """A list takes no rules that end by themselves."""


@lru_cache(maxsize=4096)
def key_of(host: str) -> Key:
    """An IP address as a key; an IPv4 address written as IPv6 is what it is. ``ValueError`` if it is none."""
    address = ip_address(host)
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.version, int(address)


class Rule:
    """One rule. ``transport`` "" and ``port`` 0 fit any, ``pattern`` "" any text; ``exception``: the opposite of all that."""

    __slots__ = ("_glob", "_mask", "_net", "exception", "network", "pattern", "port", "transport", "version")

    def __init__(
        self, network: Network, transport: str = "", port: int = 0, pattern: str = "", exception: bool = False
    ) -> None:
        self.network = network
        self.transport = transport
        self.port = port
        self.pattern = pattern
        self.exception = exception
        self.version: int = network.version
        self._net = int(network.network_address)
        self._mask = int(network.netmask)
        self._glob = python_glob(pattern)

    @property
    def host(self) -> Key | None:
        """The only address that the rule forbids, None if there are more."""
        alone = not self.exception and self.network.prefixlen == self.network.max_prefixlen
        return (self.version, self._net) if alone else None

    def forbids(self, key: Key, transport: str, port: int, text: Callable[[], str]) -> bool:
        """Whether a message of ``text`` may not go to the address ``key``."""
        fits = (
            key[0] == self.version
            and key[1] & self._mask == self._net
            and (not self.transport or self.transport == transport)
            and (not self.port or self.port == port)
            and (not self._glob or fnmatchcase(text(), self._glob))
        )
        return fits is not self.exception

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Any, ...]:
        return (self.version, self._net, self._mask, self.transport, self.port, self.pattern, self.exception)


def parse_network(text: str) -> Network:
    """Read an address or a network, ``10.0.0.0/8`` or with a mask; bits of the host are cut off. ``ValueError`` if it is none."""
    host, slash, mask = text.strip().replace("[", "").replace("]", "").partition("/")
    if slash and ":" in mask:
        bits = int(ip_address(mask))
        mask = str(bits.bit_count())
        if bits != ((1 << int(mask)) - 1) << (128 - int(mask)):
            raise ValueError(f"{text!r} has no mask")
    return ip_network(f"{host}/{mask}" if slash else host, strict=False)


def parse_rule(text: str) -> Rule:
    """Read ``[!][transport,]network[,port[,pattern]]``; ``ValueError`` says what is wrong."""
    rest = text.strip()
    exception = rest.startswith("!")
    transport, comma, after = rest.removeprefix("!").partition(",")
    transport = transport.strip().lower()
    if comma and (transport == "any" or transport in TRANSPORTS):
        rest = after
    else:
        transport, rest = "any", rest.removeprefix("!")
    network, _, rest = rest.partition(",")
    port, _, pattern = rest.partition(",")
    return Rule(parse_network(network), "" if transport == "any" else transport, parse_port(port), pattern.strip(), exception)


def parse_port(text: str) -> int:
    """Read a port; "", "any" and 0 are any. ``ValueError`` if it is none."""
    text = text.strip()
    if text in ("", "any"):
        return 0
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ValueError(f"{text!r} is no port")
    return int(text)


class Blacklist:
    """The rules of one name. ``owner``: "script", or "dns" of the automatic one; ``flags``: "readonly", "expire", "default"."""

    def __init__(self, name: str, flags: Iterable[str] = (), owner: str = "script") -> None:
        self.name = name
        self.owner = owner
        self.flags = frozenset(flags) or frozenset({"readonly"})
        self._lasting: list[Rule] = []
        self._ending: list[tuple[float, int, Rule]] = []
        self._known: set[Rule] = set()
        self._hosts: dict[Key, list[Rule]] = {}
        self._others: list[Rule] = []
        self._count = 0

    def rules(self, now: float) -> list[tuple[Rule, float | None]]:
        """All rules in the order in which they are tried, each with the time when it ends, or None."""
        self._expire(now)
        return [(rule, None) for rule in self._lasting] + [(rule, until) for until, _, rule in self._ending]

    def define(self, rule: Rule) -> None:
        """Add a rule of the configuration, after those that are there; one that is there is not added twice."""
        if rule not in self._known:
            self._lasting.append(rule)
            self._index(rule)

    def add(self, rule: Rule, now: float, seconds: float = 0) -> None:
        """Add ``rule``, for good or for ``seconds``; one that is there stays as it is. ``ReadOnly``, ``NoExpiry``."""
        if "readonly" in self.flags:
            raise ReadOnly(self.name)
        if seconds and "expire" not in self.flags:
            raise NoExpiry(self.name)
        self._expire(now)
        if rule in self._known:
            return
        if len(self._known) >= MAX_RULES:
            if not self._ending:
                raise ValueError(f"blacklist {self.name} has {MAX_RULES} rules and takes no more")
            self._forget(self._ending.pop(0)[2])
        if seconds:
            self._count += 1
            insort(self._ending, (now + seconds, self._count, rule))
        elif "expire" in self.flags:
            self._lasting.insert(0, rule)
        else:
            self._lasting.append(rule)
        self._index(rule)

    def remove(self, rule: Rule, now: float) -> bool:
        """Remove the rule that is the same as ``rule``; False if there is none. ``ReadOnly``."""
        if "readonly" in self.flags:
            raise ReadOnly(self.name)
        self._expire(now)
        if rule not in self._known:
            return False
        self._lasting = [other for other in self._lasting if other != rule]
        self._ending = [entry for entry in self._ending if entry[2] != rule]
        self._forget(rule)
        return True

    def forbids(self, key: Key, transport: str, port: int, text: Callable[[], str], now: float) -> bool:
        """Whether any rule forbids to send there."""
        if self._ending and self._ending[0][0] <= now:
            self._expire(now)
        for rule in self._hosts.get(key, ()):
            if rule.forbids(key, transport, port, text):
                return True
        return any(rule.forbids(key, transport, port, text) for rule in self._others)

    def find(self, key: Key, transport: str, port: int, text: str, now: float) -> tuple[Rule, float | None] | None:
        """The first rule that forbids it, and when that ends."""
        for rule, until in self.rules(now):
            if rule.forbids(key, transport, port, lambda: text):
                return rule, until
        return None

    def _index(self, rule: Rule) -> None:
        self._known.add(rule)
        host = rule.host
        if host is None:
            self._others.append(rule)
        else:
            self._hosts.setdefault(host, []).append(rule)

    def _forget(self, rule: Rule) -> None:
        self._known.discard(rule)
        host = rule.host
        if host is None:
            self._others.remove(rule)
            return
        self._hosts[host].remove(rule)
        if not self._hosts[host]:
            del self._hosts[host]

    def _expire(self, now: float) -> None:
        ended = 0
        while ended < len(self._ending) and self._ending[ended][0] <= now:
            self._forget(self._ending[ended][2])
            ended += 1
        del self._ending[:ended]


class Blacklists:
    """All lists of one server; ``default`` are those in force for every message."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.default: tuple[Blacklist, ...] = ()
        self._lists: dict[str, Blacklist] = {}

    def configure(self, definitions: Iterable[Definition], automatic: bool) -> None:
        """Take the ``dst_blacklist``s of a configuration, and with ``automatic`` the list *dns*; ``ValueError`` names a name
        that is taken."""
        for definition in definitions:
            made = self.create(definition.name, definition.flags)
            for node in definition.rules:
                made.define(Rule(node.network, node.protocol, node.port, node.pattern, node.exception))
        if automatic:
            self.create(AUTOMATIC, ("expire", "default"), AUTOMATIC)

    def create(self, name: str, flags: Iterable[str] = (), owner: str = "script") -> Blacklist:
        """Make a new list; ``ValueError`` if its name is taken."""
        if name in self._lists:
            raise ValueError(f"there is a blacklist {name!r} already")
        made = self._lists[name] = Blacklist(name, flags, owner)
        self.default = tuple(one for one in self._lists.values() if "default" in one.flags)
        return made

    def get(self, name: str) -> Blacklist | None:
        """The list of that name."""
        return self._lists.get(name)

    def all(self) -> list[Blacklist]:
        """All lists in the order in which they were made."""
        return list(self._lists.values())

    def forbid(
        self, used: tuple[Blacklist, ...], host: str, transport: str, port: int, text: Callable[[], str]
    ) -> str:
        """The name of the list among ``used`` that forbids to send to ``host``, an IP address; "" if none does."""
        key = key_of(host)
        now = self.clock()
        for one in used:
            if one.forbids(key, transport, port, text, now):
                return one.name
        return ""

    def failed(self, host: str, transport: str, port: int) -> None:
        """Learn that a destination does not answer: the list *dns*, where there is one, avoids it for a while."""
        automatic = self._lists.get(AUTOMATIC)
        if automatic is not None and automatic.owner == AUTOMATIC:
            version, number = key_of(host)
            network = IPv4Network(number) if version == 4 else IPv6Network(number)
            automatic.add(Rule(network, transport, port), self.clock(), FAILED_FOR)


_ESCAPED = re.compile(r"\\(.)|\[\^", re.DOTALL)


def python_glob(pattern: str) -> str:
    """A pattern of C's ``fnmatch`` as Python's wants it: a backslash quotes the next character, ``[^`` is ``[!``."""

    def translate(found: re.Match[str]) -> str:
        quoted: str | None = found[1]
        if quoted is None:
            return "[!"
        return f"[{quoted}]" if quoted in "*?[" else quoted

    return _ESCAPED.sub(translate, pattern)
