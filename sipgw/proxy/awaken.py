"""Requests that wait for phones to wake up (RFC 8599 5.3.1, 5.6.2): the script is told whom to wake, and the REGISTER of the
phone sends the request on.

A first request waits in its transaction: ``lookup`` asks for the phones, and each that registers in time becomes a branch. A
request within a dialog waits in its route (``pn_process_purr``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from sipgw.proxy.forward import NoWay
from sipgw.proxy.location import Binding, LocationTable
from sipgw.proxy.push import Push, Waiting, purr_in, sleeps
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Branch, Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri

__all__ = ["Alarm", "NOBODY"]

NOBODY = 2
"""What ``pn_process_purr`` gives when nobody had to be woken."""

Place = tuple[str, str, tuple[str, ...]]
_KEPT = "awaken"
"""What a transaction keeps us under."""


class Ask(Protocol):
    """Tells the script to wake a phone."""

    def __call__(self, table: LocationTable, binding: Binding, reason: str, call_id: str = "") -> None:
        """``reason``: why, ``call_id``: of the request that wants it."""


class Alarm:
    """Asks for phones to be woken, and knows who waits for them, ``seconds`` at most.

    ``branch_of(binding)`` is the destination that a contact is."""

    def __init__(self, push: Push, seconds: float, user: Any, ask: Ask, branch_of: Callable[[Binding], Branch]) -> None:
        self.push = push
        self.seconds = seconds
        self.user = user
        self.ask = ask
        self.branch_of = branch_of
        self.waiting = Waiting()

    def place(self, table: LocationTable, binding: Binding) -> Place:
        """Where a phone is known, whatever its address."""
        return table.name, binding.aor, self.push.key(Uri.parse(binding.contact)) or ()

    def registered(self, table: LocationTable, binding: Binding) -> None:
        """Let those go on who wait for the phone of ``binding``, after the answer to its REGISTER."""
        if len(self.waiting) and sleeps(binding):
            for call in self.waiting.registered(self.place(table, binding)):
                self.user.after(0, partial(_call, call, binding))

    def wake(self, context: ResponseContext, table: LocationTable, bindings: list[Binding]) -> None:
        """Ask for the phones of ``bindings``, and let the transaction wait for them."""
        pending: _Pending | None = context.kept.get(_KEPT)
        if pending is None:
            pending = context.kept[_KEPT] = _Pending(self, context)
        context.wait_for_branches(None)
        for binding in bindings:
            pending.add(self.place(table, binding))
            self.ask(table, binding, f"ini-{context.request.method}", context.request.call_id)

    async def wake_within_dialog(self, run: Run, table: LocationTable) -> int:
        """Wait for the phone that the PURR of a request names: 1 if it was asked for, 2 if not, -1 for a reply."""
        request = run.message
        if not isinstance(request, Request):
            run.user.log(-1, "pn_process_purr: a reply has no PURR")
            return -1
        binding = self._named(run, request, table)
        if binding is None:
            return NOBODY
        self.ask(table, binding, f"mid-{request.method}", request.call_id)
        woken: Deferred[None] = Deferred()
        place = self.place(table, binding)

        def go_on(_binding: Binding | None) -> None:
            timer.cancel()
            self.waiting.forget(place, go_on)
            woken.callback(None)

        timer = self.user.after(self.seconds, lambda _now: go_on(None))
        self.waiting.add(place, go_on)
        await woken
        return 1

    def _named(self, run: Run, request: Request, table: LocationTable) -> Binding | None:
        """The phone that sleeps and is named by the PURR in the Request-URI or in the first Route."""
        for in_route in (False, True):
            try:
                purr = purr_in(request.routes[0].uri if in_route else run.request_uri)
            except (MalformedMessage, IndexError):
                continue
            named = self.push.user_of(purr) if purr else None
            if named is not None:
                aor, serial = named
                return next((each for each in table.live(aor, run.now) if each.serial == serial and sleeps(each)), None)
        return None


def _call(call: Callable[[Binding], None], binding: Binding, _now: float) -> None:
    call(binding)


class _Pending:
    """A transaction that waits for phones; each that registers becomes a branch of it."""

    __slots__ = ("_alarm", "_calls", "_context", "_timer")

    def __init__(self, alarm: Alarm, context: ResponseContext) -> None:
        self._alarm = alarm
        self._context = context
        self._calls: dict[Place, Callable[[Binding], None]] = {}
        self._timer: Any = None

    def add(self, place: Place) -> None:
        """Wait for the phone at ``place`` too; the time begins anew."""
        alarm = self._alarm
        if place not in self._calls:
            call = self._calls[place] = partial(self._registered, place)
            alarm.waiting.add(place, call)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = alarm.user.after(alarm.seconds, self._over)

    def _registered(self, place: Place, binding: Binding) -> None:
        """Send the request to a phone that has woken up; the last of all ends the waiting."""
        if self._calls.pop(place, None) is not None:
            self._context.turn.take(self._inject(binding))

    async def _inject(self, binding: Binding) -> None:
        context = self._context
        last = not self._calls
        if last:
            self._timer.cancel()
        run = Run(context.request, RouteKind.REQUEST, context.run.flow, context.user.clock(), context.user)
        try:
            await context.inject(run, [self._alarm.branch_of(binding)], cancel=False, last=last)
        except NoWay as error:
            context.user.log_rarely(("awaken", error.phrase), 1, f"no way to {binding.contact}, which woke up: {error.phrase}")

    def _over(self, _now: float) -> None:
        """Wait no longer: those that have come decide."""
        for place, call in self._calls.items():
            self._alarm.waiting.forget(place, call)
        self._calls.clear()
        self._context.wait_no_more()
