"""Tests of back-to-back calls in a database: what is written when, and calls that go on after a restart."""

from __future__ import annotations

import os
from typing import Any

from sipgw.testing import Phone, WiredServer, finished
from tests.db.memory import MemoryDatabase, MemoryDatabases
from tests.modules.calls import ALICE, BOB, CAROL, HEAD
from tests.modules.test_b2b_logic import SDP, Back
from tests.proxy.rig import response

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
PARAMS = """
modparam("b2b_entities", "db_url", "memory:")
modparam("b2b_logic", "db_url", "memory:")
modparam("b2b_entities", "db_mode", %(mode)d)
modparam("b2b_logic", "db_mode", %(mode)d)
"""
OWN = """
    $b2b_logic.ctx(who) = "al";
    b2b_server_new("first");
    b2b_client_new("second", "sip:b@127.0.0.1:7002");
    b2b_init_request("mine", , "asked", "answered");
"""
ROUTES = """
route[asked] {
    xlog("L_ALERT", "$rm $b2b_logic.scenario $b2b_logic.ctx(who) $b2b_logic.entity(id)");
    if ($rm == "INFO") { b2b_send_reply(200, "Mine"); exit; }
    b2b_pass_request();
}
route[answered] { xlog("L_ALERT", "$rs $rm"); b2b_handle_reply(); }
"""


class StoredBack(Back):
    """A server whose database is in memory, and outlives it."""

    def store(self, mode: int = 1, begin: str = 'b2b_init_request("top hiding");', params: str = "", rest: str = "") -> None:
        """Start the first server."""
        self.databases = MemoryDatabases()
        self.serve(begin, PARAMS % {"mode": mode} + params, rest)

    def start(self, script: str) -> None:
        """Start a server, with that database and the phones that there are."""
        self.script = script
        databases = self.databases

        def before(server: Any) -> None:
            server.databases = databases

        if hasattr(self, "phones"):
            wire = self.wired.wire
            for socket in self.wired.user.sockets:
                del wire._sockets[socket.host, socket.port]
            self.wired = WiredServer(HEAD + script, wire=wire, before=before)
        else:
            self.wired = WiredServer(HEAD + script, before=before)
            self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB, CAROL)}

    def restart(self, orderly: bool = False) -> None:
        """End the server, all at once or in order, and start another."""
        self.wait(0.01)
        if orderly:
            for module in reversed(list(self.wired.server.modules.values())):
                finished(module.stop())
        self.wired.clock.calls.clear()
        self.start(self.script)
        self.wait(0.01)

    @property
    def database(self) -> MemoryDatabase:
        """The one."""
        return self.databases.database

    def rows(self, table: str = "b2b_entities") -> list[dict[str, Any]]:
        """The rows of a table."""
        return self.database.tables.get(table, [])

    def counted(self) -> tuple[int, int]:
        """How many legs and sessions are stored."""
        self.wait(0.01)
        return len(self.rows()), len(self.rows("b2b_logic"))

    def gone(self) -> None:
        """Nothing is left, in memory or in the tables."""
        super().gone()
        self.assertEqual(self.counted(), (0, 0))


class ModeTests(StoredBack):
    """What is written when."""

    def test_at_once(self) -> None:
        """Rows are there with the answer, change, and go with the call."""
        self.store()
        self.assertEqual(self.databases.checked, [("b2b_entities", 2), ("b2b_logic", 5)])
        self.dial()
        self.ring()
        self.assertEqual(self.counted(), (0, 0))
        self.pick_up(ack=False)
        self.assertEqual(self.counted(), (2, 1))
        self.assertEqual([row["state"] for row in self.rows()], [4, 4])
        self.within("ACK", ALICE, cseq=1)
        self.wait(0.01)
        server, client = sorted(self.rows(), key=lambda row: row["type"])
        self.assertEqual((server["state"], client["state"]), (5, 5))
        seen = self.invited
        self.assertEqual(
            (server["tag1"], server["callid"], server["cseq0"], server["contact0"], server["sockinfo_srv"]),
            (self.answered.to_tag, "call@test", 1, f"sip:alice@127.0.0.1:{ALICE}", "udp:127.0.0.1:5060"),
        )
        self.assertEqual(
            (client["tag0"], client["tag1"], client["callid"], client["cseq0"], client["contact1"], client["leg_tag"]),
            (seen.from_tag, "b1", seen.call_id, seen.cseq.number, f"sip:bob@127.0.0.1:{BOB}", "b1"),
        )
        (session,) = self.rows("b2b_logic")
        self.assertEqual((session["scenario"], session["e1_key"], session["e2_key"], session["e1_type"], session["e2_type"]),
                         ("top hiding", server["tag1"], client["callid"], 0, 1))
        self.assertEqual((server["param"], client["param"]), (session["si_key"],) * 2)
        self.sent(ALICE)
        self.sent(BOB)
        self.hang_up(BOB)

    def test_later(self) -> None:
        """In mode 2 they come with the period, and go at once."""
        self.store(2)
        self.talk()
        self.assertEqual(self.counted(), (0, 0))
        self.wait(100)
        self.assertEqual(self.counted(), (2, 1))
        self.hang_up(ALICE)

    def test_never_stored(self) -> None:
        """What came and went within a period leaves nothing."""
        self.store(2)
        self.talk()
        self.hang_up(ALICE)
        self.wait(200)
        self.assertEqual(self.counted(), (0, 0))

    def test_orderly(self) -> None:
        """In mode 2 a server that stops writes what is left."""
        self.store(2)
        self.talk()
        self.restart(orderly=True)
        self.hang_up(BOB)

    def test_off(self) -> None:
        """Mode 0 stores nothing, and asks for nothing."""
        self.store(0)
        self.talk()
        self.assertEqual((self.counted(), self.databases.checked), ((0, 0), []))
        self.hang_up(BOB)

    def test_down(self) -> None:
        """A database that is down hurts nobody; it learns later what is so then."""
        self.store()
        self.database.down = True
        self.talk()
        self.within("INFO", ALICE)
        (info,) = self.sent(BOB)
        self.reply(info, 200, BOB)
        self.sent(ALICE)
        self.database.down = False
        self.wait(10)
        self.assertEqual(self.counted(), (2, 1))
        self.hang_up(ALICE)

    def test_one_of_two(self) -> None:
        """Sessions without their legs are refused."""
        self.store(0)
        logic: Any = self.wired.server.modules["b2b_logic"]
        logic.db_mode = 1
        with self.assertRaisesRegex(ValueError, "b2b_entities no legs"):
            finished(logic.restore())
        logic.cachedb_url = "redis://127.0.0.1/"
        with self.assertRaisesRegex(ValueError, "both set"):
            finished(logic.restore())


class RestartTests(StoredBack):
    """Calls that go on."""

    def test_bye(self) -> None:
        """After a kill the BYE is agreed to, and the other side hung up on; from either."""
        for port in (ALICE, BOB):
            self.store()
            self.talk()
            self.restart()
            listed = self.command("b2b_logic:list")
            self.assertEqual([entity["state"] for entity in listed[0]["entities"]], ["talking", "talking"])
            self.hang_up(port)
            del self.phones

    def test_requests(self) -> None:
        """Requests pass with numbers that go on, with their routes and to their targets; a re-INVITE too."""
        self.store()
        self.dial(more="Record-Route: <sip:127.0.0.1:7003;lr>\r\n")
        self.pick_up()
        self.restart()
        self.within("INFO", BOB)
        (info,) = self.sent(CAROL)
        self.assertEqual((info.uri, info.header("Route")), (f"sip:alice@127.0.0.1:{ALICE}", "<sip:127.0.0.1:7003;lr>"))
        self.reply(info, 200, CAROL)
        self.assertEqual(self.said(BOB), ["200 INFO"])
        before = self.invited.cseq.number
        self.within("INVITE", ALICE, sdp=SDP % "more")
        (again,) = [each for each in self.sent(BOB) if each.method == "INVITE"]
        self.assertEqual(again.body, (SDP % "more").encode())
        self.assertGreater(again.cseq.number, before)
        self.assertEqual((again.header("From"), again.to_tag), (self.invited.header("From"), "b1"))
        self.reply(again, 200, BOB, sdp=SDP % "bob")
        self.assertEqual(self.said(ALICE)[-1], "200")
        self.within("ACK", ALICE, cseq=self.cseq[ALICE])
        self.assertEqual(self.said(BOB), ["ACK"])
        self.within("BYE", ALICE)
        (bye,) = self.sent(BOB)
        self.reply(bye, 200, BOB)
        self.gone()

    def test_session_timer(self) -> None:
        """What was agreed on is known: a call that nobody refreshes ends, one that is refreshed goes on."""
        for refreshed in (True, False):
            self.store()
            timer = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n"
            self.dial(more=timer)
            self.sent(ALICE)
            data = response(self.invited, 200, extra=f"Contact: <sip:bob@127.0.0.1:{BOB}>\r\n{timer}Require: timer\r\n")
            self.arrive(self.message(data, SDP % "bob"), BOB)
            self.answered = self.sent(ALICE)[-1]
            self.within("ACK", ALICE, cseq=1)
            self.assertEqual(self.said(BOB), ["ACK"])
            self.restart()
            self.wait(45)
            if refreshed:
                self.within("UPDATE", ALICE, more=timer)
                (update,) = self.sent(BOB)
                self.reply(update, 200, BOB, more=timer)
                self.sent(ALICE)
                self.wait(45)
                self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
            self.wait(17)
            self.assertEqual((self.said(ALICE)[:1], self.said(BOB)[:1]), (["BYE"], ["BYE"]))
            self.wait(40)
            self.gone()

    def test_choices(self) -> None:
        """Challenges pass as before, and a tag that counts phones is that of the call."""
        self.store(begin='b2b_init_request("top hiding", "transparent-auth,pass-legs-upstream");')
        self.dial()
        self.pick_up()
        self.assertTrue((self.answered.to_tag or "").endswith(".1"))
        self.restart()
        self.within("INFO", ALICE, more='Authorization: Digest username="a"\r\n')
        (info,) = self.sent(BOB)
        self.assertEqual(info.header("Authorization"), 'Digest username="a"')
        self.reply(info, 401, BOB, more='WWW-Authenticate: Digest realm="x", nonce="n"\r\n')
        self.assertIn("WWW-Authenticate", "".join(self.sent(ALICE)[-1].lines))
        self.within("BYE", BOB)
        (bye,) = self.sent(ALICE)
        self.assertEqual((bye.from_tag, self.said(BOB)), (self.answered.to_tag, []))
        self.reply(bye, 200, ALICE)
        self.assertEqual(self.said(BOB), ["200 BYE"])
        self.gone()

    def test_old_request(self) -> None:
        """A request that is older than the last one before the kill is refused."""
        self.store()
        self.talk()
        self.within("INFO", ALICE)
        (info,) = self.sent(BOB)
        self.reply(info, 200, BOB)
        self.restart()
        self.sent(ALICE)
        self.within("INFO", ALICE, cseq=1, branch="old")
        self.assertEqual(self.said(ALICE), ["500 INFO"])
        self.hang_up(ALICE)

    def test_own_logic(self) -> None:
        """The script goes on to decide, with the context that it had."""
        self.store(begin=OWN, rest=ROUTES)
        self.talk()
        self.restart()
        self.logged()
        self.within("INFO", ALICE)
        self.assertEqual(self.said(ALICE), ["200 INFO"])
        self.within("UPDATE", BOB)
        (update,) = self.sent(ALICE)
        self.reply(update, 200, ALICE)
        self.assertEqual(self.said(BOB), ["200 UPDATE"])
        self.assertEqual(self.logged(), ["INFO mine al first", "UPDATE mine al second", "200 UPDATE"])
        self.within("BYE", ALICE)
        (bye,) = self.sent(BOB)
        self.reply(bye, 200, BOB)
        self.gone()

    def test_max_duration(self) -> None:
        """The time of a call goes on."""
        self.store(params='modparam("b2b_logic", "max_duration", 1000)')
        self.talk()
        self.wait(900)
        self.restart()
        self.wait(98)
        self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
        self.wait(3)
        for port in (ALICE, BOB):
            bye = self.sent(port)[0]
            self.assertEqual(bye.method, "BYE")
            self.reply(bye, 200, port)
        self.gone()

    def test_over_meanwhile(self) -> None:
        """A call whose time ran out while the server was down ends at its start."""
        self.store(params='modparam("b2b_logic", "max_duration", 1000)')
        self.talk()
        self.wait(0.01)
        self.rows("b2b_logic")[0]["lifetime"] = 1
        self.restart()
        self.assertEqual((self.said(ALICE)[:1], self.said(BOB)[:1]), (["BYE"], ["BYE"]))

    def test_unacknowledged(self) -> None:
        """An answer that was on its way: the callee is acknowledged, and both talk."""
        self.store()
        self.dial()
        self.pick_up(ack=False)
        self.wait(0.01)
        self.restart()
        self.assertEqual(self.said(BOB), ["ACK"])
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual((self.said(ALICE), self.said(BOB)), ([], []))
        self.hang_up(BOB)

    def test_leaving(self) -> None:
        """A BYE that nobody has answered is sent again."""
        self.store()
        self.talk()
        self.within("BYE", ALICE)
        (first,) = self.sent(BOB)
        self.wait(0.01)
        self.restart()
        (again,) = self.sent(BOB)
        self.assertEqual((first.method, again.method), ("BYE", "BYE"))
        self.assertGreater(again.cseq.number, first.cseq.number)
        self.reply(again, 200, BOB)
        self.gone()

    def test_ringing(self) -> None:
        """A call that is not answered is not stored: nothing goes on."""
        self.store()
        self.dial()
        self.ring()
        self.wait(0.01)
        self.restart()
        self.assertEqual((self.counted(), self.command("b2b_logic:list")), ((0, 0), []))

    def test_terminate(self) -> None:
        """Management commands find it by what they found it by before."""
        self.store()
        self.talk()
        before = self.command("b2b_logic:list")
        self.restart()
        after = self.command("b2b_logic:list")
        for listed in (before, after):
            for entity in listed[0]["entities"]:
                del entity["cseq"]
        self.assertEqual(before, after)
        self.command("b2b_logic:terminate_call", key=before[0]["key"])
        for port in (ALICE, BOB):
            (bye,) = self.sent(port)
            self.reply(bye, 200, port)
        self.gone()

    def joined_again(self, first: int, tag: str, other: int, its: str) -> None:
        """After a restart two get re-INVITEs until they have one another's descriptions."""
        (offer,) = self.sent(first)
        self.assertEqual((offer.method, offer.body), ("INVITE", b""))
        self.reply_as(offer, tag, first, SDP % tag)
        (match,) = self.sent(other)
        self.assertEqual((match.method, match.body.split(b" ")[0]), ("INVITE", (SDP % tag).encode().split(b" ")[0]))
        self.reply_as(match, its, other, SDP % its)
        self.assertEqual((self.said(first), self.said(other)), (["ACK"], ["ACK"]))

    def reply_as(self, to: Any, tag: str, port: int, sdp: str) -> None:
        """A phone accepts a re-INVITE."""
        data = response(to, 200, extra=f"Contact: <sip:{tag}@127.0.0.1:{port}>\r\n").replace(b";tag=b1\r\n", b"\r\n")
        if b";tag=" not in data.split(b"To:")[1].split(b"\r\n")[0]:
            data = data.replace(b"\r\nCall-ID", b";tag=b1\r\nCall-ID", 1)
        self.arrive(self.message(data, sdp), port)

    def test_middle_of_bridge(self) -> None:
        """In the middle of a bridge who is kept goes on with the new one that has answered, else with the old one."""
        rest = """
        route[asked] {
            if ($rm == "INFO") {
                b2b_send_reply(200, "OK");
                b2b_client_new("third", "sip:carol@127.0.0.1:7003");
                b2b_bridge("peer", "third");
                exit;
            }
            b2b_pass_request();
        }
        route[answered] { b2b_handle_reply(); }
        """
        for answered in (False, True):
            self.store(begin=OWN, rest=rest)
            self.talk()
            self.within("INFO", BOB)
            self.assertEqual(self.said(BOB), ["200 INFO"])
            (invite,) = self.sent(CAROL)
            if answered:
                extra = f"Contact: <sip:carol@127.0.0.1:{CAROL}>\r\n"
                self.arrive(self.message(response(invite, 200, tag="c1", extra=extra), SDP % "carol"), CAROL)
            self.sent(ALICE)
            self.restart()
            if answered:
                self.assertEqual((self.said(CAROL), self.said(BOB)[:1]), (["ACK"], ["BYE"]))
                self.joined_again(ALICE, "alice", CAROL, "carol")
                self.within("BYE", ALICE)
                self.assertEqual(self.said(CAROL), ["BYE"])
            else:
                self.joined_again(ALICE, "alice", BOB, "bob")
                self.within("BYE", ALICE)
                self.assertEqual(self.said(BOB), ["BYE"])
            self.wait(40)
            self.sent(CAROL)
            self.gone()
            del self.phones

    def test_anywhere(self) -> None:
        """Wherever in a call the server is killed, both sides end when one hangs up, or when nobody says anything any more."""

        def reinvite() -> None:
            self.within("INVITE", ALICE, sdp=SDP % "again")

        def accept() -> None:
            found = [each for each in self.sent(BOB) if getattr(each, "method", "") == "INVITE"]
            self.reply_as(found[-1], "b1", BOB, SDP % "bob")

        def bridge() -> None:
            key = self.command("b2b_logic:list")[0]["key"]
            self.command("b2b_logic:bridge", dialog_id=key, new_uri=f"sip:carol@127.0.0.1:{CAROL}", flag=0)

        def answer() -> None:
            (invite,) = self.sent(CAROL)
            extra = f"Contact: <sip:carol@127.0.0.1:{CAROL}>\r\n"
            self.arrive(self.message(response(invite, 200, tag="c1", extra=extra), SDP % "carol"), CAROL)

        steps: list[Any] = [
            self.dial, self.ring, lambda: self.pick_up(ack=False), lambda: self.within("ACK", ALICE, cseq=1),
            lambda: self.within("INFO", ALICE), reinvite, accept, lambda: self.within("ACK", ALICE, cseq=self.cseq[ALICE]),
            bridge, answer, lambda: self.within("BYE", ALICE),
        ]
        for killed in range(1, len(steps) + 1):
            parties = (ALICE, BOB, None)
            for who in parties if NIGHTLY else parties[killed % 3 : killed % 3 + 1]:
                self.store(params='modparam("b2b_logic", "max_duration", 500)')
                for step in steps[:killed]:
                    step()
                self.restart()
                answered = killed > 2
                if who is not None and answered:
                    self.within("BYE", who, cseq=9000)
                self.wait(600)
                for port in (ALICE, BOB, CAROL):
                    self.sent(port)
                self.assertEqual((dict(self.entities), self.command("b2b_logic:list"), self.counted()), ({}, [], (0, 0)))
                del self.phones

    def test_bridge_then_restart(self) -> None:
        """A call that was bridged goes on with who talks now; one that is being bridged, and whose old side is gone, ends."""
        for answered in (True, False):
            self.store()
            self.talk()
            key = self.command("b2b_logic:list")[0]["key"]
            self.command("b2b_logic:bridge", dialog_id=key, new_uri=f"sip:carol@127.0.0.1:{CAROL}")
            (bye,) = self.sent(BOB)
            self.reply(bye, 200, BOB)
            if answered:
                (invite,) = self.sent(CAROL)
                self.answer(invite, 200, port=CAROL, tag="c1", extra=f"Contact: <sip:carol@127.0.0.1:{CAROL}>\r\n")
                (offer,) = self.sent(ALICE)
                self.reply(offer, 200, ALICE, more=f"Contact: <sip:alice@127.0.0.1:{ALICE}>\r\n")
                self.assertEqual(self.said(CAROL), ["ACK"])
                self.sent(ALICE)
            self.wait(0.01)
            self.restart()
            if answered:
                self.within("BYE", ALICE)
                (bye,) = self.sent(CAROL)
                self.reply(bye, 200, CAROL)
            else:
                (bye,) = [each for each in self.sent(ALICE) if each.method == "BYE"]
                self.reply(bye, 200, ALICE)
            self.gone()
            del self.phones
