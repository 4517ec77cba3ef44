"""What subscriptions ask of a transaction user, on a clock of the test's own."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from sipgw.sip.message import Request


class Layer:
    """Makes branches."""

    def __init__(self) -> None:
        self.number = 0

    def new_branch(self) -> str:
        self.number += 1
        return f"z9hG4bKxx{self.number}"


class Timer:
    """What ``after`` returns."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def cancel(self) -> None:
        if self.call.active():
            self.call.cancel()


class User:
    """As much of a transaction user as a notifier asks for."""

    def __init__(self) -> None:
        self.time = Clock()
        self.layer = Layer()
        self.replies: list[tuple[int, str, str]] = []
        self.lines: list[str] = []

    def clock(self) -> float:
        return float(self.time.seconds())

    def wall_clock(self) -> float:
        return 1_700_000_000.0 + self.clock()

    def find_socket(self, text: str) -> Any:
        return Flow.socket

    def after(self, seconds: float, call: Any) -> Timer:
        return Timer(self.time.callLater(seconds, call, 0.0))

    def reply(self, run: Any, status: int, reason: str, *, to_tag: str = "", headers: str = "") -> None:
        self.replies.append((status, to_tag, headers))

    def launch(self, coroutine: Any) -> None:
        try:
            coroutine.send(None)
        except StopIteration:
            pass

    def log_rarely(self, key: Any, level: int, text: str) -> None:
        self.lines.append(text)


class Socket:
    """Where a request came in."""

    transport, host, port, advertised_host, advertised_port = "udp", "192.0.2.1", 5060, "", 0


class Flow:
    """The way that it came."""

    socket, transport = Socket(), "udp"


class Run:
    """One pass of a request."""

    flow = Flow()

    def __init__(self, message: Request) -> None:
        self.message = message
        self.uri = message.uri
