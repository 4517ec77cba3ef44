"""Many registered contacts, through the real server over loopback: ``python -m bench.contacts [CONTACTS]``.

What is printed for each server: CPU per REGISTER while the table fills and when it is full, per MESSAGE that is looked up and
relayed among few users and among all, and the octets that one contact takes."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from bench.generator import USERS
from bench.loopback import ratios
from bench.servers import Server, servers

CONTACTS = 100_000
OPERATIONS = 8000
ROWS = (
    "REGISTER, {few} contacts",
    "REGISTER, new, up to {many}",
    "REGISTER, {many} contacts",
    "MESSAGE looked up, {few} contacts",
    "MESSAGE looked up, {many} contacts",
    "octets of a contact",
)


def measure(server: Server, contacts: int, folder: Path) -> list[float]:
    """The figures of one server, as in ``ROWS``.

    It is started twice, so that no memory is free from before when the table is filled."""
    operations = min(OPERATIONS, contacts // 5)
    with server.running(folder):
        server.measure("register", USERS)
        few = [server.measure(scenario, operations) for scenario in ("register", "message")]
    with server.running(folder):
        server.measure("register", USERS)
        before = server.memory()
        fill = server.measure("register", contacts, users=contacts)
        size = (server.memory() - before) / (contacts - USERS)
        many = [server.measure(scenario, operations, users=contacts) for scenario in ("register", "message")]
    return [few[0], fill, many[0], few[1], many[1], size]


def main(contacts: int = CONTACTS) -> str:
    """Measure and print; what sipgw needed, in one line."""
    with tempfile.TemporaryDirectory() as name:
        there = servers(Path(name))
        figures = [measure(server, contacts, Path(name)) for server in there]
    print("\nCPU microseconds per operation" + " " * 20 + "".join(f"{server.name:>12}" for server in there))
    for label, row in zip(ROWS, zip(*figures, strict=True), strict=True):
        form = "12.0f" if label.startswith("octets") else "12.1f"
        label = label.format(few=USERS, many=contacts)
        print(f"{label:50}" + "".join(f"{figure:{form}}" for figure in row) + ratios(there, row))
    _, _, register, _, message, size = figures[0]
    line = (
        f"sipgw, {contacts} registered contacts: REGISTER {register:.1f} us, "
        f"lookup and relay of a MESSAGE {message:.1f} us, {size:.0f} octets a contact"
    )
    print(line)
    return line


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
