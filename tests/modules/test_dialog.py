"""Tests of sipgw.modules.dialog: a call from its INVITE to its BYE, and everything that can come between."""

from __future__ import annotations

from sipgw.core.cachedb import CacheError
from sipgw.core.waiting import Drive
from sipgw.testing import Phone, WiredServer
from tests.doubles import FakeCache
from tests.modules.calls import ALICE, BOB, CAROL, HEAD
from tests.modules.dialing import Dialing
from tests.proxy.rig import request, response

SHOW = """xlog("L_ALERT", "$rm $DLG_status $DLG_dir $DLG_lifetime $DLG_end_reason");"""


HEADLESS = """
loadmodule "rr.so"
loadmodule "dialog.so"
route {
    if (has_totag()) {
        if (!is_method("ACK")) {
            if (!match_dialog("DID_ONLY")) xlog("L_ALERT", "not so");
            if (match_dialog()) xlog("L_ALERT", "found $DLG_dir");
        }
        t_relay(); exit;
    }
    record_route(); create_dialog(); t_relay();
}
"""


class CourseTests(Dialing):
    """The states of a dialog."""

    def test_call(self) -> None:
        """1 to 5, told to the script; nothing is left."""
        self.serve(within=SHOW, first=f"{SHOW} create_dialog(); {SHOW}")
        self.dial()
        self.assertEqual(self.states(), [1])
        self.answer(self.invited, 180)
        self.assertEqual((self.states(), self.numbers()), ([2], {"early": 1, "processed": 1}))
        self.pick_up(ack=False)
        self.assertEqual((self.states(), self.numbers()), ([3], {"active": 1, "processed": 1}))
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual((self.states(), self.said(BOB)), ([4], ["ACK"]))
        self.wait(12)
        self.within("INFO", ALICE)
        self.within("INFO", BOB)
        self.wait(3)
        self.sent(ALICE)
        self.sent(BOB)
        self.hang_up(ALICE)
        self.assertEqual((self.states(), self.numbers()), ([], {"processed": 1}))
        self.assertEqual(self.logged(), [
            "INVITE <null> <null> <null> <null>", "INVITE 1 downstream 0 <null>", "ACK 4 downstream 0 <null>",
            "INFO 4 downstream 12 <null>", "INFO 4 upstream 12 <null>", "BYE 5 downstream 15 Downstream BYE",
        ])
        self.settle()

    def test_callee_hangs_up(self) -> None:
        """The other direction."""
        self.serve(within=SHOW)
        self.talk()
        self.logged()
        self.hang_up(BOB)
        self.assertEqual((self.logged(), self.states()), (["BYE 5 upstream 0 Upstream BYE"], []))
        self.settle()

    def test_failure(self) -> None:
        """A call that is refused, or cancelled, has failed."""
        for status in (486, 603):
            self.serve()
            self.dial()
            self.answer(self.invited, 180)
            self.answer(self.invited, status)
            self.assertEqual((self.states(), self.numbers()), ([], {"processed": 1, "failed": 1}))
            self.settle()

    def test_cancel(self) -> None:
        """The caller gives up while it rings."""
        self.serve()
        self.dial()
        self.answer(self.invited, 180)
        self.arrive(request("CANCEL"))
        self.answer(self.invited, 487)
        self.assertEqual((self.states(), self.numbers()), ([], {"processed": 1, "failed": 1}))
        self.settle()

    def test_timeout(self) -> None:
        """A callee that is silent."""
        self.serve()
        self.dial()
        self.wait(31)
        self.assertEqual((self.states(), self.numbers()), ([], {"processed": 1, "failed": 1}))
        self.settle()

    def test_nothing_comes_of_it(self) -> None:
        """A script that does nothing with the request leaves nothing behind."""
        self.serve(first="create_dialog(); exit;")
        self.arrive(request("INVITE"))
        self.assertEqual(self.states(), [1])
        self.wait(60)
        self.assertEqual((self.states(), self.numbers()), ([], {"processed": 1, "failed": 1}))

    def test_only_first_requests(self) -> None:
        """There is no dialog of a CANCEL or a request within one; a second create_dialog changes nothing."""
        self.serve(within="""if (create_dialog()) xlog("L_ALERT", "hm");""",
            first="""create_dialog(); if (create_dialog("bye-on-timeout")) xlog("L_ALERT", "again");""")
        self.talk()
        self.within("INFO", ALICE)
        self.assertEqual((self.logged(), len(self.calls)), (["again"], 1))
        self.assertEqual(self.calls[0].flags & 8, 8)
        self.within("OPTIONS", ALICE, extra="X: y\r\n")
        self.assertEqual(self.logged(), [])

    def test_late_success(self) -> None:
        """A 2xx that crosses the refusal brings the call back."""
        self.serve()
        self.dial()
        self.answer(self.invited, 180)
        self.arrive(request("CANCEL"))
        (cancel,) = [message for message in self.sent(BOB) if message.method == "CANCEL"]
        self.answer(cancel, 200)
        self.pick_up()
        self.assertEqual((self.states(), self.numbers()), ([4], {"active": 1, "processed": 1}))
        self.hang_up(ALICE)
        self.settle()

    def test_race_is_ended(self) -> None:
        """With end-on-race-condition such a call lives five seconds."""
        self.serve(first="""create_dialog("end-on-race-condition,bye-on-timeout");""")
        self.dial()
        self.answer(self.invited, 180)
        self.arrive(request("CANCEL"))
        self.sent(BOB)
        self.pick_up()
        self.wait(4)
        self.assertEqual(self.states(), [4])
        self.wait(2)
        self.assertEqual((self.states(), self.said(ALICE)[:1], self.said(BOB)[-1:]), ([], ["BYE"], ["BYE"]))

    def test_forked(self) -> None:
        """Of two phones that ring one answers: the dialog is with that one; a BYE of the other ends nothing."""
        self.serve(first="""create_dialog(); append_branch("sip:127.0.0.1:7003");""")
        self.arrive(request("INVITE", extra="Contact: <sip:alice@127.0.0.1:7001>\r\n"))
        (bob,), (carol,) = self.sent(BOB), self.sent(CAROL)
        self.answer(bob, 180, BOB, tag="b1")
        self.answer(carol, 180, CAROL, tag="c1")
        (call,) = self.calls
        self.assertEqual([leg.tag for leg in call.callees], ["b1", "c1"])
        self.invited = carol
        self.pick_up(tag="c1", port=CAROL)
        self.assertEqual((call.winner.tag, self.states()), ("c1", [4]))

    def test_event(self) -> None:
        """Each change of a state is an event."""
        self.serve(rest="""event_route[E_DLG_STATE_CHANGED] {
            xlog("L_ALERT", "$param(old_state)-$param(new_state) $param(callid) $param(from_tag) $param(to_tag)"); }""")
        self.talk()
        self.hang_up(ALICE)
        self.wait(1)
        self.assertEqual(self.logged(), ["1-3 call@test a1 b1", "3-4 call@test a1 b1", "4-5 call@test a1 b1"])


class MatchTests(Dialing):
    """How a request finds its dialog."""

    def test_did(self) -> None:
        """The Record-Route names the dialog; without that it is found by Call-ID and tags, unless only the name is wanted."""
        for mode, named, found in [(0, True, False), (1, True, True), (2, False, True)]:
            self.serve(params=f'modparam("dialog", "dlg_match_mode", {mode})', within=SHOW)
            self.talk()
            did = self.calls[0].did
            self.assertEqual(f";did={did}" in self.route_set[0], named)
            self.assertEqual(did[:2], "00")
            self.logged()
            self.route_set = [value.replace(f";did={did}", "") for value in self.route_set]
            self.within("INFO", ALICE)
            self.assertEqual(self.logged(), ["INFO 4 downstream 0 <null>" if found else "INFO <null> <null> <null> <null>"])

    def test_wrong_did(self) -> None:
        """A name that belongs to another call is no way in; nor is one with wrong tags."""
        self.serve(params='modparam("dialog", "dlg_match_mode", 0)', within=SHOW)
        self.talk()
        self.logged()
        did = self.calls[0].did
        good = self.route_set
        for wrong in ("00fff.1", "x", "", "call@test"):
            self.route_set = [value.replace(did, wrong) for value in good]
            self.within("INFO", ALICE)
        self.route_set, self.tag = good, "other"
        self.within("BYE", ALICE)
        self.assertEqual({line.partition(" ")[2] for line in self.logged()}, {"<null> <null> <null> <null>"})
        self.assertEqual(self.states(), [4])

    def test_match_dialog(self) -> None:
        """match_dialog finds it where loose_route cannot."""
        self.start(HEADLESS)
        self.cseq = {ALICE: 1, BOB: 7000}
        self.talk()
        self.within("INFO", BOB, route=False)
        self.assertEqual(self.logged(), ["not so", "found upstream"])
        self.assertEqual(self.said(ALICE), ["INFO"])

    def test_rr_param(self) -> None:
        """The parameter has the name that is wanted."""
        self.serve(params='modparam("dialog", "rr_param", "Xyz")')
        self.talk()
        self.assertIn(f";Xyz={self.calls[0].did}", self.route_set[0])
        self.hang_up(ALICE)
        self.assertEqual(self.states(), [])

    def test_delete_delay(self) -> None:
        """A dialog that is over is kept to match late requests, and not longer."""
        self.serve(params='modparam("dialog", "delete_delay", 10)', within=SHOW)
        self.talk()
        self.hang_up(ALICE)
        self.logged()
        self.within("BYE", BOB)
        self.assertEqual((self.logged(), len(self.calls)), (["BYE 5 upstream 0 Downstream BYE"], 1))
        self.assertEqual(self.numbers(), {"processed": 1})
        self.wait(8)
        self.assertEqual(len(self.calls), 1)
        self.wait(3)
        self.assertEqual(self.calls, [])
        self.settle()


class EndTests(Dialing):
    """Calls that are ended from the middle."""

    def test_timeout(self) -> None:
        """When its time is over a call is forgotten, or with bye-on-timeout hung up on both sides."""
        for flags, said in [("", []), ("bye-on-timeout", ["BYE"])]:
            self.serve(params='modparam("dialog", "default_timeout", 60)', first=f'create_dialog("{flags}");')
            self.talk()
            self.wait(59)
            self.assertEqual(self.states(), [4])
            self.wait(2)
            self.assertEqual((self.states(), self.said(ALICE)[:1], self.said(BOB)[:1]), ([], said, said))
            self.assertEqual(self.numbers(), {"processed": 1, "expired": 1})

    def test_byes(self) -> None:
        """Either side gets a BYE as from the other, by its route set, with the next CSeq number and the extra lines."""
        self.serve(params=r'modparam("dialog", "dlg_extra_hdrs", "Hint: credit\r\n")')
        self.talk()
        self.within("INFO", BOB)
        self.sent(ALICE)
        self.assertEqual(self.command("dialog:end_dlg", dialog_id="call@test", extra_hdrs="X-Why: me\r\n"), "OK")
        (to_alice,), (to_bob,) = self.sent(ALICE), self.sent(BOB)
        for bye, uri, from_tag, to_tag, number in [
            (to_alice, "sip:alice@127.0.0.1:7001", "b1", "a1", 7002), (to_bob, "sip:bob@127.0.0.1:7002", "a1", "b1", 2),
        ]:
            self.assertEqual((bye.method, bye.uri, bye.from_tag, bye.to_tag, bye.cseq.number, bye.call_id), (
                "BYE", uri, from_tag, to_tag, number, "call@test"))
            self.assertEqual((bye.header("Hint"), bye.header("X-Why"), bye.header("Route")), ("credit", "me", None))
        self.assertEqual(self.states(), [])
        self.reply_within(to_alice, 200, ALICE)
        self.reply_within(to_bob, 200, BOB)
        self.settle()

    def test_end_ringing(self) -> None:
        """A call that rings is cancelled."""
        self.serve()
        self.dial()
        self.answer(self.invited, 180)
        did = self.calls[0].did
        self.assertEqual(self.command("dialog:end_dlg", dialog_id=did), "OK")
        (cancel,) = self.sent(BOB)
        self.assertEqual(cancel.method, "CANCEL")
        self.answer(cancel, 200)
        self.answer(self.invited, 487)
        self.assertEqual((self.said(ALICE)[-1], self.states()), ("487", []))
        self.assertEqual(self.command("dialog:end_dlg", dialog_id=did), (404, "Requested Dialog not found"))
        self.assertEqual(self.command("dialog:end_dlg", dialog_id="x", extra_hdrs=""), (404, "Requested Dialog not found"))

    def test_timeout_variable(self) -> None:
        """$DLG_timeout before the dialog, before the answer, and in the middle."""
        self.serve(first="$DLG_timeout = 100; create_dialog();", within='if (is_method("INFO")) $DLG_timeout = 50;'
            'xlog("L_ALERT", "$DLG_timeout");')
        self.talk()
        self.assertEqual(self.logged(), ["100"])
        self.wait(60)
        self.within("INFO", ALICE)
        self.assertEqual(self.logged(), ["50"])
        self.wait(45)
        self.assertEqual(self.states(), [4])
        self.wait(6)
        self.assertEqual(self.states(), [])

    def test_routes(self) -> None:
        """Routes of answer, time-out and hang-up; that of the time-out may give more time."""
        self.serve(
            params='modparam("dialog", "default_timeout", 10)',
            first="""create_dialog(); $dlg_val(times) = 0; dlg_on_answer("up"); dlg_on_timeout("late"); dlg_on_hangup("down");""",
            rest="""
            route[up] { xlog("L_ALERT", "up $DLG_status"); }
            route[late] { xlog("L_ALERT", "late"); $dlg_val(times) = $dlg_val(times) + 1;
                if ($dlg_val(times) < 3) $DLG_timeout = 20; }
            route[down] { xlog("L_ALERT", "down $DLG_status $DLG_did"); }""",
        )
        self.talk()
        did = self.calls[0].did
        self.wait(11)
        self.assertEqual(self.logged(), ["up 3", "late"])
        self.wait(45)
        self.assertEqual((self.logged(), self.states()), (["late", "late", f"down 5 {did}"], []))

    def test_disarmed(self) -> None:
        """A route is armed no longer."""
        self.serve(first="""create_dialog(); dlg_on_hangup("down"); dlg_on_hangup();""",
            rest='route[down] { xlog("L_ALERT", "down"); }')
        self.talk()
        self.hang_up(ALICE)
        self.assertEqual(self.logged(), [])


class PingTests(Dialing):
    """Pings, and the numbers of the requests that come after them."""

    def test_options(self) -> None:
        """A leg that answers is pinged again; one that says it has no such call ends it on both sides."""
        self.serve(first="""create_dialog("options-ping-caller,options-ping-callee");""")
        self.talk()
        for number in (1, 2):
            self.wait(30)
            for port in (ALICE, BOB):
                (ping,) = self.sent(port)
                self.assertEqual((ping.method, ping.cseq.number), ("OPTIONS", number + (port == BOB)))
                self.reply_within(ping, 200, port)
        self.wait(30)
        (ping,) = self.sent(BOB)
        self.sent(ALICE)
        self.reply_within(ping, 481, BOB)
        self.assertEqual((self.said(ALICE), self.said(BOB), self.states()), (["BYE"], ["BYE"], []))

    def test_silence(self) -> None:
        """A leg that is silent ends the call."""
        self.serve(first="""create_dialog("options-ping-callee"); dlg_on_hangup("down");""",
            rest='route[down] { xlog("L_ALERT", "$DLG_end_reason"); }')
        self.talk()
        self.wait(62)
        self.assertEqual((self.states(), self.logged()), ([], ["Callee Ping Timeout"]))

    def test_numbers(self) -> None:
        """After a ping the numbers of the caller's requests are moved, and their responses moved back."""
        self.serve(first="""create_dialog("options-ping-callee");""")
        self.talk()
        self.wait(30)
        (ping,) = self.sent(BOB)
        self.assertEqual(ping.cseq.number, 2)
        self.reply_within(ping, 200, BOB)
        self.within("INVITE", ALICE, extra="Contact: <sip:alice2@127.0.0.1:7001>\r\n")
        (again,) = self.sent(BOB)
        self.assertEqual((again.cseq.number, str(again.header("CSeq"))), (3, "3 INVITE"))
        self.sent(ALICE)
        self.reply_within(again, 200, BOB, extra="Contact: <sip:bob2@127.0.0.1:7002>\r\n")
        (answer,) = self.sent(ALICE)
        self.assertEqual((answer.status, answer.cseq.number), (200, 2))
        self.within("ACK", ALICE, cseq=2)
        (ack,) = self.sent(BOB)
        self.assertEqual((ack.method, ack.cseq.number), ("ACK", 3))
        (call,) = self.calls
        self.assertEqual((call.caller.contact, call.winner.contact), ("sip:alice2@127.0.0.1:7001", "sip:bob2@127.0.0.1:7002"))
        self.within("BYE", ALICE)
        (bye,) = self.sent(BOB)
        self.assertEqual(bye.cseq.number, 4)
        self.reply_within(bye, 200, BOB)
        (done,) = self.sent(ALICE)
        self.assertEqual(done.cseq.number, 3)

    def test_disguised(self) -> None:
        """A callee that was shown other names, and a number that was moved on (module uac), sees the same in what we send."""
        self.serve(
            params='loadmodule "uac_auth.so"\nloadmodule "uac.so"\n',
            first="""create_dialog("options-ping-callee"); uac_replace_from("X", "sip:x@y"); uac_inc_cseq(5);""",
        )
        self.talk()
        (call,) = self.calls
        self.assertEqual((call.winner.cseq, call.winner.mangled_from), (6, '"X" <sip:x@y>'))
        self.wait(30)
        (ping,) = self.sent(BOB)
        self.assertEqual((ping.from_.uri_text, ping.from_tag, ping.cseq.number), ("sip:x@y", "a1", 7))
        self.reply_within(ping, 200, BOB)
        numbers = []
        for _ in range(2):
            self.within("INFO", ALICE)
            (info,) = self.sent(BOB)
            self.reply_within(info, 200, BOB)
            (answer,) = self.sent(ALICE)
            self.assertEqual((info.from_.uri_text, answer.cseq.number), ("sip:x@y", self.cseq[ALICE]))
            numbers.append(info.cseq.number)
            self.wait(30)
            (ping,) = self.sent(BOB)
            self.reply_within(ping, 200, BOB)
            numbers.append(ping.cseq.number)
        self.assertEqual(sorted(set(numbers)), numbers)
        self.command("dialog:end_dlg", dialog_id="call@test")
        (to_alice,) = self.sent(ALICE)
        self.assertEqual((to_alice.from_.uri_text, to_alice.to.uri_text), ("sip:bob@example.org", "sip:alice@example.org"))

    def test_reinvite(self) -> None:
        """A re-INVITE has what the other side described last, and is acknowledged."""
        self.serve(first="""create_dialog("reinvite-ping-caller,options-ping-caller");""",
            params='modparam("dialog", "reinvite_ping_interval", 60)')
        self.dial()
        record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(self.invited))
        sdp = "v=0\r\n"
        data = f"{record}Contact: <sip:bob@127.0.0.1:7002>\r\nContent-Type: application/sdp\r\n"
        self.sent(ALICE)
        self.arrive(response(self.invited, 200, extra=data).replace(b"Content-Length: 0\r\n\r\n", b"Content-Length: 5\r\n\r\n"
            + sdp.encode()), BOB)
        *_, answer = self.sent(ALICE)
        self.route_set, self.tag = self.routes(answer), "b1"
        self.within("ACK", ALICE, cseq=1)
        self.sent(BOB)
        self.wait(60)
        (ping,) = self.sent(ALICE)
        self.assertEqual((ping.method, ping.body, ping.header("Contact")), ("INVITE", b"v=0\r\n", "<sip:bob@127.0.0.1:7002>"))
        self.reply_within(ping, 200, ALICE, extra="Contact: <sip:alice@127.0.0.1:7001>\r\n")
        self.assertEqual((self.said(ALICE), self.said(BOB), self.states()), (["ACK"], [], [4]))


class ScriptTests(Dialing):
    """Values, flags, profiles, and other dialogs."""

    def test_values(self) -> None:
        """$dlg_val, store and fetch; numbers stay numbers."""
        self.serve(
            first="""$dlg_val(early) = 1; create_dialog(); $dlg_val(n) = 5; $dlg_val(s) = "x y"; $var(v) = $ci;
                store_dlg_value("c", $var(v)); store_dlg_value("ip", $si);""",
            within="""$var(k) = "n"; $dlg_val($var(k)) = $dlg_val(n) + 1; fetch_dlg_value("c", $var(c));
                if (!fetch_dlg_value("no", $var(no))) xlog("L_ALERT", "$dlg_val(n) $dlg_val(s) $var(c) $dlg_val(ip) $dlg_val(z)");
                $dlg_val(s) = NULL;""",
        )
        self.dial()
        self.assertIn("there is no dialog", self.logged()[0])
        self.pick_up()
        self.within("INFO", ALICE)
        self.assertEqual(self.logged(), ["6 x y call@test 127.0.0.1 <null>", "7 <null> call@test 127.0.0.1 <null>"])

    def test_flags(self) -> None:
        """Flags have names."""
        self.serve(
            first="""create_dialog(); set_dlg_flag("A"); set_dlg_flag("B");""",
            within="""if (is_dlg_flag_set("A")) xlog("L_ALERT", "$DLG_flags");
                reset_dlg_flag("A"); if (test_and_set_dlg_flag("B", 1)) xlog("L_ALERT", "was");
                if (!test_and_set_dlg_flag("B", 1)) xlog("L_ALERT", "is not");
                $DLG_flags = "X Y"; xlog("L_ALERT", "$DLG_flags");""",
        )
        self.talk()
        self.assertEqual(self.logged(), ["A B", "was", "is not", "X Y"])

    def test_profiles(self) -> None:
        """Calls are counted while they live."""
        self.serve(
            params='modparam("dialog", "profiles_with_value", "caller; gw")\nmodparam("dialog", "profiles_no_value", "all")',
            first="""create_dialog(); set_dlg_profile("all"); set_dlg_profile("caller", $fU); set_dlg_profile("gw", "one");
                set_dlg_profile("gw", "two"); set_dlg_profile("gw", "three", 1);
                if (!set_dlg_profile("none")) xlog("L_ALERT", "no such");
                get_profile_size("all", , $var(a)); get_profile_size("caller", $fU, $var(c)); get_profile_size("gw", , $var(g));
                get_profile_size("gw", "one", $var(o)); xlog("L_ALERT", "$var(a) $var(c) $var(g) $var(o)");""",
            within="""if (is_in_profile("gw", "three") && is_in_profile("gw") && !is_in_profile("gw", "one"))
                xlog("L_ALERT", "in"); if (is_method("INFO")) unset_dlg_profile("gw", "three");""",
        )
        self.talk()
        self.assertEqual(self.logged()[-2:], ["1 1 1 0", "in"])
        self.assertEqual(self.command("dialog:profile_get_size", profile="caller", value="alice"), {
            "Profile": {"name": "caller", "value": "alice", "count": 1, "shared": "no", "replicated": "no"}})
        self.assertEqual(self.command("dialog:profile_get_values", profile="gw"), [{"value": "three", "count": 1}])
        self.assertEqual(self.command("dialog:profile_get_values", profile="all"), [{"value": None, "count": 1}])
        self.assertEqual(len(self.command("dialog:profile_list_dlgs", profile="gw", value="three")["Dialogs"]), 1)
        self.assertEqual(self.command("dialog:profile_get_size", profile="x"), (404, "Profile not found"))
        self.assertEqual(self.command("dialog:list_all_profiles"), {"Profiles": [
            {"name": "caller", "has value": True}, {"name": "gw", "has value": True}, {"name": "all", "has value": False}]})
        self.within("INFO", ALICE)
        self.sent(BOB)
        self.assertEqual(self.command("dialog:profile_get_values", profile="gw"), [])
        self.assertEqual(self.command("dialog:set_profile", dlg_id="call@test", profile="gw", value="z"), "OK")
        self.assertEqual(self.command("dialog:unset_profile", dlg_id="call@test", profile="caller"), "OK")
        self.assertEqual(self.command("dialog:profile_get_values", profile="gw"), [{"value": "z", "count": 1}])
        self.assertEqual(self.command("dialog:profile_end_dlgs", profile="gw"), "OK")
        self.assertEqual(self.command("dialog:profile_get_values", profile="all"), [{"value": None, "count": 0}])

    def test_shared_profiles(self) -> None:
        """Profiles that are counted in a store, under OpenSIPS's keys; what happens while it is away is told later."""
        params = """modparam("dialog", "profiles_with_value", "caller/s; own")
            modparam("dialog", "profiles_no_value", "all/s")
            modparam("dialog", "cachedb_url", "fake://x/")"""
        cache = FakeCache()
        self.with_cache(cache, params, """create_dialog(); set_dlg_profile("caller", "al"); set_dlg_profile("all");
            set_dlg_profile("own", "x"); get_profile_size("caller", "al", $var(n)); get_profile_size("caller", , $var(s));
            get_profile_size("all", , $var(a)); get_profile_size("own", , $var(o));
            xlog("L_ALERT", "$var(n) $var(s) $var(a) $var(o)");""")
        cache.values = {"dlg_val_caller_YWw=": 3, "dlg_size_caller": 5, "dlg_noval_all": 7}
        self.talk()
        self.assertEqual(self.logged(), ["4 6 8 1"])
        self.assertEqual(cache.values, {"dlg_val_caller_YWw=": 4, "dlg_size_caller": 6, "dlg_noval_all": 8})
        self.assertEqual(self.command("dialog:profile_get_size", profile="all")["Profile"]["shared"], "yes")
        self.assertEqual(self.command("dialog:profile_get_values", profile="all")[0], 405)

        def away() -> None:
            raise CacheError("away")

        cache.before = away
        self.assertEqual(self.command("dialog:profile_get_size", profile="all"), (500, "Operation failed"))
        self.hang_up(ALICE)
        self.assertEqual(cache.values["dlg_noval_all"], 8)
        cache.before = lambda: None
        self.wait(5)
        self.assertEqual(cache.values, {"dlg_val_caller_YWw=": 3, "dlg_size_caller": 5, "dlg_noval_all": 7})

    def with_cache(self, cache: FakeCache, params: str, first: str) -> None:
        """Start a server that has ``cache`` for each URL of fake:."""

        async def opener(url: str) -> FakeCache:
            return cache

        def start(script: str) -> None:
            self.wired = WiredServer(HEAD + script, before=lambda server: server.user.caches.serve("fake", opener))
            self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB)}

        self.start = start  # type: ignore[method-assign]
        self.serve(params=params, first=first)

    def test_list(self) -> None:
        """What the operator is told of a dialog."""
        self.serve(first="""create_dialog(); $dlg_val(n) = 5; $dlg_val(s) = "a\tb"; set_dlg_flag("F");""")
        self.talk()
        (call,) = self.calls
        said = self.command("dialog:list")["Dialogs"]
        self.assertEqual(said, [self.command("dialog:list", callid="call@test")["Dialog"]])
        self.assertEqual(
            {name: said[0][name] for name in said[0] if "date" not in name and "time" not in name}, {
                "ID": call.did, "db_id": str(call.number), "state": 4, "user_flags": "F", "callid": "call@test",
                "from_uri": "sip:alice@example.org", "to_uri": "sip:bob@example.org", "caller_tag": "a1",
                "caller_contact": "sip:alice@127.0.0.1:7001", "callee_cseq": "0", "caller_route_set": "",
                "caller_bind_addr": "udp:127.0.0.1:5060", "CALLEES": [{
                    "callee_tag": "b1", "callee_contact": "sip:bob@127.0.0.1:7002", "caller_cseq": "1", "callee_route_set": "",
                    "callee_bind_addr": "udp:127.0.0.1:5060"}],
            })
        self.assertEqual(said[0]["timestart"], 1_700_000_000)
        self.assertEqual(said[0]["timeout"], 1_700_043_200)
        self.assertEqual(self.command("dialog:list_ctx", index=0, counter=5)["count"], 1)
        self.assertEqual(self.command("dialog:list_ctx", callid="call@test", from_tag="a1")["Dialog"]["context"], {
            "values": [{"n": 5}, {"s": "a\\tb"}]})
        self.assertEqual(self.command("dialog:list", callid="x"), (404, "No such dialog"))
        self.assertEqual(self.command("dialog:push_var", dlg_val_name="n", dlg_val_value="7", DID=["x", call.did]), "OK")
        self.assertEqual(call.values["n"], "7")

    def test_other_dialogs(self) -> None:
        """A script looks at other calls."""
        self.serve(
            first="""create_dialog(); $dlg_val(who) = $fU; $dlg_val(what) = $rU;""",
            within="""if (is_method("INFO")) {
                get_dialog_info("what", $avp(w), "who", $fU, $var(n)); xlog("L_ALERT", "$var(n) $avp(w)");
                get_dialog_vals($avp(names), $avp(vals), $ci); xlog("L_ALERT", "$(avp(names)[0]) $(avp(vals)[1])");
                $var(me) = $fU; get_dialogs_by_val("who", $var(me), $avp(j), $avp(m)); xlog("L_ALERT", "$avp(m)");
                if (!load_dialog_ctx("nobody")) xlog("L_ALERT", "nobody");
                load_dialog_ctx("$ci"); $dlg_val(x) = 1; xlog("L_ALERT", "$DLG_dir"); unload_dialog_ctx();
                xlog("L_ALERT", "$DLG_dir $dlg_val(x)"); }""",
        )
        self.talk(uri="sip:bob@127.0.0.1:7002")
        self.within("INFO", ALICE)
        self.assertEqual(self.logged(), ["1 bob", "who bob", "1", "nobody", "downstream", "downstream 1"])

    def test_sequential(self) -> None:
        """The script, and the operator, send requests in the dialog."""
        self.serve(within="""if (is_method("MESSAGE"))
            dlg_send_sequential("INFO", "caller", "Signal=5", "application/dtmf-relay", "X-A: b");""")
        self.talk()
        self.within("MESSAGE", ALICE)
        (info,) = self.sent(ALICE)
        self.assertEqual((info.method, info.body, info.content_type, info.header("X-A"), info.from_tag), (
            "INFO", b"Signal=5", "application/dtmf-relay", "b", "b1"))

    def ask(self, **arguments: str) -> list[object]:
        """Begin dialog:send_sequential; what is in the list is its result, once it is there."""
        found: list[object] = []
        Drive(self.wired.server.commands.call("dialog:send_sequential", arguments), found.append, found.append).step()
        return found

    def test_send_sequential(self) -> None:
        """The operator sends requests in a dialog, and is told what they are answered."""
        self.serve()
        self.talk()
        (call,) = self.calls
        found = self.ask(callid="call@test")
        (invite,) = self.sent(ALICE)
        self.assertEqual((invite.method, invite.body, invite.from_tag), ("INVITE", b"", "b1"))
        self.reply_within(invite, 180, ALICE)
        self.assertEqual(found, [])
        self.reply_within(invite, 200, ALICE)
        self.assertEqual((found, self.said(ALICE)), ([{"Code": 200, "Reason": "Reason"}], ["ACK"]))
        found = self.ask(callid=call.did, method="INFO", body="custom:a/b:text", mode="callee", headers="X-A: b")
        (info,) = self.sent(BOB)
        self.assertEqual((info.method, info.body, info.content_type, info.header("X-A")), ("INFO", b"text", "a/b", "b"))
        self.reply_within(info, 481, BOB)
        self.assertEqual(found, [{"Code": 481, "Reason": "Reason"}])
        call.caller.sdp = b"v=0"
        self.ask(callid="call@test", method="UPDATE", body="inbound", mode="callee")
        (update,) = self.sent(BOB)
        self.assertEqual((update.body, update.header("Contact")), (b"v=0", "<sip:alice@127.0.0.1:7001>"))
        self.reply_within(update, 200, BOB)
        for arguments, said in [
            ({"callid": "x"}, "404 Dialog Not Found"), ({"callid": "call@test", "mode": "x"}, "400 Invalid mode"),
            ({"callid": "call@test", "body": "x"}, "400 Invalid body mode"),
            ({"callid": "call@test", "mode": "challenge-x"}, "400 Invalid mode"),
            ({"callid": "call@test", "mode": "Challenge", "method": "INFO", "body": "none"}, "406 Not Acceptable"),
            ({"callid": "call@test", "method": "A", "body": "none", "mode": "caller", "headers": "x"}, "400 Bad parameter value"),
        ]:
            self.assertEqual(str(self.ask(**arguments)[0]), said)
        found = self.ask(callid="call@test", mode="CALLEE", method="INFO", body="none")
        self.assertEqual(self.said(BOB), ["INFO"])
        self.wait(40)
        self.assertEqual(str(found[0]), "408 Request Timeout")
        self.sent(BOB)
        found = self.ask(callid="call@test", mode="challenge", method="UPDATE", body="none")
        (update,) = self.sent(ALICE)
        self.reply_within(update, 200, ALICE)
        self.assertEqual((found, self.said(BOB)), ([{"Code": 400, "Reason": "Reason"}], []))

    def test_challenge(self) -> None:
        """One side is asked for its description, which goes to the other."""
        self.serve()
        self.talk()
        found = self.ask(callid="call@test", mode="challenge-callee", method="UPDATE", body="none")
        (first,) = self.sent(BOB)
        self.assertEqual((first.method, first.body), ("UPDATE", b""))
        tag = f";tag={first.to_tag}".encode()
        data = response(first, 200, extra="Content-Type: application/sdp\r\n").replace(tag + b";tag=b1", tag)
        self.arrive(data.replace(b"Content-Length: 0\r\n\r\n", b"Content-Length: 3\r\n\r\nv=0"), BOB)
        (second,) = self.sent(ALICE)
        self.assertEqual((second.method, second.body, second.content_type), ("UPDATE", b"v=0", "application/sdp"))
        self.reply_within(second, 200, ALICE)
        self.assertEqual(found, [{"Code": 200, "Reason": "Reason"}])

    def test_intervals(self) -> None:
        """Times that are set for one call: before it is made, and in its middle; numbers that are none."""
        self.serve(
            first="""$DLG_options_ping_interval = 20; create_dialog("options-ping-callee"); $DLG_del_delay = 7; $DLG_timeout = -1;
                xlog("L_ALERT", "$DLG_options_ping_interval $DLG_reinvite_ping_interval $DLG_del_delay");""",
            within="""if (is_method("INFO")) { $DLG_options_ping_interval = "50"; $DLG_reinvite_ping_interval = "x";
                dlg_inc_cseq(); dlg_inc_cseq("a1", 5); dlg_inc_cseq("nobody");
                $var(j) = $(DLG_json{s.substr,0,7}); xlog("L_ALERT", "$DLG_options_ping_interval $var(j)"); }""",
        )
        self.talk()
        (call,) = self.calls
        lines = [line for line in self.logged() if "cannot be" not in line]
        self.assertEqual(lines, ["20 <null> 7"])
        self.wait(10)
        self.within("INFO", ALICE)
        (info,) = self.sent(BOB)
        self.assertEqual([line for line in self.logged() if "dlg_" not in line and "cannot" not in line], ['50 {"ID": '])
        self.reply_within(info, 200, BOB)
        self.assertEqual((call.winner.generated, call.caller.generated), (3, 5))
        self.wait(49)
        self.assertEqual(self.said(BOB), [])
        self.wait(1)
        (ping,) = self.sent(BOB)
        self.assertEqual((ping.method, ping.cseq.number), ("OPTIONS", 4))

    def test_validate(self) -> None:
        """Requests that do not fit are told apart, and can be put right."""
        self.serve(within="""validate_dialog(); xlog("L_ALERT", "$rm $retcode"); if (is_method("INFO")) fix_route_dialog();""")
        self.talk()
        self.within("MESSAGE", ALICE)
        self.within("MESSAGE", ALICE, cseq=1, branch="old")
        self.within("ACK", ALICE, cseq=9)
        self.assertEqual(self.logged(), ["ACK 1", "MESSAGE 1", "MESSAGE -1", "ACK -1"])
        self.sent(BOB)
        self.route_set = ["<sip:127.0.0.1:7003;lr>", *self.route_set]
        self.within("INFO", ALICE)
        self.assertEqual(self.logged(), ["INFO -3"])
        (info,) = self.sent(BOB)
        self.assertEqual((info.uri, info.header("Route")), ("sip:bob@127.0.0.1:7002", None))

    def test_prack(self) -> None:
        """A reliable provisional response is acknowledged in the caller's place, once."""
        self.serve(first="""create_dialog("auto-prack");""")
        self.dial()
        extra = "RSeq: 5\r\nRequire: 100rel\r\nContact: <sip:bob@127.0.0.1:7002>\r\n"
        self.answer(self.invited, 183, extra=extra)
        (prack,) = self.sent(BOB)
        self.assertEqual((prack.method, prack.header("RAck"), prack.cseq.number, prack.to_tag), ("PRACK", "5 1 INVITE", 2, "b1"))
        self.reply_within(prack, 200, BOB)
        self.answer(self.invited, 183, extra=extra)
        self.assertEqual(self.said(BOB), [])
