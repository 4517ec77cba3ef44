"""Tests of sipgw.modules._ua_sessions: calls whose one end is the server, spoken for by a script and by commands."""

from __future__ import annotations

from typing import Any

from sipgw.mi.commands import MIError
from sipgw.sip.message import Request
from sipgw.testing import finished
from tests.modules.calls import ALICE, BOB, Calls
from tests.modules.test_b2b_logic import SDP, body
from tests.proxy.rig import request, response

SCRIPT = """
loadmodule "b2b_entities.so"
%s
route {
    if (is_method("INVITE") && !has_totag()) {
        if (!ua_session_server_init($var(key), "%s", "my call"))
            sl_send_reply(400, "No");
        %s
        exit;
    }
    sl_send_reply(404, "Nothing");
}
event_route[E_UA_SESSION] {
    xlog("L_ALERT", "$param(event_type) $param(entity_type) $param(method) $param(status) $param(reason) $param(extra_params)");
    xlog("L_ALERT", "B=$(param(body){s.len}) H=$(param(headers){s.len})");
    %s
}
"""


class Own(Calls):
    """A server with calls of its own."""

    def serve(self, flags: str = "arbh", begin: str = "", event: str = "", params: str = "") -> None:
        """Start it."""
        self.start(SCRIPT % (params, flags, begin, event))
        self.cseq = {ALICE: 1, BOB: 500}

    @property
    def entities(self) -> Any:
        """The legs that there are."""
        module: Any = self.wired.server.modules["b2b_entities"]
        return module.entities.legs

    def command(self, name: str, **arguments: Any) -> Any:
        """Run a management command; of one that fails its code."""
        try:
            return finished(self.wired.server.commands.call(f"b2b_entities:ua_session_{name}", arguments))
        except MIError as error:
            return error.code

    def told(self) -> list[str]:
        """What the event has said: its first line."""
        self.wait(0)
        return [line.replace("<null>", "").strip() for line in self.logged() if not line.startswith("B=")]

    def dial(self, *, more: str = "", sdp: str = SDP % "alice") -> Any:
        """Alice calls the server; what she receives."""
        data = request("INVITE", extra=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n{more}")
        self.arrive(data.replace(b"Content-Length: 0\r\n\r\n", body(sdp).encode()) if sdp else data)
        return self.sent(ALICE)

    def within(self, to: Any, method: str, *, cseq: int = 0, more: str = "", sdp: str = "") -> None:
        """Alice sends a request in the dialog that ``to`` has made."""
        if not cseq:
            self.cseq[ALICE] += 1
            cseq = self.cseq[ALICE]
        data = request(method, to.contacts[0].uri_text, branch=f"{method}{cseq}", cseq=cseq, to_tag=to.to_tag, extra=more)
        self.arrive(data.replace(b"Content-Length: 0\r\n\r\n", body(sdp).encode()) if sdp else data)

    def from_bob(self, invite: Request, method: str, number: int) -> None:
        """Bob sends a request in the call that ``invite`` has begun."""
        self.arrive((
            f"{method} {invite.contacts[0].uri_text} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP 127.0.0.1:{BOB};branch=z9hG4bK{method}{number}\r\nMax-Forwards: 70\r\n"
            f"From: {invite.header('To')};tag=b1\r\nTo: {invite.header('From')}\r\n"
            f"Call-ID: {invite.call_id}\r\nCSeq: {number} {method}\r\nContent-Length: 0\r\n\r\n"
        ).encode(), BOB)

    def reply(self, to: Any, status: int, port: int = BOB, *, sdp: str = "") -> None:
        """Bob, or Alice, answers."""
        data = response(to, status, extra=f"Contact: <sip:phone@127.0.0.1:{port}>\r\n")
        if to.to_tag:
            data = data.replace(f";tag={to.to_tag};tag=b1".encode(), f";tag={to.to_tag}".encode())
        self.arrive(data.replace(b"Content-Length: 0\r\n\r\n", body(sdp).encode()) if sdp else data, port)

    def sent(self, port: int) -> list[Any]:
        """What the phone at ``port`` received, but for 100."""
        return [one for one in super().sent(port) if isinstance(one, Request) or one.status > 100]

    def gone(self) -> None:
        """Nothing is left, now or later."""
        self.assertEqual(dict(self.entities), {})
        self.settle()


class ServerTests(Own):
    """Calls that come."""

    def answered(self) -> Any:
        """Alice is answered by the script at once, and acknowledges."""
        answer = self.dial()[-1]
        self.assertEqual((answer.status, answer.header("Contact")), (200, "<sip:127.0.0.1:5060>"))
        self.within(answer, "ACK", cseq=1)
        return answer

    ANSWER = 'ua_session_reply($var(key), "INVITE", 180, "Ringing"); ua_session_reply($var(key), "INVITE", 200, "OK", "v=0");'

    def test_answered_by_script(self) -> None:
        """The script answers in its route; then it hears the ACK, answers INFO in the event's route, and hears the BYE."""
        self.serve(begin=self.ANSWER, event="""
            if ($param(method) == "INFO")
                ua_session_reply($param(key), "INFO", 200, "Fine", "hello", "X-One: 1\\r\\n", "text/plain");
        """)
        ringing, answer = self.dial()
        self.assertEqual((ringing.status, ringing.reason, answer.body), (180, "Ringing", b"v=0"))
        self.assertEqual(answer.header("Content-Type"), "application/sdp")
        self.assertTrue((answer.to_tag or "").startswith("B2B."))
        self.within(answer, "ACK", cseq=1)
        self.assertEqual(self.told(), ["NEW UAS INVITE 0  my call", "UPDATED UAS ACK 0"])
        self.within(answer, "INFO")
        self.assertEqual(self.told(), ["UPDATED UAS INFO 0"])
        (info,) = self.sent(ALICE)
        self.assertEqual([info.status, info.reason, info.body, info.header("X-One"), info.header("Content-Type")],
                         [200, "Fine", b"hello", "1", "text/plain"])
        self.within(answer, "BYE")
        self.assertEqual((self.said(ALICE), self.told()), (["200 BYE"], ["TERMINATED UAS BYE 0"]))
        self.gone()

    def test_what_the_event_holds(self) -> None:
        """Headers and body stand in it where they are asked for."""
        for flags, has in (("", (False, False)), ("b", (True, False)), ("h", (False, True)), ("hb", (True, True))):
            self.serve(flags=flags)
            self.dial()
            self.wait(0)
            (line,) = [line for line in self.logged() if line.startswith("B=")]
            sizes = [int(part[2:]) > 0 for part in line.split()]
            self.assertEqual(tuple(sizes), has, flags)
        self.serve(flags="n")
        self.dial()
        self.assertEqual(self.told(), [])

    def test_commands(self) -> None:
        """An operator answers, sends requests of any kind, and hangs up."""
        self.serve()
        self.dial()
        (key,) = self.entities
        self.assertEqual(self.command("reply", key=key, method="INVITE", code=183, reason="Wait", body="v=0"), "OK")
        self.assertEqual(self.command("reply", key=key, method="INVITE", code=200, reason="OK", body="v=1"), "OK")
        wait, answer = self.sent(ALICE)
        self.assertEqual((wait.reason, wait.body, answer.body), ("Wait", b"v=0", b"v=1"))
        self.within(answer, "ACK", cseq=1)
        self.assertEqual(self.command("list", key=key), self.command("list")[0])
        self.assertEqual(self.command("list")[0]["from_uri"], "sip:alice@example.org")
        self.assertEqual(self.command("update", key=key, method="OPTIONS", extra_headers="X-Two: 2"), "OK")
        (options,) = self.sent(ALICE)
        self.assertEqual((options.method, options.header("X-Two"), options.uri), ("OPTIONS", "2", f"sip:alice@127.0.0.1:{ALICE}"))
        self.reply(options, 200, ALICE)
        self.assertEqual(self.command("update", key=key, method="INVITE", body="v=2"), "OK")
        (again,) = self.sent(ALICE)
        self.assertEqual(self.command("update", key=key, method="INVITE", body="v=2"), 500)  # one at a time
        self.reply(again, 200, ALICE)
        self.assertEqual(self.said(ALICE), ["ACK"])
        self.reply(again, 200, ALICE)
        self.assertEqual(self.said(ALICE), ["ACK"])
        self.assertEqual(self.told()[2:], ["ANSWERED UAS OPTIONS 200 Reason", "ANSWERED UAS INVITE 200 Reason"])
        self.assertEqual(self.command("terminate", key=key, extra_headers="Reason: SIP;cause=200\r\n"), "OK")
        (bye,) = self.sent(ALICE)
        self.assertEqual((bye.method, bye.header("Reason")), ("BYE", "SIP;cause=200"))
        self.assertEqual(self.command("terminate", key=key), 500)
        self.reply(bye, 200, ALICE)
        self.gone()
        answer = {"method": "INFO", "code": 200, "reason": ""}
        for name, more in (("terminate", {}), ("update", {"method": "INFO"}), ("reply", answer)):
            self.assertEqual(self.command(name, key=key, **more), 500)
        self.assertEqual((self.command("list", key=key), self.command("list", key="x")), (404, 400))

    def test_nothing_that_breaks_a_head(self) -> None:
        """What would make header lines of its own is refused."""
        self.serve()
        self.dial()
        (key,) = self.entities
        for more in (
            {"extra_headers": "no header"}, {"extra_headers": "X: 1\r\n\r\nbody"}, {"body": "x", "content_type": "a\r\nX: 1"},
        ):
            self.assertEqual(self.command("reply", key=key, method="INVITE", code=200, reason="OK", **more), 500)
        self.assertEqual(self.command("reply", key=key, method="INVITE", code=200, reason="O\r\nK"), 500)
        self.assertEqual(self.command("reply", key=key, method="INVITE", code=99, reason="OK"), 500)
        self.assertEqual(self.command("update", key=key, method="A B"), 500)
        self.assertEqual(self.sent(ALICE), [])

    def test_refused_and_cancelled(self) -> None:
        """A call may be refused, or be given up by who calls."""
        self.serve(begin='ua_session_reply($var(key), "INVITE", 486, "Busy");')
        self.assertEqual([one.status for one in self.dial()], [486])
        self.arrive(request("ACK", to_tag="x"))
        self.assertEqual(self.told(), ["NEW UAS INVITE 0  my call"])
        self.gone()
        self.serve()
        self.dial()
        self.arrive(request("CANCEL"))
        self.assertEqual(self.said(ALICE), ["200 CANCEL", "487"])
        self.arrive(request("ACK", to_tag="x"))
        self.assertEqual(self.told()[1:], ["TERMINATED UAS CANCEL 0"])
        self.gone()

    def test_unanswered_requests(self) -> None:
        """Nobody waits for ever: not for an answer to INFO, not for an ACK, not for the end."""
        self.serve(begin=self.ANSWER)
        answer = self.answered()
        self.within(answer, "INFO")
        self.wait(31)
        self.assertEqual(self.said(ALICE), ["500 INFO"])
        self.within(answer, "INVITE", sdp=SDP % "new")
        self.within(answer, "INVITE", sdp=SDP % "newer")
        self.assertEqual(self.said(ALICE)[-1], "500")
        (key,) = self.entities
        self.command("reply", key=key, method="INVITE", code=200, reason="OK")
        self.wait(33)
        bye = self.sent(ALICE)[-1]
        self.assertEqual(bye.method, "BYE")
        self.reply(bye, 200, ALICE)
        self.gone()
        self.serve(begin=self.ANSWER)
        self.dial()
        self.wait(33)  # no ACK
        bye = self.sent(ALICE)[-1]
        self.assertEqual(bye.method, "BYE")
        self.reply(bye, 200, ALICE)
        self.gone()

    def test_reinvites(self) -> None:
        """Re-INVITEs of the other side are answered or given up; they do not cross ours."""
        self.serve(begin=self.ANSWER)
        answer = self.answered()
        (key,) = self.entities
        self.command("update", key=key, method="INVITE", body="v=0")
        (ours,) = self.sent(ALICE)
        self.within(answer, "INVITE")
        self.assertEqual(self.said(ALICE), ["491"])
        self.within(answer, "ACK", cseq=2)
        self.reply(ours, 491, ALICE)
        self.assertEqual(self.said(ALICE), ["ACK"])
        self.within(answer, "INVITE")
        number = self.cseq[ALICE]
        self.arrive(
            request("CANCEL", answer.contacts[0].uri_text, branch=f"INVITE{number}", cseq=number, to_tag=answer.to_tag), ALICE
        )
        self.assertEqual(self.said(ALICE), ["200 CANCEL", "487"])
        self.within(answer, "ACK", cseq=number)
        self.within(answer, "INVITE", sdp=SDP % "more")
        self.command("reply", key=key, method="INVITE", code=200, reason="OK", body="v=9")
        (again,) = self.sent(ALICE)
        self.assertEqual((again.status, again.body), (200, b"v=9"))
        self.within(answer, "ACK", cseq=self.cseq[ALICE])
        self.within(answer, "BYE")
        self.assertEqual(self.said(ALICE), ["200 BYE"])
        self.gone()

    def test_time_is_up(self) -> None:
        """After ``t`` seconds, or those of ua_default_timeout, a BYE ends it; a call that is not answered is refused."""
        for flags, params in (("t60", ""), ("", 'modparam("b2b_entities", "ua_default_timeout", 60)')):
            self.serve(flags=flags, params=params, begin=self.ANSWER)
            self.answered()
            self.wait(59)
            self.assertEqual(self.said(ALICE), [])
            self.wait(1)
            (bye, *_) = self.sent(ALICE)
            self.assertEqual(bye.method, "BYE")
            self.reply(bye, 200, ALICE)
            self.gone()
        self.serve(flags="t5")
        self.dial()
        self.wait(6)
        self.assertEqual(self.said(ALICE)[0], "408")
        self.arrive(request("ACK", to_tag="x"))
        self.gone()

    def test_dead_peer(self) -> None:
        """A 481 to a request of ours ends the call."""
        self.serve(begin=self.ANSWER)
        self.answered()
        (key,) = self.entities
        self.command("update", key=key, method="INFO")
        (info,) = self.sent(ALICE)
        self.reply(info, 481, ALICE)
        (bye,) = self.sent(ALICE)
        self.assertEqual(bye.method, "BYE")
        self.reply(bye, 481, ALICE)
        self.assertEqual(self.told()[-1], "REJECTED UAS INFO 481 Reason")
        self.gone()

    def test_flags(self) -> None:
        """A flag that there is not is refused when the script is read."""
        with self.assertRaisesRegex(Exception, "no flag 'x'"):
            self.serve(flags="ax")


class ClientTests(Own):
    """Calls that a command begins."""

    def call(self, **more: Any) -> Any:
        """Call Bob; what he receives."""
        self.key = self.command(
            "client_start", ruri=f"sip:bob@127.0.0.1:{BOB}", to="Bob B,sip:bob@example.org", **{"from": "sip:me@example.org"},
            **more,
        )
        found = self.sent(BOB)
        return found[0] if found else None

    def test_whole_call(self) -> None:
        """It rings, is answered, acknowledged, and ended by Bob."""
        self.serve()
        invite = self.call(body="v=0", flags="ar", extra_headers="X-One: 1")
        self.assertEqual(
            [invite.header(name) for name in ("To", "X-One", "Contact", "Content-Type", "Call-ID")],
            ['"Bob B" <sip:bob@example.org>', "1", "<sip:127.0.0.1:5060>", "application/sdp", self.key],
        )
        self.assertEqual(invite.from_.uri_text, "sip:me@example.org")
        self.reply(invite, 180)
        self.reply(invite, 200)
        self.reply(invite, 200)
        self.assertEqual(self.said(BOB), ["ACK", "ACK"])
        self.assertEqual(self.told(), ["EARLY UAC INVITE 180 Reason", "ANSWERED UAC INVITE 200 Reason"])
        self.assertEqual(self.command("update", key=self.key, method="INFO", body="x", content_type="text/plain"), "OK")
        (info,) = self.sent(BOB)
        self.assertEqual((info.header("Content-Type"), info.cseq.number, info.to_tag), ("text/plain", 2, "b1"))
        self.reply(info, 200)
        self.from_bob(invite, "BYE", 501)
        self.assertEqual(self.said(BOB), ["200 BYE"])
        self.assertEqual(self.told(), ["ANSWERED UAC INFO 200 Reason", "TERMINATED UAC BYE 0"])
        self.gone()

    def test_replies_are_told(self) -> None:
        """Without ``r`` they are told as well."""
        self.serve()
        invite = self.call(flags="a")
        self.reply(invite, 180)
        self.reply(invite, 486)
        told = ["EARLY UAC INVITE 180 Reason", "REJECTED UAC INVITE 486 Reason"]
        self.assertEqual((self.said(BOB), self.told()), (["ACK"], told))
        self.gone()

    def test_ack_of_our_own(self) -> None:
        """With ``d`` the ACK waits for its body; so does that of a re-INVITE."""
        self.serve()
        invite = self.call(flags="d")
        self.reply(invite, 200, sdp=SDP % "bob")
        self.assertEqual(self.said(BOB), [])
        self.assertEqual(self.command("update", key=self.key, method="ACK", body="v=5"), "OK")
        (ack,) = self.sent(BOB)
        self.assertEqual((ack.method, ack.body, ack.cseq.number), ("ACK", b"v=5", 1))
        self.assertEqual(self.command("update", key=self.key, method="ACK"), 500)
        self.command("update", key=self.key, method="INVITE")
        (again,) = self.sent(BOB)
        self.reply(again, 200)
        self.assertEqual(self.said(BOB), [])
        self.assertEqual(self.command("update", key=self.key, method="ACK", body="v=6"), "OK")
        (ack,) = self.sent(BOB)
        self.assertEqual((ack.body, ack.cseq.number), (b"v=6", 2))
        self.command("terminate", key=self.key)
        (bye,) = self.sent(BOB)
        self.reply(bye, 200)
        self.gone()

    def test_given_up(self) -> None:
        """A call that is ended while it rings is cancelled; where nobody answers, that is told."""
        self.serve()
        invite = self.call(flags="r")
        self.reply(invite, 180)
        self.assertEqual(self.command("terminate", key=self.key), "OK")
        (cancel,) = self.sent(BOB)
        self.assertEqual(cancel.method, "CANCEL")
        self.reply(cancel, 200)
        self.reply(invite, 487)
        self.assertEqual(self.said(BOB), ["ACK"])
        self.gone()
        self.serve()
        self.call(flags="r")
        self.wait(33)
        self.assertEqual(self.told(), ["REJECTED UAC INVITE 408 Request Timeout"])
        self.gone()

    def test_two_phones_answer(self) -> None:
        """One of them is hung up on."""
        self.serve()
        invite = self.call()
        self.reply(invite, 200)
        self.assertEqual(self.said(BOB), ["ACK"])
        data = response(invite, 200, tag="other", extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n")
        self.arrive(data, BOB)
        ack, bye = self.sent(BOB)
        self.assertEqual((ack.to_tag, bye.method, bye.to_tag), ("other", "BYE", "other"))
        self.reply(bye, 200)
        self.assertEqual(len(self.entities), 1)
        self.command("terminate", key=self.key)
        (bye,) = self.sent(BOB)
        self.assertEqual(bye.to_tag, "b1")
        self.reply(bye, 200)
        self.gone()

    def test_where_we_are(self) -> None:
        """The Contact is the advertised one; the socket must be one of ours."""
        self.serve(params='modparam("b2b_entities", "advertised_contact", "opensips@10.10.10.10:5060")')
        self.assertEqual(self.call(socket="udp:127.0.0.1:5060").header("Contact"), "<sip:opensips@10.10.10.10:5060>")
        self.call(socket="udp:192.0.2.9:5060")
        self.assertEqual(self.key, 500)
        for wrong in ({"to": "nobody"}, {"from": 'a"b,sip:x@y'}, {"from": "sip:x@y\r\nX: 1"}, {"ruri": "x"}):
            arguments = {"ruri": "sip:b@127.0.0.1", "to": "sip:b@x", "from": "sip:a@x"} | wrong
            self.assertEqual(self.command("client_start", **arguments), 400, wrong)
        self.assertEqual(self.command("client_start", **arguments, flags="q"), 400)
