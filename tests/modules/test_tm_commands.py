"""Tests of what tm does when asked from outside, or of its own: management commands, requests of our own, routes that look on."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from sipgw.mi.jsonrpc import MIError
from sipgw.modules.tm import Tm
from sipgw.testing import FakeServer, finished
from tests.modules.calls import ALICE, BOB, CAROL, Calls
from tests.proxy.rig import request, response

HEADERS = "From: sip:bobster@127.0.0.1:1337\r\nTo: sip:alice@127.0.0.1:7002\r\nContact: sip:bobster@127.0.0.1:1337\r\n"


class Commanded(Calls):
    """A server that is given management commands."""

    def command(self, name: str, *positional: Any, **named: Any) -> Deferred[Any]:
        """Call one; it may have to wait."""
        return Deferred.fromCoroutine(self.wired.server.commands.call(name, list(positional) or named or None))

    def refused(self, name: str, *positional: Any, **named: Any) -> tuple[int, str]:
        """The code and text of what one answers when it fails."""
        error = self.failureResultOf(self.command(name, *positional, **named), MIError).value
        return error.code, error.data or error.message

    def dialog(self, **changed: Any) -> Deferred[Any]:
        """``uac_dlg`` with these parameters instead of the usual ones; those that are None are left out."""
        named = {"method": "OPTIONS", "ruri": "sip:a@127.0.0.1:7002", "headers": HEADERS, **changed}
        return self.command("tm:uac_dlg", **{key: value for key, value in named.items() if value is not None})


class UacDlgTests(Commanded):
    """tm:uac_dlg, a request of our own."""

    def setUp(self) -> None:
        self.start('route { exit; }\nlocal_route { append_hf("X-Local: $rm $du\\r\\n"); if ($rm == "REFER") drop; }')

    def test_answered(self) -> None:
        """It waits for the final response and gives its status, and all behind the status line."""
        waiting = self.command("t_uac_dlg", method="OPTIONS", ruri="sip:a@127.0.0.1:7002", headers=HEADERS)
        (bob,) = self.sent(BOB)
        bob.check()
        self.assertEqual((bob.uri, bob.cseq.number), ("sip:a@127.0.0.1:7002", 10))
        self.assertRegex(bob.header("From"), "^<sip:bobster@127.0.0.1:1337>;tag=.+")
        self.assertEqual((bob.header("Contact"), bob.header("X-Local")), ("sip:bobster@127.0.0.1:1337", "OPTIONS <null>"))
        self.answer(bob, 180)
        self.assertNoResult(waiting)
        self.answer(bob, 200, extra="X-Answer: 1\r\n")
        result = self.successResultOf(waiting)
        self.assertEqual((list(result), result["Status"]), (["Status", "Message"], "200 Reason"))
        via, *_, answer, length, blank, end = result["Message"].split("\r\n")
        self.assertTrue(via.startswith("Via: SIP/2.0/UDP 127.0.0.1:5060;"))
        self.assertEqual((answer, length, blank, end), ("X-Answer: 1", "Content-Length: 0", "", ""))
        self.settle()

    def test_given(self) -> None:
        """Its headers may say Call-ID, CSeq, tags and all else; it may go elsewhere, and have a body."""
        headers = (
            'From: "B" <sip:b@127.0.0.1>;tag=abc\r\nt: "A" <sip:a@127.0.0.1>;tag=def\r\nCall-ID: mine\r\nCSeq: 77 MESSAGE\r\n'
            "Content-Type: text/plain\r\nContent-Length: 99\r\nMax-Forwards: 5\r\nX-Own: 1"
        )
        waiting = self.dialog(
            method="MESSAGE", headers=headers, next_hop="sip:127.0.0.1:7003", socket="udp:127.0.0.1:5060", body="h\u00e9"
        )
        (carol,) = self.sent(CAROL)
        carol.check()
        self.assertEqual((carol.body, carol.header("Content-Length")), ("h\u00e9".encode(), "3"))
        self.assertEqual([carol.header(name) for name in ("From", "To", "Call-ID", "CSeq", "Max-Forwards", "X-Own", "X-Local")], [
            '"B" <sip:b@127.0.0.1>;tag=abc', '"A" <sip:a@127.0.0.1>;tag=def', "mine", "77 MESSAGE", "70", "1",
            "MESSAGE sip:127.0.0.1:7003",
        ])
        self.arrive(response(carol, 404).replace(b";tag=def;tag=b1", b";tag=def"), CAROL)
        self.assertEqual(self.successResultOf(waiting)["Status"], "404 Reason")
        self.settle()

    def test_silence(self) -> None:
        """Nobody answers: 408, and there is no message to show."""
        waiting = self.dialog()
        self.wait(31)
        self.assertEqual(self.successResultOf(waiting), {"Status": "408 Request Timeout"})
        self.settle()

    def test_invite(self) -> None:
        """A success is acknowledged, each time that it comes; tm:uac_cancel cancels."""
        waiting = self.dialog(method="INVITE")
        (bob,) = self.sent(BOB)
        for _ in range(2):
            self.answer(bob, 200, extra="Contact: <sip:there@127.0.0.1:7002>\r\nRecord-Route: <sip:127.0.0.1:7003;lr>\r\n")
            (ack,) = self.sent(CAROL)
            self.assertEqual((ack.method, ack.uri, ack.header("Route")), (
                "ACK", "sip:there@127.0.0.1:7002", "<sip:127.0.0.1:7003;lr>",
            ))
            ack.check()
        self.assertEqual(self.successResultOf(waiting)["Status"], "200 Reason")
        waiting = self.dialog(method="INVITE", headers=HEADERS + "Call-ID: mine\r\n")
        (bob,) = self.sent(BOB)
        self.assertEqual(self.refused("tm:uac_cancel", "mine", "11"), (481, "No such transaction"))
        self.assertEqual(self.refused("tm:uac_cancel", "other", "10 INVITE"), (481, "No such transaction"))
        self.assertEqual(self.refused("tm:uac_cancel", "mine", "x"), (400, "Invalid cseq"))
        self.assertEqual(self.successResultOf(self.command("t_uac_cancel", "mine", "10 INVITE")), "OK")
        self.assertEqual(self.said(BOB), [])
        self.answer(bob, 180)
        self.assertEqual(self.said(BOB), ["CANCEL"])
        self.assertEqual(self.refused("tm:uac_cancel", "mine", "10"), (481, "No such transaction"))
        self.answer(bob, 487)
        self.assertEqual(self.successResultOf(waiting)["Status"], "487 Reason")
        self.settle()

    def test_rings_for_ever(self) -> None:
        """One that only rings is cancelled in the end."""
        waiting = self.dialog(method="INVITE")
        (bob,) = self.sent(BOB)
        self.answer(bob, 180)
        self.wait(121)
        self.assertEqual(self.successResultOf(waiting), {"Status": "408 Request Timeout"})
        self.assertEqual(self.said(BOB)[0], "CANCEL")
        self.settle()

    def test_refused(self) -> None:
        """What is wrong is said, and nothing is sent; the parameters must be named."""
        bad = (
            ({"headers": "From: sip:a@b\r\n"}, (400, "To missing")),
            ({"headers": "To: sip:a@b\r\n"}, (400, "From missing")),
            ({"headers": "garbage"}, (400, "Bad headers")),
            ({"headers": HEADERS + "CSeq: 1 INVITE\r\n"}, (400, "Bad headers")),
            ({"headers": HEADERS + "Call-ID: a b\r\n"}, (400, "Bad headers")),
            ({"headers": "From: <sip:a@b\r\nTo: <sip:c@d>\r\n"}, (400, "Bad headers")),
            ({"headers": HEADERS + "\r\nbody"}, (400, "Bad headers")),
            ({"body": "x"}, (400, "Content-Type missing")),
            ({"ruri": "nouri"}, (400, "Invalid ruri")),
            ({"ruri": "sip:a@b\r\nX: y"}, (400, "Invalid ruri")),
            ({"next_hop": "nohop"}, (400, "Invalid next_hop")),
            ({"socket": "udp:1.2.3.4:5060"}, (404, "Local socket not found")),
            ({"method": "OPT IONS"}, (400, "Invalid method")),
            ({"method": "ACK"}, (400, "Invalid method")),
            ({"ruri": "sip:a@nowhere.invalid"}, (476, "Unresolvable destination (476/MI/UAC)")),
            ({"ruri": "sip:a@127.0.0.1;transport=tcp"}, (500, "Server error occurred (7/MI/UAC)")),
            ({"method": "REFER"}, (500, "The request was dropped by local_route")),
        )
        for changed, expected in bad:
            waiting = self.dialog(**changed)
            self.assertTrue(waiting.called, changed)
            error = self.failureResultOf(waiting, MIError).value
            self.assertEqual((error.code, error.message), expected, changed)
        self.assertEqual(self.said(BOB), [])
        self.assertEqual(
            self.refused("tm:uac_dlg", "OPTIONS", "sip:a@b", HEADERS), (-32602, "Command only supports named parameters")
        )

    def test_provisional(self) -> None:
        """With pass_provisional_replies a 180 is answer enough; a 100 is not."""
        self.start('modparam("tm", "pass_provisional_replies", 1)\nroute { exit; }')
        waiting = self.dialog(method="INVITE")
        (bob,) = self.sent(BOB)
        self.answer(bob, 100)
        self.assertNoResult(waiting)
        self.answer(bob, 180)
        self.assertEqual(self.successResultOf(waiting)["Status"], "180 Reason")
        self.answer(bob, 486)
        self.settle()


class TransactionCommandTests(Commanded):
    """Commands about transactions of others."""

    def test_reply(self) -> None:
        """tm:reply answers the transaction of that $T_id with our To tag, headers and body; once only."""
        self.start("""
        route {
            append_to_reply("X-Kept: 1\\r\\n"); t_reply(180, "Ringing"); t_wait_for_new_branches(); xlog("L_ALERT", "$T_id");
        }
        """)
        self.arrive(request("INVITE"))
        (name,) = self.logged()
        self.sent(ALICE)
        given = {"code": "404", "reason": "Gone away", "trans_id": name, "to_tag": "abc"}
        self.assertEqual(self.refused("tm:reply", **{**given, "code": "99"}), (400, "Invalid code"))
        self.assertEqual(self.refused("tm:reply", **{**given, "to_tag": "a b"}), (400, "Invalid reason or to_tag"))
        self.assertEqual(self.refused("tm:reply", **{**given, "reason": "a\r\nX: y"}), (400, "Invalid reason or to_tag"))
        self.assertEqual(self.refused("tm:reply", **given, new_headers="nonsense"), (400, "Bad headers"))
        self.assertEqual(self.refused("tm:reply", **given, body="x"), (400, "Content-Type missing"))
        self.assertEqual(self.refused("tm:reply", **{**given, "trans_id": "1:2"}), (404, "Transaction not found"))
        headers = "X-New: 1\r\nContent-Type: text/plain\r\nContent-Length: 77\r\n"
        self.assertEqual(self.successResultOf(self.command("t_reply", **given, new_headers=headers, body="hello")), "OK")
        (reply,) = self.sent(ALICE)
        reply.check()
        self.assertEqual((reply.status, reply.reason, reply.to_tag, reply.body), (404, "Gone away", "abc", b"hello"))
        self.assertEqual((reply.header("X-New"), reply.header("X-Kept"), reply.headers("Content-Length")), ("1", "1", ["5"]))
        self.assertEqual(self.refused("tm:reply", **given), (500, "Reply failed"))
        self.settle()
        self.assertEqual(self.refused("tm:reply", **given), (404, "Transaction not found"))

    def test_cancel_relayed(self) -> None:
        """tm:uac_cancel cancels an INVITE that was relayed, too; the callee's 487 goes up."""
        self.start("route { t_relay(); }")
        (bob,) = self.invite()
        self.answer(bob, 180)
        self.assertEqual(self.successResultOf(self.command("tm:uac_cancel", "call@test", "1")), "OK")
        self.assertEqual(self.said(BOB), ["CANCEL"])
        self.answer(bob, 487)
        self.assertEqual(self.said(ALICE), ["100", "180", "487"])
        self.assertEqual(self.refused("tm:uac_cancel", "call@test", "1"), (481, "No such transaction"))
        self.settle()

    def test_hash(self) -> None:
        """tm:hash counts the transactions there are and have been."""
        self.start("route { t_reply(200, \"OK\"); }")
        for branch in ("one", "two"):
            self.arrive(request("MESSAGE", branch=branch))
        self.assertEqual(self.successResultOf(self.command("t_hash")), [{"index": 0, "Current": 2, "Total": 2}])
        self.settle()
        self.assertEqual(self.successResultOf(self.command("tm:hash")), [{"index": 0, "Current": 0, "Total": 2}])


class ByCallIdTests(Calls):
    """t_reply_by_callid."""

    def test_parked(self) -> None:
        """A parked INVITE is answered when its CANCEL or BYE comes, with the headers for its own replies."""
        self.start("""
        route {
            append_to_reply("X-$rm: 1\\r\\n");
            if (is_method("INVITE")) { t_reply(180, "Ringing"); t_wait_for_new_branches(); exit; }
            if (is_method("ACK")) exit;
            if (is_method("CANCEL")) t_reply_by_callid(487, "Request Terminated");
            else if (is_method("BYE")) { $var(before) = $(cs{s.int}) - 1; t_reply_by_callid(603, "Bye", , $var(before)); }
            else t_reply_by_callid(404, "Other", $hdr(X-Call), $hdr(X-CSeq));
            xlog("L_ALERT", "$rm $retcode"); sl_send_reply(200, "OK");
        }
        """)
        other = {"extra": "X-Call: call@test\r\nX-CSeq: 1\r\n"}
        for method, status, options in (("CANCEL", 487, {}), ("BYE", 603, {"cseq": 2}), ("MESSAGE", 404, other)):
            self.arrive(request("INVITE", branch=method))
            self.sent(ALICE)
            self.arrive(request(method, branch=method, **options))
            final, ok = sorted(self.sent(ALICE), key=lambda reply: reply.method != "INVITE")
            self.assertEqual((final.status, final.method, final.header("X-INVITE"), ok.status), (status, "INVITE", "1", 200))
            self.assertIsNone(final.header(f"X-{method}"))
        self.arrive(request("BYE", branch="again", cseq=2))
        self.arrive(request("BYE", branch="never", cseq=9))
        self.arrive(request("MESSAGE", branch="strange", extra="X-Call: call@test\r\nX-CSeq: one\r\n"))
        self.assertEqual(self.logged(), ["CANCEL 1", "BYE 1", "MESSAGE 1", "BYE -1", "BYE -4", "MESSAGE -4"])
        self.settle()
        self.arrive(request("BYE", branch="late", cseq=2))
        self.assertEqual(self.logged(), ["BYE -4"])


class LookingOnTests(Calls):
    """local_reply_route and local_request_route."""

    def test_replies(self) -> None:
        """The first sees each reply that tm makes, whole, and can change nothing; not those that are relayed."""
        self.start("""
        modparam("tm", "local_reply_route", "look")
        route {
            if (is_method("CANCEL")) { t_relay(); exit; }
            append_to_reply("X-Reply: 1\\r\\n");
            if ($rU == "here") t_reply_with_body(404, "None", "some text"); else t_relay();
        }
        route[look] { xlog("L_ALERT", "$rs $rr $rm $hdr(X-Reply) $rb $tt"); append_hf("X-Look: 1\\r\\n"); drop; }
        """)
        self.arrive(request("INVITE", "sip:here@127.0.0.1"))
        replies = self.sent(ALICE)
        self.assertEqual([(reply.status, reply.header("X-Look")) for reply in replies], [(100, None), (404, None)])
        self.assertEqual(self.logged(), [
            "100 Giving it a try INVITE 1 <null> <null>", f"404 None INVITE 1 some text {replies[1].to_tag}",
        ])
        (bob,) = self.invite(branch="two")
        self.answer(bob, 180)
        self.arrive(request("CANCEL", branch="two"))
        self.answer(bob, 487)
        self.assertEqual([line[:3] for line in self.logged()], ["100", "200"])
        self.settle()

    def test_requests(self) -> None:
        """The second sees what local_route has made of a request, with our Via, and can change nothing."""
        self.start("""
        modparam("tm", "local_request_route", "look")
        route {
            $var(to) = "\\"A\\" <sip:a@h>;tag=t";
            t_new_request("MESSAGE", "sip:127.0.0.1:7002", "BOB sip:b@h;x=y", $var(to), "text/plain hello", "why");
            xlog("L_ALERT", "$retcode"); exit;
        }
        local_route { append_hf("X-Local: $avp(uac_ctx)\\r\\n"); }
        route[look] {
            xlog("L_ALERT", "$rm $ru $hdr(X-Local) $(hdr(Via){via.port}) $rb $avp(uac_ctx)");
            $ru = "sip:127.0.0.1:7003";
        }
        """)
        self.arrive(request("OPTIONS"))
        (bob,) = self.sent(BOB)
        self.assertEqual((bob.header("X-Local"), bob.body, bob.header("To")), ("why", b"hello", '"A" <sip:a@h>;tag=t'))
        self.assertRegex(bob.header("From"), "^BOB <sip:b@h>;x=y;tag=")
        self.assertEqual(self.logged(), ["MESSAGE sip:127.0.0.1:7002 why 5060 hello <null>", "1"])
        self.answer(bob, 200)
        self.settle()

    def test_no_route(self) -> None:
        """A name that no route has is refused at the start."""
        for name in ("local_reply_route", "local_request_route"):
            tm = Tm(FakeServer(), **{name: "none"})
            self.assertRaises(ValueError, finished, tm.start())


class NewRequestTests(Calls):
    """What t_new_request refuses."""

    def test_injection(self) -> None:
        """A variable cannot bring lines of its own into the head."""
        self.start("""
        route {
            t_new_request("OPTIONS", "sip:127.0.0.1:7002", $(hdr(X-From){s.decode.hexa}), "sip:a@h");
            xlog("L_ALERT", "$retcode"); exit;
        }
        """)
        for sender, result in (("sip:b@h", "1"), ("sip:b@h\r\nX-Evil: 1", "-1"), ("sip:b@h\n", "-1")):
            self.arrive(request("OPTIONS", branch=str(len(sender)), extra=f"X-From: {sender.encode().hex()}\r\n"))
            self.assertEqual(self.logged()[-1], result, sender)
            self.assertEqual(len(self.sent(BOB)), 1 if result == "1" else 0)
