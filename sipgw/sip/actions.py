"""What the transaction layer asks of the transaction user: the actions that its methods return, and what they name.

``Send``, ``Deliver``, ``Failed`` and ``Unacknowledged`` are to be performed in order, after the method has returned.
They are not frozen, because a frozen dataclass takes six times as long to make; nobody changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from sipgw.sip.errors import SipError

if TYPE_CHECKING:
    from sipgw.sip.message import Request, Response
    from sipgw.sip.transaction import ClientTransaction, ServerTransaction

__all__ = ["Action", "Counters", "Deliver", "Failed", "Flow", "Overload", "Send", "Unacknowledged"]


class Flow(Protocol):
    """A way to a peer: a UDP socket and an address, or a connection.

    ``transport``: "udp", "tcp", "tls", "ws", "wss"; ``host``, ``port``: of the peer; ``reliable``: not UDP. ``socket``:
    ours, on which it goes; ``refused``: why nothing may be sent there, empty when it may; ``id``: of the connection, the
    same for all flows on it. The layer reads ``reliable``, and then ``id``."""

    @property
    def transport(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def reliable(self) -> bool: ...
    @property
    def socket(self) -> Any: ...
    @property
    def refused(self) -> str: ...
    @property
    def id(self) -> object: ...

    def send(self, data: bytes) -> object:
        """Send ``data``; False if it is known at once that it cannot go.

        Never called by the layer, only by who performs its actions."""


@dataclass(slots=True)
class Send:
    """Asks to put ``data`` on ``flow``."""

    data: bytes
    flow: Flow


@dataclass(slots=True)
class Deliver:
    """Hands a message that came on ``flow`` to the TU; ``transaction``: that of a response, if it has one."""

    message: Request | Response
    flow: Flow
    transaction: ClientTransaction | None


@dataclass(slots=True)
class Failed:
    """Says that a request got no final response; ``reason``: "timeout" (as if 408 had come) or "transport" (503).

    If ``transaction.state`` is ``GIVEN_UP``, an INVITE had got a provisional response: it is to be cancelled."""

    transaction: ClientTransaction
    reason: str


@dataclass(slots=True)
class Unacknowledged:
    """Says that no ACK came for the final response of an INVITE; after a 2xx the TU ends the dialog with BYE."""

    transaction: ServerTransaction


Action = Send | Deliver | Failed | Unacknowledged


class Overload(SipError):
    """Refuses a new transaction because there are too many: 503 with ``Retry-After: retry_after`` (seconds)."""

    def __init__(self, retry_after: int = 10) -> None:
        super().__init__("Too Many Transactions", 503)
        self.retry_after = retry_after


class Counters:
    """Counts what the layer did by itself, as plain integers that only grow.

    ``requests_*``: retransmissions sent, by the pause before them (first, second, third, later). ``replies_t2``:
    final responses sent again by timer G. ``timeouts``: requests without an answer (timers B, F); ``invite_timeouts``:
    INVITEs without a final one (C). ``absorbed_requests``, ``absorbed_replies``: received again and not delivered."""

    __slots__ = (
        "absorbed_replies", "absorbed_requests", "invite_timeouts", "replies_t2", "requests_t1_1", "requests_t1_2",
        "requests_t1_3", "requests_t2", "timeouts",
    )

    def __init__(self) -> None:
        self.requests_t1_1 = 0
        self.requests_t1_2 = 0
        self.requests_t1_3 = 0
        self.requests_t2 = 0
        self.replies_t2 = 0
        self.timeouts = 0
        self.invite_timeouts = 0
        self.absorbed_requests = 0
        self.absorbed_replies = 0
