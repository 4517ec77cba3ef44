"""Tests of sipgw.modules.event_routing: scripts that wait for events, and branches for contacts that come while it rings."""

from __future__ import annotations

from tests.modules.calls import ALICE, BOB, CAROL, DAVE, Calls
from tests.proxy.rig import request

MODULES = """
loadmodule "event_routing.so"
loadmodule "signaling.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
"""
PUSH = MODULES + """
route {
    if (is_method("REGISTER")) { save("location"); exit; }
    if (is_method("CANCEL")) { t_relay(); exit; }
    t_newtran();
    t_wait_for_new_branches();
    $avp(filter) = "aor=" + $rU + "@" + $rd;
    notify_on_event("E_UL_CONTACT_INSERT", $avp(filter), "fork_call", 20);
    if (lookup("location")) t_relay();
}
route[fork_call] {
    xlog("L_ALERT", "$avp(aor) is at $avp(uri): $(avp(filter))");
    t_inject_branches("event");
}
"""
PICKUP = MODULES + """
route {
    if (is_method("REGISTER")) { save("location"); exit; }
    if ($rU == "33") {
        t_newtran();
        t_reply(480, "Gone");
        $avp(name) = "group"; $avp(value) = "1";
        $avp(name) = "picker"; $avp(value) = "sip:dave@127.0.0.1";
        raise_event("E_CALL_PICKUP", $avp(name), $avp(value));
        exit;
    }
    t_newtran();
    $avp(filter) = "group=1";
    notify_on_event("E_CALL_PICKUP", $avp(filter), "picked", 20);
    t_relay();
}
route[picked] {
    $ru = $avp(picker);
    if (lookup("location")) t_inject_branches("msg", "cancel");
}
event_route[E_CALL_PICKUP] { $var(heard) = 1; }
"""
WAITS = MODULES + """
event_route[E_DOOR] { $var(opened) = 1; }
route {
    if (is_method("CANCEL")) { t_relay(); exit; }
    if (is_method("MESSAGE")) {
        $avp(n) = "who"; $avp(v) = $rU;
        $avp(n) = "floor"; $avp(v) = 3;
        raise_event("E_DOOR", $avp(n), $avp(v));
        send_reply(200, "OK");
        xlog("L_ALERT", "raised");
        exit;
    }
    $avp(f) = $(hdr(X-Filter){s.select,0,;});
    if ($(hdr(X-Filter){s.select,1,;}) != NULL) $avp(f) = $(hdr(X-Filter){s.select,1,;});
    if ($rU == "nothing") { wait_for_event("E_NOTHING", $avp(f), 10); $var(rc) = $rc; route(report, $var(rc)); exit; }
    if ($rU == "plain") { wait_for_event("E_DOOR", $avp(f), 10); $var(rc) = $rc; route(report, $var(rc)); exit; }
    async(wait_for_event("E_DOOR", $avp(f), 10), resume);
}
route[resume] { $var(rc) = $rc; route(report, $var(rc)); }
route[report] { xlog("L_ALERT", "$rU: $param(1) $avp(who) $avp(floor)"); t_reply(486, "Busy"); }
"""


def register(user: str, port: int, number: int = 1) -> bytes:
    """A REGISTER for a phone at ``port``."""
    more = f"Contact: <sip:{user}@127.0.0.1:{port}>\r\nExpires: 600\r\n"
    return request("REGISTER", "sip:127.0.0.1", branch=f"reg{number}", port=port, extra=more).replace(
        b"To: <sip:bob@example.org>", f"To: <sip:{user}@127.0.0.1>".encode()
    )


class PushTests(Calls):
    """A call that waits for its callee to register."""

    def test_new_contact(self) -> None:
        """It rings where the callee has registered meanwhile; others' contacts are none of its business."""
        self.start(PUSH)
        self.arrive(request("INVITE", uri="sip:bob@127.0.0.1"))
        self.assertEqual(self.said(ALICE), ["100"])
        self.arrive(register("carol", CAROL), CAROL)
        self.wait(0.1)
        self.assertEqual(self.said(CAROL), ["200 REGISTER"])
        self.arrive(register("bob", BOB), BOB)
        self.wait(0.1)
        answer, invite = self.sent(BOB)
        self.assertEqual((answer.status, invite.method, invite.uri), (200, "INVITE", f"sip:bob@127.0.0.1:{BOB}"))
        self.assertEqual(self.logged(), [f"bob@127.0.0.1 is at sip:bob@127.0.0.1:{BOB}: <null>"])
        self.answer(invite, 200)
        self.assertEqual(self.said(ALICE), ["200"])

    def test_beside_others(self) -> None:
        """It rings at the contact that is there and at the new one; a third comes too late."""
        self.start(PUSH)
        self.arrive(register("bob", BOB), BOB)
        self.sent(BOB)
        (first,) = self.invite(BOB, uri="sip:bob@127.0.0.1")
        self.answer(first, 180)
        self.arrive(register("bob", CAROL, 2), CAROL)
        self.wait(0.1)
        _, second = self.sent(CAROL)
        self.assertEqual(second.method, "INVITE")
        self.wait(20)
        self.arrive(register("bob", DAVE, 3), DAVE)
        self.wait(0.1)
        self.assertEqual(self.said(DAVE), ["200 REGISTER"])
        self.answer(second, 486, CAROL)
        self.answer(first, 486)
        self.wait(100)
        self.assertEqual(self.said(ALICE)[-1], "486")

    def test_over(self) -> None:
        """A contact that comes after the call has ended changes nothing, and nothing is left of the wish."""
        self.start(PUSH)
        self.arrive(request("INVITE", uri="sip:bob@127.0.0.1"))
        self.arrive(request("CANCEL", uri="sip:bob@127.0.0.1"))
        self.assertEqual(self.said(ALICE), ["100", "200 CANCEL", "487"])
        self.arrive(register("bob", BOB), BOB)
        self.wait(0.1)
        self.assertEqual(self.said(BOB), ["200 REGISTER"])
        event = self.wired.user.events.find("E_UL_CONTACT_INSERT")
        assert event is not None
        self.assertTrue(event.heard)
        self.wait(20)
        self.assertFalse(event.heard)
        self.settle()

    def test_pickup(self) -> None:
        """A call is taken from one phone to another by an event of the script."""
        self.start(PICKUP)
        self.arrive(register("dave", DAVE), DAVE)
        self.sent(DAVE)
        (bob,) = self.invite(BOB)
        self.answer(bob, 180)
        self.arrive(request("INVITE", uri="sip:33@127.0.0.1", branch="two", port=DAVE), DAVE)
        self.wait(0.1)
        self.assertEqual(self.said(BOB), ["CANCEL"])
        dave = self.sent(DAVE)[-1]
        self.assertEqual((dave.method, dave.uri), ("INVITE", f"sip:dave@127.0.0.1:{DAVE}"))
        self.answer(bob, 487)
        self.answer(dave, 200, DAVE)
        self.assertEqual(self.said(ALICE)[-1], "200")


class WaitTests(Calls):
    """Runs that wait."""

    def ask(self, user: str, wanted: str, branch: str = "one") -> None:
        """A call that waits for an event."""
        self.arrive(request("INVITE", uri=f"sip:{user}@127.0.0.1", branch=branch, extra=f"X-Filter: {wanted}\r\n"))

    def open(self, who: str, branch: str) -> list[str]:
        """Somebody opens the door; what the script says."""
        self.arrive(request("MESSAGE", uri=f"sip:{who}@127.0.0.1", branch=branch))
        self.wait(0.1)
        return self.logged()

    def test_events(self) -> None:
        """A run goes on when an event comes that fits all its filters, after what raised it, and only once."""
        self.start(WAITS)
        table = (
            ("plain", "who=eve", "plain: 1 eve 3"),
            ("async", "WHO=e?[a-f]", "async: 1 eve 3"),
            ("plain", "who=*v*;floor=3", "plain: 1 eve 3"),
            ("async", "colour=red;who=eve", "async: 1 eve 3"),
            ("plain", "nonsense", "plain: 1 eve 3"),
            ("plain", "who=[", ""),
            ("async", "who=eve;floor=4", ""),
            ("async", "who=adam", ""),
        )
        for number, (user, wanted, expected) in enumerate(table):
            self.ask(user, wanted, f"b{number}")
            self.assertEqual([line for line in self.logged() if "is no filter" not in line], [], wanted)
            said = self.open("eve", f"m{number}")
            self.assertEqual(said, ["raised", expected] if expected else ["raised"], wanted)
            self.assertEqual(self.open("eve", f"n{number}"), ["raised"])
            self.wait(10)
            self.logged()
        self.assertEqual(set(self.said(ALICE)), {"100", "486", "200 MESSAGE"})
        self.settle()

    def test_timeout(self) -> None:
        """Where no event comes, -2 does; an event without a name that is known is refused at once."""
        self.start(WAITS)
        for user in ("plain", "async"):
            self.ask(user, "who=eve", user)
            self.wait(9.9)
            self.assertEqual(self.logged(), [])
            self.wait(0.2)
            self.assertEqual(self.logged(), [f"{user}: -2 <null> <null>"])
        self.ask("nothing", "who=eve", "three")
        self.assertEqual(self.logged(), ["event_routing: there is no event E_NOTHING", "nothing: -1 <null> <null>"])
        self.settle()

    def test_cancelled(self) -> None:
        """Who waits can be cancelled; what comes later finds nobody."""
        self.start(WAITS)
        self.ask("plain", "who=eve")
        self.arrive(request("CANCEL", uri="sip:plain@127.0.0.1"))
        self.assertEqual(self.said(ALICE), ["100", "200 CANCEL", "487"])
        self.assertEqual(self.open("eve", "m"), ["raised", "plain: 1 eve 3"])
        self.assertEqual(self.said(ALICE), ["200 MESSAGE"])
        self.settle()

    def test_many(self) -> None:
        """Two that wait for the same event both get it."""
        self.start(WAITS)
        self.ask("plain", "who=eve", "one")
        self.ask("async", "who=*", "two")
        self.assertEqual(self.open("eve", "m"), ["raised", "plain: 1 eve 3", "async: 1 eve 3"])
        event = self.wired.user.events.find("E_DOOR")
        assert event is not None
        self.assertEqual([each.socket for each in self.wired.user.events.subscriptions(event)], ["route:E_DOOR"])
        self.settle()
