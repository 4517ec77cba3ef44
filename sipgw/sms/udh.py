"""The user data header of a short message (3GPP TS 23.040, 9.2.3.24): parts of long texts, language shifts, ports.

It stands before the text: one octet that counts the rest, then elements of identifier, length and data. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

__all__ = ["CONCATENATED", "CONCATENATED_WIDE", "LOCKING_SHIFT", "SINGLE_SHIFT", "Concatenation", "Element", "build", "split"]

CONCATENATED: Final = 0x00
"""A part of a long message, with a reference of 8 bits."""
CONCATENATED_WIDE: Final = 0x08
"""A part of a long message, with a reference of 16 bits."""
SINGLE_SHIFT: Final = 0x24
"""Escapes mean the table of this national language."""
LOCKING_SHIFT: Final = 0x25
"""All characters mean the table of this national language."""


class Element(NamedTuple):
    """One information element."""

    id: int
    data: bytes


class Concatenation(NamedTuple):
    """Which part of which long message this is; parts count from 1."""

    reference: int
    total: int
    number: int
    wide: bool = False
    """Whether the reference has 16 bits; 8 otherwise."""

    def element(self) -> Element:
        """It as an information element."""
        size = 2 if self.wide else 1
        data = self.reference.to_bytes(size, "big") + bytes((self.total, self.number))
        return Element(CONCATENATED_WIDE if self.wide else CONCATENATED, data)

    @classmethod
    def of(cls, elements: Iterable[Element]) -> Concatenation | None:
        """The one among ``elements``; None where there is none, or one that cannot be (then the text stands alone)."""
        found: Concatenation | None = None
        for id, data in elements:
            if id == CONCATENATED and len(data) == 3:
                found = cls(data[0], data[1], data[2])
            elif id == CONCATENATED_WIDE and len(data) == 4:
                found = cls(int.from_bytes(data[:2], "big"), data[2], data[3], True)
        if found is None or not 1 <= found.number <= found.total or found.total == 1:
            return None  # 9.2.3.24.1: the receiver ignores an element whose numbers cannot be
        return found


def shift(elements: Iterable[Element], id: int) -> int:
    """The national language of a shift element, 0 where there is none."""
    for each in elements:
        if each.id == id and len(each.data) == 1:
            return each.data[0]
    return 0


def build(elements: Sequence[Element]) -> bytes:
    """The header with ``elements``, its own length first; nothing at all for none."""
    if not elements:
        return b""
    body = b"".join(bytes((each.id, len(each.data))) + each.data for each in elements)
    return bytes((len(body),)) + body


def split(data: bytes) -> tuple[list[Element], bytes]:
    """The elements of the header that ``data`` begins with, and what follows it; ``ValueError`` if it is cut off."""
    if not data:
        raise ValueError("a header is announced, and there is none")
    end = 1 + data[0]
    if end > len(data):
        raise ValueError(f"the header has {len(data) - 1} of its {data[0]} octets")
    elements: list[Element] = []
    at = 1
    while at < end:
        if at + 2 > end or at + 2 + data[at + 1] > end:
            raise ValueError("an element of the header is longer than the header")
        size = data[at + 1]
        elements.append(Element(data[at], data[at + 2 : at + 2 + size]))
        at += 2 + size
    return elements, data[end:]
