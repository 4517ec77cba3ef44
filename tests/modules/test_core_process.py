"""Tests of sipgw.modules.core_process: the answers beside those of OpenSIPS 4.1 to the same, and what the commands do."""

from __future__ import annotations

import gc
import os
from typing import Any

from sipgw.log import Consumer
from sipgw.modules import core_process
from sipgw.testing import finished
from tests.ears import Ears
from tests.modules.test_core_events import HEAD, Served

PID = os.getpid()
ATTENDANT = {"Processes": [{"ID": 0, "PID": PID, "Profiling level": 0, "Type": "attendant"}]}
WHICH = (-32602, "Invalid params", "Ambiguous call, use named parameters instead")
ANSWERS: list[tuple[str, Any, Any]] = [
    ("log_level_filter", ["stderror"], {"Log level filter": 0}),
    ("log_level_filter", ["syslog"], {"Log level filter": 0}),
    ("log_level_filter", ["event"], {"Log level filter": 0}),
    ("log_level_filter", ["nope"], (404, "Unknown log consumer")),
    ("log_level_filter", None, (-32602, "Invalid params", "Too few or too many parameters")),
    ("log_level_filter", ["stderror", 1], "OK"),
    ("log_level_filter", ["stderror"], {"Log level filter": 1}),
    ("log_level_filter", ["stderror", -7], "OK"),
    ("log_level_filter", ["stderror"], {"Log level filter": -7}),
    ("log_level_filter", ["stderror", 0], "OK"),
    ("log_level_filter", ["nope", 2], (404, "Unknown log consumer")),
    ("log_mute_state", ["stderror"], {"mute state": 0}),
    ("log_mute_state", ["syslog"], {"mute state": 1}),
    ("log_mute_state", ["event"], {"mute state": 1}),
    ("log_mute_state", ["nope"], (404, "Unknown log consumer")),
    ("log_mute_state", ["stderror", 2], "OK"),
    ("log_mute_state", ["stderror"], {"mute state": 2}),
    ("log_mute_state", ["stderror", 0], "OK"),
    ("log_mute_state", ["event", 0], "OK"),
    ("log_mute_state", ["event"], {"mute state": 0}),
    ("pi_list", None, (503, "No PI transport is available")),
    ("pi_reload", None, (503, "No PI transport is available")),
    ("profiling_proc", None, ATTENDANT),
    ("profiling_proc", {"id": 0}, ATTENDANT),
    ("profiling_proc", {"pid": PID}, ATTENDANT),
    ("profiling_proc", {"id": 99}, (-32602, "Invalid params", "Bad process ID")),
    ("profiling_proc", {"pid": 1}, (-32602, "Invalid params", "Bad PID")),
    ("profiling_proc", {"level": 9}, "OK"),
    ("profiling_proc", {"id": 0, "level": -1}, "OK"),
    ("profiling_proc", {"pid": PID, "level": 0}, "OK"),
    ("profiling_proc", [0], WHICH),
    ("profiling_proc", [0, 0], WHICH),
    ("profiling_proc", None, ATTENDANT),
    ("mem:pkg_dump", [1], (404, "Process not found")),
    ("mem:shm_dump", None, "OK"),
    ("mem:rpm_dump", None, "OK"),
    ("mem:rpm_dump", [3], "OK"),
    ("mem_shm_check", None, {}),
]


class CommandTests(Served):
    """The commands on a server."""

    def setUp(self) -> None:
        self.serve(HEAD + "route { exit; }")
        self.texts()

    def test_answers(self) -> None:
        """Each answers as OpenSIPS does."""
        for command, params, answer in ANSWERS:
            self.assertEqual(self.ask(command, params), answer, (command, params))

    def test_log(self) -> None:
        """Lines above the filter are not written, nor any when muted."""
        log = self.user.log
        for command, params, lines in [
            ("log_level_filter", ["stderror", 1], ["error"]),
            ("log_level_filter", ["stderror", 0], ["error", "info"]),
            ("log_mute_state", ["stderror", 1], []),
            ("log_mute_state", ["stderror", 0], ["error", "info"]),
        ]:
            self.ask(command, params)
            log(-1, "error")
            log(3, "info")
            self.assertEqual(self.texts(), lines)

    def test_absent(self) -> None:
        """What a daemon does not have cannot be unmuted."""
        self.wired.server.consumers["stderror"] = Consumer(0, 1, "a daemon has no stderr")
        answer = self.ask("log_mute_state", ["stderror", 0])
        self.assertEqual(answer, (500, "Log consumer not available", "a daemon has no stderr"))
        self.assertEqual(self.ask("log_mute_state", ["stderror", 3]), "OK")

    def test_dump(self) -> None:
        """The census is logged at the level asked for, if that is in force, and at memdump unless said."""

        async def census(after: Any) -> list[str]:
            return ["memory: all is well"]

        self.patch(core_process, "census", census)
        said = ["memory: all is well"]
        for command, params, lines in [
            ("mem:shm_dump", None, []),
            ("mem_shm_dump", [3], said),
            ("mem_pkg_dump", [PID, 4], []),
            ("mem:pkg_dump", [PID, -1], said),
            ("mem_rpm_dump", [4], []),
            ("mem:rpm_dump", [2], ["memory: none is kept over a restart"]),
        ]:
            self.assertEqual(self.ask(command, params), "OK")
            self.assertEqual(self.texts(), lines, (command, params))
        self.user.globals["memdump"] = 2
        self.assertEqual(self.ask("mem:pkg_dump", [PID]), "OK")
        self.assertEqual(self.texts(), said)

    def test_check(self) -> None:
        """Objects that can never be freed are a fault."""
        self.patch(gc, "garbage", [object(), object()])
        self.assertEqual(self.ask("mem:shm_check"), (500, "2 objects cannot be freed"))


class MemoryTests(Served):
    """E_CORE_SHM_THRESHOLD and E_CORE_PKG_THRESHOLD."""

    def test_told(self) -> None:
        """Each new percentage from the threshold on is told, once; without a threshold none is."""
        self.patch(core_process, "memory_limit", lambda: 1000)
        used = iter([790, 800, 805, 870, 700, 800])
        self.patch(core_process, "resident", lambda: next(used))
        ears = Ears()
        self.serve("event_shm_threshold = 80\n" + HEAD + "route { exit; }")
        for name in ("E_CORE_SHM_THRESHOLD", "E_CORE_PKG_THRESHOLD"):
            self.user.events.join(self.user.events.publish(name), "ear:a", finished(ears.open("a")))
        for _ in range(6):
            self.clock.advance(1)
        self.assertEqual(
            ears.told,
            [
                ("a", "E_CORE_SHM_THRESHOLD", {"usage": usage, "threshold": 80, "used": usage * 10, "size": 1000})
                for usage in (80, 87, 80)
            ],
        )

    def test_private(self) -> None:
        """Of private memory the process is told too."""
        self.patch(core_process, "memory_limit", lambda: 1000)
        self.patch(core_process, "resident", lambda: 900)
        ears = Ears()
        self.serve("event_pkg_threshold = 90\n" + HEAD + "route { exit; }")
        self.user.events.join(self.user.events.publish("E_CORE_PKG_THRESHOLD"), "ear:a", finished(ears.open("a")))
        self.clock.advance(1)
        values = {"usage": 90, "threshold": 90, "used": 900, "size": 1000, "pid": self.user.pid}
        self.assertEqual(ears.told, [("a", "E_CORE_PKG_THRESHOLD", values)])
