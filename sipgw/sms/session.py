"""One SMPP session, on either side of it: what may be said when, which answer belongs to what, and the timers. Pure.

Octets and the time go in, actions come out; ``link.py`` performs them on a connection. Both sides are here, since they share
all but the beginning: an *ESME* binds, an *SMSC* is bound to and decides (``accept``, ``refuse``).

The states are those of SMPP 3.4 2.2, and ``ALLOWED`` says which requests each side may send in them. Requests of ours wait for
their answers in a *window*; who wants to send more waits until ``room`` says that there is some. An answer that says "too
fast" (ESME_RTHROTTLED) or "my queue is full" (ESME_RMSGQFUL) shuts the window for a while that doubles each time, from
``back_off`` to ``longest_back_off``, and that any other answer begins anew; the message itself goes back to whoever sent it.

The timers (7.2), in seconds of ``Settings``:

=================  ==========================  ==============================================
timer              begins                      when it is over
=================  ==========================  ==============================================
``bind_time``      the connection is there     no session came about: the connection is closed
``response_time``  a request of ours was sent  it has failed; nobody knows whether it was taken
``enquire_time``   the peer was last heard     ``enquire_link`` asks whether it is there
``response_time``  ``enquire_link`` was sent   it is not: the connection is closed
``idle_time``      the last message            the session is ended (0: never)
=================  ==========================  =============================================="""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sipgw.sms.pdu import COMMANDS, STATUS, Frames, Pdu, PduError, encode, parse

__all__ = ["Answered", "Bind", "Bound", "Close", "Deliver", "Session", "Settings", "Write"]

OPEN, TX, RX, TRX, CLOSED = "open", "transmitter", "receiver", "transceiver", "closed"

_MESSAGES_OUT: Final = frozenset("submit_sm submit_multi data_sm query_sm cancel_sm replace_sm".split())
_MESSAGES_IN: Final = frozenset("deliver_sm data_sm alert_notification".split())
ALLOWED: Final[dict[tuple[str, str], frozenset[str]]] = {
    ("esme", TX): _MESSAGES_OUT,
    ("esme", RX): frozenset(),
    ("esme", TRX): _MESSAGES_OUT,
    ("smsc", TX): frozenset(),
    ("smsc", RX): _MESSAGES_IN,
    ("smsc", TRX): _MESSAGES_IN,
}
"""Which requests a side may send, by its role and the kind of session. Both may also send enquire_link and unbind."""

SLOW_DOWN: Final = frozenset((STATUS["ESME_RTHROTTLED"], STATUS["ESME_RMSGQFUL"]))
"""Answers that say that the same message may be taken later."""
LAST_SEQUENCE: Final = 0x7FFF_FFFF


@dataclass(slots=True)
class Settings:
    """What a session is like; seconds, and numbers of requests."""

    window: int = 10
    bind_time: float = 10.0
    response_time: float = 10.0
    enquire_time: float = 30.0
    idle_time: float = 0.0
    back_off: float = 1.0
    longest_back_off: float = 60.0


class Write(NamedTuple):
    """Send these octets."""

    data: bytes


class Deliver(NamedTuple):
    """The peer asks for something: answer with ``respond``."""

    pdu: Pdu


class Bind(NamedTuple):
    """Somebody wants a session with us: ``accept`` or ``refuse``."""

    pdu: Pdu


class Bound(NamedTuple):
    """The session is there; ``system_id`` is what the peer calls itself."""

    system_id: str


class Answered(NamedTuple):
    """What became of the request that was sent with ``token``: its answer, or why there is none."""

    token: Any
    pdu: Pdu | None
    reason: str = ""

    @property
    def slow_down(self) -> bool:
        """Whether the peer wants it later."""
        return self.pdu is not None and self.pdu.status in SLOW_DOWN


class Close(NamedTuple):
    """The session is over: end the connection, once all that was written is sent."""

    reason: str


Action = Write | Deliver | Bind | Bound | Answered | Close


class _Pending(NamedTuple):
    """A request that waits for its answer."""

    command: str
    token: Any
    ends: float


_OURS: Final = object()
"""The token of requests that nobody outside has sent."""


class Session:
    """One session from the moment when the connection is there. ``role``: "esme" or "smsc", which of the two we are."""

    def __init__(self, role: str, settings: Settings, now: float) -> None:
        self.role = role
        self.settings = settings
        self.state = OPEN
        self.peer = ""
        """What the other side calls itself."""
        self.unmatched = 0
        """Answers that came for nothing, or too late."""
        self._frames = Frames()
        self._sequence = 0
        self._pending: dict[int, _Pending] = {}
        self._began = self._heard = self._busy = now
        self._enquired = False
        self._hold = 0.0
        self._back_off = 0.0
        self._binds = ""

    # ---- the beginning and the end ----

    def bind(self, kind: str, values: dict[str, Any], now: float) -> list[Action]:
        """Ask for a session as an ESME: ``kind`` "transmitter", "receiver" or "transceiver"."""
        self._binds = kind
        return self._request(Pdu(f"bind_{kind}", values=values), _OURS, now)

    def accept(self, bind: Pdu, system_id: str, now: float) -> list[Action]:
        """Let the ESME in that asked with ``bind``; ``system_id`` is what we call ourselves."""
        self.state = bind.command.removeprefix("bind_")
        self.peer = bind["system_id"]
        self._busy = now
        answer = bind.respond(system_id=system_id)
        answer.tlvs[0x0210] = b"\x34"
        return [Write(encode(answer)), Bound(self.peer)]

    def refuse(self, bind: Pdu, status: str) -> list[Action]:
        """Do not let the ESME in."""
        return [Write(encode(bind.respond(status))), *self._end(f"bind refused: {status}")]

    def unbind(self, now: float) -> list[Action]:
        """End the session in order; the connection is closed when the peer has answered, or not answered in time."""
        if self.state in (OPEN, CLOSED):
            return self._end("not bound")
        return self._request(Pdu("unbind"), _OURS, now)

    def lost(self, reason: str) -> list[Action]:
        """Take note that the connection is gone."""
        return [action for action in self._end(reason) if not isinstance(action, Close)]

    def _end(self, reason: str) -> list[Action]:
        if self.state == CLOSED:
            return []
        self.state = CLOSED
        pending, self._pending = self._pending, {}
        actions: list[Action] = [
            Answered(each.token, None, reason) for each in pending.values() if each.token is not _OURS
        ]
        actions.append(Close(reason))
        return actions

    # ---- requests of ours ----

    @property
    def is_bound(self) -> bool:
        """Whether there is a session."""
        return self.state in (TX, RX, TRX)

    @property
    def pending(self) -> int:
        """How many requests wait for an answer."""
        return sum(each.token is not _OURS for each in self._pending.values())

    def may_send(self, command: str) -> bool:
        """Whether a session like this is for such requests."""
        return command in ALLOWED.get((self.role, self.state), ())

    def room(self, now: float) -> int:
        """How many requests may be sent now."""
        return max(0, self.settings.window - self.pending) if self.is_bound and now >= self._hold else 0

    def opens(self) -> float:
        """When a window that was shut opens again; in the past if it is open."""
        return self._hold

    def request(self, pdu: Pdu, token: Any, now: float) -> list[Action]:
        """Send a request, whose answer comes with ``token``. ``PduError`` if it cannot be written. The caller has asked for
        ``room``."""
        self._busy = now
        return self._request(pdu, token, now)

    def _request(self, pdu: Pdu, token: Any, now: float) -> list[Action]:
        sequence = self._sequence % LAST_SEQUENCE + 1
        while sequence in self._pending:
            sequence = sequence % LAST_SEQUENCE + 1
        pdu.sequence = self._sequence = sequence
        data = encode(pdu)
        self._pending[pdu.sequence] = _Pending(pdu.command, token, now + self.settings.response_time)
        return [Write(data)]

    def respond(self, pdu: Pdu, status: str | int = 0, **values: Any) -> list[Action]:
        """Answer a request that came with ``Deliver``; nothing is sent if the session has ended meanwhile."""
        if self.state == CLOSED or pdu.command == "alert_notification":
            return []
        return [Write(encode(pdu.respond(status, **values)))]

    # ---- what comes ----

    def receive(self, data: bytes, now: float) -> list[Action]:
        """Take octets from the connection."""
        actions: list[Action] = []
        if self.state == CLOSED:
            return actions
        self._heard = now
        self._enquired = False
        try:
            for frame in self._frames.feed(data):
                if self.state == CLOSED:
                    break
                try:
                    actions += self._take(parse(frame), now)
                except PduError as error:
                    actions += self._broken(error)
        except PduError as error:
            actions += [Write(encode(Pdu("generic_nack", 0, error.status))), *self._end(str(error))]
        return actions

    def _broken(self, error: PduError) -> list[Action]:
        """Answer a PDU that cannot be read; if it is an answer itself, what it answers has failed."""
        if error.command & 0x8000_0000:
            pending = self._pending.pop(error.sequence, None)
            if pending is not None and pending.token is not _OURS:
                return [Answered(pending.token, None, str(error))]
            return []
        name = next((name for name, number in COMMANDS.items() if number == error.command), None)
        if name is None or f"{name}_resp" not in COMMANDS:
            return [Write(encode(Pdu("generic_nack", error.sequence, error.status)))]
        return [Write(encode(Pdu(f"{name}_resp", error.sequence, error.status)))]

    def _take(self, pdu: Pdu, now: float) -> list[Action]:
        if pdu.is_response:
            return self._answer(pdu, now)
        if pdu.command == "enquire_link":
            return [Write(encode(pdu.respond()))]
        if pdu.command == "unbind":
            return [Write(encode(pdu.respond())), *self._end("the peer has ended the session")]
        if pdu.command.startswith("bind_"):
            if self.role != "smsc" or self.state != OPEN:
                return [Write(encode(pdu.respond("ESME_RALYBND" if self.is_bound else "ESME_RINVBNDSTS")))]
            return [Bind(pdu)]
        other = "smsc" if self.role == "esme" else "esme"
        if pdu.command not in ALLOWED.get((other, self.state), ()):
            return [Write(encode(pdu.respond("ESME_RINVBNDSTS")))] if f"{pdu.command}_resp" in COMMANDS else []
        self._busy = now
        return [Deliver(pdu)]

    def _answer(self, pdu: Pdu, now: float) -> list[Action]:
        pending = self._pending.get(pdu.sequence)
        if pending is None or pdu.command not in (f"{pending.command}_resp", "generic_nack"):
            self.unmatched += 1
            return []
        del self._pending[pdu.sequence]
        if pending.token is not _OURS:
            answered = Answered(pending.token, pdu)
            if answered.slow_down:
                self._back_off = min(self._back_off * 2 or self.settings.back_off, self.settings.longest_back_off)
                self._hold = now + self._back_off
            else:
                self._back_off = 0.0
            return [answered]
        if pending.command == "unbind":
            return self._end("ended")
        if pending.command.startswith("bind_"):
            if pdu.status or pdu.command == "generic_nack":
                return self._end(f"the peer does not let us bind: {pdu.error}")
            self.state = self._binds
            self.peer = pdu["system_id"]
            return [Bound(self.peer)]
        return []

    # ---- time ----

    def next(self) -> float | None:
        """When ``expire`` has something to do next; None once the session is over."""
        if self.state == CLOSED:
            return None
        times = [min((each.ends for each in self._pending.values()), default=float("inf"))]
        if self.state == OPEN:
            times.append(self._began + self.settings.bind_time)
        else:
            if not self._enquired and self.settings.enquire_time:
                times.append(self._heard + self.settings.enquire_time)
            if self.settings.idle_time:
                times.append(self._busy + self.settings.idle_time)
        return min(times)

    def expire(self, now: float) -> list[Action]:
        """Do what is due."""
        if self.state == CLOSED:
            return []
        actions: list[Action] = []
        for sequence in [sequence for sequence, each in self._pending.items() if each.ends <= now]:
            late = self._pending.pop(sequence)
            if late.token is _OURS:
                return actions + self._end(f"no answer to {late.command}")
            actions.append(Answered(late.token, None, f"no answer to {late.command}"))
        settings = self.settings
        if self.state == OPEN:
            if now >= self._began + settings.bind_time:
                actions += self._end("no bind came")
            return actions
        if settings.idle_time and now >= self._busy + settings.idle_time:
            self._busy = now
            return actions + self.unbind(now)
        if settings.enquire_time and not self._enquired and now >= self._heard + settings.enquire_time:
            self._enquired = True
            actions += self._request(Pdu("enquire_link"), _OURS, now)
        return actions
