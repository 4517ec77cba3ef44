"""Tests of callers that enter calls, and of calls of our own: b2b_bridge_request, b2b_trigger_scenario, commands of b2b_logic."""

from __future__ import annotations

from typing import Any

from tests.modules.b2b_phones import Bridged, port_of, sdp
from tests.modules.calls import CAROL, DAVE


class CallerTests(Bridged):
    """b2b_bridge_request: somebody calls in."""

    ENTER = """
        if ($rU == "pickup") {
            cache_fetch("local", "key", $var(key));
            if (!b2b_bridge_request($var(key), %d, , "%s")) sl_send_reply(481, "No such call");
            exit;
        }
        %s
        cache_store("local", "key", "$b2b_logic.key");
    """
    entity = 0
    flags = ""

    def serve(self, begin: str = "", params: str = "", rest: str = "") -> None:
        """The script lets callers in."""
        super().serve(self.ENTER % (self.entity, self.flags, begin), f'loadmodule "cachedb_local.so"\n{params}', rest)

    def enter(
        self, *, entity: int = 0, flags: str = "", params: str = "", talk: bool = True, text: str = sdp("carol", 3000)
    ) -> None:
        """Alice calls Bob, and Carol calls in."""
        self.entity, self.flags = entity, flags
        self.begin(params=params, talk=talk)
        self.carol.call("sip:pickup@example.org", text)

    def test_pickup(self) -> None:
        """Carol takes Bob's place; her offer goes to Alice, and Alice's answer to her."""
        self.enter()
        self.bob.answer(self.bob.one("BYE"), 200)
        again = self.alice.one("INVITE")
        self.assertEqual(port_of(again), 3000)
        self.alice.answer(again, 200, text=sdp("alice", 1002, 2))
        found = [one for one in self.carol.got() if one.status == 200]
        self.assertEqual(port_of(found[0]), 1002)
        self.assertEqual(self.alice.words(), [])
        self.carol.send("ACK", number=1)
        self.assertEqual(self.alice.words(), ["ACK"])
        self.talks(self.carol, self.alice)
        self.both_end(self.alice, self.carol)

    def test_without_offer(self) -> None:
        """A caller without an offer gets that of who is kept, and answers in its ACK."""
        self.enter(entity=1, text="")
        self.alice.answer(self.alice.one("BYE"), 200)
        again = self.bob.one("INVITE")
        self.assertEqual(again.body, b"")
        self.bob.answer(again, 200, text=sdp("bob", 2002, 2))
        self.assertEqual(port_of(next(one for one in self.carol.got() if one.status == 200)), 2002)
        self.carol.send("ACK", number=1, text=sdp("carol", 3000))
        self.assertEqual(port_of(self.bob.one("ACK")), 3000)
        self.both_end(self.carol, self.bob)

    def test_refused(self) -> None:
        """If who is kept refuses, the caller does not get in, and all ends; with late_bye they go on."""
        for flags in ("", "late_bye"):
            self.enter(flags=flags)
            if not flags:
                self.bob.answer(self.bob.one("BYE"), 200)
            self.alice.answer(self.alice.one("INVITE"), 488)
            self.assertIn("488 INVITE", self.carol.words())
            self.carol.send("ACK", number=1)
            self.assertEqual(self.alice.words()[0], "ACK")
            if flags:
                self.talks(self.alice, self.bob)
                self.both_end(self.alice, self.bob)
            else:
                self.ended()

    def test_late_bye(self) -> None:
        """Bob is hung up on two seconds after Alice and Carol talk."""
        self.enter(flags="late_bye", params='modparam("b2b_logic", "old_entity_term_delay", 2)')
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.carol.got()
        self.carol.send("ACK", number=1)
        self.assertEqual((self.alice.words(), self.bob.words()), (["ACK"], []))
        self.wait(2.1)
        self.bob.answer(self.bob.one("BYE"), 200)
        self.both_end(self.alice, self.carol)

    def test_gives_up(self) -> None:
        """Carol cancels, or never acknowledges: what she began ends."""
        for late in ("", "late_bye"):
            self.enter(flags=late)
            again = self.alice.one("INVITE")
            self.carol.send("CANCEL", number=1)
            self.assertIn("487 INVITE", self.carol.words())
            self.carol.send("ACK", number=1)
            self.alice.answer(again, 200, text=sdp("alice", 1002, 2))
            if late:
                ack, asked = self.alice.got()
                self.assertEqual((ack.method, port_of(ack), asked.body), ("ACK", 9, b""))
            if late:  # they are joined anew: Alice was told that nothing flows
                self.alice.answer(asked, 200, text=sdp("alice", 1004, 3))
                self.bob.answer(self.bob.one("INVITE"), 200, text=sdp("bob", 2002, 2))
                self.assertEqual(port_of(self.alice.one("ACK")), 2002)
                self.bob.got()
                self.both_end(self.alice, self.bob)
            else:
                self.ended()

    def test_early(self) -> None:
        """Bob's phone rings: with b2bl_early_update Carol waits until he answers, or an UPDATE has told him already."""
        self.enter(entity=1, talk=False)
        self.assertEqual(self.carol.words(), ["481 INVITE"])
        for status in (200, 405):
            self.enter(entity=1, talk=False, params='modparam("b2b_logic", "b2bl_early_update", 1)')
            self.assertIn("480 INVITE", self.alice.words())
            self.alice.send("ACK", number=1)
            self.bob.answer(self.bob.invite, 180)
            self.assertIn("180 INVITE", self.carol.words())
            self.bob.answer(self.bob.invite, 200, text=sdp("bob", 2000))
            ack, again = self.bob.got()
            self.assertEqual((ack.method, again.method, port_of(again)), ("ACK", "INVITE", 3000))
            self.bob.answer(again, status, text=sdp("bob", 2002, 2) if status == 200 else "")
            self.assertIn(f"{status} INVITE", self.carol.words())
            self.carol.send("ACK", number=1)
            if status == 200:
                self.assertEqual(self.bob.words(), ["ACK"])
                self.both_end(self.carol, self.bob)
            else:
                self.assertEqual(self.bob.words(), ["ACK", "BYE"])
                self.ended()

    def test_update(self) -> None:
        """Bob's phone has rung when Carol calls in: it gets an UPDATE, and if it agrees Carol has his answer at once."""
        for status in (200, 405):
            self.entity, self.flags = 1, ""
            self.begin(params='modparam("b2b_logic", "b2bl_early_update", 1)', talk=False)
            self.bob.answer(self.bob.invite, 180)
            self.alice.got()
            self.carol.call("sip:pickup@example.org", sdp("carol", 3000))
            self.alice.send("ACK", number=1)
            update = self.bob.one("UPDATE")
            self.assertEqual(port_of(update), 3000)
            self.bob.answer(update, status, text=sdp("bob", 2002, 2) if status == 200 else "")
            self.bob.answer(self.bob.invite, 200, text=sdp("bob", 2000))
            if status == 405:
                again = self.bob.got()[-1]
                self.bob.answer(again, 200, text=sdp("bob", 2002, 2))
            found = [one for one in self.carol.got() if one.status == 200]
            self.assertEqual(port_of(found[0]), 2002)
            self.carol.send("ACK", number=1)
            self.assertEqual(self.bob.words(), ["ACK"])
            self.both_end(self.carol, self.bob)

    def test_no_such_call(self) -> None:
        """A key of nobody, a number that is none, a call in the middle of something."""
        self.enter(entity=2)
        self.assertEqual(self.carol.words(), ["481 INVITE"])
        self.carol.send("ACK", number=1)
        self.both_end(self.alice, self.bob)


class OwnTests(Bridged):
    """Calls of our own: b2b_trigger_scenario, by a script and by a command; and commands that bridge."""

    def trigger(self, *, params: str = "", **arguments: Any) -> Any:
        """An operator joins Carol and Dave."""
        self.begin(params=params)
        return self.command("b2b_logic:trigger_scenario", **{
            "scenario_id": "meeting", "entity1": f"first,sip:carol@127.0.0.1:{CAROL}",
            "entity2": f"second,sip:dave@127.0.0.1:{DAVE},Meeting", **arguments,
        })

    def meet(self) -> None:
        """Carol answers with an offer, Dave answers that."""
        self.carol.called(self.carol.one("INVITE"))
        self.assertEqual((self.carol.invite.body, self.carol.invite.from_.uri_text), (b"", f"sip:dave@127.0.0.1:{DAVE}"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.dave.called(self.dave.one("INVITE"))
        self.assertEqual((port_of(self.dave.invite), self.dave.invite.from_.display), (3000, "Meeting"))

    def test_command(self) -> None:
        """Both are called, and talk."""
        self.trigger(context=["room=12"])
        self.meet()
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.assertEqual((port_of(self.carol.one("ACK")), self.dave.words()), (4000, ["ACK"]))
        session = self.command("b2b_logic:list")[-1]
        self.assertEqual((session["scenario"], [leg["id"] for leg in session["entities"]]), ("meeting", ["first", "second"]))
        logic: Any = self.wired.server.modules["b2b_logic"]
        self.assertEqual(logic.sessions[session["key"]].values, {"room": "12"})
        self.talks(self.dave, self.carol)
        self.dave.send("BYE")
        self.carol.answer(self.carol.one("BYE"), 200)
        self.both_end(self.alice, self.bob)

    def test_slow(self) -> None:
        """Dave takes long: Carol has an answer in which nothing flows, and they are joined when he comes."""
        self.trigger()
        self.meet()
        self.wait(8.1)
        self.dave.answer(self.dave.invite, 180)
        self.assertEqual(port_of(self.carol.one("ACK")), 9)
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.dave.got()
        asked = self.carol.one("INVITE")
        self.carol.answer(asked, 200, text=sdp("carol", 3002, 2))
        again = self.dave.one("INVITE")
        self.assertEqual(port_of(again), 3002)
        self.dave.answer(again, 200, text=sdp("dave", 4002, 2))
        self.assertEqual(port_of(self.carol.one("ACK")), 4002)
        self.carol.send("BYE")
        self.dave.answer([one for one in self.dave.got() if one.method == "BYE"][-1], 200)
        self.alice.send("BYE")
        self.bob.answer(self.bob.one("BYE"), 200)
        self.ended()

    def test_refused(self) -> None:
        """The first does not answer, or the second will not."""
        for first in (True, False):
            self.trigger()
            if first:
                self.carol.called(self.carol.one("INVITE"))
                self.carol.answer(self.carol.invite, 486)
            else:
                self.meet()
                self.dave.answer(self.dave.invite, 486)
                ack, bye = self.carol.got()
                self.assertEqual((ack.method, port_of(ack), bye.method), ("ACK", 9, "BYE"))
                self.carol.answer(bye, 200)
            self.assertEqual(self.sent(DAVE)[1:], [])
            self.both_end(self.alice, self.bob)

    def test_nobody_answers(self) -> None:
        """After a minute the call is given up."""
        self.trigger()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 180)
        self.wait(60.2)
        self.carol.answer(self.carol.one("CANCEL"), 200)
        self.carol.answer(self.carol.invite, 487)
        self.both_end(self.alice, self.bob)

    def test_arguments(self) -> None:
        """What is no entity, or no value."""
        for arguments in ({"entity1": "first"}, {"entity2": "x,nonsense"}, {"context": ["room"]}):
            self.assertEqual(self.trigger(**arguments), 400)

    def test_script(self) -> None:
        """A script calls two, and who has asked for it hears how it goes."""
        self.begin(f"""
            b2b_send_reply(202, "Accepted");
            $avp(names) = "X-Room"; $avp(bodies) = "12";
            b2b_trigger_scenario("meeting", "n", "first,sip:carol@127.0.0.1:{CAROL}", $avp(names), $avp(bodies),
                "second,sip:dave@127.0.0.1:{DAVE},,Meeting");
        """)
        self.refer()
        self.notified(self.bob, "100 Trying")
        self.meet()
        self.assertEqual((self.carol.invite.header("X-Room"), self.dave.invite.header("X-Room")), ("12", None))
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.notified(self.bob, "200 OK")
        self.dave.got(), self.carol.got()
        self.dave.send("BYE")
        self.carol.answer(self.carol.one("BYE"), 200)
        self.talks(self.alice, self.bob)
        self.both_end(self.alice, self.bob)

    def test_other_session(self) -> None:
        """The one who hears of it may be an entity of another session."""
        for peer, text in (("first", "a peer is"), (f"first,sip:carol@127.0.0.1:{CAROL}", "")):
            self.begin(f"""
                b2b_send_reply(202, "Accepted");
                b2b_trigger_scenario("meeting", "n,$b2b_logic.key,0", "{peer}", , , "second,sip:dave@127.0.0.1:{DAVE}");
            """)
            self.refer()
            if text:
                self.assertIn(text, "".join(self.logged()))
                self.alice.got()
            else:
                self.notified(self.alice, "100 Trying")
                self.carol.called(self.carol.one("INVITE"))
                self.carol.answer(self.carol.invite, 486)
                self.notified(self.alice, "486 Word")
            self.both_end(self.alice, self.bob)

    def test_bridge(self) -> None:
        """The operator joins a side with Carol, and music plays meanwhile; a leg's name means its other side."""
        self.begin()
        (session,) = self.command("b2b_logic:list")
        leg = session["entities"][1]
        name = f"{leg['callid']};{leg['fromtag']};{leg['totag']}"
        arguments = {"dialog_id": name, "new_uri": f"sip:carol@127.0.0.1:{CAROL}", "prov_media_uri": "nonsense"}
        self.assertEqual(self.command("b2b_bridge", **arguments), 400)
        self.command("b2b_bridge", **{**arguments, "prov_media_uri": f"sip:music@127.0.0.1:{DAVE}"})
        self.bob.answer(self.bob.one("BYE"), 200)
        self.alice.answer(self.alice.one("INVITE"), 200, text=sdp("alice", 1002, 2))
        self.dave.called(self.dave.one("INVITE"))
        self.dave.answer(self.dave.invite, 200, text=sdp("dave", 4000))
        self.alice.got()
        self.carol.called(self.carol.one("INVITE"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.joined()
        _ack, bye = self.dave.got()
        self.dave.answer(bye, 200)
        self.both_end(self.carol, self.alice)

    def test_peer(self) -> None:
        """$b2b_logic.peer names who talks with a leg."""
        self.begin("""
            $var(name) = $ci + ";" + $ft + ";" + $tt;
            xlog("L_ALERT", "$b2b_logic.peer($var(name)) $b2b_logic.peer(nobody)");
            b2b_send_reply(403, "No");
        """)
        (session,) = self.command("b2b_logic:list")
        leg = session["entities"][1]
        self.refer(self.alice)
        self.assertEqual(self.logged(), [f"{leg['callid']};{leg['fromtag']};{leg['totag']} <null>"])
        self.alice.got()
        self.both_end(self.alice, self.bob)
