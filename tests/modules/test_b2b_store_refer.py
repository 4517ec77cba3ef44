"""Tests of transfers whose server is killed: before, in the middle, and after; of calls that are joined with one another."""

from __future__ import annotations

from typing import Any

from sipgw.testing import Phone
from tests.db.memory import MemoryDatabases
from tests.modules.b2b_phones import Dialog, sdp
from tests.modules.calls import BOB, DAVE
from tests.modules.test_b2b_refer import Referring
from tests.modules.test_b2b_store import PARAMS, StoredBack


class TransferTests(StoredBack, Referring):
    """Bob transfers Alice to Carol; calls are stored at once."""

    def serve(self, begin: str = "", params: str = "", rest: str = "") -> None:
        """Start the first server."""
        self.databases = MemoryDatabases()
        super().serve(begin, PARAMS % {"mode": 1} + params, rest)

    def start(self, script: str) -> None:
        """Start a server; Dave has a phone, too."""
        super().start(script)
        if DAVE not in self.phones:
            self.phones[DAVE] = Phone(self.wired.wire, "127.0.0.1", DAVE)

    def end_of(self, *dialogs: Dialog) -> None:
        """These are hung up on."""
        for dialog in dialogs:
            dialog.answer(dialog.one("BYE"), 200)

    def joined_anew(self, first: Dialog, second: Dialog, port: int) -> None:
        """Two get re-INVITEs and each other's descriptions."""
        first.answer(first.one("INVITE"), 200, text=sdp(first.name, port, 2))
        second.answer(second.one("INVITE"), 200, text=sdp(second.name, port + 1000, 2))
        self.assertEqual((first.words(), second.words()), (["ACK"], ["ACK"]))

    def test_middle_of_attended(self) -> None:
        """Carol is lent to the call that Bob's REFER came by: she and Alice are joined, Bob hears BYE twice."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        self.alice.one("INVITE")
        self.assertEqual(self.counted(), (4, 1))
        self.restart()
        found = self.sent(BOB)
        self.assertEqual([one.method for one in found], ["BYE", "BYE"])
        for one in found:
            (self.bob if one.call_id == self.bob.call_id else second).answer(one, 200)
        self.joined_anew(self.alice, self.carol, 1002)
        self.assertEqual(self.counted(), (2, 1))
        self.both_end(self.alice, self.carol)

    def test_after_attended(self) -> None:
        """What was joined from two calls goes on as one."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.carol.answer(self.carol.one("INVITE"), 200, text=sdp("carol", 3002, 2))
        self.alice.got(), self.carol.got()
        found: Any = self.sent(BOB)
        for one in found:
            (self.bob if one.call_id == self.bob.call_id else second).answer(one, 200)
        self.end_of(self.bob)
        self.assertEqual(self.counted(), (2, 1))
        self.restart()
        self.talks(self.alice, self.carol)
        self.both_end(self.carol, self.alice)

    def test_attended_fails(self) -> None:
        """If it fails both calls are what they were, in the tables, too."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        self.alice.answer(self.alice.one("INVITE"), 488)
        self.alice.got()
        self.notified(self.bob, "488 Word")
        self.assertEqual(self.counted(), (4, 2))
        self.restart()
        self.talks(second, self.carol)
        self.talks(self.alice, self.bob)
        second.send("BYE")
        self.carol.answer(self.carol.one("BYE"), 200)
        self.assertEqual((second.words(), self.counted()), (["200 BYE"], (2, 1)))
        self.both_end(self.alice, self.bob)

    def test_middle_of_blind(self) -> None:
        """Carol has not answered: Alice and Bob are joined again; a REFER works as before."""
        self.begin()
        self.start_transfer()
        self.carol.answer(self.carol.invite, 180)
        self.notified(self.bob, "180 Word")
        self.restart()
        self.joined_anew(self.alice, self.bob, 1002)
        self.assertEqual(self.command("b2b_logic:list")[0]["scenario"], "refer")
        self.both_end(self.alice, self.bob)

