"""Forwarding (RFC 3261 16.6): where a request goes next, and the bytes that go there.

``find_flow`` turns ``$du`` or ``$ru`` into a flow; ``write_relayed`` writes the request with our Via on top; ``forward`` sends
one without a transaction (16.11, and every ACK to a 2xx), ``return_response`` brings back its responses."""

from __future__ import annotations

from sipgw.core.surroundings import is_address
from sipgw.core.user import TransactionUser
from sipgw.script.run import Run
from sipgw.sip.actions import Flow
from sipgw.sip.edits import NO_EDITS, remove_first_value, write
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request, Response


class NoWay(Exception):
    """A request cannot be sent: ``code`` is what ``t_relay`` returns, ``status`` and ``phrase`` what the caller is told."""

    def __init__(self, code: int, status: int, phrase: str) -> None:
        super().__init__(phrase)
        self.code = code
        self.status = status
        self.phrase = phrase


BAD_URI = (-2, 400, "Bad URI")
NO_DESTINATION = (-3, 500, "No destination available")
UNRESOLVABLE = (-4, 476, "Unresolvable destination")
NO_SOCKET = (-6, 477, "Send failed")


async def find_flow(run: Run) -> Flow:
    """The flow to the next hop of ``run``; ``NoWay`` if there is none. Waits only when a name has to be looked up."""
    user: TransactionUser = run.user
    try:
        hop = user.next_hop(run.dst_uri or run.uri)
    except MalformedMessage as error:
        user.bad_uris.value += 1
        raise NoWay(*BAD_URI) from error
    host = hop.host
    if not hop.literal:
        addresses = await user.resolve(host, hop.port, hop.transport)
        if not addresses:
            raise NoWay(*UNRESOLVABLE)
        host = addresses[0]
    ipv6 = ":" in host
    socket = run.send_socket
    if socket is None:
        if run.flow is not None:
            socket = run.flow.socket
            if socket.transport != hop.transport or (":" in socket.host) != ipv6:
                socket = None
        socket = socket or user.default_socket(hop.transport, ipv6)
    if socket is None or socket.transport != hop.transport:
        user.log_rarely(("socket", hop.transport, ipv6), -1, f"no {hop.transport} socket from which to reach {host}:{hop.port}")
        raise NoWay(*NO_SOCKET)
    flow: Flow = socket.flow(host, hop.port)
    if flow.refused:
        user.log_rarely(("refused", host), -1, f"nothing is sent to {host}:{hop.port}: it {flow.refused}")
        raise NoWay(*NO_SOCKET)
    return flow


def via_line(run: Run, flow: Flow, branch: str) -> str:
    """Our Via for a request that leaves on ``flow`` (RFC 3261 18.1.1)."""
    socket = flow.socket
    host = run.advertised_host or socket.advertised_host or socket.host
    if ":" in host and host[0] != "[":
        host = f"[{host}]"
    port = run.advertised_port or socket.advertised_port or socket.port
    rport = ";rport" if run.context is not None and run.context.get("local_rport") else ""
    return f"Via: SIP/2.0/{flow.transport.upper()} {host}:{port};branch={branch}{rport}"


def write_relayed(run: Run, flow: Flow, branch: str) -> bytes:
    """The bytes of ``run``'s request as it leaves on ``flow``: its edits, the new Request-URI, Path as Routes, our Via on top."""
    message = run.message
    assert isinstance(message, Request)
    edits = run.edits
    if run.uri is not message.uri:
        edits = edits.first_line(f"{message.method} {_without_headers(run.uri)} SIP/2.0")
    via = via_line(run, flow, branch)
    if run.path:
        via += f"\r\nRoute: {run.path}"
    vias = message.positions("Via")
    return write(message, edits.insert_before(vias[0], via) if vias else edits.insert_after(0, via), way=(run, flow))


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
    flow.send(write_relayed(run, flow, stateless_branch(run)))
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
    back = vias[1]
    host = back.received or back.host
    if not is_address(host):
        user.drop_replies.value += 1
        return
    edits = remove_first_value(run.edits if run is not None else NO_EDITS, response, "Via")
    flow.socket.flow(host, back.rport or back.port or 5060).send(write(response, edits))
    user.fwd_replies.value += 1
