"""Tests of sipgw.core.profiling: what is told of messages, commands and timers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from sipgw.testing import finished, pass_time
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


class ScriptProfileTests(Served):
    """A script that is profiled."""

    SCRIPT = HEAD + """
    route { route(sub, 1); $var(x) = "other"; route($var(x)); route(nested); exit; }
    route[sub] { return(3); }
    route[other] { return(5); }
    route[nested] { route(sub, 2); }
    """

    def setUp(self) -> None:
        self.heard = Ears()

    def listen(self, seconds: int | None = None) -> None:
        """Hear of it."""
        event = self.user.events.publish("E_PROFILING_SCRIPT")
        self.user.events.join(event, "ear:a", finished(self.heard.open("a")), seconds)

    def told(self) -> list[tuple[Any, ...]]:
        """What was told since the last time."""
        told = [each for _, _, each in self.heard.told]
        found = [(each["session"], each["verb"], each["name"], each["depth"], each.get("status")) for each in told]
        self.heard.told.clear()
        return found

    def test_routes(self) -> None:
        """The routes that begin, those that they call, by name or by a variable, and what each gives; while somebody hears it."""
        self.serve(self.SCRIPT)
        self.request()
        self.listen()
        pass_time(self.clock, 1.1)
        for session in (1, 2):
            self.request()
            self.assertEqual(
                self.told(),
                [
                    (session, "start", "<root>", 1, None), (session, "enter", "<root>", 1, None),
                    (session, "enter", "sub", 2, None), (session, "exit", "sub", 2, 3),
                    (session, "enter", "other", 2, None), (session, "exit", "other", 2, 5),
                    (session, "enter", "nested", 2, None), (session, "enter", "sub", 3, None), (session, "exit", "sub", 3, 3),
                    (session, "exit", "nested", 2, 3),
                    (session, "exit", "<root>", 1, 0), (session, "end", "<root>", 1, 0),
                ],
            )
        self.listen(0)
        pass_time(self.clock, 1.1)
        self.request()
        self.assertEqual(self.told(), [])

    def test_own_route(self) -> None:
        """An event route hears of the script from the first message on, and not of itself."""
        self.serve(HEAD + 'route { exit; }\nevent_route[E_PROFILING_SCRIPT] { xlog("L_ALERT", "$param(verb) $param(name)\\n"); }')
        self.request()
        pass_time(self.clock, 0.1)
        lines = [text.strip() for level, text in self.wired.lines if level == -3]
        self.assertEqual(lines, ["start <root>", "enter <root>", "exit <root>", "end <root>"])

    def test_waiting(self) -> None:
        """A route that waits exits when it has ended."""
        self.serve(HEAD + 'loadmodule "cfgutils.so"\nroute { route(slow); exit; }\nroute[slow] { sleep(2); return(4); }')
        self.listen()
        pass_time(self.clock, 1.1)
        self.request()
        self.assertEqual([each[1:3] for each in self.told()], [("start", "<root>"), ("enter", "<root>"), ("enter", "slow")])
        pass_time(self.clock, 2)
        self.assertEqual([each[1:3] for each in self.told()], [("exit", "slow"), ("exit", "<root>"), ("end", "<root>")])
