"""What private servers have in common: a process with its own folder and ports on the loopback interface.

It ends with the test run, however that ends: at exit, and by the kernel's signal if the run is killed. ``freeze`` stops it in
its tracks (SIGSTOP): its sockets stay open, and nobody answers."""

from __future__ import annotations

import atexit
import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PATIENCE = 20.0
"""Seconds that a server may take to come up."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def folder(name: str) -> Path:
    """A new folder that is removed at the end of the run; others may look into it."""
    made = Path(tempfile.mkdtemp(prefix=f"sipgw-{name}-"))
    made.chmod(0o755)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class PrivateServer:
    """One server process; ``command`` runs it in the foreground, ``ready()`` says whether it serves, ``owner`` is the user that
    it runs as if not ours."""

    patience = PATIENCE

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, ready: Callable[[], bool], owner: str | None = None
    ) -> None:
        self.name = name
        self.command = list(command)
        self.directory = directory
        self._ready = ready
        self._owner = owner
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen = False
        atexit.register(self.kill)

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self, wait: bool = True) -> None:
        """Start it, if it does not run, and wait until it serves."""
        if not self.running:
            with open(self.directory / f"{self.name}.log", "ab") as log:
                self._process = subprocess.Popen(
                    self.command,
                    cwd=self.directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    user=self._owner,
                    group=self._owner,
                    extra_groups=[] if self._owner else None,
                    preexec_fn=_die_with_parent,
                )
            self._frozen = False
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it serves."""
        end = time.monotonic() + self.patience
        while not self._ready():
            if not self.running or time.monotonic() > end:
                text = (self.directory / f"{self.name}.log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"{self.name} does not come up:\n{text}")
            time.sleep(0.01)

    def signal(self, number: int) -> None:
        """Send its process a signal."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)

    def stop(self) -> None:
        """End it in order, and wait for that."""
        self.thaw()
        self.signal(signal.SIGTERM)
        if self._process is not None:
            self._process.wait(PATIENCE)

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(PATIENCE)
        self._frozen = False

    def freeze(self) -> None:
        """Let it stand still; when this returns it does."""
        self.signal(signal.SIGSTOP)
        self._frozen = True
        end = time.monotonic() + PATIENCE
        while self._moves() and time.monotonic() < end:
            time.sleep(0.001)

    def _moves(self) -> bool:
        """Whether a thread of its first process is not stopped yet."""
        if self._process is None or self._process.poll() is not None:
            return False
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        return any(task.read_text().rpartition(")")[2].split()[0] not in "Tt" for task in tasks)

    def thaw(self) -> None:
        """Let it go on."""
        if self._frozen:
            self.signal(signal.SIGCONT)
            self._frozen = False

    def restore(self) -> None:
        """Have it run and serve, whatever a test did to it."""
        self.thaw()
        self.start()
