"""One SMPP session, from either side, on a clock of the test's own."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from sipgw.sms.pdu import STATUS, Pdu, encode, parse
from sipgw.sms.session import Answered, Bind, Bound, Close, Deliver, Session, Settings, Write

BIND = {"system_id": "sipgw", "password": "secret"}


def written(actions: list[Any]) -> list[Pdu]:
    """The PDUs that were sent."""
    return [parse(action.data) for action in actions if isinstance(action, Write)]


def others(actions: list[Any]) -> list[Any]:
    """What else was to be done."""
    return [action for action in actions if not isinstance(action, Write)]


class SessionTests(SynchronousTestCase):
    """``Session``."""

    def bound(self, kind: str = "transceiver", **options: Any) -> Any:
        """A session of ours, bound at 0."""
        session = Session("esme", Settings(**options), 0)
        (bind,) = written(session.bind(kind, BIND, 0))
        self.assertEqual(session.receive(encode(bind.respond(system_id="smsc")), 0), [Bound("smsc")])
        return session

    def test_binding(self) -> None:
        """Both sides of a bind, and a message each way."""
        esme: Any = Session("esme", Settings(), 0)
        smsc: Any = Session("smsc", Settings(), 0)
        (write,) = esme.bind("transceiver", BIND, 0)
        (asked,) = smsc.receive(write.data, 0)
        self.assertIsInstance(asked, Bind)
        self.assertEqual((asked.pdu["system_id"], asked.pdu["password"]), ("sipgw", "secret"))
        answer, bound = smsc.accept(asked.pdu, "us", 0)
        self.assertEqual((bound, esme.receive(answer.data, 0)), (Bound("sipgw"), [Bound("us")]))
        for sender, receiver, command in ((esme, smsc, "submit_sm"), (smsc, esme, "deliver_sm")):
            self.assertTrue(sender.may_send(command))
            (write,) = sender.request(Pdu(command, values={"short_message": b"x"}), "token", 1)
            (delivered,) = receiver.receive(write.data, 1)
            self.assertEqual((type(delivered), delivered.pdu.message), (Deliver, b"x"))
            (write,) = receiver.respond(delivered.pdu, message_id="7")
            (answered,) = sender.receive(write.data, 1)
            self.assertEqual((answered.token, answered.pdu["message_id"]), ("token", "7"))

    def test_refused(self) -> None:
        """A bind that is refused ends the session on both sides."""
        esme: Any = Session("esme", Settings(), 0)
        smsc: Any = Session("smsc", Settings(), 0)
        (asked,) = smsc.receive(esme.bind("receiver", BIND, 0)[0].data, 0)
        write, close = smsc.refuse(asked.pdu, "ESME_RINVPASWD")
        self.assertIsInstance(close, Close)
        (ended,) = esme.receive(write.data, 0)
        self.assertEqual(ended, Close("the peer does not let us bind: ESME_RINVPASWD"))
        self.assertEqual((esme.next(), smsc.next()), (None, None))

    def test_who_may_say_what(self) -> None:
        """A request that this side may not send in this state is answered with RINVBNDSTS; a second bind with RALYBND."""
        for role, state, command, status in [
            ("smsc", "open", "submit_sm", "ESME_RINVBNDSTS"), ("smsc", "receiver", "submit_sm", "ESME_RINVBNDSTS"),
            ("smsc", "transmitter", "deliver_sm", "ESME_RINVBNDSTS"), ("smsc", "transceiver", "bind_receiver", "ESME_RALYBND"),
            ("esme", "transmitter", "deliver_sm", "ESME_RINVBNDSTS"), ("esme", "transceiver", "submit_sm", "ESME_RINVBNDSTS"),
            ("esme", "open", "bind_receiver", "ESME_RINVBNDSTS"),
        ]:
            session: Any = Session(role, Settings(), 0)
            session.state = state
            (answer,) = written(session.receive(encode(Pdu(command, 5)), 0))
            self.assertEqual((answer.command, answer.sequence, answer.error), (f"{command}_resp", 5, status))

    def test_broken_packets(self) -> None:
        """What cannot be read is answered with its status; a length that cannot be ends the session."""
        session = self.bound()
        (nack,) = written(session.receive(b"\0\0\0\x10\0\0\0\x99\0\0\0\0\0\0\0\x09", 0))
        self.assertEqual((nack.command, nack.sequence, nack.error), ("generic_nack", 9, "ESME_RINVCMDID"))
        (answer,) = written(session.receive(b"\0\0\0\x11\0\0\0\x05\0\0\0\0\0\0\0\x0ax", 0))
        self.assertEqual((answer.command, answer.sequence, answer.error), ("deliver_sm_resp", 10, "ESME_RINVCMDLEN"))
        write, close = session.receive(b"\xff\xff\xff\xff" * 4, 0)
        self.assertEqual((parse(write.data).command, type(close)), ("generic_nack", Close))
        self.assertEqual(session.receive(encode(Pdu("enquire_link", 1)), 0), [])

    def test_broken_answer(self) -> None:
        """An answer that cannot be read fails what it answers."""
        session = self.bound()
        (sent,) = written(session.request(Pdu("submit_sm"), "t", 0))
        data = b"\0\0\0\x15\x80\0\0\x04\0\0\0\0" + sent.sequence.to_bytes(4, "big") + b"7\0\x04\x24\x00"
        self.assertEqual([(each.token, each.pdu) for each in session.receive(data, 0)], [("t", None)])

    def test_window(self) -> None:
        """So many requests may wait; each answer makes room, in whatever order they come."""
        session = self.bound(window=3)
        sent = [written(session.request(Pdu("submit_sm"), n, 0))[0] for n in range(3)]
        self.assertEqual(session.room(0), 0)
        self.assertEqual(session.receive(encode(sent[1].respond(message_id="b")), 0)[0].token, 1)
        self.assertEqual((session.room(0), session.pending), (1, 2))
        self.assertEqual(session.receive(encode(sent[1].respond(message_id="b")), 0), [])
        self.assertEqual(session.receive(encode(Pdu("query_sm_resp", sent[0].sequence)), 0), [])
        self.assertEqual(session.unmatched, 2)

    def test_throttling(self) -> None:
        """Too fast, or a full queue, shuts the window, each time for twice as long; another answer begins anew."""
        session = self.bound(back_off=1, longest_back_off=4)
        now = 0.0
        for status, wait in [("ESME_RTHROTTLED", 1), ("ESME_RMSGQFUL", 2), ("ESME_RTHROTTLED", 4), ("ESME_RTHROTTLED", 4)]:
            (sent,) = written(session.request(Pdu("submit_sm"), "t", now))
            (answered,) = session.receive(encode(sent.respond(status)), now)
            assert isinstance(answered, Answered)
            self.assertTrue(answered.slow_down)
            self.assertEqual((session.room(now + wait - 0.01), session.opens()), (0, now + wait))
            now += wait
            self.assertEqual(session.room(now), 10)
        (sent,) = written(session.request(Pdu("submit_sm"), "t", now))
        session.receive(encode(sent.respond("ESME_RINVDSTADR")), now)
        (sent,) = written(session.request(Pdu("submit_sm"), "t", now))
        session.receive(encode(sent.respond("ESME_RTHROTTLED")), now)
        self.assertEqual(session.opens(), now + 1)

    def test_no_answer(self) -> None:
        """A request without an answer fails in time, alone; a late answer is counted."""
        session = self.bound(response_time=10)
        (sent,) = written(session.request(Pdu("submit_sm"), "t", 5))
        self.assertEqual((session.next(), session.expire(14.9)), (15, []))
        self.assertEqual(session.expire(15), [Answered("t", None, "no answer to submit_sm")])
        self.assertTrue(session.is_bound)
        session.receive(encode(sent.respond(message_id="1")), 16)
        self.assertEqual(session.unmatched, 1)

    def test_silence(self) -> None:
        """A silent peer is asked whether it is there; no answer ends the session, and all that waits with it."""
        session = self.bound(enquire_time=30, response_time=10)
        self.assertEqual(session.next(), 30)
        (enquire,) = written(session.expire(30))
        self.assertEqual(enquire.command, "enquire_link")
        session.receive(encode(enquire.respond()), 31)
        self.assertEqual(session.next(), 61)
        session.expire(61)
        session.request(Pdu("submit_sm"), "t", 65)
        why = "no answer to enquire_link"
        self.assertEqual(session.expire(71), [Answered("t", None, why), Close(why)])

    def test_unbinding(self) -> None:
        """Each side can end it in order; who does not answer is left in time."""
        session = self.bound()
        (unbind,) = written(session.unbind(0))
        self.assertEqual(session.receive(encode(unbind.respond()), 0), [Close("ended")])
        session = self.bound()
        session.unbind(0)
        self.assertEqual(session.expire(10), [Close("no answer to unbind")])
        session = self.bound()
        session.request(Pdu("submit_sm"), "t", 0)
        write, answered, close = session.receive(encode(Pdu("unbind", 3)), 0)
        self.assertEqual((parse(write.data).command, answered.token, type(close)), ("unbind_resp", "t", Close))

    def test_nobody_binds(self) -> None:
        """Who connects and says nothing is not kept; who has nothing to say for ``idle_time`` is unbound."""
        session = Session("smsc", Settings(bind_time=5), 0)
        self.assertEqual((session.next(), session.expire(4)), (5, []))
        self.assertEqual(session.expire(5), [Close("no bind came")])
        session = self.bound(idle_time=60, enquire_time=0)
        self.assertEqual(session.next(), 60)
        self.assertEqual(written(session.expire(60))[0].command, "unbind")

    def test_connection_lost(self) -> None:
        """All that waits for an answer hears that there will be none; once."""
        session = self.bound()
        session.request(Pdu("submit_sm"), "t", 0)
        self.assertEqual(session.lost("gone"), [Answered("t", None, "gone")])
        self.assertEqual((session.lost("gone"), session.room(0)), ([], 0))

    def test_sequence_numbers(self) -> None:
        """They begin again after the last, and leave out those that still wait."""
        session = self.bound(window=100)
        session._sequence = 0x7FFF_FFFE
        first = written(session.request(Pdu("submit_sm"), "a", 0))[0].sequence
        second = written(session.request(Pdu("submit_sm"), "b", 0))[0].sequence
        self.assertEqual((first, second), (0x7FFF_FFFF, 1))

    @given(st.lists(st.one_of(
        st.binary(max_size=40),
        st.builds(
            lambda command, sequence, status: encode(Pdu(command, sequence, STATUS[status])),
            st.sampled_from("submit_sm deliver_sm deliver_sm_resp submit_sm_resp generic_nack unbind bind_transceiver".split()),
            st.integers(0, 4), st.sampled_from(["ESME_ROK", "ESME_RTHROTTLED", "ESME_RSYSERR"]),
        ),
        st.floats(0, 50),
    ), max_size=20), st.sampled_from(["esme", "smsc"]))
    @settings(derandomize=True, deadline=None, max_examples=200)
    def test_whatever_comes(self, events: list[bytes | float], role: str) -> None:
        """Whatever comes, each request hears exactly one end, and nothing follows the close."""
        session: Any = self.bound() if role == "esme" else Session("smsc", Settings(), 0)
        now, tokens = 0.0, 0
        actions: list[Any] = []
        for event in events:
            if isinstance(event, float):
                now += event
                made = session.expire(now)
            else:
                made = session.receive(event, now)
            if any(isinstance(action, Close) for action in actions):
                self.assertEqual(made, [])
            actions += made
            if session.room(now) and session.may_send("submit_sm"):
                session.request(Pdu("submit_sm"), tokens, now)
                tokens += 1
            for action in made:
                if isinstance(action, Bind):
                    actions += session.accept(action.pdu, "us", now)
        actions += session.lost("over")
        self.assertEqual(sorted(each.token for each in actions if isinstance(each, Answered)), list(range(tokens)))
