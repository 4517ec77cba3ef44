"""Who refreshes the session of a dialog that a proxy follows, and how often (RFC 4028), for requests of our own within it.

A re-INVITE without Session-Expires ends the session timer of whoever gets it; so our pings say what the two have agreed on, with
the same side as the refresher."""

from __future__ import annotations

from typing import Final

from sipgw.proxy.dialogs import Call, Leg
from sipgw.sip.message import Message
from sipgw.sip.session_expires import SessionExpires, session_expires

VALUE: Final = "session_timer"
"""The ``$dlg_val`` that keeps it through a restart: seconds, and ``caller`` or ``callee``."""

WRITTEN: Final = "sst_info"
"""That of module sst: the interval, also where we have written it into the 2xx (``session_timers.VALUE``)."""


def agreed(call: Call, source: Leg, response: Message) -> None:
    """Take what the 2xx to an INVITE or UPDATE of ``source`` says."""
    found = session_expires(response)
    if found is None:
        interval = str(call.values.get(WRITTEN, "")).partition(",")[0]
        if not interval.isdigit() or interval == "0":
            call.values.pop(VALUE, None)
            return
        found = SessionExpires(int(interval), "uac")  # the callee knows no timers, and module sst has told the other side so
    by_caller = (source is call.caller) == (found.refresher != "uas")
    call.values[VALUE] = f"{found.interval},{'caller' if by_caller else 'callee'}"


def line(call: Call, leg: Leg) -> str:
    """What a re-INVITE of ours to ``leg`` says; "" if there is no session timer."""
    interval, _, who = str(call.values.get(VALUE, "")).partition(",")
    if not interval.isdigit():
        return ""
    refreshes = (leg is call.caller) == (who == "caller")
    return f"Session-Expires: {SessionExpires(int(interval), 'uas' if refreshes else 'uac')}\r\nSupported: timer\r\n"
