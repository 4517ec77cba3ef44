"""Tests of sipgw.modules.core_mi: the answers of the core's commands, beside those of OpenSIPS.

``data/mi_core.json`` holds what OpenSIPS 4.1 answered to the same requests, without its help texts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.exports import Module, mi
from sipgw.modules.core_mi import LAST_WORDS, CoreCommands
from tests.mi.doubles import FakeServer

OPENSIPS: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data" / "mi_core.json").read_text())


class Other(Module):
    """A module with commands beside the core's."""

    name = "other"

    @mi("list")
    def list_them(self) -> None:
        """Lists things."""


def shape(value: Any) -> Any:
    """The keys of ``value`` and the types below; an array is the shape of its first member."""
    if isinstance(value, dict):
        return {key: shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


class CoreTests(SynchronousTestCase):
    """The core's commands on a server with a few statistics."""

    def setUp(self) -> None:
        self.server = FakeServer()
        self.core = self.server.add(CoreCommands(self.server))
        self.server.add(Other())
        self.received = self.server.statistics.counter("core", "rcv_requests")
        self.received.inc(7)
        self.server.statistics.counter("core", "rcv_replies")
        self.successResultOf(Deferred.fromCoroutine(self.core.start()))
        self.server.statistics.counter("usrloc", "rcv_requests")

    def answer(self, method: str, params: Any = None) -> Any:
        """The result of a command, or its error as it is sent."""
        request: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "id": 1}
        if params is not None:
            request["params"] = params
        pieces = self.successResultOf(Deferred.fromCoroutine(self.server.commands.answer(json.dumps(request).encode())))
        answer = json.loads(b"".join(pieces))
        return answer.get("result", answer.get("error"))

    def test_opensips(self) -> None:
        """Each answer has the keys and types of OpenSIPS's to the same request; errors are the same."""
        for case in OPENSIPS:
            asked = f"{case['method']} {case.get('params')}"
            params = json.loads(json.dumps(case.get("params")).replace('"PID"', str(os.getpid())))
            got = self.answer(case["method"], params)
            if "error" in case:
                self.assertEqual(got, case["error"], asked)
            else:
                self.assertEqual(shape(got), shape(case["result"]), asked)
            if case.get("result") == "OK":
                self.assertEqual(got, "OK", asked)
        self.assertGreater(len(OPENSIPS), 40)

    def test_statistics(self) -> None:
        """Values come by group and by bare name, in the order of asking."""
        self.assertEqual(self.answer("get_statistics", [["rcv_requests"]]), {"core:rcv_requests": 7})
        mixed = self.answer("get_statistics", [["usrloc:", "rcv_replies", "nosuch"]])
        self.assertEqual(list(mixed), ["usrloc:rcv_requests", "core:rcv_replies"])
        everything = self.answer("statistics:get", [["all"]])
        self.assertEqual(list(everything), [f"{s.group}:{s.name}" for s in self.server.statistics])
        core = self.answer("get_statistics", [["core:"]])
        self.assertEqual(list(core), ["core:rcv_requests", "core:rcv_replies", "core:timestamp"])

    def test_list(self) -> None:
        """The types of all statistics, of a group, or of one by its bare name."""
        everything = self.answer("list_statistics")
        self.assertEqual((everything["core:rcv_requests"], everything["core:timestamp"]), ("incremental", "non-incremental"))
        self.assertEqual(len(everything), len(list(self.server.statistics)))
        self.assertEqual(
            self.answer("list_statistics", [["usrloc:", "timestamp", "nosuch"]]),
            {"usrloc:rcv_requests": "incremental", "timestamp": "non-incremental"},
        )

    def test_reset(self) -> None:
        """Counters are set to zero, computed ones stay."""
        self.assertEqual(self.answer("reset_statistics", [["nosuch", "rcv_requests", "timestamp"]]), "OK")
        self.assertEqual(self.received.read(), 0)
        self.assertEqual(self.answer("get_statistics", [["timestamp"]]), {"core:timestamp": 18})
        self.received.inc()
        self.assertEqual(self.answer("reset_statistics", [["core:"]]), {"code": 404, "message": "Statistics Not Found"})
        self.assertEqual(self.received.read(), 1)
        self.assertEqual(self.answer("reset_all_statistics"), "OK")
        self.assertEqual(self.received.read(), 0)

    def test_which(self) -> None:
        """All names, those of a module, or the recipes of one command by any of its names."""
        names = self.answer("which")
        self.assertEqual(names, self.server.commands.names())
        self.assertEqual(names[:4], ["statistics:get", "statistics:list", "statistics:reset", "statistics:reset_all"])
        self.assertEqual(
            self.answer("which", ["core:"]),
            [f"core:{n}" for n in "uptime version pwd arg which ps kill log_level xlog_level reload_routes help".split()],
        )
        self.assertEqual(self.answer("which", ["log_level"]), [[], ["level"], ["level", "pid"]])
        self.assertEqual(self.answer("which", ["get_statistics"]), [["statistics"]])

    def test_help(self) -> None:
        """What a command does and whose it is; a name that several have is none."""
        self.assertEqual(self.answer("help", ["other:list"]), {"Help": "Lists things.", "Exported by": "other"})
        self.assertEqual(self.answer("help", ["get_statistics"])["Exported by"], "statistics")
        self.assertEqual(self.answer("help", ["list"]), {"code": 404, "message": "unknown MI command"})

    def test_process(self) -> None:
        """What the process says of itself is true."""
        self.assertEqual(self.answer("ps"), {"Processes": [{"ID": 0, "PID": os.getpid(), "Type": "attendant"}]})
        self.assertEqual(self.answer("pwd"), {"WD": os.getcwd()})
        self.assertEqual(self.answer("arg"), ["sipgw", "-c", "opensips.cfg"])
        self.assertEqual(
            self.answer("uptime"), {"Now": time.ctime(1018.5), "Up since": time.ctime(1000.0), "Up time": "18 [sec]"}
        )
        self.assertTrue(self.answer("version")["Server"].startswith("OpenSIPS (4.1.0 ("))

    def test_levels(self) -> None:
        """Levels are shown and set; of processes there is only this one."""
        self.assertEqual(
            self.answer("log_level"), {"Processes": [{"PID": os.getpid(), "Log level": 3, "Type": "attendant"}]}
        )
        self.assertEqual(self.answer("log_level", ["4"]), {"New global log level": 4})
        self.assertEqual(self.server.user.log_level, 4)
        self.assertEqual(self.answer("log_level", {"level": -1, "pid": os.getpid()}), {"Log level": -1})
        self.assertEqual(self.server.user.log_level, -1)
        self.assertEqual(
            self.answer("log_level", [1, os.getpid() + 1]),
            {"code": -32602, "message": "Invalid params", "data": "Bad PID"},
        )
        self.assertEqual(self.answer("xlog_level"), {"xLog Level": 2})
        self.assertEqual(self.answer("xlog_level", [5]), {"New xLog level": 5})
        self.assertEqual((self.server.user.log_level, self.server.user.xlog_level), (-1, 5))

    def test_reload(self) -> None:
        """A reload that fails tells why, and logs it."""
        self.assertEqual(self.answer("reload_routes"), "OK")
        self.server.reload_fault = ValueError("opensips.cfg:7: unknown function t_rely")
        self.assertEqual(
            self.answer("reload_routes"),
            {"code": 500, "message": "reload failed", "data": "opensips.cfg:7: unknown function t_rely"},
        )
        self.assertEqual(self.server.reloads, 2)
        self.assertIn("t_rely", self.server.user.lines[-1][1])

    def test_kill(self) -> None:
        """The server stops a moment after the answer."""
        self.assertEqual(self.answer("kill"), "OK")
        self.assertFalse(self.server.stopped)
        ((seconds, call),) = self.server.calls
        self.assertEqual(seconds, LAST_WORDS)
        call()
        self.assertTrue(self.server.stopped)

    def test_load(self) -> None:
        """A note of the load is taken each second, from the start on."""
        ((seconds, note),) = self.core.periodic()
        self.assertEqual(seconds, 1)
        before = len(self.core._load._notes)
        note()
        self.assertEqual(len(self.core._load._notes), before + 1)
        CoreCommands(FakeServer()).note_load()
