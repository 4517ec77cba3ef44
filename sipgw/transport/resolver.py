"""Where a name leads (RFC 3263): drives ``sip.target`` with answers from ``/etc/hosts``, a cache, and the name servers.

``Resolver.resolve`` is what ``TransactionUser.resolve`` calls. What is known already is answered without waiting; else the run
that asked waits, and no other. Names are input from strangers, so everything has bounds: how long an answer is kept (``TTL``),
how many are kept, how many questions are open at a time, how long one resolution may take.

Servers are those of ``/etc/resolv.conf``, asked in their order; one that did not answer is asked last for ``SHUNNED`` seconds.
The globals of a script say more: ``dns_retr_time`` (seconds for each try), ``dns_retr_no`` (tries with each server),
``dns_servers_no`` (how many servers), ``dns_use_search_list``, ``dns_try_ipv6``, ``dns_try_naptr``, ``execdnsthreshold``.

A name in ``/etc/hosts`` is what that says, and has no NAPTR or SRV records. The search list is for names with fewer dots than
``ndots`` only: a longer one that does not exist would cost a multiple of the questions. A name server's word that a name is on
loopback counts only if a socket of ours is there, too: nobody shall reach what listens on this machine by a name of theirs
(hardening P36)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from random import SystemRandom
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred

from sipgw.sip.target import Question, Record, Target, literal, service_targets, targets
from sipgw.transport.namefiles import ResolvConf, WatchedFile, parse_hosts, parse_resolv_conf
from sipgw.transport.nameserver import Answer, Inquiry, NoAnswer, Server

TTL: Final = (5, 3600)
"""The least and the most seconds for which an answer is kept, whatever it says (hardening P36)."""
NEGATIVE_TTL: Final = (5, 300)
"""The same where there are no records, and ``UNSAID`` where nothing says how long that holds."""
UNSAID: Final = 60
FAILED_TTL: Final = 5
"""Seconds for which a question that no server answered is not asked again (RFC 2308 7)."""
MAX_ENTRIES: Final = 10_000
"""How many answers are kept; then the ones that were not asked for longest go."""
MAX_OPEN: Final = 256
"""How many questions wait for an answer at a time; another one is taken to have none."""
PATIENCE: Final = 8.0
"""Seconds after which a resolution goes on with what is known, without asking more."""
RETRY_TIME: Final = 2
RETRIES: Final = 2
"""Seconds for each try, and tries with each server, where nothing else says."""
QUESTION_TIME: Final = 10.0
"""Seconds after which no further server is tried."""
SHUNNED: Final = 30.0

NO_ERROR, NO_SUCH_NAME = 0, 3


class AnswerCache:
    """Answers that hold for a while; an empty one says that there is nothing."""

    def __init__(self, clock: Callable[[], float], size: int = MAX_ENTRIES) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[Question, tuple[float, Sequence[Record]]] = OrderedDict()

    def get(self, question: Question) -> Sequence[Record] | None:
        """The records that answer ``question``; None if it has to be asked."""
        entry = self._entries.get(question)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            del self._entries[question]
            return None
        self._entries.move_to_end(question)
        return entry[1]

    def put(self, question: Question, records: Sequence[Record], ttl: int | None) -> None:
        """Keep an answer for ``ttl`` seconds, within bounds; None: the server did not say."""
        least, most = TTL if records else NEGATIVE_TTL
        self.keep(question, records, min(max(UNSAID if ttl is None else ttl, least), most))

    def keep(self, question: Question, records: Sequence[Record], seconds: float) -> None:
        """Keep an answer for exactly ``seconds``."""
        self._entries[question] = (self._clock() + seconds, records)
        self._entries.move_to_end(question)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class Shared(Protocol):
    """Answers that several servers share (the module dns_cache). Neither method may take long, nor raise."""

    async def fetch(self, question: Question) -> tuple[Sequence[Record], int] | None:
        """An answer and for how many seconds it still holds; None if there is none."""

    async def keep(self, question: Question, records: Sequence[Record], ttl: int | None) -> None:
        """Keep the answer of a name server, which said ``ttl``."""


class Resolver:
    """The resolver of one server. ``user``: the transaction user, for its globals, sockets, statistics, clock and log.

    ``servers``: name servers to ask instead of those in ``resolv_conf``; ``random``: for the weights of SRV records."""

    def __init__(
        self,
        user: Any,
        reactor: Any,
        *,
        servers: Sequence[Server] | None = None,
        resolv_conf: str = "/etc/resolv.conf",
        hosts: str = "/etc/hosts",
        random: Callable[[], float] | None = None,
    ) -> None:
        self._user = user
        self._reactor = reactor
        self._servers = None if servers is None else tuple(servers)
        self._conf: WatchedFile[ResolvConf] = WatchedFile(resolv_conf, parse_resolv_conf, user.clock)
        self._hosts: WatchedFile[Mapping[str, tuple[str, ...]]] = WatchedFile(hosts, parse_hosts, user.clock)
        self._random = random or SystemRandom().random
        self._globals: Mapping[str, Any] = user.globals
        self._asking: dict[Question, list[Deferred[Sequence[Record]]]] = {}
        self._inquiries: set[Inquiry] = set()
        self._shunned: dict[Server, float] = {}
        self._closed = False
        self.cache = AnswerCache(user.clock)
        self.shared: Shared | None = None
        """What is asked before the name servers, and told of their answers."""
        self.total_queries = user.statistics.counter("dns", "dns_total_queries")
        self.slow_queries = user.statistics.counter("dns", "dns_slow_queries")

    # -- what the transaction user asks

    async def resolve(self, host: str, port: int | None, transport: str | None, secure: bool = False) -> list[Target]:
        """Find the targets of a URI, best first, at most eight; see ``sip.target.targets``."""
        transports, families = self._means()
        return await self._drive(host, port, transport, secure, transports, families)

    async def resolve_host(self, host: str, wanted: str = "") -> str | None:
        """Find one address of ``host``: of IPv4 ("4"), of IPv6 ("6"), or of either, IPv4 first ("")."""
        for family in {"4": ("A",), "6": ("AAAA",)}.get(wanted, ("A", "AAAA")):
            found = await self._drive(host, 5060, "udp", False, ("udp",), (family,))
            if found:
                return found[0].host
        return None

    async def service(self, service: str, host: str, port: int) -> list[Target]:
        """Find where a service of another protocol is; see ``sip.target.service_targets``. Both families are looked for."""
        return await self._follow(service_targets(service, host, port, families=("A", "AAAA"), random=self._random))

    def close(self) -> None:
        """Give up all that is asked; what waits goes on with no answer, and later questions have none."""
        self._closed = True
        for inquiry in list(self._inquiries):
            inquiry.cancel()

    def _means(self) -> tuple[list[str], list[str]]:
        """The transports and the kinds of addresses that our sockets can reach, the preferred first."""
        sockets = self._user.sockets
        transports = sorted({socket.transport for socket in sockets}, key=lambda one: _ORDER.get(one, len(_ORDER)))
        six = any(":" in socket.host for socket in sockets)
        four = any(":" not in socket.host for socket in sockets)
        families = ["A"] if four else []
        if six and (self._globals.get("dns_try_ipv6") or not four):
            families.append("AAAA")
        return transports, families

    async def _drive(
        self,
        host: str,
        port: int | None,
        transport: str | None,
        secure: bool,
        transports: Sequence[str],
        families: Sequence[str],
    ) -> list[Target]:
        return await self._follow(
            targets(host, port, transport, secure=secure, transports=transports, families=families, random=self._random)
        )

    async def _follow(self, steps: Generator[Question, Sequence[Record], list[Target]]) -> list[Target]:
        """Answer what a search asks, until it has found its targets."""
        until: float | None = None
        try:
            question = next(steps)
            while True:
                answer = self._known(question)
                if answer is None:
                    now = self._user.clock()
                    until = now + PATIENCE if until is None else until
                    answer = () if now >= until else await self._look_up(question)
                question = steps.send(answer)
        except StopIteration as done:
            found: list[Target] = done.value
            return found

    # -- one question

    def _known(self, question: Question) -> Sequence[Record] | None:
        """The answer to ``question``, if it can be given without asking."""
        kind, name = question
        if kind == "NAPTR" and not self._globals.get("dns_try_naptr", 1):
            return ()
        host = _without_service(name)
        addresses = self._hosts.get().get(host)
        if addresses is not None:
            if host is not name or kind not in ("A", "AAAA"):
                return ()
            return [Record(name, kind, address) for address in addresses if (":" in address) is (kind == "AAAA")]
        found = self.cache.get(question)
        if found is None and not _can_be(host):
            return ()
        return found

    async def _look_up(self, question: Question) -> Sequence[Record]:
        """Ask, or wait for the answer with whoever has asked the same already."""
        waiting = self._asking.get(question)
        answer: Deferred[Sequence[Record]] = Deferred()
        if waiting is not None:
            waiting.append(answer)
            return await answer
        if self._closed or len(self._asking) >= MAX_OPEN:
            self._user.log_rarely("dns", 1, f"{len(self._asking)} names are being looked up: {question.name} is not")
            return ()
        self._asking[question] = [answer]
        asked = Deferred.fromCoroutine(self._ask(question))
        asked.addErrback(self._broken)
        asked.addCallback(self._answered, question)
        return await answer

    def _answered(self, records: Sequence[Record], question: Question) -> None:
        for waiting in self._asking.pop(question):
            waiting.callback(records)

    def _broken(self, failure: Any) -> Sequence[Record]:
        self._user.broken(failure.value)
        return ()

    async def _ask(self, question: Question) -> Sequence[Record]:
        """Ask the name servers, for the name as it is or along the search list, and keep the answer."""
        started = self._user.clock()
        conf = self._conf.get()
        ttl: int | None = None
        if self.shared is not None:
            known = await self.shared.fetch(question)
            if known is not None:
                self.cache.put(question, self._permitted(known[0]), known[1])
                return self._permitted(known[0])
        self.total_queries.value += 1
        for name in self._names(question.name, conf):
            answer = await self._ask_servers(question.kind, name, conf)
            if answer is None:
                self.cache.keep(question, (), FAILED_TTL)
                break
            ttl = answer.ttl if ttl is None or answer.ttl is None else min(ttl, answer.ttl)
            if answer.records:
                records = _renamed(answer.records, name, question.name)
                self._share(question, records, answer.ttl)
                records = self._permitted(records)
                self.cache.put(question, records, answer.ttl)
                self._time(question, started)
                return records
        else:
            self._share(question, (), ttl)
            self.cache.put(question, (), ttl)
        self._time(question, started)
        return ()

    def _share(self, question: Question, records: Sequence[Record], ttl: int | None) -> None:
        if self.shared is not None:
            self._user.launch(self.shared.keep(question, records, ttl))

    def _permitted(self, records: Sequence[Record]) -> Sequence[Record]:
        """``records`` without the addresses of this machine to itself, unless one of our sockets has such an address."""
        if any(_is_loopback(socket.host) for socket in self._user.sockets):
            return records
        return [record for record in records if record.kind not in ("A", "AAAA") or not _is_loopback(str(record.data))]

    def _time(self, question: Question, started: float) -> None:
        """Count and log a question that took longer than ``execdnsthreshold``, in microseconds."""
        threshold = self._globals.get("execdnsthreshold") or 0
        took = (self._user.clock() - started) * 1e6
        if threshold and took > threshold:
            self.slow_queries.value += 1
            self._user.log_rarely(
                "slow dns", 1, f"looking up {question.kind} of {question.name} took {int(took)} us, more than {threshold}"
            )
            self._user.slow("dns", int(took), question.name)

    def _names(self, name: str, conf: ResolvConf) -> list[str]:
        """The full names that ``name`` may mean."""
        if not self._globals.get("dns_use_search_list", 1) or _without_service(name).count(".") >= conf.ndots:
            return [name]
        return [*(f"{name}.{domain}" for domain in conf.search[:6]), name]

    async def _ask_servers(self, kind: str, name: str, conf: ResolvConf) -> Answer | None:
        """The first answer that a server gives; None if none does."""
        get = self._globals.get
        seconds = get("dns_retr_time") or conf.timeout or RETRY_TIME
        tries = get("dns_retr_no") or conf.attempts or RETRIES
        servers = (self._servers or conf.servers)[: get("dns_servers_no") or None]
        started = now = self._user.clock()
        for _ in range(tries):
            for server in sorted(servers, key=lambda each: self._shunned.get(each, 0.0) > now):
                left = started + QUESTION_TIME - self._user.clock()
                if self._closed or left <= 0:
                    return None
                inquiry = Inquiry(self._reactor, server, kind, name, min(seconds, left))
                self._inquiries.add(inquiry)
                try:
                    answer = await inquiry.answer
                except NoAnswer as error:
                    self._shunned[server] = self._user.clock() + SHUNNED
                    if not self._closed:
                        self._user.log_rarely(("dns", server), 1, f"{error} (asked for {kind} of {name})")
                    continue
                finally:
                    self._inquiries.discard(inquiry)
                self._shunned.pop(server, None)
                if answer.code in (NO_ERROR, NO_SUCH_NAME):
                    return answer
        return None


_ORDER: Final = {"udp": 0, "tcp": 1, "tls": 2, "sctp": 3, "ws": 4, "wss": 5}
"""The order in which transports are tried for a name without NAPTR records."""


def _without_service(name: str) -> str:
    """``name`` without the labels that name a service (``_sip._udp.``)."""
    while name[:1] == "_":
        name = name.partition(".")[2]
    return name


def _can_be(host: str) -> bool:
    """Whether a domain name can be asked for: RFC 1035 2.3.4, and not one that never exists (RFC 6761 6.4)."""
    if not host.isascii() or not 0 < len(host) <= 240 or literal(host):
        return False
    labels = host.split(".")
    return all(0 < len(label) < 64 for label in labels) and not labels[-1].isdigit() and labels[-1] != "invalid"


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def _renamed(records: Sequence[Record], name: str, asked: str) -> Sequence[Record]:
    """``records`` as if ``asked`` had been the name that was found."""
    if name == asked:
        return records
    return [record._replace(name=asked) if record.name.lower() == name else record for record in records]
