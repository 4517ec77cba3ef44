"""Servers whose contacts are in a database, phones that register with them, on a wire."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from sipgw.mi.jsonrpc import encode
from sipgw.modules.usrloc import Usrloc
from sipgw.proxy.location import LocationTable
from sipgw.sip.message import Response
from sipgw.testing import Phone, Wire, WiredServer, finished
from tests.db.memory import MemoryDatabase, MemoryDatabases

WRITE_THROUGH, WRITE_BACK = "single-instance-sql-write-through", "single-instance-sql-write-back"

CONFIG = """
socket = udp:{host}:5060
log_level = 2
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
modparam("usrloc", "working_mode_preset", "{mode}")
modparam("usrloc", "nat_bflag", "NAT")
{rest}
route {{
	{first}
	if ($rm == "REGISTER") {{
		save("location", "path-lazy");
		exit;
	}}
	if (lookup("location"))
		sl_send_reply(200, "$ru");
	else
		sl_send_reply(404, "$rc");
}}
"""


def message(method: str, user: str, more: str = "", *, cseq: int = 1, call_id: str = "", branch: str = "") -> bytes:
    """A request to or of a user; ``more`` are whole header lines."""
    uri = "sip:example.org" if method == "REGISTER" else f"sip:{user}@example.org"
    return (
        f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{branch or user + str(cseq) + method + call_id}\r\n"
        f"Max-Forwards: 70\r\nFrom: <sip:{user}@example.org>;tag=a\r\nTo: <sip:{user}@example.org>\r\n"
        f"Call-ID: {call_id or user}\r\nCSeq: {cseq} {method}\r\n{more}Content-Length: 0\r\n\r\n"
    ).encode("utf-8", "surrogateescape")


class Located:
    """A server at ``host`` and a phone at 192.0.2.1, with a database in memory, or those that the script names."""

    def __init__(
        self, mode: str, rest: str = "", *, first: str = "", database: MemoryDatabase | None = None, wire: Wire | None = None,
        host: str = "127.0.0.1", phone: Phone | None = None, memory: bool = True,
    ) -> None:  # fmt: skip
        databases = MemoryDatabases()
        if database is not None:
            databases.database = database
        self.database = databases.database
        self.wire = wire or Wire(Clock())
        self.wired = WiredServer(
            CONFIG.format(mode=mode, rest=rest, first=first, host=host),
            wire=self.wire,
            before=lambda server: setattr(server, "databases", databases) if memory else None,
        )
        self.clock = self.wired.clock
        self.phone = phone or Phone(self.wire, "192.0.2.1")
        self.cseq = 0

    @property
    def usrloc(self) -> Usrloc:
        """The module."""
        found = self.wired.server.modules["usrloc"]
        assert isinstance(found, Usrloc)
        return found

    @property
    def table(self) -> LocationTable:
        """The table."""
        return self.usrloc.table("location")

    def send(self, data: bytes, seconds: float = 0.0) -> list[Response]:
        """Let a request come, and time pass; what is answered."""
        self.phone.send(data, self.wired.address)
        return self.answers(seconds)

    def answers(self, seconds: float = 0.0) -> list[Response]:
        """Let time pass; what is answered meanwhile."""
        for step in (0, 0, 0, seconds, 0):
            self.clock.advance(step)
        found = [each for each in self.phone.inbox if isinstance(each, Response)]
        self.phone.inbox.clear()
        return found

    def register(self, user: str, *contacts: str, expires: int = 600, more: str = "", call_id: str = "", wait: float = 0) -> str:
        """Register contacts; the answer in words: its status, the contacts with their seconds, Retry-After."""
        self.cseq += 1
        lines = "".join(f"Contact: {'*' if each == '*' else f'<{each}>'}\r\n" for each in contacts)
        branch = f"{self.cseq}.{self.wired.address[0]}"
        data = message("REGISTER", user, f"{lines}Expires: {expires}\r\n{more}", cseq=self.cseq, call_id=call_id, branch=branch)
        return " | ".join(map(said, self.send(data, wait)))

    def calls(self, user: str) -> str:
        """Where a call to a user goes."""
        self.cseq += 1
        return " ".join(each.reason for each in self.send(message("MESSAGE", user, cseq=self.cseq)))

    def command(self, name: str, *arguments: Any) -> Any:
        """The result of a management command as JSON has it; an error as code and text."""
        caught: list[Any] = []
        done: list[Any] = []
        deferred = ensureDeferred(self.wired.server.commands.call(name, list(arguments)))
        deferred.addCallbacks(done.append, lambda failure: caught.append(failure.value))
        for _ in range(3):
            self.clock.advance(0)
        return (caught[0].code, caught[0].message) if caught else json.loads(encode(done[0]))

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """What the table in the database has."""
        names = columns or ("username", "contact")
        return sorted(tuple(row.get(name) for name in names) for row in self.database.tables.get("location", []))

    def logged(self) -> str:
        """What was logged of errors."""
        return "\n".join(text for level, text in self.wired.lines if level < 0)

    def stop(self) -> None:
        """End it in order."""
        finished(self.wired.server.modules["usrloc"].stop())


def said(answer: Response) -> str:
    """An answer in words."""
    contacts = [each.replace("<", "").replace(">;expires=", " ") for each in answer.headers("Contact")]
    after = answer.header("Retry-After")
    return " ".join([str(answer.status), *contacts, *([f"after {after}"] if after else [])])
