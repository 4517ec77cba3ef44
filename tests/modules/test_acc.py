"""Tests of sipgw.modules.acc, with the lines that OpenSIPS writes for the same calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from sipgw.modules.acc import Acc
from sipgw.modules.rr import Rr
from sipgw.proxy.accounting import parse_fields, parse_flags, parse_types
from sipgw.script.run import Run
from sipgw.testing import FakeServer as LoneServer
from tests.proxy.rig import FakeServer, Rig, request
from tests.proxy.rig import response as first_response

DATED = "timestamp=1700000000;created=1700000000;setuptime=0;"
HEAD = "timestamp=1700000000;created=0;setuptime=1700000000;"


def response(to: Any, status: int, *, extra: str = "") -> bytes:
    """The answer of the callee, in a dialog too."""
    return first_response(to, status, extra=extra).replace(b";tag=zz;tag=b1", b";tag=zz")


class AccTests(SynchronousTestCase):
    """Lines about transactions."""

    def setUp(self) -> None:
        """A server that relays everything to 7002."""
        self.rig = Rig()
        self.make()

    def make(self, **parameters: Any) -> Acc:
        """The module on the rig."""
        server: Any = FakeServer(self.rig.user)
        self.acc = Acc(server, tm=self.rig.tm, rr=Rr(), **parameters)
        return self.acc

    def script(self, *before: Callable[[Run], Any], **routes: Any) -> None:
        """Relay after calling ``before``."""

        async def route(run: Run) -> None:
            for call in before:
                call(run)
            await self.rig.tm.t_relay(run)

        self.rig.routes(route, **routes)

    def play(self, method: str, *statuses: int, extra: str = "", **options: Any) -> None:
        """A request, and what the callee answers to it."""
        self.rig.arrive(request(method, **options), 7001)
        (sent,) = self.rig.sent(7002)
        for status in statuses:
            self.rig.arrive(response(sent, status, extra=extra), 7002)

    def lines(self) -> list[str]:
        """What was accounted, without its beginning."""
        found = [text.replace(HEAD, "").replace(DATED, "") for level, text in self.rig.log if text.startswith("ACC")]
        self.rig.log.clear()
        return found

    def account(self, *arguments: Any) -> Callable[[Run], Any]:
        """A call of do_accounting."""
        return lambda run: self.assertTrue(self.acc.do_accounting(run, *arguments))

    def drop(self, arguments: tuple[str, ...], run: Run) -> None:
        """A call of drop_accounting."""
        self.assertTrue(self.acc.drop_accounting(run, *arguments))

    def line(self, event: str, method: str, status: int, *, to_tag: str = "b1", reason: str = "Reason") -> str:
        """A line as it should be."""
        return f"ACC: {event}: method={method};from_tag=a1;to_tag={to_tag};call_id=call@test;code={status};reason={reason}"

    def test_events(self) -> None:
        """Success always, failure with its flags."""
        answered, missed = "transaction answered", "call missed"
        for flags, status, events in [
            (None, 200, [answered]),
            (None, 404, []),
            ("failed", 404, [answered]),
            ("failed", 200, [answered]),
            ("missed", 404, [missed]),
            ("missed|failed", 404, [missed, answered]),
            ("cdr", 200, [answered]),
            ("cdr|missed", 404, [missed]),
        ]:
            for method in ("INVITE", "MESSAGE"):
                self.rig = Rig()
                self.make()
                self.script(self.account("log", flags))
                self.play(method, status)
                self.assertEqual(self.lines(), [self.line(event, method, status) for event in events], (flags, status))

    def test_whole_line(self) -> None:
        """The line as OpenSIPS writes it, at the level of its parameter."""
        self.script(self.account("log"))
        self.play("BYE", 200, to_tag="zz")
        self.assertEqual(self.rig.log, [(2, (
            "ACC: transaction answered: timestamp=1700000000;created=0;setuptime=1700000000;"
            "method=BYE;from_tag=a1;to_tag=zz;call_id=call@test;code=200;reason=Reason"))])

    def test_level(self) -> None:
        """A level above the server's is not written."""
        self.make(log_level=3)
        self.script(self.account("log"))
        self.play("MESSAGE", 200)
        self.assertEqual(self.rig.log, [])

    def test_local_replies(self) -> None:
        """What the script answers itself has no tag of a callee, and the usual reason."""
        for status, flags, reason in [(200, None, "OK"), (404, "failed", "Not Found"), (404, None, None)]:
            self.rig = Rig()
            self.make()

            async def route(run: Run, status: int = status, flags: str | None = flags) -> None:
                self.acc.do_accounting(run, "log", flags)
                self.rig.tm.t_reply(run, status, "Fine")

            self.rig.routes(route)
            self.rig.arrive(request("MESSAGE"), 7001)
            expected = [self.line("transaction answered", "MESSAGE", status, to_tag="", reason=reason)] if reason else []
            self.assertEqual(self.lines(), expected)

    def test_timeout(self) -> None:
        """A callee that never answers is a 408."""
        self.script(self.account("log", "failed|missed"))
        self.play("MESSAGE")
        self.rig.clock.pump([1.0] * 40)
        self.assertEqual([line.partition("from_tag")[0] for line in (text.replace("ACC: ", "") for text in self.lines())], [
            "call missed: timestamp=1700000030;created=0;setuptime=1700000030;method=MESSAGE;",
            "transaction answered: timestamp=1700000030;created=0;setuptime=1700000030;method=MESSAGE;",
        ])

    def test_missed_once(self) -> None:
        """A missed call is told once; a failure route can ask for the next."""
        for again in (False, True):
            self.rig = Rig()
            self.make()

            async def failure(run: Run, again: bool = again) -> None:
                if again:
                    self.acc.do_accounting(run, "log", "missed")
                run.uri = "sip:127.0.0.1:7003"
                await self.rig.tm.t_relay(run)

            self.script(self.account("log", "missed"), lambda run: self.rig.tm.t_on_failure(run, "again"),
                failure={"again": failure})
            self.play("INVITE", 486)
            (sent,) = self.rig.sent(7003)
            self.rig.arrive(response(sent, 487), 7003)
            codes = [line.partition("code=")[2][:3] for line in self.lines()]
            self.assertEqual(codes, ["486", "487"] if again else ["486"])

    def test_failure_route_answers(self) -> None:
        """What the failure route answers is what is accounted at the end."""

        async def failure(run: Run) -> None:
            self.rig.tm.t_reply(run, 480, "Gone")

        self.script(
            self.account("log", "missed|failed"), lambda run: self.rig.tm.t_on_failure(run, "gone"), failure={"gone": failure}
        )
        self.play("INVITE", 486)
        self.assertEqual(self.lines(), [
            self.line("call missed", "INVITE", 486),
            self.line("transaction answered", "INVITE", 480, to_tag="", reason="Temporarily Unavailable"),
        ])

    def test_drop(self) -> None:
        """All of it, or some flags."""
        for arguments, status, count in [((), 200, 0), (("log",), 200, 0), (("log", "failed"), 200, 1),
                                         (("log", "failed"), 404, 0),
                                         (("log", "missed"), 404, 1)]:
            self.rig = Rig()
            self.make()
            self.script(self.account("log", "failed"), partial(self.drop, arguments))
            self.play("MESSAGE", status)
            self.assertEqual(len(self.lines()), count, arguments)

    def test_additive(self) -> None:
        """Several calls account once, with the flags of all."""
        self.script(self.account("log"), self.account("log", "failed"), self.account("log", "missed"))
        self.play("MESSAGE", 404)
        self.assertEqual(len(self.lines()), 2)

    def test_early_media(self) -> None:
        """Provisional answers with a body, if wanted."""
        for early, codes in [(0, ["200"]), (1, ["183", "200"])]:
            self.rig = Rig()
            self.make(early_media=early)
            self.script(self.account("log"))
            self.rig.arrive(request("INVITE"), 7001)
            (sent,) = self.rig.sent(7002)
            body = response(sent, 183).replace(b"Content-Length: 0\r\n\r\n", b"Content-Type: a/b\r\nContent-Length: 1\r\n\r\nx")
            for data in (response(sent, 180), body, response(sent, 200)):
                self.rig.arrive(data, 7002)
            self.assertEqual([line.partition("code=")[2][:3] for line in self.lines()], codes)

    def test_cancels(self) -> None:
        """A CANCEL is accounted only where that is wanted."""
        for report, opened in [(0, False), (1, True)]:
            self.rig = Rig()
            self.make(report_cancels=report)
            seen: list[bool] = []

            async def route(run: Run, seen: list[bool] = seen) -> None:
                self.acc.do_accounting(run, "log")
                seen.append(run.context is not None and "acc" in run.context)

            self.rig.routes(route)
            self.rig.arrive(request("CANCEL"), 7001)
            self.assertEqual(seen, [opened])

    def test_direction(self) -> None:
        """Tags change places in what the callee sends, if wanted."""
        for detect, tags in [(0, "from_tag=a1;to_tag=zz"), (1, "from_tag=zz;to_tag=a1")]:
            self.rig = Rig()
            self.make(detect_direction=detect)
            rr = self.acc.rr
            assert rr is not None
            self.script(rr.loose_route, self.account("log"))
            self.rig.arrive(request("BYE", to_tag="zz", extra="Route: <sip:127.0.0.1:5060;lr;ftag=zz>\r\n"), 7001)
            (sent,) = self.rig.sent(7002)
            self.rig.arrive(response(sent, 200), 7002)
            self.assertIn(tags, self.lines()[0])

    def test_fields(self) -> None:
        """Extra fields and legs come last, null ones empty."""
        self.make(extra_fields="log: a->Extra_a; b", leg_fields="log: l->Leg; m")

        def fill(run: Run) -> None:
            self.acc.set_extra(run, "a", "v1")
            self.acc.set_leg(run, "l", None, "1")
            self.acc.set_leg(run, "m", None, 2)
            self.acc.acc_new_leg(run)
            self.acc.set_leg(run, "l", None, "3")
            self.acc.set_leg(run, "m", 0, 5)
            seen = [self.acc.acc_leg(run, "l", index) for index in (None, 0, 1, -1, -2, 7)]
            self.assertEqual(seen, ["3", "1", "3", "3", "1", None])
            self.assertEqual((self.acc.acc_current_leg(run), self.acc.acc_extra(run, "a")), (1, "v1"))

        self.script(fill, self.account("log"))
        self.play("MESSAGE", 200)
        self.assertEqual(self.lines(), [
            self.line("transaction answered", "MESSAGE", 200) + ";Extra_a=v1;b=;Leg=1;m=5;Leg=3;m="])

    def test_undeclared(self) -> None:
        """A field that no parameter declares is an error, in the log."""
        seen: list[Any] = []

        def fill(run: Run) -> None:
            self.acc.set_extra(run, "a", "v1")
            self.acc.set_leg(run, "l", None, "1")
            seen.extend((self.acc.acc_new_leg(run), self.acc.acc_extra(run, "a"), self.acc.acc_leg(run, "l"),
                self.acc.acc_current_leg(run)))

        self.script(fill)
        self.play("MESSAGE", 200)
        self.assertEqual((seen, [level for level, _ in self.rig.log]), ([False, None, None, None], [-1, -1, -1]))
        self.make(leg_fields="l")
        self.script(lambda run: self.acc.set_leg(run, "l", 3, "x"))
        self.play("MESSAGE", branch="two")
        self.assertIn("no leg 3", self.rig.log[-1][1])

    def test_now(self) -> None:
        """acc_log_request writes at once; the comment is cut into code and reason."""
        for comment, code, reason in [
            ("403 Destination not allowed", "403", "Destination not allowed"), ("403", "403", "Forbidden"),
            ("MESSAGE text", "", "MESSAGE text"),
            ("200 OK", "200", "OK"), ("", "", ""), ("٤٠٤ x", "", "٤٠٤ x"),
        ]:
            self.rig = Rig()
            self.make()
            self.script(partial(self.acc.acc_log_request, comment=comment))
            self.play("MESSAGE", 200)
            self.assertEqual(self.lines(), [
                "ACC: request accounted: timestamp=1700000000;method=MESSAGE;from_tag=a1;to_tag=;call_id=call@test;"
                f"code={code};reason={reason}"])

    def test_now_with_fields(self) -> None:
        """An account that is open gives its fields and its times."""
        self.make(extra_fields="a")
        self.script(lambda run: self.acc.set_extra(run, "a", 1), lambda run: self.acc.acc_log_request(run, "403 x"))
        self.play("MESSAGE", 200)
        self.assertEqual(self.lines(), [self.line("request accounted", "MESSAGE", 403, to_tag="", reason="x") + ";a=1"])


class ParameterTests(TestCase):
    """What is refused."""

    def test_types_and_flags(self) -> None:
        """Other backends, unknown words."""
        for text, names in [("log", ("log",)), ("LOG | log", ("log",)), ("db|log | evi|aaa", ("evi", "log", "aaa", "db"))]:
            self.assertEqual(parse_types(text), names)
        for text in ("aa", "log|aa", "foo", ""):
            self.assertRaises(ValueError, parse_types, text)
        self.assertEqual(parse_flags("cdr | missed|FAILED"), {"cdr", "missed", "failed"})
        for text in ("foo", "missed|", ""):
            self.assertRaises(ValueError, parse_flags, text)

    def test_from_variables(self) -> None:
        """A bad word that comes from a variable fails when it is used."""
        acc = Acc(LoneServer())
        rig = Rig()
        results: list[bool] = []

        async def route(run: Run) -> None:
            results.extend((acc.do_accounting(run, "foo"), acc.do_accounting(run, "log", "x"), acc.drop_accounting(run, "x")))

        rig.routes(route)
        rig.arrive(request("MESSAGE"), 7001)
        self.assertEqual((results, len(rig.log)), ([False] * 3, 3))

    def test_fields(self) -> None:
        """Tags and names."""
        for text, backends, fields in [
            ("log: a->Extra_a; b", ("log",), {"a": "Extra_a", "b": "b"}), ("a->x;b->y", ("log",), {"a": "x", "b": "y"}),
            ("a", ("log",), {"a": "a"}), ("db|evi: a->b", ("evi", "db"), {"a": "b"}),
        ]:
            self.assertEqual(parse_fields(text), (backends, fields))
        for text in ("aa: a->b", "a;;b", "->x", "a->", ""):
            self.assertRaises(ValueError, parse_fields, text)

    async def test_needs_rr(self) -> None:
        """detect_direction needs rr."""
        await Acc(LoneServer(), detect_direction=0).start()
        with self.assertRaises(ValueError):
            await Acc(LoneServer(), detect_direction=1).start()
