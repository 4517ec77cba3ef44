"""sipcapture: a capture server. SIP messages that come in HEP frames, or as SIP, are written to a database.

proto_hep reads the frames (``hep_udp``, ``hep_tcp``), ``hep_route`` says what becomes of them: "none" writes each at once; "sip"
shows the message inside to the request route, or the reply route, as if it had come from where the frame says; any other name is
that of a route which sees the frame itself: its chunks (``hep_get``, ``hep_set``, ``hep_del``), where it came from
(``$hep_net``); it may relay it (``hep_relay``), write it (``report_capture``), or go on with what is in it (``hep_resume_sip``).

Rows are written by and by; nothing ever waits for the database. The tables are made by ``sipgw db create URL sipcapture``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from sipgw.core.events import run_alone
from sipgw.core.user import TransactionUser
from sipgw.exports import (
    BRANCH,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    Module,
    Writable,
    function,
    mi,
    param,
    pvar,
    requires,
    statistic,
)
from sipgw.mi.jsonrpc import MIError
from sipgw.modules import _capture_chunks as chunks
from sipgw.modules._capture_flow import CapturedFlow, captured_flow, heard_flow
from sipgw.modules._capture_rows import COLUMNS, plain_payload, report_row, sip_row
from sipgw.modules._capture_writer import Writer, check_table, table_at
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.edits import NO_EDITS, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response, parse
from sipgw.transport.hep_received import PAYLOAD, Received
from sipgw.transport.hep_received import write as write_frame
from sipgw.transport.hep_receiver import Way
from sipgw.transport.packets import Datagram
from sipgw.transport.raw_receiver import RawReceiver, Wanted, parse_listen

EVERYWHERE = REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL
HEP = "hep"
"""Under this name a run keeps the frame that it is about."""
MOST_TARGETS = 100
"""Places to which ``hep_relay`` keeps ways."""
VENDOR = 3
"""OpenSIPS's number, which is that of chunks that are set without one."""


@dataclass(slots=True)
class Context:
    """A frame, and the way it came. ``resumed``: the script wants to see the message inside as SIP."""

    frame: Received
    way: Way
    resumed: bool = False


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("must be at least 1")


def _column(name: str) -> Any:
    return param(COLUMNS[name], "Name of the column")


class Sipcapture(Module):
    """Writes captured messages to a database."""

    proto_hep: Any = requires("proto_hep", optional=True)

    db_url: str = param("", "The database (default: db_default_url)")
    table_name: str = param("sip_capture", "The table of messages; behind a % stands a time (strftime, UTC)", check=check_table)
    rtcp_table_name: str = param("rtcp_capture", "The table of report_capture, likewise", check=check_table)
    capture_on: int = param(0, "Whether messages are written")
    hep_capture_on: int = param(0, "Whether HEP frames are received; only what comes in frames is captured then")
    hep_route: str = param("sip", "What becomes of frames: none, sip, or the name of a route")
    capture_node: str = param("homer01", "How we are called in the column node")
    max_async_queries: int = param(5, "How many rows are written together", check=_positive)
    raw_socket_listen: str = param(
        "", "address:port-port: which ports are heard of what passes; where IP packets in IP come", check=parse_listen
    )
    raw_ipip_capture_on: int = param(0, "Whether SIP is heard that is sent to us in IP packets (IP in IP)")
    raw_moni_capture_on: int = param(0, "Whether SIP is heard that passes an interface: a mirrored port, or this machine's")
    raw_interface: str = param("", "The interface; all of them without it")
    raw_moni_bpf_on: int = param(0, "Whether the kernel picks the ports")
    promiscious_on: int = param(0, "Whether the interface takes what is not for this machine")
    raw_sock_children: int = param(1, "Processes for raw sockets", unused="one process reads")
    diversion_column: str = param("diversion_user", "Name of the column", unused="OpenSIPS does not write it either")
    id_column: str = param("id", "Name of the column", unused="the database counts rows")
    date_column: str = _column("date")
    micro_ts_column: str = _column("micro_ts")
    method_column: str = _column("method")
    reply_reason_column: str = _column("reply_reason")
    ruri_column: str = _column("ruri")
    ruri_user_column: str = _column("ruri_user")
    from_user_column: str = _column("from_user")
    from_tag_column: str = _column("from_tag")
    to_user_column: str = _column("to_user")
    to_tag_column: str = _column("to_tag")
    pid_user_column: str = _column("pid_user")
    contact_user_column: str = _column("contact_user")
    auth_user_column: str = _column("auth_user")
    callid_column: str = _column("callid")
    callid_aleg_column: str = _column("callid_aleg")
    via_1_column: str = _column("via_1")
    via_1_branch_column: str = _column("via_1_branch")
    cseq_column: str = _column("cseq")
    reason_column: str = _column("reason")
    content_type_column: str = _column("content_type")
    authorization_column: str = _column("authorization")
    user_agent_column: str = _column("user_agent")
    source_ip_column: str = _column("source_ip")
    source_port_column: str = _column("source_port")
    destination_ip_column: str = _column("destination_ip")
    destination_port_column: str = _column("destination_port")
    contact_ip_column: str = _column("contact_ip")
    contact_port_column: str = _column("contact_port")
    originator_ip_column: str = _column("originator_ip")
    originator_port_column: str = _column("originator_port")
    proto_column: str = _column("proto")
    family_column: str = _column("family")
    rtp_stat_column: str = _column("rtp_stat")
    type_column: str = _column("type")
    node_column: str = _column("node")
    msg_column: str = _column("msg")

    captured_requests = statistic("requests that were taken to be written")
    captured_replies = statistic("responses that were taken to be written")
    capture_lost = statistic("rows that the database did not take", read="_lost")
    capture_waiting = statistic("rows that wait for the database", read="_waiting")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._on = False
        self._writer: Writer | None = None
        self._names: dict[str, str] = {}
        self._targets: dict[str, Any] = {}
        self._raw: RawReceiver | None = None

    def _lost(self) -> int:
        return 0 if self._writer is None else self._writer.lost

    def _waiting(self) -> int:
        return 0 if self._writer is None else self._writer.waiting

    @property
    def _homer5(self) -> bool:
        return self.proto_hep is None or bool(self.proto_hep.homer5_on)

    async def start(self) -> None:
        """Open the database, and receive frames if that is wanted."""
        user: TransactionUser = self.server.user
        self._on = bool(self.capture_on)
        self._names = {name: getattr(self, f"{name}_column") for name in COLUMNS}
        if self.db_url or user.globals.get("db_default_url"):
            database = await self.server.databases.open(self.db_url)
            self._writer = Writer(database, user, self.max_async_queries)
        if self.raw_ipip_capture_on or self.raw_moni_capture_on:
            self._hear()
        if not self.hep_capture_on:
            return
        if self.proto_hep is None:
            raise ValueError('hep_capture_on needs loadmodule "proto_hep.so", and a socket such as hep_udp:127.0.0.1:9060')
        route = self.hep_route.lower()
        if route == "none":
            if self._writer is None:
                raise ValueError("hep_route none writes to a database: set db_url")
        elif route != "sip" and self.hep_route not in user.routes.named:
            raise ValueError(f"hep_route: there is no route[{self.hep_route}]")
        if not self.proto_hep.has_sockets:
            user.log(1, "sipcapture: no frames will come: the script has no socket such as hep_udp:127.0.0.1:9060")
        self.proto_hep.receive(self._came)

    def _hear(self) -> None:
        """Hear what passes; ``ValueError`` if that cannot be."""
        host, ports = parse_listen(self.raw_socket_listen)
        inside = bool(self.raw_ipip_capture_on)
        if inside and self.raw_moni_capture_on:
            raise ValueError("raw_ipip_capture_on and raw_moni_capture_on: one of them")
        if not inside and ports is None:
            raise ValueError("raw_moni_capture_on needs ports: raw_socket_listen such as 10.0.0.0:5060-5090")
        user = self.server.user
        wanted = Wanted(inside, host, ports, self.raw_interface, bool(self.raw_moni_bpf_on), bool(self.promiscious_on))
        self._raw = RawReceiver(self.server.reactor, wanted, self._heard, user.broken)
        try:
            self._raw.open()
        except PermissionError:
            raise ValueError("raw sockets need root, or CAP_NET_RAW (systemd: AmbientCapabilities=CAP_NET_RAW)") from None
        except OSError as error:
            where = self.raw_interface or host or "any interface"
            raise ValueError(f"nothing can be heard on {where}: {error.strerror}") from None

    def _heard(self, found: Datagram) -> None:
        """Show what passed to the script."""
        message = self._message(found.data, found.source[0])
        if message is not None:
            self._show_message(message, heard_flow(found.source, found.target, self._answered), None)

    async def stop(self) -> None:
        """Write what waits."""
        if self._raw is not None:
            self._raw.stop()
        for target in self._targets.values():
            target.close()
        if self._writer is not None:
            await self._writer.close()

    # -- frames

    def _came(self, frame: Received, way: Way) -> None:
        """Take a frame."""
        context = Context(frame, way)
        route = self.hep_route.lower()
        if route == "none":
            self._write_frame(context)
        elif route == "sip":
            self._show(context)
        else:
            user: TransactionUser = self.server.user
            named = user.routes.named.get(self.hep_route)
            if named is None:
                user.log_rarely("hep_route", -1, f"sipcapture: there is no route[{self.hep_route}] any more")
                return
            run = run_alone(named, user)
            run.kind = RouteKind.REQUEST
            run.keep()[HEP] = context
            user.execute(named, run, lambda _result: self._show(context) if context.resumed else None)

    def _message(self, data: bytes, source: str) -> Request | Response | None:
        """The SIP message in what ``source`` sent, as much of it as can be read; None if it is none."""
        try:
            return parse(data)
        except MalformedMessage as error:
            found = error.message
            if isinstance(found, Request | Response):
                return found
            self.server.user.log_rarely(("hep sip", source), 1, f"sipcapture: what {source} captured is no SIP: {error}")
            return None

    def _inside(self, context: Context) -> Request | Response | None:
        """The SIP message in a frame."""
        frame = context.frame
        if frame.payload[:1] == b"{":
            frame.known[PAYLOAD] = plain_payload(frame.payload)
        return self._message(frame.payload, context.way.source[0])

    def _write_frame(self, context: Context) -> None:
        message = self._inside(context)
        if message is not None and self._on:
            self._write_sip(message, context, None, self.table_name)

    def _show(self, context: Context) -> None:
        """Show the message inside to the script."""
        message = self._inside(context)
        if message is not None:
            self._show_message(message, captured_flow(context.frame, context.way, self._answered), context)

    def _show_message(self, message: Request | Response, flow: CapturedFlow, context: Context | None) -> None:
        """Run the request route or the reply route, beside all transactions."""
        user: TransactionUser = self.server.user
        request = isinstance(message, Request)
        route = user.routes.request if request else user.routes.default_onreply
        if route is None:
            return
        way: Any = flow
        run = Run(message, RouteKind.REQUEST if request else RouteKind.ONREPLY, way, user.clock(), user)
        if request and user.startup_vars:
            run.vars = dict(user.startup_vars)
        if context is not None:
            run.keep()[HEP] = context
        user.execute(route, run)

    def _answered(self) -> None:
        text = "sipcapture: the script answers or relays a captured message; nothing is sent"
        self.server.user.log_rarely("hep answered", 1, text)

    # -- writing

    def _put(self, table: str, row: dict[str, Any]) -> bool:
        """Let a row be written."""
        user: TransactionUser = self.server.user
        if self._writer is None:
            user.log_rarely("capture db", -1, "sipcapture: there is no database: set db_url")
            return False
        try:
            name = table_at(table, user.wall_clock())
        except ValueError as error:
            user.log_rarely(("capture table", table), -1, f"sipcapture: {error}")
            return False
        return self._writer.write(name, row)

    def _write_sip(
        self, message: Request | Response, context: Context | None, flow: Any, table: str, custom: tuple[str | None, ...] = ()
    ) -> bool:
        data = write(message, NO_EDITS) if context is None else context.frame.payload
        frame = None if context is None else context.frame
        found = sip_row(message, data, frame, flow, self.server.user.wall_clock(), self.capture_node, self._homer5)
        found |= {f"custom_field{number}": value or "" for number, value in enumerate((*custom, *[""] * 3)[:3], 1)}
        if not self._put(table, {self._names.get(name, name): value for name, value in found.items()}):
            return False
        (self.captured_requests if isinstance(message, Request) else self.captured_replies).inc()
        return True

    def _context(self, run: Run, what: str) -> Context | None:
        found: Context | None = None if run.context is None else run.context.get(HEP)
        if found is None:
            run.user.log_rarely(("no hep", what), 1, f"{what}: the message did not come in HEP")
        return found

    @function(EVERYWHERE)
    async def sip_capture(
        self, run: Run, table_name: str | None = None, custom_field1: str | None = None, custom_field2: str | None = None,
        custom_field3: str | None = None,
    ) -> bool:
        """Write the message to the database soon; False if capturing is off, or too much waits for the database.

        ``table_name``: another table than that of the parameter, with a time behind a % too. ``custom_field1`` to 3: what is
        written to these columns. With ``hep_capture_on`` only messages that came in frames are written."""
        context: Context | None = None
        if self.hep_capture_on and not (isinstance(run.flow, CapturedFlow) and HEP not in run.keep()):
            context = self._context(run, "sip_capture")
            if context is None:
                return False
        if not self._on:
            return False
        custom = (custom_field1, custom_field2, custom_field3)
        return self._write_sip(run.message, context, run.flow, table_name or self.table_name, custom)

    @function(EVERYWHERE)
    async def report_capture(
        self, run: Run, correlation_id: str, table_name: str | None = None, proto_type: int | None = None
    ) -> bool:
        """Write the frame, whatever is in it, to ``rtcp_table_name`` or ``table_name`` soon, as belonging to ``correlation_id``.

        ``proto_type``: the kind that is written, instead of the frame's own. With ``homer5_on`` 0 of proto_hep the columns are
        those of ``ops_report_capture``."""
        context = self._context(run, "report_capture")
        if context is None:
            return False
        if not correlation_id:
            run.user.log_rarely("no correlation", 1, "report_capture: the correlation id is empty")
            return False
        homer5 = self._homer5
        found = report_row(
            context.frame, context.way, proto_type, correlation_id, run.user.wall_clock(), self.capture_node, homer5
        )
        if homer5:
            found = {self._names.get(name, name): value for name, value in found.items()}
        return self._put(table_name or self.rtcp_table_name, found)

    # -- chunks

    def _frame(self, run: Run, what: str) -> Received | None:
        context = self._context(run, what)
        if context is None:
            return None
        if context.frame.version < 3:
            run.user.log_rarely(("hep old", what), 1, f"{what}: only frames of version 3 have chunks")
            return None
        return context.frame

    def _tried(self, run: Run, what: str, call: Callable[[], object]) -> bool:
        try:
            call()
        except ValueError as error:
            run.user.log_rarely((what, str(error)), 1, f"{what}: {error}")
            return False
        return True

    @function(EVERYWHERE)
    def hep_set(
        self, run: Run, chunk_id: Annotated[str, chunks.chunk_number], chunk_data: str,
        data_type: Annotated[str, chunks.chunk_type] | None = None,
        vendor_id: Annotated[str, chunks.vendor_number] | None = None,
    ) -> bool:
        """Set a chunk of the frame, or add it: by its number or name, of a type (utf8-string) and a vendor (3).

        Addresses, ports, ``proto_id``, ``proto_type``, ``captagent_id`` and ``payload`` need no type; times and the family
        cannot be set."""
        frame = self._frame(run, "hep_set")
        if frame is None:
            return False

        def change() -> None:
            number = chunks.chunk_number(chunk_id)
            if chunks.is_common(number):
                chunks.set_common(frame, number, chunk_data)
                return
            kind = chunks.chunk_type(data_type or "utf8-string")
            vendor = VENDOR if vendor_id is None else chunks.vendor_number(vendor_id)
            chunks.set_other(frame, number, chunk_data, kind, vendor)

        return self._tried(run, "hep_set", change)

    @function(EVERYWHERE)
    def hep_get(
        self, run: Run, chunk_id: Annotated[str, chunks.chunk_number], data_type: Annotated[str, chunks.chunk_type] | None,
        chunk_data_pv: Writable | None = None, vendor_id_pv: Writable | None = None,
    ) -> bool:
        """Give the value of a chunk, and its vendor; False, and null, if it is not there or not of that type.

        ``data_type`` counts only for chunks that not every frame has: utf8-string without it."""
        if chunk_data_pv is None and vendor_id_pv is None:
            run.user.log_rarely("hep_get", 1, "hep_get: there is no variable to set")
            return False
        frame = self._frame(run, "hep_get")
        if frame is None:
            return False
        value: int | str | None = None
        vendor: int | None = None
        try:
            number = chunks.chunk_number(chunk_id)
            if chunks.is_common(number):
                value = chunks.common(frame, number)
                vendor = None if value is None else 0
            else:
                found = frame.other(number)
                if found is not None:
                    value = chunks.value_of(found, chunks.chunk_type(data_type or "utf8-string"))
                    vendor = None if value is None else found.vendor
        except ValueError as error:
            run.user.log_rarely(("hep_get", str(error)), 1, f"hep_get: {error}")
        if chunk_data_pv is not None:
            chunk_data_pv.set(run, value)
        if vendor_id_pv is not None:
            vendor_id_pv.set(run, vendor)
        return value is not None

    @function(EVERYWHERE)
    def hep_del(self, run: Run, chunk_id: Annotated[str, chunks.chunk_number]) -> bool:
        """Take a chunk out of the frame; False if it is not there."""
        frame = self._frame(run, "hep_del")
        if frame is None:
            return False
        removed = False

        def remove() -> None:
            nonlocal removed
            removed = chunks.delete(frame, chunks.chunk_number(chunk_id))

        return self._tried(run, "hep_del", remove) and removed

    @function(EVERYWHERE)
    def hep_relay(self, run: Run) -> bool:
        """Send the frame, as it now is, to the host and port of ``$du`` or ``$ru``: by UDP, or by TCP if the URI says so.

        A port that is not written is 5060. The frame is lost, and counted in the log, if the capture server cannot be reached."""
        context = self._context(run, "hep_relay")
        if context is None:
            return False
        user: TransactionUser = run.user
        try:
            hop = user.next_hop(run.next_hop)
        except MalformedMessage as error:
            user.log_rarely("hep_relay", 1, f"hep_relay: {error.reason}: {run.next_hop}")
            return False
        frame = context.frame
        if hop.transport != "udp" and (frame.version < 3 or hop.transport != "tcp"):
            user.log_rarely("hep_relay", 1, f"hep_relay: HEP of version {frame.version} does not go over {hop.transport}")
            return False
        host = f"[{hop.host}]" if ":" in hop.host else hop.host
        where = f"{host}:{hop.port}; transport={hop.transport}"

        def send() -> None:
            self._target(where).pass_on(write_frame(frame))

        return self._tried(run, "hep_relay", send)

    def _target(self, where: str) -> Any:
        found = self._targets.get(where)
        if found is None:
            if len(self._targets) >= MOST_TARGETS:
                self._targets.pop(next(iter(self._targets))).close()
            found = self._targets[where] = self.proto_hep.way_to(where)
        return found

    @function(REQUEST)
    def hep_resume_sip(self, run: Run) -> int:
        """End the route of frames, and show the message inside to the request route (or reply route); only in ``hep_route``."""
        context = self._context(run, "hep_resume_sip")
        if context is None or context.resumed or run.flow is not None:
            return -1
        context.resumed = True
        return 0

    # -- variables and commands

    @pvar("hep_net", named=True, check=chunks.net_name)
    def hep_net(self, run: Run, name: str) -> int | str | None:
        """``$hep_net(name)``: who sent the frame, and to where: proto_family, proto_id, src_ip, dst_ip, src_port, dst_port."""
        context: Context | None = None if run.context is None else run.context.get(HEP)
        if context is None:
            return None
        return chunks.net_value(context.way, name)

    @pvar("HEPVERSION")
    def hepversion(self, run: Run) -> int | None:
        """``$HEPVERSION``: the version of the frame, null if the message did not come in one."""
        context: Context | None = None if run.context is None else run.context.get(HEP)
        return None if context is None else context.frame.version

    @mi(alias="sip_capture")
    def capture(self, capture_mode: str | None = None) -> dict[str, str] | None:
        """Tell whether messages are written, or switch that "on" or "off"."""
        if capture_mode is None:
            return {"SIP capturing": "on" if self._on else "off"}
        mode = capture_mode.lower()
        if not mode.startswith(("on", "off")):
            raise MIError(500, "Bad parameter value")
        self._on = mode.startswith("on")
        return None
