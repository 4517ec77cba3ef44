"""The module mi_fifo: management commands through a named pipe (``:reply_name:{json}``, JSON-RPC 2.0)."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from sipgw.exports import every, param
from sipgw.interfaces import Server
from sipgw.mi.fifo import MAX_ANSWERS, FifoReader, FifoReply
from sipgw.mi.framing import FifoRequest
from sipgw.mi.owner import Owner, check_mode, group_id, user_id
from sipgw.modules._mi_trace import MiTrace


class MiFifo(MiTrace):
    """Takes management commands from a named pipe and answers on the pipe that each client names."""

    name = "mi_fifo"
    backend = "fifo"

    fifo_name: str = param("/tmp/opensips_fifo", "The pipe to create and to read")
    fifo_mode: int = param(0o660, "Its access mode, in octal", check=check_mode)
    fifo_user: int | str = param("", "Its owner, a name or a number; empty: whom sipgw runs as", check=user_id)
    fifo_group: int | str = param("", "Its group, a name or a number; empty: that of sipgw", check=group_id)
    reply_dir: str = param("/tmp/", "Where the clients' reply pipes stand; a request names one without a path")
    pretty_printing: int = param(0, "1: answers are indented, over several lines")

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._reader: FifoReader | None = None
        self._replies: set[FifoReply] = set()
        self._busy = 0
        """Requests that have no answer yet, or whose answer is on its way."""

    async def start(self) -> None:
        """Create the pipe and read it; ``OSError`` names the pipe that cannot be."""
        await super().start()
        try:
            self._open()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.fifo_name) from error

    def _open(self) -> None:
        owner = Owner(self.fifo_mode, user_id(self.fifo_user), group_id(self.fifo_group))
        self._reader = FifoReader(self.server.reactor, self.fifo_name, owner, self._take)
        if self._busy < MAX_ANSWERS:
            self._reader.resume()

    async def stop(self) -> None:
        """Remove the pipe; answers that nobody has read are given up."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        for reply in list(self._replies):
            reply.end("the server stops")

    @every(30)
    def look_after(self) -> None:
        """Create the pipe again if somebody has removed it."""
        if self._reader is not None and not os.path.lexists(self.fifo_name):
            self.server.user.log(1, f"mi_fifo: {self.fifo_name} has been removed; it is created again")
            self._reader.close()
            try:
                self._open()
            except OSError as error:
                self.server.user.log(-1, f"mi_fifo: {self.fifo_name}: {error.strerror}")

    def _take(self, request: FifoRequest) -> None:
        """Run one request, unless it is none."""
        if request.fault:
            self.server.user.log(-1, f"mi_fifo: {request.fault}: {_shown(request)}")
            return
        self._busy += 1
        if self._busy >= MAX_ANSWERS and self._reader is not None:
            self._reader.pause()
        Deferred.fromCoroutine(self._run(request)).addErrback(self._broken)

    async def _run(self, request: FifoRequest) -> None:
        answer = await self.answer_shown(request.body, bool(self.pretty_printing))
        if answer is None or not request.reply or self._reader is None:
            self._ended()
            return

        def done(fault: str) -> None:
            self._replies.discard(reply)
            if fault:
                self.server.user.log(1, f"mi_fifo: an answer was lost: {fault}")
            self._ended()

        reply = FifoReply(self.server.reactor, os.path.join(self.reply_dir, request.reply), answer, done)
        self._replies.add(reply)
        reply.start()

    def _broken(self, failure: Failure) -> None:
        self.server.user.log(-1, f"mi_fifo: {type(failure.value).__name__}: {failure.getErrorMessage()}")
        self._ended()

    def _ended(self) -> None:
        self._busy -= 1
        if self._busy == MAX_ANSWERS - 1 and self._reader is not None:
            self._reader.resume()


def _shown(request: FifoRequest) -> str:
    """The beginning of what came, for one line of the log."""
    return repr((request.reply.encode("utf-8", "surrogateescape") + b":" + request.body)[:80])
