"""The response context (RFC 3261 16.7): one server transaction, the branches it was forked into, and what comes back.

A ``ResponseContext`` is what OpenSIPS calls a transaction. The script makes it (``t_newtran``, ``t_relay``, ``t_reply``); it
keeps the request's run as it was then (``run``), the armed routes, and the branches. Everything that happens to it - a response,
a time-out, a CANCEL, new branches from a failure route - takes its **turn** (house 2.6, 5): while one waits for a database the
next stands in line, so no two of them ever see each other's half-done work.

How the final response is chosen: a 2xx goes up at once and the other branches are cancelled; a 6xx ends the others but is held
until they have ended; else when all branches are final the best is picked (16.7 step 6: the lowest class, in the 4xx class those
that a retry can cure first), the failure route runs once, and if it neither answered nor forked again the best goes up, a 503
as 500.

A next hop that is a name may lead to several targets (RFC 3263). One that answers 503, or nothing within ``fr_timeout``, or
that cannot be reached, has failed: the same branch goes to the next target with a new client transaction (RFC 3263 4.3), and is
judged by what the last one answers. ``t_relay("no-dns-failover")`` and ``disable_dns_failover`` switch that off.

Nothing here may keep itself alive: a busy proxy drops thousands of contexts a second, and they must be freed by their reference
counts, not by the collector. The server transaction in the layer holds the context (``server.user``), the client transaction in
the layer its branch; a branch knows its context weakly (``owner``) and its client transaction no longer than until it is over,
and a run forgets its transaction when it has ended."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from sipgw.core.surroundings import NextHop
from sipgw.core.user import TransactionUser
from sipgw.core.waiting import Turn
from sipgw.proxy.forward import NO_DESTINATION, NoWay, find_flow, literal_flow, next_flow, write_relayed
from sipgw.script.routes import Route
from sipgw.script.run import Branch, Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow
from sipgw.sip.edits import NO_EDITS, EditList, write_popped
from sipgw.sip.message import Request, Response
from sipgw.sip.replies import cancel_for
from sipgw.sip.target import Target
from sipgw.sip.transaction import ClientTransaction, ServerTransaction

MAX_BRANCHES = 12
"""How many branches one transaction may have at a time (OpenSIPS's MAX_BRANCHES)."""

Listener = Callable[["ResponseContext", str, int, "Response | None"], None]
"""Called as ``listener(context, event, status, response)`` for each event of ``LISTENED``."""

LISTENED = ("response_in", "response_out", "local_reply", "failure", "cancelled", "ended")
"""What listeners hear: a response came (before its routes), one was relayed, one of our own was sent, the last branch failed
(before the failure route runs), the caller cancelled, the final response was sent."""


class ClientBranch:
    """One branch: a request sent to one place, and what it answered.

    ``status``: of the last response, 0 before the first; ``response``: the last one, None where we made it up (408, 503).
    ``cancel``: "" no, "wanted" as soon as a provisional comes, "sent". ``spare``: the targets to try if this one fails."""

    __slots__ = ("cancel", "client", "edits", "flow", "index", "on_reply", "over", "owner", "response", "run", "spare", "status")

    def __init__(self, context: ResponseContext, index: int, run: Run, flow: Flow, spare: list[Target]) -> None:
        self.owner = weakref.ref(context)
        self.index = index
        self.run = run
        self.flow = flow
        self.spare = spare or None
        self.client: ClientTransaction | None = None
        self.status = 0
        self.response: Response | None = None
        self.on_reply: Route | None = None
        self.over = False
        self.cancel = ""
        self.edits: EditList = NO_EDITS
        """What the reply routes changed in ``response``, for when it goes upstream later."""

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


class ResponseContext:
    """One transaction as the script knows it; see the essay above."""

    __slots__ = (
        "__weakref__",
        "branches",
        "cancel_asked",
        "cancel_headers",
        "cancelled",
        "dst_uri",
        "edits",
        "first_branch",
        "flags",
        "forking",
        "fr_inv_timeout",
        "fr_timeout",
        "id",
        "kept",
        "last_final",
        "listeners",
        "local_status",
        "made_to_wait",
        "message_flags",
        "on_branch",
        "on_failure",
        "on_reply",
        "picked",
        "reply_edits",
        "request",
        "run",
        "server",
        "status",
        "tm",
        "to_tag",
        "turn",
        "uri",
        "user",
    )

    def __init__(self, tm: Any, run: Run, server: ServerTransaction) -> None:
        assert isinstance(run.message, Request)
        self.tm = tm
        self.user: TransactionUser = run.user
        self.request = run.message
        self.keep(run)
        self.server = server
        server.user = self
        self.branches: list[ClientBranch] = []
        self.first_branch = 0
        """The first branch of the fork that is now under way; those before it failed and were judged."""
        self.on_failure: Route | None = None
        self.on_reply: Route | None = None
        self.on_branch: Route | None = None
        self.status = 0
        """Of the last response sent upstream."""
        self.to_tag = ""
        self.cancelled = False
        self.cancel_asked = False
        """A CANCEL has come; its turn may be yet to come, but nothing more is sent."""
        self.cancel_headers = ""
        """Header lines for our CANCELs (``pass-reason-hdr``)."""
        self.forking = False
        """Branches are still being sent: what those already sent answer is not judged yet."""
        self.made_to_wait = False
        """Made only because the request's run had to wait; ends unused if the script neither relays nor replies."""
        self.picked: ClientBranch | None = None
        """In a failure route: the branch whose response is the best."""
        self.last_final = 0
        """The number of the branch that ended last."""
        self.listeners: list[Listener] | None = None
        self.flags: set[str] = set()
        self.kept: dict[str, Any] = {}
        self.local_status = 0
        self.fr_timeout: float | None = None
        self.fr_inv_timeout: float | None = None
        self.turn = Turn(self.user)

    def keep(self, run: Run) -> None:
        """Keep the request as ``run`` has it now: what the script changes later is not part of the transaction (house 2.6, 8).

        Only AVPs and what modules keep (``run.context``) are shared."""
        self.run = run
        self.uri = run.uri
        """The Request-URI that the script relayed to; a failure route begins with the received one again."""
        self.dst_uri = run.dst_uri
        self.edits = run.edits
        self.reply_edits = list(run.reply_edits) if run.reply_edits else None
        self.message_flags = run.flags

    # -- what listeners hear

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` what happens from now on."""
        if self.listeners is None:
            self.listeners = []
        self.listeners.append(listener)

    def tell(self, event: str, status: int, response: Response | None) -> None:
        """Let the listeners hear ``event``; one that raises is a bug that is logged, no more."""
        for listener in self.listeners or ():
            try:
                listener(self, event, status, response)
            except Exception as error:
                self.user.broken(error)

    # -- the request goes out

    async def relay(self, run: Run) -> None:
        """Fork ``run``'s request to its Request-URI and its branches (RFC 3261 16.6); ``NoWay`` if none could be sent."""
        user = self.user
        self.first_branch = len(self.branches)
        problem: NoWay | None = None
        sent = 0
        extra = run.branches
        self.forking = True
        for number in range(1 + len(extra)):
            if number >= MAX_BRANCHES:
                user.log_rarely("branches", -1, f"more than {MAX_BRANCHES} branches: the rest is not tried")
                break
            if self.cancel_asked:
                break
            branch_run = self._branch_run(run, extra[number - 1] if number else None)
            try:
                sent += self._send_at_once(branch_run) or await self._send_branch(branch_run)
            except NoWay as error:
                problem = error
            run.flags = branch_run.flags
        self.forking = False
        self.message_flags = run.flags
        run.branches = []
        run.attrs = None
        if self.cancel_asked:
            if self.cancelled:
                self._cancelled_while_forking()
        elif not sent:
            raise problem or NoWay(*NO_DESTINATION)
        elif all(branch.over for branch in self.branches[self.first_branch :]):
            self.turn.take(self._judge())

    def _branch_run(self, run: Run, branch: Branch | None) -> Run:
        """A run for one branch: everything as in ``run``, but with a destination and edits of its own."""
        made = Run(run.message, RouteKind.BRANCH, run.flow, run.now, self.user)
        if branch is None:
            made.uri = run.uri
            made.dst_uri = run.dst_uri
            made.path = run.path
            made.q = run.q
            made.branch_flags = run.branch_flags
            made.send_socket = run.send_socket
        else:
            made.uri = branch.uri
            made.dst_uri = branch.dst_uri
            made.path = branch.path
            made.q = branch.q
            made.branch_flags = branch.flags
            made.send_socket = branch.socket or run.send_socket
        made.edits = run.edits
        made.flags = run.flags
        made.avps = run.avps
        made.vars = run.vars
        made.context = run.context
        made.advertised_host = run.advertised_host
        made.advertised_port = run.advertised_port
        made.blacklists = run.blacklists
        made.transaction = self
        made.branch_index = len(self.branches)
        return made

    async def _send_branch(self, run: Run) -> bool:
        """Run the branch route and send one branch; False if the route dropped it."""
        user = self.user
        if self.on_branch is not None:
            result = await user.run_route(self.on_branch, run)
            if result is DROP:
                return False
        spare: list[Target] = []
        flow = await find_flow(run, spare)
        if self.cancel_asked:
            return False
        self._add(run, flow, spare)
        return True

    def _send_at_once(self, run: Run) -> bool:
        """Send one branch if nothing of it can wait: there is no branch route, and no name to look up."""
        if self.on_branch is not None:
            return False
        flow = literal_flow(run)
        if isinstance(flow, NextHop):
            return False
        self._add(run, flow, [])
        return True

    def _add(self, run: Run, flow: Flow, spare: list[Target]) -> None:
        branch = ClientBranch(self, len(self.branches), run, flow, spare)
        branch.on_reply = run.on_reply
        run.transaction = None
        self.branches.append(branch)
        self._send(branch)

    def _send(self, branch: ClientBranch) -> None:
        """Send the request of ``branch`` on its flow, in a client transaction."""
        user = self.user
        flow = branch.flow
        token = user.layer.new_branch()
        data = write_relayed(branch.run, flow, token)
        timeout = self.tm.fr_timeout if self.fr_timeout is None else self.fr_timeout
        invite_timeout = self.tm.fr_inv_timeout if self.fr_inv_timeout is None else self.fr_inv_timeout
        branch.client, actions = user.layer.request(
            data, self.request, flow, user.clock(), timeout, invite_timeout, branch, branch=token
        )
        self.tm.UAC_transactions.value += 1
        user.fwd_requests.value += 1
        user.perform(actions)

    def _fail_over(self, branch: ClientBranch) -> bool:
        """The target of ``branch`` has failed: try the next one (RFC 3263 4.3); False if there is none, or no need any more."""
        user = self.user
        flow = branch.flow
        user.blacklists.failed(flow.host, flow.transport, flow.port)
        if not branch.spare or branch.cancel or self.cancel_asked or self.status >= 200:
            return False
        if "no-dns-failover" in self.flags or user.globals.get("disable_dns_failover"):
            return False
        try:
            branch.flow = next_flow(branch.run, branch.spare)
        except NoWay:
            return False
        branch.status = 0
        branch.response = None
        branch.edits = NO_EDITS
        self._send(branch)
        return True

    # -- what comes back

    async def responded(self, branch: ClientBranch, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take ``response`` of ``branch`` (RFC 3261 16.7)."""
        if not self._hears(branch, response):
            return
        edits = run.edits if run is not None else NO_EDITS
        if self.on_reply is not None or branch.on_reply is not None:
            run = self._reply_run(branch, response, flow, run)
            for route in (self.on_reply, branch.on_reply):
                if route is not None and await self.user.run_route(route, run) is DROP and response.status < 200:
                    return
            self.message_flags = run.flags
            edits = run.edits
        status = response.status
        if status < 300:
            self._pass(branch, response, edits)
            return
        branch.status = status
        branch.response = response
        if status == 503 and self._fail_over(branch):
            return
        branch.end()
        branch.edits = edits
        self.last_final = branch.index
        if status >= 600 and not self.tm.disable_6xx_block:
            self._cancel_others(branch)
        await self._judge()

    def passes(self, branch: ClientBranch, response: Response, run: Run | None) -> None:
        """Take a 1xx or 2xx that no route is to see: what ``responded`` does with it, and nothing in it can wait."""
        if self._hears(branch, response):
            self._pass(branch, response, run.edits if run is not None else NO_EDITS)

    def _hears(self, branch: ClientBranch, response: Response) -> bool:
        """Whether ``response`` still means something; a CANCEL that waited for it goes out."""
        status = response.status
        self.tm.received_replies.value += 1
        if branch.over and not 200 <= status < 300:
            return False
        if branch.cancel == "wanted" and status < 200:
            self._send_cancel(branch)
        if self.listeners:
            self.tell("response_in", status, response)
        return True

    def _pass(self, branch: ClientBranch, response: Response, edits: EditList) -> None:
        """Relay a provisional response, or a success, which ends the other branches."""
        status = branch.status = response.status
        branch.response = response
        if status >= 200:
            branch.end()
            if self.request.method == "INVITE" or self.status < 200:
                self._relay(response, edits)
                if len(self.branches) > 1:
                    self._cancel_others(branch)
        elif status > 100 and self.status < 200:
            self._relay(response, edits)

    async def gave_up(self, branch: ClientBranch, reason: str) -> None:
        """Take it that ``branch`` will not answer: as a 408, or a 503 where nothing could be sent (RFC 3261 16.9)."""
        if branch.over:
            return
        provisional = branch.status >= 100
        if not provisional and self._fail_over(branch):
            return
        if reason == "timeout" and provisional and self.request.method == "INVITE" and not branch.cancel:
            self._send_cancel(branch)
        branch.end()
        self.last_final = branch.index
        branch.status = 408 if reason == "timeout" else 503
        branch.response = None
        await self._judge()

    async def _judge(self) -> None:
        """If every branch has ended without success, run the failure route and answer with the best."""
        tried = self.branches[self.first_branch :]
        if self.forking or self.status >= 200 or not tried or not all(branch.over for branch in tried):
            return
        best = min(tried, key=_rank)
        self.picked = best
        if self.listeners:
            self.tell("failure", best.status, best.response)
        route = self.on_failure
        if route is not None:
            self.on_failure = None
            forks = len(self.branches)
            run = self._failure_run()
            await self.user.run_route(route, run)
            self.message_flags = run.flags
            if self.status >= 200 or len(self.branches) > forks:
                return
        self._answer_with(best)

    def _answer_with(self, best: ClientBranch) -> None:
        status = 487 if self.cancelled and best.response is None else best.status
        if best.response is None:
            phrase = {408: "Request Timeout", 487: "Request Terminated", 503: "Service Unavailable"}[status]
            self._reply_alone(status, phrase)
            return
        if status == 503 and not self.user.globals.get("disable_503_translation"):
            # RFC 3261 16.7 step 6: a 503 of one destination does not mean that this proxy is out of service
            self._relay(best.response, best.edits.first_line("SIP/2.0 500 Service Unavailable"), 500)
            return
        self._relay(best.response, best.edits, status)

    def _relay(self, response: Response, edits: EditList, status: int = 0) -> None:
        """Send ``response`` upstream without our Via."""
        status = status or response.status
        data = write_popped(response, edits, ensure_length=self.server.flow.reliable)
        user = self.user
        if status > self.status or status >= 200:
            self.status = status
        self.tm.relayed_replies.value += 1
        user.fwd_replies.value += 1
        if user.no_connect_reply:
            user.note_flags(self.server.flow, self.message_flags)
        user.perform(user.layer.respond(self.server, data, status, user.clock()))
        if status >= 200:
            self._ended(status)
        if self.listeners:
            self.tell("response_out", status, response)

    def _ended(self, status: int) -> None:
        self.tm.ended(self, status)

    def _reply_run(self, branch: ClientBranch, response: Response, flow: Flow | None, run: Run | None) -> Run:
        """A run for the reply routes of this transaction (its AVPs are seen only with ``onreply_avp_mode``)."""
        made = run or Run(response, RouteKind.ONREPLY, flow or branch.flow, self.user.clock(), self.user)
        made.flags = self.message_flags
        made.branch_flags = branch.run.branch_flags
        if self.tm.onreply_avp_mode:
            made.avps = self.run.avps
        made.transaction = self
        made.request = self.request
        made.branch_index = branch.index
        made.context = self.run.context
        return made

    def _failure_run(self) -> Run:
        """A run for the failure route: the received request, with the edits it was relayed with (house 2.6, 8).

        COMPAT: ``$ru`` is the received Request-URI; ``$du``, branch flags, attributes, path and socket are unset (OpenSIPS)."""
        kept = self.run
        made = Run(self.request, RouteKind.FAILURE, kept.flow, self.user.clock(), self.user)
        made.edits = self.edits
        made.reply_edits = list(self.reply_edits) if self.reply_edits else None
        made.flags = self.message_flags
        made.avps = kept.avps
        made.context = kept.context
        made.force_rport = kept.force_rport
        made.advertised_host = kept.advertised_host
        made.advertised_port = kept.advertised_port
        made.transaction = self
        made.branch_index = self.last_final
        return made

    # -- replies of our own

    def reply(
        self,
        run: Run,
        status: int,
        reason: str,
        *,
        to_tag: str = "",
        headers: str = "",
        body: bytes = b"",
        content_type: str = "",
    ) -> bool:
        """Answer the request statefully; False if a final response has gone out already."""
        if self.status >= 200:
            return False
        self.send_reply(run, status, reason, to_tag=to_tag, headers=headers, body=body, content_type=content_type)
        if status >= 200:
            for branch in self.branches:
                if not branch.over:
                    self._cancel(branch)
        return True

    def tag(self, wanted: str = "") -> str:
        """The To tag of our replies, made at the first: the CANCEL and the INVITE are answered with the same (RFC 3261 9.2)."""
        if wanted or not self.to_tag:
            self.to_tag = wanted or self.user.new_tag(self.request, transaction=True)
        return self.to_tag

    def _reply_alone(self, status: int, reason: str) -> None:
        """Answer without a script that asked for it, with the headers that it had for replies when it relayed."""
        run = Run(self.request, RouteKind.REQUEST, self.run.flow, self.user.clock(), self.user)
        run.reply_edits = self.reply_edits
        run.context = self.run.context
        self.send_reply(run, status, reason)

    def send_reply(
        self,
        run: Run,
        status: int,
        reason: str,
        *,
        to_tag: str = "",
        headers: str = "",
        body: bytes = b"",
        content_type: str = "",
    ) -> None:
        """Write a response of our own and send it through the server transaction."""
        user = self.user
        tag = "" if status == 100 else self.tag(to_tag)
        data = user.make_reply(run, status, reason, to_tag=tag, headers=headers, body=body, content_type=content_type)
        self.status = max(self.status, status)
        self.tm.local_replies.value += 1
        if user.no_connect_reply:
            user.note_flags(self.server.flow, run.flags)
        ours = 200 <= status < 300 and self.request.method == "INVITE"
        user.perform(user.layer.respond(self.server, data, status, user.clock(), retransmit_2xx=ours))
        if status >= 200:
            self.local_status = status
            self._ended(status)
        if self.listeners:
            self.tell("local_reply", status, None)

    # -- cancelling

    async def cancel(self) -> None:
        """Do what the caller's CANCEL asks for (RFC 3261 9.2, 16.10)."""
        if self.status >= 200 or self.cancelled:
            return
        self.cancelled = True
        if self.listeners:
            self.tell("cancelled", 487, None)
        open_branches = [branch for branch in self.branches if not branch.over]
        for branch in open_branches:
            self._cancel(branch)
        if not open_branches:
            self._reply_alone(487, "Request Terminated")

    def _cancelled_while_forking(self) -> None:
        """The CANCEL came while the run that relays waited (house 2.6, 2): nothing more goes out."""
        for branch in self.branches:
            if not branch.over and not branch.cancel:
                self._cancel(branch)
        if self.status < 200 and all(branch.over for branch in self.branches):
            self._reply_alone(487, "Request Terminated")

    def _cancel_others(self, winner: ClientBranch) -> None:
        for branch in self.branches:
            if branch is not winner and not branch.over:
                self._cancel(branch)

    def _cancel(self, branch: ClientBranch) -> None:
        """Cancel one branch: now, or as soon as it has answered provisionally (RFC 3261 9.1)."""
        if branch.cancel or self.request.method != "INVITE":
            return
        if branch.status >= 100:
            self._send_cancel(branch)
        else:
            branch.cancel = "wanted"

    def _send_cancel(self, branch: ClientBranch) -> None:
        branch.cancel = "sent"
        client = branch.client
        assert client is not None
        user = self.user
        data = cancel_for(client.sent, self.cancel_headers)
        _, actions = user.layer.request(
            data, parse_request(data), branch.flow, user.clock(), self.tm.fr_timeout, self.tm.fr_timeout, NOBODY
        )
        user.perform(actions)


def parse_request(data: bytes) -> Request:
    """Read back a request that we wrote ourselves."""
    from sipgw.sip.message import parse

    made = parse(data)
    assert isinstance(made, Request)
    return made


class _Nobody:
    """Owns the client transactions whose answers nobody waits for: our CANCELs."""

    def receive(self, response: Response, flow: Flow | None, run: Run | None) -> None:
        """Take the answer, and be done."""

    def failed(self, reason: str) -> None:
        """Never mind."""


NOBODY = _Nobody()

_CURABLE = {401: 0, 407: 0, 415: 1, 420: 1, 484: 1}
"""4xx responses that tell the caller how to repair the request, preferred within their class (RFC 3261 16.7 step 6)."""


def _rank(branch: ClientBranch) -> tuple[int, int, int]:
    """The order in which failed branches are preferred: 6xx, then the lowest class; what a peer said before what we made up."""
    status = branch.status
    if status >= 600:
        return (0, 0, status)
    return (status // 100, 3 if branch.response is None else _CURABLE.get(status, 2), status)
