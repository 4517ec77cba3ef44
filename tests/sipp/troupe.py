"""Calls with any number of parties, each a sipp of its own that plays acts (``acts.py``), through a real ``twistd``.

A caller calls ``sip:FLOW-PORT[-PORT...]@server``: the scripts in ``tests/configs`` choose what to do by the first word and find
the other parties by the ports. When all have played to the end nothing of the calls may be left in the server."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.children import HOST, bound, free_port, wait_for
from tests.sipp.acts import scenario
from tests.sipp.harness import SIPP, Server, Sipp

NIGHTLY = bool(os.environ.get("SIPGW_NIGHTLY"))
CALLS = 20 if NIGHTLY else 2
"""Calls of each flow."""
RATE = 2 if NIGHTLY else 50
"""How many of them begin in a second."""
TALK = 16_000 if NIGHTLY else 1800
"""Milliseconds that calls last in whose middle the server is killed: none has ended when the last one has begun."""
CONFIGS = Path(__file__).parent.parent / "configs"
QUICK = 'modparam("tm", "wt_timer", 1)\n'
"""What is over is forgotten sooner."""


@dataclass
class Flow:
    """One kind of call: its ``caller``, and the ``others`` in the order of their ports."""

    name: str
    caller: str
    others: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)


class TroupeTestCase(SynchronousTestCase):
    """A server with the script ``config``, and whoever calls through it."""

    config = ""

    def setUp(self) -> None:
        """Start the server."""
        if SIPP is None:
            raise SkipTest("sipp is not installed (Debian: sip-tester)")
        if os.environ.get("SIPGW_SIPP_SERVER") or os.environ.get("SIPGW_SIPP_CONFIG"):
            raise SkipTest("another server has another configuration")
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.mi_port = free_port()
        self.children = 0
        self.file = self.directory / "opensips.cfg"
        text = self.script((CONFIGS / self.config).read_text())
        doors = f'loadmodule "mi_datagram.so"\nmodparam("mi_datagram", "socket_name", "udp:{HOST}:{self.mi_port}")\n'
        self.file.write_text(text.replace('loadmodule "proto_udp.so"\n', f'loadmodule "proto_udp.so"\n{doors}', 1))
        self.server = self.start()
        self.addCleanup(lambda: self.server.child.kill())
        self.addCleanup(self.end)
        self.timers = self.count("sipgw:timers")

    def script(self, text: str) -> str:
        """What is made of the text of the script."""
        return text.replace("\nroute {", f"\n{QUICK}\nroute {{", 1)

    def start(self, port: int | None = None) -> Server:
        """Start the server; it listens for management commands, too."""
        server = Server(self.directory / f"server{self.children}", str(self.file), port=port)
        self.children += 1
        wait_for(lambda: bound(self.mi_port), "the server takes commands", server.child)
        return server

    def restart(self) -> None:
        """Kill the server and start it anew at the same port."""
        self.server.child.kill()
        self.server.phone.close()
        self.server = self.start(self.server.port)

    def end(self) -> None:
        """End the server: it leaves with status 0 and has logged neither a traceback nor a bug."""
        status = self.server.stop()
        text = self.server.child.text()
        if status != 0 or "Traceback" in text or "CRITICAL" in text or "bug" in text:
            raise AssertionError(f"the server ended with {status}:\n{text[-5000:]}")

    # -- what the server says

    def ask(self, method: str, /, **params: object) -> object:
        """The result of a management command."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(10)
            asking.connect((HOST, self.mi_port))
            asking.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode())
            answer = json.loads(asking.recv(65536))
        if "error" in answer:
            raise AssertionError(f"{method} {params}: {answer['error']}")
        return answer["result"]

    def count(self, name: str) -> int:
        """The value of one statistic, as ``group:name``."""
        found = self.ask("get_statistics", statistics=[name.partition(":")[2]])
        assert isinstance(found, dict)
        return int(found.get(name, 0))

    def left(self) -> dict[str, object]:
        """What is still there of the calls; timers that have come on top of those of an idle server."""
        names = ("tm:inuse_transactions", "dialog:active_dialogs", "dialog:early_dialogs")
        found: dict[str, object] = {name: self.count(name) for name in names}
        found["timers"] = max(0, self.count("sipgw:timers") - self.timers)
        for command in ("dlg_list", "b2be_list", "b2b_list", "ua_session_list"):
            if command in self.commands():
                listed = self.ask(command)
                found[command] = listed.get("Dialogs", listed) if isinstance(listed, dict) else listed
        return {name: value for name, value in found.items() if value}

    def commands(self) -> list[str]:
        """The commands that the server knows."""
        if not hasattr(self, "_commands"):
            self._commands = [str(name) for name in self.ask("which")]  # type: ignore[attr-defined]
        return self._commands

    def assertNothingLeft(self) -> None:
        """All of the calls is forgotten, before long."""
        end = time.monotonic() + 20
        while (left := self.left()) and time.monotonic() < end:
            time.sleep(0.1)
        self.assertEqual(left, {}, self.server.child.text()[-3000:])

    # -- the calls

    def act(
        self, name: str, text: str, values: Mapping[str, str], *, port: int | None = None, remote: int | None = None,
        calls: int = 1, options: Sequence[str] = (),
    ) -> Sipp:
        """Start one sipp; the last word of its name is the party that it plays."""
        self.children += 1
        child = Sipp(
            self.directory / f"{self.children}-{name.replace(' ', '-')}", name.replace(" ", "-"), port=port, remote=remote,
            calls=calls, options=options, xml=scenario(name.rpartition(" ")[2], text, values),
        )
        self.addCleanup(child.kill)
        return child

    def begin(self, flow: Flow, calls: int = CALLS) -> list[Sipp]:
        """Start all who take part in a flow, the caller last."""
        ports = {name: free_port() for name in flow.others}
        values = {"target": "-".join([flow.name, *map(str, ports.values())]), "server": str(self.server.port), "talk": str(TALK)}
        values |= {name: str(port) for name, port in ports.items()} | flow.values
        found = [
            self.act(f"{flow.name} {name}", text, values, port=ports[name], calls=calls) for name, text in flow.others.items()
        ]
        pace = ["-r", str(RATE), "-l", str(calls)]
        found.append(
            self.act(f"{flow.name} caller", flow.caller, values, remote=self.server.port, calls=calls, options=pace)
        )
        return found

    def finish(self, *parties: Sipp) -> None:
        """Wait until all have played to the end; each call of each went well. One that fails ends the others soon."""
        end = time.monotonic() + max(party.patience * 3 for party in parties)
        while any(party.process.poll() is None for party in parties) and time.monotonic() < end:
            if any(party.process.poll() for party in parties):
                end = min(end, time.monotonic() + 3)
            time.sleep(0.02)
        faults = []
        for party in parties:
            if party.process.poll() is None:
                party.kill()
                faults.append(f"{party.scenario}: it did not end")
            else:
                try:
                    party.finish()
                    if party.statistics()[1]:
                        faults.append(f"{party.scenario}: {party.statistics()[1]} of its calls failed")
                except AssertionError as fault:
                    faults.append(str(fault))
        if faults:
            faults.append(self.server.child.text()[-3000:])
            raise AssertionError("\n".join(faults))

    def play(self, *flows: Flow) -> None:
        """Play all flows at the same time; nothing is left of them."""
        parties = [self.begin(flow) for flow in flows]
        self.finish(*(party for all_ in parties for party in all_))
        self.assertNothingLeft()
