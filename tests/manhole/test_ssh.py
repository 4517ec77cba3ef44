"""Tests of the module manhole, by the real OpenSSH client."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.manhole.keys import KeyFault, host_key, read_key, read_keys
from tests.children import HOST, free_port, wait_for
from tests.manhole.child import ChildTests
from tests.manhole.terminal import Terminal
from tests.sipp.harness import SIPP, Phone, Sipp


class SshTestCase(ChildTests):
    """A server with the module, and keys: one of an admin, one of an operator, one of nobody."""

    ssh_port = 0

    @classmethod
    def prepare(cls) -> None:
        """Make the keys."""
        if shutil.which("ssh") is None:
            raise SkipTest("there is no OpenSSH client")
        cls.ssh_port = free_port()
        cls.more = f"""
loadmodule "manhole.so"
modparam("manhole", "address", "{HOST}:{cls.ssh_port}")
modparam("manhole", "authorized_keys", "FOLDER/keys")
"""
        lines = []
        for name, options in (("admin", "role=admin "), ("operator", 'role="operate" '), ("nobody", "")):
            kind = ["-t", "ecdsa"] if name == "operator" else ["-t", "ed25519"]
            file = str(cls.folder / name)
            subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-C", f"{name}@desk", "-f", file], check=True, timeout=20)
            lines.append(f"{options}{Path(file + '.pub').read_text()}")
        (cls.folder / "keys").write_text("# who may come in\n\n" + "".join(lines[:2]))

    def command(self, key: str, *words: str) -> list[str]:
        """The command of an OpenSSH client that knows nothing but this key."""
        options = {
            "IdentityFile": str(self.folder / key), "IdentitiesOnly": "yes", "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.folder / "known_hosts"), "LogLevel": "ERROR", "EscapeChar": "none",
        }
        settings = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", *settings, "-p", str(self.ssh_port), f"someone@{HOST}", *words]

    def ssh(self, key: str, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        return subprocess.run(self.command(key, *words), input=text, capture_output=True, text=True, timeout=30)

    def terminal(self, key: str) -> list[str]:
        """The command of one in a terminal."""
        *options, where = self.command(key)
        return [*options, "-tt", where]


class SshTests(SshTestCase):
    """Who may come in, and what is there for him."""

    def test_one_command(self) -> None:
        """A single command, its answer, its exit status; both roles may."""
        for key in ("admin", "operator"):
            done = self.ssh(key, "ps --json")
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn(f'"PID":{self.child.process.pid}', done.stdout)
        done = self.ssh("operator", "log_level", "level=loud")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("usage: core:log_level level=INT", done.stderr)
        self.assertIn("did you mean `uptime`?", self.ssh("operator", "uptim").stderr)

    def test_refused(self) -> None:
        """Other keys, passwords and nothing at all do not come in, and the log says who tried."""
        done = self.ssh("nobody", "ps")
        self.assertEqual((done.returncode, done.stdout), (255, ""))
        self.assertIn("Permission denied (publickey)", done.stderr)
        self.assertRegex(self.child.text(), "manhole: someone is refused: no key ")
        with open(self.folder / "keys", encoding="utf-8") as keys:
            before = keys.read()
        try:
            (self.folder / "keys").write_text("\n".join(line for line in before.splitlines() if "operator@" not in line))
            self.assertEqual(self.ssh("operator", "ps").returncode, 255)
            os.chmod(self.folder / "keys", 0o666)
            self.assertEqual(self.ssh("admin", "ps").returncode, 255)
        finally:
            os.chmod(self.folder / "keys", 0o600)
            (self.folder / "keys").write_text(before)
        self.assertEqual(self.ssh("operator", "ps").returncode, 0)

    def test_nothing_else(self) -> None:
        """No forwarding, no sftp."""
        self.assertNotEqual(self.ssh("admin", "-s", "sftp").returncode, 0)
        forward = ["-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:1"]
        done = subprocess.run([*self.command("admin")[:-1], *forward, f"someone@{HOST}", "ps"], capture_output=True, timeout=30)
        self.assertNotEqual(done.returncode, 0)

    def test_lines(self) -> None:
        """The subsystem and a session without terminal take commands line by line."""
        for words in (("-s", "mi"), ("-T",)):
            text = "pwd --json\nnosuch\nversion\nquit\n"
            arguments = self.command("operator")
            command = [*arguments[:-1], *(("-s", arguments[-1], "mi") if words[0] == "-s" else ("-T", arguments[-1]))]
            done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30)
            lines = done.stdout.splitlines()
            self.assertRegex(lines[0], r'^\{"WD":')
            self.assertIn("there is no command nosuch", lines[1])
            self.assertRegex(lines[2], "^Server  OpenSIPS .*, by sipgw")

    def test_end_of_lines(self) -> None:
        """Where the client sends nothing more, the subsystem and a session end once all is answered."""
        options, where = self.command("operator")[:-1], self.command("operator")[-1]
        subsystem = ["-s", where, "mi"]
        for words in (subsystem, ["-o", "SetEnv=LANG=C", *subsystem], ["-tt", *subsystem], ["-T", where]):
            text = "uptime\n" * 50 + "pwd --json\n"
            done = subprocess.run([*options, *words], input=text, capture_output=True, text=True, timeout=20)
            self.assertRegex(done.stdout.splitlines()[-1], r'^\{"WD":')

    def test_who_does_not_read(self) -> None:
        """Whoever asks and does not read waits, and costs little; whoever asks without end is left; others are served."""
        for text, left in (("which --json\n" * 900, False), ("which --json\n" * 30_000, True)):
            asked = self.folder / "asked"
            asked.write_text(text)
            with open(asked, encoding="ascii") as lines:
                deaf = subprocess.Popen(self.command("operator"), stdin=lines, stdout=subprocess.PIPE, text=True)
            with deaf:
                assert deaf.stdout is not None
                self.assertEqual(self.ssh("admin", "ps").returncode, 0)
                if left:
                    wait_for(lambda: "operator@desk sends more than is answered" in self.child.text(), "it is left", self.child)
                    deaf.kill()
                else:
                    self.assertEqual(len(deaf.stdout.read().splitlines()), 900)

    def test_host_key(self) -> None:
        """The server's key is made once, for nobody else to read."""
        self.ssh("admin", "ps")
        file = self.folder / "manhole_host_key"
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        made = subprocess.run(["ssh-keygen", "-y", "-f", str(file)], capture_output=True, text=True, timeout=20, check=True)
        self.assertIn(made.stdout.split()[1], (self.folder / "known_hosts").read_text())

    def test_prompt(self) -> None:
        """An operator with a terminal has the prompt of commands, completion, a history, no Python."""
        with Terminal(self.terminal("operator")) as terminal:
            terminal.until("mi> ")
            terminal.type("upt\t")
            terminal.until("uptime ")
            terminal.type("\r")
            terminal.until("Up since")
            terminal.type("log_level \t\t")
            terminal.until("level=  pid=")
            terminal.type("\x03")
            terminal.type("1 + 1\r")
            terminal.until("there is no command 1")
            terminal.type("\x1b[A")
            terminal.until(r"mi> 1 \+ 1")
            terminal.type("\x03\x04")
            terminal.end()
        self.assertIn("NOTICE: manhole: operator@desk: uptime", self.child.text())

    def test_python(self) -> None:
        """An admin with a terminal has a Python shell with the running server, each line of it in the log."""
        with Terminal(self.terminal("admin")) as terminal:
            terminal.until(">>> ")
            terminal.type("6 * 7\r")
            terminal.until("\n42")
            terminal.type("mi('ps')\r")
            terminal.until("attendant")
            terminal.type("server.comm\t")
            terminal.until("server.commands")
            terminal.type(".names()[:1]\r")
            terminal.until(r"\['[a-z]+:")
            terminal.type("routes\r")
            terminal.until(r"opensips\.cfg:\d+")
            terminal.type("calls, registrations, len(transactions[:0])\r")
            terminal.until(r"\(\(no calls\), \(no registrations\), 0\)")
            terminal.type("mi('nosuch')\r")
            terminal.until("MIError: -32601 Method not found")
            terminal.type("for x in 'ab':\r  print(x + 'c')\r\r")
            terminal.until("ac\r?\n.*bc")
            terminal.type("import os; os.getpid()\r")
            terminal.until(str(self.child.process.pid))
            terminal.type("trace(caller='probe')\r")
            terminal.until("tracing caller='probe': 0 calls")
            phone = Phone(self.port)
            self.addCleanup(phone.close)
            phone.request("OPTIONS", "sip:x@127.0.0.1")
            terminal.until(r"-- OPTIONS x -+>\|.*<-+ 200 OK -+\|")
            terminal.type(f"trace.save('{self.folder}/x.pcap')\r")
            terminal.until("'2 messages in ")
            terminal.type("profile(0.2)\r")
            terminal.until(r"Deferred #0 called back: 0\.2 s")
            terminal.type("leaks()\r")
            terminal.until("objects that came after the start")
            terminal.type("\x04")
            terminal.end()
        for line in ("admin@desk comes in, role admin", "admin@desk: >>> 6 * 7", "admin@desk leaves"):
            wait_for(lambda line=line: line in self.child.text(), line)  # type: ignore[misc]
        self.assertEqual(re.findall(r"Traceback.*|bug:.*|ERROR: Got.*", self.child.text()), [])

    def test_breakpoint(self) -> None:
        """A breakpoint holds one call while others pass; it goes on when it is told to, or when the user leaves."""
        lines = (self.folder / "opensips.cfg").read_text().splitlines()
        line = next(number for number, text in enumerate(lines, 1) if "send_reply" in text)
        phone = Phone(self.port)
        self.addCleanup(phone.close)
        with Terminal(self.terminal("admin")) as terminal:
            terminal.until(">>> ")
            terminal.type(f"breakpoint('opensips.cfg:{line}', caller='held')\r")
            terminal.until(f"stopping caller='held' at opensips.cfg:{line}, 0 so far")
            self.assertIsNone(phone.request("OPTIONS", "sip:x@127.0.0.1", user="held", patience=0.2))
            terminal.until(rf"stopped\[0\]: OPTIONS sip:x@127.0.0.1.*opensips.cfg:{line}: send_reply")
            for _ in range(100):
                self.assertEqual(phone.request("OPTIONS", "sip:y@127.0.0.1", user="passing"), 200)
            terminal.type("stopped[0]['$fU']\r")
            terminal.until("'held'")
            terminal.type("stopped[0].go()\r")
            phone.socket.settimeout(20)
            self.assertIn(b"From: <sip:held@", phone.socket.recv(65535))
            self.assertIsNone(phone.request("OPTIONS", "sip:x@127.0.0.1", user="held", patience=0.2))
            terminal.type("step(caller='stepped')\r")
            terminal.until("stepping caller='stepped'")
            self.assertEqual(phone.request("OPTIONS", "sip:z@127.0.0.1", user="stepped"), 200)
            terminal.until(rf"OPTIONS sip:z@127.0.0.1 opensips.cfg:{line}: send_reply")
            terminal.type("\x04")
            terminal.end()
        phone.socket.settimeout(20)
        self.assertIn(b"From: <sip:held@", phone.socket.recv(65535))


CALL = [
    "|-- INVITE bob (SDP) -->|",
    "|  |-- INVITE bob (SDP) -->|",
    "|<-- 100 Giving it a try --|  |",
    "|  |<-- 180 Ringing --|",
    "|<-- 180 Ringing --|  |",
    "|  |<-- 200 OK (SDP) --|",
    "|<-- 200 OK (SDP) --|  |",
    "|-- ACK bob -->|  |",
    "|  |-- ACK bob -->|",
    "|-- BYE bob -->|  |",
    "|  |-- BYE bob -->|",
    "|  |<-- 200 OK --|",
    "|<-- 200 OK --|  |",
]
"""A call through a proxy, drawn; spaces and dashes are squeezed."""


class CallTests(SshTestCase):
    """The same doors at a proxy with calls by sipp."""

    callee = 0

    @classmethod
    def prepare(cls) -> None:
        """A proxy before a phone."""
        super().prepare()
        if SIPP is None:
            raise SkipTest("sipp is not installed (Debian: sip-tester)")
        cls.callee = free_port()
        cls.more += """
loadmodule "rr.so"
loadmodule "maxfwd.so"
loadmodule "sipmsgops.so"
"""
        cls.route = f"""
    mf_process_maxfwd_header(70);
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    $var(line) = "trunk";
    record_route();
    $du = "sip:{HOST}:{cls.callee}";
    t_relay();
"""

    def place(self, text: str) -> int:
        """The number of the first line of the script in which ``text`` is."""
        lines = (self.folder / "opensips.cfg").read_text().splitlines()
        return next(number for number, line in enumerate(lines, 1) if text in line)

    def calls(self, name: str, count: int, caller: str) -> Sipp:
        """So many calls of ``caller``, all begun at once."""
        made = Sipp(
            self.folder / name, "caller-talks", remote=self.port, calls=count, caller=caller, talk="1",
            ringing_optional="true", options=["-r", "200", "-l", str(count)],
        )
        self.addCleanup(made.kill)
        return made

    def phone(self, count: int) -> Sipp:
        """A phone that answers so many calls."""
        made = Sipp(
            self.folder / f"callee-{self.id()}", "callee-talks", port=self.callee, calls=count, ring="1", left="",
            branch_header="CSeq:",
        )
        self.addCleanup(made.kill)
        return made

    def test_ladder(self) -> None:
        """A live call is drawn as it happens, both sides of the proxy; what is saved is read by tshark."""
        phone = self.phone(1)
        with Terminal(self.terminal("admin")) as terminal:
            terminal.until(">>> ")
            terminal.type("trace(caller='traced')\r")
            terminal.until("tracing caller='traced': 0 calls")
            self.calls("traced", 1, "traced").finish()
            phone.finish()
            terminal.until(r"BYE bob -+>.*BYE bob -+>.*200 OK.*200 OK -+")
            self.assertRegex(terminal.shown, rf"{HOST}:\d+ +sipgw +{HOST}:{self.callee}")
            drawn = re.findall(r"(?m)^(?:>>> )? +\d\.\d{3} +\+\d+ms (\|.*\|) *\r?$", terminal.shown)
            arrows = [re.sub(r"  +", "  ", re.sub(r"--+", "--", arrow)) for arrow in drawn]
            self.assertEqual(arrows, CALL)
            terminal.type(f"trace.save('{self.folder}/call.pcap')\r")
            saved = re.search(r"'(\d+) messages in ", terminal.until(r"'\d+ messages in "))
            terminal.type("\x04")
            terminal.end()
        assert saved is not None
        tshark = shutil.which("tshark")
        if tshark is not None:
            command = [tshark, "-r", str(self.folder / "call.pcap"), "-d", f"udp.port=={self.port},sip", "-T", "fields"]
            command += ["-e", "sip.Method", "-e", "sip.Status-Code", "-e", "_ws.malformed"]
            rows = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
            self.assertEqual(len(rows), int(saved[1]))
            self.assertEqual([row for row in rows if row.split("\t")[2:] != [""] or row.startswith("\t\t")], [])
            self.assertEqual(sum(row.startswith("INVITE") for row in rows), 2)

    def test_one_of_many(self) -> None:
        """A breakpoint holds one call while 100 others are begun, answered and ended; its variables can be seen and changed."""
        phone = self.phone(101)
        with Terminal(self.terminal("admin")) as terminal:
            terminal.until(">>> ")
            line = self.place("record_route")
            terminal.type(f"breakpoint('opensips.cfg:{line}', caller='held')\r")
            terminal.until(f"stopping caller='held' at opensips.cfg:{line}, 0 so far")
            held = self.calls("held", 1, "held")
            terminal.until(rf"stopped\[0\]: INVITE sip:bob@.*opensips.cfg:{line}: record_route")
            self.assertEqual(self.calls("others", 100, "passing").finish()["0_INVITE_Sent"], 100)
            self.assertIsNone(held.process.poll())
            terminal.type("stopped[0]['$var(line)'], stopped[0]['$fU']\r")
            terminal.until(r"\('trunk', 'held'\)")
            terminal.type("stopped[0]['$ru'] = 'sip:another@127.0.0.1'\r")
            terminal.until(">>> ")
            terminal.type("stopped[0].go()\r")
            held.finish()
            phone.finish()
            terminal.type("\x04")
            terminal.end()
        self.assertEqual(re.findall(r"Traceback.*|bug:.*|ERROR: Got.*", self.child.text()), [])

    def test_step(self) -> None:
        """The lines that the chosen call runs are shown with what they change; other calls run unseen."""
        phone = self.phone(2)
        with Terminal(self.terminal("admin")) as terminal:
            terminal.until(">>> ")
            terminal.type("step(caller='stepped', method='INVITE')\r")
            terminal.until("stepping caller='stepped'")
            self.calls("unseen", 1, "unseen").finish()
            self.calls("stepped", 1, "stepped").finish()
            phone.finish()
            for text, change in (("$var(line) =", r'\$var\(line\) = "trunk"'), ("$du =", rf'\$du = "sip:{HOST}:{self.callee}"')):
                terminal.until(rf"INVITE sip:bob@\S+ opensips.cfg:{self.place(text)}: .*{change}")
            terminal.until(rf"opensips.cfg:{self.place('$du =') + 1}: t_relay")
            self.assertEqual(terminal.shown.count(f"opensips.cfg:{self.place('$var(line)')}:"), 1)
            terminal.type("\x04")
            terminal.end()


class KeyTests(SynchronousTestCase):
    """Files of keys."""

    PUBLIC = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGf3VLlwD2oZkBoFm1CkZ2yvjZ5xJ8bF9h2jQ4tK3gkH"

    def test_lines(self) -> None:
        """Options, key, comment; anything else is refused."""
        self.assertEqual(read_key(f"role=admin {self.PUBLIC} me at home")[1].name, "me at home")
        self.assertEqual(read_key(f'role="operate" {self.PUBLIC} me')[1].role, "operate")
        self.assertEqual(read_key(self.PUBLIC)[1].role, "operate")
        for line in (
            f"role=root {self.PUBLIC}", f"no-pty {self.PUBLIC}", f"role=admin,no-pty {self.PUBLIC}", "ssh-ed25519",
            "ssh-ed25519 AAAA", "hello", "ssh-ed25519 !!!!", f"role=admin,from={self.PUBLIC}",
        ):
            with self.assertRaises(ValueError):
                read_key(line)

    def test_files(self) -> None:
        """A file that others may write, or that is not there, or is wrong, is no file of keys."""
        file = Path(self.mktemp())
        file.write_text(f"{self.PUBLIC}\n")
        os.chmod(file, 0o600)
        self.assertEqual(len(read_keys(str(file))), 1)
        os.chmod(file, 0o620)
        with self.assertRaisesRegex(KeyFault, "can be written by others"):
            read_keys(str(file))
        os.chmod(file, 0o600)
        file.write_text(f"{self.PUBLIC}\nnonsense\n")
        with self.assertRaisesRegex(KeyFault, ":2: "):
            read_keys(str(file))
        with self.assertRaisesRegex(KeyFault, "No such file"):
            read_keys(f"{file}.nosuch")

    def test_host_key(self) -> None:
        """It is made once; one that others can read, or that is none, is refused."""
        file = Path(self.mktemp())
        first = host_key(str(file))
        self.assertEqual(host_key(str(file)), first)
        os.chmod(file, 0o640)
        with self.assertRaisesRegex(KeyFault, "can be read by others"):
            host_key(str(file))
        file.write_text("nonsense")
        os.chmod(file, 0o600)
        with self.assertRaisesRegex(KeyFault, "is no private key"):
            host_key(str(file))
        with self.assertRaisesRegex(KeyFault, "No such file"):
            host_key("/nosuch/key")
