"""How records of calls are written: as lines of the log, as rows of a database, as events.

A row has the core columns, then those of the extra fields and of one leg; a call with several legs makes several rows, which
differ in these only. A field that the script has given no value is left out of its row, so that the default of its column
holds. Events are cut up by legs likewise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from sipgw.interfaces import Change
from sipgw.interfaces import Value as Stored
from sipgw.proxy.accounting import ANSWERED, ENDED, MISSED, Account, Record
from sipgw.script.run import Value

LENGTHS = {"method": 16, "from_tag": 64, "to_tag": 64, "callid": 64, "sip_code": 3, "sip_reason": 32}
"""How much the columns of OpenSIPS's tables hold, in characters, by their usual names."""


@dataclass
class Fields:
    """The extra and leg fields of one backend: their tags, each with the name that is written."""

    extra: dict[str, str] = field(default_factory=dict)
    leg: dict[str, str] = field(default_factory=dict)

    def legs(self, account: Account | None) -> list[list[tuple[str, Value]]]:
        """For each leg its names and values, after those of the extra fields; one set where no fields of legs are declared."""
        if account is None:
            return [[]]
        extra = [(name, account.extra.get(tag)) for tag, name in self.extra.items()]
        if not self.leg:
            return [extra]
        return [extra + [(name, leg.get(tag)) for tag, name in self.leg.items()] for leg in account.legs]

    def line(self, account: Account | None) -> list[tuple[str, Value]]:
        """All of that in one line: the extra fields, then leg after leg."""
        sets = self.legs(account)
        return sets[0] + [pair for leg in sets[1:] for pair in leg[len(self.extra) :]]


class LogLines:
    """Writes a line for each record."""

    def __init__(self, fields: Fields, write: Callable[[str], None]) -> None:
        self.fields = fields
        self._write = write

    def write(self, record: Record, account: Account | None, table: str) -> None:
        """Write ``ACC: event: timestamp=...;method=...;from_tag=...``."""
        self._write(log_line(record, account is not None) + "".join(
            f";{name}={'' if value is None else value}" for name, value in self.fields.line(account)
        ))


def log_line(record: Record, with_account: bool) -> str:
    """The line of ``record``, without its fields.

    COMPAT: unless CDRs are wanted ``created`` is 0 and ``setuptime`` all the time since then."""
    times = f"timestamp={int(record.time)}"
    if record.event == ENDED:
        times = (
            f"created={int(record.created)};call_start_time={int(record.time)};duration={record.duration};"
            f"ms_duration={record.ms_duration};setuptime={record.setup_time}"
        )
    elif with_account:
        created = int(record.created) if record.dated else 0
        times += f";created={created};setuptime={int(record.time) - created}"
    return (
        f"ACC: {record.event}: {times};method={record.method};from_tag={record.from_tag};to_tag={record.to_tag};"
        f"call_id={record.call_id};code={record.code};reason={record.reason}"
    )


class Sink(Protocol):
    """Takes rows, and sees to it that they reach the database."""

    def put(self, changes: list[Change], shorter: list[Change]) -> None:
        """Take ``changes``, which belong together; ``shorter``: what to write if the database refuses them."""


class TableRows:
    """Writes rows into a database: ``columns`` names those of the core by their usual names, ``tables`` by event.

    ``every_field``: the database wants all columns in each row (a flat file)."""

    def __init__(
        self, fields: Fields, sink: Sink, columns: Mapping[str, str], tables: Mapping[str, str], every_field: bool = False
    ) -> None:
        self.fields = fields
        self._sink = sink
        self._columns = columns
        self._tables = tables
        self._every_field = every_field

    def write(self, record: Record, account: Account | None, table: str) -> None:
        """Write a row for each leg."""
        table = self._tables[MISSED] if record.event == MISSED else table or self._tables[ANSWERED]
        self._sink.put(self.rows(record, account, table), self.rows(record, account, table, LENGTHS))

    def rows(
        self, record: Record, account: Account | None, table: str, lengths: Mapping[str, int] | None = None
    ) -> list[Change]:
        """The rows to insert; values longer than ``lengths`` are cut."""
        core: dict[str, str] = {
            "method": record.method, "from_tag": record.from_tag, "to_tag": record.to_tag, "callid": record.call_id,
            "sip_code": record.code, "sip_reason": record.reason,
        }
        if lengths is not None:
            core = {name: text[: lengths[name]] for name, text in core.items()}
        first: dict[str, Stored] = {self._columns[name]: text for name, text in core.items()}
        first[self._columns["time"]] = _local(record.time)
        last: dict[str, Stored] = {}
        if account is not None:
            last = {"setuptime": record.setup_time, "created": _local(record.created)}
            if table != self._tables[MISSED]:
                last |= {"duration": record.duration, "ms_duration": record.ms_duration}
        rows = []
        for leg in self.fields.legs(account):
            named = {name: _stored(value) for name, value in leg if value is not None or self._every_field}
            rows.append(Change("insert", table, first | named | last))
        return rows

    def same_row(self, record: Record) -> tuple[tuple[str, str, Stored], ...]:
        """Which rows say the same as ``record``: to find out whether it has been written."""
        columns = self._columns
        return tuple(
            (columns[name], "=", value)
            for name, value in (
                ("callid", record.call_id), ("from_tag", record.from_tag), ("to_tag", record.to_tag),
                ("method", record.method), ("time", _local(record.time)),
            )
        )


def _local(seconds: float) -> datetime:
    """A time as OpenSIPS's tables keep it: local, in whole seconds."""
    return datetime.fromtimestamp(int(seconds))


def _stored(value: Value) -> str:
    return "" if value is None else str(value)


class Events:
    """Raises an event for each record; ``events`` by the record's event."""

    def __init__(self, fields: Fields, events: Mapping[str, Any]) -> None:
        self.fields = fields
        self._events = events

    def declare(self) -> None:
        """Tell what parameters the events have, now that all fields are known."""
        more = (*self.fields.extra.values(), *self.fields.leg.values())
        for what, event in self._events.items():
            event.parameters = CORE_PARAMETERS + more + LAST_PARAMETERS[what]

    def write(self, record: Record, account: Account | None, table: str) -> None:
        """Raise an event for each leg. What ``acc_evi_request`` accounts is missed unless its code is below 300."""
        what = record.event
        if what not in self._events:
            what = ANSWERED if not record.code or int(record.code) < 300 else MISSED
        event = self._events[what]
        if not event.heard:
            return
        core: dict[str, Value] = {
            "method": record.method, "from_tag": record.from_tag, "to_tag": record.to_tag, "callid": record.call_id,
            "sip_code": record.code, "sip_reason": record.reason, "time": int(record.time),
        }
        times: dict[str, Value] = {
            "duration": record.duration, "ms_duration": record.ms_duration,
            "setuptime": record.setup_time if account is not None else 0,
            "created": int(record.created) if account is not None else 0,
        }
        last = {name: times[name] for name in LAST_PARAMETERS[what]}
        for leg in self.fields.legs(account):
            event.emit(**(core | {name: _stored(value) for name, value in leg} | last))


CORE_PARAMETERS = ("method", "from_tag", "to_tag", "callid", "sip_code", "sip_reason", "time")
LAST_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    ANSWERED: (),
    MISSED: ("setuptime", "created"),
    ENDED: ("duration", "ms_duration", "setuptime", "created"),
}
"""The parameters of the three events: those of the fields stand between these two."""
