"""Tests of the back-to-back recipes in ``examples``, run as they are: phones at 127.0.0.1:5080, a media server at 5090."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sipgw.testing import Phone, Wire, WiredServer
from tests.doubles import Reactor
from tests.modules.b2b_phones import Bridged, Dialog, port_of, sdp
from tests.modules.calls import ALICE, BOB, CAROL, DAVE

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PHONES, MEDIA = 5080, 5090


class Recipe(Bridged):
    """One of them."""

    def run_example(self, name: str) -> None:
        """Start it."""
        self.wired = WiredServer(file=str(EXAMPLES / name), wire=Wire(Reactor()))
        self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB, CAROL, DAVE, PHONES, MEDIA)}
        self.alice = Dialog(self, ALICE, "alice")
        self.bob, self.carol = Dialog(self, PHONES, "bob"), Dialog(self, PHONES, "carol")
        self.dave = Dialog(self, MEDIA, "dave")

    def answered(self, who: Dialog, offer: str | None = None) -> None:
        """Somebody at our next hops is called, with an offer or without one, and picks up."""
        who.called([one for one in who.got() if one.method == "INVITE"][-1])
        who.answer(who.invite, 200, text=sdp(who.name, who.port) if offer is None else offer)

    def connected(self, caller: Dialog, uri: str, callee: Dialog) -> None:
        """A call."""
        caller.call(uri, sdp(caller.name, caller.port))
        self.answered(callee)
        caller.got()
        caller.send("ACK", number=1)
        self.assertEqual(callee.words(), ["ACK"])

    def offered(self, who: Dialog) -> Any:
        """Somebody who talks gets a re-INVITE, and agrees; what it was."""
        invite = [one for one in who.got() if one.method == "INVITE"][-1]
        who.answer(invite, 200, text=sdp(who.name, who.port, who.cseq + 1))
        return invite

    def over(self, *who: Dialog) -> None:
        """These are hung up on; nothing is left."""
        for one in who:
            one.answer([found for found in one.got() if found.method == "BYE"][-1], 200)
        self.wait(40)
        for port in self.phones:
            self.sent(port)
        self.assertEqual(dict(self.entities), {})
        self.settle()
        self.assertEqual([text for level, text in self.wired.lines if level <= -1], [])


class RecipeTests(Recipe):
    """All of them."""

    def test_refer(self) -> None:
        """A transfer, and one that local_route does not let out."""
        self.run_example("b2bua-refer.cfg")
        self.connected(self.alice, "sip:bob@example.org", self.bob)
        self.refer(self.bob, "sip:0049@example.org")
        found = self.bob.got()
        self.assertEqual([one.body for one in found if one.method == "NOTIFY"], [b"SIP/2.0 403 Forbidden\r\n"])
        self.bob.answer(found[-1], 200)
        self.refer(self.bob, "sip:carol@example.org")
        found = self.bob.got()
        for one in found:
            if one.method == "NOTIFY":
                self.bob.answer(one, 200)
        self.carol.called(next(one for one in found if one.method == "INVITE"))
        self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
        self.assertEqual(port_of(self.offered(self.alice)), 3000)
        found = [one for one in self.bob.got() if one.method == "NOTIFY"]
        self.assertEqual(found[-1].body, b"SIP/2.0 200 OK\r\n")
        self.bob.answer(found[-1], 200)
        self.bob.answer(self.bob.got()[-1], 200)
        self.alice.got()
        self.alice.send("BYE")
        self.over(self.carol)

    def park(self) -> None:
        """Bob parks Alice."""
        self.run_example("b2bua-parking.cfg")
        self.connected(self.alice, "sip:bob@example.org", self.bob)
        self.refer(self.bob, "sip:701@example.org")
        self.notified(self.bob, "100 Trying")
        self.answered(self.dave)
        self.assertEqual(port_of(self.offered(self.alice)), MEDIA)
        self.alice.got()
        self.assertEqual(self.dave.words(), ["ACK"])
        self.notified(self.bob, "200 OK")
        self.bob.answer(self.bob.one("BYE"), 200)

    def test_parking(self) -> None:
        """Somebody takes the call up; the place is free then."""
        self.park()
        taker = Dialog(self, CAROL, "taker")
        taker.call("sip:701@example.org", sdp("taker", CAROL))
        self.dave.answer(self.dave.one("BYE"), 200)
        self.assertEqual(port_of(self.offered(self.alice)), CAROL)
        answer = [one for one in taker.got() if one.status == 200][-1]
        self.assertEqual(port_of(answer), ALICE)
        taker.send("ACK", number=1)
        self.assertEqual(self.alice.words(), ["ACK"])
        other = Dialog(self, DAVE, "other")
        other.call("sip:701@example.org", sdp("other", DAVE))
        self.assertEqual(other.words(), ["404 INVITE"])
        other.refused()
        taker.send("BYE")
        self.over(self.alice)

    def test_parked_too_long(self) -> None:
        """Nobody comes: it ends after five minutes."""
        self.park()
        self.wait(300.1)
        self.over(self.alice, self.dave)

    def test_prepaid(self) -> None:
        """The balance, music, the callee; or somebody who is sorry."""
        for busy in (False, True):
            self.run_example("b2bua-prepaid.cfg")
            self.connected(self.alice, "sip:bob@example.org", self.dave)
            self.assertEqual(self.dave.invite.uri, f"sip:balance@127.0.0.1:{MEDIA}")
            self.dave.send("BYE")
            self.assertEqual(self.dave.words(), ["200 BYE"])
            self.offered(self.alice)
            music = Dialog(self, MEDIA, "music")
            self.answered(music)
            self.assertEqual(music.words(), ["ACK"])
            self.bob.called(self.bob.one("INVITE"))
            self.assertEqual(self.bob.invite.uri, f"sip:bob@127.0.0.1:{PHONES}")
            who = self.bob
            if busy:
                self.bob.answer(self.bob.invite, 486)
                self.assertEqual(self.bob.words(), ["ACK"])
                who = Dialog(self, MEDIA, "sorry")
                who.called(who.one("INVITE"))
                self.assertEqual(who.invite.uri, f"sip:sorry@127.0.0.1:{MEDIA}")
            else:
                self.bob.answer(self.bob.invite, 180)
            who.answer(who.invite, 200, text=sdp(who.name, 3000))
            music.answer([one for one in self.sent(MEDIA) if one.method == "BYE"][-1], 200)
            self.assertEqual(port_of(self.offered(self.alice)), 3000)
            self.alice.got(), who.got()
            if busy:
                who.send("BYE")
                self.over(self.alice)
            else:
                self.wait(601)
                self.over(self.alice, who)

    def test_marketing(self) -> None:
        """The customer hears an offer, presses 1, and talks with the agent; or hears the offer again, if that one is busy."""
        for busy in (True, False):
            self.run_example("b2bua-marketing.cfg")
            self.command(
                "b2b_logic:trigger_scenario", scenario_id="marketing", entity1=f"customer,sip:bob@127.0.0.1:{PHONES}",
                entity2=f"offer,sip:offer@127.0.0.1:{MEDIA}", context=[f"agent=sip:anna@127.0.0.1:{PHONES}"],
            )
            self.answered(self.bob)
            self.answered(self.dave)
            self.assertEqual((port_of(self.bob.one("ACK")), self.dave.words()), (MEDIA, ["ACK"]))
            text = "Signal= 1\r\nDuration= 160\r\n"
            more = f"Content-Type: application/dtmf-relay\r\nContent-Length: {len(text)}\r\n\r\n{text}"
            self.bob.cseq += 1
            self.arrive(f"{self.bob.heads('INFO', self.bob.cseq, 'key')}{more}".encode(), PHONES)
            found = self.bob.got()
            self.carol.called(next(one for one in found if one.method == "INVITE"))
            self.assertEqual((self.carol.invite.uri, port_of(self.carol.invite)), (f"sip:anna@127.0.0.1:{PHONES}", PHONES))
            if busy:
                self.carol.answer(self.carol.invite, 486)
                self.carol.got()
                self.talks(self.dave, self.bob)
                self.bob.send("BYE")
                self.over(self.dave)
            else:
                self.carol.answer(self.carol.invite, 200, text=sdp("carol", 3000))
                self.offered(self.bob)
                self.carol.answer([one for one in self.carol.got() if one.method == "INVITE"][-1], 200, text=sdp("carol", 3000))
                self.dave.answer(self.dave.one("BYE"), 200)
                self.sent(PHONES)
                self.bob.send("BYE")
                self.over(self.carol)
