"""Calls of the server's own: those that ``examples/announcement.cfg`` answers, and those that an operator begins."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from tests.children import HOST, PATIENCE, free_port, wait_for
from tests.sipp.harness import Server
from tests.sipp.test_calls import OWN_CONFIG, SippTestCase

ROOT = Path(__file__).parent.parent.parent
CALLS = 50


class OwnCallsTestCase(SippTestCase):
    """A server with a configuration of this file's, in which ports are exchanged."""

    config: Path
    ports: dict[str, str] = {}

    def serve(self) -> Server:
        """Start it."""
        if not OWN_CONFIG:
            raise SkipTest("another server has another configuration")
        self.directory.mkdir(parents=True)
        config = self.directory / self.config.name
        text = self.config.read_text()
        for old, new in self.ports.items():
            text = text.replace(old, new)
        config.write_text(text)
        return Server(self.directory / "server", str(config))


class AnnouncementTests(OwnCallsTestCase):
    """The script answers."""

    config = ROOT / "examples" / "announcement.cfg"
    ports = {"t10a": "t1a"}

    def test_calls(self) -> None:
        """Callers who hang up, and those whom we hang up on."""
        for scenario in ("caller-talks", "caller-hears-bye"):
            caller = self.calling(scenario, calls=CALLS, talk="10", ringing_optional="true", callee="1000", options=["-r", "100"])
            caller.finish()
            self.assertEqual(caller.statistics(), (CALLS, 0))
        said = self.server.child.text()
        for one in ("NEW INVITE", "UPDATED ACK"):
            self.assertEqual(len(re.findall(rf"call B2B\S+: {one}", said)), CALLS * 2)
        self.assertNotIn("bug", said)


class OperatorTests(OwnCallsTestCase):
    """Commands begin and end the calls."""

    config = ROOT / "tests" / "configs" / "operator.cfg"

    def serve(self) -> Server:
        """With a port for commands."""
        self.door = free_port()
        self.ports = {"5099": str(self.door)}
        return super().serve()

    def ask(self, method: str, **params: Any) -> Any:
        """Run one command."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            door.settimeout(PATIENCE)
            asked = {"jsonrpc": "2.0", "id": 1, "method": f"b2b_entities:{method}", "params": params}
            door.sendto(json.dumps(asked).encode(), (HOST, self.door))
            return json.loads(door.recv(65535))["result"]

    def test_calls(self) -> None:
        """He calls phones that hang up, and one that he hangs up on; all is told, and nothing is left."""
        callee = self.sipp("callee-hangs-up", calls=10)
        to = f"sip:bob@{HOST}:{callee.port}"
        people = {"to": to, "from": f"sip:operator@{HOST}"}
        for _ in range(10):
            self.ask("ua_session_client_start", ruri=to, flags="ar", body="v=0\r\n", **people)
        callee.finish()
        wait_for(lambda: self.ask("ua_session_list") == [], "the calls are over")
        callee = self.sipp("callee-hears-bye")
        to = f"sip:bob@{HOST}:{callee.port}"
        key = self.ask("ua_session_client_start", ruri=to, flags="ar", body="v=0\r\n", **people)
        wait_for(lambda: self.ask("ua_session_list", key=key)["state"] == "talking", "it is answered", callee)
        self.assertEqual(self.ask("ua_session_terminate", key=key), "OK")
        callee.finish()
        wait_for(lambda: self.ask("list") == [], "nothing is left")
        said = self.server.child.text()
        kinds = {one: said.count(f"TOLD {one}") for one in ("ANSWERED UAC INVITE 200", "TERMINATED UAC BYE 0")}
        self.assertEqual(kinds, {"ANSWERED UAC INVITE 200": 11, "TERMINATED UAC BYE 0": 10})
