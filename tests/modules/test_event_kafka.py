"""Tests of sipgw.modules.event_kafka: against a broker that librdkafka itself plays (its mock cluster), over real connections."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.modules.event_kafka import EventKafka, Place, parse_broker, parse_place
from sipgw.script.routes import Route
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.testing import FakeServer
from tests.doubles import request


class ParseTests(SynchronousTestCase):
    """Sockets and brokers as the script writes them."""

    def test_places(self) -> None:
        """Brokers, a topic, properties; nothing that would load code."""
        cases = [
            ("h:1,g:2/t", Place("h:1,g:2", "t")),
            ("h:1/t?t.message.timeout.ms=1000&key=callid", Place("h:1", "t", (("message.timeout.ms", "1000"),), True)),
            ("h/t?g.a=b=c&t.b=", Place("h", "t", (("a", "b=c"), ("b", "")))),
        ]
        for text, place in cases:
            self.assertEqual(parse_place(text), place)
        for text in ("h", "h/", "/t", "h,/t", "h/t?a=b", "h/t?g.=b", "h/t?g.a", "h/t?g.plugin.library.paths=/tmp/x", "h/t?key=x"):
            self.assertRaises(ValueError, parse_place, text)
        self.assertEqual(parse_broker("[k1]h:1/t"), ("k1", Place("h:1", "t")))
        for text in ("k1 h:1/t", "[k1]", "[]h:1/t"):
            self.assertRaises(ValueError, parse_broker, text)


class KafkaTests(TestCase):
    """Records that go out."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.cluster = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "none", "log_level": 0})
        (broker,) = self.cluster.list_topics(timeout=10).brokers.values()
        self.broker = f"{broker.host}:{broker.port}"

    async def start(self, *brokers: str) -> None:
        self.server = FakeServer()
        self.server.reactor = self.reactor
        self.module = EventKafka(self.server)
        for text in brokers:
            self.module.set_parameter("broker_id", text)
        await self.module.start()
        self.addCleanup(self.module.stop)

    async def tell(self, options: str = "", place: str = "", **values: Any) -> bool:
        sink = await self.server.user.events.open(f"kafka:{place or self.broker}/events{options}")
        told = sink.send("E_A", values)
        return await told if isinstance(told, Deferred) else told

    async def read(self, count: int) -> list[tuple[Any, bytes]]:
        """The keys and the values of the first records, in the order of the keys."""
        settings = {"bootstrap.servers": self.broker, "group.id": "test", "auto.offset.reset": "earliest", "log_level": 0}
        consumer = Consumer(settings)
        try:
            consumer.assign([TopicPartition("events", number, OFFSET_BEGINNING) for number in range(4)])
            found: list[Any] = []
            while len(found) < count:
                found += await deferToThread(consumer.consume, count - len(found), 0.1)
        finally:
            await deferToThread(consumer.close)
        return sorted(((each.key(), each.value()) for each in found), key=lambda pair: pair[0] or b"")

    async def until(self, condition: Callable[[], Any]) -> None:
        while not condition():
            await deferLater(self.reactor, 0.01, lambda: None)

    async def test_events(self) -> None:
        """An event is a JSON-RPC notification; with key=callid its key is the Call-ID of the message at hand."""
        await self.start()
        self.assertTrue(await self.tell(ip="192.0.2.1"))
        run = Run(request(), RouteKind.REQUEST, None, 0.0, self.server.user)
        self.assertEqual(run.message.call_id, "call1@example.org")
        self.assertTrue(await self.tell("?key=callid"))
        (first, body), (second, _) = await self.read(2)
        self.assertEqual(json.loads(body), {"jsonrpc": "2.0", "method": "E_A", "params": {"ip": "192.0.2.1"}})
        self.assertEqual((first, second), (None, b"call1@example.org"))

    async def test_publish(self) -> None:
        """A record of the script has its key; the report route hears what became of it."""
        await self.start(f"[k1]{self.broker}/events?g.linger.ms=1", "[k2]127.0.0.1:1/events?t.message.timeout.ms=100")
        reports: list[Any] = []
        report = Route("report", RouteKind.REQUEST, lambda run: reports.append(dict(run.avps)))
        self.server.user.routes.named["report"] = report
        run = Run(request(), RouteKind.REQUEST, None, 0.0, self.server.user)
        publish = self.module.kafka_publish
        self.assertTrue(publish(run, "k1", "hé\udcff", "key", "report"))
        await self.until(lambda: reports)
        self.assertTrue(publish(run, "k2", "lost", None, "report"))
        await self.until(lambda: len(reports) == 2)
        self.assertEqual(reports, [
            {"kafka_id": ["k1"], "kafka_status": [0], "kafka_key": ["key"], "kafka_msg": ["hé\udcff"]},
            {"kafka_id": ["k2"], "kafka_status": [-1], "kafka_msg": ["lost"]},
        ])
        self.assertEqual(await self.read(1), [(b"key", "hé".encode() + b"\xff")])
        self.assertFalse(publish(run, "nosuch", "lost"))
        self.assertIn("there is no broker_id 'nosuch'", self.server.lines[-1][1])

    async def test_failures(self) -> None:
        """What cannot be queued or delivered is lost, and told; a property that is none is refused."""
        await self.start()
        self.assertFalse(await self.tell("?t.message.timeout.ms=100", "127.0.0.1:1"))
        self.assertIn("is lost: ", "".join(text for _, text in self.server.lines))
        self.server.lines.clear()
        sink = await self.server.user.events.open("kafka:127.0.0.1:1/events?g.queue.buffering.max.messages=1&g.linger.ms=5")
        told = [sink.send("E_A", {}) for _ in range(3)]
        self.assertEqual(told[1:], [False, False])
        with self.assertRaises(ValueError) as caught:
            await self.server.user.events.open("kafka:h:1/t?g.nosuch=1")
        self.assertIn("nosuch", str(caught.exception))
