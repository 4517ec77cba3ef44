"""Tests of sipgw/sip/layer.py: matching, timers and what the TU is told. The machines row by row, too."""

from __future__ import annotations

import gc
import time

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.actions import Deliver, Failed, Overload, Send, Unacknowledged
from sipgw.sip.errors import Misuse
from sipgw.sip.layer import TransactionLayer
from sipgw.sip.message import parse
from sipgw.sip.transaction import (
    CLIENT_INVITE,
    CLIENT_OTHER,
    SERVER_INVITE,
    SERVER_OTHER,
    TIMER_OF,
    ClientTransaction,
    Do,
    Event,
    ServerTransaction,
    State,
    TimerSettings,
)
from tests.sip.wire import (
    TCP,
    UDP,
    FakeFlow,
    pass_time,
    read_request,
    read_response,
    request_bytes,
    response_bytes,
    shown,
)

STATUS = {Event.PROVISIONAL: 180, Event.SUCCESS: 200, Event.FAILURE: 486}


class LayerTests(SynchronousTestCase):
    """Base: a layer, and short ways to use it."""

    settings = TimerSettings()

    def setUp(self):
        self.layer = TransactionLayer(self.settings)

    def send(
        self, method: str = "INVITE", flow: FakeFlow = UDP, now: float = 0.0, branch: str = "z9hG4bKa",
        timeout: float | None = None, invite_timeout: float | None = None,
    ) -> ClientTransaction:
        """Open a client transaction."""
        data = request_bytes(method, branch)
        tx, actions = self.layer.request(data, read_request(data), flow, now, timeout, invite_timeout)
        self.assertEqual(actions, [Send(data, flow)])
        return tx

    def hear(self, data: bytes, now: float = 0.0, flow: FakeFlow = UDP) -> str:
        """Let a message arrive."""
        return shown(self.layer.receive(parse(data), flow, now))

    def accept(self, method: str = "INVITE", flow: FakeFlow = UDP, now: float = 0.0, **what: object) -> ServerTransaction:
        """Let a request arrive and open a server transaction."""
        request = read_request(request_bytes(method, **what))  # type: ignore[arg-type]
        self.assertEqual(self.layer.receive(request, flow, now), [Deliver(request, flow, None)])
        tx = self.layer.accept(request, flow, now)
        self.assertIs(self.layer.find(request), tx)
        return tx

    def respond(self, tx: ServerTransaction, status: int, now: float = 0.0, again: bool = False) -> str:
        """Answer a server transaction."""
        data = response_bytes(status, tx.method)
        return shown(self.layer.respond(tx, data, status, now, retransmit_2xx=again))

    def assertNothingLeft(self) -> None:
        """No transaction and no timer is left; cancelled timers leave in their turn and do nothing."""
        self.assertEqual((self.layer.in_use, self.layer.clients, self.layer.timers), (0, 0, 0))
        while (wake := self.layer.wake_at()) is not None:
            self.assertEqual(self.layer.expire(wake), [])
        self.assertEqual(self.layer.delays.held, 0)
        for table in ("_servers", "_clients", "_acks", "_unacked"):
            self.assertEqual(getattr(self.layer, table), {}, table)


class RowTests(LayerTests):
    """Every row of the four tables, and every event that has no row."""

    def test_client(self):
        """Client transactions go where the tables say and do what they say; other events do nothing."""
        events = [event for event in Event if event not in (Event.REQUEST, Event.ACK)]
        for method, table in (("INVITE", CLIENT_INVITE), ("MESSAGE", CLIENT_OTHER)):
            for before in {state for state, _ in table} | {State.TERMINATED}:
                for event in events:
                    self.layer = TransactionLayer(self.settings)
                    tx = self.send(method)
                    tx.state = before
                    tx.stop()
                    if before is State.TERMINATED:
                        self.layer._clients.clear()
                    message = None
                    if event in STATUS:
                        message = read_response(response_bytes(STATUS[event], method))
                    out = []  # type: ignore[var-annotated]
                    self.layer._walk_client(tx, event, message, UDP, 0.0, out)
                    self.compare(table, before, event, tx, shown(out), method)

    def test_server(self):
        """Server transactions go where the tables say and do what they say; other events do nothing."""
        for method, table in (("INVITE", SERVER_INVITE), ("MESSAGE", SERVER_OTHER)):
            for before in {state for state, _ in table} | {State.TERMINATED}:
                for event in Event:
                    self.layer = TransactionLayer(self.settings)
                    tx = self.accept(method)
                    tx.state = before
                    tx.data = b"SIP/2.0 200 kept"
                    if before is State.TERMINATED:
                        self.layer._servers.clear()
                    ack = read_request(request_bytes("ACK"))
                    out = []  # type: ignore[var-annotated]
                    self.layer._walk_server(tx, event, ack, UDP, 0.0, out)
                    self.compare(table, before, event, tx, shown(out), "200")

    def compare(self, table, before, event, tx, seen, sent):
        """Compare what happened with the row, if there is one."""
        after, actions = table.get((before, event), (before, ()))
        where = f"{tx.method} {before.name} {event.name}"
        self.assertEqual(tx.state, after, where)
        word = {
            Do.DELIVER: f"!{STATUS.get(event, 'ACK')}", Do.SEND: f">{sent}", Do.PASS: f">{sent}", Do.RESEND: f">{sent}",
            Do.ACK: ">ACK", Do.TIME_OUT: "!timeout", Do.FAIL: "!transport", Do.NO_ACK: "!unacknowledged",
        }
        self.assertEqual(seen, " ".join(word[do] for do in actions if do in word), where)
        running = {timer.event for timer in (tx.limit, tx.resend) if timer is not None and timer.subject is not None}
        starts = dict(TIMER_OF) | {Do.START_C: Event.TIMER_C, Do.RESTART_C: Event.TIMER_C, Do.START_G: Event.TIMER_G}
        again = {Do.DOUBLE, Do.DOUBLE_TO_T2, Do.EVERY_T2}
        expected = {starts[do] for do in actions if do in starts} | {event for do in actions if do in again}
        self.assertEqual(running, expected, where)
        kept = self.layer.clients + self.layer.in_use
        self.assertEqual(kept, 0 if after is State.TERMINATED else 1, where)


class ClientInviteTests(LayerTests):
    """The client of an INVITE in time (RFC 3261 17.1.1)."""

    def test_unanswered(self):
        """Without an answer it is sent seven times at doubled pauses, and given up after 64*T1."""
        self.send()
        sent = [(at, ">INVITE") for at in (0.5, 1.5, 3.5, 7.5, 15.5, 31.5)]
        self.assertEqual(pass_time(self.layer, 0.0, 40.0), [*sent, (32.0, "!timeout")])
        self.assertNothingLeft()
        counters = self.layer.counters
        self.assertEqual(
            (counters.requests_t1_1, counters.requests_t1_2, counters.requests_t1_3, counters.requests_t2), (1, 1, 1, 3))
        self.assertEqual((counters.timeouts, counters.invite_timeouts), (1, 0))

    def test_reliable(self):
        """Over TCP nothing is sent again."""
        self.send(flow=TCP)
        self.assertEqual(pass_time(self.layer, 0.0, 40.0), [(32.0, "!timeout")])
        self.assertNothingLeft()

    def test_timeout_of_tu(self):
        """``timeout`` replaces timer B (fr_timeout)."""
        self.send(timeout=5.0)
        self.assertEqual(pass_time(self.layer, 0.0, 9.0)[-1], (5.0, "!timeout"))
        self.assertNothingLeft()

    def test_provisional_stops(self):
        """A provisional response stops retransmissions and timer B; the 180 comes as often as it is received."""
        tx = self.send()
        self.assertEqual(self.hear(response_bytes(100), 0.1), "!100")
        self.assertEqual(pass_time(self.layer, 0.0, 100.0), [])
        self.assertEqual([self.hear(response_bytes(180), 100.0) for _ in range(2)], ["!180", "!180"])
        self.assertEqual(tx.status, 180)

    def test_success(self):
        """Every 2xx is delivered for 64*T1 after the first, each with its transaction (RFC 6026 8.4); no ACK is sent."""
        tx = self.send()
        for now, tag in ((1.0, "one"), (1.5, "one"), (20.0, "two"), (32.9, "one")):
            response = read_response(response_bytes(200, to_tag=tag))
            self.assertEqual(self.layer.receive(response, UDP, now), [Deliver(response, UDP, tx)])
        self.assertEqual(self.hear(response_bytes(180), 32.9), "")
        self.assertEqual(self.hear(response_bytes(486), 32.9), "")
        self.assertEqual(pass_time(self.layer, 0.0, 33.0), [])
        self.assertNothingLeft()
        late = read_response(response_bytes(200))
        self.assertEqual(self.layer.receive(late, UDP, 34.0), [Deliver(late, UDP, None)])

    def test_failure(self):
        """The first final response is delivered, each one is acknowledged, until timer D ends."""
        tx = self.send()
        actions = self.layer.receive(read_response(response_bytes(486, to_tag="tt")), UDP, 1.0)
        self.assertEqual(shown(actions), ">ACK !486")
        assert isinstance(actions[0], Send)
        ack = read_request(actions[0].data)
        self.assertIs(actions[0].flow, UDP)
        self.assertEqual((ack.via.branch, ack.to_tag, ack.cseq.number, ack.uri), ("z9hG4bKa", "tt", 1, "sip:bob@example.org"))
        self.assertEqual(self.hear(response_bytes(486), 5.0), ">ACK")
        self.assertEqual(self.hear(response_bytes(404), 6.0), ">ACK")
        self.assertEqual(self.hear(response_bytes(200), 6.0), "")
        self.assertEqual(tx.status, 486)
        self.assertEqual(self.layer.counters.absorbed_replies, 3)
        self.assertEqual(pass_time(self.layer, 0.0, 32.9), [])
        self.assertEqual(self.layer.clients, 1)
        self.assertEqual(pass_time(self.layer, 0.0, 33.0), [])
        self.assertNothingLeft()

    def test_failure_reliable(self):
        """Over TCP a failed INVITE is forgotten at once, after its ACK."""
        self.send(flow=TCP)
        self.assertEqual(self.hear(response_bytes(486), 1.0), ">ACK !486")
        self.assertEqual(pass_time(self.layer, 0.0, 1.0), [])
        self.assertEqual((self.layer.clients, self.layer.timers), (0, 0))

    def test_request_let_go(self):
        """After a failure the INVITE itself is not kept for timer D."""
        tx = self.send()
        self.hear(response_bytes(486))
        self.assertEqual(tx.data, b"")

    def test_relayed(self):
        """With ``branch`` the request may be that which is relayed: the ACK is made of what was sent."""
        came = read_request(request_bytes(branch="z9hG4bKtheirs", uri="sip:before@example.org"))
        sent = request_bytes(branch="z9hG4bKours", uri="sip:after@example.org", headers="Route: <sip:p;lr>\r\n")
        self.layer.request(sent, came, UDP, 0.0, branch="z9hG4bKours")
        actions = self.layer.receive(read_response(response_bytes(404, branch="z9hG4bKours")), UDP, 0.0)
        assert isinstance(actions[0], Send)
        ack = read_request(actions[0].data)
        self.assertEqual((ack.uri, ack.via.branch, ack.header("Route")), ("sip:after@example.org", "z9hG4bKours", "<sip:p;lr>"))

    def test_malformed_final(self):
        """A final response without To ends the transaction without an ACK, and without an exception."""
        self.send()
        data = response_bytes(486).replace(b"To: ", b"X: ")
        self.assertIn(self.hear(data), ("!486", ">ACK !486"))
        self.assertIn(self.hear(data), ("", ">ACK"))

    def test_transport_error(self):
        """An INVITE that cannot be sent has failed; later errors of one that rings do not matter."""
        tx = self.send()
        self.assertEqual(self.layer.transport_error(tx, 0.0), [Failed(tx, "transport")])
        self.assertEqual((self.layer.clients, self.layer.timers), (0, 0))
        tx = self.send()
        self.hear(response_bytes(180))
        self.assertEqual(self.layer.transport_error(tx, 0.0), [])
        self.assertEqual(self.layer.clients, 1)


class InviteTimeoutTests(LayerTests):
    """The wait for a final response after a provisional one (timer C, fr_inv_timeout)."""

    def test_first_provisional_starts(self):
        """It starts with the first provisional response."""
        tx = self.send(invite_timeout=10.0)
        self.hear(response_bytes(180), 3.0)
        self.assertEqual(pass_time(self.layer, 0.0, 14.0), [(13.0, "!timeout")])
        self.assertEqual(tx.state, State.GIVEN_UP)
        self.assertEqual((self.layer.counters.timeouts, self.layer.counters.invite_timeouts), (0, 1))

    def test_restarted(self):
        """Each provisional response restarts it by default."""
        self.send(invite_timeout=10.0)
        for now in (3.0, 9.0, 15.0):
            self.hear(response_bytes(180), now)
        self.assertEqual(pass_time(self.layer, 0.0, 30.0), [(25.0, "!timeout")])

    def test_not_restarted(self):
        """Without ``restart_fr_on_each_reply`` it counts from the first."""
        self.layer = TransactionLayer(TimerSettings(restart_fr_on_each_reply=False))
        self.send(invite_timeout=10.0)
        self.hear(response_bytes(100), 3.0)
        self.hear(response_bytes(180), 9.0)
        self.assertEqual(pass_time(self.layer, 0.0, 30.0), [(13.0, "!timeout")])

    def test_late_failure(self):
        """After it a late 487 is acknowledged each time it comes and not delivered; then all ends."""
        self.send(invite_timeout=10.0)
        self.hear(response_bytes(180), 0.0)
        pass_time(self.layer, 0.0, 10.0)
        self.assertEqual([self.hear(response_bytes(487), 11.0) for _ in range(2)], [">ACK", ">ACK"])
        pass_time(self.layer, 0.0, 43.0)
        self.assertNothingLeft()

    def test_cancel(self):
        """After it the TU cancels; the CANCEL goes out once."""
        tx = self.send(invite_timeout=10.0)
        self.hear(response_bytes(180), 0.0)
        pass_time(self.layer, 0.0, 10.0)
        self.assertEqual([shown(self.layer.cancel(tx, 10.0)[1]) for _ in range(2)], [">CANCEL", ""])

    def test_late_success(self):
        """After it a late 2xx is delivered with its transaction."""
        tx = self.send(invite_timeout=10.0)
        self.hear(response_bytes(180), 0.0)
        pass_time(self.layer, 0.0, 10.0)
        response = read_response(response_bytes(200))
        self.assertEqual(self.layer.receive(response, UDP, 12.0), [Deliver(response, UDP, tx)])
        pass_time(self.layer, 0.0, 44.0)
        self.assertNothingLeft()

    def test_nothing_more(self):
        """If nothing comes any more, it ends after 64*T1."""
        self.send(invite_timeout=10.0)
        self.hear(response_bytes(180), 0.0)
        self.assertEqual(pass_time(self.layer, 0.0, 42.0), [(10.0, "!timeout")])
        self.assertNothingLeft()


class ClientOtherTests(LayerTests):
    """The client of any other request in time (RFC 3261 17.1.2)."""

    def test_unanswered(self):
        """It is sent again at pauses up to T2, and given up after 64*T1."""
        self.send("MESSAGE")
        sent = [(at, ">MESSAGE") for at in (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)]
        self.assertEqual(pass_time(self.layer, 0.0, 40.0), [*sent, (32.0, "!timeout")])
        self.assertNothingLeft()

    def test_provisional_slows(self):
        """After a provisional response it is sent again at T2, and the time runs on."""
        self.send("MESSAGE")
        self.assertEqual(self.hear(response_bytes(100, "MESSAGE"), 0.2), "!100")
        sent = [(at, ">MESSAGE") for at in (0.5, 4.5, 8.5, 12.5, 16.5, 20.5, 24.5, 28.5)]
        self.assertEqual(pass_time(self.layer, 0.0, 40.0), [*sent, (32.0, "!timeout")])

    def test_final(self):
        """The final response is delivered once; its repetitions are absorbed during T4."""
        for status in (200, 404):
            self.send("MESSAGE")
            self.assertEqual(self.hear(response_bytes(status, "MESSAGE"), 1.0), f"!{status}")
            self.assertEqual(self.hear(response_bytes(status, "MESSAGE"), 5.9), "")
            self.assertEqual(pass_time(self.layer, 0.0, 6.0), [])
            self.assertNothingLeft()

    def test_reliable(self):
        """Over TCP it is sent once and forgotten with its final response."""
        self.send("MESSAGE", TCP)
        self.assertEqual(pass_time(self.layer, 0.0, 20.0), [])
        self.assertEqual(self.hear(response_bytes(200, "MESSAGE"), 20.0), "!200")
        self.assertEqual((self.layer.clients, self.layer.timers), (0, 0))

    def test_afterlife(self):
        """``afterlife`` keeps it longer, over TCP too (wt_timer)."""
        self.layer = TransactionLayer(TimerSettings(afterlife=7.0))
        self.send("MESSAGE", TCP)
        self.hear(response_bytes(200, "MESSAGE"), 1.0)
        self.assertEqual(self.hear(response_bytes(200, "MESSAGE"), 7.9), "")
        pass_time(self.layer, 0.0, 8.0)
        self.assertNothingLeft()


class ClientMatchingTests(LayerTests):
    """Which transaction a response belongs to (RFC 3261 17.1.3)."""

    def test_branch_and_method(self):
        """A response needs our branch and the method of the request."""
        self.send()
        for data in (response_bytes(200, branch="z9hG4bKb"), response_bytes(200, "BYE"), response_bytes(200, "CANCEL")):
            message = parse(data)
            self.assertEqual(self.layer.receive(message, UDP, 0.0), [Deliver(message, UDP, None)])

    def test_unreadable(self):
        """A response whose Via or CSeq cannot be read is delivered without a transaction."""
        self.send()
        for old, new in ((b"Via: SIP", b"Via: ,"), (b"Via", b"X"), (b"CSeq: 1", b"CSeq: x"), (b"CSeq", b"Y")):
            message = parse(response_bytes(200).replace(old, new, 1))
            self.assertEqual(self.layer.receive(message, UDP, 0.0), [Deliver(message, UDP, None)])

    def test_cancel(self):
        """A CANCEL has a transaction beside that of its INVITE, with the same branch."""
        tx = self.send()
        self.assertEqual(self.layer.cancel(tx, 0.0), (None, []))  # not before a provisional response (9.1)
        self.hear(response_bytes(180))
        cancel, actions = self.layer.cancel(tx, 0.0, user="me")
        assert cancel is not None and isinstance(actions[0], Send)
        sent = read_request(actions[0].data)
        self.assertEqual((sent.method, sent.via.branch, sent.cseq, cancel.user), ("CANCEL", "z9hG4bKa", (1, "CANCEL"), "me"))
        self.assertEqual(self.layer.cancel(tx, 0.0), (None, []))
        response = read_response(response_bytes(200, "CANCEL"))
        self.assertEqual(self.layer.receive(response, UDP, 0.0), [Deliver(response, UDP, cancel)])
        self.assertEqual(self.hear(response_bytes(487)), ">ACK !487")
        self.assertEqual(self.layer.cancel(tx, 0.0), (None, []))
        pass_time(self.layer, 0.0, 40.0)
        self.assertNothingLeft()

    def test_cancel_given(self):
        """The TU may write the CANCEL itself, and nothing but an INVITE is cancelled."""
        tx = self.send()
        self.hear(response_bytes(180))
        data = request_bytes("CANCEL", headers="Reason: SIP;cause=200\r\n")
        self.assertEqual(self.layer.cancel(tx, 0.0, data)[1], [Send(data, UDP)])
        other = self.send("MESSAGE", branch="z9hG4bKm")
        self.assertRaises(Misuse, self.layer.cancel, other, 0.0)

    def test_misuse(self):
        """An ACK, a request without branch, or a branch twice are our own faults."""
        self.send()
        for data in (request_bytes("ACK", "z9hG4bKx"), request_bytes(branch=""), request_bytes()):
            self.assertRaises(Misuse, self.layer.request, data, read_request(data), UDP, 0.0)

    def test_abandon(self):
        """An abandoned request is not sent again, and its answers come without a transaction."""
        tx = self.send()
        self.layer.abandon(tx)
        self.layer.abandon(tx)
        self.assertEqual(pass_time(self.layer, 0.0, 40.0), [])
        message = parse(response_bytes(486))
        self.assertEqual(self.layer.receive(message, UDP, 40.0), [Deliver(message, UDP, None)])
        self.assertNothingLeft()

    def test_find_client(self):
        """A client transaction is found by branch and method."""
        tx = self.send()
        self.assertIs(self.layer.find_client("z9hG4bKa", "INVITE"), tx)
        self.assertIsNone(self.layer.find_client("z9hG4bKa", "CANCEL"))

    def test_new_branch(self):
        """Branches have the magic cookie, the worker and never repeat."""
        layer = TransactionLayer(worker="0z")
        branches = {layer.new_branch() for _ in range(1000)}
        self.assertEqual(len(branches), 1000)
        for branch in branches:
            self.assertRegex(branch, r"^z9hG4bK0z[0-9a-f]{16}$")
        self.assertRaises(Misuse, TransactionLayer, worker="1")


class FlowLostTests(LayerTests):
    """A connection that ends."""

    def test_fails_its_transactions(self):
        """What went out on it and has no answer fails, in order; what went out on another one, or over UDP, does not."""
        mine, other = FakeFlow("tcp", reliable=True, id=1), FakeFlow("tcp", reliable=True, id=2)
        first = self.send("INVITE", mine, branch="z9hG4bKa")
        second = self.send("MESSAGE", mine, branch="z9hG4bKb")
        third = self.send("MESSAGE", other, branch="z9hG4bKc")
        fourth = self.send("MESSAGE", UDP, branch="z9hG4bKd")
        self.assertEqual(self.layer.flow_lost(1, 1.0), [Failed(first, "transport"), Failed(second, "transport")])
        self.assertEqual(self.layer.flow_lost(1, 1.0), [])
        self.assertEqual([third.state, fourth.state], [State.TRYING, State.TRYING])
        self.assertEqual(self.layer.flow_lost(2, 1.0), [Failed(third, "transport")])
        self.assertEqual(self.layer.flow_lost(None, 1.0), [])
        self.assertEqual(self.layer.clients, 1)

    def test_answered(self):
        """An INVITE that rings goes on, since its final response may come on another connection; other requests fail."""
        flow = FakeFlow("tcp", reliable=True, id=1)
        self.send("INVITE", flow, branch="z9hG4bKa")
        self.hear(response_bytes(180))
        message = self.send("MESSAGE", flow, branch="z9hG4bKb")
        self.hear(response_bytes(100, "MESSAGE", "z9hG4bKb"))
        self.assertEqual(self.layer.flow_lost(1, 1.0), [Failed(message, "transport")])
        self.assertEqual(self.hear(response_bytes(200), 2.0), "!200")

    def test_forgets(self):
        """A transaction that has ended, however, is no longer known to its connection."""
        flow = FakeFlow("tcp", reliable=True, id=1)
        self.send("MESSAGE", flow, branch="z9hG4bKa")
        self.assertTrue(self.layer.waits_on(1))
        self.hear(response_bytes(200, "MESSAGE"))
        self.assertFalse(self.layer.waits_on(1))
        self.layer.abandon(self.send("MESSAGE", flow, branch="z9hG4bKb"))
        self.assertFalse(self.layer.waits_on(1))
        self.send("MESSAGE", flow, branch="z9hG4bKc", timeout=1.0)
        self.layer.expire(1.0)
        self.assertFalse(self.layer.waits_on(1))


class PauseTests(LayerTests):
    """The TU may hold timers B and F (house 2.6, 5)."""

    def test_pause(self):
        """The time of a pause does not count; retransmission goes on."""
        for method in ("INVITE", "MESSAGE"):
            self.layer = TransactionLayer()
            tx = self.send(method, timeout=5.0)
            self.layer.pause(tx, 2.3)
            self.layer.pause(tx, 3.0)
            self.assertEqual({what for _, what in pass_time(self.layer, 0.0, 20.0)}, {f">{method}"})
            self.layer.resume(tx, 20.0)
            self.layer.resume(tx, 20.0)
            self.assertEqual(pass_time(self.layer, 0.0, 30.0)[-1], (23.0, "!timeout"))
            self.assertNothingLeft()

    def test_answered_while_paused(self):
        """An answer that comes during the pause makes ``resume`` do nothing."""
        for status in (180, 200, 486):
            self.layer = TransactionLayer()
            tx = self.send(timeout=5.0)
            self.layer.pause(tx, 2.0)
            self.hear(response_bytes(status), 3.0)
            running = self.layer.timers
            self.layer.resume(tx, 4.0)
            self.assertEqual(self.layer.timers, running)

    def test_timer_c(self):
        """Timer C is not held."""
        tx = self.send(invite_timeout=10.0)
        self.hear(response_bytes(180))
        self.layer.pause(tx, 1.0)
        self.assertEqual(pass_time(self.layer, 0.0, 11.0), [(10.0, "!timeout")])

    def test_finished(self):
        """A finished transaction has nothing to hold."""
        tx = self.send(timeout=5.0)
        pass_time(self.layer, 0.0, 6.0)
        self.layer.pause(tx, 6.0)
        self.layer.resume(tx, 7.0)
        self.assertNothingLeft()


class ServerInviteTests(LayerTests):
    """The server of an INVITE in time (RFC 3261 17.2.1, RFC 6026 7.1)."""

    def test_replay(self):
        """A retransmission is answered by the last provisional response, or absorbed before the first."""
        tx = self.accept()
        self.assertEqual(self.hear(request_bytes()), "")
        self.respond(tx, 100)
        self.respond(tx, 183)
        self.assertEqual(self.hear(request_bytes()), ">183")
        self.assertEqual(self.layer.counters.absorbed_requests, 2)

    def test_failure_unacknowledged(self):
        """A non-2xx is sent again by timer G until timer H gives up."""
        tx = self.accept()
        self.assertEqual(self.respond(tx, 486), ">486")
        sent = [(at, ">486") for at in (0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5)]
        self.assertEqual(pass_time(self.layer, 0.0, 40.0), [*sent, (32.0, "!unacknowledged")])
        self.assertEqual(self.layer.counters.replies_t2, 10)
        self.assertNothingLeft()

    def test_failure_acknowledged(self):
        """The ACK stops it and is absorbed, as are its repetitions and those of the INVITE, until timer I."""
        tx = self.accept()
        self.respond(tx, 486)
        self.assertEqual(self.hear(request_bytes(), 0.1), ">486")
        self.assertEqual(self.hear(request_bytes("ACK"), 1.0), "")
        self.assertEqual(self.hear(request_bytes("ACK"), 2.0), "")
        self.assertEqual(self.hear(request_bytes(), 2.0), "")
        self.assertEqual(self.respond(tx, 486, 2.0), "")
        self.assertEqual(pass_time(self.layer, 0.0, 5.9), [])
        self.assertEqual(self.layer.in_use, 1)
        pass_time(self.layer, 0.0, 6.0)
        self.assertNothingLeft()

    def test_failure_reliable(self):
        """Over TCP it is sent once, waits for the ACK, and ends with it."""
        tx = self.accept(flow=TCP)
        self.respond(tx, 486)
        self.assertEqual(pass_time(self.layer, 0.0, 20.0), [])
        self.hear(request_bytes("ACK"), 20.0)
        self.assertEqual((self.layer.in_use, self.layer.timers), (0, 0))

    def test_success(self):
        """After a 2xx retransmissions are absorbed, an ACK and further 2xx pass, until timer L."""
        tx = self.accept()
        self.assertEqual(self.respond(tx, 200), ">200")
        self.assertEqual(tx.data, b"")  # it will not be sent again
        self.assertEqual(self.hear(request_bytes(), 1.0), "")
        self.assertEqual(self.respond(tx, 200, 2.0), ">200")
        self.assertEqual(self.respond(tx, 486, 2.0), "")
        self.assertEqual(self.respond(tx, 180, 2.0), "")
        self.assertEqual(tx.status, 200)
        self.assertEqual(self.hear(request_bytes("ACK"), 2.0), "!ACK")  # the branch of the INVITE: wrong, but seen
        self.assertEqual(self.hear(request_bytes("ACK", "z9hG4bKother"), 2.0), "!ACK")
        self.assertEqual(pass_time(self.layer, 0.0, 31.9), [])
        self.assertEqual(self.layer.in_use, 1)
        self.assertEqual(pass_time(self.layer, 0.0, 32.0), [])
        self.assertNothingLeft()

    def test_final_once(self):
        """After a final response further ones are ignored."""
        tx = self.accept()
        self.respond(tx, 486)
        for status in (100, 200, 500):
            self.assertEqual(self.respond(tx, status), "")
        self.assertEqual(self.hear(request_bytes()), ">486")
        self.assertEqual(tx.status, 486)

    def test_ack_too_early(self):
        """An ACK before any final response is absorbed."""
        self.accept()
        self.assertEqual(self.hear(request_bytes("ACK")), "")

    def test_cancel(self):
        """A CANCEL finds its INVITE, is delivered, and has a transaction of its own."""
        tx = self.accept()
        cancel = read_request(request_bytes("CANCEL"))
        self.assertEqual(self.layer.receive(cancel, UDP, 0.0), [Deliver(cancel, UDP, None)])
        self.assertIs(self.layer.find(cancel), tx)
        own = self.layer.accept(cancel, UDP, 0.0)
        self.assertIsNot(own, tx)
        self.assertEqual(self.respond(own, 200), ">200")
        self.assertEqual(self.hear(request_bytes("CANCEL")), ">200")
        self.assertIs(self.layer.find(cancel), tx)

    def test_terminate(self):
        """A terminated transaction is gone: a retransmission is new."""
        tx = self.accept()
        self.respond(tx, 486)
        self.layer.terminate(tx)
        self.assertEqual((self.layer.in_use, self.layer.timers), (0, 0))
        self.assertEqual(self.respond(tx, 200), "")
        again = self.accept()
        self.layer.terminate(tx)
        self.assertIs(self.layer.find(again.request), again)


class RepeatedSuccessTests(LayerTests):
    """A 2xx of our own is repeated until its ACK comes (RFC 3261 13.3.1.4)."""

    def test_until_ack(self):
        """The ACK, which has another branch, stops it and is delivered; an ACK of another call does not."""
        tx = self.accept()
        self.assertEqual(self.respond(tx, 200, again=True), ">200")
        self.assertEqual(self.respond(tx, 200, 0.1, again=True), ">200")
        self.assertEqual(pass_time(self.layer, 0.0, 2.0), [(0.5, ">200"), (1.5, ">200")])
        self.assertEqual(self.hear(request_bytes("ACK", "z9hG4bKz", call_id="other"), 2.0), "!ACK")
        self.assertEqual(pass_time(self.layer, 0.0, 4.0), [(3.5, ">200")])
        self.assertEqual(self.hear(request_bytes("ACK", "z9hG4bKz"), 4.0), "!ACK")
        self.assertEqual(self.hear(request_bytes("ACK", "z9hG4bKz"), 4.1), "!ACK")
        self.assertEqual(pass_time(self.layer, 0.0, 40.0), [])
        self.assertNothingLeft()

    def test_never_acknowledged(self):
        """After 64*T1 the TU is told, also when the transaction itself has ended before."""
        for settings in (TimerSettings(), TimerSettings(afterlife=5.0)):
            self.layer = TransactionLayer(settings)
            tx = self.accept()
            self.respond(tx, 200, again=True)
            done = []
            while (wake := self.layer.wake_at()) is not None:
                done += self.layer.expire(wake)
            self.assertEqual(done.pop(), Unacknowledged(tx))
            self.assertEqual(shown(done), " ".join([">200"] * 10))
            self.assertNothingLeft()

    def test_reliable_too(self):
        """It is repeated over TCP as well: a proxy on the way may use UDP."""
        tx = self.accept(flow=TCP)
        self.respond(tx, 200, again=True)
        self.assertEqual(pass_time(self.layer, 0.0, 0.5), [(0.5, ">200")])


class ServerOtherTests(LayerTests):
    """The server of any other request in time (RFC 3261 17.2.2)."""

    def test_replay(self):
        """Retransmissions are absorbed in TRYING, then answered by the last response, until timer J."""
        tx = self.accept("MESSAGE")
        self.assertEqual(self.hear(request_bytes("MESSAGE")), "")
        self.respond(tx, 183)
        self.assertEqual(self.hear(request_bytes("MESSAGE")), ">183")
        self.respond(tx, 200)
        self.assertEqual(self.hear(request_bytes("MESSAGE"), 31.9), ">200")
        self.assertEqual(self.respond(tx, 404), "")
        self.assertEqual(pass_time(self.layer, 0.0, 32.0), [])
        self.assertNothingLeft()

    def test_reliable(self):
        """Over TCP it ends with its final response."""
        tx = self.accept("MESSAGE", TCP)
        self.assertEqual(self.respond(tx, 200), ">200")
        self.assertEqual((self.layer.in_use, self.layer.timers), (0, 0))


class ServerMatchingTests(LayerTests):
    """Which transaction a request belongs to (RFC 3261 17.2.3)."""

    def test_parts_of_the_key(self):
        """Branch, sent-by and method decide, nothing else."""
        tx = self.accept()
        self.assertEqual(self.hear(request_bytes(call_id="other", from_tag="other")), "")
        for different in (
            request_bytes(branch="z9hG4bKb"), request_bytes(sent_by="192.0.2.7:5071"), request_bytes(sent_by="192.0.2.7"),
            request_bytes(sent_by="192.0.2.8:5070"), request_bytes("MESSAGE"),
        ):
            message = read_request(different)
            self.assertEqual(self.layer.receive(message, UDP, 0.0), [Deliver(message, UDP, None)])
            self.assertIsNone(self.layer.find(message))
        self.assertEqual(self.layer.in_use, 1)
        self.assertIs(self.layer.accept(tx.request, UDP, 0.0), tx)

    def test_knows(self):
        """What the layer does not know it would deliver, and do nothing else; what it would absorb it knows."""
        self.accept()
        for data in (
            request_bytes(), request_bytes(branch="z9hG4bKb"), request_bytes(sent_by="192.0.2.8:5070"), request_bytes("ACK"),
            request_bytes("CANCEL"), request_bytes("MESSAGE"), request_bytes(branch="old"), request_bytes(branch="z9hG4bK"),
        ):
            message = read_request(data)
            known = self.layer.knows(message)
            delivered = self.layer.receive(message, UDP, 0.0) == [Deliver(message, UDP, None)]
            self.assertTrue(known or delivered, data)
            if message.method != "ACK" and (message.via.branch or "").startswith("z9hG4bK") and message.via.branch != "z9hG4bK":
                self.assertEqual(known, not delivered, data)

    def test_legacy(self):
        """Without the magic cookie, or with the cookie alone, the whole of RFC 2543's rule decides."""
        for branch in ("", "1", "z9hG4bK"):
            self.layer = TransactionLayer()
            tx = self.accept(branch=branch)
            self.assertEqual(self.hear(request_bytes(branch=branch)), "")
            self.assertIs(self.layer.find(read_request(request_bytes("CANCEL", branch))), tx)
            for change in (
                {"uri": "sip:x"}, {"to_tag": "x"}, {"from_tag": "x"}, {"call_id": "x"}, {"cseq": 2}, {"sent_by": "x"},
                {"transport": "TCP"}, {"method": "MESSAGE"}, {"branch": "2"},
            ):
                message = read_request(request_bytes(**({"branch": branch} | change)))
                self.assertIsNone(self.layer.find(message), change)

    def test_legacy_ack(self):
        """The ACK of an RFC 2543 client has the To tag of our response."""
        tx = self.accept(branch="")
        self.respond(tx, 486)
        self.assertEqual(self.hear(request_bytes("ACK", "", to_tag="other")), "!ACK")
        self.assertEqual(self.hear(request_bytes("ACK", "", to_tag="t1")), "")
        self.assertEqual(tx.state, State.CONFIRMED)
        pass_time(self.layer, 0.0, 5.0)
        self.assertNothingLeft()

    def test_legacy_twins(self):
        """Two such INVITEs that differ in the To tag only are apart; what is left of one does not disturb the other."""
        one, two = self.accept(branch=""), self.accept(branch="", to_tag="t1")
        self.respond(one, 486)
        self.respond(two, 486)
        self.layer.terminate(one)
        self.assertEqual(self.hear(request_bytes("ACK", "", to_tag="t1")), "")
        self.assertEqual(two.state, State.CONFIRMED)

    def test_unreadable(self):
        """A request that cannot be matched is delivered."""
        self.accept()
        for old, new in ((b"Via: SIP", b"Via: ,"), (b"Via", b"X")):
            for method in ("INVITE", "ACK", "CANCEL"):
                message = parse(request_bytes(method).replace(old, new, 1))
                self.assertEqual(self.layer.receive(message, UDP, 0.0), [Deliver(message, UDP, None)])

    def test_ack_alone(self):
        """An ACK has no transaction of its own."""
        ack = read_request(request_bytes("ACK"))
        self.assertEqual(self.layer.receive(ack, UDP, 0.0), [Deliver(ack, UDP, None)])
        self.assertRaises(Misuse, self.layer.accept, ack, UDP, 0.0)


class LimitTests(LayerTests):
    """Nothing grows without bound."""

    def test_overload(self):
        """Beyond ``max_transactions`` a new one is refused with 503; what exists is served, and room comes back."""
        self.layer = TransactionLayer(max_transactions=3)
        txs = [self.accept(branch=f"z9hG4bK{number}") for number in range(3)]
        request = read_request(request_bytes(branch="z9hG4bK4"))
        error = self.assertRaises(Overload, self.layer.accept, request, UDP, 0.0)
        self.assertEqual((error.status, error.retry_after), (503, 10))
        self.assertIs(self.layer.accept(txs[0].request, UDP, 0.0), txs[0])
        self.layer.terminate(txs[0])
        self.assertIsNotNone(self.layer.accept(request, UDP, 0.0))

    def test_adjust(self):
        """Other settings hold for the transactions that begin after them."""
        self.send("MESSAGE", branch="z9hG4bKone")
        self.layer.adjust(TimerSettings(t1=0.1, afterlife=1.0))
        self.send("MESSAGE", branch="z9hG4bKtwo")
        self.assertEqual(pass_time(self.layer, 0.0, 0.6), [(0.1, ">MESSAGE"), (0.3, ">MESSAGE"), (0.5, ">MESSAGE")])
        for branch in ("z9hG4bKone", "z9hG4bKtwo"):
            self.hear(response_bytes(200, "MESSAGE", branch), 1.0)
        pass_time(self.layer, 0.0, 2.0)
        self.assertEqual(self.layer.clients, 1)

    def test_freed(self):
        """Ended transactions are freed without the garbage collector."""
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(thing, ClientTransaction | ServerTransaction) for thing in gc.get_objects())
            for number in range(20):
                branch = f"z9hG4bK{number}"
                method = "INVITE" if number % 2 else "MESSAGE"
                tx = self.accept(method, branch=branch)
                self.respond(tx, 200 if number % 3 else 486)
                self.send(method, branch=branch)
                self.hear(response_bytes(200 if number % 5 else 404, method, branch))
            del tx
            pass_time(self.layer, 0.0, 100.0)
            after = sum(isinstance(thing, ClientTransaction | ServerTransaction) for thing in gc.get_objects())
        finally:
            gc.enable()
        self.assertEqual(after, before)
        self.assertNothingLeft()

    def test_cost(self):
        """The cost of a server and of a client transaction is printed, never asserted."""
        count = 3000
        layer = TransactionLayer()
        for method in ("MESSAGE", "INVITE"):
            branches = [layer.new_branch() for _ in range(count)]
            requests = [read_request(request_bytes(method, branch)) for branch in branches]
            responses = [read_response(response_bytes(200, method, branch)) for branch in branches]
            for message in (*requests, *responses):
                message.check()
            start = time.process_time()
            for request in requests:
                layer.receive(request, UDP, 0.0)
                layer.respond(layer.accept(request, UDP, 0.0), b"x", 200, 0.0)
            middle = time.process_time()
            for branch, request, response in zip(branches, requests, responses, strict=True):
                layer.request(b"x", request, UDP, 0.0, branch=branch)
                layer.receive(response, UDP, 0.0)
            end = time.process_time()
            server, client = (middle - start) / count * 1e6, (end - middle) / count * 1e6
            print(f"layer: {method}: receive+accept+respond {server:.2f} us, request+receive {client:.2f} us")
        self.assertEqual(layer.in_use, 2 * count)
