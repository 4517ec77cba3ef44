"""Tests of sipgw.proxy.record_route and sipgw.modules.rr, with the results that OpenSIPS gives for the same messages."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.rr import Rr
from sipgw.script.regex import compile_regex
from sipgw.script.run import Run
from sipgw.sip.edits import write
from tests.doubles import HEAD, FakeSocket, FakeUser, changes, request, response, run_of

BOB = "sip:bob@192.0.2.2"
TAGGED = HEAD.replace("To: <sip:bob@example.org>", "To: <sip:bob@example.org>;tag=zz")


def user() -> FakeUser:
    """A user with two sockets."""
    return FakeUser(FakeSocket(), FakeSocket(port=5070))


def routed(
    route: str, *, uri: str = BOB, method: str = "BYE", tag: bool = True, rr: Rr | None = None, code: int | None = 1
) -> tuple[Run, Any]:
    """A request with the header lines ``route`` after loose_route, and its Route values as it leaves."""
    run = run_of(request(method, uri, head=TAGGED if tag else HEAD, more=route), user())
    result = (rr or Rr()).loose_route(run)
    assert code is None or result == code, (route, uri, result)
    lines = write(run.message, run.edits).decode().partition("\r\n\r\n")[0].split("\r\n")
    return run, [line.partition(": ")[2] for line in lines if line.startswith("Route")]


OWN = "<sip:127.0.0.1:5060;lr;ftag=a1;a=1>"
OWN2 = "<sip:127.0.0.1:5070;lr;ftag=a1>"
NEXT = "<sip:192.0.2.3;lr>"
STRICT = "<sip:192.0.2.3>"
US = "sip:127.0.0.1:5060;lr;ftag=q"


class LooseRouteTests(SynchronousTestCase):
    """Where a request with a Route goes (RFC 3261 16.4, 16.12)."""

    def test_loose(self) -> None:
        """Our own value goes; the next one is the next hop."""
        for route, left, dst_uri in [
            (f"Route: {OWN}\r\n", [], None),
            (f"Route: {OWN}, {NEXT}\r\n", [NEXT], "sip:192.0.2.3;lr"),
            (f"Route: {OWN}\r\nRoute: {NEXT}\r\n", [NEXT], "sip:192.0.2.3;lr"),
            (f"ROUTE :  {OWN} ,{NEXT} ,\r\n {STRICT}\r\nX-A: b\r\nroute: <sip:x@y;lr>\r\n", [f"{NEXT}, {STRICT}"],
             "sip:192.0.2.3;lr"),
            (f"Route: {NEXT}\r\n", [NEXT], "sip:192.0.2.3;lr"),
            (f"Route: {OWN}\r\nRoute: <sip:u:p@192.0.2.3;LR;transport=udp>;x=y\r\n", ["<sip:u:p@192.0.2.3;LR;transport=udp>;x=y"],
             "sip:u:p@192.0.2.3;LR;transport=udp"),
            ("Route: <sip:127.0.0.1:5060>\r\n", [], None),
            ("Route: <sip:127.0.0.1;lr>\r\n", [], None),
            ("Route: <sip:u@127.0.0.1:5060;lr=on>;x=y\r\n", [], None),
            ("Route: <sip:192.0.2.9:5060;maddr=127.0.0.1;lr>\r\n", [], None),
            ("Route: <sip:127.0.0.1:5060;maddr=192.0.2.9;lr>\r\n", ["<sip:127.0.0.1:5060;maddr=192.0.2.9;lr>"],
             "sip:127.0.0.1:5060;maddr=192.0.2.9;lr"),
            ("Route: <sip:127.0.0.1:5071;lr>\r\n", ["<sip:127.0.0.1:5071;lr>"], "sip:127.0.0.1:5071;lr"),
            (f"Route: {OWN}, {OWN2}, {NEXT}\r\n", [f"{OWN2}, {NEXT}"], "sip:127.0.0.1:5070;lr;ftag=a1"),
        ]:
            run, routes = routed(route)
            self.assertEqual((routes, run.dst_uri, run.uri), (left, dst_uri, BOB), route)

    def test_next_is_strict(self) -> None:
        """A next hop without lr changes places with the Request-URI (16.6 step 6)."""
        for route, left, uri in [
            (f"Route: {STRICT}\r\n", [f"<{BOB}>"], "sip:192.0.2.3"),
            (f"Route: {OWN}\r\nRoute: {STRICT}\r\n", [f"<{BOB}>"], "sip:192.0.2.3"),
            (f"Route: {OWN},{STRICT},<sip:x@y;lr>\r\nRoute: <sip:z@z>\r\n", ["<sip:x@y;lr>", "<sip:z@z>", f"<{BOB}>"],
             "sip:192.0.2.3"),
        ]:
            run, routes = routed(route)
            self.assertEqual((routes, run.uri, run.dst_uri), (left, uri, None), route)

    def test_from_strict(self) -> None:
        """A Request-URI that is our Record-Route is replaced by the last Route value (16.4)."""
        for request_uri, route, left, uri, dst_uri in [
            (US, "Route: <sip:x@192.0.2.2>\r\n", [], "sip:x@192.0.2.2", None),
            ("sip:127.0.0.1:5060", "Route: <sip:x@192.0.2.2>\r\n", [], "sip:x@192.0.2.2", None),
            ("sip:u@127.0.0.1:5060;lr", "Route: <sip:x@192.0.2.2>\r\n", [], "sip:x@192.0.2.2", None),
            (US, f"Route: {NEXT},<sip:q@q.x>\r\n", [NEXT], "sip:q@q.x", "sip:192.0.2.3;lr"),
            (US, f"Route: {STRICT}\r\nRoute: <sip:q@q.x>\r\n", ["<sip:q@q.x>"], "sip:192.0.2.3", None),
            (US, f"Route: {OWN2}\r\nRoute: <sip:x@192.0.2.2>\r\n", [], "sip:x@192.0.2.2", None),
            ("sip:192.0.2.9;lr;maddr=127.0.0.1", "Route: <sip:x@192.0.2.2>\r\n", [], "sip:x@192.0.2.2", None),
            ("sip:127.0.0.1;lr;maddr=192.0.2.9", "Route: <sip:x@192.0.2.2>\r\n", ["<sip:127.0.0.1;lr;maddr=192.0.2.9>"],
             "sip:x@192.0.2.2", None),
        ]:
            run, routes = routed(route, uri=request_uri)
            self.assertEqual((routes, run.uri, run.dst_uri), (left, uri, dst_uri), (request_uri, route))

    def test_own_contact(self) -> None:
        """A Contact at our address is not taken for a Record-Route."""
        run, routes = routed(f"Route: {OWN}\r\n", uri="sip:u@127.0.0.1:5060")
        self.assertEqual((routes, run.uri, run.dst_uri), ([], "sip:u@127.0.0.1:5060", None))

    def test_double(self) -> None:
        """Both of our two values go, and the request leaves from the socket of the second."""
        first, second = "<sip:127.0.0.1:5060;r2=on;lr;ftag=a1>", "<sip:127.0.0.1:5070;r2=on;lr;ftag=a1>"
        for route, left, port in [
            (f"Route: {first}, {second}, {NEXT}\r\n", [NEXT], 5070),
            (f"Route: {second}\r\nRoute: {first}\r\n", [], 5060),
            (f"Route: {first}, {OWN2}, {NEXT}\r\n", [NEXT], 5070),
            (f"Route: {OWN}, {second}\r\n", [second], None),
            (f"Route: {first}, {NEXT}\r\n", [NEXT], None),
        ]:
            run, routes = routed(route)
            self.assertEqual((routes, run.send_socket and run.send_socket.port), (left, port), route)
        run, routes = routed(f"Route: {second}\r\nRoute: <sip:x@192.0.2.2>\r\n", uri=f"{US};r2=on")
        self.assertEqual((routes, run.uri, run.send_socket.port), ([], "sip:x@192.0.2.2", 5070))
        run, routes = routed(f"Route: {first}, {second}\r\n", rr=Rr(enable_double_rr=0))
        self.assertEqual(routes, [second])

    def test_double_unknown_socket(self) -> None:
        """An alias of ours that is no socket is logged, unless that is switched off."""
        for warn, lines in [(1, 1), (0, 0)]:
            more = "Route: <sip:127.0.0.1;r2=on;lr>, <sip:gw.example.org;r2=on;lr>\r\n"
            run = run_of(request("BYE", BOB, head=TAGGED, more=more), user())
            run.user.myself.add("gw.example.org")
            self.assertEqual(Rr(enable_socket_mismatch_warning=warn).loose_route(run), 1)
            self.assertEqual((len(run.user.logged), run.send_socket), (lines, None))

    def test_preloaded(self) -> None:
        """Without a To tag our own Route alone does not count, but it goes; others do count."""
        run, routes = routed(f"Route: {OWN}\r\n", tag=False, code=-1)
        self.assertEqual((routes, run.uri, Rr().rr_params(run)), ([], BOB, "lr;ftag=a1;a=1"))
        run, routes = routed("Route: <sip:127.0.0.1:5060;r2=on;lr>,<sip:127.0.0.1:5070;r2=on;lr>\r\n", tag=False, code=-1)
        self.assertEqual(routes, [])
        run, routes = routed(f"Route: {OWN}\r\n", uri="sip:127.0.0.1:5060", tag=False, code=-1)
        self.assertEqual((routes, run.uri), ([], "sip:127.0.0.1:5060"))
        for route in (f"Route: {OWN}, {NEXT}\r\n", f"Route: {NEXT}\r\n"):
            run, routes = routed(route, tag=False)
            self.assertEqual((routes, run.dst_uri), ([NEXT], "sip:192.0.2.3;lr"))

    def test_unreadable(self) -> None:
        """A Route that cannot be read, or none at all, changes nothing."""
        for route in ("", "Route: junk\r\n", "Route: sip:127.0.0.1:5060;lr\r\n", f"Route: {OWN}, <sip:a b>\r\n", "Route: \r\n"):
            run, _ = routed(route, code=-1)
            self.assertEqual((changes(run), run.dst_uri, run.uri), (([], []), None, BOB), route)

    def test_twice(self) -> None:
        """A second call says the same and does nothing more; others hear of the first."""
        rr = Rr()
        heard: list[str] = []
        rr.on_route.append(lambda run, params: heard.append(params))
        run, _ = routed(f"Route: {OWN}, {NEXT}\r\n", rr=rr)
        before = run.edits
        self.assertEqual(rr.loose_route(run), 1)
        self.assertIs(run.edits, before)
        self.assertEqual(heard, ["lr;ftag=a1;a=1"])


class ParamTests(SynchronousTestCase):
    """What a Record-Route of ours carried through the dialog."""

    def test_params(self) -> None:
        """$rr_params, check_route_param and other modules see the parameters."""
        rr = Rr()
        for route, uri, params in [
            (f"Route: {OWN}\r\n", BOB, "lr;ftag=a1;a=1"),
            ("Route: <sip:127.0.0.1:5060>\r\n", BOB, None),
            (f"Route: {NEXT}\r\n", BOB, None),
            ("Route: <sip:x@192.0.2.2>\r\n", US, "lr;ftag=q"),
        ]:
            run, _ = routed(route, uri=uri, rr=rr)
            self.assertEqual(rr.rr_params(run), params, route)
            found = [rr.check_route_param(run, compile_regex(pattern)) for pattern in (";lr", "^;lr", "^lr", ";a=1")]
            self.assertEqual(found, [bool(params), bool(params), False, params == "lr;ftag=a1;a=1"], route)
        run, _ = routed(f"Route: {OWN}\r\n", rr=rr)
        self.assertEqual([rr.route_param(run, name) for name in ("a", "lr", "b")], ["1", "", None])
        self.assertIsNone(rr.rr_params(run_of(request())))

    def test_direction(self) -> None:
        """Upstream is what has another From tag than the caller's; what cannot be known is downstream."""
        rr = Rr()
        for params, upstream in [
            (";ftag=a1;lr", False), (";ftag=zz;lr", True), (";ftag=A1;lr", True), (";lr;FTAG=zz", True), (";lr", False),
            (";ftag;lr", False), (";xftag=zz;lr", False),
        ]:
            run, _ = routed(f"Route: <sip:127.0.0.1:5060{params}>\r\n", rr=rr)
            found = (rr.is_direction(run, "upstream"), rr.is_direction(run, "Downstream"))
            self.assertEqual(found, (upstream, not upstream), params)
        self.assertTrue(rr.is_direction(run_of(request()), "downstream"))
        check = next(f for f in rr.declared().functions if f.name == "is_direction").parameters[0].check
        assert check is not None
        self.assertRaises(ValueError, check, "sideways")


class RecordRouteTests(SynchronousTestCase):
    """The Record-Route of a request as it leaves."""

    def leave(self, run: Run, socket: int = 0) -> list[str]:
        """The Record-Route lines when ``run`` leaves by that socket of ours."""
        flow = run.user.sockets[socket].flow("192.0.2.2", 5060)
        head = write(run.message, run.edits, way=(run, flow)).decode().partition("\r\n\r\n")[0].split("\r\n")
        lines = head[1 : head.index(run.message.lines[1])]
        return [line.partition(": ")[2] for line in lines]

    def test_plain(self) -> None:
        """One Record-Route with lr, the From tag, and whatever parameters were asked for, before or after."""
        rr = Rr()
        for before, params, after, line in [
            ("", None, "", "<sip:127.0.0.1:5060;lr;ftag=a1>"),
            ("", "", "", "<sip:127.0.0.1:5060;lr;ftag=a1>"),
            ("", ";nat=yes", "", "<sip:127.0.0.1:5060;lr;ftag=a1;nat=yes>"),
            ("", "nat=yes", "", "<sip:127.0.0.1:5060;lr;ftag=a1;nat=yes>"),
            (";a=1", ";b=2", ";c=3", "<sip:127.0.0.1:5060;lr;ftag=a1;b=2;a=1;c=3>"),
        ]:
            run = run_of(request("INVITE", more="Record-Route: <sip:192.0.2.1;lr>\r\n"), user())
            self.assertTrue(not before or rr.add_rr_param(run, before))
            self.assertTrue(rr.record_route(run, params))
            self.assertTrue(not after or rr.add_rr_param(run, after))
            self.assertEqual(self.leave(run), [line])

    def test_params_alone(self) -> None:
        """A parameter without record_route changes nothing."""
        run = run_of(request("INVITE"), user())
        Rr().add_rr_param(run, ";a=1")
        self.assertEqual(self.leave(run), [])

    def test_two_sockets(self) -> None:
        """Leaving by another socket gives two, the outer one first."""
        run = run_of(request("INVITE"), user())
        Rr().record_route(run, ";x=y")
        self.assertEqual(
            self.leave(run, 1), ["<sip:127.0.0.1:5070;r2=on;lr;ftag=a1;x=y>", "<sip:127.0.0.1:5060;r2=on;lr;ftag=a1;x=y>"]
        )
        self.assertEqual(self.leave(run, 0), ["<sip:127.0.0.1:5060;lr;ftag=a1;x=y>"])
        run = run_of(request("INVITE"), user())
        Rr(enable_double_rr=0).record_route(run)
        self.assertEqual(self.leave(run, 1), ["<sip:127.0.0.1:5070;lr;ftag=a1>"])

    def test_transport(self) -> None:
        """Another transport than UDP is named."""
        run = run_of(request("INVITE"), FakeUser(FakeSocket(), FakeSocket("tcp")))
        Rr().record_route(run, ";x=y")
        self.assertEqual(
            self.leave(run, 1),
            ["<sip:127.0.0.1:5060;transport=tcp;r2=on;lr;ftag=a1;x=y>", "<sip:127.0.0.1:5060;r2=on;lr;ftag=a1;x=y>"],
        )

    def test_advertised(self) -> None:
        """What a socket advertises is written; what the request advertises counts more, on the way out only."""
        outer = FakeSocket(port=5070, advertised_host="192.0.2.9", advertised_port=99)
        run = run_of(request("INVITE"), FakeUser(FakeSocket(), outer))
        Rr().record_route(run)
        self.assertEqual(self.leave(run, 1)[0], "<sip:192.0.2.9:99;r2=on;lr;ftag=a1>")
        run.advertised_host, run.advertised_port = "2001:db8::1", 98
        self.assertEqual(
            self.leave(run, 1), ["<sip:[2001:db8::1]:98;r2=on;lr;ftag=a1>", "<sip:127.0.0.1:5060;r2=on;lr;ftag=a1>"]
        )
        self.assertEqual(self.leave(run, 0), ["<sip:[2001:db8::1]:98;lr;ftag=a1>"])

    def test_preset(self) -> None:
        """The script's own address, or two."""
        for rr, addresses, lines in [
            (Rr(), ("192.0.2.8:5090",), ["<sip:192.0.2.8:5090;ftag=a1;lr;a=1>"]),
            (Rr(), ("192.0.2.8:5090;x=y", "192.0.2.7"),
             ["<sip:192.0.2.8:5090;x=y;ftag=a1;lr;a=1>", "<sip:192.0.2.7;ftag=a1;lr;a=1>"]),
            (Rr(append_fromtag=0), ("192.0.2.8",), ["<sip:192.0.2.8;lr;a=1>"]),
            (Rr(add_username=1), ("192.0.2.8",), ["<sip:bob@192.0.2.8;ftag=a1;lr;a=1>"]),
        ]:
            run = run_of(request("INVITE"), user())
            self.assertTrue(rr.record_route_preset(run, *addresses))
            self.assertTrue(rr.add_rr_param(run, ";a=1"))
            self.assertEqual(self.leave(run, 1), lines)
        self.assertFalse(Rr(enable_double_rr=0).record_route_preset(run_of(request()), "a", "b"))

    def test_options(self) -> None:
        """append_fromtag and add_username."""
        for rr, uri, line in [
            (Rr(append_fromtag=0), BOB, "<sip:127.0.0.1:5060;lr>"),
            (Rr(add_username=1), BOB, "<sip:bob@127.0.0.1:5060;lr;ftag=a1>"),
            (Rr(add_username=1), "sip:192.0.2.2", "<sip:127.0.0.1:5060;lr;ftag=a1>"),
        ]:
            run = run_of(request("INVITE", uri), user())
            rr.record_route(run)
            self.assertEqual(self.leave(run), [line])

    def test_once(self) -> None:
        """A request is record-routed once, however; a branch made before that is not."""
        rr = Rr()
        run = run_of(request("INVITE"), user())
        before = run.edits
        self.assertTrue(rr.record_route(run))
        self.assertFalse(rr.record_route(run))
        self.assertFalse(rr.record_route_preset(run, "192.0.2.8"))
        self.assertEqual(len(run.user.logged), 2)
        run.edits = before
        self.assertTrue(rr.record_route_preset(run, "192.0.2.8"))
        self.assertFalse(rr.record_route(run))

    def test_refused(self) -> None:
        """What cannot stand in a URI is refused and logged."""
        rr = Rr()
        run = run_of(request("INVITE"), user())
        for text in (";a=1>", ";a=1\r\nX: y", ";a b", ";a=\0", ";a=?x"):
            self.assertFalse(rr.record_route(run, text))
            self.assertFalse(rr.record_route_preset(run, text))
            self.assertFalse(rr.add_rr_param(run, text))
        self.assertEqual((self.leave(run), len(run.user.logged)), ([], 15))

    def test_not_relayed(self) -> None:
        """A message that goes nowhere (written without a way) gets none."""
        run = run_of(request("INVITE"), user())
        Rr().record_route(run)
        self.assertEqual(changes(run), ([], []))

    def test_reply(self) -> None:
        """Nothing of a request is known in a reply."""
        self.assertIsNone(Rr().rr_params(run_of(response())))
