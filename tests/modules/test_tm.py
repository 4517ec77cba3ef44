"""Tests of sipgw.modules.tm with whole scripts, each asked of the real OpenSIPS."""

from __future__ import annotations

from tests.modules.calls import ALICE, BOB, CAROL, DAVE, Calls
from tests.proxy.rig import request, response

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


def fields(index: str = "") -> str:
    """All that can be read of a branch, as a text for xlog; ``index`` as a script writes it."""
    names = ("uri", "duri", "path", "q", "flags", "socket", "last_received", "type", "flag(B)", "attr(k)")
    return " ".join(f"$(tm.branch.{name}{index})" for name in names)


class BranchVariableTests(Calls):
    """$tm.branch.*, $bavp and their like."""

    fork = """
        setbflag("B"); $msg.branch.attr(k) = "kk"; $du = "sip:127.0.0.1:7002";
        append_msg_branch("sip:carol@127.0.0.1:7003");
        $msg.branch.attr(k) = 5; $msg.branch.q = 500; $msg.branch.path = "<sip:127.0.0.1:7003;lr>";
        t_on_branch("b"); t_on_failure("f"); t_on_reply("r");
        t_relay();
    """

    def test_fields(self) -> None:
        """Those of each branch by number, those of the current one without; in a branch route only flags, attributes, type."""
        self.start(f"""
        route {{ {self.fork} xlog("L_ALERT", "sent $T_branch_idx $tm.branch.uri"); }}
        branch_route[b] {{ xlog("L_ALERT", "branch {fields()}"); }}
        onreply_route[r] {{ xlog("L_ALERT", "reply {fields()}|{fields('[1]')}|$(tm.branch.uri[-2]) $(tm.branch.uri[2])"); }}
        failure_route[f] {{ xlog("L_ALERT", "failed {fields()}|{fields('[0]')}"); }}
        """)
        bob, carol = self.invite(BOB, CAROL, uri="sip:bob@127.0.0.1:7999")
        null = "<null>"
        socket = "udp:127.0.0.1:5060"
        first = f"sip:bob@127.0.0.1:7999 sip:127.0.0.1:7002 {null}  B {socket}"
        second = f"sip:carol@127.0.0.1:7003 {null} <sip:127.0.0.1:7003;lr> 0.5  {socket}"
        unsent = " ".join([null] * 7)
        self.assertEqual(self.logged(), [
            f"branch {unsent} sip true kk", f"branch {unsent} sip false 5",
            f"sent {null} sip:bob@127.0.0.1:7999",
        ])
        self.answer(bob, 180)
        self.answer(bob, 486)
        self.answer(carol, 404, CAROL)
        lines = self.logged()
        self.assertEqual(lines[0], f"reply {first} {null} sip true kk|{second} {null} sip false 5|sip:bob@127.0.0.1:7999 {null}")
        self.assertEqual(lines[1].partition("|")[0], f"reply {first} 180 sip true kk")
        self.assertEqual(lines[3], f"failed {second} 404 sip false 5|{first} 486 sip true kk")
        self.settle()

    def test_changes(self) -> None:
        """Flags and attributes can be changed from any branch, and stay; null forgets an attribute."""
        self.start(f"""
        route {{ {self.fork} }}
        branch_route[b] {{ $tm.branch.flag(T) = 1; $tm.branch.attr(n) = $T_branch_idx; xlog("L_ALERT", "$bf"); }}
        onreply_route[r] {{
            if ($rs == 180) {{
                setbflag("R"); $tm.branch.flag(B) = 0; $(tm.branch.flag(X)[1]) = 1;
                $tm.branch.attr(k) = NULL; $(tm.branch.attr(k)[1]) = "new"; $(tm.branch.attr(k)[9]) = "none";
            }}
            xlog("L_ALERT", "$rs $bf|$tm.branch.flags|$(tm.branch.flags[1])|$tm.branch.attr(k) $(tm.branch.attr(k)[1])|"
                "$tm.branch.attr(n) $(tm.branch.attr(n)[1])");
        }}
        failure_route[f] {{ xlog("L_ALERT", "$(tm.branch.flags[0])|$(tm.branch.flags[1])|$bf"); }}
        """)
        bob, carol = self.invite(BOB, CAROL)
        self.assertEqual(self.logged(), ["T B", "T"])
        self.answer(bob, 180)
        self.answer(bob, 183)
        error, *lines = self.logged()
        self.assertIn("there is no branch 9", error)
        same = "R T|R T|X T|<null> new|0 1"
        self.assertEqual(lines, [f"180 {same}", f"183 {same}"])
        self.answer(bob, 486)
        self.answer(carol, 486, CAROL)
        self.assertEqual(self.logged()[-1], "R T|X T|")
        self.settle()

    def test_bavp(self) -> None:
        """Each branch has its own AVPs; in a request route there are none."""
        self.start(f"""
        route {{ $bavp(x) = "request"; xlog("L_ALERT", "request $bavp(x)"); {self.fork} }}
        branch_route[b] {{ $bavp(x) = "old"; $bavp(x) = $T_branch_idx; $bavp(y) = 1; $bavp(y) := 2; $(bavp(y)[0]) = 3; }}
        onreply_route[r] {{
            xlog("L_ALERT", "$rs $bavp(x) $(bavp(x)[1]) $(bavp(x)[*]) $bavp(y) $(bavp(y)[1])"); $bavp(x) = NULL;
        }}
        failure_route[f] {{ xlog("L_ALERT", "failed $bavp(x) $bavp(y)"); $bavp(x) = 7; xlog("L_ALERT", "$bavp(x)"); }}
        """)
        bob, carol = self.invite(BOB, CAROL)
        refused, nothing = self.logged()
        self.assertIn("no branch here", refused)
        self.assertEqual(nothing, "request <null>")
        self.answer(carol, 180, CAROL)
        self.answer(carol, 486, CAROL)
        self.answer(bob, 486)
        self.assertEqual(self.logged(), [
            "180 1 old 1, old 3 <null>", "486 old <null> old 3 <null>", "486 0 old 0, old 3 <null>", "failed old 3", "7",
        ])
        self.settle()

    def test_last_reply_code(self) -> None:
        """$T_branch_last_reply_code is 0 before a reply, that of the reply before in a reply route, 408 after a time-out."""
        codes = "$T_branch_last_reply_code $(T_branch_last_reply_code[0]) $(T_branch_last_reply_code[1])"
        self.start(f"""
        modparam("tm", "fr_timeout", 2)
        route {{ {self.fork} }}
        branch_route[b] {{ exit; }}
        onreply_route[r] {{ xlog("L_ALERT", "$rs: {codes} $(T_branch_last_reply_code[5])"); }}
        failure_route[f] {{ xlog("L_ALERT", "failed: {codes} $(tm.branch.last_received[1])"); }}
        """)
        bob, _carol = self.invite(BOB, CAROL)
        self.answer(bob, 180)
        self.answer(bob, 486)
        self.wait(3)
        self.assertEqual(self.logged(), ["180: 0 0 0 <null>", "486: 180 180 0 <null>", "failed: 408 486 408 <null>"])
        self.settle()

    def test_find_by_attribute(self) -> None:
        """t_get_branch_idx_by_attr finds the first branch that has the attribute, or one of the values."""
        tests = ['"k"', '"k", "s"', '"k", , 3', '"k", "3"', '"k", "s", 3', '"k", , , $var(r), 1', '"k", , , $var(r), 2', '"no"']
        tests = [text if "$var" in text else text + ", " * (3 - text.count(",")) + "$var(r)" for text in tests]
        asked = "\n".join(
            f"""if (t_get_branch_idx_by_attr({text})) xlog("L_ALERT", "{n} $var(r)"); else xlog("L_ALERT", "{n} no $var(r)");"""
            for n, text in enumerate(tests)
        )
        self.start(f"""
        route {{ $msg.branch.attr(k) = "s"; append_msg_branch("sip:127.0.0.1:7003"); $msg.branch.attr(k) = 3; t_on_reply("r");
            t_relay(); }}
        onreply_route[r] {{ {asked} }}
        """)
        bob, _carol = self.invite(BOB, CAROL)
        self.answer(bob, 180)
        null = "no <null>"
        expected = [0, 0, 1, null, 0, 1, null, null]
        self.assertEqual(self.logged(), [f"{n} {found}" for n, found in enumerate(expected)])
        self.answer(bob, 200)
        self.settle()

    def test_transaction_id(self) -> None:
        """$T_id is null without a transaction, and the same in all its routes."""
        self.start("""
        route { xlog("L_ALERT", "$T_id"); t_newtran(); xlog("L_ALERT", "$T_id"); t_on_reply("r"); t_relay(); }
        onreply_route[r] { xlog("L_ALERT", "$T_id"); }
        """)
        (bob,) = self.invite()
        self.answer(bob, 486)
        before, made, after = self.logged()
        self.assertEqual((before, made), ("<null>", after))
        self.assertRegex(made, "^[0-9a-f]{8}[.][0-9a-f]{4}$")
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


class IdleTests(Calls):
    """Transactions that the script leaves alone."""

    def test_ended(self) -> None:
        """One that was neither relayed nor answered for good absorbs retransmissions for wt_timer, and is gone then."""
        self.start("""
        route {
            xlog("L_ALERT", "$rU"); t_newtran();
            if ($rU == "ring") t_reply(180, "Ringing");
            if ($rU == "fail") { $ru = "sip:127.0.0.1:7002;transport=tcp"; t_relay(); }
        }
        """)
        for user, said in (("idle", ["100"]), ("ring", ["100", "180"]), ("fail", ["100"])):
            self.arrive(request("INVITE", f"sip:{user}@127.0.0.1"))
            self.assertEqual((self.said(ALICE), self.logged()[0], self.wired.user.layer.in_use), (said, user, 1))
            self.wait(4)
            self.arrive(request("INVITE", f"sip:{user}@127.0.0.1"))
            self.assertEqual((self.said(ALICE), self.logged(), self.wired.user.layer.in_use), (said[-1:], [], 1))
            self.wait(1.5)
            self.assertEqual(self.wired.user.layer.in_use, 0)
        self.settle()

    def test_not_ended(self) -> None:
        """One that is answered or relayed meanwhile lives on."""
        self.start("""
        route {
            if (is_method("MESSAGE")) {
                t_reply_by_callid(183, "Still here", $ci, "1"); t_reply_by_callid(404, "No", $ci, "1"); exit;
            }
            t_newtran(); if ($rU == "relayed") t_relay();
        }
        """)
        self.arrive(request("INVITE", "sip:relayed@127.0.0.1:7002"))
        self.wait(6)
        self.assertEqual(self.wired.user.layer.in_use, 1)
        self.settle()
        self.sent(ALICE)
        self.arrive(request("INVITE", branch="two"))
        self.arrive(request("MESSAGE", branch="three", cseq=2))
        self.assertEqual(self.said(ALICE), ["100", "183", "404"])
        self.wait(6)
        self.assertEqual(self.wired.user.layer.in_use, 1)  # the INVITE, until its ACK or timer H
        self.settle()


class PassingTests(Calls):
    """What a proxy leaves alone: reliable provisional responses and early dialogs that end (RFC 3262, RFC 6228)."""

    def test_reliable_provisional(self) -> None:
        """A 183 with RSeq goes through as it came, its PRACK like any request; a 199 is a provisional response."""
        self.start("route { t_relay(); }")
        (bob,) = self.invite(extra="Supported: 100rel, 199\r\n")
        self.assertEqual(bob.header("Supported"), "100rel, 199")
        self.answer(bob, 183, extra="Require: 100rel\r\nRSeq: 17\r\n")
        trying, progress = self.sent(ALICE)
        self.assertEqual((trying.status, progress.status, progress.header("RSeq")), (100, 183, "17"))
        self.arrive(request("PRACK", branch="prack", cseq=2, to_tag="b1", extra="RAck: 17 1 INVITE\r\n"))
        (prack,) = self.sent(BOB)
        self.assertEqual(prack.header("RAck"), "17 1 INVITE")
        self.arrive(response(prack, 200).replace(b";tag=b1;tag=b1", b";tag=b1"), BOB)
        self.answer(bob, 199)
        self.answer(bob, 200)
        self.assertEqual(self.said(ALICE), ["200 PRACK", "199", "200"])
        self.settle()


class ParameterTests(Calls):
    """Parameters and variables that change how long a transaction waits and what it shows."""

    def test_avps_in_reply_routes(self) -> None:
        """With onreply_avp_mode a reply route has the transaction's AVPs; without it none, and its own are forgotten."""
        for mode, seen in ((0, ["<null>", "<null>", "av"]), (1, ["av", "from 180", "from 486"])):
            self.start(f"""
            modparam("tm", "onreply_avp_mode", {mode})
            route {{ $avp(a) = "av"; t_on_reply("r"); t_on_failure("f"); t_relay(); }}
            onreply_route[r] {{ xlog("L_ALERT", "$avp(a)"); $avp(a) := "from " + $rs; }}
            failure_route[f] {{ xlog("L_ALERT", "$avp(a)"); }}
            """)
            (bob,) = self.invite()
            self.answer(bob, 180)
            self.answer(bob, 486)
            self.assertEqual(self.logged(), seen)
            self.settle()

    def test_no_trying(self) -> None:
        """Without auto_100trying the script answers 100, or nobody."""
        self.start('modparam("tm", "auto_100trying", 0)\nroute { t_newtran(); t_relay(); }')
        (bob,) = self.invite()
        self.assertEqual(self.said(ALICE), [])
        self.answer(bob, 486)
        self.assertEqual(self.said(ALICE), ["486"])
        self.settle()

    def test_timeout_from_reply_route(self) -> None:
        """$T_fr_inv_timeout set in a reply route counts from that reply on; null is the usual time again."""
        self.start("""
        modparam("tm", "fr_inv_timeout", 50)
        route { $T_fr_inv_timeout = 100; t_on_reply("r"); t_relay(); }
        onreply_route[r] {
            if ($rs == 180) $T_fr_inv_timeout = 5;
            if ($rs == 183) $T_fr_inv_timeout = NULL;
            xlog("L_ALERT", "$T_fr_inv_timeout");
        }
        """)
        for status, length in ((180, 5), (183, 50), (182, 100)):
            (bob,) = self.invite(branch=str(status))
            self.sent(ALICE)
            self.wait(3)
            self.answer(bob, status)
            self.wait(length - 0.5)
            self.assertEqual(self.said(ALICE), [str(status)])
            self.wait(1)
            self.assertEqual((self.said(ALICE)[0], self.logged()), ("408", [str(length)]))
            self.settle()

    def test_transaction_in_branch(self) -> None:
        """In a branch route t_check_trans is true, and $T_fr_timeout set there counts for the branch."""
        self.start("""
        route { if (!t_check_trans()) xlog("L_ALERT", "new"); t_on_branch("b"); t_relay(); }
        branch_route[b] { if (t_check_trans()) xlog("L_ALERT", "known"); $T_fr_timeout = 3; }
        """)
        self.invite()
        self.assertEqual(self.logged(), ["new", "known"])
        self.wait(3.5)
        self.assertIn("408", self.said(ALICE))
        self.settle()
