"""Tests of tm's forking: what cancels branches and what does not, copies, branches that come later."""

from __future__ import annotations

from typing import Any

from tests.modules.calls import ALICE, BOB, CAROL, DAVE, Calls
from tests.proxy.rig import request, response

TWO = 'append_msg_branch("sip:carol@127.0.0.1:7003");'
CANCELS = 'if (is_method("CANCEL")) { t_relay(); exit; }'


class CancelTests(Calls):
    """CANCELs: why, to whom, and with what in them."""

    def ring(self, *ports: int, **options: str) -> list[Any]:
        """Alice calls, and all of ``ports`` ring."""
        found = self.invite(*ports, **options)
        for one, port in zip(found, ports, strict=True):
            self.answer(one, 180, port)
        self.sent(ALICE)
        return list(found)

    def reasons(self, port: int) -> list[str]:
        """The Reason of each CANCEL that ``port`` received, and nothing else came."""
        received = self.sent(port)
        self.assertEqual({one.method for one in received} - {"CANCEL"}, set())
        return [one.header("Reason") for one in received]

    def test_reasons(self) -> None:
        """They say that the caller cancelled, that somebody else answered, or that nobody did in time."""
        self.start(f'modparam("tm", "fr_inv_timeout", 20)\nroute {{ {CANCELS} {TWO} t_relay(); }}')
        bob, carol = self.ring(BOB, CAROL)
        self.arrive(request("CANCEL"))
        self.assertEqual([self.reasons(port) for port in (BOB, CAROL)], [['SIP;cause=487;text="ORIGINATOR_CANCEL"']] * 2)
        self.answer(bob, 487)
        self.answer(carol, 487, CAROL)
        self.settle()
        bob, carol = self.ring(BOB, CAROL, branch="two")
        self.answer(bob, 200)
        self.assertEqual(self.reasons(CAROL), ['SIP ;cause=200 ;text="Call completed elsewhere"'])
        self.answer(carol, 487, CAROL)
        self.settle()
        self.ring(BOB, CAROL, branch="three")
        self.wait(20.4)
        self.assertEqual(self.reasons(BOB), ['SIP;cause=480;text="NO_ANSWER"'])
        self.assertEqual(self.said(ALICE), ["408"])
        self.settle()

    def test_given_reason(self) -> None:
        """That of the CANCEL is passed on only if it is trusted; one that the script gives comes before both."""
        self.start("""
        route {
            if (!is_method("CANCEL")) { t_relay(); exit; }
            if ($rU == "given") t_add_cancel_reason("Reason: SIP ;cause=200 ;text=\\"gone\\"\\r\\n");
            if ($rU == "broken" && !t_add_cancel_reason("no header")) xlog("L_ALERT", "refused");
            if ($rU == "plain") t_relay(); else t_relay("pass-reason-hdr");
        }
        """)
        mine = 'SIP;cause=487;text="ORIGINATOR_CANCEL"'
        for user, expected in (
            ("plain", mine), ("passed", "Q.850;cause=16"), ("given", 'SIP ;cause=200 ;text="gone"'), ("broken", "Q.850;cause=16"),
        ):
            uri = f"sip:{user}@127.0.0.1:7002"
            (bob,) = self.ring(BOB, uri=uri, branch=user)
            self.arrive(request("CANCEL", uri, branch=user, extra="Reason: Q.850;cause=16\r\n"))
            self.assertEqual(self.reasons(BOB), [expected], user)
            self.answer(bob, 487)
        lines = self.logged()
        self.assertEqual(lines[-1:], ["refused"])
        self.assertIn("is no header line", lines[0])
        self.settle()

    def test_added_headers(self) -> None:
        """Those of t_add_hdrs are in the branches, in CANCEL and ACK; a second call replaces the first."""
        self.start(f"""
        route {{
            {CANCELS}
            if (!t_add_hdrs("X-None: 1\\r\\n")) xlog("L_ALERT", "no transaction");
            t_newtran();
            if (!t_add_hdrs("X-Broken")) xlog("L_ALERT", "no header");
            t_add_hdrs("X-First: 1\\r\\nX-Second: 2\\r\\n");
            t_relay();
            if ($rU == "again") t_add_hdrs("X-Third: 3\\r\\n");
        }}
        """)
        for user, expected in (("once", ["1", "2", None]), ("again", [None, None, "3"])):
            uri = f"sip:{user}@127.0.0.1:7002"
            (bob,) = self.invite(uri=uri, branch=user)
            self.answer(bob, 180)
            self.arrive(request("CANCEL", uri, branch=user))
            (cancel,) = self.sent(BOB)
            self.answer(bob, 487)
            (ack,) = self.sent(BOB)
            self.assertEqual((bob.header("X-First"), bob.header("X-Second"), ack.method), ("1", "2", "ACK"))
            for one in (cancel, ack):
                self.assertEqual([one.header(name) for name in ("X-First", "X-Second", "X-Third")], expected)
                one.check()
        lines = self.logged()
        self.assertEqual([line for line in lines if "refused" not in line], ["no transaction", "no header"] * 2)
        self.settle()

    def test_cancel_branch(self) -> None:
        """A reply route cancels its own branch, the others or all; one that has ended is left alone."""
        for flags, bobs, carols in (("", ["CANCEL"], []), ('"o"', [], ["CANCEL"]), ('"a"', ["CANCEL"], ["CANCEL"])):
            self.start(f"""
            route {{ {TWO} t_on_reply("r"); t_relay(); }}
            onreply_route[r] {{ if ($rs == 183 || $rs == 486) t_cancel_branch({flags}); }}
            """)
            bob, carol = self.invite(BOB, CAROL)
            self.answer(carol, 180, CAROL)
            self.answer(bob, 183)
            self.assertEqual((self.said(BOB), self.said(CAROL)), (bobs, carols), flags)
            self.assertEqual(self.said(ALICE), ["100", "180", "183"])
            self.answer(bob, 486)
            self.assertEqual(self.said(BOB), ["ACK"])
            self.answer(carol, 487, CAROL)
            self.assertEqual(self.said(ALICE), ["486"])
            self.settle()

    def test_cancel_branch_wanted(self) -> None:
        """What has not answered yet is cancelled as soon as it does (RFC 3261 9.1)."""
        self.start(f"""
        route {{ {TWO} t_on_reply("r"); t_relay(); }}
        onreply_route[r] {{ if ($rs == 183) t_cancel_branch("o"); }}
        """)
        bob, carol = self.invite(BOB, CAROL)
        self.answer(bob, 183)
        self.assertEqual(self.said(CAROL), [])
        self.answer(carol, 180, CAROL)
        self.assertEqual(self.said(CAROL), ["CANCEL"])
        self.answer(bob, 200)
        self.answer(carol, 487, CAROL)
        self.settle()


class NoCancelTests(Calls):
    """Request-Disposition: no-cancel (RFC 3841 9.1), which is heard only by ``t_relay("allow-no-cancel")``."""

    script = f'route {{ {CANCELS} {TWO} t_relay("allow-no-cancel"); }}'
    wish = "Request-Disposition: fork, No-Cancel\r\n"

    def call(self, extra: str = wish, branch: str = "one") -> tuple[Any, Any]:
        bob, carol = self.invite(BOB, CAROL, extra=extra, branch=branch)
        for one, port in ((bob, BOB), (carol, CAROL)):
            self.answer(one, 180, port)
        self.sent(ALICE)
        return bob, carol

    def test_every_success(self) -> None:
        """No branch is cancelled and every 2xx goes through, however late."""
        self.start('modparam("tm", "fr_inv_timeout", 100)\n' + self.script)
        for extra in (self.wish, "d: no-cancel\r\n"):
            branch = f"b{len(extra)}"
            bob, carol = self.call(extra, branch)
            self.answer(bob, 200)
            self.assertEqual((self.said(ALICE), self.said(CAROL)), (["200"], []))
            self.wait(90)
            self.assertEqual(self.wired.user.layer.in_use, 0)
            self.answer(carol, 200, CAROL, tag="c1")
            self.assertEqual((self.said(ALICE), self.said(CAROL)), (["200"], []))
            self.settle()

    def test_failure_later(self) -> None:
        """A branch that fails after another's success is acknowledged, no more; one that goes on ringing times out."""
        self.start(self.script)
        bob, carol = self.call()
        self.answer(bob, 200)
        self.answer(carol, 486, CAROL)
        self.assertEqual((self.said(ALICE), self.said(CAROL)), (["200"], ["ACK"]))
        bob, carol = self.call(branch="two")
        self.answer(bob, 200)
        self.wait(130)
        self.assertEqual((self.said(ALICE), set(self.said(CAROL))), (["200"], {"CANCEL"}))
        self.settle()

    def test_others(self) -> None:
        """Without the wish or the flag a 2xx cancels; a CANCEL and a 6xx do anyway."""
        self.start(self.script)
        bob, carol = self.call("Request-Disposition: fork\r\n")
        self.answer(bob, 200)
        self.assertEqual(self.said(CAROL), ["CANCEL"])
        self.answer(carol, 487, CAROL)
        bob, carol = self.call(branch="two")
        self.answer(bob, 603)
        self.assertIn("CANCEL", self.said(CAROL))
        self.answer(carol, 487, CAROL)
        bob, carol = self.call(branch="three")
        self.arrive(request("CANCEL", branch="three"))
        self.assertIn("CANCEL", self.said(CAROL))
        self.answer(bob, 487)
        self.answer(carol, 487, CAROL)
        self.settle()
        self.start(f"route {{ {TWO} t_relay(); }}")
        bob, carol = self.call()
        self.answer(bob, 200)
        self.assertEqual(self.said(CAROL), ["CANCEL"])
        self.answer(carol, 487, CAROL)
        self.settle()


class PickingTests(Calls):
    """Which failures end a request, and what is made of them."""

    def test_minor(self) -> None:
        """When all others have failed a minor branch is cancelled; if it fails first the others go on, and it may succeed."""
        self.start(f"""
        modparam("tm", "minor_branch_flag", "MINOR")
        route {{ {TWO} $msg.branch.flag(MINOR) = 1; t_on_failure("f"); t_relay(); }}
        failure_route[f] {{ xlog("L_ALERT", "$T_reply_code"); }}
        """)
        bob, carol = self.invite(BOB, CAROL)
        self.answer(carol, 183, CAROL)
        self.answer(bob, 486)
        self.assertEqual((self.said(ALICE), self.said(CAROL)), (["100", "183", "486"], ["CANCEL"]))
        self.answer(carol, 487, CAROL)
        bob, carol = self.invite(BOB, CAROL, branch="two")
        self.answer(carol, 404, CAROL)
        self.answer(bob, 180)
        self.answer(bob, 486)
        self.assertEqual(self.said(ALICE), ["100", "180", "404"])
        bob, carol = self.invite(BOB, CAROL, branch="three")
        self.answer(bob, 180)
        self.answer(carol, 200, CAROL)
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["100", "180", "200"], ["CANCEL"]))
        self.answer(bob, 487)
        self.assertEqual(self.logged(), ["486", "404"])
        self.settle()

    def test_6xx_blocks(self) -> None:
        """After a 6xx a failure route cannot relay again (RFC 3261 16.7 step 5), unless disable_6xx_block says so."""
        for block, relayed, final in ((0, "-3", "603"), (1, "1", "200")):
            self.start(f"""
            modparam("tm", "disable_6xx_block", {block})
            route {{ t_on_failure("f"); t_relay(); }}
            failure_route[f] {{ $ru = "sip:127.0.0.1:7003"; t_relay(); xlog("L_ALERT", "$T_reply_code $retcode"); }}
            """)
            (bob,) = self.invite()
            self.answer(bob, 603)
            for carol in self.sent(CAROL):
                self.answer(carol, 200, CAROL)
            self.assertEqual(self.logged()[-1], f"603 {relayed}")
            self.assertEqual(self.said(ALICE), ["100", final])
            self.settle()

    def test_challenges(self) -> None:
        """A 401 or 407 goes up with the challenges of all others that came (RFC 3261 16.7 step 7)."""
        self.start(f"""
        route {{ {TWO} append_msg_branch("sip:dave@127.0.0.1:7004"); t_on_failure("f"); t_relay(); }}
        failure_route[f] {{ if (is_method("INVITE")) exit; $ru = "sip:again@127.0.0.1:7003"; t_relay(); }}
        """)
        digest = 'Digest realm="{}", nonce="n"'

        def challenge(kind: str, realm: str) -> str:
            return f"{kind}-Authenticate: {digest.format(realm)}\r\n"

        bob, carol, dave = self.invite(BOB, CAROL, DAVE)
        self.answer(bob, 407, extra=challenge("Proxy", "bob"))
        self.answer(carol, 401, CAROL, extra=challenge("WWW", "carol") + challenge("Proxy", "carol"))
        self.answer(dave, 404, DAVE, extra=challenge("WWW", "dave"))
        final = self.sent(ALICE)[-1]
        final.check()
        self.assertEqual(final.status, 401)
        self.assertEqual(final.headers("WWW-Authenticate"), [digest.format("carol")])
        self.assertEqual(final.headers("Proxy-Authenticate"), [digest.format(name) for name in ("carol", "bob")])
        self.settle()
        bob, carol, dave = self.invite(BOB, CAROL, DAVE, method="MESSAGE")
        self.answer(bob, 407, extra=challenge("Proxy", "bob"))
        self.answer(carol, 404, CAROL)
        self.answer(dave, 480, DAVE)
        (again,) = self.sent(CAROL)
        self.answer(again, 401, CAROL, extra=challenge("WWW", "again"))
        final = self.sent(ALICE)[-1]
        self.assertEqual((final.status, len(final.headers("WWW-Authenticate"))), (401, 1))
        self.assertEqual(final.headers("Proxy-Authenticate"), [digest.format("bob")])
        self.settle()


class ReplicateTests(Calls):
    """t_replicate: copies of a request."""

    def test_copies(self) -> None:
        """They go to the URI and to the branches with the Request-URI of the request; nobody hears what they are answered."""
        self.start(f"""
        route {{
            append_hf("X-Copy: 1\\r\\n"); $rU = "robert"; {TWO}
            t_replicate("sip:127.0.0.1:7004", "no-dns-failover");
            xlog("L_ALERT", "$retcode $ru $(msg.branch.uri[*])");
            t_relay();
        }}
        """)
        bob, carol, dave = self.invite(BOB, CAROL, DAVE, method="MESSAGE", uri="sip:bob@127.0.0.1:7002")
        for one in (bob, carol, dave):
            self.assertEqual((one.uri, one.header("X-Copy"), len(one.vias)), ("sip:robert@127.0.0.1:7002", "1", 2))
        self.answer(carol, 200, CAROL)
        self.answer(dave, 486, DAVE)
        self.assertEqual(self.said(ALICE), [])
        self.answer(bob, 404)
        self.assertEqual(self.said(ALICE), ["404 MESSAGE"])
        self.assertEqual(self.logged(), ["1 sip:robert@127.0.0.1:7002 sip:robert@127.0.0.1:7002"])
        self.settle()

    def test_alone(self) -> None:
        """Copies alone keep the request from coming again until they have ended, and leave nothing behind."""
        self.start('route { t_replicate("sip:127.0.0.1:7004"); }')
        (dave,) = self.invite(DAVE, method="MESSAGE")
        self.arrive(request("MESSAGE"))
        self.assertEqual(self.said(DAVE), [])
        self.answer(dave, 200, DAVE)
        self.arrive(request("MESSAGE"))
        self.assertEqual((self.said(DAVE), self.said(ALICE)), ([], []))
        self.settle()
        self.assertEqual(self.said(ALICE), [])

    def test_silence(self) -> None:
        """A copy that nobody answers is repeated until its time is over."""
        self.start('route { t_replicate("sip:127.0.0.1:7004"); t_reply(200, "OK"); }')
        self.invite(DAVE, method="MESSAGE")
        self.assertEqual(self.said(ALICE), ["200 MESSAGE"])
        self.settle()
        self.assertEqual(set(self.said(DAVE)), {"MESSAGE"})

    def test_invite(self) -> None:
        """The 2xx to a copied INVITE is acknowledged here, as often as it comes; a CANCEL reaches copies too."""
        self.start(f'route {{ {CANCELS} if (is_method("ACK")) exit; t_replicate("sip:127.0.0.1:7004"); }}')
        (dave,) = self.invite(DAVE)
        for _ in range(2):
            self.answer(dave, 200, DAVE, extra="Contact: <sip:dave@127.0.0.1:7004;x=y>\r\n")
            (ack,) = self.sent(DAVE)
            self.assertEqual((ack.method, ack.uri, ack.to_tag), ("ACK", "sip:dave@127.0.0.1:7004;x=y", "b1"))
        (dave,) = self.invite(DAVE, branch="two")
        self.answer(dave, 180, DAVE)
        self.arrive(request("CANCEL", branch="two"))
        self.assertEqual(self.said(DAVE), ["CANCEL"])
        self.answer(dave, 487, DAVE)
        self.assertEqual(self.said(ALICE)[-2:], ["200 CANCEL", "487"])
        self.settle()

    def test_refused(self) -> None:
        """What cannot be sent makes it false, and is no branch."""
        self.start("""
        route { t_replicate("sip:127.0.0.1:7004;transport=tcp"); xlog("L_ALERT", "$retcode"); t_relay(); }
        """)
        (bob,) = self.invite(method="MESSAGE")
        self.answer(bob, 200)
        self.assertEqual(self.logged()[-1], "-6")
        self.assertEqual(self.said(ALICE), ["200 MESSAGE"])
        self.settle()


class LateBranchTests(Calls):
    """t_wait_for_new_branches, t_inject_branches, t_wait_no_more_branches."""

    def script(self, wait: str, rest: str = "") -> None:
        """Wait as ``wait`` says, relay, and do what a provisional reply stands for."""
        self.start(f"""
        route {{
            {CANCELS}
            append_hf("X-Relayed: 1\\r\\n"); $T_fr_inv_timeout = 20; t_newtran(); {wait}
            t_on_failure("f"); t_on_reply("r"); t_on_branch("b"); {rest or "t_relay();"}
        }}
        branch_route[b] {{ append_hf("X-Branch: $T_branch_idx\\r\\n"); }}
        onreply_route[r] {{
            if ($rs == 181) t_wait_no_more_branches();
            if ($rs == 182) {{ append_msg_branch("sip:late@127.0.0.1:7003"); t_inject_branches("msg"); }}
            if ($rs == 183) {{ append_msg_branch("sip:late@127.0.0.1:7003"); t_inject_branches("msg", "cancel"); }}
            if ($rs == 184) {{ append_msg_branch("sip:late@127.0.0.1:7003"); t_inject_branches("msg", "last"); }}
            if ($rs == 199) {{ t_inject_branches("msg"); xlog("L_ALERT", "inject $retcode"); }}
        }}
        failure_route[f] {{
            xlog("L_ALERT", "$T_reply_code of $T_branch_idx: $(tm.branch.type[0]) $(tm.branch.type[1]) $(tm.branch.type[2])");
        }}
        """)

    def test_wait(self) -> None:
        """The transaction stays open after its branches have failed, until fr_inv_timeout is over; then the best is relayed."""
        self.script("t_wait_for_new_branches();")
        (bob,) = self.invite()
        self.assertEqual((bob.header("X-Branch"), bob.header("X-Relayed")), ("1", "1"))
        self.answer(bob, 404)
        self.assertEqual(self.said(ALICE), ["100"])
        self.wait(19.9)
        self.assertEqual(self.said(ALICE), [])
        self.wait(0.2)
        self.assertEqual(self.said(ALICE), ["404"])
        self.assertEqual(self.logged(), ["404 of 0: phony sip <null>"])
        self.settle()

    def test_counted(self) -> None:
        """It waits for so many branches, those of t_relay counted; then it ends with the last of them."""
        self.script("t_wait_for_new_branches(2);")
        (bob,) = self.invite()
        self.answer(bob, 182)
        (late,) = self.sent(CAROL)
        self.assertEqual((late.uri, late.header("X-Branch"), late.header("X-Relayed")), ("sip:late@127.0.0.1:7003", "2", "1"))
        self.answer(bob, 404)
        self.answer(late, 486, CAROL)
        self.assertEqual(self.said(ALICE), ["100", "182", "404"])
        self.assertEqual(self.logged(), ["404 of 2: phony sip sip"])
        self.settle()

    def test_success(self) -> None:
        """A branch that came late may answer the call; the waiting is over then."""
        self.script("t_wait_for_new_branches();")
        (bob,) = self.invite()
        self.answer(bob, 182)
        (late,) = self.sent(CAROL)
        self.answer(bob, 404)
        self.answer(late, 200, CAROL)
        self.assertEqual(self.said(ALICE), ["100", "182", "200"])
        self.settle()
        self.assertEqual((self.said(ALICE), self.logged()), ([], []))

    def test_no_more(self) -> None:
        """t_wait_no_more_branches ends it at once, or as soon as the branches have; so does the last injected branch."""
        self.script("t_wait_for_new_branches();")
        (bob,) = self.invite()
        self.answer(bob, 181)
        self.answer(bob, 404)
        self.assertEqual(self.said(ALICE), ["100", "181", "404"])
        (bob,) = self.invite(branch="two")
        self.answer(bob, 184)
        (late,) = self.sent(CAROL)
        self.answer(bob, 404)
        self.answer(late, 480, CAROL)
        self.assertEqual(self.said(ALICE), ["100", "184", "404"])
        self.settle()

    def test_without_waiting(self) -> None:
        """Branches can be injected while others ring, in their stead too; in a reply route only those appended there."""
        self.script("")
        (bob,) = self.invite()
        self.answer(bob, 183)
        (late,) = self.sent(CAROL)
        self.assertEqual(self.said(BOB), ["CANCEL"])
        self.answer(bob, 487)
        self.answer(late, 486, CAROL)
        self.assertEqual(self.said(ALICE), ["100", "183", "486"])
        (bob,) = self.invite(branch="two")
        self.answer(bob, 199)
        self.answer(bob, 404)
        self.assertIn("inject -1", self.logged())
        self.settle()

    def test_from_request(self) -> None:
        """A request route injects the Request-URI and the branches; the request is what it was in t_newtran."""
        self.script("t_wait_for_new_branches();", """
            append_hf("X-Late: 1\\r\\n"); $rU = "robert"; append_msg_branch("sip:127.0.0.1:7003");
            t_inject_branches("msg", "last"); xlog("L_ALERT", "$retcode $ru $(msg.branch.uri[*])");
        """)
        bob, carol = self.invite(BOB, CAROL, uri="sip:bob@127.0.0.1:7002")
        self.assertEqual((bob.uri, bob.header("X-Late"), bob.header("X-Relayed")), ("sip:robert@127.0.0.1:7002", None, "1"))
        self.assertEqual(self.logged(), ["1 sip:robert@127.0.0.1:7002 sip:robert@127.0.0.1:7002"])
        self.answer(bob, 404)
        self.answer(carol, 486, CAROL)
        self.assertEqual(self.said(ALICE), ["100", "404"])
        self.settle()

    def test_nothing_comes(self) -> None:
        """Waiting alone ends with 408, or with 487 if the caller cancels; without a transaction there is nothing to wait in."""
        self.script("t_wait_for_new_branches();", "exit;")
        self.arrive(request("INVITE"))
        self.wait(21)
        self.assertEqual(self.said(ALICE)[:2], ["100", "408"])
        self.arrive(request("INVITE", branch="two"))
        self.arrive(request("CANCEL", branch="two"))
        self.assertIn("487", self.said(ALICE))
        self.assertEqual(self.logged(), ["408 of 0: phony <null> <null>"])
        self.settle()
        self.start('route { if (!t_wait_for_new_branches()) xlog("L_ALERT", "no"); t_inject_branches("msg"); }')
        self.arrive(request("INVITE"))
        self.assertEqual(self.logged(), ["no"])

    def test_cancelled_while_waiting(self) -> None:
        """When branches have failed and the caller cancels while more are awaited, it is 487; nothing can be injected then."""
        self.script("t_wait_for_new_branches();")
        (bob,) = self.invite()
        self.answer(bob, 404)
        self.arrive(request("CANCEL"))
        self.assertEqual(self.said(ALICE), ["100", "200 CANCEL", "487"])
        self.settle()

    def test_refused(self) -> None:
        """Sources and flags that mean nothing are refused when the script is read."""
        for call in ('t_inject_branches("events")', 't_inject_branches("x")', 't_inject_branches("msg", "first")',
                     't_replicate("sip:x", "allow-no-cancel")', 't_relay("nonsense")'):
            self.assertRaises(AssertionError, self.start, f"route {{ {call}; }}")
        self.assertRaises(AssertionError, self.start, 'route { t_on_reply("r"); }\nonreply_route[r] { t_cancel_branch("x"); }')


class FlagTests(Calls):
    """t_flush_flags and t_relay's outbound proxy."""

    def test_flush(self) -> None:
        """Flags set after t_relay are not those of the transaction until they are flushed."""
        self.start("""
        route {
            if (!t_flush_flags()) xlog("L_ALERT", "none");
            t_on_reply("r"); t_relay(); setflag("LATE");
            if ($rU == "flush") t_flush_flags();
        }
        onreply_route[r] { xlog("L_ALERT", "$rs $mf."); }
        """)
        for user, flags in (("bob", "."), ("flush", "LATE.")):
            (bob,) = self.invite(uri=f"sip:{user}@127.0.0.1:7002", branch=user)
            self.answer(bob, 200)
            lines = self.logged()
            self.assertEqual(lines[1:], ["none", f"200 {flags}"])
        self.settle()

    def test_outbound_proxy(self) -> None:
        """The proxy of t_relay is used where $du is unset."""
        self.start("""
        route { if ($rU == "du") $du = "sip:127.0.0.1:7003"; t_relay(, "udp:127.0.0.1:7004"); }
        """)
        for user, port in (("bob", DAVE), ("du", CAROL)):
            (one,) = self.invite(port, method="MESSAGE", uri=f"sip:{user}@127.0.0.1:7002", branch=user)
            self.arrive(response(one, 200), port)
        self.settle()


class FactsTests(Calls):
    """What OpenSIPS was seen to do in doubtful cases."""

    def test_all_dropped(self) -> None:
        """A branch route that drops every branch leaves an error of ours; t_relay is true, or -1 if it is not to answer."""
        self.start("""
        route {
            t_on_branch("b");
            if (is_method("OPTIONS")) { t_relay("no-auto-477"); xlog("L_ALERT", "$rc\\n"); t_reply(555, "Mine"); exit; }
            t_relay(); xlog("L_ALERT", "$rc\\n");
        }
        branch_route[b] { drop; }
        """)
        self.arrive(request("INVITE"))
        answers = self.sent(ALICE)
        self.assertEqual([each.status for each in answers], [100, 500])
        self.assertEqual(answers[1].reason, "Server error occurred (1/TM)")
        self.arrive(request("OPTIONS", branch="two"))
        self.assertEqual(self.said(ALICE), ["555 OPTIONS"])
        self.assertEqual([line for line in self.logged() if len(line) < 3], ["1", "-1"])
        self.settle()

    def test_second_transaction(self) -> None:
        """t_newtran is -10 where there is a transaction."""
        self.start("""
        route {
            t_newtran(); xlog("L_ALERT", "$rc\\n");
            t_newtran(); xlog("L_ALERT", "$rc\\n");
            t_reply(200, "OK"); t_newtran(); xlog("L_ALERT", "$rc\\n");
        }""")
        self.arrive(request("OPTIONS"))
        self.assertEqual(self.logged(), ["1", "-10", "-10"])

    def test_unreadable(self) -> None:
        """A $du that is no URI lets the request fail; it does not go to $ru instead."""
        self.start('route { $du = "nonsense"; t_relay(); }')
        self.arrive(request("INVITE"))
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["100", "476"], []))

    def test_no_socket(self) -> None:
        """A transport that is not there is an error of the server's own."""
        self.start("route { t_relay(); }")
        self.arrive(request("INVITE", "sip:bob@127.0.0.1;transport=tcp"))
        self.assertEqual(self.sent(ALICE)[-1].reason, "Server error occurred (7/TM)")

    def test_user_agent(self) -> None:
        """Our CANCELs, ACKs and requests say who sends them; what is relayed says what it said."""
        self.start("route { t_relay(); }\nuser_agent_header = \"User-Agent: us\"")
        (bob,) = self.invite()
        self.assertIsNone(bob.header("User-Agent"))
        self.answer(bob, 180)
        self.arrive(request("CANCEL"))
        (cancel,) = self.sent(BOB)
        self.answer(bob, 487)
        (ack,) = self.sent(BOB)
        self.assertEqual([each.header("User-Agent") for each in (cancel, ack)], ["us", "us"])
        for more, expected in (("", "us"), ("User-Agent: them\r\n", "them")):
            headers = f"From: <sip:a@x>\r\nTo: <sip:b@x>\r\n{more}"
            params = {"method": "OPTIONS", "ruri": f"sip:127.0.0.1:{BOB}", "headers": headers}
            self.wired.user.launch(self.wired.server.commands.call("tm:uac_dlg", params))
            (asked,) = self.sent(BOB)
            self.assertEqual(asked.headers("User-Agent"), [expected])
            self.answer(asked, 200)
