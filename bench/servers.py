"""The servers of the loopback bench: sipgw, and Kamailio and OpenSIPS where they are there; what they cost while they serve.

Each is pinned to the first core, the load (``bench/generator.py``) to the second. What is counted is the time of the
server's processes on the processor from ``/proc/PID/schedstat``, and their memory from ``/proc/PID/smaps_rollup``.

Kamailio is taken from the path; OpenSIPS where ``OPENSIPS=/path/to/opensips`` and ``OPENSIPS_MODULES=/dir/`` say so
(``OPENSIPS_OPTIONS``: what to add, such as "-a F_MALLOC"). Its default build is not optimised: take away ``-DCC_O0``.
A compiled sipgw (see setup.py) that was installed with ``pip install --no-deps --target DIR`` runs beside the plain one where
``SIPGW_COMPILED=DIR`` says so."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import nan
from pathlib import Path

from bench.generator import USERS

HERE = Path(__file__).parent
B2B_MODULES = 'loadmodule "uac_auth.so"\nloadmodule "b2b_entities.so"\nloadmodule "b2b_logic.so"\n\nroute {'
B2B_CALL = """
    if (is_present_hf("X-B2B")) {
        b2b_init_request("top hiding");
        exit;
    }
    route(relay);
}
"""
"""What is put into ``bench.cfg`` for back-to-back calls, which servers of their own serve: such modules look at each request."""


def script(port: int, mpath: str = "", b2b: bool = False) -> str:
    """The text of ``bench.cfg``."""
    text = (HERE / "bench.cfg").read_text().replace("@PORT@", str(port)).replace("@MPATH@", mpath)
    if b2b:
        text = text.replace("\nroute {", f"\n{B2B_MODULES}", 1)
        before, _, after = text.rpartition("    route(relay);\n}\n")
        text = f"{before}{B2B_CALL.lstrip()}{after}"
    return text


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
    """User and system time of ``pid`` and its descendants so far: nanoseconds of each thread, as the scheduler counts them."""
    total = 0
    for one in family(pid):
        for thread in Path(f"/proc/{one}/task").glob("*/schedstat"):
            total += int(thread.read_text().split()[0])
    return total / 1e9


CALLEE = free_port()
"""The port of all callees, so that what is registered stays true."""


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

    @contextmanager
    def running(self, folder: Path) -> Iterator[None]:
        """Run it for a while."""
        self.start(folder)
        try:
            yield
        finally:
            self.stop()

    def memory(self) -> int:
        """Octets that it holds and that do not come from files; what its processes share counts once."""
        assert self.process is not None
        texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family(self.process.pid))
        rows = (row.split() for text in texts for row in text.splitlines())
        return 1024 * sum(int(row[1]) for row in rows if row[0] in ("Pss_Anon:", "Pss_Shmem:"))

    def measure(self, scenario: str, operations: int, transport: str = "udp", users: int = USERS) -> float:
        """CPU microseconds of one operation; of another server than ours NaN, when it does not get through."""
        assert self.process is not None
        before = cpu_seconds(self.process.pid)
        arguments = map(str, (self.port, operations, free_port(), CALLEE, transport, users))
        load = subprocess.run(
            ["taskset", "-c", "1", sys.executable, "-m", "bench.generator", scenario, *arguments],
            capture_output=True, text=True, cwd=HERE.parent,
        )
        if load.returncode:
            print(f"         {self.name} fails ({scenario} over {transport}): {load.stderr.strip().rpartition(chr(10))[2]}")
            if self.name == "sipgw":
                raise SystemExit(load.stderr)
            return nan
        done = json.loads(load.stdout)
        if done["refused"]:
            print(f"         {self.name} refused {done['refused']} of {done['operations']} ({scenario})")
        return (cpu_seconds(self.process.pid) - before) / int(done["operations"]) * 1e6


def servers(folder: Path, b2b: bool = False) -> list[Server]:
    """The servers that are there, each with its configuration in ``folder``; ``b2b``: those that can make calls back to back."""
    found = []
    twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    builds = {"sipgw": str(HERE.parent), "compiled": os.environ.get("SIPGW_COMPILED", "")}
    for name, source in builds.items():
        if source:
            port = free_port()
            config = folder / f"{name}.cfg"
            config.write_text(script(port, b2b=b2b))
            there = ["env", "-C", source, f"PYTHONPATH={source}", *twistd]
            found.append(Server(name, [*there, "-n", "--pidfile=", "sipgw", "-c", str(config)], port))
    kamailio = shutil.which("kamailio")
    if kamailio and not b2b:
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
        config.write_text(script(port, modules, b2b))
        extra = os.environ.get("OPENSIPS_OPTIONS", "").split()
        found.append(Server("opensips", [opensips, "-F", "-f", str(config), "-m", "256", "-M", "32", *extra], port))
    return found
