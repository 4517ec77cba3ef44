"""The AMP boxes of the module mi_amp: what can be asked, what is answered, what is told.

An AMP box holds at most 64 KiB in a value, so whatever may be longer goes in pieces:

- ``Call``: the parameters as JSON, the last piece of them in ``params``; those before it were sent by ``Part``. The result is
  JSON: its first piece is in ``data``, and ``rest``, if it is not 0, is what ``More`` wants to give the next one. ``Forget``
  leaves the rest unread.
- ``Told`` (from the server): a value as JSON, ``last`` with its last piece. ``lost`` counts what was left out before it, because
  the client was slow: each ``Told`` is answered, and few of them are on their way at a time.

An error has as its description a JSON object with ``code``, ``message`` and perhaps ``data``, as JSON-RPC would say it."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.protocols import amp

PIECE = 60_000
"""Octets of a piece at most."""


class CallError(Exception):
    """A call went wrong; its text is a JSON object."""


class NotFound(CallError):
    """There is no such command, event, statistic or answer."""


class InvalidParams(CallError):
    """The parameters do not fit the command."""


class Ambiguous(CallError):
    """More than one command has that name."""


class ServerFault(CallError):
    """The server failed, and its log says how."""


class CommandRefused(CallError):
    """The command ran, and says no."""


class BadRequest(CallError):
    """The box makes no sense."""


_ERRORS: dict[type[Exception], bytes] = {
    NotFound: b"NOT_FOUND",
    InvalidParams: b"INVALID_PARAMS",
    Ambiguous: b"AMBIGUOUS",
    ServerFault: b"SERVER_ERROR",
    CommandRefused: b"REFUSED",
    BadRequest: b"BAD_REQUEST",
}
_Fields = list[tuple[bytes, Any]]


class Call(amp.Command):
    """Run one management command."""

    arguments: ClassVar[_Fields] = [
        (b"command", amp.Unicode()),
        (b"params", amp.String(optional=True)),
        (b"parts", amp.Integer(optional=True)),
    ]
    response: ClassVar[_Fields] = [(b"data", amp.String()), (b"rest", amp.Integer())]
    errors = _ERRORS


class Part(amp.Command):
    """Bring a piece of the parameters of a call to come, which names it in ``parts``."""

    arguments: ClassVar[_Fields] = [(b"parts", amp.Integer()), (b"data", amp.String())]
    response: ClassVar[_Fields] = []
    errors = _ERRORS


class More(amp.Command):
    """Give the next piece of an answer."""

    arguments: ClassVar[_Fields] = [(b"rest", amp.Integer())]
    response: ClassVar[_Fields] = [(b"data", amp.String()), (b"rest", amp.Integer())]
    errors = _ERRORS


class Forget(amp.Command):
    """Leave the rest of an answer."""

    arguments: ClassVar[_Fields] = [(b"rest", amp.Integer())]
    response: ClassVar[_Fields] = []
    errors = _ERRORS


class Describe(amp.Command):
    """Tell what a command is and takes: a JSON object with name, aliases, help, parameters (name, kind, optional), recipes."""

    arguments: ClassVar[_Fields] = [(b"command", amp.Unicode())]
    response: ClassVar[_Fields] = [(b"data", amp.String())]
    errors = _ERRORS


class Routes(amp.Command):
    """Give the ``count`` routes of the script that took the most time since this was first asked on this connection.

    A JSON array of objects with name, file, line, calls, and total and worst in microseconds."""

    arguments: ClassVar[_Fields] = [(b"count", amp.Integer(optional=True))]
    response: ClassVar[_Fields] = [(b"data", amp.String())]
    errors = _ERRORS


class Subscribe(amp.Command):
    """Tell of events and statistics from now on.

    ``events``: names, or beginnings of names with ``*`` behind them. ``statistics``: "all", a group with its colon, "group:name"
    or a bare name: their values come at once, then those that have changed, ``every`` so many seconds (1)."""

    arguments: ClassVar[_Fields] = [
        (b"events", amp.ListOf(amp.Unicode(), optional=True)),
        (b"statistics", amp.ListOf(amp.Unicode(), optional=True)),
        (b"every", amp.Float(optional=True)),
    ]
    response: ClassVar[_Fields] = [(b"subscription", amp.Integer())]
    errors = _ERRORS


class Tail(amp.Command):
    """Tell each line of the log from now on: those of ``level`` (-3 alert to 4 debug) and worse, in which ``match`` is found."""

    arguments: ClassVar[_Fields] = [(b"level", amp.Integer(optional=True)), (b"match", amp.Unicode(optional=True))]
    response: ClassVar[_Fields] = [(b"subscription", amp.Integer())]
    errors = _ERRORS


class Unsubscribe(amp.Command):
    """End what ``Subscribe`` or ``Tail`` began."""

    arguments: ClassVar[_Fields] = [(b"subscription", amp.Integer())]
    response: ClassVar[_Fields] = []
    errors = _ERRORS


class Told(amp.Command):
    """From the server: ``{"event", "params"}``, ``{"statistics": {name: value}}`` or ``{"log", "level", "time"}``."""

    arguments: ClassVar[_Fields] = [
        (b"subscription", amp.Integer()),
        (b"data", amp.String()),
        (b"last", amp.Boolean()),
        (b"lost", amp.Integer()),
    ]
    response: ClassVar[_Fields] = []


COMMANDS: dict[bytes, type[amp.Command]] = {
    each.commandName: each for each in (Call, Part, More, Forget, Describe, Routes, Subscribe, Tail, Unsubscribe)
}
"""What a client may ask, by the name in the box."""
