"""Session timers as a proxy sees them (RFC 4028 8): how long a session may last unless one of the two refreshes it.

The interval stands in Session-Expires of the INVITE, where a proxy may ask for one, and what counts is that of the 2xx. Where
only the caller knows session timers the 2xx comes without, and the proxy writes it in, with the caller as the refresher. Each
re-INVITE or UPDATE agrees on the interval anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from sipgw.proxy.dialogs import Call, Leg
from sipgw.proxy.following import Follower
from sipgw.script.run import Run
from sipgw.sip.edits import EditList
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Message, Request, Response
from sipgw.sip.session_expires import REFRESHES, knows_timers

VALUE: Final = "sst_info"
"""The ``$dlg_val`` that keeps a session timer through a restart; OpenSIPS has one of that name too."""

Refuse = Callable[[Run], None]


class Asked(NamedTuple):
    """What a message says of session timers: seconds, None where it says nothing (or nothing that could be read)."""

    interval: int | None
    least: int | None

    def below(self, least: int) -> bool:
        """Whether it asks for less than ``least`` seconds, or would accept less."""
        return self.interval is not None and (self.interval < least or (self.least is not None and self.least < least))


def asked(message: Message) -> Asked:
    """What ``message`` says of session timers."""
    return Asked(_seconds(message.header("Session-Expires")), _seconds(message.header("Min-SE")))


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_uint(text.partition(";")[0].strip(), (1 << 32) - 1)
    except MalformedMessage:
        return None


@dataclass(slots=True)
class Session:
    """The session timer of one call: its seconds (0: there is none now), and how long the call may last without."""

    interval: int
    usual: int


class SessionTimers:
    """Keeps the session timers of the calls of ``follower``.

    ``least``: no caller is allowed less; ``wanted``: the interval asked for where the caller asks for none, if it is more than
    ``least``; ``refuse(run)`` answers 422, None where too short intervals are let through. ``expired()`` hears of each
    session that ended because nobody refreshed it."""

    def __init__(
        self, follower: Follower, tm: Any, least: int, wanted: int, refuse: Refuse | None, expired: Callable[[], None]
    ) -> None:
        self._follower = follower
        self._tm = tm
        self._least = least
        self._wanted = max(least, wanted)
        self._refuse = refuse
        self._expired = expired

    def begin(self, call: Call, run: Run) -> None:
        """Watch over ``call``, whose INVITE is that of ``run``."""
        request = run.message
        if not isinstance(request, Request) or request.method != "INVITE":
            return
        said = asked(request)
        if said.interval is not None and said.interval < self._least and self._refuse is not None and knows_timers(request):
            self._refuse(run)
            return
        session = Session(0, call.lifetime)
        interval = self._ask(run, request, said)
        self._keep(call, session)
        self._tm.rewrite_replies(run, partial(self._agree, call, session, interval))

    def adopt(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Go on with a call from the database, or from another server (a dialog's listener)."""
        interval, _, usual = str(call.values.get(VALUE, "")).partition(",")
        if interval.isdigit() and usual.isdigit():
            session = call.kept.get(VALUE)
            if session is None:
                self._keep(call, Session(int(interval), int(usual)))
            else:
                session.interval, session.usual = int(interval), int(usual)

    def _keep(self, call: Call, session: Session) -> None:
        call.kept[VALUE] = session
        call.listeners.append(partial(self._heard, session))

    def _heard(self, session: Session, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Hear what becomes of a call (``dialogs.Listener``)."""
        if event == "within" and run is not None:
            request = run.message
            if isinstance(request, Request) and request.method in REFRESHES:
                interval = self._ask(run, request, asked(request))
                self._tm.rewrite_replies(run, partial(self._agree, call, session, interval))
        elif session.interval and (
            event == "expired" or (event == "terminated" and run is None and call.reason == "Lifetime Timeout")
        ):
            self._expired()

    def _ask(self, run: Run, request: Request, said: Asked) -> int:
        """See to it that the request of ``run`` asks for a session timer; its interval."""
        edits = run.edits
        if said.interval is None:
            if request.header("Session-Expires") is not None:
                return 0  # nobody knows what it means
            interval = max(self._wanted, said.least or 0)
            run.edits = edits.append(f"Session-Expires: {interval}")
            return interval
        if said.interval >= self._least or knows_timers(request):
            return said.interval
        # another proxy has asked, and nobody would understand our 422 (RFC 4028 8.1)
        (line, *_) = request.positions("Session-Expires")
        edits = edits.replace(line, f"Session-Expires: {self._least}")
        positions = request.positions("Min-SE")
        if not positions:
            edits = edits.append(f"Min-SE: {self._least}")
        elif said.least is None or said.least < self._least:
            edits = edits.replace(positions[0], f"Min-SE: {self._least}")
        run.edits = edits
        return self._least

    def _agree(
        self, call: Call, session: Session, interval: int, request: Request, response: Response, edits: EditList
    ) -> EditList:
        """Take what a 2xx has agreed on; write in what the callee did not know to say (RFC 4028 8.2)."""
        if not 200 <= response.status < 300:
            return edits
        agreed = asked(response).interval
        if agreed is None and interval and knows_timers(request) and response.header("Session-Expires") is None:
            agreed = interval
            edits = edits.append(f"Session-Expires: {interval};refresher=uac")
            if not any(tag.strip().lower() == "timer" for line in response.headers("Require") for tag in line.split(",")):
                edits = edits.append("Require: timer")
        if not request.to_tag and call.started:
            return edits  # another phone of a forked call
        session.interval = agreed or 0
        call.values[VALUE] = f"{session.interval},{session.usual}"
        self._follower.set_lifetime(call, session.interval or session.usual)
        return edits
