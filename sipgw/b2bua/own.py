"""Calls whose one end is the server itself: a script or the operator speaks for it (``ua_session_*``). Pure: no clock, no wire.

``OwnSession`` has one leg and walks through the same table as those of two (``legs.TABLE``). What comes is told as an event of
``E_UA_SESSION``; requests but BYE wait until somebody answers them with ``reply``, and whoever waits in vain for ``PATIENCE``
seconds is told 500. A 2xx that comes is acknowledged at once, unless letter ``d`` leaves that to ``update("ACK")``.

The letters are those of OpenSIPS: ``a`` ACKs are told, ``r`` nothing (responses are told always), ``d`` no ACK of our own, ``h``
and ``b`` headers and body go into the event, ``n`` the INVITE that began the call is not told."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple, Protocol

from sipgw.b2bua.legs import Do, Event, Leg, Role, State
from sipgw.b2bua.port import ACK_PATIENCE, NOTHING, Content
from sipgw.sip.dialog import Dialog
from sipgw.sip.errors import SipError
from sipgw.sip.message import Message, Request, Response

LETTERS: Final = frozenset("ardhbn")
PATIENCE: Final = 30.0
"""Seconds that a request within the call, but an INVITE, waits for ``reply``: its sender gives up after 32."""
BUSY: Final = "Request Pending"


class Flags(NamedTuple):
    """How long a call may last, in seconds (0: as long as is usual), and the letters that were chosen for it."""

    lasts: int = 0
    letters: str = ""


def parse_flags(text: str) -> Flags:
    """The flags of ``ua_session_server_init``: letters, and ``t`` with seconds."""
    lasts, letters, rest = 0, "", text.strip()
    while rest:
        letter, rest = rest[0], rest[1:]
        if letter == "t":
            digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
            lasts, rest = int(digits[:9] or 0), rest[len(digits) :]
        elif letter in LETTERS:
            letters += letter
        else:
            raise ValueError(f"there is no flag {letter!r}: write tNNN for a limit in seconds, and letters out of a r d h b n")
    return Flags(lasts, letters)


class Kind:
    """What ``event_type`` says."""

    NEW: Final = "NEW"
    EARLY: Final = "EARLY"
    ANSWERED: Final = "ANSWERED"
    REJECTED: Final = "REJECTED"
    UPDATED: Final = "UPDATED"
    TERMINATED: Final = "TERMINATED"


class OwnPort(Protocol):
    """What is done for a call: see ``port.Port``."""

    def call(self, session: OwnSession, leg: Leg, content: Content) -> None:
        """Send the INVITE of the leg."""

    def reply(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> None:
        """Answer a request."""

    def send(self, leg: Leg, method: str, content: Content, heard: Callable[[int, Response | None], None]) -> int:
        """Send a request in the dialog."""

    def acknowledge(self, leg: Leg, dialog: Dialog, number: int, content: Content) -> None:
        """Acknowledge a 2xx."""

    def cancel(self, leg: Leg, number: int) -> None:
        """Cancel an INVITE."""

    def after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call ``call`` later."""

    def ended(self, session: OwnSession) -> None:
        """The call is over."""


Tell = Callable[["OwnSession", str, str, "Message | None", int], None]
"""``tell(session, kind, method, message, status)``: 0 for a request; no message where the status is our own."""


class OwnSession:
    """A call with ``leg``, whose key is its name. ``limit``: the timer that ends it, for whoever set it;
    ``ends``: when it does, in seconds since 1970."""

    __slots__ = (
        "__weakref__", "_bye", "_number", "_pending", "_reinvited", "_status", "_unanswered", "_waiting", "described",
        "ends", "leg", "letters", "limit", "over", "port", "tell",
    )

    def __init__(self, leg: Leg, port: OwnPort, tell: Tell, letters: str = "") -> None:
        self.leg = leg
        self.port = port
        self.tell = tell
        self.letters = letters
        self.limit: Any = None
        self.described = Content("", leg.invite.body, leg.invite.content_type or "") if leg.role is Role.CLIENT else NOTHING
        """The last session description of ours."""
        self.ends = 0
        self.over = False
        self._bye = NOTHING
        self._status = 480, "Temporarily Unavailable"
        self._pending: dict[str, list[tuple[Any, Any]]] = {}
        """Requests that wait for an answer, by their methods, each with the timer of our patience."""
        self._reinvited: Any = None
        """The re-INVITE that waits for an answer."""
        self._number: int | None = None
        """The CSeq of our re-INVITE that has no final answer, or one that is not acknowledged yet."""
        self._unanswered = False
        """Whether that has no final answer."""
        self._waiting: Any = None
        """The timer of an ACK that is to come."""
        if leg.role is Role.SERVER and leg.dialog is None:
            leg.dialog = Dialog.as_uas(leg.invite, leg.key)

    @property
    def key(self) -> str:
        """Its name."""
        return self.leg.key

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The one."""
        return (self.leg,)

    # -- steps

    def step(self, event: Event, token: Any = None, reply: tuple[int, str, Content] | None = None) -> bool:
        """Let ``event`` happen and do what follows; false if it means nothing."""
        leg = self.leg
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
            elif action is Do.CALL:
                self.port.call(self, leg, NOTHING)
            elif action is Do.ACKNOWLEDGE:
                self._acknowledge(NOTHING if reply is None else reply[2])
            elif action is Do.CANCEL:
                self.port.cancel(leg, leg.invite.cseq.number)
            elif action is Do.HANG_UP:
                self._acknowledge_again(NOTHING)
                self.port.send(leg, "BYE", self._bye, lambda status, _response: self._left(status))
        if leg.state in (State.OVER, State.LEAVING):
            self._clear()
        if leg.is_over and not self.over:
            self.over = True
            leg.token = None
            self.port.ended(self)
        return True

    def resume(self) -> None:
        """Go on after a restart: an answer is acknowledged, or was, and a BYE that nobody has answered is sent again."""
        leg = self.leg
        if leg.state in (State.ANSWERED, State.PARTING):
            self.step(Event.ACK)
        elif leg.state is State.LEAVING:
            leg.state = State.TALKING
            self.step(Event.LEAVE)

    def _acknowledge(self, content: Content) -> None:
        leg = self.leg
        if leg.dialog is not None and not leg.acknowledged:
            leg.acknowledged = True
            self.port.acknowledge(leg, leg.dialog, leg.invite.cseq.number, content)

    def _acknowledge_again(self, content: Content) -> bool:
        """Acknowledge the 2xx to our re-INVITE, if there is one that is not."""
        number, dialog = self._number, self.leg.dialog
        if number is None or self._unanswered or dialog is None:
            return False
        self._number = None
        self.port.acknowledge(self.leg, dialog, number, content)
        return True

    def _left(self, status: int) -> None:
        if status >= 200 or status == 0:
            self.step(Event.LEFT)

    def _clear(self) -> None:
        """The call ends: whoever waits learns it."""
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            for token, timer in waiting:
                timer.cancel()
                self.port.reply(self.leg, token, 487, "Request Terminated", NOTHING)
        if self._reinvited is not None:
            token, self._reinvited = self._reinvited, None
            self.port.reply(self.leg, token, 487, "Request Terminated", NOTHING)
        self._no_longer_waiting()

    def _no_longer_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _wait_for_ack(self) -> None:
        self._no_longer_waiting()
        self._waiting = self.port.after(ACK_PATIENCE, self._no_ack)

    def _no_ack(self) -> None:
        self._waiting = None
        self.step(Event.NO_ACK)

    # -- what comes

    def call(self) -> None:
        """Send the INVITE with which we begin."""
        self.step(Event.CALL)

    def heard(self, leg: Leg, status: int, response: Response | None) -> None:
        """Take a response to the INVITE with which we began; without one if ``status`` is our own (0: it was dropped)."""
        status = status or 403
        if status < 200:
            if status == 100 or response is None or leg.state not in (State.CALLING, State.RINGING):
                return
            leg.ring(response)
            self.step(Event.PROVISIONAL)
            self._answered("INVITE", status, response)
        elif status < 300 and response is not None:
            if leg.state not in (State.CALLING, State.RINGING, State.CANCELLING):
                return
            was_cancelled = leg.state is State.CANCELLING
            leg.answer(response)
            self.step(Event.SUCCESS)
            if not was_cancelled:
                self._answered("INVITE", status, response)
                if "d" not in self.letters:
                    self.step(Event.ACK)
        else:
            self._answered("INVITE", status, response)
            self.step(Event.FAILURE)

    def success(self, leg: Leg, response: Response) -> None:
        """Take a 2xx to our first INVITE, each time that it comes (RFC 3261 13.2.2.4)."""
        tag = response.to_tag or ""
        if leg.state in (State.CALLING, State.RINGING, State.CANCELLING):
            return
        number = leg.invite.cseq.number
        if leg.dialog is not None and tag == leg.dialog.id.remote_tag:
            if leg.acknowledged:
                self.port.acknowledge(leg, leg.dialog, number, NOTHING)
            return
        fork = leg.forks.get(tag)
        is_new = fork is None
        if fork is None:
            fork = leg.forks[tag] = Dialog.as_uac(leg.invite, response)
        self.port.acknowledge(leg, fork, number, NOTHING)
        if is_new:
            kept, leg.dialog = leg.dialog, fork
            self.port.send(leg, "BYE", NOTHING, lambda _status, _response: None)
            leg.dialog = kept

    def acknowledged(self, leg: Leg, ack: Request) -> None:
        """Take the ACK to a 2xx of ours."""
        if self._waiting is None:
            return
        self._no_longer_waiting()
        self.step(Event.ACK)
        if "a" in self.letters:
            self.tell(self, Kind.UPDATED, "ACK", ack, 0)

    def cancelled(self, leg: Leg, cancel: Request | None = None) -> None:
        """Take a CANCEL of the INVITE with which the call began, or of a re-INVITE."""
        if leg.role is Role.SERVER and leg.state is State.INVITED:
            self.tell(self, Kind.TERMINATED, "CANCEL", cancel, 0)
            self.step(Event.CANCEL)
        elif self._reinvited is not None:
            token, self._reinvited = self._reinvited, None
            self.port.reply(leg, token, 487, "Request Terminated", NOTHING)
            self.tell(self, Kind.UPDATED, "CANCEL", cancel, 0)

    def request(self, leg: Leg, request: Request, token: Any) -> None:
        """Take any other request."""
        method = request.method
        if leg.dialog is None or leg.is_over:
            self.port.reply(leg, token, 200 if method == "BYE" else 481, "", NOTHING)
            return
        try:
            leg.dialog.accept(request)
        except SipError as error:
            self.port.reply(leg, token, error.status, error.reason, NOTHING)
            return
        if method == "BYE":
            is_leaving = leg.state is State.LEAVING
            if not self.step(Event.BYE, token):
                self.port.reply(leg, token, 481, "", NOTHING)
            elif not is_leaving:
                self.tell(self, Kind.TERMINATED, method, request, 0)
            return
        if leg.state in (State.LEAVING, State.PARTING, State.CANCELLING):
            self.port.reply(leg, token, 481, "", NOTHING)
            return
        if method == "INVITE":
            if self._reinvited is not None:
                self.port.reply(leg, token, 500, "", Content(f"Retry-After: {Random().randint(0, 10)}\r\n"))
                return
            if leg.state is not State.TALKING or self._number is not None or self._waiting is not None:
                self.port.reply(leg, token, 491, BUSY, NOTHING)
                return
            self._reinvited = token
        else:
            waiting = self._pending.setdefault(method, [])
            waiting.append((token, self.port.after(PATIENCE, lambda: self._too_late(method, token))))
        self.tell(self, Kind.UPDATED, method, request, 0)

    def _too_late(self, method: str, token: Any) -> None:
        waiting = self._pending.get(method, [])
        for entry in waiting:
            if entry[0] is token:
                waiting.remove(entry)
                self.port.reply(self.leg, token, 500, "", NOTHING)
                return

    # -- what is to be said

    def reply(self, method: str, status: int, reason: str, content: Content) -> bool:
        """Answer the INVITE or another request that waits for it; false if none does."""
        leg = self.leg
        if method == "INVITE":
            self._describe(content)
            if leg.role is Role.SERVER and leg.state is State.INVITED:
                event = Event.PROVISIONAL if status < 200 else Event.SUCCESS if status < 300 else Event.FAILURE
                self.step(event, reply=(status, reason, content))
                if event is Event.SUCCESS:
                    self._wait_for_ack()
                return True
            if self._reinvited is None:
                return False
            token = self._reinvited
            if status >= 200:
                self._reinvited = None
            self.port.reply(leg, token, status, reason, content)
            if 200 <= status < 300:
                self._wait_for_ack()
            return True
        waiting = self._pending.get(method)
        if not waiting:
            return False
        token, timer = waiting[0]
        if status >= 200:
            timer.cancel()
            del waiting[0]
        self.port.reply(leg, token, status, reason, content)
        return True

    def update(self, method: str, content: Content) -> bool:
        """Send a request; false if none of its kind can be sent now."""
        leg = self.leg
        if method == "ACK":
            if leg.role is Role.CLIENT and leg.state is State.ANSWERED:
                return self.step(Event.ACK, reply=(0, "", content))
            return leg.state is State.TALKING and self._acknowledge_again(content)
        if method == "BYE":
            return self.terminate(content)
        if method == "CANCEL":
            if leg.role is Role.CLIENT and leg.state in (State.CALLING, State.RINGING):
                return self.terminate(content)
            if self._number is None or not self._unanswered:
                return False
            self.port.cancel(leg, self._number)
            return True
        if leg.dialog is None or leg.state in (State.OVER, State.LEAVING, State.PARTING, State.CANCELLING):
            return False
        if method != "INVITE":
            self.port.send(leg, method, content, lambda status, response: self._answer(method, status, response))
            return True
        if leg.state is not State.TALKING or self._reinvited is not None or self._number is not None or self._waiting is not None:
            return False
        self._unanswered = True
        self._describe(content)
        self._number = self.port.send(leg, "INVITE", content, self._reinvite_heard)
        return True

    def _describe(self, content: Content) -> None:
        if content.body:
            self.described = Content("", content.body, content.content_type)

    def terminate(self, content: Content = NOTHING) -> bool:
        """End the call by a BYE with these headers, a CANCEL or a refusal; false if it ends already."""
        self._bye = content
        return self.step(Event.LEAVE)

    def refresh(self, leg: Leg) -> None:
        """Refresh the session (RFC 4028): by an UPDATE, or a re-INVITE with the last description of ours."""
        if leg.knows_update:
            self.update("UPDATE", NOTHING)
        elif self.described.body:
            self.update("INVITE", self.described)

    def expired(self) -> None:
        """The call has lasted as long as it may."""
        self._status = 408, "Request Timeout"
        self.step(Event.LEAVE)

    # -- answers to what we said

    def _answered(self, method: str, status: int, response: Response | None) -> None:
        # COMPAT: whether letter r was written or not, as OpenSIPS does
        kind = Kind.EARLY if status < 200 else Kind.ANSWERED if status < 300 else Kind.REJECTED
        self.tell(self, kind, method, response, status)

    def _answer(self, method: str, status: int, response: Response | None) -> None:
        status = status or 403
        if status == 100:
            return
        dialog = self.leg.dialog
        if response is not None and dialog is not None:
            dialog.refresh(response)
        self._answered(method, status, response)
        self._dead(status)

    def _reinvite_heard(self, status: int, response: Response | None) -> None:
        """Take a response to our re-INVITE, a 2xx each time that it comes."""
        leg, number = self.leg, self._number
        status = status or 403
        if 200 <= status < 300 and response is not None and leg.dialog is not None:
            if number is None or not self._unanswered:
                if number is None:
                    self.port.acknowledge(leg, leg.dialog, response.cseq.number, NOTHING)
                return
            self._unanswered = False
            leg.dialog.refresh(response)
            self._answered("INVITE", status, response)
            if "d" not in self.letters or leg.state is not State.TALKING:
                self._acknowledge_again(NOTHING)
        elif number is not None and self._unanswered and status > 100:
            if status >= 200:
                self._number = None
            self._answered("INVITE", status, response)
            self._dead(status)

    def _dead(self, status: int) -> None:
        """A 481 or a 408 to a request within a dialog ends that (RFC 3261 12.2.1.2)."""
        if status in (408, 481):
            self.step(Event.LEAVE)
