"""The request goes out (RFC 3261 16.6), to one place or several, and is cancelled there (16.10).

A next hop that is a name may lead to several targets (RFC 3263). One that answers 503, or nothing within ``fr_timeout``, or
that cannot be reached, has failed: the same branch goes to the next target with a new client transaction (RFC 3263 4.3), and is
judged by what the last one answers. ``t_relay("no-dns-failover")`` and ``disable_dns_failover`` switch that off."""

from __future__ import annotations

from sipgw.core.surroundings import NextHop
from sipgw.proxy.client_branch import ClientBranch
from sipgw.proxy.context import Context
from sipgw.proxy.forward import NO_DESTINATION, NO_SOCKET, NoWay, find_flow, literal_flow, next_flow, write_relayed
from sipgw.script.run import Branch, Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow
from sipgw.sip.edits import NO_EDITS
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import cancel_for
from sipgw.sip.target import Target

MAX_BRANCHES = 12
"""How many branches one transaction may have at a time (OpenSIPS's MAX_BRANCHES)."""


class Forking(Context):
    """A transaction whose request goes out."""

    __slots__ = ()

    async def judge(self) -> None:
        """If every branch has ended without success, do what follows; see ``ResponseContext``."""
        raise NotImplementedError

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
            branch = self._branch(run, extra[number - 1] if number else None)
            try:
                sent += self._send_at_once(branch) or await self._send_branch(branch)
            except NoWay as error:
                problem = error
            run.flags = branch.run.flags
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
            self.turn.take(self.judge())

    def _branch(self, run: Run, branch: Branch | None) -> ClientBranch:
        """A branch with a run of its own: everything as in ``run``, but the destination of ``branch``, and edits of its own."""
        made = Run(run.message, RouteKind.BRANCH, run.flow, run.now, self.user)
        if branch is None:
            made.uri = run.uri
            made.dst_uri = run.dst_uri
            made.path = run.path
            made.q = run.q
            made.branch_flags = run.branch_flags
            made.send_socket = run.send_socket
            attrs = run.attrs
        else:
            made.uri = branch.uri
            made.dst_uri = branch.dst_uri
            made.path = branch.path
            made.q = branch.q
            made.branch_flags = branch.flags
            made.send_socket = branch.socket or run.send_socket
            attrs = branch.attrs
        made.edits = run.edits
        made.flags = run.flags
        made.avps = run.avps
        made.vars = run.vars
        made.context = run.context
        made.advertised_host = run.advertised_host
        made.advertised_port = run.advertised_port
        made.blacklists = run.blacklists
        made.branch_index = len(self.branches)
        client_branch = ClientBranch(self, made.branch_index, made)
        if attrs:
            client_branch.attrs = dict(attrs)
        return client_branch

    async def _send_branch(self, branch: ClientBranch) -> bool:
        """Run the branch route and send one branch; False if the route dropped it."""
        user = self.user
        run = branch.run
        if self.on_branch is not None:
            run.transaction = self
            run.branch = branch
            result = await user.run_route(self.on_branch, run)
            run.transaction = run.branch = None  # nothing may keep itself alive
            branch.on_reply = run.on_reply
            if result is DROP:
                return False
        spare: list[Target] = []
        flow = await find_flow(run, spare)
        if self.cancel_asked:
            return False
        self._add(branch, flow, spare)
        return True

    def _send_at_once(self, branch: ClientBranch) -> bool:
        """Send one branch if nothing of it can wait: there is no branch route, and no name to look up."""
        if self.on_branch is not None:
            return False
        flow = literal_flow(branch.run)
        if isinstance(flow, NextHop):
            return False
        self._add(branch, flow, [])
        return True

    def _add(self, branch: ClientBranch, flow: Flow, spare: list[Target]) -> None:
        """Send a new branch; ``NoWay`` if it is known at once that it cannot go, nor to any spare target."""
        branch.flow = flow
        branch.spare = spare or None
        branch.index = len(self.branches)
        self.branches.append(branch)
        if not self._send(branch) and not self.fail_over(branch):
            self.branches.remove(branch)
            raise NoWay(*NO_SOCKET)

    def _send(self, branch: ClientBranch) -> bool:
        """Send the request of ``branch`` on its flow, in a client transaction; False if it is known at once that it cannot go.

        It does not wait in ``perform``'s queue behind what was asked for before: ``t_relay`` tells the script how it went."""
        user = self.user
        flow = branch.flow
        token = user.layer.new_branch()
        data = write_relayed(branch.run, flow, token)
        timeout = self.tm.fr_timeout if self.fr_timeout is None else self.fr_timeout
        invite_timeout = self.tm.fr_inv_timeout if self.fr_inv_timeout is None else self.fr_inv_timeout
        client, _ = user.layer.request(
            data, self.request, flow, user.clock(), timeout, invite_timeout, branch, branch=token
        )
        branch.client = client
        if flow.send(data) is False:
            branch.client = None
            user.layer.abandon(client)
            return False
        user.fwd_requests.value += 1
        user.perform(())
        return True

    def fail_over(self, branch: ClientBranch) -> bool:
        """The target of ``branch`` has failed: try the next one (RFC 3263 4.3); False if there is none, or no need any more."""
        user = self.user
        while True:
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
            branch.received = 0
            branch.response = None
            branch.edits = NO_EDITS
            if self._send(branch):
                return True

    # -- it is answered here, or cancelled

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
                    self.cancel_branch(branch)
        return True

    async def cancel(self) -> None:
        """Do what the caller's CANCEL asks for (RFC 3261 9.2, 16.10)."""
        if self.status >= 200 or self.cancelled:
            return
        self.cancelled = True
        if self.listeners:
            self.tell("cancelled", 487, None)
        open_branches = [branch for branch in self.branches if not branch.over]
        for branch in open_branches:
            self.cancel_branch(branch)
        if not open_branches:
            self.reply_alone(487, "Request Terminated")

    def _cancelled_while_forking(self) -> None:
        """The CANCEL came while the run that relays waited (house 2.6, 2): nothing more goes out."""
        for branch in self.branches:
            if not branch.over and not branch.cancel:
                self.cancel_branch(branch)
        if self.status < 200 and all(branch.over for branch in self.branches):
            self.reply_alone(487, "Request Terminated")

    def cancel_others(self, winner: ClientBranch) -> None:
        for branch in self.branches:
            if branch is not winner and not branch.over:
                self.cancel_branch(branch)

    def cancel_branch(self, branch: ClientBranch) -> None:
        """Cancel one branch: now, or as soon as it has answered provisionally (RFC 3261 9.1)."""
        if branch.cancel or self.request.method != "INVITE":
            return
        if branch.status >= 100:
            self.send_cancel(branch)
        else:
            branch.cancel = "wanted"

    def send_cancel(self, branch: ClientBranch) -> None:
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
