"""The scripts in ``examples``: each is compiled and started."""

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sipgw.redis.client import Redis
from sipgw.redis.errors import Unreachable
from sipgw.testing import Wire, WiredServer
from tests.db.memory import MemoryDatabases
from tests.doubles import Reactor

EXAMPLES = Path(__file__).parent.parent / "examples"


def _with_memory(server: Any) -> None:
    """Have the databases that the scripts name in memory, so that none need be there."""
    server.databases = MemoryDatabases()


async def _away(*what: Any, **options: Any) -> Any:
    """No Redis is there."""
    raise Unreachable("nobody is there")


class ExampleTests(SynchronousTestCase):
    """One test for all of them; what a script does is told by a play or a test of its own."""

    def test_all(self):
        """Each begins with a comment that says what it is, has no fault, and comes up."""
        self.addCleanup(os.chdir, os.getcwd())
        self.patch(Redis, "ask", _away)
        os.chdir(EXAMPLES.parent)  # where they are run, and find what lies beside them
        files = sorted(EXAMPLES.glob("*.cfg"))
        self.assertTrue(files)
        for file in files:
            self.assertTrue(file.read_text(encoding="utf-8").startswith("# "), file.name)
            server = WiredServer(file=str(file), wire=Wire(Reactor()), before=_with_memory)
            self.assertTrue(server.user.sockets, file.name)
            self.assertIsNotNone(server.user.routes.request, file.name)
