"""The real opensips-cli against a sipgw, by pipe, HTTP and datagrams.

It is not on PyPI. Whoever has it in the PATH runs these tests, and whoever names it: ``SIPGW_OPENSIPS_CLI=/path/opensips-cli``
(https://github.com/OpenSIPS/opensips-cli, with python-opensips and SQLAlchemy where it finds them)."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import mkdtemp

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import free_port, twistd, wait_for

CLI = os.environ.get("SIPGW_OPENSIPS_CLI") or shutil.which("opensips-cli")
SCRIPT = """
log_level = 3
socket = udp:127.0.0.1:{sip}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "usrloc.so"
loadmodule "httpd.so"
loadmodule "mi_http.so"
loadmodule "mi_fifo.so"
loadmodule "mi_datagram.so"
modparam("httpd", "port", {http})
modparam("mi_fifo", "fifo_name", "{directory}/fifo")
modparam("mi_fifo", "reply_dir", "{directory}/")
modparam("mi_datagram", "socket_name", "udp:127.0.0.1:{datagram}")
event_route[E_UL_CONTACT_INSERT] {{ xlog("L_NOTICE", "contact of $param(aor)\\n"); }}
route {{ ul_add_key("location", "somebody@example.org", "key"); exit; }}
"""


class CliTests(SynchronousTestCase):
    """What an operator asks, by each way that opensips-cli knows."""

    def setUp(self):
        if CLI is None:
            raise SkipTest("there is no opensips-cli: put it into the PATH, or set SIPGW_OPENSIPS_CLI to where it is")
        self.directory = Path(mkdtemp(prefix="sipgw-cli-"))  # the path of a pipe is short
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        sip, http, datagram = free_port(), free_port(), free_port()
        script = self.directory / "opensips.cfg"
        script.write_text(SCRIPT.format(sip=sip, http=http, datagram=datagram, directory=self.directory))
        self.server = twistd(["sipgw", "-c", str(script)], self.directory / "server")
        self.addCleanup(self.server.kill)
        wait_for(lambda: "listens on" in self.server.text(), "sipgw listens", self.server)
        self.ways = {
            "fifo": ["communication_type=fifo", f"fifo_file={self.directory}/fifo", f"fifo_reply_dir={self.directory}"],
            "http": ["communication_type=http", f"url=http://127.0.0.1:{http}/mi"],
            "datagram": ["communication_type=datagram", "datagram_ip=127.0.0.1", f"datagram_port={datagram}"],
        }

    def run_all(self, *words):
        """Let it run one command by all ways at once; for each its status, what it said, and what it said is wrong."""
        running = {}
        for way, options in self.ways.items():
            command = [str(CLI), *(word for option in options for word in ("-o", option)), "-x", "mi"]
            command += [word.replace("WAY", way) for word in words]
            environment = {**os.environ, "HOME": str(self.directory)}
            running[way] = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.directory
            )
        found = {}
        for way, child in running.items():
            self.addCleanup(child.kill)
            said, wrong = child.communicate(timeout=60)
            found[way] = child.returncode, said, wrong
        return found

    def test_commands(self):
        """It reads the list of commands, passes lists and named parameters, and shows results, events and errors."""
        contact = ["aor=WAY@example.org", "contact=sip:WAY@192.0.2.1", "expires=60", "q=1", "flags=0", "cflags=0", "methods=1"]
        for way, (status, said, wrong) in self.run_all("usrloc:add", "table_name=location", *contact).items():
            self.assertEqual((status, said, wrong), (0, '"OK"\n', ""), way)
        for way, (status, said, _) in self.run_all("usrloc:show_contact", "location", "WAY@example.org").items():
            shown = json.loads(said)
            self.assertEqual((status, shown["AOR"], shown["Contacts"][0]["Contact"]),
                             (0, f"{way}@example.org", f"sip:{way}@192.0.2.1"))
            self.assertIn(f"contact of {way}@example.org", self.server.text())
        for way, (status, said, _) in self.run_all("statistics:get", "statistics=usrloc: rcv_requests").items():
            counted = json.loads(said)
            self.assertEqual((status, counted["usrloc:registered_users"], counted["core:rcv_requests"]), (0, 3, 0), way)
        for way, (status, _, wrong) in self.run_all("usrloc:show_contact", "location", "nobody@example.org").items():
            self.assertNotEqual(status, 0, way)
            self.assertIn("404: AOR not found", wrong, way)
