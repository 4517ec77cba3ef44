"""What phones may tell a chat room to do, as OpenSIPS's module imc names it: ``#join``, ``#invite``, ``#exit`` ... Pure.

A command stands in a MESSAGE to the room, or to the domain of rooms with the room's address in it; what it cannot do is the
answer to that MESSAGE, what it says comes as a MESSAGE from the room."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from sipgw.sip.errors import SipError
from sipgw.xmpp.address import Jid
from sipgw.xmpp.stanza import SubElement, stanza

if TYPE_CHECKING:
    from sipgw.xmpp.rooms import Rooms

__all__ = ["HELP", "MUC", "MUC_OWNER", "MUC_USER", "Commands"]

MUC: Final = "http://jabber.org/protocol/muc"
MUC_USER: Final = f"{MUC}#user"
MUC_ADMIN: Final = f"{MUC}#admin"
MUC_OWNER: Final = f"{MUC}#owner"
ACCEPTED: Final = (202, "Accepted")
Result = tuple[int, str]
HELP: Final = "\n".join((
    "#join NAME: come in, or change your name; password=... at the end where one is needed",
    "#create NAME private: come in, and make the room if there is none; private: only for who is invited",
    "#exit: leave", "#list: who is here", "#invite ADDRESS: ask somebody in", "#accept, #deny: answer an invitation",
    "#remove NAME: put somebody out", "#destroy: end the room", "Anything else is said in the room.",
))


class Commands:
    """The commands of ``rooms``."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._known: dict[str, Callable[[Jid, Jid, str], Awaitable[Result]]] = {
            "#help": self._help, "#join": self._join, "#create": self._create, "#exit": self._exit, "#leave": self._exit,
            "#list": self._list, "#invite": self._invite, "#accept": self._accept, "#deny": self._deny,
            "#remove": self._remove, "#destroy": self._destroy,
        }

    async def do(self, text: str, sender: Jid, room: Jid) -> Result | None:
        """Do what a line says; the status to answer. None: it is no command, and is said in the room."""
        word, _, rest = text.partition(" ")
        command = self._known.get(word.lower())
        if command is None:
            return None
        rest, named = self._room_in(rest.strip())
        room = named or room
        if not room.local and command != self._help:
            return 404, "No Such Room"
        return await command(sender, room, rest)

    def _room_in(self, rest: str) -> tuple[str, Jid | None]:
        """What remains of a command's words when the address of a room is taken from their end or their beginning."""
        words = rest.split()
        for index in {len(words) - 1, 0} if words else ():
            if words[index].lower().startswith(("sip:", "sips:", "xmpp:")):
                try:
                    named = self.rooms.doors.named(words[index]).bare
                except SipError:
                    continue
                if self.rooms.serves(named):
                    return " ".join(words[:index] + words[index + 1 :]), named
        return rest, None

    def _show(self, sender: Jid, room: Jid, text: str) -> Result:
        self.rooms.doors.show(sender, room, text)
        return ACCEPTED

    def _is_inside(self, sender: Jid, room: Jid) -> bool:
        member = self.rooms.members.get((sender, room))
        return member is not None and member.inside

    async def _help(self, sender: Jid, room: Jid, _rest: str) -> Result:
        return self._show(sender, room, HELP)

    async def _list(self, sender: Jid, room: Jid, _rest: str) -> Result:
        member = self.rooms.members.get((sender, room))
        names = sorted(member.others | {member.nick}) if member is not None else []
        return self._show(sender, room, f"Here: {', '.join(names)}" if names else "You are not in this room: #join NAME")

    async def _join(self, sender: Jid, room: Jid, rest: str, wish: str = "") -> Result:
        nick, given, password = rest.partition("password=")
        status, reason = await self.rooms.join(sender, room, nick.strip(), password.strip() if given else None, wish)
        if status == 409:
            name = nick.strip() or sender.local
            self._show(sender, room, f"* Somebody in the room is called {name} already: #join with another name")
        return status, reason

    async def _create(self, sender: Jid, room: Jid, rest: str) -> Result:
        wish = "private" if rest.lower() == "private" or rest.lower().endswith(" private") else ""
        return await self._join(sender, room, rest[: len(rest) - len(wish)].strip(), wish)

    async def _exit(self, sender: Jid, room: Jid, _rest: str) -> Result:
        return await self.rooms.leave(sender, room)

    async def _accept(self, sender: Jid, room: Jid, rest: str) -> Result:
        invitation = self.rooms.invitations.get((sender, room))
        if invitation is None:
            return 404, "No Invitation"
        return await self.rooms.join(sender, room, rest, invitation.password or None)

    async def _deny(self, sender: Jid, room: Jid, rest: str) -> Result:
        invitation = self.rooms.invitations.pop((sender, room), None)
        if invitation is None:
            return 404, "No Invitation"
        if invitation.direct:  # XEP-0249 knows no answer
            return ACCEPTED
        return await self._pass_on(sender, room, "decline", invitation.inviter, rest)

    async def _pass_on(self, sender: Jid, room: Jid, what: str, to: str, reason: str) -> Result:
        """Let the room tell somebody of an invitation (XEP-0045 7.8.2)."""
        said = stanza("message", f"{sender}/sip", room)
        inner = SubElement(SubElement(said, f"{{{MUC_USER}}}x"), f"{{{MUC_USER}}}{what}", {"to": to} if to else {})
        if reason:
            SubElement(inner, f"{{{MUC_USER}}}reason").text = reason
        return await self.rooms.doors.deliver(said, sender.domain)

    async def _invite(self, sender: Jid, room: Jid, rest: str) -> Result:
        address, _, reason = rest.partition(" ")
        if not self._is_inside(sender, room):
            return 404, "Not In This Room"
        try:
            who = self.rooms.doors.named(address)
        except SipError as error:
            return error.status, error.reason
        return await self._pass_on(sender, room, "invite", str(who.bare), reason.strip())

    async def _ask(self, sender: Jid, room: Jid, namespace: str, name: str, values: dict[str, str]) -> Result:
        query = stanza("iq", f"{sender}/sip", room, type="set")
        SubElement(SubElement(query, f"{{{namespace}}}query"), f"{{{namespace}}}{name}", values)
        return await self.rooms.doors.deliver(query, sender.domain)

    async def _remove(self, sender: Jid, room: Jid, rest: str) -> Result:
        if not self._is_inside(sender, room):
            return 404, "Not In This Room"
        nick = rest
        if rest.lower().startswith(("sip:", "sips:", "xmpp:")):  # a room need not tell who is who: by the user's name
            nick = self._nick(rest)
        member = self.rooms.members[sender, room]
        if nick not in member.others:
            return 404, "Nobody Of That Name"
        return await self._ask(sender, room, MUC_ADMIN, "item", {"nick": nick, "role": "none"})

    def _nick(self, address: str) -> str:
        try:
            return self.rooms.doors.named(address).local
        except SipError:
            return ""

    async def _destroy(self, sender: Jid, room: Jid, _rest: str) -> Result:
        return await self._ask(sender, room, MUC_OWNER, "destroy", {"jid": str(room)})
