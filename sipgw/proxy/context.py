"""What belongs to one transaction, whoever looks at it, and the replies that it makes itself.

``Context`` is the ground of ``proxy/forking.py`` (the request goes out, and is cancelled) and ``proxy/responses.py`` (what comes
back)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.core.user import TransactionUser
from sipgw.core.waiting import Turn
from sipgw.proxy.client_branch import ClientBranch
from sipgw.script.routes import Route
from sipgw.script.run import Run, Watcher
from sipgw.script.symbols import RouteKind
from sipgw.sip.edits import EditList
from sipgw.sip.message import Request, Response
from sipgw.sip.transaction import ServerTransaction

Listener = Callable[[Any, str, int, "Response | None"], None]
"""Called as ``listener(context, event, status, response)`` for each event of ``LISTENED``."""

Rewriter = Callable[[Request, Response, EditList], EditList]
"""Called as ``rewriter(request, response, edits)``: the edits with which ``response`` goes upstream."""

LISTENED = ("response_in", "response_out", "local_reply", "failure", "cancelled", "ended")
"""What listeners hear: a response came (before its routes), one was relayed, one of our own was sent, the last branch failed
(before the failure route runs), the caller cancelled, the final response was sent."""


class Context:
    """One transaction: the request as it was relayed, its branches, the armed routes, and what has been answered."""

    __slots__ = (
        "__weakref__",
        "blocked",
        "branches",
        "cancel_asked",
        "cancel_headers",
        "cancelled",
        "dst_uri",
        "edits",
        "extra_headers",
        "first_branch",
        "flags",
        "forking",
        "fr_inv_timeout",
        "fr_timeout",
        "id",
        "judged",
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
        "replicas",
        "reply_edits",
        "request",
        "rewriters",
        "run",
        "server",
        "status",
        "tm",
        "to_tag",
        "turn",
        "uri",
        "user",
        "watcher",
    )

    def __init__(self, tm: Any, run: Run, server: ServerTransaction) -> None:
        assert isinstance(run.message, Request)
        self.tm = tm
        self.user: TransactionUser = run.user
        self.id = ""
        """``$T_id``, made when somebody asks for it."""
        self.request = run.message
        self.keep(run)
        self.server = server
        server.user = self
        self.branches: list[ClientBranch] = []
        self.replicas: list[ClientBranch] = []
        """Copies of the request, whose answers nobody waits for (``t_replicate``)."""
        self.first_branch = 0
        """In a failure route: the first branch of the fork that failed."""
        self.judged = 0
        """How many branches belong to forks that have failed: those behind them are under way."""
        self.blocked = False
        """A 6xx has come: there will be no new branches (RFC 3261 16.7 step 5)."""
        self.extra_headers = ""
        """Header lines for every request that we send (``t_add_hdrs``)."""
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
        self.forking = 0
        """How often branches are being sent just now: what those already sent answer is not judged yet."""
        self.made_to_wait = False
        """Made only because the request's run had to wait; ends unused if the script neither relays nor replies."""
        self.picked: ClientBranch | None = None
        """In a failure route: the branch whose response is the best."""
        self.last_final = 0
        """The number of the branch that ended last."""
        self.listeners: list[Listener] | None = None
        self.rewriters: list[Rewriter] | None = None
        """What changes each response before it goes upstream, after all routes."""
        self.flags: set[str] = set()
        self.kept: dict[str, Any] = {}
        self.local_status = 0
        self.fr_timeout: float | None = None
        self.fr_inv_timeout: float | None = None
        self.turn = Turn(self.user)
        self.watcher: Watcher | None = None
        """Who sees what goes out."""

    def watch(self, watcher: Watcher) -> None:
        """Show ``watcher`` what goes out from now on."""
        if self.watcher is None:
            self.watcher = watcher
            self.server.flow = watcher.upstream(self.server.flow)

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

    def rewrite(self, rewriter: Rewriter) -> None:
        """Let ``rewriter`` change each response before it goes upstream; once, however often it is asked for."""
        if self.rewriters is None:
            self.rewriters = []
        if rewriter not in self.rewriters:
            self.rewriters.append(rewriter)

    def tell(self, event: str, status: int, response: Response | None) -> None:
        """Let the listeners hear ``event``; one that raises is a bug that is logged, no more."""
        for listener in self.listeners or ():
            try:
                listener(self, event, status, response)
            except Exception as error:
                self.user.broken(error)

    # -- replies of our own

    def tag(self, wanted: str = "") -> str:
        """The To tag of our replies, made at the first: the CANCEL and the INVITE are answered with the same (RFC 3261 9.2)."""
        if wanted or not self.to_tag:
            self.to_tag = wanted or self.user.new_tag(self.request, transaction=True)
        return self.to_tag

    def reply_alone(self, status: int, reason: str) -> None:
        """Answer without a script that asked for it."""
        self.send_reply(self.reply_run(), status, reason)

    def reply_run(self) -> Run:
        """A run for a reply that the script did not ask for, with the headers that it had for replies when it relayed."""
        run = Run(self.request, RouteKind.REQUEST, self.run.flow, self.user.clock(), self.user)
        run.flags = self.message_flags
        run.reply_edits = self.reply_edits
        run.context = self.run.context
        return run

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
        if self.tm.local_reply_route:
            self.tm.show_reply(data, self.server.flow)
        self.status = max(self.status, status)
        self.tm.local_replies.value += 1
        if user.no_connect_reply:
            user.note_flags(self.server.flow, run.flags)
        ours = 200 <= status < 300 and self.request.method == "INVITE"
        user.perform(user.layer.respond(self.server, data, status, user.clock(), retransmit_2xx=ours))
        if status >= 200:
            self.local_status = status
            self.ended(status)
        if self.listeners:
            self.tell("local_reply", status, None)

    def ended(self, status: int) -> None:
        """Take note that the final response has gone out."""
        self.tm.ended(self, status)
