"""Tests of sipgw.modules.dialplan: tables on each engine, partitions, commands, status."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.interfaces import Value
from sipgw.mi.jsonrpc import MIError
from sipgw.modules.dialplan import Dialplan
from sipgw.testing import FakeServer, finished
from tests.db.cases import PAYLOADS
from tests.doubles import FakeVariable
from tests.modules.tables import TableCases, engines


def rule(dpid: int, operator: int, expression: str, **more: Value) -> dict[str, Value]:
    """A row of the table."""
    row: dict[str, Value] = {"dpid": dpid, "pr": 0, "match_op": operator, "match_exp": expression}
    return {**row, "match_flags": 0, "disabled": 0, **more}


ROWS = (
    rule(1, 1, r"^0049(\d+)", subst_exp=r"^0049(\d+)", repl_exp=r"+49\1", attrs="german"),
    rule(1, 1, "^00", attrs="abroad"),
    rule(1, 0, "112", repl_exp="urn:service:sos"),
    rule(2, 1, "^1", repl_exp="x", disabled=1),
    rule(3, 1, "(("),
    rule(4, 1, "^1", subst_exp="9", repl_exp="x"),
)


class DialplanCases(TableCases):
    """The table dialplan"""

    tables = ("dialplan",)

    async def make(self, **parameters: Any) -> Dialplan:
        """A started module whose table has rules."""
        await self.rows("dialplan", *ROWS)
        made = Dialplan(self.server, db_url=self.url, **parameters)
        await made.start()
        return made

    async def test_translate(self) -> None:
        """Texts are translated, or not; rules that mean nothing are left out and told."""
        made = await self.make()
        self.assertIn("dialplan: 1 rules of dialplan are left out; the first: rule '((' of 3: ", " ".join(self.logged()))
        run = self.run_()
        for number, text, answer in (
            (1, "004930", (True, ["+4930"], ["german"])), (1, "0043", (True, [], ["abroad"])),
            (1, "112", (True, ["urn:service:sos"], [""])), (1, "1", (False, [], [])), (2, "1", (False, [], [])),
            (4, "1", (False, [], [])), (9, "1", (False, [], [])),
        ):  # fmt: skip
            output, attributes = FakeVariable(), FakeVariable()
            done = made.dp_translate(run, number, text, output, attributes)
            self.assertEqual((done, output.values, attributes.values), answer, (number, text))
        self.assertTrue(made.dp_translate(run, 1, "112"))
        self.assertTrue(made.dp_translate(run, 1, "112", None, None, "default"))
        self.assertFalse(made.dp_translate(run, 1, "112", None, None, "none"))
        for text in PAYLOADS:
            self.assertFalse(made.dp_translate(run, 1, text))

    async def test_commands(self) -> None:
        """Texts are translated, partitions told, tables read again; what cannot be read stays."""
        made = await self.make()
        self.assertEqual(made.translate("1", "004930"), {"Output": "+4930", "ATTRIBUTES": "german"})
        self.assertEqual(made.translate("1", "00", "default"), {"Output": "", "ATTRIBUTES": "abroad"})
        for params, error in (
            (("1", "x"), (404, "No translation")), (("4", "1"), (404, "No translation")), (("x", "1"),
            (404, "Wrong id parameter")),
            (("1", ""), (404, "Empty input parameter")), (("9", "1"), (404, "No information available for dpid")),
            (("1", "112", "none"), (400, "Partition not found")),
        ):  # fmt: skip
            with self.assertRaises(MIError) as caught:
                made.translate(*params)
            self.assertEqual((caught.exception.code, caught.exception.message), error, params)
        shown = made.show_partition("default")
        one = {"name": "default", "table": "dialplan", "db_url": shown["db_url"]}
        self.assertEqual(made.show_partition(), {"Partitions": [one]})
        self.assertNotIn("%40", shown["db_url"])
        self.assertRaises(MIError, made.show_partition, "none")
        await self.rows("dialplan", rule(9, 1, "^9", repl_exp="nine"))
        await made.reload()
        self.assertEqual(made.translate("9", "99")["Output"], "nine")
        made.partitions["default"].table = "no_such_table"
        if self.engine == "memory":
            self.db.down = True
        for name, code in (("none", 400), ("default", -32000)):
            try:
                await made.reload(name)
                self.fail("it was reloaded")
            except MIError as caught_error:
                self.assertEqual(caught_error.code, code)
        self.assertEqual(made.translate("9", "99")["Output"], "nine")
        status = self.server.user.status.find("dialplan").find("default")
        self.assertEqual(status.status, 1)
        reports = [report.text for report in status.reports]
        loaded = ["starting DB data loading", "DB data loading successfully completed"]
        failed = ["starting DB data loading", "DB data loading failed, discarding"]
        self.assertEqual(reports, [*loaded, "4 rules loaded (1 discarded)", *loaded, "5 rules loaded (1 discarded)", *failed])

    async def test_partitions(self) -> None:
        """Another table, which may be the default."""
        from sipgw.db.schema import VERSION_TABLE, create_statements, tables

        if self.engine != "memory":
            for text in create_statements(tables()["dialplan"], self.db.dialect, "pstn"):
                await self.db.query(text)
            await self.db.insert(VERSION_TABLE, {"table_name": "pstn", "table_version": 5})
        await self.rows("pstn", rule(1, 1, "^1", repl_exp="pstn"))
        await self.rows("dialplan", *ROWS)
        made = Dialplan(self.server, db_url=self.url)
        for text in ("gw: table_name = pstn", "default: gw"):
            made.set_parameter("partition", text)
        await made.start()
        self.assertEqual(list(made.partitions), ["gw"])
        self.assertEqual([made.translate("1", "1", name)["Output"] for name in (None, "gw", "default")], ["pstn"] * 3)


globals().update(engines(DialplanCases))
del DialplanCases


class SmallTests(SynchronousTestCase):
    """What needs no table."""

    def test_refused(self) -> None:
        """Partitions that are none are refused, and a default that is none."""
        server: Any = FakeServer()
        self.assertRaises(ValueError, Dialplan, server, partition="x: y")
        with self.assertRaisesRegex(ValueError, "there is no partition 'gone'"):
            finished(Dialplan(server, partition="default: gone").start())
