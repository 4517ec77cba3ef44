"""A program in a terminal, driven by what it shows."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Sequence

from tests.children import PATIENCE

_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[E78=>c]")


class Terminal:
    """A pseudo-terminal with a program in it; ``shown`` is what it has written, without what only steers."""

    def __init__(self, command: Sequence[str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**os.environ, "TERM": "xterm"}
        )
        os.close(slave)
        self._raw = ""
        self._seen = 0

    @property
    def shown(self) -> str:
        """All that it has written."""
        return _STEERING.sub("", self._raw.replace("\x1bE", "\r\n"))

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def until(self, pattern: str) -> str:
        """Wait until it has written something in which ``pattern`` is found, after what was waited for before."""
        end = time.monotonic() + PATIENCE
        while True:
            found = re.compile(pattern, re.DOTALL).search(self.shown, self._seen)
            if found is not None:
                self._seen = found.end()
                return found.group()
            if time.monotonic() > end or not self._read(0.2):
                raise AssertionError(f"waited in vain for {pattern!r}:\n{self.shown}")

    def _read(self, seconds: float) -> bool:
        if select.select([self._master], [], [], seconds)[0]:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                return False
            self._raw += data.decode("utf-8", "replace")
            return bool(data)
        return True

    def end(self) -> int:
        """Its exit status, once it has ended by itself."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"it does not end:\n{self.shown}")
            self._read(0.05)
        return self.process.returncode

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._master)
