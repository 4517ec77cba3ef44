"""Cut messages out of a stream: TCP and TLS (RFC 3261 18.3), with the CRLF keep-alives of RFC 5626 4.4.1.

A ``Framer`` is fed what comes, in pieces of any size, and gives messages whole. The head is cut by the same code that
reads it, so framing and reading cannot disagree about where a message ends. Time is the only limit on slowness: how
long a peer may take is the business of who feeds.

After a fault that leaves the end of a message unknown, ``broken`` is true and nothing more is read: what follows could
be anything (RFC 4475 3.3.9, and request smuggling). A message that is malformed but framed is one item of its own.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from sipgw.sip.errors import MalformedMessage, Misuse
from sipgw.sip.head import body_length, cut_head, find_end
from sipgw.sip.limits import LIMITS, Limits
from sipgw.sip.message import Request, Response, build, check_sizes

__all__ = ["PING", "PONG", "Framer", "Item"]

Item: TypeAlias = Request | Response | MalformedMessage | bytes
"""What a stream gives: a message, what cannot be read, or ``PING``."""

PING: Final = b"\r\n\r\n"
"""What a client sends between messages to ask whether the flow is alive (RFC 5626 3.5.1)."""

PONG: Final = b"\r\n"
"""What is sent back at once."""


class Framer:
    """Holds what came of the next message of one stream."""

    __slots__ = ("_begin", "_buffer", "_error", "_head", "_pending_crlf", "_searched", "_size", "broken", "limits")

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.broken = False
        self._buffer = bytearray()
        self._searched = 0  # no end of head begins before this
        self._head: tuple[list[str], list[str]] | None = None  # lines and names, once the head is complete
        self._error = ""
        self._begin = 0
        self._size = 0
        self._pending_crlf = 0  # octets of a ping that has come half

    @property
    def empty(self) -> bool:
        """True between messages: nothing but keep-alives has come since the last one."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Item]:
        """Take what has come; returns what is complete, in order.

        Items are messages, ``PING`` for each ping to be answered by ``PONG``, and ``MalformedMessage`` for what
        cannot be read (``message``: enough to answer it, or ``None``). Look at ``broken`` afterwards."""
        if self.broken:
            raise Misuse("fed after a fault: close the connection")
        items: list[Item] = []
        self._buffer += data
        while self._buffer and not self.broken:
            if self._head is None and not (self._pass_keepalives(items) and self._cut(items)):
                break
            if len(self._buffer) < self._begin + self._size:
                break
            items.append(self._finish())
        return items

    def _pass_keepalives(self, items: list[Item]) -> bool:
        """Take CR and LF off the front; false if nothing else has come yet."""
        buffer = self._buffer
        if self._searched or buffer[0] not in b"\r\n":
            self._pending_crlf = 0
            return True
        rest = len(buffer.lstrip(b"\r\n"))
        breaks = self._pending_crlf + buffer.count(b"\n", 0, len(buffer) - rest)
        del buffer[:len(buffer) - rest]
        pings = breaks // 2
        items.extend([PING] * min(pings, self.limits.pings))
        self._pending_crlf = breaks % 2 if not rest else 0
        return rest > 0

    def _cut(self, items: list[Item]) -> bool:
        """Cut the head once it is complete; false if it is not, or if the stream is broken."""
        buffer = self._buffer
        begin = find_end(buffer, self._searched)
        if begin < 0:
            self._searched = max(len(buffer) - 3, 1)
            if len(buffer) > self.limits.message:
                self._break(items, MalformedMessage("Message Too Large", 513))
            return False
        try:
            lines, names, _, self._error = cut_head(bytes(buffer[:begin]), self.limits)
        except MalformedMessage as error:
            self._break(items, error)
            return False
        try:
            size = body_length(lines, names, self.limits)
            if size < 0:
                raise MalformedMessage("Missing Content-Length")
            if size > self.limits.body or begin + size > self.limits.message:
                raise MalformedMessage("Message Too Large", 513)
        except MalformedMessage as error:
            self._break(items, self._name_message(error, lines, names))
            return False
        self._head = lines, names
        self._begin = begin
        self._size = size
        return True

    def _break(self, items: list[Item], error: MalformedMessage) -> None:
        self.broken = True
        self._buffer.clear()
        items.append(error)

    def _name_message(self, error: MalformedMessage, lines: list[str], names: list[str]) -> MalformedMessage:
        """Give the error as much of the message as can be answered."""
        try:
            message = build(lines, names, b"", self.limits)
        except MalformedMessage as worse:
            error.message = worse.message
        else:
            error.message = message
        return error

    def _finish(self) -> Request | Response | MalformedMessage:
        """Make the message whose last octet has come, and make ready for the next."""
        assert self._head is not None
        lines, names = self._head
        end = self._begin + self._size
        body = bytes(self._buffer[self._begin:end])
        del self._buffer[:end]
        self._head = None
        self._searched = 0
        try:
            message = build(lines, names, body, self.limits)
            if self._error:
                raise MalformedMessage(self._error, message=message)
            check_sizes(message)
        except MalformedMessage as error:
            return error
        return message
