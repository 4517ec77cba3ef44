"""Calls through the script of ``examples/hiding.cfg``, a restart in the middle of one; sipp plays both sides."""

import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SkipTest

from sipgw.db.making import create
from sipgw.db.session import open_store
from tests.children import HOST, free_port, wait_for
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
        self.database = url.removeprefix("sqlite://")
        with closing(open_store(url, create=True)) as store:
            create(store, ("version", "dialog"))
        self.config.write_text(text.replace("sqlite:///var/lib/sipgw/sipgw.db", url))
        return Server(self.directory / "server", str(self.config))

    def is_confirmed(self):
        """Whether there is a call, and its row says that it was acknowledged."""
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute("select state from dialog").fetchall() == [(4,)]

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

    def test_callee_hangs_up(self):
        """Calls that the callee ends."""
        self.play("callee-hangs-up", "caller-hears-bye")

    def test_restart(self):
        """The server is killed while they talk: the BYE finds its way through the next one."""
        callee = self.sipp("callee-hidden-from", port=self.next_hop, **self.seen())
        caller = self.calling("caller-talks", talk="3000", ringing_optional="true")
        wait_for(self.is_confirmed, "the call is answered, and written")
        port = self.server.port
        self.server.child.kill()
        self.server = Server(self.directory / "again", str(self.config), port=port)
        caller.finish()
        callee.finish()
