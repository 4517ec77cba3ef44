"""Messages on their way in: from mobiles by an SMSC, from ESMEs that are bound to us. What is answered with ESME_ROK is on disk.

Parts of a long text are kept one by one until all are there, or until no more come; the text then takes their place in one
transaction. After a restart the parts that wait are taken up again.

An SMSC that has not heard our answer sends the message again. So what came in the last ``UNSURE`` seconds before a connection
broke, or before we died, is known by its octets for ``REPEATED`` seconds: it is answered once more, and not taken twice. At any
other time the same octets are a person who writes the same again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, Protocol

from sipgw.db.errors import DatabaseError
from sipgw.sms import udh
from sipgw.sms.numbers import Address
from sipgw.sms.pdu import TLV, Pdu
from sipgw.sms.reassembly import Reassembly, Whole
from sipgw.sms.spool import Kind, Message, Spool, new_id
from sipgw.sms.text import Chunk, join
from sipgw.sms.udh import Concatenation

__all__ = ["Inbound", "content_of", "digest_of", "is_receipt"]

PATIENCE: Final = 300.0
REPEATED: Final = 120
UNSURE: Final = 10
REMEMBERED: Final = 10_000
VALIDITY: Final = 3 * 86400


class _Piece:
    """A part on disk: its row's id, and what it says."""

    __slots__ = ("chunk", "message")

    def __init__(self, message: Message, chunk: Chunk) -> None:
        self.message = message
        self.chunk = chunk

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Piece) and other.chunk == self.chunk

    __hash__ = None  # type: ignore[assignment]


class Around(Protocol):
    """What is asked of the gateway."""

    spool: Spool

    def now(self) -> int:
        """Seconds from 1970."""

    def clock(self) -> float:
        """Monotonic seconds."""

    def log(self, level: int, text: str) -> None:
        """Write a line."""

    def arrived(self, message: Message) -> None:
        """A whole text is on disk."""


def is_receipt(pdu: Pdu) -> bool:
    """Whether a ``deliver_sm`` says what became of a message (5.2.12): a receipt, or a notification before it. Some SMSCs do not
    mark their receipts, but give them both parameters; Kannel's emulator gives one of them to everything."""
    kind = pdu["esm_class"] & 0x3C
    return kind in (0x04, 0x20) or (TLV["receipted_message_id"] in pdu.tlvs and TLV["message_state"] in pdu.tlvs)


class Inbound:
    """All that comes in. ``address`` reads an address of a link as a SIP user."""

    def __init__(self, around: Around, patience: float = PATIENCE) -> None:
        self.around = around
        self.waiting: Reassembly[_Piece] = Reassembly(patience)
        self.incomplete = 0
        """Texts that were passed on although parts of them never came."""
        self.repeated = 0
        """Messages that an SMSC sent again."""
        self._recent: deque[tuple[int, str, bytes, str]] = deque(maxlen=REMEMBERED)
        """When, on which link, which octets, under which id."""
        self._unsure: dict[bytes, tuple[int, str]] = {}
        """What may come again: until when, and its id."""

    async def recover(self) -> None:
        """Take up the parts that wait on disk, and remember what came just before the end."""
        now = self.around.now()
        for message in await self.around.spool.all(Kind.FRAGMENT):
            d = message.details
            which = Concatenation(d["reference"], d["total"], d["number"], d["wide"])
            chunk = Chunk(message.body, d["coding"], d["locking"], d["single"])
            for whole in self.waiting.add(d["sender"], which, _Piece(message, chunk), self.around.clock()):
                await self._pass_on(whole)
        for kind in (Kind.FRAGMENT, Kind.TO_SIP):
            for message in await self.around.spool.all(kind):
                digest = message.details.get("digest")
                if digest and message.created + REPEATED > now:
                    self._unsure[bytes.fromhex(digest)] = now + REPEATED, message.id

    def lost(self, link: str) -> None:
        """The connection of ``link`` broke: its last messages may come again."""
        now = self.around.now()
        self._unsure = {digest: each for digest, each in self._unsure.items() if each[0] > now}
        for when, where, digest, id in self._recent:
            if where == link and when + UNSURE > now:
                self._unsure[digest] = now + REPEATED, id

    async def take(self, pdu: Pdu, link: str, read: Callable[[Address], str], more: dict[str, Any]) -> str:
        """Take the text of a PDU that came on ``link``; its id, when it is on disk. ``DatabaseError`` if that cannot be;
        ``ValueError`` for a header that cannot be read. ``more`` are details that belong to it."""
        around = self.around
        now = around.now()
        digest = digest_of(link, pdu)
        before = self._unsure.pop(digest, None)
        if before is not None and before[0] > now:
            self.repeated += 1
            around.log(1, f"sms: {link} sent {before[1]} again: it is not taken twice")
            return before[1]
        source = Address(pdu["source_addr_ton"], pdu["source_addr_npi"], pdu["source_addr"])
        destination = Address(pdu["dest_addr_ton"], pdu["dest_addr_npi"], pdu["destination_addr"])
        chunk, which = content_of(pdu)
        message = Message(
            new_id(), Kind.TO_SIP, link, read(source), read(destination), created=now, due=now, expires=now + VALIDITY,
            details={"digest": digest.hex(), **more},
        )
        if which is None:
            message.body = join([chunk]).encode("utf-8", "replace")
            await around.spool.add(message)
            around.arrived(message)
        else:
            await self._take_part(message, chunk, which)
        self._recent.append((now, link, digest, message.id))
        return message.id

    async def _take_part(self, message: Message, chunk: Chunk, which: Concatenation) -> None:
        sender = f"{message.link} {message.source} {message.destination}"
        message.kind = Kind.FRAGMENT
        message.body = chunk.data
        message.details |= {
            "sender": sender, "reference": which.reference, "total": which.total, "number": which.number, "wide": which.wide,
            "coding": chunk.coding, "locking": chunk.locking, "single": chunk.single,
        }
        await self.around.spool.add(message)
        for whole in self.waiting.add(sender, which, _Piece(message, chunk), self.around.clock()):
            await self._pass_on(whole)

    async def expire(self) -> None:
        """Pass on what has waited too long for its other parts."""
        for whole in self.waiting.expire(self.around.clock()):
            self.incomplete += 1
            try:
                await self._pass_on(whole)
            except DatabaseError as error:
                self.around.log(-1, f"sms: a text whose parts never came stays in the spool: {error}")

    async def _pass_on(self, whole: Whole[_Piece]) -> None:
        """Put the text in the place of its parts; for a part that is missing stands an ellipsis in brackets."""
        pieces = [piece for piece in whole.parts if piece is not None]
        first = pieces[0].message
        text: list[str] = []
        run: list[Chunk] = []
        for piece in whole.parts:
            if piece is not None:
                run.append(piece.chunk)
                continue
            text += [join(run), "[\u2026]"]
            run = []
        text.append(join(run))
        details = {name: value for name, value in first.details.items() if name not in _OF_PARTS}
        if details.get("client"):
            details["parts_of"] = [piece.message.id for piece in pieces]
        message = Message(
            new_id(), Kind.TO_SIP, first.link, first.source, first.destination, body="".join(text).encode("utf-8", "replace"),
            details=details, created=first.created, due=first.due, expires=first.expires,
        )
        if whole.missing:
            self.around.log(1, f"sms: {message.id} from {message.source}: {whole.missing} of {len(whole.parts)} parts never came")
        await self.around.spool.add(message, instead_of=[piece.message.id for piece in pieces])
        self.around.arrived(message)


_OF_PARTS: Final = frozenset(("sender", "reference", "total", "number", "wide", "coding", "locking", "single", "digest"))


def content_of(pdu: Pdu) -> tuple[Chunk, Concatenation | None]:
    """The octets of a text and how to read them, and which part of which message it is: by its header, or by the SAR parameters
    (5.3.2.22 to 24). ``ValueError`` for a header that cannot be read."""
    data = pdu.message
    elements: list[udh.Element] = []
    if pdu["esm_class"] & 0x40:
        elements, data = udh.split(data)
    which = Concatenation.of(elements)
    sar = [pdu.tlvs.get(TLV[name], b"") for name in ("sar_msg_ref_num", "sar_total_segments", "sar_segment_seqnum")]
    if which is None and [len(each) for each in sar] == [2, 1, 1]:
        number, total = sar[2][0], sar[1][0]
        if 1 <= number <= total and total > 1:
            which = Concatenation(int.from_bytes(sar[0], "big"), total, number, True)
    return Chunk.of(data, pdu["data_coding"], elements), which


def digest_of(link: str, pdu: Pdu) -> bytes:
    """What is the same when the same message comes again on a link."""
    said: Sequence[object] = (link, sorted(pdu.values.items(), key=str), sorted(pdu.tlvs.items()))
    return blake2b(repr(said).encode("utf-8", "surrogateescape"), digest_size=16).digest()
