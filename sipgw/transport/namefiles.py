"""What this machine itself knows of names: ``/etc/resolv.conf`` and ``/etc/hosts``.

Both are read when the server starts, and again when they have changed, which is looked at twice a minute at most. A file that
is missing is an empty one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

CHECK: Final = 30.0
"""Seconds for which a file is taken to be as it was."""

LOCALHOST: Final = ("127.0.0.1", "::1")
"""What ``localhost`` is where ``/etc/hosts`` does not say (RFC 6761 6.3)."""


class ResolvConf(NamedTuple):
    """What ``resolv.conf(5)`` says. ``timeout`` (seconds for each try), ``attempts``: None where it says nothing."""

    servers: tuple[tuple[str, int], ...]
    search: tuple[str, ...]
    ndots: int
    timeout: int | None
    attempts: int | None


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read ``resolv.conf``; without a server there is one on this machine, as the C library has it."""
    servers: list[tuple[str, int]] = []
    search: tuple[str, ...] = ()
    options = {"ndots": 1}
    for line in text.splitlines():
        if line[:1] in ("#", ";"):
            continue
        word, *values = line.split()[:32] or [""]
        if word == "nameserver" and values and _is_address(values[0].partition("%")[0]):
            servers.append((values[0], 53))
        elif word == "domain":
            search = tuple(values[:1])
        elif word == "search":
            search = tuple(values)
        elif word == "options":
            for option in values:
                name, _, number = option.partition(":")
                if number.isascii() and number.isdigit():
                    options[name] = int(number)
    return ResolvConf(
        tuple(dict.fromkeys(servers)) or (("127.0.0.1", 53),),
        tuple(name for name in (each.strip(".").lower() for each in search) if name),
        min(options["ndots"], 15),
        options.get("timeout"),
        options.get("attempts"),
    )


def parse_hosts(text: str) -> Mapping[str, tuple[str, ...]]:
    """Read ``hosts(5)``: the addresses of each name, in lower case, in the order of the file."""
    found: dict[str, dict[str, None]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if _is_address(address):
            for name in names:
                found.setdefault(name.lower().rstrip("."), {})[address] = None
    hosts = {name: tuple(addresses) for name, addresses in found.items()}
    hosts.setdefault("localhost", LOCALHOST)
    return hosts


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class WatchedFile(Generic[T]):
    """A file in parsed form, as it is now."""

    def __init__(self, path: str, parse: Callable[[str], T], clock: Callable[[], float]) -> None:
        self._path = path
        self._parse = parse
        self._clock = clock
        self._seen = self._look()
        self._value = self._read()
        self._until = clock() + CHECK

    def get(self) -> T:
        """What the file says."""
        now = self._clock()
        if now >= self._until:
            self._until = now + CHECK
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._value = self._read()
        return self._value

    def _look(self) -> tuple[int, int, int] | None:
        """What tells one version of the file from another."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> T:
        try:
            with open(self._path, encoding="utf-8", errors="replace") as file:
                return self._parse(file.read())
        except OSError:
            return self._parse("")
