"""Two legs that talk with each other: what passes from one to the other, and how both end. Pure: no clock, no wire.

``Session`` is driven by what comes (``request``, ``acknowledged``, ``cancelled``, ``heard``) and by time, and asks its ``Port``
to send. Without a ``Logic`` it passes all on: requests to the other leg, responses back, a BYE after it has been agreed to.
Whatever happens, when one leg ends the other is ended too, and when both are over the session is.

An INVITE within the call crosses no other one: while one is under way on a leg, in either direction, the next is answered 491
(500 with Retry-After to who sent the first; RFC 3261 14.2). Its 2xx is acknowledged to the one side when the other has: so an
offer in a 2xx gets the answer that stands in the ACK."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from sipgw.b2bua.legs import Do, Event, Leg, Role, State
from sipgw.sip.dialog import Dialog
from sipgw.sip.errors import SipError
from sipgw.sip.message import Message, Request, Response

ACK_PATIENCE: Final = 32.0
"""Seconds for the ACK to a 2xx of ours: 64*T1."""


@dataclass(frozen=True, slots=True)
class Content:
    """What of a message is passed on: whole header lines, and a body with its type."""

    headers: str = ""
    body: bytes = b""
    content_type: str = ""


NOTHING: Final = Content()


class Port(Protocol):
    """What a session has done for it. ``token``: the transaction of a request that came."""

    def reply(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> None:
        """Answer a request."""

    def send(self, leg: Leg, method: str, content: Content, heard: Callable[[int, Response | None], None]) -> int:
        """Send a request in the dialog; its CSeq number. ``heard`` hears each response, at last a final one, whatever happens."""

    def acknowledge(self, leg: Leg, dialog: Dialog, number: int, content: Content) -> None:
        """Send the ACK to the 2xx of the INVITE with that CSeq number, or send it again."""

    def cancel(self, leg: Leg, number: int) -> None:
        """Cancel the INVITE with that CSeq number, as soon as it can be (RFC 3261 9.1)."""

    def after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call ``call`` later; what is returned has ``cancel()``."""

    def content(self, message: Message, leg: Leg) -> Content:
        """What of ``message`` is passed on to ``leg``."""

    def ended(self, session: Session) -> None:
        """The session is over."""

    def forget(self, leg: Leg) -> None:
        """A leg that had left its session is over."""


class Logic(Protocol):
    """What decides about a session: a script, or nobody."""

    def request(self, session: Session, leg: Leg, request: Request, token: Any) -> None:
        """Do something about a request that came by ``leg``."""

    def reply(
        self, session: Session, leg: Leg, method: str, status: int, response: Response | None, usual: Callable[[], None]
    ) -> None:
        """Do something about a response that came by ``leg``; ``usual()`` does what is usual."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A re-INVITE on its way: ``source`` sent it, ``target`` got one of ours with the CSeq ``number``."""

    source: Leg
    target: Leg
    token: Any
    number: int = 0
    answered: Response | None = None
    acknowledged: Content | None = None
    timer: Any = None


@dataclass(eq=False)
class Session:
    """A call of two legs. ``caller``: the server leg that it began with, or since ``bridge`` the one that stayed; ``callee``: the
    client leg. ``gone``: legs that were replaced and are not over yet. ``values``: ``$b2b_logic.ctx``."""

    key: str
    caller: Leg
    callee: Leg
    port: Port
    scenario: str = ""
    logic: Logic | None = None
    values: dict[str, str] = field(default_factory=dict)
    over: bool = False
    is_answered: bool = False
    """Whether the caller has been told that somebody has answered."""

    def __post_init__(self) -> None:
        self._timer: Any = None
        self._status = 480, "Temporarily Unavailable"
        self._bridging: Exchange | None = None
        self.gone: list[Leg] = []

    @property
    def legs(self) -> tuple[Leg, Leg]:
        """Both."""
        return self.caller, self.callee

    def other(self, leg: Leg) -> Leg:
        """The one that ``leg`` talks with."""
        return self.callee if leg is self.caller else self.caller

    # -- steps

    def _step(self, leg: Leg, event: Event, token: Any = None, reply: tuple[int, str, Content] | None = None) -> bool:
        """Let ``event`` happen to ``leg`` and do what follows; false if it means nothing."""
        actions = leg.step(event)
        if actions is None:
            return False
        for action in actions:
            if action is Do.REPLY and reply is not None:
                self.port.reply(leg, leg.token, *reply)
                if reply[0] >= 200:
                    leg.token = None
            elif action is Do.REFUSE:
                status = (487, "Request Terminated") if event in (Event.CANCEL, Event.BYE) else self._status
                self.port.reply(leg, leg.token, *status, NOTHING)
            elif action is Do.AGREE:
                self.port.reply(leg, token, 200, "OK", NOTHING)
            elif action is Do.ACKNOWLEDGE:
                self._acknowledge_first(leg, NOTHING if reply is None else reply[2])
            elif action is Do.CANCEL:
                self.port.cancel(leg, leg.invite.cseq.number)
            elif action is Do.HANG_UP:
                self._hang_up(leg)
        if leg in self.gone:
            if leg.is_over:
                self.gone.remove(leg)
                self.port.forget(leg)
        elif leg.state in (State.OVER, State.LEAVING, State.PARTING, State.CANCELLING) and event is not Event.LEFT:
            self._give_up_exchange(leg)
            self._leave(self.other(leg))
        if leg.is_over:
            leg.token = None
        self._check()
        return True

    def _acknowledge_first(self, leg: Leg, content: Content) -> None:
        if leg.dialog is not None and not leg.acknowledged:
            leg.acknowledged = True
            self.port.acknowledge(leg, leg.dialog, leg.invite.cseq.number, content)

    def _hang_up(self, leg: Leg) -> None:
        exchange = leg.exchange
        if exchange is not None and exchange.target is leg and exchange.answered is not None and exchange.acknowledged is None:
            self._pass_ack(exchange, NOTHING)  # a 2xx is acknowledged, whatever comes next
        self.port.send(leg, "BYE", NOTHING, lambda status, _response: self._left(leg, status))

    def _left(self, leg: Leg, status: int) -> None:
        if status >= 200 or status == 0:
            self._step(leg, Event.LEFT)

    def _leave(self, leg: Leg) -> None:
        self._step(leg, Event.LEAVE)

    def _give_up_exchange(self, leg: Leg) -> None:
        """The leg ends in the middle of a re-INVITE: whoever sent that learns it."""
        exchange = leg.exchange
        if exchange is None:
            return
        if exchange.answered is None and exchange.token is not None:
            token, exchange.token = exchange.token, None
            self.port.reply(exchange.source, token, 487, "Request Terminated", NOTHING)
        elif exchange.answered is not None and exchange.acknowledged is None:
            self._pass_ack(exchange, NOTHING)
        self._finish(exchange)

    def _check(self) -> None:
        if not self.over and self.caller.is_over and self.callee.is_over and not self.gone:
            self.over = True
            if self._timer is not None:
                self._timer.cancel()
            self.port.ended(self)

    def end(self, status: int = 480, reason: str = "Temporarily Unavailable") -> None:
        """End both legs; one that is not answered yet with ``status``."""
        self._status = status, reason
        self._leave(self.callee)
        self._leave(self.caller)

    # -- the first INVITE

    def heard(self, status: int, response: Response | None) -> None:
        """Take a response to the INVITE of the callee's leg; without a response if ``status`` is our own (0: it was dropped)."""
        leg = self.callee
        status = status or 403
        if status < 200:
            if status == 100 or response is None or leg.state not in (State.CALLING, State.RINGING):
                return
            if response.to_tag and (leg.dialog is None or leg.dialog.id.remote_tag != response.to_tag):
                leg.dialog = Dialog.as_uac(leg.invite, response)
            leg.step(Event.PROVISIONAL)
        elif status < 300 and response is not None:
            if leg.state not in (State.CALLING, State.RINGING, State.CANCELLING):
                return
            leg.dialog = Dialog.as_uac(leg.invite, response)
            if leg.state is State.CANCELLING:
                self._step(leg, Event.SUCCESS)
                return
            leg.step(Event.SUCCESS)
        else:
            was_cancelled = leg.state is State.CANCELLING
            if leg.step(Event.FAILURE) is None:
                return
            if was_cancelled:
                self._check()
                return
        if self.logic is None:
            self._pass_heard(status, response)
        else:
            self.logic.reply(self, leg, "INVITE", status, response, lambda: self._pass_heard(status, response))

    def _pass_heard(self, status: int, response: Response | None) -> None:
        """Give the caller what the callee has answered."""
        if self._bridging is not None:
            self._bridge_heard(self._bridging, status, response)
            return
        content = NOTHING if response is None else self.port.content(response, self.caller)
        reply = status, _phrase(status) if response is None else response.reason, content
        if status < 200:
            self._step(self.caller, Event.PROVISIONAL, reply=reply)
        elif status >= 300:
            self._step(self.caller, Event.FAILURE, reply=reply)
        elif self._step(self.caller, Event.SUCCESS, reply=reply):
            self.is_answered = True
            self._timer = self.port.after(ACK_PATIENCE, lambda: self._lost(self.caller))
        else:
            self._leave(self.callee)

    def success(self, response: Response) -> None:
        """Take a 2xx to the INVITE of the callee's leg, each time that it comes: what was acknowledged is so again; another phone
        that has answered too is hung up on (RFC 3261 13.2.2.4)."""
        leg = self.callee
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

    def _lost(self, leg: Leg) -> None:
        self._step(leg, Event.NO_ACK)

    # -- another leg in the place of one

    def can_bridge(self, kept: Leg) -> bool:
        """Whether ``kept`` may be joined with somebody else: it talks, and no INVITE is under way on it."""
        return not self.over and kept in self.legs and kept.state is State.TALKING and kept.exchange is None

    def bridge(self, kept: Leg, new: Leg) -> None:
        """Let ``kept``, which may, talk with ``new``, a client leg whose INVITE (without a body) goes out next.

        The other one is hung up on. The offer in the 2xx of ``new`` goes to ``kept`` in a re-INVITE, and the answer to that into
        the ACK for ``new`` (RFC 3725 4.4). If either refuses, both end."""
        old = self.other(kept)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._bridging = Exchange(new, kept, None)
        kept.exchange = self._bridging
        self.gone.append(old)
        self.caller, self.callee = kept, new
        self._step(old, Event.LEAVE)
        if old.is_over and old in self.gone:
            self.gone.remove(old)
            self.port.forget(old)

    def drop(self, leg: Leg) -> None:
        """Forget what there is to be said to ``leg``: it has ended by itself. ``bridge`` the other one now, or ``settle``."""
        self._give_up_exchange(leg)
        leg.state = State.OVER
        leg.token = None

    def settle(self) -> None:
        """End the leg whose other one was dropped, if it was joined with nobody."""
        if any(leg.is_over for leg in self.legs):
            for leg in self.legs:
                self._leave(leg)
            self._check()

    def _bridge_heard(self, bridging: Exchange, status: int, response: Response | None) -> None:
        kept = bridging.target
        if status >= 300 or (status >= 200 and response is None):
            self._bridging = None
            self._finish(bridging)
            self._leave(kept)
            self._check()
        elif status >= 200 and response is not None and kept.exchange is bridging:
            content = self.port.content(response, kept)
            bridging.number = self.port.send(kept, "INVITE", content, lambda its, found: self._bridged(bridging, its, found))

    def _bridged(self, bridging: Exchange, status: int, response: Response | None) -> None:
        """Take a response to the re-INVITE that joins the two, a 2xx each time that it comes."""
        kept, new = bridging.target, bridging.source
        if 0 < status < 200:
            return
        if response is not None and status < 300 and status:
            if kept.dialog is not None:
                self.port.acknowledge(kept, kept.dialog, bridging.number, NOTHING)
            if kept.exchange is bridging:
                if kept.dialog is not None:
                    kept.dialog.refresh(response)
                self._bridging = None
                self._finish(bridging)
                self._step(new, Event.ACK, reply=(0, "", self.port.content(response, new)))
        elif kept.exchange is bridging:
            self._bridging = None
            self._finish(bridging)
            self._leave(kept)

    # -- what comes within a leg

    def cancelled(self, leg: Leg) -> None:
        """Take a CANCEL of the INVITE of ``leg``, or of its re-INVITE."""
        if self._step(leg, Event.CANCEL):
            return
        exchange = leg.exchange
        if exchange is not None and exchange.source is leg and exchange.answered is None:
            self.port.cancel(exchange.target, exchange.number)

    def acknowledged(self, leg: Leg, ack: Request) -> None:
        """Take the ACK to a 2xx of ours."""
        other = self.other(leg)
        content = self.port.content(ack, other)
        exchange = leg.exchange
        if exchange is not None and exchange.source is leg and exchange.answered is not None:
            self._pass_ack(exchange, content)
            self._finish(exchange)
        elif self._step(leg, Event.ACK):
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._step(other, Event.ACK, reply=(0, "", content))

    def _pass_ack(self, exchange: Exchange, content: Content) -> None:
        target = exchange.target
        exchange.acknowledged = content
        if target.dialog is not None:
            self.port.acknowledge(target, target.dialog, exchange.number, content)

    def _finish(self, exchange: Exchange) -> None:
        for leg in (exchange.source, exchange.target):
            if leg.exchange is exchange:
                leg.exchange = None
        if exchange.timer is not None:
            exchange.timer.cancel()
            exchange.timer = None

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
        if leg.state in (State.LEAVING, State.PARTING, State.CANCELLING) or self.logic is None:
            self.pass_request(leg, request, token)
        else:
            self.logic.request(self, leg, request, token)

    def pass_request(self, leg: Leg, request: Request, token: Any) -> None:
        """Pass a request on to the other leg."""
        if request.method == "BYE":
            if not self._step(leg, Event.BYE, token):
                self.port.reply(leg, token, 481, "", NOTHING)
            return
        other = self.other(leg)
        ending = other.state in (State.LEAVING, State.PARTING, State.CANCELLING, State.OVER)
        if leg in self.gone or other.dialog is None or ending:
            self.port.reply(leg, token, 481, "", NOTHING)
        elif request.method == "INVITE":
            self._reinvite(leg, other, request, token)
        else:
            content = self.port.content(request, other)
            self.port.send(
                other, request.method, content,
                lambda status, response: self._answered(leg, other, token, request.method, status, response),
            )

    def _reinvite(self, leg: Leg, other: Leg, request: Request, token: Any) -> None:
        busy = leg.exchange or other.exchange
        if leg.state is not State.TALKING or other.state is not State.TALKING or busy is not None:
            if busy is not None and busy.source is leg and busy.answered is None:
                self.port.reply(leg, token, 500, "Server Internal Error", Content(f"Retry-After: {Random().randint(0, 10)}\r\n"))
            else:
                self.port.reply(leg, token, 491, "Request Pending", NOTHING)
            return
        exchange = Exchange(leg, other, token)
        leg.exchange = other.exchange = exchange
        exchange.number = self.port.send(
            other, "INVITE", self.port.content(request, other),
            lambda status, response: self._reinvited(exchange, status, response),
        )

    def _reinvited(self, exchange: Exchange, status: int, response: Response | None) -> None:
        """Take a response to a re-INVITE of ours, a 2xx each time that it comes."""
        target = exchange.target
        if response is not None and 200 <= status < 300 and target.dialog is not None:
            if exchange.answered is not None or target.exchange is not exchange:
                if exchange.acknowledged is not None or exchange.answered is None:  # repeated; or nobody waits for it any more
                    self.port.acknowledge(target, target.dialog, exchange.number, exchange.acknowledged or NOTHING)
                return
            target.dialog.refresh(response)
        elif exchange.answered is not None or target.exchange is not exchange:
            return
        if self.logic is None:
            self._pass_reinvited(exchange, status, response)
        else:
            self.logic.reply(
                self, target, "INVITE", status, response, lambda: self._pass_reinvited(exchange, status, response)
            )

    def _pass_reinvited(self, exchange: Exchange, status: int, response: Response | None) -> None:
        source = exchange.source
        if status < 200 and response is not None:
            if status > 100:
                self.port.reply(source, exchange.token, status, response.reason, self.port.content(response, source))
            return
        token, exchange.token = exchange.token, None
        if 200 <= status < 300 and response is not None:
            exchange.answered = response
            exchange.timer = self.port.after(ACK_PATIENCE, lambda: self._lost(source))
            self.port.reply(source, token, status, response.reason, self.port.content(response, source))
            return
        self._finish(exchange)
        self._pass_failure(source, token, status, response)
        self._dead(exchange.target, status)

    def _answered(self, leg: Leg, other: Leg, token: Any, method: str, status: int, response: Response | None) -> None:
        """Pass a response to any other request back."""

        def usual() -> None:
            if status >= 300 or response is None:
                self._pass_failure(leg, token, status, response)
                self._dead(other, status)
            elif status > 100:
                self.port.reply(leg, token, status, response.reason, self.port.content(response, leg))

        if response is not None and other.dialog is not None and 200 <= status < 300:
            other.dialog.refresh(response)
        if self.logic is None or other.is_over:
            usual()
        else:
            self.logic.reply(self, other, method, status, response, usual)

    def _pass_failure(self, leg: Leg, token: Any, status: int, response: Response | None) -> None:
        content = NOTHING if response is None else self.port.content(response, leg)
        status = status or 403
        self.port.reply(leg, token, status, _phrase(status) if response is None else response.reason, content)

    def _dead(self, leg: Leg, status: int) -> None:
        """A 481 or a 408 to a request within a dialog ends that (RFC 3261 12.2.1.2)."""
        if status in (408, 481):
            self._step(leg, Event.LEAVE)


def _phrase(status: int) -> str:
    return {403: "Forbidden", 408: "Request Timeout", 503: "Service Unavailable"}.get(status, "")


def begin(key: str, caller: Leg, callee: Leg, port: Port, **options: Any) -> Session:
    """A session of two legs that have just begun; ``SipError`` if the caller's INVITE makes no dialog."""
    assert caller.role is Role.SERVER
    caller.dialog = Dialog.as_uas(caller.invite, caller.key)
    return Session(key, caller, callee, port, **options)
