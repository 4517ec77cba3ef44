"""Tests of CDRs: one for each call that was answered, whoever ends it, whatever is repeated, and over a restart."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tests.db.memory import MemoryDatabase
from tests.modules.calls import ALICE, BOB
from tests.modules.test_dialog_db import StoredDialing
from tests.proxy.rig import request

ACC = """
loadmodule "acc.so"
modparam("acc", "db_url", "memory:")
modparam("acc", "extra_fields", "db|log|evi: who")
"""
EVENT = """event_route[E_ACC_CDR] { xlog("L_ALERT", "CDR $param(callid) $param(who) $param(duration) $param(setuptime)"); }"""


def at(seconds: int) -> datetime:
    """A time of day on the fake clock, as a column has it."""
    return datetime.fromtimestamp(1_700_000_000 + seconds)


class Accounted(StoredDialing):
    """Calls through a server that accounts them; ``mode`` is the dialogs' way to the database."""

    def account(
        self, what: str = 'do_accounting("db", "cdr");', *, mode: int = 1, params: str = "", within: str = "", rest: str = "",
    ) -> None:
        """Start the server."""
        self.store(mode, params=ACC + params, first=f"{what}", within=within, rest=rest)

    def cdrs(self, table: str = "acc") -> list[dict[str, Any]]:
        """What has been accounted."""
        return self.database.tables.get(table, [])

    def one(self) -> dict[str, Any]:
        """The one CDR."""
        (row,) = self.cdrs()
        return row

    def call(self) -> None:
        """A call that rings for 3 seconds and is acknowledged."""
        self.dial()
        self.answer(self.invited, 180)
        self.wait(3)
        self.pick_up()
        self.sent(ALICE)
        self.sent(BOB)


class CdrTests(Accounted):
    """When there is one, and what it says."""

    def test_fields(self) -> None:
        """What a CDR says; the dialog was made by do_accounting, and its row goes with the CDR."""
        for port in (ALICE, BOB):
            for mode in (0, 1, 2, 3):
                self.account('$acc_extra(who) = "me"; do_accounting("db|log|evi", "cdr|missed|failed");', mode=mode, rest=EVENT)
                self.call()
                self.assertEqual(self.cdrs(), [])
                self.wait(61.25)
                self.hang_up(port)
                self.wait(1)
                self.assertEqual(self.one(), {
                    "method": "INVITE", "from_tag": "a1", "to_tag": "b1", "callid": "call@test", "sip_code": "200",
                    "sip_reason": "Reason", "time": at(3), "who": "me", "setuptime": 3, "created": at(0), "duration": 62,
                    "ms_duration": 61250,
                }, (port, mode))
                self.assertEqual(self.rows(), [])
                self.assertIn("CDR call@test me 62 3", self.logged())
                del self.phones

    def test_line(self) -> None:
        """The line of the log, as OpenSIPS writes it."""
        self.account('$acc_extra(who) = "me"; do_accounting("log", "cdr");', params="log_level = 3\n")
        self.call()
        self.wait(10)
        self.hang_up(BOB)
        (line,) = [text for _, text in self.wired.lines if text.startswith("ACC")]
        self.assertEqual(line, (
            "ACC: call ended: created=1700000000;call_start_time=1700000003;duration=10;ms_duration=10000;setuptime=3;"
            "method=INVITE;from_tag=a1;to_tag=b1;call_id=call@test;code=200;reason=Reason;who=me"
        ))

    def test_repeated(self) -> None:
        """Repeated 200s, ACKs and BYEs, BYEs of both sides at once, and a late BYE after the end make no second CDR."""
        self.account()
        self.call()
        record = "".join(f"Record-Route: {value}\r\n" for value in self.routes(self.invited))
        for _ in range(3):
            self.answer(self.invited, 200, extra=record + "Contact: <sip:bob@127.0.0.1:7002>\r\n")
            self.within("ACK", ALICE, cseq=1)
        self.sent(BOB)
        for _ in range(3):
            self.within("BYE", ALICE, cseq=2)
        self.within("BYE", BOB)
        to_bob, to_alice = self.sent(BOB)[0], [m for m in self.sent(ALICE) if m.lines[0].startswith("BYE")]
        self.reply_within(to_bob, 200, BOB)
        self.reply_within(to_bob, 200, BOB)
        for bye in to_alice:
            self.reply_within(bye, 200, ALICE)
        self.within("BYE", ALICE)
        self.wait(300)
        self.assertEqual((self.one()["duration"], self.rows()), (0, []))
        self.settle()

    def test_no_ack(self) -> None:
        """A BYE that overtakes the ACK."""
        self.account()
        self.dial()
        self.pick_up(ack=False)
        self.wait(0.3)
        self.within("BYE", ALICE)
        self.within("ACK", ALICE, cseq=1)
        bye = next(message for message in self.sent(BOB) if message.method == "BYE")
        self.reply_within(bye, 200, BOB)
        self.wait(100)
        self.assertEqual((self.one()["ms_duration"], self.rows()), (300, []))

    def test_bye_is_refused_or_lost(self) -> None:
        """Whatever a BYE is answered, the call is over."""
        for status in (481, 500, 0):
            self.account()
            self.call()
            self.wait(7)
            self.within("BYE", ALICE)
            if status:
                self.reply_within(self.sent(BOB)[0], status, BOB)
            self.assertEqual(len(self.cdrs()), bool(status))
            self.assertEqual(len(self.rows()), not status)
            self.wait(60)
            self.assertEqual((self.one()["duration"], self.rows()), (7, []))
            del self.phones

    def test_bye_without_transaction(self) -> None:
        """A script that drops the BYE, or forwards it without a transaction."""
        for what in ("exit;", "forward(); exit;"):
            self.account(within=f"if (is_method(\"BYE\")) {{ {what} }}")
            self.call()
            self.within("BYE", ALICE)
            self.assertEqual(self.cdrs(), [])
            self.wait(41)
            self.assertEqual((self.one()["duration"], self.rows()), (0, []))
            del self.phones

    def test_never_answered(self) -> None:
        """A call that fails or is cancelled has no CDR; the flags missed and failed tell of it."""
        for status, flags, missed, failed in [(486, "cdr", 0, 0), (486, "cdr|missed", 1, 0), (503, "cdr|missed|failed", 1, 1)]:
            self.account(f'do_accounting("db", "{flags}");')
            self.dial()
            self.answer(self.invited, status)
            self.assertEqual((len(self.cdrs("missed_calls")), len(self.cdrs()), self.rows()), (missed, failed, []))
            del self.phones
        self.account('do_accounting("db", "cdr|missed");')
        self.dial()
        self.answer(self.invited, 180)
        self.arrive(request("CANCEL"))
        self.answer(self.invited, 487)
        self.wait(50)
        self.assertEqual([row["sip_code"] for row in self.cdrs("missed_calls")], ["487"])
        self.assertEqual(self.cdrs(), [])

    def test_time_is_over(self) -> None:
        """The time of the call is over, or the operator ends it, or pings fail."""
        for flags in ("", "bye-on-timeout"):
            self.account(f'$DLG_timeout = 60; create_dialog("{flags}"); do_accounting("db", "cdr");')
            self.call()
            self.wait(100)
            self.assertEqual((self.one()["duration"], self.rows()), (60, []))
            del self.phones
        self.account()
        self.call()
        self.wait(5)
        self.command("dialog:end_dlg", dialog_id="call@test")
        self.wait(100)
        self.assertEqual(self.one()["duration"], 5)

    def test_own_byes(self) -> None:
        """In local_route the requests that the server itself sends are accounted, and know their dialog."""
        self.account(
            'create_dialog("bye-on-timeout"); do_accounting("db", "cdr");',
            rest="""local_route {
                if (is_method("BYE")) { do_accounting("db", "failed", "byes"); xlog("L_ALERT", "$DLG_status"); } }""",
        )
        self.call()
        self.command("dialog:end_dlg", dialog_id="call@test")
        (to_alice,), (to_bob,) = self.sent(ALICE), self.sent(BOB)
        self.reply_within(to_bob, 481, BOB)
        self.reply_within(to_alice, 200, ALICE)
        self.assertEqual(sorted((row["from_tag"], row["sip_code"]) for row in self.cdrs("byes")), [("a1", "481"), ("b1", "200")])
        self.assertEqual((len(self.cdrs()), self.logged()), (1, ["4", "4"]))

    def test_fields_within(self) -> None:
        """Fields set while the call goes on, and at its end; another leg; a context loaded by another request."""
        self.account(
            params='modparam("acc", "leg_fields", "db: leg")',
            what='do_accounting("db", "cdr", "mine"); $acc_leg(leg) = "first"; $acc_extra(who) = "before";',
            within="""if (is_method("INFO")) { xlog("L_ALERT", "$acc_extra(who)"); acc_new_leg(); $acc_leg(leg) = "second"; }
                if (is_method("BYE")) $acc_extra(who) = "at the end";
                if (is_method("MESSAGE")) { $acc_extra(who) = "x"; load_dialog_ctx("call@test"); acc_load_ctx_from_dlg();
                    if (!acc_load_ctx_from_dlg()) xlog("L_ALERT", "twice");
                    xlog("L_ALERT", "$(acc_leg(leg)[0])"); acc_unload_ctx_from_dlg(); unload_dialog_ctx();
                    if (!acc_unload_ctx_from_dlg()) xlog("L_ALERT", "none"); }""",
        )
        self.call()
        self.within("INFO", ALICE)
        self.within("MESSAGE", ALICE)
        self.sent(BOB)
        self.sent(ALICE)
        self.hang_up(ALICE)
        self.assertEqual([line for line in self.logged() if not line.startswith("acc")], ["before", "twice", "first", "none"])
        self.assertEqual([(row["leg"], row["who"]) for row in self.cdrs("mine")], [
            ("first", "at the end"), ("second", "at the end")])
        self.assertEqual(self.rows(), [])

    def test_dropped(self) -> None:
        """What is dropped before the answer, or while the call goes on."""
        self.account('do_accounting("db", "cdr"); drop_accounting("db", "cdr");')
        self.call()
        self.assertEqual((self.one()["duration"], self.one()["setuptime"]), (0, 3))
        self.hang_up(ALICE)
        self.assertEqual(len(self.cdrs()), 1)
        del self.phones
        self.account(within='if (is_method("INFO")) drop_accounting();')
        self.call()
        self.within("INFO", ALICE)
        self.sent(ALICE)
        self.sent(BOB)
        self.hang_up(ALICE)
        self.assertEqual((self.cdrs(), self.rows()), ([], []))

    def test_without_dialog(self) -> None:
        """Without module dialog the INVITE is accounted as a transaction, and the log says so."""
        from tests.modules.calls import Calls

        script = ACC.replace("db|log|evi", "log") + 'route { do_accounting("log", "cdr"); t_relay(); }'
        script = script.replace('modparam("acc", "db_url", "memory:")', "log_level = 3")
        Calls.start(self, script)
        (invited,) = self.invite(BOB)
        self.answer(invited, 200)
        lines = [text for _, text in self.wired.lines]
        self.assertTrue(any("transaction answered" in text for text in lines))
        self.assertTrue(any("means nothing without" in text for text in lines))


class RestartTests(Accounted):
    """Exactly one CDR, however often the server dies."""

    def test_restart(self) -> None:
        """Killed in the middle of a call: the CDR knows everything."""
        self.account('$acc_extra(who) = "me"; do_accounting("db", "cdr|missed", "mine");')
        self.call()
        for seconds in (20, 21, 22):
            self.wait(seconds)
            self.restart()
        self.hang_up(BOB)
        (row,) = self.cdrs("mine")
        self.assertEqual((row["callid"], row["sip_code"]), ("call@test", "200"))
        self.assertEqual((row["who"], row["duration"], row["setuptime"]), ("me", 63, 3))
        self.assertEqual((row["created"], row["time"]), (at(0), at(3)))
        self.restart()
        self.wait(50000)
        self.assertEqual((len(self.cdrs("mine")), self.rows()), (1, []))

    def test_killed_at_bye(self) -> None:
        """Killed between the BYE and its answer: the call is there again, and ends when its time is over."""
        self.account()
        self.call()
        self.wait(10)
        self.within("BYE", ALICE)
        self.assertEqual((self.cdrs(), len(self.rows())), ([], 1))
        self.restart()
        self.wait(43300)
        self.assertEqual((self.one()["duration"], self.rows()), (43200, []))

    def test_stopped_at_bye(self) -> None:
        """Stopped in order between the BYE and its answer: the CDR is written before the end."""
        self.account()
        self.call()
        self.wait(10)
        self.within("BYE", ALICE)
        self.restart(orderly=True)
        self.assertEqual((self.one()["duration"], self.rows()), (10, []))

    def test_killed_before_commit(self) -> None:
        """Killed while the database was away: neither the CDR nor the end of the call is on disk, so it ends once more."""
        self.account()
        self.call()
        self.database.down = True
        self.hang_up(ALICE)
        self.assertEqual(self.cdrs(), [])
        self.database.down = False
        self.restart()
        self.wait(43300)
        self.assertEqual((len(self.cdrs()), self.rows()), (1, []))

    def test_broken_off(self) -> None:
        """The connection breaks when the CDR has been written: it is not written again."""
        self.account()
        self.call()
        self.database.breaks = True
        self.hang_up(ALICE)
        self.assertEqual(len(self.cdrs()), 1)
        self.database.down = False
        self.wait(30)
        self.assertEqual((len(self.cdrs()), self.rows(), len(self.dialog.writes)), (1, [], 0))

    def test_of_opensips(self) -> None:
        """A call that an OpenSIPS 4.1 accounted and left in the database: its very row, ended here."""
        values = (
            b"accX_table#1#acc|accX_created#1#\0\xf1\x53\x65\0\0\0\0|accX_flags#1#\0\0\x07\0\0\0\x02\0|"
            b"accX_leg#1#\x01\0\x02\0\x02\0l1\x02\0l2|accX_extra#1#\x02\0\x06\0w\xc3\xb6rld\0\0|"
            b"accX_core#1#\x06\0INVITE\x02\0a1\x02\0b1\x09\0call@test\x03\x00200\x02\0OK"
            b"\x10\0\x05\xf1\x53\x65\0\0\0\0\x20\xa1\x07\0\0\0\0\0|cct#1#|"
        )
        self.account(params="""modparam("acc", "extra_fields", "log: other")
            modparam("acc", "leg_fields", "db: leg")""")
        self.talk()
        (row,) = self.rows()
        row["vars"] = values
        row["dlg_id"] = 1427553920219
        self.restart()
        self.hang_up(ALICE)
        self.assertEqual([(row["leg"], row["who"], row["created"], row["time"], row["sip_reason"]) for row in self.cdrs()], [
            ("l1", "w\u00f6rld", at(0), at(5), "OK"), ("l2", "w\u00f6rld", at(0), at(5), "OK")])
        self.assertEqual(self.rows(), [])

    def test_spoilt(self) -> None:
        """What cannot be read of a call is told, and the call goes on without a CDR."""
        for values in (
            b"accX_cdr#1#{|", b"accX_cdr#1#[]|", b"accX_core#1#\x09\0a|accX_flags#1#x|", b"accX_core#1#|accX_flags#1#|",
        ):
            self.account()
            self.talk()
            self.rows()[0]["vars"] = values
            self.restart()
            self.assertIn("will not be accounted", self.logged()[-1])
            self.hang_up(ALICE)
            self.assertEqual((self.cdrs(), self.rows()), ([], []))
            del self.phones

    def test_two_databases(self) -> None:
        """CDRs in another database: the row of the dialog stays until the CDR is on disk, and is told apart from a new one."""
        self.account()
        other = MemoryDatabase("other")
        acc: Any = self.wired.server.modules["acc"]
        acc.writes.database = other
        self.call()
        other.down = True
        self.hang_up(ALICE)
        self.assertEqual(len(self.rows()), 1)
        other.down = False
        self.database.down = True
        self.wait(3)
        self.assertEqual((len(other.tables["acc"]), len(self.rows())), (1, 1))
        self.database.down = False
        self.restart()
        acc = self.wired.server.modules["acc"]
        acc.writes.database = other
        self.wait(43300)
        self.assertEqual((len(other.tables["acc"]), self.rows()), (1, []))


