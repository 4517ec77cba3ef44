"""The transaction layer (RFC 3261 17, RFC 6026, RFC 2543 10.1.2): messages and ``now`` in, actions out.

``TransactionLayer`` keeps the transactions and walks the tables of ``transaction.py``. It sends nothing and calls
nobody: each method returns what its caller, the transaction user (TU), has to do, in order:

- ``Send(data, flow)``: put these bytes on that flow;
- ``Deliver(message, flow, transaction)``: a message for the TU. A response comes with its client transaction; a
  request (and an ACK or CANCEL) comes with ``None``, and it is the TU that ``accept``s it, when it likes (house 2.6,
  1). A response without a transaction comes with ``None`` too;
- ``Failed(transaction, reason)``: no answer came ("timeout"), or the request could not be sent ("transport");
- ``Unacknowledged(transaction)``: a final response to an INVITE was never acknowledged (RFC 3261 13.3.1.4, 17.2.1).

So the layer is never entered from inside itself. The one rule for the TU: perform the actions after the method has
returned, and call the next method then, not while iterating from inside another call.

What to hand in: messages that passed ``check()``. One that did not is harmless (what cannot be matched is delivered
with ``None``), but a response that the TU would refuse later would have ended its transaction.

How requests are matched (17.2.3): by branch, sent-by and method, compared as they were written, because a
retransmission is the same octets and ACK and CANCEL copy the Via. A request without the magic cookie is matched as
RFC 2543 wants: Request-URI, tags, Call-ID, CSeq and top Via. Responses (17.1.3): by branch and method.
"""

from __future__ import annotations

from collections.abc import Callable
from secrets import token_bytes
from typing import Any, Final

from sipgw.sip.actions import Action, Counters, Deliver, Failed, Flow, Overload, Send, Unacknowledged
from sipgw.sip.errors import MalformedMessage, Misuse
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import ack_for, cancel_for
from sipgw.sip.timers import Delays
from sipgw.sip.transaction import (
    TIMER_OF,
    ClientTransaction,
    Do,
    Event,
    Key,
    ServerTransaction,
    State,
    Timed,
    TimerSettings,
    Transaction,
    UnackedSuccess,
)

__all__ = [
    "MAGIC_COOKIE",
    "Action",
    "Counters",
    "Deliver",
    "Failed",
    "Flow",
    "Overload",
    "Send",
    "TransactionLayer",
    "Unacknowledged",
]

MAGIC_COOKIE: Final = "z9hG4bK"
"""What the branch of every RFC 3261 request begins with (8.1.1.7)."""

_SUCCESS_AGAIN: Final = 100  # timer events beside those of the tables: send the 2xx again (13.3.1.4)
_SUCCESS_LOST: Final = 101  # no ACK in 64*T1

# Members of an Enum as names of this file: an attribute of the class costs eight times as much to read (60 ns)
_DELIVER: Final = Do.DELIVER
_SEND: Final = Do.SEND
_PASS: Final = Do.PASS
_STOP: Final = Do.STOP
_ACK: Final = Do.ACK
_RESEND: Final = Do.RESEND
_DOUBLE: Final = Do.DOUBLE
_DOUBLE_TO_T2: Final = Do.DOUBLE_TO_T2
_EVERY_T2: Final = Do.EVERY_T2
_RESTART_C: Final = Do.RESTART_C
_TIME_OUT: Final = Do.TIME_OUT
_FAIL: Final = Do.FAIL
_NO_ACK: Final = Do.NO_ACK
_START_G: Final = Do.START_G
_START_C: Final = Do.START_C
_ON_REQUEST: Final = Event.REQUEST
_ON_ACK: Final = Event.ACK
_ON_PROVISIONAL: Final = Event.PROVISIONAL
_ON_SUCCESS: Final = Event.SUCCESS
_ON_FAILURE: Final = Event.FAILURE
_ON_TRANSPORT_ERROR: Final = Event.TRANSPORT_ERROR
_TIMER_A: Final = Event.TIMER_A
_TIMER_B: Final = Event.TIMER_B
_TIMER_C: Final = Event.TIMER_C
_TIMER_E: Final = Event.TIMER_E
_TIMER_F: Final = Event.TIMER_F
_TIMER_G: Final = Event.TIMER_G
_CALLING: Final = State.CALLING
_TRYING: Final = State.TRYING
_PROCEEDING: Final = State.PROCEEDING
_COMPLETED: Final = State.COMPLETED
_GIVEN_UP: Final = State.GIVEN_UP
_TERMINATED: Final = State.TERMINATED
_EVENTS: Final = tuple(Event)
_timer_of = TIMER_OF.get


class TransactionLayer:
    """Keeps every transaction of one server process.

    ``settings``: lengths of the timers. ``max_transactions``: server transactions at a time, beyond which ``accept``
    raises ``Overload``. ``worker``: two characters that name the process in each branch (house 2.7). ``random(n)``:
    n unpredictable octets. ``counters``: see ``Counters``."""

    def __init__(
        self,
        settings: TimerSettings | None = None,
        *,
        max_transactions: int = 50_000,
        worker: str = "00",
        random: Callable[[int], bytes] = token_bytes,
    ) -> None:
        if len(worker) != 2:
            raise Misuse(f"a worker's name has two characters, not {worker!r}")
        self.adjust(settings or TimerSettings())
        self.max_transactions = max_transactions
        self.counters = Counters()
        self._prefix = MAGIC_COOKIE + worker
        self._random = random
        self._branches = ""  # random characters, used up to here:
        self._used = 0
        self.on_final: Callable[[ServerTransaction, int, float], None] | None = None
        """Called with each transaction that gets its final response, its status and ``now``."""
        self.delays: Delays[Timed] = Delays()
        """The timers of all transactions; the TU reads ``soonest``, no more."""
        self._servers: dict[Key, ServerTransaction] = {}
        self._clients: dict[Key, ClientTransaction] = {}
        self._on_flow: dict[object, dict[Key, ClientTransaction]] = {}  # those that went out on a connection, by its id
        self._acks: dict[Key, ServerTransaction] = {}  # ACKs of RFC 2543 carry the To tag of the response
        self._unacked: dict[Key, UnackedSuccess] = {}

    def adjust(self, settings: TimerSettings) -> None:
        """Take other lengths of timers; transactions that are under way keep those that they began with, save T2."""
        self.settings = settings
        self._unreliable = settings.lengths(False)
        self._reliable = settings.lengths(True)

    # What comes from the network

    def receive(self, message: Request | Response, flow: Flow, now: float) -> list[Action]:
        """Take a message that arrived on ``flow``: absorb and answer what is a repetition, deliver the rest."""
        out: list[Action] = []
        if isinstance(message, Response):
            try:
                client = self._clients.get((message.via.branch, message.method))
            except MalformedMessage:
                client = None
            if client is None:
                out.append(Deliver(message, flow, None))
            else:
                self._answered(client, message, flow, now, out)
            return out
        try:
            server = self._server_of(message, message.method)
            if message.method == "ACK" and self._unacked:
                self._acknowledged(message)
        except MalformedMessage:
            server = None
        if server is None:
            out.append(Deliver(message, flow, None))
        elif message.method == "ACK":
            self._walk_server(server, _ON_ACK, message, flow, now, out)
        else:
            self.counters.absorbed_requests += 1
            self._walk_server(server, _ON_REQUEST, message, flow, now, out)
        return out

    def knows(self, request: Request) -> bool:
        """Whether ``receive`` would do more with a checked request than deliver it: it is a repetition, or an ACK."""
        method = request.method
        if method != "ACK":
            via = request.via
            branch = via.branch
            if branch and branch.startswith(MAGIC_COOKIE) and len(branch) > 7:
                return (branch, via.host, via.port, method) in self._servers
        return True

    def find(self, request: Request) -> ServerTransaction | None:
        """Return the transaction of ``request`` (RFC 3261 17.2.3); for an ACK or CANCEL, that of the INVITE (9.2).

        ``MalformedMessage`` if what it is matched by cannot be read."""
        method = request.method
        return self._server_of(request, "INVITE" if method == "CANCEL" else method)

    def find_client(self, branch: str, method: str) -> ClientTransaction | None:
        """Return the transaction of the request that was sent with ``branch`` and ``method``."""
        return self._clients.get((branch, method))

    def _server_of(self, request: Request, method: str) -> ServerTransaction | None:
        key = _server_key(request, method)
        found = self._servers.get(key)
        return self._acks.get(key) if found is None and self._acks else found

    # The server side

    def accept(self, request: Request, flow: Flow, now: float) -> ServerTransaction:
        """Begin a server transaction for ``request``, whose responses go out on ``flow``; ``Overload`` if too many.

        It lasts until a final response has been given and has rested, or until ``terminate``. A request that has a
        transaction gets the same one. ``MalformedMessage`` if it cannot be matched later."""
        method = request.method
        if method == "ACK":
            raise Misuse("an ACK has no transaction of its own (RFC 3261 17.1)")
        key = _server_key(request, method)
        transaction = self._servers.get(key)
        if transaction is not None:
            return transaction
        if len(self._servers) + len(self._unacked) >= self.max_transactions:
            raise Overload
        transaction = ServerTransaction(key, request, flow, self._reliable if flow.reliable else self._unreliable, now)
        self._servers[key] = transaction
        return transaction

    def respond(
        self, transaction: ServerTransaction, data: bytes, status: int, now: float, *, retransmit_2xx: bool = False
    ) -> list[Action]:
        """Answer with the response ``data``, whose status is ``status``.

        After a final response further ones are ignored, except a 2xx to an INVITE that got 2xx. With
        ``retransmit_2xx`` the 2xx to an INVITE is repeated until its ACK comes (13.3.1.4): for a 2xx of our own; one
        that is relayed is repeated by who sent it."""
        out: list[Action] = []
        if self.on_final is not None and status >= 200 > transaction.status:
            self.on_final(transaction, status, now)
        if status < 200:
            event = _ON_PROVISIONAL
        elif status < 300:
            event = _ON_SUCCESS
        else:
            event = _ON_FAILURE
        if (transaction.state, event) in transaction.table:
            transaction.status = status
            transaction.data = data
            if status >= 200 and transaction.ack_key is None and len(transaction.key) > 4:
                self._expect_ack(transaction, data)
            self._walk_server(transaction, event, None, transaction.flow, now, out)
            if retransmit_2xx and event is _ON_SUCCESS and transaction.method == "INVITE":
                self._repeat_success(transaction, data, now)
        return out

    def _walk_server(
        self, tx: ServerTransaction, event: Event, message: Request | None, flow: Flow, now: float, out: list[Action]
    ) -> None:
        row = tx.table.get((tx.state, event))
        if row is None:
            return
        tx.state, actions = row
        for do in actions:
            if do is _SEND:
                out.append(Send(tx.data, tx.flow))
            elif do is _PASS:
                out.append(Send(tx.data, tx.flow))
                tx.data = b""
            elif (timer := _timer_of(do)) is not None:
                length = tx.lengths[timer]
                if length > 0:
                    tx.limit = self.delays.add(length, now, tx, timer)
                else:
                    self._walk_server(tx, timer, None, flow, now, out)
                    return
            elif do is _STOP:
                tx.stop()
            elif do is _RESEND:
                if tx.data:
                    out.append(Send(tx.data, tx.flow))
                    self.counters.replies_t2 += event is _TIMER_G
            elif do is _START_G:
                if not tx.flow.reliable:
                    self._resend_after(tx, tx.lengths[_TIMER_G], _TIMER_G, now)
            elif do is _DOUBLE_TO_T2:
                self._resend_after(tx, min(2 * tx.interval, self.settings.t2), _TIMER_G, now)
            elif do is _DELIVER:
                assert message is not None
                out.append(Deliver(message, flow, None))
            else:
                assert do is _NO_ACK
                out.append(Unacknowledged(tx))
        if tx.state is _TERMINATED:
            self._forget_server(tx)

    def _forget_server(self, tx: ServerTransaction) -> None:
        del self._servers[tx.key]
        tx.user = None  # the TU's object may hold tx: they must not keep each other alive
        if tx.ack_key is not None and self._acks.get(tx.ack_key) is tx:
            del self._acks[tx.ack_key]

    def _expect_ack(self, tx: ServerTransaction, data: bytes) -> None:
        """Note under what the ACK of an RFC 2543 client comes: with the To tag of our response (17.2.3)."""
        if tx.method == "INVITE":
            try:
                to_tag = parse(data).to_tag
            except MalformedMessage:
                return
            tx.ack_key = _legacy_key(tx.request, "ACK", to_tag)
            self._acks[tx.ack_key] = tx

    def _repeat_success(self, tx: ServerTransaction, data: bytes, now: float) -> None:
        request = tx.request
        key = (request.call_id, request.cseq.number, request.from_tag)
        if key in self._unacked:
            return
        answer = UnackedSuccess(key, tx, data)
        answer.interval = self.settings.t1
        answer.resend = self.delays.add(answer.interval, now, answer, _SUCCESS_AGAIN)
        answer.limit = self.delays.add(64 * self.settings.t1, now, answer, _SUCCESS_LOST)
        self._unacked[key] = answer

    def _acknowledged(self, ack: Request) -> None:
        answer = self._unacked.pop((ack.call_id, ack.cseq.number, ack.from_tag), None)
        if answer is not None:
            answer.stop()

    # The client side

    def new_branch(self) -> str:
        """Return a branch for a new request: magic cookie, worker, 64 random bits (RFC 3261 8.1.1.7)."""
        at = self._used
        if at == len(self._branches):
            self._branches = self._random(1024).hex()
            at = 0
        self._used = at + 16
        return self._prefix + self._branches[at:at + 16]

    def request(
        self,
        data: bytes,
        request: Request,
        flow: Flow,
        now: float,
        timeout: float | None = None,
        invite_timeout: float | None = None,
        user: Any = None,
        *,
        branch: str = "",
    ) -> tuple[ClientTransaction, list[Action]]:
        """Send a request on ``flow`` and wait for its answers.

        ``request`` is what ``data`` says. Or, with ``branch``: that of the top Via of ``data``, while ``request`` is
        the one that is being relayed; only its method is read, and ``data`` is parsed when an ACK has to be made.
        ``timeout``, ``invite_timeout``: seconds, in place of timers B or F, and C."""
        sent = None
        if not branch:
            branch = request.via.branch or ""
            sent = request
        return self._open(data, request.method, branch, sent, flow, now, timeout, invite_timeout, user)

    def cancel(
        self, transaction: ClientTransaction, now: float, data: bytes = b"", *, timeout: float | None = None,
        user: Any = None,
    ) -> tuple[ClientTransaction | None, list[Action]]:
        """Send the CANCEL of an INVITE after it, as a transaction of its own (RFC 3261 9.1); ``data``: if not the usual one.

        Nothing is sent, and there is no transaction, before a provisional response, after a final one, or twice."""
        if transaction.method != "INVITE":
            raise Misuse("only an INVITE is cancelled (RFC 3261 9.1)")
        branch = transaction.branch
        if transaction.state not in (_PROCEEDING, _GIVEN_UP) or (branch, "CANCEL") in self._clients:
            return None, []
        data = data or cancel_for(transaction.sent)
        return self._open(data, "CANCEL", branch, None, transaction.flow, now, timeout, None, user)

    def _open(
        self, data: bytes, method: str, branch: str, sent: Request | None, flow: Flow, now: float,
        timeout: float | None, invite_timeout: float | None, user: Any,
    ) -> tuple[ClientTransaction, list[Action]]:
        key = (branch, method)
        if method == "ACK" or not branch or key in self._clients:
            raise Misuse(f"{method} with branch {branch!r}: a branch of its own is needed, and no transaction for ACK")
        reliable = flow.reliable
        lengths = self._reliable if reliable else self._unreliable
        tx = ClientTransaction(key, branch, method, flow, lengths, data, sent)
        tx.user = user
        if method == "INVITE":
            first, last = _TIMER_A, _TIMER_B
        else:
            first, last = _TIMER_E, _TIMER_F
        tx.timeout = lengths[last] if timeout is None else timeout
        tx.invite_timeout = lengths[_TIMER_C] if invite_timeout is None else invite_timeout
        if not reliable:
            tx.interval = lengths[first]
            tx.resend = self.delays.add(tx.interval, now, tx, first)
        else:
            self._on_flow.setdefault(flow.id, {})[key] = tx
        tx.limit = self.delays.add(tx.timeout, now, tx, last)
        self._clients[key] = tx
        return tx, [Send(data, flow)]

    def _answered(
        self, tx: ClientTransaction, response: Response, flow: Flow, now: float, out: list[Action]
    ) -> None:
        status = response.status
        if status < 200:
            event = _ON_PROVISIONAL
        elif status < 300:
            event = _ON_SUCCESS
        else:
            event = _ON_FAILURE
        self._walk_client(tx, event, response, flow, now, out)
        if not out or not isinstance(out[-1], Deliver):
            self.counters.absorbed_replies += 1

    def _walk_client(
        self, tx: ClientTransaction, event: Event, message: Response | None, flow: Flow, now: float, out: list[Action]
    ) -> None:
        row = tx.table.get((tx.state, event))
        if row is None:
            return
        tx.state, actions = row
        for do in actions:
            if do is _DELIVER:
                assert message is not None
                tx.status = message.status
                out.append(Deliver(message, flow, tx))
            elif do is _STOP:
                tx.stop()
            elif (timer := _timer_of(do)) is not None:
                length = tx.lengths[timer]
                if length > 0:
                    tx.limit = self.delays.add(length, now, tx, timer)
                else:
                    self._walk_client(tx, timer, None, flow, now, out)
                    return
            elif do is _START_C:
                tx.limit = self.delays.add(tx.invite_timeout, now, tx, _TIMER_C)
            elif do is _RESTART_C:
                if self.settings.restart_fr_on_each_reply:
                    if tx.limit is not None:
                        tx.limit.cancel()
                    tx.limit = self.delays.add(tx.invite_timeout, now, tx, _TIMER_C)
            elif do is _ACK:
                assert message is not None
                self._acknowledge(tx, message, out)
            elif do is _RESEND:
                out.append(Send(tx.data, tx.flow))
                self._count_retransmission(tx)
            elif do is _DOUBLE:
                self._resend_after(tx, 2 * tx.interval, event, now)
            elif do is _DOUBLE_TO_T2:
                self._resend_after(tx, min(2 * tx.interval, self.settings.t2), event, now)
            elif do is _EVERY_T2:
                self._resend_after(tx, self.settings.t2, event, now)
            elif do is _TIME_OUT:
                if event is _TIMER_C:
                    self.counters.invite_timeouts += 1
                else:
                    self.counters.timeouts += 1
                out.append(Failed(tx, "timeout"))
            else:
                assert do is _FAIL
                out.append(Failed(tx, "transport"))
        if tx.state is _COMPLETED:
            tx.forget_request()
        elif tx.state is _TERMINATED:
            self._forget_client(tx)

    def _forget_client(self, tx: ClientTransaction) -> None:
        del self._clients[tx.key]
        flow = tx.flow
        if flow.reliable:
            others = self._on_flow[flow.id]
            del others[tx.key]
            if not others:
                del self._on_flow[flow.id]

    def _acknowledge(self, tx: ClientTransaction, response: Response, out: list[Action]) -> None:
        """Send the ACK of a non-2xx final response where the INVITE went (17.1.1.3); the first is kept and repeated."""
        if not tx.ack:
            try:
                tx.ack = ack_for(tx.sent, response, tx.ack_headers)
            except MalformedMessage:
                return
        out.append(Send(tx.ack, tx.flow))

    def _count_retransmission(self, tx: ClientTransaction) -> None:
        tx.retransmissions += 1
        counters = self.counters
        if tx.retransmissions == 1:
            counters.requests_t1_1 += 1
        elif tx.retransmissions == 2:
            counters.requests_t1_2 += 1
        elif tx.retransmissions == 3:
            counters.requests_t1_3 += 1
        else:
            counters.requests_t2 += 1

    def transport_error(self, transaction: ClientTransaction, now: float) -> list[Action]:
        """Take note that what ``transaction`` sent could not be sent (17.1.4): ``Failed`` if it still matters."""
        out: list[Action] = []
        self._walk_client(transaction, _ON_TRANSPORT_ERROR, None, transaction.flow, now, out)
        return out

    def flow_lost(self, flow_id: object, now: float) -> list[Action]:
        """Take note that a connection has ended (``Flow.id``): ``Failed`` for what it carried and nobody has answered.

        An INVITE that has got a provisional response goes on: the peer may bring the final one on a connection of its own
        (RFC 3261 18.2.2)."""
        out: list[Action] = []
        for transaction in list(self._on_flow.get(flow_id, {}).values()):
            self._walk_client(transaction, _ON_TRANSPORT_ERROR, None, transaction.flow, now, out)
        return out

    def waits_on(self, flow_id: object) -> bool:
        """Tell whether a client transaction still waits for its answer on a connection."""
        return flow_id in self._on_flow

    def pause(self, transaction: ClientTransaction, now: float) -> None:
        """Hold timer B or F while the TU is busy with another answer of the same request (house 2.6, 5).

        Timer C is never held, nor are retransmissions."""
        timer = transaction.limit
        if timer is not None and timer.subject is not None and timer.event in (_TIMER_B, _TIMER_F):
            transaction.left = max(0.0, timer.at - now)
            timer.cancel()

    def resume(self, transaction: ClientTransaction, now: float) -> None:
        """Let timer B or F run on with what was left of it, rounded up to a half second."""
        left = transaction.left
        transaction.left = None
        if left is not None and transaction.state in (_CALLING, _TRYING, _PROCEEDING):
            event = _TIMER_B if transaction.method == "INVITE" else _TIMER_F
            if transaction.state is _PROCEEDING and event is _TIMER_B:
                return
            transaction.limit = self.delays.add(-(-left // 0.5) * 0.5, now, transaction, event)

    def set_invite_timeout(self, transaction: ClientTransaction, seconds: float, now: float) -> None:
        """Give timer C of an INVITE another length: from now on, if it runs already."""
        transaction.invite_timeout = seconds
        if transaction.state is _PROCEEDING and transaction.method == "INVITE":
            if transaction.limit is not None:
                transaction.limit.cancel()
            transaction.limit = self.delays.add(seconds, now, transaction, _TIMER_C)

    # Time and the end

    def wake_at(self) -> float | None:
        """Return when to call ``expire`` next: never too late, sometimes too early, ``None`` if nothing waits."""
        return self.delays.next()

    def expire(self, now: float) -> list[Action]:
        """Do what is due at ``now`` (seconds, monotonic); the actions are in order of the timers' times."""
        out: list[Action] = []
        while (due := self.delays.pop(now)) is not None:
            subject, event = due
            if isinstance(subject, ClientTransaction):
                self._walk_client(subject, _EVENTS[event], None, subject.flow, now, out)
            elif isinstance(subject, ServerTransaction):
                self._walk_server(subject, _EVENTS[event], None, subject.flow, now, out)
            elif isinstance(subject, UnackedSuccess):
                self._success_due(subject, event, now, out)
        return out

    def _success_due(self, answer: UnackedSuccess, event: int, now: float, out: list[Action]) -> None:
        if event == _SUCCESS_AGAIN:
            out.append(Send(answer.data, answer.transaction.flow))
            self.counters.replies_t2 += 1
            answer.interval = min(2 * answer.interval, self.settings.t2)
            answer.resend = self.delays.add(answer.interval, now, answer, _SUCCESS_AGAIN)
        else:
            answer.stop()
            del self._unacked[answer.key]
            out.append(Unacknowledged(answer.transaction))

    def _resend_after(self, tx: Transaction, interval: float, event: Event, now: float) -> None:
        tx.interval = interval
        tx.resend = self.delays.add(interval, now, tx, event)

    def terminate(self, transaction: Transaction) -> None:
        """End a transaction at once and forget it: whatever still comes for it is delivered as new."""
        if transaction.state is _TERMINATED:
            return
        transaction.stop()
        transaction.state = _TERMINATED
        if isinstance(transaction, ServerTransaction):
            self._forget_server(transaction)
        elif isinstance(transaction, ClientTransaction):
            self._forget_client(transaction)

    def abandon(self, transaction: ClientTransaction) -> None:
        """Stop to wait for answers: nothing is sent again, and what still comes is delivered without a transaction."""
        self.terminate(transaction)

    def servers(self) -> list[ServerTransaction]:
        """Return all server transactions: for what is asked rarely."""
        return list(self._servers.values())

    @property
    def in_use(self) -> int:
        """How many server transactions there are (OpenSIPS: inuse_transactions)."""
        return len(self._servers)

    @property
    def clients(self) -> int:
        """How many client transactions there are."""
        return len(self._clients)

    @property
    def timers(self) -> int:
        """How many timers run. Counts them one by one: for statistics and tests."""
        return len(self.delays)


def _server_key(request: Request, method: str) -> Key:
    """Return under what the transaction of ``request`` is kept, taken as one of ``method`` (RFC 3261 17.2.3)."""
    via = request.via
    branch = via.branch
    if branch and branch.startswith(MAGIC_COOKIE) and len(branch) > 7:
        return (branch, via.host, via.port, "INVITE" if method == "ACK" else method)
    return _legacy_key(request, method, request.to_tag)


def _legacy_key(request: Request, method: str, to_tag: str | None) -> Key:
    """Return the key of a request without the magic cookie."""
    via = request.via
    return (
        request.uri, to_tag, request.from_tag, request.call_id, request.cseq.number, method,
        via.transport, via.host, via.port, via.branch,
    )
