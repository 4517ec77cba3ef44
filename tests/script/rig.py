"""Runs small scripts: text in, what they logged and left behind out."""

from __future__ import annotations

from typing import Any

from sipgw.modules.core import Core
from sipgw.script.compiler import compile_config
from sipgw.script.nodes import Config
from sipgw.script.parser import parse
from sipgw.script.preprocess import Source
from sipgw.script.routes import RouteSet
from sipgw.script.run import FlagNames, Run
from sipgw.script.symbols import Function, Kind, ModuleSymbols, Parameter, RouteKind, Symbols
from sipgw.script.transformations import TRANSFORMATIONS
from sipgw.script.variables import VARIABLES
from sipgw.sip.message import Request, Response
from sipgw.sip.message import parse as parse_message

REQUEST = (
    b"INVITE sip:bob@example.com:5070;user=phone SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bKx\r\n"
    b'From: "Alice" <sip:alice@a.com:5070;transport=tcp>;tag=ft\r\n'
    b"To: <sip:bob@b.com>\r\n"
    b"Call-ID: cid@x\r\n"
    b"CSeq: 7 INVITE\r\n"
    b"Max-Forwards: 70\r\n"
    b'Contact: "C" <sip:c1@1.1.1.1:77>;q=0.5;expires=60, <sip:c2@2.2.2.2>;methods="INVITE, BYE"\r\n'
    b"m: sip:c3@h\r\n"
    b"User-Agent: UA 1\r\n"
    b"X-A: 1\r\n"
    b"X-B: foo\r\n"
    b"X-A: 2\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 5\r\n"
    b"\r\n"
    b"hello"
)


class Socket:
    """A socket of ours."""

    transport = "udp"
    advertised_host = ""
    advertised_port = 0
    tag = ""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port


class Flow:
    """Where messages come from."""

    host = "10.0.0.1"
    port = 5060
    transport = "udp"

    def __init__(self, socket: Socket) -> None:
        self.socket = socket


class Server:
    """The server around a run: notes what is logged and launched."""

    def __init__(self) -> None:
        self.log_level = 2
        self.xlog_level = 2
        self.message_flags = FlagNames("message")
        self.branch_flags = FlagNames("branch")
        self.sockets = [Socket("127.0.0.1", 5060), Socket("127.0.0.1", 5080)]
        self.globals: dict[str, Any] = {}
        self.arguments = {"home": "here"}
        self.started = 1000.0
        self.pid = 4711
        self.lines: list[tuple[int, str]] = []
        self.launched: list[Any] = []
        self.symbols: Symbols | None = None

    def log(self, level: int, text: str) -> None:
        """Note a line."""
        self.lines.append((level, text))

    xlog = log

    def wall_clock(self) -> float:
        """One moment of 2026."""
        return 1795374232.64

    def is_myself(self, host: str, port: int = 0) -> bool:
        """Whether it is our address."""
        return host == "127.0.0.1"

    def find_socket(self, text: str) -> Socket | None:
        """The socket at the end of ``text``."""
        return next((s for s in self.sockets if text.endswith(f"{s.host}:{s.port}")), None)

    async def resolve_host(self, name: str, wanted: str) -> str | None:
        """One address for any name."""
        return "127.0.0.1"

    def launch(self, coroutine: Any) -> None:
        """Note a coroutine; ``finish`` runs it."""
        self.launched.append(coroutine)

    async def within(self, seconds: float, coroutine: Any) -> Any:
        """Wait, as long as it takes."""
        return await coroutine

    @property
    def out(self) -> list[str]:
        """What was logged by ``xlog`` at level 2."""
        return [text for level, text in self.lines if level == 2]

    @property
    def faults(self) -> list[str]:
        """What was logged as wrong."""
        return [text for level, text in self.lines if level < 2]


class Pause:
    """What a coroutine of a test waits for."""

    def __await__(self) -> Any:
        return (yield self)


def finish(result: Any) -> Any:
    """The result of a route; one that waits is resumed until it ends."""
    if not hasattr(result, "send"):
        return result
    while True:
        try:
            result.send(None)
        except StopIteration as stop:
            return stop.value


def _sample() -> ModuleSymbols:
    """A module with a function of each shape."""

    async def slow(run: Any, code: int) -> int:
        await Pause()
        return code

    async def slow_test(run: Any, value: str) -> bool:
        await Pause()
        return bool(value)

    async def slow_set(run: Any, variable: Any, value: str) -> None:
        await Pause()
        variable.set(run, value)

    def note(run: Any, *arguments: Any) -> None:
        run.user.log(2, repr(arguments))

    def pattern(run: Any, regex: Any) -> bool:
        return bool(regex.matches("abc"))

    def copy(run: Any, source: Any, target: Any) -> bool:
        return target.set(run, source.get(run)) is not False

    def code(run: Any, number: int) -> int:
        return number

    def good(run: Any, text: str) -> bool:
        run.user.log(2, text)
        return True

    def bad(run: Any) -> bool:
        return False

    def boom(run: Any) -> bool:
        raise RuntimeError("boom")

    def one(name: str, call: Any, kinds: list[Parameter], returns: str, waits: bool = False) -> Function:
        return Function(name, "sample", tuple(kinds), call=call, returns=returns, waits=waits)

    text = Parameter("text", Kind.STR)
    number = Parameter("number", Kind.INT)
    return ModuleSymbols(
        "sample",
        functions=(
            one("slow", slow, [number], "int", True),
            one("slow_test", slow_test, [text], "bool", True),
            one("slow_set", slow_set, [Parameter("variable", Kind.WRITABLE), text], "none", True),
            one(
                "note",
                note,
                [text, Parameter("b", Kind.INT, True), Parameter("c", Kind.STR, True), Parameter("d", Kind.RAW, True)],
                "none",
            ),
            one("pattern", pattern, [Parameter("regex", Kind.REGEX)], "bool"),
            one("copy", copy, [Parameter("source", Kind.VAR), Parameter("target", Kind.WRITABLE)], "bool"),
            one("code", code, [number], "int"),
            one("good", good, [text], "bool"),
            one("bad", bad, [], "bool"),
            one("boom", boom, [], "bool"),
            one("guarded", note, [Parameter("text", Kind.STR, guarded=True)], "none"),
            one("flagged", note, [Parameter("flag", Kind.FLAG)], "none"),
        ),
    )


def symbols() -> Symbols:
    """The core and the sample module."""
    core = Core.declared(Core())
    return Symbols.of([ModuleSymbols("core", core.functions, VARIABLES, TRANSFORMATIONS), _sample()])


class Script:
    """One compiled script with a server of its own."""

    def __init__(self, text: str | Source) -> None:
        self.server = Server()
        self.config: Config = parse(text)
        self.symbols = symbols()
        self.routes: RouteSet = compile_config(self.config, self.symbols, self.server)

    def run(self, data: bytes = REQUEST, kind: RouteKind = RouteKind.REQUEST) -> Run:
        """A run for a message."""
        message = parse_message(data)
        assert isinstance(message, Request | Response)
        flow: Any = Flow(self.server.sockets[0])
        return Run(message, kind, flow, 0.0, self.server)

    def request(self, run: Run | None = None) -> Any:
        """Run ``route{}`` to its end; its result."""
        assert self.routes.request is not None
        return finish(self.routes.request.function(run or self.run()))


def output(body: str, more: str = "") -> list[str]:
    """What a ``route{}`` with this body logs by ``xlog``."""
    script = Script(f"route {{ {body} }} {more}")
    script.request()
    return script.server.out
