"""Contacts that are safe: write-through REGISTERs a second, and a restart with many: ``python -m bench.durable [CONTACTS]``.

A real server over loopback, one SQLite file whose commits are on disk. The phones are a process of their own."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sipgw.db.making import create
from sipgw.db.session import open_store
from sipgw.interfaces import Value
from sipgw.proxy.location_rows import contact_id
from tests.children import HOST, Child, bound, free_port, twistd, wait_for
from tests.load.registrations import Registrations, Wish

CONTACTS = 100_000
OPERATIONS = 10_000
CONFIG = """
log_level = 2
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "db_sqlite.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "db_url", "sqlite://{file}")
modparam("usrloc", "working_mode_preset", "{mode}")
socket = udp:{host}:{port}
route {{
	if ($rm == "REGISTER")
		save("location");
}}
"""
THROUGH, BACK = "single-instance-sql-write-through", "single-instance-sql-write-back"


@contextmanager
def serving(folder: Path, mode: str = THROUGH) -> Iterator[tuple[int, Child, float]]:
    """A server with the database in ``folder``: its port, its process, and the seconds that its start took."""
    port = free_port()
    script = folder / "opensips.cfg"
    script.write_text(CONFIG.format(file=folder / "opensips.sqlite", mode=mode, host=HOST, port=port))
    begin = time.monotonic()
    child = twistd(["sipgw", "-c", str(script)], folder)
    try:
        wait_for(lambda: "listens on" in child.text() and bound(port), "the server serves", child)
        yield port, child, time.monotonic() - begin
    finally:
        child.kill()


def prepare(folder: Path, contacts: int = 0) -> None:
    """Make the database, with so many contacts."""
    store = open_store(f"sqlite://{folder}/opensips.sqlite", create=True)
    create(store, ["location"])
    ends = int(time.time()) + 3600
    with store.transaction():
        for number in range(contacts):
            user, contact = f"user{number}", f"sip:user{number}@192.0.2.{number % 250}:5060"
            row: dict[str, Value] = {
                "contact_id": contact_id(f"{user}@example.org", contact), "username": user, "domain": "example.org",
                "contact": contact, "expires": ends, "q": -1.0, "callid": f"call-{number}@192.0.2.1", "cseq": 7,
                "user_agent": "bench", "socket": f"udp:{HOST}:5060",
            }  # fmt: skip
            store.insert("location", row)
    store.close()


def registrations(folder: Path, mode: str, count: int, in_flight: int) -> float:
    """REGISTERs a second: half of them new, half of them refreshes."""
    with serving(folder, mode) as (port, _, _):
        phones = Registrations(port, in_flight=in_flight)
        users = [Wish(f"user{number}", 3600) for number in range(count // 2)]
        begin = time.monotonic()
        phones.run(users, patience=120)
        phones.run(users, patience=120)
        took = time.monotonic() - begin
        phones.close()
        if set(phones.statuses) != {200}:
            raise SystemExit(f"the server answered {phones.statuses}")
    return count / took


def main(contacts: int = CONTACTS, operations: int = OPERATIONS) -> str:
    """Measure and print; what counts in one line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for mode, in_flight in ((BACK, 32), (THROUGH, 1), (THROUGH, 32), (THROUGH, 256)):
            rate = registrations(folder, mode, operations if in_flight > 1 else operations // 10, in_flight)
            print(f"{mode + ', ' + str(in_flight) + ' in flight':60}{rate:8.0f} registrations a second")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, contacts)
        with serving(folder) as (_, child, took):
            found = re.search(r"(\d+) contacts of location loaded in ([\d.]+) s", child.text())
            assert found is not None and int(found[1]) == contacts
            print(f"{'a start with ' + found[1] + ' contacts':60}{took:8.2f} s, {found[2]} s of it to load them")
    return f"write-through {rate:.0f} registrations a second, ready with {contacts} contacts in {took:.1f} s"


if __name__ == "__main__":
    print(main(*map(int, sys.argv[1:2])))
