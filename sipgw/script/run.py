"""One pass of one message through a route: everything a script can see or change.

A ``Run`` is plain data. The generated code of a route, the variables and the module functions all take it as their first
argument. What changes at once (``$ru``, ``$du``, branches, flags, AVPs) are its attributes; header and body edits wait in
``edits`` until the message is written, so that the script does not see them (OpenSIPS's lumps; house 2.6, 8).

A request keeps its ``Run`` from ``route`` to ``t_relay``; each branch route, failure route and reply route gets a run of its
own, made from the transaction's (``branch_run``, ``failure_run`` in ``sipgw.proxy``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from sipgw.script.symbols import RouteKind
from sipgw.sip.edits import NO_EDITS, EditList
from sipgw.sip.uri import Uri

if TYPE_CHECKING:
    from sipgw.sip.layer import Flow
    from sipgw.sip.message import Request, Response

Value = int | str | None
"""What a script variable holds: ``int`` counts as a number and as its text, ``str`` as text only, ``None`` is null."""

MAX_FLAGS = 32
"""Message flags and branch flags a script may name (language 1.13)."""


WATCHER = "watcher"
"""Under this name a run keeps who is told of what it sends (``Watcher``)."""


class Watcher(Protocol):
    """Who wants to see what goes out on behalf of a request, and the lines that its routes log (tracer)."""

    def upstream(self, flow: Flow) -> Flow:
        """The way back to where the request came from, watched."""

    def downstream(self, flow: Flow) -> Flow:
        """A way on which the request goes further, watched."""

    def logged(self, run: Run, level: int, text: str) -> None:
        """See a line of ``xlog``."""


class FlagNames:
    """The names of one set of flags, each with its bit; a name is declared by its first use (language 1.13)."""

    __slots__ = ("_masks", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._masks: dict[str, int] = {}

    def mask(self, name: str) -> int:
        """The bit mask of ``name``, declared now if it is new; ``ValueError`` when all 32 are taken."""
        found = self._masks.get(name)
        if found is None:
            if len(self._masks) >= MAX_FLAGS:
                raise ValueError(f"too many {self.kind} flags: {name!r} would be the {MAX_FLAGS + 1}th")
            found = self._masks[name] = 1 << len(self._masks)
        return found

    def find(self, name: str) -> int:
        """The mask of ``name``, or 0 if nothing has declared it."""
        return self._masks.get(name, 0)

    def names(self, mask: int) -> list[str]:
        """The names of the bits set in ``mask``, in order of declaration."""
        return [name for name, bit in self._masks.items() if mask & bit]


class Socket(Protocol):
    """A place where sipgw listens and from which it sends."""

    transport: str
    host: str
    port: int
    advertised_host: str
    advertised_port: int
    tag: str

    def flow(self, host: str, port: int) -> Flow:
        """A flow from this socket to ``host`` (an IP address) and ``port``."""


class Surroundings(Protocol):
    """What a run may ask of the server around it; the transaction user is it, tests pass a small double."""

    log_level: int
    xlog_level: int
    message_flags: FlagNames
    branch_flags: FlagNames
    sockets: list[Any]
    globals: dict[str, Any]
    arguments: dict[str, str]
    started: float
    pid: int

    @property
    def resolve_host(self) -> Callable[[str, str], Awaitable[str | None]]:
        """``await resolve_host(name, wanted)``: an address of a name, ``wanted`` "4", "6" or "" for either (``{ip.resolve}``)."""

    def log(self, level: int, text: str) -> None:
        """Write one line at an OpenSIPS level (-3 alert .. 4 debug)."""

    def xlog(self, level: int, text: str) -> None:
        """Write one line of the script's own; its level has been compared with ``xlog_level``."""

    def wall_clock(self) -> float:
        """Seconds since 1970, for ``$Ts`` and the like; never for timers."""

    def is_myself(self, host: str, port: int = 0) -> bool:
        """Whether ``host`` (and ``port``, when not 0) is one of our sockets or aliases."""

    def find_socket(self, text: str) -> Any:
        """The socket that ``proto:host:port`` names, or None."""

    def launch(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run ``coroutine`` beside everything else (the statement ``launch``)."""

    async def within(self, seconds: float, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """The result of ``coroutine``, or ``TimeoutError`` if it has none in ``seconds`` (the timeout of ``async``)."""


class Branch:
    """One more destination of a request, beside the Request-URI (``$msg.branch.*``; OpenSIPS's destination set)."""

    __slots__ = ("attrs", "dst_uri", "flags", "path", "q", "socket", "uri")

    def __init__(
        self,
        uri: str,
        dst_uri: str | None = None,
        path: str | None = None,
        q: int = -1,
        flags: int = 0,
        socket: Any = None,
    ) -> None:
        self.uri = uri
        self.dst_uri = dst_uri
        self.path = path
        self.q = q
        """q times 1000, or -1 when unset."""
        self.flags = flags
        self.socket = socket
        self.attrs: dict[str, Value] | None = None


class Run:
    """The state of one pass of ``message`` through a route of ``kind``.

    ``now`` is monotonic, in seconds. ``user`` is the server around (``Surroundings``). ``flow`` is where the message came from
    (None for messages that sipgw makes). ``transaction`` is tm's object, ``request`` the request that a reply belongs to."""

    __slots__ = (
        "_uri_parsed",
        "_uri_text",
        "advertised_host",
        "advertised_port",
        "attrs",
        "avps",
        "blacklists",
        "branch",
        "branch_flags",
        "branch_index",
        "branches",
        "context",
        "depth",
        "dst_uri",
        "edits",
        "error",
        "flags",
        "flow",
        "force_rport",
        "kind",
        "line",
        "log_level",
        "message",
        "now",
        "on_branch",
        "on_failure",
        "on_reply",
        "params",
        "path",
        "q",
        "rc",
        "reply_edits",
        "request",
        "returns",
        "route_stack",
        "send_socket",
        "transaction",
        "uri",
        "user",
        "vars",
        "xlog_level",
    )

    def __init__(
        self, message: Request | Response, kind: RouteKind, flow: Flow | None, now: float, user: Any
    ) -> None:
        self.message = message
        self.kind = kind
        self.flow = flow
        self.now = now
        self.user = user
        self.uri: str = getattr(message, "uri", "")
        """The Request-URI as it now stands (``$ru``); empty in a reply."""
        self._uri_text: str | None = None
        self._uri_parsed: Uri | None = None
        self.dst_uri: str | None = None
        self.path: str | None = None
        self.q = -1
        self.branch_flags = 0
        self.attrs: dict[str, Value] | None = None
        """What ``$msg.branch.attr(name)`` knows of the Request-URI, as ``Branch.attrs`` of the others."""
        self.send_socket: Any = None
        self.branches: list[Branch] = []
        self.branch: Any = None
        """In a branch route or a reply route: tm's object of the branch."""
        self.branch_index = 0
        """In a branch route, a reply route or a failure route: the number of the branch."""
        self.flags = 0
        self.avps: dict[str, list[int | str]] = {}
        """Values of each AVP, the newest last (``$(avp(x)[0])`` is the newest)."""
        self.vars: dict[str, Value] = {}
        self.edits: EditList = NO_EDITS
        self.reply_edits: list[str] | None = None
        """Header lines, and at most one body, for the reply to be made (``append_to_reply``); None: none."""
        self.transaction: Any = None
        self.request: Request | None = None
        self.on_failure: Any = None
        self.on_reply: Any = None
        self.on_branch: Any = None
        self.rc = 1
        self.params: tuple[Value, ...] = ()
        self.returns: tuple[Value, ...] = ()
        self.route_stack: list[str] | None = None
        self.depth = 0
        self.line = 0
        """The cfg line being run, where the generated code keeps it (``$cfg_line``)."""
        self.error: Any = None
        self.force_rport = False
        self.blacklists: tuple[Any, ...] | None = None
        """The blacklists in force for this message; None: those that are by default."""
        self.advertised_host: str | None = None
        self.advertised_port: int | None = None
        self.log_level: int | None = None
        self.xlog_level: int | None = None
        self.context: dict[str, Any] | None = None
        """What modules keep with the message; made on first use (``keep``)."""

    @property
    def request_uri(self) -> Uri:
        """The Request-URI as it now stands, parsed once for each text; ``MalformedMessage`` if it cannot be."""
        uri = self.uri
        parsed = self._uri_parsed
        if parsed is None or self._uri_text is not uri:
            message = self.message
            parsed = self._uri_parsed = message.request_uri if uri is getattr(message, "uri", None) else Uri.parse(uri)  # type: ignore[union-attr]
            self._uri_text = uri
        return parsed

    @property
    def next_hop(self) -> str:
        """Where the request goes next: ``$du`` if set, else ``$ru``."""
        return self.dst_uri or self.uri

    def keep(self) -> dict[str, Any]:
        """The modules' own data of this message."""
        if self.context is None:
            self.context = {}
        return self.context
