"""CDRs of calls that sipp makes, on each SQL engine: counted afterwards in the tables, with the server killed in the middle."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import wait_for
from tests.servers import sql
from tests.sipp.harness import SIPP, LossyLink, Phone, Server, Sipp

CALLS = 1000 if os.environ.get("SIPGW_NIGHTLY") else 10
"""Calls of each kind."""
TALK = 3000 + 60 * (CALLS - 10)
"""Milliseconds that the long calls last: they go on until all others are over, which takes longer if there are more."""
CONFIG = Path(__file__).parent.parent / "configs" / "billing.cfg"
PLAIN = {"reply_route": "false", "left": "", "branch_header": "CSeq:", "ringing_optional": "true"}


class CdrTests(SynchronousTestCase):
    """A server whose calls are accounted in a database of ``engine``."""

    engine = "sqlite"

    def setUp(self) -> None:
        """Make the tables and start the server."""
        if SIPP is None:
            raise SkipTest("sipp is not installed (Debian: sip-tester)")
        if self.engine != "sqlite":
            why = sql.missing(self.engine)
            if why:
                raise SkipTest(why)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.url = sql.fresh(self.engine, str(self.directory))
        with closing(open_store(self.url, create=True)) as store:
            create(store, ["acc", "missed_calls", "dialog"])
        text = CONFIG.read_text().replace("@url@", self.url).replace("@module@", f"db_{self.engine}")
        self.config = self.directory / "billing.cfg"
        self.config.write_text(text)
        self.server = Server(self.directory / "server", str(self.config))
        self.addCleanup(lambda: self.server.child.kill())
        self.children = 0

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        with closing(open_store(self.url)) as store:
            columns = [column.name for column in store.columns(table)]
            return [dict(zip(columns, row, strict=True)) for row in store.select(table, columns).rows]

    def sipp(self, scenario: str, **options: Any) -> Sipp:
        """Start sipp."""
        self.children += 1
        child = Sipp(self.directory / f"{self.children}-{scenario}", scenario, **{**PLAIN, **options})
        self.addCleanup(child.kill)
        return child

    def phone(self, scenario: str, user: str, calls: int = CALLS, **options: Any) -> Sipp:
        """Start a phone that is called so often, and register it."""
        child = self.sipp(scenario, callee=user, calls=calls, options=["-timeout", f"{TALK / 1000 + 60:.0f}"], **options)
        phone = Phone(self.server.port)
        phone.register(user, child.port)
        phone.close()
        return child

    def caller(self, scenario: str, user: str, calls: int = CALLS, remote: int = 0, **options: Any) -> Sipp:
        """Start who calls ``user`` so often."""
        rate = ["-r", "40", "-l", str(CALLS), "-timeout", f"{TALK / 1000 + 60:.0f}", "-cid_str", f"{user}-%u-%p@%s"]
        return self.sipp(scenario, callee=user, calls=calls, remote=remote or self.server.port, options=rate, **options)

    def counted(self, table: str) -> Counter[str]:
        """How many rows there are of calls to each user."""
        return Counter(str(row["callid"]).partition("-")[0] for row in self.rows(table))

    def stop(self) -> None:
        """End the server; it has logged no bug."""
        self.assertEqual(self.server.stop(), 0)
        text = self.server.child.text()
        self.assertNotIn("bug", text)
        self.assertNotIn("not written", text)

    def test_calls(self) -> None:
        """BYE from either side, lost and repeated messages, refusals, cancelled calls, calls whose time is over, and calls in
        whose middle the server is killed and started again: one CDR for each that was answered, one missed call for each that
        was not, and no dialog is left."""
        link = LossyLink(self.server.port, lambda data: data.startswith(b"SIP/2.0 200"))
        self.addCleanup(link.close)
        long = [self.phone("callee-talks", "bob"), self.phone("callee-hangs-up", "carol", talk=str(TALK))]
        phones = [
            self.phone("callee-busy", "dave"), self.phone("callee-cancelled", "erin"), self.phone("callee-talks", "lost"),
            self.phone("callee-talks", "short"),
        ]
        callers = [
            self.caller("caller-is-refused", "dave", status="486"), self.caller("caller-gives-up", "erin"),
            self.caller("caller-talks", "lost", remote=link.port), self.caller("caller-hears-bye", "short"),
            self.caller("caller-is-refused", "nobody", status="404"),
        ]
        long += [self.caller("caller-talks", "bob", talk=str(TALK)), self.caller("caller-hears-bye", "carol")]
        for child in (*callers, *phones):
            child.finish()
        wait_for(lambda: self.counted("dialog") == {"bob": CALLS, "carol": CALLS}, "the long calls go on, and no others")
        self.server.child.kill()
        self.server = Server(self.directory / "again", str(self.config), port=self.server.port)
        for child in long:
            child.finish()
        wait_for(lambda: not self.rows("dialog"), "the dialogs are gone")
        self.stop()
        self.assertEqual(self.counted("acc"), dict.fromkeys(("bob", "carol", "lost", "short"), CALLS))
        self.assertEqual(self.counted("missed_calls"), dict.fromkeys(("dave", "erin", "nobody"), CALLS))
        times = Counter(row["callid"] for row in self.rows("acc"))
        self.assertEqual({call: count for call, count in times.items() if count > 1}, {})
        self.assertGreaterEqual(link.lost, CALLS)
        for row in self.rows("acc"):
            kind = str(row["callid"]).partition("-")[0]
            least, most = {"short": (900, 20000), "lost": (0, 20000)}.get(kind, (2500, TALK + 17000))
            self.assertTrue(least <= row["ms_duration"] < most, row)
            self.assertEqual((row["method"], row["sip_code"], row["duration"]), ("INVITE", "200", -(-row["ms_duration"] // 1000)))


class PostgresCdrTests(CdrTests):
    """The same with PostgreSQL."""

    engine = "postgres"


class MySqlCdrTests(CdrTests):
    """The same with MariaDB."""

    engine = "mysql"


