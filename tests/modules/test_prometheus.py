"""Tests of sipgw.modules.prometheus: what Prometheus's own parser reads on the page; the names are those of OpenSIPS 4.1."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.prometheus import Prometheus, Rule
from sipgw.testing import Phone, Wire, WiredServer
from tests.modules.scripted import request

SCRIPT = """
socket = udp:127.0.0.1:5060
log_level = -1
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "httpd.so"
loadmodule "statistics.so"
modparam("statistics", "variable", "duration_gw1")
modparam("statistics", "variable", "duration_gw2")
modparam("statistics", "variable", "calls")
modparam("statistics", "variable", "a-b.c")
loadmodule "prometheus.so"
modparam("prometheus", "labels", "script: /^(.*)_(.*)$/\\1:gateway=\\"\\2\\"/")
"""
CALM = "route { exit; }"
CUSTOM = """
route { prometheus_push_stat(1); prometheus_declare_stat("late"); }
modparam("prometheus", "script_route", "more")
route[more] {
    prometheus_declare_stat("my_cps", "counter", "Some help");
    prometheus_push_stat(3);
    prometheus_declare_stat("my_cc");
    prometheus_push_stat(10, "{gateway=\\"gw1\\"}");
    prometheus_push_stat(-11, "gateway", "gw\\"2");
    prometheus_push_stat(12, "gateway", "gw1");
    prometheus_push_stat(13, "no label");
    prometheus_declare_stat("no name");
    prometheus_declare_stat("my_foo", "foo");
    RETURN
}
"""
GOOD = r"""return (1, '[{"header": "# HELP total_cps Calls\n# TYPE total_cps gauge", "values": [{"name": "total_cps", "value": 3},
 {"name": "total_cps{gw=\"a\"}", "value": 4.5}]}, {"values": 3}, {"header": "# TYPE x gauge", "values": [{"name": "x"}]},
 {"header": "nonsense", "values": []}]');"""


class PrometheusTests(SynchronousTestCase):
    """One server with its page."""

    def start(self, *parameters: str, routes: str = CALM) -> None:
        """Start a server with these parameters, each ``name, value`` as a script writes it."""
        self.reactor = MemoryReactorClock()
        set = "".join(f'modparam("prometheus", {each})\n' for each in parameters)
        self.wired = WiredServer(f"{SCRIPT}{set}{routes}", wire=Wire(self.reactor))

    def ask(self, path: str = "/metrics", method: str = "GET") -> tuple[str, str]:
        """The head and the body of an answer."""
        factory: Any = self.reactor.tcpServers[0][1]
        channel = factory.buildProtocol(None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.addCleanup(channel.connectionLost, None)
        head, _, body = transport.value().decode().partition("\r\n\r\n")
        return head, body

    def samples(self, text: str = "") -> dict[Any, float]:
        """What Prometheus reads: values by name, or by name and labels; its parser adds _total to counters."""
        found: dict[Any, float] = {}
        for family in text_string_to_metric_families(text or self.ask()[1]):
            for sample in family.samples:
                key = (sample.name, *sorted(sample.labels.items())) if sample.labels else sample.name
                self.assertNotIn(key, found)
                found[key] = sample.value
        return found

    def logged(self) -> list[str]:
        lines = [text for level, text in self.wired.lines if level <= -1]
        self.wired.lines.clear()
        return lines

    def test_statistics(self) -> None:
        """Only what was named is shown, once: statistics, groups; the counters with their labels."""
        self.start('"statistics", "rcv_requests nosuch load: calls"', '"statistics", "core: rcv_requests script: nogroup:"',
                   '"traffic", 0')
        head, body = self.ask()
        self.assertIn("Content-Type: text/plain; version=0.0.4", head)
        self.assertEqual(body.count("\nopensips_rcv_requests "), 1)
        self.assertIn("# TYPE opensips_rcv_requests counter\nopensips_rcv_requests 0\n", body)
        self.assertIn("# TYPE opensips_timestamp gauge\n", body)
        self.assertIn(
            '# TYPE opensips_duration counter\nopensips_duration{gateway="gw1"} 0\nopensips_duration{gateway="gw2"} 0\n', body
        )
        found = self.samples(body)
        self.assertLessEqual({"opensips_a_b_c_total", "opensips_calls_total", "opensips_load", "opensips_load1m_all"}, set(found))
        self.assertNotIn("opensips_dns_total_queries_total", found)

    def test_all(self) -> None:
        """``all`` shows all statistics there are; whatever their names, the page can be read."""
        self.start('"statistics", "all"', '"group_mode", 2')
        self.assertRegex(self.ask()[1], r'# HELP opensips_inuse_transactions \w.*\n# TYPE opensips_inuse_transactions gauge\n')
        everything = {each.group for each in self.wired.server.statistics}
        shown = {dict(key[1:]).get("group") for key in self.samples() if isinstance(key, tuple)}
        self.assertLessEqual(everything, shown)

    def test_names(self) -> None:
        """Prefix, delimiter and group are told where the script wants them."""
        cases: list[tuple[tuple[str, ...], Any]] = [
            (('"group_mode", 1', '"group_prefix", "GP"'), "opensips_GPscript_calls_total"),
            (('"group_mode", 2', '"group_prefix", "GP"'), ("opensips_calls_total", ("group", "GPscript"))),
            (('"group_mode", 2', '"group_label", "grp"'), ("opensips_duration_total", ("gateway", "gw1"), ("grp", "script"))),
            (('"prefix", "my"', '"delimiter", "-"', '"group_mode", 1'), "my_script_calls_total"),
            (('"prefix", ""', '"delimiter", "__"', '"group_mode", 1'), "script__calls_total"),
        ]
        for parameters, name in cases:
            self.start('"statistics", "script:"', '"traffic", 0', *parameters)
            self.assertIn(name, self.samples(), parameters)

    def test_refused(self) -> None:
        """Nonsense is refused when the script is read; other methods when they come."""
        module = Prometheus()
        for name, value in (("group_mode", 3), ("group_label", "a b"), ("labels", "x"), ("labels", "g: (("), ("root", "a/b")):
            with self.assertRaises(ValueError, msg=name):
                module.set_parameter(name, value)
        self.assertIsNone(Rule.parse("g: /a/b/").apply("a"))
        self.assertIsNone(Rule.parse("g: /a/b:c=d/").apply("a"))
        self.assertIsNone(Rule.parse('g: /a/b:c="d"/').apply("x"))
        self.start()
        self.assertIn("405", self.ask(method="POST")[0])
        self.assertEqual(self.ask(method="HEAD")[1], "")
        self.start('"script_route", "nosuch"')
        self.assertIn("there is no route[nosuch]", self.logged()[0])

    def test_script(self) -> None:
        """``script_route`` adds samples by its functions and by the JSON that it returns; what is wrong is left out and told."""
        self.start('"traffic", 0', routes=CUSTOM.replace("RETURN", GOOD))
        text = self.ask()[1]
        self.assertIn("# HELP my_cps Some help\n# TYPE my_cps counter\nmy_cps 3\n", text)
        self.assertEqual(self.samples(text), {
            "my_cps_total": 3, ("my_cc", ("gateway", "gw1")): 10, ("my_cc", ("gateway", 'gw"2')): -11,
            "total_cps": 3, ("total_cps", ("gw", "a")): 4.5,
        })
        wrong = "\n".join(self.logged())
        for part in ("with these labels already", "'no label' is no list", "'no name' cannot be", "cannot be a foo",
                     "needs a header", "bad value {'name': 'x'}", "bad header 'nonsense'"):
            self.assertIn(part, wrong)
        Phone(self.wired.wire, "192.0.2.1").send(request(), self.wired.address)
        self.assertEqual(len(self.logged()), 2)
        self.start('"traffic", 0', routes=CUSTOM.replace("RETURN", "return (1, 'nonsense');"))
        self.assertIn("my_cps_total", self.samples())
        self.assertIn("returns is no JSON", self.logged()[-1])

    def test_traffic(self) -> None:
        """Messages and latencies are told by method, status class and route, after a reload too; strangers' methods as one."""
        self.start(routes="""
            route { if (is_myself("$rd")) route(inner); sl_send_reply(404, "none"); exit; }
            route[inner] { t_newtran(); t_reply(486, "busy"); exit; }
        """)
        phone = Phone(self.wired.wire, "192.0.2.1")
        for number, (method, uri) in enumerate([("OPTIONS", "sip:x@127.0.0.1"), ("MESSAGE", "sip:x@example.com")] * 2):
            phone.send(request(method, uri, branch=f"b{number}", call_id=f"c{number}"), self.wired.address)
        for number in range(50):
            phone.send(request(f"EVIL{number}", "sip:x@example.com", branch=f"e{number}"), self.wired.address)
        found = self.samples()
        self.assertEqual(found["sipgw_requests_total", ("method", "OPTIONS")], 2)
        self.assertEqual(found["sipgw_requests_total", ("method", "other")], 50)
        self.assertEqual(found["sipgw_answer_seconds_count", ("class", "4xx"), ("method", "OPTIONS")], 2)
        self.assertEqual(found["sipgw_answer_seconds_count", ("class", "4xx"), ("method", "other")], 50)
        self.assertEqual(found["sipgw_route_seconds_count", ("route", "route")], 54)
        self.assertEqual(found["sipgw_route_seconds_count", ("route", "route[inner]")], 2)
        self.assertEqual(found["sipgw_route_seconds_bucket", ("le", "+Inf"), ("route", "route[inner]")], 2)
        self.assertGreater(found["process_resident_memory_bytes"], 1_000_000)
        self.assertFalse([key for key in found if "EVIL" in str(key)])

    def test_stop(self) -> None:
        """What was measured is left as it was."""
        self.start(routes="route { route(inner); } route[inner] { exit; }")
        user = self.wired.user
        self.assertIn("take", vars(user))
        self.successResultOf(self.wired.server.stopService())
        self.assertNotIn("take", vars(user))
        self.assertIsNone(user.layer.on_final)
        route = user.routes.named["inner"].function
        self.assertIs(route.__globals__[route.__name__], route)
