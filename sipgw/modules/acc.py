"""acc: accounting to the log; the work is done in ``proxy/accounting.py``.

Only the backend ``log`` is here: a script that asks for another is refused when it is read. The flag ``cdr`` changes nothing, as
in OpenSIPS where module dialog is not loaded: the INVITE and the BYE are accounted as transactions."""

from __future__ import annotations

from typing import Annotated, Any

from sipgw.exports import BRANCH, FAILURE, LOCAL, REQUEST, Module, function, param, pvar, requires
from sipgw.modules.rr import Rr
from sipgw.modules.tm import Tm
from sipgw.proxy.accounting import Account, account_of, accounting_line, cut_comment, keep_account
from sipgw.script.run import Run, Value
from sipgw.sip.message import Request

FLAGS = ("cdr", "missed", "failed")
OTHER_BACKENDS = ("db", "aaa", "evi")


def parse_types(text: str) -> None:
    """Refuse backends other than ``log``."""
    for word in text.split("|"):
        name = word.strip().lower()
        if name in OTHER_BACKENDS:
            raise ValueError(f"sipgw accounts to the log only: {word.strip()!r} is not there")
        if name != "log":
            raise ValueError(f"unknown accounting backend {word.strip()!r}: write log")


def parse_flags(text: str) -> frozenset[str]:
    """The flags in ``cdr|missed|failed``."""
    flags = frozenset(word.strip().lower() for word in text.split("|"))
    for flag in sorted(flags):
        if flag not in FLAGS:
            raise ValueError(f"unknown accounting flag {flag!r}: write some of {'|'.join(FLAGS)}")
    return flags


def parse_fields(text: str) -> dict[str, str]:
    """The tags in ``log: tag->name; tag``, each with the name that is written."""
    backend, colon, rest = text.partition(":")
    if colon:
        parse_types(backend)
    fields: dict[str, str] = {}
    for part in (rest if colon else text).split(";"):
        tag, arrow, name = (piece.strip() for piece in part.partition("->"))
        if not tag or (arrow and not name):
            raise ValueError(f"{part.strip()!r} is no field: write tag or tag->name")
        fields[tag] = name or tag
    return fields


class Acc(Module):
    """Writes a line about each transaction that a script wants accounted."""

    tm: Tm = requires("tm")
    rr: Rr | None = requires("rr", optional=True)

    early_media: int = param(0, "Whether provisional answers with a body are accounted too: 0 or 1")
    report_cancels: int = param(0, "Whether CANCEL requests are accounted: 0 or 1")
    detect_direction: int = param(0, "Whether From and To change places in lines about requests of the callee: 0 or 1 (needs rr)")
    log_level: int = param(2, "The level of the lines, -3 (alert) to 4 (debug)")
    log_facility: str = param("LOG_DAEMON", "The syslog facility of the lines", unused="all lines go where sipgw's log goes")
    extra_fields: str = param("", "Fields for $acc_extra(tag): 'log: tag->name; tag'", check=parse_fields, each="_add_extra")
    leg_fields: str = param("", "Fields for $acc_leg(tag), one set for each leg", check=parse_fields, each="_add_leg")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._extra: dict[str, str] = {}
        self._leg: dict[str, str] = {}
        super().__init__(server, **parameters)

    async def start(self) -> None:
        """Make sure that what was asked for is there."""
        if self.detect_direction and self.rr is None:
            raise ValueError('acc.detect_direction needs loadmodule "rr.so"')

    def _add_extra(self, text: str) -> None:
        self._extra.update(parse_fields(text))

    def _add_leg(self, text: str) -> None:
        self._leg.update(parse_fields(text))

    def _write(self, text: str) -> None:
        user = self.server.user
        if user.log_level >= self.log_level:
            user.log(self.log_level, text)

    def _open(self, run: Run) -> Account:
        """The account of the request of ``run``, made if there is none."""
        account = account_of(run)
        if account is None:
            account = Account(self._extra, self._leg, self._write)
            keep_account(run, account)
        return account

    # -- functions

    @function(REQUEST | FAILURE | BRANCH)
    def do_accounting(
        self, run: Run, type: Annotated[str, parse_types], flags: Annotated[str, parse_flags] | None = None
    ) -> bool:
        """Account the transaction of this request: its success, with ``missed`` and ``failed`` its failures too."""
        try:
            parse_types(type)
            chosen = parse_flags(flags) if flags else frozenset()
        except ValueError as error:
            run.user.log(-1, f"do_accounting: {error}")
            return False
        request = run.message
        if not isinstance(request, Request) or (request.method == "CANCEL" and not self.report_cancels):
            return True
        account = self._open(run)
        account.answered = True
        account.missed |= "missed" in chosen
        account.failed |= "failed" in chosen
        account.early = bool(self.early_media)
        if self.detect_direction and self.rr is not None:
            account.swapped = self.rr.is_upstream(run)
        if not account.listens:
            account.listens = True
            self.tm.listen(run, account.heard)
        return True

    @function(REQUEST | FAILURE | BRANCH)
    def drop_accounting(
        self, run: Run, type: Annotated[str, parse_types] | None = None, flags: Annotated[str, parse_flags] | None = None
    ) -> bool:
        """Account nothing of this request any more, or with ``flags`` only not those."""
        try:
            if type:
                parse_types(type)
            chosen = parse_flags(flags) if flags else None
        except ValueError as error:
            run.user.log(-1, f"drop_accounting: {error}")
            return False
        account = account_of(run)
        if account is not None:
            if chosen is None:
                account.answered = account.missed = account.failed = False
            else:
                account.missed &= "missed" not in chosen
                account.failed &= "failed" not in chosen
        return True

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def acc_log_request(self, run: Run, comment: str) -> bool:
        """Account this request now; ``comment`` is how it ended, ``404 Not Found``."""
        request = run.message
        if not isinstance(request, Request):
            return False
        code, reason = cut_comment(comment)
        now = int(run.user.wall_clock())
        account = account_of(run)
        if account is not None:
            self._write(account.line("request accounted", now, request, request.to_tag, code, reason))
        else:
            self._write(accounting_line("request accounted", f"timestamp={now}", request, request.to_tag, code, reason))
        return True

    @function(REQUEST | FAILURE | BRANCH | LOCAL)
    def acc_new_leg(self, run: Run) -> bool:
        """Begin another leg, all of whose values are null; false where no ``leg_fields`` are declared."""
        if not self._leg:
            run.user.log(-1, "acc_new_leg: no leg_fields are declared")
            return False
        self._open(run).legs.append({})
        return True

    # -- variables

    @pvar("acc_extra", set="set_extra", named=True)
    def acc_extra(self, run: Run, tag: str) -> Value:
        """``$acc_extra(tag)``: the value of one of the ``extra_fields``."""
        account = account_of(run)
        return None if account is None else account.extra.get(tag)

    def set_extra(self, run: Run, tag: str, value: Value) -> None:
        """Give ``$acc_extra(tag)`` a value."""
        if tag in self._extra:
            self._open(run).extra[tag] = value
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
        if tag not in self._leg:
            run.user.log(-1, f"$acc_leg({tag}): no such field in leg_fields")
            return
        self._open(run)
        leg = self._leg_of(run, index)
        if leg is None:
            run.user.log(-1, f"$acc_leg({tag}): there is no leg {index}")
        else:
            leg[tag] = value

    @pvar("acc_current_leg")
    def acc_current_leg(self, run: Run) -> int | None:
        """``$acc_current_leg``: the index of the last leg, from 0; null where nothing is accounted."""
        account = account_of(run)
        return None if account is None else len(account.legs) - 1
