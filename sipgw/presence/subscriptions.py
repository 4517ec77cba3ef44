"""Subscriptions that phones have with us (RFC 6665 4.2): taken, refreshed, told of changes, ended.

``Subscriptions`` is the notifier of one event package. What is told is asked of a ``Source``: a document and a state for the key
under which a subscription was taken. One NOTIFY of a subscription is under way at a time; changes meanwhile go with the next.

What ``Source.noted`` is given is enough to go on with after a restart (``resume``), even one by ``kill -9``: CSeq numbers are
reserved before they are used."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from sipgw.script.run import Run
from sipgw.sip.dialog import Dialog, DialogId
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.message import Request, Response, parse

__all__ = ["Source", "Subscription", "Subscriptions"]

SHORTEST: Final = 60
LONGEST: Final = 3600
"""Seconds of a subscription."""
AHEAD: Final = 100
"""CSeq numbers that are reserved at once."""
MOST: Final = 50_000
ALLOWED: Final = "presence"


class Source(Protocol):
    """Who knows what is to be told."""

    def told(self, key: Any) -> tuple[str, bytes, str]:
        """The state of subscriptions of ``key`` ("active", "pending", "terminated;reason=..."), a document and its type."""

    def wanted(self, key: Any) -> None:
        """Somebody subscribes to ``key``, anew or again."""

    def unwanted(self, key: Any) -> None:
        """Nobody subscribes to ``key`` any more."""

    def noted(self, id: str, key: Any, text: str | None) -> None:
        """What to keep of a subscription for ``resume``; None: nothing any more."""


Send = Callable[[Request, Callable[[int, "Response | None"], None], str, Any], Awaitable[Any]]
"""Sends a request: the request, who hears the answer, the next hop, the socket; ``SipError`` if it cannot go."""


class Subscription:
    """One. ``ends``: monotonic seconds."""

    __slots__ = (
        "anew", "busy", "contact", "cseq", "dialog", "dirty", "ends", "event", "key", "over", "reserved", "socket", "timer",
        "told",
    )

    def __init__(self, key: Any, dialog: Dialog, contact: str, socket: Any, event: str, cseq: int) -> None:
        self.key = key
        self.dialog = dialog
        self.contact = contact
        self.socket = socket
        self.event = event
        self.cseq = cseq
        """Of the request that made it."""
        self.ends = 0.0
        self.timer: Any = None
        self.busy = False
        self.dirty = False
        self.anew = False
        """The phone has asked to be told, whether there is news or not."""
        self.told: tuple[str, bytes] | None = None
        """What it was told last."""
        self.over = ""
        self.reserved = 0
        """Up to which CSeq the numbers are noted as used."""

    @property
    def id(self) -> str:
        """Its name."""
        return " ".join(self.dialog.id)


class Subscriptions:
    """The subscriptions of one event package, ``presence``."""

    def __init__(self, user: Any, send: Send, source: Source, document: str) -> None:
        self.user = user
        self.send = send
        self.source = source
        self.document = document
        """The type of its documents."""
        self.count = 0
        self._dialogs: dict[DialogId, Subscription] = {}
        self._first: dict[tuple[str, str], Subscription] = {}
        """By Call-ID and tag of the phone, for a request that comes again."""
        self._keys: dict[Any, set[Subscription]] = {}

    def of(self, key: Any) -> int:
        """How many subscribe to ``key``."""
        return len(self._keys.get(key, ()))

    # ---- what phones ask ----

    def take(self, run: Run, find: Callable[[Request], Any]) -> bool:
        """Answer a SUBSCRIBE. ``find`` gives the key for a new one, or raises ``SipError``."""
        request = run.message
        assert isinstance(request, Request)
        try:
            self._take(run, request, find)
        except SipError as error:
            headers = {489: f"Allow-Events: {ALLOWED}", 423: f"Min-Expires: {SHORTEST}", 406: f"Accept: {self.document}"}
            more = f"{headers[error.status]}\r\n" if error.status in headers else ""
            self.user.reply(run, error.status, error.reason, headers=more)
            return False
        return True

    def _take(self, run: Run, request: Request, find: Callable[[Request], Any]) -> None:
        event = (request.header("event") or "").strip()
        if event.partition(";")[0].strip().lower() != ALLOWED:
            raise SipError("Bad Event", 489)
        accept = request.header("accept")
        if accept and self.document not in accept.lower() and "*/*" not in accept:
            raise SipError("Not Acceptable", 406)
        expires = LONGEST if request.expires is None else request.expires
        if 0 < expires < SHORTEST:
            raise SipError("Interval Too Brief", 423)
        expires = min(expires, LONGEST)
        if request.to_tag:
            found = self._dialogs.get(DialogId.of_request(request))
            if found is None:
                raise SipError("Subscription Does Not Exist", 481)
            found.dialog.accept(request)
        else:
            found = self._first.get((request.call_id, request.from_tag or ""))
            if found is not None and found.cseq != request.cseq.number:
                raise SipError("Server Internal Error", 500)
            if found is None:
                found = self._begin(run, request, find(request), event)
        self._answer(run, found, expires)
        if expires:
            self._lasts(found, expires)
            self._note(found)
            self.source.wanted(found.key)
            found.anew = True
            self._notify(found)
        else:
            self._end(found, "terminated;reason=timeout")

    def resume(self, key: Any, text: str) -> bool:
        """Go on with what was noted before a restart; nothing is told until ``changed``. False if it is over or broken."""
        try:
            kept: Any = json.loads(text)
            dialog, left = Dialog.decode(kept["dialog"]), kept["ends"] - self.user.wall_clock()
            made = Subscription(key, dialog, kept["contact"], self.user.find_socket(kept["socket"]), kept["event"], kept["cseq"])
            made.reserved = dialog.local_cseq = int(kept["reserved"])
        except (ValueError, KeyError, TypeError):
            return False
        if left <= 0 or dialog.id in self._dialogs:
            return False
        self._keep(made)
        self._lasts(made, left)
        return True

    def _lasts(self, found: Subscription, seconds: float) -> None:
        if found.timer is not None:
            found.timer.cancel()
        found.ends = self.user.clock() + seconds
        found.timer = self.user.after(seconds, lambda _now: self._end(found, "terminated;reason=timeout"))

    def _keep(self, made: Subscription) -> None:
        dialog = made.dialog
        self._dialogs[dialog.id] = made
        self._first[dialog.id.call_id, dialog.id.remote_tag] = made
        self._keys.setdefault(made.key, set()).add(made)
        self.count += 1

    def _note(self, found: Subscription) -> None:
        user, socket = self.user, found.socket
        found.reserved = (found.dialog.local_cseq or 0) + AHEAD
        self.source.noted(found.id, found.key, json.dumps({
            "dialog": found.dialog.encode(), "contact": found.contact, "event": found.event, "cseq": found.cseq,
            "socket": "" if socket is None else f"{socket.transport}:{socket.host}:{socket.port}", "reserved": found.reserved,
            "ends": round(user.wall_clock() + found.ends - user.clock()),
        }))

    def _begin(self, run: Run, request: Request, key: Any, event: str) -> Subscription:
        if len(self._dialogs) >= MOST:
            raise SipError("Service Unavailable", 503)
        if not request.contacts:
            raise SipError("Missing Contact", 400)
        assert run.flow is not None
        socket = run.flow.socket
        dialog = Dialog.as_uas(request, self.user.layer.new_branch()[9:])
        host, port = socket.advertised_host or socket.host, socket.advertised_port or socket.port
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        user = (run.uri or request.uri).partition(":")[2].partition("@")[0] if "@" in (run.uri or request.uri) else ""
        transport = "" if run.flow.transport == "udp" else f";transport={run.flow.transport}"
        contact = f"<sip:{user}{'@' if user else ''}{host}:{port}{transport}>"
        made = Subscription(key, dialog, contact, socket, event, request.cseq.number)
        self._keep(made)
        return made

    def _answer(self, run: Run, found: Subscription, expires: int) -> None:
        self.user.reply(
            run, 200, "OK", to_tag=found.dialog.id.local_tag, headers=f"Contact: {found.contact}\r\nExpires: {expires}\r\n"
        )

    # ---- what they are told ----

    def changed(self, key: Any) -> None:
        """What is told of ``key`` has changed."""
        for each in list(self._keys.get(key, ())):
            self._notify(each)

    def all_changed(self) -> None:
        """What is told of everything has changed."""
        for each in list(self._dialogs.values()):
            self._notify(each)

    def end_all(self, reason: str) -> None:
        """End all subscriptions: we leave."""
        for each in list(self._dialogs.values()):
            self._end(each, f"terminated;reason={reason}")

    def _end(self, found: Subscription, state: str) -> None:
        if found.over:
            return
        found.over = state
        self._notify(found)
        self._forget(found)

    def _forget(self, found: Subscription) -> None:
        if self._dialogs.pop(found.dialog.id, None) is None:
            return
        found.over = found.over or "terminated"
        if found.timer is not None:
            found.timer.cancel()
        self._first.pop((found.dialog.id.call_id, found.dialog.id.remote_tag), None)
        self.count -= 1
        self.source.noted(found.id, found.key, None)
        rest = self._keys[found.key]
        rest.discard(found)
        if not rest:
            del self._keys[found.key]
            self.source.unwanted(found.key)

    def _notify(self, found: Subscription) -> None:
        if found.busy:
            found.dirty = True
            return
        state, body, kind = self.source.told(found.key)
        if (state, body) == found.told and not found.anew and not found.over:
            found.dirty = False
            return
        found.anew, found.told = False, (state, body)
        if found.over:
            state = found.over
        elif not state.startswith("terminated"):
            state = f"{state};expires={max(0, round(found.ends - self.user.clock()))}"
        headers = f"Contact: {found.contact}\r\nEvent: {found.event}\r\nSubscription-State: {state}\r\n"
        found.busy, found.dirty = True, False
        self.user.launch(self._send(found, headers, body, kind))
        if state.startswith("terminated"):
            self._forget(found)

    async def _send(self, found: Subscription, headers: str, body: bytes, kind: str) -> None:
        def answered(status: int, _response: Response | None) -> None:
            if status < 200:
                return
            found.busy = False
            if status >= 300:
                found.told = None
            if status >= 300 and status not in (500, 503):
                self._forget(found)  # the phone knows nothing of it, or is gone (4.2.2)
            elif found.dirty:
                self._notify(found)

        try:
            request = parse(found.dialog.request("NOTIFY", "", headers=headers, body=body, content_type=kind))
            assert isinstance(request, Request)
            if request.cseq.number >= found.reserved - AHEAD // 2 and not found.over:
                self._note(found)
            await self.send(request, answered, found.dialog.next_hop, found.socket)
        except (SipError, MalformedMessage) as error:
            self.user.log_rarely(("notify", error.reason), 1, f"no NOTIFY can be sent: {error.reason}")
            answered(503, None)
