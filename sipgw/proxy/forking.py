"""The request goes out (RFC 3261 16.6), to one place or several, and is cancelled there (16.10).

A next hop that is a name may lead to several targets (RFC 3263). One that answers 503, or nothing within ``fr_timeout``, or
that cannot be reached, has failed: the same branch goes to the next target with a new client transaction (RFC 3263 4.3), and is
judged by what the last one answers. ``t_relay("no-dns-failover")`` and ``disable_dns_failover`` switch that off."""

from __future__ import annotations

from collections.abc import Sequence

from sipgw.core.surroundings import NextHop
from sipgw.proxy.client_branch import ClientBranch, PhonyBranch, Replica
from sipgw.proxy.context import Context
from sipgw.proxy.forward import (
    DROPPED,
    NO_DESTINATION,
    NOT_SENT,
    NoWay,
    Problem,
    find_flow,
    literal_flow,
    next_flow,
    write_relayed,
)
from sipgw.script.run import Branch, Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP
from sipgw.sip.actions import Flow
from sipgw.sip.edits import NO_EDITS
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import cancel_for
from sipgw.sip.target import Target

ORIGINATOR = 'Reason: SIP;cause=487;text="ORIGINATOR_CANCEL"\r\n'
ELSEWHERE = 'Reason: SIP ;cause=200 ;text="Call completed elsewhere"\r\n'
NO_ANSWER = 'Reason: SIP;cause=480;text="NO_ANSWER"\r\n'
"""Why our CANCELs are sent (RFC 3326): the caller cancelled, somebody else answered, nobody answered in time."""

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
        if self.blocked:
            raise NoWay(*NO_DESTINATION)
        problem, sent = await self._fork(run, [None, *run.branches])
        self.message_flags = run.flags
        run.branches = []
        run.attrs = None
        if self.cancel_asked:
            if self.cancelled:
                self._cancelled_while_forking()
        elif not sent:
            raise NoWay(*problem)
        elif all(branch.over for branch in self.branches[self.judged :]):
            self.turn.take(self.judge())

    async def _fork(
        self, run: Run, destinations: Sequence[Branch | None], kind: type[ClientBranch] = ClientBranch
    ) -> tuple[Problem, int]:
        """Send ``run``'s request to each of ``destinations``, None being its Request-URI: the last ``NoWay``, how many were sent.

        What branch routes do to the message flags is done to those of ``run``."""
        problem: Problem = DROPPED if self.on_branch is not None else NO_DESTINATION
        sent = 0
        self.forking += 1
        for number, destination in enumerate(destinations):
            if number >= MAX_BRANCHES:
                self.user.log_rarely("branches", -1, f"more than {MAX_BRANCHES} branches: the rest is not tried")
                break
            if self.cancel_asked:
                break
            branch = self._branch(run, destination, kind)
            try:
                sent += self._send_at_once(branch) or await self._send_branch(branch)
            except NoWay as error:
                problem = error.problem
            run.flags = branch.run.flags
        self.forking -= 1
        return problem, sent

    async def replicate(self, run: Run, destinations: list[str]) -> None:
        """Send copies of ``run``'s request to other places (URIs), whatever they answer; ``NoWay`` if none could be sent."""
        copies = [Branch(run.uri, uri) for uri in destinations]
        problem, sent = await self._fork(run, copies, Replica)
        if not sent:
            raise NoWay(*problem)

    async def inject(self, run: Run, destinations: list[Branch], cancel: bool, last: bool) -> None:
        """Send the request to more places while it is under way; ``NoWay`` if none could be sent, or it has been answered.

        It is sent as it was relayed, only the destinations are those of ``run``. ``cancel``: instead of those that are open;
        ``last``: then no more are waited for."""
        if self.blocked or self.status >= 200 or self.cancel_asked:
            raise NoWay(*NO_DESTINATION)
        open_branches = [branch for branch in self.branches if not branch.over and branch.type == "sip"]
        made = Run(self.request, RouteKind.REQUEST, self.run.flow, run.now, self.user)
        made.edits = self.edits
        made.flags = self.message_flags
        made.avps = self.run.avps
        made.context = self.run.context
        problem, sent = await self._fork(made, destinations)
        self.message_flags = made.flags
        if cancel:
            for branch in open_branches:
                if not branch.over:
                    self.cancel_branch(branch)
        if last:
            self.wait_no_more()
        if not sent:
            raise NoWay(*problem)
        if all(branch.over for branch in self.branches[self.judged :]):
            self.turn.take(self.judge())

    # -- waiting for branches to come

    def wait_for_branches(self, most: int | None) -> None:
        """Stay open for new branches, ``most`` of them if given, until the time for a final answer is over."""
        phony = self._phony()
        if phony is not None:
            phony.left = most
            return
        self._wait(most, self.tm.fr_inv_timeout if self.fr_inv_timeout is None else self.fr_inv_timeout)

    def _wait(self, most: int | None, timeout: float) -> None:
        run = Run(self.request, RouteKind.BRANCH, None, self.user.clock(), self.user)
        run.uri = ""
        phony = PhonyBranch(self, len(self.branches), run, most)
        self.branches.append(phony)
        phony.timer = self.user.after(timeout, lambda _now: phony.failed("timeout"))

    def wait_for_reply(self) -> None:
        """Stay open for somebody elsewhere to answer, for ``fr_timeout`` seconds; then it is as if a branch had not answered."""
        if self._phony() is None and self.status < 200:
            self._wait(None, self.tm.fr_timeout if self.fr_timeout is None else self.fr_timeout)

    def wait_no_more(self) -> None:
        """Wait for no new branches."""
        phony = self._phony()
        if phony is not None:
            phony.failed("")

    def _phony(self) -> PhonyBranch | None:
        for branch in self.branches:
            if isinstance(branch, PhonyBranch) and not branch.over:
                return branch
        return None

    async def stop_waiting(self, phony: PhonyBranch) -> None:
        """No new branch will come; those that have come decide."""
        if not phony.over:
            phony.end()
            phony.status = 408
            self.last_final = phony.index
            await self.judge()

    # -- one branch

    def _branch(self, run: Run, branch: Branch | None, kind: type[ClientBranch]) -> ClientBranch:
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
        client_branch = kind(self, made.branch_index, made)
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
        siblings = self.replicas if isinstance(branch, Replica) else self.branches
        branch.index = len(siblings)
        siblings.append(branch)
        if not self._send(branch) and not self.fail_over(branch):
            siblings.remove(branch)
            raise NoWay(*NOT_SENT)
        if len(siblings) > 1:
            phony = self._phony()
            if phony is not None and phony.left is not None and siblings is self.branches:
                phony.left -= 1
                if phony.left <= 0:
                    phony.end()

    def _send(self, branch: ClientBranch) -> bool:
        """Send the request of ``branch`` on its flow, in a client transaction; False if it is known at once that it cannot go.

        It does not wait in ``perform``'s queue behind what was asked for before: ``t_relay`` tells the script how it went."""
        user = self.user
        if self.watcher is not None:
            branch.flow = self.watcher.downstream(branch.flow)
        flow = branch.flow
        token = user.layer.new_branch()
        run = branch.run
        if self.extra_headers:
            kept, run.edits = run.edits, run.edits.append(self.extra_headers)
            data = write_relayed(run, flow, token)
            run.edits = kept
        else:
            data = write_relayed(run, flow, token)
        timeout = self.tm.fr_timeout if self.fr_timeout is None else self.fr_timeout
        invite_timeout = self.tm.fr_inv_timeout if self.fr_inv_timeout is None else self.fr_inv_timeout
        client, _ = user.layer.request(
            data, self.request, flow, user.clock(), timeout, invite_timeout, branch, branch=token
        )
        client.ack_headers = self.extra_headers + user.agent_line
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
        for branch in (*self.branches, *self.replicas):
            if not branch.over:
                self.cancel_branch(branch, self.cancel_headers or ORIGINATOR)
        if all(branch.over for branch in self.branches):
            self.reply_alone(487, "Request Terminated")

    def _cancelled_while_forking(self) -> None:
        """The CANCEL came while the run that relays waited (house 2.6, 2): nothing more goes out."""
        for branch in self.branches:
            if not branch.over and not branch.cancel:
                self.cancel_branch(branch, self.cancel_headers or ORIGINATOR)
        if self.status < 200 and all(branch.over for branch in self.branches):
            self.reply_alone(487, "Request Terminated")

    def cancel_others(self, winner: ClientBranch, headers: str = "") -> None:
        """Cancel all open branches but ``winner``."""
        for branch in self.branches:
            if branch is not winner and not branch.over:
                self.cancel_branch(branch, headers)

    def cancel_branch(self, branch: ClientBranch, headers: str = "") -> None:
        """Cancel one branch: now, or as soon as it has answered provisionally (RFC 3261 9.1); ``headers`` say why."""
        if branch.type == "phony":
            branch.end()
            return
        if branch.cancel or self.request.method != "INVITE":
            return
        branch.cancel_headers = headers
        if branch.status >= 100:
            self.send_cancel(branch)
        else:
            branch.cancel = "wanted"

    def send_cancel(self, branch: ClientBranch) -> None:
        """Send the CANCEL of a branch."""
        branch.cancel = "sent"
        client = branch.client
        assert client is not None
        user = self.user
        data = cancel_for(client.sent, branch.cancel_headers + self.extra_headers + user.agent_line)
        _, actions = user.layer.request(
            data, parse_request(data), branch.flow, user.clock(), self.tm.fr_timeout, self.tm.fr_timeout, NOBODY
        )
        user.perform(actions)

    def is_idle(self) -> bool:
        """Whether nothing will happen by itself any more: it is not answered, and there is no branch or copy."""
        return self.status < 200 and not self.branches and not self.replicas

    def is_open(self) -> bool:
        """Whether there is a branch that can be cancelled."""
        return any(not branch.over and branch.type == "sip" for branch in self.branches)

    def set_invite_timeout(self, seconds: float | None) -> None:
        """Wait so long for a final answer to the INVITE after a provisional one, the usual time if None; open branches too."""
        self.fr_inv_timeout = seconds
        user = self.user
        length = float(self.tm.fr_inv_timeout if seconds is None else seconds)
        for branch in self.branches:
            if branch.client is not None:
                user.layer.set_invite_timeout(branch.client, length, user.clock())

    def add_headers(self, lines: str) -> None:
        """Put ``lines`` into every request that is sent from now on: branches, their ACKs and CANCELs."""
        self.extra_headers = lines
        for branch in self.branches:
            if branch.client is not None:
                branch.client.ack_headers = lines + self.user.agent_line

    # -- copies

    def replica_answered(self, replica: Replica, response: Response) -> None:
        """Take what a copy was answered: there is nobody to tell."""
        status = replica.status = replica.received = response.status
        self.tm.received_replies.value += 1
        if status < 200:
            if replica.cancel == "wanted":
                self.send_cancel(replica)
            return
        replica.end()
        self.replica_ended()

    def cancel_replicas(self) -> bool:
        """Cancel the copies; False if there are none."""
        for replica in self.replicas:
            if not replica.over:
                self.cancel_branch(replica)
        return bool(self.replicas)

    def replica_ended(self) -> None:
        """If there is nothing but copies, and they have ended, the transaction does so too."""
        if not self.branches and self.status < 200 and all(replica.over for replica in self.replicas):
            server = self.server
            layer = self.user.layer
            self.user.after(self.tm.wt_timer, lambda _now: layer.terminate(server))


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
