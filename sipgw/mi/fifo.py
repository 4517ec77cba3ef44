"""The named pipe of the management interface, and the pipes on which its answers go back.

The pipe appears under its name complete, with owner and mode, and takes the place of a stale one in the same step. It is held
open for reading and writing, so that it never comes to an end between two clients. A client makes the FIFO for its answer and may
be slow to open it: writing is tried again until it does, within bounds; nothing is ever written to what is not a FIFO."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from twisted.internet.interfaces import IReadDescriptor, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from sipgw.mi.framing import FifoFraming, FifoRequest
from sipgw.mi.owner import Owner, is_there

QUIET = 1.0
"""Seconds after which a request that has begun is not going to end."""
RETRY = 0.05
"""Seconds between two tries to open a reply FIFO that nobody reads yet."""
PATIENCE = 5.0
"""Seconds that a client has to open its reply FIFO, and to read on once it has begun."""
MAX_ANSWERS = 64
"""Answers under way; with so many, no more requests are read, and clients wait in ``write``."""
CHUNK = 65536


def make_fifo(path: str, owner: Owner) -> os.stat_result:
    """Create the FIFO ``path``, in place of an older one; ``FileExistsError`` if something else bears the name."""
    return owner.place(path, stat.S_IFIFO, lambda made: os.mkfifo(made, 0o600))


@implementer(IReadDescriptor)
class FifoReader:
    """The pipe on which requests arrive; ``take`` is called with each."""

    def __init__(self, reactor: Any, path: str, owner: Owner, take: Callable[[FifoRequest], None]) -> None:
        self._reactor = reactor
        self._path = path
        self._take = take
        self._framing = FifoFraming()
        self._quiet: Any = None
        self._made = make_fifo(path, owner)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._fd

    def logPrefix(self) -> str:
        """What Twisted calls this in its log."""
        return "mi_fifo"

    def resume(self) -> None:
        """Read what arrives."""
        if self._fd >= 0:
            self._reactor.addReader(self)

    def pause(self) -> None:
        """Leave what arrives in the pipe; clients wait when it is full."""
        self._reactor.removeReader(self)

    def doRead(self) -> None:
        """Read once; no more, so that SIP has its turn."""
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        self._forget_quiet()
        self._give(self._framing.feed(data))
        if self._framing.pending and self._fd >= 0:
            self._quiet = self._reactor.callLater(QUIET, self._grown_quiet)

    def _grown_quiet(self) -> None:
        self._quiet = None
        self._give(self._framing.quiet())

    def _forget_quiet(self) -> None:
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None

    def _give(self, requests: list[FifoRequest]) -> None:
        for request in requests:
            self._take(request)

    def close(self) -> None:
        """Stop reading and remove the pipe, if it is still ours."""
        if self._fd < 0:
            return
        self.pause()
        self._forget_quiet()
        if is_there(self._path, self._made):
            os.unlink(self._path)
        os.close(self._fd)
        self._fd = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives the pipe up."""
        self.close()


class ReplyRefused(Exception):
    """An answer cannot reach its client; the text says why."""


def open_reply(path: str) -> int:
    """Open the FIFO ``path`` for writing: its descriptor, -1 while nobody reads it; ``ReplyRefused`` if it can never be."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            return -1
        raise ReplyRefused(f"{path}: {error.strerror}") from None
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        os.close(fd)
        raise ReplyRefused(f"{path} is not a FIFO")
    return fd


@implementer(IWriteDescriptor)
class FifoReply:
    """One answer on its way into a reply FIFO; ``done(fault)`` at its end, with an empty text if the client has it all."""

    def __init__(self, reactor: Any, path: str, answer: Iterator[bytes], done: Callable[[str], None]) -> None:
        self._reactor = reactor
        self._path = path
        self._answer = chain(answer, (b"\n",))
        self._done = done
        self._left = b""
        self._fd = -1
        self._timer: Any = None
        self._until = reactor.seconds() + PATIENCE

    def fileno(self) -> int:
        """The descriptor that the reactor watches."""
        return self._fd

    def logPrefix(self) -> str:
        """What Twisted calls this in its log."""
        return "mi_fifo reply"

    def start(self) -> None:
        """Open the FIFO as soon as the client does, and write."""
        self._timer = None
        try:
            self._fd = open_reply(self._path)
        except ReplyRefused as error:
            self.end(str(error))
            return
        if self._fd >= 0:
            self._timer = self._reactor.callLater(PATIENCE, self._too_slow)
            self._reactor.addWriter(self)
        elif self._reactor.seconds() >= self._until:
            self.end(f"nobody reads {self._path}")
        else:
            self._timer = self._reactor.callLater(RETRY, self.start)

    def doWrite(self) -> None:
        """Write what the pipe has room for, one piece at most.

        The end is told with the last octet: a client that has its line closes the pipe at once, which is no fault."""
        try:
            if not self._left:
                self._left = next(self._answer)
            written = os.write(self._fd, self._left)
            self._left = self._left[written:]
            self._timer.reset(PATIENCE)
            if not self._left:
                self._left = next(self._answer)
        except StopIteration:
            self.end("")
        except BlockingIOError:
            pass
        except OSError as error:
            self.end(f"{self._path}: {error.strerror}")
        except Exception as error:
            self.end(f"the answer broke off: {type(error).__name__}: {error}")

    def _too_slow(self) -> None:
        self._timer = None
        self.end(f"nobody reads on in {self._path}")

    def connectionLost(self, reason: Failure) -> None:
        """The client has gone."""
        self.end(f"{self._path}: {reason.getErrorMessage()}")

    def end(self, fault: str) -> None:
        """Close the FIFO; ``fault`` says why before the end, if so."""
        done, self._done = self._done, _nobody
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._fd >= 0:
            self._reactor.removeWriter(self)
            os.close(self._fd)
            self._fd = -1
        done(fault)


def _nobody(_fault: str) -> None:
    """Hear of an end that has been told already."""
