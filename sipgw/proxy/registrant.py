"""Registrations of ours with other registrars (RFC 3261 10.2): begun, kept alive, taken back.

A ``Registration`` is one binding of one address-of-record. It sends REGISTER, answers a challenge, keeps what the registrar
grants and registers again before that is over; after a failure it tries again later. Its states and their names are OpenSIPS's.

The Call-ID stays the same for the life of a registration and the CSeq grows (10.2). Answers to a REGISTER that another one has
overtaken mean nothing any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from sipgw.core.user import TransactionUser
from sipgw.proxy.credentials import CHALLENGES, Credential, challenges_of, respond
from sipgw.proxy.forward import NoWay
from sipgw.proxy.originate import Answer, new_request
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.grammar import parse_uint
from sipgw.sip.message import Request, Response
from sipgw.sip.uri import Uri, same_uri

MAX_EXPIRES: Final = 2**31 - 1
MAX_CHALLENGES: Final = 3
"""How many challenges of one REGISTER are answered: one of a proxy, one of the registrar, one stale nonce."""

Send = Callable[[Request, Answer, "str | None", Any], Awaitable[bool]]
"""``await send(request, answer, next_hop, socket)``; False if ``local_route`` dropped it, ``NoWay``."""


class State(Enum):
    """Where a registration stands: the number that OpenSIPS gives it and what it calls it."""

    NOT_REGISTERED = 0
    REGISTERING = 1
    AUTHENTICATING = 2
    REGISTERED = 3
    REGISTER_TIMEOUT = 4
    INTERNAL_ERROR = 5
    WRONG_CREDENTIALS = 6
    REGISTRAR_ERROR = 7
    UNREGISTERING = 8
    AUTHENTICATING_UNREGISTER = 9


@dataclass(frozen=True, slots=True)
class Account:
    """What is registered where. All but ``username``, ``password``, ``params`` and ``shtag`` are URIs or "".

    ``params``: of the Contact, each with its ";". ``expires``: in seconds. ``socket``: ``proto:host:port`` or ""."""

    aor: str
    contact: str
    registrar: str
    proxy: str = ""
    third_party: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    params: str = ""
    expires: int = 3600
    socket: str = ""
    shtag: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.aor, self.contact, self.registrar

    @property
    def is_unique(self) -> bool:
        """Whether the registrar can tell this binding from those of other devices (RFC 5626): there should be one then."""
        params = self.params.lower()
        return "reg-id=" in params and "+sip.instance=" in params

    def check(self) -> None:
        """Raise ``MalformedMessage`` if something is no URI, or cannot stand in a message."""
        for text in (self.aor, self.contact, self.registrar):
            Uri.parse(text)
        for text in (self.proxy, self.third_party):
            if text:
                Uri.parse(text)
        if any(char in part for part in (*self.key, self.proxy, self.third_party, self.params) for char in "\r\n\0"):
            raise MalformedMessage("a line end or NUL")
        if any(char in part for part in (*self.key, self.third_party) for char in "<>"):
            raise MalformedMessage("an angle bracket in a URI")
        if self.params and not self.params.lstrip().startswith(";"):
            raise MalformedMessage("parameters of a binding begin with a semicolon")
        if not 0 < self.expires <= MAX_EXPIRES:
            raise MalformedMessage(f"an expiry of {self.expires} seconds")


@dataclass(frozen=True, slots=True)
class Rules:
    """When registrations are renewed: after ``percentage`` of what was granted; after a failure in ``retry`` seconds, 0: its
    expiry."""

    percentage: int = 100
    retry: int = 0

    def renewal(self, granted: float) -> float:
        """Seconds until a registration is renewed. Even with 100 percent it never lapses: an answer may take some seconds."""
        return max(1.0, min(granted * self.percentage / 100, granted - min(5.0, granted / 10)))


class Registration:
    """One registration; ``told(registration)`` hears of each new state."""

    def __init__(
        self, account: Account, rules: Rules, user: TransactionUser, send: Send, told: Callable[[Registration], None]
    ) -> None:
        self.account = account
        self.enabled = True
        self.state = State.NOT_REGISTERED
        self.expires = account.expires
        """Seconds asked for, or granted last."""
        self.sent_at = 0.0
        self.due_at = 0.0
        """Seconds since 1970: when the last REGISTER went out, when the next one will; 0 for never."""
        self._rules = rules
        self._user = user
        self._send = send
        self._told = told
        self._call_id = user.layer.new_branch()[9:]
        self._tag = user.layer.new_branch()[9:][:12]
        self._cseq = 0
        self._round = 0
        """Which attempt the answers must belong to."""
        self._challenges = 0
        self._raised = False
        self._removing = False
        self._answers: dict[tuple[str, str], str] = {}
        self._timer: Any = None
        self._ended: Callable[[], None] | None = None

    # -- what others ask for

    def register(self) -> None:
        """Register now, or again."""
        self._begin(State.REGISTERING, self.account.expires)

    def begin_after(self, seconds: float) -> None:
        """Register in some time."""
        self._wait(seconds)

    def unregister(self, ended: Callable[[], None] | None = None) -> None:
        """Take the registration back; ``ended`` is called when that is over, however it went."""
        self._begin(State.UNREGISTERING, 0)
        self._ended = ended

    def stop(self) -> None:
        """Send nothing more."""
        self._round += 1
        self._wait(0)

    def change(self, account: Account) -> None:
        """Have another account of the same key from now on."""
        self.account = account

    # -- one attempt

    def _begin(self, state: State, expires: int) -> None:
        self.stop()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()
        self._challenges = 0
        self._raised = self._removing = False
        self._answers = {}
        self.expires = expires or self.expires
        self._try(state, expires)

    def _try(self, state: State, expires: int) -> None:
        self._enter(state)
        self._user.launch(self._request(self._round, expires))

    async def _request(self, number: int, expires: int) -> None:
        account = self.account
        self._cseq += 1
        contact = f"Contact: <{account.contact}>{account.params};expires={expires}\r\n"
        if self._removing:
            contact = "Contact: *\r\nExpires: 0\r\n"
        answers = "".join(f"{line}\r\n" for line in self._answers.values())
        try:
            request = new_request(
                self._user, "REGISTER", account.registrar, f"<{account.third_party or account.aor}>;tag={self._tag}",
                f"<{account.aor}>", headers=contact + answers, call_id=self._call_id, cseq=self._cseq,
            )
            socket = self._user.find_socket(account.socket) if account.socket else None
            self.sent_at = self._user.wall_clock()

            def answer(status: int, response: Response | None) -> None:
                if status >= 200 and number == self._round:
                    self._answered(expires, status, response)

            if not await self._send(request, answer, account.proxy or None, socket) and number == self._round:
                self._fail(State.INTERNAL_ERROR)
        except (MalformedMessage, NoWay) as error:
            if number == self._round:
                self._user.log_rarely(("registrant", account.key), -1, f"uac_registrant: {account.aor}: {error}")
                self._fail(State.INTERNAL_ERROR)

    def _answered(self, expires: int, status: int, response: Response | None) -> None:
        if response is None:
            self._fail(State.REGISTER_TIMEOUT if status == 408 else State.INTERNAL_ERROR)
        elif status in CHALLENGES:
            self._challenged(expires, response)
        elif status < 300 and self._removing:
            self._removing = False
            self._answers = {}
            self._try(State.REGISTERING, expires)
        elif status < 300:
            self._succeeded(expires, response)
        elif status == 423 and expires and not self._raised and self._least(response) > expires:
            self._raised = True  # once: a registrar that is never content would be asked for ever
            self._answers = {}
            self.expires = self._least(response)
            self._try(self.state, self.expires)
        else:
            self._fail(State.REGISTRAR_ERROR, response)

    @staticmethod
    def _least(response: Response) -> int:
        try:
            return parse_uint(response.header("min-expires") or "", MAX_EXPIRES)
        except MalformedMessage:
            return 0

    def _challenged(self, expires: int, response: Response) -> None:
        """Answer a challenge; one that follows on an answer, and does not say that it was stale, means a wrong password."""
        account = self.account
        found = challenges_of(response)
        if not account.username or self._challenges >= MAX_CHALLENGES:
            self._fail(State.WRONG_CREDENTIALS)
            return
        for name, challenge in found:
            if (name, challenge.realm) in self._answers and not challenge.stale:
                continue
            credential = Credential(account.username, challenge.realm, account.password)
            made = respond(credential, [(name, challenge)], "REGISTER", account.registrar, b"")
            if made is not None:
                self._challenges += 1
                self._answers[name, challenge.realm] = f"{name}: {made.credentials}"
                self._try(State.AUTHENTICATING if expires or self._removing else State.AUTHENTICATING_UNREGISTER, expires)
                return
        self._fail(State.WRONG_CREDENTIALS)

    def _succeeded(self, expires: int, response: Response) -> None:
        if not expires:
            self._finish(State.NOT_REGISTERED)
            return
        granted = expires
        try:
            contacts = response.contacts
            granted = self._granted(expires, response)
        except MalformedMessage:
            contacts = []
        if self.account.is_unique and len(contacts) > 1 and not self._raised:
            self._raised = self._removing = True  # once, as above
            self._answers = {}
            self._try(State.REGISTERING, expires)
            return
        self.expires = granted
        self._finish(State.REGISTERED)
        self._wait(self._rules.renewal(granted))

    def _granted(self, expires: int, response: Response) -> int:
        """How long the registrar will keep our binding (10.2.4)."""
        ours = Uri.parse(self.account.contact)
        for contact in response.contacts:
            if same_uri(contact.uri, ours):
                text = contact.params.get("expires")
                return max(1, parse_uint(text, MAX_EXPIRES)) if text else expires
        return response.expires or expires

    def _fail(self, state: State, response: Response | None = None) -> None:
        """Give this attempt up; another one follows, unless it was one to unregister."""
        unregistering = self.state in (State.UNREGISTERING, State.AUTHENTICATING_UNREGISTER)
        self._finish(state)
        if self.enabled and not unregistering:
            seconds = self._rules.retry or self.expires
            if response is not None:
                try:
                    seconds = max(seconds, parse_uint((response.header("retry-after") or "0").split("(")[0].strip(), 86400))
                except MalformedMessage:
                    pass
            self._wait(seconds)

    # -- states and times

    def _finish(self, state: State) -> None:
        self._round += 1
        self._enter(state)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def _enter(self, state: State) -> None:
        self.state = state
        self._told(self)

    def _wait(self, seconds: float) -> None:
        """Register again after ``seconds``, or not at all for 0."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.due_at = 0.0
        if seconds:
            self.due_at = self._user.wall_clock() + seconds

            def due(_now: float) -> None:
                self._timer = None
                self.register()

            self._timer = self._user.after(seconds, due)
