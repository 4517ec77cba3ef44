"""Messages on disk: whatever was acknowledged, to a SIP phone with 202 or to an SMSC with ESME_ROK, is here until it has arrived.

A ``Message`` is one text, or one part of a long text of which the others have not come yet. The table ``sms_messages`` holds
them; ``sms_parts`` the names that SMSCs gave to what was sent, by which their receipts are matched days later, after whatever
restarts. Of messages that wait there may be millions: only the next ``AHEAD`` of each link are in memory.

Every change goes through ``commit``: it returns when the change is on disk. Changes that come while others are being written
wait and go together, so that the rate is not that of the disk's flushes (a *group commit*)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final
from uuid import uuid4

from twisted.internet.defer import Deferred, ensureDeferred

from sipgw.db.errors import DatabaseError
from sipgw.interfaces import Change, Database, Value, Where

__all__ = ["Kind", "Message", "Part", "Spool", "State", "new_id"]

MESSAGES, PARTS = "sms_messages", "sms_parts"
TABLES: Final = {MESSAGES: 1, PARTS: 1}
"""The tables with their versions."""
GROUP: Final = 1000
"""Changes that are written in one transaction at most."""
WAITING: Final = 20_000
"""Changes that may wait to be written; more are refused, so that nobody is acknowledged whom the disk cannot follow."""


class Kind(IntEnum):
    """Where a message goes."""

    TO_MOBILE = 0
    TO_SIP = 1
    TO_CLIENT = 2
    """To an ESME that is bound to us."""
    FRAGMENT = 3
    """A part of a text from a mobile that waits for the others."""


class State(IntEnum):
    """How far a message has come."""

    WAITING = 0
    SENDING = 1
    """Parts of it are under way: after a crash nobody knows whether they arrived."""
    SENT = 2
    """All parts are taken; receipts are to come."""


@dataclass(slots=True)
class Message:
    """One row of ``sms_messages``. ``source`` and ``destination`` are numbers, ``sender`` and ``receiver`` URIs, where there
    are any; times in seconds from 1970. ``details`` is what else belongs to it, as JSON."""

    id: str
    kind: Kind
    link: str
    source: str = ""
    destination: str = ""
    sender: str = ""
    receiver: str = ""
    body: bytes = b""
    details: dict[str, Any] = field(default_factory=dict)
    state: State = State.WAITING
    tries: int = 0
    created: int = 0
    due: int = 0
    expires: int = 0

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def row(self) -> dict[str, Any]:
        """It as a row."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        values["kind"], values["state"] = int(self.kind), int(self.state)
        values["details"] = json.dumps(self.details, separators=(",", ":"))
        return values

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Message:
        """The message of a row in the order of the fields."""
        values = dict(zip(_COLUMNS, row, strict=True))
        values["kind"], values["state"] = Kind(values["kind"]), State(values["state"])
        values["body"] = bytes(values["body"])
        values["details"] = json.loads(values["details"])
        return cls(**values)


_COLUMNS: Final = (
    "id", "kind", "link", "source", "destination", "sender", "receiver", "body", "details", "state", "tries", "created", "due",
    "expires",
)


@dataclass(slots=True)
class Part:
    """One row of ``sms_parts``: a part that an SMSC has taken, under the name that it gave it."""

    message: str
    number: int
    link: str
    smsc_id: str
    state: str = ""
    """What its last receipt said."""

    def row(self) -> dict[str, Any]:
        """It as a row."""
        return {
            "id": f"{self.message}.{self.number}", "message": self.message, "link": self.link, "smsc_id": self.smsc_id,
            "state": self.state,
        }

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Part:
        """The part of a row."""
        id, message, link, smsc_id, state = row
        return cls(message, int(id.rpartition(".")[2]), link, smsc_id, state)


def new_id() -> str:
    """A name for a message: unguessable, and one word."""
    return uuid4().hex


class Spool:
    """The two tables of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._waiting: list[tuple[Sequence[Change], Deferred[None]]] = []
        self._count = 0
        self._busy = False

    # ---- writing ----

    async def commit(self, changes: Sequence[Change]) -> None:
        """Do ``changes``, all or none; when this returns they are on disk. ``DatabaseError`` if not."""
        if self._count >= WAITING:
            raise DatabaseError(f"{self.database.name}: {self._count} changes wait already")
        done: Deferred[None] = Deferred()
        self._waiting.append((changes, done))
        self._count += len(changes)
        if not self._busy:
            self._busy = True
            ensureDeferred(self._write())  # by itself: whoever came first must not wait for those who come later
        await done

    async def _write(self) -> None:
        """Write all that waits, what comes meanwhile included. Whoever waits goes on in the moment when its change is on disk."""
        try:
            await self._write_groups()
        finally:
            self._busy = False

    async def _write_groups(self) -> None:
        while self._waiting:
            group: list[tuple[Sequence[Change], Deferred[None]]] = []
            size = 0
            while self._waiting and (not group or size + len(self._waiting[0][0]) <= GROUP):
                group.append(self._waiting.pop(0))
                size += len(group[-1][0])
            self._count -= size
            try:
                await self.database.batch([change for changes, _ in group for change in changes])
            except Exception:
                if len(group) == 1:
                    await self._alone(*group[0])
                else:  # one bad change must not take the others with it
                    for changes, done in group:
                        await self._alone(changes, done)
            else:
                for _, done in group:
                    done.callback(None)

    async def _alone(self, changes: Sequence[Change], done: Deferred[None]) -> None:
        try:
            await self.database.batch(changes)
        except Exception as error:  # whatever it is, whoever waits must hear of it
            done.errback(error)
        else:
            done.callback(None)

    async def add(self, *messages: Message, instead_of: Iterable[str] = ()) -> None:
        """Keep ``messages``; those with the ids ``instead_of`` go."""
        changes = [Change("insert", MESSAGES, message.row()) for message in messages]
        changes += [Change("delete", MESSAGES, where={"id": id}) for id in instead_of]
        await self.commit(changes)

    async def update(self, messages: Iterable[Message], parts: Iterable[Part] = (), gone: Iterable[Message] = ()) -> None:
        """Note how far ``messages`` have come, and what became of ``parts``; forget those that are ``gone``, with their parts."""
        changes: list[Change] = []
        for message in messages:
            values: dict[str, Value] = {
                "state": int(message.state), "tries": message.tries, "due": message.due, "receiver": message.receiver,
                "details": json.dumps(message.details, separators=(",", ":")),
            }
            changes.append(Change("update", MESSAGES, values, {"id": message.id}))
        changes += [Change("replace", PARTS, part.row(), keys=("id",)) for part in parts]
        for message in gone:
            changes.append(Change("delete", MESSAGES, where={"id": message.id}))
            changes.append(Change("delete", PARTS, where={"message": message.id}))
        if changes:
            await self.commit(changes)

    async def commit_sent(self, message: Message, parts: Sequence[Part]) -> None:
        """All parts of ``message`` were taken: note their names, and until when receipts are waited for."""
        values: dict[str, Value] = {
            "state": int(message.state), "expires": message.expires,
            "details": json.dumps(message.details, separators=(",", ":")),
        }
        changes = [Change("replace", PARTS, part.row(), keys=("id",)) for part in parts]
        await self.commit([*changes, Change("update", MESSAGES, values, {"id": message.id})])

    async def finish(self, message: Message, words: Iterable[Message]) -> None:
        """Forget ``message`` and its parts; in the same moment keep ``words``, what its sender is told."""
        changes = [Change("delete", MESSAGES, where={"id": message.id}), Change("delete", PARTS, where={"message": message.id})]
        changes += [Change("insert", MESSAGES, word.row()) for word in words]
        await self.commit(changes)

    # ---- reading ----

    async def due(self, kind: Kind, link: str, now: int, limit: int) -> list[Message]:
        """The messages for ``link`` whose turn it is, oldest first."""
        where: list[tuple[str, str, Any]] = [("state", "=", int(State.WAITING)), ("due", "<=", now), ("kind", "=", int(kind))]
        where.append(("link", "=", link))
        rows = await self.database.select(MESSAGES, _COLUMNS, where, order="due", limit=limit)
        return [Message.of_row(row) for row in rows]

    async def all(self, kind: Kind, state: State | None = None) -> list[Message]:
        """All messages of a kind, or those in one state."""
        where: list[tuple[str, str, Any]] = [("kind", "=", int(kind))]
        if state is not None:
            where.append(("state", "=", int(state)))
        rows = await self.database.select(MESSAGES, _COLUMNS, where, order="created")
        return [Message.of_row(row) for row in rows]

    async def find(self, id: str) -> Message | None:
        """The message of that id."""
        rows = await self.database.select(MESSAGES, _COLUMNS, {"id": id})
        return Message.of_row(rows[0]) if len(rows) else None

    async def waiting_for(self, receiver: str, now: int) -> list[Message]:
        """The messages that wait for ``receiver`` to come back."""
        where: Where = {"receiver": receiver, "state": int(State.WAITING), "kind": int(Kind.TO_SIP)}
        rows = await self.database.select(MESSAGES, _COLUMNS, where, order="created")
        return [message for message in map(Message.of_row, rows) if message.expires > now]

    async def expired(self, now: int, limit: int = 1000) -> list[Message]:
        """Messages whose time is over."""
        rows = await self.database.select(MESSAGES, _COLUMNS, [("expires", "<=", now)], limit=limit)
        return [Message.of_row(row) for row in rows]

    async def parts_named(self, names: Sequence[str], link: str) -> list[Part]:
        """The parts that an SMSC has given one of ``names``, in the order of the names; at most one each, those of ``link``."""
        for name in names:
            rows = await self.database.select(PARTS, _PART_COLUMNS, {"smsc_id": name, "link": link})
            if len(rows):
                return [Part.of_row(row) for row in rows]
        return []

    async def parts_of(self, message: str) -> list[Part]:
        """All parts of a message that were taken."""
        rows = await self.database.select(PARTS, _PART_COLUMNS, {"message": message})
        return [Part.of_row(row) for row in rows]

    async def count(self) -> dict[str, int]:
        """How many messages there are, by kind and state: ``to_mobile waiting``."""
        rows = await self.database.query(f"SELECT kind, state, COUNT(*) FROM {MESSAGES} GROUP BY kind, state")
        return {f"{Kind(kind).name.lower()} {State(state).name.lower()}": int(number) for kind, state, number in rows}


_PART_COLUMNS: Final = ("id", "message", "link", "smsc_id", "state")
