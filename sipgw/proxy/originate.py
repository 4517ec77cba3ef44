"""Requests that sipgw makes itself (RFC 3261 8.1): written, shown to ``local_route``, sent in a client transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.core.user import TransactionUser
from sipgw.proxy.forward import NoWay, find_flow, next_flow, write_relayed
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.target import Target

Answer = Callable[[int, "Response | None"], None]
"""Called with each status and response; without a response when the status is our own (408, 477, 503)."""


class LocalOwner:
    """Owns the client transactions of a request of our own and passes on what they bring.

    A target that fails is left for the next of ``spare`` as in ``proxy.responses`` (RFC 3263 4.3)."""

    __slots__ = ("_answer", "_ended", "_flow", "_heard", "_run", "_spare", "_timeouts")

    def __init__(self, run: Run, answer: Answer, spare: list[Target], timeouts: tuple[float, float]) -> None:
        self._run = run
        self._answer = answer
        self._spare = spare
        self._timeouts = timeouts
        self._flow: Flow | None = None
        self._heard = False
        """The target has answered something."""
        self._ended = False

    def send(self, flow: Flow) -> None:
        """Send the request on ``flow``, in a transaction of its own."""
        self._flow = flow
        self._heard = False
        user, request = self._run.user, self._run.message
        branch = user.layer.new_branch()
        data = write_relayed(self._run, flow, branch)
        _, actions = user.layer.request(data, request, flow, user.clock(), *self._timeouts, self, branch=branch)
        user.perform(actions)

    def _fail_over(self) -> bool:
        """The target has failed: try the next one, if there is one."""
        flow, user = self._flow, self._run.user
        if flow is not None:
            user.blacklists.failed(flow.host, flow.transport, flow.port)
        if not self._spare or user.globals.get("disable_dns_failover"):
            return False
        try:
            flow = next_flow(self._run, self._spare)
        except NoWay:
            return False
        self.send(flow)
        return True

    def receive(self, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take a response from the layer."""
        if self._ended or (response.status == 503 and self._fail_over()):
            return
        self._heard = True
        self._ended = response.status >= 200
        self._answer(response.status, response)

    def failed(self, reason: str) -> None:
        """Learn that no final response will come."""
        if self._ended or (not self._heard and self._fail_over()):
            return
        self._ended = True
        self._answer(408 if reason == "timeout" else 503, None)


def new_request(
    user: TransactionUser,
    method: str,
    uri: str,
    from_: str,
    to: str,
    *,
    headers: str = "",
    body: bytes = b"",
    call_id: str = "",
    cseq: int = 10,
) -> Request:
    """Write a request outside of any dialog, without a Via yet; ``from_`` and ``to`` are URIs or name-addrs.

    ``headers`` are whole lines with their CRLFs; ``MalformedMessage`` if what was given makes no request."""
    token = user.layer.new_branch()[9:]
    tag = "" if ";tag=" in from_ else f";tag={token[:12]}"
    text = (
        f"{method} {uri} SIP/2.0\r\nFrom: {_name_addr(from_)}{tag}\r\nTo: {_name_addr(to)}\r\n"
        f"Call-ID: {call_id or token}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    made = parse(text.encode("utf-8", "surrogateescape") + body)
    assert isinstance(made, Request)
    return made


def _name_addr(text: str) -> str:
    return text if "<" in text else f"<{text}>"


async def originate(
    user: TransactionUser,
    request: Request,
    answer: Answer,
    *,
    next_hop: str | None = None,
    socket: Any = None,
    avps: dict[str, list[int | str]] | None = None,
    timeout: float = 30.0,
    invite_timeout: float = 120.0,
) -> bool:
    """Send ``request`` after its ``local_route``; ``answer`` hears each response. False, and 477 or the like, if it cannot go."""
    run = Run(request, RouteKind.LOCAL, None, user.clock(), user)
    run.dst_uri = next_hop
    run.send_socket = socket
    if avps:
        run.avps = avps
    route = user.routes.local
    if route is not None and await user.run_route(route, run) is DROP:
        return False
    spare: list[Target] = []
    try:
        flow = await find_flow(run, spare)
    except NoWay as error:
        answer(error.status, None)
        return False
    LocalOwner(run, answer, spare, (timeout, invite_timeout)).send(flow)
    return True
