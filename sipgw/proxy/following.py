"""Following dialogs: what messages, time and the operator do to them (``dialogs.py`` keeps what they are).

``create`` begins one for the INVITE of a run; from then on it hears what happens to the INVITE's transaction. ``match`` finds the
one that a later request is in, ``within`` lets that request have its effect. ``end`` hangs up on both sides.

A request of our own inside a dialog (a BYE, a ping) takes a CSeq number that the other side does not know of. From then on what
that side sends is renumbered on its way, and the responses get its own number back (``Leg.renumber``; RFC 3261 12.2.1.1 wants
numbers to grow, and a proxy that sends in a dialog must see to that)."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from sipgw.core.events import run_alone
from sipgw.proxy import refreshing
from sipgw.proxy.deadlines import Deadlines
from sipgw.proxy.dialog_bodies import OFFERING, follow, follow_ack
from sipgw.proxy.dialog_headers import callee_routes, contact_of, number_back, plain, with_cseq
from sipgw.proxy.dialogs import Call, CallFlag, CallTable, Happening, Leg, Listener, Profiles, State
from sipgw.proxy.disguise import Shifted
from sipgw.proxy.record_route import RouteParam
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Run
from sipgw.sip.dialog import routes_of
from sipgw.sip.message import Request, Response
from sipgw.sip.transaction import State as TransactionState

KEPT = "dialog"
"""Where a run keeps its ``Within``."""
TIMEOUT = "dialog timeout"
"""Where a run keeps the ``$DLG_timeout`` of a dialog that is yet to be made."""

HAPPENINGS = {"ACK": Happening.ACK, "BYE": Happening.BYE, "PRACK": Happening.PRACK}

DID_ONLY, DID_FALLBACK, DID_NONE = 0, 1, 2
"""How a request finds its dialog: by the name in its Route, by that or what RFC 3261 12.2.2 says, by the latter alone."""


@dataclass(slots=True)
class Within:
    """The dialog of a run; ``source`` and ``target``: who sent the request and who is to have it, None for the ``first`` one, and
    where the dialog is looked at from elsewhere."""

    call: Call
    source: Leg | None = None
    target: Leg | None = None
    first: bool = False


def within_of(run: Run) -> Within | None:
    """The dialog of ``run``, if it has one."""
    found: Within | None = None if run.context is None else run.context.get(KEPT)
    return found


def call_of(run: Run) -> Call | None:
    """The dialog of ``run``, if it has one."""
    found = within_of(run)
    return None if found is None else found.call


@dataclass
class Settings:
    """The parameters of the module dialog that count here; see ``modules/dialog.py``."""

    rr_param: str = "did"
    match_mode: int = DID_FALLBACK
    default_timeout: int = 43200
    options_interval: int = 30
    reinvite_interval: int = 300
    delete_delay: int = 0
    race_timeout: int = 5
    extra_headers: str = ""
    record_routed: bool = True
    """Whether module rr is there."""


class Counters(Protocol):
    """What is counted."""

    active: Any
    early: Any
    processed: Any
    expired: Any
    failed: Any


class Store(Protocol):
    """Where dialogs survive a restart (``dialog_rows.py``)."""

    def saved(self, call: Call) -> None:
        """``call`` has been answered, or has changed."""

    def ended(self, call: Call) -> None:
        """``call`` is over, and nobody holds it: what its ``farewell`` says is written with that."""


class Requests(Protocol):
    """Sends requests of our own inside dialogs (``dialog_requests.py``)."""

    def hang_up(self, call: Call, headers: str) -> None:
        """Send a BYE to both sides."""

    def start_pings(self, call: Call) -> None:
        """Begin to ping whoever is to be pinged."""

    def provisional(self, call: Call, response: Response) -> None:
        """A provisional response has come."""


class Sharing(Protocol):
    """Tells other servers of dialogs (``dialog_sharing.py``)."""

    def changed(self, call: Call) -> None:
        """Something of ``call`` has changed, or it is over."""

    def due(self, call: Call) -> bool:
        """Whether it is ours to do what is to be done when the time of ``call`` is over; else it is asked again later."""

    def expire(self, call: Call, go: Callable[[], None]) -> None:
        """Call ``go()`` if nobody else has ended ``call``."""


@dataclass
class Follower:
    """All dialogs of one server; ``changed(call, before, after)`` hears of each change of a state.

    ``on_created``, ``on_loaded``: listeners that every new dialog, or every one from the database, gets."""

    user: Any
    tm: Any
    settings: Settings
    counters: Counters
    changed: Callable[[Call, State, State], None]
    store: Store | None = None
    requests: Requests | None = None
    sharing: Sharing | None = None
    profiles: Profiles = field(default_factory=Profiles)
    on_created: list[Listener] = field(default_factory=list)
    on_loaded: list[Listener] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.calls = CallTable(self.user.worker)
        self._young: dict[Call, None] = {}
        """Calls that are yet to be answered, in the order of their beginning."""
        self.unsaved: dict[Call, None] = {}
        """Calls of which something has changed that is not worth a write by itself."""
        self.ends: Deadlines[Call] = Deadlines(self.user.clock, self.user.after, self.overdue)

    # -- the INVITE

    def create(self, run: Run, flags: CallFlag) -> Call | None:
        """The dialog that the request of ``run`` begins; the one that it has already gets ``flags``; None if it cannot be one."""
        request = run.message
        if not isinstance(request, Request) or request.to_tag or request.method in ("CANCEL", "ACK"):
            return None
        found = call_of(run)
        if found is not None:
            found.flags |= flags
            return found
        contacts = request.contacts
        contact = contacts[0].uri_text if contacts and not contacts[0].star else ""
        caller = Leg(
            request.from_tag or "", plain(request.from_), contact, [str(route) for route in request.record_routes],
            None if run.flow is None else run.flow.socket,
        )
        caller.invite = request.cseq.number
        caller.sdp = request.body
        call = Call(self.calls.new_number(), request.call_id, caller, plain(request.to), self.user.wall_clock())
        settings = self.settings
        call.flags = flags
        kept = run.keep()
        call.lifetime = kept.pop(TIMEOUT, settings.default_timeout)
        call.delete_delay = settings.delete_delay
        call.options_interval = kept.pop("dialog options", settings.options_interval)
        call.reinvite_interval = kept.pop("dialog reinvite", settings.reinvite_interval)
        kept[KEPT] = Within(call, first=True)
        if settings.match_mode != DID_NONE and settings.record_routed:
            run.edits = run.edits.note(RouteParam(f";{settings.rr_param}={call.did}"))
        self.calls.add(call)
        self._young[call] = None
        self.counters.processed.value += 1
        if run.transaction is not None:
            call.transaction = weakref.ref(run.transaction)
        self.tm.listen(run, partial(self.heard, call))
        follow(run, self.tm, caller, lambda response: call.answering(response.to_tag or ""))
        for listener in self.on_created:
            listener("created", call, run, None)
        return call

    def heard(self, call: Call, context: ResponseContext, event: str, status: int, response: Response | None) -> None:
        """Hear of an event of the INVITE's transaction (``Context.listen``)."""
        if event == "response_in":
            if response is not None and 100 < status < 300:
                self._learn(call, context, response)
        elif event in ("response_out", "local_reply"):
            if call.transaction() is None:
                call.transaction = weakref.ref(context)
            if status >= 300:
                self._failed(call, Happening.FAILURE, context.run)
            elif status >= 200:
                self._succeeded(call, context, response)
            elif status > 100:
                self._early(call, context, response)
        elif event == "cancelled":
            call.flags |= CallFlag.CANCELLED
            if call.state >= State.ANSWERED:
                self._race(call)
            elif call.reason is None:
                call.reason = "Cancelled"

    def _learn(self, call: Call, context: ResponseContext, response: Response) -> None:
        """Take from a response what the callee leg must know."""
        tag = response.to_tag or ""
        if not tag and response.status < 200:
            return
        leg = call.answering(tag)
        if response.status >= 200 and call.state < State.ANSWERED:
            call.winner = leg
        seen_from, seen_to = plain(response.from_), plain(response.to)
        leg.mangled_from = seen_from if seen_from != call.caller.address else ""
        leg.mangled_to = seen_to if seen_to != leg.address else ""
        number, sent = context.request.cseq.number, response.cseq.number
        leg.cseq = max(leg.cseq, sent)
        if call.veil is not None and sent > number:
            leg.moved(number, sent, True)  # a password was asked for, and no Route of ours will tell of it
        leg.contact = contact_of(response) or leg.contact or context.request.uri
        if call.veil is not None:  # nobody saw where the INVITE came from, or us
            leg.routes = [str(route) for route in routes_of(response)][::-1]
        else:
            leg.routes = callee_routes(context.run, response, len(call.caller.routes))
        if response.body:
            leg.sdp = response.body
        for branch in context.branches:
            if branch.client is not None and branch.client.branch == response.via.branch:
                leg.socket = branch.flow.socket

    def _early(self, call: Call, context: ResponseContext, response: Response | None) -> None:
        before, after = self._step(call, Happening.PROVISIONAL)
        if before is not after:
            self.counters.early.value += 1
            self._tell(call, "early", context.run)
        if response is not None and self.requests is not None:
            self.requests.provisional(call, response)

    def _succeeded(self, call: Call, context: ResponseContext, response: Response | None) -> None:
        before, after = self._step(call, Happening.SUCCESS)
        if after is not State.ANSWERED or before is State.ANSWERED:
            return
        self._young.pop(call, None)
        if before is State.EARLY:
            self.counters.early.value -= 1
        elif before is State.DELETED:
            self.counters.failed.value -= 1
            self.calls.add(call)
        call.reason = None
        if response is not None:
            call.winner = call.answering(response.to_tag or "")
            refreshing.agreed(call, call.caller, response)
        self.counters.active.value += 1
        user = self.user
        call.started = user.wall_clock()
        if call.flags & (CallFlag.CANCELLED | CallFlag.HAS_BYE) and CallFlag.END_ON_RACE in call.flags:
            call.flags |= CallFlag.RACED
            call.lifetime = self.settings.race_timeout
        call.ends = user.clock() + call.lifetime
        self.ends.set(call, call.ends)
        self._tell(call, "confirmed", context.run)
        self.save(call)
        self.run_route(call, "answer")

    def _race(self, call: Call) -> None:
        """A CANCEL has crossed the 2xx (RFC 5407): end the call soon, if that is wanted."""
        if CallFlag.END_ON_RACE in call.flags and call.state < State.DELETED:
            call.flags |= CallFlag.RACED
            self.set_lifetime(call, self.settings.race_timeout)

    def _failed(self, call: Call, happening: Happening, run: Run | None) -> None:
        before, after = self._step(call, happening)
        if after is not State.DELETED or before is State.DELETED:
            return
        self._young.pop(call, None)
        if before is State.EARLY:
            self.counters.early.value -= 1
        self.counters.failed.value += 1
        self.profiles.leave_all(call)
        self._tell(call, "failed", run)
        self.calls.remove(call)

    def sweep(self) -> None:
        """End the dialogs whose INVITE has lost its transaction without an answer."""
        oldest = self.user.wall_clock() - 30
        for call in tuple(self._young):
            if call.created > oldest:
                break
            context = call.transaction()
            if context is None or context.server.state is TransactionState.TERMINATED:
                self._failed(call, Happening.GONE, None)

    # -- requests within

    def match(self, run: Run, mode: int) -> bool:
        """Find the dialog that the request of ``run`` is in, by the name in our Route value or by its Call-ID and tags."""
        if within_of(run) is not None:
            return True
        request = run.message
        if not isinstance(request, Request) or not request.to_tag:
            return False
        found = None
        if mode != DID_NONE:
            did = self._did(run)
            if did is not None:
                call = self.calls.find(did) if did else None
                if call is not None and call.call_id == request.call_id:
                    sides = call.sides(request.from_tag or "", request.to_tag)
                    found = None if sides is None else (call, *sides)
            if found is None and mode == DID_ONLY:
                return False
        if found is None:
            found = self.calls.match(request.call_id, request.from_tag or "", request.to_tag)
        if found is None:
            return False
        self.within(run, *found)
        return True

    def _did(self, run: Run) -> str | None:
        """The parameter of our Route value that names a dialog."""
        routed = None if run.context is None else run.context.get("routed")
        if routed is None:
            return None
        name: str | None = routed.param(self.settings.rr_param.lower())
        return name

    def within(self, run: Run, call: Call, source: Leg, target: Leg) -> None:
        """Let a request in ``call`` have its effect."""
        request = run.message
        assert isinstance(request, Request)
        kept = run.keep()
        kept[KEPT] = Within(call, source, target)
        method = request.method
        before, after = self._step(call, HAPPENINGS.get(method, Happening.REQUEST), target)
        if method == "BYE" and after is State.DELETED and before is not State.DELETED:
            if call.reason is None:
                call.reason = "Upstream BYE" if target is call.caller else "Downstream BYE"
            self._renumber(run, call, source, target)
            self._over(call, "terminated", run, target)
            return
        if after is not State.DELETED and TIMEOUT in kept:
            self.set_lifetime(call, kept.pop(TIMEOUT))
        self._tell(call, "within", run, target)
        if method == "ACK":
            self._renumber_ack(run, source, target)
            follow_ack(run, source, target)
        elif method != "CANCEL":
            self._count(run, call, source, target)
        if before is State.ANSWERED and after is State.CONFIRMED:
            self.save(call)
            if self.requests is not None:
                self.requests.start_pings(call)

    def _count(self, run: Run, call: Call, source: Leg, target: Leg) -> None:
        """Take note of the CSeq number of a request, and of what it does to the target of either side once it is answered."""
        request = run.message
        assert isinstance(request, Request)
        number = request.cseq.number
        target.previous = target.cseq
        target.cseq = max(target.cseq, number)
        self._renumber(run, call, source, target)
        if request.method == "INVITE":
            source.invite = number
        if request.method in OFFERING:
            follow(run, self.tm, source, lambda _response: target)
        self.tm.listen(run, partial(self._answered_within, call, source, target))
        if call.state >= State.ANSWERED:
            self.save(call)

    def _answered_within(
        self, call: Call, source: Leg, target: Leg, context: ResponseContext, event: str, status: int, response: Response | None
    ) -> None:
        """Move the targets once a 2xx has gone back (RFC 3261 12.2.1.2, 12.2.2); see which number has been used."""
        if response is None:
            return
        if event == "response_in":
            target.cseq = max(target.cseq, response.cseq.number)  # module uac may have moved it on
        if event != "response_out" or not 200 <= status < 300 or context.request.method not in ("INVITE", "UPDATE"):
            return
        source.contact = contact_of(context.request) or source.contact
        target.contact = contact_of(response) or target.contact
        refreshing.agreed(call, source, response)
        self.save(call)

    def _renumber(self, run: Run, call: Call, source: Leg, target: Leg) -> None:
        """Give a request the number that ``target`` expects, and its responses their own back."""
        request = run.message
        assert isinstance(request, Request)
        number = request.cseq.number
        new = target.renumber(number, request.method == "INVITE")
        if new != number:
            run.edits = with_cseq(request, run.edits, new).note(Shifted(new - number))
            self.tm.rewrite_replies(run, number_back)

    def _renumber_ack(self, run: Run, source: Leg, target: Leg) -> None:
        request = run.message
        number = request.cseq.number
        new = None if target.numbers is None else target.numbers.get(number)
        if new is not None and new != number:
            run.edits = with_cseq(request, run.edits, new).note(Shifted(new - number))

    # -- the end

    def set_lifetime(self, call: Call, seconds: int) -> None:
        """Let ``call`` last so long from now on, once it is answered."""
        call.lifetime = seconds
        if State.ANSWERED <= call.state < State.DELETED:
            call.ends = self.user.clock() + seconds
            self.ends.set(call, call.ends)
            self.save(call)

    def overdue(self, call: Call) -> None:
        """The time of ``call`` is over, or that for which it is kept after its end."""
        if call.state is State.DELETED:
            self.calls.remove(call)
        elif self.sharing is not None and not self.sharing.due(call):
            pass
        elif "timeout" in call.routes:
            due = call.ends
            self.run_route(call, "timeout", lambda _result: self._expire(call, due))
        else:
            self._expire(call, call.ends)

    def _expire(self, call: Call, due: float) -> None:
        if call.state is State.DELETED or call.ends != due:
            return  # its route has ended it, or given it more time
        if self.sharing is not None:
            self.sharing.expire(call, partial(self._expired, call))
        else:
            self._expired(call)

    def _expired(self, call: Call) -> None:
        self.counters.expired.value += 1
        if CallFlag.BYE_ON_TIMEOUT in call.flags:
            self.end(call, "SIP Race Condition" if CallFlag.RACED in call.flags else "Lifetime Timeout")
        else:
            call.reason = call.reason or "Lifetime Timeout"
            self._step(call, Happening.BYE)
            self._over(call, "expired", None, None)

    def end(self, call: Call, reason: str, headers: str = "") -> bool:
        """Hang up on both sides, or cancel the INVITE; False if neither can be."""
        if call.state is State.DELETED:
            return False
        call.reason = call.reason or reason
        if call.state < State.ANSWERED:
            context = call.transaction()
            if context is None:
                return False
            for branch in context.branches:
                if not branch.over:
                    context.cancel_branch(branch)
            return True
        if self.requests is not None:
            self.requests.hang_up(call, self.settings.extra_headers + headers)
        self._step(call, Happening.BYE)
        self._over(call, "terminated", None, None)
        return True

    def _over(self, call: Call, event: str, run: Run | None, leg: Leg | None) -> None:
        """Do what follows when an answered call has ended."""
        self.ends.lift(call)
        self.unsaved.pop(call, None)
        self.counters.active.value -= 1
        call.holds += 1
        self.run_route(call, "hangup")
        self.profiles.leave_all(call)
        self._tell(call, event, run, leg)
        self.release(call)
        if self.sharing is not None:
            self.sharing.changed(call)
        self._linger(call)

    def _linger(self, call: Call) -> None:
        # COMPAT: OpenSIPS matches late requests as long as the transaction of the BYE is there
        self.ends.set(call, self.user.clock() + max(call.delete_delay, self.tm.wt_timer))

    def release(self, call: Call) -> None:
        """One who held ``call`` has written what it had to: when all have, its row goes."""
        call.holds -= 1
        if not call.holds and call.state is State.DELETED and self.store is not None:
            self.store.ended(call)

    # -- small things

    def _step(self, call: Call, happening: Happening, leg: Leg | None = None) -> tuple[State, State]:
        before, after = call.step(happening, leg)
        if before is not after:
            self.changed(call, before, after)
        return before, after

    def _tell(self, call: Call, event: str, run: Run | None, leg: Leg | None = None) -> None:
        try:
            call.tell(event, run, leg)
        except Exception as error:
            self.user.broken(error)

    def tell_others(self, call: Call) -> None:
        """Something has changed that is only worth telling."""
        if self.sharing is not None and State.ANSWERED <= call.state < State.DELETED:
            self.sharing.changed(call)

    def save(self, call: Call) -> None:
        """Something has changed that is worth keeping, and telling."""
        if State.ANSWERED <= call.state < State.DELETED:
            self.tell_others(call)
            self._store(call)

    def _store(self, call: Call) -> None:
        if self.store is not None:
            self.unsaved.pop(call, None)
            self.store.saved(call)

    def run_route(self, call: Call, which: str, done: Callable[[Any], None] | None = None) -> None:
        """Run a route that the script has armed for ``call``, with the dialog in sight but no message."""
        name = call.routes.get(which, "")
        route = self.user.routes.named.get(name)
        if route is None:
            if name:
                self.user.log_rarely(("dialog route", name), -1, f"there is no route[{name}] any more")
            if done is not None:
                done(None)
            return
        run = run_alone(route, self.user)
        run.keep()[KEPT] = Within(call)
        self.user.execute(route, run, done)

    # -- what comes from elsewhere

    def loaded(self, call: Call, shared: bool = False) -> None:
        """Go on with a dialog from the database, or one that another server has told of."""
        if not shared:
            settings = self.settings
            call.delete_delay = settings.delete_delay
            call.options_interval, call.reinvite_interval = settings.options_interval, settings.reinvite_interval
        self.calls.add(call)
        self.counters.active.value += 1
        self.ends.set(call, call.ends)
        for listener in self.on_loaded:
            listener("loaded", call, None, None)
        if shared:
            self._store(call)
        if call.state is State.CONFIRMED and self.requests is not None:
            self.requests.start_pings(call)

    def updated(self, call: Call, state: State) -> None:
        """Another server has changed ``call``, which it has in ``state``."""
        if state is State.CONFIRMED and call.state is State.ANSWERED:
            self._step(call, Happening.ACK)
            if self.requests is not None:
                self.requests.start_pings(call)
        self.ends.set(call, call.ends)
        for listener in self.on_loaded:
            listener("updated", call, None, None)
        self._store(call)

    def gone(self, call: Call) -> None:
        """Another server has ended ``call``, and has done all that follows from it."""
        if not State.ANSWERED <= call.state < State.DELETED:
            return
        self._step(call, Happening.BYE)
        self.unsaved.pop(call, None)
        self.counters.active.value -= 1
        self.profiles.leave_all(call, quiet=True)
        self._tell(call, "gone", None)
        if self.store is not None:
            self.store.ended(call)
        self._linger(call)
