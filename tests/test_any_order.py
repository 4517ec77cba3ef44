"""A whole server at which three peers throw anything in any order: nothing breaks, and at the end nothing is left."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from tests.load.disorder import KINDS, Disorder, Peer

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
STATUSES = [100, 180, 183, 200, 200, 200, 202, 302, 401, 407, 408, 481, 486, 487, 488, 491, 500, 503, 603]
METHODS = ["BYE", "INFO", "INVITE", "UPDATE", "REFER", "NOTIFY", "PRACK", "OPTIONS", "MESSAGE"]
LIFE = 700.0
"""Seconds after which every call has ended by itself."""
WANTED = [
    "dialog EARLY", "dialog ANSWERED", "dialog CONFIRMED", "dialog DELETED", "server invited", "server answered",
    "server talking", "client ringing", "client talking", "server leaving", "client leaving", "sessions of three",
]
"""What must have been met in some runs, or the machine does too little."""


class AnyOrder(RuleBasedStateMachine):
    """What may happen next."""

    seen: Counter[str] = Counter()
    """How much has happened, in all."""

    def __init__(self) -> None:
        super().__init__()
        self.disorder = Disorder()

    def note(self) -> None:
        """Count what there is now."""
        modules: dict[str, Any] = self.disorder.wired.server.modules
        for call in modules["dialog"].follower.calls:
            self.seen[f"dialog {call.state.name}"] += 1
        for session in modules["b2b_logic"].sessions.values():
            for leg in session.legs:
                self.seen[f"{leg.role.value} {leg.state.value}"] += 1
            self.seen["sessions of three"] += len(modules["b2b_entities"].entities.legs) > 2

    def peer(self, who: int) -> Peer:
        """One of the three."""
        return self.disorder.peers[who % 3]

    @initialize(kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 6)), min_size=1, max_size=3))
    def begins(self, kinds: list[tuple[str, int]]) -> None:
        """Some calls ring, are answered, acknowledged, are in the middle of something."""
        caller = self.disorder.peers[0]
        for kind, steps in kinds:
            caller.invite(kind, "talk", True)
            for _ in range(steps):
                self.go_on()
            if steps == 6 and caller.known:
                caller.request(caller.known[-1], "INVITE", True, False)

    @rule()
    def go_on(self) -> None:
        """What is usual: who is asked rings and then agrees, who is answered acknowledges."""
        for peer in self.disorder.peers:
            for request in list(peer.asked):
                first = request.method == "INVITE" and request not in peer.rung
                peer.rung.append(request)
                peer.answer(request, 180 if first else 200)
            for known in peer.known:
                if known.answered:
                    known.answered = False
                    peer.acknowledge(known, False)

    @rule(kind=st.sampled_from([*KINDS, "pickup"]), user=st.sampled_from(["talk", "talk", "nobody"]), body=st.booleans())
    def invite(self, kind: str, user: str, body: bool) -> None:
        """A call begins."""
        self.disorder.peers[0].invite(kind, user, body)

    @precondition(lambda self: any(peer.asked for peer in self.disorder.peers))
    @rule(who=st.integers(0, 2), which=st.integers(0, 9), status=st.sampled_from(STATUSES), tag=st.sampled_from(["t", "t", "u"]))
    def answer(self, who: int, which: int, status: int, tag: str) -> None:
        """A request is answered."""
        peers = [peer for peer in self.disorder.peers if peer.asked]
        peer = peers[who % len(peers)]
        peer.answer(peer.asked[which % len(peer.asked)], status, tag)

    @precondition(lambda self: any(peer.known for peer in self.disorder.peers))
    @rule(
        who=st.integers(0, 2), which=st.integers(0, 9), method=st.sampled_from(METHODS), body=st.booleans(), old=st.booleans()
    )
    def request(self, who: int, which: int, method: str, body: bool, old: bool) -> None:
        """Somebody sends a request within a call."""
        peers = [peer for peer in self.disorder.peers if peer.known]
        peer = peers[who % len(peers)]
        peer.request(peer.known[which % len(peer.known)], method, body, old and which == 0)

    @precondition(lambda self: any(known.invites for peer in self.disorder.peers for known in peer.known))
    @rule(which=st.integers(0, 9), body=st.booleans())
    def acknowledge(self, which: int, body: bool) -> None:
        """Somebody sends an ACK."""
        found = [(peer, known) for peer in self.disorder.peers for known in peer.known if known.invites]
        peer, known = found[which % len(found)]
        peer.acknowledge(known, body)

    @precondition(lambda self: self.disorder.peers[0].begun)
    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        """The caller gives up, perhaps too late."""
        begun = self.disorder.peers[0].begun
        self.disorder.peers[0].cancel(which % len(begun))

    @rule(seconds=st.sampled_from([0.3, 0.6, 5.0, 21.0, 41.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.disorder.wait(seconds)

    @rule(who=st.integers(0, 2))
    def repeat(self, who: int) -> None:
        """What somebody sent last comes again."""
        peer = self.peer(who)
        if peer.last:
            peer.send(peer.last)

    @rule(count=st.integers(1, 4))
    def lose(self, count: int) -> None:
        """The next datagrams are lost."""
        self.disorder.losing = count + 1

    @rule(who=st.integers(0, 2))
    def restart(self, who: int) -> None:
        """Somebody forgets all that was."""
        self.peer(who).forget()

    @rule(what=st.sampled_from(["end", "hold", "unhold", "transfer", "terminate", "bridge", "two"]), flag=st.integers(0, 1))
    def operate(self, what: str, flag: int) -> None:
        """The operator does something to a call."""
        modules = self.disorder.wired.server.modules
        calls = list(modules["dialog"].follower.calls)  # type: ignore[attr-defined]
        sessions = list(modules["b2b_logic"].sessions)  # type: ignore[attr-defined]
        leg = ("caller", "callee")[flag]
        if what == "two":
            entities = {"entity1": "one,sip:talk@192.0.2.2", "entity2": "other,sip:talk@192.0.2.3"}
            self.disorder.command("b2b_logic:trigger_scenario", scenario_id="two", **entities)
        elif what in ("terminate", "bridge"):
            if sessions and what == "terminate":
                self.disorder.command("b2b_logic:terminate_call", key=sessions[0])
            elif sessions:
                self.disorder.command("b2b_logic:bridge", dialog_id=sessions[0], new_uri="sip:talk@192.0.2.3", flag=flag)
        elif calls:
            call = calls[0].did
            if what == "end":
                self.disorder.command("dialog:end_dlg", dialog_id=call)
            elif what == "transfer":
                self.disorder.command("callops:transfer", callid=call, leg=leg, destination="sip:hidden-talk@10.0.0.1")
            else:
                self.disorder.command(f"callops:{what}", callid=call, leg=leg)

    @invariant()
    def fine(self) -> None:
        """Nothing tells of a bug."""
        self.note()
        assert self.disorder.faults() == []

    def teardown(self) -> None:
        """Nobody says anything any more: all ends by itself."""
        self.disorder.wait(LIFE)
        assert self.disorder.left() == {}, (self.disorder.left(), [text for _, text in self.disorder.wired.lines])
        assert self.disorder.faults() == []


class AnyOrderTests(SynchronousTestCase):
    """The machine above."""

    def test_everything(self) -> None:
        """Anything, in any order."""
        run_state_machine_as_test(
            AnyOrder,
            settings=settings(
                max_examples=600 if NIGHTLY else 30, stateful_step_count=40, derandomize=not NIGHTLY, deadline=None,
            ),
        )
        missing = [name for name in WANTED if not AnyOrder.seen[name]]
        self.assertEqual(missing, [], AnyOrder.seen)
