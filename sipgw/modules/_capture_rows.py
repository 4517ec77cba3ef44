"""What sipcapture writes of a message: the values of a row of ``sip_capture``, and of ``report_capture`` for what is not SIP.

A header that cannot be read leaves its column empty (OpenSIPS then writes nothing): the messages that are broken are those that
one wants to see. Values are cut to the columns of our tables, so that no database refuses a row for its length."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sipgw.interfaces import Value
from sipgw.sip.auth import Credentials
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response
from sipgw.sip.uri import Uri
from sipgw.transport.hep_received import AGENT, CORRELATION, EXTRA, KIND, MICROSECONDS, PROTOCOL, SECONDS, Received
from sipgw.transport.hep_receiver import Way

COLUMNS: dict[str, str] = {
    "id": "id", "date": "date", "micro_ts": "micro_ts", "method": "method", "reply_reason": "reply_reason", "ruri": "ruri",
    "ruri_user": "ruri_user", "from_user": "from_user", "from_tag": "from_tag", "to_user": "to_user", "to_tag": "to_tag",
    "pid_user": "pid_user", "contact_user": "contact_user", "auth_user": "auth_user", "callid": "callid",
    "callid_aleg": "callid_aleg", "via_1": "via_1", "via_1_branch": "via_1_branch", "cseq": "cseq", "reason": "reason",
    "content_type": "content_type", "authorization": "auth", "user_agent": "user_agent", "source_ip": "source_ip",
    "source_port": "source_port", "destination_ip": "destination_ip", "destination_port": "destination_port",
    "contact_ip": "contact_ip", "contact_port": "contact_port", "originator_ip": "originator_ip",
    "originator_port": "originator_port", "proto": "proto", "family": "family", "rtp_stat": "rtp_stat", "type": "type",
    "node": "node", "msg": "msg",
}
"""The columns that parameters name (``from_user_column``), and what they are called by default."""
LONGEST = {
    "method": 50, "reply_reason": 100, "ruri": 200, "ruri_user": 100, "ruri_domain": 150, "from_user": 100, "from_domain": 150,
    "from_tag": 64, "to_user": 100, "to_domain": 150, "to_tag": 64, "pid_user": 100, "contact_user": 120, "auth_user": 120,
    "callid": 100, "callid_aleg": 100, "via_1": 255, "via_1_branch": 80, "cseq": 25, "reason": 200, "content_type": 255,
    "user_agent": 255, "contact_ip": 60, "originator_ip": 60, "rtp_stat": 255, "node": 125, "correlation_id": 255,
    "transaction_id": 255, "custom_field1": 255, "custom_field2": 255, "custom_field3": 255, "event": 30,
}
"""Characters of these columns."""
NUMBERS = {"udp": 17, "tcp": 6, "tls": 22, "sctp": 132, "ws": 50, "wss": 50}
"""The IP protocol by which a transport goes into ``proto``."""


def text_of(data: bytes) -> str:
    """As text that a database can hold."""
    return data.decode("utf-8", "replace").replace("\0", "\ufffd")


def _clean(text: str) -> str:
    if text.isascii() and "\0" not in text:
        return text
    return text_of(text.encode("utf-8", "surrogateescape"))


def when(frame: Received | None, now: float) -> int:
    """Microseconds since 1970: of the frame, if it says so, else now."""
    if frame is None or SECONDS not in frame.known:
        return int(now * 1e6)
    return frame.number(SECONDS) * 1_000_000 + frame.number(MICROSECONDS)


def _date(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds // 1_000_000)


def _node(node: str, frame: Received | None) -> str:
    """Who captured: the frame's own number comes behind our name."""
    return node if frame is None or frame.version == 1 else f"{node}:{frame.number(AGENT)}"


def _correlation(frame: Received | None, homer5: bool) -> str:
    chunk = None if frame is None else frame.other(CORRELATION if homer5 else EXTRA)
    return "" if chunk is None else text_of(chunk.data)


def _read(read: Callable[[], str | None]) -> str:
    try:
        return read() or ""
    except MalformedMessage:
        return ""


def _uri(values: dict[str, Any], name: str, text: str) -> None:
    """The user and the domain of a URI."""
    try:
        found = Uri.parse(text)
    except MalformedMessage:
        return
    values[f"{name}_user"], values[f"{name}_domain"] = found.user or "", found.host


def _credentials(message: Request | Response) -> str:
    text = message.header("proxy-authorization") or message.header("authorization")
    return Credentials.parse(text).username.partition("@")[0] if text else ""


def headers(message: Request | Response) -> dict[str, Any]:
    """What the message says of itself."""
    values: dict[str, Any] = dict.fromkeys(
        "method reply_reason ruri ruri_user ruri_domain from_user from_domain from_tag to_user to_domain to_tag pid_user"
        " contact_user contact_ip originator_ip authorization".split(), ""
    )
    values["contact_port"] = values["originator_port"] = 0
    if isinstance(message, Request):
        values |= {"method": message.method, "ruri": message.uri, "type": 1}
        _uri(values, "ruri", message.uri)
    else:
        values |= {"method": str(message.status), "reply_reason": message.reason, "type": 2}
    _uri(values, "from", _read(lambda: message.from_.uri_text))
    _uri(values, "to", _read(lambda: message.to.uri_text))
    values["from_tag"], values["to_tag"] = _read(lambda: message.from_tag), _read(lambda: message.to_tag)
    identity = _read(lambda: message.header("p-asserted-identity") or message.header("p-preferred-identity"))
    if "<" in identity:
        identity = identity.partition("<")[2].partition(">")[0]
    _uri(values, "pid", identity)
    values.pop("pid_domain", None)
    try:
        contact = message.contacts[0].uri
        values |= {"contact_user": contact.user or "", "contact_ip": contact.host, "contact_port": contact.port or 0}
    except (MalformedMessage, IndexError):
        pass
    host, _, port = (message.header("x-oip") or "").partition(":")
    values["originator_ip"] = host
    values["originator_port"] = int(port) if port.isascii() and port.isdigit() and len(port) < 6 else 0
    values["auth_user"] = _read(lambda: _credentials(message))
    values["via_1_branch"] = _read(lambda: message.via.params.get("branch"))
    for name, header in (
        ("callid", "call-id"), ("callid_aleg", "x-cid"), ("via_1", "via"), ("cseq", "cseq"), ("reason", "reason"),
        ("content_type", "content-type"), ("user_agent", "user-agent"),
    ):
        values[name] = message.header(header) or ""
    values["rtp_stat"] = message.header("x-rtp-stat") or message.header("p-rtp-stat") or ""
    return values


def sip_row(
    message: Request | Response, data: bytes, frame: Received | None, flow: Any, now: float, node: str, homer5: bool
) -> dict[str, Value]:
    """The row of a SIP message, by the names of ``COLUMNS``: of ``frame``, or one that came to us on ``flow``."""
    values = headers(message)
    values["micro_ts"] = when(frame, now)
    values["date"] = _date(values["micro_ts"])
    values["node"] = _node(node, frame)
    values["correlation_id"] = _correlation(frame, homer5)
    if frame is not None:
        (source, source_port), (target, target_port) = frame.source, frame.target
        values |= {"proto": frame.number(PROTOCOL), "family": frame.family}
    elif flow is not None:
        (source, source_port), (target, target_port) = (flow.host, flow.port), (flow.socket.host, flow.socket.port)
        values |= {"proto": NUMBERS.get(flow.transport, 0), "family": 10 if ":" in flow.host else 2}
    else:
        source, source_port, target, target_port = "", 0, "", 0
        values |= {"proto": 0, "family": 0}
    values |= {"source_ip": source, "source_port": source_port, "destination_ip": target, "destination_port": target_port}
    return _cut(values) | {"msg": text_of(data)}


def report_row(
    frame: Received, way: Way, kind: int | None, correlation: str, now: float, node: str, homer5: bool
) -> dict[str, Value]:
    """The row of any frame: for Homer 5 by the names of ``COLUMNS``, for Homer 6 by the names of its own table."""
    moment = when(frame, now)
    (source, source_port), (target, target_port) = frame.source, frame.target
    values: dict[str, Any] = {
        "source_ip": source, "source_port": source_port, "destination_ip": target, "destination_port": target_port,
        "proto": frame.number(PROTOCOL), "family": frame.family, "type": frame.number(KIND) if kind is None else kind,
    }
    if homer5:
        values |= {"date": _date(moment), "micro_ts": moment, "correlation_id": correlation, "node": _node(node, frame)}
        return _cut(values) | {"msg": text_of(frame.payload)}
    values |= {
        "tss": _date(moment), "tsu": moment % 1_000_000, "transaction_id": correlation, "node": node,
        "payload_len": len(frame.payload), "correlation_id": _correlation(frame, False), "capture_ip": way.target[0],
        "capt_id": frame.number(AGENT), "event": _event(frame.payload),
    }
    return _cut(values) | {"data": text_of(frame.payload)}


def _event(payload: bytes) -> str:
    """What a payload of Homer 6 names as its event."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return ""
    event = found.get("Event") if isinstance(found, dict) else None
    return event if isinstance(event, str) else ""


def plain_payload(payload: bytes) -> bytes:
    """The message in a payload for Homer 6, JSON as tracers write it (``{"payload": "INVITE ..."}``); any other as it is."""
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        return payload
    text = found.get("payload") if isinstance(found, dict) else None
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else payload


def _cut(values: dict[str, Any]) -> dict[str, Value]:
    for name, value in values.items():
        if value.__class__ is str and value:
            values[name] = _clean(value)[: LONGEST.get(name)]
    return values
