"""event_kafka: events as records of Kafka, and ``kafka_publish`` for records of the script's own.

A socket is ``kafka:host:port,host:port/topic?g.property=value&t.property=value&key=callid``; the properties are those of
librdkafka, which does the work in threads of its own (confluent-kafka): it gathers records, finds the brokers of a topic, tries
again. Its queue has ``QUEUE`` records unless a property says otherwise; what does not fit is lost, and the log says so."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from sipgw.core.context import call_id_of, handled
from sipgw.core.events import Params, Sink, run_alone
from sipgw.exports import Module, RouteName, function, param
from sipgw.mi.jsonrpc import notification
from sipgw.script.run import Run

QUEUE = 10_000
"""Records that wait for a broker at most."""
BEAT = 0.02
"""Seconds between two looks at what became of records, while there are any."""
LAST = 0.4
"""Seconds that records have to go out when the server stops."""
REFUSED = ("plugin.library.paths", "ssl.engine.location", "ssl.providers")
"""Properties that load code: sockets may come over the management interface."""


@dataclass(frozen=True, slots=True)
class Place:
    """Brokers, a topic on them, and how they are spoken to. ``keyed``: records have the Call-ID as their key."""

    brokers: str
    topic: str
    properties: tuple[tuple[str, str], ...] = ()
    keyed: bool = False


def parse_place(text: str) -> Place:
    """Read ``host:port,.../topic?g.name=value&...``; ``ValueError`` says what is wrong with it."""
    brokers, slash, rest = text.partition("/")
    topic, _, options = rest.partition("?")
    if not slash or not brokers or not topic or any(not each.strip() for each in brokers.split(",")):
        raise ValueError("write kafka:host:port,host:port/topic?g.name=value&t.name=value")
    found: dict[str, str] = {}
    keyed = False
    for option in filter(None, options.split("&")):
        name, equals, value = option.partition("=")
        if option == "key=callid":
            keyed = True
        elif not equals or name[:2] not in ("g.", "t.") or not name[2:]:
            raise ValueError(f"bad property {option!r}: write g.name=value or t.name=value, or key=callid")
        elif name[2:] in REFUSED:
            raise ValueError(f"{name[2:]} would load code, and is not for sockets")
        else:
            found[name[2:]] = value
    return Place(brokers, topic, tuple(sorted(found.items())), keyed)


def parse_broker(text: str) -> tuple[str, Place]:
    """Read ``[id]host:port/topic?...``."""
    id, bracket, rest = text.strip().removeprefix("[").partition("]")
    if not text.strip().startswith("[") or not bracket or not id.strip():
        raise ValueError(f"bad broker {text!r}: write [id]host:port/topic")
    return id.strip(), parse_place(rest.strip())


class EventKafka(Module):
    """Tells of events through Kafka, and publishes records of the script."""

    broker_id: str = param(
        "", "Brokers and a topic to publish to: [id]host:port,host:port/topic?g.name=value", check=parse_broker, each="_add"
    )

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self._places: dict[str, Place] = {}
        self._producers: dict[tuple[Any, ...], Any] = {}
        self._waiting = 0
        self._beat: Any = None
        self._stopping = False
        super().__init__(server, **parameters)
        if server is not None:
            server.user.events.add_transport("kafka", self)

    def _add(self, text: str) -> None:
        id, place = parse_broker(text)
        self._places[id] = place

    async def start(self) -> None:
        """Make the producers of the ``broker_id``s; they connect by themselves."""
        for place in self._places.values():
            self._producer(place)

    async def stop(self) -> None:
        """Let go out what waits, for a moment."""
        self._stopping = True
        reactor = self.server.reactor
        ends = reactor.seconds() + LAST
        while self._waiting and reactor.seconds() < ends:
            await deferLater(reactor, BEAT, lambda: None)
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        self._producers.clear()

    def _producer(self, place: Place) -> Any:
        """What sends to these brokers; ``ValueError`` if it cannot be made."""
        key = place.brokers, place.properties
        found = self._producers.get(key)
        if found is not None:
            return found
        try:
            from confluent_kafka import KafkaException, Producer
        except ImportError:
            raise ValueError("event_kafka needs confluent-kafka: pip install sipgw[kafka]") from None
        log = self.server.user.log_rarely

        def failed(error: Any) -> None:
            log(("event_kafka", place.brokers), 1, f"event_kafka: {place.brokers}: {error.str()[:300]}")

        settings: dict[str, Any] = {"queue.buffering.max.messages": QUEUE, "log_level": 0, **dict(place.properties)}
        try:
            made = self._producers[key] = Producer({**settings, "bootstrap.servers": place.brokers, "error_cb": failed})
        except (KafkaException, TypeError, ValueError) as error:
            raise ValueError(f"kafka:{place.brokers}: {_say(error)}") from None
        return made

    async def open(self, address: str) -> Sink:
        """The sink of a socket; its brokers are looked for at once, and are not waited for."""
        place = parse_place(address)
        self._producer(place)
        return KafkaSink(self, place)

    def produce(self, place: Place, body: bytes, key: str | None, done: Callable[[str], None]) -> bool:
        """Queue one record; False if that cannot be. ``done(error)`` tells later what became of it, "" if it has arrived."""

        def delivered(error: Any, _record: Any) -> None:
            self._waiting -= 1
            if error is not None:
                self._lost(place, error.str())
            done("" if error is None else error.str())

        if self._stopping:
            return False
        try:
            octets = None if key is None else key.encode("utf-8", "surrogateescape")
            self._producer(place).produce(place.topic, body, octets, on_delivery=delivered)
        except Exception as error:  # BufferError: the queue is full; KafkaException: too long
            self._lost(place, _say(error))
            return False
        self._waiting += 1
        if self._beat is None:
            self._beat = self.server.reactor.callLater(BEAT, self._look)
        return True

    def _lost(self, place: Place, reason: str) -> None:
        where = f"{place.brokers}/{place.topic}"
        self.server.user.log_rarely(("kafka lost", where), 1, f"event_kafka: a record for {where} is lost: {reason[:300]}")

    def _look(self) -> None:
        """Hear what became of records."""
        self._beat = None
        for producer in list(self._producers.values()):
            producer.poll(0)
        if self._waiting and self._beat is None:
            self._beat = self.server.reactor.callLater(BEAT, self._look)

    @function()
    def kafka_publish(
        self, run: Run, broker_id: str, message: str, key: str | None = None, report_route: RouteName | None = None
    ) -> bool:
        """Queue a record; true if that could be. ``report_route`` runs when it has arrived or is lost, with ``$avp(kafka_id)``,
        ``$avp(kafka_status)`` (0 or -1), ``$avp(kafka_key)`` and ``$avp(kafka_msg)``."""
        place = self._places.get(broker_id)
        if place is None:
            run.user.log_rarely(("kafka_publish", broker_id), -1, f"kafka_publish: there is no broker_id {broker_id!r}")
            return False

        def done(error: str) -> None:
            if report_route is not None:
                self._report(report_route, broker_id, message, key, -1 if error else 0)

        return self.produce(place, message.encode("utf-8", "surrogateescape"), key, done)

    def _report(self, name: str, id: str, message: str, key: str | None, status: int) -> None:
        user = self.server.user
        route = user.routes.named.get(name)
        if route is None:
            user.log_rarely(("kafka report", name), -1, f"kafka_publish: there is no route[{name}] any more")
            return
        run = run_alone(route, user)
        run.avps.update(kafka_id=[id], kafka_status=[status], kafka_msg=[message])
        if key is not None:
            run.avps["kafka_key"] = [key]
        user.execute(route, run)


@dataclass(frozen=True, slots=True)
class KafkaSink:
    """One topic."""

    module: EventKafka
    place: Place

    def send(self, event: str, params: Params) -> bool | Deferred[bool]:
        """Queue one event."""
        key = call_id_of(handled(sys._getframe(1))[0]) if self.place.keyed else ""
        told: Deferred[bool] = Deferred()
        queued = self.module.produce(
            self.place, notification(event, params), key or None, lambda error: told.callback(not error)
        )
        return told if queued else False


def _say(error: BaseException) -> str:
    """An error of the library in words."""
    first = error.args[0] if error.args else ""
    return str(first.str()) if hasattr(first, "str") else str(error) or type(error).__name__
