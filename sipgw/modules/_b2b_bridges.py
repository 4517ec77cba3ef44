"""The part of b2b_logic that joins legs with others: bridges, callers that enter, calls of our own, transfers by REFER."""

from __future__ import annotations

from typing import Annotated, Any

from sipgw.b2bua import bridge as bridges
from sipgw.b2bua.bridge import Bridge
from sipgw.b2bua.legs import NUMBERED, Leg, Role, State
from sipgw.b2bua.port import NOTHING, Content
from sipgw.b2bua.refer import Referral, read
from sipgw.b2bua.session import Session
from sipgw.exports import REQUEST, Avp, HeaderText, function, mi, param, pvar
from sipgw.mi.commands import MIError
from sipgw.modules._b2b_drafts import (
    CURRENT,
    DRAFTS,
    VALUES,
    BridgeFlags,
    Current,
    Draft,
    Drafts,
    bridge_flags,
    contact_of,
    extra_headers,
    late_bye,
    party,
    side,
)
from sipgw.modules._b2b_options import Options
from sipgw.modules._b2b_port import KEPT
from sipgw.modules._b2b_scenarios import Course, Scenarios
from sipgw.proxy.disguise import is_uri
from sipgw.proxy.originate import new_request
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.dialog import Dialog, DialogId
from sipgw.sip.errors import SipError
from sipgw.sip.message import Request

REFER = "refer"
"""The built-in scenario that carries out transfers by itself."""
SETUP = 60
"""Seconds that a call of our own may take to be answered by both."""


class Bridging(Options, Scenarios):
    """Sessions whose legs are joined with others."""

    script_req_route: str = param("", "The route for requests within sessions of the script's own logic")
    script_reply_route: str = param("", "The route for responses within them")
    b2bl_early_update: int = param(
        0, "Whether a caller may enter a call that is not answered yet (b2b_bridge_request), with an UPDATE: 0 or 1"
    )
    old_entity_term_delay: int = param(0, "Seconds that an entity stays that b2b_bridge_request has replaced with late_bye")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._count = 0

    # -- what the other half of b2b_logic does

    def wait_for(self, session: Session, seconds: int) -> None:
        """End ``session`` so many seconds from now if it is not answered by then."""
        raise NotImplementedError

    def add_session(self, session: Session, routes: tuple[str, str], course: Course | None = None) -> None:
        """Keep a session that begins."""
        raise NotImplementedError

    def new_key(self, name: str) -> str:
        """A key that no session has, by the name of a leg."""
        while True:
            self._count += 1
            key = f"{name.split('.')[1]}.{self._count}"
            if key not in self.sessions:
                return key

    def current(self, run: Run, what: str, request: bool = True) -> Current | None:
        """What a route of a session is run for; ``what``: the function that asks."""
        found: Current | None = None if run.context is None else run.context.get(CURRENT)
        if found is None or (request and found.token is None):
            run.user.log_rarely(("b2b", what), -1, f"{what}: this is for the routes of a session")
            return None
        return found

    # -- legs

    def planned(self, session: Session, kept: Leg, draft: Draft, run: Run | None = None) -> Leg:
        """A leg that is to be called, in the name of ``kept``, whose dialog is there."""
        dialog = kept.dialog
        assert dialog is not None
        return self.to_call(session, NameAddr.parse(dialog.remote), kept, draft, run)

    def to_call(self, session: Session, sender: NameAddr, like: Leg | None, draft: Draft, run: Run | None) -> Leg:
        """A leg that is to be called in the name of ``sender``; ``like``: by the same ways as that one."""
        user = self.server.user
        socket = user.default_socket() if like is None else like.socket
        contact = contact_of(draft.contact) or self.contact_at(run, socket)
        display = draft.display or sender.display
        from_ = f"{display} <{sender.uri_text}>" if display else f"<{sender.uri_text}>"
        invite = new_request(
            user, "INVITE", draft.uri, from_, f"<{draft.uri}>", headers=f"{draft.headers}Contact: {contact}\r\n",
            call_id=self.entities.new_key(), cseq=1,
        )
        leg = Leg(invite.call_id, Role.CLIENT, invite, id=draft.id, socket=socket, contact=contact, next_hop=draft.proxy)
        if like is not None:
            leg.avps = like.avps
        if draft.numbered:
            leg.flags.add(NUMBERED)
        self.entities.add(session, leg)
        return leg

    def find(self, key: str) -> tuple[Session, Leg | None] | None:
        """The session with that key, or with ``callid;from-tag;to-tag`` of one of its legs, which is the second then."""
        session = self.sessions.get(key)
        if session is not None:
            return session, None
        parts = key.split(";")
        if len(parts) != 3:
            return None
        for session in self.sessions.values():
            for leg in session.legs:
                its = self.b2b_entities.describe(leg)
                if [its["callid"], its["fromtag"], its["totag"]] == parts:
                    return session, leg
        return None

    # -- bridges

    @function(REQUEST)
    def b2b_bridge(
        self, run: Run, entity1: str, entity2: str, provmedia_uri: str | None = None,
        flags: Annotated[str, bridge_flags] | None = None,
    ) -> bool:
        """Join an entity, "this" or "peer" or one by its id, with a new one that ``b2b_client_new`` has made. The one that it
        talked with is hung up on when the new one has answered. ``provmedia_uri``: who is heard until then. Flags:
        ``max_duration=N`` seconds for the session from now; ``notify``: who sent the REFER is told how it goes;
        ``rollback-failed``: a call that cannot be joined goes on as before; ``hold``: the entity is put on hold first;
        ``no-late-sdp``: the new one is called with an offer; ``propagate-avps``: and with the AVPs of this route;
        ``provmedia-extra-headers``: so is who is heard meanwhile. False if it cannot be: an INVITE is under way, or a bridge."""
        current = self.current(run, "b2b_bridge")
        if current is None:
            return False
        try:
            chosen = bridge_flags(flags or "")
        except ValueError as error:
            run.user.log(-1, str(error))
            return False
        session = current.session
        drafts: Drafts | None = run.keep().get(DRAFTS)
        names = {leg.id: leg for leg in session.pair} | {"this": current.leg, "peer": session.other(current.leg)}
        for name, other in ((entity1, entity2), (entity2, entity1)):
            draft = None if drafts is None else drafts.clients.get(other)
            if drafts is not None and draft is not None and name in names:
                del drafts.clients[other]
                return self._bridge(run, session, current, names[name], draft, provmedia_uri or "", chosen)
        run.user.log_rarely("b2b_bridge", -1, f"b2b_bridge: {entity1!r} and {entity2!r} are not an entity and a new client")
        return False

    def _bridge(
        self, run: Run, session: Session, current: Current, kept: Leg, draft: Draft, media: str, flags: BridgeFlags
    ) -> bool:
        if media and not is_uri(media):
            run.user.log_rarely(("b2b_bridge", media), -1, f"b2b_bridge: {media!r} is no URI")
            return False
        watcher = current.leg if flags.notify and current.leg is not kept else None
        bridge = self.join(
            session, kept, draft, media=media, early_offer=flags.early_offer, hold=flags.hold, rollback=flags.rollback, run=run,
            watcher=watcher, media_headers=draft.headers if flags.media_headers else "",
            avps=run.avps if flags.propagate_avps else None,
        )
        if not bridge:
            return False
        if flags.max_duration is not None:
            self.limit_to(session, flags.max_duration)
        return True

    def can_join(self, session: Session, kept: Leg, early: bool = False) -> bool:
        """Whether ``kept`` may be joined with somebody new; ``early``: also if it has no answer yet."""
        if kept.dialog is None or not (early or kept.state is State.TALKING):
            return False
        return bridges.can_begin(session, kept)

    def join(
        self, session: Session, kept: Leg, draft: Draft, *, media: str = "", early_offer: bool = False, wait: bool = True,
        hold: bool = False, rollback: bool = False, watcher: Leg | None = None, media_headers: str = "",
        avps: dict[str, list[int | str]] | None = None, run: Run | None = None, refer: int = 0,
    ) -> bool:
        """Let ``kept`` talk with somebody new (see ``sipgw.b2bua.bridge.Bridge``)."""
        if not self.can_join(session, kept, early=run is not None):
            return False
        if watcher is not None and not refer and run is not None and isinstance(run.message, Request):
            refer = run.message.cseq.number
        try:
            new = self.planned(session, kept, draft, run)
            server = self.planned(session, kept, Draft("media", media, headers=media_headers), run) if media else None
        except SipError as error:
            self.server.user.log_rarely(("b2b_bridge", str(error)), -1, f"b2b_logic: {draft.uri!r} cannot be called: {error}")
            return False
        if avps is not None:
            new.avps = avps
        bridges.begin(session, Bridge(
            kept, new, media=server, hold=hold, early_offer=early_offer, rollback=rollback, wait=wait, watcher=watcher,
            refer=refer,
        ))
        return True

    @function()
    def b2b_bridge_retry(self, run: Run, new_entity: str) -> bool:
        """Call another one in the place of the one whose refusal the reply route is run for; ``b2b_client_new`` has made it.
        False if nobody has refused an INVITE."""
        current = self.current(run, "b2b_bridge_retry", request=False)
        drafts: Drafts = run.keep().get(DRAFTS) or Drafts()
        draft = drafts.clients.get(new_entity)
        if current is None or current.usual is None or draft is None or current.leg is not current.session.callee:
            run.user.log_rarely("b2b_bridge_retry", -1, f"b2b_bridge_retry: no new client {new_entity!r}, or nobody has refused")
            return False
        session = current.session
        kept = session.caller
        if kept.dialog is None or not session.callee.is_over:
            return False
        if not bridges.retry(session, self.planned(session, kept, draft, run)):
            return False
        del drafts.clients[new_entity]
        current.usual = None
        return True

    @function(REQUEST)
    def b2b_bridge_request(
        self, run: Run, b2bl_key: str, entity_no: int, adv_contact: HeaderText | None = None,
        flags: Annotated[str, late_bye] | None = None,
    ) -> bool:
        """Join who sends this INVITE with entity 0 or 1 of a session, by its key or by ``callid;from-tag;to-tag`` of a leg; the
        other one is hung up on, with ``late_bye`` only when they talk. False if it cannot be."""
        request = run.message
        found = self.find(b2bl_key)
        if not isinstance(request, Request) or request.method != "INVITE" or request.to_tag or run.flow is None:
            run.user.log(-1, "b2b_bridge_request: this is no INVITE that begins a call")
            return False
        if found is None or entity_no not in (0, 1):
            return False
        session = found[0]
        early = bool(self.b2bl_early_update)
        if not session.pair or not bridges.can_begin(session, session.pair[entity_no], caller=True, early=early):
            return False
        kept = session.pair[entity_no]
        socket = run.flow.socket
        contact = contact_of(adv_contact or "") or self.contact_at(run, socket)
        new = Leg(self.entities.new_key(), Role.SERVER, request, id="caller", socket=socket, contact=contact)
        try:
            new.dialog = Dialog.as_uas(request, new.key)
        except SipError as error:
            run.user.reply(run, error.status, error.reason)
            return True
        try:
            late = late_bye(flags or "")
        except ValueError as error:
            run.user.log(-1, str(error))
            return False
        context = self.entities.tm.context(run)
        run.transaction = None  # it is the session's now
        if context is None:
            return True
        session.values.update(run.keep().pop(VALUES, {}))
        new.token = context
        context.kept[KEPT] = run.keep()[KEPT] = session, new
        self.entities.add(session, new)
        delay = self.old_entity_term_delay if late else 0
        bridges.begin(session, Bridge(kept, new, wait=late, rollback=late, delay=delay, update=early))
        return True

    @mi(
        "bridge", alias="b2b_bridge", recipes=(
            ("dialog_id", "new_uri"), ("dialog_id", "new_uri", "flag"), ("dialog_id", "new_uri", "prov_media_uri"),
            ("dialog_id", "new_uri", "flag", "prov_media_uri"),
        ),
    )
    def bridge(self, dialog_id: str, new_uri: str, flag: int | None = None, prov_media_uri: str = "") -> None:
        """``b2b_logic:bridge``: join the caller of a session, with ``flag`` 1 the callee, with ``new_uri``; the other one is hung
        up on. ``dialog_id``: the key of the session, or ``callid;from-tag;to-tag`` of one of its legs, whose other side is joined
        if there is no ``flag``. ``prov_media_uri``: who is heard until the new one has answered."""
        found = self.find(dialog_id)
        if found is None or not found[0].pair:
            raise MIError(404, "No such session")
        session, leg = found
        if not is_uri(new_uri) or flag not in (None, 0, 1) or (prov_media_uri and not is_uri(prov_media_uri)):
            raise MIError(400, "new_uri and prov_media_uri must be URIs, and flag 0 or 1")
        kept = session.other(leg) if flag is None and leg in session.pair else session.pair[flag or 0]
        if not self.join(session, kept, Draft("bridged", new_uri), media=prov_media_uri, wait=False):
            raise MIError(500, "The call is not answered yet, or an INVITE is under way")

    # -- legs that end

    @function(REQUEST)
    def b2b_delete_entity(self, run: Run) -> bool:
        """Forget the entity that sent the request, which has ended; the other one ends too unless it is bridged in this route."""
        current = self.current(run, "b2b_delete_entity")
        if current is None:
            return False
        self.entities.reply(current.leg, current.token, 200, "OK", NOTHING)
        current.session.drop(current.leg)
        return True

    @function()
    def b2b_end_dlg_leg(self, run: Run) -> bool:
        """End the call of the entity that the message came from; the other one ends too unless it is bridged in this route."""
        current = self.current(run, "b2b_end_dlg_leg", request=False)
        if current is None:
            return False
        if current.token is not None:
            self.entities.reply(current.leg, current.token, 200, "OK", NOTHING)
        current.session.part(current.leg)
        return True

    # -- calls of our own

    @function(REQUEST)
    def b2b_trigger_scenario(
        self, run: Run, scenario: str, params: str | None, peer1: str, extra_headers_peer1: Avp | None,
        extra_headers_contents_peer1: Avp | None, peer2: str, extra_headers_peer2: Avp | None = None,
        extra_headers_contents_peer2: Avp | None = None,
    ) -> bool:
        """Call two and join them. ``peer1``, ``peer2``: ``id,uri[,proxy[,display name]]``. ``params``: ``n`` tells who sent the
        REFER that the route is run for how it goes; ``n,KEY[,0 or 1]`` an entity of another session."""
        sides = [
            side(peer1, extra_headers(run, extra_headers_peer1, extra_headers_contents_peer1)),
            side(peer2, extra_headers(run, extra_headers_peer2, extra_headers_contents_peer2)),
        ]
        first, second = sides
        if first is None or second is None:
            run.user.log_rarely("b2b_trigger", -1, "b2b_trigger_scenario: a peer is ID,URI[,PROXY[,NAME]], with headers")
            return False
        watcher = None
        words = [word.strip() for word in (params or "").split(",")]
        if words[0][:1] == "n":
            current: Current | None = None if run.context is None else run.context.get(CURRENT)
            found = self.find(words[1]) if len(words) > 1 else None
            if found is not None and found[0].pair:
                watcher = found[0].pair[1 if words[2:3] == ["1"] else 0]
            elif len(words) == 1 and current is not None:
                watcher = current.leg
        values: dict[str, str] = run.keep().pop(VALUES, {})
        return self.trigger(scenario, first, second, values, watcher, run) is not None

    @mi(
        "trigger_scenario", alias="b2b_trigger_scenario",
        recipes=(
            ("scenario_id", "entity1", "entity2"), ("scenario_id", "entity1", "entity2", "context"),
            ("scenario_id", "scenario_params"),
        ),
    )
    def trigger_scenario(
        self, scenario_id: str, entity1: str = "", entity2: str = "", context: list[str] | None = None,
        scenario_params: list[str] | None = None,
    ) -> None:
        """``b2b_logic:trigger_scenario``: call two and join them. ``entity1``, ``entity2``: ``id,uri[,display name]``.
        ``context``: values ``name=value`` for ``$b2b_logic.ctx``. ``scenario_params``: the parameters of a scenario file."""
        if scenario_params is not None:
            try:
                found, drafts = self.extern(scenario_id, scenario_params)
            except ValueError as error:
                raise MIError(400, "No such scenario", str(error)) from error
            if self.trigger(scenario_id, *drafts, {}, course=found) is None:
                raise MIError(500, "They cannot be called")
            return
        first, second = (party(text) for text in (entity1, entity2))
        if first is None or second is None:
            raise MIError(400, "An entity is ID,URI[,NAME]")
        pairs = [text.partition("=") for text in context or []]
        if any(not equals for _, equals, _ in pairs):
            raise MIError(400, "context is a list of name=value")
        values = {name.strip(): value for name, _, value in pairs}
        if self.trigger(scenario_id, first, second, values) is None:
            raise MIError(500, "They cannot be called")

    def trigger(
        self, scenario: str, first: Draft, second: Draft, values: dict[str, str], watcher: Leg | None = None,
        run: Run | None = None, course: Course | None = None,
    ) -> Session | None:
        """Call two and join them; the session, or None if they cannot be called."""
        routes = ("", "") if course is not None else (self.script_req_route, self.script_reply_route)
        session = Session("", [], self.entities, scenario=scenario, values=values)
        try:
            to = [NameAddr.parse(f"<{draft.uri}>") for draft in (second, first)]
            session.pair += [self.to_call(session, to[0], None, first, run), self.to_call(session, to[1], None, second, run)]
        except (SipError, LookupError) as error:
            self.server.user.log(-1, f"b2b_logic: {first.uri!r} and {second.uri!r} cannot be called: {error}")
            for leg in session.pair:
                self.entities.forget(leg)
            return None
        session.key = self.new_key(session.caller.key)
        self.add_session(session, routes, course)
        self.wait_for(session, SETUP)
        bridges.connect(session, watcher)
        return session

    # -- transfers

    def refer(self, session: Session, leg: Leg, request: Request, token: Any) -> None:
        """Carry out a REFER by ``leg`` (RFC 3515, 5589): join who it talks with with the one that Refer-To names."""
        port = self.entities
        kept = session.other(leg)
        try:
            referral = read(request)
            if kept.state is not State.TALKING or leg.state is not State.TALKING or not bridges.can_begin(session, kept):
                raise SipError("Request Pending", 491)
            bridge = self._transfer(session, kept, leg, request, referral)
        except SipError as error:
            port.reply(leg, token, error.status, error.reason, NOTHING)
            return
        port.reply(leg, token, 202, "Accepted", Content("Refer-Sub: false\r\n" if referral.silent else ""))
        bridges.begin(session, bridge)

    def _transfer(self, session: Session, kept: Leg, leg: Leg, request: Request, referral: Referral) -> Bridge:
        watcher = None if referral.silent else leg
        number = request.cseq.number
        if referral.replaced is not None:
            other = self.by_dialog(referral.replaced)
            if other is not None:
                lender, replaced = other
                new = lender.other(replaced) if replaced in lender.pair else None
                if new is None or lender is session or not bridges.can_lend(lender, new):
                    raise SipError("Request Pending", 491)
                return Bridge(kept, new, rollback=True, watcher=watcher, refer=number, lender=lender)
        headers = "".join(f"Referred-By: {value}\r\n" for value in request.headers("Referred-By")[:1])
        if referral.replaces:
            headers += f"Replaces: {referral.replaces}\r\nRequire: replaces\r\n"
        hop = next((its.next_hop for its in session.pair if its.role is Role.CLIENT), "")
        new = self.planned(session, kept, Draft("transferred", referral.uri, hop, headers=headers))
        return Bridge(kept, new, rollback=True, watcher=watcher, refer=number)

    def by_dialog(self, dialog: DialogId) -> tuple[Session, Leg] | None:
        """The leg with a dialog of that name, as we see it."""
        for key in (dialog.local_tag, dialog.call_id):
            found = self.entities.legs.get(key)
            if found is None or not isinstance(found[0], Session) or found[1].dialog is None or found[1].dialog.id != dialog:
                continue
            return found[0], found[1]
        return None

    def beyond(self, dialog: DialogId) -> DialogId | None:
        """The dialog on the other side of a call of ours, of which ``dialog`` is one."""
        found = self.by_dialog(dialog)
        if found is None or found[1] not in found[0].pair:
            return None
        other = found[0].other(found[1]).dialog
        return None if other is None else other.id

    # -- variables

    @pvar("b2b_logic.peer", named=True)
    def session_peer(self, run: Run, name: str | None) -> str | None:
        """``$b2b_logic.peer(callid;from-tag;to-tag)``: who talks with that leg, named in the same way."""
        found = self.find(name or "")
        if found is None or found[1] not in found[0].pair:
            return None
        its = self.b2b_entities.describe(found[0].other(found[1]))
        return f"{its['callid']};{its['fromtag']};{its['totag']}" if its["totag"] else None
