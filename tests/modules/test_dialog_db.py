"""Tests of dialogs in a database: what is written when, and calls that go on after a restart."""

from __future__ import annotations

from typing import Any

from sipgw.testing import Phone, WiredServer, finished
from tests.db.memory import MemoryDatabase, MemoryDatabases
from tests.modules.calls import ALICE, BOB, HEAD
from tests.modules.dialing import Dialing

PARAMS = """
modparam("dialog", "db_url", "memory:")
modparam("dialog", "db_mode", %d)
modparam("dialog", "profiles_with_value", "caller")
"""


class StoredDialing(Dialing):
    """A server whose database is in memory, and outlives it."""

    databases: MemoryDatabases

    def store(self, mode: int = 1, params: str = "", **options: Any) -> None:
        """Start the first server."""
        self.databases = MemoryDatabases()
        self.options = {"params": PARAMS % mode + params, **options}
        self.serve(**self.options)

    def start(self, script: str) -> None:
        """Start a server, with that database and the phones that there are."""
        self.script = script
        databases = self.databases

        def before(server: Any) -> None:
            server.databases = databases

        if hasattr(self, "phones"):
            clock = self.wired.clock
            wire = self.wired.wire
            for socket in self.wired.user.sockets:
                del wire._sockets[socket.host, socket.port]
            self.wired = WiredServer(HEAD + script, wire=wire, before=before)
            assert self.wired.clock is clock
        else:
            self.wired = WiredServer(HEAD + script, before=before)
            self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB)}

    def restart(self, orderly: bool = False) -> None:
        """End the server, all at once or in order, and start another."""
        cseq = self.cseq
        if orderly:
            for module in reversed(list(self.wired.server.modules.values())):
                finished(module.stop())
        self.wired.clock.calls.clear()
        self.start(self.script)
        self.cseq = cseq

    @property
    def database(self) -> MemoryDatabase:
        """The one."""
        return self.databases.database

    def rows(self) -> list[dict[str, Any]]:
        """The rows of the table."""
        return self.database.tables.get("dialog", [])


class StoreTests(StoredDialing):
    """Modes 1, 2 and 3."""

    def test_realtime(self) -> None:
        """A row is written with the answer, changes, and goes with the call."""
        self.store(first="""create_dialog(); $dlg_val(x) = "y"; set_dlg_profile("caller", "al"); set_dlg_flag("F");""")
        self.assertEqual(self.databases.checked, [("dialog", 12)])
        self.dial()
        self.assertEqual(self.rows(), [])
        self.pick_up(ack=False)
        (row,) = self.rows()
        self.assertEqual((row["state"], row["callid"], row["vars"], row["profiles"], row["script_flags"]), (
            3, "call@test", b"x#1#y|", "caller#1#al|", "F"))
        self.within("ACK", ALICE, cseq=1)
        self.assertEqual(self.rows()[0]["state"], 4)
        self.sent(ALICE)
        self.sent(BOB)
        self.hang_up(BOB)
        self.assertEqual(self.rows(), [])

    def test_restart(self) -> None:
        """After a kill the BYE finds its way, in either direction; profiles count again; time goes on."""
        for port in (ALICE, BOB):
            self.store(first="""create_dialog(); $dlg_val(x) = "y"; set_dlg_profile("caller", "al");""",
                within='xlog("L_ALERT", "$rm $DLG_status $DLG_dir $dlg_val(x) $DLG_timeout");')
            self.talk()
            self.logged()
            self.wait(100)
            self.restart()
            self.assertEqual((self.states(), self.numbers()), ([4], {"active": 1}))
            size = self.command("dialog:profile_get_size", profile="caller", value="al")
            self.assertEqual(size["Profile"]["count"], 1)
            self.within("INFO", ALICE)
            self.sent(BOB)
            self.hang_up(port)
            self.assertEqual(self.logged()[0], "INFO 4 downstream y 43100")
            self.assertEqual((self.states(), self.rows()), ([], []))
            del self.phones

    def test_pings(self) -> None:
        """Pings go on after a restart, with numbers that go on."""
        self.store(first='create_dialog("options-ping-callee");')
        self.talk()
        self.wait(30)
        (ping,) = self.sent(BOB)
        self.reply_within(ping, 200, BOB)
        self.within("INFO", ALICE)
        self.sent(BOB)
        self.restart()
        self.wait(29)
        self.assertEqual(self.said(BOB), [])
        self.wait(1)
        (ping,) = self.sent(BOB)
        self.assertEqual((ping.method, ping.cseq.number), ("OPTIONS", 4))

    def test_overdue(self) -> None:
        """A call whose time was over while the server was away is ended at once."""
        self.store(params='modparam("dialog", "default_timeout", 60)', first='create_dialog("bye-on-timeout");')
        self.talk()
        databases = self.databases
        old = self.wired
        self.wait(30)
        self.databases = MemoryDatabases()
        self.databases.database.tables = databases.database.tables
        for row in self.databases.database.tables["dialog"]:
            row["timeout"] = 1_700_000_001
        self.assertIsNotNone(old)
        self.restart()
        self.wait(1)
        self.assertEqual((self.said(ALICE)[:1], self.said(BOB)[:1], self.states()), (["BYE"], ["BYE"], []))

    def test_delayed(self) -> None:
        """Mode 2 writes now and then, and what has ended before never."""
        self.store(2, params='modparam("dialog", "db_update_period", 20)')
        self.talk()
        self.assertEqual(self.rows(), [])
        self.wait(21)
        self.assertEqual(len(self.rows()), 1)
        self.hang_up(ALICE)
        self.assertEqual(self.rows(), [])
        self.talk(branch="two")
        self.sent(ALICE)
        self.hang_up(ALICE)
        self.wait(30)
        self.assertEqual(self.rows(), [])

    def test_shutdown(self) -> None:
        """Mode 3 writes when the server stops."""
        self.store(3)
        self.talk()
        self.wait(100)
        self.assertEqual(self.rows(), [])
        self.restart(orderly=True)
        self.assertEqual(self.states(), [4])
        self.hang_up(ALICE)
        self.assertEqual(self.rows(), [])

    def test_down(self) -> None:
        """A database that is down delays nothing; a call is written once when it is back, however often it changed."""
        self.store()
        self.database.down = True
        self.talk()
        for _ in range(5):
            self.within("INFO", ALICE)
        self.database.down = False
        self.wait(3)
        self.assertEqual([row["callee_cseq"] for row in self.rows()], ["6"])
        self.assertEqual(len(self.dialog.writes), 0)
        self.database.down = True
        self.sent(BOB)
        self.sent(ALICE)
        self.hang_up(ALICE)
        self.database.down = False
        self.wait(3)
        self.assertEqual(self.rows(), [])

    def test_too_long(self) -> None:
        """A Contact that is longer than its column is cut rather than the row lost."""
        self.store()
        self.database.longest = 255
        self.dial()
        self.calls[0].caller.contact = "sip:" + "a" * 300
        self.pick_up()
        self.assertEqual([len(row["caller_contact"]) for row in self.rows()], [255])

    def test_flush_values(self) -> None:
        """A change of a value is written by itself only if that is wanted."""
        for flush, seen in [(0, b""), (1, b"x#2#1|")]:
            self.store(params=f'modparam("dialog", "db_flush_vals_profiles", {flush})',
                within="if (is_method(\"ACK\")) { t_relay(); $dlg_val(x) = 1; exit; }")
            self.talk()
            self.assertEqual(self.rows()[0]["vars"], seen)
            self.restart(orderly=True)
            self.assertEqual((self.rows()[0]["vars"], self.calls[0].values), (b"x#2#1|", {"x": 1}))
            del self.phones

    def test_commands(self) -> None:
        """dialog:db_sync takes over what is there, dialog:restore_db writes it anew."""
        self.store()
        self.talk()
        self.database.tables["dialog"].append({"dlg_id": "what"})
        self.assertEqual(self.command("dialog:db_sync"), "OK")
        self.assertIn("cannot be read", self.logged()[-1])
        self.dialog.follower.calls.remove(self.calls[0])
        self.command("dialog:db_sync")
        self.assertEqual(self.states(), [4])
        self.database.tables["dialog"].clear()
        self.assertEqual(self.command("dialog:restore_db"), "OK")
        self.assertEqual(len(self.rows()), 1)
        self.database.down = True
        self.assertEqual(self.command("dialog:restore_db"), (400, "Restore dlg DB failed!"))
        self.assertEqual(self.command("dialog:db_sync"), (400, "Sync mem with DB failed"))

    def test_no_database(self) -> None:
        """Without one the commands say so."""
        self.databases = MemoryDatabases()
        self.serve()
        self.assertEqual(self.command("dialog:db_sync"), (400, "Cannot sync in no-db mode"))
        self.assertEqual(self.command("dialog:restore_db"), (400, "Cannot restore db in no-db mode!"))

    def test_what_the_database_knows_better(self) -> None:
        """dlg_db_sync takes from a row with the same state greater numbers, a later end, values and profiles; from one with a
        later state all; from one with an earlier state nothing."""
        self.store(first="""create_dialog("bye-on-timeout"); $dlg_val(a) = 1; $dlg_val(b) = 2; $DLG_timeout = 100;""")
        self.dial()
        self.pick_up(ack=False)
        (row,) = self.rows()
        (call,) = self.calls
        end = row["timeout"]

        def sync(**changes: Any) -> tuple[Any, ...]:
            (row,) = self.rows()
            row.update(changes)
            self.assertEqual(self.command("dialog:db_sync"), "OK")
            left = round(call.ends - self.wired.clock.seconds())
            return (int(call.state), left, call.caller.cseq, call.winner.generated, dict(call.values), list(call.profiles))

        both = {"a": 1, "b": 3}
        found = sync(timeout=end - 50, caller_cseq="9", callee_ping_cseq=7, vars=b"b#2#3|", profiles="caller#1#x|", flags=0)
        self.assertEqual(found, (3, 100, 9, 7, both, [("caller", "x")]))
        self.assertEqual(int(call.flags), 8)
        found = sync(timeout=end + 50, caller_cseq="4", callee_ping_cseq=3)
        self.assertEqual(found, (3, 150, 9, 7, both, [("caller", "x")]))
        found = sync(state=4, timeout=end - 40, caller_cseq="5", callee_ping_cseq=2, rt_on_hangup="bye", flags=0)
        self.assertEqual(found, (4, 60, 5, 2, both, [("caller", "x")]))
        self.assertEqual((int(call.flags), call.routes), (0, {"hangup": "bye"}))
        found = sync(state=3, timeout=end + 500, caller_cseq="99")
        self.assertEqual(found, (4, 60, 5, 2, both, [("caller", "x")]))
        self.assertEqual(self.dialog.follower.profiles.size("caller"), 1)
