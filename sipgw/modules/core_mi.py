"""The management commands of the core itself, answering as OpenSIPS does.

sipgw is one process: where OpenSIPS lists many, ``ps`` has the attendant and, with the same PID, what each socket would be
there; so tools that look for the receivers of a socket (opensips-cli's ``diagnose load``) find their load. What counts processes
says 1."""

from __future__ import annotations

import os
import platform
import sys
import time
from functools import partial
from typing import Any

from sipgw import __version__
from sipgw.core.measures import LOADS, Load, register_core_statistics
from sipgw.exports import Command, Module, every, mi
from sipgw.interfaces import Server
from sipgw.mi.jsonrpc import INVALID_PARAMS, MIError
from sipgw.statistics import Counter, Statistic

LAST_WORDS = 0.1
"""Seconds between ``kill`` and the end, for its answer to go out."""

AS_OPENSIPS = "4.1.0"
"""The version of OpenSIPS that sipgw follows."""

DATAGRAMS = ("udp", "hep_udp")
"""Transports without connections."""

UNKNOWN_COMMAND = "unknown MI command"


def receivers(user: Any) -> list[str]:
    """What OpenSIPS would call the processes that read our sockets: one for each datagram socket, one for all connections."""
    names = [f"SIP receiver {each}" for each in user.sockets if each.transport in DATAGRAMS]
    return [*names, "TCP main"] if len(names) < len(user.sockets) else names


class CoreCommands(Module):
    """What can be asked of a running server and told to it."""

    name = "core"

    def __init__(self, server: Server | None = None, **parameters: Any) -> None:
        super().__init__(server, **parameters)
        self._load: Load | None = None

    async def start(self) -> None:
        """Measure the process from now on."""
        load = self._load = register_core_statistics(self.server.statistics, self.server.user)
        for number, _ in enumerate(receivers(self.server.user), 1):
            for name, seconds in LOADS:
                self.server.statistics.gauge("load", f"{name}-proc-{number}", partial(load.over, seconds))

    @every(1)
    def note_load(self) -> None:
        """Take note of the processor time used."""
        if self._load is not None:
            self._load.note()

    # -- statistics

    @mi("get", module="statistics", alias="get_statistics")
    def get_statistics(self, statistics: list[str]) -> dict[str, int]:
        """Gives the values of statistics: "all", a group with its colon ("core:"), or single ones by their bare names."""
        values: dict[str, int] = {}
        for asked in statistics:
            for statistic in self.server.statistics if asked == "all" else self._statistics(asked):
                values[f"{statistic.group}:{statistic.name}"] = statistic.read()
        return values

    @mi("list", module="statistics", alias="list_statistics")
    def list_statistics(self, statistics: list[str] | None = None) -> dict[str, str]:
        """Lists the statistics there are, each with its type."""
        if statistics is None:
            return {f"{s.group}:{s.name}": _type(s) for s in self.server.statistics}
        types: dict[str, str] = {}
        for asked in statistics:
            for statistic in self._statistics(asked):
                types[f"{statistic.group}:{statistic.name}" if asked.endswith(":") else asked] = _type(statistic)
        return types

    @mi("reset", module="statistics", alias="reset_statistics")
    def reset_statistics(self, statistics: list[str]) -> None:
        """Sets counters, by their bare names, to zero."""
        found = [statistic for asked in statistics if not asked.endswith(":") for statistic in self._statistics(asked)]
        if not found:
            raise MIError(404, "Statistics Not Found")
        for statistic in found:
            statistic.reset()

    @mi("reset_all", module="statistics", alias="reset_all_statistics")
    def reset_all_statistics(self) -> None:
        """Sets all counters to zero."""
        for statistic in self.server.statistics:
            statistic.reset()

    def _statistics(self, asked: str) -> list[Statistic]:
        """The statistics of a group (``core:``), or the one of a bare name; COMPAT: ``core:timestamp`` names none."""
        if asked.endswith(":"):
            return self.server.statistics.group(asked[:-1])
        found = None if ":" in asked else self.server.statistics.find(asked)
        return [] if found is None else [found]

    # -- the process

    @mi()
    def uptime(self) -> dict[str, str]:
        """Gives the time, when the server was started, and for how long it runs."""
        user = self.server.user
        now = user.wall_clock()
        return {
            "Now": time.ctime(now),
            "Up since": time.ctime(user.started),
            "Up time": f"{int(now - user.started)} [sec]",
        }

    @mi()
    def version(self, revision: Any = None) -> dict[str, str]:
        """Gives the version of the server: first that of the OpenSIPS whose scripts, commands and tables these are, since tools
        read from it what they may ask (opensips-cli). There is no revision to add: what runs is a release."""
        return {"Server": f"OpenSIPS ({AS_OPENSIPS} ({platform.machine()}/{sys.platform})), by sipgw {__version__}"}

    @mi()
    def pwd(self) -> dict[str, str]:
        """Gives the directory in which the server runs."""
        return {"WD": os.getcwd()}

    @mi()
    def arg(self) -> list[str]:
        """Lists the arguments with which the server was started."""
        return list(self.server.arguments)

    @mi()
    def which(self, command: str | None = None) -> list[Any]:
        """Lists all commands, those of one module ("core:"), or the parameters that one command takes."""
        if command is None:
            return self.server.commands.names()
        if not command.endswith(":"):
            return self._find(command).recipes
        names = [name for name in self.server.commands.names() if name.startswith(command)]
        if not names:
            raise MIError(404, UNKNOWN_COMMAND)
        return names

    @mi()
    def ps(self) -> dict[str, list[dict[str, Any]]]:
        """Lists the attendant, and what receives at each socket: all of them are this one process."""
        types = ["attendant", *receivers(self.server.user)]
        return {"Processes": [{"ID": number, "PID": os.getpid(), "Type": name} for number, name in enumerate(types)]}

    @mi()
    def kill(self) -> None:
        """Shuts the server down in good order."""
        self.server.user.log(2, "asked to stop by the management command kill")
        self.server.later(LAST_WORDS, self.server.stop)

    @mi()
    def log_level(self, level: int | None = None, pid: int | None = None) -> dict[str, Any]:
        """Gives the log level, or sets it."""
        user = self.server.user
        if level is None:
            return {"Processes": [{"PID": os.getpid(), "Log level": user.log_level, "Type": "attendant"}]}
        if pid is not None and pid != os.getpid():
            raise MIError(INVALID_PARAMS, data="Bad PID")
        user.log_level = level
        return {"New global log level" if pid is None else "Log level": level}

    @mi()
    def xlog_level(self, level: int | None = None) -> dict[str, int]:
        """Gives the level of the script's own log lines (xlog), or sets it."""
        if level is None:
            return {"xLog Level": self.server.user.xlog_level}
        self.server.user.xlog_level = level
        return {"New xLog level": level}

    @mi()
    async def reload_routes(self) -> None:
        """Reads the routes of the configuration again; messages under way end on the old ones."""
        try:
            await self.server.reload_routes()
        except Exception as error:
            self.server.user.log(-1, f"the routes were not reloaded: {error}")
            raise MIError(500, "reload failed", str(error)) from None

    @mi()
    def help(self, mi_cmd: str | None = None) -> str | dict[str, str]:
        """Tells what a command does."""
        if mi_cmd is None:
            return "help mi_cmd: tells what the command of that name does"
        command = self._find(mi_cmd)
        return {"Help": command.help, "Exported by": command.module}

    def _find(self, name: str) -> Command:
        try:
            return self.server.commands.find(name)
        except MIError:
            raise MIError(404, UNKNOWN_COMMAND) from None


def _type(statistic: Statistic) -> str:
    return "incremental" if isinstance(statistic, Counter) else "non-incremental"
