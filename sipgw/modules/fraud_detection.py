"""fraud_detection: tells when a user calls more, longer or more often than is usual, by the rules of a database.

See ``core/frauds.py``. What is counted is kept in memory and begins anew when the server does."""

from __future__ import annotations

import weakref
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sipgw.core.frauds import DURATION, Found, Ledger, Limit, Rule, Rules, read_days, read_time, worst
from sipgw.db.errors import DatabaseError
from sipgw.exports import ONREPLY, REQUEST, Module, event, every, function, mi, param, requires
from sipgw.interfaces import Database
from sipgw.mi.commands import MIError
from sipgw.modules.dialog import Dialog
from sipgw.proxy.dialogs import Call, CallFlag, Leg, State
from sipgw.proxy.following import call_of
from sipgw.script.run import Run

VERSION = 1
NO_RULE, FINE, WARNED, CRITICAL, FAILED = 2, 1, -1, -2, -3

LIMITS = {
    "calls-per-minute": ("cpm_thresh_warn_col", "cpm_thresh_crit_col"),
    DURATION: ("calldur_thresh_warn_col", "calldur_thresh_crit_col"),
    "total-calls": ("totalc_thresh_warn_col", "totalc_thresh_crit_col"),
    "concurrent-calls": ("concalls_thresh_warn_col", "concalls_thresh_crit_col"),
    "sequential-calls": ("seqcalls_thresh_warn_col", "seqcalls_thresh_crit_col"),
}
"""The parameters that name the columns of each measure."""
_PARAMETERS = ("param", "value", "threshold", "user", "called_number", "rule_id", "profile_id")


class Mark:
    """Lies with the run of an INVITE and with its transaction: when both are gone so is this."""

    __slots__ = ("__weakref__",)


def _goes_on(call: weakref.ref[Call], mark: weakref.ref[Mark]) -> bool:
    """Whether a call goes on: it has been answered, or its INVITE is being seen to."""
    found = call()
    if found is None or found.state is State.DELETED:
        return False
    return found.state >= State.ANSWERED or mark() is not None


def _column(name: str, what: str) -> Any:
    return param(name, f"The column of {what}")


class FraudDetection(Module):
    """Counts calls by user and prefix, and compares them with thresholds."""

    name = "fraud_detection"

    dialog: Dialog = requires("dialog")

    db_url: str = param("", "The database; empty: db_default_url")
    use_utc_time: int = param(0, "Whether hours and days are those of UTC, not of the local time zone: 0 or 1")
    table_name: str = param("fraud_detection", "The table of the rules")
    rid_col: str = _column("ruleid", "the rule's number")
    pid_col: str = _column("profileid", "the profile that the rule belongs to")
    prefix_col: str = _column("prefix", "the beginning of the numbers that it is for")
    start_h_col: str = _column("start_hour", "the time of day from which it holds, HH:MM")
    end_h_col: str = _column("end_hour", "the last minute in which it holds, HH:MM")
    days_col: str = _column("daysoftheweek", "the days on which it holds: Fri-Mon, Wed")
    cpm_thresh_warn_col: str = _column("cpm_warning", "the warning threshold of calls per minute")
    cpm_thresh_crit_col: str = _column("cpm_critical", "the critical threshold of calls per minute")
    calldur_thresh_warn_col: str = _column("call_duration_warning", "the warning threshold of a call's seconds")
    calldur_thresh_crit_col: str = _column("call_duration_critical", "the critical threshold of a call's seconds")
    totalc_thresh_warn_col: str = _column("total_calls_warning", "the warning threshold of calls in a day")
    totalc_thresh_crit_col: str = _column("total_calls_critical", "the critical threshold of calls in a day")
    concalls_thresh_warn_col: str = _column("concurrent_calls_warning", "the warning threshold of calls at a time")
    concalls_thresh_crit_col: str = _column("concurrent_calls_critical", "the critical threshold of calls at a time")
    seqcalls_thresh_warn_col: str = _column("sequential_calls_warning", "the warning threshold of calls to one number in a row")
    seqcalls_thresh_crit_col: str = _column("sequential_calls_critical", "the critical threshold of calls to one number in a row")

    warning = event("E_FRD_WARNING", *_PARAMETERS)
    critical = event("E_FRD_CRITICAL", *_PARAMETERS)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.db: Database | None = None
        self.rules = Rules()
        self.ledger = Ledger()

    async def start(self) -> None:
        """Read the rules."""
        databases = self.server.databases
        self.db = await databases.open(self.db_url)
        await databases.check(self.db, self.table_name, VERSION)
        await self._load()

    async def _load(self) -> None:
        """Read the rules; a bad one is left out, and the log says so."""
        assert self.db is not None
        usual = {name: getattr(self, name) for name in self.exports.parameters if name.endswith("_col")}
        rules = []
        for row in await self.db.select(self.table_name, tuple(usual.values()), order=self.rid_col):
            values = dict(zip(usual, row, strict=True))
            try:
                rules.append(_rule(values))
            except (ValueError, TypeError) as error:
                self.server.user.log(-1, f"fraud_detection: rule {values['rid_col']} is left out: {error}")
        self.rules = Rules(rules)

    def _now(self) -> tuple[float, datetime]:
        now = self.server.user.wall_clock()
        return now, datetime.fromtimestamp(now, UTC if self.use_utc_time else None).replace(tzinfo=None)

    @function(REQUEST | ONREPLY)
    def check_fraud(self, run: Run, user: str, number: str, profile_id: int) -> int:
        """Count a call of ``user`` to ``number`` by the rules of a profile, making its dialog if there is none: 1 all is well,
        2 no rule is for it, -1 a warning threshold is reached, -2 a critical one, -3 it cannot be counted."""
        now, clock = self._now()
        found = self.rules.find(profile_id, number, clock)
        if found is None:
            return NO_RULE
        rule, day = found
        call = call_of(run) or self.dialog.follower.create(run, CallFlag(0))
        if call is None:
            run.user.log_rarely("check_fraud", -1, "check_fraud: this is no request that begins a dialog")
            return FAILED
        mark = run.keep().setdefault("fraud mark", Mark())
        counts = self.ledger.open(user, rule.prefix, day)
        reached = worst(rule, counts.add(number, now, partial(_goes_on, weakref.ref(call), weakref.ref(mark))))
        if DURATION in rule.limits:
            call.listeners.append(partial(self._heard, rule, user, number))
        if reached is None:
            return FINE
        self._tell(rule, user, number, reached)
        return CRITICAL if reached.critical else WARNED

    def _heard(self, rule: Rule, user: str, number: str, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Hear what becomes of a call (``dialogs.Listener``): look at its duration."""
        if event in ("terminated", "expired") and call.started:
            seconds = int(self.server.user.wall_clock() - call.started)
            reached = worst(rule, [(DURATION, seconds)])
            if reached is not None:
                self._tell(rule, user, number, reached)

    def _tell(self, rule: Rule, user: str, number: str, found: Found) -> None:
        told = self.critical if found.critical else self.warning
        told.emit(
            param=found.measure, value=found.value, threshold=found.threshold, user=user, called_number=number, rule_id=rule.id,
            profile_id=rule.profile,
        )

    @mi(alias="show_fraud_stats")
    def show_stats(self, user: str, prefix: str) -> Any:
        """What a user has called that begins with a rule's prefix, as of its last call."""
        counts = self.ledger.find(user, prefix)
        if counts is None:
            raise MIError(404, "No data for this user+number yet!")
        return {
            "cpm": counts.per_minute(self.server.user.wall_clock()), "total_calls": counts.total,
            "concurrent_calls": counts.concurrent(), "seq_calls": counts.sequential,
        }

    @mi(alias="fraud_reload")
    async def reload(self) -> None:
        """Reads the rules again; if they cannot be read they stay as they were. What was counted stays."""
        try:
            await self._load()
        except DatabaseError as error:
            self.server.user.log(-1, f"fraud_detection: the rules stay as they were: {error}")
            raise MIError(500, "Failed to reload rules") from None

    @every(600)
    def sweep(self) -> None:
        """Forget what says nothing any more."""
        self.ledger.sweep(self._now()[1].date())


def _rule(values: dict[str, Any]) -> Rule:
    """One row, by the parameters that name its columns; ``ValueError`` or ``TypeError``."""
    limits = {}
    for measure, (warning, critical) in LIMITS.items():
        limit = Limit(int(values[warning] or 0), int(values[critical] or 0))
        if any(limit):
            limits[measure] = limit
    prefix = str(values["prefix_col"] or "").strip()
    return Rule(
        int(values["rid_col"]), int(values["pid_col"]), prefix, read_time(str(values["start_h_col"] or "")),
        read_time(str(values["end_h_col"] or "")), read_days(str(values["days_col"] or "")), limits,
    )
