"""call_control: calls last no longer than their callers can pay for, as the application callcontrol says.

Its requests and answers stand in ``proxy/call_control.py``. It is asked before a call goes out, told when it is answered and when
it is over; what it lends is ended by it, with the command ``dialog:end_dlg``."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.events import DUMMY
from sipgw.exports import REQUEST, Module, Writable, function, param, requires
from sipgw.modules._specs import avp_name, check_variable, newest, variable
from sipgw.modules.dialog import Dialog
from sipgw.proxy.call_control import CallControl as Client
from sipgw.proxy.call_control import Unavailable, lines
from sipgw.proxy.dialog_headers import plain
from sipgw.proxy.dialogs import Call, CallFlag, Leg
from sipgw.proxy.following import KEPT as DIALOG
from sipgw.proxy.following import Within, call_of
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response, parse

ANSWERS = {
    "no limit": 2, "limited": 1, "no credit": -1, "locked": -2, "duplicated callid": -3, "call limit reached": -4,
}
FAILED = -5
LIMITED = 1
KEPT = "call_control"
"""Where a call keeps what was last asked about it."""

_pair = re.compile(r"\s*([^\s=]+)\s*=\s*(\$[\w.+]*(?:\([^()]*(?:\([^()]*\))?[^()]*\))?(?:\[[^\]]*\])?)\s*").match


def read_pairs(text: str) -> list[tuple[str, str]]:
    """The names and variables in ``name=$variable name=$variable``."""
    found = []
    at = 0
    while at < len(text):
        match = _pair(text, at)
        if match is None:
            raise ValueError(f"{text[at:]!r}: write name=$variable, with blanks between them")
        check_variable(match[2])
        found.append((match[1], match[2]))
        at = match.end()
    return found


class CallControl(Module):
    """Asks callcontrol how long calls may last."""

    name = "call_control"

    dialog: Dialog = requires("dialog")

    disable: int = param(0, "Whether nobody is asked, and no call has a limit: 0 or 1")
    socket_name: str = param("/run/callcontrol/socket", "The unix socket on which callcontrol listens")
    socket_timeout: int = param(500, "Milliseconds to wait for an answer")
    diverter_avp: str = param("$avp(cc_diverter)", "The AVP with user@domain of who pays for a diverted call", check=avp_name)
    canonical_uri_avp: str = param("$avp(cc_can_uri)", "The AVP with the URI that has a price, if it is another", check=avp_name)
    signaling_ip_avp: str = param("$avp(cc_signaling_ip)", "The AVP with the caller's address, if it is another", check=avp_name)
    call_limit_avp: str = param("$avp(cc_call_limit)", "The AVP with how many calls the payer may have", check=avp_name)
    call_token_avp: str = param("$avp(cc_call_token)", "The AVP with a text by which this call is known", check=avp_name)
    prepaid_account_flag: str = param("", "The message flag of callers who have paid beforehand")
    init: str = param(
        None, "A first request of your own: 'name=$variable name=$variable'; it is sent as 'name = value name = value '",
        each="_add_init", check=read_pairs,
    )
    on_start: str = param(None, "The same for an answered call", each="_add_start", check=read_pairs, name="start")
    on_stop: str = param(None, "The same for a call that is over", each="_add_stop", check=read_pairs, name="stop")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._own: dict[str, list[tuple[str, str]]] = {"init": [], "start": [], "stop": []}
        super().__init__(server, **parameters)
        self._variables: dict[str, list[tuple[str, Writable]]] = {}
        self._client: Client = None  # type: ignore[assignment]  # made by start
        self._prepaid = 0

    def _add_init(self, text: str) -> None:
        self._own["init"] += read_pairs(text)

    def _add_start(self, text: str) -> None:
        self._own["start"] += read_pairs(text)

    def _add_stop(self, text: str) -> None:
        self._own["stop"] += read_pairs(text)

    async def start(self) -> None:
        """Be ready to ask; callcontrol need not be there."""
        server = self.server
        for name, pairs in self._own.items():
            # COMPAT: OpenSIPS sends the last one first
            self._variables[name] = [(key, variable(text, server.symbols)) for key, text in reversed(pairs)]
        if self.prepaid_account_flag:
            self._prepaid = server.user.message_flags.mask(self.prepaid_account_flag)
        self._client = Client(server.user, server.reactor, self.socket_name, self.socket_timeout / 1000)
        self.dialog.on_loaded(self._loaded)

    async def stop(self) -> None:
        """End all connections."""
        if self._client is not None:
            self._client.stop()

    @function(REQUEST)
    async def call_control(self, run: Run) -> int:
        """Ask how long the call of this first INVITE may last: 2 no limit, 1 a limit that callcontrol sees to, -1 no credit, -2
        locked by another call, -3 duplicated Call-ID, -4 too many calls, -5 an error."""
        if self.disable:
            return 2
        request = run.message
        if not isinstance(request, Request) or request.method != "INVITE" or request.to_tag:
            run.user.log(1, "call_control should only be called for the first INVITE of a call")
            return FAILED
        try:
            text = self._request("init", run) or lines("init", self._initial(run, request))
        except MalformedMessage as error:
            run.user.log_rarely("call_control", -1, f"call_control: {error}")
            return FAILED
        result = ANSWERS.get((await self._ask(text)).lower(), FAILED)
        if result != LIMITED:
            return result
        call = call_of(run) or self.dialog.follower.create(run, CallFlag(0))
        if call is None:
            await self._ask(self._request("stop", run) or lines("stop", [("callid", request.call_id)]))
            return FAILED
        self._follow(call)
        self.dialog.tm.listen(run, partial(self._replied, call))
        return result

    # -- what is said

    def _request(self, name: str, run: Run) -> str:
        """A request of the script's own; empty if it has none."""
        pairs = ((key, value.get(run)) for key, value in self._variables.get(name, ()))
        return "".join(f"{key} = {value} " for key, value in pairs if value is not None)

    def _initial(self, run: Run, request: Request) -> list[tuple[str, str]]:
        limit = newest(run, avp_name(self.call_limit_avp))
        token = newest(run, avp_name(self.call_token_avp))
        prepaid = "unknown" if not self.prepaid_account_flag else "true" if run.flags & self._prepaid else "false"
        number = re.match(r"\s*[+-]?[0-9]+", str(limit)) if limit is not None else None
        return [
            ("ruri", self._text(run, self.canonical_uri_avp) or run.uri),
            ("diverter", self._diverter(run, request)),
            ("sourceip", self._text(run, self.signaling_ip_avp) or (run.flow.host if run.flow is not None else "")),
            ("callid", request.call_id), ("from", plain(request.from_)), ("fromtag", request.from_tag or ""),
            ("prepaid", prepaid), ("call_limit", str(int(number[0])) if number is not None else "0"),
            ("call_token", "None" if token is None else str(token)),
        ]

    def _text(self, run: Run, avp: str) -> str:
        value = newest(run, avp_name(avp))
        return value if isinstance(value, str) else ""

    def _diverter(self, run: Run, request: Request) -> str:
        """Who pays: the AVP, or credentials that are nothing but a name, which a failure route has added (COMPAT)."""
        value = newest(run, avp_name(self.diverter_avp))
        if value is not None:
            return str(value)
        for text in request.headers("Proxy-Authorization"):
            params: dict[str, str] = dict(re.findall(r'([\w-]+)\s*=\s*"?([^",]*)"?', text))
            name = params.get("username", "")
            if "@" in name.strip("@") and not any(params.get(other) for other in ("realm", "nonce", "response")):
                return name
        return "None"

    async def _ask(self, text: str) -> str:
        try:
            return await self._client.ask(text)
        except Unavailable as error:
            self.server.user.log_rarely("call_control", -1, f"call_control: {self.socket_name}: {error}")
            return ""

    # -- what becomes of the call

    def _follow(self, call: Call) -> None:
        if KEPT not in call.kept:
            call.kept[KEPT] = None
            call.listeners.append(self._heard)

    def _loaded(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Go on with a call from the database. COMPAT: nothing says which callcontrol knows; it says "Not found" to others."""
        if not self.disable:
            self._follow(call)

    def _replied(self, call: Call, context: Any, event: str, status: int, response: Response | None) -> None:
        """Tell that the call is answered."""
        if event == "response_out" and status == 200 and response is not None:
            run = Run(response, context.run.kind, context.run.flow, self.server.user.clock(), self.server.user)
            run.context, run.avps = context.run.context, context.run.avps
            text = self._request("start", run) or lines(
                "start", [("callid", call.call_id), ("dialogid", str(call.number))]
            )
            self._later(call, text)

    def _heard(self, event: str, call: Call, run: Run | None, leg: Leg | None) -> None:
        """Hear what becomes of a call (``dialogs.Listener``): tell that it is over, once."""
        if event in ("terminated", "failed", "expired"):
            call.listeners.remove(self._heard)
            if run is None:
                user = self.server.user
                run = Run(parse(DUMMY), RouteKind.REQUEST, None, user.clock(), user)
                run.keep()[DIALOG] = Within(call)
            text = self._request("stop", run)
            self._later(call, text or lines("stop", [("callid", call.call_id)]))

    def _later(self, call: Call, text: str) -> None:
        """Tell callcontrol, after what it was told of this call before."""
        before: Deferred[None] | None = call.kept.get(KEPT)
        done: Deferred[None] = Deferred()
        call.kept[KEPT] = done
        self.server.user.launch(self._tell(call, text, before, done))

    async def _tell(self, call: Call, text: str, before: Deferred[None] | None, done: Deferred[None]) -> None:
        if before is not None:
            await before
        if (answer := await self._ask(text)) and answer.lower() not in ("ok", "not found"):
            self.server.user.log_rarely("call_control answer", -1, f"call_control: it answers {answer!r}")
        if call.kept.get(KEPT) is done:
            call.kept[KEPT] = None
        done.callback(None)
