"""A sipgw of its own process with the module mi_amp."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sipgw.manhole.client import Client
from tests.children import HOST, Child, free_port, twistd, wait_for

SCRIPT = """
log_level = 3
socket = udp:{host}:{port}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "signaling.so"
loadmodule "mi_script.so"
loadmodule "mi_amp.so"
modparam("mi_amp", "socket_name", "{folder}/mi.sock")
{more}
route {{
    {route}
}}
"""


class ChildTests(SynchronousTestCase):
    """A server for all tests of a class: ``more`` are lines of its script, ``route`` its request route."""

    more = ""
    route = 'send_reply(200, "OK");'
    child: Child
    folder: Path
    port: int
    _directory: tempfile.TemporaryDirectory[str]

    @classmethod
    def prepare(cls) -> None:
        """Make what the script names."""

    def setUp(self) -> None:
        """Start it, if no test has; it ends with the run."""
        if "child" not in type(self).__dict__:
            self.begin()

    @classmethod
    def begin(cls) -> None:
        """Start it."""
        cls._directory = tempfile.TemporaryDirectory()
        cls.folder = Path(cls._directory.name)
        cls.port = free_port()
        cls.prepare()
        script = cls.folder / "opensips.cfg"
        more = cls.more.replace("FOLDER", str(cls.folder))
        script.write_text(SCRIPT.format(host=HOST, port=cls.port, folder=cls.folder, more=more, route=cls.route))
        cls.child = twistd(["sipgw", "-c", str(script)], cls.folder / "child")
        atexit.register(cls.end)
        wait_for(lambda: "listens on" in cls.child.text(), "the server starts", cls.child)

    @classmethod
    def end(cls) -> None:
        """End it."""
        cls.child.kill()
        cls._directory.cleanup()

    def client(self) -> Client:
        """A connection to it."""
        made = Client.unix(str(self.folder / "mi.sock"), 20)
        self.addCleanup(made.close)
        return made
