"""Tests of sipgw.modules.pike: what scripts, commands and events tell of floods; the route that is asked first."""

from __future__ import annotations

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.core.events import Params
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.pike import Pike
from sipgw.testing import FakeServer, Phone, finished
from tests.ears import Ears
from tests.modules.scripted import Scripted, request

PARAMETERS = 'modparam("pike", "reqs_density_per_unit", 4)\nmodparam("pike", "pike_log_level", -1)\n'
CHECK = 'pike_check_req();\nxlog("L_ALERT", "$rc");'


def numbered(number: int) -> bytes:
    """A request like no other."""
    return request(call_id=f"call{number}", branch=f"b{number}")


class PikeTests(SynchronousTestCase):
    """Requests from addresses on a wire."""

    def call(self, made: Scripted, method: str, **params: str) -> object:
        """What a management command answers."""
        return self.successResultOf(ensureDeferred(made.server.commands.call(method, params)))

    def test_check(self) -> None:
        """A flood is told once, then each request is refused, until it is over or somebody says so."""
        made = Scripted(CHECK, "pike", rest=PARAMETERS)
        ears = Ears()
        bus = made.server.user.events
        bus.join(bus.find("E_PIKE_BLOCKED"), "ear:a", finished(ears.open("a")))  # type: ignore[arg-type]
        said = [made.send(numbered(number)) for number in range(9)]
        self.assertEqual(said[:7], [["1"]] * 7)
        self.assertEqual(said[7:], [["pike: 192.0.2.1 floods and is blocked", "-2"], ["-1"]])
        told: list[tuple[str, Params]] = [(event, params) for _, event, params in ears.told]
        self.assertEqual(told, [("E_PIKE_BLOCKED", {"ip": "192.0.2.1"})])
        self.assertEqual(self.call(made, "pike:list"), {"IPs": ["192.0.2.1"]})
        reports = made.server.user.status.find("pike").find().reports  # type: ignore[union-attr]
        self.assertEqual([report.text for report in reports], ["IP 192.0.2.1 detected as flooding"])
        self.assertEqual(self.call(made, "pike:rm", ip="192.0.2.1"), "OK")
        self.assertEqual(made.send(numbered(9)), ["1"])
        for ip, code in (("192.0.2.1", 404), ("192.0.2.256", 500), ("example.org", 500), ("\u0663", 500)):
            failed = self.failureResultOf(ensureDeferred(made.server.commands.call("pike:rm", {"ip": ip})), MIError)
            self.assertEqual(failed.value.code, code, ip)

    def test_over(self) -> None:
        """A flood that ends is told too."""
        made = Scripted(CHECK, "pike", rest=PARAMETERS)
        for number in range(12):
            made.send(numbered(number))
        made.clock.pump([1] * 5)
        self.assertEqual(made.logged(), ["pike: 192.0.2.1 floods no longer"])
        self.assertEqual(made.send(numbered(20)), ["1"])

    def test_route(self) -> None:
        """The check route sees each message and its source; what it does not drop is counted, and dropped in a flood."""
        route = (
            f'{PARAMETERS}modparam("pike", "check_route", "pike")\n'
            'route[pike] { if ($si == "192.0.2.9") { drop; } xlog("L_ALERT", "$rm $si"); exit; }\n'
        )
        made = Scripted('xlog("L_ALERT", "served");\nsl_send_reply(200, "OK");', "pike", rest=route)
        data = request()
        said = [made.send(data) for _ in range(10)]  # retransmissions too
        self.assertEqual(said[:7], [["OPTIONS 192.0.2.1", "served"]] * 7)
        self.assertEqual(said[7:], [["OPTIONS 192.0.2.1", "pike: 192.0.2.1 floods and is blocked"], *[["OPTIONS 192.0.2.1"]] * 2])
        trusted = Phone(made.wired.wire, "192.0.2.9")
        for _ in range(20):
            trusted.send(data, made.wired.address)
        self.assertEqual(made.logged(), ["served"] * 20)

    def test_route_of_all(self) -> None:
        """Responses and what cannot be read are counted, once each."""
        route = (
            f'{PARAMETERS}modparam("pike", "check_route", "pike")\n'
            'route[pike] { xlog("L_ALERT", "$rm $rs $si"); }\n'
        )
        for data, said in (
            (b"no SIP at all, but long enough to be read\r\n\r\n", "no <null> 192.0.2.1"),
            (request().replace(b"CSeq: 1 OPTIONS", b"CSeq: 1 INVITE"), "OPTIONS <null> 192.0.2.1"),
            (request().replace(b"OPTIONS sip:bob@127.0.0.1 SIP/2.0", b"SIP/2.0 200 OK"), "OPTIONS 200 192.0.2.1"),
        ):
            made = Scripted("exit;", "pike", rest=route)
            found = [[line for line in made.send(data) if line.endswith("192.0.2.1")] for _ in range(8)]
            self.assertEqual(found, [[said]] * 8, data)
            self.assertEqual(self.call(made, "pike:list"), {"IPs": ["192.0.2.1"]})

    def test_broken_route(self) -> None:
        """A check route that breaks lets nothing through uncounted."""
        made = Scripted("exit;", "pike", rest=f'{PARAMETERS}modparam("pike", "check_route", "pike")\nroute[pike] {{ exit; }}\n')

        def breaks(_run: object) -> None:
            raise ValueError("broken")

        made.server.user.routes.named["pike"].function = breaks
        for _ in range(8):
            made.send()
        self.assertEqual(self.call(made, "pike:list"), {"IPs": ["192.0.2.1"]})
        del made.server.user.routes.named["pike"]
        self.assertEqual(made.send(), ["pike: route[pike] is gone since the reload, every source is counted"])

    def test_waiting_route(self) -> None:
        """A check route may call what could wait; where it does wait it has said nothing, and the source is counted."""
        rest = f'{PARAMETERS}modparam("pike", "check_route", "pike")\nroute[pike] {{ rl_check("all", 9); drop; }}\n'
        made = Scripted('xlog("L_ALERT", "served");', "pike", "ratelimit", rest=rest)
        route = made.server.user.routes.named["pike"]
        self.assertTrue(route.waits)
        for number in range(20):
            self.assertEqual(made.send(numbered(number)), ["served"])

        async def waits(_run: object) -> None:
            await Deferred()

        route.function = waits
        said = [made.send(numbered(number)) for number in range(20, 29)]
        self.assertEqual(said[0], ["pike: route[pike] would have to wait, the source is counted", "served"])
        self.assertEqual(said[7:], [["pike: 192.0.2.1 floods and is blocked"], []])

    def test_refused(self) -> None:
        """A check route that is not there, or waits, ends the start; so do values that mean nothing."""
        server = FakeServer()
        made = Pike(server, check_route="pike")
        with self.assertRaisesRegex(ValueError, r"there is no route\[pike\]"):
            finished(made.start())
        for name in ("sampling_time_unit", "reqs_density_per_unit", "remove_latency"):
            with self.assertRaisesRegex(ValueError, "at least 1"):
                Pike(FakeServer(), **{name: 0})

    def test_latency(self) -> None:
        """What is forgotten sooner than a period lasts would never be counted: it is a period and a second."""
        server = FakeServer()
        made = Pike(server, sampling_time_unit=5, remove_latency=2)
        finished(made.start())
        self.assertEqual(server.lines, [(1, "pike: remove_latency is less than sampling_time_unit, it is 6 now")])
