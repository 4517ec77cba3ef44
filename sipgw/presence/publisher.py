"""Publications of ours (RFC 3903 4): made, changed, refreshed, taken back.

``Publisher`` has one for each key; ``publish`` is called whenever there is something new to say. One PUBLISH of a publication is
under way at a time; what changes meanwhile goes with the next. What the other side has forgotten (412) is published anew; what
fails is tried again, after a time that doubles."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from sipgw.presence.watcher import FIRST_WAIT, LONGEST_WAIT, MAX_CHALLENGES, Authenticate
from sipgw.sip.dialog import Dialog
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Request, Response, parse

__all__ = ["Publication", "Publisher", "Target"]

LONGEST: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """Whose state is published, and where: URIs. ``expires``: in seconds."""

    uri: str
    next_hop: str = ""
    event: str = "presence"
    kind: str = "application/pidf+xml"
    expires: int = 3600


Send = Callable[[Request, Callable[[int, "Response | None"], None], str, bool], Awaitable[Any]]
"""As that of ``presence.watcher``."""


class Publication:
    """One. ``etag``: its name at the other side, "" where it is not there yet."""

    def __init__(self, publisher: Publisher, key: Any, target: Target, body: bytes) -> None:
        self.publisher = publisher
        self.key = key
        self.target = target
        self.body = body
        self.etag = ""
        self.failures = 0
        self.over = False
        token = publisher.user.layer.new_branch()[9:]
        self._half = Dialog.half(token, token[:12], f"<{target.uri}>", f"<{target.uri}>", target.uri)
        self._expires = target.expires
        self._busy = False
        self._dirty = False
        self._ending = False
        self._answers: dict[tuple[str, str], str] = {}
        self._challenges = 0
        self._timer: Any = None

    def change(self, body: bytes) -> None:
        """Say something new."""
        self.body = body
        self._go(True)

    def remove(self) -> None:
        """Take it back."""
        self.over = True
        self._go(False)

    def _go(self, new: bool) -> None:
        """Send what there is to be said. ``new``: the document; else the publication goes on, or ends, as it is."""
        if self._busy:
            self._dirty = True
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.over and not self.etag:
            self.publisher.drop(self)
            return
        self._answers.clear()
        self._challenges = 0
        self._send(new or not self.etag)

    def _send(self, new: bool) -> None:
        expires = 0 if self.over else self._expires
        new = new and not self.over
        self._ending = self.over
        match = f"SIP-If-Match: {self.etag}\r\n" if self.etag else ""
        answers = "".join(f"{line}\r\n" for line in self._answers.values())
        headers = f"Event: {self.target.event}\r\nExpires: {expires}\r\n{match}{answers}"
        self._busy = True
        self.publisher.user.launch(self._sending(headers, self.body if new else b"", new))

    async def _sending(self, headers: str, body: bytes, new: bool) -> None:
        def answer(status: int, response: Response | None) -> None:
            if status >= 200:
                self._busy = False
                self._answered(status, response, new)

        try:
            data = self._half.request("PUBLISH", "", headers=headers, body=body, content_type=self.target.kind if body else "")
            request = parse(data)
            assert isinstance(request, Request)
            await self.publisher.send(request, answer, self.target.next_hop, True)
        except SipError as error:
            self.publisher.user.log_rarely(("publish", error.reason), 1, f"no PUBLISH can be sent: {error.reason}")
            answer(max(error.status, 400), None)

    def _answered(self, status: int, response: Response | None, new: bool) -> None:
        user = self.publisher.user
        if response is not None and status in (401, 407) and self._challenges < MAX_CHALLENGES:
            made = self.publisher.authenticate(response, "PUBLISH", self.target.uri)
            if made is not None:
                realm, name, value = made
                self._challenges += 1
                self._answers[name, realm] = f"{name}: {value}"
                self._send(new)
                return
        if response is not None and status == 423 and _number(response, "min-expires") > self._expires and not self.over:
            self._expires = _number(response, "min-expires")
            self._send(new)
        elif self._ending or (self.over and status >= 300):
            self.publisher.drop(self)
        elif response is not None and status < 300:
            self.failures = 0
            self.etag = (response.header("sip-etag") or "").strip()
            granted = response.expires or self._expires
            self._timer = user.after(max(1.0, min(granted * 0.9, granted - 5.0)), lambda _now: self._go(False))
            self._next()
        elif status == 412 and self.etag:
            self.etag = ""
            self._go(True)
        else:
            self.etag = ""  # what became of it nobody knows; it ends by itself
            self.failures += 1
            wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.failures - 1, 20))
            self._dirty = False
            self._timer = user.after(wait, lambda _now: self._go(True))

    def _next(self) -> None:
        if self._dirty:
            self._dirty = False
            self._go(not self.over)


class Publisher:
    """All that we publish."""

    def __init__(self, user: Any, send: Send, authenticate: Authenticate = lambda *_what: None) -> None:
        self.user = user
        self.send = send
        self.authenticate = authenticate
        self.published: dict[Any, Publication] = {}

    def publish(self, key: Any, target: Target, body: bytes) -> None:
        """Say ``body`` of ``key``; nothing is sent if that has been said."""
        found = self.published.get(key)
        if found is None:
            found = self.published[key] = Publication(self, key, target, body)
            found.change(body)
        elif found.body != body:
            found.change(body)

    def remove(self, key: Any) -> None:
        """Take it back."""
        found = self.published.pop(key, None)
        if found is not None:
            found.remove()

    def remove_all(self) -> None:
        """Take all back: we leave."""
        for key in list(self.published):
            self.remove(key)

    def drop(self, publication: Publication) -> None:
        """Forget one that is over."""
        if self.published.get(publication.key) is publication:
            del self.published[publication.key]


def _number(response: Response, name: str) -> int:
    try:
        return parse_uint(response.header(name) or "0", LONGEST)
    except MalformedMessage:
        return 0
