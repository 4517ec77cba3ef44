"""event_rabbitmq: events as messages of RabbitMQ (AMQP 0-9-1), and ``rabbitmq_publish`` for messages of the script's own.

A socket is ``rabbitmq:user:password@host:port/exchange=NAME;persistent?routing_key``; only host and routing key must be there.
One connection serves all that goes to one server as one user. Every message is published with the broker's confirmation (an
extension of RabbitMQ): what has not been confirmed in time counts as not told. The protocol is that of ``pika``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol

from sipgw.core.events import Params, Sink
from sipgw.exports import Avp, Module, function, listed, param
from sipgw.mi.jsonrpc import notification
from sipgw.script.run import Run

PORT = 5672
MAX_WAITING = 1000
"""How many messages to one server may wait to be confirmed."""
PAUSE = 1.0
"""Seconds after a connection that could not be made until the next is tried."""
LONGEST_WAIT = 5.0
"""Seconds that a message has where ``timeout`` is 0."""
NO_TLS = "sipgw has no tls_mgm yet, and without it no TLS to a broker: use amqp:// on a network of your own"
_WORDS = ("uri", "frames", "retries", "exchange", "heartbeat", "immediate", "mandatory", "non-persistent", "tls_domain")


@dataclass(frozen=True, slots=True)
class Place:
    """A server and who speaks to it. ``frames``: octets of a frame at most; ``heartbeat``: seconds, 0 for none."""

    host: str
    port: int = PORT
    user: str = "guest"
    password: str = field(default="guest", repr=False)
    vhost: str = "/"
    frames: int = 131072
    heartbeat: int = 0

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """One ``server_id``."""

    id: str
    place: Place
    exchange: str = ""
    retries: int = 0
    mandatory: bool = False
    persistent: bool = True


def parse_server(text: str) -> Settings:
    """Read ``[id] uri=amqp://...; name=value; ...``; ``ValueError`` says what is wrong with it."""
    id, bracket, rest = text.strip().removeprefix("[").partition("]")
    if not bracket or not id.strip() or not text.strip().startswith("["):
        raise ValueError(f"bad server {text!r}: write [id] uri=amqp://user:password@host/vhost; exchange=name")
    words: dict[str, str] = {}
    for word in filter(None, map(str.strip, rest.split(";"))):
        name, _, value = (part.strip() for part in word.partition("="))
        if name not in _WORDS:
            raise ValueError(f"server {id}: there is no {name!r}, but {', '.join(_WORDS)}")
        words[name] = value
    if "immediate" in words:
        raise ValueError(f"server {id}: RabbitMQ knows no immediate any more (since 3.0)")
    url = urlsplit(words.get("uri", ""))
    if url.scheme == "amqps" or "tls_domain" in words:
        raise ValueError(f"server {id}: {NO_TLS}")
    if url.scheme != "amqp":
        raise ValueError(f"server {id}: uri must be amqp://user:password@host:port/vhost")
    place = Place(
        url.hostname or "localhost",
        url.port or PORT,
        unquote(url.username or "guest"),
        unquote(url.password or "guest"),
        unquote(url.path[1:]) or "/",
        _number(id, words, "frames", 131072, 4096, 2**31 - 1),
        _number(id, words, "heartbeat", 0, 0, 65535),
    )
    retries = _number(id, words, "retries", 0, 0, 10)
    return Settings(
        id.strip(), place, words.get("exchange", ""), retries, "mandatory" in words, "non-persistent" not in words
    )


def _number(id: str, words: dict[str, str], name: str, default: int, least: int, most: int) -> int:
    text = words.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ValueError(f"server {id}: {name} is {text!r}: write {least} to {most}")
    return int(text)


def parse_socket(address: str, heartbeat: int = 0) -> tuple[Place, str, str, bool]:
    """The server, the exchange, the routing key and whether messages last, of what follows ``rabbitmq:``."""
    server, slash, rest = address.rpartition("/") if "?" not in address else address.partition("/")
    if not slash:
        raise ValueError("write rabbitmq:user:password@host:port/exchange=name?routing_key")
    options, mark, key = rest.partition("?")
    if not mark:
        options, key = "", rest
    credentials, at, place = server.rpartition("@")
    host, colon, port = place.rpartition(":") if not place.endswith("]") else (place, "", "")
    if not colon:
        host, port = place, str(PORT)
    user, _, password = credentials.partition(":")
    if not host or not key or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("write rabbitmq:user:password@host:port/exchange=name?routing_key")
    exchange, persistent = "", False
    for option in filter(None, options.split(";")):
        name, _, value = option.partition("=")
        if name == "exchange":
            exchange = value
        elif name == "persistent":
            persistent = True
        else:
            raise ValueError(NO_TLS if name == "tls_domain" else f"there is no option {name!r}, but exchange and persistent")
    host = host.removeprefix("[").removesuffix("]")
    made = Place(host, int(port), user if at else "guest", password if at else "guest", heartbeat=heartbeat)
    return made, exchange, key, persistent


def _check_milliseconds(value: int) -> None:
    if not 0 <= value <= 3_600_000:
        raise ValueError(f"write 0 to 3600000 milliseconds, not {value}")


def _check_tls(value: int) -> None:
    if value:
        raise ValueError(NO_TLS)


class EventRabbitmq(Module):
    """Tells of events through RabbitMQ, and publishes messages of the script."""

    heartbeat: int = param(0, "Seconds between heartbeats on the connections of sockets; 0: none", check=_check_milliseconds)
    connect_timeout: int = param(500, "Milliseconds in which a connection must be made", check=_check_milliseconds)
    timeout: int = param(0, "Milliseconds in which a message must be confirmed; 0: 5 seconds", check=_check_milliseconds)
    use_tls: int = param(0, "1: TLS to brokers, which is refused: there is no tls_mgm yet", check=_check_tls)
    server_id: str = param(
        "", "A server to publish to: [id] uri=amqp://user:password@host/vhost; exchange=name", check=parse_server, each="_add"
    )

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._servers: dict[str, Settings] = {}
        self._brokers: dict[Place, Broker] = {}
        super().__init__(server, **parameters)
        if server is not None:
            server.user.events.add_transport("rabbitmq", self)

    def _add(self, text: str) -> None:
        made = parse_server(text)
        self._servers[made.id] = made

    async def start(self) -> None:
        """Find pika; connections are made when they are needed."""
        try:
            import pika  # noqa: F401
        except ImportError:
            raise ValueError("event_rabbitmq needs pika: pip install sipgw[rabbitmq]") from None

    async def stop(self) -> None:
        """Close all connections."""
        while self._brokers:
            self._brokers.popitem()[1].close()

    async def open(self, address: str) -> Sink:
        """The sink of a socket; nobody is asked yet."""
        place, exchange, key, persistent = parse_socket(address, self.heartbeat)
        return RabbitSink(self, place, exchange, key, persistent)

    def broker(self, place: Place) -> Broker:
        """The connection to a server."""
        found = self._brokers.get(place)
        if found is None:
            found = self._brokers[place] = Broker(self, place)
        return found

    def send(self, sink: RabbitSink, event: str, params: Params) -> bool | Deferred[bool]:
        """Publish one event."""
        return Deferred.fromCoroutine(self._tell(sink, event, notification(event, params)))

    async def _tell(self, sink: RabbitSink, event: str, body: bytes) -> bool:
        message = Message(sink.exchange, sink.key, body, sink.persistent)
        return await self._publish(sink.place, message, f"{event} is not told", 0)

    async def _publish(self, place: Place, message: Message, failed: str, retries: int) -> bool:
        while True:
            try:
                await self.broker(place).publish(message)
                return True
            except Exception as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                again = retries > 0 and not isinstance(error, Overfull)
                retries -= 1
                if not again:
                    log = self.server.user.log_rarely
                    log(("event_rabbitmq", place.name), 1, f"event_rabbitmq: {failed} to {place.name}: {reason[:300]}")
                    return False

    @function()
    async def rabbitmq_publish(
        self,
        run: Run,
        server_id: str,
        routing_key: str,
        message: str,
        content_type: str | None = None,
        headers: Avp | None = None,
        headers_vals: Avp | None = None,
    ) -> bool:
        """Publish ``message``; true once the broker has confirmed it.

        The values of the AVP ``headers`` are the names of headers, those of ``headers_vals`` their values."""
        server = self._servers.get(server_id)
        names = [] if headers is None else listed(headers, run)
        values = [] if headers_vals is None else listed(headers_vals, run)
        if server is None or len(names) != len(values):
            reason = f"there is no server_id {server_id!r}" if server is None else "each header needs one value"
            run.user.log_rarely(("rabbitmq_publish", server_id), -1, f"rabbitmq_publish: {reason}")
            return False
        made = Message(
            server.exchange,
            routing_key,
            message.encode("utf-8", "surrogateescape"),
            server.persistent,
            server.mandatory,
            content_type,
            {str(name): value for name, value in zip(names[::-1], values[::-1], strict=True)} or None,
        )
        return await self._publish(server.place, made, f"a message for {routing_key!r} is not published", server.retries)


@dataclass(frozen=True, slots=True)
class RabbitSink:
    """One routing key of one exchange."""

    module: EventRabbitmq
    place: Place
    exchange: str
    key: str
    persistent: bool

    def send(self, event: str, params: Params) -> bool | Deferred[bool]:
        """Publish one event."""
        return self.module.send(self, event, params)


@dataclass(frozen=True, slots=True)
class Message:
    """What is published."""

    exchange: str
    key: str
    body: bytes
    persistent: bool
    mandatory: bool = False
    content_type: str | None = None
    headers: dict[str, int | str] | None = None


class Overfull(Exception):
    """Too many messages wait already; to try again would not help."""


class Broker:
    """The connection to one server, opened when it is needed."""

    def __init__(self, module: EventRabbitmq, place: Place) -> None:
        self._module = module
        self._place = place
        self._opening = DeferredLock()
        self._protocol: Any = None
        self._channel: Any = None
        self._waiting = 0
        self._not_before = 0.0
        self._closed = False

    async def publish(self, message: Message) -> None:
        """Publish, and wait until that is confirmed; raises whatever keeps it from being."""
        from pika import BasicProperties

        if self._waiting >= MAX_WAITING:
            raise Overfull(f"{MAX_WAITING} messages are waiting")
        self._waiting += 1
        try:
            channel = await self._open()
            properties = BasicProperties(
                content_type=message.content_type,
                headers=message.headers,
                delivery_mode=2 if message.persistent else 1,
            )
            published = channel.basic_publish(message.exchange, message.key, message.body, properties, message.mandatory)
            await self._in_time(published, self._module.timeout / 1000 or LONGEST_WAIT, "it has not confirmed it in time")
        finally:
            self._waiting -= 1

    async def _open(self) -> Any:
        """The channel; a new one if there is none."""
        await self._opening.acquire()
        try:
            if self._channel is not None and self._channel.is_open:
                return self._channel
            clock = self._module.server.user.clock
            if self._closed or clock() < self._not_before:
                raise OSError("it was not reached a moment ago")
            try:
                self._channel = await self._connect()
            except Exception:
                self._not_before = clock() + PAUSE
                self._drop()
                raise
            return self._channel
        finally:
            self._opening.release()

    async def _connect(self) -> Any:
        from pika import ConnectionParameters, PlainCredentials
        from pika.adapters.twisted_connection import TwistedProtocolConnection

        self._drop()
        place, reactor = self._place, self._module.server.reactor
        seconds = self._module.connect_timeout / 1000 or LONGEST_WAIT
        parameters = ConnectionParameters(
            virtual_host=place.vhost,
            credentials=PlainCredentials(place.user, place.password, erase_on_connect=True),
            heartbeat=place.heartbeat,
            frame_max=place.frames,
        )
        protocol: Any = TwistedProtocolConnection(parameters, custom_reactor=reactor)
        ready = protocol.ready
        endpoint = HostnameEndpoint(reactor, place.host, place.port, timeout=seconds)
        await connectProtocol(endpoint, protocol)  # type: ignore[no-untyped-call]
        self._protocol = protocol
        await self._in_time(ready, seconds, "it does not answer in time")
        channel = await self._in_time(protocol.channel(), seconds, "it opens no channel in time")
        await self._in_time(channel.confirm_delivery(), seconds, "it does not confirm in time")
        return channel

    def _in_time(self, waiting: Deferred[Any], seconds: float, late: str) -> Deferred[Any]:
        def too_late(_result: Any, _seconds: float) -> Any:
            self._drop()
            raise TimeoutError(late)

        return waiting.addTimeout(seconds, self._module.server.reactor, too_late)

    def _drop(self) -> None:
        """Forget the connection; the next message makes another."""
        protocol, self._protocol, self._channel = self._protocol, None, None
        if protocol is not None and protocol.transport is not None:
            protocol.transport.abortConnection()

    def close(self) -> None:
        """Close the connection in order."""
        self._closed = True
        if self._channel is not None and self._channel.is_open:
            closed: Any = self._protocol.close()
            if closed is not None:
                end: Callable[[Any], None] = lambda _result: None  # noqa: E731
                closed.addBoth(end)
        else:
            self._drop()
