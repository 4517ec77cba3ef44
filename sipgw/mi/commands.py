"""The management commands by name, and how a call finds its command and its arguments, by OpenSIPS's rules.

Canonical names are ``module:command``. A command has older names too, and its bare local name serves where no other module has
it. Arguments are bound by the command's *recipes*, lists of parameters derived from its method's signature: named ones must be
exactly those of one recipe, positional ones as many as one recipe has. Numbers and their text turn into one another.

Manhole, FIFO and HTTP all meet here: ``await commands.call("usrloc:dump")``, or ``answer`` for bytes."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator
from inspect import isawaitable
from itertools import chain
from math import isfinite
from typing import Any

from sipgw.exports import ArgumentKind, Command, Module
from sipgw.mi import jsonrpc
from sipgw.mi.jsonrpc import AMBIGUOUS, INVALID_PARAMS, NOT_FOUND, SERVER_ERROR, MIError

__all__ = ["Commands", "MIError"]

TOO_FEW = "Too few or too many parameters"
NO_MATCH = "Named parameters do not match"
NAMED_ONLY = "Command only supports named parameters"
WHICH_RECIPE = "Ambiguous call, use named parameters instead"

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")


class Commands:
    """All management commands of one server. ``log(level, text)`` hears of those that break."""

    def __init__(self, log: Callable[[int, str], None]) -> None:
        self._log = log
        self._commands: dict[str, Command] = {}
        self._aliases: dict[str, str] = {}
        self._locals: dict[str, list[str]] = {}

    def add(self, module: Module) -> None:
        """Make the commands of ``module`` known."""
        for command in module.commands():
            self.register(command)

    def register(self, command: Command) -> None:
        """Make one command known; a name that is taken is our own mistake (``ValueError``)."""
        for name in (command.full, *command.aliases):
            if name in self._commands or name in self._aliases:
                raise ValueError(f"management command {name} is registered twice")
        self._commands[command.full] = command
        self._locals.setdefault(command.name, []).append(command.full)
        for alias in command.aliases:
            self._aliases[alias] = command.full

    def names(self) -> list[str]:
        """The canonical names, in the order in which the modules were loaded."""
        return list(self._commands)

    def find(self, name: str) -> Command:
        """The command of that canonical, older or local name; ``MIError`` if there is none, or several."""
        command = self._commands.get(self._aliases.get(name, name))
        if command is None:
            candidates = self._locals.get(name, [])
            if len(candidates) > 1:
                raise MIError(AMBIGUOUS, data="supported names: " + ", ".join(candidates))
            if not candidates:
                raise MIError(NOT_FOUND)
            command = self._commands[candidates[0]]
        return command

    async def call(self, method: str, params: list[Any] | dict[str, Any] | None = None) -> Any:
        """Run one command and give its result; ``MIError`` whatever goes wrong. A bug of the command is logged here."""
        command = self.find(method)
        arguments = bind(command, params)
        try:
            value = command.call(**arguments)
            if isawaitable(value):
                value = await value
        except MIError:
            raise
        except Exception as error:
            self._broken(command.full, error)
            raise MIError(SERVER_ERROR) from None
        return "OK" if value is None else value

    async def answer(self, data: bytes, pretty: bool = False) -> Iterator[bytes] | None:
        """Answer one JSON-RPC request in pieces, to be sent as the peer takes them; None for a notification.

        A later piece may raise, if a command gave an iterator that breaks: the peer must then not take the answer for whole."""
        try:
            call = jsonrpc.decode(data)
        except jsonrpc.Refused as error:
            return jsonrpc.pieces(jsonrpc.failure(error.id, error), pretty)
        try:
            value = await self.call(call.method, call.params)
        except MIError as error:
            return None if call.notification else jsonrpc.pieces(jsonrpc.failure(call.id, error), pretty)
        if call.notification:
            return None
        written = jsonrpc.pieces(jsonrpc.result(call.id, value), pretty)
        try:
            first = next(written)
        except Exception as error:
            self._broken(call.method, error)
            return jsonrpc.pieces(jsonrpc.failure(call.id, MIError(SERVER_ERROR)), pretty)
        return chain((first,), written)

    def _broken(self, name: str, error: Exception) -> None:
        """Log a bug in one line, with where it was raised; the peer learns no more than that there is one."""
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        self._log(-1, f"management command {name} failed: {type(error).__name__}: {error}{where}")


def bind(command: Command, params: list[Any] | dict[str, Any] | None) -> dict[str, Any]:
    """The arguments of ``command`` by name, each of the kind it wants; ``MIError`` -32602 if ``params`` fit no recipe."""
    given = params or []
    if command.named_only and isinstance(given, list) and given:
        raise MIError(INVALID_PARAMS, data=NAMED_ONLY)
    fitting = [recipe for recipe in command.recipes if len(recipe) == len(given)]
    if not fitting:
        raise MIError(INVALID_PARAMS, data=TOO_FEW)
    if isinstance(given, dict):
        if not any(given.keys() == set(recipe) for recipe in fitting):
            raise MIError(INVALID_PARAMS, data=NO_MATCH)
        named = given
    else:
        if len(fitting) > 1:
            raise MIError(INVALID_PARAMS, data=WHICH_RECIPE)
        named = dict(zip(fitting[0], given, strict=True))
    return {name: coerce(name, value, command.kinds[name]) for name, value in named.items()}


def coerce(name: str, value: Any, kind: ArgumentKind) -> Any:
    """Turn ``value`` into what parameter ``name`` wants: numeric text is a number and a number is its text."""
    if kind is ArgumentKind.JSON:
        return value
    if kind is ArgumentKind.LIST:
        if not isinstance(value, list):
            raise MIError(INVALID_PARAMS, data=f"Bad type for parameter '{name}'")
        if not value:
            raise MIError(INVALID_PARAMS, data=f"Empty array in parameter '{name}'")
        return [_scalar(item, ArgumentKind.STR, f"Bad type for array item in parameter '{name}'") for item in value]
    return _scalar(value, kind, f"Bad type for parameter '{name}'")


def _scalar(value: Any, kind: ArgumentKind, refusal: str) -> int | str:
    if not isinstance(value, bool):
        if kind is ArgumentKind.STR and isinstance(value, str):
            return value
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            return int(value)
        if isinstance(value, int) or (isinstance(value, float) and isfinite(value)):
            if kind is ArgumentKind.INT:
                return int(value)
            return str(int(value)) if value == int(value) else str(value)
    raise MIError(INVALID_PARAMS, data=refusal)
