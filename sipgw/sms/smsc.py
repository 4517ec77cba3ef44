"""We as an SMSC: ESMEs bind to us, with a system id and a password, from addresses that we know.

A bind that fails counts against the address it came from: after ``ATTEMPTS`` of them within ``WINDOW`` seconds further
connections from there are closed at once, until the window is over. So passwords, which SMPP limits to eight characters,
cannot be tried out."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Final, Protocol

from twisted.internet.protocol import Factory

from sipgw.sms.link import Link
from sipgw.sms.pdu import Pdu
from sipgw.sms.session import Answered, Settings

__all__ = ["Account", "Port", "Watcher"]

ATTEMPTS: Final = 5
WINDOW: Final = 60.0
ADDRESSES: Final = 10_000
"""Addresses whose failed binds are remembered."""
CONNECTIONS: Final = 1000
"""Connections at once; more are closed."""


@dataclass
class Account:
    """Somebody who may bind to us. ``sources``: the networks that it may come from, none for any; ``senders``: how the addresses
    begin that it may send from, none for any; ``sessions``: how many at once."""

    system_id: str
    password: str = field(repr=False)
    sources: Sequence[IPv4Network | IPv6Network] = ()
    senders: Sequence[str] = ()
    kinds: frozenset[str] = frozenset(("transmitter", "receiver", "transceiver"))
    sessions: int = 10

    def may_come_from(self, host: str) -> bool:
        """Whether it may bind from there."""
        return not self.sources or any(ip_address(host) in network for network in self.sources)

    def may_send_from(self, address: str) -> bool:
        """Whether it may send messages in that name."""
        return not self.senders or address.startswith(tuple(self.senders))


class Watcher(Protocol):
    """What a ``Port`` tells."""

    def entered(self, account: Account, link: Link) -> None:
        """An ESME has bound; what waits for it can be sent."""

    def left(self, account: Account, link: Link, reason: str) -> None:
        """Its session is over."""

    def rejected(self, host: str, system_id: str, why: str) -> None:
        """A bind was refused."""

    def submitted(self, account: Account, link: Link, pdu: Pdu) -> None:
        """It sent a request: answer it with ``link.respond``."""

    def acknowledged(self, account: Account, link: Link, answer: Answered) -> None:
        """It answered a request of ours, or will not."""


class Port(Factory):
    """Where ESMEs connect to. ``accounts`` are found by system id when somebody binds, so the mapping may change."""

    noisy = False

    def __init__(
        self, accounts: Mapping[str, Account], settings: Settings, reactor: Any, watcher: Watcher, system_id: str = "sipgw"
    ) -> None:
        self.accounts = accounts
        self.settings = settings
        self.reactor = reactor
        self.watcher = watcher
        self.system_id = system_id
        self.links: dict[Link, Account | None] = {}
        self.shut_out = 0
        """Connections that were closed because of failed binds before them, or because there were too many."""
        self._failures: dict[str, list[float]] = {}
        self._ports: list[Any] = []

    def listen(self, host: str, port: int, tls: Any = None) -> int:
        """Open the port, for TLS with ``tls`` (a ``CertificateOptions``); which one it is (for port 0)."""
        if tls is None:
            opened = self.reactor.listenTCP(port, self, interface=host)
        else:
            opened = self.reactor.listenSSL(port, self, tls, interface=host)
        self._ports.append(opened)
        return int(opened.getHost().port)

    async def stop(self) -> None:
        """Take no more connections, and end those that are there; returns when the ports are closed."""
        for link in list(self.links):
            link.unbind()
        ports, self._ports = self._ports, []
        for each in ports:
            closed = each.stopListening()
            if closed is not None:
                await closed

    def buildProtocol(self, addr: Any) -> Link | None:
        """Take a connection, unless too much came from there."""
        if len(self.links) >= CONNECTIONS or self._failed(addr.host) >= ATTEMPTS:
            self.shut_out += 1
            return None
        return Link("smsc", self.settings, self.reactor, self)

    def sessions(self, system_id: str) -> list[Link]:
        """The connections on which that account has bound."""
        return [link for link, account in self.links.items() if account is not None and account.system_id == system_id]

    # ---- what connections tell ----

    def connected(self, link: Link) -> None:
        """Wait for the bind; the session has a timer for it."""
        self.links[link] = None

    def asked(self, link: Link, bind: Pdu) -> None:
        """Let somebody in, or not. Whether the name or the password was wrong is not told."""
        host = link.peer.rpartition(":")[0]
        system_id, kind = bind["system_id"], bind.command.removeprefix("bind_")
        account = self.accounts.get(system_id)
        expected = account.password if account is not None else "\0"
        right = hmac.compare_digest(expected.encode("utf-8"), bind["password"].encode("utf-8"))
        why, status = "", ""
        if account is None or not right:
            why, status = "wrong name or password", "ESME_RBINDFAIL"
        elif not account.may_come_from(host):
            why, status = "not from there", "ESME_RBINDFAIL"
        elif kind not in account.kinds:
            why, status = f"not as a {kind}", "ESME_RBINDFAIL"
        elif len(self.sessions(system_id)) >= account.sessions:
            why, status = f"has {account.sessions} sessions already", "ESME_RALYBND"
        if status or account is None:
            self._fail(host)
            self.watcher.rejected(host, system_id, why)
            link.refuse(bind, status)
            return
        self.links[link] = account
        link.accept(bind, self.system_id)

    def bound(self, link: Link) -> None:
        """Tell that somebody is there."""
        account = self.links[link]
        assert account is not None
        self._failures.pop(link.peer.rpartition(":")[0], None)
        self.watcher.entered(account, link)

    def delivered(self, link: Link, pdu: Pdu) -> None:
        """Pass on what it wants."""
        account = self.links[link]
        assert account is not None
        self.watcher.submitted(account, link, pdu)

    def answered(self, link: Link, answer: Answered) -> None:
        """Pass on what it says."""
        account = self.links[link]
        assert account is not None
        self.watcher.acknowledged(account, link, answer)

    def closed(self, link: Link, reason: str) -> None:
        """Forget the connection."""
        account = self.links.pop(link, None)
        if account is not None:
            self.watcher.left(account, link, reason)

    # ---- failed binds ----

    def _failed(self, host: str) -> int:
        """How many binds have failed from there lately."""
        times = self._failures.get(host)
        if times is None:
            return 0
        since = self.reactor.seconds() - WINDOW
        times[:] = [time for time in times if time > since]
        if not times:
            del self._failures[host]
        return len(times)

    def _fail(self, host: str) -> None:
        while host not in self._failures and len(self._failures) >= ADDRESSES:
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(host, []).append(self.reactor.seconds())
