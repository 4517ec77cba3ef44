"""A server that only has what management commands ask for."""

from __future__ import annotations

from typing import Any

from sipgw.exports import Module
from sipgw.mi.commands import Commands
from sipgw.statistics import Statistics


class FakeUser:
    """The part of the transaction user that management commands see; what is logged stays in ``lines``."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.log_level = 3
        self.xlog_level = 2
        self.started = 1000.0
        self.running_timers = 0
        self.now = 1018.5
        self.sockets: list[Any] = []

    def log(self, level: int, text: str) -> None:
        self.lines.append((level, text))

    def wall_clock(self) -> float:
        return self.now


class FakeServer:
    """One server with the modules that a test adds."""

    def __init__(self, reactor: Any = None) -> None:
        self.user: Any = FakeUser()
        self.statistics = Statistics()
        self.commands: Any = Commands(self.user.log)
        self.modules: dict[str, Any] = {}
        self.reactor = reactor
        self.arguments = ["sipgw", "-c", "opensips.cfg"]
        self.consumers: dict[str, Any] = {}
        self.symbols: Any = None
        self.databases: Any = None
        self.log_taps: list[Any] = []
        self.stopped = False
        self.calls: list[tuple[float, Any]] = []
        self.reload_fault: Exception | None = None
        self.reloads = 0

    def add(self, module: Module) -> Any:
        """Load ``module`` as the loader does."""
        self.modules[module.name] = module
        self.commands.add(module)
        return module

    async def reload_routes(self) -> None:
        self.reloads += 1
        if self.reload_fault is not None:
            raise self.reload_fault

    def stop(self) -> None:
        self.stopped = True

    def later(self, seconds: float, call: Any) -> None:
        self.calls.append((seconds, call))
