"""Messages, flows and a clock for the tests of the transaction layer: no socket, no sleep."""

from __future__ import annotations

from dataclasses import dataclass

from sipgw.sip.actions import Action, Deliver, Failed, Send, Unacknowledged
from sipgw.sip.layer import TransactionLayer
from sipgw.sip.message import Request, Response, parse


@dataclass(eq=False)
class FakeFlow:
    """A flow that keeps what is sent on it."""

    transport: str = "udp"
    host: str = "192.0.2.1"
    port: int = 5060
    reliable: bool = False
    socket: None = None
    refused: str = ""
    id: object = None

    def send(self, data: bytes) -> None:
        """Never called by the layer."""
        raise AssertionError("the layer itself sends nothing")


UDP = FakeFlow()
TCP = FakeFlow("tcp", reliable=True)


def request_bytes(
    method: str = "INVITE", branch: str = "z9hG4bKa", *, uri: str = "sip:bob@example.org", sent_by: str = "192.0.2.7:5070",
    from_tag: str = "f1", to_tag: str = "", call_id: str = "c1", cseq: int = 1, transport: str = "UDP", headers: str = "",
) -> bytes:
    """A request as a client sends it; without a branch if that is empty."""
    via = f"Via: SIP/2.0/{transport} {sent_by}" + (f";branch={branch}" if branch else "")
    return (
        f"{method} {uri} SIP/2.0\r\n{via}\r\nMax-Forwards: 70\r\nFrom: <sip:alice@example.org>;tag={from_tag}\r\n"
        f"To: <sip:bob@example.org>{';tag=' + to_tag if to_tag else ''}\r\nCall-ID: {call_id}\r\n"
        f"CSeq: {cseq} {method}\r\n{headers}Content-Length: 0\r\n\r\n"
    ).encode()


def response_bytes(
    status: int, method: str = "INVITE", branch: str = "z9hG4bKa", *, to_tag: str = "t1", cseq: int = 1,
    call_id: str = "c1", from_tag: str = "f1",
) -> bytes:
    """A response as a server sends it."""
    return (
        f"SIP/2.0 {status} X\r\nVia: SIP/2.0/UDP 192.0.2.7:5070;branch={branch}\r\n"
        f"From: <sip:alice@example.org>;tag={from_tag}\r\nTo: <sip:bob@example.org>;tag={to_tag}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def read_request(data: bytes) -> Request:
    """Parse what must be a request."""
    message = parse(data)
    assert isinstance(message, Request)
    return message


def read_response(data: bytes) -> Response:
    """Parse what must be a response."""
    message = parse(data)
    assert isinstance(message, Response)
    return message


def show(action: Action) -> str:
    """One word for an action: ``>`` sent, ``!`` told to the TU."""
    if isinstance(action, Send):
        first = action.data.split(b" ", 2)
        return ">" + (first[1] if first[0] == b"SIP/2.0" else first[0]).decode()
    if isinstance(action, Deliver):
        message = action.message
        return f"!{message.status if isinstance(message, Response) else message.method}"
    if isinstance(action, Failed):
        return f"!{action.reason}"
    assert isinstance(action, Unacknowledged)
    return "!unacknowledged"


def shown(actions: list[Action]) -> str:
    """All actions as words."""
    return " ".join(map(show, actions))


def pass_time(layer: TransactionLayer, now: float, end: float) -> list[tuple[float, str]]:
    """Wake the layer whenever it wants to be woken until ``end``; what it did, with the times since ``now``."""
    done = []
    while (wake := layer.wake_at()) is not None and wake <= end:
        done += [(round(wake - now, 3), show(action)) for action in layer.expire(wake)]
    done += [(round(end - now, 3), show(action)) for action in layer.expire(end)]
    return done
