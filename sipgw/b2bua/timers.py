"""Session timers (RFC 4028) of back-to-back calls: each leg has one of its own, or none. Pure.

What the two sides agree on passes between them as they say it, and so do their refreshes. We see to what is left: a request of
ours that refreshes says so too (a bridge's re-INVITE would else end the timer); who was told that the other side refreshes, and
is now joined with one that does not, is refreshed by us; and who should have refreshed and has not is hung up on, with the
other side. Who knows no session timers is told of none."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, Protocol

from sipgw.b2bua.legs import Leg, State
from sipgw.b2bua.port import Content
from sipgw.sip.message import Message, Request
from sipgw.sip.session_expires import LEAST, REFRESHES, SessionExpires, knows_timers, session_expires

MARGIN: Final = 32
"""Seconds before its end at which a session that nobody refreshes is ended; a third of it, if that is less (section 10)."""
_EXPIRES: Final = re.compile(r"(?mi)^(?:session-expires|x)[ \t]*:([^\r\n]*)\r\n")
_REQUIRE: Final = re.compile(r"(?mi)^require[ \t]*:[ \t]*timer[ \t]*\r\n")


class TimerPort(Protocol):
    """What is done for it."""

    def after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call ``call`` later."""

    def refresh(self, leg: Leg) -> None:
        """Send a request to ``leg`` that refreshes its session, unless the other side is about to."""

    def expired(self, leg: Leg) -> None:
        """Nobody has refreshed the session of ``leg``."""


class Timers:
    """Keeps the session timers of legs."""

    def __init__(self, port: TimerPort) -> None:
        self._port = port

    def agree(self, leg: Leg, found: SessionExpires | None, by_leg: bool) -> None:
        """Take what a 2xx says; ``by_leg``: the request was that of ``leg``, and the 2xx is ours."""
        leg.interval = 0 if found is None else max(found.interval, 1)
        leg.refreshes = found is not None and (found.refresher == "uac") == by_leg
        self.start(leg)

    def start(self, leg: Leg) -> None:
        """Count from now."""
        self.stop(leg)
        interval = leg.interval
        if not interval:
            return
        if leg.refreshes:
            leg.session_timer = self._port.after(interval - min(MARGIN, interval / 3), lambda: self._due(leg, self._port.expired))
        else:
            leg.session_timer = self._port.after(interval / 2, lambda: self._due(leg, self._port.refresh))

    def _due(self, leg: Leg, call: Callable[[Leg], None]) -> None:
        leg.session_timer = None
        if leg.state is State.TALKING:
            if call == self._port.refresh:
                # what comes of it counts anew; if nothing does, the session ends in time
                left = leg.interval / 2 - min(MARGIN, leg.interval / 3)
                leg.session_timer = self._port.after(max(left, 0.1), lambda: self._due(leg, self._port.expired))
            call(leg)

    @staticmethod
    def stop(leg: Leg) -> None:
        """Count no more."""
        if leg.session_timer is not None:
            leg.session_timer.cancel()
            leg.session_timer = None

    # -- what goes out

    @staticmethod
    def asked(leg: Leg, method: str, content: Content) -> str:
        """What a request of ours to ``leg`` says of its session timer, if it does not say so already."""
        if method not in REFRESHES or not leg.interval or _EXPIRES.search(content.headers):
            return ""
        lines = f"Session-Expires: {SessionExpires(max(leg.interval, LEAST), 'uas' if leg.refreshes else 'uac')}\r\n"
        if not re.search(r"(?mi)^(?:supported|k)[ \t]*:[^\r\n]*\btimer\b", content.headers):
            lines += "Supported: timer\r\n"
        return lines

    def answered(self, leg: Leg, request: Request, headers: str) -> str:
        """Take our 2xx to a request of ``leg``; its headers, as that is to see them."""
        if request.method not in REFRESHES:
            return headers
        if not knows_timers(request):
            headers = _REQUIRE.sub("", _EXPIRES.sub("", headers))
        said = _EXPIRES.search(headers)
        self.agree(leg, None if said is None else SessionExpires.parse(said[1]), True)
        return headers

    def heard(self, leg: Leg, message: Message, status: int) -> None:
        """Take a 2xx of ``leg`` to a request of ours."""
        if 200 <= status < 300 and message.method in REFRESHES:
            self.agree(leg, session_expires(message), False)
