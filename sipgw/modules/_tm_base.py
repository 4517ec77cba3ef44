"""What every part of tm shares: its parameters and statistics, and how a run gets its transaction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from sipgw.core.user import TransactionUser
from sipgw.exports import Module, param, statistic
from sipgw.proxy.context import Rewriter
from sipgw.proxy.originate import Answer, LocalOwner, originate
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import WATCHER, Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.actions import Flow, Overload
from sipgw.sip.dialog import Dialog
from sipgw.sip.layer import TransactionLayer
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.transaction import State

if TYPE_CHECKING:
    from sipgw.interfaces import Server


def only_one(value: int) -> None:
    """Refuse any value but 1: what it would switch off is always done here."""
    if value != 1:
        raise ValueError("only 1 is possible: sipgw always matches as RFC 3261 17.2.3 says")


REMOTE = "remote_transaction"
"""What a run keeps that has no transaction of its own but may send branches of another one: a weak reference to it."""


def _alive(context: ResponseContext | None) -> ResponseContext | None:
    """``context``, unless its transaction has ended."""
    return None if context is None or context.server.state is State.TERMINATED else context


_CLUSTER = "anycast replication needs OpenSIPS's clusterer, whose protocol sipgw does not speak"


class TmBase(Module):
    """The transactions of one server."""

    later = dict.fromkeys(("tm_replication_cluster", "cluster_param", "cluster_auto_cancel"), _CLUSTER)

    fr_timeout: int = param(30, "Seconds to wait for any answer to a relayed request (RFC 3261 timers B and F)")
    fr_inv_timeout: int = param(120, "Seconds to wait for the final answer to an INVITE after a provisional one (timer C)")
    wt_timer: int = param(5, "Seconds for which a finished transaction is kept to absorb retransmissions")
    delete_timer: int = param(2, "Delay of freeing memory", unused="Python frees a transaction when nothing holds it")
    T1_timer: int = param(500, "First interval of retransmission, in milliseconds (RFC 3261 T1)")
    T2_timer: int = param(4000, "Longest interval of retransmission, in milliseconds (RFC 3261 T2)")
    restart_fr_on_each_reply: int = param(1, "Each provisional answer starts fr_inv_timeout anew")
    onreply_avp_mode: int = param(0, "The transaction's AVPs are seen in reply routes")
    disable_6xx_block: int = param(0, "A 6xx does not end the other branches, and a failure route may relay again after it")
    minor_branch_flag: str = param("", "The branch flag of branches that are not waited for when all others failed", flag=True)
    pass_provisional_replies: int = param(0, "The command tm:uac_dlg is answered by a provisional reply, if one but 100 comes")
    local_reply_route: str = param("", "A route that sees each reply that tm makes itself, and can change nothing of it")
    local_request_route: str = param("", "A route that sees each request of our own as it is sent, after local_route")
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

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self.local_invites: WeakValueDictionary[tuple[str, int], LocalOwner] = WeakValueDictionary()
        """INVITEs of our own, by Call-ID and CSeq number."""
        self._calls: WeakValueDictionary[tuple[str, int], ResponseContext] | None = None
        self.minor_branches: int = 0
        """The mask of ``minor_branch_flag``."""
        self._by_id: WeakValueDictionary[str, ResponseContext] = WeakValueDictionary()

    async def start(self) -> None:
        """Set the layer's timers and take the requests whose run has to wait."""
        user: TransactionUser = self.server.user
        self.minor_branches = int(self.minor_branch_flag or 0)
        for name in (self.local_reply_route, self.local_request_route):
            if name and name not in user.routes.named:
                raise ValueError(f"tm: there is no route[{name}]")
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
        user.on_end = self._ends
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
        if self._calls is not None:
            self._note_call(context)
        if run.context is not None:
            for listener in run.context.pop("listeners", ()):
                context.listen(listener)
            for rewriter in run.context.pop("rewriters", ()):
                context.rewrite(rewriter)
            if WATCHER in run.context:
                context.watch(run.context[WATCHER])
        self.UAS_transactions.value += 1
        if self.auto_100trying and request.method == "INVITE":
            context.send_reply(run, 100, "Giving it a try")
        return context

    def reachable(self, run: Run) -> ResponseContext | None:
        """The transaction of ``run``, or that of the run that let this one be notified (event_routing)."""
        if run.transaction is None and run.context is not None and REMOTE in run.context:
            return _alive(run.context[REMOTE]())
        found: ResponseContext | None = run.transaction
        return found

    def name_of(self, context: ResponseContext) -> str:
        """``$T_id``: a name of the transaction by which a management command finds it."""
        if not context.id:
            mark = self.server.user.mark(str(context.server.key))
            context.id = f"{mark[:8]}.{mark[8:12]}"
            self._by_id[context.id] = context
        return context.id

    def transaction_of(self, name: str) -> ResponseContext | None:
        """The transaction whose ``$T_id`` that is."""
        return _alive(self._by_id.get(name))

    def find_call(self, call_id: str, number: int) -> ResponseContext | None:
        """The latest transaction with this Call-ID and CSeq number.

        They are noted from the first time on that somebody asks."""
        if self._calls is None:
            self._calls = WeakValueDictionary()
            for server in self.layer.servers():
                if isinstance(server.user, ResponseContext):
                    self._note_call(server.user)
        return _alive(self._calls.get((call_id, number)))

    def _note_call(self, context: ResponseContext) -> None:
        request = context.request
        if self._calls is not None and request.method != "CANCEL":
            self._calls[request.call_id, request.cseq.number] = context

    def show_reply(self, data: bytes, flow: Flow) -> None:
        """Let ``local_reply_route`` see a reply that is about to be sent."""
        user: TransactionUser = self.server.user
        route = user.routes.named.get(self.local_reply_route)
        if route is not None:
            user.execute(route, Run(parse(data), RouteKind.ONREPLY, flow, user.clock(), user))

    async def originate(
        self,
        request: Request,
        answer: Answer,
        *,
        next_hop: str | None = None,
        socket: Any = None,
        avps: dict[str, list[int | str]] | None = None,
        kept: dict[str, Any] | None = None,
        dialog: Dialog | None = None,
        timeout: float | None = None,
        acknowledge: Callable[[Response], None] | None = None,
    ) -> bool:
        """Send a request of our own; ``answer`` hears what comes back. False if ``local_route`` dropped it; ``NoWay``.

        ``kept``, ``dialog``, ``acknowledge``: see ``originate``. ``timeout``: seconds to wait, if not ``fr_timeout``."""
        user: TransactionUser = self.server.user

        def answered(status: int, response: Response | None) -> None:
            if response is not None:
                self.received_replies.value += 1
            if status >= 200:
                self._ended[min(status // 100, 6) - 2].value += 1
            answer(status, response)

        owner = await originate(
            user, request, answered, next_hop=next_hop, socket=socket, avps=avps,
            timeout=self.fr_timeout if timeout is None else timeout, invite_timeout=self.fr_inv_timeout,
            kept=kept, dialog=dialog, acknowledge=acknowledge, shown_to=user.routes.named.get(self.local_request_route),
        )
        if owner is None:
            return False
        self.UAC_transactions.value += 1
        if request.method == "INVITE":
            self.local_invites[request.call_id, request.cseq.number] = owner
        return True

    def listen(self, run: Run, listener: Any) -> None:
        """Let ``listener(context, event, status, response)`` hear what happens to the transaction of ``run``, once it is made."""
        if run.transaction is not None:
            run.transaction.listen(listener)
        else:
            run.keep().setdefault("listeners", []).append(listener)

    def rewrite_replies(self, run: Run, rewriter: Rewriter) -> None:
        """Let ``rewriter`` change what the transaction of ``run`` is answered, once it is made (``Context.rewrite``)."""
        if run.transaction is not None:
            run.transaction.rewrite(rewriter)
        else:
            run.keep().setdefault("rewriters", []).append(rewriter)

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

    def _ends(self, run: Run) -> None:
        """See to the transaction of a request whose script has ended without relaying or answering it for good.

        One that was made only because the run had to wait ends now, any other after ``wt_timer``, as OpenSIPS's do: nobody
        could end it later, and it would stay for ever."""
        context: ResponseContext = run.transaction
        if not context.is_idle():
            return
        layer, server = self.layer, context.server
        if context.made_to_wait:
            layer.terminate(server)
            return

        def end(_now: float) -> None:
            if context.is_idle():
                layer.terminate(server)

        self.server.user.after(self.wt_timer, end)

    def status_of(self, run: Run) -> int:
        """The status that ``t_check_status`` and ``$T_reply_code`` mean: of the reply, the best failure, or the last one sent."""
        if isinstance(run.message, Response):
            return run.message.status
        context: ResponseContext | None = run.transaction
        if context is None:
            return 0
        return context.picked.status if run.kind is RouteKind.FAILURE and context.picked is not None else context.status

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
