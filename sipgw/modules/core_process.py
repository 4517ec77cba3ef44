"""The management commands about the process itself: where its log goes, what its memory holds, what it does with its time; and
the events that tell of memory that runs out.

sipgw is one process, and its shared and its private memory are the same: what the kernel keeps resident for it, of what it may
grow to (``core/measures.py``). The provisioning framework (``pi_framework``) is not part of it."""

from __future__ import annotations

import gc
import os
from typing import Any

from sipgw.core.census import census
from sipgw.core.measures import memory_limit, resident
from sipgw.core.profiling import Profiling, ScriptProfile
from sipgw.exports import Module, event, every, mi
from sipgw.interfaces import LogConsumer, Server
from sipgw.mi.jsonrpc import INVALID_PARAMS, MIError


class CoreProcess(Module):
    """What can be asked of the process and told to it."""

    name = "core"

    shared_memory = event("E_CORE_SHM_THRESHOLD", "usage", "threshold", "used", "size")
    private_memory = event("E_CORE_PKG_THRESHOLD", "usage", "threshold", "used", "size", "pid")
    profile = event(
        "E_PROFILING_PROC", "sec", "usec", "session", "verb", "name", "type", "depth", "file", "line", "status"
    )

    script_profile = event(
        "E_PROFILING_SCRIPT", "sec", "usec", "session", "verb", "name", "type", "depth", "file", "line", "status"
    )

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._limit = memory_limit()
        self._told: dict[str, int] = {}
        if server is not None:
            self._profiling = Profiling(server.user, server.commands, self.profile)
            self._script = ScriptProfile(server.user, self.script_profile)

    async def start(self) -> None:
        """Tell of the script from the beginning, if it wants to hear of itself."""
        self._script.follow()

    @every(1)
    def profile_script(self) -> None:
        """See whether somebody wants to hear of the script now, and whether it is another one."""
        self._script.follow()

    # -- the log

    @mi()
    def log_level_filter(self, consumer: str, level_filter: int | None = None) -> dict[str, int] | None:
        """Gives the highest level of the lines that go to stderror, syslog or event (0: any), or sets it."""
        found = self._consumer(consumer)
        if level_filter is None:
            return {"Log level filter": found.filter}
        found.filter = level_filter
        return None

    @mi()
    def log_mute_state(self, consumer: str, mute_state: int | None = None) -> dict[str, int] | None:
        """Tells whether lines go to stderror, syslog or event (0) or not (1), or changes it."""
        found = self._consumer(consumer)
        if mute_state is None:
            return {"mute state": found.muted}
        if not mute_state and found.absent:
            raise MIError(500, "Log consumer not available", found.absent)
        found.muted = mute_state
        return None

    def _consumer(self, name: str) -> LogConsumer:
        found = self.server.consumers.get(name)
        if found is None:
            raise MIError(404, "Unknown log consumer")
        return found

    # -- the provisioning framework

    @mi()
    def pi_list(self) -> None:
        """Lists the provisioning framework, which sipgw does not have."""
        raise MIError(503, "No PI transport is available")

    @mi()
    def pi_reload(self) -> None:
        """Reads the provisioning framework again, which sipgw does not have."""
        raise MIError(503, "No PI transport is available")

    # -- memory

    @mi("pkg_dump", module="mem", alias="mem_pkg_dump")
    async def pkg_dump(self, pid: int, log_level: int | None = None) -> None:
        """Writes to the log which objects there are, at the level of the global memdump unless said."""
        if pid != os.getpid():
            raise MIError(404, "Process not found")
        await self._dump(log_level)

    @mi("shm_dump", module="mem", alias="mem_shm_dump")
    async def shm_dump(self, log_level: int | None = None) -> None:
        """Writes to the log which objects there are, at the level of the global memdump unless said."""
        await self._dump(log_level)

    @mi("rpm_dump", module="mem", alias="mem_rpm_dump")
    def rpm_dump(self, log_level: int | None = None) -> None:
        """Writes to the log what memory is kept over a restart: none."""
        self._log(log_level, ["memory: none is kept over a restart"])

    @mi("shm_check", module="mem", alias="mem_shm_check")
    def shm_check(self) -> dict[str, int]:
        """Looks for objects that the garbage collector has found and cannot free."""
        if gc.garbage:
            raise MIError(500, f"{len(gc.garbage)} objects cannot be freed")
        return {}

    async def _dump(self, level: int | None) -> None:
        user = self.server.user
        if self._level(level) <= user.log_level:
            self._log(level, await census(user.after))

    def _level(self, level: int | None) -> int:
        return int(self.server.user.globals.get("memdump") or 0) if level is None else level

    def _log(self, level: int | None, lines: list[str]) -> None:
        user, number = self.server.user, self._level(level)
        if number <= user.log_level:
            for line in lines:
                user.log(number, line)

    @every(1)
    def watch_memory(self) -> None:
        """Tell of memory used beyond ``event_shm_threshold`` or ``event_pkg_threshold``, each time the percentage changes."""
        for name, told in (("event_shm_threshold", self.shared_memory), ("event_pkg_threshold", self.private_memory)):
            threshold = self.server.user.globals.get(name) or 0
            if not threshold:
                continue
            used = resident()
            usage = used * 100 // self._limit
            if usage >= threshold and usage != self._told.get(name):
                values = {"usage": usage, "threshold": threshold, "used": used, "size": self._limit}
                if told is self.private_memory:
                    values["pid"] = self.server.user.pid
                told.emit(**values)
            self._told[name] = usage

    # -- time

    @mi(recipes=((), ("id",), ("pid",), ("level",), ("id", "level"), ("pid", "level")))
    def profiling_proc(self, id: int | None = None, pid: int | None = None, level: int | None = None) -> dict[str, Any] | None:
        """Gives the level of profiling, or sets it: 0 off, 1 messages, 2 management commands too, 3 timers too."""
        if id not in (None, 0):
            raise MIError(INVALID_PARAMS, data="Bad process ID")
        if pid not in (None, os.getpid()):
            raise MIError(INVALID_PARAMS, data="Bad PID")
        if level is None:
            entry = {"ID": 0, "PID": os.getpid(), "Profiling level": self._profiling.level, "Type": "attendant"}
            return {"Processes": [entry]}
        self._profiling.set(level)
        return None
