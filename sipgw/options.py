"""The command line of ``twistd sipgw``: the letters are OpenSIPS's where it has them.

The file is read here already, so that its faults are told before anything runs. Nothing here, nor in ``service.py``, imports a
reactor at its top: ``twistd --reactor`` chooses it. No module needs a particular one (docs/decisions, 0030)."""

from __future__ import annotations

from typing import Any

from twisted.python import usage

from sipgw.configuration import Reading, read_configuration
from sipgw.first_start import DEFAULT


class Options(usage.Options):
    """What ``twistd sipgw`` takes."""

    synopsis = "[-c opensips.cfg] [options]"
    longdesc = "Runs an opensips.cfg as it is. Without -c it runs what `sipgw config` prints, which keeps users in a database."

    optParameters = [
        ["config", "c", None, "The script to run, an opensips.cfg [default: the one that sipgw ships]"],
        ["preprocessor", "p", None, "Send the script through this command first, such as 'm4 -P'"],
        ["database", None, None, "The URL of the database that modules use by default, instead of the script's db_default_url"],
        ["advertised", None, None, "The address to advertise, instead of the script's advertised_address (OpenSIPS's -A)"],
        ["log-file", None, None, "Write the log to this file; SIGUSR1 opens it anew after it was moved away"],
        ["log-fold", None, 20, "How often a second a line of the script may log the same; more is counted (0: never)", int],
        ["log-level", None, None, "-3 (alert) to 4 (debug), instead of the script's log_level and xlog_level", int],
    ]
    optFlags = [
        ["check", None, "Compile the script, report, and leave with 0 or 1"],
        ["log-json", None, "Write each line of the log as a JSON object"],
        ["no-call-ids", None, "Do not begin lines of the log with the Call-ID of the message that is handled"],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["sockets"] = []
        self["defines"] = {}
        self.reading: Reading | None = None
        """What was read; None before ``postOptions``."""

    def opt_socket(self, text: str) -> None:
        """Listen on proto:host:port instead of the script's sockets (OpenSIPS's -l); may be repeated"""
        self["sockets"].append(text)

    def opt_define(self, text: str) -> None:
        """name=value: what the script reads as $argv(name); may be repeated"""
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise usage.UsageError(f"-o {text}: write name=value")
        self["defines"][name] = value

    opt_o = opt_define

    def postOptions(self) -> None:
        """Read the script."""
        if self["config"] is None:
            self["config"] = DEFAULT
        level = self["log-level"]
        if level is not None and not -3 <= level <= 4:
            raise usage.UsageError(f"--log-level {level}: between -3 and 4")
        if self["log-fold"] < 0:
            raise usage.UsageError(f"--log-fold {self['log-fold']}: a number of lines a second, or 0")
        self.reading = read_configuration(self["config"], self["preprocessor"], self["sockets"])
        if self["config"] == DEFAULT and not self["database"] and not self["check"]:
            self._prepare()

    def _prepare(self) -> None:
        """Have the database that the shipped configuration needs."""
        from sipgw.db.errors import DatabaseError
        from sipgw.first_start import prepare

        try:
            self["database"] = prepare()
        except DatabaseError as error:
            raise usage.UsageError(str(error)) from None

    def logs_elsewhere(self) -> bool:
        """Whether twistd itself was told where to log."""
        twistd: Any = self.parent or {}
        return any(twistd.get(name) for name in ("logfile", "syslog", "logger"))

    def in_foreground(self) -> bool:
        """Whether ``twistd -n`` runs, or nothing of twistd."""
        twistd: Any = self.parent
        return twistd is None or bool(twistd.get("nodaemon") or twistd.get("debug"))
