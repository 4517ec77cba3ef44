"""What a server can truly say of itself in OpenSIPS's groups core, net, load, shmem, rpmem and pkmem.

sipgw is one process without an allocator of its own, so the two kinds of memory are both the memory that the process has: *used*
is what the kernel keeps resident for it, *total* what it may grow to, *fragments* the free pieces of the C library's heap (there
is no such statistic where the library is not glibc; Python's own small objects live elsewhere). Nothing is kept over a restart
(rpmem). Load is the share of one processor, in percent. All is read when it is asked for; only the load takes a note every
second."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from sipgw.statistics import Statistics

WINDOW = 600
"""Seconds that the longest average of the load looks back."""

LOADS = (("load", 1), ("load1m", 60), ("load10m", 600))
"""The statistics of the load, and the seconds that they look back."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TABLES = {"udp": ("udp", "udp6"), "tcp": ("tcp", "tcp6"), "tls": ("tcp", "tcp6")}


class Around(Protocol):
    """What is asked of the transaction user."""

    sockets: list[Any]
    started: float

    def wall_clock(self) -> float:
        """Seconds since 1970."""

    @property
    def running_timers(self) -> int:
        """How many timers run."""


class Load:
    """How busy this process is: ``note`` once a second, ``over`` the last so many seconds."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, processor: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._processor = processor
        self._notes: deque[tuple[float, float]] = deque(maxlen=WINDOW + 1)
        self.note()

    def note(self) -> None:
        """Remember how much processor time has been used by now."""
        self._notes.append((self._clock(), self._processor()))

    def over(self, seconds: int) -> int:
        """The percentage of the last ``seconds`` that the processor spent here; of the time since the start, if that is less."""
        now, used = self._clock(), self._processor()
        since, before = self._notes[0]
        for at, spent in reversed(self._notes):
            if at <= now - seconds:
                since, before = at, spent
                break
        if now <= since:
            return 0
        return min(100, round(100 * (used - before) / (now - since)))


def register_core_statistics(statistics: Statistics, user: Around, load: Load | None = None) -> Load:
    """Register what can be measured of the process; returns the ``Load`` that wants its ``note`` every second.

    The counters of messages (``core:rcv_requests`` and the like) belong to the transaction user, who counts them."""
    load = load or Load()
    statistics.gauge("core", "timestamp", lambda: int(user.wall_clock() - user.started))
    statistics.gauge("sipgw", "timers", lambda: user.running_timers)
    for transport in ("udp", "tcp", "tls"):
        statistics.gauge("net", f"waiting_{transport}", partial(_waiting, user, transport))
    total = memory_limit()
    count = counts_fragments()
    for group, prefix in (("shmem", ""), ("pkmem", "0-")):
        statistics.gauge(group, f"{prefix}total_size", lambda: total)
        statistics.gauge(group, f"{prefix}used_size", resident)
        statistics.gauge(group, f"{prefix}real_used_size", resident)
        statistics.gauge(group, f"{prefix}max_used_size", most_resident)
        statistics.gauge(group, f"{prefix}free_size", lambda: max(0, total - resident()))
        if count is not None:
            statistics.gauge(group, f"{prefix}fragments", count)
    for name in ("total_size", "used_size", "real_used_size", "fragments", "max_used_size", "free_size"):
        statistics.gauge("rpmem", f"rpm_{name}", lambda: 0)
    for suffix in ("-proc-0", "", "-all"):
        for name, seconds in LOADS:
            statistics.gauge("load", name + suffix, partial(load.over, seconds))
    statistics.gauge("load", "processes_number", lambda: 1)
    return load


def resident() -> int:
    """Octets of memory that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * _PAGE


class _Mallinfo2(ctypes.Structure):
    """What glibc's ``mallinfo2`` answers (malloc.h): ``ordblks`` and ``smblks`` are the numbers of free pieces."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def counts_fragments() -> Callable[[], int] | None:
    """What counts the free pieces of the C library's heap; None where the library cannot (glibc before 2.33, musl)."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    mallinfo2.restype = _Mallinfo2

    def count() -> int:
        found = mallinfo2()
        return int(found.ordblks) + int(found.smblks)

    return count


def most_resident() -> int:
    """Octets of memory that this process has had at most."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resident()


def memory_limit(cgroup: str = "/sys/fs/cgroup/memory.max") -> int:
    """Octets of memory that this process may grow to: the least of the machine's, its limit (``ulimit -v``) and its cgroup's."""
    limits = [_PAGE * os.sysconf("SC_PHYS_PAGES")]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    try:
        with open(cgroup, encoding="ascii") as limit:
            limits.append(int(limit.read()))
    except (OSError, ValueError):
        pass  # no cgroup of version 2, or "max"
    return min(limits)


def _waiting(user: Around, transport: str) -> int:
    return waiting(((s.host, s.port) for s in user.sockets if s.transport == transport), transport)


def waiting(addresses: Iterable[tuple[str, int]], transport: str, proc: str = "/proc/net") -> int:
    """Octets that the kernel holds for the sockets at ``addresses`` and that have not been read yet."""
    wanted = {_kernel_name(host, port) for host, port in addresses}
    if not wanted:
        return 0
    octets = 0
    for table in _TABLES[transport]:
        try:
            with open(f"{proc}/{table}", encoding="ascii") as rows:
                for row in rows:
                    columns = row.split(None, 5)
                    if len(columns) > 4 and columns[1] in wanted:
                        octets += int(columns[4].partition(":")[2], 16)
        except FileNotFoundError:
            continue  # a kernel without IPv6
    return octets


def _kernel_name(host: str, port: int) -> str:
    """``host:port`` as ``/proc/net/udp`` writes it: 32-bit words in the machine's own order, in hexadecimal."""
    host = host.strip("[]")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"
