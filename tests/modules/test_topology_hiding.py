"""Tests of sipgw.modules.topology_hiding: two phones, each behind a proxy of its own, that see nothing but us."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.topology_hiding import TopologyHiding
from sipgw.sip.message import Request, parse
from sipgw.testing import Phone, WiredServer, finished
from tests.modules.calls import ALICE, BOB, CAROL, DAVE, Calls
from tests.modules.test_dialog_db import StoredDialing
from tests.proxy.rig import request, response

SCRIPT = """
%s
loadmodule "topology_hiding.so"
%s
route {
    if (has_totag()) {
        if (!topology_hiding_match(%s)) { sl_send_reply(481, "Nothing"); exit; }
        xlog("L_ALERT", "$TH_callee_callid");
        t_relay();
        exit;
    }
    if (is_method("CANCEL")) { t_relay(); exit; }
    %s
    topology_hiding(%s); record_route();
    t_relay();
}
"""
DIALOG = 'loadmodule "rr.so"\nloadmodule "dialog.so"\n'


class Hidden(Calls):
    """Alice behind Carol calls Bob behind Dave."""

    def serve(
        self, flags: str = "", *, dialog: bool = True, params: str = "", match: str = "", first: str | None = None
    ) -> None:
        """Start the server; ``flags``: the arguments of topology_hiding()."""
        begin = ("create_dialog();" if dialog else "") if first is None else first
        head = DIALOG if dialog else 'loadmodule "rr.so"\n'
        self.start(SCRIPT % (head, params, match, f"record_route(); {begin}", flags))

    invited: Any

    def dial(self, *, contact: str = "<sip:alice@127.0.0.1:7001>") -> Any:
        """Alice calls; what Dave receives for Bob."""
        self.sent(DAVE)
        extra = (
            f"Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKfar\r\nRecord-Route: <sip:127.0.0.1:{CAROL};lr>\r\n"
            f"Contact: {contact}\r\n"
        )
        self.arrive(request("INVITE", f"sip:127.0.0.1:{DAVE}", extra=extra))
        (self.invited,) = self.sent(DAVE)
        return self.invited

    def pick_up(self, contact: str = "<sip:bob@127.0.0.1:7002>", status: int = 200) -> Any:
        """Bob answers by Dave; what Alice receives."""
        self.sent(ALICE)
        extra = f"Record-Route: <sip:127.0.0.1:{DAVE};lr>\r\nContact: {contact}\r\n"
        self.arrive(response(self.invited, status, extra=extra), DAVE)
        (answer,) = self.sent(ALICE)
        return answer

    def clean(self, message: Any, *secrets: str) -> Any:
        """Assert that ``message`` shows nothing of the other side."""
        text = re.sub(r"branch=z9hG4bK[^;,]*", "", "\r\n".join(message.lines))  # chance writes any figures there
        for secret in secrets:
            self.assertNotIn(secret, text)
        return message

    def within(self, method: str, sender: int, cseq: int, contact: str = "") -> None:
        """Alice or Bob sends a request in the dialog, to the Contact that it was given."""
        theirs = self.answer_seen if sender == ALICE else self.invited
        call_id = "call@test" if sender == ALICE else self.invited.call_id
        data = request(
            method, theirs.contacts[0].uri_text, port=sender, branch=f"{method}{sender}{cseq}", cseq=cseq, to_tag="b1",
            extra=f"Contact: {contact}\r\n" if contact else "",
        ).replace(b"call@test", call_id.encode())
        if sender != ALICE:
            data = data.replace(b"From: <sip:alice@example.org>;tag=a1", b"From: X").replace(
                b"To: <sip:bob@example.org>;tag=b1", b"To: <sip:alice@example.org>;tag=a1"
            ).replace(b"From: X", b"From: <sip:bob@example.org>;tag=b1")
        self.arrive(data, sender)

    def reply(self, to: Any, status: int, port: int, contact: str = "") -> None:
        """The phone at ``port`` answers a request in the dialog."""
        extra = f"Contact: {contact}\r\n" if contact else ""
        data = response(to, status, extra=extra)
        self.arrive(data.replace(b";tag=b1;tag=b1", b";tag=b1").replace(b";tag=a1;tag=b1", b";tag=a1"), port)

    def talk(self, **options: Any) -> None:
        """A whole call to its ACK; each step shows nothing."""
        invite = self.clean(self.dial(**options), "7001", "7003", "10.0.0.9", "Record-Route")
        self.assertEqual(len(invite.vias), 1)
        self.assertEqual((invite.contacts[0].uri.host, invite.contacts[0].uri.port), ("127.0.0.1", 5060))
        ringing = self.clean(self.pick_up(status=183), "7002", "7004")
        self.answer_seen = answer = self.clean(self.pick_up(), "7002", "7004")
        for message in (ringing, answer):
            self.assertEqual([via.host for via in message.vias], ["127.0.0.1", "10.0.0.9"])
            self.assertEqual(message.call_id, "call@test")
            self.assertEqual(message.headers("Record-Route"), [f"<sip:127.0.0.1:{CAROL};lr>"])
        self.within("ACK", ALICE, 1)
        (ack,) = self.sent(DAVE)
        self.assertEqual((ack.method, ack.uri, ack.headers("Route")), (
            "ACK", "sip:bob@127.0.0.1:7002", [f"<sip:127.0.0.1:{DAVE};lr>"]))
        self.clean(ack, "7001")
        self.assertEqual(ack.call_id, invite.call_id)

    def reinvite_and_end(self) -> None:
        """Alice moves, Bob hangs up: the BYE goes where she is now."""
        self.within("INVITE", ALICE, 2, "<sip:alice2@127.0.0.1:7009>")
        (again,) = self.sent(DAVE)
        self.clean(again, "7009", "7001")
        self.assertEqual((again.uri, len(again.vias)), ("sip:bob@127.0.0.1:7002", 1))
        self.sent(ALICE)
        self.reply(again, 200, DAVE, "<sip:bob2@127.0.0.1:7008>")
        (answer,) = self.sent(ALICE)
        self.clean(answer, "7008", "7002")
        self.invited, self.answer_seen = again, answer
        self.within("ACK", ALICE, 2)
        (ack,) = self.sent(DAVE)
        self.assertEqual(ack.uri, "sip:bob2@127.0.0.1:7008")
        self.within("BYE", BOB, 5)
        (bye,) = self.sent(CAROL)
        self.assertEqual((bye.uri, bye.headers("Route"), bye.call_id), (
            "sip:alice2@127.0.0.1:7009", [f"<sip:127.0.0.1:{CAROL};lr>"], "call@test"))
        self.clean(bye, "7002", "7008")
        self.reply(bye, 200, CAROL)
        (done,) = self.sent(BOB)
        self.assertEqual((done.status, done.call_id, len(done.vias)), (200, again.call_id, 1))
        self.settle()


class CallTests(Hidden):
    """With a dialog."""

    def test_call(self) -> None:
        """Each side sees us, a re-INVITE moves a side, the BYE finds it."""
        self.serve()
        self.talk()
        self.assertEqual(self.invited.contacts[0].uri.user, None)
        self.assertIn(";did=", self.invited.contacts[0].uri_text)
        self.reinvite_and_end()

    def test_flags(self) -> None:
        """Users shown, the dialog in the user, another Call-ID; what OpenSIPS answers for each."""
        for flags, callee, caller, other in (
            ('"U"', "alice", "bob", False), ('"D"', "X.did.*", "X.did.*", False), ('"C"', "", "", True),
            ('"CD"', "X.did.*", "X.did.*", True), ('"U", "/caller/callee"', "callee", "caller", False),
            ('"", "//callee"', "callee", "", False), ('"U", "us"', "us", "us", False),
        ):
            self.serve(flags)
            self.talk()
            seen = [message.contacts[0].uri.user or "" for message in (self.invited, self.answer_seen)]
            seen = ["X.did.*" if user.startswith("X.did.") else user for user in seen]
            self.assertEqual(seen, [callee, caller], flags)
            self.assertEqual(self.invited.call_id.startswith("DLGCH_"), other, flags)
            self.assertEqual("call@test" in self.invited.call_id, not other)
            self.reinvite_and_end()

    def test_kept_contacts(self) -> None:
        """With a and A the Contact that was shown first is shown for good."""
        for flags, same in (('"U"', False), ('"UaA"', True)):
            self.serve(flags)
            self.talk()
            first = [message.header("Contact") for message in (self.invited, self.answer_seen)]
            self.reinvite_and_end()
            then = [message.header("Contact") for message in (self.invited, self.answer_seen)]
            self.assertEqual(first == then, same, flags)

    def test_passed_parameters(self) -> None:
        """Named parameters of a Contact are shown, others are not."""
        for dialog in (True, False):
            self.serve(
                dialog=dialog,
                params='modparam("topology_hiding", "th_passed_contact_uri_params", "ob;pn")\n'
                'modparam("topology_hiding", "th_passed_contact_params", "x")\n',
            )
            self.talk(contact='"A" <sip:alice@127.0.0.1:7001;OB;secret=1>;x=2;q=0.5')
            text = self.invited.header("Contact") or ""
            self.assertTrue(text.endswith(";OB>;x=2"), text)
            self.reinvite_and_end()

    def test_force_dialog(self) -> None:
        """A dialog is made where the script made none."""
        self.serve(first="", params='modparam("topology_hiding", "force_dialog", 1)\n')
        self.talk()
        self.assertIn(";did=", self.invited.contacts[0].uri_text)
        self.reinvite_and_end()

    def test_match_modes(self) -> None:
        """By the name alone, or by Call-ID and tags alone; the name of another call is no way in."""
        for mode in ('"DID_ONLY"', '"DID_NONE"'):
            self.serve('"C"', match=mode)
            self.talk()
            self.reinvite_and_end()
        self.serve(match='"DID_ONLY"')
        self.talk()
        self.arrive(request("BYE", self.answer_seen.contacts[0].uri_text, to_tag="b1", cseq=2, branch="x").replace(b"a1", b"zz"))
        self.arrive(request("BYE", "sip:127.0.0.1:5060", to_tag="b1", cseq=2, branch="y"))
        self.assertEqual(self.said(ALICE), ["481 BYE", "481 BYE"])
        self.assertEqual(self.said(DAVE), [])

    def test_failures(self) -> None:
        """A refusal is clean; a redirection says where to."""
        for status, contact in ((486, ""), (302, "<sip:bob@127.0.0.1:7002>")):
            self.serve()
            self.dial()
            self.sent(ALICE)
            extra = f"Contact: {contact}\r\n" if contact else ""
            self.arrive(response(self.invited, status, extra=extra), DAVE)
            (answer,) = self.sent(ALICE)
            self.assertEqual((answer.status, answer.header("Contact") or "", len(answer.vias)), (status, contact, 2))
            self.assertEqual(self.said(DAVE), ["ACK"])

    def test_cancel(self) -> None:
        """The caller gives up: the callee is cancelled by the Call-ID it knows."""
        self.serve('"C"')
        self.dial()
        self.pick_up(status=183)
        extra = "Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKfar\r\n"
        self.arrive(request("CANCEL", f"sip:127.0.0.1:{DAVE}", extra=extra))
        (cancel,) = self.sent(DAVE)
        self.assertEqual((cancel.method, cancel.call_id), ("CANCEL", self.invited.call_id))
        self.clean(cancel, "7001", "10.0.0")
        self.arrive(response(cancel, 200), DAVE)
        self.arrive(response(self.invited, 487), DAVE)
        self.assertEqual(self.said(ALICE), ["200 CANCEL", "487"])

    def test_our_own_requests(self) -> None:
        """Pings and the BYEs at the end of a call's time hide as much."""
        self.serve('"C"', first='$DLG_timeout = 40; create_dialog("options-ping-callee,bye-on-timeout");')
        self.talk()
        self.wait(30.2)
        (ping,) = self.sent(DAVE)
        self.clean(ping, "7001", "7003")
        self.assertEqual((ping.method, ping.call_id), ("OPTIONS", self.invited.call_id))
        self.assertIn(";did=", ping.header("Contact") or "")
        self.reply(ping, 200, DAVE)
        self.wait(10)
        ends = [self.sent(CAROL)[0], self.sent(DAVE)[0]]
        self.assertEqual([(end.method, end.call_id) for end in ends], [
            ("BYE", "call@test"), ("BYE", self.invited.call_id)])
        self.reply(ends[0], 200, CAROL)
        self.reply(ends[1], 200, DAVE)
        self.settle()

    def test_variable(self) -> None:
        """$TH_callee_callid is the callee's Call-ID, or null."""
        for flags in ("C", "U"):
            self.serve(f'"{flags}"')
            self.talk()
            self.assertEqual(self.logged(), [self.invited.call_id if flags == "C" else "<null>"])

    def test_refused(self) -> None:
        """Flags, users and parameters that cannot be are refused before the server starts."""
        def setting(name: str, value: str) -> str:
            return f'modparam("topology_hiding", "{name}", "{value}")\n'

        for flags, params, why in (
            ('"X"', "", "no flag 'X'"), ('"U", "a@b"', "", "cannot be the user"),
            ("", setting("th_contact_encode_scheme", "rot13"), "base64 or base32"),
        ):
            with self.assertRaisesRegex((AssertionError, ValueError), why):
                self.serve(flags, params=params)
        self.serve()
        module = TopologyHiding(self.wired.server, th_use_param="a", th_contact_encode_param_password="b:c")
        with self.assertRaisesRegex(ValueError, "does not name"):
            finished(module.start())


class ContactTests(Hidden):
    """Without a dialog."""

    KEY = 'modparam("topology_hiding", "th_contact_encode_param_password", "%s")\n'

    def test_call(self) -> None:
        """All is in the Contact, however it is written, and nobody can read it."""
        for params in ("", 'modparam("topology_hiding", "th_contact_encode_scheme", "base32")\n', self.KEY % "thinfo:secret"):
            self.serve(dialog=False, params=params)
            self.talk()
            self.assertIn(";thinfo=", self.invited.contacts[0].uri_text)
            self.assertIsNone(self.invited.contacts[0].uri.user)
            self.reinvite_and_end()

    def test_users(self) -> None:
        """U shows the users."""
        self.serve('"U"', dialog=False)
        self.talk()
        self.assertEqual((self.invited.contacts[0].uri.user, self.answer_seen.contacts[0].uri.user), ("alice", "bob"))
        self.reinvite_and_end()

    def test_routes_of_the_callee_are_kept(self) -> None:
        """After a re-INVITE of the caller without Record-Route both route sets are still known."""
        self.serve(dialog=False)
        self.talk()
        self.within("INVITE", ALICE, 2, "<sip:alice2@127.0.0.1:7009>")
        (again,) = self.sent(DAVE)
        self.sent(ALICE)
        self.reply(again, 200, DAVE, "<sip:bob2@127.0.0.1:7008>")
        (self.answer_seen,) = self.sent(ALICE)
        self.invited = again
        self.within("INVITE", BOB, 8, "<sip:bob3@127.0.0.1:7007>")
        (back,) = self.sent(CAROL)
        self.assertEqual(back.headers("Route"), [f"<sip:127.0.0.1:{CAROL};lr>"])
        self.answer_seen = back
        self.within("INFO", ALICE, 3)
        (info,) = self.sent(DAVE)
        self.assertEqual((info.uri, info.headers("Route")), ("sip:bob3@127.0.0.1:7007", [f"<sip:127.0.0.1:{DAVE};lr>"]))

    def test_forged(self) -> None:
        """What was changed, or made with another secret, leads nowhere."""
        self.serve(dialog=False, params=self.KEY % "thinfo:secret")
        self.talk()
        good = self.answer_seen.contacts[0].uri_text
        self.serve(dialog=False, params=self.KEY % "thinfo:other")
        plain = "sip:127.0.0.1:5060"
        uris = [good, f"{plain};thinfo=", f"{plain};thinfo=AAAA", plain, good.replace("5060", "5062")]
        for number, uri in enumerate(uris):
            self.arrive(request("BYE", uri, to_tag="b1", cseq=2, branch=f"f{number}"))
        self.assertEqual(self.said(ALICE), ["481 BYE"] * len(uris))
        self.serve(dialog=False, params=self.KEY % "thinfo:secret")
        place = good.index("thinfo=") + 7
        for number in range(0, len(good) - place, 7):
            at = place + number
            bad = good[:at] + ("A" if good[at] != "A" else "B") + good[at + 1 :]
            self.arrive(request("BYE", bad, to_tag="b1", cseq=2, branch=f"g{number}"))
        self.assertEqual(set(self.said(ALICE)), {"481 BYE"})
        self.assertEqual((self.said(DAVE), self.said(BOB)), ([], []))

    def test_restart_and_rotation(self) -> None:
        """With a password of one's own calls outlive the server, and a change of the password."""
        self.serve(dialog=False, params=self.KEY % "thinfo:old")
        self.talk()
        rotated = self.KEY % "thnew:new" + self.KEY % "thinfo:old" + 'modparam("topology_hiding", "th_use_param", "thnew")\n'
        self.serve(dialog=False, params=rotated)
        self.reinvite_and_end()
        self.assertIn(";thnew=", self.invited.contacts[0].uri_text)

    def test_other_methods(self) -> None:
        """A SUBSCRIBE is hidden too, and its NOTIFY comes back."""
        self.serve(dialog=False)
        extra = "Event: x\r\nContact: <sip:alice@127.0.0.1:7001>\r\n"
        self.arrive(request("SUBSCRIBE", f"sip:127.0.0.1:{DAVE}", extra=extra))
        (self.invited,) = self.sent(DAVE)
        self.clean(self.invited, "7001")
        self.within("NOTIFY", BOB, 1, "<sip:bob@127.0.0.1:7002>")
        (notify,) = self.sent(ALICE)
        self.assertEqual((notify.method, notify.uri), ("NOTIFY", "sip:alice@127.0.0.1:7001"))
        self.clean(notify, "7002")


ONE_WAY = """
log_level = -1
socket = udp:127.0.0.1:5060
socket = udp:127.0.0.2:5060 tag inside
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
loadmodule "topology_hiding.so"
modparam("topology_hiding", "th_internal_trusted_tag", "inside")
modparam("topology_hiding", "th_contact_encode_param_password", "thinfo:secret")
%s
route {
    if (has_totag()) {
        if (!topology_hiding_match()) { sl_send_reply(481, "Nothing"); exit; }
        xlog("L_ALERT", "$TH_decoded_contact $(TH_decoded_contact(user)) $(TH_decoded_contact(port)) $TH_decoded_routes_count "
            "$(TH_decoded_routes[0]) $(TH_decoded_routes(port)[-1]) $(TH_decoded_routes(params)[0]) $(TH_decoded_routes[1])");
        t_relay();
        exit;
    }
    xlog("L_ALERT", "$TH_decoded_contact $TH_decoded_routes_count");
    $socket_out = "udp:" + $hdr(X-Out) + ":5060";
    $du = "sip:" + $hdr(X-Next);
    topology_hiding(%s);
    t_relay();
}
"""
INSIDE, OUTSIDE = "127.0.0.2", "127.0.0.1"


class OneWayTests(SynchronousTestCase):
    """Alice outside, behind a proxy of hers, and Bob inside, behind one of his: what goes in keeps all, what goes out nothing."""

    def serve(self, params: str = "", flags: str = "") -> None:
        """Start the server; each phone has a port of its own."""
        self.wired = WiredServer(ONE_WAY % (params, flags))
        self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB, CAROL, DAVE)}

    def send(self, port: int, data: bytes, by: str) -> None:
        """The phone at ``port`` sends to the socket ``by`` of ours."""
        self.phones[port].send(data, (by, 5060))

    def heard(self, port: int) -> Any:
        """The one message that it has received."""
        (found,) = [each for each in self.phones[port].inbox if getattr(each, "status", 200) != 100]
        self.phones[port].inbox.clear()
        return found

    def logged(self) -> list[str]:
        """What the script logs."""
        lines = [text for level, text in self.wired.lines if level <= -1]
        self.wired.lines.clear()
        return lines

    def invite(self, sender: int, by: str, out: str, next_hop: int, proxy: int) -> Any:
        """The first request, which has come by ``proxy``; what the next hop receives."""
        data = request("INVITE", "sip:bob@example.org", port=sender, extra=(
            f"Via: SIP/2.0/UDP 10.0.0.9;branch=z9hG4bKfar\r\nRecord-Route: <sip:127.0.0.1:{proxy};lr>\r\n"
            f"Contact: <sip:alice@127.0.0.1:{sender}>\r\nX-Out: {out}\r\nX-Next: 127.0.0.1:{next_hop}\r\n"
        ))
        self.send(proxy, data, by)
        return self.heard(next_hop)

    def ok(self, to: Any, port: int, by: str, contact: str = "", routes: str = "") -> None:
        """A 200 with what a phone copies."""
        records = "".join(f"Record-Route: {value}\r\n" for value in ([routes] if routes else []) + to.headers("Record-Route"))
        extra = records + (f"Contact: {contact}\r\n" if contact else "")
        data = response(to, 200, extra=extra)
        self.send(port, data.replace(b";tag=b1;tag=b1", b";tag=b1").replace(b";tag=a1;tag=b1", b";tag=a1"), by)

    def request_within(self, method: str, port: int, uri: str, routes: list[str], by: str, cseq: int, callee: bool) -> None:
        """A request in the dialog."""
        extra = "".join(f"Route: {route}\r\n" for route in routes) + f"Contact: <sip:moved{port}@127.0.0.1:{port}>\r\n"
        data = request(method, uri, port=port, branch=f"{method}{cseq}", cseq=cseq, to_tag="b1", extra=extra)
        if callee:
            data = data.replace(b"From: <sip:alice@example.org>;tag=a1", b"From: X").replace(
                b"To: <sip:bob@example.org>;tag=b1", b"To: <sip:alice@example.org>;tag=a1"
            ).replace(b"From: X", b"From: <sip:bob@example.org>;tag=b1")
        self.send(port, data, by)

    def test_inward(self) -> None:
        """Alice calls in: Bob sees her, her proxy, and us; she sees nothing. Bob's re-INVITE comes by our Record-Route, hers
        by our Contact."""
        self.serve(flags='"U"')
        invite = self.invite(ALICE, OUTSIDE, INSIDE, DAVE, CAROL)
        self.assertEqual(self.logged(), ["<null> 0"])
        ours, theirs = invite.headers("Record-Route")
        self.assertRegex(ours, r"^<sip:127\.0\.0\.2:5060;thinfo=[\w-]+;lr>$")
        self.assertEqual((theirs, len(invite.vias)), (f"<sip:127.0.0.1:{CAROL};lr>", 3))
        self.assertEqual(invite.contacts[0].uri_text, f"sip:alice@127.0.0.1:{ALICE}")
        self.ok(invite, DAVE, INSIDE, f"<sip:bob@127.0.0.1:{BOB}>", f"<sip:127.0.0.1:{DAVE};lr>")
        answer = self.heard(ALICE)
        text = "\r\n".join(answer.lines)
        self.assertEqual(answer.headers("Record-Route"), [f"<sip:127.0.0.1:{CAROL};lr>"])
        self.assertEqual([via.host for via in answer.vias], ["127.0.0.1", "10.0.0.9"])
        self.assertEqual((answer.contacts[0].uri.user, answer.contacts[0].uri.host), ("bob", OUTSIDE))
        for secret in (str(BOB), str(DAVE), INSIDE):
            self.assertNotIn(secret, text)
        contact = answer.contacts[0].uri_text
        self.request_within("ACK", CAROL, contact, [], OUTSIDE, 1, False)
        ack = self.heard(DAVE)
        self.assertEqual((ack.uri, ack.headers("Route")), (f"sip:bob@127.0.0.1:{BOB}", [f"<sip:127.0.0.1:{DAVE};lr>"]))
        self.assertEqual(self.logged(), [
            f"<sip:bob@127.0.0.1:{BOB}> bob {BOB} 1 <sip:127.0.0.1:{DAVE};lr> {DAVE} lr <null>"])
        self.outward_within(BOB, ours, theirs, f"sip:alice@127.0.0.1:{ALICE}", CAROL)
        self.request_within("BYE", CAROL, contact, [], OUTSIDE, 9, False)
        bye = self.heard(DAVE)
        self.assertEqual((len(bye.vias), bye.contacts[0].uri_text), (2, f"sip:moved{CAROL}@127.0.0.1:{CAROL}"))
        self.ok(bye, DAVE, INSIDE)
        self.assertEqual(len(self.heard(CAROL).vias), 1)

    def outward_within(self, port: int, ours: str, theirs: str, uri: str, proxy: int) -> None:
        """Who is inside sends a re-INVITE by our Record-Route: the other side sees nothing of it."""
        self.request_within("INVITE", port, uri, [f"{ours}, {theirs}"], INSIDE, 5, port == BOB)
        again = self.heard(proxy)
        self.assertEqual((again.uri, again.headers("Route"), len(again.vias)), (uri, [theirs], 1))
        self.assertEqual((again.via.host, again.contacts[0].uri.host), (OUTSIDE, OUTSIDE))
        self.assertNotIn(f"127.0.0.1:{port}", "\r\n".join(again.lines))
        self.ok(again, proxy, OUTSIDE, "<sip:there@127.0.0.1:7100>")
        answer = self.heard(port)
        self.assertEqual((answer.contacts[0].uri_text, len(answer.vias)), ("sip:there@127.0.0.1:7100", 1))
        self.logged()
        back = again.contacts[0].uri_text
        self.request_within("INFO", proxy, back, [], OUTSIDE, 6, port != BOB)
        info = self.heard(DAVE if port == ALICE else port)
        self.assertEqual(info.uri, f"sip:moved{port}@127.0.0.1:{port}")
        self.logged()

    def test_outward(self) -> None:
        """Alice is inside and calls out: Bob sees nothing of her, she sees him, his proxy and us."""
        self.serve()
        invite = self.invite(ALICE, INSIDE, OUTSIDE, CAROL, DAVE)
        text = "\r\n".join(invite.lines)
        self.assertEqual((len(invite.vias), invite.headers("Record-Route"), invite.contacts[0].uri.user), (1, [], None))
        for secret in (str(ALICE), str(DAVE), "10.0.0.9", INSIDE):
            self.assertNotIn(secret, text.partition("X-Out")[0])
        self.ok(invite, CAROL, OUTSIDE, f"<sip:bob@127.0.0.1:{BOB}>", f"<sip:127.0.0.1:{CAROL};lr>")
        answer = self.heard(ALICE)
        theirs, ours, own = answer.headers("Record-Route")
        self.assertEqual((theirs, own), (f"<sip:127.0.0.1:{CAROL};lr>", f"<sip:127.0.0.1:{DAVE};lr>"))
        self.assertRegex(ours, r"^<sip:127\.0\.0\.2:5060;thinfo=[\w-]+;lr>$")
        self.assertEqual([via.host for via in answer.vias], ["127.0.0.1", "10.0.0.9"])
        self.assertEqual(answer.contacts[0].uri_text, f"sip:bob@127.0.0.1:{BOB}")
        self.outward_within(ALICE, ours, theirs, f"sip:bob@127.0.0.1:{BOB}", CAROL)

    def test_both_inside(self) -> None:
        """Between two that are inside all is seen, and nothing is sealed but our Record-Route."""
        self.serve()
        invite = self.invite(ALICE, INSIDE, INSIDE, BOB, DAVE)
        self.assertEqual((len(invite.vias), len(invite.headers("Record-Route"))), (3, 2))
        self.ok(invite, BOB, INSIDE, f"<sip:bob@127.0.0.1:{BOB}>")
        answer = self.heard(ALICE)
        self.assertEqual((answer.headers("Record-Route"), answer.contacts[0].uri_text), (
            invite.headers("Record-Route"), f"sip:bob@127.0.0.1:{BOB}"))

    def test_another_server(self) -> None:
        """A Route that another server has made leaves by the socket with th_external_socket_tag, or is refused without; so is
        what comes from outside, or is forged."""
        self.serve()
        invite = self.invite(ALICE, OUTSIDE, INSIDE, BOB, CAROL)
        ours, theirs = invite.headers("Record-Route")
        foreign = ours.replace("127.0.0.2", "127.0.0.3")
        uri = f"sip:alice@127.0.0.1:{ALICE}"
        for route, by in ((foreign, INSIDE), (ours, OUTSIDE), (ours.replace("thinfo=", "thinfo=A"), INSIDE)):
            self.request_within("INFO", BOB, uri, [route], by, 3, True)
            self.assertEqual(self.heard(BOB).status, 481)
        self.serve('modparam("topology_hiding", "th_external_socket_tag", "outside")\n')
        self.wired.server.user.sockets[0].tag = "outside"
        self.request_within("INFO", BOB, uri, [foreign, theirs], INSIDE, 4, True)
        info = self.heard(CAROL)
        self.assertEqual((info.uri, info.headers("Route"), info.via.host), (uri, [theirs], OUTSIDE))

    def test_without_route(self) -> None:
        """Without th_auto_route_on_trusted_socket nothing of ours is in the way."""
        self.serve('modparam("topology_hiding", "th_auto_route_on_trusted_socket", 0)\n')
        invite = self.invite(ALICE, OUTSIDE, INSIDE, BOB, CAROL)
        self.assertEqual(invite.headers("Record-Route"), [f"<sip:127.0.0.1:{CAROL};lr>"])
        self.serve('modparam("topology_hiding", "th_auto_route_on_trusted_socket", 0)\n')
        invite = self.invite(ALICE, INSIDE, OUTSIDE, CAROL, DAVE)
        self.ok(invite, CAROL, OUTSIDE, f"<sip:bob@127.0.0.1:{BOB}>", f"<sip:127.0.0.1:{CAROL};lr>")
        self.assertEqual(self.heard(ALICE).headers("Record-Route"), [f"<sip:127.0.0.1:{CAROL};lr>", f"<sip:127.0.0.1:{DAVE};lr>"])


class RestartTests(StoredDialing):
    """A dialog in a database."""

    def test_restart(self) -> None:
        """After a kill requests of both sides find their way, and what was hidden stays hidden."""
        self.store(first='create_dialog(); topology_hiding("C", "/us/them");', params='loadmodule "topology_hiding.so"\n',
                   within="")
        self.script = self.script.replace("loose_route()", "topology_hiding_match()")
        self.start(self.script)
        self.dial()
        seen = self.pick_up()
        self.assertEqual(seen.contacts[0].uri.user, "us")
        (row,) = self.rows()
        self.assertEqual(row["module_flags"], 2 + 8)
        self.restart()
        self.sent(ALICE), self.sent(BOB)
        data = request("INFO", seen.contacts[0].uri_text, to_tag="b1", cseq=2, branch="later")
        self.arrive(data, ALICE)
        (info,) = self.sent(BOB)
        self.assertEqual((info.uri, info.call_id), ("sip:bob@127.0.0.1:7002", self.invited.call_id))
        theirs = self.invited.contacts[0].uri_text
        bye = data.replace(b"INFO", b"BYE").replace(seen.contacts[0].uri_text.encode(), theirs.encode()).replace(
            b"<sip:alice@example.org>;tag=a1", b"X").replace(b"<sip:bob@example.org>;tag=b1", b"<sip:alice@example.org>;tag=a1"
        ).replace(b"X", b"<sip:bob@example.org>;tag=b1").replace(b"call@test", self.invited.call_id.encode()).replace(
            b"later", b"end").replace(b"7001", b"7002")
        self.assertIsInstance(parse(bye), Request)
        self.arrive(bye, BOB)
        (heard,) = [message for message in self.sent(ALICE) if isinstance(message, Request)]
        self.assertEqual((heard.uri, heard.call_id), ("sip:alice@127.0.0.1:7001", "call@test"))
