"""acc: accounting to the log, a database, an AAA server (RADIUS) and by events; the work is done in ``proxy/accounting.py``.

A call never waits for its accounting: rows go through a queue (``db/writes.py``) that keeps them while the database is down, and
what can never be written is logged with all its values (docs/decisions/0015)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from sipgw.aaa import AaaError
from sipgw.db.writes import Entry, WriteQueue
from sipgw.exports import BRANCH, FAILURE, LOCAL, REQUEST, Module, event, function, param, pvar, requires
from sipgw.interfaces import Change
from sipgw.modules.dialog import Dialog
from sipgw.modules.rr import Rr
from sipgw.modules.tm import Tm
from sipgw.proxy.account_aaa import SIP_SESSION, AaaRecords
from sipgw.proxy.account_backends import LENGTHS, Events, Fields, LogLines, TableRows
from sipgw.proxy.accounting import (
    ANSWERED,
    BACKENDS,
    ENDED,
    MISSED,
    REQUESTED,
    Account,
    Backend,
    Record,
    account_of,
    cut_comment,
    keep_account,
    parse_fields,
    parse_flags,
    parse_types,
)
from sipgw.proxy.cdrs import PATIENCE, VALUE, Cdr, read_opensips
from sipgw.proxy.dialogs import Call, CallFlag, Leg
from sipgw.proxy.following import call_of
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Run, Value
from sipgw.script.symbols import RouteKind
from sipgw.sip.message import Request, Response

ACC_VERSION, MISSED_VERSION = 7, 5
"""Versions of the tables."""
_KEPT = "acc"
_STASH = "acc stash"


class Acc(Module):
    """Writes down each transaction, or each call, that a script wants accounted."""

    tm: Tm = requires("tm")
    rr: Rr | None = requires("rr", optional=True)
    dialog: Dialog | None = requires("dialog", optional=True)

    early_media: int = param(0, "Whether provisional answers with a body are accounted too: 0 or 1")
    report_cancels: int = param(0, "Whether CANCEL requests are accounted: 0 or 1")
    detect_direction: int = param(0, "Whether From and To change places for requests of the callee: 0 or 1 (needs rr)")
    log_level: int = param(2, "The level of the lines, -3 (alert) to 4 (debug)")
    log_facility: str = param("LOG_DAEMON", "The syslog facility of the lines", unused="all lines go where sipgw's log goes")
    extra_fields: str = param("", "Fields for $acc_extra(tag): 'log: tag->name; tag'", check=parse_fields, each="_add_extra")
    leg_fields: str = param("", "Fields for $acc_leg(tag), one set for each leg", check=parse_fields, each="_add_leg")
    aaa_url: str = param("", "The AAA server for the backend aaa: radius:/path/of/radiusclient.conf; without it there is none")
    service_type: int = param(-1, "Service-Type for the AAA server; -1: that of a SIP session (15)")
    db_url: str = param("", "The database for the backend db; if empty db_default_url, and without that there is none")
    db_table_acc: str = param("acc", "The table of what has succeeded")
    db_table_missed_calls: str = param("missed_calls", "The table of missed calls")
    db_table_avp: str = param("", "An AVP with the table", unused="OpenSIPS ignores it too: give do_accounting() a table")
    acc_method_column: str = param("method", "The column of the method")
    acc_from_tag_column: str = param("from_tag", "The column of the From tag")
    acc_to_tag_column: str = param("to_tag", "The column of the To tag")
    acc_callid_column: str = param("callid", "The column of the Call-ID")
    acc_sip_code_column: str = param("sip_code", "The column of the status")
    acc_sip_reason_column: str = param("sip_reason", "The column of the reason phrase")
    acc_time_column: str = param("time", "The column of the time")

    answered_event = event("E_ACC_EVENT")
    missed_event = event("E_ACC_MISSED_EVENT")
    ended_event = event("E_ACC_CDR")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._fields = {name: Fields() for name in BACKENDS}
        self._tags: dict[str, None] = {}
        self._leg_tags: dict[str, None] = {}
        super().__init__(server, **parameters)
        self._events = Events(
            self._fields["evi"], {ANSWERED: self.answered_event, MISSED: self.missed_event, ENDED: self.ended_event}
        )
        self.backends: dict[str, Backend] = {"log": LogLines(self._fields["log"], self._write), "evi": self._events}
        self.writes: WriteQueue | None = None
        self.records: AaaRecords | None = None
        self._ending: dict[Cdr, Call] = {}
        """Calls whose BYE is yet to be answered."""

    async def start(self) -> None:
        """Make sure that what was asked for is there."""
        if self.detect_direction and self.rr is None:
            raise ValueError('acc.detect_direction needs loadmodule "rr.so"')
        self._events.declare()
        if self.db_url or self.server.user.globals.get("db_default_url"):
            await self._open_database()
        if self.aaa_url:
            await self._open_aaa()
        if self.dialog is not None:
            self.dialog.on_loaded(self._call_loaded)

    async def _open_aaa(self) -> None:
        user = self.server.user
        service = SIP_SESSION if self.service_type < 0 else self.service_type
        try:
            aaa = await user.aaa.open(self.aaa_url)
            records = AaaRecords(self._fields["aaa"], aaa, user, service, lambda text: user.log(-1, text))
            records.check()
        except AaaError as error:
            raise ValueError(f"aaa_url: {error}") from None
        self.records = self.backends["aaa"] = records

    async def _open_database(self) -> None:
        databases = self.server.databases
        database = await databases.open(self.db_url)
        flat = database.dialect == "flatstore"
        if not flat:
            await databases.check(database, self.db_table_acc, ACC_VERSION)
            await databases.check(database, self.db_table_missed_calls, MISSED_VERSION)
        self.writes = WriteQueue(database, self.server.user, self._lost)
        columns = {
            "method": self.acc_method_column, "from_tag": self.acc_from_tag_column, "to_tag": self.acc_to_tag_column,
            "callid": self.acc_callid_column, "sip_code": self.acc_sip_code_column,
            "sip_reason": self.acc_sip_reason_column, "time": self.acc_time_column,
        }
        tables = {ANSWERED: self.db_table_acc, MISSED: self.db_table_missed_calls}
        self.backends["db"] = TableRows(self._fields["db"], self.writes, columns, tables, every_field=flat)

    async def stop(self) -> None:
        """Write what waits."""
        for cdr, call in tuple(self._ending.items()):
            self._end(call, cdr)
        if self.records is not None:
            self.records.close()
        if self.writes is not None:
            await self.writes.close()

    def _lost(self, changes: Sequence[Change], reason: str) -> None:
        """Log rows that will never be written, with all that they say."""
        for change in changes:
            if change.kind == "insert":
                said = ";".join(f"{name}={value!s}" for name, value in change.values.items())
                self.server.user.log(-1, f"ACC: not written to {change.table}: {said} ({reason})")

    def _add_extra(self, text: str) -> None:
        backends, fields = parse_fields(text)
        for name in backends:
            self._fields[name].extra.update(fields)
        self._tags |= dict.fromkeys(fields)

    def _add_leg(self, text: str) -> None:
        backends, fields = parse_fields(text)
        for name in backends:
            self._fields[name].leg.update(fields)
        self._leg_tags |= dict.fromkeys(fields)

    def _write(self, text: str) -> None:
        user = self.server.user
        if user.log_level >= self.log_level:
            user.log(self.log_level, text)

    def _open(self, run: Run) -> Account:
        """The account of the request of ``run``, made if there is none."""
        account = account_of(run)
        if account is None:
            account = Account(self.backends, run.user.wall_clock())
            keep_account(run, account)
        return account

    # -- functions

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def do_accounting(
        self,
        run: Run,
        type: Annotated[str, parse_types],
        flags: Annotated[str, parse_flags] | None = None,
        table: str | None = None,
    ) -> bool:
        """Account the transaction of this request: its success, with ``missed`` and ``failed`` its failures too.

        ``table``: of what has succeeded, in the database."""
        try:
            backends = parse_types(type)
            chosen: frozenset[str] = parse_flags(flags) if flags else frozenset()
        except ValueError as error:
            run.user.log(-1, f"do_accounting: {error}")
            return False
        if "db" in backends and self.writes is None:
            run.user.log_rarely("acc db", -1, "do_accounting: there is no database: set acc.db_url or db_default_url")
            return False
        if "aaa" in backends and self.records is None:
            run.user.log_rarely("acc aaa none", -1, "do_accounting: there is no AAA server: set acc.aaa_url")
            return False
        request = run.message
        if not isinstance(request, Request) or (request.method == "CANCEL" and not self.report_cancels):
            return True
        account = self._open(run)
        account.want(backends, chosen)
        account.early = bool(self.early_media)
        if "db" in backends and (table or not account.table):
            account.table = table or self.db_table_acc
        if self.detect_direction and self.rr is not None:
            account.swapped = self.rr.is_upstream(run)
        if "cdr" in chosen and request.method == "INVITE" and not request.to_tag and run.kind is not RouteKind.LOCAL:
            self._follow(run, account)
        if not account.listens:
            account.listens = True
            self.tm.listen(run, account.heard)
        return True

    # -- calls

    def _follow(self, run: Run, account: Account) -> None:
        """Let the call that this INVITE begins be accounted when it ends."""
        if self.dialog is None:
            run.user.log_rarely("acc cdr", 1, 'do_accounting: flag cdr means nothing without loadmodule "dialog.so"')
            return
        call = self.dialog.follower.create(run, CallFlag(0))
        if call is not None and account.answered is None:
            account.answered = partial(self._answered, call)

    def _answered(self, call: Call, account: Account, record: Record) -> bool:
        """A 2xx has gone back: the CDR begins, unless it is not wanted any more."""
        if not account.wants("cdr"):
            return False
        if _KEPT not in call.kept and self.dialog is not None:
            self._keep(call, Cdr(account, record))
            self.dialog.follower.save(call)
        return True

    def _keep(self, call: Call, cdr: Cdr) -> None:
        call.kept[_KEPT] = cdr
        call.listeners.append(self._heard_call)

    def _call_loaded(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Go on with a call from the database, or as another server has it."""
        text = call.values.pop(VALUE, None)
        try:
            if text is not None:
                cdr: Cdr | None = Cdr.read(str(text), self.backends)
            else:
                cdr = read_opensips(call.values, list(self._tags), list(self._leg_tags), self.backends)
        except ValueError as error:
            self.server.user.log_rarely("acc cdr", -1, f"acc: the dialog {call.did} will not be accounted: {error}")
        else:
            if cdr is not None and _KEPT not in call.kept:
                self._keep(call, cdr)
            elif cdr is not None and not call.kept[_KEPT].ended:
                call.kept[_KEPT] = cdr

    def _heard_call(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Hear what becomes of a call."""
        cdr: Cdr = call.kept[_KEPT]
        if event == "saving":
            call.values[VALUE] = cdr.text()
            return
        if run is not None and event in ("within", "terminated"):
            before = account_of(run)
            if before is not None and before is not cdr.account:
                cdr.account.extra.update(before.extra)
            keep_account(run, cdr.account)
        if event in ("terminated", "expired") and not cdr.ended:
            user = self.server.user
            cdr.ended = user.wall_clock()
            call.holds += 1
            if run is None:
                self._end(call, cdr)
            else:
                self._ending[cdr] = call
                self.tm.listen(run, partial(self._bye_answered, call, cdr))
                user.after(PATIENCE, lambda _now: self._end(call, cdr))

    def _bye_answered(
        self, call: Call, cdr: Cdr, context: ResponseContext, event: str, status: int, response: Response | None
    ) -> None:
        if status >= 200 and event in ("response_out", "local_reply"):
            self._end(call, cdr)

    def _end(self, call: Call, cdr: Cdr) -> None:
        """Write the CDR, once; the call's row goes in the same transaction if it is in the same database."""
        if cdr.written or self.dialog is None:
            return
        cdr.written = True
        self._ending.pop(cdr, None)
        record, account = cdr.final(), cdr.account
        for name in BACKENDS:
            if name in account.wanted and name != "db":
                self.backends[name].write(record, account, account.table)
        follower = self.dialog.follower
        rows = self.backends.get("db")
        if "db" not in account.wanted or self.writes is None or not isinstance(rows, TableRows):
            follower.release(call)
            return
        table = account.table or self.db_table_acc
        entry = Entry(
            rows.rows(record, account, table), rows.rows(record, account, table, LENGTHS), doubtful=call.restored,
            lost=self._lost, known=None if self.writes.database.dialect == "flatstore" else (table, rows.same_row(record)),
        )
        if self.dialog.database is self.writes.database:
            call.farewell = entry
            follower.release(call)
        else:
            entry.done = partial(follower.release, call)
            self.writes.add(entry)

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def drop_accounting(
        self, run: Run, type: Annotated[str, parse_types] | None = None, flags: Annotated[str, parse_flags] | None = None
    ) -> bool:
        """Account nothing of this request any more, or not by the backends ``type``; with ``flags`` only not those."""
        try:
            backends = parse_types(type) if type else BACKENDS
            chosen = parse_flags(flags) if flags else None
        except ValueError as error:
            run.user.log(-1, f"drop_accounting: {error}")
            return False
        account = account_of(run)
        if account is not None:
            account.drop(backends, chosen)
        return True

    def _account_now(self, run: Run, backend: str, comment: str, table: str = "") -> bool:
        """Account this request by one backend."""
        request = run.message
        if not isinstance(request, Request):
            return False
        code, reason = cut_comment(comment)
        now = run.user.wall_clock()
        account = account_of(run)
        if account is not None:
            record = account.record_of(REQUESTED, request, request.to_tag, code, reason, now)
        else:
            record = Record(
                REQUESTED, request.method, request.from_tag or "", request.to_tag or "", request.call_id, code, reason, now, now,
                within=request.to_tag is not None,
            )
        self.backends[backend].write(record, account, table)
        return True

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def acc_log_request(self, run: Run, comment: str) -> bool:
        """Write a line about this request now; ``comment`` is how it ended, ``404 Not Found``."""
        return self._account_now(run, "log", comment)

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def acc_db_request(self, run: Run, comment: str, table: str) -> bool:
        """Write a row about this request into ``table`` now; ``comment`` is how it ended."""
        if self.writes is None:
            run.user.log_rarely("acc db", -1, "acc_db_request: there is no database: set acc.db_url or db_default_url")
            return False
        return self._account_now(run, "db", comment, table)

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def acc_aaa_request(self, run: Run, comment: str) -> bool:
        """Tell the AAA server of this request now; ``comment`` is how it ended."""
        if self.records is None:
            run.user.log_rarely("acc aaa none", -1, "acc_aaa_request: there is no AAA server: set acc.aaa_url")
            return False
        return self._account_now(run, "aaa", comment)

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def acc_evi_request(self, run: Run, comment: str) -> bool:
        """Raise ``E_ACC_EVENT`` about this request now, or ``E_ACC_MISSED_EVENT`` if the code of ``comment`` is 300 or more."""
        return self._account_now(run, "evi", comment)

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def acc_new_leg(self, run: Run) -> bool:
        """Begin another leg, all of whose values are null; false where no ``leg_fields`` are declared."""
        if not self._leg_tags:
            run.user.log(-1, "acc_new_leg: no leg_fields are declared")
            return False
        self._open(run).legs.append({})
        self._changed(run)
        return True

    @function()
    def acc_load_ctx_from_dlg(self, run: Run) -> bool:
        """Let ``$acc_extra`` and ``$acc_leg`` be those of the dialog at hand, until ``acc_unload_ctx_from_dlg``."""
        kept = run.keep()
        call = call_of(run)
        cdr: Cdr | None = None if call is None else call.kept.get(_KEPT)
        if cdr is None or _STASH in kept:
            run.user.log(-1, "acc_load_ctx_from_dlg: " + ("one is loaded already" if cdr else "there is no dialog with a CDR"))
            return False
        kept[_STASH] = account_of(run)
        keep_account(run, cdr.account)
        return True

    @function()
    def acc_unload_ctx_from_dlg(self, run: Run) -> bool:
        """Go back to what was there before ``acc_load_ctx_from_dlg``."""
        kept = run.keep()
        if _STASH not in kept:
            run.user.log(-1, "acc_unload_ctx_from_dlg: none is loaded")
            return False
        keep_account(run, kept.pop(_STASH))
        return True

    def _changed(self, run: Run) -> None:
        """A field was set: if it is one of a call's CDR, that is worth keeping."""
        call = call_of(run)
        if call is not None and _KEPT in call.kept and self.dialog is not None:
            self.dialog.follower.save(call)

    # -- variables

    @pvar("acc_extra", set="set_extra", named=True)
    def acc_extra(self, run: Run, tag: str) -> Value:
        """``$acc_extra(tag)``: the value of one of the ``extra_fields``."""
        account = account_of(run)
        return None if account is None else account.extra.get(tag)

    def set_extra(self, run: Run, tag: str, value: Value) -> None:
        """Give ``$acc_extra(tag)`` a value."""
        if tag in self._tags:
            self._open(run).extra[tag] = value
            self._changed(run)
        else:
            run.user.log(-1, f"$acc_extra({tag}): no such field in extra_fields")

    def _leg_of(self, run: Run, index: int | str | None) -> dict[str, Value] | None:
        account = account_of(run)
        legs = [] if account is None else account.legs
        place = -1 if not isinstance(index, int) else index
        return legs[place] if -len(legs) <= place < len(legs) else None

    @pvar("acc_leg", set="set_leg", named=True, indexed=True)
    def acc_leg(self, run: Run, tag: str, index: int | str | None = None) -> Value:
        """``$acc_leg(tag)``: a value of the last leg, or of the one with that index."""
        leg = self._leg_of(run, index)
        return None if leg is None else leg.get(tag)

    def set_leg(self, run: Run, tag: str, index: int | str | None, value: Value) -> None:
        """Give ``$acc_leg(tag)`` a value."""
        if tag not in self._leg_tags:
            run.user.log(-1, f"$acc_leg({tag}): no such field in leg_fields")
            return
        self._open(run)
        leg = self._leg_of(run, index)
        if leg is None:
            run.user.log(-1, f"$acc_leg({tag}): there is no leg {index}")
        else:
            leg[tag] = value
            self._changed(run)

    @pvar("acc_current_leg")
    def acc_current_leg(self, run: Run) -> int | None:
        """``$acc_current_leg``: the index of the last leg, from 0; null where nothing is accounted."""
        account = account_of(run)
        return None if account is None else len(account.legs) - 1
