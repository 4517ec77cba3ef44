"""Status and reports in scripts and by management commands (``core/status.py``), always there.

Where OpenSIPS answers ``sr_check_status`` for an identifier that is none with its least number, it is -1 here."""

from __future__ import annotations

import time
from typing import Any

from sipgw.core.status import ALL, MAIN, Group, Identifier
from sipgw.exports import Module, event, function, mi
from sipgw.mi.jsonrpc import MIError
from sipgw.script.run import Run

NO_GROUP = (404, "Group not found")


class CoreStatus(Module):
    """Tells which parts of the server are ready."""

    name = "core"

    status_changed = event("E_CORE_SR_STATUS_CHANGED", "group", "identifier", "status", "details", "old_status")

    @function()
    def sr_check_status(self, run: Run, group: str, identifier: str | None = None) -> int:
        """The status of a group's identifier ("main" if none is named; "all" of them together): negative if it is not ready."""
        found = run.user.status.find(group)
        if found is None:
            run.user.log(-1, f"sr_check_status: there is no status group {group!r}")
            return -1
        status: int | None = found.status(identifier or MAIN)
        if status is None:
            run.user.log(-1, f"sr_check_status: the status group {group} has no {identifier!r}")
            return -1
        return status

    @mi("get", module="status_report", alias="sr_get_status")
    def get(self, group: str, identifier: str = MAIN) -> dict[str, Any]:
        """Gives the status of an identifier, "main" unless named, or of "all" of a group together."""
        found = self._group(group)
        if identifier == ALL:
            status = found.status(ALL) or 0
            return {"Readiness": status > 0, "Status": status, "Details": "aggregated"}
        one = found.find(identifier)
        if one is None:
            raise MIError(404, "Identity not found")
        return _status(one)

    @mi("status", module="status_report", alias="sr_list_status")
    def list_status(self, group: str | None = None) -> list[dict[str, Any]]:
        """Lists the status of all identifiers, or of those of one group."""
        if group is None:
            return [{"Name": each.name, "Identifiers": _statuses(each)} for each in self.server.user.status.all()]
        return _statuses(self._group(group))

    @mi("reports", module="status_report", alias="sr_list_reports")
    def list_reports(self, group: str | None = None, identifier: str | None = None) -> list[dict[str, Any]]:
        """Lists the reports of all identifiers, of those of one group, or of one."""
        if group is None:
            return [{"Name": each.name, "Identifiers": _histories(each)} for each in self.server.user.status.all()]
        found = self._group(group)
        if identifier is None:
            return _histories(found)
        one = found.find(identifier)
        if one is None:
            raise MIError(404, "Identifier not found")
        return _reports(one)

    @mi("identifiers", module="status_report", alias="sr_list_identifiers")
    def list_identifiers(self, group: str | None = None) -> Any:
        """Lists the names of all identifiers, or of those of one group."""
        if group is None:
            return [_names(each) for each in self.server.user.status.all()]
        return _names(self._group(group))

    def _group(self, name: str) -> Group:
        found: Group | None = self.server.user.status.find(name)
        if found is None:
            raise MIError(*NO_GROUP)
        return found


def _status(one: Identifier) -> dict[str, Any]:
    shown: dict[str, Any] = {"Readiness": one.ready, "Status": one.status}
    return {**shown, "Details": one.details} if one.details else shown


def _statuses(group: Group) -> list[dict[str, Any]]:
    return [{"Name": one.name, **_status(one)} for one in group.all()]


def _reports(one: Identifier) -> list[dict[str, Any]]:
    return [
        {"Timestamp": int(report.time), "Date": time.ctime(report.time), "Log": report.text} for report in one.reports
    ]


def _histories(group: Group) -> list[dict[str, Any]]:
    return [{"Name": one.name, "Reports": _reports(one)} for one in group.all()]


def _names(group: Group) -> dict[str, Any]:
    return {"Group": group.name, "Identifiers": [one.name for one in group.all()]}
