"""How back-to-back sessions meet the wire: their legs by key, what comes for them, and what they send through tm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import SystemRandom
from typing import Any, Protocol

from sipgw.b2bua.legs import NUMBERED, REDIRECTS, TRANSPARENT, Leg, Role, State
from sipgw.b2bua.own import OwnSession
from sipgw.b2bua.passing import Passing
from sipgw.b2bua.port import NOTHING, Content
from sipgw.b2bua.refer import renamed
from sipgw.b2bua.reliable import Reliability, Reply
from sipgw.b2bua.rewrite import as_update, contact_params, rewritten, with_content, with_line
from sipgw.b2bua.session import Session
from sipgw.b2bua.timers import Timers
from sipgw.modules._b2b_faults import Faults
from sipgw.modules._b2b_routes import Shown
from sipgw.modules.tm import Tm
from sipgw.modules.uac_auth import UacAuth
from sipgw.proxy.forward import NoWay, find_flow, via_line
from sipgw.script.run import WATCHER, Run, Watcher
from sipgw.script.symbols import RouteKind
from sipgw.sip.dialog import TARGET_REFRESH, Dialog, DialogId
from sipgw.sip.edits import NO_EDITS
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.message import Message, Request, Response, parse
from sipgw.sip.replies import reason_for

KEPT = "b2b"
"""Where runs and transactions keep their session and leg."""
WITH_CONTACT = frozenset({"INVITE", "UPDATE", "SUBSCRIBE", "NOTIFY", "REFER", "OPTIONS"})
MAX_CHALLENGES = 2
"""How many challenges to one request are answered (hardening P7): one of a proxy, one of the callee."""
Heard = Callable[[int, "Response | None"], None]
Held = Session | OwnSession
"""What has legs: a call of two of them, or one of the server's own."""


class Onlooker(Protocol):
    """Who wants to see the messages of chosen sessions (tracer)."""

    def begun(self, run: Run, session: Held) -> None:
        """A session begins with the request of ``run``."""

    def came(self, run: Run, session: Held, leg: Leg, context: Any) -> None:
        """A request has come by ``leg``; ``context``: its transaction, if it has one."""

    def trail(self, session: Held, leg: Leg) -> Watcher | None:
        """Who sees what goes out by ``leg``."""


class Entities:
    """The legs of one server by their keys, and the ``Port`` of their sessions."""

    def __init__(self, user: Any, tm: Tm, prefix: str) -> None:
        self.user = user
        self.tm = tm
        self.prefix = f"{prefix}."
        self.legs: dict[str, tuple[Held, Leg]] = {}
        self.passing = Passing()
        self.reliability = Reliability(self)
        self.faults = Faults(self)
        self.shown = Shown(user, KEPT)
        self.timers = Timers(self)
        self.contact_params: frozenset[str] = frozenset()
        """The names of parameters of Contacts that pass."""
        self.on_ended: list[Callable[[Session], None]] = []
        self.on_over: list[Callable[[Held], None]] = []
        """Told of calls of the server's own, too."""
        self.beyond: Callable[[DialogId], DialogId | None] | None = None
        """Gives the dialog on the other side of a call of ours: for the Replaces in a REFER that is passed on."""
        self.on_changed: list[Callable[[Held], None]] = []
        """Told that something of a call may have changed."""
        self.onlooker: Onlooker | None = None
        self._count = 0
        self._random = SystemRandom()
        self.auth: UacAuth | None = None
        """Who knows passwords for other servers."""
        self._unwanted: set[tuple[str, int]] = set()
        """INVITEs that are to be cancelled as soon as they have been sent."""

    def new_key(self) -> str:
        """A name that no leg has, and that nobody can guess."""
        self._count += 1
        first, last = self._random.getrandbits(9), self._random.getrandbits(48)  # COMPAT: server_hsize of OpenSIPS is 9
        return f"{self.prefix}{first}.{self._count}.{int(self.user.wall_clock())}.{last}"

    def add(self, session: Held, *legs: Leg) -> None:
        """Let what comes for ``legs`` find their session."""
        for leg in legs:
            self.legs[leg.key] = session, leg
            if leg.interval and leg.session_timer is None:
                self.timers.start(leg)  # it comes from the database

    def kin(self, message: Request | Response) -> list[str]:
        """The Call-IDs of all legs of the call that a message is of (``TransactionUser.kin``)."""
        try:
            names = [message.call_id, message.to_tag or "", message.from_tag or ""]
        except MalformedMessage:
            return []
        for name in (*names, *(name.rpartition(".")[0] for name in names[1:])):
            found = self.legs.get(name)
            if found is not None:
                return [leg.invite.call_id for leg in found[0].legs]
        return []

    def _changed(self, leg: Leg) -> None:
        found = self.legs.get(leg.key)
        if found is not None:
            for call in self.on_changed:
                call(found[0])

    def where(self, leg: Leg, session: Any) -> Any:
        """The session that ``leg`` is in now; ``session`` if it is forgotten."""
        found = self.legs.get(leg.key)
        return session if found is None else found[0]

    def move(self, leg: Leg, session: Session) -> None:
        """Let what comes for ``leg`` find another session."""
        if leg.key in self.legs:
            self._changed(leg)
            self.legs[leg.key] = session, leg
            self._changed(leg)

    def has(self, session: Held, leg: Leg) -> bool:
        """Whether ``leg`` is with ``session`` now, not lent to another one."""
        found = self.legs.get(leg.key)
        return found is not None and found[0] is session

    # -- what comes

    def taken(self, run: Run) -> bool:
        """Take a request that is for a leg of ours; false if it is not."""
        request = run.message
        assert isinstance(request, Request)
        if request.method == "CANCEL":
            return self._cancelled(run, request)
        tag = request.to_tag
        if tag is None or not (tag.startswith(self.prefix) or request.call_id.startswith(self.prefix)):
            return False
        found = self._find(request)
        if request.method == "ACK":
            if found is not None:
                session, leg = found
                if self.onlooker is not None:
                    self.onlooker.came(run, session, leg, None)
                self.shown.request(request, run.flow, found, lambda seen: session.acknowledged(leg, seen))
            return True
        if found is None:
            # COMPAT: a BYE that comes late is agreed to, as OpenSIPS does
            status = 200 if request.method == "BYE" else 481
            self.user.reply(run, status, reason_for(status))
            return True
        context = self.tm.context(run)
        run.transaction = None  # it is ours now, whatever becomes of the run
        if context is not None:
            context.kept[KEPT] = found
            if self.onlooker is not None:
                self.onlooker.came(run, *found, context)
            self.shown.request(request, run.flow, found, lambda seen: self._asked(*found, seen, context))
        return True

    def _asked(self, session: Held, leg: Leg, request: Request, token: Any) -> None:
        self._note(leg, request)
        self._follow(session, leg, request)
        if request.method == "PRACK":
            self._pracked(session, leg, request, token)
        else:
            session.request(leg, request, token)

    def _pracked(self, session: Held, leg: Leg, request: Request, token: Any) -> None:
        """Take a PRACK: it ends here, or goes on to who sent what it acknowledges."""
        other = leg if isinstance(session, OwnSession) else session.other(leg)
        if not self.reliability.acknowledged(leg, request):
            self.reply(leg, token, 481, "", NOTHING)
            return
        if self.reliability.is_passed(leg, other, request) or (request.body and isinstance(session, OwnSession)):
            session.request(leg, request, token)
        elif request.body:
            session.request(leg, as_update(request), token)
        elif leg.dialog is not None:
            try:
                leg.dialog.accept(request)
            except SipError as error:
                self.reply(leg, token, error.status, error.reason, NOTHING)
            else:
                self.reply(leg, token, 200, "OK", NOTHING)
        self.reliability.go_on(leg, request)

    def _find(self, request: Request) -> tuple[Held, Leg] | None:
        """The leg that a request is in (RFC 3261 12.2.2)."""
        tag = request.to_tag or ""
        found = self.legs.get(tag) or self.legs.get(request.call_id) or self.legs.get(tag.rpartition(".")[0])
        if found is None or found[1].dialog is None:
            return None
        leg, wanted = found[1], DialogId.of_request(request)
        if leg.dialog is None or wanted == leg.dialog.id:
            return found
        early = leg.early.get(tag if leg.role is Role.SERVER else request.from_tag or "")
        if early is None or early.id != wanted:
            return None
        leg.dialog = early
        return found

    @staticmethod
    def _follow(session: Held, leg: Leg, request: Request) -> None:
        """Where the caller has an early dialog with each phone: go on in that of the other side, too."""
        if isinstance(session, OwnSession) or leg not in session.pair:
            return
        other = session.other(leg)
        server, client = (leg, other) if leg.role is Role.SERVER else (other, leg)
        if server.role is not Role.SERVER or server.state is not State.INVITED or NUMBERED not in client.flags:
            return
        if leg is client:
            server.speak(client.number_of(request.from_tag or ""))
        else:
            number = server.number(request.to_tag or "")
            tag = client.tags[number - 1] if 0 < number <= len(client.tags) else ""
            client.dialog = client.early.get(tag, client.dialog)

    def _cancelled(self, run: Run, request: Request) -> bool:
        server = self.user.layer.find(request)
        context = None if server is None else server.user
        found = getattr(context, "kept", {}).get(KEPT)
        if context is None or found is None:
            return False
        leg = found[1]
        session = self.where(leg, found[0])
        self.user.reply(run, 200, "OK", to_tag=leg.key if leg.role is Role.SERVER else "")
        if context.status < 200:
            self.shown.request(request, run.flow, found, lambda seen: self._give_up(session, leg, seen))
        return True

    @staticmethod
    def _give_up(session: Held, leg: Leg, cancel: Request) -> None:
        if isinstance(session, OwnSession):
            session.cancelled(leg, cancel)
        else:
            session.cancelled(leg)

    # -- what sessions ask for (``session.Port``)

    def reply(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> None:
        """Answer a request."""
        self._changed(leg)
        if token is None or token.status >= 200:
            return
        if token.request.method != "INVITE" or not self.reliability.takes(leg, token, Reply(status, reason, content)):
            self.say(leg, token, status, reason, content)

    def say(self, leg: Leg, token: Any, status: int, reason: str, content: Content) -> bytes:
        """Answer a request now; what is sent."""
        if token.status >= 200:
            return b""
        method = token.request.method
        headers = content.headers
        if 100 < status < 300 and (method in WITH_CONTACT):
            headers += self._contact(leg)
        tag = ""
        if leg.role is Role.SERVER and token.request.to_tag is None:
            tag = leg.tag(content.number if status < 300 else 0)
            if content.number and 100 < status < 300:
                leg.speak(content.number)
        if 200 <= status < 300:
            self._note(leg, token.request)
            headers = self.timers.answered(leg, token.request, headers)
        token.reply(
            token.reply_run(), status, reason or reason_for(status), to_tag=tag, headers=headers, body=content.body,
            content_type=content.content_type,
        )
        sent: bytes = token.server.data
        return sent

    @property
    def t1(self) -> float:
        """Timer T1, in seconds."""
        length: float = self.user.layer.settings.t1
        return length

    def repeat(self, token: Any, status: int, data: bytes) -> None:
        """Send a provisional response once more."""
        if token.status < 200:
            self.user.perform(self.user.layer.respond(token.server, data, status, self.user.clock()))

    def refresh(self, leg: Leg) -> None:
        """Refresh the session of ``leg``."""
        session, _ = self.legs.get(leg.key, (None, leg))
        if session is not None:
            session.refresh(leg)

    def expired(self, leg: Leg) -> None:
        """Nobody has refreshed the session of ``leg``: end it."""
        session, _ = self.legs.get(leg.key, (None, leg))
        if isinstance(session, Session):
            session.end(408, "Request Timeout")
        elif session is not None:
            session.expired()

    def unacknowledged(self, leg: Leg, token: Any) -> None:
        """A reliable provisional response has not been acknowledged: refuse the INVITE (RFC 3262 3)."""
        session, _ = self.legs.get(leg.key, (None, leg))
        self.say(leg, token, 504, "Server Time-out", NOTHING)
        if session is None:
            return
        if token is not leg.token and leg.exchange is not None:
            session.cancelled(leg)
        elif isinstance(session, OwnSession):
            session.expired()
        else:
            session.end(504, "Server Time-out")

    def send(self, leg: Leg, method: str, content: Content, heard: Heard, dialog: Dialog | None = None) -> int:
        """Send a request within a leg; ``dialog``: in another one than that which spoke last."""
        self._changed(leg)
        if method == "PRACK" and dialog is None and "rack:" not in content.headers.lower():
            return self.reliability.pass_prack(leg, content, heard)
        offered = bool(content.body)
        dialog = dialog or leg.dialog
        assert dialog is not None
        headers = content.headers + self.timers.asked(leg, method, content)
        headers += self._contact(leg) if method in WITH_CONTACT else ""
        first = 0
        has_success = False

        def success(response: Response) -> None:
            nonlocal has_success
            if has_success:
                heard(response.status, response)
            else:
                has_success = True
                self._show(leg, response.status, response, heard)

        again = success if method == "INVITE" else None

        def send(line: str, challenges: int) -> None:
            nonlocal first
            data = dialog.request(method, "", headers=headers + line, body=content.body, content_type=content.content_type)
            request = parse(data)
            assert isinstance(request, Request) and dialog.local_cseq is not None
            if first and method == "INVITE":
                leg.renumbered[first] = dialog.local_cseq
            first = first or dialog.local_cseq

            def answered(status: int, response: Response | None) -> None:
                if again is None or not 200 <= status < 300:
                    self._show(leg, status, response, arrived)

            def arrived(status: int, response: Response | None) -> None:
                if again is not None and response is not None and status < 200 and not self._in_order(leg, response, offered):
                    return
                credentials = "" if leg.is_over else self._credentials(leg, request, status, response, challenges)
                if credentials:
                    send(credentials, challenges + 1)
                else:
                    heard(status, response)

            self.user.launch(self._send(leg, request, answered, dialog.next_hop, again, dialog))

        send("", 0)
        return first

    def call(self, session: Held, leg: Leg, content: Content, challenges: int = 0) -> None:
        """Send the INVITE of a client leg."""
        if content.headers or content.body:
            leg.invite = with_content(leg.invite, content)
        if self.contact_params and not challenges:
            place = leg.invite.positions("contact")[0]
            leg.invite = rewritten(leg.invite, NO_EDITS.replace(place, self._contact(leg).rstrip()))
        invite = leg.invite

        def answered(status: int, response: Response | None) -> None:
            self._show(leg, status, response, arrived)

        def arrived(status: int, response: Response | None) -> None:
            if leg.state in (State.CALLING, State.RINGING):
                if response is not None and 100 < status < 200:
                    leg.ring(response)
                    if not self._in_order(leg, response, bool(invite.body)):
                        return
                line = self._credentials(leg, invite, status, response, challenges)
                if line:
                    leg.invite = with_line(invite, line)
                    leg.early.clear()
                    self.call(session, leg, NOTHING, challenges + 1)
                    return
            self.where(leg, session).heard(leg, status, response)

        def success(response: Response) -> None:
            self.where(leg, session).success(leg, response)

        self.user.launch(self._send(leg, invite, answered, leg.next_hop or None, success, None))

    def _show(self, leg: Leg, status: int, response: Response | None, then: Heard) -> None:
        """Let the script's route see a response, and go on with it."""
        if response is None or status == 100:
            then(status, response)
        else:
            self._note(leg, response)
            self.timers.heard(leg, response, status)
            self.shown.reply(response, self.legs.get(leg.key), lambda seen: then(status, seen))

    def _in_order(self, leg: Leg, response: Response, offered: bool) -> bool:
        """Acknowledge a reliable provisional response to an INVITE of ours; false if it was heard before."""
        session, _ = self.legs.get(leg.key, (None, leg))
        asker = None
        if isinstance(session, Session) and leg in session.pair:
            token = session.other(leg).token if leg.exchange is None else leg.exchange.token
            asker = None if token is None else token.request
        return self.reliability.heard(leg, response, asker, offered)

    def _credentials(self, leg: Leg, request: Request, status: int, response: Response | None, challenges: int) -> str:
        """The line that answers a challenge; "" if there is none, or no password for it, or it was refused twice."""
        if self.auth is None or response is None or status not in (401, 407) or challenges >= MAX_CHALLENGES:
            return ""
        run = Run(request, RouteKind.LOCAL, None, self.user.clock(), self.user)
        run.avps = leg.avps
        made = self.auth.answer(run, response, request.method, request.uri, request.body)
        return "" if made is None else f"{made.name}: {made.credentials}\r\n"

    async def _send(
        self, leg: Leg, request: Request, heard: Heard, next_hop: str | None, acknowledge: Callable[[Response], None] | None,
        dialog: Dialog | None,
    ) -> None:
        status = 0
        kept: dict[str, Any] = {KEPT: self.legs.get(leg.key)}
        trail = self._trail(leg)
        if trail is not None:
            kept[WATCHER] = trail
        try:
            sent = await self.tm.originate(
                request, self.faults.heard(leg, heard), next_hop=next_hop, socket=leg.socket, kept=kept, dialog=dialog,
                acknowledge=None if acknowledge is None else self.faults.success(leg, acknowledge),
            )
        except NoWay as error:
            sent, status = False, error.status
        except SipError as error:
            sent, status = False, error.status
        name = request.call_id, request.cseq.number
        unwanted = name in self._unwanted
        self._unwanted.discard(name)
        if not sent:
            heard(status, None)
        elif unwanted:
            self._cancel(name)

    def _trail(self, leg: Leg) -> Watcher | None:
        """Who wants to see what goes out by ``leg``."""
        if self.onlooker is None:
            return None
        found = self.legs.get(leg.key)
        return None if found is None else self.onlooker.trail(*found)

    def cancel(self, leg: Leg, number: int) -> None:
        """Cancel an INVITE of ours."""
        number = leg.renumbered.get(number, number)
        name = leg.invite.call_id if leg.dialog is None else leg.dialog.id.call_id, number
        if not self._cancel(name):
            self._unwanted.add(name)

    def _cancel(self, name: tuple[str, int]) -> bool:
        owner = self.tm.local_invites.get(name)
        if owner is not None:
            owner.cancel()
        return owner is not None

    def acknowledge(self, leg: Leg, dialog: Dialog, number: int, content: Content) -> None:
        """Acknowledge a 2xx; what was sent for it before is sent again."""
        self._changed(leg)
        number = leg.renumbered.get(number, number)
        key = dialog.id.remote_tag, number
        if key not in leg.acks:
            while len(leg.acks) >= 4:
                del leg.acks[next(iter(leg.acks))]
            leg.acks[key] = None
            self.user.launch(self._acknowledge(leg, dialog, number, content, key))
        elif leg.acks[key] is not None:
            flow, data = leg.acks[key]
            flow.send(data)

    async def _acknowledge(self, leg: Leg, dialog: Dialog, number: int, content: Content, key: tuple[str, int]) -> None:
        user = self.user
        try:
            run = Run(leg.invite, RouteKind.LOCAL, None, user.clock(), user)
            run.dst_uri = dialog.next_hop
            run.send_socket = leg.socket
            flow = await find_flow(run)
            trail = self._trail(leg)
            if trail is not None:
                flow = trail.downstream(flow)
        except (NoWay, SipError) as error:
            user.log_rarely(("b2b ack", str(error)), -1, f"b2b_entities: no ACK to a 2xx: {error}")
            return
        via = via_line(run, flow, user.layer.new_branch()).removeprefix("Via: ")
        data = dialog.request(
            "ACK", via, cseq=number, headers=user.agent_line, body=content.body, content_type=content.content_type
        )
        if key in leg.acks:
            leg.acks[key] = flow, data
        flow.send(data)

    def after(self, seconds: float, call: Callable[[], None]) -> Any:
        """Call ``call`` later."""
        return self.user.after(seconds, lambda _now: call())

    def content(self, message: Message, leg: Leg | None) -> Content:
        """What of ``message`` the other side sees."""
        session, _ = (None, None) if leg is None else self.legs.get(leg.key, (None, leg))
        if leg is None or not isinstance(session, Session) or leg not in session.pair:
            return self.passing.content(message)
        source = session.other(leg)
        content = self.passing.content(message, any(TRANSPARENT in one.flags for one in session.legs))
        if isinstance(message, Request):
            if message.method == "PRACK":
                return replace(content, provisional=self.reliability.origin(source, message))
            if message.method == "REFER" and self.beyond is not None:
                for value in message.headers("Refer-To")[:1]:
                    return replace(content, headers=content.headers.replace(value, renamed(value, self.beyond)))
        elif message.method == "INVITE" and leg.token is not None:
            if NUMBERED in source.flags:
                return replace(content, number=source.number_of(message.to_tag or ""))
            if REDIRECTS in source.flags and 300 <= getattr(message, "status", 0) < 400:
                lines = "".join(f"Contact: {value}\r\n" for value in message.headers("Contact"))
                return replace(content, headers=content.headers + lines)
        return content

    def _note(self, leg: Leg, message: Message) -> None:
        """Take note of whether UPDATE is known, and of the parameters of a Contact that the other side is to be shown."""
        if message.header("Allow") is not None:
            leg.knows_update = any(each.strip() == "UPDATE" for value in message.headers("Allow") for each in value.split(","))
        if self.contact_params and (message.method in TARGET_REFRESH):
            found = contact_params(message, self.contact_params)
            if found is not None:
                leg.contact_params = found

    def _contact(self, leg: Leg) -> str:
        """The Contact header of what we send to ``leg``."""
        return f"Contact: {leg.contact}{self.shown_params(leg)}\r\n"

    def shown_params(self, leg: Leg) -> str:
        """What ``leg`` is shown of the other side's Contact."""
        if not self.contact_params:
            return ""
        session, _ = self.legs.get(leg.key, (None, leg))
        return session.other(leg).contact_params if isinstance(session, Session) and leg in session.pair else ""

    def forget(self, leg: Leg) -> None:
        """Forget a leg that had left its session."""
        self._changed(leg)
        self.timers.stop(leg)
        self.legs.pop(leg.key, None)

    def ended(self, session: Held) -> None:
        """Forget the legs of ``session``."""
        for leg in session.legs:
            self.timers.stop(leg)
            if self.legs.get(leg.key) == (session, leg):
                del self.legs[leg.key]
        for over in self.on_over:
            over(session)
        if isinstance(session, OwnSession):
            if session.limit is not None:
                session.limit.cancel()
            return
        for call in self.on_ended:
            call(session)
