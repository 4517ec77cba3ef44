"""Tests of sipgw.modules.event_flatstore: lines, names and ages of files."""

from __future__ import annotations

import gc
import os
import stat
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import SynchronousTestCase

from sipgw.mi.jsonrpc import MIError
from sipgw.modules.event_flatstore import EventFlatstore
from sipgw.testing import EPOCH, FakeServer, finished
from tests.ears import Ears


class FlatstoreTests(SynchronousTestCase):
    """Files in a directory of the test."""

    def make(self, **parameters: Any) -> EventFlatstore:
        """A started module; ``self.path`` is the first file."""
        self.server = FakeServer()
        made = EventFlatstore(self.server, **parameters)
        finished(made.start())
        self.bus = self.server.user.events
        self.event = self.bus.publish("E_X")
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.path = str(self.directory / "one.log")
        self.ears = Ears()
        self.bus.join(self.bus.publish("E_FLATSTORE_ROTATION"), "ear:a", finished(self.ears.open("a")))
        return made

    def subscribe(self, path: str = "", seconds: int | None = None) -> str:
        """Subscribe a file; why it cannot be, or nothing."""
        caught: list[str] = []
        done: Any = ensureDeferred(self.bus.subscribe(self.event, f"flatstore:{path or self.path}", seconds))
        done.addErrback(lambda failure: caught.append(str(failure.value)))
        self.successResultOf(done)
        return caught[0] if caught else ""

    def lines(self, name: str = "one.log") -> list[str]:
        """What a file holds."""
        return (self.directory / name).read_text("utf-8", "surrogateescape").splitlines()

    def rotations(self) -> list[tuple[str, str, str]]:
        """The rotations that were told: reason, new name, old name."""
        return [
            (told["reason"], os.path.basename(told["filename"]), os.path.basename(told["old_filename"]))
            for _, _, told in self.ears.told
        ]

    def test_lines(self) -> None:
        """Name and values stand with the delimiter between; a line end in a value makes no line."""
        self.make()
        self.assertEqual(self.subscribe(), "")
        self.event.emit(ip="1.2.3.4", count=5, nothing=None, text="a\r\nE_X,evil")
        self.bus.tell(self.event, ("é\udcff", 1))
        self.event.emit()
        self.assertEqual(self.lines(), ["E_X,1.2.3.4,5,,a\\r\\nE_X,evil", "E_X,é\udcff,1", "E_X"])
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o644)

    def test_parameters(self) -> None:
        """The delimiter, what stands for it in values, permissions, and lines without the name."""
        self.make(delimiter=";", escape_delimiter="|", file_permissions="600", suppress_event_name=1)
        self.subscribe()
        self.event.emit(a="x;y", b=1)
        self.assertEqual(self.lines(), ["x|y;1"])
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)

    def test_append(self) -> None:
        """A file that is there is appended to, and keeps its permissions."""
        self.make()
        Path(self.path).write_text("before\n")
        os.chmod(self.path, 0o640)
        self.subscribe()
        self.event.emit()
        self.assertEqual(self.lines(), ["before", "E_X"])
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o640)

    def test_moved(self) -> None:
        """After a file was moved away the command opens a new one; what was subscribed under no such path is refused."""
        made = self.make()
        self.subscribe()
        self.event.emit(n=1)
        os.rename(self.path, f"{self.path}.1")
        self.event.emit(n=2)
        made.rotate(self.path)
        self.event.emit(n=3)
        self.assertEqual((self.lines("one.log.1"), self.lines()), (["E_X,1", "E_X,2"], ["E_X,3"]))
        self.assertEqual(self.rotations(), [("mi", "one.log", "one.log")])
        self.assertEqual(self.ears.told[0][2]["timestamp"], str(int(EPOCH)))
        refused = self.assertRaises(MIError, made.rotate, "nosuch")
        self.assertEqual((refused.code, refused.message), (400, "File not found"))

    def test_count(self) -> None:
        """A file is opened anew after so many lines, with the suffix as it is then."""
        self.make(rotate_count="2", suffix=".$Ts")
        self.subscribe()
        for number in range(5):
            self.event.emit(n=number)
            self.server.reactor.advance(1)
        begin = int(EPOCH)
        names = [f"one.log.{begin + seconds}" for seconds in (0, 2, 4)]
        self.assertEqual(sorted(os.listdir(self.directory)), names)
        self.assertEqual([len(self.lines(name)) for name in names], [2, 2, 1])
        self.assertEqual(self.rotations(), [("count", names[1], names[0]), ("count", names[2], names[1])])

    def test_size(self) -> None:
        """A file is opened anew when it has so many octets; if its name stays, that is counted from then on."""
        self.make(rotate_size="1k")
        self.subscribe()
        for _ in range(5):
            self.event.emit(text="x" * 507)
        self.assertEqual(self.rotations(), [("size", "one.log", "one.log")] * 2)
        self.assertEqual(len(self.lines()), 5)

    def test_period(self) -> None:
        """A file is opened anew when a new period of the time of day has begun."""
        self.make(rotate_period=60)
        self.subscribe()
        self.event.emit()
        left = 60 - int(EPOCH) % 60
        self.server.reactor.advance(left - 1)
        self.event.emit()
        self.assertEqual(self.rotations(), [])
        self.server.reactor.advance(1)
        self.event.emit()
        self.event.emit()
        self.assertEqual(self.rotations(), [("period", "one.log", "one.log")])

    def test_bound(self) -> None:
        """No more files than max_open_sockets; one whose subscriptions are over makes room, and is closed."""
        made = self.make(max_open_sockets=2)
        self.subscribe(seconds=5)
        self.subscribe(f"{self.path}2")
        self.assertEqual(self.subscribe(f"{self.path}3"), "there are 2 files already")
        self.assertEqual(self.subscribe(), "")
        self.subscribe(seconds=5)
        self.event.emit()
        self.server.reactor.advance(5)
        self.event.emit()
        gc.collect()
        self.assertEqual([*made.files], [f"{self.path}2"])
        self.assertEqual(self.subscribe(f"{self.path}3"), "")

    def test_broken(self) -> None:
        """What cannot be written is logged, not too often; later it may be."""
        made = self.make()
        directory = self.directory / "sub"
        directory.mkdir()
        self.assertEqual(self.subscribe(str(directory / "f")), "")
        directory.rmdir()
        self.event.emit()
        self.event.emit()
        self.assertEqual(len(self.server.lines), 1)
        self.assertIn("E_X is not written to", self.server.lines[0][1])
        refused = self.assertRaises(MIError, made.rotate, str(directory / "f"))
        self.assertEqual(refused.message, "File not opened")
        directory.mkdir()
        self.event.emit()
        self.assertEqual((directory / "f").read_text(), "E_X\n")

    def test_fifo(self) -> None:
        """A FIFO that nobody reads, or that is full, holds up nobody; after a line that was cut the next one is whole."""
        self.make()
        fifo = str(self.directory / "fifo")
        os.mkfifo(fifo)
        self.assertEqual(self.subscribe(fifo), "")
        self.event.emit(text="nobody")
        self.assertIn("is not written to", self.server.lines[-1][1])
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.addCleanup(os.close, reader)
        for _ in range(3):
            self.event.emit(text="x" * 50_000)
        os.read(reader, 1 << 20)
        self.event.emit(text="again")
        self.assertEqual(os.read(reader, 1 << 20), b"\nE_X,again\n")

    def test_refused(self) -> None:
        """Paths and parameters that cannot be are refused."""
        self.make()
        there = "its directory is not there, or it is one itself"
        for path, said in [(str(self.directory), there), ("/nosuch/dir/x", there), ("a\0b", "write flatstore:path")]:
            self.assertEqual(self.subscribe(path), said)
        for name, value in [
            ("file_permissions", "9"), ("file_permissions", "rw-"), ("rotate_count", "x"), ("rotate_size", "5t"),
            ("rotate_size", "-1"), ("rotate_period", -1), ("max_open_sockets", -1),
        ]:
            self.assertRaises(ValueError, EventFlatstore(FakeServer()).set_parameter, name, value)
        for parameters in ({"delimiter": ""}, {"escape_delimiter": "||"}, {"suffix": "$nosuch"}):
            self.assertRaises(ValueError, finished, EventFlatstore(FakeServer(), **parameters).start())
