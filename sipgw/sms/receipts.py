"""Delivery receipts: what became of a message, as SMSCs say it (SMPP 3.4 5.2.12, 5.3.2.35 and appendix B). Pure.

Where there are TLVs (``receipted_message_id``, ``message_state``) they count. Most SMSCs write a text instead, each in its own
dialect: other cases and orders of the fields, dates with or without seconds or century, the state as a word or a number, fields
left out. And many name the message in the receipt otherwise than in their ``submit_sm_resp``: there hexadecimal, here decimal, or
the other way round, with or without zeros before it. ``same_ids`` gives the names under which to look, most likely first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

__all__ = ["FINAL", "STATES", "Receipt", "read", "same_ids", "write"]

STATES: Final[dict[str, int]] = {
    "SCHEDULED": 0, "ENROUTE": 1, "DELIVRD": 2, "EXPIRED": 3, "DELETED": 4, "UNDELIV": 5, "ACCEPTD": 6, "UNKNOWN": 7,
    "REJECTD": 8, "SKIPPED": 9,
}
"""``message_state`` by the word that texts use (appendix B, table B-2)."""
_WORDS: Final = {number: word for word, number in STATES.items()}
FINAL: Final = frozenset("DELIVRD EXPIRED DELETED UNDELIV REJECTD SKIPPED".split())
"""States after which nothing follows. UNKNOWN is none: some say it before they know."""
_DIALECTS: Final[dict[str, str]] = {
    "DELIVERED": "DELIVRD", "DELIVERD": "DELIVRD", "DLVRD": "DELIVRD", "EXPIRD": "EXPIRED", "UNDELIVERED": "UNDELIV",
    "UNDELIVERABLE": "UNDELIV", "UNDELIVRD": "UNDELIV", "UNDELIVERD": "UNDELIV", "FAILED": "UNDELIV", "ACCEPTED": "ACCEPTD",
    "REJECTED": "REJECTD", "EN_ROUTE": "ENROUTE", "BUFFERED": "ENROUTE", "BUFFRED": "ENROUTE", "SENT": "ENROUTE",
    "CANCELED": "DELETED", "CANCELLED": "DELETED",
}

RECEIPTED_MESSAGE_ID: Final = 0x001E
MESSAGE_STATE: Final = 0x0427
NETWORK_ERROR_CODE: Final = 0x0423

_NAME: Final = r"(id|sub|dlvrd|submit[ _]?date|done[ _]?date|stat(?:us)?|err(?:or)?|text|msg)"
_FIELD: Final = re.compile(_NAME + r"\s*[:=]\s*", re.IGNORECASE)
_LONGEST_ID: Final = 255


class Receipt(NamedTuple):
    """What became of one message. ``state`` is one of ``STATES``, ``error`` as the SMSC writes it, times are the SMSC's."""

    id: str
    state: str
    error: str = ""
    submitted: datetime | None = None
    done: datetime | None = None
    text: str = ""

    @property
    def is_final(self) -> bool:
        """Whether no further receipt follows."""
        return self.state in FINAL


def read(text: str, tlvs: Mapping[int, bytes]) -> Receipt | None:
    """The receipt in the text and the TLVs of a ``deliver_sm`` (or ``data_sm``); None if they name no message or no state."""
    fields = _fields(text)
    id = tlvs.get(RECEIPTED_MESSAGE_ID, b"").rstrip(b"\0").decode("latin-1") or fields.get("id", "")
    written = fields.get("stat", "").upper()
    number = tlvs.get(MESSAGE_STATE, b"")
    if len(number) == 1 and number[0] in _WORDS:
        state = _WORDS[number[0]]
    elif written.isdecimal() and int(written[:3]) in _WORDS:
        state = _WORDS[int(written[:3])]
    else:
        state = written if written in STATES else _DIALECTS.get(written, "UNKNOWN" if written else "")
    if not id or not state or len(id) > _LONGEST_ID:
        return None
    error = fields.get("err", "")
    network = tlvs.get(NETWORK_ERROR_CODE, b"")
    if len(network) == 3 and not error.strip("0"):
        error = str(int.from_bytes(network[1:], "big")).zfill(3)
    return Receipt(id, state, error, _time(fields.get("submit", "")), _time(fields.get("done", "")), fields.get("text", ""))


def _fields(text: str) -> dict[str, str]:
    """The fields of a receipt's text by the beginning of their names; what stands behind ``text:`` belongs to it to the end."""
    fields: dict[str, str] = {}
    at = 0
    found = _FIELD.search(text, at)
    while found is not None:
        name = re.split(r"[ _]|date", found.group(1).lower())[0]
        name = {"status": "stat", "error": "err", "msg": "text"}.get(name, name)
        if name == "text":
            fields.setdefault(name, text[found.end() :])
            break
        following = _FIELD.search(text, found.end())
        value = text[found.end() : following.start() if following else len(text)].strip(" ,;\t\r\n\0")
        fields.setdefault(name, value.split(" ")[0] if name in ("id", "stat", "err") else value)
        found = following
    return fields


def _time(text: str) -> datetime | None:
    digits = re.sub(r"\D", "", text)
    for form in {10: ("%y%m%d%H%M",), 12: ("%y%m%d%H%M%S", "%Y%m%d%H%M"), 14: ("%Y%m%d%H%M%S",)}.get(len(digits), ()):
        try:
            return datetime.strptime(digits, form)
        except ValueError:
            continue
    return None


def same_ids(id: str) -> list[str]:
    """The names that a message may have had in its ``submit_sm_resp``, if a receipt calls it ``id``: as it is; without zeros
    before it; its number in the other base."""
    names = [id]
    plain = id.lstrip("0") or id[-1:]
    names += [plain, plain.lower(), plain.upper()]
    if re.fullmatch(r"[0-9]{1,20}", id):
        number = int(id)
        names += [f"{number:x}", f"{number:X}", f"{number:08x}", f"{number:08X}", f"{number:010d}"]
    if re.fullmatch(r"[0-9A-Fa-f]{1,16}", id):
        number = int(id, 16)
        names += [str(number), f"{number:010d}"]
    return list(dict.fromkeys(names))


def write(receipt: Receipt, submitted: datetime, done: datetime) -> str:
    """The text of ``receipt`` as appendix B has it, for those that bind to us."""
    delivered = "001" if receipt.state == "DELIVRD" else "000"
    stamp = "%y%m%d%H%M"
    return (
        f"id:{receipt.id} sub:001 dlvrd:{delivered} submit date:{submitted.strftime(stamp)} done date:{done.strftime(stamp)} "
        f"stat:{receipt.state} err:{receipt.error or '000'} text:{receipt.text[:20]}"
    )
