"""Call detail records: one for each call that was answered, whoever ended it (OpenSIPS's acc with flag ``cdr``).

A ``Cdr`` belongs to a dialog from its 2xx on. When the dialog ends it becomes a record: at the final answer to the BYE, since
the script may still set fields while it handles that; at once where no BYE came by, or when nobody answers it in ``PATIENCE``.
Its text is kept with the dialog's values, so that a restart in the middle of the call loses nothing."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sipgw.proxy.accounting import BACKENDS, ENDED, FLAGS, Account, Backend, Record
from sipgw.script.run import Value

VALUE = "accX_cdr"
"""The name of the dialog's value that keeps it."""
PATIENCE = 40.0
"""Seconds to wait for the answer to a BYE before the call is accounted without it."""


class Cdr:
    """What will be accounted of one call: ``record`` is what was known when it was answered."""

    __slots__ = ("account", "ended", "record", "written")

    def __init__(self, account: Account, record: Record) -> None:
        self.account = account
        self.record = replace(record, event=ENDED)
        self.ended = 0.0
        """When it ended, in seconds since 1970; 0 while it goes on."""
        self.written = False

    def final(self) -> Record:
        """The record of the call that has ended."""
        return replace(self.record, ms_duration=max(0, round((self.ended - self.record.time) * 1000)))

    def text(self) -> str:
        """All of it in one text."""
        account = self.account
        return json.dumps({
            "record": asdict(self.record), "wanted": {name: sorted(flags) for name, flags in account.wanted.items()},
            "table": account.table, "created": account.created, "extra": account.extra, "legs": account.legs,
        })

    @classmethod
    def read(cls, text: str, backends: Mapping[str, Backend]) -> Cdr:
        """What such a text says; ``ValueError`` if it is none."""
        said: Any = json.loads(text)
        try:
            account = Account(backends, float(said["created"]))
            for name, flags in said["wanted"].items():
                if name in BACKENDS and name in backends:
                    account.want((name,), (flag for flag in flags if flag in FLAGS))
            account.table = str(said["table"])
            account.extra = dict(said["extra"])
            account.legs = [dict(leg) for leg in said["legs"]]
            account.listens = True
            return cls(account, Record(**said["record"]))
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"this is no call detail record: {error}") from error


def read_opensips(
    values: Mapping[str, int | str], extra: list[str], legs: list[str], backends: Mapping[str, Backend]
) -> Cdr | None:
    """The call that an OpenSIPS accounted and left in the database when it stopped: its dialog's values ``accX_...``; None if
    there is none. ``extra``, ``legs``: the tags of the fields, in the order of their declaration."""
    if "accX_core" not in values or "accX_flags" not in values:
        return None
    try:
        core = [text.decode("utf-8", "surrogateescape") for text in _cut(_octets(values["accX_core"]), 6)]
        *_, answered = _cut(_octets(values["accX_core"]), 7)
        seconds, microseconds = struct.unpack("<qq", answered)
        flags = int.from_bytes(_octets(values["accX_flags"])[:8], "little")
        (created,) = struct.unpack("<q", _octets(values["accX_created"])[:8])
        account = Account(backends, float(created))
        for number, name in enumerate(("log", "aaa", "db", "evi")):
            bits = flags >> 8 * number & 0xFF
            if bits & 1 and name in backends:
                account.want((name,), (flag for bit, flag in enumerate(FLAGS, 1) if bits >> bit & 1))
        account.table = str(values.get("accX_table", ""))
        account.listens = True
        if extra and "accX_extra" in values:
            account.extra = _named(extra, _octets(values["accX_extra"])[2:])
        if legs and "accX_leg" in values:
            octets = _octets(values["accX_leg"])
            count, rest = int.from_bytes(octets[2:4], "little"), octets[4:]
            found = _cut(rest, count * len(legs))
            account.legs = [_pair(legs, found[i * len(legs) : (i + 1) * len(legs)]) for i in range(count)]
        method, from_tag, to_tag, call_id, code, reason = core
        record = Record(
            ENDED, method, from_tag, to_tag, call_id, code, reason, seconds + microseconds / 1e6, float(created), dated=True
        )
    except (struct.error, KeyError) as error:
        raise ValueError(f"what OpenSIPS has kept of the call cannot be read: {error}") from error
    return Cdr(account, record)


def _octets(value: int | str) -> bytes:
    return str(value).encode("utf-8", "surrogateescape")


def _cut(octets: bytes, count: int) -> list[bytes]:
    """So many texts, each with its length in two octets before it."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack("<H", octets[:2])
        if len(octets) < 2 + length:
            raise ValueError("a text is cut off")
        found.append(octets[2 : 2 + length])
        octets = octets[2 + length :]
    return found


def _named(tags: list[str], octets: bytes) -> dict[str, Value]:
    return _pair(tags, _cut(octets, len(tags)))


def _pair(tags: list[str], texts: list[bytes]) -> dict[str, Value]:
    return {tag: text.decode("utf-8", "surrogateescape") for tag, text in zip(tags, texts, strict=True) if text}
