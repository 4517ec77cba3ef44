"""The ends of the load: what caller and callee read from and write to, over UDP or over one TCP connection each.

An end has ``fileno()`` for ``select``, ``receive()`` for the messages that have come, ``send(data)`` for one message."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"
BUFFER = 4 << 20
"""Octets asked of the kernel, for bursts."""
BURST = 64
"""Datagrams taken at most at once."""


class Datagrams:
    """A UDP port that talks to the server's."""

    def __init__(self, port: int, server: int) -> None:
        self.server = (HOST, server)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.socket.bind((HOST, port))
        self.socket.setblocking(False)

    def fileno(self) -> int:
        """The descriptor."""
        return self.socket.fileno()

    def receive(self) -> list[bytes]:
        """What has come, up to ``BURST`` messages."""
        found = []
        try:
            for _ in range(BURST):
                found.append(self.socket.recv(65536))
        except BlockingIOError:
            pass
        return found

    def send(self, data: bytes) -> None:
        """Send one message."""
        self.socket.sendto(data, self.server)


class Connection:
    """One TCP connection to the server, made by us; ``Accepted``: made by it."""

    def __init__(self, port: int, server: int) -> None:
        self.buffer = b""
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((HOST, port))
        self.begin(server)

    def begin(self, server: int) -> None:
        """Connect."""
        self.socket.connect((HOST, server))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """The descriptor."""
        return self.socket.fileno()

    def receive(self) -> list[bytes]:
        """The messages that have come whole; only to be called when ``select`` says so."""
        data = self.socket.recv(BUFFER)
        if not data:
            raise SystemExit("the server has closed a connection")
        self.buffer += data
        found = []
        start = 0
        while True:
            end = self.buffer.find(b"\r\n\r\n", start) + 4
            if end < 4:
                break
            at = self.buffer.lower().rindex(b"content-length:", start, end) + 15
            end += int(self.buffer[at : self.buffer.index(b"\r", at)])
            if end > len(self.buffer):
                break
            found.append(self.buffer[start:end])
            start = end
        self.buffer = self.buffer[start:]
        return found

    def send(self, data: bytes) -> None:
        """Send one message."""
        self.socket.sendall(data)


class Accepted(Connection):
    """One TCP connection that the server makes when it first has something for us."""

    def begin(self, server: int) -> None:
        """Listen."""
        self.listener = self.socket
        self.listener.listen(1)

    def receive(self) -> list[bytes]:
        """Take the connection; then as ever."""
        if self.socket is self.listener:
            self.socket, _ = self.listener.accept()
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return []
        return super().receive()
