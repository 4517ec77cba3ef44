"""event_flatstore: events as lines of files, ``flatstore:path``: the name of the event and its values, with a delimiter between.

A line is written at once, whole. What would end a line within a value is written as ``\\n`` and ``\\r``: no value can make a line
of its own (P26). A file is opened anew when the management command asks for it (after ``mv``), or when its time, its lines or
its octets are over; its name is then made anew, with ``suffix``. Lines and octets are those since it was opened.

Nothing waits for whoever reads: a FIFO that nobody reads, or not fast enough, loses events, and the log says so."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from sipgw.core.events import DUMMY, Params, Sink
from sipgw.exports import Module, event, mi, param
from sipgw.mi.jsonrpc import MIError
from sipgw.script.compiler import compile_format
from sipgw.script.errors import ScriptError
from sipgw.script.run import Run
from sipgw.script.symbols import RouteKind
from sipgw.sip.message import parse

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def _not_negative(value: int) -> None:
    if value < 0:
        raise ValueError("write 0 or more")


def _mode(text: str) -> int:
    """Read permissions in octal."""
    if not re.fullmatch("[0-7]{3,4}", text):
        raise ValueError(f"{text!r} are no permissions: write three octal digits, such as 644")
    return int(text, 8)


def _count(value: int | str) -> int:
    """Read a number of lines."""
    text = str(value)
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no number of lines")
    return int(text)


def _size(value: int | str) -> int:
    """Read a number of octets, with k, m or g for kibi-, mebi- and gibioctets."""
    found = re.fullmatch("([0-9]{1,18})([kmg]?)", str(value).lower())
    if found is None:
        raise ValueError(f"{value!r} is no size: write octets, or a number with k, m or g")
    return int(found[1]) * _UNITS[found[2]]


class EventFlatstore(Module):
    """Writes events into files."""

    max_open_sockets: int = param(100, "How many files may be subscribed at once", check=_not_negative)
    delimiter: str = param(",", "What stands between two values")
    escape_delimiter: str = param("", "What is written for a delimiter within a value, as long as it; empty: it is left")
    file_permissions: str = param("644", "The permissions of new files, in octal", check=_mode)
    suppress_event_name: int = param(0, "Whether the name of the event is left out")
    rotate_period: int = param(0, "Seconds, of the time of day, after which a file is opened anew; 0: never", check=_not_negative)
    rotate_count: int | str = param(0, "Lines after which a file is opened anew; 0: any number", check=_count)
    rotate_size: int | str = param(0, "Octets (or with k, m, g) after which a file is opened anew; 0: any number", check=_size)
    suffix: str = param("", "What is added to the name of a file; it may have variables, which are read when it is opened")

    rotated = event("E_FLATSTORE_ROTATION", "timestamp", "reason", "filename", "old_filename")

    def __init__(self, server: Any = None, **parameters: Any) -> None:
        self.files: WeakValueDictionary[str, FlatFile] = WeakValueDictionary()
        self._suffix: Callable[[Run], str] | None = None
        super().__init__(server, **parameters)
        if server is not None:
            server.user.events.add_transport("flatstore", self)

    async def start(self) -> None:
        """Check what only all parameters together tell."""
        if not self.delimiter:
            raise ValueError("delimiter is empty")
        if self.escape_delimiter and len(self.escape_delimiter) != len(self.delimiter):
            raise ValueError("escape_delimiter must be as long as delimiter")
        if "$" in self.suffix:
            try:
                self._suffix = compile_format(self.suffix, self.server.symbols)
            except ScriptError as error:
                raise ValueError(f"suffix: {error.text}") from None

    async def open(self, address: str) -> Sink:
        """The file of that path; it is opened at its first event."""
        if not address or "\0" in address:
            raise ValueError("write flatstore:path")
        if os.path.isdir(address) or not os.path.isdir(os.path.dirname(address) or "."):
            raise ValueError("its directory is not there, or it is one itself")
        found = self.files.get(address)
        if found is None:
            if len(self.files) >= self.max_open_sockets:
                raise ValueError(f"there are {self.max_open_sockets} files already")
            found = self.files[address] = FlatFile(self, address)
        return found

    def name_of(self, path: str) -> str:
        """The name of the file at ``path``, with the suffix as it is now."""
        if self._suffix is None:
            return path + self.suffix
        user = self.server.user
        return path + self._suffix(Run(parse(DUMMY), RouteKind.EVENT, None, user.clock(), user))

    @mi("rotate", alias="evi_flat_rotate")
    def rotate(self, path_to_file: str) -> None:
        """Opens a file anew, after it was moved away."""
        found = self.files.get(path_to_file)
        if found is None:
            raise MIError(400, "File not found")
        try:
            found.rotate("mi")
        except (OSError, ValueError) as error:
            raise MIError(500, "File not opened", str(error)) from None


class FlatFile:
    """One file (``core.events.Sink``)."""

    def __init__(self, module: EventFlatstore, path: str) -> None:
        self._module = module
        self._path = path
        self._file = -1
        self._name = ""
        self._lines = 0
        self._size = 0
        self._period = 0
        self._cut = False
        """Whether what was written last is no whole line."""

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Leave the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def send(self, event: str, params: Params) -> bool:
        """Write one line."""
        module = self._module
        values = params.values() if hasattr(params, "values") else params
        texts = [] if module.suppress_event_name else [event]
        texts += [self._text("" if value is None else str(value)) for value in values]
        line = (module.delimiter.join(texts) + "\n").encode("utf-8", "surrogateescape")
        try:
            why = self._over()
            if self._file < 0:
                self._open()
            elif why:
                self.rotate(why)
            if self._cut:
                line = b"\n" + line
            written = os.write(self._file, line)
            self._cut = 0 < written < len(line) or (self._cut and written == 0)
            if written < len(line):
                raise OSError(f"only {written} of {len(line)} octets can be written")
        except (OSError, ValueError) as error:
            module.server.user.log_rarely(("event_flatstore", self._path), 1, f"{event} is not written to {self._path}: {error}")
            return False
        self._lines += 1
        self._size += len(line)
        return True

    def _text(self, value: str) -> str:
        module = self._module
        if module.escape_delimiter:
            value = value.replace(module.delimiter, module.escape_delimiter)
        return value.replace("\n", "\\n").replace("\r", "\\r")

    def _over(self) -> str:
        """Why the file is to be opened anew; empty if it is not."""
        module = self._module
        if module.rotate_period and self._now() // module.rotate_period != self._period:
            return "period"
        if 0 < _count(module.rotate_count) <= self._lines:
            return "count"
        return "size" if 0 < _size(module.rotate_size) <= self._size else ""

    def _now(self) -> int:
        return int(self._module.server.user.wall_clock())

    def _open(self) -> None:
        module = self._module
        name = module.name_of(self._path)
        mode = _mode(module.file_permissions)
        fresh = not os.path.exists(name)
        made = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, mode)
        if fresh:
            os.fchmod(made, mode)
        self.close()
        self._file, self._name, self._lines, self._size, self._cut = made, name, 0, 0, False
        self._period = self._now() // module.rotate_period if module.rotate_period else 0

    def rotate(self, reason: str) -> None:
        """Open the file anew and tell of it; ``OSError`` if it cannot be, and the old one is kept."""
        before = self._name
        self._open()
        self._module.rotated.emit(
            timestamp=str(self._now()), reason=reason, filename=self._name, old_filename=before
        )
