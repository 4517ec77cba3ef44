"""Requests written to programs beside the server (voicemail, logs): ``t_write_req`` to a pipe, ``t_write_unix`` to a unix socket.

A request is 20 lines or more: the version, the command, what the request is, then additional ``name: value`` lines up to one of
"." alone, then the body (or "."). Lines without a value are "." where OpenSIPS has it so. The program answers by ``tm:reply``
with the id of line 16; if it does not within ``fr_timeout``, the caller has a 408. Nothing here ever waits in a system call."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable
from typing import Annotated

from twisted.internet.defer import Deferred

from sipgw.exports import BRANCH, FAILURE, REQUEST, Constant, function, param
from sipgw.modules._tm_base import TmBase
from sipgw.proxy.responses import ResponseContext
from sipgw.script.compiler import compile_variable
from sipgw.script.errors import ScriptError
from sipgw.script.run import Run
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.message import Request
from sipgw.sip.uri import Uri

VERSION = "0.3"
"""Of this format."""
RETRY = 0.02
"""Seconds between two tries to write to who has no room."""
LONGEST_PATH = 107
"""Octets of the name of a unix socket."""
MOST_APPENDED = 4096
"""Octets of the additional lines."""

_NO_ROOM = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS)
_INFO = re.compile(r"[^/]+(?:/[^/]+)?")


class TooLong(Exception):
    """What is to be appended does not fit."""


class Appended:
    """One ``tw_append``: the elements, each a name and a variable, and whether the body is written whatever the method."""

    def __init__(self, text: str) -> None:
        name, colon, rest = text.partition(":")
        self.name = name.strip()
        if not self.name or not colon or not rest.strip():
            raise ValueError("write name: element;element, each element name=$variable or $rb")
        self.with_body = False
        self.texts: list[tuple[str, str]] = []
        self.values: list[tuple[str, Callable[[Run], int | str | None]]] = []
        for element in _elements(rest):
            title, equals, variable = (part.strip() for part in element.partition("="))
            if element.strip() == "$rb":
                self.with_body = True
            elif not equals or not title or title.startswith("$") or not variable.startswith("$"):
                raise ValueError(f"{element.strip()!r} is neither name=$variable nor $rb")
            else:
                self.texts.append((title, variable))

    def lines(self, run: Run) -> str:
        """The lines; variables that are null are left out."""
        found = ((title, value(run)) for title, value in self.values)
        text = "".join(f"{title}: {_one_line(str(value))}\n" for title, value in found if value is not None)
        if len(text) > MOST_APPENDED:
            raise TooLong
        return text


def check_info(text: str) -> None:
    """Refuse what is no ``action`` or ``action/append``."""
    if _INFO.fullmatch(text) is None:
        raise ValueError("write action or action/append_name")


Info = Annotated[Constant, check_info]


class TmWrite(TmBase):
    """Writes requests to other programs."""

    tw_append: str = param(
        "", "What t_write_req and t_write_unix append: name: element;element, each name=$variable or $rb", each="add_append"
    )
    unix_tx_timeout: int = param(2, "Seconds for a reader of t_write_unix or t_write_req that has no room")

    _appends: dict[str, Appended] | None = None

    def add_append(self, value: str) -> None:
        """Take one ``tw_append``; its variables are read once all modules are there."""
        made = Appended(value)
        if self._appends is None:
            self._appends = {}
        if made.name.lower() in self._appends:
            raise ValueError(f"there is a tw_append {made.name} already")
        self._appends[made.name.lower()] = made

    async def start(self) -> None:
        """Compile the variables of ``tw_append``."""
        await super().start()
        for each in (self._appends or {}).values():
            try:
                each.values = [(title, compile_variable(text, self.server.symbols).get) for title, text in each.texts]
            except ScriptError as error:
                raise ValueError(f"tw_append {each.name}: {error.text}") from None

    @function(REQUEST | FAILURE | BRANCH)
    async def t_write_req(self, run: Run, info: Info, path: str) -> bool:
        """Write the request to the pipe ``path``; false if nobody reads it, or there is no transaction.

        ``info``: the command, and behind a "/" the name of a ``tw_append``."""
        return await self._write(run, "t_write_req", info, path, _Pipe)

    @function(REQUEST | FAILURE | BRANCH)
    async def t_write_unix(self, run: Run, info: Info, sock: str) -> bool:
        """Write the request to the datagram socket ``sock`` of another program; otherwise like ``t_write_req``."""
        return await self._write(run, "t_write_unix", info, sock, _Datagram)

    async def _write(self, run: Run, what: str, info: str, path: str, way: type[_Way]) -> bool:
        user = run.user
        context: ResponseContext | None = run.transaction
        action, _, name = info.partition("/")
        appended = (self._appends or {}).get(name.lower())
        if context is None or (name and appended is None):
            user.log(-1, f"{what}: " + ("there is no transaction" if context is None else f"there is no tw_append {name}"))
            return False
        try:
            data = written(run, context, self.name_of(context), action, appended).encode("utf-8", "surrogateescape")
            await self._deliver(way(path, data))
        except (MalformedMessage, TooLong, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error) or "too much is appended"
            user.log_rarely((what, path), -1, f"{what}: {path}: {why}")
            return False
        context.wait_for_reply()
        context.made_to_wait = False
        return True

    async def _deliver(self, way: _Way) -> None:
        """Try to write until it is done, or for ``unix_tx_timeout`` seconds; ``OSError``."""
        reactor = self.server.reactor
        until = reactor.seconds() + self.unix_tx_timeout
        try:
            while not way.write():
                if reactor.seconds() >= until:
                    raise OSError(errno.ETIMEDOUT, "its reader has no room")
                later: Deferred[None] = Deferred()
                self.server.later(RETRY, lambda waiting=later: waiting.callback(None))  # type: ignore[misc]
                await later
        finally:
            way.close()


class _Way:
    """One message on its way to another program."""

    def __init__(self, path: str, data: bytes) -> None:
        raise NotImplementedError

    def write(self) -> bool:
        """Write what can be written now; whether that was all."""
        raise NotImplementedError

    def close(self) -> None:
        """End."""
        raise NotImplementedError


class _Pipe(_Way):
    """A FIFO that somebody reads."""

    def __init__(self, path: str, data: bytes) -> None:
        self._data = data
        self._file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISFIFO(os.fstat(self._file).st_mode):
            self.close()
            raise OSError(errno.EINVAL, "it is no FIFO")

    def write(self) -> bool:
        """Write what fits."""
        try:
            self._data = self._data[os.write(self._file, self._data) :]
        except BlockingIOError:
            return False
        return not self._data

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


class _Datagram(_Way):
    """A datagram socket."""

    def __init__(self, path: str, data: bytes) -> None:
        if not path or len(os.fsencode(path)) > LONGEST_PATH:
            raise OSError(errno.EINVAL, "that is no name of a socket")
        self._data = data
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def write(self) -> bool:
        """Send it, if there is room."""
        try:
            self._socket.send(self._data)
        except OSError as error:
            if error.errno in _NO_ROOM:
                return False
            raise
        return True

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _elements(text: str) -> list[str]:
    """Cut at each ";" outside of parentheses and braces."""
    found, depth = [""], 0
    for char in text:
        depth += (char in "({") - (char in ")}")
        if char == ";" and depth <= 0:
            found.append("")
        else:
            found[-1] += char
    return [each for each in found if each.strip()]


def _one_line(text: str) -> str:
    """``text`` without what would begin a new line."""
    return re.sub(r"[\r\n\0]+", " ", text)


def written(run: Run, context: ResponseContext, name: str, action: str, appended: Appended | None) -> str:
    """The lines of one request. ``MalformedMessage`` if it cannot be read as far as that needs."""
    request = run.message
    assert isinstance(request, Request) and run.flow is not None
    uri = run.request_uri
    contacts = request.contacts
    target = contacts[0].uri_text if contacts else request.from_.uri_text
    target, routes, next_hop = _route(request, target)
    own = run.flow.socket
    with_body = request.method == "INVITE" or (appended is not None and appended.with_body)
    lines = [
        VERSION,
        f"sip_request.{action}",
        request.method,
        uri.user or "",
        uri.host,
        own.host,
        "." if own.port == 5060 else str(own.port),
        run.uri,
        target or ".",
        request.header("From") or "",
        request.header("To") or "",
        request.call_id,
        request.from_tag or "",
        request.to_tag or "",
        str(request.cseq.number),
        name,
        ",".join(f"<{route}>" for route in routes) or ".",
        next_hop or ".",
        f"P-MsgFlags: {f'{run.flags:x}'[::-1]}",
    ]
    extra = "" if appended is None else appended.lines(run)
    body = request.body.decode("utf-8", "surrogateescape") if with_body else "."
    return "\n".join(map(_one_line, lines)) + f"\n{extra}.\n{body}\n"


def _route(request: Request, target: str) -> tuple[str, list[str], str]:
    """Where requests to the caller go (RFC 3261 12.1.1, 12.2.1.1): the Request-URI, the Routes, the next hop if it is another.

    A first proxy that is a strict router (RFC 2543) becomes the Request-URI, and the caller the last Route."""
    routes = [each.uri_text for each in request.record_routes]
    if not routes:
        return target, [], ""
    if Uri.parse(routes[0]).param("lr") is not None:
        return target, routes, routes[0]
    return routes[0], [*routes[1:], target], ""
