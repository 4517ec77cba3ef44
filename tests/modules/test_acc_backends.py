"""Tests of acc's backends db and evi: rows and events, where OpenSIPS writes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.modules.acc import Acc
from sipgw.script.run import Run
from sipgw.testing import finished
from tests.db.memory import MemoryDatabases
from tests.modules.test_acc import response
from tests.proxy.rig import FakeServer, Rig, request

NOW = datetime.fromtimestamp(1_700_000_000)
CORE = {
    "method": "INVITE", "from_tag": "a1", "to_tag": "b1", "callid": "call@test", "sip_code": "200", "sip_reason": "Reason",
    "time": NOW,
}
MISSED = CORE | {"sip_code": "486", "setuptime": 0, "created": NOW}
ANSWERED = CORE | {"setuptime": 0, "created": NOW, "duration": 0, "ms_duration": 0}


class Heard:
    """A subscriber of events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def send(self, event: str, params: Any) -> bool:
        """Note it."""
        self.events.append((event, dict(params)))
        return True


class BackendTests(SynchronousTestCase):
    """A server that relays everything to 7002 and accounts to a database in memory."""

    def setUp(self) -> None:
        """Start it."""
        self.make()

    def make(self, **parameters: Any) -> None:
        """Start it, with these parameters."""
        self.rig = Rig()
        self.databases = MemoryDatabases()
        server: Any = FakeServer(self.rig.user)
        server.databases = self.databases
        parameters.setdefault("db_url", "memory:")
        extra = [parameters.pop("extra_fields", ()), parameters.pop("leg_fields", ())]
        self.acc = Acc(server, tm=self.rig.tm, **parameters)
        for name, texts in zip(("extra_fields", "leg_fields"), extra, strict=True):
            for text in texts:
                self.acc.set_parameter(name, text)
        finished(self.acc.start())
        self.heard = Heard()
        for name in ("E_ACC_EVENT", "E_ACC_MISSED_EVENT", "E_ACC_CDR"):
            self.rig.user.events.join(self.rig.user.events.publish(name), "test:", self.heard)

    def script(self, *before: Callable[[Run], Any]) -> None:
        """Relay after calling ``before``."""

        async def route(run: Run) -> None:
            for call in before:
                call(run)
            await self.rig.tm.t_relay(run)

        self.rig.routes(route)

    def account(self, *arguments: Any) -> Callable[[Run], Any]:
        """A call of do_accounting."""
        return lambda run: self.assertTrue(self.acc.do_accounting(run, *arguments))

    def play(self, status: int = 200, **options: Any) -> None:
        """A call, and what the callee answers."""
        self.rig.sent(7002)
        self.rig.arrive(request("INVITE", **options), 7001)
        (sent,) = self.rig.sent(7002)
        self.rig.arrive(response(sent, status), 7002)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """What is in a table."""
        return self.databases.database.tables.get(table, [])

    def test_rows(self) -> None:
        """Successes into one table, missed calls into the other; the versions of both are looked at."""
        self.assertEqual(self.databases.checked, [("acc", 7), ("missed_calls", 5)])
        for flags, status, answered, missed in [
            (None, 200, [ANSWERED], []),
            (None, 486, [], []),
            ("missed", 486, [], [MISSED]),
            ("failed|missed", 486, [ANSWERED | {"sip_code": "486"}], [MISSED]),
        ]:
            self.make()
            self.script(self.account("db", flags))
            self.play(status)
            self.assertEqual((self.rows("acc"), self.rows("missed_calls")), (answered, missed), (flags, status))

    def test_repeated(self) -> None:
        """A 2xx that comes again is not accounted again; one of another phone is."""
        self.script(self.account("db"))
        self.rig.arrive(request("INVITE"), 7001)
        (sent,) = self.rig.sent(7002)
        for tag in ("b1", "b1", "c1", "b1", "c1"):
            self.rig.arrive(response(sent, 200).replace(b"tag=b1", f"tag={tag}".encode()), 7002)
        self.assertEqual(self.rig.said(7001).count("200"), 5)
        self.assertEqual([row["to_tag"] for row in self.rows("acc")], ["b1", "c1"])

    def test_setup_time(self) -> None:
        """The time from the first accounting to the answer."""
        self.script(self.account("db"))
        self.rig.arrive(request("INVITE"), 7001)
        (sent,) = self.rig.sent(7002)
        self.rig.arrive(response(sent, 180), 7002)
        self.rig.clock.advance(12)
        self.rig.arrive(response(sent, 200), 7002)
        (row,) = self.rows("acc")
        self.assertEqual((row["setuptime"], row["created"], row["time"]), (12, NOW, datetime.fromtimestamp(1_700_000_012)))

    def test_names(self) -> None:
        """Tables and columns by their parameters, and a table of the script's own."""
        self.make(db_table_acc="mine", db_table_missed_calls="lost", acc_callid_column="call", acc_time_column="at")
        self.script(self.account("db", "missed"))
        self.play(486)
        self.play(branch="two")
        self.script(self.account("db", None, "other"), self.account("db"))
        self.play(branch="three")
        for table in ("mine", "lost", "other"):
            (row,) = self.rows(table)
            self.assertEqual((row["call"], row["at"], "callid" in row), ("call@test", NOW, False))
        self.assertEqual(set(self.databases.database.tables), {"mine", "lost", "other"})

    def test_fields(self) -> None:
        """A row and an event for each leg; a field without a value is not in the row."""
        self.make(extra_fields=["db|evi: a->col_a; b", "log: only_log"], leg_fields=["db: l->leg; m", "evi: l"])

        def fill(run: Run) -> None:
            self.acc.set_extra(run, "a", 7)
            self.acc.set_extra(run, "only_log", "x")
            self.acc.set_leg(run, "l", None, "1")
            self.acc.acc_new_leg(run)
            self.acc.set_leg(run, "l", None, "2")
            self.acc.set_leg(run, "m", None, "3")

        self.script(fill, self.account("db|evi"))
        self.play()
        self.assertEqual(self.rows("acc"), [
            ANSWERED | {"col_a": "7", "leg": "1"}, ANSWERED | {"col_a": "7", "leg": "2", "m": "3"},
        ])
        self.assertEqual([(name, params["col_a"], params["b"], params["l"]) for name, params in self.heard.events], [
            ("E_ACC_EVENT", "7", "", "1"), ("E_ACC_EVENT", "7", "", "2"),
        ])
        self.assertEqual(list(self.heard.events[0][1]), list(self.acc.answered_event.parameters))
        self.assertEqual(self.batches(), [2])

    def batches(self) -> list[int]:
        """How many rows each transaction had."""
        return self.databases.database.batches

    def test_flat(self) -> None:
        """A flat file has every column in each row, and no versions."""
        self.databases = MemoryDatabases()
        self.databases.database.dialect = "flatstore"
        kept = self.databases
        rig = Rig()
        server: Any = FakeServer(rig.user)
        server.databases = kept
        acc = Acc(server, tm=rig.tm, db_url="x:", extra_fields="db: a; b")
        finished(acc.start())
        self.assertEqual(kept.checked, [])

        async def route(run: Run) -> None:
            acc.set_extra(run, "a", "1")
            acc.do_accounting(run, "db")
            await rig.tm.t_relay(run)

        rig.routes(route)
        rig.arrive(request("INVITE"), 7001)
        (sent,) = rig.sent(7002)
        rig.arrive(response(sent, 200), 7002)
        (row,) = kept.database.tables["acc"]
        self.assertEqual(list(row), [*CORE, "a", "b", "setuptime", "created", "duration", "ms_duration"])
        self.assertEqual((row["a"], row["b"]), ("1", ""))

    def test_events(self) -> None:
        """An event for a success, another for a missed call."""
        self.script(self.account("evi", "missed"))
        self.play(486)
        self.play(branch="two")
        core = CORE | {"time": 1_700_000_000}
        self.assertEqual(self.heard.events, [
            ("E_ACC_MISSED_EVENT", core | {"sip_code": "486", "setuptime": 0, "created": 1_700_000_000}), ("E_ACC_EVENT", core),
        ])

    def test_local_failure(self) -> None:
        """A call that the script refuses is missed too, as in OpenSIPS."""

        async def route(run: Run) -> None:
            self.acc.do_accounting(run, "db", "missed")
            self.rig.tm.t_reply(run, 404, "Not Found")

        self.rig.routes(route)
        self.rig.arrive(request("INVITE"), 7001)
        self.assertEqual([row["sip_code"] for row in self.rows("missed_calls")], ["404"])

    def test_now(self) -> None:
        """acc_db_request and acc_evi_request; without an account there are no times but the one."""
        for comment, event in [("404 Not Found", "E_ACC_MISSED_EVENT"), ("200 OK", "E_ACC_EVENT"), ("what", "E_ACC_EVENT")]:
            self.make()
            self.script(
                partial(self.acc.acc_db_request, comment=comment, table="acc"), partial(self.acc.acc_evi_request, comment=comment)
            )
            self.play()
            (row,) = self.rows("acc")
            self.assertEqual(set(row), set(CORE))
            self.assertEqual(row["sip_code"], "" if comment == "what" else comment[:3])
            self.assertEqual([name for name, _ in self.heard.events], [event])

    def test_each_its_own(self) -> None:
        """Backends have flags of their own, but a failure that one wants is accounted by all."""
        self.script(self.account("db", "missed"), self.account("evi"))
        self.play(486)
        self.assertEqual((len(self.rows("missed_calls")), len(self.rows("acc")), self.heard.events), (1, 0, []))
        self.make()
        self.script(self.account("db", "failed"), self.account("evi"))
        self.play(486)
        self.assertEqual((len(self.rows("acc")), [name for name, _ in self.heard.events]), (1, ["E_ACC_EVENT"]))

    def test_drop(self) -> None:
        """One backend is dropped, the other goes on."""
        self.script(self.account("db|evi"), lambda run: self.acc.drop_accounting(run, "evi"))
        self.play()
        self.assertEqual((len(self.rows("acc")), self.heard.events), (1, []))

    def test_too_long(self) -> None:
        """What the columns do not hold is cut rather than lost; what is lost is logged."""
        self.databases.database.longest = 64
        self.script(self.account("db"))
        call_id = "c" * 90
        self.rig.arrive(request("INVITE").replace(b"call@test", call_id.encode()), 7001)
        (sent,) = self.rig.sent(7002)
        self.rig.arrive(response(sent, 200), 7002)
        self.assertEqual([row["callid"] for row in self.rows("acc")], ["c" * 64])
        self.databases.database.longest = 3
        self.play(branch="two")
        (line,) = [text for level, text in self.rig.log if level == -1]
        self.assertIn("ACC: not written to acc: method=INVITE;from_tag=a1;to_tag=b1;callid=call@test", line)

    def test_down(self) -> None:
        """A call does not wait for a database that is down; its row comes later."""
        self.databases.database.down = True
        self.script(self.account("db"))
        self.play()
        self.assertIn("200", self.rig.said(7001))
        self.databases.database.down = False
        self.rig.clock.advance(2)
        self.assertEqual(self.rows("acc"), [ANSWERED])
        finished(self.acc.stop())

    def test_no_database(self) -> None:
        """Without a database db cannot be asked for."""
        self.make(db_url="")
        results: list[bool] = []
        self.script(
            lambda run: results.append(self.acc.do_accounting(run, "db")),
            lambda run: results.append(self.acc.acc_db_request(run, "404", "acc")),
        )
        self.play()
        finished(self.acc.stop())
        self.assertEqual(results, [False, False])
        self.assertIn("set acc.db_url", self.rig.log[0][1])
