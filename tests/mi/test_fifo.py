"""Tests of sipgw.mi.fifo: the pipes themselves, in a temporary directory; time is a Clock, readiness is called by hand."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi import fifo
from sipgw.mi.fifo import FifoReader, FifoReply, ReplyRefused, make_fifo, open_reply
from sipgw.mi.framing import FifoRequest
from sipgw.mi.owner import Owner


class Watching(Clock):
    """A clock that also knows what a reactor would watch."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)


class PipeTests(SynchronousTestCase):
    """A directory of their own for pipes."""

    def setUp(self) -> None:
        self.clock = Watching()
        directory = self.mktemp()
        os.mkdir(directory)
        self.path = os.path.join(os.path.abspath(directory), "pipe")

    def reading(self) -> int:
        """Make the pipe and open it for reading, as a client does."""
        os.mkfifo(self.path)
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, fd)
        return fd


class MakeTests(PipeTests):
    """Creating the pipe."""

    def test_mode(self) -> None:
        """It has the mode asked for, whatever the umask, and the owner."""
        self.addCleanup(os.umask, os.umask(0o077))
        made = make_fifo(self.path, Owner(0o666, os.getuid(), os.getgid()))
        self.assertTrue(stat.S_ISFIFO(made.st_mode))
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o666)
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["pipe"])

    def test_stale(self) -> None:
        """A stale pipe is replaced."""
        old = make_fifo(self.path, Owner(0o600))
        keep = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # so that its inode is not used again
        self.addCleanup(os.close, keep)
        made = make_fifo(self.path, Owner(0o640))
        self.assertNotEqual(made.st_ino, old.st_ino)
        self.assertEqual(os.stat(self.path).st_ino, made.st_ino)

    def test_something_else(self) -> None:
        """A file, a directory or a link of that name is left alone."""
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertRaises(FileExistsError, make_fifo, self.path, Owner(0o600))
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")
        os.rename(self.path, self.path + ".kept")
        os.symlink(self.path + ".kept", self.path)
        self.assertRaises(FileExistsError, make_fifo, self.path, Owner(0o600))

    def test_no_directory(self) -> None:
        """Without the directory there is no pipe."""
        self.assertRaises(FileNotFoundError, make_fifo, self.path + "/x", Owner(0o600))


class ReaderTests(PipeTests):
    """Requests from the pipe."""

    def setUp(self) -> None:
        super().setUp()
        self.requests: list[FifoRequest] = []
        self.reader = FifoReader(self.clock, self.path, Owner(0o600), self.requests.append)
        self.addCleanup(self.reader.close)

    def write(self, data: bytes) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, data)
        os.close(fd)
        self.reader.doRead()

    def test_requests(self) -> None:
        """Several clients, one after another, are read; an empty pipe is no end."""
        self.write(b":a:{}")
        self.write(b":b:{}\n:c:{}")
        self.reader.doRead()
        self.assertEqual([r.reply for r in self.requests], ["a", "b", "c"])

    def test_quiet(self) -> None:
        """A request that does not end is given out after a second; one that goes on is waited for."""
        self.write(b":a:{")
        self.clock.advance(0.9)
        self.write(b'"x":')
        self.clock.advance(0.9)
        self.assertEqual(self.requests, [])
        self.clock.advance(0.2)
        self.assertEqual(self.requests, [FifoRequest("a", b'{"x":')])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """The pipe is removed with its reader, and nothing stays to be called."""
        self.reader.resume()
        self.write(b":a:{")
        self.reader.close()
        self.assertFalse(os.path.lexists(self.path))
        self.assertEqual((self.clock.readers, self.clock.getDelayedCalls()), (set(), []))
        self.reader.close()

    def test_close_replaced(self) -> None:
        """A pipe that another process has put in its place is left."""
        make_fifo(self.path, Owner(0o600))
        self.reader.close()
        self.assertTrue(os.path.lexists(self.path))

    def test_pause(self) -> None:
        """What is paused is not watched."""
        self.reader.resume()
        self.assertEqual(self.clock.readers, {self.reader})
        self.reader.pause()
        self.assertEqual(self.clock.readers, set())


class ReplyTests(PipeTests):
    """Answers into the client's pipe."""

    def setUp(self) -> None:
        super().setUp()
        self.ends: list[str] = []

    def reply(self, answer: Iterator[bytes]) -> FifoReply:
        reply = FifoReply(self.clock, self.path, answer, self.ends.append)
        reply.start()
        return reply

    def finish(self) -> None:
        for _ in range(100):
            for writer in list(self.clock.writers):
                writer.doWrite()

    def clean(self) -> None:
        self.assertEqual((self.clock.writers, self.clock.getDelayedCalls()), (set(), []))

    def test_answer(self) -> None:
        """The answer arrives with an end of line, and the pipe is closed."""
        fd = self.reading()
        self.reply(iter([b"one ", b"two"]))
        self.finish()
        self.assertEqual((os.read(fd, 100), os.read(fd, 100)), (b"one two\n", b""))
        self.assertEqual(self.ends, [""])
        self.clean()

    def test_done_with_last_octet(self) -> None:
        """A client that closes its pipe as soon as it has its line is no fault, however the reactor tells it."""
        os.mkfifo(self.path)
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        reply = self.reply(iter([b"x"]))
        while not (got := self.some(fd)).endswith(b"\n"):
            reply.doWrite()
        os.close(fd)
        reply.connectionLost(Failure(ConnectionLost()))
        self.assertEqual((got, self.ends), (b"\n", [""]))
        self.clean()

    def some(self, fd: int) -> bytes:
        try:
            return os.read(fd, 100)
        except BlockingIOError:
            return b""

    def test_late_reader(self) -> None:
        """A client that opens, or even makes, its pipe late gets its answer."""
        self.reply(iter([b"x"]))
        self.clock.advance(fifo.RETRY)
        os.mkfifo(self.path)
        self.clock.advance(fifo.RETRY)
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, fd)
        self.clock.advance(fifo.RETRY)
        self.finish()
        self.assertEqual((os.read(fd, 10), self.ends), (b"x\n", [""]))

    def test_no_reader(self) -> None:
        """Nobody is waited for without end."""
        os.mkfifo(self.path)
        self.reply(iter([b"x"]))
        self.clock.pump([fifo.RETRY] * (int(fifo.PATIENCE / fifo.RETRY) + 2))
        self.assertEqual(self.ends, [f"nobody reads {self.path}"])
        self.clean()

    def test_slow_reader(self) -> None:
        """A client that reads slowly is waited for while it reads, and the rest of the answer is not made meanwhile."""
        fd = self.reading()
        made = []

        def answer() -> Iterator[bytes]:
            for i in range(30):
                made.append(i)
                yield bytes([65 + i]) * 32768

        self.reply(answer())
        self.finish()
        self.assertLess(len(made), 6)
        got = b""
        for _ in range(60):
            self.clock.advance(fifo.PATIENCE - 1)
            got += os.read(fd, 32768)
            self.finish()
        self.assertEqual((len(got), got[-1:]), (30 * 32768 + 1, b"\n"))
        self.assertEqual(self.ends, [""])

    def test_stuck_reader(self) -> None:
        """A client that stops reading is given up."""
        self.reading()
        self.reply(iter([b"x" * 200000]))
        self.finish()
        self.clock.advance(fifo.PATIENCE)
        self.assertEqual(self.ends, [f"nobody reads on in {self.path}"])
        self.clean()

    def test_gone(self) -> None:
        """A client that closes its pipe, or whose pipe the reactor finds broken, ends the answer."""
        os.mkfifo(self.path)
        fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
        self.reply(iter([b"x"]))
        os.close(fd)
        self.finish()
        self.assertEqual(self.ends, [f"{self.path}: Broken pipe"])
        self.clean()
        os.unlink(self.path)
        self.reading()
        reply = self.reply(iter([b"x"]))
        reply.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(len(self.ends), 2)
        self.clean()

    def test_broken_answer(self) -> None:
        """An answer that breaks off leaves no end of line, so that nobody takes it for whole."""

        def answer() -> Iterator[bytes]:
            yield b"begun"
            raise KeyError("x")

        fd = self.reading()
        self.reply(answer())
        self.finish()
        self.assertEqual((os.read(fd, 100), os.read(fd, 100)), (b"begun", b""))
        self.assertEqual(self.ends, ["the answer broke off: KeyError: 'x'"])
        self.clean()

    def test_no_fifo(self) -> None:
        """Nothing is ever written to a file, a directory or through a link."""
        with open(self.path, "w") as file:
            file.write("precious")
        self.assertRaises(ReplyRefused, open_reply, self.path)
        self.reply(iter([b"x"]))
        self.assertEqual(self.ends, [f"{self.path} is not a FIFO"])
        os.symlink(self.path, self.path + ".link")
        self.assertRaises(ReplyRefused, open_reply, self.path + ".link")
        self.assertRaises(ReplyRefused, open_reply, os.path.dirname(self.path))
        with open(self.path) as file:
            self.assertEqual(file.read(), "precious")
        self.clean()
