"""Tests of failover (RFC 3263 4.3) in sipgw.proxy.responses and forward: names that lead to several targets, blacklists."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from sipgw.core.blacklists import Rule, parse_network, parse_rule
from sipgw.proxy.forward import find_flow
from sipgw.proxy.originate import new_request, originate
from sipgw.script.run import Branch, Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import EXIT
from sipgw.sip.message import Request, parse
from sipgw.sip.target import Target
from sipgw.testing import finished
from tests.proxy.rig import Rig, request, response
from tests.proxy.test_responses import ALICE, BOB, CAROL, DAVE, Settled

PORTS = (BOB, CAROL, DAVE)


class Named(Settled):
    """A rig in which example.org leads to bob, carol and dave, and whose script relays with ``flags``."""

    def setUp(self) -> None:
        self.rig = Rig(fr_timeout=4)
        self.flags: str | None = None
        self.lists: tuple[str, ...] = ()
        self.targets = [Target("udp", "127.0.0.1", port) for port in PORTS]
        self.results: list[int] = []
        self.failures: list[int] = []
        self.asked: list[Any] = []
        self.rig.user.resolve = self.resolve
        self.rig.routes(self.route, failure={"f": self.failed})

    async def resolve(self, *asked: Any) -> list[Target]:
        """Know example.org only."""
        self.asked.append(asked)
        return list(self.targets) if asked[0] == "example.org" else []

    async def route(self, run: Run) -> Any:
        """Relay, with a failure route armed and the lists in force that the test wants."""
        self.rig.tm.t_on_failure(run, "f")
        if self.lists:
            run.blacklists = tuple(one for one in self.rig.user.blacklists.all() if one.name in self.lists)
        self.results.append(await self.rig.tm.t_relay(run, self.flags))
        if self.results[-1] < 0:
            self.rig.tm.t_reply(run, 480, "Nowhere")
        return EXIT

    async def failed(self, run: Run) -> Any:
        """Note what failed."""
        self.failures.append(self.rig.tm.reply_code(run))
        return EXIT

    def call(self, uri: str = "sip:bob@example.org", method: str = "INVITE", extra: str = "") -> None:
        self.rig.arrive(request(method, uri, extra=extra), ALICE)

    def only(self, port: int) -> Request:
        """The one request that ``port`` received, and that nobody else did."""
        (found,) = self.rig.sent(port)
        self.assertEqual([self.rig.said(other) for other in PORTS], [[], [], []])
        return found  # type: ignore[no-any-return]

    def deny(self, port: int, flags: tuple[str, ...] = ()) -> None:
        """Make a blacklist "one" that forbids ``port``."""
        self.rig.user.blacklists.create("one", flags).define(Rule(parse_network("127.0.0.1"), "", port))


class FailoverTests(Named):
    """What makes a branch go to its next target, and what does not."""

    def test_cannot_send(self) -> None:
        """A target that the system cannot send to is passed over at once; if there is no other, t_relay fails."""
        self.rig.socket.unreachable.update((BOB, CAROL))
        self.call()
        dave = self.only(DAVE)
        self.assertEqual(self.results, [1])
        self.rig.arrive(response(dave, 486), DAVE)
        self.assertEqual((self.rig.said(ALICE), self.failures), (["100", "486"], [486]))
        self.settle()
        self.rig.said(DAVE)
        self.rig.socket.unreachable.add(DAVE)
        self.flags = "no-auto-477"
        self.call()
        self.assertEqual(self.results, [1, -6])
        self.settle()

    def test_503(self) -> None:
        """A 503 is acknowledged and the next target gets the same request on a branch of its own; its answer is the answer."""
        self.call()
        first = self.only(BOB)
        self.assertEqual(self.rig.said(ALICE), ["100"])
        self.rig.arrive(response(first, 503), BOB)
        self.assertEqual(self.rig.said(BOB), ["ACK"])
        second = self.only(CAROL)
        self.assertEqual((second.uri, second.header("Call-ID"), len(second.vias)), (first.uri, first.header("Call-ID"), 2))
        self.assertNotEqual(second.via.branch, first.via.branch)
        self.rig.arrive(response(first, 503), BOB)
        self.assertEqual(self.rig.said(BOB), ["ACK"])
        self.rig.arrive(response(second, 180), CAROL)
        self.rig.arrive(response(second, 200), CAROL)
        self.assertEqual((self.rig.said(ALICE), self.failures, self.results), (["180", "200"], [], [1]))
        self.settle()

    def test_silence(self) -> None:
        """A target that says nothing in fr_timeout is left for the next; the failure route runs after the last only."""
        self.call()
        for port in PORTS:
            self.assertIn("INVITE", self.rig.said(port))
            self.assertEqual((self.failures, "408" in self.rig.said(ALICE)), ([], False))
            self.rig.clock.pump([0.5] * 9)
        self.assertEqual((self.failures, "408" in self.rig.said(ALICE)), ([408], True))
        self.settle()

    def test_last_503(self) -> None:
        """When all have failed the last answer counts, and a 503 goes on as 500."""
        self.call(method="MESSAGE")
        for port in PORTS:
            self.rig.arrive(response(self.only(port), 503), port)
        self.assertEqual((self.rig.said(ALICE), self.failures), (["500 MESSAGE"], [503]))
        self.settle()

    def test_other_answers(self) -> None:
        """Any other final answer is one: no next target is tried."""
        for status in (302, 404, 408, 500, 504, 603):
            self.failures.clear()
            self.call()
            self.rig.arrive(response(self.only(BOB), status), BOB)
            self.assertEqual((self.rig.said(ALICE), self.failures, self.rig.said(CAROL)), (["100", str(status)], [status], []))
            self.settle()
            self.rig.socket.sent.clear()

    def test_ringing(self) -> None:
        """A target that rang and then said nothing more has been reached: it is cancelled and 408 goes out."""
        self.rig.tm.fr_inv_timeout = 5
        self.call()
        self.rig.arrive(response(self.only(BOB), 180), BOB)
        self.rig.clock.pump([0.5] * 12)
        self.assertEqual((self.rig.said(ALICE)[:3], self.failures), (["100", "180", "408"], [408]))
        self.assertEqual((self.rig.said(BOB)[0], self.rig.said(CAROL)), ("CANCEL", []))
        self.settle()

    def test_unreachable(self) -> None:
        """A transport that fails counts as a target that fails."""
        self.call()
        first = self.only(BOB)
        layer = self.rig.user.layer
        client = layer.find_client(first.via.branch or "", "INVITE")
        assert client is not None
        self.rig.user.perform(layer.transport_error(client, self.rig.clock.seconds()))
        self.rig.arrive(response(self.only(CAROL), 486), CAROL)
        self.assertEqual((self.rig.said(ALICE), self.failures), (["100", "486"], [486]))
        self.settle()

    def test_cancelled(self) -> None:
        """After a CANCEL nothing more is tried."""
        self.call()
        first = self.only(BOB)
        self.rig.arrive(request("CANCEL", "sip:bob@example.org"), ALICE)
        self.rig.arrive(response(first, 503), BOB)
        self.assertEqual(self.rig.said(CAROL), [])
        self.assertEqual(self.rig.said(ALICE), ["100", "200 CANCEL", "500"])
        self.settle()

    def test_switched_off(self) -> None:
        """``no-dns-failover`` and ``disable_dns_failover`` end a branch with its first target."""
        for flags, disabled in (("no-dns-failover", 0), (None, 1)):
            self.flags, self.rig.user.globals["disable_dns_failover"] = flags, disabled
            self.failures.clear()
            self.call(method="MESSAGE")
            self.rig.arrive(response(self.only(BOB), 503), BOB)
            self.assertEqual((self.rig.said(ALICE), self.failures, self.rig.said(CAROL)), (["500 MESSAGE"], [503], []))
            self.settle()

    def test_forked(self) -> None:
        """One branch of several fails over while the other is ringing; a 2xx of that one ends it."""
        async def fork(run: Run) -> Any:
            run.branches = [Branch("sip:127.0.0.1:7005")]
            return await self.rig.tm.t_relay(run)

        self.rig.routes(fork)
        self.call()
        other = self.rig.sent(7005)[0]
        self.rig.arrive(response(other, 180), 7005)
        self.rig.arrive(response(self.rig.sent(BOB)[0], 503), BOB)
        second = self.rig.sent(CAROL)[0]
        self.rig.arrive(response(second, 180), CAROL)
        self.rig.arrive(response(other, 200), 7005)
        self.assertEqual((self.rig.said(ALICE), self.rig.said(CAROL)), (["100", "180", "180", "200"], ["CANCEL"]))
        self.rig.arrive(response(second, 503), CAROL)
        self.assertEqual((self.rig.said(CAROL), self.rig.said(DAVE)), (["ACK"], []))
        self.settle()


class TargetTests(Named):
    """Which targets are taken."""

    def test_asked(self) -> None:
        """The resolver is asked for what the URI says and not for what is assumed; an IP address asks nothing."""
        for uri in ("sip:example.org", "sip:example.org:5070", "sip:example.org;transport=UDP", "sips:example.org", "sip:x.org"):
            self.call(uri, "MESSAGE")
            self.settle()
        self.assertEqual(
            self.asked,
            [
                ("example.org", None, None, False),
                ("example.org", 5070, None, False),
                ("example.org", None, "UDP", False),
                ("example.org", None, None, True),
                ("x.org", None, None, False),
            ],
        )
        self.assertIn("476 MESSAGE", self.rig.said(ALICE))
        self.call("sip:127.0.0.1:7002", "MESSAGE")
        self.call("sip:127.0.0.1:7002;transport=UDP", "MESSAGE")
        self.assertEqual((len(self.asked), self.rig.said(BOB)[-2:]), (5, ["MESSAGE", "MESSAGE"]))
        self.settle()

    def test_unusable(self) -> None:
        """A target that no socket of ours reaches is passed over."""
        self.targets = [Target("tcp", "127.0.0.1", 1), Target("udp", "::1", 1), Target("udp", "127.0.0.1", DAVE)]
        self.call(method="MESSAGE")
        self.rig.arrive(response(self.only(DAVE), 200), DAVE)
        self.assertEqual(self.rig.said(ALICE), ["200 MESSAGE"])
        self.settle()

    def test_waits(self) -> None:
        """While the name is looked up the request has a transaction; a CANCEL meanwhile ends it and nothing is sent."""
        answer: Deferred[list[Target]] = Deferred()

        async def slow(*asked: Any) -> list[Target]:
            return await answer

        self.rig.user.resolve = slow
        self.call()
        self.call()
        self.assertEqual(self.rig.said(ALICE), ["100", "100"])
        self.rig.arrive(request("CANCEL", "sip:bob@example.org"), ALICE)
        answer.callback(self.targets)
        self.assertEqual((self.rig.said(ALICE), self.rig.said(BOB)), (["200 CANCEL", "487"], []))
        self.settle()


class LocalTests(Named):
    """Requests of our own."""

    def originate(self) -> list[int]:
        """Send one to example.org; the list has the status of each answer."""
        answers: list[int] = []
        made = new_request(self.rig.user, "MESSAGE", "sip:bob@example.org", "sip:us@here", "sip:bob@example.org")
        finished(originate(self.rig.user, made, lambda status, _response: answers.append(status), timeout=4))
        return answers

    def test_next_target(self) -> None:
        """The next target is tried after a 503 and after silence, and only the last word counts."""
        answers = self.originate()
        self.rig.arrive(response(self.only(BOB), 503), BOB)
        self.assertEqual(self.rig.said(CAROL), ["MESSAGE"])
        self.rig.clock.pump([0.5] * 9)
        self.rig.said(CAROL)
        self.rig.arrive(response(self.rig.sent(DAVE)[0], 503), DAVE)
        self.assertEqual(answers, [503])
        self.settle()

    def test_no_next_target(self) -> None:
        """Another answer, or one that is only provisional, is not a failure; nor is any with ``disable_dns_failover``."""
        answers = self.originate()
        first = self.only(BOB)
        self.rig.arrive(response(first, 100), BOB)
        self.rig.clock.pump([0.5] * 9)
        self.assertEqual((answers, self.rig.said(CAROL)), ([100, 408], []))
        self.settle()
        self.rig.socket.sent.clear()
        self.rig.user.globals["disable_dns_failover"] = 1
        answers = self.originate()
        self.rig.arrive(response(self.only(BOB), 503), BOB)
        self.assertEqual((answers, self.rig.said(CAROL)), ([503], []))
        self.settle()


class BlacklistTests(Named):
    """Destinations that are forbidden."""

    def test_filtered(self) -> None:
        """A forbidden destination is answered 473, or -5 to a script that asked for it."""
        self.deny(BOB)
        self.lists = ("one",)
        self.call("sip:127.0.0.1:7002", "MESSAGE")
        (answer,) = self.rig.sent(ALICE)
        self.assertEqual((answer.status, answer.reason, self.results), (473, "Filtered destination (473/TM)", [1]))
        self.settle()
        self.flags = "no-auto-477"
        self.call("sip:127.0.0.1:7002", "MESSAGE")
        self.assertEqual((self.rig.said(ALICE), self.results, self.rig.said(BOB)), (["480 MESSAGE"], [1, -5], []))
        self.settle()

    def test_next_target(self) -> None:
        """Of the targets of a name those that are not forbidden are taken, at first and when one fails."""
        self.deny(CAROL, ("default",))
        self.call(method="MESSAGE")
        self.rig.arrive(response(self.only(BOB), 503), BOB)
        self.rig.arrive(response(self.only(DAVE), 200), DAVE)
        self.assertEqual(self.rig.said(ALICE), ["200 MESSAGE"])
        self.settle()

    def test_not_in_use(self) -> None:
        """A list that the script does not use forbids nothing, and one that it left off no more."""
        self.deny(BOB, ("default",))
        self.rig.user.blacklists.create("two")
        self.lists = ("two",)
        self.call("sip:127.0.0.1:7002", "MESSAGE")
        self.assertEqual(self.rig.said(BOB), ["MESSAGE"])
        self.settle()

    def test_pattern(self) -> None:
        """A pattern is matched with the whole message as it leaves, our Via included."""
        for pattern, refused in (
            ("MESSAGE sip:127.0.0.1:7002 *", True),
            ("*127.0.0.1:5060;branch=*", True),
            ("*X-Kind: blue*", True),
            ("*x-kind*", False),
        ):
            rig = self.rig = Rig()
            rig.routes(self.route, failure={"f": self.failed})
            rig.user.blacklists.create("one", ("default",)).define(parse_rule(f"udp,127.0.0.0/8,7002,{pattern}"))
            self.call("sip:127.0.0.1:7002", "MESSAGE", "X-Kind: blue\r\n")
            self.assertEqual("473 MESSAGE" in rig.said(ALICE), refused, pattern)
            self.settle()

    def test_failed(self) -> None:
        """With the automatic list a target that failed is not tried for four minutes."""
        self.rig.user.blacklists.configure((), True)
        self.call(method="MESSAGE")
        self.rig.arrive(response(self.only(BOB), 503), BOB)
        self.rig.arrive(response(self.only(CAROL), 200), CAROL)
        self.rig.clock.pump([10.0] * 5)
        self.rig.socket.sent.clear()
        self.call(method="MESSAGE")
        self.rig.arrive(response(self.only(CAROL), 404), CAROL)
        self.rig.clock.pump([10.0] * 20)
        self.rig.socket.sent.clear()
        self.call(method="MESSAGE")
        self.rig.arrive(response(self.only(BOB), 200), BOB)
        self.settle()

    def test_cost(self) -> None:
        """An IP address is found without waiting and without the resolver."""
        run = Run(parse(request("MESSAGE")), RouteKind.REQUEST, None, 0.0, self.rig.user)
        run.uri = "sip:127.0.0.1:7003"
        with self.assertRaises(StopIteration) as stopped:
            find_flow(run).send(None)
        self.assertEqual((stopped.exception.value.port, self.asked), (CAROL, []))
