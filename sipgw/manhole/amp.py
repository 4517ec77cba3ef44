"""Management by AMP (Twisted's Asynchronous Messaging Protocol): the server's end of one connection.

Every management command can be called, answers of any length come in pieces that the client asks for, and events, statistics and
log lines are told as they happen (``boxes.py`` says in which boxes, ``outlet.py`` how much may wait). A client that does not read
its answers is not read from any more until it does."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from sipgw.interfaces import Server
from sipgw.manhole import boxes
from sipgw.manhole.outlet import Outlet, StatisticsTap, subscribe_events
from sipgw.manhole.route_times import RouteTimes
from sipgw.manhole.words import describe
from sipgw.mi import jsonrpc
from sipgw.mi.jsonrpc import MIError, encode, pieces
from sipgw.script.regex import compile_regex

MAX_BUSY = 64
"""Commands of one client that run at a time; with so many, no more is read of it."""
MAX_ANSWERS = 16
"""Answers whose rest a client may leave waiting."""
MAX_SUBSCRIPTIONS = 100
"""Subscriptions of one client."""
MAX_ROUTES = 100
"""Routes that are told of at a time."""
SHORTEST = 0.1
"""Seconds between two looks at statistics at least."""
LONGEST_TEXT = 10_000
"""Characters of an error's data that are told."""

_CODES: dict[int, type[boxes.CallError]] = {
    jsonrpc.NOT_FOUND: boxes.NotFound,
    jsonrpc.INVALID_PARAMS: boxes.InvalidParams,
    jsonrpc.AMBIGUOUS: boxes.Ambiguous,
    jsonrpc.SERVER_ERROR: boxes.ServerFault,
    jsonrpc.INVALID_REQUEST: boxes.BadRequest,
    jsonrpc.PARSE_ERROR: boxes.BadRequest,
}


class Door(Protocol):
    """The module whose connection this is."""

    @property
    def server(self) -> Server:
        """The server around."""

    def show_command(self, method: str, params: Any) -> str:
        """Show a command to a capture server, if one is named."""

    def show_answer(self, correlation: str, answer: Any) -> None:
        """Show its answer."""


class Answer:
    """The rest of an answer, given out piece by piece."""

    def __init__(self, value: Any) -> None:
        self._pieces: Iterator[bytes] = pieces(value)
        self._buffer = bytearray()
        self.done = False

    def take(self) -> bytes:
        """The next piece; ``done`` when it is the last one."""
        while not self.done and len(self._buffer) <= boxes.PIECE:
            piece = next(self._pieces, None)
            if piece is None:
                self.done = True
            else:
                self._buffer += piece
        taken = bytes(self._buffer[: boxes.PIECE])
        del self._buffer[: boxes.PIECE]
        self.done = self.done and not self._buffer
        return taken


def amp_error(error: MIError) -> boxes.CallError:
    """What a management error is in AMP."""
    described: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        text = error.data if isinstance(error.data, str) else encode(error.data).decode()
        described["data"] = error.data if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT]
    return _CODES.get(error.code, boxes.CommandRefused)(encode(described).decode())


def bad(text: str) -> boxes.CallError:
    """A box that makes no sense."""
    return amp_error(MIError(jsonrpc.INVALID_REQUEST, data=text))


def read_params(data: bytes) -> list[Any] | dict[str, Any]:
    """The parameters of a call: a JSON array or object, nothing for none; octets that are not UTF-8 become surrogates."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        params = json.loads(text) if text.strip() else []
        json.dumps(params, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogateescape")
    except (ValueError, RecursionError):
        raise amp_error(MIError(jsonrpc.PARSE_ERROR)) from None
    if not isinstance(params, list | dict):
        raise bad("params must be an array or an object")
    return params


@implementer(IPushProducer)
class ManagementProtocol(amp.AMP):
    """One client. ``peer`` is what the log and the list of subscribers call it; ``ended`` hears when it is gone."""

    transport: Any

    def __init__(self, door: Door, peer: str, ended: Callable[[ManagementProtocol], None]) -> None:
        super().__init__()
        self._door = door
        self._peer = peer
        self._ended = ended
        self._full = False
        self._busy = 0
        self._last = 0
        self._answers: dict[int, Answer] = {}
        self._parts: dict[int, bytearray] = {}
        self._outlets: dict[int, Outlet] = {}
        self._times: RouteTimes | None = None

    # -- boxes

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        """Take one box. One that answers what was not asked, or asks nothing, is no AMP: that client is left."""
        try:
            super().ampBoxReceived(box)
        except (KeyError, amp.NoEmptyBoxes):
            self._door.server.user.log(2, f"mi_amp: {self._peer} does not speak AMP, and is left")
            self.transport.abortConnection()

    def dispatchCommand(self, box: amp.AmpBox) -> Deferred[Any]:
        """Run a command whose fields are what they should be; else the client hears it, and the log is not told."""
        known = boxes.COMMANDS.get(box[amp.COMMAND])
        try:
            if known is not None:
                known.parseArguments(amp.AmpBox(box), self)
        except Exception as error:
            text = str(bad(f"a field is missing or wrong: {type(error).__name__}: {error}"[:1000]))
            return fail(amp.RemoteAmpError(b"BAD_REQUEST", text))
        dispatched: Deferred[Any] = super().dispatchCommand(box)
        return dispatched

    # -- the connection

    def connectionMade(self) -> None:
        """Be told when the client does not read."""
        super().connectionMade()
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        """Take nothing more: it would only make more answers."""
        self._full = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The client has read."""
        self._full = False
        self._resume()

    def _resume(self) -> None:
        """Take more, if there is room for its answers."""
        if self.paused and not self._full and self._busy < MAX_BUSY:
            super().resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost: ``connectionLost`` sees to it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget what the client wanted."""
        for outlet in list(self._outlets.values()):
            outlet.end()
        self._outlets.clear()
        self._answers.clear()
        self._parts.clear()
        if self._times is not None:
            self._times.stop()
        super().connectionLost(reason)
        self._ended(self)

    def _number(self) -> int:
        self._last += 1
        return self._last

    # -- commands

    @boxes.Call.responder
    def call(self, command: str, params: bytes | None = None, parts: int | None = None) -> Deferred[dict[str, Any]]:
        """Run a command."""
        self._busy += 1
        if self._busy >= MAX_BUSY:
            super().pauseProducing()
        return Deferred.fromCoroutine(self._call(command, params or b"", parts)).addBoth(self._called)

    def _called(self, result: Any) -> Any:
        """One command less is under way."""
        self._busy -= 1
        if self.paused and not self._full:
            self._door.server.reactor.callLater(0, self._resume)  # not from inside the reading of boxes
        return result

    async def _call(self, command: str, params: bytes, parts: int | None) -> dict[str, Any]:
        if parts is not None:
            if parts not in self._parts:
                raise bad(f"there are no parts {parts}")
            params = bytes(self._parts.pop(parts)) + params
        given = read_params(params)
        correlation = self._door.show_command(command, given)
        try:
            value = await self._door.server.commands.call(command, given)
        except MIError as error:
            self._door.show_answer(correlation, f"{error.code} {error.message}")
            raise amp_error(error) from None
        return self._begin(command, value, correlation)

    def _begin(self, command: str, value: Any, correlation: str) -> dict[str, Any]:
        answer = Answer(value)
        try:
            data = answer.take()
        except Exception as error:
            self._door.server.user.log(-1, f"management command {command} failed: {type(error).__name__}: {error}")
            raise amp_error(MIError(jsonrpc.SERVER_ERROR)) from None
        if correlation:
            self._door.show_answer(correlation, data.decode("utf-8", "replace"))
        if answer.done:
            return {"data": data, "rest": 0}
        if len(self._answers) >= MAX_ANSWERS:
            raise bad(f"the rests of {MAX_ANSWERS} answers are waiting to be read")
        rest = self._number()
        self._answers[rest] = answer
        return {"data": data, "rest": rest}

    @boxes.Part.responder
    def part(self, parts: int, data: bytes) -> dict[str, Any]:
        """Keep a piece of parameters."""
        if sum(map(len, self._parts.values())) + len(data) > jsonrpc.LIMIT:
            self._parts.pop(parts, None)
            raise bad(f"more than {jsonrpc.LIMIT} octets")
        self._parts.setdefault(parts, bytearray()).extend(data)
        return {}

    @boxes.More.responder
    def more(self, rest: int) -> dict[str, Any]:
        """Give more of an answer."""
        answer = self._answers.get(rest)
        if answer is None:
            raise amp_error(MIError(jsonrpc.NOT_FOUND, "No such answer"))
        try:
            data = answer.take()
        except Exception as error:
            del self._answers[rest]
            self._door.server.user.log(-1, f"an answer broke off: {type(error).__name__}: {error}")
            raise amp_error(MIError(jsonrpc.SERVER_ERROR)) from None
        if answer.done:
            del self._answers[rest]
        return {"data": data, "rest": 0 if answer.done else rest}

    @boxes.Forget.responder
    def forget(self, rest: int) -> dict[str, Any]:
        """Leave the rest of an answer."""
        self._answers.pop(rest, None)
        return {}

    @boxes.Describe.responder
    def describe(self, command: str) -> dict[str, Any]:
        """Tell of a command."""
        try:
            found = self._door.server.commands.find(command)
        except MIError as error:
            raise amp_error(error) from None
        return {"data": encode(describe(found))}

    @boxes.Routes.responder
    def routes(self, count: int | None = None) -> dict[str, Any]:
        """Tell which routes are slow."""
        if self._times is None:
            self._times = RouteTimes(self._door.server.user.events, f"amp:{self._peer}")
            self._times.start()
        return {"data": encode(self._times.slowest(min(MAX_ROUTES, 20 if count is None else count)))}

    # -- what is told

    def _outlet(self) -> Outlet:
        if len(self._outlets) >= MAX_SUBSCRIPTIONS:
            raise bad(f"there are {MAX_SUBSCRIPTIONS} subscriptions already")
        outlet = Outlet(self._number(), self.callRemote)
        self._outlets[outlet.number] = outlet
        outlet.on_end.append(partial(self._outlets.pop, outlet.number, None))
        return outlet

    @boxes.Subscribe.responder
    def subscribe(
        self, events: list[str] | None = None, statistics: list[str] | None = None, every: float | None = None
    ) -> dict[str, Any]:
        """Tell of events and statistics."""
        server = self._door.server
        outlet = self._outlet()
        try:
            subscribe_events(server.user.events, events or (), outlet, f"amp:{self._peer}")
            found = [each for name in statistics or () for each in self._statistics(name)]
        except (LookupError, ValueError) as error:
            outlet.end()
            raise amp_error(MIError(jsonrpc.NOT_FOUND, "Not found", str(error.args[0]))) from None
        if found:
            seconds = max(SHORTEST, 1.0 if every is None else every)
            # the answer goes out first
            start = server.reactor.callLater(0, lambda: StatisticsTap(found, outlet, seconds, server.reactor))
            outlet.on_end.append(lambda: start.cancel() if start.active() else None)
        return {"subscription": outlet.number}

    def _statistics(self, name: str) -> list[Any]:
        statistics = self._door.server.statistics
        if name == "all":
            return list(statistics)
        if name.endswith(":"):
            return statistics.group(name[:-1])
        found = statistics.find(name)
        if found is None:
            raise LookupError(f"there is no statistic {name}")
        return [found]

    @boxes.Tail.responder
    def tail(self, level: int | None = None, match: str | None = None) -> dict[str, Any]:
        """Tell of the log."""
        server = self._door.server
        try:
            pattern = compile_regex(match) if match else None
        except ValueError as error:
            raise bad(str(error)) from None
        highest = 4 if level is None else level
        outlet = self._outlet()

        def heard(number: int, text: str) -> None:
            if number <= highest and (pattern is None or pattern.search(text) is not None):
                outlet.push({"log": text.rstrip("\n"), "level": number, "time": server.user.wall_clock()})

        server.log_taps.append(heard)
        outlet.on_end.append(lambda: server.log_taps.remove(heard))
        return {"subscription": outlet.number}

    @boxes.Unsubscribe.responder
    def unsubscribe(self, subscription: int) -> dict[str, Any]:
        """Tell no more."""
        outlet = self._outlets.get(subscription)
        if outlet is None:
            raise amp_error(MIError(jsonrpc.NOT_FOUND, "No such subscription"))
        outlet.end()
        return {}
