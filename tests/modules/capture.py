"""A capture server for tests: a UDP socket of the loopback interface that reads HEP frames strictly."""

from __future__ import annotations

import socket

from tests.transport.hep_reader import Read, read


class Capture:
    """Listens at ``port``; ``frames`` takes what has come."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    def frames(self) -> list[Read]:
        """The frames that have come since the last time; loopback delivers within the call that sends."""
        found = []
        while True:
            try:
                found.append(read(self.socket.recv(65535)))
            except BlockingIOError:
                return found

    def close(self) -> None:
        """End."""
        self.socket.close()


def words(frames: list[Read]) -> list[str]:
    """Each frame in short: who to whom (the last digit of their ports), and how its payload begins."""
    said = []
    for frame in frames:
        start = (frame.payload or b"").split(b"\r\n")[0].decode().removeprefix("SIP/2.0 ").split(" ")[0]
        said.append(f"{frame.source[1] % 10}>{frame.target[1] % 10} {start}")
    return said
