"""A real twistd under load: its script, what it holds, and what its log must not have."""

import json
import os
import re
import signal
import socket
from pathlib import Path

from tests.children import HOST, bound, free_port, twistd, wait_for

HOUSEHOLD = Path(__file__).parent.parent / "configs" / "household.cfg"
LIMIT = 4000
"""Octets of log that a run may cost, for each second: what is wrong is told, but not each time."""


def household(*, t1=0.5, fr=30, fr_inv=60, wt=5, more=""):
    """The text of the household's script with these times, in seconds; ``more``: lines before the first route.

    Registrations that are over are looked for each second."""
    text = HOUSEHOLD.read_text()
    text = re.sub(r'("fr_timeout",) \d+', rf"\1 {fr}", text)
    text = re.sub(r'("fr_inv_timeout",) \d+', rf"\1 {fr_inv}", text)
    times = {"T1_timer": int(t1 * 1000), "T2_timer": int(t1 * 8000), "wt_timer": wt}
    lines = "".join(f'modparam("tm", "{name}", {value})\n' for name, value in times.items())
    return text.replace("\nroute {", f'\n{lines}modparam("usrloc", "timer_interval", 1)\n{more}\nroute {{', 1)


class LoadedServer:
    """A child that runs ``text`` with a UDP and a TCP socket at one port, and answers management commands."""

    def __init__(self, directory, text):
        self.port, self.mi_port = free_port(), free_port()
        directory.mkdir(parents=True)
        self.script = directory / "opensips.cfg"
        doors = f'loadmodule "mi_datagram.so"\nmodparam("mi_datagram", "socket_name", "udp:{HOST}:{self.mi_port}")\n'
        self.head = f'loadmodule "proto_tcp.so"\nmodparam("proto_tcp", "tcp_max_connections_per_ip", 0)\n{doors}'
        self.write(text)
        sockets = [word for transport in ("udp", "tcp") for word in ("--socket", f"{transport}:{HOST}:{self.port}")]
        self.child = twistd(["sipgw", "-c", str(self.script), *sockets], directory)
        try:
            wait_for(lambda: "listens on" in self.child.text() and bound(self.mi_port), "the server serves", self.child)
        except AssertionError:
            self.child.kill()
            raise
        self.domain = f"{HOST}:{self.port}"

    def write(self, text):
        """Change the script."""
        self.script.write_text(text.replace('loadmodule "proto_udp.so"\n', f'loadmodule "proto_udp.so"\n{self.head}'))

    def ask(self, method, **params):
        """The result of a management command."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(20)
            asking.connect((HOST, self.mi_port))
            asking.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
            return json.loads(asking.recv(65536))["result"]

    def count(self, name):
        """The value of one statistic, as ``group:name``."""
        return self.ask("get_statistics", statistics=[name.partition(":")[2]])[name]

    def resident(self):
        """Octets of memory that it holds."""
        return int(Path(f"/proc/{self.child.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self):
        """How many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.child.process.pid}/fd").iterdir()))

    def stop(self):
        """End it; its log, which has neither a traceback nor a bug."""
        self.child.process.send_signal(signal.SIGTERM)
        status = self.child.wait()
        text = self.child.text()
        if status != 0 or re.search("Traceback|CRITICAL|bug:|Unhandled", text):
            raise AssertionError(f"the server ended with {status}:\n{text[-5000:]}")
        return text
