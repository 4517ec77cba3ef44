"""The files through which the management interface is reached: whose they are, and how they take their place.

A FIFO or a socket appears under its name complete, with owner and mode, and takes the place of a stale one in the same step."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass


def check_mode(value: int) -> None:
    """Refuse what is no file mode."""
    if not 0 <= value <= 0o777:
        raise ValueError(f"{value:#o} is no file mode: write it in octal, as 0660")


def user_id(value: int | str) -> int:
    """The numeric id of a user, -1 for an empty name; ``ValueError`` if there is none."""
    try:
        return _number(value) if value != "" else -1
    except ValueError:
        try:
            return pwd.getpwnam(str(value)).pw_uid
        except KeyError:
            raise ValueError(f"there is no user {value!r}") from None


def group_id(value: int | str) -> int:
    """The numeric id of a group, -1 for an empty name; ``ValueError`` if there is none."""
    try:
        return _number(value) if value != "" else -1
    except ValueError:
        try:
            return grp.getgrnam(str(value)).gr_gid
        except KeyError:
            raise ValueError(f"there is no group {value!r}") from None


def _number(value: int | str) -> int:
    number = int(value)
    if number < 0:
        raise ValueError("a numeric id is not negative")
    return number


@dataclass(frozen=True)
class Owner:
    """Who may use a file: its mode, and the numeric ids of its user and group, -1 for those that the process gives it."""

    mode: int = 0o660
    user: int = -1
    group: int = -1

    def place(self, path: str, kind: int, make: Callable[[str], None]) -> os.stat_result:
        """Let ``make(other_path)`` create a file of ``kind`` (``stat.S_IFIFO``, ...), give it its owner, and put it at ``path``.

        An older one of that kind is replaced; ``FileExistsError`` if something else bears the name."""
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            pass
        else:
            if stat.S_IFMT(found.st_mode) != kind:
                raise FileExistsError(errno.EEXIST, "is something else, and is left alone", path)
        made = f"{path}.{os.getpid()}"
        try:
            os.unlink(made)
        except FileNotFoundError:
            pass
        before = os.umask(0o177)
        try:
            make(made)
        finally:
            os.umask(before)
        try:
            if self.user != -1 or self.group != -1:
                os.chown(made, self.user, self.group)
            os.chmod(made, self.mode)
            status = os.lstat(made)
            os.rename(made, path)
        except OSError:
            os.unlink(made)
            raise
        return status


def is_there(path: str, made: os.stat_result) -> bool:
    """Whether the file that was ``made`` still stands at ``path``."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino)
