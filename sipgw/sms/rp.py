"""Short messages as IMS phones send them (3GPP TS 24.341, 24.011, 23.040): application/vnd.3gpp.sms. Pure.

The body of such a MESSAGE is one message of the relay layer (RP): a phone sends RP-DATA with an SMS-SUBMIT inside and gets an
RP-ACK, in a MESSAGE of its own, when it has been taken, or an RP-ERROR; it receives RP-DATA with an SMS-DELIVER or an
SMS-STATUS-REPORT and acknowledges it likewise."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from sipgw.sms import udh
from sipgw.sms.numbers import ALPHANUMERIC, Address
from sipgw.sms.text import GSM, Chunk, Part, coding_of, decode, encode, pack, unpack
from sipgw.sms.udh import Element

__all__ = ["Acknowledged", "BadRp", "Failed", "Submit", "acknowledge", "deliver", "fail", "read", "report"]

DATA_FROM_PHONE, DATA_TO_PHONE, ACK_FROM_PHONE, ACK_TO_PHONE, ERROR_FROM_PHONE, ERROR_TO_PHONE, MEMORY = range(7)
"""The types of RP messages (TS 24.011 8.2.2)."""
_USER_DATA: Final = 0x41
_SEMI_OCTETS: Final = "0123456789*#abc"

_STATUSES: Final = {"DELIVRD": 0x00, "ENROUTE": 0x30, "ACCEPTD": 0x30, "EXPIRED": 0x46, "DELETED": 0x48, "REJECTD": 0x41}
"""TP-Status (TS 23.040 9.2.3.15) of the states of receipts."""
TEMPORARY_FAILURE: Final = 41
"""An RP-Cause (TS 24.011 8.2.5.4)."""


class BadRp(ValueError):
    """Octets that are no RP message, or one that a phone does not send."""


class Submit(NamedTuple):
    """A text that a phone sends."""

    reference: int
    """The RP reference, to be acknowledged."""
    number: int
    """TP-MR, which a status report names."""
    destination: Address
    chunk: Chunk
    elements: Sequence[Element]
    coding: int
    wants_report: bool


class Acknowledged(NamedTuple):
    """The phone has taken what was sent with that reference."""

    reference: int


class Failed(NamedTuple):
    """The phone has not."""

    reference: int
    cause: int


class _Reader:
    """Octets from front to end."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def octets(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise BadRp("the message is cut off")
        found = self.data[self.at : end]
        self.at = end
        return found

    def octet(self) -> int:
        return self.octets(1)[0]

    def address(self) -> Address:
        """An address of TS 23.040 9.1.2.5: digits, type, semi-octets."""
        digits, kind = self.octet(), self.octet()
        octets = self.octets(-(-digits // 2))
        ton, npi = kind >> 4 & 7, kind & 0x0F
        if ton == ALPHANUMERIC:
            return Address(ton, npi, decode(unpack(octets, digits * 4 // 7)))
        text = "".join(_SEMI_OCTETS[half] for octet in octets for half in (octet & 15, octet >> 4) if half < 15)
        return Address(ton, npi, text[:digits])


def read(data: bytes) -> Submit | Acknowledged | Failed:
    """What a phone says; ``BadRp``."""
    reader = _Reader(data)
    kind, reference = reader.octet() & 7, reader.octet()
    if kind == ACK_FROM_PHONE:
        return Acknowledged(reference)
    if kind == ERROR_FROM_PHONE:
        cause = reader.octets(reader.octet())
        return Failed(reference, cause[0] & 0x7F if cause else TEMPORARY_FAILURE)
    if kind != DATA_FROM_PHONE:
        raise BadRp(f"a phone does not send RP messages of type {kind}")
    reader.octets(reader.octet())  # RP-Originator, empty from a phone
    reader.octets(reader.octet())  # RP-Destination, the SMSC
    return _submit(reference, _Reader(reader.octets(reader.octet())))


def _submit(reference: int, reader: _Reader) -> Submit:
    first, number = reader.octet(), reader.octet()
    if first & 3 != 1:
        raise BadRp("a phone sends SMS-SUBMIT")
    destination = reader.address()
    reader.octet()  # TP-PID
    coding = reader.octet()
    reader.octets({0: 0, 2: 1}.get(first >> 3 & 3, 7))  # TP-VP
    length = reader.octet()
    septets = coding_of(coding) == GSM
    octets = reader.octets(-(-length * 7 // 8) if septets else length)
    elements: list[Element] = []
    if first & 0x40:
        try:
            elements, rest = udh.split(octets)
        except ValueError as error:
            raise BadRp(str(error)) from None
        header = octets[0] + 1
        if septets:
            fill = -header * 8 % 7
            rest = unpack(rest, length - -(-header * 8 // 7), fill)
    else:
        rest = unpack(octets, length) if septets else octets
    return Submit(reference, number, destination, Chunk.of(rest, coding, elements), elements, coding, bool(first & 0x20))


def acknowledge(reference: int) -> bytes:
    """The RP-ACK to a phone."""
    return bytes((ACK_TO_PHONE, reference))


def fail(reference: int, cause: int = TEMPORARY_FAILURE) -> bytes:
    """The RP-ERROR to a phone."""
    return bytes((ERROR_TO_PHONE, reference, 1, cause))


def deliver(reference: int, smsc: str, source: Address, part: Part, when: datetime, *, more: bool = False) -> bytes:
    """RP-DATA with an SMS-DELIVER to a phone. ``smsc``: our number, ``when``: when the SMSC took the message."""
    first = (0 if more else 0x04) | (0x40 if part.has_header else 0)
    header, body = b"", part.data
    if part.has_header:
        size = part.data[0] + 1
        header, body = part.data[:size], part.data[size:]
    if part.coding == GSM:
        length = -(-len(header) * 8 // 7) + len(body)
        body = pack(body, -len(header) * 8 % 7 if header else 0)
    else:
        length = len(header) + len(body)
    tpdu = bytes((first,)) + _address(source) + bytes((0, part.coding)) + _stamp(when) + bytes((length,)) + header + body
    return _to_phone(reference, smsc, tpdu)


def report(reference: int, smsc: str, number: int, recipient: Address, state: str, sent: datetime, done: datetime) -> bytes:
    """RP-DATA with an SMS-STATUS-REPORT: what became of the message ``number`` to ``recipient``; ``state`` as in receipts."""
    status = _STATUSES.get(state, 0x45)
    tpdu = bytes((0x06, number)) + _address(recipient) + _stamp(sent) + _stamp(done) + bytes((status,))
    return _to_phone(reference, smsc, tpdu)


def _to_phone(reference: int, smsc: str, tpdu: bytes) -> bytes:
    digits = smsc.removeprefix("+")
    octets = _semi_octets(digits)
    originator = bytes((len(octets) + 1, 0x91 if smsc.startswith("+") else 0x81)) + octets if digits else b"\0"
    return bytes((DATA_TO_PHONE, reference)) + originator + b"\0" + bytes((len(tpdu),)) + tpdu


def _semi_octets(digits: str) -> bytes:
    halves = [_SEMI_OCTETS.index(digit) for digit in digits] + [15] * (len(digits) % 2)
    return bytes(low | high << 4 for low, high in zip(halves[::2], halves[1::2], strict=True))


def _address(address: Address) -> bytes:
    kind = 0x80 | address.ton << 4 | address.npi
    if address.ton == ALPHANUMERIC:
        octets = pack(encode(address.digits))
        return bytes((-(-len(encode(address.digits)) * 7 // 4), kind)) + octets
    return bytes((len(address.digits), kind)) + _semi_octets(address.digits)


def _stamp(when: datetime) -> bytes:
    """A time with its zone in quarters of an hour (TS 23.040 9.2.3.11)."""
    offset = when.utcoffset()
    quarters = 0 if offset is None else int(offset.total_seconds() // 900)
    octets = _semi_octets(when.strftime("%y%m%d%H%M%S"))
    zone = int(_semi_octets(f"{abs(quarters):02d}")[0])
    return octets + bytes((zone | (0x08 if quarters < 0 else 0),))
