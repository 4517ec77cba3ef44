"""Subscriptions that phones have with us (RFC 6665 4.2): taken, refreshed, told of changes, ended.

``Subscriptions`` is the notifier of one event package. What is told is asked of a ``Source``: a document and a state for the key
under which a subscription was taken. One NOTIFY of a subscription is under way at a time; changes meanwhile go with the next."""

from __future__ import annotations

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


Send = Callable[[Request, Callable[[int, "Response | None"], None], str, Any], Awaitable[Any]]
"""Sends a request: the request, who hears the answer, the next hop, the socket; ``SipError`` if it cannot go."""


class Subscription:
    """One. ``ends``: monotonic seconds."""

    __slots__ = ("busy", "contact", "cseq", "dialog", "dirty", "ends", "event", "key", "over", "socket", "timer")

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
        self.over = ""


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
        self._answer(run, request, found, expires)
        if found.timer is not None:
            found.timer.cancel()
            found.timer = None
        if expires:
            found.ends = self.user.clock() + expires
            found.timer = self.user.after(expires, lambda _now: self._end(found, "terminated;reason=timeout"))
            self.source.wanted(found.key)
            self._notify(found)
        else:
            self._end(found, "terminated;reason=timeout")

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
        self._dialogs[dialog.id] = made
        self._first[request.call_id, request.from_tag or ""] = made
        self._keys.setdefault(key, set()).add(made)
        self.count += 1
        return made

    def _answer(self, run: Run, request: Request, found: Subscription, expires: int) -> None:
        routes = "".join(f"Record-Route: {each}\r\n" for each in request.headers("record-route"))
        self.user.reply(
            run, 200, "OK", to_tag=found.dialog.id.local_tag,
            headers=f"{routes}Contact: {found.contact}\r\nExpires: {expires}\r\n",
        )

    # ---- what they are told ----

    def changed(self, key: Any) -> None:
        """What is told of ``key`` has changed."""
        for each in list(self._keys.get(key, ())):
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
            if status >= 300 and status not in (500, 503):
                self._forget(found)  # the phone knows nothing of it, or is gone (4.2.2)
            elif found.dirty:
                self._notify(found)

        try:
            request = parse(found.dialog.request("NOTIFY", "", headers=headers, body=body, content_type=kind))
            assert isinstance(request, Request)
            await self.send(request, answered, found.dialog.next_hop, found.socket)
        except (SipError, MalformedMessage) as error:
            self.user.log_rarely(("notify", error.reason), 1, f"no NOTIFY can be sent: {error.reason}")
            answered(503, None)
