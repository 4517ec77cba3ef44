"""A telephone of a few lines: an address, UDP or TCP, and the dialogs that it makes (RFC 3261 12)."""

from __future__ import annotations

import re
import selectors
import socket
import time
from secrets import token_hex
from typing import Any

from tests.children import PATIENCE
from tests.wire.peer import Stream, answer_to, head_lines, header, status_of

_URI = re.compile(r"sip:(?:[^@<>]*@)?(\[[^]]*\]|[^:;>]*)(?::(\d+))?((?:;[^>]*)?)")


def bracketed(host: str) -> str:
    """``host`` as it stands in a URI."""
    return f"[{host}]" if ":" in host else host


def place_of(uri: str) -> tuple[str, int, str]:
    """Host, port and transport of a URI."""
    found = _URI.search(uri)
    assert found is not None, uri
    params = found[3].lower()
    return found[1].strip("[]"), int(found[2] or 5060), "tcp" if ";transport=tcp" in params else "udp"


class Phone:
    """A telephone at ``host`` and a free port; ``place``: what stands in its Via and Contact.

    ``source``: the address from which the last message came."""

    def __init__(self, host: str, transport: str = "udp") -> None:
        self.host = host
        self.transport = transport
        self.selector = selectors.DefaultSelector()
        self.inbox: list[tuple[bytes, Any, tuple[str, int]]] = []
        self.streams: dict[tuple[str, int], Stream] = {}
        self.source = ("", 0)
        self.back: Any = None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        self.socket = socket.socket(family, kind)
        self.socket.bind((host, 0))
        if transport == "tcp":
            self.socket.listen()
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.place = f"{bracketed(host)}:{self.port}"
        self.selector.register(self.socket, selectors.EVENT_READ, self._datagram if transport == "udp" else self._accept)

    def uri(self, user: str) -> str:
        """Its Contact."""
        return f"sip:{user}@{self.place}" + (";transport=tcp" if self.transport == "tcp" else "")

    def close(self) -> None:
        """Let all go."""
        for stream in self.streams.values():
            stream.socket.close()
        self.selector.close()
        self.socket.close()

    # ---- the wire ----

    def _datagram(self) -> None:
        data, address = self.socket.recvfrom(65535)
        self.inbox.append((data, lambda text: self.socket.sendto(text, address), address[:2]))

    def _accept(self) -> None:
        opened, address = self.socket.accept()
        self._stream(opened, address[:2])

    def _stream(self, opened: socket.socket, address: tuple[str, int]) -> Stream:
        stream = Stream(opened, lambda data: self.inbox.append((data, stream.send, address)))
        self.streams[address] = stream

        def read() -> None:
            stream.read()
            if stream.closed:
                self.selector.unregister(opened)
                opened.close()
                del self.streams[address]

        self.selector.register(opened, selectors.EVENT_READ, read)
        return stream

    def send(self, text: str, host: str, port: int) -> None:
        """Send a message to an address."""
        if self.transport == "udp":
            self.socket.sendto(text.encode(), (host, port))
            return
        stream = self.streams.get((host, port))
        if stream is None:
            stream = self._stream(socket.create_connection((host, port), PATIENCE), (host, port))
        stream.send(text.encode())

    def receive(self) -> bytes:
        """The next message."""
        end = time.monotonic() + PATIENCE
        while not self.inbox:
            if time.monotonic() > end:
                raise AssertionError(f"nothing comes to {self.place}")
            for key, _ in self.selector.select(0.1):
                key.data()
        data, self.back, self.source = self.inbox.pop(0)
        return data

    # ---- SIP ----

    def request(self, method: str, uri: str, headers: list[str], cseq: int = 1) -> str:
        """A request of this telephone."""
        lines = [
            f"{method} {uri} SIP/2.0",
            f"Via: SIP/2.0/{self.transport.upper()} {self.place};rport;branch=z9hG4bK{token_hex(8)}",
            "Max-Forwards: 70",
            f"CSeq: {cseq} {method}",
            *headers,
            "Content-Length: 0\r\n\r\n",
        ]
        return "\r\n".join(lines)

    def invite(self, callee: Phone, user: str, host: str, port: int) -> bytes:
        """Call ``callee`` through a server; the INVITE as it arrives there."""
        self.call = [f"From: <{self.uri('caller')}>;tag=one", f"To: <{callee.uri(user)}>", f"Call-ID: {token_hex(8)}"]
        contact = f"Contact: <{self.uri('caller')}>"
        self.send(self.request("INVITE", callee.uri(user), [*self.call, contact]), host, port)
        return callee.receive()

    def answer(self, request: bytes, status: int = 200) -> None:
        """Answer the request that came last."""
        lines = [line for line in head_lines(request) if line.startswith(b"Record-Route: ")]
        text = answer_to(request, b"SIP/2.0 %d Answer" % status)
        more = [*lines, f"Contact: <{self.uri('callee')}>".encode(), b"Content-Length: 0"]
        self.back(text.replace(b"Content-Length: 0", b"\r\n".join(more)))

    def final(self) -> bytes:
        """The next final response."""
        while status_of(response := self.receive()) < 200:
            pass
        return response

    def follow(self, method: str, dialog: bytes, cseq: int, *, caller: bool, socket_of: dict[str, tuple[str, int]]) -> None:
        """Send a request in the dialog that ``dialog`` has made: the 2xx for the caller, the INVITE for the callee.

        It goes to the first value of the route set. ``socket_of``: where that is, if its host is not."""
        routes = header(dialog, "Record-Route")
        if caller:
            routes.reverse()
        [contact] = header(dialog, "Contact")
        [from_], [to], [call] = header(dialog, "From"), header(dialog, "To"), header(dialog, "Call-ID")
        if not caller:
            from_, to = f"{to};tag=peer", from_
        headers = [*(f"Route: {route}" for route in routes), f"From: {from_}", f"To: {to}", f"Call-ID: {call}"]
        host, port, _ = place_of(routes[0])
        host, port = socket_of.get(f"{host}:{port}", (host, port))
        self.send(self.request(method, contact.strip("<>"), headers, cseq), host, port)
