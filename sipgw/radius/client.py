"""Asking RADIUS servers over UDP: one request goes to one server after another, some times each, until one answers.

An identifier is 8 bits wide, so a port of ours has at most 256 requests under way; more ports are opened as they are needed,
up to ``MOST_PORTS`` for each server. An answer counts only if it is signed with the secret, for that very request. A server
that has not answered is asked last for ``radius_deadtime`` seconds."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Any

from pyrad.packet import Packet
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol

from sipgw.aaa import AaaAnswer, AaaError, Attributes
from sipgw.radius.config import RadiusConfig, RadiusServer
from sipgw.radius.packets import Names, answer, request

MOST_PORTS = 16
"""Ports of ours toward one server."""
NAS_PORT = 5060
"""What ``NAS-Port`` says, as in OpenSIPS."""


class _Outcome:
    """What becomes of one request."""

    def __init__(self) -> None:
        self._found: AaaAnswer | AaaError | None = None
        self._waiting: Deferred[None] | None = None

    def set(self, found: AaaAnswer | AaaError) -> None:
        """It is answered, or given up."""
        self._found = found
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def within(self, reactor: Any, seconds: float) -> AaaAnswer | AaaError | None:
        """What has become of it, None if nothing has after ``seconds``."""
        if self._found is None:
            self._waiting = Deferred()
            timer = reactor.callLater(seconds, self._wake)
            await self._waiting
            if timer.active():
                timer.cancel()
        return self._found


class _Port(DatagramProtocol):
    """One port of ours for the requests to one server.

    It is not connected: Twisted closes a connected one when nobody is at the server's port."""

    def __init__(self, names: Names, signed: bool, peer: tuple[str, int], own: str) -> None:
        self.peer = peer
        self.own = own
        """The address that our datagrams come from."""
        self._names = names
        self._signed = signed
        self._next = 0
        self.waiting: dict[int, tuple[Packet, _Outcome]] = {}
        self.transport: Any = None

    @property
    def full(self) -> bool:
        """Whether all identifiers are in use."""
        return len(self.waiting) >= 256

    def begin(self, packet: Any) -> _Outcome:
        """Give a request an identifier; where its answer will be."""
        while self._next in self.waiting:
            self._next = (self._next + 1) % 256
        packet.id = self._next
        self._next = (self._next + 1) % 256
        outcome = _Outcome()
        self.waiting[packet.id] = packet, outcome
        return outcome

    def forget(self, number: int, outcome: _Outcome) -> None:
        """Wait for an answer no more."""
        if number in self.waiting and self.waiting[number][1] is outcome:
            del self.waiting[number]

    def datagramReceived(self, data: bytes, address: Any) -> None:
        """Take an answer; what is none is passed over."""
        asked = self.waiting.get(data[1]) if len(data) >= 20 and address[:2] == self.peer else None
        if asked is not None:
            found = answer(self._names, asked[0], data, self._signed)
            if found is not None:
                del self.waiting[data[1]]
                asked[1].set(found)

    def give_up(self, error: AaaError) -> None:
        """Fail all that waits, and close."""
        for _, outcome in [*self.waiting.values()]:
            outcome.set(error)
        self.waiting.clear()
        self.transport.stopListening()


class RadiusClient:
    """The servers of one configuration (``aaa.Aaa``). ``resolve(host)`` gives the address of a name, None if there is none."""

    def __init__(
        self, reactor: Any, config: RadiusConfig, names: Names, resolve: Callable[[str], Awaitable[str | None]]
    ) -> None:
        self._reactor = reactor
        self._config = config
        self._names = names
        self._resolve = resolve
        self._ports: dict[tuple[str, int], list[_Port]] = {}
        self._dead: dict[RadiusServer, float] = {}
        self._stopped = False

    def stop(self) -> None:
        """Close all ports; what waits fails."""
        self._stopped = True
        for ports in self._ports.values():
            for port in ports:
                port.give_up(AaaError("the server stops"))
        self._ports.clear()

    # -- aaa.Aaa

    def check(self, attributes: Sequence[str], values: Sequence[tuple[str, str]] = ()) -> None:
        """Refuse what the dictionary does not have."""
        missing = [name for name in attributes if self._names.find(name) is None]
        missing += [f"{name} of {attribute}" for attribute, name in values if self._names.number(attribute, name) is None]
        if missing:
            raise AaaError(f"the RADIUS dictionary {self._config.dictionary} does not have {', '.join(missing)}")

    def has(self, attribute: str) -> bool:
        """Whether the dictionary has an attribute."""
        return self._names.find(attribute) is not None

    async def authenticate(self, attributes: Attributes) -> AaaAnswer:
        """Send an Access-Request."""
        return await self._ask(self._config.auth, False, attributes)

    async def account(self, attributes: Attributes) -> None:
        """Send an Accounting-Request."""
        await self._ask(self._config.acct, True, attributes)

    # -- requests

    async def _ask(self, servers: Sequence[RadiusServer], account: bool, attributes: Attributes) -> AaaAnswer:
        if not servers:
            raise AaaError(f"the RADIUS configuration has no {'acctserver' if account else 'authserver'}")
        began = self._reactor.seconds()
        faults: list[str] = []
        for server in sorted(servers, key=lambda each: self._dead.get(each, 0.0) > began):
            more = list(attributes)
            if account:
                more.append(("Acct-Delay-Time", int(self._reactor.seconds() - began)))
            try:
                found = await self._ask_one(server, account, more)
            except AaaError as error:
                faults.append(f"{server}: {error}")
                self._dead[server] = self._reactor.seconds() + self._config.deadtime
                if self._stopped:
                    break
            else:
                self._dead.pop(server, None)
                return found
        raise AaaError("; ".join(faults))

    async def _ask_one(self, server: RadiusServer, account: bool, attributes: Attributes) -> AaaAnswer:
        packet: Any = request(self._names, server.secret, account, attributes)
        port = await self._port(server)
        for name, value in self._about_us(port):
            if not any(name.lower() == given.lower() for given, _ in attributes) and self.has(name):
                self._names.encode(packet, name, value)
        outcome = port.begin(packet)
        data = packet.RequestPacket()
        try:
            for _ in range(self._config.retries):
                port.transport.write(data, port.peer)
                found = await outcome.within(self._reactor, self._config.timeout)
                if isinstance(found, AaaError):
                    raise found
                if found is not None:
                    return found
        finally:
            port.forget(packet.id, outcome)
        raise AaaError(f"no answer to {self._config.retries} requests in {self._config.timeout * self._config.retries} s")

    def _about_us(self, port: _Port) -> list[tuple[str, int | str]]:
        own = port.own
        found: list[tuple[str, int | str]] = [("NAS-Port", NAS_PORT)]
        if self._config.nas_identifier:
            found.append(("NAS-Identifier", self._config.nas_identifier))
        else:
            found.append(("NAS-IPv6-Address" if ":" in own else "NAS-IP-Address", own))
        return found

    async def _port(self, server: RadiusServer) -> _Port:
        """A port of ours toward a server with an identifier to spare."""
        try:
            ip_address(server.host)
            address: str | None = server.host
        except ValueError:
            address = await self._resolve(server.host)
        if address is None:
            raise AaaError("its name has no address")
        if self._stopped:
            raise AaaError("the server stops")
        ports = self._ports.setdefault((address, server.port), [])
        for port in ports:
            if not port.full:
                return port
        if len(ports) >= MOST_PORTS:
            raise AaaError(f"{len(ports) * 256} requests are waiting for an answer already")
        bindaddr = self._config.bindaddr
        try:
            own = bindaddr or _source((address, server.port))
            made = _Port(self._names, self._config.signed, (address, server.port), own)
            self._reactor.listenUDP(0, made, interface=bindaddr or ("::" if ":" in address else ""))
        except (OSError, CannotListenError) as error:
            raise AaaError(f"no port can be opened: {error}") from None
        ports.append(made)
        return made


def _source(peer: tuple[str, int]) -> str:
    """The address of ours from which the kernel sends to ``peer``."""
    with socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])
