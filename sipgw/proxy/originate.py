"""Requests that sipgw makes itself (RFC 3261 8.1): written, shown to ``local_route``, sent in a client transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.core.user import TransactionUser
from sipgw.proxy.forward import NoWay, find_flow, write_relayed
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow
from sipgw.sip.message import Request, Response, parse

Answer = Callable[[int, "Response | None"], None]
"""Called with each status and response; without a response when the status is our own (408, 477, 503)."""


class LocalOwner:
    """Owns a client transaction of our own and passes on what it brings."""

    __slots__ = ("_answer", "_ended")

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._ended = False

    def receive(self, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take a response from the layer."""
        if not self._ended:
            self._ended = response.status >= 200
            self._answer(response.status, response)

    def failed(self, reason: str) -> None:
        """Learn that no final response will come."""
        if not self._ended:
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
    try:
        flow = await find_flow(run)
    except NoWay as error:
        answer(error.status, None)
        return False
    branch = user.layer.new_branch()
    data = write_relayed(run, flow, branch)
    _, actions = user.layer.request(
        data, request, flow, user.clock(), timeout, invite_timeout, LocalOwner(answer), branch=branch
    )
    user.perform(actions)
    return True
