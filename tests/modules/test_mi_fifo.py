"""Tests of sipgw.modules.mi_fifo: real pipes and the real reactor."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.exports import Module, mi
from sipgw.mi.fifo import MAX_ANSWERS
from sipgw.modules.mi_fifo import MiFifo
from tests.mi.doubles import FakeServer


class Echo(Module):
    """Commands to ask for."""

    name = "echo"

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.waiting: Deferred[None] = Deferred()

    @mi()
    def say(self, text: str) -> str:
        """Say it again."""
        self.asked += 1
        return text

    @mi()
    async def wait(self) -> None:
        """Wait."""
        self.asked += 1
        await self.waiting


def ask(method: str, *params: Any, id: Any = 1) -> bytes:
    """A request as opensips-cli writes it, without an end of line."""
    request = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    if id is None:
        del request["id"]
    return json.dumps(request).encode()


class MiFifoTests(TestCase):
    """One server with its pipe in a directory that is also that of the replies."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        directory = self.mktemp()
        os.mkdir(directory)
        self.directory = os.path.abspath(directory)
        self.path = os.path.join(self.directory, "opensips_fifo")
        self.server = FakeServer(self.reactor)
        self.echo = self.server.add(Echo())
        self.module = MiFifo(self.server, fifo_name=self.path, reply_dir=self.directory, fifo_mode=0o600)
        self.successResultOf(Deferred.fromCoroutine(self.module.start()))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.module.stop()))

    def write(self, data: bytes) -> None:
        fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, data)
        os.close(fd)

    def open(self, name: str) -> int:
        path = os.path.join(self.directory, name)
        os.mkfifo(path)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, fd)
        return fd

    async def turn(self) -> None:
        """Let the reactor read and write."""
        await deferLater(self.reactor, 0.01)

    async def until(self, reached: Callable[[], bool]) -> None:
        """Let the reactor work until ``reached()``; however slow the machine, trial's own timeout is the only limit."""
        while not reached():
            await self.turn()

    async def read(self, fd: int) -> bytes:
        """All that is answered on ``fd``, until the server closes it."""
        got = b""
        while True:
            try:
                data = os.read(fd, 65536)
            except BlockingIOError:
                data = b""
            got += data
            if got.endswith(b"}\n"):
                return got
            await self.turn()

    async def test_answer(self) -> None:
        """A request is answered on the pipe that it names, in one line."""
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        fd = self.open("reply")
        self.write(b":reply:" + ask("echo:say", "hé"))
        self.assertEqual(await self.read(fd), '{"jsonrpc":"2.0","result":"hé","id":1}\n'.encode())

    async def test_several(self) -> None:
        """Requests in one write, with and without ends of line, are all answered."""
        fds = [self.open(name) for name in "abc"]
        self.write(b":a:" + ask("say", "A") + b"\n:b:" + ask("say", "B") + b":c:" + ask("nosuch"))
        answers = [json.loads(await self.read(fd)) for fd in fds]
        self.assertEqual([answer.get("result") for answer in answers], ["A", "B", None])
        self.assertEqual(answers[2]["error"], {"code": -32601, "message": "Method not found"})

    async def test_long(self) -> None:
        """A request and an answer that are longer than a pipe get through."""
        text = "x" * 300000
        fd = self.open("reply")
        data = b":reply:" + ask("say", text)
        pipe = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        while data:
            try:
                data = data[os.write(pipe, data) :]
            except BlockingIOError:
                await self.turn()
        os.close(pipe)
        self.assertEqual(json.loads(await self.read(fd))["result"], text)

    async def test_bad_json(self) -> None:
        """What is no JSON is answered, and the next request is read."""
        bad, good = self.open("bad"), self.open("good")
        self.write(b":bad:nonsense\n:good:" + ask("say", "x"))
        self.assertEqual(json.loads(await self.read(bad))["error"]["code"], -32700)
        self.assertEqual(json.loads(await self.read(good))["result"], "x")

    async def test_no_answer(self) -> None:
        """Without a reply name, or an id, the command runs and nothing is written."""
        fd = self.open("reply")
        self.write(b"::" + ask("say", "x") + b":reply:" + ask("say", "y", id=None))
        await self.until(lambda: self.echo.asked == 2)
        await self.turn()
        self.assertEqual(os.read(fd, 10), b"")
        self.assertEqual(self.server.user.lines, [])

    async def test_traversal(self) -> None:
        """A reply name that leads out of the directory is refused before anything runs, and logged."""
        os.mkdir(os.path.join(self.directory, "sub"))
        self.module.reply_dir = os.path.join(self.directory, "sub")
        fd = self.open("reply")
        absolute = os.path.join(self.directory, "reply").encode()
        self.write(b":../reply:" + ask("say", "x") + b":" + absolute + b":" + ask("say", "y"))
        await self.until(lambda: len(self.server.user.lines) == 2)
        self.assertEqual((os.read(fd, 10), self.echo.asked), (b"", 0))
        self.assertEqual([level for level, _ in self.server.user.lines], [-1, -1])
        self.assertIn("the name of the reply FIFO is no plain file name: b'../reply:{", self.server.user.lines[0][1])

    async def test_lost_answer(self) -> None:
        """An answer that cannot be delivered is logged."""
        with open(os.path.join(self.directory, "file"), "w"):
            pass
        self.write(b":file:" + ask("say", "x"))
        await self.until(lambda: bool(self.server.user.lines))
        self.assertIn("is not a FIFO", self.server.user.lines[0][1])
        self.assertEqual(os.path.getsize(os.path.join(self.directory, "file")), 0)

    async def test_pretty(self) -> None:
        """``pretty_printing`` indents."""
        self.module.pretty_printing = 1
        fd = self.open("reply")
        self.write(b":reply:" + ask("say", "x"))
        self.assertEqual(await self.read(fd), b'{\n\t"jsonrpc":\t"2.0",\n\t"result":\t"x",\n\t"id":\t1\n}\n')

    async def test_busy(self) -> None:
        """With many commands under way the pipe is not read, until they have ended."""
        self.write(b"".join(b"::" + ask("wait") for _ in range(MAX_ANSWERS)))
        await self.until(lambda: self.echo.asked == MAX_ANSWERS)
        self.assertNotIn(self.module._reader, self.reactor.getReaders())
        self.write(b"::" + ask("say", "x"))
        await self.turn()
        self.assertEqual(self.echo.asked, MAX_ANSWERS)
        self.echo.waiting.callback(None)
        await self.until(lambda: self.echo.asked == MAX_ANSWERS + 1)

    async def test_removed(self) -> None:
        """A pipe that somebody removed comes back; one that is another's is left alone."""
        inode = os.stat(self.path).st_ino
        self.module.look_after()
        self.assertEqual(os.stat(self.path).st_ino, inode)
        os.unlink(self.path)
        self.module.look_after()
        fd = self.open("reply")
        self.write(b":reply:" + ask("say", "x"))
        self.assertEqual(json.loads(await self.read(fd))["result"], "x")
        self.assertEqual(len(self.server.user.lines), 1)
        self.assertEqual([seconds for seconds, _ in self.module.periodic()], [30])

    async def test_stop(self) -> None:
        """The pipe goes with the server, and answers that nobody reads too."""
        os.mkfifo(os.path.join(self.directory, "unread"))
        self.write(b":unread:" + ask("say", "x") + b"::" + ask("wait"))
        await self.until(lambda: self.echo.asked == 2)
        await self.module.stop()
        self.assertFalse(os.path.lexists(self.path))
        self.assertIn("the server stops", self.server.user.lines[0][1])
        self.echo.waiting.callback(None)
        self.module.look_after()
        self.assertFalse(os.path.lexists(self.path))


class ParameterTests(SynchronousTestCase):
    """The modparams."""

    def test_refused(self) -> None:
        """Modes, users, groups and lists that cannot be are refused."""
        module = MiFifo()
        for name, value in (
            ("fifo_mode", 0o1000),
            ("fifo_mode", -1),
            ("fifo_user", "no such user"),
            ("fifo_user", -5),
            ("fifo_group", "no such group"),
        ):
            self.assertRaises(ValueError, module.set_parameter, name, value)
        self.assertRaises(ValueError, module.set_parameter, "trace_bwlist", "hep")
        self.assertEqual((module.fifo_mode, module.fifo_name, module.reply_dir), (0o660, "/tmp/opensips_fifo", "/tmp/"))

    def test_owner(self) -> None:
        """Owner and group are names or numbers; the pipe is theirs."""
        user, group = pwd.getpwall()[1], grp.getgrall()[1]
        if os.getuid() != 0:
            user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(os.getgid())
        for owner, owners in (
            (user.pw_name, group.gr_name),
            (user.pw_uid, group.gr_gid),
            (str(user.pw_uid), str(group.gr_gid)),
        ):
            directory = self.mktemp()
            os.mkdir(directory)
            path = os.path.join(directory, "fifo")
            module = MiFifo(FakeServer(Watchless()), fifo_name=path, fifo_user=owner, fifo_group=owners)
            self.successResultOf(Deferred.fromCoroutine(module.start()))
            status = os.stat(path)
            self.assertEqual((status.st_uid, status.st_gid), (user.pw_uid, group.gr_gid))
            self.successResultOf(Deferred.fromCoroutine(module.stop()))


class Watchless:
    """A reactor that watches nothing."""

    def addReader(self, reader: Any) -> None:
        pass

    def removeReader(self, reader: Any) -> None:
        pass
