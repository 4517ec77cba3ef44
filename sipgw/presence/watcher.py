"""Subscriptions that we hold with others (RFC 6665 4.1): made, kept alive, told of, ended.

``Watcher`` has one for each key that its ``Owner`` wants: it subscribes, answers challenges, refreshes in time, takes NOTIFYs.
One that is refused or lost is tried again, after a time that doubles; one that was ended for good is not. A SUBSCRIBE makes one
subscription: the NOTIFY of another fork is answered 481 (RFC 3856 6.9).

The dialog may be made by the 2xx or by a NOTIFY that is faster. Answers to a SUBSCRIBE that another one has overtaken mean
nothing any more."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, Protocol

from sipgw.sip.dialog import Dialog
from sipgw.sip.errors import MalformedMessage, SipError
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Request, Response, parse

__all__ = ["Held", "Notice", "Owner", "State", "Watcher", "Wish"]

NOTIFY_TIME: Final = 32.0
"""Seconds for the first NOTIFY and for the last one: timer N, 64*T1 (4.1.2.4)."""
FIRST_WAIT: Final = 10.0
LONGEST_WAIT: Final = 3600.0
"""Seconds until a subscription that failed is tried again: at first, and at most."""
LASTING: Final = 60.0
"""Seconds after which a subscription counts as one that works: it may be made again at once, and the waits begin anew."""
RETRY: Final = 30.0
"""Seconds after which a refresh that failed is sent again, as long as the subscription lives."""
MAX_CHALLENGES: Final = 3
"""How many challenges of one SUBSCRIBE are answered: one of a proxy, one of the notifier, one stale nonce."""
LONGEST: Final = 2**31 - 1
GONE: Final = frozenset((404, 405, 410, 416, 480, 481, 482, 483, 484, 485, 489, 501, 604))
"""Answers to a refresh that mean that there is no subscription any more (4.1.2.2)."""
FOR_GOOD: Final = frozenset(("rejected", "noresource", "invariant"))
"""Reasons of an end that ask us not to subscribe again (4.1.3)."""
AT_ONCE: Final = frozenset(("deactivated", "timeout"))
"""Those after which we may at once."""
LEAP: Final = 16
"""What our CSeq leaps by after a restart: some SUBSCRIBEs may have gone that were not noted."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is subscribed to. ``target``: the URI that is asked for; ``watcher``: ours; ``contact``: where NOTIFYs come to;
    ``expires``: in seconds; ``next_hop``: a URI where all begins, or ""."""

    target: str
    watcher: str
    contact: str
    event: str = "presence"
    accept: str = "application/pidf+xml"
    expires: int = 3600
    next_hop: str = ""


class Notice(NamedTuple):
    """What a NOTIFY says: "active", "pending" or "terminated", the reason of an end, a document and its type."""

    state: str
    reason: str = ""
    kind: str = ""
    body: bytes = b""


class State(Enum):
    """Where a subscription stands."""

    WAITING = "waiting"
    """It failed, and will be tried again."""
    SUBSCRIBING = "subscribing"
    PENDING = "pending"
    ACTIVE = "active"
    ENDING = "ending"
    OVER = "over"


class Owner(Protocol):
    """Who wants subscriptions."""

    def told(self, key: Any, notice: Notice) -> None:
        """A NOTIFY has come; ``SipError`` answers it, if it cannot be read."""

    def failed(self, key: Any, status: int, reason: str) -> bool:
        """There is no subscription: it was refused, or has been lost (then the status is 481). Whether to try again."""

    def noted(self, key: Any, text: str | None) -> None:
        """What to keep for ``resume``; None: nothing any more."""


Send = Callable[[Request, Callable[[int, "Response | None"], None], str, bool], Awaitable[Any]]
"""Sends a request: the request, who hears the answer, the next hop, whether it is the first one; ``SipError`` if it cannot go."""
Authenticate = Callable[[Response, str, str], "tuple[str, str, str] | None"]
"""Answers a challenge to a method and a URI: the realm, the name of the header and its value; None if we cannot."""


class Held:
    """One subscription of ours."""

    def __init__(self, watcher: Watcher, key: Any, wish: Wish) -> None:
        self.watcher = watcher
        self.key = key
        self.wish = wish
        self.state = State.WAITING
        self.ends = 0.0
        """Monotonic seconds."""
        self.failures = 0
        self.began = 0.0
        self.sent: Request | None = None
        self._round = 0
        """Which SUBSCRIBE the answers must belong to."""
        self._expires = wish.expires
        self._answers: dict[tuple[str, str], str] = {}
        self._challenges = 0
        self._raised = False
        self._told = False
        """A NOTIFY has come."""
        self._timer: Any = None
        self._deadline: Any = None
        self.dialog = self._half()

    def _half(self) -> Dialog:
        token = self.watcher.user.layer.new_branch()[9:]
        wish = self.wish
        return Dialog.half(token, token[:12], f"<{wish.watcher}>", f"<{wish.target}>", wish.target)

    @property
    def is_made(self) -> bool:
        """Whether there is a dialog."""
        return bool(self.dialog.id.remote_tag)

    # ---- what the owner asks for ----

    def begin(self) -> None:
        """Subscribe, with a new dialog."""
        watcher = self.watcher
        self._quiet()
        watcher.file(self, self._half())
        self.began = watcher.user.clock()
        self.sent = None
        self._told = False
        self._deadline = watcher.user.after(NOTIFY_TIME, lambda _now: self._no_notify())
        self._enter(State.SUBSCRIBING)
        self._try(self._expires)

    def again(self) -> None:
        """Ask for what there is to be told now, without waiting for what is waited for."""
        if self.state is State.WAITING:
            self.begin()
        elif self.is_made and self.state in (State.ACTIVE, State.PENDING):
            self._try(self._expires)

    def end(self) -> None:
        """Unsubscribe."""
        was = self.state
        self._quiet()
        if self.is_made:
            self._enter(State.ENDING)
            self._wait(NOTIFY_TIME, self.forget)
            self._try(0)
        elif was is State.SUBSCRIBING:
            self._enter(State.ENDING)  # the 2xx will find it so
            self._wait(NOTIFY_TIME * 2, self.forget)
        else:
            self.forget()

    def forget(self) -> None:
        """It is over."""
        self._quiet()
        self._round += 1
        self.state = State.OVER
        self.watcher.drop(self)

    def resume(self, dialog: Dialog, left: float, wait: float) -> None:
        """Go on after a restart: refresh in ``wait`` seconds what has ``left`` seconds to live."""
        if dialog.local_cseq is not None:
            dialog.local_cseq += LEAP
        self.watcher.file(self, dialog)
        self._told = True
        self.began = self.watcher.user.clock() - LASTING
        self.ends = self.watcher.user.clock() + left
        self.state = State.PENDING
        self._wait(wait, lambda: self._try(self._expires))

    def rest(self) -> None:
        """Do nothing more; what was noted stays."""
        self._quiet()
        self._round += 1

    # ---- requests ----

    def _try(self, expires: int) -> None:
        self._answers.clear()
        self._challenges = 0
        self._raised = False
        self._send(expires)

    def _send(self, expires: int) -> None:
        self._round += 1
        wish = self.wish
        answers = "".join(f"{line}\r\n" for line in self._answers.values())
        headers = f"Event: {wish.event}\r\nAccept: {wish.accept}\r\nContact: <{wish.contact}>\r\nExpires: {expires}\r\n{answers}"
        self.watcher.user.launch(self._sending(expires, headers, self._round))

    async def _sending(self, expires: int, headers: str, number: int) -> None:
        def answer(status: int, response: Response | None) -> None:
            if status >= 200 and number == self._round:
                self._answered(expires, status, response)

        first = not self.is_made
        try:
            request = parse(self.dialog.request("SUBSCRIBE", "", headers=headers))
            assert isinstance(request, Request)
            self.sent = request
            await self.watcher.send(request, answer, self.wish.next_hop if first else self.dialog.next_hop, first)
        except SipError as error:
            self.watcher.user.log_rarely(("subscribe", error.reason), 1, f"no SUBSCRIBE can be sent: {error.reason}")
            answer(max(error.status, 400), None)

    def _answered(self, expires: int, status: int, response: Response | None) -> None:
        try:
            if response is not None and status < 300:
                self._accepted(expires, response)
            elif response is None or not self._tries_otherwise(expires, status, response):
                self._refused(status, response)
        except MalformedMessage as error:
            self.watcher.user.log_rarely(("subscribe", error.reason), 1, f"an answer to SUBSCRIBE is broken: {error.reason}")
            self._refused(500, None)

    def _tries_otherwise(self, expires: int, status: int, response: Response) -> bool:
        """Whether another SUBSCRIBE has gone that says what was missing."""
        if status in (401, 407):
            return self._challenged(expires, response)
        return status == 423 and expires > 0 and self._longer(expires, response)

    def _accepted(self, expires: int, response: Response) -> None:
        sent = self.sent
        assert sent is not None
        tag = response.to_tag or ""
        if not self.is_made:
            self.watcher.file(self, Dialog.as_uac(sent, response))
        elif tag == self.dialog.id.remote_tag:
            if not self.dialog.route_set:
                self.dialog.route_set = Dialog.as_uac(sent, response).route_set  # that of the NOTIFY may have none
            self.dialog.refresh(response)
        if self.state is State.ENDING:
            if expires:
                self.end()  # it was unsubscribed while it was being made
            return
        granted = min(expires, response.expires) if response.expires is not None else expires
        self._granted(granted)
        self._note()

    def _granted(self, seconds: int) -> None:
        """The subscription lives ``seconds`` from now on."""
        if seconds <= 0:
            self._lost(481, "No Time Granted")
            return
        self.ends = self.watcher.user.clock() + seconds
        self._wait(max(1.0, min(seconds * 0.9, seconds - 5.0)), lambda: self._try(self._expires))

    def _challenged(self, expires: int, response: Response) -> bool:
        """Answer a challenge; one that follows on an answer, and does not say that it was stale, means a wrong password."""
        sent = self.sent
        assert sent is not None
        made = self.watcher.authenticate(response, "SUBSCRIBE", sent.uri)
        if made is None or self._challenges >= MAX_CHALLENGES:
            return False
        realm, name, value = made
        stale = any("stale=true" in text.lower().replace(" ", "") for text in
                    (*response.headers("www-authenticate"), *response.headers("proxy-authenticate")))
        if (name, realm) in self._answers and not stale:
            return False
        self._challenges += 1
        self._answers[name, realm] = f"{name}: {value}"
        self._send(expires)
        return True

    def _longer(self, expires: int, response: Response) -> bool:
        least = parse_uint(response.header("min-expires") or "0", LONGEST)
        if self._raised or least <= expires:
            return False
        self._raised = True
        self._expires = least
        self._send(least)
        return True

    def _refused(self, status: int, response: Response | None) -> None:
        user = self.watcher.user
        if self.state is State.ENDING:
            self.forget()
        elif not self.is_made or status in GONE or user.clock() >= self.ends:
            reason = response.reason if response is not None else "No Answer"
            self._lost(status, reason, _retry_after(response))
        else:  # it lives until its time is over
            wait = max(RETRY, _retry_after(response))
            self._wait(min(wait, max(1.0, self.ends - user.clock())), lambda: self._try(self._expires))

    def _no_notify(self) -> None:
        self._deadline = None
        if not self._told and self.state is State.SUBSCRIBING:
            self._lost(408, "No NOTIFY")

    def _lost(self, status: int, reason: str, retry_after: float = 0.0) -> None:
        """There is no subscription: forget the dialog, and try again if the owner wants that."""
        was_made = self.is_made and self._told
        self._quiet()
        self._round += 1
        self._note(gone=True)
        if not self.watcher.owner.failed(self.key, 481 if was_made and status in (408, 481) else status, reason):
            self.forget()
        else:  # 481: a notifier that has forgotten us
            self._later(was_made and status == 481, retry_after)

    def _later(self, at_once: bool, seconds: float) -> None:
        """Subscribe anew in ``seconds`` or, if not ``at_once``, after those that failures cost."""
        if self.state is State.OVER:
            return
        lasted = self.watcher.user.clock() - self.began >= LASTING
        self.failures = 0 if lasted else self.failures
        if not (at_once and lasted):
            self.failures += 1
            seconds = max(seconds, min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.failures - 1, 20)))
        self.watcher.file(self, self._half())
        self._enter(State.WAITING)
        self._wait(seconds, self.begin)

    # ---- NOTIFY ----

    def notified(self, request: Request) -> None:
        """Take a NOTIFY; ``SipError`` says what to answer instead of 200."""
        if (request.header("event") or "").partition(";")[0].strip().lower() != self.wish.event:
            raise SipError("Bad Event", 489)
        if not self.is_made:
            if self.sent is None:
                raise SipError("Subscription Does Not Exist", 481)
            self.watcher.file(self, Dialog.as_subscriber(self.sent, request))
        elif request.from_tag != self.dialog.id.remote_tag:
            raise SipError("Subscription Does Not Exist", 481)  # another fork
        else:
            self.dialog.accept(request)
        text = request.header("subscription-state")
        if not text:
            raise SipError("Missing Subscription-State", 400)
        state, params = _state(text)
        self._told = True
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if state == "terminated":
            self._terminated(request, params)
            return
        if self.state is State.ENDING:
            return
        self._enter(State.PENDING if state == "pending" else State.ACTIVE)
        left = self.ends - self.watcher.user.clock()
        expires = _seconds(params.get("expires", ""))
        if expires and (left <= 0 or expires < left):
            self._granted(expires)
        self._note()
        self.watcher.owner.told(self.key, _notice(state, "", request))

    def _terminated(self, request: Request, params: dict[str, str]) -> None:
        reason = params.get("reason", "").lower()
        wanted = self.state is not State.ENDING
        self._quiet()
        self._round += 1
        self._note(gone=True)
        if not wanted or reason in FOR_GOOD:
            self.forget()
        else:
            self._later(reason in AT_ONCE, _seconds(params.get("retry-after", "")))
        if wanted:
            self.watcher.owner.told(self.key, _notice("terminated", reason, request))

    # ---- states and times ----

    def _enter(self, state: State) -> None:
        if self.state is not State.OVER:
            self.state = state

    def _wait(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()

        def due(_now: float) -> None:
            self._timer = None
            call()

        self._timer = self.watcher.user.after(seconds, due)

    def _quiet(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None

    def _note(self, gone: bool = False) -> None:
        user, text = self.watcher.user, None
        if not gone and self.is_made:
            ends = user.wall_clock() + self.ends - user.clock()
            text = json.dumps({"wish": asdict(self.wish), "dialog": self.dialog.encode(), "ends": round(ends)})
        self.watcher.owner.noted(self.key, text)


class Watcher:
    """All that one owner holds."""

    def __init__(self, user: Any, send: Send, owner: Owner, authenticate: Authenticate = lambda *_what: None) -> None:
        self.user = user
        self.send = send
        self.owner = owner
        self.authenticate = authenticate
        self.held: dict[Any, Held] = {}
        self._calls: dict[tuple[str, str], Held] = {}

    def want(self, key: Any, wish: Wish) -> None:
        """Subscribe; what is there already is asked for its news."""
        held = self.held.get(key)
        if held is None:
            held = self.held[key] = Held(self, key, wish)
            held.begin()
        else:
            held.again()

    def unwant(self, key: Any) -> None:
        """Unsubscribe."""
        held = self.held.pop(key, None)
        if held is not None:
            self.owner.noted(key, None)
            held.end()

    def resume(self, key: Any, text: str, wait: float = 0.0) -> bool:
        """Go on with what was noted before a restart, refreshing it in ``wait`` seconds. False if it is over or broken."""
        try:
            kept: Any = json.loads(text)
            wish, dialog, left = Wish(**kept["wish"]), Dialog.decode(kept["dialog"]), kept["ends"] - self.user.wall_clock()
        except (ValueError, KeyError, TypeError):
            return False
        if left <= 0 or key in self.held:
            return False
        held = self.held[key] = Held(self, key, wish)
        held.resume(dialog, left, min(wait, left / 2))
        return True

    def take(self, request: Request) -> None:
        """Take a NOTIFY, which is to be answered 200; ``SipError``: with that."""
        held = self._calls.get((request.call_id, request.to_tag or ""))
        if held is None:
            raise SipError("Subscription Does Not Exist", 481)
        held.notified(request)

    def rest(self) -> None:
        """We leave, and shall come back: nothing is unsubscribed."""
        for held in self.held.values():
            held.rest()

    def end_all(self) -> None:
        """We leave: unsubscribe from all."""
        for key in list(self.held):
            self.unwant(key)

    # ---- for subscriptions ----

    def file(self, held: Held, dialog: Dialog) -> None:
        """Let ``held`` have ``dialog``, and be found by it."""
        self._calls.pop(held.dialog.id[:2], None)
        held.dialog = dialog
        self._calls[dialog.id[:2]] = held

    def drop(self, held: Held) -> None:
        """Forget one that is over."""
        self._calls.pop(held.dialog.id[:2], None)
        if self.held.get(held.key) is held:
            del self.held[held.key]


def _state(text: str) -> tuple[str, dict[str, str]]:
    """A Subscription-State: the word, and its parameters (RFC 6665 8.4)."""
    word, *rest = text.split(";")
    pairs = (each.partition("=") for each in rest)
    return word.strip().lower(), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _notice(state: str, reason: str, request: Request) -> Notice:
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    return Notice(state, reason, kind, request.body)


def _seconds(text: str) -> int:
    try:
        return parse_uint(text, LONGEST) if text else 0
    except MalformedMessage:
        return 0


def _retry_after(response: Response | None) -> float:
    """What the header says (RFC 3261 20.33), at most a day."""
    text = "" if response is None else response.header("retry-after") or ""
    return float(min(86400, _seconds(text.partition("(")[0].partition(";")[0].strip())))
