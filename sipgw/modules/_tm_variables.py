"""The variables of tm: ``$T_*``, and those of its branches, ``$tm.branch.*`` and ``$bavp``."""

from __future__ import annotations

from typing import Any

from sipgw.exports import pvar
from sipgw.modules._tm_base import TmBase
from sipgw.proxy.responses import ResponseContext
from sipgw.script.run import Run


class TmVariables(TmBase):
    """What scripts read of transactions and their branches."""

    @pvar("T_reply_code")
    def reply_code(self, run: Run) -> int:
        """``$T_reply_code``: the status that ``t_check_status`` looks at; 0 before any."""
        return self.status_of(run)

    @pvar("T_branch_idx")
    def branch_idx(self, run: Run) -> int | None:
        """``$T_branch_idx``: the number of the branch in a branch, reply or failure route."""
        return None if run.transaction is None else run.branch_index

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
        return None if run.transaction is None else run.user.mark(run.transaction.server.key)

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
        """Set ``$T_fr_inv_timeout`` for branches yet to be sent."""
        context = self.context(run)
        if context is not None:
            context.fr_inv_timeout = None if value is None else int(value)
