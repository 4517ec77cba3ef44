"""Call detail records: one for each call that was answered, whoever ended it (OpenSIPS's acc with flag ``cdr``).

A ``Cdr`` belongs to a dialog from its 2xx on. When the dialog ends it becomes a record: at the final answer to the BYE, since
the script may still set fields while it handles that; at once where no BYE came by, or when nobody answers it in ``PATIENCE``.
Its text is kept with the dialog's values, so that a restart in the middle of the call loses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sipgw.proxy.accounting import BACKENDS, ENDED, FLAGS, Account, Backend, Record

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
