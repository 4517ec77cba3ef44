"""sst: calls whose phones refresh them last, others end when their session timer is over (RFC 4028).

See ``proxy/session_timers.py``."""

from __future__ import annotations

from typing import Any

from sipgw.exports import ONREPLY, REQUEST, Module, function, param, requires, statistic
from sipgw.modules.dialog import Dialog
from sipgw.modules.signaling import Signaling
from sipgw.proxy.dialogs import Call, Leg
from sipgw.proxy.session_timers import SessionTimers, asked
from sipgw.script.run import Run
from sipgw.sip.message import Request
from sipgw.sip.session_expires import LEAST


def no_less(value: int) -> None:
    """Refuse what RFC 4028 does not allow."""
    if value < LEAST:
        raise ValueError(f"no session timer is shorter than {LEAST} seconds (RFC 4028 4)")


def no_negative(value: int) -> None:
    """Refuse what is no length of time."""
    if value < 0:
        raise ValueError("write 0 or a number of seconds")


class Sst(Module):
    """Keeps the session timers of calls."""

    dialog: Dialog = requires("dialog")
    signaling: Signaling = requires("signaling")

    enable_stats: int = param(1, "Count", unused="statistics are plain integers and always counted")
    min_se: int = param(90, "The shortest session timer that callers may ask for, in seconds", check=no_less)
    sst_interval: int = param(
        0, "Seconds of the session timer asked for where the caller asks for none, if more than min_se", check=no_negative
    )
    reject_to_small: int = param(1, "Whether create_dialog answers 422 where the caller asks for less than min_se: 0 or 1")
    sst_flag: str = param("", "The message flag of the INVITEs whose calls get session timers, set before create_dialog")

    expired_sst = statistic("calls that nobody refreshed in time")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.timers: SessionTimers = None  # type: ignore[assignment]  # made by start
        self._flag = 0

    async def start(self) -> None:
        """Watch over new calls, and over those from the database."""
        if not self.sst_flag:
            raise ValueError('sst: modparam "sst_flag" is missing: it says which calls get session timers')
        self._flag = self.server.user.message_flags.mask(self.sst_flag)
        self.timers = SessionTimers(
            self.dialog.follower, self.dialog.tm, self.min_se, self.sst_interval,
            self._refuse if self.reject_to_small else None, self.expired_sst.inc,
        )
        self.dialog.on_created(self._created)
        self.dialog.on_loaded(self.timers.adopt)

    def _created(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        if run is not None and run.flags & self._flag:
            self.timers.begin(call, run)

    def _refuse(self, run: Run) -> None:
        """Answer 422, in a transaction whose ``t_relay`` then sends nothing."""
        context = self.dialog.tm.context(run)
        if context is not None:
            context.blocked = True
            self._too_small(run)

    def _too_small(self, run: Run) -> None:
        self.signaling.reply(run, 422, "Session Timer Too Small", headers=f"Min-SE: {self.min_se}\r\n")

    @function(REQUEST | ONREPLY, name="sstCheckMin")
    def check_min(self, run: Run, send_reply_flag: int | None = None) -> bool:
        """Whether Session-Expires or Min-SE is less than ``min_se``; with 1 such a request is answered 422 as well."""
        message = run.message
        small = asked(message).below(self.min_se)
        if small and send_reply_flag and isinstance(message, Request):
            self._too_small(run)
        return small
