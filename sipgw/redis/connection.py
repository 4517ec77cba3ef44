"""One connection to one server: txredisapi's protocol, opened, greeted and watched in our way.

txredisapi's own pools let a command wait for ever while there is no server, and give up for good when a password is refused;
so only its protocol is used, which writes commands and gives each its answer. A connection is ready when its server has
answered a greeting: AUTH, SELECT, PING (which a server that loads its data refuses), for a master that sentinels named ROLE."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from txredisapi import BaseRedisProtocol, RedisError

from sipgw.redis.answers import BadAnswer, Reader
from sipgw.redis.commands import Reply
from sipgw.redis.errors import Lost, NoAnswer, Refused, Unreachable
from sipgw.redis.url import Address, RedisUrl

C = TypeVar("C", bound="Connection")


@dataclass(frozen=True)
class Greeting:
    """What is said first on each connection, and how long it may take."""

    user: str = ""
    password: str = ""
    database: int = 0
    master: bool = False
    """Whether a server that is no master is refused."""
    tls: Callable[[str], Any] | None = None
    """The TLS options for a host."""
    keepalive: int = 10
    """Seconds between the kernel's probes of an idle connection; 0: none."""


class Connection(BaseRedisProtocol):  # type: ignore[misc]
    """A connection; ``address`` is its peer, ``answered`` when it last heard an answer, ``ended(self)`` is called at its end."""

    def __init__(self, reactor: Any, address: Address) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self.reactor = reactor
        self.address = address
        self.answered = reactor.seconds()
        self.ended: Callable[[Connection], None] | None = None
        self.silent = False
        """Whether it was given up since its server did not answer."""
        self.over: Deferred[None] | None = None
        """Fires at its end, where somebody waits for that."""
        self.opening: Deferred[Any] | None = None
        """What its opening waits for."""
        self._reason = ""
        self._reader = Reader()

    def connectionMade(self) -> None:
        """Nothing: the greeting is ``greet``."""

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        """Take what has come (not as txredisapi does: ``Reader``)."""
        try:
            replies = self._reader.feed(data)
        except BadAnswer as error:
            self._reason = str(error)
            self.transport.abortConnection()
            return
        for reply in replies:
            self.replyReceived(reply)

    def replyReceived(self, reply: Any) -> None:
        """Take one whole answer."""
        self.answered = self.reactor.seconds()
        super().replyReceived(reply)

    def connectionLost(self, why: Any) -> None:
        """Fail what waits for an answer, and tell the owner."""
        self._reason = self._reason or why.getErrorMessage()
        ended, self.ended = self.ended, None
        if ended is not None:
            ended(self)
        super().connectionLost(why)

    @property
    def alive(self) -> bool:
        """Whether commands can be sent."""
        return bool(self.connected) and not self.silent

    @property
    def waiting(self) -> int:
        """How many commands wait for their answers."""
        return len(self.replyQueue.waiting)

    async def ask(self, arguments: Sequence[bytes], limit: float) -> Reply:
        """Send one command; its answer within ``limit`` seconds. ``Refused``, ``Lost``, ``NoAnswer``.

        A connection whose server is silent for so long is given up: its other commands are lost too."""
        if not self.connected:
            raise Unreachable(f"the connection to {shown(self.address)} has ended")
        answer: Deferred[Any] = self.execute_command(*arguments)
        timer = self.reactor.callLater(max(0.0, limit), self._late, answer)
        try:
            return await answer  # type: ignore[no-any-return]
        except RedisError as error:
            raise Lost(f"the connection to {shown(self.address)} is lost: {self._reason or error}") from None
        finally:
            if timer.active():
                timer.cancel()

    def _late(self, answer: Deferred[Any]) -> None:
        answer.errback(NoAnswer(f"{shown(self.address)} does not answer in time"))
        self.give_up()

    def give_up(self) -> None:
        """End it at once, as its server is silent."""
        self.silent = True
        self.transport.abortConnection()

    def close(self) -> None:
        """End it in order; also while it is being opened."""
        if self.opening is not None:
            self.opening.cancel()
        elif self.transport is not None:
            self.transport.loseConnection()

    async def greet(self, greeting: Greeting, limit: float) -> None:
        """Say who we are, and hear that the server serves."""
        end = self.reactor.seconds() + limit

        async def say(*words: str) -> Reply:
            octets = [word.encode("utf-8", "surrogateescape") for word in words]
            return await self.ask(octets, end - self.reactor.seconds())

        if greeting.password:
            await say("AUTH", *filter(None, [greeting.user, greeting.password]))
        if greeting.database:
            await say("SELECT", str(greeting.database))
        await say("PING")
        if greeting.master:
            role = await say("ROLE")
            if not isinstance(role, list) or role[0] != b"master":
                raise Refused(f"NOMASTER {shown(self.address)} is no master")


class _Plug(Factory):
    noisy = False

    def __init__(self, made: Connection) -> None:
        self.made = made

    def buildProtocol(self, addr: Any) -> Any:
        """The one connection."""
        self.made.factory = self
        return self.made


async def connect(made: C, greeting: Greeting, limit: float) -> C:
    """Open a connection and greet the server, all within ``limit`` seconds; a ``RedisFault`` if that does not go well."""
    address, reactor = made.address, made.reactor
    end = reactor.seconds() + limit
    try:
        made.opening = _endpoint(reactor, address, greeting, limit).connect(_Plug(made))
        await made.opening
    except (ConnectError, ConnectingCancelledError, DNSLookupError, OSError, ValueError) as error:
        raise Unreachable(f"cannot connect to {shown(address)}: {error}") from None
    finally:
        made.opening = None
    if greeting.keepalive and address[1]:
        _keep_alive(made.transport, greeting.keepalive)
    try:
        await made.greet(greeting, end - reactor.seconds())
    except NoAnswer:
        raise
    except Lost as error:
        raise Unreachable(str(error)) from None
    except Refused as error:
        made.close()
        raise Unreachable(f"{shown(address)} refuses to serve: {error}") from None
    return made


def shown(address: Address) -> str:
    """An address as text."""
    host, port = address
    return host if not port else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _endpoint(reactor: Any, address: Address, greeting: Greeting, limit: float) -> Any:
    host, port = address
    if not port:
        return UNIXClientEndpoint(reactor, host, timeout=limit)  # type: ignore[no-untyped-call]
    endpoint: Any
    try:
        six = ip_address(host).version == 6
    except ValueError:
        endpoint = HostnameEndpoint(reactor, host, port, timeout=limit)
    else:
        endpoint = (TCP6ClientEndpoint if six else TCP4ClientEndpoint)(reactor, host, port, timeout=limit)
    return endpoint if greeting.tls is None else wrapClientTLS(greeting.tls(host), endpoint)


def _keep_alive(transport: Any, seconds: int) -> None:
    transport.setTcpKeepAlive(True)
    handle = transport.getHandle()
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):
        if hasattr(socket, name) and hasattr(handle, "setsockopt"):
            handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)


def tls_options(url: RedisUrl) -> Callable[[str], Any] | None:
    """The TLS options that a URL asks for, for each host; None where it asks for none. ``ValueError`` if a file cannot be read.

    The server's certificate is verified: its chain, and that it is for the host (or ``tls_name``)."""
    if not url.tls:
        return None
    options = url.options
    try:
        trust: Any = platformTrust()  # type: ignore[no-untyped-call]
        if "tls_ca" in options:
            trust = trustRootFromCertificates(_certificates(options["tls_ca"]))  # type: ignore[no-untyped-call]
        own = None
        if "tls_cert" in options:
            files = dict.fromkeys([options["tls_cert"], options.get("tls_key", options["tls_cert"])])
            own = PrivateCertificate.loadPEM(b"\n".join(Path(file).read_bytes() for file in files))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ValueError(f"{url.shown}: {error.filename}: {error.strerror}") from None
    except Exception as error:  # OpenSSL's own, which says no more than that it is none
        raise ValueError(f"{url.shown}: its TLS files cannot be used: {error}") from None
    return lambda host: optionsForClientTLS(options.get("tls_name", host), trust, own)


def _certificates(file: str) -> list[Certificate]:
    end = "-----END CERTIFICATE-----"
    parts = Path(file).read_text(encoding="ascii").split(end)[:-1]
    if not parts:
        raise ValueError(f"{file} holds no certificate")
    return [Certificate.loadPEM((part + end).encode()) for part in parts]
