"""Where the socket of the module mi_amp stands when nobody says so: known to the server that makes it and to who looks for it.

The folder is ``$SIPGW_RUN``, else ``/run/sipgw``, else ``sipgw`` in ``$XDG_RUNTIME_DIR``, else ``/tmp/sipgw-`` with the number of
the user. Only its owner may look into a folder that is made here, and one in /tmp that belongs to somebody else is never used.
The socket is ``mi.sock``; a second server of the same user has ``mi-PID.sock``."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator

NAME = "mi.sock"
LONGEST = 90
"""Octets of a path at most, so that it fits into an address with what is added while it is made."""


def folders() -> Iterator[str]:
    """The folders in which the socket may stand, the preferred one first."""
    own = os.environ.get("SIPGW_RUN")
    if own:
        yield os.path.abspath(own)
        return
    yield "/run/sipgw"
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield os.path.join(os.environ["XDG_RUNTIME_DIR"], "sipgw")
    yield f"/tmp/sipgw-{os.geteuid()}"


def make_path() -> str:
    """A path for a socket of this process, in the first folder that can be had; ``OSError`` if there is none."""
    for folder in folders():
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK) and is_safe(folder):
            path = os.path.join(folder, NAME)
            return os.path.join(folder, f"mi-{os.getpid()}.sock") if is_heard(path) else path
    raise OSError(f"no folder for a socket: tried {', '.join(folders())}; set socket_name")


def find_path() -> str | None:
    """The path of a socket that is there, None if there is none."""
    for folder in folders():
        if is_safe(folder) and os.path.exists(os.path.join(folder, NAME)):
            return os.path.join(folder, NAME)
    return None


def is_safe(folder: str) -> bool:
    """Whether ``folder`` is one that nobody but its owner, us or root, can put a socket into."""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022


def is_heard(path: str) -> bool:
    """Whether somebody listens at ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
