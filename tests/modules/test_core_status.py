"""Tests of sipgw.modules.core_status and status_report; the answers are those of OpenSIPS 4.1 to the same."""

from __future__ import annotations

import time
from typing import Any

from sipgw.testing import EPOCH, WiredServer
from tests.modules.test_core_events import Served

SCRIPT = """
log_level = 3
xlog_level = 3
socket = udp:127.0.0.1:5060
loadmodule "proto_udp.so"
loadmodule "status_report.so"
modparam("status_report", "script_sr_group", "grp1")
modparam("status_report", "script_sr_group", "grp2")
startup_route { sr_check_status("core"); xlog("$rc"); }
route {
    sr_check_status("core"); xlog("$rc");
    sr_check_status("core", "main"); xlog("$rc");
    sr_check_status("core", "all"); xlog("$rc");
    sr_check_status("core", "nope"); xlog("$rc");
    sr_check_status("nope"); xlog("$rc");
    sr_set_status("grp1", -3, "bad $rm"); xlog("$rc");
    sr_check_status("grp1"); xlog("$rc");
    sr_check_status("grp1", "all"); xlog("$rc");
    sr_add_report("grp2", "hello $si"); xlog("$rc");
    sr_set_status("core", -5, "hm"); xlog("$rc");
    sr_set_status("nope", 1); xlog("$rc");
    sr_add_report("core", "x"); xlog("$rc");
}
"""
MAIN = {"Name": "main", "Readiness": True, "Status": 1}
RUNNING = {**MAIN, "Details": "running"}
WHEN = {"Timestamp": int(EPOCH), "Date": time.ctime(EPOCH)}
HISTORY = [{**WHEN, "Log": "initializing"}, {**WHEN, "Log": "initialization completed, ready now"}]
ANSWERS: list[tuple[str, Any, Any]] = [
    (
        "identifiers",
        None,
        [{"Group": name, "Identifiers": ["main"]} for name in ("grp2", "grp1", "core")],
    ),
    ("identifiers", ["core"], {"Group": "core", "Identifiers": ["main"]}),
    ("identifiers", ["nope"], (404, "Group not found")),
    (
        "status",
        None,
        [
            {"Name": "grp2", "Identifiers": [MAIN]},
            {"Name": "grp1", "Identifiers": [MAIN]},
            {"Name": "core", "Identifiers": [RUNNING]},
        ],
    ),
    ("status", ["core"], [RUNNING]),
    ("status", ["nope"], (404, "Group not found")),
    ("status", ["core", "main"], (-32602, "Invalid params", "Too few or too many parameters")),
    ("get", ["core"], {"Readiness": True, "Status": 1, "Details": "running"}),
    ("get", ["core", "main"], {"Readiness": True, "Status": 1, "Details": "running"}),
    ("get", ["core", "all"], {"Readiness": True, "Status": 1, "Details": "aggregated"}),
    ("get", ["grp1"], {"Readiness": True, "Status": 1}),
    ("get", ["core", "nope"], (404, "Identity not found")),
    ("get", ["nope"], (404, "Group not found")),
    (
        "reports",
        None,
        [
            {"Name": "grp2", "Identifiers": [{"Name": "main", "Reports": []}]},
            {"Name": "grp1", "Identifiers": [{"Name": "main", "Reports": []}]},
            {"Name": "core", "Identifiers": [{"Name": "main", "Reports": HISTORY}]},
        ],
    ),
    ("reports", ["core"], [{"Name": "main", "Reports": HISTORY}]),
    ("reports", ["core", "main"], HISTORY),
    ("reports", ["core", "nope"], (404, "Identifier not found")),
    ("reports", ["core", "all"], (404, "Identifier not found")),
    ("reports", ["nope"], (404, "Group not found")),
]
ALIASES = {"get": "sr_get_status", "status": "sr_list_status", "reports": "sr_list_reports", "identifiers": "sr_list_identifiers"}


class StatusTests(Served):
    """A server with two groups of its script."""

    def setUp(self) -> None:
        self.serve(SCRIPT)

    def test_commands(self) -> None:
        """Each answers as OpenSIPS does, by its name and by its older one."""
        for command, params, answer in ANSWERS:
            self.assertEqual(self.ask(f"status_report:{command}", params), answer, (command, params))
            self.assertEqual(self.ask(ALIASES[command], params), answer, (command, params))

    def test_script(self) -> None:
        """A script sees that the core is not ready before its startup route has ended; it changes its own groups alone."""
        self.assertEqual([text for text in self.texts() if text.lstrip("-").isdigit()], ["-1"])
        self.request()
        codes = [text for text in self.texts() if text.lstrip("-").isdigit()]
        self.assertEqual(codes, ["1", "1", "1", "-1", "-1", "1", "-3", "-1", "1", "-1", "-1", "-1"])
        self.assertEqual(self.ask("sr_get_status", ["grp1"]), {"Readiness": False, "Status": -3, "Details": "bad OPTIONS"})
        self.assertEqual(self.ask("sr_list_reports", ["grp2", "main"]), [{**WHEN, "Log": "hello 127.0.0.1"}])

    def test_refused(self) -> None:
        """A group that is the core's is not the script's, and one must have a name."""
        for name in ("core", ""):
            refused = self.assertRaises(AssertionError, WiredServer, SCRIPT.replace('"grp1"', f'"{name}"', 1))
            self.assertIn("the parameter script_sr_group of status_report", str(refused))
