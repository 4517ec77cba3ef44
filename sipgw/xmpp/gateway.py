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
from sipgw.xmpp.room_table import RoomTable
from sipgw.xmpp.rooms import Member, Rooms
from sipgw.xmpp.roster import Roster
from sipgw.xmpp.stanza import COMPONENT, Element, SubElement, child, error_of, error_to, local_name, stanza

__all__ = ["Gateway", "GatewaySettings", "Origin", "Sip"]

ACCEPTED: Final = (202, "Accepted")
AWAY: Final = (480, "Temporarily Unavailable")
MOST_OF_PAIR: Final = 50
"""Messages between two people that wait for an answer."""
BATCH: Final = 20
"""Messages of the queue that are sent before the server is asked whether it has them."""
MOST: Final = 5000
"""Messages from Jabber that wait for an answer."""


@dataclass
class GatewaySettings:
    """What the gateway is like. ``receipts``: a Jabber client hears of receipt when a phone has answered 200 ("response"), when
    it says so in a notification ("imdn"), or never ("none"). ``composing``: tell phones who is writing."""

    receipts: str = "response"
    composing: bool = True


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
        self.links: dict[str, Link] = {}
        self.queue: Queue | None = None
        """Where messages wait while the server is away; None: they are answered 480."""
        self.roster: Roster | None = None
        """Who watches whom; None: presence goes neither way."""
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
        return await self.deliver(element, sender.domain)

    async def deliver(self, element: Element, domain: str) -> tuple[int, str]:
        """Send a stanza as ``domain``; the status that says what became of it."""
        link, queue = self.links[domain], self.queue
        kept = queue is not None and child(element, "body") is not None
        if kept and queue is not None and (not link.ready or queue.counts.get(domain)):
            return await self._keep(queue, domain, element)
        try:
            status, reason = await link.deliver(element)
        except Down as error:
            if kept and queue is not None and not error.sent:
                return await self._keep(queue, domain, element)
            self.counts["failed"] += 1
            self.user.log_rarely(("xmpp down", domain), -1, f"xmpp: {domain}: a message is not delivered: {error}")
            return AWAY
        if status != 200:
            self.counts["failed"] += 1
            return status, reason
        self.counts["sent"] += 1
        return ACCEPTED

    async def _keep(self, queue: Queue, domain: str, element: Element) -> tuple[int, str]:
        """Put a message on disk, behind those that are there."""
        if queue.is_full:
            self.counts["failed"] += 1
            self.user.log_rarely("xmpp queue", -1, f"xmpp: {queue.size} messages wait for the server: no more are taken")
            return AWAY
        now = self.user.wall_clock()
        stamp_delay(element, datetime.fromtimestamp(now, UTC), domain)
        try:
            await queue.add(domain, element, now)
        except DatabaseError as error:
            self.counts["failed"] += 1
            self.user.log_rarely("xmpp queue", -1, f"xmpp: a message cannot be kept: {error}")
            return AWAY
        self._flush(domain)
        return ACCEPTED

    def _flush(self, domain: str) -> None:
        """Send what waits, if the server is there."""
        queue = self.queue
        if queue is not None and queue.counts.get(domain) and self.links[domain].ready and domain not in self._flushing:
            self._flushing.add(domain)
            self.user.launch(self._send_kept(queue, self.links[domain]))

    async def _send_kept(self, queue: Queue, link: Link) -> None:
        domain = link.settings.domain
        try:
            while link.ready and (items := await queue.next(domain, BATCH)):
                now = self.user.wall_clock()
                sent = [(item, Deferred.fromCoroutine(self._send_one(link, item, now))) for item in items]
                gone = [item for item, done in sent if await done]
                if gone:
                    await queue.remove(gone)
                if len(gone) < len(items):
                    doubtful = len(items) - len(gone)
                    self.user.log(-1, f"xmpp: {domain}: the server went away: up to {doubtful} messages may arrive twice")
                    return
        except DatabaseError as error:
            self.user.log_rarely("xmpp queue", -1, f"xmpp: messages that wait cannot be read: {error}")
        finally:
            self._flushing.discard(domain)

    async def _send_one(self, link: Link, item: Item, now: float) -> bool:
        """Send a message of the queue; whether it can be forgotten."""
        if item.element is None:
            return True
        if item.expires <= now:
            status, reason = 408, "It has waited for too long"
        else:
            try:
                status, reason = await link.deliver(item.element)
            except Down:
                return False
        if status == 200:
            self.counts["sent"] += 1
            return True
        error = error_to(item.element, status, reason)
        if error is not None:
            self._late_error(link, error, Jid.parse(item.receiver), Jid.parse(item.sender))
        return True

    # ---- what links tell (xmpp.link.Watcher) ----

    def up(self, link: Link) -> None:
        """The server has accepted us."""
        self.user.log(2, f"xmpp: connected to {link.settings.host}:{link.settings.port} as {link.settings.domain}")
        self.tell("E_XMPP_LINK", domain=link.settings.domain, state="up", reason="")
        self._flush(link.settings.domain)
        if self.roster is not None:
            self.roster.up(link.settings.domain)
        for entering in [] if self.rooms is None else self.rooms.up(link.settings.domain):
            self.later(entering)

    def down(self, link: Link, reason: str) -> None:
        """The server is not there."""
        if not link.stopped:
            self.user.log_rarely(("xmpp link", link.settings.domain, reason), 0, f"xmpp: {link.settings.domain}: down: {reason}")
        self.tell("E_XMPP_LINK", domain=link.settings.domain, state="stopped" if link.stopped else "down", reason=reason)
        if self.roster is not None:
            self.roster.down(link.settings.domain)
        if self.rooms is not None:
            self.rooms.down(link.settings.domain)

    def came(self, link: Link, element: Element) -> None:
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

    def say(self, link: Link, element: Element | None) -> None:
        """Send a stanza of which nobody waits to hear."""
        if element is None:
            return
        try:
            link.send(element)
        except Down:
            self.counts["dropped"] += 1

    # ---- Jabber to SIP ----

    def _came_message(self, link: Link, element: Element, sender: Jid, receiver: Jid) -> None:
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

    def _message(self, link: Link, element: Element, sender: Jid, receiver: Jid) -> None:
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

    async def _work(self, link: Link, pair: tuple[str, str]) -> None:
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

    async def _bring_in(self, link: Link, element: Element) -> None:
        sender, receiver = Jid.parse(element.get("from", "")), Jid.parse(element.get("to", ""))
        settings = self.settings
        wanted = wants_receipt(element)
        try:
            to_uri, from_uri = self.domains.user_to_uri(receiver), self.domains.jid_to_uri(sender, receiver.domain)
            if not receiver.local and child(element, "body") is not None:
                raise SipError("Nobody Is There", 404)
            page = to_sip(element, from_uri, to_uri, imdn=settings.receipts == "imdn", composing=settings.composing)
        except SipError as error:
            self.counts["refused"] += 1
            self.say(link, error_to(element, error.status, error.reason))
            return
        if page is None:
            return
        origin = Origin(str(sender), str(receiver), element.get("id", ""), link.settings.domain, link.settings.host)
        status, reason = await self.sip.message(to_uri, from_uri, page, origin)
        if status == 415 and page.kind == "message/cpim" and not page.quiet:  # a phone without CPIM: plain, and its 200 must do
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

    def _late_error(self, link: Link, element: Element, sender: Jid, receiver: Jid) -> None:
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
