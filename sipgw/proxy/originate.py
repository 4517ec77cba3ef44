"""Requests that sipgw makes itself (RFC 3261 8.1): written, shown to ``local_route``, sent in a client transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.core.user import TransactionUser
from sipgw.proxy.acknowledge import Acknowledgements
from sipgw.proxy.forking import NOBODY
from sipgw.proxy.forward import NOT_SENT, NoWay, find_flow, next_flow, write_relayed
from sipgw.script.routes import Route
from sipgw.script.run import WATCHER, Run, Watcher
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow
from sipgw.sip.dialog import Dialog
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import cancel_for
from sipgw.sip.target import Target
from sipgw.sip.transaction import ClientTransaction

Answer = Callable[[int, "Response | None"], None]
"""Called with each status and response; without a response when the status is our own (408, 503)."""


class LocalOwner:
    """Owns the client transactions of a request of our own and passes on what they bring.

    A target that fails is left for the next of ``spare`` as in ``proxy.forking`` (RFC 3263 4.3). The 2xx of an INVITE are
    acknowledged (RFC 3261 13.2.2.4)."""

    __slots__ = (
        "__weakref__", "_acknowledge", "_acks", "_answer", "_cancelled", "_client", "_dialog", "_ended", "_flow", "_heard",
        "_run", "_spare", "_timeouts",
    )

    def __init__(
        self, run: Run, answer: Answer, spare: list[Target], timeouts: tuple[float, float], dialog: Dialog | None = None,
        acknowledge: Callable[[Response], None] | None = None,
    ) -> None:
        self._run = run
        self._acknowledge = acknowledge
        self._answer = answer
        self._spare = spare
        self._timeouts = timeouts
        self._flow: Flow | None = None
        self._client: ClientTransaction | None = None
        self._acks: Acknowledgements | None = None
        self._dialog = dialog
        self._heard = False
        """The target has answered something."""
        self._cancelled = False
        self._ended = False

    def send(self, flow: Flow, branch: str = "", data: bytes = b"") -> bool:
        """Send the request on ``flow``, in a transaction of its own; False if it is known at once that it cannot go.

        ``data``, with ``branch``: what to send, where it has been written already."""
        self._flow = flow
        self._heard = False
        user, request = self._run.user, self._run.message
        if not data:
            branch = user.layer.new_branch()
            data = write_relayed(self._run, flow, branch)
        client, _ = user.layer.request(data, request, flow, user.clock(), *self._timeouts, self, branch=branch)
        client.ack_headers = user.agent_line
        if flow.send(data) is False:
            user.layer.abandon(client)
            return self.fail_over()
        self._client = client
        user.perform(())
        return True

    @property
    def watcher(self) -> Watcher | None:
        """Who sees what goes out."""
        return None if self._run.context is None else self._run.context.get(WATCHER)

    def fail_over(self) -> bool:
        """The target has failed: try the next one, if there is one."""
        flow, user = self._flow, self._run.user
        if flow is not None:
            user.blacklists.failed(flow.host, flow.transport, flow.port)
        if not self._spare or self._cancelled or user.globals.get("disable_dns_failover"):
            return False
        try:
            flow = next_flow(self._run, self._spare)
        except NoWay:
            return False
        if self.watcher is not None:
            flow = self.watcher.downstream(flow)
        return self.send(flow)

    def receive(self, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take a response from the layer."""
        status = response.status
        client = self._client
        if 200 <= status < 300 and response.method == "INVITE" and self._acknowledge is not None:
            self._acknowledge(response)
        elif 200 <= status < 300 and response.method == "INVITE":
            if self._acks is None and client is not None:
                self._acks = Acknowledgements(self._run.user, client.sent, self._dialog)
            if self._acks is not None:
                self._acks.take(response)
        if self._ended or (status == 503 and self.fail_over()):
            return
        if self._cancelled and not self._heard and status < 200:
            self._send_cancel()
        self._heard = True
        if status >= 200:
            self._end()
        self._answer(status, response)

    def failed(self, reason: str) -> None:
        """Learn that no final response will come."""
        if self._ended or (not self._heard and self.fail_over()):
            return
        if reason == "timeout" and self._heard and not self._cancelled:
            self._send_cancel()
        self._end()
        self._answer(408 if reason == "timeout" else 503, None)

    def _end(self) -> None:
        self._ended = True
        self._client = None  # which holds this

    def cancel(self) -> bool:
        """Cancel it, now or as soon as it has been answered provisionally (RFC 3261 9.1); False if that cannot be."""
        if self._ended or self._cancelled or self._run.message.method != "INVITE":
            return False
        self._cancelled = True
        if self._heard:
            self._send_cancel()
        return True

    def _send_cancel(self) -> None:
        user = self._run.user
        if self._client is not None and self._client.method == "INVITE":
            data = cancel_for(self._client.sent, user.agent_line)
            _, actions = user.layer.cancel(self._client, user.clock(), data, timeout=self._timeouts[0], user=NOBODY)
            user.perform(actions)


class LocalContext:
    """What listeners of a transaction (``Context.listen``) see of a request of our own, when it has been answered."""

    __slots__ = ("request", "run", "user")

    def __init__(self, run: Run) -> None:
        self.request = run.message
        self.run = run
        self.user = run.user


def _told(context: LocalContext, listeners: list[Callable[..., None]], answer: Answer) -> Answer:
    """``answer``, after ``listeners`` have heard of it: those that ``local_route`` has set."""

    def told(status: int, response: Response | None) -> None:
        if status >= 200:
            for listener in listeners:
                try:
                    listener(context, "local_reply" if response is None else "response_out", status, response)
                except Exception as error:
                    context.user.broken(error)
        answer(status, response)

    return told


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
    max_forwards: int = 70,
) -> Request:
    """Write a request outside of any dialog, without a Via yet; ``from_`` and ``to`` are URIs or name-addrs.

    ``headers`` are whole lines with their CRLFs; ``MalformedMessage`` if what was given makes no request."""
    for part in (method, uri, from_, to, call_id):
        if "\r" in part or "\n" in part or "\0" in part:
            raise MalformedMessage(f"a line end or NUL in {part!r}")
    token = user.layer.new_branch()[9:]
    from_, to = name_addr(from_), name_addr(to)
    tag = "" if ";tag=" in from_.rpartition(">")[2] else f";tag={token[:12]}"
    text = (
        f"{method} {uri} SIP/2.0\r\nFrom: {from_}{tag}\r\nTo: {to}\r\n"
        f"Call-ID: {call_id or token}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: {max_forwards}\r\n{headers}"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    made = parse(text.encode("utf-8", "surrogateescape") + body)
    assert isinstance(made, Request)
    return made


def name_addr(text: str) -> str:
    """A name-addr from ``[display ]URI``, or from one that is one already; parameters behind a bare URI are the header's."""
    if "<" in text:
        return text
    display, blank, uri = text.strip().rpartition(" ")
    address, semicolon, params = uri.partition(";")
    return f"{display}{blank}<{address}>{semicolon}{params}"


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
    shown_to: Route | None = None,
    kept: dict[str, Any] | None = None,
    dialog: Dialog | None = None,
    acknowledge: Callable[[Response], None] | None = None,
) -> LocalOwner | None:
    """Send ``request`` after its ``local_route``; ``answer`` hears each response. None if that dropped it; ``NoWay``.

    ``shown_to``: a route that sees what is sent and can change nothing of it. ``kept``: what modules keep with its run.
    ``dialog``: in which an INVITE is sent; it says where the ACK to a 2xx goes.
    ``acknowledge``: is given each 2xx of an INVITE in the place of that."""
    run = Run(request, RouteKind.LOCAL, None, user.clock(), user)
    run.dst_uri = next_hop
    run.send_socket = socket
    run.context = kept
    if avps:
        run.avps = avps
    if user.agent_line and "user-agent" not in request.names:
        run.edits = run.edits.append(user.agent_line)
    route = user.routes.local
    if route is not None and await user.run_route(route, run) is DROP:
        return None
    listeners = None if run.context is None else run.context.pop("listeners", None)
    if listeners:
        answer = _told(LocalContext(run), listeners, answer)
    spare: list[Target] = []
    flow = await find_flow(run, spare)
    if run.context is not None and WATCHER in run.context:
        flow = run.context[WATCHER].downstream(flow)
    branch = user.layer.new_branch()
    data = write_relayed(run, flow, branch)
    if shown_to is not None:
        await user.run_route(shown_to, Run(parse(data), RouteKind.LOCAL, None, user.clock(), user))
    owner = LocalOwner(run, answer, spare, (timeout, invite_timeout), dialog, acknowledge)
    if not owner.send(flow, branch, data):
        raise NoWay(*NOT_SENT)
    return owner
