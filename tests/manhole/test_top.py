"""Tests of ``sipgw top``: its screen as lines, and in a terminal of tmux."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
from collections import deque
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.command import main
from sipgw.command_top import State, bars, screen
from sipgw.manhole.route_times import RouteTimes
from sipgw.testing import FakeServer
from tests.children import ROOT, SIPGW, wait_for
from tests.manhole.child import ChildTests
from tests.sipp.harness import Phone

SCREEN = """\
sipgw 1   up 1 d 1:01:01                              12:00:00
Load           now 5 %   1 min 4 %   memory 64 MiB
Calls          active 3   ringing 1   made 9   failed 2   expired 0
Transactions   (module tm is not loaded)
Registrations  users 10
Requests/s     in 20.0   out 0.0   dropped 0.0   bad 0.0
Replies/s      in 0.0   out 0.0   dropped 0.0   bad 0.0
Last minute    █ 20/s

Routes that took the most time (ms; waiting and called routes counted)
   calls      mean     worst       total  route
       4     1.500     3.000         6.0  relay (a.cfg:7)"""


class ScreenTests(SynchronousTestCase):
    """The screen as lines."""

    def state(self) -> State:
        """Two looks at a server, half a second apart."""
        state = State()
        state.version = "sipgw 1"
        state.values = {
            "core:timestamp": 90061, "core:rcv_requests": 100, "load:load": 5, "load:load1m": 4, "shmem:used_size": 64 << 20,
            "dialog:active_dialogs": 3, "dialog:early_dialogs": 1, "dialog:processed_dialogs": 9, "dialog:failed_dialogs": 2,
            "usrloc:registered_users": 10,
        }
        state.look(10.0)
        state.values["core:rcv_requests"] = 110
        state.look(10.5)
        state.routes = [{"name": "relay", "file": "/etc/a.cfg", "line": 7, "calls": 4, "total": 6000, "worst": 3000}]
        return state

    def test_screen(self) -> None:
        """Totals, rates since the last look, routes."""
        lines = screen(self.state(), 62, 24, "12:00:00")
        expected = SCREEN.splitlines()
        self.assertEqual([line[:62].rstrip() for line in expected], lines[: len(expected)])

    def test_small(self) -> None:
        """Nothing is wider or higher than the terminal."""
        for width, height in ((1, 1), (10, 3), (200, 5)):
            lines = screen(self.state(), width, height, "12:00:00")
            self.assertLessEqual(len(lines), height)
            self.assertLessEqual(max(map(len, lines)), width)

    def test_reset(self) -> None:
        """A counter that was set to zero is no negative rate."""
        state = self.state()
        state.values["core:rcv_requests"] = 0
        state.look(11.0)
        self.assertEqual(state.rates["core:rcv_requests"], 0.0)

    def test_bars(self) -> None:
        """The highest rate is the highest bar, none is none."""
        self.assertEqual(bars(deque([0.0, 1.0, 8.0])), " ▁█ 8/s")
        self.assertEqual(bars(deque()), "no request")


class TimesTests(SynchronousTestCase):
    """What the times of routes are made of."""

    def test_times(self) -> None:
        """Routes inside each other each have their own time; afterwards nobody listens."""
        bus = FakeServer().user.events
        times = RouteTimes(bus, "amp:test")
        times.start()
        event = bus.publish("E_PROFILING_SCRIPT")
        for verb, depth, usec in (
            ("start", 1, 0), ("enter", 1, 0), ("enter", 2, 10), ("exit", 2, 30), ("enter", 2, 30), ("exit", 2, 100),
            ("exit", 1, 101), ("end", 1, 101),
        ):
            more: dict[str, Any] = {} if verb in ("start", "end") else {"file": "a.cfg", "line": depth}
            event.emit(sec=1, usec=usec, session=1, verb=verb, name=f"r{depth}", type=1, depth=depth, **more)
        self.assertEqual(
            [(each["name"], each["calls"], each["total"], each["worst"]) for each in times.slowest(9)],
            [("r1", 1, 101, 101), ("r2", 2, 90, 70)],
        )
        self.assertEqual(len(times.slowest(1)), 1)
        times.stop()
        self.assertFalse(event.heard)


class TopTests(ChildTests):
    """A running server."""

    route = 'route(greet); } route[greet] { send_reply(200, "OK");'

    def top(self, *words: str) -> tuple[int, str, str]:
        """Exit status, output, errors of a run of ``sipgw top``."""
        out, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(errors):
            status = main(["top", "--socket", str(self.folder / "mi.sock"), *words])
        return status, out.getvalue(), errors.getvalue()

    def test_once(self) -> None:
        """One screen for a pipe, and a word for who forgets to ask for it."""
        status, out, _ = self.top("--once")
        self.assertEqual(status, 0)
        self.assertRegex(out, r"(?m)^Load +now \d+ %")
        status, _, errors = self.top()
        self.assertEqual((status, errors), (2, "sipgw top: this is no terminal: --once prints one screen\n"))

    def test_terminal(self) -> None:
        """In a terminal it shows the requests that come and the routes that they take; q ends it."""
        if shutil.which("tmux") is None:
            raise SkipTest("there is no tmux")
        tmux = ["tmux", "-S", str(self.folder / "tmux")]
        command = shlex.join(["env", f"PYTHONPATH={ROOT}", *SIPGW, "top", "--every", "0.2", "--socket", f"{self.folder}/mi.sock"])
        subprocess.run([*tmux, "-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "20", command], check=True, timeout=20)
        self.addCleanup(subprocess.run, [*tmux, "kill-server"], timeout=20, capture_output=True)
        phone = Phone(self.port)
        self.addCleanup(phone.close)
        shown = ""

        def looked() -> bool:
            nonlocal shown
            phone.request("OPTIONS", "sip:x@127.0.0.1")
            shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, timeout=20).stdout
            return "greet" in shown and "in 0.0" not in shown.splitlines()[5]

        wait_for(looked, "the screen shows the route")
        fixed = [re.sub(r"[\d.]+|[ ▁-█]+$", "#", re.sub(" +", " ", line)) for line in shown.splitlines()]
        self.assertTrue(fixed[0].startswith("sipgw # up"), shown)
        self.assertEqual(
            fixed[1:11],
            [
                "Load now # % # min # % memory # MiB",
                "Calls (module dialog is not loaded)",
                "Transactions in use # #xx # #xx # #xx # #xx # #xx #",
                "Registrations (module usrloc is not loaded)",
                "Requests/s in # out # dropped # bad #",
                "Replies/s in # out # dropped # bad #",
                fixed[7],
                "",
                "Routes that took the most time (ms; waiting and called routes counted)",
                " calls mean worst total route",
            ],
        )
        self.assertRegex(fixed[7], "^Last minute")
        self.assertRegex(shown, r"(?m)^ +\d+ +[\d.]+ +[\d.]+ +[\d.]+  greet \(opensips.cfg:\d+\)$")
        subprocess.run([*tmux, "send-keys", "q"], check=True, timeout=20)
        wait_for(lambda: subprocess.run([*tmux, "has-session"], capture_output=True, timeout=20).returncode, "q ends it")
