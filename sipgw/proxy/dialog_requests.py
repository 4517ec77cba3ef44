"""Requests of our own inside the dialogs of a proxy: BYEs, pings, what the script or the operator sends.

Each goes to one leg as if the other side had sent it, with that side's address, Contact and a CSeq number of our own. A ping that
nobody answers, or that is answered "no such call" (481, or 408 of a proxy behind us), ends the call on both sides."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sipgw.proxy import refreshing
from sipgw.proxy.dialogs import OPTIONS_PINGS, REINVITE_PINGS, Call, CallFlag, Leg, State
from sipgw.proxy.following import KEPT, Follower, Within
from sipgw.proxy.forward import NoWay
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.reliable import Heard, RAck, number_of
from sipgw.sip.session_expires import REFRESHES

Answer = Callable[[int, "Response | None"], None]

WITH_CONTACT = frozenset({"INVITE", "UPDATE", "OPTIONS", "REFER", "SUBSCRIBE", "NOTIFY"})
"""Requests that say where their sender is."""
DEAD = (408, 481)


class InDialog:
    """Sends requests inside the dialogs of ``follower``; ``tm`` originates them."""

    def __init__(self, follower: Follower, tm: Any) -> None:
        self._follower = follower
        self._tm = tm
        self._user = follower.user
        self.prack_timeout = 3
        self.prack_decides = False
        """Whether an INVITE is answered 502 if a PRACK of ours fails."""
        self.ours: Callable[[Call], bool] = _always
        """Whether a call is pinged from here."""

    def send(
        self,
        call: Call,
        leg: Leg,
        method: str,
        *,
        headers: str = "",
        body: bytes = b"",
        content_type: str = "",
        answer: Answer | None = None,
        timeout: float | None = None,
    ) -> None:
        """Send a request to ``leg``; ``answer`` hears what comes of it, a 503 of our own where it cannot go."""
        self._user.launch(self._send(call, leg, method, headers, body, content_type, answer or _never_mind, timeout))

    async def _send(
        self, call: Call, leg: Leg, method: str, headers: str, body: bytes, content_type: str, answer: Answer,
        timeout: float | None,
    ) -> None:
        dialog = call.toward(leg)
        other = call.other(leg)
        contact = call.contact_toward(leg) if method in WITH_CONTACT else ""
        if contact:
            headers = f"Contact: <{contact}>\r\n{headers}"
        if method in REFRESHES and "session-expires:" not in headers.lower():
            headers += refreshing.line(call, leg)
        number = leg.next_number()
        self._follower.tell_others(call)
        try:
            data = dialog.request(method, "", cseq=number, headers=headers, body=body, content_type=content_type)
            request = parse(data)
            assert isinstance(request, Request)
            sent = await self._tm.originate(
                request, answer, next_hop=dialog.next_hop, socket=leg.socket, kept={KEPT: Within(call, other, leg)},
                dialog=dialog, timeout=timeout,
            )
        except (NoWay, SipError) as error:
            self._user.log_rarely(("in dialog", method), -1, f"no {method} in the dialog {call.did}: {error}")
            answer(503, None)
        else:
            if not sent:
                answer(0, None)

    # -- the end

    def hang_up(self, call: Call, headers: str) -> None:
        """Send a BYE to both sides."""
        for leg in (call.caller, call.winner):
            if leg.tag and leg.contact:
                self.send(call, leg, "BYE", headers=headers)

    # -- pings

    def start_pings(self, call: Call) -> None:
        """Begin to ping whoever is to be pinged; a re-INVITE takes the place of an OPTIONS."""
        if call.pings is None and call.flags & (OPTIONS_PINGS | REINVITE_PINGS):
            call.pings = {}
            if call.flags & OPTIONS_PINGS:
                self._later(call, "OPTIONS", call.options_interval)
            if call.flags & REINVITE_PINGS:
                self._later(call, "INVITE", call.reinvite_interval)

    def reschedule(self, call: Call, method: str) -> None:
        """The interval has changed: count from now."""
        if call.pings is not None and method in call.pings:
            call.pings[method].cancel()
            self._later(call, method, call.options_interval if method == "OPTIONS" else call.reinvite_interval)

    def next_ping(self, call: Call, method: str) -> int | None:
        """In how many seconds the next ping goes out; None if none does."""
        timer = None if call.pings is None else call.pings.get(method)
        return None if timer is None else max(0, round(timer.at - self._user.clock()))

    def _later(self, call: Call, method: str, seconds: int) -> None:
        call.pings[method] = self._user.after(seconds, lambda _now: self._ping(call, method))

    def _ping(self, call: Call, method: str) -> None:
        if not State.ANSWERED <= call.state < State.DELETED:
            return
        if not self.ours(call):
            self._later(call, method, call.options_interval if method == "OPTIONS" else call.reinvite_interval)
            return
        flags = call.flags
        if method == "INVITE":
            pinged = flags & CallFlag.REINVITE_CALLER, flags & CallFlag.REINVITE_CALLEE
        else:
            pinged = (
                CallFlag(0) if flags & CallFlag.REINVITE_CALLER else flags & CallFlag.OPTIONS_CALLER,
                CallFlag(0) if flags & CallFlag.REINVITE_CALLEE else flags & CallFlag.OPTIONS_CALLEE,
            )
        for wanted, leg in zip(pinged, (call.caller, call.winner), strict=True):
            if wanted:
                self._ping_leg(call, leg, method)
        self._later(call, method, call.options_interval if method == "OPTIONS" else call.reinvite_interval)

    def _ping_leg(self, call: Call, leg: Leg, method: str) -> None:
        body = b""
        if method == "INVITE":
            body = leg.sent_sdp or call.other(leg).sdp
        self.send(
            call, leg, method, body=body, content_type="application/sdp" if body else "",
            answer=partial(self._pinged, call, leg, method),
        )

    def _pinged(self, call: Call, leg: Leg, method: str, status: int, response: Response | None) -> None:
        if status in DEAD and State.ANSWERED <= call.state < State.DELETED:
            kind = "ReINVITE Ping Timeout" if method == "INVITE" else "Ping Timeout"
            self._follower.end(call, f"{'Caller' if leg is call.caller else 'Callee'} {kind}")

    # -- reliable provisional responses

    def provisional(self, call: Call, response: Response) -> None:
        """Acknowledge a reliable provisional response (RFC 3262) in the caller's place, if that is wanted."""
        if CallFlag.AUTO_PRACK not in call.flags:
            return
        number = number_of(response)
        leg = call.leg(response.to_tag or "")
        if number is None or leg is None or not call.kept.setdefault("prack", Heard()).take(leg.tag, number):
            return
        rack = f"RAck: {RAck(number, response.cseq.number)}\r\n"
        self.send(call, leg, "PRACK", headers=rack, answer=partial(self._pracked, call), timeout=self.prack_timeout)

    def _pracked(self, call: Call, status: int, response: Response | None) -> None:
        context = call.transaction()
        if status >= 300 and self.prack_decides and context is not None and call.state < State.ANSWERED:
            context.reply(context.reply_run(), 502, "Bad Gateway")


def _always(call: Call) -> bool:
    """Nobody else is there."""
    return True


def _never_mind(status: int, response: Response | None) -> None:
    """Nobody waits for this answer."""
