"""sipp and what a test with sipp needs: a server that is ready, a phone of one request, a link that loses packets."""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
import shutil
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sipgw.sip.auth import Challenge, answer, choose, hash_a1
from tests.children import HOST, PATIENCE, Child, bound, free_port, twistd, wait_for

HERE = Path(__file__).parent
SCENARIOS = HERE / "scenarios"
CONFIG = os.environ.get("SIPGW_SIPP_CONFIG", str(HERE.parent / "configs" / "household.cfg"))
SIPP = shutil.which("sipp")


class Server:
    """A running SIP server, ready when it answers an OPTIONS; ``child`` is its process. ``ours``: it is sipgw."""

    def __init__(
        self, directory: Path, config: str = CONFIG, transports: Sequence[str] = ("udp",), port: int | None = None
    ) -> None:
        self.port = port or free_port()
        other = os.environ.get("SIPGW_SIPP_SERVER")
        self.ours = not other
        if other:
            command = [part.format(cfg=config, host=HOST, port=self.port) for part in shlex.split(other)]
            self.child = Child(command, directory)
        else:
            sockets = [word for transport in transports for word in ("--socket", f"{transport}:{HOST}:{self.port}")]
            self.child = twistd(["sipgw", "-c", config, *sockets], directory)
        self.phone = Phone(self.port)
        try:
            wait_for(self._answers, "the server answers OPTIONS", self.child)
        except AssertionError:
            self.child.kill()
            raise

    def _answers(self) -> bool:
        return self.phone.request("OPTIONS", f"sip:{HOST}:{self.port}", patience=0.1) is not None

    def stop(self) -> int:
        """End it by SIGTERM; its exit status."""
        self.phone.close()
        self.child.process.send_signal(signal.SIGTERM)
        return self.child.wait()


def media_port() -> int:
    """The first of four adjacent ports that nobody has, below those that the system gives out."""
    while True:
        port = random.randrange(10000, 30000, 4)
        with ExitStack() as stack:
            try:
                for number in range(4):
                    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind((HOST, port + number))
            except OSError:
                continue
        return port


class Phone:
    """The smallest SIP client: one request, one answer, on one socket."""

    def __init__(self, server: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self.port: int = self.socket.getsockname()[1]
        self.server = server
        self.count = 0
        self.answer = ""
        """The last final answer."""

    def request(
        self, method: str, uri: str, user: str = "probe", headers: str = "", patience: float = PATIENCE, password: str = ""
    ) -> int | None:
        """Send a request and wait for its final answer; its status, or None if none comes. A challenge is answered."""
        status = self._ask(method, uri, user, headers, patience)
        if status in (401, 407) and password:
            challenge = choose(map(Challenge.parse, re.findall(r"(?im)^(?:WWW|Proxy)-Authenticate: *(.*?)\r$", self.answer)))
            assert challenge is not None
            ha1 = hash_a1(user, challenge.realm, password, challenge.algorithm)
            credentials = answer(challenge, user, ha1, method, uri, cnonce="c")
            name = "Authorization" if status == 401 else "Proxy-Authorization"
            status = self._ask(method, uri, user, f"{headers}{name}: {credentials}\r\n", patience)
        return status

    def _ask(self, method: str, uri: str, user: str, headers: str, patience: float) -> int | None:
        self.count += 1
        call = f"{os.getpid()}-{self.port}-{self.count}"
        to = f"sip:{user}@{HOST}" if method == "REGISTER" else uri
        text = (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {HOST}:{self.port};rport;branch=z9hG4bK{call}\r\n"
            f"From: <sip:{user}@{HOST}>;tag={call}\r\nTo: <{to}>\r\nCall-ID: {call}\r\nCSeq: {self.count} {method}\r\n"
            f"Max-Forwards: 70\r\n{headers}Content-Length: 0\r\n\r\n"
        )
        self.socket.settimeout(patience)
        try:
            self.socket.sendto(text.encode(), (HOST, self.server))
            while True:
                text = self.socket.recv(65535).decode(errors="replace")
                status = int(text.split(" ", 2)[1]) if text.startswith("SIP/2.0 ") else 0
                if status >= 200 and call in text:
                    self.answer = text
                    return status
        except (TimeoutError, ConnectionError):
            return None

    def register(self, user: str, *ports: int, expires: int = 300, params: str = "") -> None:
        """Register contacts of ``user`` on loopback ports; ``params``: of their URIs."""
        contacts = ", ".join(f"<sip:{user}@{HOST}:{port}{params}>;expires={expires}" for port in ports)
        status = self.request("REGISTER", f"sip:{HOST}:{self.server}", user, f"Contact: {contacts}\r\n")
        if status != 200:
            raise AssertionError(f"REGISTER of {user} is answered {status}")

    def close(self) -> None:
        """Let the socket go."""
        self.socket.close()


class Sipp(Child):
    """One sipp, playing a scenario of ``scenarios/``, or ``xml``, as caller (to ``remote``) or, without ``remote``, as callee."""

    def __init__(
        self,
        directory: Path,
        scenario: str,
        *,
        remote: int | None = None,
        port: int | None = None,
        calls: int = 1,
        options: Sequence[str] = (),
        transport: str = "udp",
        xml: str = "",
        **values: str,
    ) -> None:
        assert SIPP is not None
        if transport == "tcp":
            options = ["-t", "t1", *options]
            values["params"] = ";transport=tcp"
        self.scenario = scenario
        self.port = port or free_port()
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"{scenario}.xml"
        file.write_text(xml or expand(f"@include {scenario}@", values))
        command = [SIPP, "-sf", str(file), "-m", str(calls), "-i", HOST, "-p", str(self.port), "-nostdin"]
        command += ["-mp", str(media_port())]  # its own search ends soon where many play
        command += ["-trace_err", "-error_file", "errors", "-trace_counts", "-trace_stat", "-stf", "statistics", "-fd", "1"]
        patience = PATIENCE + calls / 200  # twice that for all of its calls, which may begin 200 a second or more slowly
        command += ["-timeout", f"{patience * 2:.0f}", "-timeout_error", *options]
        if remote is not None:
            command.append(f"{HOST}:{remote}")
        super().__init__(command, directory, {"TERM": "dumb"})
        self.patience = patience
        if remote is None:
            wait_for(lambda: bound(self.port, transport) or self.process.poll() is not None, f"sipp plays {scenario}")

    def finish(self) -> dict[str, int]:
        """Wait until all calls have ended well; how many messages of each kind went, by ``counts``."""
        status = self.wait()
        if status != 0:
            errors = self.directory / "errors"
            found = errors.read_text(errors="replace")[:4000] if errors.exists() else self.text()[-2000:]
            raise AssertionError(f"{self.scenario}: sipp ends with {status}\n{found}")
        return self.counts()

    def counts(self) -> dict[str, int]:
        """The last row of sipp's counts: ``1_INVITE_Sent``, ``2_100_Recv``, ``3_180_Retrans``..."""
        files = list(self.directory.glob("*_counts.csv"))
        rows = list(csv.DictReader(files[0].open(), delimiter=";")) if files else []
        found = rows[-1] if rows else {}
        return {name: int(value) for name, value in found.items() if name and value and re.fullmatch(r"\d+_.*", name)}

    def statistics(self) -> tuple[int, int]:
        """How many calls succeeded and how many failed."""
        with open(self.directory / "statistics", newline="") as file:
            last = list(csv.DictReader(file, delimiter=";"))[-1]
        return int(last["SuccessfulCall(C)"]), int(last["FailedCall(C)"])


def expand(text: str, values: dict[str, str]) -> str:
    """Put scenarios and their parts together, and the values into them."""

    def included(found: re.Match[str]) -> str:
        name = found[1]
        file = SCENARIOS / f"{name}.xml"
        return expand((file if file.exists() else SCENARIOS / "parts" / f"{name}.xml").read_text(), values).rstrip("\n")

    text = re.sub(r"@include ([\w-]+)@", included, text)
    defaults = {"left": "left", "branch_header": "X-Branch:", "hops": "70", "talk": "50", "ring": "100"}
    defaults.update({"params": "", "near": "UDP", "far": "UDP"})
    defaults |= {"ringing_optional": "false", "reply_route": "true", "caller": "alice", "callee": "bob"}
    for name, value in {**defaults, **values}.items():
        text = text.replace(f"@{name.replace('_', '-')}@", value)
    return text


class LossyLink:
    """A link to ``server`` that loses the first copy of each distinct datagram that ``loses`` picks, in either direction.

    A client sends to ``port``; answers come back to it from there."""

    def __init__(self, server: int, loses: Callable[[bytes], bool]) -> None:
        self.server = (HOST, server)
        self.loses = loses
        self.lost = 0
        self.seen: set[bytes] = set()
        self.near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.near.bind((HOST, 0))
        self.near.settimeout(0.1)
        self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.far.bind((HOST, 0))
        self.far.settimeout(0.1)
        self.port: int = self.near.getsockname()[1]
        self.client: Any = None
        self.ended = False
        self.threads = [threading.Thread(target=self._carry, args=pair) for pair in ((self.near, True), (self.far, False))]
        for thread in self.threads:
            thread.start()

    def _carry(self, source: socket.socket, inward: bool) -> None:
        while not self.ended:
            try:
                data, peer = source.recvfrom(65535)
            except TimeoutError:
                continue
            if inward:
                self.client = peer
            if self.loses(data) and data not in self.seen:
                self.seen.add(data)
                self.lost += 1
                continue
            if inward:
                self.far.sendto(data, self.server)
            elif self.client is not None:
                self.near.sendto(data, self.client)

    def close(self) -> None:
        """End both directions."""
        self.ended = True
        for thread in self.threads:
            thread.join()
        self.near.close()
        self.far.close()
