"""Requests and answers, between names and values and pyrad's packets.

Digest credentials go as RFC 5090 has them, or as FreeRADIUS and the drafts before it do: an attribute whose number in the
dictionary is 1063 to 1072 is a part of Digest-Attributes (207). The dictionary decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyrad.dictionary import Dictionary, ParseError
from pyrad.packet import AccessAccept, AccessReject, AccountingResponse, AcctPacket, AuthPacket, Packet, PacketError
from pyrad.tools import DecodeAttr

from sipgw.aaa import AaaAnswer, AaaError, Attributes

OWN = Path(__file__).parent / "dictionary"
LONGEST = 253
"""Octets of one value."""
DIGEST_ATTRIBUTES = 207
PARTS = range(1063, 1073)
"""The numbers of the parts of Digest-Attributes; the first one is part 1."""
OTHERWISE = {"digest-username": "digest-user-name", "digest-entity-body-hash": "digest-body-digest"}
"""Names that some dictionaries have for what has another one in RFC 5090."""
_NUMBERS = ("integer", "date", "short", "byte", "signed", "integer64")


class Names:
    """A dictionary whose names may be written in any case of letters. ``ValueError`` if the file cannot be read."""

    def __init__(self, file: str) -> None:
        try:
            self.dictionary = Dictionary(file or str(OWN))
        except (ParseError, OSError, UnicodeError) as error:
            raise ValueError(f"dictionary {file}: {error}") from None
        self._names = {name.lower(): name for name in self.dictionary.attributes}

    def find(self, name: str) -> Any | None:
        """pyrad's attribute of that name."""
        lowered = name.lower()
        known = self._names.get(lowered) or self._names.get(OTHERWISE.get(lowered, ""))
        return None if known is None else self.dictionary.attributes[known]

    def number(self, attribute: str, name: str) -> int | None:
        """What the dictionary calls ``name``, a value of an attribute."""
        found = self.find(attribute)
        if found is None:
            return None
        for each, raw in found.values.forward.items():
            if str(each).lower() == name.lower():
                return int(DecodeAttr(found.type, raw))
        return None

    def encode(self, packet: Packet, name: str, value: int | str) -> None:
        """Add one attribute to a packet; ``AaaError`` if there is none such, or the value does not fit."""
        attribute = self.find(name)
        if attribute is None:
            raise AaaError(f"the dictionary has no attribute {name}")
        given: Any = value
        if attribute.type in _NUMBERS:
            given = self._number(name, value)
        elif attribute.type in ("string", "octets"):
            given = str(value).encode("utf-8", "surrogateescape")
            if attribute.name == "User-Password":
                given = packet.PwCrypt(given)
            if len(given) > LONGEST - 2:
                raise AaaError(f"the value of {name} is longer than {LONGEST - 2} octets")
            if attribute.code in PARTS and not attribute.vendor:
                part = bytes([attribute.code - PARTS.start + 1, len(given) + 2]) + given
                packet.setdefault(DIGEST_ATTRIBUTES, []).append(part)
                return
        try:
            packet.AddAttribute(attribute.name, given)
        except (ValueError, TypeError, OverflowError, PacketError) as error:
            raise AaaError(f"{name} cannot be {value!r}: {error}") from None

    def _number(self, name: str, value: int | str) -> int:
        if isinstance(value, int):
            return value
        if value.isascii() and value.isdigit():
            return int(value)
        found = self.number(name, value)
        if found is None:
            raise AaaError(f"{name} is a number, not {value!r}")
        return found

    def decode(self, packet: Packet) -> list[tuple[str, int | str]]:
        """The attributes that the dictionary knows, in order, numbers as numbers."""
        found: list[tuple[str, int | str]] = []
        for key, values in dict.items(packet):
            name = packet._DecodeKey(key)
            if not isinstance(name, str) or not isinstance(values, list):
                continue
            attribute = self.dictionary.attributes[name]
            if attribute.type == "tlv":
                continue
            for raw in values:
                try:
                    value = DecodeAttr(attribute.type, raw)
                except (ValueError, TypeError, LookupError, ArithmeticError):
                    continue
                if attribute.type in ("string", "octets"):
                    value = bytes(raw).decode("utf-8", "surrogateescape")
                found.append((name, value if isinstance(value, int | str) else str(value)))
        return found


def request(names: Names, secret: bytes, account: bool, attributes: Attributes) -> Packet:
    """A request with these attributes; ``AaaError`` if one does not fit. An Access-Request is signed (RFC 3579 3.2)."""
    made: Any
    if account:
        made = AcctPacket(secret=secret, dict=names.dictionary)
    else:
        made = AuthPacket(secret=secret, dict=names.dictionary, message_authenticator=True)
        made.authenticator = made.CreateAuthenticator()
    for name, value in attributes:
        names.encode(made, name, value)
    return made


def answer(names: Names, asked: Packet, data: bytes, signed: bool) -> AaaAnswer | None:
    """What ``data`` says to a request; None if it is no answer to it, or not from whoever has the secret."""
    try:
        found = asked.CreateReply(packet=data)
        if not asked.VerifyReply(found, data, enforce_ma=signed):
            return None
    except (PacketError, ValueError, LookupError, TypeError, ArithmeticError):
        return None
    if found.code not in (AccessAccept, AccessReject, AccountingResponse):
        return None
    return AaaAnswer(found.code != AccessReject, names.decode(found))
