"""The gateway: SIP on one side, an XMPP server on the other.

What a script gives ``send`` becomes a stanza, and what the server says of it the status to answer with. A stanza from there is
shown to the script as a MESSAGE; its final response becomes a stanza error, or a receipt. Between two people the order is kept:
one message waits for the answer to the one before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from twisted.internet.defer import Deferred

from sipgw.db.errors import DatabaseError
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request
from sipgw.xmpp.address import BadJid, Domains, Jid, parse_uri
from sipgw.xmpp.disco import answer
from sipgw.xmpp.link import Down, Link
from sipgw.xmpp.message import Page, failure_note, is_carbon, receipt, stamp_delay, to_sip, to_stanza, wants_receipt
from sipgw.xmpp.queue import Item, Queue
from sipgw.xmpp.remote import Remote
from sipgw.xmpp.room_table import RoomTable
from sipgw.xmpp.rooms import Member, Rooms
from sipgw.xmpp.roster import Roster
from sipgw.xmpp.server import ServerLink
from sipgw.xmpp.stanza import COMPONENT, Element, SubElement, child, error_of, error_to, local_name, stanza, text_of

__all__ = ["Gateway", "GatewaySettings", "Origin", "Sip"]

Way = Link | ServerLink | Remote
"""What leads to servers: a component's link; one of our domains, and a server elsewhere, where we are a server ourselves."""
ACCEPTED: Final = (202, "Accepted")
AWAY: Final = (480, "Temporarily Unavailable")
MOST_OF_PAIR: Final = 50
"""Messages between two people that wait for an answer."""
BATCH: Final = 20
"""Messages of the queue that are read at once."""
GONE, WAITING, DOUBTFUL = "gone", "waiting", "doubtful"
"""What became of a message of the queue: dealt with, not sent, sent and nobody knows."""
MOST: Final = 5000
"""Messages from Jabber that wait for an answer."""


@dataclass
class GatewaySettings:
    """What the gateway is like. ``receipts``: a Jabber client hears of receipt when a phone has answered 200 ("response"), when
    it says so in a notification ("imdn"), or never ("none"). ``composing``: tell phones who is writing."""

    receipts: str = "response"
    composing: bool = True
    html: bool = False
    """Say to phones what is marked up as HTML, too."""
    window: int = 1
    """Messages of the queue that may be under way at a time: so many go out twice at most, if we or the server die then."""


class Origin(NamedTuple):
    """The stanza that a MESSAGE came from."""

    sender: str
    receiver: str
    id: str
    domain: str
    host: str


class Sip(Protocol):
    """The SIP side of the gateway."""

    async def message(self, receiver: str, sender: str, page: Page, origin: Origin) -> tuple[int, str]:
        """Send a MESSAGE; its final status and reason."""


class User(Protocol):
    """What is asked of the transaction user."""

    def wall_clock(self) -> float:
        """Seconds from 1970."""

    def log(self, level: int, text: str) -> None:
        """Write a line."""

    def log_rarely(self, key: Any, level: int, text: str) -> None:
        """Write a line, unless it was written a moment ago."""

    def broken(self, error: BaseException) -> None:
        """Log a bug of our own."""

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine beside everything else."""


class Gateway:
    """One gateway. ``tell(event, **values)`` raises an event."""

    def __init__(self, user: User, sip: Sip, domains: Domains, settings: GatewaySettings, tell: Callable[..., None]) -> None:
        self.user = user
        self.sip = sip
        self.domains = domains
        self.settings = settings
        self.tell = tell
        self.links: dict[str, Link | ServerLink] = {}
        self.queue: Queue | None = None
        """Where messages wait while the server is away; None: they are answered 480."""
        self.roster: Roster | None = None
        """Who watches whom; None: presence goes neither way."""
        self.decided: Callable[[str, Jid, Jid], bool] | None = None
        """Takes a text from a SIP user to a Jabber user that says whether he may see her; None: nobody says so."""
        self.rooms: Rooms | None = None
        """The chat rooms; None: there are none."""
        self.room_table: RoomTable | None = None
        """Where it is kept who is in them; None: nowhere."""
        self._flushing: set[str] = set()
        self.counts = dict.fromkeys(("sent", "received", "failed", "refused", "dropped"), 0)
        self._waiting: dict[tuple[str, str], list[Element]] = {}
        self._under_way = 0

    def start(self) -> None:
        """Connect."""
        for link in self.links.values():
            link.start()

    async def stop(self) -> None:
        """Leave."""
        if self.roster is not None:
            self.roster.leave()
        for element in () if self.rooms is None else self.rooms.farewell():
            self.say(self.links[Jid.parse(element.get("from", "")).domain], element)
        for link in self.links.values():
            await link.stop()

    # ---- SIP to Jabber ----

    async def send(self, request: Request, target: str) -> tuple[int, str]:
        """Send what a MESSAGE says to the Jabber user that ``target`` (a URI) stands for; the status to answer it with: 202 when
        the server has taken it."""
        try:
            sender = self.domains.user_to_jid(request.from_.uri)
            receiver = self.domains.target_to_jid(parse_uri(target))
            element = to_stanza(request, sender, receiver, self.user.wall_clock())
        except SipError as error:
            self.counts["refused"] += 1
            return error.status, error.reason
        if element is None:
            return ACCEPTED
        if self.rooms is not None and self.rooms.serves(receiver):
            return await self.rooms.take(element, sender, receiver)
        if self.decided is not None and self.decided(text_of(element, "body") or "", sender, receiver):
            return ACCEPTED
        return await self.deliver(element, sender.domain)

    async def deliver(self, element: Element, domain: str) -> tuple[int, str]:
        """Send a stanza as ``domain``; the status that says what became of it."""
        link, queue = self.links[domain].towards(Jid.parse(element.get("to", "")).domain), self.queue
        kept = queue is not None and child(element, "body") is not None
        if kept and queue is not None and (not link.ready or queue.counts.get(link.key)):
            return await self._keep(queue, link, element)
        try:
            status, reason = await link.deliver(element)
        except Down as error:
            if kept and queue is not None and not error.sent:
                return await self._keep(queue, link, element)
            self.counts["failed"] += 1
            self.user.log_rarely(("xmpp down", link.key), -1, f"xmpp: {link.key}: a message is not delivered: {error}")
            return AWAY
        if status != 200:
            self.counts["failed"] += 1
            return status, reason
        self.counts["sent"] += 1
        return ACCEPTED

    async def _keep(self, queue: Queue, link: Way, element: Element) -> tuple[int, str]:
        """Put a message on disk, behind those that are there."""
        if queue.is_full:
            self.counts["failed"] += 1
            self.user.log_rarely("xmpp queue", -1, f"xmpp: {queue.size} messages wait for the server: no more are taken")
            return AWAY
        now = self.user.wall_clock()
        stamp_delay(element, datetime.fromtimestamp(now, UTC), link.settings.domain)
        try:
            await queue.add(link.key, element, now)
        except DatabaseError as error:
            self.counts["failed"] += 1
            self.user.log_rarely("xmpp queue", -1, f"xmpp: a message cannot be kept: {error}")
            return AWAY
        self._flush(link)
        return ACCEPTED

    def waits(self, key: str) -> bool:
        """Whether something waits for the server with this key: a message on disk, or a phone that is in a room there."""
        if self.queue is not None and self.queue.counts.get(key):
            return True
        return self.rooms is not None and self.rooms.wait_for(*key.partition(" ")[::2])

    def _flush(self, link: Way) -> None:
        """Send what waits, if the server is there."""
        queue = self.queue
        if queue is not None and queue.counts.get(link.key) and link.ready and link.key not in self._flushing:
            self._flushing.add(link.key)
            self.user.launch(self._send_kept(queue, link))

    async def _send_kept(self, queue: Queue, link: Way) -> None:
        """Send what waits, ``window`` at a time: only what is under way can go out twice."""
        window = max(1, self.settings.window)
        try:
            while link.ready and (items := await queue.next(link.key, max(BATCH, window))):
                for first in range(0, len(items), window):
                    part, now = items[first : first + window], self.user.wall_clock()
                    sent = [(item, Deferred.fromCoroutine(self._send_one(link, item, now))) for item in part]
                    states = [(item, await done) for item, done in sent]
                    gone = [item for item, state in states if state == GONE]
                    if gone:
                        await queue.remove(gone)
                    doubtful = [item.receiver for item, state in states if state == DOUBTFUL]
                    if doubtful:
                        self.user.log(-1, f"xmpp: {link.key}: the server went away: may arrive twice: {', '.join(doubtful)}")
                    if len(gone) < len(part):
                        return
        except DatabaseError as error:
            self.user.log_rarely("xmpp queue", -1, f"xmpp: messages that wait cannot be read: {error}")
        finally:
            self._flushing.discard(link.key)

    async def _send_one(self, link: Way, item: Item, now: float) -> str:
        """Send a message of the queue; whether it can be forgotten."""
        if item.element is None:
            return GONE
        if item.expires <= now:
            status, reason = 408, "It has waited for too long"
        else:
            try:
                status, reason = await link.deliver(item.element)
            except Down as error:
                return DOUBTFUL if error.sent else WAITING
        if status == 200:
            self.counts["sent"] += 1
            return GONE
        error_stanza = error_to(item.element, status, reason)
        if error_stanza is not None:
            self._late_error(link, error_stanza, Jid.parse(item.receiver), Jid.parse(item.sender))
        return GONE

    # ---- what links tell (xmpp.link.Watcher) ----

    def up(self, link: Way) -> None:
        """The server has accepted us; or, where we are one, we listen."""
        settings, peer = link.settings, link.peer
        whom = f"the server of {peer}" if peer else f"{settings.host}:{settings.port}"
        verb = "listening at" if isinstance(link, ServerLink) else "connected to"
        self.user.log(2, f"xmpp: {verb} {whom} as {settings.domain}")
        self.tell("E_XMPP_LINK", domain=settings.domain, state="up", reason=peer)
        if isinstance(link, ServerLink) and self.queue is not None:
            for key in list(self.queue.counts):
                if key.startswith(f"{settings.domain} "):
                    self._flush(link.towards(key.partition(" ")[2]))
        self._flush(link)
        if self.roster is not None:
            self.roster.up(settings.domain, peer)
        for entering in [] if self.rooms is None else self.rooms.up(settings.domain, peer):
            self.later(entering)

    def down(self, link: Way, reason: str) -> None:
        """The server is not there."""
        settings, peer = link.settings, link.peer
        if not link.stopped:
            self.user.log_rarely(("xmpp link", link.key, reason), 0, f"xmpp: {link.key}: down: {reason}")
        said = f"{peer}: {reason}" if peer else reason
        self.tell("E_XMPP_LINK", domain=settings.domain, state="stopped" if link.stopped else "down", reason=said)
        if self.roster is not None:
            self.roster.down(settings.domain, peer)
        if self.rooms is not None:
            self.rooms.down(settings.domain, peer)

    def came(self, link: Way, element: Element) -> None:
        """Take a stanza. Only for users of the component, and only from others."""
        try:
            sender, receiver = Jid.parse(element.get("from", "")), Jid.parse(element.get("to", ""))
        except BadJid:
            self.counts["dropped"] += 1
            return
        if receiver.domain != link.settings.domain or self.domains.is_ours(sender):
            self.counts["dropped"] += 1
            return
        name = local_name(element)
        if name == "message":
            self._came_message(link, element, sender, receiver)
        elif name == "presence":
            if self.rooms is not None and self.rooms.serves(sender):
                self.rooms.came(element, sender, receiver)
            elif self.roster is not None:
                self.roster.came(element, sender, receiver)
            elif element.get("type") == "subscribe":
                self.say(link, error_to(element, 501))
        elif name == "iq":
            said = answer(element, receiver)
            if said is not None:
                self.say(link, said)

    def say(self, link: Way, element: Element | None) -> None:
        """Send a stanza of which nobody waits to hear."""
        if element is None:
            return
        try:
            link.send(element)
        except Down:
            self.counts["dropped"] += 1

    # ---- Jabber to SIP ----

    def _came_message(self, link: Way, element: Element, sender: Jid, receiver: Jid) -> None:
        if is_carbon(element):
            self.counts["dropped"] += 1
            return
        if self.rooms is not None and self.rooms.serves(sender):
            said = self.rooms.heard(element, sender, receiver)
            if said is None:
                return
            element = said
        elif self.rooms is not None and self.rooms.direct(element, sender, receiver):
            return
        if element.get("type") == "error":
            self._late_error(link, element, sender, receiver)
            return
        self._message(link, element, sender, receiver)

    def _message(self, link: Way, element: Element, sender: Jid, receiver: Jid) -> None:
        """Let a message wait for those before it."""
        pair = (str(sender.bare), str(receiver.bare))
        waiting = self._waiting.get(pair)
        if waiting is None:
            self._waiting[pair] = [element]
        elif len(waiting) >= MOST_OF_PAIR or self._under_way >= MOST:
            self.counts["refused"] += 1
            if element.get("type") != "groupchat":
                self.say(link, error_to(element, 423, "Too many messages wait"))
            return
        else:
            waiting.append(element)
        self._under_way += 1
        if waiting is None:
            self.user.launch(self._work(link, pair))

    async def _work(self, link: Way, pair: tuple[str, str]) -> None:
        """Bring in the messages of a pair, one after another."""
        waiting = self._waiting[pair]
        try:
            while waiting:
                element = waiting.pop(0)
                self._under_way -= 1
                try:
                    await self._bring_in(link, element)
                except Exception as error:
                    self.user.broken(error)
                    self.say(link, error_to(element, 500))
        finally:
            self._under_way -= len(waiting)
            del self._waiting[pair]

    async def _bring_in(self, link: Way, element: Element) -> None:
        sender, receiver = Jid.parse(element.get("from", "")), Jid.parse(element.get("to", ""))
        settings = self.settings
        wanted = wants_receipt(element)
        try:
            to_uri, from_uri = self.domains.user_to_uri(receiver), self.domains.jid_to_uri(sender, receiver.domain)
            if not receiver.local and child(element, "body") is not None:
                raise SipError("Nobody Is There", 404)
            page = to_sip(
                element, from_uri, to_uri, imdn=settings.receipts == "imdn", composing=settings.composing, html=settings.html
            )
        except SipError as error:
            self.counts["refused"] += 1
            self.say(link, error_to(element, error.status, error.reason))
            return
        if page is None:
            return
        origin = Origin(str(sender), str(receiver), element.get("id", ""), link.settings.domain, link.settings.host)
        status, reason = await self.sip.message(to_uri, from_uri, page, origin)
        if status == 415 and not page.kind.startswith("text/") and not page.quiet:  # a phone that can read nothing but text
            page = to_sip(element, from_uri, to_uri, composing=False)
            assert page is not None
            status, reason = await self.sip.message(to_uri, from_uri, page, origin)
        self.counts["received"] += 1
        if page.quiet:
            return
        if element.get("type") == "groupchat":
            if self.rooms is not None:
                await self.rooms.answered(receiver, sender, status)
            return
        if status >= 300:
            self.counts["failed"] += 1
            self.say(link, error_to(element, status, reason))
        elif wanted and status == 200 and settings.receipts != "none" and page.kind != "message/cpim":
            self.say(link, receipt(element))

    def _late_error(self, link: Way, element: Element, sender: Jid, receiver: Jid) -> None:
        """The server had taken a message, and now somebody says that it cannot arrive."""
        status, reason = error_of(element)
        self.counts["failed"] += 1
        self.tell("E_XMPP_FAILED", sender=str(receiver), receiver=str(sender), status=status, reason=reason)
        try:
            to_uri, from_uri = self.domains.user_to_uri(receiver), self.domains.jid_to_uri(sender, receiver.domain)
        except SipError:
            return
        page = failure_note(element, from_uri, to_uri)
        if page is not None:
            origin = Origin(str(sender), str(receiver), element.get("id", ""), link.settings.domain, link.settings.host)
            self.user.launch(self._tell_failure(to_uri, from_uri, page, origin))

    # ---- what rooms ask (xmpp.rooms.Doors) ----

    def later(self, waiting: Awaitable[tuple[int, str]]) -> None:
        """Have something done of which nobody waits to hear."""
        self.user.launch(_done(waiting))

    def note(self, sip: Jid, room: Jid, member: Member | None) -> None:
        """Keep that a phone is in a room, or that it is not."""
        if self.room_table is not None:
            self.user.launch(self._note(self.room_table, sip, room, member))

    async def _note(self, table: RoomTable, sip: Jid, room: Jid, member: Member | None) -> None:
        try:
            await table.note(sip, room, member)
        except DatabaseError as error:
            self.user.log_rarely("xmpp rooms", -1, f"xmpp: who is in which room is not noted: {error}")

    def named(self, text: str) -> Jid:
        """The Jabber ID that a person means by an address, of SIP or of Jabber; ``SipError``."""
        if ":" not in text or text.lower().startswith("xmpp:"):
            jid = Jid.parse(text.partition(":")[2] or text)
            if jid.domain not in self.domains.names:
                return jid
            text = f"sip:{text}"
        uri = parse_uri(text)
        try:
            return self.domains.target_to_jid(uri)
        except BadJid:
            return self.domains.user_to_jid(uri)

    def show(self, receiver: Jid, room: Jid, text: str) -> None:
        """Let a phone hear something from a room."""
        said = stanza("message", room, receiver, type="groupchat")
        SubElement(said, f"{{{COMPONENT}}}body").text = text
        self._message(self.links[receiver.domain], said, room, receiver)

    async def _tell_failure(self, receiver: str, sender: str, page: Page, origin: Origin) -> None:
        await self.sip.message(receiver, sender, page, origin)


async def _done(entering: Awaitable[tuple[int, str]]) -> None:
    await entering
