"""Tests of sipgw.proxy.dialog_records: calls as records, and what two servers have made of one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from sipgw.proxy.dialog_records import Records, merge
from sipgw.proxy.dialogs import Call, CallFlag, Leg, Profile, Profiles, State
from sipgw.testing import Wire, WireSocket

MEMBERS = st.dictionaries(st.sampled_from("xy"), st.integers(0, 3)) | st.integers(0, 3)
"""What stands in a record."""


class MergeTests(SynchronousTestCase):
    """``merge``."""

    def test_table(self) -> None:
        """Whoever changed something has it so; the greater number, one more member, one less."""
        for base, mine, theirs, wanted in (
            ({"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}),
            ({"a": 1}, {"a": 1}, {"a": 3}, {"a": 3}),
            ({"a": 1}, {"a": 2}, {"a": 3}, {"a": 2}),
            ({"a": 1}, {}, {"a": 1}, {}),
            ({"a": 1}, {"a": 1}, {}, {}),
            ({}, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
            ({"cseq": 5}, {"cseq": 7}, {"cseq": 9}, {"cseq": 9}),
            ({"values": {"a": 1, "b": 1}}, {"values": {"a": 2, "b": 1}}, {"values": {"a": 1}}, {"values": {"a": 2}}),
            ({"marks": ["a", "b"]}, {"marks": ["b", "c"]}, {"marks": ["a", "b", "d"]}, {"marks": ["b", "d", "c"]}),
            ({"profiles": [["p", "x"]]}, {"profiles": []}, {"profiles": [["p", "x"], ["p", "x"]]}, {"profiles": [["p", "x"]]}),
            ({"routes": ["a"]}, {"routes": ["b"]}, {"routes": ["c"]}, {"routes": ["b"]}),
        ):
            with self.subTest(base=base, mine=mine, theirs=theirs):
                self.assertEqual(merge(base, mine, theirs), wanted)

    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(st.lists(st.dictionaries(st.sampled_from("abc"), MEMBERS), min_size=2, max_size=2))
    def test_one_sided(self, two: list[dict[str, Any]]) -> None:
        """What only one has changed is as that one has it; what both have done alike is so."""
        base, mine = two
        self.assertEqual(merge(base, mine, base), mine)
        self.assertEqual(merge(base, base, mine), mine)
        self.assertEqual(merge(base, mine, mine), mine)


class RecordTests(SynchronousTestCase):
    """``Records``."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.profiles = Profiles()
        self.profiles.declare(Profile("p", True, ""))
        self.told: list[tuple[str, str | None, int]] = []
        self.profiles.shared = lambda *what: self.told.append(what)
        self.socket = WireSocket(Wire(self.clock), "192.0.2.1", 5060, lambda data, flow: None)
        self.known = {"udp:192.0.2.1:5060": self.socket}
        self.records = Records(self.profiles, lambda: 1000 + self.clock.seconds(), self.clock.seconds, self.known.get)

    def call(self) -> Call:
        """A call with everything."""
        caller = Leg("a", "Alice \udcff <sip:a@h>", "sip:a@192.0.2.9", ["<sip:r;lr>"], self.socket)
        call = Call(7 << 32 | 5, "id", caller, "<sip:b@h>", 990.0)
        callee = call.answering("b")
        caller.cseq, callee.cseq, callee.generated, callee.numbers, caller.invite = 3, 4, 9, {4: 9}, 4
        caller.sdp, callee.sent_sdp, callee.mangled_to = b"v=0\xff", b"v=1", "<sip:x@y>"
        call.state, call.flags, call.started, call.ends, call.lifetime = State.ANSWERED, CallFlag.BYE_ON_TIMEOUT, 995.0, 60.0, 65
        call.values, call.marks, call.routes, call.tag_of_sharing = {"n": 1, "t": "\udcff"}, {"f"}, {"hangup": "over"}, "vip"
        self.profiles.enter(call, "p", "x")
        return call

    def test_round_trip(self) -> None:
        """A record says all of a call, as JSON too; a profile is not told again."""
        record = json.loads(json.dumps(self.records.write(self.call())))
        self.told.clear()
        self.clock.advance(5)
        call = self.records.read(record)
        self.assertEqual(self.records.write(call), record)
        self.assertEqual((call.ends, call.caller.socket, call.winner.numbers), (60.0, self.socket, {4: 9}))
        self.assertEqual((self.profiles.size("p", "x"), self.told), (2, []))
        self.profiles.leave(call, "p", "x", quiet=True)
        self.assertEqual((self.profiles.size("p", "x"), self.told), (1, []))

    def test_clocks(self) -> None:
        """Clocks that do not go quite alike change nothing."""
        call = self.call()
        record = self.records.write(call)
        call.ends += 0.7
        self.assertEqual(self.records.write(call, record), record)
        call.ends += 0.7
        self.assertNotEqual(self.records.write(call, record), record)

    def test_socket_of_another_server(self) -> None:
        """An address that is not ours is known by its tag, or else not."""
        record = self.records.write(self.call())
        self.known.clear()
        self.assertIsNone(self.records.read(record).caller.socket)
        record["caller"]["socket_tag"] = "inside"
        self.known["inside"] = self.socket
        self.assertIs(self.records.read(record).caller.socket, self.socket)

    def test_wrong(self) -> None:
        """What is no record is refused."""
        record = self.records.write(self.call())
        for wrong in ({}, {**record, "state": 1}, {**record, "caller": 5}, {**record, "ends": "x"}):
            self.assertRaises((ValueError, KeyError, TypeError), self.records.read, wrong)
