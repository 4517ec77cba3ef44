"""Where tracer puts what it has seen: capture servers, databases, files, syslog, another SIP server.

Nothing here makes a call wait: what a target cannot take is lost, counted and logged once in a while."""

from __future__ import annotations

import os
import syslog
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sipgw.core.levels import FACILITIES, PRIORITIES, level_of
from sipgw.db.errors import DatabaseError
from sipgw.interfaces import Change, Database, Value
from sipgw.modules.proto_hep import Destination
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri
from sipgw.transport.hep import PROTOCOLS, SIP, Frame
from sipgw.transport.hep_sender import Place

MOST_ROWS = 10_000
"""Rows that may wait for a database."""
BATCH = 100
"""Rows that are written at once."""

End = tuple[str, str, int]
"""One end of a message: transport, address, port."""


@dataclass(slots=True)
class Record:
    """One message that was seen, ``direction`` "in" or "out"; ``time`` in seconds since 1970.

    ``correlation`` names the call, usually the Call-ID; ``connection`` is the number of the connection, 0 with UDP."""

    direction: str
    data: bytes
    call_id: str
    method: str
    status: str
    from_tag: str
    source: End
    target: End
    time: float
    connection: int = 0
    attrs: str = ""
    correlation: str = ""

    @property
    def text(self) -> str:
        """The message as text; octets that are not UTF-8 are surrogates."""
        return self.data.decode("utf-8", "surrogateescape")

    def line(self) -> str:
        """Who sent it to whom, in one line."""
        ends = " -> ".join(f"{host}:{port}" for _, host, port in (self.source, self.target))
        return f"{self.direction} {self.source[0]}{{}}{ends}"


class Target:
    """One place; ``kind`` as ``tracer:trace`` shows it, with ``uri`` (both empty: it shows neither)."""

    kind = ""
    uri = ""

    def __init__(self) -> None:
        self.on = True
        """Whether it gets anything (``tracer:trace`` with ``id`` and ``mode``)."""

    async def start(self) -> None:
        """Get ready; what it raises ends the start of the server."""

    def show(self, record: Record) -> None:
        """Take one message."""
        raise NotImplementedError

    def close(self) -> None:
        """End."""


class HepTarget(Target):
    """A capture server of proto_hep."""

    kind = "HEP"

    def __init__(self, destination: Destination) -> None:
        super().__init__()
        self.destination = destination
        self.uri = f"{destination.address.host}:{destination.address.port}"

    def show(self, record: Record) -> None:
        """Send one frame."""
        extra = {"net": str(record.connection)} if record.connection else {}
        protocol = PROTOCOLS.get(record.source[0], PROTOCOLS["udp"])
        self.destination.send(
            Frame(
                SIP, protocol, record.source[1:], record.target[1:], record.time, {"payload": record.text},
                record.correlation or record.call_id, extra,
            )
        )


class SipTarget(Target):
    """Another SIP server, which receives each message as it is, over UDP."""

    kind = "SIP"

    def __init__(self, uri: str, user: Any) -> None:
        super().__init__()
        try:
            parsed = Uri.parse(uri)
        except MalformedMessage as error:
            raise ValueError(f"{uri!r} is no SIP URI: {error.reason}") from None
        if not parsed.is_sip or not parsed.host:
            raise ValueError(f"{uri!r} is no SIP URI")
        self.uri = f"{parsed.host}:{parsed.port or ''}"
        self._user = user
        self._place = Place(parsed.host.strip("[]"), parsed.port or 5060, user.resolve_host, user.clock)

    def show(self, record: Record) -> None:
        """Send it on."""
        address = self._place.find()
        socket = self._user.default_socket("udp", ":" in address) if address else None
        if socket is None:
            self._user.log_rarely(("tracer", self.uri), 1, f"tracer: nothing goes to sip:{self._place}: no address, or no socket")
            return
        socket.flow(address, self._place.port).send(record.data)


class FileTarget(Target):
    """A file that is appended to."""

    def __init__(self, path: str, mode: int, user: Any) -> None:
        super().__init__()
        if not path or "\0" in path:
            raise ValueError("write file:/path")
        self._path = path
        self._mode = mode
        self._user = user
        self._file = -1

    async def start(self) -> None:
        """Open it."""
        self.open()

    def open(self) -> None:
        """Open it; ``OSError`` if it cannot be."""
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, self._mode)

    def show(self, record: Record) -> None:
        """Write it with a line of its own before it."""
        stamp = time.strftime(" %Y-%m-%d %H:%M:%S ", time.localtime(record.time))
        head = record.line().format(stamp).encode()
        try:
            os.write(self._file, head + b"\n" + record.data + b"\n\n")
        except OSError as error:
            self._user.log_rarely(("tracer", self._path), 1, f"tracer: {self._path} is not written: {error.strerror}")

    def close(self) -> None:
        """Close it."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class SyslogTarget(Target):
    """The system's log: ``syslog[:FACILITY[:LEVEL]]``, the level as scripts count it."""

    def __init__(self, text: str, facility: str, level: int) -> None:
        super().__init__()
        given, _, number = text.partition(":")
        self._facility = facility_of(given or facility)
        if number:
            try:
                level = int(number)
            except ValueError:
                raise ValueError(f"{number!r} is no level") from None
        self._priority = PRIORITIES[level_of(level)]

    def show(self, record: Record) -> None:
        """Write it."""
        syslog.syslog(self._facility | self._priority, f"{record.line().format(' ')}\n{_clean(record.data)}\n")


def facility_of(name: str) -> int:
    """The number of a syslog facility, whose name may begin with LOG_; ``ValueError`` if there is none."""
    known = "LOG_" + name.upper().removeprefix("LOG_")
    if known not in FACILITIES:
        raise ValueError(f"there is no syslog facility {name}")
    number: int = getattr(syslog, known)
    return number


def _clean(data: bytes) -> str:
    """As text that a database or syslog can hold."""
    return data.decode("utf-8", "replace").replace("\0", "\ufffd")


@dataclass(slots=True)
class Columns:
    """The names of the columns of ``sip_trace``."""

    names: Mapping[str, str] = field(default_factory=dict)

    def row(self, record: Record) -> dict[str, Value]:
        """One row."""
        name = self.names
        (from_proto, from_ip, from_port), (to_proto, to_ip, to_port) = record.source, record.target
        values: dict[str, Value] = {
            "date": datetime.fromtimestamp(int(record.time)), "callid": record.call_id, "trace_attrs": record.attrs,
            "msg": _clean(record.data), "method": record.method, "status": record.status,
            "fromproto": from_proto, "fromip": from_ip, "fromport": from_port,
            "toproto": to_proto, "toip": to_ip, "toport": to_port,
            "fromtag": record.from_tag, "direction": record.direction,
        }
        return {name[key]: value for key, value in values.items()}


class DatabaseTarget(Target):
    """A table of a database; rows wait in memory while it is slow, and are lost when too many do."""

    kind = "Database"

    def __init__(self, url: str, table: str, columns: Columns, server: Any) -> None:
        super().__init__()
        self._url = url
        self._table = table
        self._columns = columns
        self._server = server
        self._rows: deque[Change] = deque()
        self._writing = False
        self._database: Database | None = None

    async def start(self) -> None:
        """Open the database and look at its table."""
        databases = self._server.databases
        self._database = await databases.open(self._url)
        self.uri = self._database.name
        await databases.check(self._database, self._table, TABLE_VERSION)

    def show(self, record: Record) -> None:
        """Let it be written."""
        if len(self._rows) >= MOST_ROWS:
            self._complain(f"{MOST_ROWS} rows wait, what comes now is lost")
            return
        self._rows.append(Change("insert", self._table, self._columns.row(record)))
        if not self._writing:
            self._writing = True
            self._server.user.launch(self._write())

    async def _write(self) -> None:
        assert self._database is not None
        try:
            while self._rows:
                batch = [self._rows.popleft() for _ in range(min(BATCH, len(self._rows)))]
                try:
                    await self._database.batch(batch)
                except DatabaseError as error:
                    self._complain(f"{len(batch)} rows are lost: {error}")
        finally:
            self._writing = False

    def _complain(self, why: str) -> None:
        self._server.user.log_rarely(("tracer", self._url), 1, f"tracer: table {self._table}: {why}")


TABLE_VERSION = 5
"""Of ``sip_trace``, as OpenSIPS's ``version`` table has it."""
