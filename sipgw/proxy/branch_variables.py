"""The branches of a transaction as a script sees them: ``$tm.branch.*``, ``$bavp`` and ``$T_branch_last_reply_code``.

Without an index each means the current branch: in a branch route the one to be sent, in a reply route the one that answered, in
a failure route the one that ended last; elsewhere the first. Indexes count all branches of the transaction from 0, below 0 from
the end."""

from __future__ import annotations

from sipgw.proxy.client_branch import ClientBranch
from sipgw.script.run import Run, Value
from sipgw.script.symbols import RouteKind
from sipgw.script.values import SET, UNSET
from sipgw.script.variables import get_avp, replace_avp, set_avp
from sipgw.script.variables_branch import flag_text, read_field, socket_text
from sipgw.script.variables_message import Index
from sipgw.script.variables_uri import refuse


def current_branch(run: Run) -> ClientBranch | None:
    """The branch that ``run`` is about."""
    if run.branch is not None:
        found: ClientBranch = run.branch
        return found
    context = run.transaction
    if context is None or run.branch_index >= len(context.branches):
        return None
    found = context.branches[run.branch_index]
    return found


def branch_at(run: Run, index: Index) -> ClientBranch | None:
    """The branch at ``index``; None if there is none."""
    if index is None:
        return current_branch(run)
    context = run.transaction
    if context is None or not isinstance(index, int):
        return None
    branches: list[ClientBranch] = context.branches
    return branches[index] if -len(branches) <= index < len(branches) else None


def read_branch(run: Run, name: str, index: Index) -> Value:
    """A field of a branch that has been sent; null in a branch route, whose branch has not, where no index says another."""
    branch = branch_at(run, index)
    if branch is None:
        return None
    if name == "type":
        return branch.type
    if branch is run.branch and run.kind is RouteKind.BRANCH:
        return None
    if name == "last_received":
        return branch.received or None
    if name == "socket":
        return socket_text(branch.flow.socket) if branch.type == "sip" else None
    if name == "flags":
        return flag_text(run.user.branch_flags, _flags(run, branch))
    return read_field(branch.run, branch.run, name)


def _flags(run: Run, branch: ClientBranch) -> int:
    """The flags of ``branch``: in its own branch or reply route those of the run, which become the branch's in the end."""
    return run.branch_flags if branch is run.branch else branch.run.branch_flags


def read_flag(run: Run, name: str, index: Index) -> Value:
    """Whether a flag of a branch is set: 1 or 0, printed true or false."""
    branch = branch_at(run, index)
    if branch is None:
        return None
    return SET if _flags(run, branch) & run.user.branch_flags.find(name) else UNSET


def write_flag(run: Run, name: str, index: Index, value: Value) -> bool:
    """Set a flag of a branch, or clear it."""
    branch = branch_at(run, index)
    if branch is None or not isinstance(value, int):
        return refuse(run, f"a flag of branch {index} cannot be {value!r}")
    try:
        mask = run.user.branch_flags.mask(name)
    except ValueError as error:
        return refuse(run, str(error))
    flags = _flags(run, branch)
    holder = run if branch is run.branch else branch.run
    holder.branch_flags = flags | mask if value else flags & ~mask
    return True


def read_attr(run: Run, name: str, index: Index) -> Value:
    """What has been noted about a branch."""
    branch = branch_at(run, index)
    return None if branch is None or branch.attrs is None else branch.attrs.get(name)


def write_attr(run: Run, name: str, index: Index, value: Value) -> bool:
    """Note something about a branch; null forgets it."""
    branch = branch_at(run, index)
    if branch is None:
        return refuse(run, f"there is no branch {index}")
    if branch.attrs is None:
        branch.attrs = {}
    if value is None:
        branch.attrs.pop(name, None)
    else:
        branch.attrs[name] = value
    return True


def find_attr(run: Run, name: str, wanted: tuple[int | str, ...], first: int) -> int | None:
    """The number of the first branch from ``first`` on that has the attribute, with one of the values ``wanted`` if any.

    A number and its text are different values."""
    context = run.transaction
    if context is None:
        return None
    branches: list[ClientBranch] = context.branches
    for branch in branches[max(first, 0):]:
        value = None if branch.attrs is None else branch.attrs.get(name)
        if value is not None and (not wanted or any(value == one and type(value) is type(one) for one in wanted)):
            return branch.index
    return None


def _with_avps(run: Run) -> Run | None:
    """A run whose AVPs are those of the current branch; None where there is no branch to have any."""
    if run.kind not in (RouteKind.BRANCH, RouteKind.ONREPLY, RouteKind.FAILURE):
        return None
    branch = current_branch(run)
    if branch is None:
        return None
    if branch.bavps is None:
        branch.bavps = {}
    shelf = Run(run.message, run.kind, None, run.now, run.user)
    shelf.avps = branch.bavps
    shelf.line = run.line
    return shelf


def read_bavp(run: Run, name: str, index: Index) -> Value:
    """A value of an AVP that only this branch has; null outside of branch, reply and failure routes."""
    shelf = _with_avps(run)
    return None if shelf is None else get_avp(shelf, name, index)


def write_bavp(run: Run, name: str, index: Index, value: Value) -> bool:
    """Add a value to an AVP of this branch, as ``$avp`` does."""
    shelf = _with_avps(run)
    return refuse(run, "$bavp: there is no branch here") if shelf is None else set_avp(shelf, name, index, value)


def replace_bavp(run: Run, name: str, index: Index, value: Value) -> bool:
    """Give an AVP of this branch one value, in place of all that it has."""
    shelf = _with_avps(run)
    return refuse(run, "$bavp: there is no branch here") if shelf is None else replace_avp(shelf, name, index, value)
