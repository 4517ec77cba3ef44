"""The variables of tm: ``$T_*``, and those of its branches, ``$tm.branch.*`` and ``$bavp``."""

from __future__ import annotations

from typing import Any

from sipgw.exports import BRANCH, FAILURE, ONREPLY, Writable, function, pvar
from sipgw.modules._tm_base import TmBase
from sipgw.proxy import branch_variables
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Run, Value
from sipgw.script.symbols import RouteKind
from sipgw.script.variables_message import Index


class TmVariables(TmBase):
    """What scripts read of transactions and their branches."""

    @pvar("T_reply_code")
    def reply_code(self, run: Run) -> int:
        """``$T_reply_code``: the status that ``t_check_status`` looks at; 0 before any."""
        return self.status_of(run)

    @pvar("T_branch_idx")
    def branch_idx(self, run: Run) -> int | None:
        """``$T_branch_idx``: the number of the branch in a branch, reply or failure route (there, of the one that ended last)."""
        if run.transaction is None or run.kind not in (RouteKind.BRANCH, RouteKind.ONREPLY, RouteKind.FAILURE):
            return None
        return run.branch_index

    @pvar("T_ruri")
    def ruri(self, run: Run) -> str | None:
        """``$T_ruri``: the Request-URI of the current branch."""
        context = run.transaction
        if context is None:
            return run.uri or None
        if not context.branches:
            return None
        text: str = context.branches[min(run.branch_index, len(context.branches) - 1)].run.uri
        return text

    @pvar("T_id")
    def transaction_id(self, run: Run) -> str | None:
        """``$T_id``: a name of the transaction."""
        return None if run.transaction is None else self.name_of(run.transaction)

    @pvar("T_fr_timeout", set="set_fr_timeout")
    def get_fr_timeout(self, run: Run) -> int:
        """``$T_fr_timeout``: seconds this transaction waits for any answer."""
        context: ResponseContext | None = run.transaction
        return self.fr_timeout if context is None or context.fr_timeout is None else int(context.fr_timeout)

    def set_fr_timeout(self, run: Run, value: Any) -> None:
        """Set ``$T_fr_timeout`` for branches yet to be sent."""
        context = self.context(run)
        if context is not None:
            context.fr_timeout = None if value is None else int(value)

    @pvar("T_fr_inv_timeout", set="set_fr_inv_timeout")
    def get_fr_inv_timeout(self, run: Run) -> int:
        """``$T_fr_inv_timeout``: seconds this transaction waits for a final answer after a provisional one."""
        context: ResponseContext | None = run.transaction
        return self.fr_inv_timeout if context is None or context.fr_inv_timeout is None else int(context.fr_inv_timeout)

    def set_fr_inv_timeout(self, run: Run, value: Any) -> None:
        """Set ``$T_fr_inv_timeout``: in a reply route for the branches that ring, from now on."""
        context = self.context(run)
        if context is not None:
            context.set_invite_timeout(None if value is None else int(value))

    @pvar("T_branch_last_reply_code", indexed=True)
    def branch_last_reply_code(self, run: Run, index: Index) -> int | None:
        """``$T_branch_last_reply_code``: the last status of a branch, 408 or 503 if it was made up here; 0 before any."""
        branch = branch_variables.branch_at(run, index)
        return None if branch is None else branch.status

    # -- branches

    @pvar("bavp", set="set_bavp", replace="replace_bavp", named=True, indexed=True)
    def bavp(self, run: Run, name: str, index: Index) -> Value:
        """``$bavp(name)``: an AVP that each branch has for itself, in branch, reply and failure routes."""
        return branch_variables.read_bavp(run, name, index)

    def set_bavp(self, run: Run, name: str, index: Index, value: Value) -> bool:
        """``$bavp(name) = ...``: one more value."""
        return branch_variables.write_bavp(run, name, index, value)

    def replace_bavp(self, run: Run, name: str, index: Index, value: Value) -> bool:
        """``$bavp(name) := ...``: in place of all values."""
        return branch_variables.replace_bavp(run, name, index, value)

    @pvar("tm.branch.uri", indexed=True)
    def branch_uri(self, run: Run, index: Index) -> Value:
        """``$tm.branch.uri``: the Request-URI of a branch."""
        return branch_variables.read_branch(run, "uri", index)

    @pvar("tm.branch.duri", indexed=True)
    def branch_duri(self, run: Run, index: Index) -> Value:
        """``$tm.branch.duri``: where a branch was sent, if not to its Request-URI."""
        return branch_variables.read_branch(run, "duri", index)

    @pvar("tm.branch.path", indexed=True)
    def branch_path(self, run: Run, index: Index) -> Value:
        """``$tm.branch.path``: the Path of a branch."""
        return branch_variables.read_branch(run, "path", index)

    @pvar("tm.branch.q", indexed=True)
    def branch_q(self, run: Run, index: Index) -> Value:
        """``$tm.branch.q``: the q of a branch."""
        return branch_variables.read_branch(run, "q", index)

    @pvar("tm.branch.flags", indexed=True)
    def branch_flags(self, run: Run, index: Index) -> Value:
        """``$tm.branch.flags``: the names of the flags that are set for a branch."""
        return branch_variables.read_branch(run, "flags", index)

    @pvar("tm.branch.socket", indexed=True)
    def branch_socket(self, run: Run, index: Index) -> Value:
        """``$tm.branch.socket``: the socket of ours that a branch left by."""
        return branch_variables.read_branch(run, "socket", index)

    @pvar("tm.branch.last_received", indexed=True)
    def branch_last_received(self, run: Run, index: Index) -> Value:
        """``$tm.branch.last_received``: the status of the last reply that came for a branch."""
        return branch_variables.read_branch(run, "last_received", index)

    @pvar("tm.branch.type", indexed=True)
    def branch_type(self, run: Run, index: Index) -> Value:
        """``$tm.branch.type``: "sip", or "phony" for what waits for more branches (``t_wait_for_new_branches``)."""
        return branch_variables.read_branch(run, "type", index)

    @pvar("tm.branch.flag", set="set_branch_flag", named=True, indexed=True)
    def branch_flag(self, run: Run, name: str, index: Index) -> Value:
        """``$tm.branch.flag(name)``: whether a branch has a flag, 1 or 0."""
        return branch_variables.read_flag(run, name, index)

    def set_branch_flag(self, run: Run, name: str, index: Index, value: Value) -> bool:
        """``$tm.branch.flag(name) = 1``."""
        return branch_variables.write_flag(run, name, index, value)

    @pvar("tm.branch.attr", set="set_branch_attr", named=True, indexed=True)
    def branch_attr(self, run: Run, name: str, index: Index) -> Value:
        """``$tm.branch.attr(name)``: what the script noted about a branch, before (``$msg.branch.attr``) or after it was sent."""
        return branch_variables.read_attr(run, name, index)

    def set_branch_attr(self, run: Run, name: str, index: Index, value: Value) -> bool:
        """``$tm.branch.attr(name) = ...``: null forgets it."""
        return branch_variables.write_attr(run, name, index, value)

    @function(FAILURE | ONREPLY | BRANCH)
    def t_get_branch_idx_by_attr(
        self,
        run: Run,
        attr: str,
        val_str: str | None = None,
        val_int: int | None = None,
        result_var: Writable | None = None,
        offset: int | None = None,
    ) -> bool:
        """Whether a branch, from number ``offset`` on, has the attribute, with one of the values if any is given.

        ``result_var`` receives the branch's number, null if there is none."""
        wanted = tuple(value for value in (val_str, val_int) if value is not None)
        found = branch_variables.find_attr(run, attr, wanted, offset or 0)
        if result_var is not None:
            result_var.set(run, found)
        return found is not None
