"""A reactor of which a test turns the crank: real descriptors by epoll, and a clock that stands still until it is advanced."""

import resource
import socket
import time
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest

PATIENCE = 5.0
"""Seconds of real time within which the kernel must have done what a test waits for."""


def more_descriptors(case, wanted):
    """Let this process, and children that it starts, open so many files until the end of the test; skip where none may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard < wanted:
        raise SkipTest(f"{wanted} open files are needed, and {hard} are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    case.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))


class Pump(Clock):
    """``turn`` serves what is ready; ``until`` turns until something is true."""

    def __init__(self):
        super().__init__()
        self._epoll: Any = EPollReactor()
        self.addReader = self._epoll.addReader
        self.removeReader = self._epoll.removeReader
        self.addWriter = self._epoll.addWriter
        self.removeWriter = self._epoll.removeWriter
        self.getReaders = self._epoll.getReaders

    def turn(self, wait=0.0):
        """Serve what is ready now, or within ``wait`` seconds, and what is due."""
        self._epoll.doPoll(wait)
        self.advance(0)

    def until(self, condition, what="what the test waits for"):
        """Turn until ``condition()`` is true; its value."""
        end = time.monotonic() + PATIENCE
        while not (value := condition()):
            if time.monotonic() > end:
                raise AssertionError(f"{what} has not happened within {PATIENCE} s")
            self.turn(0.01)
        return value

    def settle(self):
        """Turn until nothing is ready."""
        for _ in range(3):
            self.turn(0.002)

    def close(self):
        """Let go of epoll and of its waker."""
        self._epoll.removeAll()
        self._epoll._poller.close()
        for reader in self._epoll._internalReaders:
            reader.connectionLost(None)


class Peer:
    """A client over TCP that blocks, but turns the pump while it waits."""

    def __init__(self, pump, port, host="127.0.0.1", source=None):
        self.pump = pump
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            self.socket.bind(source)
        self.socket.setblocking(False)
        self.socket.connect_ex((host, port))
        self.port = self.socket.getsockname()[1]
        self.buffer = b""
        self.ended = ""
        """How the other side ended: "FIN" or "RST"."""

    def send(self, data):
        """Send all of it, as the server takes it."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                pass
            self.pump.turn()

    def look(self):
        """Take in what has come."""
        while not self.ended:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                self.ended = "RST"
                return
            self.buffer += data
            if not data:
                self.ended = "FIN"

    def has(self, test):
        """Look, then test."""
        self.look()
        return test()

    def receive(self, count=1):
        """The next ``count`` messages without body, as texts."""
        self.pump.until(lambda: self.has(lambda: self.buffer.count(b"\r\n\r\n") >= count), f"{count} messages to {self.port}")
        *messages, self.buffer = self.buffer.split(b"\r\n\r\n", count)
        return [message.decode() + "\r\n\r\n" for message in messages]

    def statuses(self, count=1):
        """The statuses, or methods, of the next ``count`` messages."""
        return [text.split(" ")[1 if text.startswith("SIP/2.0") else 0] for text in self.receive(count)]

    def end(self):
        """Wait until the server has ended the connection; how."""
        return self.pump.until(lambda: self.has(lambda: self.ended), f"the end of {self.port}")

    def close(self):
        """End in order."""
        self.socket.close()

    def reset(self):
        """End with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()


class Listener:
    """A server over TCP that takes one connection after the other."""

    def __init__(self, pump, host="127.0.0.1", port=0, backlog=8):
        self.pump = pump
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((host, port))
        self.socket.listen(backlog)
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]

    def waiting(self):
        """The next connection, None if there is none."""
        try:
            return self.socket.accept()
        except BlockingIOError:
            return None

    def accept(self):
        """The next connection, as a peer."""
        opened, address = self.pump.until(self.waiting, f"a connection to {self.port}")
        peer = Peer.__new__(Peer)
        opened.setblocking(False)
        peer.pump, peer.socket, peer.buffer, peer.ended, peer.port = self.pump, opened, b"", "", address[1]
        return peer

    def close(self):
        """Listen no more."""
        self.socket.close()
