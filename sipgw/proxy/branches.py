"""The destination set of a request before it is relayed: parallel branches, and sets to be tried one after another.

Branch 0 of a script is the Request-URI with all that belongs to it (``$du``, q, flags, path, socket), which are attributes of
the ``Run``; the others are ``run.branches``. The functions that move branches count like OpenSIPS's: there -1 is the
Request-URI and 0 the first of ``run.branches``.

``serialize`` puts branches aside in the AVP ``serial_branch``, one text each, the newest value first to be tried; ``next_set``
takes them back, group by group."""

from __future__ import annotations

import re

from sipgw.script.run import Branch, Run
from sipgw.sip.address import NameAddr, parse_list
from sipgw.sip.errors import MalformedMessage
from sipgw.sip.uri import Uri

MAX_BRANCHES = 12
"""How many branches a request may have, the Request-URI included (OpenSIPS's MAX_BRANCHES)."""

SERIAL_AVP = "serial_branch"

_q_value = re.compile(r"(?:0(?:\.([0-9]*))?|1(?:\.0*)?)\Z").match


def parse_q(text: str) -> int:
    """A q value as thousandths, digits beyond the third left out; ``ValueError`` if it is none."""
    match = _q_value(text)
    if match is None:
        raise ValueError(f"bad q value {text!r}: write 0 to 1, such as 0.7")
    if text[0] == "1":
        return 1000
    return int((match[1] or "")[:3].ljust(3, "0"))


def main_branch(run: Run) -> Branch:
    """The Request-URI and what belongs to it, as a branch."""
    branch = Branch(run.uri, run.dst_uri, run.path, run.q, run.branch_flags, run.send_socket)
    branch.attrs = run.attrs
    return branch


_TOLD = ("uri", "received", "path", "qval", "socket", "bflags")
"""The AVPs of a contact, named as the parameters of usrloc's events."""


def told_branch(run: Run) -> Branch | None:
    """The contact that an event of usrloc told of, whose parameters are AVPs now, as a branch; None, with an error logged, if
    they are not those of a contact."""
    said = {name: run.avps[name][-1] for name in _TOLD if run.avps.get(name)}
    missing = [name for name in _TOLD if name not in said]
    try:
        if missing:
            raise ValueError(f"there is no $avp({missing[0]})")
        uri, received, path, socket = (str(said[name]) for name in ("uri", "received", "path", "socket"))
        Uri.parse(uri)
        next_hop = NameAddr.parse(parse_list(path)[0]).uri_text if path else received
        q, flags = int(said["qval"]), int(said["bflags"])
    except (ValueError, MalformedMessage) as error:
        run.user.log(-1, f"t_inject_branches: no contact is told of: {error}")
        return None
    return Branch(uri, next_hop or None, path or None, q, flags, run.user.find_socket(socket) if socket else None)


def set_main(run: Run, branch: Branch) -> None:
    """Make ``branch`` the Request-URI of ``run``."""
    run.uri = branch.uri
    run.dst_uri = branch.dst_uri
    run.path = branch.path
    run.q = branch.q
    run.branch_flags = branch.flags
    run.send_socket = branch.socket
    run.attrs = branch.attrs


def append(run: Run, branch: Branch) -> bool:
    """Add one branch; False, with an error logged, if there are too many or its URI cannot be read."""
    if len(run.branches) >= MAX_BRANCHES - 1:
        run.user.log(-1, f"no branch for {branch.uri}: a request has at most {MAX_BRANCHES}")
        return False
    try:
        Uri.parse(branch.uri)
    except MalformedMessage as error:
        run.user.log(-1, f"no branch for {branch.uri!r}: {error.reason}")
        return False
    run.branches.append(branch)
    return True


def _get(run: Run, index: int) -> Branch:
    return main_branch(run) if index < 0 else run.branches[index]


def _put(run: Run, index: int, branch: Branch) -> None:
    if index < 0:
        set_main(run, branch)
    else:
        run.branches[index] = branch


def _copy(branch: Branch) -> Branch:
    made = Branch(branch.uri, branch.dst_uri, branch.path, branch.q, branch.flags, branch.socket)
    if branch.attrs is not None:
        made.attrs = dict(branch.attrs)
    return made


def _exist(run: Run, one: int, other: int) -> bool:
    if max(one, other) < len(run.branches):
        return True
    run.user.log(-1, f"no such branch: {max(one, other)}, there are {len(run.branches)}")
    return False


def move(run: Run, source: int, target: int, keep: bool) -> bool:
    """Put branch ``source`` over branch ``target`` (below 0: the Request-URI); unless ``keep``, it leaves its old place."""
    if not _exist(run, source, target):
        return False
    if max(source, -1) == max(target, -1):
        return True
    _put(run, target, _copy(_get(run, source)))
    if not keep and source >= 0:
        del run.branches[source]
    return True


def swap(run: Run, one: int, other: int) -> bool:
    """Exchange two branches (below 0: the Request-URI)."""
    if not _exist(run, one, other):
        return False
    first, second = _get(run, one), _get(run, other)
    _put(run, one, second)
    _put(run, other, first)
    return True


def serialize(run: Run, clear: bool, keep_order: bool) -> None:
    """Take all branches out of ``run``, to be tried in order of q: ``next_set`` gives them back.

    Those of equal q form one group (RFC 3261 16.6 allows to try them in parallel). With ``keep_order`` they are tried one by
    one as they stand. ``clear`` forgets what an earlier call left. A request with one destination is left alone."""
    if clear:
        run.avps.pop(SERIAL_AVP, None)
    if not run.branches:
        return
    queue = [main_branch(run), *run.branches]
    run.branches = []
    if not keep_order:
        queue.sort(key=lambda branch: branch.q, reverse=True)
    texts: list[int | str] = []
    for branch, after in zip(queue, [*queue[1:], None], strict=True):
        ends = keep_order or after is None or after.q != branch.q
        texts.append(_write(branch, ends))
    run.avps.setdefault(SERIAL_AVP, []).extend(reversed(texts))


def next_set(run: Run) -> int:
    """Make the next group that ``serialize`` put aside the Request-URI and branches of ``run``.

    2: it was the last one; 1: there are more; -1: there was none."""
    values = run.avps.get(SERIAL_AVP)
    if not values:
        return -1
    first = True
    ends = False
    while values and not ends:
        branch, ends = _read(run, str(values.pop()))
        if first:
            set_main(run, branch)
            first = False
        elif not append(run, branch):
            break
    if values:
        return 1
    del run.avps[SERIAL_AVP]
    return 2


def _write(branch: Branch, ends: bool) -> str:
    """A branch as one line of text; no URI has a blank in it."""
    socket = branch.socket
    name = "" if socket is None else f"{socket.transport}:{socket.host}:{socket.port}"
    path = (branch.path or "").replace(" ", "")
    return f"{branch.uri} {branch.dst_uri or ''} {path} {branch.q} {branch.flags} {name} {int(ends)}"


def _read(run: Run, text: str) -> tuple[Branch, bool]:
    """The branch that ``_write`` wrote, and whether it ends its group; a text that a script put there is a bare URI."""
    parts = text.split(" ")
    if len(parts) != 7:
        return Branch(text), True
    uri, dst_uri, path, q, flags, socket, ends = parts
    found = run.user.find_socket(socket) if socket else None
    return Branch(uri, dst_uri or None, path or None, int(q), int(flags), found), ends == "1"
