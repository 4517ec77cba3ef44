"""The HTTP site of one server: modules mount resources on it by the first part of the path; who may come in is decided here.

Three things are refused before a resource sees the request (hardening P21, F19): a peer without the password, where there is one;
a name in ``Host`` that is not this machine's, where there is none (a browser that was led here by DNS); and a body of more than
1 MB, which is not kept. Bodies stay in memory; answers carry no version. RFC 9110, RFC 7617 (Basic)."""

from __future__ import annotations

import base64
import binascii
import hmac
import socket
from collections.abc import Callable
from io import BytesIO
from ipaddress import ip_address
from typing import Any, cast

from twisted.web import server
from twisted.web.resource import Resource

LIMIT = 1 << 20
"""Octets of a request's body."""
PATIENCE = 16 * LIMIT
"""Octets of a body that are read, and thrown away, before the peer learns that it is too long; then the connection is cut."""

PAUSE = 0.05
"""Seconds between two looks at whether a peer reads its answers."""
DEAF = 30
"""Seconds after which one that does not is left, where no idle connection is."""


class Refusal(Resource):
    """A page that only says no, for any path and method. ``why``: what the log tells of it; empty for nothing."""

    isLeaf = True

    def __init__(self, code: int, text: str, headers: dict[str, str] | None = None, why: str = "") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.code = code
        self.text = text
        self.headers = headers or {}
        self.why = why

    def render(self, request: Any) -> bytes:
        """Say no."""
        request.setResponseCode(self.code)
        request.setHeader("Content-Type", "text/plain; charset=utf-8")
        for name, value in self.headers.items():
            request.setHeader(name, value)
        return f"{self.text}\n".encode()


class Credentials:
    """The one user who may come in (RFC 7617), compared in constant time."""

    def __init__(self, user: str, password: str, realm: str) -> None:
        self._expected = f"{user}:{password}".encode()
        quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
        self.challenge = f'Basic realm="{quoted}", charset="UTF-8"'

    def match(self, authorization: str | None) -> bool:
        """Whether an Authorization header bears the user and the password."""
        scheme, _, token = (authorization or "").partition(" ")
        try:
            given = base64.b64decode(token.strip().encode(), validate=True)
        except (binascii.Error, ValueError):
            given = b""
        return hmac.compare_digest(given, self._expected) and scheme.lower() == "basic"


TOO_LARGE = Refusal(413, f"The body is longer than {LIMIT} octets.", {"Connection": "close"}, "with too long a body")


class SiteRequest(server.Request):
    """A request whose body is bounded, and kept only if somebody may read it."""

    channel: Any
    content: Any
    refusal: Refusal | None = None
    received = 0
    waited = 0.0

    def gotLength(self, length: int | None) -> None:
        """Decide by the head alone whether the body is wanted."""
        self.content = BytesIO()
        self.refusal = self.channel.site.refusal(self)
        if self.refusal is None and length is not None and length > LIMIT:
            self.refusal = TOO_LARGE

    def handleContentChunk(self, data: bytes) -> None:
        """Keep this part of the body, if any of it is wanted."""
        self.received += len(data)
        if self.received > LIMIT and self.refusal is None:
            self.refusal = TOO_LARGE
        if self.refusal is None:
            self.content.write(data)
        elif self.received > PATIENCE:
            self.channel.loseConnection()

    def process(self) -> None:
        """Find the resource and let it render; ``*`` is no exception (Twisted would answer it with its version).

        One request of a connection is answered in each turn of the reactor, however many came at once; and none as long as
        the peer does not read the answers to those before."""
        if self.path == b"*":
            self.path = b"/*"
        if self.channel in self.channel.site.served:
            self.channel.site.reactor.callLater(0, self._in_turn)
        else:
            self._in_turn()

    def _in_turn(self) -> None:
        site = self.channel.site if self.channel is not None else None
        if site is None or self._disconnected:
            return
        if self.channel in site.served or self.channel._waitingForTransport:
            if self.waited > (site.timeOut or DEAF):
                self.channel.forceAbortClient()
            else:
                self.waited += PAUSE
                site.reactor.callLater(PAUSE, self._in_turn)
            return
        if not site.served:
            site.reactor.callLater(0, site.served.clear)
        site.served.add(self.channel)
        super().process()  # type: ignore[no-untyped-call]


class _Root(Resource):
    """Where the paths begin."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mounted: dict[bytes, Resource] = {}

    def getChildWithDefault(self, path: bytes, request: Any) -> Resource:
        """The resource mounted at ``path``, or one that refuses."""
        request.setHeader("Server", "sipgw")
        if request.refusal is not None:
            request.site.turned_away(request, request.refusal)
            return cast(Refusal, request.refusal)
        return self.mounted.get(path) or Refusal(404, "There is nothing here.")


class Site(server.Site):
    """All that one server shows over HTTP. ``log(level, text)`` hears of those who were turned away.

    ``credentials``: who may come in; None: anybody who can reach the port and calls it by its own name. ``idle``: seconds after
    which a silent connection is closed; None for never."""

    def __init__(
        self, reactor: Any, log: Callable[[int, str], None], credentials: Credentials | None = None, idle: float | None = 30
    ) -> None:
        root = _Root()
        super().__init__(root, SiteRequest, reactor=reactor, parsePOSTFormSubmission=False)  # type: ignore[no-untyped-call]
        self.timeOut = idle
        self.served: set[Any] = set()
        """The connections that have been served in this turn of the reactor."""
        self.owners: dict[str, str] = {}
        """Each path with the module that mounted it."""
        self._root = root
        self._log = log
        self._credentials = credentials
        self._names = {"localhost", socket.gethostname().lower()}

    def mount(self, path: str, resource: Resource, owner: str) -> None:
        """Show ``resource`` at ``/path`` and below; ``ValueError`` if that is taken or no single part of a path."""
        path = path.strip("/")
        if not path or "/" in path:
            raise ValueError(f"{path!r} is not one part of a path")
        if path in self.owners:
            raise ValueError(f"/{path} is taken by {self.owners[path]}")
        self.owners[path] = owner
        self._root.mounted[path.encode()] = resource

    def unmount(self, path: str) -> None:
        """Show nothing at ``/path`` any more."""
        self.owners.pop(path.strip("/"), None)
        self._root.mounted.pop(path.strip("/").encode(), None)

    def refusal(self, request: server.Request) -> Refusal | None:
        """Why ``request`` is turned away, by its head; None when it is not."""
        if self._credentials is not None:
            if self._credentials.match(request.getHeader("Authorization")):
                return None
            challenge = {"WWW-Authenticate": self._credentials.challenge}
            return Refusal(401, "User and password, please.", challenge, "without the right credentials")
        host = request.getHeader("Host")
        if host is None or self._is_ours(host):
            return None
        advice = "Call this server by its address, or set auth_username and auth_password."
        return Refusal(403, advice, why=f"called {host[:100]!r}, which is no name of this machine: {advice}")

    def _is_ours(self, host: str) -> bool:
        """Whether ``host``, of a Host header, is an address or a name of this machine."""
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if name.lower().rstrip(".") in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return False
        return True

    def turned_away(self, request: Any, refusal: Refusal) -> None:
        """Tell the log who was refused what."""
        method = request.method.decode("ascii", "replace")[:20]
        path = request.path.decode("ascii", "replace")[:100]
        peer = getattr(request.getClientAddress(), "host", "?")
        self._log(1, f"httpd: {refusal.code} to {peer}: {method!r} {path!r} {refusal.why}")

    def log(self, request: Any) -> None:
        """Write no access log: who is turned away is told, the rest is not news."""

    def startFactory(self) -> None:
        """Begin, without the access log and its clock."""
