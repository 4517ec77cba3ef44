"""Tests of sipgw.core.events: who is told of what, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core import events
from sipgw.core.events import EventBus, Params
from sipgw.script.routes import Route, RouteSet
from sipgw.script.runtime import event_param
from sipgw.script.symbols import RouteKind
from sipgw.testing import FakeServer


@dataclass(frozen=True)
class Ear:
    """A sink that keeps what it is told; those of one address are equal."""

    address: str
    heard: list[tuple[str, Any]] = field(default_factory=list, compare=False)

    def send(self, event: str, params: Params) -> bool:
        """Keep it, or break."""
        if self.address == "broken":
            raise RuntimeError("ear")
        self.heard.append((event, params))
        return True


class Ears:
    """The transport ``ear:address``."""

    def __init__(self) -> None:
        self.made: list[Ear] = []

    async def open(self, address: str) -> Ear:
        """A new ear."""
        if not address:
            raise ValueError("write ear:address")
        self.made.append(Ear(address))
        return self.made[-1]


class BusTests(SynchronousTestCase):
    """Events and subscriptions on a clock."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.bus: EventBus = self.server.user.events
        self.ears = Ears()
        self.bus.add_transport("ear", self.ears)
        self.event = self.bus.publish("E_TEST", ("one", "two"))

    def subscribe(self, socket: str, seconds: int | None = None, name: str = "E_TEST") -> None:
        """Subscribe, or raise what the bus raises."""
        done: Any = ensureDeferred(self.bus.subscribe(self.bus.publish(name), socket, seconds))
        failed: list[BaseException] = []
        done.addErrback(lambda failure: failed.append(failure.value))
        self.successResultOf(done)
        if failed:
            raise failed[0]

    def listed(self) -> list[tuple[str, int | None]]:
        """The subscriptions of the event."""
        return [(each.socket, each.seconds) for each in self.bus.subscriptions(self.event)]

    def test_publish(self) -> None:
        """An event is made once, with its number; whoever declares it later adds its parameters."""
        self.assertIs(self.bus.publish("E_TEST"), self.event)
        self.assertEqual((self.event.name, self.event.number, self.event.parameters), ("E_TEST", 0, ("one", "two")))
        raised = self.bus.publish("E_OTHER")
        self.bus.publish("E_OTHER", ["x"])
        self.assertEqual((raised.number, raised.parameters), (1, ("x",)))
        self.assertEqual([each.name for each in self.bus], ["E_TEST", "E_OTHER"])
        self.assertIsNone(self.bus.find("E_NONE"))
        for name in ("", "E X", "E\n"):
            self.assertRaises(ValueError, self.bus.publish, name)

    def test_bounds(self) -> None:
        """Neither events nor subscriptions grow without end; what is there can still be renewed."""
        self.patch(events, "MAX_EVENTS", 1)
        self.patch(events, "MAX_SUBSCRIPTIONS", 2)
        self.assertRaises(ValueError, self.bus.publish, "E_OTHER")
        self.assertIs(self.bus.publish("E_TEST"), self.event)
        self.subscribe("ear:a")
        self.subscribe("ear:b", 5)
        self.assertRaises(ValueError, self.subscribe, "ear:c")
        self.subscribe("ear:a", 9)
        self.server.reactor.advance(6)
        self.subscribe("ear:c")
        self.assertEqual(self.listed(), [("ear:c", None), ("ear:a", 9)])

    def test_told(self) -> None:
        """All subscribers are told, the newest first; one that breaks is logged and costs the others nothing."""
        self.assertFalse(self.event.heard)
        self.event.emit(one=1)
        self.subscribe("ear:a")
        self.subscribe("ear:broken")
        self.subscribe("ear:b")
        self.assertTrue(self.event.heard)
        self.event.emit(one=1, two="2")
        self.bus.tell(self.event, (5,))
        told = [("E_TEST", {"one": 1, "two": "2"}), ("E_TEST", (5,))]
        self.assertEqual([ear.heard for ear in self.ears.made], [told, [], told])
        self.assertIn("RuntimeError: ear", self.server.lines[0][1])
        self.assertEqual([socket for socket, _ in self.listed()], ["ear:b", "ear:broken", "ear:a"])

    def test_time(self) -> None:
        """A subscription ends when its time is over; the same socket again begins anew; 0 ends it."""
        self.subscribe("ear:a", 5)
        self.server.reactor.advance(4)
        self.subscribe("ear:a", 5)
        self.server.reactor.advance(4)
        self.event.emit()
        self.assertEqual(self.listed(), [("ear:a", 5)])
        self.server.reactor.advance(1)
        self.event.emit()
        self.assertEqual(len(self.ears.made[0].heard), 1)
        self.assertFalse(self.event.heard)
        self.subscribe("ear:a")
        self.server.reactor.advance(1e6)
        self.assertEqual(self.listed(), [("ear:a", None)])
        self.subscribe("ear:a", 0)
        self.assertEqual(self.listed(), [])
        self.subscribe("ear:a", 0)
        self.assertEqual(self.listed(), [])

    def test_no_socket(self) -> None:
        """A socket of no transport, and one that its transport refuses, are none; a prefix has one transport."""
        for socket in ("", "ear", "nose:a", "ear:", ":", "route:E_TEST"):
            self.assertRaises(ValueError, self.subscribe, socket)
        self.assertRaises(ValueError, self.bus.add_transport, "ear", self.ears)
        self.assertFalse(self.event.heard)


class RouteTests(SynchronousTestCase):
    """Event routes."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.user = self.server.user
        self.bus = self.user.events
        self.ran: list[Any] = []

    def follow(self, waits: bool = False, **functions: Any) -> None:
        """Let these be the event routes."""
        routes = RouteSet()
        for name, function in functions.items():
            routes.events[name] = Route(name, RouteKind.EVENT, function, waits, "test.cfg", 1)
        self.user.routes = routes
        self.bus.follow(routes)

    def test_params(self) -> None:
        """The route runs in the next turn, on the message of nobody, with the event's parameters by name and place."""

        def route(run: Any) -> int:
            keys = ("one", "two", "three", 1, "2", 3, 0)
            self.ran.append([run.message.method, run.kind, *(event_param(run, key) for key in keys)])
            return 1

        self.follow(E_TEST=route)
        event = self.bus.find("E_TEST")
        assert event is not None
        event.emit(one=1, two="b")
        self.bus.tell(event, ("x", 7))
        self.assertEqual(self.ran, [])
        self.server.reactor.advance(0)
        named = ["DUMMY", RouteKind.EVENT, 1, "b", None, 1, "b", None, None]
        self.assertEqual(self.ran, [named, ["DUMMY", RouteKind.EVENT, None, None, None, "x", 7, None, None]])

    def test_follow(self) -> None:
        """After a reload the routes that are there are subscribed, once, and others stay as they were."""
        self.follow(E_A=lambda run: 1, E_B=lambda run: 1)
        self.successResultOf(ensureDeferred(self.bus.subscribe(self.bus.publish("E_A"), "route:E_B", 60)))
        self.follow(E_B=lambda run: self.ran.append("B"), E_C=lambda run: self.ran.append("C"))
        shown = {each.name: [(s.socket, s.seconds) for s in each.subscriptions] for each in self.bus}
        self.assertEqual(shown, {"E_A": [("route:E_B", 60)], "E_B": [("route:E_B", None)], "E_C": [("route:E_C", None)]})
        for event in self.bus:
            event.emit()
        self.server.reactor.advance(0)
        self.assertEqual(self.ran, ["B", "B", "C"])

    def test_no_name(self) -> None:
        """A route whose name no event can have is logged, and the others are subscribed."""
        routes: dict[str, Any] = {"E A": lambda run: 1, "E_B": lambda run: 1}
        self.follow(**routes)
        self.assertEqual([each.name for each in self.bus], ["E_B"])
        self.assertIn("event_route[E A] never runs", self.server.lines[0][1])

    def test_gone(self) -> None:
        """A route that is gone when its turn comes does not run."""
        self.follow(E_A=lambda run: self.ran.append("A"))
        self.bus.publish("E_A").emit()
        self.follow()
        self.server.reactor.advance(0)
        self.assertEqual(self.ran, [])

    def test_chain(self) -> None:
        """A route that raises its own event runs again after it has ended, not inside itself."""

        def route(run: Any) -> int:
            self.ran.append("in")
            if len(self.ran) < 6:
                self.bus.publish("E_A").emit()
            self.ran.append("out")
            return 1

        self.follow(E_A=route)
        self.bus.publish("E_A").emit()
        self.server.reactor.advance(0)
        self.assertEqual(self.ran, ["in", "out"] * 4)

    def test_flood(self) -> None:
        """So many runs wait and no more; the log says that some are left out."""
        self.patch(events, "MAX_WAITING", 3)
        self.follow(E_A=lambda run: self.ran.append("A"))
        for _ in range(5):
            self.bus.publish("E_A").emit()
        self.assertEqual([text for _, text in self.server.lines], ["event_route[E_A] is left out: 3 runs are waiting"])
        self.server.reactor.advance(0)
        self.assertEqual(self.ran, ["A"] * 3)


class LogTests(SynchronousTestCase):
    """E_CORE_LOG."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.user = self.server.user
        self.bus = self.user.events
        self.ears = Ears()
        self.bus.add_transport("ear", self.ears)

    def test_line(self) -> None:
        """A line is told with time, level and prefix; what the telling logs is not told."""
        self.bus.log_line("ERROR", "too early")
        event = self.bus.publish("E_CORE_LOG")
        self.bus.log_line("ERROR", "nobody hears")
        self.successResultOf(ensureDeferred(self.bus.subscribe(event, "ear:a")))
        heard: list[Any] = []

        def told(name: str, params: Params) -> bool:
            heard.append(params)
            self.bus.log_line("ERROR", "of the telling")
            return True

        object.__setattr__(self.ears.made[0], "send", told)
        self.bus.log_line("ERROR", "lost\n", "edge:")
        self.bus.log_line("DBG", "and found")
        first, second = heard
        self.assertEqual(list(first), ["time", "pid", "level", "prefix", "message"])
        self.assertRegex(str(first["time"]), r"^[A-Z][a-z][a-z] \d\d \d\d:\d\d:\d\d$")
        self.assertEqual((first["pid"], first["level"]), (self.user.pid, "ERROR"))
        self.assertEqual((first["prefix"], first["message"]), ("edge:", "lost"))
        self.assertEqual((second.get("prefix"), second["message"]), (None, "and found"))

    def test_route_that_waits(self) -> None:
        """While an event_route[E_CORE_LOG] runs, its lines are not told, however long it waits; afterwards lines are again."""
        gate: Deferred[None] = Deferred()
        told: list[Any] = []

        async def route(run: Any) -> int:
            told.append(run.params["message"])
            self.bus.log_line("ERROR", "before")
            await gate
            self.bus.log_line("ERROR", "after")
            return 1

        routes = RouteSet()
        routes.events["E_CORE_LOG"] = Route("E_CORE_LOG", RouteKind.EVENT, route, True, "test.cfg", 1)
        self.user.routes = routes
        self.bus.follow(routes)
        self.bus.log_line("ERROR", "first")
        self.server.reactor.advance(0)
        gate.callback(None)
        self.server.reactor.advance(0)
        self.assertEqual(told, ["first"])
        self.bus.log_line("ERROR", "second")
        self.server.reactor.advance(0)
        self.assertEqual(told, ["first", "second"])
