"""What pua_xmpp keeps on disk: the newest word of each row, written by one batch at a time, in order."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from twisted.internet.defer import Deferred

from sipgw.db.errors import DatabaseError
from sipgw.interfaces import Change, Database, Value
from sipgw.xmpp.watchers import Pair

__all__ = ["SUBSCRIPTIONS", "WATCHERS", "Rows", "row_id"]

WATCHERS: Final = ("xmpp_watchers", 2)
SUBSCRIPTIONS: Final = ("xmpp_subscriptions", 1)
BATCH: Final = 500
AGAIN: Final = 5.0
"""Seconds until what could not be written is tried again."""
MOST: Final = 200_000
"""Rows that wait while the database is away."""


def row_id(*parts: str) -> str:
    """The name of a row for what may be long."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


class Rows:
    """The rows of one database."""

    def __init__(self, user: Any, database: Database) -> None:
        self.user = user
        self.database = database
        self._waiting: dict[tuple[str, str], Change] = {}
        self._busy = False
        self._away = False
        """The last batch failed."""
        self._idle: list[Deferred[None]] = []

    def watcher(self, pair: Pair, state: str, shown: str) -> None:
        """Keep a Jabber user who watches; an empty ``state``: no more."""
        values: dict[str, Value] = {"sip": str(pair.sip), "jabber": str(pair.jabber), "state": state, "shown": shown}
        self._note(WATCHERS[0], row_id(str(pair.sip), str(pair.jabber)), values if state else None)

    def subscription(self, kind: str, id: str, sip: str, jabber: str, state: str | None) -> None:
        """Keep a subscription of a phone or one of ours; None: no more."""
        values: dict[str, Value] = {"kind": kind, "sip": sip, "jabber": jabber, "state": state}
        self._note(SUBSCRIPTIONS[0], row_id(kind, id), values if state is not None else None)

    def forget(self, id: str) -> None:
        """Delete the row of a subscription by its name."""
        self._note(SUBSCRIPTIONS[0], id, None)

    def _note(self, table: str, id: str, values: dict[str, Value] | None) -> None:
        if values is None:
            change = Change("delete", table, where={"id": id})
        else:
            change = Change("replace", table, {"id": id, **values}, keys=("id",))
        if len(self._waiting) < MOST:
            self._waiting[table, id] = change
        if not self._busy:
            self._busy = True
            self.user.launch(self._write())

    async def _write(self) -> None:
        while self._waiting:
            keys = list(self._waiting)[:BATCH]
            changes = [self._waiting.pop(key) for key in keys]
            try:
                self._away = False
                await self.database.batch(changes)
            except DatabaseError as error:
                self._away = True
                for key, change in zip(keys, changes, strict=True):
                    self._waiting.setdefault(key, change)
                self.user.log_rarely("xmpp rows", -1, f"pua_xmpp: who watches whom is not noted: {error}")
                self.user.after(AGAIN, lambda _now: self.user.launch(self._write()))
                self._rest()
                return
        self._busy = False
        self._rest()

    def _rest(self) -> None:
        idle, self._idle = self._idle, []
        for each in idle:
            each.callback(None)

    async def flush(self) -> None:
        """Wait until all is written, or cannot be."""
        if self._busy and not self._away:
            done: Deferred[None] = Deferred()
            self._idle.append(done)
            await done
