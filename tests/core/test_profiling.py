"""Tests of sipgw.core.profiling: what is told of messages, commands and timers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from sipgw.testing import finished
from tests.ears import Ears
from tests.modules.test_core_events import HEAD, Served

SCRIPT = HEAD + """
route { route(sub); raise_event("E_MINE"); exit; }
route[sub] { return(1); }
event_route[E_MINE] { exit; }
timer_route[tick, 5] { xlog("tick"); }
"""


class ProfilingTests(Served):
    """A server that is profiled."""

    def setUp(self) -> None:
        self.serve(SCRIPT)
        self.heard = Ears()
        event = self.user.events.publish("E_PROFILING_PROC")
        self.user.events.join(event, "ear:a", finished(self.heard.open("a")))

    def steps(self) -> list[tuple[Any, ...]]:
        """What was told since the last time: session, verb, name, depth."""
        told = [params for _, _, params in self.heard.told]
        self.heard.told.clear()
        return [(each["session"], each["verb"], each["name"], each["depth"]) for each in told]

    def test_message(self) -> None:
        """A message is a session with its route inside; the event route that it runs is one of its own, later."""
        self.ask("profiling_proc", {"level": 1})
        self.request()
        last = self.heard.told[3][2]
        self.assertEqual((last["file"], last["line"], last["status"], last["type"]), ("opensips.cfg", 8, 0, 1))
        self.assertEqual(
            self.steps(),
            [
                (1, "start", "SIP receiver udp:127.0.0.1:5060", 0),
                (1, "enter", "receive_msg", 1),
                (1, "enter", "request_script", 2),
                (1, "exit", "request_script", 1),
                (1, "exit", "receive_msg", 0),
                (1, "end", "SIP receiver udp:127.0.0.1:5060", 0),
            ],
        )
        self.clock.advance(0)
        self.assertEqual(
            self.steps(),
            [
                (2, "start", "event_route[E_MINE]", 0),
                (2, "enter", "event_route[E_MINE]", 1),
                (2, "exit", "event_route[E_MINE]", 0),
                (2, "end", "event_route[E_MINE]", 0),
            ],
        )

    def test_levels(self) -> None:
        """Level 2 tells of commands too, 3 of timers too; 0 tells of nothing and leaves no trace."""
        methods = (vars(self.user).keys() | set(), vars(self.wired.server.commands).keys() | set())
        self.ask("profiling_proc", {"level": 2})
        self.ask("core:ps")
        names = [name for _, verb, name, _ in self.steps() if verb == "start"]
        self.assertEqual(names, ["MI core:ps"])
        self.ask("profiling_proc", {"level": 3})
        self.steps()
        self.user.after(1, lambda now: None)
        self.clock.advance(1)
        self.assertIn("timer", [name for _, verb, name, _ in self.steps() if verb == "start"])
        self.ask("profiling_proc", {"level": 1})
        self.steps()
        self.ask("core:ps")
        self.assertEqual(self.steps(), [])
        self.ask("profiling_proc", {"level": 0})
        self.request()
        self.assertEqual(self.steps(), [])
        self.assertEqual((vars(self.user).keys(), vars(self.wired.server.commands).keys()), methods)

    def test_waiting(self) -> None:
        """A route that waits leaves its step when it ends, after the session that it began in."""
        self.ask("profiling_proc", {"level": 1})
        gate: Deferred[None] = Deferred()
        route = self.user.routes.request
        assert route is not None

        async def wait(_run: Any) -> int:
            await gate
            return 5

        route.function, route.waits = wait, True
        self.request()
        before = self.steps()
        gate.callback(None)
        ((session, verb, name, depth),) = self.steps()
        self.assertEqual(before[-1][:2], (1, "end"))
        self.assertEqual((session, verb, name, depth), (1, "exit", "request_script", 1))

    def test_broken(self) -> None:
        """What breaks is an end too."""
        self.ask("profiling_proc", {"level": 2})
        self.assertEqual(self.ask("core:nosuch")[0], -32601)
        self.assertEqual([verb for _, verb, _, _ in self.steps()], ["start", "enter", "exit", "end"])
