"""Messages for Jabber users on disk while the XMPP server is away: in order, so many at most, for so long at most.

The table ``xmpp_messages`` holds them. What is in it was answered 202 and goes out before anything newer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sipgw.interfaces import Change, Database
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.trees import parse_tree
from sipgw.xmpp.stanza import COMPONENT, Element, write

__all__ = ["TABLE", "VERSION", "Item", "Queue"]

TABLE: Final = "xmpp_messages"
VERSION: Final = 1
_COLUMNS: Final = ("number", "link", "sender", "receiver", "stanza", "created", "expires")


@dataclass(slots=True)
class Item:
    """One message. ``element`` None: the row is damaged."""

    number: int
    link: str
    sender: str
    receiver: str
    element: Element | None
    created: int
    expires: int


class Queue:
    """The table of one database. ``size``: messages at most; ``age``: seconds that one is kept."""

    def __init__(self, database: Database, size: int, age: int) -> None:
        self.database = database
        self.size = size
        self.age = age
        self.counts: dict[str, int] = {}
        """How many messages wait, by component; those included that are being written."""
        self._last = 0

    async def open(self) -> None:
        """Count what is there."""
        for number, link in await self.database.select(TABLE, ("number", "link")):
            self.counts[link] = self.counts.get(link, 0) + 1
            self._last = max(self._last, int(number))

    @property
    def is_full(self) -> bool:
        """Whether no more are taken."""
        return sum(self.counts.values()) >= self.size

    async def add(self, link: str, element: Element, now: float) -> None:
        """Keep a message; when this returns it is on disk. ``DatabaseError`` if not."""
        self._last = max(self._last + 1, int(now * 1_000_000))
        row: dict[str, Any] = {
            "number": self._last, "link": link, "sender": element.get("from", "")[:255], "receiver": element.get("to", "")[:255],
            "stanza": write(element), "created": int(now), "expires": int(now) + self.age,
        }
        self.counts[link] = self.counts.get(link, 0) + 1
        try:
            await self.database.batch([Change("insert", TABLE, row)])
        except BaseException:
            self.counts[link] -= 1
            raise

    async def next(self, link: str, limit: int) -> list[Item]:
        """The oldest messages for a component."""
        rows = await self.database.select(TABLE, _COLUMNS, {"link": link}, order="number", limit=limit)
        return [Item(int(n), lk, frm, to, _read(bytes(data)), int(made), int(end)) for n, lk, frm, to, data, made, end in rows]

    async def all(self, limit: int = 1000) -> list[Item]:
        """The oldest messages of all."""
        rows = await self.database.select(TABLE, _COLUMNS, order="number", limit=limit)
        return [Item(int(n), lk, frm, to, _read(bytes(data)), int(made), int(end)) for n, lk, frm, to, data, made, end in rows]

    async def remove(self, items: list[Item]) -> None:
        """Forget messages."""
        await self.database.batch([Change("delete", TABLE, where={"number": item.number}) for item in items])
        for item in items:
            self.counts[item.link] -= 1


def _read(data: bytes) -> Element | None:
    try:
        root = parse_tree(f'<queue xmlns="{COMPONENT}">'.encode() + data + b"</queue>", longest=len(data) + 100)
    except MalformedMessage:
        return None
    return root[0] if len(root) == 1 else None
