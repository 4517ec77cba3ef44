"""Tests of ``sipgw cdr``, on a database of its own."""

from __future__ import annotations

import csv
import io
from contextlib import closing, redirect_stderr
from datetime import datetime
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from sipgw.command import main
from sipgw.command_cdr import cell, lines, moment
from sipgw.db.making import create
from sipgw.db.session import open_store

PAYLOADS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0", "|x"]


class Output(io.TextIOWrapper):
    """A standard output in memory."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="")

    def text(self) -> str:
        """What was written."""
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode()


class CdrTests(SynchronousTestCase):
    """Rows as lines."""

    def setUp(self) -> None:
        """A database with some calls."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        self.folder = folder.absolute()
        self.url = f"sqlite://{self.folder / 'x.sqlite'}"
        with closing(open_store(self.url, create=True)) as store:
            create(store, ["acc", "missed_calls"])
            for day, call_id in [(1, "one"), (2, '=two"\r\n,'), (3, "ö\udcff")]:
                store.insert("acc", {
                    "method": "INVITE", "callid": call_id.encode("utf-8", "surrogateescape").decode("utf-8", "replace"),
                    "time": datetime(2026, 11, day, 12), "duration": 5, "ms_duration": 4001, "sip_code": "200",
                })
            store.insert("missed_calls", {"callid": "lost", "time": datetime(2026, 11, 1), "sip_code": "486"})

    def run_it(self, *arguments: str) -> tuple[int, list[dict[str, str]], str]:
        """The status, the rows, and what was said of errors."""
        out, said = Output(), io.StringIO()
        with patch("sys.stdout", out), redirect_stderr(said):
            status = main(["cdr", *arguments])
        return status, list(csv.DictReader(io.StringIO(out.text(), newline=""))), said.getvalue()

    def test_all(self) -> None:
        """All rows in order, with what a spreadsheet would run made harmless."""
        status, rows, _ = self.run_it("--url", self.url)
        self.assertEqual((status, [row["callid"] for row in rows]), (0, ["one", "'=two\"\r\n,", "ö\ufffd"]))
        first = rows[0]
        self.assertEqual((first["time"], first["duration"], first["ms_duration"], first["created"]), (
            "2026-11-01 12:00:00", "5", "4001", ""))
        self.assertNotIn("id", first)
        self.assertEqual(self.run_it("--url", self.url, "--raw")[1][1]["callid"], '=two"\r\n,')

    def test_times(self) -> None:
        """From one time on, and up to another."""
        for arguments, found in [
            (["--from", "2026-11-02"], 2), (["--to", "2026-11-02"], 1), (["--from", "2026-11-01T12:00", "--to", "2026-11-03"], 2),
            (["--from", "2026-11-03T12:00:01"], 0),
        ]:
            self.assertEqual(len(self.run_it("--url", self.url, *arguments)[1]), found, arguments)
        self.assertEqual(moment("2026-11-01T00:00:00+00:00").tzinfo, None)
        with self.assertRaises(SystemExit):
            self.run_it("--url", self.url, "--from", "yesterday")

    def test_script(self) -> None:
        """The database and the tables of a script."""
        script = self.folder / "x.cfg"
        text = f'socket = udp:127.0.0.1:5060\nloadmodule "acc.so"\ndb_default_url = "{self.url}"\nroute {{ exit; }}\n'
        script.write_text(text)
        self.assertEqual(len(self.run_it("-c", str(script))[1]), 3)
        self.assertEqual([row["callid"] for row in self.run_it("-c", str(script), "--missed")[1]], ["lost"])
        script.write_text(text + 'modparam("acc", "db_table_acc", "missed_calls")\n')
        self.assertEqual([row["sip_code"] for row in self.run_it("-c", str(script))[1]], ["486"])
        script.write_text('route { exit; }\n')
        self.assertIn("names no database", self.run_it("-c", str(script))[2])
        script.write_text("route {\n")
        self.assertEqual(self.run_it("-c", str(script))[0], 1)

    def test_wrong(self) -> None:
        """No such table, no such database, no table of acc's."""
        for arguments, said in [
            (["--url", self.url, "--table", "nothing"], "has no table nothing"), (["--url", "foo:/x"], "foo"),
            (["--url", self.url, "--table", "version"], "none of acc's"),
        ]:
            status, _, error = self.run_it(*arguments)
            self.assertEqual(status, 1)
            self.assertIn(said, error)

    def test_pages(self) -> None:
        """More rows than are asked for at a time."""
        with patch("sipgw.command_cdr.PAGE", 2), closing(open_store(self.url)) as store:
            self.assertEqual(len(list(lines(store, "acc", []))), 4)

    def test_cells(self) -> None:
        """No text begins with what begins a formula; numbers stay numbers."""
        for payload in PAYLOADS:
            safe = "'" + payload
            self.assertEqual((cell(payload), cell(payload.encode()), cell(payload, True)), (safe, safe, payload))
        self.assertEqual([cell(value) for value in (None, -5, 1.5, "x=1", "")], ["", "-5", "1.5", "x=1", ""])
