"""OpenSIPS's levels of log lines, and the facilities of syslog: tables that the log and modules that write to syslog share."""

from __future__ import annotations

import syslog
from collections.abc import Mapping

NAMES: Mapping[int, str] = {-3: "ALERT", -2: "CRITICAL", -1: "ERROR", 1: "WARNING", 2: "NOTICE", 3: "INFO", 4: "DBG"}
"""What a level is called in a line. 0, which OpenSIPS leaves out, is taken as 1."""

PRIORITIES: Mapping[int, int] = {
    -3: syslog.LOG_ALERT,
    -2: syslog.LOG_CRIT,
    -1: syslog.LOG_ERR,
    1: syslog.LOG_WARNING,
    2: syslog.LOG_NOTICE,
    3: syslog.LOG_INFO,
    4: syslog.LOG_DEBUG,
}
"""Syslog's priority for a level."""

FACILITIES = frozenset(
    f"LOG_{name}"
    for name in "AUTH AUTHPRIV CRON DAEMON KERN LPR MAIL NEWS SYSLOG USER UUCP".split() + [f"LOCAL{n}" for n in range(8)]
)
"""What ``syslog_facility`` may be."""


def level_of(number: int) -> int:
    """Bring any number a script may give to one of ``NAMES``, as OpenSIPS does."""
    number = max(-3, min(4, number))
    return number or 1
