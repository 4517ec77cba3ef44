"""Calls whose one end is the server itself: what scripts and the operator say in them, and the event that they hear.

The machinery is ``sipgw/b2bua/own.py``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from sipgw.b2bua.legs import Leg, Role
from sipgw.b2bua.own import Flags, Kind, OwnSession, parse_flags
from sipgw.b2bua.port import Content
from sipgw.exports import EVENT, REQUEST, HeaderText, Module, Writable, event, function, mi, param, requires
from sipgw.mi.commands import MIError
from sipgw.modules._b2b_port import KEPT, Entities
from sipgw.modules._dialog_base import whole_lines
from sipgw.modules.tm import Tm
from sipgw.proxy.disguise import is_uri
from sipgw.proxy.hiding import own_contact
from sipgw.proxy.originate import new_request
from sipgw.script.run import Run
from sipgw.sip.address import NameAddr
from sipgw.sip.errors import SipError
from sipgw.sip.grammar import is_token
from sipgw.sip.message import Message, Request, Response
from sipgw.sip.replies import reason_for

SDP = "application/sdp"
START = ("proxy", "body", "content_type", "extra_headers", "flags", "socket")
"""What a call may be begun with; a type only where there is a body."""


def _choices(first: tuple[str, ...], names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The lists of parameters: ``first``, and any of ``names`` with them, ``content_type`` only beside ``body``."""
    found = [
        first + tuple(name for at, name in enumerate(names) if chosen >> at & 1) for chosen in range(1 << len(names))
    ]
    return tuple(one for one in found if "content_type" not in one or "body" in one)


def content(body: str | None, extra_headers: str | None, content_type: str | None) -> Content:
    """What goes into a message; ``ValueError`` if it cannot."""
    headers = extra_headers or ""
    if headers and not headers.endswith("\r\n"):
        headers += "\r\n"
    whole_lines(headers)
    if not body:
        return Content(headers)
    # COMPAT: OpenSIPS puts this parameter into the message as it is, so scripts write the whole line
    kind = re.sub(r"(?i)\Acontent-type[ \t]*:", "", content_type or SDP).strip()
    if not kind or re.search(r"[\r\n\0]", kind):
        raise ValueError("content_type is none")
    return Content(headers, body.encode("utf-8", "surrogateescape"), kind)


def address(text: str) -> str:
    """A name-addr from ``URI`` or ``display_name,URI``; ``ValueError`` if it is neither."""
    match = re.fullmatch(r'\s*(?:("(?:[^"\\\r\n\0]|\\[^\r\n\0])*"|[^",<>\\\r\n\0]*?)\s*,)?\s*([^\s<>",]+)\s*', text)
    if match is None or not is_uri(match[2]):
        raise ValueError(f"{text!r} is no URI, nor a display name and a URI with a comma between them")
    display = match[1] or ""
    if display and not display.startswith('"'):
        display = f'"{display}"'
    return f"{display} <{match[2]}>".lstrip()


class UaSessions(Module):
    """The server's own calls."""

    tm: Tm = requires("tm")

    advertised_contact: str = param("", "The Contact of calls that a command begins; without it that of the socket")
    ua_default_timeout: int = param(43200, "Seconds that a call of the server's own may last, if its flags do not say")

    ua_session = event(
        "E_UA_SESSION", "key", "event_type", "entity_type", "status", "reason", "method", "body", "headers", "extra_params"
    )

    entities: Entities

    # -- the event

    def _tell(self, session: OwnSession, kind: str, method: str, message: Message | None, status: int, extra: str = "") -> None:
        if not self.ua_session.heard:
            return
        reason = reason_for(status) if status and message is None else ""
        body = headers = ""
        if isinstance(message, Response):
            reason = message.reason
        if message is not None:
            if "b" in session.letters:
                body = message.body.decode("utf-8", "surrogateescape")
            if "h" in session.letters:
                headers = "".join(f"{line}\r\n" for line in message.lines[1:])
        self.ua_session.emit(
            key=session.key, event_type=kind, entity_type="UAS" if session.leg.role is Role.SERVER else "UAC", status=status,
            reason=reason, method=method, body=body, headers=headers, extra_params=extra,
        )

    def _begin(self, session: OwnSession, flags: Flags) -> None:
        self.entities.add(session, session.leg)
        seconds = flags.lasts or self.ua_default_timeout
        session.ends = int(self.server.user.wall_clock()) + seconds
        session.limit = self.entities.after(seconds, session.expired)

    def _own(self, key: str) -> OwnSession | None:
        found = self.entities.legs.get(key)
        return found[0] if found is not None and isinstance(found[0], OwnSession) else None

    # -- for scripts

    @function(REQUEST)
    def ua_session_server_init(
        self, run: Run, key: Writable | None = None, flags: Annotated[str, parse_flags] | None = None,
        extra_params: str | None = None,
    ) -> bool:
        """Begin a call of the server's own with this INVITE; ``key`` receives its name.

        Flags: ``tNNN`` a limit in seconds; ``a`` ACKs, ``r`` responses raise the event too; ``d`` no ACK of our own to a 2xx;
        ``h`` headers, ``b`` bodies stand in the event; ``n`` no event NEW."""
        request = run.message
        if not isinstance(request, Request) or request.method != "INVITE" or request.to_tag or run.flow is None:
            run.user.log(-1, "ua_session_server_init: this is no INVITE that begins a call")
            return False
        try:
            chosen = parse_flags(flags or "")
        except ValueError as error:
            run.user.log(-1, f"ua_session_server_init: {error}")
            return False
        socket = run.flow.socket
        leg = Leg(self.entities.new_key(), Role.SERVER, request, socket=socket, contact=own_contact(socket))
        try:
            session = OwnSession(leg, self.entities, self._tell, chosen.letters)
        except SipError as error:
            run.user.log(-1, f"ua_session_server_init: {error.reason}")
            return False
        context = self.tm.context(run)
        if context is None:
            return False
        run.transaction = None  # it is the session's now
        leg.token = context
        context.kept[KEPT] = session, leg
        self._begin(session, chosen)
        if key is not None:
            key.set(run, session.key)
        if "n" not in chosen.letters:
            self._tell(session, Kind.NEW, "INVITE", request, 0, extra_params or "")
        return True

    @function(REQUEST | EVENT)
    def ua_session_update(
        self, run: Run, key: str, method: str, body: str | None = None, extra_headers: str | None = None,
        content_type: HeaderText | None = None,
    ) -> bool:
        """Send a request within a call of the server's own; ``ACK`` where the flag ``d`` leaves that to the script."""
        return self._said(run, "ua_session_update", lambda: self._update(key, method, content(body, extra_headers, content_type)))

    @function(REQUEST | EVENT)
    def ua_session_reply(
        self, run: Run, key: str, method: str, code: int, reason: HeaderText | None = None, body: str | None = None,
        extra_headers: str | None = None, content_type: HeaderText | None = None,
    ) -> bool:
        """Answer the INVITE of a call of the server's own, or a request within it."""
        return self._said(
            run, "ua_session_reply",
            lambda: self._reply(key, method, code, reason or "", content(body, extra_headers, content_type)),
        )

    @function(REQUEST | EVENT)
    def ua_session_terminate(self, run: Run, key: str, extra_headers: str | None = None) -> bool:
        """End a call of the server's own, by a BYE with ``extra_headers`` or as far as it is."""
        return self._said(run, "ua_session_terminate", lambda: self._terminate(key, content(None, extra_headers, None)))

    @staticmethod
    def _said(run: Run, name: str, do: Callable[[], None]) -> bool:
        try:
            do()
        except ValueError as error:
            run.user.log_rarely((name, str(error)), -1, f"{name}: {error}")
            return False
        return True

    def _find(self, key: str) -> OwnSession:
        session = self._own(key)
        if session is None:
            raise ValueError("there is no such session")
        return session

    def _update(self, key: str, method: str, what: Content) -> None:
        if not is_token(method):
            raise ValueError("the method is none")
        if not self._find(key).update(method, what):
            raise ValueError(f"{method} cannot be sent now")

    def _reply(self, key: str, method: str, code: int, reason: str, what: Content) -> None:
        if not 100 <= code < 700:
            raise ValueError(f"{code} is no status")
        if re.search(r"[\r\n\0]", reason):
            raise ValueError("the reason has a line end")
        if not self._find(key).reply(method, code, reason, what):
            raise ValueError(f"no {method} waits for an answer")

    def _terminate(self, key: str, what: Content) -> None:
        if not self._find(key).terminate(what):
            raise ValueError("it ends already")

    # -- for the operator

    @mi("ua_session_client_start", recipes=_choices(("ruri", "to", "from"), START))
    def start_client(
        self, ruri: str, to: str, from_: str, proxy: str = "", body: str = "", content_type: str = "", extra_headers: str = "",
        flags: str = "", socket: str = "",
    ) -> str:
        """``b2b_entities:ua_session_client_start``: call somebody; answers the key of the session.

        ``to``, ``from``: a URI, or ``display_name,URI``. ``flags`` as those of ``ua_session_server_init``. ``socket``: where the
        INVITE goes out."""
        user = self.server.user
        try:
            chosen = parse_flags(flags)
            what = content(body, extra_headers, content_type)
            sender, target = address(from_), address(to)
            if not is_uri(ruri) or (proxy and not is_uri(proxy)):
                raise ValueError("ruri or proxy is no URI")
        except ValueError as error:
            raise MIError(400, str(error)) from error
        out = user.find_socket(socket) if socket else None
        if socket and out is None:
            raise MIError(500, "Non-local socket specified")
        shown = out or user.default_socket()
        contact = self.advertised_contact or ("" if shown is None else own_contact(shown))
        if not contact:
            raise MIError(500, "Failed to start session")
        contact = contact if "<" in contact else f"<{contact if ':' in contact.partition('@')[0] else f'sip:{contact}'}>"
        kind = f"Content-Type: {what.content_type}\r\n" if what.body else ""
        try:
            invite = new_request(
                user, "INVITE", ruri, sender, target, headers=f"Contact: {contact}\r\n{what.headers}{kind}", body=what.body,
                call_id=self.entities.new_key(), cseq=1,
            )
        except SipError as error:
            raise MIError(500, "Failed to start session") from error
        leg = Leg(invite.call_id, Role.CLIENT, invite, socket=out, contact=contact, next_hop=proxy)
        session = OwnSession(leg, self.entities, self._tell, chosen.letters)
        self._begin(session, chosen)
        session.call()
        return session.key

    @mi("ua_session_update", recipes=_choices(("key", "method"), ("body", "content_type", "extra_headers")))
    def mi_update(self, key: str, method: str, body: str = "", content_type: str = "", extra_headers: str = "") -> None:
        """``b2b_entities:ua_session_update``: send a request within a call of the server's own."""
        self._done(
            "Failed to send sequential request", lambda: self._update(key, method, content(body, extra_headers, content_type))
        )

    @mi("ua_session_reply", recipes=_choices(("key", "method", "code", "reason"), ("body", "content_type", "extra_headers")))
    def mi_reply(
        self, key: str, method: str, code: int, reason: str, body: str = "", content_type: str = "", extra_headers: str = ""
    ) -> None:
        """``b2b_entities:ua_session_reply``: answer a request within a call of the server's own."""
        self._done(
            "Failed to send reply", lambda: self._reply(key, method, code, reason, content(body, extra_headers, content_type))
        )

    @mi("ua_session_terminate", recipes=(("key",), ("key", "extra_headers")))
    def mi_terminate(self, key: str, extra_headers: str = "") -> None:
        """``b2b_entities:ua_session_terminate``: end a call of the server's own."""
        self._done("Failed to terminate session", lambda: self._terminate(key, content(None, extra_headers, None)))

    @staticmethod
    def _done(text: str, do: Callable[[], None]) -> None:
        try:
            do()
        except ValueError as error:
            raise MIError(500, text, str(error)) from error

    @mi("ua_session_list", recipes=((), ("key",)))
    def list_own(self, key: str = "") -> Any:
        """``b2b_entities:ua_session_list``: the calls of the server's own, or that with ``key``."""
        if key:
            if not key.startswith(self.entities.prefix):
                raise MIError(400, "Bad format for b2b key")
            session = self._own(key)
            if session is None:
                raise MIError(404, "Entity not found")
            return self.entry(session.leg)
        return [self.entry(leg) for session, leg in self.entities.legs.values() if isinstance(session, OwnSession)]

    @staticmethod
    def entry(leg: Leg, logic_key: str = "") -> dict[str, Any]:
        """One leg for a management command; ``logic_key``: the key of its session, if b2b_logic decides."""
        dialog = leg.dialog
        invite = leg.invite
        own, theirs = ("", "") if dialog is None else (dialog.id.local_tag, dialog.id.remote_tag)
        server = leg.role is Role.SERVER
        numbers = (0, 0) if dialog is None else (dialog.local_cseq or 0, dialog.remote_cseq or 0)
        target = "" if dialog is None else dialog.remote_target
        ours = NameAddr.parse(leg.contact).uri_text
        contacts = (target, ours) if server else (ours, target)
        return {
            "type": leg.role.value, "key": leg.key, "logic_key": logic_key,
            "mod_name": "b2b_logic" if logic_key else "b2b_entities", "id": leg.id, "state": leg.state.value,
            "callid": invite.call_id, "ruri": invite.uri, "from": invite.from_.display, "from_uri": invite.from_.uri_text,
            "from_tag": theirs if server else invite.from_tag or "", "to": invite.to.display, "to_uri": invite.to.uri_text,
            "to_tag": own if server else theirs,
            "cseq": {"caller": numbers[server], "callee": numbers[not server]},
            "contact": {"caller": contacts[0], "callee": contacts[1]},
            "route_set": [] if dialog is None else dialog.route_set,
        }

