"""The event interface in scripts and by management commands (``core/events.py``), and the core's own events; always there.

Of OpenSIPS's core events all are there; those of memory are in ``core_process``. ``E_CORE_PROC_AUTO_SCALE`` can be subscribed
to and raised by hand, as dashboards and scripts that name it expect, but one process has no workers that come and go.

Where the answers differ from OpenSIPS's, it is on purpose: values without names that ``evi:raise`` is given leave as an array
(there: as members without a name), and its ``params`` may be an object, as the manual says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from sipgw.core.events import Event, Params, Subscription
from sipgw.exports import Avp, Module, event, function, listed, mi
from sipgw.mi.jsonrpc import INVALID_PARAMS, MIError
from sipgw.script.run import Run, Value
from sipgw.script.symbols import Function, ModuleSymbols

LASTS = 3600
"""Seconds of a subscription by management command that does not say how long."""

BAD_VALUE = (400, "Bad parameter value")
BAD_PARAMS = (400, "Bad Params")


class CoreEvents(Module):
    """Raises events and subscribes to them."""

    name = "core"

    log_line = event("E_CORE_LOG", "time", "pid", "level", "prefix", "message")
    slow = event("E_CORE_THRESHOLD", "source", "time", "extra")
    scaled = event("E_CORE_PROC_AUTO_SCALE", "group_type", "group_filter", "group_load", "scale", "process_id", "pid")
    disconnected = event("E_CORE_TCP_DISCONNECT", "src_ip", "src_port", "dst_ip", "dst_port", "proto")

    @classmethod
    def declared(cls, instance: Module | None = None) -> ModuleSymbols:
        """What the compiler sees: with ``instance``, an event is there as soon as a script names it, as in OpenSIPS."""
        symbols = super().declared(instance)
        if not isinstance(instance, CoreEvents) or instance.server is None:
            return symbols
        return replace(symbols, functions=tuple(instance.publishing(each) for each in symbols.functions))

    def publishing(self, each: Function) -> Function:
        """``each``, publishing the event that its constant first parameter names."""
        name, *others = each.parameters
        return replace(each, parameters=(replace(name, check=self.server.user.events.publish), *others))

    # -- in scripts

    @function()
    def raise_event(self, run: Run, event: str, attrs: Avp | None = None, vals: Avp | None = None) -> bool:
        """Tell all subscribers of the event; the AVP ``attrs`` has the names and ``vals`` the values, or values alone."""
        found = run.user.events.find(event)
        values = listed(vals, run) if vals is not None else []
        params: Params = tuple(values)
        if attrs is not None and vals is not None:
            names = [str(name) for name in listed(attrs, run)]
            if len(names) != len(values):
                run.user.log(-1, f"raise_event: {event} has {len(names)} names and {len(values)} values")
                return False
            params = dict(zip(names, values, strict=True))
        if found is not None and found.heard:
            run.user.events.tell(found, params)
        return True

    @function()
    async def subscribe_event(self, run: Run, event: str, socket: str, expire: int | None = None) -> bool:
        """Let ``socket`` be told of the event, for ``expire`` seconds or for good."""
        bus = run.user.events
        try:
            if expire is not None and expire < 0:
                raise ValueError(f"{expire} seconds")
            await bus.subscribe(bus.publish(event), socket, expire or None)
        except ValueError as error:
            run.user.log(-1, f"subscribe_event: {event} to {socket}: {error}")
            return False
        return True

    # -- management commands

    @mi("list", module="evi", alias="events_list")
    def list_events(self) -> dict[str, Any]:
        """Lists the events that there are."""
        return {"Events": [_head(each) for each in self.server.user.events]}

    @mi("subscribe", module="evi", alias="event_subscribe")
    async def subscribe(self, event: str, socket: str, expire: int = LASTS) -> None:
        """Lets a socket be told of an event for so many seconds, 3600 unless said; 0 ends it."""
        if expire < 0:
            raise MIError(INVALID_PARAMS, data="Negative expire value")
        bus = self.server.user.events
        found = bus.find(event)
        if found is None:
            raise MIError(*BAD_VALUE)
        try:
            await bus.subscribe(found, socket, expire)
        except ValueError as error:
            self.server.user.log(-1, f"evi:subscribe: {event} to {socket}: {error}")
            raise MIError(*BAD_VALUE) from None

    @mi("subscribers", module="evi", alias="subscribers_list")
    async def subscribers(self, event: str | None = None, socket: str | None = None) -> dict[str, Any]:
        """Lists the subscribers of all events that have some, of one event, or one of them."""
        bus = self.server.user.events
        if event is None:
            return {"Events": [self._shown(each) for each in bus if bus.subscriptions(each)]}
        found = bus.find(event)
        if found is None:
            raise MIError(404, "Event not published")
        if socket is None:
            return {"Event": self._shown(found) if bus.subscriptions(found) else {}}
        for each in bus.subscriptions(found):
            if each.socket == socket:
                return {"Event": {**_head(found), "Subscriber": self._subscriber(each)}}
        raise MIError(404, "Subscriber does not exist")

    def _shown(self, each: Event) -> dict[str, Any]:
        return {**_head(each), "Subscribers": [self._subscriber(one) for one in each.subscriptions]}

    def _subscriber(self, one: Subscription) -> dict[str, Any]:
        if one.seconds is None:
            return {"socket": one.socket, "expire": "never"}
        return {"socket": one.socket, "expire": one.seconds, "ttl": int(one.ends - self.server.user.clock() + 0.5)}

    @mi("raise", module="evi", alias="raise_event")
    def raise_it(self, event: str, params: Any = None) -> None:
        """Raises an event; its parameters are an array of values, or an object, itself or as text."""
        bus = self.server.user.events
        found = bus.find(event)
        if found is None:
            raise MIError(404, "Event not registered")
        bus.tell(found, () if params is None else _params(params))


def _head(each: Event) -> dict[str, Any]:
    return {"name": each.name, "id": each.number}


def _params(given: Any) -> Params:
    """The parameters of ``evi:raise``; ``MIError`` for what cannot be some."""
    if isinstance(given, list):
        return tuple(_text(value) for value in given)
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            raise MIError(*BAD_PARAMS) from None
    if not isinstance(given, dict):
        raise MIError(*BAD_PARAMS)
    return {name: value if value is None or type(value) is int else _text(value) for name, value in given.items()}


def _text(value: Any) -> Value:
    """A value as text; COMPAT: numbers too, as everywhere in the arrays that management commands are given."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise MIError(*BAD_PARAMS)
    return str(value)
