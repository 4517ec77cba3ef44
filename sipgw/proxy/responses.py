"""The response context (RFC 3261 16.7): one server transaction, the branches it was forked into, and what comes back.

A ``ResponseContext`` is what OpenSIPS calls a transaction. The script makes it (``t_newtran``, ``t_relay``, ``t_reply``); it
keeps the request's run as it was then (``run``), the armed routes, and the branches. Everything that happens to it - a response,
a time-out, a CANCEL, new branches from a failure route - takes its **turn** (house 2.6, 5): while one waits for a database the
next stands in line, so no two of them ever see each other's half-done work.

How the final response is chosen: a 2xx goes up at once and the other branches are cancelled; a 6xx ends the others but is held
until they have ended; else when all branches are final the best is picked (16.7 step 6: the lowest class, in the 4xx class those
that a retry can cure first), the failure route runs once, and if it neither answered nor forked again the best goes up, a 503
as 500.

What it keeps and what it answers itself is in ``proxy/context.py``, how the request goes out in ``proxy/forking.py``.

Nothing here may keep itself alive: a busy proxy drops thousands of contexts a second, and they must be freed by their reference
counts, not by the collector. The server transaction in the layer holds the context (``server.user``), the client transaction in
the layer its branch; a branch knows its context weakly (``owner``) and its client transaction no longer than until it is over,
and a run forgets its transaction when it has ended."""

from __future__ import annotations

from typing import Final

from sipgw.proxy.client_branch import ClientBranch, rank, with_challenges
from sipgw.proxy.forking import ELSEWHERE, NO_ANSWER, Forking
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow, Send
from sipgw.sip.edits import NO_EDITS, EditList, write_popped
from sipgw.sip.message import Request, Response
from sipgw.sip.transaction import State

_TERMINATED: Final = State.TERMINATED


class ResponseContext(Forking):
    """One transaction as the script knows it; see the essay above."""

    __slots__ = ()

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
            branch.run.branch_flags = run.branch_flags
            edits = run.edits
        status = response.status
        if status < 200 and branch.cancel == "wanted":  # the reply route wants so
            self.send_cancel(branch)
        if status < 300:
            self._pass(branch, response, edits)
            return
        branch.status = branch.received = status
        branch.response = response
        if status == 503 and self.fail_over(branch):
            return
        branch.end()
        branch.edits = edits
        self.last_final = branch.index
        if status >= 600 and not self.tm.disable_6xx_block:
            self.blocked = True
            self.cancel_others(branch)
        await self.judge()

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
            self.send_cancel(branch)
        if self.listeners:
            self.tell("response_in", status, response)
        return True

    def _pass(self, branch: ClientBranch, response: Response, edits: EditList) -> None:
        """Relay a provisional response, or a success, which ends the other branches."""
        status = branch.status = branch.received = response.status
        if status >= 200:
            branch.end()
            if self.request.method == "INVITE" or self.status < 200:
                self._relay(response, edits)
                if len(self.branches) > 1:
                    self._succeeded(branch)
        elif status > 100 and self.status < 200:
            self._relay(response, edits)

    async def gave_up(self, branch: ClientBranch, reason: str) -> None:
        """Take it that ``branch`` will not answer: as a 408, or a 503 where nothing could be sent (RFC 3261 16.9)."""
        if branch.over:
            return
        provisional = branch.status >= 100
        if not provisional and self.fail_over(branch):
            return
        if reason == "timeout" and provisional and self.request.method == "INVITE" and not branch.cancel:
            branch.cancel_headers = NO_ANSWER
            self.send_cancel(branch)
        branch.end()
        self.last_final = branch.index
        branch.status = 408 if reason == "timeout" else 503
        await self.judge()

    def _succeeded(self, winner: ClientBranch) -> None:
        """End the other branches, unless the caller wants to hear of every success (RFC 3841 9.1)."""
        if "allow-no-cancel" in self.flags and _wants_all(self.request):
            for branch in self.branches:
                if not branch.over and branch.type == "sip":
                    branch.keeper = self
            self.wait_no_more()
        else:
            self.cancel_others(winner, ELSEWHERE)

    async def judge(self) -> None:
        """If every branch has ended without success, run the failure route and answer with the best.

        Those that have the flag ``minor_branch_flag`` are not waited for."""
        tried = self.branches[self.judged :]
        if self.forking or self.status >= 200 or not tried:
            return
        ended = [branch for branch in tried if branch.over]
        if len(ended) < len(tried):
            minor = self.tm.minor_branches
            for branch in tried:
                if not branch.over and (branch.type == "phony" or not branch.run.branch_flags & minor):
                    return
            if not ended:
                return
            for branch in tried:
                if not branch.over:
                    self.cancel_branch(branch)
        self.first_branch, self.judged = self.judged, len(self.branches)
        best = min(ended, key=rank)
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
            self.reply_alone(status, phrase)
            return
        if status == 503 and not self.user.globals.get("disable_503_translation"):
            # RFC 3261 16.7 step 6: a 503 of one destination does not mean that this proxy is out of service
            self._relay(best.response, best.edits.first_line(f"SIP/2.0 500 {best.response.reason}"), 500)
            return
        edits = best.edits
        if status in (401, 407) and len(self.branches) > 1:
            edits = with_challenges(best, self.branches)
        self._relay(best.response, edits, status)

    def _relay(self, response: Response, edits: EditList, status: int = 0) -> None:
        """Send ``response`` upstream without our Via."""
        status = status or response.status
        for rewriter in self.rewriters or ():
            edits = rewriter(self.request, response, edits)
        data = write_popped(response, edits, ensure_length=self.server.flow.reliable)
        user = self.user
        if status > self.status or status >= 200:
            self.status = status
        self.tm.relayed_replies.value += 1
        user.fwd_replies.value += 1
        if user.no_connect_reply:
            user.note_flags(self.server.flow, self.message_flags)
        if self.server.state is _TERMINATED:
            user.perform((Send(data, self.server.flow),))  # a success that the caller wants however late
        else:
            user.perform(user.layer.respond(self.server, data, status, user.clock()))
        if status >= 200:
            self.ended(status)
        if self.listeners:
            self.tell("response_out", status, response)

    def _reply_run(self, branch: ClientBranch, response: Response, flow: Flow | None, run: Run | None) -> Run:
        """A run for the reply routes of this transaction (its AVPs are seen only with ``onreply_avp_mode``)."""
        made = run or Run(response, RouteKind.ONREPLY, flow or branch.flow, self.user.clock(), self.user)
        made.flags = self.message_flags
        made.branch_flags = branch.run.branch_flags
        if self.tm.onreply_avp_mode:
            made.avps = self.run.avps
        made.transaction = self
        made.request = self.request
        made.branch = branch
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


def _wants_all(request: Request) -> bool:
    """Whether the caller asks that no branch be cancelled because another one succeeded (``Request-Disposition: no-cancel``)."""
    return any(
        directive.strip().lower() == "no-cancel"
        for value in request.headers("Request-Disposition")
        for directive in value.split(",")
    )
