"""What is accounted of a request, and when (OpenSIPS's acc); how it is written is in ``account_backends.py``.

An ``Account`` belongs to a request and travels with it (``run.keep()``), through branch, failure and reply routes; with flag
``cdr`` it goes on to belong to the dialog that the request begins. It hears what happens to the transaction and gives a
``Record`` of it to each backend that the script has asked for.

COMPAT: each backend has flags of its own, but ``failed`` and ``cdr`` of one count for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Run, Value
from sipgw.sip.message import Request, Response
from sipgw.sip.replies import reason_for

_KEPT = "acc"

BACKENDS = ("evi", "log", "aaa", "db")
"""The backends, in the order in which they are told."""
FLAGS = ("cdr", "missed", "failed")

ANSWERED = "transaction answered"
MISSED = "call missed"
REQUESTED = "request accounted"
ENDED = "call ended"


@dataclass(frozen=True, slots=True)
class Record:
    """One thing to be accounted: ``event`` is one of those above, times are seconds since 1970.

    ``created``: when the request was first accounted; ``time``: when this happened, of a call that has ended: when it was
    answered. ``dated``: whether the script has asked for CDRs (the log has the true ``created`` only then)."""

    event: str
    method: str
    from_tag: str
    to_tag: str
    call_id: str
    code: str
    reason: str
    time: float
    created: float
    dated: bool = False
    ms_duration: int = 0
    within: bool = False
    """Whether the request belongs to a dialog."""

    @property
    def duration(self) -> int:
        """Of a call, in seconds, begun ones counted."""
        return -(-self.ms_duration // 1000)

    @property
    def setup_time(self) -> int:
        """Seconds from ``created`` to ``time``."""
        return int(self.time) - int(self.created)


class Backend(Protocol):
    """One way of writing records."""

    def write(self, record: Record, account: Account | None, table: str) -> None:
        """Write ``record``, with the extra and leg fields of ``account`` if there is one. ``table``: where, in a database."""


@lru_cache(maxsize=256)
def parse_types(text: str) -> tuple[str, ...]:
    """The backends in ``log|db``, in the order in which they are told."""
    names = {word.strip().lower() for word in text.split("|")}
    for name in sorted(names):
        if name not in BACKENDS:
            raise ValueError(f"unknown accounting backend {name!r}: write some of log|db|aaa|evi")
    return tuple(name for name in BACKENDS if name in names)


@lru_cache(maxsize=256)
def parse_flags(text: str) -> frozenset[str]:
    """The flags in ``cdr|missed|failed``."""
    flags = frozenset(word.strip().lower() for word in text.split("|"))
    for flag in sorted(flags):
        if flag not in FLAGS:
            raise ValueError(f"unknown accounting flag {flag!r}: write some of {'|'.join(FLAGS)}")
    return flags


def parse_fields(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The backends and the fields in ``log|db: tag->name; tag``: the tags, each with the name that is written.

    Without a backend they are for the log."""
    backend, colon, rest = text.partition(":")
    backends = parse_types(backend) if colon else ("log",)
    fields: dict[str, str] = {}
    for part in (rest if colon else text).split(";"):
        tag, arrow, name = (piece.strip() for piece in part.partition("->"))
        if not tag or (arrow and not name):
            raise ValueError(f"{part.strip()!r} is no field: write tag or tag->name")
        fields[tag] = name or tag
    return backends, fields


def cut_comment(comment: str) -> tuple[str, str]:
    """The code and the reason in ``404 Not Found``; a code alone gets its usual reason, a text without one is a reason."""
    code, _, reason = comment.strip().partition(" ")
    if len(code) == 3 and code.isascii() and code.isdigit():
        return code, reason.strip() or reason_for(int(code))
    return "", comment.strip()


class Account:
    """What is to be accounted of one request.

    ``wanted``: the backends that the script has asked for, each with its flags; ``table``: for successes, in a database.
    ``early``: provisional responses with a body too. ``swapped``: From and To change places (a request from the callee).
    ``answered``: is told of the 2xx of a request instead of the backends, and says whether it takes it: a CDR will tell."""

    __slots__ = (
        "answered", "backends", "created", "early", "extra", "legs", "listens", "swapped", "table", "told",
        "wanted",
    )

    def __init__(self, backends: Mapping[str, Backend], created: float) -> None:
        self.backends = backends
        self.created = created
        self.wanted: dict[str, set[str]] = {}
        self.table = ""
        self.early = False
        self.swapped = False
        self.listens = False
        self.answered: Callable[[Account, Record], bool] | None = None
        self.told: set[tuple[str, str]] = set()
        """The tags of the final answers that have been accounted."""
        self.extra: dict[str, Value] = {}
        self.legs: list[dict[str, Value]] = [{}]

    def want(self, backends: Iterable[str], flags: Iterable[str]) -> None:
        """Account by ``backends`` from now on."""
        for name in backends:
            self.wanted.setdefault(name, set()).update(flags)

    def drop(self, backends: Iterable[str], flags: frozenset[str] | None) -> None:
        """Account by ``backends`` no more; with ``flags`` only not those."""
        for name in backends:
            if flags is None:
                self.wanted.pop(name, None)
            elif name in self.wanted:
                self.wanted[name] -= flags

    def wants(self, flag: str) -> bool:
        """Whether some backend has ``flag``."""
        return any(flag in flags for flags in self.wanted.values())

    def heard(self, context: ResponseContext, event: str, status: int, response: Response | None) -> None:
        """Hear of an event of the transaction (``ResponseContext.listen``)."""
        if event == "failure":
            self._missed(context, status, response)
        elif event == "response_out" or event == "local_reply":
            if status >= 300:
                if context.request.method == "INVITE":
                    self._missed(context, status, response)
                due = self.wants("failed")
            elif status >= 200:
                due = True
            else:
                due = self.early and response is not None and bool(response.body)
            if due and self.wanted:
                record = self.record(ANSWERED, context, status, response)
                if status >= 200:
                    answer = record.from_tag, record.to_tag
                    if answer in self.told:
                        return  # a 2xx that has come again (RFC 3261 13.3.1.4)
                    self.told.add(answer)
                if 200 <= status < 300 and self.answered is not None and self.answered(self, record):
                    return
                self.write(record)

    def _missed(self, context: ResponseContext, status: int, response: Response | None) -> None:
        """Account the first failure as a missed call."""
        due = [name for name in BACKENDS if "missed" in self.wanted.get(name, ())]
        if due:
            self.drop(due, frozenset(("missed",)))
            record = self.record(MISSED, context, status, response)
            for name in due:
                self.backends[name].write(record, self, "")

    def write(self, record: Record) -> None:
        """Give ``record`` to every backend that is wanted."""
        for name in BACKENDS:
            if name in self.wanted:
                self.backends[name].write(record, self, self.table)

    def record(self, event: str, context: ResponseContext, status: int, response: Response | None) -> Record:
        """What is to be said of the transaction, which has got an answer."""
        reason = reason_for(status) if response is None else response.reason
        tag = context.request.to_tag if response is None else response.to_tag
        return self.record_of(event, context.request, tag, str(status), reason, context.user.wall_clock())

    def record_of(self, event: str, request: Request, to_tag: str | None, code: str, reason: str, now: float) -> Record:
        """What is to be said of ``request``."""
        one, other = request.from_tag or "", to_tag or ""
        if self.swapped:
            one, other = other, one
        return Record(
            event, request.method, one, other, request.call_id, code, reason, now, self.created, self.wants("cdr"),
            within=request.to_tag is not None,
        )


def account_of(run: Run) -> Account | None:
    """The account of the request of ``run``, if something has opened one."""
    found: Account | None = None if run.context is None else run.context.get(_KEPT)
    return found


def keep_account(run: Run, account: Account | None) -> None:
    """Make ``account`` that of the request of ``run``."""
    run.keep()[_KEPT] = account
