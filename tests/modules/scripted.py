"""A server that runs one small script on a fake wire, and what the script logs."""

from __future__ import annotations

from sipgw.exports import Module
from sipgw.testing import Phone, WiredServer

HEAD = """
socket = udp:127.0.0.1:5060
log_level = -1
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
"""


def request(
    method: str = "OPTIONS", uri: str = "sip:bob@127.0.0.1", *, more: str = "", call_id: str = "call1", branch: str = "one"
) -> bytes:
    """A request from 192.0.2.1:5060; ``more`` are whole header lines."""
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n"
        f"From: <sip:alice@example.org>;tag=a1\r\nTo: <sip:bob@example.org>\r\nCall-ID: {call_id}\r\nCSeq: 1 {method}\r\n"
        f"{more}Content-Length: 0\r\n\r\n"
    ).encode()


class Scripted:
    """A server with a script: ``body`` is its request route, ``rest`` whatever else stands in it.

    What is said by ``xlog("L_ALERT", ...)`` is heard."""

    def __init__(self, body: str, *modules: str, rest: str = "", own: Module | None = None) -> None:
        loaded = "".join(f'loadmodule "{name}.so"\n' for name in modules)
        self.wired = WiredServer(f"{HEAD}{loaded}{rest}\nroute {{\n{body}\n}}\n")
        self.server = self.wired.server
        self.clock = self.wired.clock
        if own is not None:
            self.server.commands.add(own)  # type: ignore[attr-defined]
        self.phone = Phone(self.wired.wire, "192.0.2.1")

    def send(self, data: bytes | None = None) -> list[str]:
        """Let a request come, and give what the script logs."""
        self.phone.send(data or request(), self.wired.address)
        return self.logged()

    def logged(self) -> list[str]:
        """The lines of level L_ERR and worse since the last time."""
        lines = [text for level, text in self.wired.lines if level <= -1]
        self.wired.lines.clear()
        return lines
