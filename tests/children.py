"""Children that a test starts, waits for by a condition, and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PATIENCE = 20.0
"""Seconds after which a condition has failed: far beyond what it takes, so that only a fault meets it."""

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
SIPGW = [sys.executable, "-c", "import sys; from sipgw.command import main; sys.exit(main())"]
HOST = "127.0.0.1"


def wait_for(condition: Callable[[], Any], what: str, child: Child | None = None) -> Any:
    """Ask until ``condition`` is true; its value. In vain if ``child`` ends meanwhile."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        ended = child is not None and child.process.poll() is not None
        if ended or time.monotonic() > end:
            said = "" if child is None else f"\n{child.text()[-5000:]}"
            raise AssertionError(f"waited in vain: {what}{said}")
        time.sleep(0.01)
    return value


def free_port() -> int:
    """A port of the loopback interface that nobody has now, neither for UDP nor for TCP."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp:
            udp.bind((HOST, 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind((HOST, port))
            except OSError:
                continue
            return port


def bound(port: int, transport: str = "udp") -> bool:
    """Whether somebody listens on that port."""
    with open(f"/proc/net/{transport}", encoding="ascii") as table:
        return any(line.split()[1].endswith(f":{port:04X}") for line in list(table)[1:])


class Child:
    """A child process with its output in a file; ``stdin`` as for ``Popen``."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.patience = PATIENCE
        """A third of the seconds that ``wait`` gives it to end by itself."""
        self.output = directory / "output"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )

    def text(self) -> str:
        """What it has written so far."""
        return self.output.read_text(errors="replace")

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        try:
            return self.process.wait(self.patience * 3)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.process.args!r} does not end:\n{self.text()[-3000:]}") from None

    def kill(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def twistd(arguments: Sequence[str], directory: Path) -> Child:
    """Start ``twistd -n`` with the arguments that follow, from this checkout."""
    return here([*TWISTD, "-n", "--pidfile=", *arguments], directory)


def here(command: Sequence[str], directory: Path) -> Child:
    """Start a command that finds this checkout's sipgw, whether it is installed or not."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return Child(command, directory, {"PYTHONPATH": path})
