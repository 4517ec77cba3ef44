"""The real opensips-cli against a sipgw: its commands by pipe, HTTP and datagrams, its trace and its diagnosis.

On PyPI it is called opensipscli. ``SIPGW_OPENSIPS_CLI=/path/opensips-cli`` names another one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from urllib.request import Request, urlopen

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import Child, free_port, twistd, wait_for
from tests.sipp.harness import SIPP, Phone, Sipp

BESIDE = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
CLI = os.environ.get("SIPGW_OPENSIPS_CLI") or shutil.which("opensips-cli", path=BESIDE)
SCRIPT = """
log_level = 3
socket = udp:127.0.0.1:{sip}
loadmodule "proto_udp.so"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "signaling.so"
loadmodule "sipmsgops.so"
loadmodule "maxfwd.so"
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
{more}
route {{
    if (is_method("OPTIONS")) {{ send_reply(200, "OK"); exit; }}
    if (is_method("REGISTER")) {{ ul_add_key("location", "somebody@example.org", "key"); exit; }}
    mf_process_maxfwd_header(70);
    if (has_totag()) {{ loose_route(); t_relay(); exit; }}
    record_route();
    $du = "sip:127.0.0.1:{callee}";
    t_relay();
}}
"""
CALLS = """
loadmodule "proto_tcp.so"
loadmodule "proto_hep.so"
loadmodule "dialog.so"
loadmodule "tracer.so"
loadmodule "event_stream.so"
socket = tcp:127.0.0.1:{sip}
socket = hep_tcp:127.0.0.1:{hep}
exec_msg_threshold = 1
"""


class CliTestCase(SynchronousTestCase):
    """A server with each way that opensips-cli knows."""

    more = ""

    def setUp(self):
        if CLI is None:
            raise SkipTest("there is no opensips-cli: pip install opensipscli, or set SIPGW_OPENSIPS_CLI to where it is")
        self.directory = Path(mkdtemp(prefix="sipgw-cli-"))  # the path of a pipe is short
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        self.sip, http, datagram, self.callee = (free_port() for _ in range(4))
        script = self.directory / "opensips.cfg"
        ports = {"sip": self.sip, "http": http, "datagram": datagram, "callee": self.callee, "hep": free_port()}
        script.write_text(SCRIPT.format(**ports, directory=self.directory, more=self.more.format(**ports)))
        self.server = twistd(["sipgw", "-c", str(script)], self.directory / "server")
        self.addCleanup(self.server.kill)
        wait_for(lambda: "listens on" in self.server.text(), "sipgw listens", self.server)
        self.url = f"http://127.0.0.1:{http}/mi"
        self.ways = {
            "fifo": ["communication_type=fifo", f"fifo_file={self.directory}/fifo", f"fifo_reply_dir={self.directory}"],
            "http": ["communication_type=http", f"url={self.url}"],
            "datagram": ["communication_type=datagram", "datagram_ip=127.0.0.1", f"datagram_port={datagram}"],
        }

    def begin(self, *words, **options):
        """Start one that runs until it is told to end, asking by HTTP; what it writes is its ``text()``."""
        given = [*self.ways["http"], *(f"{name}={value}" for name, value in options.items())]
        # a run in the background of a shell ignores Ctrl-C, and so would its children
        command = ["env", "--default-signal=INT", str(CLI), *(word for option in given for word in ("-o", option)), "-x", *words]
        environment = {"HOME": str(self.directory), "TERM": "dumb", "PYTHONUNBUFFERED": "1"}
        child = Child(command, self.directory / "-".join(("cli", *words)), environment)
        self.addCleanup(child.kill)
        return child

    def ask(self, command):
        """The answer of one management command, as text."""
        request = Request(self.url, json.dumps({"jsonrpc": "2.0", "id": 1, "method": command}).encode(),
                          {"Content-Type": "application/json"})
        with urlopen(request, timeout=20) as answer:
            return str(answer.read(), "utf-8")

    def end(self, child):
        """Press Ctrl-C, each second until it is heard: while it clears its screen by a command it hears nothing."""
        pressed = 0.0

        def ended():
            nonlocal pressed
            if child.process.poll() is None and time.monotonic() > pressed + 1:
                pressed = time.monotonic()
                child.process.send_signal(signal.SIGINT)
            return child.process.poll() is not None

        wait_for(ended, "it ends")
        self.assertEqual(child.wait(), 0, child.text())


class CliTests(CliTestCase):
    """What an operator asks, by each way."""

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

    def test_process(self):
        """It hears of a version that it can follow, and of the process."""
        for way, (status, said, _) in self.run_all("core:version").items():
            self.assertEqual(status, 0, way)
            self.assertRegex(json.loads(said)["Server"], r"^OpenSIPS \(\d\.\d\.\d .*sipgw \d")
        for way, (status, said, _) in self.run_all("core:ps").items():
            shown = [(each["ID"], each["PID"], each["Type"]) for each in json.loads(said)["Processes"]]
            pid = self.server.process.pid
            receiver = f"SIP receiver udp:127.0.0.1:{self.sip}"
            self.assertEqual((status, shown), (0, [(0, pid, "attendant"), (1, pid, receiver)]), way)


class CallTests(CliTestCase):
    """What it shows of calls while they happen."""

    more = CALLS

    def test_trace(self):
        """``trace caller=alice`` shows her call, both sides of it, and no other; Ctrl-C ends tracing."""
        if SIPP is None:
            raise SkipTest("sipp is not installed (Debian: sip-tester)")
        cli = self.begin("trace", "caller=alice")
        wait_for(lambda: "opensips-cli" in self.ask("tracer:trace"), "it traces", self.server)
        callee = Sipp(
            self.directory / "callee", "callee-talks", port=self.callee, calls=2, ring="1", left="", branch_header="CSeq:"
        )
        self.addCleanup(callee.kill)
        for caller in ("carol", "alice"):
            calling = Sipp(self.directory / caller, "caller-talks", remote=self.sip, caller=caller, talk="1")
            self.addCleanup(calling.kill)
            calling.finish()
        callee.finish()
        wait_for(lambda: cli.text().count("200 OK") >= 4, "it shows the call", cli)
        self.end(cli)
        shown = cli.text()
        for line in ("INVITE sip:", "SIP/2.0 180 Ringing", "ACK sip:", "BYE sip:"):
            self.assertGreaterEqual(shown.count(f"\n{line}"), 2, line)
        self.assertIn(f"127.0.0.1:{self.sip} -> 127.0.0.1:{self.callee}", shown)
        self.assertNotIn("carol", shown)
        wait_for(lambda: "opensips-cli" not in self.ask("tracer:trace"), "it traces no more", self.server)

    def test_diagnosis(self):
        """Each diagnosis finds the numbers that it needs; ``sip`` is told of what is slow, as it happens."""
        phone = Phone(self.sip)
        self.addCleanup(phone.close)
        seen = {
            "": ("Worker Capacity: OK", "Shared Memory:   OK", "SIP Processing:  CRITICAL", "DNS Queries:     OK"),
            "sip": ("SIP Processing [WARNING]", "OPTIONS sip:slow@127.0.0.1, Call-ID: "),
            "dns": ("DNS Queries [OK]",),
            "sql": ("SQL Queries [OK]",),
            "nosql": ("NoSQL (CacheDB) Queries [OK]",),
            "memory": ("Shared Memory Status", "OK: no issues detected."),
            "load": (f"SIP UDP Interface #1 (udp:127.0.0.1:{self.sip})", "Receive Queue: 0.0 bytes", "TCP Processing", " load: "),
        }
        running = {
            name: self.begin("diagnose", *([name] if name else []), diagnose_listen_port=free_port()) for name in seen
        }

        def complete():
            self.assertEqual(phone.request("OPTIONS", "sip:slow@127.0.0.1"), 200)
            return all(text in running[name].text() for name, texts in seen.items() for text in texts)

        try:
            wait_for(complete, "each has shown what it should", self.server)
        except AssertionError as error:
            raise AssertionError("\n".join(child.text()[-1500:] for child in running.values())) from error
        for child in running.values():
            self.end(child)
