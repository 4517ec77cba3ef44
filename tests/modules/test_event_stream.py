"""Tests of sipgw.modules.event_stream: JSON-RPC over real connections; what goes out is what OpenSIPS 4.1 sends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from sipgw.modules import event_stream
from sipgw.modules.event_stream import EventStream
from sipgw.testing import FakeServer


class Peer(Protocol):
    """What connects to the listener: keeps what comes."""

    factory: Listener
    transport: Any

    def connectionMade(self) -> None:
        self.factory.peers.append(self)
        if self.factory.deaf:
            self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.factory.data += data
        if self.factory.answer is not None:
            self.transport.write(self.factory.answer(data))


class Listener(Factory):
    """A server of JSON-RPC, or none that behaves."""

    protocol = Peer  # type: ignore[assignment]
    noisy = False

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.data = b""
        self.deaf = False
        self.answer: Callable[[bytes], bytes] | None = None

    @property
    def objects(self) -> list[Any]:
        """What came, object by object."""
        found, text = [], self.data.decode()
        while text:
            one, end = json.JSONDecoder().raw_decode(text)
            found.append(one)
            text = text[end:]
        return found


class StreamTests(TestCase):
    """Events over TCP."""

    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    def start(self, **parameters: Any) -> None:
        self.server = FakeServer()
        self.server.reactor = self.reactor
        self.server.user.clock = self.reactor.seconds
        self.module = EventStream(self.server, **parameters)
        self.bus = self.server.user.events
        self.event = self.bus.publish("E_A")
        self.listener = Listener()
        self.port = self.reactor.listenTCP(0, self.listener, interface="127.0.0.1")
        self.number = self.port.getHost().port
        self.addCleanup(self.stop)

    async def stop(self) -> None:
        await self.module.stop()
        await self.port.stopListening()
        for peer in self.listener.peers:
            peer.transport.abortConnection()
        await self.until(lambda: all(not peer.transport.connected for peer in self.listener.peers))

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await deferLater(self.reactor, 0.005, lambda: None)

    async def tell(self, method: str = "", **values: Any) -> bool:
        """Tell one sink; what it says of it."""
        sink = await self.bus.open(f"tcp:127.0.0.1:{self.number}{method}")
        told = sink.send("E_A", values)
        return await told if isinstance(told, Deferred) else told

    def lines(self) -> str:
        return "\n".join(text for _, text in self.server.lines)

    async def test_notifications(self) -> None:
        """Objects go out one after the other over one connection: by name, without names, without parameters."""
        self.start()
        await self.bus.subscribe(self.event, f"tcp:127.0.0.1:{self.number}")
        await self.bus.subscribe(self.event, f"tcp:127.0.0.1:{self.number}/meth/od")
        self.event.emit(count=5, name='v<&"1')
        self.bus.tell(self.event, ("é", 1))
        self.event.emit()
        await self.until(lambda: len(self.listener.data) > 300 or len(self.listener.objects) == 6)
        start = {"jsonrpc": "2.0"}
        named, listed = {"params": {"count": 5, "name": 'v<&"1'}}, {"params": ["é", 1]}
        expected = [start | {"method": method} | more for more in (named, listed, {}) for method in ("meth/od", "E_A")]
        self.assertEqual(self.listener.objects, expected)
        self.assertTrue(self.listener.data.startswith(b'{"jsonrpc":"2.0","method":"meth/od","params":{"count":5,"name":"v<&'))
        self.assertEqual((len(self.listener.peers), self.lines()), (1, ""))

    async def test_event_param(self) -> None:
        """The name of the event is among the parameters, if there are any."""
        self.start(event_param="evname")
        await self.bus.subscribe(self.event, f"tcp:127.0.0.1:{self.number}/m")
        self.event.emit(a=1)
        self.bus.tell(self.event, (1,))
        self.event.emit()
        await self.until(lambda: self.listener.data.count(b'"method"') == 3)
        params = [each.get("params") for each in self.listener.objects]
        self.assertEqual(params, [{"evname": "E_A", "a": 1}, ["E_A", 1], None])

    async def test_answers(self) -> None:
        """In reliable_mode an event has arrived when it is answered: in any order; errors and silence are no."""
        self.start(reliable_mode=1, timeout=150)
        self.listener.answer = lambda data: b"\r\n".join(
            json.dumps({"jsonrpc": "2.0", "id": each["id"], "result": 1}).encode() for each in self.listener.objects[::-1]
        )
        first, second = self.tell(a=1), self.tell("/m")
        self.assertEqual([await first, await second], [True, True])
        self.assertEqual(len({each["id"] for each in self.listener.objects}), 2)
        self.listener.answer = lambda data: json.dumps({"id": json.loads(data)["id"], "error": {"code": 7}}).encode()
        self.assertFalse(await self.tell())
        self.assertIn("it answers {'code': 7}", self.lines())
        self.server.user._quiet.clear()
        self.listener.answer = lambda data: b'[1]{"id":"x","result":1}{"id":99,"result":1}{'
        self.assertFalse(await self.tell())
        self.assertIn("has not answered in time", self.lines())
        self.listener.answer = lambda data: b"{" * (event_stream.MAX_ANSWER + 10)
        self.assertFalse(await self.tell())
        await self.until(lambda: not self.listener.peers[0].transport.connected)

    async def test_nested(self) -> None:
        """An answer nested without end costs the connection, and no traceback."""
        self.start(reliable_mode=1, timeout=2000)
        self.listener.answer = lambda data: b"[" * 30_000
        self.assertFalse(await self.tell())
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertFalse(self.module._links and any(link._asked for link in self.module._links.values()))

    async def test_nobody(self) -> None:
        """Where nobody listens events are lost at once, for a second without asking; later they are told again."""
        self.start()
        await self.port.stopListening()
        self.assertFalse(await self.tell())
        self.assertFalse(await self.tell())
        self.assertIn(f"E_A is not told to tcp:127.0.0.1:{self.number}: ", self.lines())
        self.port = self.reactor.listenTCP(self.number, self.listener, interface="127.0.0.1")
        now = self.reactor.seconds
        self.server.user.clock = lambda: now() + 2
        self.assertTrue(await self.tell())

    async def test_broken(self) -> None:
        """A connection that ends is opened again at the next event; what was not answered is lost."""
        self.start(reliable_mode=1)
        lost = Deferred.fromCoroutine(self.tell())
        await self.until(lambda: self.listener.data)
        self.listener.peers[0].transport.abortConnection()
        self.assertFalse(await lost)
        self.listener.answer = lambda data: json.dumps({"id": json.loads(data)["id"], "result": 1}).encode()
        self.assertTrue(await self.tell())
        self.assertEqual(len(self.listener.peers), 2)

    async def test_slow(self) -> None:
        """Whoever does not read costs a bounded number of events, and nothing else: then the connection is cut."""
        self.start(timeout=200)
        self.patch(event_stream, "MAX_WAITING", 20)
        self.listener.deaf = True
        sink = await self.bus.open(f"tcp:127.0.0.1:{self.number}")
        sink.send("E_A", {})
        await self.until(lambda: self.listener.peers)
        link = self.module._links["127.0.0.1", self.number]
        told: list[Any] = []
        while link._connection is not None:  # what the kernel holds has to be filled first
            told += [sink.send("E_A", {"a": "x" * 300_000}) for _ in range(30)]
            self.assertLessEqual(len(link._queue), 20)
            await deferLater(self.reactor, 0.02, lambda: None)
        self.assertIn(False, [await each if isinstance(each, Deferred) else each for each in told])
        self.assertIn("20 events are waiting", self.lines())

    async def test_sockets(self) -> None:
        """What is no socket is refused with what to write."""
        self.start()
        for text in ("tcp:127.0.0.1", "tcp:127.0.0.1:0", "tcp:127.0.0.1:x/m", "tcp:::1:80", "tcp:nosuch.invalid:80", "tcp:"):
            with self.assertRaises(ValueError, msg=text):
                await self.bus.open(text)
        for value in (0, -1, 10**9):
            self.assertRaises(ValueError, self.module.set_parameter, "timeout", value)
        with_name = await self.bus.open("tcp:127.0.0.1:80/a"), await self.bus.open("tcp:127.0.0.1:80/a")
        self.assertEqual(*with_name)
        self.assertNotEqual(with_name[0], await self.bus.open("tcp:127.0.0.1:80/b"))
