"""Captured messages on their way through a script: they come from where the frame says, and nothing is ever sent for them.

Who can send HEP to us can claim any address. So a captured message is never compared with our transactions, and what a script
answers to it, or relays of it, goes nowhere."""

from __future__ import annotations

from collections.abc import Callable

from sipgw.transport.hep_received import PROTOCOL, Received
from sipgw.transport.hep_receiver import Way

_TRANSPORTS = {6: "tcp", 22: "tls", 132: "sctp", 50: "ws"}


class CapturedSocket:
    """Where a captured message came in: the socket for HEP, from which no SIP is sent."""

    advertised_host = ""
    advertised_port = 0
    tag = ""
    tos = None

    def __init__(self, way: Way, refuse: Callable[[], None]) -> None:
        self.transport = way.transport
        self.host, self.port = way.target
        self._refuse = refuse

    def flow(self, host: str, port: int) -> CapturedFlow:
        """A way on which nothing goes."""
        return CapturedFlow(self, self.transport, host, port)

    def send(self, data: bytes, host: str, port: int) -> None:
        """Send nothing."""
        self._refuse()

    def refuse(self) -> None:
        """Tell that something was not sent."""
        self._refuse()

    def __str__(self) -> str:
        return f"{self.transport}:{self.host}:{self.port}"


class CapturedFlow:
    """Where a captured message came from (``sip.actions.Flow``)."""

    __slots__ = ("host", "port", "reconnects", "socket", "transport")

    reliable = False
    id = None
    connected = True
    proxy_header = None
    refused = "was captured: nothing is sent for it"

    def __init__(self, socket: CapturedSocket, transport: str, host: str, port: int) -> None:
        self.socket = socket
        self.transport = transport
        self.host = host
        self.port = port
        self.reconnects = False

    def send(self, data: bytes) -> bool:
        """Send nothing, and say so."""
        self.socket.refuse()
        return False


def captured_flow(frame: Received, way: Way, refuse: Callable[[], None]) -> CapturedFlow:
    """The way of the message in ``frame``; ``refuse`` is told when somebody wants to send on it."""
    transport = _TRANSPORTS.get(frame.number(PROTOCOL), "udp")
    return CapturedFlow(CapturedSocket(way, refuse), transport, *frame.source)


def heard_flow(source: tuple[str, int], target: tuple[str, int], refuse: Callable[[], None]) -> CapturedFlow:
    """The way of a datagram that was heard on its way from ``source`` to ``target``."""
    return CapturedFlow(CapturedSocket(Way("udp", source, target), refuse), "udp", *source)
