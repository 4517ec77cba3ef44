"""Forwarding (RFC 3261 16.6): where a request goes next, and the bytes that go there.

``find_flow`` turns ``$du`` or ``$ru`` into a flow (RFC 3263), past the blacklists; ``write_relayed`` writes the request with
our Via on top; ``forward`` sends one without a transaction (16.11, and every ACK to a 2xx), ``return_response`` brings back its
responses."""

from __future__ import annotations

from functools import lru_cache

from sipgw.core.surroundings import DEFAULT_PORTS, Bond, NextHop, is_address
from sipgw.core.user import TransactionUser
from sipgw.script.run import WATCHER, Run, Socket
from sipgw.sip.actions import Flow
from sipgw.sip.address import Via
from sipgw.sip.edits import NO_EDITS, write, write_popped
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response
from sipgw.sip.target import Target


class NoWay(Exception):
    """A request cannot be sent: ``code`` is what ``t_relay`` returns, ``status`` and ``phrase`` what the caller is told.

    ``number`` stands behind the phrase: OpenSIPS's own number of the error."""

    def __init__(self, code: int, status: int, phrase: str, number: int) -> None:
        super().__init__(phrase)
        self.code = code
        self.status = status
        self.phrase = phrase
        self.number = number

    @property
    def problem(self) -> Problem:
        """What it was made of. The error itself knows the frame that raised it: who keeps it keeps that too."""
        return self.code, self.status, self.phrase, self.number


Problem = tuple[int, int, str, int]
"""What a ``NoWay`` is made of."""
DROPPED = (-1, 500, "Server error occurred", 1)
"""The branch routes dropped every branch."""
BAD_URI = (-2, 400, "Bad URI", 475)
NO_DESTINATION = (-3, 500, "No destination available", 18)
UNRESOLVABLE = (-4, 476, "Unresolvable destination", 476)
FILTERED = (-5, 473, "Filtered destination", 473)
NO_SOCKET = (-6, 500, "Server error occurred", 7)
NOT_SENT = (-6, 477, "Send failed", 477)


async def find_flow(run: Run, spare: list[Target] | None = None) -> Flow:
    """The flow to the next hop of ``run``; ``NoWay`` if there is none. Waits only when a name has to be looked up.

    A name may lead to several targets: the flow is that to the first that can be used; ``spare`` takes those behind it."""
    found = literal_flow(run)
    if isinstance(found, NextHop):
        host, port, _, _, written, asked, secure = found
        if run.send_socket is not None and asked is None and not secure and run.send_socket.transport != "bond":
            asked = run.send_socket.transport
        if spare is None:
            spare = []
        spare.extend(await run.user.resolve(host, port if written else None, asked, secure))
        return next_flow(run, spare)
    return found


def literal_flow(run: Run) -> Flow | NextHop:
    """The flow to the next hop of ``run`` if that is an IP address, or the hop: a name to look up. ``NoWay`` if there is none."""
    user: TransactionUser = run.user
    try:
        hop = user.next_hop(run.dst_uri or run.uri)
    except MalformedMessage as error:
        user.bad_uris.value += 1
        raise NoWay(*(UNRESOLVABLE if error.status == 416 or run.dst_uri else BAD_URI)) from error
    if not hop.literal:
        return hop
    transport = hop.transport
    if run.send_socket is not None and hop.asked is None and not hop.secure and run.send_socket.transport != "bond":
        transport = run.send_socket.transport  # what the URI leaves open the forced socket decides
    return flow_to(run, transport, hop.host, hop.port)


def next_flow(run: Run, targets: list[Target]) -> Flow:
    """The flow to the first of ``targets`` that can be used; it and those before it are taken out. ``NoWay`` if none can."""
    problem = UNRESOLVABLE
    while targets:
        try:
            return flow_to(run, *targets.pop(0))
        except NoWay as error:
            problem = error.problem
    raise NoWay(*problem)


def flow_to(run: Run, transport: str, host: str, port: int) -> Flow:
    """The flow from the right socket of ours to an IP address; ``NoWay`` if nothing can or may be sent there."""
    user: TransactionUser = run.user
    socket = None if run.flow is None else run.flow.socket
    if (
        socket is None
        or run.send_socket is not None
        or user.source_of is not None
        or socket.transport != transport
        or (":" in socket.host) != (":" in host)
    ):
        socket = _socket_toward(run, transport, host)
    if socket is None:
        user.log_rarely(("socket", transport, ":" in host), -1, f"no {transport} socket from which to reach {host}:{port}")
        raise NoWay(*NO_SOCKET)
    flow: Flow = socket.flow(host, port)
    if flow.refused:
        user.log_rarely(("refused", host), -1, f"nothing is sent to {host}:{port}: it {flow.refused}")
        raise NoWay(*NOT_SENT)
    used = user.blacklists.default if run.blacklists is None else run.blacklists
    if used:
        name = user.blacklists.forbid(used, host, transport, port, lambda: _as_sent(run, flow))
        if name:
            if user.log_level >= 3:
                user.log_rarely(("blacklist", name), 3, f"nothing is sent to {transport}:{host}:{port}: blacklist {name}")
            raise NoWay(*FILTERED)
    if flow.reliable and run.branch_flags & user.no_connect_branch and not flow.connected:  # type: ignore[attr-defined]
        user.log_rarely(("connection", host), 1, f"no connection to {host}:{port}, and none is opened for this request")
        raise NoWay(*NOT_SENT)
    return flow


def _socket_toward(run: Run, transport: str, host: str) -> Socket | None:
    """The socket of ours from which to send to an IP address: the forced one, or the closest to it that can; else the one that
    ``mhomed`` finds; else where the message came in, if that can; else the default one."""
    user: TransactionUser = run.user
    if run.flow is not None and run.flow.refused:  # a captured message: nothing leaves for it
        user.log_rarely("refused", 1, f"{run.message.method} of {run.flow.host}:{run.flow.port} {run.flow.refused}")
        raise NoWay(*NOT_SENT)
    ipv6 = ":" in host
    forced: Socket | None = run.send_socket
    if forced is not None:
        if isinstance(forced, Bond):
            forced = forced.member(transport, ipv6)
        elif forced.transport != transport:
            forced = _closest(user, forced, transport)
        if forced is not None and (":" in forced.host) == ipv6:
            return forced
    came: Socket | None = None if run.flow is None else run.flow.socket
    if transport == "udp":
        # COMPAT: for UDP alone; over connections it could miss the one that a phone behind NAT has opened
        found = user.socket_toward(transport, host, came)
        if found is not None:
            return found
    if came is not None and came.transport == transport and (":" in came.host) == ipv6:
        return came
    return user.default_socket(transport, ipv6)


def _closest(user: TransactionUser, socket: Socket, transport: str) -> Socket | None:
    """The socket of ``transport`` at the address of ``socket``, at its port if there is one (``force_send_socket``)."""
    found = [each for each in user.sockets if each.transport == transport and each.host == socket.host]
    found.sort(key=lambda each: each.port != socket.port)
    return found[0] if found else None


def _as_sent(run: Run, flow: Flow) -> str:
    """The text that would leave on ``flow``, but for the branch: what the patterns of blacklists are matched with."""
    if isinstance(run.message, Request):
        data = write_relayed(run, flow, "z9hG4bK")
    else:
        data = write(run.message, run.edits)
    return data.decode("utf-8", "surrogateescape")


def via_line(run: Run, flow: Flow, branch: str) -> str:
    """Our Via for a request that leaves on ``flow`` (RFC 3261 18.1.1)."""
    socket = flow.socket
    host = run.advertised_host or socket.advertised_host or socket.host
    port = run.advertised_port or socket.advertised_port or socket.port
    rport = ";rport" if run.context is not None and run.context.get("local_rport") else ""
    return f"{_via_start(flow.transport, host, port)}{branch}{rport}"


@lru_cache(maxsize=256)
def _via_start(transport: str, host: str, port: int) -> str:
    """A Via up to the value of its branch; there are as many as there are sockets."""
    if ":" in host and host[0] != "[":
        host = f"[{host}]"
    return f"Via: SIP/2.0/{transport.upper()} {host}:{port};branch="


def write_relayed(run: Run, flow: Flow, branch: str, params: str = "") -> bytes:
    """The bytes of ``run``'s request as it leaves on ``flow``: its edits, the new Request-URI, Path as Routes, our Via on top.

    ``params``: more of them for the Via, each with its ";"."""
    message = run.message
    assert isinstance(message, Request)
    start = ""
    if run.uri is not message.uri:
        start = f"{message.method} {_without_headers(run.uri)} SIP/2.0"
    via = via_line(run, flow, branch) + params
    if run.path:
        via += f"\r\nRoute: {run.path}"
    return write(message, run.edits, ensure_length=flow.reliable, way=(run, flow), via=via, start=start)


def _without_headers(uri: str) -> str:
    """``uri`` without ``?headers``: they never become headers of the request (RFC 3261 19.1.5, RFC 4475 3.1.2.11)."""
    return uri.partition("?")[0] if "?" in uri and not uri.lower().startswith("tel:") else uri


async def forward(run: Run, destination: str | None = None) -> bool:
    """Send ``run``'s request on without a transaction, to ``destination`` (a URI) if given; whether it went out."""
    user: TransactionUser = run.user
    if destination is not None:
        kept, run.dst_uri = run.dst_uri, destination
    try:
        flow = await find_flow(run)
    except NoWay as error:
        user.err_requests.value += 1
        user.log_rarely(("forward", error.phrase), -1, f"cannot forward to {run.next_hop}: {error.phrase}")
        return False
    finally:
        if destination is not None:
            run.dst_uri = kept
    if run.context is not None and WATCHER in run.context:
        flow = run.context[WATCHER].downstream(flow)
    came = f";i={run.flow.id[1]}" if run.flow is not None and run.flow.reliable else ""  # type: ignore[index]
    if flow.send(write_relayed(run, flow, stateless_branch(run), came)) is False:
        user.err_requests.value += 1
        return False
    user.fwd_requests.value += 1
    return True


def stateless_branch(run: Run) -> str:
    """A branch that is the same for each retransmission of the request (RFC 3261 16.11); for an ACK a new one does."""
    request = run.message
    assert isinstance(request, Request)
    if request.method == "ACK":
        branch: str = run.user.layer.new_branch()
        return branch
    received = request.via.branch or f"{request.via.address} {request.call_id} {request.cseq.number}"
    return f"z9hG4bK{run.user.worker}s{run.user.mark(received)}"


def return_response(user: TransactionUser, response: Response, flow: Flow, run: Run | None) -> None:
    """Send a response that belongs to no transaction to the next Via (RFC 3261 16.11, 18.2.2), if the top one is ours."""
    vias = response.vias
    if len(vias) < 2 or not user.is_myself(vias[0].host, vias[0].port or 5060):
        user.drop_replies.value += 1
        return
    back = _way_back(user, vias[0], vias[1], flow)
    if back is None:
        user.drop_replies.value += 1
        return
    back.send(write_popped(response, run.edits if run is not None else NO_EDITS, ensure_length=back.reliable))
    user.fwd_replies.value += 1


def _way_back(user: TransactionUser, ours: Via, theirs: Via, flow: Flow) -> Flow | None:
    """The flow to who sent a request without a transaction: the connection it came on, if that is still there (``;i``)."""
    host = (theirs.received or theirs.host).strip("[]")
    transport = theirs.transport.lower()
    number = ours.params.get("i") or ""
    if user.connections is not None and number.isascii() and number.isdigit() and len(number) < 12:
        connection = user.connections.find(int(number))
        if connection is not None and connection.host == host:
            back: Flow = connection.flow()
            return back
    if not is_address(host):
        return None
    socket = flow.socket if flow.transport == transport else user.default_socket(transport, ":" in host)
    if socket is None:
        return None
    port = theirs.port or DEFAULT_PORTS.get(transport, 5060)
    back = socket.flow(host, theirs.rport or port if transport == "udp" else port)
    return back
