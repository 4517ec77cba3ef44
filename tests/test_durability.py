"""What is acknowledged is safe: a real twistd is killed (SIGKILL) while phones register, and its database is compared.

The same cases for SQLite, PostgreSQL and MariaDB. ``make nightly`` does more of it."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import HOST, Child, bound, free_port, twistd, wait_for
from tests.load.registrations import Registrations, Wish
from tests.servers.sql import fresh, missing, server

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
COUNT = 10_000 if NIGHTLY else 1000
"""REGISTERs of one run."""
RUNS = 20 if NIGHTLY else 1
AWAY = 60.0 if NIGHTLY else 0.5
"""Seconds for which a database is away."""
BACK = 2.0
"""Seconds within which contacts are saved again once a database is back."""

CONFIG = """
log_level = 2
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "db_{engine}.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "db_url", "{url}")
modparam("usrloc", "working_mode_preset", "{mode}")
modparam("registrar", "min_expires", 0)
{more}
socket = udp:{host}:{port}
route {{
	if ($rm == "REGISTER") {{
		save("location");
		exit;
	}}
	if (lookup("location"))
		sl_send_reply(200, "$ru");
	else
		sl_send_reply(404, "Not Found");
}}
"""


def wishes(count: int, run: int = 0) -> list[Wish]:
    """REGISTERs of as many users; every tenth is a removal, every fifth a refresh."""
    found = []
    for number in range(count):
        user = f"r{run}u{number}"
        if number % 10 == 9:
            found.append(Wish(f"r{run}u{number - 5}", 0))
        elif number % 5 == 3 and number > 40:
            found.append(Wish(f"r{run}u{number - 41}", 7200))
        else:
            found.append(Wish(user, 3600))
    return found


class Durable:
    """The cases; a subclass says which ``engine``."""

    engine = ""
    mode = "single-instance-sql-write-through"

    def setUp(self: Any) -> None:
        """Have a database with its tables."""
        why = missing(self.engine)
        if why:
            raise SkipTest(why)
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.url = fresh(self.engine, str(self.directory))
        store = open_store(self.url, create=True)
        create(store, ["location"])
        store.close()
        self.child: Child | None = None
        self.addCleanup(self.kill)

    def kill(self: Any) -> None:
        """Kill the server as the kernel does."""
        if self.child is not None:
            self.child.kill()

    def start(self: Any, more: str = "") -> str:
        """Start it; what it logs until it serves."""
        self.port = free_port()
        script = self.directory / "opensips.cfg"
        script.write_text(
            CONFIG.format(engine=self.engine, url=self.url, mode=self.mode, host=HOST, port=self.port, more=more)
        )
        self.child = twistd(["sipgw", "-c", str(script)], self.directory)
        wait_for(lambda: "listens on" in self.child.text() and bound(self.port), "the server serves", self.child)
        return str(self.child.text())

    def phones(self: Any, **options: Any) -> Registrations:
        """Phones that register."""
        made = Registrations(self.port, **options)
        self.addCleanup(made.close)
        return made

    def rows(self: Any, *columns: str) -> list[tuple[Any, ...]]:
        """What is in the database."""
        store = open_store(self.url)
        try:
            return list(store.select("location", columns or ("username", "contact", "expires")).rows)
        finally:
            store.close()

    def there(self: Any) -> dict[str, tuple[str, float]]:
        """The contact of each user and its end; each has one row at most."""
        found = self.rows()
        users = {user: (contact, float(until)) for user, contact, until in found}
        self.assertEqual(len(users), len(found), "a contact has two rows")
        return users

    def test_killed(self: Any) -> None:
        """Each contact that was acknowledged when the process was killed is in the database, and in the next process."""
        for run in range(RUNS):
            self.start()
            phones = self.phones()
            some = (run * 7919 + 137) % (COUNT * 4 // 5)
            phones.run(wishes(COUNT, run), until=lambda phones=phones, some=some: sum(phones.statuses.values()) > some)
            self.kill()
            there = self.there()
            self.assertEqual((phones.broken(there), set(phones.statuses)), ([], {200}))
            log = self.start()
            self.assertIn(f"{len(there)} contacts of location loaded", log)
            again = self.phones()
            again.promised = {}
            again.run([Wish(user, 0) for user in list(there)[::50]])
            self.assertEqual(set(again.statuses), {200})
            self.kill()

    def test_away(self: Any) -> None:
        """While the database is away refreshes and calls are answered, nothing else is promised, and it soon goes on."""
        self.start()
        phones = self.phones()
        phones.run([Wish(f"u{number}", 3600) for number in range(40)])
        promised = dict(phones.promised)
        self.away()
        begin = time.monotonic()
        phones.run([Wish("new", 3600)])  # finds it out
        self.assertEqual(phones.statuses, {200: 40, 503: 1})
        self.assertLess(phones.longest, 6)
        phones.longest = 0.0
        while time.monotonic() < begin + AWAY:
            phones.run([Wish(f"u{number}", 7200) for number in range(20)] + [Wish(f"n{number}", 3600) for number in range(5)])
        self.assertLess(phones.longest, 0.5)
        self.assertEqual(phones.statuses[503] - 1, (phones.statuses[200] - 40) / 4)
        for user, promise in phones.promised.items():
            self.assertLess(promise.until, promised[user].until + 2)
        self.back()
        begin = time.monotonic()
        while phones.run([Wish("new", 3600)])[0][1] != 200:
            self.assertLess(time.monotonic(), begin + BACK)
        phones.run([Wish(f"u{number}", 7200) for number in range(40)])
        there = self.there()
        self.assertEqual((phones.broken(there), len(there)), ([], 41))

    def away(self: Any) -> None:
        """Let the database stand still."""
        server(self.engine).freeze()
        self.addCleanup(server(self.engine).restore)

    def back(self: Any) -> None:
        """Let it go on."""
        server(self.engine).thaw()


class SqliteTests(Durable, SynchronousTestCase):
    """A file."""

    engine = "sqlite"

    def away(self) -> None:
        """Lock the file."""
        self.lock = sqlite3.connect(self.url.partition("//")[2], isolation_level=None)
        self.addCleanup(self.lock.close)
        self.lock.execute("BEGIN IMMEDIATE")

    def back(self) -> None:
        """Open it again."""
        self.lock.execute("ROLLBACK")

    def test_end(self) -> None:
        """In write-back mode what is not yet written is written when the server ends in order."""
        self.mode = "single-instance-sql-write-back"
        self.start()
        phones = self.phones()
        phones.run([Wish(f"u{number}", 3600) for number in range(300)] + [Wish("u7", 0)])
        self.assertEqual(self.rows(), [])
        assert self.child is not None
        self.child.process.terminate()
        self.assertEqual(self.child.wait(), 0)
        there = self.there()
        self.assertEqual((phones.broken(there), len(there)), ([], 299))

    def test_full(self) -> None:
        """When the disk is full new contacts are refused, and what was acknowledged stays."""
        self.start('modparam("db_sqlite", "exec_pragma", "max_page_count=24")')
        phones = self.phones()
        phones.run([Wish(f"u{number}", 3600) for number in range(800)])
        self.assertEqual(set(phones.statuses), {200, 503})
        self.kill()
        there = self.there()
        self.assertEqual((phones.broken(there), len(there)), ([], phones.statuses[200]))


class PostgresTests(Durable, SynchronousTestCase):
    """PostgreSQL."""

    engine = "postgres"


class MariaDbTests(Durable, SynchronousTestCase):
    """MariaDB, which is not frozen but stopped and started again, unless there is a night for it."""

    engine = "mysql"

    def away(self) -> None:
        """End it."""
        if NIGHTLY:
            super().away()
        else:
            server(self.engine).stop()
            self.addCleanup(server(self.engine).restore)

    def back(self) -> None:
        """Start it."""
        server(self.engine).restore()
