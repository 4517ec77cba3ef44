"""Tests of sipgw.modules.mi_datagram: real sockets and the real reactor."""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.exports import Module, mi
from sipgw.mi.datagram import MAX_ANSWERS, parse_address
from sipgw.modules.mi_datagram import MiDatagram
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
    """A request as opensips-cli writes it."""
    request = {"jsonrpc": "2.0", "id": id, "method": method, "params": params}
    if id is None:
        del request["id"]
    return json.dumps(request).encode()


class DatagramTests(TestCase):
    """One server, one client."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = FakeServer(self.reactor)
        self.echo = self.server.add(Echo())
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    async def start(self, name: str, client: socket.socket, **parameters: Any) -> None:
        """Listen at ``name``, and connect ``client`` to it."""
        module = self.module = MiDatagram(self.server, socket_name=name, **parameters)
        self.addCleanup(lambda: Deferred.fromCoroutine(module.stop()))
        await module.start()
        self.client = client
        self.addCleanup(client.close)
        client.setblocking(False)
        address = module.address
        client.connect(address if isinstance(address, str) else address[:2])

    async def start_udp(self, **parameters: Any) -> None:
        """Listen on UDP, at a port of the kernel's choice."""
        await self.start("udp:127.0.0.1:0", socket.socket(socket.AF_INET, socket.SOCK_DGRAM), **parameters)

    async def start_unix(self, **parameters: Any) -> None:
        """Listen on a unix socket."""
        client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        client.bind(os.path.join(self.directory, "client"))
        self.path = os.path.join(self.directory, "server")
        await self.start(self.path, client, **parameters)

    async def receive(self) -> bytes:
        """The next answer."""
        while True:
            try:
                return self.client.recv(1 << 20)
            except BlockingIOError:
                await deferLater(self.reactor, 0.005)

    async def call(self, data: bytes) -> Any:
        """Send one request; its answer."""
        self.client.send(data)
        return json.loads(await self.receive())

    async def test_udp(self) -> None:
        """A request in a datagram is answered in one, to whoever sent it; what is no request too."""
        await self.start_udp()
        self.assertEqual(await self.call(ask("echo:say", "hé")), {"jsonrpc": "2.0", "result": "hé", "id": 1})
        self.assertEqual((await self.call(ask("say", "x") + b"\n\0"))["result"], "x")
        self.assertEqual((await self.call(b"nonsense"))["error"]["code"], -32700)
        self.assertEqual((await self.call(b"[]"))["error"]["code"], -32600)
        self.assertEqual((await self.call(ask("nosuch")))["error"]["code"], -32601)

    async def test_udp6(self) -> None:
        """IPv6 too."""
        await self.start("udp:[::1]:0", socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        self.assertEqual((await self.call(ask("say", "six")))["result"], "six")

    async def test_unix(self) -> None:
        """A unix socket has its mode and takes the place of a stale one; it goes when the server stops."""
        stale = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        stale.bind(os.path.join(self.directory, "server"))
        stale.close()
        await self.start_unix(unix_socket_mode=0o600)
        status = os.stat(self.path)
        self.assertEqual((stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)), (True, 0o600))
        self.assertEqual(os.listdir(self.directory).count("server"), 1)
        self.assertEqual((await self.call(ask("say", "x")))["result"], "x")
        await self.module.stop()
        self.assertFalse(os.path.exists(self.path))

    async def test_owner(self) -> None:
        """A unix socket belongs to whom the script says, by name or number."""
        await self.start_unix(unix_socket_user=os.getuid(), unix_socket_group=str(os.getgid()))
        status = os.stat(self.path)
        self.assertEqual((status.st_uid, status.st_gid), (os.getuid(), os.getgid()))
        self.assertEqual(stat.S_IMODE(status.st_mode), 0o660)

    async def test_no_socket(self) -> None:
        """What is not a socket is not replaced."""
        path = os.path.join(self.directory, "file")
        with open(path, "w"):
            pass
        with self.assertRaises(FileExistsError):
            await MiDatagram(self.server, socket_name=path).start()
        self.assertEqual(os.listdir(self.directory), ["file"])

    async def test_taken_over(self) -> None:
        """A socket that another server has put there in the meantime is left alone."""
        await self.start_unix()
        os.unlink(self.path)
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(other.close)
        other.bind(self.path)
        await self.module.stop()
        self.assertTrue(os.path.exists(self.path))

    async def test_notification(self) -> None:
        """A request without an id and an empty datagram get no answer."""
        await self.start_udp()
        self.client.send(ask("say", "x", id=None))
        self.client.send(b"")
        self.assertEqual((await self.call(ask("say", "y")))["result"], "y")
        self.assertEqual(self.echo.asked, 2)

    async def test_nobody(self) -> None:
        """A peer without an address cannot be answered; the log says so."""
        await self.start_unix()
        nameless = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(nameless.close)
        nameless.sendto(ask("say", "x"), self.path)
        self.assertEqual((await self.call(ask("say", "y")))["result"], "y")
        self.assertEqual(len(self.server.user.lines), 1)
        self.assertIn("must bind its socket", self.server.user.lines[0][1])

    async def test_long(self) -> None:
        """A request or an answer that is longer than socket_buf_size becomes an error."""
        await self.start_unix(socket_buf_size=1000)
        self.assertIn("more than 1000", (await self.call(ask("say", "x" * 1000)))["error"]["data"])
        self.server.add(Long())
        answer = await self.call(ask("long", id=7))
        self.assertEqual((answer["id"], answer["error"]["code"]), (7, 500))

    async def test_pretty(self) -> None:
        """With pretty_printing answers are indented."""
        await self.start_udp(pretty_printing=1)
        self.client.send(ask("say", "x"))
        self.assertEqual(await self.receive(), b'{\n\t"jsonrpc":\t"2.0",\n\t"result":\t"x",\n\t"id":\t1\n}')

    async def fill(self, count: int) -> None:
        """Ask so often that the answers do not fit into the client's socket."""
        for _ in range(count):
            self.client.send(ask("say", "x" * 50000))
            while self.echo.asked < count and not self.readable():
                await deferLater(self.reactor, 0.001)

    def readable(self) -> bool:
        """Whether the server can take one more request at once."""
        return bool(select.select([], [self.client], [], 0)[1])

    async def test_full(self) -> None:
        """Answers wait for a client that reads later."""
        await self.start_unix()
        await self.fill(20)
        got = [json.loads(await self.receive())["result"] for _ in range(20)]
        self.assertEqual(got, ["x" * 50000] * 20)
        self.assertEqual(self.server.user.lines, [])

    async def test_never_read(self) -> None:
        """Answers that a client does not read in time are given up, and the log says so."""
        await self.start_unix(socket_timeout=1)
        await self.fill(20)
        while not self.server.user.lines:
            await deferLater(self.reactor, 0.005)
        self.assertIn("its socket is full", self.server.user.lines[0][1])

    async def test_busy(self) -> None:
        """No more than so many requests are under way; the others are read when some have ended."""
        await self.start_udp()
        for _ in range(MAX_ANSWERS + 1):
            self.client.send(ask("wait"))
        while self.echo.asked < MAX_ANSWERS:
            await deferLater(self.reactor, 0.005)
        await deferLater(self.reactor, 0.005)
        self.assertEqual(self.echo.asked, MAX_ANSWERS)
        self.echo.waiting.callback(None)
        self.echo.waiting = Deferred()
        self.echo.waiting.callback(None)
        for _ in range(MAX_ANSWERS + 1):
            await self.receive()
        self.assertEqual(self.echo.asked, MAX_ANSWERS + 1)

    async def test_outside(self) -> None:
        """An address that is not loopback is warned of."""
        await self.start("udp:0.0.0.0:0", socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.assertIn("can be reached from outside", self.server.user.lines[0][1])


class Long(Module):
    """A command with a long answer."""

    name = "long"

    @mi()
    def long(self) -> list[str]:
        """Say much."""
        return ["x" * 100] * 100


class ParameterTests(SynchronousTestCase):
    """What the parameters take."""

    def test_addresses(self) -> None:
        """``udp:address:port`` or a path."""
        for name, expected in (
            ("udp:127.0.0.1:8080", ("127.0.0.1", 8080)),
            ("udp:localhost:8080", ("127.0.0.1", 8080)),
            ("udp:[::1]:8080", ("::1", 8080)),
            ("udp:::1:8080", ("::1", 8080)),
            ("/tmp/opensips.sock", None),
        ):
            self.assertEqual(parse_address(name), expected)

    def test_refused(self) -> None:
        """What cannot be is refused when the configuration is read; without socket_name nothing starts."""
        for name, value in (
            ("socket_name", "udp:8080"),
            ("socket_name", "udp:127.0.0.1"),
            ("socket_name", "udp:127.0.0.1:99999"),
            ("socket_name", "udp:example.org:99"),
            ("socket_name", "/" + "x" * 120),
            ("socket_name", ""),
            ("unix_socket_mode", 0o1000),
            ("unix_socket_user", "no such user"),
            ("unix_socket_group", -3),
            ("socket_timeout", -1),
            ("socket_buf_size", 10),
        ):
            self.assertRaises(ValueError, MiDatagram, None, **{name: value})
        module = MiDatagram(FakeServer())
        self.failureResultOf(Deferred.fromCoroutine(module.start()), ValueError)

    def test_unused(self) -> None:
        """children_count is taken and said to have no effect."""
        server = FakeServer()
        MiDatagram(server, children_count=3)
        self.assertIn("children_count has no effect", server.user.lines[0][1])
