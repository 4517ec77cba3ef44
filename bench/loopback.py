"""CPU microseconds per operation over loopback: sipgw, and the other servers beside it in the same run.

``python -m bench.loopback [--rounds N] [--scale F]``: each round runs every scenario on every server in turn (see
``bench/servers.py``), the figure is the median. The machine does other things too: read the ratios, not the last digit."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

from bench.servers import Server, servers


@dataclass(frozen=True)
class Work:
    """One scenario of ``bench/generator.py`` over a transport; ``operations`` of one measurement at scale 1, messages of each."""

    scenario: str
    operations: int
    messages: int
    transport: str = "udp"

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return self.scenario if self.transport == "udp" else f"{self.scenario} over TCP"


WORKS = (
    Work("options", 20000, 2),
    Work("register", 12000, 2),
    Work("digest", 6000, 4),
    Work("message", 8000, 4),
    Work("call", 3000, 13),
    Work("dialog", 3000, 13),
    Work("register", 8000, 2, "tcp"),
    Work("message", 5000, 4, "tcp"),
)
BACK_TO_BACK = (Work("b2b", 3000, 13),)
"""Of servers of their own."""


def median(figures: Sequence[float]) -> float:
    """The median of those that are there, NaN if there are none."""
    known = [figure for figure in figures if figure == figure]
    return statistics.median(known) if known else nan


def ratios(there: Sequence[Server], figures: Sequence[float]) -> str:
    """The first figure against each other."""
    others = zip(there[1:], figures[1:], strict=True)
    return "".join(f"  {figures[0] / figure:5.2f}x {server.name}" for server, figure in others)


def measure(there: Sequence[Server], works: Sequence[Work], rounds: int, scale: float) -> list[str]:
    """Measure and print; what sipgw needed."""
    figures: dict[tuple[str, str], list[float]] = {}
    for server in there:
        for transport in sorted({work.transport for work in works}):
            server.measure("register", 1000, transport)
    for number in range(rounds):
        for work in works:
            for server in there:
                figure = server.measure(work.scenario, max(200, int(work.operations * scale)), work.transport)
                figures.setdefault((server.name, work.name), []).append(figure)
                print(f"round {number + 1}: {server.name:9} {work.name:17} {figure:8.1f} us", flush=True)
    print("\nCPU microseconds per operation, medians" + " " * 12 + "".join(f"{server.name:>12}" for server in there))
    said = []
    for work in works:
        medians: list[float] = [median(figures[server.name, work.name]) for server in there]
        label = f"{work.name} ({work.messages} messages)"
        print(f"{label:50}" + "".join(f"{figure:12.1f}" for figure in medians) + ratios(there, medians))
        said.append(f"{work.name} {medians[0]:.1f} us")
    return said


def main(rounds: int = 3, scale: float = 1.0) -> str:
    """Start the servers, measure, end them; the figures in one line, which is printed, too."""
    said = []
    for works, b2b in ((WORKS, False), (BACK_TO_BACK, True)):
        with tempfile.TemporaryDirectory() as name:
            there = servers(Path(name), b2b)
            try:
                for server in there:
                    server.start(Path(name))
                said += measure(there, works, rounds, scale)
            finally:
                for server in there:
                    server.stop()
    line = f"sipgw, CPU per operation over loopback: {', '.join(said)}"
    print(line)
    return line


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0)
    main(**vars(options.parse_args()))
