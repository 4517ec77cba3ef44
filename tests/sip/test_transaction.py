"""Tests of sipgw/sip/transaction.py: the tables against the figures of the RFCs, and the lengths of the timers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

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
    State,
    TimerSettings,
)

MACHINES = {
    "client INVITE": (CLIENT_INVITE, State.CALLING, {Event.TIMER_A, Event.TIMER_B}),
    "client other": (CLIENT_OTHER, State.TRYING, {Event.TIMER_E, Event.TIMER_F}),
    "server INVITE": (SERVER_INVITE, State.PROCEEDING, set()),
    "server other": (SERVER_OTHER, State.TRYING, set()),
}

# Every arrow of RFC 6026 figures 1 and 2, RFC 3261 figures 6 and 8; a letter is a timer, ! what the TU is told,
# > what is sent, - nothing. GIVEN_UP and timer C are ours (see the essay in transaction.py).
FIGURES = {
    "client INVITE": """
        CALLING    A           CALLING     >
        CALLING    B           TERMINATED  !timeout
        CALLING    transport   TERMINATED  !transport
        CALLING    1xx         PROCEEDING  !
        CALLING    2xx         ACCEPTED    !
        CALLING    300-699     COMPLETED   >ACK !
        PROCEEDING 1xx         PROCEEDING  !
        PROCEEDING 2xx         ACCEPTED    !
        PROCEEDING 300-699     COMPLETED   >ACK !
        PROCEEDING C           GIVEN_UP    !timeout
        COMPLETED  300-699     COMPLETED   >ACK
        COMPLETED  transport   TERMINATED  !transport
        COMPLETED  D           TERMINATED  -
        ACCEPTED   2xx         ACCEPTED    !
        ACCEPTED   M           TERMINATED  -
        GIVEN_UP   2xx         ACCEPTED    !
        GIVEN_UP   300-699     COMPLETED   >ACK
        GIVEN_UP   M           TERMINATED  -
    """,
    "client other": """
        TRYING     E           TRYING      >
        TRYING     F           TERMINATED  !timeout
        TRYING     transport   TERMINATED  !transport
        TRYING     1xx         PROCEEDING  !
        TRYING     2xx         COMPLETED   !
        TRYING     300-699     COMPLETED   !
        PROCEEDING E           PROCEEDING  >
        PROCEEDING F           TERMINATED  !timeout
        PROCEEDING transport   TERMINATED  !transport
        PROCEEDING 1xx         PROCEEDING  !
        PROCEEDING 2xx         COMPLETED   !
        PROCEEDING 300-699     COMPLETED   !
        COMPLETED  K           TERMINATED  -
    """,
    "server INVITE": """
        PROCEEDING request     PROCEEDING  >
        PROCEEDING 1xx         PROCEEDING  >
        PROCEEDING 2xx         ACCEPTED    >
        PROCEEDING 300-699     COMPLETED   >
        COMPLETED  request     COMPLETED   >
        COMPLETED  G           COMPLETED   >
        COMPLETED  ACK         CONFIRMED   -
        COMPLETED  H           TERMINATED  !unacknowledged
        CONFIRMED  I           TERMINATED  -
        ACCEPTED   2xx         ACCEPTED    >
        ACCEPTED   ACK         ACCEPTED    !
        ACCEPTED   L           TERMINATED  -
    """,
    "server other": """
        TRYING     1xx         PROCEEDING  >
        TRYING     2xx         COMPLETED   >
        TRYING     300-699     COMPLETED   >
        PROCEEDING request     PROCEEDING  >
        PROCEEDING 1xx         PROCEEDING  >
        PROCEEDING 2xx         COMPLETED   >
        PROCEEDING 300-699     COMPLETED   >
        COMPLETED  request     COMPLETED   >
        COMPLETED  J           TERMINATED  -
    """,
}

EVENTS = {
    "1xx": Event.PROVISIONAL, "2xx": Event.SUCCESS, "300-699": Event.FAILURE, "request": Event.REQUEST,
    "ACK": Event.ACK, "transport": Event.TRANSPORT_ERROR,
} | {event.name[-1]: event for event in Event if event.name.startswith("TIMER")}

SEEN = {
    Do.DELIVER: "!", Do.SEND: ">", Do.PASS: ">", Do.RESEND: ">", Do.ACK: ">ACK", Do.TIME_OUT: "!timeout",
    Do.FAIL: "!transport", Do.NO_ACK: "!unacknowledged",
}


class TableTests(SynchronousTestCase):
    """The tables are those of the RFCs and hold together."""

    def test_figures(self):
        """Each machine has exactly the arrows of the figures, and does what stands beside them."""
        for name, figure in FIGURES.items():
            expected = {}
            for line in figure.strip().splitlines():
                before, event, after, *seen = line.split()
                expected[State[before], EVENTS[event]] = State[after], " ".join(seen)
            table = MACHINES[name][0]
            found = {
                key: (state, " ".join(SEEN[do] for do in actions if do in SEEN) or "-")
                for key, (state, actions) in table.items()
            }
            self.assertEqual(found, expected, name)

    def test_timers(self):
        """In each state each running timer has an arrow, and no arrow waits for a timer that never runs."""
        starts = dict(TIMER_OF) | {Do.START_C: Event.TIMER_C, Do.RESTART_C: Event.TIMER_C, Do.START_G: Event.TIMER_G}
        for name, (table, first, first_timers) in MACHINES.items():
            running = {first: set(first_timers)}
            changed = True
            while changed:
                changed = False
                for (before, _), (after, actions) in table.items():
                    if before not in running:
                        continue
                    timers = set() if Do.STOP in actions else set(running[before])
                    timers |= {starts[do] for do in actions if do in starts}
                    if not timers <= running.setdefault(after, set()):
                        running[after] |= timers
                        changed = True
            self.assertEqual(running.pop(State.TERMINATED), set(), name)
            timed = {(state, timer) for state, timers in running.items() for timer in timers}
            arrows = {key for key in table if key[1].name.startswith("TIMER")}
            self.assertEqual(timed, arrows, name)

    def test_every_state_ends(self):
        """From every state a timer or the TU leads on to TERMINATED, and nothing leads out of it."""
        for name, (table, _, _) in MACHINES.items():
            states = {state for state, _ in table}
            ending = {State.TERMINATED}
            while more := {before for (before, _), (after, _) in table.items() if after in ending} - ending:
                ending |= more
            self.assertEqual(states - ending, set(), name)
            self.assertNotIn(State.TERMINATED, states, name)

    def test_start_comes_last(self):
        """The timer that ends a state is started last in its row: with a length of 0 it ends the state at once."""
        for table, _, _ in MACHINES.values():
            for _, actions in table.values():
                self.assertFalse(any(do in TIMER_OF for do in actions[:-1]))


class TimerSettingsTests(SynchronousTestCase):
    """Timers are as long as RFC 3261 table 4 and RFC 6026 say."""

    def length(self, letter: str, reliable: bool = False, **settings: float) -> float:
        """The length of the timer with that letter."""
        return TimerSettings(**settings).lengths(reliable)[EVENTS[letter]]  # type: ignore[arg-type]

    def test_defaults(self):
        """The defaults over UDP and over a reliable transport."""
        rows = [
            ("A", 0.5, 0.5), ("B", 32, 32), ("D", 32, 0), ("E", 0.5, 0.5), ("F", 32, 32), ("G", 0.5, 0.5),
            ("H", 32, 32), ("I", 5, 0), ("J", 32, 0), ("K", 5, 0), ("L", 32, 32), ("M", 32, 32),
        ]
        for letter, udp, tcp in rows:
            self.assertEqual((self.length(letter), self.length(letter, True)), (udp, tcp), letter)
        self.assertGreater(self.length("C"), 180)

    def test_derived(self):
        """T1 and T4 give the others their lengths; timer D is never less than 32 seconds."""
        self.assertEqual(self.length("B", t1=1.0), 64)
        self.assertEqual(self.length("L", t1=0.1), 6.4)
        self.assertEqual(self.length("D", t1=0.1), 32)
        self.assertEqual(self.length("K", t4=2.5), 2.5)

    def test_afterlife(self):
        """``afterlife`` replaces every timer of a finished transaction, over every transport, and no other."""
        for letter in "DIJKLM":
            self.assertEqual((self.length(letter, afterlife=5.0), self.length(letter, True, afterlife=5.0)), (5, 5))
        for letter in "ABCEFGH":
            self.assertEqual(self.length(letter, afterlife=7.0), self.length(letter), letter)

    def test_own(self):
        """A length that is given is taken as it is."""
        for letter in "BCDFHIJKLM":
            self.assertEqual(self.length(letter, True, **{letter.lower(): 9.0}), 9, letter)


class ClientTransactionTests(SynchronousTestCase):
    """What a client transaction keeps."""

    def test_sent(self):
        """The request is read from the bytes that were sent when somebody asks, once, and let go with them."""
        data = b"OPTIONS sip:a SIP/2.0\r\nCall-ID: x\r\n\r\n"
        tx = ClientTransaction((), "b", "OPTIONS", None, (), data)  # type: ignore[arg-type]
        self.assertEqual(tx.sent.call_id, "x")
        self.assertIs(tx.sent, tx.sent)
        tx.forget_request()
        self.assertEqual(tx.data, b"")
        self.assertIsNone(tx._sent)

    def test_sent_given(self):
        """A request that was handed in is not read again."""
        request = parse(b"OPTIONS sip:a SIP/2.0\r\nCall-ID: x\r\n\r\n")
        tx = ClientTransaction((), "b", "OPTIONS", None, (), b"", request)  # type: ignore[arg-type]
        self.assertIs(tx.sent, request)
