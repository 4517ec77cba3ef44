"""event_xmlrpc: events as XML-RPC calls over HTTP, ``xmlrpc:host:port:method``.

The first parameter of a call is the name of the event, those of the event follow. COMPAT: a named one has its name before its
value, where XML-RPC knows none; with ``use_struct_param`` it is a struct of one member. Unlike OpenSIPS what stands in names and
values is escaped. Nobody waits for the answer, but one that is none is told in the log."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from xml.sax.saxutils import escape

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers

from sipgw.core.events import Params, Sink
from sipgw.exports import Module, param
from sipgw.modules._event_sockets import find_address

PATH = "/RPC2"
TIME = 5.0
"""Seconds that a call has."""
MAX_CALLS = 100
"""How many calls may be under way to all servers together."""
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class EventXmlrpc(Module):
    """Tells of events by XML-RPC."""

    use_struct_param: int = param(0, "1: each named parameter is a struct with its name and its value")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._calls: set[Deferred[Any]] = set()
        self._agent: Any = None
        if server is not None:
            server.user.events.add_transport("xmlrpc", self)

    async def open(self, address: str) -> Sink:
        """The sink at ``host:port:method``; a name is looked up once, when it is subscribed."""
        place, colon, method = address.rpartition(":")
        if not colon or not method or ":" not in place:
            raise ValueError("write xmlrpc:address:port:method")
        host, plain, port = await find_address(self.server.user, place, "xmlrpc:address:port:method")
        return XmlrpcSink(self, f"[{plain}]:{port}" if ":" in plain else f"{plain}:{port}", method, f"xmlrpc:{host}:{port}")

    async def stop(self) -> None:
        """End what is under way."""
        for each in list(self._calls):
            each.cancel()

    def send(self, sink: XmlrpcSink, event: str, params: Params) -> bool | Deferred[bool]:
        """Make one call."""
        if len(self._calls) >= MAX_CALLS:
            return self._lose(sink, event, f"{MAX_CALLS} calls are under way")
        if self._agent is None:
            self._agent = Agent(self.server.reactor, connectTimeout=TIME)  # type: ignore[no-untyped-call]
        told: Deferred[bool] = Deferred()
        call = Deferred.fromCoroutine(self._call(sink, write_call(sink.method, event, params, bool(self.use_struct_param))))
        call.addTimeout(TIME, self.server.reactor, _too_late)
        self._calls.add(call)

        def failed(failure: Any) -> bool:
            return self._lose(sink, event, failure.getErrorMessage() or type(failure.value).__name__)

        def ended(well: Any) -> None:
            self._calls.discard(call)
            told.callback(bool(well))

        call.addErrback(failed).addCallback(ended)
        return told

    async def _call(self, sink: XmlrpcSink, body: bytes) -> bool:
        headers = Headers({"Content-Type": ["text/xml"], "User-Agent": ["sipgw"]})
        producer: Any = FileBodyProducer(BytesIO(body))  # type: ignore[no-untyped-call]
        response = await self._agent.request(b"POST", f"http://{sink.place}{PATH}".encode(), headers, producer)
        rest = _Rest()
        response.deliverBody(rest)
        await rest.ended
        if response.code != 200:
            raise ValueError(f"it answers {response.code}")
        return True

    def _lose(self, sink: XmlrpcSink, event: str, reason: str) -> bool:
        self.server.user.log_rarely(("event_xmlrpc", sink.name), 1, f"{event} is not told to {sink.name}: {reason}")
        return False


@dataclass(frozen=True, slots=True)
class XmlrpcSink:
    """One method of one server."""

    module: EventXmlrpc
    place: str
    method: str
    name: str = field(compare=False)

    def send(self, event: str, params: Params) -> bool | Deferred[bool]:
        """Make one call."""
        return self.module.send(self, event, params)


def _too_late(_result: Any, seconds: float) -> Any:
    raise ValueError(f"no answer in {seconds:g} s")


class _Rest(Protocol):
    """Reads the body of an answer, and keeps nothing of it."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred(self._cancel)

    def _cancel(self, _ended: Any) -> None:
        transport: Any = self.transport
        transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Forget it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        if not self.ended.called:
            self.ended.callback(None)


def write_call(method: str, event: str, params: Params, structs: bool) -> bytes:
    """The document of one call."""
    pieces = [f"<param>\n{_value(event)}\n</param>\n"]
    pairs: Any = params.items() if hasattr(params, "items") else ((None, value) for value in params)
    for name, value in pairs:
        if name is None:
            inside = _value(value)
        elif structs:
            inside = f"<value><struct><member>\n<name>{_text(name)}</name>\n{_value(value)}\n</member></struct></value>"
        else:
            inside = f"<name>{_text(name)}</name>\n{_value(value)}"
        pieces.append(f"<param>\n{inside}\n</param>\n")
    head = f'<?xml version="1.0"?>\n<methodCall>\n<methodName>{_text(method)}</methodName>\n<params>\n'
    return f"{head}{''.join(pieces)}</params>\n</methodCall>".encode()


def _value(value: int | str | None) -> str:
    if isinstance(value, int):
        return f"<value><int>{value}</int></value>"
    return f"<value><string>{_text(value or '')}</string></value>"


def _text(text: str) -> str:
    return escape(_ILLEGAL.sub("\ufffd", text))
