"""One branch of a request (RFC 3261 16.6): where it was sent, what it answered, and how branches that failed compare.

Two other kinds share its life: a ``Replica`` is sent like a branch, but nobody wants to know what it answers; a ``PhonyBranch``
is not sent at all and keeps the transaction waiting for branches to come.

A branch knows its context weakly, and its client transaction no longer than until it is over: see ``proxy/responses.py``."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from sipgw.proxy.acknowledge import Acknowledgements
from sipgw.script.routes import Route
from sipgw.script.run import Run, Value
from sipgw.sip.actions import Flow
from sipgw.sip.edits import NO_EDITS, EditList
from sipgw.sip.message import Response
from sipgw.sip.target import Target
from sipgw.sip.transaction import ClientTransaction

if TYPE_CHECKING:
    from sipgw.proxy.responses import ResponseContext


class ClientBranch:
    """One branch: a request sent to one place, and what it answered.

    ``status``: of the last response, 0 before the first; ``received``: the last that came, and was not made up here (408, 503).
    ``response``: the final one if it came and was no success; others are relayed at once and not kept.
    ``cancel``: "" no, "wanted" as soon as a provisional comes, "sent". ``spare``: the targets to try if this one fails."""

    __slots__ = (
        "attrs", "bavps", "cancel", "cancel_headers", "client", "edits", "flow", "index", "keeper", "on_reply", "over", "owner",
        "received", "response", "run", "spare", "status",
    )

    flow: Flow
    type = "sip"

    def __init__(self, context: Any, index: int, run: Run) -> None:
        self.owner: weakref.ref[ResponseContext] = weakref.ref(context)
        self.index = index
        self.run = run
        self.spare: list[Target] | None = None
        self.client: ClientTransaction | None = None
        self.status = 0
        self.received = 0
        self.response: Response | None = None
        self.on_reply: Route | None = None
        self.over = False
        self.cancel = ""
        self.cancel_headers = ""
        """Lines for the CANCEL: why (RFC 3326)."""
        self.keeper: ResponseContext | None = None
        """The context, where the branch may outlive its server transaction (``allow-no-cancel``)."""
        self.edits: EditList = NO_EDITS
        """What the reply routes changed in ``response``, for when it goes upstream later."""
        self.attrs: dict[str, Value] | None = None
        """``$tm.branch.attr(name)``: what ``$msg.branch.attr(name)`` was of the destination, to begin with."""
        self.bavps: dict[str, list[int | str]] | None = None
        """``$bavp(name)``, the newest value last."""

    def receive(self, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take a response from the layer."""
        context = self.owner()
        if context is None:
            self.end()
        elif response.status < 300 and context.on_reply is None and self.on_reply is None and not context.turn.busy:
            context.turn.call(context.passes, self, response, run)
        else:
            context.turn.take(context.responded(self, response, flow, run))

    def failed(self, reason: str) -> None:
        """Learn from the layer that no final response will come."""
        context = self.owner()
        if context is None:
            self.end()
        else:
            context.turn.take(context.gave_up(self, reason))

    def end(self) -> None:
        """Take note that a final response has come, or none will; lets go of the client transaction, which holds the branch."""
        self.over = True
        self.client = None
        self.keeper = None


class Replica(ClientBranch):
    """A copy of the request that goes elsewhere (``t_replicate``): it is repeated until it is answered, and that is all."""

    __slots__ = ("acks",)

    def __init__(self, context: Any, index: int, run: Run) -> None:
        super().__init__(context, index, run)
        self.acks: Acknowledgements | None = None

    def receive(self, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take a response from the layer; a success of an INVITE is acknowledged here (RFC 3261 13.2.2.4)."""
        context = self.owner()
        if 200 <= response.status < 300 and response.method == "INVITE":
            if self.acks is None and self.client is not None:
                self.acks = Acknowledgements(self.run.user, self.client.sent)
            if self.acks is not None:
                self.acks.take(response)
        if context is None:
            self.end()
        else:
            context.replica_answered(self, response)

    def failed(self, reason: str) -> None:
        """Learn from the layer that no final response will come."""
        context = self.owner()
        self.end()
        if context is not None:
            context.replica_ended()


class PhonyBranch(ClientBranch):
    """What keeps a transaction open for branches yet to come (``t_wait_for_new_branches``).

    ``left``: how many of them, None for any number. ``timer`` has ``cancel()``: then it has waited long enough."""

    __slots__ = ("left", "timer")

    type = "phony"

    def __init__(self, context: Any, index: int, run: Run, left: int | None) -> None:
        super().__init__(context, index, run)
        self.left = left
        self.timer: Any = None

    def failed(self, reason: str) -> None:
        """It has waited long enough."""
        context = self.owner()
        if context is not None and not self.over:
            context.turn.take(context.stop_waiting(self))

    def end(self) -> None:
        """Wait no longer."""
        super().end()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


_CURABLE = {401: 0, 407: 0, 415: 1, 420: 1, 484: 1}
"""4xx responses that tell the caller how to repair the request, preferred within their class (RFC 3261 16.7 step 6)."""


def rank(branch: ClientBranch) -> tuple[int, int, int]:
    """The order in which failed branches are preferred: 6xx, then the lowest class; what a peer said before what we made up.

    What only waited comes last."""
    status = branch.status
    if branch.type == "phony":
        return (9, 0, status)
    if status >= 600:
        return (0, 0, status)
    return (status // 100, 3 if branch.response is None else _CURABLE.get(status, 2), status)


def with_challenges(best: ClientBranch, branches: list[ClientBranch]) -> EditList:
    """The edits of the best response, a 401 or 407, with the challenges of all others added (RFC 3261 16.7 step 7)."""
    edits = best.edits
    for branch in branches:
        response = branch.response
        if response is None or branch is best or response.status not in (401, 407):
            continue
        for name in ("WWW-Authenticate", "Proxy-Authenticate"):
            for position in response.positions(name):
                edits = edits.append(response.lines[position])
    return edits
