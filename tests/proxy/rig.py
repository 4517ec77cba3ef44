"""A transaction user on a fake clock and fake sockets, for tests of the proxy room and of tm: routes are Python functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from sipgw.core.user import TransactionUser
from sipgw.modules.tm import Tm
from sipgw.script.routes import Route, RouteSet
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.message import Request, Response, parse
from sipgw.statistics import Statistics


class FakeFlow:
    """A flow that writes down what is sent."""

    transport = "udp"
    reliable = False
    refused = ""
    id = None

    def __init__(self, socket: FakeSocket, host: str, port: int) -> None:
        self.socket, self.host, self.port = socket, host, port

    def send(self, data: bytes) -> bool:
        if self.port in self.socket.unreachable:
            return False
        self.socket.sent.append((self.host, self.port, data))
        return True


class FakeSocket:
    """A socket of ours at 127.0.0.1:5060."""

    transport, host, port, advertised_host, advertised_port, tag = "udp", "127.0.0.1", 5060, "", 0, ""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int, bytes]] = []
        self.unreachable: set[int] = set()

    def flow(self, host: str, port: int) -> FakeFlow:
        return FakeFlow(self, host, port)


class FakeServer:
    """As much of a server as ``Tm`` needs."""

    def __init__(self, user: TransactionUser) -> None:
        self.user, self.statistics = user, user.statistics
        self.modules: dict[str, Any] = {}


class Rig:
    """One server at 127.0.0.1:5060; peers are known by their port."""

    def __init__(self, **tm: Any) -> None:
        self.clock = Clock()
        self.log: list[tuple[int, str]] = []
        self.user = TransactionUser(
            self.clock.seconds,
            lambda: 1_700_000_000 + self.clock.seconds(),
            lambda level, text: self.log.append((level, text)),
            {"server_signature": 0},
            Statistics(),
            self.clock.callLater,
        )
        self.socket = FakeSocket()
        self.user.add_socket(self.socket)
        self.tm = Tm(FakeServer(self.user), **tm)  # type: ignore[arg-type]
        try:
            self.tm.start().send(None)
        except StopIteration:
            pass

    def routes(self, request: Callable[[Run], Any], **others: dict[str, Callable[[Run], Any]]) -> None:
        """Use ``request`` as the request route (a coroutine function), and others by kind and name."""
        routes = RouteSet()
        routes.request = Route("route", RouteKind.REQUEST, request, True, "test.cfg", 1)
        for kind, table in others.items():
            for name, function in table.items():
                made = Route(name, RouteKind[kind.upper()], function, True, "test.cfg", 2)
                getattr(routes, kind)[name] = made
        self.user.routes = routes

    def arrive(self, data: bytes, port: int) -> None:
        """Let ``data`` come from the peer at ``port``."""
        self.user.receive(data, FakeFlow(self.socket, "127.0.0.1", port))

    def sent(self, port: int) -> list[Any]:
        """Take out what was sent to ``port``, parsed."""
        mine = [parse(data) for _, to, data in self.socket.sent if to == port]
        self.socket.sent = [entry for entry in self.socket.sent if entry[1] != port]
        return mine

    def said(self, port: int) -> list[str]:
        """Take out what was sent to ``port`` as short words: "INVITE", "180", "200 BYE"."""
        return [word(message) for message in self.sent(port)]


def word(message: Request | Response) -> str:
    """A message in a word or two."""
    if isinstance(message, Request):
        return message.method
    return str(message.status) if message.method == "INVITE" else f"{message.status} {message.method}"


def request(
    method: str, uri: str = "sip:127.0.0.1:7002", *, port: int = 7001, branch: str = "one", cseq: int = 1, to_tag: str = "",
    extra: str = "",
) -> bytes:
    """A request from the peer at ``port``."""
    tag = f";tag={to_tag}" if to_tag else ""
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@example.org>;tag=a1\r\nTo: <sip:bob@example.org>{tag}\r\nCall-ID: call@test\r\n"
        f"CSeq: {cseq} {method}\r\n{extra}Content-Length: 0\r\n\r\n"
    ).encode()


def response(to: Request, status: int, *, tag: str = "b1", extra: str = "") -> bytes:
    """The answer of a peer to what it received."""
    vias = "".join(f"Via: {value}\r\n" for value in to.headers("Via"))
    tag = f";tag={tag}" if status > 100 else ""
    return (
        f"SIP/2.0 {status} Reason\r\n{vias}From: {to.header('From')}\r\nTo: {to.header('To')}{tag}\r\n"
        f"Call-ID: {to.call_id}\r\nCSeq: {to.header('CSeq')}\r\n{extra}Content-Length: 0\r\n\r\n"
    ).encode()
