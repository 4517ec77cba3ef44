"""The four transaction machines of RFC 3261 17 with the corrections of RFC 6026, as tables.

Each table says: in this state, at this event, go to that state and do these things, in this order. What is not in a
table changes nothing and does nothing: the event is absorbed. ``layer.py`` walks the tables; nothing here acts.

Three things differ from the figures of the RFCs, all on the side of the client of an INVITE:

- ``GIVEN_UP``: when the time for a final answer is over after a provisional one (RFC 3261 16.8, timer C), the TU is
  told and will send CANCEL, but the answer to the INVITE is still to come: the machine stays to acknowledge a late 487
  and to deliver a late 2xx, for as long as an accepted one stays (timer M). RFC 3261 16.8 keeps it likewise.
- An error of the transport in ``PROCEEDING`` is none of the machine: nothing is sent in that state.
- Timer C belongs to the proxy in RFC 3261; it stands here because OpenSIPS's ``fr_inv_timeout`` is a timer of the
  transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

from sipgw.sip.message import Request, parse

if TYPE_CHECKING:
    from sipgw.sip.actions import Flow
    from sipgw.sip.timers import Timer

__all__ = [
    "CLIENT_INVITE",
    "CLIENT_OTHER",
    "SERVER_INVITE",
    "SERVER_OTHER",
    "TIMER_OF",
    "ClientTransaction",
    "Do",
    "Event",
    "Key",
    "ServerTransaction",
    "State",
    "Table",
    "Timed",
    "TimerSettings",
    "Transaction",
    "UnackedSuccess",
]


class State(IntEnum):
    """Where a transaction stands: the names of RFC 3261 17 and RFC 6026, and ``GIVEN_UP`` (see above)."""

    CALLING = 0
    TRYING = 1
    PROCEEDING = 2
    COMPLETED = 3
    CONFIRMED = 4
    ACCEPTED = 5
    GIVEN_UP = 6
    TERMINATED = 7


class Event(IntEnum):
    """What can happen to a transaction. A response is one received by a client, or one that the TU sends by a server."""

    REQUEST = 0  # the same request once more
    ACK = 1
    PROVISIONAL = 2  # 1xx
    SUCCESS = 3  # 2xx
    FAILURE = 4  # 3xx-6xx
    TRANSPORT_ERROR = 5
    TIMER_A = 6
    TIMER_B = 7
    TIMER_C = 8
    TIMER_D = 9
    TIMER_E = 10
    TIMER_F = 11
    TIMER_G = 12
    TIMER_H = 13
    TIMER_I = 14
    TIMER_J = 15
    TIMER_K = 16
    TIMER_L = 17  # RFC 6026 7.1
    TIMER_M = 18  # RFC 6026 7.2


class Do(IntEnum):
    """What a machine does on its way."""

    DELIVER = 0  # hand the message to the TU
    SEND = 1  # send the TU's response and keep it for repetition
    PASS = 2  # send the TU's response, which is not repeated here
    STOP = 3  # stop both timers: that of retransmission and that which ends the state
    ACK = 4  # acknowledge the response (RFC 3261 17.1.1.3), with the same ACK if it is repeated
    RESEND = 5  # send once more what was sent last, if anything was
    DOUBLE = 6  # wait twice as long as before for the next retransmission
    DOUBLE_TO_T2 = 7  # twice as long, but T2 at most
    EVERY_T2 = 8  # T2
    RESTART_C = 9  # start timer C again, if the settings want it at each provisional response
    TIME_OUT = 10  # tell the TU that no answer came
    FAIL = 11  # tell the TU that the transport failed
    NO_ACK = 12  # tell the TU that its final response was never acknowledged
    START_G = 13  # retransmission of the response; not over reliable transports
    START_C = 14
    START_D = 15
    START_H = 16
    START_I = 17
    START_J = 18
    START_K = 19
    START_L = 20
    START_M = 21


TIMER_OF: Final[Mapping[Do, Event]] = {
    Do.START_D: Event.TIMER_D,
    Do.START_H: Event.TIMER_H,
    Do.START_I: Event.TIMER_I,
    Do.START_J: Event.TIMER_J,
    Do.START_K: Event.TIMER_K,
    Do.START_L: Event.TIMER_L,
    Do.START_M: Event.TIMER_M,
}
"""The timers that end a state, by the action that starts them. A length of 0 ends the state at once."""

_CALLING: Final = State.CALLING
_TRYING: Final = State.TRYING
_PROCEEDING: Final = State.PROCEEDING

Key = tuple[str | int | None, ...]
"""Under what the layer finds a transaction; only the layer reads it."""

Row = tuple[State, tuple[Do, ...]]
Table = Mapping[tuple[State, Event], Row]

CLIENT_INVITE: Final[Table] = {
    # RFC 3261 17.1.1.2, RFC 6026 7.2. Begins in CALLING: request sent, timers A (not if reliable) and B started.
    (State.CALLING, Event.TIMER_A): (State.CALLING, (Do.RESEND, Do.DOUBLE)),
    (State.CALLING, Event.TIMER_B): (State.TERMINATED, (Do.STOP, Do.TIME_OUT)),
    (State.CALLING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Do.STOP, Do.FAIL)),
    (State.CALLING, Event.PROVISIONAL): (State.PROCEEDING, (Do.STOP, Do.DELIVER, Do.START_C)),
    (State.CALLING, Event.SUCCESS): (State.ACCEPTED, (Do.STOP, Do.DELIVER, Do.START_M)),
    (State.CALLING, Event.FAILURE): (State.COMPLETED, (Do.STOP, Do.ACK, Do.DELIVER, Do.START_D)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (Do.DELIVER, Do.RESTART_C)),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, (Do.STOP, Do.DELIVER, Do.START_M)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (Do.STOP, Do.ACK, Do.DELIVER, Do.START_D)),
    (State.PROCEEDING, Event.TIMER_C): (State.GIVEN_UP, (Do.STOP, Do.TIME_OUT, Do.START_M)),
    (State.COMPLETED, Event.FAILURE): (State.COMPLETED, (Do.ACK,)),
    (State.COMPLETED, Event.TRANSPORT_ERROR): (State.TERMINATED, (Do.STOP, Do.FAIL)),
    (State.COMPLETED, Event.TIMER_D): (State.TERMINATED, (Do.STOP,)),
    (State.ACCEPTED, Event.SUCCESS): (State.ACCEPTED, (Do.DELIVER,)),
    (State.ACCEPTED, Event.TIMER_M): (State.TERMINATED, (Do.STOP,)),
    (State.GIVEN_UP, Event.SUCCESS): (State.ACCEPTED, (Do.STOP, Do.DELIVER, Do.START_M)),
    (State.GIVEN_UP, Event.FAILURE): (State.COMPLETED, (Do.STOP, Do.ACK, Do.START_D)),
    (State.GIVEN_UP, Event.TIMER_M): (State.TERMINATED, (Do.STOP,)),
}

CLIENT_OTHER: Final[Table] = {
    # RFC 3261 17.1.2.2. Begins in TRYING: request sent, timers E (not if reliable) and F started.
    (State.TRYING, Event.TIMER_E): (State.TRYING, (Do.RESEND, Do.DOUBLE_TO_T2)),
    (State.TRYING, Event.TIMER_F): (State.TERMINATED, (Do.STOP, Do.TIME_OUT)),
    (State.TRYING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Do.STOP, Do.FAIL)),
    (State.TRYING, Event.PROVISIONAL): (State.PROCEEDING, (Do.DELIVER,)),
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, (Do.STOP, Do.DELIVER, Do.START_K)),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, (Do.STOP, Do.DELIVER, Do.START_K)),
    (State.PROCEEDING, Event.TIMER_E): (State.PROCEEDING, (Do.RESEND, Do.EVERY_T2)),
    (State.PROCEEDING, Event.TIMER_F): (State.TERMINATED, (Do.STOP, Do.TIME_OUT)),
    (State.PROCEEDING, Event.TRANSPORT_ERROR): (State.TERMINATED, (Do.STOP, Do.FAIL)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (Do.DELIVER,)),
    (State.PROCEEDING, Event.SUCCESS): (State.COMPLETED, (Do.STOP, Do.DELIVER, Do.START_K)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (Do.STOP, Do.DELIVER, Do.START_K)),
    (State.COMPLETED, Event.TIMER_K): (State.TERMINATED, (Do.STOP,)),
}

SERVER_INVITE: Final[Table] = {
    # RFC 3261 17.2.1, RFC 6026 7.1. Begins in PROCEEDING. The 100 after 200 ms is left to the TU.
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (Do.RESEND,)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (Do.SEND,)),
    (State.PROCEEDING, Event.SUCCESS): (State.ACCEPTED, (Do.PASS, Do.START_L)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (Do.SEND, Do.START_G, Do.START_H)),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (Do.RESEND,)),
    (State.COMPLETED, Event.TIMER_G): (State.COMPLETED, (Do.RESEND, Do.DOUBLE_TO_T2)),
    (State.COMPLETED, Event.ACK): (State.CONFIRMED, (Do.STOP, Do.START_I)),
    (State.COMPLETED, Event.TIMER_H): (State.TERMINATED, (Do.STOP, Do.NO_ACK)),
    (State.CONFIRMED, Event.TIMER_I): (State.TERMINATED, (Do.STOP,)),
    (State.ACCEPTED, Event.SUCCESS): (State.ACCEPTED, (Do.PASS,)),
    (State.ACCEPTED, Event.ACK): (State.ACCEPTED, (Do.DELIVER,)),
    (State.ACCEPTED, Event.TIMER_L): (State.TERMINATED, (Do.STOP,)),
}

SERVER_OTHER: Final[Table] = {
    # RFC 3261 17.2.2. Begins in TRYING.
    (State.TRYING, Event.PROVISIONAL): (State.PROCEEDING, (Do.SEND,)),
    (State.TRYING, Event.SUCCESS): (State.COMPLETED, (Do.SEND, Do.START_J)),
    (State.TRYING, Event.FAILURE): (State.COMPLETED, (Do.SEND, Do.START_J)),
    (State.PROCEEDING, Event.REQUEST): (State.PROCEEDING, (Do.RESEND,)),
    (State.PROCEEDING, Event.PROVISIONAL): (State.PROCEEDING, (Do.SEND,)),
    (State.PROCEEDING, Event.SUCCESS): (State.COMPLETED, (Do.SEND, Do.START_J)),
    (State.PROCEEDING, Event.FAILURE): (State.COMPLETED, (Do.SEND, Do.START_J)),
    (State.COMPLETED, Event.REQUEST): (State.COMPLETED, (Do.RESEND,)),
    (State.COMPLETED, Event.TIMER_J): (State.TERMINATED, (Do.STOP,)),
}


@dataclass(frozen=True, slots=True)
class TimerSettings:
    """How long things take, in seconds (RFC 3261 table 4, RFC 6026 7); ``None``: as the RFCs derive it from T1, T2, T4.

    ``t1``: round trip; ``t2``: longest pause between retransmissions of anything but INVITE; ``t4``: life of a
    message in the network. ``b``, ``f``: wait for an answer (64*T1; OpenSIPS: fr_timeout). ``c``: wait for the final
    response of an INVITE after a provisional one (more than 180; fr_inv_timeout). ``h``: wait for the ACK (64*T1).
    ``restart_fr_on_each_reply``: timer C starts anew at each provisional response, else it counts from the first.

    What a finished transaction lives on to absorb what comes late: ``d`` (32, 0 over reliable transports), ``i`` and
    ``k`` (T4, 0 over reliable ones), ``j`` (64*T1, 0 over reliable ones), ``l`` and ``m`` (64*T1). ``afterlife``
    replaces all six, over every transport (OpenSIPS: wt_timer)."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0
    b: float | None = None
    c: float = 181.0
    d: float | None = None
    f: float | None = None
    h: float | None = None
    i: float | None = None
    j: float | None = None
    k: float | None = None
    l: float | None = None  # noqa: E741 (RFC 6026's name)
    m: float | None = None
    afterlife: float | None = None
    restart_fr_on_each_reply: bool = True

    def lengths(self, reliable: bool) -> tuple[float, ...]:
        """Return the length of each timer, indexed by its ``Event``, for a flow that is ``reliable`` or not."""
        long = 64 * self.t1
        after = self.afterlife
        rfc = {
            Event.TIMER_A: (self.t1, None),
            Event.TIMER_B: (long, self.b),
            Event.TIMER_C: (self.c, None),
            Event.TIMER_D: (0.0 if reliable else max(32.0, long), self.d if after is None else after),
            Event.TIMER_E: (self.t1, None),
            Event.TIMER_F: (long, self.f),
            Event.TIMER_G: (self.t1, None),
            Event.TIMER_H: (long, self.h),
            Event.TIMER_I: (0.0 if reliable else self.t4, self.i if after is None else after),
            Event.TIMER_J: (0.0 if reliable else long, self.j if after is None else after),
            Event.TIMER_K: (0.0 if reliable else self.t4, self.k if after is None else after),
            Event.TIMER_L: (long, self.l if after is None else after),
            Event.TIMER_M: (long, self.m if after is None else after),
        }
        chosen = {event: default if own is None else own for event, (default, own) in rfc.items()}
        return tuple(chosen.get(event, 0.0) for event in Event)


class Timed:
    """Has two timers: ``resend``, which sends something once more after ``interval``, and ``limit``, which ends it."""

    __slots__ = ("interval", "limit", "resend")

    def __init__(self) -> None:
        self.interval = 0.0
        self.resend: Timer[Timed] | None = None
        self.limit: Timer[Timed] | None = None

    def stop(self) -> None:
        """Stop both timers."""
        timer = self.resend
        if timer is not None:
            timer.subject = None  # as timer.cancel(), which would cost a call
            self.resend = None
        timer = self.limit
        if timer is not None:
            timer.subject = None
            self.limit = None


class Transaction(Timed):
    """What the four machines have in common.

    ``key``: where the layer finds it. ``method``: of its request. ``flow``: where it sends. ``data``: what it would
    send once more. ``status``: of the last response, 0 before the first. ``user``: the TU's own object. ``lengths``: of its
    timers, see ``TimerSettings.lengths``."""

    __slots__ = ("data", "flow", "key", "lengths", "method", "state", "status", "table", "user")

    def __init__(
        self, key: Key, method: str, table: Table, state: State, flow: Flow, lengths: tuple[float, ...], data: bytes
    ) -> None:
        self.resend = None  # as Timed.__init__, which would cost a call
        self.limit = None
        self.interval = 0.0
        self.key = key
        self.method = method
        self.table = table
        self.state = state
        self.flow = flow
        self.lengths = lengths
        self.data = data
        self.status = 0
        self.user: Any = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.state.name} {self.status} {self.key!r}>"


class ClientTransaction(Transaction):
    """One request on its way to one destination (RFC 3261 17.1).

    ``branch``: of its top Via. ``timeout``: seconds to wait for an answer (timers B, F), ``invite_timeout``: for a
    final one after a provisional one (C). ``retransmissions``: how often the request was repeated. ``left``: what
    remained of timer B or F when it was paused, else ``None``. ``ack_headers``: lines that the TU wants in the ACK."""

    __slots__ = ("_sent", "ack", "ack_headers", "branch", "invite_timeout", "left", "retransmissions", "timeout")

    def __init__(
        self,
        key: Key,
        branch: str,
        method: str,
        flow: Flow,
        lengths: tuple[float, ...],
        data: bytes,
        sent: Request | None = None,
    ) -> None:
        # as Transaction.__init__, which would cost a call
        self.resend = None
        self.limit = None
        self.interval = 0.0
        self.key = key
        self.method = method
        self.flow = flow
        self.lengths = lengths
        self.data = data
        self.status = 0
        self.user = None
        if method == "INVITE":
            self.table, self.state = CLIENT_INVITE, _CALLING
        else:
            self.table, self.state = CLIENT_OTHER, _TRYING
        self.branch = branch
        self.timeout = 0.0
        self.invite_timeout = 0.0
        self.retransmissions = 0
        self.ack = b""
        self.ack_headers = ""
        self.left: float | None = None
        self._sent = sent

    @property
    def sent(self) -> Request:
        """The request as it was sent, until its final response has come; read from ``data`` when first asked for."""
        if self._sent is None:
            sent = parse(self.data)
            assert isinstance(sent, Request)
            self._sent = sent
        return self._sent

    def forget_request(self) -> None:
        """Let go of what will not be sent again: a finished transaction stays for seconds, its INVITE need not."""
        self.data = b""
        self._sent = None


class ServerTransaction(Transaction):
    """One request that came, and the answers to it (RFC 3261 17.2).

    ``request``: as received. ``received_at``: when. ``ack_key``: where an ACK of RFC 2543 finds it, or ``None``."""

    __slots__ = ("ack_key", "received_at", "request")

    def __init__(self, key: Key, request: Request, flow: Flow, lengths: tuple[float, ...], now: float) -> None:
        method = request.method
        # as Transaction.__init__, which would cost a call
        self.resend = None
        self.limit = None
        self.interval = 0.0
        self.key = key
        self.method = method
        self.flow = flow
        self.lengths = lengths
        self.data = b""
        self.status = 0
        self.user = None
        if method == "INVITE":
            self.table, self.state = SERVER_INVITE, _PROCEEDING
        else:
            self.table, self.state = SERVER_OTHER, _TRYING
        self.request = request
        self.received_at = now
        self.ack_key: Key | None = None


class UnackedSuccess(Timed):
    """A 2xx of our own to an INVITE, sent again until its ACK comes (RFC 3261 13.3.1.4): the TU's part by the book."""

    __slots__ = ("data", "key", "transaction")

    def __init__(self, key: Key, transaction: ServerTransaction, data: bytes) -> None:
        super().__init__()
        self.key = key
        self.transaction = transaction
        self.data = data
