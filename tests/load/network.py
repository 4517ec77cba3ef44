"""What phones send and receive on: real sockets and real time, or a wire and a fake clock; and a link that treats them badly.

A network has ``now()``, ``later(seconds, call)``, ``open(receive)`` for one more address, ``run(seconds)`` to let time pass,
``until(condition, seconds)`` to let it pass until something is true."""

import select
import socket
import time
from collections import deque
from math import inf
from typing import Any

from sipgw.sip.timers import DelayQueues
from sipgw.testing import WiredServer, WireSocket
from tests.children import HOST

BUFFER = 4 << 20
"""Octets asked of the kernel for each socket, for bursts."""
BURST = 64
"""Datagrams taken from one socket before the others have their turn."""


class Network:
    """What both kinds share: timers, and time that passes."""

    def __init__(self):
        self.timers = DelayQueues()

    def now(self):
        """Seconds, monotonic."""
        raise NotImplementedError

    def later(self, seconds, call):
        """Call after ``seconds``; what is returned has ``cancel()``."""
        return self.timers.add(seconds, self.now(), lambda _now: call())

    def step(self, end):
        """Let what comes next happen, but nothing after ``end``."""
        raise NotImplementedError

    def run(self, seconds):
        """Let time pass."""
        self.until(lambda: False, seconds)

    def until(self, condition, seconds):
        """Let time pass until ``condition()``, ``seconds`` at most; whether it is true."""
        end = self.now() + seconds
        while self.now() < end:
            if condition():
                return True
            self.step(end)
            self.timers.expire(self.now())
        return bool(condition())


class End:
    """One address of a live network."""

    def __init__(self, network, receive):
        self.receive = receive
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self.socket.bind((HOST, 0))
        self.socket.setblocking(False)
        self.host, self.port = self.socket.getsockname()
        self.server = network.server

    def send(self, data):
        """Send one datagram to the server."""
        try:
            self.socket.sendto(data, self.server)
        except BlockingIOError:
            pass

    def ready(self):
        """Take what has come."""
        for _ in range(BURST):
            try:
                self.receive(self.socket.recv(65536))
            except BlockingIOError:
                return
            except ConnectionError:
                continue


class Live(Network):
    """UDP sockets on loopback towards a server at ``port``."""

    def __init__(self, port):
        super().__init__()
        self.server = (HOST, port)
        self.poll = select.epoll()
        self.ends = {}

    def now(self):
        """The clock of the machine."""
        return time.monotonic()

    def open(self, receive):
        """One more socket."""
        end = End(self, receive)
        self.watch(end)
        return end

    def watch(self, end):
        """Call ``end.ready()`` whenever something has come to ``end.socket``."""
        self.ends[end.socket.fileno()] = end
        self.poll.register(end.socket.fileno(), select.EPOLLIN)

    def leave(self, end):
        """Watch it no more."""
        self.poll.unregister(end.socket.fileno())
        del self.ends[end.socket.fileno()]

    def step(self, end):
        """Take in what comes until the next timer."""
        wait = max(0.0, min(end, self.timers.soonest) - time.monotonic())
        for number, _ in self.poll.poll(wait):
            if number in self.ends:
                self.ends[number].ready()

    def close(self):
        """Let all go."""
        for end in self.ends.values():
            end.socket.close()
        self.poll.close()


class WiredEnd:
    """One address of a wire."""

    def __init__(self, network, host, receive):
        self.host, self.port = host, 5060
        self.waiting = network.waiting
        self.socket = network.wired.wire.socket(host, self.port, lambda data, _flow: receive(data))

    def send(self, data):
        """Send one datagram to the server, once all is done that is being done."""
        self.waiting.append((self.socket, data))


class Wired(Network):
    """The wire of a whole server in this process; its clock stands still but for ``run``."""

    def __init__(self, script):
        super().__init__()
        self.wired = WiredServer(script)
        self.waiting: deque[tuple[WireSocket, bytes]] = deque()
        self.count = 0

    def now(self):
        """The clock of the server."""
        return self.wired.clock.seconds()

    def open(self, receive):
        """One more host."""
        self.count += 1
        return WiredEnd(self, f"192.0.2.{self.count}", receive)

    def step(self, end):
        """Deliver what was sent; else go to what is due next, of ours or of the server's."""
        if self.waiting:
            sender, data = self.waiting.popleft()
            sender.send(data, *self.wired.address)
            return
        clock = self.wired.clock
        calls: list[Any] = clock.getDelayedCalls()  # type: ignore[assignment]
        due = min((call.getTime() for call in calls), default=inf)
        clock.advance(max(0.0, min(end, due, self.timers.soonest) - clock.seconds()))


class BadLink:
    """A network between phones and server that loses, repeats and delays datagrams, each way, as ``random`` says.

    ``loss``: the share that is lost. ``copies``: how many of each arrive. ``late``: the share that is delayed, by up to
    ``delay`` seconds, and so overtaken."""

    def __init__(self, network, random, *, loss=0.0, copies=1, late=0.0, delay=0.0):
        self.network = network
        self.random = random
        self.loss, self.copies, self.late, self.delay = loss, copies, late, delay
        self.lost = self.repeated = self.delayed = 0
        self.now, self.later, self.run, self.until = network.now, network.later, network.run, network.until

    def carry(self, call, data):
        """Take one datagram along."""
        for copy in range(self.copies):
            if self.random.random() < self.loss:
                self.lost += 1
                continue
            self.repeated += copy > 0
            if self.random.random() < self.late:
                self.delayed += 1
                self.later(self.random.random() * self.delay, lambda: call(data))
            else:
                call(data)

    def open(self, receive):
        """One more address, behind this link."""
        return _BehindLink(self, receive)


class _BehindLink:
    """An address behind a bad link."""

    def __init__(self, link, receive):
        self.link = link
        self.end = link.network.open(lambda data: link.carry(receive, data))
        self.host, self.port = self.end.host, self.end.port

    def send(self, data):
        """Send one datagram, perhaps."""
        self.link.carry(self.end.send, data)
