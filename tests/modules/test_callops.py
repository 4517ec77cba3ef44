"""Tests of sipgw.modules.callops: transfers and holds from the middle of a call."""

from __future__ import annotations

from typing import Any

from sipgw.proxy.holds import changed
from sipgw.sip.message import Request
from tests.modules.calls import ALICE, BOB, CAROL
from tests.modules.dialing import Dialing, contact
from tests.modules.test_dialog_db import StoredDialing
from tests.proxy.rig import request

HEARD = """
event_route[E_CALL_TRANSFER] {
    xlog("L_ALERT", "$param(callid) $param(leg) [$param(transfer_callid)] $param(destination) $param(state) [$param(status)]"); }
event_route[E_CALL_HOLD] { xlog("L_ALERT", "$param(callid) $param(leg) $param(action) $param(state)"); }
"""
SDP = (
    "v=0\r\no={0} 1 5 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"
    "m=audio {1} RTP/AVP 0\r\na=sendrecv\r\na=mid:1\r\nm=video 9 RTP/AVP 99\r\n"
)
CAROLS = f"sip:carol@127.0.0.1:{CAROL}"


def load(**given: str) -> str:
    """The module with these parameters."""
    return 'loadmodule "callops.so"\n' + "".join(f'modparam("callops", "{key}", "{value}")\n' for key, value in given.items())


class Operated(Dialing):
    """Alice has called Bob."""

    def begin(self, within: str = "", first: str = "create_dialog();", **given: str) -> None:
        """Start the server, and the call."""
        self.serve(params=load(**given), rest=HEARD, within=within, first=first)
        self.talk()
        self.wired.lines.clear()

    def heard(self) -> list[str]:
        """What the events said."""
        self.wired.clock.advance(0)
        return self.logged()

    def transfer(self, **arguments: Any) -> Any:
        """Transfer the call."""
        return self.command("callops:transfer", callid="call@test", **arguments)

    def new_call(self, uri: str, call_id: str = "new@test", more: str = "") -> Request:
        """Alice calls as she was told; what Carol receives."""
        self.sent(CAROL)
        data = request("INVITE", uri, branch=call_id, extra=contact(ALICE) + more)
        data = data.replace(b"Call-ID: call@test", b"Call-ID: " + call_id.encode())
        self.arrive(data)
        (invited,) = self.sent(CAROL)
        assert isinstance(invited, Request)
        return invited

    def refer_to(self, port: int = ALICE) -> str:
        """The REFER that a phone has received, accepted: where it is sent."""
        (refer,) = self.sent(port)
        self.assertEqual((refer.method, refer.to_tag), ("REFER", "a1" if port == ALICE else "b1"))
        self.reply_within(refer, 202, port)
        return (refer.header("Refer-To") or "")[1:-1]


class TransferTests(Operated):
    """callops:transfer, call_transfer."""

    def test_blind(self) -> None:
        """The new call is known by its URI, from which that is taken away; NOTIFYs end here."""
        for mode, known in [("param", None), ("callid", "call%40test")]:
            self.begin(mode=mode)
            known = known or self.calls[0].did
            self.assertEqual(self.transfer(leg="caller", destination=CAROLS), "Accepted")
            uri = self.refer_to()
            self.assertEqual((uri, self.heard()), (f"{CAROLS};osid={known}", []))
            self.sent(ALICE)
            self.within("NOTIFY", ALICE, extra="Event: refer\r\nSubscription-State: active\r\n")
            self.assertEqual((self.said(ALICE), self.said(BOB)), (["200 NOTIFY"], []))
            self.assertEqual(self.heard()[1:], ["call@test caller []  notify []"])
            invited = self.new_call(uri)
            self.assertEqual(invited.uri, CAROLS)
            self.assertEqual(self.heard(), [f"call@test caller [new@test] {CAROLS} start []"])
            self.answer(invited, 180, CAROL)
            self.answer(invited, 200, CAROL, extra=contact(CAROL))
            self.assertEqual(self.heard(), [f"call@test caller [new@test] {CAROLS} ok [200 Reason]"])

    def test_notify(self) -> None:
        """What the NOTIFY says is told; after the last one nothing is expected any more."""
        self.begin()
        self.transfer(leg="caller", destination=CAROLS)
        self.refer_to()
        self.sent(ALICE)
        routes = "".join(f"Route: {value}\r\n" for value in self.route_set[::-1])
        for number, (line, state) in enumerate([("SIP/2.0 180 Ringing", "active"), ("SIP/2.0 200 OK", "terminated")]):
            data = request(
                "NOTIFY", f"sip:bob@127.0.0.1:{BOB}", branch=f"n{number}", cseq=50 + number, to_tag="b1",
                extra=f"{routes}Event: refer;id=1\r\nSubscription-State: {state}\r\nContent-Type: message/sipfrag\r\n",
            ).replace(b"Content-Length: 0\r\n\r\n", f"Content-Length: {len(line)}\r\n\r\n{line}".encode())
            self.arrive(data)
            self.assertEqual([self.said(ALICE), self.said(BOB)], [["200 NOTIFY"], []])
            self.assertEqual(self.heard()[-1], f"call@test caller []  notify [{line[8:]}]")
        self.assertEqual(self.calls[0].values, {})
        self.within("NOTIFY", ALICE, cseq=60, extra="Event: refer\r\n")
        self.assertEqual(self.said(BOB), ["NOTIFY"])

    def test_failures(self) -> None:
        """A REFER that is refused, a new call that is refused or not answered; commands that mean nothing."""
        self.begin()
        self.transfer(leg="callee", destination=CAROLS)
        (refer,) = self.sent(BOB)
        self.reply_within(refer, 603, BOB)
        self.assertEqual(self.heard(), [f"call@test callee [] {CAROLS} fail [603 Reason]"])
        for status, said in [(486, "486 Reason"), (0, "408 Request Timeout")]:
            self.begin()
            self.transfer(leg="caller", destination=CAROLS)
            invited = self.new_call(self.refer_to())
            self.heard()
            if status:
                self.answer(invited, status, CAROL)
            else:
                self.wait(40)
            self.assertEqual(self.heard(), [f"call@test caller [new@test] {CAROLS} fail [{said}]"])
        self.assertEqual(self.transfer(leg="caller", destination="nonsense"), (400, "Bad destination"))
        self.assertEqual(self.transfer(leg="caller", destination="sip:a@b>\r\nX: y"), (400, "Bad destination"))
        self.assertEqual(self.transfer(leg="both", destination=CAROLS), (-32602, "Invalid params"))
        gone = self.command("callops:transfer", callid="no", leg="caller", destination=CAROLS)
        self.assertEqual(gone, (404, "Dialog not found"))
        same = self.transfer(leg="caller", transfer_callid="call@test", transfer_leg="callee")
        self.assertEqual(same, (400, "The call cannot be transferred into itself"))

    def second_call(self) -> None:
        """Alice calls Bob once more."""
        data = request("INVITE", branch="two", extra=contact(ALICE))
        data = data.replace(b"call@test", b"two@test").replace(b"tag=a1", b"tag=a2")
        self.sent(BOB)
        self.arrive(data)
        (invited,) = self.sent(BOB)
        self.answer(invited, 200, tag="b2", extra=contact(BOB))
        self.sent(ALICE)

    def test_attended(self) -> None:
        """The Refer-To has a Replaces for the phone of that side; the call that comes with it is known, and both are told of."""
        self.begin()
        self.second_call()
        self.assertEqual(self.transfer(leg="caller", transfer_callid="two@test", transfer_leg="callee"), "Accepted")
        self.assertEqual(self.refer_to(), "sip:bob@example.org?Replaces=two%40test%3Bto-tag%3Db2%3Bfrom-tag%3Da2")
        invited = self.new_call(CAROLS, more="Replaces: two@test;to-tag=b2;from-tag=a2\r\n")
        self.answer(invited, 200, CAROL, extra=contact(CAROL))
        self.assertEqual(self.heard(), [
            f"{call} [new@test] {CAROLS} {state}" for state in ("start []", "ok [200 Reason]")
            for call in ("call@test caller", "two@test callee")
        ])
        self.begin()
        self.second_call()
        self.transfer(leg="caller", transfer_callid="two@test", transfer_leg="caller", destination=f"{CAROLS}?X=y")
        self.assertEqual(self.refer_to(), f"{CAROLS}?Replaces=two%40test%3Bto-tag%3Da2%3Bfrom-tag%3Db2")

    def test_attended_elsewhere(self) -> None:
        """The other call need not be ours."""
        self.begin()
        tags = {"transfer_fromtag": "f", "transfer_totag": "t"}
        said = self.transfer(leg="caller", transfer_callid="far@x", transfer_destination=CAROLS, **tags)
        self.assertEqual((said, self.refer_to()), ("Accepted", f"{CAROLS}?Replaces=far%40x%3Bto-tag%3Dt%3Bfrom-tag%3Df"))
        self.new_call(CAROLS, more="Replaces: far@x;to-tag=t;from-tag=f\r\n")
        self.assertEqual(self.heard(), [f"call@test caller [new@test] {CAROLS} start []"])
        module: Any = self.wired.server.modules["callops"]
        self.assertEqual(module.transfers._replaced, {})
        self.transfer(leg="caller", transfer_callid="far@x", transfer_destination=CAROLS, **tags)
        self.assertEqual(list(module.transfers._replaced), ["far@x"])
        self.command("dialog:end_dlg", dialog_id="call@test")
        self.assertEqual(module.transfers._replaced, {})

    def test_script(self) -> None:
        """call_transfer within a dialog, in both forms."""
        self.begin(within=f'if (is_method("INFO")) call_transfer("caller", "{CAROLS}");')
        self.within("INFO", BOB)
        refer = next(message for message in self.sent(ALICE) if message.method == "REFER")
        self.assertEqual(refer.header("Refer-To"), f"<{CAROLS};osid={self.calls[0].did}>")
        ask = f'call_transfer("caller", "no@x", "callee", "{CAROLS}")'
        self.begin(within=f'if (is_method("INFO") && !{ask}) xlog("L_ALERT", "no");')
        self.within("INFO", BOB)
        self.assertEqual(self.heard(), ["call_transfer: Dialog not found", "no"])

    def test_manual(self) -> None:
        """In the mode manual the script says which call it was, and answers the NOTIFYs."""
        self.begin(
            mode="manual", within='if (is_method("NOTIFY")) { call_transfer_notify(); xlog("L_ALERT", "goes on"); }',
            first='create_dialog(); if ($hdr(X-Old) != NULL && !call_blind_replace($hdr(X-Old))) xlog("L_ALERT", "none");',
        )
        self.transfer(leg="caller", destination=CAROLS)
        self.assertEqual(self.refer_to(), CAROLS)
        self.sent(ALICE)
        self.within("NOTIFY", ALICE, extra="Event: refer\r\n")
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["200 NOTIFY"], []))
        self.within("NOTIFY", ALICE, extra="Event: presence\r\n")
        self.assertEqual(self.said(BOB), ["NOTIFY"])
        self.assertEqual(self.heard(), ["goes on", "call@test caller []  notify []"])
        self.new_call(CAROLS, more="X-Old: call@test\r\n")
        self.assertEqual(self.heard(), [f"call@test caller [new@test] {CAROLS} start []"])
        self.new_call(CAROLS, "newer@test", more="X-Old: gone\r\n")
        self.assertEqual(self.heard(), ["none"])


class HoldTests(Operated):
    """callops:hold and unhold."""

    def begin_with_sound(self) -> None:
        """A call whose sessions are known."""
        self.begin()
        (call,) = self.calls
        call.caller.sdp, call.winner.sdp = SDP.format("alice", 4000).encode(), SDP.format("bob", 5000).encode()

    def asked(self, port: int, status: int = 200) -> tuple[str, list[str]]:
        """The re-INVITE that a phone has received, answered: its o= and its directions."""
        invite, *_ = [message for message in self.sent(port) if message.method == "INVITE"]
        self.reply_within(invite, status, port)
        lines = invite.body.decode().split("\r\n")
        self.wired.clock.advance(0)
        return lines[1][2:].rpartition(" IN")[0], [line for line in lines if line in ("a=inactive", "a=sendrecv")]

    def test_both(self) -> None:
        """Each leg gets the other's session, inactive, and then as it was; each time another version."""
        self.begin_with_sound()
        self.assertEqual(self.command("callops:hold", callid="call@test"), "OK")
        self.assertEqual(self.asked(ALICE), ("bob 1 6", ["a=inactive", "a=inactive"]))
        self.assertEqual(self.asked(BOB), ("alice 1 7", ["a=inactive", "a=inactive"]))
        self.assertEqual(self.heard(), [
            f"call@test {leg} hold {state}" for state in ("start", "ok") for leg in ("caller", "callee")])
        self.assertEqual(self.command("callops:hold", callid="call@test"), (480, "Both dialog legs are on hold"))
        self.assertEqual(self.command("callops:hold", callid="call@test", leg="caller"), (480, "The dialog leg is on hold"))
        self.assertEqual(self.command("callops:unhold", callid="call@test", leg="both", headers=["X: y", ""]), "OK")
        self.assertEqual(self.asked(ALICE), ("bob 1 8", ["a=sendrecv"]))
        self.assertEqual(self.asked(BOB), ("alice 1 9", ["a=sendrecv"]))
        self.assertEqual(self.calls[0].values, {})
        self.assertEqual(len(self.heard()), 4)
        self.assertEqual(self.command("callops:unhold", callid="call@test"), (480, "No dialog leg is on hold"))

    def test_one(self) -> None:
        """One leg, with a header of its own; one that refuses is not on hold."""
        self.begin_with_sound()
        self.assertEqual(self.command("callops:hold", callid="call@test", leg="callee", headers="X-Why: lunch"), "OK")
        self.assertEqual(self.said(ALICE), [])
        (invite,) = self.sent(BOB)
        self.assertEqual((invite.header("X-Why"), invite.header("Content-Type")), ("lunch", "application/sdp"))
        self.reply_within(invite, 488, BOB)
        self.assertEqual(self.heard(), ["call@test callee hold start", "call@test callee hold fail"])
        self.assertEqual((self.calls[0].values, self.calls[0].winner.sent_sdp), ({}, b""))

    def test_refused(self) -> None:
        """Commands that mean nothing."""
        self.begin()
        refused: list[tuple[dict[str, Any], tuple[int, str]]] = [
            ({"callid": "no"}, (404, "Dialog not found")), ({"leg": "bold"}, (420, "Bad leg")),
            ({}, (500, "Nobody knows the session")),
            ({"leg": "both", "headers": "no header"}, (400, "Bad parameter value")),
            ({"leg": "both", "headers": ["a"]}, (-32602, "Invalid params")),
        ]
        for arguments, said in refused:
            self.assertEqual(self.command("callops:hold", **{"callid": "call@test", **arguments}), said)
        self.assertEqual(self.calls[0].values, {})

    def test_changed(self) -> None:
        """A direction for the session counts for each stream, and is replaced; a version that is no number stays."""
        body = b"v=0\no=a 1 x IN\na=recvonly\nm=audio 1 A 0\na=ptime:20\nm=video 2 A 0\na=sendonly\n"
        self.assertEqual(changed(body, "inactive", 1).decode().split("\r\n"), [
            "v=0", "o=a 1 x IN", "m=audio 1 A 0", "a=ptime:20", "a=inactive", "m=video 2 A 0", "a=inactive", ""])


class RestartTests(StoredDialing):
    """A transfer through a restart."""

    def test_restart(self) -> None:
        """The NOTIFY is still answered here."""
        self.store(params=load())
        self.talk()
        self.command("callops:transfer", callid="call@test", leg="caller", destination=CAROLS)
        (refer,) = self.sent(ALICE)
        self.reply_within(refer, 202, ALICE)
        self.restart()
        self.sent(ALICE)
        self.within("NOTIFY", ALICE, extra="Event: refer\r\n")
        self.assertEqual((self.said(ALICE), self.said(BOB)), (["200 NOTIFY"], []))
