"""Tests of sipgw.proxy.responses: forking, picking the final response, cancelling, failure routes, waiting."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.responses import ResponseContext
from sipgw.script.routes import Route
from sipgw.script.run import Branch, Run
from sipgw.script.symbols import RouteKind
from sipgw.script.values import DROP, EXIT
from sipgw.sip.message import Request
from tests.proxy.rig import Rig, request, response

ALICE, BOB, CAROL, DAVE = 7001, 7002, 7003, 7004


class Settled(SynchronousTestCase):
    """A rig that must be empty again in the end."""

    rig: Rig

    def settle(self) -> None:
        """Time passes; nothing is left: no transactions, no timers, and no bug was logged."""
        self.rig.clock.pump([1.0] * 200)
        self.assertEqual(self.rig.user.layer.in_use, 0)
        self.assertEqual(len(self.rig.user.timers), 0)
        self.assertEqual([line for line in self.rig.log if "bug" in line[1]], [])


class Forked(Settled):
    """What the tests below share: a rig whose request route relays to bob and, if told, to carol and dave."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.extra: list[int] = []
        self.results: list[int] = []
        self.rig.routes(self.route)

    async def route(self, run: Run) -> Any:
        """Relay."""
        run.branches = [Branch(f"sip:127.0.0.1:{port}") for port in self.extra]
        self.results.append(await self.rig.tm.t_relay(run))
        return EXIT

    def invite(self, *extra: int) -> list[Request]:
        """Alice calls; what the callees received."""
        self.extra = list(extra)
        self.rig.arrive(request("INVITE"), ALICE)
        self.assertEqual(self.rig.said(ALICE), ["100"])
        return [self.rig.sent(port)[0] for port in (BOB, *extra)]


class OneBranchTests(Forked):
    """A call to one callee."""

    def test_call(self) -> None:
        """Provisional and final answers come back without our Via; the ACK goes its own way."""
        (bob,) = self.invite()
        self.assertEqual((len(bob.vias), bob.uri, self.results), (2, "sip:127.0.0.1:7002", [1]))
        self.rig.arrive(response(bob, 100), BOB)
        self.assertEqual(self.rig.said(ALICE), [])
        self.rig.arrive(response(bob, 180), BOB)
        self.rig.arrive(response(bob, 200), BOB)
        ringing, answer = self.rig.sent(ALICE)
        self.assertEqual((ringing.status, answer.status, len(answer.vias)), (180, 200, 1))
        self.rig.arrive(response(bob, 200), BOB)
        self.assertEqual(self.rig.said(ALICE), ["200"])
        self.rig.arrive(request("ACK", branch="ack", to_tag="b1"), ALICE)
        self.assertEqual(self.rig.said(BOB), ["ACK"])
        self.settle()

    def test_busy(self) -> None:
        """A refusal is acknowledged by us and passed on; alice's ACK ends here."""
        (bob,) = self.invite()
        self.rig.arrive(response(bob, 486), BOB)
        self.assertEqual(self.rig.said(BOB), ["ACK"])
        self.assertEqual(self.rig.said(ALICE), ["486"])
        self.rig.arrive(request("ACK", to_tag="b1"), ALICE)
        self.rig.arrive(response(bob, 486), BOB)
        self.assertEqual((self.rig.said(BOB), self.rig.said(ALICE)), (["ACK"], []))
        self.settle()

    def test_503(self) -> None:
        """A 503 of the callee goes on as 500 (RFC 3261 16.7 step 6)."""
        (bob,) = self.invite()
        self.rig.arrive(response(bob, 503), BOB)
        (answer,) = self.rig.sent(ALICE)
        self.assertEqual((answer.status, answer.reason), (500, "Reason"))
        self.settle()

    def test_silence(self) -> None:
        """A callee that never answers is a 408 after fr_timeout, and gets no CANCEL."""
        self.rig.tm.fr_timeout = 5
        self.invite()
        self.rig.clock.pump([0.25] * 19)
        self.assertNotIn("408", self.rig.said(ALICE))
        self.rig.clock.pump([0.25] * 4)
        self.assertIn("408", self.rig.said(ALICE))
        self.assertNotIn("CANCEL", self.rig.said(BOB))
        self.settle()

    def test_rings_for_ever(self) -> None:
        """A callee that only rings is cancelled after fr_inv_timeout; alice gets 408."""
        self.rig.tm.fr_inv_timeout = 20
        (bob,) = self.invite()
        self.rig.arrive(response(bob, 180), BOB)
        self.rig.clock.pump([1.0] * 22)
        self.assertEqual(self.rig.said(ALICE)[:2], ["180", "408"])
        self.assertIn("CANCEL", self.rig.said(BOB))
        self.settle()

    def test_nowhere(self) -> None:
        """A destination that has no socket here is answered 500, and t_relay is true: all is done."""
        self.rig.arrive(request("INVITE", "sip:127.0.0.1;transport=tcp"), ALICE)
        self.assertEqual((self.rig.said(ALICE), self.results), (["100", "500"], [1]))
        self.settle()

    def test_unreachable(self) -> None:
        """What the system cannot send is 477 at once, not 408 after fr_timeout."""
        self.rig.socket.unreachable.add(BOB)
        self.rig.arrive(request("INVITE"), ALICE)
        self.assertEqual((self.rig.said(ALICE), self.results), (["100", "477"], [1]))
        self.settle()

    def test_unreachable_ack(self) -> None:
        """An ACK that cannot be sent makes t_relay false."""
        self.rig.socket.unreachable.add(BOB)
        self.rig.arrive(request("ACK", to_tag="b1"), ALICE)
        self.assertEqual(self.results, [-6])

    def test_bye(self) -> None:
        """Other requests make transactions too, without a 100."""
        self.rig.arrive(request("BYE", cseq=2), ALICE)
        (bye,) = self.rig.sent(BOB)
        self.rig.arrive(response(bye, 200), BOB)
        self.assertEqual(self.rig.said(ALICE), ["200 BYE"])
        self.rig.arrive(request("BYE", cseq=2), ALICE)
        self.assertEqual((self.rig.said(ALICE), self.rig.said(BOB)), (["200 BYE"], []))
        self.settle()


class CancelTests(Forked):
    """CANCEL in each state."""

    def cancel(self) -> None:
        self.rig.arrive(request("CANCEL"), ALICE)

    def test_before_ringing(self) -> None:
        """No CANCEL before a provisional answer (RFC 3261 9.1); it follows at once after one."""
        (bob,) = self.invite()
        self.cancel()
        self.assertEqual((self.rig.said(ALICE), self.rig.said(BOB)), (["200 CANCEL"], []))
        self.rig.arrive(response(bob, 180), BOB)
        (cancel,) = self.rig.sent(BOB)
        self.assertEqual((cancel.method, len(cancel.vias), cancel.via.branch), ("CANCEL", 1, bob.via.branch))
        self.rig.arrive(response(cancel, 200), BOB)
        self.rig.arrive(response(bob, 487), BOB)
        self.assertEqual((self.rig.said(BOB), self.rig.said(ALICE)), (["ACK"], ["180", "487"]))
        self.settle()

    def test_while_ringing(self) -> None:
        """Cancel, 200 to it, 487 to the INVITE; a repeated CANCEL is answered again and does nothing."""
        (bob,) = self.invite()
        self.rig.arrive(response(bob, 180), BOB)
        self.cancel()
        self.cancel()
        self.assertEqual(self.rig.said(ALICE), ["180", "200 CANCEL", "200 CANCEL"])
        self.assertEqual(self.rig.said(BOB), ["CANCEL"])
        self.rig.arrive(response(bob, 487), BOB)
        self.assertEqual(self.rig.said(ALICE), ["487"])
        self.settle()

    def test_too_late(self) -> None:
        """After the answer a CANCEL changes nothing."""
        (bob,) = self.invite()
        self.rig.arrive(response(bob, 200), BOB)
        self.cancel()
        self.assertEqual((self.rig.said(ALICE), self.rig.said(BOB)), (["200", "200 CANCEL"], []))
        self.settle()

    def test_silent_callee(self) -> None:
        """When the callee never answers, the cancelled INVITE still ends with 487."""
        self.rig.tm.fr_timeout = 5
        self.invite()
        self.cancel()
        self.rig.clock.pump([0.5] * 14)
        self.assertEqual(self.rig.said(ALICE)[:2], ["200 CANCEL", "487"])
        self.settle()


class ForkTests(Forked):
    """Several callees at once."""

    def test_one_answers(self) -> None:
        """The first 2xx wins; the others are cancelled, and a second 2xx still goes through (RFC 3261 16.7 step 5)."""
        bob, carol, dave = self.invite(CAROL, DAVE)
        for callee, port in ((bob, BOB), (carol, CAROL)):
            self.rig.arrive(response(callee, 180), port)
        self.rig.arrive(response(bob, 200), BOB)
        self.assertEqual(self.rig.said(ALICE), ["180", "180", "200"])
        self.assertEqual((self.rig.said(CAROL), self.rig.said(DAVE)), (["CANCEL"], []))
        self.rig.arrive(response(dave, 180), DAVE)
        self.assertEqual(self.rig.said(DAVE), ["CANCEL"])
        self.rig.arrive(response(carol, 200, tag="c1"), CAROL)
        self.rig.arrive(response(dave, 487, tag="d1"), DAVE)
        self.assertEqual(self.rig.said(ALICE), ["200"])
        self.settle()

    def test_best(self) -> None:
        """When all fail the lowest class wins, within 4xx what a retry can cure; ours count after theirs."""
        for statuses, best in (((486, 404, 503), "404"), ((404, 407, 302), "302"), ((404, 407, 486), "407")):
            callees = self.invite(CAROL, DAVE)
            for callee, port, status in zip(callees, (BOB, CAROL, DAVE), statuses, strict=True):
                self.assertEqual(self.rig.said(ALICE), [])
                self.rig.arrive(response(callee, status), port)
            self.assertEqual(self.rig.said(ALICE), [best])
            self.settle()
            self.rig.socket.sent.clear()

    def test_6xx(self) -> None:
        """A 6xx cancels the others and is the answer, once they have ended."""
        bob, carol = self.invite(CAROL)
        self.rig.arrive(response(carol, 180), CAROL)
        self.rig.arrive(response(bob, 603), BOB)
        self.assertEqual((self.rig.said(ALICE), self.rig.said(CAROL)), (["180"], ["CANCEL"]))
        self.rig.arrive(response(carol, 487), CAROL)
        self.assertEqual(self.rig.said(ALICE), ["603"])
        self.settle()

    def test_cancelled(self) -> None:
        """A CANCEL reaches every branch that rings."""
        bob, carol = self.invite(CAROL)
        for callee, port in ((bob, BOB), (carol, CAROL)):
            self.rig.arrive(response(callee, 180), port)
        self.rig.arrive(request("CANCEL"), ALICE)
        for callee, port in ((bob, BOB), (carol, CAROL)):
            self.assertEqual(self.rig.said(port), ["CANCEL"])
            self.rig.arrive(response(callee, 487), port)
        self.assertEqual(self.rig.said(ALICE), ["180", "180", "200 CANCEL", "487"])
        self.settle()


    def test_unreachable(self) -> None:
        """A branch that cannot be sent is left out; the others decide."""
        self.rig.socket.unreachable.add(BOB)
        self.extra = [CAROL]
        self.rig.arrive(request("INVITE"), ALICE)
        (carol,) = self.rig.sent(CAROL)
        self.assertEqual(self.results, [1])
        self.rig.arrive(response(carol, 486), CAROL)
        self.assertEqual(self.rig.said(ALICE), ["100", "486"])
        self.settle()


class RouteTests(Settled):
    """Branch, reply and failure routes."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.seen: list[Any] = []
        self.gate: Deferred[None] = Deferred()

    async def relay(self, run: Run) -> Any:
        """Arm everything there is, and relay."""
        tm, routes = self.rig.tm, self.rig.user.routes
        if routes.branch:
            tm.t_on_branch(run, "b")
        if routes.failure:
            tm.t_on_failure(run, "f")
        if routes.onreply:
            tm.t_on_reply(run, "r")
        self.seen.append(await tm.t_relay(run))
        return EXIT

    def call(self) -> Request:
        self.rig.arrive(request("INVITE"), ALICE)
        self.rig.said(ALICE)
        (invite,) = self.rig.sent(BOB)
        return invite  # type: ignore[no-any-return]

    def test_serial_fork(self) -> None:
        """A failure route that relays again makes a new branch; its answer is the answer."""

        async def failed(run: Run) -> Any:
            self.seen.append((self.rig.tm.reply_code(run), run.uri))
            run.uri = "sip:127.0.0.1:7003"
            return await self.rig.tm.t_relay(run)

        self.rig.routes(self.relay, failure={"f": failed})
        bob = self.call()
        self.rig.arrive(response(bob, 486), BOB)
        (carol,) = self.rig.sent(CAROL)
        self.assertEqual(self.seen, [1, (486, "sip:127.0.0.1:7002")])
        self.assertEqual(self.rig.said(ALICE), [])
        self.rig.arrive(response(carol, 200), CAROL)
        self.assertEqual(self.rig.said(ALICE), ["200"])
        self.settle()

    def test_serial_fork_after_timeout(self) -> None:
        """A failure route that relays from inside a timer does not enter the layer twice (house 2.6, 6)."""

        async def failed(run: Run) -> Any:
            self.seen.append((self.rig.tm.reply_code(run), self.rig.tm.t_local_replied(run, "last")))
            run.uri = "sip:127.0.0.1:7003"
            return await self.rig.tm.t_relay(run)

        self.rig.tm.fr_timeout = 2
        self.rig.routes(self.relay, failure={"f": failed})
        self.call()
        self.rig.clock.pump([0.25] * 9)
        self.assertEqual(self.seen, [1, (408, True)])
        carol = self.rig.sent(CAROL)[0]
        self.rig.arrive(response(carol, 603), CAROL)
        self.assertEqual(self.rig.said(ALICE), ["603"])
        self.settle()

    def test_failure_unreachable(self) -> None:
        """A failure route whose t_relay cannot send gets -6, and the failure that it began with goes up."""

        async def failed(run: Run) -> Any:
            run.uri = "sip:127.0.0.1:7003"
            self.seen.append(await self.rig.tm.t_relay(run))
            return EXIT

        self.rig.socket.unreachable.add(CAROL)
        self.rig.routes(self.relay, failure={"f": failed})
        self.rig.arrive(response(self.call(), 486), BOB)
        self.assertEqual((self.rig.said(ALICE), self.seen), (["486"], [1, -6]))
        self.settle()

    def test_failure_replies(self) -> None:
        """A failure route may answer in its own words, and runs once only."""

        async def failed(run: Run) -> Any:
            self.seen.append("failed")
            self.rig.tm.t_reply(run, 404, "Gone")
            return EXIT

        self.rig.routes(self.relay, failure={"f": failed})
        self.rig.arrive(response(self.call(), 486), BOB)
        self.assertEqual((self.rig.said(ALICE), self.seen), (["404"], [1, "failed"]))
        self.settle()

    def test_branch_route(self) -> None:
        """A branch route may change its branch alone, or drop it."""

        async def branch(run: Run) -> Any:
            if run.branch_index == 0 and "7003" not in run.uri:
                run.edits = run.edits.append("X-Branch: 0")
            return DROP if "7003" in run.uri else 1

        async def fork(run: Run) -> Any:
            run.branches = [Branch("sip:127.0.0.1:7003")]
            return await self.relay(run)

        self.rig.routes(fork, branch={"b": branch})
        bob = self.call()
        self.assertEqual((bob.header("X-Branch"), self.rig.sent(CAROL)), ("0", []))
        self.rig.arrive(response(bob, 486), BOB)
        self.assertEqual(self.rig.said(ALICE), ["486"])
        self.settle()

    def test_reply_route(self) -> None:
        """A reply route sees each answer, may edit it, and may drop provisional ones only."""

        async def reply(run: Run) -> Any:
            self.seen.append(run.message.status)  # type: ignore[union-attr]
            run.edits = run.edits.append("X-Seen: yes")
            return DROP

        self.rig.routes(self.relay, onreply={"r": reply})
        bob = self.call()
        self.rig.arrive(response(bob, 180), BOB)
        self.rig.arrive(response(bob, 200), BOB)
        (answer,) = self.rig.sent(ALICE)
        self.assertEqual((self.seen, answer.status, answer.header("X-Seen")), ([1, 180, 200], 200, "yes"))
        self.settle()

    def test_failure_waits(self) -> None:
        """While a failure route waits, a late 2xx and a CANCEL stand in line (house 2.6, 5)."""

        async def failed(run: Run) -> Any:
            await self.gate
            run.uri = "sip:127.0.0.1:7003"
            return await self.rig.tm.t_relay(run)

        self.rig.routes(self.relay, failure={"f": failed})
        self.rig.arrive(response(self.call(), 486), BOB)
        self.rig.arrive(request("CANCEL"), ALICE)
        self.assertEqual(self.rig.said(ALICE), ["200 CANCEL"])
        self.gate.callback(None)
        self.assertEqual(self.rig.said(CAROL), [])
        self.assertEqual(self.rig.said(ALICE)[-1:], ["486"])
        self.settle()


class WaitingTests(Forked):
    """A request route that waits before it relays."""

    async def route(self, run: Run) -> Any:
        """Wait, then relay."""
        await self.gate
        self.results.append(await self.rig.tm.t_relay(run))
        return EXIT

    def setUp(self) -> None:
        super().setUp()
        self.gate: Deferred[None] = Deferred()

    def test_retransmission(self) -> None:
        """The request gets a transaction at once, so that its retransmissions are absorbed."""
        for _ in range(3):
            self.rig.arrive(request("INVITE"), ALICE)
        self.assertEqual(self.rig.said(ALICE), ["100", "100", "100"])
        self.gate.callback(None)
        self.assertEqual((self.rig.said(BOB), self.results), (["INVITE"], [1]))
        self.settle()

    def test_cancel(self) -> None:
        """A CANCEL meanwhile is answered, the INVITE gets 487, and the later t_relay sends nothing (house 2.6, 2)."""
        self.rig.arrive(request("INVITE"), ALICE)
        self.rig.user.routes.request.function, gate = self.cancel_route, self.gate  # type: ignore[union-attr]
        self.rig.arrive(request("CANCEL"), ALICE)
        self.assertEqual(self.rig.said(ALICE), ["100", "200 CANCEL", "487"])
        gate.callback(None)
        self.assertEqual(self.rig.said(BOB), [])
        self.settle()

    async def cancel_route(self, run: Run) -> Any:
        """What the script does with a CANCEL."""
        await self.rig.tm.t_relay(run)
        return EXIT

    def test_nothing_done(self) -> None:
        """A run that waited and then did nothing leaves no transaction behind."""

        async def idle(run: Run) -> Any:
            await self.gate
            return EXIT

        self.rig.routes(idle)
        self.rig.arrive(request("MESSAGE"), ALICE)
        self.assertEqual(self.rig.user.layer.in_use, 1)
        self.gate.callback(None)
        self.assertEqual(self.rig.user.layer.in_use, 0)

    def test_fault(self) -> None:
        """What a route raises is logged with its file and line and answered 500; the next message is served."""

        async def broken(run: Run) -> Any:
            raise ZeroDivisionError("oops")

        self.rig.routes(broken)
        for branch in ("one", "two", "three"):
            self.rig.arrive(request("MESSAGE", branch=branch), ALICE)
        self.assertEqual(self.rig.said(ALICE), ["500 MESSAGE"] * 3)
        self.assertEqual([text for _, text in self.rig.log], ["test.cfg:1: in route: ZeroDivisionError: oops"])


class OriginateTests(Settled):
    """Requests of our own."""

    def setUp(self) -> None:
        self.rig = Rig()
        self.results: list[bool] = []
        self.rig.routes(self.route)

    async def route(self, run: Run) -> Any:
        """Answer, and send a message of our own."""
        self.rig.tm.t_reply(run, 200, "OK")
        self.results.append(
            await self.rig.tm.t_new_request(
                run, "MESSAGE", "sip:127.0.0.1:7002", "sip:us@here", "sip:bob@there", "text/plain hello world", "why"
            )
        )
        return EXIT

    def test_sent(self) -> None:
        """It is a complete request, seen by the local route, sent again until it is answered."""
        seen: list[Any] = []

        async def local(run: Run) -> Any:
            seen.append((run.kind.name, run.avps, run.uri))
            run.edits = run.edits.append("X-Local: yes")
            return 1

        self.rig.user.routes.local = Route("local", RouteKind.LOCAL, local, True, "test.cfg", 3)
        self.rig.arrive(request("OPTIONS"), ALICE)
        (message,) = self.rig.sent(BOB)
        message.check()
        self.assertEqual((message.header("X-Local"), message.body), ("yes", b"hello world"))
        self.assertEqual((message.header("Content-Type"), len(message.vias)), ("text/plain", 1))
        self.assertEqual(seen, [("LOCAL", {"uac_ctx": ["why"]}, "sip:127.0.0.1:7002")])
        self.rig.clock.advance(0.6)
        self.assertEqual(self.rig.said(BOB), ["MESSAGE"])
        self.rig.arrive(response(message, 200), BOB)
        self.rig.clock.advance(3)
        self.assertEqual((self.rig.said(BOB), self.results), ([], [True]))
        self.settle()

    def test_dropped(self) -> None:
        """A local route that drops keeps it from being sent."""

        async def local(run: Run) -> Any:
            return DROP

        self.rig.user.routes.local = Route("local", RouteKind.LOCAL, local, True, "test.cfg", 3)
        self.rig.arrive(request("OPTIONS"), ALICE)
        self.assertEqual((self.rig.sent(BOB), self.results), ([], [False]))
        self.settle()


class FreedTests(Forked):
    """Nothing keeps a transaction alive but the layer."""

    def test_reference_counts(self) -> None:
        """When a call has ended its objects are freed without the collector's help."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        bob, carol = self.invite(CAROL)
        self.rig.arrive(response(bob, 180), BOB)
        self.rig.arrive(response(carol, 486), CAROL)
        self.rig.arrive(response(bob, 200), BOB)
        every = [thing for thing in gc.get_objects() if isinstance(thing, ResponseContext)]
        contexts = [context for context in every if context.user is self.rig.user]
        del every
        self.assertEqual(len(contexts), 1)
        context = weakref.ref(contexts.pop())
        self.settle()
        self.assertIsNone(context())

    def test_no_cycles(self) -> None:
        """Nothing that belongs to a call, answered, refused or without an answer, is left to the collector."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        bob, carol = self.invite(CAROL)
        self.rig.arrive(response(bob, 180), BOB)
        self.rig.arrive(response(carol, 486), CAROL)
        self.rig.arrive(response(bob, 200), BOB)
        self.rig.arrive(request("INVITE", branch="unanswered", cseq=2), ALICE)
        self.settle()
        gc.set_debug(gc.DEBUG_SAVEALL)
        self.addCleanup(gc.garbage.clear)
        self.addCleanup(gc.set_debug, 0)
        gc.collect()
        self.assertIn("408", self.rig.said(ALICE))
        self.assertEqual({type(thing) for thing in gc.garbage if type(thing).__module__.startswith("sipgw.")}, set())
