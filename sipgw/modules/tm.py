"""tm: stateful transactions (RFC 3261 16, 17): relaying, forking, routes of branches, replies and failures, cancelling.

The work is in ``proxy/forking.py`` (what goes out) and ``proxy/responses.py`` (what comes back); the script meets it here. This
file has the functions; ``_tm_base.py`` parameters and statistics, ``_tm_variables.py`` the variables, ``_tm_write.py`` what goes
to other programs."""

from __future__ import annotations

from typing import Annotated

from sipgw.core.user import TransactionUser
from sipgw.exports import (
    BRANCH,
    FAILURE,
    LOCAL,
    ONREPLY,
    REQUEST,
    BranchRouteName,
    FailureRouteName,
    HeaderText,
    Regex,
    ReplyRouteName,
    function,
)
from sipgw.modules._tm_commands import TmCommands
from sipgw.modules._tm_variables import TmVariables
from sipgw.modules._tm_write import TmWrite
from sipgw.proxy.branches import main_branch, told_branch
from sipgw.proxy.forward import NoWay, forward
from sipgw.proxy.headers import header_text
from sipgw.proxy.originate import new_request
from sipgw.proxy.redirect import contact_line
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import WATCHER, Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response

RELAY_FLAGS = ("no-auto-477", "no-dns-failover", "pass-reason-hdr", "allow-no-cancel")
"""What ``t_relay`` takes."""


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


def replicate_flags(text: str) -> frozenset[str]:
    """Cut the flags of ``t_replicate``: only one of ``t_relay``'s means something there."""
    flags = frozenset(flag.strip() for flag in text.split(",") if flag.strip())
    if flags - {"no-dns-failover"}:
        raise ValueError(f"t_replicate takes 'no-dns-failover' only, not {text!r}")
    return flags


def cancel_scope(text: str) -> None:
    """Refuse what ``t_cancel_branch`` does not take."""
    if text not in ("", "a", "o"):
        raise ValueError(f"t_cancel_branch takes 'a' (all), 'o' (others) or nothing, not {text!r}")


def injection_source(text: str) -> None:
    """Refuse what ``t_inject_branches`` cannot take branches from."""
    if text not in ("msg", "event"):
        raise ValueError(f"t_inject_branches takes branches from 'msg' or 'event', not {text!r}")


def injection_flags(text: str) -> None:
    """Refuse what ``t_inject_branches`` does not know."""
    for flag in text.split(","):
        if flag.strip() not in ("", "cancel", "c", "last", "l"):
            raise ValueError(f"t_inject_branches knows no flag {flag!r}; it takes cancel and last")


class Tm(TmVariables, TmCommands, TmWrite):
    """Stateful relaying, forking, failure and reply routes, cancelling."""

    @function(REQUEST)
    def t_newtran(self, run: Run) -> int:
        """Make the transaction now; 0, ending the script, if there are too many, -10 if there is one already."""
        if run.message.method in ("ACK",):
            return -1
        if run.transaction is not None and not run.transaction.made_to_wait:
            return -10
        context = self.context(run)
        if context is None:
            return 0
        context.made_to_wait = False
        return 1

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
        chosen = relay_flags(flags) if flags else frozenset()
        if outbound_proxy and run.dst_uri is None:
            run.dst_uri = outbound_proxy if outbound_proxy.lower().startswith("sip") else f"sip:{proxy_uri(outbound_proxy)}"
        if method == "ACK":
            return 1 if await forward(run) else -6
        if method == "CANCEL" and self._cancel(run, chosen):
            return 1
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
                context.reply(run, error.status, f"{error.phrase} ({error.number}/TM)")
                return 1
            run.user.log_rarely(("relay", error.phrase), -1, f"t_relay to {run.next_hop}: {error.phrase}")
            return error.code
        return 1

    def _cancel(self, run: Run, flags: frozenset[str]) -> bool:
        """Answer a CANCEL and cancel what it means; False if there is no such transaction here."""
        user: TransactionUser = run.user
        request, flow = run.message, run.flow
        assert isinstance(request, Request) and flow is not None
        context = self._cancelled(run)
        if context is None:
            return False
        data = user.make_reply(run, 200, "canceling", to_tag=context.tag())
        self.show_reply(data, context.server.flow)
        back = user.reply_flow(request, flow, run.force_rport, run.flags)
        if run.context is not None and WATCHER in run.context:
            back = run.context[WATCHER].upstream(back)
        back.send(data)
        reason = run.context.get("cancel_reason", "") if run.context is not None else ""
        if not reason and ("pass-reason-hdr" in flags or "pass-reason-hdr" in context.flags):
            reason = "".join(f"Reason: {value}\r\n" for value in request.headers("Reason"))
        context.cancel_headers = reason
        context.cancel_asked = context.cancel_asked or context.status < 200
        context.turn.take(context.cancel())
        return True

    def _cancelled(self, run: Run) -> ResponseContext | None:
        """The transaction that a CANCEL means."""
        server = run.user.layer.find(run.message)
        context = None if server is None else server.user
        return context if isinstance(context, ResponseContext) else None

    @function(REQUEST)
    def t_add_cancel_reason(self, run: Run, Reason_hdr: HeaderText) -> bool:
        """Give the CANCELs that relaying this one sends their own Reason: whole lines, in place of any other.

        Without it they have that of the received one (``t_relay("pass-reason-hdr")``), or say ORIGINATOR_CANCEL."""
        if run.message.method != "CANCEL":
            return False
        lines = _lines(run, "t_add_cancel_reason", Reason_hdr)
        if lines:
            run.keep()["cancel_reason"] = lines
        return bool(lines)

    @function(REQUEST)
    def t_add_hdrs(self, run: Run, sip_hdrs: HeaderText) -> bool:
        """Put header lines into all requests that the transaction sends from now on: branches, ACKs, CANCELs.

        They take the place of those of an earlier call. False without a transaction."""
        context: ResponseContext | None = run.transaction
        lines = "" if context is None else _lines(run, "t_add_hdrs", sip_hdrs)
        if context is not None and lines:
            context.add_headers(lines)
        return bool(lines)

    @function(REQUEST | BRANCH)
    def t_flush_flags(self, run: Run) -> bool:
        """Make the message flags as they are now those of the transaction, which has those of ``t_newtran`` or ``t_relay``."""
        context: ResponseContext | None = run.transaction
        if context is None:
            run.user.log(-1, "t_flush_flags: there is no transaction")
            return False
        context.message_flags = run.flags
        return True

    @function(REQUEST | FAILURE)
    async def t_replicate(self, run: Run, URI: str, flags: Annotated[str, replicate_flags] | None = None) -> int:
        """Send a copy of the request to ``URI``, and to those of the branches, whatever comes back; results as of ``t_relay``.

        The Request-URI of the copy is ``$ru``."""
        if run.message.method == "ACK":
            return 1 if await forward(run, URI) else -6
        if run.message.method == "CANCEL":
            cancelled = self._cancelled(run)
            return 1 if cancelled is not None and cancelled.cancel_replicas() else -3
        context = self.context(run)
        if context is None:
            return 0
        if flags:
            context.flags.update(replicate_flags(flags))
        destinations = [URI, *(branch.dst_uri or branch.uri for branch in run.branches)]
        run.branches = []
        try:
            await context.replicate(run, destinations)
        except NoWay as error:
            run.user.log_rarely(("replicate", error.phrase), -1, f"t_replicate to {URI}: {error.phrase}")
            return error.code
        context.made_to_wait = False
        return 1

    @function(ONREPLY)
    def t_cancel_branch(self, run: Run, flags: Annotated[str, cancel_scope] | None = None) -> bool:
        """Cancel this branch; with "o" the others, with "a" all of them. What has ended is left alone."""
        context: ResponseContext | None = run.transaction
        if context is None:
            return False
        for branch in context.branches:
            current = branch is run.branch
            if branch.over or (current and self.status_of(run) >= 200):
                continue
            if flags == "a" or current != (flags == "o"):
                context.cancel_branch(branch)
        return True

    # -- branches that come later

    @function(REQUEST)
    def t_wait_for_new_branches(self, run: Run, branches: int | None = None) -> bool:
        """Keep the transaction open for branches to come, ``branches`` of them if given, until fr_inv_timeout is over.

        False without a transaction, or after its final reply."""
        context: ResponseContext | None = run.transaction
        if context is None or context.status >= 200:
            return False
        context.wait_for_branches(branches)
        context.made_to_wait = False
        return True

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def t_wait_no_more_branches(self, run: Run) -> bool:
        """Wait for no more branches: when those that are there have ended, so has the transaction."""
        context = self.reachable(run)
        if context is None:
            return False
        context.wait_no_more()
        return True

    @function(REQUEST | ONREPLY)
    async def t_inject_branches(
        self, run: Run, source: Annotated[str, injection_source], flags: Annotated[str, injection_flags] | None = None
    ) -> int:
        """Send the transaction's request to more places: to ``$ru`` and its branches, in a reply route to those appended there.

        ``source`` "event": to the contact that E_UL_CONTACT_INSERT told of. In a route that an event has set off it is the
        transaction of the run that asked for that. ``flags``: "cancel" those that are open, this is the "last" one. Results as
        of ``t_relay``."""
        context = self.reachable(run)
        if context is None:
            return -1
        destinations = run.branches
        if source == "event":
            told = told_branch(run)
            if told is None:
                return -1
            destinations = [told]
        elif run.kind is RouteKind.REQUEST:
            destinations = [main_branch(run), *destinations]
        run.branches = []
        if not destinations:
            run.user.log(-1, "t_inject_branches: there is no branch to inject")
            return -1
        wanted = {flag.strip()[:1] for flag in (flags or "").split(",")}
        try:
            await context.inject(run, destinations, "c" in wanted, "l" in wanted)
        except NoWay as error:
            run.user.log_rarely(("inject", error.phrase), -1, f"t_inject_branches: {error.phrase}")
            return error.code
        context.made_to_wait = False
        return 1

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

    @function(REQUEST | BRANCH)
    def t_check_trans(self, run: Run) -> int:
        """Whether the request belongs to a transaction: a CANCEL to an INVITE that is here, a request that has one.

        Retransmissions and the ACKs to failures never come here: the transaction layer takes them. -2: an ACK to a success."""
        request = run.message
        assert isinstance(request, Request)
        if request.method == "CANCEL":
            return 1 if run.user.layer.find(request) is not None else -1
        if request.method == "ACK":
            return 1 if run.user.layer.find(request) is not None else -2
        return 1 if run.transaction is not None else -1

    @function(REQUEST | FAILURE | ONREPLY | BRANCH)
    def t_check_status(self, run: Run, re: Regex) -> bool:
        """Whether the status matches: of the reply in a reply route, else of the best or last answer of the transaction."""
        status = self.status_of(run)
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
            return context.picked.response is None if context.picked is not None else context.local_status > 0
        branches = context.branches if reply == "all" else context.branches[run.branch_index : run.branch_index + 1]
        return not any(branch.received for branch in branches)

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
        headers = header_text(run, "t_new_request", f"Content-Type: {content_type}\r\n") if text else ""
        try:
            request = new_request(
                user, method, RURI, from_, to, headers=headers, body=text.encode("utf-8", "surrogateescape")
            )
            sent = await self.originate(request, _unheard, avps={"uac_ctx": [ctx]} if ctx is not None else None)
        except (MalformedMessage, NoWay) as error:
            user.log_rarely(("t_new_request", str(error)), -1, f"t_new_request: {error}")
            return False
        return sent

    @function(REQUEST)
    def t_reply_by_callid(
        self, run: Run, code: int, reason_phrase: str, callid: str | None = None, cseq: str | None = None
    ) -> int:
        """Answer another transaction: that with this Call-ID and CSeq number, without them those of the request.

        -4: there is none; -1: it has had its final reply."""
        request = run.message
        if not 100 < code <= 699:
            run.user.log(-1, f"t_reply_by_callid: {code} is no status of a SIP reply")
            return -1
        number = str(request.cseq.number) if cseq is None else cseq.strip()
        if not number.isascii() or not number.isdigit() or len(number) > 10:
            return -4
        context = self.find_call(request.call_id if callid is None else callid, int(number))
        if context is None:
            return -4
        return 1 if context.reply(context.reply_run(), code, reason_phrase) else -1


def _lines(run: Run, what: str, text: str) -> str:
    """``text`` as whole header lines; "" with an error in the log if it is none."""
    lines = header_text(run, what, text)
    return lines if not lines or lines.endswith("\r\n") else f"{lines}\r\n"


def _unheard(status: int, response: Response | None) -> None:
    """Nobody waits for this answer."""


def proxy_uri(text: str) -> str:
    """OpenSIPS's ``proto:host:port`` of an outbound proxy as the rest of a SIP URI."""
    transport, colon, rest = text.partition(":")
    if colon and transport.lower() in ("udp", "tcp", "tls", "ws", "wss"):
        return f"{rest};transport={transport.lower()}"
    return text
