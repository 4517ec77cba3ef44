"""One SMPP connection: performs what a ``Session`` says, and tells its ``Owner`` what happened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from twisted.internet import protocol
from twisted.python.failure import Failure

from sipgw.sms.pdu import Pdu, encode
from sipgw.sms.session import Action, Answered, Bind, Bound, Close, Deliver, Session, Settings, Write

__all__ = ["Link", "Owner"]


class Owner(Protocol):
    """Whoever a connection belongs to: the ESME that made it, the SMSC that took it."""

    def connected(self, link: Link) -> None:
        """The connection is there; an ESME binds now."""

    def asked(self, link: Link, bind: Pdu) -> None:
        """The peer wants to bind."""

    def bound(self, link: Link) -> None:
        """The session is there."""

    def delivered(self, link: Link, pdu: Pdu) -> None:
        """The peer sent a request, which is to be answered with ``link.respond``."""

    def answered(self, link: Link, answer: Answered) -> None:
        """A request of ours was answered, or will not be."""

    def closed(self, link: Link, reason: str) -> None:
        """The session is over, all its requests have been told; nothing more comes of this link."""


class Link(protocol.Protocol):
    """One connection, of either side. ``peer`` is the address of the other, for log lines."""

    transport: Any

    def __init__(self, role: str, settings: Settings, reactor: Any, owner: Owner) -> None:
        self.session = Session(role, settings, reactor.seconds())
        self.peer = ""
        self.since = 0.0
        """When the session began, by the reactor's clock."""
        self.sent = 0
        self.received = 0
        self._reactor = reactor
        self._owner = owner
        self._timer: Any = None
        self._closed = False

    # ---- what its owner does ----

    def bind(self, kind: str, values: dict[str, Any]) -> None:
        """Ask for a session."""
        self._perform(self.session.bind(kind, values, self._now()))

    def outbind(self, values: dict[str, Any]) -> None:
        """Ask the peer to bind to us."""
        self._perform([Write(encode(Pdu("outbind", 1, 0, values)))])

    def accept(self, bind: Pdu, system_id: str) -> None:
        """Let the ESME in."""
        self._perform(self.session.accept(bind, system_id, self._now()))

    def refuse(self, bind: Pdu, status: str) -> None:
        """Do not let the ESME in."""
        self._perform(self.session.refuse(bind, status))

    def room(self) -> int:
        """How many requests may be sent now."""
        return 0 if self._closed else self.session.room(self._now())

    def opens_in(self) -> float:
        """Seconds until a window that was shut opens again."""
        return max(0.0, self.session.opens() - self._now())

    def request(self, pdu: Pdu, token: Any) -> None:
        """Send a request; its owner hears of the answer. ``PduError`` if it cannot be written."""
        self.sent += 1
        self._perform(self.session.request(pdu, token, self._now()))

    def respond(self, pdu: Pdu, status: str | int = 0, **values: Any) -> None:
        """Answer a request of the peer."""
        self._perform(self.session.respond(pdu, status, **values))

    def unbind(self) -> None:
        """End the session in order."""
        self._perform(self.session.unbind(self._now()))

    def abort(self, reason: str) -> None:
        """End it at once."""
        self._perform([*self.session.lost(reason), Close(reason)])

    # ---- Twisted's side ----

    def connectionMade(self) -> None:
        """Begin."""
        address = self.transport.getPeer()
        self.peer = f"{getattr(address, 'host', address)}:{getattr(address, 'port', '')}"
        no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if no_delay is not None:
            no_delay(True)
        self._owner.connected(self)
        self._set_timer()

    def dataReceived(self, data: bytes) -> None:
        """Take octets."""
        self._perform(self.session.receive(data, self._now()))

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """Tell that it is over, if nobody has yet."""
        text = reason.getErrorMessage()
        self._perform([*self.session.lost(text), Close(text)])

    def _now(self) -> float:
        return float(self._reactor.seconds())

    def _perform(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Write):
                self.transport.write(action.data)
            elif isinstance(action, Answered):
                self._owner.answered(self, action)
            elif isinstance(action, Deliver):
                self.received += 1
                self._owner.delivered(self, action.pdu)
            elif isinstance(action, Bind):
                self._owner.asked(self, action.pdu)
            elif isinstance(action, Bound):
                self.since = self._now()
                self._owner.bound(self)
            elif not self._closed:
                self._closed = True
                self.transport.loseConnection()
                self._owner.closed(self, action.reason)
        self._set_timer()

    def _set_timer(self) -> None:
        """Wake up for what the session has to do next."""
        due = None if self._closed else self.session.next()
        timer = self._timer
        if timer is not None and timer.active():
            if due is not None and timer.getTime() <= due:
                return  # it looks again when it comes
            timer.cancel()
        self._timer = None if due is None else self._reactor.callLater(max(0.0, due - self._now()), self._woken)

    def _woken(self) -> None:
        self._timer = None
        self._perform(self.session.expire(self._now()))
