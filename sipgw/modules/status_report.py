"""status_report: groups of status and reports that the script itself keeps."""

from __future__ import annotations

from sipgw.core.status import Identifier
from sipgw.exports import Module, function, param
from sipgw.script.run import Run


class StatusReport(Module):
    """Lets scripts have status groups of their own."""

    script_sr_group: str = param(None, "The name of one more group", each="add_group")

    def add_group(self, name: str) -> None:
        """Make a group; one that is not a script's already is refused."""
        if not name:
            raise ValueError("write the name of a group")
        self.server.user.status.group(name, public=True).identifier()

    @function()
    def sr_set_status(self, run: Run, group: str, status: int, details: str | None = None) -> bool:
        """Give a group of the script a new status: positive when it is ready, negative when it is not."""
        found = self._find(run, "sr_set_status", group)
        if found is None:
            return False
        found.set(status, details or "")
        return True

    @function()
    def sr_add_report(self, run: Run, group: str, report: str) -> bool:
        """Add a report to a group of the script."""
        found = self._find(run, "sr_add_report", group)
        if found is None:
            return False
        found.report(report)
        return True

    def _find(self, run: Run, function: str, name: str) -> Identifier | None:
        group = run.user.status.find(name)
        if group is None or not group.public:
            why = "there is no such status group" if group is None else "it is not a group of the script"
            run.user.log(-1, f"{function}: {name!r}: {why}")
            return None
        identifier: Identifier = group.identifier()
        return identifier
