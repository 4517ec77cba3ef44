"""Calls through the script of ``examples/hiding.cfg``; sipp plays both sides. ``test_hidden.py`` has all else that may happen."""

from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SkipTest

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import HOST, free_port
from tests.servers.sql import sqlite
from tests.sipp.harness import Server
from tests.sipp.test_calls import OWN_CONFIG, SippTestCase

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "hiding.cfg"
CALLS = 50


class HidingTests(SippTestCase):
    """A caller and a callee that see only us."""

    def serve(self):
        """A server whose next hop is at a port of ours."""
        if not OWN_CONFIG:
            raise SkipTest("another server has another configuration")
        self.next_hop = free_port()
        self.directory.mkdir(parents=True)
        self.config = self.directory / "hiding.cfg"
        text = EXAMPLE.read_text().replace(f"{HOST}:5080", f"{HOST}:{self.next_hop}")
        url = sqlite(str(self.directory))
        with closing(open_store(url, create=True)) as store:
            create(store, ("version", "dialog"))
        self.config.write_text(text.replace("sqlite:///var/lib/sipgw/sipgw.db", url))
        return Server(self.directory / "server", str(self.config))

    def seen(self):
        """What the callee must see."""
        port = str(self.server.port)
        return {"server": port, "contact": f"alice@{HOST}:{port};did=", "call_id": "DLGCH_"}

    def play(self, callee, caller, **options):
        """Let the two play; all calls succeed."""
        answering = self.sipp(callee, port=self.next_hop, calls=CALLS, **options)
        calling = self.calling(caller, calls=CALLS, talk="10", ringing_optional="true", options=["-r", "100"], **options)
        calling.finish()
        answering.finish()
        self.assertEqual((calling.statistics(), answering.statistics()), ((CALLS, 0), (CALLS, 0)))

    def test_calls(self):
        """Calls that the caller ends."""
        self.play("callee-hidden-from", "caller-talks", **self.seen())
