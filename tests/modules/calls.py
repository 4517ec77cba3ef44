"""A whole server with a script on a fake wire, and phones at 127.0.0.1 that are known by their ports: for tests of tm."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.sip.message import Request
from sipgw.testing import Phone, WiredServer, pass_time
from tests.proxy.rig import request, response, word

ALICE, BOB, CAROL, DAVE = 7001, 7002, 7003, 7004

HEAD = """
socket = udp:127.0.0.1:5060
log_level = -1
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "sipmsgops.so"
"""


class Calls(SynchronousTestCase):
    """A server and four phones; each test gives the script to ``start``."""

    wired: WiredServer

    def start(self, script: str) -> None:
        """Start the server; ``script`` is all of it but for the head."""
        self.wired = WiredServer(HEAD + script)
        self.phones = {port: Phone(self.wired.wire, "127.0.0.1", port) for port in (ALICE, BOB, CAROL, DAVE)}

    def arrive(self, data: bytes, port: int = ALICE) -> None:
        """Let the phone at ``port`` send ``data``."""
        self.phones[port].send(data, self.wired.address)

    def sent(self, port: int) -> list[Any]:
        """Take what the phone at ``port`` received."""
        found = list(self.phones[port].inbox)
        self.phones[port].inbox.clear()
        return found

    def said(self, port: int) -> list[str]:
        """The same in short words: "INVITE", "180", "200 BYE"."""
        return [word(message) for message in self.sent(port)]

    def invite(self, *ports: int, method: str = "INVITE", **options: Any) -> list[Request]:
        """Alice calls; what each of ``ports`` received, and nothing else. What they had received before is forgotten."""
        for port in ports or (BOB,):
            self.sent(port)
        self.arrive(request(method, **options))
        found = []
        for port in ports or (BOB,):
            (one,) = self.sent(port)
            found.append(one)
        return found

    def answer(self, to: Any, status: int, port: int = BOB, **options: Any) -> None:
        """Let the phone at ``port`` answer ``to``."""
        self.arrive(response(to, status, **options), port)

    def logged(self) -> list[str]:
        """The lines of level L_ERR and worse since the last time: those of ``xlog("L_ALERT", ...)`` too."""
        lines = [text.rstrip("\n") for level, text in self.wired.lines if level <= -1]
        self.wired.lines.clear()
        return lines

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        pass_time(self.wired.clock, seconds)

    def settle(self) -> None:
        """Time passes; nothing is left, and no bug was logged."""
        self.wait(200)
        self.assertEqual(self.wired.left(), [])
        self.assertEqual([text for _, text in self.wired.lines if "bug" in text], [])
