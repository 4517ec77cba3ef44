"""Tests of sipgw.modules.b2b_logic and b2b_entities: calls of Alice (7001) that we answer and make again to Bob (7002)."""

from __future__ import annotations

from typing import Any

from sipgw.mi.commands import MIError
from sipgw.sip.message import Request
from sipgw.testing import finished
from tests.modules.calls import ALICE, BOB, CAROL, Calls
from tests.proxy.rig import request, response

SCRIPT = """
loadmodule "b2b_entities.so"
loadmodule "b2b_logic.so"
%s
route {
    if (is_method("INVITE") && !has_totag()) {
        %s
        exit;
    }
    sl_send_reply(404, "Nothing");
}
%s
"""
SDP = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=%s\r\nt=0 0\r\n"


def body(text: str) -> str:
    """The end of a head, and a body."""
    return f"Content-Type: application/sdp\r\nContent-Length: {len(text)}\r\n\r\n{text}"


class Back(Calls):
    """A server between Alice and Bob."""

    def serve(self, begin: str = 'b2b_init_request("top hiding");', params: str = "", rest: str = "") -> None:
        """Start it."""
        self.start(SCRIPT % (params, begin, rest))
        self.seen: dict[int, Any] = {}
        self.cseq = {ALICE: 1, BOB: 500}

    @property
    def entities(self) -> Any:
        """The legs that there are."""
        module: Any = self.wired.server.modules["b2b_entities"]
        return module.entities.legs

    def message(self, data: bytes, text: str) -> bytes:
        """``data`` with a body."""
        return data.replace(b"Content-Length: 0\r\n\r\n", body(text).encode()) if text else data

    invited: Any

    def dial(self, *, more: str = "", sdp: str = SDP % "alice", **options: Any) -> Any:
        """Alice calls; what Bob receives."""
        self.sent(BOB)
        extra = f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n{more}"
        self.arrive(self.message(request("INVITE", extra=extra, **options), sdp))
        (self.invited,) = self.sent(BOB)
        return self.invited

    def ring(self, status: int = 180, *, tag: str = "b1", more: str = "") -> Any:
        """Bob's phone rings; what Alice receives."""
        self.sent(ALICE)
        self.answer(self.invited, status, tag=tag, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n{more}")
        found = self.sent(ALICE)
        return found[0] if found else None

    def pick_up(self, *, ack: bool = True, tag: str = "b1", ack_sdp: str = "") -> Any:
        """Bob answers; Alice acknowledges; what she received."""
        self.sent(ALICE)
        data = response(self.invited, 200, tag=tag, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        self.arrive(self.message(data, SDP % "bob"), BOB)
        (self.answered,) = self.sent(ALICE)
        if ack:
            self.within("ACK", ALICE, cseq=1, sdp=ack_sdp)
            (self.ack,) = self.sent(BOB)
        return self.answered

    def within(self, method: str, port: int, *, cseq: int = 0, more: str = "", sdp: str = "", branch: str = "") -> None:
        """One of the two sends a request within its own dialog."""
        if not cseq:
            self.cseq[port] += 1
            cseq = self.cseq[port]
        branch = branch or f"{method}{port}{cseq}"
        if port == ALICE:
            uri = self.answered.contacts[0].uri_text
            data = request(method, uri, branch=branch, cseq=cseq, to_tag=self.answered.to_tag, extra=more)
        else:
            uri = self.invited.contacts[0].uri_text
            data = (
                f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{BOB};branch=z9hG4bK{branch}\r\nMax-Forwards: 70\r\n"
                f"From: {self.invited.to};tag=b1\r\nTo: {self.invited.header('From')}\r\nCall-ID: {self.invited.call_id}\r\n"
                f"CSeq: {cseq} {method}\r\n{more}Content-Length: 0\r\n\r\n"
            ).encode()
        self.arrive(self.message(data, sdp), port)

    def reply(self, to: Any, status: int, port: int, *, sdp: str = "", more: str = "") -> None:
        """The phone at ``port`` answers a request within its dialog."""
        data = response(to, status, extra=more)
        tag = f";tag={to.to_tag}".encode()
        self.arrive(self.message(data.replace(tag + b";tag=b1", tag), sdp), port)

    def talk(self) -> None:
        """A whole call to its ACK."""
        self.dial()
        self.pick_up()
        self.sent(ALICE)

    def hang_up(self, port: int) -> None:
        """One of the two says goodbye; both end."""
        self.within("BYE", port)
        other = BOB if port == ALICE else ALICE
        self.assertEqual(self.said(port), ["200 BYE"])
        (bye,) = self.sent(other)
        self.assertEqual(bye.method, "BYE")
        self.reply(bye, 200, other)
        self.gone()

    def gone(self) -> None:
        """Nothing is left, now or later."""
        self.assertEqual(dict(self.entities), {})
        logic: Any = self.wired.server.modules["b2b_logic"]
        self.assertEqual(logic.sessions, {})
        self.sent(ALICE)
        self.sent(BOB)
        self.settle()
        self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a management command; of one that fails its code."""
        try:
            return finished(self.wired.server.commands.call(name, arguments))
        except MIError as error:
            return error.code


class CourseTests(Back):
    """The built-in scenario."""

    def test_call(self) -> None:
        """Each side has a dialog of its own, and sees nothing of the other."""
        self.serve(params='modparam("b2b_logic", "init_callid_hdr", "X-First")')
        invite = self.dial(more="User-Agent: secret\r\nAllow: INVITE\r\nSupported: 100rel, timer\r\n")
        self.assertTrue(invite.call_id.startswith("B2B."))
        self.assertEqual(
            (invite.cseq.number, invite.max_forwards, invite.from_.uri_text, invite.to.uri_text, len(invite.vias)),
            (2, 69, "sip:alice@example.org", "sip:127.0.0.1:7002", 1),
        )
        passed = [invite.header(name) for name in ("Allow", "Supported", "X-First")]
        self.assertEqual(passed, ["INVITE", "100rel, timer", "call@test"])
        self.assertEqual((invite.body.decode(), invite.header("Contact")), (SDP % "alice", "<sip:127.0.0.1:5060>"))
        self.assertNotIn("secret", "".join(invite.lines))
        self.assertNotEqual(invite.from_tag, "a1")
        ringing = self.ring(183)
        self.assertEqual((ringing.status, ringing.call_id, ringing.from_tag), (183, "call@test", "a1"))
        answer = self.pick_up()
        self.assertTrue((answer.to_tag or "").startswith("B2B."))
        self.assertEqual((ringing.to_tag, answer.header("Contact"), answer.body.decode()), (
            answer.to_tag, "<sip:127.0.0.1:5060>", SDP % "bob"))
        self.assertEqual((self.ack.uri, self.ack.cseq.number), (f"sip:bob@127.0.0.1:{BOB}", 2))
        self.assertEqual(len(self.entities), 2)
        self.hang_up(ALICE)

    def test_callee_hangs_up(self) -> None:
        """The other direction."""
        self.serve()
        self.talk()
        self.hang_up(BOB)

    def test_late_offer(self) -> None:
        """An offer in the 2xx is answered in the ACK; a 2xx that is repeated gets the same ACK again."""
        self.serve()
        self.dial(sdp="")
        self.pick_up(ack=False)
        self.assertEqual(self.said(BOB), [])
        self.within("ACK", ALICE, cseq=1, sdp=SDP % "late")
        (ack,) = self.sent(BOB)
        self.assertEqual(ack.body.decode(), SDP % "late")
        data = response(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        self.arrive(data, BOB)
        (again,) = self.sent(BOB)
        self.assertEqual(again.lines, ack.lines)
        self.hang_up(BOB)

    def test_refused(self) -> None:
        """A failure is passed on, whatever it is; without any answer it is a 408."""
        for status in (302, 404, 486, 503, 603):
            self.serve()
            self.dial()
            self.ring()
            self.answer(self.invited, status)
            self.assertEqual((self.said(BOB), self.said(ALICE)), (["ACK"], [str(status)]))
            self.within_ack()
            self.gone()
        self.serve()
        self.dial()
        self.wait(31)
        self.assertEqual(self.said(ALICE)[-1], "408")
        self.within_ack()
        self.gone()

    def within_ack(self) -> None:
        """Alice acknowledges a failure."""
        self.arrive(request("ACK", to_tag="x"))

    def test_cancel(self) -> None:
        """In every state: before anything has come, while it rings, after the answer."""
        for rings in (False, True):
            self.serve()
            self.dial()
            if rings:
                self.ring()
            self.sent(ALICE)
            self.arrive(request("CANCEL"))
            self.assertEqual(self.said(ALICE), ["200 CANCEL", "487"])
            self.within_ack()
            if not rings:
                self.assertEqual(self.said(BOB), [])
                self.ring()
            (cancel,) = self.sent(BOB)
            self.assertEqual(cancel.method, "CANCEL")
            self.answer(cancel, 200)
            self.answer(self.invited, 487)
            self.gone()
        self.serve()
        self.talk()
        self.arrive(request("CANCEL"))
        self.assertEqual(len(self.entities), 2)
        self.sent(ALICE)
        self.hang_up(ALICE)

    def test_success_crosses_cancel(self) -> None:
        """A 2xx that comes too late is acknowledged and hung up on."""
        self.serve()
        self.dial()
        self.ring()
        self.arrive(request("CANCEL"))
        self.within_ack()
        (cancel,) = self.sent(BOB)
        self.answer(cancel, 200)
        self.answer(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        ack, bye = self.sent(BOB)
        self.assertEqual((ack.method, bye.method), ("ACK", "BYE"))
        self.reply(bye, 200, BOB)
        self.gone()

    def test_no_ack(self) -> None:
        """Without an ACK both are hung up on after 32 seconds."""
        self.serve()
        self.dial()
        self.pick_up(ack=False)
        self.wait(31)
        self.sent(ALICE)
        self.assertEqual(self.said(BOB), [])
        self.wait(1.2)
        self.assertIn("BYE", self.said(ALICE))
        self.assertEqual(self.said(BOB)[:2], ["ACK", "BYE"])
        self.wait(40)
        self.gone()

    def test_bye_before_ack(self) -> None:
        """The callee hangs up before the caller has acknowledged: the caller's BYE waits for that."""
        self.serve()
        self.dial()
        self.pick_up(ack=False)
        self.within("BYE", BOB)
        self.assertEqual(self.said(BOB), ["ACK", "200 BYE"])
        self.assertEqual(self.said(ALICE), [])
        self.within("ACK", ALICE, cseq=1)
        (bye,) = self.sent(ALICE)
        self.reply(bye, 200, ALICE)
        self.gone()

    def test_within(self) -> None:
        """INFO, UPDATE, MESSAGE pass both ways with their bodies and what is answered; others' headers do not."""
        self.serve(
            params='modparam("b2b_logic", "custom_headers", "X-Yes")\n'
            'modparam("b2b_logic", "custom_headers_regexp", "/^y-/i")'
        )
        self.talk()
        for port, other in ((ALICE, BOB), (BOB, ALICE)):
            for method, status in (("INFO", 200), ("UPDATE", 488), ("MESSAGE", 202)):
                self.within(method, port, more="X-Yes: 1\r\nX-No: 2\r\nY-Too: 3\r\n", sdp=SDP % "more")
                (passed,) = self.sent(other)
                self.assertEqual((passed.method, passed.body.decode()), (method, SDP % "more"))
                self.assertEqual([passed.header(name) for name in ("X-Yes", "X-No", "Y-Too")], ["1", None, "3"])
                self.reply(passed, status, other, more="X-Yes: back\r\n")
                (back,) = self.sent(port)
                self.assertEqual((back.status, back.header("X-Yes")), (status, "back"))
        self.hang_up(ALICE)

    def test_reinvite(self) -> None:
        """Both ways: hold, its answer, its ACK."""
        self.serve()
        self.talk()
        for port, other in ((ALICE, BOB), (BOB, ALICE)):
            self.within("INVITE", port, more=f"Contact: <sip:x@127.0.0.1:{port}>\r\n", sdp=SDP % "hold")
            (passed,) = self.sent(other)
            self.assertEqual(passed.body.decode(), SDP % "hold")
            self.sent(port)
            self.reply(passed, 200, other, sdp=SDP % "held", more=f"Contact: <sip:y@127.0.0.1:{other}>\r\n")
            (back,) = self.sent(port)
            self.assertEqual((back.status, back.body.decode(), self.said(other)), (200, SDP % "held", []))
            self.reply(passed, 200, other, more=f"Contact: <sip:y@127.0.0.1:{other}>\r\n")
            self.within("ACK", port, cseq=self.cseq[port])
            (ack,) = self.sent(other)
            self.assertEqual((ack.method, ack.cseq.number), ("ACK", passed.cseq.number))
            self.reply(passed, 200, other, more=f"Contact: <sip:y@127.0.0.1:{other}>\r\n")
            self.assertEqual(self.said(other), ["ACK"])
        self.hang_up(BOB)

    def test_glare(self) -> None:
        """INVITEs that cross are answered 491; each side may try again."""
        self.serve()
        self.talk()
        self.within("INVITE", ALICE)
        (passed,) = self.sent(BOB)
        self.within("INVITE", BOB)
        self.assertEqual(self.said(BOB)[-1], "491")
        self.within("ACK", BOB, cseq=self.cseq[BOB], branch=f"INVITE{BOB}{self.cseq[BOB]}")
        self.within("INVITE", ALICE)
        self.assertIn("500", self.said(ALICE))
        self.reply(passed, 491, BOB)
        self.assertEqual(self.said(ALICE)[-1], "491")
        self.assertEqual(self.said(BOB), ["ACK"])
        self.within("INVITE", BOB)
        (again,) = [message for message in self.sent(ALICE) if isinstance(message, Request)]
        self.reply(again, 200, ALICE, more=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
        self.within("ACK", BOB, cseq=self.cseq[BOB])
        self.wait(40)
        self.sent(ALICE), self.sent(BOB)
        self.hang_up(ALICE)

    def test_bye_in_a_reinvite(self) -> None:
        """A call that ends in the middle of a re-INVITE leaves nothing."""
        for who in (ALICE, BOB):
            self.serve()
            self.talk()
            self.within("INVITE", ALICE)
            (passed,) = self.sent(BOB)
            self.sent(ALICE)
            self.within("BYE", who)
            said = {ALICE: self.said(ALICE), BOB: self.sent(BOB)}
            self.assertIn("487", said[ALICE])
            if who == ALICE:
                (bye,) = said[BOB]
                self.reply(passed, 487, BOB)
                self.reply(bye, 200, BOB)
            else:
                self.reply(passed, 200, BOB, more=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
                self.assertEqual(self.said(BOB), ["ACK"])
            self.wait(40)
            self.gone()

    def test_cancelled_reinvite(self) -> None:
        """A CANCEL of a re-INVITE is passed on."""
        self.serve()
        self.talk()
        self.within("INVITE", ALICE)
        (passed,) = self.sent(BOB)
        self.reply(passed, 100, BOB)
        self.within("CANCEL", ALICE, cseq=self.cseq[ALICE], branch=f"INVITE{ALICE}{self.cseq[ALICE]}")
        (cancel,) = self.sent(BOB)
        self.assertEqual(cancel.method, "CANCEL")
        self.reply(cancel, 200, BOB)
        self.reply(passed, 487, BOB)
        self.assertEqual(self.said(ALICE)[-1], "487")
        self.wait(40)
        self.sent(ALICE), self.sent(BOB)
        self.hang_up(BOB)

    def test_dead_side(self) -> None:
        """A 481 to a request within the call ends it on both sides."""
        self.serve()
        self.talk()
        self.within("INFO", ALICE)
        (info,) = self.sent(BOB)
        self.reply(info, 481, BOB)
        self.assertEqual((sorted(self.said(ALICE)), self.said(BOB)), (["481 INFO", "BYE"], ["BYE"]))
        self.wait(40)
        self.gone()

    def test_two_phones_answer(self) -> None:
        """A proxy behind us has forked, and two 2xx come: the second is hung up on."""
        self.serve()
        self.dial()
        self.ring(tag="b1")
        self.ring(tag="b2")
        self.pick_up()
        self.answer(self.invited, 200, tag="b2", extra=f"Contact: <sip:bob2@127.0.0.1:{CAROL}>\r\n")
        ack, bye = self.sent(CAROL)
        self.assertEqual((ack.method, ack.to_tag, bye.method, bye.to_tag), ("ACK", "b2", "BYE", "b2"))
        self.reply(bye, 200, CAROL)
        self.hang_up(ALICE)

    def test_refusals_of_ours(self) -> None:
        """No hops left, no Contact, a wrong CSeq, a dialog that is not there."""
        self.serve()
        data = request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
        self.arrive(data.replace(b"Forwards: 70", b"Forwards: 0"))
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["483"], []))
        self.serve()
        self.arrive(request("INVITE"))
        self.assertEqual(self.said(ALICE), ["400"])
        self.talk()
        self.within("INFO", ALICE, cseq=8)
        (info,) = self.sent(BOB)
        self.reply(info, 200, BOB)
        self.within("INFO", ALICE, cseq=7)
        self.assertEqual(self.said(ALICE), ["200 INFO", "500 INFO"])
        self.cseq[ALICE] = 10
        for tag in ("B2B.1.2", f"{self.answered.to_tag}x"):
            for method in ("INFO", "BYE", "ACK"):
                self.arrive(request(method, to_tag=tag, cseq=9, branch=f"{tag}{method}"))
        self.assertEqual(self.said(ALICE), ["481 INFO", "200 BYE"] * 2)
        self.arrive(request("BYE", to_tag=self.answered.to_tag or "", cseq=9, branch="z").replace(b"tag=a1", b"tag=a2"))
        self.assertEqual(len(self.entities), 2)
        self.sent(ALICE)
        self.hang_up(ALICE)

    def test_time(self) -> None:
        """A call that is not answered, and one that lasts too long, end."""
        self.serve(params='modparam("b2b_logic", "b2bl_th_init_timeout", 20)\nmodparam("b2b_logic", "max_duration", 100)')
        self.dial()
        self.ring()
        self.wait(21)
        self.assertEqual(self.said(ALICE)[0], "408")
        self.within_ack()
        cancel = self.sent(BOB)[0]
        self.answer(cancel, 200)
        self.answer(self.invited, 487)
        self.gone()
        self.arrive(request("ACK", to_tag="x"))
        self.serve(params='modparam("b2b_logic", "max_duration", 100)')
        self.talk()
        self.wait(99)
        self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
        self.wait(2)
        self.assertEqual((self.said(ALICE)[:1], self.said(BOB)[:1]), (["BYE"], ["BYE"]))
        self.wait(40)
        self.gone()

    def test_commands(self) -> None:
        """The lists, and a call that is ended from outside."""
        self.serve()
        self.talk()
        (session,) = self.command("b2b_logic:list")
        self.assertEqual(session["scenario"], "top hiding")
        legs = self.command("b2be_list")
        self.assertEqual(([leg["type"] for leg in legs], [leg["state"] for leg in legs]), (["server", "client"], ["talking"] * 2))
        leg, other = session["entities"]
        self.assertEqual([leg["key"], other["key"]], [one["key"] for one in legs])
        self.assertEqual([(one["logic_key"], one["mod_name"]) for one in legs], [(session["key"], "b2b_logic")] * 2)
        self.assertEqual((legs[0]["from_tag"], legs[0]["cseq"]), ("a1", {"caller": 1, "callee": 0}))
        self.assertEqual((legs[1]["to_tag"], legs[1]["contact"]["callee"]), ("b1", f"sip:bob@127.0.0.1:{BOB}"))
        self.assertEqual(self.command("b2b_terminate_call", key="x"), 404)
        self.command("b2b_terminate_call", key=f"{leg['callid']};{leg['fromtag']};{leg['totag']}")
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["BYE"], ["BYE"]))
        self.wait(40)
        self.gone()


class PasswordTests(Back):
    """With uac_auth."""

    PARAMS = 'loadmodule "uac_auth.so"\nmodparam("uac_auth", "credential", "me:trunk:secret")\n'
    CHALLENGE = 'WWW-Authenticate: Digest realm="%s", nonce="n", qop="auth"\r\n'

    def challenged(self, realm: str = "trunk") -> Any:
        """Bob's server asks for a password; what it gets then, behind the ACK."""
        self.answer(self.invited, 401, extra=self.CHALLENGE % realm, tag="x")
        return self.sent(BOB)

    def test_invite(self) -> None:
        """The INVITE is sent again, with credentials and the next number, which the ACK has too."""
        self.serve(params=self.PARAMS)
        self.dial()
        ack, again = self.challenged()
        self.assertEqual((ack.method, again.method, again.cseq.number), ("ACK", "INVITE", 3))
        self.assertIn('username="me"', again.header("Authorization"))
        self.assertEqual((again.call_id, again.from_tag), (self.invited.call_id, self.invited.from_tag))
        self.assertEqual(again.body, self.invited.body)
        self.invited = again
        self.pick_up()
        self.assertEqual(self.ack.cseq.number, 3)
        self.within("BYE", ALICE)
        (bye,) = self.sent(BOB)
        self.assertEqual(bye.cseq.number, 4)
        self.reply(bye, 401, BOB, more=self.CHALLENGE % "trunk")
        (bye,) = self.sent(BOB)
        self.assertEqual((bye.method, bye.cseq.number), ("BYE", 5))
        self.assertIn('username="me"', bye.header("Authorization"))
        self.reply(bye, 200, BOB)
        self.gone()

    def test_reinvite(self) -> None:
        """A re-INVITE that is challenged: its ACK has the second number; so has a CANCEL."""
        self.serve(params=self.PARAMS)
        self.talk()
        for cancelled in (False, True):
            self.within("INVITE", ALICE)
            (first,) = self.sent(BOB)
            self.reply(first, 401, BOB, more=self.CHALLENGE % "trunk")
            _ack, again = self.sent(BOB)
            self.sent(ALICE)
            if cancelled:
                self.reply(again, 100, BOB)
                self.within("CANCEL", ALICE, cseq=self.cseq[ALICE], branch=f"INVITE{ALICE}{self.cseq[ALICE]}")
                (cancel,) = self.sent(BOB)
                self.assertEqual((cancel.method, cancel.cseq.number), ("CANCEL", again.cseq.number))
                self.reply(cancel, 200, BOB)
                self.reply(again, 487, BOB)
            else:
                self.reply(again, 200, BOB, more=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
                self.within("ACK", ALICE, cseq=self.cseq[ALICE])
                (ack,) = self.sent(BOB)
                self.assertEqual((ack.method, ack.cseq.number), ("ACK", again.cseq.number))
        self.wait(40)
        self.sent(ALICE), self.sent(BOB)
        self.hang_up(BOB)

    def test_refused(self) -> None:
        """An unknown realm, or a password that is refused time and again, is a failure; a cancelled call sends none."""
        self.serve(params=self.PARAMS)
        self.dial()
        (ack,) = self.challenged("other")
        self.assertEqual((ack.method, self.said(ALICE)[-1]), ("ACK", "401"))
        self.arrive(request("ACK", to_tag="x"))
        self.gone()
        self.serve(params=self.PARAMS)
        self.dial()
        for _ in range(2):
            _ack, self.invited = self.challenged()
        self.assertEqual([message.method for message in self.challenged()], ["ACK"])
        self.assertEqual(self.said(ALICE)[-1], "401")
        self.arrive(request("ACK", to_tag="x"))
        self.gone()
        self.serve(params=self.PARAMS)
        self.dial()
        self.ring()
        self.arrive(request("CANCEL"))
        self.arrive(request("ACK", to_tag="x"))
        (cancel,) = self.sent(BOB)
        self.answer(cancel, 200)
        self.assertEqual([message.method for message in self.challenged()], ["ACK"])
        self.gone()


class LogicTests(Back):
    """Sessions of the script's own."""

    BEGIN = """
        $b2b_logic.ctx(who) = $fU;
        $avp(names) = "X-Extra"; $avp(bodies) = "yes";
        b2b_server_new("in");
        b2b_client_new("out", "sip:bob@127.0.0.1:7002", , "Somebody", , $avp(names), $avp(bodies));
        b2b_init_request("mine", , "asked", "told");
        xlog("L_ALERT", "$b2b_logic.scenario $(b2b_logic.entity(id)[0]) $(b2b_logic.entity(id)[1])");
    """
    REST = """
    route[asked] {
        xlog("L_ALERT", "$rm of $b2b_logic.entity(id) for $b2b_logic.ctx(who)");
        if (is_method("INFO")) { b2b_send_reply(403, "No"); exit; }
        if (is_method("MESSAGE")) { b2b_end_dlg_leg(); exit; }
        b2b_pass_request();
    }
    route[told] {
        xlog("L_ALERT", "$rs of $b2b_logic.entity(id)");
        b2b_handle_reply();
    }
    """

    def test_routes(self) -> None:
        """Requests and replies run their routes, which pass, answer or end."""
        self.serve(self.BEGIN, rest=self.REST)
        invite = self.dial()
        self.assertEqual((invite.uri, invite.header("X-Extra")), ("sip:bob@127.0.0.1:7002", "yes"))
        self.assertEqual(invite.from_.display, "Somebody")
        self.assertEqual(self.logged(), ["mine in out"])
        self.ring()
        self.pick_up()
        self.assertEqual(self.logged(), ["180 of out", "200 of out"])
        self.within("INFO", ALICE)
        self.assertEqual((self.said(ALICE)[-1], self.said(BOB)), ("403 INFO", []))
        self.within("UPDATE", BOB)
        (update,) = self.sent(ALICE)
        self.reply(update, 200, ALICE)
        self.assertEqual(self.said(BOB), ["200 UPDATE"])
        self.assertEqual(self.logged(), ["INFO of in for alice", "UPDATE of out for alice", "200 of in"])
        self.within("MESSAGE", BOB)
        self.assertEqual((sorted(self.said(BOB)), self.said(ALICE)), (["200 MESSAGE", "BYE"], ["BYE"]))
        self.wait(40)
        self.gone()

    def test_keys(self) -> None:
        """Without a field it is the key of an entity."""
        rest = """
        route[asked] {
            $var(mine) = $b2b_logic.entity == $(b2b_logic.entity[1]);
            xlog("L_ALERT", "$b2b_logic.entity $b2b_logic.entity(key) $var(mine)");
            b2b_pass_request();
        }
        """
        self.serve(self.BEGIN.replace(', "told"', "").replace("xlog", "#"), rest=rest)
        self.talk()
        caller, callee = self.entities
        for port, key, second in ((ALICE, caller, "0"), (BOB, callee, "1")):
            self.within("INFO", port)
            self.assertEqual(self.logged(), [f"{key} {key} {second}"])

    def test_hang_up(self) -> None:
        """A BYE that is passed ends both."""
        self.serve(self.BEGIN, rest=self.REST)
        self.talk()
        self.hang_up(BOB)

    def test_silence_ends(self) -> None:
        """A reply route that passes nothing on does not keep a call for ever."""
        self.serve(self.BEGIN, rest=self.REST.replace("b2b_handle_reply();", "exit;"))
        self.dial()
        self.answer(self.invited, 486)
        self.assertEqual(self.said(ALICE), ["100"])
        self.wait(61)
        self.assertEqual(self.said(ALICE)[-1], "408")
        self.arrive(request("ACK", to_tag="x"))
        self.gone()

    def test_errors(self) -> None:
        """Entities that are missing, URIs and routes that are none, functions outside of their routes."""
        for begin, text in (
            ('b2b_init_request("mine");', "make the entities first"),
            ('b2b_server_new("a"); b2b_client_new("b", "nonsense");', "is no URI"),
            ('b2b_server_new("a"); b2b_client_new("b", "sip:b@h"); b2b_init_request("m", , "none");', "no route[none]"),
            ("b2b_pass_request();", "for the routes of a session"), ("b2b_handle_reply();", "for the routes of a session"),
            ('b2b_bridge("this", "x");', "for the routes of a session"),
            ('b2b_send_reply(200, "OK");', "for the routes of a session"), ("b2b_end_dlg_leg();", "for the routes of a session"),
        ):
            self.serve(begin)
            self.arrive(request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n"))
            (line,) = self.logged()
            self.assertIn(text, line)
        for begin, params, text in (
            ('b2b_init_request("top hiding", "quickly");', "", "no flag 'quickly'"),
            ("", 'modparam("b2b_logic", "db_mode", 3)', "write 0"),
            ("", 'modparam("b2b_logic", "custom_headers", "a b")', "no name of a header"),
            ('b2b_bridge("this", "x", , "quickly");', "", "no flag 'quickly'"),
        ):
            with self.assertRaisesRegex(AssertionError, text):
                self.serve(begin, params)


class BridgeTests(Back):
    """A leg that is joined with somebody else."""

    REST = """
    route[asked] {
        if (is_method("REFER")) {
            b2b_send_reply(202, "Accepted");
            b2b_client_new("third", "$(hdr(Refer-To){nameaddr.uri})");
            if (!b2b_bridge("peer", "third")) xlog("L_ALERT", "not so");
            exit;
        }
        if (is_method("BYE") && $b2b_logic.entity(id) == "out") {
            b2b_delete_entity();
            b2b_client_new("third", "sip:carol@127.0.0.1:7003");
            b2b_bridge("peer", "third");
            exit;
        }
        b2b_pass_request();
    }
    """
    BEGIN = LogicTests.BEGIN.replace(', "told"', "")

    def pick_up_third(self, to: Any, port: int = ALICE) -> None:
        """Carol answers with an offer, who was kept with an answer; all is acknowledged."""
        self.assertEqual((to.method, to.body), ("INVITE", b""))
        data = response(to, 200, tag="c1", extra=f"Contact: <sip:carol@127.0.0.1:{CAROL}>\r\n")
        self.sent(port)
        self.arrive(self.message(data, SDP % "carol"), CAROL)
        (again,) = self.sent(port)
        self.assertEqual((again.method, again.body.decode()), ("INVITE", (SDP % "carol").replace("1 1 IN", "1 2 IN")))
        self.assertEqual(self.said(CAROL), [])
        self.reply(again, 200, port, sdp=SDP % "kept", more=f"Contact: <sip:kept@127.0.0.1:{port}>\r\n")
        (ack,) = self.sent(CAROL)
        self.assertEqual((ack.method, ack.body.decode(), self.said(port)), ("ACK", SDP % "kept", ["ACK"]))

    def begin(self) -> None:
        """Alice and Bob talk."""
        self.serve(self.BEGIN, rest=self.REST)
        self.talk()
        self.logged()

    def test_refer(self) -> None:
        """Bob sends Alice on to Carol, and is hung up on when they talk."""
        self.begin()
        self.within("REFER", BOB, more=f"Refer-To: <sip:carol@127.0.0.1:{CAROL}>\r\n")
        self.assertEqual(self.said(BOB), ["202 REFER"])
        (invite,) = self.sent(CAROL)
        self.assertEqual((invite.uri, invite.from_.uri_text), (f"sip:carol@127.0.0.1:{CAROL}", "sip:alice@example.org"))
        self.pick_up_third(invite)
        (bye,) = self.sent(BOB)
        self.assertEqual(bye.method, "BYE")
        self.reply(bye, 200, BOB)
        self.assertEqual(len(self.entities), 2)
        self.within("INFO", ALICE)
        (info,) = self.sent(CAROL)
        self.arrive(response(info, 200).replace(b";tag=c1;tag=b1", b";tag=c1"), CAROL)
        self.assertEqual(self.said(ALICE), ["200 INFO"])
        self.within("BYE", ALICE)
        (bye,) = self.sent(CAROL)
        self.arrive(response(bye, 200).replace(b";tag=c1;tag=b1", b";tag=c1"), CAROL)
        self.assertEqual(self.said(ALICE), ["200 BYE"])
        self.gone()

    def test_callee_has_gone(self) -> None:
        """Bob hangs up, and Alice goes on with Carol."""
        self.begin()
        self.within("BYE", BOB)
        self.assertEqual(self.said(BOB), ["200 BYE"])
        (invite,) = self.sent(CAROL)
        self.pick_up_third(invite)
        self.within("BYE", ALICE)
        self.assertEqual(self.said(CAROL), ["BYE"])
        self.wait(40)
        self.gone()

    def test_refusals(self) -> None:
        """If Carol, or Alice, will not, or Alice hangs up meanwhile, all ends."""
        for who in ("carol", "alice", "bye"):
            self.begin()
            self.within("REFER", BOB, more=f"Refer-To: <sip:carol@127.0.0.1:{CAROL}>\r\n")
            (invite,) = self.sent(CAROL)
            if who == "carol":
                self.answer(invite, 486, CAROL)
                self.assertIn("BYE", self.said(ALICE))
            elif who == "bye":
                self.answer(invite, 180, CAROL)
                self.within("BYE", ALICE)
                cancel = self.sent(CAROL)[-1]
                self.assertEqual(cancel.method, "CANCEL")
                self.answer(cancel, 200, CAROL)
                self.answer(invite, 487, CAROL)
            else:
                self.answer(invite, 200, CAROL, extra=f"Contact: <sip:carol@127.0.0.1:{CAROL}>\r\n")
                again = self.sent(ALICE)[-1]
                self.reply(again, 488, ALICE)
                self.assertEqual(self.said(CAROL), ["ACK", "BYE"])
            self.wait(40)
            self.sent(CAROL)
            self.gone()

    def test_command(self) -> None:
        """The operator joins the callee, or the caller, with somebody else; not while it rings."""
        for flag, port, left in ((1, BOB, ALICE), (0, ALICE, BOB)):
            self.serve()
            self.dial()
            (session,) = self.command("b2b_logic:list")
            target = {"dialog_id": session["key"], "new_uri": f"sip:carol@127.0.0.1:{CAROL}", "flag": flag}
            self.assertEqual(self.command("b2b_bridge", **target), 500)
            self.pick_up()
            self.sent(ALICE)
            self.assertEqual(self.command("b2b_bridge", **{**target, "dialog_id": "x"}), 404)
            self.assertEqual(self.command("b2b_bridge", **{**target, "new_uri": "x"}), 400)
            self.command("b2b_bridge", **target)
            self.assertEqual(self.said(left), ["BYE"])
            (invite,) = self.sent(CAROL)
            self.answer(invite, 180, CAROL, tag="c1")
            self.wait(58)
            self.pick_up_third(invite, port)
            self.command("b2b_terminate_call", key=session["key"])
            self.assertEqual((self.said(port), self.said(CAROL)), (["BYE"], ["BYE"]))
            self.wait(40)
            self.sent(CAROL)
            self.gone()
