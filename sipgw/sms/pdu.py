"""The packets of SMPP 3.4 as octets and as values. Pure: bytes in, ``Pdu`` out, and back.

A ``Pdu`` has a command by its name (``submit_sm``), a status, a sequence number, the values of its mandatory fields by the names
of the specification, and its optional parameters (*TLVs*) as octets by their tags, known or not. Texts (C-Octet Strings) are
``str`` with one character an octet; ``short_message`` is ``bytes``.

What cannot be read ends in ``PduError`` with the status to answer and the sequence number, so that the peer hears of it. Being
strict where octets are missing, and lenient where a text is longer than the specification allows (message ids are) or an
answer has no body (allowed with an error, done by some without), is what makes peers work together. ``smpplib`` is the other
codec that the tests compare with; why it is not used itself: ``docs/decisions``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

__all__ = ["COMMANDS", "STATUS", "TLV", "Frames", "Pdu", "PduError", "encode", "parse"]

HEAD: Final = struct.Struct(">IIII")
LONGEST: Final = 0x11000
"""Octets of one PDU: a message_payload of 64 KiB and what stands around it."""
RESPONSE: Final = 0x8000_0000

COMMANDS: Final[dict[str, int]] = {
    "generic_nack": 0x80000000, "bind_receiver": 0x01, "bind_transmitter": 0x02, "query_sm": 0x03, "submit_sm": 0x04,
    "deliver_sm": 0x05, "unbind": 0x06, "replace_sm": 0x07, "cancel_sm": 0x08, "bind_transceiver": 0x09, "outbind": 0x0B,
    "enquire_link": 0x15, "submit_multi": 0x21, "alert_notification": 0x102, "data_sm": 0x103,
}
_UNANSWERED: Final = ("generic_nack", "outbind", "alert_notification")
COMMANDS.update({f"{name}_resp": number | RESPONSE for name, number in [*COMMANDS.items()] if name not in _UNANSWERED})
_NAMES: Final = {number: name for name, number in COMMANDS.items()}

STATUS: Final[dict[str, int]] = {
    "ESME_ROK": 0x00, "ESME_RINVMSGLEN": 0x01, "ESME_RINVCMDLEN": 0x02, "ESME_RINVCMDID": 0x03, "ESME_RINVBNDSTS": 0x04,
    "ESME_RALYBND": 0x05, "ESME_RINVPRTFLG": 0x06, "ESME_RINVREGDLVFLG": 0x07, "ESME_RSYSERR": 0x08, "ESME_RINVSRCADR": 0x0A,
    "ESME_RINVDSTADR": 0x0B, "ESME_RINVMSGID": 0x0C, "ESME_RBINDFAIL": 0x0D, "ESME_RINVPASWD": 0x0E, "ESME_RINVSYSID": 0x0F,
    "ESME_RCANCELFAIL": 0x11, "ESME_RREPLACEFAIL": 0x13, "ESME_RMSGQFUL": 0x14, "ESME_RINVSERTYP": 0x15,
    "ESME_RINVNUMDESTS": 0x33, "ESME_RINVDLNAME": 0x34, "ESME_RINVDESTFLAG": 0x40, "ESME_RINVSUBREP": 0x42,
    "ESME_RINVESMCLASS": 0x43, "ESME_RCNTSUBDL": 0x44, "ESME_RSUBMITFAIL": 0x45, "ESME_RINVSRCTON": 0x48,
    "ESME_RINVSRCNPI": 0x49, "ESME_RINVDSTTON": 0x50, "ESME_RINVDSTNPI": 0x51, "ESME_RINVSYSTYP": 0x53,
    "ESME_RINVREPFLAG": 0x54, "ESME_RINVNUMMSGS": 0x55, "ESME_RTHROTTLED": 0x58, "ESME_RINVSCHED": 0x61,
    "ESME_RINVEXPIRY": 0x62, "ESME_RINVDFTMSGID": 0x63, "ESME_RX_T_APPN": 0x64, "ESME_RX_P_APPN": 0x65, "ESME_RX_R_APPN": 0x66,
    "ESME_RQUERYFAIL": 0x67, "ESME_RINVOPTPARSTREAM": 0xC0, "ESME_ROPTPARNOTALLWD": 0xC1, "ESME_RINVPARLEN": 0xC2,
    "ESME_RMISSINGOPTPARAM": 0xC3, "ESME_RINVOPTPARAMVAL": 0xC4, "ESME_RDELIVERYFAILURE": 0xFE, "ESME_RUNKNOWNERR": 0xFF,
}
"""The errors of section 5.1.3."""
STATUS_NAMES: Final = {number: name for name, number in STATUS.items()}

TLV: Final[dict[str, int]] = {
    "dest_addr_subunit": 0x0005, "source_addr_subunit": 0x000D, "payload_type": 0x0019, "additional_status_info_text": 0x001D,
    "receipted_message_id": 0x001E, "user_message_reference": 0x0204, "source_port": 0x020A, "destination_port": 0x020B,
    "sar_msg_ref_num": 0x020C, "language_indicator": 0x020D, "sar_total_segments": 0x020E, "sar_segment_seqnum": 0x020F,
    "sc_interface_version": 0x0210, "network_error_code": 0x0423, "message_payload": 0x0424, "delivery_failure_reason": 0x0425,
    "more_messages_to_send": 0x0426, "message_state": 0x0427,
}
"""The optional parameters that are spoken of here (5.3)."""

_BIND: Final = "system_id:16 password:9 system_type:13 interface_version addr_ton addr_npi address_range:41"
_SOURCE: Final = "source_addr_ton source_addr_npi source_addr:21"
_DESTINATION: Final = "dest_addr_ton dest_addr_npi destination_addr:21"
_REST: Final = (
    "esm_class protocol_id priority_flag schedule_delivery_time:17 validity_period:17 registered_delivery "
    "replace_if_present_flag data_coding sm_default_msg_id short_message*"
)
_FIELDS: Final[dict[str, str]] = {
    **dict.fromkeys(("bind_receiver", "bind_transmitter", "bind_transceiver"), _BIND),
    **dict.fromkeys(("bind_receiver_resp", "bind_transmitter_resp", "bind_transceiver_resp"), "system_id:16"),
    "outbind": "system_id:16 password:9",
    **dict.fromkeys(("submit_sm", "deliver_sm"), f"service_type:6 {_SOURCE} {_DESTINATION} {_REST}"),
    **dict.fromkeys(("submit_sm_resp", "deliver_sm_resp", "data_sm_resp"), "message_id:65"),
    "submit_multi": f"service_type:6 {_SOURCE} destinations+ {_REST}",
    "submit_multi_resp": "message_id:65 unsuccess+",
    "data_sm": f"service_type:6 {_SOURCE.replace('21', '65')} {_DESTINATION.replace('21', '65')} "
    "esm_class registered_delivery data_coding",
    "query_sm": f"message_id:65 {_SOURCE}",
    "query_sm_resp": "message_id:65 final_date:17 message_state error_code",
    "cancel_sm": f"service_type:6 message_id:65 {_SOURCE} {_DESTINATION}",
    "replace_sm": f"message_id:65 {_SOURCE} schedule_delivery_time:17 validity_period:17 registered_delivery sm_default_msg_id "
    "short_message*",
    "alert_notification": f"{_SOURCE} esme_addr_ton esme_addr_npi esme_addr:65",
}
"""The mandatory fields: ``name:longest`` a text and its length with the NUL, ``name`` an octet, ``name*`` octets behind their
length, ``name+`` a list of destinations."""


class PduError(ValueError):
    """Octets that are no PDU, or values that cannot become one. ``status`` is what to answer to PDU number ``sequence``;
    ``fatal``: the stream cannot be read further."""

    def __init__(self, text: str, status: str, sequence: int = 0, command: int = 0, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.status = STATUS[status]
        self.sequence = sequence
        self.command = command
        self.fatal = fatal


class Pdu:
    """One packet. Its status and sequence number are in the head; ``values`` and ``tlvs`` as this file's essay says."""

    __slots__ = ("command", "sequence", "status", "tlvs", "values")

    def __init__(
        self, command: str, sequence: int = 0, status: int = 0, values: Mapping[str, Any] | None = None,
        tlvs: Mapping[int, bytes] | None = None,
    ) -> None:
        self.command = command
        self.sequence = sequence
        self.status = status
        self.values: dict[str, Any] = dict(values or {})
        self.tlvs: dict[int, bytes] = dict(tlvs or {})

    def __repr__(self) -> str:
        shown = {name: "***" if name == "password" else value for name, value in self.values.items()}
        return f"<{self.command} #{self.sequence} {self.error if self.status else ''}{shown} {self.tlvs or ''}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pdu) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, name: str) -> Any:
        """The value of a field; that of an octet that was not sent is 0, of a text the empty one."""
        return self.values.get(name, _EMPTY.get(name, 0))

    @property
    def is_response(self) -> bool:
        """Whether it answers another one."""
        return self.command.endswith("_resp") or self.command == "generic_nack"

    @property
    def error(self) -> str:
        """The status by its name."""
        return STATUS_NAMES.get(self.status, f"0x{self.status:08X}")

    @property
    def message(self) -> bytes:
        """The octets of the text, header included, wherever they stand (5.3.2.32: short_message is empty where a payload is)."""
        payload = self.tlvs.get(TLV["message_payload"])
        return payload if payload is not None and not self["short_message"] else bytes(self["short_message"])

    def respond(self, status: str | int = 0, **values: Any) -> Pdu:
        """The answer to it."""
        number = STATUS[status] if isinstance(status, str) else status
        name = f"{self.command}_resp"
        return Pdu(name if name in COMMANDS else "generic_nack", self.sequence, number, values)


_OCTET, _TEXT, _OCTETS, _LIST = range(4)


def _plan(name: str) -> list[tuple[str, int, int]]:
    """The fields of a command: name, kind, longest."""
    plan: list[tuple[str, int, int]] = []
    for field in _FIELDS.get(name, "").split():
        if ":" in field:
            text, _, longest = field.partition(":")
            plan.append((text, _TEXT, int(longest)))
        elif field[-1] in "*+":
            plan.append((field[:-1], _OCTETS if field[-1] == "*" else _LIST, 254))
        else:
            plan.append((field, _OCTET, 1))
    return plan


_PLANS: Final = {name: _plan(name) for name in COMMANDS}
_KINDS: Final = {field: kind for plan in _PLANS.values() for field, kind, _ in plan}
_EMPTY: Final[dict[str, Any]] = {
    field: {_OCTET: 0, _TEXT: "", _OCTETS: b"", _LIST: ()}[kind] for field, kind in _KINDS.items()
}


def encode(pdu: Pdu) -> bytes:
    """The octets of ``pdu``; ``PduError`` for a value that does not fit."""
    body = bytearray()
    if not (pdu.status and pdu.is_response):  # an answer with an error has no body
        for name, kind, longest in _PLANS[pdu.command]:
            _put(body, name, kind, longest, pdu[name])
        for tag, octets in pdu.tlvs.items():
            if len(octets) > 0xFFFF:
                raise PduError(f"the parameter 0x{tag:04X} has {len(octets)} octets", "ESME_RINVPARLEN", pdu.sequence)
            body += tag.to_bytes(2, "big") + len(octets).to_bytes(2, "big") + octets
    return HEAD.pack(HEAD.size + len(body), COMMANDS[pdu.command], pdu.status, pdu.sequence) + bytes(body)


def _put(body: bytearray, name: str, kind: int, longest: int, value: Any) -> None:
    if kind == _OCTET:
        if not 0 <= value <= 0xFF:
            raise PduError(f"{name} is no octet: {value}", "ESME_RINVPARLEN")
        body.append(value)
    elif kind == _TEXT:
        try:
            octets = value.encode("latin-1")
        except UnicodeEncodeError:
            raise PduError(f"{name} has a character that is no octet: {value!r}", "ESME_RINVPARLEN") from None
        if len(octets) >= longest or b"\0" in octets:
            raise PduError(f"{name} has {len(octets)} octets, {longest - 1} fit, and none may be 0", "ESME_RINVPARLEN")
        body += octets + b"\0"
    elif kind == _OCTETS:
        if len(value) > longest:
            raise PduError(f"{name} has {len(value)} octets, {longest} fit", "ESME_RINVMSGLEN")
        body.append(len(value))
        body += value
    else:
        if len(value) > longest:
            raise PduError(f"{len(value)} {name}, {longest} fit", "ESME_RINVNUMDESTS")
        body.append(len(value))
        for each in value:
            _put_destination(body, name, each)


def _put_destination(body: bytearray, field: str, each: tuple[Any, ...]) -> None:
    """One destination, ``(ton, npi, address)`` or ``(list,)``; one that failed has its status behind it."""
    if field == "destinations":
        body.append(2 if len(each) == 1 else 1)
        if len(each) == 1:
            _put(body, "dl_name", _TEXT, 21, each[0])
            return
    _put(body, "dest_addr_ton", _OCTET, 1, each[0])
    _put(body, "dest_addr_npi", _OCTET, 1, each[1])
    _put(body, "destination_addr", _TEXT, 21, each[2])
    if field == "unsuccess":
        body += int(each[3]).to_bytes(4, "big")


class _Reader:
    """The octets of a body, from front to end."""

    def __init__(self, data: bytes, at: int, sequence: int, command: int) -> None:
        self.data = data
        self.at = at
        self.sequence = sequence
        self.command = command

    def fault(self, text: str, status: str = "ESME_RINVCMDLEN") -> PduError:
        return PduError(text, status, self.sequence, self.command)

    def octets(self, count: int, name: str, status: str = "ESME_RINVCMDLEN") -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise self.fault(f"{name} is cut off", status)
        found = self.data[self.at : end]
        self.at = end
        return found

    def octet(self, name: str) -> int:
        return self.octets(1, name)[0]

    def text(self, name: str, *, last: bool = False) -> str:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            if not last:
                raise self.fault(f"{name} has no end")
            end = len(self.data)
        if end - self.at > 255:
            raise self.fault(f"{name} has {end - self.at} octets", "ESME_RINVPARLEN")
        found = self.data[self.at : end].decode("latin-1")
        self.at = end + 1
        return found

    def destination(self, field: str) -> tuple[Any, ...]:
        if field == "destinations":
            flag = self.octet("dest_flag")
            if flag == 2:
                return (self.text("dl_name"),)
            if flag != 1:
                raise self.fault(f"dest_flag is {flag}", "ESME_RINVDESTFLAG")
        found = self.octet("dest_addr_ton"), self.octet("dest_addr_npi"), self.text("destination_addr")
        if field == "unsuccess":
            return (*found, int.from_bytes(self.octets(4, "error_status_code"), "big"))
        return found


def parse(data: bytes) -> Pdu:
    """The PDU that ``data`` is; ``PduError`` if it is none."""
    if len(data) < HEAD.size:
        raise PduError(f"{len(data)} octets are no head", "ESME_RINVCMDLEN", fatal=True)
    length, number, status, sequence = HEAD.unpack_from(data)
    if length != len(data):
        raise PduError(f"{len(data)} octets say that they are {length}", "ESME_RINVCMDLEN", sequence, number)
    name = _NAMES.get(number)
    if name is None:
        raise PduError(f"there is no command 0x{number:08X}", "ESME_RINVCMDID", sequence, number)
    pdu = Pdu(name, sequence, status)
    reader = _Reader(data, HEAD.size, sequence, number)
    if length == HEAD.size and number & RESPONSE:
        return pdu
    for field, kind, _ in _PLANS[name]:
        if kind == _OCTET:
            pdu.values[field] = reader.octet(field)
        elif kind == _TEXT:
            pdu.values[field] = reader.text(field, last=name.endswith("_resp"))
        elif kind == _OCTETS:
            size = reader.octet("sm_length")
            pdu.values[field] = reader.octets(size, field, "ESME_RINVMSGLEN")
        else:
            count = reader.octet("number_of_dests")
            pdu.values[field] = tuple(reader.destination(field) for _ in range(count))
    while reader.at < length:
        tag, size = struct.unpack(">HH", reader.octets(4, "an optional parameter", "ESME_RINVOPTPARSTREAM"))
        octets = reader.octets(size, f"the optional parameter 0x{tag:04X}", "ESME_RINVOPTPARSTREAM")
        pdu.tlvs.setdefault(tag, octets)
    return pdu


class Frames:
    """Cuts a stream into PDUs. ``PduError`` with ``fatal`` for a length that cannot be: nothing after it can be found."""

    def __init__(self, longest: int = LONGEST) -> None:
        self.longest = longest
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The PDUs, whole, that are there now that ``data`` has come."""
        self._held += data
        while len(self._held) >= 4:
            length = int.from_bytes(self._held[:4], "big")
            if not HEAD.size <= length <= self.longest:
                raise PduError(f"a PDU says that it has {length} octets", "ESME_RINVCMDLEN", fatal=True)
            if len(self._held) < length:
                return
            frame = bytes(self._held[:length])
            del self._held[:length]
            yield frame
