"""Tests of sipgw.modules.event_rabbitmq: a real RabbitMQ, where what was published is read by pika's own blocking client."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from sipgw.modules import event_rabbitmq
from sipgw.modules.event_rabbitmq import EventRabbitmq, Place, parse_server, parse_socket
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.testing import FakeServer
from tests.doubles import request
from tests.servers.rabbitmq import missing, rabbitmq


class Values:
    """An AVP, its newest value first."""

    def __init__(self, *values: Any) -> None:
        self.values = values
        self.get: Any = None
        self.set: Any = None

    def at(self, run: Any, index: int) -> Any:
        """One of its values."""
        return self.values[index] if index < len(self.values) else None


class ParseTests(SynchronousTestCase):
    """Sockets and servers as the script writes them."""

    def test_sockets(self) -> None:
        """All but the host and the routing key may be left out."""
        cases: list[tuple[str, Any]] = [
            ("127.0.0.1/pike", (Place("127.0.0.1"), "", "pike", False)),
            ("u:p@host:99/pike", (Place("host", 99, "u", "p"), "", "pike", False)),
            ("u:p@w@[::1]:99/exchange=ex;persistent?pi/ke", (Place("::1", 99, "u", "p@w"), "ex", "pi/ke", True)),
            ("[::1]/persistent?k", (Place("::1"), "", "k", True)),
        ]
        for text, expected in cases:
            self.assertEqual(parse_socket(text), expected, text)
        for text in ("host", "host/", "/key", "host:x/key", "host:0/key", "h/tls_domain=a?k", "h/nosuch?k", "h/exchange=a?"):
            self.assertRaises(ValueError, parse_socket, text)
        self.assertNotIn("secret", repr(parse_socket("u:secret@h/k")))

    def test_servers(self) -> None:
        """A server has an id and a URI; what this version cannot do is refused with why."""
        made = parse_server("[ID1] uri = amqp://u:p%40w@h:99/v%2Fh;exchange=ex;retries=2; mandatory;non-persistent;heartbeat = 5")
        self.assertEqual(made.place, Place("h", 99, "u", "p@w", "v/h", heartbeat=5))
        self.assertEqual((made.id, made.exchange, made.retries, made.mandatory, made.persistent), ("ID1", "ex", 2, True, False))
        self.assertEqual(parse_server("[a] uri=amqp://").place, Place("localhost"))
        for text, said in (("ID1 uri=amqp://h", "write [id]"), ("[a]", "uri must be"), ("[a] uri=http://h", "uri must be"),
                           ("[a] uri=amqps://h", "no tls_mgm"), ("[a] uri=amqp://h; immediate", "no immediate"),
                           ("[a] uri=amqp://h; retries=x", "retries is"), ("[a] uri=amqp://h; nosuch=1", "there is no 'nosuch'")):
            self.assertIn(said, str(self.assertRaises(ValueError, parse_server, text)))
        self.assertRaises(ValueError, EventRabbitmq().set_parameter, "use_tls", 1)


class RabbitTests(TestCase):
    """Messages that go out."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        if missing():
            raise SkipTest(missing())
        self.reactor: Any = reactor
        self.broker = rabbitmq()
        self.client: Any = None
        self.theirs: Any = None
        self.addCleanup(self.broker.restore)

    async def start(self, *servers: str, **parameters: Any) -> None:
        self.server = FakeServer()
        self.server.reactor = self.reactor
        self.server.user.clock = self.reactor.seconds
        self.module = EventRabbitmq(self.server, connect_timeout=5000, **parameters)
        for text in servers:
            self.module.set_parameter("server_id", text)
        await self.module.start()
        self.addCleanup(self.stop)
        self.queue = await deferToThread(self.blocking, lambda channel: channel.queue_declare("").method.queue)

    async def stop(self) -> None:
        ended = [broker._protocol.closed for broker in self.module._brokers.values() if broker._protocol is not None]
        await self.module.stop()
        for each in ended:
            if each is not None:
                await each

    def blocking(self, call: Any) -> Any:
        """What ``call`` does on a channel of a client of its own."""
        from pika import BlockingConnection, URLParameters

        if self.client is None:
            self.client = BlockingConnection(URLParameters(self.broker.uri))
            self.addCleanup(self.client.close)
            self.theirs = self.client.channel()
        return call(self.theirs)

    async def get(self) -> tuple[Any, Any]:
        """The properties and the body of the next message."""
        got = await deferToThread(self.blocking, lambda channel: channel.basic_get(self.queue, auto_ack=True))
        _method, properties, body = got
        return properties, body

    async def tell(self, params: Any, options: str = "", key: str = "", place: str = "") -> bool:
        place = place or f"127.0.0.1:{self.broker.port}"
        sink = await self.server.user.events.open(f"rabbitmq:{place}/{options}{key or self.queue}")
        told = sink.send("E_A", params)
        return await told if isinstance(told, Deferred) else told

    def said(self) -> str:
        text = "\n".join(text for _, text in self.server.lines)
        self.server.lines.clear()
        self.server.user._quiet.clear()
        return text

    async def test_events(self) -> None:
        """An event is a JSON-RPC notification; one connection carries all of them; only persistent ones last."""
        await self.start()
        self.assertTrue(await self.tell({"ip": "192.0.2.1"}))
        self.assertTrue(await self.tell((1, "é"), "persistent?"))
        properties, body = await self.get()
        self.assertEqual(json.loads(body), {"jsonrpc": "2.0", "method": "E_A", "params": {"ip": "192.0.2.1"}})
        self.assertEqual(properties.delivery_mode, 1)
        properties, body = await self.get()
        self.assertEqual((json.loads(body)["params"], properties.delivery_mode), ([1, "é"], 2))
        self.assertEqual(len(self.module._brokers), 1)

    async def test_publish(self) -> None:
        """A message of the script has its type and its headers; one that goes nowhere fails if it must not."""
        uri = self.broker.uri
        await self.start(f"[ID1] uri={uri}", f"[ID2] uri={uri}; mandatory; non-persistent")
        run = Run(request(), RouteKind.REQUEST, None, 0.0, self.server.user)
        names, values = Values("callee", "caller"), Values("bob", 7)
        publish = self.module.rabbitmq_publish
        self.assertTrue(await publish(run, "ID1", self.queue, "hé\udcff", "text/plain", names, values))
        properties, body = await self.get()
        self.assertEqual((body, properties.content_type, properties.delivery_mode), ("hé".encode() + b"\xff", "text/plain", 2))
        self.assertEqual(properties.headers, {"caller": 7, "callee": "bob"})
        self.assertTrue(await publish(run, "ID1", "nosuch", "lost, and nobody minds"))
        self.assertFalse(await publish(run, "ID2", "nosuch", "lost"))
        self.assertIn("a message for 'nosuch' is not published", self.said())
        self.assertTrue(await publish(run, "ID2", self.queue, "found"))
        self.assertFalse(await publish(run, "nosuch", self.queue, "lost"))
        self.assertIn("there is no server_id 'nosuch'", self.said())
        self.assertFalse(await publish(run, "ID1", self.queue, "lost", None, names, None))
        self.assertIn("each header needs one value", self.said())

    async def test_failures(self) -> None:
        """A wrong password or exchange, a broker that stands still or is not there: an event is lost, and later ones arrive."""
        await self.start(timeout=300)
        own = f"127.0.0.1:{self.broker.port}"
        self.assertFalse(await self.tell({}, place=f"guest:wrong@{own}"))
        self.assertNotIn("wrong", self.said())
        self.assertFalse(await self.tell({}, "exchange=nosuch?"))
        self.assertIn("no exchange 'nosuch'", self.said())
        self.assertTrue(await self.tell({}))
        self.broker.freeze()
        self.assertFalse(await self.tell({}))
        self.assertIn("not confirmed it in time", self.said())
        self.patch(event_rabbitmq, "MAX_WAITING", 0)
        self.assertFalse(await self.tell({}))
        self.assertIn("0 messages are waiting", self.said())
        self.patch(event_rabbitmq, "MAX_WAITING", 10)
        self.broker.thaw()
        self.assertTrue(await self.tell({"again": 1}))
        self.assertFalse(await self.tell({}, place="127.0.0.1:1"))
        self.assertFalse(await self.tell({}, place="127.0.0.1:1"))
        self.assertIn("refused", self.said())
