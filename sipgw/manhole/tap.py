"""Each SIP message that comes to a server and that leaves it, and what passes beside SIP, for who looks at it from the shell.

What comes is seen before anything is done with it (``TransactionUser.on_received``), what leaves on the flow that sends it. The
flows are wrapped only while somebody listens: else nothing costs anything.

*Keys* say what belongs together: a Call-ID, and those of the other legs of its call, which modules know that make them
(``TransactionUser.kin``: back to back, topology hiding); of a text that came from Jabber or from a mobile, what it was there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sipgw.core.inner import InnerFlow
from sipgw.manhole.beside import call_key, inner_keys, tap_all
from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response, parse
from sipgw.transport.flow import StreamFlow
from sipgw.transport.udp import UdpFlow


@dataclass(frozen=True, slots=True)
class Seen:
    """One message: when (seconds since 1970), whether it came or left, by which transport, where from and to, its octets.

    ``keys``: what it belongs to. What is no SIP has no ``message``, but the ``lane`` of its peer and a ``label``. ``inner``: a
    request that came from elsewhere into the script, or its response: it was on no wire."""

    time: float
    came: bool
    transport: str
    local: tuple[str, int]
    peer: tuple[str, int]
    message: Request | Response | None
    data: bytes
    keys: frozenset[str] = frozenset()
    lane: str = ""
    label: str = ""
    inner: bool = False

    @property
    def source(self) -> tuple[str, int]:
        """Where it is from."""
        return self.peer if self.came else self.local

    @property
    def target(self) -> tuple[str, int]:
        """Where it goes."""
        return self.local if self.came else self.peer


class Tap:
    """Shows the messages of one server to ``listeners``; ``flows`` are the classes of its flows."""

    def __init__(self, server: Any, flows: tuple[type, ...] = (UdpFlow, StreamFlow)) -> None:
        self._server = server
        self._user = server.user
        self._flows = flows
        self._listeners: list[Callable[[Seen], None]] = []
        self._undo: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[Seen], None]) -> None:
        """Show each message to ``listener`` too."""
        self._listeners.append(listener)
        if not self._undo:
            self._open()

    def leave(self, listener: Callable[[Seen], None]) -> None:
        """Show it no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)
        if not self._listeners:
            while self._undo:
                self._undo.pop()()

    def _open(self) -> None:
        user, before = self._user, self._user.on_received

        def received(message: Request | Response, flow: Any) -> None:
            if before is not None:
                before(message, flow)
            if self._listeners:
                self._show(True, message, write(message, NO_EDITS), flow)

        def forget() -> None:
            # somebody may have put himself before us meanwhile: then this stays, and only passes on
            if user.on_received is received:
                user.on_received = before

        user.on_received = received
        self._undo.append(forget)
        for flow in self._flows:
            self._wrap(flow)
        self._undo += tap_all(self._server, self._beside)

    def _wrap(self, kind: Any) -> None:
        inner = kind.send

        def send(flow: Any, data: bytes) -> Any:
            sent = inner(flow, data)
            if sent is not False and flow.socket in self._user.sockets:
                try:
                    message = parse(data)
                except MalformedMessage:
                    return sent  # a keep-alive
                self._show(False, message, data, flow)
            return sent

        kind.send = send
        self._undo.append(lambda: setattr(kind, "send", inner))

    def _keys(self, message: Request | Response, flow: Any) -> frozenset[str]:
        """What a message belongs to."""
        ids = [message.header("call-id") or ""]
        for kin in self._user.kin:
            ids += kin(message)
        keys = {call_key(id) for id in ids if id}
        if isinstance(flow, InnerFlow):
            keys.update(inner_keys(flow.origin))
        return frozenset(keys)

    def _show(self, came: bool, message: Request | Response, data: bytes, flow: Any) -> None:
        local = (flow.socket.host, flow.socket.port)
        self._tell(Seen(
            self._user.wall_clock(), came, flow.transport, local, (flow.host, flow.port), message, data,
            self._keys(message, flow), inner=isinstance(flow, InnerFlow),
        ))

    def _beside(self, came: bool, lane: str, label: str, keys: frozenset[str]) -> None:
        """Show what is no SIP."""
        here = ("", 0)
        self._tell(Seen(self._user.wall_clock(), came, lane.partition(" ")[0], here, here, None, b"", keys, lane, label))

    def _tell(self, seen: Seen) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(seen)
            except Exception as error:
                self._user.broken(error)
