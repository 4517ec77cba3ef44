"""event_routing: scripts that wait for events, or let a route run at each.

``wait_for_event`` holds up its own run alone, wherever it is called, until an event comes that its filters let through; what the
event says is then in AVPs. ``notify_on_event`` lets a route run at each such event for a while; that route has the event's AVPs
and nothing of the run that asked, but it can send new branches of that run's transaction (``t_inject_branches``).

A filter is ``name=value``, ``value`` with the wildcards of a shell; a name that the event does not have is passed over. What an
event sets off runs in a turn of the reactor of its own, after what raised it. With the last subscription to an event our own to
the event interface ends, so that nobody makes events that nobody hears."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any
from weakref import ReferenceType, ref

from twisted.internet.defer import Deferred

from sipgw.core.blacklists import python_glob
from sipgw.core.events import DUMMY, MAX_WAITING, Params
from sipgw.core.user import TransactionUser
from sipgw.exports import (
    BRANCH,
    EVENT,
    FAILURE,
    ONREPLY,
    REQUEST,
    Avp,
    Listed,
    Module,
    RouteName,
    function,
    listed,
    requires,
)
from sipgw.modules._tm_base import REMOTE
from sipgw.script.run import Run, Value
from sipgw.script.symbols import RouteKind
from sipgw.sip.message import parse

TIMEOUT = -2
"""What ``wait_for_event`` gives when no event came. COMPAT: within ``async``, OpenSIPS gives 1 then too."""
MAX_SUBSCRIPTIONS = 100_000
"""How many subscriptions there may be: messages of strangers make them."""

Filter = tuple[str, Callable[[str], object]]
"""The name of a parameter in lower case, and whether a value fits."""


@dataclass(eq=False, slots=True)
class Wish:
    """What one script wants to hear of an event: ``notify(values)`` is called then; ``once``: no more than one time."""

    filters: list[Filter]
    notify: Callable[[Mapping[str, Value]], None]
    once: bool
    timer: Any = None

    def fits(self, values: Mapping[str, Value]) -> bool:
        """Whether the event is one of those that are wanted; ``values`` by names in lower case."""
        return all(name not in values or fits(_written(values[name])) for name, fits in self.filters)


@dataclass(eq=False, slots=True)
class Board:
    """The wishes about one event: a sink of the event interface."""

    module: EventRouting
    wishes: dict[int, Wish] = field(default_factory=dict)
    """By their numbers, the oldest first."""

    def send(self, event: str, params: Params) -> bool:
        """Let what waits for such an event have it, in the next turn of the reactor."""
        values = params if isinstance(params, Mapping) else {}
        lowered = {name.lower(): value for name, value in values.items()}
        for number, wish in tuple(self.wishes.items()):
            if wish.fits(lowered):
                if wish.once:
                    self.module.forget(event, number)
                self.module.announce(wish.notify, values)
        return True


class EventRouting(Module):
    """Lets scripts wait for events, and routes run at them."""

    tm: Any = requires("tm", optional=True)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._boards: dict[str, Board] = {}
        self._numbers = 0
        self._count = 0
        self._due: deque[tuple[Callable[[Mapping[str, Value]], None], Mapping[str, Value]]] = deque()
        if server is not None:
            server.user.events.add_transport("routing", self)

    async def open(self, address: str) -> Board:
        """The sink ``routing:E_NAME``."""
        board = self._boards.get(address)
        if board is None:
            raise ValueError(f"no script waits for {address}")
        return board

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | EVENT)
    def notify_on_event(self, run: Run, event: str, filter: Avp, route: RouteName, timeout: int) -> bool:
        """Let ``route`` run at each such event, for ``timeout`` seconds from now; its AVPs are what the event says.

        It has nothing of this run but its transaction, for ``t_inject_branches`` and ``t_wait_no_more_branches``."""
        user: TransactionUser = run.user
        context = run.transaction
        transaction = None if context is None else ref(context)

        def notify(values: Mapping[str, Value]) -> None:
            found = user.routes.named.get(route)
            if found is None:
                user.log_rarely(("notify", route), -1, f"notify_on_event: there is no route[{route}] any more")
            else:
                user.execute(found, _notification(user, values, transaction))

        return self._wish(run, event, _filters(run, filter), notify, timeout) is not None

    @function()
    async def wait_for_event(self, run: Run, event: str, filter: Avp, timeout: int) -> int:
        """Wait for such an event; its values are AVPs then. -2 if none comes in ``timeout`` seconds, -1 if it has no such name.

        Only this run waits, also without ``async``."""
        heard: Deferred[Mapping[str, Value] | None] = Deferred()

        def expired() -> None:
            if not heard.called:
                heard.callback(None)

        wish = self._wish(run, event, _filters(run, filter), heard.callback, timeout, expired)
        if wish is None:
            return -1
        values = await heard
        if values is None:
            return TIMEOUT
        for name, value in values.items():
            if value is not None:
                run.avps.setdefault(name, []).append(value)
        return 1

    # -- wishes

    def _wish(
        self,
        run: Run,
        event: str,
        filters: list[Filter],
        notify: Callable[[Mapping[str, Value]], None],
        seconds: int,
        expired: Callable[[], None] | None = None,
    ) -> Wish | None:
        """Wish to hear of ``event`` for a while; None, with a line in the log, if there is no such event or too many wishes."""
        user: TransactionUser = run.user
        found = user.events.find(event)
        if found is None or self._count >= MAX_SUBSCRIPTIONS:
            why = f"there is no event {event}" if found is None else f"{MAX_SUBSCRIPTIONS} scripts wait for events already"
            user.log_rarely(("event_routing", event), -1, f"event_routing: {why}")
            return None
        board = self._boards.get(event)
        if board is None:
            board = Board(self)
            user.events.join(found, f"routing:{event}", board)
            self._boards[event] = board
        self._numbers += 1
        number = self._numbers
        wish = board.wishes[number] = Wish(filters, notify, expired is not None)
        self._count += 1

        def end(_now: float) -> None:
            self.forget(event, number)
            if expired is not None:
                expired()

        wish.timer = user.after(max(0, seconds), end)
        return wish

    def forget(self, event: str, number: int) -> None:
        """End a wish, and with the last one our subscription."""
        board = self._boards[event]
        wish = board.wishes.pop(number)
        wish.timer.cancel()
        self._count -= 1
        if not board.wishes:
            del self._boards[event]
            bus = self.server.user.events
            found = bus.find(event)
            if found is not None:
                bus.join(found, f"routing:{event}", board, 0)

    def announce(self, notify: Callable[[Mapping[str, Value]], None], values: Mapping[str, Value]) -> None:
        """Call ``notify(values)`` in the next turn of the reactor."""
        if len(self._due) >= MAX_WAITING:
            self.server.user.log_rarely("event_routing", 1, f"event_routing: {MAX_WAITING} notifications wait, one is left out")
            return
        if not self._due:
            self.server.later(0, self._notify)
        self._due.append((notify, values))

    def _notify(self) -> None:
        """Run what is due by now; what it sets off has a turn of its own."""
        due, self._due = self._due, deque()
        for notify, values in due:
            try:
                notify(values)
            except Exception as error:
                self.server.user.broken(error)


def _notification(
    user: TransactionUser, values: Mapping[str, Value], transaction: ReferenceType[Any] | None
) -> Run:
    """The run of a route that an event sets off."""
    run = Run(parse(DUMMY), RouteKind.REQUEST, None, user.clock(), user)
    run.avps = {name: [value] for name, value in values.items() if value is not None}
    if transaction is not None:
        run.keep()[REMOTE] = transaction
    return run


def _filters(run: Run, avp: Listed) -> list[Filter]:
    """The filters that an AVP holds; what is none is left out, with a line in the log."""
    found: list[Filter] = []
    for value in listed(avp, run):
        name, _, wanted = value.partition("=") if isinstance(value, str) else ("", "", "")
        if not wanted:
            if isinstance(value, str):
                run.user.log_rarely("event filter", -1, f"event_routing: {value!r} is no filter: write name=value")
            continue
        found.append((name.lower(), _fits(wanted)))
    return found


def _fits(wanted: str) -> Callable[[str], object]:
    """Whether a text is ``wanted``, which may have wildcards."""
    if not any(char in wanted for char in "*?[\\"):
        return wanted.__eq__
    try:
        return re.compile(translate(python_glob(wanted))).match
    except re.error:
        return lambda _text: False


def _written(value: Value) -> str:
    return "" if value is None else str(value)
