"""event_stream: events as JSON-RPC over TCP, ``tcp:host:port`` or ``tcp:host:port/method``.

Each event is one JSON object, without anything between one and the next: a notification, or in ``reliable_mode`` a request whose
answer tells that the event has arrived. One connection serves all subscribers at an address; it is opened when the first event
goes there, and again at the next one after it has ended, not more often than once a second while it is refused.

No event waits longer than ``timeout``, and no more than ``MAX_WAITING`` wait at all: whoever cannot keep up loses events, which
the log tells, not too often."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sipgw.core.events import Params, Sink
from sipgw.exports import Module, param
from sipgw.mi.jsonrpc import encode
from sipgw.modules._event_sockets import find_address

MAX_WAITING = 1000
"""How many events may wait at one address, to be sent or to be answered."""
MAX_ANSWER = 65536
"""Octets of what has come and is no whole answer yet."""
PAUSE = 1.0
"""Seconds after a connection that could not be made until the next is tried."""


def check_timeout(value: int) -> None:
    """Refuse what is no time to wait."""
    if not 1 <= value <= 3_600_000:
        raise ValueError(f"write 1 to 3600000 milliseconds, not {value}")


class EventStream(Module):
    """Tells of events by JSON-RPC over TCP."""

    reliable_mode: int = param(0, "1: each event is a request, and has arrived when it has been answered")
    timeout: int = param(1000, "Milliseconds in which an event must be sent, in reliable_mode also answered", check=check_timeout)
    event_param: str = param("", "The name of a parameter that names the event; without names the event comes first")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.ids = count(1)
        self._links: dict[tuple[str, int], Link] = {}
        if server is not None:
            server.user.events.add_transport("tcp", self)

    async def open(self, address: str) -> Sink:
        """The sink at ``host:port/method``; a name is looked up once, when it is subscribed."""
        place, _, method = address.partition("/")
        host, plain, port = await find_address(self.server.user, place, "tcp:address:port/method")
        return StreamSink(self, plain, port, method, f"tcp:{host}:{port}")

    async def stop(self) -> None:
        """Close all connections."""
        while self._links:
            self._links.popitem()[1].close()

    def call(self, method: str, event: str, params: Params, number: int) -> bytes:
        """One event as it goes out; ``number`` is the id of a request, 0 of a notification."""
        made: dict[str, Any] = {"id": number} if number else {}
        made |= {"jsonrpc": "2.0", "method": method or event}
        if params:
            if not self.event_param:
                made["params"] = params
            elif hasattr(params, "keys"):
                made["params"] = {self.event_param: event, **params}
            else:
                made["params"] = [event, *params]
        return encode(made)

    def send(self, sink: StreamSink, event: str, params: Params) -> bool | Deferred[bool]:
        """Send one event; the Deferred says whether it was sent, in ``reliable_mode`` whether it was answered well."""
        link = self._links.get((sink.host, sink.port))
        if link is None:
            link = self._links[sink.host, sink.port] = Link(self, sink.host, sink.port, sink.name)
        number = next(self.ids) if self.reliable_mode else 0
        return link.send(Waiting(event, self.call(sink.method, event, params, number), number))


@dataclass(frozen=True, slots=True)
class StreamSink:
    """One method at one address."""

    module: EventStream
    host: str
    port: int
    method: str
    name: str = field(compare=False)

    def send(self, event: str, params: Params) -> bool | Deferred[bool]:
        """Send one event."""
        return self.module.send(self, event, params)


class Waiting:
    """One event that has not been sent, or not been answered."""

    __slots__ = ("data", "done", "event", "number", "timer")

    def __init__(self, event: str, data: bytes, number: int) -> None:
        self.event = event
        self.data = data
        self.number = number
        self.done: Deferred[bool] = Deferred()
        self.timer: Any = None

    def end(self, told: bool) -> None:
        """Say what became of it."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self.done.callback(told)


class Link(ClientFactory):
    """The connection to one address, and what waits for it."""

    noisy = False

    def __init__(self, module: EventStream, host: str, port: int, name: str) -> None:
        self._module = module
        self._host = host
        self._port = port
        self._name = name
        self._reactor = module.server.reactor
        self._queue: deque[Waiting] = deque()
        self._asked: dict[int, Waiting] = {}
        self._connection: Connection | None = None
        self._connector: Any = None
        self._not_before = 0.0
        self._closed = False

    def send(self, waiting: Waiting) -> bool | Deferred[bool]:
        """Send an event now if that can be, else when it can."""
        if len(self._queue) + len(self._asked) >= MAX_WAITING:
            return self._lose(waiting.event, f"{MAX_WAITING} events are waiting")
        if self._connector is None:
            if self._closed or self._module.server.user.clock() < self._not_before:
                return self._lose(waiting.event, "it was not reached a moment ago")
            self._connector = self._reactor.connectTCP(self._host, self._port, self, timeout=self._module.timeout / 1000)
        waiting.timer = self._reactor.callLater(self._module.timeout / 1000, self._late, waiting)
        self._queue.append(waiting)
        done = waiting.done
        self.flush()
        return done

    def flush(self) -> None:
        """Send what waits, as long as the peer reads."""
        while self._queue and self._connection is not None and not self._connection.full:
            waiting = self._queue.popleft()
            self._connection.write(waiting.data)
            if waiting.number:
                self._asked[waiting.number] = waiting
            else:
                waiting.end(True)

    def answered(self, answer: Any) -> None:
        """Take an answer; one that nobody waits for any more is nothing."""
        number = answer.get("id") if isinstance(answer, dict) else None
        waiting = self._asked.pop(number, None) if type(number) is int else None
        if waiting is None:
            return
        if "result" in answer:
            waiting.end(True)
        else:
            waiting.end(self._lose(waiting.event, f"it answers {str(answer.get('error'))[:200]}"))

    def _late(self, waiting: Waiting) -> None:
        waiting.timer = None
        if waiting.number in self._asked:
            del self._asked[waiting.number]
            reason = "it has not answered in time"
        else:
            self._queue.remove(waiting)
            if self._connection is not None:  # the peer has stopped to read: the next event finds a new connection, or none
                self._connection.transport.abortConnection()
            reason = "it does not take it in time"
        waiting.end(self._lose(waiting.event, reason))

    def _lose(self, event: str, reason: str) -> bool:
        self._module.server.user.log_rarely(("event_stream", self._name), 1, f"{event} is not told to {self._name}: {reason}")
        return False

    # -- what becomes of the connection

    def buildProtocol(self, addr: Any) -> Connection:
        """Have a connection."""
        return Connection(self)

    def connected(self, connection: Connection) -> None:
        """Send what waits for the connection."""
        self._connection = connection
        self.flush()

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """Give up what waits: nobody is there."""
        self._not_before = self._module.server.user.clock() + PAUSE
        self._end(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        """Give up what waits for an answer."""
        self._end(reason)

    def _end(self, reason: Failure) -> None:
        self._connection = self._connector = None
        lost = [*self._asked.values(), *self._queue]
        self._asked.clear()
        self._queue.clear()
        for waiting in lost:
            waiting.end(self._lose(waiting.event, reason.getErrorMessage()))

    def close(self) -> None:
        """Let what was written go out, and end."""
        self._closed = True
        if self._connector is not None:
            self._connector.disconnect()


@implementer(IPushProducer)
class Connection(Protocol):
    """One connection: events out, answers in. ``full``: the peer does not read as fast as we write."""

    transport: Any

    def __init__(self, link: Link) -> None:
        self._link = link
        self._text = b""
        self.full = False

    def connectionMade(self) -> None:
        """Begin."""
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)
        self.transport.registerProducer(self, True)
        self._link.connected(self)

    def write(self, data: bytes) -> None:
        """Send one object."""
        self.transport.write(data)

    def pauseProducing(self) -> None:
        """Wait until the peer has read."""
        self.full = True

    def resumeProducing(self) -> None:
        """Go on."""
        self.full = False
        self._link.flush()

    def stopProducing(self) -> None:
        """Nothing more can be written."""
        self.full = True

    def dataReceived(self, data: bytes) -> None:
        """Take answers, one after the other."""
        self._text += data
        while text := self._text.lstrip():
            try:
                answer, end = _decoder.raw_decode(text.decode("latin-1"))
            except ValueError:
                break
            except RecursionError:  # it is nested like no answer
                self.transport.abortConnection()
                return
            self._text = text[end:]
            self._link.answered(answer)
        else:
            self._text = b""
        if len(self._text) > MAX_ANSWER:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let the transport go."""
        self.transport.unregisterProducer()


_decoder = json.JSONDecoder()
