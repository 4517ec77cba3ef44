"""Reliable provisional responses (RFC 3262) on either side of a back-to-back call, each with numbers of its own. Pure.

``Reliability`` stands between the sessions and the wire. Toward a caller it makes a provisional response reliable if he demands
that, or if he knows them and the one that is passed on was reliable; there is one at a time, repeated until its PRACK comes, and
a 2xx waits for the PRACK of one with a body. A callee's is acknowledged at once, by us (``passthru_prack`` 0), or when the caller
has acknowledged what it became: with ``passthru_prack`` 1, and wherever it brings an offer, whose answer stands in the PRACK.

Either side may know of them alone. An offer in a PRACK to a response that we have acknowledged already goes on as an UPDATE."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from random import SystemRandom
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from sipgw.b2bua.port import Content, Origin
from sipgw.sip.reliable import FIRST, Heard, RAck, Said, demands, number_of, speaks

if TYPE_CHECKING:
    from sipgw.b2bua.legs import Leg
    from sipgw.sip.dialog import Dialog
    from sipgw.sip.message import Request, Response

MAX_WAITING: Final = 16
"""How many provisional responses wait for the PRACK of one before them."""


class Reply(NamedTuple):
    """A response that waits."""

    status: int
    reason: str
    content: Content


class ReliablePort(Protocol):
    """What is done for it."""

    @property
    def t1(self) -> float:
        """Seconds until what is not acknowledged is sent again, for the first time."""

    def say(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> bytes:
        """Answer an INVITE now; the response as it went out."""

    def repeat(self, token: Any, status: int, data: bytes) -> None:
        """Send a provisional response once more."""

    def send(
        self, leg: Leg, method: str, content: Content, heard: Callable[[int, Response | None], None], dialog: Dialog | None = None
    ) -> int:
        """Send a request within a dialog of ``leg``."""

    def unacknowledged(self, leg: Leg, token: Any) -> None:
        """No PRACK has come: the INVITE is to be refused."""

    def after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call ``call`` later."""


class Upstream:
    """What is said reliably to the sender of the INVITE of ``token``."""

    __slots__ = ("body", "data", "interval", "origin", "origins", "said", "status", "timer", "token", "waited", "waiting")

    def __init__(self, token: Any) -> None:
        self.token = token
        self.said = Said(token.request.cseq.number, SystemRandom().randint(1, FIRST))
        self.waiting: deque[Reply] = deque()
        """What goes out when the PRACK has come."""
        self.origins: dict[int, Origin | None] = {}
        """What became what we said, by our numbers, as far as it is acknowledged."""
        self.origin: Origin | None = None
        self.body = False
        self.status = 0
        self.data = b""
        self.interval = 0.0
        self.waited = 0.0
        self.timer: Any = None

    def stop(self) -> None:
        """Repeat it no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Reliability:
    """Makes provisional responses reliable for ``port``. ``passes_pracks``: PRACKs go from end to end."""

    def __init__(self, port: ReliablePort, passes_pracks: bool = False) -> None:
        self._port = port
        self.passes_pracks = passes_pracks

    # -- toward who calls

    def takes(self, leg: Leg, token: Any, reply: Reply) -> bool:
        """Whether ``reply`` to an INVITE is said reliably, or has to wait; false if it is to go out as usual."""
        status, number = reply.status, reply.content.number
        if any(each.token is not token for each in leg.upstream.values()):
            for each in leg.upstream.values():
                each.stop()
            leg.upstream.clear()
        up = leg.upstream.get(number)
        if 100 < status < 200:
            request = token.request
            if not demands(request) and (reply.content.provisional is None or not speaks(request)):
                return False
            if up is None:
                up = leg.upstream[number] = Upstream(token)
            if up.said.current is None:
                self._say(leg, up, reply)
            elif len(up.waiting) < MAX_WAITING:
                up.waiting.append(reply)
            return True
        if status >= 200:
            for other in leg.upstream.values():
                if other is not up or status >= 300:
                    other.waiting.clear()
                    other.stop()  # its PRACK may still come
        if up is None or status <= 100 or up.said.current is None:
            return False
        if status < 300 and (up.body or any(one.content.body for one in up.waiting)):
            up.waiting.append(reply)
            return True
        up.waiting.clear()
        up.stop()
        return False

    def _say(self, leg: Leg, up: Upstream, reply: Reply) -> None:
        content = reply.content
        number = up.said.next()
        headers = f"{content.headers}Require: 100rel\r\nRSeq: {number}\r\n"
        up.origin, up.body, up.status = content.provisional, bool(content.body), reply.status
        up.data = self._port.say(leg, up.token, reply.status, reply.reason, replace(content, headers=headers))
        up.interval, up.waited = self._port.t1, 0.0
        up.timer = self._port.after(up.interval, lambda: self._due(leg, up))

    def _due(self, leg: Leg, up: Upstream) -> None:
        up.waited += up.interval
        up.timer = None
        if up.waited >= 64 * self._port.t1:
            up.waiting.clear()
            self._port.unacknowledged(leg, up.token)
            return
        up.interval = min(up.interval * 2, 64 * self._port.t1 - up.waited)
        self._port.repeat(up.token, up.status, up.data)
        up.timer = self._port.after(up.interval, lambda: self._due(leg, up))

    def acknowledged(self, leg: Leg, request: Request) -> bool:
        """Take a PRACK: whether it names a response of ours that waits for it (481 if not)."""
        up, rack = self._of(leg, request), RAck.of(request)
        if up is None or rack is None or not up.said.take(rack):
            return False
        up.stop()
        while len(up.origins) >= MAX_WAITING:
            del up.origins[next(iter(up.origins))]
        up.origins[rack.number] = up.origin
        return True

    @staticmethod
    def _of(leg: Leg, request: Request) -> Upstream | None:
        return leg.upstream.get(leg.number(request.to_tag or ""))

    def go_on(self, leg: Leg, request: Request) -> None:
        """The PRACK has been taken: say what waits."""
        up = self._of(leg, request)
        while up is not None and up.waiting and up.said.current is None:
            reply = up.waiting.popleft()
            if reply.status < 200:
                self._say(leg, up, reply)
            else:
                self._port.say(leg, up.token, *reply)

    def origin(self, source: Leg, request: Request) -> Origin | None:
        """The response of the other side that a PRACK of ``source`` is for in the end."""
        up, rack = self._of(source, request), RAck.of(request)
        return None if up is None or rack is None else up.origins.get(rack.number)

    def is_passed(self, source: Leg, other: Leg, request: Request) -> bool:
        """Whether a PRACK of ``source`` is for ``other`` too, which still waits for it."""
        origin = self.origin(source, request)
        return origin is not None and origin in other.unpracked

    # -- toward who is called

    def heard(self, leg: Leg, response: Response, asker: Request | None, offered: bool) -> bool:
        """Take a provisional response to an INVITE of ours; false if it is not the next and goes no further.

        ``asker``: the INVITE for which somebody else waits, if there is one. ``offered``: ours had an offer."""
        number = number_of(response)
        if number is None:
            return True
        tag, cseq = response.to_tag or "", response.cseq.number
        if leg.heard_number != cseq:
            leg.heard_number, leg.heard = cseq, Heard()
        if not leg.heard.take(tag, number):
            return False
        dialog = leg.dialog
        if dialog is None:
            return True
        answers_in_prack = bool(response.body) and not offered
        if asker is not None and speaks(asker) and (self.passes_pracks or answers_in_prack):
            while len(leg.unpracked) >= MAX_WAITING:
                del leg.unpracked[next(iter(leg.unpracked))]
            leg.unpracked[Origin(tag, number, cseq)] = dialog
        else:
            rack = RAck(number, cseq)
            self._port.send(leg, "PRACK", Content(f"RAck: {rack}\r\n"), lambda _status, _response: None, dialog)
        return True

    def pass_prack(self, leg: Leg, content: Content, heard: Callable[[int, Response | None], None]) -> int:
        """Send a PRACK that the other side has sent; ``heard`` hears 481 if nobody waits for it."""
        origin = content.provisional
        dialog = None if origin is None else leg.unpracked.pop(origin, None)
        if origin is None or dialog is None:
            heard(481, None)
            return 0
        headers = f"{content.headers}RAck: {RAck(origin.number, origin.cseq)}\r\n"
        return self._port.send(leg, "PRACK", Content(headers, content.body, content.content_type), heard, dialog)

