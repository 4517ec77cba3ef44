"""Doubles that several test files share: a transaction user without sockets, a message from few words, a variable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from socket import AF_INET, SOCK_DGRAM
from socket import socket as new_socket
from typing import Any

from twisted.internet.testing import MemoryReactorClock

from sipgw.core.cachedb import CacheError, NotCounter
from sipgw.script.run import FlagNames, Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.edits import write
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import respond_to
from sipgw.statistics import Statistics

HEAD = (
    "Via: SIP/2.0/UDP 192.0.2.1:5062;branch=z9hG4bKabc\r\n"
    "Max-Forwards: 70\r\n"
    'From: "Alice" <sip:alice@example.org>;tag=a1\r\n'
    "To: <sip:bob@example.org>\r\n"
    "Call-ID: call1@example.org\r\n"
)


@dataclass
class FakeFlow:
    """A flow that keeps what is sent."""

    host: str = "192.0.2.1"
    port: int = 5062
    transport: str = "udp"
    reliable: bool = False
    refused: str = ""
    id: object = None
    socket: Any = None
    sent: list[bytes] = field(default_factory=list)

    def send(self, data: bytes) -> None:
        """Keep ``data``."""
        self.sent.append(data)


@dataclass
class FakeSocket:
    """A socket of ours."""

    transport: str = "udp"
    host: str = "127.0.0.1"
    port: int = 5060
    advertised_host: str = ""
    advertised_port: int = 0
    tag: str = ""
    flows: list[FakeFlow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.advertised_host = self.advertised_host or self.host
        self.advertised_port = self.advertised_port or self.port

    def can_reach(self, host: str) -> bool:
        """Always."""
        return True

    def flow(self, host: str, port: int) -> FakeFlow:
        """A flow from here."""
        self.flows.append(FakeFlow(host, port, self.transport, socket=self))
        return self.flows[-1]


class FakeUser:
    """A transaction user that answers from memory and keeps what it is told."""

    def __init__(self, *sockets: FakeSocket, myself: tuple[str, ...] = ("127.0.0.1",)) -> None:
        self.log_level = 4
        self.xlog_level = 4
        self.message_flags = FlagNames("message")
        self.branch_flags = FlagNames("branch")
        self.sockets = list(sockets) or [FakeSocket()]
        self.myself = set(myself)
        self.globals: dict[str, Any] = {}
        self.arguments: dict[str, str] = {}
        self.started = 0.0
        self.statistics = Statistics()
        self.on_request: list[Any] = []
        self.logged: list[tuple[int, str]] = []
        self.replies: list[bytes] = []
        self.seconds = 1000.0

    def log(self, level: int, text: str) -> None:
        """Keep the line."""
        self.logged.append((level, text))

    xlog = log

    def log_rarely(self, key: object, level: int, text: str) -> None:
        """Keep the line."""
        self.logged.append((level, text))

    def clock(self) -> float:
        """What the test has set."""
        return self.seconds

    def wall_clock(self) -> float:
        """What the test has set."""
        return self.seconds

    def is_myself(self, host: str, port: int = 0) -> bool:
        """Whether ``host`` is one that the test called ours, at the port of one of the sockets."""
        return host.lower() in self.myself and (not port or any(socket.port == port for socket in self.sockets))

    def find_socket(self, text: str) -> FakeSocket | None:
        """The socket written ``proto:host:port``."""
        for socket in self.sockets:
            if text == f"{socket.transport}:{socket.host}:{socket.port}":
                return socket
        return None

    def reply(self, run: Run, status: int, reason: str, **options: Any) -> None:
        """Keep the reply."""
        assert isinstance(run.message, Request)
        options["headers"] = "".join(run.reply_edits or ()) + options.get("headers", "")
        options["to_tag"] = options.get("to_tag") or self.new_tag(run.message)
        self.replies.append(respond_to(run.message, status, reason, **options))

    def new_tag(self, request: Request, transaction: bool = False) -> str:
        """The same tag each time."""
        return f"ours.{request.call_id}"

    def is_our_tag(self, tag: str | None) -> bool:
        """Whether ``new_tag`` made it."""
        return tag is not None and tag.startswith("ours.")


class FakeServer:
    """A server as a module sees it."""

    def __init__(self, user: FakeUser | None = None) -> None:
        self.user = user or FakeUser()
        self.statistics = self.user.statistics
        self.modules: dict[str, Any] = {}


def fake_server(user: FakeUser | None = None) -> Any:
    """A fake server, for whoever asks for a real one."""
    return FakeServer(user)


class FakeVariable:
    """A variable that a function can set; ``values`` are those it was given."""

    def __init__(self) -> None:
        self.values: list[int | str | None] = []

    def get(self, run: Any) -> int | str | None:
        """The last value."""
        return self.values[-1] if self.values else None

    def set(self, run: Any, value: int | str | None) -> bool:
        """Keep ``value``, unless it is ``refused``."""
        if value == "refused":
            return False
        self.values.append(value)
        return True


def request(
    method: str = "OPTIONS", uri: str = "sip:bob@example.org", *, head: str = HEAD, more: str = "", body: str = ""
) -> Request:
    """A request; ``more`` are whole header lines after the usual ones, ``head`` takes the place of those before CSeq."""
    data = body.encode()
    text = f"{method} {uri} SIP/2.0\r\n{head}CSeq: 1 {method}\r\n{more}Content-Length: {len(data)}\r\n\r\n"
    message = parse(text.encode("utf-8", "surrogateescape") + data)
    assert isinstance(message, Request)
    return message


def response(
    status: int = 200, reason: str = "OK", *, method: str = "OPTIONS", head: str = HEAD, more: str = "", body: str = ""
) -> Response:
    """A response with a To tag."""
    data = body.encode()
    head = head.replace("To: <sip:bob@example.org>\r\n", "To: <sip:bob@example.org>;tag=b1\r\n")
    message = parse(
        f"SIP/2.0 {status} {reason}\r\n{head}CSeq: 1 {method}\r\n{more}Content-Length: {len(data)}\r\n\r\n".encode() + data
    )
    assert isinstance(message, Response)
    return message


def run_of(message: Request | Response, user: FakeUser | None = None, kind: RouteKind | None = None) -> Run:
    """A run of ``message`` as if it had just come in."""
    user = user or FakeUser()
    if kind is None:
        kind = RouteKind.REQUEST if isinstance(message, Request) else RouteKind.ONREPLY
    return Run(message, kind, FakeFlow(socket=user.sockets[0]), user.clock(), user)


def written(run: Run) -> str:
    """The message of ``run`` as its edits leave it."""
    return write(run.message, run.edits).decode("utf-8", "surrogateescape")


def changes(run: Run) -> tuple[list[str], list[str]]:
    """The head lines that the edits of ``run`` took away and those that they put in, in order."""
    before = run.message.lines
    after = written(run).partition("\r\n\r\n")[0].split("\r\n")
    return [line for line in before if line not in after], [line for line in after if line not in before]


class FakeCache:
    """A store in a dict; ``before`` is called first of all by each query, whose answer is all that is stored."""

    system = "fakedb"
    threshold = 0

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.before: Callable[[], None] = lambda: None

    async def store(self, key: str, value: str, seconds: int) -> None:
        """Keep it."""
        self.before()
        self.values[key] = value

    async def fetch(self, key: str) -> str | None:
        """As it is."""
        self.before()
        return None if key not in self.values else str(self.values[key])

    async def remove(self, key: str) -> None:
        """Forget it."""
        self.before()
        self.values.pop(key, None)

    async def add(self, key: str, number: int, seconds: int) -> int:
        """Add."""
        self.before()
        self.values[key] = self.values.get(key, 0) + number
        return int(self.values[key])

    async def counter(self, key: str) -> int | None:
        """A number, if it is one."""
        self.before()
        if isinstance(self.values.get(key, 0), str):
            raise NotCounter(f"{key} is no number")
        return self.values.get(key)

    async def query(self, text: str) -> list[list[Any]]:
        """All, or those rows that ``text`` asks for."""
        self.before()
        if text == "broken":
            raise CacheError("it is broken")
        return [[key, value] for key, value in self.values.items()]


class Reactor(MemoryReactorClock):
    """A reactor in memory that takes UDP ports too; ``ports`` are the protocols that listen."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: list[Any] = []

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> Any:
        """Take note of it."""
        self.ports.append(protocol)
        return Port()


class Port:
    """A port that is none; what is sent from it goes out all the same."""

    def __init__(self) -> None:
        self.socket = new_socket(AF_INET, SOCK_DGRAM)

    def stopListening(self) -> None:
        """Close it."""
        self.socket.close()
