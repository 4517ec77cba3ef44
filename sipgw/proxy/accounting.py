"""What is accounted of a request, and the line that says it (OpenSIPS's acc, log backend).

An ``Account`` belongs to a request and travels with it (``run.keep()``), through branch, failure and reply routes. It hears what
happens to the transaction and gives each line to ``write``."""

from __future__ import annotations

from collections.abc import Callable

from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Run, Value
from sipgw.sip.message import Request, Response
from sipgw.sip.replies import reason_for

_KEPT = "acc"


def cut_comment(comment: str) -> tuple[str, str]:
    """The code and the reason in ``404 Not Found``; a code alone gets its usual reason, a text without one is a reason."""
    code, _, reason = comment.strip().partition(" ")
    if len(code) == 3 and code.isascii() and code.isdigit():
        return code, reason.strip() or reason_for(int(code))
    return "", comment.strip()


class Account:
    """What is to be accounted of one request.

    ``answered``: its success; ``missed`` and ``failed``: its failure, as a missed call and as an answer; ``early``: provisional
    responses with a body too. ``swapped``: From and To change places in the lines (a request from the callee)."""

    __slots__ = ("answered", "early", "extra", "failed", "fields", "leg_fields", "legs", "listens", "missed", "swapped", "write")

    def __init__(self, fields: dict[str, str], leg_fields: dict[str, str], write: Callable[[str], None]) -> None:
        self.fields = fields
        self.leg_fields = leg_fields
        self.write = write
        self.answered = False
        self.missed = False
        self.failed = False
        self.early = False
        self.swapped = False
        self.listens = False
        self.extra: dict[str, Value] = {}
        self.legs: list[dict[str, Value]] = [{}]

    def heard(self, context: ResponseContext, event: str, status: int, response: Response | None) -> None:
        """Hear of an event of the transaction (``ResponseContext.listen``)."""
        if event == "failure":
            if self.missed:
                self.missed = False
                self._account(context, "call missed", status, response)
        elif event == "response_out" or event == "local_reply":
            if status >= 300:
                due = self.failed
            elif status >= 200:
                due = self.answered
            else:
                due = self.early and self.answered and response is not None and bool(response.body)
            if due:
                self._account(context, "transaction answered", status, response)

    def _account(self, context: ResponseContext, event: str, status: int, response: Response | None) -> None:
        reason = reason_for(status) if response is None else response.reason
        tag = context.request.to_tag if response is None else response.to_tag
        now = int(context.user.wall_clock())
        self.write(self.line(event, now, context.request, tag, str(status), reason))

    def line(self, event: str, now: int, request: Request, to_tag: str | None, code: str, reason: str) -> str:
        """The line about ``request``. COMPAT: without a dialog ``created`` is 0 and ``setuptime`` all the time since then."""
        times = f"timestamp={now};created=0;setuptime={now}"
        return accounting_line(event, times, request, to_tag, code, reason, self.swapped) + self._fields()

    def _fields(self) -> str:
        pieces = [(name, self.extra.get(tag)) for tag, name in self.fields.items()]
        if self.leg_fields:
            pieces += [(name, leg.get(tag)) for leg in self.legs for tag, name in self.leg_fields.items()]
        return "".join(f";{name}={'' if value is None else value}" for name, value in pieces)


def accounting_line(
    event: str, times: str, request: Request, to_tag: str | None, code: str, reason: str, swapped: bool = False
) -> str:
    """``ACC: event: timestamp=...;method=...;from_tag=...``, without extra fields."""
    one, other = request.from_tag or "", to_tag or ""
    if swapped:
        one, other = other, one
    return (
        f"ACC: {event}: {times};method={request.method};from_tag={one};to_tag={other};call_id={request.call_id};"
        f"code={code};reason={reason}"
    )


def account_of(run: Run) -> Account | None:
    """The account of the request of ``run``, if something has opened one."""
    found: Account | None = None if run.context is None else run.context.get(_KEPT)
    return found


def keep_account(run: Run, account: Account) -> None:
    """Make ``account`` that of the request of ``run``."""
    run.keep()[_KEPT] = account
