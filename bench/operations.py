"""CPU microseconds of whole operations in memory: ``python -m bench.operations [SCENARIO]``.

The server is that of ``bench.cfg``, compiled as in service, on a wire that only keeps what is sent; the load is that of the
loopback bench (``generator.py``). What is left out are the system calls, so a change on the path of a message shows. With the
name of a scenario it is profiled instead."""

from __future__ import annotations

import cProfile
import gc
import pstats
import sys
import time
from typing import Any

from bench.generator import Load
from bench.memory import resident
from bench.servers import script
from sipgw.testing import WiredServer

SCENARIOS = ("options", "register", "digest", "message", "call", "dialog", "b2b")
OPERATIONS = 2000
CALLER, CALLEE = 7001, 7002


class Flow:
    """Where a datagram came from; what is sent there is kept."""

    __slots__ = ("host", "kept", "port", "socket")

    transport = "udp"
    reliable = False
    refused = ""
    id = None

    def __init__(self, socket: Any, port: int, kept: list[tuple[int, bytes]]) -> None:
        self.socket, self.host, self.port, self.kept = socket, "127.0.0.1", port, kept

    def send(self, data: bytes) -> None:
        """Keep it."""
        self.kept.append((self.port, data))


class Peers(Load):
    """The caller and the callee of one scenario, without sockets: what they send is kept."""

    def __init__(self, scenario: str) -> None:
        super().__init__(scenario, 5060, OPERATIONS, CALLER, CALLEE)
        self.sent: list[tuple[Any, bytes]] = []

    def open(self, port: int, waits: bool) -> Any:
        """A port stands for its socket."""
        return port

    def send(self, via: Any, data: bytes) -> None:
        """Keep it."""
        self.sent.append((via, data))


class Bench:
    """A server without a network, with every user registered."""

    def __init__(self) -> None:
        server = WiredServer(script(5060, b2b=True))
        self.clock = server.clock
        self.user = server.user
        self.sent: list[tuple[int, bytes]] = []
        socket = self.user.sockets[0]
        socket.flow = self.flow  # type: ignore[method-assign,assignment]
        self.flows = {port: Flow(socket, port, self.sent) for port in (CALLER, CALLEE)}
        self.run("register")

    def flow(self, _host: str, port: int) -> Flow:
        """The flow to one of the two."""
        return self.flows[port]

    def run(self, scenario: str, forget: bool = True) -> float:
        """Seconds of CPU of one operation; ``forget``: let time pass after it, so that nothing is left."""
        peers = Peers(scenario)
        receive = self.user.receive
        spent = 0.0
        incoming = [(CALLER, peers.first(call)) for call in range(OPERATIONS)]
        while incoming:
            self.sent.clear()
            datagrams = [(data, self.flows[port]) for port, data in incoming]
            begin = time.process_time()
            for data, flow in datagrams:
                receive(data, flow)
            spent += time.process_time() - begin
            for port, data in self.sent:
                self.answer(peers, port, data)
            incoming = peers.sent[:]
            peers.sent.clear()
        if forget:
            self.clock.advance(40)
        return spent / OPERATIONS

    @staticmethod
    def answer(peers: Peers, port: int, data: bytes) -> None:
        """Let the peer at ``port`` do what it does when ``data`` comes."""
        if port == CALLEE:
            peers.serve(data)
        elif int(data[8:11]) >= 300 and not (peers.scenario == "digest" and data[8:11] == b"401"):
            raise SystemExit(f"the server answered {data[8:60]!r}")
        elif int(data[8:11]) >= 200:
            cseq, _, _ = data.partition(b"\r\nCSeq: ")[2].partition(b" ")
            more = peers.answered(int(data.partition(b"\r\nCall-ID: ")[2].split(b"x")[1]), int(cseq), data)
            if more is not None:
                peers.send(CALLER, more)


def measure(rounds: int = 5) -> None:
    """Print the figures, each the best of some rounds, and what a transaction holds when it has been answered."""
    bench = Bench()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)  # as sipgw/service.py
    before = resident()  # first of all, while no freed memory waits to be used again
    bench.run("message", forget=False)
    print(f"a relayed MESSAGE, answered, holds {(resident() - before) / OPERATIONS:.0f} octets until its afterlife is over")
    for scenario in SCENARIOS:
        print(f"{scenario + ' in memory':<32}{min(bench.run(scenario) for _ in range(rounds)) * 1e6:8.1f} us")


def profile(scenario: str) -> None:
    """Print where the time of one scenario goes."""
    bench = Bench()
    found = cProfile.Profile()
    found.enable()
    bench.run(scenario)
    found.disable()
    pstats.Stats(found).sort_stats("tottime").print_stats(45)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        profile(sys.argv[1])
    else:
        measure()
