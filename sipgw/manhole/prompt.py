"""Management commands for people: a prompt in a terminal, lines without one, one command of ``ssh host command``.

Each command is logged with its user before it runs. A command is written as for ``sipgw mi``: ``log_level level=4``; with
``--json`` behind it the answer is JSON; ``help`` lists them all."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Any

from twisted.conch.recvline import HistoricRecvLine
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from sipgw.interfaces import Server
from sipgw.manhole.keys import Identity
from sipgw.manhole.show import plain, show
from sipgw.manhole.words import complete, describe, read_words, usage
from sipgw.mi.jsonrpc import INVALID_PARAMS, NOT_FOUND, MIError, encode
from sipgw.script.errors import guess

PROMPT = "mi> "
ENDS = ("quit", "exit")
MAX_LINE = 1 << 20
"""Octets of one line."""
MAX_LINES = 1000
"""Lines that may wait for their turn."""
MAX_UNREAD = 1 << 18
"""Octets of answers that a client has not read, with which the next command waits."""
PAUSE = 0.1
"""Seconds between two looks at whether it has."""


async def answer(server: Server, who: Identity, line: str) -> tuple[int, str]:
    """Run one command; an exit status and what is to be read."""
    server.user.log(2, f"manhole: {who.name}: {line}")
    try:
        words = shlex.split(line)
    except ValueError as error:
        return 1, f"{error}"
    as_json = words[-1:] == ["--json"]
    words = words[: len(words) - as_json]
    if not words:
        return 0, ""
    if words == ["help"]:
        return 0, "\n".join(sorted(server.commands.names()))
    try:
        described = describe(server.commands.find(words[0]))
    except MIError as error:
        if error.code != NOT_FOUND:
            return 1, f"{plain(error.message)}: {plain(error.data)}"
        known = server.commands.names()
        hint = guess(words[0], [*known, *(name.partition(":")[2] for name in known)])
        return 1, f"there is no command {plain(words[0])}{'; ' + hint if hint else ''}; help lists them all"
    try:
        value = await server.commands.call(words[0], read_words(described, words[1:]))
        return 0, encode(value).decode() if as_json else show(_whole(value))
    except (MIError, ValueError) as error:
        if isinstance(error, ValueError):
            error = MIError(INVALID_PARAMS, str(error))
        more = "" if error.data is None else f": {plain(error.data)}"
        text = f"{plain(error.message)}{more} ({error.code})"
        return 1, f"{text}\n{usage(described)}" if error.code == INVALID_PARAMS else text


def _whole(value: Any) -> Any:
    """A value with lists where a command gave iterators."""
    if isinstance(value, dict):
        return {key: _whole(member) for key, member in value.items()}
    if value is None or isinstance(value, str | int | float):
        return value
    return [_whole(member) for member in value]


def candidates(server: Server, text: str) -> list[str]:
    """What the last word of ``text`` may become."""
    words = text.split()
    last = words.pop() if words and not text[-1:].isspace() else ""
    try:
        if words:
            found = complete(describe(server.commands.find(words[0])), words[1:])
        else:
            names = server.commands.names()
            found = [*names, *ENDS, "help"] + ([] if ":" in last else sorted({name.partition(":")[2] for name in names}))
    except MIError:
        return []
    return sorted({each for each in found if each.startswith(last)})


class CompletingLine(HistoricRecvLine):
    """A line that is edited in a terminal, with a history, completed by the tabulator."""

    lineBuffer: list[bytes]
    lineBufferIndex: int
    terminal: Any

    def connectionMade(self) -> None:
        """Know the keys of every shell."""
        super().connectionMade()
        for key, call in (
            (b"\x01", self.handle_HOME), (b"\x05", self.handle_END), (b"\x04", self.end_of_input), (b"\x0c", self.clear),
        ):
            self.keyHandlers[key] = call

    def end_of_input(self) -> None:
        """Ctrl-D: the end, if nothing is written."""
        if self.lineBuffer:
            self.terminal.write(b"\a")
        else:
            self.terminal.loseConnection()

    def clear(self) -> None:
        """Ctrl-L: an empty screen."""
        self.terminal.eraseDisplay()
        self.terminal.cursorHome()
        self.drawInputLine()

    def found(self, text: str) -> tuple[str, list[str]]:
        """What the text before the cursor may become: its last word, and the words that begin so."""
        raise NotImplementedError

    def handle_TAB(self) -> None:
        """Complete as far as it is sure; show what there is if it is not."""
        text = b"".join(self.lineBuffer[: self.lineBufferIndex]).decode("utf-8", "replace")
        last, words = self.found(text)
        first, end = (words[0], words[-1]) if words else ("", "")
        common = next((at for at, (a, b) in enumerate(zip(first, end, strict=False)) if a != b), min(len(first), len(end)))
        rest = first[len(last) : common]
        if len(words) == 1 and not rest.endswith(("=", "(", ".")):
            rest += " " if words[0][-1:] not in "=(." and self.spaced else ""
        if rest:
            for char in rest.encode():
                self.characterReceived(bytes([char]), False)
        elif len(words) > 1:
            self.terminal.nextLine()
            self.terminal.write("  ".join(words[:100]))
            self.terminal.nextLine()
            self.drawInputLine()

    spaced = True
    """Whether a space follows what is complete."""


class Prompt(CompletingLine):
    """The prompt of management commands."""

    ps = (PROMPT.encode(), b"... ")

    def __init__(self, server: Server, who: Identity) -> None:
        super().__init__()
        self._server = server
        self._who = who

    def connectionMade(self) -> None:
        """Say where one is."""
        super().connectionMade()
        self.keyHandlers[b"\x03"] = self.interrupted

    def interrupted(self) -> None:
        """Ctrl-C: begin the line anew."""
        self.lineBuffer = []
        self.lineBufferIndex = 0
        self.terminal.nextLine()
        self.terminal.write(self.ps[0])

    def found(self, text: str) -> tuple[str, list[str]]:
        """Commands and the names of their parameters."""
        return (text.split() or [""])[-1] if text[-1:].strip() else "", candidates(self._server, text)

    def lineReceived(self, line: bytes) -> None:
        """Run a command."""
        text = line.decode("utf-8", "replace").strip()
        if text in ENDS:
            self.terminal.loseConnection()
        elif not text:
            self.terminal.write(self.ps[0])
        else:
            Deferred.fromCoroutine(answer(self._server, self._who, text)).addCallbacks(self._answered, self._broken)

    def _answered(self, result: tuple[int, str]) -> None:
        for line in result[1].splitlines():
            self.terminal.write(line)
            self.terminal.nextLine()
        self.terminal.write(self.ps[0])

    def _broken(self, failure: Failure) -> None:
        self._server.user.broken(failure.value)
        self._answered((1, "the server failed; its log says how"))


class Lines(Protocol):
    """Commands line by line, for programs and pipes; each is answered before the next one runs.

    ``waiting()`` says how many octets the client has not read."""

    transport: Any

    def __init__(self, server: Server, who: Identity, waiting: Callable[[], int] = lambda: 0) -> None:
        self._server = server
        self._who = who
        self._waiting = waiting
        self._turn = DeferredLock()
        self._lost = False
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        """Take what comes, line by line."""
        if self._lost:
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self.line_received(line)
        if len(self._buffer) > MAX_LINE or len(self._turn.waiting) > MAX_LINES:
            self._server.user.log(1, f"manhole: {self._who.name} sends more than is answered, and is left")
            self._buffer = b""
            self._lost = True
            self.transport.loseConnection()

    def line_received(self, line: bytes) -> None:
        """Run a command."""
        text = line.decode("utf-8", "replace").strip()
        if text in ENDS:
            self.finish()
        elif text:
            self._turn.run(lambda: Deferred.fromCoroutine(self._run(text)))

    async def _run(self, text: str) -> None:
        while not self._lost and self._waiting() > MAX_UNREAD:
            await deferLater(self._server.reactor, PAUSE)
        if self._lost:
            return
        try:
            _, shown = await answer(self._server, self._who, text)
        except Exception as error:
            self._server.user.broken(error)
            shown = "the server failed; its log says how"
        if not self._lost:
            self.transport.write(f"{shown}\n".encode("utf-8", "replace"))

    def finish(self) -> None:
        """End once all is answered."""
        self._turn.run(lambda: self.transport.loseConnection())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody reads any more."""
        self._lost = True
