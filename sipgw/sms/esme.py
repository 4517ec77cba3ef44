"""We as an ESME: the sessions with the SMSCs that we bind to, kept up.

Each ``Esme`` binds to one SMSC. A connection that fails, a bind that is refused or a session that ends is tried again, after a
time that doubles from ``FIRST_WAIT`` to ``LONGEST_WAIT`` seconds, with some chance in it so that many do not come back together;
a session that lasted begins anew. With ``session_type`` 5 there are two sessions, one each way, as some SMSCs want; with 4 it is
we who play the SMSC, and call the other with ``outbind`` (SMPP 3.4 2.2.1) so that it binds to us on that connection."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from sipgw.sms.link import Link
from sipgw.sms.pdu import Pdu
from sipgw.sms.session import Answered, Settings

__all__ = ["KINDS", "Esme", "Smsc", "Watcher"]

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0
LASTING: Final = 30.0
"""Seconds after which a session counts as one that works, so that the waits begin anew."""
CONNECT_TIME: Final = 10.0
OUTBIND: Final = "outbind"
KINDS: Final = {
    1: ("transceiver",), 2: ("transmitter",), 3: ("receiver",), 4: (OUTBIND,), 5: ("transmitter", "receiver"),
}
"""The sessions that a number in the column ``session_type`` asks for, as OpenSIPS numbers them; 5 is ours."""


@dataclass
class Smsc:
    """One row of the table ``smpp``: an SMSC to bind to, and how."""

    name: str
    host: str
    port: int = 2775
    system_id: str = ""
    password: str = field(default="", repr=False)
    system_type: str = ""
    src_ton: int = 0
    src_npi: int = 0
    dst_ton: int = 0
    dst_npi: int = 0
    session_type: int = 1
    tls: Any = None
    """What ``wrapClientTLS`` wants (``optionsForClientTLS``); None for plain TCP."""
    settings: Settings = field(default_factory=Settings)


class Watcher(Protocol):
    """What an ``Esme`` tells."""

    def up(self, esme: Esme) -> None:
        """A session is there."""

    def down(self, esme: Esme, reason: str) -> None:
        """A session has ended, or could not begin."""

    def room(self, esme: Esme) -> None:
        """There may be room for requests again."""

    def delivered(self, esme: Esme, link: Link, pdu: Pdu) -> None:
        """The SMSC sent a request: answer it with ``link.respond``."""

    def answered(self, esme: Esme, answer: Answered) -> None:
        """The SMSC answered a request of ours, or will not."""


class _Session:
    """One of the sessions with an SMSC, and the waits between its connections."""

    def __init__(self, esme: Esme, kind: str) -> None:
        self.esme = esme
        self.kind = kind
        self.link: Link | None = None
        self.wait = 0.0
        self.timer: Any = None
        self.connecting: Deferred[Any] | None = None
        self.reason = "not tried yet"
        self.attempts = 0

    def connect(self) -> None:
        """Open a connection."""
        esme = self.esme
        self.timer = None
        self.attempts += 1
        role = "smsc" if self.kind == OUTBIND else "esme"
        factory: Any = Factory.forProtocol(lambda: Link(role, esme.smsc.settings, esme.reactor, self))
        factory.noisy = False
        connecting: Deferred[Any] = esme.endpoint().connect(factory)
        self.connecting = connecting
        connecting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self.connecting = None
        self._again(failure.getErrorMessage())

    def _again(self, reason: str) -> None:
        """Try again later, unless the end has come."""
        self.reason = reason
        esme = self.esme
        esme.watcher.down(esme, reason)
        if esme.stopped or self.timer is not None:
            return
        self.wait = min(LONGEST_WAIT, self.wait * 2 or FIRST_WAIT)
        self.timer = esme.reactor.callLater(self.wait * esme.random.uniform(0.75, 1.25), self.connect)

    def stop(self) -> None:
        """End it: no connection is opened any more, one that is there is ended in order."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.connecting is not None:
            self.connecting.cancel()
        if self.link is not None:
            self.link.unbind()

    # ---- what its connection tells ----

    def connected(self, link: Link) -> None:
        """Bind."""
        smsc = self.esme.smsc
        self.connecting = None
        self.link = link
        if self.kind == OUTBIND:
            link.outbind({"system_id": smsc.system_id, "password": smsc.password})
            return
        values = {
            "system_id": smsc.system_id, "password": smsc.password, "system_type": smsc.system_type, "interface_version": 0x34,
            "addr_ton": smsc.src_ton, "addr_npi": smsc.src_npi,
        }
        link.bind(self.kind, values)

    def asked(self, link: Link, bind: Pdu) -> None:
        """Whom we called binds to us, with the name and the password of the table; nobody else may."""
        smsc = self.esme.smsc
        right = hmac.compare_digest(bind["password"].encode("utf-8"), smsc.password.encode("utf-8"))
        if self.kind != OUTBIND or not right or bind["system_id"] != smsc.system_id:
            link.refuse(bind, "ESME_RBINDFAIL" if self.kind == OUTBIND else "ESME_RINVBNDSTS")
        else:
            link.accept(bind, smsc.system_id)

    def bound(self, link: Link) -> None:
        """The session is there."""
        self.reason = ""
        self.esme.watcher.up(self.esme)
        self.esme.watcher.room(self.esme)

    def delivered(self, link: Link, pdu: Pdu) -> None:
        """Pass it on."""
        self.esme.watcher.delivered(self.esme, link, pdu)

    def answered(self, link: Link, answer: Answered) -> None:
        """Pass it on, and say that there is room."""
        esme = self.esme
        esme.watcher.answered(esme, answer)
        if answer.slow_down:
            esme.throttled += 1
            esme.reactor.callLater(link.opens_in(), esme.watcher.room, esme)
        else:
            esme.watcher.room(esme)

    def closed(self, link: Link, reason: str) -> None:
        """Begin again."""
        if link.since and self.esme.reactor.seconds() - link.since > LASTING:
            self.wait = 0.0
        self.link = None
        self._again(reason)


class Esme:
    """Our side of one SMSC. ``random`` gives the waits their jitter."""

    def __init__(self, smsc: Smsc, reactor: Any, watcher: Watcher, random: Random | None = None) -> None:
        self.smsc = smsc
        self.reactor = reactor
        self.watcher = watcher
        self.random = random or Random()
        self.stopped = True
        self.throttled = 0
        """Answers that said "slower"."""
        self._sessions = [_Session(self, kind) for kind in KINDS.get(smsc.session_type, KINDS[1])]

    def endpoint(self) -> Any:
        """Where to connect to."""
        smsc = self.smsc
        plain: Any = HostnameEndpoint(self.reactor, smsc.host, smsc.port, timeout=CONNECT_TIME)
        return plain if smsc.tls is None else wrapClientTLS(smsc.tls, plain)

    def start(self) -> None:
        """Bind, and stay bound."""
        if self.stopped:
            self.stopped = False
            for session in self._sessions:
                session.wait = 0.0
                session.connect()

    def stop(self) -> None:
        """Unbind, and stay away."""
        self.stopped = True
        for session in self._sessions:
            session.stop()

    @property
    def links(self) -> list[Link]:
        """The connections that are there."""
        return [session.link for session in self._sessions if session.link is not None]

    @property
    def command(self) -> str:
        """What texts are sent with: ``deliver_sm`` where we play the SMSC."""
        return "deliver_sm" if OUTBIND in KINDS.get(self.smsc.session_type, ()) else "submit_sm"

    @property
    def is_bound(self) -> bool:
        """Whether messages can be sent to the SMSC now, or soon (a window that is shut opens again)."""
        return any(link.session.may_send(self.command) for link in self.links)

    @property
    def state(self) -> str:
        """In a word, for people: bound, connecting, stopped, or down with the reason."""
        if self.stopped:
            return "stopped"
        if all(link.session.is_bound for link in self.links) and len(self.links) == len(self._sessions):
            return "bound"
        reasons = [session.reason for session in self._sessions if session.reason]
        return f"down: {reasons[0]}" if reasons else "connecting"

    @property
    def attempts(self) -> int:
        """How many connections were tried."""
        return sum(session.attempts for session in self._sessions)

    @property
    def pending(self) -> int:
        """Requests of ours that wait for an answer."""
        return sum(link.session.pending for link in self.links)

    def room(self) -> int:
        """How many messages may be sent now."""
        return sum(link.room() for link in self.links if link.session.may_send(self.command))

    def submit(self, pdu: Pdu, token: Any) -> None:
        """Send a ``submit_sm`` (or another request of an ESME), the caller having asked for ``room``; ``PduError``."""
        for link in self.links:
            if link.session.may_send(pdu.command) and link.room():
                link.request(pdu, token)
                return
        raise RuntimeError("there is no room for a request")

