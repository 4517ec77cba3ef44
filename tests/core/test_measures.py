"""Tests of sipgw.core.measures: what is measured is true."""

from __future__ import annotations

import ctypes
import mmap
import socket

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from sipgw.core.measures import (
    Load,
    counts_fragments,
    memory_limit,
    most_resident,
    register_core_statistics,
    resident,
    waiting,
)
from sipgw.statistics import Statistics
from tests.mi.doubles import FakeUser


class LoadTests(SynchronousTestCase):
    """The share of the processor over a time."""

    def setUp(self) -> None:
        self.now = 100.0
        self.used = 5.0
        self.load = Load(lambda: self.now, lambda: self.used)

    def live(self, seconds: int, busy: float) -> None:
        for _ in range(seconds):
            self.now += 1
            self.used += busy
            self.load.note()

    def loads(self) -> tuple[int, int, int]:
        return self.load.over(1), self.load.over(60), self.load.over(600)

    def test_load(self) -> None:
        """Each average looks back its own time, or to the start."""
        self.assertEqual(self.loads(), (0, 0, 0))
        self.live(30, 0.5)
        self.assertEqual(self.loads(), (50, 50, 50))
        self.live(30, 0.0)
        self.assertEqual(self.loads(), (0, 25, 25))
        self.live(540, 0.25)
        self.assertEqual(self.loads(), (25, 25, 25))
        self.live(30, 1.0)
        self.assertEqual(self.loads(), (100, 62, 28))
        self.live(2000, 0.1)
        self.assertEqual(self.loads(), (10, 10, 10))

    def test_bounds(self) -> None:
        """More than one processor (threads) counts as 100."""
        self.live(5, 1.7)
        self.assertEqual(self.load.over(1), 100)

    def test_between(self) -> None:
        """Between two notes the time since the last whole second counts."""
        self.live(10, 0.0)
        self.now += 0.5
        self.used += 0.5
        self.assertEqual(self.load.over(1), 33)


class MemoryTests(SynchronousTestCase):
    """Memory as the kernel tells it."""

    def test_resident(self) -> None:
        """What is taken is seen, and the peak is no less."""
        size = 16 * 1024 * 1024
        before = resident()
        with mmap.mmap(-1, size) as block:  # pages of its own: freed memory of this process cannot serve
            block.write(b"x" * size)
            after = resident()
        self.assertGreater(after - before, size // 2)
        self.assertGreaterEqual(most_resident() + 4 * 1024 * 1024, after)
        self.assertLess(after, memory_limit())

    def test_fragments(self) -> None:
        """Pieces that are freed in the C library's heap, and have others around them, are counted."""
        count = counts_fragments()
        if count is None:
            raise SkipTest("this C library does not count them")
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        pieces = [libc.malloc(3000) for _ in range(2000)]
        before = count()
        for piece in pieces[::2]:
            libc.free(piece)
        after = count()
        for piece in pieces[1::2]:
            libc.free(piece)
        self.assertGreater(after - before, 500)

    def test_limit(self) -> None:
        """The cgroup's limit counts if it is less; "max" or no cgroup is none."""
        path = self.mktemp()
        without = memory_limit(path)
        for text, limit in (("1048576\n", 1048576), ("max\n", without)):
            with open(path, "w") as file:
                file.write(text)
            self.assertEqual(memory_limit(path), limit)


class WaitingTests(SynchronousTestCase):
    """Octets in the kernel's queues."""

    def test_udp(self) -> None:
        """Datagrams that nobody has read are counted, of our sockets only."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as ours, socket.socket(family, socket.SOCK_DGRAM) as other:
                ours.bind((host, 0))
                other.bind((host, 0))
                address = ours.getsockname()[:2]
                self.assertEqual(waiting([address], "udp"), 0)
                ours.sendto(b"x" * 500, address)
                self.assertGreaterEqual(waiting([address], "udp"), 500)
                self.assertEqual(waiting([other.getsockname()[:2]], "udp"), 0)
                ours.recv(1000)
                self.assertEqual(waiting([address], "udp"), 0)

    def test_tcp(self) -> None:
        """What has come over a connection and waits."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            with socket.create_connection(address) as client:
                accepted, _peer = server.accept()
                with accepted:
                    client.sendall(b"x" * 700)
                    self.assertEqual(waiting([address], "tcp"), 700)

    def test_nothing(self) -> None:
        """Without sockets, or without a kernel that tells, there is nothing."""
        self.assertEqual(waiting([], "tls"), 0)
        self.assertEqual(waiting([("127.0.0.1", 5060)], "udp", "/nonexistent"), 0)


class RegisterTests(SynchronousTestCase):
    """The statistics by name."""

    def test_names(self) -> None:
        """OpenSIPS's groups have OpenSIPS's names, and integers; what cannot be known is not there."""
        statistics = Statistics()
        register_core_statistics(statistics, FakeUser())
        names = {f"{s.group}:{s.name}" for s in statistics}
        memory = {"total_size", "used_size", "real_used_size", "max_used_size", "free_size"}
        memory |= {"fragments"} if counts_fragments() is not None else set()
        self.assertEqual(
            names,
            {"core:timestamp", "sipgw:timers", "net:waiting_udp", "net:waiting_tcp", "net:waiting_tls", "load:processes_number"}
            | {f"shmem:{name}" for name in memory}
            | {f"pkmem:0-{name}" for name in memory}
            | {f"rpmem:rpm_{name}" for name in memory | {"fragments"}}
            | {f"load:{name}{of}" for name in ("load", "load1m", "load10m") for of in ("", "-all", "-proc-0")},
        )
        self.assertEqual({type(s.read()) for s in statistics}, {int})
        values = {s.name: s.read() for s in statistics}
        self.assertEqual((values["timestamp"], values["processes_number"], values["rpm_used_size"]), (18, 1, 0))
        self.assertGreater(values["free_size"], 0)
        total = values["used_size"] + values["free_size"]
        self.assertLess(abs(total - values["total_size"]), 64 * 1024 * 1024)
