"""Tests of the scenario "refer" of sipgw.modules.b2b_logic: transfers that are carried out here (RFC 3515, 5589, 3891)."""

from __future__ import annotations

from typing import Any

from sipgw.sip.message import Response
from tests.modules.b2b_phones import Bridged, Dialog, port_of, sdp
from tests.modules.calls import ALICE, BOB, CAROL, DAVE


class Referring(Bridged):
    """Alice and Bob talk; one of them sends the other on."""

    SCENARIO = "refer"

    def begin(self, act: str = "", **options: Any) -> None:
        """They talk."""
        self.serve(f'$du = "sip:127.0.0.1:" + $(rU{{s.substr,0,4}}); b2b_init_request("{self.SCENARIO}");')
        self.alice, self.bob = Dialog(self, ALICE, "alice"), Dialog(self, BOB, "bob")
        self.carol, self.dave = Dialog(self, CAROL, "carol"), Dialog(self, DAVE, "dave")
        self.talk_between(self.alice, self.bob)

    def talk_between(self, caller: Dialog, callee: Dialog, *, answered: bool = True) -> None:
        """One calls the other."""
        caller.call(f"sip:{callee.port}@example.org", sdp(caller.name, caller.port))
        callee.called(callee.one("INVITE"))
        callee.answer(callee.invite, 180)
        if answered:
            callee.answer(callee.invite, 200, text=sdp(callee.name, callee.port))
        caller.got()
        if answered:
            caller.send("ACK", number=1)
            self.assertEqual(callee.words(), ["ACK"])

    def transfer(self, *, more: str = "") -> None:
        """Alice calls Carol by a REFER of Bob, and talks with her."""
        self.start_transfer(more=more)
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()

    def start_transfer(self, *, more: str = "", first: str = "100 Trying") -> None:
        """Carol is called."""
        logic: Any = self.wired.server.modules["b2b_logic"]
        for session in logic.sessions.values():
            for leg in session.pair:
                leg.next_hop = f"sip:127.0.0.1:{CAROL}"
        self.refer(more=more)
        if first:
            self.notified(self.bob, first)
        self.carol.called(self.carol.one("INVITE"))

    def replaces(self, dialog: Dialog) -> str:
        """The header of Refer-To that names a call, as its caller writes it."""
        return f"Replaces={dialog.call_id.replace('@', '%40')}%3Bto-tag%3D{dialog.peer_tag}%3Bfrom-tag%3D{dialog.tag}"

    def consult(self, *, answered: bool = True) -> Dialog:
        """Bob has called Carol, too."""
        second = Dialog(self, BOB, "bob2")
        self.talk_between(second, self.carol, answered=answered)
        return second


class ReferTests(Referring):
    """The scenario carries it out."""

    def test_either_side(self) -> None:
        """The caller may send the callee on, too; the target is called by way of the callee's next hop."""
        self.begin()
        self.refer(self.alice, f"sip:{CAROL}@example.org", more="Referred-By: <sip:boss@example.org>\r\n")
        accepted, notify = self.alice.got()
        self.assertEqual((accepted.status, notify.header("Event")), (202, f"refer;id={self.alice.cseq}"))
        self.alice.answer(notify, 200)
        found = self.bob.one("INVITE")
        self.assertEqual((found.uri, found.header("Referred-By")), (f"sip:{CAROL}@example.org", "<sip:boss@example.org>"))
        self.carol.port = BOB
        self.carol.called(found)
        self.carol.answer(found, 180)
        self.notified(self.alice, "180 Word")
        self.carol.answer(found, 200, text=sdp("carol", 3000))
        self.bob.answer(self.bob.one("INVITE"), 200, text=sdp("bob", 2002, 2))
        self.assertEqual(self.said(BOB), ["ACK", "ACK"])
        self.notified(self.alice, "200 OK")
        self.alice.answer(self.alice.one("BYE"), 200)
        self.carol.send("BYE")
        bye = self.bob.got()[-1]
        self.bob.answer(bye, 200)
        self.ended()

    def test_course(self) -> None:
        """NOTIFYs, the BYE after the last of them is agreed to, and a late BYE by who has transferred."""
        self.begin()
        self.transfer()
        self.notified(self.bob, "200 OK")
        bye = self.bob.one("BYE")
        self.bob.send("BYE")
        self.assertEqual(self.bob.words(), ["200 BYE"])
        self.bob.answer(bye, 481)
        self.talks(self.alice, self.carol)
        self.both_end(self.alice, self.carol)

    def test_silent(self) -> None:
        """Who wants no NOTIFYs gets none (RFC 4488)."""
        self.begin()
        self.start_transfer(more="Refer-Sub: false\r\n", first="")
        (accepted,) = self.bob.got()
        self.assertEqual((accepted.status, accepted.header("Refer-Sub")), (202, "false"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.carol)

    def test_failures(self) -> None:
        """Carol refuses, or does not answer, or Alice will not; Bob hears it and goes on with Alice."""
        for who in ("refuses", "silent", "kept"):
            self.begin()
            self.start_transfer()
            if who == "refuses":
                self.carol.answer(self.carol.invite, 486)
                self.notified(self.bob, "486 Word")
            elif who == "silent":
                self.wait(30.1)
                self.notified(self.bob, "408 Request Timeout")
            else:
                self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
                self.alice.answer(self.alice.one("INVITE"), 488)
                self.notified(self.bob, "488 Word")
                self.carol.answer(self.carol.got()[-1], 200)
                self.alice.got()
            self.talks(self.bob, self.alice)
            self.both_end(self.alice, self.bob)

    def test_kept_hangs_up(self) -> None:
        """Alice hangs up while Carol's phone rings: all ends, and Bob hears that first."""
        self.begin()
        self.start_transfer()
        self.carol.answer(self.carol.invite, 180)
        self.notified(self.bob, "180 Word")
        self.alice.send("BYE")
        self.carol.answer(self.carol.one("CANCEL"), 200)
        self.carol.answer(self.carol.invite, 487)
        self.notified(self.bob, "487 Request Terminated")
        self.bob.answer(self.bob.one("BYE"), 200)
        self.ended()

    def test_early_bye(self) -> None:
        """Bob hangs up as soon as his REFER is accepted: the transfer goes on; if it fails now, Alice is hung up on."""
        for status in (200, 486):
            self.begin()
            self.start_transfer()
            self.bob.send("BYE")
            self.assertEqual(self.bob.words(), ["200 BYE"])
            if status == 200:
                self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
                self.joined()
                self.both_end(self.carol, self.alice)
            else:
                self.carol.answer(self.carol.invite, status)
                self.alice.answer(self.alice.one("BYE"), 200)
                self.ended()

    def test_no_answer_to_notify(self) -> None:
        """A phone that does not answer NOTIFYs is hung up on when that is known."""
        self.begin()
        self.transfer()
        self.assertEqual(set(self.bob.words()), {"NOTIFY"})
        self.wait(33)
        self.assertIn("BYE", self.bob.words())
        self.both_end(self.alice, self.carol)

    def test_refused(self) -> None:
        """REFERs that cannot be read, or come at the wrong time."""
        self.begin()
        for refer_to, status in (
            ("nonsense", 400), ("<http://h/>", 416), ("<sip:c@h;method=BYE>", 501), ("<sip:c@h?Replaces=x>", 400),
        ):
            self.bob.send("REFER", more=f"Refer-To: {refer_to}\r\n")
            self.assertEqual(self.bob.words(), [f"{status} REFER"])
        self.start_transfer()
        self.refer()
        self.assertEqual(self.bob.words(), ["480 REFER"])
        self.refer(self.alice)
        self.assertEqual(self.alice.words(), ["491 REFER"])
        self.carol.answer(self.carol.invite, 486)
        self.notified(self.bob, "486 Word")
        self.both_end(self.alice, self.bob)

    def test_attended(self) -> None:
        """Bob has talked with Carol, and joins Alice with her: both are asked for offers, both calls of Bob end."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        asked = self.alice.one("INVITE")
        self.assertEqual(asked.body, b"")
        self.alice.answer(asked, 200, text=sdp("alice", 1002, 2))
        again = self.carol.one("INVITE")
        self.assertEqual(port_of(again), 1002)
        self.carol.answer(again, 200, text=sdp("carol", 3002, 2))
        self.assertEqual((port_of(self.alice.one("ACK")), self.carol.words()), (3002, ["ACK"]))
        bye, notify = sorted(self.sent(BOB), key=lambda message: message.method)
        self.assertEqual((bye.call_id, notify.call_id), (second.call_id, self.bob.call_id))
        second.answer(bye, 200)
        self.bob.answer(notify, 200)
        self.bob.answer(self.bob.one("BYE"), 200)
        (session,) = self.command("b2b_logic:list")
        self.assertEqual(len(session["entities"]), 2)
        self.talks(self.alice, self.carol)
        self.both_end(self.carol, self.alice)

    def test_attended_fails(self) -> None:
        """Carol will not: both calls go on as they were; Alice and Bob are joined anew, since she was asked already."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.carol.answer(self.carol.one("INVITE"), 488)
        self.assertEqual(self.carol.words(), ["ACK"])
        ack, asked = self.alice.got()
        self.assertEqual(port_of(ack), 9)
        self.notified(self.bob, "488 Word")
        self.alice.answer(asked, 200, text=sdp("alice", 1004, 3))
        self.bob.answer(self.bob.one("INVITE"), 200, text=sdp("bob", 2002, 2))
        self.bob.got(), self.alice.got()
        self.talks(second, self.carol)
        self.talks(self.alice, self.bob)
        second.send("BYE")
        self.carol.answer(self.carol.one("BYE"), 200)
        self.assertEqual(second.words(), ["200 BYE"])
        self.both_end(self.alice, self.bob)

    def test_attended_too_late(self) -> None:
        """Alice hangs up while Carol has her offer: Bob and Carol talk on, and are joined anew."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        offered = self.carol.one("INVITE")
        self.alice.send("BYE")
        self.assertIn("200 BYE", self.alice.words())
        for one in self.sent(BOB):
            (self.bob if one.call_id == self.bob.call_id else second).answer(one, 200)
        self.carol.answer(offered, 200, text=sdp("carol", 3002, 2))
        self.assertEqual(self.carol.words(), ["ACK"])
        second.answer(second.one("INVITE"), 200, text=sdp("bob2", 2004, 2))
        again = self.carol.one("INVITE")
        self.assertEqual(port_of(again), 2004)
        self.carol.answer(again, 200, text=sdp("carol", 3004, 3))
        self.assertEqual((port_of(second.one("ACK")), self.carol.words()), (3004, ["ACK"]))
        self.talks(second, self.carol)
        self.both_end(self.carol, second)

    def test_attended_while_it_rings(self) -> None:
        """Bob does not wait for Carol: when she answers she is asked for Alice; Bob's call to her ends unanswered."""
        self.begin()
        second = self.consult(answered=False)
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.assertEqual(self.carol.words(), ["ACK"])
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.carol.answer(self.carol.one("INVITE"), 200, text=sdp("carol", 3002, 2))
        self.assertEqual(port_of(self.alice.one("ACK")), 3002)
        self.carol.got()
        found = self.sent(BOB)
        self.assertEqual([one.status for one in found if isinstance(one, Response)], [480])
        second.refused()
        self.bob.answer(found[-1] if found[-1].method == "NOTIFY" else found[0], 200)
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.carol)

    def test_attended_and_gone(self) -> None:
        """Bob hangs up on both at once: Alice and Carol are joined all the same."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        self.notified(self.bob, "100 Trying")
        self.bob.send("BYE")
        second.send("BYE")
        self.assertEqual(self.said(BOB), ["200 BYE", "200 BYE"])
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.carol.answer(self.carol.one("INVITE"), 200, text=sdp("carol", 3002, 2))
        self.alice.got(), self.carol.got()
        self.both_end(self.alice, self.carol)

    def test_other_servers_call(self) -> None:
        """A Replaces that names no call of ours goes to the target."""
        self.begin()
        self.refer(self.bob, to=f"sip:{BOB}@example.org?Replaces=x%40y%3Bto-tag%3D1%3Bfrom-tag%3D2")
        found = [one for one in self.bob.got() if not isinstance(one, Response)]
        invite = next(one for one in found if one.method == "INVITE")
        self.assertEqual((invite.header("Replaces"), invite.header("Require")), ("x@y;to-tag=1;from-tag=2", "replaces"))
        self.bob.answer(next(one for one in found if one.method == "NOTIFY"), 200)
        self.carol.port = BOB
        self.carol.called(invite)
        self.carol.answer(invite, 404)
        self.wait(1)
        self.bob.answer([one for one in self.bob.got() if one.method == "NOTIFY"][-1], 200)
        self.both_end(self.alice, self.bob)

    def test_restart(self) -> None:
        """The scenario is known by its name when a session is read from a database."""
        self.begin()
        (session,) = self.command("b2b_logic:list")
        self.assertEqual(session["scenario"], "refer")
        logic: Any = self.wired.server.modules["b2b_logic"]
        self.assertIs(logic.logic_of(logic.sessions[session["key"]], {}), logic)
        self.both_end(self.alice, self.bob)


class PassedTests(Referring):
    """With "top hiding" a REFER passes; its Replaces names the call as the other side knows it."""

    SCENARIO = "top hiding"

    def test_passed(self) -> None:
        """A call of ours is renamed, all else stays."""
        self.begin()
        second = self.consult()
        self.refer(to=f"sip:carol@example.org?{self.replaces(second)}")
        refer = self.alice.one("REFER")
        its = self.carol
        names = f"{its.call_id}%3Bto-tag%3D{its.tag}%3Bfrom-tag%3D{its.peer_tag}"
        self.assertEqual(refer.header("Refer-To"), f"<sip:carol@example.org?Replaces={names}>")
        self.alice.answer(refer, 202)
        self.assertEqual(self.bob.words(), ["202 REFER"])
        self.alice.send("NOTIFY", more="Event: refer\r\nSubscription-State: active\r\n")
        self.bob.answer(self.bob.one("NOTIFY"), 200)
        second.send("BYE")
        self.carol.answer(self.carol.one("BYE"), 200)
        self.bob.got()
        self.both_end(self.alice, self.bob)
