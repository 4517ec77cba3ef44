"""pua_xmpp: SIP users and Jabber users see each other; the machinery is in ``sipgw/xmpp`` and ``sipgw/presence``.

``pua_xmpp_subscribe`` takes the SUBSCRIBE of a phone for a Jabber user: that one is asked, and the phone is told (NOTIFY, PIDF)
what is known from then on. A Jabber user who wants to see a SIP user makes us subscribe; ``pua_xmpp_notify`` takes the NOTIFYs.
With ``phones`` a registered phone is enough to be seen. With a presence server ``pua_xmpp_req_winfo`` does what OpenSIPS's does:
the server tells who watches, and is told by PUBLISH."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sipgw.exports import REQUEST, Module, function, mi, param, requires, statistic
from sipgw.mi.jsonrpc import MIError
from sipgw.modules._pua_xmpp_consent import Consent
from sipgw.modules._pua_xmpp_rows import SUBSCRIPTIONS, WATCHERS, Rows
from sipgw.modules._pua_xmpp_sip import Inquiry, Settings, SipSide
from sipgw.modules._pua_xmpp_winfo import Inquiries, document
from sipgw.modules.xmpp import one_of
from sipgw.presence.subscriptions import Subscriptions
from sipgw.proxy.forward import NoWay
from sipgw.proxy.originate import originate
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.message import Request, Response
from sipgw.sip.pidf import PIDF, Tuple
from sipgw.sip.uri import Uri
from sipgw.sip.winfo import Winfo
from sipgw.xmpp.address import BadJid, Jid, escape, parse_uri, unescape
from sipgw.xmpp.gateway import Gateway
from sipgw.xmpp.link import Down
from sipgw.xmpp.roster import Pair, Roster, Rules
from sipgw.xmpp.stanza import Element

SETTLING: Final = 3.0
"""Seconds that an XMPP server has to tell who is there, after it has come back."""
FIRST: Final = 1.0
"""Seconds until we subscribe after the start, when the sockets are open."""


class _Registrations:
    """Hears of phones that register and go (``core.events.Sink``)."""

    def __init__(self, module: PuaXmpp) -> None:
        self._module = module

    def send(self, event: str, params: Any) -> bool:
        """The first contact of a user was bound, or the last one is gone."""
        aor = params.get("aor") if isinstance(params, Mapping) else None
        if aor:
            self._module.registration(str(aor), event == "E_UL_AOR_INSERT")
        return True


def sip_uri(value: str) -> None:
    """Refuse what is no SIP URI; empty is none."""
    if value:
        try:
            uri = Uri.parse(value)
        except MalformedMessage:
            uri = None
        if uri is None or not uri.is_sip or any(char in value for char in "\r\n\0<>"):
            raise ValueError(f"{value!r} is no SIP URI")


def between(least: int, most: int) -> Callable[[int], None]:
    """A check that allows only what lies between."""

    def check(value: int) -> None:
        if not least <= value <= most:
            raise ValueError(f"write a number from {least} to {most}")

    return check


class PuaXmpp(Module):
    """Lets phones and Jabber users see each other."""

    name = "pua_xmpp"

    xmpp: Any = requires("xmpp")
    tm: Any = requires("tm")
    usrloc: Any = requires("usrloc", optional=True)
    uac_auth: Any = requires("uac_auth", optional=True)

    server_address: str = param(
        "", "The Contact of our requests, a URI that leads here; empty: the Jabber user at our first socket", check=sip_uri
    )
    presence_server: str = param(
        "", "The proxy that SUBSCRIBE and PUBLISH are sent to; empty: the script's own routes see them", check=sip_uri
    )
    phones: int = param(
        0, "What Jabber users see of SIP users: 0, what these say themselves, by SUBSCRIBE; 1, whether a phone is registered "
        "(needs usrloc); 2, both", check=between(0, 2),
    )
    approval: str = param(
        "all", "Who may see that a phone is registered: 'all' who ask, but whom the SIP user denies; 'ask', whom she allows",
        check=one_of("all", "ask"),
    )
    approval_text: str = param(
        "%s would like to see whether you are there. Answer #allow or #deny.", "How a SIP user is asked; %s is who wants to know"
    )
    subscribe_expires: int = param(3600, "Seconds that our subscriptions and publications are to live", check=between(60, 86400))
    keep_watchers: int = param(
        0, "Keep in the tables xmpp_watchers and xmpp_subscriptions who watches whom, so that a restart ends nothing"
    )
    db_url: str = param("", "The database with those tables; empty: db_default_url")
    location_table: str = param("location", "The table of usrloc that tells it")

    pua_xmpp_subscriptions = statistic("subscriptions of phones to Jabber users", read="_subscriptions")
    pua_xmpp_watchers = statistic("Jabber users who watch SIP users", read="_watchers")
    pua_xmpp_held = statistic("subscriptions of ours to SIP users", read="_held")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.subscriptions: Subscriptions | None = None
        self.roster: Roster | None = None
        self.sip: SipSide | None = None
        self.rows: Rows | None = None
        self.consent: Consent | None = None
        self.inquiries: Inquiries | None = None
        self.leaving = False
        self._reasons: dict[Pair, set[str]] = {}
        """Why a Jabber user is watched."""
        super().__init__(server, **parameters)

    # ---- the beginning and the end ----

    async def start(self) -> None:
        """Join the gateway of the module xmpp."""
        user, gateway = self.server.user, self._gateway()
        if self.phones:
            self._need_contacts()
        if self.approval == "ask" and not (self.phones and self.keep_watchers):
            raise ValueError('approval "ask" needs phones, and keep_watchers 1: who was allowed must outlive a restart')
        rules = Rules(self.phones != 1, self._registered if self.phones else None, self.approval == "ask")
        self.subscriptions = Subscriptions(user, self._send, self, PIDF)
        roster = self.roster = Roster(self, rules)
        settings = Settings(self.server_address, self.presence_server, self.subscribe_expires)
        sip = self.sip = SipSide(user, gateway, self, self.uac_auth, settings)
        self.inquiries = Inquiries(user, sip, roster, gateway.domains, self)
        if self.phones:
            consent = self.consent = Consent(user, gateway, roster.watchers, self._registered, self.approval_text)
            gateway.decided = consent.heard
        if self.keep_watchers:
            await self._open(roster, sip)
        gateway.roster = roster
        for link in gateway.links.values():
            if link.ready:
                roster.up(link.settings.domain)
        if self.usrloc is not None:
            for name in ("E_UL_AOR_INSERT", "E_UL_AOR_DELETE"):
                user.events.join(user.events.publish(name), "pua_xmpp", _Registrations(self))

    def _need_contacts(self) -> None:
        """See that we can know who has a phone."""
        if self.usrloc is None:
            raise ValueError(f"phones {self.phones} needs the module usrloc")
        if self.usrloc.mode.remote:
            raise ValueError(
                f"phones {self.phones} needs to know at each moment who is registered, and usrloc ({self.usrloc.mode.cluster}) "
                "keeps no contacts in memory here: use another working mode of usrloc, or phones 0"
            )
        self.usrloc.table(self.location_table)

    async def _open(self, roster: Roster, sip: SipSide) -> None:
        """Go on where we were before a restart."""
        database = await self.server.databases.open(self.db_url)
        for table, version in (WATCHERS, SUBSCRIPTIONS):
            await self.server.databases.check(database, table, version)
        rows = self.rows = Rows(self.server.user, database)
        for one, other, state, shown in await database.select(WATCHERS[0], ("sip", "jabber", "state", "shown")):
            try:
                roster.watchers.admit(Pair(Jid.parse(one), Jid.parse(other)), state, json.loads(shown or "[]"))
            except (BadJid, ValueError):
                continue  # a row that nobody of us wrote
        columns = ("id", "kind", "sip", "jabber", "state")
        for id, kind, one, other, state in await database.select(SUBSCRIPTIONS[0], columns):
            if not self._resume(kind, one, other, state):
                rows.forget(id)
        if roster.watchers.rules.subscribe:
            self.server.user.after(FIRST, lambda _now: self._seek_all(roster, sip))

    def _resume(self, kind: str, one: str, other: str, state: str) -> bool:
        """Go on with a subscription; false if that cannot be."""
        assert self.subscriptions is not None and self.sip is not None and self.inquiries is not None and self.roster is not None
        try:
            if kind == "winfo":
                self.inquiries.known.setdefault(Inquiry(other), {})
                return self.sip.resume(Inquiry(other), state)
            pair = Pair(Jid.parse(one), Jid.parse(other))
        except BadJid:
            return False
        if kind == "phone":
            if not self.subscriptions.resume(pair, state):
                return False
            self.want(pair, "phone")
            return True
        watched = self.roster.watchers.state(pair) not in ("", "denied")
        return kind == "held" and watched and self.roster.watchers.rules.subscribe and self.sip.resume(pair, state)

    def _seek_all(self, roster: Roster, sip: SipSide) -> None:
        """Subscribe to those whose subscription has not outlived the restart."""
        for pair, (state, _) in roster.watchers.summary().items():
            if state != "denied" and pair not in sip.watcher.held and not self.leaving:
                sip.seek(pair)

    async def stop(self) -> None:
        """Tell phones that we leave; Jabber is told by the gateway."""
        self.leaving = True
        if self.subscriptions is not None and self.sip is not None:
            if self.rows is not None:
                self.subscriptions.all_changed()
            else:
                self.subscriptions.end_all("deactivated")
            self.sip.leave(self.rows is not None)
        if self.rows is not None:
            await self.rows.flush()

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

    def registration(self, aor: str, here: bool) -> None:
        """A user has got a phone, or lost the last one."""
        roster = self.roster
        if roster is None:
            return
        user, _, domain = aor.partition("@")
        domains = self._gateway().domains
        try:
            if domain:
                roster.watchers.phone(domains.user_to_jid(parse_uri(f"sip:{aor}")), here)
            else:
                for name in domains.jabber:
                    roster.watchers.phone(Jid(escape(user), name), here)
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
        if self.subscriptions is not None and self.inquiries is not None:
            self.subscriptions.changed(pair)
            self.inquiries.changed(pair)

    def settle(self, domain: str) -> None:
        """A server has come back: give it a moment to tell who is there."""
        self.server.user.after(SETTLING, lambda _now: self.roster.settled(domain) if self.roster is not None else None)

    def watching(self, pair: Pair, state: str, shown: Sequence[str]) -> None:
        """Keep that a Jabber user watches a SIP user, or does no more."""
        if self.rows is not None and not self.leaving:
            self.rows.watcher(pair, state, json.dumps(list(shown)))

    def seek(self, pair: Pair) -> None:
        """Subscribe to a SIP user."""
        if self.sip is not None:
            self.sip.seek(pair)

    def release(self, pair: Pair) -> None:
        """Unsubscribe."""
        if self.sip is not None:
            self.sip.release(pair)

    def ask(self, pair: Pair) -> None:
        """Ask a SIP user who may see her."""
        if self.consent is not None:
            self.consent.ask(pair)

    def trusts(self, pair: Pair) -> bool:
        """Whether she watches who asks."""
        return "phone" in self._reasons.get(pair, ())

    # ---- what the SIP side tells (_pua_xmpp_sip.Module) ----

    def present(self, pair: Pair, state: str, reason: str, tuples: list[Tuple] | None) -> None:
        """What a NOTIFY says of a SIP user."""
        assert self.roster is not None
        self.roster.watchers.told(pair, state, reason, tuples)

    def refused(self, pair: Pair, status: int) -> bool:
        """A SIP user cannot be subscribed to; whether to try again."""
        assert self.roster is not None
        return self.roster.watchers.failed(pair, status)

    def informed(self, inquiry: Inquiry, told: Winfo | None) -> None:
        """Who watches a Jabber user at the presence server."""
        if told is not None and self.inquiries is not None:
            self.inquiries.informed(inquiry, told)

    def kept(self, key: Pair | Inquiry, text: str | None) -> None:
        """Keep a subscription of ours."""
        if self.rows is None:
            return
        if isinstance(key, Inquiry):
            self.rows.subscription("winfo", key.uri, "", key.uri, text)
        else:
            self.rows.subscription("held", f"{key.sip} {key.jabber}", str(key.sip), str(key.jabber), text)

    # ---- what subscriptions of phones ask (presence.subscriptions.Source) ----

    def told(self, key: Any) -> tuple[str, bytes, str]:
        """The state of a subscription and a document about the Jabber user."""
        assert self.roster is not None
        state, devices = self.roster.seen(key)
        if state == "rejected":
            return "terminated;reason=rejected", b"", ""
        if state == "pending" and not self.leaving:
            return state, b"", ""
        entity = self._gateway().domains.jid_to_uri(key.jabber, key.sip.domain)
        return state, document(entity, [] if self.leaving else devices), PIDF

    def wanted(self, key: Any) -> None:
        """A phone wants to see a Jabber user."""
        self.want(key, "phone")

    def unwanted(self, key: Any) -> None:
        """No phone does any more."""
        self.unwant(key, "phone")

    def noted(self, id: str, key: Any, text: str | None) -> None:
        """Keep the subscription of a phone."""
        if self.rows is not None:
            self.rows.subscription("phone", id, str(key.sip), str(key.jabber), text)

    def want(self, pair: Pair, why: str) -> None:
        """Somebody wants to see a Jabber user, or to see him now."""
        assert self.roster is not None
        self._reasons.setdefault(pair, set()).add(why)
        self.roster.watch(pair)

    def unwant(self, pair: Pair, why: str) -> None:
        """He does no more."""
        assert self.roster is not None
        reasons = self._reasons.get(pair, set())
        reasons.discard(why)
        if not reasons:
            self._reasons.pop(pair, None)
            self.roster.unwatch(pair)

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

    @function(REQUEST)
    def pua_xmpp_notify(self, run: Run) -> int:
        """Take a NOTIFY for a subscription of ours: the presence of a SIP user for a Jabber user, or who watches a Jabber user
        (Event: presence.winfo). True when it was taken: the script answers 200. One that is sent to us and cannot be taken is
        answered, and the script ends. False for what is not sent to us."""
        request = run.message
        assert isinstance(request, Request)
        user = self.server.user
        if self.sip is None or request.method != "NOTIFY":
            return -1
        try:
            self.sip.take(request)
        except SipError as error:
            if error.status == 481 and not self._is_for_us(request):
                return -1
            headers = {489: "Allow-Events: presence, presence.winfo\r\n"}.get(error.status, "")
            user.reply(run, error.status, error.reason, headers=headers)
            return 0
        return 1

    def _is_for_us(self, request: Request) -> bool:
        """Whether a request is sent to a Contact of ours."""
        try:
            uri = parse_uri(request.uri)
        except SipError:
            return False
        return bool(self.server.user.is_myself(uri.host or "", uri.port or 0)) or request.uri == self.server_address

    @function(REQUEST)
    def pua_xmpp_req_winfo(self, run: Run, request_uri: str, expires: int) -> bool:
        """Ask the presence server who watches a Jabber user, and from then on publish there what is known of him. For a SUBSCRIBE
        (Event: presence) that the presence server has taken: ``request_uri`` is the Jabber user's, ``expires`` that of the
        SUBSCRIBE."""
        try:
            assert self.inquiries is not None
            self.inquiries.ask(request_uri, expires)
        except SipError as error:
            self.server.user.log_rarely("req_winfo", -1, f"pua_xmpp_req_winfo: {request_uri!r}: {error.reason}")
            return False
        return True

    # ---- management ----

    @mi("roster", module="pua_xmpp")
    def list_roster(self) -> dict[str, Any]:
        """Who watches whom: phones with what they are told, Jabber users with what they see, and our subscriptions for them."""
        roster = self.roster
        if roster is None:
            return {"Watched": [], "Watchers": [], "Subscriptions": []}
        watched = []
        for pair in roster.watched:
            state, devices = roster.seen(pair)
            shown = [f"{each.id}: {each.show or 'available'}" for each in devices]
            watched.append({"sip": str(pair.sip), "jabber": str(pair.jabber), "state": state, "devices": shown})
        watchers = [
            {"sip": str(pair.sip), "jabber": str(pair.jabber), "state": state, "shown": shown}
            for pair, (state, shown) in roster.watchers.summary().items()
        ]
        return {"Watched": watched, "Watchers": watchers, "Subscriptions": [] if self.sip is None else self.sip.summary()}

    @mi("allow", module="pua_xmpp")
    def allow(self, sip: str, jabber: str) -> None:
        """Let a Jabber user who has asked see a SIP user, or ask again if he was denied; both as Jabber IDs."""
        self._decide(sip, jabber, True)

    @mi("deny", module="pua_xmpp")
    def deny(self, sip: str, jabber: str) -> None:
        """Let him see her no more, nor ask."""
        self._decide(sip, jabber, False)

    def _decide(self, sip: str, jabber: str, allowed: bool) -> None:
        try:
            pair = Pair(Jid.parse(sip).bare, Jid.parse(jabber).bare)
        except BadJid as error:
            raise MIError(400, error.reason) from None
        if self.roster is None or (allowed and not self.roster.watchers.state(pair)):
            raise MIError(404, "He has not asked")
        self.roster.watchers.decide(pair, allowed)

    def _subscriptions(self) -> int:
        return 0 if self.subscriptions is None else self.subscriptions.count

    def _watchers(self) -> int:
        return 0 if self.roster is None else len(self.roster.watchers.pairs)

    def _held(self) -> int:
        return 0 if self.sip is None else len(self.sip.watcher.held)
