"""Tests of dialogs and the session descriptions of their sides: what was sent, what was sent on, what survives a restart."""

from __future__ import annotations

from typing import Any

from tests.modules.calls import ALICE, BOB
from tests.modules.dialing import contact
from tests.modules.test_dialog_db import StoredDialing
from tests.proxy.rig import request, response

FIRST = """
    create_dialog("reinvite-ping-caller,reinvite-ping-callee");
    replace_body("from=a", "from=us");
    t_on_reply("back");
"""
WITHIN = """
    replace_body("from=a", "from=us");
    t_on_reply("back");
"""
BACK = """
onreply_route[back] {
    replace_body("from=b", "from=us");
}
"""


def with_body(data: bytes, body: str) -> bytes:
    """A message with a body instead of none."""
    head = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    return data.replace(b"Content-Length: 0\r\n\r\n", head.encode())


class BodyTests(StoredDialing):
    """Alice calls Bob; the script changes what they say."""

    body = ""

    def arrive(self, data: bytes, port: int = ALICE) -> None:
        """Let a message come, with a body if there is one."""
        super().arrive(with_body(data, self.body) if self.body else data, port)

    def begin(self, first: str = FIRST, mode: int = 1) -> None:
        """Start the server."""
        self.store(mode, first=first, within=WITHIN, rest=BACK, modules='loadmodule "textops.so"\n',
                   params='modparam("dialog", "reinvite_ping_interval", 60)')

    def call(self, offer: str = "from=a1", answer: str = "from=b1", ack: str = "") -> None:
        """A call with these bodies."""
        data = request("INVITE", extra=contact(ALICE))
        self.arrive(with_body(data, offer) if offer else data)
        (self.invited,) = self.sent(BOB)
        record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(self.invited))
        self.sent(ALICE)
        self.arrive(with_body(response(self.invited, 200, extra=record + contact(BOB)), answer), BOB)
        *_, self.answered = self.sent(ALICE)
        self.route_set, self.tag = self.routes(self.answered), "b1"
        self.send_within("ACK", ALICE, 1, ack)
        self.sent(BOB)

    def send_within(self, method: str, port: int, cseq: int, body: str) -> None:
        """A request in the dialog with a body."""
        self.body = body
        self.within(method, port, cseq=cseq, extra=contact(port))
        self.body = ""

    def shown(self) -> list[Any]:
        """What is told: sent by the caller, to the caller, by the callee, to the callee."""
        said = self.command("dialog:list", callid="call@test")["Dialog"]
        (callee,) = said["CALLEES"]
        return [said.get("caller_sdp"), said.get("caller_sent_sdp"), callee.get("callee_sdp"), callee.get("callee_sent_sdp")]

    def pinged(self) -> list[bytes]:
        """The bodies of the next re-INVITEs of ours, which are answered."""
        self.sent(ALICE), self.sent(BOB)
        self.wait(60)
        found = []
        for port in (ALICE, BOB):
            (ping,) = self.sent(port)
            self.assertEqual(ping.method, "INVITE")
            found.append(ping.body)
            self.reply_within(ping, 200, port, extra=contact(port))
        return found

    def test_changed_on_the_way(self) -> None:
        """What was changed on its way is told beside what came, and is what a ping offers again."""
        self.begin()
        self.call()
        self.assertEqual((self.invited.body, self.answered.body), (b"from=us1", b"from=us1"))
        self.assertEqual(self.shown(), ["from=a1", "from=us1", "from=b1", "from=us1"])
        self.assertEqual(self.pinged(), [b"from=us1", b"from=us1"])

    def test_unchanged(self) -> None:
        """What went as it came is told once."""
        self.begin()
        self.call("x=1", "x=2")
        self.assertEqual(self.shown(), ["x=1", None, "x=2", None])
        self.assertEqual(self.pinged(), [b"x=2", b"x=1"])

    def test_refused(self) -> None:
        """A re-INVITE counts when it has succeeded."""
        self.begin()
        self.call()
        for cseq, status, wanted in ((2, 488, "1"), (3, 200, "2")):
            self.send_within("INVITE", ALICE, cseq, "from=a2")
            (again,) = self.sent(BOB)
            self.assertEqual(self.shown()[0], "from=a1")
            data = response(again, status, extra=contact(BOB)).replace(b";tag=b1;tag=b1", b";tag=b1")
            self.arrive(with_body(data, "from=b2") if status == 200 else data, BOB)
            self.send_within("ACK", ALICE, cseq, "")
            self.sent(BOB)
            self.assertEqual(self.shown(), [f"from=a{wanted}", f"from=us{wanted}", f"from=b{wanted}", f"from=us{wanted}"])

    def test_offer_in_the_answer(self) -> None:
        """An INVITE without an offer: the answer stands in the ACK."""
        self.begin()
        self.call("", "from=b1", "from=a1")
        self.assertEqual(self.shown(), ["from=a1", "from=us1", "from=b1", "from=us1"])

    def test_restart(self) -> None:
        """Calls that are pinged by re-INVITEs keep them in the database, under OpenSIPS's names; others do not."""
        self.begin()
        self.call("from=a1", "x=2")
        (row,) = self.rows()
        self.assertEqual(row["vars"], b"uCSDP#1#from=a1|ucSDP#1#x=2|acSDP#1#from=us1|")
        self.restart()
        self.assertEqual(self.shown(), ["from=a1", None, "x=2", "from=us1"])
        self.assertEqual(self.command("dialog:list_ctx", callid="call@test")["Dialog"]["context"], {})
        self.assertEqual(self.pinged(), [b"x=2", b"from=us1"])

    def test_nobody_there(self) -> None:
        """Who answers a re-INVITE of ours 481 is named in the reason."""
        for port, who in ((ALICE, "Caller"), (BOB, "Callee")):
            self.__dict__.pop("phones", None)
            self.store(first=f'create_dialog("reinvite-ping-{who.lower()}"); dlg_on_hangup("over");',
                       rest='route[over] { xlog("L_ALERT", "$DLG_end_reason"); }',
                       params='modparam("dialog", "reinvite_ping_interval", 60)')
            self.call()
            self.wait(60)
            *_, ping = self.sent(port)
            self.reply_within(ping, 481, port)
            self.assertEqual(self.logged(), [f"{who} ReINVITE Ping Timeout"])

    def test_not_kept(self) -> None:
        """Without such pings nothing of them is in the database."""
        self.begin(FIRST.replace("reinvite-ping-caller,reinvite-ping-callee", "bye-on-timeout"))
        self.call()
        (row,) = self.rows()
        self.assertEqual(row["vars"], b"")

    def test_acknowledged_after_an_update(self) -> None:
        """An UPDATE before the ACK does not make the ACK's number wrong."""
        self.store(first="create_dialog();", within='xlog("L_ALERT", "$rm"); validate_dialog(); xlog("L_ALERT", "$retcode");')
        self.dial()
        record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(self.invited))
        self.sent(ALICE)
        self.answer(self.invited, 183, BOB, extra=record + contact(BOB))
        *_, early = self.sent(ALICE)
        self.route_set, self.tag = self.routes(early), "b1"
        self.logged()
        self.within("UPDATE", ALICE, cseq=2, extra=contact(ALICE))
        *_, update = self.sent(BOB)
        self.reply_within(update, 200, BOB, extra=contact(BOB))
        self.answer(self.invited, 200, BOB, extra=record + contact(BOB))
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual(self.logged(), ["UPDATE", "1", "ACK", "1"])
