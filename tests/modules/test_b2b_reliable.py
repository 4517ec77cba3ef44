"""Tests of reliable provisional responses (RFC 3262) and UPDATE (RFC 3311) in back-to-back calls (sipgw.b2bua.reliable)."""

from __future__ import annotations

from typing import Any

from sipgw.sip.message import Request
from tests.modules.calls import ALICE, BOB
from tests.modules.test_b2b_logic import SDP, Back
from tests.proxy.rig import request, response

KNOWS = "Supported: 100rel\r\n"
PASSED = 'modparam("b2b_entities", "passthru_prack", 1)'


class Reliable(Back):
    """Calls whose ringing is acknowledged."""

    def sent(self, port: int) -> list[Any]:
        """What the phone at ``port`` received, but for 100."""
        return [one for one in super().sent(port) if isinstance(one, Request) or one.status > 100]

    def ringing(self, number: int | None, *, status: int = 183, sdp: str = "", tag: str = "b1") -> list[Any]:
        """Bob rings, reliably if there is a number; what Alice receives."""
        self.sent(ALICE)
        more = "" if number is None else f"Require: 100rel\r\nRSeq: {number}\r\n"
        data = response(self.invited, status, tag=tag, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n{more}")
        self.arrive(self.message(data, sdp), BOB)
        return self.sent(ALICE)

    def prack(self, to: Any, number: int | None = None, *, sdp: str = "", cseq: int = 0) -> None:
        """Alice acknowledges ``to``."""
        if not cseq:
            self.cseq[ALICE] += 1
            cseq = self.cseq[ALICE]
        rack = to.header("RSeq") if number is None else number
        extra = f"RAck: {rack} 1 INVITE\r\n"
        data = request("PRACK", to.contacts[0].uri_text, branch=f"prack{cseq}", cseq=cseq, to_tag=to.to_tag, extra=extra)
        self.arrive(self.message(data, sdp))

    def bye(self) -> None:
        """Alice answers nothing more; both end."""
        self.hang_up(ALICE)


class OursTests(Reliable):
    """We acknowledge what Bob says (``passthru_prack`` 0)."""

    def test_both(self) -> None:
        """Both sides know them: each has numbers of its own, and Bob's PRACK does not wait for Alice's."""
        self.serve()
        self.dial(more=KNOWS)
        (first,) = self.ringing(41, sdp=SDP % "bob")
        (prack,) = self.sent(BOB)
        self.assertEqual((prack.method, prack.header("RAck"), prack.cseq.number, prack.to_tag), ("PRACK", "41 2 INVITE", 3, "b1"))
        self.assertEqual((first.status, first.header("Require"), first.body.decode()), (183, "100rel", SDP % "bob"))
        self.reply(prack, 200, BOB)
        self.assertEqual(self.ringing(41), [])  # again: neither passed nor acknowledged
        self.assertEqual(self.said(BOB), [])
        self.assertEqual(self.ringing(42, status=180), [])  # waits until the first is acknowledged
        (prack,) = self.sent(BOB)
        self.assertEqual((prack.header("RAck"), prack.cseq.number), ("42 2 INVITE", 4))
        self.reply(prack, 200, BOB)
        self.wait(1.6)
        again = self.sent(ALICE)
        self.assertEqual([one.lines for one in again], [first.lines] * 2)  # after 0.5 and 1.5 seconds
        self.prack(first)
        ok, second = self.sent(ALICE)
        self.assertEqual((ok.status, ok.method, second.status), (200, "PRACK", 180))
        self.assertEqual(int(second.header("RSeq")), int(first.header("RSeq")) + 1)
        self.prack(second)
        self.assertEqual(self.said(ALICE), ["200 PRACK"])
        answer = self.pick_up()
        self.assertIsNone(answer.header("RSeq"))
        self.assertEqual(self.ack.cseq.number, 2)
        self.within("BYE", ALICE)
        (bye,) = self.sent(BOB)
        self.assertEqual(bye.cseq.number, 5)
        self.reply(bye, 200, BOB)
        self.gone()

    def test_caller_alone(self) -> None:
        """Bob knows nothing of them: Alice hears him as he rings; if she demands it, reliably."""
        self.serve()
        self.dial(more=KNOWS)
        (first,) = self.ringing(None)
        self.assertEqual((first.header("Require"), first.header("RSeq")), (None, None))
        self.pick_up()
        self.bye()
        self.serve()
        invite = self.dial(more="Require: 100rel\r\n")
        self.assertEqual((invite.header("Require"), invite.header("Supported")), (None, "100rel"))
        (first,) = self.ringing(None, status=180)
        self.assertEqual((first.status, first.header("Require")), (180, "100rel"))
        self.assertEqual(self.said(BOB), [])
        self.prack(first)
        self.assertEqual(self.said(ALICE), ["200 PRACK"])
        self.pick_up()
        self.bye()

    def test_callee_alone(self) -> None:
        """Alice knows nothing of them: we acknowledge, and she hears him as ever."""
        self.serve()
        invite = self.dial()
        self.assertEqual(invite.header("Supported"), "100rel")
        (first,) = self.ringing(9, sdp=SDP % "bob")
        self.assertEqual((first.header("Require"), first.header("RSeq"), first.body.decode()), (None, None, SDP % "bob"))
        (prack,) = self.sent(BOB)
        self.assertEqual(prack.header("RAck"), "9 2 INVITE")
        self.reply(prack, 200, BOB)
        self.pick_up()
        self.bye()

    def test_offer_in_response(self) -> None:
        """An INVITE without an offer: that of the 183 is answered in Alice's PRACK, which goes to Bob; so does his answer."""
        self.serve()
        invite = self.dial(more=KNOWS, sdp="")
        self.assertEqual(invite.header("Supported"), "100rel")
        (first,) = self.ringing(5, sdp=SDP % "bob")
        self.assertEqual(self.said(BOB), [])
        self.prack(first, sdp=SDP % "alice")
        (prack,) = self.sent(BOB)
        self.assertEqual((prack.header("RAck"), prack.body.decode()), ("5 2 INVITE", SDP % "alice"))
        self.assertEqual(self.said(ALICE), [])
        self.reply(prack, 200, BOB)
        self.assertEqual(self.said(ALICE), ["200 PRACK"])
        self.pick_up()
        self.bye()
        self.serve()
        self.assertIsNone(self.dial(sdp="").header("Supported"))  # who could not answer is not asked
        self.ring()
        self.pick_up()
        self.bye()

    def test_offer_in_prack(self) -> None:
        """A second offer in a PRACK goes to Bob as an UPDATE, and comes back as the answer to the PRACK."""
        self.serve()
        self.dial(more=KNOWS)
        (first,) = self.ringing(5, sdp=SDP % "bob")
        (prack,) = self.sent(BOB)
        self.reply(prack, 200, BOB)
        self.prack(first, sdp=SDP % "more")
        (update,) = self.sent(BOB)
        self.assertEqual((update.method, update.cseq.number, update.body.decode()), ("UPDATE", 4, SDP % "more"))
        self.reply(update, 200, BOB, sdp=SDP % "fine")
        (ok,) = self.sent(ALICE)
        self.assertEqual((ok.status, ok.method, ok.body.decode()), (200, "PRACK", SDP % "fine"))
        self.pick_up()
        self.bye()

    def test_answer_waits(self) -> None:
        """A 2xx waits for the PRACK of a response with a body (section 3); a refusal does not."""
        self.serve()
        self.dial(more=KNOWS)
        (first,) = self.ringing(5, sdp=SDP % "bob")
        (prack,) = self.sent(BOB)
        self.reply(prack, 200, BOB)
        self.arrive(response(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n"), BOB)
        self.assertEqual(self.said(ALICE), [])
        self.prack(first)
        ok, self.answered = self.sent(ALICE)
        self.assertEqual((ok.method, self.answered.status, self.answered.method), ("PRACK", 200, "INVITE"))
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual(self.said(BOB), ["ACK"])
        self.bye()
        self.serve()
        self.dial(more=KNOWS)
        (first,) = self.ringing(5, sdp=SDP % "bob")
        (prack,) = self.sent(BOB)
        self.reply(prack, 200, BOB)
        self.answer(self.invited, 486)
        self.assertEqual((self.said(BOB), self.said(ALICE)), (["ACK"], ["486"]))
        self.arrive(request("ACK", to_tag=first.to_tag))
        self.gone()

    def test_no_prack(self) -> None:
        """Nobody acknowledges: after 64*T1 Alice is refused, and Bob's phone stops to ring."""
        self.serve()
        self.dial(more=KNOWS)
        (first,) = self.ringing(5)
        (prack,) = self.sent(BOB)
        self.reply(prack, 200, BOB)
        self.wait(31)
        self.assertEqual(len(self.sent(ALICE)), 5)
        self.wait(2)
        self.assertEqual(self.said(ALICE)[:2], ["183", "504"])
        self.arrive(request("ACK", to_tag=first.to_tag))
        (cancel, *_) = self.sent(BOB)
        self.assertEqual(cancel.method, "CANCEL")
        self.reply(cancel, 200, BOB)
        self.answer(self.invited, 487)
        self.said(BOB)
        self.gone()

    def test_wrong_pracks(self) -> None:
        """What names nothing that waits is answered 481, and changes nothing."""
        self.serve()
        self.dial(more=KNOWS)
        (first,) = self.ringing(5)
        (prack,) = self.sent(BOB)
        self.reply(prack, 200, BOB)
        self.prack(first, 1)
        self.assertEqual(self.said(ALICE), ["481 PRACK"])
        self.prack(first, cseq=9)
        self.cseq[ALICE] = 9
        self.assertEqual(self.said(ALICE), ["200 PRACK"])
        self.prack(first)
        self.assertEqual(self.said(ALICE), ["481 PRACK"])
        self.pick_up()
        self.bye()

    def test_two_phones(self) -> None:
        """Each phone that rings is acknowledged in a dialog of its own, with CSeq numbers of its own."""
        self.serve()
        self.dial()
        for tag, number in (("b2", 7), ("b3", 1), ("b2", 8), ("b1", 4)):
            self.ringing(number, tag=tag)
            (prack,) = self.sent(BOB)
            self.assertEqual((prack.to_tag, prack.header("RAck")), (tag, f"{number} 2 INVITE"))
            self.assertEqual(prack.cseq.number, 4 if number == 8 else 3)
            self.reply(prack, 200, BOB)
        self.pick_up()
        self.bye()

    def test_own_calls(self) -> None:
        """A call of the server's own: who demands it is told so, and its callee's PRACK is ours."""
        self.start("""
            loadmodule "b2b_entities.so"
            route {
                if (is_method("INVITE")) {
                    ua_session_server_init($var(key));
                    ua_session_reply($var(key), "INVITE", 183, "Wait", "v=0");
                    ua_session_reply($var(key), "INVITE", 200, "OK", "v=0");
                }
            }
        """)
        self.cseq = {ALICE: 1}
        self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\nRequire: 100rel\r\n"))
        (first,) = self.sent(ALICE)
        self.assertEqual((first.status, first.header("Require")), (183, "100rel"))
        self.prack(first)
        ok, answer = self.sent(ALICE)
        self.assertEqual((ok.method, answer.status), ("PRACK", 200))
        self.answered = answer
        self.within("ACK", ALICE, cseq=1)
        self.within("BYE", ALICE)
        self.assertEqual((self.said(ALICE), self.entities), (["200 BYE"], {}))
        key = self.command(
            "b2b_entities:ua_session_client_start", ruri=f"sip:127.0.0.1:{BOB}", to="sip:bob@x", **{"from": "sip:a@x"}
        )
        (self.invited,) = self.sent(BOB)
        self.ringing(3)
        (prack,) = self.sent(BOB)
        self.assertEqual((prack.header("RAck"), prack.call_id), ("3 1 INVITE", key))
        self.reply(prack, 200, BOB)
        self.command("b2b_entities:ua_session_terminate", key=key)
        (cancel,) = self.sent(BOB)
        self.reply(cancel, 200, BOB)
        self.answer(self.invited, 487)
        self.assertEqual(self.entities, {})
        self.settle()


class PassedTests(Reliable):
    """PRACKs go from end to end (``passthru_prack`` 1)."""

    def test_both(self) -> None:
        """Alice's PRACK becomes Bob's, with his numbers; his answer to it is hers."""
        self.serve(params=PASSED)
        self.assertEqual(self.dial(more=KNOWS).header("Supported"), "100rel")
        (first,) = self.ringing(41, sdp=SDP % "bob")
        self.assertEqual(self.said(BOB), [])
        self.prack(first, sdp=SDP % "more")
        (prack,) = self.sent(BOB)
        self.assertEqual((prack.method, prack.header("RAck"), prack.body.decode()), ("PRACK", "41 2 INVITE", SDP % "more"))
        self.reply(prack, 200, BOB, sdp=SDP % "fine")
        (ok,) = self.sent(ALICE)
        self.assertEqual((ok.status, ok.method, ok.body.decode()), (200, "PRACK", SDP % "fine"))
        self.pick_up()
        self.bye()

    def test_demanded(self) -> None:
        """What Alice demands is Bob's to say."""
        self.serve(params=PASSED)
        self.assertEqual(self.dial(more="Require: 100rel\r\n").header("Require"), "100rel")
        self.answer(self.invited, 420, extra="Unsupported: 100rel\r\n")
        self.assertEqual((self.said(BOB), self.said(ALICE)), (["ACK"], ["420"]))

    def test_callee_alone(self) -> None:
        """Alice has not said that she knows them, yet Bob uses them: we acknowledge."""
        self.serve(params=PASSED)
        self.assertIsNone(self.dial().header("Supported"))
        (first,) = self.ringing(9)
        self.assertIsNone(first.header("RSeq"))
        (prack,) = self.sent(BOB)
        self.reply(prack, 200, BOB)
        self.pick_up()
        self.bye()

    def test_through_routes(self) -> None:
        """The script's routes see the PRACK, and pass it on."""
        self.serve(
            'b2b_server_new("a"); b2b_client_new("b", "$ru"); b2b_init_request("x", , "asked");', PASSED,
            'route[asked] { xlog("L_ALERT", "$rm"); b2b_pass_request(); }',
        )
        self.dial(more=KNOWS)
        (first,) = self.ringing(1)
        self.prack(first)
        (prack,) = self.sent(BOB)
        self.assertEqual((self.logged(), prack.header("RAck")), (["PRACK"], "1 2 INVITE"))
        self.reply(prack, 200, BOB)
        self.assertEqual(self.said(ALICE), ["200 PRACK"])
        self.pick_up()


class UpdateTests(Reliable):
    """UPDATE before and after the answer (RFC 3311)."""

    def test_both_ways(self) -> None:
        """Each passes, with a CSeq of its own; the BYE goes on counting."""
        self.serve()
        self.dial()
        ringing = self.ring(183)
        self.answered = ringing
        self.within("UPDATE", ALICE, sdp=SDP % "early")
        (update,) = self.sent(BOB)
        self.assertEqual((update.method, update.cseq.number, update.to_tag), ("UPDATE", 3, "b1"))
        self.assertEqual(update.body.decode(), SDP % "early")
        self.assertEqual(update.header("Contact"), "<sip:127.0.0.1:5060>")
        self.reply(update, 200, BOB, sdp=SDP % "fine")
        (ok,) = self.sent(ALICE)
        self.assertEqual((ok.status, ok.body.decode()), (200, SDP % "fine"))
        self.within("UPDATE", BOB, sdp=SDP % "his")
        (update,) = self.sent(ALICE)
        self.assertEqual((update.to_tag, update.from_tag, update.uri), ("a1", ringing.to_tag, f"sip:alice@127.0.0.1:{ALICE}"))
        self.reply(update, 488, ALICE)
        self.assertEqual(self.said(BOB), ["488 UPDATE"])
        self.pick_up()
        self.within("UPDATE", ALICE)
        (update,) = self.sent(BOB)
        self.assertEqual(update.cseq.number, 4)
        self.reply(update, 200, BOB)
        self.assertEqual(self.said(ALICE), ["200 UPDATE"])
        self.within("BYE", ALICE)
        (bye,) = self.sent(BOB)
        self.assertEqual(bye.cseq.number, 5)
        self.reply(bye, 200, BOB)
        self.gone()
