"""Variables of the destinations: ``$msg.branch.*``, the older ``$branch``, ``$ds``, the flags, and the sockets.

``$msg.branch.uri`` counts the Request-URI as 0 and means the last branch without an index; ``$branch(uri)`` counts only what was
appended. Below 0 both count from the end. The Request-URI's own ``$du``, q, flags... are attributes of the ``Run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sipgw.script.run import Branch, FlagNames, Run, Value
from sipgw.script.symbols import Variable
from sipgw.script.values import SET, UNSET
from sipgw.script.variables_message import Index
from sipgw.script.variables_uri import refuse, set_du, set_ru
from sipgw.sip.errors import SipError
from sipgw.sip.grammar import ipv6_groups
from sipgw.sip.uri import Uri

MAX_BRANCHES = 12
"""How many branches a request may have, the Request-URI included."""

# ---- what a branch has, whether it is the Request-URI (a Run) or another ----


def _uri(branch: Run | Branch) -> Value:
    return branch.uri or None


def _duri(branch: Run | Branch) -> Value:
    return branch.dst_uri


def _path(branch: Run | Branch) -> Value:
    return branch.path or None


def _q(branch: Run | Branch) -> Value:
    return "" if branch.q < 0 else write_q(branch.q)


def write_q(q: int) -> str:
    """Thousandths as a q value: 500 is 0.5."""
    return f"{q // 1000}.{q % 1000:03}".rstrip("0").rstrip(".")


def _flags(branch: Run | Branch, run: Run) -> int:
    return run.branch_flags if isinstance(branch, Run) else branch.flags


def _socket(branch: Run | Branch) -> Any:
    return branch.send_socket if isinstance(branch, Run) else branch.socket


def socket_text(socket: Any) -> str:
    """A socket as scripts write it: udp:127.0.0.1:5060."""
    if socket.transport == "bond":
        return f"bond:{socket.host}"
    return f"{socket.transport}:{bracketed(socket.host)}:{socket.port}"


def bracketed(host: str) -> str:
    """An IPv6 address in brackets, anything else as it is."""
    return f"[{host}]" if ":" in host and host[0] != "[" and ipv6_groups(host) is not None else host


def read_field(run: Run, branch: Run | Branch, name: str) -> Value:
    """One field of a branch."""
    if name == "flags":
        return flag_text(run.user.branch_flags, _flags(branch, run))
    if name == "socket":
        socket = _socket(branch)
        return None if socket is None else socket_text(socket)
    return {"uri": _uri, "duri": _duri, "path": _path, "q": _q}[name](branch)


def flag_text(names: FlagNames, mask: int) -> str:
    """The names of the flags that are set, the last declared first."""
    return " ".join(reversed(names.names(mask)))


def _is_uri(run: Run, text: Value, what: str) -> bool:
    if not isinstance(text, str):
        return refuse(run, f"{what} can only be a string")
    try:
        Uri.parse(text)
    except SipError as error:
        return refuse(run, f"{what} cannot be {text!r}: {error}")
    return True


def _set_uri(run: Run, branch: Run | Branch, value: Value) -> bool:
    if isinstance(branch, Run):
        return set_ru(run, value)
    if not _is_uri(run, value, "the URI of a branch"):
        return False
    branch.uri = str(value)
    return True


def _set_duri(run: Run, branch: Run | Branch, value: Value) -> bool:
    if isinstance(branch, Run):
        return set_du(run, value)
    if value and not _is_uri(run, value, "the next hop of a branch"):
        return False
    branch.dst_uri = str(value) if value else None
    return True


def _set_path(run: Run, branch: Run | Branch, value: Value) -> bool:
    if isinstance(value, int) or (value and ("\r" in value or "\n" in value)):
        return refuse(run, "the path of a branch can only be a string of one line")
    branch.path = value or None
    return True


def _set_q(run: Run, branch: Run | Branch, value: Value) -> bool:
    if not isinstance(value, int):
        return refuse(run, "the q of a branch can only be a number, 0 to 1000")
    branch.q = max(-1, min(value, 1000))
    return True


def _set_flags(run: Run, branch: Run | Branch, value: Value) -> bool:
    """All flags at once: their names with blanks between, or null for none."""
    names: FlagNames = run.user.branch_flags
    mask = 0
    try:
        for name in str(value or "").split():
            mask |= names.mask(name)
    except ValueError as error:
        return refuse(run, str(error))
    _put_flags(run, branch, mask)
    return True


def _put_flags(run: Run, branch: Run | Branch, mask: int) -> None:
    if isinstance(branch, Run):
        branch.branch_flags = mask
    else:
        branch.flags = mask


def _find_socket(run: Run, value: Value, old: Any) -> tuple[bool, Any]:
    """The socket that a value names, None for null; False if it is no text. One that is not ours changes nothing."""
    if value is None:
        return True, None
    if not isinstance(value, str):
        return refuse(run, "a socket can only be a string"), None
    found = run.user.find_socket(value)
    if found is None:
        refuse(run, f"{value!r} is not a socket of ours")
    return True, found or old


def _set_socket(run: Run, branch: Run | Branch, value: Value) -> bool:
    sound, socket = _find_socket(run, value, _socket(branch))
    if sound and isinstance(branch, Run):
        branch.send_socket = socket
    elif sound and isinstance(branch, Branch):
        branch.socket = socket
    return sound


WRITERS: dict[str, Callable[[Run, Run | Branch, Value], bool]] = {
    "uri": _set_uri,
    "duri": _set_duri,
    "path": _set_path,
    "q": _set_q,
    "flags": _set_flags,
    "socket": _set_socket,
}

# ---- which branch ----


def branch_at(run: Run, index: Index, first: int = 0, default: int = -1) -> Run | Branch | None:
    """The branch of an index. ``first``: the number of the first branch that counts; ``default``: where none is written."""
    total = len(run.branches) + 1 - first
    place = default if index is None else index
    if not isinstance(place, int) or not -total <= place < total:
        return None
    place += first + (total if place < 0 else 0)
    return run if place == 0 else run.branches[place - 1]


def _read(run: Run, name: str, index: Index, first: int) -> Value:
    if index == "*":
        branches: tuple[Run | Branch, ...] = (run, *run.branches)
        texts = [str(value if (value := read_field(run, branch, name)) is not None else "") for branch in branches[first:]]
        return ", ".join(texts) if texts else None
    branch = branch_at(run, index, first)
    return None if branch is None else read_field(run, branch, name)


def _write(run: Run, name: str, index: Index, value: Value, first: int) -> bool:
    branch = branch_at(run, index, first, -1 if first == 0 else 0)
    if branch is None:
        return refuse(run, f"there is no branch {index}")
    return WRITERS[name](run, branch, value)


def _new_branch(run: Run, value: Value) -> bool:
    """``$msg.branch = uri``: one more branch."""
    if not _is_uri(run, value, "the URI of a branch"):
        return False
    if len(run.branches) >= MAX_BRANCHES - 1:
        return refuse(run, f"a request has at most {MAX_BRANCHES} branches")
    run.branches.append(Branch(str(value)))
    return True


def _first_branch(run: Run) -> Value:
    return run.branches[0].uri if run.branches else None


def _field(name: str) -> Variable:
    def get(run: Run, index: Index) -> Value:
        return _read(run, name, index, 0)

    def put(run: Run, index: Index, value: Value) -> bool:
        return _write(run, name, index, value, 0)

    return Variable(f"msg.branch.{name}", get, put, takes_index=True)


def get_old_branch(run: Run, name: str, index: Index) -> Value:
    """``$branch(uri)``: a field of what was appended."""
    return _read(run, name, index, 1) if name in WRITERS else None


def set_old_branch(run: Run, name: str, index: Index, value: Value) -> bool:
    """``$branch(uri) = ...``."""
    if name not in WRITERS:
        return refuse(run, f"a branch has no {name!r}")
    return _write(run, name, index, value, 1)


def check_branch_field(name: str) -> None:
    """Refuse what a branch does not have."""
    if name not in WRITERS:
        raise ValueError(f"a branch has no {name!r}; it has {', '.join(WRITERS)}")


def get_branch_flag(run: Run, name: str, index: Index) -> Value:
    """``$msg.branch.flag(name)``."""
    branch = branch_at(run, index)
    if branch is None:
        return None
    return SET if _flags(branch, run) & run.user.branch_flags.find(name) else UNSET


def set_branch_flag(run: Run, name: str, index: Index, value: Value) -> bool:
    """``$msg.branch.flag(name) = 1``."""
    branch = branch_at(run, index)
    if branch is None or not isinstance(value, int):
        return refuse(run, f"a flag of branch {index} cannot be {value!r}")
    try:
        mask = run.user.branch_flags.mask(name)
    except ValueError as error:
        return refuse(run, str(error))
    flags = _flags(branch, run)
    _put_flags(run, branch, flags | mask if value else flags & ~mask)
    return True


def get_attr(run: Run, name: str, index: Index) -> Value:
    """``$msg.branch.attr(name)``: what a script or module notes about a branch."""
    branch = branch_at(run, index)
    return None if branch is None or branch.attrs is None else branch.attrs.get(name)


def set_attr(run: Run, name: str, index: Index, value: Value) -> bool:
    """``$msg.branch.attr(name) = ...``: null forgets it."""
    branch = branch_at(run, index)
    if branch is None:
        return refuse(run, f"there is no branch {index}")
    attrs = dict(branch.attrs or {})
    if value is None:
        attrs.pop(name, None)
    else:
        attrs[name] = value
    branch.attrs = attrs
    return True


def get_ds(run: Run) -> Value:
    """``$ds``: the destinations as a Contact header; the Request-URI is one if it was changed."""
    found: list[Run | Branch] = [run] if run.uri != getattr(run.message, "uri", "") else []
    found += run.branches
    texts = [f"<{branch.uri}>" + (f";q={write_q(branch.q)}" if branch.q >= 0 else "") for branch in found]
    return f"Contact: {', '.join(texts)}" if texts else None


# ---- flags of the message ----


def get_flag(run: Run, name: str) -> Value:
    """``$msg.flag(name)``: 1 or 0, printed true or false."""
    return SET if run.flags & run.user.message_flags.find(name) else UNSET


def set_flag(run: Run, name: str, value: Value) -> bool:
    """``$msg.flag(name) = 1``."""
    if not isinstance(value, int):
        return refuse(run, "$msg.flag can only be a number")
    try:
        mask = run.user.message_flags.mask(name)
    except ValueError as error:
        return refuse(run, str(error))
    run.flags = run.flags | mask if value else run.flags & ~mask
    return True


# ---- sockets ----

SOCKET_FIELDS: dict[str, Callable[[Any], Value]] = {
    "ip": lambda socket: f"[{socket.host}]" if ":" in socket.host else socket.host,
    "port": lambda socket: socket.port,
    "proto": lambda socket: socket.transport,
    "advertised_ip": lambda socket: socket.advertised_host or None,
    "advertised_port": lambda socket: socket.advertised_port or None,
    "tag": lambda socket: socket.tag or None,
    "anycast": lambda socket: int(getattr(socket, "anycast", False)),
    "af": lambda socket: "INET6" if ":" in socket.host else "INET",
}


def check_socket_field(name: str) -> None:
    """Refuse what a socket does not have."""
    if name not in SOCKET_FIELDS and name != "forced":
        raise ValueError(f"a socket has no {name!r}; it has {', '.join(SOCKET_FIELDS)}")


def _received_on(run: Run) -> Any:
    return None if run.flow is None else run.flow.socket


def get_socket_in(run: Run) -> Value:
    """``$socket_in``: where the message came in."""
    socket = _received_on(run)
    return None if socket is None else socket_text(socket)


def get_socket_in_field(run: Run, name: str) -> Value:
    """``$socket_in(port)``."""
    socket = _received_on(run)
    return None if socket is None or name not in SOCKET_FIELDS else SOCKET_FIELDS[name](socket)


def get_socket_out(run: Run) -> Value:
    """``$socket_out``: from where the message will go, as far as is known."""
    socket = run.send_socket or _received_on(run)
    return None if socket is None else socket_text(socket)


def get_socket_out_field(run: Run, name: str) -> Value:
    """``$socket_out(port)``; ``$socket_out(forced)``: only if a script chose it."""
    if name == "forced":
        return None if run.send_socket is None else socket_text(run.send_socket)
    socket = run.send_socket or _received_on(run)
    return None if socket is None or name not in SOCKET_FIELDS else SOCKET_FIELDS[name](socket)


def set_socket_out(run: Run, value: Value) -> bool:
    """``$socket_out = "udp:127.0.0.1:5060"``; null lets sipgw choose."""
    sound, socket = _find_socket(run, value, run.send_socket)
    if sound:
        run.send_socket = socket
    return sound


VARIABLES = (
    Variable("msg.branch", _first_branch, _new_branch),
    *[_field(name) for name in WRITERS],
    Variable("msg.branch.flag", get_branch_flag, set_branch_flag, takes_name=True, takes_index=True),
    Variable("msg.branch.attr", get_attr, set_attr, takes_name=True, takes_index=True),
    Variable("msg.branch.last_idx", lambda run: len(run.branches)),
    Variable("branch", _first_branch, _new_branch),
    Variable("branch", get_old_branch, set_old_branch, takes_name=True, takes_index=True, check=check_branch_field),
    Variable("branch.flag", get_branch_flag, set_branch_flag, takes_name=True, takes_index=True),
    Variable("ds", get_ds),
    Variable("bf", lambda run: flag_text(run.user.branch_flags, run.branch_flags)),
    Variable("mf", lambda run: flag_text(run.user.message_flags, run.flags)),
    Variable("msg.flag", get_flag, set_flag, takes_name=True),
    Variable("socket_in", get_socket_in),
    Variable("socket_in", get_socket_in_field, takes_name=True, check=check_socket_field),
    Variable("socket_out", get_socket_out, set_socket_out),
    Variable("socket_out", get_socket_out_field, takes_name=True, check=check_socket_field),
)
