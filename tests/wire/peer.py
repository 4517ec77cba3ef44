"""Who stands at both ends of a server on the wire: it sends octets as they are, answers what is relayed, and notes it all.

There are no sleeps. After what is to be tried a **marker** follows on the same way, an OPTIONS that must be answered. When it
is, the server lives, and everything it had to say about the message before has arrived, for a wire on loopback keeps the
order. A relayed marker comes by the next hop, so that this is true there too.

A response without rport goes to the port of the Via (RFC 3261 18.2.2). So the peer has an address of its own on the loopback
network, and listens at the ports that the torture messages name."""

from __future__ import annotations

import os
import re
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.children import HOST, PATIENCE

PORTS = (5060, 5050, 6050, 19823)
"""The ports of Vias in torture messages; the first is that of a Via without one."""
RELAYED, RELAYED_INVITE = 299, 499
"""What the next hop answers, so that it cannot be taken for an answer of the server."""

_COPIED = re.compile(rb"(?:via|v|from|f|to|t|call-id|i|cseq)[ \t]*:", re.IGNORECASE)
_ADDRESS = re.compile(rb"(?:from|f|to|t|call-id|i)[ \t]*:", re.IGNORECASE)
_TO = re.compile(rb"(?:to|t)[ \t]*:", re.IGNORECASE)
_VIA = re.compile(rb"(?:via|v)[ \t]*:", re.IGNORECASE)
_CSEQ = re.compile(rb"cseq[ \t]*:", re.IGNORECASE)
_TAG = re.compile(rb";\s*tag\s*=", re.IGNORECASE)
_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*([0-9]+)", re.IGNORECASE | re.MULTILINE)
_LINE_END = re.compile(rb"\r\n(?![ \t])")


def bracketed(host: str) -> str:
    """An address as it stands in a URI or a Via."""
    return f"[{host}]" if ":" in host else host


def head_lines(message: bytes) -> list[bytes]:
    """The lines of the head, folds kept inside."""
    return _LINE_END.split(message.partition(b"\r\n\r\n")[0])


def header(message: bytes, name: str) -> list[str]:
    """The values of the headers that are written exactly so."""
    prefix = f"{name}: ".encode()
    return [line[len(prefix) :].decode() for line in head_lines(message) if line.startswith(prefix)]


def status_of(message: bytes) -> int:
    """The status of a response, 0 of a request."""
    return int(message[8:11]) if message.startswith(b"SIP/2.0 ") else 0


def is_invite(message: bytes) -> bool:
    """Whether a response belongs to an INVITE."""
    return any(line.endswith(b"INVITE") for line in head_lines(message) if _CSEQ.match(line))


def is_marker(message: bytes) -> bool:
    """Whether a message is a marker, or the answer to one, and nothing else."""
    return [call.partition("-")[0] for call in header(message, "Call-ID")] == ["marker"]


def answer_to(request: bytes, start: bytes) -> bytes:
    """A response to ``request`` with that start line."""
    lines = [line for line in head_lines(request) if _COPIED.match(line)]
    lines = [line + b";tag=peer" if _TO.match(line) and not _TAG.search(line) else line for line in lines]
    return b"\r\n".join([start, *lines, b"Content-Length: 0", b"", b""])


def usual_answer(request: bytes) -> bytes:
    """What the next hop answers, if nobody wants anything else."""
    return answer_to(request, b"SIP/2.0 %d Seen" % (RELAYED_INVITE if request.startswith(b"INVITE ") else RELAYED))


def ack_to(request: bytes, response: bytes) -> bytes:
    """The ACK to a final response that is no success (RFC 3261 17.1.1.3): the top Via of the request, To of the response."""
    words = head_lines(request)[0].split()
    via = next(line for line in head_lines(request) if _VIA.match(line)).partition(b",")[0]
    lines = [line for line in head_lines(response) if _ADDRESS.match(line)]
    cseq = next(line for line in head_lines(response) if _CSEQ.match(line)).replace(b"INVITE", b"ACK")
    return b"\r\n".join([b"ACK %s SIP/2.0" % words[1], via, *lines, cseq, b"Content-Length: 0", b"", b""])


@dataclass
class Seen:
    """What one message led to: responses that came back, requests and ACKs that arrived at the next hop, whether the server
    has closed the connection."""

    request: bytes
    replies: list[bytes] = field(default_factory=list)
    relayed: list[bytes] = field(default_factory=list)
    acks: list[bytes] = field(default_factory=list)
    closed: bool = False
    unmarked: bool = False
    """Whether something was sent to the server since the last marker."""

    @property
    def finals(self) -> list[int]:
        """The final statuses that came."""
        return [status for status in map(status_of, self.replies) if status >= 200]


class Stream:
    """One TCP connection; each complete message goes to ``take(message)``."""

    def __init__(self, opened: socket.socket, take: Callable[[bytes], None]) -> None:
        opened.setblocking(False)
        self.socket = opened
        self.take = take
        self.buffer = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send, unless the other side has gone."""
        try:
            self.socket.sendall(data)
        except OSError:
            pass

    def read(self) -> None:
        """Take what has come; a message without Content-Length ends the test."""
        try:
            data = self.socket.recv(65535)
        except ConnectionError:
            data = b""
        self.closed = not data
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            end = self.buffer.index(b"\r\n\r\n") + 4
            found = _LENGTH.search(self.buffer[:end])
            if found is None:
                raise AssertionError(f"a message without Content-Length on a stream (RFC 3261 18.3): {self.buffer[:end]!r}")
            end += int(found[1])
            if len(self.buffer) < end:
                return
            message, self.buffer = self.buffer[:end], self.buffer[end:]
            self.take(message)


class Peer:
    """A client and a next hop, on addresses of 127.0.0.0/8 that nobody else uses, or on ``::1``.

    ``server``: the address of the server; ``next_hop``: where the next hop listens, over UDP and TCP."""

    def __init__(self, server: str = HOST) -> None:
        self.server = server
        self.family = socket.AF_INET6 if ":" in server else socket.AF_INET
        self.count = 0
        self.marker = ""
        self.marker_uri = f"sip:{bracketed(server)}"
        self.answered = False
        """Whether the last marker is."""
        self.answers: Callable[[bytes], list[bytes]] = lambda request: [usual_answer(request)]
        """What the next hop answers."""
        self.seen = Seen(b"")
        self.send: Callable[[bytes], Any] = len
        """Sends to the server, on the way that is being tried."""
        self.selector = selectors.DefaultSelector()
        self.host, self.udp = self._bind() if server == HOST else self._bind_alone(server)
        for each in self.udp:
            self._watch(each, self._datagram)
        next_host = self.host.rpartition(".")[0] + ".254" if server == HOST else server
        hop = socket.socket(self.family, socket.SOCK_DGRAM)
        hop.bind((next_host, 0))
        self._watch(hop, self._relayed_datagram)
        port: int = hop.getsockname()[1]
        self._watch(socket.create_server((next_host, port), family=self.family), self._accept)
        self.next_hop = f"{bracketed(next_host)}:{port}"

    @staticmethod
    def _bind() -> tuple[str, list[socket.socket]]:
        """Sockets at all of ``PORTS`` of one address, the first that has them free."""
        pid = os.getpid()
        for attempt in range(100):
            host = f"127.{pid % 199 + 40}.{(pid // 199 + attempt) % 256}.7"
            made: list[socket.socket] = []
            try:
                for port in PORTS:
                    made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    made[-1].bind((host, port))
            except OSError:
                for each in made:
                    each.close()
            else:
                return host, made
        raise AssertionError("no address of the loopback network has the ports free")

    def _bind_alone(self, host: str) -> tuple[str, list[socket.socket]]:
        """The same at an address that there is only one of; whoever has it may go."""
        end = time.monotonic() + PATIENCE
        while True:
            made = []
            try:
                for port in PORTS:
                    made.append(socket.socket(self.family, socket.SOCK_DGRAM))
                    made[-1].bind((host, port))
                return host, made
            except OSError:
                for each in made:
                    each.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def _watch(self, opened: socket.socket, call: Callable[[socket.socket], None]) -> None:
        opened.setblocking(False)
        self.selector.register(opened, selectors.EVENT_READ, call)

    def close(self) -> None:
        """Let all sockets go."""
        for key in list(self.selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self.selector.close()

    # ---- trying one message ----

    def over_udp(self, message: bytes, port: int) -> Seen:
        """Send one datagram to ``port`` of the server; what it leads to."""
        client = self.udp[0]
        self.send = lambda data: client.sendto(data, (self.server, port))
        return self._try(message, "UDP")

    def over_tcp(self, message: bytes, port: int) -> Seen:
        """Send octets on a connection of their own; what they lead to."""
        stream = self._connect(port)
        seen = self._try(message, "TCP", stream)
        if stream.closed:
            # what was relayed may still be on its way: a marker on another connection comes by the same next hop
            stream = self._connect(port)
            self._mark("TCP", stream)
        self._drop(stream)
        return seen

    def _connect(self, port: int) -> Stream:
        stream = Stream(socket.create_connection((self.server, port), PATIENCE, (self.host, 0)), self._response)
        self._watch(stream.socket, lambda _opened: self._read(stream))
        self.send = stream.send
        return stream

    def _try(self, message: bytes, transport: str, stream: Stream | None = None) -> Seen:
        """Send ``message`` and a marker; what was sent that wants no answer, an ACK, is followed by a marker too."""
        self.seen = seen = Seen(message)
        self.send(message)
        seen.unmarked = True
        while seen.unmarked and not seen.closed:
            seen.unmarked = False
            seen.closed = not self._mark(transport, stream)
        return seen

    def _mark(self, transport: str, stream: Stream | None) -> bool:
        """Send markers until the last is answered, and take all that has come before; False if the connection was closed.

        There are two, since the first may be taken for the rest of a message whose Content-Length is not true."""
        self.answered = False
        for _ in range(2):
            self.count += 1
            self.marker = f"marker-{os.getpid()}-{self.count}"
            own, server = bracketed(self.host), bracketed(self.server)
            text = (
                f"OPTIONS {self.marker_uri} SIP/2.0\r\nVia: SIP/2.0/{transport} {own};branch=z9hG4bK{self.marker}\r\n"
                f"From: <sip:marker@{own}>;tag=m\r\nTo: <sip:{server}>\r\nCall-ID: {self.marker}\r\nCSeq: 1 OPTIONS\r\n"
                "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
            )
            self.send(text.encode())
        end = time.monotonic() + PATIENCE
        while not self.answered and not (stream is not None and stream.closed):
            if time.monotonic() > end:
                raise AssertionError(f"the server does not answer after {self.seen.request[:80]!r}")
            self._turn(0.1)
        while self._turn(0):
            pass
        return self.answered

    def _turn(self, patience: float) -> bool:
        """Take what has arrived; False if nothing has."""
        events = self.selector.select(patience)
        for key, _ in events:
            key.data(key.fileobj)
        return bool(events)

    # ---- the client ----

    def _datagram(self, client: socket.socket) -> None:
        self._response(client.recv(65535))

    def _response(self, response: bytes) -> None:
        """Note a response; a final one to an INVITE that is no success is acknowledged."""
        if is_marker(response):
            if status_of(response) >= 200 and header(response, "Call-ID") == [self.marker]:
                self.answered = True
            return
        self.seen.replies.append(response)
        if status_of(response) >= 300 and is_invite(response):
            self.send(ack_to(self.seen.request, response))
            self.seen.unmarked = True

    # ---- the next hop ----

    def _relayed_datagram(self, hop: socket.socket) -> None:
        request, address = hop.recvfrom(65535)
        self._relayed(request, lambda data: hop.sendto(data, address))

    def _accept(self, listener: socket.socket) -> None:
        opened, _ = listener.accept()
        stream = Stream(opened, lambda request: self._relayed(request, stream.send))
        self._watch(opened, lambda _opened: self._read(stream))

    def _relayed(self, request: bytes, answer: Callable[[bytes], Any]) -> None:
        """Note and answer what the server sent on."""
        if request.startswith(b"ACK "):
            self.seen.acks.append(request)
            return
        if is_marker(request):
            answer(usual_answer(request))
            return
        self.seen.relayed.append(request)
        for response in self.answers(request):
            answer(response)

    # ---- both ----

    def _read(self, stream: Stream) -> None:
        stream.read()
        if stream.closed:
            self.selector.unregister(stream.socket)
            stream.socket.close()

    def _drop(self, stream: Stream) -> None:
        if not stream.closed:
            self.selector.unregister(stream.socket)
            stream.socket.close()
