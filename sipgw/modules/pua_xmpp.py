"""pua_xmpp: SIP users and Jabber users see each other; the machinery is in ``sipgw/xmpp/roster.py`` and ``sipgw/presence``.

``pua_xmpp_subscribe`` takes the SUBSCRIBE of a phone for a Jabber user: that one is asked, and the phone is told (NOTIFY, PIDF)
what is known from then on. With ``phones`` 1 Jabber users see who has a phone registered. OpenSIPS's module needs its presence
server for both; this one needs none."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from sipgw.db.errors import DatabaseError
from sipgw.exports import REQUEST, Module, function, mi, param, requires, statistic
from sipgw.interfaces import Change, Database
from sipgw.presence.subscriptions import Subscriptions
from sipgw.proxy.forward import NoWay
from sipgw.proxy.originate import originate
from sipgw.script.run import Run
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request, Response
from sipgw.sip.pidf import PIDF, Pidf, Tuple
from sipgw.xmpp.address import Jid, escape, parse_uri, unescape
from sipgw.xmpp.gateway import Gateway
from sipgw.xmpp.link import Down
from sipgw.xmpp.roster import Pair, Roster
from sipgw.xmpp.stanza import Element

TABLE, VERSION = "xmpp_watchers", 1
_NO_PUBLISH = "it is where OpenSIPS's module sends PUBLISH; sipgw tells phones by itself and sends none"


class _Registrations:
    """Hears of phones that register and go (``core.events.Sink``)."""

    def __init__(self, module: PuaXmpp) -> None:
        self._module = module

    def send(self, _event: str, params: Any) -> bool:
        """The first contact of a user was bound, or the last one is gone."""
        aor = params.get("aor") if isinstance(params, Mapping) else None
        if aor:
            self._module.registration(str(aor))
        return True


class PuaXmpp(Module):
    """Lets phones and Jabber users see each other."""

    name = "pua_xmpp"

    xmpp: Any = requires("xmpp")
    tm: Any = requires("tm")
    usrloc: Any = requires("usrloc", optional=True)

    server_address: str = param("", "The address that our requests bear", unused="they bear those of the people they are about")
    presence_server: str = param("", "The presence server", unused=_NO_PUBLISH)
    phones: int = param(0, "Show Jabber users who of ours has a phone registered, to whoever asks (needs usrloc)")
    keep_watchers: int = param(0, "Keep in the table xmpp_watchers who watches, so that a restart tells them who is there again")
    db_url: str = param("", "The database with that table; empty: db_default_url")
    location_table: str = param("location", "The table of usrloc that tells it")

    pua_xmpp_subscriptions = statistic("subscriptions of phones to Jabber users", read="_subscriptions")
    pua_xmpp_watchers = statistic("Jabber users who watch SIP users", read="_watchers")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.subscriptions: Subscriptions | None = None
        self.roster: Roster | None = None
        self.database: Database | None = None
        super().__init__(server, **parameters)

    # ---- the beginning and the end ----

    async def start(self) -> None:
        """Join the gateway of the module xmpp."""
        if self.phones and self.usrloc is None:
            raise ValueError("phones 1 needs the module usrloc")
        user = self.server.user
        self.subscriptions = Subscriptions(user, self._send, self, PIDF)
        roster = self.roster = Roster(self, self._registered if self.phones else None)
        gateway = self._gateway()
        if self.phones and self.keep_watchers:
            await self._open(roster)
        gateway.roster = roster
        for link in gateway.links.values():
            if link.ready:
                roster.up(link.settings.domain)
        if self.phones:
            self.usrloc.table(self.location_table)
            for name in ("E_UL_AOR_INSERT", "E_UL_AOR_DELETE"):
                user.events.join(user.events.publish(name), "pua_xmpp", _Registrations(self))

    async def _open(self, roster: Roster) -> None:
        """Read who watches."""
        database = self.database = await self.server.databases.open(self.db_url)
        await self.server.databases.check(database, TABLE, VERSION)
        for sip, jabber in await database.select(TABLE, ("sip", "jabber")):
            roster.admit(Pair(Jid.parse(sip), Jid.parse(jabber)))

    async def stop(self) -> None:
        """Tell phones that we leave; Jabber is told by the gateway."""
        if self.subscriptions is not None:
            self.subscriptions.end_all("deactivated")

    def _gateway(self) -> Gateway:
        gateway = self.xmpp.gateway
        assert isinstance(gateway, Gateway)
        return gateway

    # ---- phones that are registered ----

    def _registered(self, jid: Jid) -> bool:
        user = unescape(jid.local)
        aor = user
        if self.usrloc.use_domain:
            aor = self._gateway().domains.user_to_uri(jid).partition(":")[2]
        table = self.usrloc.table(self.location_table)
        return bool(table.live(aor, self.server.user.clock()))

    def registration(self, aor: str) -> None:
        """A user has got a phone, or lost the last one."""
        roster = self.roster
        if roster is None:
            return
        user, _, domain = aor.partition("@")
        domains = self._gateway().domains
        try:
            if domain:
                roster.tell(domains.user_to_jid(parse_uri(f"sip:{aor}")))
            else:
                for name in domains.jabber:
                    roster.tell(Jid(escape(user), name))
        except SipError:
            pass  # a user whom Jabber cannot name

    # ---- what the roster tells (xmpp.roster.Doors) ----

    def say(self, element: Element) -> None:
        """Send a stanza, if the server is there; it is asked and told anew when it comes back."""
        link = self._gateway().links.get(Jid.parse(element.get("from", "")).domain)
        if link is not None:
            try:
                link.send(element)
            except Down:
                pass

    def changed(self, pair: Pair) -> None:
        """What is known of a Jabber user has changed."""
        if self.subscriptions is not None:
            self.subscriptions.changed(pair)

    def watching(self, pair: Pair, on: bool) -> None:
        """A Jabber user watches a SIP user, or no more."""
        if self.database is not None:
            id = hashlib.sha256(f"{pair.sip} {pair.jabber}".encode()).hexdigest()
            row = {"id": id, "sip": str(pair.sip), "jabber": str(pair.jabber)}
            change = Change("replace", TABLE, row, keys=("id",)) if on else Change("delete", TABLE, where={"id": id})
            self.server.user.launch(self._note(self.database, change))

    async def _note(self, database: Database, change: Change) -> None:
        try:
            await database.batch([change])
        except DatabaseError as error:
            self.server.user.log_rarely("xmpp watchers", -1, f"pua_xmpp: who watches is not noted: {error}")

    # ---- what subscriptions ask (presence.subscriptions.Source) ----

    def told(self, key: Any) -> tuple[str, bytes, str]:
        """The state of a subscription and a document about the Jabber user."""
        assert self.roster is not None
        state, devices = self.roster.seen(key)
        if state == "rejected":
            return "terminated;reason=rejected", b"", ""
        if state == "pending":
            return state, b"", ""
        entity = self._gateway().domains.jid_to_uri(key.jabber, key.sip.domain)
        tuples = [each._replace(contact=entity) for each in devices] or [Tuple("none", False)]
        return state, Pidf(f"pres:{entity.partition(':')[2]}", tuples).write(), PIDF

    def wanted(self, key: Any) -> None:
        """A phone wants to see a Jabber user."""
        assert self.roster is not None
        self.roster.watch(key)

    def unwanted(self, key: Any) -> None:
        """No phone does any more."""
        assert self.roster is not None
        self.roster.unwatch(key)

    async def _send(
        self, request: Request, answer: Callable[[int, Response | None], None], next_hop: str, socket: Any
    ) -> None:
        try:
            await originate(self.server.user, request, answer, next_hop=next_hop, socket=socket)
        except NoWay as error:
            raise SipError(str(error), error.status) from None

    # ---- functions ----

    @function(REQUEST)
    def pua_xmpp_subscribe(self, run: Run) -> bool:
        """Take a SUBSCRIBE (Event: presence) for the Jabber user that the Request-URI stands for, or one that refreshes or ends a
        subscription taken before, and answer it. False if it was refused, which has been said too."""
        request = run.message
        assert isinstance(request, Request)
        if self.subscriptions is None or request.method != "SUBSCRIBE":
            self.server.user.reply(run, 405, "Method Not Allowed")
            return False
        target = run.uri or request.uri

        def find(request: Request) -> Pair:
            domains = self._gateway().domains
            return Pair(domains.user_to_jid(request.from_.uri).bare, domains.target_to_jid(parse_uri(target)).bare)

        return self.subscriptions.take(run, find)

    # ---- management ----

    @mi("roster", module="pua_xmpp")
    def list_roster(self) -> dict[str, Any]:
        """Who watches whom: phones with what they are told, Jabber users with whom they see."""
        roster = self.roster
        if roster is None:
            return {"Watched": [], "Watchers": []}
        watched = []
        for pair in roster.watched:
            state, devices = roster.seen(pair)
            shown = [f"{each.id}: {each.show or 'available'}" for each in devices]
            watched.append({"sip": str(pair.sip), "jabber": str(pair.jabber), "state": state, "devices": shown})
        watchers = [{"sip": str(sip), "jabber": sorted(map(str, them))} for sip, them in roster.watchers.items()]
        return {"Watched": watched, "Watchers": watchers}

    def _subscriptions(self) -> int:
        return 0 if self.subscriptions is None else self.subscriptions.count

    def _watchers(self) -> int:
        return 0 if self.roster is None else sum(map(len, self.roster.watchers.values()))
