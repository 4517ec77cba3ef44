"""Tests of sipgw.modules.event_virtual: whom each policy tells."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.event_virtual import EventVirtual
from sipgw.testing import FakeServer


class Switch:
    """The transport ``switch:name``: what each sink answers is in ``answers``, True unless said."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.told: list[str] = []

    async def open(self, address: str) -> Any:
        """One sink."""
        return Lamp(self, address)


class Lamp:
    """One sink of a switch."""

    def __init__(self, switch: Switch, name: str) -> None:
        self.switch, self.name = switch, name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lamp) and other.name == self.name

    def send(self, event: str, params: Any) -> Any:
        """Note it, and answer."""
        self.switch.told.append(self.name)
        return self.switch.answers.get(self.name, True)


class VirtualTests(SynchronousTestCase):
    """Virtual sockets on a clock."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.module = EventVirtual(self.server, failover_timeout=10)
        self.bus = self.server.user.events
        self.switch = Switch()
        self.bus.add_transport("switch", self.switch)
        self.event = self.bus.publish("E_X")

    def subscribe(self, socket: str) -> str:
        """Subscribe; why it cannot be, or nothing."""
        caught: list[str] = []
        done: Any = ensureDeferred(self.bus.subscribe(self.event, socket))
        done.addErrback(lambda failure: caught.append(str(failure.value)))
        self.successResultOf(done)
        return caught[0] if caught else ""

    def tell(self, times: int = 1) -> str:
        """Raise the event; the names of those that were told."""
        self.switch.told.clear()
        for _ in range(times):
            self.event.emit()
        return "".join(self.switch.told)

    def test_parallel(self) -> None:
        """All are told, whoever fails."""
        self.assertEqual(self.subscribe("virtual:PARALLEL switch:a  switch:b\tswitch:c"), "")
        self.switch.answers["a"] = False
        self.assertEqual(self.tell(2), "abcabc")

    def test_round_robin(self) -> None:
        """Each event has its own, in order."""
        self.subscribe("virtual:ROUND-ROBIN switch:a switch:b switch:c")
        self.switch.answers["b"] = False
        self.assertEqual(self.tell(5), "abcab")

    def test_failover(self) -> None:
        """The first that can be told is; one that could not is passed over for a time; when none can be, the log says so."""
        self.subscribe("virtual:FAILOVER switch:a switch:b")
        self.assertEqual(self.tell(2), "aa")
        self.switch.answers["a"] = False
        self.assertEqual(self.tell(3), "abbb")
        self.switch.answers["b"] = False
        self.assertEqual(self.tell(3), "b")
        (line,) = self.server.lines
        self.assertEqual(line[1], "E_X is told to nobody: no socket of its virtual one can be told")
        self.server.reactor.advance(10)
        self.switch.answers.clear()
        self.assertEqual(self.tell(1), "a")

    def test_failover_later(self) -> None:
        """A failure that is known only later lets the next one be told then."""
        self.subscribe("virtual:FAILOVER switch:a switch:b switch:c")
        first: Deferred[bool] = Deferred()
        self.switch.answers.update(a=first, b=False)
        self.assertEqual(self.tell(), "a")
        first.callback(False)
        self.assertEqual(self.switch.told, ["a", "b", "c"])
        self.assertEqual(self.tell(), "c")

    def test_same(self) -> None:
        """The same policy and sockets are the same subscriber."""
        for socket in ("PARALLEL switch:a switch:b", "PARALLEL  switch:a switch:b", "FAILOVER switch:a switch:b"):
            self.subscribe(f"virtual:{socket}")
        self.assertEqual(len(self.bus.subscriptions(self.event)), 2)

    def test_refused(self) -> None:
        """What has no policy, no sockets, too many, or one that is none, is refused."""
        for socket, said in [
            ("virtual:", "write virtual:POLICY"),
            ("virtual:parallel switch:a", "write virtual:POLICY"),
            ("virtual:PARALLEL", "write 1 to 32 sockets"),
            ("virtual:PARALLEL " + "switch:a " * 33, "write 1 to 32 sockets"),
            ("virtual:FAILOVER switch:a nosuch:1", "no module tells of events to 'nosuch:1'"),
            ("virtual:FAILOVER virtual:PARALLEL switch:a", "a virtual socket cannot be part"),
        ]:
            self.assertTrue(self.subscribe(socket).startswith(said), socket)
        self.assertRaises(ValueError, self.module.set_parameter, "failover_timeout", -1)
