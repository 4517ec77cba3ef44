"""What systemd is told of a service of ``Type=notify`` (sd_notify(3), no library): ready, reloading, stopping, still alive.

Nothing is told where there is no ``NOTIFY_SOCKET``. A socket that cannot be written is no reason to fail."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping


class Notifier:
    """Tells whoever listens at ``address``, a path, or a name of the abstract kind that begins with ``@``; nobody if it is empty.

    ``watchdog``: seconds in which ``alive`` must be called again and again; 0 if nobody watches."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self.watchdog = watchdog
        self._address = "\0" + address[1:] if address.startswith("@") else address

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Notifier:
        """What ``environment`` says; the names are taken out of it, so that no child of ours speaks for us."""
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        counts = microseconds.isdecimal() and watched == str(os.getpid())
        return cls(address, int(microseconds) / 1e6 if counts and address else 0.0)

    def tell(self, *lines: str) -> bool:
        """Send one message; whether it was sent."""
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as made:
                made.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True

    def ready(self, status: str) -> bool:
        """The service serves, for the first time or again after ``reloading``."""
        return self.tell("READY=1", f"STATUS={_one_line(status)}", f"MAINPID={os.getpid()}")

    def reloading(self) -> bool:
        """The service reads its configuration."""
        return self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> bool:
        """The service ends."""
        return self.tell("STOPPING=1", "STATUS=shutting down")

    def failed(self, status: str) -> bool:
        """The service cannot start."""
        return self.tell(f"STATUS={_one_line(status)}")

    def alive(self) -> bool:
        """The service is alive."""
        return self.tell("WATCHDOG=1")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:1000]
