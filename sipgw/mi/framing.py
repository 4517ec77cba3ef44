"""The requests in what arrives on the FIFO: ``:reply_name:{json}``, one after another. Pure.

A newline after the JSON is not needed (opensips-cli writes none): the closing bracket ends a request, wherever the reads of the
pipe have cut it. What is no request is given out too, with the reason, and the next one is found again: behind the next newline,
or where ``:name:{`` begins a line outside a string."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sipgw.mi.jsonrpc import LIMIT

MAX_NAME = 255
"""Octets of a reply name: those of a file name."""

_SPACE = b" \t\r\n\0"
_TOKEN = re.compile(rb'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|[{}\[\]]|\n:[^:\n/"{}\[\],]*:[ \t]*[{\[]|"', re.DOTALL)


@dataclass(frozen=True, slots=True)
class FifoRequest:
    """One request: ``reply`` names the FIFO for the answer, empty for none. ``fault``: why it is none and is not to be run."""

    reply: str
    body: bytes
    fault: str = ""


class FifoFraming:
    """Cuts the stream of one FIFO into requests."""

    def __init__(self) -> None:
        self._buffer = b""
        self._body = -1
        """Where the body begins in the buffer, once the reply name is known."""
        self._scanned = 0
        self._depth = 0
        self._skipping = False

    @property
    def pending(self) -> bool:
        """Whether a request has begun and not ended."""
        return bool(self._buffer) or self._skipping

    def feed(self, data: bytes) -> list[FifoRequest]:
        """Take the next octets; give out the requests that they complete."""
        self._buffer += data
        found = []
        while (request := self._next()) is not None:
            found.append(request)
        if len(self._buffer) > LIMIT + MAX_NAME + 2:
            found += self._give_up()
            self._skipping = True
        return found

    def quiet(self) -> list[FifoRequest]:
        """Nothing came for a while: whatever has begun is not going to end; give it out as it is."""
        if self._skipping:
            self._skipping = False
            self._buffer = b""
        return self._give_up() if self._buffer else []

    def _give_up(self) -> list[FifoRequest]:
        if self._body < 0:
            return [self._garbage(len(self._buffer))]
        return [self._cut(len(self._buffer))]

    def _next(self) -> FifoRequest | None:
        if self._skipping:
            at = re.search(rb"\n:[^:\n/]*:[ \t]*[{\[]", self._buffer)
            if at is None:
                self._buffer = self._buffer[-2 * MAX_NAME :]
                return None
            self._buffer = self._buffer[at.start() + 1 :]
            self._skipping = False
        if self._body < 0:
            self._buffer = self._buffer.lstrip(_SPACE)
            if not self._buffer:
                return None
            end = self._buffer.find(b":", 1)
            line = self._buffer.find(b"\n")
            if not self._buffer.startswith(b":") or -1 < line < end or (end < 0 and line >= 0):
                return self._garbage(line + 1 or len(self._buffer))
            if end < 0:
                return self._garbage(len(self._buffer)) if len(self._buffer) > 2 * MAX_NAME else None
            self._body = self._scanned = end + 1
            self._depth = 0
        return self._scan()

    def _scan(self) -> FifoRequest | None:
        """Look for the end of the body; None when it has not come yet."""
        start = self._body
        while self._buffer[start : start + 1] in (b" ", b"\t"):
            start += 1
        if start == len(self._buffer):
            return None
        if self._buffer[start] not in b"{[\n\r":
            line = self._buffer.find(b"\n", start)
            return self._cut(line + 1) if line >= 0 else None
        for token in _TOKEN.finditer(self._buffer, self._scanned):
            first = token.group()[:1]
            if first == b"\n":
                return self._cut(token.start() + 1)
            if token.group() == b'"':  # a string that has not ended: it will, unless a line ended in it
                line = self._buffer.find(b"\n", token.start())
                return self._cut(line + 1) if line >= 0 else None
            self._scanned = token.end()
            if first in b"{[":
                self._depth += 1
            elif first in b"}]":
                self._depth -= 1
                if self._depth <= 0:
                    return self._cut(token.end())
        return None

    def _cut(self, end: int) -> FifoRequest:
        """Take the request that ends before ``end`` out of the buffer."""
        name, body = self._buffer[1 : self._body - 1], self._buffer[self._body : end].strip(_SPACE)
        self._buffer = self._buffer[end:]
        self._body = -1
        fault = ""
        if b"/" in name or b"\0" in name or name in (b".", b"..") or len(name) > MAX_NAME:
            fault = "the name of the reply FIFO is no plain file name"
        return FifoRequest(name.decode("utf-8", "surrogateescape"), body, fault)

    def _garbage(self, end: int) -> FifoRequest:
        body, self._buffer = self._buffer[:end], self._buffer[end:]
        return FifoRequest("", body, "a request must begin with ':'")
