"""Tests of b2b_bridge and its flags, and of b2b_bridge_retry, of sipgw.modules.b2b_logic."""

from __future__ import annotations

from sipgw.sip.sdp import SessionDescription
from tests.modules.b2b_phones import Bridged, port_of, sdp
from tests.modules.calls import CAROL, DAVE


class FlagTests(Bridged):
    """b2b_bridge and its flags."""

    def test_notify(self) -> None:
        """Who has sent the REFER hears how it goes, and is hung up on when it has heard that it went well."""
        self.begin(flags="notify")
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 180)
        self.notified(self.bob, "180 Word")
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()
        self.notified(self.bob, "200 OK")
        bye = self.bob.one("BYE")
        self.bob.answer(bye, 200)
        self.talks(self.alice, self.carol)
        self.both_end(self.carol, self.alice)

    def test_headers(self) -> None:
        """Headers in Refer-To are no part of what is called: no Request-URI may have them (RFC 3261 19.1.1)."""
        self.begin()
        self.refer(to="sip:carol@127.0.0.1:7003?Replaces=x%3Bto-tag%3Da%3Bfrom-tag%3Db")
        invite = self.carol.one("INVITE")
        self.assertEqual((invite.uri, invite.to.uri_text), ("sip:carol@127.0.0.1:7003", "sip:carol@127.0.0.1:7003"))
        self.carol.called(invite)
        self.carol.answer(invite, 200, text=sdp("carol", 3000))
        self.joined()
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.carol, self.alice)

    def test_fails(self) -> None:
        """Without rollback a failure ends all, and Bob hears of it."""
        self.begin(flags="notify")
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 486)
        self.notified(self.bob, "486 Word")
        for one in (self.bob, self.alice):
            one.answer(one.one("BYE"), 200)
        self.ended()

    def test_rollback(self) -> None:
        """With rollback they go on; it can be tried again."""
        self.begin(flags="notify, rollback-failed")
        for _ in range(2):
            self.refer()
            self.notified(self.bob, "100 Trying")
            self.carol.called(self.carol.one("INVITE"))
            self.carol.answer(self.carol.invite, 603)
            self.notified(self.bob, "603 Word")
            self.assertEqual(self.carol.words(), ["ACK"])
            self.talks(self.alice, self.bob)
        self.both_end(self.bob, self.alice)

    def test_rollback_of_who_is_kept(self) -> None:
        """Alice refuses what Carol offers: Carol is hung up on, Alice and Bob go on."""
        self.begin(flags="notify,rollback-failed")
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.alice.answer(self.alice.one("INVITE"), 488)
        self.notified(self.bob, "488 Word")
        ack, bye = self.carol.got()
        self.assertEqual((ack.method, bye.method), ("ACK", "BYE"))
        self.carol.answer(bye, 200)
        self.alice.got()
        self.talks(self.bob, self.alice)
        self.both_end(self.alice, self.bob)

    def test_hold(self) -> None:
        """Alice is put on hold before Carol is called; if she will not, Carol is called all the same."""
        for status in (200, 488):
            self.begin(flags="hold")
            self.refer()
            self.assertEqual(self.sent(CAROL), [])
            hold = self.alice.one("INVITE")
            (stream,) = SessionDescription.parse(hold.body).streams
            self.assertEqual((stream.direction, stream.port), ("inactive", 2000))
            self.alice.answer(hold, status, text=sdp("alice", 1000, 2) if status == 200 else "")
            self.alice.got()
            self.carol_answers()
            self.bob.answer(self.bob.one("BYE"), 200)
            self.both_end(self.alice, self.carol)

    def test_hold_and_rollback(self) -> None:
        """What Alice was told is taken back: she and Bob are joined anew."""
        self.begin(flags="hold,rollback-failed")
        self.refer()
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1000, 2))
        self.alice.got()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 404)
        asked = self.alice.one("INVITE")
        self.assertEqual(asked.body, b"")
        self.alice.answer(asked, 200, text=sdp("alice", 1004, 3))
        again = self.bob.one("INVITE")
        self.assertEqual(port_of(again), 1004)
        self.bob.answer(again, 200, text=sdp("bob", 2002, 2))
        ack = self.alice.one("ACK")
        self.assertEqual((port_of(ack), self.bob.words()), (2002, ["ACK"]))
        origins = [SessionDescription.parse(one.body).session.value("o") for one in (again, ack)]
        self.assertEqual(origins, ["alice 1 2 IN IP4 192.0.2.1", "bob 1 3 IN IP4 192.0.2.1"])
        self.talks(self.alice, self.bob)
        self.both_end(self.alice, self.bob)

    def test_no_late_sdp(self) -> None:
        """Carol is called with what Alice has said; then Alice is asked for an offer, that Carol answers, in the end."""
        self.begin(flags="no-late-sdp")
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.assertEqual(port_of(self.carol.invite), 1000)
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.assertEqual(self.carol.words(), ["ACK"])
        asked = self.alice.one("INVITE")
        self.assertEqual(asked.body, b"")
        self.alice.answer(asked, 200, text=sdp("alice", 1002, 2))
        again = self.carol.one("INVITE")
        self.assertEqual(port_of(again), 1002)
        self.carol.send("INVITE", text=sdp("carol", 3002, 2))
        self.carol.answer(again, 491)
        self.assertIn("491 INVITE", self.carol.words())
        self.carol.refused(self.carol.cseq)
        self.wait(2.05)
        self.assertEqual(self.carol.words(), [])
        self.wait(2)
        again = self.carol.got()[-1]
        self.carol.answer(again, 200, text=sdp("carol", 3000))
        ack = [one for one in self.alice.got() if one.method == "ACK"][-1]
        self.assertEqual((port_of(ack), self.carol.words()), (3000, ["ACK"]))
        self.bob.answer(self.bob.one("BYE"), 200)
        self.talks(self.carol, self.alice)
        self.both_end(self.alice, self.carol)

    def test_media(self) -> None:
        """Alice hears Dave while Carol's phone rings."""
        self.begin(flags="provmedia-extra-headers,notify", media=f"sip:music@127.0.0.1:{DAVE}", act="""
            b2b_send_reply(202, "Accepted");
            $avp(names) = "X-Queue"; $avp(bodies) = "sales";
            b2b_client_new("third", "sip:carol@127.0.0.1:7003", , , , $avp(names), $avp(bodies));
            b2b_bridge("peer", "third", "sip:music@127.0.0.1:7004", "provmedia-extra-headers,notify");
        """)
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.dave.called(self.dave.one("INVITE"))
        self.assertEqual((port_of(self.dave.invite), self.dave.invite.header("X-Queue")), (1002, "sales"))
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        ack = self.alice.one("ACK")
        self.assertEqual((port_of(ack), self.dave.words()), (4000, ["ACK"]))
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.dave.answer(self.dave.one("BYE"), 200)
        self.joined()
        self.notified(self.bob, "200 OK")
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.carol)

    def test_media_refuses(self) -> None:
        """Carol is called all the same if Dave is busy, or silent; Alice has an answer in which nothing flows."""
        for silent in (False, True):
            self.begin(media=f"sip:music@127.0.0.1:{DAVE}")
            self.refer()
            self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
            self.dave.called(self.dave.one("INVITE"))
            if silent:
                self.dave.answer(self.dave.invite, 180)
                self.wait(8.1)
                self.dave.answer(self.dave.one("CANCEL"), 200)
                self.dave.answer(self.dave.invite, 487)
            else:
                self.dave.answer(self.dave.invite, 486)
            ack = [one for one in self.alice.got() if one.method == "ACK"][-1]
            (stream,) = SessionDescription.parse(ack.body).streams
            self.assertEqual((stream.direction, stream.media), ("inactive", "audio"))
            self.carol_answers()
            self.bob.answer(self.bob.one("BYE"), 200)
            self.both_end(self.alice, self.carol)

    def test_media_ends(self) -> None:
        """Dave hangs up, or Alice does, while Carol's phone rings."""
        for who in ("dave", "alice"):
            self.begin(media=f"sip:music@127.0.0.1:{DAVE}")
            self.refer()
            self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
            self.dave.called(self.dave.one("INVITE"))
            self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
            self.carol.called(self.carol.one("INVITE"))
            self.carol.answer(self.carol.invite, 180)
            self.alice.got(), self.dave.got(), self.bob.got()
            if who == "dave":
                self.dave.send("BYE")
                self.assertEqual(self.dave.words(), ["200 BYE"])
                self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
                self.joined()
                self.bob.answer(self.bob.one("BYE"), 200)
                self.both_end(self.alice, self.carol)
            else:
                self.alice.send("BYE")
                self.carol.answer(self.carol.one("CANCEL"), 200)
                self.carol.answer(self.carol.invite, 487)
                for other in (self.dave, self.bob):
                    other.answer(other.one("BYE"), 200)
                self.ended()

    def test_duration(self) -> None:
        """A bridge may say how long it lasts."""
        self.begin(flags="max_duration=50")
        self.refer()
        self.carol_answers()
        self.bob.answer(self.bob.one("BYE"), 200)
        self.wait(50.2)
        for one in (self.alice, self.carol):
            one.answer(one.one("BYE"), 200)
        self.ended()

    def test_meanwhile(self) -> None:
        """While Carol's phone rings no offer passes; Bob may go, and what is asked of nobody is refused."""
        self.begin(flags="rollback-failed")
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 180)
        self.alice.got(), self.bob.got()
        (session,) = self.command("b2b_logic:list")
        self.assertEqual((session["bridge"], [leg["id"] for leg in session["entities"]]), ("calling", ["in", "third", "out"]))
        for who in (self.alice, self.bob):
            who.send("INVITE", text=sdp(who.name, 1, 5))
            self.assertEqual(who.words()[-1], "491 INVITE")
            who.refused(who.cseq)
        self.bob.send("INFO")
        self.assertEqual(self.bob.words(), ["480 INFO"])
        self.refer(more="")
        self.assertEqual(self.bob.words()[-1], "480 REFER")
        self.bob.send("BYE")
        self.assertEqual(self.bob.words(), ["200 BYE"])
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()
        self.both_end(self.alice, self.carol)

    def test_refusals(self) -> None:
        """Entities that are not there, URIs that are none."""
        for act, text in (
            ('b2b_bridge("peer", "none");', "are not an entity"), ('b2b_bridge("who", "third");', "are not an entity"),
            ('b2b_client_new("third", "sip:carol@127.0.0.1:7003"); b2b_bridge("peer", "third", "music");', "is no URI"),
        ):
            self.begin(f'{act} b2b_send_reply(403, "No");')
            self.refer()
            self.assertEqual(self.bob.words(), ["403 REFER"])
            self.assertIn(text, "".join(self.logged()))
            self.both_end(self.alice, self.bob)

    def test_end_leg(self) -> None:
        """b2b_end_dlg_leg hangs up on one, and the other may be joined in the same route; else it ends too."""
        for joined in (True, False):
            self.begin('b2b_send_reply(202, "Accepted"); b2b_end_dlg_leg();' + ("""
                b2b_client_new("third", "sip:carol@127.0.0.1:7003"); b2b_bridge("peer", "third");
            """ if joined else ""))
            self.refer()
            self.bob.answer(self.bob.one("BYE"), 200)
            if joined:
                self.carol_answers()
                self.both_end(self.carol, self.alice)
            else:
                self.alice.answer(self.alice.one("BYE"), 200)
                self.ended()


class EarlyTests(Bridged):
    """Calls that are not answered yet, and those that are refused."""

    TOLD = """
        if ($rs >= 400 && $rm == "INVITE" && $b2b_logic.ctx(tried) == NULL) {
            $b2b_logic.ctx(tried) = "yes";
            b2b_client_new("second", "sip:carol@127.0.0.1:7003");
            if (!b2b_bridge_retry("second")) xlog("L_ALERT", "not so");
            exit;
        }
        b2b_handle_reply();
    """

    def test_retry(self) -> None:
        """Bob is busy: Carol is called with the same offer; her refusal is Alice's."""
        for status in (200, 486):
            self.begin(told=self.TOLD, talk=False)
            self.bob.answer(self.bob.invite, 180)
            self.bob.answer(self.bob.invite, 486)
            self.carol.called(self.carol.one("INVITE"))
            self.assertEqual(port_of(self.carol.invite), 1000)
            self.carol.answer(self.carol.invite, 183, text=sdp("carol", 3000))
            self.assertEqual(self.alice.words(), ["100 INVITE", "180 INVITE", "183 INVITE"])
            self.carol.answer(self.carol.invite, status, text=sdp("carol", 3000) if status == 200 else "")
            (found,) = self.alice.got()
            self.assertEqual(found.status, status)
            self.alice.send("ACK", number=1)
            if status == 200:
                self.assertEqual((port_of(found), self.carol.words()), (3000, ["ACK"]))
                self.both_end(self.carol, self.alice)
            else:
                self.ended()

    def test_retry_of_a_bridge(self) -> None:
        """Carol is busy: Dave is called in her place."""
        self.begin(told=self.TOLD.replace("7003", "7004"), flags="notify")
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 486)
        self.dave.called(self.dave.one("INVITE"))
        self.assertEqual(self.dave.invite.body, b"")
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.assertEqual(port_of(self.dave.one("ACK")), 1002)
        self.notified(self.bob, "100 Trying", "200 OK")
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.dave)

    def test_forgotten(self) -> None:
        """A reply route that does nothing about a refusal does not hold up the bridge."""
        self.begin(told="exit;", talk=False)
        self.bob.answer(self.bob.invite, 200, text=sdp("bob", 2000))
        self.wait(61)
        self.assertIn("408 INVITE", self.alice.words())
        self.alice.send("ACK", number=1)
        self.bob.got()
        self.ended()
        self.begin(told='if ($rs >= 300) exit; b2b_handle_reply();')
        self.refer()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 486)
        for one in (self.bob, self.alice):
            one.answer(one.one("BYE"), 200)
        self.ended()

    def test_caller(self) -> None:
        """While Bob's phone rings Alice is sent to Carol, and hears music until that answers."""
        for media in ("", f"sip:music@127.0.0.1:{DAVE}"):
            self.begin(f"""
                b2b_send_reply(202, "Accepted");
                b2b_client_new("third", "sip:carol@127.0.0.1:7003");
                b2b_bridge("peer", "third", "{media}");
            """, talk=False)
            self.bob.answer(self.bob.invite, 180)
            self.refer()
            words = self.bob.words()
            self.assertEqual(words, ["202 REFER", "CANCEL"])
            self.bob.answer(self.bob.invite, 487)
            self.alice.got()
            if media:
                self.dave.called(self.dave.one("INVITE"))
                self.assertEqual(port_of(self.dave.invite), 1000)
                self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
                (early,) = self.alice.got()
                self.assertEqual((early.status, port_of(early)), (183, 4000))
            self.carol.called(self.carol.one("INVITE"))
            self.assertEqual(port_of(self.carol.invite), 1000)
            self.carol.answer(self.carol.invite, 180)
            self.assertEqual(self.alice.words(), [] if media else ["180 INVITE"])
            self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
            (answered,) = self.alice.got()
            self.assertEqual((answered.status, port_of(answered)), (200, 3000))
            if media:
                _ack, bye = self.dave.got()
                self.dave.answer(bye, 200)
            self.alice.send("ACK", number=1)
            self.assertEqual(self.carol.words(), ["ACK"])
            self.both_end(self.carol, self.alice)
