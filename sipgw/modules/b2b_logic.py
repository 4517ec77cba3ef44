"""b2b_logic: what passes between the two legs of a back-to-back call, by the built-in scenario "top hiding" or by the script.

The machinery is ``sipgw/b2bua``. A script that decides for itself has a request route and a reply route, which run for what comes
within a call; there ``b2b_pass_request`` and ``b2b_handle_reply`` do what is usual."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from sipgw.b2bua.legs import NUMBERED, REDIRECTS, TRANSPARENT, Leg, Role
from sipgw.b2bua.passing import Passing
from sipgw.b2bua.port import Content, Logic
from sipgw.b2bua.rewrite import contact_params
from sipgw.b2bua.session import Session, begin
from sipgw.exports import REQUEST, Avp, HeaderText, function, mi, param, pvar
from sipgw.mi.commands import MIError
from sipgw.modules._b2b_bridges import REFER, Bridging
from sipgw.modules._b2b_drafts import CURRENT, DRAFTS, VALUES, Current, Draft, Drafts, contact_of, extra_headers
from sipgw.modules._b2b_options import InitFlags, client_flags, init_flags, reply_flags
from sipgw.modules._b2b_port import KEPT
from sipgw.modules._b2b_restore import TOP_HIDING
from sipgw.modules._b2b_routes import edited
from sipgw.modules._b2b_scenarios import Course
from sipgw.proxy.disguise import is_uri
from sipgw.proxy.originate import new_request
from sipgw.script.regex import BadPattern, compile_regex
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Request, Response

_FIRST = 1 << 30
"""Our CSeq numbers begin below: 2**31 is the end of them (RFC 3261 8.1.1.5), and there must be room for those that follow."""


def header_names(text: str) -> list[str]:
    """Names of headers with semicolons between them."""
    names = [name.strip() for name in text.split(";") if name.strip()]
    for name in names:
        if not is_token(name):
            raise ValueError(f"{name!r} is no name of a header")
    return names


def _user(address: NameAddr) -> str:
    """The user of an address, as it is written; "" if there is none, or it cannot be read."""
    try:
        return address.uri.user or ""
    except MalformedMessage:
        return ""


def name_pattern(text: str) -> Callable[[str], object]:
    """What matches names of headers: ``regex``, ``/regex/`` or ``/regex/i``."""
    match = re.fullmatch(r"/(.*)/([ie]*)", text, re.DOTALL)
    pattern, flags = (match[1], match[2]) if match else (text, "")
    try:
        return compile_regex(pattern, ignore_case="i" in flags).search
    except BadPattern as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error


class B2bLogic(Bridging):
    """Joins the two legs of back-to-back calls."""

    name = "b2b_logic"

    hash_size: int = param(10, "Size of a hash table", unused="sessions are in a dict, which grows by itself")
    cleanup_period: int = param(100, "Seconds between searches", unused="each session has a timer of its own")
    custom_headers: str = param("", "More headers that are passed on: 'User-Agent;Date'", check=header_names)
    custom_headers_regexp: str = param("", "More of them, by a regular expression on their names: '/^x-/i'", check=name_pattern)
    contact_user: int = param(0, "Whether our Contacts have the user of the caller: 0 or 1")
    max_duration: int = param(43200, "Seconds that a session may last; 0: any")
    b2bl_th_init_timeout: int = param(60, "Seconds that a session may take to be answered")
    init_callid_hdr: str = param("", "The header that tells the callee the caller's Call-ID", check=header_names)

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._timers: dict[str, Any] = {}
        self._routes: dict[str, tuple[str, str]] = {}

    async def start(self) -> None:
        """Be ready to begin sessions."""
        matches = name_pattern(self.custom_headers_regexp) if self.custom_headers_regexp else None
        self.entities.passing = Passing(header_names(self.custom_headers), matches)
        self.entities.passing.ends_pracks = not self.entities.reliability.passes_pracks
        self.entities.on_ended.append(self._ended)
        self.entities.beyond = self.beyond
        self.read_options()
        for name in (self.script_req_route, self.script_reply_route):
            if name and name not in self.server.user.routes.named:
                raise ValueError(f"b2b_logic: there is no route[{name}]")
        await self.restore()

    # -- beginning

    @function(REQUEST)
    def b2b_server_new(
        self, run: Run, id: str, adv_contact: HeaderText | None = None, extra_hdrs: Avp | None = None,
        extra_hdr_bodies: Avp | None = None,
    ) -> bool:
        """Make the entity of the caller, for ``b2b_init_request``."""
        headers = extra_headers(run, extra_hdrs, extra_hdr_bodies)
        if headers is None:
            return False
        run.keep().setdefault(DRAFTS, Drafts()).server = Draft(id, contact=adv_contact or "", headers=headers)
        return True

    @function(REQUEST)
    def b2b_client_new(
        self, run: Run, id: str, dest_uri: str, proxy: str | None = None, from_dname: HeaderText | None = None,
        adv_contact: HeaderText | None = None, extra_hdrs: Avp | None = None, extra_hdr_bodies: Avp | None = None,
        flags: Annotated[str, client_flags] | None = None,
    ) -> bool:
        """Make the entity that is to be called, for ``b2b_init_request``; flag ``pass-legs-upstream``: the caller has an early
        dialog with each phone that rings there."""
        if not is_uri(dest_uri) or (proxy and not is_uri(proxy)):
            run.user.log(-1, f"b2b_client_new: {dest_uri!r} or the proxy is no URI")
            return False
        draft = Draft(id, dest_uri, proxy or "", from_dname or "", adv_contact or "")
        try:
            draft.numbered = client_flags(flags or "")
        except ValueError as error:
            run.user.log(-1, f"b2b_client_new: {error}")
            return False
        headers = extra_headers(run, extra_hdrs, extra_hdr_bodies)
        if headers is None:
            return False
        draft.headers = headers
        drafts: Drafts = run.keep().setdefault(DRAFTS, Drafts())
        drafts.clients.pop(id, None)
        drafts.clients[id] = draft
        return True

    @function(REQUEST)
    def b2b_init_request(
        self, run: Run, id: str, flags: Annotated[str, init_flags] | None = None, req_route: str | None = None,
        reply_route: str | None = None,
    ) -> bool:
        """Begin a session for this INVITE: "top hiding"; "refer", the same and transfers by REFER are carried out here; or one of
        the script's own, whose entities have been made before.

        Flags: ``setup-timeout=N`` seconds until it must be answered; ``transparent-auth``: challenges and what answers them pass;
        ``preserve-to``: To stays; ``pass-legs-upstream``: the caller has an early dialog with each phone that rings."""
        request = run.message
        if not isinstance(request, Request) or request.method != "INVITE" or request.to_tag or run.flow is None:
            run.user.log(-1, "b2b_init_request: this is no INVITE that begins a call")
            return False
        try:
            chosen = init_flags(flags or "")
        except ValueError as error:
            run.user.log(-1, str(error))
            return False
        drafts: Drafts = run.keep().pop(DRAFTS, None) or Drafts()
        client = drafts.client
        routes = req_route or self.script_req_route, reply_route or self.script_reply_route
        built_in = id == TOP_HIDING or (id == REFER and id not in self.scenarios and not any(routes))
        if built_in:
            client = client or Draft("client1", run.uri, run.dst_uri or "")
            routes = "", ""
        elif client is None and drafts.server is None and id.partition("/")[0] in self.scenarios:
            return self.init_scenario(run, id, [])
        elif client is None or drafts.server is None:
            run.user.log(-1, "b2b_init_request: make the entities first, with b2b_server_new and b2b_client_new")
            return False
        for name in filter(None, routes):
            if name not in run.user.routes.named:
                run.user.log(-1, f"b2b_init_request: there is no route[{name}]")
                return False
        return self._begin(run, request, id, drafts.server or Draft("server1"), client, chosen, routes)

    def begin_call(
        self, run: Run, request: Request, scenario: str, server: Draft, client: Draft, flags: str, course: Course
    ) -> bool:
        """Begin a session by a scenario."""
        return self._begin(run, request, scenario, server, client, init_flags(flags), ("", ""), course)

    def _begin(
        self, run: Run, request: Request, scenario: str, server: Draft, client: Draft, flags: InitFlags, routes: tuple[str, str],
        course: Course | None = None,
    ) -> bool:
        user, entities = run.user, self.entities
        hops = request.max_forwards
        if hops == 0:
            user.reply(run, 483, "Too Many Hops")
            return True
        socket = run.send_socket or run.flow.socket  # type: ignore[union-attr]
        contact_user = _user(request.from_) if self.contact_user else ""
        caller = Leg(
            entities.new_key(), Role.SERVER, request, id=server.id, socket=run.flow.socket,  # type: ignore[union-attr]
            contact=contact_of(server.contact) or self.contact_at(run, run.flow.socket, contact_user),  # type: ignore[union-attr]
        )
        try:
            hops = 70 if hops is None else hops - 1
            address = self.contact_at(run, socket, contact_user)
            invite, contact = self._invite(run, edited(run, request), client, flags, address, hops)
            callee = Leg(
                invite.call_id, Role.CLIENT, invite, id=client.id, socket=socket, contact=contact, next_hop=client.proxy,
            )
            session = begin(
                self.new_key(caller.key), caller, callee, entities, scenario="" if scenario == TOP_HIDING else scenario,
                logic=self if any(routes) or course is not None or scenario == REFER else None, values=run.keep().get(VALUES, {}),
            )
        except SipError as error:
            user.reply(run, error.status, error.reason)
            return True
        except ValueError as error:
            user.log_rarely(str(error), -1, f"b2b_init_request: {error}")
            return False
        context = entities.tm.context(run)
        run.transaction = None  # it is the session's now
        if context is None:
            return True
        if flags.transparent:
            caller.flags.add(TRANSPARENT)
            callee.flags.add(TRANSPARENT)
        if flags.numbered or client.numbered:
            callee.flags.add(NUMBERED)
        caller.contact_params = contact_params(request, entities.contact_params) or ""
        caller.token = context
        caller.avps = callee.avps = run.avps
        context.kept[KEPT] = run.keep()[KEPT] = session, caller
        self.add_session(session, routes, course)
        entities.add(session, caller, callee)
        if entities.onlooker is not None:
            entities.onlooker.begun(run, session)
        limit = self.b2bl_th_init_timeout if flags.setup_timeout is None else flags.setup_timeout
        self.wait_for(session, limit or self.max_duration)
        session.call(callee)
        return True

    def _invite(
        self, run: Run, request: Request, client: Draft, flags: InitFlags, contact: str, hops: int
    ) -> tuple[Request, str]:
        """The INVITE of the callee's leg, and its Contact."""
        contact = contact_of(client.contact) or contact
        content = self.entities.passing.content(request, flags.transparent)
        headers = content.headers + client.headers + f"Contact: {contact}\r\n"
        if self.init_callid_hdr:
            headers += f"{self.init_callid_hdr}: {request.call_id}\r\n"
        if content.body and content.content_type:
            headers += f"Content-Type: {content.content_type}\r\n"
        sender = self.sender(run) or request.from_
        display = client.display or sender.display
        from_ = f"{display} <{sender.uri_text}>" if display else f"<{sender.uri_text}>"
        to = f"{request.to.display} <{request.to.uri_text}>".strip() if flags.preserve_to else f"<{client.uri}>"
        number = request.cseq.number
        invite = new_request(
            run.user, "INVITE", client.uri, from_, to, headers=headers, body=content.body, call_id=self.entities.new_key(),
            cseq=number + 1 if number < _FIRST else 1, max_forwards=hops,
        )
        return invite, contact

    # -- time and the end

    def add_session(self, session: Session, routes: tuple[str, str], course: Course | None = None) -> None:
        """Keep a session that begins, by routes or a scenario file."""
        self.sessions[session.key] = session
        self._routes[session.key] = routes
        lasts = self.max_duration
        if course is not None:
            self.courses[session.key] = course
            lasts = course.scenario.bridge.lifetime or lasts
        self.ends[session.key] = int(self.server.user.wall_clock()) + lasts if lasts else 0
        if any(routes) or course is not None:
            session.logic = self

    def wait_for(self, session: Session, seconds: int) -> None:
        """End ``session`` after so many seconds if it is not answered by then; an answered one when its time is over."""
        self._timers[session.key] = self.entities.after(seconds, lambda: self._answered_by_now(session))

    def _answered_by_now(self, session: Session) -> None:
        if session.key not in self.sessions:
            return
        if session.is_answered:
            self.ends_at(session)
        else:
            session.end(408, "Request Timeout")

    def _ended(self, session: Session) -> None:
        self.sessions.pop(session.key, None)
        self._routes.pop(session.key, None)
        self.ends.pop(session.key, None)
        self.courses.pop(session.key, None)
        timer = self._timers.pop(session.key, None)
        if timer is not None:
            timer.cancel()

    # -- what outlives the server

    def kept(self, session: Session) -> Mapping[str, Any]:
        """What else of a session is stored."""
        routes = self._routes.get(session.key, ("", ""))
        bridging = {"bridging": True} if session.bridge is not None else {}
        return {"values": session.values, "routes": routes, **bridging, **self.course_kept(session)}

    def logic_of(self, session: Session, kept: Mapping[str, Any]) -> Logic | None:
        """The routes that decided, where they are still there; those of the modparams where OpenSIPS has stored the session."""
        usual = ("", "") if session.scenario in ("", TOP_HIDING) else (self.script_req_route, self.script_reply_route)
        names = tuple(map(str, kept.get("routes", usual)))
        routes = self._routes[session.key] = names if len(names) == 2 else ("", "")
        return self if self.course_of(session, kept) or any(routes) or session.scenario == REFER else None

    def ends_at(self, session: Session) -> None:
        """End a session that goes on when its time is over."""
        ends = self.ends[session.key]
        timer = self._timers.pop(session.key, None)
        if timer is not None:
            timer.cancel()
        if ends:
            left = max(0, ends - int(self.server.user.wall_clock()))
            self._timers[session.key] = self.entities.after(left, lambda: session.end(408, "Request Timeout"))

    # -- the script's own logic (``session.Logic``)

    def request(self, session: Session, leg: Leg, request: Request, token: Any) -> None:
        """Run the request route of ``session``, or do what its scenario says."""
        if session.key in self.courses and self.follow(session, leg, request, token):
            return
        if session.scenario == REFER and request.method == "REFER" and not any(self._routes.get(session.key, ())):
            self.refer(session, leg, request, token)
            return
        name = self._routes.get(session.key, ("", ""))[0]
        route = self.server.user.routes.named.get(name)
        if route is None:
            session.pass_request(leg, request, token)
            return
        user = self.server.user
        run = Run(request, RouteKind.REQUEST, token.server.flow, user.clock(), user)
        run.keep()[KEPT] = session, leg
        run.keep()[CURRENT] = Current(session, leg, token)
        user.execute(route, run, lambda _result: session.settle())

    def reply(
        self, session: Session, leg: Leg, method: str, status: int, response: Response | None, usual: Callable[[], None]
    ) -> None:
        """Run the reply route of ``session``; without a response, or where there is no such route, do what is usual."""
        name = self._routes.get(session.key, ("", ""))[1]
        route = self.server.user.routes.named.get(name)
        if route is None or response is None:
            usual()
            return
        user = self.server.user
        run = Run(response, RouteKind.ONREPLY, None, user.clock(), user)
        run.keep()[KEPT] = session, leg
        current = run.keep()[CURRENT] = Current(session, leg, None, usual)
        user.execute(route, run, lambda _result: self._told(current))

    def _told(self, current: Current) -> None:
        """The reply route is over. A refusal that it has done nothing about would hold up a bridge for ever."""
        session, usual = current.session, current.usual
        if usual is not None and session.bridge is not None and current.leg is session.bridge.new and current.leg.is_over:
            usual()
        if session.loose is not None:
            session.settle()

    @function(REQUEST)
    def b2b_pass_request(self, run: Run) -> bool:
        """Pass the request on to the other entity."""
        current = self.current(run, "b2b_pass_request")
        if current is None or not isinstance(run.message, Request):
            return False
        current.session.pass_request(current.leg, edited(run, run.message), current.token)
        return True

    @function()
    def b2b_handle_reply(self, run: Run, flags: Annotated[str, reply_flags] | None = None) -> bool:
        """Do with the reply what is usual: pass it on to who waits for it; flag ``pass-3xx-contact``: the Contacts of
        a 3xx too."""
        current = self.current(run, "b2b_handle_reply", request=False)
        if current is None or current.usual is None:
            return False
        try:
            redirects = reply_flags(flags or "")
        except ValueError as error:
            run.user.log(-1, f"b2b_handle_reply: {error}")
            return False
        usual, current.usual = current.usual, None
        if redirects:
            current.leg.flags.add(REDIRECTS)
        usual()
        current.leg.flags.discard(REDIRECTS)
        return True

    @function(REQUEST)
    def b2b_send_reply(
        self, run: Run, code: int, reason: HeaderText, headers: str | None = None, body: str | None = None
    ) -> bool:
        """Answer the request; it goes nowhere then."""
        current = self.current(run, "b2b_send_reply")
        if current is None or not 100 < code < 700:
            return False
        lines = (headers or "").rstrip("\r\n").replace("\r\n", "\n").split("\n") if headers else []
        if any(not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*:[^\r\n\0]*", line) for line in lines):
            run.user.log(-1, "b2b_send_reply: the headers are no header lines")
            return False
        text = "".join(f"{line}\r\n" for line in lines)
        content = Content(text, (body or "").encode("utf-8", "surrogateescape"), "application/sdp" if body and not lines else "")
        self.entities.reply(current.leg, current.token, code, reason, content)
        return True

    # -- variables

    def _session(self, run: Run) -> tuple[Session, Leg] | None:
        found = None if run.context is None else run.context.get(KEPT)
        return None if found is None or not isinstance(found[0], Session) else found

    @pvar("b2b_logic.key")
    def session_key(self, run: Run) -> str | None:
        """``$b2b_logic.key``: the key of the session."""
        found = self._session(run)
        return None if found is None else found[0].key

    @pvar("b2b_logic.scenario")
    def session_scenario(self, run: Run) -> str | None:
        """``$b2b_logic.scenario``: the id that the session was begun with; empty for "top hiding"."""
        found = self._session(run)
        return None if found is None else found[0].scenario

    @pvar("b2b_logic.entity", named=True, indexed=True)
    def session_entity(self, run: Run, name: str | None, index: int | None) -> str | None:
        """``$b2b_logic.entity(field)[index]``: ``key``, ``id``, ``callid``, ``fromtag`` or ``totag`` of entity 0 or 1, or of that
        which the message belongs to."""
        found = self._session(run)
        if found is None or index not in (None, 0, 1):
            return None
        leg = found[1] if index is None else found[0].pair[index]
        value = self.b2b_entities.describe(leg).get(name or "key")
        return value if isinstance(value, str) else None

    @pvar("b2b_logic.entity", indexed=True)
    def session_entity_key(self, run: Run, index: int | None) -> str | None:
        """``$b2b_logic.entity``: the key of an entity."""
        return self.session_entity(run, "key", index)

    @pvar("b2b_logic.ctx", named=True, set="set_value")
    def session_value(self, run: Run, name: str | None) -> str | None:
        """``$b2b_logic.ctx(name)``: a value that is kept with the session; it can be set before the session begins."""
        return self._values(run).get(name or "")

    def set_value(self, run: Run, name: str | None, value: int | str | None) -> bool:
        """Keep a value, or with null forget it."""
        values = self._values(run)
        if value is None:
            values.pop(name or "", None)
        else:
            values[name or ""] = str(value)
        return True

    def _values(self, run: Run) -> dict[str, str]:
        found = self._session(run)
        if found is not None:
            return found[0].values
        values: dict[str, str] = run.keep().setdefault(VALUES, {})
        return values

    # -- management

    @mi("list", alias="b2b_list")
    def list_sessions(self) -> list[dict[str, Any]]:
        """``b2b_logic:list``: the sessions that there are, each with its entities: first the two that talk. ``bridge``: how far
        a bridge is."""
        return [
            {
                "key": session.key, "scenario": session.scenario or TOP_HIDING,
                **({} if session.bridge is None else {"bridge": session.bridge.stage.value}),
                "entities": [self.b2b_entities.describe(leg) for leg in session.legs],
            }
            for session in self.sessions.values()
        ]

    @mi("terminate_call", alias="b2b_terminate_call")
    def terminate_call(self, key: str) -> None:
        """``b2b_logic:terminate_call``: end the session with that key, or with ``callid;from-tag;to-tag`` of one of its legs."""
        found = self.find(key)
        if found is None:
            raise MIError(404, "No such session")
        found[0].end()
