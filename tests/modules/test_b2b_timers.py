"""Tests of sipgw.b2bua.timers: session timers (RFC 4028) of back-to-back calls."""

from __future__ import annotations

from typing import Any

from sipgw.sip.message import Request
from tests.modules.calls import ALICE, BOB, CAROL, Calls
from tests.modules.test_b2b_logic import SDP, Back, body
from tests.proxy.rig import request, response

KNOWS = "Supported: timer\r\n"


class TimerTests(Back):
    """Calls that last as long as they are refreshed."""

    def sent(self, port: int) -> list[Any]:
        """What the phone at ``port`` received, but for 100."""
        return [one for one in super().sent(port) if isinstance(one, Request) or one.status > 100]

    def agreed(self, expires: str, *, asked: str = "Session-Expires: 90\r\n", knows: str = KNOWS, allow: str = "") -> Any:
        """A call; Bob's answer says ``expires``; what Alice receives."""
        self.dial(more=f"{knows}{asked}{allow}")
        more = f"Session-Expires: {expires}\r\nRequire: timer\r\n" if expires else ""
        self.sent(ALICE)
        data = response(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n{more}{allow}")
        self.arrive(self.message(data, SDP % "bob"), BOB)
        (self.answered,) = self.sent(ALICE)
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual(self.said(BOB), ["ACK"])
        return self.answered

    def refreshed(self, port: int, method: str = "UPDATE", expires: str = "90;refresher=uac") -> Any:
        """The phone at ``port`` refreshes; the other side sees it, and agrees."""
        other = BOB if port == ALICE else ALICE
        self.within(method, port, more=f"{KNOWS}Session-Expires: {expires}\r\n")
        (seen,) = self.sent(other)
        self.reply(seen, 200, other, more=f"Session-Expires: {expires}\r\nContact: <sip:x@127.0.0.1:{other}>\r\n")
        (ok,) = self.sent(port)
        self.assertEqual(ok.header("Session-Expires"), expires)
        return seen

    def over(self) -> None:
        """Both are hung up on."""
        byes = [self.sent(port)[0] for port in (ALICE, BOB)]
        self.assertEqual([bye.method for bye in byes], ["BYE", "BYE"])
        for bye, port in zip(byes, (ALICE, BOB), strict=True):
            self.reply(bye, 200, port)
        self.gone()

    def test_passes(self) -> None:
        """What the two agree on passes as they say it; refreshes of either keep the call, by UPDATE or re-INVITE."""
        self.serve()
        answer = self.agreed("90;refresher=uac")
        self.assertEqual(self.invited.header("Session-Expires"), "90")
        self.assertEqual((answer.header("Session-Expires"), answer.header("Require")), ("90;refresher=uac", "timer"))
        for _ in range(3):
            self.wait(45)
            self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
            seen = self.refreshed(ALICE)
            self.assertEqual(seen.header("Session-Expires"), "90;refresher=uac")
        self.wait(45)
        seen = self.refreshed(ALICE, "INVITE")
        self.within("ACK", ALICE, cseq=self.cseq[ALICE])
        self.assertEqual(self.said(BOB), ["ACK"])
        self.wait(58)
        self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
        self.wait(3)
        self.over()  # 60 of 90 seconds: a third is left

    def test_callee_refreshes(self) -> None:
        """The other way round."""
        self.serve()
        self.agreed("90;refresher=uas")
        self.wait(45)
        self.refreshed(BOB)
        self.wait(59)
        self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
        self.wait(2)
        self.over()

    def test_none(self) -> None:
        """Without an agreement, or after one is ended, a call lasts; who knows no timers is told of none."""
        self.serve()
        self.agreed("")
        self.wait(1000)
        self.hang_up(ALICE)
        self.serve()
        answer = self.agreed("90;refresher=uas", asked="", knows="")
        self.assertEqual((answer.header("Session-Expires"), answer.header("Require")), (None, None))
        self.wait(45)
        self.refreshed(BOB)
        self.wait(45)
        self.refreshed(BOB)
        self.wait(61)
        self.over()  # he has stopped to

    def test_joined(self) -> None:
        """Whoever was told that the other side refreshes is refreshed by us when that is gone; a bridge's re-INVITE says so."""
        for allow, method in (("Allow: INVITE, UPDATE\r\n", "UPDATE"), ("", "INVITE")):
            self.serve()
            self.agreed("90;refresher=uas", allow=allow)
            (session,) = self.command("b2b_logic:list")
            self.command("b2b_logic:bridge", dialog_id=session["key"], new_uri=f"sip:carol@127.0.0.1:{CAROL}")
            (bye,) = self.sent(BOB)
            self.reply(bye, 200, BOB)
            (invite,) = self.sent(CAROL)
            data = response(invite, 200, tag="c1", extra=f"Contact: <sip:carol@127.0.0.1:{CAROL}>\r\n")
            self.arrive(self.message(data, SDP % "carol"), CAROL)
            (again,) = self.sent(ALICE)
            self.assertEqual((again.header("Session-Expires"), again.header("Supported")), ("90;refresher=uac", "timer"))
            more = "Session-Expires: 90;refresher=uac\r\nRequire: timer\r\n"
            self.reply(again, 200, ALICE, sdp=SDP % "alice", more=f"{more}Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
            self.assertEqual((self.said(ALICE), self.said(CAROL)), (["ACK"], ["ACK"]))
            for _ in range(3):
                self.wait(44)
                self.assertEqual(self.sent(ALICE), [])
                self.wait(1)
                (refresh,) = self.sent(ALICE)
                self.assertEqual((refresh.method, refresh.header("Session-Expires")), (method, "90;refresher=uac"))
                self.assertEqual(bool(refresh.body), method == "INVITE")
                self.reply(refresh, 200, ALICE, more=f"{more}Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
                self.assertEqual(self.said(ALICE), ["ACK"] if method == "INVITE" else [])
            self.assertEqual(self.sent(CAROL), [])
            self.wait(45)
            (refresh, *_) = self.sent(ALICE)
            self.reply(refresh, 481, ALICE)
            byes = [one for port in (ALICE, CAROL) for one in self.sent(port) if one.method == "BYE"]
            for bye, port in zip(byes, (ALICE, CAROL), strict=True):
                if port == ALICE:
                    self.reply(bye, 200, port)
                else:
                    self.arrive(response(bye, 200).replace(b";tag=c1;tag=b1", b";tag=c1"), port)
            self.gone()

    def test_refused_interval(self) -> None:
        """A 422 and what it wants pass."""
        self.serve()
        self.dial(more=f"{KNOWS}Session-Expires: 90\r\n")
        self.answer(self.invited, 422, extra="Min-SE: 1800\r\n")
        (refusal,) = self.sent(ALICE)
        self.assertEqual((refusal.status, refusal.header("Min-SE")), (422, "1800"))


class OwnTimerTests(Calls):
    """Calls of the server's own."""

    def test_refreshed_by_us(self) -> None:
        """Where the script's answer says so, we refresh; what is not answered ends the call."""
        self.start("""
            loadmodule "b2b_entities.so"
            route {
                if (is_method("INVITE")) {
                    ua_session_server_init($var(key));
                    ua_session_reply($var(key), "INVITE", 200, "OK", "v=0",
                        "Session-Expires: 90;refresher=uas\\r\\nRequire: timer\\r\\n");
                }
            }
        """)
        extra = f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n{KNOWS}Session-Expires: 90\r\n"
        self.arrive(request("INVITE", extra=extra).replace(b"Content-Length: 0\r\n\r\n", body("v=0").encode()))
        answer = self.sent(ALICE)[-1]
        self.assertEqual(answer.header("Session-Expires"), "90;refresher=uas")
        self.arrive(request("ACK", to_tag=answer.to_tag, branch="ack"))
        self.wait(46)
        (refresh, *_) = self.sent(ALICE)
        self.assertEqual((refresh.method, refresh.body), ("INVITE", b"v=0"))
        self.assertEqual(refresh.header("Session-Expires"), "90;refresher=uac")
        self.wait(16)
        self.assertIn("BYE", self.said(ALICE))
        self.settle()
