"""Tests of sipgw.modules.tm with whole scripts, each asked of the real OpenSIPS."""

from __future__ import annotations

from tests.modules.calls import ALICE, BOB, CAROL, DAVE, Calls
from tests.proxy.rig import request

SEEN = "$ru $du $mf,$bf,$avp(a) $(msg.branch.attr(k)[0]) $(msg.branch.uri[*])"


class FailureRouteTests(Calls):
    """What a failure route sees of the request, and what it relays again."""

    def test_request(self) -> None:
        """$ru is the received Request-URI again, $du and all else of its branch unset; flags, AVPs and edits stay."""
        self.start(f"""
        route {{
            append_hf("X-Route: a\\r\\n");
            $ru = "sip:robert@127.0.0.1:7002"; $du = "sip:127.0.0.1:7003"; $avp(a) = "av"; $msg.branch.attr(k) = "kk";
            setflag("M"); setbflag("B"); append_to_reply("X-Reply: a\\r\\n");
            t_on_branch("b"); t_on_failure("one");
            t_relay();
            xlog("L_ALERT", "sent {SEEN}");
            append_hf("X-Late: a\\r\\n"); append_to_reply("X-Late: a\\r\\n"); setflag("LATE");
        }}
        branch_route[b] {{ append_hf("X-Branch: $T_branch_idx\\r\\n"); setflag("FORKED"); $rU = "forked"; }}
        failure_route[one] {{
            xlog("L_ALERT", "one {SEEN} $T_ruri");
            append_hf("X-Failure: a\\r\\n"); setflag("F"); $avp(a) = "again"; $du = "sip:127.0.0.1:7004";
            t_on_failure("two"); t_relay();
            setflag("AFTER");
        }}
        failure_route[two] {{ xlog("L_ALERT", "two {SEEN} $T_ruri"); t_reply(404, "none"); }}
        """)
        (carol,) = self.invite(CAROL, uri="sip:bob@127.0.0.1:7002")
        self.answer(carol, 486, CAROL)
        (dave,) = self.sent(DAVE)
        self.answer(dave, 480, DAVE)
        self.assertEqual(carol.uri, "sip:forked@127.0.0.1:7002")
        self.assertEqual(dave.uri, "sip:forked@127.0.0.1:7002")
        names = ("X-Route", "X-Branch", "X-Late", "X-Failure")
        self.assertEqual([carol.headers(name) for name in names], [["a"], ["0"], [], []])
        self.assertEqual([dave.headers(name) for name in names], [["a"], ["1"], [], ["a"]])
        final = self.sent(ALICE)[-1]
        self.assertEqual((final.status, final.headers("X-Reply"), final.headers("X-Late")), (404, ["a"], []))
        self.assertEqual(self.logged(), [
            "sent sip:robert@127.0.0.1:7002 sip:127.0.0.1:7003 FORKED M,B,av <null> sip:robert@127.0.0.1:7002",
            "one sip:bob@127.0.0.1:7002 <null> FORKED M,,av <null> sip:bob@127.0.0.1:7002 sip:forked@127.0.0.1:7002",
            "two sip:bob@127.0.0.1:7002 <null> AFTER F FORKED M,,again <null> sip:bob@127.0.0.1:7002"
            " sip:forked@127.0.0.1:7002",
        ])
        self.settle()

    def test_after_newtran(self) -> None:
        """What the script changes between t_newtran and t_relay counts too; the edits of one failure route do not last."""
        self.start("""
        route {
            t_newtran();
            $rU = "late"; $avp(a) = "late"; setflag("LATE"); append_hf("X-Route: a\\r\\n");
            t_on_failure("one"); t_relay();
        }
        onreply_route { xlog("L_ALERT", "global $(<request>ru)"); }
        failure_route[one] {
            xlog("L_ALERT", "one $rU $avp(a) $mf $T_ruri");
            append_hf("X-One: a\\r\\n"); $rp = 7003; t_on_failure("two"); t_relay();
        }
        failure_route[two] { append_hf("X-Two: a\\r\\n"); $rp = 7004; t_relay(); }
        """)
        (bob,) = self.invite(uri="sip:bob@127.0.0.1:7002")
        self.answer(bob, 486)
        (carol,) = self.sent(CAROL)
        self.answer(carol, 486, CAROL)
        (dave,) = self.sent(DAVE)
        self.assertEqual(bob.uri, "sip:late@127.0.0.1:7002")
        names = ("X-Route", "X-One", "X-Two")
        self.assertEqual([carol.headers(name) for name in names], [["a"], ["a"], []])
        self.assertEqual([dave.headers(name) for name in names], [["a"], [], ["a"]])
        self.assertEqual(self.logged()[1], "one bob late LATE sip:late@127.0.0.1:7002")
        self.settle()

    def test_last_branch(self) -> None:
        """$T_branch_idx and $T_ruri are of the branch that ended last, $T_reply_code of the best."""
        self.start("""
        route { append_msg_branch("sip:carol@127.0.0.1:7003"); t_on_failure("f"); t_relay(); }
        failure_route[f] { xlog("L_ALERT", "$T_branch_idx $T_ruri $T_reply_code $(<reply>rs)"); }
        """)
        bob, carol = self.invite(BOB, CAROL)
        self.answer(bob, 404, BOB)
        self.answer(carol, 486, CAROL)
        self.assertEqual(self.logged(), ["1 sip:carol@127.0.0.1:7003 404 404"])
        self.assertEqual(self.said(ALICE), ["100", "404"])
        self.settle()


class ReplyRouteTests(Calls):
    """What a reply route sees of the request."""

    def test_request(self) -> None:
        """$(<request>ru) and $(<request>du) are what the script had relayed to, before the branch route."""
        self.start("""
        route {
            $rU = "robert"; $du = "sip:127.0.0.1:7003"; setflag("M"); setbflag("B");
            t_on_branch("b"); t_on_reply("r"); t_relay();
        }
        branch_route[b] { $rU = "forked"; setbflag("FORKED"); }
        onreply_route[r] {
            xlog("L_ALERT", "$(<request>ru) $(<request>du) $T_ruri $T_branch_idx $mf,$bf"); setflag("R");
        }
        """)
        (carol,) = self.invite(CAROL, uri="sip:bob@127.0.0.1:7002")
        self.answer(carol, 180, CAROL)
        self.answer(carol, 486, CAROL)
        seen = "sip:robert@127.0.0.1:7002 sip:127.0.0.1:7003 sip:forked@127.0.0.1:7002 0"
        self.assertEqual(self.logged(), [f"{seen} M,FORKED B", f"{seen} R M,FORKED B"])
        self.settle()


class OwnReplyTests(Calls):
    """Replies that tm makes itself."""

    def test_acknowledged(self) -> None:
        """The ACK to a 200 of t_reply reaches the script, though sl takes those to its own replies away."""
        self.start("""
        route {
            if (is_method("ACK")) { xlog("L_ALERT", "ACK $tt"); exit; }
            if ($rU == "sl") sl_send_reply(200, "OK"); else t_reply(200, "OK");
        }
        """)
        for user, seen in (("sl", 0), ("tm", 1)):
            self.arrive(request("INVITE", f"sip:{user}@127.0.0.1", branch=user))
            tag = self.sent(ALICE)[-1].to_tag
            self.arrive(request("ACK", f"sip:{user}@127.0.0.1", branch=f"{user}ack", to_tag=tag))
            self.assertEqual(self.logged(), [f"ACK {tag}"][:seen])
        self.settle()

    def test_tag(self) -> None:
        """The CANCEL and the INVITE are answered with the same To tag (RFC 3261 9.2), that of an earlier reply."""
        self.start("""
        route { if (is_method("CANCEL")) t_relay(); else { t_newtran(); t_reply(180, "Ringing"); } }
        """)
        self.arrive(request("INVITE"))
        self.arrive(request("CANCEL"))
        trying, ringing, cancelled, ended = self.sent(ALICE)
        self.assertEqual([reply.status for reply in (trying, ringing, cancelled, ended)], [100, 180, 200, 487])
        self.assertEqual({ringing.to_tag, cancelled.to_tag, ended.to_tag}, {ringing.to_tag})
        self.settle()

    def test_headers(self) -> None:
        """They have the headers that append_to_reply had asked for when the request was relayed."""
        self.start("""
        route { append_to_reply("X-Reply: a\\r\\n"); $T_fr_timeout = 1; t_relay(); append_to_reply("X-Late: a\\r\\n"); }
        """)
        self.arrive(request("INVITE"))
        self.wait(2)
        replies = self.sent(ALICE)
        self.assertEqual([reply.status for reply in replies[:2]], [100, 408])
        self.assertEqual([(reply.header("X-Reply"), reply.header("X-Late")) for reply in replies[:2]], [("a", None)] * 2)
        self.settle()
