"""Chat rooms (XEP-0045) for phones: a MESSAGE to the room's address is said in it, what is said there comes as a MESSAGE from it.

Whoever writes is in the room, under the name of his phone. Lines that begin with "#" are commands (``rooms_commands.py``), named
as OpenSIPS's module imc names them. A phone that cannot be reached three times in a row, for a minute, is out again; a room that
was left because the server went away, or because we did, is entered again, and what was said meanwhile is asked for. Invitations
(XEP-0045 7.8, XEP-0249) are shown, and taken by a command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from sipgw.sip.errors import SipError
from sipgw.xmpp.address import BadJid, Jid
from sipgw.xmpp.rooms_commands import MUC, MUC_OWNER, MUC_USER, Commands
from sipgw.xmpp.stanza import COMPONENT, Element, SubElement, child, error_of, local_name, stanza, text_of

__all__ = ["Doors", "Invitation", "Member", "Rooms"]

FORM: Final = "jabber:x:data"
DIRECT: Final = "jabber:x:conference"
RESOURCE: Final = "sip"
ROOMS: Final = 20
"""Rooms, and invitations, of one phone."""
MOST: Final = 5000
MISSES: Final = 3
MISSED_FOR: Final = 60.0
"""Seconds for which a phone must have been out of reach: after our restart it may not have registered yet."""
NOTED_AFTER: Final = 30.0
"""Seconds after which it is noted anew until when a phone has heard a room."""
TAKEN: Final = (200, 202)
NOT_INSIDE: Final = 406
"""What a room says to who is not in it (XEP-0045 7.4)."""
GONE: Final = {
    "301": "You are banned from the room", "307": "You were put out of the room", "321": "You may no longer be in the room",
    "322": "The room is for its members only now",
}
SHUTDOWN: Final = "332"
CREATED: Final = "201"


@dataclass
class Member:
    """A phone in a room. ``heard``: until when it has heard what was said there, in seconds from 1970."""

    nick: str
    password: str = ""
    inside: bool = False
    heard: float = 0.0
    others: set[str] = field(default_factory=set)
    misses: int = 0
    missed_at: float = 0.0
    wish: str = ""
    """What the room shall be if it is new: "private" or nothing."""
    noted: float = 0.0


class Invitation(NamedTuple):
    """That somebody wants a phone in a room. ``direct``: said by himself, not by the room."""

    inviter: str
    password: str
    direct: bool


class Doors(Protocol):
    """What rooms ask of the gateway."""

    async def deliver(self, element: Element, domain: str) -> tuple[int, str]:
        """Send a stanza; the status that says what became of it."""

    def show(self, receiver: Jid, room: Jid, text: str) -> None:
        """Let a phone hear something from a room."""

    def note(self, sip: Jid, room: Jid, member: Member | None) -> None:
        """Keep that a phone is in a room, or that it is not."""

    def later(self, waiting: Awaitable[tuple[int, str]]) -> None:
        """Have something done of which nobody waits to hear."""

    def named(self, text: str) -> Jid:
        """The Jabber ID that a person means by an address, of SIP or of Jabber; ``SipError``."""


class Rooms:
    """The rooms of ``domains``. ``now()``: seconds from 1970; ``history``: messages of before that who comes in hears."""

    def __init__(self, domains: set[str], doors: Doors, now: Callable[[], float], history: int = 10) -> None:
        self.domains = domains
        self.doors = doors
        self.now = now
        self.history = history
        self.members: dict[tuple[Jid, Jid], Member] = {}
        self.invitations: dict[tuple[Jid, Jid], Invitation] = {}
        self._commands = Commands(self)

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
        if text.strip().startswith("#"):
            done = await self._commands.do(text.strip(), sender, room)
            if done is not None:
                return done
        if not room.local:
            return 404, "No Such Room"
        return await self._speak(element, text, sender, room)

    async def _speak(self, element: Element, text: str, sender: Jid, room: Jid, again: bool = True) -> tuple[int, str]:
        member = self.members.get((sender, room))
        if member is None or not member.inside:
            status, reason = await self.join(sender, room)
            if status not in TAKEN:
                return status, reason
        said = stanza("message", occupant(sender), room, id=element.get("id", ""), type="groupchat")
        SubElement(said, f"{{{COMPONENT}}}body").text = text
        status, reason = await self.doors.deliver(said, sender.domain)
        member = self.members.get((sender, room))
        if status == NOT_INSIDE and again and member is not None and member.inside:  # the room has forgotten us
            self._lost((sender, room), member)
            return await self._speak(element, text, sender, room, again=False)
        return status, reason

    def presence(self, sender: Jid, room: Jid, nick: str, kind: str = "") -> Element:
        """What a phone says to a room of itself."""
        return stanza("presence", occupant(sender), Jid(room.local, room.domain, nick), type=kind)

    async def join(
        self, sender: Jid, room: Jid, nick: str = "", password: str | None = None, wish: str = ""
    ) -> tuple[int, str]:
        """Come in, or change the name; the status to answer. ``password`` None: the one of last time."""
        key = (sender, room)
        member = self.members.get(key)
        nick = nick or (sender.local if member is None else member.nick)
        try:
            Jid.parse(f"{room}/{nick}")
        except BadJid:
            return 400, "Bad Name"
        if member is None:
            if len(self.members) >= MOST or sum(who == sender for who, _ in self.members) >= ROOMS:
                return 503, "Too Many Rooms"
            member = self.members[key] = Member(nick)
        if password is not None:
            member.password = password
        member.wish = wish
        status, reason = await self.doors.deliver(self._entry(sender, room, nick, member), sender.domain)
        if status in TAKEN:
            if member.inside:
                member.others.discard(nick)
            member.nick = nick
            self.invitations.pop(key, None)
            self._note(key, member)
        elif not member.inside:
            self._forget(key)
        return status, reason

    def _entry(self, sender: Jid, room: Jid, nick: str, member: Member) -> Element:
        presence = self.presence(sender, room, nick)
        if not member.inside:
            enter = SubElement(presence, f"{{{MUC}}}x")
            history = SubElement(enter, f"{{{MUC}}}history", {"maxstanzas": str(self.history)})
            if member.heard:
                history.attrib = {"since": datetime.fromtimestamp(member.heard, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
            if member.password:
                SubElement(enter, f"{{{MUC}}}password").text = member.password
        return presence

    async def leave(self, sender: Jid, room: Jid) -> tuple[int, str]:
        """Go out; the status to answer."""
        member = self._forget((sender, room))
        if member is None:
            return 404, "Not In This Room"
        return await self.doors.deliver(self.presence(sender, room, member.nick, "unavailable"), sender.domain)

    # ---- what is kept ----

    def _note(self, key: tuple[Jid, Jid], member: Member) -> None:
        member.noted = self.now()
        self.doors.note(*key, member)

    def _forget(self, key: tuple[Jid, Jid]) -> Member | None:
        member = self.members.pop(key, None)
        if member is not None:
            self.doors.note(*key, None)
        return member

    # ---- what rooms say ----

    def came(self, element: Element, sender: Jid, receiver: Jid) -> None:
        """Take a presence stanza of a room: who is in it."""
        key = (receiver.bare, sender.bare)
        member = self.members.get(key)
        if member is None:
            return
        nick, kind = sender.resource, element.get("type", "")
        codes = {each.get("code", "") for each in element.iter() if local_name(each) == "status"}
        if kind == "error":
            _, reason = error_of(element)
            self.doors.show(*key, f"* The room refuses: {reason}")
            if not member.inside:
                self._forget(key)
        elif kind == "unavailable":
            member.others.discard(nick)
            if ("110" in codes or nick == member.nick) and "303" not in codes:  # 303: only the name changes
                self._out(key, member, element, codes)
        elif "110" in codes:
            member.inside, member.nick = True, nick
            if CREATED in codes:
                self._open(key, member)
        elif nick and len(member.others) < 1000:
            member.others.add(nick)

    def _out(self, key: tuple[Jid, Jid], member: Member, element: Element, codes: set[str]) -> None:
        """A phone is in a room no more, and wants to know why."""
        if SHUTDOWN in codes:  # the service ends, the phone has not left
            self._lost(key, member)
            return
        self._forget(key)
        why = next((text for code, text in GONE.items() if code in codes), "You are no longer in the room")
        item = element.find(f"{{{MUC_USER}}}x/{{{MUC_USER}}}item")
        who = None if item is None else child(item, "actor", MUC_USER)
        by = "" if who is None else who.get("nick") or who.get("jid") or ""
        reason = "" if item is None else text_of(item, "reason", MUC_USER) or ""
        destroyed = element.find(f"{{{MUC_USER}}}x/{{{MUC_USER}}}destroy")
        if destroyed is not None:
            other = destroyed.get("jid", "")
            why = "The room is no more" + (f"; go to {other}" if other else "")
            reason = text_of(destroyed, "reason", MUC_USER) or ""
        self.doors.show(*key, _line(f"* {why}{f' by {by}' if by else ''}{f': {reason}' if reason else ''}"))

    def _open(self, key: tuple[Jid, Jid], member: Member) -> None:
        """A room is new and belongs to the phone that made it: others can come in when it has said how it shall be."""
        query = stanza("iq", occupant(key[0]), key[1], type="set")
        form = SubElement(SubElement(query, f"{{{MUC_OWNER}}}query"), f"{{{FORM}}}x", {"type": "submit"})
        if member.wish == "private":
            for name, value in (("FORM_TYPE", f"{MUC}#roomconfig"), ("muc#roomconfig_membersonly", "1")):
                SubElement(SubElement(form, f"{{{FORM}}}field", {"var": name}), f"{{{FORM}}}value").text = value
        self.doors.later(self.doors.deliver(query, key[0].domain))

    def heard(self, element: Element, sender: Jid, receiver: Jid) -> Element | None:
        """A message of a room, as a phone may hear it: who says it stands before it. None for what it need not hear."""
        key = (receiver.bare, sender.bare)
        if element.get("type") == "error" or self._mediated(element, key):
            return None
        member = self.members.get(key)
        if member is None or (sender.resource == member.nick and _is_new(element)):
            return None
        text = _said(element, sender.resource)
        if text is None:
            return None
        member.heard = self.now()
        if member.heard - member.noted > NOTED_AFTER:
            self._note(key, member)
        said = stanza("message", sender.bare, receiver.bare, id=element.get("id", ""), type="groupchat")
        SubElement(said, f"{{{COMPONENT}}}body").text = text
        for each in element:
            if local_name(each) == "delay":
                said.append(each)
        return said

    def _mediated(self, element: Element, key: tuple[Jid, Jid]) -> bool:
        """Take an invitation that a room passes on, or the word that one was declined."""
        if (found := child(element, "x", MUC_USER)) is None:
            return False
        invite, decline = child(found, "invite", MUC_USER), child(found, "decline", MUC_USER)
        if invite is not None:
            password = text_of(found, "password", MUC_USER) or ""
            self._invited(key, Invitation(invite.get("from", ""), password, False), text_of(invite, "reason", MUC_USER) or "")
        elif decline is not None and key in self.members:
            reason = text_of(decline, "reason", MUC_USER) or ""
            who = _who(decline.get("from", ""), key[1])
            self.doors.show(*key, _line(f"* {who} does not come{f': {reason}' if reason else ''}"))
        return invite is not None or decline is not None

    def direct(self, element: Element, sender: Jid, receiver: Jid) -> bool:
        """Take an invitation that somebody sends himself (XEP-0249); whether it was one, to a room of those that we know."""
        found = child(element, "x", DIRECT)
        if found is None or element.get("type") == "error":
            return False
        try:
            room = Jid.parse(found.get("jid", "")).bare
        except BadJid:
            return False
        if not room.local or not self.serves(room):
            return False
        invitation = Invitation(str(sender), found.get("password", ""), True)
        self._invited((receiver.bare, room), invitation, found.get("reason", ""))
        return True

    def _invited(self, key: tuple[Jid, Jid], invitation: Invitation, reason: str) -> None:
        if key in self.members:
            return
        while sum(sip == key[0] for sip, _ in self.invitations) >= ROOMS or len(self.invitations) >= MOST:
            oldest = next((each for each in self.invitations if each[0] == key[0]), next(iter(self.invitations)))
            del self.invitations[oldest]
        self.invitations[key] = invitation
        why = f" ({reason})" if reason else ""
        text = f"* {_who(invitation.inviter, key[1])} invites you to {key[1]}{why}. #accept: come in. #deny: do not."
        self.doors.show(*key, _line(text))

    async def answered(self, receiver: Jid, room: Jid, status: int) -> None:
        """A phone has answered what it heard."""
        member = self.members.get((receiver.bare, room.bare))
        if member is None:
            return
        if status < 300:
            member.misses = 0
            return
        member.missed_at = self.now() if member.misses == 0 else member.missed_at
        member.misses += 1
        if member.misses >= MISSES and self.now() - member.missed_at >= MISSED_FOR:
            await self.leave(receiver.bare, room.bare)

    # ---- the server, and us ----

    def restore(self, sip: Jid, room: Jid, nick: str, password: str, heard: float) -> None:
        """A phone was in a room when we ended."""
        if self.serves(room) and len(self.members) < MOST:
            self.members[sip, room] = Member(nick, password, heard=heard, noted=heard)

    def _lost(self, key: tuple[Jid, Jid], member: Member) -> None:
        """A phone is out of a room that it has not left."""
        if member.inside:
            member.inside, member.heard = False, self.now()
            member.others.clear()
            self._note(key, member)

    def down(self, domain: str, peer: str = "") -> None:
        """The server is gone, and with it all rooms; those of ``peer`` only, if it is not empty."""
        for key, member in self.members.items():
            if key[0].domain == domain and peer in ("", key[1].domain):
                self._lost(key, member)

    def up(self, domain: str, peer: str = "") -> list[Awaitable[tuple[int, str]]]:
        """The server is there again: what enters all rooms again."""
        return [
            self.join(sip, room) for (sip, room), member in list(self.members.items())
            if sip.domain == domain and peer in ("", room.domain) and not member.inside
        ]

    def wait_for(self, domain: str, peer: str) -> bool:
        """Whether somebody is in a room of a server."""
        return any(sip.domain == domain and room.domain == peer for sip, room in self.members)

    def farewell(self) -> list[Element]:
        """What leaves all rooms; who was in them stays noted."""
        for key, member in self.members.items():
            if member.inside:
                member.heard = self.now()
                self._note(key, member)
        return [self.presence(sip, room, member.nick, "unavailable") for (sip, room), member in self.members.items()]


def occupant(sender: Jid) -> Jid:
    """The full Jabber ID by which a phone is in rooms."""
    return Jid(sender.local, sender.domain, RESOURCE)


def _said(element: Element, nick: str) -> str | None:
    """What a message of a room says, with the name of who says it."""
    body, subject = text_of(element, "body"), text_of(element, "subject")
    if body:
        private = " (to you alone)" if element.get("type") != "groupchat" else ""
        return f"{nick}{private}: {body}" if nick else f"* {body}"
    return f"* {nick or 'The room'}: the subject is now: {subject}" if subject else None


def _is_new(element: Element) -> bool:
    """Whether a message is said now, not long ago."""
    return not any(local_name(each) == "delay" for each in element)


def _who(text: str, room: Jid) -> str:
    """How a Jabber ID is called in a room; Prosody tells people by their names there."""
    try:
        jid = Jid.parse(text)
    except SipError:
        return "Somebody"
    return jid.resource if jid.bare == room and jid.resource else str(jid.bare)


def _line(text: str) -> str:
    """A text of strangers as one line of ours."""
    return " ".join(text.split())[:1000]
