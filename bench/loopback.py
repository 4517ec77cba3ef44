"""CPU microseconds per operation over loopback: sipgw, and Kamailio and OpenSIPS beside it in the same run where they are there.

``python -m bench.loopback [--rounds N] [--scale F]``: the server is pinned to the first core, the load (``bench/generator.py``)
to the second; each round runs every scenario on every server in turn, the figure is the median. What is counted is the user and
system time of the server's processes from ``/proc/PID/stat``, in clock ticks: read the ratios, not the last digit.

Kamailio is taken from the path; OpenSIPS where ``OPENSIPS=/path/to/opensips`` and ``OPENSIPS_MODULES=/dir/`` say so
(``OPENSIPS_OPTIONS``: what to add, such as "-a F_MALLOC"). Its default build is not optimised: take away ``-DCC_O0``."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SCENARIOS = {"options": 20000, "register": 12000, "message": 8000, "call": 3000}
"""Operations of one measurement, at scale 1."""
MESSAGES = {"options": 2, "register": 2, "message": 4, "call": 13}


def free_port() -> int:
    """A UDP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def family(pid: int) -> list[int]:
    """``pid`` and all its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found.extend(child for child, parent in parents.items() if parent == one)
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of ``pid`` and its descendants so far."""
    total = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


@dataclass
class Server:
    """One server under load."""

    name: str
    command: list[str]
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path) -> None:
        """Start it on the first core, and wait until it answers."""
        with open(folder / f"{self.name}.log", "wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", "0", *self.command], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        probe = (
            f"OPTIONS sip:127.0.0.1:{self.port} SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:%d;branch=z9hG4bKprobe\r\n"
            "From: <sip:p@p>;tag=p\r\nTo: <sip:p@p>\r\nCall-ID: probe\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("127.0.0.1", 0))
            client.settimeout(0.2)
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                try:
                    client.sendto((probe % client.getsockname()[1]).encode(), ("127.0.0.1", self.port))
                    if client.recv(65536).startswith(b"SIP/2.0 200"):
                        return
                except OSError:
                    pass
                if self.process.poll() is not None:
                    break
        raise SystemExit(f"{self.name} does not answer:\n{(folder / f'{self.name}.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End it and its children."""
        if self.process is not None:
            for pid in family(self.process.pid):
                try:
                    os.kill(pid, signal.SIGTERM)
                except ProcessLookupError:
                    pass
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def measure(self, scenario: str, operations: int) -> float:
        """CPU microseconds of one operation."""
        assert self.process is not None
        before = cpu_seconds(self.process.pid)
        ports = [str(free_port()), str(CALLEE)]
        load = subprocess.run(
            ["taskset", "-c", "1", sys.executable, "-m", "bench.generator", scenario, str(self.port), str(operations), *ports],
            capture_output=True, text=True, cwd=HERE.parent,
        )
        if load.returncode:
            raise SystemExit(f"{self.name}, {scenario}: {load.stderr.strip()}")
        done = json.loads(load.stdout)
        if done["refused"]:
            print(f"         {self.name} refused {done['refused']} of {done['operations']} ({scenario})")
        return (cpu_seconds(self.process.pid) - before) / int(done["operations"]) * 1e6


CALLEE = free_port()


def servers(folder: Path) -> list[Server]:
    """The servers that are there, each with its configuration in ``folder``."""
    found = []
    port = free_port()
    config = folder / "sipgw.cfg"
    config.write_text((HERE / "bench.cfg").read_text().replace("@PORT@", str(port)).replace("@MPATH@", ""))
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    found.append(Server("sipgw", [*twistd, "-n", "--pidfile=", "sipgw", "-c", str(config)], port))
    kamailio = shutil.which("kamailio")
    if kamailio:
        port = free_port()
        config = folder / "kamailio.cfg"
        config.write_text((HERE / "kamailio.cfg").read_text().replace("@PORT@", str(port)))
        run = folder / "kamailio"
        run.mkdir()
        command = [kamailio, "-f", str(config), "-DD", "-E", "-m", "256", "-M", "32", "-Y", str(run), "-w", str(run)]
        found.append(Server("kamailio", command, port))
    opensips = os.environ.get("OPENSIPS")
    if opensips:
        port = free_port()
        config = folder / "opensips.cfg"
        modules = os.environ.get("OPENSIPS_MODULES", "")
        config.write_text((HERE / "bench.cfg").read_text().replace("@PORT@", str(port)).replace("@MPATH@", modules))
        extra = os.environ.get("OPENSIPS_OPTIONS", "").split()
        found.append(Server("opensips", [opensips, "-F", "-f", str(config), "-m", "256", "-M", "32", *extra], port))
    return found


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        there = servers(folder)
        figures: dict[tuple[str, str], list[float]] = {}
        try:
            for server in there:
                server.start(folder)
                server.measure("register", 1000)
            for number in range(chosen.rounds):
                for scenario, operations in SCENARIOS.items():
                    for server in there:
                        figure = server.measure(scenario, max(200, int(operations * chosen.scale)))
                        figures.setdefault((server.name, scenario), []).append(figure)
                        print(f"round {number + 1}: {server.name:9} {scenario:9} {figure:8.1f} us", flush=True)
        finally:
            for server in there:
                server.stop()
    print("\nCPU microseconds per operation, medians" + " " * 12 + "".join(f"{server.name:>12}" for server in there))
    for scenario in SCENARIOS:
        medians: list[float] = [statistics.median(figures[server.name, scenario]) for server in there]
        others = zip(there[1:], medians[1:], strict=True)
        ratios = "".join(f"  {medians[0] / other:5.2f}x {server.name}" for server, other in others)
        label = f"{scenario} ({MESSAGES[scenario]} messages)"
        print(f"{label:50}" + "".join(f"{median:12.1f}" for median in medians) + ratios)
    last = ", ".join(f"{scenario} {statistics.median(figures['sipgw', scenario]):.1f} us" for scenario in SCENARIOS)
    print(f"sipgw, CPU per operation over loopback: {last}")


if __name__ == "__main__":
    main()
