"""Tests of sipgw/sip/layer.py in pairs: our client against our server over a wire that loses, doubles and delays.

And one that throws anything at the layer, in any state: no exception, and nothing left in the end."""

from __future__ import annotations

import heapq
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.actions import Action, Deliver, Failed, Send, Unacknowledged
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.layer import TransactionLayer
from sipgw.sip.message import Request, Response, parse
from sipgw.sip.replies import ack_for, respond_to
from sipgw.sip.transaction import ClientTransaction, ServerTransaction, State, TimerSettings
from tests.sip.wire import TCP, UDP, FakeFlow, read_request, request_bytes, response_bytes


class Pair:
    """A caller and a callee with a wire between them; ``run`` until nothing happens any more."""

    def __init__(self, seed: int, loss: float, flow: FakeFlow, timers: TimerSettings) -> None:
        self.random = random.Random(seed)
        self.loss = loss
        self.flow = flow
        self.caller = TransactionLayer(timers)
        self.callee = TransactionLayer(timers)
        self.now = 0.0
        self.due: list[tuple[float, int, str, object]] = []
        self.serial = 0
        self.seen: Counter[tuple[str, str]] = Counter()
        self.finals: dict[str, list[str]] = {}

    def later(self, delay: float, what: str, argument: object) -> None:
        """Let something happen after ``delay``."""
        self.serial += 1
        heapq.heappush(self.due, (self.now + delay, self.serial, what, argument))

    def put(self, to: str, data: bytes) -> None:
        """Put a message on the wire."""
        for _ in range(1 if self.flow.reliable or self.random.random() > 0.1 else 2):
            if self.flow.reliable or self.random.random() >= self.loss:
                self.later(self.random.uniform(0.001, 0.3), to, data)

    def run(self) -> None:
        """Let time pass until nothing is on the wire and no timer waits."""
        while True:
            wakes = [self.caller.wake_at(), self.callee.wake_at(), self.due[0][0] if self.due else None]
            times = [wake for wake in wakes if wake is not None]
            if not times:
                return
            self.now = max(self.now, min(times))
            self.perform("caller", self.caller.expire(self.now))
            self.perform("callee", self.callee.expire(self.now))
            while self.due and self.due[0][0] <= self.now:
                _, _, what, argument = heapq.heappop(self.due)
                if what == "answer":
                    self.answer(argument)  # type: ignore[arg-type]
                else:
                    assert isinstance(argument, bytes)
                    layer = self.caller if what == "caller" else self.callee
                    self.perform(what, layer.receive(parse(argument), self.flow, self.now))

    def perform(self, who: str, actions: list[Action]) -> None:
        """Do what a layer asks for."""
        for action in actions:
            if isinstance(action, Send):
                self.put("callee" if who == "caller" else "caller", action.data)
            elif isinstance(action, Failed):
                self.finals[action.transaction.branch].append(action.reason)
            elif isinstance(action, Unacknowledged):
                self.seen["unacknowledged", action.transaction.request.call_id] += 1
            elif isinstance(action.message, Request):
                self.ask(action.message)
            else:
                self.hear(action)

    def start(self, method: str, number: int) -> None:
        """The caller sends a request."""
        branch = self.caller.new_branch()
        data = request_bytes(method, branch, call_id=f"c{number}")
        self.finals[branch] = []
        self.perform("caller", self.caller.request(data, read_request(data), self.flow, self.now)[1])

    def ask(self, request: Request) -> None:
        """A new request reaches the callee, who answers later, perhaps with a provisional response first."""
        self.seen[request.method, request.call_id] += 1
        if request.method == "ACK":
            return
        tx = self.callee.accept(request, self.flow, self.now)
        if self.random.random() < 0.5:
            self.perform("callee", self.callee.respond(tx, respond_to(request, 180, to_tag="t"), 180, self.now))
        self.later(self.random.uniform(0.0, 3.0), "answer", tx)

    def answer(self, tx: ServerTransaction) -> None:
        """The callee gives the final response."""
        status = self.random.choice([200, 486])
        self.seen["final", tx.request.call_id] = status
        data = respond_to(tx.request, status, to_tag="t")
        self.perform("callee", self.callee.respond(tx, data, status, self.now, retransmit_2xx=True))

    def hear(self, action: Deliver) -> None:
        """A response reaches the caller, who acknowledges a 2xx."""
        response, tx = action.message, action.transaction
        assert isinstance(response, Response)
        if tx is None or response.status < 200:
            return
        self.finals[tx.branch].append(str(response.status))
        if response.status < 300 and tx.method == "INVITE":
            ack = ack_for(tx.sent, response).replace(tx.branch.encode(), self.caller.new_branch().encode())
            self.put("callee", ack)


class PairTests(SynchronousTestCase):
    """Whatever the wire does, both sides come to an end, and to the same one."""

    def check_pair(self, pair: Pair, count: int) -> Counter[str]:
        """Run the pair and look at what each side has learnt."""
        for number in range(count):
            pair.start("INVITE" if number % 2 else "MESSAGE", number)
        pair.run()
        for layer in (pair.caller, pair.callee):
            self.assertEqual((layer.clients, layer.in_use, layer.timers, len(layer._unacked)), (0, 0, 0, 0))
        results: Counter[str] = Counter()
        for number, (_, finals) in enumerate(pair.finals.items()):
            final = str(pair.seen["final", f"c{number}"])
            self.assertLessEqual(len(set(finals)), 1)
            self.assertIn(finals[0], (final, "timeout"))
            if number % 2 == 0 or finals[0] != "200":
                self.assertEqual(len(finals), 1)
            self.assertLessEqual(pair.seen["INVITE" if number % 2 else "MESSAGE", f"c{number}"], 1)
            results[finals[0]] += 1
            results["unacknowledged"] += pair.seen["unacknowledged", f"c{number}"]
        self.assertEqual(sum(results.values()) - results["unacknowledged"], count)
        return results

    def test_lossy(self):
        """A third of all datagrams is lost, others come twice and out of order: nearly all comes through."""
        total: Counter[str] = Counter()
        for seed in range(12):
            total += self.check_pair(Pair(seed, 0.33, UDP, TimerSettings()), 30)
        self.assertLess(total["timeout"] + total["unacknowledged"], 10)
        self.assertGreater(min(total["200"], total["486"]), 100)

    def test_no_loss(self):
        """Without loss nothing fails."""
        results = self.check_pair(Pair(1, 0.0, UDP, TimerSettings()), 60)
        self.assertEqual(results["timeout"] + results["unacknowledged"], 0)

    def test_reliable(self):
        """Over TCP nothing fails and no request is sent twice."""
        pair = Pair(1, 0.0, TCP, TimerSettings())
        results = self.check_pair(pair, 60)
        self.assertEqual(results["timeout"] + results["unacknowledged"], 0)
        self.assertEqual(pair.caller.counters.requests_t1_1 + pair.callee.counters.absorbed_requests, 0)

    def test_short_afterlife(self):
        """With OpenSIPS's five seconds of afterlife everything ends too."""
        self.check_pair(Pair(2, 0.2, UDP, TimerSettings(afterlife=5.0)), 60)

    def test_dead(self):
        """If nothing comes through, everything times out."""
        pair = Pair(3, 1.0, UDP, TimerSettings())
        for number in range(10):
            pair.start("INVITE" if number % 2 else "MESSAGE", number)
        pair.run()
        self.assertEqual(list(pair.finals.values()), [["timeout"]] * 10)
        self.assertLessEqual(pair.now, 64)  # the last are cancelled timers, which leave in their turn
        self.assertEqual((pair.caller.clients, pair.caller.timers), (0, 0))


METHODS = ["INVITE", "ACK", "CANCEL", "MESSAGE", "BYE", "X"]
BRANCHES = ["z9hG4bKa", "z9hG4bKb", "z9hG4bK", "old", ""]
STATUSES = [100, 180, 199, 200, 202, 302, 401, 486, 500, 603, 699]
BROKEN = [b"Via", b"CSeq", b"From", b"To", b"Call-ID", b"1 ", b"SIP/2.0/UDP", b"<sip:"]

requests = st.tuples(
    st.just("request"), st.sampled_from(METHODS), st.sampled_from(BRANCHES), st.sampled_from(["", "t1", "t2"]))
responses = st.tuples(
    st.just("response"), st.sampled_from(STATUSES), st.sampled_from(METHODS), st.sampled_from([*BRANCHES, "z9hG4bKc"]))
broken = st.tuples(
    st.just("broken"), st.sampled_from(BROKEN), st.sampled_from([b"", b"\x00", b"Z", b",", b'"']), st.booleans())
sends = st.tuples(
    st.just("send"), st.sampled_from(["INVITE", "MESSAGE", "CANCEL"]), st.sampled_from(["z9hG4bKa", "z9hG4bKc"]),
    st.sampled_from([None, 0.0, 5.0]))
answers = st.tuples(st.just("answer"), st.integers(0, 20), st.sampled_from(STATUSES), st.booleans())
others = st.tuples(
    st.sampled_from(["terminate", "abandon", "pause", "resume", "cancel", "error"]), st.integers(0, 20), st.none(), st.none())
passing = st.tuples(st.just("time"), st.sampled_from([0.0, 0.1, 0.5, 1.0, 4.0, 5.0, 32.0, 200.0]), st.none(), st.none())


class AnythingTests(SynchronousTestCase):
    """Every message at every state: no exception, no leak."""

    @settings(max_examples=250, derandomize=True, deadline=None)
    @given(
        st.lists(st.one_of(requests, responses, broken, sends, answers, others, passing), max_size=40),
        st.sampled_from([TimerSettings(), TimerSettings(afterlife=5.0, restart_fr_on_each_reply=False)]),
        st.sampled_from([UDP, TCP]),
    )
    def test_anything(self, steps, timers, flow):
        """Whatever comes in whatever order, each method returns actions, and in the end nothing is left."""
        self.layer = TransactionLayer(timers, max_transactions=10)
        self.flow = flow
        self.now = 0.0
        self.clients: list[ClientTransaction] = []
        self.servers: list[ServerTransaction] = []
        for step, one, two, three in steps:
            for action in getattr(self, "do_" + step, self.do_other)(*((step, one) if two is None else (one, two, three))):
                self.assertIsInstance(action, Action)
        self.finish()

    def finish(self) -> None:
        """Answer what is open, let all time pass, and look for what is left."""
        for server in self.servers:
            self.layer.respond(server, response_bytes(500), 500, self.now)
        for client in self.clients:
            self.layer.resume(client, self.now)
        while (wake := self.layer.wake_at()) is not None:
            self.assertGreaterEqual(wake, 0.0)
            self.now = max(self.now, wake)
            self.layer.expire(self.now)
        layer = self.layer
        self.assertEqual((layer.in_use, layer.clients, layer.timers, layer.delays.held), (0, 0, 0, 0))
        self.assertEqual((layer._acks, layer._unacked), ({}, {}))
        for tx in (*self.servers, *self.clients):
            self.assertIs(tx.state, State.TERMINATED)
            self.assertTrue(all(timer is None or timer.subject is None for timer in (tx.limit, tx.resend)))

    def receive(self, data: bytes) -> list[Action]:
        """Let octets arrive, if they are a message."""
        try:
            message = parse(data)
        except MalformedMessage:
            return []
        actions = self.layer.receive(message, self.flow, self.now)
        for action in actions:
            if isinstance(action, Deliver) and isinstance(message, Request) and message.method != "ACK":
                try:
                    if self.layer.in_use < 10 and not self.layer._unacked:
                        self.servers.append(self.layer.accept(message, self.flow, self.now))
                except MalformedMessage:
                    pass
        return actions

    def do_request(self, method, branch, to_tag):
        """A request comes."""
        return self.receive(request_bytes(method, branch, to_tag=to_tag))

    def do_response(self, status, method, branch):
        """A response comes."""
        return self.receive(response_bytes(status, method, branch))

    def do_broken(self, old, new, is_request):
        """A message comes with something missing or wrong in it."""
        data = request_bytes() if is_request else response_bytes(486, branch="z9hG4bKc")
        return self.receive(data.replace(old, new))

    def do_send(self, method, branch, timeout):
        """The TU sends a request."""
        if self.layer.find_client(branch, method) is not None:
            return []
        data = request_bytes(method, branch)
        tx, actions = self.layer.request(data, read_request(data), self.flow, self.now, timeout, timeout)
        self.clients.append(tx)
        return actions

    def do_answer(self, number, status, again):
        """The TU answers."""
        if not self.servers:
            return []
        tx = self.servers[number % len(self.servers)]
        return self.layer.respond(tx, response_bytes(status, tx.method), status, self.now, retransmit_2xx=again)

    def do_time(self, _, seconds):
        """Time passes, all at once."""
        self.now += seconds
        return self.layer.expire(self.now)

    def do_other(self, step, number):
        """The TU does something else to one of its transactions."""
        if step == "terminate" and self.servers:
            self.layer.terminate(self.servers[number % len(self.servers)])
        if not self.clients or step == "terminate":
            return []
        tx = self.clients[number % len(self.clients)]
        if step == "abandon":
            self.layer.abandon(tx)
        elif step == "error":
            return self.layer.transport_error(tx, self.now)
        elif step == "cancel":
            if tx.method == "INVITE":
                cancel, actions = self.layer.cancel(tx, self.now)
                self.clients += [cancel] if cancel is not None else []
                return actions
        elif step == "pause":
            self.layer.pause(tx, self.now)
        else:
            self.layer.resume(tx, self.now)
        return []
