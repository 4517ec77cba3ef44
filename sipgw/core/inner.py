"""Requests that come from inside: a text from a mobile, a stanza from Jabber. They go through the script's routes as if they had
come from a socket, so that routing, limits and accounting see them, and whoever brought them in hears the final response."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response, parse

if TYPE_CHECKING:
    from sipgw.core.user import TransactionUser

__all__ = ["Outcome", "bring_in"]

PATIENCE = 40.0
"""Seconds to wait for the script's answer: more than timer F (RFC 3261 17.1.2.2), after which a relay answers 408."""

_numbers = count(1)


class Outcome:
    """What became of a request: ``status``, and its response if there was one (a script may drop a request)."""

    __slots__ = ("response", "status")

    def __init__(self, status: int, response: Response | None) -> None:
        self.status = status
        self.response = response

    def __repr__(self) -> str:
        return f"<Outcome {self.status}>"


class InnerFlow:
    """The way back to whoever brought a request in (``sip.actions.Flow``): reliable, and for one response. ``origin`` is whatever
    the gateway wants its variables to find again."""

    __slots__ = ("_done", "host", "id", "origin", "port", "reconnects", "socket", "transport")

    reliable = True
    refused = ""
    connected = True
    proxy_header = None

    def __init__(self, transport: str, host: str, port: int, socket: Any, done: Deferred[Outcome], origin: Any) -> None:
        self.transport = transport
        self.host = host
        self.port = port
        self.socket = socket
        self.reconnects = True
        self.id = (transport, next(_numbers))
        self.origin = origin
        self._done = done

    def send(self, data: bytes) -> bool:
        """Take a response; provisional ones say nothing here."""
        try:
            response = parse(data)
        except MalformedMessage:
            return False
        if isinstance(response, Response) and response.status >= 200 and not self._done.called:
            self._done.callback(Outcome(response.status, response))
        return True


async def bring_in(
    user: TransactionUser, request: Request, *, transport: str, host: str, port: int = 0, origin: Any = None
) -> Outcome:
    """Let the script see ``request``, which has no Via yet, as if ``host`` had sent it to our first socket; 408 where nobody
    answers it. ``transport`` says which gateway brings it."""
    done: Deferred[Outcome] = Deferred()
    flow = InnerFlow(transport, host, port, user.default_socket(), done, origin)
    written = f"[{host}]" if ":" in host else host
    lines = list(request.lines)
    lines.insert(1, f"Via: SIP/2.0/TCP {written}:{port};branch={user.layer.new_branch()}")
    data = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + request.body
    timer = user.after(PATIENCE, lambda _now: None if done.called else done.callback(Outcome(408, None)))
    user.receive(data, flow)
    outcome = await done
    timer.cancel()
    return outcome
