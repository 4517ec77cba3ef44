"""Calls in which everything happens in any order, with a database that goes away and a server that is killed now and then: each
that was answered has one CDR, and nothing is left of any."""

from __future__ import annotations

import os
from collections import Counter
from random import Random
from typing import Any

from tests.modules.calls import ALICE, BOB
from tests.modules.test_acc_cdr import Accounted
from tests.proxy.rig import request, response

CALLS = 2000 if os.environ.get("SIPGW_NIGHTLY") else 200


class Disorder(Accounted):
    """One server, many calls, a random story for each."""

    def story(self, random: Random, number: int) -> tuple[str, bool]:
        """Play one call; its Call-ID, and whether Alice was told that it was answered."""
        call_id = f"call{number}@test"
        self.call_id = call_id.encode()
        self.route_set: list[str] = []
        self.tag = "b1"
        self.cseq = {ALICE: 1, BOB: 7000}
        self.told_200 = False
        self.send(request("INVITE", extra="Contact: <sip:alice@127.0.0.1:7001>\r\n", branch=f"i{number}"), ALICE)
        self.invited: Any = next((message for message in self.sent(BOB) if message.call_id == call_id), None)
        if self.invited is None:
            return call_id, False
        deeds = [
            self.ring, self.accept, self.accept, self.accept, self.acknowledge, self.refuse, self.cancel, self.alice_bye,
            self.bob_bye, self.info, self.obey, self.obey, self.idle, self.end, self.again, self.outage,
        ]
        for _ in range(random.randint(1, 12)):
            random.choice(deeds)(random)
            self.notice()
        return call_id, self.told_200

    def notice(self) -> None:
        """See what Alice has received; a 200 gives her the route set."""
        for message in self.sent(ALICE):
            if message.call_id != self.call_id.decode():
                continue
            if message.lines[0].startswith("SIP/2.0 200") and message.method == "INVITE":
                self.told_200 = True
                self.route_set = self.routes(message)
            elif not message.lines[0].startswith("SIP/2.0"):
                self.heard[ALICE].append(message)

    def send(self, data: bytes, port: int) -> None:
        """Send it, in this call."""
        self.arrive(data.replace(b"call@test", self.call_id), port)

    def ring(self, random: Random) -> None:
        self.arrive(response(self.invited, random.choice((180, 183))), BOB)

    def accept(self, random: Random) -> None:
        record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(self.invited))
        self.arrive(response(self.invited, 200, extra=record + "Contact: <sip:bob@127.0.0.1:7002>\r\n"), BOB)

    def refuse(self, random: Random) -> None:
        self.arrive(response(self.invited, random.choice((404, 486, 603, 487))), BOB)

    def acknowledge(self, random: Random) -> None:
        if self.route_set:
            self.within_call("ACK", ALICE, 1, "ack")

    def cancel(self, random: Random) -> None:
        self.send(request("CANCEL", branch=self.invited.vias[1].branch.removeprefix("z9hG4bK")), ALICE)

    def within_call(self, method: str, port: int, cseq: int, branch: str) -> None:
        kept = self.arrive
        try:
            self.arrive = lambda data, port=ALICE: kept(data.replace(b"call@test", self.call_id), port)  # type: ignore[method-assign]
            self.within(method, port, cseq=cseq, branch=f"{branch}{self.call_id.decode()}")
        finally:
            self.arrive = kept  # type: ignore[method-assign]

    def alice_bye(self, random: Random) -> None:
        if self.route_set:
            self.within_call("BYE", ALICE, random.choice((2, 3)), f"a{random.randint(0, 2)}")

    def bob_bye(self, random: Random) -> None:
        if self.route_set:
            self.within_call("BYE", BOB, 7001, f"b{random.randint(0, 2)}")

    def info(self, random: Random) -> None:
        if self.route_set:
            self.cseq[ALICE] += 1
            self.within_call("INFO", ALICE, self.cseq[ALICE], f"f{self.cseq[ALICE]}")

    def obey(self, random: Random) -> None:
        """Both answer what they have been asked, somehow."""
        self.heard[BOB] += [message for message in self.sent(BOB) if not message.lines[0].startswith("SIP/2.0")]
        for port in (ALICE, BOB):
            for message in self.heard[port]:
                if message.method not in ("ACK", "INVITE"):
                    self.reply_within(message, random.choice((200, 200, 200, 481, 500)), port)
            self.heard[port].clear()

    def idle(self, random: Random) -> None:
        self.wait(random.choice((0.1, 0.6, 5, 31)))

    def end(self, random: Random) -> None:
        if random.random() < 0.3:
            self.command("dialog:end_dlg", dialog_id=self.call_id.decode())

    def outage(self, random: Random) -> None:
        """The database goes away, or comes back."""
        if self.database.down or random.random() < 0.2:
            self.database.down = not self.database.down

    def kill(self, random: Random) -> None:
        """The server dies, and another one is there; what it has not written down yet is lost, so not while it has such."""
        self.database.down = False
        self.wait(10)
        if not len(self.dialog.writes):
            self.restart()

    def again(self, random: Random) -> None:
        self.send(request("INVITE", extra="Contact: <sip:alice@127.0.0.1:7001>\r\n", branch=self.branch()), ALICE)

    def branch(self) -> str:
        """That of Alice's INVITE."""
        return str(self.invited.vias[1].branch).removeprefix("z9hG4bK")

    def test_any_order(self) -> None:
        """Hundreds of stories."""
        self.account('create_dialog("bye-on-timeout,options-ping-callee"); do_accounting("db", "cdr|missed");',
            params='modparam("dialog", "default_timeout", 90)')
        self.heard: dict[int, list[Any]] = {ALICE: [], BOB: []}
        random = Random(20261122)
        answered = {}
        for number in range(CALLS):
            call_id, told = self.story(random, number)
            answered[call_id] = told
            if random.random() < 0.05:
                self.kill(random)
                self.notice()
        self.database.down = False
        for _ in range(6):
            self.wait(60)
            self.notice()
        self.wait(400)
        found = Counter(str(row["callid"]) for row in self.cdrs())
        self.assertEqual({call for call, count in found.items() if count != 1}, set())
        self.assertEqual({call for call, told in answered.items() if told}, set(found))
        self.assertGreater(len(found), CALLS // 4)
        self.assertLess(len(found), CALLS)
        self.assertEqual((self.rows(), self.calls, self.numbers().keys() & {"active", "early"}), ([], [], set()))
        self.settle()
