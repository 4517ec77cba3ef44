"""tm: stateful transactions (RFC 3261 16, 17): relaying, forking, routes of branches, replies and failures, cancelling.

The work is in ``proxy/responses.py`` (what comes back) and ``proxy/forward.py`` (what goes out); the script meets it here."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from sipgw.core.user import TransactionUser
from sipgw.exports import (
    BRANCH,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    BranchRouteName,
    FailureRouteName,
    Module,
    Regex,
    ReplyRouteName,
    function,
    param,
    pvar,
    statistic,
)
from sipgw.proxy.forward import NoWay, forward
from sipgw.proxy.originate import new_request, originate
from sipgw.proxy.redirect import contact_line
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.actions import Overload
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.layer import TransactionLayer
from sipgw.sip.message import Request, Response

RELAY_FLAGS = ("no-auto-477", "no-dns-failover", "pass-reason-hdr")
"""What ``t_relay`` takes; OpenSIPS's ``allow-no-cancel`` is not there yet and is refused."""


def relay_flags(text: str) -> frozenset[str]:
    """Cut the flags of ``t_relay``; ``ValueError`` names one that is not known."""
    flags = frozenset(flag.strip() for flag in text.split(",") if flag.strip())
    for flag in sorted(flags):
        if flag not in RELAY_FLAGS:
            raise ValueError(f"t_relay knows no flag {flag!r}; it takes {', '.join(RELAY_FLAGS)}")
    return flags


def replied_scope(text: str) -> None:
    """Refuse what ``t_local_replied`` does not take."""
    if text not in ("all", "branch", "last"):
        raise ValueError(f"t_local_replied takes 'all', 'branch' or 'last', not {text!r}")


def only_one(value: int) -> None:
    """Refuse any value but 1: what it would switch off is always done here."""
    if value != 1:
        raise ValueError("only 1 is possible: sipgw always matches as RFC 3261 17.2.3 says")


class Tm(Module):
    """Stateful relaying, forking, failure and reply routes, cancelling."""

    fr_timeout: int = param(30, "Seconds to wait for any answer to a relayed request (RFC 3261 timers B and F)")
    fr_inv_timeout: int = param(120, "Seconds to wait for the final answer to an INVITE after a provisional one (timer C)")
    wt_timer: int = param(5, "Seconds for which a finished transaction is kept to absorb retransmissions")
    delete_timer: int = param(2, "Delay of freeing memory", unused="Python frees a transaction when nothing holds it")
    T1_timer: int = param(500, "First interval of retransmission, in milliseconds (RFC 3261 T1)")
    T2_timer: int = param(4000, "Longest interval of retransmission, in milliseconds (RFC 3261 T2)")
    restart_fr_on_each_reply: int = param(1, "Each provisional answer starts fr_inv_timeout anew")
    onreply_avp_mode: int = param(0, "The transaction's AVPs are seen in reply routes")
    disable_6xx_block: int = param(0, "A 6xx does not end the other branches")
    auto_100trying: int = param(1, "Answer an INVITE 100 as soon as its transaction is made")
    ruri_matching: int = param(1, "Compare the Request-URI of RFC 2543 requests", check=only_one)
    via1_matching: int = param(1, "Compare the top Via of RFC 2543 requests", check=only_one)
    enable_stats: int = param(1, "Count", unused="statistics are plain integers and always counted")
    timer_partitions: int = param(1, "Shares of the timer lists", unused="there is one timer queue for each length")
    syn_branch: int = param(1, "How branches are made", unused="every branch is random and belongs to one transaction")

    received_replies = statistic("replies that matched a transaction")
    relayed_replies = statistic("replies sent on upstream")
    local_replies = statistic("replies that tm made itself")
    UAS_transactions = statistic("transactions begun by received requests")
    UAC_transactions = statistic("transactions begun by sent requests")
    transactions_2xx = statistic("transactions that ended with 2xx", name="2xx_transactions")
    transactions_3xx = statistic("transactions that ended with 3xx", name="3xx_transactions")
    transactions_4xx = statistic("transactions that ended with 4xx", name="4xx_transactions")
    transactions_5xx = statistic("transactions that ended with 5xx", name="5xx_transactions")
    transactions_6xx = statistic("transactions that ended with 6xx", name="6xx_transactions")
    inuse_transactions = statistic("server transactions alive now", read="_in_use")
    retransmission_req_T1_1 = statistic("requests sent again after T1", read="_t1_1")
    retransmission_req_T1_2 = statistic("requests sent again after 2*T1", read="_t1_2")
    retransmission_req_T1_3 = statistic("requests sent again after 4*T1", read="_t1_3")
    retransmission_req_T2 = statistic("requests sent again later than that", read="_t2")
    retransmission_rpl_T2 = statistic("final replies sent again", read="_replies_t2")
    timeout_finalresponse = statistic("requests that got no answer in fr_timeout", read="_timeouts")
    timeout_finalresponse_inv = statistic("INVITEs that got no final answer in fr_inv_timeout", read="_invite_timeouts")

    async def start(self) -> None:
        """Set the layer's timers and take the requests whose run has to wait."""
        user: TransactionUser = self.server.user
        user.layer.adjust(
            replace(
                user.layer.settings,
                t1=self.T1_timer / 1000,
                t2=self.T2_timer / 1000,
                afterlife=float(self.wt_timer),
                restart_fr_on_each_reply=bool(self.restart_fr_on_each_reply),
            )
        )
        user.on_wait = self._waits
        user.on_waited = self._waited
        self._ended = (
            self.transactions_2xx,
            self.transactions_3xx,
            self.transactions_4xx,
            self.transactions_5xx,
            self.transactions_6xx,
        )

    # -- transactions

    def context(self, run: Run) -> ResponseContext | None:
        """The transaction of ``run``, made now if there is none; None if there are too many (503 has been sent)."""
        if run.transaction is not None:
            found: ResponseContext = run.transaction
            return found
        user: TransactionUser = run.user
        request = run.message
        assert isinstance(request, Request)
        assert run.flow is not None
        flow = user.reply_flow(request, run.flow, run.force_rport)
        try:
            server = user.layer.accept(request, flow, user.clock())
        except Overload as error:
            user.reply(run, 503, "Service Unavailable", headers=f"Retry-After: {error.retry_after}\r\n")
            return None
        context = ResponseContext(self, run, server)
        context.on_failure = run.on_failure
        context.on_reply = run.on_reply
        context.on_branch = run.on_branch
        run.transaction = context
        if run.context is not None:
            for listener in run.context.pop("listeners", ()):
                context.listen(listener)
        self.UAS_transactions.value += 1
        if self.auto_100trying and request.method == "INVITE":
            context.send_reply(run, 100, "Giving it a try")
        return context

    def listen(self, run: Run, listener: Any) -> None:
        """Let ``listener(context, event, status, response)`` hear what happens to the transaction of ``run``, once it is made."""
        if run.transaction is not None:
            run.transaction.listen(listener)
        else:
            run.keep().setdefault("listeners", []).append(listener)

    def ended(self, context: ResponseContext, status: int) -> None:
        """Count a transaction whose final response goes out."""
        self._ended[min(status // 100, 6) - 2].value += 1
        if context.listeners:
            context.tell("ended", status, None)

    def _waits(self, run: Run) -> None:
        """Give the request of a run that waits a transaction, so that its retransmissions find it (house 2.6, 1)."""
        if run.message.method not in ("ACK", "CANCEL"):
            context = self.context(run)
            if context is not None:
                context.made_to_wait = True

    def _waited(self, run: Run) -> None:
        """End the transaction of a run that waited, if the script did nothing with it."""
        context = run.transaction
        if context is not None and context.made_to_wait and not context.branches and context.status < 200:
            run.user.layer.terminate(context.server)

    # -- functions

    @function(REQUEST)
    def t_newtran(self, run: Run) -> int:
        """Make the transaction now; 0, ending the script, if there are too many."""
        if run.message.method in ("ACK",):
            return -1
        return 0 if self.context(run) is None else 1

    @function(REQUEST | FAILURE)
    def t_reply(self, run: Run, code: int, reason_phrase: str) -> bool:
        """Answer the request statefully; false if it has had a final answer. A 3xx names the branches in its Contact."""
        return self._reply(run, code, reason_phrase, b"", "")

    @function(REQUEST | FAILURE)
    def t_reply_with_body(self, run: Run, code: int, reason_phrase: str, body: str) -> bool:
        """Answer the request statefully with a body, whose Content-Type an ``append_to_reply`` gave (else text/plain)."""
        content_type = "" if any("content-type" in line.lower() for line in run.reply_edits or ()) else "text/plain"
        return self._reply(run, code, reason_phrase, body.encode("utf-8", "surrogateescape"), content_type)

    def _reply(self, run: Run, code: int, reason: str, body: bytes, content_type: str) -> bool:
        if not 100 <= code <= 699:
            run.user.log(-1, f"t_reply: {code} is no status of a SIP reply")
            return False
        if run.message.method == "ACK":
            return False
        context = self.context(run)
        if context is None:
            return True
        contact = contact_line(run) if 300 <= code < 400 else ""
        headers = f"{contact}\r\n" if contact else ""
        return context.reply(run, code, reason, headers=headers, body=body, content_type=content_type)

    @function(REQUEST | FAILURE)
    async def t_relay(
        self, run: Run, flags: Annotated[str, relay_flags] | None = None, outbound_proxy: str | None = None
    ) -> int:
        """Relay the request to ``$du`` or ``$ru`` and its branches; -1 internal error, -2 bad message, -3 no destination,
        -4 bad address, -5 blacklisted, -6 send failed."""
        method = run.message.method
        if outbound_proxy is not None:
            run.dst_uri = outbound_proxy if outbound_proxy.lower().startswith("sip") else f"sip:{proxy_uri(outbound_proxy)}"
        if method == "ACK":
            return 1 if await forward(run) else -6
        if method == "CANCEL" and self._cancel(run):
            return 1
        chosen = relay_flags(flags) if flags else frozenset()
        new = run.transaction is None
        context = self.context(run)
        if context is None:
            return 0
        if run.kind is RouteKind.REQUEST:
            context.keep(run)
            context.made_to_wait = False
        if chosen:
            context.flags.update(chosen)
        try:
            await context.relay(run)
        except NoWay as error:
            if new and "no-auto-477" not in chosen:
                context.reply(run, error.status, f"{error.phrase} ({error.status}/TM)")
                return 1
            run.user.log_rarely(("relay", error.phrase), -1, f"t_relay to {run.next_hop}: {error.phrase}")
            return error.code
        return 1

    def _cancel(self, run: Run) -> bool:
        """Answer a CANCEL and cancel what it means; False if there is no such transaction here."""
        user: TransactionUser = run.user
        request = run.message
        assert isinstance(request, Request)
        server = user.layer.find(request)
        context = None if server is None else server.user
        if not isinstance(context, ResponseContext):
            return False
        user.reply(run, 200, "canceling", to_tag=context.tag())
        if "pass-reason-hdr" in context.flags:
            context.cancel_headers = "".join(f"Reason: {value}\r\n" for value in request.headers("Reason"))
        context.cancel_asked = context.cancel_asked or context.status < 200
        context.turn.take(context.cancel())
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def t_on_failure(self, run: Run, failure_route: FailureRouteName) -> None:
        """Arm the failure route of this transaction; it runs once, when all branches have failed."""
        route = run.user.routes.failure[failure_route]
        if run.transaction is None:
            run.on_failure = route
        else:
            run.transaction.on_failure = route

    @function(REQUEST | FAILURE | ONREPLY | BRANCH | LOCAL)
    def t_on_reply(self, run: Run, reply_route: ReplyRouteName) -> None:
        """Arm the reply route of this transaction, or in a branch route that of the branch."""
        route = run.user.routes.onreply[reply_route]
        if run.transaction is None or run.kind is RouteKind.BRANCH:
            run.on_reply = route
        else:
            run.transaction.on_reply = route

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def t_on_branch(self, run: Run, branch_route: BranchRouteName) -> None:
        """Arm the branch route: it runs for each branch before that is sent."""
        route = run.user.routes.branch[branch_route]
        if run.transaction is None:
            run.on_branch = route
        else:
            run.transaction.on_branch = route

    @function(REQUEST)
    def t_check_trans(self, run: Run) -> bool:
        """Whether the request belongs to a transaction: a CANCEL or ACK to an INVITE that is here, a request that has one.

        Retransmissions never come here: the transaction layer answers them."""
        request = run.message
        assert isinstance(request, Request)
        if request.method in ("CANCEL", "ACK"):
            return run.user.layer.find(request) is not None
        return run.transaction is not None

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def t_check_status(self, run: Run, re: Regex) -> bool:
        """Whether the status matches: of the reply in a reply route, else of the best or last answer of the transaction."""
        status = self._status(run)
        return status > 0 and bool(re.search(str(status)))

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def t_was_cancelled(self, run: Run) -> bool:
        """Whether the caller has cancelled."""
        return run.transaction is not None and bool(run.transaction.cancelled)

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def t_local_replied(self, run: Run, reply: Annotated[str, replied_scope]) -> bool:
        """Whether the answers were made here rather than received: of "all" branches, of this "branch", or the "last"."""
        context = run.transaction
        if context is None:
            return False
        if reply == "last":
            return not context.picked.received if context.picked is not None else context.local_status > 0
        branches = context.branches if reply == "all" else context.branches[run.branch_index : run.branch_index + 1]
        return not any(branch.received for branch in branches)

    def _status(self, run: Run) -> int:
        if isinstance(run.message, Response):
            return run.message.status
        context: ResponseContext | None = run.transaction
        if context is None:
            return 0
        return context.picked.status if run.kind is RouteKind.FAILURE and context.picked is not None else context.status

    @function()
    async def t_new_request(
        self,
        run: Run,
        method: str,
        RURI: str,
        from_: str,
        to: str,
        body: str | None = None,
        ctx: str | None = None,
    ) -> bool:
        """Send a request of our own, through ``local_route``; ``body`` is its Content-Type, a blank, and the body itself.

        ``ctx`` is ``$avp(uac_ctx)`` in the local route. True once it is sent; its answers are counted, no more."""
        user: TransactionUser = run.user
        content_type, _, text = (body or "").partition(" ")
        headers = f"Content-Type: {content_type}\r\n" if text else ""
        try:
            request = new_request(
                user, method, RURI, from_, to, headers=headers, body=text.encode("utf-8", "surrogateescape")
            )
        except MalformedMessage as error:
            user.log_rarely(("t_new_request", str(error)), -1, f"t_new_request: {error}")
            return False
        avps: dict[str, list[int | str]] = {"uac_ctx": [ctx]} if ctx is not None else {}
        self.UAC_transactions.value += 1
        return await originate(
            user, request, self._answered, avps=avps, timeout=self.fr_timeout, invite_timeout=self.fr_inv_timeout
        )

    def _answered(self, status: int, response: Response | None) -> None:
        if response is not None:
            self.received_replies.value += 1

    # -- variables

    @pvar("T_reply_code")
    def reply_code(self, run: Run) -> int:
        """``$T_reply_code``: the status that ``t_check_status`` looks at; 0 before any."""
        return self._status(run)

    @pvar("T_branch_idx")
    def branch_idx(self, run: Run) -> int | None:
        """``$T_branch_idx``: the number of the branch in a branch, reply or failure route."""
        return None if run.transaction is None else run.branch_index

    @pvar("T_ruri")
    def ruri(self, run: Run) -> str | None:
        """``$T_ruri``: the Request-URI of the current branch."""
        context = run.transaction
        if context is None:
            return run.uri or None
        if not context.branches:
            return None
        text: str = context.branches[min(run.branch_index, len(context.branches) - 1)].run.uri
        return text

    @pvar("T_id")
    def transaction_id(self, run: Run) -> str | None:
        """``$T_id``: a name of the transaction."""
        return None if run.transaction is None else run.user.mark(run.transaction.server.key)

    @pvar("T_fr_timeout", set="set_fr_timeout")
    def get_fr_timeout(self, run: Run) -> int:
        """``$T_fr_timeout``: seconds this transaction waits for any answer."""
        context: ResponseContext | None = run.transaction
        return self.fr_timeout if context is None or context.fr_timeout is None else int(context.fr_timeout)

    def set_fr_timeout(self, run: Run, value: Any) -> None:
        """Set ``$T_fr_timeout`` for branches yet to be sent."""
        context = self.context(run)
        if context is not None:
            context.fr_timeout = None if value is None else int(value)

    @pvar("T_fr_inv_timeout", set="set_fr_inv_timeout")
    def get_fr_inv_timeout(self, run: Run) -> int:
        """``$T_fr_inv_timeout``: seconds this transaction waits for a final answer after a provisional one."""
        context: ResponseContext | None = run.transaction
        return self.fr_inv_timeout if context is None or context.fr_inv_timeout is None else int(context.fr_inv_timeout)

    def set_fr_inv_timeout(self, run: Run, value: Any) -> None:
        """Set ``$T_fr_inv_timeout`` for branches yet to be sent."""
        context = self.context(run)
        if context is not None:
            context.fr_inv_timeout = None if value is None else int(value)

    # -- what statistics read

    @property
    def layer(self) -> TransactionLayer:
        """The transaction layer of this server."""
        layer: TransactionLayer = self.server.user.layer
        return layer

    def _in_use(self) -> int:
        return self.layer.in_use

    def _t1_1(self) -> int:
        return self.layer.counters.requests_t1_1

    def _t1_2(self) -> int:
        return self.layer.counters.requests_t1_2

    def _t1_3(self) -> int:
        return self.layer.counters.requests_t1_3

    def _t2(self) -> int:
        return self.layer.counters.requests_t2

    def _replies_t2(self) -> int:
        return self.layer.counters.replies_t2

    def _timeouts(self) -> int:
        return self.layer.counters.timeouts

    def _invite_timeouts(self) -> int:
        return self.layer.counters.invite_timeouts


def proxy_uri(text: str) -> str:
    """OpenSIPS's ``proto:host:port`` of an outbound proxy as the rest of a SIP URI."""
    transport, colon, rest = text.partition(":")
    if colon and transport.lower() in ("udp", "tcp", "tls", "ws", "wss"):
        return f"{rest};transport={transport.lower()}"
    return text
