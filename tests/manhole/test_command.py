"""Tests of ``sipgw mi``: the command itself, asking a server of another process."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout

from twisted.trial.unittest import SkipTest

from sipgw.command import main
from tests.children import ROOT, SIPGW, here, wait_for
from tests.manhole.child import ChildTests
from tests.manhole.terminal import Terminal
from tests.sipp.harness import Phone

LINE = r"^NOTICE: (\[[0-9-]+\] seen OPTIONS|seen OPTIONS \([0-9]+ more like this\))\n$"


class CommandTests(ChildTests):
    """A server, and the command in this process where nothing speaks against it."""

    route = 'xlog("seen $rm"); raise_event("E_TEST"); send_reply(200, "OK");'

    def run_mi(self, *words: str, socket: bool = True) -> tuple[int, str, str]:
        """Exit status, standard output, errors."""
        out, errors = io.StringIO(), io.StringIO()
        way = ["--socket", str(self.folder / "mi.sock")] if socket else []
        with redirect_stdout(out), redirect_stderr(errors):
            status = main(["mi", *way, *words])
        return status, out.getvalue(), errors.getvalue()

    def test_table(self) -> None:
        """People get a table, programs JSON."""
        pid = self.child.process.pid
        status, out, _ = self.run_mi("ps")
        self.assertEqual((status, out.splitlines()[-2].split()), (0, ["0", str(pid), "attendant"]))
        for words in (("--json", "ps"), ("ps", "--json")):
            status, out, _ = self.run_mi(*words)
            self.assertEqual(json.loads(out)["Processes"][0]["PID"], pid)
        self.assertIn("log_level", self.run_mi()[1])
        self.assertEqual(self.run_mi("log_level", "level=3")[:2], (0, "New global log level  3\n"))
        self.assertIn("core:rcv_requests", self.run_mi("get_statistics", "core:", "load:")[1])

    def test_config(self) -> None:
        """The socket is found by the script of the server, and by the run folder."""
        script = str(self.folder / "opensips.cfg")
        self.assertEqual(self.run_mi("-c", script, "ps", socket=False)[0], 0)
        before = os.environ.get("SIPGW_RUN")
        os.environ["SIPGW_RUN"] = str(self.folder)
        try:
            self.assertEqual(self.run_mi("ps", socket=False)[0], 0)
            os.environ["SIPGW_RUN"] = "/nosuch"
            status, _, errors = self.run_mi("ps", socket=False)
        finally:
            del os.environ["SIPGW_RUN"]
            if before is not None:
                os.environ["SIPGW_RUN"] = before
        self.assertEqual(status, 2)
        self.assertIn('no socket in /nosuch: does the server run, with loadmodule "mi_amp.so"?', errors)

    def test_errors(self) -> None:
        """What is wrong is said with what to write instead."""
        status, _, errors = self.run_mi("uptim")
        self.assertEqual(status, 1)
        self.assertIn("there is no command uptim; did you mean `uptime`?", errors)
        status, _, errors = self.run_mi("log_level", "level=loud")
        self.assertIn("Bad type for parameter 'level'", errors)
        self.assertIn("usage: sipgw mi core:log_level level=INT\n", errors)
        status, _, errors = self.run_mi("--json", "which", "none:")
        self.assertEqual((status, json.loads(errors)["error"]["code"]), (1, 404))

    def test_complete(self) -> None:
        """Commands and the names of parameters are completed, by bash itself too."""
        self.assertEqual(self.run_mi("--complete", "sipgw mi upt")[1].split(), ["uptime"])
        self.assertEqual(self.run_mi("--complete", "sipgw mi core:upt")[1].split(), ["core:uptime"])
        self.assertEqual(self.run_mi("--complete", "sipgw mi log_level ")[1].split(), ["level=", "pid="])
        self.assertEqual(self.run_mi("--complete", "sipgw mi log_level pid=1 l")[1].split(), ["level="])
        for line, expected in (("sipgw mi core:upt", "uptime"), ("sipgw mi uptim", "uptime"), ("sipgw m", "mi")):
            text = f"""
sipgw() {{ {" ".join(f"'{word}'" for word in SIPGW)} "$@"; }}
{self.run_mi("--completion", "bash", socket=False)[1]}
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ :; }}
_sipgw 2>/dev/null; echo "${{COMPREPLY[*]}}"
"""
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "SIPGW_RUN": str(self.folder)}
            done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, env=environment, timeout=60)
            self.assertEqual(done.stdout.split(), [expected], done.stderr)

    def test_zsh(self) -> None:
        """zsh completes them in a terminal."""
        if shutil.which("zsh") is None:
            raise SkipTest("there is no zsh")
        completion = self.folder / "_sipgw"
        completion.write_text(self.run_mi("--completion", "zsh", socket=False)[1])
        (self.folder / ".zshrc").write_text(f"""
PROMPT='ready: '
export PYTHONPATH='{ROOT}' SIPGW_RUN='{self.folder}'
unsetopt prompt_sp
autoload -Uz compinit && compinit -u -d {self.folder}/dump
sipgw() {{ {" ".join(f"'{word}'" for word in SIPGW)} "$@"; }}
. {completion}
""")
        with Terminal(["env", f"ZDOTDIR={self.folder}", "zsh", "-d", "-i"]) as terminal:
            terminal.until("ready: ")
            for keys, shown in (("sipgw mi upti\t\r", "Up since"), ("sipgw mi xlog_lev\tl\t3\r", "New xLog level +3")):
                terminal.type(keys)
                terminal.until(shown)
                terminal.until("ready: ")
            terminal.type("exit\r")
            terminal.end()

    def test_follow(self) -> None:
        """The log and events are printed as they come."""
        way = [*SIPGW, "mi", "--socket", str(self.folder / "mi.sock")]
        log = here([*way, "--tail", "--match", "seen"], self.folder / "tail")
        events = here([*way, "--events", "E_TEST", "--json"], self.folder / "events")
        phone = Phone(self.port)
        for child in (log, events):
            self.addCleanup(child.kill)
        self.addCleanup(phone.close)

        def heard() -> bool:
            phone.request("OPTIONS", "sip:x@127.0.0.1")
            return bool(log.text() and events.text())

        wait_for(heard, "both are told")
        self.assertRegex(log.text().partition(" ")[2].splitlines(True)[0], LINE)
        self.assertEqual(json.loads(events.text().splitlines()[0]), {"event": "E_TEST", "params": []})
