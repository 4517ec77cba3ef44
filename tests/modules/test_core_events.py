"""Tests of sipgw.modules.core_events: events in scripts and by management commands; the answers are those of OpenSIPS 4.1."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi.jsonrpc import encode
from sipgw.script.errors import ScriptErrors
from sipgw.testing import Phone, WiredServer
from tests.ears import Ears

HEAD = """
log_level = 3
xlog_level = 3
socket = udp:127.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "sl.so"
"""
SCRIPT = (
    HEAD
    + """
startup_route {
    subscribe_event("E_MINE", "ear:a");
    xlog("$rc");
    subscribe_event("E_TIMED", "ear:a", 20);
    xlog("$rc");
    subscribe_event("E_MINE", "nose:a");
    xlog("$rc");
    subscribe_event("E_MINE", "ear:");
    xlog("$rc");
    subscribe_event("E_MINE", "ear:b", -1);
    xlog("$rc");
}
route {
    $avp(n) = "one"; $avp(n) = "two"; $avp(n) = "three";
    $avp(v) = 1; $avp(v) = "b"; $avp(v) = "quo\\"te";
    raise_event("E_MINE", $avp(n), $avp(v));
    xlog("$rc");
    raise_event("E_MINE", , $avp(v));
    xlog("$rc");
    raise_event("E_MINE");
    raise_event("E_MINE", $avp(n));
    raise_event("E_UNHEARD", $avp(n), $avp(v));
    raise_event("E_DYNAMIC_$rm");
    xlog("$rc");
    $avp(n) = "four";
    raise_event("E_MINE", $avp(n), $avp(v));
    xlog("$rc");
    subscribe_event("E_OF_$rm", "ear:a", 0);
    xlog("$rc");
}
event_route[E_ROUTE] {
    xlog("one=$param(one) 1=$param(1) two=$param(2) none=$param(nosuch) 0=$param(0) $rm $ru $route");
}
"""
)


class Served(SynchronousTestCase):
    """A server with a script."""

    def serve(self, script: str) -> None:
        """Start it, with the transport ``ear``."""
        ears = self.ears = Ears()
        self.wired = wired = WiredServer(script, before=lambda server: server.user.events.add_transport("ear", ears))
        self.user, self.clock = wired.user, wired.clock
        self.phone = Phone(wired.wire, "127.0.0.1", 5062)

    def texts(self) -> list[str]:
        """The lines that the script logged since the last time."""
        found = [text for _, text in self.wired.lines]
        self.wired.lines.clear()
        return found

    def request(self) -> None:
        """Let a request come."""
        head = b"OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5062;branch=z9hG4bKa\r\nMax-Forwards: 70\r\n"
        rest = b"From: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        self.phone.send(head + rest, self.wired.address)

    def ask(self, command: str, params: Any = None) -> Any:
        """The result of a command as JSON has it; an error as code, message and data."""
        caught: list[Any] = []
        done = ensureDeferred(self.wired.server.commands.call(command, params))
        done.addErrback(lambda failure: caught.append(failure.value))
        result = self.successResultOf(done)
        if caught:
            error = caught[0]
            return (error.code, error.message) if error.data is None else (error.code, error.message, error.data)
        return json.loads(encode(result))


class ScriptTests(Served):
    """The two functions, and event routes."""

    def test_subscribe(self) -> None:
        """A socket is subscribed for a time or for good; what is none, and less than no time, fails."""
        self.serve(SCRIPT)
        self.assertEqual([text for text in self.texts() if text in ("1", "-1")], ["1", "1", "-1", "-1", "-1"])
        shown = {each["name"]: each["Subscribers"] for each in self.ask("evi:subscribers")["Events"]}
        self.assertEqual(
            shown,
            {
                "E_ROUTE": [{"socket": "route:E_ROUTE", "expire": "never"}],
                "E_MINE": [{"socket": "ear:a", "expire": "never"}],
                "E_TIMED": [{"socket": "ear:a", "expire": 20, "ttl": 20}],
            },
        )

    def test_raise(self) -> None:
        """Names and values go together, the newest first; values may stand alone; names without values say nothing."""
        self.serve(SCRIPT)
        self.texts()
        self.request()
        self.assertEqual(
            self.ears.told,
            [
                ("a", "E_MINE", {"three": 'quo"te', "two": "b", "one": 1}),
                ("a", "E_MINE", ('quo"te', "b", 1)),
                ("a", "E_MINE", ()),
                ("a", "E_MINE", ()),
            ],
        )
        codes = [text for text in self.texts() if text in ("1", "-1")]
        self.assertEqual(codes, ["1", "1", "1", "-1", "1"])

    def test_published(self) -> None:
        """The events that a script names are there from the start; one that only a message names is not, until subscribed."""
        self.serve(SCRIPT)
        names = {each.name for each in self.user.events}
        self.assertLessEqual({"E_MINE", "E_TIMED", "E_UNHEARD", "E_ROUTE", "E_CORE_LOG"}, names)
        self.assertNotIn("E_OF_OPTIONS", names)
        self.request()
        self.assertIsNone(self.user.events.find("E_DYNAMIC_OPTIONS"))
        self.assertEqual(
            self.ask("evi:subscribers", ["E_OF_OPTIONS"])["Event"]["Subscribers"], [{"socket": "ear:a", "expire": "never"}]
        )

    def test_route(self) -> None:
        """An event route reads parameters by name and by place, from 1 on, on a dummy message."""
        self.serve(SCRIPT)
        self.texts()
        self.ask("evi:raise", {"event": "E_ROUTE", "params": '{"one": "x", "two": 5}'})
        self.clock.advance(0)
        said = "one=x 1=x two=5 none=<null> 0=<null> DUMMY sip:user@dummy.com event_route[E_ROUTE]"
        self.assertEqual(self.texts(), [said])

    def test_bad_name(self) -> None:
        """A constant that cannot be the name of an event is refused when the configuration is read."""
        refused = self.assertRaises((AssertionError, ScriptErrors), WiredServer, HEAD + 'route { raise_event("E X"); }')
        self.assertIn("cannot be the name of an event", str(refused))


class CommandTests(Served):
    """The management commands."""

    def setUp(self) -> None:
        self.serve(SCRIPT)
        self.texts()

    def test_list(self) -> None:
        """All events, each with its number."""
        shown = self.ask("events_list")["Events"]
        self.assertEqual([each["id"] for each in shown], list(range(len(shown))))
        self.assertEqual([each["name"] for each in shown], [each.name for each in self.user.events])

    def test_raise(self) -> None:
        """Parameters come as an array, whose numbers turn into text, or as an object, itself or as text."""
        cases: list[tuple[Any, Any]] = [
            (["E_MINE"], ()),
            (["E_MINE", ["a", 2, 1.5]], ("a", "2", "1.5")),
            (["E_MINE", []], ()),
            ({"event": "E_MINE", "params": '{"one": "x", "two": 5, "three": null}'}, {"one": "x", "two": 5, "three": None}),
            ({"event": "E_MINE", "params": {"one": "x", "two": 5, "half": 0.5}}, {"one": "x", "two": 5, "half": "0.5"}),
        ]
        for params, told in cases:
            self.ears.told.clear()
            self.assertEqual(self.ask("evi:raise", params), "OK", params)
            self.assertEqual(self.ears.told, [("a", "E_MINE", told)])
        self.ears.told.clear()
        for bad in ("{bad", '["x"]', "word", 7, [{"a": 1}], [True], [None], {"a": [1]}, {"a": True}):
            self.assertEqual(self.ask("raise_event", {"event": "E_MINE", "params": bad}), (400, "Bad Params"), bad)
        self.assertEqual(self.ask("evi:raise", ["E_NONE"]), (404, "Event not registered"))
        self.assertEqual(self.ears.told, [])

    def test_subscribe(self) -> None:
        """An hour unless said; the same socket again renews; 0 ends; what cannot be is refused in OpenSIPS's words."""
        asked: list[tuple[Any, Any]] = [
            (["E_MINE", "ear:b"], "OK"),
            (["E_MINE", "ear:c", 5], "OK"),
            (["E_MINE", "ear:c", "50"], "OK"),
            (["E_MINE", "route:E_ROUTE", 7], "OK"),
            (["E_NONE", "ear:b"], (400, "Bad parameter value")),
            (["E_MINE", "foo:127.0.0.1:1"], (400, "Bad parameter value")),
            (["E_MINE", "ear:"], (400, "Bad parameter value")),
            (["E_MINE", "route:other"], (400, "Bad parameter value")),
            (["E_MINE", ""], (400, "Bad parameter value")),
            (["E_MINE", "ear:d", -1], (-32602, "Invalid params", "Negative expire value")),
            (["E_MINE"], (-32602, "Invalid params", "Too few or too many parameters")),
        ]
        for params, answer in asked:
            self.assertEqual(self.ask("evi:subscribe", params), answer, params)
        self.clock.advance(3)
        number = next(each.number for each in self.user.events if each.name == "E_MINE")
        self.assertEqual(
            self.ask("subscribers_list", ["E_MINE"]),
            {
                "Event": {
                    "name": "E_MINE",
                    "id": number,
                    "Subscribers": [
                        {"socket": "route:E_ROUTE", "expire": 7, "ttl": 4},
                        {"socket": "ear:c", "expire": 50, "ttl": 47},
                        {"socket": "ear:b", "expire": 3600, "ttl": 3597},
                        {"socket": "ear:a", "expire": "never"},
                    ],
                }
            },
        )
        one = {"Event": {"name": "E_MINE", "id": number, "Subscriber": {"socket": "ear:c", "expire": 50, "ttl": 47}}}
        self.assertEqual(self.ask("evi:subscribers", ["E_MINE", "ear:c"]), one)
        self.assertEqual(self.ask("event_subscribe", ["E_MINE", "ear:c", 0]), "OK")
        asked = [
            (["E_MINE", "ear:c"], (404, "Subscriber does not exist")),
            (["E_MINE", "foo:1"], (404, "Subscriber does not exist")),
            (["E_UNHEARD"], {"Event": {}}),
            (["E_NONE"], (404, "Event not published")),
        ]
        for params, answer in asked:
            self.assertEqual(self.ask("evi:subscribers", params), answer, params)


class ThresholdTests(Served):
    """E_CORE_THRESHOLD and the statistic slow_messages."""

    def test_slow(self) -> None:
        """A message that takes longer than exec_msg_threshold microseconds is counted, logged and told."""
        routes = 'startup_route { subscribe_event("E_CORE_THRESHOLD", "ear:a"); } route { exit; }'
        self.serve("exec_msg_threshold = 200000\n" + HEAD + routes)
        pauses = [0.2, 0.25]

        def hold(_run: Any) -> bool:
            self.clock.advance(pauses.pop(0))
            return True

        self.user.on_request.append(hold)
        for slow in (0, 1):
            self.request()
            self.assertEqual(self.ask("get_statistics", [["slow_messages"]]), {"core:slow_messages": slow})
        ((_, name, params),) = self.ears.told
        self.assertEqual((name, params["source"], params["time"]), ("E_CORE_THRESHOLD", "msg processing", 250000))
        self.assertTrue(params["extra"].startswith("OPTIONS sip:127.0.0.1 SIP/2.0\r\nVia: "))
        self.assertIn("OPTIONS sip:127.0.0.1 SIP/2.0 of 127.0.0.1:5062 took 250000 us, more than 200000", self.texts())


class LogTests(Served):
    """E_CORE_LOG, and the consumers of the log."""

    LOGS = (
        'log_prefix = "edge"\nlog_event_enabled = yes\nlog_event_level_filter = 1\n'
        + HEAD
        + """
startup_route { subscribe_event("E_CORE_LOG", "ear:a"); }
route { xlog("L_ERR", "lost\\n"); xlog("L_INFO", "not told"); }
event_route[E_CORE_LOG] { xlog("L_ERR", "route: $param(level) $param(message)"); }
"""
    )

    def test_told(self) -> None:
        """A line within the filter is told, and runs the event route, whose own lines are logged and not told."""
        self.serve(self.LOGS)
        self.texts()
        self.ears.told.clear()
        self.request()
        self.clock.advance(0)
        ((_, name, params),) = self.ears.told
        self.assertEqual(name, "E_CORE_LOG")
        self.assertEqual({**params, "time": ""}, {
            "time": "", "pid": self.user.pid, "level": "ERROR", "prefix": "edge:", "message": "lost",
        })
        self.assertEqual(self.texts(), ["lost\n", "not told", "route: ERROR lost"])

    def test_disabled(self) -> None:
        """Without log_event_enabled nothing is told."""
        self.serve(self.LOGS.replace("log_event_enabled = yes", ""))
        self.request()
        self.assertEqual(self.ears.told, [])
