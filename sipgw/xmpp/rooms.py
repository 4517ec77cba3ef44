"""Chat rooms (XEP-0045) for phones: a MESSAGE to the room's address is said in it, what is said there comes as a MESSAGE from it.

Whoever writes is in the room, under the name of his phone. Lines that begin with "#" are commands, named as OpenSIPS's module imc
names them: ``#join NAME``, ``#exit``, ``#list``, ``#help``. A phone that cannot be reached three times in a row is out again; a
room that was left because the server went away is entered again, and what was said meanwhile is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

from sipgw.xmpp.address import BadJid, Jid
from sipgw.xmpp.stanza import COMPONENT, Element, SubElement, error_of, local_name, stanza, text_of

__all__ = ["Rooms"]

MUC: Final = "http://jabber.org/protocol/muc"
RESOURCE: Final = "sip"
HISTORY: Final = 10
"""Messages of before that are asked for."""
ROOMS: Final = 20
"""Of one phone."""
MOST: Final = 5000
MISSES: Final = 3
TAKEN: Final = (200, 202)
HELP: Final = "#join NAME: come in, or change your name. #exit: leave. #list: who is here. Anything else is said in the room."


@dataclass
class _Member:
    nick: str
    inside: bool = False
    others: set[str] = field(default_factory=set)
    misses: int = 0
    left_at: float = 0.0


class Doors(Protocol):
    """What rooms ask of the gateway."""

    async def deliver(self, element: Element, domain: str) -> tuple[int, str]:
        """Send a stanza; the status that says what became of it."""

    def show(self, receiver: Jid, room: Jid, text: str) -> None:
        """Let a phone hear something from a room."""


class Rooms:
    """The rooms of ``domains``. ``now()``: seconds from 1970."""

    def __init__(self, domains: set[str], doors: Doors, now: Callable[[], float]) -> None:
        self.domains = domains
        self.doors = doors
        self.now = now
        self.members: dict[tuple[Jid, Jid], _Member] = {}

    def serves(self, jid: Jid) -> bool:
        """Whether a Jabber ID is that of a room, or of somebody in it."""
        return jid.domain in self.domains

    # ---- what phones say ----

    async def take(self, element: Element, sender: Jid, room: Jid) -> tuple[int, str]:
        """Say what a phone says, or do what it commands; the status to answer."""
        text = text_of(element, "body")
        if text is None:
            return 202, "Accepted"  # that somebody is writing is of no interest to a room
        sender, room = sender.bare, room.bare
        if not room.local:
            return 404, "No Such Room"
        member = self.members.get((sender, room))
        command, _, rest = text.strip().partition(" ")
        match command.lower():
            case "#help":
                self.doors.show(sender, room, HELP)
            case "#list":
                names = sorted(member.others | {member.nick}) if member is not None else []
                self.doors.show(sender, room, f"Here: {', '.join(names)}" if names else "You are not in this room: #join NAME")
            case "#exit" | "#leave":
                return await self._exit(sender, room)
            case "#join":
                return await self._join(sender, room, rest.strip())
            case _:
                return await self._speak(element, text, sender, room)
        return 202, "Accepted"

    async def _speak(self, element: Element, text: str, sender: Jid, room: Jid) -> tuple[int, str]:
        member = self.members.get((sender, room))
        if member is None or not member.inside:
            status, reason = await self._join(sender, room, "" if member is None else member.nick)
            if status not in TAKEN:
                return status, reason
        said = stanza("message", self._occupant(sender), room, id=element.get("id", ""), type="groupchat")
        SubElement(said, f"{{{COMPONENT}}}body").text = text
        return await self.doors.deliver(said, sender.domain)

    @staticmethod
    def _occupant(sender: Jid) -> Jid:
        return Jid(sender.local, sender.domain, RESOURCE)

    def _presence(self, sender: Jid, room: Jid, nick: str, kind: str = "") -> Element:
        return stanza("presence", self._occupant(sender), Jid(room.local, room.domain, nick), type=kind)

    async def _join(self, sender: Jid, room: Jid, nick: str, since: float = 0.0) -> tuple[int, str]:
        key = (sender, room)
        member = self.members.get(key)
        nick = nick or sender.local
        try:
            Jid.parse(f"{room}/{nick}")
        except BadJid:
            return 400, "Bad Name"
        if member is None:
            if len(self.members) >= MOST or sum(who == sender for who, _ in self.members) >= ROOMS:
                return 503, "Too Many Rooms"
            member = self.members[key] = _Member(nick)
        presence = self._presence(sender, room, nick)
        if not member.inside:
            history = SubElement(SubElement(presence, f"{{{MUC}}}x"), f"{{{MUC}}}history", {"maxstanzas": str(HISTORY)})
            if since:
                history.attrib = {"since": datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
        status, reason = await self.doors.deliver(presence, sender.domain)
        if status in TAKEN:
            if member.inside:
                member.others.discard(nick)
            member.nick = nick
        elif not member.inside:
            self.members.pop(key, None)
        return status, reason

    async def _exit(self, sender: Jid, room: Jid) -> tuple[int, str]:
        member = self.members.pop((sender, room), None)
        if member is None:
            return 404, "Not In This Room"
        return await self.doors.deliver(self._presence(sender, room, member.nick, "unavailable"), sender.domain)

    # ---- what rooms say ----

    def came(self, element: Element, sender: Jid, receiver: Jid) -> None:
        """Take a presence stanza of a room: who is in it."""
        key = (receiver.bare, sender.bare)
        member = self.members.get(key)
        if member is None:
            return
        nick, kind = sender.resource, element.get("type", "")
        codes = {each.get("code") for each in element.iter() if local_name(each) == "status"}
        if kind == "error":
            _, reason = error_of(element)
            self.doors.show(receiver.bare, sender.bare, f"* The room refuses: {reason}")
            if not member.inside:
                self.members.pop(key, None)
        elif kind == "unavailable":
            member.others.discard(nick)
            if ("110" in codes or nick == member.nick) and "303" not in codes:  # 303: only the name changes
                self.members.pop(key, None)
                self.doors.show(receiver.bare, sender.bare, "* You are no longer in the room")
        elif "110" in codes:
            member.inside = True
            member.nick = nick
        elif nick and len(member.others) < 1000:
            member.others.add(nick)

    def heard(self, element: Element, sender: Jid, receiver: Jid) -> Element | None:
        """A message of a room, as a phone may hear it: who says it stands before it. None for what it need not hear."""
        member = self.members.get((receiver.bare, sender.bare))
        if member is None or element.get("type") == "error" or (sender.resource == member.nick and _is_new(element)):
            return None
        body, subject = text_of(element, "body"), text_of(element, "subject")
        if body:
            private = " (to you alone)" if element.get("type") != "groupchat" else ""
            text = f"{sender.resource}{private}: {body}" if sender.resource else f"* {body}"
        elif subject:
            text = f"* {sender.resource or 'The room'}: the subject is now: {subject}"
        else:
            return None
        said = stanza("message", sender.bare, receiver.bare, id=element.get("id", ""), type="groupchat")
        SubElement(said, f"{{{COMPONENT}}}body").text = text
        for each in element:
            if local_name(each) == "delay":
                said.append(each)
        return said

    async def answered(self, receiver: Jid, room: Jid, status: int) -> None:
        """A phone has answered what it heard."""
        member = self.members.get((receiver.bare, room.bare))
        if member is None:
            return
        member.misses = member.misses + 1 if status >= 300 else 0
        if member.misses >= MISSES:
            await self._exit(receiver.bare, room.bare)

    # ---- the server ----

    def down(self, domain: str) -> None:
        """The server is gone, and with it all rooms."""
        for (sip, _), member in self.members.items():
            if sip.domain == domain and member.inside:
                member.inside, member.left_at = False, self.now()
                member.others.clear()

    def up(self, domain: str) -> list[Awaitable[tuple[int, str]]]:
        """The server is there again: what enters all rooms again."""
        return [
            self._join(sip, room, member.nick, member.left_at)
            for (sip, room), member in list(self.members.items()) if sip.domain == domain and not member.inside
        ]

    def farewell(self) -> list[Element]:
        """What leaves all rooms."""
        return [self._presence(sip, room, member.nick, "unavailable") for (sip, room), member in self.members.items()]


def _is_new(element: Element) -> bool:
    """Whether a message is said now, not long ago."""
    return not any(local_name(each) == "delay" for each in element)
