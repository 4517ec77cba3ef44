"""Ways to a peer over a connection (``Flow`` of ``sip/actions.py``): what becomes of a message when the connection is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import parse

if TYPE_CHECKING:
    from sipgw.transport.connection import Connection
    from sipgw.transport.proxy_protocol import Header
    from sipgw.transport.stream import StreamSocket

DEFAULT_PORT = {"tcp": 5060, "tls": 5061, "ws": 80, "wss": 443}
"""The port of a sent-by without one (RFC 3261 18.2.2, RFC 7118 5)."""


class StreamFlow:
    """A way to a peer over one connection; each message that comes has one of its own.

    ``host`` and ``port`` may be an alias of the connection's. ``reconnects``: whether a response may open a new connection
    when this one is gone."""

    __slots__ = ("connection", "host", "port", "reconnects")

    reliable = True
    refused = ""
    """Why nothing may be sent to this peer; empty when it may."""

    def __init__(self, connection: Connection, host: str, port: int) -> None:
        self.connection = connection
        self.host = host
        self.port = port
        self.reconnects = True

    @property
    def transport(self) -> str:
        """The transport of its socket."""
        return self.connection.local.transport

    @property
    def socket(self) -> StreamSocket:
        """The socket of ours that the connection belongs to."""
        return self.connection.local

    @property
    def id(self) -> tuple[str, int]:
        """The worker and the number of its connection."""
        return self.connection.id

    @property
    def proxy_header(self) -> Header | None:
        """What a load balancer says of who is behind it, None if it says nothing."""
        return self.connection.proxy_header

    @property
    def connected(self) -> bool:
        """Whether the connection is there, so that none need be opened to send."""
        return self.connection.is_open

    def alias(self, port: int) -> bool:
        """Send requests to ``port`` of the peer over this connection too (RFC 5923); False if another one has that port."""
        connection = self.connection
        return connection.local.connections.alias(connection, port)

    def keep(self, seconds: float) -> None:
        """Do not close the connection for being idle within ``seconds``, however long its usual time."""
        self.connection.keep_until = max(self.connection.keep_until, self.connection.local.user.clock() + seconds)

    def send(self, data: bytes) -> None:
        """Send one message; where the connection is gone, as ``_elsewhere`` says."""
        connection = self.connection
        if data.startswith(b"SIP/2.0 ") and data[8:9] != b"1" and connection.unanswered:
            connection.unanswered -= 1
        if not connection.send(data):
            self._elsewhere(data)
        elif connection.half_closed:
            connection.end_if_answered()

    def _elsewhere(self, data: bytes) -> None:
        """Send what this connection can no longer carry.

        A response goes to the source of its request at the port of its Via (RFC 3261 18.2.2), an ACK or CANCEL to where the
        INVITE went. Another request has failed with the connection: who sent it is told."""
        local = self.connection.local
        port = self.port
        if data.startswith(b"SIP/2.0 "):
            if not self.reconnects or not local.reconnects:
                return local.complain("gone", f"{self} is gone, and nothing may be opened for a response")
            try:
                via = parse(data).via
            except MalformedMessage:
                return None
            port = via.port or DEFAULT_PORT[local.transport]
        elif not data.startswith((b"ACK ", b"CANCEL ")):
            return self.connection.tell_lost()
        flow = local.flow(self.host, port)
        if flow.refused or not flow.connection.send(data):
            local.complain("gone", f"{self} is gone, and {self.host}:{port} cannot be reached: {flow.refused}")
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.connection.local} {self.host}:{self.port} #{self.connection.number}>"


class RefusedFlow(StreamFlow):
    """A flow to where nothing is ever sent: a multicast, broadcast or nameless address, or the wrong family."""

    __slots__ = ("refused",)

    def __init__(self, connection: Connection, refused: str) -> None:
        super().__init__(connection, connection.host, connection.port)
        self.refused = refused

    def send(self, data: bytes) -> None:
        """Send nothing and say so."""
        self.socket.complain("refused", f"nothing is sent to {self.host}:{self.port}: it {self.refused}")
