"""Which phones are in which chat rooms, on disk: after a restart they come in again, and hear what was said meanwhile."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from sipgw.interfaces import Change, Database
from sipgw.xmpp.address import BadJid, Jid
from sipgw.xmpp.rooms import Member, Rooms

__all__ = ["TABLE", "VERSION", "RoomTable"]

TABLE: Final = "xmpp_rooms"
VERSION: Final = 1
_COLUMNS: Final = ("sip", "room", "nick", "password", "heard")


class RoomTable:
    """The table of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def read(self, rooms: Rooms) -> None:
        """Put into ``rooms`` who was in them."""
        for sip, room, nick, password, heard in await self.database.select(TABLE, _COLUMNS):
            try:
                rooms.restore(Jid.parse(sip), Jid.parse(room), nick, password or "", float(heard))
            except BadJid:
                continue  # a row that nobody of us wrote

    async def note(self, sip: Jid, room: Jid, member: Member | None) -> None:
        """Keep what ``member`` is, or forget it. ``DatabaseError``."""
        id = hashlib.sha256(f"{sip} {room}".encode()).hexdigest()
        if member is None:
            change = Change("delete", TABLE, where={"id": id})
        else:
            row: dict[str, Any] = {
                "id": id, "sip": str(sip), "room": str(room), "nick": member.nick, "password": member.password,
                "heard": int(member.heard),
            }
            change = Change("replace", TABLE, row, keys=("id",))
        await self.database.batch([change])
