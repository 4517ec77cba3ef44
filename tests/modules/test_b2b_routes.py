"""Tests of sipgw.modules._b2b_routes: what the routes of b2b_entities see and change; and what a script changes for b2b_logic."""

from __future__ import annotations

from typing import Any

from sipgw.testing import finished
from tests.modules.calls import ALICE, BOB
from tests.modules.test_b2b_logic import SDP, Back
from tests.proxy.rig import request

PARAMS = """
    loadmodule "textops.so"
    modparam("b2b_logic", "custom_headers", "X-Seen")
    modparam("b2b_entities", "script_req_route", "asked")
    modparam("b2b_entities", "script_reply_route", "answered")
"""
ROUTES = """
route[asked] {
    xlog("L_ALERT", "$rm $b2b_logic.entity(id)");
    append_hf("X-Seen: $rm\\r\\n");
}
route[answered] {
    xlog("L_ALERT", "$rs $rm $b2b_logic.entity(id)");
    append_hf("X-Seen: $rs\\r\\n");
}
"""


class RoutesTests(Back):
    """Headers that are put in, and a log of what was seen."""

    def test_call(self) -> None:
        """Requests within the call and responses, each once; those that begin one, 100 and repetitions are not shown."""
        self.serve(params=PARAMS, rest=ROUTES)
        self.assertIsNone(self.dial().header("X-Seen"))
        self.answer(self.invited, 100)
        ringing = self.ring()
        self.assertEqual(ringing.header("X-Seen"), "180")
        answer = self.pick_up()
        self.assertEqual((answer.header("X-Seen"), answer.body.decode()), ("200", SDP % "bob"))
        self.assertEqual(self.logged(), ["180 INVITE client1", "200 INVITE client1", "ACK server1"])
        self.within("INVITE", BOB, sdp=SDP % "new")
        (again,) = [one for one in self.sent(ALICE) if one.lines[0].startswith("INVITE")]
        self.assertEqual((again.header("X-Seen"), again.body.decode()), ("INVITE", SDP % "new"))
        self.reply(again, 200, ALICE)
        self.reply(again, 200, ALICE)
        (ok,) = [one for one in self.sent(BOB) if one.lines[0].startswith("SIP/2.0 200")]
        self.assertEqual(ok.header("X-Seen"), "200")
        self.within("ACK", BOB, cseq=501)
        self.assertEqual(self.said(ALICE), ["ACK"])
        self.assertEqual(self.logged(), ["INVITE client1", "200 INVITE server1", "ACK client1"])
        self.hang_up(ALICE)
        self.assertEqual(self.logged(), ["BYE server1", "200 BYE client1"])

    def test_cancel(self) -> None:
        """A CANCEL is shown too."""
        self.serve(params=PARAMS, rest=ROUTES)
        self.dial()
        self.ring()
        self.arrive(request("CANCEL"))
        self.assertEqual(self.said(BOB), ["CANCEL"])
        self.assertEqual(self.logged(), ["180 INVITE client1", "CANCEL server1"])

    def test_waiting(self) -> None:
        """A route may wait; the call goes on when it has."""
        self.serve(
            params=PARAMS + 'loadmodule "cfgutils.so"', rest="""
            route[asked] { xlog("L_ALERT", "now"); sleep(1); xlog("L_ALERT", "later"); }
            route[answered] { exit; }
            """,
        )
        self.dial()
        self.pick_up(ack=False)
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual((self.said(BOB), self.logged()), ([], ["now"]))
        self.wait(1.1)
        self.assertEqual((self.said(BOB), self.logged()), (["ACK"], ["later"]))

    def test_edits(self) -> None:
        """What the script has changed before b2b_init_request, and in the request route of the logic, goes out; the caller's own
        dialog is as he made it."""
        self.serve(
            'b2b_server_new("a"); b2b_client_new("b", "$ru"); append_hf("X-Seen: 1\\r\\n"); b2b_init_request("x", , "asked");',
            'loadmodule "textops.so"\nmodparam("b2b_logic", "custom_headers", "X-Seen")',
            'route[asked] { append_hf("X-Seen: 2\\r\\n"); b2b_pass_request(); }',
        )
        self.assertEqual(self.dial().header("X-Seen"), "1")
        self.assertIsNone(self.pick_up().header("X-Seen"))
        self.within("INFO", ALICE)
        (info,) = self.sent(BOB)
        self.assertEqual(info.header("X-Seen"), "2")

    def test_errors(self) -> None:
        """A route that is not there is refused at the start."""
        for which in ("script_req_route", "script_reply_route"):
            self.serve()
            module: Any = self.wired.server.modules["b2b_entities"]
            setattr(module, which, "none")
            with self.assertRaisesRegex(ValueError, r"no route\[none\]"):
                finished(module.start())
