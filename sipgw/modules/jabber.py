"""jabber: SIP users speak in Jabber by their own accounts there; the machinery is in ``sipgw/xmpp/account.py``.

The table ``jusers`` says which account is whose. ``jab_send_message`` and its like log in with it, as a Jabber client does, when
there is something to say; what comes for that account is shown to the script as a MESSAGE, or sent to ``proxy``. The module xmpp
does all this without accounts, and is what new installations want.

COMPAT: the functions wait until the Jabber server has dealt with what they sent, and are false if it has not; OpenSIPS's are true
at once, and a second MESSAGE tells the user. ``jab_go_offline`` goes offline (OpenSIPS binds the name to jab_go_online)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred

from sipgw.db.errors import DatabaseError
from sipgw.exports import REQUEST, Module, function, mi, param, pvar, requires, statistic
from sipgw.interfaces import Database
from sipgw.modules._message_port import send_page
from sipgw.script.run import Run
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request
from sipgw.xmpp.account import Account, AccountSettings, Credentials
from sipgw.xmpp.address import BadJid, Jid, parse_uri
from sipgw.xmpp.aliases import Aliases, Place
from sipgw.xmpp.deliveries import Down
from sipgw.xmpp.disco import answer
from sipgw.xmpp.encryption import Encryption
from sipgw.xmpp.message import Page, is_carbon, receipt, to_sip, to_stanza, wants_receipt
from sipgw.xmpp.stanza import COMPONENT, Element, SubElement, child, error_of, error_to, local_name, stanza, text_of

TABLE: Final = "jusers"
RESOURCE: Final = "sip"
MUC: Final = "http://jabber.org/protocol/muc"
ROSTER: Final = "jabber:iq:roster"
_RESULT = "jabber result"
_NO_WORKERS = "sipgw has no processes that speak with Jabber and might end"


def tls_word(value: str) -> None:
    """Refuse what is none of the four words."""
    if value not in ("no", "optional", "required", "verified"):
        raise ValueError("write 'no', 'optional', 'required' or 'verified'")


def priority_number(value: str) -> None:
    """Refuse what is no priority (RFC 6121 4.7.2.3)."""
    if not value.lstrip("-").isdigit() or not -128 <= int(value) <= 127:
        raise ValueError("write a number from -128 to 127")


@dataclass
class _Room:
    """A room that an account has entered as ``nick``; ``uri`` is how its phone writes it."""

    nick: str
    uri: str
    entered: bool = False
    waiting: list[Deferred[tuple[int, str]]] = field(default_factory=list)

    def end(self, status: int, reason: str) -> None:
        """Tell who waits for the room's word."""
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            if not each.called:
                each.callback((status, reason))


class Jabber(Module):
    """Lets SIP users speak in Jabber by accounts of their own."""

    name = "jabber"

    tm: Any = requires("tm")

    db_url: str = param("", "The database with the table jusers; empty: db_default_url")
    jaddress: str = param("127.0.0.1", "The host of the Jabber server, and its domain where jab_id has none")
    jport: int = param(5222, "The port that it has for clients")
    jdomain: str = param("", "The host that stands for Jabber in SIP, and what is between user and server: jabber.example=*")
    aliases: str = param("", "Hosts that stand for themselves, such as those of transports: 2;icq.example=%;msn.example;")
    proxy: str = param("", "host:port that messages from Jabber are sent to; empty: the script's own routes see them")
    registrar: str = param("jabber_gateway@127.0.0.1", "In whose name phones are told what has happened")
    priority: str = param("9", "The priority of our presence", check=priority_number)
    workers: int = param(2, "With max_jobs: how many accounts may be online at a time", check=lambda value: _positive(value))
    max_jobs: int = param(10, "Accounts online for each of workers", check=lambda value: _positive(value))
    cache_time: int = param(600, "Seconds of silence after which an account goes offline")
    delay_time: int = param(90, "Seconds that a message waits until a room is entered")
    sleep_time: int = param(20, "Between looking for silent accounts", unused="an account goes offline when cache_time is over")
    check_time: int = param(20, "Between looking for dead workers", unused=_NO_WORKERS)
    tls: str = param(
        "optional", "TLS: 'no', 'optional', 'required', 'verified'; only with the last a password may be said plainly",
        check=tls_word,
    )
    tls_ca: str = param("", "A PEM file with authorities for 'verified'; empty: those that the system trusts")
    response_timeout: int = param(10, "Seconds that the server may take to deal with what it was sent")

    jabber_online = statistic("accounts that are online", read="_online")
    jabber_sent = statistic("messages that the Jabber server has taken")
    jabber_received = statistic("messages that came from it")
    jabber_failed = statistic("messages, either way, that did not arrive")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.names = Aliases("")
        self.database: Database | None = None
        self.settings = AccountSettings("", 0)
        self.accounts: dict[str, Account] = {}
        super().__init__(server, **parameters)

    async def start(self) -> None:
        """Open the table; nobody is online before he says something."""
        if not self.jdomain:
            raise ValueError("jabber needs jdomain")
        self.names = Aliases.read(self.jdomain, self.aliases)
        self.settings = AccountSettings(
            self.jaddress, self.jport, self.tls, Encryption([self.names.jdomain], ca=self.tls_ca), RESOURCE, int(self.priority),
            float(self.response_timeout), float(max(1, self.cache_time)),
        )
        self.database = await self.server.databases.open(self.db_url)
        await self.server.databases.check(self.database, TABLE, 1)

    async def stop(self) -> None:
        """Let all go offline."""
        for account in list(self.accounts.values()):
            await account.close()

    # ---- accounts ----

    async def _account(self, owner: str) -> Account:
        """The account of a SIP user, online; ``SipError``."""
        found = self.accounts.get(owner)
        if found is None:
            credentials = await self._credentials(owner)
            found = self.accounts.get(owner)  # who asked at the same time may have been faster
            if found is None:
                if len(self.accounts) >= self.workers * self.max_jobs:
                    raise SipError("Too Many Accounts Are Online", 503)
                found = self.accounts[owner] = Account(self.settings, self.server.reactor, owner, credentials, self)
        try:
            await found.open()
        except Down as error:
            if self.accounts.get(owner) is found:
                del self.accounts[owner]
            self.server.user.log_rarely(("jabber", owner), -1, f"jabber: {found.jid.bare}: {error}")
            raise SipError("Temporarily Unavailable", 480) from None
        return found

    async def _credentials(self, owner: str) -> Credentials:
        assert self.database is not None
        try:
            rows = await self.database.select(TABLE, ("jab_id", "jab_passwd"), {"sip_id": owner, "type": 0}, limit=1)
        except DatabaseError as error:
            self.server.user.log_rarely("jabber jusers", -1, f"jabber: jusers cannot be read: {error}")
            raise SipError("Temporarily Unavailable", 480) from None
        if not rows:
            raise SipError("No Account", 403)
        name, password = rows[0]
        try:
            jid = Jid.parse(name if "@" in name else f"{name}@{self.jaddress}")
        except BadJid:
            raise SipError("No Account", 403) from None
        return Credentials(jid.local, jid.domain, password or "")

    def gone(self, account: Account, reason: str) -> None:
        """An account is offline (xmpp.account.Watcher)."""
        if self.accounts.get(account.owner) is account:
            del self.accounts[account.owner]
        for room in account.rooms.values():
            room.end(480, "Temporarily Unavailable")
        if reason not in ("stopped", "asked"):
            self._tell(account, f"You are offline in Jabber now, and out of all rooms: {reason}")

    def _tell(self, account: Account, text: str, sender: str = "") -> None:
        """Say something to a phone."""
        gateway = self.registrar if self.registrar.startswith("sip:") else f"sip:{self.registrar}"
        page = Page("", "text/plain;charset=utf-8", text.encode("utf-8", "replace"), quiet=True)
        self.server.user.launch(self._bring_in(account, sender or gateway, page, None))

    # ---- from Jabber ----

    def came(self, account: Account, element: Element) -> None:
        """A stanza came for an account (xmpp.account.Watcher)."""
        try:
            sender = Jid.parse(element.get("from", "") or str(account.jid.bare))
        except BadJid:
            return
        name = local_name(element)
        if name == "message" and not is_carbon(element):
            self._message(account, element, sender)
        elif name == "presence":
            self._presence(account, element, sender)
        elif name == "iq":
            self._iq(account, element)

    def _iq(self, account: Account, element: Element) -> None:
        if element.get("type") == "set" and child(element, "query", ROSTER) is not None:
            said: Element | None = stanza("iq", "", element.get("from", ""), id=element.get("id", ""), type="result")
        else:
            said = answer(element, account.jid)
        self._say(account, said)

    def _say(self, account: Account, element: Element | None) -> None:
        if element is not None:
            element.attrib.pop("from", None)  # the server writes whose it is
            try:
                account.send(element)
            except Down:
                pass

    def _presence(self, account: Account, element: Element, sender: Jid) -> None:
        """Subscriptions are allowed, as OpenSIPS does; of rooms it is said whether the account is in."""
        kind, room = element.get("type", ""), account.rooms.get(sender.bare)
        if kind == "subscribe" and room is None:
            self._say(account, stanza("presence", "", sender.bare, type="subscribed"))
        if room is None or (kind != "error" and sender.resource != room.nick):
            return
        if kind == "error":
            account.rooms.pop(sender.bare, None)
            room.end(*error_of(element))
        elif kind == "unavailable":
            account.rooms.pop(sender.bare, None)
            room.end(480, "No Longer In The Room")
            self._tell(account, "You are no longer in the room", room.uri)
        else:
            room.entered = True
            room.end(200, "OK")

    def _message(self, account: Account, element: Element, sender: Jid) -> None:
        room = account.rooms.get(sender.bare)
        uri = self.names.uri(sender.bare) if room is None else room.uri
        if element.get("type") == "error":
            _, reason = error_of(element)
            self.jabber_failed.inc()
            self._tell(account, f"A message of yours did not arrive: {reason}", uri)
            return
        if room is not None:
            if sender.resource == room.nick:
                return
            body = text_of(element, "body")
            if not body:
                return
            said = stanza("message", sender, account.jid, id=element.get("id", ""), type="groupchat")
            SubElement(said, f"{{{COMPONENT}}}body").text = f"[{sender.resource}] {body}" if sender.resource else body
            element = said
        try:
            page = to_sip(element, uri, account.owner)
        except SipError as error:
            self._say(account, error_to(element, error.status, error.reason))
            return
        if page is not None:
            self.server.user.launch(self._bring_in(account, uri, page, element))

    async def _bring_in(self, account: Account, sender: str, page: Page, element: Element | None) -> None:
        """Let a phone have a text; ``element``: what it came from."""
        proxy = "" if not self.proxy else f"sip:{self.proxy.removeprefix('sip:')}"
        status, reason = await send_page(
            self.server.user, account.owner, sender, page, proxy=proxy, transport="jabber", host="127.0.0.1", origin=account.jid
        )
        if element is None or page.quiet:
            return
        self.jabber_received.inc()
        if status >= 300:
            self.jabber_failed.inc()
        if element.get("type") == "groupchat":
            return
        if status >= 300:
            self._say(account, error_to(element, status, reason))
        elif status == 200 and wants_receipt(element):
            self._say(account, receipt(element))

    # ---- to Jabber ----

    def _owner(self, request: Request) -> str:
        """The address of record of who writes, as ``jusers`` has it."""
        uri = request.from_.uri
        return f"sip:{uri.user}@{uri.host}"

    def _place(self, run: Run, request: Request) -> tuple[Place, str]:
        """What a request is for, and how it writes that: the URI that the script has made, the Request-URI, or To."""
        for text in (run.uri, request.uri, request.to.uri_text):
            uri = parse_uri(text) if text else None
            if uri is not None and uri.is_sip and self.names.serves(uri):
                return self.names.place(uri), f"sip:{uri.user}@{uri.host}"
        raise SipError("Not A Jabber Address", 404)

    async def _done(self, run: Run, result: Any) -> bool:
        """Keep what came of something for ``$jabber.status``."""
        try:
            found: tuple[int, str] = await result
        except SipError as error:
            found = (error.status, error.reason)
        run.keep()[_RESULT] = found
        return found[0] < 300

    @function(REQUEST)
    async def jab_send_message(self, run: Run) -> bool:
        """Send the text of a MESSAGE from the sender's account to the Jabber user, or into the room, that the Request-URI or To
        stands for; true when the Jabber server has taken it. He who is offline is online afterwards. ``$jabber.status`` and
        ``$jabber.reason`` are what to answer."""
        return await self._done(run, self._send(run))

    async def _send(self, run: Run) -> tuple[int, str]:
        request = run.message
        assert isinstance(request, Request)
        if request.method != "MESSAGE":
            return 405, "Method Not Allowed"
        place, _ = self._place(run, request)
        account = await self._account(self._owner(request))
        element = to_stanza(request, account.jid, place.jid, self.server.user.wall_clock())
        if element is None:
            return 202, "Accepted"
        if place.nick is not None:
            room = account.rooms.get(place.jid)
            if room is None:
                return 403, "Not In This Room"
            if not room.entered:
                await self._entered(room)
            body = text_of(element, "body")
            element = stanza("message", account.jid, place.jid, id=element.get("id", ""), type="groupchat")
            SubElement(element, f"{{{COMPONENT}}}body").text = body
        try:
            status, reason = await account.deliver(element)
        except Down:
            status, reason = 480, "Temporarily Unavailable"
        (self.jabber_sent if status == 200 else self.jabber_failed).inc()
        return (202, "Accepted") if status == 200 else (status, reason)

    async def _entered(self, room: _Room) -> tuple[int, str]:
        """Wait for the room's word."""
        waiting: Deferred[tuple[int, str]] = Deferred()
        room.waiting.append(waiting)
        waiting.addTimeout(float(self.delay_time), self.server.reactor, lambda _result, _time: (408, "The room does not answer"))
        return await waiting

    @function(REQUEST)
    async def jab_join_jconf(self, run: Run) -> bool:
        """Enter the room that the Request-URI or To stands for, nick*room*server@jdomain; without a nick as the SIP user."""
        return await self._done(run, self._join(run))

    async def _join(self, run: Run) -> tuple[int, str]:
        request = run.message
        assert isinstance(request, Request)
        place, uri = self._place(run, request)
        if place.nick is None:
            return 404, "Not A Room"
        account = await self._account(self._owner(request))
        nick = place.nick or request.from_.uri.user or "sip"
        if place.jid in account.rooms and account.rooms[place.jid].entered:
            return 202, "Accepted"
        try:
            Jid.parse(f"{place.jid}/{nick}")
        except BadJid:
            return 400, "Bad Name"
        room = account.rooms[place.jid] = _Room(nick, uri)
        presence = stanza("presence", "", Jid(place.jid.local, place.jid.domain, nick))
        SubElement(presence, f"{{{MUC}}}x")
        self._say(account, presence)
        status, reason = await self._entered(room)
        if status >= 300:
            account.rooms.pop(place.jid, None)
        return (202, "Accepted") if status < 300 else (status, reason)

    @function(REQUEST)
    async def jab_exit_jconf(self, run: Run) -> bool:
        """Leave the room that the Request-URI or To stands for; false if the sender is not in it."""
        return await self._done(run, self._exit(run))

    async def _exit(self, run: Run) -> tuple[int, str]:
        request = run.message
        assert isinstance(request, Request)
        place, _ = self._place(run, request)
        account = self.accounts.get(self._owner(request))
        room = None if account is None else account.rooms.pop(place.jid, None)
        if account is None or room is None:
            return 404, "Not In This Room"
        self._say(account, stanza("presence", "", Jid(place.jid.local, place.jid.domain, room.nick), type="unavailable"))
        return 202, "Accepted"

    @function(REQUEST)
    async def jab_go_online(self, run: Run) -> bool:
        """Let the sender's account be online; true when it is."""
        return await self._done(run, self._go_online(run))

    async def _go_online(self, run: Run) -> tuple[int, str]:
        assert isinstance(run.message, Request)
        await self._account(self._owner(run.message))
        return 202, "Accepted"

    @function(REQUEST)
    async def jab_go_offline(self, run: Run) -> bool:
        """Let the sender's account be offline; false if it was."""
        return await self._done(run, self._go_offline(run))

    async def _go_offline(self, run: Run) -> tuple[int, str]:
        assert isinstance(run.message, Request)
        account = self.accounts.get(self._owner(run.message))
        if account is None:
            return 404, "Not Online"
        await account.close("asked")
        return 202, "Accepted"

    @pvar("jabber.status")
    def status(self, run: Run) -> int | None:
        """``$jabber.status``: what to answer after one of the functions; null before."""
        found = None if run.context is None else run.context.get(_RESULT)
        return None if found is None else int(found[0])

    @pvar("jabber.reason")
    def reason(self, run: Run) -> str | None:
        """``$jabber.reason``: the words that go with ``$jabber.status``."""
        found = None if run.context is None else run.context.get(_RESULT)
        return None if found is None else str(found[1])

    # ---- management ----

    @mi("list", module="jabber")
    def list_accounts(self) -> dict[str, Any]:
        """Who is online, as whom, since when, in which rooms."""
        now = self.server.reactor.seconds()
        return {"Accounts": [
            {
                "sip": owner, "jabber": str(each.jid), "online": each.ready,
                "seconds": int(now - each.since) if each.ready else 0,
                "rooms": [f"{room}/{entry.nick}" for room, entry in each.rooms.items()],
            }
            for owner, each in self.accounts.items()
        ]}

    def _online(self) -> int:
        return sum(each.ready for each in self.accounts.values())


def _positive(value: int) -> None:
    if value < 1:
        raise ValueError("write a number above 0")
