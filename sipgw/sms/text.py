"""The texts of short messages: alphabets, packing, and the cutting of long texts into parts. Pure.

A text goes out in the first of these that can say all of it: the GSM alphabet of 7 bits, the same with the tables of a national
language where those are allowed (each costs a header of its own), UTF-16 (*UCS-2*, which phones read as UTF-16). A long text is
cut into parts, each with a header that says which; no part ends inside an escaped character or a surrogate pair, so that each
can be shown alone. Joined they give the text again: ``join`` decodes only after putting the octets together, so that even a
sender who cuts anywhere is understood.

Within SMPP a character of 7 bits fills an octet (the SMSC packs); within an RP-DATA, and at some SMSCs, eight of them fill seven
octets (``pack``). What a part may hold counts in packed octets either way: 140, header included."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from sipgw.sms.alphabets import LOCKING, SINGLE
from sipgw.sms.udh import LOCKING_SHIFT, SINGLE_SHIFT, Concatenation, Element, build, shift

__all__ = [
    "ASCII", "BINARY", "GSM", "LATIN1", "UCS2", "Chunk", "NotInAlphabet", "Part", "alphabet_of", "coding_of", "cut", "decode",
    "encode", "join", "pack", "unpack",
]

GSM: Final = 0
"""``data_coding`` of the SMSC's default alphabet: GSM 03.38, unless a link says otherwise."""
ASCII: Final = 1
LATIN1: Final = 3
BINARY: Final = 4
CYRILLIC: Final = 6
HEBREW: Final = 7
UCS2: Final = 8

ROOM: Final = 140
"""Octets of one short message, header included."""
MOST_PARTS: Final = 255
_ESCAPE: Final = 0x1B
_UNKNOWN: Final = "\ufffd"

_CODECS: Final = {ASCII: "ascii", LATIN1: "latin-1", CYRILLIC: "iso8859-5", HEBREW: "iso8859-8", UCS2: "utf-16-be"}
_BINARY: Final = frozenset((2, 4))


class NotInAlphabet(ValueError):
    """The text has a character that the alphabet has not."""


class Part(NamedTuple):
    """One short message: ``data``, with its header if ``has_header``; which of how many."""

    data: bytes
    coding: int
    has_header: bool
    number: int
    total: int


class Chunk(NamedTuple):
    """What one part that came says: octets without the header, how to read them."""

    data: bytes
    coding: int
    locking: int = 0
    single: int = 0

    @classmethod
    def of(cls, data: bytes, coding: int, elements: Sequence[Element] = ()) -> Chunk:
        """The octets behind a header with ``elements``."""
        return cls(data, coding, shift(elements, LOCKING_SHIFT), shift(elements, SINGLE_SHIFT))


def _single(language: int) -> dict[int, str]:
    """The codes after an escape, each with its character."""
    codes: dict[int, str] = {}
    for start, run in SINGLE.get(language, SINGLE[0]).items():
        codes.update((start + at, character) for at, character in enumerate(run))
    return codes


def _encoder(locking: int, single: int) -> dict[str, bytes]:
    """What each character is written as; one that stands in both tables is not escaped."""
    table = {character: bytes((_ESCAPE, code)) for code, character in _single(single).items()}
    for code, character in enumerate(LOCKING.get(locking, LOCKING[0])):
        if code != _ESCAPE and character != _UNKNOWN:
            table[character] = bytes((code,))
    return table


_encoders: dict[tuple[int, int], dict[str, bytes]] = {}
_decoders: dict[int, dict[int, str]] = {}


def _characters(text: str, locking: int, single: int) -> list[bytes]:
    """``text`` character by character, each as one or two septets."""
    key = locking if locking in LOCKING else 0, single if single in SINGLE else 0
    table = _encoders.get(key)
    if table is None:
        table = _encoders[key] = _encoder(*key)
    try:
        return [table[character] for character in text]
    except KeyError as missing:
        raise NotInAlphabet(f"{missing.args[0]!r} is not in the alphabet") from None


def encode(text: str, locking: int = 0, single: int = 0) -> bytes:
    """``text`` in the GSM alphabet, one septet an octet; ``NotInAlphabet`` if it cannot be."""
    return b"".join(_characters(text, locking, single))


def decode(septets: bytes, locking: int = 0, single: int = 0) -> str:
    """The text of ``septets``, one an octet. A language that is not known counts as none; an escape that means nothing leaves
    the character that follows as it is (TS 23.038 6.2.1.1), one at the end is a space; what is no septet is U+FFFD."""
    table = LOCKING.get(locking, LOCKING[0])
    single = single if single in SINGLE else 0
    escaped = _decoders.get(single)
    if escaped is None:
        escaped = _decoders[single] = _single(single)
    text: list[str] = []
    escape = False
    for code in septets:
        if code > 0x7F:
            text.append(_UNKNOWN)
            escape = False
        elif escape:
            escape = False
            text.append(" " if code == _ESCAPE else escaped.get(code, table[code]))
        elif code == _ESCAPE:
            escape = True
        else:
            text.append(table[code])
    if escape:
        text.append(" ")
    return "".join(text)


def pack(septets: bytes, fill: int = 0) -> bytes:
    """Eight septets into seven octets, behind ``fill`` bits that bring the text to a septet boundary after a header."""
    bits, held = 0, fill
    packed = bytearray()
    for septet in septets:
        bits |= (septet & 0x7F) << held
        held += 7
        while held >= 8:
            packed.append(bits & 0xFF)
            bits >>= 8
            held -= 8
    if held:
        packed.append(bits)
    return bytes(packed)


def unpack(octets: bytes, count: int, fill: int = 0) -> bytes:
    """``count`` septets out of ``octets``, one an octet; fewer if there are not so many."""
    bits = int.from_bytes(octets, "little") >> fill
    count = min(count, max(0, (len(octets) * 8 - fill) // 7))
    return bytes((bits >> (7 * at)) & 0x7F for at in range(count))


def alphabet_of(text: str, languages: Iterable[int] = ()) -> tuple[int, int, int]:
    """Coding, locking and single shift language in which ``text`` is shortest: the GSM alphabet; that with the shifts of one of
    ``languages``; UTF-16."""
    try:
        _characters(text, 0, 0)
        return GSM, 0, 0
    except NotInAlphabet:
        pass
    best: tuple[int, tuple[int, int, int]] = len(text.encode("utf-16-be", "surrogatepass")), (UCS2, 0, 0)
    for language in languages:
        for locking, single in ((0, language), (language, 0), (language, language)):
            if (locking and locking not in LOCKING) or (single and single not in SINGLE):
                continue
            try:
                septets = len(encode(text, locking, single))
            except NotInAlphabet:
                continue
            size = -(-septets * 7 // 8) + 3 * bool(locking) + 3 * bool(single)
            if size < best[0]:
                best = size, (GSM, locking, single)
    return best[1]


def cut(
    text: str, *, reference: int = 0, wide: bool = False, languages: Iterable[int] = (), coding: int | None = None
) -> list[Part]:
    """``text`` as short messages, one if it fits. ``wide``: references of 16 bits. ``coding``: this one, not the shortest
    (``NotInAlphabet`` if it cannot be). ``ValueError`` for more than 255 parts."""
    locking = single = 0
    if coding is None:
        coding, locking, single = alphabet_of(text, languages)
    shifts = ((SINGLE_SHIFT, single), (LOCKING_SHIFT, locking))
    elements = [Element(id, bytes((language,))) for id, language in shifts if language]
    if coding == GSM:
        units = _characters(text, locking, single)
    elif coding == UCS2:
        units = [character.encode("utf-16-be", "surrogatepass") for character in text]
    else:
        try:
            units = [character.encode(_CODECS[coding]) for character in text]
        except (UnicodeEncodeError, KeyError):
            raise NotInAlphabet(f"the text does not fit data_coding {coding}") from None
    header = build(elements)
    if sum(map(len, units)) <= _room(len(header), coding):
        return [Part(header + b"".join(units), coding, bool(header), 1, 1)]
    probe = build([Concatenation(0, 2, 1, wide).element(), *elements])
    pieces = _fill(units, _room(len(probe), coding))
    total = len(pieces)
    if total > MOST_PARTS:
        raise ValueError(f"the text needs {total} short messages, more than {MOST_PARTS}")
    reference &= 0xFFFF if wide else 0xFF
    return [
        Part(build([Concatenation(reference, total, number, wide).element(), *elements]) + piece, coding, True, number, total)
        for number, piece in enumerate(pieces, 1)
    ]


def _room(header: int, coding: int) -> int:
    """How many septets, or octets, stand behind a header of so many octets."""
    return (ROOM - header) * 8 // 7 if coding == GSM else ROOM - header


def _fill(units: Sequence[bytes], room: int) -> list[bytes]:
    """``units`` in as few pieces as possible, none of them cut."""
    pieces: list[bytes] = []
    piece: list[bytes] = []
    left = room
    for unit in units:
        if len(unit) > left:
            pieces.append(b"".join(piece))
            piece, left = [], room
        piece.append(unit)
        left -= len(unit)
    pieces.append(b"".join(piece))
    return pieces


def coding_of(data_coding: int) -> int:
    """The alphabet that a ``data_coding`` means: the values of SMPP 3.4 5.2.19, and the groups of TS 23.038 that it allows."""
    if data_coding >= 0xF0:  # message class
        return BINARY if data_coding & 0x04 else GSM
    if data_coding >= 0xE0:  # message waiting, UCS-2
        return UCS2
    if data_coding >= 0xC0:  # message waiting, GSM
        return GSM
    if data_coding >= 0x10:  # general data coding, not compressed
        return GSM if data_coding & 0x20 else (GSM, BINARY, UCS2, GSM)[data_coding >> 2 & 3]
    return data_coding


def join(chunks: Sequence[Chunk]) -> str:
    """The text of all ``chunks`` in order; those that are alike are put together before they are decoded. Binary ones, and what
    cannot be decoded, give U+FFFD for each octet that says nothing."""
    text: list[str] = []
    at = 0
    while at < len(chunks):
        first = chunks[at]
        data = bytearray()
        while at < len(chunks) and chunks[at][1:] == first[1:]:
            data += chunks[at].data
            at += 1
        text.append(_text_of(bytes(data), first))
    return "".join(text)


def _text_of(data: bytes, how: Chunk) -> str:
    coding = coding_of(how.coding)
    if coding == GSM:
        return decode(data, how.locking, how.single)
    codec = _CODECS.get(coding, "ascii" if coding in _BINARY else "latin-1")
    if coding == UCS2:
        if data[:2] == b"\xff\xfe":  # a sender that writes its own byte order
            codec, data = "utf-16-le", data[2:]
        elif data[:2] == b"\xfe\xff":
            data = data[2:]
    return data.decode(codec, "replace")
