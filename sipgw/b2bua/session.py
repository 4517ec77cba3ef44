"""Legs that talk with each other: what passes from one to the other, and how all end. Pure: no clock, no wire.

``Session`` is driven by what comes (``request``, ``acknowledged``, ``cancelled``, ``heard``, ``success``) and by time, and asks
its ``Port`` to send. Two of its legs are the ``pair`` that talks or is about to: the script's entities 0 and 1. All others are
``aside``: those that have been replaced and are not over yet, and those that a bridge needs for a while. Without a ``Logic``
all passes on: requests to the other leg, responses back, a BYE after it has been agreed to. When one of the pair ends the other
is ended too, and when all legs are over the session is.

Each leg goes by the table in ``legs.py``. Re-INVITEs within a leg are ``exchange.py``; putting another leg into the place of one
is ``bridge.py``. Both keep what they know in plain records on the legs and the session, and are functions of these: whoever
stores a session stores data. What has ``cancel()`` or answers a transaction (``timer``, ``token``) is not stored.

The 2xx to the first INVITE is acknowledged to the one side when the other has: an offer in a 2xx gets the answer that stands in
the ACK."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sipgw.b2bua import bridge, exchange, transparent
from sipgw.b2bua.description import SDP, description_of, with_description
from sipgw.b2bua.legs import Do, Event, Leg, Role, State
from sipgw.b2bua.port import ACK_PATIENCE, NOTHING, Content, Logic, Port
from sipgw.sip.dialog import Dialog
from sipgw.sip.errors import SipError
from sipgw.sip.message import Message, Request, Response

if TYPE_CHECKING:
    from sipgw.b2bua.bridge import Bridge

ENDING: Final = frozenset({State.LEAVING, State.PARTING, State.CANCELLING, State.OVER})
"""A leg that will never talk again."""
DESCRIBING: Final = frozenset({"INVITE", "UPDATE", "PRACK", "ACK"})
"""Requests that carry offers and answers, as their responses do (RFC 6337 2.2)."""


@dataclass(eq=False)
class Session:
    """A call. ``pair``: who talks, or is about to: first the server leg that it began with, or since a bridge the one that
    stayed. ``aside``: other legs that are not over. ``values``: ``$b2b_logic.ctx``."""

    key: str
    pair: list[Leg]
    port: Port
    scenario: str = ""
    logic: Logic | None = None
    values: dict[str, str] = field(default_factory=dict)
    aside: list[Leg] = field(default_factory=list)
    bridge: Bridge | None = None
    over: bool = False
    is_answered: bool = False
    """Whether the caller has been told that somebody has answered."""
    status: tuple[int, str] = (480, "Temporarily Unavailable")
    """Why a caller is refused, if nobody knows better."""
    lent_to: Session | None = None
    """Who has its legs, for a while or for good."""
    hearing: list[Leg] = field(default_factory=list)
    """Those aside that are hung up on when they have agreed to the last NOTIFY."""
    loose: Leg | None = None
    """One that ends while it is not known yet what becomes of the other: ``settle`` says so."""

    @property
    def caller(self) -> Leg:
        """The first of the pair."""
        return self.pair[0]

    @property
    def callee(self) -> Leg:
        """The second of the pair."""
        return self.pair[1]

    @property
    def legs(self) -> list[Leg]:
        """All legs that are not over, and the pair."""
        return [*self.pair, *self.aside]

    def other(self, leg: Leg) -> Leg:
        """The one that ``leg`` talks with."""
        return self.pair[1] if leg is self.pair[0] else self.pair[0]

    # -- steps

    def step(self, leg: Leg, event: Event, token: Any = None, reply: tuple[int, str, Content] | None = None) -> bool:
        """Let ``event`` happen to ``leg`` and do what follows; false if it means nothing."""
        actions = leg.step(event)
        if actions is None:
            return False
        for action in actions:
            self._do(action, leg, event, token, reply)
        if leg.state in ENDING:
            if leg.timer is not None and leg.state is not State.PARTING:
                leg.timer.cancel()
                leg.timer = None
            if event is not Event.LEFT:
                self._ends(leg)
        if leg.is_over:
            leg.token = None
            if leg in self.aside:
                self.aside.remove(leg)
                self.port.forget(leg)
        self.check()
        return True

    def _do(self, action: Do, leg: Leg, event: Event, token: Any, reply: tuple[int, str, Content] | None) -> None:
        if action is Do.REPLY and reply is not None:
            self.port.reply(leg, leg.token, *reply)
            if reply[0] >= 200:
                leg.token = None
        elif action is Do.REFUSE:
            status = (487, "Request Terminated") if event in (Event.CANCEL, Event.BYE) else self.status
            self.port.reply(leg, leg.token, *status, NOTHING)
        elif action is Do.AGREE:
            self.port.reply(leg, token, 200, "OK", NOTHING)
        elif action is Do.CALL:
            self.port.call(self, leg, NOTHING if reply is None else reply[2])
        elif action is Do.ACKNOWLEDGE:
            if leg.dialog is not None and not leg.acknowledged:
                leg.acknowledged = True
                self.port.acknowledge(leg, leg.dialog, leg.invite.cseq.number, NOTHING if reply is None else reply[2])
        elif action is Do.CANCEL:
            self.port.cancel(leg, leg.invite.cseq.number)
        elif action is Do.HANG_UP:
            exchange.acknowledge_last(self, leg)
            self.port.send(leg, "BYE", NOTHING, lambda status, _response: self._left(leg, status))

    def _left(self, leg: Leg, status: int) -> None:
        if status >= 200 or status == 0:
            self.port.where(leg, self).step(leg, Event.LEFT)

    def _ends(self, leg: Leg) -> None:
        """``leg`` begins to end: so does who it talks with."""
        exchange.give_up(self, leg)
        if self.bridge is not None:
            bridge.ended(self, self.bridge, leg)
        elif leg in self.pair and leg is not self.loose:
            for other in self.legs:
                if other is not leg and other not in self.hearing:
                    self.leave(other)

    def leave(self, leg: Leg) -> None:
        """End a leg, however far it is."""
        self.step(leg, Event.LEAVE)

    def lost(self, leg: Leg) -> None:
        """The ACK to a 2xx of ours has not come."""
        self.step(leg, Event.NO_ACK)

    def dead(self, leg: Leg, status: int) -> None:
        """A 481 or a 408 to a request within a dialog ends that (RFC 3261 12.2.1.2)."""
        if status in (408, 481):
            self.leave(leg)

    def check(self) -> None:
        """Say so if all is over."""
        if not self.over and not self.aside and all(leg.is_over for leg in self.pair):
            self.over = True
            self.port.ended(self)

    def end(self, status: int = 480, reason: str = "Temporarily Unavailable") -> None:
        """End all legs; one that is not answered yet with ``status``."""
        self.status = status, reason
        if self.lent_to is not None:
            for leg in list(self.pair):
                self.port.where(leg, self).leave(leg)
            return
        if self.bridge is not None:
            bridge.abandon(self, self.bridge)
        for leg in reversed(self.legs):
            self.leave(leg)

    def decide(
        self, leg: Leg, method: str, status: int, response: Response | None, usual: Callable[[], None]
    ) -> None:
        """Let the logic decide about a response that came by ``leg``, where there is one."""
        if self.logic is None or leg not in self.pair:
            usual()
        else:
            self.logic.reply(self, leg, method, status, response, usual)

    # -- the INVITE of a client leg

    def call(self, leg: Leg, content: Content = NOTHING) -> None:
        """Send the INVITE of a client leg."""
        self.step(leg, Event.CALL, reply=(0, "", content))

    def heard(self, leg: Leg, status: int, response: Response | None) -> None:
        """Take a response to the INVITE of ``leg``; without a response if ``status`` is our own (0: it was dropped)."""
        status = status or 403
        if status < 200:
            if status == 100 or response is None or leg.state not in (State.CALLING, State.RINGING):
                return
            leg.ring(response)
            leg.step(Event.PROVISIONAL)
        elif status < 300 and response is not None:
            if leg.state not in (State.CALLING, State.RINGING, State.CANCELLING):
                return
            leg.answer(response)
            if leg.state is State.CANCELLING:
                self.step(leg, Event.SUCCESS)
                return
            leg.step(Event.SUCCESS)
        elif leg.state in (State.CANCELLING, State.OVER):
            self.step(leg, Event.FAILURE)
            return
        elif leg.step(Event.FAILURE) is None:
            return
        self.decide(leg, "INVITE", status, response, lambda: self.pass_heard(leg, status, response))
        if leg.is_over and leg in self.aside:
            self.aside.remove(leg)
            self.port.forget(leg)
            self.check()

    def pass_heard(self, leg: Leg, status: int, response: Response | None) -> None:
        """Give the caller what the callee has answered; or the bridge, if there is one."""
        if self.bridge is not None:
            bridge.heard(self, self.bridge, leg, status, response)
            return
        caller = self.other(leg)
        content = NOTHING if response is None else self.convey(response, leg, caller)
        reply = status, phrase(status) if response is None else response.reason, content
        if status < 200:
            self.step(caller, Event.PROVISIONAL, reply=reply)
        elif status >= 300:
            self.step(caller, Event.FAILURE, reply=reply)
        elif self.step(caller, Event.SUCCESS, reply=reply):
            self.is_answered = True
            caller.timer = self.port.after(ACK_PATIENCE, lambda: self.lost(caller))
        else:
            self.leave(leg)

    def success(self, leg: Leg, response: Response) -> None:
        """Take a 2xx to the INVITE of ``leg``, each time that it comes: what was acknowledged is so again; another phone that
        has answered too is hung up on (RFC 3261 13.2.2.4)."""
        tag = response.to_tag or ""
        confirmed = leg.state not in (State.CALLING, State.RINGING, State.CANCELLING)
        if confirmed and leg.dialog is not None and tag == leg.dialog.id.remote_tag and not leg.dialog.early:
            if leg.acknowledged:
                self.port.acknowledge(leg, leg.dialog, leg.invite.cseq.number, NOTHING)
        elif confirmed:
            fork = leg.forks.get(tag)
            if fork is None:
                fork = leg.forks[tag] = Dialog.as_uac(leg.invite, response)
                self.port.acknowledge(leg, fork, leg.invite.cseq.number, NOTHING)
                kept, leg.dialog = leg.dialog, fork
                self.port.send(leg, "BYE", NOTHING, lambda _status, _response: None)
                leg.dialog = kept
            else:
                self.port.acknowledge(leg, fork, leg.invite.cseq.number, NOTHING)

    def asked(self, leg: Leg, status: int, response: Response | None) -> None:
        """Take the last response to a re-INVITE that nobody but us has sent."""
        if self.bridge is not None:
            bridge.asked(self, self.bridge, leg, status, response)
        elif leg.exchange is not None and 200 <= status < 300:
            its = leg.exchange
            exchange.acknowledge(self, its, NOTHING)
            exchange.finish(its)
            if its.stale:
                bridge.repair(self)
        else:
            self.dead(leg, status)

    def refresh(self, leg: Leg) -> None:
        """Refresh the session of ``leg`` (RFC 4028), unless the other side is about to: by an UPDATE, or by a re-INVITE that says
        what it has been told last."""
        if leg not in self.pair or leg.exchange is not None or self.bridge is not None:
            return
        other = self.other(leg)
        if other.refreshes and other.state is State.TALKING and other.interval <= leg.interval:
            return
        if leg.knows_update or not leg.told.last:
            self.port.send(leg, "UPDATE", NOTHING, lambda status, _response: self.dead(leg, status))
        else:
            exchange.begin(self, leg, Content("", leg.told.last, "application/sdp" if leg.told.last else ""))

    # -- what is said, and what is heard of it

    def take(self, message: Message, leg: Leg) -> None:
        """Remember the session description that ``leg`` has sent."""
        if message.body:
            self._taken(message, leg, Content("", message.body, message.header("Content-Type") or ""))

    def fit(self, leg: Leg, content: Content, offer: bool = False) -> Content:
        """``content`` as ``leg`` is to see it."""
        described = description_of(content)
        if not described:
            return content
        body = leg.told.fit(described, offer)
        return content if body is described else with_description(content, body)

    def convey(self, message: Message, source: Leg, target: Leg, offer: bool = False) -> Content:
        """What of a message of ``source`` goes to ``target``."""
        content = self._taken(message, source, self.port.content(message, target))
        return self.fit(target, content, offer) if message.method in DESCRIBING else content

    @staticmethod
    def _taken(message: Message, source: Leg, content: Content) -> Content:
        described = description_of(content) if message.method in DESCRIBING else b""
        if not described:
            return content
        body = source.told.cut(described) if isinstance(message, Response) else described
        source.said = Content("", body, SDP)
        return content if body is described else with_description(content, body)

    # -- a leg that ends alone

    def drop(self, leg: Leg) -> None:
        """Forget what there is to be said to ``leg``: it has ended by itself. Bridge the other one now, or ``settle``."""
        if leg.state is not State.TALKING:
            self.part(leg)
            return
        self.loose = leg
        leg.state = State.OVER
        leg.token = None
        self._ends(leg)
        if leg in self.aside:
            self.aside.remove(leg)
            self.port.forget(leg)

    def part(self, leg: Leg) -> None:
        """End ``leg``, and not yet the other one: bridge that now, or ``settle``."""
        self.loose = leg
        self.leave(leg)

    def settle(self) -> None:
        """End the leg whose other one has ended alone, if it was joined with nobody."""
        self.loose = None
        if self.bridge is None and self.lent_to is None and any(leg.state in ENDING for leg in self.pair):
            for leg in self.legs:
                self.leave(leg)
            self.check()

    # -- what comes within a leg

    def cancelled(self, leg: Leg) -> None:
        """Take a CANCEL of the INVITE of ``leg``, or of its re-INVITE."""
        if not self.step(leg, Event.CANCEL):
            exchange.cancelled(self, leg)

    def acknowledged(self, leg: Leg, ack: Request) -> None:
        """Take the ACK to a 2xx of ours."""
        other = self.other(leg)
        its = leg.exchange
        if its is not None and its.source is leg:
            if its.answered is not None:
                exchange.acknowledge(self, its, self.convey(ack, leg, its.target))
                exchange.finish(its)
        elif self.step(leg, Event.ACK):
            if leg.timer is not None:
                leg.timer.cancel()
                leg.timer = None
            if self.bridge is not None:
                bridge.admitted(self, self.bridge, leg, ack)
            elif leg in self.pair:
                self.step(other, Event.ACK, reply=(0, "", self.convey(ack, leg, other)))

    def request(self, leg: Leg, request: Request, token: Any) -> None:
        """Take any other request within ``leg``."""
        if leg.dialog is None or leg.is_over:
            self.port.reply(leg, token, 200 if request.method == "BYE" else 481, "", NOTHING)
            return
        try:
            leg.dialog.accept(request)
        except SipError as error:
            self.port.reply(leg, token, error.status, error.reason, NOTHING)
            return
        alone = leg.state in ENDING or leg not in self.pair or (self.bridge is not None and request.method == "BYE")
        if alone or self.logic is None:
            self.pass_request(leg, request, token)
        else:
            self.logic.request(self, leg, request, token)

    def pass_request(self, leg: Leg, request: Request, token: Any) -> None:
        """Pass a request on to the other leg."""
        if request.method == "BYE":
            if not transparent.pass_bye(self, leg, request, token) and not self.step(leg, Event.BYE, token):
                self.port.reply(leg, token, 481, "", NOTHING)
            return
        other = self.other(leg)
        offers = request.method in ("INVITE", "UPDATE")
        if leg.state in ENDING:
            self.port.reply(leg, token, 481, "", NOTHING)
        elif offers and (self.bridge is not None or (leg.exchange or other.exchange) is not None):
            exchange.refuse(self, leg, token)
        elif leg not in self.pair or other.dialog is None or other.state in ENDING:
            self.port.reply(leg, token, 480, "", NOTHING)
        elif request.method == "INVITE":
            exchange.pass_on(self, leg, other, request, token)
        else:
            self.port.send(
                other, request.method, self.convey(request, leg, other, offers),
                lambda status, response: self._answered(leg, other, token, request.method, status, response),
            )

    def _answered(self, leg: Leg, other: Leg, token: Any, method: str, status: int, response: Response | None) -> None:
        """Pass a response to any other request back."""

        def usual() -> None:
            if status >= 300 or response is None:
                self.pass_failure(leg, token, other, status, response)
                self.dead(other, status)
            elif status > 100:
                self.port.reply(leg, token, status, response.reason, self.convey(response, other, leg))

        if response is not None and other.dialog is not None and 200 <= status < 300:
            other.dialog.refresh(response)
        if other.is_over:
            usual()
        else:
            self.decide(other, method, status, response, usual)

    def pass_failure(self, leg: Leg, token: Any, other: Leg, status: int, response: Response | None) -> None:
        """Answer a request of ``leg`` with the failure of what it became at ``other``."""
        content = NOTHING if response is None else self.convey(response, other, leg)
        status = status or 403
        self.port.reply(leg, token, status, phrase(status) if response is None else response.reason, content)


def phrase(status: int) -> str:
    """The words for a status that is our own."""
    return {403: "Forbidden", 408: "Request Timeout", 503: "Service Unavailable"}.get(status, "")


def begin(key: str, caller: Leg, callee: Leg, port: Port, **options: Any) -> Session:
    """A session of two legs that have just begun; ``SipError`` if the caller's INVITE makes no dialog."""
    assert caller.role is Role.SERVER
    caller.dialog = Dialog.as_uas(caller.invite, caller.key)
    session = Session(key, [caller, callee], port, **options)
    session.take(caller.invite, caller)
    callee.told.fit(caller.said.body, True)
    return session
